"""The provider's books beside ours, line by line (money.md 4.7).

`reconcile` reads what the provider lists while no transaction is open, then writes in one: its lines as they are, what
they move in our books (pending money becomes available, goes to the bank, arrives or comes back), and each difference
as an item that stands until a later run no longer finds it, or until staff explained it. Whatever is not understood is
a difference: nothing is left out. It may run at any time, twice, or at once with itself.
Errors: `already_explained`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing import ledger, payments, provider, terminals
from app.billing.ledger import Posting
from app.billing.models import (
    Dispute,
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Payment,
    PaymentAccount,
    PaymentOp,
    Payout,
    ProviderBalanceTxn,
    ReconItem,
    ReconRun,
)
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from tenants.database import Database
from tenants.scope import Actor, Scope

ACTOR = Actor.job("billing.reconcile")
OVERLAP = timedelta(days=3)
PAYOUTS_MAY_RETURN = timedelta(days=10)  # a bank sends one back within five working days
PARTS_COME_WITHIN = timedelta(days=30)
STALE = timedelta(days=7)
# What one side has and the other has not yet is no difference before then: webhooks and janitor take their time.
SETTLES_WITHIN = timedelta(hours=1)
# Our postings that move the account at the provider, by what they are about; FEES are kept of it.
OURS = {
    "host_share_back": "fee_refund",
    "captured": "charge", "fees": "charge", "refunded": "refund", "fee_refunded": "refund", "refund_failed": "refund",
    "refunded_outside": "refund_outside", "refund_outside_failed": "refund_outside",
    "dispute_opened": "dispute", "dispute_won": "dispute", "dispute_fee": "dispute",
}  # fmt: skip
FEES = ("fees", "fee_refunded", "dispute_fee")
LATER = ("payment_fees", "payment_outside", "dispute_fee")  # sources of what comes more than once: `name:id`
# What was not captured of a charge comes back as a line of its own, and what a card's bank did not take of a refund
# (docs.stripe.com/reports/reporting-categories).
OF_PAYMENTS = (
    "charge",
    "partial_capture_reversal",
    "refund",
    "refund_failure",
    "dispute",
    "dispute_reversal",
)
OF_PAYOUTS = ("payout", "payout_reversal")
PROVIDERS_OWN = "fee"  # what the provider bills the account itself
CATEGORIES = (
    "missing_in_ledger", "missing_in_stripe", "amount", "fee", "currency", "duplicate", "stale_pending",
    "payout_items", "unknown_type", "balance", "books", "stale_clearing",
)  # fmt: skip


# -- the comparison (pure) -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One side of a pair. `key` says what it is about (`charge:ch_1`); amounts in minor units, `fee_minor` is kept of
    `amount_minor`."""

    key: str
    amount_minor: int
    fee_minor: int = 0
    currency: str
    at: datetime
    row_id: UUID | None = None

    @property
    def net_minor(self) -> int:
        return self.amount_minor - self.fee_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`delta_minor` is the provider's figure less ours."""

    category: str
    key: str
    delta_minor: int
    currency: str
    ledger_txn_id: UUID | None = None
    balance_txn_id: UUID | None = None


@dataclass(slots=True)
class Compared:
    """`fresh` lines have no partner and may still get one."""

    matched: int = 0
    fresh: int = 0
    differences: list[Difference] = field(default_factory=list)


def compare(booked: Iterable[Line], told: Iterable[Line], *, until: datetime) -> Compared:
    """Pairs what we booked with what the provider tells, by key. What is younger than `until` may miss its partner."""
    pairs: dict[str, tuple[list[Line], list[Line]]] = defaultdict(lambda: ([], []))
    for line in booked:
        pairs[line.key][0].append(line)
    for line in told:
        pairs[line.key][1].append(line)
    found = Compared()
    for key in sorted(pairs):
        _compare_key(found, *pairs[key], until=until)
    return found


