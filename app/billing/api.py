"""REST: invoices and the books (contract.md)."""

import asyncio
from functools import partial
from typing import Any

from litestar import Request, Response, get
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.billing import einvoice, paper, payments
from app.billing.models import Invoice, InvoiceLine, LedgerEntry, Payment, PaymentOp
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
    return found.answer([_payment(row, refunds.get(row.id, []), lost[row.id]) for row in found.rows])


def _payment(row: Payment, refunds: list[PaymentOp], written_off_minor: int) -> dict[str, Any]:
    is_session = row.source_type == "charging_session"
    return {
        "id": public_id("payment", row.id), "state": row.state, "failure": row.failure or None, "is_live": row.is_live,
        "session_id": public_id("charging_session", row.source_id) if is_session else None,
        "hold": money(row.hold_minor, row.currency), "captured": money(row.captured_minor, row.currency),
        "refunded": money(row.refunded_minor, row.currency), "written_off": money(written_off_minor, row.currency),
        "refunds": [payments.refund_as_json(row, op) for op in refunds],
        "platform_fee": money(row.fee_minor, row.currency),
        "method": row.method, "created_at": rfc3339(row.created_at),
        "capture_before": rfc3339(row.capture_before) if row.capture_before else None,
    }  # fmt: skip


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


routes = [list_invoices, get_invoice, list_payments, list_entries]
