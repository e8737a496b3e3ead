"""A month behind the demo: sessions that were, by the verbs that stations and staff use, each at its own time.

So lists, figures, invoices and books have something to show before the first simulated car has left. Planned from the
brand's name and the day it was founded alone: who is interrupted goes on where it was, and twice is once.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app.access.verdict import IdTokenValue
from app.charging import ingest, service, settlement
from app.charging.models import CDR, ChargingSession
from app.charging.reports import ENERGY, POWER, Reading, TransactionReport
from app.demo.cast import Box, Company
from app.kernel.clock import ids_as_of
from app.stations.models import ChargingStation
from tenants.database import Database
from tenants.scope import Actor, Scope

DAYS, READINGS = 33, 6
POWER_W = {"ac11": 10_700, "ac22": 21_300, "dc150": 96_000, "dc300": 141_000}
A_DAYS_WH = 2_000_000  # more than an EVSE gives in a day: meters never run back, whatever a day holds
_STAFF = Actor(kind="cli", name="demo")


@dataclass(frozen=True, slots=True)
class Visit:
    """A car that came and went. `ending`: well, refused (the card), faulted (the station), unread (its meter)."""

    key: str
    box: Box
    card: str
    evse_no: int
    start: datetime
    length: timedelta
    stays: timedelta
    meter_wh: int
    ending: str = "well"

    @property
    def end(self) -> datetime:
        return self.start + self.length + self.stays


async def plant_history(database: Database, tenant_id: UUID, company: Company, founded: datetime) -> None:
    """Oldest first, so that invoices are numbered as their days go."""
    stations, known = await _what_is_there(database, tenant_id)
    visits = plan(company, founded)
    months = {visit.end.astimezone(ZoneInfo(company.time_zone)).strftime("%Y-%m") for visit in visits}
    for number, visit in enumerate(visits):
        if visit.key not in known:
            await _charge(database, tenant_id, stations[visit.box.identity], visit)
        local = visit.end.astimezone(ZoneInfo(company.time_zone))
        following = (
            visits[number + 1].end.astimezone(ZoneInfo(company.time_zone))
            if number + 1 < len(visits)
            else local
        )
        if following.month != local.month and len(months) > 1:
            await _close_month(database, tenant_id, following)
    await _correct_one(database, tenant_id)


async def _what_is_there(database: Database, tenant_id: UUID) -> tuple[dict[str, UUID], set[str]]:
    """Its stations, and which visits are settled (or ended as they must) already."""
    async with database.scope(tenant_id, Actor.cli()) as scope:
        query = select(ChargingStation.ocpp_identity, ChargingStation.id)
        stations = {row.ocpp_identity: row.id for row in (await scope.db.execute(query)).all()}
        done = select(ChargingSession.start_key).where(
            ChargingSession.start_key.like("demo-%"),
            ChargingSession.settled_at.is_not(None) | ChargingSession.review.is_not(None),
        )
        known = set((await scope.db.execute(done)).scalars())
    return stations, {str(key) for key in known}


# -- the plan ----------------------------------------------------------------------------------------------------------


def plan(company: Company, founded: datetime) -> list[Visit]:
    """The month before `founded`, in the order of the ends, as invoices go; the same whenever it is asked."""
    zone = ZoneInfo(company.time_zone)
    today = founded.astimezone(zone).date()
    found: list[Visit] = []
    free_at: dict[Hashable, datetime] = {}  # places and cards
    for back in range(DAYS, -1, -1):
        found += _day(company, today - timedelta(days=back), zone, free_at)
    kept = [visit for visit in found if visit.end < founded - timedelta(minutes=2)]
    kept.sort(key=lambda visit: visit.end)
    return [replace(visit, ending="unread") if visit is _review(kept) else visit for visit in kept]


def _review(visits: list[Visit]) -> Visit | None:
    """One of the last days waits for staff: its meter ran back."""
    return next(
        (visit for visit in reversed(visits) if visit.ending == "well" and visit.box.kind[:2] == "ac"), None
    )


def _day(company: Company, day: date, zone: ZoneInfo, free_at: dict[Hashable, datetime]) -> Iterator[Visit]:
    chance = random.Random(f"{company.slug} {day}")  # noqa: S311
    rhythm = company.rhythm
    count = rhythm.weekend if day.weekday() >= 5 else rhythm.weekday
    hours = chance.choices(range(24), weights=rhythm.hours, k=count + chance.choice((-1, 0, 0, 1)))
    starts = sorted(
        datetime.combine(day, time(hour, chance.randrange(60), chance.randrange(60)), zone).astimezone(UTC)
        for hour in hours
    )
    meters = Counter[tuple[str, int]]()
    for number, start in enumerate(starts):
        visit = _visit(company, chance, f"demo-{day}-{number}", start, free_at)
        if visit is None:
            continue
        place = visit.box.identity, visit.evse_no
        free_at[place] = free_at[visit.card] = visit.end + timedelta(minutes=5)
        yield replace(visit, meter_wh=(day.toordinal() - 730_000) * A_DAYS_WH % 10**9 + meters[place])
        meters[place] += _energy_wh(visit) + 1


def _visit(
    company: Company,
    chance: random.Random,
    key: str,
    start: datetime,
    free_at: dict[Hashable, datetime],
) -> Visit | None:
    """At a place that is free then, with a card that charges nowhere else; every ninth visit or so does not go well."""
    places = [
        (box, number)
        for box in company.boxes
        if box.scenario == "charge"
        for number in range(1, box.evse_count + 1)
        if free_at.get((box.identity, number), start) <= start
    ]
    cards = [
        card.value
        for card in company.cards
        if card.status == "accepted" and free_at.get(card.value, start) <= start
    ]
    if not places or not cards:
        return None
    box, evse_no = chance.choice(places)
    blocked = [card.value for card in company.cards if card.status != "accepted"]
    is_fast = box.kind.startswith("dc")
    length = timedelta(
        minutes=chance.randint(14, 38) if is_fast else chance.randint(*company.rhythm.ac_minutes)
    )
    stays = timedelta(minutes=chance.choice((0, 0, 3, 8, 25)))
    ending = chance.choices(("well", "refused", "faulted"), weights=(88, 7, 5))[0]
    if ending != "well":
        length, stays = (length / 4 if ending == "faulted" else timedelta(seconds=20)), timedelta()
    card = chance.choice(blocked if ending == "refused" else cards)
    return Visit(key, box, card, evse_no, start, length, stays, 0, ending)


def _energy_wh(visit: Visit) -> int:
    if visit.ending == "refused":
        return 0
    return int(POWER_W[visit.box.kind] * visit.length.total_seconds() * 0.86 / 3600)


@asynccontextmanager
async def _then(database: Database, tenant_id: UUID, actor: Actor, at: datetime) -> AsyncIterator[Scope]:
    """A unit of work of the past: its clock and its ids are of that time."""
    with ids_as_of(at):
        async with database.scope(tenant_id, actor, now=at) as scope:
            yield scope


# -- one visit ---------------------------------------------------------------------------------------------------------


async def _charge(database: Database, tenant_id: UUID, station_id: UUID, visit: Visit) -> None:
    """In one transaction, so that the cars of today never meet a car of then at the plug."""
    reasons = {"refused": "DeAuthorized", "faulted": "EmergencyStop"}
    meter_stop_wh = (
        visit.meter_wh + _energy_wh(visit) if visit.ending != "unread" else visit.meter_wh - 40_000
    )
    async with _then(database, tenant_id, Actor.station(station_id), visit.start) as scope:
        started = await service.report_transaction(scope, station_id, TransactionReport(
            kind="Started", at=visit.start, received_at=visit.start, natural_key=visit.key,
            evse_no=visit.evse_no, connector_no=1, id_token=IdTokenValue(visit.card),
            meter_start_wh=Decimal(visit.meter_wh),
        ))  # fmt: skip
        with ids_as_of(visit.end):
            later = replace(scope, now=visit.end)
            readings = list(_readings(visit)) if visit.ending != "refused" else []
            await ingest.ingest(later, station_id, visit.evse_no, started.ocpp_transaction_id, readings)
            await service.report_transaction(later, station_id, TransactionReport(
                kind="Ended", at=visit.end, received_at=visit.end, natural_key=f"{visit.key}-end",
                meter_stop_wh=Decimal(max(meter_stop_wh, 0)), ocpp_transaction_id=started.ocpp_transaction_id,
                stopped_reason=reasons.get(visit.ending, "EVDisconnected"),
            ))  # fmt: skip
            of_it = ChargingSession.ocpp_transaction_id == started.ocpp_transaction_id
            session_id = (await scope.db.execute(select(ChargingSession.id).where(of_it))).scalar_one()
            settled_at = visit.end + timedelta(seconds=5)
            await settlement.settle(replace(scope, now=settled_at, actor=Actor.job("settle")), session_id)


def _readings(visit: Visit) -> Iterator[Reading]:
    """Power falls towards the end, as batteries want it."""
    energy, power = _energy_wh(visit), POWER_W[visit.box.kind]
    shares = [Decimal(n) / READINGS for n in range(1, READINGS + 1)]
    for share in shares:
        at = visit.start + visit.length * float(share)
        level = power if share < Decimal("0.7") else power * (Decimal("1.6") - share)
        register = visit.meter_wh + (energy * share).quantize(Decimal(1))
        for measurand, value, unit in (
            (ENERGY, register, "Wh"),
            (POWER, Decimal(level).quantize(Decimal(1)), "W"),
        ):
            yield Reading(
                measurand=measurand, value=Decimal(value), unit=unit, sampled_at=at, received_at=at,
                context="Sample.Periodic",
            )  # fmt: skip


# -- what staff did ----------------------------------------------------------------------------------------------------


async def _close_month(database: Database, tenant_id: UUID, now: datetime) -> None:
    async with _then(database, tenant_id, Actor.job("invoice month"), now) as scope:
        await settlement.invoice_month(scope)


async def _correct_one(database: Database, tenant_id: UUID) -> None:
    """A driver complained, and the accountant gave the money back with a credit note."""
    async with database.scope(tenant_id, _STAFF) as scope:
        if (await scope.db.execute(select(CDR.id).where(CDR.kind == "credit").limit(1))).first():
            return
        query = (
            select(CDR)
            .where(CDR.kind == "cdr", CDR.collection == "per_session", CDR.incl_vat_minor > 0)
            .order_by(CDR.ended_at.desc())
            .limit(5)
        )
        recent = list((await scope.db.execute(query)).scalars())
    if recent:
        cdr = recent[-1]  # a few days ago, or the oldest that there is
        async with _then(database, tenant_id, _STAFF, cdr.ended_at + timedelta(hours=20)) as scope:
            await settlement.credit(scope, cdr.id, "The cable was stuck and the driver lost an hour.")