def _compare_key(found: Compared, ours: list[Line], theirs: list[Line], *, until: datetime) -> None:
    if ours and theirs:
        same = [(b, t) for b in ours for t in theirs if _figures(b) == _figures(t)]
        mine, its = same[0] if same else (ours[0], theirs[0])
        _compare_pair(found, mine, its)
        found.differences += [_alone("duplicate", line, -1) for line in ours if line is not mine]
        found.differences += [_alone("duplicate", line, 1) for line in theirs if line is not its]
        return
    for lines, category, sign in ((ours, "missing_in_stripe", -1), (theirs, "missing_in_ledger", 1)):
        old = [line for line in lines if line.at <= until]
        found.fresh += len(lines) - len(old)
        found.differences += [_alone(category, line, sign) for line in old]


def _figures(line: Line) -> tuple[int, int, str]:
    return line.amount_minor, line.fee_minor, line.currency


def _compare_pair(found: Compared, mine: Line, its: Line) -> None:
    rows = {"ledger_txn_id": mine.row_id, "balance_txn_id": its.row_id}
    if mine.currency != its.currency:
        deltas = {"currency": its.net_minor}
    else:
        deltas = {"amount": its.amount_minor - mine.amount_minor, "fee": mine.fee_minor - its.fee_minor}
        deltas = {category: delta for category, delta in deltas.items() if delta}
    found.matched += not deltas
    found.differences += [
        Difference(category=category, key=its.key, delta_minor=delta, currency=its.currency, **rows)
        for category, delta in deltas.items()
    ]


def _alone(category: str, line: Line, sign: int) -> Difference:
    key = line.key if category != "duplicate" else f"{line.key}:{line.row_id}"
    return Difference(
        category=category, key=key, delta_minor=sign * line.net_minor, currency=line.currency,
        ledger_txn_id=line.row_id if sign < 0 else None, balance_txn_id=line.row_id if sign > 0 else None,
    )  # fmt: skip


# -- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Read:
    """What the provider told. `balance` is None where money moved while it was read."""

    txns: list[provider.BalanceTxn]
    payouts: list[provider.Payout]
    items: dict[str, list[provider.BalanceTxn]]
    balance: dict[str, int] | None


async def reconcile(
    database: Database, tenant_id: UUID, *, settles_within: timedelta = SETTLES_WITHIN
) -> ReconRun | None:
    """None where the tenant has no account that takes cards. Raises the port's errors: the queue comes back."""
    async with database.scope(tenant_id, ACTOR) as scope:
        account = await payments.find_account(scope)
        if account is None:
            return None
        since, payouts_since, itemised = await _window(scope, account)
    read = await _read(
        payments.provider_of(database.settings), account.account_ref, since, payouts_since, itemised
    )
    await _look_again(database, tenant_id, account.account_ref, read)
    async with database.scope(tenant_id, ACTOR) as scope:
        await scope.db.execute(
            text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext('reconcile'))"), {"tenant": str(tenant_id)}
        )  # fmt: skip
        return await _write(scope, account.account_ref, since, read, scope.now - settles_within)


async def _window(scope: Scope, account: PaymentAccount) -> tuple[datetime, datetime, set[str]]:
    """From when the provider's lines and its payouts are asked for, and the payouts whose parts are known."""
    ref = account.account_ref
    last = select(func.max(ReconRun.to_at)).where(ReconRun.account_ref == ref)
    pending = select(func.min(ProviderBalanceTxn.created_at)).where(
        ProviderBalanceTxn.account_ref == ref, ProviderBalanceTxn.is_pending
    )
    open_payout = select(func.min(Payout.created_at)).where(
        Payout.account_ref == ref, Payout.created_at > scope.now - PARTS_COME_WITHIN,
        Payout.state.in_(("pending", "in_transit")) | (Payout.items_minor.is_(None) & Payout.is_automatic),
    )  # fmt: skip
    known = select(Payout.provider_ref).where(Payout.account_ref == ref, Payout.items_minor.is_not(None))
    last_at = (await scope.db.execute(last)).scalar_one()
    opened_at = account.created_at - timedelta(days=1)
    since, payouts_since = (
        (last_at - OVERLAP, last_at - PAYOUTS_MAY_RETURN) if last_at else (opened_at, opened_at)
    )
    since = min(since, (await scope.db.execute(pending)).scalar_one() or since)
    # A payout's own line must not be older than the payouts that are asked for.
    payouts_since = min(payouts_since, since, (await scope.db.execute(open_payout)).scalar_one() or since)
    return since, payouts_since, set((await scope.db.execute(known)).scalars())


