"""OCPP 1.6 Core and Remote Trigger: a CSMS's conformance cases, with the `ocpp` package's client as the station."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.charging import service as charging
from app.kernel.ids import parse_id
from tests.conformance.conftest import Station16, Yard, case, command, until
from tests.conformance.stage import Stage
from tests.foreign_stations import stamp

pytestmark = pytest.mark.anyio


async def begin(
    stage: Stage, connector: int = 1, tag: str | None = None, meter: int = 1_000, at: datetime | None = None
) -> dict[str, Any]:
    return await stage.box.say("StartTransaction", {
        "connectorId": connector, "idTag": tag or stage.cast.card, "meterStart": meter, "timestamp": stamp(at),
    })  # fmt: skip


async def finish(
    stage: Stage, transaction_id: int, meter: int = 1_150, at: datetime | None = None, **more: Any
) -> dict[str, Any]:
    return await stage.box.say("StopTransaction", {
        "transactionId": transaction_id, "meterStop": meter, "timestamp": stamp(at), **more,
    })  # fmt: skip


async def reading(stage: Stage, transaction_id: int, meter: int, connector: int = 1) -> None:
    sample = {"value": str(meter), "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
    await stage.box.say("MeterValues", {
        "connectorId": connector, "transactionId": transaction_id,
        "meterValue": [{"timestamp": stamp(), "sampledValue": [sample]}],
    })  # fmt: skip


async def authorize(stage: Stage, tag: str) -> dict[str, Any]:
    return (await stage.box.say("Authorize", {"idTag": tag}))["idTagInfo"]


# --- boot --------------------------------------------------------------------------------------------------------


@case("1.6", "TC_001_CSMS")
async def test_a_cold_boot_is_accepted_and_the_portal_shows_the_station(stage16: Stage):
    boot = await stage16.boot(firmwareVersion="2.4.1", chargePointSerialNumber="WW-0815")
    assert boot["status"] == "Accepted"
    assert 270 <= boot["interval"] <= 330
    assert boot["currentTime"].endswith("Z")
    await stage16.connector(0, "Available")
    assert (await stage16.box.say("Heartbeat", {}))["currentTime"].endswith("Z")
    station = await stage16.get(stage16.station_path)
    assert (station["is_online"], station["ocpp_version"]) == (True, "ocpp1.6")
    assert (station["model"], station["firmware_version"]) == ("Fjord 22", "2.4.1")
    assert await stage16.evse(1) == ("AVAILABLE", "Available")
    assert "Fjord 22" in await stage16.portal(stage16.station_path)


# --- sessions at the station -------------------------------------------------------------------------------------


@case("1.6", "TC_003_CSMS", "TC_004_1_CSMS", "TC_005_1_CSMS")
@pytest.mark.parametrize("order", ["cable first", "card first"])
async def test_a_visit_is_one_session_whichever_comes_first_and_ends_when_the_cable_is_pulled(
    stage16: Stage, order: str
):
    if order == "cable first":
        await stage16.connector(1, "Preparing")
        assert await stage16.evse() == ("BLOCKED", "Occupied")
    assert (await authorize(stage16, stage16.cast.card))["status"] == "Accepted"
    if order == "card first":
        await stage16.connector(1, "Preparing")
    begun = await begin(stage16)
    assert begun["idTagInfo"]["status"] == "Accepted"
    await stage16.connector(1, "Charging")
    assert (await stage16.evse())[0] == "CHARGING"
    await reading(stage16, begun["transactionId"], 1_100)
    running = await stage16.session()
    assert (running["status"], running["energy_wh"]) == ("ACTIVE", 100)
    await stage16.connector(1, "SuspendedEV")
    await finish(stage16, begun["transactionId"], reason="EVDisconnected")
    await stage16.connector(1, "Finishing")
    await stage16.connector(1, "Available")
    done = await stage16.settled()
    assert (done["status"], done["review"], done["energy_wh"]) == ("COMPLETED", None, 150)
    assert done["stopped_reason"] == "EVDisconnected"
    assert [cdr["total_energy"] for cdr in done["cdrs"]] == [0.15]
    assert await stage16.evse() == ("AVAILABLE", "Available")


@case("1.6", "TC_004_2_CSMS")
async def test_a_driver_who_never_plugs_in_leaves_a_free_connector_and_no_session(stage16: Stage):
    assert (await authorize(stage16, stage16.cast.card))["status"] == "Accepted"
    await stage16.connector(1, "Preparing")
    await stage16.connector(1, "Available")
    assert await stage16.evse() == ("AVAILABLE", "Available")
    assert await stage16.sessions() == []


@case("1.6", "TC_007_CSMS")
async def test_a_start_from_the_stations_cache_is_judged_at_the_start(stage16: Stage):
    """The station asks nobody: StartTransaction comes without an Authorize before it."""
    await stage16.connector(1, "Preparing")
    begun = await begin(stage16)
    assert begun["idTagInfo"]["status"] == "Accepted"
    await stage16.connector(1, "Charging")
    assert not await stage16.log("Authorize")
    await finish(stage16, begun["transactionId"], idTag=stage16.cast.card)
    done = await stage16.settled()
    assert (done["status"], done["id_token_status"]) == ("COMPLETED", "Accepted")


@case("1.6", "TC_023_1_CSMS", "TC_023_2_CSMS", "TC_023_3_CSMS")
async def test_authorize_names_what_is_wrong_with_a_card(stage16: Stage):
    await stage16.card("EXPIRED-1", expires_at=datetime.now(UTC) - timedelta(days=1))
    await stage16.card("BLOCKED-1", status="blocked")
    for tag, status in (("NOBODYS", "Invalid"), ("EXPIRED-1", "Expired"), ("BLOCKED-1", "Blocked")):
        assert (await authorize(stage16, tag))["status"] == status
        begun = await begin(stage16, tag=tag)
        assert begun["idTagInfo"]["status"] == status
        await finish(stage16, begun["transactionId"], 1_000, reason="DeAuthorized")
    await stage16.jobs.run()
    assert {(one["status"], one["energy_wh"]) for one in await stage16.sessions()} == {("INVALID", 0)}
    assert (await stage16.get("/cdrs"))["data"] == []


@case("1.6", "TC_024_CSMS")
async def test_a_lock_that_fails_is_a_fault_that_staff_see(stage16: Stage):
    await stage16.connector(1, "Preparing")
    await stage16.connector(1, "Faulted", errorCode="ConnectorLockFailure")
    assert await stage16.evse() == ("OUTOFORDER", "Faulted")
    assert "ConnectorLockFailure" in await stage16.portal(stage16.station_path)
    refused = await stage16.rest.send(
        "POST", "/api/v1/charging-sessions",
        json={"station_id": stage16.station_path.rpartition("/")[2], "evse_no": 1},
    )  # fmt: skip
    assert refused.json()["code"] == "evse_faulted"


# --- remote start and stop ---------------------------------------------------------------------------------------


@case("1.6", "TC_010_CSMS", "TC_011_1_CSMS", "TC_012_CSMS")
@pytest.mark.parametrize("order", ["cable first", "start first"])
async def test_a_remote_start_becomes_the_session_and_a_remote_stop_ends_it(stage16: Stage, order: str):
    transactions: list[int] = []

    async def plugged(payload: dict[str, Any]) -> None:
        if order == "start first":
            await stage16.connector(1, "Preparing")
        assert (await authorize(stage16, payload["id_tag"]))["status"] == "Accepted"
        begun = await begin(stage16, payload["connector_id"], payload["id_tag"])
        assert begun["idTagInfo"]["status"] == "Accepted"
        transactions.append(begun["transactionId"])
        await stage16.connector(1, "Charging")

    async def unplugged(payload: dict[str, Any]) -> None:
        await finish(stage16, payload["transaction_id"], reason="Remote")
        await stage16.connector(1, "Finishing")

    stage16.box.reactions = {"RemoteStartTransaction": plugged, "RemoteStopTransaction": unplugged}
    if order == "cable first":
        await stage16.connector(1, "Preparing")
    begun = await stage16.start()
    assert (begun["command"]["status"], begun["command"]["answer"]) == ("accepted", {"status": "Accepted"})
    await stage16.becomes("ACTIVE", begun["id"])
    stopped = await stage16.stop(begun["id"])
    assert stopped["status"] == "accepted"
    done = await stage16.becomes("COMPLETED", begun["id"])
    assert (done["energy_wh"], done["stopped_reason"], done["origin"]) == (150, "Remote", "remote")
    assert [one["id"] for one in await stage16.sessions()] == [begun["id"]]
    (told,) = [payload for action, payload in stage16.box.asked if action == "RemoteStopTransaction"]
    assert told == {"transaction_id": transactions[0]}


@case("1.6", "TC_011_2_CSMS", "TC_026_CSMS", "TC_028_CSMS")
async def test_a_remote_start_that_comes_to_nothing_and_a_refused_stop_are_told(stage16: Stage):
    late = await stage16.start()
    await stage16.connector(1, "Preparing")
    await stage16.connector(1, "Available")
    await stage16.let_wishes_expire()
    assert (await stage16.session(late["id"]))["status"] == "INVALID"
    assert "Nobody plugged in" in await stage16.timeline(late["id"])
    stage16.box.behaviour.update({"RemoteStartTransaction": "Rejected", "RemoteStopTransaction": "Rejected"})
    refused = await stage16.start()
    assert (refused["command"]["status"], refused["command"]["answer"]) == (
        "rejected",
        {"status": "Rejected"},
    )
    await stage16.jobs.run()
    assert (await stage16.session(refused["id"]))["status"] == "INVALID"
    assert "The station refused the start" in await stage16.portal(f"/charging-sessions/{refused['id']}")
    begun = await begin(stage16)
    (running,) = [one for one in await stage16.sessions() if one["status"] == "ACTIVE"]
    assert (await stage16.stop(running["id"]))["status"] == "rejected"
    assert (await stage16.session(running["id"]))["status"] == "ACTIVE"
    await finish(stage16, begun["transactionId"])


# --- reset and unlock --------------------------------------------------------------------------------------------


@case("1.6", "TC_013_CSMS", "TC_014_CSMS")
@pytest.mark.parametrize(("kind", "reason"), [("Hard", "HardReset"), ("Soft", "SoftReset")])
async def test_a_reset_ends_the_session_and_the_station_comes_back(stage16: Stage, kind: str, reason: str):
    box = stage16.box
    begun = await begin(stage16)
    await reading(stage16, begun["transactionId"], 1_100)

    async def restart(_payload: dict[str, Any]) -> None:
        if kind == "Soft":
            await finish(stage16, begun["transactionId"], reason=reason)
        await asyncio.sleep(0.05)  # its answer goes out first
        await box.cut()
        await box.connect()
        await stage16.boot()
        if kind == "Hard":
            await finish(stage16, begun["transactionId"], reason=reason)
        await stage16.connector(1, "Available")

    box.reactions["Reset"] = restart
    done = await stage16.ask("Reset", {"type": kind})
    assert (done["status"], done["answer"]) == ("accepted", {"status": "Accepted"})
    assert ("Reset", {"type": kind}) in box.asked
    session = await stage16.becomes("COMPLETED")
    assert (session["stopped_reason"], session["energy_wh"], session["review"]) == (reason, 150, None)
    was_interrupted = "The station restarted" in await stage16.timeline(session["id"])
    assert was_interrupted is (kind == "Hard")
    assert (await until(lambda: _online(stage16)))["booted_at"]


async def _online(stage: Stage) -> dict[str, Any] | None:
    station = await stage.get(stage.station_path)
    return station if station["is_online"] else None


@case("1.6", "TC_017_1_CSMS", "TC_017_2_CSMS", "TC_030_CSMS", "TC_031_CSMS")
async def test_each_answer_to_an_unlock_is_kept_as_the_station_gave_it(stage16: Stage):
    for word, outcome in (
        ("Unlocked", "accepted"),
        ("NotSupported", "rejected"),
        ("UnlockFailed", "rejected"),
    ):
        stage16.box.behaviour["UnlockConnector"] = word
        done = await stage16.ask("UnlockConnector", {"connectorId": 1})
        assert (done["status"], done["answer"]) == (outcome, {"status": word})
    stage16.box.behaviour["UnlockConnector"] = "NotSupported"
    unknown = await stage16.ask("UnlockConnector", {"connectorId": 9})
    assert (unknown["status"], unknown["answer"]) == ("rejected", {"status": "NotSupported"})
    assert [payload["connector_id"] for action, payload in stage16.box.asked if action == "UnlockConnector"] == [
        1, 1, 1, 9,
    ]  # fmt: skip
    assert await stage16.evse() == ("AVAILABLE", "Available")
    page = await stage16.portal(stage16.station_path + "/commands")
    assert "UnlockFailed" in page or "rejected" in page.lower()


@case("1.6", "TC_018_1_CSMS")
async def test_an_unlock_while_charging_ends_the_session(stage16: Stage):
    begun = await begin(stage16)
    await stage16.connector(1, "Charging")

    async def unlocked(_payload: dict[str, Any]) -> None:
        await finish(stage16, begun["transactionId"], reason="UnlockCommand")
        await stage16.connector(1, "Available")

    stage16.box.answers["UnlockConnector"] = {"status": "Unlocked"}
    stage16.box.reactions["UnlockConnector"] = unlocked
    assert (await stage16.ask("UnlockConnector", {"connectorId": 1}))["status"] == "accepted"
    done = await stage16.becomes("COMPLETED")
    assert (done["stopped_reason"], done["energy_wh"]) == ("UnlockCommand", 150)


# --- power failure and offline -----------------------------------------------------------------------------------


@case("1.6", "TC_032_1_CSMS")
async def test_a_power_failure_ends_the_session_with_what_the_station_tells_after_it(stage16: Stage):
    begun = await begin(stage16)
    await reading(stage16, begun["transactionId"], 1_100)
    lost = datetime.now(UTC)
    await stage16.box.cut()
    await stage16.box.connect()
    await stage16.boot()
    assert (await stage16.session())["status"] == "ACTIVE"
    await stage16.connector(1, "Finishing")
    await finish(stage16, begun["transactionId"], 1_120, lost, reason="PowerLoss")
    done = await stage16.settled()
    assert (done["status"], done["stopped_reason"], done["energy_wh"]) == ("COMPLETED", "PowerLoss", 120)
    assert len(done["cdrs"]) == 1
    assert "The station restarted" in await stage16.timeline(done["id"])


@case("1.6", "TC_037_1_CSMS", "TC_039_CSMS")
async def test_what_happened_offline_is_one_session_with_the_stations_times(stage16: Stage):
    box = stage16.box
    await box.cut()
    began = datetime.now(UTC) - timedelta(minutes=40)
    await box.connect()
    begun = await begin(stage16, at=began)
    assert begun["idTagInfo"]["status"] == "Accepted"
    running = await stage16.session()
    assert (running["status"], running["is_offline"]) == ("ACTIVE", True)
    again = await begin(stage16, at=began)  # its answer was lost: the queue holds it twice
    assert again["transactionId"] == begun["transactionId"]
    await finish(
        stage16, begun["transactionId"], 6_000, began + timedelta(minutes=30), idTag=stage16.cast.card
    )
    done = await stage16.settled()
    assert (done["status"], done["review"], done["energy_wh"]) == ("COMPLETED", None, 5_000)
    assert done["started_at"][:19] == stamp(began)[:19]
    assert [cdr["total_energy"] for cdr in done["cdrs"]] == [5.0]


@case("1.6", "TC_037_3_CSMS")
async def test_an_offline_start_with_a_card_that_is_refused_is_kept_and_ends_deauthorised(stage16: Stage):
    box = stage16.box
    await stage16.card("GONE-1", status="blocked")
    await box.cut()
    began = datetime.now(UTC) - timedelta(minutes=10)
    await box.connect()
    begun = await begin(stage16, tag="GONE-1", at=began)
    assert begun["idTagInfo"]["status"] == "Blocked"
    await finish(stage16, begun["transactionId"], 1_400, reason="DeAuthorized")
    done = await stage16.settled()
    assert (done["status"], done["review"], done["id_token_status"]) == ("COMPLETED", "orphan", "Blocked")
    assert done["cdrs"] == []  # energy went to somebody who may not: staff decide


async def test_a_card_that_was_refused_and_charges_on_is_asked_to_stop_once(stage16: Stage):
    """A station that does not know StopTransactionOnInvalidId, or has it off."""
    await stage16.card("GONE-2", status="blocked")
    begun = await begin(stage16, tag="GONE-2")
    assert begun["idTagInfo"]["status"] == "Blocked"
    session = await stage16.session()
    path = f"/charging-sessions/{session['id']}"
    assert "Refused card" in await stage16.portal("/charging-sessions")
    assert "A refused card" in await stage16.portal(path)
    await stage16.jobs.run()
    assert not await stage16.commands("RemoteStopTransaction")  # it may end by itself

    async def end(payload: dict[str, Any]) -> None:
        await finish(stage16, payload["transaction_id"], 1_000, reason="Remote")

    stage16.box.reactions["RemoteStopTransaction"] = end
    stage16.jobs.ahead = timedelta(seconds=30)
    await stage16.jobs.run()
    await stage16.becomes("COMPLETED", session["id"])
    async with stage16.scope() as scope:
        for _again in range(2):
            await charging.stop_refused(scope, parse_id("charging_session", session["id"]))
    (asked,) = await stage16.commands("RemoteStopTransaction")
    assert asked.payload == {"transactionId": begun["transactionId"]}
    assert "because the card was refused" in await stage16.portal(path)


async def test_what_a_queue_tells_of_a_refused_card_stops_nothing(stage16: Stage):
    await stage16.card("GONE-3", status="blocked")
    await begin(stage16, tag="GONE-3", at=datetime.now(UTC) - timedelta(minutes=10))
    stage16.jobs.ahead = timedelta(seconds=30)
    await stage16.jobs.run()
    assert not await stage16.commands("RemoteStopTransaction")


# --- remote trigger ----------------------------------------------------------------------------------------------

TRIGGERED: dict[str, dict[str, Any]] = {
    "BootNotification": {"chargePointModel": "Fjord 22", "chargePointVendor": "Wattwerk"},
    "Heartbeat": {},
    "StatusNotification": {"connectorId": 1, "errorCode": "NoError", "status": "Available"},
    "MeterValues": {
        "connectorId": 1,
        "meterValue": [{
            "timestamp": "2026-01-01T00:00:00Z", "sampledValue": [{"value": "1000", "context": "Trigger"}],
        }],
    },
    "DiagnosticsStatusNotification": {"status": "Idle"},
    "FirmwareStatusNotification": {"status": "Idle"},
}  # fmt: skip


@case("1.6", "TC_054_CSMS")
async def test_a_triggered_message_comes_and_is_taken(stage16: Stage):
    stage16.box.behaviour["TriggerMessage"] = "Accepted"
    came: list[str] = []

    async def send(payload: dict[str, Any]) -> None:
        await stage16.box.say(payload["requested_message"], TRIGGERED[payload["requested_message"]])
        came.append(payload["requested_message"])

    stage16.box.reactions["TriggerMessage"] = send
    for wanted in TRIGGERED:
        about = {"connectorId": 1} if wanted in ("MeterValues", "StatusNotification") else {}
        done = await stage16.ask("TriggerMessage", {"requestedMessage": wanted, **about})
        assert (done["status"], done["answer"]) == ("accepted", {"status": "Accepted"})
    await until(lambda: _all_came(came, TRIGGERED))
    (reading_,) = await stage16.readings()
    assert (reading_.context, reading_.value, reading_.session_id) == ("Trigger", 1000, None)


async def _all_came(came: list[str], wanted: Any) -> bool:
    return set(came) == set(wanted)


@case("1.6", "TC_055_CSMS")
async def test_a_refused_trigger_is_told(stage16: Stage):
    for word in ("Rejected", "NotImplemented"):
        stage16.box.behaviour["TriggerMessage"] = word
        done = await stage16.ask("TriggerMessage", {"requestedMessage": "MeterValues", "connectorId": 2})
        assert (done["status"], done["answer"]) == ("rejected", {"status": word})


async def test_an_extended_trigger_message_is_sent_and_its_answer_kept(stage16: Stage):
    """Security whitepaper: also LogStatusNotification and SignChargePointCertificate can be asked for."""
    box = stage16.box
    came: list[str] = []

    async def send(payload: dict[str, Any]) -> None:
        await box.say("LogStatusNotification", {"status": "Idle", "requestId": 0})
        came.append(payload["requestedMessage"])

    box.answers["ExtendedTriggerMessage"] = {"status": "Accepted"}
    box.reactions["ExtendedTriggerMessage"] = send
    done = await stage16.ask("ExtendedTriggerMessage", {"requestedMessage": "LogStatusNotification"})
    assert (done["status"], done["answer"]) == ("accepted", {"status": "Accepted"})
    await until(lambda: _all_came(came, ["LogStatusNotification"]))
    box.answers["ExtendedTriggerMessage"] = {"status": "NotImplemented"}
    refused = await stage16.ask("ExtendedTriggerMessage", {"requestedMessage": "SignChargePointCertificate"})
    assert (refused["status"], refused["answer"]) == ("rejected", {"status": "NotImplemented"})


@case("1.6", "TC_061_CSMS")
async def test_the_cache_of_a_station_is_cleared(yard: Yard):
    box = yard.station(yard.nordlicht, Station16)
    box.answers["ClearCache"] = {"status": "Accepted"}
    await box.connect()
    await box.say("BootNotification", {"chargePointModel": "Fjord 22", "chargePointVendor": "Wattwerk"})
    cleared = await command(yard, yard.nordlicht, "ClearCache", {})
    assert (cleared.status, cleared.answer) == ("accepted", {"status": "Accepted"})
    assert box.asked == [("ClearCache", {})]
    await box.close()
