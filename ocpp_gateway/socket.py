"""A station's WebSocket: websockets' own connection, whose messages are handed over where they arrive.

Reading by `recv()` costs a queue, a future and a task's turn for each message; the gateway answers from a commit's
callback and needs none of them (docs/decisions/0017). All else (handshake, limits, UTF-8, closing) is the library's.
"""

import asyncio
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event, State

REQUEST_S = 5.0
HIGH_WATER = (
    64 * 1024
)  # bytes that a station has not taken off us: until it does, nothing more is read from it


class StationSocket(ServerConnection):
    """`take` gets each message, None for a binary one; `pulse` is called for each pong. Set both before data comes."""

    take: Callable[[str | None], None] | None = None
    pulse: Callable[[], None] | None = None
    _parts: list[bytes] | None = None
    _holds: int = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Whoever connects and does not ask is sent away soon. How long our answer takes is another matter: a fleet
        that comes back at once waits for it in line."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(REQUEST_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ask_no_more()
        super().connection_lost(exc)

    def _ask_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def process_event(self, event: Event) -> None:
        if isinstance(event, Request):
            self._ask_no_more()
        if self.take is None or isinstance(event, Request) or not isinstance(event, Frame):
            super().process_event(event)
        elif event.opcode is Opcode.TEXT and event.fin:
            self._hand_over(bytes(event.data))
        elif event.opcode in (Opcode.TEXT, Opcode.CONT):
            self._join(event)
        elif event.opcode is Opcode.BINARY:
            self.take(None)
        else:
            if event.opcode is Opcode.PONG and self.pulse is not None:
                self.pulse()
            super().process_event(event)

    def _join(self, event: Frame) -> None:
        """Fragments; the library holds their sum to `max_size`."""
        self._parts = self._parts or []
        self._parts.append(bytes(event.data))
        if event.fin:
            whole, self._parts = b"".join(self._parts), None
            self._hand_over(whole)

    def _hand_over(self, data: bytes) -> None:
        assert self.take is not None
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self.protocol.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
            self.send_data()
            return
        self.take(text)

    # -- out, without waiting --------------------------------------------------------------------------------------

    def say(self, text: str) -> bool:
        """False when the link is going down: the station asks again on the next one."""
        if self.protocol.state is not State.OPEN:
            return False
        self.protocol.send_text(text.encode())
        self.send_data()
        return True

    def knock(self) -> None:
        """A ping whose pong only counts as a sign of life."""
        try:
            self.protocol.send_ping(b"")
        except InvalidState:
            return
        self.send_data()

    # -- back-pressure ---------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Stop reading: TCP tells the station to wait. Each hold needs its release."""
        self._holds += 1
        if self._holds == 1:
            self.transport.pause_reading()

    def release(self) -> None:
        self._holds -= 1
        if self._holds == 0 and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.hold()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.release()
