"""What a driver sees on a brand's own host: the places, one place and its price, their session, the receipt.

A session's page has an unguessable address and needs no login; its forms work without JavaScript.
"""

import asyncio
import re
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.response import Stream
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.billing import paper, payments
from app.billing.models import Invoice
from app.billing.provider import OutcomeUnknown
from app.billing.sandbox import CARDS
from app.billing.service import list_invoices_of
from app.brands import faces
from app.brands import service as brands
from app.charging import paid, queries, service, settlement
from app.charging.models import ChargingSession
from app.charging.plausibility import rated_power_w
from app.identity.service import check_email
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import public_id
from app.kernel.settings import Settings
from app.kernel.web import fragment, live, page, read_form, redirect, visit_of
from app.stations import service as stations
from app.stations.models import EVSE, ChargingStation, Connector, Location
from app.stations.status import evse_status
from app.tariffs import service as tariffs
from app.tariffs.explain import explain
from app.tariffs.ocpi_tariff import read_tariff
from tenants.scope import Scope
from themes.language import _
from themes.render import asset, kw

AnyRequest = Request[Any, Any, Any]
EXAMPLE_WH = 20_000
STARTABLE = ("AVAILABLE", "BLOCKED")


# -- places ------------------------------------------------------------------------------------------------------------


