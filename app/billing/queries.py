"""Screen reads of invoices and books."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text, tuple_
from sqlalchemy.orm import selectinload

from app.access.models import Driver
from app.billing.models import (
    Invoice,
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Payer,
    Payment,
    PaymentOp,
    Payout,
    ProviderBalanceTxn,
    ReconItem,
    RefundRequest,
    SavedCard,
)
from app.billing.outcomes import PAYMENT_STATES
from app.billing.payments import IS_DUE, OWN, list_due
from app.kernel.errors import NotFound
from tenants.scope import Scope


@dataclass(frozen=True, slots=True)
class Filter:
    """`kind` is one of invoice, credit_note, receipt; `month` its first day, by the day of issue."""

    kind: str = ""
    month: date | None = None
    q: str = ""


async def list_invoices(
    scope: Scope, wanted: Filter, *, after: UUID | None = None, limit: int = 50
) -> list[Invoice]:
    """Newest first."""
    query = select(Invoice).order_by(Invoice.id.desc()).limit(limit)
    if wanted.kind:
        query = query.where(Invoice.kind == wanted.kind)
    if wanted.month is not None:
        query = query.where(func.date_trunc("month", Invoice.issued_on) == wanted.month)
    if wanted.q:
        buyer = Invoice.buyer["name"].astext
        query = query.where(
            Invoice.number.icontains(wanted.q, autoescape=True) | buyer.icontains(wanted.q, autoescape=True)
        )
    if after is not None:
        query = query.where(Invoice.id < after)
    return list((await scope.db.execute(query)).scalars())


async def list_payments(
    scope: Scope, state: str = "", *, after: UUID | None = None, limit: int = 50
) -> list[Payment]:
    """Newest first. `state` is `open` (waiting for a card), `held` (money waits on cards), `taken`, `owed` (a card
    on file did not pay it), `ended` (nothing came of it), or empty."""
    query = select(Payment).order_by(Payment.id.desc()).limit(limit)
    if state == "owed":
        query = query.where(IS_DUE)
    if state in PAYMENT_STATES:
        found = Payment.state.in_(PAYMENT_STATES[state])
        # Until the provider has closed its page such a payment is open there, and over as far as we know.
        is_over = Payment.state.in_(PAYMENT_STATES["open"]) & (Payment.failure != "")
        query = query.where(
            {"open": found & ~is_over, "ended": found | (is_over & ~IS_DUE)}.get(state, found)
        )
    if after is not None:
        query = query.where(Payment.id < after)
    return list((await scope.db.execute(query)).scalars())


@dataclass(frozen=True, slots=True)
class Debt:
    """What a saved card did not pay: `owed_minor` stands on its papers (0: its session still runs), `since` is when the
    card gave nothing, `told_at` when its driver was last sent the link, None for never."""

    payment: Payment
    driver: Driver
    owed_minor: int
    since: datetime
    told_at: datetime | None


async def list_debts(scope: Scope) -> list[Debt]:
    """Oldest first."""
    due = await list_due(scope)
    ids = [payment.id for payment, _minor in due]
    query = (
        select(Payment.id, Driver)
        .join(SavedCard, SavedCard.id == Payment.saved_card_id)
        .join(Payer, Payer.id == SavedCard.payer_id)
        .join(Driver, Driver.id == Payer.driver_id)
        .where(Payment.id.in_(ids))
    )
    drivers = {row[0]: row[1] for row in (await scope.db.execute(query)).all()}
    asked = select(PaymentOp.payment_id, func.max(PaymentOp.updated_at)).where(
        PaymentOp.payment_id.in_(ids), PaymentOp.kind.in_(("create", "confirm")), PaymentOp.state == "failed"
    )
    since = {row[0]: row[1] for row in (await scope.db.execute(asked.group_by(PaymentOp.payment_id))).all()}
    # Mails are of a slice above: their rows are read, not their code.
    mails = text(
        "select source_id, max(sent_at) from livery.mail where kind = 'payment_due' group by source_id"
    )
    told = {row[0]: row[1] for row in (await scope.db.execute(mails)).all()} if due else {}
    return [
        Debt(one, drivers[one.id], minor, since.get(one.id, one.created_at), told.get(one.source_id))
        for one, minor in due
    ]


async def held(scope: Scope) -> list[tuple[str, int, int]]:
    """(currency, holds, minor units) of what waits on drivers' cards right now."""
    query = (
        select(Payment.currency, func.count(), func.sum(Payment.hold_minor))
        .where(Payment.state.in_(PAYMENT_STATES["held"]), Payment.provider.not_in(OWN))
        .group_by(Payment.currency)
        .order_by(Payment.currency)
    )
    return [(row[0], row[1], int(row[2])) for row in (await scope.db.execute(query)).all()]


async def ops_of(scope: Scope, payment_id: UUID) -> list[PaymentOp]:
    query = select(PaymentOp).where(PaymentOp.payment_id == payment_id).order_by(PaymentOp.id)
    return list((await scope.db.execute(query)).scalars())


async def list_waiting_refunds(scope: Scope) -> list[RefundRequest]:
    """Those that wait for a second member of staff, oldest first."""
    query = select(RefundRequest).where(RefundRequest.state == "waiting").order_by(RefundRequest.id).limit(50)
    return list((await scope.db.execute(query)).scalars())


