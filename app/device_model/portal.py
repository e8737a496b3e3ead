"""Portal pages of the device model, a station at a time: variables, events and monitors, the display."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.response import Stream

from app.device_model import queries, service
from app.device_model.models import StationVariable
from app.device_model.paths import parse_path
from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import form_again, fragment, live, page, read_form, redirect
from app.stations import service as stations
from app.stations.models import ChargingStation
from app.stations.status import link_state
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """The station as the head of its pages shows it."""

    id: str
    station: ChargingStation
    link: str

    @property
    def version(self) -> str:
        return (self.station.connection.ocpp_version if self.station.connection else "") or ""

    @property
    def is_16(self) -> bool:
        return self.version == service.OCPP16


async def _row(scope: Scope, station_id: str | UUID) -> Row:
    key = parse_id("charging_station", station_id) if isinstance(station_id, str) else station_id
    station = await stations.get_station(scope, key)
    return Row(public_id("charging_station", station.id), station, link_state(station))


def _name(row: Row) -> str:
    return row.station.name or row.station.ocpp_identity


def _waits(row: Row) -> str:
    return "" if row.link == "online" else " The station is offline: it waits up to an hour."


# --- variables ---------------------------------------------------------------------------------------------------


_WORDS = {
    "UnknownVariable": "The station does not know it.", "UnknownComponent": "The station does not know this component.",
    "Rejected": "The station refused the last request.", "NotSupported": "The station does not support this key.",
    "NotSupportedAttributeType": "The station has no such attribute.",
}  # fmt: skip
_ACCESS = {"ReadOnly": "read-only", "WriteOnly": "write-only"}
_REPORTS = {
    "open": ("info", "The station is reporting; this page follows."),
    "empty": ("info", "The station had nothing to report."),
    "rejected": ("warning", "The station refused to report."),
    "not_supported": ("warning", "The station does not support this report."),
    "unknown": ("warning", "The station was asked and has not reported."),
}


def in_words(row: StationVariable, booted_at: Any) -> str:
    """What is special about a variable's state, in a sentence; empty where nothing is."""
    if is_waiting(row, booted_at):
        return "In force after the next restart."
    return _WORDS.get(row.last_status or "", "")


def is_waiting(row: StationVariable, booted_at: Any) -> bool:
    """Whether a change of ours comes into force with the next boot only."""
    since = row.needs_reboot_since
    return since is not None and (booted_at is None or booted_at < since)


def _wanted(request: AnyRequest) -> queries.VariableFilter:
    params = request.query_params
    return queries.VariableFilter(params.get("q", "").strip()[:100], params.get("component"))


async def _variable_parts(request: AnyRequest, scope: Scope, row: Row) -> dict[str, Any]:
    wanted = _wanted(request)
    found = await queries.variables(scope, row.station.id, wanted)
    shown = [one for _component, group in found.groups for one in group]
    report = await queries.last_report(scope, row.station.id, "variables")
    return {
        "row": row, "found": found, "wanted": wanted, "access": _ACCESS, "query": request.url.query,
        "words": {one.id: in_words(one, row.station.booted_at) for one in shown},
        "waiting": await queries.waiting_count(scope, row.station.id, row.station.booted_at),
        "report_words": _REPORTS.get(report["status"]) if report else None,
    }  # fmt: skip


@get("/stations/{station_id:str}/variables", opt={"permission": "stations.view"})
async def show_variables(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    row = await _row(tenant_scope, station_id)
    edited = await _edited(tenant_scope, row, request.query_params.get("edit", ""))
    return page(
        request, tenant_scope, "device_model/variables.html", title=f"Variables of {_name(row)}", values={}, errors={},
        alert=None, edited=edited, **await _variable_parts(request, tenant_scope, row),
    )  # fmt: skip


async def _edited(scope: Scope, row: Row, path: str) -> StationVariable | None:
    return await queries.find_variable(scope, row.station.id, path) if path else None


@get("/stations/{station_id:str}/variables/live", opt={"permission": "stations.view"})
async def live_variables(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _row(tenant_scope, station_id)).station.id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        parts = await _variable_parts(request, scope, await _row(scope, key))
        return fragment(request, "device_model/_variables.html", **parts)

    return live(request, [f"station:{key}"], render)


@post("/stations/{station_id:str}/variables", opt={"permission": "stations.command"})
async def set_variable(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    row = await _row(tenant_scope, station_id)
    form = await read_form(request)
    path = form.text("path")
    try:
        await service.set_variables(tenant_scope, row.station.id, {parse_path(path): form.text("value")})
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "device_model/variables.html", error, form, title=f"Variables of {_name(row)}",
            edited=await _edited(tenant_scope, row, path), **await _variable_parts(request, tenant_scope, row),
        )  # fmt: skip
    back = _back(station_id, form.text("component"), form.text("q"))
    return redirect(request, back, flash=f"{path} is being changed.{_waits(row)}")


def _back(station_id: str, component: str, q: str) -> str:
    asked = [f"{name}={value}" for name, value in (("component", component), ("q", q)) if value]
    return f"/stations/{station_id}/variables" + ("?" + "&".join(asked) if asked else "")


@post("/stations/{station_id:str}/variables/reads", opt={"permission": "stations.command"})
async def read_again(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    """`path` for one variable, else everything (`base`)."""
    row = await _row(tenant_scope, station_id)
    form = await read_form(request)
    path = form.text("path")
    try:
        if path:
            await service.read_variables(tenant_scope, row.station.id, [parse_path(path)])
        else:
            await service.request_inventory(
                tenant_scope, row.station.id, form.text("base") or "FullInventory"
            )
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "device_model/variables.html", error, form, title=f"Variables of {_name(row)}",
            edited=None, **await _variable_parts(request, tenant_scope, row),
        )  # fmt: skip
    back = _back(station_id, form.text("component"), form.text("q"))
    return redirect(request, back, flash=f"{path or 'Everything'} is being read.{_waits(row)}")


routes = [show_variables, live_variables, set_variable, read_again]
