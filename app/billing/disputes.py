"""What a payer's bank asks back, as the provider tells it: rows, books and news (money.md 4.3, 4.4).

`take` believes what was read, in any order and as often as it is told. While the money lies at the bank nothing of the
payment is given back by anybody else; who gets it, the bank says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app.billing import ledger
from app.billing.ledger import Posting
from app.billing.models import Dispute, LedgerAccount, LedgerEntry, LedgerTxn, Payment
from app.billing.provider import DisputeSeen
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import NotFound
from app.kernel.ids import public_id
from app.kernel.rest import money, rfc3339
from tenants.scope import Scope

RANK = {
    "warning_needs_response": 0, "warning_under_review": 1, "warning_closed": 2, "needs_response": 3,
    "under_review": 4, "lost": 5, "won": 6,
}  # fmt: skip
ANSWERABLE = ("warning_needs_response", "needs_response")
AT_THE_BANK = ("needs_response", "under_review")
CLOSED = ("warning_closed", "won", "lost")
CONTESTED = ("open", "lost")  # of `Payment.dispute`: nothing is given back


# -- what is known of a dispute --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What `merge` decides on: a dispute's own figures."""

    state: str
    is_withdrawn: bool = False
    is_reinstated: bool = False
    fee_minor: int = 0

    @property
    def age(self) -> tuple[int, bool, bool, int]:
        return RANK[self.state], self.is_withdrawn, self.is_reinstated, self.fee_minor


def merge(known: Known, seen: Known) -> Known:
    """Pure, idempotent, and the same in any order: the later one in a dispute's life counts. A fee falls only where the
    provider gave it back with the money; what was withdrawn or reinstated stays so."""
    newest = max(known, seen, key=lambda one: one.age)
    return Known(
        state=newest.state, is_withdrawn=known.is_withdrawn or seen.is_withdrawn,
        is_reinstated=known.is_reinstated or seen.is_reinstated, fee_minor=newest.fee_minor,
    )  # fmt: skip


def standing(rows: Sequence[Dispute]) -> tuple[str, int]:
    """(`Payment.dispute`, `disputed_minor`) of all of a payment's disputes (pure)."""
    states = {row.state for row in rows}
    word = (
        "open"
        if states & set(AT_THE_BANK)
        else next((one for one in ("lost", "won") if one in states), "none")
    )
    return word, sum(row.amount_minor for row in rows if row.state in (*AT_THE_BANK, "lost"))


async def take(scope: Scope, payment: Payment, seen: Sequence[DisputeSeen], *, owed_minor: int = 0) -> None:
    """Merges what was seen of a payment's disputes, posts what became true, and tells whoever waits. The payment is
    locked. `owed_minor` of it stands on credit notes and was not given back: what the bank took settles that first."""
    for one in seen:
        row = await find_by_ref(scope, payment, one.ref)
        was = Known(**{name: getattr(row, name) for name in Known.__dataclass_fields__}) if row else None
        told = Known(
            state=one.state,
            is_withdrawn=one.is_withdrawn,
            is_reinstated=one.is_reinstated,
            fee_minor=one.fee_minor,
        )
        now = merge(was, told) if was else told
        if row is None:
            row = Dispute(
                id=uuid7(), payment_id=payment.id, account_ref=payment.account_ref, ref=one.ref,
                currency=one.currency, opened_at=one.created_at, **{n: getattr(now, n) for n in Known.__slots__},
            )  # fmt: skip
            scope.db.add(row)
        if was is None or not was.is_withdrawn:  # an inquiry may become a dispute of less
            row.amount_minor = one.amount_minor
        for name in Known.__slots__:
            setattr(row, name, getattr(now, name))
        row.reason, row.network_reason, row.evidence_due_by = one.reason, one.network_reason, one.due_by
        row.observed_at = scope.now
        if one.submission_count and row.submitted_at is None:
            row.submitted_at = scope.now
        row.closed_at = (row.closed_at or scope.now) if row.state in CLOSED else None
        await scope.db.flush()
        await _post(scope, row, was, owed_minor, payment)
        await _tell(scope, payment, row, was.state if was else "")
    before = payment.dispute
    payment.dispute, payment.disputed_minor = standing(await of_payment(scope, payment.id))
    if payment.dispute != before:
        payment.version_no += 1


async def _post(scope: Scope, row: Dispute, was: Known | None, owed_minor: int, payment: Payment) -> None:
    """money.md 4.3, each once: the bank takes the money, and gives it back, or it is lost. What the payer was owed
    anyhow (a credit note without its refund) is no loss: they have it now. What filled a wallet leaves it again, and
    whoever has spent it owes it to the wallet."""
    amount, currency = row.amount_minor, row.currency
    if row.is_withdrawn:
        await _once(scope, row, "dispute_opened", [
            Posting("dispute_receivable", amount, currency), Posting("psp_pending", -amount, currency, row.account_ref),
        ])  # fmt: skip
    await _post_fee(scope, row)
    if row.state == "lost" and row.is_withdrawn and not row.is_reinstated:
        owed = min(owed_minor, amount)
        bearers = [
            Posting("dispute_loss", amount - owed, currency),
            Posting("driver_receivable", owed, currency),
        ]
        if payment.source_type == "wallet":
            bearers = [Posting("wallet_liability", amount, currency, public_id("driver", payment.source_id))]
        await _once(scope, row, "dispute_lost", [*bearers, Posting("dispute_receivable", -amount, currency)])
    if row.is_reinstated:
        if was is not None and was.state == "lost":  # an appeal was won
            query = select(LedgerTxn.id).filter_by(
                kind="dispute_lost", source_type="dispute", source_id=row.id
            )
            lost = (await scope.db.execute(query)).scalar_one_or_none()
            if lost is not None:
                await ledger.reverse(scope, lost, "dispute_lost_reversed", "dispute", row.id)
        await _once(scope, row, "dispute_won", [
            Posting("psp_pending", amount, currency, row.account_ref), Posting("dispute_receivable", -amount, currency),
        ])  # fmt: skip


