"""Portal pages of tariffs: list, one with its versions and simulator, the plain form, OCPI as written."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from litestar import Request, Response, get, post
from sqlalchemy import select

from app.access.service import list_driver_groups
from app.brands.service import get_profile
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, NavItem, form_again, page, read_form, redirect, visit_of
from app.stations.models import EVSE, ChargingStation
from app.stations.service import list_locations
from app.tariffs import afir, forms, impact, ocpi_tariff, queries, service, week
from app.tariffs.explain import explain
from app.tariffs.models import TariffVersion
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Tariffs", "/tariffs", "tag", "tariffs.view", order=49)]
EXAMPLE = {"energy_kwh": "30", "charging_min": "45", "parking_min": "15"}
DAY_NAMES = [(day, day.capitalize()[:3]) for day in ocpi_tariff.DAYS]


# --- list and one ------------------------------------------------------------------------------------------------


@get("/tariffs", opt={"permission": "tariffs.view"})
async def list_tariffs(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    tariffs = await service.list_tariffs(tenant_scope, limit=200)
    shown, names = await queries.show_tariffs(tenant_scope, tariffs), await _target_names(tenant_scope)
    impacts = await impact.find_impact(tenant_scope, [one.id for one in tariffs])
    rows = [
        one | {
            "targets": [_name_of(target, names) for target in one["assignments"]],
            "count": len(impacts[tariff.id].points),
            "breaches": impacts[tariff.id].breaches(ocpi_tariff.read_tariff(one["tariff"])),
        }
        for one, tariff in zip(shown, tariffs, strict=True)
    ]  # fmt: skip
    return page(request, tenant_scope, "tariffs/list.html", title="Tariffs", rows=rows)


async def _target_names(scope: Scope) -> dict[str, str]:
    """Value of the select -> name, in the order in which targets win."""
    found = {"": "Nowhere yet", "default": "Every station (default)"}
    for site in await list_locations(scope):
        found[f"location:{public_id('location', site.id)}"] = f"Site {site.name}"
    for group in await list_driver_groups(scope):
        found[f"driver_group:{public_id('driver_group', group.id)}"] = f"Group {group.name}"
    evses = select(EVSE.id, EVSE.evse_no, ChargingStation.ocpp_identity).join(
        ChargingStation, ChargingStation.id == EVSE.station_id
    )
    for key, number, identity in (
        await scope.db.execute(evses.order_by(ChargingStation.ocpp_identity, EVSE.evse_no))
    ).all():
        found[f"evse:{public_id('evse', key)}"] = f"EVSE {number} of {identity}"
    return found


def _value_of(target: Mapping[str, Any]) -> str:
    """`{"location_id": "loc_…"}` -> `location:loc_…`."""
    for name, value in target.items():
        return "default" if name == "default" else f"{name.removesuffix('_id')}:{value}"
    return ""


def _name_of(target: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return names.get(_value_of(target), "Something that is gone")


@get("/tariffs/{tariff_id:str}", opt={"permission": "tariffs.view"})
async def show_tariff(request: AnyRequest, tenant_scope: Scope, tariff_id: str) -> Response[str]:
    """The simulator is a GET: an example can be sent to a colleague."""
    tariff = await service.get_tariff(tenant_scope, parse_id("tariff", tariff_id))
    (shown,) = await queries.show_tariffs(tenant_scope, [tariff])
    names = await _target_names(tenant_scope)
    example = EXAMPLE | dict(request.query_params)
    content = ocpi_tariff.read_tariff(shown["tariff"])
    found = (await impact.find_impact(tenant_scope, [tariff.id]))[tariff.id]
    price, errors = None, {}
    try:
        price = await _price(tenant_scope, shown["tariff"], example, visit_of(request).time_zone)
    except Invalid as error:
        errors = {fault.field: fault.message for fault in error.faults}
    return page(
        request, tenant_scope, "tariffs/tariff.html", title=tariff.name or tariff.ocpi_id, tariff=shown, price=price,
        retired_at=tariff.retired_at, versions=_versions(tariff.versions), values=example, impact=found,
        breaches=found.breaches(content), article=afir.ARTICLE,
        week=week.draw(content, _monday(tenant_scope, request, visit_of(request).time_zone)), step=timedelta(days=7),
        targets=[_name_of(target, names) for target in shown["assignments"]], errors=errors,
        raw=_pretty(shown["tariff"]),
    )  # fmt: skip


def _monday(scope: Scope, request: AnyRequest, time_zone: str) -> date:
    """Of the week that is asked for, else of this one."""
    try:
        asked = date.fromisoformat(request.query_params.get("week", ""))
    except ValueError:
        asked = scope.now.astimezone(ZoneInfo(time_zone)).date()
    asked = min(max(asked, date(2000, 1, 10)), date(2099, 12, 20))
    return asked - timedelta(days=asked.weekday())


def _versions(versions: Sequence[TariffVersion]) -> list[dict[str, Any]]:
    """Newest first, each with what it says that the one before it did not, and what it no longer says."""
    told = [explain(ocpi_tariff.read_tariff(one.ocpi)) for one in versions]
    return [
        {"row": one, "summary": now, "new": [line for line in now if line not in before],
         "gone": [line for line in before if line not in now], "is_first": number == 0}
        for number, (one, now, before) in enumerate(zip(versions, told, [[], *told], strict=False))
    ][::-1]  # fmt: skip


def _pretty(content: Any) -> str:
    return msgspec.json.format(ocpi_tariff.encode(content), indent=2).decode()


async def _price(scope: Scope, tariff: Any, example: Mapping[str, str], time_zone: str) -> dict[str, Any]:
    session = forms.to_session(example, now=scope.now, time_zone=time_zone)
    return await service.preview(scope, tariff, session | {"time_zone": time_zone})


# --- the form ----------------------------------------------------------------------------------------------------


async def _parts(scope: Scope, *, tariff_id: str | None, version_no: int = 0) -> dict[str, Any]:
    names = await _target_names(scope)
    profile = await get_profile(scope)
    return {
        "targets": list(names.items()), "day_names": DAY_NAMES, "currency": profile.currency, "tariff_id": tariff_id,
        "version_no": version_no, "article": afir.ARTICLE,
    }  # fmt: skip


async def _weigh(
    scope: Scope, form: Form, content: Any, tariff_id: UUID | None
) -> tuple[impact.Impact, list[impact.Breach]]:
    """Where it would hold if it were saved so, and what the law says of it there."""
    key = tariff_id or uuid7()
    found = (await impact.find_impact(scope, [key], _target(form)))[key]
    return found, found.breaches(ocpi_tariff.read_new_tariff(content))


@get("/tariffs/new", opt={"permission": "tariffs.manage"})
async def new_tariff(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    values = EXAMPLE | {"tax": "YES", "assign": "default"}
    return page(
        request, tenant_scope, "tariffs/form.html", title="New tariff", values=values, days=[], errors={}, alert=None,
        price=None, impact=None, breaches=[], is_raw="raw" in request.query_params,
        **await _parts(tenant_scope, tariff_id=None),
    )  # fmt: skip


@get("/tariffs/{tariff_id:str}/edit", opt={"permission": "tariffs.manage"})
async def edit_tariff(request: AnyRequest, tenant_scope: Scope, tariff_id: str) -> Response[str]:
    tariff = await service.get_tariff(tenant_scope, parse_id("tariff", tariff_id))
    (shown,) = await queries.show_tariffs(tenant_scope, [tariff])
    plain = forms.from_ocpi(ocpi_tariff.read_tariff(shown["tariff"]))
    values = EXAMPLE | {
        "name": tariff.name,
        "raw": _pretty(shown["tariff"]),
        "assign": _value_of(shown["assign"]),
    }
    found = (await impact.find_impact(tenant_scope, [tariff.id]))[tariff.id]
    return page(
        request, tenant_scope, "tariffs/form.html", title=f"Change {tariff.name}", errors={}, alert=None, price=None,
        impact=found, breaches=found.breaches(ocpi_tariff.read_tariff(shown["tariff"])),
        values=values | (plain or {}), days=(plain or {}).get("days", []),
        is_raw=plain is None or "raw" in request.query_params, is_only_raw=plain is None,
        **await _parts(tenant_scope, tariff_id=tariff_id, version_no=tariff.version_no),
    )  # fmt: skip


async def _written(scope: Scope, form: Form) -> Any:
    """What the form stands for, as an OCPI object."""
    if "raw" not in form:
        return forms.to_ocpi(form.values, form.texts("days"), currency=(await get_profile(scope)).currency)
    try:
        content = ocpi_tariff.decode(form.text("raw"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid.field("raw", "json", f"This is not JSON: {error}.") from None
    try:
        ocpi_tariff.read_new_tariff(content)
    except Invalid as error:
        said = " ".join(f"{fault.field}: {fault.message}" for fault in error.faults)
        raise Invalid.field("raw", "invalid_tariff", said) from None
    return content


def _target(form: Form) -> dict[str, Any]:
    kind, _, key = form.text("assign").partition(":")
    if kind in ("", "default"):
        return {"default": True} if kind else {}
    if kind not in service.TARGETS:
        raise Invalid.field("assign", "choice", "Choose where the tariff applies.")
    try:
        return {f"{kind}_id": parse_id(kind, key)}
    except NotFound as missing:
        raise Invalid.field("assign", "not_found", missing.message) from None


@post("/tariffs", opt={"permission": "tariffs.manage"})
async def create_tariff(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        content = await _written(tenant_scope, form)
        if form.text("action") == "preview":
            return await _previewed(request, tenant_scope, form, content, "New tariff", None)
        found, breaches = await _weigh(tenant_scope, form, content, None)
        if breaches and not form.flag("afir"):
            return await _warned(request, tenant_scope, form, "New tariff", None, found, breaches)
        tariff = await service.create_tariff(tenant_scope, content, _target(form))
    except (Invalid, Refused) as error:
        return await _again(request, tenant_scope, error, form, "New tariff", None)
    return redirect(request, f"/tariffs/{public_id('tariff', tariff.id)}", flash="The tariff is there.")


async def _refuse_conflict(scope: Scope, tariff_id: UUID, form: Form) -> None:
    """Somebody else saved a version while this form was open."""
    newest = (await service.get_tariff(scope, tariff_id)).version_no
    seen = form.integer("version_no")
    if seen is not None and seen != newest:
        message = f"Version {newest} was saved meanwhile. Look at it, and repeat what you wanted to change."
        raise Refused("edit_conflict", message)


@post("/tariffs/{tariff_id:str}", opt={"permission": "tariffs.manage"})
async def change_tariff(request: AnyRequest, tenant_scope: Scope, tariff_id: str) -> Response[Any]:
    key, form = parse_id("tariff", tariff_id), await read_form(request)
    title = f"Change {(await service.get_tariff(tenant_scope, key)).name}"
    try:
        content = await _written(tenant_scope, form)
        if form.text("action") == "preview":
            return await _previewed(request, tenant_scope, form, content, title, tariff_id)
        content.pop("id", None)
        await _refuse_conflict(tenant_scope, key, form)
        found, breaches = await _weigh(tenant_scope, form, content, key)
        if breaches and not form.flag("afir"):
            return await _warned(request, tenant_scope, form, title, tariff_id, found, breaches)
        tariff = await service.replace_tariff(tenant_scope, key, content, _target(form))
    except (Invalid, Refused) as error:
        return await _again(request, tenant_scope, error, form, title, tariff_id)
    return redirect(
        request, f"/tariffs/{tariff_id}", flash=f"Version {tariff.version_no} counts from now on."
    )


async def _previewed(
    request: AnyRequest, scope: Scope, form: Form, content: Any, title: str, tariff_id: str | None
) -> Response[str]:
    price = await _price(scope, content, EXAMPLE | form.values, visit_of(request).time_zone)
    found, breaches = await _weigh(scope, form, content, parse_id("tariff", tariff_id) if tariff_id else None)
    return page(
        request, scope, "tariffs/form.html", title=title, values=EXAMPLE | form.values, days=form.texts("days"),
        errors={}, alert=None, price=price, impact=found, breaches=breaches, is_raw="raw" in form,
        **await _parts(scope, tariff_id=tariff_id),
    )  # fmt: skip


async def _warned(
    request: AnyRequest, scope: Scope, form: Form, title: str, tariff_id: str | None, found: impact.Impact,
    breaches: list[impact.Breach],
) -> Response[str]:  # fmt: skip
    """Nothing is saved yet: what the law does not allow is told first, and whoever has read it may save."""
    visit_of(request).is_spoiled = True
    error = Refused(
        "afir", "Nothing is saved yet: European law does not allow this price at some of your chargers."
    )
    return form_again(
        request, scope, "tariffs/form.html", error, form, title=title, days=form.texts("days"), price=None,
        is_raw="raw" in form, impact=found, breaches=breaches, **await _parts(scope, tariff_id=tariff_id),
    )  # fmt: skip


async def _again(
    request: AnyRequest, scope: Scope, error: Invalid | Refused, form: Form, title: str, tariff_id: str | None
) -> Response[str]:
    return form_again(
        request, scope, "tariffs/form.html", error, form, title=title, days=form.texts("days"), price=None,
        is_raw="raw" in form, impact=None, breaches=[], **await _parts(scope, tariff_id=tariff_id),
    )  # fmt: skip


@post("/tariffs/{tariff_id:str}/retirements", opt={"permission": "tariffs.manage"})
async def retire_tariff(request: AnyRequest, tenant_scope: Scope, tariff_id: str) -> Response[Any]:
    await service.retire_tariff(tenant_scope, parse_id("tariff", tariff_id))
    return redirect(request, "/tariffs", flash="The tariff is retired: no session begins with it any more.")


routes = [list_tariffs, new_tariff, show_tariff, edit_tariff, create_tariff, change_tariff, retire_tariff]
