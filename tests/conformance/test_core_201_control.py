"""OCPP 2.0.1 blocks B (boot and reset), F (remote control) and J (meter values). Stations: the `ocpp` package."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ocpp.exceptions import OCPPError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.charging import service as charging
from app.kernel.errors import Refused
from app.kernel.ids import parse_id
from app.kernel.settings import Settings
from app.stations import service as stations
from tests.conformance.conftest import Station201, Yard, case, until
from tests.conformance.stage import Stage, staged
from tests.conformance.test_core_201_sessions import Transaction
from tests.conftest import DatabaseUrls
from tests.foreign_stations import stamp
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio


async def came(seen: list[Any], count: int) -> bool:
    return len(seen) >= count


# --- B: boot -----------------------------------------------------------------------------------------------------


@case("2.0.1", "TC_B_01_CSMS")
async def test_a_cold_boot_is_accepted_and_the_portal_shows_the_station(stage201: Stage):
    boot = await stage201.boot(chargingStation={
        "model": "Kompakt 150", "vendorName": "Ladewerk", "firmwareVersion": "7.1", "serialNumber": "LW-1",
        "modem": {"iccid": "8949", "imsi": "2620"},
    })  # fmt: skip
    assert (boot["status"], 270 <= boot["interval"] <= 330) == ("Accepted", True)
    assert boot["currentTime"].endswith("Z")
    assert (await stage201.box.say("Heartbeat", {}))["currentTime"].endswith("Z")
    station = await stage201.get(stage201.station_path)
    assert (station["is_online"], station["ocpp_version"], station["firmware_version"]) == (
        True,
        "ocpp2.0.1",
        "7.1",
    )
    assert await stage201.evse(2) == ("AVAILABLE", "Available")
    assert "Kompakt 150" in await stage201.portal(stage201.station_path)


@pytest.fixture
async def waiting(yard: Yard, settings: Settings, database_urls: DatabaseUrls) -> AsyncIterator[Stage]:
    """A station that staff have not accepted yet."""
    async with staged(yard, settings, database_urls, Station201, boots=False) as stage:
        async with stage.scope() as scope:
            await stations.update_station(scope, stage.cast.station_id, registration="pending")
        await stage.box.connect()
        yield stage


REPORT = {
    "requestId": 1, "generatedAt": "2026-01-01T00:00:00Z", "seqNo": 0,
    "reportData": [{
        "component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "HeartbeatInterval"},
        "variableAttribute": [{"value": "300"}],
    }],
}  # fmt: skip


@case("2.0.1", "TC_B_02_CSMS", "TC_B_31_CSMS")
async def test_a_pending_station_is_asked_and_set_up_until_staff_accept_it(waiting: Stage):
    box = waiting.box
    boots: list[str] = []

    async def triggered(payload: dict[str, Any]) -> None:
        assert payload == {"requested_message": "BootNotification"}
        boots.append((await waiting.boot(reason="Triggered"))["status"])

    async def reported(payload: dict[str, Any]) -> None:
        await box.say("NotifyReport", REPORT | {"requestId": payload["requestId"]})

    box.behaviour["TriggerMessage"] = "Accepted"
    box.answers["GetBaseReport"] = {"status": "Accepted"}
    box.answers["SetVariables"] = {"setVariableResult": [{
        "attributeStatus": "Accepted", "component": {"name": "OCPPCommCtrlr"},
        "variable": {"name": "HeartbeatInterval"},
    }]}  # fmt: skip
    box.reactions.update({"TriggerMessage": triggered, "GetBaseReport": reported})
    answer = await waiting.boot()
    assert (answer["status"], answer["interval"] > 0) == ("Pending", True)
    wanted = {"component": {"name": "OCPPCommCtrlr"}, "variable": {"name": "HeartbeatInterval"}}
    done = await waiting.ask("SetVariables", {"setVariableData": [wanted | {"attributeValue": "300"}]})
    assert done["status"] == "accepted"
    assert (await waiting.ask("GetBaseReport", {"requestId": 7, "reportBase": "FullInventory"}))[
        "status"
    ] == "accepted"
    await until(lambda: waiting.log("NotifyReport"))
    assert {one["error"] for one in await waiting.log("NotifyReport")} == {None}
    with pytest.raises(Refused) as refused:
        async with waiting.scope() as scope:
            await charging.request_start(scope, evse_id=waiting.cast.evse_ids[0])
    assert refused.value.code == "station_not_accepted"
    answered = await waiting.rest.send(
        "PATCH", f"/api/v1{waiting.station_path}", json={"registration": "accepted"}
    )
    assert answered.status_code == 200
    await until(lambda: came(boots, 1))
    assert boots == ["Accepted"]
    await waiting.connector(1, "Available")
    assert await waiting.evse() == ("AVAILABLE", "Available")


@case("2.0.1", "TC_B_30_CSMS")
@pytest.mark.parametrize("registration", ["pending", "rejected"])
async def test_what_a_station_says_before_it_is_accepted_is_a_security_error(
    waiting: Stage, registration: str
):
    async with waiting.scope() as scope:
        await stations.update_station(scope, waiting.cast.station_id, registration=registration)
    assert (await waiting.boot())["status"] == registration.capitalize()
    status = {"timestamp": stamp(), "connectorStatus": "Occupied", "evseId": 1, "connectorId": 1}
    for action, payload in (("StatusNotification", status), ("Heartbeat", {}), ("NotifyReport", REPORT)):
        with pytest.raises(OCPPError) as refused:
            await waiting.box.say(action, payload)
        assert refused.value.code == "SecurityError"
    assert (await waiting.evse())[1] == "Unknown"
    assert {one["error"] for one in await waiting.log("StatusNotification")} == {"SecurityError"}
    assert (await waiting.boot())["status"] == registration.capitalize()  # and it may ask again


@case("2.0.1", "TC_B_58_CSMS")
async def test_of_the_versions_a_station_offers_a_known_one_is_chosen(yard: Yard):
    token = base64.b64encode(f"CP1:{yard.nordlicht.password}".encode()).decode()
    url = f"ws://127.0.0.1:{yard.port}/nordlicht/CP1"
    headers = {"Authorization": f"Basic {token}"}
    async with connect(url, subprotocols=["ocpp0.1", "ocpp2.0.1"], additional_headers=headers) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "ocpp2.0.1"
        await socket.send(json.dumps([2, "1", "BootNotification", {
            "reason": "PowerUp", "chargingStation": {"model": "X", "vendorName": "Y"},
        }]))  # fmt: skip
        assert json.loads(await socket.recv())[2]["status"] == "Accepted"
    with pytest.raises(InvalidStatus):
        await connect(url, subprotocols=["ocpp0.1"], additional_headers=headers)  # type: ignore[list-item]


# --- B: reset ----------------------------------------------------------------------------------------------------


async def comes_back(stage: Stage, reason: str) -> None:
    await asyncio.sleep(0.05)  # its answer goes out first
    await stage.box.close()
    await stage.box.connect()
    await stage.boot(reason=reason)
    await stage.connector(1, "Available")


@case("2.0.1", "TC_B_20_CSMS", "TC_B_25_CSMS")
async def test_an_idle_station_or_evse_is_reset(stage201: Stage):
    steps: list[str] = []

    async def reset(payload: dict[str, Any]) -> None:
        if "evse_id" in payload:
            await stage201.connector(payload["evse_id"], "Unavailable")
            steps.append((await stage201.evse(payload["evse_id"]))[0])
            await stage201.connector(payload["evse_id"], "Available")
        else:
            await comes_back(stage201, "RemoteReset")
        steps.append("back")

    stage201.box.reactions["Reset"] = reset
    done = await stage201.ask("Reset", {"type": "OnIdle", "evseId": 1})
    assert (done["status"], done["answer"]) == ("accepted", {"status": "Accepted"})
    await until(lambda: came(steps, 2))
    assert steps == ["INOPERATIVE", "back"]
    assert (await stage201.ask("Reset", {"type": "OnIdle"}))["status"] == "accepted"
    await until(lambda: came(steps, 3))
    assert await stage201.evse() == ("AVAILABLE", "Available")
    assert [payload for action, payload in stage201.box.asked if action == "Reset"] == [
        {"type": "OnIdle", "evse_id": 1}, {"type": "OnIdle"},
    ]  # fmt: skip


@case("2.0.1", "TC_B_21_CSMS", "TC_B_26_CSMS")
async def test_a_reset_on_idle_waits_for_the_session_to_end(stage201: Stage):
    for evse in (None, 1):
        visit = Transaction(stage201, f"busy-{evse}")
        await visit.tell("Started", "Authorized", token=stage201.cast.card, meter=1_000, state="Charging")
        stage201.box.behaviour["Reset"] = "Scheduled"
        done = await stage201.ask("Reset", {"type": "OnIdle"} | ({"evseId": evse} if evse else {}))
        assert (done["status"], done["answer"]) == ("accepted", {"status": "Scheduled"})
        await visit.tell("Updated", "MeterValuePeriodic", meter=1_100)
        assert (await stage201.session())["status"] == "ACTIVE"
        await visit.tell("Ended", "EVDeparted", meter=1_200, reason="EVDisconnected")
        if evse is None:
            await comes_back(stage201, "ScheduledReset")
        else:
            await stage201.connector(1, "Unavailable")
            await stage201.connector(1, "Available")
        session = await stage201.settled()
        assert (session["status"], session["review"], session["energy_wh"]) == ("COMPLETED", None, 200)
        assert await stage201.evse() == ("AVAILABLE", "Available")


@case("2.0.1", "TC_B_22_CSMS", "TC_B_27_CSMS")
async def test_an_immediate_reset_ends_the_session(stage201: Stage):
    for evse in (1, None):
        visit, is_back = Transaction(stage201, f"cut-{evse}"), asyncio.Event()
        await visit.tell("Started", "Authorized", token=stage201.cast.card, meter=1_000, state="Charging")

        async def reset(
            _payload: dict[str, Any],
            visit: Transaction = visit,
            evse: int | None = evse,
            is_back: asyncio.Event = is_back,
        ) -> None:
            await visit.tell("Ended", "ResetCommand", meter=1_100, reason="ImmediateReset")
            if evse is None:
                await comes_back(stage201, "RemoteReset")
            else:
                await stage201.connector(1, "Available")
            is_back.set()

        stage201.box.reactions["Reset"] = reset
        done = await stage201.ask("Reset", {"type": "Immediate"} | ({"evseId": evse} if evse else {}))
        assert done["status"] == "accepted"
        session = await stage201.becomes("COMPLETED")
        assert session["ocpp_transaction_id"] == visit.id
        assert (session["stopped_reason"], session["energy_wh"], session["review"]) == (
            "ImmediateReset",
            100,
            None,
        )
        await asyncio.wait_for(is_back.wait(), 10)


# --- F: remote control -------------------------------------------------------------------------------------------


@case("2.0.1", "TC_F_01_CSMS")
@pytest.mark.parametrize(
    ("start_point", "names_token"), [("Authorized", True), ("EVConnected", True), ("EVConnected", False)]
)
async def test_a_remote_start_after_the_cable_is_one_session(
    stage201: Stage, start_point: str, names_token: bool
):
    """Where the transaction began with the cable, the remote start takes it over; its id is enough."""
    visit = Transaction(stage201, "plugged")
    await stage201.connector(1, "Occupied")
    if start_point == "EVConnected":
        await visit.tell("Started", "CablePluggedIn", state="EVConnected", meter=1_000)

    async def start(payload: dict[str, Any]) -> None:
        token = payload["id_token"]
        told = {"state": "EVConnected"}
        if names_token:
            told |= {"token": token["id_token"], "token_type": token["type"]}
        begun = visit.seq_no > 0
        answer = await visit.tell(
            "Updated" if begun else "Started", "RemoteStart", info={"remoteStartId": payload["remote_start_id"]},
            meter=None if begun else 1_000, **told,
        )  # fmt: skip
        assert not names_token or answer["idTokenInfo"]["status"] == "Accepted"
        await visit.tell("Updated", "ChargingStateChanged", state="Charging")
        await visit.tell("Updated", "MeterValuePeriodic", meter=1_200)

    if start_point == "EVConnected":
        stage201.box.answers["RequestStartTransaction"] = {"status": "Accepted", "transactionId": "plugged"}

        async def camel(payload: dict[str, Any]) -> None:
            token = {"id_token": payload["idToken"]["idToken"], "type": payload["idToken"]["type"]}
            await start({"id_token": token, "remote_start_id": payload["remoteStartId"]})

        stage201.box.reactions["RequestStartTransaction"] = camel
    else:
        stage201.box.reactions["RequestStartTransaction"] = start
    begun = await stage201.start()
    assert begun["command"]["status"] == "accepted"
    await stage201.becomes("ACTIVE", begun["id"])
    await until(lambda: has_energy(stage201, begun["id"], 200))
    assert [one["id"] for one in await stage201.sessions()] == [begun["id"]]
    await visit.tell("Ended", "EVDeparted", meter=1_500, reason="EVDisconnected")
    done = await stage201.settled()
    assert (done["status"], done["review"], done["energy_wh"], done["origin"]) == (
        "COMPLETED",
        None,
        500,
        "remote",
    )
    assert (await stage201.evse())[0] in ("AVAILABLE", "BLOCKED")


async def has_energy(stage: Stage, session_id: str, wanted: int) -> bool:
    return (await stage.session(session_id))["energy_wh"] == wanted


@case("2.0.1", "TC_F_02_CSMS", "TC_F_03_CSMS")
@pytest.mark.parametrize("asks", [True, False])
async def test_a_remote_start_before_the_cable_is_one_session(stage201: Stage, asks: bool):
    """AuthorizeRemoteStart true: the station asks about the token it was sent, and it is good once."""
    visit = Transaction(stage201, "remote-first")

    async def start(payload: dict[str, Any]) -> None:
        token = payload["id_token"]
        if asks:
            wire = {"idToken": token["id_token"], "type": token["type"]}
            answer = await stage201.box.say("Authorize", {"idToken": wire})
            assert answer["idTokenInfo"]["status"] == "Accepted"
        await visit.tell(
            "Started", "RemoteStart", token=token["id_token"], token_type=token["type"],
            info={"remoteStartId": payload["remote_start_id"]},
        )  # fmt: skip
        await stage201.connector(1, "Occupied")
        await visit.tell(
            "Updated", "CablePluggedIn", state="EVConnected", meter=1_000, context="Transaction.Begin"
        )
        await visit.tell("Updated", "ChargingStateChanged", state="Charging")
        plugged.append(visit)

    plugged: list[Transaction] = []
    stage201.box.reactions["RequestStartTransaction"] = start
    begun = await stage201.start()
    assert (begun["command"]["status"], begun["command"]["answer"]) == ("accepted", {"status": "Accepted"})
    await until(lambda: came(plugged, 1))
    assert (await stage201.session(begun["id"]))["status"] == "ACTIVE"
    await visit.tell("Ended", "EVDeparted", meter=1_400, reason="EVDisconnected")
    done = await stage201.settled()
    assert (done["id"], done["status"], done["energy_wh"]) == (begun["id"], "COMPLETED", 400)


@case("2.0.1", "TC_F_04_CSMS")
async def test_a_remote_start_without_a_cable_in_time_is_no_bill(stage201: Stage):
    visit = Transaction(stage201, "timeout")

    async def start(payload: dict[str, Any]) -> None:
        await visit.tell(
            "Started", "RemoteStart", token=payload["id_token"]["id_token"], token_type="Central",
            info={"remoteStartId": payload["remote_start_id"]},
        )  # fmt: skip
        await visit.tell("Ended", "EVConnectTimeout", reason="Timeout")

    stage201.box.reactions["RequestStartTransaction"] = start
    begun = await stage201.start()
    done = await stage201.becomes("INVALID", begun["id"])
    assert (done["energy_wh"], done["review"]) == (0, None)
    assert "Nobody plugged in" in await stage201.timeline(begun["id"])
    assert (await stage201.settled())["cdrs"] == []
    assert (await stage201.evse())[0] == "AVAILABLE"


@case("2.0.1", "TC_F_06_CSMS")
async def test_a_connector_is_unlocked_from_afar(stage201: Stage):
    done = await stage201.ask("UnlockConnector", {"evseId": 1, "connectorId": 1})
    assert (done["status"], done["answer"]) == ("accepted", {"status": "Unlocked"})
    assert stage201.box.asked[-1] == ("UnlockConnector", {"evse_id": 1, "connector_id": 1})


def metered(evse: int) -> dict[str, Any]:
    sample = {"value": 1_000, "context": "Trigger", "measurand": "Energy.Active.Import.Register"}
    return {"evseId": evse, "meterValue": [{"timestamp": stamp(), "sampledValue": [sample]}]}


@case("2.0.1", "TC_F_11_CSMS", "TC_F_12_CSMS", "TC_F_13_CSMS", "TC_F_14_CSMS")
async def test_triggered_meter_values_and_transaction_events_are_taken(stage201: Stage):
    visits = {number: Transaction(stage201, f"on-{number}", number) for number in (1, 2)}
    for visit in visits.values():
        await visit.tell("Started", "Authorized", token=stage201.cast.card, meter=500, state="Charging")
    sent: list[Any] = []

    async def send(payload: dict[str, Any]) -> None:
        wanted = [payload["evse"]["id"]] if "evse" in payload else [1, 2]
        for number in wanted:
            if payload["requested_message"] == "MeterValues":
                await stage201.box.say("MeterValues", metered(number))
            else:
                await visits[number].tell(
                    "Updated", "Trigger", meter=1_100, context="Trigger", state="Charging"
                )
            sent.append((payload["requested_message"], number))

    stage201.box.behaviour["TriggerMessage"] = "Accepted"
    stage201.box.reactions["TriggerMessage"] = send
    for message in ("MeterValues", "TransactionEvent"):
        for about in ({"evse": {"id": 1}}, {}):
            before = len(sent)
            done = await stage201.ask("TriggerMessage", {"requestedMessage": message, **about})
            assert (done["status"], done["answer"]) == ("accepted", {"status": "Accepted"})
            await until(lambda want=before + (1 if about else 2): came(sent, want))
    triggered = [one for one in await stage201.readings() if one.context == "Trigger"]
    assert {one.evse_no for one in triggered} == {1, 2}
    assert all(one.session_id is not None for one in triggered)
    assert {one["energy_wh"] for one in await stage201.sessions()} == {600}


STATUS = {"timestamp": "2026-01-01T00:00:00Z", "evseId": 1, "connectorId": 1}
TRIGGERED: dict[str, dict[str, Any]] = {
    "LogStatusNotification": {"status": "Idle"}, "FirmwareStatusNotification": {"status": "Idle"}, "Heartbeat": {},
}  # fmt: skip


@case("2.0.1", "TC_F_15_CSMS", "TC_F_18_CSMS", "TC_F_20_CSMS", "TC_F_23_CSMS", "TC_F_24_CSMS", "TC_F_27_CSMS")
async def test_other_triggered_messages_are_taken_and_a_refusal_is_told(stage201: Stage):
    sent: list[str] = []
    status = "Available"

    async def send(payload: dict[str, Any]) -> None:
        message = payload["requested_message"]
        if message == "StatusNotification":
            await stage201.connector(1, status)
        else:
            await stage201.box.say(message, TRIGGERED[message])
        sent.append(message)

    stage201.box.behaviour["TriggerMessage"] = "Accepted"
    stage201.box.reactions["TriggerMessage"] = send
    for number, message in enumerate(TRIGGERED):
        assert (await stage201.ask("TriggerMessage", {"requestedMessage": message}))["status"] == "accepted"
        await until(lambda want=number + 1: came(sent, want))
    for status, shown in (("Available", "AVAILABLE"), ("Occupied", "BLOCKED")):
        about = {"requestedMessage": "StatusNotification", "evse": {"id": 1, "connectorId": 1}}
        before = len(sent)
        assert (await stage201.ask("TriggerMessage", about))["status"] == "accepted"
        await until(lambda want=before + 1: came(sent, want))
        assert await stage201.evse() == (shown, status)
    stage201.box.behaviour["TriggerMessage"] = "NotImplemented"
    done = await stage201.ask("TriggerMessage", {"requestedMessage": "PublishFirmwareStatusNotification"})
    assert (done["status"], done["answer"]) == ("rejected", {"status": "NotImplemented"})


# --- J: meter values ---------------------------------------------------------------------------------------------

SIGNED = {
    "signedMeterData": "T0NNRnx7fQ==", "signingMethod": "ECDSAP256SHA256", "encodingMethod": "OCMF",
    "publicKey": "oca:base16:asn1:3059",
}  # fmt: skip


def sampled(value: float, context: str, *, signed: bool = False, **more: Any) -> dict[str, Any]:
    made = {"value": value, "context": context, "measurand": "Energy.Active.Import.Register", **more}
    return made | ({"signedMeterValue": SIGNED} if signed else {})


@case("2.0.1", "TC_J_01_CSMS")
async def test_clock_aligned_values_without_a_transaction_belong_to_no_session(stage201: Stage):
    for evse in (0, 1, 2):
        samples = [
            sampled(1.5, "Sample.Clock", unitOfMeasure={"unit": "kWh"}),
            {"value": 230.4, "context": "Sample.Clock", "measurand": "Voltage", "phase": "L1-N"},
        ]  # fmt: skip
        await stage201.box.say("MeterValues", {
            "evseId": evse, "meterValue": [{"timestamp": stamp(), "sampledValue": samples}],
        })  # fmt: skip
    found = await stage201.readings()
    assert {(one.evse_no, one.measurand, one.value and int(one.value), one.context) for one in found} == {
        (evse, measurand, value, "Sample.Clock")
        for evse in (0, 1, 2)
        for measurand, value in (("Energy.Active.Import.Register", 1_500), ("Voltage", 230))
    }
    assert {one.session_id for one in found} == {None}
    assert await stage201.sessions() == []


@case(
    "2.0.1", "TC_J_02_CSMS", "TC_J_03_CSMS", "TC_J_04_CSMS", "TC_J_07_CSMS", "TC_J_09_CSMS", "TC_J_10_CSMS",
    "TC_J_11_CSMS",
)  # fmt: skip
async def test_values_within_a_transaction_make_its_energy(stage201: Stage):
    def values(*samples: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"timestamp": stamp(), "sampledValue": list(samples)}]

    for number, (context, signed) in enumerate(
        (context, signed) for context in ("Sample.Clock", "Sample.Periodic") for signed in (False, True)
    ):
        visit, base = Transaction(stage201, f"metered-{number}"), 1_000 * (number + 1)
        trigger = "MeterValueClock" if context == "Sample.Clock" else "MeterValuePeriodic"
        await visit.tell(
            "Started", "Authorized", token=stage201.cast.card, state="Charging",
            meterValue=values(sampled(base, "Transaction.Begin", signed=signed)),
        )  # fmt: skip
        power = {"value": 11_000, "context": context, "measurand": "Power.Active.Import"}
        await visit.tell(
            "Updated", trigger, meterValue=values(sampled(base + 100, context, signed=signed), power)
        )
        running = await stage201.session()
        assert (running["meter_start_wh"], running["energy_wh"], running["power_w"]) == (base, 100, 11_000)
        last = [
            *values(sampled(base + 150, context, signed=signed)),
            *values(sampled(base + 200, "Transaction.End", signed=signed)),
        ]
        await visit.tell("Ended", "StopAuthorized", reason="Local", token=stage201.cast.card, meterValue=last)
        done = await stage201.settled()
        assert (done["status"], done["review"], done["energy_wh"]) == ("COMPLETED", None, 200)
        found = [
            one
            for one in await stage201.readings(
                MeterValue.session_id == parse_id("charging_session", done["id"])
            )
            if one.measurand == "Energy.Active.Import.Register"
        ]
        assert [(one.context, one.value) for one in found] == [
            ("Transaction.Begin", base), (context, base + 100), (context, base + 150),
            ("Transaction.End", base + 200),
        ]  # fmt: skip
        kept = [json.loads(one.signed_data) if one.signed_data else None for one in found]
        assert kept == [SIGNED if signed else None] * 4


@case("2.0.1", "TC_J_08_CSMS")
async def test_the_begin_of_the_meter_may_come_with_the_evse(stage201: Stage):
    visit = Transaction(stage201, "evse-later", None)
    await visit.tell("Started", "Authorized", token=stage201.cast.card)
    visit.evse = 1
    await visit.tell(
        "Updated", "CablePluggedIn", state="EVConnected", meter=3_000, context="Transaction.Begin"
    )
    await visit.tell("Updated", "ChargingStateChanged", state="Charging")
    await visit.tell("Ended", "EVDeparted", meter=3_400, reason="EVDisconnected")
    done = await stage201.settled()
    assert (done["evse_no"], done["meter_start_wh"], done["energy_wh"], done["review"]) == (
        1,
        3_000,
        400,
        None,
    )
    begun = [one for one in await stage201.readings() if one.context == "Transaction.Begin"]
    assert [(one.evse_no, one.session_id is not None) for one in begun] == [(1, True)]
