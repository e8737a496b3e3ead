"""REST: what card terminals of others and their acquirers tell (contract.md)."""

from typing import Any

from litestar import Response, get, post
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.billing import terminals
from app.billing.models import Payment, TerminalRecord
from app.charging import terminal_sessions
from app.kernel.ids import public_id
from app.kernel.rest import listed, money, rfc3339
from tenants.scope import Scope


@post("/terminal-records", opt={"permission": "terminal_records.manage"}, tags=["money"],
      summary="What a card terminal or its acquirer tells of a card payment")  # fmt: skip
async def take_record(tenant_scope: Scope, data: dict[str, Any]) -> Response[dict[str, Any]]:
    """`terminal` (serial number or id), `record_id` (once per terminal: told again it is answered with 200),
    `transaction_id`, `kind` authorized, settled or reversed, `amount`, `at`; where known `card` (masked),
    `approval_code`, `evse`, `session` (our id, or the station's of its transaction). In any order. Errors:
    `record_differs`, `already_settled`, `reversed_too_high`, `other_currency`."""
    amount = data.get("amount")
    flat = data | ({"amount": amount.get("amount"), "currency": amount.get("currency")}
                   if isinstance(amount, dict) else {})  # fmt: skip
    told = await terminal_sessions.read_told(tenant_scope, flat)
    row, is_new = await terminal_sessions.take(tenant_scope, told)
    return Response(await _record(tenant_scope, row), status_code=201 if is_new else 200)


@get("/terminal-records", opt={"permission": "invoices.view"}, summary="Records of card terminals, newest first",
     tags=["money"])  # fmt: skip
async def list_records(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    query = select(TerminalRecord).options(selectinload(TerminalRecord.terminal))
    found = await listed(tenant_scope, query, TerminalRecord.id, "terminal_record", limit, after)
    return found.answer([await _record(tenant_scope, row) for row in found.rows])


@get(
    "/payment-terminals",
    opt={"permission": "invoices.view"},
    summary="Registered card terminals",
    tags=["money"],
)
async def list_terminals(tenant_scope: Scope) -> dict[str, Any]:
    rows = await terminals.list_terminals(tenant_scope)
    return {
        "data": [
            {
                "id": public_id("payment_terminal", row.id), "name": row.name, "vendor": row.vendor,
                "serial": row.serial, "acquirer": row.acquirer, "contract_no": row.contract_no,
                "location_id": public_id("location", row.location_id),
                "station_id": public_id("charging_station", row.station_id) if row.station_id else None,
                "retired_at": rfc3339(row.retired_at),
            }
            for row in rows
        ],
        "next_cursor": None,
    }  # fmt: skip


async def _record(scope: Scope, row: TerminalRecord) -> dict[str, Any]:
    """`state`: matched (`payment_id`, `session_id`), unmatched or dismissed."""
    payment = await scope.db.get(Payment, (scope.tenant_id, row.payment_id)) if row.payment_id else None
    return {
        "id": public_id("terminal_record", row.id), "terminal_id": public_id("payment_terminal", row.terminal_id),
        "record_id": row.record_ref, "transaction_id": row.transaction_ref, "kind": row.kind,
        "amount": money(row.amount_minor, row.currency), "at": rfc3339(row.at), "card": row.card or None,
        "approval_code": row.approval_code or None,
        "state": "unmatched" if row.is_waiting else "dismissed" if row.dismissed_at else "matched",
        "payment_id": public_id("payment", payment.id) if payment else None,
        "session_id": public_id("charging_session", payment.source_id) if payment else None,
    }  # fmt: skip


routes = [take_record, list_records, list_terminals]
