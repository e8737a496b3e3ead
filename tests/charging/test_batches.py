"""The gateway's batches: one transaction for many tenants, each row under its own; what the verbs say, they say too."""

import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from app.access.verdict import IdTokenValue
from app.charging import ingest
from app.charging import service as charging
from app.charging.ingest import HotReadings, Written, write_readings
from app.charging.models import ChargingSession, SessionEvent, SessionLive
from app.charging.reports import Reading, TransactionReport
from app.stations.models import EVSEFigures, OCPPFrame, OCPPMessage
from ocpp_gateway import hot, meter_values
from tenants.database import BatchError, Database
from tenants.scope import Actor
from tests.cast import NORDLICHT, SOLMARK, STAFF, Cast, hire
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio
AT = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)


def us(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def start(database: Database, cast: Cast, evse_no: int = 1) -> ChargingSession:
    async with database.scope(cast.tenant_id, Actor.station(cast.station_id)) as scope:
        verdict = await charging.report_transaction(scope, cast.station_id, TransactionReport(
            kind="Started", at=AT, received_at=AT, natural_key=f"k{evse_no}", evse_no=evse_no, connector_no=1,
            id_token=IdTokenValue(cast.card), ocpp_transaction_id=str(1000 + evse_no), meter_start_wh=Decimal(1000),
        ))  # fmt: skip
        query = select(ChargingSession).where(
            ChargingSession.ocpp_transaction_id == verdict.ocpp_transaction_id
        )
        return (await scope.db.execute(query)).scalar_one()


def metering(
    cast: Cast, wh: int, *, transaction: int | None = 1001, at: datetime = AT, evse_no: int = 1
) -> HotReadings:
    samples = [
        {"value": str(wh), "measurand": "Energy.Active.Import.Register", "unit": "Wh"},
        {"value": "7.36", "measurand": "Power.Active.Import", "unit": "kW"},
        {"value": "10.5", "measurand": "Current.Import", "phase": "L1", "unit": "A"},
        {"value": "11", "measurand": "Current.Import", "phase": "L2", "unit": "A"},
    ]
    payload: dict[str, Any] = {
        "connectorId": evse_no,
        "meterValue": [{"timestamp": stamp(at), "sampledValue": samples}],
    }
    if transaction:
        payload["transactionId"] = transaction
    return read(cast, "ocpp1.6", "MeterValues", payload)


def read(cast: Cast, version: str, action: str, payload: dict[str, Any]) -> HotReadings:
    raw = json.dumps([2, f"m{time.monotonic_ns()}", action, payload])
    message = hot.read(version, cast.tenant_id, str(cast.station_id), raw, time.time_ns() // 1000)
    assert message is not None
    return message


async def write(database: Database, *batch: HotReadings) -> list[Written]:
    async with database.batch() as connection:
        return await write_readings(connection, batch)


async def rows(database: Database, cast: Cast, model: Any) -> list[Any]:
    async with database.scope(cast.tenant_id, STAFF) as scope:
        return list((await scope.db.execute(select(model))).scalars())


async def test_a_batch_of_two_brands_leaves_each_row_with_its_own(database: Database):
    nordlicht, solmark = await hire(database, NORDLICHT), await hire(database, SOLMARK)
    ours, theirs = await start(database, nordlicht), await start(database, solmark)
    written = await write(database, metering(solmark, 1_500), metering(nordlicht, 2_500))
    assert written == [Written(theirs.id, 1, False), Written(ours.id, 1, False)]
    for cast, session, wh in ((nordlicht, ours, 2_500), (solmark, theirs, 1_500)):
        values = await rows(database, cast, MeterValue)
        assert {value.session_id for value in values} == {session.id}
        assert {(v.measurand, v.phase, v.unit, v.value) for v in values} == {
            ("Energy.Active.Import.Register", "", "Wh", Decimal(wh)), ("Power.Active.Import", "", "W", Decimal(7360)),
            ("Current.Import", "L1", "A", Decimal("10.5")), ("Current.Import", "L2", "A", Decimal(11)),
        }  # fmt: skip
        (live,) = await rows(database, cast, SessionLive)
        assert (live.meter_wh, live.power_w, float(live.current_a)) == (wh, 7_360, 11.0)
        (evse,) = [one for one in await rows(database, cast, EVSEFigures) if one.power_w]
        assert (evse.meter_wh, evse.power_w) == (wh, 7_360)
        frames = await rows(database, cast, OCPPFrame)
        assert sorted((f.direction, f.kind, f.action) for f in frames) == [
            ("in", "call", "MeterValues"), ("out", "result", "MeterValues")
        ]  # fmt: skip
    async with database.anonymous() as db:
        assert (await db.execute(text("select count(*) from livery.meter_value"))).scalar_one() == 0


async def test_the_same_message_twice_is_one_and_an_older_one_moves_nothing_back(database: Database):
    cast = await hire(database, NORDLICHT)
    await start(database, cast)
    await write(database, metering(cast, 2_000, at=AT + timedelta(minutes=2)))
    await write(database, metering(cast, 2_000, at=AT + timedelta(minutes=2)))
    await write(database, metering(cast, 1_500, at=AT + timedelta(minutes=1)))
    assert len(await rows(database, cast, MeterValue)) == 8
    (live,) = await rows(database, cast, SessionLive)
    assert live.meter_wh == 2_000


async def test_a_transaction_of_another_station_or_brand_is_not_touched(database: Database):
    nordlicht, solmark = await hire(database, NORDLICHT), await hire(database, SOLMARK)
    await start(database, solmark)
    (written,) = await write(database, metering(nordlicht, 9_999))
    assert written == Written(None, 1, False)
    (value, *_) = await rows(database, nordlicht, MeterValue)
    assert value.session_id is None
    assert not await rows(database, solmark, MeterValue)
    (live,) = await rows(database, solmark, SessionLive) or [None]
    assert live is None or live.meter_wh != 9_999


async def test_without_a_transaction_id_the_open_session_of_the_evse_is_meant(database: Database):
    cast = await hire(database, NORDLICHT)
    session = await start(database, cast)
    (written,) = await write(database, metering(cast, 1_200, transaction=None))
    assert written.session_id == session.id


async def test_an_update_of_a_transaction_nobody_knows_is_left_to_the_verb(database: Database):
    cast = await hire(database, NORDLICHT)
    await start(database, cast)

    def updated(transaction: str, state: str, seq_no: int) -> HotReadings:
        return read(cast, "ocpp2.0.1", "TransactionEvent", {
            "eventType": "Updated", "timestamp": stamp(AT + timedelta(minutes=seq_no)),
            "triggerReason": "MeterValuePeriodic",
            "seqNo": seq_no, "transactionInfo": {"transactionId": transaction, "chargingState": state},
            "evse": {"id": 1, "connectorId": 1},
            "meterValue": [
                {"timestamp": stamp(AT), "sampledValue": [{"value": 1.5, "unitOfMeasure": {"unit": "kWh"}}]}
            ],
        })  # fmt: skip

    (written,) = await write(database, updated("nobodys", "Charging", 1))
    assert written.is_cold
    assert not await rows(database, cast, OCPPMessage) and not await rows(database, cast, MeterValue)
    for seq_no, state in ((1, "Charging"), (2, "Charging"), (4, "SuspendedEV"), (3, "Charging")):
        (written,) = await write(database, updated("1001", state, seq_no))
        assert not written.is_cold
    (live,) = await rows(database, cast, SessionLive)
    assert (live.charging_state, live.seq_no, live.meter_wh) == ("SuspendedEV", 4, 1_500)
    states = [
        event.data["state"] for event in await rows(database, cast, SessionEvent) if event.kind == "state"
    ]
    assert sorted(states) == ["Charging", "Charging", "SuspendedEV"]  # a change is told, not each report


def event(cast: Cast, wh: int, at: datetime, **sample: Any) -> dict[str, Any]:
    return {
        "eventType": "Updated", "timestamp": stamp(at), "triggerReason": "MeterValuePeriodic", "seqNo": 3,
        "transactionInfo": {"transactionId": "1001", "chargingState": "Charging"}, "evse": {"id": 1, "connectorId": 1},
        "meterValue": [{"timestamp": stamp(at), "sampledValue": [{"value": wh, **sample}]}],
    }  # fmt: skip


async def test_what_a_queue_tells_of_a_session_that_is_over_needs_no_verb_and_moves_nothing(
    database: Database,
):
    """A reading of its time lies beside the others; one of later is judged."""
    cast, end = await hire(database, NORDLICHT), AT + timedelta(minutes=4)
    session = await start(database, cast)
    await write(database, metering(cast, 1_500, at=AT + timedelta(minutes=1)))
    async with database.scope(cast.tenant_id, Actor.station(cast.station_id)) as scope:
        await charging.report_transaction(scope, cast.station_id, TransactionReport(
            kind="Ended", at=end, received_at=end, ocpp_transaction_id="1001", evse_no=1, meter_stop_wh=Decimal(3000),
        ))  # fmt: skip
    inside = AT + timedelta(minutes=2)
    for late in (
        metering(cast, 2_000, at=inside),
        read(cast, "ocpp2.0.1", "TransactionEvent", event(cast, 2_200, inside + timedelta(seconds=30))),
    ):
        assert await write(database, late) == [Written(None, 1, False)]
    told = {int(v.value): v.session_id for v in await rows(database, cast, MeterValue) if v.unit == "Wh"}
    assert told == {1_500: session.id, 2_000: session.id, 2_200: session.id}
    (live,) = await rows(database, cast, SessionLive) or [None]
    assert live is None or live.meter_wh == 1_500
    for after in (
        metering(cast, 9_000, at=end + timedelta(seconds=1)),
        read(cast, "ocpp2.0.1", "TransactionEvent", event(cast, 9_000, end + timedelta(seconds=1))),
    ):
        assert (await write(database, after))[0].is_cold


async def test_readings_of_a_session_whose_start_is_still_to_come_need_no_verb_but_its_begin_does(
    database: Database,
):
    cast = await hire(database, NORDLICHT)
    async with database.scope(cast.tenant_id, Actor.station(cast.station_id)) as scope:
        await charging.report_transaction(scope, cast.station_id, TransactionReport(
            kind="Updated", at=AT, received_at=AT, ocpp_transaction_id="1001", evse_no=1, connector_no=1,
        ))  # fmt: skip
    (session,) = await rows(database, cast, ChargingSession)
    assert (session.review, session.meter_start_wh) == ("orphan", None)
    later = event(cast, 2_000, AT + timedelta(minutes=1))
    assert await write(database, read(cast, "ocpp2.0.1", "TransactionEvent", later)) == [
        Written(session.id, 1, False)
    ]
    (live,) = await rows(database, cast, SessionLive)
    assert (live.meter_wh, live.energy_wh) == (2_000, None)
    begin = json.dumps([2, "m", "TransactionEvent", event(cast, 1_000, AT, context="Transaction.Begin")])
    assert hot.read("ocpp2.0.1", cast.tenant_id, str(cast.station_id), begin, time.time_ns() // 1000) is None


async def test_a_meter_whose_begin_was_never_told_counts_from_its_first_reading(database: Database):
    cast = await hire(database, NORDLICHT)
    session = await start(database, cast)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        await scope.db.execute(text("update livery.charging_session set meter_start_wh = null"))
    soc = {"timestamp": stamp(AT), "sampledValue": [{"value": "50", "measurand": "SoC", "unit": "Percent"}]}
    await write(database, read(cast, "ocpp1.6", "MeterValues", {
        "connectorId": 1, "transactionId": 1001, "meterValue": [soc]}))  # fmt: skip
    (live,) = await rows(database, cast, SessionLive)
    assert (live.session_id, live.reading_at, live.metered_at, live.energy_wh) == (session.id, AT, None, None)
    for minutes, wh in ((1, 4_000), (3, 4_700), (2, 4_200)):
        await write(database, metering(cast, wh, at=AT + timedelta(minutes=minutes)))
    (live,) = await rows(database, cast, SessionLive)
    assert (live.first_wh, live.meter_wh, live.energy_wh) == (4_000, 4_700, 700)
    assert live.metered_at == AT + timedelta(minutes=3)


async def test_a_register_that_comes_after_a_younger_power_counts_all_the_same(database: Database):
    """Some stations tell power and register in messages of their own, and the register's time lies before."""
    cast = await hire(database, NORDLICHT)
    await start(database, cast)
    power = {"value": "11000", "measurand": "Power.Active.Import", "unit": "W"}
    for minutes, wh in ((2, 1_300), (4, 1_700)):
        at = AT + timedelta(minutes=minutes)
        await write(database, read(cast, "ocpp1.6", "MeterValues", {
            "connectorId": 1, "transactionId": 1001,
            "meterValue": [{"timestamp": stamp(at), "sampledValue": [power]}]}))  # fmt: skip
        await write(database, metering(cast, wh, at=at - timedelta(seconds=10)))
    (live,) = await rows(database, cast, SessionLive)
    assert (live.meter_wh, live.energy_wh) == (1_700, 700)
    assert live.metered_at == AT + timedelta(minutes=4, seconds=-10)
    assert live.reading_at == AT + timedelta(minutes=4)


@pytest.mark.parametrize(("current", "soc"), [("99999999.995", "999.995"), ("-99999999.995", "-1000")])
async def test_what_would_round_past_the_live_columns_is_kept_and_shown_to_nobody(
    database: Database, current: str, soc: str
):
    """By a batch and by a verb."""
    cast = await hire(database, NORDLICHT)
    session = await start(database, cast)
    samples = [{"value": current, "measurand": "Current.Import"}, {"value": soc, "measurand": "SoC"}]
    update = {"connectorId": 1, "transactionId": 1001, "meterValue": [
        {"timestamp": stamp(AT), "sampledValue": samples}
    ]}  # fmt: skip
    message = read(cast, "ocpp1.6", "MeterValues", update)
    await write(database, message)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        later = AT + timedelta(minutes=1)
        told = [
            Reading(sampled_at=later, received_at=later, measurand=kind, value=Decimal(value), unit="")
            for kind, value in (("Current.Import", current), ("SoC", soc))
        ]
        row = await scope.db.get(ChargingSession, (scope.tenant_id, session.id))
        assert await ingest.store(scope, row, cast.station_id, 1, told) == 1
    async with database.scope(cast.tenant_id, STAFF) as scope:
        kept = (await scope.db.execute(select(MeterValue.value))).scalars().all()
        live = (await scope.db.execute(select(SessionLive))).scalar_one()
        assert sorted(kept) == sorted([Decimal(current), Decimal(soc)] * 2)
        assert (live.current_a, live.soc_percent, live.reading_at) == (None, None, later)


async def test_a_message_that_cannot_be_stored_undoes_its_whole_batch(database: Database):
    nordlicht, solmark = await hire(database, NORDLICHT), await hire(database, SOLMARK)
    await start(database, nordlicht)
    poison = metering(solmark, 1_000)
    poison.instants = [(us(AT), None, "[no JSON]")]
    with pytest.raises(BatchError) as refused:
        await write(database, metering(nordlicht, 1_500), poison)
    assert refused.value.sqlstate == "22P02"
    assert not await rows(database, nordlicht, MeterValue) and not await rows(
        database, nordlicht, OCPPMessage
    )


async def test_a_session_with_a_cap_is_looked_at_in_the_same_commit(database: Database):
    cast = await hire(database, NORDLICHT)
    session = await start(database, cast)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        (await scope.db.get_one(ChargingSession, (cast.tenant_id, session.id))).cost_cap_minor = 5_000
    await write(database, metering(cast, 1_500))
    assert await jobs(database, cast.tenant_id) == 1
    silent: dict[str, Any] = event(cast, 1_500, AT + timedelta(minutes=1)) | {"meterValue": []}
    silent["transactionInfo"]["chargingState"] = "SuspendedEV"
    await write(database, read(cast, "ocpp2.0.1", "TransactionEvent", silent))
    assert await jobs(database, cast.tenant_id) == 2


async def jobs(database: Database, tenant_id: UUID) -> int:
    from psycopg import AsyncConnection

    url = (database.settings.database_url_queue or "").replace("+psycopg", "")
    async with await AsyncConnection.connect(url) as connection:
        query = (
            "select count(*) from procrastinate.procrastinate_jobs"
            " where task_name = 'charging.check_cap' and args ->> 'tenant' = %s"
        )
        row = await (await connection.execute(query, [str(tenant_id)])).fetchone()
        return int(row[0]) if row else 0


# -- both ways say the same --------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.integers(-10, 10**9).map(str), st.decimals(0, 10**6, places=3).map(str),
    st.sampled_from(["1e3", "12,5", "NaN", " 7 ", "+5"]), st.integers(0, 10**6), st.floats(0, 1e6, allow_nan=False),
)  # fmt: skip
MEASURANDS = (
    "Energy.Active.Import.Register", "Power.Active.Import", "Current.Import", "Voltage.L1-N", "SoC", "Own.Thing",
)  # fmt: skip
SAMPLES = st.fixed_dictionaries({"value": VALUES}, optional={
    "measurand": st.sampled_from(MEASURANDS), "phase": st.sampled_from(["L1", "L2", "L3", "L1-N", "N", "X9"]),
    "unit": st.sampled_from(["Wh", "kWh", "W", "kW", "A", "celcius", "furlong"]),
    "context": st.sampled_from(["Sample.Periodic", "Transaction.End", "odd"]),
    "location": st.sampled_from(["Outlet", "Inlet", "EV", "moon"]),
})  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(SAMPLES, min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
)
def test_the_fast_and_the_lenient_reading_agree(
    entries: list[list[dict[str, Any]]], separators: tuple[str, str]
):
    received = datetime.now(UTC)
    values = [
        {"timestamp": stamp(received - timedelta(seconds=60 * n)), "sampledValue": samples}
        for n, samples in enumerate(entries)
    ]
    raw = json.dumps(
        [2, "m1", "MeterValues", {"connectorId": 1, "meterValue": values}], separators=separators
    )
    received_us = int(received.timestamp() * 1e6)
    fast = hot.read("ocpp1.6", UUID(int=1), "s", raw, received_us)
    assert fast is not None
    slow = meter_values.normalise(
        json.loads(raw)[3]["meterValue"], datetime.fromtimestamp(received_us / 1e6, UTC)
    )
    instants: dict[int, list[str]] = {}
    for reading in slow:
        assert reading.station_at is None
        at = (reading.sampled_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        instants.setdefault(at, []).append(ingest.sample_of(reading))
    assert fast.instants == [(at, None, ingest.as_samples(samples)) for at, samples in instants.items()]
    figures = ingest.latest(slow)
    found = [None if one is None else float(one) for one in fast.figures]
    wanted = [figures.meter_wh, figures.power_w, figures.current_a, figures.voltage_v, figures.soc_percent]
    assert found == [None if one is None else float(one) for one in wanted]


@pytest.mark.parametrize("said", ["\x1e", "\\u001e", "\\u0000"])
@pytest.mark.parametrize("where", ["m1", "Own.Thing", "unknown"])
def test_what_would_split_a_batch_at_the_wrong_place_takes_the_slow_way(said: str, where: str):
    """Or its message would shift all behind it, to stations and tenants that did not send them."""
    sample = {"value": "1", "measurand": "Own.Thing", "vendorsOwn": "unknown"}
    values = [{"timestamp": stamp(datetime.now(UTC)), "sampledValue": [sample]}]
    raw = json.dumps([2, "m1", "MeterValues", {"connectorId": 1, "meterValue": values}])
    received_us = int(datetime.now(UTC).timestamp() * 1e6)
    assert hot.read("ocpp1.6", UUID(int=1), "s", raw, received_us) is not None
    assert hot.read("ocpp1.6", UUID(int=1), "s", raw.replace(where, where + said), received_us) is None


ODD_SAMPLES = (
    '{"value":"1","value":"2"}', '{"value":"2","value":"2"}', '{"value":"7","value":7}', '{"value":7,"value":"7"}',
    '{"customData":{"vendorId":"x","value":"5"},"value":"8"}', '{"customData":{"vendorId":"x","value":"5"},"value":8}',
    '{"value":"8","customData":{"vendorId":"x","value":"5"}}', '{"context":"\\"value\\":\\"5\\"","value":"8"}',
    '{"value":"٣"}', '{"value":"²"}', '{"value":"-0"}', '{"value":"007"}', '{"value":"1.0"}',
    '{"value":"8","unit":"kW%d"}', '{"value":"8","measurand":"100 %"}',
    '{"value":"7","unitOfMeasure":{"unit":"kWh","multiplier":-3}}',
    '{"value":"7","unitOfMeasure":{"unit":"kWh","multiplier":3}}',
    '{"value":"8","measurand":"%s"}', '{"value":"8","unit":"kWh"}',
)  # fmt: skip


@pytest.mark.parametrize("sample", ODD_SAMPLES)
@pytest.mark.parametrize("before", ['{"value":"1"}', '{"value":"2"}', '{"value":"7","value":"9"}', ""])
def test_a_sampled_value_that_looks_like_another_is_read_as_the_lenient_way_reads_it(
    sample: str, before: str
):
    """What was learnt from one of the same spelling holds for all of it: twice, with other numbers between."""
    at = datetime.now(UTC)
    for told in (sample, sample.replace("8", "9"), sample):
        samples = "[" + ",".join(filter(None, [before, told])) + "]"
        raw = (
            '[2,"m1","MeterValues",{"connectorId":1,"meterValue":'
            f'[{{"timestamp":"{stamp(at)}","sampledValue":{samples}}}]}}]'
        )
        fast = hot.read("ocpp1.6", UUID(int=1), "s", raw, int(at.timestamp() * 1e6))
        slow = meter_values.normalise(json.loads(raw)[3]["meterValue"], at)
        assert fast is not None
        assert [samples for _, _, samples in fast.instants] == [
            ingest.as_samples(map(ingest.sample_of, slow))
        ]
        figures = ingest.latest(slow)
        assert fast.figures[0] == (None if figures.meter_wh is None else str(figures.meter_wh))


async def test_instants_of_one_message_are_a_row_each_and_told_again_none(database: Database):
    cast = await hire(database, NORDLICHT)
    session = await start(database, cast)
    values = [
        {"timestamp": stamp(AT + timedelta(minutes=n)), "sampledValue": [{"value": str(1_000 + n)}]}
        for n in range(3)
    ]
    payload = {"connectorId": 1, "transactionId": 1001, "meterValue": values}
    for _ in range(2):
        await write(database, read(cast, "ocpp1.6", "MeterValues", payload))
        kept = await rows(database, cast, MeterValue)
        told = sorted((one.sampled_at, one.value, one.session_id) for one in kept)
        assert told == [(AT + timedelta(minutes=n), Decimal(1_000 + n), session.id) for n in range(3)]
    (live,) = await rows(database, cast, SessionLive)
    assert live.meter_wh == 1_002


async def test_an_evse_shows_what_its_session_says_and_without_one_what_it_says_itself(database: Database):
    cast = await hire(database, NORDLICHT)

    async def shown() -> list[tuple[int | None, datetime | None]]:
        found = await rows(database, cast, EVSEFigures)
        return [(one.meter_wh, one.reading_at) for one in found if one.reading_at]

    later, before = AT + timedelta(minutes=1), AT - timedelta(minutes=1)
    await write(database, metering(cast, 900, transaction=None, at=before))
    assert await shown() == [(900, before)]
    await start(database, cast)
    assert await shown() == [(900, before)], "the session has said nothing yet"
    await write(database, metering(cast, 1_100, at=later))
    assert await shown() == [(1_100, later)]
    await write(database, metering(cast, 1_050, at=AT))  # told late
    assert await shown() == [(1_100, later)]
    async with database.scope(cast.tenant_id, Actor.station(cast.station_id)) as scope:
        await charging.report_transaction(scope, cast.station_id, TransactionReport(
            kind="Ended", at=later, received_at=later, natural_key="k1", evse_no=1, ocpp_transaction_id="1001",
            meter_stop_wh=Decimal(1_100),
        ))  # fmt: skip
    await write(
        database, metering(cast, 1_080, transaction=None, at=AT + timedelta(seconds=30))
    )  # told late, too
    ended = [(one.power_w, one.meter_wh) for one in await rows(database, cast, EVSEFigures) if one.reading_at]
    assert ended == [(0, None)]


async def test_frames_of_one_millisecond_stand_in_the_log_in_their_order(database: Database):
    """Also beside those of verbs, whose ids PostgreSQL makes: both say the time to the microsecond."""
    cast = await hire(database, NORDLICHT)
    now_us = time.time_ns() // 1_000_000 * 1000
    payload: dict[str, Any] = {
        "connectorId": 1,
        "meterValue": [{"timestamp": stamp(AT), "sampledValue": [{"value": "1"}]}],
    }
    for late in range(5):
        raw = json.dumps([2, f"m{late}", "MeterValues", payload])
        message = hot.read("ocpp1.6", cast.tenant_id, str(cast.station_id), raw, now_us + 150 * late)
        assert message is not None
        await write(database, message)
    stored = sorted(await rows(database, cast, OCPPMessage), key=lambda one: one.id)
    assert [one.message_id for one in stored] == [f"m{late}" for late in range(5)]
