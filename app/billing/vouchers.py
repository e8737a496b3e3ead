"""Vouchers: codes of an amount that fill a driver's wallet, or pay for a guest's session (docs/decisions/0034, 0040).

What comes to more than one person gives away alone in a day waits for a second one, as refunds do; what is issued is
owed from then on: `voucher_liability` in the ledger, until the code is redeemed (then the wallet owes it), has paid for
a session (a `Payment` whose provider is `voucher`) or is revoked. VAT falls due where a session is paid, as with any
other money. Whoever spends of a code holds its row until the commit.
Errors: `voucher_unknown`, `voucher_expired`, `voucher_used`, `voucher_held`, `voucher_account`, `voucher_currency`,
`voucher_too_small`, `voucher_paid`, `single_purpose`, `wallet_off`,
`wallet_full`, `vouchers_wait`, `vouchers_decided`, `own_request`, TooMany `too_many_codes`, Invalid of `name`,
`amount`, `code_count`, `uses_per_code`, `valid_until`, `note`.
"""

import secrets as stdlib_secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, text
from sqlalchemy.orm import selectinload

from app.access import accounts
from app.billing import ledger, payments, wallets
from app.billing.ledger import Posting
from app.billing.models import Payment, PaymentOp, Voucher, VoucherBatch, VoucherRedemption
from app.billing.payments import VOUCHER
from app.brands.models import TenantProfile
from app.identity import limits
from app.identity.models import ApiKey
from app.identity.service import email_norm
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused, TooMany
from app.kernel.ids import public_id
from app.kernel.money import Money
from app.kernel.names import check_name
from app.kernel.secrets import digest, digests, seal, unseal
from app.stations.models import Location
from tenants.scope import Scope
from themes.language import N_, _
from themes.render import money

# Crockford's: nobody takes a letter for a figure. 80 bits, in four groups.
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKS_LIKE = str.maketrans("OIL", "011")
GROUPS, GROUP_LENGTH = 4, 4
# Money that comes back to a code is of use for so long at least, whenever the code itself ends.
GOOD_AGAIN = timedelta(days=90)
MOST_CODES, MOST_USES, LONGEST = 1000, 10_000, timedelta(days=3 * 366)
# Of an account and of an address, per hour: a code is guessed by nobody, and nobody is to keep trying.
TRIES, TRIES_PER_ADDRESS, WINDOW = 10, 60, timedelta(hours=1)
PURPOSE = "voucher"
# Not revoked, or something was given back to it since.
IS_OPEN = Voucher.revoked_at.is_(None) | Voucher.good_until.is_not(None)


def new_code() -> str:
    letters = [stdlib_secrets.choice(_LETTERS) for _no in range(GROUPS * GROUP_LENGTH)]
    return "-".join(
        "".join(letters[start : start + GROUP_LENGTH]) for start in range(0, len(letters), GROUP_LENGTH)
    )


def read_code(typed: str) -> str:
    """As it was issued, however it was typed: in any case, with blanks or without dashes (pure)."""
    letters = [one for one in typed.upper().translate(_LOOKS_LIKE) if one in _LETTERS][:64]
    return "-".join(
        "".join(letters[start : start + GROUP_LENGTH]) for start in range(0, len(letters), GROUP_LENGTH)
    )


# -- issuing -----------------------------------------------------------------------------------------------------------


