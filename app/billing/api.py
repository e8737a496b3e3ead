"""REST: invoices and the books (contract.md)."""

import asyncio
from functools import partial
from typing import Any
from uuid import UUID

from litestar import Request, Response, get
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.billing import disputes, einvoice, paper, payments, queries, wallet_api
from app.billing.models import (
    Dispute,
    Invoice,
    InvoiceLine,
    LedgerEntry,
    Payment,
    PaymentOp,
    Payout,
    ReconItem,
    ReconRun,
    RefundRequest,
)
from app.brands import faces
from app.kernel.errors import LiveryError
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, money, rfc3339
from app.kernel.web import visit_of
from tenants.scope import Scope

JSON, PDF, XML = _MEDIA_TYPES = ("application/json", "application/pdf", "application/xml")


class NotAcceptable(LiveryError):
    status = 406
    code = "not_acceptable"


@get("/invoices", opt={"permission": "invoices.view"}, summary="Invoices, receipts, credit notes, newest first",
     tags=["money"])  # fmt: skip
async def list_invoices(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(Invoice), Invoice.id, "invoice", limit, after)
    return found.answer([_invoice(row) for row in found.rows])


@get("/invoices/{invoice_id:str}", opt={"permission": "invoices.view"}, tags=["money"],
     summary="One invoice with its lines; by Accept JSON, PDF or XML")  # fmt: skip
async def get_invoice(
    request: Request[Any, Any, Any], invoice_id: str, syntax: str = "cii"
) -> Response[dict[str, Any] | bytes]:
    """`application/pdf` is PDF/A-3 with the XML in it. `application/xml` is CII by EN 16931 (Factur-X, ZUGFeRD), with
    `syntax=ubl` the XRechnung. Errors: `not_acceptable`, `not_an_invoice`, `einvoice_incomplete`, `einvoice_amounts`.
    """
    visit = visit_of(request)
    wanted = request.accept.best_match(list(_MEDIA_TYPES)) if request.headers.get("Accept") else JSON
    if wanted is None:
        raise NotAcceptable(message=f"An invoice comes as {', '.join(_MEDIA_TYPES)}.")
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        found = await paper.find_paper(scope, parse_id("invoice", invoice_id))
        row, time_zone = found.invoice, (await faces.get_face(scope)).time_zone
        if wanted == JSON:
            return Response(_invoice(row) | {"lines": [_line(line, row.currency) for line in row.lines]})
        if wanted == XML:
            write: partial[Response[Any]] = partial(einvoice.xml_file, einvoice.data_of(found), syntax)
        else:
            theme, _hash = await faces.get_theme(scope)
            write = partial(
                einvoice.pdf_file, found.content(time_zone, theme.primary), einvoice.find_data(found)
            )
    return await asyncio.to_thread(write)


def _invoice(row: Invoice) -> dict[str, Any]:
    return {
        "id": public_id("invoice", row.id), "kind": row.kind, "number": row.number, "series": row.series,
        "year": row.year, "issued_at": rfc3339(row.issued_at), "issued_on": row.issued_on.isoformat(),
        "supplied_on": row.supplied_on.isoformat(), "net": money(row.net_minor, row.currency),
        "vat": money(row.vat_minor, row.currency), "gross": money(row.gross_minor, row.currency),
        "currency": row.currency, "seller": row.seller, "buyer": row.buyer, "vat_groups": row.vat_groups,
        "corrects_id": public_id("invoice", row.corrects_id) if row.corrects_id else None, "hash": row.hash.hex(),
    }  # fmt: skip


def _line(row: InvoiceLine, currency: str) -> dict[str, Any]:
    return {
        "line_no": row.line_no, "description": row.description, "quantity": f"{row.quantity.normalize():f}",
        "unit": row.unit, "unit_price": f"{row.unit_price.normalize():f}",
        "vat_rate": f"{row.vat_rate.normalize():f}", "vat_code": row.vat_code,
        "net": money(row.net_minor, currency), "vat": money(row.vat_minor, currency),
        "gross": money(row.gross_minor, currency), "source_type": row.source_type,
        "source_id": public_id("cdr", row.source_id) if row.source_type == "cdr" else str(row.source_id),
    }  # fmt: skip


@get(
    "/payments",
    opt={"permission": "invoices.view"},
    summary="Card payments and holds, newest first",
    tags=["money"],
)
async def list_payments(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(Payment), Payment.id, "payment", limit, after)
    ids = [row.id for row in found.rows]
    refunds, lost = (
        await payments.list_refunds(tenant_scope, ids),
        await payments.written_off(tenant_scope, ids),
    )
    requests = await queries.refund_requests_of(tenant_scope, ids)
    is_any_due = any(row.is_due for row in found.rows)
    due = {row.id: minor for row, minor in await payments.list_due(tenant_scope)} if is_any_due else {}
    return found.answer([
        _payment(row, _refunds(row, refunds.get(row.id, []), requests.get(row.id, [])), lost[row.id], due.get(row.id))
        for row in found.rows
    ])  # fmt: skip


def _refunds(row: Payment, ops: list[PaymentOp], requests: list[RefundRequest]) -> list[dict[str, Any]]:
    """What came of a request keeps the request's id; those that wait, or were rejected, stand behind the others."""
    asked = {one.op_id: one.id for one in requests if one.op_id is not None}
    return [
        *(payments.refund_as_json(row, op, asked.get(op.id)) for op in ops),
        *(payments.request_as_json(one) for one in requests if one.op_id is None),
    ]


