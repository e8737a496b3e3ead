"""A driver's wallet: money paid ahead, in the brand's currency, for charging with this brand and nothing else.

The balance is what the ledger says: `wallet_liability` of that driver. Money comes by card, by voucher (`vouchers`) or
from staff; a session keeps a part of it as a card holds money (a `Payment` whose provider is `wallet`), so that cap,
papers, corrections and refunds are those of every payment. Card money goes back to the cards that it came from.
Errors: `wallet_off`, `wallet_too_small`, `wallet_full`, `wallet_limit`, those of `payments.open_payment`, Invalid of
`amount` and `reason`, TooMany `too_many_checkouts`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, text

from app.access import accounts
from app.access.models import Driver
from app.access.service import get_driver
from app.billing import ledger, payments
from app.billing.card_currencies import CARD_CURRENCIES
from app.billing.ledger import Posting
from app.billing.models import (
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Payment,
    PaymentOp,
    Repayment,
    Voucher,
    VoucherBatch,
    VoucherRedemption,
    WalletCredit,
)
from app.billing.payments import WALLET
from app.brands.models import TenantProfile
from app.identity import limits
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, Refused, TooMany
from app.kernel.ids import public_id
from app.kernel.money import Money
from tenants.scope import Scope
from themes.language import N_, _
from themes.render import money

TOP_UPS, TOP_UP_WINDOW = 8, timedelta(minutes=30)
EVERYTHING = 1_000_000
GIFTS = ("voucher_redeemed", "wallet_credited")
FULL_HOLDS = 5  # of a fast charger: what a wallet holds at most, 300.00 of euros


@dataclass(frozen=True, slots=True)
class Wallet:
    """Minor units. Of `balance_minor`, `kept_minor` waits for the end of sessions and `frozen_minor` is on its way back
    to a card or disputed at its bank: neither can be spent."""

    driver_id: UUID
    currency: str
    balance_minor: int
    kept_minor: int = 0
    frozen_minor: int = 0

    @property
    def available_minor(self) -> int:
        return max(self.balance_minor - self.kept_minor - self.frozen_minor, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a wallet's history. `kind` and source are the posting's; + what came, - what went, minor units.
    `balance_minor` is what the wallet held after it, `note` what staff or the voucher says, `session_id` what it paid
    for."""

    at: datetime
    kind: str
    amount_minor: int
    balance_minor: int
    source_id: UUID
    note: str = ""
    session_id: UUID | None = None


# -- the brand's policy ------------------------------------------------------------------------------------------------


async def is_offered(scope: Scope) -> bool:
    """The brand lets its drivers pay so (`TenantProfile.pays_by`)."""
    ways = (await scope.db.execute(select(TenantProfile.pays_by))).scalar_one_or_none()
    return WALLET in (ways or [])


async def offer(scope: Scope, *, is_on: bool) -> None:
    """From the next start on. Balances stay as they are, and can be paid back."""
    profile = (await scope.db.execute(select(TenantProfile).with_for_update())).scalar_one()
    if is_on != (WALLET in profile.pays_by):
        others = [way for way in profile.pays_by if way != WALLET]
        profile.pays_by = [*others, WALLET] if is_on else others
        await audit.record(
            scope, "tenant.pays_by_changed", "tenant", scope.tenant_id, {"ways": profile.pays_by}
        )


# -- what is in it -----------------------------------------------------------------------------------------------------