async def refund_requests_of(scope: Scope, payment_ids: Iterable[UUID]) -> dict[UUID, list[RefundRequest]]:
    """Per payment, oldest first."""
    query = (
        select(RefundRequest)
        .where(RefundRequest.payment_id.in_(list(payment_ids)))
        .order_by(RefundRequest.id)
    )
    found: dict[UUID, list[RefundRequest]] = {}
    for one in (await scope.db.execute(query)).scalars():
        found.setdefault(one.payment_id, []).append(one)
    return found


async def list_corrections(scope: Scope, invoice_id: UUID) -> list[Invoice]:
    query = select(Invoice).where(Invoice.corrects_id == invoice_id).order_by(Invoice.id)
    return list((await scope.db.execute(query)).scalars())


@dataclass(frozen=True, slots=True)
class Balance:
    """Minor units; each balance stands on its account's normal side as a positive figure."""

    code: str
    party: str
    currency: str
    debit_minor: int
    credit_minor: int

    @property
    def sum_minor(self) -> int:
        return self.debit_minor - self.credit_minor


async def trial_balance(scope: Scope) -> list[Balance]:
    """Every account's turnover. Over all of them debit equals credit, per currency."""
    amount = LedgerEntry.amount_minor
    query = (
        select(
            LedgerAccount.code, LedgerAccount.party, LedgerAccount.currency,
            func.coalesce(func.sum(amount).filter(amount > 0), 0),
            func.coalesce(-func.sum(amount).filter(amount < 0), 0),
        )
        .join(LedgerEntry, LedgerEntry.account_id == LedgerAccount.id)
        .group_by(LedgerAccount.code, LedgerAccount.party, LedgerAccount.currency)
        .order_by(LedgerAccount.currency, LedgerAccount.code, LedgerAccount.party)
    )  # fmt: skip
    return [Balance(code, party, currency, int(debit), int(credit))
            for code, party, currency, debit, credit in (await scope.db.execute(query)).all()]  # fmt: skip


async def list_postings(scope: Scope, *, after: UUID | None = None, limit: int = 50) -> list[LedgerTxn]:
    """Newest first, with their entries."""
    query = (
        select(LedgerTxn)
        .options(selectinload(LedgerTxn.entries).selectinload(LedgerEntry.account))
        .order_by(LedgerTxn.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(LedgerTxn.id < after)
    return list((await scope.db.execute(query)).scalars())


ON_ITS_WAY = ("psp_pending", "psp_available", "bank_in_transit")


async def list_payouts(scope: Scope, *, after: UUID | None = None, limit: int = 50) -> list[Payout]:
    """Newest first, by the provider's own time."""
    query = select(Payout).order_by(Payout.created_at.desc(), Payout.id.desc()).limit(limit)
    if after is not None:
        last, _items = await get_payout(scope, after)
        query = query.where(tuple_(Payout.created_at, Payout.id) < tuple_(last.created_at, last.id))
    return list((await scope.db.execute(query)).scalars())


async def get_payout(
    scope: Scope, payout_id: UUID
) -> tuple[Payout, list[tuple[ProviderBalanceTxn, Payment | None]]]:
    """With what went out with it, oldest first, and the payments behind that."""
    payout = await scope.db.get(Payout, (scope.tenant_id, payout_id))
    if payout is None:
        raise NotFound("payout")
    of_it = ProviderBalanceTxn.payout_ref == payout.provider_ref
    items = await _with_payments(scope, of_it & (ProviderBalanceTxn.account_ref == payout.account_ref))
    return payout, items


async def payments_behind(scope: Scope, items: Iterable[ReconItem]) -> dict[UUID, UUID]:
    """The payment of each difference that has one: by the provider's line, else by the posting's source."""
    items = list(items)
    rows = await _with_payments(scope, ProviderBalanceTxn.id.in_([one.balance_txn_id for one in items]))
    of_line: dict[UUID | None, UUID] = {row.id: payment.id for row, payment in rows if payment is not None}
    query = (
        select(LedgerTxn.id, func.coalesce(PaymentOp.payment_id, Payment.id))
        .outerjoin(PaymentOp, (LedgerTxn.source_type == "payment_op") & (PaymentOp.id == LedgerTxn.source_id))
        .outerjoin(Payment, (LedgerTxn.source_type == "payment") & (Payment.id == LedgerTxn.source_id))
        .where(LedgerTxn.id.in_([one.ledger_txn_id for one in items]))
    )
    of_posting: dict[UUID | None, UUID] = {
        txn: payment for txn, payment in await scope.db.execute(query) if payment is not None
    }
    found = {
        one.id: of_line.get(one.balance_txn_id) or of_posting.get(one.ledger_txn_id)
        for one in items
    }  # fmt: skip
    return {item: payment for item, payment in found.items() if payment is not None}


async def _with_payments(
    scope: Scope, which: ColumnElement[bool]
) -> list[tuple[ProviderBalanceTxn, Payment | None]]:
    query = (
        select(ProviderBalanceTxn, Payment)
        .outerjoin(
            Payment,
            (Payment.account_ref == ProviderBalanceTxn.account_ref)
            & (Payment.charge_ref == ProviderBalanceTxn.charge_ref),
        )
        .where(which)
        .order_by(ProviderBalanceTxn.created_at, ProviderBalanceTxn.id)
    )
    return [(row, payment) for row, payment in (await scope.db.execute(query)).all()]
