"""Staff of a tenant, the logins of staff and drivers, and the API keys of its machines."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import Base, TenantOwned, references, same_tenant


class StaffMember(TenantOwned, Base):
    __tablename__ = "staff_member"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email_norm"),
        CheckConstraint("role in ('owner','manager','operator','accountant','viewer')", name="role"),
        CheckConstraint("status in ('active','disabled')", name="status"),
        {"schema": "livery"},
    )

    email: Mapped[str]
    email_norm: Mapped[str]
    name: Mapped[str] = mapped_column(server_default="")
    role: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="active")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    last_seen_at: Mapped[datetime | None]


# A driver's login is their mailbox's: whose that is, `access` knows (decision 0014).
_WHOSE = "(staff_member_id is null) <> (email is null)"


class LoginLink(TenantOwned, Base):
    """A link sent by mail: single use, short-lived; only its digest is stored. For staff, or for a driver's `email`."""

    __tablename__ = "login_link"
    __table_args__ = (
        references("staff_member_id", "staff_member", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "digest"),
        CheckConstraint(_WHOSE, name="whose"),
        {"schema": "livery"},
    )

    staff_member_id: Mapped[UUID | None]
    email: Mapped[str | None]
    digest: Mapped[bytes]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    staff_member: Mapped[StaffMember | None] = same_tenant("LoginLink.staff_member_id", "StaffMember")


class LoginSession(TenantOwned, Base):
    """A login, bound to the host it was made on. The cookie holds the secret, the row its digest."""

    __tablename__ = "login_session"
    __table_args__ = (
        references("staff_member_id", "staff_member", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "digest"),
        CheckConstraint(_WHOSE, name="whose"),
        {"schema": "livery"},
    )

    staff_member_id: Mapped[UUID | None]
    email: Mapped[str | None]
    digest: Mapped[bytes]
    host: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    seen_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    expires_at: Mapped[datetime]
    staff_member: Mapped[StaffMember | None] = same_tenant("LoginSession.staff_member_id", "StaffMember")


class ApiKey(TenantOwned, Base):
    """A machine's credential; told once, stored as a digest (also in `platform.tenant_route`)."""

    __tablename__ = "api_key"
    __table_args__ = (UniqueConstraint("tenant_id", "digest"), {"schema": "livery"})

    name: Mapped[str]
    digest: Mapped[bytes]
    hint: Mapped[str]
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    created_by: Mapped[str] = mapped_column(server_default="")
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
