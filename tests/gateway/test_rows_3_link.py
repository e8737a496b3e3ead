"""ocpp.md section 3, quirks of real chargers on the link: 1 to 15, 21, 22, 52 to 55, 57, 59.

Each test is named after its number.
"""

import asyncio
import base64
import re
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from app.stations import capabilities, makes, ocpp_schemas, quirks
from app.stations import service as stations
from app.stations.models import ChargingStation, OCPPMessage, StationAlert, StationCommand, StationConnection
from ocpp_gateway import connection as connection_module
from ocpp_gateway import server as server_module
from ocpp_gateway.handshake import Address, choose_version, read_basic, read_path
from tests.foreign_stations import stamp
from tests.gateway.street import Box, Link, Street, box, street

pytestmark = pytest.mark.anyio
__all__ = ["box", "street"]

BOOT16 = {"chargePointModel": "M", "chargePointVendor": "V"}


async def raw_answer(street: Street, head: str) -> str:
    """The status line to a request as it stands."""
    reader, writer = await asyncio.open_connection("127.0.0.1", street.yard.port)
    writer.write(head.replace("\n", "\r\n").encode())
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    return line.decode()


def request(box: Box, *, target: str = "", without: str = "") -> str:
    lines = [
        f"GET {target or f'/nordlicht/{box.identity}'} HTTP/1.1", "Host: ocpp.example", "Upgrade: websocket",
        "Connection: Upgrade", f"Sec-WebSocket-Key: {base64.b64encode(b'x' * 16).decode()}",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: ocpp1.6", f"Authorization: {box.basic()}",
    ]  # fmt: skip
    return "\n".join(line for line in lines if not (without and line.startswith(without))) + "\n\n"


async def alert_of(box: Box, kind: str) -> StationAlert:
    (found,) = await box.street.until(lambda: box.rows(StationAlert, StationAlert.kind == kind))
    return found


async def refused(attempt: Any) -> None:
    with pytest.raises(InvalidStatus):
        await attempt


# -- the handshake -----------------------------------------------------------------------------------------------------


async def test_quirk_1_without_a_version_a_station_is_refused_with_a_reason_unless_staff_allow_it(
    street: Street, box: Box
):
    await refused(box.dial(None))
    assert (await alert_of(box, "handshake")).detail == "offers no version"
    async with street.scope() as scope:
        await stations.update_station(scope, box.station_id, leniency={"assume_ocpp16": True})
    link = await box.dial(None)
    assert (await link.call("BootNotification", BOOT16))[2]["status"] == "Accepted"
    (row,) = await box.rows(StationConnection)
    assert row.ocpp_version == "ocpp1.6"


async def test_quirk_2_the_version_is_chosen_anew_for_each_connection_and_strange_spellings_are_refused(
    box: Box,
):
    for version in ("ocpp1.6", "ocpp2.0.1", "ocpp1.6"):
        link = await box.online(version)
        await link.close()
        (row,) = await box.rows(StationConnection)
        assert row.ocpp_version == version
    await refused(box.dial("ocpp2.0.1.1"))
    assert "ocpp2.0.1.1" in (await alert_of(box, "handshake")).detail


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["ocpp1.6"], "ocpp1.6"),
        (["ocpp1.6, ocpp2.0.1"], "ocpp2.0.1"),
        (["OCPP1.6"], "ocpp1.6"),
        (["ocpp1.5", "ocpp1.6"], "ocpp1.6"),
        (["ocpp1.6", "ocpp2.0.1", "ocpp2.1"], "ocpp2.1"),
        (["ocpp2.1"], "ocpp2.1"),
        (["ocpp2.0.1.1"], None),
        ([], None),
    ],
)
def test_quirk_2_our_best_among_what_is_offered(offered: list[str], chosen: str | None):
    assert choose_version(offered) == chosen


async def test_quirk_3_a_handshake_without_connection_upgrade_is_told_to_staff(street: Street, box: Box):
    assert " 101 " not in await raw_answer(street, request(box, without="Connection"))
    assert "Upgrade" in (await alert_of(box, "handshake")).detail


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("//CP1", Address(None, "CP1")),
        ("/ocpp/CP1/", Address(None, "CP1")),
        ("/nordlicht//CP1/", Address("nordlicht", "CP1")),
        ("/ocpp/nordlicht/CP1", Address("nordlicht", "CP1")),
        ("/nordlicht/CP1?x=1", Address("nordlicht", "CP1")),
        ("/nordlicht/RDAM%7C123", Address("nordlicht", "RDAM|123")),
        ("/nordlicht/RDAM%20123", Address("nordlicht", "RDAM 123")),
        ("/nordlicht/A%2541", None),
        ("/nordlicht/%ff", None),
        ("http://ocpp.example/nordlicht/CP1", Address("nordlicht", "CP1")),
        ("ws://ocpp.example:9000/nordlicht/RDAM%7C123?x", Address("nordlicht", "RDAM|123")),
        ("wss://ocpp.example//ocpp/CP1/", Address(None, "CP1")),
    ],
)
def test_quirk_4_5_8_addresses_as_stations_write_them(target: str, address: Address | None):
    assert read_path(target) == address


