"""One visit from wish to end, its readings, and the frozen record it leaves."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Date,
    ForeignKey,
    Index,
    Numeric,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from app.access.models import Driver, IdToken
from app.stations.models import EVSE, ChargingStation
from tenants.models import Base, TenantOwned, references, same_tenant


class ChargingSession(TenantOwned, Base):
    """OCPI's five states; `review` stands beside them and stops CDR, invoice and capture until staff decide.

    `start_key` is the natural key of a 1.6 start (connector, time, meter, tag): a retry finds its first attempt.
    `settled_at` says that the CDR (if any was due) exists. `cost_cap_minor` is the hold of a session that is paid by
    card, a guest's or a saved one: it is stopped before its price reaches that. `not_started` says in a stable code why
    nothing came of it. `wish` is the digest of a form's one-time id: its button pressed twice finds this session.
    """

    __tablename__ = "charging_session"
    __table_args__ = (
        references("station_id", "charging_station"),
        references("evse_id", "evse"),
        references("id_token_id", "id_token"),
        references("driver_id", "driver"),
        references("driver_group_id", "driver_group"),
        UniqueConstraint("tenant_id", "station_id", "ocpp_transaction_id"),
        UniqueConstraint("tenant_id", "station_id", "start_key"),
        UniqueConstraint("tenant_id", "wish"),
        CheckConstraint("status in ('PENDING','ACTIVE','COMPLETED','INVALID','RESERVATION')", name="status"),
        CheckConstraint(
            "review is null or review in ('superseded','stuck','orphan','implausible','no_tariff',"
            "'card_twice','start_twice','other_card','unverified')",
            name="review",
        ),
        Index(
            "ix_charging_session_open",
            "tenant_id",
            "evse_id",
            postgresql_where=text("status in ('PENDING','ACTIVE')"),
        ),
        Index(
            "ix_charging_session_active",
            "tenant_id",
            "station_id",
            postgresql_where=text("status = 'ACTIVE'"),
        ),
        Index("ix_charging_session_list", "tenant_id", "started_at", "id"),
        Index("ix_charging_session_driver", "tenant_id", "driver_id", "started_at"),
        Index(
            "ix_charging_session_review", "tenant_id", "review", postgresql_where=text("review is not null")
        ),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    evse_id: Mapped[UUID | None]
    evse_no: Mapped[int | None]
    connector_no: Mapped[int | None]
    status: Mapped[str]
    review: Mapped[str | None]
    review_note: Mapped[str | None]
    id_token_id: Mapped[UUID | None]
    id_token_status: Mapped[str | None]
    id_token_masked: Mapped[str] = mapped_column(server_default="")
    driver_id: Mapped[UUID | None]
    driver_group_id: Mapped[UUID | None]
    ocpp_version: Mapped[str] = mapped_column(server_default="")
    ocpp_transaction_id: Mapped[str | None]
    start_key: Mapped[str | None]
    remote_start_id: Mapped[int | None]
    command_id: Mapped[UUID | None]
    origin: Mapped[str] = mapped_column(server_default="station")
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    pending_until: Mapped[datetime | None]
    meter_start_wh: Mapped[int | None]
    meter_stop_wh: Mapped[int | None]
    energy_wh: Mapped[int | None]
    stopped_reason: Mapped[str | None]
    interrupted_at: Mapped[datetime | None]
    is_offline: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    settled_at: Mapped[datetime | None]
    cost_cap_minor: Mapped[int | None]
    not_started: Mapped[str | None]
    wish: Mapped[str | None]
    station: Mapped[ChargingStation] = same_tenant("ChargingSession.station_id", "ChargingStation")
    evse: Mapped[EVSE | None] = same_tenant("ChargingSession.evse_id", "EVSE")
    driver: Mapped[Driver | None] = same_tenant("ChargingSession.driver_id", "Driver")
    id_token: Mapped[IdToken | None] = same_tenant("ChargingSession.id_token_id", "IdToken")
    live: Mapped["SessionLive | None"] = same_tenant(
        "SessionLive.session_id", "ChargingSession", uselist=False, viewonly=True
    )
    events: Mapped[list["SessionEvent"]] = same_tenant(
        "SessionEvent.session_id", "ChargingSession", viewonly=True,
        order_by="SessionEvent.at, SessionEvent.id",
    )  # fmt: skip

    @property
    def is_refused(self) -> bool:
        """It began with a token that the station was told not to charge for."""
        return self.id_token_status not in (None, "Accepted")


class SessionLive(TenantOwned, Base):
    """The live figures of a session, the only place where they lie: live pages, running cost and cost cap read here.

    `energy_wh` counts from the meter's begin; where the station told none, from `first_wh`, its first reading: it gave
    at least that much. `metered_at` is when the meter was read last; `reading_at`, anything at all.
    """

    __tablename__ = "session_live"
    __table_args__ = (
        references("session_id", "charging_session", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "session_id"),
        {"schema": "livery", "postgresql_with": {"fillfactor": "70"}},
    )

    session_id: Mapped[UUID]
    meter_wh: Mapped[int | None]
    energy_wh: Mapped[int | None]
    power_w: Mapped[int | None]
    current_a: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    voltage_v: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    soc_percent: Mapped[Decimal | None] = mapped_column(Numeric(5, 2))
    charging_state: Mapped[str | None]
    seq_no: Mapped[int | None]
    reading_at: Mapped[datetime | None]
    first_wh: Mapped[int | None]
    metered_at: Mapped[datetime | None]


class SessionEvent(TenantOwned, Base):
    """The timeline: plugged in, authorised, started, suspended, stopped, reviewed … `key` makes a replay one event."""

    __tablename__ = "session_event"
    __table_args__ = (
        references("session_id", "charging_session", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "session_id", "key"),
        {"schema": "livery"},
    )

    session_id: Mapped[UUID]
    key: Mapped[str]
    at: Mapped[datetime]
    kind: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    received_at: Mapped[datetime]


class MeterInstant(Base):
    """What was sampled at an EVSE at one instant: OCPP's MeterValue, with its sampled values in one row. Read by the
    view `livery.meter_value`, one row per sampled value (docs/decisions/0023). Range-partitioned by day of
    `sampled_at`; no FK to the session (performance.md 12).

    The natural key holds the values: a stuck clock must not turn `on conflict do nothing` into lost readings.
    """

    __tablename__ = "meter_instant"
    __table_args__ = (
        Index("ix_meter_instant_session", "tenant_id", "session_id", "sampled_at"),
        {"schema": "livery", "postgresql_partition_by": "RANGE (sampled_at)"},
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("livery.tid()"))
    sampled_at: Mapped[datetime] = mapped_column(primary_key=True)
    station_id: Mapped[UUID] = mapped_column(primary_key=True)
    evse_no: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[UUID | None]
    received_at: Mapped[datetime]
    station_at: Mapped[datetime | None]
    samples: Mapped[list[list[str | None]]] = mapped_column(JSON)


class _Summary:
    """What a number of readings of one kind come to, in that kind's unit. First and last are by the readings' time."""

    sample_count: Mapped[int]
    value_sum: Mapped[Decimal] = mapped_column(Numeric())
    value_min: Mapped[Decimal] = mapped_column(Numeric())
    value_max: Mapped[Decimal] = mapped_column(Numeric())
    first_at: Mapped[datetime]
    first_value: Mapped[Decimal] = mapped_column(Numeric())
    last_at: Mapped[datetime]
    last_value: Mapped[Decimal] = mapped_column(Numeric())


class MeterHour(_Summary, Base):
    """The readings of an EVSE in one hour of UTC, by kind. It stays when the raw values' day is dropped."""

    __tablename__ = "meter_hour"
    __table_args__ = (
        Index("ix_meter_hour_station", "tenant_id", "station_id", "hour_at"),
        {"schema": "livery"},
    )

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("platform.tenant.id"), primary_key=True, server_default=text("livery.tid()")
    )
    hour_at: Mapped[datetime] = mapped_column(primary_key=True)
    station_id: Mapped[UUID] = mapped_column(primary_key=True)
    evse_no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    measurand: Mapped[str] = mapped_column(primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    location: Mapped[str] = mapped_column(primary_key=True)
    unit: Mapped[str] = mapped_column(primary_key=True)


class SessionCurve(_Summary, Base):
    """A session's readings of one UTC day, by kind, with their course: `curve[n]` at `curve_at[n]` (µs since 1970).

    Of the energy register every reading stands there as it was, since money is worked out from it; of the others the
    average of each minute.
    """

    __tablename__ = "session_curve"
    __table_args__ = (
        references("session_id", "charging_session", ondelete="CASCADE"),
        Index("ix_session_curve_day", "tenant_id", "day"),
        {"schema": "livery"},
    )

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("platform.tenant.id"), primary_key=True, server_default=text("livery.tid()")
    )
    session_id: Mapped[UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    measurand: Mapped[str] = mapped_column(primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    location: Mapped[str] = mapped_column(primary_key=True)
    unit: Mapped[str] = mapped_column(primary_key=True)
    curve_at: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    curve: Mapped[list[Decimal]] = mapped_column(ARRAY(Numeric))


class SignedMeterValue(Base):
    """A reading that its meter signed, as it was sent: the evidence of calibrated metering outlives the raw values."""

    __tablename__ = "signed_meter_value"
    __table_args__ = (
        Index("ix_signed_meter_value_session", "tenant_id", "session_id", "sampled_at"),
        {"schema": "livery"},
    )

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("platform.tenant.id"), primary_key=True, server_default=text("livery.tid()")
    )
    sampled_at: Mapped[datetime] = mapped_column(primary_key=True)
    station_id: Mapped[UUID] = mapped_column(primary_key=True)
    evse_no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    measurand: Mapped[str] = mapped_column(primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    location: Mapped[str] = mapped_column(primary_key=True)
    context: Mapped[str] = mapped_column(primary_key=True)
    raw_value: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[UUID | None]
    value: Mapped[Decimal | None] = mapped_column(Numeric(20, 4))
    unit: Mapped[str]
    received_at: Mapped[datetime]
    station_at: Mapped[datetime | None]
    signed_data: Mapped[str]


class PriceSnapshot(TenantOwned, Base):
    """Prices frozen at the start of a session. The VAT rate is chosen at the end of supply (money.md 4.2)."""

    __tablename__ = "price_snapshot"
    __table_args__ = (
        references("session_id", "charging_session", ondelete="CASCADE"),
        references("tariff_version_id", "tariff_version"),
        UniqueConstraint("tenant_id", "session_id"),
        {"schema": "livery"},
    )

    session_id: Mapped[UUID]
    tariff_version_id: Mapped[UUID | None]
    currency: Mapped[str]
    time_zone: Mapped[str]
    country: Mapped[str]
    is_free_vend: Mapped[bool]
    # The driver group's, or `card` by their saved card; None in those of before it was kept.
    collection: Mapped[str | None]
    tariff: Mapped[dict[str, Any] | None]
    hash: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class CDR(TenantOwned, Base):
    """Frozen and billable, the only billing-relevant object. A correction is a credit CDR (`kind` credit)."""

    __tablename__ = "cdr"
    __table_args__ = (
        references("session_id", "charging_session"),
        references("corrects_id", "cdr"),
        UniqueConstraint("tenant_id", "session_id", "kind", "revision_no"),
        UniqueConstraint("tenant_id", "corrects_id"),
        CheckConstraint("kind in ('cdr','credit')", name="kind"),
        CheckConstraint("(kind = 'credit') = (corrects_id is not null)", name="corrects"),
        Index("ix_cdr_list", "tenant_id", "ended_at", "id"),
        {"schema": "livery"},
    )

    session_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(server_default="cdr")
    revision_no: Mapped[int] = mapped_column(server_default="1")
    corrects_id: Mapped[UUID | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    energy_wh: Mapped[int]
    currency: Mapped[str]
    excl_vat_minor: Mapped[int]
    incl_vat_minor: Mapped[int]
    price: Mapped[dict[str, Any]]
    charging_periods: Mapped[list[Any]]
    tariff: Mapped[dict[str, Any] | None]
    location: Mapped[dict[str, Any]]
    collection: Mapped[str]
    driver_group_id: Mapped[UUID | None]
    reason: Mapped[str] = mapped_column(server_default="")
    hash: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    session: Mapped[ChargingSession] = same_tenant("CDR.session_id", "ChargingSession")


class Reservation(TenantOwned, Base):
    """An EVSE, or any one of a station, kept for a card until a time (OCPP 1.6 5.13, 2.0.1 block H).

    `evse_no` None: any EVSE. `reservation_no` is the id on the wire, unique at its station. `group_value`: whoever
    shows a card of this group may use it too. `said` is the station's own word.
    """

    __tablename__ = "reservation"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        references("evse_id", "evse", ondelete="CASCADE"),
        references("id_token_id", "id_token", ondelete="SET NULL"),
        references("session_id", "charging_session", ondelete="SET NULL"),
        UniqueConstraint("tenant_id", "station_id", "reservation_no"),
        CheckConstraint("reservation_no between 1 and 2147483647", name="reservation_no"),
        CheckConstraint(
            "state in ('asked','active','refused','unknown','used','cancelled','expired','removed')", name="state"
        ),
        Index(
            "ix_reservation_open", "tenant_id", "station_id",
            postgresql_where=text("state in ('asked','active','unknown')"),
        ),
        {"schema": "livery"},
    )  # fmt: skip

    station_id: Mapped[UUID]
    evse_id: Mapped[UUID | None]
    evse_no: Mapped[int | None]
    connector_type: Mapped[str | None]
    reservation_no: Mapped[int]
    id_token_id: Mapped[UUID | None]
    id_token_masked: Mapped[str]
    group_value: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="asked")
    said: Mapped[str] = mapped_column(server_default="")
    cancel_said: Mapped[str] = mapped_column(server_default="")
    session_id: Mapped[UUID | None]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    ended_at: Mapped[datetime | None]
    station: Mapped[ChargingStation] = same_tenant("Reservation.station_id", "ChargingStation")
    id_token: Mapped[IdToken | None] = same_tenant("Reservation.id_token_id", "IdToken")


class ChargingProfile(TenantOwned, Base):
    """A charging profile as we believe a station has it; its reports correct that (OCPP 1.6 7.8, 2.0.1 block K).

    `evse_no` 0 is the station. `profile` is a 2.x ChargingProfileType whatever the station speaks. `source` is who set
    it (ChargingLimitSource: CSO is us). `waiting`: to be sent when its session has a transaction. `report_no` is the
    last report that named it. `stands_for`: the purpose that was asked for, where the station takes another instead.
    """

    __tablename__ = "charging_profile"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        references("session_id", "charging_session", ondelete="CASCADE"),
        CheckConstraint(
            "state in ('waiting','asked','installed','refused','unknown','clearing','cleared','replaced','ended')",
            name="state",
        ),
        Index("ix_charging_profile_station", "tenant_id", "station_id", "state"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    evse_no: Mapped[int]
    profile_no: Mapped[int]
    purpose: Mapped[str]
    stack_level: Mapped[int]
    source: Mapped[str] = mapped_column(server_default="CSO")
    profile: Mapped[dict[str, Any]]
    session_id: Mapped[UUID | None]
    state: Mapped[str] = mapped_column(server_default="asked")
    said: Mapped[str] = mapped_column(server_default="")
    stands_for: Mapped[str] = mapped_column(server_default="")
    command_id: Mapped[UUID | None]
    report_no: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    confirmed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class ProfileReport(TenantOwned, Base):
    """GetChargingProfiles and the ReportChargingProfiles that answer it, in parts (2.0.1 K09)."""

    __tablename__ = "profile_report"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "request_no"),
        CheckConstraint("request_no between 1 and 2147483647", name="request_no"),
        CheckConstraint("state in ('asked','reporting','complete','none','refused','unknown')", name="state"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    request_no: Mapped[int]
    wanted: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(server_default="asked")
    said: Mapped[str] = mapped_column(server_default="")
    part_count: Mapped[int] = mapped_column(server_default="0")
    profile_count: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    ended_at: Mapped[datetime | None]


class CompositeSchedule(TenantOwned, Base):
    """What a station says it will give, beside what our own reckoning says (GetCompositeSchedule, 2.0.1 K08).

    `told` is its ChargingSchedule in 2.x's shape, None while or where it told none; `ours` the same from the profiles
    we believe it has, at the time of its answer.
    """

    __tablename__ = "composite_schedule"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        CheckConstraint("state in ('asked','told','refused','unknown')", name="state"),
        Index("ix_composite_schedule_station", "tenant_id", "station_id", "id"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    evse_no: Mapped[int]
    duration_s: Mapped[int]
    unit: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="asked")
    said: Mapped[str] = mapped_column(server_default="")
    told: Mapped[dict[str, Any] | None]
    ours: Mapped[dict[str, Any] | None]
    starts_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class ChargingLimit(TenantOwned, Base):
    """A limit somebody else set at the station (2.0.1 K12-K14: EMS, SO, Other); `cleared_at` when it was taken back."""

    __tablename__ = "charging_limit"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        Index("ix_charging_limit_station", "tenant_id", "station_id", "id"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    evse_no: Mapped[int]
    source: Mapped[str]
    is_grid_critical: Mapped[bool | None]
    schedules: Mapped[list[Any]] = mapped_column(server_default="[]")
    told_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]


class ChargingNeed(TenantOwned, Base):
    """What a car asked for and what it plans to take (2.0.1 K15-K17, ISO 15118), newest per EVSE and transaction.

    `needs` is ChargingNeedsType, `schedule` the car's own ChargingSchedule; `exceeds` says that the plan was beyond the
    profile, so that a new one was sent.
    """

    __tablename__ = "charging_need"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        references("session_id", "charging_session", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "session_id"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    session_id: Mapped[UUID]
    evse_no: Mapped[int]
    needs: Mapped[dict[str, Any] | None]
    schedule: Mapped[dict[str, Any] | None]
    exceeds: Mapped[bool] = mapped_column(server_default=text("false"))
    told_at: Mapped[datetime]


# -- site hosts: who has a share of what is charged on their ground ----------------------------------------------------


class SiteHost(TenantOwned, Base):
    """Whose ground a location stands on. `self_billing_since` is the day from which they agreed that we write their
    invoices (Directive 2006/112/EC, Article 224); without it, or without a VAT id, they get a statement only.

    `account_ref` is their own account at the provider, which shares are passed on to once `is_account_ready`;
    `account_due` is what the provider still asks them for."""

    __tablename__ = "site_host"
    __table_args__ = (
        CheckConstraint("language in ('en','de')", name="language"),
        UniqueConstraint("tenant_id", "name"),
        {"schema": "livery"},
    )

    name: Mapped[str]
    address: Mapped[str]
    postal_code: Mapped[str]
    city: Mapped[str]
    country: Mapped[str]
    vat_id: Mapped[str] = mapped_column(server_default="")
    email: Mapped[str] = mapped_column(server_default="")
    language: Mapped[str] = mapped_column(server_default="en")
    self_billing_since: Mapped[date | None] = mapped_column(Date())
    account_provider: Mapped[str] = mapped_column(server_default="")
    account_ref: Mapped[str] = mapped_column(server_default="")
    is_account_ready: Mapped[bool] = mapped_column(server_default=text("false"))
    account_due: Mapped[list[str]] = mapped_column(ARRAY(Text()), server_default="{}", default=list)
    account_seen_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class HostContract(TenantOwned, Base):
    """A host's share of a location from a day on, until the location's next contract begins. All three parts add up:
    per cent of the net revenue, an amount per kWh, an amount per session; all 0 ends it."""

    __tablename__ = "host_contract"
    __table_args__ = (
        references("site_host_id", "site_host"),
        references("location_id", "location"),
        UniqueConstraint("tenant_id", "location_id", "valid_from"),
        CheckConstraint("percent between 0 and 100 and per_kwh >= 0 and per_session >= 0", name="range"),
        {"schema": "livery"},
    )

    site_host_id: Mapped[UUID]
    location_id: Mapped[UUID]
    valid_from: Mapped[date] = mapped_column(Date())
    percent: Mapped[Decimal] = mapped_column(Numeric(6, 3))
    per_kwh: Mapped[Decimal] = mapped_column(Numeric(12, 4))
    per_session: Mapped[Decimal] = mapped_column(Numeric(12, 4))
    set_by: Mapped[str]
    set_at: Mapped[datetime]


class HostStatement(TenantOwned, Base):
    """What a host gets of a month; `content` is the sheet as it was issued (`paper.content_of` has the same shape).
    Corrections of earlier months are lines of a later one: only `paid_…` is ever written again. `transferred_minor` of
    it was passed on of the payments already; the rest is to be paid."""

    __tablename__ = "host_statement"
    __table_args__ = (
        references("site_host_id", "site_host"),
        UniqueConstraint("tenant_id", "site_host_id", "month", "currency"),
        UniqueConstraint("tenant_id", "number"),
        CheckConstraint("net_minor + vat_minor = gross_minor", name="totals"),
        {"schema": "livery"},
    )

    site_host_id: Mapped[UUID]
    month: Mapped[date] = mapped_column(Date())
    number: Mapped[str]
    is_self_billing: Mapped[bool]
    issued_at: Mapped[datetime]
    currency: Mapped[str]
    sessions_count: Mapped[int]
    energy_wh: Mapped[int]
    revenue_minor: Mapped[int]
    net_minor: Mapped[int]
    vat_minor: Mapped[int]
    gross_minor: Mapped[int]
    transferred_minor: Mapped[int] = mapped_column(server_default="0", default=0)
    content: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    paid_on: Mapped[date | None] = mapped_column(Date())
    paid_by: Mapped[str] = mapped_column(server_default="")

    @property
    def left_minor(self) -> int:
        """To be paid; below 0 where more was passed on than the host is owed."""
        return self.gross_minor - self.transferred_minor
