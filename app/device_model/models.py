"""What a station says about itself (OCPP 2.0.1 blocks B, N, O; 1.6 configuration keys), and how it should be set up."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Numeric, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import Base, TenantOwned, references


class StationVariable(TenantOwned, Base):
    """A variable of a component (2.x) or a configuration key (1.6: `component` is empty) as the station last told it.

    `path` names it for people, `path_key` is the same without case and unique in the station (`paths.py`). `value` is
    the attribute Actual; Target, MinSet and MaxSet lie in `other_attributes` as {type: {"value", "mutability"}}.
    Secrets are write-only: `is_secret`, and never a value. `last_status` is the station's word on our last reading or
    change (Accepted, Rejected, UnknownVariable, …); a change waits for a restart while `needs_reboot_since` is newer
    than the station's last boot.
    """

    __tablename__ = "station_variable"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "path_key"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    path: Mapped[str]
    path_key: Mapped[str]
    component: Mapped[str] = mapped_column(server_default="")
    name: Mapped[str]
    value: Mapped[str | None]
    mutability: Mapped[str] = mapped_column(server_default="ReadWrite")
    is_secret: Mapped[bool] = mapped_column(server_default=text("false"))
    is_persistent: Mapped[bool | None]
    is_constant: Mapped[bool | None]
    data_type: Mapped[str | None]
    unit: Mapped[str | None]
    min_limit: Mapped[Decimal | None] = mapped_column(Numeric)
    max_limit: Mapped[Decimal | None] = mapped_column(Numeric)
    values_list: Mapped[str | None]
    can_be_monitored: Mapped[bool | None]
    other_attributes: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    last_status: Mapped[str | None]
    needs_reboot_since: Mapped[datetime | None]
    reported_at: Mapped[datetime]


class StationReport(TenantOwned, Base):
    """Something a station was asked to report in parts: `request_no` is OCPP's requestId.

    `status` is open until the last part (`tbc` false) and all before it are there: complete; or what the station said
    instead (empty, rejected, not_supported), or unknown where it never answered. `parts` keeps the texts of customer
    information by seqNo until they are joined in `text`; the other kinds are stored where they belong as they come.
    """

    __tablename__ = "station_report"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "request_no"),
        CheckConstraint(
            "kind in ('variables','monitors','display_messages','customer_information')", name="kind"
        ),
        CheckConstraint(
            "status in ('open','complete','empty','rejected','not_supported','unknown')", name="status"
        ),
        Index("ix_station_report_list", "tenant_id", "station_id", "asked_at"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    request_no: Mapped[int]
    kind: Mapped[str]
    what: Mapped[str] = mapped_column(server_default="")
    status: Mapped[str] = mapped_column(server_default="open")
    seqs: Mapped[list[Any]] = mapped_column(server_default="[]")
    last_seq: Mapped[int | None]
    item_count: Mapped[int] = mapped_column(server_default="0")
    parts: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    text: Mapped[str | None]
    asked_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class VariableMonitor(TenantOwned, Base):
    """A monitor of a variable as the station reported or accepted it (N02-N05). `severity` 0 is danger, 9 debug."""

    __tablename__ = "variable_monitor"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "monitor_no"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    monitor_no: Mapped[int]
    path: Mapped[str]
    kind: Mapped[str]
    value: Mapped[Decimal] = mapped_column(Numeric)
    severity: Mapped[int]
    in_transactions_only: Mapped[bool] = mapped_column(server_default=text("false"))
    reported_at: Mapped[datetime]


class StationNotice(TenantOwned, Base):
    """One event of a NotifyEvent (N07, N08): what a component noticed. Once per station, eventId and time.

    `severity` comes from the monitor behind it; without one it is worked out (`monitors.severity_of`).
    """

    __tablename__ = "station_notice"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "event_no", "at"),
        Index("ix_station_notice_list", "tenant_id", "station_id", "at"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    event_no: Mapped[int]
    at: Mapped[datetime]
    received_at: Mapped[datetime]
    path: Mapped[str]
    trigger: Mapped[str]
    notification: Mapped[str]
    value: Mapped[str | None]
    severity: Mapped[int | None]
    is_cleared: Mapped[bool] = mapped_column(server_default=text("false"))
    cause_no: Mapped[int | None]
    monitor_no: Mapped[int | None]
    tech_code: Mapped[str | None]
    tech_info: Mapped[str | None]
    ocpp_transaction_id: Mapped[str | None]


class ConfigurationTemplate(TenantOwned, Base):
    """How stations should be set: {path: value} in `settings`, for those whose version, vendor and model fit.

    An empty `vendor` or `model` fits every one. `ocpp_version` is a subprotocol (`ocpp1.6`).
    """

    __tablename__ = "configuration_template"
    __table_args__ = ({"schema": "livery"},)

    name: Mapped[str]
    ocpp_version: Mapped[str]
    vendor: Mapped[str] = mapped_column(server_default="")
    model: Mapped[str] = mapped_column(server_default="")
    settings: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class DisplayMessage(TenantOwned, Base):
    """A message on a station's display (block O). `status`: wanted until the station answered, then accepted or its
    own word for the refusal; `gone` once it was cleared, replaced elsewhere or not reported any more."""

    __tablename__ = "display_message"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "message_no"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    message_no: Mapped[int]
    priority: Mapped[str]
    state: Mapped[str | None]
    start_at: Mapped[datetime | None]
    end_at: Mapped[datetime | None]
    ocpp_transaction_id: Mapped[str | None]
    format: Mapped[str]
    language: Mapped[str | None]
    content: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="wanted")
    updated_at: Mapped[datetime]
