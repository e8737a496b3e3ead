"""What stations say about certificates, security, firmware and logs, in 1.6 (with the whitepaper) and 2.0.1."""

import base64
from datetime import datetime
from typing import Any
from uuid import UUID

from app.maintenance import certificates, firmware, logs, security
from ocpp_gateway import lenient
from tenants.scope import Scope


async def sign_certificate(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """2.0.1 A02. Without a type the certificate serves both the CSMS and the car (ISO 15118)."""
    csr = lenient.needed_text(payload, "csr", longest=10_000)
    kind = lenient.text(payload, "certificateType", most=40) or "Combined"
    is_taken = await certificates.signing_requested(scope, station_id, csr, kind)
    return {"status": "Accepted" if is_taken else "Rejected"}


async def sign_certificate_16(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """1.6 knows the ChargePointCertificate only."""
    csr = lenient.needed_text(payload, "csr", longest=10_000)
    is_taken = await certificates.signing_requested(scope, station_id, csr, "ChargingStationCertificate")
    return {"status": "Accepted" if is_taken else "Rejected"}


async def certificate_status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """2.0.1 M06: an OCSP response for what our own CA issued."""
    asked = payload.get("ocspRequestData")
    response = await certificates.ocsp_answer(scope, asked) if isinstance(asked, dict) else None
    if response is None:
        reason = {"reasonCode": "NotFound", "additionalInfo": "not issued by this operator's CA"}
        return {"status": "Failed", "statusInfo": reason}
    return {"status": "Accepted", "ocspResult": base64.b64encode(response).decode()}


async def security_event(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    at, _ = lenient.plausible(lenient.moment(payload.get("timestamp")), received_at)
    kind = lenient.text(payload, "type", most=100) or "Unknown"
    tech_info = lenient.text(payload, "techInfo", most=1000) or ""
    await security.record_event(scope, station_id, kind, tech_info, at, received_at)
    return {}


async def firmware_status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """1.6 and 2.0.1; 1.6's SignedFirmwareStatusNotification says the same with an id."""
    status = lenient.text(payload, "status", most=50) or "Idle"
    await firmware.firmware_reported(scope, station_id, status, lenient.integer(payload, "requestId"))
    return {}


async def publication_status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """2.0.1 L03: where the local controller hands it out now."""
    status = lenient.text(payload, "status", most=50) or "Idle"
    told = payload.get("location")
    locations = [one for one in told if isinstance(one, str)] if isinstance(told, list) else []
    request_id = lenient.integer(payload, "requestId")
    await firmware.publication_reported(scope, station_id, status, request_id, locations)
    return {}


async def log_status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    status = lenient.text(payload, "status", most=50) or "Idle"
    await logs.log_reported(scope, station_id, status, lenient.integer(payload, "requestId"))
    return {}


async def diagnostics_status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """1.6: no id, and a word of its own for a failure."""
    status = lenient.text(payload, "status", most=50) or "Idle"
    known = "UploadFailure" if status == "UploadFailed" else status
    await logs.log_reported(scope, station_id, known, None, "DiagnosticsLog")
    return {}


HANDLERS_16 = {
    "SignCertificate": sign_certificate_16, "SecurityEventNotification": security_event,
    "FirmwareStatusNotification": firmware_status, "SignedFirmwareStatusNotification": firmware_status,
    "LogStatusNotification": log_status, "DiagnosticsStatusNotification": diagnostics_status,
}  # fmt: skip
HANDLERS_201 = {
    "SignCertificate": sign_certificate, "GetCertificateStatus": certificate_status,
    "SecurityEventNotification": security_event, "FirmwareStatusNotification": firmware_status,
    "PublishFirmwareStatusNotification": publication_status, "LogStatusNotification": log_status,
}  # fmt: skip