async def _read(
    port: provider.Provider, account: str, since: datetime, payouts_since: datetime, itemised: set[str]
) -> _Read:
    """The balance before and after: where it moved meanwhile, the lines may not add up to it."""
    before = await port.get_balance(account)
    payouts = await port.list_payouts(account, payouts_since)
    txns = await port.list_balance_txns(account, since)
    items = {
        one.ref: await port.list_balance_txns(account, since, payout=one.ref)
        for one in payouts
        if one.is_automatic and one.is_itemised and one.ref not in itemised
    }
    after = await port.get_balance(account)
    return _Read(txns, payouts, items, after if after == before else None)


async def _look_again(database: Database, tenant_id: UUID, ref: str, read: _Read) -> None:
    """A refund may fail weeks later, and where no news of it came the provider's books are the first to tell."""
    charges = {one.charge_ref for one in read.txns if one.category == "refund_failure"}
    async with database.scope(tenant_id, ACTOR) as scope:
        query = select(Payment.id).where(Payment.account_ref == ref, Payment.charge_ref.in_(charges))
        found = list((await scope.db.execute(query)).scalars())
    for payment_id in found:
        await payments.observe(database, tenant_id, payment_id)


async def _write(scope: Scope, ref: str, since: datetime, read: _Read, until: datetime) -> ReconRun:
    standing = await _find_standing(scope, ref)
    fetched = await _keep_txns(scope, ref, read)
    payouts = await _keep_payouts(scope, ref, read, standing)
    known = await _rows(scope, ref, ProviderBalanceTxn.id.in_([one.balance_txn_id for one in standing]))
    charges = {row.charge_ref for row in (*fetched, *known) if row.charge_ref}
    booked = await _booked(scope, ref, since, charges, [one.ledger_txn_id for one in standing])
    paid_out = ProviderBalanceTxn.source_ref.in_([one.provider_ref for one in payouts])
    rows = {row.id: row for row in (*fetched, *known)}
    rows |= {
        row.id: row
        for row in await _rows(scope, ref, paid_out | ProviderBalanceTxn.charge_ref.in_(booked.charges))
    }
    told, ours = _told_lines(rows.values(), booked.refunds), [*booked.lines, *_payout_lines(payouts)]
    compared = compare(_moving(ours), _moving(told), until=until)
    await _move(scope, ref, rows.values(), {line.key for line in booked.lines}, booked.refunds)
    unknown = _unknown(rows.values())
    beyond: dict[str, int] = defaultdict(int)  # what the comparison accounts for, by currency
    for sign, lines in ((1, told), (-1, ours)):
        for line in lines:
            beyond[line.currency] += sign * line.net_minor
    for one in unknown:
        beyond[one.currency] += one.delta_minor
    currencies, more = await _check_balance(scope, ref, read.balance, beyond)
    run = ReconRun(
        id=uuid7(), account_ref=ref, from_at=since, to_at=scope.now, is_green=True, created_at=scope.now, figures={}
    )  # fmt: skip
    scope.db.add(run)
    await scope.db.flush()
    found = [*compared.differences, *unknown, *_stale(rows.values(), scope.now), *_unequal(payouts), *more]
    found += await _stale_clearing(scope)
    standing, is_new = await _keep_items(scope, run, standing, found)
    differs = _counts(one for one in standing if one.resolved_at is None)
    run.is_green = not differs
    run.figures = {
        "matched": compared.matched, "fresh": compared.fresh, "differences": differs,
        "explained": sum(one.resolved_at is not None for one in standing), "currencies": currencies,
        "has_balance": read.balance is not None,
    }  # fmt: skip
    if is_new:
        await events.emit(scope, "ReconciliationDiffers", "recon_run", run.id, {"differences": differs})
    return run


