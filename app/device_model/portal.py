"""Portal pages of the device model: a station's variables, events, monitors and display; alerts; templates."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from litestar import Request, Response, get, post
from litestar.response import Stream

from app.device_model import configuration, displays, monitors, queries, service
from app.device_model.models import StationVariable
from app.device_model.paths import parse_path
from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, NavItem, form_again, fragment, live, page, read_form, redirect, visit_of
from app.stations import service as stations
from app.stations.models import ChargingStation
from app.stations.status import link_state
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Configuration", "/configuration-templates", "list", "stations.view", order=27),
    NavItem("Alerts", "/alerts", "bell", "stations.view", order=28),
]


@dataclass(frozen=True, slots=True)
class Row:
    """The station as the head of its pages shows it."""

    id: str
    station: ChargingStation
    link: str

    @property
    def version(self) -> str:
        return self.station.ocpp_version

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
    return queries.VariableFilter(params.get("q", "").strip()[:100], params.get("component") or None)


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


# --- events and monitors -----------------------------------------------------------------------------------------


def severity_in_words(severity: int | None) -> str:
    return "" if severity is None else monitors.SEVERITIES[severity]


def _tone(notice: queries.Notice) -> str:
    """The pill's look: over, grave, worth a look, or mere information."""
    severity = notice.row.severity
    if notice.row.is_cleared:
        return "COMPLETED"
    if severity is None:
        return "UNKNOWN"
    return "Faulted" if severity <= monitors.GRAVE else ("Unavailable" if severity <= 6 else "UNKNOWN")


def _shown_notice(notice: queries.Notice) -> dict[str, Any]:
    return {
        "row": notice.row, "station": notice.station, "station_id": public_id("charging_station", notice.station.id),
        "tone": _tone(notice),
        "word": "Over" if notice.row.is_cleared else severity_in_words(notice.row.severity) or "Event",
    }  # fmt: skip


async def _event_parts(request: AnyRequest, scope: Scope, row: Row) -> dict[str, Any]:
    level = await queries.last_accepted(scope, row.station.id, "SetMonitoringLevel")
    base = await queries.last_accepted(scope, row.station.id, "SetMonitoringBase")
    report = await queries.last_report(scope, row.station.id, "monitors")
    found = await queries.notices(scope, station_id=row.station.id)
    return {
        "row": row, "notices": [_shown_notice(one) for one in found], "kinds": monitors.KINDS,
        "monitors": [(one, severity_in_words(one.severity)) for one in await queries.monitors(scope, row.station.id)],
        "severities": [(str(number), f"{number} {word}") for number, word in enumerate(monitors.SEVERITIES)],
        "level": level.payload.get("severity") if level else None,
        "base_set": base.payload.get("monitoringBase") if base else None,
        "report_words": _REPORTS.get(report["status"]) if report else None,
    }  # fmt: skip


