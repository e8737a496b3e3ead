"""Hostile or broken input, and the answer (ocpp.md, section 2; the row stands in each docstring)."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import generate_latest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from app.charging.models import ChargingSession
from app.stations.models import EVSE, OCPPMessage
from tests.cast import Cast
from tests.foreign_stations import Station16, stamp
from tests.gateway.conftest import Yard
from tests.gateway.test_charging import rows, until
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio


class Raw:
    """A socket with a booted station behind it, spoken to frame by frame."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def ask(self, frame: Any, timeout_s: float = 5) -> Any:
        await self.socket.send(frame if isinstance(frame, str) else json.dumps(frame))
        while True:
            answer = json.loads(await asyncio.wait_for(self.socket.recv(), timeout_s))
            if answer[0] != 2:
                return answer

    async def call(self, action: Any, payload: Any, message_id: Any = "x1") -> Any:
        return await self.ask([2, message_id, action, payload])


async def dial(
    yard: Yard, cast: Cast, *, path: str = "nordlicht/CP1", version: str = "ocpp1.6", **headers: str
) -> ClientConnection:
    basic = base64.b64encode(f"CP1:{cast.password}".encode()).decode()
    return await connect(
        f"ws://localhost:{yard.port}/{path}", host="127.0.0.1", port=yard.port, subprotocols=[version],  # type: ignore[list-item]
        additional_headers={"Authorization": f"Basic {basic}"} | headers, compression=None, max_size=None,
    )  # fmt: skip


@pytest.fixture
async def raw16(yard: Yard) -> AsyncIterator[Raw]:
    socket = await dial(yard, yard.nordlicht)
    raw = Raw(socket)
    answer = await raw.call("BootNotification", {"chargePointModel": "M", "chargePointVendor": "V"}, "boot")
    assert answer[2]["status"] == "Accepted"
    yield raw
    await socket.close()


@pytest.fixture
async def raw201(yard: Yard) -> AsyncIterator[Raw]:
    socket = await dial(yard, yard.nordlicht, version="ocpp2.0.1")
    raw = Raw(socket)
    boot = {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}}
    assert (await raw.call("BootNotification", boot, "boot"))[2]["status"] == "Accepted"
    yield raw
    await socket.close()


async def is_alive(raw: Raw) -> bool:
    answer = await raw.call("Heartbeat", {}, "alive")
    while answer[1] != "alive":  # what was broken may have been answered before
        answer = json.loads(await asyncio.wait_for(raw.socket.recv(), 5))
    return answer[0] == 3


# -- the handshake -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["nordlicht/..", "nordlicht/%2e%2e", "nordlicht/CP1%00", "nordlicht/" + "x" * 300, "a/b/c", ""]
)
async def test_a_path_that_is_no_address_is_404(yard: Yard, path: str):
    """Row 18."""
    with pytest.raises(InvalidStatus) as refused:
        await dial(yard, yard.nordlicht, path=path)
    assert refused.value.response.status_code == 404


async def test_another_user_name_than_the_identity_is_401(yard: Yard):
    """Row 4."""
    basic = base64.b64encode(f"CP2:{yard.nordlicht.password}".encode()).decode()
    with pytest.raises(InvalidStatus) as refused:
        await dial(yard, yard.nordlicht, Authorization=f"Basic {basic}")
    assert refused.value.response.status_code == 401


async def test_a_brands_key_opens_no_door_of_another_brand(yard: Yard):
    """Row 5."""
    with pytest.raises(InvalidStatus) as refused:
        await dial(yard, yard.nordlicht, path="solmark/CP1")
    assert refused.value.response.status_code == 401


async def test_the_key_as_raw_bytes_is_the_same_key(yard: Yard):
    """Row 6."""
    basic = base64.b64encode(b"CP1:" + bytes.fromhex(yard.nordlicht.password)).decode()
    socket = await dial(yard, yard.nordlicht, Authorization=f"Basic {basic}")
    await socket.close()


