"""ocpp.md section 2, rows 26 to 36: frames that are none, ids, numbers and texts. Each test is named after its rows."""

import json
from typing import Any

import pytest

from app.charging.models import ChargingSession
from app.stations.models import EVSE, ChargingStation, OCPPMessage
from ocpp_gateway import codec
from ocpp_gateway.codec import Broken, Call
from tests.foreign_stations import stamp
from tests.gateway.street import Box, Street, box, street
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio
__all__ = ["box", "street"]

BROKEN = ["not json", "{}", "[]", "null", '"text"', '[9,"x"]', "[2]", "[[[]]]"]


def start(box: Box, **more: Any) -> dict[str, Any]:
    return {"connectorId": 1, "idTag": box.card, "meterStart": 10, "timestamp": stamp()} | more


@pytest.mark.parametrize("text", BROKEN)
def test_row_26_what_is_no_frame_is_broken_and_no_exception(text: str):
    assert isinstance(codec.decode(text), Broken)


async def test_row_26_broken_frames_are_ignored_in_16_and_the_twentieth_closes_the_link(box: Box):
    link = await box.online()
    for text in BROKEN[:6]:
        await link.send(text)
    assert await link.is_alive()
    for _ in range(14):
        await link.send("{}")
    assert await link.ends() == 1008
    kept = await box.rows(
        OCPPMessage, OCPPMessage.direction == "in", OCPPMessage.error == "FormationViolation"
    )
    assert len(kept) == 20


async def test_row_26_in_2x_a_frame_without_an_id_is_answered_with_minus_one(box: Box):
    link = await box.online("ocpp2.0.1")
    for text in BROKEN[:3]:
        assert (await link.ask(text))[:3] == [4, "-1", "FormatViolation"]
    assert await link.is_alive()


@pytest.mark.parametrize(
    "shape", ["[" * 30_000, '{"a":' * 10_000, '[2,"x","Heartbeat",' + '{"a":' * 17 + "1" + "}" * 17 + "]"]
)
async def test_row_27_deep_nesting_is_refused_and_the_reader_lives(box: Box, shape: str):
    assert isinstance(codec.decode(shape), Broken)
    link = await box.online()
    await link.send(shape)
    assert await link.is_alive()


@pytest.mark.parametrize("action", [["Heartbeat"], {"a": 1}, 7, None, True])
async def test_row_28_an_action_that_is_no_text_is_a_formation_violation(box: Box, action: Any):
    link = await box.online()
    assert (await link.call(action, {}, "x1"))[:3] == [4, "x1", "FormationViolation"]
    assert await link.is_alive()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
async def test_row_29_numbers_that_json_does_not_have_are_refused_by_their_id(box: Box, number: str):
    link = await box.online()
    answer = await link.ask(f'[2,"n1","MeterValues",{{"connectorId":{number}}}]')
    assert answer[:3] == [4, "n1", "FormationViolation"]
    assert await link.is_alive()


@pytest.mark.parametrize("value", ["NaN", "1e999", "12,5", "abc", "1_000", "0x10"])
async def test_row_30_a_sample_that_is_no_number_is_kept_raw_and_has_no_value(box: Box, value: str):
    link = await box.online()
    sample = {"timestamp": stamp(), "sampledValue": [{"value": value}, {"value": "1234"}]}
    await link.tell("MeterValues", {"connectorId": 1, "meterValue": [sample]})
    kept = {row.raw_value: row.value for row in await box.rows(MeterValue)}
    assert kept == {value: None, "1234": 1234}


@pytest.mark.parametrize("number", [10**400, 2**63, -(2**63) - 1, 2**31])
async def test_row_31_numbers_out_of_range_never_reach_the_database(box: Box, number: int):
    link = await box.online()
    status = {"connectorId": number, "errorCode": "NoError", "status": "Available"}
    answer = await link.call("StatusNotification", status)
    assert answer[0] == 4
    assert answer[2] in ("PropertyConstraintViolation", "TypeConstraintViolation", "FormationViolation")
    assert len(await box.rows(EVSE)) == 2
    assert await link.is_alive()


async def test_row_31_a_report_with_a_number_out_of_range_is_taken_without_it(box: Box):
    link = await box.online()
    told = await link.tell("StartTransaction", start(box, meterStart=2**63))
    await link.tell(
        "StopTransaction", {"transactionId": told["transactionId"], "meterStop": 2**63, "timestamp": stamp()}
    )
    (session,) = await box.rows(ChargingSession)
    assert (session.meter_start_wh, session.energy_wh, session.status) == (None, None, "COMPLETED")
    assert session.review is not None


