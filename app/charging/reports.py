"""What a station tells about energy and transactions, in OCPP 2.0.1's words whatever it speaks on the wire."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from app.access.verdict import AuthorizationStatus, IdTokenValue

ENERGY = "Energy.Active.Import.Register"
POWER = "Power.Active.Import"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One sampled value, normalised: energy in Wh, power in W, current in A, voltage in V, SoC in percent.

    `value` is None when the station sent something that is no number; it is then kept only as `raw_value`.
    `sampled_at` is clamped to at most `received_at`; `station_at` is the station's own time when it differs.
    """

    measurand: str
    value: Decimal | None
    unit: str
    sampled_at: datetime
    received_at: datetime
    phase: str = ""
    context: str = "Sample.Periodic"
    location: str = "Outlet"
    raw_value: str | None = None
    station_at: datetime | None = None
    signed_data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionReport:
    """OCPP 2.0.1 E: TransactionEvent. 1.6's StartTransaction is Started, StopTransaction is Ended.

    `ocpp_transaction_id` is None for a 1.6 start: the verb answers with a fresh one (random 31 bit, >= 1).
    1.6 values that mean "I do not know" (0, -1) arrive as None on Ended. `at` is the station's time, made plausible
    (`at_is_doubtful` says that it was not the station's own). `natural_key` is built from the raw fields of a 1.6
    Start (connector, timestamp to the second, meterStart, idTag) or Stop: a retry has the same.
    """

    kind: Literal["Started", "Updated", "Ended"]
    at: datetime
    received_at: datetime
    natural_key: str | None = None
    ocpp_transaction_id: str | None = None
    evse_no: int | None = None
    connector_no: int | None = None
    id_token: IdTokenValue | None = None
    meter_start_wh: Decimal | None = None
    meter_stop_wh: Decimal | None = None
    seq_no: int | None = None
    offline: bool = False
    at_is_doubtful: bool = False
    trigger_reason: str | None = None
    charging_state: str | None = None
    stopped_reason: str | None = None
    remote_start_id: int | None = None
    reservation_no: int | None = None
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionVerdict:
    """`id_token_status` is None when the report carried no token. `ocpp_transaction_id` is never empty."""

    ocpp_transaction_id: str
    id_token_status: AuthorizationStatus | None = None
    group_value: str | None = None
    expires_at: datetime | None = None
