"""The JSON schemas of OCPP, read as data from the `ocpp` package: which messages exist, and what fits them."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec

# Subprotocol -> the package's folder and how a request's file is named.
_FOLDERS = {
    "ocpp1.6": ("v16", "{}.json"),
    "ocpp2.0.1": ("v201", "{}Request.json"),
    "ocpp2.1": ("v21", "{}Request.json"),
}
_ANSWERS = {"ocpp1.6": "{}Response.json", "ocpp2.0.1": "{}Response.json", "ocpp2.1": "{}Response.json"}
VERSIONS = ("ocpp1.6", "ocpp2.0.1", "ocpp2.1")
MAX_ACTION = 60

# CALLs a central system sends (OCPP 1.6 edition 2 section 5 and the security whitepaper; 2.0.1 part 2).
_TO_STATION: dict[str, frozenset[str]] = {
    "ocpp1.6": frozenset(
        [
            "CancelReservation",
            "CertificateSigned",
            "ChangeAvailability",
            "ChangeConfiguration",
            "ClearCache",
            "ClearChargingProfile",
            "DataTransfer",
            "DeleteCertificate",
            "ExtendedTriggerMessage",
            "GetCompositeSchedule",
            "GetConfiguration",
            "GetDiagnostics",
            "GetInstalledCertificateIds",
            "GetLocalListVersion",
            "GetLog",
            "InstallCertificate",
            "RemoteStartTransaction",
            "RemoteStopTransaction",
            "ReserveNow",
            "Reset",
            "SendLocalList",
            "SetChargingProfile",
            "SignedUpdateFirmware",
            "TriggerMessage",
            "UnlockConnector",
            "UpdateFirmware",
        ]
    ),
    "ocpp2.0.1": frozenset(
        [
            "CancelReservation",
            "CertificateSigned",
            "ChangeAvailability",
            "ClearCache",
            "ClearChargingProfile",
            "ClearDisplayMessage",
            "ClearVariableMonitoring",
            "CostUpdated",
            "CustomerInformation",
            "DataTransfer",
            "DeleteCertificate",
            "GetBaseReport",
            "GetChargingProfiles",
            "GetCompositeSchedule",
            "GetDisplayMessages",
            "GetInstalledCertificateIds",
            "GetLocalListVersion",
            "GetLog",
            "GetMonitoringReport",
            "GetReport",
            "GetTransactionStatus",
            "GetVariables",
            "InstallCertificate",
            "PublishFirmware",
            "RequestStartTransaction",
            "RequestStopTransaction",
            "ReserveNow",
            "Reset",
            "SendLocalList",
            "SetChargingProfile",
            "SetDisplayMessage",
            "SetMonitoringBase",
            "SetMonitoringLevel",
            "SetNetworkProfile",
            "SetVariableMonitoring",
            "SetVariables",
            "TriggerMessage",
            "UnlockConnector",
            "UnpublishFirmware",
            "UpdateFirmware",
        ]
    ),
}


# What 2.1 adds is not offered: its stations are asked what 2.0.1 has, by 2.1's own schemas.
_TO_STATION["ocpp2.1"] = _TO_STATION["ocpp2.0.1"]


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """`path` is like `.connectorId` or `.evse[0].id`; empty for the whole payload. `keyword` is JSON Schema's."""

    path: str
    keyword: str
    message: str


def actions(version: str) -> frozenset[str]:
    """CALLs that the CSMS may send in this version."""
    return _TO_STATION.get(version, frozenset())


def validate(version: str, action: str, payload: Any) -> list[SchemaFault]:
    """A CALL's payload; empty when it fits. KeyError for an action the version does not have."""
    return _faults(_validator(version, action, "request"), payload)


def validate_answer(version: str, action: str, payload: Any) -> list[SchemaFault]:
    """A CALLRESULT's payload."""
    return _faults(_validator(version, action, "answer"), payload)


@cache
def answer_words(version: str, action: str) -> frozenset[str]:
    """What `status` may be in the answer to this CALL; empty where an answer needs none."""
    answer = schema(version, action, "answer")
    if "status" not in answer.get("required", ()):
        return frozenset()
    status = answer["properties"]["status"]
    if "$ref" in status:
        status = answer["definitions"][status["$ref"].rpartition("/")[2]]
    return frozenset(status.get("enum", ()))


@cache
def answer_needs(version: str, action: str) -> frozenset[str]:
    """The fields without which an answer to this CALL says nothing."""
    return frozenset(schema(version, action, "answer").get("required", ()))


def knows(version: str, action: str) -> bool:
    """Whether this version has such a CALL at all, in either direction; of 2.1 what 2.0.1 has too."""
    return _has("ocpp2.0.1" if version == "ocpp2.1" else version, action)


def is_addition(version: str, action: str) -> bool:
    """A message that came with 2.1, which nobody here sends or handles."""
    return version == "ocpp2.1" and _has(version, action) and not knows(version, action)


def _has(version: str, action: str) -> bool:
    return _is_name(action) and (_folder(version) / _FOLDERS[version][1].format(action)).is_file()


def _is_name(action: str) -> bool:
    """It becomes a file's name: whatever a station sends, it names no folder and none that is too long."""
    return len(action) <= MAX_ACTION and action.isascii() and action.isalnum()


def may_be_answered_empty(version: str, action: str) -> bool:
    """Whether `{}` is a whole answer: true of reports, which say what already happened; false of questions."""
    try:
        return not schema(version, action, "answer").get("required")
    except KeyError:
        return False


def _faults(validator: jsonschema_rs.Draft4Validator | Any, payload: Any) -> list[SchemaFault]:
    return [
        SchemaFault(_path(error.instance_path), _keyword(error), error.message)
        for error in validator.iter_errors(payload)
    ]


def _keyword(error: Any) -> str:
    """The keyword that failed is the last word of the schema's path."""
    words = [part for part in error.schema_path if isinstance(part, str)]
    return words[-1] if words else ""


def _path(parts: list[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


@cache
def _folder(version: str) -> Path:
    spec = find_spec("ocpp")
    if spec is None or spec.origin is None:
        raise RuntimeError("the ocpp package is not installed")
    return Path(spec.origin).parent / _FOLDERS[version][0] / "schemas"


@cache
def schema(version: str, action: str, kind: str) -> dict[str, Any]:
    name = (_FOLDERS[version][1] if kind == "request" else _ANSWERS[version]).format(action)
    path = _folder(version) / name
    if not _is_name(action) or not path.is_file():
        raise KeyError(action)
    return msgspec.json.decode(path.read_text(encoding="utf-8-sig"))


@cache
def _validator(version: str, action: str, kind: str) -> Any:
    return jsonschema_rs.validator_for(schema(version, action, kind))
