"""Card money from hold to receipt (money.md 4.4, 4.5): each call to the provider stands as a `payment_op` before it is
made, no transaction is open while it is, and what came of it is read back.

A hold is opened for an opaque source (`source_type`, `source_id`); whoever owns the source listens to
`PaymentAuthorized` and `PaymentEnded`, and says `capture` or `release` once; `PaymentCaptured` or `PaymentWaived` is
how that ended for the payer. Correct with zero webhooks: news only make `observe` come sooner.
Errors: `payments_off`, `no_account`, `no_payment`, `not_refundable`, `refund_too_high`, `charge_disputed`,
`not_answerable`, `at_the_terminal`, `nothing_short`.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, literal, or_, select, text, tuple_, update
from sqlalchemy.orm import aliased

from app.billing import disputes, ledger
from app.billing.card_currencies import CARD_CURRENCIES, MOST_MINOR
from app.billing.ledger import Posting
from app.billing.models import (
    Dispute,
    Invoice,
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Payer,
    Payment,
    PaymentAccount,
    PaymentOp,
    PlatformFee,
    RefundRequest,
    Repayment,
    SavedCard,
)
from app.billing.outcomes import DECLINED
from app.billing.provider import (
    PROFILES,
    Checkout,
    DisputeSeen,
    Hold,
    Observation,
    OutcomeUnknown,
    Provider,
    RefundSeen,
    Rejected,
)
from app.brands.models import TenantProfile
from app.identity.service import address_of, email_norm
from app.kernel import audit, events, queue
from app.kernel.clock import uuid7
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.money import Money, half_up
from app.kernel.rest import money, rfc3339
from app.kernel.settings import Settings
from tenants.database import Database
from tenants.scope import Actor, Scope

ACTOR = Actor.job("billing.payments")
STALE = timedelta(seconds=60)
ANSWER_TAKES = timedelta(seconds=10)
# Stripe takes no less than 30 minutes: the janitor's repetition after a crash must still find that much.
CHECKOUT_LIFETIME = timedelta(minutes=45)
# Of the hold, which stands for seven days at most: then nobody asks any more.
FEE_COMES_WITHIN = timedelta(days=10)
LOOKED_AT_EACH = timedelta(hours=1)  # accounts, holds that stand, disputes: what changes without us
SWEPT_BACK, SWEPT_AFTER = timedelta(days=31), timedelta(days=1)
DISPUTES_BACK = timedelta(days=31)
MOST_INCREMENTS = 10  # as many as Stripe takes of one hold
LEGS = tuple(str(count) for count in range(1, 11))  # how many payments one session may have
MOST_EVIDENCE = 100_000  # Stripe takes 150,000 characters

_RANK = {
    "created": 0, "requires_action": 1, "processing": 2, "authorized": 3, "capturing": 4, "failed": 5, "expired": 5,
    "canceled": 5, "captured": 6, "partially_refunded": 7, "refunded": 8,
}  # fmt: skip
OPEN = ("created", "requires_action", "processing")
AT_TERMINAL = "at_the_terminal"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TAKEN = ("captured", "partially_refunded", "refunded")
# `Payment.is_due`: a saved card did not pay it.
IS_DUE = Payment.saved_card_id.is_not(None) & Payment.state.in_(OPEN) & (Payment.failure != "")
LESS_USED = "Less was used than had been taken on the way."
# Calls of the platform's own account, by which a site host's share is passed on and comes back (`host_shares`).
HOST_OPS = ("host_transfer", "host_reversal", "fee_refund")
# Of a refund: the platform's fee goes back by such a call too, beside a host's share.
FEE_LATER = "fee_later"
HOLDS = ("checkout_create", "create", "wallet_hold", "voucher_hold", "terminal_told")
# A provider that is the driver's own balance, and a source that fills one (`wallets`).
WALLET = "wallet"
# One that is a code of an amount (`vouchers`).
VOUCHER = "voucher"
PAID_AHEAD = (WALLET, VOUCHER)  # whose balance is the ledger's, so that what we write is what is so
# One that is asked by nobody: what it tells of its card payments is all that is known of them (`terminals`).
TERMINAL = "terminal"
OWN = (*PAID_AHEAD, TERMINAL)  # of which no provider of ours has anything to say


_PROVIDERS: dict[tuple[Any, ...], Provider] = {}


def provider_name(settings: Settings) -> str:
    return "sandbox" if settings.uses_sandbox else "stripe"


def provider_of(settings: Settings) -> Provider:
    """The one adapter, once per installation that this process serves.

    stripe takes a second to import: the gateway, which never asks, does not wait for it.
    """
    key = (settings.stripe_secret_key, settings.stripe_api_base, settings.web_port, settings.platform_domain,
           settings.secret_key)  # fmt: skip
    found = _PROVIDERS.get(key)
    if found is None:
        from app.billing.stripe_connect import StripeConnect

        found = _PROVIDERS[key] = StripeConnect(settings)
    return found


# -- what is known of a payment --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What `merge` decides on: a payment's own figures."""

    state: str
    hold_minor: int = 0
    captured_minor: int = 0
    refunded_minor: int = 0
    refund_failed_minor: int = 0
    fee_minor: int = 0
    provider_fee_minor: int = 0
    failure: str = ""


def merge(known: Known, seen: Observation) -> Known:
    """Pure, idempotent, and the same in any order: states only rise, totals never fall (money.md 4.4).

    A stale `authorized` after a capture changes nothing; money that was taken outranks every other end. Of refunds two
    totals never fall: what was sent at all, and what of that was sent back.
    """
    captured = max(known.captured_minor, seen.captured_minor)
    came_back = max(known.refund_failed_minor, seen.refund_failed_minor)
    sent = max(one.refunded_minor + one.refund_failed_minor for one in (known, seen))
    refunded = sent - came_back
    state = max(known.state, seen.state, key=lambda one: (_RANK[one], one))
    if captured:
        state = "captured" if not refunded else ("refunded" if refunded >= captured else "partially_refunded")
    failure = known.failure or seen.failure
    if state in OPEN and {known.failure, seen.failure} <= DECLINED.keys():
        failure = seen.failure  # another card was declined, for another reason: that one is told
    if state in TAKEN or (state == "authorized" and known.state in OPEN):
        failure = ""  # a declined card was followed by one that holds
    return Known(
        state=state, hold_minor=max(known.hold_minor, seen.hold_minor), captured_minor=captured,
        refunded_minor=refunded, refund_failed_minor=came_back, fee_minor=max(known.fee_minor, seen.fee_minor),
        provider_fee_minor=max(known.provider_fee_minor, seen.provider_fee_minor),
        failure=failure,
    )  # fmt: skip


async def find_payment(scope: Scope, source_type: str, source_id: UUID) -> Payment | None:
    """The newest leg."""
    query = (
        select(Payment)
        .where(Payment.source_type == source_type, Payment.source_id == source_id)
        .order_by(Payment.leg.desc())
    )
    return (await scope.db.execute(query)).scalars().first()


async def list_legs(scope: Scope, source_type: str, source_id: UUID) -> list[Payment]:
    """All payments of a source, the first first."""
    query = select(Payment).where(Payment.source_type == source_type, Payment.source_id == source_id)
    return list((await scope.db.execute(query.order_by(Payment.leg))).scalars())


async def lock_legs(scope: Scope, source_type: str, source_id: UUID) -> list[Payment]:
    """The same, locked: before any paper and any audit entry of the same transaction, for news of them are booked in
    that order too."""
    return [await lock(scope, leg.id) for leg in await list_legs(scope, source_type, source_id)]


async def legs_beside(scope: Scope, payment: Payment) -> list[Payment]:
    """The legs of what this payment pays for, itself among them. Each of those that fill a wallet is alone."""
    if payment.source_type == WALLET:
        return [payment]
    return await list_legs(scope, payment.source_type, payment.source_id)


def as_one(legs: Sequence[Payment]) -> Payment | None:
    """The legs of a source as if they were one payment, with their sums: to be shown, it is no row. Its id is the first
    leg's, which the papers name. Where one is due, that one speaks for all; else whatever is still under way."""
    if len(legs) < 2:
        return legs[0] if legs else None
    held = [leg for leg in legs if leg.state in ("authorized", "capturing", *TAKEN)]
    under_way = [leg for state in ("capturing", "authorized", *OPEN) for leg in legs if leg.state == state]
    voice = next((leg for leg in legs if leg.is_due), (under_way or held[-1:] or list(legs[-1:]))[0])
    whole = Payment(**{column.key: getattr(voice, column.key) for column in Payment.__mapper__.column_attrs})
    whole.id, whole.leg = legs[0].id, legs[0].leg
    for name in (
        "captured_minor", "refunded_minor", "refunded_outside_minor", "refund_failed_minor", "repaid_minor",
        "disputed_minor", "fee_minor", "provider_fee_minor",
    ):  # fmt: skip
        setattr(whole, name, sum(getattr(leg, name) for leg in legs))
    whole.host_minor = sum(leg.passed_on_minor for leg in legs)
    # Of a leg that was taken on the way the rest of its hold is gone.
    whole.hold_minor = sum(
        leg.captured_minor if leg.state in TAKEN and leg is not held[-1] else leg.hold_minor for leg in held
    )
    if voice.state in TAKEN and whole.refunded_minor:
        whole.state = "refunded" if whole.refunded_minor >= whole.captured_minor else "partially_refunded"
    whole.dispute = next((leg.dispute for leg in legs if leg.dispute != "none"), "none")
    whole.method = ", ".join(dict.fromkeys(leg.method for leg in held or legs))
    return whole


async def forget_payer(scope: Scope, payer_email: str, source_ids: Iterable[UUID]) -> None:
    """Whoever paid by this mailbox, or for these, asked to be forgotten; the payments stay."""
    theirs = (Payment.payer_email == payer_email) | Payment.source_id.in_(list(source_ids))
    known = list((await scope.db.execute(select(Payment.id).where(theirs))).scalars())
    await scope.db.execute(update(Payment).where(Payment.id.in_(known)).values(payer_email=""))
    asked = select(PaymentOp).where(PaymentOp.payment_id.in_(known), PaymentOp.kind == "checkout_create")
    for op in (await scope.db.execute(asked)).scalars():
        op.request = {**op.request, "email": ""}


async def get_payment(scope: Scope, payment_id: UUID) -> Payment:
    payment = await scope.db.get(Payment, (scope.tenant_id, payment_id))
    if payment is None:
        raise NotFound("payment")
    return payment


async def find_payment_of(scope: Scope, invoice: Invoice) -> Payment | None:
    """What a paper is settled by; None for one that is paid by other means."""
    shown = invoice.buyer.get("payment")
    return await get_payment(scope, parse_id("payment", shown)) if shown else None


async def language_of(scope: Scope, payment_id: UUID) -> str:
    """What the payer read when the hold was asked for."""
    query = select(PaymentOp.request).where(PaymentOp.payment_id == payment_id, PaymentOp.kind.in_(HOLDS))
    request = (await scope.db.execute(query.limit(1))).scalar_one_or_none()
    return request["language"] if request else "en"


async def has_no_answer(scope: Scope, payment: Payment) -> bool:
    """The provider was asked for the payment page and did not answer, or nobody heard; it is asked again."""
    query = select(PaymentOp.state).where(
        PaymentOp.payment_id == payment.id, PaymentOp.kind == "checkout_create"
    )
    state = (await scope.db.execute(query.limit(1))).scalar_one_or_none()
    is_long = payment.created_at < scope.now - ANSWER_TAKES
    return payment.checkout_ref is None and (state == "unknown" or is_long)


