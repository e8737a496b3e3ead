"""Portal pages of access: tokens, drivers, groups."""

import asyncio
from contextlib import suppress
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from litestar import Request, Response, get, post
from litestar.datastructures import UploadFile

from app.access import csv_import, local_lists, queries, service
from app.access.models import Driver, IdToken
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.spreadsheet import csv_file
from app.kernel.web import Form, NavItem, form_again, page, read_form, redirect, visit_of
from app.stations.service import get_station, list_locations
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Access", "/id-tokens", "nfc", "id_tokens.view", order=40)]
PAGE, CHOICES = 50, 500
TYPE_NAMES = {
    "ISO14443": "RFID card (ISO 14443)", "ISO15693": "RFID card (ISO 15693)", "eMAID": "Contract (eMAID)",
    "KeyCode": "Key code", "Central": "Central", "Local": "Local", "MacAddress": "MAC address",
    "VIN": "Vehicle (VIN)", "EVCCID": "Vehicle (EVCCID)", "DirectPayment": "Payment card",
    "NoAuthorization": "No authorization",
}  # fmt: skip
COLLECTIONS = [
    ("per_session", "An invoice for every session"),
    ("monthly", "One invoice a month"),
    ("free", "Nothing is collected"),
]


def _tabs(current: str) -> list[dict[str, Any]]:
    items = (
        ("/id-tokens", "Tokens"), ("/drivers", "Drivers"), ("/driver-groups", "Groups"),
        ("/local-lists", "Lists on stations"),
    )  # fmt: skip
    return [{"href": href, "label": label, "current": href == current} for href, label in items]


# --- tokens ------------------------------------------------------------------------------------------------------


