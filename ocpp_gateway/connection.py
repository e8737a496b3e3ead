"""One station's link: reads, answers in order, asks one thing at a time, and gives way to a newer connection."""

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime
from types import ModuleType
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from app.access.verdict import Refused
from app.kernel.clock import utcnow
from app.stations import ocpp_schemas
from app.stations.reports import Frame
from ocpp_gateway import codec, lenient
from ocpp_gateway.codec import Broken, Call, Error, Result
from ocpp_gateway.metrics import MESSAGES
from ocpp_gateway.seam import DatabaseAway, Seam
from ocpp_gateway.watch import Watch
from tenants.resolve import StationRoute

log = logging.getLogger("livery.gateway")
CALL_TIMEOUT_S = 30.0
SWEEP_S = 5.0
GRACE_S = 15.0
SETTLE_S, SLOW_SETTLE_S = 0.2, 20.0
PING_S, TAKEOVER_PING_S = 60.0, 5.0
RATE_PER_S, BURST = 20.0, 300.0
FLOOD_S = 30.0
MAX_BROKEN = 20
ECHO_S, ECHO_SIZE = 600.0, 200
NEVER_ECHOED = frozenset({"Authorize", "Heartbeat", "BootNotification"})
# What a station may have stored for days and pour out on us: slowed down, never a reason to disconnect.
STORED = frozenset({"MeterValues", "StartTransaction", "StopTransaction", "TransactionEvent"})


