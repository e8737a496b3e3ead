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
    connection = {
        "ocppVersion": "OCPP20", "ocppTransport": "JSON", "ocppCsmsUrl": url, "messageTimeout": 30,
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