def _payment(
    row: Payment, refunds: list[dict[str, Any]], written_off_minor: int, owed_minor: int | None
) -> dict[str, Any]:
    """`owed`: what stands on the papers of a session that a saved card did not pay; null where nobody owes it."""
    is_session = row.source_type == "charging_session"
    return {
        "id": public_id("payment", row.id), "state": row.state, "failure": row.failure or None, "is_live": row.is_live,
        "session_id": public_id("charging_session", row.source_id) if is_session else None, "leg": row.leg,
        "hold": money(row.hold_minor, row.currency), "captured": money(row.captured_minor, row.currency),
        "refunded": money(row.refunded_minor, row.currency), "written_off": money(written_off_minor, row.currency),
        "owed": money(owed_minor, row.currency) if owed_minor is not None else None,
        "refunds": refunds, "dispute": row.dispute, "disputed": money(row.disputed_minor, row.currency),
        "platform_fee": money(row.platform_fee_minor, row.currency),
        "method": row.method, "created_at": rfc3339(row.created_at),
        "capture_before": rfc3339(row.capture_before) if row.capture_before else None,
    }  # fmt: skip


@get("/disputes", opt={"permission": "invoices.view"}, summary="What payers dispute at their bank, newest first",
     tags=["money"])  # fmt: skip
async def list_disputes(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(Dispute), Dispute.id, "dispute", limit, after)
    return found.answer([disputes.dispute_as_json(row) for row in found.rows])


@get("/disputes/{dispute_id:str}", opt={"permission": "invoices.view"}, summary="One dispute", tags=["money"])
async def get_dispute(tenant_scope: Scope, dispute_id: str) -> dict[str, Any]:
    return disputes.dispute_as_json(await disputes.get_dispute(tenant_scope, parse_id("dispute", dispute_id)))


@get("/ledger/entries", opt={"permission": "ledger.view"}, summary="The books: + debit, - credit, newest first",
     tags=["money"])  # fmt: skip
async def list_entries(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    query = select(LedgerEntry).options(selectinload(LedgerEntry.account), selectinload(LedgerEntry.txn))
    found = await listed(tenant_scope, query, LedgerEntry.id, "ledger_txn", limit, after)
    return found.answer([_entry(row) for row in found.rows])


def _entry(row: LedgerEntry) -> dict[str, Any]:
    return {
        "id": public_id("ledger_txn", row.id), "transaction_id": public_id("ledger_txn", row.txn_id),
        "kind": row.txn.kind, "account": row.account.code, "party": row.account.party,
        "amount": money(row.amount_minor, row.currency), "effective_at": rfc3339(row.txn.effective_at),
    }  # fmt: skip


@get("/payouts", opt={"permission": "ledger.view"}, summary="What the provider sent to the bank, newest first",
     tags=["money"])  # fmt: skip
async def list_payouts(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(Payout), Payout.id, "payout", limit, after)
    return found.answer([_payout(row) for row in found.rows])


def _payout(row: Payout) -> dict[str, Any]:
    return {
        "id": public_id("payout", row.id), "state": row.state, "amount": money(row.amount_minor, row.currency),
        "items_sum": money(row.items_minor, row.currency), "is_automatic": row.is_automatic,
        "arrives_on": row.arrives_on.isoformat(), "created_at": rfc3339(row.created_at),
        "provider_id": row.provider_ref, "failure": row.failure or None,
    }  # fmt: skip


@get("/reconciliations", opt={"permission": "ledger.view"},
     summary="The provider's books beside ours: each run, newest first, with the differences it was the first to find",
     tags=["money"])  # fmt: skip
async def list_reconciliations(
    tenant_scope: Scope, limit: int = 50, after: str | None = None
) -> dict[str, Any]:
    found = await listed(tenant_scope, select(ReconRun), ReconRun.id, "recon_run", limit, after)
    query = (
        select(ReconItem).where(ReconItem.run_id.in_([row.id for row in found.rows])).order_by(ReconItem.id)
    )
    items: dict[UUID, list[ReconItem]] = {}
    for item in (await tenant_scope.db.execute(query)).scalars():
        items.setdefault(item.run_id, []).append(item)
    return found.answer([_run(row, items.get(row.id, [])) for row in found.rows])


def _run(row: ReconRun, items: list[ReconItem]) -> dict[str, Any]:
    figures = row.figures
    return {
        "id": public_id("recon_run", row.id), "status": "green" if row.is_green else "red",
        "from": rfc3339(row.from_at), "to": rfc3339(row.to_at), "created_at": rfc3339(row.created_at),
        "matched": figures["matched"], "fresh": figures["fresh"], "explained": figures["explained"],
        "differences": figures["differences"],
        "balances": {
            currency: {name.removesuffix("_minor"): money(minor, currency) for name, minor in one.items()}
            for currency, one in figures["currencies"].items()
        },
        "found": [_item(one) for one in items],
    }  # fmt: skip


def _item(row: ReconItem) -> dict[str, Any]:
    return {
        "id": public_id("recon_item", row.id), "category": row.category, "about": row.key,
        "difference": money(row.delta_minor, row.currency), "found_at": rfc3339(row.found_at),
        "gone_at": rfc3339(row.gone_at), "explained_at": rfc3339(row.resolved_at), "note": row.note or None,
    }  # fmt: skip


routes = [
    list_invoices, get_invoice, list_payments, list_disputes, get_dispute, list_entries, list_payouts,
    list_reconciliations, *wallet_api.routes,
]  # fmt: skip