class Connection:
    """`run` lives as long as the socket. Locks per direction: we never wait for a station while it waits for us."""

    def __init__(
        self,
        socket: ServerConnection,
        route: StationRoute,
        version: ModuleType,
        seam: Seam,
        remote: str,
        watch: Watch,
    ) -> None:
        self.socket, self.route, self.version, self.seam, self.remote = socket, route, version, seam, remote
        self.watch, self.attributes = watch, route.attributes
        self.epoch = 0
        self.registration = "pending"
        self.seen_at: datetime = utcnow()
        self.close_reason = ""
        self._calls: asyncio.Queue[tuple[Call, str, datetime]] = asyncio.Queue(maxsize=int(BURST))
        self._pending: dict[str, asyncio.Future[Result | Error]] = {}
        self._asking = asyncio.Lock()
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._has_booted = self._booted_here = self._triggered = False
        self._broken_count = 0
        self._bucket, self._bucket_at = BURST, time.monotonic()
        self._echo: OrderedDict[str, tuple[float, bytes, str]] = OrderedDict()
        self._settling: asyncio.Task[None] | None = None
        self._full_since: float | None = None

    async def run(self, arrived: Callable[["Connection"], Awaitable[None]]) -> None:
        """`arrived` is told once the epoch is known: it closes what is older."""
        opened = await self.seam.opened(self.route, self.version.SUBPROTOCOL, self.remote)
        self.epoch, self.registration, self._has_booted = opened.epoch, opened.registration, opened.has_booted
        await arrived(self)
        tasks = [
            asyncio.create_task(one)
            for one in (self._answer_calls(), self._send_commands(), self._keep_alive())
        ]
        try:
            await self._read()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for future in self._pending.values():
                future.cancel()

    # -- in --------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            async for raw in self.socket:
                self.seen_at = utcnow()
                if not isinstance(raw, str):
                    await self.close(1003, "binary frames are not OCPP")
                    return
                if raw:
                    await self._take(raw)
        except ConnectionClosed:
            pass
        self.close_reason = self.close_reason or _why(self.socket)

    async def _take(self, raw: str) -> None:
        message = codec.decode(raw)
        if isinstance(message, Call):
            await self._take_call(message, raw)
        elif isinstance(message, Broken):
            await self._broken(message, raw)
        else:
            future = self._pending.get(message.message_id)
            if future is None and self._pending and self.attributes.get("accept_by_order"):
                future = next(iter(self._pending.values()))  # only one CALL is ever in flight
            if future is not None and not future.done():
                future.set_result(message)
            else:
                MESSAGES.labels("unasked", "ignored").inc()

    async def _take_call(self, call: Call, raw: str) -> None:
        """A full queue stops the reading: back-pressure, nothing is dropped. Who never waits for answers must go."""
        if call.remark is not None:
            self.watch.note(self.route, call.remark, call.action[:40])
        zone = self.attributes.get("no_zone")
        if isinstance(zone, str):
            call = dataclasses.replace(call, payload=lenient.with_zone(call.payload, zone))
        if not self._calls.full():
            self._full_since = None
        elif call.action not in STORED:
            self._full_since = self._full_since or time.monotonic()
            if time.monotonic() - self._full_since > FLOOD_S:
                self.watch.note(self.route, "message_flood", call.action[:40])
                await self.close(1008, "too many messages")
                return
        await self._calls.put((call, raw, self.seen_at))

    async def _broken(self, message: Broken, raw: str) -> None:
        """Logged, answered where the version says so, and the socket lives: for twenty of them."""
        self._broken_count += 1
        MESSAGES.labels("broken", message.code).inc()
        version = self.version.SUBPROTOCOL
        frames = [self._frame("in", "other", message.message_id, None, raw[:4000], error=message.code)]
        self.watch.note(self.route, "broken_frames", message.reason)
        if message.message_id is not None or message.is_call or version != "ocpp1.6":
            out = codec.encode_error(version, message.message_id, message.code, message.reason)
            frames.append(self._frame("out", "error", message.message_id, None, out, error=message.code))
            await self._send(out)
        with contextlib.suppress(Exception):
            await self.seam.keep(self.route, frames)
        if self._broken_count >= MAX_BROKEN:
            await self.close(1008, "too many broken frames")

    async def _answer_calls(self) -> None:
        while True:
            call, raw, received_at = await self._calls.get()
            await self._slow_down()
            try:
                out = await self._answer(call, raw, received_at)
            except DatabaseAway:
                await self.close(1013, "try again later")
                return
            await self._send(out)
            self._calls.task_done()
            await self._after(call, out)

    async def _answer(self, call: Call, raw: str, received_at: datetime) -> str:
        payload = hashlib.sha256(raw.encode()).digest()
        echoed = self._echo.get(call.message_id)
        if echoed and echoed[1] == payload and echoed[0] > time.monotonic() - ECHO_S:
            MESSAGES.labels(call.action[:40], "echoed").inc()
            return echoed[2]
        if echoed and call.action not in NEVER_ECHOED:
            self.watch.note(self.route, "message_id_reused", call.action[:40])
        if self.registration != "accepted" and call.action != "BootNotification":
            return codec.encode_error(
                self.version.SUBPROTOCOL, call.message_id, "SecurityError", "not accepted yet"
            )
        if (held := await self._held_back(call, raw, received_at)) is not None:
            return held
        out = await self.seam.answer(self.route, self.version, call, raw, received_at)
        self._remember(call, out)
        MESSAGES.labels(
            call.action[:40] if call.action in self.version.HANDLERS else "other", "answered"
        ).inc()
        if call.action not in NEVER_ECHOED:
            self._echo[call.message_id] = (time.monotonic(), payload, out)
            while len(self._echo) > ECHO_SIZE:
                self._echo.popitem(last=False)
        return out

    async def _held_back(self, call: Call, raw: str, received_at: datetime) -> str | None:
        """Boots without end and tried-out cards are answered without the database (ocpp.md 2, rows 53 and 55)."""
        if call.action == "BootNotification" and self.registration == "accepted":
            boot = self.watch.remembered_boot(self.route, call.payload)
            if boot is None:
                return None
            return codec.encode_result(call.message_id, boot | {"currentTime": codec.timestamp(received_at)})
        if call.action != "Authorize" or not self.watch.tries_cards(self.route):
            return None
        self.watch.note(self.route, "card_guessing")
        refused = Refused(status="Invalid", reason="unknown", message="too many cards were tried")
        out = codec.encode_result(call.message_id, self.version.authorize_answer(refused))
        frames = [
            self._frame("in", "call", call.message_id, call.action, raw),
            self._frame("out", "result", call.message_id, call.action, out),
        ]
        with contextlib.suppress(Exception):
            await self.seam.keep(self.route, frames)
        return out

    def _remember(self, call: Call, out: str) -> None:
        if call.action not in ("BootNotification", "Authorize"):
            return
        answer = codec.decode(out)
        if not isinstance(answer, Result):
            return
        if call.action == "BootNotification":
            self.watch.booted(self.route, call.payload, answer.payload)
            return
        info = answer.payload.get("idTagInfo") or answer.payload.get("idTokenInfo") or {}
        if info.get("status") != "Accepted":
            self.watch.card_refused(self.route)

    async def _slow_down(self) -> None:
        """20 messages a second with bursts of 300: then the station waits, and nothing is lost."""
        now = time.monotonic()
        self._bucket = min(BURST, self._bucket + (now - self._bucket_at) * RATE_PER_S)
        self._bucket_at = now
        self._bucket -= 1
        if self._bucket < 0:
            await asyncio.sleep(-self._bucket / RATE_PER_S)

    async def _after(self, call: Call, out: str) -> None:
        """No CALL of ours before the boot was answered, unless the station was accepted before and does not boot."""
        if call.action == "BootNotification":
            if self._settling is not None:
                self._settling.cancel()  # it boots again: nothing is asked inside the loop
            self._settling = asyncio.create_task(self._booted(out))
        elif self._has_booted and self.registration == "accepted" and self._settling is None:
            self._ready.set()

    async def _booted(self, out: str) -> None:
        answer = codec.decode(out)
        if not isinstance(answer, Result):
            return
        self._booted_here = True
        self.registration = str(answer.payload.get("status", "")).lower()
        await asyncio.sleep(SLOW_SETTLE_S if self.attributes.get("slow_start") else SETTLE_S)
        if self.registration != "rejected":
            self._ready.set()

    async def _send(self, frame: str) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(frame)

    # -- out -------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There may be a command."""
        self._wake.set()

    async def _send_commands(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._ready.wait()
        if not self._ready.is_set():
            if not self._has_booted or self._settling is not None:
                await self._ready.wait()
            self._ready.set()
        if not (self._booted_here or self._triggered or self.attributes.get("no_boot_request")):
            self._triggered = True
            action, payload = self.version.boot_trigger()
            with contextlib.suppress(TimeoutError, ConnectionClosed):
                await self.call(action, payload)
        while True:
            try:
                while await self._send_one():
                    pass
            except ConnectionClosed:
                return
            except Exception:
                log.exception("station %s: commands wait", self.route.identity)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._wake.wait()

    async def _send_one(self) -> bool:
        command = await self.seam.claim(self.route, self.epoch)
        if command is None:
            return False
        message_id = uuid.uuid4().hex
        out = codec.encode_call(message_id, command.action, command.payload)
        frames = [self._frame("out", "call", message_id, command.action, out)]
        status, answer, error = "unknown", None, "no answer within 30 s"
        try:
            reply = await self.call(command.action, command.payload, message_id=message_id)
            if isinstance(reply, Result):
                status, error = self._judge(command.action, reply.payload)
                answer = reply.payload
                raw = codec.encode_result(message_id, reply.payload)
                frames.append(self._frame("in", "result", message_id, command.action, raw))
            else:
                status, error = "failed", f"{reply.code}: {reply.description}".rstrip(": ")
                raw = codec.encode_error(self.version.SUBPROTOCOL, message_id, reply.code, reply.description)
                frames.append(self._frame("in", "error", message_id, command.action, raw, error=reply.code))
        except TimeoutError:
            pass
        except (ConnectionClosed, asyncio.CancelledError):
            error = "the connection was lost before the answer"
            await asyncio.shield(self.seam.conclude(self.route, command.id, "unknown", None, error, frames))
            raise
        await self.seam.conclude(self.route, command.id, status, answer, error, frames)  # type: ignore[arg-type]
        return True

    def _judge(self, action: str, answer: dict[str, Any]) -> tuple[str, str | None]:
        """The outcome; an answer whose status is none that this question has fits another (ocpp.md 2, row 50)."""
        words = ocpp_schemas.answer_words(self.version.SUBPROTOCOL, action)
        if words and answer.get("status") not in words:
            self.watch.note(self.route, "answer_misfit", action)
            return "failed", f"the answer does not fit {action}"
        return self.version.outcome(action, answer), None

    def _frame(
        self,
        direction: Any,
        kind: Any,
        message_id: str | None,
        action: str | None,
        raw: str,
        error: str | None = None,
    ) -> Frame:
        return Frame(
            direction=direction, kind=kind, message_id=message_id, action=action, raw=raw, at=utcnow(),
            ocpp_version=self.version.SUBPROTOCOL, error=error,
        )  # fmt: skip

    async def call(
        self, action: str, payload: dict[str, Any], *, message_id: str | None = None
    ) -> Result | Error:
        """One CALL in flight. TimeoutError after 30 s: it may have happened, and is never sent again by us."""
        message_id = message_id or uuid.uuid4().hex
        async with self._asking:
            future: asyncio.Future[Result | Error] = asyncio.get_running_loop().create_future()
            self._pending[message_id] = future
            try:
                await self.socket.send(codec.encode_call(message_id, action, payload))
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    return await future
            finally:
                del self._pending[message_id]

    # -- life and end ----------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        """A ping each minute of silence; any frame is a sign of life. Some stations never answer pings but talk."""
        while True:
            await asyncio.sleep(PING_S)
            if self.attributes.get("no_ping") or (utcnow() - self.seen_at).total_seconds() < PING_S:
                continue
            before = self.seen_at
            try:
                async with asyncio.timeout(PING_S / 2):
                    await (await self.socket.ping())
            except TimeoutError:
                if self.seen_at == before:
                    await self.close(1011, "no sign of life")
                    return
            except ConnectionClosed:
                return

    async def give_way(self) -> None:
        """A newer connection of this station has won. Was this one alive? Then two boxes claim to be the station."""
        try:
            async with asyncio.timeout(TAKEOVER_PING_S):
                await (await self.socket.ping())
            self.watch.note_each(self.route, "duplicate_identity", f"from {self.remote}")
        except (TimeoutError, ConnectionClosed):
            pass
        await self.close(1008, "a newer connection of this station")

    async def close(self, code: int, reason: str) -> None:
        self.close_reason = self.close_reason or reason
        await self.socket.close(code, reason)

    async def drain(self) -> None:
        """Finish what was taken, then tell the station that the service restarts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self._calls.join()
        await self.close(1012, "service restart")


def _why(socket: ServerConnection) -> str:
    reason = socket.close_reason or ""
    return f"{socket.close_code or 1006} {reason}".strip()[:100]
