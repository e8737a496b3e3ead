"""How staff read it: OCPP's words for states, profiles and certificate types in plain ones, each with a look."""

from datetime import datetime, timedelta

from app.maintenance.certificates import WARN_AHEAD
from app.maintenance.models import SecurityChange, StationCertificate

PROFILES = {0: "0: none", 1: "1: password", 2: "2: password over TLS", 3: "3: certificate"}

# status -> (the pill it looks like, the words)
Look = tuple[str, str]
_REQUEST: dict[str, Look] = {
    "Requested": ("queued", "Asked"), "Accepted": ("accepted", "Accepted"), "Rejected": ("failed", "Declined"),
    "NoAnswer": ("unknown", "No answer"), "Canceled": ("canceled", "Canceled"),
}  # fmt: skip
FIRMWARE: dict[str, Look] = _REQUEST | {
    "DownloadScheduled": ("pending", "Fetches it later"), "Downloading": ("sent", "Fetching"),
    "DownloadPaused": ("pending", "Fetching pauses"), "Downloaded": ("sent", "Fetched"),
    "SignatureVerified": ("sent", "Signature holds"), "InstallScheduled": ("pending", "Installs later"),
    "Installing": ("sent", "Installing"), "InstallRebooting": ("sent", "Restarting"),
    "Installed": ("succeeded", "Installed"), "DownloadFailed": ("failed", "Could not fetch it"),
    "InstallationFailed": ("failed", "Could not install it"),
    "InstallVerificationFailed": ("failed", "The file is damaged"),
    "InvalidSignature": ("failed", "The signature does not hold"),
    "InvalidCertificate": ("failed", "The signer's certificate is invalid"),
    "RevokedCertificate": ("failed", "The signer's certificate is revoked"),
    "ChecksumVerified": ("sent", "Checksum holds"), "InvalidChecksum": ("failed", "The checksum does not hold"),
    "Published": ("succeeded", "Published"), "PublishFailed": ("failed", "Could not publish it"),
    "Unpublished": ("canceled", "Withdrawn"), "NoFirmware": ("canceled", "It had none"),
    "DownloadOngoing": ("pending", "Others are fetching it"),
}  # fmt: skip
LOG: dict[str, Look] = _REQUEST | {
    "Uploading": ("sent", "Uploading"), "Uploaded": ("succeeded", "Uploaded"),
    "UploadFailure": ("failed", "The upload failed"), "PermissionDenied": ("failed", "The upload was not allowed"),
    "BadMessage": ("failed", "It did not understand"), "NotSupportedOperation": ("failed", "It cannot upload so"),
    "NoFile": ("canceled", "There was nothing to upload"),
}  # fmt: skip
LOG_KINDS = {"DiagnosticsLog": "Diagnostics", "SecurityLog": "Security log"}
CERTIFICATES = {
    "ChargingStationCertificate": "Station", "V2GCertificate": "Car (V2G)", "Combined": "Station and car",
}  # fmt: skip
STORED = {
    "CSMSRootCertificate": "Back end (CSMS root)", "ManufacturerRootCertificate": "Manufacturer root",
    "V2GRootCertificate": "V2G root", "MORootCertificate": "Mobility operator root",
    "V2GCertificateChain": "V2G chain",
}  # fmt: skip
_CERTIFICATE: dict[str, Look] = {
    "requested": ("queued", "Being signed"), "issued": ("sent", "On its way"), "accepted": ("accepted", "In use"),
    "rejected": ("failed", "Declined by the station"), "refused": ("failed", "Not signed"),
    "revoked": ("canceled", "Revoked"),
}  # fmt: skip
_CHANGE: dict[str, Look] = {
    "requested": ("queued", "Asked"), "accepted": ("pending", "Waits for the station to come back"),
    "unknown": ("unknown", "No answer"), "confirmed": ("succeeded", "In force"), "rejected": ("failed", "Declined"),
    "fell_back": ("failing", "Fell back"), "canceled": ("canceled", "Given up"),
}  # fmt: skip


EVENTS = {
    "StartupOfTheDevice": "Started", "ResetOrReboot": "Restarted", "FirmwareUpdated": "Firmware updated",
    "SettingSystemTime": "Clock set", "SecurityLogWasCleared": "Security log cleared",
    "ReconfigurationOfSecurityParameters": "Security settings changed", "MemoryExhaustion": "Memory full",
    "TamperDetectionActivated": "Opened or moved", "InvalidMessages": "Received invalid messages",
    "FailedToAuthenticateAtCsms": "Was refused by us", "CsmsFailedToAuthenticate": "Could not tell that it was us",
    "FailedToAuthenticateAtCentralSystem": "Was refused by us",
    "CentralSystemFailedToAuthenticate": "Could not tell that it was us",
    "AttemptedReplayAttacks": "Messages were replayed", "InvalidFirmwareSignature": "Firmware signature does not hold",
    "InvalidFirmwareSigningCertificate": "Firmware signer is not trusted",
    "InvalidCsmsCertificate": "Our certificate is not trusted",
    "InvalidCentralSystemCertificate": "Our certificate is not trusted",
    "InvalidChargingStationCertificate": "Its own certificate is invalid",
    "InvalidChargePointCertificate": "Its own certificate is invalid",
    "InvalidTLSVersion": "TLS version too old", "InvalidTLSCipherSuite": "TLS cipher too weak",
    "MaintenanceLoginAccepted": "Technician logged in", "MaintenanceLoginFailed": "Technician was refused",
}  # fmt: skip


def event(kind: str) -> str:
    """A security event's type in words; a vendor's own as it came."""
    return EVENTS.get(kind, kind)


def look(known: dict[str, Look], status: str) -> Look:
    """A vendor's own word is shown as it came."""
    return known.get(status, ("unknown", status))


def certificate(row: StationCertificate, now: datetime) -> Look:
    if row.status == "accepted" and row.valid_until is not None:
        if row.valid_until <= now:
            return "failed", "Expired"
        if row.valid_until <= now + WARN_AHEAD:
            return "failing", f"Ends in {days(row.valid_until - now)}"
    return _CERTIFICATE[row.status]


def change(row: SecurityChange) -> Look:
    return _CHANGE[row.status]


def change_name(row: SecurityChange) -> str:
    return "New key" if row.kind == "key" else f"Security profile {PROFILES[row.target_profile or 0]}"


def days(span: timedelta) -> str:
    count = max(span.days, 0)
    return "less than a day" if count == 0 else f"{count} day{'s' if count > 1 else ''}"


def size(size_bytes: int) -> str:
    return (
        f"{size_bytes / 1_048_576:.1f} MiB"
        if size_bytes >= 1_048_576
        else f"{max(size_bytes // 1024, 1)} KiB"
    )