async def issue(
    scope: Scope, *, name: str, amount: str, code_count: int | None, uses_per_code: int | None, valid_until: str,
    paid_by: str, for_guests: bool | None = None,
) -> VoucherBatch:  # fmt: skip
    """The batch with its codes; what they come to is owed from now on. `paid_by`: `brand` (given away) or `buyer`.
    `for_guests`: whoever has a code may charge with it and have no account (None: where a code has one use only, for
    nobody can tell whether a guest has used it before).
    Above the limit (`state` waiting) there are neither, until somebody else approves it."""
    currency = (await scope.db.execute(select(TenantProfile.currency))).scalar_one()
    faults = list[FieldFault]()
    try:
        minor = Money.parse(amount.strip(), currency).amount_minor
    except ValueError:
        minor = 0
    if not 0 < minor <= (wallets.most_minor(currency) or minor):
        faults.append(FieldFault("amount", "amount", "An amount such as 10.00, no more than a wallet holds."))
    for field, value, most in (
        ("code_count", code_count, MOST_CODES),
        ("uses_per_code", uses_per_code, MOST_USES),
    ):
        if value is None or not 1 <= value <= most:
            faults.append(FieldFault(field, "range", f"A number from 1 to {most:,}."))
    ends = await _read_day(scope, valid_until)
    if ends is None:
        faults.append(FieldFault("valid_until", "range", "A day from today on, within three years."))
    if paid_by not in ("brand", "buyer"):
        faults.append(FieldFault("paid_by", "choice", "The brand gives them away, or a buyer pays."))
    if faults or ends is None or code_count is None or uses_per_code is None:
        raise Invalid("invalid", "These vouchers cannot be issued.", faults=faults)
    if paid_by == "buyer":
        await _check_multi_purpose(scope)
    key = (
        await scope.db.get(ApiKey, (scope.tenant_id, scope.actor.id))
        if scope.actor.kind == "api_key"
        else None
    )
    batch = VoucherBatch(
        id=uuid7(), name=check_name(name), amount_minor=minor, currency=currency, paid_by=paid_by,
        code_count=code_count, uses_per_code=uses_per_code, valid_until=ends, issued_by=scope.actor.name,
        created_at=scope.now, state="issued", asked_by_kind=scope.actor.kind, asked_by_id=scope.actor.id,
        key_of=key.created_by if key else "",
        for_guests=uses_per_code == 1 if for_guests is None else for_guests,
    )  # fmt: skip
    limit = await wallets.limit_minor(scope)
    if limit is not None and worth_minor(batch) + await _issued_lately(scope) > limit:
        batch.state = "waiting"
    scope.db.add(batch)
    await scope.db.flush()
    if batch.state == "waiting":
        await audit.record(scope, "vouchers.requested", "voucher_batch", batch.id, _told(batch))
    else:
        await _issue(scope, batch)
    return batch


def worth_minor(batch: VoucherBatch) -> int:
    return batch.amount_minor * batch.code_count * batch.uses_per_code


def _told(batch: VoucherBatch) -> dict[str, Any]:
    return {
        "name": batch.name, "amount_minor": batch.amount_minor, "currency": batch.currency, "codes": batch.code_count,
        "uses_per_code": batch.uses_per_code, "paid_by": batch.paid_by, "for_guests": batch.for_guests,
    }  # fmt: skip


