"""What stations report about themselves, as the gateway read it (lenient; times UTC, texts cut to what fits)."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from app.device_model.paths import VariablePath


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    value: str | None = None
    mutability: str | None = None
    is_persistent: bool | None = None
    is_constant: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Characteristics:
    data_type: str | None = None
    unit: str | None = None
    min_limit: Decimal | None = None
    max_limit: Decimal | None = None
    values_list: str | None = None
    can_be_monitored: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedVariable:
    """`attributes` by type (Actual, Target, MinSet, MaxSet); `status` where it answers a reading or a change of ours,
    and what the station would not tell or take has no attributes."""

    path: VariablePath
    attributes: dict[str, Attribute] = field(default_factory=dict)
    characteristics: Characteristics | None = None
    status: str | None = None
    needs_reboot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where a message stands in a report of several: requestId, seqNo, and whether more comes (tbc)."""

    request_no: int
    seq_no: int
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedMonitor:
    path: VariablePath
    monitor_no: int
    kind: str
    value: Decimal
    severity: int
    in_transactions_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedNotice:
    """One item of NotifyEvent's eventData."""

    path: VariablePath
    event_no: int
    at: datetime
    trigger: str
    notification: str
    value: str | None
    is_cleared: bool = False
    cause_no: int | None = None
    monitor_no: int | None = None
    tech_code: str | None = None
    tech_info: str | None = None
    ocpp_transaction_id: str | None = None
    severity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedMessage:
    """MessageInfo of block O."""

    message_no: int
    priority: str
    content: str
    format: str
    state: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    ocpp_transaction_id: str | None = None
    language: str | None = None
