"""The same request twice. `Idempotency-Key` on unsafe POSTs of the REST: the first answer is kept for a day and told
again. A page's form: what it tells once is derived anew for a minute (`repeatable`).
"""

from datetime import datetime, timedelta

from sqlalchemy import UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.kernel.secrets import digest
from tenants.models import Base, TenantOwned
from tenants.scope import Scope

REPEATS_FOR = timedelta(seconds=60)


class IdempotencyKey(TenantOwned, Base):
    """`fingerprint` is a digest of method, path and body: the same key with another request is refused (422)."""

    __tablename__ = "idempotency_key"
    __table_args__ = (UniqueConstraint("tenant_id", "actor", "key"), {"schema": "livery"})

    actor: Mapped[str]
    key: Mapped[str]
    fingerprint: Mapped[bytes]
    status: Mapped[int | None]
    body_sealed: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


async def repeatable(scope: Scope, purpose: str, form_id: str, *what: str) -> bytes | None:
    """32 secret bytes that the same form, sent again by the same person with the same content, gets again: a second
    press cancels the first answer, and with it what is told once. So nothing of it need be kept. None without a
    `form_id` (`form_id` in templates). Of two that come at once the second waits for the first to commit."""
    if not form_id:
        return None
    mark = ":".join((scope.actor.kind, str(scope.actor.id), form_id))
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext(:form))"),
        {"tenant": str(scope.tenant_id), "form": f"form:{mark}"},
    )
    told = "\0".join((str(scope.tenant_id), mark, *what))
    return digest(scope.settings.secret_keys, f"repeatable:{purpose}", told)
