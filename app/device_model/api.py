"""REST: what a station says about itself, how it is set, and how it should be."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from litestar import delete, get, patch, post, put
from sqlalchemy import select

from app.device_model import configuration, displays, monitors, queries, service
from app.device_model.models import ConfigurationTemplate, StationNotice, StationReport, StationVariable
from app.device_model.paths import VariablePath, parse_path
from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, read_id, read_time, rfc3339
from app.stations import service as stations
from app.stations.models import StationCommand
from tenants.scope import Scope


def _text_list(data: dict[str, Any], name: str) -> list[str]:
    value = data.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Invalid.field(name, "list", f"{name} is a list of texts.")
    return value


def _paths(data: dict[str, Any]) -> list[VariablePath]:
    return [parse_path(one) for one in _text_list(data, "paths")]


def _sent(commands: Sequence[StationCommand]) -> dict[str, Any]:
    """What was set going; `GET /commands/{id}` tells what became of each."""
    return {
        "commands": [
            {"id": public_id("station_command", one.id), "action": one.action, "status": one.status} for one in commands
        ]
    }  # fmt: skip


@get("/stations/{station_id:str}/variables", opt={"permission": "stations.view"},
     summary="Variables (2.x) or keys (1.6) as the station last told them", tags=["stations"])  # fmt: skip
async def list_variables(
    tenant_scope: Scope, station_id: str, limit: int = 50, after: str | None = None, q: str | None = None
) -> dict[str, Any]:
    station = await stations.get_station(tenant_scope, parse_id("charging_station", station_id))
    query = select(StationVariable).where(StationVariable.station_id == station.id)
    if q:
        query = query.where(StationVariable.path_key.contains(q.lower()[:100], autoescape=True))
    found = await listed(tenant_scope, query, StationVariable.id, "station_variable", limit, after)
    return found.answer([_variable(row, station.booted_at) for row in found.rows])


def _variable(row: StationVariable, booted_at: Any) -> dict[str, Any]:
    since = row.needs_reboot_since
    return {
        "path": row.path, "value": row.value, "is_secret": row.is_secret, "mutability": row.mutability,
        "data_type": row.data_type, "unit": row.unit, "values_list": row.values_list,
        "min_limit": None if row.min_limit is None else str(row.min_limit),
        "max_limit": None if row.max_limit is None else str(row.max_limit),
        "can_be_monitored": row.can_be_monitored, "is_persistent": row.is_persistent, "is_constant": row.is_constant,
        "other_attributes": row.other_attributes, "last_status": row.last_status,
        "needs_reboot": since is not None and (booted_at is None or booted_at < since),
        "reported_at": rfc3339(row.reported_at),
    }  # fmt: skip


@patch("/stations/{station_id:str}/variables", status_code=202, opt={"permission": "stations.command"},
       summary="Set variables or keys: `settings` is {path: value}", tags=["stations"])  # fmt: skip
async def set_variables(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    settings = data.get("settings", {})
    if not isinstance(settings, dict) or not all(isinstance(value, str) for value in settings.values()):
        raise Invalid.field("settings", "object", "settings is an object of paths and texts.")
    values = {parse_path(path): value for path, value in settings.items()}
    attribute = _attribute(data)
    return _sent(await service.set_variables(tenant_scope, key, values, attribute=attribute))


def _attribute(data: dict[str, Any]) -> str:
    attribute = data.get("attribute", "Actual")
    if attribute not in ("Actual", "Target", "MinSet", "MaxSet"):
        raise Invalid.field("attribute", "choice", "attribute is Actual, Target, MinSet or MaxSet.")
    return attribute


@post("/stations/{station_id:str}/variables/reads", status_code=202, opt={"permission": "stations.command"},
      summary="Ask a station: for `paths`, for a `base` inventory, or for a report by `criteria` and `paths`",
      tags=["stations"])  # fmt: skip
async def read_variables(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    if "criteria" in data:
        criteria = _text_list(data, "criteria")
        return _sent(await service.request_report(tenant_scope, key, criteria=criteria, paths=_paths(data)))
    if "paths" in data:
        attribute = _attribute(data)
        return _sent(await service.read_variables(tenant_scope, key, _paths(data), attribute=attribute))
    return _sent([await service.request_inventory(tenant_scope, key, str(data.get("base", "FullInventory")))])


@get("/stations/{station_id:str}/reports", opt={"permission": "stations.view"},
     summary="What a station was asked to report in parts, newest first", tags=["stations"])  # fmt: skip
async def list_reports(
    tenant_scope: Scope, station_id: str, limit: int = 50, after: str | None = None
) -> dict[str, Any]:
    station = await stations.get_station(tenant_scope, parse_id("charging_station", station_id))
    query = select(StationReport).where(StationReport.station_id == station.id)
    found = await listed(tenant_scope, query, StationReport.id, "station_report", limit, after)
    return found.answer([_report(tenant_scope, row) for row in found.rows])


def _report(scope: Scope, row: StationReport) -> dict[str, Any]:
    """Customer information only for who may see card numbers."""
    shown = {
        "id": public_id("station_report", row.id), "kind": row.kind, "what": row.what, "status": row.status,
        "request_id": row.request_no, "item_count": row.item_count, "asked_at": rfc3339(row.asked_at),
        "ended_at": rfc3339(row.ended_at),
    }  # fmt: skip
    if row.kind == "customer_information":
        shown["text"] = row.text if scope.actor.may("id_tokens.reveal") else None
    return shown


# --- monitors and what they notice -------------------------------------------------------------------------------


@get("/stations/{station_id:str}/monitors", opt={"permission": "stations.view"},
     summary="What a station watches, as it last told", tags=["stations"])  # fmt: skip
async def list_monitors(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    station = await stations.get_station(tenant_scope, parse_id("charging_station", station_id))
    rows = await queries.monitors(tenant_scope, station.id)
    shown = [
        {
            "id": row.monitor_no, "path": row.path, "kind": row.kind, "value": str(row.value), "severity": row.severity,
            "in_transactions_only": row.in_transactions_only, "reported_at": rfc3339(row.reported_at),
        }
        for row in rows
    ]  # fmt: skip
    return {"data": shown, "next_cursor": None}


@post("/stations/{station_id:str}/monitors", status_code=202, opt={"permission": "stations.command"},
      summary="Watch variables: `monitors` is a list of path, kind, value, severity", tags=["stations"])  # fmt: skip
async def set_monitors(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    wanted = data.get("monitors", [])
    if not isinstance(wanted, list) or not all(isinstance(one, dict) for one in wanted):
        raise Invalid.field("monitors", "list", "monitors is a list of objects.")
    return _sent(await monitors.set_monitors(tenant_scope, key, [_wish(one) for one in wanted]))


def _wish(one: dict[str, Any]) -> monitors.Wish:
    value = one.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 10**9:
        raise Invalid.field("value", "number", "value is a number.")
    return monitors.Wish(
        path=parse_path(str(one.get("path", ""))), kind=str(one.get("kind", "")), value=Decimal(str(value)),
        severity=one.get("severity", 5), in_transactions_only=one.get("in_transactions_only") is True,
        replaces=_numbers(one, "replaces")[0] if "replaces" in one else None,
    )  # fmt: skip


def _numbers(data: dict[str, Any], name: str) -> list[int]:
    value = data.get(name, [])
    value = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**31 for one in value):
        raise Invalid.field(name, "number", f"{name} names numbers.")
    return value


@post("/stations/{station_id:str}/monitors/clearings", status_code=202, opt={"permission": "stations.command"},
      summary="Watch no longer: `ids` of monitors", tags=["stations"])  # fmt: skip
async def clear_monitors(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    return _sent(await monitors.clear_monitors(tenant_scope, key, _numbers(data, "ids")))


@post("/stations/{station_id:str}/monitors/reads", status_code=202, opt={"permission": "stations.command"},
      summary="Ask which monitors there are, by `criteria` and `paths` or all", tags=["stations"])  # fmt: skip
async def read_monitors(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    criteria = _text_list(data, "criteria")
    return _sent(await monitors.request_monitors(tenant_scope, key, criteria=criteria, paths=_paths(data)))


@patch("/stations/{station_id:str}/monitoring", status_code=202, opt={"permission": "stations.command"},
       summary="What is watched at all (`base`), and up to which severity (`level`)", tags=["stations"])  # fmt: skip
async def set_monitoring(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    sent = []
    if "base" in data:
        sent.append(await monitors.set_monitoring_base(tenant_scope, key, str(data["base"])))
    if "level" in data:
        sent.append(await monitors.set_monitoring_level(tenant_scope, key, data["level"]))
    if not sent:
        await stations.get_station(tenant_scope, key)
        raise Invalid.field("base", "nothing_asked", "Name base, level or both.")
    return _sent(sent)


@get("/stations/{station_id:str}/notices", opt={"permission": "stations.view"},
     summary="What a station noticed, newest first", tags=["stations"])  # fmt: skip
async def list_notices(
    tenant_scope: Scope, station_id: str, limit: int = 50, after: str | None = None
) -> dict[str, Any]:
    station = await stations.get_station(tenant_scope, parse_id("charging_station", station_id))
    query = select(StationNotice).where(StationNotice.station_id == station.id)
    found = await listed(tenant_scope, query, StationNotice.id, "station_notice", limit, after)
    return found.answer([_notice(row) for row in found.rows])


def _notice(row: StationNotice) -> dict[str, Any]:
    return {
        "id": public_id("station_notice", row.id), "event_id": row.event_no, "at": rfc3339(row.at),
        "received_at": rfc3339(row.received_at), "path": row.path, "trigger": row.trigger, "value": row.value,
        "notification": row.notification, "severity": row.severity, "is_cleared": row.is_cleared,
        "cause": row.cause_no, "monitor_id": row.monitor_no, "tech_code": row.tech_code, "tech_info": row.tech_info,
        "ocpp_transaction_id": row.ocpp_transaction_id,
    }  # fmt: skip


# --- the display, and customers ----------------------------------------------------------------------------------


@get("/stations/{station_id:str}/display-messages", opt={"permission": "stations.view"},
     summary="What a station's display shows, and what it would not", tags=["stations"])  # fmt: skip
async def list_display_messages(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    station = await stations.get_station(tenant_scope, parse_id("charging_station", station_id))
    rows = await displays.list_messages(tenant_scope, station.id)
    shown = [
        {
            "number": row.message_no, "content": row.content, "priority": row.priority, "state": row.state,
            "format": row.format, "language": row.language, "start_at": rfc3339(row.start_at),
            "end_at": rfc3339(row.end_at), "ocpp_transaction_id": row.ocpp_transaction_id, "status": row.status,
        }
        for row in rows
    ]  # fmt: skip
    return {"data": shown, "next_cursor": None}


@post("/stations/{station_id:str}/display-messages", status_code=202, opt={"permission": "stations.command"},
      summary="Show a message; `replaces` names one that gives way", tags=["stations"])  # fmt: skip
async def show_display_message(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    texts = {
        name: str(data[name])
        for name in ("priority", "format", "language", "state", "ocpp_transaction_id")
        if data.get(name)
    }
    text = displays.Text(
        content=str(data.get("content") or ""), start_at=read_time(data, "start_at"), end_at=read_time(data, "end_at"),
        **texts,
    )  # fmt: skip
    replaces = _numbers(data, "replaces")[0] if "replaces" in data else None
    return _sent([await displays.show_message(tenant_scope, key, text, replaces=replaces)])


@post("/stations/{station_id:str}/display-messages/clearings", status_code=202, opt={"permission": "stations.command"},
      summary="Take a message off the display, by `number`", tags=["stations"])  # fmt: skip
async def clear_display_message(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    (number, *_more) = _numbers(data, "number") or [0]
    return _sent([await displays.clear_message(tenant_scope, key, number)])


@post("/stations/{station_id:str}/display-messages/reads", status_code=202, opt={"permission": "stations.command"},
      summary="Ask what the display shows, by `numbers`, `priority`, `state` or all", tags=["stations"])  # fmt: skip
async def read_display_messages(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    sent = await displays.request_messages(
        tenant_scope,
        key,
        numbers=_numbers(data, "numbers"),
        priority=data.get("priority"),
        state=data.get("state"),
    )
    return _sent([sent])


@post("/stations/{station_id:str}/customer-information", status_code=202, opt={"permission": "id_tokens.reveal"},
      summary="Ask what a station stores of a customer, let it forget, or both", tags=["stations"])  # fmt: skip
async def ask_customer_information(
    tenant_scope: Scope, station_id: str, data: dict[str, Any]
) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    card = data.get("id_token")
    if card is not None and not (isinstance(card, dict) and isinstance(card.get("value"), str)):
        raise Invalid.field("id_token", "object", "id_token holds value and type.")
    identifier = data.get("customer_identifier")
    sent = await displays.request_customer(
        tenant_scope, key, report=data.get("report") is True, clear=data.get("clear") is True,
        id_token=(card["value"], str(card.get("type", "ISO14443"))) if card else None,
        customer_identifier=str(identifier) if identifier else None,
    )  # fmt: skip
    return _sent([sent])


# --- configuration templates -------------------------------------------------------------------------------------


@post("/configuration-templates", status_code=201, opt={"permission": "stations.manage"},
      summary="How stations of a version and model should be set: `settings` is {path: value}",
      tags=["stations"])  # fmt: skip
async def create_template(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    return _template(await configuration.create_template(tenant_scope, **_template_in(data)))


def _template_in(data: dict[str, Any]) -> dict[str, Any]:
    settings = data.get("settings", {})
    if not isinstance(settings, dict) or not all(isinstance(value, str) for value in settings.values()):
        raise Invalid.field("settings", "object", "settings is an object of paths and texts.")
    names = ("name", "ocpp_version", "vendor", "model")
    return {name: str(data.get(name) or "") for name in names} | {"settings": settings}


def _template(row: ConfigurationTemplate) -> dict[str, Any]:
    return {
        "id": public_id("configuration_template", row.id), "name": row.name, "ocpp_version": row.ocpp_version,
        "vendor": row.vendor, "model": row.model, "settings": row.settings, "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }  # fmt: skip


@get("/configuration-templates", opt={"permission": "stations.view"}, summary="Configuration templates, newest first",
     tags=["stations"])  # fmt: skip
async def list_templates(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    query = select(ConfigurationTemplate)
    found = await listed(
        tenant_scope, query, ConfigurationTemplate.id, "configuration_template", limit, after
    )
    return found.answer([_template(row) for row in found.rows])


@get("/configuration-templates/{template_id:str}", opt={"permission": "stations.view"},
     summary="One template", tags=["stations"])  # fmt: skip
async def get_template(tenant_scope: Scope, template_id: str) -> dict[str, Any]:
    return _template(
        await configuration.get_template(tenant_scope, parse_id("configuration_template", template_id))
    )


@put("/configuration-templates/{template_id:str}", opt={"permission": "stations.manage"},
     summary="A template anew; stations change when it is applied", tags=["stations"])  # fmt: skip
async def update_template(tenant_scope: Scope, template_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("configuration_template", template_id)
    await configuration.get_template(tenant_scope, key)
    return _template(await configuration.update_template(tenant_scope, key, **_template_in(data)))


@delete("/configuration-templates/{template_id:str}", status_code=204, opt={"permission": "stations.manage"},
        summary="Delete a template; stations stay as they are", tags=["stations"])  # fmt: skip
async def delete_template(tenant_scope: Scope, template_id: str) -> None:
    await configuration.delete_template(tenant_scope, parse_id("configuration_template", template_id))


@get("/configuration-templates/{template_id:str}/drift", opt={"permission": "stations.view"},
     summary="Where stations are not as the template wants, by what they last reported", tags=["stations"])  # fmt: skip
async def get_drift(tenant_scope: Scope, template_id: str) -> dict[str, Any]:
    template = await configuration.get_template(tenant_scope, parse_id("configuration_template", template_id))
    shown = [
        {
            "station_id": public_id("charging_station", one.station.id), "path": one.path, "wanted": one.wanted,
            "found": one.found, "words": f"{one.path} {one.words}",
        }
        for one in await configuration.drift(tenant_scope, template)
    ]  # fmt: skip
    return {"data": shown, "next_cursor": None}


@post("/configuration-templates/{template_id:str}/applications", status_code=202,
      opt={"permission": "stations.command"}, summary="Bring stations in line: one by `station_id`, or all it is for",
      tags=["stations"])  # fmt: skip
async def apply_template(tenant_scope: Scope, template_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("configuration_template", template_id)
    await configuration.get_template(tenant_scope, key)
    done = await configuration.apply_template(
        tenant_scope, key, read_id("charging_station", data, "station_id")
    )
    refused = [
        {"station_id": public_id("charging_station", station.id), "reason": reason}
        for station, reason in done.refused
    ]
    return _sent(done.commands) | {"refused": refused}


routes = [
    list_variables, set_variables, read_variables, list_reports, list_monitors, set_monitors, clear_monitors,
    read_monitors, set_monitoring, list_notices, list_display_messages, show_display_message, clear_display_message,
    read_display_messages, ask_customer_information, create_template, list_templates, get_template, update_template,
    delete_template, get_drift, apply_template,
]  # fmt: skip