async def test_guessing_a_key_ends_in_429_and_the_right_key_elsewhere_still_works(yard: Yard):
    """Row 3."""
    wrong = base64.b64encode(f"CP1:{'0' * 40}".encode()).decode()
    codes = []
    for _ in range(12):
        with pytest.raises(InvalidStatus) as refused:
            await dial(yard, yard.nordlicht, Authorization=f"Basic {wrong}")
        codes.append(refused.value.response.status_code)
    assert codes[:10] == [401] * 10
    assert codes[10:] == [429, 429]
    other = await dial(yard, yard.solmark, path="solmark/CP1", Authorization="Basic " + base64.b64encode(
        f"CP1:{yard.solmark.password}".encode()).decode())  # fmt: skip
    await other.close()


async def test_an_unknown_version_is_refused_at_the_handshake(yard: Yard):
    """Row 17."""
    with pytest.raises(InvalidStatus):
        await dial(yard, yard.nordlicht, version="ocpp9.9")


async def test_an_origin_header_is_no_reason_to_refuse(yard: Yard):
    """Row 16."""
    socket = await dial(yard, yard.nordlicht, Origin="https://github.com/Links2004")
    await socket.close()


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["not json", "{}", "[]", '[9,"x"]', "[" * 100_000, '[2,"1","Heartbeat",{"a":NaN}]']
)
async def test_what_is_no_frame_leaves_the_link_alive(raw16: Raw, text: str):
    """Rows 26, 27, 29."""
    await raw16.socket.send(text[:60_000])
    assert await is_alive(raw16)


async def test_in_2x_a_frame_without_an_id_is_answered_with_minus_one(raw201: Raw):
    """Row 26."""
    assert (await raw201.ask("not json"))[:3] == [4, "-1", "FormatViolation"]


async def test_twenty_broken_frames_close_the_link(raw16: Raw):
    """Row 26."""
    for _ in range(20):
        await raw16.socket.send("{}")
    await asyncio.wait_for(raw16.socket.wait_closed(), 5)
    assert raw16.socket.close_code == 1008


async def test_broken_json_is_answered_by_its_own_id(raw16: Raw):
    """Section 3, no. 40."""
    answer = await raw16.ask('[2,"aefa-1","MeterValues",{"connectorId":1,"transactionId":,"meterValue":[]}]')
    assert answer[:3] == [4, "aefa-1", "FormationViolation"]


@pytest.mark.parametrize("action", [["Heartbeat"], {"a": 1}, 7, None])
async def test_an_action_that_is_no_text_is_a_formation_violation(raw16: Raw, action: Any):
    """Row 28."""
    assert (await raw16.call(action, {}))[:3] == [4, "x1", "FormationViolation"]
    assert await is_alive(raw16)


@pytest.mark.parametrize(("message_id", "told"), [(17, "17"), (None, None), ("y" * 10_000, None)])
async def test_message_ids_are_texts_of_at_most_36_characters(raw16: Raw, message_id: Any, told: str | None):
    """Row 34."""
    if told is None:
        await raw16.socket.send(json.dumps([2, message_id, "Heartbeat", {}]))
        assert await is_alive(raw16)
    else:
        assert (await raw16.call("Heartbeat", {}, message_id))[:2] == [3, told]


async def test_a_frame_over_64_kib_closes_the_link_without_being_read(raw16: Raw):
    """Row 22."""
    await raw16.socket.send(json.dumps([2, "big", "DataTransfer", {"vendorId": "x", "data": "y" * 70_000}]))
    await asyncio.wait_for(raw16.socket.wait_closed(), 5)
    assert raw16.socket.close_code == 1009


async def test_a_binary_frame_closes_the_link(raw16: Raw):
    """Row 25."""
    await raw16.socket.send(b"\x00\x01")
    await asyncio.wait_for(raw16.socket.wait_closed(), 5)
    assert raw16.socket.close_code == 1003