async def get_wallet(scope: Scope, driver_id: UUID, *, lock: bool = False) -> Wallet:
    """`lock`: nobody else spends or fills it until the commit."""
    if lock:
        await scope.db.execute(
            text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext(:wallet))"),
            {"tenant": str(scope.tenant_id), "wallet": f"wallet:{driver_id}"},
        )
    currency = (await scope.db.execute(select(TenantProfile.currency))).scalar_one()
    party = public_id("driver", driver_id)
    booked = (
        select(-func.sum(LedgerEntry.amount_minor))
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(*_account_of(party, currency))
    )
    kept = select(func.sum(Payment.hold_minor)).where(
        Payment.provider == WALLET, Payment.account_ref == party, Payment.currency == currency,
        Payment.state.in_(("authorized", "capturing")),
    )  # fmt: skip
    is_top_up = (Payment.source_type == WALLET) & (Payment.source_id == driver_id)
    disputed = select(func.sum(Payment.disputed_minor)).where(
        is_top_up,
        Payment.dispute == "open",  # what is lost has left the wallet
    )
    going_back = (
        select(func.sum(PaymentOp.request["amount_minor"].as_integer()))
        .join(Payment, Payment.id == PaymentOp.payment_id)
        .where(is_top_up, PaymentOp.kind == "refund", PaymentOp.state.not_in(("succeeded", "failed")))
    )
    # One statement, so one moment: a capture between two looks would show the money twice.
    parts = [func.coalesce(one.scalar_subquery(), 0) for one in (booked, kept, disputed, going_back)]
    balance, waits, lost, back = (int(one) for one in (await scope.db.execute(select(*parts))).one())
    return Wallet(driver_id, currency, balance, waits, lost + back)


def _account_of(party: str, currency: str) -> tuple[ColumnElement[bool], ...]:
    return (
        LedgerAccount.code == "wallet_liability", LedgerAccount.party == party, LedgerAccount.currency == currency,
    )  # fmt: skip


async def list_top_ups(scope: Scope, driver_id: UUID) -> list[Payment]:
    """By card, oldest first, whatever became of them."""
    query = select(Payment).where(Payment.source_type == WALLET, Payment.source_id == driver_id)
    return list((await scope.db.execute(query.order_by(Payment.leg))).scalars())


async def list_entries(scope: Scope, wallet: Wallet, *, limit: int = 100) -> list[Entry]:
    """Newest first: the postings of its account in the ledger, and nothing else."""
    moved = (
        select(LedgerEntry.txn_id, func.sum(LedgerEntry.amount_minor).label("minor"))
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(*_account_of(public_id("driver", wallet.driver_id), wallet.currency))
        .group_by(LedgerEntry.txn_id)
        .subquery()
    )
    query = select(LedgerTxn, moved.c.minor).join(moved, moved.c.txn_id == LedgerTxn.id)
    query = query.order_by(LedgerTxn.id.desc()).limit(limit)
    rows = [(row, -int(minor)) for row, minor in (await scope.db.execute(query)).all()]
    notes = await _notes(scope, [row for row, _minor in rows])
    sessions = await _sessions(scope, [row.source_id for row, _minor in rows])
    found, balance = list[Entry](), wallet.balance_minor
    for row, minor in rows:
        source = row.source_id
        found.append(
            Entry(
                row.created_at, row.kind, minor, balance, source, notes.get(source, ""), sessions.get(source)
            )
        )
        balance -= minor
    return found


async def _sessions(scope: Scope, sources: Sequence[UUID]) -> dict[UUID, UUID]:
    """Source of a posting -> the session that it paid for, or was given back for."""
    is_session = Payment.source_type == "charging_session"
    own = select(Payment.id, Payment.source_id).where(Payment.id.in_(sources), is_session)
    ops = (
        select(PaymentOp.id, Payment.source_id)
        .join(Payment, Payment.id == PaymentOp.payment_id)
        .where(PaymentOp.id.in_(sources), is_session)
    )
    queries: Iterable[Select[UUID, UUID]] = (own, ops)
    return {key: session for query in queries for key, session in (await scope.db.execute(query)).all()}


async def _notes(scope: Scope, rows: Sequence[LedgerTxn]) -> dict[UUID, str]:
    ids = [row.source_id for row in rows]
    credits = select(WalletCredit.id, WalletCredit.reason).where(WalletCredit.id.in_(ids))
    redeemed = (
        select(VoucherRedemption.id, VoucherBatch.name)
        .join(Voucher, Voucher.id == VoucherRedemption.voucher_id)
        .join(VoucherBatch, VoucherBatch.id == Voucher.batch_id)
        .where(VoucherRedemption.id.in_(ids))
    )
    refunds = select(PaymentOp.id, PaymentOp.request["reason"].astext).where(PaymentOp.id.in_(ids))
    repaid = select(Repayment.id, Repayment.reference).where(Repayment.id.in_(ids))
    queries: Iterable[Select[UUID, str]] = (credits, redeemed, refunds, repaid)
    return {key: note for query in queries for key, note in (await scope.db.execute(query)).all()}