def _counts(items: Iterable[ReconItem]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for one in items:
        found[one.category] += 1
    return dict(found)


# -- the provider's side ---------------------------------------------------------------------------------------------


async def _keep_txns(scope: Scope, ref: str, read: _Read) -> list[ProviderBalanceTxn]:
    """As it told them, by its own ids: told again they are the same rows, with what has become of them."""
    told = [*read.txns, *(one for parts in read.items.values() for one in parts)]
    paid_out = {one.ref: payout for payout, parts in read.items.items() for one in parts}
    values = {
        one.ref: {
            "id": uuid7(), "account_ref": ref, "provider_ref": one.ref, "type": one.type,
            "reporting_category": one.category, "amount_minor": one.amount_minor, "fee_minor": one.fee_minor,
            "net_minor": one.net_minor, "currency": one.currency, "source_ref": one.source_ref or None,
            "charge_ref": one.charge_ref, "created_at": one.created_at, "available_at": one.available_at,
            "is_pending": one.is_pending, "payout_ref": paid_out.get(one.ref),
        }
        for one in told
    }  # fmt: skip
    keys = ["tenant_id", "account_ref", "provider_ref"]
    for part in _chunks(list(values.values())):
        statement = upsert(ProviderBalanceTxn).values(part)
        new = statement.excluded
        changes = {name: new[name] for name in part[0] if name not in ("id", "payout_ref", *keys)}
        changes["payout_ref"] = func.coalesce(new.payout_ref, ProviderBalanceTxn.payout_ref)
        await scope.db.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))
    return await _rows(scope, ref, ProviderBalanceTxn.provider_ref.in_(list(values)))


async def _rows(scope: Scope, ref: str, which: ColumnElement[bool]) -> list[ProviderBalanceTxn]:
    query = select(ProviderBalanceTxn).where(ProviderBalanceTxn.account_ref == ref, which)
    query = query.order_by(ProviderBalanceTxn.created_at, ProviderBalanceTxn.id)
    return list((await scope.db.execute(query.execution_options(populate_existing=True))).scalars())


def _chunks(rows: list[Any]) -> Iterable[list[Any]]:
    return (rows[start : start + 1000] for start in range(0, len(rows), 1000))


async def _keep_payouts(scope: Scope, ref: str, read: _Read, standing: Sequence[ReconItem]) -> list[Payout]:
    """Those that were told now, and those of which a difference stands."""
    for one in read.payouts:
        parts = read.items.get(one.ref)
        values = {
            "state": one.state, "amount_minor": one.amount_minor, "currency": one.currency,
            "created_at": one.created_at, "arrives_on": one.arrives_on, "is_automatic": one.is_automatic,
            "failure": one.failure,
        }  # fmt: skip
        if parts is not None:
            values["items_minor"] = sum(part.net_minor for part in parts)
        statement = upsert(Payout).values(id=uuid7(), account_ref=ref, provider_ref=one.ref, **values)
        keys = ["tenant_id", "account_ref", "provider_ref"]
        await scope.db.execute(statement.on_conflict_do_update(index_elements=keys, set_=values))
    refs = {one.ref for one in read.payouts} | {one.key.partition(":")[2] for one in standing}
    query = select(Payout).where(Payout.account_ref == ref, Payout.provider_ref.in_(refs))
    query = query.order_by(Payout.created_at, Payout.id).execution_options(populate_existing=True)
    found = list((await scope.db.execute(query)).scalars())
    for payout in found:
        await _post_payout(scope, payout)
    return found


async def _post_payout(scope: Scope, payout: Payout) -> None:
    """Available money leaves for the bank, and arrives or comes back; each step once (money.md 4.3)."""

    async def step(kind: str, debit: str, credit: str) -> None:
        await ledger.post(scope, kind, "payout", payout.id, scope.now, [
            Posting(debit, payout.amount_minor, payout.currency, payout.account_ref),
            Posting(credit, -payout.amount_minor, payout.currency, payout.account_ref),
        ])  # fmt: skip

    await step("payout", "bank_in_transit", "psp_available")
    if payout.state == "paid":
        await step("payout_paid", "bank", "bank_in_transit")
    elif payout.state in ("failed", "canceled"):
        paid = select(LedgerTxn.id).filter_by(kind="payout_paid", source_type="payout", source_id=payout.id)
        is_paid = (await scope.db.execute(paid)).scalar_one_or_none() is not None
        await step("payout_failed", "psp_available", "bank" if is_paid else "bank_in_transit")


