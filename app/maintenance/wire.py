"""How this slice's wishes look on the wire: `(action, payload)` in the version a station speaks; pure.

The domain speaks 2.0.1; 1.6 means edition 2 with the security whitepaper.
"""

from datetime import UTC, datetime
from typing import Any

Asked = tuple[str, dict[str, Any]]

ROOTS = ("CSMSRootCertificate", "ManufacturerRootCertificate", "V2GRootCertificate", "MORootCertificate")
STORED = (*ROOTS, "V2GCertificateChain")
ROOTS_16 = {
    "CSMSRootCertificate": "CentralSystemRootCertificate",
    "ManufacturerRootCertificate": "ManufacturerRootCertificate",
}
ROOTS_FROM_16 = {word: name for name, word in ROOTS_16.items()}
_SIGN = {
    "ChargingStationCertificate": "SignChargingStationCertificate",
    "V2GCertificate": "SignV2GCertificate",
    "Combined": "SignCombinedCertificate",
}
CERTIFICATE_KINDS = tuple(_SIGN)


def is_16(version: str) -> bool:
    return version == "ocpp1.6"


def rfc3339(at: datetime) -> str:
    """Some stations parse nothing but `Z` and milliseconds (ocpp.md 3, no. 21)."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# -- certificates --------------------------------------------------------------------------------------------------


def ask_for_request(version: str, kind: str) -> Asked:
    """Please make a new key pair and send SignCertificate (A02)."""
    if is_16(version):
        return "ExtendedTriggerMessage", {"requestedMessage": "SignChargePointCertificate"}
    return "TriggerMessage", {"requestedMessage": _SIGN[kind]}


def certificate_signed(version: str, kind: str, chain: str) -> Asked:
    payload: dict[str, Any] = {"certificateChain": chain}
    if not is_16(version) and kind != "Combined":
        payload["certificateType"] = kind
    return "CertificateSigned", payload


def install_certificate(version: str, certificate_type: str, pem: str) -> Asked:
    word = ROOTS_16[certificate_type] if is_16(version) else certificate_type
    return "InstallCertificate", {"certificateType": word, "certificate": pem}


def installed_ids(version: str, types: list[str]) -> list[Asked]:
    """1.6 asks for one type at a time. No types in 2.0.1: all there are."""
    if is_16(version):
        wanted = [ROOTS_16[name] for name in types or ROOTS_16 if name in ROOTS_16]
        return [("GetInstalledCertificateIds", {"certificateType": word}) for word in wanted]
    return [("GetInstalledCertificateIds", {"certificateType": types} if types else {})]


def delete_certificate(hash_data: dict[str, Any]) -> Asked:
    return "DeleteCertificate", {"certificateHashData": hash_data}


# -- keys and profiles ---------------------------------------------------------------------------------------------


def set_key(version: str, password: str) -> Asked:
    """`password` is 40 hex characters: in 1.6 the hex of 20 bytes, in 2.0.1 the password itself (A01)."""
    if is_16(version):
        return "ChangeConfiguration", {"key": "AuthorizationKey", "value": password}
    return "SetVariables", _variable("SecurityCtrlr", "BasicAuthPassword", password)


def set_profile(version: str, profile: int, url: str, slot: int, interface: str) -> Asked:
    """The first step: in 1.6 the only one, in 2.0.1 a network profile in a slot of its own (B09)."""
    if is_16(version):
        return "ChangeConfiguration", {"key": "SecurityProfile", "value": str(profile)}
    spoken = "OCPP21" if version == "ocpp2.1" else "OCPP20"
    connection = {
        "ocppVersion": spoken, "ocppTransport": "JSON", "ocppCsmsUrl": url, "messageTimeout": 30,
        "securityProfile": profile, "ocppInterface": interface,
    }  # fmt: skip
    return "SetNetworkProfile", {"configurationSlot": slot, "connectionData": connection}


def prefer_slots(slots: list[int]) -> Asked:
    """The new slot first, then what it falls back to when the new one does not connect (B10)."""
    order = ",".join(map(str, slots))
    return "SetVariables", _variable("OCPPCommCtrlr", "NetworkConfigurationPriority", order)


def reset_when_idle() -> Asked:
    return "Reset", {"type": "OnIdle"}


def _variable(component: str, name: str, value: str) -> dict[str, Any]:
    one = {"component": {"name": component}, "variable": {"name": name}, "attributeValue": value}
    return {"setVariableData": [one]}


# -- firmware and logs ---------------------------------------------------------------------------------------------


def update_firmware(
    version: str, *, request_id: int, location: str, retrieve_at: datetime, install_at: datetime | None,
    signing_certificate: str | None, signature: str | None, retries: int | None, retry_interval_s: int | None,
) -> Asked:  # fmt: skip
    """L01, L02. 1.6 has a message of its own for signed firmware, and knows no id and no install date without it."""
    retrying = {"retries": retries, "retryInterval": retry_interval_s}
    more = {name: value for name, value in retrying.items() if value is not None}
    if is_16(version) and signature is None:
        return "UpdateFirmware", {"location": location, "retrieveDate": rfc3339(retrieve_at), **more}
    firmware: dict[str, Any] = {"location": location, "retrieveDateTime": rfc3339(retrieve_at)}
    if install_at is not None:
        firmware["installDateTime"] = rfc3339(install_at)
    if signature is not None:
        firmware |= {"signingCertificate": signing_certificate, "signature": signature}
    action = "SignedUpdateFirmware" if is_16(version) else "UpdateFirmware"
    return action, {"requestId": request_id, "firmware": firmware, **more}


def publish_firmware(
    *, request_id: int, location: str, checksum: str, retries: int | None, retry_interval_s: int | None
) -> Asked:
    payload: dict[str, Any] = {"location": location, "checksum": checksum, "requestId": request_id}
    if retries is not None:
        payload["retries"] = retries
    if retry_interval_s is not None:
        payload["retryInterval"] = retry_interval_s
    return "PublishFirmware", payload


def get_log(
    version: str,
    *,
    request_id: int,
    kind: str,
    location: str,
    oldest: datetime | None,
    latest: datetime | None,
) -> Asked:
    """N01. 1.6 fetches its diagnostics by GetDiagnostics, which every station has, and the security log by GetLog."""
    if is_16(version) and kind == "DiagnosticsLog":
        period = {"startTime": oldest, "stopTime": latest}
        return "GetDiagnostics", {"location": location, **_times(period)}
    period = {"oldestTimestamp": oldest, "latestTimestamp": latest}
    log = {"remoteLocation": location, **_times(period)}
    return "GetLog", {"log": log, "logType": kind, "requestId": request_id}


def _times(period: dict[str, datetime | None]) -> dict[str, str]:
    return {name: rfc3339(at) for name, at in period.items() if at is not None}