async def test_an_unknown_action_is_not_implemented(raw16: Raw):
    assert (await raw16.call("Dance", {}))[:3] == [4, "x1", "NotImplemented"]
    assert (await raw16.call("Reset", {"type": "Soft"}))[:3] == [
        4,
        "x1",
        "NotSupported",
    ]


async def test_an_answer_nobody_asked_for_is_ignored(raw16: Raw):
    """Row 49."""
    await raw16.socket.send(json.dumps([3, "ghost", {"status": "Accepted"}]))
    assert await is_alive(raw16)


# -- content -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connector", [-1, 999, "abc", 2**70])
async def test_a_connector_that_cannot_be_creates_nothing(yard: Yard, raw16: Raw, connector: Any):
    """Rows 31, 62."""
    before = len(await rows(yard, yard.nordlicht, EVSE))
    answer = await raw16.call(
        "StatusNotification", {"connectorId": connector, "errorCode": "NoError", "status": "Available"}
    )
    assert answer[0] == 4
    assert answer[2] in ("PropertyConstraintViolation", "TypeConstraintViolation")
    assert len(await rows(yard, yard.nordlicht, EVSE)) == before


async def test_connector_0_is_the_station_and_no_connector(yard: Yard, raw16: Raw):
    """Section 3, no. 50."""
    before = len(await rows(yard, yard.nordlicht, EVSE))
    assert (
        await raw16.call(
            "StatusNotification", {"connectorId": 0, "errorCode": "NoError", "status": "Available"}
        )
    )[0] == 3
    assert len(await rows(yard, yard.nordlicht, EVSE)) == before


async def test_a_card_number_of_21_characters_is_a_type_violation_and_nul_never_reaches_the_database(
    raw16: Raw,
):
    """Row 33."""
    assert (await raw16.call("Authorize", {"idTag": "x" * 21}))[:3] == [4, "x1", "TypeConstraintViolation"]
    assert (await raw16.call("Authorize", {"idTag": "a\0b"}))[:3] == [4, "x1", "PropertyConstraintViolation"]


@pytest.mark.parametrize("value", ["NaN", "1e999", "12,5", "", "abc"])
async def test_a_sample_that_is_no_number_is_kept_and_never_billed(yard: Yard, raw16: Raw, value: str):
    """Row 30."""
    sample = {"timestamp": stamp(), "sampledValue": [{"value": value}, {"value": "1234"}]}
    assert (await raw16.call("MeterValues", {"connectorId": 1, "meterValue": [sample]}))[0] == 3
    values = await rows(yard, yard.nordlicht, MeterValue)
    assert [v.value for v in values if v.raw_value == "1234"] == [1234]
    assert all(v.value is None for v in values if v.raw_value != "1234")


async def test_a_stop_of_nobody_is_acknowledged_and_kept_for_review(yard: Yard, raw16: Raw):
    """Rows 38, 39."""
    answer = await raw16.call("StopTransaction", {"transactionId": -1, "meterStop": 5, "timestamp": stamp()})
    assert answer[0] == 3
    (session,) = await rows(yard, yard.nordlicht, ChargingSession)
    assert session.review == "orphan"


async def test_another_stations_transaction_is_not_touched(yard: Yard, raw16: Raw):
    """Row 38."""
    theirs = yard.station(yard.solmark, Station16)
    await theirs.connect()
    await theirs.boot()  # type: ignore[attr-defined]
    started = await theirs.start(1, yard.solmark.card, 100)  # type: ignore[attr-defined]
    stop = {"transactionId": started.transaction_id, "meterStop": 500, "timestamp": stamp()}
    assert (await raw16.call("StopTransaction", stop))[0] == 3
    (session,) = await rows(yard, yard.solmark, ChargingSession)
    assert session.status == "ACTIVE"
    await theirs.close()


async def test_the_same_message_twice_is_one_effect(yard: Yard, raw16: Raw):
    """Row 35."""
    start = {"connectorId": 1, "idTag": yard.nordlicht.card, "meterStart": 10, "timestamp": stamp()}
    first, again = [await raw16.call("StartTransaction", start, "same") for _ in range(2)]
    assert first == again
    assert len(await rows(yard, yard.nordlicht, ChargingSession)) == 1