def _payout_lines(payouts: Iterable[Payout]) -> list[Line]:
    lines = []
    for one in payouts:
        values: dict[str, Any] = {"currency": one.currency, "at": one.created_at}
        lines.append(Line(key=f"payout:{one.provider_ref}", amount_minor=-one.amount_minor, **values))
        if one.state in ("failed", "canceled"):
            lines.append(
                Line(key=f"payout_reversal:{one.provider_ref}", amount_minor=one.amount_minor, **values)
            )
    return lines


def _is_fee_back(row: ProviderBalanceTxn) -> bool:
    """What the platform gave back of its fee, by a call of its own: `fr_…` is Stripe's FeeRefund."""
    return row.reporting_category == PROVIDERS_OWN and (row.source_ref or "").startswith("fr_")


def _key(row: ProviderBalanceTxn, ops: set[str]) -> str:
    """A refund that none of our calls made is known by its charge alone; a dispute is one thing with its end, a refund
    with its failure, and a charge with what was not captured of it."""
    if _is_fee_back(row):
        return f"fee_refund:{row.source_ref}"
    category = _ENDS.get(row.reporting_category, row.reporting_category)
    if category == "refund" and row.source_ref not in ops:
        return f"refund_outside:{row.charge_ref}"
    is_rest = row.reporting_category == "partial_capture_reversal"
    return f"{category}:{row.charge_ref if is_rest else row.source_ref}"


_ENDS = {
    "dispute_reversal": "dispute", "refund_failure": "refund", "partial_capture_reversal": "charge",
}  # fmt: skip


def _told_lines(rows: Iterable[ProviderBalanceTxn], ops: set[str]) -> list[Line]:
    lines, sums, at = list[Line](), dict[str, Line](), dict[str, int]()
    known = [
        row for row in rows if row.reporting_category in (*OF_PAYMENTS, *OF_PAYOUTS) or _is_fee_back(row)
    ]
    for row in sorted(known, key=lambda row: row.reporting_category in _ENDS):
        line = Line(
            key=_key(row, ops), amount_minor=row.amount_minor, fee_minor=row.fee_minor, currency=row.currency,
            at=row.created_at, row_id=row.id,
        )  # fmt: skip
        if line.key.startswith(("refund_outside:", "dispute:")):
            sums[line.key] = _sum(sums.get(line.key), line)
        elif row.reporting_category in _ENDS and line.key in at:
            lines[at[line.key]] = _sum(lines[at[line.key]], line)
        else:
            at.setdefault(line.key, len(lines))
            lines.append(line)
    return [*lines, *sums.values()]


def _moving(lines: Iterable[Line]) -> list[Line]:
    """Without what went there and came back again: the other side may never have seen it."""
    return [line for line in lines if line.amount_minor or line.fee_minor]


def _sum(first: Line | None, line: Line) -> Line:
    if first is None:
        return line
    return Line(
        key=line.key, amount_minor=first.amount_minor + line.amount_minor,
        fee_minor=first.fee_minor + line.fee_minor, currency=line.currency, at=max(first.at, line.at),
        row_id=first.row_id,
    )  # fmt: skip


# -- our side --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Booked:
    """`refunds`: the provider's ids of those that calls of ours made."""

    lines: list[Line]
    charges: set[str]
    refunds: set[str]


