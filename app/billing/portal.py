"""Portal pages of billing: invoices, one as it is printed, the books."""

import asyncio
from datetime import date
from typing import Any

from litestar import Request, Response, get, post

from app.billing import (
    account_pages,
    books_pages,
    disputes,
    einvoice,
    host_shares,
    outcomes,
    paper,
    payments,
    queries,
    received_pages,
    service,
    wallet_pages,
    wallets,
)
from app.billing.models import Invoice
from app.billing.paper import NAMES
from app.brands import faces
from app.kernel import tax
from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.money import Money, to_decimal
from app.kernel.spreadsheet import Cell, csv_file, csv_text
from app.kernel.web import NavItem, page, read_form, redirect, visit_of
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Invoices", "/invoices", "receipt", "invoices.view", order=50),
    NavItem("Payments", "/payments", "credit-card", "invoices.view", order=52),
    NavItem("Ledger", "/ledger", "book-open", "ledger.view", order=55),
    *account_pages.nav,
    *books_pages.nav,
    *received_pages.nav,
    *wallet_pages.nav,
]
PAGE, EXPORT = 50, 10_000
ACCOUNTS = {
    "driver_receivable": "Owed by drivers", "revenue": "Revenue", "vat_payable": "VAT to pay",
    "psp_pending": "At the payment provider, pending", "psp_available": "At the payment provider, available",
    "bank_in_transit": "On its way to the bank", "bank": "Bank", "platform_fee_expense": "Platform fees",
    "stripe_fee_expense": "Payment fees", "dispute_receivable": "Disputed", "dispute_loss": "Lost in disputes",
    "dispute_fee": "Dispute fees",
    "psp_platform": "At the payment provider", "tenant_receivable": "Owed by tenants", "fee_revenue": "Platform fees",
    "site_host_expense": "Shares of site hosts", "site_host_payable": "Owed to site hosts",
    "host_share_held": "Shares on their way to site hosts", "host_share_payable": "Held for site hosts",
    "vat_receivable": "VAT to get back", "write_off": "Written off", "wallet_liability": "Drivers' wallets",
    "voucher_liability": "Vouchers not used", "voucher_receivable": "Owed for vouchers", "goodwill": "Given away",
    "terminal_clearing": "At acquirers of card terminals", "terminal_unmatched": "Terminal money without a session",
    "acquirer_fee": "Fees of acquirers", "other_income": "Other receipts",
}  # fmt: skip
OP_WORDS = {
    "checkout_create": "Payment page", "checkout_expire": "Page closed", "capture": "Capture", "cancel": "Release",
    "refund": "Refund", "dispute_evidence": "Evidence", "dispute_accept": "Dispute accepted",
    "wallet_hold": "Kept in the wallet", "voucher_hold": "Kept of the voucher", "terminal_told": "Card terminal",
    "create": "Saved card", "confirm": "Hold", "increment": "Hold raised", **host_shares.WORDS,
}  # fmt: skip
KINDS = {
    "captured": "Payment captured",
    "fees": "Fees of a payment",
    "fee_refunded": "Platform fee given back",
    "fee_collected": "Platform fee kept",
    "fee_given_back": "Platform fee given back",
    "write_off": "Written off",
    "refunded": "Refund",
    "refunded_outside": "Refund at the provider",
    "refund_failed": "Refund came back",
    "refund_outside_failed": "Refund at the provider came back",
    "repaid": "Paid back by other means",
    "invoice_issued": "Invoice issued",
    "credit_note_issued": "Credit note issued",
    "available": "Became available",
    "provider_fee": "Bill of the provider",
    "payout": "Payout sent",
    "payout_paid": "Payout arrived",
    "payout_failed": "Payout came back",
    "host_share": "Share of a site host",
    "host_paid": "Site host paid",
    "host_transfer": "Share passed on to a site host",
    "host_reversal": "Share taken back from a site host",
    "host_share_back": "Share given back by the platform",
    "host_share_moved": "Share of a site host",
    "dispute_opened": "Disputed by a payer",
    "dispute_fee": "Fee of a dispute",
    "dispute_won": "Dispute won",
    "dispute_lost": "Dispute lost",
    "dispute_lost_reversed": "Lost dispute won after all",
    "wallet_credited": "Wallet credited by staff",
    "vouchers_issued": "Vouchers issued",
    "vouchers_paid": "Vouchers paid for",
    "vouchers_revoked": "Vouchers revoked",
    "voucher_redeemed": "Voucher redeemed",
    "terminal_settled": "Taken at a card terminal",
    "terminal_reversed": "Given back at a card terminal",
    "terminal_dismissed": "Terminal money that is no session's",
    "acquirer_paid": "Acquirer paid out",
}


