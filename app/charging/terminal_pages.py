"""Portal pages of card terminals of others: which there are, what they told, and what their acquirers paid out."""

from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import UploadFile
from sqlalchemy import select

from app.billing import payments, terminals
from app.billing.models import Payment, TerminalRecord
from app.charging import terminal_sessions
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, NavItem, form_again, page, read_form, redirect, visit_of
from app.stations import service as stations
from app.stations.models import ChargingStation
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Card terminals", "/terminals", "credit-card", "invoices.view", order=54)]
LIST, RECORDS, RECORD = (
    "charging/terminals.html",
    "charging/terminal_records.html",
    "charging/terminal_record.html",
)
PAGE = 50
KINDS = {"authorized": "Authorised", "settled": "Settled", "reversed": "Reversed"}


# -- the terminals, and what their acquirers owe ----------------------------------------------------------------------


@get("/terminals", opt={"permission": "invoices.view"})
async def list_terminals(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, LIST, values={}, errors={}, alert=None, **await _terminals(tenant_scope)
    )


async def _terminals(scope: Scope) -> dict[str, Any]:
    places = await stations.list_locations(scope)
    query = select(ChargingStation).where(ChargingStation.retired_at.is_(None))
    chargers = list((await scope.db.execute(query.order_by(ChargingStation.id))).scalars())
    clearing = await terminals.list_clearing(scope)
    return {
        "title": "Card terminals", "waiting": await terminals.count_waiting(scope), "clearing": clearing,
        "rows": [(public_id("payment_terminal", one.id), one) for one in await terminals.list_terminals(scope)],
        "payouts": await terminals.list_payouts(scope), "days": terminals.PAID_WITHIN.days,
        "contracts": [(f"{one.contract}|{one.currency}", one.contract) for one in clearing],
        "short": len(await payments.list_short(scope)),
        # One choice says where it stands: a site, or one charger of it.
        "places": [
            choice
            for one in places
            for choice in (
                (public_id("location", one.id), one.name),
                *((public_id("charging_station", station.id), f"{one.name}: only {_name(station)}")
                  for station in chargers if station.location_id == one.id),
            )
        ],
    }  # fmt: skip


def _name(station: ChargingStation) -> str:
    return station.name or station.ocpp_identity