async def test_the_same_id_with_another_payload_is_a_new_message(yard: Yard, raw16: Raw):
    """Row 36."""
    for connector in (1, 2):
        start = {
            "connectorId": connector,
            "idTag": yard.nordlicht.card,
            "meterStart": 10,
            "timestamp": stamp(),
        }
        assert (await raw16.call("StartTransaction", start, "counter-1"))[0] == 3
    assert len(await rows(yard, yard.nordlicht, ChargingSession)) == 2


@pytest.mark.parametrize("at", ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "nonsense", ""])
async def test_a_clock_that_cannot_be_is_replaced_by_ours(yard: Yard, raw16: Raw, at: str):
    """Row 46."""
    sample = {"timestamp": at, "sampledValue": [{"value": "1234"}]}
    assert (await raw16.call("MeterValues", {"connectorId": 1, "meterValue": [sample]}))[0] == 3
    (value,) = await rows(yard, yard.nordlicht, MeterValue)
    assert value.sampled_at == value.received_at


async def test_guessing_cards_tells_nothing_and_leaves_no_card(yard: Yard, raw16: Raw):
    """Rows 55, 57."""
    told = {
        (await raw16.call("Authorize", {"idTag": f"G{n}"}, f"g{n}"))[2]["idTagInfo"]["status"]
        for n in range(30)
    }
    assert told == {"Invalid"}


async def test_html_and_sql_in_free_texts_are_kept_as_texts(yard: Yard, raw16: Raw):
    """Row 61."""
    nasty = "<script>alert(1)</script>'; drop table livery.evse; --"
    boot = {"chargePointModel": nasty[:20], "chargePointVendor": nasty, "firmwareVersion": nasty}
    assert (await raw16.call("BootNotification", boot))[2]["status"] == "Accepted"
    logged = await until(
        lambda: rows(yard, yard.nordlicht, OCPPMessage, OCPPMessage.action == "BootNotification")
    )
    assert any(
        nasty in json.loads(row.raw)[3]["chargePointVendor"] for row in logged if row.direction == "in"
    )
    assert await rows(yard, yard.nordlicht, EVSE)


async def test_actions_that_a_station_invents_are_counted_as_one(raw16: Raw):
    """Found by damaged frames: said twice, each had a line of its own in the metrics for ever."""
    for _ in range(2):
        assert (await raw16.call("Invented-1", {}, "same"))[2] == "NotImplemented"
    assert "Invented-1" not in generate_latest().decode()


async def test_an_action_longer_than_a_file_name_is_not_implemented_at_once(yard: Yard, raw16: Raw):
    """Found by damaged frames: it was looked up as a file, and taken for a database that is away."""
    answer = await raw16.call("A" * 5000, {}, "long")
    assert answer[:3] == [4, "long", "NotImplemented"]
    assert await is_alive(raw16)


async def test_a_flood_slows_the_sender_and_loses_nothing(yard: Yard, raw16: Raw):
    """Row 52."""
    for n in range(320):
        await raw16.socket.send(json.dumps([2, f"f{n}", "Heartbeat", {}]))
    answered = set()
    while len(answered) < 320:
        answered.add(json.loads(await asyncio.wait_for(raw16.socket.recv(), 10))[1])
    assert len(answered) == 320


async def test_a_station_pending_registration_is_asked_to_wait(yard: Yard):
    from app.stations import service as stations
    from tests.cast import STAFF

    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await stations.update_station(scope, yard.nordlicht.station_id, registration="pending")
    socket = await dial(yard, yard.nordlicht)
    raw = Raw(socket)
    boot = await raw.call("BootNotification", {"chargePointModel": "M", "chargePointVendor": "V"}, "boot")
    assert boot[2]["status"] == "Pending"
    assert (await raw.call("Heartbeat", {}))[:3] == [4, "x1", "SecurityError"]
    await socket.close()
