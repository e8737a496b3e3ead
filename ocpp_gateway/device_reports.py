"""What stations tell of themselves <-> the verbs of `device_model`: OCPP 2.0.1's Notify… messages, and what the answers
to our own requests say (1.6's configuration keys too). Reports: read leniently, never refused for what one item lacks.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from app.device_model import displays, monitors
from app.device_model import service as device_model
from app.device_model.paths import VariablePath
from app.device_model.reports import (
    Attribute,
    Characteristics,
    Part,
    ReportedMessage,
    ReportedMonitor,
    ReportedNotice,
    ReportedVariable,
)
from app.stations import commands
from app.stations import service as stations
from app.stations.models import StationCommand
from app.stations.reports import CONNECTOR_STATUSES, StatusReport
from ocpp_gateway import lenient
from tenants.scope import Scope

MAX_NAME, MAX_NO = 100, 64
Taker = Callable[[Scope, StationCommand, dict[str, Any]], Awaitable[None]]


# --- shapes ------------------------------------------------------------------------------------------------------


def _dicts(value: Any) -> list[dict[str, Any]]:
    """A list of objects; a single one in its place is taken for a list of one."""
    if isinstance(value, dict):
        return [value]
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _value(payload: dict[str, Any], name: str) -> str | None:
    """A value as it stands: the empty text is a value, and numbers come as text in 2.x and as numbers from some."""
    value = payload.get(name)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _flag(payload: dict[str, Any], name: str) -> bool | None:
    value = payload.get(name)
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _decimal(payload: dict[str, Any], name: str) -> Decimal | None:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number) < Decimal(10) ** 30 else None


def _path(item: dict[str, Any]) -> VariablePath | None:
    component, variable = lenient.part(item, "component"), lenient.part(item, "variable")
    name, own = lenient.text(component, "name", most=MAX_NAME), lenient.text(variable, "name", most=MAX_NAME)
    if name is None or own is None:
        return None
    evse = lenient.part(component, "evse")
    return VariablePath(
        component=name, variable=own, instance=lenient.text(component, "instance", most=MAX_NAME) or "",
        evse_no=_number(evse, "id"), connector_no=_number(evse, "connectorId"),
        variable_instance=lenient.text(variable, "instance", most=MAX_NAME) or "",
    )  # fmt: skip


def _number(payload: dict[str, Any], name: str) -> int | None:
    number = lenient.integer(payload, name)
    return number if number is not None and 0 <= number < 10**9 else None


def _part(payload: dict[str, Any]) -> Part:
    request_no = lenient.integer(payload, "requestId")
    if request_no is None:
        raise lenient.Unanswerable("OccurenceConstraintViolation", "requestId is missing")
    return Part(
        request_no=request_no, seq_no=_number(payload, "seqNo") or 0, has_more=_flag(payload, "tbc") is True
    )


# --- variables ---------------------------------------------------------------------------------------------------


def _reported(item: dict[str, Any]) -> ReportedVariable | None:
    path = _path(item)
    if path is None:
        return None
    attributes = {
        lenient.text(one, "type", most=20) or "Actual": Attribute(
            value=_value(one, "value"), mutability=lenient.text(one, "mutability", most=20) or "ReadWrite",
            is_persistent=_flag(one, "persistent"), is_constant=_flag(one, "constant"),
        )
        for one in _dicts(item.get("variableAttribute"))
    }  # fmt: skip
    told = lenient.part(item, "variableCharacteristics")
    characteristics = Characteristics(
        data_type=lenient.text(told, "dataType", most=20), unit=lenient.text(told, "unit", most=40),
        min_limit=_decimal(told, "minLimit"), max_limit=_decimal(told, "maxLimit"),
        values_list=lenient.text(told, "valuesList", most=2000), can_be_monitored=_flag(told, "supportsMonitoring"),
    )  # fmt: skip
    return ReportedVariable(
        path=path, attributes=attributes, characteristics=characteristics if told else None
    )


async def notify_report(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """B07, B08."""
    reported = [one for one in map(_reported, _dicts(payload.get("reportData"))) if one is not None]
    await device_model.take_report_part(scope, station_id, _part(payload), reported)
    return {}


# --- monitors and what they notice -------------------------------------------------------------------------------


def _monitor(path: VariablePath, item: dict[str, Any]) -> ReportedMonitor | None:
    number, value = lenient.integer(item, "id"), _decimal(item, "value")
    kind = lenient.text(item, "type", most=40)
    if number is None or kind is None:
        return None
    severity = lenient.integer(item, "severity")
    return ReportedMonitor(
        path=path, monitor_no=number, kind=kind, value=value if value is not None else Decimal(0),
        severity=severity if severity is not None and 0 <= severity <= 9 else 5,
        in_transactions_only=_flag(item, "transaction") is True,
    )  # fmt: skip


async def notify_monitoring_report(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """N02."""
    found = [
        _monitor(path, one)
        for item in _dicts(payload.get("monitor"))
        if (path := _path(item)) is not None
        for one in _dicts(item.get("variableMonitoring"))
    ]
    told = [one for one in found if one is not None]
    await monitors.take_monitor_part(scope, station_id, _part(payload), told)
    return {}


def _notice(item: dict[str, Any], received_at: datetime) -> ReportedNotice | None:
    path, number = _path(item), lenient.integer(item, "eventId")
    if path is None or number is None:
        return None
    severity = lenient.integer(item, "severity")
    value = _value(item, "actualValue")
    return ReportedNotice(
        path=path, event_no=number, at=lenient.plausible(lenient.moment(item.get("timestamp")), received_at)[0],
        trigger=lenient.text(item, "trigger", most=40) or "Alerting",
        notification=lenient.text(item, "eventNotificationType", most=40) or "HardWiredNotification",
        value=value[: device_model.MAX_VALUE] if value is not None else None,
        is_cleared=_flag(item, "cleared") is True, cause_no=lenient.integer(item, "cause"),
        monitor_no=lenient.integer(item, "variableMonitoringId"),
        tech_code=lenient.text(item, "techCode", most=100), tech_info=lenient.text(item, "techInfo", most=1000),
        ocpp_transaction_id=lenient.text(item, "transactionId", most=64),
        severity=severity if severity is not None and 0 <= severity <= 9 else None,
    )  # fmt: skip


async def notify_event(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """N07, N08, G05 (lock failure); and G01: how a connector stands may come as an event of its component."""
    found = [_notice(item, received_at) for item in _dicts(payload.get("eventData"))]
    told = [one for one in found if one is not None]
    await monitors.take_notices(scope, station_id, told, received_at)
    for item in _dicts(payload.get("eventData")):
        report = _availability(item, received_at)
        if report is not None:
            await stations.connector_reported(scope, station_id, report)
    return {}


def _availability(item: dict[str, Any], received_at: datetime) -> StatusReport | None:
    component, variable = lenient.part(item, "component"), lenient.part(item, "variable")
    if (component.get("name"), variable.get("name")) != ("Connector", "AvailabilityState"):
        return None
    evse, word = lenient.part(component, "evse"), item.get("actualValue")
    evse_no, connector_no = lenient.integer(evse, "id"), lenient.integer(evse, "connectorId")
    if not evse_no or not connector_no or not 1 <= evse_no <= MAX_NO or not 1 <= connector_no <= MAX_NO:
        return None
    if word not in CONNECTOR_STATUSES:
        return None
    sampled_at, _ = lenient.plausible(lenient.moment(item.get("timestamp")), received_at)
    return StatusReport(
        evse_no=evse_no, connector_no=connector_no, status=word, sampled_at=sampled_at, received_at=received_at,
    )  # fmt: skip


# --- the display, and customers ----------------------------------------------------------------------------------


def _message(item: dict[str, Any]) -> ReportedMessage | None:
    number, message = lenient.integer(item, "id"), lenient.part(item, "message")
    if number is None:
        return None
    return ReportedMessage(
        message_no=number, priority=lenient.text(item, "priority", most=40) or "NormalCycle",
        content=_value(message, "content") or "", format=lenient.text(message, "format", most=20) or "UTF8",
        language=lenient.text(message, "language", most=20), state=lenient.text(item, "state", most=40),
        start_at=lenient.moment(item.get("startDateTime")), end_at=lenient.moment(item.get("endDateTime")),
        ocpp_transaction_id=lenient.text(item, "transactionId", most=64),
    )  # fmt: skip


async def notify_display_messages(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """O03. It has no seqNo: its parts count in the order they come."""
    messages = [one for one in map(_message, _dicts(payload.get("messageInfo"))) if one is not None]
    part = _part(payload)
    seq_no = await device_model.next_seq(scope, station_id, part.request_no)
    part = Part(request_no=part.request_no, seq_no=seq_no, has_more=part.has_more)
    await displays.take_messages(scope, station_id, part, messages)
    return {}


async def notify_customer_information(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """N09."""
    await displays.take_customer_part(scope, station_id, _part(payload), _value(payload, "data") or "")
    return {}


HANDLERS_201 = {
    "NotifyReport": notify_report, "NotifyMonitoringReport": notify_monitoring_report, "NotifyEvent": notify_event,
    "NotifyDisplayMessages": notify_display_messages, "NotifyCustomerInformation": notify_customer_information,
}  # fmt: skip


# --- answers to our own requests ---------------------------------------------------------------------------------


async def answered(scope: Scope, command_id: UUID) -> None:
    """What a command's end tells of the station. Raises whatever an answer that is too odd to be understood leads to:
    it is for the caller to keep that from the conclusion."""
    command = await commands.get_command(scope, command_id)
    answer = command.answer or {}
    if command.action in device_model.REPORT_KINDS:
        await _report_answered(scope, command, lenient.text(answer, "status", most=40))
    if command.action in _DISPLAYS:
        await _display_ended(scope, command)
    taker = _TAKERS.get(command.action)
    if taker is not None and command.answer is not None:
        await taker(scope, command, answer)


async def _report_answered(scope: Scope, command: StationCommand, word: str | None) -> None:
    request_no = lenient.integer(command.payload, "requestId")
    if request_no is None:
        return
    report = await device_model.report_answered(scope, command.station_id, request_no, command.status, word)
    if report is not None and report.status == "empty" and report.what == device_model.EVERYTHING:
        if report.kind == "monitors":
            await monitors.none_are_left(scope, command.station_id)
        elif report.kind == "display_messages":
            await displays.all_are_gone(scope, command.station_id, scope.now)


async def _configuration(scope: Scope, command: StationCommand, answer: dict[str, Any]) -> None:
    """1.6 GetConfiguration."""
    reported = []
    for item in _dicts(answer.get("configurationKey")):
        key = lenient.text(item, "key", most=MAX_NAME)
        if key is None:
            continue
        mutability = "ReadOnly" if _flag(item, "readonly") else "ReadWrite"
        attribute = Attribute(value=_value(item, "value"), mutability=mutability)
        reported.append(
            ReportedVariable(path=VariablePath(key), attributes={"Actual": attribute}, status="Accepted")
        )
    unknown = answer.get("unknownKey")
    reported += [
        ReportedVariable(path=VariablePath(key.strip()[:MAX_NAME]), status="UnknownVariable")
        for key in (unknown if isinstance(unknown, list) else [])
        if isinstance(key, str) and key.strip()
    ]
    await device_model.take_variables(scope, command.station_id, reported)


async def _configuration_changed(scope: Scope, command: StationCommand, answer: dict[str, Any]) -> None:
    """1.6 ChangeConfiguration: the value is the one we sent."""
    key, word = lenient.text(command.payload, "key", most=MAX_NAME), lenient.text(answer, "status", most=40)
    if key is None or word is None:
        return
    changed = _changed(VariablePath(key), word, "Actual", _value(command.payload, "value"))
    await device_model.take_variables(scope, command.station_id, [changed])


def _changed(path: VariablePath, word: str, attribute: str, value: str | None) -> ReportedVariable:
    is_taken = word in ("Accepted", "RebootRequired")
    return ReportedVariable(
        path=path, status=word, needs_reboot=word == "RebootRequired",
        attributes={attribute: Attribute(value=value)} if is_taken else {},
    )  # fmt: skip


async def _variables_read(scope: Scope, command: StationCommand, answer: dict[str, Any]) -> None:
    """B06 GetVariables."""
    reported: list[ReportedVariable] = []
    for item in _dicts(answer.get("getVariableResult")):
        path, word = _path(item), lenient.text(item, "attributeStatus", most=40) or "Accepted"
        if path is None:
            continue
        kind = lenient.text(item, "attributeType", most=20) or "Actual"
        attributes = {kind: Attribute(value=_value(item, "attributeValue"))} if word == "Accepted" else {}
        reported.append(ReportedVariable(path=path, attributes=attributes, status=word))
    await device_model.take_variables(scope, command.station_id, reported)


async def _variables_set(scope: Scope, command: StationCommand, answer: dict[str, Any]) -> None:
    """B05 SetVariables: each result is matched with what we sent for that variable and attribute."""
    sent = {
        (path.key, lenient.text(item, "attributeType") or "Actual"): _value(item, "attributeValue")
        for item in _dicts(command.payload.get("setVariableData"))
        if (path := _path(item)) is not None
    }
    reported = []
    for item in _dicts(answer.get("setVariableResult")):
        path, word = _path(item), lenient.text(item, "attributeStatus", most=40)
        if path is None or word is None:
            continue
        kind = lenient.text(item, "attributeType", most=20) or "Actual"
        if (path.key, kind) in sent:
            reported.append(_changed(path, word, kind, sent[path.key, kind]))
    await device_model.take_variables(scope, command.station_id, reported)


async def _monitors_set(scope: Scope, command: StationCommand, answer: dict[str, Any]) -> None:
    """N04: an accepted monitor has a number; value and scope are what we sent, in the same order or by name."""

    def key(path: VariablePath, item: dict[str, Any]) -> tuple[str, str | None, int | None]:
        return path.key, lenient.text(item, "type"), lenient.integer(item, "severity")

    sent = {
        key(path, item): item
        for item in _dicts(command.payload.get("setMonitoringData"))
        if (path := _path(item)) is not None
    }
    accepted = []
    for item in _dicts(answer.get("setMonitoringResult")):
        path = _path(item)
        if path is None or item.get("status") != "Accepted":
            continue
        wanted = sent.get(key(path, item), {})
        one = _monitor(path, {"value": wanted.get("value"), "transaction": wanted.get("transaction"), **item})
        accepted += [one] if one is not None else []
    await monitors.take_monitors(scope, command.station_id, accepted)


async def _monitors_cleared(scope: Scope, command: StationCommand, answer: dict[str, Any]) -> None:
    """N06: what is not found is gone as well; what is rejected stays."""
    gone = [
        number
        for item in _dicts(answer.get("clearMonitoringResult"))
        if item.get("status") in ("Accepted", "NotFound")
        and (number := lenient.integer(item, "id")) is not None
    ]
    await monitors.monitors_cleared(scope, command.station_id, gone)


async def _base_set(scope: Scope, command: StationCommand, answer: dict[str, Any]) -> None:
    if answer.get("status") == "Accepted":
        await monitors.base_was_set(scope, command.station_id, str(command.payload.get("monitoringBase")))


async def _display_ended(scope: Scope, command: StationCommand) -> None:
    """O01, O05: also where the station gave no word at all."""
    word = lenient.text(command.answer or {}, "status", most=40) or command.status
    if command.action == "ClearDisplayMessage":
        number = lenient.integer(command.payload, "id")
        word = "gone" if word in ("Accepted", "Unknown") else None
    else:
        number = lenient.integer(lenient.part(command.payload, "message"), "id")
    if number is not None and word is not None:
        await displays.message_answered(scope, command.station_id, number, word)


_DISPLAYS = ("SetDisplayMessage", "ClearDisplayMessage")
_TAKERS: dict[str, Taker] = {
    "GetConfiguration": _configuration, "ChangeConfiguration": _configuration_changed,
    "GetVariables": _variables_read, "SetVariables": _variables_set, "SetVariableMonitoring": _monitors_set,
    "ClearVariableMonitoring": _monitors_cleared, "SetMonitoringBase": _base_set,
}  # fmt: skip
