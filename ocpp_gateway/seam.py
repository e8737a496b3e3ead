"""The one seam between frames and verbs: a CALL in, one transaction, the frame of the answer out.

The raw frames lie in the same commit as what they caused, and the answer leaves only after it. Hot messages do not come
here: they are batched (`flusher.py`), and only the one that needs judgement is handed on to `answer`. Verbs work aside
(`verbs.py`); what many stations ask at once (links, boots, states) is gathered here.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from app.access.verdict import Accepted, Refused
from app.charging.station_reports import Told, may_be_gathered, report_boots, report_statuses
from app.kernel.clock import utcnow
from app.kernel.errors import LiveryError
from app.kernel.tracing import span
from app.stations import commands, links, ocpp_schemas, parking
from app.stations import service as stations
from app.stations.commands import ClaimedCommand, Outcome
from app.stations.links import LinkDown, LinkHeld, LinkUp, Opened
from app.stations.models import ChargingStation
from app.stations.redaction import redact_frame
from app.stations.reports import BootVerdict, Frame
from ocpp_gateway import authorization, codec, device_reports
from ocpp_gateway.codec import Call
from ocpp_gateway.flusher import PATIENCE_S, News, Topics, Watched, passes
from ocpp_gateway.gather import Gather
from ocpp_gateway.lenient import Unanswerable
from ocpp_gateway.metrics import PARKED
from ocpp_gateway.verbs import VerbLoop
from tenants.database import Database
from tenants.resolve import StationRoute
from tenants.scope import Actor, Scope

log = logging.getLogger("livery.gateway")
UNLOGGED = frozenset({"Heartbeat"})
P = ParamSpec("P")
T = TypeVar("T")
MAX_FOREIGN = 4000  # characters kept of a DataTransfer


class DatabaseAway(Exception):
    """The database did not come back in time: the link is closed, and the station sends again."""


def aside(
    method: Callable[Concatenate["Seam", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Seam", P], Coroutine[Any, Any, T]]:
    """A method that works on the verbs' loop, whoever asks."""

    @functools.wraps(method)
    async def asked(seam: "Seam", *args: P.args, **more: P.kwargs) -> T:
        return await seam.verbs.run(method(seam, *args, **more))

    return asked