@get("/stations/{station_id:str}/events", opt={"permission": "stations.view"})
async def show_events(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    row = await _row(tenant_scope, station_id)
    return page(
        request, tenant_scope, "device_model/events.html", title=f"Events of {_name(row)}", values={}, errors={},
        alert=None, **await _event_parts(request, tenant_scope, row),
    )  # fmt: skip


@get("/stations/{station_id:str}/events/live", opt={"permission": "stations.view"})
async def live_events(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _row(tenant_scope, station_id)).station.id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        parts = await _event_parts(request, scope, await _row(scope, key))
        return fragment(request, "device_model/_events.html", **parts)

    return live(request, [f"station:{key}"], render)


@post("/stations/{station_id:str}/monitors", opt={"permission": "stations.command"})
async def change_monitors(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    """`deed`: set, clear, read, base or level."""
    row = await _row(tenant_scope, station_id)
    form = await read_form(request)
    key = row.station.id
    try:
        match form.text("deed"):
            case "set":
                await monitors.set_monitors(tenant_scope, key, [_wish(form)])
            case "clear":
                await monitors.clear_monitors(tenant_scope, key, [form.integer("number") or 0])
            case "read":
                await monitors.request_monitors(tenant_scope, key)
            case "base":
                await monitors.set_monitoring_base(tenant_scope, key, form.text("base"))
            case "level":
                level = form.integer("level")
                await monitors.set_monitoring_level(tenant_scope, key, 9 if level is None else level)
            case _:
                raise Invalid.field("deed", "choice", "There is no such form.")
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "device_model/events.html", error, form, title=f"Events of {_name(row)}",
            **await _event_parts(request, tenant_scope, row),
        )  # fmt: skip
    return redirect(
        request, f"/stations/{station_id}/events", flash=f"The station is being asked.{_waits(row)}"
    )


def _wish(form: Form) -> monitors.Wish:
    try:
        value = Decimal(form.text("value").replace(",", "."))
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or abs(value) > 10**9:
        raise Invalid.field("value", "number", "This must be a number.")
    severity = form.integer("severity")
    return monitors.Wish(
        path=parse_path(form.text("path")), kind=form.text("kind"), value=value,
        severity=5 if severity is None else severity, in_transactions_only=form.flag("in_transactions_only"),
    )  # fmt: skip


@get("/alerts", opt={"permission": "stations.view"})
async def show_alerts(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """What stations noticed, of all of them."""
    grave_only = request.query_params.get("all") != "1"
    found = await queries.notices(tenant_scope, grave_only=grave_only)
    return page(
        request, tenant_scope, "device_model/alerts.html", title="Alerts", grave_only=grave_only,
        notices=[_shown_notice(one) for one in found],
    )  # fmt: skip


# --- the display, and customers ----------------------------------------------------------------------------------

_TOKEN_TYPES = (
    "ISO14443", "ISO15693", "eMAID", "Central", "KeyCode", "MacAddress", "Local", "NoAuthorization",
)  # fmt: skip
_PRIORITIES = [
    ("NormalCycle", "In turn with others"), ("InFront", "Before others"), ("AlwaysFront", "Always in front"),
]  # fmt: skip
_STATES = [
    ("", "Always"), ("Idle", "While free"), ("Charging", "While charging"), ("Faulted", "While faulty"),
    ("Unavailable", "While out of service"),
]  # fmt: skip
_CUSTOMER = {
    "open": "Waiting for the station.", "complete": "Done.", "empty": "It stores nothing.",
    "rejected": "The station refused.", "not_supported": "The station does not support this.",
    "unknown": "The station did not answer.",
}  # fmt: skip


async def _display_parts(request: AnyRequest, scope: Scope, row: Row) -> dict[str, Any]:
    rows = await displays.list_messages(scope, row.station.id)
    may_reveal = scope.actor.may("id_tokens.reveal")
    return {
        "row": row, "messages": [(one, displays.WORDS.get(one.status, one.status)) for one in rows],
        "priorities": _PRIORITIES, "states": _STATES,
        "formats": [(one, one) for one in displays.FORMATS], "token_types": [(one, one) for one in _TOKEN_TYPES],
        "customers": [
            (one, _CUSTOMER[one.status]) for one in await queries.customer_reports(scope, row.station.id)
        ] if may_reveal else [],
        "may_reveal": may_reveal,
    }  # fmt: skip


@get("/stations/{station_id:str}/display", opt={"permission": "stations.view"})
async def show_display(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    row = await _row(tenant_scope, station_id)
    return page(
        request, tenant_scope, "device_model/display.html", title=f"Display of {_name(row)}", values={}, errors={},
        alert=None, **await _display_parts(request, tenant_scope, row),
    )  # fmt: skip


@get("/stations/{station_id:str}/display/live", opt={"permission": "stations.view"})
async def live_display(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _row(tenant_scope, station_id)).station.id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        parts = await _display_parts(request, scope, await _row(scope, key))
        return fragment(request, "device_model/_display.html", **parts)

    return live(request, [f"station:{key}"], render)


@post("/stations/{station_id:str}/display", opt={"permission": "stations.command"})
async def change_display(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    """`deed`: show, clear or read."""
    row = await _row(tenant_scope, station_id)
    form = await read_form(request)
    key = row.station.id
    try:
        match form.text("deed"):
            case "show":
                zone = ZoneInfo(visit_of(request).time_zone)
                await displays.show_message(tenant_scope, key, _message_text(form, zone))
            case "clear":
                await displays.clear_message(tenant_scope, key, form.integer("number") or 0)
            case "read":
                await displays.request_messages(tenant_scope, key)
            case _:
                raise Invalid.field("deed", "choice", "There is no such form.")
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "device_model/display.html", error, form, title=f"Display of {_name(row)}",
            **await _display_parts(request, tenant_scope, row),
        )  # fmt: skip
    return redirect(
        request, f"/stations/{station_id}/display", flash=f"The station is being asked.{_waits(row)}"
    )


def _message_text(form: Form, zone: ZoneInfo) -> displays.Text:
    return displays.Text(
        content=form.text("content"), priority=form.text("priority"), format=form.text("format") or "UTF8",
        language=form.text("language")[:8] or None, state=form.text("state") or None,
        start_at=_moment(form, "start_at", zone), end_at=_moment(form, "end_at", zone),
        ocpp_transaction_id=form.text("transaction")[:36] or None,
    )  # fmt: skip


def _moment(form: Form, name: str, zone: ZoneInfo) -> datetime | None:
    text = form.text(name)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid.field(name, "time", "This must be a time.") from None


@post("/stations/{station_id:str}/customer-information", opt={"permission": "id_tokens.reveal"})
async def ask_customer(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    row = await _row(tenant_scope, station_id)
    form = await read_form(request)
    card, customer = form.text("id_token"), form.text("customer_identifier")
    try:
        await displays.request_customer(
            tenant_scope, row.station.id, report=form.flag("report"), clear=form.flag("clear"),
            id_token=(card[:36], form.text("type")) if card else None, customer_identifier=customer[:64] or None,
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "device_model/display.html", error, form, title=f"Display of {_name(row)}",
            **await _display_parts(request, tenant_scope, row),
        )  # fmt: skip
    return redirect(
        request, f"/stations/{station_id}/display", flash=f"The station is being asked.{_waits(row)}"
    )


# --- configuration templates -------------------------------------------------------------------------------------


@get("/configuration-templates", opt={"permission": "stations.view"})
async def list_templates(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    lines = []
    for template in await configuration.list_templates(tenant_scope):
        stations_ = await configuration.stations_of(tenant_scope, template)
        found = await configuration.drift(tenant_scope, template, stations_)
        lines.append({
            "id": public_id("configuration_template", template.id), "template": template,
            "station_count": len(stations_), "adrift_count": len({one.station.id for one in found}),
        })  # fmt: skip
    return page(request, tenant_scope, "device_model/templates.html", title="Configuration", lines=lines)


_VERSIONS = [("ocpp1.6", "OCPP 1.6"), ("ocpp2.0.1", "OCPP 2.0.1"), ("ocpp2.1", "OCPP 2.1")]


@get("/configuration-templates/new", opt={"permission": "stations.manage"})
async def new_template(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "device_model/template.html", title="New template", values={}, errors={}, alert=None,
        setup=None, template_id=None, drift=[], stations=[], versions=_VERSIONS,
    )  # fmt: skip


@post("/configuration-templates", opt={"permission": "stations.manage"})
async def create_template(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        made = await configuration.create_template(tenant_scope, **_template_values(form))
    except Invalid as error:
        return form_again(
            request, tenant_scope, "device_model/template.html", error, form, title="New template", setup=None,
            template_id=None, drift=[], stations=[], versions=_VERSIONS,
        )  # fmt: skip
    path = f"/configuration-templates/{public_id('configuration_template', made.id)}"
    return redirect(request, path, flash="The template is there. Apply it to bring its stations in line.")


def _template_values(form: Form) -> dict[str, Any]:
    """`settings` is one `name = value` to a line."""
    settings: dict[str, str] = {}
    for line in form.text("settings").splitlines():
        name, sign, value = line.partition("=")
        if line.strip() and not sign:
            raise Invalid.field("settings", "line", f"{line.strip()}: write it as name = value.")
        if name.strip():
            settings[name.strip()] = value.strip()
    names = ("name", "ocpp_version", "vendor", "model")
    return {name: form.text(name) for name in names} | {"settings": settings}


async def _template_parts(scope: Scope, template_id: str) -> dict[str, Any]:
    template = await configuration.get_template(scope, parse_id("configuration_template", template_id))
    stations_ = await configuration.stations_of(scope, template)
    groups: dict[UUID, dict[str, Any]] = {}
    for one in await configuration.drift(scope, template, stations_):
        line = {"id": public_id("charging_station", one.station.id), "station": one.station, "deviations": []}
        groups.setdefault(one.station.id, line)["deviations"].append(one)
    return {
        "setup": template, "template_id": template_id, "drift": list(groups.values()), "stations": stations_,
        "versions": _VERSIONS,
    }  # fmt: skip


@get("/configuration-templates/{template_id:str}", opt={"permission": "stations.view"})
async def show_template(request: AnyRequest, tenant_scope: Scope, template_id: str) -> Response[str]:
    parts = await _template_parts(tenant_scope, template_id)
    return page(
        request, tenant_scope, "device_model/template.html", title=parts["setup"].name, values={}, errors={},
        alert=None, **parts,
    )  # fmt: skip


@post("/configuration-templates/{template_id:str}", opt={"permission": "stations.manage"})
async def change_template(request: AnyRequest, tenant_scope: Scope, template_id: str) -> Response[Any]:
    form = await read_form(request)
    key = parse_id("configuration_template", template_id)
    parts = await _template_parts(tenant_scope, template_id)
    try:
        await configuration.update_template(tenant_scope, key, **_template_values(form))
    except Invalid as error:
        return form_again(
            request, tenant_scope, "device_model/template.html", error, form, title="Template", **parts
        )
    return redirect(request, f"/configuration-templates/{template_id}", flash="Saved.")


@post("/configuration-templates/{template_id:str}/applications", opt={"permission": "stations.command"})
async def apply_template(request: AnyRequest, tenant_scope: Scope, template_id: str) -> Response[Any]:
    """To one station, or to all it is for."""
    form = await read_form(request)
    station = form.text("station_id")
    key = parse_id("charging_station", station) if station else None
    done = await configuration.apply_template(
        tenant_scope, parse_id("configuration_template", template_id), key
    )
    words = (
        f"{len(done.commands)} commands are on their way." if done.commands else "Nothing was to be changed."
    )
    if done.refused:
        first, why = done.refused[0]
        words += f" Not to {len(done.refused)} of them: {first.ocpp_identity}: {why}"
    kind = "warning" if done.refused else "success"
    return redirect(request, f"/configuration-templates/{template_id}", flash=words, kind=kind)


@post("/configuration-templates/{template_id:str}/reads", opt={"permission": "stations.command"})
async def read_template(request: AnyRequest, tenant_scope: Scope, template_id: str) -> Response[Any]:
    sent = await configuration.read_settings(tenant_scope, parse_id("configuration_template", template_id))
    words = f"{len(sent)} questions are on their way."
    return redirect(request, f"/configuration-templates/{template_id}", flash=words)


@post("/configuration-templates/{template_id:str}/deletion", opt={"permission": "stations.manage"})
async def delete_template(request: AnyRequest, tenant_scope: Scope, template_id: str) -> Response[Any]:
    await configuration.delete_template(tenant_scope, parse_id("configuration_template", template_id))
    return redirect(
        request, "/configuration-templates", flash="The template is gone; stations stay as they are."
    )


routes = [
    show_variables, live_variables, set_variable, read_again, show_events, live_events, change_monitors, show_alerts,
    show_display, live_display, change_display, ask_customer, list_templates, new_template, create_template,
    show_template, change_template, apply_template, read_template, delete_template,
]  # fmt: skip
