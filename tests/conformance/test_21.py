"""OCPP 2.1 at the level of 2.0.1's messages. Stations: the `ocpp` package's client, held to 2.1's own schemas."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.billing import terminals
from app.billing.models import Payment
from app.kernel.ids import parse_id
from app.stations import ocpp_schemas, schema_forms
from app.stations import service as stations
from app.stations.models import OCPPMessage, StationAlert
from ocpp_gateway import codec, hot, v16, v21
from ocpp_gateway.handshake import VERSIONS
from tests.cast import STAFF
from tests.conformance.conftest import rows, until
from tests.conformance.stage import Stage
from tests.foreign_stations import stamp
from tests.readings import MeterValue
from tests.stations.test_command_forms import BERLIN, filled

pytestmark = pytest.mark.anyio
VERSION = "ocpp2.1"


async def raw(stage: Stage, frame: Any) -> Any:
    """A frame past the package, and what came back, None where nothing did before the next Heartbeat's answer."""
    seen = len(stage.box.recorder.frames_in)
    await stage.box.socket.send(json.dumps(frame))
    await stage.box.say("Heartbeat", {})
    found = [json.loads(one) for one in stage.box.recorder.frames_in[seen:]]
    return next((one for one in found if one[1] == frame[1]), None)


async def test_a_station_of_21_boots_authorises_charges_and_is_billed(stage21: Stage):
    """Started, Updated by the hot path with what 2.1 adds to it, Ended; the answers fit 2.1's schemas."""
    stage, card = stage21, stage21.cast.card
    begun = datetime.now(UTC) - timedelta(minutes=30)
    station = await stage.get(stage.station_path)
    assert (station["ocpp_version"], station["model"]) == (VERSION, "Kompakt 150")
    assert await stage.box.authorize(card) == "Accepted"
    assert await stage.box.authorize("x" * 200, "Central") == "Invalid"
    answer = await stage.box.event(
        "Started", "t1", 0, token=card, meter_wh=1_000, at=begun, trigger="CablePluggedIn"
    )
    assert answer.id_token_info["status"] == "Accepted"
    updated = {
        "eventType": "Updated", "timestamp": stamp(begun + timedelta(minutes=10)), "seqNo": 1,
        "triggerReason": "MeterValuePeriodic", "evse": {"id": 1, "connectorId": 1},
        "transactionInfo": {
            "transactionId": "t1", "chargingState": "Charging", "operationMode": "ChargingOnly",
            "transactionLimit": {"maxEnergy": 30_000},
        },
        "preconditioningStatus": "Ready",
        "meterValue": [{"timestamp": stamp(begun + timedelta(minutes=10)), "sampledValue": [
            {"value": 4_000, "measurand": "Energy.Active.Import.Register"},
            {"value": 18_000, "measurand": "Power.Active.Import"},
            {"value": 22_000, "measurand": "Power.Import.Offered", "location": "Upstream"},
        ]}],
    }  # fmt: skip
    told = hot.read(
        VERSION, stage.cast.tenant_id, "s", json.dumps([2, "m", "TransactionEvent", updated]), 10**15 * 2
    )
    assert told is not None
    assert await stage.box.say("TransactionEvent", updated) == {}
    session = await stage.session()
    assert (session["status"], session["energy_wh"]) == ("ACTIVE", 3_000)
    await stage.box.event("Ended", "t1", 2, meter_wh=6_000, at=begun + timedelta(minutes=20), reason="Local")
    settled = await stage.settled()
    assert (settled["status"], settled["energy_wh"], len(settled["cdrs"])) == ("COMPLETED", 5_000, 1)
    values = await rows(stage.yard, stage.cast, MeterValue)
    assert {one.location for one in values} == {"Outlet", "Upstream"}
    assert {one.ocpp_version for one in await rows(stage.yard, stage.cast, OCPPMessage)} == {VERSION}
    assert ">2.1<" in (await stage.portal(stage.station_path)).replace(" ", "").replace("\n", "")


async def test_a_station_with_a_card_terminal_is_settled_by_what_it_notifies(stage21: Stage):
    """2.1 C: the payment's reference is the DirectPayment token, and NotifySettlement says what was taken."""
    stage, begun = stage21, datetime.now(UTC) - timedelta(minutes=30)
    async with stage.yard.database.scope(stage.cast.tenant_id, STAFF) as scope:
        station = await stations.get_station(
            scope, parse_id("charging_station", stage.station_path.split("/")[-1])
        )
        fields = dict.fromkeys(terminals.FIELDS, "T1")
        assert station.location_id is not None
        await terminals.register(scope, fields, location_id=station.location_id, station_id=station.id)
    settled = {"transactionId": "t1", "pspRef": "psp-1", "status": "Settled", "settlementAmount": 2.5,
               "settlementTime": stamp(begun + timedelta(minutes=21))}  # fmt: skip
    answer = await stage.box.event(
        "Started", "t1", 0, token="psp-1", token_type="DirectPayment", meter_wh=1_000, at=begun
    )
    assert answer.id_token_info["status"] == "Accepted"
    await stage.box.event("Ended", "t1", 1, meter_wh=6_000, at=begun + timedelta(minutes=20), reason="Local")
    await stage.settled()
    for _twice in range(2):
        assert await stage.box.say("NotifySettlement", settled) == {}
    (payment,) = await rows(stage.yard, stage.cast, Payment, Payment.provider == "terminal")
    assert (payment.provider_ref, payment.captured_minor) == ("psp-1", 250)
    failed = settled | {"pspRef": "psp-2", "status": "Failed"}
    assert await stage.box.say("NotifySettlement", failed) == {}


