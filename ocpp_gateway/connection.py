"""One station's link: takes, answers in order, asks one thing at a time, and gives way to a newer connection.

No task waits for an idle station: messages are taken where they arrive (`socket.py`), hot ones are answered from the
commit's callback (`flusher.py`), and a task lives only while a verb or a command is at work.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from types import ModuleType
from typing import Any

from websockets.exceptions import ConnectionClosed

from app.access.verdict import Refused
from app.charging.ingest import HotReadings, Written
from app.kernel.clock import utcnow
from app.kernel.tracing import span
from app.stations import ocpp_schemas
from app.stations.commands import ClaimedCommand, Outcome
from app.stations.reports import Frame
from ocpp_gateway import codec, hot, lenient
from ocpp_gateway.aside import DatabaseAway
from ocpp_gateway.codec import Broken, Call, Error, Result, Unanswered
from ocpp_gateway.flusher import Flusher
from ocpp_gateway.metrics import ACK_S, MESSAGES, PACE
from ocpp_gateway.seam import Seam
from ocpp_gateway.socket import StationSocket
from ocpp_gateway.watch import Watch
from tenants.resolve import StationRoute

log = logging.getLogger("livery.gateway")
CALL_TIMEOUT_S = 30.0
GRACE_S = 15.0
SETTLE_S, SLOW_SETTLE_S = 0.2, 20.0
PING_S, TAKEOVER_PING_S = 60.0, 5.0
RATE_PER_S, BURST = 20.0, 300.0
MOST_WAITING = 32  # calls taken from one station and not answered yet; then its socket is not read
FLOOD_S = 30.0
MAX_BROKEN = 20
ECHO_S, ECHO_SIZE = 600.0, 200
NEVER_ECHOED = frozenset({"Authorize", "Heartbeat", "BootNotification"})
# What a station may have stored for days and pour out on us: slowed down, never a reason to disconnect.
STORED = frozenset({"MeterValues", "StartTransaction", "StopTransaction", "TransactionEvent"})
HOT_ANSWERED = {action: MESSAGES.labels(action, "answered") for _, action in hot.READERS}
ACK_HOT, ACK_COLD = ACK_S.labels("hot"), ACK_S.labels("verb")

Taken = tuple[Call | Broken | Unanswered | HotReadings, str, int]


class Connection:
    """`run` lives as long as the socket. Each direction goes on by itself: we never wait for a station while it waits
    for us."""

    __slots__ = (
        "_booted_here", "_broken_count", "_bucket", "_bucket_at", "_echo", "_flusher", "_full_since", "_has_booted",
        "_heard", "_invited", "_is_busy", "_is_held", "_is_ready", "_is_wanted", "_loop", "_pending", "_pinged_us",
        "_settling", "_tasks", "_triggered", "_waiting", "_worker", "close_reason", "epoch", "over",
        "registration", "remote", "route", "seam", "seen_us", "socket", "station", "version", "watch",
    )  # fmt: skip

    def __init__(
        self, socket: StationSocket, route: StationRoute, version: ModuleType, seam: Seam, flusher: Flusher,
        watch: Watch, remote: str,
    ) -> None:  # fmt: skip
        self.socket, self.route, self.version, self.seam, self.remote = socket, route, version, seam, remote
        self.watch = watch
        self.station = str(route.station_id)
        self.epoch = 0
        self.registration = "pending"
        self.seen_us = _now_us()
        self.close_reason = ""
        self._flusher, self._loop = flusher, asyncio.get_running_loop()
        self._waiting: deque[Taken] = deque()
        self._is_busy = self._is_held = False
        self._pending: dict[str, asyncio.Future[Result | Error]] = {}
        self._heard: Result | Error | None = None
        self._invited = frozenset({"BootNotification"})
        self.over = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._is_ready = self._is_wanted = False
        self._has_booted = self._booted_here = self._triggered = False
        self._broken_count = 0
        self._bucket, self._bucket_at = BURST, time.monotonic()
        self._echo: OrderedDict[str, tuple[float, bytes, str]] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pinged_us: int | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._full_since: float | None = None
        # At once, before anything is awaited: what the station says first must not go past us.
        socket.take, socket.pulse = self._take, self._pulse

    @property
    def attributes(self) -> dict[str, Any]:
        """What we are lenient about with this station."""
        return self.route.attributes

    def learn(self, attributes: dict[str, Any]) -> None:
        self.route = dataclasses.replace(self.route, attributes=attributes)

    async def run(self, arrived: Callable[["Connection"], Awaitable[None]]) -> None:
        """`arrived` is told once the epoch is known: it closes what is older."""
        opened = await self.seam.opened(self.route, self.version.SUBPROTOCOL, self.remote)
        self.epoch, self.registration, self._has_booted = opened.epoch, opened.registration, opened.has_booted
        self._is_wanted = opened.has_commands
        await arrived(self)
        grace = self._loop.call_later(GRACE_S, self._grace_is_over)
        try:
            self._pump()
            await self.socket.wait_closed()
        finally:
            grace.cancel()
            if self._settling is not None:
                self._settling.cancel()
            self.close_reason = self.close_reason or _why(self.socket)
            # What is at work goes on to its end: it was heard, and a query that is cut off costs seconds.
            self._waiting.clear()
            if self._worker is not None:
                self._worker.cancel()
                await asyncio.gather(self._worker, return_exceptions=True)
            for future in self._pending.values():
                future.cancel()
            while self._tasks:
                await asyncio.gather(*self._tasks, return_exceptions=True)
            # The socket's callbacks and ours name each other: cut here, so that memory is free at once.
            self.socket.take = self.socket.pulse = None

    # -- in --------------------------------------------------------------------------------------------------------

    def _take(self, raw: str | None) -> None:
        """A message, where it arrives. Answers to our own CALLs are handed on at once, whatever else is at work."""
        self.seen_us = _now_us()
        if raw is None:
            self._start(self.close(1003, "binary frames are not OCPP"))
        elif raw:
            message = self._read(raw, self.seen_us)
            if isinstance(message, Result | Error):
                self._resolve(message)
            else:
                self._queue(message, raw)

    def _read(self, raw: str, received_us: int) -> HotReadings | codec.Message:
        if self.registration == "accepted":
            message = hot.read(self.version.SUBPROTOCOL, self.route.tenant_id, self.station, raw, received_us)
            if message is not None:
                return message
        return codec.decode(raw, self.version.SUBPROTOCOL)

    def _queue(self, message: Call | Broken | Unanswered | HotReadings, raw: str) -> None:
        """A full queue stops the reading: back-pressure, nothing is dropped. Who never waits for answers must go."""
        if isinstance(message, Call):
            message = self._made_plain(message)
        if self._broken_count and isinstance(message, Call | HotReadings):
            self._broken_count -= 1  # who talks sense in between is no stranger
        self._waiting.append((message, raw, self.seen_us))
        self._pump()
        if len(self._waiting) <= MOST_WAITING or self._is_held:
            return
        self._is_held = True
        self.socket.hold()
        self._full_since = self._full_since or time.monotonic()

    def _made_plain(self, call: Call) -> Call:
        if call.remark is not None:
            self.watch.note(self.route, call.remark, call.action[:40])
        zone = self.attributes.get("no_zone")
        if isinstance(zone, str):
            return dataclasses.replace(call, payload=lenient.with_zone(call.payload, zone))
        if (at := lenient.without_zone(call.payload)) is not None:
            self.watch.note(self.route, "time_without_zone", f"{call.action[:40]}: {at[:40]}")
        return call

    def _resolve(self, message: Result | Error) -> None:
        future = self._pending.get(message.message_id)
        if future is None and self._pending and self.attributes.get("accept_by_order"):
            future = next(iter(self._pending.values()))  # only one CALL is ever in flight
        if future is not None and not future.done():
            self._heard = message
            future.set_result(message)
        else:
            MESSAGES.labels("unasked", "ignored").inc()

    def _pulse(self) -> None:
        self.seen_us = _now_us()

    def _pump(self) -> None:
        """Begins with what waits, one at a time and in order."""
        while self._waiting and not self._is_busy and self.epoch:
            taken = self._waiting.popleft()
            if not self._waiting:
                self._full_since = None
            elif self._is_flooded(taken[0]):
                self.watch.note(self.route, "message_flood", getattr(taken[0], "action", "other")[:40])
                self._start(self.close(1008, "too many messages"))
                return
            if self._is_held and len(self._waiting) <= MOST_WAITING // 2:
                self._is_held = False
                self.socket.release()
            self._is_busy = True
            delay = self._delay()
            if delay > 0:
                self._loop.call_later(delay, self._begin_late, taken)
            else:
                self._begin(taken)

    def _is_flooded(self, message: Call | Broken | Unanswered | HotReadings) -> bool:
        return (
            self._full_since is not None and time.monotonic() - self._full_since > FLOOD_S
            and getattr(message, "action", "other") not in STORED
        )  # fmt: skip

    def _begin_late(self, taken: Taken) -> None:
        self._begin(taken)
        self._pump()

    def _begin(self, taken: Taken) -> None:
        message, raw, received_us = taken
        if isinstance(message, HotReadings):
            self._flusher.put(message, self._flushed)
        elif isinstance(message, Call) and message.action == "Heartbeat" and self.registration == "accepted":
            self._send(
                codec.encode_result(
                    message.message_id, {"currentTime": codec.timestamp(_moment(received_us))}
                )
            )
            MESSAGES.labels("Heartbeat", "answered").inc()
            self._after(message, "")
            self._is_busy = False
        else:
            self._start(self._handle(message, raw, received_us))

    def _flushed(self, message: HotReadings, written: Written | None) -> None:
        if written is None:
            self._start(self.close(1013, "try again later"))
        elif written.is_cold:
            self._start(self._handle(codec.decode(message.raw), message.raw, message.received_us))
        else:
            self._send(codec.encode_result(message.message_id, {}))
            HOT_ANSWERED[message.action].inc()
            PACE.by_tenant[self.route.tenant_id] += 1
            ACK_HOT.observe((_now_us() - message.received_us) / 1e6)
            self._spoke()
            self._is_busy = False
            self._pump()

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, message: codec.Message, raw: str, received_us: int) -> None:
        try:
            if isinstance(message, Call):
                await self._answer(message, raw, received_us)
            elif isinstance(message, Broken):
                await self._broken(message, raw)
            elif isinstance(message, Unanswered):
                await self._unanswered(message, raw)
        except DatabaseAway:
            await self.close(1013, "try again later")
            return
        except Exception:
            log.exception("station %s: a message could not be answered", self.route.identity)
        self._is_busy = False
        self._pump()

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
            self._send(out)
        with contextlib.suppress(Exception):
            await self.seam.keep(self.route, frames)
        if self._broken_count >= MAX_BROKEN:
            await self.close(1008, "too many broken frames")

    async def _unanswered(self, message: Unanswered, raw: str) -> None:
        """In the log; and staff hear of an answer of ours that a station could not use."""
        MESSAGES.labels("send" if message.code is None else "result_error", "kept").inc()
        if message.code is not None:
            self.watch.note(self.route, "answer_refused", message.code)
        frame = self._frame("in", "other", message.message_id, message.action or None, raw, message.code)
        with contextlib.suppress(Exception):
            await self.seam.keep(self.route, [frame])

    async def _answer(self, call: Call, raw: str, received_us: int) -> None:
        payload = hashlib.sha256(raw.encode()).digest()
        out = self._echoed(call, payload)
        if out is None and self.registration != "accepted" and call.action not in self._invited:
            out = await self._not_yet(call, raw)
        elif out is None:
            out = await self._held_back(call, raw, received_us)
        if out is None:
            action = self._counted_as(call)
            with span(f"ocpp {action}", tenant=self.route.tenant_id, station=self.station):
                out = await self.seam.answer(self.route, self.version, call, raw, _moment(received_us))
            self._learn(call, out)
            MESSAGES.labels(action, "answered").inc()
            PACE.by_tenant[self.route.tenant_id] += 1
            ACK_COLD.observe((_now_us() - received_us) / 1e6)
            self._remember(call, payload, out)
        self._send(out)
        self._after(call, out)

    async def _not_yet(self, call: Call, raw: str) -> str:
        """A station that is pending or rejected boots, or says what it was asked for (2.x B02.FR.09, B03.FR.07)."""
        version, code = self.version.SUBPROTOCOL, "SecurityError"
        out = codec.encode_error(version, call.message_id, code, "not accepted yet")
        return await self._kept(call, raw, "error", out, code)

    async def _kept(self, call: Call, raw: str, kind: str, out: str, error: str | None = None) -> str:
        """An answer that caused nothing: the log has it where it can, and the station has it in any case."""
        action = call.action[:100]
        frames = [
            self._frame("in", "call", call.message_id, action, raw, error),
            self._frame("out", kind, call.message_id, action, out, error),
        ]
        with contextlib.suppress(Exception):
            await self.seam.keep(self.route, frames)
        return out

    async def _held_back(self, call: Call, raw: str, received_us: int) -> str | None:
        """Boots without end and tried-out cards are answered without the database (ocpp.md 2, rows 53 and 55)."""
        if call.action == "BootNotification" and self.registration == "accepted":
            boot = self.watch.remembered_boot(self.route, call.payload)
            if boot is None:
                return None
            return codec.encode_result(
                call.message_id, boot | {"currentTime": codec.timestamp(_moment(received_us))}
            )
        if call.action != "Authorize" or not self.watch.tries_cards(self.route):
            return None
        self.watch.note(self.route, "card_guessing")
        refused = Refused(status="Invalid", reason="unknown", message="too many cards were tried")
        out = codec.encode_result(call.message_id, self.version.authorize_answer(refused))
        return await self._kept(call, raw, "result", out)

    def _learn(self, call: Call, out: str) -> None:
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

    def _echoed(self, call: Call, payload: bytes) -> str | None:
        found = self._echo.get(call.message_id) if self._echo else None
        if found is not None and found[1] != payload and call.action not in NEVER_ECHOED:
            self.watch.note(self.route, "message_id_reused", call.action[:40])
        if found is None or found[1] != payload or found[0] <= time.monotonic() - ECHO_S:
            return None
        MESSAGES.labels(self._counted_as(call), "echoed").inc()
        return found[2]

    def _counted_as(self, call: Call) -> str:
        """Names that a station invents are one: each would stay in memory for good."""
        return call.action if call.action in self.version.HANDLERS else "other"

    def _remember(self, call: Call, payload: bytes, out: str) -> None:
        if call.action in NEVER_ECHOED:
            return
        if self._echo is None:
            self._echo = OrderedDict()
        self._echo[call.message_id] = (time.monotonic(), payload, out)
        while len(self._echo) > ECHO_SIZE:
            self._echo.popitem(last=False)

    def _delay(self) -> float:
        """20 messages a second with bursts of 300: then the station waits, and nothing is lost."""
        now = time.monotonic()
        self._bucket = min(BURST, self._bucket + (now - self._bucket_at) * RATE_PER_S)
        self._bucket_at = now
        self._bucket -= 1
        return max(-self._bucket / RATE_PER_S, 0.0)

    def _after(self, call: Call, out: str) -> None:
        """No CALL of ours before the boot was answered, unless the station was accepted before and does not boot."""
        if call.action == "BootNotification":
            self._booted(out)
        else:
            self._spoke()

    def _spoke(self) -> None:
        if (
            self._has_booted
            and self.registration == "accepted"
            and not self._is_ready
            and self._settling is None
        ):
            self._become_ready()

    def _booted(self, out: str) -> None:
        if self._settling is not None:
            self._settling.cancel()  # it boots again: nothing is asked inside the loop
        answer = codec.decode(out)
        if not isinstance(answer, Result):
            return
        self._booted_here = True
        self.registration = str(answer.payload.get("status", "")).lower()
        if self.registration != "rejected":
            pause = SLOW_SETTLE_S if self.attributes.get("slow_start") else SETTLE_S
            self._settling = self._loop.call_later(pause, self._become_ready)

    def _send(self, frame: str) -> None:
        self.socket.say(frame)

    # -- out -------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There may be a command."""
        self._is_wanted = True
        if self._is_ready and self._worker is None:
            self._worker = self._loop.create_task(self._send_commands())

    def _become_ready(self) -> None:
        self._is_ready = True
        if self._is_wanted or not self._booted_here:
            self.wake()

    def _grace_is_over(self) -> None:
        """A station that was accepted before and does not boot is asked to, once; a new one must boot first."""
        if not self._is_ready and self._has_booted and self._settling is None:
            self._become_ready()

    async def _send_commands(self) -> None:
        try:
            if not (self._booted_here or self._triggered or self.attributes.get("no_boot_request")):
                self._triggered = True
                action, payload = self.version.boot_trigger()
                with contextlib.suppress(TimeoutError):
                    await self.call(action, payload)
            while self._is_wanted:
                self._is_wanted = False
                while await self._send_one():
                    pass
        except ConnectionClosed:
            pass
        except DatabaseAway:  # a command may stand as sent: with the next link it becomes unknown
            self._start(self.close(1013, "try again later"))
        except Exception:
            log.exception("station %s: commands wait", self.route.identity)
        finally:
            self._worker = None

    async def _send_one(self) -> bool:
        command = await self.seam.claim(self.route, self.epoch)
        if command is None:
            return False
        with span(
            f"command {command.action}", tenant=self.route.tenant_id, station=self.station, command=command.id
        ):
            await self._carry_out(command)
        return True

    async def _carry_out(self, command: ClaimedCommand) -> None:
        if command.lack is not None:
            await self.seam.conclude(self.route, command.id, "failed", None, command.lack, [])
            return
        message_id = uuid.uuid4().hex
        out = codec.encode_call(message_id, command.action, command.payload)
        frames = [self._frame("out", "call", message_id, command.action, out)]
        reply: Result | Error | str = "no answer within 30 s"
        try:
            reply = await self.call(command.action, command.payload, message_id=message_id)
        except TimeoutError:
            pass
        except (ConnectionClosed, asyncio.CancelledError):
            # A station that is told to restart answers and is gone: what it said has been read, and counts.
            heard = self._heard if self._heard and self._heard.message_id == message_id else None
            lost = "the connection was lost before the answer"
            await self._conclude(command, message_id, frames, heard or lost)
            raise
        await self._conclude(command, message_id, frames, reply)

    async def _conclude(
        self, command: ClaimedCommand, message_id: str, frames: list[Frame], reply: Result | Error | str
    ) -> None:
        """`reply` is a text where there is none. Written even when the link ends meanwhile."""
        if isinstance(reply, Result):
            frames.append(self._frame("in", "result", message_id, command.action, reply.raw))
        elif isinstance(reply, Error):
            frames.append(self._frame("in", "error", message_id, command.action, reply.raw, reply.code))
        writing = asyncio.ensure_future(self._write_end(command, frames, reply))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing
            raise

    async def _write_end(
        self, command: ClaimedCommand, frames: list[Frame], reply: Result | Error | str
    ) -> None:
        """Whatever the station said: a command that stays sent is waited for as long as the link lives. Of what
        could not be read nobody claims that it failed: a car may charge by now."""
        conclude, answer = partial(self.seam.conclude, self.route, command.id), None
        try:
            if isinstance(reply, Result):
                (status, error), answer = self._judge(command.action, reply), reply.payload
            elif isinstance(reply, Error):
                status, error = "failed", f"{reply.code}: {reply.description}".rstrip(": ")
            else:
                status, error = "unknown", reply
            await conclude(status, answer, error, frames)
        except DatabaseAway:
            raise
        except Exception:
            log.exception("station %s: the answer to %s could not be read", self.route.identity, command.id)
            await conclude("unknown", None, "the answer could not be read", [])
            with contextlib.suppress(Exception):
                await self.seam.keep(self.route, frames)

    def _judge(self, action: str, reply: Result) -> tuple[Outcome, str | None]:
        """The outcome; an answer without what this question asks for, or whose status is none that it has, fits another
        (ocpp.md 2, row 50)."""
        version, answer = self.version.SUBPROTOCOL, reply.payload
        words, word = ocpp_schemas.answer_words(version, action), answer.get("status")
        is_whole = reply.is_object and ocpp_schemas.answer_needs(version, action) <= answer.keys()
        if not is_whole or (words and not (isinstance(word, str) and word in words)):
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
        """One CALL in flight: only `_send_commands` calls. TimeoutError after 30 s: it may have happened, and is never
        sent again by us."""
        message_id = message_id or uuid.uuid4().hex
        self._invited |= invited(action, payload)
        future: asyncio.Future[Result | Error] = self._loop.create_future()
        self._pending[message_id] = future
        try:
            await self.socket.send(codec.encode_call(message_id, action, payload))
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await future
        finally:
            del self._pending[message_id]

    # -- life and end ----------------------------------------------------------------------------------------------

    def look_after(self) -> None:
        """A ping for each minute of silence; any frame is a sign of life. Some never answer pings but talk."""
        silent_s = (_now_us() - self.seen_us) / 1e6
        if self.attributes.get("no_ping") or silent_s < PING_S:
            self._pinged_us = None
        elif self._pinged_us is None or self._pinged_us < self.seen_us:
            self._pinged_us = _now_us()
            self.socket.knock()
        elif _now_us() - self._pinged_us > PING_S / 2 * 1e6:
            self._start(self.close(1011, "no sign of life"))

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
        for _ in range(100):
            if not self._is_busy and not self._waiting:
                break
            await asyncio.sleep(0.05)
        await self.close(1012, "service restart")


def invited(action: str, payload: dict[str, Any]) -> set[str]:
    """The messages that a CALL of ours asks for: a pending station may send those."""
    if action in ("GetBaseReport", "GetReport"):
        return {"NotifyReport"}
    if action in ("TriggerMessage", "ExtendedTriggerMessage"):
        wanted = str(payload.get("requestedMessage"))
        return {"SignCertificate" if wanted.startswith("Sign") else wanted}
    return set()


def _now_us() -> int:
    return time.time_ns() // 1000


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


def _why(socket: StationSocket) -> str:
    reason = (socket.close_reason or "").replace("\0", "")
    return f"{socket.close_code or 1006} {reason}".strip()[:100]
