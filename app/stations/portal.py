"""Portal pages of stations: list, live page, OCPP log, commands, commissioning, sites, strangers."""

import json
import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import segno
from litestar import Request, Response, get, post
from litestar.response import Stream
from markupsafe import Markup

from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import (
    FORM_FIELD,
    Form,
    NavItem,
    form_again,
    fragment,
    live,
    page,
    read_form,
    redirect,
    visit_of,
)
from app.stations import (
    alerts,
    availability,
    capabilities,
    commands,
    forms,
    ocpp_schemas,
    parking,
    portal_oddities,
    queries,
    quirks,
    schema_forms,
    service,
)
from app.stations.models import EVSE, ChargingStation, StationCommand
from app.stations.redaction import mask_cards, mask_frame
from tenants.resolve import own_url
from tenants.scope import Scope
from themes.letters import spelled

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Stations", "/stations", "plug-zap", "stations.view", order=20),
    NavItem("Sites", "/locations", "map-pin", "stations.view", order=25),
]
LOG_PAGE = 50


# --- the list ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A station as the list shows it."""

    id: str
    station: ChargingStation
    link: str
    states: list[tuple[EVSE, str]]
    power_w: int


def _row(station: ChargingStation) -> Row:
    return Row(
        id=public_id("charging_station", station.id), station=station, link=queries.link_state(station),
        states=[(evse, queries.status_of(station, evse)) for evse in station.evses],
        power_w=sum(evse.figures.power_w or 0 for evse in station.evses if evse.figures),
    )  # fmt: skip


def _wanted(params: Any) -> queries.Filter:
    location = params.get("location", "")
    try:
        location_id = parse_id("location", location) if location else None
    except NotFound:
        location_id = None
    return queries.Filter(
        q=params.get("q", "").strip()[:100], location_id=location_id, state=params.get("state", "")
    )