def smallest(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """The least that fits."""
    while "$ref" in schema:
        schema = root["definitions"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        return "Accepted" if "Accepted" in schema["enum"] else schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: smallest(schema["properties"][name], root) for name in schema.get("required", [])}
        case "array":
            return [smallest(schema["items"], root)]
        case "string":
            return stamp() if schema.get("format") == "date-time" else "x"
        case "boolean":
            return True
        case _:
            return 1


async def test_every_command_of_201_is_taken_by_a_station_of_21(stage21: Stage):
    """Asked by REST; request and answer are held to 2.1's schemas by the package on the other side."""
    stage, sent = stage21, {}
    for action in sorted(ocpp_schemas.actions(VERSION)):
        form = filled(schema_forms.form_of(VERSION, action), everything=False)
        payload = schema_forms.payload_of(VERSION, action, form, BERLIN)
        answer = ocpp_schemas.schema(VERSION, action, "answer")
        stage.box.answers[action] = smallest(answer, answer)
        if action == "UnpublishFirmware":
            stage.box.answers[action] = {"status": "Unpublished"}
        made = await stage.post(f"{stage.station_path}/commands", {"action": action, "payload": payload})
        sent[action] = made["id"]
    assert set(sent) == ocpp_schemas.actions("ocpp2.0.1") and len(sent) > 35
    ended = {action: await stage.ended(command) for action, command in sent.items()}
    assert {action: one["status"] for action, one in ended.items() if one["status"] != "accepted"} == {}
    assert {action for action, _ in stage.box.asked} == set(sent)


async def test_what_only_21_has_is_not_implemented_and_never_left_unanswered(stage21: Stage):
    """And it cannot be asked for: with the reason."""
    additions = [
        "NotifyDERAlarm", "BatterySwap", "VatNumberValidation", "OpenPeriodicEventStream",
        "PullDynamicScheduleUpdate", "GetCertificateChainStatus", "NotifyPriorityCharging",
    ]  # fmt: skip
    for action in [*additions, "NoSuchThing"]:
        kind, _, code, *_ = await raw(stage21, [2, f"id-{action}", action, {}])
        assert (kind, code) == (4, "NotImplemented"), action
    assert (await raw(stage21, [2, "own", "Reset", {}]))[2] == "NotSupported"
    refused = await stage21.rest.send(
        "POST", f"/api/v1{stage21.station_path}/commands",
        json={"action": "SetDefaultTariff", "payload": {}},
    )  # fmt: skip
    assert refused.status_code == 422
    assert "came with OCPP 2.1" in refused.text


async def test_frames_that_only_21_has_are_kept_and_answered_by_nobody(stage21: Stage):
    """SEND wants no answer; a CALLRESULTERROR says that an answer of ours could not be used, and staff hear of it."""
    stage = stage21
    stream = {"id": 1, "pending": 0, "basetime": stamp(), "data": []}
    assert await raw(stage, [6, "s1", "NotifyPeriodicEventStream", stream]) is None
    assert await raw(stage, [5, "r1", "FormatViolation", "interval is a text", {}]) is None

    async def kept() -> list[OCPPMessage]:
        found = await rows(stage.yard, stage.cast, OCPPMessage, OCPPMessage.kind == "other")
        return found if len(found) == 2 else []

    frames = {one.message_id: one for one in await until(kept)}
    assert (frames["s1"].action, frames["s1"].error) == ("NotifyPeriodicEventStream", None)
    assert (frames["r1"].action, frames["r1"].error) == (None, "FormatViolation")
    alert = StationAlert.kind == "answer_refused"
    (told,) = await until(lambda: rows(stage.yard, stage.cast, StationAlert, alert))
    assert told.detail == "FormatViolation"
    assert await stage.box.authorize(stage.cast.card) == "Accepted"


def test_older_versions_know_no_such_frames():
    for frame in ('[6,"s1","NotifyPeriodicEventStream",{}]', '[5,"r1","InternalError","",{}]'):
        assert isinstance(codec.decode(frame, VERSION), codec.Unanswered)
        for version in ("ocpp1.6", "ocpp2.0.1"):
            assert isinstance(codec.decode(frame, version), codec.Broken)
    assert isinstance(codec.decode("[6]", VERSION), codec.Unanswered)


async def test_how_a_connector_stands_may_come_as_an_event_of_its_component(stage21: Stage):
    """2.1 G01: StatusNotification gives way to NotifyEvent."""

    async def say(word: str, number: int) -> None:
        await stage21.box.say("NotifyEvent", {"generatedAt": stamp(), "seqNo": 0, "tbc": False, "eventData": [{
            "eventId": number, "timestamp": stamp(), "trigger": "Delta", "actualValue": word,
            "eventNotificationType": "HardWiredNotification", "variable": {"name": "AvailabilityState"},
            "component": {"name": "Connector", "evse": {"id": 2, "connectorId": 1}},
        }]})  # fmt: skip

    assert (await stage21.evse(2))[1] == "Available"
    await say("Faulted", 1)
    assert (await stage21.evse(2))[1] == "Faulted"
    await asyncio.sleep(0.01)
    await say("Available", 2)
    assert (await stage21.evse(2))[1] == "Available"
    await say("Nonsense", 3)
    assert (await stage21.evse(2))[1] == "Available"


def test_the_best_version_comes_first_and_each_is_whole():
    assert list(VERSIONS) == [VERSION, "ocpp2.0.1", "ocpp1.6"]
    names = {"SUBPROTOCOL", "HANDLERS", "authorize_answer", "boot_trigger", "outcome", "token_asked"}
    assert names <= set(dir(v21)) and names <= set(dir(v16))
