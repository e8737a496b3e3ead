"""ocpp.md section 3, quirks of real chargers in what they report: 16 to 20, 23 to 51, 58.

Each test is named after its number.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import update

from app.charging import ingest
from app.charging import service as charging
from app.charging.models import ChargingSession, SessionEvent, SessionLive
from app.charging.queries import timeline
from app.charging.reports import ENERGY, POWER, Reading
from app.stations.models import EVSE, ChargingStation, Connector, OCPPMessage, StationAlert
from ocpp_gateway import codec, lenient, meter_values
from ocpp_gateway.codec import Broken
from tests.foreign_stations import stamp
from tests.gateway.street import Box, Link, Street, box, street
from tests.gateway.test_rows_2_reports import ago, sample, session_of, start, stop
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio
__all__ = ["box", "street"]

NOW = datetime(2026, 6, 1, 8, tzinfo=UTC)


async def station_of(box: Box) -> ChargingStation:
    (station,) = await box.street.rows(ChargingStation, ChargingStation.id == box.station_id)
    return station


# -- boot and clock ----------------------------------------------------------------------------------------------------


async def test_quirk_16_17_long_serials_are_taken_and_empty_ones_are_absent(box: Box):
    link = await box.dial()
    serial = "3N" + "7" * 40
    boot = {
        "chargePointModel": "EVlink", "chargePointVendor": "Schneider" * 10, "chargePointSerialNumber": serial,
        "iccid": "", "imsi": "", "meterSerialNumber": "N/A", "firmwareVersion": "",
    }  # fmt: skip
    assert (await link.call("BootNotification", boot))[2]["status"] == "Accepted"
    station = await station_of(box)
    assert (station.serial_number, station.vendor, station.firmware_version) == (
        serial,
        "Schneider" * 10,
        None,
    )


async def test_quirk_18_a_restart_interrupts_a_session_and_its_own_stop_still_ends_it(
    street: Street, box: Box
):
    link = await box.online()
    transaction = await start(link, at=ago(minutes=50))
    await link.tell("MeterValues", {"connectorId": 1, "transactionId": transaction,
                                    "meterValue": sample(3_000, ago(minutes=40))})  # fmt: skip
    await link.close()
    again = await box.online()
    assert (await session_of(box)).interrupted_at is not None
    assert (await session_of(box)).status == "ACTIVE"
    await stop(again, transaction, meter=3_500, reason="PowerLoss")
    session = await session_of(box)
    assert (session.energy_wh, session.stopped_reason) == (2_500, "PowerLoss")


@pytest.mark.parametrize("word", ["Preparing", "Available"])
async def test_quirk_18_37_a_session_whose_stop_never_came_is_closed_at_its_last_reading(
    street: Street, box: Box, word: str
):
    link = await box.online()
    transaction = await start(link, at=ago(minutes=50))
    await link.tell("MeterValues", {"connectorId": 1, "transactionId": transaction,
                                    "meterValue": sample(3_000, ago(minutes=40))})  # fmt: skip
    if word == "Preparing":
        await link.boot()
        async with street.scope() as scope:
            await scope.db.execute(
                update(ChargingSession).where(ChargingSession.station_id == box.station_id)
                .values(interrupted_at=ago(minutes=36))
            )  # fmt: skip
    status = {"connectorId": 1, "errorCode": "NoError", "status": word}
    await link.tell("StatusNotification", status | {"timestamp": stamp(ago(minutes=35))})
    async with street.scope() as scope:
        await charging.close_unplugged(scope, quiet_for=timedelta(minutes=37))
    assert (await session_of(box)).status == "ACTIVE"  # not yet
    async with street.scope() as scope:
        await charging.close_unplugged(scope)
    session = await session_of(box)
    assert (session.status, session.review, session.energy_wh) == ("COMPLETED", "stuck", 2_000)
    assert session.ended_at
    assert abs(session.ended_at - ago(minutes=35)) < timedelta(seconds=5)
    await stop(link, transaction, meter=3_100, at=ago(minutes=34))  # it comes after all, and counts
    session = await session_of(box)
    assert (session.review, session.energy_wh, session.stopped_reason) == (None, 2_100, "Local")


@pytest.mark.parametrize(
    "case", ["still measuring", "plugged in", "free only a moment", "free before it started"]
)
async def test_quirk_37_a_session_that_may_live_is_left_alone(street: Street, box: Box, case: str):
    link = await box.online()
    free = {"still measuring": 30, "plugged in": 30, "free only a moment": 2, "free before it started": 60}[
        case
    ]
    status = {"connectorId": 1, "errorCode": "NoError", "timestamp": stamp(ago(minutes=free))}
    if case == "free before it started":
        await link.tell("StatusNotification", status | {"status": "Available"})
    transaction = await start(link, at=ago(minutes=50))
    at = ago(minutes=1) if case == "still measuring" else ago(minutes=40)
    await link.tell(
        "MeterValues", {"connectorId": 1, "transactionId": transaction, "meterValue": sample(3_000, at)}
    )
    if case != "free before it started":
        word = "Charging" if case == "plugged in" else "Available"
        await link.tell("StatusNotification", status | {"status": word})
    async with street.scope() as scope:
        await charging.close_unplugged(scope)
    assert (await session_of(box)).status == "ACTIVE"


async def test_quirk_19_before_it_knows_the_time_a_station_tells_1970_and_we_keep_ours(box: Box):
    link = await box.online()
    transaction = await start(link, timestamp="1970-01-01T00:00:12Z")
    session = await session_of(box)
    assert datetime.now(UTC) - session.started_at < timedelta(minutes=1)
    await stop(link, transaction, timestamp="1970-01-01T00:09:12Z", meter=1_100)
    session = await session_of(box)
    assert session.ended_at
    assert session.ended_at >= session.started_at
    events = await box.street.rows(SessionEvent, SessionEvent.session_id == session.id)
    told = timeline([one for one in events if one.kind in ("started", "ended")])
    assert all(line["text"].endswith("by our clock, the station's was wrong") for line in told)
    assert len(told) == 2


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2023-10-19T15:28:07", "2023-10-19T15:28:07+00:00"),
        ("2023-10-19T15:28:07Z", "2023-10-19T15:28:07+00:00"),
        ("2023-10-19 15:28:07", "2023-10-19T15:28:07+00:00"),
        ("2023-10-19T15:28:07+02", "2023-10-19T13:28:07+00:00"),
        ("2023-10-19T15:28:07-0130", "2023-10-19T16:58:07+00:00"),
        ("2023-10-19T15:28:07.123456789Z", "2023-10-19T15:28:07.123456+00:00"),
        ("2023-10-19T15:28Z", "2023-10-19T15:28:00+00:00"),
        ("2023-10-19T15:28:60Z", "2023-10-19T15:28:59+00:00"),
        ("19.10.2023 15:28", None),
        ("2023-13-45T15:28:07Z", None),
        (1697729287, None),
    ],
)
def test_quirk_20_times_as_stations_write_them(said: Any, meant: str | None):
    assert lenient.moment(said) == (datetime.fromisoformat(meant) if meant else None)


async def test_quirk_20_times_without_a_zone_are_those_of_the_site_where_a_make_means_that(box: Box):
    link = await box.dial()
    await link.boot("Growatt", "THOR")
    berlin = ZoneInfo("Europe/Berlin")
    wall = (ago(minutes=30)).astimezone(berlin).replace(tzinfo=None)
    begin = wall.isoformat(timespec="seconds")
    await box.street.until(lambda: _has_zone(box))
    first = await start(link, timestamp=begin)
    assert await start(link, timestamp=begin) == first
    session = await session_of(box)
    assert session.started_at == wall.replace(microsecond=0, tzinfo=berlin)
    raw = await box.rows(OCPPMessage, OCPPMessage.action == "StartTransaction", OCPPMessage.direction == "in")
    assert begin in raw[0].raw


async def test_quirk_20_times_that_name_no_zone_are_told_to_staff(box: Box):
    """Read as UTC, and staff hear of it once; a make that is known for it raises nothing."""
    link = await box.online()
    wall = ago(minutes=30).replace(tzinfo=None).isoformat(timespec="seconds")
    await start(link, timestamp=wall)
    assert (await session_of(box)).started_at == datetime.fromisoformat(wall + "+00:00")
    kind = StationAlert.kind == "time_without_zone"
    (alert,) = await box.street.until(lambda: box.rows(StationAlert, kind))
    assert alert.detail == f"StartTransaction: {wall}"


def test_quirk_20_the_first_time_without_a_zone_is_found():
    local, zoned = {"timestamp": "2026-06-01T10:00:00"}, {"timestamp": "2026-06-01T10:00:00+02"}
    assert lenient.without_zone({"meterValue": [zoned, local]}) == "2026-06-01T10:00:00"
    odd: list[Any] = [{"timestamp": "no time"}, {"timestamp": 7}, {"idTag": "2026-06-01T10:00:00"}]
    for told in (zoned, {"meterValue": [zoned]}, *odd):
        assert lenient.without_zone(told) is None


async def _has_zone(box: Box) -> bool:
    held = box.street.yard.gateway.presence.here[box.street.nordlicht.tenant_id, box.station_id]
    return "no_zone" in held.attributes


def test_quirk_20_a_zone_that_was_named_stays():
    payload = {"timestamp": "2026-06-01T10:00:00Z", "meterValue": [{"timestamp": "2026-06-01T10:00:00+02"}]}
    assert lenient.with_zone(payload, "Europe/Berlin") == payload
    local = {"meterValue": [{"timestamp": "2026-06-01T10:00:00"}]}
    assert lenient.with_zone(local, "Europe/Berlin") == {
        "meterValue": [{"timestamp": "2026-06-01T08:00:00Z"}]
    }


# -- transactions ------------------------------------------------------------------------------------------------------


async def test_quirk_23_a_start_told_again_after_a_lost_answer_is_no_concurrent_transaction(box: Box):
    at = ago(minutes=5)
    first = await start(await box.online(), at=at)
    link = await box.online()
    payload = {"connectorId": 1, "idTag": box.card, "meterStart": 1_000, "timestamp": stamp(at)}
    answer = await link.tell("StartTransaction", payload)
    assert (answer["transactionId"], answer["idTagInfo"]["status"]) == (first, "Accepted")


async def test_quirk_24_25_an_unknown_card_gets_a_fresh_positive_id_and_its_transaction_is_kept(box: Box):
    link = await box.online()
    payload = {"connectorId": 1, "idTag": "NOBODY", "meterStart": 0, "timestamp": stamp()}
    answer = await link.tell("StartTransaction", payload)
    assert answer["idTagInfo"]["status"] == "Invalid"
    assert 1 <= answer["transactionId"] < 2**31
    assert (await session_of(box)).ocpp_transaction_id == str(answer["transactionId"])


@pytest.mark.parametrize("transaction", [-1, -77, 0])
async def test_quirk_26_a_stop_without_a_real_id_finds_its_session(box: Box, transaction: int):
    link = await box.online()
    await start(link, at=ago(minutes=20))
    await stop(link, transaction)
    assert ((await session_of(box)).status, (await session_of(box)).energy_wh) == ("COMPLETED", 1_000)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"transactionId": 99, "meterStop": 5, "timestamp": "x", "transactionData": "none", "idTag": 5},
        {"transactionId": {"a": 1}, "meterStop": [], "timestamp": None, "reason": ["x"]},
        {
            "transactionId": 2**70,
            "meterStop": "12 kWh",
            "transactionData": [{"sampledValue": [{"value": None}]}],
        },
    ],
)
async def test_quirk_27_28_a_stop_is_always_acknowledged_and_never_an_error(
    box: Box, payload: dict[str, Any]
):
    link = await box.online()
    for _ in range(2):
        kind, _, answer, *_ = await link.call("StopTransaction", payload)
        assert (kind, set(answer) - {"idTagInfo"}) == (3, set())
    (session,) = await box.rows(ChargingSession)
    assert session.review == "orphan"


async def test_quirk_29_30_a_stop_needs_neither_card_nor_reason_and_its_card_may_be_long(box: Box):
    link = await box.online()
    assert await stop(link, await start(link, at=ago(minutes=20))) == {}
    assert (await session_of(box)).stopped_reason == "Local"
    answer = await stop(link, await start(link, at=ago(minutes=5), meter=2_000), idTag="x" * 36, meter=2_100)
    assert answer["idTagInfo"]["status"] == "Invalid"
    assert {one.status for one in await box.rows(ChargingSession)} == {"COMPLETED"}


@pytest.mark.parametrize("end", [999, 0, -1])
async def test_quirk_31_a_stop_below_its_start_is_reviewed_and_no_negative_energy(box: Box, end: int):
    link = await box.online()
    await stop(link, await start(link, at=ago(minutes=20)), meter=end)
    assert ((await session_of(box)).review, (await session_of(box)).energy_wh) == ("implausible", None)


async def test_quirk_31_32_a_stop_equal_to_its_start_is_no_energy_and_an_odometer_is_only_a_difference(
    box: Box,
):
    link = await box.online()
    await stop(link, await start(link, at=ago(minutes=20)), meter=1_000)
    await stop(link, await start(link, at=ago(minutes=10), meter=98_765_432), meter=98_766_432)
    found = {(one.energy_wh, one.review) for one in await box.rows(ChargingSession)}
    assert found == {(0, None), (1_000, None)}


async def test_quirk_33_39_a_reading_after_the_stop_is_kept_and_not_billed(box: Box):
    link = await box.online()
    transaction = await start(link, at=ago(minutes=30))
    await stop(link, transaction, at=ago(minutes=5))
    await link.tell(
        "MeterValues", {"connectorId": 1, "transactionId": transaction, "meterValue": sample(2_007)}
    )
    assert (await session_of(box)).energy_wh == 1_000
    (value,) = await box.rows(MeterValue)
    assert value.session_id == (await session_of(box)).id


async def test_quirk_34_a_start_told_once_more_at_the_end_is_the_same_transaction_and_is_marked(box: Box):
    link = await box.online()
    first = await start(link, at=ago(minutes=40))
    assert await start(link, at=ago(minutes=1)) == first
    await stop(link, first, meter=5_000)
    session = await session_of(box)
    assert (session.status, session.energy_wh, session.review) == ("COMPLETED", 4_000, "start_twice")


async def test_quirk_35_36_a_remote_start_names_the_connector_and_carries_no_profile(
    street: Street, box: Box
):
    link = await box.online()
    link.answers["RemoteStartTransaction"] = {"status": "Accepted"}
    async with street.scope() as scope:
        await charging.request_start(scope, evse_id=box.evse_ids[1])

    async def asked() -> list[Any]:
        return [payload for action, payload in link.asked if action == "RemoteStartTransaction"]

    (payload,) = await street.until(asked)
    assert payload["connectorId"] == 2
    assert set(payload) == {"connectorId", "idTag"}


async def test_quirk_38_a_random_transaction_id_stops_nothing(box: Box):
    link = await box.online()
    await start(link, at=ago(minutes=20))
    await stop(link, 123_456)
    assert "ACTIVE" in {one.status for one in await box.rows(ChargingSession)}


# -- meter values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transaction", [0, None, 123_456, -1, "x"])
async def test_quirk_39_meter_values_belong_to_the_open_session_whatever_id_they_carry(
    box: Box, transaction: Any
):
    link = await box.online()
    await start(link, at=ago(minutes=20))
    await link.tell(
        "MeterValues", {"connectorId": 1, "transactionId": transaction, "meterValue": sample(1_500)}
    )
    (value,) = await box.rows(MeterValue)
    assert value.session_id == (await session_of(box)).id


async def test_quirk_39_an_id_kept_after_its_stop_yields_to_the_session_that_is_open(box: Box):
    link = await box.online()
    old = await start(link, at=ago(minutes=50))
    await stop(link, old, at=ago(minutes=40))
    await start(link, at=ago(minutes=30), meter=2_000)
    await link.tell("MeterValues", {"connectorId": 1, "transactionId": old, "meterValue": sample(2_500)})
    (running,) = await box.rows(ChargingSession, ChargingSession.status == "ACTIVE")
    (value,) = await box.rows(MeterValue)
    assert value.session_id == running.id


async def test_quirk_40_broken_json_is_answered_by_its_own_id_and_counted(street: Street, box: Box):
    broken = '[2,"aefa-1","MeterValues",{"connectorId":1,"transactionId":,"meterValue":[]}]'
    assert codec.decode(broken) == Broken("aefa-1", "FormationViolation", codec.decode(broken).reason)  # type: ignore[union-attr]
    link = await box.online()
    assert (await link.ask(broken))[:3] == [4, "aefa-1", "FormationViolation"]
    assert await link.is_alive()
    (alert,) = await street.until(lambda: box.rows(StationAlert))
    assert alert.kind == "broken_frames"


def readings(*samples: Any, **entry: Any) -> list[Reading]:
    return meter_values.normalise(
        [{"timestamp": NOW.isoformat(), "sampledValue": list(samples)} | entry], NOW
    )


def told(*samples: Any) -> list[tuple[str, str, Decimal | None, str]]:
    return [(one.measurand, one.phase, one.value, one.unit) for one in readings(*samples)]


def test_quirk_41_an_object_where_a_list_should_be():
    one = {"timestamp": NOW.isoformat(), "sampledValue": {"value": "7"}}
    assert [reading.value for reading in meter_values.normalise(one, NOW)] == [7]


@pytest.mark.parametrize("value", [7, 7.0, "7", " 7 ", "7.000"])
def test_quirk_42_a_value_is_a_number_or_a_text(value: Any):
    assert told({"value": value}) == [(ENERGY, "", Decimal(7), "Wh")]


@pytest.mark.parametrize("samples", [[], [{"value": ""}], [{"value": None}], [{}], ["x"], [{"value": []}]])
def test_quirk_43_what_says_nothing_is_dropped(samples: list[Any]):
    assert readings(*samples) == []


async def test_quirk_43_and_acknowledged(box: Box):
    link = await box.online()
    for entry in (
        [],
        [{"timestamp": stamp(), "sampledValue": []}],
        [{"timestamp": stamp(), "sampledValue": [{"value": ""}]}],
    ):
        assert await link.tell("MeterValues", {"connectorId": 1, "meterValue": entry}) == {}
    assert not await box.rows(MeterValue)


@pytest.mark.parametrize(
    ("measurand", "unit", "ours"),
    [
        ("Frequency", "Hertz", "Hz"),
        ("Frequency", "Hz", "Hz"),
        ("Frequency", None, "Hz"),
        ("Temperature", "Celsius", "Celsius"),
        ("Temperature", "Celcius", "Celsius"),
        ("Temperature", "C", "Celsius"),
        ("SoC", "%", "Percent"),
        ("SoC", None, "Percent"),
        ("Temperature", "°Re", "°Re"),
    ],
)
def test_quirk_44_units_as_stations_spell_them(measurand: str, unit: str | None, ours: str):
    sample_ = {"value": "50", "measurand": measurand} | ({"unit": unit} if unit else {})
    assert told(sample_) == [(measurand, "", Decimal(50), ours)]


@pytest.mark.parametrize(
    ("name", "measurand", "phase"),
    [
        ("Current.Import.L1", "Current.Import", "L1"),
        ("Voltage.L1-N", "Voltage", "L1-N"),
        ("Voltage.L3-L1", "Voltage", "L3-L1"),
        ("Power.Active.Import", POWER, ""),
    ],
)
def test_quirk_45_a_measurand_with_its_phase_inside(name: str, measurand: str, phase: str):
    assert told({"value": "1", "measurand": name})[0][:2] == (measurand, phase)


def test_quirk_45_a_context_nobody_knows_is_a_periodic_sample():
    assert readings({"value": "1", "context": "Alfen.Something"})[0].context == "Sample.Periodic"


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"value": "1.5", "unit": "kWh"}, 1_500),
        ({"value": "1500", "unit": "Wh"}, 1_500),
        ({"value": "11", "unit": "kW", "measurand": POWER}, 11_000),
        ({"value": 11, "unitOfMeasure": {"unit": "W", "multiplier": 3}, "measurand": POWER}, 11_000),
        ({"value": 1500, "unitOfMeasure": {"unit": "kWh", "multiplier": -3}}, 1_500),
    ],
)
def test_quirk_46_energy_is_wh_and_power_is_w_whatever_was_said(said: dict[str, Any], value: int):
    assert readings(said)[0].value == value


def test_quirk_46_phases_are_not_summed_blindly():
    phases = [{"value": str(n), "measurand": "Current.Import", "phase": phase} for phase, n in
              (("L1", 16), ("L2", 15), ("N", 3))]  # fmt: skip
    assert ingest.latest(readings(*phases)).current_a == 16
    powers = [
        {"value": str(n), "measurand": POWER, "phase": phase} for phase, n in (("L1", 3_600), ("L2", 3_500))
    ]
    assert ingest.latest(readings(*powers, {"value": "7", "unit": "kW", "measurand": POWER})).power_w == 7_000
    assert ingest.latest(readings(*powers)).power_w == 7_100


async def test_quirk_47_values_of_ocpp_15_inside_16_are_read(box: Box):
    link = await box.online()
    old = [{"timestamp": stamp(), "value": [{"value": "1234", "unit": "Wh"}]}]
    assert await link.tell("MeterValues", {"connectorId": 1, "values": old}) == {}
    alfen = {"timestamp": stamp(ago(minutes=1)), "value": {"$attributes": {"unit": "Wh"}, "$value": "1200"}}
    assert await link.tell("MeterValues", {"connectorId": 1, "values": alfen}) == {}
    assert sorted(row.value for row in await box.rows(MeterValue)) == [1_200, 1_234]


async def test_quirk_48_days_of_stored_meter_values_are_taken_in_order_and_alarm_nobody(box: Box):
    link = await box.online()
    for number in range(100):
        at = ago(days=9) + timedelta(hours=number)
        await link.send(
            [2, f"m{number}", "MeterValues", {"connectorId": 1, "meterValue": sample(number, at)}]
        )
    answered = [(await link.reply(20))[:2] for _ in range(100)]
    assert answered == [[3, f"m{number}"] for number in range(100)]
    assert len(await box.rows(MeterValue)) == 100
    assert not await box.rows(StationAlert)


# -- statuses and connectors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["Error", "Charging complete", "ÜberHitze", ""])
async def test_quirk_49_a_word_of_a_vendors_own_is_a_fault_and_stands_in_the_log(box: Box, word: str):
    link = await box.online()
    await link.tell("StatusNotification", {"connectorId": 1, "errorCode": "MyOwnError", "status": word})
    (connector,) = await box.street.rows(Connector, Connector.evse_id == box.evse_ids[0])
    assert (connector.status, connector.error_code) == ("Faulted", "OtherError")


async def test_quirk_49_an_error_code_of_a_vendors_own_with_a_good_status_is_kept(box: Box):
    link = await box.online()
    await link.tell(
        "StatusNotification", {"connectorId": 1, "errorCode": "MyOwnError", "status": "Available"}
    )
    (connector,) = await box.street.rows(Connector, Connector.evse_id == box.evse_ids[0])
    assert (connector.status, connector.error_code) == ("Available", "MyOwnError")


@pytest.mark.parametrize(
    ("version", "payload"),
    [
        ("ocpp1.6", {"connectorId": 0, "errorCode": "NoError", "status": "Faulted"}),
        ("ocpp2.0.1", {"evseId": 0, "connectorId": 0, "connectorStatus": "Faulted", "timestamp": stamp()}),
        ("ocpp2.0.1", {"evseId": 2, "connectorId": 0, "connectorStatus": "Faulted", "timestamp": stamp()}),
    ],
)
async def test_quirk_50_number_0_is_the_station_and_touches_no_connector(
    box: Box, version: str, payload: dict[str, Any]
):
    link = await box.online(version)
    await link.tell("StatusNotification", payload)
    connectors = await box.street.rows(Connector, Connector.evse_id.in_(box.evse_ids))
    assert [one.status for one in connectors] == ["Unknown", "Unknown"]
    assert len(await box.rows(EVSE)) == 2


async def test_quirk_50_51_a_new_connector_appears_and_one_beyond_all_bounds_does_not(box: Box):
    link = await box.online()
    await link.tell("StatusNotification", {"connectorId": 3, "errorCode": "NoError", "status": "Available"})
    answer = await link.call(
        "StatusNotification", {"connectorId": 1234, "errorCode": "NoError", "status": "Available"}
    )
    assert answer[2] == "PropertyConstraintViolation"
    assert sorted(one.evse_no for one in await box.rows(EVSE)) == [1, 2, 3]


# -- 2.x events --------------------------------------------------------------------------------------------------------


async def event(
    link: Link, kind: str, seq: int, *, minutes: float, wh: int | None = None, **more: Any
) -> None:
    at = stamp(ago(minutes=60 - minutes))
    state = more.pop("state", None)
    payload = {
        "eventType": kind, "timestamp": at, "triggerReason": "MeterValuePeriodic", "seqNo": seq,
        "transactionInfo": {"transactionId": "t-58"} | ({"chargingState": state} if state else {}),
        "meterValue": [{"timestamp": at, "sampledValue": [{"value": wh}]}] if wh is not None else None,
    }  # fmt: skip
    await link.tell(
        "TransactionEvent", {name: value for name, value in (payload | more).items() if value is not None}
    )


async def test_quirk_58_events_without_their_evse_and_out_of_order_make_one_session(street: Street, box: Box):
    link = await box.online("ocpp2.0.1")
    token = {"idToken": box.card, "type": "ISO14443"}
    await event(link, "Started", 0, minutes=0, wh=1_000, evse={"id": 2}, idToken=token, state="EVConnected")
    await event(link, "Updated", 5, minutes=30, wh=4_000, state="SuspendedEV")
    await event(link, "Updated", 3, minutes=20, wh=3_000, state="Charging", offline=True)
    session = await session_of(box)
    (live,) = await street.rows(SessionLive, SessionLive.session_id == session.id)
    assert (live.charging_state, live.meter_wh) == ("SuspendedEV", 4_000)
    await event(link, "Ended", 9, minutes=40)
    session = await session_of(box)
    assert (session.evse_no, session.energy_wh, session.review) == (2, 3_000, None)
    await event(link, "Updated", 7, minutes=35, wh=4_000, offline=True)
    assert (await session_of(box)).status == "COMPLETED"
    assert {value.evse_no for value in await box.rows(MeterValue)} == {2}
