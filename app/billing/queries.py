"""Screen reads of invoices and books."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.billing.models import (
    Invoice,
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Payment,
    PaymentOp,
    RefundRequest,
)
from app.billing.outcomes import PAYMENT_STATES
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
    """Newest first. `state` is `open` (waiting for a card), `held` (money waits on cards), `taken`, `ended` (nothing
    came of it), or empty."""
    query = select(Payment).order_by(Payment.id.desc()).limit(limit)
    if state in PAYMENT_STATES:
        found = Payment.state.in_(PAYMENT_STATES[state])
        # Until the provider has closed its page such a payment is open there, and over as far as we know.
        is_over = Payment.state.in_(PAYMENT_STATES["open"]) & (Payment.failure != "")
        query = query.where({"open": found & ~is_over, "ended": found | is_over}.get(state, found))
    if after is not None:
        query = query.where(Payment.id < after)
    return list((await scope.db.execute(query)).scalars())


async def held(scope: Scope) -> list[tuple[str, int, int]]:
    """(currency, holds, minor units) of what waits on drivers' cards right now."""
    query = (
        select(Payment.currency, func.count(), func.sum(Payment.hold_minor))
        .where(Payment.state.in_(PAYMENT_STATES["held"]))
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