async def _booked(
    scope: Scope, ref: str, since: datetime, charges: set[str], standing: Sequence[UUID | None]
) -> _Booked:
    """All that our books have of these charges, of payments with a posting since then, and of standing differences."""
    recent = select(LedgerTxn.source_type, LedgerTxn.source_id).where(
        LedgerTxn.kind.in_(list(OURS)), (LedgerTxn.effective_at >= since) | LedgerTxn.id.in_(standing)
    )
    found: dict[str, set[UUID]] = defaultdict(set)
    for source_type, source_id in await scope.db.execute(recent):
        of, _, later = source_type.partition(":")
        found[of.partition("_")[0] if later else of].add(UUID(later) if later else source_id)
    query = select(Payment).where(
        Payment.account_ref == ref,
        or_(
            Payment.id.in_(found["payment"]), Payment.charge_ref.in_(charges),
            Payment.id.in_(select(PaymentOp.payment_id).where(PaymentOp.id.in_(found["payment_op"]))),
            Payment.id.in_(select(Dispute.payment_id).where(Dispute.id.in_(found["dispute"]))),
        ),
    )  # fmt: skip
    rows = {row.id: row for row in (await scope.db.execute(query)).scalars()}
    refunds = {
        op.id: op.provider_ref
        for ops in (await payments.list_refunds(scope, rows)).values() for op in ops if op.provider_ref
    }  # fmt: skip
    backs = select(PaymentOp.id, PaymentOp.provider_ref).where(
        PaymentOp.payment_id.in_(rows), PaymentOp.kind == "fee_refund", PaymentOp.provider_ref.is_not(None)
    )
    refunds |= {row.id: row.provider_ref for row in await scope.db.execute(backs)}
    disputes = select(Dispute.id, Dispute.ref).where(Dispute.payment_id.in_(rows))
    refs: dict[UUID, str] = {row.id: row.charge_ref or str(row.id) for row in rows.values()} | refunds
    refs |= {row.id: row.ref for row in await scope.db.execute(disputes)}
    return _Booked(
        await _booked_lines(scope, refs),
        {row.charge_ref for row in rows.values() if row.charge_ref},
        set(refunds.values()),
    )


async def _booked_lines(scope: Scope, refs: dict[UUID, str]) -> list[Line]:
    """`refs`: the provider's id of each source."""
    later = {f"{name}:{key}": ref for name in LATER for key, ref in refs.items()}
    query = (
        select(LedgerTxn, LedgerEntry.amount_minor, LedgerEntry.currency)
        .join(LedgerEntry, LedgerEntry.txn_id == LedgerTxn.id)
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(LedgerAccount.code == "psp_pending", LedgerTxn.kind.in_(list(OURS)))
        .where(LedgerTxn.source_id.in_(list(refs)) | LedgerTxn.source_type.in_(list(later)))
        .order_by(LedgerTxn.effective_at, LedgerTxn.id)
    )
    found: dict[str, Line] = {}
    for txn, amount_minor, currency in (await scope.db.execute(query)).all():
        key = f"{OURS[txn.kind]}:{later.get(txn.source_type) or refs[txn.source_id]}"
        is_fee = txn.kind in FEES
        line = Line(
            key=key, amount_minor=0 if is_fee else amount_minor, fee_minor=-amount_minor if is_fee else 0,
            currency=currency, at=txn.effective_at, row_id=txn.id,
        )  # fmt: skip
        found[key] = _sum(found.get(key), line)
    return list(found.values())


async def _move(
    scope: Scope, ref: str, rows: Iterable[ProviderBalanceTxn], booked: set[str], refunds: set[str]
) -> None:
    """What the provider bills the account itself is an expense; what is no longer pending is available: each once.
    What our books have never had stays out of them."""
    for row in rows:
        net = row.net_minor
        if row.reporting_category == PROVIDERS_OWN and not _is_fee_back(row):
            await ledger.post(scope, "provider_fee", "balance_txn", row.id, row.created_at, [
                Posting("stripe_fee_expense", -net, row.currency), Posting("psp_pending", net, row.currency, ref),
            ])  # fmt: skip
        elif _key(row, refunds) not in booked:
            continue
        if not row.is_pending:
            await ledger.post(scope, "available", "balance_txn", row.id, scope.now, [
                Posting("psp_available", net, row.currency, ref), Posting("psp_pending", -net, row.currency, ref),
            ])  # fmt: skip


