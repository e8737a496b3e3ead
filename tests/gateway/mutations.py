"""Frames that are nearly OCPP: valid CALLs made from the schemas, then damaged by a seed. Pure."""

import copy
import json
import random
import string
from typing import Any

from app.stations import ocpp_schemas

NASTY: tuple[Any, ...] = (
    None, True, [], {}, "", " ", 0, -1, 2**31, 2**63, 10**400, 1e308, -0.0, "NaN", "1e999", "12,5", "\u202e", "\u0000",
    "'; drop table", "<script>alert(1)</script>", "{{7*7}}", "=1+1", "A" * 5000, "é" * 300, "2026-13-45T99:99:99Z",
    "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]], {"a": {"b": {"c": {}}}},
)  # fmt: skip
FROM_STATION = {
    "ocpp1.6": (
        "Authorize", "BootNotification", "DataTransfer", "DiagnosticsStatusNotification", "FirmwareStatusNotification",
        "Heartbeat", "LogStatusNotification", "MeterValues", "SecurityEventNotification", "SignCertificate",
        "SignedFirmwareStatusNotification", "StartTransaction", "StatusNotification", "StopTransaction",
    ),
    "ocpp2.0.1": (
        "Authorize", "BootNotification", "ClearedChargingLimit", "DataTransfer", "FirmwareStatusNotification",
        "Get15118EVCertificate", "GetCertificateStatus", "Heartbeat", "LogStatusNotification", "MeterValues",
        "NotifyChargingLimit", "NotifyCustomerInformation", "NotifyDisplayMessages", "NotifyEVChargingNeeds",
        "NotifyEVChargingSchedule", "NotifyEvent", "NotifyMonitoringReport", "NotifyReport",
        "PublishFirmwareStatusNotification", "ReportChargingProfiles", "ReservationStatusUpdate",
        "SecurityEventNotification", "SignCertificate", "StatusNotification", "TransactionEvent",
    ),
}  # fmt: skip

TO_STATION = {
    "ocpp1.6": (
        "CancelReservation", "ChangeAvailability", "ChangeConfiguration", "ClearCache", "ClearChargingProfile",
        "GetCompositeSchedule", "GetConfiguration", "GetDiagnostics", "GetLocalListVersion", "RemoteStartTransaction",
        "RemoteStopTransaction", "Reset", "SendLocalList", "SetChargingProfile", "TriggerMessage", "UnlockConnector",
    ),
    "ocpp2.0.1": (
        "ChangeAvailability", "ClearChargingProfile", "GetBaseReport", "GetCompositeSchedule", "GetLocalListVersion",
        "GetVariables", "InstallCertificate", "RequestStartTransaction", "RequestStopTransaction", "Reset",
        "SendLocalList", "SetChargingProfile", "SetVariables", "TriggerMessage", "UnlockConnector",
    ),
}  # fmt: skip


