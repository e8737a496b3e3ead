"""Messages on a station's display (2.0.1 O), and the way to its CSMS (B09)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.device_model import displays
from app.device_model.displays import Text
from app.device_model.models import DisplayMessage, StationReport
from app.kernel.errors import Refused
from app.stations import commands
from tests.cast import STAFF
from tests.conformance.conftest import Station16, Station201, Yard, case, command, rows
from tests.conformance.test_device_variables import ask, booted
from tests.foreign_stations import ForeignStation

pytestmark = pytest.mark.anyio
HELLO = Text(content="Moin! Plug in first.")


async def shown(yard: Yard) -> dict[int, DisplayMessage]:
    return {row.message_no: row for row in await rows(yard, yard.nordlicht, DisplayMessage)}


async def shows(
    yard: Yard, box: ForeignStation, text: Text, word: str = "Accepted", **more: Any
) -> dict[str, Any]:
    """What went over the wire; the station's word stands with the message."""
    box.answers["SetDisplayMessage"] = {"status": word}
    (ended,) = await ask(yard, displays.show_message, text, **more)
    sent = box.asked[-1][1]["message"]
    row = (await shown(yard))[sent["id"]]
    assert (ended.status, row.status) == ("accepted" if word == "Accepted" else "rejected", word)
    assert displays.WORDS[row.status].endswith(".")
    return sent


@case(
    "2.0.1", "TC_O_01_CSMS", "TC_O_06_CSMS", "TC_O_10_CSMS", "TC_O_12_CSMS", "TC_O_13_CSMS", "TC_O_14_CSMS",
    "TC_O_17_CSMS", "TC_O_18_CSMS", "TC_O_19_CSMS", "TC_O_25_CSMS", "TC_O_26_CSMS", "TC_O_27_CSMS", "TC_O_28_CSMS",
)  # fmt: skip
async def test_a_message_is_shown_when_where_and_how_it_was_asked_and_every_refusal_has_its_words(yard: Yard):
    box = await booted(yard, Station201)
    sent = await shows(yard, box, HELLO)
    assert sent == {
        "id": sent["id"], "priority": "NormalCycle", "message": {"format": "UTF8", "content": HELLO.content}
    }  # fmt: skip
    again = await shows(yard, box, Text(content="Closed", priority="AlwaysFront"), replaces=sent["id"])
    assert again["id"] == sent["id"] and (await shown(yard))[sent["id"]].content == "Closed"
    soon, later = (datetime(2030, 1, 1, 12, tzinfo=UTC) + timedelta(hours=n) for n in (0, 5))
    for transaction in (None, "tx1"):
        timed = await shows(yard, box, Text(content="Soon", start_at=soon, ocpp_transaction_id=transaction))
        assert (timed["startDateTime"], timed.get("transactionId")) == ("2030-01-01T12:00:00Z", transaction)
        timed = await shows(yard, box, Text(content="Till", end_at=later, ocpp_transaction_id=transaction))
        assert (timed["endDateTime"], timed.get("transactionId")) == ("2030-01-01T17:00:00Z", transaction)
    assert (await shows(yard, box, Text(content="Hm", ocpp_transaction_id="tx1")))["transactionId"] == "tx1"
    assert (await shows(yard, box, Text(content="Hm", state="Charging")))["state"] == "Charging"
    await shows(yard, box, Text(content="Hm", ocpp_transaction_id="tx9"), "UnknownTransaction")
    await shows(yard, box, Text(content="Hm", priority="InFront"), "NotSupportedPriority")
    await shows(yard, box, Text(content="Hm", state="Faulted"), "NotSupportedState")
    await shows(yard, box, Text(content="<b>Hm</b>", format="HTML"), "NotSupportedMessageFormat")
    await shows(yard, box, HELLO, "Rejected")
    await box.close()


