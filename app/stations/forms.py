"""Commands as forms: what each does in plain words, in the version the station speaks; and states in words (pure)."""

import json
from dataclasses import dataclass, field
from typing import Any

from app.kernel.errors import Invalid
from app.stations.models import ChargingStation, Connector
from themes.letters import spelled


@dataclass(frozen=True, slots=True)
class Choice:
    """A field of a command's form: a select where `options` are given."""

    name: str
    label: str
    options: tuple[tuple[str, str], ...] = ()
    hint: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    key: str
    title: str
    effect: str
    icon: str
    fields: tuple[Choice, ...] = field(default=())
    is_grave: bool = False


PLATES = (
    ("ac22", "AC 22 kW, Type 2 socket"), ("ac11", "AC 11 kW, Type 2 cable"), ("dc150", "DC 150 kW, CCS"),
    ("dc300", "DC 300 kW, CCS"), ("", "Tell me when it connects"),
)  # fmt: skip
_AC: dict[str, Any] = {"standard": "IEC_62196_T2", "power_type": "AC_3_PHASE", "max_voltage": 230}
_CCS: dict[str, Any] = {"standard": "IEC_62196_T2_COMBO", "format": "CABLE", "power_type": "DC"}
_PLATE_VALUES: dict[str, dict[str, Any]] = {
    "ac22": _AC | {"format": "SOCKET", "max_amperage": 32},
    "ac11": _AC | {"format": "CABLE", "max_amperage": 16},
    "dc150": _CCS | {"max_electric_power": 150_000},
    "dc300": _CCS | {"max_electric_power": 300_000},
}


def evses(form: Any) -> list[dict[str, Any]]:
    """`evse_count` EVSEs of one plate; none where the station shall tell."""
    plate = form.text("plate")
    if not plate:
        return []
    if plate not in _PLATE_VALUES:
        raise Invalid.field("plate", "choice", "Choose one of the connectors.")
    count = form.integer("evse_count") or 0
    if not 1 <= count <= 16:
        raise Invalid.field(
            "evse_count", "out_of_range", "A station has 1 to 16 EVSEs here; it may report more."
        )
    connector = {"connector_no": 1, **_PLATE_VALUES[plate]}
    return [{"evse_no": number, "connectors": [connector]} for number in range(1, count + 1)]


def in_words(connector: Connector) -> str:
    """What a person wants to know: not the word on the wire."""
    by_detail = {
        "Preparing": "Plugged in, waiting for authorisation", "Charging": "Charging",
        "SuspendedEV": "Connected, the car takes no energy", "SuspendedEVSE": "Connected, the station holds back",
        "Finishing": "Finished, still plugged in",
    }  # fmt: skip
    by_status = {
        "Available": "Free", "Occupied": "Plugged in", "Reserved": "Reserved", "Unavailable": "Out of service",
        "Faulted": f"Fault: {connector.error_code or 'no reason given'}", "Unknown": "Not reported yet",
    }  # fmt: skip
    return by_detail.get(connector.detail or "") or by_status[connector.status]


def pretty(raw: str) -> str:
    try:
        raw = json.dumps(json.loads(raw), indent=2, ensure_ascii=False)
    except ValueError:
        pass
    return spelled(raw, layout="\n")


# --- the offered forms -------------------------------------------------------------------------------------------


_MESSAGES = ("BootNotification", "Heartbeat", "StatusNotification", "MeterValues")
_RESETS = {
    True: (("Soft", "Soft: end sessions first"), ("Hard", "Hard: at once")),
    False: (("OnIdle", "When idle"), ("Immediate", "At once")),
}
_STATES = (("yes", "In service"), ("no", "Out of service"))


