"""Security events: what stations report (2.0.1 A04, 1.6 whitepaper), and what the gateway saw at its door."""

from datetime import datetime
from uuid import UUID

from app.kernel import events
from app.maintenance.models import SecurityEvent
from tenants.scope import Scope

# Somebody is, or may be, at the station or between it and us. Both versions' words for the same thing.
GRAVE = frozenset({
    "TamperDetectionActivated", "SecurityLogWasCleared", "InvalidFirmwareSignature",
    "InvalidFirmwareSigningCertificate", "InvalidCsmsCertificate", "InvalidCentralSystemCertificate",
    "InvalidChargingStationCertificate", "InvalidChargePointCertificate", "AttemptedReplayAttacks",
    "CsmsFailedToAuthenticate", "CentralSystemFailedToAuthenticate", "InvalidTLSVersion", "InvalidTLSCipherSuite",
})  # fmt: skip


async def record_event(
    scope: Scope, station_id: UUID, kind: str, tech_info: str, at: datetime, received_at: datetime, *,
    origin: str = "station",
) -> SecurityEvent:  # fmt: skip
    """Kept whatever its type; grave ones are news for staff too."""
    event = SecurityEvent(
        station_id=station_id, type=kind[:100], tech_info=tech_info[:1000], origin=origin, is_grave=kind in GRAVE,
        at=at, received_at=received_at,
    )  # fmt: skip
    scope.db.add(event)
    await scope.db.flush()
    if event.is_grave:
        await events.emit(scope, "SecurityAlarm", "security_event", event.id, {"type": event.type})
    scope.publish(f"station:{station_id}", {"what": "security"})
    return event
