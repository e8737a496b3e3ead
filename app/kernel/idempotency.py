"""`Idempotency-Key` on unsafe POSTs: the first answer is kept for a day and told again."""

from datetime import datetime

from sqlalchemy import UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import Base, TenantOwned


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