def offered(version: str, station: ChargingStation) -> list[Offer]:
    numbers = tuple((str(evse.evse_no), f"EVSE {evse.evse_no}") for evse in station.evses) or (
        ("1", "EVSE 1"),
    )
    whole = (("0", "Whole station"), *numbers)
    connectors = tuple(
        (f"{evse.evse_no}.{one.connector_no}", f"EVSE {evse.evse_no}, connector {one.connector_no}")
        for evse in station.evses
        for one in evse.connectors
        if version != "ocpp1.6" and len(evse.connectors) > 1
    )
    is_16 = version == "ocpp1.6"
    key = (
        Choice("key", "Key", hint="Empty: all keys")
        if is_16
        else Choice("key", "Variable", value="HeartbeatInterval")
    )
    variable = (key,) if is_16 else (Choice("component", "Component", value="OCPPCommCtrlr"), key)
    setting = (*(variable[:-1]), Choice("key", key.label, value=key.value), Choice("value", "Value"))
    message = Choice("message", "Message", tuple((one, one) for one in _MESSAGES))
    return [
        Offer("reset", "Restart", "Restarts the station. Running sessions end.", "rotate-cw",
              (Choice("type", "How", _RESETS[is_16]),), True),
        Offer("unlock", "Unlock the cable", "Opens the lock of a connector; ends its session.", "unlock",
              (Choice("evse", "Where", numbers),)),
        Offer("availability", "Take out of service or back", "No new sessions while out of service.", "power",
              (Choice("evse", "What", whole + connectors), Choice("operative", "State", _STATES))),
        Offer("trigger", "Ask for a message", "The station sends it at once.", "send",
              (message, Choice("evse", "About", whole))),
        Offer("get", "Read configuration", "Shows what is set on the station.", "eye", variable),
        Offer("set", "Change configuration", "Changes a setting on the station; secrets are never shown again.",
              "pencil", setting, True),
    ]  # fmt: skip


def read(version: str, form: Any) -> tuple[str, dict[str, Any]]:
    """(action, payload) as on the wire."""
    key = form.text("form")
    if not key:
        return form.text("action"), _raw(form.text("payload") or "{}")
    readers = {
        "reset": _reset, "unlock": _unlock, "trigger": _trigger, "get": _get, "set": _set,
    }  # fmt: skip
    if key not in readers:
        raise Invalid.field("form", "choice", "There is no such form.")
    return readers[key](version == "ocpp1.6", form)


def _raw(text: str) -> dict[str, Any]:
    try:
        payload = json.loads(text)
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        raise Invalid.field("payload", "json", "The payload is a JSON object, such as {}.")
    return payload


def _reset(_is_16: bool, form: Any) -> tuple[str, dict[str, Any]]:
    return "Reset", {"type": form.text("type")}


def _unlock(is_16: bool, form: Any) -> tuple[str, dict[str, Any]]:
    number = form.integer("evse") or 1
    return "UnlockConnector", {"connectorId": number} if is_16 else {"evseId": number, "connectorId": 1}


def availability_place(form: Any) -> tuple[int, int]:
    """EVSE and connector of the availability form; 0 is all of it."""
    evse, _, connector = form.text("evse").partition(".")
    if not (evse or "0").isdecimal() or not (connector or "0").isdecimal() or len(evse + connector) > 4:
        raise Invalid.field("evse", "choice", "Choose one of the places.")
    return int(evse or 0), int(connector or 0)


def _trigger(is_16: bool, form: Any) -> tuple[str, dict[str, Any]]:
    number, message = form.integer("evse") or 0, form.text("message")
    about: dict[str, Any] = {}
    if number:
        about = {"connectorId": number} if is_16 else {"evse": {"id": number, "connectorId": 1}}
    return "TriggerMessage", {"requestedMessage": message} | about


def _get(is_16: bool, form: Any) -> tuple[str, dict[str, Any]]:
    key = form.text("key")
    if is_16:
        return "GetConfiguration", {"key": [key]} if key else {}
    wanted = {"component": {"name": form.text("component")}, "variable": {"name": key}}
    return "GetVariables", {"getVariableData": [wanted]}


def _set(is_16: bool, form: Any) -> tuple[str, dict[str, Any]]:
    key, value = form.text("key"), form.text("value")
    if is_16:
        return "ChangeConfiguration", {"key": key, "value": value}
    wanted = {
        "component": {"name": form.text("component")},
        "variable": {"name": key},
        "attributeValue": value,
    }
    return "SetVariables", {"setVariableData": [wanted]}
