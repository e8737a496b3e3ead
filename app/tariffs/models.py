"""Price lists: an OCPI Tariff object per version, never changed once written, and where it applies."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import Base, TenantOwned, references, same_tenant


class Tariff(TenantOwned, Base):
    __tablename__ = "tariff"
    __table_args__ = (UniqueConstraint("tenant_id", "ocpi_id"), {"schema": "livery"})

    ocpi_id: Mapped[str]
    name: Mapped[str] = mapped_column(server_default="")
    version_no: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    retired_at: Mapped[datetime | None]
    versions: Mapped[list["TariffVersion"]] = same_tenant(
        "TariffVersion.tariff_id", "Tariff", back_populates="tariff", passive_deletes="all",
        order_by="TariffVersion.version_no",
    )  # fmt: skip


class TariffVersion(TenantOwned, Base):
    """What the tariff said from `created_at` on. A session's price snapshot is a copy of one of these."""

    __tablename__ = "tariff_version"
    __table_args__ = (
        references("tariff_id", "tariff"),
        UniqueConstraint("tenant_id", "tariff_id", "version_no"),
        {"schema": "livery"},
    )

    tariff_id: Mapped[UUID]
    version_no: Mapped[int]
    currency: Mapped[str]
    ocpi: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    created_by: Mapped[str] = mapped_column(server_default="")
    tariff: Mapped[Tariff] = same_tenant("TariffVersion.tariff_id", "Tariff", back_populates="versions")


class TariffAssignment(TenantOwned, Base):
    """Driver group before EVSE before location before the tenant's default; the newest valid wins (contract.md)."""

    __tablename__ = "tariff_assignment"
    __table_args__ = (
        references("tariff_id", "tariff", ondelete="CASCADE"),
        references("driver_group_id", "driver_group", ondelete="CASCADE"),
        references("evse_id", "evse", ondelete="CASCADE"),
        references("location_id", "location", ondelete="CASCADE"),
        CheckConstraint(
            "(target = 'default' and num_nonnulls(driver_group_id, evse_id, location_id) = 0)"
            " or (target = 'driver_group' and driver_group_id is not null and num_nonnulls(evse_id, location_id) = 0)"
            " or (target = 'evse' and evse_id is not null and num_nonnulls(driver_group_id, location_id) = 0)"
            " or (target = 'location' and location_id is not null and num_nonnulls(driver_group_id, evse_id) = 0)",
            name="target",
        ),
        Index("ix_tariff_assignment_target", "tenant_id", "target"),
        {"schema": "livery"},
    )

    tariff_id: Mapped[UUID]
    target: Mapped[str]
    driver_group_id: Mapped[UUID | None]
    evse_id: Mapped[UUID | None]
    location_id: Mapped[UUID | None]
    assigned_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    tariff: Mapped[Tariff] = same_tenant("TariffAssignment.tariff_id", "Tariff")
