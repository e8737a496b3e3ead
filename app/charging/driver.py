"""What a driver sees on a brand's own host: the places, one place and its price, their session, the receipt, their
account.

A session's page has an unguessable address and needs no login; a logged-in driver has the same pages of all their
sessions below `/account`. Forms work without JavaScript.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from litestar import Request, Response, get, post
from litestar.response import Stream

from app.access import accounts
from app.billing import einvoice, paper, payments, vouchers
from app.billing.models import Payment, PaymentOp
from app.billing.paper import Paper
from app.billing.provider import OutcomeUnknown
from app.billing.sandbox import CARDS, REFUNDING
from app.brands import faces
from app.brands import service as brands
from app.charging import (
    account,
    off_session,
    paid,
    places,
    queries,
    saved_card_pages,
    service,
    settlement,
    signed,
    startable,
    voucher_starts,
    wallet_starts,
)
from app.charging.models import ChargingSession
from app.charging.plausibility import rated_power_w
from app.identity.service import check_email
from app.kernel.errors import Invalid, LiveryError, NotFound, Refused, TooMany
from app.kernel.ids import parse_id, public_id
from app.kernel.money import to_minor
from app.kernel.settings import Settings
from app.kernel.spreadsheet import csv_file, csv_text
from app.kernel.web import (
    Form,
    Visit,
    form_again,
    fragment,
    live,
    login_cookie,
    page,
    read_form,
    redirect,
    visit_of,
    with_retry_after,
)
from app.stations import service as stations
from app.stations.models import EVSE, ChargingStation, Location
from app.tariffs import service as tariffs
from app.tariffs.explain import explain
from app.tariffs.ocpi_tariff import read_tariff
from tenants.scope import Scope
from themes.language import N_, _, current
from themes.render import asset, kw

AnyRequest = Request[Any, Any, Any]
EXAMPLE_WH = 20_000
PAGE = 25
OTHER_TAP_TAKES_S = 5
PRICE_CHANGED = N_("The price has changed since you opened this page: please look again.")


# -- places ------------------------------------------------------------------------------------------------------------


@get("/", opt={"public": True})
async def show_places(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """`?q=`, `?free=1`, `?dc=1` and `?plug=` narrow the list, `?near=latitude,longitude` puts the nearest first, `?at=`
    turns to the page on which that site stands; the address is shareable."""
    wanted = places.read_filter(request.query_params)
    profile = await brands.get_profile(tenant_scope)
    listing = await places.list_sites(tenant_scope, wanted)
    return page(
        request, tenant_scope, "charging/places.html", title=profile.name, profile=profile, plug=places.plug,
        chips=places.chips(wanted, listing.kinds), wanted=wanted, query=wanted.query, listing=listing,
        leaf=listing.leaf(request.query_params.get("at", "")),
        wrong_code=request.query_params.get("code", "")[:20],
    )  # fmt: skip


@get("/map", opt={"public": True})
async def show_map(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """The same places where they lie. Sites without coordinates stand in the list only."""
    wanted = places.read_filter(request.query_params)
    listing = await places.list_sites(tenant_scope, wanted)
    pins = [
        {
            "at": [float(site.location.longitude), float(site.location.latitude)], "name": site.location.name,
            "href": f"/?{wanted.query_at(site.location.id)}#{public_id('location', site.location.id)}",
            "free": site.free_count > 0,
            "label": _("%(free)s of %(all)s free") % {"free": site.free_count, "all": site.count},
            "short": f"{site.free_count}/{site.count}",
        }
        for site in listing.sites
        if site.location.latitude is not None and site.location.longitude is not None
    ]  # fmt: skip
    files = {"module": "maplibre.js", "worker": "maplibre-worker.js", "world": "world.json",
             "towns": "towns.json"}  # fmt: skip
    words = map_words() | {"places": _("%(count)s places") % {"count": "{n}"}}
    return page(
        request, tenant_scope, "charging/map.html", title=_("Map"), sites=pins, words=words,
        chips=places.chips(wanted, listing.kinds), wanted=wanted, query=wanted.query, listing=listing,
        urls={name: asset(file) for name, file in files.items()},
    )  # fmt: skip


def map_words() -> dict[str, str]:
    """What the parts of MapLibre say that our map has, by the library's own names for them."""
    return {
        "Map.Title": _("Map"), "Marker.Title": _("Place"),
        "NavigationControl.ZoomIn": _("Zoom in"), "NavigationControl.ZoomOut": _("Zoom out"),
        "AttributionControl.ToggleAttribution": _("Sources of the map"),
        "ScaleControl.Meters": "m", "ScaleControl.Kilometers": "km",
        "CooperativeGesturesHandler.MobileHelpText": _("Use two fingers to move the map"),
        "CooperativeGesturesHandler.WindowsHelpText": _("Use Ctrl and scroll to zoom the map"),
        "CooperativeGesturesHandler.MacHelpText": _("Use ⌘ and scroll to zoom the map"),
    }  # fmt: skip


