"""Portal pages of sessions: list, live detail, start, stop, review, correction."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from litestar import Request, Response, get, post
from litestar.response import Stream

from app.access.verdict import IdTokenValue
from app.billing import outcomes, payments
from app.billing.models import RefundRequest
from app.billing.service import list_invoices_of
from app.brands import faces
from app.brands import service as brands
from app.charging import (
    card_pages,
    holds,
    host_pages,
    limit_pages,
    paid,
    queries,
    refunds,
    rerating_pages,
    reservation_pages,
    service,
    settlement,
    signed,
    stickers,
    terminal_pages,
    transaction_status,
)
from app.charging.models import CDR, ChargingSession
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.money import Money, exponent, to_decimal
from app.kernel.spreadsheet import Cell, csv_file, csv_text
from app.kernel.web import NavItem, form_again, fragment, live, page, read_form, redirect, visit_of
from app.stations import service as stations
from app.stations.models import EVSE, StationCommand
from app.tariffs import service as tariffs
from app.tariffs.explain import free_in_short, in_short
from app.tariffs.ocpi_tariff import read_tariff
from tenants.resolve import own_url
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Sessions", "/charging-sessions", "activity", "sessions.view", order=30),
    *host_pages.nav,
    *terminal_pages.nav,
]
PAGE, EXPORT = 50, 5000


def _wanted(params: Any) -> queries.Filter:
    station = params.get("station", "")
    try:
        station_id = parse_id("charging_station", station) if station else None
    except NotFound:
        station_id = None
    return queries.Filter(
        state=params.get("state", ""),
        station_id=station_id,
        since=_day(params.get("since")),
        until=_day(params.get("until")),
    )


def _day(value: str | None) -> date | None:
    """What is no day of our time narrows nothing."""
    try:
        day = date.fromisoformat(value or "")
    except ValueError:
        return None
    return day if 2000 <= day.year < 2200 else None


def _row(session: ChargingSession, cdr: CDR | None, scope: Scope) -> dict[str, Any]:
    energy = session.energy_wh
    if energy is None and session.live is not None and session.status == "ACTIVE":
        energy = session.live.energy_wh
    return {
        "id": public_id("charging_session", session.id), "session": session, "energy_wh": energy, "cdr": cdr,
        "seconds": ((session.ended_at or scope.now) - session.started_at).total_seconds(),
        "has_begun": session.status != "PENDING" and session.not_started is None,
        "power_w": session.live.power_w if session.live and session.status == "ACTIVE" else None,
        "who": session.driver.name if session.driver else (session.id_token_masked or "no card"),
    }  # fmt: skip


@get("/charging-sessions", opt={"permission": "sessions.view"})
async def list_sessions(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    params, zone = request.query_params, visit_of(request).time_zone
    after = params.get("after")
    rows = await queries.list_sessions(
        tenant_scope, _wanted(params), time_zone=zone, limit=PAGE + 1,
        after=parse_id("charging_session", after) if after else None,
    )  # fmt: skip
    more = public_id("charging_session", rows[PAGE - 1][0].id) if len(rows) > PAGE else None
    return page(
        request, tenant_scope, "charging/list.html", title="Sessions", params=dict(params), next_after=more,
        tabs=reservation_pages.tabs("/charging-sessions"),
        rows=[_row(session, cdr, tenant_scope) for session, cdr in rows[:PAGE]], query=request.url.query,
    )  # fmt: skip


@get("/charging-sessions/live", opt={"permission": "sessions.view"})
async def live_sessions(request: AnyRequest, tenant_scope: Scope) -> Stream:
    wanted, zone = _wanted(request.query_params), visit_of(request).time_zone

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        rows = await queries.list_sessions(scope, wanted, time_zone=zone, limit=PAGE)
        return fragment(request, "charging/_rows.html", rows=[_row(one, cdr, scope) for one, cdr in rows])

    return live(request, ["sessions"], render)


@get("/charging-sessions.csv", opt={"permission": "sessions.view"})
async def export_sessions(request: AnyRequest, tenant_scope: Scope) -> Response[bytes]:
    """The same columns as on screen."""
    zone = visit_of(request).time_zone
    rows = await queries.list_sessions(
        tenant_scope, _wanted(request.query_params), time_zone=zone, limit=EXPORT
    )
    head = ("session", "started_at", "ended_at", "station", "evse", "who", "energy_wh", "status", "review", "gross",
            "currency")  # fmt: skip
    return csv_file("sessions.csv", csv_text(head, (_cells(one, cdr, tenant_scope) for one, cdr in rows)))


def _cells(session: ChargingSession, cdr: CDR | None, scope: Scope) -> list[Cell]:
    row = _row(session, cdr, scope)
    gross = to_decimal(cdr.incl_vat_minor, cdr.currency) if cdr else None
    return [
        row["id"], session.started_at.isoformat(), session.ended_at.isoformat() if session.ended_at else None,
        session.station.ocpp_identity, session.evse_no, row["who"], row["energy_wh"], session.status, session.review,
        gross, cdr.currency if cdr else None,
    ]  # fmt: skip


# --- one session -------------------------------------------------------------------------------------------------


@get("/charging-sessions/{session_id:str}", opt={"permission": "sessions.view"})
async def show_session(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[str]:
    return await _page(request, tenant_scope, session_id)


async def _page(
    request: AnyRequest,
    scope: Scope,
    session_id: str,
    *,
    error: Invalid | Refused | None = None,
    form: Any = None,
) -> Response[str]:
    session = await service.get_session(scope, parse_id("charging_session", session_id))
    parts = await _parts(scope, session) | await _curve(scope, session)
    parts["frames"] = [
        (public_id("ocpp_message", one.id), one) for one in await queries.frames_of(scope, session)
    ]
    title = f"Session at {session.station.name or session.station.ocpp_identity}"
    if error is not None:
        return form_again(request, scope, "charging/session.html", error, form, title=title, **parts)
    return page(
        request, scope, "charging/session.html", title=title, values={}, errors={}, alert=None, **parts
    )


async def _parts(scope: Scope, session: ChargingSession) -> dict[str, Any]:
    cdr = (await queries.cdrs_of(scope, [session.id])).get(session.id)
    credited = await queries.find_credited(scope, session.id) if cdr is None else None
    price = await settlement.running_price(scope, session) if cdr is None and credited is None else None
    command = (
        await scope.db.get(StationCommand, (scope.tenant_id, session.command_id))
        if session.command_id
        else None
    )
    cdrs = await queries.all_cdrs(scope, session.id)
    invoices = [one for one_cdr in cdrs for one in await list_invoices_of(scope, "cdr", one_cdr.id)]
    why_not = queries.why_not_started(session.not_started) if session.not_started else None
    paying = await _payment(scope, session)
    undecided = await holds.list_undecided(scope, session.id)
    cost_minor = cdr.incl_vat_minor if cdr else price.total_cost.incl_minor if price else None
    return paying | {
        "decide_by": undecided[0].until if undecided else None,
        "credited": credited, "most_minor": paid.most_taken(paying["payment"], cost_minor),
        "row": _row(session, cdr, scope), "session": session, "why_not": why_not, "cdr": cdr,
        "price": price, "cdrs": cdrs, "signed": await signed.find(scope, session.id),
        "invoices": [(public_id("invoice", one.id), one) for one in invoices],
        "station_id": public_id("charging_station", session.station_id), "command": command,
        "may_be_asked": session.ocpp_transaction_id is not None
        and await transaction_status.is_possible(scope, session.station_id),
        "timeline": queries.timeline(await queries.events_of(scope, session.id), session.not_started),
    }  # fmt: skip


async def _payment(scope: Scope, session: ChargingSession) -> dict[str, Any]:
    """Of the card that pays for it, where one does."""
    legs = await payments.list_legs(scope, "charging_session", session.id)
    payment = payments.as_one(legs)
    if payment is None:
        return {"payment": None}
    return {
        "payment": payment, "outcome": outcomes.outcome(payment),
        "legs": [(public_id("payment", leg.id), leg, outcomes.outcome(leg)) for leg in legs],
        "settled": await payments.find_settled_by(scope, legs), "waived_words": outcomes.WAIVED_WORDS,
    }  # fmt: skip


async def _curve(scope: Scope, session: ChargingSession) -> dict[str, Any]:
    points = await queries.power_points(scope, session.id)
    most = max(points["kw"], default=0)
    words = f"Power rose to {most:.1f} kW." if points["kw"] else "No power was reported."
    return {"points": points, "curve_words": words}


@get("/charging-sessions/{session_id:str}/live", opt={"permission": "sessions.view"})
async def live_session(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Stream:
    key = (await service.get_session(tenant_scope, parse_id("charging_session", session_id))).id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        session = await service.get_session(scope, key)
        parts = await _parts(scope, session) | await _curve(scope, session)
        return fragment(request, "charging/_session_live.html", **parts)

    return live(request, [f"session:{key}"], render)


@get("/charging-sessions/{session_id:str}/signed-data.xml", opt={"permission": "id_tokens.reveal"})
async def download_signed(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[bytes]:
    """Unchanged, so with the whole number of the card that the meter signed for."""
    session = await service.get_session(tenant_scope, parse_id("charging_session", session_id))
    return signed.download(await signed.file_of(tenant_scope, session))


@post("/charging-sessions", opt={"permission": "sessions.manage"})
async def start_session(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """A refusal goes back to the station's page with its reason."""
    form = await read_form(request)
    evse_id = parse_id("evse", form.text("evse_id"))
    station = await service.station_of(tenant_scope, evse_id)
    token = form.text("id_token")
    try:
        presented = IdTokenValue(token) if token else None
        session, _ = await service.request_start(tenant_scope, evse_id=evse_id, presented=presented)
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, f"/stations/{station}", flash=f"Not started: {error.message}", kind="error")
    return redirect(request, f"/charging-sessions/{public_id('charging_session', session.id)}")


