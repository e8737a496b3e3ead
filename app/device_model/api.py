"""REST: what a station says about itself, and how it is set."""

from collections.abc import Sequence
from typing import Any

from litestar import get, patch, post
from sqlalchemy import select

from app.device_model import service
from app.device_model.models import StationReport, StationVariable
from app.device_model.paths import VariablePath, parse_path
from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, rfc3339
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


routes = [list_variables, set_variables, read_variables, list_reports]