async def lock(scope: Scope, payment_id: UUID) -> Payment:
    """One leg, whichever it is."""
    query = (
        select(Payment)
        .where(Payment.id == payment_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    payment = (await scope.db.execute(query)).scalar_one_or_none()
    if payment is None:
        raise NotFound("payment")
    return payment


async def find_account(scope: Scope) -> PaymentAccount | None:
    """The tenant's account at the provider that is configured now; None: cards cannot be taken, nor in its currency."""
    account = await find_own_account(scope)
    if account is None or account.currency not in CARD_CURRENCIES:
        return None
    return account if account.is_ready and scope.settings.takes_cards else None


async def find_own_account(scope: Scope) -> PaymentAccount | None:
    """The same, whether or not it may take cards yet."""
    query = select(PaymentAccount).where(PaymentAccount.provider == provider_name(scope.settings))
    return (await scope.db.execute(query)).scalar_one_or_none()


async def get_own_account(scope: Scope) -> PaymentAccount:
    """`no_account` for none."""
    account = await find_own_account(scope)
    if account is None:
        raise Refused("no_account", "There is no account at the payment provider yet.")
    return account


async def find_fee(scope: Scope, account: PaymentAccount) -> tuple[Decimal, int, datetime | None]:
    """(percent, fixed part in minor units, since when) of what the platform keeps of a capture now; since None: as the
    account was opened with."""
    fee = await find_plan(scope, account)
    if fee is None:
        return account.fee_percent, account.fee_fixed_minor, None
    return fee.percent, fee.fixed_minor, fee.valid_from


async def find_plan(scope: Scope, account: PaymentAccount) -> PlatformFee | None:
    """The fee that holds now. None: the account's own figures do, and nothing of them is given back."""
    query = select(PlatformFee).where(
        PlatformFee.account_id == account.id, PlatformFee.valid_from <= scope.now
    )
    query = query.order_by(PlatformFee.valid_from.desc()).limit(1)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def set_holds(
    scope: Scope, hold_ac: str, hold_dc: str, refund_limit: str | None = None, card_on_file: str | None = None,
    max_legs: str | None = None,
) -> None:  # fmt: skip
    """What a guest's card is asked to hold from now on, what one member of staff gives back of a payment alone, as
    amounts of the account's currency: `30.00`; and whether drivers save cards, and how many holds a session
    may have that these pay (None: as it was). `payments_off`, or Invalid of `hold_ac`, `hold_dc` and `refund_limit`:
    amount, too_low for a card charge, too_high; `card_on_file`; `max_legs`."""
    account = await find_account(scope)
    if account is None:
        raise Refused("payments_off", "Cards cannot be taken here at the moment.")
    faults: list[FieldFault] = []
    holds = [
        _read_hold(field, value, account.currency, faults)
        for field, value in (("hold_ac", hold_ac), ("hold_dc", hold_dc))
    ]
    limit = account.refund_limit_minor
    if refund_limit is not None:
        limit = _read_limit(refund_limit, account.currency, faults)
    if card_on_file not in (None, "off", "optional", "required"):
        faults.append(FieldFault("card_on_file", "card_on_file", "It is off, optional or required."))
    if max_legs is not None and max_legs not in LEGS:
        faults.append(FieldFault("max_legs", "max_legs", "It is a number from 1 to 10."))
    if faults:
        raise Invalid("invalid", "These amounts cannot be saved.", faults=faults)
    if max_legs is not None and int(max_legs) != account.max_legs:
        account.max_legs = int(max_legs)
        told = {"max_legs": account.max_legs}
        await audit.record(scope, "payment_account.max_legs_changed", "payment_account", account.id, told)
    if card_on_file is not None and card_on_file != account.card_on_file:
        account.card_on_file, told = card_on_file, {"card_on_file": card_on_file}
        await audit.record(scope, "payment_account.card_on_file_changed", "payment_account", account.id, told)
    is_limit_new = limit != account.refund_limit_minor
    account.hold_ac_minor, account.hold_dc_minor, account.refund_limit_minor = *holds, limit
    data = {"hold_ac_minor": holds[0], "hold_dc_minor": holds[1], "currency": account.currency}
    await audit.record(scope, "payment_account.holds_changed", "payment_account", account.id, data)
    if is_limit_new:
        told = {"refund_limit_minor": limit, "currency": account.currency}
        await audit.record(scope, "payment_account.refund_limit_changed", "payment_account", account.id, told)


def _read_limit(value: str, currency: str, faults: list[FieldFault]) -> int:
    """0: every refund waits for a second one."""
    try:
        amount = Money.parse(value.strip(), currency)
    except ValueError:
        example = Money(CARD_CURRENCIES[currency].refund_limit_minor, currency).amount
        faults.append(FieldFault("refund_limit", "amount", f"This must be an amount such as {example}."))
        return 0
    if not 0 <= amount.amount_minor <= MOST_MINOR:
        most = Money(MOST_MINOR, currency).format()
        faults.append(FieldFault("refund_limit", "range", f"This is an amount from 0 to {most}."))
    return amount.amount_minor


def _read_hold(field: str, value: str, currency: str, faults: list[FieldFault]) -> int:
    least = Money(CARD_CURRENCIES[currency].minimum_minor, currency)
    try:
        amount = Money.parse(value.strip(), currency)
    except ValueError:
        example = Money(CARD_CURRENCIES[currency].hold_ac_minor, currency).amount
        faults.append(FieldFault(field, "amount", f"This must be an amount such as {example}."))
        return 0
    if amount < least:
        faults.append(FieldFault(field, "too_low", f"A card cannot be charged less than {least.format()}."))
    elif amount.amount_minor > MOST_MINOR:
        most = Money(MOST_MINOR, currency).format()
        faults.append(FieldFault(field, "too_high", f"A card cannot hold more than {most}."))
    return amount.amount_minor


async def open_account(database: Database, tenant_id: UUID) -> None:
    """A sandbox account for a tenant that has none. (With a real key the operator asks for it: `onboarding.begin`.)"""
    if database.settings.takes_cards and database.settings.uses_sandbox:
        await make_account(database, tenant_id)


async def make_account(database: Database, tenant_id: UUID) -> None:
    """The tenant's account at the provider; nothing where it has one, or its currency is none that cards take."""
    async with database.scope(tenant_id, ACTOR) as scope:
        if await find_own_account(scope) is not None:
            return
        profile = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
        kind = (await scope.db.execute(text("select kind from platform.own_tenant()"))).scalar_one()
    if profile is None or profile.currency not in CARD_CURRENCIES or kind == "platform":
        return
    provider, starts = provider_of(database.settings), CARD_CURRENCIES[profile.currency]
    asked = {
        "name": profile.name, "email": profile.support_email or "nobody@example.org", "country": profile.country[:2],
        "currency": profile.currency,
    }  # fmt: skip
    # Web and worker may ask at once: the same question under the same key is one account.
    how = database.settings.account_profile
    mark = hashlib.sha256(json.dumps([asked, how]).encode()).hexdigest()[:16]
    made = await provider.open_account(**asked, key=f"account:{tenant_id}:{mark}")
    delay_days = PROFILES[how].delay_days
    if delay_days is not None:  # what is lost then is lost by the platform: refunds and disputes come first
        await provider.set_delay(made.ref, delay_days, key=f"delay:{made.ref}")
    async with database.scope(tenant_id, ACTOR) as scope:
        await _lock_tenant(scope)
        if await find_own_account(scope) is not None:
            return
        scope.db.add(PaymentAccount(
            id=uuid7(), provider=provider.name, account_ref=made.ref, is_ready=made.is_ready, is_live=made.is_live,
            currency=profile.currency, hold_ac_minor=starts.hold_ac_minor, hold_dc_minor=starts.hold_dc_minor,
            due=list(made.due), losses_borne_by=made.losses_borne_by,
            refund_limit_minor=starts.refund_limit_minor,
        ))  # fmt: skip
        await scope.db.execute(text("select platform.put_payment_route(:ref)"), {"ref": made.ref})
        await audit.record(scope, "payment_account.opened", "payment_account", tenant_id, {"ref": made.ref})


async def _lock_tenant(scope: Scope) -> None:
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext('payment_account'))"),
        {"tenant": str(scope.tenant_id)},
    )


@dataclass(frozen=True, slots=True)
class HostShare:
    """What of a payment is a site host's (`party`: `hst_…`), minor units, and their account at the provider."""

    party: str
    account_ref: str
    minor: int


# -- what others ask for ---------------------------------------------------------------------------------------------


async def open_payment(
    scope: Scope, *, source_type: str, source_id: UUID, hold_minor: int, currency: str, title: str, success_url: str,
    cancel_url: str, email: str, language: str, leg: int = 1,
) -> tuple[Payment, PaymentOp]:  # fmt: skip
    """The hold is planned: after commit `run_op` makes the provider's hosted page, where the payer gives a card."""
    account = await find_account(scope)
    if account is None:
        raise Refused("payments_off", "Cards cannot be taken here at the moment.")
    if currency != account.currency:
        raise Refused("payments_off", f"This operator's account does not take {currency}.")
    payment = Payment(
        id=uuid7(), source_type=source_type, source_id=source_id, leg=leg, provider=account.provider,
        account_ref=account.account_ref, currency=currency, hold_minor=0, is_live=account.is_live,
        payer_email=email_norm(email),
        state="created", failure="", created_at=scope.now,
    )  # fmt: skip
    scope.db.add(payment)
    await scope.db.flush()
    request = {
        "amount_minor": hold_minor, "currency": currency, "title": title, "success_url": success_url,
        "cancel_url": cancel_url, "expires_at": (scope.now + CHECKOUT_LIFETIME).isoformat(), "email": address_of(email),
        "language": language,
        "metadata": {"tenant": str(scope.tenant_id), "payment": str(payment.id), "source": str(source_id)},
    }  # fmt: skip
    return payment, await _plan(scope, payment, "checkout_create", f"co:{payment.id}", request)


async def open_saved(
    scope: Scope, *, source_type: str, source_id: UUID, card: SavedCard, hold_minor: int, currency: str, title: str,
    email: str, language: str, leg: int = 1,
) -> tuple[Payment, PaymentOp]:  # fmt: skip
    """The hold is asked of a saved card (its payer loaded) by a job: nobody stands by. Where the card gives nothing the
    payment stays open and is due (`PaymentActionRequired`), and `pay_due` is how it is paid."""
    account = await find_account(scope)
    if account is None or card.payer.account_ref != account.account_ref:
        raise Refused("payments_off", "Cards cannot be taken here at the moment.")
    if currency != account.currency:
        raise Refused("payments_off", f"This operator's account does not take {currency}.")
    payment = Payment(
        id=uuid7(), source_type=source_type, source_id=source_id, leg=leg, provider=account.provider,
        account_ref=account.account_ref, currency=currency, hold_minor=0, is_live=account.is_live,
        payer_email=email_norm(email), saved_card_id=card.id, method=card.name, state="created", failure="",
        created_at=scope.now,
    )  # fmt: skip
    scope.db.add(payment)
    await scope.db.flush()
    request = {
        "customer": card.payer.customer_ref, "card": card.provider_ref, "amount_minor": hold_minor,
        "currency": currency, "title": title, "language": language,
        "metadata": {"tenant": str(scope.tenant_id), "payment": str(payment.id), "source": str(source_id)},
    }  # fmt: skip
    op = await _plan(scope, payment, "create", f"pi:{payment.id}", request)
    await _enqueue(scope, op)
    return payment, op


async def keep(
    scope: Scope, provider: str, account_ref: str, source_type: str, source_id: UUID, *, amount_minor: int,
    currency: str, method: str, payer_email: str, language: str, voucher_id: UUID | None = None,
) -> Payment:  # fmt: skip
    """A hold that stands at once, of money that was paid ahead: `provider` is one of PAID_AHEAD, and its caller has
    made sure, and keeps it locked until the commit, that so much is there. `PaymentAuthorized` follows."""
    payment_id = uuid7()
    live = select(PaymentAccount.is_live).where(PaymentAccount.is_live).limit(1)
    payment = Payment(
        id=payment_id, source_type=source_type, source_id=source_id, provider=provider, account_ref=account_ref,
        provider_ref=str(payment_id), state="authorized", currency=currency, hold_minor=amount_minor,
        payer_email=payer_email, method=method, is_live=(await scope.db.execute(live)).first() is not None,
        created_at=scope.now, voucher_id=voucher_id,
    )  # fmt: skip
    scope.db.add(payment)
    await scope.db.flush()
    scope.db.add(PaymentOp(
        id=uuid7(), payment_id=payment.id, kind=f"{provider}_hold", idem_key=f"{provider[:3]}:{payment.id}",
        state="succeeded", request={"amount_minor": amount_minor, "language": language}, created_at=scope.now,
        updated_at=scope.now,
    ))  # fmt: skip
    await _emit(scope, payment, "PaymentAuthorized")
    return payment


async def raise_hold(scope: Scope, payment_id: UUID, by_minor: int) -> PaymentOp | None:
    """Its bank is asked to hold that much more on it; `HoldChanged` tells that it answered. None for a hold that cannot
    be raised: once it was refused nobody asks again."""
    payment = await lock(scope, payment_id)
    asked = (await list_increments(scope, [payment])).get(payment.id, [])
    is_over = len(asked) >= MOST_INCREMENTS or any(op.state != "succeeded" for op in asked)
    if payment.state != "authorized" or not payment.is_incremental or is_over:
        return None
    request = {"amount_minor": payment.hold_minor + by_minor}
    op = await _plan(scope, payment, "increment", f"inc:{payment.id}:{len(asked) + 1}", request)
    await _enqueue(scope, op)
    return op