async def _issued_lately(scope: Scope) -> int:
    """By who acts, and approved by nobody else: a limit is not passed in parts, nor by two at once."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext('vouchers'))"),
        {"tenant": str(scope.tenant_id)},
    )
    query = select(VoucherBatch).where(
        VoucherBatch.state == "issued", VoucherBatch.decided_at.is_(None),
        VoucherBatch.created_at > scope.now - timedelta(days=1),
    )  # fmt: skip
    return sum(
        worth_minor(one) for one in (await scope.db.execute(query)).scalars() if one.is_of(scope.actor)
    )


async def _issue(scope: Scope, batch: VoucherBatch) -> None:
    keys = scope.settings.secret_keys
    for code in [new_code() for _no in range(batch.code_count)]:
        scope.db.add(Voucher(
            id=uuid7(), batch_id=batch.id, code_digest=digest(keys, PURPOSE, code), masked=f"…{code[-GROUP_LENGTH:]}",
            code_sealed=seal(keys, PURPOSE, code), used_count=0,
        ))  # fmt: skip
    await scope.db.flush()
    await _post_owed(scope, "vouchers_issued", "voucher_batch", batch.id, batch, worth_minor(batch))
    await audit.record(scope, "vouchers.issued", "voucher_batch", batch.id, _told(batch))


async def approve(scope: Scope, batch_id: UUID) -> VoucherBatch:
    """The second pair of eyes: it is issued as it was asked for."""
    batch = await _lock_waiting(scope, batch_id)
    if batch.is_of(scope.actor):
        raise Refused("own_request", "You asked for these vouchers: a colleague decides.")
    if await _today(scope) > batch.valid_until:
        raise Refused("voucher_expired", "Their last day is past by now: reject them and ask anew.")
    batch.state, batch.decided_by, batch.decided_at = "issued", scope.actor.name, scope.now
    await _issue(scope, batch)
    return batch


async def reject(scope: Scope, batch_id: UUID, note: str) -> VoucherBatch:
    """Nothing is issued. Who asked may take it back so."""
    batch = await _lock_waiting(scope, batch_id)
    if not note.strip():
        raise Invalid.field("note", "required", "Say in a sentence why not.")
    batch.state, batch.note = "rejected", note.strip()[:1000]
    batch.decided_by, batch.decided_at = scope.actor.name, scope.now
    await audit.record(
        scope,
        "vouchers.rejected",
        "voucher_batch",
        batch.id,
        {"asked_by": batch.issued_by, "note": batch.note},
    )
    return batch


async def _lock_waiting(scope: Scope, batch_id: UUID) -> VoucherBatch:
    batch = await get_batch(scope, batch_id, lock=True)
    if batch.state != "waiting":
        raise Refused("vouchers_decided", f"These vouchers were {batch.state} already.")
    return batch


async def _post_owed(
    scope: Scope, kind: str, source_type: str, source_id: UUID, batch: VoucherBatch, minor: int
) -> None:
    """So much more is owed; negative: less."""
    party = public_id("voucher_batch", batch.id)
    from_whom = Posting("goodwill", minor, batch.currency)
    if batch.paid_by == "buyer":
        from_whom = Posting("voucher_receivable", minor, batch.currency, party)
    await ledger.post(
        scope, kind, source_type, source_id, scope.now,
        [from_whom, Posting("voucher_liability", -minor, batch.currency, party)],
    )  # fmt: skip


async def _check_multi_purpose(scope: Scope) -> None:
    """Where place and rate of the VAT are certain already, a sold voucher is itself the supply, taxed when it is sold
    (2006/112/EC, 30a (2), 30b (1)): that is another paper, and not made here."""
    query = select(Location.country).where(Location.is_free_vend.is_(False)).distinct()
    if len(list((await scope.db.execute(query)).scalars())) < 2:
        raise Refused(
            "single_purpose", "All your sites owe the same VAT, so a sold voucher would be taxed when it is sold. Give"
            " codes away, or let drivers fill their wallets themselves.",
        )  # fmt: skip


async def _read_day(scope: Scope, value: str) -> date | None:
    today = await _today(scope)
    try:
        day = date.fromisoformat(value.strip())
    except ValueError:
        return None
    return day if today <= day <= today + LONGEST else None


async def _today(scope: Scope) -> date:
    zone = (await scope.db.execute(select(TenantProfile.time_zone))).scalar_one()
    return scope.now.astimezone(ZoneInfo(zone)).date()


async def mark_paid(scope: Scope, batch_id: UUID) -> VoucherBatch:
    """The buyer's money for all of the batch that stands is on the brand's bank account."""
    batch = await get_batch(scope, batch_id, lock=True)
    if batch.paid_by != "buyer" or batch.paid_at is not None or batch.state != "issued":
        raise Refused("voucher_paid", "Nobody owes anything for these vouchers.")
    party = public_id("voucher_batch", batch.id)
    owed = (await _owed_of(scope, [batch.id], "voucher_receivable"))[batch.id]
    batch.paid_at = scope.now
    await ledger.post(scope, "vouchers_paid", "voucher_batch", batch.id, scope.now, [
        Posting("bank", owed, batch.currency), Posting("voucher_receivable", -owed, batch.currency, party),
    ])  # fmt: skip
    await audit.record(scope, "vouchers.paid", "voucher_batch", batch.id, {"amount_minor": owed})
    return batch


async def revoke(scope: Scope, batch_id: UUID, voucher_id: UUID | None = None) -> int:
    """One code, or all of the batch: nobody redeems it any more, and what was left of it is owed no longer (by whom it
    was paid for gets that back from the brand). How many were revoked now; redeemed money stays redeemed, and what a
    session holds is still good: what is left of that when it ends is revoked then (`came_back`)."""
    batch = await get_batch(scope, batch_id, lock=True)
    query = select(Voucher).where(Voucher.batch_id == batch.id, IS_OPEN)
    if voucher_id is not None:
        query = query.where(Voucher.id == voucher_id)
    rows = list((await scope.db.execute(query.order_by(Voucher.id).with_for_update())).scalars())
    left = await left_of(scope, batch, [one.id for one in rows])
    # One that is used up is left alone: what is given back of its sessions can still be spent.
    found = [one for one in rows if left[one.id] != Left(0, 0)]
    if not found:
        return 0
    for one in found:
        one.revoked_at, one.good_until = scope.now, None
    minor = await _revoke(scope, batch, found)
    await audit.record(
        scope, "vouchers.revoked", "voucher_batch", batch.id, {"codes": len(found), "amount_minor": minor}
    )
    return len(found)


async def _revoke(scope: Scope, batch: VoucherBatch, found: Sequence[Voucher], *, but_minor: int = 0) -> int:
    """What is left of these, locked, is owed no longer, `but_minor` of each: minor units."""
    minors = {
        key: max(one.minor - but_minor, 0)
        for key, one in (await left_of(scope, batch, [one.id for one in found])).items()
    }
    for one in found:
        one.revoked_minor += minors[one.id]
    minor = sum(minors.values())
    await _post_owed(scope, "vouchers_revoked", f"voucher_revocation:{batch.id}", uuid7(), batch, -minor)
    return minor


async def reveal(scope: Scope, batch_id: UUID) -> list[tuple[Voucher, str]]:
    """The codes, for print; each look is in the audit log."""
    batch = await get_batch(scope, batch_id)
    if batch.state != "issued":
        raise Refused("vouchers_wait", "There are no codes: these vouchers are not issued.")
    await audit.record(scope, "vouchers.revealed", "voucher_batch", batch.id, {"codes": batch.code_count})
    keys = scope.settings.secret_keys
    return [(one, unseal(keys, PURPOSE, one.code_sealed)) for one in await list_vouchers(scope, batch.id)]


# -- what is left of a code --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Left:
    """Minor units: what may be spent, and what sessions hold beside that."""

    minor: int
    held_minor: int


async def left_of(scope: Scope, batch: VoucherBatch, voucher_ids: Sequence[UUID]) -> dict[UUID, Left]:
    """Of codes of a batch, in one statement, so of one moment: a capture between two looks would show its money twice.
    Nobody else spends of a code whose row is locked."""
    redeemed = (
        select(func.sum(VoucherRedemption.amount_minor))
        .where(VoucherRedemption.voucher_id == Voucher.id)
        .correlate(Voucher)
    )
    own = Payment.voucher_id == Voucher.id
    holds = Payment.state.in_(("authorized", "capturing"))
    held = select(func.sum(Payment.hold_minor)).where(own, holds).correlate(Voucher)
    spent = select(func.sum(Payment.captured_minor - Payment.refunded_minor)).where(own).correlate(Voucher)
    parts = [func.coalesce(one.scalar_subquery(), 0) for one in (redeemed, held, spent)]
    query = select(Voucher.id, Voucher.revoked_minor, parts[0], parts[1], parts[2])
    query = query.where(Voucher.id.in_(voucher_ids))
    worth = batch.amount_minor * batch.uses_per_code
    return {
        key: Left(worth - revoked - int(gone) - int(waits) - int(taken), int(waits))
        for key, revoked, gone, waits, taken in (await scope.db.execute(query)).all()
    }


async def _get_good(scope: Scope, typed: str) -> tuple[Voucher, Left]:
    """The code, locked, with its batch; refused where nothing can be had for it."""
    known = digests(scope.settings.secret_keys, PURPOSE, read_code(typed))
    query = (
        select(Voucher)
        .where(Voucher.code_digest.in_(known), IS_OPEN)
        .options(selectinload(Voucher.batch))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    voucher = (await scope.db.execute(query)).scalar_one_or_none()
    if voucher is None:
        raise Refused("voucher_unknown", N_("This code is not known here. Look at it once more."))
    ends = date.min if voucher.revoked_at is not None else voucher.batch.valid_until
    if await _today(scope) > max(ends, voucher.good_until or date.min):
        raise Refused("voucher_expired", N_("This code is no longer valid."))
    left = (await left_of(scope, voucher.batch, [voucher.id]))[voucher.id]
    if left.minor <= 0:
        if left.held_minor:
            words = N_("A session is charging with this code. What it leaves can be used when it is over.")
            raise Refused("voucher_held", words)
        raise Refused("voucher_used", N_("This code was used already."))
    return voucher, left


# -- charging with it --------------------------------------------------------------------------------------------------


async def is_taken(scope: Scope) -> bool:
    """There are codes that a guest could charge with."""
    today = await _today(scope)
    batches = select(VoucherBatch.id).where(
        VoucherBatch.state == "issued", VoucherBatch.for_guests, VoucherBatch.valid_until >= today
    )
    again = select(Voucher.id).where(Voucher.good_until >= today)
    return bool((await scope.db.execute(select(batches.exists() | again.exists()))).scalar_one())


async def check_code(
    scope: Scope, typed: str, *, remote: str, currency: str | None = None, most_minor: int = 0, more_than_minor: int = 0
) -> None:  # fmt: skip
    """Refused where a guest can have nothing for the code, or (of `keep`) not enough; a wrong guess counts. The code is
    locked: until the commit nobody else spends of it."""
    async with _guess(scope, {f"voucher:guest:{limits.network_of(remote)}": TRIES_PER_ADDRESS}):
        voucher, left = await _get_good(scope, typed)
    if not voucher.batch.for_guests:
        raise Refused("voucher_account", N_("This code fills a driver's wallet. Log in and redeem it there."))
    if currency is not None:
        _enough(voucher.batch, left, currency, most_minor, more_than_minor)


async def keep(
    scope: Scope, typed: str, source_type: str, source_id: UUID, *, most_minor: int, more_than_minor: int,
    currency: str, email: str, language: str,
) -> Payment:  # fmt: skip
    """As much of the code as is left, at most one use of it and `most_minor`, waits for the end of the source, as in
    `wallets.keep`. Guesses are counted before (`check_code`)."""
    voucher, left = await _get_good(scope, typed)
    batch = voucher.batch
    amount = _enough(batch, left, currency, most_minor, more_than_minor)
    payment = await payments.keep(
        scope, VOUCHER, public_id("voucher_batch", batch.id), source_type, source_id, amount_minor=amount,
        currency=currency, method=f"Voucher {voucher.masked}", payer_email=email_norm(email), language=language,
        voucher_id=voucher.id,
    )  # fmt: skip
    await audit.record(
        scope, "voucher.held", "voucher_batch", batch.id,
        {"voucher": public_id("voucher", voucher.id), "amount_minor": amount,
         "payment": public_id("payment", payment.id)},
    )  # fmt: skip
    return payment


def _enough(batch: VoucherBatch, left: Left, currency: str, most_minor: int, more_than_minor: int) -> int:
    """Minor units that a session may hold of it."""
    if batch.currency != currency:
        raise Refused("voucher_currency", N_("This code is in another currency than the price here."))
    amount = min(left.minor, batch.amount_minor, most_minor)
    if amount <= more_than_minor:
        words = _("There is too little left on this code to start here: %(amount)s.")
        raise Refused("voucher_too_small", words % {"amount": money(amount, currency)})
    return amount


async def came_back(scope: Scope, event_id: UUID) -> None:
    """A session has ended or gave money back: what of it lies on a code again. What was given back can be spent for a
    while, though the code may have ended or been revoked since; whatever else a revoked code has again is owed no
    longer, at once. Twice is once."""
    event = await scope.db.get(events.Event, (scope.tenant_id, event_id))
    payment = await payments.get_payment(scope, event.source_id) if event is not None else None
    if event is None or payment is None or payment.voucher_id is None:
        return
    query = select(Voucher).where(Voucher.id == payment.voucher_id).options(selectinload(Voucher.batch))
    voucher = (await scope.db.execute(query.with_for_update())).scalar_one()
    is_refund = event.kind == "PaymentRefunded"
    if voucher.revoked_at is not None:
        # All that was given back since, in whatever order that is heard of.
        refunds = select(PaymentOp.request).join(Payment, Payment.id == PaymentOp.payment_id).where(
            Payment.voucher_id == voucher.id, PaymentOp.kind == "refund", PaymentOp.state == "succeeded",
            PaymentOp.created_at >= voucher.revoked_at,
        )  # fmt: skip
        back = sum(one["amount_minor"] for one in (await scope.db.execute(refunds)).scalars())
        minor = await _revoke(scope, voucher.batch, [voucher], but_minor=back)
        if minor:
            about = {"codes": 1, "amount_minor": minor, "voucher": public_id("voucher", voucher.id)}
            await audit.record(scope, "vouchers.revoked", "voucher_batch", voucher.batch_id, about)
    if is_refund:
        ends = date.min if voucher.revoked_at is not None else voucher.batch.valid_until
        until = event.at.date() + GOOD_AGAIN
        if until > max(ends, voucher.good_until or date.min):
            voucher.good_until = until


# -- redeeming ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _guess(scope: Scope, most: Mapping[str, int]) -> AsyncIterator[None]:
    """Counts while it is tried, and for the window where no such code is known: whoever has one guesses nothing."""
    attempt = uuid7()
    if not await limits.claim(scope.redis, scope.tenant_id, attempt, most, WINDOW):
        raise TooMany(
            N_("Too many codes were tried. Try again in an hour."),
            code="too_many_codes", retry_after_s=int(WINDOW.total_seconds()),
        )  # fmt: skip
    is_wrong = False
    try:
        yield
    except Refused as error:
        is_wrong = error.code == "voucher_unknown"
        raise
    finally:
        if not is_wrong:
            await limits.forgive(scope.redis, scope.tenant_id, attempt)


async def redeem(scope: Scope, typed: str, *, remote: str) -> VoucherRedemption:
    """By the driver who acts: what the code is worth, or what is left of it, is in their wallet. Of a code for several
    each driver redeems one use."""
    driver = await accounts.get_own(scope)
    if not await wallets.is_offered(scope):
        raise Refused("wallet_off", N_("There is no wallet to fill here."))
    most = {f"voucher:{driver.id}": TRIES, f"voucher:{limits.network_of(remote)}": TRIES_PER_ADDRESS}
    async with _guess(scope, most):
        voucher, left = await _get_good(scope, typed)
    batch = voucher.batch
    used = select(VoucherRedemption.id).where(
        VoucherRedemption.voucher_id == voucher.id, VoucherRedemption.driver_id == driver.id
    )
    if batch.uses_per_code > 1 and (await scope.db.execute(used)).first() is not None:
        raise Refused("voucher_used", N_("This code was used already."))
    wallet = await wallets.get_wallet(scope, driver.id, lock=True)
    if batch.currency != wallet.currency:  # the brand changed its own since: nobody could spend it
        raise Refused("voucher_expired", N_("This code is no longer valid."))
    amount = min(left.minor, batch.amount_minor)
    wallets.check_room(wallet, amount)
    voucher.used_count += 1
    redemption = VoucherRedemption(
        id=uuid7(), voucher_id=voucher.id, driver_id=driver.id, amount_minor=amount,
        currency=batch.currency, created_at=scope.now,
    )  # fmt: skip
    scope.db.add(redemption)
    await scope.db.flush()
    party = public_id("voucher_batch", batch.id)
    await wallets.post_in(
        scope, "voucher_redeemed", "voucher_redemption", redemption.id, driver.id,
        Posting("voucher_liability", amount, batch.currency, party),
    )  # fmt: skip
    await audit.record(
        scope, "voucher.redeemed", "voucher_batch", batch.id,
        {"voucher": public_id("voucher", voucher.id), "amount_minor": amount,
         "driver": public_id("driver", driver.id)},
    )  # fmt: skip
    return redemption


# -- what there is -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BatchSeen:
    """`used` counts redemptions, `charged_minor` is what sessions took by the codes themselves; `owed_minor` is what
    could still be spent or is held, in the ledger; `is_over`: its last day is past. `unpaid_minor`: what its buyer
    owes."""

    batch: VoucherBatch
    used: int
    charged_minor: int
    owed_minor: int
    unpaid_minor: int
    today: date

    @property
    def is_over(self) -> bool:
        return self.batch.valid_until < self.today


async def get_batch(scope: Scope, batch_id: UUID, *, lock: bool = False) -> VoucherBatch:
    query = select(VoucherBatch).where(VoucherBatch.id == batch_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    batch = (await scope.db.execute(query)).scalar_one_or_none()
    if batch is None:
        raise NotFound("voucher_batch")
    return batch


async def list_vouchers(scope: Scope, batch_id: UUID) -> list[Voucher]:
    query = select(Voucher).where(Voucher.batch_id == batch_id).order_by(Voucher.id)
    return list((await scope.db.execute(query)).scalars())


async def list_batches(scope: Scope, *, after: UUID | None = None, limit: int = 50) -> list[BatchSeen]:
    """Newest first."""
    query = select(VoucherBatch).order_by(VoucherBatch.id.desc()).limit(limit)
    if after is not None:
        query = query.where(VoucherBatch.id < after)
    return await look(scope, list((await scope.db.execute(query)).scalars()))


async def look(scope: Scope, batches: Sequence[VoucherBatch]) -> list[BatchSeen]:
    ids = [one.id for one in batches]
    counts = (
        select(Voucher.batch_id, func.sum(Voucher.used_count))
        .where(Voucher.batch_id.in_(ids))
        .group_by(Voucher.batch_id)
    )
    used = {key: int(count) for key, count in (await scope.db.execute(counts)).all()}
    taken = (
        select(Voucher.batch_id, func.sum(Payment.captured_minor - Payment.refunded_minor))
        .join(Payment, Payment.voucher_id == Voucher.id)
        .where(Voucher.batch_id.in_(ids))
        .group_by(Voucher.batch_id)
    )
    charged = {key: int(minor) for key, minor in (await scope.db.execute(taken)).all()}
    owed, unpaid = (
        await _owed_of(scope, ids, "voucher_liability"),
        await _owed_of(scope, ids, "voucher_receivable"),
    )
    today = await _today(scope)
    return [
        BatchSeen(one, used.get(one.id, 0), charged.get(one.id, 0), -owed[one.id], unpaid[one.id], today)
        for one in batches
    ]


async def _owed_of(scope: Scope, batch_ids: Sequence[UUID], code: str) -> dict[UUID, int]:
    parties = {public_id("voucher_batch", one): one for one in batch_ids}
    sums = await ledger.sums(scope, code, list(parties))
    return {key: sums.get(party, 0) for party, key in parties.items()}
