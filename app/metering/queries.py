"""Screen reads of meters."""

from uuid import UUID

from sqlalchemy import select

from app.metering.models import MeterKey
from app.stations.models import EVSE, ChargingStation, Location
from tenants.scope import Scope


async def list_keys(scope: Scope) -> list[tuple[MeterKey, ChargingStation]]:
    """Those that wait first; then by station and EVSE, the trusted one before the others."""
    query = (
        select(MeterKey, ChargingStation)
        .join(ChargingStation, ChargingStation.id == MeterKey.station_id)
        .order_by(
            MeterKey.status != "waiting",
            ChargingStation.ocpp_identity,
            MeterKey.evse_no,
            MeterKey.status != "trusted",
            MeterKey.told_at,
        )
        .limit(1000)
    )
    return [(key, station) for key, station in (await scope.db.execute(query)).all()]


async def places(scope: Scope) -> list[tuple[UUID, int, str]]:
    """Station, EVSE number and how a form calls it."""
    query = (
        select(ChargingStation.id, EVSE.evse_no, ChargingStation.ocpp_identity, ChargingStation.name)
        .join(EVSE, EVSE.station_id == ChargingStation.id)
        .where(ChargingStation.retired_at.is_(None))
        .order_by(ChargingStation.ocpp_identity, EVSE.evse_no)
    )
    return [
        (row.id, row.evse_no, f"{row.name or row.ocpp_identity}, EVSE {row.evse_no}")
        for row in (await scope.db.execute(query)).all()
    ]


async def countries(scope: Scope) -> list[str]:
    return list((await scope.db.execute(select(Location.country).distinct())).scalars())
