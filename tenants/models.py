"""The declarative base, the shape of a tenant-owned table, and the platform's own tables (schema `platform`)."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app.kernel.clock import uuid7

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
A_VIEW = {"is_view": True}  # `info` of what is read as a table and made by a migration's own SQL


class Base(DeclarativeBase):
    """Text is text, times carry a zone, integers are 64 bit, dicts and lists are jsonb."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {
        str: Text(),
        int: BigInteger(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(),
        list[Any]: JSONB(),
        bytes: LargeBinary(),
    }


class TenantOwned:
    """Every table of schema `livery` (`isolation.md`). Python never writes tenant_id: PostgreSQL fills it in."""

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("platform.tenant.id"), primary_key=True, server_default=text("livery.tid()"), sort_order=-2
    )
    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid7, server_default=text("uuidv7()"), insert_sentinel=True, sort_order=-1
    )


def references(column: str, target: str, *, ondelete: str | None = None) -> ForeignKeyConstraint:
    """FK (tenant_id, column) -> livery.target (tenant_id, id): it carries the tenant, since FK checks bypass RLS."""
    return ForeignKeyConstraint(
        ["tenant_id", column],
        [f"livery.{target}.tenant_id", f"livery.{target}.id"],
        ondelete=f"SET NULL ({column})" if ondelete == "SET NULL" else ondelete,
    )


def same_tenant(fk: str, target: str, **options: Any) -> Any:
    """A relationship in which only the id is `foreign()`: `same_tenant("EVSE.station_id", "ChargingStation")`.

    A plain composite relationship wants to blank tenant_id too (`recipes.md` 1).
    """
    child = fk.split(".")[0]
    join = f"and_({child}.tenant_id == {target}.tenant_id, foreign({fk}) == {target}.id)"
    return relationship(primaryjoin=join, lazy="raise", **options)


class Tenant(Base):
    """A CPO on the platform; the platform itself is the row of kind `platform`."""

    __tablename__ = "tenant"
    __table_args__ = {"schema": "platform"}

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default="cpo")
    status: Mapped[str] = mapped_column(server_default="active")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    suspended_at: Mapped[datetime | None]


class TenantRoute(Base):
    """An outside name that leads to a tenant. `kind` + `key` are globally unique; all else belongs to the tenant.

    kind `host`: key is the host, `surface` driver or portal, `object_id` the domain where it is a brand's own. kind
    `domain`: key is `{tenant}/{host}`, `name` the host, `attributes` how the claim stands. kind `station`: key is
    `{slug}/{identity}`, `name` the identity, `digests` the station's keys. kind `api_key`: key is the hex of the key's
    digest. kind `station_ca`: key is a CA certificate's fingerprint, `name` the certificate.
    """

    __tablename__ = "tenant_route"
    __table_args__ = (
        Index("ix_tenant_route_name", "kind", "name"),
        Index("ix_tenant_route_tenant", "tenant_id", "kind"),
        {"schema": "platform"},
    )

    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("platform.tenant.id"))
    surface: Mapped[str | None]
    name: Mapped[str | None]
    object_id: Mapped[UUID | None]
    digests: Mapped[list[Any]] = mapped_column(server_default="[]")
    attributes: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class UnclaimedStation(Base):
    """Somebody knocked and was not known: what staff may assign (ocpp.md, section 1). Capped."""

    __tablename__ = "unclaimed_station"
    __table_args__ = (UniqueConstraint("slug", "identity"), {"schema": "platform"})

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    slug: Mapped[str]
    identity: Mapped[str]
    remote: Mapped[str]
    reason: Mapped[str]
    attempts_count: Mapped[int] = mapped_column(server_default="1")
    first_seen_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    last_seen_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class PlatformAdmin(Base):
    __tablename__ = "platform_admin"
    __table_args__ = {"schema": "platform"}

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    email: Mapped[str]
    email_norm: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(server_default="active")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class PlatformLoginLink(Base):
    __tablename__ = "login_link"
    __table_args__ = {"schema": "platform"}

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    admin_id: Mapped[UUID] = mapped_column(ForeignKey("platform.platform_admin.id"))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class PlatformSession(Base):
    """A platform admin's login; bound to the console's host."""

    __tablename__ = "login_session"
    __table_args__ = {"schema": "platform"}

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    admin_id: Mapped[UUID] = mapped_column(ForeignKey("platform.platform_admin.id"))
    host: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    seen_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    expires_at: Mapped[datetime]


class PlatformAuditEntry(Base):
    """What platform staff did and why; hash-chained and append-only."""

    __tablename__ = "audit_entry"
    __table_args__ = {"schema": "platform"}

    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    reason: Mapped[str]
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("platform.tenant.id"))
    data: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    prev_hash: Mapped[bytes]
    hash: Mapped[bytes]


class TenantStats(Base):
    """Figures a tenant's own job writes for the console's lists, so that no console page looks across tenants."""

    __tablename__ = "tenant_stats"
    __table_args__ = {"schema": "platform"}

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("platform.tenant.id"), primary_key=True)
    figures: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class WebhookEvent(Base):
    """A provider's news as it came, once: arrives before its tenant is known (money.md 4.2)."""

    __tablename__ = "webhook_event"
    __table_args__ = ({"schema": "platform"},)

    account_ref: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    is_live: Mapped[bool]
    body: Mapped[dict[str, Any]]
    received_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
