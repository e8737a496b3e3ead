"""What a gateway's verbs do: one message, one command, one link's change, each in a transaction of its own.

The raw frames lie in the same commit as what they caused. It works aside, in another process (`verbs.py`): all that
comes in and all that goes out are values.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import Any, Literal, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from app.access.verdict import Accepted, Refused
from app.kernel.clock import utcnow
from app.kernel.errors import LiveryError
from app.kernel.tracing import span
from app.stations import commands, ocpp_schemas, parking
from app.stations import service as stations
from app.stations.commands import ClaimedCommand, Outcome
from app.stations.links import Opened
from app.stations.models import ChargingStation
from app.stations.reports import Frame
from ocpp_gateway import authorization, codec, device_reports
from ocpp_gateway.codec import Call
from ocpp_gateway.flusher import PATIENCE_S, PAUSE_S, passes
from ocpp_gateway.lenient import Unanswerable
from tenants.database import Database
from tenants.resolve import StationRoute
from tenants.scope import Actor, Scope

log = logging.getLogger("livery.gateway")
UNLOGGED = frozenset({"Heartbeat"})
MAX_FOREIGN = 4000  # characters kept of a DataTransfer
T = TypeVar("T")


class DatabaseAway(Exception):
    """The database did not come back in time: the link is closed, and the station sends again."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A CALL, with all that its verb needs."""

    route: StationRoute
    version: ModuleType
    call: Call
    raw: str
    received_at: datetime

    def frames(self, kind: Literal["result", "error"], out: str, error: str | None = None) -> list[Frame]:
        """The CALL and our answer, as the log has them."""
        return [
            self._frame("in", "call", self.raw, self.received_at, error),
            self._frame("out", kind, out, utcnow(), error),
        ]

    def _frame(self, direction: Any, kind: Any, raw: str, at: datetime, error: str | None) -> Frame:
        if self.call.action == "DataTransfer" and len(raw) > MAX_FOREIGN:
            raw = raw[:MAX_FOREIGN] + "…"  # whatever a vendor likes: its beginning is enough
        return Frame(
            direction=direction, kind=kind, message_id=self.call.message_id, action=self.call.action[:100], raw=raw,
            at=at, ocpp_version=self.version.SUBPROTOCOL, error=error,
        )  # fmt: skip