@get("/", opt={"public": True})
async def show_places(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """`?free=1`, `?dc=1` narrow the list; the address is shareable."""
    profile = await brands.get_profile(tenant_scope)
    params = request.query_params
    wanted = {name: params.get(name) == "1" for name in ("free", "dc")}
    return page(
        request, tenant_scope, "charging/places.html", title=profile.name, profile=profile, plug=plug, wanted=wanted,
        locations=await _locations(tenant_scope, **wanted), wrong_code=params.get("code", "")[:20],
    )  # fmt: skip


@get("/map", opt={"public": True})
async def show_map(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """The same places where they lie. Sites without coordinates stand in the list only."""
    sites = [
        {
            "at": [float(entry["location"].longitude), float(entry["location"].latitude)],
            "name": entry["location"].name, "href": f"/#{public_id('location', entry['location'].id)}",
            "label": _("%(free)s of %(all)s free") % {"free": entry["free_count"], "all": entry["count"]},
            "short": f"{entry['free_count']}/{entry['count']}", "free": entry["free_count"] > 0,
        }
        for entry in await _locations(tenant_scope, free=False, dc=False)
        if entry["location"].latitude is not None and entry["location"].longitude is not None
    ]  # fmt: skip
    files = {"module": "maplibre.js", "worker": "maplibre-worker.js", "world": "world.json"}
    words = {
        "NavigationControl.ZoomIn": _("Zoom in"), "NavigationControl.ZoomOut": _("Zoom out"), "Map.Title": _("Map"),
        "CooperativeGesturesHandler.MobileHelpText": _("Use two fingers to move the map"),
        "CooperativeGesturesHandler.WindowsHelpText": _("Use Ctrl and scroll to zoom the map"),
    }  # fmt: skip
    return page(
        request, tenant_scope, "charging/map.html", title=_("Map"), sites=sites, words=words,
        urls={name: asset(file) for name, file in files.items()},
    )  # fmt: skip


@get("/go", opt={"public": True})
async def find_code(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """The code as it was typed: in any case, with the spaces and dashes that a sticker may show."""
    code = re.sub(r"[^A-Z0-9]", "", request.query_params.get("code", "").upper())[:20]
    try:
        evse = await stations.find_place(tenant_scope, code)
    except NotFound:
        return redirect(request, f"/?code={code}")
    return redirect(request, f"/c/{evse.code}")


async def _locations(scope: Scope, *, free: bool, dc: bool) -> list[dict[str, Any]]:
    query = (
        select(Location)
        .options(
            selectinload(Location.stations)
            .selectinload(ChargingStation.evses)
            .options(selectinload(EVSE.connectors), selectinload(EVSE.live)),
            selectinload(Location.stations).selectinload(ChargingStation.connection),
        )
        .order_by(func.lower(Location.name), Location.id)
    )
    shown = []
    for location in (await scope.db.execute(query)).scalars():
        places = [
            _place(station, evse)
            for station in sorted(location.stations, key=lambda one: (one.name or one.ocpp_identity, one.id))
            if station.retired_at is None and station.registration == "accepted"
            for evse in station.evses
        ]
        count = sum(place["status"] == "AVAILABLE" for place in places)
        wanted = [
            place
            for place in places
            if (not free or place["status"] == "AVAILABLE") and (not dc or place["is_dc"])
        ]
        if wanted:
            shown.append({"location": location, "places": wanted, "free_count": count, "count": len(places)})
    return shown


def _place(station: ChargingStation, evse: EVSE) -> dict[str, Any]:
    connection = station.connection
    status = evse_status(
        (connector.status for connector in evse.connectors), evse.live.activity if evse.live else "idle",
        is_online=bool(connection and connection.is_online), has_connected=connection is not None,
        is_retired=station.retired_at is not None,
    )  # fmt: skip
    return {
        "code": evse.code, "evse_no": evse.evse_no, "station": station.name or station.ocpp_identity, "status": status,
        "connectors": evse.connectors, "last_seen_at": connection.last_seen_at if connection else None,
        "is_dc": any(connector.power_type == "DC" for connector in evse.connectors),
    }  # fmt: skip


_PLUGS = {
    "IEC_62196_T1": "Type 1", "IEC_62196_T2": "Type 2", "IEC_62196_T1_COMBO": "CCS 1", "IEC_62196_T2_COMBO": "CCS",
    "CHADEMO": "CHAdeMO", "DOMESTIC_F": "Schuko", "TESLA_S": "NACS",
}  # fmt: skip


def plug(connector: Connector) -> str:
    """`CCS, 150 kW`: what a driver looks for."""
    name = _PLUGS.get(connector.standard or "", _("Plug"))
    power_w = rated_power_w(connector)
    return f"{name}, {round(power_w / 1000)} kW" if power_w else name


@get("/c/{code:str}", opt={"public": True})
async def show_place(request: AnyRequest, tenant_scope: Scope, code: str) -> Response[str]:
    """What a QR sticker opens: the price first, then one button."""
    return await _place_page(request, tenant_scope, code, values={}, errors={}, alert=None)


async def _place_page(
    request: AnyRequest, scope: Scope, code: str, *, status: int = 200, **form: Any
) -> Response[str]:
    evse = await stations.find_place(scope, code)
    place = _place(evse.station, evse)
    return page(
        request, scope, "charging/place.html", title=evse.station.name or evse.station.ocpp_identity, status=status,
        place=place, location=evse.station.location, plug=plug, can_start=place["status"] in STARTABLE,
        profile=await brands.get_profile(scope), test_cards=_test_cards(scope.settings), **await _costs(scope, evse),
        **form,
    )  # fmt: skip


def _test_cards(settings: Settings) -> list[tuple[str, str]]:
    """What one may type on the sandbox's payment page; nothing where money is real."""
    if not settings.uses_sandbox:
        return []
    return [(number, what) for number, (_brand, _way, what) in CARDS.items()]


async def _costs(scope: Scope, evse: EVSE) -> dict[str, Any]:
    """Prices in the order the law wants, what a usual session would come to, and what is held on a card."""
    location = evse.station.location
    if location is not None and location.is_free_vend:
        return {"prices": [_("Free")], "example": None, "offer": None, "is_free": True}
    version = await tariffs.find_tariff_for(
        scope,
        evse_id=evse.id,
        location_id=location.id if location else None,
        driver_group_id=None,
        at=scope.now,
    )
    if version is None:
        return {"prices": [], "example": None, "offer": None, "is_free": False}
    tariff = read_tariff(version.ocpi)
    return {
        "prices": explain(tariff), "example": await _example(scope, version.ocpi, evse, location, scope.now),
        "offer": await paid.find_offer(scope, evse, tariff.currency), "is_free": False,
    }  # fmt: skip


async def _example(
    scope: Scope, tariff: Any, evse: EVSE, location: Location | None, at: datetime
) -> dict[str, Any]:
    """20 kWh at this plug's own power, beginning now."""
    power_w = max((rated_power_w(connector) or 0 for connector in evse.connectors), default=0) or 11_000
    seconds = round(EXAMPLE_WH * 3600 / power_w)
    described = {
        "start": at.isoformat(), "charging_s": seconds, "energy_kwh": str(Decimal(EXAMPLE_WH) / 1000),
        **({"time_zone": location.time_zone} if location else {}),
    }  # fmt: skip
    price = await tariffs.preview(scope, tariff, described)
    return {
        "total": price["total_cost"]["incl_vat"], "currency": price["currency"], "seconds": seconds,
        "kwh": EXAMPLE_WH // 1000,
    }  # fmt: skip


@post("/c/{code:str}/start", opt={"public": True})
async def start(request: AnyRequest, code: str) -> Response[Any]:
    """To the provider's payment page, or to the session's own where nothing has to be paid or nobody answers.

    The wish is committed before the provider is called, so that a crash between the two loses nothing.
    """
    visit, form = visit_of(request), await read_form(request)
    email = form.text("email")
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        evse = await stations.find_place(scope, code)
        try:
            if email:
                check_email(email, "email")
            session, op = await paid.request_start(
                scope, evse.id, email=email, language=visit.language, origin=visit.origin, remote=visit.remote
            )
        except (Invalid, Refused) as error:
            await scope.db.rollback()
            scope.forget_after_commit()
            errors = {fault.field: _(fault.message) for fault in error.faults}
            return await _place_page(
                request,
                scope,
                code,
                status=error.status,
                values=form.values,
                errors=errors,
                alert=_(error.message),
            )
        link = paid.link_of(scope, session.id)
    target = f"/s/{link}"
    if op is not None:
        target = await _checkout_url(visit, op.id, session.id) or target
    return Response(None, status_code=303, headers={"Location": target})


async def _checkout_url(visit: Any, op_id: UUID, session_id: UUID) -> str | None:
    try:
        await payments.run_op(visit.database, visit.tenant, op_id)
    except OutcomeUnknown:
        return None  # the janitor asks again; the session's page says that it waits
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        payment = await payments.find_payment(scope, "charging_session", session_id)
        return payment.checkout_url if payment else None


# -- one session -------------------------------------------------------------------------------------------------------


@get("/s/{link:str}", opt={"public": True})
async def show_session(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[str]:
    """Coming back from the payment page is news: the provider is asked at once, whether or not its webhook came."""
    session_id = paid.read_link(tenant_scope, link)
    shown = await _shown(tenant_scope, link, session_id)
    payment = shown["payment"]
    if payment is not None and payment.state in payments.OPEN and "paid" in request.query_params:
        await payments.watch(tenant_scope, payment.id)
    points = await queries.power_points(tenant_scope, session_id)
    return page(
        request, tenant_scope, "charging/guest.html", title=shown["words"]["title"],
        profile=await brands.get_profile(tenant_scope), points=points, curve_words=_curve_words(points), **shown,
    )  # fmt: skip


async def _shown(scope: Scope, link: str, session_id: UUID) -> dict[str, Any]:
    session = await service.get_session(scope, session_id)
    payment = await payments.find_payment(scope, "charging_session", session_id)
    words = await paid.state_words(scope, session, payment)
    cdr = (await queries.cdrs_of(scope, [session.id])).get(session.id)
    price = await settlement.running_price(scope, session) if cdr is None else None
    energy = session.energy_wh
    if energy is None and session.live is not None:
        energy = session.live.energy_wh
    return {
        "session": session, "payment": payment, "words": words, "link": link, "cdr": cdr,
        "price": price.as_json() if price else None, "energy_wh": energy,
        "power_w": session.live.power_w if session.live and session.status == "ACTIVE" else None,
        "seconds": _seconds(session, scope.now), "has_receipt": bool(await _papers(scope, session_id)),
    }  # fmt: skip


def _seconds(session: ChargingSession, now: datetime) -> float | None:
    if session.status in ("PENDING", "INVALID"):
        return None
    return ((session.ended_at or now) - session.started_at).total_seconds()


def _curve_words(points: dict[str, list[Any]]) -> str:
    if not points["kw"]:
        return ""
    most, last = (kw(round(value * 1000)) for value in (max(points["kw"]), points["kw"][-1]))
    return _("Power rose to %(most)s and is now %(last)s.") % {"most": most, "last": last}


@get("/s/{link:str}/live", opt={"public": True})
async def live_session(request: AnyRequest, tenant_scope: Scope, link: str) -> Stream:
    session_id = paid.read_link(tenant_scope, link)
    await service.get_session(tenant_scope, session_id)

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        return fragment(request, "charging/_guest.html", **await _shown(scope, link, session_id))

    return live(request, [f"session:{session_id}", f"payment:{session_id}"], render)


@post("/s/{link:str}/stop", opt={"public": True})
async def stop(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[Any]:
    """From any device that has the address."""
    try:
        await service.request_stop(tenant_scope, paid.read_link(tenant_scope, link))
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, f"/s/{link}", flash=_(error.message), kind="error")
    return redirect(request, f"/s/{link}", flash=_("The charger was asked to stop."))


@post("/s/{link:str}/cancel", opt={"public": True})
async def cancel(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[Any]:
    await paid.give_up(tenant_scope, paid.read_link(tenant_scope, link))
    return redirect(request, f"/s/{link}")


# -- the receipt -------------------------------------------------------------------------------------------------------


async def _papers(scope: Scope, session_id: UUID) -> list[Invoice]:
    cdrs = await queries.all_cdrs(scope, session_id)
    return [one for cdr in cdrs for one in await list_invoices_of(scope, "cdr", cdr.id)]


@get("/s/{link:str}/receipt", opt={"public": True})
async def show_receipt(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[str]:
    session_id = paid.read_link(tenant_scope, link)
    papers = await _papers(tenant_scope, session_id)
    if not papers:
        raise NotFound("receipt")
    return page(
        request, tenant_scope, "charging/receipt.html", title=_("Receipt"), papers=papers, link=link,
        payment=await payments.find_payment(tenant_scope, "charging_session", session_id),
        names={kind: _(name) for kind, name in paper.NAMES.items()}, profile=await brands.get_profile(tenant_scope),
    )  # fmt: skip


@get("/s/{link:str}/receipt.pdf", opt={"public": True})
async def download_receipt(request: AnyRequest, link: str) -> Response[bytes]:
    """The newest paper. It is set while no transaction is open: that takes a processor, not a database."""
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        session_id = paid.read_link(scope, link)
        papers = await _papers(scope, session_id)
        payment = await payments.find_payment(scope, "charging_session", session_id)
        if not papers:
            raise NotFound("receipt")
        theme, _hash = await faces.get_theme(scope)
        content = paper.content_of(papers[-1], payment, visit.time_zone, theme.primary)
    pdf = await asyncio.to_thread(paper.as_pdf, content)
    name = f"{papers[-1].number or 'receipt'}.pdf"
    headers = {"Content-Disposition": f'inline; filename="{name}"'}
    return Response(pdf, media_type="application/pdf", headers=headers)


routes = [
    show_places, show_map, find_code, show_place, start, show_session, live_session, stop, cancel, show_receipt,
    download_receipt,
]  # fmt: skip
