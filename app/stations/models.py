"""What exists at a site, its state, and what we ask of it."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Numeric, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import A_VIEW, Base, TenantOwned, references, same_tenant


class Location(TenantOwned, Base):
    """OCPI Location: a group of EVSEs that belong together. `country` is ISO 3166-1 alpha-3 as OCPI has it."""

    __tablename__ = "location"
    __table_args__ = ({"schema": "livery"},)

    name: Mapped[str]
    address: Mapped[str]
    city: Mapped[str]
    postal_code: Mapped[str] = mapped_column(server_default="")
    country: Mapped[str]
    time_zone: Mapped[str]
    latitude: Mapped[Decimal | None] = mapped_column(Numeric(9, 6))
    longitude: Mapped[Decimal | None] = mapped_column(Numeric(9, 6))
    is_free_vend: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    stations: Mapped[list["ChargingStation"]] = same_tenant(
        "ChargingStation.location_id", "Location", back_populates="location", passive_deletes="all"
    )


class ChargingStation(TenantOwned, Base):
    """The box. `ocpp_identity` is unique in its tenant while not retired.

    `quirks` are those of its model (`quirks.py`, found at its boot), `leniency` the station's own word: true or false
    by quirk, and it overrules its model. While `quarantined_at` stands, nothing is asked of the station but to read.
    `lacks` is what it said that it cannot (`capabilities.py`).
    """

    __tablename__ = "charging_station"
    __table_args__ = (
        references("location_id", "location"),
        Index(
            "uq_charging_station_identity", "tenant_id", "ocpp_identity", unique=True,
            postgresql_where=text("retired_at is null"),
        ),
        CheckConstraint("registration in ('accepted','pending','rejected')", name="registration"),
        CheckConstraint("security_profile between 0 and 3", name="security_profile"),
        {"schema": "livery"},
    )  # fmt: skip

    ocpp_identity: Mapped[str]
    name: Mapped[str] = mapped_column(server_default="")
    location_id: Mapped[UUID | None]
    registration: Mapped[str] = mapped_column(server_default="accepted")
    security_profile: Mapped[int] = mapped_column(server_default="1")
    leniency: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    quirks: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    quarantined_at: Mapped[datetime | None]
    lacks: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    shows_cost: Mapped[bool] = mapped_column(server_default=text("false"))
    vendor: Mapped[str | None]
    model: Mapped[str | None]
    serial_number: Mapped[str | None]
    firmware_version: Mapped[str | None]
    boot_reason: Mapped[str | None]
    booted_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    retired_at: Mapped[datetime | None]
    location: Mapped[Location | None] = same_tenant(
        "ChargingStation.location_id", "Location", back_populates="stations"
    )
    evses: Mapped[list["EVSE"]] = same_tenant(
        "EVSE.station_id",
        "ChargingStation",
        back_populates="station",
        passive_deletes="all",
        order_by="EVSE.evse_no",
    )
    connection: Mapped["StationConnection | None"] = same_tenant(
        "StationConnection.station_id", "ChargingStation", uselist=False, viewonly=True
    )

    @property
    def ocpp_version(self) -> str:
        """What it speaks, or spoke last; empty before it first came. Its `connection` must be loaded."""
        return self.connection.ocpp_version if self.connection else ""


class StationAlert(TenantOwned, Base):
    """Something odd about a station that staff should see; once per kind, counted. `recent_at` are ISO 8601 times."""

    __tablename__ = "station_alert"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "kind"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    kind: Mapped[str]
    detail: Mapped[str] = mapped_column(server_default="")
    count: Mapped[int] = mapped_column(server_default="1")
    recent_at: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    dismissed_at: Mapped[datetime | None]


class StationQuirk(TenantOwned, Base):
    """A quirk of a make that staff found. `vendor` and `model` as BootNotification tells them, `*` for anything."""

    __tablename__ = "station_quirk"
    __table_args__ = (UniqueConstraint("tenant_id", "vendor", "model", "quirk"), {"schema": "livery"})

    vendor: Mapped[str]
    model: Mapped[str] = mapped_column(server_default="*")
    quirk: Mapped[str]
    note: Mapped[str] = mapped_column(server_default="")
    created_by: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class StationConnection(TenantOwned, Base):
    """The link to one station. `epoch` grows with each connection; the newest wins, older ones may not write."""

    __tablename__ = "station_connection"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    is_online: Mapped[bool] = mapped_column(server_default=text("false"))
    epoch: Mapped[int] = mapped_column(server_default="0")
    node: Mapped[str] = mapped_column(server_default="")
    ocpp_version: Mapped[str] = mapped_column(server_default="")
    remote: Mapped[str] = mapped_column(server_default="")
    connected_at: Mapped[datetime | None]
    disconnected_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]
    close_reason: Mapped[str] = mapped_column(server_default="")


class EVSE(TenantOwned, Base):
    """Feeds one EV at a time. `evse_no` is OCPP's integer, `evse_id` the eMI3 text, `code` what a QR sticker opens."""

    __tablename__ = "evse"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "evse_no"),
        UniqueConstraint("tenant_id", "code"),
        CheckConstraint("evse_no between 1 and 64", name="evse_no"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    evse_no: Mapped[int]
    evse_id: Mapped[str | None]
    code: Mapped[str]
    station: Mapped[ChargingStation] = same_tenant(
        "EVSE.station_id", "ChargingStation", back_populates="evses"
    )
    connectors: Mapped[list["Connector"]] = same_tenant(
        "Connector.evse_id",
        "EVSE",
        back_populates="evse",
        passive_deletes="all",
        order_by="Connector.connector_no",
    )
    live: Mapped["EVSELive | None"] = same_tenant("EVSELive.evse_id", "EVSE", uselist=False, viewonly=True)
    figures: Mapped["EVSEFigures | None"] = same_tenant(
        "EVSEFigures.evse_id", "EVSE", uselist=False, viewonly=True
    )


class Connector(TenantOwned, Base):
    """Plug or cable. `standard`, `power_type` are OCPI's words. `detail` is 1.6's finer state."""

    __tablename__ = "connector"
    __table_args__ = (
        references("evse_id", "evse", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "evse_id", "connector_no"),
        CheckConstraint("connector_no between 1 and 64", name="connector_no"),
        CheckConstraint(
            "status in ('Available','Occupied','Reserved','Unavailable','Faulted','Unknown')", name="status"
        ),
        {"schema": "livery"},
    )

    evse_id: Mapped[UUID]
    connector_no: Mapped[int]
    standard: Mapped[str | None]
    format: Mapped[str | None]
    power_type: Mapped[str | None]
    max_voltage_v: Mapped[int | None]
    max_amperage_a: Mapped[int | None]
    max_power_w: Mapped[int | None]
    status: Mapped[str] = mapped_column(server_default="Unknown")
    detail: Mapped[str | None]
    error_code: Mapped[str | None]
    error_info: Mapped[str | None]
    vendor_error_code: Mapped[str | None]
    status_at: Mapped[datetime | None]
    evse: Mapped[EVSE] = same_tenant("Connector.evse_id", "EVSE", back_populates="connectors")


class EVSELive(TenantOwned, Base):
    """What goes on at an EVSE. `activity` is set by `charging` through a verb; the figures are those that were told
    while no session ran there. People read `EVSEFigures`."""

    __tablename__ = "evse_live"
    __table_args__ = (
        references("evse_id", "evse", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "evse_id"),
        CheckConstraint("activity in ('idle','charging','reserved')", name="activity"),
        {"schema": "livery", "postgresql_with": {"fillfactor": "70"}},
    )

    evse_id: Mapped[UUID]
    activity: Mapped[str] = mapped_column(server_default="idle")
    power_w: Mapped[int | None]
    meter_wh: Mapped[int | None]
    current_a: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    voltage_v: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    soc_percent: Mapped[Decimal | None] = mapped_column(Numeric(5, 2))
    reading_at: Mapped[datetime | None]


class EVSEFigures(Base):
    """A view: the live figures of the session that runs at an EVSE, else those of `EVSELive`."""

    __tablename__ = "evse_figures"
    __table_args__ = ({"schema": "livery", "info": A_VIEW},)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    evse_id: Mapped[UUID] = mapped_column(primary_key=True)
    power_w: Mapped[int | None]
    meter_wh: Mapped[int | None]
    current_a: Mapped[Decimal | None]
    voltage_v: Mapped[Decimal | None]
    soc_percent: Mapped[Decimal | None]
    reading_at: Mapped[datetime | None]


class StationCommand(TenantOwned, Base):
    """Something we ask of a station, as on the wire in the version it speaks. `status` as `GET /commands/{id}` tells.

    `payload` is what people may read; where it names a secret, the real one is in `payload_sealed`.
    """

    __tablename__ = "station_command"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        CheckConstraint(
            "status in ('queued','sent','accepted','rejected','unknown','expired','failed')", name="status"
        ),
        Index(
            "ix_station_command_queue",
            "tenant_id",
            "station_id",
            "created_at",
            postgresql_where=text("status = 'queued'"),
        ),
        Index("ix_station_command_sent", "tenant_id", "station_id", postgresql_where=text("status = 'sent'")),
        Index("ix_station_command_list", "tenant_id", "station_id", "created_at"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    action: Mapped[str]
    payload: Mapped[dict[str, Any]]
    payload_sealed: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="queued")
    answer: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    actor: Mapped[str] = mapped_column(server_default="")
    source_type: Mapped[str | None]
    source_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    expires_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    epoch: Mapped[int | None]
    station: Mapped[ChargingStation] = same_tenant("StationCommand.station_id", "ChargingStation")


class ParkedMessage(TenantOwned, Base):
    """A report that no verb could handle, acknowledged and kept until staff decide: tried again, or let go.

    `status`: parked; retrying (a gateway is asked to); handled; discarded. `error` is what went wrong the last time.
    """

    __tablename__ = "parked_message"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        CheckConstraint("status in ('parked','retrying','handled','discarded')", name="status"),
        Index("ix_parked_message_list", "tenant_id", "status", "received_at"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    received_at: Mapped[datetime]
    ocpp_version: Mapped[str]
    action: Mapped[str]
    message_id: Mapped[str]
    raw: Mapped[str]
    error: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="parked")
    tries: Mapped[int] = mapped_column(server_default="1")
    decided_at: Mapped[datetime | None]
    station: Mapped[ChargingStation] = same_tenant("ParkedMessage.station_id", "ChargingStation")


class AvailabilityWish(TenantOwned, Base):
    """What we last asked of a station, an EVSE or a connector (0 means all of it), and how it stands (OCPP G03, G04).

    `scheduled`: a transaction runs, and the change comes when it ends; `done`: the station reports it so.
    """

    __tablename__ = "availability_wish"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "station_id", "evse_no", "connector_no"),
        CheckConstraint("evse_no between 0 and 64", name="evse_no"),
        CheckConstraint("connector_no between 0 and 64", name="connector_no"),
        CheckConstraint(
            "state in ('asked','accepted','scheduled','done','rejected','unknown')", name="state"
        ),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    evse_no: Mapped[int]
    connector_no: Mapped[int]
    is_operative: Mapped[bool]
    state: Mapped[str] = mapped_column(server_default="asked")
    said: Mapped[str] = mapped_column(server_default="")
    command_id: Mapped[UUID | None]
    asked_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]