async def list_increments(scope: Scope, legs: Iterable[Payment]) -> dict[UUID, list[PaymentOp]]:
    """Per payment, oldest first, whatever became of them."""
    query = select(PaymentOp).where(
        PaymentOp.payment_id.in_([leg.id for leg in legs if leg.is_incremental]),
        PaymentOp.kind == "increment",
    )
    found: dict[UUID, list[PaymentOp]] = {}
    for op in (await scope.db.execute(query.order_by(PaymentOp.id))).scalars():
        found.setdefault(op.payment_id, []).append(op)
    return found


async def pay_due(
    scope: Scope,
    payment_id: UUID,
    *,
    title: str,
    success_url: str,
    cancel_url: str,
    email: str,
    language: str,
) -> PaymentOp | None:
    """The way to pay what a saved card did not: after commit `run_op` makes the hosted page. None where that page is
    open already, or nothing is due any more."""
    payment = await lock(scope, payment_id)
    if not payment.is_due:
        return None
    is_open = payment.checkout_expires_at is None or payment.checkout_expires_at > scope.now + timedelta(
        minutes=2
    )
    if payment.checkout_url is not None and is_open:
        return None
    query = select(PaymentOp).where(PaymentOp.payment_id == payment.id).order_by(PaymentOp.id)
    ops = list((await scope.db.execute(query)).scalars())
    pages = [op for op in ops if op.kind == "checkout_create"]
    if pages and pages[-1].state in ("planned", "sent", "unknown"):
        return pages[-1]
    asked = next(op.request["amount_minor"] for op in ops if op.kind == "create")
    owed = await owed_minor(scope, payment)
    request = {
        "amount_minor": owed or asked, "currency": payment.currency, "title": title, "success_url": success_url,
        "cancel_url": cancel_url, "expires_at": (scope.now + CHECKOUT_LIFETIME).isoformat(), "email": address_of(email),
        "language": language,
        "metadata": {"tenant": str(scope.tenant_id), "payment": str(payment.id), "source": str(payment.source_id)},
    }  # fmt: skip
    return await _plan(scope, payment, "checkout_create", f"co:{payment.id}:{len(pages) + 1}", request)


async def list_due(scope: Scope, driver_id: UUID | None = None) -> list[tuple[Payment, int]]:
    """(payment, minor units on its papers) of what saved cards did not pay, oldest first; of all drivers for None."""
    query = select(Payment).where(IS_DUE)
    if driver_id is not None:
        own = select(SavedCard.id).join(SavedCard.payer).where(Payer.driver_id == driver_id)
        query = query.where(Payment.saved_card_id.in_(own))
    rows = list((await scope.db.execute(query.order_by(Payment.id))).scalars())
    owed = await _papers_minor(scope, [row.id for row in rows])
    return [(row, owed[row.id]) for row in rows]


def minimum_minor(currency: str) -> int:
    """What a card charge must come to; less is written off (money.md 1.3)."""
    known = CARD_CURRENCIES.get(currency)
    return known.minimum_minor if known else 1


async def capture(
    scope: Scope, source_type: str, source_id: UUID, gross_minor: int, *, host: HostShare | None = None
) -> None:
    """Takes what the supply cost, never more than the holds; the rest of them is released by that.

    Legs pay in their order, those that are not needed are let go. What no hold covers, or is too little for a card, is
    the tenant's loss and stands in the books as one. What was taken on the way (`capture_ahead`) and is too much goes
    back. The share of a `host` is taken with the last leg, beside the platform's fee, as far as that leaves room.
    """
    legs = await lock_legs(scope, source_type, source_id)
    left, kept = gross_minor, {leg.id: await kept_minor(scope, leg) for leg in legs}
    for leg in legs:
        most = leg.hold_minor if _holds(leg) else kept[leg.id] + leg.refunded_outside_minor
        share = left if leg is legs[-1] or leg.state in OPEN else min(left, most)
        await _capture(
            scope, leg, share, is_one_of_many=len(legs) > 1, host=host if leg is legs[-1] else None
        )
        left -= share
    # Too much was taken on the way, or the last leg took less than is left. What was given back at the provider itself
    # is no loss: its paper is yet to come.
    stands, outside = sum(kept.values()), sum(leg.refunded_outside_minor for leg in legs)
    if len(legs) > 1 and not stands <= gross_minor <= stands + outside:
        await _correct(scope, legs, gross_minor, LESS_USED)


def _holds(leg: Payment) -> bool:
    """It stands, and nobody has let it go (`failure` says why) though the provider has not heard that yet."""
    return leg.state == "authorized" and leg.failure == ""


async def most_minor(scope: Scope, legs: Sequence[Payment]) -> int:
    """What these can bring: what is held, and what was taken already and kept."""
    return sum([leg.hold_minor if _holds(leg) else await kept_minor(scope, leg) for leg in legs])


async def capture_ahead(scope: Scope, payment_id: UUID, cost_minor: int) -> None:
    """A hold that ends before its session does is taken for what `cost_minor`, the session's cost so far, comes to
    beyond what other legs took. Nobody owes anything yet: until the invoice this stands to the payer's credit. What is
    too little for a card is left to the next leg."""
    first = await get_payment(scope, payment_id)
    legs = await lock_legs(scope, first.source_type, first.source_id)
    payment = next(leg for leg in legs if leg.id == payment_id)
    if not _holds(payment):
        return
    taken = sum([await kept_minor(scope, leg) for leg in legs])
    amount = min(cost_minor - taken, payment.hold_minor)
    if amount < minimum_minor(payment.currency):
        await _release(scope, payment, "followed")
    else:
        await _take(scope, payment, amount)


async def capture_hold(scope: Scope, payment_id: UUID) -> None:
    """All of what is held, of this leg: what was paid ahead has no supply to wait for."""
    payment = await lock(scope, payment_id)
    if payment.state == "authorized":
        await _capture(scope, payment, payment.hold_minor)


async def _capture(
    scope: Scope, payment: Payment, gross_minor: int, *, is_one_of_many: bool = False, host: HostShare | None = None
) -> None:  # fmt: skip
    if payment.provider == TERMINAL:
        await _leave_to_terminal(scope, payment, gross_minor, "The terminal took more than was owed.")
        return
    if payment.state == "capturing" or payment.state in TAKEN:
        return
    if payment.saved_card_id is not None and payment.state in OPEN:
        await _owe(scope, payment, gross_minor, is_one_of_many=is_one_of_many)
        return
    if payment.state != "authorized":
        await _waive(scope, payment, gross_minor)
        return
    amount = min(gross_minor, payment.hold_minor)
    if payment.provider in PAID_AHEAD and amount:
        await _give_up(scope, payment, gross_minor - amount, "payment", payment.id)
        await apply(scope, payment, _own_word(payment, "captured", captured_minor=amount))
        return
    if amount < minimum_minor(payment.currency):
        nothing = "not_needed" if is_one_of_many else "nothing_owed"
        await _release(scope, payment, "below_minimum" if gross_minor else nothing)
        await _waive(scope, payment, gross_minor)
        return
    await _take(scope, payment, amount, host)
    await _give_up(scope, payment, gross_minor - amount, "payment", payment.id)


async def _take(scope: Scope, payment: Payment, amount_minor: int, host: HostShare | None = None) -> None:
    """A second time where the first was refused and its payer paid the same leg otherwise."""
    fee = await _platform_fee(scope, payment, amount_minor)
    host = host or HostShare("", "", 0)
    payment.host_minor = max(min(host.minor, amount_minor - fee), 0)
    payment.host_party, payment.host_account_ref = host.party, host.account_ref
    payment.state = "capturing"
    query = select(func.count()).select_from(PaymentOp).where(
        PaymentOp.payment_id == payment.id, PaymentOp.kind == "capture", PaymentOp.state == "failed"
    )  # fmt: skip
    failed = (await scope.db.execute(query)).scalar_one()
    key = f"cap:{payment.id}:again{failed}" if failed else f"cap:{payment.id}"
    request = {"amount_minor": amount_minor, "fee_minor": fee + payment.host_minor}
    await _enqueue(scope, await _plan(scope, payment, "capture", key, request))


async def _leave_to_terminal(scope: Scope, payment: Payment, gross_minor: int, reason: str) -> None:
    """Its acquirer takes what it takes, whatever is owed. Too much waits to be given back there, or by other means;
    what lacks stays owed until it is settled or staff give it up (`find_short`)."""
    refunds = (await list_refunds(scope, [payment.id])).get(payment.id, [])
    gross_minor -= (await written_off(scope, [payment.id]))[payment.id]
    too_much = payment.captured_minor - _given_back(payment, refunds) - max(gross_minor, 0)
    if too_much <= 0 or (refunds and refunds[-1].request["amount_minor"] == too_much):
        return
    # Nobody can be asked for it from here: as a refund that a provider refused, it is owed and told.
    request = {"amount_minor": too_much, "reason": reason}
    op = await _plan(scope, payment, "refund", f"ref:{payment.id}:{len(refunds)}", request)
    op.state, op.response = "failed", {"code": AT_TERMINAL}
    news = {"amount_minor": too_much, "code": AT_TERMINAL}
    await events.emit(scope, "RefundRefused", "payment", payment.id, news)


async def _owe(scope: Scope, payment: Payment, gross_minor: int, *, is_one_of_many: bool = False) -> None:
    """A known payer's card gave nothing, or nobody knows yet: they go on owing it, and it is taken once a hold stands.
    What no card could take is given up."""
    if gross_minor < minimum_minor(payment.currency):
        nothing = "not_needed" if is_one_of_many else "nothing_owed"
        await _release(scope, payment, "below_minimum" if gross_minor else nothing)
        await _waive(scope, payment, gross_minor)
    elif payment.is_due:
        await _emit(scope, payment, "PaymentDue")


def _own_word(
    payment: Payment, state: str, *, captured_minor: int = 0, refunded_minor: int = 0
) -> Observation:
    """Of what was paid ahead nobody else has anything to say: what we write is what is so."""
    return Observation(
        provider_ref=str(payment.id), state=state, captured_minor=captured_minor, refunded_minor=refunded_minor,
    )  # fmt: skip


async def _platform_fee(scope: Scope, payment: Payment, amount_minor: int) -> int:
    query = select(PaymentAccount).where(PaymentAccount.account_ref == payment.account_ref)
    account = (await scope.db.execute(query)).scalar_one()
    percent, fixed, _since = await find_fee(scope, account)
    return min(half_up(Decimal(amount_minor) * percent / 100) + fixed, amount_minor)


async def _give_up(
    scope: Scope, payment: Payment, amount_minor: int, source_type: str, source_id: UUID
) -> None:
    """Nobody will be asked for this any more. For what would have filled a wallet nobody was."""
    if amount_minor > 0 and payment.source_type != WALLET:
        await ledger.post(scope, "write_off", source_type, source_id, scope.now, [
            Posting("write_off", amount_minor, payment.currency),
            Posting("driver_receivable", -amount_minor, payment.currency),
        ])  # fmt: skip


async def _waive(scope: Scope, payment: Payment, gross_minor: int) -> None:
    """All of it, though a paper stands: whoever mails receipts hears of it as of a capture."""
    await _give_up(scope, payment, gross_minor, "payment", payment.id)
    if gross_minor > 0:
        await _emit(scope, payment, "PaymentWaived")


async def release(scope: Scope, source_type: str, source_id: UUID, reason: str) -> None:
    """Nothing will be taken: the page is closed, or the hold let go. Twice is once; taken money stays taken, but for
    what was taken on the way of something that has no paper."""
    legs = await lock_legs(scope, source_type, source_id)
    for leg in legs:
        await _release(scope, leg, reason)
    if len(legs) > 1:
        await _correct(
            scope, legs, sum((await _papers_minor(scope, [leg.id for leg in legs])).values()), reason
        )


async def _release(scope: Scope, payment: Payment, reason: str) -> None:
    if _RANK[payment.state] > _RANK["authorized"]:
        return
    if payment.saved_card_id is not None and payment.state in OPEN:
        await _withdraw(scope, payment, reason)
        return
    payment.failure = payment.failure or reason
    if payment.provider in OWN:  # a terminal's hold ends there, and is not ours to let go
        await apply(scope, payment, _own_word(payment, "canceled"))
        return
    if payment.provider_ref is not None and payment.state == "authorized":
        op = await _plan(scope, payment, "cancel", f"can:{payment.id}", {})
    elif payment.checkout_ref is not None:
        op = await _plan(scope, payment, "checkout_expire", f"exp:{payment.id}", {})
    else:
        payment.state = "failed"
        return
    await _enqueue(scope, op)


