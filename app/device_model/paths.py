"""One name for a component's variable: `OCPPCommCtrlr/HeartbeatInterval`, `EVSE@1/AvailabilityState`,
`DeviceDataCtrlr/ItemsPerMessage[GetVariables]`, `Connector@1.2/Available`; in 1.6 the bare key (pure).

OCPP compares these names without case. What is no plain character in a name is percent-encoded, so that every path
reads back to exactly one variable.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from app.kernel.errors import Invalid

_PLAIN = " :+|=*,#()"
_PATH = re.compile(
    r"(?:(?P<component>[^/\[\]@]+)(?:\[(?P<instance>[^/\[\]@]+)\])?(?:@(?P<evse>\d{1,9})(?:\.(?P<connector>\d{1,9}))?)?/)?"
    r"(?P<variable>[^/\[\]@]+)(?:\[(?P<variable_instance>[^/\[\]@]+)\])?"
)


@dataclass(frozen=True, slots=True)
class VariablePath:
    """OCPP 2.0.1's ComponentType and VariableType in one; `component` is empty for a key of 1.6."""

    variable: str
    component: str = ""
    instance: str = ""
    evse_no: int | None = None
    connector_no: int | None = None
    variable_instance: str = ""

    def __str__(self) -> str:
        return (f"{self.part}/" if self.component else "") + _named(self.variable, self.variable_instance)

    @property
    def part(self) -> str:
        """The component alone: `EVSE@1`."""
        where = "" if self.evse_no is None else f"@{self.evse_no}"
        where += "" if self.connector_no is None or not where else f".{self.connector_no}"
        return _named(self.component, self.instance) + where if self.component else ""

    @property
    def key(self) -> str:
        return str(self).lower()

    def wire(self) -> dict[str, Any]:
        """`component` and `variable` as 2.x has them on the wire."""
        return {"component": self.wire_component(), "variable": self.wire_variable()}

    def wire_component(self) -> dict[str, Any]:
        component: dict[str, Any] = {"name": self.component}
        if self.instance:
            component["instance"] = self.instance
        if self.evse_no is not None:
            component["evse"] = {"id": self.evse_no}
            if self.connector_no is not None:
                component["evse"]["connectorId"] = self.connector_no
        return component

    def wire_variable(self) -> dict[str, Any]:
        return {"name": self.variable} | (
            {"instance": self.variable_instance} if self.variable_instance else {}
        )


def _named(name: str, instance: str) -> str:
    return quote(name, safe=_PLAIN) + (f"[{quote(instance, safe=_PLAIN)}]" if instance else "")


def parse_path(text: str) -> VariablePath:
    """Invalid for what names nothing."""
    found = _PATH.fullmatch(text.strip()) if len(text) <= 400 else None
    if found is None:
        raise Invalid.field(
            "path", "path", "A variable is named Component/Variable, a key of OCPP 1.6 by itself."
        )
    parts = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
    return VariablePath(
        variable=parts["variable"], component=parts.get("component", ""), instance=parts.get("instance", ""),
        evse_no=int(parts["evse"]) if "evse" in parts else None,
        connector_no=int(parts["connector"]) if "connector" in parts else None,
        variable_instance=parts.get("variable_instance", ""),
    )  # fmt: skip
