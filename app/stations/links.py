"""The links of many stations at once, as the gateway opens and closes them; for one there are the verbs of `service`.

A whole fleet may come back in one minute: what its stations need is written in few commits, whosever they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from app.stations.service import GATEWAY_LOST
from tenants.database import Database


@dataclass(frozen=True, slots=True)
class LinkUp:
    tenant_id: UUID
    station_id: UUID
    ocpp_version: str
    remote: str


@dataclass(frozen=True, slots=True)
class LinkDown:
    tenant_id: UUID
    station_id: UUID
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """`epoch`: the newest authenticated connection has the highest, and only it may write its end."""

    epoch: int
    registration: str
    has_booted: bool
    has_commands: bool


@dataclass(frozen=True, slots=True)
class LinkHeld:
    """As a process holds it: `seen_us` is when the station was heard last (microseconds since 1970)."""

    tenant_id: UUID
    station_id: UUID
    epoch: int
    seen_us: int


async def open_links(
    database: Database, node: str, asked: Sequence[LinkUp], now: datetime
) -> list[Opened | None]:
    """None where `service.connection_opened` must look: an older link has a command under way."""
    told = [
        (one.tenant_id, one.station_id, {"version": one.ocpp_version, "remote": one.remote}) for one in asked
    ]
    rows = await database.call_for_many("livery.open_links", told, node=node, at=now)
    found: list[Opened | None] = [None] * len(asked)
    for row in rows:
        found[row.n] = Opened(row.epoch, row.registration, row.has_booted, row.has_commands)
    return found


async def close_links(database: Database, asked: Sequence[LinkDown], now: datetime) -> list[bool]:
    """Whether it was the link that stood: nothing happens where a newer one does (ocpp.md 2, row 14)."""
    told = [
        (one.tenant_id, one.station_id, {"epoch": one.epoch, "reason": one.reason[:100]}) for one in asked
    ]
    rows = await database.call_for_many("livery.close_links", told, lost=GATEWAY_LOST, at=now)
    closed = {row.n for row in rows}
    return [n in closed for n in range(len(asked))]


async def hold_links(
    database: Database, node: str, held: Sequence[LinkHeld]
) -> tuple[list[LinkHeld], list[LinkHeld]]:
    """Written down as alive. Those that a newer link of their station has replaced, whose old one is to be closed
    (ocpp.md 2, row 15), and those that counted as lost with their process and are online again.
    """
    told = [(one.tenant_id, one.station_id, {"epoch": one.epoch, "seen": one.seen_us}) for one in held]
    rows = await database.call_for_many("livery.hold_links", told, node=node, lost=GATEWAY_LOST)
    return [held[row.n] for row in rows if row.is_newer], [held[row.n] for row in rows if row.is_again]


async def find_waiting(database: Database, node: str, tenants: Sequence[UUID]) -> list[tuple[UUID, UUID]]:
    """(tenant, station) of those that `node` holds and that a queued command waits for."""
    query = text("select * from livery.waiting_commands(cast(:tenants as uuid[]), :node)")
    async with database.anonymous() as db:
        rows = (await db.execute(query, {"tenants": list(tenants), "node": node})).all()
    return [(row.tenant_id, row.station_id) for row in rows]