async def test_quirk_4_5_8_they_come_in_by_each_of_these_spellings(street: Street):
    box = await street.box("RDAM|12 3")
    for target in (
        "/nordlicht//RDAM%7C12%203/",
        "/ocpp/RDAM%7C12%203",
        "http://x.example/nordlicht/RDAM%7c12%203",
    ):
        assert " 101 " in await raw_answer(street, request(box, target=target))


async def test_quirk_6_7_passwords_are_bytes_and_end_at_no_second_colon(box: Box):
    assert read_basic("Basic " + base64.b64encode(b"CP1:\xff\x00:x").decode()) == (b"CP1", b"\xff\x00:x")
    assert read_basic("basic !") is None
    assert read_basic("Bearer x") is None
    link = await box.dial(authorization=box.basic(password=bytes.fromhex(box.password)))
    await link.close()
    await refused(box.dial(authorization=box.basic(password=b"\xff\xfe:\x00")))


async def test_quirk_9_compression_is_negotiated_in_2x_and_never_with_stations_marked_as_broken(
    street: Street, box: Box
):
    def is_compressed(link: Link) -> bool:
        return bool(link.socket.protocol.extensions)

    link = await box.online("ocpp2.0.1", compression="deflate")
    assert is_compressed(link)
    long = await link.tell("DataTransfer", {"vendorId": "x", "data": "y" * 30_000})
    assert long == {"status": "UnknownVendorId"}
    assert not is_compressed(await box.online("ocpp1.6", compression="deflate"))
    async with street.scope() as scope:
        await stations.update_station(scope, box.station_id, leniency={"no_compression": True})
    assert not is_compressed(await box.online("ocpp2.0.1", compression="deflate"))


# -- life and end ------------------------------------------------------------------------------------------------------


async def test_quirk_10_the_newest_connection_wins_and_what_the_old_one_was_asked_is_unknown(
    street: Street, box: Box, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "CALL_TIMEOUT_S", 20.0)
    old = await box.online()
    old.answers["Reset"] = None
    waiting = asyncio.create_task(box.command("Reset", {"type": "Soft"}))
    await street.until(lambda: _asked(old, "Reset"))
    new = await box.online()
    assert await old.ends() == 1008
    assert (await waiting).status == "unknown"
    assert await new.is_alive()


async def _asked(link: Link, action: str) -> bool:
    return await _asked_times(link, action, 1)


async def _asked_times(link: Link, action: str, times: int) -> bool:
    return len([name for name, _ in link.asked if name == action]) >= times


async def test_quirk_11_any_frame_is_a_sign_of_life_and_some_stations_are_never_pinged(
    street: Street, box: Box, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "PING_S", 0.2)
    deaf = await street.box(leniency={"no_ping": True})
    talking, silent = await box.online(), await deaf.online()
    for link in (talking, silent):
        link.socket.protocol.recv_ping = lambda *_: None  # type: ignore[attr-defined, method-assign]
    silent.socket.transport.pause_reading()
    for _ in range(8):
        assert await talking.is_alive()
        await asyncio.sleep(0.1)
    silent.socket.transport.resume_reading()
    assert await silent.is_alive()


async def test_quirk_12_a_cut_link_is_no_alert_and_shows_as_offline_only_after_a_grace(
    street: Street, box: Box, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "OFFLINE_GRACE_S", 0.5)
    link = await box.online()
    link.cut()
    await asyncio.sleep(0.2)
    (row,) = await box.rows(StationConnection)
    assert row.is_online
    await street.until(lambda: box.rows(StationConnection, StationConnection.is_online.is_(False)))
    (row,) = await box.rows(StationConnection)
    assert row.close_reason.startswith("1006")
    assert not await box.rows(StationAlert)


