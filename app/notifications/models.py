"""Mails we send; kept, so that they can be read where no SMTP server is set (development)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import Base, TenantOwned


class Mail(TenantOwned, Base):
    """`key` makes a mail once-only. Login links in `body` are redacted outside development once sent."""

    __tablename__ = "mail"
    __table_args__ = (
        UniqueConstraint("tenant_id", "key"),
        CheckConstraint("status in ('queued','kept','sent','failed')", name="status"),
        Index("ix_mail_list", "tenant_id", "created_at", "id"),
        {"schema": "livery"},
    )

    key: Mapped[str]
    kind: Mapped[str]
    to_address: Mapped[str]
    subject: Mapped[str]
    body: Mapped[str]
    language: Mapped[str] = mapped_column(server_default="en")
    status: Mapped[str] = mapped_column(server_default="queued")
    error: Mapped[str | None]
    attempts_count: Mapped[int] = mapped_column(server_default="0")
    source_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    sent_at: Mapped[datetime | None]
