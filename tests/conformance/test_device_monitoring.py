"""Monitors and what they notice (2.0.1 N), customer information, lock failures (G), vendors' own messages (P)."""

from decimal import Decimal
from typing import Any

import pytest

from app.device_model import displays, monitors
from app.device_model import service as device_model
from app.device_model.models import StationNotice, StationReport, VariableMonitor
from app.device_model.monitors import Wish
from app.device_model.paths import parse_path
from app.kernel.events import Event
from app.stations.models import OCPPMessage
from tests.conformance.conftest import Station16, Station201, Yard, case, command, rows
from tests.conformance.test_device_variables import ask, booted
from tests.foreign_stations import ForeignStation, stamp

pytestmark = pytest.mark.anyio
AVAILABILITY = parse_path("EVSE@1/AvailabilityState")
WHOLE = parse_path("ChargingStation/AvailabilityState")


def accepts(box: ForeignStation, first: int = 1) -> None:
    """As a station that takes every monitor, and numbers those that are new."""
    numbers = iter(range(first, 1000))

    def told(payload: dict[str, Any]) -> dict[str, Any]:
        kept = ("type", "severity", "component", "variable")
        return {
            "setMonitoringResult": [
                {name: item[name] for name in kept} | {"id": item.get("id") or next(numbers), "status": "Accepted"}
                for item in payload["setMonitoringData"]
            ]
        }  # fmt: skip

    box.answers["SetVariableMonitoring"] = told


def monitoring(path: Any, number: int, **more: Any) -> dict[str, Any]:
    one = {"id": number, "transaction": False, "value": 1, "type": "Delta", "severity": 4} | more
    return path.wire() | {"variableMonitoring": [one]}


@case("2.0.1", "TC_N_01_CSMS", "TC_N_02_CSMS", "TC_N_03_CSMS", "TC_N_47_CSMS", "TC_N_60_CSMS")
async def test_monitors_are_reported_all_or_by_criteria_and_variables_and_there_may_be_none(yard: Yard):
    box = await booted(yard, Station201)
    box.answers["GetMonitoringReport"] = {"status": "Accepted"}
    accepts(box, first=90)
    await ask(yard, monitors.set_monitors, [Wish(path=WHOLE, kind="Delta", value=Decimal(1))])

    async def told(number: int, seq: int, tbc: bool, *found: dict[str, Any]) -> None:
        assert await box.say("NotifyMonitoringReport", {
            "requestId": number, "seqNo": seq, "tbc": tbc, "generatedAt": stamp(), "monitor": list(found),
        }) == {}  # fmt: skip

    await ask(yard, monitors.request_monitors)
    request = box.asked[-1][1]
    assert set(request) == {"requestId"}
    await told(request["requestId"], 0, True, monitoring(AVAILABILITY, 1, severity=3))
    await told(
        request["requestId"],
        1,
        False,
        monitoring(parse_path("EVSE@2/Power"), 2, type="UpperThreshold", value=23000.5),
    )
    found = {row.monitor_no: row for row in await rows(yard, yard.nordlicht, VariableMonitor)}
    assert set(found) == {1, 2}  # the one that was not named is gone
    assert (found[1].path, found[1].severity, found[2].kind, found[2].value) == (
        "EVSE@1/AvailabilityState", 3, "UpperThreshold", Decimal("23000.5"),
    )  # fmt: skip
    await ask(yard, monitors.request_monitors, criteria=["DeltaMonitoring"], paths=[AVAILABILITY, WHOLE])
    request = box.asked[-1][1]
    assert request["monitoringCriteria"] == ["DeltaMonitoring"]
    assert request["componentVariable"] == [AVAILABILITY.wire(), WHOLE.wire()]
    await told(request["requestId"], 0, False, monitoring(AVAILABILITY, 1, severity=3))
    assert len(await rows(yard, yard.nordlicht, VariableMonitor)) == 2

    box.answers["GetMonitoringReport"] = {"status": "EmptyResultSet"}
    for asked in (
        {"criteria": ["ThresholdMonitoring"]},
        {"paths": [WHOLE]},
        {"criteria": ["PeriodicMonitoring"], "paths": [WHOLE]},
    ):
        (ended,) = await ask(yard, monitors.request_monitors, **asked)
        assert ended.status == "accepted"
    reports = await rows(yard, yard.nordlicht, StationReport)
    assert sorted(one.status for one in reports) == ["complete"] * 2 + ["empty"] * 3
    assert len(await rows(yard, yard.nordlicht, VariableMonitor)) == 2
    await ask(yard, monitors.request_monitors)
    assert not await rows(yard, yard.nordlicht, VariableMonitor)
    await box.close()


