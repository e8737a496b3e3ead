"""Portal pages of reservations: the list, and the form that makes one."""

from datetime import timedelta
from typing import Any

from litestar import Request, Response, get, post
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.access.models import IdToken
from app.charging import reservations
from app.charging.models import Reservation
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, form_again, page, read_form, redirect
from app.stations.models import EVSE, ChargingStation
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
PAGE = 50
TABS = (("/charging-sessions", "Sessions"), ("/reservations", "Reservations"))
STATES = {
    "asked": ("info", "send", "Asked"), "active": ("warning", "clock", "Kept"),
    "refused": ("error", "circle-x", "Refused"), "unknown": ("warning", "circle-help", "No answer"),
    "used": ("success", "check", "Used"), "cancelled": ("", "ban", "Cancelled"), "expired": ("", "timer", "Expired"),
    "removed": ("error", "triangle-alert", "Given up"),
}  # fmt: skip
TYPES = [
    ("", "Any connector"), ("sType2", "Type 2 socket"), ("cType2", "Type 2 cable"), ("cCCS2", "CCS (Combo 2)"),
    ("cG105", "CHAdeMO"), ("cCCS1", "CCS (Combo 1)"), ("cType1", "Type 1 cable"), ("sCEE-7-7", "Household socket"),
]  # fmt: skip
MINUTES = [
    ("15", "15 minutes"),
    ("30", "30 minutes"),
    ("60", "An hour"),
    ("180", "3 hours"),
    ("720", "12 hours"),
]


def tabs(current: str) -> list[dict[str, Any]]:
    return [{"href": href, "label": label, "current": href == current} for href, label in TABS]


@get("/reservations", opt={"permission": "sessions.view"})
async def list_reservations(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    after = request.query_params.get("after")
    query = (
        select(Reservation)
        .options(
            selectinload(Reservation.station).selectinload(ChargingStation.location),
            selectinload(Reservation.id_token).selectinload(IdToken.driver),
        )
        .order_by(Reservation.id.desc())
        .limit(PAGE + 1)
    )
    if after:
        query = query.where(Reservation.id < parse_id("reservation", after))
    rows = list((await tenant_scope.db.execute(query)).scalars())
    more = public_id("reservation", rows[PAGE - 1].id) if len(rows) > PAGE else None
    return page(
        request, tenant_scope, "charging/reservations.html", title="Reservations", tabs=tabs("/reservations"),
        rows=[(public_id("reservation", row.id), row) for row in rows[:PAGE]], states=STATES, next_after=more,
        is_first=not after, words=reservations.in_words, open_states=reservations.OPEN,
    )  # fmt: skip


@get("/reservations/new", opt={"permission": "sessions.manage"})
async def new_reservation(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    values = {"place": request.query_params.get("place", ""), "minutes": "30"}
    return page(
        request, tenant_scope, "charging/reservation_new.html", title="New reservation", values=values, errors={},
        alert=None, **await _choices(tenant_scope),
    )  # fmt: skip


async def _choices(scope: Scope) -> dict[str, Any]:
    """Where: a station's id for any of its EVSEs, an EVSE's id for this one. Which card: those that may charge."""
    query = (
        select(ChargingStation)
        .where(ChargingStation.retired_at.is_(None))
        .options(selectinload(ChargingStation.evses), selectinload(ChargingStation.location))
        .order_by(ChargingStation.ocpp_identity)
    )
    places = []
    for station in (await scope.db.execute(query)).scalars():
        name = station.name or station.ocpp_identity
        site = f", {station.location.name}" if station.location else ""
        places.append((public_id("charging_station", station.id), f"{name}{site}: any EVSE"))
        places += [
            (public_id("evse", evse.id), f"{name}{site}: EVSE {evse.evse_no}") for evse in station.evses
        ]
    tokens = (
        select(IdToken)
        .where(IdToken.is_single_use.is_(False), IdToken.status == "accepted")
        .options(selectinload(IdToken.driver))
        .order_by(IdToken.id.desc())
        .limit(500)
    )
    cards = [
        (public_id("id_token", one.id), " · ".join(filter(None, [
            one.driver.name if one.driver else "", one.label, one.masked,
        ])))
        for one in (await scope.db.execute(tokens)).scalars()
    ]  # fmt: skip
    return {"places": places, "cards": cards, "types": TYPES, "durations": MINUTES}


@post("/reservations", opt={"permission": "sessions.manage"})
async def create_reservation(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        minutes = form.integer("minutes") or 30
        if not 1 <= minutes <= 7 * 24 * 60:
            raise Invalid.field("minutes", "out_of_range", "A reservation lasts up to a week.")
        station_id, evse_id = await _place(tenant_scope, form)
        await reservations.reserve(
            tenant_scope, station_id, evse_id=evse_id, id_token_id=_card(form),
            expires_at=tenant_scope.now.replace(microsecond=0) + timedelta(minutes=minutes),
            connector_type=form.text("connector_type") or None, for_group=form.flag("for_group"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "charging/reservation_new.html", error, form, title="New reservation",
            **await _choices(tenant_scope),
        )  # fmt: skip
    return redirect(request, "/reservations", flash="The station is asked to keep it.")


async def _place(scope: Scope, form: Form) -> tuple[Any, Any]:
    text = form.text("place")
    try:
        if text.startswith("evs_"):
            evse = await scope.db.get(EVSE, (scope.tenant_id, parse_id("evse", text)))
            if evse is None:
                raise NotFound("evse")
            return evse.station_id, evse.id
        return parse_id("charging_station", text), None
    except NotFound:
        raise Invalid.field("place", "not_found", "Choose what shall be kept.") from None


def _card(form: Form) -> Any:
    try:
        return parse_id("id_token", form.text("id_token_id"))
    except NotFound:
        raise Invalid.field("id_token_id", "not_found", "Choose a card.") from None


@post("/reservations/{reservation_id:str}/cancellations", opt={"permission": "sessions.manage"})
async def cancel_reservation(request: AnyRequest, tenant_scope: Scope, reservation_id: str) -> Response[Any]:
    try:
        await reservations.cancel(tenant_scope, parse_id("reservation", reservation_id))
    except Refused as error:
        return redirect(request, "/reservations", flash=error.message, kind="error")
    return redirect(request, "/reservations", flash="The station is asked to cancel it.")


routes = [list_reservations, new_reservation, create_reservation, cancel_reservation]