class Mutator:
    """`frame` damages CALLs anywhere; `message` mixes these with what gets further than the reading."""

    def __init__(self, version: str, rng: random.Random) -> None:
        self.version, self.rng, self._count = version, rng, 0
        self._last: list[str] = []

    def message(self) -> str | bytes:
        """What a whole link carries: a frame damaged anywhere, a CALL that is one beyond doubt and damaged in its
        payload, an answer that nobody asked for, or one of the last frames once more."""
        draw = self.rng.random()
        if draw < 0.15 and self._last:
            return self.rng.choice(self._last)
        made = self.frame() if draw < 0.3 else self._call() if draw < 0.65 else self._answer()
        if isinstance(made, str) and len(made) < 4000:
            self._last = [*self._last[-9:], made]
        return made

    def _call(self) -> str:
        self._count += 1
        action = self.rng.choice(FROM_STATION[self.version])
        return self._damaged_in(3, [2, f"z{self._count}", action, self._payload(action)])

    def _answer(self) -> str:
        self._count += 1
        if self.rng.random() < 0.2:
            return self._damaged_in(4, [4, f"z{self._count}", "InternalError", "text", {"a": {"b": [1]}}])
        action = self.rng.choice(TO_STATION[self.version])
        schema = ocpp_schemas.schema(self.version, action, "response")
        return self._damaged_in(
            2, [3, f"z{self._count}", self._value(schema, schema.get("definitions", {}), 0)]
        )

    def _damaged_in(self, place: int, frame: Any) -> str:
        for _ in range(self.rng.choice((1, 1, 1, 2, 4))):
            if frame[place]:
                self._damage(frame[place])
        return json.dumps(frame, ensure_ascii=self.rng.random() < 0.5)

    def frame(self) -> str | bytes:
        """One frame: sound now and then, else damaged once or a few times, as JSON or as bytes."""
        self._count += 1
        action = self.rng.choice(FROM_STATION[self.version])
        frame: Any = [2, f"z{self._count}", action, self._payload(action)]
        for _ in range(self.rng.choice((0, 1, 1, 1, 2, 4))):
            frame = self._damage(frame)
        raw = json.dumps(frame, ensure_ascii=self.rng.random() < 0.5)
        for _ in range(self.rng.choice((0, 0, 0, 1, 3))):
            raw = self._scratch(raw)
        if self.rng.random() < 0.01:
            return raw.encode("utf-8", "replace")
        return raw

    # -- sound payloads, from the schema --------------------------------------------------------------------------

    def _payload(self, action: str) -> Any:
        schema = ocpp_schemas.schema(self.version, action, "request")
        return self._value(schema, schema.get("definitions", {}), 0)

    def _value(self, schema: dict[str, Any], definitions: dict[str, Any], depth: int) -> Any:
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        kind = schema.get("type")
        if kind == "object":
            wanted, all_ = set(schema.get("required", ())), schema.get("properties", {})
            names = [n for n in all_ if n in wanted or (depth < 3 and self.rng.random() < 0.4)]
            return {name: self._value(all_[name], definitions, depth + 1) for name in names}
        if kind == "array":
            count = self.rng.randint(max(schema.get("minItems", 0), 1), 3)
            return [self._value(schema.get("items", {}), definitions, depth + 1) for _ in range(count)]
        if kind == "integer":
            return self.rng.choice((0, 1, 2, self.rng.randint(0, 10**6)))
        if kind == "number":
            return round(self.rng.uniform(0, 10**5), 2)
        if kind == "boolean":
            return self.rng.random() < 0.5
        if schema.get("format") == "date-time":
            return f"2026-11-{self.rng.randint(1, 30):02d}T{self.rng.randint(0, 23):02d}:00:00Z"
        letters = string.ascii_letters + string.digits
        return "".join(self.rng.choices(letters, k=self.rng.randint(1, min(schema.get("maxLength", 20), 20))))

    # -- damage ---------------------------------------------------------------------------------------------------

    def _damage(self, frame: Any) -> Any:
        """Somewhere in it something is replaced, left out, doubled or put under another name."""
        paths = list(_paths(frame))
        parent, key = self.rng.choice(paths)
        what = self.rng.random()
        if what < 0.55:
            parent[key] = copy.deepcopy(self.rng.choice(NASTY))
        elif what < 0.7 and isinstance(parent, dict):
            parent[self.rng.choice(("x", "customData", "", key + "x"))] = parent.pop(key)
        elif what < 0.85:
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(self.rng.randint(0, len(parent)), copy.deepcopy(self.rng.choice(NASTY)))
        else:
            parent[key] = [parent[key]] * self.rng.randint(2, 40)
        return frame

    def _scratch(self, raw: str) -> str:
        at = self.rng.randint(0, max(len(raw) - 1, 0))
        what = self.rng.random()
        if what < 0.3:
            return raw[:at] + raw[at + self.rng.randint(1, 8) :]
        if what < 0.6:
            return raw[:at] + self.rng.choice('{}[]",:0-\\\x7f\ud7ff€') + raw[at + 1 :]
        if what < 0.8:
            return raw[:at]
        return raw[:at] + raw[at : at + 30] + raw[at:]


def _paths(value: Any) -> Any:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(children):
        yield value, key
        if isinstance(child, dict | list):
            yield from _paths(child)