async def _withdraw(scope: Scope, payment: Payment, reason: str) -> None:
    """Nothing more is asked of a saved card: nobody owes it, whatever is still under way at the provider."""
    payment.state, payment.failure = "failed", reason
    if payment.provider_ref is not None:
        await _enqueue(scope, await _plan(scope, payment, "cancel", f"can:{payment.id}", {}))
    elif payment.checkout_ref is not None:
        key = f"exp:{payment.id}:{payment.checkout_ref}"
        await _enqueue(scope, await _plan(scope, payment, "checkout_expire", key, {}))


async def refund(
    scope: Scope, payment_id: UUID, reason: str, *, amount_minor: int | None = None
) -> PaymentOp:
    """Gives back `amount_minor`, or all that is left. The credit note is the caller's affair. The platform's fee goes
    back in proportion where the plan that holds now says so (Stripe's `refund_application_fee`)."""
    payment = await lock(scope, payment_id)
    refuse_disputed(payment)
    account = await find_own_account(scope)
    plan = await find_plan(scope, account) if account is not None else None
    refunds = (await list_refunds(scope, [payment.id])).get(payment.id, [])
    left = refundable_minor(payment, refunds)
    amount = left if amount_minor is None else amount_minor
    if not 0 < amount <= left:
        raise Refused("not_refundable", "There is nothing left of this payment that could be given back.")
    request = {"amount_minor": amount, "reason": reason}
    # Once: of a refund that came back the fee stays given back, and the next try must not give it a second time.
    is_once = payment.fee_minor and not payment.refund_failed_minor
    if plan is not None and plan.is_returned and is_once:
        request[FEE_LATER if payment.host_minor else "returns_fee"] = True
    op = await _plan(scope, payment, "refund", f"ref:{payment.id}:{len(refunds)}", request)
    await audit.record(
        scope, "payment.refunded", "payment", payment.id, {"amount_minor": amount, "reason": reason}
    )
    if payment.provider == TERMINAL:
        op.state, op.response = "failed", {"code": AT_TERMINAL}
        return op
    if payment.provider in PAID_AHEAD:
        op.state = "succeeded"
        await _post_refund(scope, payment, op)
        refunded = payment.refunded_minor + amount
        seen = _own_word(payment, "captured", captured_minor=payment.captured_minor, refunded_minor=refunded)
        await apply(scope, payment, seen)
        return op
    await _enqueue(scope, op)
    return op


async def _is_beyond(scope: Scope, payment: Payment, amount_minor: int) -> bool:
    """More than lies in the account or is on its way there, where the platform would have to pay it; what the platform
    itself kept of that money it may well pay."""
    account = await find_own_account(scope)
    if account is None or account.losses_borne_by == "stripe" or payment.account_ref != account.account_ref:
        return False
    codes, ref = ("psp_pending", "psp_available"), account.account_ref
    there = sum([(await ledger.sums(scope, code, [ref], payment.currency)).get(ref, 0) for code in codes])
    return amount_minor - payment.fee_minor * amount_minor // max(payment.captured_minor, 1) > there


def refuse_disputed(payment: Payment) -> None:
    """The bank has this money, or has given it to the payer: who pays back then pays twice (I4)."""
    if payment.dispute in disputes.CONTESTED:
        why = "is disputed" if payment.dispute == "open" else "was lost to the payer in a dispute"
        raise Refused(
            "charge_disputed", f"This payment {why} at their bank: nothing of it can be given back here."
        )


@dataclass(frozen=True, slots=True)
class Back:
    """What the papers give back and the payer has not got yet, minor units: `refused` is asked for by nobody now."""

    on_its_way_minor: int = 0
    refused_minor: int = 0


async def find_back(scope: Scope, payment: Payment | None) -> Back:
    return (await _find_back(scope, [payment]))[payment.id] if payment is not None else Back()


async def find_back_by(scope: Scope, legs: Sequence[Payment]) -> Back:
    """The same of all legs together."""
    found = (await _find_back(scope, legs)).values()
    return Back(
        on_its_way_minor=sum(one.on_its_way_minor for one in found),
        refused_minor=sum(one.refused_minor for one in found),
    )


async def _find_back(scope: Scope, payments: Sequence[Payment]) -> dict[UUID, Back]:
    """The same few questions for however many."""
    refunds = await list_refunds(scope, [one.id for one in payments])
    left = {
        one.id: one.captured_minor - _given_back(one, refunds.get(one.id, [])) - _lost(one)
        for one in payments
    }
    came_back = {one.id for one in payments if one.refund_failed_minor}
    # Of what fills a wallet no paper tells.
    billed = {one.id for one in payments if one.source_type != WALLET and left[one.id]}
    failed = [
        one for one in billed if one in came_back or any(op.state == "failed" for op in refunds.get(one, ()))
    ]
    papers, given_up = await _papers_minor(scope, failed), await written_off(scope, failed)
    found = dict[UUID, Back]()
    for payment_id, minor in left.items():
        ops = refunds.get(payment_id, [])
        asked = sum(op.request["amount_minor"] for op in ops if op.state not in ("succeeded", "failed"))
        owed = max(papers[payment_id] - given_up[payment_id], 0) if payment_id in papers else minor
        refused = max(minor - owed, 0)
        found[payment_id] = Back(on_its_way_minor=asked, refused_minor=refused)
    return found


async def _papers_minor(scope: Scope, payment_ids: Iterable[UUID]) -> dict[UUID, int]:
    """What the invoices and credit notes of each come to. Of several legs, the papers name the first: each has its
    share."""
    wanted = list(payment_ids)
    if not wanted:
        return {}
    groups = await _legs_of(scope, wanted)
    ids = {public_id("payment", one): one for one in {*wanted, *(legs[0].id for legs in groups)}}
    shown = Invoice.buyer["payment"].astext
    query = select(shown, func.sum(Invoice.gross_minor)).where(shown.in_(list(ids))).group_by(shown)
    found = dict.fromkeys(ids.values(), 0)
    found |= {ids[one]: int(gross) for one, gross in await scope.db.execute(query)}
    for legs in groups:
        found |= await _shares(scope, legs, found[legs[0].id])
    return {one: found[one] for one in wanted}


async def owed_minor(scope: Scope, payment: Payment) -> int:
    """What the papers say that this payment is to bring; of several legs, its share."""
    return (await _papers_minor(scope, [payment.id]))[payment.id]


async def _legs_of(scope: Scope, payment_ids: Iterable[UUID]) -> list[list[Payment]]:
    """Of those among them that have several."""
    own = select(Payment.source_type, Payment.source_id).where(
        Payment.id.in_(list(payment_ids)), Payment.source_type != WALLET
    )
    other = aliased(Payment)
    several = own.where(
        select(other.id).where(
            other.source_type == Payment.source_type, other.source_id == Payment.source_id, other.leg > 1
        ).exists()
    )  # fmt: skip
    query = select(Payment).where(tuple_(Payment.source_type, Payment.source_id).in_(several))
    groups: dict[tuple[str, UUID], list[Payment]] = {}
    for leg in (await scope.db.execute(query.order_by(Payment.leg))).scalars():
        groups.setdefault((leg.source_type, leg.source_id), []).append(leg)
    return list(groups.values())


async def _shares(scope: Scope, legs: Sequence[Payment], gross_minor: int) -> dict[UUID, int]:
    """What of the papers each leg stands for: what it took and kept and what of it was given up. Where that comes to
    more, the latest stand for less, and something of them waits to be given back; where it comes to less, the rest is
    owed by what is still open, else by the last."""
    ids = [leg.id for leg in legs]
    refunds, given_up = await list_refunds(scope, ids), await written_off(scope, ids)
    taken = await _taken_or_asked(scope, legs)
    found = {
        leg.id: taken[leg.id] + given_up[leg.id] - leg.repaid_minor
        - sum(op.request["amount_minor"] for op in refunds.get(leg.id, ()) if op.state != "failed")
        for leg in legs
    }  # fmt: skip
    rest = gross_minor - sum(found.values())
    if rest > 0:
        found[next((leg.id for leg in legs if leg.state in OPEN), ids[-1])] += rest
    for leg in reversed(legs):
        less = min(max(found[leg.id], 0), max(-rest, 0))
        found[leg.id], rest = found[leg.id] - less, rest + less
    return found


async def _taken_or_asked(scope: Scope, legs: Sequence[Payment]) -> dict[UUID, int]:
    """Minor units that each leg has brought, or that its capture asks for this moment."""
    found = {leg.id: leg.captured_minor for leg in legs}
    for leg in legs:
        if leg.state == "capturing":
            found[leg.id] = await _asked(scope, leg)
    return found


async def _asked(scope: Scope, payment: Payment) -> int:
    """What the capture that is under way asks for."""
    query = select(PaymentOp.request).where(
        PaymentOp.payment_id == payment.id, PaymentOp.kind == "capture", PaymentOp.state != "failed"
    )
    return max((one["amount_minor"] for one in (await scope.db.execute(query)).scalars()), default=0)


async def refund_again(scope: Scope, payment_id: UUID) -> PaymentOp:
    """What the provider refused to give back, or the card's bank sent back, is asked for once more; its credit note
    stands."""
    payment = await lock(scope, payment_id)
    waiting = (await find_back(scope, payment)).refused_minor
    if not waiting:
        raise Refused("not_refundable", "Nothing that was refused waits to be given back.")
    if payment.provider == TERMINAL:
        raise Refused(
            AT_TERMINAL, "It was paid at a terminal: give it back at its acquirer, or by other means."
        )
    refunds = (await list_refunds(scope, [payment.id])).get(payment.id, [])
    reason = refunds[-1].request["reason"] if refunds else "The card's bank sent it back."
    return await refund(scope, payment.id, reason, amount_minor=waiting)


async def record_repayment(scope: Scope, payment_id: UUID, reference: str) -> Repayment:
    """Staff paid what waits to be given back by other means, all of it: nobody is asked for it again. `not_refundable`,
    `charge_disputed`, or Invalid of `reference`: required, too_long. (What had filled a wallet: `wallets.repay`.)"""
    payment = await lock(scope, payment_id)
    return await repay(scope, payment, (await find_back(scope, payment)).refused_minor, reference)