@post("/charging-sessions/{session_id:str}/stop-requests", opt={"permission": "sessions.manage"})
async def stop_session(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[Any]:
    path = f"/charging-sessions/{session_id}"
    try:
        await service.request_stop(tenant_scope, parse_id("charging_session", session_id))
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=f"Not stopped: {error.message}", kind="error")
    return redirect(request, path, flash="The station was asked to stop.")


@post("/charging-sessions/{session_id:str}/review-decisions", opt={"permission": "sessions.manage"})
async def decide_review(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[Any]:
    form = await read_form(request)
    try:
        await service.decide_review(
            tenant_scope, parse_id("charging_session", session_id), form.text("decision"), form.text("note"),
            energy_wh=form.integer("energy_wh"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return await _page(request, tenant_scope, session_id, error=error, form=form)
    return redirect(request, f"/charging-sessions/{session_id}", flash="Decided.")


@post("/charging-sessions/{session_id:str}/signed-data-checks", opt={"permission": "sessions.manage"})
async def verify_again(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[Any]:
    path = f"/charging-sessions/{session_id}"
    try:
        session = await service.verify_again(tenant_scope, parse_id("charging_session", session_id))
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    if session.review is not None:
        return redirect(request, path, flash="It still cannot be verified.", kind="error")
    return redirect(request, path, flash="Verified: it is billed.")


@get("/cdrs/{cdr_id:str}", opt={"permission": "sessions.view"})
async def show_cdr(request: AnyRequest, tenant_scope: Scope, cdr_id: str) -> Response[Any]:
    """A CDR has no page of its own: it stands on its session's."""
    cdr = await settlement.get_cdr(tenant_scope, parse_id("cdr", cdr_id))
    return redirect(request, f"/charging-sessions/{public_id('charging_session', cdr.session_id)}")


@post("/cdrs/{cdr_id:str}/credits", opt={"permission": "invoices.manage"})
async def credit_cdr(request: AnyRequest, tenant_scope: Scope, cdr_id: str) -> Response[Any]:
    form = await read_form(request)
    cdr = await settlement.get_cdr(tenant_scope, parse_id("cdr", cdr_id))
    session_id = public_id("charging_session", cdr.session_id)
    try:
        made = await refunds.ask_credit(
            tenant_scope, cdr.id, form.text("reason"), energy_wh=form.integer("energy_wh")
        )
    except (Invalid, Refused) as error:
        return await _page(request, tenant_scope, session_id, error=error, form=form)
    if isinstance(made, RefundRequest):
        payment = public_id("payment", made.payment_id)
        words = "It gives back so much that it waits for a second pair of eyes: a colleague decides it."
        return redirect(request, f"/payments/{payment}", flash=words)
    return redirect(request, f"/charging-sessions/{session_id}", flash="A credit note was issued.")


@post("/payments/{payment_id:str}/refunds", opt={"permission": "invoices.manage"})
async def refund_payment(request: AnyRequest, tenant_scope: Scope, payment_id: str) -> Response[Any]:
    """With an `amount` that part, else all of it; above the limit it waits for a colleague."""
    form, path = await read_form(request), f"/payments/{payment_id}"
    try:
        payment = await payments.get_payment(tenant_scope, parse_id("payment", payment_id))
        amount = _amount(form.text("amount"), payment.currency) if form.text("amount") else None
        made = await refunds.ask_refund(
            tenant_scope,
            payment.id,
            form.text("reason"),
            amount_minor=amount,
            seen_count=form.integer("seen"),
        )
    except (Invalid, Refused) as error:  # the payment's page says how it stands by now
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    if isinstance(made, RefundRequest):
        return redirect(
            request, path, flash="So much waits for a second pair of eyes: a colleague decides it."
        )
    return redirect(request, path, flash="The money goes back, and a credit note was issued.")


def _amount(text: str, currency: str) -> int:
    try:
        return Money.parse(text.strip(), currency).amount_minor
    except ValueError:
        example = to_decimal(10 ** exponent(currency) * 5, currency)
        raise Invalid.field("amount", "amount", f"The amount must be one such as {example}.") from None


@post("/refunds/{refund_id:str}/approvals", opt={"permission": "invoices.manage"})
async def approve_refund(request: AnyRequest, tenant_scope: Scope, refund_id: str) -> Response[Any]:
    return await _decided(
        request, tenant_scope, refund_id, "The money goes back, and a credit note was issued.",
        lambda key: refunds.approve(tenant_scope, key),
    )  # fmt: skip


@post("/refunds/{refund_id:str}/rejections", opt={"permission": "invoices.manage"})
async def reject_refund(request: AnyRequest, tenant_scope: Scope, refund_id: str) -> Response[Any]:
    note = (await read_form(request)).text("note")
    return await _decided(
        request, tenant_scope, refund_id, "Rejected: nothing is given back.",
        lambda key: refunds.reject(tenant_scope, key, note),
    )  # fmt: skip


async def _decided(
    request: AnyRequest,
    scope: Scope,
    refund_id: str,
    told: str,
    decide: Callable[[UUID], Awaitable[RefundRequest]],
) -> Response[Any]:
    """Back to its payment, which says how it stands by now."""
    key = parse_id("refund", refund_id)
    path = f"/payments/{public_id('payment', await refunds.payment_of(scope, key))}"
    try:
        await decide(key)
    except (Invalid, Refused) as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    return redirect(request, path, flash=told)


@post("/payments/{payment_id:str}/credit-notes", opt={"permission": "invoices.manage"})
async def credit_payment(request: AnyRequest, tenant_scope: Scope, payment_id: str) -> Response[Any]:
    form, path = await read_form(request), f"/payments/{payment_id}"
    try:
        await settlement.credit_given_back(tenant_scope, parse_id("payment", payment_id), form.text("reason"))
    except (Invalid, Refused) as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    return redirect(request, path, flash="A credit note was issued. No money moves.")


# --- stickers ----------------------------------------------------------------------------------------------------


def _format(params: Any) -> stickers.Format:
    return stickers.FORMATS.get(params.get("format", ""), stickers.FORMATS["L7160"])


def _first(params: Any, form: stickers.Format) -> int:
    """The first free label, from 1; what is no label of this sheet is the first."""
    text = params.get("start", "")
    first = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 1
    return first if 1 <= first <= form.count else 1


async def _places(scope: Scope, params: Any, limit: int = stickers.MAX_STICKERS) -> list[EVSE]:
    location = params.get("location", "")
    location_id = parse_id("location", location) if location else None
    if location_id is not None:
        await stations.get_location(scope, location_id)
    return await queries.places(scope, location_id=location_id, limit=limit)


@get("/stickers", opt={"permission": "stations.view"})
async def show_stickers(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    params = request.query_params
    form = _format(params)
    places = await _places(tenant_scope, params, stickers.MAX_STICKERS + 1)
    sites = [(public_id("location", one.id), one.name) for one in await stations.list_locations(tenant_scope)]
    wanted = {"location": params.get("location", ""), "format": params.get("format", ""),
              "start": _first(params, form)}  # fmt: skip
    return page(
        request, tenant_scope, "charging/stickers.html", title="Stickers", sites=[("", "All sites"), *sites],
        formats=[(key, one.name) for key, one in stickers.FORMATS.items()], form=form, wanted=wanted,
        query=urlencode(wanted), places=[(public_id("evse", one.id), one) for one in places[: stickers.MAX_STICKERS]],
        has_more=len(places) > stickers.MAX_STICKERS, most=stickers.MAX_STICKERS,
        sheet_count=-(-(wanted["start"] - 1 + min(len(places), stickers.MAX_STICKERS)) // form.count),
    )  # fmt: skip


@get("/stickers.pdf", opt={"permission": "stations.view"})
async def download_stickers(request: AnyRequest) -> Response[bytes]:
    """Set while no transaction is open: that takes a processor, not a database."""
    params = request.query_params
    form, found = _format(params), await _stickers(request)
    pdf = await asyncio.to_thread(lambda: stickers.as_pdf(stickers.sheets(found, form, _first(params, form))))
    headers = {"Content-Disposition": 'attachment; filename="stickers.pdf"'}
    return Response(pdf, media_type="application/pdf", headers=headers)


@get("/stickers.png", opt={"permission": "stations.view"})
async def preview_stickers(request: AnyRequest) -> Response[bytes]:
    """The first sheet, as it will be printed."""
    params = request.query_params
    form = _format(params)
    first = _first(params, form)
    found = await _stickers(request, form.count - first + 1)
    png = await asyncio.to_thread(lambda: stickers.as_png(stickers.sheets(found, form, first)))
    return Response(png, media_type="image/png")


async def _stickers(request: AnyRequest, limit: int = stickers.MAX_STICKERS) -> list[stickers.Sticker]:
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        found = await _told(scope, await _places(scope, request.query_params, limit))
    if not found:
        raise NotFound("charger")
    return found


@get("/stickers/{sticker_file:str}", opt={"permission": "stations.view"})
async def download_sticker(request: AnyRequest, sticker_file: str) -> Response[str]:
    """`/stickers/evs_….svg`: one, for a print shop."""
    name, _, kind = sticker_file.partition(".")
    if kind != "svg":
        raise NotFound("sticker")
    visit, evse_id = visit_of(request), parse_id("evse", name)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        found = await _told(scope, await queries.places(scope, evse_id=evse_id, limit=1))
    if not found:
        raise NotFound("charger")
    headers = {
        "Content-Disposition": f'inline; filename="{found[0].code}.svg"',
        "Content-Security-Policy": "default-src 'none'",
    }
    return Response(stickers.as_svg(found[0]), media_type="image/svg+xml", headers=headers)


async def _told(scope: Scope, places: Sequence[EVSE]) -> list[stickers.Sticker]:
    profile, (theme, _hash) = await brands.get_profile(scope), await faces.get_theme(scope)
    language = await faces.get_language(scope)
    return [
        stickers.Sticker(
            brand=profile.name, color=theme.primary, code=evse.code, phone=profile.support_phone,
            url=await own_url(scope, "driver", f"/c/{evse.code}"), language=language,
            prices=await _short_prices(scope, evse, language),
        )
        for evse in places
    ]  # fmt: skip


async def _short_prices(scope: Scope, evse: EVSE, language: str) -> list[str]:
    """For a guest: what a driver group pays stands on no charger."""
    location = evse.station.location
    if location is not None and location.is_free_vend:
        return [free_in_short(language)]
    version = await tariffs.find_tariff_for(
        scope, driver_group_id=None, evse_id=evse.id, location_id=evse.station.location_id, at=scope.now
    )
    if version is None:
        return []
    _country, zone = await tariffs.tax_place(scope, location)
    default_vat, today = (
        await tariffs.default_vat(scope, location),
        scope.now.astimezone(ZoneInfo(zone)).date(),
    )
    return in_short(read_tariff(version.ocpi), language, default_vat, on=today)


routes = [
    show_stickers, download_stickers, preview_stickers, download_sticker,
    download_signed,
    verify_again,
    refund_payment,
    approve_refund,
    reject_refund,
    credit_payment,
    list_sessions, live_sessions, export_sessions, show_session, live_session, start_session, stop_session,
    decide_review, show_cdr, credit_cdr, *reservation_pages.routes, *limit_pages.routes,
    *card_pages.routes,
    *rerating_pages.routes,
    *host_pages.routes,
    *terminal_pages.routes,
]  # fmt: skip