@get("/go", opt={"public": True})
async def find_code(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """The code as it was typed: in any case, with the spaces and dashes that a sticker may show."""
    code = re.sub(r"[^A-Z0-9]", "", request.query_params.get("code", "").upper())[:20]
    try:
        evse = await stations.find_place(tenant_scope, code)
    except NotFound:
        return redirect(request, f"/?code={code}")
    return redirect(request, f"/c/{evse.code}")


@get("/c/{code:str}", opt={"public": True})
async def show_place(request: AnyRequest, tenant_scope: Scope, code: str) -> Response[str]:
    """What a QR sticker opens: the price first, then one button."""
    return await _place_page(request, tenant_scope, code, values={}, errors={}, alert=None)


async def _place_page(
    request: AnyRequest, scope: Scope, code: str, *, status: int = 200, **form: Any
) -> Response[str]:
    evse = await stations.find_place(scope, code)
    way = await _way(scope, evse)
    place = places.place_of(evse.station, evse, await startable.look(scope, evse.id), way.card)
    terms = await _terms(scope, evse, way)
    return page(
        request, scope, "charging/place.html", title=evse.station.name or evse.station.ocpp_identity, status=status,
        place=place, location=evse.station.location, time_zone=await _clock(scope, evse.station),
        plug=places.plug, terms=terms, wish=paid.new_wish(), hold_too_small=paid.HOLD_TOO_SMALL,
        profile=await brands.get_profile(scope), test_cards=_test_cards(scope.settings), way=way,
        takes_vouchers=terms.offer is not None and await vouchers.is_taken(scope),
        **await _costs(scope, evse, terms), **form,
    )  # fmt: skip


async def _clock(scope: Scope, station: ChargingStation) -> str:
    """Whose time a page about a place or a session tells: that by which its prices take turns, and which hangs on the
    wall there."""
    return (await tariffs.tax_place(scope, station.location))[1]


def _test_cards(settings: Settings) -> list[tuple[str, str]]:
    """What one may type on the sandbox's payment page; nothing where money is real."""
    if not settings.uses_sandbox:
        return []
    return [(number, what) for number, (_brand, _way, what) in CARDS.items() if number not in REFUNDING]


async def _way(scope: Scope, evse: EVSE) -> account.Way:
    """A guest's is the checkout."""
    if scope.actor.kind != "driver":
        return account.Way()
    driver = await accounts.get_own(scope)
    return await wallet_starts.prefer(
        scope, driver, evse, await account.find_way(scope, driver, evse.station_id)
    )


async def _terms(scope: Scope, evse: EVSE, way: account.Way) -> paid.Terms:
    return await paid.find_terms(
        scope, evse, driver_group_id=way.driver_group_id, collection=way.collection, most_minor=way.most_minor
    )


async def _costs(scope: Scope, evse: EVSE, terms: paid.Terms) -> dict[str, Any]:
    """Prices in the order the law wants, and what a usual session would come to."""
    location, version = evse.station.location, terms.version
    if terms.is_free:
        return {"prices": [_("Free")], "example": None}
    if version is None:
        return {"prices": [], "example": None}
    if terms.collection == "free":
        return {"prices": [_("Free for you")], "example": None}
    tariff = read_tariff(version.ocpi)
    _country, time_zone = await tariffs.tax_place(scope, location)
    local, default_vat = scope.now.astimezone(ZoneInfo(time_zone)), await tariffs.default_vat(scope, location)
    return {
        "prices": explain(tariff, gross=True, default_vat=default_vat, at=local),
        "example": await _example(scope, version.ocpi, evse, location, scope.now),
    }  # fmt: skip


async def _example(
    scope: Scope, tariff: Any, evse: EVSE, location: Location | None, at: datetime
) -> dict[str, Any]:
    """20 kWh at this plug's own power, beginning now."""
    power_w = max((rated_power_w(connector) or 0 for connector in evse.connectors), default=0) or 11_000
    seconds = round(EXAMPLE_WH * 3600 / power_w)
    described = {
        "start": at.isoformat(), "charging_s": seconds, "energy_kwh": str(Decimal(EXAMPLE_WH) / 1000),
    }  # fmt: skip
    price = await tariffs.preview(scope, tariff, described, location)
    total_minor = to_minor(Decimal(price["total_cost"]["incl_vat"]), price["currency"])
    return {
        "total_minor": total_minor, "currency": price["currency"], "seconds": seconds, "kwh": EXAMPLE_WH // 1000,
    }  # fmt: skip


@post("/c/{code:str}/start", opt={"public": True})
async def start(request: AnyRequest, code: str) -> Response[Any]:
    """To the provider's payment page, or to the session's own where nothing has to be paid or nobody answers.

    The wish is committed before the provider is called, so that a crash between the two loses nothing.
    """
    visit, form = visit_of(request), await read_form(request)
    if (
        "card" in form or "saved_card" in form
    ) and not visit.is_logged_in:  # the login has ended since: no hold instead of a monthly invoice
        return redirect(request, f"/login?next=/c/{code}")
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        evse = await stations.find_place(scope, code)
        try:
            target, op, session_id = await _wish(scope, visit, evse, form)
        except (Invalid, Refused, TooMany) as error:
            return await _shown_again(request, scope, code, form, error, _place_page)
    paying = _checkout_url(visit, op.id, session_id) if op else _other_taps_checkout(visit, session_id)
    target = await paying or target
    return Response(None, status_code=303, headers={"Location": target})


async def _shown_again(
    request: AnyRequest, scope: Scope, code: str, form: Form, error: LiveryError,
    again: Callable[..., Awaitable[Response[str]]],
) -> Response[str]:  # fmt: skip
    """The page with what was wrong beside what was typed; nothing of the try stays."""
    await scope.db.rollback()
    scope.forget_after_commit()
    errors = {fault.field: _(fault.message) for fault in error.faults}
    shown = await again(
        request, scope, code, status=error.status, values=form.values, errors=errors, alert=_(error.message)
    )
    return with_retry_after(shown, error)


async def _wish(scope: Scope, visit: Visit, evse: EVSE, form: Form) -> tuple[str, PaymentOp | None, UUID]:
    """By the driver's own card where the form names one, else by checkout: where to look, and what to ask for first.

    The same form sent twice is one wish; with another e-mail address, before a card is given, it is another. What was
    not read is agreed to by nobody: then the page is shown again.
    """
    wish = form.text("wish")[:64]
    way, email, is_own = await _way(scope, evse), form.text("email"), _is_own_card(scope, evse, form)
    if "saved_card" in form and scope.actor.kind == "driver":
        email = (await accounts.get_own(scope)).email or ""
    await startable.lock_evse(scope, evse.id)
    known = await paid.find_by_wish(scope, evse.id, wish, email)
    if known is not None:
        return _page_of(scope, known, is_own=is_own), None, known.id
    changed, op = Refused("price_changed", PRICE_CHANGED), None
    was_read = form.text("terms") == (await _terms(scope, evse, way)).digest
    if is_own:
        session = await account.start_by_card(scope, evse.id, parse_id("id_token", form.text("card")))
        if not was_read:  # looked at after what may be wrong with the card: that is the better word
            raise changed
    elif not was_read:
        raise changed
    else:
        if email:
            check_email(email, "email")
        saved = way.saved if _is_saved_card(way, form) else None
        if "saved_card" in form and saved is None:  # gone, or expired since the page was read
            raise changed
        session, op = await paid.request_start(
            scope, evse.id, email=email, language=visit.language, origin=visit.origin, remote=visit.remote,
            driver_id=scope.actor.id, driver_group_id=way.driver_group_id, saved_card=saved,
            keep=await wallet_starts.keeper(scope) if way.collection == "wallet" else None,
        )  # fmt: skip
    paid.keep_wish(session, evse.id, wish)
    return _page_of(scope, session, is_own=is_own), op, session.id


@get("/c/{code:str}/voucher", opt={"public": True})
async def show_voucher_form(request: AnyRequest, tenant_scope: Scope, code: str) -> Response[str]:
    """The price, and the form for who pays it by a voucher's code."""
    return await _voucher_page(request, tenant_scope, code, values={}, errors={}, alert=None)


async def _voucher_page(
    request: AnyRequest, scope: Scope, code: str, *, status: int = 200, **form: Any
) -> Response[str]:
    """Without the form where nothing can begin, nothing is to be paid, or a driver starts by their card."""
    evse = await stations.find_place(scope, code)
    way = await voucher_starts.find_way(scope, evse)
    place = places.place_of(evse.station, evse, await startable.look(scope, evse.id))
    terms = await _terms(scope, evse, way or account.Way())
    offer = terms.offer if way is not None and place.refusal is None else None
    return page(
        request, scope, "charging/place_voucher.html", title=_("Pay with a voucher"), status=status, place=place,
        location=evse.station.location, terms=terms, wish=paid.new_wish(), profile=await brands.get_profile(scope),
        offer=offer if offer is not None and offer.is_enough else None, **await _costs(scope, evse, terms), **form,
    )  # fmt: skip


@post("/c/{code:str}/voucher", opt={"public": True})
async def start_by_voucher(request: AnyRequest, code: str) -> Response[Any]:
    """To the session's page. As `start`: the same form twice is one wish, and what was not read is not agreed to."""
    visit, form = visit_of(request), await read_form(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        evse = await stations.find_place(scope, code)
        try:
            return redirect(request, await _wish_by_voucher(scope, visit, evse, form))
        except (Invalid, Refused, TooMany) as error:
            return await _shown_again(request, scope, code, form, error, _voucher_page)


async def _wish_by_voucher(scope: Scope, visit: Visit, evse: EVSE, form: Form) -> str:
    wish, email = form.text("wish")[:64], form.text("email")
    way = await voucher_starts.find_way(scope, evse)
    await startable.lock_evse(scope, evse.id)
    session = await paid.find_by_wish(scope, evse.id, wish, email)
    if session is None:
        if way is None or form.text("terms") != (await _terms(scope, evse, way)).digest:
            raise Refused("price_changed", PRICE_CHANGED)
        if email:
            check_email(email, "email")
        session = await voucher_starts.request_start(
            scope, evse, way, form.text("voucher"), email=email, language=visit.language, origin=visit.origin,
            remote=visit.remote,
        )  # fmt: skip
        paid.keep_wish(session, evse.id, wish)
    return f"/s/{paid.link_of(scope, session.id)}"


def _is_own_card(scope: Scope, evse: EVSE, form: Form) -> bool:
    is_free = evse.station.location is not None and evse.station.location.is_free_vend
    return "card" in form and scope.actor.kind == "driver" and not is_free


def _is_saved_card(way: account.Way, form: Form) -> bool:
    return way.saved is not None and form.text("saved_card") == public_id("saved_card", way.saved.id)


def _page_of(scope: Scope, session: ChargingSession, *, is_own: bool) -> str:
    return _own_base(session.id) if is_own else f"/s/{paid.link_of(scope, session.id)}"


async def _checkout_url(visit: Visit, op_id: UUID, session_id: UUID) -> str | None:
    try:
        await payments.run_op(visit.database, visit.tenant, op_id)
    except OutcomeUnknown:
        return None  # the janitor asks again; the session's page says that it waits
    return (await _open_checkout(visit, session_id))[0]


async def _open_checkout(visit: Visit, session_id: UUID) -> tuple[str | None, bool]:
    """(where a card is still waited for, is that page still being made)."""
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        session = await service.get_session(scope, session_id)
        payment = await payments.find_payment(scope, "charging_session", session_id)
        if session.status != "PENDING" or payment is None or payment.state not in payments.OPEN:
            return None, False
        return payment.checkout_url, payment.checkout_ref is None


async def _other_taps_checkout(visit: Visit, session_id: UUID) -> str | None:
    """The first tap asks the provider for the payment page right now: whoever tapped twice sees that page."""
    url, is_being_made = await _open_checkout(visit, session_id)
    until = asyncio.get_running_loop().time() + OTHER_TAP_TAKES_S
    while is_being_made and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.2)
        url, is_being_made = await _open_checkout(visit, session_id)
    return url


# -- one session: at `/s/{link}` for whoever has the address, below `/account` for its driver ------------------------


async def _session_page(request: AnyRequest, scope: Scope, session_id: UUID, base: str) -> Response[str]:
    """Coming back from the payment page is news: the provider is asked at once, whether or not its webhook came."""
    shown = await _shown(scope, base, session_id, has_returned="paid" in request.query_params)
    payment = shown["payment"]
    comes_back = shown["has_returned"] or "canceled" in request.query_params
    if payment is not None and payment.state in payments.OPEN and comes_back:
        await payments.watch(scope, shown["legs"][-1].id)
    return page(
        request, scope, "charging/guest.html", title=_("Your session"),
        profile=await brands.get_profile(scope), **shown,
    )  # fmt: skip


async def _shown(scope: Scope, base: str, session_id: UUID, *, has_returned: bool) -> dict[str, Any]:
    """`base` is the page's own address; its forms and papers lie below."""
    session = await service.get_session(scope, session_id)
    legs = await payments.list_legs(scope, "charging_session", session_id)
    payment = payments.as_one(legs)
    cdr = (await queries.cdrs_of(scope, [session.id])).get(session.id)
    collection = cdr.collection if cdr else await settlement.collection_of(scope, session)
    charged = cdr or await queries.find_credited(scope, session.id)
    by_card = payment if payment is None or payment.provider not in payments.PAID_AHEAD else None
    words = await paid.state_words(
        scope, session, by_card, collection, has_returned=has_returned,
        owed_minor=charged.incl_vat_minor if charged else None,
    )  # fmt: skip
    price = await settlement.running_price(scope, session) if charged is None else None
    cost_minor = charged.incl_vat_minor if charged else price.total_cost.incl_minor if price else None
    energy = session.energy_wh
    if energy is None and session.live is not None:
        energy = session.live.energy_wh
    if energy is not None and energy < 0:  # a meter that went back: no amount for a driver to read
        energy = None
    points = await queries.power_points(scope, session_id)
    power_w = await queries.power_now(scope, session)
    evse = await scope.db.get(EVSE, (scope.tenant_id, session.evse_id)) if session.evse_id else None
    return {
        "session": session, "payment": payment, "words": words, "base": base, "charged": charged,
        "time_zone": await _clock(scope, session.station),
        "is_credited": charged is not None and cdr is None,
        "collection": collection, "most_minor": paid.most_taken(payment, cost_minor),
        "points": points, "curve_words": _curve_words(points, session, power_w), "has_returned": has_returned,
        "price": price, "energy_wh": energy, "due_words": paid.due_words(session, payment),
        "power_w": power_w, "code": evse.code if evse else None,
        "seconds": _seconds(session, scope.now), "papers_count": len(await settlement.list_papers(scope, session_id)),
        "waived": await _waived(scope, session_id, legs), "legs": legs,
        "most_held": await off_session.most_held_minor(scope, legs),
    }  # fmt: skip


async def _waived(scope: Scope, session_id: UUID, legs: Sequence[Payment]) -> str:
    """Also of what was given back since: that does not undo what had been waived."""
    payment, words = payments.as_one(legs), paper.waived(await payments.find_settled_by(scope, legs))
    if not words and payment is not None and payment.refunded_minor:
        billed = await settlement.find_cdr(scope, session_id)
        words = paper.waived(payments.as_it_was(payment, billed.incl_vat_minor)) if billed else ""
    return words


def _seconds(session: ChargingSession, now: datetime) -> float | None:
    if session.status in ("PENDING", "INVALID"):
        return None
    return ((session.ended_at or now) - session.started_at).total_seconds()


def _curve_words(points: dict[str, list[Any]], session: ChargingSession, power_w: int | None) -> str:
    if not points["kw"]:
        return ""
    most, last = (kw(round(value * 1000)) for value in (max(points["kw"]), points["kw"][-1]))
    if session.status == "ACTIVE" and power_w is None:
        return _("Power rose to %(most)s.") % {"most": most}
    if session.status != "ACTIVE":
        return _("Power rose to %(most)s and was %(last)s at the end.") % {"most": most, "last": last}
    return _("Power rose to %(most)s and is now %(last)s.") % {"most": most, "last": last}


async def _session_live(request: AnyRequest, scope: Scope, session_id: UUID, base: str) -> Stream:
    await service.get_session(scope, session_id)
    has_returned = "paid" in request.query_params

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        shown = await _shown(scope, base, session_id, has_returned=has_returned)
        return fragment(request, "charging/_guest.html", **shown)

    return live(request, [f"session:{session_id}", f"payment:{session_id}"], render, by_clock=True)


async def _stop(request: AnyRequest, scope: Scope, session_id: UUID, base: str) -> Response[Any]:
    try:
        await service.request_stop(scope, session_id)
    except Refused as error:
        visit_of(request).is_spoiled = True
        words = paid.NOT_FROM_HERE if error.code in service.NOT_ASKED else error.message
        return redirect(request, base, flash=_(words), kind="error")
    return redirect(request, base)  # the page itself says that it stops, and goes on from there


FindSession = Callable[[Scope], Awaitable[UUID]]


async def _pay_due(request: AnyRequest, find: FindSession) -> Response[Any]:
    """To the provider's page; back to the session's where nobody answers, or nothing is due any more."""
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        session_id = await find(scope)
        op = await paid.pay_due(scope, session_id, language=visit.language, origin=visit.origin)
        back, op_id = f"/s/{paid.link_of(scope, session_id)}", op.id if op else None
    if op_id is not None:
        try:
            await payments.run_op(visit.database, visit.tenant, op_id)
        except OutcomeUnknown:
            words = _("The payment service does not answer yet. Try again in a minute.")
            return redirect(request, back, flash=words, kind="error")
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        payment = payments.as_one(await payments.list_legs(scope, "charging_session", session_id))
        url = payment.checkout_url if payment is not None and payment.is_due else None
    return Response(None, status_code=303, headers={"Location": url}) if url else redirect(request, back)


async def _get_papers(scope: Scope, session_id: UUID) -> list[Paper]:
    """Oldest first; what became of the payment the newest tells. NotFound for none."""
    papers = await settlement.list_papers(scope, session_id)
    if not papers:
        raise NotFound("receipt")
    legs = await payments.list_legs(scope, "charging_session", session_id)
    payment, settled = payments.as_one(legs), await payments.find_settled_by(scope, legs)
    given_back = await payments.list_given_back(scope, payment)
    by_id = {one.id: one for one in papers}
    return [
        Paper(
            invoice=one, settled=settled if one is papers[-1] else None, paid_by=payment, given_back=given_back,
            corrects=by_id.get(one.corrects_id) if one.corrects_id else None,
        )
        for one in papers
    ]  # fmt: skip


async def _receipt_page(request: AnyRequest, scope: Scope, session_id: UUID, base: str) -> Response[str]:
    papers, time_zone = await _get_papers(scope, session_id), visit_of(request).time_zone
    return page(
        request, scope, "charging/receipt.html", title=_("Receipt"), base=base,
        papers=[(public_id("invoice", one.invoice.id), one.content(time_zone)) for one in papers],
        with_xml={public_id("invoice", one.invoice.id) for one in papers if einvoice.find_data(one)},
        is_foreign=papers[-1].invoice.language != current(), profile=await brands.get_profile(scope),
        signed=await signed.find(scope, session_id),
    )  # fmt: skip


async def _signed_file(scope: Scope, session_id: UUID) -> Response[bytes]:
    return signed.download(await signed.file_of(scope, await service.get_session(scope, session_id)))


async def _find_paper(request: AnyRequest, scope: Scope, find: FindSession) -> Paper:
    """The paper that `?paper=` names, else the first: the invoice, whose link was mailed, stays where it was whatever
    is issued later."""
    wanted = request.query_params.get("paper")
    for one in await _get_papers(scope, await find(scope)):
        if wanted in (None, public_id("invoice", one.invoice.id)):
            return one
    raise NotFound("receipt")


async def _receipt_pdf(request: AnyRequest, find: FindSession) -> Response[bytes]:
    """It is set while no transaction is open: that takes a processor, not a database."""
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        found = await _find_paper(request, scope, find)
        theme, _hash = await faces.get_theme(scope)
        content, data = found.content(visit.time_zone, theme.primary), einvoice.find_data(found)
    return await asyncio.to_thread(einvoice.pdf_file, content, data)


async def _receipt_xml(request: AnyRequest, find: FindSession) -> Response[bytes]:
    """The same for machines, as it lies in the PDF."""
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        data = einvoice.data_of(await _find_paper(request, scope, find))
    return await asyncio.to_thread(einvoice.xml_file, data)


@get("/s/{link:str}", opt={"public": True})
async def show_session(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[str]:
    return await _session_page(request, tenant_scope, paid.read_link(tenant_scope, link), f"/s/{link}")


@get("/s/{link:str}/live", opt={"public": True})
async def live_session(request: AnyRequest, tenant_scope: Scope, link: str) -> Stream:
    return await _session_live(request, tenant_scope, paid.read_link(tenant_scope, link), f"/s/{link}")


@post("/s/{link:str}/stop", opt={"public": True})
async def stop(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[Any]:
    """From any device that has the address."""
    return await _stop(request, tenant_scope, paid.read_link(tenant_scope, link), f"/s/{link}")


@post("/s/{link:str}/cancel", opt={"public": True})
async def cancel(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[Any]:
    await paid.give_up(tenant_scope, paid.read_link(tenant_scope, link))
    return redirect(request, f"/s/{link}")


@post("/s/{link:str}/pay", opt={"public": True})
async def pay_due(request: AnyRequest, link: str) -> Response[Any]:
    return await _pay_due(request, _linked(link))


@get("/s/{link:str}/receipt", opt={"public": True})
async def show_receipt(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[str]:
    return await _receipt_page(request, tenant_scope, paid.read_link(tenant_scope, link), f"/s/{link}")


@get("/s/{link:str}/signed-data.xml", opt={"public": True})
async def download_signed(request: AnyRequest, tenant_scope: Scope, link: str) -> Response[bytes]:
    return await _signed_file(tenant_scope, paid.read_link(tenant_scope, link))


def _linked(link: str) -> FindSession:
    async def find(scope: Scope) -> UUID:
        return paid.read_link(scope, link)

    return find


@get("/s/{link:str}/receipt.pdf", opt={"public": True})
async def download_receipt(request: AnyRequest, link: str) -> Response[bytes]:
    return await _receipt_pdf(request, _linked(link))


@get("/s/{link:str}/receipt.xml", opt={"public": True})
async def download_receipt_xml(request: AnyRequest, link: str) -> Response[bytes]:
    return await _receipt_xml(request, _linked(link))


# -- the account -------------------------------------------------------------------------------------------------------


def _own_base(session_id: UUID) -> str:
    return f"/account/sessions/{public_id('charging_session', session_id)}"


async def _own(scope: Scope, shown: str) -> tuple[UUID, str]:
    """The id and the address of a session that is the driver's own. NotFound for any other."""
    session_id = parse_id("charging_session", shown)
    await account.check_own(scope, session_id)
    return session_id, _own_base(session_id)


@get("/account", opt={"permission": "self"})
async def show_history(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """By month, newest first; a month's figures are the whole month's wherever the page ends."""
    scope, time_zone = tenant_scope, visit_of(request).time_zone
    driver = await accounts.get_own(scope)
    before = request.query_params.get("before")
    rows = await account.list_history(
        scope, driver, before=parse_id("charging_session", before) if before else None, limit=PAGE + 1
    )
    shown = rows[:PAGE]
    months: dict[str, list[account.Row]] = {}
    for row in shown:
        months.setdefault(account.month_of(row[0].started_at, time_zone), []).append(row)
    since = min((account.month_start(month, time_zone) for month in months), default=scope.now)
    return page(
        request, scope, "charging/history.html", title=_("Your sessions"), is_first=not before, zone_of=account.zone_of,
        months=[(account.month_start(month, time_zone), month, found) for month, found in months.items()],
        totals=await account.totals(scope, driver, since=since, time_zone=time_zone) if months else {},
        next_before=public_id("charging_session", shown[-1][0].id) if len(rows) > PAGE else None,
    )  # fmt: skip


@get("/account/sessions.csv", opt={"permission": "self"})
async def download_history(request: AnyRequest, tenant_scope: Scope) -> Response[bytes]:
    visit = visit_of(request)
    rows = await account.list_history(tenant_scope, await accounts.get_own(tenant_scope))
    head = (
        _("Start"),
        _("End"),
        _("Place"),
        _("Charger"),
        "kWh",
        _("Cost incl. VAT"),
        _("Currency"),
        _("Card"),
        _("Time zone"),
    )
    text = await asyncio.to_thread(
        csv_text, head, [account.cells(row, visit.time_zone) for row in rows if row[0].status == "COMPLETED"]
    )
    return csv_file(f"sessions-{tenant_scope.now:%Y-%m-%d}.csv", text)


@get("/account/sessions/{session_id:str}", opt={"permission": "self"})
async def show_own_session(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[str]:
    return await _session_page(request, tenant_scope, *await _own(tenant_scope, session_id))


@get("/account/sessions/{session_id:str}/live", opt={"permission": "self"})
async def live_own_session(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Stream:
    return await _session_live(request, tenant_scope, *await _own(tenant_scope, session_id))


@post("/account/sessions/{session_id:str}/stop", opt={"permission": "self"})
async def stop_own_session(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[Any]:
    return await _stop(request, tenant_scope, *await _own(tenant_scope, session_id))


@post("/account/sessions/{session_id:str}/cancel", opt={"permission": "self"})
async def cancel_own_session(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[Any]:
    own_id, base = await _own(tenant_scope, session_id)
    await paid.give_up(tenant_scope, own_id)
    return redirect(request, base)


@post("/account/sessions/{session_id:str}/pay", opt={"permission": "self"})
async def pay_own_due(request: AnyRequest, session_id: str) -> Response[Any]:
    return await _pay_due(request, _owned(session_id))


@get("/account/sessions/{session_id:str}/receipt", opt={"permission": "self"})
async def show_own_receipt(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[str]:
    return await _receipt_page(request, tenant_scope, *await _own(tenant_scope, session_id))


@get("/account/sessions/{session_id:str}/signed-data.xml", opt={"permission": "self"})
async def download_own_signed(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[bytes]:
    return await _signed_file(tenant_scope, (await _own(tenant_scope, session_id))[0])


def _owned(session_id: str) -> FindSession:
    async def find(scope: Scope) -> UUID:
        return (await _own(scope, session_id))[0]

    return find


@get("/account/sessions/{session_id:str}/receipt.pdf", opt={"permission": "self"})
async def download_own_receipt(request: AnyRequest, session_id: str) -> Response[bytes]:
    return await _receipt_pdf(request, _owned(session_id))


@get("/account/sessions/{session_id:str}/receipt.xml", opt={"permission": "self"})
async def download_own_receipt_xml(request: AnyRequest, session_id: str) -> Response[bytes]:
    return await _receipt_xml(request, _owned(session_id))


@get("/account/closing", opt={"permission": "self"})
async def show_closing(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    await accounts.get_own(tenant_scope)
    return page(
        request,
        tenant_scope,
        "charging/closing.html",
        title=_("Close your account"),
        values={},
        errors={},
        alert=None,
    )


@post("/account/closing", opt={"permission": "self"})
async def close_account(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        await account.close(tenant_scope, form.text("email"))
    except (Invalid, Refused) as error:
        title = _("Close your account")
        return form_again(request, tenant_scope, "charging/closing.html", error, form, title=title)
    response = redirect(request, "/", flash=_("Your account is closed and your data is gone."))
    response.set_cookie(login_cookie(""))
    return response


routes = [
    show_places, show_map, find_code, show_place, start, show_voucher_form, start_by_voucher, show_session,
    live_session, stop, cancel, show_receipt,
    download_receipt, download_receipt_xml, show_history, download_history, show_own_session, live_own_session,
    stop_own_session, cancel_own_session, show_own_receipt, download_own_receipt, download_own_receipt_xml,
    show_closing, close_account, download_signed, download_own_signed, pay_due, pay_own_due,
    *saved_card_pages.routes,
]  # fmt: skip