def _wanted(params: Any) -> queries.Filter:
    try:
        month = date.fromisoformat(params.get("month", "") + "-01")
    except ValueError:
        month = None
    return queries.Filter(kind=params.get("kind", ""), month=month, q=params.get("q", "").strip()[:100])


@get("/invoices", opt={"permission": "invoices.view"})
async def list_invoices(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    params = request.query_params
    after = params.get("after")
    rows = await queries.list_invoices(
        tenant_scope, _wanted(params), after=parse_id("invoice", after) if after else None, limit=PAGE + 1
    )
    more = public_id("invoice", rows[PAGE - 1].id) if len(rows) > PAGE else None
    kept = {name: params[name] for name in ("kind", "month", "q") if params.get(name)}
    return page(
        request, tenant_scope, "billing/invoices.html", title="Invoices", params=dict(params), next_after=more,
        rows=[(public_id("invoice", row.id), row) for row in rows[:PAGE]], kept=kept, names=NAMES,
    )  # fmt: skip


@get("/invoices.csv", opt={"permission": "invoices.view"})
async def export_invoices(request: AnyRequest, tenant_scope: Scope) -> Response[bytes]:
    """What the accountant's spreadsheet takes: one line per invoice, amounts signed."""
    rows = await queries.list_invoices(tenant_scope, _wanted(request.query_params), limit=EXPORT)
    head = ("id", "kind", "number", "issued_on", "supplied_on", "buyer", "net", "vat", "gross", "currency")
    return csv_file("invoices.csv", csv_text(head, (_cells(row) for row in reversed(rows))))


def _cells(row: Invoice) -> list[Cell]:
    amounts = [to_decimal(minor, row.currency) for minor in (row.net_minor, row.vat_minor, row.gross_minor)]
    return [
        public_id("invoice", row.id), row.kind, row.number, row.issued_on, row.supplied_on,
        str(row.buyer.get("name", "")), *amounts, row.currency,
    ]  # fmt: skip


@get("/invoices/{invoice_id:str}", opt={"permission": "invoices.view"})
async def show_invoice(request: AnyRequest, tenant_scope: Scope, invoice_id: str) -> Response[str]:
    found = await paper.find_paper(tenant_scope, parse_id("invoice", invoice_id))
    row, payment, settled = found.invoice, found.paid_by, found.settled
    if settled is None and payment and found.corrects is None:
        settled = payments.as_it_was(payment, row.gross_minor)
    data = einvoice.find_data(found)
    return page(
        request, tenant_scope, "billing/invoice.html", title=_title(row), invoice=row, id=invoice_id,
        paper=found.content(visit_of(request).time_zone), settled=settled, waived_words=outcomes.WAIVED_WORDS,
        payment=public_id("payment", payment.id) if payment else None,
        corrects=_link(found.corrects) if found.corrects else None,
        corrections=[_link(one) for one in await queries.list_corrections(tenant_scope, row.id)],
        kept_until=tax.keep_invoice_until(row.seller.get("country") or "", row.issued_on),
        has_xml=data is not None, lacks=einvoice.lacks_for_xrechnung(data) if data else [],
        cdrs=sorted({public_id("cdr", line.source_id) for line in row.lines if line.source_type == "cdr"}),
    )  # fmt: skip


@get("/invoices/{invoice_id:str}/pdf", opt={"permission": "invoices.view"})
async def download_invoice(request: AnyRequest, invoice_id: str) -> Response[bytes]:
    """The sheet as the page shows it, and as the payer has it. It is set while no transaction is open: that takes a
    processor, not a database."""
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        found = await paper.find_paper(scope, parse_id("invoice", invoice_id))
        theme, _hash = await faces.get_theme(scope)
        content, data = found.content(visit.time_zone, theme.primary), einvoice.find_data(found)
    return await asyncio.to_thread(einvoice.pdf_file, content, data)


@get("/invoices/{invoice_id:str}/xml", opt={"permission": "invoices.view"})
async def download_xml(request: AnyRequest, invoice_id: str) -> Response[bytes]:
    """The e-invoice alone: CII, or with `?syntax=ubl` the XRechnung."""
    visit, syntax = visit_of(request), request.query_params.get("syntax", "cii")
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        data = einvoice.data_of(await paper.find_paper(scope, parse_id("invoice", invoice_id)))
    return await asyncio.to_thread(einvoice.xml_file, data, syntax)


def _title(row: Invoice) -> str:
    return row.number or NAMES[row.kind]


def _link(row: Invoice) -> tuple[str, str]:
    return public_id("invoice", row.id), _title(row)


@get("/payments", opt={"permission": "invoices.view"})
async def list_payments(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    params = request.query_params
    after, state = params.get("after"), params.get("state", "")
    waiting = await queries.list_waiting_refunds(tenant_scope)
    rows = await queries.list_payments(
        tenant_scope, state, after=parse_id("payment", after) if after else None, limit=PAGE + 1
    )
    more = public_id("payment", rows[PAGE - 1].id) if len(rows) > PAGE else None
    return page(
        request, tenant_scope, "billing/payments.html", title="Payments", params=dict(params), next_after=more,
        written_off=await payments.written_off(tenant_scope, (row.id for row in rows)),
        rows=[(public_id("payment", row.id), row) for row in rows[:PAGE]], held=await queries.held(tenant_scope),
        account=await payments.find_account(tenant_scope), state=state, outcome=outcomes.outcome,
        refused=[(public_id("payment", row.id), row, minor)
                 for row, minor in await payments.list_refused_refunds(tenant_scope)],
        owed_count=len(await payments.list_due(tenant_scope)),
        stuck=[(public_id("payment", row.id), row, minor) for row, minor in await wallets.list_stuck(tenant_scope)],
        unpapered=[(public_id("payment", row.id), row, minor)
                   for row, minor in await payments.list_unpapered(tenant_scope)],
        waiting=[(public_id("payment", one.payment_id), one) for one in waiting], actor=tenant_scope.actor,
        disputes=[(public_id("dispute", one.id), one) for one in await disputes.list_open(tenant_scope)],
    )  # fmt: skip


@get("/payments/owed", opt={"permission": "invoices.view"})
async def list_owed(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """What saved cards did not pay, with whom to ask."""
    return page(
        request, tenant_scope, "billing/owed.html", title="Owed by drivers",
        rows=[(public_id("payment", one.payment.id), public_id("driver", one.driver.id),
               public_id("charging_session", one.payment.source_id), one, outcomes.outcome(one.payment))
              for one in await queries.list_debts(tenant_scope)],
    )  # fmt: skip


@get("/payments/{payment_id:str}", opt={"permission": "invoices.view"})
async def show_payment(request: AnyRequest, tenant_scope: Scope, payment_id: str) -> Response[str]:
    row = await payments.get_payment(tenant_scope, parse_id("payment", payment_id))
    ops, legs = await queries.ops_of(tenant_scope, row.id), await payments.legs_beside(tenant_scope, row)
    is_top_up = (
        row.source_type == payments.WALLET
    )  # given back from the wallet's page: no paper takes it back
    of_all = await payments.list_refunds(tenant_scope, [leg.id for leg in legs])
    left = 0 if is_top_up else sum(payments.refundable_minor(leg, of_all.get(leg.id, [])) for leg in legs)
    back = await payments.find_back(tenant_scope, row)
    promised = (await payments.find_back_by(tenant_scope, legs)).refused_minor
    stuck = dict(await wallets.find_stuck(tenant_scope, row.source_id)) if is_top_up else {}
    refused = next((op for op in reversed(ops) if op.kind == "refund" and op.state == "failed"), None)
    asked = await queries.refund_requests_of(tenant_scope, [leg.id for leg in legs])
    requests = [one for own in asked.values() for one in own]
    account = await payments.find_account(tenant_scope)
    return page(
        request, tenant_scope, "billing/payment.html", title="Payment", payment=row, id=payment_id, values={},
        ops=ops, errors={}, alert=None, words=OP_WORDS, answer=outcomes.answer,
        settled=await payments.find_settled(tenant_scope, row), waived_words=outcomes.WAIVED_WORDS,
        outcome=outcomes.outcome(row), back=back,
        stuck_minor=stuck.get(row, 0), why_refused=outcomes.why_refused(refused),
        has_come_back=refused is None or bool((refused.response or {}).get("came_back")),
        repayments=await payments.list_repayments(tenant_scope, row.id),
        left_minor=max(left - promised, 0), refund_count=sum(map(len, of_all.values())), actor=tenant_scope.actor,
        legs=[(public_id("payment", leg.id), leg) for leg in legs],
        requests=[(public_id("refund", one.id), one) for one in requests],
        limit_minor=account.refund_limit_minor if account else None,
        disputes=[(public_id("dispute", one.id), one) for one in await disputes.of_payment(tenant_scope, row.id)],
        unpapered_minor=await payments.find_unpapered(tenant_scope, row),
        on_its_way_minor=back.on_its_way_minor,
        session_id=public_id("charging_session", row.source_id) if row.source_type == "charging_session" else None,
        driver_id=public_id("driver", row.source_id) if is_top_up else None,
        batch_id=row.account_ref if row.provider == payments.VOUCHER else None,
    )  # fmt: skip


@post("/payments/{payment_id:str}/refund-retries", opt={"permission": "invoices.manage"})
async def retry_refund(request: AnyRequest, tenant_scope: Scope, payment_id: str) -> Response[Any]:
    path = f"/payments/{payment_id}"
    try:
        await payments.refund_again(tenant_scope, parse_id("payment", payment_id))
    except Refused as error:  # somebody was quicker: the page says how it stands by now
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    return redirect(request, path, flash="The provider is asked again. The credit note stands.")


@post("/payments/{payment_id:str}/repayments", opt={"permission": "invoices.manage"})
async def record_repayment(request: AnyRequest, tenant_scope: Scope, payment_id: str) -> Response[Any]:
    path, form = f"/payments/{payment_id}", await read_form(request)
    row = await payments.get_payment(tenant_scope, parse_id("payment", payment_id))
    record = wallets.repay if row.source_type == payments.WALLET else payments.record_repayment
    try:
        row = await record(tenant_scope, row.id, form.text("reference"))
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.message, kind="error")
    except Invalid as error:
        visit_of(request).is_spoiled = True
        return redirect(request, path, flash=error.faults[0].message, kind="error")
    paid = Money(row.amount_minor, row.currency).format()
    return redirect(request, path, flash=f"Recorded: {paid} was paid back. The driver is told so.")


@get("/ledger", opt={"permission": "ledger.view"})
async def show_ledger(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    after = request.query_params.get("after")
    rows = await queries.list_postings(
        tenant_scope, after=parse_id("ledger_txn", after) if after else None, limit=PAGE + 1
    )
    more = public_id("ledger_txn", rows[PAGE - 1].id) if len(rows) > PAGE else None
    balances = await queries.trial_balance(tenant_scope)
    broken = await service.find_broken_series(tenant_scope)
    unbalanced = await service.unbalanced_postings(tenant_scope)
    totals: dict[str, list[int]] = {}
    for one in balances:
        total = totals.setdefault(one.currency, [0, 0])
        total[0], total[1] = total[0] + one.debit_minor, total[1] + one.credit_minor
    return page(
        request, tenant_scope, "billing/ledger.html", title="Ledger", balances=balances, totals=totals,
        accounts=ACCOUNTS, kinds=KINDS, next_after=more, is_first=not after, broken=broken,
        unbalanced=[public_id("ledger_txn", one) for one in unbalanced],
        rows=[(public_id("ledger_txn", row.id), row, _source(row.source_type, row.source_id)) for row in rows[:PAGE]],
    )  # fmt: skip


def _source(source_type: str, source_id: Any) -> str | None:
    return f"/invoices/{public_id('invoice', source_id)}" if source_type == "invoice" else None


routes = [
    list_payments, list_owed, show_payment, retry_refund, record_repayment, list_invoices, export_invoices,
    show_invoice, download_invoice, download_xml, show_ledger, *account_pages.routes, *books_pages.routes,
    *received_pages.routes,
    *wallet_pages.routes,
]  # fmt: skip