@get("/id-tokens", opt={"permission": "id_tokens.view"})
async def list_id_tokens(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    params = request.query_params
    wanted = queries.Filter(q=params.get("q", "").strip()[:100], status=params.get("status", ""))
    after = params.get("after")
    rows = await queries.list_id_tokens(
        tenant_scope, wanted, after=parse_id("id_token", after) if after else None, limit=PAGE + 1
    )
    more = public_id("id_token", rows[PAGE - 1].id) if len(rows) > PAGE else None
    return page(
        request, tenant_scope, "access/tokens.html", title="Id tokens", wanted=wanted, next_after=more,
        tabs=_tabs("/id-tokens"), types=TYPE_NAMES, is_first=not after,
        rows=[(public_id("id_token", token.id), token) for token in rows[:PAGE]],
    )  # fmt: skip


async def _choices(scope: Scope, chosen: str = "") -> dict[str, Any]:
    """Drivers with their mail address: they choose their name themselves. `chosen` is among them however many there
    are."""
    found = await queries.list_drivers(scope, limit=CHOICES + 1)
    is_cut, found = len(found) > CHOICES, found[:CHOICES]
    if chosen and chosen not in {public_id("driver", one.id) for one in found}:
        with suppress(NotFound):
            found.insert(0, await service.get_driver(scope, parse_id("driver", chosen)))
    drivers = [
        (public_id("driver", one.id), f"{one.name} · {one.email}" if one.email else one.name) for one in found
    ]
    groups = [
        (public_id("driver_group", one.id), one.name) for one in await service.list_driver_groups(scope)
    ]
    return {
        "drivers": [("", "Nobody in particular"), *drivers], "are_drivers_cut": is_cut,
        "groups": [("", "The driver's group"), *groups],
        "types": list(TYPE_NAMES.items()),
        "statuses": [("accepted", "Accepted"), ("blocked", "Blocked"), ("expired", "Expired"), ("invalid", "Invalid")],
    }  # fmt: skip


@get("/id-tokens/new", opt={"permission": "id_tokens.manage"})
async def new_id_token(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    values = {name: request.query_params.get(name, "") for name in ("driver_id", "value")}
    return page(
        request, tenant_scope, "access/token_new.html", title="New token", values=values, errors={}, alert=None,
        **await _choices(tenant_scope, values["driver_id"]),
    )  # fmt: skip


@post("/id-tokens", opt={"permission": "id_tokens.manage"})
async def create_id_token(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        token = await service.create_id_token(
            tenant_scope, value=form.text("value"), type=form.text("type", "ISO14443"),
            status=form.text("status", "accepted"), **_shared(form, visit_of(request).time_zone),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "access/token_new.html", error, form, title="New token",
            **await _choices(tenant_scope, form.text("driver_id")),
        )  # fmt: skip
    return redirect(
        request, f"/id-tokens/{public_id('id_token', token.id)}", flash="The token may charge now."
    )


def _shared(form: Form, time_zone: str) -> dict[str, Any]:
    return {
        "label": form.text("label"), "parent_value": form.text("parent_value") or None,
        "driver_id": _chosen(form, "driver"), "driver_group_id": _chosen(form, "driver_group"),
        "expires_at": _end_of_day(form.text("expires_on"), time_zone),
    }  # fmt: skip


def _chosen(form: Form, kind: str) -> UUID | None:
    text = form.text(f"{kind}_id")
    try:
        return parse_id(kind, text) if text else None
    except NotFound:
        raise Invalid.field(f"{kind}_id", "not_found", "This one is not here.") from None


def _end_of_day(text: str, time_zone: str) -> datetime | None:
    """A card that expires on a day works on that day."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise Invalid.field("expires_on", "date", "This must be a date like 2027-12-31.") from None
    return service.end_of_day(day, time_zone)


@get("/id-tokens/{id_token_id:str}", opt={"permission": "id_tokens.view"})
async def show_id_token(request: AnyRequest, tenant_scope: Scope, id_token_id: str) -> Response[str]:
    token = await service.get_id_token(tenant_scope, parse_id("id_token", id_token_id))
    return page(
        request, tenant_scope, "access/token.html", title=token.label or token.masked, errors={}, alert=None,
        **await _token_parts(request, tenant_scope, token),
    )  # fmt: skip


async def _token_parts(
    request: AnyRequest, scope: Scope, token: IdToken, revealed: str = ""
) -> dict[str, Any]:
    zone = ZoneInfo(visit_of(request).time_zone)
    values = {
        "label": token.label, "status": token.status, "parent_value": token.parent_value or "",
        "driver_id": public_id("driver", token.driver_id) if token.driver_id else "",
        "driver_group_id": public_id("driver_group", token.driver_group_id) if token.driver_group_id else "",
        "expires_on": token.expires_at.astimezone(zone).date().isoformat() if token.expires_at else "",
    }  # fmt: skip
    return {
        "token": token, "token_id": public_id("id_token", token.id), "values": values, "revealed": revealed,
        "type_name": TYPE_NAMES.get(token.type, token.type),
    } | await _choices(scope, values["driver_id"])  # fmt: skip


@post("/id-tokens/{id_token_id:str}", opt={"permission": "id_tokens.manage"})
async def change_id_token(request: AnyRequest, tenant_scope: Scope, id_token_id: str) -> Response[Any]:
    key, form = parse_id("id_token", id_token_id), await read_form(request)
    try:
        changes = _shared(form, visit_of(request).time_zone)
        await service.update_id_token(tenant_scope, key, status=form.text("status", "accepted"), **changes)
    except (Invalid, Refused) as error:
        token = await service.get_id_token(tenant_scope, key)
        parts = await _token_parts(request, tenant_scope, token)
        parts.pop("values")
        return form_again(
            request,
            tenant_scope,
            "access/token.html",
            error,
            form,
            title=token.label or token.masked,
            **parts,
        )
    return redirect(request, f"/id-tokens/{id_token_id}", flash="The token is saved.")


@post("/id-tokens/{id_token_id:str}/revelations", opt={"permission": "id_tokens.reveal"}, status_code=200)
async def reveal_id_token(request: AnyRequest, tenant_scope: Scope, id_token_id: str) -> Response[str]:
    """Not by GET: each look is written down, and no history keeps the page's address with the value."""
    key = parse_id("id_token", id_token_id)
    value = await service.reveal_id_token(tenant_scope, key)
    token = await service.get_id_token(tenant_scope, key)
    response = page(
        request, tenant_scope, "access/token.html", title=token.label or token.masked, errors={}, alert=None,
        **await _token_parts(request, tenant_scope, token, revealed=value),
    )  # fmt: skip
    response.headers["Cache-Control"] = "no-store"
    return response


@post("/id-tokens/{id_token_id:str}/deletions", opt={"permission": "id_tokens.manage"})
async def delete_id_token(request: AnyRequest, tenant_scope: Scope, id_token_id: str) -> Response[Any]:
    is_gone = await service.delete_id_token(tenant_scope, parse_id("id_token", id_token_id))
    said = "The token is deleted." if is_gone else "The token has charged: it stays, blocked."
    return redirect(request, "/id-tokens", flash=said)


# --- drivers -----------------------------------------------------------------------------------------------------


@get("/drivers", opt={"permission": "id_tokens.view"})
async def list_drivers(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    params = request.query_params
    q, after = params.get("q", "").strip()[:100], params.get("after")
    parts = await _drivers(tenant_scope, q, parse_id("driver", after) if after else None)
    return page(
        request, tenant_scope, "access/drivers.html", title="Drivers", values={}, errors={}, alert=None, **parts
    )  # fmt: skip


async def _drivers(scope: Scope, q: str = "", after: UUID | None = None) -> dict[str, Any]:
    drivers = await queries.list_drivers(scope, q, after=after, limit=PAGE + 1)
    more = public_id("driver", drivers[PAGE - 1].id) if len(drivers) > PAGE else None
    drivers = drivers[:PAGE]
    counts = await queries.tokens_of_drivers(scope, [one.id for one in drivers])
    groups = await _group_choices(scope)
    names = dict(groups)
    return {
        "tabs": _tabs("/drivers"), "groups": groups, "q": q, "next_after": more, "is_first": after is None,
        "rows": [
            {
                "id": public_id("driver", one.id), "driver": one, "token_count": counts.get(one.id, 0),
                "group": names[public_id("driver_group", one.driver_group_id)] if one.driver_group_id else None,
            }
            for one in drivers
        ],
    }  # fmt: skip


async def _group_choices(scope: Scope) -> list[tuple[str, str]]:
    groups = await service.list_driver_groups(scope)
    return [("", "None"), *((public_id("driver_group", one.id), one.name) for one in groups)]


@post("/drivers", opt={"permission": "id_tokens.manage"})
async def create_driver(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        driver = await service.create_driver(
            tenant_scope, name=form.text("name"), email=form.text("email"),
            driver_group_id=_chosen(form, "driver_group"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(
            request,
            tenant_scope,
            "access/drivers.html",
            error,
            form,
            title="Drivers",
            **await _drivers(tenant_scope),
        )
    return redirect(
        request, f"/drivers/{public_id('driver', driver.id)}", flash="The driver is there. Now a token."
    )


# --- many at once, from a spreadsheet ----------------------------------------------------------------------------

# A file of the largest size in its form, its umlauts two bytes each.
IMPORT_BODY_BYTES = 3 * csv_import.MAX_BYTES
SHOWN_ROWS, SHOWN_FAULTS = 100, 100
COLUMN_NAMES = [
    ("", "– leave out –"), ("name", "Driver’s name"), ("email", "Mail"), ("group", "Group"), ("card", "Card number"),
    ("card_type", "Kind of card"), ("label", "Card’s label"), ("status", "Card’s state"),
    ("expires", "Card works until"),
]  # fmt: skip


@get("/drivers.csv", opt={"permission": "id_tokens.view"})
async def export_drivers(request: AnyRequest, tenant_scope: Scope) -> Response[bytes]:
    text = await service.export_drivers(tenant_scope, time_zone=visit_of(request).time_zone)
    return csv_file("drivers.csv", text)


@get("/drivers/import", opt={"permission": "id_tokens.manage"})
async def show_import(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "access/import.html", title="Import drivers", values={}, errors={}, alert=None,
        plan=None, headers=csv_import.HEADERS,
    )  # fmt: skip


@post(
    "/drivers/import", opt={"permission": "id_tokens.manage"}, request_max_body_size=IMPORT_BODY_BYTES,
    status_code=200,
)  # fmt: skip
async def import_drivers(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """A look at what the file would change; with `action=import` the change. The page brings the file back to us.

    What is imported is what was looked at: where the plan is another one by now, it is shown first.
    """
    form, zone = await read_form(request), visit_of(request).time_zone
    again: dict[str, Any] = {"title": "Import drivers", "headers": csv_import.HEADERS}
    try:
        text, is_guess = await _sent_text(request, form)
        table = await asyncio.to_thread(csv_import.read_table, text)
    except Invalid as error:
        return form_again(request, tenant_scope, "access/import.html", error, form, plan=None, **again)
    columns = form.texts("column")
    if len(columns) != len(table.header):
        columns = csv_import.guess_columns(table.header)
    again |= {
        "columns": list(zip(table.header, columns, strict=True)), "names": COLUMN_NAMES, "text": text,
        "is_guess": is_guess,
    }  # fmt: skip
    is_import, seen = form.text("action") == "import", form.text("seen")
    try:
        if is_import:
            plan = await service.import_drivers(tenant_scope, table, columns, time_zone=zone, seen=seen)
        else:
            plan = await service.plan_import(tenant_scope, table, columns, time_zone=zone)
    except (Invalid, Refused) as error:
        return form_again(request, tenant_scope, "access/import.html", error, form, plan=None, **again)
    if plan.is_done:
        return redirect(request, "/drivers", flash=_imported(plan))
    is_other = is_import and bool(seen) and not plan.faults
    lines = plan.changing[:SHOWN_ROWS]
    status = 422 if is_import and plan.faults else 409 if is_other else 200
    return page(
        request, tenant_scope, "access/import.html", status=status,
        values={}, errors={}, alert=_OTHER_PLAN if is_other else None, plan=plan, lines=lines,
        faults=plan.faults[:SHOWN_FAULTS], row_count=len(table.rows),
        unshown=len(plan.lines) - plan.unchanged - len(lines), **again,
    )  # fmt: skip


_OTHER_PLAN = (
    "Nothing is imported yet: the columns, or the drivers and cards that are here, have changed since you looked."
    " This is what the file would do now."
)


async def _sent_text(request: AnyRequest, form: Form) -> tuple[str, bool]:
    """The file, or the text that was pasted or that our own page brought back; and whether its encoding is a guess."""
    sent = await request.form()
    upload, pasted = sent.get("file"), sent.get("csv")
    if isinstance(upload, UploadFile):
        raw = await upload.read(csv_import.MAX_BYTES + 1)
        if raw:
            return await asyncio.to_thread(csv_import.decode, raw)
    # As it came: what is no text in it is refused, not left out.
    return pasted if isinstance(pasted, str) else "", form.flag("is_guess")


def _imported(plan: csv_import.Plan) -> str:
    told = [
        (len(plan.new_drivers), "new driver"), (len(plan.new_cards), "new card"), (len(plan.new_groups), "new group"),
        (len(plan.changed_drivers), "changed driver"), (len(plan.changed_cards), "changed card"),
    ]  # fmt: skip
    words = [f"{count} {word}{'s' if count > 1 else ''}" for count, word in told if count]
    return f"Imported: {', '.join(words)}." if words else "Everything was there already: nothing has changed."


@get("/drivers/{driver_id:str}", opt={"permission": "id_tokens.view"})
async def show_driver(request: AnyRequest, tenant_scope: Scope, driver_id: str) -> Response[str]:
    driver = await service.get_driver(tenant_scope, parse_id("driver", driver_id))
    group = driver.driver_group_id
    values = {
        "name": driver.name, "email": driver.email or "",
        "driver_group_id": public_id("driver_group", group) if group else "",
    }  # fmt: skip
    return page(
        request, tenant_scope, "access/driver.html", title=driver.name, values=values, errors={}, alert=None,
        **await _driver_parts(tenant_scope, driver),
    )  # fmt: skip


async def _driver_parts(scope: Scope, driver: Driver) -> dict[str, Any]:
    tokens = await queries.list_id_tokens_of(scope, driver.id)
    return {
        "driver_id": public_id("driver", driver.id), "types": TYPE_NAMES,
        "tokens": [(public_id("id_token", one.id), one) for one in tokens],
        "groups": await _group_choices(scope),
    }  # fmt: skip


@post("/drivers/{driver_id:str}", opt={"permission": "id_tokens.manage"})
async def change_driver(request: AnyRequest, tenant_scope: Scope, driver_id: str) -> Response[Any]:
    key, form = parse_id("driver", driver_id), await read_form(request)
    driver = await service.get_driver(tenant_scope, key)
    title, parts = driver.name, await _driver_parts(tenant_scope, driver)
    try:
        await service.update_driver(
            tenant_scope, key, name=form.text("name"), email=form.text("email"),
            driver_group_id=_chosen(form, "driver_group"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(request, tenant_scope, "access/driver.html", error, form, title=title, **parts)
    return redirect(request, f"/drivers/{driver_id}", flash="The driver is saved.")


# --- groups ------------------------------------------------------------------------------------------------------


@get("/driver-groups", opt={"permission": "id_tokens.view"})
async def list_groups(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    rows = [(public_id("driver_group", one.group.id), one) for one in await queries.list_groups(tenant_scope)]
    return page(
        request, tenant_scope, "access/groups.html", title="Driver groups", rows=rows, tabs=_tabs("/driver-groups"),
        collections=dict(COLLECTIONS),
    )  # fmt: skip


@get("/driver-groups/new", opt={"permission": "id_tokens.manage"})
async def new_group(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "access/group.html", title="New group", values={}, errors={}, alert=None,
        group_id=None, chosen=set(), **await _group_parts(tenant_scope),
    )  # fmt: skip


async def _group_parts(scope: Scope) -> dict[str, Any]:
    sites = [(public_id("location", one.id), one.name) for one in await list_locations(scope)]
    return {"sites": sites, "collections": COLLECTIONS}


def _sites(form: Form) -> list[UUID]:
    try:
        return [parse_id("location", text) for text in form.texts("location_id")]
    except NotFound:
        raise Invalid.field("location_id", "not_found", "This site is not here.") from None


@post("/driver-groups", opt={"permission": "id_tokens.manage"})
async def create_group(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        group = await service.create_driver_group(
            tenant_scope,
            name=form.text("name"),
            collection=form.text("collection"),
            location_ids=_sites(form),
            invoice_to={name: form.text(f"invoice_{name}") for name in service.INVOICE_TO},
        )
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "access/group.html", error, form, title="New group", group_id=None,
            chosen=set(form.texts("location_id")), **await _group_parts(tenant_scope),
        )  # fmt: skip
    return redirect(request, "/driver-groups", flash=f"The group {group.name} is there.")


@get("/driver-groups/{driver_group_id:str}", opt={"permission": "id_tokens.view"})
async def show_group(request: AnyRequest, tenant_scope: Scope, driver_group_id: str) -> Response[str]:
    group = await service.get_driver_group(tenant_scope, parse_id("driver_group", driver_group_id))
    chosen = {public_id("location", one) for one in await queries.locations_of_group(tenant_scope, group.id)}
    return page(
        request, tenant_scope, "access/group.html", title=group.name, errors={}, alert=None, chosen=chosen,
        values={"name": group.name, "collection": group.collection} | {
            f"invoice_{name}": value for name, value in group.invoice_to.items()
        },
        group_id=driver_group_id,
        **await _group_parts(tenant_scope),
    )  # fmt: skip


@post("/driver-groups/{driver_group_id:str}", opt={"permission": "id_tokens.manage"})
async def change_group(request: AnyRequest, tenant_scope: Scope, driver_group_id: str) -> Response[Any]:
    key, form = parse_id("driver_group", driver_group_id), await read_form(request)
    title = (await service.get_driver_group(tenant_scope, key)).name
    try:
        await service.update_driver_group(
            tenant_scope,
            key,
            name=form.text("name"),
            collection=form.text("collection"),
            location_ids=_sites(form),
            invoice_to={name: form.text(f"invoice_{name}") for name in service.INVOICE_TO},
        )
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "access/group.html", error, form, title=title, group_id=driver_group_id,
            chosen=set(form.texts("location_id")), **await _group_parts(tenant_scope),
        )  # fmt: skip
    return redirect(request, "/driver-groups", flash="The group is saved.")


# --- lists on stations -------------------------------------------------------------------------------------------

LIST_STATES = {
    "unset": ("", "circle-dot", "Nothing sent"), "waiting": ("warning", "clock", "Waits for the station"),
    "sending": ("info", "send", "On its way"), "in_sync": ("success", "check", "Up to date"),
    "failed": ("error", "circle-x", "The station could not take it"),
    "not_supported": ("", "ban", "The station has no list"),
    "unsure": ("warning", "circle-help", "No answer; sent whole next time"),
}  # fmt: skip


@get("/local-lists", opt={"permission": "id_tokens.view"})
async def list_lists(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    lines = await queries.list_local_lists(tenant_scope)
    return page(
        request, tenant_scope, "access/lists.html", title="Lists on stations", tabs=_tabs("/local-lists"),
        states=LIST_STATES, rows=[(public_id("charging_station", one.station.id), one) for one in lines],
    )  # fmt: skip


@get("/local-lists/{station_id:str}", opt={"permission": "id_tokens.view"})
async def show_list(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    parts = await _list_parts(tenant_scope, parse_id("charging_station", station_id))
    return page(
        request,
        tenant_scope,
        "access/list.html",
        title=parts.pop("name"),
        errors={},
        alert=None,
        values={},
        **parts,
    )


async def _list_parts(scope: Scope, station_id: UUID) -> dict[str, Any]:
    station = await get_station(scope, station_id)
    row = await local_lists.look_at(scope, station_id)
    chosen = await local_lists.groups_of(scope, row.id) if row.id else set()
    groups = await service.list_driver_groups(scope)
    return {
        "name": f"List on {station.name or station.ocpp_identity}", "station": station, "row": row,
        "station_key": public_id("charging_station", station_id), "states": LIST_STATES,
        "chosen": {public_id("driver_group", one) for one in chosen},
        "groups": [(public_id("driver_group", one.id), one.name) for one in groups],
    }  # fmt: skip


@post("/local-lists/{station_id:str}", opt={"permission": "id_tokens.manage"})
async def change_list(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    key, form = parse_id("charging_station", station_id), await read_form(request)
    try:
        groups = [parse_id("driver_group", one) for one in form.texts("group_id")]
        await local_lists.cover(tenant_scope, key, form.text("covers", "none"), groups)
    except (Invalid, Refused) as error:
        parts = await _list_parts(tenant_scope, key)
        return form_again(
            request, tenant_scope, "access/list.html", error, form, title=parts.pop("name"), **parts
        )
    said = "Saved. The station hears of it within a minute."
    return redirect(request, f"/local-lists/{station_id}", flash=said)


@post("/local-lists/{station_id:str}/sendings", opt={"permission": "id_tokens.manage"})
async def send_list(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    key, form = parse_id("charging_station", station_id), await read_form(request)
    try:
        row = await local_lists.send_now(tenant_scope, key, whole=form.flag("whole"))
    except Refused as error:
        return redirect(request, f"/local-lists/{station_id}", flash=error.message, kind="error")
    return redirect(request, f"/local-lists/{station_id}", flash=LIST_STATES[row.state][2] + ".")


@post("/local-lists/{station_id:str}/version-requests", opt={"permission": "id_tokens.manage"})
async def ask_list_version(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    await local_lists.ask_version(tenant_scope, parse_id("charging_station", station_id))
    return redirect(request, f"/local-lists/{station_id}", flash="The station is asked for its version.")


@post("/local-lists/{station_id:str}/cache-clearings", opt={"permission": "id_tokens.manage"})
async def clear_cache(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    await local_lists.clear_cache(tenant_scope, parse_id("charging_station", station_id))
    said = "The station is told to forget the cards it remembers."
    return redirect(request, f"/local-lists/{station_id}", flash=said)


routes = [
    list_lists, show_list, change_list, send_list, ask_list_version, clear_cache,
    list_id_tokens, new_id_token, create_id_token, show_id_token, change_id_token, reveal_id_token, delete_id_token,
    list_drivers, create_driver, export_drivers, show_import, import_drivers, show_driver, change_driver, list_groups,
    new_group, create_group, show_group, change_group,
]  # fmt: skip
