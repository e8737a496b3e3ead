"""News: a row written in the verb's own transaction (outbox). `emit` knows no listener; the worker fans it out."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.kernel import queue
from app.kernel.clock import uuid7
from tenants.models import Base, TenantOwned
from tenants.scope import Scope


class Event(TenantOwned, Base):
    """`xid` is the writing transaction: readers take only rows older than every running one, so order is stable."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_order", "tenant_id", "xid", "id"), {"schema": "livery"})

    kind: Mapped[str]
    source_type: Mapped[str]
    source_id: Mapped[UUID]
    data: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    is_public: Mapped[bool] = mapped_column(server_default=text("true"))
    at: Mapped[datetime]
    xid: Mapped[int] = mapped_column(server_default=text("(pg_current_xact_id()::text)::bigint"))


async def emit(
    scope: Scope, kind: str, source_type: str, source_id: UUID, data: dict[str, Any] | None = None, *,
    public: bool = True,
) -> UUID:  # fmt: skip
    """`kind` is past tense (`SessionEnded`). `data` holds ids and figures, never a secret or a login link."""
    event = Event(
        id=uuid7(), kind=kind, source_type=source_type, source_id=source_id, data=data or {}, is_public=public,
        at=scope.now,
    )  # fmt: skip
    scope.db.add(event)
    await scope.db.flush()
    await queue.enqueue(scope, "events.fan_out", event_ids=[str(event.id)])
    return event.id