async def test_quirk_12_one_that_is_back_within_the_grace_was_never_offline(
    street: Street, box: Box, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "OFFLINE_GRACE_S", 0.4)
    link = await box.online()
    link.cut()
    await asyncio.sleep(0.1)
    await box.online()
    await asyncio.sleep(0.6)
    (row,) = await box.rows(StationConnection)
    assert (row.is_online, row.epoch) == (True, 2)


async def test_quirk_13_inside_a_loop_of_boots_nothing_is_asked_of_the_station(
    street: Street, box: Box, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "SETTLE_S", 0.3)
    async with street.scope() as scope:
        await stations.update_station(scope, box.station_id, name="loops")
    link = await box.dial()
    sending = asyncio.create_task(box.command("Reset", {"type": "Soft"}))
    for _ in range(12):
        assert (await link.boot())[2]["status"] == "Accepted"
        await asyncio.sleep(0.1)
        assert link.asked == []
    link.answers["Reset"] = {"status": "Accepted"}
    assert (await sending).status == "accepted"


async def test_quirk_14_a_station_that_does_not_boot_again_is_heard_and_asked_to_boot_once(
    street: Street, box: Box
):
    link = await box.online()
    await link.close()
    silent = await box.dial()
    silent.answers["TriggerMessage"] = {"status": "Accepted"}
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
    assert await silent.tell("StatusNotification", status) == {}
    await street.until(lambda: _asked(silent, "TriggerMessage"))
    await silent.tell("StatusNotification", status)
    await asyncio.sleep(0.3)
    assert silent.asked == [("TriggerMessage", {"requestedMessage": "BootNotification"})]


async def test_quirk_14_a_make_that_takes_that_badly_is_not_asked(street: Street):
    box = await street.box(leniency={"no_boot_request": True})
    link = await box.online()
    await link.close()
    silent = await box.dial()
    await silent.tell("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Available"})
    silent.answers["Reset"] = {"status": "Accepted"}
    assert (await box.command("Reset", {"type": "Soft"})).status == "accepted"
    assert silent.asked == [("Reset", {"type": "Soft"})]
    await silent.close()


async def test_quirk_15_nothing_is_asked_before_the_boot_is_answered_and_settled(
    street: Street, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "SLOW_SETTLE_S", 0.8)
    box = await street.box(leniency={"slow_start": True})
    link = await box.dial()
    link.answers["Reset"] = {"status": "Accepted"}
    sending = asyncio.create_task(box.command("Reset", {"type": "Soft"}))
    await asyncio.sleep(0.4)
    assert link.asked == []
    await link.boot()
    await link.tell("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Available"})
    await asyncio.sleep(0.4)
    assert link.asked == []
    assert (await sending).status == "accepted"
    await link.close()


# -- what we say -------------------------------------------------------------------------------------------------------


async def test_quirk_21_our_times_are_of_the_one_form_that_all_stations_read(box: Box):
    link = await box.online()
    answers = [(await link.boot())[2]["currentTime"], (await link.tell("Heartbeat", {}))["currentTime"]]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at) for at in answers)


async def test_quirk_22_nothing_is_added_to_the_boot_answer_unless_a_station_needs_it(
    street: Street, box: Box
):
    link = await box.dial()
    assert set((await link.boot())[2]) == {"currentTime", "interval", "status"}
    async with street.scope() as scope:
        await stations.update_station(scope, box.station_id, leniency={"boot_interval_name": True})
    answer = (await link.boot(model="another"))[2]
    assert answer["heartbeatInterval"] == answer["interval"]


