"""What keeps stations trustworthy and up to date: certificates, keys, security events, firmware, log uploads."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.stations.models import ChargingStation
from tenants.models import Base, TenantOwned, references, same_tenant


class SecurityPolicy(TenantOwned, Base):
    """One per tenant, made when staff first change it.

    `organisation` is what a station's CSR may name as its organisation (empty: the brand's name). `firmware_hosts` are
    the hosts firmware may come from; `.example.com` stands for all below it.
    """

    __tablename__ = "security_policy"
    __table_args__ = (
        UniqueConstraint("tenant_id"),
        CheckConstraint("minimum_profile between 0 and 3", name="minimum_profile"),
        {"schema": "livery"},
    )

    minimum_profile: Mapped[int] = mapped_column(server_default="1")
    organisation: Mapped[str] = mapped_column(server_default="")
    firmware_hosts: Mapped[list[Any]] = mapped_column(server_default="[]")
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class CertificateAuthority(TenantOwned, Base):
    """The tenant's own CA. The newest signs; all that have not expired are trusted. `key_sealed` is PKCS 8 PEM."""

    __tablename__ = "certificate_authority"
    __table_args__ = (UniqueConstraint("tenant_id", "fingerprint"), {"schema": "livery"})

    subject: Mapped[str]
    certificate_pem: Mapped[str]
    key_sealed: Mapped[str]
    fingerprint: Mapped[str]
    valid_from: Mapped[datetime]
    valid_until: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class StationCertificate(TenantOwned, Base):
    """What became of a station's signing request (OCPP 2.0.1 A02, A03; 1.6 security whitepaper 3.2).

    `kind` is OCPP's certificateType, `Combined` where the station named none. `fingerprint` is SHA-256 in hex,
    `serial_number` hex without leading zeros as OCPP writes it.
    requested -> issued (signed, on its way) -> accepted | rejected (by the station); refused (by us); revoked.
    """

    __tablename__ = "station_certificate"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        UniqueConstraint("tenant_id", "fingerprint"),
        CheckConstraint(
            "status in ('requested','issued','accepted','rejected','refused','revoked')", name="status"
        ),
        CheckConstraint("kind in ('ChargingStationCertificate','V2GCertificate','Combined')", name="kind"),
        Index("ix_station_certificate_list", "tenant_id", "station_id", "created_at"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="requested")
    reason: Mapped[str] = mapped_column(server_default="")
    csr_pem: Mapped[str]
    certificate_pem: Mapped[str | None]
    subject: Mapped[str] = mapped_column(server_default="")
    serial_number: Mapped[str | None]
    fingerprint: Mapped[str | None]
    valid_from: Mapped[datetime | None]
    valid_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    used_at: Mapped[datetime | None]
    warned_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    station: Mapped[ChargingStation] = same_tenant("StationCertificate.station_id", "ChargingStation")


class InstalledCertificate(TenantOwned, Base):
    """A root or chain in the station's own store, as it last told (2.0.1 M03). `hash_data` is OCPP's
    CertificateHashData; `children` that of a V2G chain's lower certificates."""

    __tablename__ = "installed_certificate"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        Index("ix_installed_certificate_station", "tenant_id", "station_id"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    certificate_type: Mapped[str]
    hash_data: Mapped[dict[str, Any]]
    children: Mapped[list[Any]] = mapped_column(server_default="[]")
    seen_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class SecurityChange(TenantOwned, Base):
    """A new key or a higher profile that holds once the station has come back with it (ocpp.md 2, row 11).

    requested -> accepted (by the station; old and new both open the door) -> confirmed (it came back with the new);
    rejected, unknown (no answer: as accepted, it may have happened), fell_back (24 h went by, the old stays), canceled.
    `digest` is the new key's, empty for a profile.
    """

    __tablename__ = "security_change"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        CheckConstraint("kind in ('key','profile')", name="kind"),
        CheckConstraint(
            "status in ('requested','accepted','unknown','confirmed','rejected','fell_back','canceled')",
            name="status",
        ),
        Index(
            "ix_security_change_open", "tenant_id", "station_id", "kind", unique=True,
            postgresql_where=text("status in ('requested','accepted','unknown')"),
        ),
        {"schema": "livery"},
    )  # fmt: skip

    station_id: Mapped[UUID]
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="requested")
    digest: Mapped[str] = mapped_column(server_default="")
    target_profile: Mapped[int | None]
    slots: Mapped[list[Any]] = mapped_column(server_default="[]")
    note: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    station: Mapped[ChargingStation] = same_tenant("SecurityChange.station_id", "ChargingStation")