async def totals(scope: Scope, code: str) -> list[tuple[str, int]]:
    """(currency, minor units) that the brand owes on an account of the ledger: `wallet_liability` to its drivers,
    `voucher_liability` to whoever has a code."""
    query = (
        select(LedgerAccount.currency, -func.sum(LedgerEntry.amount_minor))
        .join(LedgerEntry, LedgerEntry.account_id == LedgerAccount.id)
        .where(LedgerAccount.code == code)
        .group_by(LedgerAccount.currency)
        .order_by(LedgerAccount.currency)
    )
    return [(currency, int(minor)) for currency, minor in (await scope.db.execute(query)).all()]


# -- filling it --------------------------------------------------------------------------------------------------------


def words_of(entry: Entry) -> str:
    """What happened, as its driver reads it."""
    if entry.session_id is not None:
        return _("Charging") if entry.amount_minor < 0 else _("Given back for a session")
    if entry.kind.startswith("dispute_lost"):
        return _("Asked back by your bank") if entry.amount_minor < 0 else _("Given again by your bank")
    if entry.kind == "voucher_redeemed":
        return _("Voucher")
    if entry.kind == "repaid":
        return _("Paid back in another way")
    if entry.kind == "refund_failed":
        return _("Sent back by your card's bank")
    if entry.kind == "wallet_credited":
        return _("Credit from the operator") if entry.amount_minor > 0 else _("Taken back by the operator")
    return _("Paid in by card") if entry.amount_minor > 0 else _("Paid back to your card")


def most_minor(currency: str) -> int:
    """What a wallet may hold: it pays for charging, and is no place to keep money."""
    known = CARD_CURRENCIES.get(currency)
    return FULL_HOLDS * known.hold_dc_minor if known else 0


def check_room(wallet: Wallet, amount_minor: int) -> None:
    most = most_minor(wallet.currency)
    if most and wallet.balance_minor + amount_minor > most:
        message = _("A wallet holds at most %(amount)s.") % {"amount": money(most, wallet.currency)}
        raise Refused("wallet_full", message)


async def top_up(
    scope: Scope, amount: str, *, success_url: str, cancel_url: str, language: str, remote: str
) -> PaymentOp:
    """By the driver who acts, on the provider's payment page; `amount` as in `30.00`. What is held there is taken at
    once (`top_up_authorized`), and is in the wallet then."""
    driver = await accounts.get_own(scope)
    if not await is_offered(scope):
        raise Refused("wallet_off", N_("There is no wallet to fill here."))
    wallet = await get_wallet(scope, driver.id, lock=True)
    least = payments.minimum_minor(wallet.currency)
    try:
        minor = Money.parse(amount.strip().replace(",", "."), wallet.currency).amount_minor
    except ValueError:
        raise Invalid.field("amount", "amount", N_("Give an amount such as 30.00.")) from None
    if minor < least:
        message = _("A card cannot be charged less than %(amount)s.") % {
            "amount": money(least, wallet.currency)
        }
        raise Invalid.field("amount", "too_low", message)
    legs = await list_top_ups(scope, driver.id)
    check_room(wallet, minor + await _coming_minor(scope, legs))
    payment, op = await payments.open_payment(
        scope, source_type=WALLET, source_id=driver.id, leg=legs[-1].leg + 1 if legs else 1, hold_minor=minor,
        currency=wallet.currency, title=_("Your wallet"), success_url=success_url, cancel_url=cancel_url,
        email=driver.email or "", language=language,
    )  # fmt: skip
    await _check_tries(scope, driver, remote, payment.id)
    return op


def _is_coming(top_up: Payment) -> bool:
    return top_up.state in (*payments.OPEN, "authorized", "capturing") and not top_up.failure


