"""A week behind the demo: sessions that were, by the verbs that stations use, each at its own time.

So lists, figures, invoices and books have something to show before the first simulated car has left.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import select

from app.access.verdict import IdTokenValue
from app.charging import ingest, service, settlement
from app.charging.models import ChargingSession
from app.charging.reports import ENERGY, POWER, Reading, TransactionReport
from app.demo.cast import Box, Card, Company
from app.kernel.clock import utcnow
from app.stations.models import ChargingStation
from tenants.database import Database
from tenants.scope import Actor

DAYS, A_DAY, READINGS = 7, 3, 6
POWER_W = {"ac11": 10_700, "ac22": 21_300, "dc150": 96_000, "dc300": 141_000}


@dataclass(frozen=True, slots=True)
class Visit:
    """A car that came and went."""

    box: Box
    card: Card
    evse_no: int
    start: datetime
    length: timedelta
    stays: timedelta


async def plant_history(database: Database, tenant_id: UUID, company: Company) -> None:
    async with database.scope(tenant_id, Actor.cli()) as scope:
        query = select(ChargingStation.ocpp_identity, ChargingStation.id)
        stations = {row.ocpp_identity: row.id for row in (await scope.db.execute(query)).all()}
    meters: dict[tuple[str, int], Decimal] = {}
    for number, visit in enumerate(_visits(company)):
        place = visit.box.identity, visit.evse_no
        meter = meters.get(place, Decimal(12_000))
        meters[place] = await _charge(database, tenant_id, stations[visit.box.identity], visit, number, meter)


def _visits(company: Company) -> list[Visit]:
    """The same every time it is planted, but for the date. EVSEs take turns, so that nobody meets."""
    chance = random.Random(company.slug)  # noqa: S311
    boxes = [box for box in company.boxes if box.scenario == "charge"]
    cards = [card for card in company.cards if card.status == "accepted"]
    now = utcnow().replace(second=0, microsecond=0)
    found = []
    for number in range(DAYS * A_DAY):
        box = boxes[number % len(boxes)]
        is_fast = box.kind.startswith("dc")
        length = timedelta(minutes=chance.randint(14, 32) if is_fast else chance.randint(70, 160))
        slot = now - timedelta(days=DAYS) + number * timedelta(hours=24 / A_DAY)
        start = slot + timedelta(minutes=chance.randint(0, 90))
        stays = timedelta(minutes=chance.choice((0, 0, 4, 25)))
        if start + length + stays < now:
            evse_no = 1 + number // len(boxes) % box.evse_count
            found.append(Visit(box, chance.choice(cards), evse_no, start, length, stays))
    return found


async def _charge(
    database: Database, tenant_id: UUID, station_id: UUID, visit: Visit, number: int, meter_wh: Decimal
) -> Decimal:
    """Answers where the meter stood afterwards."""
    station, end = Actor.station(station_id), visit.start + visit.length + visit.stays
    async with database.scope(tenant_id, station, now=visit.start) as scope:
        started = await service.report_transaction(scope, station_id, TransactionReport(
            kind="Started", at=visit.start, received_at=visit.start, natural_key=f"demo-start-{number}",
            evse_no=visit.evse_no, connector_no=1, id_token=IdTokenValue(visit.card.value), meter_start_wh=meter_wh,
        ))  # fmt: skip
    step = visit.length / READINGS
    power = POWER_W[visit.box.kind]
    per_step = Decimal(power) * int(step.total_seconds()) / 3600
    readings = []
    for n in range(1, READINGS + 1):
        at = visit.start + step * n
        level = power if n < READINGS else power * 2 // 5
        energy = (meter_wh + per_step * n).quantize(Decimal(1))
        for measurand, value, unit in ((ENERGY, energy, "Wh"), (POWER, Decimal(level), "W")):
            readings.append(Reading(measurand=measurand, value=value, unit=unit, sampled_at=at, received_at=at,
                                    context="Sample.Periodic"))  # fmt: skip
    stop_wh = (meter_wh + per_step * READINGS).quantize(Decimal(1))
    async with database.scope(tenant_id, station, now=end) as scope:
        await ingest.ingest(scope, station_id, visit.evse_no, started.ocpp_transaction_id, readings)
        await service.report_transaction(scope, station_id, TransactionReport(
            kind="Ended", at=end, received_at=end, natural_key=f"demo-stop-{number}", meter_stop_wh=stop_wh,
            ocpp_transaction_id=started.ocpp_transaction_id, stopped_reason="EVDisconnected",
        ))  # fmt: skip
    async with database.scope(tenant_id, Actor.job("settle"), now=end + timedelta(seconds=5)) as scope:
        of_it = ChargingSession.ocpp_transaction_id == started.ocpp_transaction_id
        session_id = (await scope.db.execute(select(ChargingSession.id).where(of_it))).scalar_one()
        await settlement.settle(scope, session_id)
    return stop_wh
