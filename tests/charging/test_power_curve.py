"""The curve of kW is the power that flows, also where stations tell it at times of their own."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.access.verdict import IdTokenValue
from app.charging import ingest
from app.charging import service as charging
from app.charging.reports import Reading, TransactionReport
from app.stations import queries
from tenants.database import Database
from tenants.scope import Actor
from tests.cast import NORDLICHT, STAFF, Cast, hire
from tests.charging.test_batches import AT, read, stamp, write

pytestmark = pytest.mark.anyio
NOW = AT.replace(second=10)


@pytest.fixture
async def cast(database: Database) -> Cast:
    return await hire(database, NORDLICHT)


async def tell(
    database: Database, cast: Cast, evse_no: int, ago_s: int, kw: str, transaction: int | None = None
) -> None:
    sample = {"value": kw, "measurand": "Power.Active.Import", "unit": "kW"}
    payload: dict[str, Any] = {
        "connectorId": evse_no,
        "meterValue": [{"timestamp": stamp(NOW - timedelta(seconds=ago_s)), "sampledValue": [sample]}],
    }
    if transaction:
        payload["transactionId"] = transaction
    await write(database, read(cast, "ocpp1.6", "MeterValues", payload))


async def curve(database: Database, cast: Cast, station: bool = False) -> dict[str, list[Any]]:
    async with database.scope(cast.tenant_id, STAFF) as scope:
        scope.now = NOW
        return await queries.power_curve(
            scope, cast.station_id if station else None, NOW - timedelta(hours=1)
        )


def kw_at(points: dict[str, list[Any]], ago_s: int) -> float:
    return [kw for t, kw in zip(points["t"], points["kw"], strict=True) if t <= NOW.timestamp() - ago_s][-1]


async def test_stations_that_tell_in_turns_are_summed_at_each_moment(database: Database, cast: Cast):
    """One tells each minute, the other half a minute later: their sum never falls to one of them."""
    for ago in range(600, 0, -60):
        await tell(database, cast, 1, ago, "7.4")
        await tell(database, cast, 2, ago - 30, "11.0")
    points = await curve(database, cast)
    assert points["kw"][:1] == [7.4] and set(points["kw"][1:]) == {18.4}
    assert points["t"][-1] == NOW.timestamp() and len(points["t"]) == 21
    assert await curve(database, cast, station=True) == points


async def test_a_reading_holds_until_its_session_ends(database: Database, cast: Cast):
    async def report(kind: Any, ago_s: int, **more: Any) -> str:
        at = NOW - timedelta(seconds=ago_s)
        async with database.scope(cast.tenant_id, Actor.station(cast.station_id)) as scope:
            verdict = await charging.report_transaction(scope, cast.station_id, TransactionReport(
                kind=kind, at=at, received_at=at, natural_key="k", evse_no=1, connector_no=1, **more,
            ))  # fmt: skip
            return verdict.ocpp_transaction_id or ""

    number = await report("Started", 1200, id_token=IdTokenValue(cast.card), ocpp_transaction_id="1001",
                          meter_start_wh=Decimal(1000))  # fmt: skip
    await tell(database, cast, 1, 1140, "11", int(number))
    await tell(database, cast, 1, 840, "10", int(number))
    await report("Ended", 420, ocpp_transaction_id=number, meter_stop_wh=Decimal(3000))
    points = await curve(database, cast)
    assert [kw_at(points, ago) for ago in (1000, 700, 440, 400, 0)] == [11, 10, 10, 0, 0]


async def test_a_station_that_falls_silent_does_not_charge_for_ever(database: Database, cast: Cast):
    await tell(database, cast, 1, 3000, "50")
    points = await curve(database, cast)
    held = queries.HELD.total_seconds()
    assert [kw_at(points, ago) for ago in (2900, 3030 - held, 2940 - held, 0)] == [50, 50, 0, 0]


async def test_what_flowed_before_the_curve_begins_counts_in_it(database: Database, cast: Cast):
    await tell(database, cast, 1, 3700, "22")
    await tell(database, cast, 2, 3600 + 1000, "22")  # held no longer
    points = await curve(database, cast)
    assert points["kw"][0] == 22 and NOW.timestamp() - points["t"][0] <= 3600


async def test_a_stations_own_meter_is_not_added_to_those_of_its_evses(database: Database, cast: Cast):
    at = NOW - timedelta(seconds=60)
    own = Reading(
        measurand="Power.Active.Import", value=Decimal(18_400), unit="W", sampled_at=at, received_at=at
    )
    async with database.scope(cast.tenant_id, Actor.station(cast.station_id)) as scope:
        await ingest.ingest(scope, cast.station_id, 0, None, [own])
    await tell(database, cast, 1, 60, "7.4")
    await tell(database, cast, 2, 60, "11")
    assert kw_at(await curve(database, cast), 0) == 18.4


async def test_without_a_reading_there_is_no_curve(database: Database, cast: Cast):
    await tell(database, cast, 1, 3600 + 1000, "22")
    points = await curve(database, cast)
    assert points == {"t": [], "kw": []}
    assert queries.curve_in_words(points) == "No power was reported in this time."
