"""The view of readings, as tests ask it: one row per sampled value."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Views(DeclarativeBase):
    pass


class MeterValue(Views):
    __tablename__ = "meter_value"
    __table_args__ = {"schema": "livery"}  # noqa: RUF012

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    sampled_at: Mapped[datetime] = mapped_column(primary_key=True)
    station_id: Mapped[UUID] = mapped_column(primary_key=True)
    evse_no: Mapped[int] = mapped_column(primary_key=True)
    measurand: Mapped[str] = mapped_column(primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    location: Mapped[str] = mapped_column(primary_key=True)
    context: Mapped[str] = mapped_column(primary_key=True)
    raw_value: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[UUID | None]
    value: Mapped[Decimal | None]
    unit: Mapped[str]
    received_at: Mapped[datetime]
    station_at: Mapped[datetime | None]
    signed_data: Mapped[str | None]
