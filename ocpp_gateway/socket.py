"""A station's WebSocket: websockets' own connection, whose messages are handed over where they arrive.

Reading by `recv()` costs a queue, a future and a task's turn for each message; the gateway answers from a commit's
callback and needs none of them (docs/decisions/0017). What is nearly every read and write, one whole text frame
(RFC 6455 5.2), is taken apart and put together here; all else (handshake, limits, UTF-8, fragments, closing) is the
library's.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.frames import apply_mask as _apply_mask  # pyright: ignore[reportPrivateImportUsage] (C where there is)
from websockets.http11 import Request
from websockets.protocol import Event, State

REQUEST_S = 5.0
READ_SIZE = 16 * 1024  # asyncio takes memory for 256 KiB at each read, which costs more than the read
HIGH_WATER = (
    64 * 1024
)  # bytes that a station has not taken off us: until it does, nothing more is read from it
_TEXT, _MASKED, _IN_TWO_BYTES = 0x81, 0x80, 126


def _awaits(parser: Any) -> str:
    """The name of what the library's parser stands in. In `at_eof` it waits for the next frame to begin; elsewhere what
    comes belongs to a frame that it has begun with."""
    while (within := getattr(parser, "gi_yieldfrom", None)) is not None:
        parser = within
    return getattr(parser, "__name__", "")


class StationSocket(ServerConnection):
    """`take` gets each message, None for a binary one; `pulse` is called for each pong. Set both before data comes."""

    take: Callable[[str | None], None] | None = None
    pulse: Callable[[], None] | None = None
    _parts: list[bytes] | None = None
    _is_between: bool = False
    _holds: int = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Whoever connects and does not ask is sent away soon. How long our answer takes is another matter: a fleet
        that comes back at once waits for it in line."""
        super().connection_made(transport)
        cast(Any, transport).max_size = READ_SIZE
        self._patience = self.loop.call_later(REQUEST_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ask_no_more()
        super().connection_lost(exc)

    def _ask_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def data_received(self, data: bytes) -> None:
        text = self._whole_text(data) if self._is_between else None
        if text is not None and self.take is not None:
            self.take(text)
            return
        super().data_received(data)
        is_whole = getattr(self.protocol, "current_size", 0) is None  # no message is in fragments
        self._is_between = is_whole and _awaits(self.protocol.parser) == "at_eof"

    def _whole_text(self, data: bytes) -> str | None:
        """Where `data` is one masked text frame and nothing else. Its length is below the limit: it has 16 bits."""
        if data[0] != _TEXT or len(data) < 8 or self.protocol.state is not State.OPEN:
            return None
        start, length = 2, data[1] - _MASKED  # negative where it is not masked
        if length == _IN_TWO_BYTES:
            start, length = 4, data[2] << 8 | data[3]
        elif length > _IN_TWO_BYTES:
            return None
        if len(data) != start + 4 + length:
            return None
        try:
            return _apply_mask(data[start + 4 :], data[start : start + 4]).decode()
        except UnicodeDecodeError:
            return None  # the library tells the station

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
        data = text.encode()
        if len(data) < _IN_TWO_BYTES:  # nothing that compressing makes shorter
            self.transport.write(bytes((_TEXT, len(data))) + data)
        else:
            self.protocol.send_text(data)
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