async def _coming_minor(scope: Scope, top_ups: Sequence[Payment]) -> int:
    """What open payment pages may bring: paid all at once they must not fill a wallet above its limit."""
    query = select(PaymentOp.request["amount_minor"].as_integer()).where(
        PaymentOp.kind == "checkout_create",
        PaymentOp.payment_id.in_([one.id for one in top_ups if _is_coming(one)]),
    )
    return sum((await scope.db.execute(query)).scalars())


async def _check_tries(scope: Scope, driver: Driver, remote: str, attempt: UUID) -> None:
    """Against card testing, as at the chargers: what comes to money is forgiven."""
    names = (f"top_up:{driver.id}", f"top_up:{limits.network_of(remote)}")
    most = dict.fromkeys(names, TOP_UPS)
    if not await limits.claim(scope.redis, scope.tenant_id, attempt, most, TOP_UP_WINDOW):
        raise TooMany(
            N_("Too many payments were begun in a short time. Try again in half an hour."),
            code="too_many_checkouts", retry_after_s=int(TOP_UP_WINDOW.total_seconds()),
        )  # fmt: skip


async def top_up_authorized(scope: Scope, event_id: UUID) -> None:
    event = await scope.db.get(events.Event, (scope.tenant_id, event_id))
    if event is not None and event.data.get("source_type") == WALLET:
        await limits.forgive(scope.redis, scope.tenant_id, event.source_id)
        await payments.capture_hold(scope, event.source_id)


async def look_again(scope: Scope, driver_id: UUID) -> bool:
    """The driver is back from the payment page: the provider is asked, whether or not its news came. True while a
    payment is not there yet."""
    waiting = [one for one in await list_top_ups(scope, driver_id) if _is_coming(one)]
    for one in waiting[-1:]:
        await payments.watch(scope, one.id)
    return bool(waiting)