# -- what is wrong beside pairs --------------------------------------------------------------------------------------


def _unknown(rows: Iterable[ProviderBalanceTxn]) -> list[Difference]:
    known = (*OF_PAYMENTS, *OF_PAYOUTS, PROVIDERS_OWN)
    return [
        Difference(
            category="unknown_type", key=f"{row.reporting_category}:{row.provider_ref}", delta_minor=row.net_minor,
            currency=row.currency, balance_txn_id=row.id,
        )
        for row in rows if row.reporting_category not in known
    ]  # fmt: skip


def _stale(rows: Iterable[ProviderBalanceTxn], now: datetime) -> list[Difference]:
    """Promised for a day that is past, and a week old: it should long be available."""
    return [
        Difference(
            category="stale_pending", key=row.provider_ref, delta_minor=0, currency=row.currency, balance_txn_id=row.id
        )
        for row in rows if row.is_pending and max(row.available_at, row.created_at + STALE) < now
    ]  # fmt: skip


async def _stale_clearing(scope: Scope) -> list[Difference]:
    """What acquirers of card terminals should have paid out long ago; their payouts are booked by staff."""
    return [
        Difference(
            category="stale_clearing", key=one.contract, delta_minor=-one.stale_minor, currency=one.currency
        )
        for one in await terminals.list_clearing(scope)
        if one.stale_minor
    ]


def _unequal(payouts: Iterable[Payout]) -> list[Difference]:
    return [
        Difference(
            category="payout_items", key=f"payout:{one.provider_ref}", currency=one.currency,
            delta_minor=one.amount_minor - one.items_minor,
        )
        for one in payouts if one.items_minor is not None and one.items_minor != one.amount_minor
    ]  # fmt: skip


async def _check_balance(
    scope: Scope, ref: str, balance: dict[str, int] | None, compared: dict[str, int]
) -> tuple[dict[str, Any], list[Difference]]:
    """opening + its lines = its balance; and its lines = our books, but for what was `compared` (I13)."""
    query = select(ProviderBalanceTxn.currency, func.sum(ProviderBalanceTxn.net_minor)).where(
        ProviderBalanceTxn.account_ref == ref
    )
    told = {
        code: int(net) for code, net in await scope.db.execute(query.group_by(ProviderBalanceTxn.currency))
    }
    account = (await scope.db.execute(select(PaymentAccount).filter_by(account_ref=ref))).scalar_one()
    ours: dict[str, dict[str, int]] = defaultdict(dict)
    query = (
        select(LedgerAccount.code, LedgerEntry.currency, func.sum(LedgerEntry.amount_minor))
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(LedgerAccount.code.in_(("psp_pending", "psp_available")), LedgerAccount.party == ref)
        .group_by(LedgerAccount.code, LedgerEntry.currency)
    )
    for code, currency, amount in await scope.db.execute(query):
        ours[currency][code] = int(amount)
    figures, found = dict[str, Any](), list[Difference]()
    for currency in sorted(set(told) | set(ours) | set(balance or ())):
        lines, books = told.get(currency, 0), sum(ours[currency].values())
        if balance is not None and currency not in account.opening:
            account.opening = account.opening | {currency: balance.get(currency, 0) - lines}
        opening = account.opening.get(currency, 0)
        deltas = {"books": lines - books - compared[currency]}
        if balance is not None:
            deltas["balance"] = balance.get(currency, 0) - opening - lines
        found += [
            Difference(category=category, key=currency, delta_minor=delta, currency=currency)
            for category, delta in deltas.items()
            if delta
        ]
        figures[currency] = {
            "opening_minor": opening, "provider_minor": (balance or {}).get(currency), "told_minor": lines,
            "books_minor": books, "pending_minor": ours[currency].get("psp_pending", 0),
            "available_minor": ours[currency].get("psp_available", 0),
        }  # fmt: skip
    return figures, found


# -- differences that stand ------------------------------------------------------------------------------------------


