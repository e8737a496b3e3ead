"""Quirks of makes that a brand's staff write down, beside the presets of `quirks.py`.

Errors: `quirk_taken`, `unknown_quirk`.
"""

from uuid import UUID

from sqlalchemy import select

from app.kernel import audit
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.names import check_name
from app.stations import quirks, service
from app.stations.models import ChargingStation, StationQuirk
from tenants.scope import Scope


async def add_quirk(scope: Scope, *, vendor: str, model: str, quirk: str, note: str) -> StationQuirk:
    """Holds at once for the stations that are there, and for others from their boot on."""
    vendor = check_name(vendor, "vendor", required="Name the vendor, as its stations tell it.")
    model = check_name(model, "model", required=None) or "*"
    if not vendor.strip("*"):
        raise Invalid.field("vendor", "required", "Name the vendor, as its stations tell it.")
    if quirk not in quirks.QUIRKS:
        raise Invalid.field("quirk", "unknown_quirk", "Choose one of the quirks.")
    same = select(StationQuirk.id).where(
        StationQuirk.vendor == vendor, StationQuirk.model == model, StationQuirk.quirk == quirk
    )
    if (await scope.db.execute(same)).first():
        raise Refused("quirk_taken", "This is in the list already.")
    row = StationQuirk(
        vendor=vendor, model=model, quirk=quirk, created_by=scope.actor.name or "",
        note=check_name(note, "note", required=None, most=500), created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    await audit.record(
        scope, "station_quirk.added", "station_quirk", row.id, {"vendor": vendor, "quirk": quirk}
    )
    await _apply(scope, vendor, model)
    return row


async def remove_quirk(scope: Scope, quirk_id: UUID) -> StationQuirk:
    row = await scope.db.get(StationQuirk, (scope.tenant_id, quirk_id))
    if row is None:
        raise NotFound("station_quirk")
    await scope.db.delete(row)
    await scope.db.flush()
    await audit.record(
        scope, "station_quirk.removed", "station_quirk", row.id, {"vendor": row.vendor, "quirk": row.quirk}
    )
    await _apply(scope, row.vendor, row.model)
    return row


async def _apply(scope: Scope, vendor: str, model: str) -> None:
    for station in await stations_of(scope, vendor, model):
        await service.find_quirks(scope, station)


async def stations_of(scope: Scope, vendor: str, model: str) -> list[ChargingStation]:
    """Those that told such a make at their boot, by identity."""
    query = (
        select(ChargingStation)
        .where(ChargingStation.retired_at.is_(None))
        .order_by(ChargingStation.ocpp_identity)
    )
    return [
        one
        for one in (await scope.db.execute(query)).scalars()
        if quirks.fits(vendor, model, one.vendor, one.model)
    ]