async def credit(
    scope: Scope, driver_id: UUID, amount: str, reason: str, *, seen_minor: int | None = None
) -> WalletCredit:
    """By staff, with the reason that the driver reads too; a negative amount takes back, of what was given and is not
    spent: what a driver paid in is theirs. What one person gives is bounded as a refund is. The gift is the brand's
    expense, and the session it pays is taxed in full. `seen_minor` is the balance that whoever gives it saw:
    `wallet_changed` where that is another by now, so that a second press gives nothing twice."""
    driver = await get_driver(scope, driver_id)
    wallet = await get_wallet(scope, driver.id, lock=True)
    if seen_minor is not None and seen_minor != wallet.balance_minor:
        raise Refused(
            "wallet_changed", "This wallet has changed since you looked: see its history, then send it again."
        )
    if not reason.strip():
        raise Invalid.field("reason", "required", "Say in a sentence why.")
    try:
        minor = Money.parse(amount.strip(), wallet.currency).amount_minor
    except ValueError:
        minor = 0
    if not minor:
        raise Invalid.field("amount", "amount", "Give an amount such as 10.00, or -10.00 to take it back.")
    if minor < 0:
        own = card_money(await list_entries(scope, wallet, limit=EVERYTHING))
        given = max(wallet.available_minor - own, 0)
        if -minor > given:
            most = Money(given, wallet.currency).format()
            why = (
                f"{most} of what was given is left: what the driver paid in goes back to their card instead."
            )
            raise Invalid.field("amount", "too_high", why)
    if minor > 0:
        check_room(wallet, minor)
        limit = await limit_minor(scope)
        if limit is not None and minor + await _given_lately(scope, driver.id) > limit:
            most = Money(limit, wallet.currency).format()
            raise Refused(
                "wallet_limit",
                f"One person gives a driver at most {most} in 30 days (card settings, refunds).",
            )
    row = WalletCredit(
        id=uuid7(), driver_id=driver.id, amount_minor=minor, currency=wallet.currency, reason=reason.strip()[:500],
        given_by=scope.actor.name, created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    await post_in(
        scope, "wallet_credited", "wallet_credit", row.id, driver.id, Posting("goodwill", minor, row.currency)
    )
    await audit.record(
        scope, "wallet.credited", "driver", driver.id,
        {"amount_minor": minor, "currency": row.currency, "reason": row.reason},
    )  # fmt: skip
    return row


async def _given_lately(scope: Scope, driver_id: UUID) -> int:
    """By who acts, so that a limit is not passed in parts."""
    query = select(func.coalesce(func.sum(WalletCredit.amount_minor), 0)).where(
        WalletCredit.driver_id == driver_id, WalletCredit.given_by == scope.actor.name,
        WalletCredit.created_at > scope.now - timedelta(days=30),
    )  # fmt: skip
    return int((await scope.db.execute(query)).scalar_one())


async def limit_minor(scope: Scope) -> int | None:
    """What one person gives away alone: the brand's own limit of refunds, else its currency's usual one. None: a
    currency of which we know none."""
    account = await payments.find_own_account(scope)
    if account is not None:
        return account.refund_limit_minor
    currency = (await scope.db.execute(select(TenantProfile.currency))).scalar_one()
    known = CARD_CURRENCIES.get(currency)
    return known.refund_limit_minor if known else None


async def post_in(
    scope: Scope, kind: str, source_type: str, source_id: UUID, driver_id: UUID, came: Posting
) -> None:
    """`came` is the debit side; as much is in the wallet then."""
    await ledger.post(scope, kind, source_type, source_id, scope.now, [
        came,
        Posting("wallet_liability", -came.amount_minor, came.currency, public_id("driver", driver_id)),
    ])  # fmt: skip
    scope.publish(f"wallet:{driver_id}", {"what": kind})


# -- spending it -------------------------------------------------------------------------------------------------------


async def find_available(scope: Scope, driver_id: UUID) -> tuple[int, str] | None:
    """(minor units, currency) that a start may keep now; None where the brand offers no wallet, or it is empty."""
    if not await is_offered(scope):
        return None
    wallet = await get_wallet(scope, driver_id)
    return (wallet.available_minor, wallet.currency) if wallet.available_minor else None


async def keep(
    scope: Scope, driver: Driver, source_type: str, source_id: UUID, *, most_minor: int, more_than_minor: int,
    currency: str, language: str,
) -> Payment:  # fmt: skip
    """As much of the wallet as is there, up to `most_minor`, waits for the end of the source; whoever owns it captures
    or releases it like a hold on a card, and hears `PaymentAuthorized`. `wallet_too_small` where what is there is not
    more than `more_than_minor`. Twice for a source is once."""
    standing = await payments.find_payment(scope, source_type, source_id)
    if standing is not None:
        return standing
    wallet = await get_wallet(scope, driver.id, lock=True)
    amount = min(wallet.available_minor, most_minor) if wallet.currency == currency else 0
    if amount <= more_than_minor:
        raise Refused("wallet_too_small", N_("There is too little in your wallet to start here."))
    return await payments.keep(
        scope, WALLET, public_id("driver", driver.id), source_type, source_id, amount_minor=amount, currency=currency,
        method="Wallet", payer_email=driver.email_norm or "", language=language,
    )  # fmt: skip


# -- giving it back ----------------------------------------------------------------------------------------------------


async def find_refundable(scope: Scope, wallet: Wallet) -> list[tuple[Payment, int]]:
    """(top-up, minor units) that could go back to its card, oldest first, in all no more than is available. What staff
    or vouchers gave counts as spent first, so that a driver's own money comes back whole."""
    top_ups = await list_top_ups(scope, wallet.driver_id)
    refunds = await payments.list_refunds(scope, [one.id for one in top_ups])
    own = card_money(await list_entries(scope, wallet, limit=EVERYTHING))
    found, left = list[tuple[Payment, int]](), min(wallet.available_minor, own)
    for one in top_ups:
        minor = min(payments.refundable_minor(one, refunds.get(one.id, [])), left)
        if minor > 0 and one.currency == wallet.currency:
            found.append((one, minor))
            left -= minor
    return found


def card_money(entries: Sequence[Entry]) -> int:
    """How much of a wallet its driver paid in, of its whole history, newest first (pure): at each session what was
    given is spent first, and what comes back of a session is given money again as far as that was."""
    card = given = given_spent = 0
    for entry in reversed(entries):
        minor = abs(entry.amount_minor)
        if entry.kind in GIFTS and entry.amount_minor > 0:
            given += minor
        elif entry.kind in GIFTS or (entry.session_id and entry.amount_minor < 0):
            part = min(given, minor)
            given, card = given - part, card - (minor - part)
            given_spent += part if entry.session_id else 0
        elif entry.session_id:
            part = min(given_spent, minor)
            given, given_spent, card = given + part, given_spent - part, card + minor - part
        else:
            card += entry.amount_minor
    return max(card, 0)


async def pay_back(scope: Scope, driver_id: UUID, reason: str) -> int:
    """By staff: what is not spent goes back to the cards that filled the wallet, first in, first out; minor units.
    `wallet_too_small` where there is nothing."""
    if not reason.strip():
        raise Invalid.field("reason", "required", "Say in a sentence why.")
    wallet = await get_wallet(scope, driver_id, lock=True)
    found = await find_refundable(scope, wallet)
    if not found:
        raise Refused("wallet_too_small", "There is nothing in this wallet that came from a card.")
    for payment, minor in found:
        await payments.refund(scope, payment.id, reason.strip()[:500], amount_minor=minor)
    total = sum(minor for _payment, minor in found)
    await audit.record(
        scope, "wallet.paid_back", "driver", driver_id,
        {"amount_minor": total, "currency": wallet.currency, "reason": reason.strip()[:500]},
    )  # fmt: skip
    return total


async def find_stuck(scope: Scope, driver_id: UUID) -> list[tuple[Payment, int]]:
    """(top-up, minor units) of `find_refundable` whose card took no refund: the provider refused it, or the card's bank
    sent it back. It lies in the wallet again, whoever has closed their account meanwhile."""
    found = await find_refundable(scope, await get_wallet(scope, driver_id))
    refunds = await payments.list_refunds(scope, [one.id for one, _minor in found])
    return [
        (one, minor)
        for one, minor in found
        if one.refund_failed_minor or any(op.state == "failed" for op in refunds.get(one.id, [])[-1:])
    ]


async def list_stuck(scope: Scope) -> list[tuple[Payment, int]]:
    """The same of all drivers, oldest first."""
    newest = (
        select(PaymentOp.payment_id, PaymentOp.state)
        .where(PaymentOp.kind == "refund").distinct(PaymentOp.payment_id)
        .order_by(PaymentOp.payment_id, PaymentOp.id.desc()).subquery()
    )  # fmt: skip
    failed = select(newest.c.payment_id).where(newest.c.state == "failed")
    query = select(Payment.source_id).where(
        Payment.source_type == WALLET, Payment.id.in_(failed) | (Payment.refund_failed_minor > 0),
        Payment.refunded_minor + Payment.repaid_minor < Payment.captured_minor,
    )  # fmt: skip
    drivers = (await scope.db.execute(query.distinct())).scalars().all()
    found = [one for driver_id in drivers for one in await find_stuck(scope, driver_id)]
    return sorted(found, key=lambda one: one[0].id)


async def repay(scope: Scope, payment_id: UUID, reference: str) -> Repayment:
    """Staff paid by other means what a top-up's card did not take back, all of it: it leaves the wallet. Errors as
    `payments.record_repayment`."""
    driver_id = (await payments.get_payment(scope, payment_id)).source_id
    await get_wallet(scope, driver_id, lock=True)
    payment = await payments.lock(scope, payment_id)
    stuck = {one.id: minor for one, minor in await find_stuck(scope, driver_id)}
    return await payments.repay(scope, payment, stuck.get(payment.id, 0), reference)


async def check_empty(scope: Scope, driver_id: UUID) -> None:
    """Before an account is closed: nobody's money is lost with it, nor what is on its way into it."""
    wallet, top_ups = await get_wallet(scope, driver_id, lock=True), await list_top_ups(scope, driver_id)
    if not wallet.balance_minor and any(_is_coming(one) for one in top_ups):
        raise Refused(
            "wallet_not_empty", N_("A payment into your wallet is not over yet. Try again in an hour.")
        )  # fmt: skip
    if wallet.balance_minor:
        raise Refused(
            "wallet_not_empty", N_("There is money in your wallet. Ask the operator to pay it back first.")
        )