@post("/terminals", opt={"permission": "invoices.manage"})
async def register_terminal(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        location_id, station_id = await _place(tenant_scope, form)
        fields = {name: form.text(name) for name in terminals.FIELDS}
        await terminals.register(tenant_scope, fields, location_id=location_id, station_id=station_id)
    except (Invalid, Refused) as error:
        return form_again(request, tenant_scope, LIST, error, form, **await _terminals(tenant_scope))
    return redirect(request, "/terminals", flash="The terminal is registered.")


async def _place(scope: Scope, form: Form) -> tuple[UUID | None, UUID | None]:
    wanted = form.text("location_id")
    try:
        if wanted.startswith("sta_"):
            station = await stations.get_station(scope, parse_id("charging_station", wanted))
            return station.location_id, station.id
        return (parse_id("location", wanted) if wanted else None), None
    except NotFound:
        return None, None


@post("/terminals/{terminal_id:str}/retirements", opt={"permission": "invoices.manage"})
async def retire_terminal(request: AnyRequest, tenant_scope: Scope, terminal_id: str) -> Response[Any]:
    await terminals.retire(tenant_scope, parse_id("payment_terminal", terminal_id))
    return redirect(request, "/terminals", flash="The terminal starts no session any more.")


@post("/terminals/payouts", opt={"permission": "invoices.manage"})
async def record_payout(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    contract, _bar, currency = form.text("contract").rpartition("|")
    try:
        await terminals.record_payout(
            tenant_scope, contract=contract, currency=currency, amount=form.text("amount"), fee=form.text("fee"),
            paid_on=form.text("paid_on"), reference=form.text("reference"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(request, tenant_scope, LIST, error, form, **await _terminals(tenant_scope))
    return redirect(request, "/terminals", flash="The payout is booked.")


# -- what was told -----------------------------------------------------------------------------------------------------


@get("/terminal-records", opt={"permission": "invoices.view"})
async def list_records(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, RECORDS, values={}, errors={}, alert=None, faults=[],
        **await _records(tenant_scope, request.query_params),
    )  # fmt: skip


async def _records(scope: Scope, params: Any) -> dict[str, Any]:
    after, is_waiting = params.get("after"), params.get("show") == "unmatched"
    rows = await terminals.list_records(
        scope, is_waiting=is_waiting, after=parse_id("terminal_record", after) if after else None, limit=PAGE + 1
    )  # fmt: skip
    return {
        "title": "Records of card terminals", "kinds": KINDS, "is_first": not after,
        "show": "unmatched" if is_waiting else "", "waiting": await terminals.count_waiting(scope),
        "rows": [(public_id("terminal_record", row.id), row, await _paid_for(scope, row)) for row in rows[:PAGE]],
        "next_after": public_id("terminal_record", rows[PAGE - 1].id) if len(rows) > PAGE else None,
        "short": [(public_id("payment", one.id), one, minor, public_id("charging_session", one.source_id))
                  for one, minor in await payments.list_short(scope)],
        "has_terminals": bool(await terminals.list_terminals(scope)), "columns": ", ".join(terminal_sessions.COLUMNS),
    }  # fmt: skip


async def _paid_for(scope: Scope, row: TerminalRecord) -> str | None:
    payment = await scope.db.get(Payment, (scope.tenant_id, row.payment_id)) if row.payment_id else None
    return public_id("charging_session", payment.source_id) if payment else None


@post("/terminal-records", opt={"permission": "invoices.manage"}, request_max_body_size=2_000_000)
async def import_records(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """A file as COLUMNS name it: all of it, or nothing and what is wrong with which line."""
    upload = (await request.form()).get("file")
    form = await read_form(request)
    faults = list[terminal_sessions.Fault]()
    try:
        raw = await upload.read(terminal_sessions.MAX_BYTES + 1) if isinstance(upload, UploadFile) else b""
        if not raw:
            raise Invalid.field("file", "required", "Choose a file.")
        new, known, faults = await terminal_sessions.import_file(tenant_scope, raw)
        if faults:
            lines = "1 line is" if len(faults) == 1 else f"{len(faults):,} lines are"
            raise Invalid.field("file", "lines", f"{lines} wrong: nothing was taken.")
    except Invalid as error:
        return form_again(
            request, tenant_scope, RECORDS, error, form, faults=faults[:50], **await _records(tenant_scope, {})
        )  # fmt: skip
    said = f"{new:,} new {'record' if new == 1 else 'records'}, {known:,} known already."
    return redirect(request, "/terminal-records", flash=said)


@get("/terminal-records/{record_id:str}", opt={"permission": "invoices.view"})
async def show_record(request: AnyRequest, tenant_scope: Scope, record_id: str) -> Response[str]:
    shown = await _record(tenant_scope, record_id)
    return page(request, tenant_scope, RECORD, values={}, errors={}, alert=None, **shown)


async def _record(scope: Scope, record_id: str) -> dict[str, Any]:
    row = await terminals.get_record(scope, parse_id("terminal_record", record_id))
    told = await terminals.list_transaction(scope, row.terminal_id, row.transaction_ref)
    payment = await payments.get_payment(scope, row.payment_id) if row.payment_id else None
    candidates = await terminal_sessions.list_candidates(scope, row) if row.is_waiting else []
    return {
        "title": f"Card payment {row.transaction_ref}", "id": record_id, "row": row, "told": told, "kinds": KINDS,
        "sums": terminals.add_up(told), "payment": payment,
        "payment_id": public_id("payment", payment.id) if payment else None,
        "session_id": public_id("charging_session", payment.source_id) if payment else None,
        "short_minor": await payments.find_short(scope, payment) if payment else 0,
        "back": await payments.find_back(scope, payment),
        "candidates": [(public_id("charging_session", one.session.id), one) for one in candidates],
    }  # fmt: skip


@post("/terminal-records/{record_id:str}/matches", opt={"permission": "invoices.manage"})
async def match_record(request: AnyRequest, tenant_scope: Scope, record_id: str) -> Response[Any]:
    form = await read_form(request)
    key, path = parse_id("terminal_record", record_id), f"/terminal-records/{record_id}"
    try:
        session_id = parse_id("charging_session", form.text("session_id"))
        await terminal_sessions.match(tenant_scope, key, session_id)
    except NotFound:
        error = Invalid.field("session_id", "unknown", "Choose a session, or give its id (ses_…).")
        return form_again(
            request, tenant_scope, RECORD, error, form, **await _record(tenant_scope, record_id)
        )
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    return redirect(request, path, flash="It pays for that session now.")


@post("/terminal-records/{record_id:str}/dismissals", opt={"permission": "invoices.manage"})
async def dismiss_record(request: AnyRequest, tenant_scope: Scope, record_id: str) -> Response[Any]:
    form, path = await read_form(request), f"/terminal-records/{record_id}"
    try:
        await terminals.dismiss(tenant_scope, parse_id("terminal_record", record_id), form.text("note"))
    except Invalid as error:
        return form_again(
            request, tenant_scope, RECORD, error, form, **await _record(tenant_scope, record_id)
        )
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    return redirect(request, path, flash="Dismissed, with its reason.")


@post("/terminal-records/{record_id:str}/write-offs", opt={"permission": "invoices.manage"})
async def write_off(request: AnyRequest, tenant_scope: Scope, record_id: str) -> Response[Any]:
    form, path = await read_form(request), f"/terminal-records/{record_id}"
    row = await terminals.get_record(tenant_scope, parse_id("terminal_record", record_id))
    try:
        if row.payment_id is None:
            raise Refused("nothing_short", "This card payment is no session's yet: nothing of it lacks.")
        await payments.write_off_short(tenant_scope, row.payment_id, form.text("reason"))
    except Invalid as error:
        return form_again(
            request, tenant_scope, RECORD, error, form, **await _record(tenant_scope, record_id)
        )
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    return redirect(request, path, flash="Written off.")


routes = [
    list_terminals, register_terminal, retire_terminal, record_payout, list_records, import_records, show_record,
    match_record, dismiss_record, write_off,
]  # fmt: skip
