"""Portal pages of the provider's books: payouts to the cent, and what differs between those books and ours."""

from typing import Any

from litestar import Request, Response, get, post

from app.billing import queries, reconciliation
from app.billing.models import Payment, ProviderBalanceTxn, ReconItem
from app.kernel import queue
from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.money import to_decimal
from app.kernel.spreadsheet import Cell, csv_file, csv_text
from app.kernel.web import NavItem, form_again, page, read_form, redirect, visit_of
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Payouts", "/payouts", "send", "ledger.view", order=56),
    NavItem("Reconciliation", "/reconciliation", "badge-check", "ledger.view", order=57),
]
PAGE = 50
CATEGORY_WORDS = {
    "missing_in_ledger": ("Not in our books", "The provider moved money that no payment here knows of."),
    "missing_in_stripe": ("Not at the provider", "Our books have it, and the provider does not list it."),
    "amount": ("Another amount", "Both have it, with different amounts."),
    "fee": ("Another fee", "Both have it, and the provider kept another fee."),
    "currency": ("Another currency", "Both have it, in different currencies."),
    "duplicate": ("Twice", "One side has the same thing more than once."),
    "stale_pending": ("Pending too long", "Its day is past by a week or more, and the money is not available."),
    "payout_items": ("Payout and parts differ", "What went to the bank is not what its parts come to."),
    "unknown_type": ("Of an unknown kind", "A movement that we have no rule for: nothing was booked."),
    "balance": ("The balance differs", "The provider's balance is not what its own lines come to."),
    "books": ("Our books differ", "Our accounts at the provider are not what its lines come to."),
    "stale_clearing": ("Not paid out", "An acquirer of card terminals has owed this for more than two weeks."),
}  # fmt: skip
LINE_WORDS = {
    "charge": "Payment", "partial_capture_reversal": "Not captured", "refund": "Refund",
    "refund_failure": "Refund came back", "dispute": "Dispute", "dispute_reversal": "Dispute won",
    "payout": "Payout", "payout_reversal": "Payout came back", "fee": "Provider's own fee",
}  # fmt: skip


@get("/payouts", opt={"permission": "ledger.view"})
async def list_payouts(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    after = request.query_params.get("after")
    rows = await queries.list_payouts(
        tenant_scope, after=parse_id("payout", after) if after else None, limit=PAGE + 1
    )
    balances = [one for one in await queries.trial_balance(tenant_scope) if one.code in queries.ON_ITS_WAY]
    return page(
        request, tenant_scope, "billing/payouts.html", title="Payouts", is_first=not after, balances=balances,
        rows=[(public_id("payout", row.id), row) for row in rows[:PAGE]],
        next_after=public_id("payout", rows[PAGE - 1].id) if len(rows) > PAGE else None,
    )  # fmt: skip


@get("/payouts/{payout_id:str}", opt={"permission": "ledger.view"})
async def show_payout(request: AnyRequest, tenant_scope: Scope, payout_id: str) -> Response[Any]:
    payout, items = await queries.get_payout(tenant_scope, parse_id("payout", payout_id))
    return page(
        request, tenant_scope, "billing/payout.html", title="Payout", payout=payout, id=payout_id, items=_shown(items),
        words=LINE_WORDS,
    )  # fmt: skip


@get("/payouts/{payout_id:str}/items.csv", opt={"permission": "ledger.view"})
async def export_payout(tenant_scope: Scope, payout_id: str) -> Response[bytes]:
    payout, items = await queries.get_payout(tenant_scope, parse_id("payout", payout_id))
    head = (
        "provider_id",
        "category",
        "source",
        "payment_id",
        "created_at",
        "amount",
        "fee",
        "net",
        "currency",
    )
    return csv_file(f"{payout.provider_ref}.csv", csv_text(head, (_cells(*one) for one in items)))


def _shown(
    items: list[tuple[ProviderBalanceTxn, Payment | None]],
) -> list[tuple[ProviderBalanceTxn, str | None, str]]:
    return [
        (row, public_id("payment", payment.id) if payment else None, payment.method if payment else "")
        for row, payment in items
    ]


def _cells(row: ProviderBalanceTxn, payment: Payment | None) -> list[Cell]:
    amounts = [to_decimal(minor, row.currency) for minor in (row.amount_minor, row.fee_minor, row.net_minor)]
    paid = public_id("payment", payment.id) if payment else ""
    return [
        row.provider_ref, row.reporting_category, row.source_ref or "", paid, row.created_at, *amounts, row.currency
    ]  # fmt: skip


@get("/reconciliation", opt={"permission": "ledger.view"})
async def show_reconciliation(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    return page(
        request,
        tenant_scope,
        "billing/reconciliation.html",
        errors={},
        alert=None,
        **await _books(tenant_scope),
    )


async def _books(scope: Scope) -> dict[str, Any]:
    items = await reconciliation.list_items(scope)
    payments = await queries.payments_behind(scope, items)
    return {
        "title": "Reconciliation", "light": await reconciliation.find_light(scope),
        "runs": await reconciliation.list_runs(scope), "words": CATEGORY_WORDS,
        "items": [
            (public_id("recon_item", one.id), one,
             public_id("payment", payments[one.id]) if one.id in payments else None)
            for one in items
        ],
    }  # fmt: skip


@post("/reconciliation/runs", opt={"permission": "invoices.manage"})
async def run_now(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    await queue.enqueue(tenant_scope, "billing.reconcile", lock="reconcile")
    return redirect(
        request, "/reconciliation",
        flash="The provider's books are being read. Look again in a moment: the newest run stands first.",
    )  # fmt: skip


@post("/reconciliation/items/{item_id:str}/explanations", opt={"permission": "invoices.manage"})
async def explain(request: AnyRequest, tenant_scope: Scope, item_id: str) -> Response[Any]:
    form = await read_form(request)
    try:
        await reconciliation.explain(tenant_scope, parse_id("recon_item", item_id), form.text("note"))
    except Invalid as error:
        context = await _books(tenant_scope)
        return form_again(
            request, tenant_scope, "billing/reconciliation.html", error, form, asked=item_id, **context
        )
    except Refused as error:
        visit_of(request).is_spoiled = True
        return redirect(request, "/reconciliation", flash=error.message, kind="error")
    return redirect(
        request, "/reconciliation", flash="Explained: this difference no longer makes the books red."
    )


@get("/reconciliation.csv", opt={"permission": "ledger.view"})
async def export_differences(tenant_scope: Scope) -> Response[bytes]:
    """Those that are gone and those that were explained too."""
    rows = await reconciliation.list_items(tenant_scope, is_standing=False, limit=10_000)
    head = ("id", "category", "about", "difference", "currency", "found_at", "gone_at", "explained_at",
            "explained_by", "note")  # fmt: skip
    return csv_file("reconciliation.csv", csv_text(head, map(_item_cells, rows)))


def _item_cells(row: ReconItem) -> list[Cell]:
    return [
        public_id("recon_item", row.id), row.category, row.key, to_decimal(row.delta_minor, row.currency), row.currency,
        row.found_at, row.gone_at, row.resolved_at, row.resolved_by or "", row.note,
    ]  # fmt: skip


routes = [
    list_payouts, show_payout, export_payout, show_reconciliation, run_now, explain, export_differences,
]  # fmt: skip
