"""What stations tell of themselves <-> the verbs of `device_model`: OCPP 2.0.1's Notify… messages, and what the answers
to our own requests say (1.6's configuration keys too). Reports: read leniently, never refused for what one item lacks.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from app.device_model import service as device_model
from app.device_model.paths import VariablePath
from app.device_model.reports import Attribute, Characteristics, Part, ReportedVariable
from app.stations import commands
from app.stations.models import StationCommand
from ocpp_gateway import lenient
from tenants.scope import Scope

MAX_NAME = 100
Taker = Callable[[Scope, StationCommand, dict[str, Any]], Awaitable[None]]


# --- shapes ------------------------------------------------------------------------------------------------------


def _dicts(value: Any) -> list[dict[str, Any]]:
    """A list of objects; a single one in its place is taken for a list of one."""
    if isinstance(value, dict):
        return [value]
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _dict(payload: dict[str, Any], name: str) -> dict[str, Any]:
    value = payload.get(name)
    return value if isinstance(value, dict) else {}


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
    component, variable = _dict(item, "component"), _dict(item, "variable")
    name, own = lenient.text(component, "name", most=MAX_NAME), lenient.text(variable, "name", most=MAX_NAME)
    if name is None or own is None:
        return None
    evse = _dict(component, "evse")
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
    told = _dict(item, "variableCharacteristics")
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


HANDLERS_201 = {"NotifyReport": notify_report}


# --- answers to our own requests ---------------------------------------------------------------------------------


async def answered(scope: Scope, command_id: UUID) -> None:
    """What a command's end tells of the station, in the transaction that concludes it."""
    command = await commands.get_command(scope, command_id)
    answer = command.answer or {}
    if command.action in device_model.REPORT_KINDS:
        request_no = lenient.integer(command.payload, "requestId")
        if request_no is not None:
            word = lenient.text(answer, "status", most=40)
            await device_model.report_answered(scope, command.station_id, request_no, command.status, word)
    taker = _TAKERS.get(command.action)
    if taker is not None and command.answer is not None:
        await taker(scope, command, answer)


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


_TAKERS: dict[str, Taker] = {
    "GetConfiguration": _configuration, "ChangeConfiguration": _configuration_changed,
    "GetVariables": _variables_read, "SetVariables": _variables_set,
}  # fmt: skip