async def test_row_32_of_two_equal_keys_the_last_wins_and_the_station_is_marked(street: Street, box: Box):
    from app.stations.models import StationAlert

    link = await box.online()
    payload = '{"connectorId":7,"connectorId":2,"errorCode":"NoError","status":"Faulted"}'
    await link.ask(f'[2,"k1","StatusNotification",{payload}]')
    assert [evse.evse_no for evse in await box.rows(EVSE)] == [1, 2]
    (alert,) = await street.until(lambda: box.rows(StationAlert))
    assert (alert.kind, alert.count) == ("duplicate_key", 1)


def test_row_32_a_colon_in_a_text_is_no_second_key():
    message = codec.decode(json.dumps([2, "k", "DataTransfer", {"vendorId": "x", "data": '{"a":1,"a":2}'}]))
    assert isinstance(message, Call)
    assert message.remark is None


async def test_row_33_nul_and_surrogates_are_refused_and_21_characters_are_a_type_violation(box: Box):
    link = await box.online()
    assert (await link.call("Authorize", {"idTag": "x" * 21}))[2] == "TypeConstraintViolation"
    assert (await link.call("Authorize", {"idTag": "a\0b"}))[2] == "PropertyConstraintViolation"
    assert (await link.ask('[2,"s1","Authorize",{"idTag":"\\ud800"}]'))[:3] == [4, "s1", "FormationViolation"]
    assert await link.is_alive()


async def test_row_33_nul_in_a_report_is_read_without_it_and_told_to_staff(street: Street, box: Box):
    """A report tells of what has been done, and who pads a field with NUL sends it again for ever (evcc#3685)."""
    link = await box.online()
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Available", "info": "a\0b\0\0"}
    for _ in range(30):
        assert (await link.call("StatusNotification", status))[0] == 3
    transaction = (await link.tell("StartTransaction", start(box) | {"idTag": f"{box.card}\0\0"}))[
        "transactionId"
    ]
    stop = {"transactionId": transaction, "meterStop": 1_100, "timestamp": stamp(), "idTag": f"{box.card}\0"}
    assert (await link.tell("StopTransaction", stop))["idTagInfo"]["status"] == "Accepted"
    (session,) = await box.rows(ChargingSession)
    assert (session.status, session.id_token_status) == ("COMPLETED", "Accepted")
    assert await link.is_alive()


async def test_row_33_what_would_turn_a_page_around_is_shown_escaped(box: Box):
    link = await box.dial()
    assert (await link.boot(vendor="Watt\u202ekrew", model="A\u0007\u2066B"))[0] == 3
    (station,) = await box.street.rows(ChargingStation, ChargingStation.id == box.station_id)
    assert (station.vendor, station.model) == ("Watt\\u202ekrew", "A\\u0007\\u2066B")


async def test_row_34_a_number_is_read_as_an_id_and_null_or_a_long_one_is_answered_with_minus_one(box: Box):
    link = await box.online()
    assert (await link.ask([2, 17, "Heartbeat", {}]))[:2] == [3, "17"]
    for message_id in (None, "y" * 37, "y" * 10_000, "", True, ["x"]):
        assert (await link.ask([2, message_id, "Heartbeat", {}]))[:3] == [4, "-1", "FormationViolation"]
    assert await link.is_alive()


async def test_row_35_the_same_message_twice_has_one_effect_and_one_answer(box: Box):
    link = await box.online()
    payload = start(box)
    first, again = [await link.call("StartTransaction", payload, "same") for _ in range(2)]
    assert first == again
    assert len(await box.rows(ChargingSession)) == 1


async def test_row_35_a_card_is_asked_for_anew_each_time(street: Street, box: Box):
    from app.access import service as access

    async with street.scope() as scope:
        token = await access.create_id_token(scope, value="ONCE-GOOD")
    link = await box.online()
    answers = [(await link.call("Authorize", {"idTag": "ONCE-GOOD"}, "same"))[2]["idTagInfo"]["status"]]
    async with street.scope() as scope:
        await access.update_id_token(scope, token.id, status="blocked")
    answers.append((await link.call("Authorize", {"idTag": "ONCE-GOOD"}, "same"))[2]["idTagInfo"]["status"])
    assert answers == ["Accepted", "Blocked"]


async def test_row_36_the_same_id_with_another_payload_is_a_new_message_and_is_marked(
    street: Street, box: Box
):
    from app.stations.models import StationAlert

    link = await box.online()
    for connector in (1, 2):
        answer = await link.call("StartTransaction", start(box, connectorId=connector), "counter-1")
        assert answer[0] == 3
    assert len(await box.rows(ChargingSession)) == 2
    (alert,) = await street.until(lambda: box.rows(StationAlert))
    assert alert.kind == "message_id_reused"
