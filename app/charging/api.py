"""REST: charging sessions and CDRs (contract.md)."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.access.verdict import IdTokenValue
from app.billing import payments
from app.billing.models import Payment, RefundRequest
from app.charging import energy_api, readings_api, refunds, service, settlement, signed, terminal_api
from app.charging.models import CDR, ChargingSession
from app.kernel.errors import Invalid, NotFound
from app.kernel.ids import parse_id, public_id
from app.kernel.money import Money, to_decimal
from app.kernel.rest import listed, read_id, rfc3339
from app.stations.models import StationCommand
from app.stations.service import find_evse
from tenants.scope import Scope


@post("/charging-sessions", status_code=202, opt={"permission": "sessions.manage"}, summary="Start remotely",
      tags=["sessions"])  # fmt: skip
async def start_session(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    """Refused where nothing could come of it (`station_offline`, `evse_busy`, `no_tariff`, `token_blocked` …).
    `charging_profile` (`unit`, `periods`, …) limits its transaction."""
    evse_id = read_id("evse", data, "evse_id") or await _evse_of(tenant_scope, data)
    limit = data.get("charging_profile")
    if limit is not None and not isinstance(limit, dict):
        raise Invalid.field("charging_profile", "object", "charging_profile holds unit and periods.")
    session, command = await service.request_start(
        tenant_scope, evse_id=evse_id, presented=_presented(data),
        limit=energy_api.read_wish(limit, "charging_profile.") if limit is not None else None,
    )  # fmt: skip
    shown = _session(await service.get_session(tenant_scope, session.id))
    return shown | {"command": _command(command)}


async def _evse_of(scope: Scope, data: dict[str, Any]) -> UUID:
    station_id, evse_no = read_id("charging_station", data, "station_id"), data.get("evse_no")
    if station_id is None or not isinstance(evse_no, int):
        raise Invalid.field("evse_id", "required", "Say evse_id, or station_id and evse_no.")
    evse = await find_evse(scope, station_id, evse_no)
    if evse is None:
        raise Invalid.field("evse_no", "not_found", "The station has no such EVSE.")
    return evse.id


def _presented(data: dict[str, Any]) -> IdTokenValue | None:
    token = data.get("id_token")
    if token is None:
        return None
    if not isinstance(token, dict) or not isinstance(token.get("value"), str) or not token["value"].strip():
        raise Invalid.field("id_token.value", "required", "id_token holds type and value.")
    kind = token.get("type")
    return IdTokenValue(token["value"], str(kind) if kind else None)


@get(
    "/charging-sessions",
    opt={"permission": "sessions.view"},
    summary="Sessions, newest first",
    tags=["sessions"],
)
async def list_sessions(
    tenant_scope: Scope, limit: int = 50, after: str | None = None, status: str | None = None
) -> dict[str, Any]:
    query = select(ChargingSession).options(
        selectinload(ChargingSession.live), selectinload(ChargingSession.evse)
    )
    if status:
        query = query.where(ChargingSession.status == status)
    found = await listed(tenant_scope, query, ChargingSession.id, "charging_session", limit, after)
    return found.answer([_session(row) for row in found.rows])


@get("/charging-sessions/{session_id:str}", opt={"permission": "sessions.view"}, summary="One session, with its cost",
     tags=["sessions"])  # fmt: skip
async def get_session(tenant_scope: Scope, session_id: str) -> dict[str, Any]:
    row = await service.get_session(tenant_scope, parse_id("charging_session", session_id))
    price = await settlement.running_price(tenant_scope, row)
    told = signed.shown(await signed.find(tenant_scope, row.id))
    return _session(row) | {"cost": price.as_json() if price else None, "signed_data": told}


@get("/charging-sessions/{session_id:str}/signed-data", opt={"permission": "id_tokens.reveal"}, tags=["sessions"],
     summary="What its meter signed, as the XML that transparency software opens")  # fmt: skip
async def get_signed_data(tenant_scope: Scope, session_id: str) -> Response[bytes]:
    row = await service.get_session(tenant_scope, parse_id("charging_session", session_id))
    return signed.download(await signed.file_of(tenant_scope, row))


@post("/charging-sessions/{session_id:str}/stop-requests", status_code=202, opt={"permission": "sessions.manage"},
      summary="Ask the station to stop", tags=["sessions"])  # fmt: skip
async def stop_session(tenant_scope: Scope, session_id: str) -> dict[str, Any]:
    return _command(await service.request_stop(tenant_scope, parse_id("charging_session", session_id)))


@post("/charging-sessions/{session_id:str}/review-decisions", status_code=200, opt={"permission": "sessions.manage"},
      summary="Release or void a session under review", tags=["sessions"])  # fmt: skip
async def decide_review(tenant_scope: Scope, session_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_session", session_id)
    await service.decide_review(
        tenant_scope,
        key,
        str(data.get("decision") or ""),
        str(data.get("note") or ""),
        energy_wh=data.get("energy_wh"),
    )
    return _session(await service.get_session(tenant_scope, key))


def _session(row: ChargingSession) -> dict[str, Any]:
    live = row.live if row.status == "ACTIVE" else None
    return {
        "id": public_id("charging_session", row.id), "status": row.status, "review": row.review,
        "station_id": public_id("charging_station", row.station_id),
        "evse_id": public_id("evse", row.evse_id) if row.evse_id else None, "evse_no": row.evse_no,
        "connector_no": row.connector_no, "ocpp_transaction_id": row.ocpp_transaction_id, "origin": row.origin,
        "id_token_masked": row.id_token_masked, "id_token_status": row.id_token_status,
        "driver_id": public_id("driver", row.driver_id) if row.driver_id else None,
        "started_at": rfc3339(row.started_at), "ended_at": rfc3339(row.ended_at),
        "meter_start_wh": row.meter_start_wh, "meter_stop_wh": row.meter_stop_wh,
        "energy_wh": row.energy_wh if row.energy_wh is not None else (live.energy_wh if live else None),
        "power_w": live.power_w if live else None, "stopped_reason": row.stopped_reason,
        "is_offline": row.is_offline,
    }  # fmt: skip


def _command(row: StationCommand) -> dict[str, Any]:
    return {"id": public_id("station_command", row.id), "action": row.action, "status": row.status}


# --- refunds -----------------------------------------------------------------------------------------------------


@post("/refunds", status_code=201, opt={"permission": "invoices.manage"}, summary="Give a guest's payment back",
      tags=["money"])  # fmt: skip
async def refund_payment(tenant_scope: Scope, data: dict[str, Any]) -> Response[dict[str, Any]]:
    """All of it, with a credit note over what was supplied, or `amount` of it, with one over that part. The provider is
    asked after the answer: see `state` in GET /payments. Of a session with several payments (`leg`) the latest gives
    back first, whichever is asked: this is the last of their refunds. Above the brand's limit it waits for a member of
    staff (202, `state` waiting), and keeps its id."""
    payment_id, reason = read_id("payment", data, "payment_id"), data.get("reason")
    if payment_id is None:
        raise Invalid.field("payment_id", "required", "Say payment_id.")
    if not isinstance(reason, str) or not reason.strip():
        raise Invalid.field("reason", "required", "Say in a sentence why.")
    payment = await payments.get_payment(tenant_scope, payment_id)
    amount = _part(payment, data.get("amount"))
    made = await refunds.ask_refund(tenant_scope, payment_id, reason, amount_minor=amount)
    if isinstance(made, RefundRequest):
        return Response(payments.request_as_json(made), status_code=202)
    return Response(payments.refund_as_json(payment, made), status_code=201)


def _part(payment: Payment, amount: Any) -> int | None:
    """None: all of it."""
    if amount is None:
        return None
    try:
        asked = Money.parse(amount["amount"], amount["currency"])
    except (ValueError, TypeError, KeyError):
        raise Invalid.field(
            "amount", "amount", 'amount is like {"amount": "12.50", "currency": "EUR"}.'
        ) from None
    if asked.currency != payment.currency:
        raise Invalid.field("amount", "currency", f"This payment was taken in {payment.currency}.")
    return asked.amount_minor


# --- CDRs --------------------------------------------------------------------------------------------------------


@get("/cdrs", opt={"permission": "invoices.view"}, summary="CDRs, newest first", tags=["money"])
async def list_cdrs(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(CDR), CDR.id, "cdr", limit, after)
    return found.answer([_cdr(row) for row in found.rows])


@get("/cdrs/{cdr_id:str}", opt={"permission": "invoices.view"}, summary="One CDR", tags=["money"])
async def get_cdr(tenant_scope: Scope, cdr_id: str) -> dict[str, Any]:
    row = await tenant_scope.db.get(CDR, (tenant_scope.tenant_id, parse_id("cdr", cdr_id)))
    if row is None:
        raise NotFound("cdr")
    return _cdr(row)


def _cdr(row: CDR) -> dict[str, Any]:
    """OCPI's words: total_energy in kWh, costs as text."""
    return {
        "id": public_id("cdr", row.id), "session_id": public_id("charging_session", row.session_id),
        "start_date_time": rfc3339(row.started_at), "end_date_time": rfc3339(row.ended_at),
        "total_energy": float(Decimal(row.energy_wh) / 1000), "currency": row.currency,
        "total_cost": {
            "excl_vat": str(to_decimal(row.excl_vat_minor, row.currency)),
            "incl_vat": str(to_decimal(row.incl_vat_minor, row.currency)),
        },
        "credit": row.kind == "credit",
        "credit_reference_id": public_id("cdr", row.corrects_id) if row.corrects_id else None,
        "charging_periods": row.charging_periods, "cdr_location": row.location, "price": row.price,
        "tariff": row.tariff, "collection": row.collection, "last_updated": rfc3339(row.created_at),
    }  # fmt: skip


routes = [
    start_session,
    list_sessions,
    get_session,
    get_signed_data,
    stop_session,
    decide_review,
    refund_payment,
    list_cdrs,
    get_cdr,
    *energy_api.routes,
    *readings_api.routes,
    *terminal_api.routes,
]