class SecurityEvent(TenantOwned, Base):
    """SecurityEventNotification (2.0.1 A04), or what the gateway saw at its door (`origin` gateway)."""

    __tablename__ = "security_event"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        CheckConstraint("origin in ('station','gateway')", name="origin"),
        Index("ix_security_event_station", "tenant_id", "station_id", "id"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    type: Mapped[str]
    tech_info: Mapped[str] = mapped_column(server_default="")
    origin: Mapped[str] = mapped_column(server_default="station")
    is_grave: Mapped[bool]
    at: Mapped[datetime]
    received_at: Mapped[datetime]
    station: Mapped[ChargingStation] = same_tenant("SecurityEvent.station_id", "ChargingStation")


class FirmwareUpdate(TenantOwned, Base):
    """One update of one station. `status` is OCPP's FirmwareStatus once the station reports, before that our own word:
    Requested, Accepted, Rejected, InvalidCertificate, RevokedCertificate, NoAnswer, Canceled.

    `history` lists `{"status", "at"}`, oldest first.
    """

    __tablename__ = "firmware_update"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        Index("ix_firmware_update_request", "tenant_id", "station_id", "request_id"),
        Index("ix_firmware_update_list", "tenant_id", "station_id", "id"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    request_id: Mapped[int]
    location: Mapped[str]
    is_signed: Mapped[bool]
    retrieve_at: Mapped[datetime]
    install_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(server_default="Requested")
    status_at: Mapped[datetime]
    history: Mapped[list[Any]] = mapped_column(server_default="[]")
    created_by: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    ended_at: Mapped[datetime | None]
    station: Mapped[ChargingStation] = same_tenant("FirmwareUpdate.station_id", "ChargingStation")


class FirmwarePublication(TenantOwned, Base):
    """Firmware that a local controller hands out in its own network (2.0.1 L03, L04). `checksum` is MD5 in hex."""

    __tablename__ = "firmware_publication"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        Index("ix_firmware_publication_request", "tenant_id", "station_id", "request_id"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    request_id: Mapped[int]
    location: Mapped[str]
    checksum: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="Requested")
    status_at: Mapped[datetime]
    local_locations: Mapped[list[Any]] = mapped_column(server_default="[]")
    history: Mapped[list[Any]] = mapped_column(server_default="[]")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    ended_at: Mapped[datetime | None]


class StationLog(TenantOwned, Base):
    """A log we asked a station for (2.0.1 N01, 1.6 GetDiagnostics and GetLog), and the file once it is here.

    `status` is OCPP's UploadLogStatus, or our own word: Requested, Accepted, Rejected, NoFile, NoAnswer, Canceled.
    `token_digest` opens the one-time address until `expires_at`; the file's name is the row's id.
    """

    __tablename__ = "station_log"
    __table_args__ = (
        references("station_id", "charging_station", ondelete="CASCADE"),
        Index("ix_station_log_request", "tenant_id", "station_id", "request_id"),
        Index("ix_station_log_token", "tenant_id", "token_digest"),
        CheckConstraint("kind in ('DiagnosticsLog','SecurityLog')", name="kind"),
        {"schema": "livery"},
    )

    station_id: Mapped[UUID]
    request_id: Mapped[int]
    kind: Mapped[str]
    oldest_at: Mapped[datetime | None]
    latest_at: Mapped[datetime | None]
    token_digest: Mapped[bytes | None]
    expires_at: Mapped[datetime]
    status: Mapped[str] = mapped_column(server_default="Requested")
    status_at: Mapped[datetime]
    history: Mapped[list[Any]] = mapped_column(server_default="[]")
    file_name: Mapped[str] = mapped_column(server_default="")
    size_bytes: Mapped[int | None]
    uploaded_at: Mapped[datetime | None]
    created_by: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    ended_at: Mapped[datetime | None]