async def _once(scope: Scope, row: Dispute, kind: str, postings: list[Posting]) -> None:
    await ledger.post(scope, kind, "dispute", row.id, scope.now, postings)


async def _post_fee(scope: Scope, row: Dispute) -> None:
    """The difference to what stands in the books: an answer may cost something too, and a fee may come back."""
    source = f"dispute_fee:{row.id}"
    query = (
        select(func.coalesce(func.sum(LedgerEntry.amount_minor), 0))
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .join(LedgerTxn, LedgerTxn.id == LedgerEntry.txn_id)
        .where(LedgerTxn.source_type == source, LedgerAccount.code == "dispute_fee")
    )
    more = row.fee_minor - int((await scope.db.execute(query)).scalar_one())
    await ledger.post(scope, "dispute_fee", source, uuid7(), scope.now, [
        Posting("dispute_fee", more, row.currency), Posting("psp_pending", -more, row.currency, row.account_ref),
    ])  # fmt: skip


async def _tell(scope: Scope, payment: Payment, row: Dispute, was: str) -> None:
    """`DisputeOpened` once for an inquiry and once more where it becomes a dispute; `DisputeClosed` at its end."""
    if row.state == was:
        return
    news = {
        "state": row.state, "amount_minor": row.amount_minor, "currency": row.currency, "reason": row.reason,
        "payment": str(payment.id), "source_type": payment.source_type, "source_id": str(payment.source_id),
    }  # fmt: skip
    await audit.record(scope, f"dispute.{_DEEDS[row.state]}", "dispute", row.id, {"was": was, **news})
    is_new = RANK[row.state] < RANK["lost"] and row.state != "warning_closed" and (
        not was or (was.startswith("warning_") and row.state in AT_THE_BANK)
    )  # fmt: skip
    if row.state in CLOSED or is_new:
        await events.emit(
            scope, "DisputeClosed" if row.state in CLOSED else "DisputeOpened", "dispute", row.id, news
        )
    scope.publish(f"payment:{payment.source_id}", {"what": "dispute"})


_DEEDS = {
    "warning_needs_response": "opened", "needs_response": "opened", "warning_under_review": "answered",
    "under_review": "answered", "warning_closed": "closed", "won": "won", "lost": "lost",
}  # fmt: skip


# -- reads -----------------------------------------------------------------------------------------------------------


async def get_dispute(scope: Scope, dispute_id: UUID) -> Dispute:
    row = await scope.db.get(Dispute, (scope.tenant_id, dispute_id))
    if row is None:
        raise NotFound("dispute")
    return row


async def find_by_ref(scope: Scope, payment: Payment, ref: str) -> Dispute | None:
    query = select(Dispute).where(Dispute.account_ref == payment.account_ref, Dispute.ref == ref)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def of_payment(scope: Scope, payment_id: UUID) -> list[Dispute]:
    """Oldest first."""
    query = select(Dispute).where(Dispute.payment_id == payment_id).order_by(Dispute.opened_at, Dispute.id)
    return list((await scope.db.execute(query)).scalars())


async def list_open(scope: Scope) -> list[Dispute]:
    """Those that wait for our answer, the most urgent first."""
    query = select(Dispute).where(Dispute.state.in_(ANSWERABLE))
    return list(
        (await scope.db.execute(query.order_by(Dispute.evidence_due_by, Dispute.id).limit(50))).scalars()
    )


async def list_stale(scope: Scope, before: datetime) -> list[UUID]:
    """Payments with a dispute that is not over and was not looked at since."""
    query = select(Dispute.payment_id).where(Dispute.state.not_in(CLOSED), Dispute.observed_at < before)
    return list((await scope.db.execute(query.distinct().limit(200))).scalars())


def dispute_as_json(row: Dispute) -> dict[str, Any]:
    """As REST shows it."""
    return {
        "id": public_id("dispute", row.id), "payment_id": public_id("payment", row.payment_id), "state": row.state,
        "reason": row.reason, "amount": money(row.amount_minor, row.currency),
        "fee": money(row.fee_minor, row.currency), "is_withdrawn": row.is_withdrawn,
        "is_reinstated": row.is_reinstated, "opened_at": rfc3339(row.opened_at),
        "evidence_due_by": rfc3339(row.evidence_due_by), "submitted_at": rfc3339(row.submitted_at),
        "closed_at": rfc3339(row.closed_at), "provider_ref": row.ref,
    }  # fmt: skip
