"""What the platform keeps of a brand's card payments: dated, never changed for the past (money.md 1.2).

A fee is a share of what is captured and a fixed part, and never more than the capture. What holds at the moment of the
capture is taken with it. Errors: `no_account`, Invalid of `percent`, `fixed` and `valid_from`.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from app.billing.card_currencies import MOST_MINOR
from app.billing.models import Payment, PaymentAccount, PlatformFee
from app.billing.payments import TAKEN, get_own_account
from app.brands.models import TenantProfile
from app.kernel import audit
from app.kernel.clock import uuid7
from app.kernel.errors import FieldFault, Invalid
from app.kernel.money import Money
from tenants.database import Database
from tenants.scope import Actor, Scope

MOST_PERCENT = Decimal(50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A month's captures under two fees; minor units. `was_minor` is what was really kept."""

    month: date
    count: int
    captured_minor: int
    was_minor: int
    would_minor: int


async def list_fees(scope: Scope, account: PaymentAccount) -> list[PlatformFee]:
    """Newest first, those to come among them."""
    query = select(PlatformFee).where(PlatformFee.account_id == account.id)
    return list((await scope.db.execute(query.order_by(PlatformFee.valid_from.desc()))).scalars())


def read_fee(account: PaymentAccount, percent: str, fixed: str) -> tuple[Decimal, int]:
    """(percent, minor units) of what a form says: `2.5`, `0.10`."""
    faults, share, kept = list[FieldFault](), Decimal(0), 0
    try:
        share = Decimal(percent.strip().replace(",", ".") or "0")
        if not share.is_finite() or not 0 <= share <= MOST_PERCENT or share != round(share, 3):
            raise InvalidOperation
    except InvalidOperation:
        faults.append(FieldFault("percent", "range", f"A share is 0 to {MOST_PERCENT} percent, such as 2.5."))
    try:
        kept = Money.parse(fixed.strip() or "0", account.currency).amount_minor
        if not 0 <= kept <= MOST_MINOR:
            raise ValueError
    except ValueError:
        faults.append(FieldFault("fixed", "amount", "The fixed part is an amount such as 0.10."))
    if faults:
        raise Invalid("invalid", "This is no fee.", faults=faults)
    return share, kept


async def plan_fee(
    database: Database, actor: Actor, tenant_id: UUID, *, percent: str, fixed: str, valid_from: str, reason: str,
    is_returned: bool = False,
) -> PlatformFee:  # fmt: skip
    """From the beginning of that day by the brand's clock: today or later, for what was taken stays as it was.
    It stands in both audit logs. A day has one fee: the newer word replaces one that is still to come."""
    async with database.scope(tenant_id, actor) as scope:
        account = await get_own_account(scope)
        share, kept = read_fee(account, percent, fixed)
        starts_at = await _read_day(scope, valid_from)
    async with database.platform_scope(
        actor, reason, tenant_id=tenant_id
    ) as scope:  # no deed without its line
        told = {
            "percent": str(share),
            "fixed_minor": kept,
            "valid_from": starts_at.isoformat(),
            "is_returned": is_returned,
        }
        await scope.write_audit("fee.planned", told)
    async with database.scope(tenant_id, actor) as scope:
        account = await get_own_account(scope)
        query = select(PlatformFee).where(
            PlatformFee.account_id == account.id, PlatformFee.valid_from == starts_at
        )
        fee = (await scope.db.execute(query.with_for_update())).scalar_one_or_none()
        if fee is None:
            fee = PlatformFee(id=uuid7(), account_id=account.id, valid_from=starts_at, set_at=scope.now)
            scope.db.add(fee)
        fee.percent, fee.fixed_minor, fee.is_returned = share, kept, is_returned
        fee.set_by, fee.set_at = actor.name, scope.now
        await audit.record(
            scope, "platform_fee.planned", "payment_account", account.id, told | {"reason": reason}
        )
    return fee


async def _read_day(scope: Scope, value: str) -> datetime:
    zone = ZoneInfo((await scope.db.execute(select(TenantProfile.time_zone))).scalar_one())
    today = scope.now.astimezone(zone).date()
    try:
        day = date.fromisoformat(value)
    except ValueError:
        day = None
    if day is None or day < today or day > today + timedelta(days=3660):
        raise Invalid.field("valid_from", "range", "A fee begins today or later: the past stays as it was.")
    return datetime.combine(day, time(), zone)


async def preview(scope: Scope, account: PaymentAccount, percent: Decimal, fixed_minor: int) -> Preview:
    """Last month's captures, by the brand's clock, under another fee; each rounded and bounded as a capture's is."""
    zone = ZoneInfo((await scope.db.execute(select(TenantProfile.time_zone))).scalar_one())
    ends = scope.now.astimezone(zone).date().replace(day=1)
    begins = (ends - timedelta(days=1)).replace(day=1)
    # half away from zero, as `half_up` does with what is never negative
    would = func.least(
        func.round(Payment.captured_minor * percent / 100) + fixed_minor, Payment.captured_minor
    )
    own = Payment.fee_minor - func.least(Payment.host_minor, Payment.fee_minor)  # without a site host's share
    query = select(
        func.count(), func.coalesce(func.sum(Payment.captured_minor), 0),
        func.coalesce(func.sum(own), 0), func.coalesce(func.sum(would), 0),
    ).where(
        Payment.account_ref == account.account_ref, Payment.state.in_(TAKEN),
        Payment.created_at >= datetime.combine(begins, time(), zone),
        Payment.created_at < datetime.combine(ends, time(), zone),
    )  # fmt: skip
    count, captured, was, then = (await scope.db.execute(query)).one()
    return Preview(
        month=begins, count=count, captured_minor=int(captured), was_minor=int(was), would_minor=int(then)
    )