@case("2.0.1", "TC_N_08_CSMS", "TC_N_09_CSMS", "TC_N_18_CSMS", "TC_N_44_CSMS")
async def test_monitors_are_set_and_cleared_never_more_at_once_than_the_station_takes(yard: Yard):
    box = await booted(yard, Station201)
    accepts(box)
    await ask(
        yard, monitors.set_monitors, [Wish(path=AVAILABILITY, kind="Delta", value=Decimal(1), severity=8)]
    )
    sent = box.asked[-1][1]["setMonitoringData"]
    assert sent == [AVAILABILITY.wire() | {"type": "Delta", "value": 1.0, "severity": 8}]
    wishes = [Wish(path=path, kind="Delta", value=Decimal(1), severity=8) for path in (AVAILABILITY, WHOLE)]
    await ask(yard, monitors.set_monitors, wishes)
    assert len(box.asked[-1][1]["setMonitoringData"]) == 2
    assert [row.monitor_no for row in await rows(yard, yard.nordlicht, VariableMonitor)] == [1, 2, 3]

    most = parse_path("MonitoringCtrlr/ItemsPerMessage[ClearVariableMonitoring]")
    told = {**most.wire(), "attributeStatus": "Accepted", "attributeValue": "2"}
    box.answers["GetVariables"] = {"getVariableResult": [told]}
    await ask(yard, device_model.read_variables, [most])
    words = {1: "Accepted", 2: "NotFound", 3: "Rejected"}
    box.answers["ClearVariableMonitoring"] = lambda payload: {
        "clearMonitoringResult": [{"id": number, "status": words[number]} for number in payload["id"]]
    }
    ended = await ask(yard, monitors.clear_monitors, [1, 2, 3])
    assert [payload["id"] for action, payload in box.asked if action == "ClearVariableMonitoring"] == [
        [1, 2],
        [3],
    ]
    assert [one.status for one in ended] == ["rejected", "rejected"]
    assert [row.monitor_no for row in await rows(yard, yard.nordlicht, VariableMonitor)] == [3]
    await box.close()


@case("2.0.1", "TC_N_05_CSMS", "TC_N_16_CSMS", "TC_N_17_CSMS")
async def test_base_and_level_of_monitoring_are_set_and_a_refusal_is_told(yard: Yard):
    box = await booted(yard, Station201)
    accepts(box)
    await ask(yard, monitors.set_monitors, [Wish(path=WHOLE, kind="Delta", value=Decimal(1))])
    box.answers["SetMonitoringBase"] = {"status": "Accepted"}
    for base in monitors.BASES:
        (ended,) = await ask(yard, monitors.set_monitoring_base, base)
        assert (ended.status, box.asked[-1][1]) == ("accepted", {"monitoringBase": base})
        assert bool(await rows(yard, yard.nordlicht, VariableMonitor)) is (base == "All")
    for word, status in (("Accepted", "accepted"), ("Rejected", "rejected")):
        box.answers["SetMonitoringLevel"] = {"status": word}
        (ended,) = await ask(yard, monitors.set_monitoring_level, 4)
        assert (ended.status, box.asked[-1][1]) == (status, {"severity": 4})
    await box.close()


@case(
    "2.0.1", "TC_N_21_CSMS", "TC_N_24_CSMS", "TC_N_48_CSMS", "TC_N_49_CSMS", "TC_N_50_CSMS", "TC_G_20_CSMS"
)  # fmt: skip
async def test_what_a_station_notices_is_kept_once_with_its_severity_and_grave_things_are_news(yard: Yard):
    box = await booted(yard, Station201)
    accepts(box)
    await ask(
        yard, monitors.set_monitors, [Wish(path=AVAILABILITY, kind="Periodic", value=Decimal(60), severity=9)]
    )

    async def tells(event: int, path: str, value: str, **more: Any) -> None:
        notice = {
            "eventId": event, "timestamp": stamp(), "trigger": "Alerting", "actualValue": value,
            "eventNotificationType": "HardWiredMonitor", **parse_path(path).wire(), **more,
        }  # fmt: skip
        for _ in range(2):  # a station that did not hear our answer sends it again
            said = {"generatedAt": stamp(), "seqNo": 0, "tbc": False, "eventData": [notice]}
            assert await box.say("NotifyEvent", said) == {}

    await tells(1, "ChargingStation/Temperature", "91", techCode="T7", techInfo="hot", cause=0)
    await tells(
        2, "ConnectorPlugRetentionLock@1.1/Problem", "true", eventNotificationType="HardWiredNotification"
    )
    await tells(3, str(AVAILABILITY), "Available", trigger="Periodic", variableMonitoringId=1,
                eventNotificationType="CustomMonitor")  # fmt: skip
    await tells(4, "SecurityCtrlr/BasicAuthPassword", "", eventNotificationType="CustomMonitor")
    await tells(5, "ConnectorPlugRetentionLock@1.1/Problem", "true", cleared=True, cause=2)
    found = {row.event_no: row for row in await rows(yard, yard.nordlicht, StationNotice)}
    assert set(found) == {1, 2, 3, 4, 5}
    assert (found[1].severity, found[1].tech_code, found[1].tech_info, found[1].value) == (
        None,
        "T7",
        "hot",
        "91",
    )
    assert (found[2].severity, found[2].path) == (4, "ConnectorPlugRetentionLock@1.1/Problem")
    assert (found[3].severity, found[3].trigger, found[4].value) == (9, "Periodic", None)
    assert (found[5].is_cleared, found[5].cause_no) == (True, 2)
    (news,) = await rows(yard, yard.nordlicht, Event, Event.kind == "StationAlerted")
    assert news.data["path"] == "ConnectorPlugRetentionLock@1.1/Problem"
    await box.close()


