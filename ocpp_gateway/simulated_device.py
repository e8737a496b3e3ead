"""What simulated 2.0.1 stations tell of themselves: variables and reports (block B), monitors and events (N), messages
on the display (O), what they keep of a customer (N09), and the certificates they trust (M); 1.6 stations the last.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ocpp_gateway.simulated_answers import Answer, Payload, stamp

STATES = "Available,Occupied,Reserved,Unavailable,Faulted"
# component, variable, value, type, unit, how it may be changed, what it may be (list, or highest)
INVENTORY = (
    ("ChargingStation", "Model", "", "string", "", "ReadOnly", ""),
    ("ChargingStation", "VendorName", "Livery Works", "string", "", "ReadOnly", ""),
    ("ChargingStation", "AvailabilityState", "Available", "OptionList", "", "ReadOnly", STATES),
    ("Controller", "Temperature", "31", "decimal", "Celsius", "ReadOnly", ""),
    ("OCPPCommCtrlr", "HeartbeatInterval", "300", "integer", "s", "ReadWrite", "86400"),
    ("OCPPCommCtrlr", "RetryBackOffWaitMinimum", "5", "integer", "s", "ReadWrite", "3600"),
    ("OCPPCommCtrlr", "NetworkConfigurationPriority", "1", "SequenceList", "", "ReadWrite", ""),
    ("SecurityCtrlr", "BasicAuthPassword", "", "string", "", "WriteOnly", ""),
    ("SecurityCtrlr", "OrganizationName", "", "string", "", "ReadWrite", ""),
    ("AuthCtrlr", "AuthorizeRemoteStart", "false", "boolean", "", "ReadWrite", ""),
    ("AuthCtrlr", "OfflineTxForUnknownIdEnabled", "true", "boolean", "", "ReadWrite", ""),
    ("LocalAuthListCtrlr", "Enabled", "true", "boolean", "", "ReadWrite", ""),
    ("LocalAuthListCtrlr", "ItemsPerMessage", "100", "integer", "", "ReadOnly", ""),
    ("TxCtrlr", "EVConnectionTimeOut", "120", "integer", "s", "ReadWrite", "600"),
    ("TxCtrlr", "StopTxOnInvalidId", "true", "boolean", "", "ReadWrite", ""),
    ("SampledDataCtrlr", "TxUpdatedInterval", "5", "integer", "s", "ReadWrite", "3600"),
    ("SampledDataCtrlr", "TxUpdatedMeasurands", "Energy.Active.Import.Register,Power.Active.Import,SoC", "MemberList",
     "", "ReadWrite", "Energy.Active.Import.Register,Power.Active.Import,SoC,Voltage,Current.Import"),
    ("SmartChargingCtrlr", "Enabled", "true", "boolean", "", "ReadWrite", ""),
    ("SmartChargingCtrlr", "ProfileStackLevel", "8", "integer", "", "ReadOnly", ""),
    ("SmartChargingCtrlr", "RateUnit", "W,A", "MemberList", "", "ReadOnly", "W,A"),
    ("DisplayMessageCtrlr", "DisplayMessages", "0", "integer", "", "ReadOnly", "8"),
    ("DisplayMessageCtrlr", "SupportedPriorities", "AlwaysFront,InFront,NormalCycle", "MemberList", "", "ReadOnly", ""),
    ("MonitoringCtrlr", "Enabled", "true", "boolean", "", "ReadWrite", ""),
    ("ClockCtrlr", "TimeZone", "Europe/Berlin", "string", "", "ReadWrite", ""),
)  # fmt: skip
OF_EVSE = (
    ("EVSE", "AvailabilityState", "Available", "OptionList", "", "ReadOnly", STATES),
    ("EVSE", "Power", "0", "decimal", "W", "ReadOnly", ""),
    ("EVSE", "Temperature", "20", "decimal", "Celsius", "ReadOnly", ""),
    ("EVSE", "Problem", "false", "boolean", "", "ReadOnly", ""),
    ("Connector", "ConnectorType", "", "string", "", "ReadOnly", ""),
)  # fmt: skip
NUMBERS = {"integer": int, "decimal": float}
PART_SIZE = DISPLAY_PLACES = 8


@dataclass(slots=True)
class Variable:
    component: str
    name: str
    value: str
    kind: str
    unit: str
    mutability: str
    bounds: str
    evse_no: int | None = None

    def path(self) -> Payload:
        component: Payload = {"name": self.component}
        if self.evse_no is not None:
            component["evse"] = {"id": self.evse_no}
        return {"component": component, "variable": {"name": self.name}}

    def report(self) -> Payload:
        attribute: Payload = {"mutability": self.mutability, "persistent": self.mutability != "ReadOnly"}
        if self.mutability != "WriteOnly":
            attribute["value"] = self.value
        told: Payload = {
            "dataType": self.kind,
            "supportsMonitoring": self.kind in (*NUMBERS, "boolean", "OptionList"),
        }
        if self.unit:
            told["unit"] = self.unit
        if self.bounds and self.kind in NUMBERS:
            told |= {"minLimit": 0, "maxLimit": int(self.bounds)}
        elif self.bounds:
            told["valuesList"] = self.bounds
        return self.path() | {"variableAttribute": [attribute], "variableCharacteristics": told}

    def takes(self, value: str) -> bool:
        if self.kind in NUMBERS:
            try:
                number = NUMBERS[self.kind](value)
            except ValueError:
                return False
            return number >= 0 and (not self.bounds or number <= int(self.bounds))
        if self.kind == "boolean":
            return value in ("true", "false")
        return not self.bounds or set(value.split(",")) <= set(self.bounds.split(","))


@dataclass(slots=True)
class Monitor:
    number: int
    variable: Variable
    kind: str
    value: float
    severity: int
    in_transactions_only: bool
    is_over: bool = False
    last: float | None = None

    def report(self) -> Payload:
        return {"id": self.number, "transaction": self.in_transactions_only, "value": self.value, "type": self.kind,
                "severity": self.severity}  # fmt: skip


@dataclass(slots=True)
class Device:
    """One station's."""

    station: Any
    variables: list[Variable] = field(default_factory=list)
    monitors: dict[int, Monitor] = field(default_factory=dict)
    level: int = 9
    messages: dict[int, Payload] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)  # a card's value, small -> when it charged last
    trusted: list[tuple[str, Payload]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.variables = [Variable(*row) for row in INVENTORY]
        for evse in self.station.evses:
            self.variables += [Variable(*row, evse_no=evse.number) for row in OF_EVSE]
            self._named("Connector", "ConnectorType", evse.number).value = "cType2"
        self._named("ChargingStation", "Model").value = self.station.model

    def table(self) -> dict[str, Answer]:
        trust = {
            "InstallCertificate": self.install, "DeleteCertificate": self.delete,
            "GetInstalledCertificateIds": self.tell_installed,
        }  # fmt: skip
        if self.station.is_16:
            return trust
        return trust | {
            "GetVariables": self.get_variables, "SetVariables": self.set_variables,
            "GetBaseReport": self.base_report, "GetReport": self.chosen_report,
            "SetVariableMonitoring": self.set_monitors, "ClearVariableMonitoring": self.clear_monitors,
            "GetMonitoringReport": self.tell_monitors, "SetMonitoringBase": self.set_base,
            "SetMonitoringLevel": self.set_level, "SetDisplayMessage": self.show, "ClearDisplayMessage": self.unshow,
            "GetDisplayMessages": self.tell_messages, "CustomerInformation": self.tell_customer,
            "SetNetworkProfile": lambda _asked: {"status": "Accepted"},
        }  # fmt: skip

    # -- variables ----

    def _named(self, component: str, name: str, evse_no: int | None = None) -> Variable:
        return next(
            one
            for one in self.variables
            if (one.component, one.name, one.evse_no) == (component, name, evse_no)
        )

    def told(self, component: str, name: str) -> str:
        return self._named(component, name).value

    def _find(self, asked: Payload) -> Variable | str:
        """A variable, or the word for what is unknown."""
        component, name = asked["component"], asked["variable"]["name"]
        evse_no = component.get("evse", {}).get("id")
        found = [
            one for one in self.variables if (one.component, one.evse_no) == (component["name"], evse_no)
        ]
        if not found:
            return "UnknownComponent"
        return next((one for one in found if one.name == name), "UnknownVariable")

    def get_variables(self, asked: Payload) -> Payload:
        return {"getVariableResult": [self._read(one) for one in asked["getVariableData"]]}

    def _read(self, asked: Payload) -> Payload:
        found = self._find(asked)
        answer = {"component": asked["component"], "variable": asked["variable"]}
        if asked.get("attributeType", "Actual") != "Actual":
            return answer | {
                "attributeStatus": "NotSupportedAttributeType",
                "attributeType": asked["attributeType"],
            }
        if isinstance(found, str):
            return answer | {"attributeStatus": found}
        if found.mutability == "WriteOnly":
            return answer | {"attributeStatus": "Rejected"}
        return answer | {"attributeStatus": "Accepted", "attributeValue": found.value}

    def set_variables(self, asked: Payload) -> Payload:
        return {"setVariableResult": [
            {"component": one["component"], "variable": one["variable"], "attributeStatus": self._write(one)}
            for one in asked["setVariableData"]
        ]}  # fmt: skip

    def _write(self, asked: Payload) -> str:
        found, value = self._find(asked), asked["attributeValue"]
        if isinstance(found, str):
            return found
        if found.mutability == "ReadOnly" or not found.takes(value):
            return "Rejected"
        if found.name == "BasicAuthPassword":
            return self.station.set_variable(found.name, value)
        self.change(found, value)
        return "Accepted"

    def change(self, variable: Variable, value: str) -> None:
        """It is so now; monitors look at it."""
        variable.value = value
        for monitor in list(self.monitors.values()):
            if monitor.variable is variable:
                self._look(monitor)

    def evse_is(self, evse_no: int, **values: str) -> None:
        """What an EVSE tells by its variables: `Power`, `Temperature`, `Problem`, `AvailabilityState`."""
        if not self.station.is_16:
            for name, value in values.items():
                self.change(self._named("EVSE", name, evse_no), value)

    def base_report(self, asked: Payload) -> Payload:
        wanted = self.variables
        if asked["reportBase"] == "ConfigurationInventory":
            wanted = [one for one in wanted if one.mutability != "ReadOnly"]
        elif asked["reportBase"] == "SummaryInventory":
            wanted = [one for one in wanted if one.name in ("AvailabilityState", "Problem", "Model")]
        return self._reports(asked["requestId"], wanted)

    def chosen_report(self, asked: Payload) -> Payload:
        wanted = self.variables
        if "componentVariable" in asked:
            told = [
                (part["name"], part.get("evse", {}).get("id"), one.get("variable", {}).get("name"))
                for one in asked["componentVariable"]
                if (part := one["component"])
            ]  # fmt: skip
            wanted = [
                one for one in wanted
                if any((c, e) == (one.component, one.evse_no) and v in (None, one.name) for c, e, v in told)
            ]  # fmt: skip
        if criteria := asked.get("componentCriteria"):
            wanted = wanted if set(criteria) & {"Active", "Available", "Enabled"} else []
            if "Problem" in criteria:
                broken = {
                    one.evse_no for one in self.variables if (one.name, one.value) == ("Problem", "true")
                }
                wanted += [one for one in self.variables if one.evse_no in broken and one not in wanted]
        return self._reports(asked["requestId"], wanted)

    def _reports(self, request_id: int, wanted: list[Variable]) -> Payload:
        if not wanted:
            return {"status": "EmptyResultSet"}
        parts = [
            [one.report() for one in wanted[n : n + PART_SIZE]] for n in range(0, len(wanted), PART_SIZE)
        ]

        async def report() -> None:
            for number, part in enumerate(parts):
                await self.station.say("NotifyReport", {
                    "requestId": request_id, "generatedAt": stamp(), "seqNo": number, "tbc": number < len(parts) - 1,
                    "reportData": part,
                })  # fmt: skip

        self.station._later(report())
        return {"status": "Accepted"}

    # -- monitors and events ----

    def set_monitors(self, asked: Payload) -> Payload:
        return {"setMonitoringResult": [self._monitor(one) for one in asked["setMonitoringData"]]}

    def _monitor(self, asked: Payload) -> Payload:
        answer = {name: asked[name] for name in ("type", "severity", "component", "variable")}
        found = self._find(asked)
        if isinstance(found, str):
            return answer | {"status": found}
        if found.kind not in NUMBERS and asked["type"].endswith("Threshold"):
            return answer | {"status": "UnsupportedMonitorType"}
        number = asked.get("id") or next(self._numbers)
        self.monitors[number] = Monitor(
            number, found, asked["type"], asked["value"], asked["severity"], asked.get("transaction", False)
        )
        self._look(self.monitors[number])
        return answer | {"status": "Accepted", "id": number}

    def clear_monitors(self, asked: Payload) -> Payload:
        return {"clearMonitoringResult": [
            {"id": number, "status": "Accepted" if self.monitors.pop(number, None) else "NotFound"}
            for number in asked["id"]
        ]}  # fmt: skip

    def tell_monitors(self, asked: Payload) -> Payload:
        wanted = list(self.monitors.values())
        if "componentVariable" in asked:
            named = [self._find({"variable": {"name": ""}} | one) for one in asked["componentVariable"]]
            wanted = [one for one in wanted if one.variable in named]
        if not wanted:
            return {"status": "EmptyResultSet"}

        async def report() -> None:
            for number, one in enumerate(wanted):
                await self.station.say("NotifyMonitoringReport", {
                    "requestId": asked["requestId"], "generatedAt": stamp(), "seqNo": number,
                    "tbc": number < len(wanted) - 1,
                    "monitor": [one.variable.path() | {"variableMonitoring": [one.report()]}],
                })  # fmt: skip

        self.station._later(report())
        return {"status": "Accepted"}

    def set_base(self, asked: Payload) -> Payload:
        if asked["monitoringBase"] != "All":
            self.monitors.clear()
        return {"status": "Accepted"}

    def set_level(self, asked: Payload) -> Payload:
        self.level = asked["severity"]
        return {"status": "Accepted"}

    def _look(self, monitor: Monitor) -> None:
        """Thresholds by crossing them, a delta by the difference to what was told last; others keep quiet."""
        variable = monitor.variable
        if monitor.in_transactions_only and not any(
            evse.transaction for evse in self.station.evses if variable.evse_no in (None, evse.number)
        ):
            return
        value = float(variable.value) if variable.kind in NUMBERS else 0.0
        if monitor.kind == "Delta":
            last, monitor.last = monitor.last, value
            if last is not None and abs(value - last) >= monitor.value:
                self.notice(variable, "CustomMonitor", trigger="Delta", monitor=monitor)
            elif last is not None:
                monitor.last = last
            return
        is_upper = monitor.kind == "UpperThreshold"
        if monitor.kind not in ("UpperThreshold", "LowerThreshold"):
            return
        is_over = value > monitor.value if is_upper else value < monitor.value
        if is_over != monitor.is_over:
            monitor.is_over = is_over
            self.notice(
                variable, "CustomMonitor", trigger="Alerting", monitor=monitor, is_cleared=not is_over
            )

    def notice(
        self, variable: Variable, kind: str, *, trigger: str, monitor: Monitor | None = None, is_cleared: bool = False,
        text: str = "",
    ) -> None:  # fmt: skip
        """NotifyEvent, unless its monitor is less grave than what the station shall tell."""
        if self.station.is_16 or (monitor is not None and monitor.severity > self.level):
            return
        event: Payload = {
            "eventId": next(self._numbers), "timestamp": stamp(), "trigger": trigger, "actualValue": variable.value,
            "eventNotificationType": kind, "cleared": is_cleared, **variable.path(),
        }  # fmt: skip
        if monitor is not None:
            event["variableMonitoringId"] = monitor.number
        if text:
            event["techInfo"] = text
        told = {"generatedAt": stamp(), "seqNo": 0, "tbc": False, "eventData": [event]}
        self.station._later(self.station.say("NotifyEvent", told))

    def evse_failed(self, evse_no: int, has_failed: bool) -> None:
        """Hard-wired: nobody has to ask for it."""
        if not self.station.is_16:
            variable = self._named("EVSE", "Problem", evse_no)
            variable.value = "true" if has_failed else "false"
            self.notice(variable, "HardWiredNotification", trigger="Alerting", is_cleared=not has_failed,
                        text="Ground failure" if has_failed else "")  # fmt: skip

    # -- the display ----

    def show(self, asked: Payload) -> Payload:
        message = asked["message"]
        if message["message"]["format"] not in ("UTF8", "ASCII"):
            return {"status": "NotSupportedMessageFormat"}
        running = {evse.transaction for evse in self.station.evses}
        if message.get("transactionId") not in (None, *running):
            return {"status": "UnknownTransaction"}
        if len(self.messages) >= DISPLAY_PLACES and message["id"] not in self.messages:
            return {"status": "Rejected"}
        if message["priority"] == "AlwaysFront":  # O01.FR.10: only one at a time
            self.messages = {
                number: one for number, one in self.messages.items() if one["priority"] != "AlwaysFront"
            }
        self.messages[message["id"]] = message
        return {"status": "Accepted"}

    def unshow(self, asked: Payload) -> Payload:
        return {"status": "Accepted" if self.messages.pop(asked["id"], None) else "Unknown"}

    def tell_messages(self, asked: Payload) -> Payload:
        found = [
            one for one in self.messages.values()
            if one["id"] in (asked.get("id") or [one["id"]])
            and asked.get("priority") in (None, one["priority"]) and asked.get("state") in (None, one.get("state"))
        ]  # fmt: skip
        if not found:
            return {"status": "Unknown"}
        told = {"requestId": asked["requestId"], "messageInfo": found, "tbc": False}
        self.station._later(self.station.say("NotifyDisplayMessages", told))
        return {"status": "Accepted"}

    # -- customers ----

    def tell_customer(self, asked: Payload) -> Payload:
        card = asked.get("idToken", {}).get("idToken") or asked.get("customerIdentifier", "")
        when = self.customers.pop(card.lower(), None) if asked["clear"] else self.customers.get(card.lower())
        known = self.station.energy.local_list.get(card.lower())
        facts = ([f"charged last on {when}"] if when else []) + ([f"local list: {known}"] if known else [])
        text = f"{card}: {', '.join(facts)}" if facts and asked["report"] else ""
        told = {
            "requestId": asked["requestId"],
            "seqNo": 0,
            "tbc": False,
            "generatedAt": stamp(),
            "data": text,
        }
        self.station._later(self.station.say("NotifyCustomerInformation", told))
        return {"status": "Accepted"}

    # -- certificates ----

    def install(self, asked: Payload) -> Payload:
        try:
            made = x509.load_pem_x509_certificate(asked["certificate"].encode())
        except ValueError:
            return {"status": "Rejected"}
        if made.not_valid_after_utc < datetime.now(UTC):
            return {"status": "Rejected"}
        row = (asked["certificateType"], hash_data(made))
        if row not in self.trusted:
            self.trusted.append(row)
        return {"status": "Accepted"}

    def delete(self, asked: Payload) -> Payload:
        kept = [row for row in self.trusted if row[1] != asked["certificateHashData"]]
        is_found = len(kept) < len(self.trusted)
        self.trusted = kept
        return {"status": "Accepted" if is_found else "NotFound"}

    def tell_installed(self, asked: Payload) -> Payload:
        wanted = asked.get("certificateType")
        wanted = [wanted] if isinstance(wanted, str) else wanted
        found = [row for row in self.trusted if not wanted or row[0] in wanted]
        if not found:
            return {"status": "NotFound"}
        if self.station.is_16:
            return {"status": "Accepted", "certificateHashData": [told for _, told in found]}
        rows = [{"certificateType": kind, "certificateHashData": told} for kind, told in found]
        return {"status": "Accepted", "certificateHashDataChain": rows}


def hash_data(made: x509.Certificate) -> Payload:
    """RFC 6960's CertID of a root, which is its own issuer."""
    public = made.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        key = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    else:
        key = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    return {
        "hashAlgorithm": "SHA256", "issuerNameHash": _sha256(made.issuer.public_bytes()),
        "issuerKeyHash": _sha256(key), "serialNumber": f"{made.serial_number:x}",
    }  # fmt: skip


def _sha256(content: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(content)
    return digest.finalize().hex()