class Seam:
    def __init__(
        self,
        database: Database,
        verbs: VerbLoop,
        node: str,
        versions: Mapping[str, ModuleType],
        watched: Watched,
    ) -> None:
        self.database, self.verbs, self.node, self.versions = database, verbs, node, versions
        self._watched = watched
        self._opening, self._closing = Gather(self._open_many, _station), Gather(self._close_many, _station)
        self._gathers: dict[str, Gather[Told, bool]] = {
            "BootNotification": Gather(self._boot_many, _station),
            "StatusNotification": Gather(self._status_many, _station),
        }

    async def answer(
        self, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime
    ) -> str:
        """The frame to send back; it stands in the log already. DatabaseAway when nothing could be written."""
        gathered = await self._gathered(route, version, call, raw, received_at)
        if gathered is not None:
            return gathered
        return await self._answered(route, version, call, raw, received_at)

    @aside
    async def _answered(
        self, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime
    ) -> str:
        started = time.monotonic()
        while True:
            try:
                return await self._answer(route, version, call, raw, received_at)
            except (Unanswerable, LiveryError) as error:
                return await self._refuse(route, version, call, raw, received_at, error)
            except (OperationalError, InterfaceError, OSError, DBAPIError) as error:
                if not _passes(error):
                    return await self._fail(route, version, call, raw, received_at, error)
                if time.monotonic() - started > PATIENCE_S:
                    raise DatabaseAway from error
                await asyncio.sleep(0.25)
            except Exception as error:
                return await self._fail(route, version, call, raw, received_at, error)

    async def _answer(
        self, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime
    ) -> str:
        if call.action == "Authorize":
            return await self._authorize(route, version, call, raw, received_at)
        handler = version.HANDLERS.get(call.action)
        if handler is None:
            known = ocpp_schemas.knows(version.SUBPROTOCOL, call.action)
            raise Unanswerable(
                "NotSupported" if known else "NotImplemented", f"{call.action[:50]} is not handled"
            )
        async with self._scope(route) as scope:
            with span("verb"):
                payload = await handler(scope, route.station_id, call.payload, received_at)
            return await self._log_answer(scope, route, version, call, raw, received_at, payload)

    # -- gathered: the boots and states of many stations in one commit ------------------------------------------------

    async def _gathered(
        self, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime
    ) -> str | None:
        """The answer of what stands in the database with others' by now; None for what its verb must take."""
        gather, reader = self._gathers.get(call.action), version.GATHERED.get(call.action)
        if gather is None or reader is None:
            return None
        try:
            report = reader(call.payload, received_at)
        except Unanswerable:
            return None
        if not may_be_gathered(report):
            return None
        payload = {}
        if call.action == "BootNotification":
            verdict = BootVerdict(
                status="Accepted",
                interval_s=stations.heartbeat_interval_s(),
                quirks=frozenset(route.attributes),
            )
            payload = version.boot_answer(verdict, received_at)
        out = codec.encode_result(call.message_id, payload)
        told = Told(
            tenant_id=route.tenant_id, station_id=route.station_id, received_at=received_at,
            version=version.SUBPROTOCOL, message_id=call.message_id, raw=redact_frame(raw), answer=out, report=report,
        )  # fmt: skip
        try:
            return out if await gather.ask(told) else None
        except Exception as error:
            log.warning("%s of station %s is left to its verb: %s", call.action, route.identity, _told(error))
            return None

    async def _boot_many(self, told: Sequence[Told]) -> list[bool]:
        written = await report_boots(self.database, told)
        self._tell("boot", [one for one, stands in zip(told, written, strict=True) if stands], frames=2)
        return written

    async def _status_many(self, told: Sequence[Told]) -> list[bool]:
        written = await report_statuses(self.database, told)
        self._watched.tell(lambda: (
            News(one.tenant_id, partial(_topics, one.station_id, "status", 2, session))
            for one, (stands, session) in zip(told, written, strict=True) if stands
        ))  # fmt: skip
        return [stands for stands, _ in written]

    def _tell(self, what: str, of: Sequence[Told | LinkUp | LinkDown | LinkHeld], frames: int = 0) -> None:
        self._watched.tell(
            lambda: (News(one.tenant_id, partial(_topics, one.station_id, what, frames)) for one in of)
        )

    async def _authorize(
        self, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime
    ) -> str:
        async def finish(scope: Scope, verdict: Accepted | Refused) -> str:
            payload = version.authorize_answer(verdict)
            return await self._log_answer(scope, route, version, call, raw, received_at, payload)

        presented = version.token_asked(call.payload)
        return await authorization.authorize(
            self.verbs.database, route.tenant_id, route.station_id, presented, finish
        )

    async def _log_answer(
        self, scope: Scope, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime,
        payload: dict[str, Any],
    ) -> str:  # fmt: skip
        out = codec.encode_result(call.message_id, payload)
        if call.action not in UNLOGGED:
            frames = [
                _frame("in", "call", call, raw, received_at, version.SUBPROTOCOL),
                _frame("out", "result", call, out, utcnow(), version.SUBPROTOCOL),
            ]
            await stations.record_frames(scope, route.station_id, frames)
        return out

    async def _refuse(
        self,
        route: StationRoute,
        version: ModuleType,
        call: Call,
        raw: str,
        received_at: datetime,
        error: LiveryError,
    ) -> str:
        code = error.code if isinstance(error, Unanswerable) else "PropertyConstraintViolation"
        return await self._error(route, version, call, raw, received_at, code, error.message)

    async def _fail(
        self,
        route: StationRoute,
        version: ModuleType,
        call: Call,
        raw: str,
        received_at: datetime,
        error: Exception,
    ) -> str:
        """A fault of ours. A report is acknowledged and parked, or its station would send it for ever."""
        log.error("station %s: %s could not be handled", route.identity, call.action, exc_info=error)
        if not ocpp_schemas.may_be_answered_empty(version.SUBPROTOCOL, call.action):
            why = "the message was kept and could not be handled"
            return await self._error(route, version, call, raw, received_at, "InternalError", why)
        async with self._scope(route) as scope:
            await parking.park(
                scope, route.station_id, received_at=received_at, ocpp_version=version.SUBPROTOCOL, action=call.action,
                message_id=call.message_id, raw=raw, error=_told(error),
            )  # fmt: skip
            out = await self._log_answer(scope, route, version, call, raw, received_at, {})
        PARKED.inc()
        return out

    @aside
    async def retry(self, tenant_id: UUID, parked_id: UUID) -> None:
        """What staff want tried again: handled in one transaction with its end, or parked again with its reason."""
        error = None
        try:
            async with self.verbs.database.scope(tenant_id, Actor.job("gateway.retry")) as scope:
                parked = await parking.claim_retry(scope, parked_id)
                if parked is None:
                    return
                call = codec.decode(parked.raw)
                if not isinstance(call, Call):
                    raise ValueError("the frame is not a CALL")
                scope.actor = Actor.station(parked.station_id)
                handler = self.versions[parked.ocpp_version].HANDLERS[parked.action]
                await handler(scope, parked.station_id, call.payload, parked.received_at)
                await parking.conclude_retry(scope, parked_id, None)
        except Exception as failed:
            log.warning("a parked message could not be handled again", exc_info=failed)
            error = _told(failed)
        if error is not None:
            async with self.verbs.database.scope(tenant_id, Actor.job("gateway.retry")) as scope:
                await parking.conclude_retry(scope, parked_id, error)

    async def _error(
        self,
        route: StationRoute,
        version: ModuleType,
        call: Call,
        raw: str,
        received_at: datetime,
        code: str,
        why: str,
    ) -> str:
        out = codec.encode_error(version.SUBPROTOCOL, call.message_id, code, why)
        frames = [
            _frame("in", "call", call, raw, received_at, version.SUBPROTOCOL, error=code),
            _frame("out", "error", call, out, utcnow(), version.SUBPROTOCOL, error=code),
        ]
        await self.keep(route, frames)
        return out

    @aside
    async def keep(self, route: StationRoute, frames: list[Frame]) -> None:
        """Frames that cause nothing: refused ones, broken ones, commands and their answers."""
        async with self._scope(route) as scope:
            await stations.record_frames(scope, route.station_id, frames)

    # -- the link --------------------------------------------------------------------------------------------------

    async def opened(self, route: StationRoute, ocpp_version: str, remote: str) -> Opened:
        """With all that open at this moment; one that needs more, or whose company failed, by the verb."""
        opened = None
        try:
            opened = await self._opening.ask(LinkUp(route.tenant_id, route.station_id, ocpp_version, remote))
        except (SQLAlchemyError, OSError) as error:
            log.warning("the link of station %s is left to its verb: %s", route.identity, _told(error))
        return opened or await self._opened(route, ocpp_version, remote)

    async def _open_many(self, asked: Sequence[LinkUp]) -> list[Opened | None]:
        opened = await links.open_links(self.database, self.node, asked, utcnow())
        self._tell("connection", [one for one, found in zip(asked, opened, strict=True) if found])
        return opened

    @aside
    async def _opened(self, route: StationRoute, ocpp_version: str, remote: str) -> Opened:
        async with self._scope(route) as scope:
            epoch = await stations.connection_opened(
                scope, route.station_id, node=self.node, ocpp_version=ocpp_version, remote=remote
            )
            await commands.abandon_commands(scope, route.station_id, epoch)
            station = await scope.db.get_one(ChargingStation, (scope.tenant_id, route.station_id))
            waiting = await commands.find_waiting(scope, [route.station_id])
            return Opened(epoch, station.registration, station.booted_at is not None, bool(waiting))

    async def closed(self, route: StationRoute, epoch: int, reason: str) -> None:
        """With all that close at this moment. What did not come out so (a newer link stands, its row was held, the
        database was away) the verb looks at."""
        was_open = False
        with contextlib.suppress(SQLAlchemyError, OSError):
            was_open = await self._closing.ask(LinkDown(route.tenant_id, route.station_id, epoch, reason))
        if not was_open:
            await self._closed(route, epoch, reason)

    @aside
    async def _closed(self, route: StationRoute, epoch: int, reason: str) -> None:
        started = time.monotonic()
        while True:
            try:
                async with self._scope(route) as scope:
                    return await stations.connection_closed(scope, route.station_id, epoch, reason)
            except (DBAPIError, OSError) as error:
                if not _passes(error) or time.monotonic() - started > PATIENCE_S:
                    raise
                await asyncio.sleep(1)

    async def _close_many(self, asked: Sequence[LinkDown]) -> list[bool]:
        closed = await links.close_links(self.database, asked, utcnow())
        self._tell("connection", [one for one, was_open in zip(asked, closed, strict=True) if was_open])
        return closed

    async def hold(self, held: Sequence[LinkHeld]) -> list[LinkHeld]:
        """Written down as alive; those that a newer link has replaced come back."""
        newer, again = await links.hold_links(self.database, self.node, held)
        self._tell("connection", again)
        return newer

    # -- commands --------------------------------------------------------------------------------------------------

    @aside
    async def claim(self, route: StationRoute, epoch: int) -> ClaimedCommand | None:
        async with self._scope(route) as scope:
            claimed = await commands.claim_commands(scope, route.station_id, epoch, 1)
        return claimed[0] if claimed else None

    async def find_waiting(self, tenants: Sequence[UUID]) -> list[tuple[UUID, UUID]]:
        return await links.find_waiting(self.database, self.node, tenants)

    @aside
    async def conclude(
        self, route: StationRoute, command_id: UUID, status: Outcome, answer: dict[str, Any] | None, error: str | None,
        frames: list[Frame],
    ) -> None:  # fmt: skip
        async with self._scope(route) as scope:
            await commands.conclude_command(scope, command_id, status, answer, error)
            await device_reports.answered(scope, command_id)
            await stations.record_frames(scope, route.station_id, frames)

    async def ensure_days(self) -> None:
        """Partitions for today and the next three days, before the first frame."""
        query = text("select livery.ensure_day(:parent, current_date + :ahead)")
        async with self.database.anonymous() as db:
            for parent in ("meter_value", "ocpp_message"):
                for ahead in range(4):
                    await db.execute(query, {"parent": parent, "ahead": ahead})

    def _scope(self, route: StationRoute) -> Any:
        return self.verbs.database.scope(route.tenant_id, Actor.station(route.station_id))


def _frame(
    direction: Any, kind: Any, call: Call, raw: str, at: datetime, version: str, *, error: str | None = None
) -> Frame:
    if call.action == "DataTransfer" and len(raw) > MAX_FOREIGN:
        raw = raw[:MAX_FOREIGN] + "…"  # whatever a vendor likes: its beginning is enough
    return Frame(
        direction=direction, kind=kind, message_id=call.message_id, action=call.action[:100], raw=raw, at=at,
        ocpp_version=version, error=error,
    )  # fmt: skip


def _station(one: Told | LinkUp | LinkDown) -> tuple[UUID, UUID]:
    return one.tenant_id, one.station_id


def _topics(station_id: UUID, what: str, frames: int = 0, session_id: UUID | None = None) -> Topics:
    found = stations.news_of_station(station_id, what)
    if frames:
        found.append((f"station:{station_id}:log", {"count": frames}))
    if session_id is not None:
        found.append((f"session:{session_id}", {"what": "state"}))
    return found


def _told(error: Exception) -> str:
    """One line for staff, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"[:500]


def _passes(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        # Without a code the server was never asked: it is away, or the driver refused a value, which it will again.
        is_away = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        return passes(state) if state else is_away
    return isinstance(error, OSError)