class _Frame:
    """As it crossed the wire, and what became of it."""

    direction: Mapped[str]
    kind: Mapped[str]
    ocpp_version: Mapped[str]
    message_id: Mapped[str | None]
    action: Mapped[str | None]
    raw: Mapped[str]
    error: Mapped[str | None]


class OCPPMessage(_Frame, Base):
    """The raw log: every frame but Heartbeat, in the commit of what it caused, 30 days. Partitioned by day of `at`.

    What answers a hot message is an empty CALLRESULT, kept as its time `answered_at`; such an id is even, and the odd
    one after it is the answer's. People read `OCPPFrame`. Read by station only, newest id first: its key is the one
    index, which each message of a fleet pays for.
    """

    __tablename__ = "ocpp_message"
    __table_args__ = ({"schema": "livery", "postgresql_partition_by": "RANGE (at)"},)

    tenant_id: Mapped[UUID] = mapped_column(
        primary_key=True, server_default=text("livery.tid()"), sort_order=-4
    )
    station_id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-3)
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"), sort_order=-2)
    at: Mapped[datetime] = mapped_column(primary_key=True, sort_order=-1)
    answered_at: Mapped[datetime | None]


class OCPPFrame(_Frame, Base):
    """A view of the raw log: every frame a row, also the answer that a CALL holds as `answered_at`. Newest first is
    (call_id, id) descending, which reads no more than a page; it is the order of the ids, too."""

    __tablename__ = "ocpp_frame"
    __table_args__ = ({"schema": "livery", "info": A_VIEW},)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    station_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    call_id: Mapped[UUID]
    call_at: Mapped[datetime]
    at: Mapped[datetime]