@case("2.0.1", "TC_N_27_CSMS", "TC_N_28_CSMS", "TC_N_29_CSMS", "TC_N_30_CSMS", "TC_N_31_CSMS", "TC_N_32_CSMS",
      "TC_N_62_CSMS", "TC_N_46_CSMS")  # fmt: skip
async def test_what_a_station_stores_of_a_customer_is_asked_for_and_cleared(yard: Yard):
    box = await booted(yard, Station201)
    card = (yard.nordlicht.card, "ISO14443")

    async def asks(status: str, *texts: str, **more: Any) -> StationReport:
        box.answers["CustomerInformation"] = {"status": status}
        await ask(yard, displays.request_customer, **more)
        payload = box.asked[-1][1]
        assert (payload["report"], payload["clear"]) == (more["report"], more["clear"])
        for seq, text in enumerate(texts):
            said = {"requestId": payload["requestId"], "generatedAt": stamp(), "seqNo": seq, "data": text}
            assert await box.say("NotifyCustomerInformation", said | {"tbc": seq < len(texts) - 1}) == {}
        where = StationReport.request_no == payload["requestId"]
        return (await rows(yard, yard.nordlicht, StationReport, where))[0]

    told = await asks("Accepted", "Jens ", "Jensen", report=True, clear=False, id_token=card)
    assert (told.status, told.text) == ("complete", "Jens Jensen")
    assert box.asked[-1][1]["idToken"] == {"idToken": card[0], "type": card[1]}
    told = await asks("Accepted", "", report=True, clear=False, id_token=card)
    assert (told.status, told.text, told.item_count) == ("complete", "", 0)
    assert (await asks("Rejected", report=True, clear=False, id_token=card)).status == "rejected"
    for texts in (("Jens",), ("",)):
        assert (await asks("Accepted", *texts, report=True, clear=True, id_token=card)).text == texts[0]
    assert (await asks("Accepted", "", report=False, clear=True, id_token=card)).status == "complete"
    told = await asks("Accepted", "Jens", report=True, clear=True, customer_identifier="C-77")
    assert box.asked[-1][1]["customerIdentifier"] == "C-77" and told.text == "Jens"

    box.answers["SendLocalList"] = {"status": "Accepted"}
    entry = {"idToken": {"idToken": card[0], "type": card[1]}}
    payload = {"versionNumber": 2, "updateType": "Differential", "localAuthorizationList": [entry]}
    assert (await command(yard, yard.nordlicht, "SendLocalList", payload)).status == "accepted"
    await box.close()


@case("1.6", "TC_064_CSMS")
@case("2.0.1", "TC_P_02_CSMS", "TC_P_03_CSMS")
@pytest.mark.parametrize("kind", [Station16, Station201])
async def test_a_vendors_own_message_is_answered_and_custom_data_does_no_harm(
    yard: Yard, kind: type[ForeignStation]
):
    box = await booted(yard, kind)
    said = {"vendorId": "com.example", "messageId": "Hello", "data": "{}"}
    assert await box.say("DataTransfer", said) == {"status": "UnknownVendorId"}
    if kind is Station201:
        extra = {"customData": {"vendorId": "com.example", "mood": {"is": "fine"}}}
        notice = {
            "eventId": 7, "timestamp": stamp(), "trigger": "Alerting", "actualValue": "1", **extra,
            "eventNotificationType": "HardWiredMonitor", **parse_path("ChargingStation/Temperature").wire(),
        }  # fmt: skip
        told = {"generatedAt": stamp(), "seqNo": 0, "eventData": [notice], **extra}
        assert await box.say("NotifyEvent", told) == {}
        assert [row.event_no for row in await rows(yard, yard.nordlicht, StationNotice)] == [7]
        assert any('"mood"' in row.raw for row in await rows(yard, yard.nordlicht, OCPPMessage))
    await box.close()
