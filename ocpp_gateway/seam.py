"""The one seam between frames and verbs: a CALL in, one transaction, the frame of the answer out.

The raw frames lie in the same commit as what they caused, and the answer leaves only after it. The batched hot path
(performance.md) will take the place of `answer` for hot actions; connection and codec will not notice.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import ModuleType
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from app.access.verdict import Accepted, Refused
from app.kernel.clock import utcnow
from app.kernel.errors import LiveryError
from app.stations import commands, ocpp_schemas
from app.stations import service as stations
from app.stations.commands import ClaimedCommand, Outcome
from app.stations.models import ChargingStation
from app.stations.reports import Frame
from ocpp_gateway import authorization, codec, device_reports
from ocpp_gateway.codec import Call
from ocpp_gateway.lenient import Unanswerable
from tenants.database import Database
from tenants.resolve import StationRoute
from tenants.scope import Actor, Scope

log = logging.getLogger("livery.gateway")
PATIENCE_S = 40.0  # a database that restarts is waited for; the station waits with us
UNLOGGED = frozenset({"Heartbeat"})


class DatabaseAway(Exception):
    """The database did not come back in time: the link is closed, and the station sends again."""


@dataclass(frozen=True, slots=True)
class Opened:
    epoch: int
    registration: str
    has_booted: bool


class Seam:
    def __init__(self, database: Database, node: str) -> None:
        self.database, self.node = database, node

    async def answer(
        self, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime
    ) -> str:
        """The frame to send back; it stands in the log already. DatabaseAway when nothing could be written."""
        started = time.monotonic()
        while True:
            try:
                return await self._answer(route, version, call, raw, received_at)
            except (Unanswerable, LiveryError) as error:
                return await self._refuse(route, version, call, raw, received_at, error)
            except (OperationalError, InterfaceError, OSError, DBAPIError) as error:
                if not _passes(error):
                    log.exception("station %s: %s could not be handled", route.identity, call.action)
                    return await self._fail(route, version, call, raw, received_at)
                if time.monotonic() - started > PATIENCE_S:
                    raise DatabaseAway from error
                await asyncio.sleep(0.25)
            except Exception:
                log.exception("station %s: %s could not be handled", route.identity, call.action)
                return await self._fail(route, version, call, raw, received_at)

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
        async with self.scope(route) as scope:
            payload = await handler(scope, route.station_id, call.payload, received_at)
            return await self._log_answer(scope, route, version, call, raw, received_at, payload)

    async def _authorize(
        self, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime
    ) -> str:
        async def finish(scope: Scope, verdict: Accepted | Refused) -> str:
            payload = version.authorize_answer(verdict)
            return await self._log_answer(scope, route, version, call, raw, received_at, payload)

        presented = version.token_asked(call.payload)
        return await authorization.authorize(
            self.database, route.tenant_id, route.station_id, presented, finish
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
        self, route: StationRoute, version: ModuleType, call: Call, raw: str, received_at: datetime
    ) -> str:
        text_ = "the message was kept and could not be handled"
        return await self._error(route, version, call, raw, received_at, "InternalError", text_)

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

    async def keep(self, route: StationRoute, frames: list[Frame]) -> None:
        """Frames that cause nothing: refused ones, broken ones, commands and their answers."""
        async with self.scope(route) as scope:
            await stations.record_frames(scope, route.station_id, frames)

    # -- the link --------------------------------------------------------------------------------------------------

    async def opened(self, route: StationRoute, ocpp_version: str, remote: str) -> Opened:
        async with self.scope(route) as scope:
            epoch = await stations.connection_opened(
                scope, route.station_id, node=self.node, ocpp_version=ocpp_version, remote=remote
            )
            await commands.abandon_commands(scope, route.station_id, epoch)
            station = await scope.db.get_one(ChargingStation, (scope.tenant_id, route.station_id))
            return Opened(epoch, station.registration, station.booted_at is not None)

    async def closed(self, route: StationRoute, epoch: int, reason: str) -> None:
        async with self.scope(route) as scope:
            await stations.connection_closed(scope, route.station_id, epoch, reason)

    async def touch(self, tenant_id: UUID, seen: Mapping[UUID, datetime]) -> None:
        async with self.database.scope(tenant_id, Actor.job("gateway.touch")) as scope:
            await stations.touch_last_seen(scope, seen)

    # -- commands --------------------------------------------------------------------------------------------------

    async def claim(self, route: StationRoute, epoch: int) -> ClaimedCommand | None:
        async with self.scope(route) as scope:
            claimed = await commands.claim_commands(scope, route.station_id, epoch, 1)
        return claimed[0] if claimed else None

    async def conclude(
        self, route: StationRoute, command_id: UUID, status: Outcome, answer: dict[str, Any] | None, error: str | None,
        frames: list[Frame],
    ) -> None:  # fmt: skip
        async with self.scope(route) as scope:
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

    def scope(self, route: StationRoute) -> Any:
        return self.database.scope(route.tenant_id, Actor.station(route.station_id))


def _frame(
    direction: Any, kind: Any, call: Call, raw: str, at: datetime, version: str, *, error: str | None = None
) -> Frame:
    return Frame(
        direction=direction, kind=kind, message_id=call.message_id, action=call.action[:100], raw=raw, at=at,
        ocpp_version=version, error=error,
    )  # fmt: skip


def _passes(error: BaseException) -> bool:
    """Whether it is worth trying again: the server is away, starting, or two transactions met."""
    if isinstance(error, OSError):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        state = getattr(error.orig, "sqlstate", None) or ""
        return state == "" or state[:2] in ("08", "53", "57") or state in ("40001", "40P01", "55P03")
    return False
