"""What the worker does for money. Each may run twice."""

from datetime import timedelta
from uuid import UUID

from app.billing import (
    cards,
    host_shares,
    onboarding,
    payments,
    platform_book,
    reconciliation,
    vouchers,
    wallets,
)
from tenants.database import Database

LOOKED = timedelta(minutes=1)


async def run_op(database: Database, tenant_id: UUID, op_id: str) -> None:
    await payments.run_op(database, tenant_id, UUID(op_id))


async def run_host_op(database: Database, tenant_id: UUID, op_id: str) -> None:
    await host_shares.run_op(database, tenant_id, UUID(op_id))


async def settle_host_share(database: Database, tenant_id: UUID, payment_id: str) -> None:
    await host_shares.settle(database, tenant_id, UUID(payment_id))


async def observe(database: Database, tenant_id: UUID, payment_id: str) -> None:
    await payments.observe(database, tenant_id, UUID(payment_id))


async def open_account(database: Database, tenant_id: UUID, event_id: str) -> None:
    await payments.open_account(database, tenant_id)


async def reconcile(database: Database, tenant_id: UUID) -> None:
    await reconciliation.reconcile(database, tenant_id)


async def reconcile_soon(database: Database, tenant_id: UUID) -> None:
    """After news of a payout: they come in threes, and one look is enough."""
    async with database.scope(tenant_id, reconciliation.ACTOR) as scope:
        (last,) = await reconciliation.list_runs(scope, 1) or [None]
        is_fresh = last is not None and last.created_at > scope.now - LOOKED
    if not is_fresh:
        await reconciliation.reconcile(database, tenant_id)


async def set_up_card(database: Database, tenant_id: UUID, card_id: str) -> None:
    await cards.run_setup(database, tenant_id, UUID(card_id))


async def observe_card(database: Database, tenant_id: UUID, card_id: str) -> None:
    await cards.observe(database, tenant_id, UUID(card_id))


async def detach_card(database: Database, tenant_id: UUID, card_id: str) -> None:
    await cards.detach(database, tenant_id, UUID(card_id))


async def drop_payer(database: Database, tenant_id: UUID, payer_id: str) -> None:
    await cards.drop_payer(database, tenant_id, UUID(payer_id))


async def top_up_authorized(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        await wallets.top_up_authorized(scope, UUID(event_id))


async def voucher_came_back(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        await vouchers.came_back(scope, UUID(event_id))


JOBS = {
    "billing.set_up_card": set_up_card,
    "billing.observe_card": observe_card,
    "billing.detach_card": detach_card,
    "billing.drop_payer": drop_payer,
    "billing.tidy_cards": cards.tidy,
    "billing.open_account": open_account,
    "billing.run_op": run_op,
    "billing.run_host_op": run_host_op,
    "billing.settle_host_share": settle_host_share,
    "billing.observe": observe,
    "billing.tidy": payments.tidy,
    "billing.sweep": payments.sweep,
    "billing.observe_account": onboarding.observe,
    "billing.reconcile": reconcile,
    "billing.reconcile_soon": reconcile_soon,
    "billing.find_disputes": payments.find_disputes,
    "billing.keep_platform_book": platform_book.keep,
    "billing.top_up_authorized": top_up_authorized,
    "billing.voucher_came_back": voucher_came_back,
}
LISTENERS = {"TenantCreated": ["billing.open_account"], "PaymentAuthorized": ["billing.top_up_authorized"]}
RECURRING = [
    ("* * * * *", "billing.tidy"),
    ("* * * * *", "billing.tidy_cards"),
    ("50 2 * * *", "billing.sweep"),
    ("20 3 * * *", "billing.reconcile"),
    ("17 * * * *", "billing.find_disputes"),
    ("4-59/10 * * * *", "billing.keep_platform_book"),
]
