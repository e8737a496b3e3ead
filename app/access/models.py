"""Who may charge: drivers, groups of drivers with their rules, and the tokens they present."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import Base, TenantOwned, references, same_tenant

# OCPP 2.0.1 IdTokenEnumType with its additions of 2.1, and what a token may be.
TYPES = ("Central", "eMAID", "ISO14443", "ISO15693", "KeyCode", "Local", "MacAddress",
         "NoAuthorization", "DirectPayment", "VIN", "EVCCID")  # fmt: skip
STATUSES = ("accepted", "blocked", "expired", "invalid")


class DriverGroup(TenantOwned, Base):
    """Drivers with rules of their own. `collection` is how a session by token is paid for.

    per_session: an invoice per CDR; monthly: CDRs wait for the month's invoice; free: the CDR is the end of it.
    `invoice_to` is whom that invoice is for, as far as it is known: {name, address, postal_code, city, country, vat_id,
    email, reference}; without a name it is the group's.
    """

    __tablename__ = "driver_group"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        CheckConstraint("collection in ('per_session','monthly','free')", name="collection"),
        {"schema": "livery"},
    )

    name: Mapped[str]
    collection: Mapped[str] = mapped_column(server_default="per_session")
    invoice_to: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class DriverGroupLocation(TenantOwned, Base):
    """Where a group may charge; a group without any row may charge everywhere in its tenant."""

    __tablename__ = "driver_group_location"
    __table_args__ = (
        references("driver_group_id", "driver_group", ondelete="CASCADE"),
        references("location_id", "location", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "driver_group_id", "location_id"),
        {"schema": "livery"},
    )

    driver_group_id: Mapped[UUID]
    location_id: Mapped[UUID]


class Driver(TenantOwned, Base):
    """`language` is the one they last read our pages in; None while they never logged in. `deleted_at`: they closed
    their account. The row stays for its sessions and names nobody any more."""

    __tablename__ = "driver"
    __table_args__ = (
        references("driver_group_id", "driver_group"),
        Index(
            "uq_driver_email",
            "tenant_id",
            "email_norm",
            unique=True,
            postgresql_where=text("email_norm is not null"),
        ),
        {"schema": "livery"},
    )

    name: Mapped[str]
    email: Mapped[str | None]
    email_norm: Mapped[str | None]
    driver_group_id: Mapped[UUID | None]
    language: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    deleted_at: Mapped[datetime | None]


class IdToken(TenantOwned, Base):
    """Proof that you may charge. The value is sealed; `value_digest` finds it, `masked` is what most people see.

    Values compare without case; unique in the tenant by value and type. A remote start by staff carries a one-off
    token (`is_single_use`), which no list shows.
    """

    __tablename__ = "id_token"
    __table_args__ = (
        references("driver_id", "driver", ondelete="SET NULL"),
        references("driver_group_id", "driver_group"),
        UniqueConstraint("tenant_id", "value_digest", "type"),
        CheckConstraint("status in ('accepted','blocked','expired','invalid')", name="status"),
        {"schema": "livery"},
    )

    type: Mapped[str]
    value_digest: Mapped[bytes]
    value_sealed: Mapped[str]
    masked: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="accepted")
    label: Mapped[str] = mapped_column(server_default="")
    parent_value: Mapped[str | None]
    driver_id: Mapped[UUID | None]
    driver_group_id: Mapped[UUID | None]
    expires_at: Mapped[datetime | None]
    is_single_use: Mapped[bool] = mapped_column(server_default=text("false"))
    used_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    driver: Mapped[Driver | None] = same_tenant("IdToken.driver_id", "Driver")
    driver_group: Mapped[DriverGroup | None] = same_tenant("IdToken.driver_group_id", "DriverGroup")


class LocalList(TenantOwned, Base):
    """The local authorisation list of one station (OCPP 1.6 5.15, 2.0.1 D): what it shall hold, and what it holds.

    `covers`: none (we send nothing), all tokens, or those of chosen groups. `version` is the one the station holds as
    it last confirmed, None while nobody knows. `held_sealed` is the JSON of what it then holds; None: the next list is
    a full one. `steps_sealed` are the messages of a list on its way that are still to be accepted. `due_at`: something
    has changed, and a job sends it then.
    """

    __tablename__ = "local_list"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id"),
        CheckConstraint("covers in ('none','all','groups')", name="covers"),
        CheckConstraint(
            "state in ('unset','waiting','sending','in_sync','failed','not_supported','unsure')", name="state"
        ),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    covers: Mapped[str] = mapped_column(server_default="none")
    state: Mapped[str] = mapped_column(server_default="unset")
    version: Mapped[int | None]
    entry_count: Mapped[int] = mapped_column(server_default="0")
    left_out_count: Mapped[int] = mapped_column(server_default="0")
    held_sealed: Mapped[str | None]
    steps_sealed: Mapped[str | None]
    said: Mapped[str] = mapped_column(server_default="")
    due_at: Mapped[datetime | None]
    command_id: Mapped[UUID | None]
    asked_at: Mapped[datetime | None]
    synced_at: Mapped[datetime | None]


class LocalListGroup(TenantOwned, Base):
    """A driver group whose tokens a station's list holds."""

    __tablename__ = "local_list_group"
    __table_args__ = (
        references("local_list_id", "local_list", ondelete="CASCADE"),
        references("driver_group_id", "driver_group", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "local_list_id", "driver_group_id"),
        {"schema": "livery"},
    )

    local_list_id: Mapped[UUID]
    driver_group_id: Mapped[UUID]
