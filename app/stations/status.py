"""The EVSE state drivers see: derived from what lies elsewhere, never stored (pure)."""

from collections.abc import Iterable
from typing import Literal

from app.stations.models import ChargingStation

OCPIStatus = Literal[
    "AVAILABLE", "BLOCKED", "CHARGING", "INOPERATIVE", "OUTOFORDER", "PLANNED", "REMOVED", "RESERVED", "UNKNOWN"
]  # fmt: skip


def link_state(station: ChargingStation) -> str:
    """online, offline or never (no connection yet)."""
    if station.connection is None:
        return "never"
    return "online" if station.connection.is_online else "offline"


def evse_status(
    connectors: Iterable[str],
    activity: str,
    *,
    is_online: bool,
    has_connected: bool = True,
    is_retired: bool = False,
) -> OCPIStatus:
    """OCPI 2.2.1 Status. Offline is UNKNOWN: what we last heard may be long over, and a page must not promise."""
    if is_retired:
        return "REMOVED"
    if not has_connected:
        return "PLANNED"
    states = list(connectors)
    if not is_online or not states:
        return "UNKNOWN"
    if all(state == "Faulted" for state in states):
        return "OUTOFORDER"
    if activity == "charging":
        return "CHARGING"
    if activity == "reserved" or "Reserved" in states:
        return "RESERVED"
    if "Occupied" in states:
        return "BLOCKED"
    if "Available" in states:
        return "AVAILABLE"
    if "Faulted" in states:
        return "OUTOFORDER"
    if "Unavailable" in states:
        return "INOPERATIVE"
    return "UNKNOWN"
