"""What a station said that it cannot, remembered until it is another make, firmware or version (ocpp.md 3, no. 55).

NotSupported or NotImplemented, as a CALLERROR or as the status of an answer. What it said of a part of a message (which
message to trigger, which key to change) is remembered of that part.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.kernel import audit
from app.kernel.errors import NotFound
from app.stations.models import ChargingStation, StationCommand, StationConnection
from tenants.scope import Scope

CODES = frozenset({"NotSupported", "NotImplemented"})
MOST = 200


@dataclass(frozen=True, slots=True)
class Lack:
    """`what` is an action, or action/part; `said` the station's word."""

    what: str
    said: str
    at: datetime


def key_of(action: str, payload: dict[str, Any]) -> str:
    """`TriggerMessage/Heartbeat`, `GetBaseReport/SummaryInventory`, `ClearCache` (pure)."""
    part = payload.get("requestedMessage") or payload.get("reportBase") or payload.get("monitoringBase")
    criteria = payload.get("componentCriteria") or payload.get("monitoringCriteria")
    if isinstance(criteria, list):
        part = "+".join(map(str, criteria))
    if action == "ChangeConfiguration":
        part = payload.get("key")
    elif action == "SetChargingProfile":
        profile = payload.get("csChargingProfiles") or payload.get("chargingProfile")
        part = profile.get("chargingProfilePurpose") if isinstance(profile, dict) else None
    return f"{action}/{part}"[:120] if part else action


async def find_lack(
    scope: Scope, station: ChargingStation, action: str, payload: dict[str, Any]
) -> Lack | None:
    """Why it need not be asked; None where it may do it."""
    wanted = key_of(action, payload)
    return next((one for one in await list_lacks(scope, station) if one.what in (action, wanted)), None)


async def list_lacks(scope: Scope, station: ChargingStation) -> list[Lack]:
    """By name; none of another firmware's."""
    if not station.lacks:
        return []
    make = await _make(scope, station)
    return [
        Lack(what, one["said"], datetime.fromisoformat(one["at"]))
        for what, one in sorted(station.lacks.items())
        if one["make"] == make
    ]


async def learn(scope: Scope, command: StationCommand) -> None:
    """From what a station said to a command."""
    said = (command.error or "").partition(":")[0] if command.status == "failed" else ""
    what = command.action if command.action not in ("TriggerMessage", "ExtendedTriggerMessage") else None
    if command.answer is not None:
        said, what = str(command.answer.get("status") or ""), None
        if command.action == "UnlockConnector":
            return  # it speaks of one connector at that moment, and a driver whose cable hangs is worth another try
    if said not in CODES:
        return
    station = await scope.db.get(ChargingStation, (scope.tenant_id, command.station_id))
    if station is None:
        return
    what = what or key_of(command.action, command.payload)
    make = await _make(scope, station)
    known = {name: one for name, one in station.lacks.items() if one["make"] == make}
    if len(known) < MOST:
        station.lacks = known | {what: {"said": said, "at": scope.now.isoformat(), "make": make}}


async def forget(scope: Scope, station_id: UUID) -> None:
    """Staff want it asked again: whatever it said is forgotten."""
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id))
    if station is None:
        raise NotFound("charging_station")
    forgotten = sorted(station.lacks)
    station.lacks = {}
    await audit.record(scope, "station.asked_again", "charging_station", station_id, {"forgotten": forgotten})
    scope.publish(f"station:{station_id}", {"what": "settings"})


async def _make(scope: Scope, station: ChargingStation) -> str:
    query = select(StationConnection.ocpp_version).where(StationConnection.station_id == station.id)
    version = (await scope.db.execute(query)).scalar_one_or_none()
    return "|".join(
        str(one or "") for one in (station.vendor, station.model, station.firmware_version, version)
    )
