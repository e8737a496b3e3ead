"""The operator's own account at the provider: opened, proven on the provider's pages, and when it pays out.

Cards are taken while the provider says that the account may (`PaymentAccount.is_ready`): it may ask for papers at any
time, so it is looked at each hour and whenever somebody comes back from its pages. Each verb calls the provider with no
transaction open. Errors: `payments_off`, `no_account`.
"""

from dataclasses import asdict
from uuid import UUID

from app.billing import payments
from app.billing.card_currencies import CARD_CURRENCIES
from app.billing.provider import Schedule
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, Refused
from tenants.database import Database
from tenants.scope import Actor

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
INTERVALS = ("daily", "weekly", "monthly", "manual")


async def begin(database: Database, tenant_id: UUID, actor: Actor, *, portal_url: str) -> str:
    """The address at the provider where the operator goes on; the account is made where there is none."""
    ref = await _open(database, tenant_id, actor)
    return await payments.provider_of(database.settings).create_onboarding(
        ref, return_url=f"{portal_url}/payment-account/returned",
        refresh_url=f"{portal_url}/payment-account?expired=1", key=f"onboarding:{uuid7()}",
    )  # fmt: skip


async def begin_embedded(database: Database, tenant_id: UUID, actor: Actor) -> str:
    """The same within our own page: the secret that the provider's script asks for, good for minutes."""
    ref = await _open(database, tenant_id, actor)
    return await payments.provider_of(database.settings).create_account_session(
        ref, key=f"account_session:{uuid7()}"
    )


async def _open(database: Database, tenant_id: UUID, actor: Actor) -> str:
    if not database.settings.takes_cards:
        raise Refused("payments_off", "This installation takes no cards.")
    await payments.make_account(database, tenant_id)
    async with database.scope(tenant_id, actor) as scope:
        account = await payments.find_own_account(scope)
        if account is None:
            known = ", ".join(sorted(CARD_CURRENCIES))
            raise Refused("no_account", f"The provider takes cards in {known} only.")
        await audit.record(scope, "payment_account.onboarding", "payment_account", account.id, {})
    return account.account_ref


async def observe(database: Database, tenant_id: UUID) -> None:
    """Reads the account again, and believes that."""
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        account = await payments.find_own_account(scope)
    provider = payments.provider_of(database.settings)
    if account is None or account.provider != provider.name:
        return
    seen = await provider.get_account(account.account_ref)
    schedule = await provider.get_schedule(account.account_ref)
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        account = await payments.get_own_account(scope)
        was_ready, account.is_ready, account.is_live = account.is_ready, seen.is_ready, seen.is_live
        account.due, account.schedule, account.observed_at = list(seen.due), asdict(schedule), scope.now
        account.losses_borne_by = seen.losses_borne_by
        if was_ready != seen.is_ready:
            news = {"is_ready": seen.is_ready, "due": list(seen.due)}
            await audit.record(scope, "payment_account.changed", "payment_account", account.id, news)
            await events.emit(scope, "PaymentAccountChanged", "payment_account", account.id, news)


async def set_schedule(
    database: Database, tenant_id: UUID, actor: Actor, interval: str, days: tuple[str, ...]
) -> None:
    """When the provider pays out from now on. `days`: weekdays' names for weekly, 1 to 31 for monthly."""
    schedule = _read_schedule(interval, days)
    async with database.scope(tenant_id, actor) as scope:
        account = await payments.get_own_account(scope)
    seen = await payments.provider_of(database.settings).set_schedule(
        account.account_ref, schedule, key=f"schedule:{uuid7()}"
    )
    async with database.scope(tenant_id, actor) as scope:
        account = await payments.get_own_account(scope)
        account.schedule = asdict(seen)
        await audit.record(scope, "payment_account.schedule", "payment_account", account.id, asdict(schedule))


def _read_schedule(interval: str, days: tuple[str, ...]) -> Schedule:
    if interval not in INTERVALS:
        raise Invalid.field("interval", "unknown", f"An interval is one of {', '.join(INTERVALS)}.")
    if interval == "weekly" and (not days or not set(days) <= set(WEEKDAYS)):
        raise Invalid.field("weekday", "required", "Choose a weekday from Monday to Friday.")
    if interval == "monthly" and (
        not days or not all(day.isdecimal() and 1 <= int(day) <= 31 for day in days)
    ):
        raise Invalid.field("month_day", "range", "A day of the month is 1 to 31.")
    return Schedule(interval, days if interval in ("weekly", "monthly") else ())
