"""Screen reads: a station's security, firmware and logs, and the brand's stations side by side."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.kernel.ids import parse_id, public_id
from app.maintenance.models import (
    CertificateAuthority,
    FirmwarePublication,
    FirmwareUpdate,
    InstalledCertificate,
    SecurityEvent,
    StationCertificate,
    StationLog,
)
from app.stations.models import ChargingStation
from tenants.scope import Scope

EVENTS_PAGE = 50


async def security_events(
    scope: Scope, *, station_id: UUID | None = None, grave: bool = False, kind: str = "", after: str = "",
    limit: int = EVENTS_PAGE,
) -> tuple[list[SecurityEvent], str | None]:  # fmt: skip
    """Newest first, with their stations, and where older ones go on."""
    query = select(SecurityEvent).options(selectinload(SecurityEvent.station))
    if station_id is not None:
        query = query.where(SecurityEvent.station_id == station_id)
    if grave:
        query = query.where(SecurityEvent.is_grave.is_(True))
    if kind:
        query = query.where(SecurityEvent.type == kind)
    if after:
        query = query.where(SecurityEvent.id < parse_id("security_event", after))
    rows = list((await scope.db.execute(query.order_by(SecurityEvent.id.desc()).limit(limit + 1))).scalars())
    more = public_id("security_event", rows[limit - 1].id) if len(rows) > limit else None
    return rows[:limit], more


async def installed(scope: Scope, station_id: UUID) -> list[InstalledCertificate]:
    query = select(InstalledCertificate).where(InstalledCertificate.station_id == station_id)
    return list((await scope.db.execute(query.order_by(InstalledCertificate.certificate_type))).scalars())


async def authority(scope: Scope) -> CertificateAuthority | None:
    """The one that signs now; None before the first certificate."""
    query = select(CertificateAuthority).order_by(CertificateAuthority.id.desc()).limit(1)
    return (await scope.db.execute(query)).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class Posture:
    """A station on the brand's security page. `ends`: the last of its certificates in use."""

    station: ChargingStation
    id: str
    ends: StationCertificate | None
    is_below: bool


async def postures(scope: Scope, minimum_profile: int) -> list[Posture]:
    """Those below the brand's minimum first, then by identity."""
    stations = (await scope.db.execute(_living().order_by(ChargingStation.ocpp_identity))).scalars().all()
    query = (
        select(StationCertificate)
        .distinct(StationCertificate.station_id)
        .where(StationCertificate.status == "accepted", StationCertificate.kind != "V2GCertificate")
        .order_by(StationCertificate.station_id, StationCertificate.valid_until.desc())
    )
    ends = {row.station_id: row for row in (await scope.db.execute(query)).scalars()}
    found = [
        Posture(
            one,
            public_id("charging_station", one.id),
            ends.get(one.id),
            one.security_profile < minimum_profile,
        )
        for one in stations
    ]
    return sorted(found, key=lambda one: not one.is_below)


def _living() -> Any:
    return select(ChargingStation).where(ChargingStation.retired_at.is_(None))


async def updates(scope: Scope, station_id: UUID | None = None, limit: int = 30) -> list[FirmwareUpdate]:
    """Newest first, with their stations."""
    query = select(FirmwareUpdate).options(selectinload(FirmwareUpdate.station))
    if station_id is not None:
        query = query.where(FirmwareUpdate.station_id == station_id)
    return list((await scope.db.execute(query.order_by(FirmwareUpdate.id.desc()).limit(limit))).scalars())


async def publications(scope: Scope, station_id: UUID) -> list[FirmwarePublication]:
    query = select(FirmwarePublication).where(FirmwarePublication.station_id == station_id)
    return list((await scope.db.execute(query.order_by(FirmwarePublication.id.desc()).limit(20))).scalars())


async def logs(scope: Scope, station_id: UUID) -> list[StationLog]:
    query = select(StationLog).where(StationLog.station_id == station_id)
    return list((await scope.db.execute(query.order_by(StationLog.id.desc()).limit(30))).scalars())


async def versions(scope: Scope) -> list[tuple[str, str, str, int]]:
    """(vendor, model, firmware, stations) of what runs, most stations first."""
    columns = (ChargingStation.vendor, ChargingStation.model, ChargingStation.firmware_version)
    query = (
        select(*columns, func.count())
        .where(ChargingStation.retired_at.is_(None), ChargingStation.booted_at.is_not(None))
        .group_by(*columns)
        .order_by(func.count().desc(), *columns)
        .limit(100)
    )
    rows = (await scope.db.execute(query)).all()
    return [(vendor or "", model or "", firmware or "", count) for vendor, model, firmware, count in rows]
