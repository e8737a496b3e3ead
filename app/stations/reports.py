"""What a station tells about itself, in OCPP 2.0.1's words whatever it speaks on the wire.

The gateway's `v16.py` and `v201.py` build these; the verbs of `stations` take them. Free texts are as received
(lenient, unbounded by OCPP's lengths, never longer than a frame); times are UTC.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ConnectorStatus = Literal["Available", "Occupied", "Reserved", "Unavailable", "Faulted"]
CONNECTOR_STATUSES: tuple[ConnectorStatus, ...] = (
    "Available",
    "Occupied",
    "Reserved",
    "Unavailable",
    "Faulted",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootReport:
    """OCPP 2.0.1 B01 BootNotificationRequest; in 1.6 the flat fields of BootNotification.req."""

    vendor: str
    model: str
    reason: str = "PowerUp"
    serial_number: str | None = None
    firmware_version: str | None = None
    iccid: str | None = None
    imsi: str | None = None
    meter_type: str | None = None
    meter_serial_number: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BootVerdict:
    """`status` is OCPP's RegistrationStatus; `interval_s` the heartbeat interval, already jittered.

    `quirks` are the names of those that hold for the station (`quirks.py`).
    """

    status: Literal["Accepted", "Pending", "Rejected"]
    interval_s: int
    quirks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """A connector's state. `evse_no` 0 is the station itself (1.6 connector 0).

    `detail` keeps 1.6's finer word (Preparing, Charging, SuspendedEV, SuspendedEVSE, Finishing), None in 2.x.
    """

    evse_no: int
    connector_no: int
    status: ConnectorStatus
    sampled_at: datetime
    received_at: datetime
    detail: str | None = None
    error_code: str | None = None
    info: str | None = None
    vendor_id: str | None = None
    vendor_error_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of the raw log (ocpp.md section 1, "Kept raw"). `raw` is the text as it crossed the wire.

    `error` is an OCPP error code or a short reason when the frame was answered with CALLERROR or not understood.
    """

    direction: Literal["in", "out"]
    kind: Literal["call", "result", "error", "other"]
    message_id: str | None
    action: str | None
    raw: str
    at: datetime
    ocpp_version: str
    error: str | None = None
