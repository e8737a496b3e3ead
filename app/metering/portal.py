"""Portal pages of meters: whose key is trusted, where only signed energy is billed, and checking anybody's data."""

import asyncio
from typing import Any

from babel import Locale
from litestar import Request, Response, get, post

from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.tax import alpha_2
from app.kernel.web import NavItem, form_again, page, read_form, redirect, visit_of
from app.metering import keys, queries, service
from app.metering.signatures import CURVES, K192
from app.metering.verification import Checked, charge_of
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Meters", "/meters", "badge-check", "stations.view", order=46)]
LABELS = {
    "public_key": "Public key",
    "place": "Where",
    "curve": "Curve",
    "countries": "Countries",
    "data": "Signed data",
}
CURVE_CHOICES = [("", "It says so itself"), *((name, name) for name in sorted([*CURVES, K192]))]


@get("/meters", opt={"permission": "stations.view"})
async def list_keys(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "metering/keys.html", title="Meters", values={}, errors={}, alert=None,
        **await _parts(tenant_scope),
    )  # fmt: skip


async def _parts(scope: Scope) -> dict[str, Any]:
    rows = [
        {"id": public_id("meter_key", row.id), "row": row, "fingerprint": keys.fingerprint(row.public_key),
         "station": station, "station_id": public_id("charging_station", station.id)}
        for row, station in await queries.list_keys(scope)
    ]  # fmt: skip
    chosen = await service.countries_of(scope)
    offered = sorted({*service.SUGGESTED, *chosen, *await queries.countries(scope)})
    return {
        "waiting": [one for one in rows if one["row"].status == "waiting"],
        "rows": [one for one in rows if one["row"].status != "waiting"],
        "places": [(f"{public_id('charging_station', station)}:{evse_no}", name)
                   for station, evse_no, name in await queries.places(scope)],
        "curves": CURVE_CHOICES, "labels": LABELS, "tabs": _tabs("/meters"),
        "countries": [(one, _country(one), one in chosen) for one in offered],
    }  # fmt: skip


def _tabs(current: str) -> list[dict[str, Any]]:
    found = (("Keys", "/meters"), ("Check signed data", "/meters/check"))
    return [{"label": label, "href": href, "current": href == current} for label, href in found]


def _country(alpha_3: str) -> str:
    return Locale("en").territories.get(alpha_2(alpha_3) or "", alpha_3)


@post("/meters", opt={"permission": "stations.manage"})
async def add_key(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    station, _, number = form.text("place").rpartition(":")
    try:
        if not station or not number.isdecimal():
            raise Invalid.field("place", "required", "Choose where the meter is.")
        station_id = parse_id("charging_station", station)
        await keys.add_key(tenant_scope, station_id, int(number), form.text("public_key"), form.text("curve"))
    except (Invalid, Refused) as error:
        parts = await _parts(tenant_scope)
        return form_again(request, tenant_scope, "metering/keys.html", error, form, title="Meters", **parts)
    return redirect(request, "/meters", flash="The key is trusted from now on.")


@post("/meters/{key_id:str}/decisions", opt={"permission": "stations.manage"})
async def decide_key(request: AnyRequest, tenant_scope: Scope, key_id: str) -> Response[Any]:
    form = await read_form(request)
    try:
        row = await keys.decide_key(tenant_scope, parse_id("meter_key", key_id), form.text("decision"))
    except (Invalid, Refused) as error:
        visit_of(request).is_spoiled = True
        return redirect(request, "/meters", flash=error.message, kind="error")
    said = (
        "The key is trusted."
        if row.status == "trusted"
        else "The key is refused: what it signs is not billed."
    )
    return redirect(request, "/meters", flash=said)


@post("/meters/policy", opt={"permission": "settings.manage"})
async def set_policy(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        await service.set_countries(tenant_scope, form.texts("countries"))
    except Invalid as error:
        parts = await _parts(tenant_scope)
        return form_again(request, tenant_scope, "metering/keys.html", error, form, title="Meters", **parts)
    return redirect(request, "/meters", flash="Saved. It holds for sessions that end from now on.")


@get("/meters/check", opt={"permission": "sessions.view"})
async def show_check(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "metering/check.html", values={}, errors={}, alert=None, **_verdict(None, [])
    )


def _verdict(decisive: Checked | None, checked: list[Checked]) -> dict[str, Any]:
    return {
        "title": "Meters", "tabs": _tabs("/meters/check"), "labels": LABELS, "decisive": decisive, "checked": checked,
        "charge": charge_of(checked),
    }  # fmt: skip


@post("/meters/check", status_code=200, opt={"permission": "sessions.view"})
async def check(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """Nothing of it is kept."""
    form = await read_form(request)
    try:
        decisive, checked = await asyncio.to_thread(
            service.look_at, form.text("data"), "", form.text("public_key")
        )
    except Invalid as error:
        parts = _verdict(None, [])
        return form_again(request, tenant_scope, "metering/check.html", error, form, **parts)
    return page(
        request, tenant_scope, "metering/check.html", values=form.values, errors={}, alert=None,
        **_verdict(decisive, checked),
    )  # fmt: skip


routes = [list_keys, add_key, decide_key, set_policy, show_check, check]