async def test_quirk_59_our_answers_fit_the_schemas_whatever_comes_in(box: Box):
    """1.6 and 2.0.1: every answer to every message a station may send, also to empty ones."""
    heard = {
        "ocpp1.6": {
            "BootNotification": [BOOT16, {}], "Heartbeat": [{}], "Authorize": [{"idTag": box.card}, {"idTag": "X"}],
            "StartTransaction": [{"connectorId": 1, "idTag": "X", "meterStart": 0, "timestamp": stamp()},
                                 {"connectorId": 2}],
            "StopTransaction": [{"transactionId": 1, "meterStop": 0, "timestamp": stamp(), "idTag": box.card}, {}],
            "MeterValues": [{"connectorId": 1, "meterValue": []}, {"connectorId": 1}],
            "StatusNotification": [{"connectorId": 1, "errorCode": "NoError", "status": "Available"},
                                   {"connectorId": 1}],
            "DataTransfer": [{"vendorId": "x"}, {}],
        },
        "ocpp2.0.1": {
            "BootNotification": [{"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}}, {}],
            "Heartbeat": [{}], "Authorize": [{"idToken": {"idToken": box.card, "type": "ISO14443"}}],
            "TransactionEvent": [{"eventType": "Started", "transactionInfo": {"transactionId": "t"}},
                                 {"eventType": "Ended", "transactionInfo": {"transactionId": "t"},
                                  "idToken": {"idToken": "X", "type": "Central"}}],
            "MeterValues": [{"evseId": 1, "meterValue": []}],
            "StatusNotification": [{"evseId": 1, "connectorId": 1, "connectorStatus": "Available",
                                    "timestamp": stamp()}],
            "DataTransfer": [{"vendorId": "x"}],
        },
    }  # fmt: skip
    for version, messages in heard.items():
        link = await box.online(version)
        for action, payloads in messages.items():
            for payload in payloads:
                answer = await link.tell(action, payload)
                assert ocpp_schemas.validate_answer(version, action, answer) == [], (version, action, answer)
        await link.close()


# -- commands and answers ----------------------------------------------------------------------------------------------


async def test_quirk_52_one_call_is_in_flight_and_an_answer_by_order_is_taken_where_a_station_needs_it(
    street: Street,
):
    box = await street.box(leniency={"accept_by_order": True})
    link = await box.online()
    link.answers["Reset"] = lambda _: [3, 4711, {"status": "Accepted"}]
    link.answers["ClearCache"] = lambda _: [3, "0xAF", {"status": "Rejected"}]
    assert (await box.command("Reset", {"type": "Soft"})).status == "accepted"
    assert (await box.command("ClearCache", {})).status == "rejected"
    link.answers["Reset"] = None
    both = [asyncio.create_task(box.command("Reset", {"type": kind})) for kind in ("Soft", "Hard")]
    await street.until(lambda: _asked_times(link, "Reset", 2))
    assert len([one for one in link.asked if one[0] == "Reset"]) == 2  # the earlier one, and one of these
    assert {(await one).status for one in both} == {"unknown"}
    await link.close()


async def test_quirk_52_a_second_answer_to_the_same_question_is_ignored(box: Box):
    link = await box.online()
    link.answers["Reset"] = {"status": "Accepted"}
    assert (await box.command("Reset", {"type": "Soft"})).status == "accepted"
    await link.send([3, link.asked_ids[-1], {"status": "Rejected"}])
    assert await link.is_alive()
    (command,) = await box.rows(StationCommand)
    assert command.status == "accepted"


async def test_quirk_53_an_id_used_again_after_a_restart_of_the_station_is_a_new_message(box: Box):
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
    for word in ("Available", "Faulted"):
        link = await box.online()
        answer = await link.call("StatusNotification", status | {"status": word}, "1")
        assert answer == [3, "1", {}]
        assert await link.call("StatusNotification", status | {"status": word}, "1") == answer
        await link.close()
    kept = await box.rows(
        OCPPMessage, OCPPMessage.action == "StatusNotification", OCPPMessage.direction == "in"
    )
    assert len(kept) == 2


async def test_quirk_54_a_station_that_leaves_us_waiting_is_heard_meanwhile(box: Box):
    link = await box.online()
    link.answers["Reset"] = None
    asking = asyncio.create_task(box.command("Reset", {"type": "Soft"}))
    await box.street.until(lambda: _asked(link, "Reset"))
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
    assert (await link.call("StatusNotification", status))[0] == 3
    assert (await asking).status == "unknown"


@pytest.mark.parametrize("code", ["NotImplemented", "NotSupported", "InternalError"])
async def test_quirk_55_what_a_station_cannot_do_is_told_in_its_own_words(box: Box, code: str):
    link = await box.online()
    link.answers["TriggerMessage"] = lambda _: [4, link.asked_ids[-1], code, "no", {}]
    done = await box.command("TriggerMessage", {"requestedMessage": "Heartbeat"})
    assert (done.status, done.error) == ("failed", f"{code}: no")


async def test_quirk_55_what_a_station_said_that_it_cannot_is_not_asked_until_its_firmware_is_another(
    box: Box,
):
    """Of TriggerMessage the message it was about; staff may have it asked again before."""
    link = await box.online()
    for action in ("ClearCache", "TriggerMessage"):
        link.answers[action] = lambda _: [4, link.asked_ids[-1], "NotImplemented", "no", {}]
    beat, boot = ({"requestedMessage": name} for name in ("Heartbeat", "BootNotification"))
    assert (await box.command("ClearCache", {})).status == "failed"
    assert (await box.command("TriggerMessage", beat)).status == "failed"
    asked = len(link.asked)
    for action, payload in (("ClearCache", {}), ("TriggerMessage", beat)):
        again = await box.command(action, payload)
        assert again.status == "failed" and again.error.startswith("not asked: it said NotImplemented")
    assert len(link.asked) == asked
    link.answers |= {"TriggerMessage": {"status": "NotImplemented"}, "ClearCache": {"status": "Accepted"}}
    assert (await box.command("TriggerMessage", boot)).status == "rejected"
    (station,) = await box.street.rows(ChargingStation, ChargingStation.id == box.station_id)
    assert set(station.lacks) == {
        "ClearCache", "TriggerMessage/Heartbeat", "TriggerMessage/BootNotification"
    }  # fmt: skip
    payload = {"chargePointModel": "M", "chargePointVendor": "V", "firmwareVersion": "2"}
    assert (await link.tell("BootNotification", payload))["status"] == "Accepted"
    assert (await box.command("ClearCache", {})).status == "accepted"
    link.answers["ClearCache"] = lambda _: [4, link.asked_ids[-1], "NotSupported", "no", {}]
    assert (await box.command("ClearCache", {})).status == "failed"
    async with box.street.scope() as scope:
        await capabilities.forget(scope, box.station_id)
    link.answers["ClearCache"] = {"status": "Accepted"}
    assert (await box.command("ClearCache", {})).status == "accepted"


async def test_quirk_55_57_an_answer_without_a_body_or_with_nonsense_in_it_is_taken_by_its_status(box: Box):
    link = await box.online()
    link.answers["GetConfiguration"] = {}
    assert (await box.command("GetConfiguration", {})).status == "accepted"
    link.answers["GetConfiguration"] = {"configurationKey": [{"key": "X", "value": 5}]}
    assert (await box.command("GetConfiguration", {})).status == "accepted"
    nonsense = {"status": "Rejected", "startSchedule": "0", "chargingSchedule": {"chargingRateUnit": ""}}
    link.answers["GetCompositeSchedule"] = nonsense
    done = await box.command("GetCompositeSchedule", {"connectorId": 1, "duration": 60})
    assert (done.status, done.answer) == ("rejected", nonsense)


# -- the registry ------------------------------------------------------------------------------------------------------


async def test_a_quirk_of_a_make_holds_from_its_boot_on_and_a_stations_own_word_overrules_it(
    street: Street, box: Box
):
    link = await box.dial()
    await link.boot("Growatt New Energy", "THOR 22AS")
    (station,) = await street.rows(ChargingStation, ChargingStation.id == box.station_id)
    assert station.quirks == ["no_zone"]
    async with street.scope() as scope:
        row = await makes.add_quirk(scope, vendor="growatt*", model="thor*", quirk="no_ping", note="drops")
        await makes.add_quirk(scope, vendor="Other", model="", quirk="no_compression", note="")
    (station,) = await street.rows(ChargingStation, ChargingStation.id == box.station_id)
    assert station.quirks == ["no_ping", "no_zone"]
    held = street.yard.gateway.presence.here[street.nordlicht.tenant_id, box.station_id]

    async def heard() -> bool:
        return held.attributes.get("no_ping") is True

    await street.until(heard)
    async with street.scope() as scope:
        await stations.update_station(scope, box.station_id, leniency={"no_ping": False})

    async def unheard() -> bool:
        return "no_ping" not in held.attributes

    await street.until(unheard)
    async with street.scope() as scope:
        await makes.remove_quirk(scope, row.id)
    (station,) = await street.rows(ChargingStation, ChargingStation.id == box.station_id)
    assert station.quirks == ["no_zone"]


@pytest.mark.parametrize(
    ("pattern", "vendor", "fits"),
    [
        ("Growatt*", "growatt new energy", True),
        ("EN+*", "EN+ Caro", True),
        ("A[1]*", "A[1]x", True),
        ("A[1]*", "A1x", False),
        ("A?", "AB", False),
        ("*", None, True),
        ("Growatt*", None, False),
    ],
)
def test_patterns_of_makes_know_only_the_star(pattern: str, vendor: str | None, fits: bool):  # noqa: FBT001
    assert quirks.fits(pattern, "*", vendor, "anything") is fits


def test_every_preset_names_a_quirk_and_every_quirk_says_what_it_does():
    assert {one.quirk for one in quirks.PRESETS} <= set(quirks.QUIRKS)
    assert all(one.says.endswith(".") and one.effect.endswith(".") for one in quirks.QUIRKS.values())
