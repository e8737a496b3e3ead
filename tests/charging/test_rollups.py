"""Meter values go after a while; what is billed from them, shown of them and signed in them stays."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy import select, text

from app.access.verdict import IdTokenValue
from app.charging import ingest, jobs, queries, rollups, settlement
from app.charging import service as charging
from app.charging.models import CDR, ChargingSession, MeterHour, SessionCurve, SignedMeterValue
from app.charging.reports import ENERGY, POWER, Reading, TransactionReport
from app.kernel.ids import public_id
from app.kernel.settings import Settings
from app.stations import service as stations
from app.worker import Worker
from tenants.database import Database
from tenants.scope import Actor, Scope
from tests.cast import NORDLICHT, SOLMARK, STAFF, Cast, hire
from tests.conftest import DatabaseUrls
from tests.readings import MeterValue
from tests.web import House, found_brand

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
TODAY = datetime.now(UTC).date()
OLD = TODAY - timedelta(days=100)


def reading(at: datetime, value: str, measurand: str = ENERGY, **more: Any) -> Reading:
    unit = {ENERGY: "Wh", POWER: "W"}.get(measurand, "A")
    told = {"sampled_at": at, "received_at": at, "raw_value": value} | more
    return Reading(measurand=measurand, value=Decimal(value), unit=unit, **told)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


async def put(database: Database, cast: Cast, readings: list[Reading], session: UUID | None = None) -> None:
    async with database.scope(cast.tenant_id, STAFF) as scope:
        row = await charging.get_session(scope, session) if session else None
        await ingest.store(scope, row, cast.station_id, 1, readings)


async def charged(database: Database, cast: Cast, started_at: datetime, key: str = "k1") -> UUID:
    """A session of an hour with a reading each minute: 60 Wh a minute, standing from minute 40 on."""
    told = {
        "natural_key": key,
        "evse_no": 1,
        "connector_no": 1,
        "id_token": IdTokenValue(cast.card),
        "ocpp_transaction_id": f"{key}-1",
    }
    course = [
        one
        for minute in range(61)
        for one in (
            reading(started_at + timedelta(minutes=minute), str(1000 + 60 * min(minute, 40))),
            reading(started_at + timedelta(minutes=minute), "3600" if minute < 40 else "0", POWER),
        )
    ]
    course[0] = reading(started_at, "1000", signed_data="OCMF|{}|{}")
    end = started_at + timedelta(hours=1)
    async with database.scope(cast.tenant_id, Actor.station(cast.station_id)) as scope:
        await charging.report_transaction(scope, cast.station_id, TransactionReport(
            kind="Started", at=started_at, received_at=started_at, meter_start_wh=Decimal(1000), **told,
        ))  # fmt: skip
        await charging.report_transaction(scope, cast.station_id, TransactionReport(
            kind="Ended", at=end, received_at=end, meter_stop_wh=Decimal(3400), readings=tuple(course), **told,
        ))  # fmt: skip
        query = select(ChargingSession.id).where(ChargingSession.ocpp_transaction_id == f"{key}-1")
        return (await scope.db.execute(query)).scalar_one()


async def rows(database: Database, cast: Cast, model: Any) -> list[Any]:
    async with database.scope(cast.tenant_id, STAFF) as scope:
        return list((await scope.db.execute(select(model))).scalars())


def add_day(urls: DatabaseUrls, day: date) -> None:
    with psycopg.connect(urls.superuser.replace("+psycopg", ""), autocommit=True) as su:
        name, until = f"meter_instant_{day:%Y%m%d}", day + timedelta(days=1)
        su.execute("set time zone 'UTC'")
        su.execute(
            sql.SQL(
                "create table {} partition of livery.meter_instant for values from ({}) to ({})"
            ).format(sql.Identifier("livery", name), f"{day}", f"{until}")
        )  # fmt: skip


@pytest.fixture
async def cast(database: Database) -> Cast:
    return await hire(database, NORDLICHT)


@pytest.fixture
async def session(database: Database, cast: Cast) -> UUID:
    return await charged(database, cast, datetime.now(UTC) - timedelta(hours=2))


READINGS = st.lists(
    st.tuples(
        st.integers(0, 86_399_999),
        st.decimals("-1000000", "100000000", places=4, allow_nan=False),
        st.sampled_from([ENERGY, POWER, "Current.Import"]),
        st.sampled_from(["", "L1", "L2"]),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(in_time=READINGS, late=READINGS)
async def test_the_sums_of_the_rollups_are_the_sums_of_the_raw_readings(
    database: Database, cast: Cast, session: UUID, in_time: list[Any], late: list[Any]
):
    async with database.anonymous() as db:
        await db.execute(text("select livery.ensure_day('meter_instant', current_date - 5)"))
    day = TODAY - timedelta(days=5)
    start = noon(day) - timedelta(hours=12)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        for table in ("meter_instant where sampled_at < current_date - 2", "meter_hour", "session_curve"):
            await scope.db.execute(text(f"delete from livery.{table}"))
    for part in (in_time, late):
        for belongs in (True, False):
            told = [
                reading(start + timedelta(milliseconds=ms), str(value), measurand, phase=phase)
                for ms, value, measurand, phase, in_session in part
                if in_session is belongs
            ]
            await put(database, cast, told, session if belongs else None)
        async with database.scope(cast.tenant_id, STAFF) as scope:
            if not await rollups.is_rolled(scope, day):
                await rollups.roll_day(scope, day)
            assert await rollups.is_rolled(scope, day)
            await same_sums(scope, day)


async def same_sums(scope: Scope, day: date) -> None:
    def kinds(found: list[Any]) -> dict[Any, Any]:
        sums: dict[Any, Any] = defaultdict(lambda: [0, Decimal(0), None, None])
        for kind, count, total, low, high in found:
            one = sums[kind]
            one[0] += count
            one[1] += total
            one[2] = low if one[2] is None else min(one[2], low)
            one[3] = high if one[3] is None else max(one[3], high)
        return dict(sums)

    raw = [
        one for one in (await scope.db.execute(select(MeterValue))).scalars() if one.sampled_at.date() == day
    ]
    hours = list((await scope.db.execute(select(MeterHour))).scalars())
    curves = [one for one in (await scope.db.execute(select(SessionCurve))).scalars() if one.day == day]

    def summed(found: list[Any]) -> dict[Any, Any]:
        return kinds([
            ((one.measurand, one.phase), one.sample_count, one.value_sum, one.value_min, one.value_max) for one in found
        ])  # fmt: skip

    def each(found: list[Any]) -> dict[Any, Any]:
        return kinds([((one.measurand, one.phase), 1, one.value, one.value, one.value) for one in found])

    assert summed(hours) == each(raw)
    assert summed(curves) == each([one for one in raw if one.session_id])
    registers = sorted(
        (one.sampled_at, one.value) for one in raw if one.session_id and one.measurand == ENERGY
    )
    kept = [
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at), value)
        for one in curves
        if one.measurand == ENERGY
        for at, value in zip(one.curve_at, one.curve, strict=True)
    ]
    assert set(kept) == set(registers)
    for curve in curves:
        if curve.measurand != ENERGY:
            assert curve.value_min - 1 <= min(curve.curve) <= max(curve.curve) <= curve.value_max + 1


async def test_a_day_is_dropped_when_its_rollups_stand_and_pages_and_prices_are_as_before(
    settings: Settings, database: Database, database_urls: DatabaseUrls, cast: Cast
):
    """The same stretches, so the same CDR, from what stayed; the curve by minutes; the signature itself."""
    add_day(database_urls, OLD)
    session_id = await charged(database, cast, noon(OLD))
    other = await hire(database, SOLMARK)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        cdr = await settlement.settle(scope, session_id)
        assert cdr is not None
        before, was = await queries.power_points(scope, session_id), (cdr.price, cdr.charging_periods)
        assert len(before["t"]) == 61 and max(before["kw"]) == 3.6
    worker = Worker(settings)
    await worker.drop_readings()
    await worker.drop_readings()
    with psycopg.connect(database_urls.superuser.replace("+psycopg", "")) as su:
        assert su.execute("select to_regclass(%s)", [f"livery.meter_instant_{OLD:%Y%m%d}"]).fetchone() == (
            None,
        )
    assert not await rows(database, cast, MeterValue)
    assert not await rows(database, other, MeterHour)
    (signed,) = await rows(database, cast, SignedMeterValue)
    assert (signed.session_id, signed.signed_data) == (session_id, "OCMF|{}|{}")
    async with database.scope(cast.tenant_id, STAFF) as scope:
        assert await queries.power_points(scope, session_id) == before
        await settlement.credit(scope, cdr.id, "again", energy_wh=cdr.energy_wh)
        query = select(CDR).where(CDR.kind == "cdr", CDR.revision_no == 2)
        again = (await scope.db.execute(query)).scalar_one()
        assert (again.price, again.charging_periods) == was
    hours = [one for one in await rows(database, cast, MeterHour) if one.measurand == ENERGY]
    assert [(one.hour_at.hour, one.sample_count, one.first_value, one.last_value) for one in hours] == [
        (12, 60, 1000, 3400), (13, 1, 3400, 3400)
    ]  # fmt: skip
    await worker.database.close()


async def test_what_comes_after_its_day_was_dropped_is_folded_in_once(
    settings: Settings, database: Database, database_urls: DatabaseUrls, cast: Cast
):
    add_day(database_urls, OLD)
    session_id = await charged(database, cast, noon(OLD))
    worker = Worker(settings)
    await worker.drop_readings()
    at = noon(OLD) + timedelta(minutes=10, seconds=30)
    await put(database, cast, [reading(at, "1630"), reading(at, "11000", POWER)], session_id)
    await put(database, cast, [reading(noon(OLD) + timedelta(hours=2), "3400")])
    for _ in range(2):
        await jobs.roll_up(database, cast.tenant_id)
    assert not await rows(database, cast, MeterValue)
    (power,) = [
        one
        for one in await rows(database, cast, MeterHour)
        if one.measurand == POWER and one.hour_at.hour == 12
    ]
    assert (power.sample_count, power.value_max) == (61, 11000)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        query = text("select count(*) from livery.session_register(:session)")
        assert (await scope.db.execute(query, {"session": session_id})).scalar_one() == 62
        points = await queries.power_points(scope, session_id)
        assert max(points["kw"]) == 11 and points["t"] == sorted(points["t"])
    await worker.database.close()


async def test_late_readings_of_a_day_that_still_stands_make_its_rollup_anew(database: Database, cast: Cast):
    yesterday = noon(TODAY - timedelta(days=1))
    async with database.anonymous() as db:
        await db.execute(text("select livery.ensure_day('meter_instant', current_date - 1)"))
    await put(database, cast, [reading(yesterday, "100")])
    await jobs.roll_up(database, cast.tenant_id)
    await put(database, cast, [reading(yesterday + timedelta(minutes=1), "160")])
    await put(database, cast, [reading(datetime.now(UTC), "900")])
    for _ in range(2):
        await jobs.roll_up(database, cast.tenant_id)
    (hour,) = await rows(database, cast, MeterHour)
    assert (hour.sample_count, hour.value_sum, hour.first_value, hour.last_value) == (2, 260, 100, 160)
    assert len(await rows(database, cast, MeterValue)) == 3


async def test_a_day_stays_for_everybody_while_one_brand_could_not_be_rolled_up(
    settings: Settings,
    database: Database,
    database_urls: DatabaseUrls,
    cast: Cast,
    monkeypatch: pytest.MonkeyPatch,
):
    add_day(database_urls, OLD)
    await put(database, cast, [reading(noon(OLD), "100")])
    worker = Worker(settings)

    async def not_yet(_scope: Scope, _day: date) -> bool:
        return False

    monkeypatch.setattr(rollups, "is_rolled", not_yet)
    await worker.drop_readings()
    assert len(await rows(database, cast, MeterValue)) == 1
    await worker.database.close()


async def test_a_brand_reads_its_own_rollups_only_and_young_days_are_never_dropped(
    database: Database, database_urls: DatabaseUrls, cast: Cast
):
    other = await hire(database, SOLMARK)
    began = datetime.now(UTC) - timedelta(hours=2)  # yesterday, early in the day
    async with database.anonymous() as db:
        await db.execute(text("select livery.ensure_day('meter_instant', current_date - 1)"))
    await charged(database, cast, began)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        await rollups.roll_day(scope, began.date())
        assert (await scope.db.execute(select(MeterHour))).scalars().first()
    for model in (MeterHour, SessionCurve, SignedMeterValue):
        assert not await rows(database, other, model)
    async with database.anonymous() as db:
        with pytest.raises(Exception, match="younger than 35 days"):
            await db.execute(text("select livery.drop_day('meter_instant', current_date - 34)"))


async def test_hours_and_courses_are_told_by_rest(house: House, database: Database):
    """A session's course from its raw readings and from what stayed of them; energy of each hour of a station."""
    tenant_id = await found_brand(database)
    api = await house.api("nordlicht", tenant_id)
    async with database.scope(tenant_id, STAFF) as scope:
        made = await stations.create_station(
            scope, identity="CP1", evses=[{"evse_no": 1, "connectors": [{"connector_no": 1}]}]
        )
    async with database.anonymous() as db:
        await db.execute(text("select livery.ensure_day('meter_instant', current_date - 1)"))
    at = noon(TODAY - timedelta(days=1)) - timedelta(minutes=29, seconds=40)
    told = {"natural_key": "k", "evse_no": 1, "connector_no": 1, "ocpp_transaction_id": "1"}
    async with database.scope(tenant_id, STAFF) as scope:
        await charging.report_transaction(scope, made.station.id, TransactionReport(
            kind="Started", at=at, received_at=at, meter_start_wh=Decimal(1000), **told,
            readings=tuple(reading(at + timedelta(minutes=n), str(1000 + n * 100)) for n in range(60)),
        ))  # fmt: skip
        session_id = (await scope.db.execute(select(ChargingSession.id))).scalar_one()
    readings = f"/api/v1/charging-sessions/{public_id('charging_session', session_id)}/readings"
    before = (await api.get(readings)).json()["data"]
    assert len(before) == 60 and float(before[-1]["value"]) == 6900
    await jobs.roll_up(database, tenant_id)
    assert (await api.get(readings)).json()["data"] == before
    hours = f"/api/v1/stations/{public_id('charging_station', made.station.id)}/meter-hours"
    day = f"?since={TODAY - timedelta(days=1)}T00:00:00Z"
    first, second = (await api.get(hours + day)).json()["data"]
    assert (first["samples"], first["energy_wh"], second["energy_wh"]) == (30, 2900, 3000)
    assert float(first["average"]) == 2450 and first["hour"].endswith("T11:00:00Z")
    assert (await api.get(hours + "?since=2020-01-01T00:00:00Z")).status_code == 422
    async with database.scope(tenant_id, STAFF) as scope:
        await scope.db.execute(text("delete from livery.meter_instant"))
    assert (await api.get(readings)).json()["data"] == before
