"""The books: double entry in minor units, append-only, each posting once and summing to zero (money.md 4.2, 4.3)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing.models import LedgerAccount, LedgerEntry, LedgerTxn
from app.kernel.clock import uuid7
from tenants.scope import Scope

NORMAL_SIDES = {
    "driver_receivable": "debit", "psp_pending": "debit", "psp_available": "debit", "bank_in_transit": "debit",
    "bank": "debit", "platform_fee_expense": "debit", "stripe_fee_expense": "debit", "dispute_receivable": "debit",
    "dispute_loss": "debit", "dispute_fee": "debit", "write_off": "debit", "revenue": "credit", "vat_payable": "credit",
    "wallet_liability": "credit", "voucher_liability": "credit", "voucher_receivable": "debit", "goodwill": "debit",
    "psp_platform": "debit", "tenant_receivable": "debit", "fee_revenue": "credit",
    "site_host_expense": "debit", "site_host_payable": "credit", "host_share_held": "debit",
    "host_share_payable": "credit", "vat_receivable": "debit",
    "terminal_clearing": "debit", "terminal_unmatched": "credit", "acquirer_fee": "debit", "other_income": "credit",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Posting:
    """One side. `account` is a code of NORMAL_SIDES, `party` narrows it: a VAT code (`DE19`), the account at the
    provider (`acct_…`), the driver whose wallet it is (`drv_…`), the batch of vouchers (`vou_…`), the site host
    (`hst_…`; in older books its name), the acquirer's contract or the terminal (`trm_…`), and in the platform's own
    book the tenant's slug. + debit, - credit, minor units."""

    account: str
    amount_minor: int
    currency: str
    party: str = ""


def balance(postings: Iterable[Posting]) -> dict[str, int]:
    """What each currency sums to; all zero in a lawful posting (pure)."""
    sums: dict[str, int] = defaultdict(int)
    for posting in postings:
        sums[posting.currency] += posting.amount_minor
    return dict(sums)


async def post(
    scope: Scope, kind: str, source_type: str, source_id: UUID, effective_at: datetime, postings: list[Posting],
    *, reverses_id: UUID | None = None,
) -> UUID | None:  # fmt: skip
    """None when this posting stands already. ValueError when it does not balance: that is a bug, not input."""
    postings = [posting for posting in postings if posting.amount_minor]
    if any(balance(postings).values()):
        raise ValueError(f"posting {kind} does not balance: {balance(postings)}")
    if not postings:
        return None
    statement = (
        upsert(LedgerTxn)
        .values(
            id=uuid7(), kind=kind, source_type=source_type, source_id=source_id, effective_at=effective_at,
            reverses_id=reverses_id,
        )
        .on_conflict_do_nothing()
        .returning(LedgerTxn.id)
    )  # fmt: skip
    txn_id = (await scope.db.execute(statement)).scalar_one_or_none()
    if txn_id is None:
        return None
    rows = [
        {
            "id": uuid7(), "txn_id": txn_id, "account_id": await _account(scope, posting),
            "amount_minor": posting.amount_minor, "currency": posting.currency,
        }
        for posting in postings
    ]  # fmt: skip
    await scope.db.execute(insert(LedgerEntry), rows)
    return txn_id


async def sums(
    scope: Scope, code: str, parties: Sequence[str], currency: str | None = None
) -> dict[str, int]:
    """What stands on an account, by party: + debit, - credit, minor units of that currency, or of the party's one."""
    query = (
        select(LedgerAccount.party, func.sum(LedgerEntry.amount_minor))
        .join(LedgerEntry, LedgerEntry.account_id == LedgerAccount.id)
        .where(LedgerAccount.code == code, LedgerAccount.party.in_(parties))
        .group_by(LedgerAccount.party)
    )
    if currency is not None:
        query = query.where(LedgerEntry.currency == currency)
    return {party: int(minor) for party, minor in (await scope.db.execute(query)).all()}


async def party_of(scope: Scope, code: str, source_type: str, source_id: UUID) -> str | None:
    """Under whom a source's first posting stands on an account; None where there is none."""
    query = (
        select(LedgerAccount.party)
        .join(LedgerEntry, LedgerEntry.account_id == LedgerAccount.id)
        .join(LedgerTxn, LedgerTxn.id == LedgerEntry.txn_id)
        .where(
            LedgerAccount.code == code, LedgerTxn.source_type == source_type, LedgerTxn.source_id == source_id
        )
        .order_by(LedgerTxn.id)
        .limit(1)
    )
    return (await scope.db.execute(query)).scalar_one_or_none()


async def _account(scope: Scope, posting: Posting) -> UUID:
    key = {"code": posting.account, "party": posting.party, "currency": posting.currency}
    query = select(LedgerAccount.id).filter_by(**key)
    found = (await scope.db.execute(query)).scalar_one_or_none()
    if found is not None:
        return found
    values = {"id": uuid7(), "normal_side": NORMAL_SIDES[posting.account], **key}
    await scope.db.execute(upsert(LedgerAccount).values(**values).on_conflict_do_nothing())
    return (await scope.db.execute(query)).scalar_one()


async def reverse(scope: Scope, txn_id: UUID, kind: str, source_type: str, source_id: UUID) -> UUID | None:
    """The same posting with every sign turned: nothing is ever changed or deleted."""
    query = (
        select(LedgerEntry, LedgerAccount)
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(LedgerEntry.txn_id == txn_id)
    )
    postings = [
        Posting(account.code, -entry.amount_minor, entry.currency, account.party)
        for entry, account in (await scope.db.execute(query)).all()
    ]
    return await post(scope, kind, source_type, source_id, scope.now, postings, reverses_id=txn_id)