@case(
    "2.0.1", "TC_O_02_CSMS", "TC_O_03_CSMS", "TC_O_04_CSMS", "TC_O_05_CSMS", "TC_O_07_CSMS", "TC_O_08_CSMS",
    "TC_O_09_CSMS", "TC_O_11_CSMS",
)  # fmt: skip
async def test_messages_are_read_back_all_or_some_and_cleared(yard: Yard):
    box = await booted(yard, Station201)
    old = (await shows(yard, box, HELLO))["id"]
    box.answers["GetDisplayMessages"] = {"status": "Accepted"}

    def info(number: int) -> dict[str, Any]:
        return {
            "id": number,
            "priority": "InFront",
            "state": "Idle",
            "message": {"format": "UTF8", "content": "Hi"},
        }

    async def reads(*found: int, **more: Any) -> dict[str, Any]:
        await ask(yard, displays.request_messages, **more)
        payload = box.asked[-1][1]
        for place, number in enumerate(found):
            told = {
                "requestId": payload["requestId"],
                "tbc": place < len(found) - 1,
                "messageInfo": [info(number)],
            }
            assert await box.say("NotifyDisplayMessages", told) == {}
        return {name: value for name, value in payload.items() if name != "requestId"}

    assert await reads(7, 8) == {}
    found = await shown(yard)
    assert (found[7].status, found[7].content, found[8].state, found[old].status) == (
        "Accepted",
        "Hi",
        "Idle",
        "gone",
    )
    assert await reads(7, numbers=[7]) == {"id": [7]}
    assert await reads(7, priority="InFront") == {"priority": "InFront"}
    assert await reads(7, state="Idle") == {"state": "Idle"}
    assert (await shown(yard))[8].status == "Accepted"
    box.answers["GetDisplayMessages"] = {"status": "Unknown"}
    assert await reads(numbers=[99]) == {"id": [99]}
    assert (await shown(yard))[8].status == "Accepted"

    box.answers["ClearDisplayMessage"] = {"status": "Accepted"}
    (ended,) = await ask(yard, displays.clear_message, 7)
    assert (ended.status, (await shown(yard))[7].status) == ("accepted", "gone")
    box.answers["ClearDisplayMessage"] = {"status": "Unknown"}
    (ended,) = await ask(yard, displays.clear_message, 99)
    assert ended.status == "rejected"
    assert await reads() == {}
    assert {row.status for row in (await shown(yard)).values()} == {"gone"}
    statuses = {row.status for row in await rows(yard, yard.nordlicht, StationReport)}
    assert statuses == {"complete", "empty"}
    await box.close()


async def test_a_16_station_is_not_asked_for_what_its_version_does_not_have(yard: Yard):
    box = await booted(yard, Station16)
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        with pytest.raises(Refused, match=r"OCPP 1\.6, which has no messages on its display"):
            await displays.show_message(scope, yard.nordlicht.station_id, HELLO)
    assert box.asked == []
    await box.close()


@case("2.0.1", "TC_B_42_CSMS", "TC_B_44_CSMS")
async def test_another_way_to_the_csms_is_set_and_the_stations_word_is_kept_but_never_its_secrets(yard: Yard):
    box = await booted(yard, Station201)
    profile = {
        "ocppVersion": "OCPP20", "ocppTransport": "JSON", "ocppCsmsUrl": "wss://csms.example/nordlicht",
        "messageTimeout": 30, "securityProfile": 2, "ocppInterface": "Wireless0",
        "apn": {"apn": "iot.example", "apnAuthentication": "CHAP", "apnPassword": "topsecret", "simPin": 4711},
    }  # fmt: skip
    for word, status in (("Accepted", "accepted"), ("Failed", "rejected")):
        box.answers["SetNetworkProfile"] = {"status": word}
        payload = {"configurationSlot": 1, "connectionData": profile}
        ended = await command(yard, yard.nordlicht, "SetNetworkProfile", payload)
        assert (ended.status, ended.answer) == (status, {"status": word})
        assert box.asked[-1][1]["connectionData"] == profile
        assert "topsecret" not in str(ended.payload) and "4711" not in str(ended.payload)
    low = {"configurationSlot": 1, "connectionData": profile | {"securityProfile": 0}}
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        with pytest.raises(Refused, match="can only be raised"):
            await commands.send_command(scope, yard.nordlicht.station_id, "SetNetworkProfile", low)
    await box.close()