async def _find_standing(scope: Scope, ref: str) -> list[ReconItem]:
    query = select(ReconItem).where(ReconItem.account_ref == ref, ReconItem.gone_at.is_(None))
    return list((await scope.db.execute(query.order_by(ReconItem.id))).scalars())


async def _keep_items(
    scope: Scope, run: ReconRun, standing: Sequence[ReconItem], found: Sequence[Difference]
) -> tuple[list[ReconItem], bool]:
    """What stands after this run, and whether there is a new one. An explanation holds for the figure that it was
    given for: another one is a new difference."""
    known = {(one.category, one.key): one for one in standing}
    kept, is_new = list[ReconItem](), False
    for one in found:
        item = known.pop((one.category, one.key), None)
        if item is not None and item.resolved_at is not None and item.delta_minor != one.delta_minor:
            item.gone_at = scope.now
            await scope.db.flush()
            item = None
        if item is None:
            is_new = True
            item = ReconItem(
                id=uuid7(), run_id=run.id, account_ref=run.account_ref, category=one.category, key=one.key,
                currency=one.currency, found_at=scope.now, delta_minor=one.delta_minor,
            )  # fmt: skip
            scope.db.add(item)
        item.delta_minor, item.ledger_txn_id = one.delta_minor, one.ledger_txn_id
        item.balance_txn_id = one.balance_txn_id
        kept.append(item)
    for item in known.values():
        item.gone_at = scope.now
    await scope.db.flush()
    return kept, is_new


async def explain(scope: Scope, item_id: UUID, note: str) -> ReconItem:
    """Staff know why, and say so: the difference stands, and no longer makes the books red. Once."""
    query = select(ReconItem).where(ReconItem.id == item_id).with_for_update()
    item = (await scope.db.execute(query)).scalar_one_or_none()
    if item is None:
        raise NotFound("recon_item")
    note = note.strip()
    if not note or len(note) > 500:
        raise Invalid.field(
            "note", "required", "Say in up to 500 characters where the difference comes from."
        )
    if item.gone_at is not None or item.resolved_at is not None:
        raise Refused(
            "already_explained", "This difference is gone, or somebody was quicker and explained it."
        )
    item.resolved_at, item.resolved_by, item.note = scope.now, scope.actor.name, note
    data = {"category": item.category, "key": item.key, "delta_minor": item.delta_minor, "note": note}
    await audit.record(scope, "reconciliation.explained", "recon_item", item.id, data)
    return item


# -- reads -----------------------------------------------------------------------------------------------------------
# Of the tenant's current account: one that it left (the sandbox's, once there is a key) is never compared again.


async def _own_ref(scope: Scope) -> str:
    """Empty for none."""
    account = await payments.find_own_account(scope)
    return account.account_ref if account else ""


async def find_light(scope: Scope) -> str:
    """`green`, `red`, or empty where the books were never compared."""
    ref = await _own_ref(scope)
    ran = select(func.max(ReconRun.created_at)).where(ReconRun.account_ref == ref)
    if (await scope.db.execute(ran)).scalar_one() is None:
        return ""
    standing = select(func.count()).select_from(ReconItem).where(
        ReconItem.account_ref == ref, ReconItem.gone_at.is_(None), ReconItem.resolved_at.is_(None)
    )  # fmt: skip
    return "red" if (await scope.db.execute(standing)).scalar_one() else "green"


async def list_items(scope: Scope, *, is_standing: bool = True, limit: int = 200) -> list[ReconItem]:
    """Newest first; all there ever were, of every account, where not `is_standing`."""
    query = select(ReconItem).order_by(ReconItem.resolved_at.is_not(None), ReconItem.id.desc()).limit(limit)
    if is_standing:
        query = query.where(ReconItem.account_ref == await _own_ref(scope), ReconItem.gone_at.is_(None))
    return list((await scope.db.execute(query)).scalars())


async def list_runs(scope: Scope, limit: int = 20) -> list[ReconRun]:
    query = select(ReconRun).where(ReconRun.account_ref == await _own_ref(scope))
    query = query.order_by(ReconRun.id.desc()).limit(limit)
    return list((await scope.db.execute(query)).scalars())
