"""What the worker does for identity."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete

from app.identity import service
from app.kernel.idempotency import IdempotencyKey
from tenants.database import Database
from tenants.scope import Actor

IDEMPOTENCY_LIFETIME = timedelta(days=1)


async def forget(database: Database, tenant_id: UUID) -> None:
    """Logins and links that can no longer be used, and answers whose day is over."""
    async with database.scope(tenant_id, Actor.job("identity.forget")) as scope:
        await service.forget_old_logins(scope)
        old = IdempotencyKey.created_at < scope.now - IDEMPOTENCY_LIFETIME
        await scope.db.execute(delete(IdempotencyKey).where(old))


JOBS = {"identity.forget": forget}
LISTENERS: dict[str, list[str]] = {}
RECURRING = [("23 * * * *", "identity.forget")]