class Aside:
    def __init__(self, database: Database, node: str, versions: Mapping[str, ModuleType]) -> None:
        self.database, self.node, self.versions = database, node, versions

    async def answered(self, heard: Heard) -> tuple[str, bool]:
        """The frame to send back, and whether the message is parked. DatabaseAway when nothing could be written."""
        try:
            return await _patiently(partial(self._answer, heard)), False
        except DatabaseAway:
            raise
        except (Unanswerable, LiveryError) as error:
            code = error.code if isinstance(error, Unanswerable) else "PropertyConstraintViolation"
            return await self._error(heard, code, error.message), False
        except Exception as error:
            return await self._fail(heard, error)

    async def _answer(self, heard: Heard) -> str:
        call, version = heard.call, heard.version
        if call.action == "Authorize":
            return await self._authorize(heard)
        handler = version.HANDLERS.get(call.action)
        if handler is None:
            known = ocpp_schemas.knows(version.SUBPROTOCOL, call.action)
            raise Unanswerable(
                "NotSupported" if known else "NotImplemented", f"{call.action[:50]} is not handled"
            )
        async with self._scope(heard.route) as scope:
            with span("verb"):
                payload = await handler(scope, heard.route.station_id, call.payload, heard.received_at)
            return await self._log_answer(scope, heard, payload)

    async def _authorize(self, heard: Heard) -> str:
        async def finish(scope: Scope, verdict: Accepted | Refused) -> str:
            return await self._log_answer(scope, heard, heard.version.authorize_answer(verdict))

        presented = heard.version.token_asked(heard.call.payload)
        return await authorization.authorize(
            self.database, heard.route.tenant_id, heard.route.station_id, presented, finish
        )

    async def _log_answer(self, scope: Scope, heard: Heard, payload: dict[str, Any]) -> str:
        out = codec.encode_result(heard.call.message_id, payload)
        if heard.call.action not in UNLOGGED:
            await stations.record_frames(scope, heard.route.station_id, heard.frames("result", out))
        return out

    async def _fail(self, heard: Heard, error: Exception) -> tuple[str, bool]:
        """A fault of ours. A report is acknowledged and parked, or its station would send it for ever."""
        route, call, version = heard.route, heard.call, heard.version.SUBPROTOCOL
        log.error("station %s: %s could not be handled", route.identity, call.action, exc_info=error)
        if not ocpp_schemas.may_be_answered_empty(version, call.action):
            why = "the message was kept and could not be handled"
            return await self._error(heard, "InternalError", why), False
        async with self._scope(route) as scope:
            await parking.park(
                scope, route.station_id, received_at=heard.received_at, ocpp_version=version, action=call.action,
                message_id=call.message_id, raw=heard.raw, error=told(error),
            )  # fmt: skip
            out = await self._log_answer(scope, heard, {})
        return out, True

    async def _error(self, heard: Heard, code: str, why: str) -> str:
        out = codec.encode_error(heard.version.SUBPROTOCOL, heard.call.message_id, code, why)
        await self.keep(heard.route, heard.frames("error", out, code))
        return out

    async def retry(self, tenant_id: UUID, parked_id: UUID) -> None:
        """What staff want tried again: handled in one transaction with its end, or parked again with its reason."""
        error = None
        try:
            async with self.database.scope(tenant_id, Actor.job("gateway.retry")) as scope:
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
            error = told(failed)
        if error is not None:
            async with self.database.scope(tenant_id, Actor.job("gateway.retry")) as scope:
                await parking.conclude_retry(scope, parked_id, error)

    async def keep(self, route: StationRoute, frames: list[Frame]) -> None:
        """Frames that cause nothing: refused ones, broken ones, commands and their answers."""
        async with self._scope(route) as scope:
            await stations.record_frames(scope, route.station_id, frames)

    async def opened(self, route: StationRoute, ocpp_version: str, remote: str) -> Opened:
        async with self._scope(route) as scope:
            epoch = await stations.connection_opened(
                scope, route.station_id, node=self.node, ocpp_version=ocpp_version, remote=remote
            )
            await commands.abandon_commands(scope, route.station_id, epoch)
            station = await scope.db.get_one(ChargingStation, (scope.tenant_id, route.station_id))
            waiting = await commands.find_waiting(scope, [route.station_id])
            return Opened(epoch, station.registration, station.booted_at is not None, bool(waiting))

    async def closed(self, route: StationRoute, epoch: int, reason: str) -> None:
        async def close() -> None:
            async with self._scope(route) as scope:
                await stations.connection_closed(scope, route.station_id, epoch, reason)

        await _patiently(close, pause_s=1)

    async def claim(self, route: StationRoute, epoch: int) -> ClaimedCommand | None:
        """DatabaseAway also where nobody knows whether the database has heard it: the next link's opening tells."""
        claimed: list[ClaimedCommand] = []

        async def claim() -> None:
            if claimed:
                raise DatabaseAway("a command may stand as sent")
            async with self._scope(route) as scope:
                claimed.extend(await commands.claim_commands(scope, route.station_id, epoch, 1))

        await _patiently(claim)
        return claimed[0] if claimed else None

    async def conclude(
        self, route: StationRoute, command_id: UUID, status: Outcome, answer: dict[str, Any] | None, error: str | None,
        frames: list[Frame],
    ) -> None:  # fmt: skip
        """Once, also where the database goes away just when it has heard it. DatabaseAway when it could not be
        written, or nobody knows."""
        was_written = False

        async def conclude() -> None:
            nonlocal was_written
            async with self._scope(route) as scope:
                if await commands.conclude_command(scope, command_id, status, answer, error):
                    await self._learn(scope, route, command_id)
                elif was_written:
                    return  # it stands: only the commit's answer was lost
                await stations.record_frames(scope, route.station_id, frames)
                was_written = True

        await _patiently(conclude)

    async def _learn(self, scope: Scope, route: StationRoute, command_id: UUID) -> None:
        """What the answer tells of the station; the conclusion stands even where it is too odd to be understood."""
        try:
            async with scope.db.begin_nested():
                await device_reports.answered(scope, command_id)
        except Exception as error:
            if _passes(error):
                raise
            log.exception("station %s: the answer to %s was not understood", route.identity, command_id)

    def _scope(self, route: StationRoute) -> Any:
        return self.database.scope(route.tenant_id, Actor.station(route.station_id))


def told(error: Exception) -> str:
    """One line for staff, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"[:500]


async def _patiently(work: Callable[[], Awaitable[T]], *, pause_s: float = PAUSE_S) -> T:
    """Tried again while the database is away. DatabaseAway when it does not come back in time."""
    started = time.monotonic()
    while True:
        try:
            return await work()
        except (DBAPIError, OSError) as error:
            if not _passes(error):
                raise
            if time.monotonic() - started > PATIENCE_S:
                raise DatabaseAway from error
            await asyncio.sleep(pause_s)


def _passes(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        # Without a code the server was never asked: it is away, or the driver refused a value, which it will again.
        is_away = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        return passes(state) if state else is_away
    return isinstance(error, OSError)
