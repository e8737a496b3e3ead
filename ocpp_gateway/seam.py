"""The one seam between frames and verbs: a CALL in, one transaction, the frame of the answer out.

The answer leaves only after what it caused is committed. Hot messages do not come here: they are batched
(`flusher.py`), and only the one that needs judgement is handed on to `answer`. Verbs work aside (`aside.py`,
`verbs.py`); what many stations ask at once (links, boots, states) is gathered here.
"""

import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.charging.station_reports import Told, may_be_gathered, report_boots, report_statuses
from app.kernel.clock import utcnow
from app.stations import links
from app.stations import service as stations
from app.stations.commands import ClaimedCommand, Outcome
from app.stations.links import LinkDown, LinkHeld, LinkUp, Opened
from app.stations.redaction import redact_frame
from app.stations.reports import BootVerdict, Frame
from ocpp_gateway import codec
from ocpp_gateway.aside import Aside, Heard, told
from ocpp_gateway.codec import Call
from ocpp_gateway.flusher import News, Topics, Watched
from ocpp_gateway.gather import Gather
from ocpp_gateway.lenient import Unanswerable
from ocpp_gateway.metrics import PARKED
from ocpp_gateway.verbs import Verbs
from tenants.database import Database
from tenants.resolve import StationRoute

log = logging.getLogger("livery.gateway")


class Seam:
    def __init__(
        self,
        database: Database,
        verbs: Verbs,
        node: str,
        watched: Watched,
    ) -> None:
        self.database, self.verbs, self.node, self._watched = database, verbs, node, watched
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
        out, is_parked = await self.verbs.run(Aside.answered, Heard(route, version, call, raw, received_at))
        if is_parked:
            PARKED.inc()
        return out

    async def keep(self, route: StationRoute, frames: list[Frame]) -> None:
        """Frames that cause nothing: refused ones, broken ones, commands and their answers."""
        await self.verbs.run(Aside.keep, route, frames)

    async def retry(self, tenant_id: UUID, parked_id: UUID) -> None:
        """What staff want tried again."""
        await self.verbs.run(Aside.retry, tenant_id, parked_id)

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
        one = Told(
            tenant_id=route.tenant_id, station_id=route.station_id, received_at=received_at,
            version=version.SUBPROTOCOL, message_id=call.message_id, raw=redact_frame(raw), answer=out, report=report,
        )  # fmt: skip
        try:
            return out if await gather.ask(one) else None
        except Exception as error:
            log.warning("%s of station %s is left to its verb: %s", call.action, route.identity, told(error))
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

    # -- the link --------------------------------------------------------------------------------------------------

    async def opened(self, route: StationRoute, ocpp_version: str, remote: str) -> Opened:
        """With all that open at this moment; one that needs more, or whose company failed, by the verb."""
        opened = None
        try:
            opened = await self._opening.ask(LinkUp(route.tenant_id, route.station_id, ocpp_version, remote))
        except (SQLAlchemyError, OSError) as error:
            log.warning("the link of station %s is left to its verb: %s", route.identity, told(error))
        return opened or await self.verbs.run(Aside.opened, route, ocpp_version, remote)

    async def _open_many(self, asked: Sequence[LinkUp]) -> list[Opened | None]:
        opened = await links.open_links(self.database, self.node, asked, utcnow())
        self._tell("connection", [one for one, found in zip(asked, opened, strict=True) if found])
        return opened

    async def closed(self, route: StationRoute, epoch: int, reason: str) -> None:
        """With all that close at this moment. What did not come out so (a newer link stands, its row was held, the
        database was away) the verb looks at."""
        was_open = False
        with contextlib.suppress(SQLAlchemyError, OSError):
            was_open = await self._closing.ask(LinkDown(route.tenant_id, route.station_id, epoch, reason))
        if not was_open:
            await self.verbs.run(Aside.closed, route, epoch, reason)

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

    async def claim(self, route: StationRoute, epoch: int) -> ClaimedCommand | None:
        return await self.verbs.run(Aside.claim, route, epoch)

    async def conclude(
        self, route: StationRoute, command_id: UUID, status: Outcome, answer: dict[str, Any] | None, error: str | None,
        frames: list[Frame],
    ) -> None:  # fmt: skip
        await self.verbs.run(Aside.conclude, route, command_id, status, answer, error, frames)

    async def find_waiting(self, tenants: Sequence[UUID]) -> list[tuple[UUID, UUID]]:
        return await links.find_waiting(self.database, self.node, tenants)

    async def ensure_days(self) -> None:
        """Partitions for today and the next three days, before the first frame."""
        query = text("select livery.ensure_day(:parent, current_date + :ahead)")
        async with self.database.anonymous() as db:
            for parent in ("meter_instant", "ocpp_message"):
                for ahead in range(4):
                    await db.execute(query, {"parent": parent, "ahead": ahead})


def _station(one: Told | LinkUp | LinkDown) -> tuple[UUID, UUID]:
    return one.tenant_id, one.station_id


def _topics(station_id: UUID, what: str, frames: int = 0, session_id: UUID | None = None) -> Topics:
    found = stations.news_of_station(station_id, what)
    if frames:
        found.append((f"station:{station_id}:log", {"count": frames}))
    if session_id is not None:
        found.append((f"session:{session_id}", {"what": "state"}))
    return found