@get("/stations", opt={"permission": "stations.view"})
async def list_stations(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    wanted = _wanted(request.query_params)
    return page(
        request, tenant_scope, "stations/list.html", title="Stations", wanted=wanted, query=request.url.query,
        locations=[(public_id("location", one.id), one.name) for one in await service.list_locations(tenant_scope)],
        location=request.query_params.get("location", ""), strangers=len(await queries.unclaimed(tenant_scope)),
        parked=await parking.count_parked(tenant_scope),
        rows=[_row(station) for station in await queries.list_stations(tenant_scope, wanted)],
    )  # fmt: skip


@get("/stations/live", opt={"permission": "stations.view"})
async def live_stations(request: AnyRequest, tenant_scope: Scope) -> Stream:
    wanted = _wanted(request.query_params)

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        rows = [_row(station) for station in await queries.list_stations(scope, wanted)]
        return fragment(request, "stations/_rows.html", rows=rows)

    return live(request, ["stations"], render)


# --- one station -------------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}", opt={"permission": "stations.view"})
async def show_station(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    station = await _station(tenant_scope, station_id)
    return page(
        request, tenant_scope, "stations/station.html", title=_name(station), row=_row(station),
        **await _live_parts(tenant_scope, station),
    )  # fmt: skip


async def _live_parts(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    sessions = await queries.open_sessions(scope, station.id)
    points = await queries.power_curve(scope, station.id, scope.now - queries.CURVE)
    return {
        "station": station, "points": points, "curve_words": queries.curve_in_words(points),
        "open_sessions": {evse: public_id("charging_session", one) for evse, one in sessions.items()},
        "evse_ids": {evse.id: public_id("evse", evse.id) for evse in station.evses},
        "words": {one.id: forms.in_words(one) for evse in station.evses for one in evse.connectors},
        "alerts": portal_oddities.shown(await alerts.open_alerts(scope, station.id), station),
    }  # fmt: skip


@get("/stations/{station_id:str}/live", opt={"permission": "stations.view"})
async def live_station(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _station(tenant_scope, station_id)).id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        station = await service.get_station(scope, key)
        return fragment(
            request, "stations/_station_live.html", row=_row(station), **await _live_parts(scope, station)
        )

    return live(request, [f"station:{key}"], render)


async def _station(scope: Scope, station_id: str) -> ChargingStation:
    return await service.get_station(scope, parse_id("charging_station", station_id))


def _name(station: ChargingStation) -> str:
    return station.name or station.ocpp_identity


# --- the OCPP log ------------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/log", opt={"permission": "stations.view"})
async def show_log(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    station = await _station(tenant_scope, station_id)
    wanted = _log_filter(request.query_params)
    lines, more = await queries.log(
        tenant_scope, station.id, wanted, after=request.query_params.get("after", ""), limit=LOG_PAGE
    )
    return page(
        request, tenant_scope, "stations/log.html", title=f"OCPP log of {_name(station)}", row=_row(station),
        lines=lines, wanted=wanted, actions=await queries.log_actions(tenant_scope, station.id),
        next_after=more, query=request.url.query, is_first="after" not in request.query_params,
        follow=request.query_params.get("follow") == "1",
    )  # fmt: skip


def _log_filter(params: Any) -> queries.LogFilter:
    return queries.LogFilter(
        action=params.get("action", ""),
        direction=params.get("direction", ""),
        errors="errors" in params,
        q=params.get("q", "")[:100],
    )


@get("/stations/{station_id:str}/log/live", opt={"permission": "stations.view"})
async def live_log(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _station(tenant_scope, station_id)).id
    wanted = _log_filter(request.query_params)

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        lines, _more = await queries.log(scope, key, wanted, limit=LOG_PAGE)
        return fragment(request, "stations/_log.html", lines=lines, station_key=station_id)

    return live(request, [f"station:{key}:log"], render)


@get("/stations/{station_id:str}/log/{message_id:str}", opt={"permission": "stations.view"})
async def show_message(
    request: AnyRequest, tenant_scope: Scope, station_id: str, message_id: str
) -> Response[str]:
    station = await _station(tenant_scope, station_id)
    line = await queries.get_message(tenant_scope, station.id, parse_id("ocpp_message", message_id))
    return page(
        request, tenant_scope, "stations/message.html", title=line.row.action or "Frame", row=_row(station), line=line,
        pretty=forms.pretty(line.raw),
    )  # fmt: skip


# --- commands ----------------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/commands", opt={"permission": "stations.view"})
async def show_commands(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    station = await _station(tenant_scope, station_id)
    return page(
        request, tenant_scope, "stations/commands.html", title=f"Commands to {_name(station)}", values={}, errors={},
        alert=None, **await _command_parts(tenant_scope, station),
    )  # fmt: skip


async def _command_parts(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    version = _version(station)
    return {
        "row": _row(station), "version": version, "offered": forms.offered(version, station),
        "actions": sorted(ocpp_schemas.actions(version)), "catalogue": schema_forms.catalogue(version),
        "wishes": await _wishes(scope, station.id), "lacks": await capabilities.list_lacks(scope, station),
        "history": [_shown(scope, one) for one in await queries.recent_commands(scope, station.id, 20)],
    }  # fmt: skip


async def _wishes(scope: Scope, station_id: UUID) -> list[tuple[str, str, Any]]:
    """What was asked about being in service, in words."""
    found = await availability.list_wishes(scope, station_id)
    return [(availability.place_in_words(one), availability.in_words(one), one.asked_at) for one in found]


_WHO = {"anonymous": "a guest"}
_A_JOB = re.compile("[a-z_]+[.:][a-z_]+")


def _shown(scope: Scope, command: StationCommand) -> dict[str, Any]:
    hide = (lambda value: value) if scope.actor.may("id_tokens.reveal") else mask_cards
    return {
        "id": public_id("station_command", command.id), "command": command,
        "title": schema_forms.words_of(command.action).title,
        "by": "by itself" if _A_JOB.fullmatch(command.actor) else _WHO.get(command.actor, command.actor),
        "payload": spelled(json.dumps(hide(command.payload), ensure_ascii=False)),
        "answer": spelled(json.dumps(hide(command.answer), ensure_ascii=False)) if command.answer is not None else None,
    }  # fmt: skip


@get("/stations/{station_id:str}/commands/live", opt={"permission": "stations.view"})
async def live_commands(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _station(tenant_scope, station_id)).id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        history = [_shown(scope, one) for one in await queries.recent_commands(scope, key, 20)]
        wishes = await _wishes(scope, key)
        return fragment(request, "stations/_commands.html", history=history, wishes=wishes)

    return live(request, [f"station:{key}"], render)


@post("/stations/{station_id:str}/commands", opt={"permission": "stations.command"})
async def send_command(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    """`form` names one of the offered forms; without it `action` and a raw `payload` are taken as they are."""
    station = await _station(tenant_scope, station_id)
    form = await read_form(request)
    try:
        if form.text("form") == "availability":
            action, (evse_no, connector_no) = "ChangeAvailability", forms.availability_place(form)
            await availability.change(
                tenant_scope, station.id, is_operative=form.text("operative") == "yes", evse_no=evse_no,
                connector_no=connector_no,
            )  # fmt: skip
        else:
            action, payload = forms.read(_version(station), form)
            await commands.send_command(tenant_scope, station.id, action, payload)
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "stations/commands.html", error, form, title=f"Commands to {_name(station)}",
            **await _command_parts(tenant_scope, station),
        )  # fmt: skip
    waits = (
        "" if queries.link_state(station) == "online" else " The station is offline: it waits up to an hour."
    )
    return redirect(request, f"/stations/{station_id}/commands", flash=f"{action} is on its way.{waits}")


@get("/stations/{station_id:str}/commands/{action:str}", opt={"permission": "stations.command"})
async def show_command_form(
    request: AnyRequest, tenant_scope: Scope, station_id: str, action: str
) -> Response[str]:
    """A form for any command of the station's version; of another version's only why it cannot be."""
    station = await _station(tenant_scope, station_id)
    return page(
        request, tenant_scope, "stations/command.html", title=_form_title(station, action), values={}, errors={},
        alert=None, **_form_parts(station, action),
    )  # fmt: skip


def _form_title(station: ChargingStation, action: str) -> str:
    return f"{schema_forms.words_of(action).title}: {_name(station)}"


def _form_parts(station: ChargingStation, action: str) -> dict[str, Any]:
    if not schema_forms.is_known(action):
        raise NotFound("command")
    version = _version(station)
    refusal = schema_forms.refusal(version, action)
    return {
        "row": _row(station), "version": version, "action": action, "words": schema_forms.words_of(action),
        "refusal": refusal, "group": None if refusal else schema_forms.form_of(version, action), "chosen": {},
    }  # fmt: skip


def _version(station: ChargingStation) -> str:
    return station.ocpp_version or "ocpp1.6"


@post("/stations/{station_id:str}/commands/{action:str}", opt={"permission": "stations.command"})
async def send_command_form(
    request: AnyRequest, tenant_scope: Scope, station_id: str, action: str
) -> Response[Any]:
    station = await _station(tenant_scope, station_id)
    form = await read_form(request)
    parts = _form_parts(station, action)
    try:
        if parts["refusal"]:
            raise Refused("unknown_action", parts["refusal"])
        zone = ZoneInfo(visit_of(request).time_zone)
        payload = schema_forms.payload_of(parts["version"], action, form, zone)
        await commands.send_command(tenant_scope, station.id, action, payload)
    except (Invalid, Refused) as error:
        several = (
            {field.name: form.texts(field.name) for field in parts["group"].fields()}
            if parts["group"]
            else {}
        )
        return form_again(
            request, tenant_scope, "stations/command.html", error, form, title=_form_title(station, action),
            **parts | {"chosen": several},
        )  # fmt: skip
    waits = (
        "" if queries.link_state(station) == "online" else " The station is offline: it waits up to an hour."
    )
    flash = f"{parts['words'].title}: on its way.{waits}"
    return redirect(request, f"/stations/{station_id}/commands", flash=flash)


# --- commissioning -----------------------------------------------------------------------------------------------


@get("/stations/new", opt={"permission": "stations.manage"})
async def new_station(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    values = {
        "identity": request.query_params.get("identity", ""),
        "evse_count": "1",
    }
    return page(
        request, tenant_scope, "stations/new.html", title="New station", values=values, errors={}, alert=None,
        **await _new_parts(tenant_scope),
    )  # fmt: skip


async def _new_parts(scope: Scope) -> dict[str, Any]:
    sites = [(public_id("location", one.id), one.name) for one in await service.list_locations(scope)]
    least = await service.minimum_profile(scope)
    profiles = [(str(number), words) for number, words in _PROFILES.items() if number >= least]
    return {"locations": [("", "No site yet"), *sites], "plates": forms.PLATES, "profiles": profiles}


@post("/stations", opt={"permission": "stations.manage"})
async def create_station(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        site = form.text("location_id")
        new = await service.create_station(
            tenant_scope, identity=form.text("identity"), name=form.text("name"),
            location_id=parse_id("location", site) if site else None,
            security_profile=form.integer("security_profile"), evses=forms.evses(form),
            form_id=form.text(FORM_FIELD),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(
            request,
            tenant_scope,
            "stations/new.html",
            error,
            form,
            title="New station",
            **await _new_parts(tenant_scope),
        )
    return await _setup_page(request, tenant_scope, new.station.id, password=new.password, status=200)


_PROFILES = {
    1: "Profile 1: password", 2: "Profile 2: password over TLS", 3: "Profile 3: client certificate",
    0: "Profile 0: none (development only)",
}  # fmt: skip


async def _setup_page(
    request: AnyRequest, scope: Scope, station_id: UUID, *, password: str | None = None, status: int = 200
) -> Response[str]:
    station = await service.get_station(scope, station_id)
    slug, drivers = await service.own_slug(scope), await own_url(scope, "driver", "")
    return page(
        request, scope, "stations/setup.html", title=f"Connect {_name(station)}", status=status, password=password,
        ocpp_url=scope.settings.ocpp_url_of(slug, station.ocpp_identity), codes=_codes(drivers, station),
        **_setup_parts(station),
    )  # fmt: skip


def _setup_parts(station: ChargingStation) -> dict[str, Any]:
    row = _row(station)
    booted = station.booted_at is not None
    steps = [
        {"label": "Create", "state": "done"},
        {"label": "Connect", "state": "done" if row.link != "never" else "current"},
        {"label": "Boot", "state": "done" if booted else ("current" if row.link != "never" else "todo")},
        {"label": "Ready", "state": "done" if booted and station.evses else "todo"},
    ]
    return {"row": row, "station": station, "steps": steps, "booted": booted}


def _codes(drivers: str, station: ChargingStation) -> list[dict[str, Any]]:
    """What a QR sticker opens: the place's address where the brand's drivers are at home."""
    found = []
    for evse in station.evses:
        url = f"{drivers}/c/{evse.code}"
        svg = segno.make(url, error="m").svg_inline(
            border=1, omitsize=True, title=f"QR code of EVSE {evse.evse_no}"
        )
        found.append({"evse": evse, "url": url, "svg": Markup(svg)})  # noqa: S704 - made by segno from our own address
    return found


@get("/stations/{station_id:str}/setup", opt={"permission": "stations.view"})
async def show_setup(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    return await _setup_page(request, tenant_scope, parse_id("charging_station", station_id))


@get("/stations/{station_id:str}/setup/live", opt={"permission": "stations.view"})
async def live_setup(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _station(tenant_scope, station_id)).id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        return fragment(
            request, "stations/_setup.html", **_setup_parts(await service.get_station(scope, key))
        )

    return live(request, [f"station:{key}"], render)


@get("/stations/{station_id:str}/settings", opt={"permission": "stations.manage"})
async def show_settings(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    station = await _station(tenant_scope, station_id)
    return page(
        request, tenant_scope, "stations/settings.html", title=f"Settings of {_name(station)}", values={}, errors={},
        alert=None, row=_row(station), station=station, quirks=quirks.QUIRKS,
        **await _new_parts(tenant_scope),
    )  # fmt: skip


@post("/stations/{station_id:str}/settings", opt={"permission": "stations.manage"})
async def change_station(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station = await _station(tenant_scope, station_id)
    form = await read_form(request)
    try:
        site, profile = form.text("location_id"), form.integer("security_profile")
        password = await service.update_station(
            tenant_scope, station.id, name=form.text("name"), registration=form.text("registration"),
            location_id=parse_id("location", site) if site else None,
            security_profile=station.security_profile if profile is None else profile,
            leniency=_leniency(station, form),
            shows_cost=form.flag("shows_cost"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "stations/settings.html", error, form, title=f"Settings of {_name(station)}",
            row=_row(station), station=station, quirks=quirks.QUIRKS, **await _new_parts(tenant_scope),
        )  # fmt: skip
    if password is not None:
        return await _setup_page(request, tenant_scope, station.id, password=password)
    return redirect(request, f"/stations/{station_id}/settings", flash="Saved.")


def _leniency(station: ChargingStation, form: Form) -> dict[str, bool]:
    """Only where it differs from what is known of its model."""
    ticked = {name: form.flag(name) for name in quirks.QUIRKS}
    return {name: holds for name, holds in ticked.items() if holds != (name in station.quirks)}


@post("/stations/{station_id:str}/passwords", opt={"permission": "stations.manage"})
async def new_password(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    """The old one is void at once; the new one is told once."""
    key = parse_id("charging_station", station_id)
    password = await service.update_station(tenant_scope, key, password=None)
    return await _setup_page(request, tenant_scope, key, password=password)


@post("/stations/{station_id:str}/retirement", opt={"permission": "stations.manage"})
async def retire(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station = await _station(tenant_scope, station_id)
    form = await read_form(request)
    if form.text("identity") != station.ocpp_identity:
        error = Invalid.field("identity", "confirmation", f"Type {station.ocpp_identity} to retire it.")
        return form_again(
            request, tenant_scope, "stations/settings.html", error, form, title=f"Settings of {_name(station)}",
            row=_row(station), station=station, quirks=quirks.QUIRKS, **await _new_parts(tenant_scope),
        )  # fmt: skip
    await service.retire_station(tenant_scope, station.id)
    return redirect(request, "/stations", flash=f"{station.ocpp_identity} is retired; its history stays.")


# --- sites -------------------------------------------------------------------------------------------------------


@get("/locations", opt={"permission": "stations.view"})
async def list_locations(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    sites = await service.list_locations(tenant_scope)
    stations = await queries.list_stations(tenant_scope, queries.Filter())
    rows = [
        {
            "id": public_id("location", one.id),
            "site": one,
            "stations": [s for s in stations if s.location_id == one.id],
        }
        for one in sites
    ]
    return page(request, tenant_scope, "stations/locations.html", title="Sites", rows=rows)


@get("/locations/new", opt={"permission": "stations.manage"})
async def new_location(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "stations/location.html", title="New site", values={"country": "DEU"}, errors={},
        alert=None, site=None,
    )  # fmt: skip


def _location_values(form: Any) -> dict[str, Any]:
    names = ("name", "address", "city", "postal_code", "country", "time_zone", "latitude", "longitude")
    return {name: form.text(name) for name in names} | {"is_free_vend": form.flag("is_free_vend")}


@post("/locations", opt={"permission": "stations.manage"})
async def create_location(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        await service.create_location(tenant_scope, **_location_values(form))
    except Invalid as error:
        return form_again(
            request, tenant_scope, "stations/location.html", error, form, title="New site", site=None
        )
    return redirect(request, "/locations", flash="The site is there.")


@get("/locations/{location_id:str}", opt={"permission": "stations.view"})
async def show_location(request: AnyRequest, tenant_scope: Scope, location_id: str) -> Response[str]:
    site = await service.get_location(tenant_scope, parse_id("location", location_id))
    names = (
        "name",
        "address",
        "city",
        "postal_code",
        "country",
        "time_zone",
        "latitude",
        "longitude",
        "is_free_vend",
    )
    return page(
        request, tenant_scope, "stations/location.html", title=site.name, errors={}, alert=None, site=location_id,
        values={name: getattr(site, name) for name in names},
    )  # fmt: skip


@post("/locations/{location_id:str}", opt={"permission": "stations.manage"})
async def change_location(request: AnyRequest, tenant_scope: Scope, location_id: str) -> Response[Any]:
    form = await read_form(request)
    key = parse_id("location", location_id)
    try:
        await service.update_location(tenant_scope, key, **_location_values(form))
    except Invalid as error:
        return form_again(
            request, tenant_scope, "stations/location.html", error, form, title="Site", site=location_id
        )
    return redirect(request, "/locations", flash="Saved.")


@get("/stations/unclaimed", opt={"permission": "stations.view"})
async def list_unclaimed(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    rows = await queries.unclaimed(tenant_scope)
    return page(request, tenant_scope, "stations/strangers.html", title="Unclaimed stations", rows=rows)


# --- messages nobody could handle --------------------------------------------------------------------------------

_PARKED_WORDS = {
    "parked": "Waits for you", "retrying": "Being tried again", "handled": "Handled", "discarded": "Let go",
}  # fmt: skip


async def _parked_page(request: AnyRequest, scope: Scope, alert: str | None = None) -> Response[str]:
    rows = [
        {
            "id": public_id("parked_message", one.id), "station_id": public_id("charging_station", one.station_id),
            "row": one, "word": _PARKED_WORDS[one.status], "waits": one.status in ("parked", "retrying"),
            "raw": forms.pretty(one.raw if scope.actor.may("id_tokens.reveal") else mask_frame(one.raw)),
        }
        for one in await parking.list_parked(scope)
    ]  # fmt: skip
    return page(request, scope, "stations/parked.html", title="Parked messages", rows=rows, alert=alert)


@get("/stations/parked", opt={"permission": "stations.view"})
async def list_parked(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return await _parked_page(request, tenant_scope)


@post("/stations/parked/{parked_id:str}/retries", opt={"permission": "stations.manage"})
async def retry_parked(request: AnyRequest, tenant_scope: Scope, parked_id: str) -> Response[Any]:
    await parking.retry(tenant_scope, parse_id("parked_message", parked_id))
    return redirect(request, "/stations/parked", flash="It is tried again.")


@post("/stations/parked/{parked_id:str}/discards", opt={"permission": "stations.manage"})
async def discard_parked(request: AnyRequest, tenant_scope: Scope, parked_id: str) -> Response[Any]:
    await parking.discard(tenant_scope, parse_id("parked_message", parked_id))
    return redirect(request, "/stations/parked", flash="It is kept as it is, and nobody waits for it.")


routes = [
    list_stations, live_stations, new_station, create_station, list_unclaimed, list_parked, retry_parked,
    discard_parked, show_station, live_station, show_log, live_log, show_message, show_commands, live_commands,
    send_command, show_command_form, send_command_form, show_setup, live_setup, show_settings,
    change_station, new_password, retire, list_locations, new_location, create_location, show_location,
    change_location, *portal_oddities.routes,
]  # fmt: skip
