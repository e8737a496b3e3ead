"""What stations say about certificates, security, firmware and logs, in 1.6 (with the whitepaper) and 2.0.1."""

import base64
from datetime import datetime
from typing import Any
from uuid import UUID

from app.maintenance import certificates, security
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


HANDLERS_16 = {"SignCertificate": sign_certificate_16, "SecurityEventNotification": security_event}
HANDLERS_201 = {
    "SignCertificate": sign_certificate, "GetCertificateStatus": certificate_status,
    "SecurityEventNotification": security_event,
}  # fmt: skip
