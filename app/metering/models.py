"""Whose key a meter signs with, and what the signed readings of a charge came to."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Numeric, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from tenants.models import Base, TenantOwned, references


class MeterKey(TenantOwned, Base):
    """A public key that an EVSE's meter is said to sign with (`public_key`: X.509 SubjectPublicKeyInfo, in DER).

    One of an EVSE is trusted at a time. The first one that a station tells is, until staff say otherwise; another one
    waits for them, and so does every reading that is signed with it. `meter` is the serial that the first valid reading
    named: the key speaks for that meter alone.
    """

    __tablename__ = "meter_key"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "evse_no", "public_key"),
        Index(
            "uq_meter_key_trusted", "tenant_id", "station_id", "evse_no", unique=True,
            postgresql_where=text("status = 'trusted'"),
        ),
        CheckConstraint("status in ('trusted','waiting','refused','replaced')", name="status"),
        CheckConstraint("source in ('station','staff')", name="source"),
        {"schema": "livery"},
    )  # fmt: skip

    station_id: Mapped[UUID]
    evse_no: Mapped[int]
    curve: Mapped[str]
    public_key: Mapped[bytes]
    meter: Mapped[str] = mapped_column(server_default="")
    status: Mapped[str]
    source: Mapped[str]
    is_compared: Mapped[bool] = mapped_column(
        server_default=text("false")
    )  # with the meter's own plate, by staff
    told_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str] = mapped_column(server_default="")


class SignedCharge(TenantOwned, Base):
    """What the meter signed of one charge, byte for byte, each with its verdict; and the energy that may be billed.

    `records` hold data (as it was told), context, at, verdict, reason, format, meter, page and public_key (hex, the one
    that was used). `energy_wh` is null where `reason` says why it may not be billed.
    """

    __tablename__ = "signed_charge"
    __table_args__ = (
        UniqueConstraint("tenant_id", "source_type", "source_id"),
        CheckConstraint("verdict in ('valid','invalid','no_key','unsupported')", name="verdict"),
        {"schema": "livery"},
    )

    source_type: Mapped[str]
    source_id: Mapped[UUID]
    verdict: Mapped[str]
    reason: Mapped[str]
    energy_wh: Mapped[Decimal | None] = mapped_column(Numeric(20, 4))
    begin_wh: Mapped[Decimal | None] = mapped_column(Numeric(20, 4))
    end_wh: Mapped[Decimal | None] = mapped_column(Numeric(20, 4))
    begin_at: Mapped[datetime | None]
    end_at: Mapped[datetime | None]
    records: Mapped[list[Any]] = mapped_column(server_default="[]")
    checked_at: Mapped[datetime]


class SignedRecord(TenantOwned, Base):
    """A record counts for one charge: who tells it again with another has it refused (`digest`: SHA-256 of the key
    and what it signed)."""

    __tablename__ = "signed_record"
    __table_args__ = (UniqueConstraint("tenant_id", "digest"), {"schema": "livery"})

    digest: Mapped[bytes]
    source_type: Mapped[str]
    source_id: Mapped[UUID]


class MeteringPolicy(TenantOwned, Base):
    """Where a brand bills only energy that the meter signed: countries in ISO 3166-1 alpha-3. No row: nowhere."""

    __tablename__ = "metering_policy"
    __table_args__ = (UniqueConstraint("tenant_id"), {"schema": "livery"})

    countries: Mapped[list[str]] = mapped_column(ARRAY(Text()), server_default="{}")