async def repay(scope: Scope, payment: Payment, amount_minor: int, reference: str) -> Repayment:
    """So much of a locked payment was paid back by other means; errors as `record_repayment`."""
    reference = reference.strip()
    if not reference or len(reference) > 200:
        code = "too_long" if reference else "required"
        raise Invalid.field("reference", code, "Give the transfer's reference, in up to 200 characters.")
    refuse_disputed(payment)
    if amount_minor <= 0:
        raise Refused("not_refundable", "Nothing that was refused waits to be given back.")
    row = Repayment(
        id=uuid7(), payment_id=payment.id, amount_minor=amount_minor, currency=payment.currency, reference=reference,
        recorded_by=scope.actor.name, created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    payment.repaid_minor += amount_minor
    payment.version_no += 1
    _came, owed = _taken(payment, -amount_minor)
    bank = Posting("bank", -amount_minor, payment.currency)
    await ledger.post(scope, "repaid", "repayment", row.id, scope.now, [owed, bank])
    news = {"amount_minor": amount_minor, "currency": payment.currency, "reference": reference}
    await audit.record(scope, "payment.repaid", "payment", payment.id, news)
    await events.emit(scope, "PaymentRepaid", "payment", payment.id, news)
    scope.publish(f"payment:{payment.source_id}", {"what": "repaid"})
    await _settle_share(scope, payment)
    return row


async def list_repayments(scope: Scope, payment_id: UUID) -> list[Repayment]:
    """Oldest first."""
    query = select(Repayment).where(Repayment.payment_id == payment_id).order_by(Repayment.id)
    return list((await scope.db.execute(query)).scalars())


async def list_refused_refunds(scope: Scope, *, limit: int = 50) -> list[tuple[Payment, int]]:
    """(payment, minor units) of what the provider refused to give back, or the card's bank sent back, and nobody asked
    for again, oldest first."""
    newest = (
        select(PaymentOp.payment_id, PaymentOp.state)
        .where(PaymentOp.kind == "refund").distinct(PaymentOp.payment_id)
        .order_by(PaymentOp.payment_id, PaymentOp.id.desc()).subquery()
    )  # fmt: skip
    failed = select(newest.c.payment_id).where(newest.c.state == "failed")
    query = select(Payment).where(
        Payment.id.in_(failed) | (Payment.refund_failed_minor > 0),
        Payment.refunded_minor < Payment.captured_minor,
    )

    async def refused(rows: Sequence[Payment]) -> dict[UUID, int]:
        return {key: back.refused_minor for key, back in (await _find_back(scope, rows)).items()}

    return await _first(scope, query, refused, limit)


async def _first(
    scope: Scope, query: Select[Payment], measure: Callable[[Sequence[Payment]], Awaitable[dict[UUID, int]]],
    limit: int,
) -> list[tuple[Payment, int]]:  # fmt: skip
    """The oldest of which `measure` says more than 0. Those that it says nothing of take nobody's place."""
    query, found = query.order_by(Payment.id).limit(500), list[tuple[Payment, int]]()
    rows = (await scope.db.execute(query)).scalars().all()
    while rows and len(found) < limit:
        minors = await measure(rows)
        found += [(row, minors[row.id]) for row in rows if minors.get(row.id)]
        rows = (await scope.db.execute(query.where(Payment.id > rows[-1].id))).scalars().all()
    return found[:limit]


def refundable_minor(payment: Payment, ops: Iterable[PaymentOp]) -> int:
    """What could still be given back, minor units; `ops`: all of the payment, or its refunds."""
    if payment.state not in TAKEN or payment.dispute in disputes.CONTESTED:
        return 0
    return payment.captured_minor - _given_back(payment, [op for op in ops if op.kind == "refund"])


async def kept_minor(scope: Scope, payment: Payment) -> int:
    """What is taken from the payer, or being taken, and neither given back nor on its way back."""
    refunds = (await list_refunds(scope, [payment.id])).get(payment.id, [])
    taken = payment.captured_minor
    if payment.state == "capturing":
        taken = await _asked(scope, payment)
    return taken - _given_back(payment, refunds)


def _lost(payment: Payment) -> int:
    """What the bank has given to the payer for good."""
    return payment.disputed_minor if payment.dispute == "lost" else 0


def _given_back(payment: Payment, refunds: Iterable[PaymentOp]) -> int:
    """With what is on its way, and what was paid by other means."""
    planned = sum(op.request["amount_minor"] for op in refunds if op.state != "failed")
    return max(payment.refunded_minor, payment.refunded_outside_minor + planned) + payment.repaid_minor


async def find_unpapered(scope: Scope, payment: Payment) -> int:
    """Minor units that were given back at the provider itself and that no credit note tells of."""
    return (await _find_unpapered(scope, [payment])).get(payment.id, 0)


async def _find_unpapered(scope: Scope, payments: Sequence[Payment]) -> dict[UUID, int]:
    """Those with something that no credit note tells of; the same few questions for however many."""
    payments = [one for one in payments if one.refunded_outside_minor]
    if not payments:
        return {}
    ids = [one.id for one in payments]
    papers, refunds = await _papers_minor(scope, ids), await list_refunds(scope, ids)
    given_up, found = await written_off(scope, ids), dict[UUID, int]()
    for one in payments:
        kept = one.captured_minor - _given_back(one, refunds.get(one.id, []))
        missing = min(papers[one.id] - given_up[one.id] - kept, one.refunded_outside_minor)
        if missing > 0:
            found[one.id] = missing
    return found


async def find_short(scope: Scope, payment: Payment) -> int:
    """Minor units that the papers of a terminal's payment ask for, that it has not brought and nobody gave up."""
    return (await _find_short(scope, [payment])).get(payment.id, 0)


async def _find_short(scope: Scope, payments: Sequence[Payment]) -> dict[UUID, int]:
    ids = [one.id for one in payments if one.provider == TERMINAL]
    if not ids:
        return {}
    papers, given_up = await _papers_minor(scope, ids), await written_off(scope, ids)
    refunds, found = await list_refunds(scope, ids), dict[UUID, int]()
    for one in payments:
        kept = one.captured_minor - _given_back(one, refunds.get(one.id, [])) - _lost(one)
        lacks = papers.get(one.id, 0) - given_up.get(one.id, 0) - kept
        # What went back at the acquirer before its note is no debt of the payer's.
        lacks -= (await find_unpapered(scope, one)) if one.refunded_outside_minor else 0
        if lacks > 0:
            found[one.id] = lacks
    return found


async def list_short(scope: Scope, *, limit: int = 50) -> list[tuple[Payment, int]]:
    """(payment, minor units) of `find_short`, oldest first."""
    query = select(Payment).where(Payment.provider == TERMINAL)
    return await _first(scope, query, lambda rows: _find_short(scope, rows), limit)


async def write_off_short(scope: Scope, payment_id: UUID, reason: str) -> int:
    """Staff give up what a terminal's payment did not bring; minor units. `nothing_short`, Invalid of `reason`."""
    payment, reason = await lock(scope, payment_id), reason.strip()[:500]
    if not reason:
        raise Invalid.field("reason", "required", "Say in a sentence why.")
    lacks = await find_short(scope, payment)
    if not lacks:
        raise Refused("nothing_short", "Nothing of this payment lacks.")
    await _give_up(scope, payment, lacks, _corrections(payment.id), uuid7())
    news = {"amount_minor": lacks, "currency": payment.currency, "reason": reason}
    await audit.record(scope, "payment.written_off", "payment", payment.id, news)
    return lacks


async def list_unpapered(scope: Scope, *, limit: int = 50) -> list[tuple[Payment, int]]:
    """(payment, minor units) of `find_unpapered`, oldest first."""
    query = select(Payment).where(Payment.refunded_outside_minor > 0)
    return await _first(scope, query, lambda rows: _find_unpapered(scope, rows), limit)


async def correct(scope: Scope, source_type: str, source_id: UUID, gross_minor: int, reason: str) -> None:
    """What stands on the papers is now `gross_minor` (0: all was credited); twice is once.

    Too much that was taken is given back; what never was taken is never asked for, it is written off. While a capture
    is under way nobody knows what was taken: the caller comes back at `PaymentCaptured` or `PaymentFailed`; while the
    money is disputed nobody knows whose it is, and the caller comes back at `DisputeClosed`.
    """
    await _correct(scope, await lock_legs(scope, source_type, source_id), gross_minor, reason)


async def _correct(scope: Scope, legs: Sequence[Payment], gross_minor: int, reason: str) -> None:
    """The legs are locked. Too much goes back from the latest first."""
    if any(leg.state == "capturing" or leg.dispute == "open" for leg in legs):
        return
    free = [leg for leg in legs if leg.dispute not in disputes.CONTESTED]
    if not free:
        return
    if free[0].provider == TERMINAL:  # one leg: nobody here can ask for another
        await _leave_to_terminal(scope, free[0], gross_minor, reason)
        return
    ids, kept = [leg.id for leg in legs], dict[UUID, int]()
    refunds, given_up = await list_refunds(scope, ids), sum((await written_off(scope, ids)).values())
    for leg in legs:
        kept[leg.id] = leg.captured_minor - _given_back(leg, refunds.get(leg.id, []))
    wanted = min(gross_minor, sum(kept.values()))
    await _spread(scope, free, kept, sum(kept.values()) - wanted, reason)
    lost = gross_minor - wanted - given_up
    if (
        lost > 0
    ):  # what was given back at the provider itself is no loss, nor owed again: its paper is yet to come
        lost -= min(lost, sum(leg.refunded_outside_minor for leg in legs))
    # What a card has yet to give is less or more by that; so it is of a debt whose hold stands since a moment ago.
    asked = next((leg for leg in legs if leg.saved_card_id is not None and leg.state in OPEN), None)
    asked = asked or next((leg for leg in legs if _holds(leg)), None)
    if asked is not None:
        await _capture(scope, asked, max(lost, 0), is_one_of_many=len(legs) > 1)
        return
    last = legs[-1]
    if lost:
        await ledger.post(scope, "write_off", _corrections(last.id), uuid7(), scope.now, [
            Posting("write_off", lost, last.currency), Posting("driver_receivable", -lost, last.currency),
        ])  # fmt: skip


async def _spread(
    scope: Scope, legs: Sequence[Payment], most: dict[UUID, int], amount_minor: int, reason: str
) -> list[PaymentOp]:
    """Gives back that much, of the latest leg first, of each up to `most`."""
    ops = list[PaymentOp]()
    for leg in reversed(legs):
        part = min(most[leg.id], amount_minor)
        if part > 0:
            ops.append(await refund(scope, leg.id, reason, amount_minor=part))
            amount_minor -= part
    return ops


async def refund_legs(
    scope: Scope, legs: Sequence[Payment], reason: str, amount_minor: int
) -> list[PaymentOp]:
    """As `refund`, of what several legs paid: the latest first, of none more than it took. One or more calls."""
    refunds = await list_refunds(scope, [leg.id for leg in legs])
    most = {leg.id: refundable_minor(leg, refunds.get(leg.id, [])) for leg in legs}
    if not 0 < amount_minor <= sum(most.values()):
        raise Refused("not_refundable", "There is nothing left of this payment that could be given back.")
    return await _spread(scope, legs, most, amount_minor, reason)


def _corrections(payment_id: UUID) -> str:
    return f"payment_correction:{payment_id}"


async def written_off(scope: Scope, payment_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Minor units that were given up of what these payments should have brought, and never asked for again."""
    ids = list(payment_ids)
    query = select(PaymentOp.id, PaymentOp.payment_id).where(PaymentOp.payment_id.in_(ids))
    of_op = {row.id: row.payment_id for row in await scope.db.execute(query)}
    of_correction = {_corrections(payment_id): payment_id for payment_id in ids}
    query = (
        select(LedgerTxn.source_type, LedgerTxn.source_id, LedgerEntry.amount_minor)
        .join(LedgerTxn, LedgerTxn.id == LedgerEntry.txn_id)
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(
            LedgerAccount.code == "write_off",
            LedgerTxn.source_id.in_([*ids, *of_op]) | LedgerTxn.source_type.in_(list(of_correction)),
        )
    )
    found = dict.fromkeys(ids, 0)
    for source_type, source_id, amount_minor in await scope.db.execute(query):
        payment_id = of_correction.get(source_type) or of_op.get(source_id) or source_id
        found[payment_id] += amount_minor
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a payment's papers: gross = `paid_minor` + `waived_minor` + what is still to be paid (I2).

    `why` something is waived: `below_minimum` (too little for a card), `not_taken` (the hold had ended, or the bank
    refused at last), `above_hold`, or `corrected` (a later paper came to more than was taken); else empty. `is_past`
    leaves out what was given back since (`as_it_was`). What was given back without a note was paid all the same
    (`unpapered_minor`, as `find_unpapered`): nobody owes it again.
    """

    payment: Payment
    waived_minor: int
    unpapered_minor: int = 0
    is_past: bool = False

    @property
    def paid_minor(self) -> int:
        """By card, less what notes gave back."""
        back = self.payment.refunded_minor + self.payment.repaid_minor
        return self.payment.captured_minor - (0 if self.is_past else back - self.unpapered_minor)

    @property
    def why(self) -> str:
        payment = self.payment
        if self.waived_minor <= 0:
            return ""
        if payment.captured_minor:
            return "above_hold" if payment.captured_minor >= payment.hold_minor else "corrected"
        if payment.state == "capturing":
            return "above_hold"
        least = minimum_minor(payment.currency)
        is_too_little = payment.failure == "below_minimum" and self.waived_minor < least
        return "below_minimum" if is_too_little else "not_taken"


async def asked_minor(scope: Scope, payment: Payment) -> int:
    """What its saved card was asked to hold at first."""
    query = select(PaymentOp.request).where(PaymentOp.payment_id == payment.id, PaymentOp.kind == "create")
    request = (await scope.db.execute(query.limit(1))).scalar_one_or_none()
    return request["amount_minor"] if request else payment.hold_minor


async def find_settled(scope: Scope, payment: Payment | None) -> Settled | None:
    if payment is None:
        return None
    given_up, unpapered = await written_off(scope, [payment.id]), await find_unpapered(scope, payment)
    return Settled(payment=payment, waived_minor=given_up[payment.id], unpapered_minor=unpapered)


async def find_settled_by(scope: Scope, legs: Sequence[Payment]) -> Settled | None:
    """The same of all legs together."""
    whole = as_one(legs)
    if whole is None:
        return None
    given_up, unpapered = (
        await written_off(scope, [leg.id for leg in legs]),
        await _find_unpapered(scope, legs),
    )
    return Settled(
        payment=whole, waived_minor=sum(given_up.values()), unpapered_minor=sum(unpapered.values())
    )


def as_it_was(payment: Payment, gross_minor: int) -> Settled:
    """How a paper over `gross_minor` was settled before it was corrected: what came later stands on later papers."""
    taken = payment.hold_minor if payment.state == "capturing" else payment.captured_minor
    return Settled(payment=payment, waived_minor=max(gross_minor - taken, 0), is_past=True)


async def list_refunds(scope: Scope, payment_ids: Iterable[UUID]) -> dict[UUID, list[PaymentOp]]:
    """Per payment, oldest first, whatever became of them."""
    query = (
        select(PaymentOp)
        .where(PaymentOp.payment_id.in_(list(payment_ids)), PaymentOp.kind == "refund")
        .order_by(PaymentOp.id)
    )
    found: dict[UUID, list[PaymentOp]] = {}
    for op in (await scope.db.execute(query)).scalars():
        found.setdefault(op.payment_id, []).append(op)
    return found


async def list_given_back(scope: Scope, payment: Payment | None) -> list[tuple[datetime, int, bool]]:
    """(when its credit note was issued, minor units, is it made) of each refund that was made, oldest first; then what
    was given back at the provider itself, and what is still to be given back, if anything, by the newest note.

    A refund belongs to the newest note that stood when it was planned: in that note's own transaction, or later where
    the capture was still under way, or the provider refused at first.
    """
    legs = await legs_beside(scope, payment) if payment is not None else []
    refunds = await list_refunds(scope, [leg.id for leg in legs])
    ops = sorted((op for own in refunds.values() for op in own), key=lambda op: op.id)
    payment = as_one(legs)
    if payment is None or not (ops or payment.refunded_outside_minor or payment.refund_failed_minor):
        return []
    query = select(Invoice.issued_at).where(
        Invoice.issued_at >= legs[0].created_at, Invoice.corrects_id.is_not(None),
        Invoice.buyer["payment"].astext == public_id("payment", payment.id),
    )  # fmt: skip
    notes = list((await scope.db.execute(query)).scalars())
    found: list[tuple[datetime, int, bool]] = []
    for op in ops:
        if op.state == "succeeded":
            issued_at = max((at for at in notes if at <= op.created_at), default=op.created_at)
            found.append((issued_at, op.request["amount_minor"], True))
    outside = payment.refunded_outside_minor - sum((await _find_unpapered(scope, legs)).values())
    if outside + payment.repaid_minor and notes:
        found.append((max(notes), outside + payment.repaid_minor, True))
    back = await find_back_by(scope, legs)
    waiting = back.on_its_way_minor + back.refused_minor
    if waiting and notes:
        found.append((max(notes), waiting, False))
    return found


def refund_as_json(payment: Payment, op: PaymentOp, id: UUID | None = None) -> dict[str, Any]:
    """As REST shows it. `state`: pending until the provider answered, then succeeded or failed (also weeks later, where
    the card's bank sends it back; `failure` says why in the provider's code). `id`: of the request that it came of,
    where it had to wait for one."""
    return {
        "id": public_id("refund", id or op.id), "payment_id": public_id("payment", op.payment_id),
        "state": op.state if op.state in ("succeeded", "failed") else "pending", "reason": op.request["reason"],
        "amount": money(op.request["amount_minor"], payment.currency), "created_at": rfc3339(op.created_at),
        "failure": (op.response or {}).get("code") if op.state == "failed" else None,
    }  # fmt: skip


def request_as_json(request: RefundRequest) -> dict[str, Any]:
    """A refund that waits for a second member of staff: `state` waiting, or rejected with the `note` that says why."""
    return {
        "id": public_id("refund", request.id), "payment_id": public_id("payment", request.payment_id),
        "state": request.state, "reason": request.reason, "note": request.note or None,
        "amount": money(request.amount_minor, request.currency), "created_at": rfc3339(request.created_at),
    }  # fmt: skip


async def send_evidence(scope: Scope, dispute_id: UUID, evidence: dict[str, str]) -> PaymentOp:
    """Our answer to the bank, once and for good: fields of the provider's `evidence`. `not_answerable`, or Invalid of
    `text`: required, too_long."""
    text = evidence.get("uncategorized_text", "").strip()
    if not text:
        raise Invalid.field("text", "required", "Say what the bank should know.")
    if sum(map(len, evidence.values())) > MOST_EVIDENCE:
        raise Invalid.field("text", "too_long", f"The bank takes at most {MOST_EVIDENCE:,} characters.")
    return await _answer_dispute(scope, dispute_id, "dispute_evidence", {"evidence": evidence})


async def accept_dispute(scope: Scope, dispute_id: UUID) -> PaymentOp:
    """The money stays with the payer, for good. `not_answerable`."""
    return await _answer_dispute(scope, dispute_id, "dispute_accept", {})


async def _answer_dispute(scope: Scope, dispute_id: UUID, kind: str, request: dict[str, Any]) -> PaymentOp:
    row = await disputes.get_dispute(scope, dispute_id)
    payment = await lock(scope, row.payment_id)
    await scope.db.refresh(row)
    if row.state not in disputes.ANSWERABLE:
        raise Refused("not_answerable", "The bank takes no answer to this dispute any more.")
    if kind == "dispute_accept" and row.state.startswith("warning_"):
        raise Refused("not_answerable", "Nothing was taken yet: to give the money back, refund the payment.")
    asked = await list_answers(scope, row)
    if any(op.state != "failed" for op in asked):
        raise Refused("not_answerable", "This dispute was answered already.")
    op = await _plan(scope, payment, kind, f"dsp:{row.id}:{len(asked)}", {"ref": row.ref, **request})
    deed = "dispute.evidence_sent" if kind == "dispute_evidence" else "dispute.accepted"
    await audit.record(scope, deed, "dispute", row.id, {"ref": row.ref})
    await _enqueue(scope, op)
    return op


async def list_answers(scope: Scope, row: Dispute) -> list[PaymentOp]:
    """What was told the bank, oldest first, whatever became of it."""
    query = select(PaymentOp).where(
        PaymentOp.payment_id == row.payment_id, PaymentOp.kind.in_(("dispute_evidence", "dispute_accept")),
        PaymentOp.request["ref"].astext == row.ref,
    )  # fmt: skip
    return list((await scope.db.execute(query.order_by(PaymentOp.id))).scalars())


async def _plan(scope: Scope, payment: Payment, kind: str, key: str, request: dict[str, Any]) -> PaymentOp:
    """Once per key: who plans it again gets the one that stands."""
    query = select(PaymentOp).where(PaymentOp.idem_key == key)
    op = (await scope.db.execute(query)).scalar_one_or_none()
    if op is None:
        op = PaymentOp(
            id=uuid7(), payment_id=payment.id, kind=kind, idem_key=key, request=request, state="planned",
            created_at=scope.now, updated_at=scope.now,
        )  # fmt: skip
        scope.db.add(op)
        await scope.db.flush()
    return op


async def plan_op(scope: Scope, payment: Payment, kind: str, key: str, request: dict[str, Any]) -> PaymentOp:
    """A call that is made soon; the same key is the same call."""
    op = await _plan(scope, payment, kind, key, request)
    await _enqueue(scope, op)
    return op


async def _enqueue(scope: Scope, op: PaymentOp) -> None:
    job = "billing.run_host_op" if op.kind in HOST_OPS else "billing.run_op"
    await queue.enqueue(scope, job, op_id=str(op.id), lock=f"payment:{op.payment_id}")


# -- calls to the provider -------------------------------------------------------------------------------------------


async def run_op(database: Database, tenant_id: UUID, op_id: UUID) -> None:
    """Planned -> sent -> succeeded, failed or unknown. Runs again after any crash: the key makes it the same call.

    Raises OutcomeUnknown where nobody knows what happened; the queue, and the janitor behind it, come back.
    """
    async with database.scope(tenant_id, ACTOR) as scope:
        op = await scope.db.get(PaymentOp, (tenant_id, op_id))
        if op is None or op.state in ("succeeded", "failed"):
            return
        payment = await get_payment(scope, op.payment_id)
        is_over = {
            "checkout_create": payment.state != "created" and not payment.is_due,
            "create": payment.state not in OPEN, "increment": payment.state != "authorized",
            "confirm": payment.state in ("canceled", "expired", "failed"),
        }.get(op.kind, False)  # fmt: skip
        if is_over:
            op.state = "failed"  # given up before it was ever made: no page for a wish that is over
            return
        is_repeated = op.state in ("sent", "unknown")
        op.state, op.updated_at = "sent", scope.now
        is_beyond = (
            op.kind == "refund"
            and not is_repeated
            and await _is_beyond(scope, payment, op.request["amount_minor"])
        )
    if is_beyond:
        error = Rejected("balance_insufficient", "So much is not in the account.")
        await _rejected(database, tenant_id, op_id, error)
        return
    if op.kind == "refund" and is_repeated and await _was_refunded(database, tenant_id, op_id):
        return
    try:
        found = await _call(provider_of(database.settings), payment, op)
    except OutcomeUnknown as error:
        async with database.scope(tenant_id, ACTOR) as scope:
            op = await scope.db.get_one(PaymentOp, (tenant_id, op_id))
            op.state = "unknown"
            if error.is_final:
                # What was asked under this key has ended. A new key doubles nothing: a hold is captured or let go once
                # by the provider's own state, and a refund is looked for before it is asked for again.
                op.n += 1
        raise
    except Rejected as error:
        await _rejected(database, tenant_id, op_id, error)
        return
    async with database.scope(tenant_id, ACTOR) as scope:
        payment = await lock(scope, op.payment_id)
        done = await scope.db.get_one(PaymentOp, (tenant_id, op_id))
        done.state, done.updated_at = "succeeded", scope.now
        await _conclude(scope, payment, done, found, op.provider_ref)


async def _call(provider: Provider, payment: Payment, op: PaymentOp) -> Checkout | Observation | DisputeSeen:
    request, account = op.request, payment.account_ref
    key = op.idem_key if op.n == 1 else f"{op.idem_key}:{op.n}"
    if op.kind == "checkout_create":
        values = {**request, "expires_at": datetime.fromisoformat(request["expires_at"])}
        return await provider.create_checkout(account, key=key, **values)
    if op.kind == "checkout_expire":
        return await provider.expire_checkout(account, payment.checkout_ref or "", key=key)
    if op.kind == "create":
        values = {name: value for name, value in request.items() if name != "language"}
        return await provider.create_payment(account, key=key, **values)
    ref = request.get("ref") or payment.provider_ref or ""
    if op.kind == "confirm":
        return await provider.confirm_payment(account, ref, key=key)
    if op.kind == "increment":
        return await provider.increment(account, ref, amount_minor=request["amount_minor"], key=key)
    if op.kind == "dispute_evidence":
        return await provider.submit_evidence(account, ref, evidence=request["evidence"], key=key)
    if op.kind == "dispute_accept":
        return await provider.accept_dispute(account, ref, key=key)
    if op.kind == "capture":
        return await provider.capture(
            account,
            ref,
            amount_minor=request["amount_minor"],
            fee_minor=request["fee_minor"],
            key=key,
        )
    if op.kind == "cancel":
        return await provider.cancel(account, ref, key=key)
    op.provider_ref = await provider.refund(
        account, ref, amount_minor=request["amount_minor"], reason=request["reason"], key=key, marked=str(op.id),
        returns_fee=request.get("returns_fee", False),
    )  # fmt: skip
    return await provider.get_payment(account, ref)


async def _conclude(
    scope: Scope,
    payment: Payment,
    op: PaymentOp,
    found: Checkout | Observation | DisputeSeen,
    ref: str | None,
) -> None:
    if isinstance(found, DisputeSeen):
        op.provider_ref = found.ref
        await take_disputes(scope, payment, [found])
        return
    if isinstance(found, Checkout):
        op.provider_ref = found.ref
        await _see_checkout(scope, payment, found)
        if op.kind == "checkout_create" and payment.state == "failed":
            # It was given up while the page was being made: nobody may pay there.
            await _enqueue(scope, await _plan(scope, payment, "checkout_expire", f"exp:{payment.id}", {}))
        return
    op.provider_ref = ref or found.provider_ref
    if op.kind == "refund":
        await _post_refund(scope, payment, op)
    if op.kind == "create":
        payment.provider_ref = found.provider_ref
        kind, key = ("confirm", "conf") if payment.state in OPEN else ("cancel", "can")
        await _enqueue(scope, await _plan(scope, payment, kind, f"{key}:{payment.id}", {}))
    if op.kind == "cancel" and op.request.get("ref", payment.provider_ref) != payment.provider_ref:
        return  # what a saved card did not give: the payment itself is open
    if payment.provider_ref in (None, found.provider_ref):  # not what `sweep` found beside its own hold
        await apply(scope, payment, found)


async def _post_refund(scope: Scope, payment: Payment, op: PaymentOp) -> None:
    amount = op.request["amount_minor"]
    await ledger.post(scope, "refunded", "payment_op", op.id, scope.now, _taken(payment, -amount))
    news = {"amount_minor": amount}
    event_id = await events.emit(scope, "PaymentRefunded", "payment", payment.id, news)
    await _tell_voucher(scope, payment, "PaymentRefunded", event_id)


async def _was_refunded(database: Database, tenant_id: UUID, op_id: UUID) -> bool:
    """Somebody asked before us and did not hear: a key is remembered for a day only, what was given back for ever."""
    async with database.scope(tenant_id, ACTOR) as scope:
        payment_id = (await scope.db.get_one(PaymentOp, (tenant_id, op_id))).payment_id
    await observe(database, tenant_id, payment_id)
    async with database.scope(tenant_id, ACTOR) as scope:
        payment = await lock(scope, payment_id)
        op = await scope.db.get_one(PaymentOp, (tenant_id, op_id))
        if not await _has_refunded(scope, payment, op):
            return False
        op.state, op.updated_at = "succeeded", scope.now
        await _post_refund(scope, payment, op)
        await _book_outside(scope, payment)
        await watch(scope, payment_id)  # it may have failed since
        return True


async def _has_refunded(scope: Scope, payment: Payment, op: PaymentOp) -> bool:
    """It carries our mark at the provider, or more was given back than the refunds we know of come to."""
    if op.provider_ref is not None:
        return True
    refunds = (await list_refunds(scope, [payment.id])).get(payment.id, [])
    return _unexplained(payment, refunds) >= op.request["amount_minor"]


def _unexplained(payment: Payment, refunds: Iterable[PaymentOp]) -> int:
    """Minor units that were given back, neither by a refund of ours that is known to be made nor known as another's."""
    made = sum(one.request["amount_minor"] for one in refunds if one.state == "succeeded")
    return payment.refunded_minor - payment.refunded_outside_minor - made


async def _take_refunds(scope: Scope, payment: Payment, seen: Sequence[RefundSeen]) -> bool:
    """Which of our calls made what the provider tells of, by its id or by our mark. One that the card's bank sent back
    is undone, once: the money is in the account again, and the payer is owed it. True: one of nobody's failed too."""
    refunds = (await list_refunds(scope, [payment.id])).get(payment.id, []) if seen else []
    known = {str(op.id): op for op in refunds} | {op.provider_ref: op for op in refunds if op.provider_ref}
    is_outside = False
    for one in seen:
        op = known.get(one.ref) or known.get(one.marked)
        if op is None:
            is_outside |= one.is_failed
            continue
        op.provider_ref = op.provider_ref or one.ref
        if not one.is_failed or op.state != "succeeded":
            continue
        op.state, op.updated_at = "failed", scope.now
        op.response = {"code": one.failure or "unknown", "came_back": True}
        await _post_come_back(scope, payment, op.request["amount_minor"], "payment_op", op.id)
    return is_outside


async def _post_come_back(
    scope: Scope, payment: Payment, amount_minor: int, source_type: str, source_id: UUID
) -> None:
    kind = "refund_failed" if source_type == "payment_op" else "refund_outside_failed"
    await ledger.post(scope, kind, source_type, source_id, scope.now, _taken(payment, amount_minor))
    news = {"amount_minor": amount_minor, "currency": payment.currency}
    await audit.record(scope, f"payment.{kind}", "payment", payment.id, news)
    await events.emit(scope, "RefundFailed", "payment", payment.id, news)
    scope.publish(f"payment:{payment.source_id}", {"what": "refund_failed"})


async def _book_outside(scope: Scope, payment: Payment, *, has_failed: bool = False) -> None:
    """What the operator gave back at the provider itself comes into the books when it is seen; its credit note is for
    staff to issue (`find_unpapered`). While a refund of ours is under way, what is seen may be that one. Where one
    `has_failed`, it is undone. The payment is locked: once."""
    if payment.refunded_minor <= payment.refunded_outside_minor and not has_failed:
        return
    refunds = (await list_refunds(scope, [payment.id])).get(payment.id, [])
    amount = _unexplained(payment, refunds)
    if any(op.state not in ("succeeded", "failed") for op in refunds):
        return
    back = min(-amount, payment.refunded_outside_minor) if has_failed else 0
    if back > 0:
        payment.refunded_outside_minor -= back
        await _post_come_back(scope, payment, back, f"payment_outside:{payment.id}", uuid7())
    if amount <= 0:
        return
    payment.refunded_outside_minor += amount
    source = f"payment_outside:{payment.id}"
    await ledger.post(scope, "refunded_outside", source, uuid7(), scope.now, _taken(payment, -amount))
    await audit.record(scope, "payment.refunded_outside", "payment", payment.id, {"amount_minor": amount})


async def _rejected(database: Database, tenant_id: UUID, op_id: UUID, error: Rejected) -> None:
    """The provider said no. What it holds now is read before anything is concluded: it may have been done before."""
    async with database.scope(tenant_id, ACTOR) as scope:
        op = await scope.db.get_one(PaymentOp, (tenant_id, op_id))
        payment = await get_payment(scope, op.payment_id)
    await observe(database, tenant_id, payment.id)
    async with database.scope(tenant_id, ACTOR) as scope:
        payment = await lock(scope, payment.id)
        op = await scope.db.get_one(PaymentOp, (tenant_id, op_id))
        answered = await disputes.find_by_ref(scope, payment, op.request.get("ref", ""))
        has_happened = {
            "dispute_accept": answered is not None and answered.state == "lost",
            "dispute_evidence": answered is not None and answered.submitted_at is not None,
            "confirm": payment.state in ("authorized", "capturing", *TAKEN),
            "increment": payment.hold_minor >= op.request.get("amount_minor", 0),
            "capture": payment.captured_minor > 0, "cancel": payment.state == "canceled",
            "checkout_expire": payment.state in ("expired", "canceled"),
            "refund": op.kind == "refund" and await _has_refunded(scope, payment, op),
        }.get(op.kind, False)  # fmt: skip
        op.state, op.updated_at = "succeeded" if has_happened else "failed", scope.now
        op.response = {"code": error.code, "message": str(error)[:500]}
        if has_happened and op.kind == "refund":
            await _post_refund(scope, payment, op)
        if op.kind == "refund":
            await _book_outside(scope, payment)
        if has_happened:
            return
        if op.kind == "increment":
            await _emit(scope, payment, "HoldChanged")
        elif op.kind in ("create", "confirm"):
            await _ask_payer(scope, payment, error.code)
        elif op.kind == "checkout_create" and payment.is_due:
            pass  # it stays due, and another page may be asked for
        elif op.kind == "checkout_expire" and payment.state == "failed" and payment.provider_ref:
            # The payer was quicker than we, and nobody wants it any more.
            await _enqueue(scope, await _plan(scope, payment, "cancel", f"can:{payment.id}", {}))
        elif op.kind == "checkout_create":
            await apply(scope, payment, Observation(provider_ref="", state="failed", failure=error.code))
        elif op.kind == "checkout_expire" and payment.state == "authorized":
            await _release(
                scope, payment, payment.failure
            )  # the payer was quicker than we: now there is a hold
        elif op.kind == "refund":  # its credit note stands, and staff may ask again
            news = {"amount_minor": op.request["amount_minor"], "code": error.code}
            await audit.record(scope, "payment.refund_refused", "payment", payment.id, news)
            await events.emit(scope, "RefundRefused", "payment", payment.id, news)
            scope.publish(f"payment:{payment.source_id}", {"what": "refund_refused"})
        elif op.kind == "capture" and payment.saved_card_id is not None:
            await _ask_payer(scope, payment, error.code)
        elif op.kind == "capture":
            payment.failure = error.code
            await _give_up(scope, payment, op.request["amount_minor"], "payment_op", op.id)
            if payment.state == "capturing":  # it stands, and will not be taken: not a day longer
                await _enqueue(scope, await _plan(scope, payment, "cancel", f"can:{payment.id}", {}))
            await _emit(scope, payment, "PaymentFailed")
            await _emit(scope, payment, "PaymentWaived")


async def _ask_payer(scope: Scope, payment: Payment, code: str) -> None:
    """The saved card gave nothing: what was asked of it is let go, and whoever pays is told. The payment is locked.

    A leg beside others that nobody owes anything for yet is no debt, it is over: the others pay as far as they hold.
    """
    if payment.state in ("authorized", *TAKEN):
        return
    payment.state = "requires_action"
    if len(await legs_beside(scope, payment)) > 1 and await owed_minor(scope, payment) <= 0:
        await _withdraw(scope, payment, code)
        payment.version_no += 1
        scope.publish(f"payment:{payment.source_id}", {"what": payment.state})
        await _emit(scope, payment, "PaymentEnded")
        return
    payment.failure = payment.failure or code
    if payment.provider_ref is not None:
        request, key = {"ref": payment.provider_ref}, f"can:{payment.id}:{payment.provider_ref}"
        await _enqueue(scope, await _plan(scope, payment, "cancel", key, request))
        payment.provider_ref, payment.hold_minor = None, 0  # what stood is let go
    payment.version_no += 1
    scope.publish(f"payment:{payment.source_id}", {"what": payment.state})
    await _emit(scope, payment, "PaymentActionRequired")
    if payment.saved_card_id is not None:  # it may have been taken back at the provider
        await queue.enqueue(
            scope,
            "billing.observe_card",
            card_id=str(payment.saved_card_id),
            lock=f"card:{payment.saved_card_id}",
        )


# -- what the provider says ------------------------------------------------------------------------------------------


async def observe(database: Database, tenant_id: UUID, payment_id: UUID) -> None:
    """Reads the object again and believes that, whoever said that there is news."""
    async with database.scope(tenant_id, ACTOR) as scope:
        payment = await get_payment(scope, payment_id)
        is_disputed = bool(await disputes.of_payment(scope, payment_id))
    provider = provider_of(database.settings)
    if provider.name != payment.provider or not (payment.checkout_ref or payment.provider_ref):
        return
    checkout, seen, found = None, None, list[DisputeSeen]()
    if payment.provider_ref is None:
        checkout = await provider.get_checkout(payment.account_ref, payment.checkout_ref or "")
    else:
        seen = await provider.get_payment(payment.account_ref, payment.provider_ref)
        if seen.is_disputed or is_disputed:
            found = await provider.list_disputes(payment.account_ref, payment_ref=payment.provider_ref)
    async with database.scope(tenant_id, ACTOR) as scope:
        payment = await lock(scope, payment_id)
        payment.observed_at = scope.now
        if checkout is not None:
            await _see_checkout(scope, payment, checkout)
        elif seen is not None:
            await apply(scope, payment, seen)
            await take_disputes(scope, payment, found)


async def take_disputes(scope: Scope, payment: Payment, seen: Sequence[DisputeSeen]) -> None:
    """The payment is locked."""
    if seen:
        back = await find_back(scope, payment) if payment.source_type != WALLET else Back()
        await disputes.take(scope, payment, seen, owed_minor=back.refused_minor + back.on_its_way_minor)


async def _see_checkout(scope: Scope, payment: Payment, checkout: Checkout) -> None:
    payment.checkout_ref, payment.checkout_url = checkout.ref, checkout.url
    payment.checkout_expires_at = checkout.expires_at
    if checkout.status == "complete":  # who has only looked has given no address
        payment.payer_email = payment.payer_email or email_norm(checkout.email)
    if (
        checkout.status == "expired" and payment.is_due
    ):  # they owe it all the same, and may ask for another page
        payment.checkout_ref = payment.checkout_url = payment.checkout_expires_at = None
        return
    if checkout.payment is not None:
        await apply(scope, payment, checkout.payment)
    if checkout.status == "expired" and _RANK[payment.state] < _RANK["authorized"]:
        ref = payment.provider_ref or ""
        await apply(
            scope, payment, Observation(provider_ref=ref, state="expired", failure="checkout_expired")
        )


async def apply(scope: Scope, payment: Payment, seen: Observation) -> None:
    """Merges what was seen, posts what became true, and tells whoever waits. The payment is locked."""
    before = Known(**{name: getattr(payment, name) for name in Known.__dataclass_fields__})
    after = merge(before, seen)
    for name in Known.__dataclass_fields__:
        setattr(payment, name, getattr(after, name))
    # The payment intent is the checkout's until money is held: a declined card leaves it open for another.
    payment.provider_ref = payment.provider_ref or (
        seen.provider_ref if seen.state in ("authorized", "captured", "canceled") else None
    )
    payment.capture_before = seen.capture_before or payment.capture_before
    payment.charge_ref, payment.method = seen.charge_ref or payment.charge_ref, seen.method or payment.method
    payment.three_d_secure = seen.three_d_secure or payment.three_d_secure
    if seen.charge_ref:
        payment.is_incremental, payment.is_extended = seen.is_incremental, seen.is_extended
    if before.state == after.state == "authorized" and after.hold_minor > before.hold_minor:
        await _emit(scope, payment, "HoldChanged")
    if after != before:
        payment.version_no += 1
        scope.publish(f"payment:{payment.source_id}", {"what": after.state})
    if after.captured_minor > before.captured_minor:
        await _post_capture(scope, payment)
    if after.captured_minor:
        await _post_fees(scope, payment)
    if seen.fees_back:
        await _post_fees_back(scope, payment, dict(seen.fees_back))
    has_failed = await _take_refunds(scope, payment, seen.refunds)
    await _book_outside(scope, payment, has_failed=has_failed)
    if after != before:
        await _settle_share(scope, payment)
    await _tell(scope, payment, before.state)


async def _settle_share(scope: Scope, payment: Payment) -> None:
    if payment.host_minor:
        lock = f"payment:{payment.id}"
        await queue.enqueue(scope, "billing.settle_host_share", payment_id=str(payment.id), lock=lock)


async def _post_capture(scope: Scope, payment: Payment) -> None:
    """money.md 4.3: the driver owes nothing any more; the provider does, less what it and the platform keep."""
    await ledger.post(
        scope, "captured", "payment", payment.id, scope.now, _taken(payment, payment.captured_minor)
    )


def _taken(payment: Payment, amount_minor: int) -> list[Posting]:
    """Where it comes from and what it is for; negative where it goes back."""
    currency = payment.currency
    came = Posting("psp_pending", amount_minor, currency, payment.account_ref)
    if payment.provider == TERMINAL:  # in the books since it was told
        came = Posting("terminal_unmatched", amount_minor, currency, payment.account_ref)
    if payment.provider in PAID_AHEAD:
        came = Posting(f"{payment.provider}_liability", amount_minor, currency, payment.account_ref)
    if payment.source_type == WALLET:
        return [
            came,
            Posting("wallet_liability", -amount_minor, currency, public_id("driver", payment.source_id)),
        ]
    return [came, Posting("driver_receivable", -amount_minor, currency)]


async def _post_fees(scope: Scope, payment: Payment) -> None:
    """What is known of them beyond what stands in the books: the provider may tell its own long after the capture.
    The payment is locked, so that a difference is posted once."""
    later = f"payment_fees:{payment.id}"
    query = (
        select(LedgerAccount.code, func.sum(LedgerEntry.amount_minor))
        .join(LedgerEntry, LedgerEntry.account_id == LedgerAccount.id)
        .join(LedgerTxn, LedgerTxn.id == LedgerEntry.txn_id)
        .where(
            LedgerTxn.kind == "fees",
            (LedgerTxn.source_type == later)
            | ((LedgerTxn.source_type == "payment") & (LedgerTxn.source_id == payment.id)),
        )
        .group_by(LedgerAccount.code)
    )
    booked = {code: int(minor) for code, minor in await scope.db.execute(query)}
    platform = payment.platform_fee_minor - booked.get("platform_fee_expense", 0)
    host = payment.passed_on_minor - booked.get("host_share_held", 0)
    provider = payment.provider_fee_minor - booked.get("stripe_fee_expense", 0)
    source = (later, uuid7()) if booked else ("payment", payment.id)
    await ledger.post(scope, "fees", *source, scope.now, [
        Posting("platform_fee_expense", platform, payment.currency),
        Posting("host_share_held", host, payment.currency, payment.host_party),
        Posting("stripe_fee_expense", provider, payment.currency),
        Posting("psp_pending", -platform - host - provider, payment.currency, payment.account_ref),
    ])  # fmt: skip


async def _post_fees_back(scope: Scope, payment: Payment, back: dict[str, int]) -> None:
    """What the platform gave back of its fee, by the refund that it went with; each once."""
    for op in (await list_refunds(scope, [payment.id])).get(payment.id, []):
        minor = back.get(op.provider_ref or "", 0)
        await ledger.post(scope, "fee_refunded", "payment_op", op.id, scope.now, [
            Posting("psp_pending", minor, payment.currency, payment.account_ref),
            Posting("platform_fee_expense", -minor, payment.currency),
        ])  # fmt: skip


_EVENTS = {
    "authorized": "PaymentAuthorized", "captured": "PaymentCaptured", "canceled": "PaymentEnded",
    "expired": "PaymentEnded", "failed": "PaymentEnded",
}  # fmt: skip


async def _tell(scope: Scope, payment: Payment, was: str) -> None:
    kind = _EVENTS.get(payment.state)
    if kind is None or payment.state == was or (kind == "PaymentCaptured" and was in TAKEN):
        return  # what a bank sent back of a refund is no second capture
    await _emit(scope, payment, kind)


async def _emit(scope: Scope, payment: Payment, kind: str) -> None:
    event_id = await events.emit(scope, kind, "payment", payment.id, {
        "source_type": payment.source_type, "source_id": str(payment.source_id), "state": payment.state,
        "failure": payment.failure, "captured_minor": payment.captured_minor,
    })  # fmt: skip
    await _tell_voucher(scope, payment, kind, event_id)


async def _tell_voucher(scope: Scope, payment: Payment, kind: str, event_id: UUID) -> None:
    """Something of it may lie on its code again (`vouchers.came_back`)."""
    if payment.voucher_id is not None and kind in ("PaymentCaptured", "PaymentEnded", "PaymentRefunded"):
        await queue.enqueue(scope, "billing.voucher_came_back", event_id=str(event_id))


# -- the janitor -----------------------------------------------------------------------------------------------------


async def tidy(database: Database, tenant_id: UUID) -> None:
    """Every minute: calls whose outcome nobody heard are made again; open holds are looked at, and captures whose fee
    the provider has not told yet."""
    await open_account(database, tenant_id)
    async with database.scope(tenant_id, ACTOR) as scope:
        stale = scope.now - STALE
        account = await find_own_account(scope)
        if account is not None and (
            account.observed_at is None or account.observed_at < scope.now - LOOKED_AT_EACH
        ):
            await queue.enqueue(scope, "billing.observe_account", lock="payment_account")
        ops = select(PaymentOp).where(
            PaymentOp.state.in_(("planned", "sent", "unknown")), PaymentOp.updated_at < stale,
            # Of what waits until the platform has the money, nobody asks each minute.
            PaymentOp.kind.not_in(HOST_OPS) | PaymentOp.response.is_(None)
            | (PaymentOp.updated_at < scope.now - LOOKED_AT_EACH),
        )  # fmt: skip
        for op in (await scope.db.execute(ops.order_by(PaymentOp.id).limit(200))).scalars():
            await _enqueue(scope, op)
        waiting = select(Payment).where(
            Payment.checkout_ref.is_not(None) | Payment.provider_ref.is_not(None),
            Payment.provider.not_in(OWN), or_(  # of which nobody else has anything to say
                Payment.state.in_((*OPEN, "authorized", "capturing")) & Payment.observed_at.is_(None),
                Payment.state.in_(OPEN) & (Payment.observed_at < stale),
                # A hold that stands is looked at each hour: providers let holds go by themselves.
                Payment.state.in_(("authorized", "capturing")) & (Payment.observed_at < scope.now - LOOKED_AT_EACH),
            ),
        )  # fmt: skip
        for payment in (await scope.db.execute(waiting.order_by(Payment.id).limit(200))).scalars():
            await watch(scope, payment.id)
        # Where the platform is billed for it, no charge tells of the provider's fee.
        tells_fees = account is None or account.losses_borne_by == "stripe"
        unknown = select(Payment.id).where(
            literal(tells_fees), Payment.created_at > scope.now - FEE_COMES_WITHIN, Payment.state.in_(TAKEN),
            Payment.provider_fee_minor == 0, Payment.observed_at < scope.now - timedelta(hours=3),
        )  # fmt: skip
        # By chance: those that cannot be read keep nobody out.
        for payment_id in (await scope.db.execute(unknown.order_by(func.random()).limit(200))).scalars():
            await watch(scope, payment_id)
        for payment_id in await disputes.list_stale(scope, scope.now - LOOKED_AT_EACH):
            await watch(scope, payment_id)


async def find_disputes(database: Database, tenant_id: UUID) -> None:
    """Each hour the provider's own list: payers dispute what was taken months ago, and nobody may have told us. What is
    known already is read with its payment (`tidy`); the account's other money is not ours to look at."""
    async with database.scope(tenant_id, ACTOR) as scope:
        account, since = await find_account(scope), scope.now - DISPUTES_BACK
    if account is None:
        return
    found: dict[str, list[DisputeSeen]] = {}
    for one in await provider_of(database.settings).list_disputes(account.account_ref, since=since):
        found.setdefault(one.payment_ref, []).append(one)
    for ref, seen in found.items():
        async with database.scope(tenant_id, ACTOR) as scope:
            query = select(Payment.id).where(
                Payment.account_ref == account.account_ref, Payment.provider_ref == ref
            )
            payment_id = (await scope.db.execute(query)).scalar_one_or_none()
            if payment_id is not None:
                await take_disputes(scope, await lock(scope, payment_id), seen)


async def sweep(database: Database, tenant_id: UUID) -> None:
    """Each day: holds at the provider that nobody here waits for are let go (money.md 4.5, I15).

    Only what carries this tenant's mark: the account is the operator's own, and may take other money too.
    """
    async with database.scope(tenant_id, ACTOR) as scope:
        account = await find_account(scope)
        now = scope.now
    if account is None:
        return
    provider = provider_of(database.settings)
    for held in await provider.list_holds(account.account_ref, now - SWEPT_BACK):
        if held.metadata.get("tenant") != str(tenant_id) or held.created_at > now - SWEPT_AFTER:
            continue
        if await _is_nobodys(database, tenant_id, account.account_ref, held):
            await provider.cancel(account.account_ref, held.ref, key=f"sweep:{held.ref}")


async def _is_nobodys(database: Database, tenant_id: UUID, account_ref: str, held: Hold) -> bool:
    """True for a hold no row knows (a restored database): there is no payment that could plan the call."""
    async with database.scope(tenant_id, ACTOR) as scope:
        query = select(Payment).where(Payment.account_ref == account_ref, Payment.provider_ref == held.ref)
        payment = (await scope.db.execute(query)).scalar_one_or_none()
        marked = held.metadata.get("payment", "")
        if payment is None and _UUID.fullmatch(marked):
            payment = await scope.db.get(Payment, (tenant_id, UUID(marked)))
        if payment is None:
            await audit.record(scope, "payment.swept", "payment", tenant_id, {"ref": held.ref})
            return True
        is_its_own = payment.provider_ref in (None, held.ref)
        if is_its_own and payment.state in (*OPEN, "authorized", "capturing"):
            await watch(scope, payment.id)  # it is known and somebody waits, or the janitor will see to it
            return False
        op = await _plan(scope, payment, "cancel", f"swp:{payment.id}:{held.ref}", {"ref": held.ref})
        await _enqueue(scope, op)
        return False


async def watch(scope: Scope, payment_id: UUID, *, at: datetime | None = None) -> None:
    """A look at the provider, soon."""
    await queue.enqueue(
        scope, "billing.observe", payment_id=str(payment_id), lock=f"payment:{payment_id}", at=at
    )


async def take_news(database: Database, body: bytes, signature: str, now: datetime) -> bool:
    """A webhook: verified, stored once, answered; the work is a job. Rejected for a wrong signature.

    False for what is not ours: another account, or test money told to a live installation.
    """
    provider = provider_of(database.settings)
    news = provider.read_webhook(body, signature, now)
    if news.is_live != provider.is_live:
        return False
    async with database.anonymous() as db:
        found = (
            await db.execute(
                text("select tenant_id from platform.resolve_payment_account(:ref)"),
                {"ref": news.account_ref},
            )
        ).scalar_one_or_none()
    if found is None:
        return False
    async with database.scope(found, Actor.job("webhook")) as scope:
        taken = await scope.db.execute(
            text("select platform.take_webhook(:account, :event, :type, :live, cast(:body as jsonb))"),
            {"account": news.account_ref, "event": news.event_id, "type": news.type, "live": news.is_live,
             "body": json.dumps(news.body)},
        )  # fmt: skip
        if taken.scalar_one():
            refs = [ref for ref in (news.payment_ref, news.object_ref) if ref]
            own = UUID(news.marked) if _UUID.fullmatch(news.marked) else None
            query = select(Payment.id).where(
                Payment.account_ref == news.account_ref,
                Payment.provider_ref.in_(refs)
                | Payment.checkout_ref.in_(refs)
                | Payment.charge_ref.in_(refs)
                | (Payment.id == own),
            )
            for payment_id in (await scope.db.execute(query)).scalars():
                await watch(scope, payment_id)
            cards = select(SavedCard.id).where(
                SavedCard.checkout_ref.in_(refs)
                | SavedCard.setup_ref.in_(refs)
                | SavedCard.provider_ref.in_(refs)
            )
            for card_id in (await scope.db.execute(cards)).scalars():
                await queue.enqueue(
                    scope, "billing.observe_card", card_id=str(card_id), lock=f"card:{card_id}"
                )
            if news.type.startswith("payout."):
                await queue.enqueue(scope, "billing.reconcile_soon", lock="reconcile")
    return True
