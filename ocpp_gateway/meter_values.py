"""Sampled values -> Wh, W, A, V and per cent (pure). What is no number is kept as it came, and not used."""

import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from app.charging.reports import ENERGY, Reading
from ocpp_gateway import lenient

# Unit as stations spell it -> ours, and the factor.
_UNITS: dict[str, tuple[str, Decimal]] = {
    "wh": ("Wh", Decimal(1)), "kwh": ("Wh", Decimal(1000)), "varh": ("varh", Decimal(1)),
    "kvarh": ("varh", Decimal(1000)), "w": ("W", Decimal(1)), "kw": ("W", Decimal(1000)), "va": ("VA", Decimal(1)),
    "kva": ("VA", Decimal(1000)), "var": ("var", Decimal(1)), "kvar": ("var", Decimal(1000)), "a": ("A", Decimal(1)),
    "ma": ("A", Decimal("0.001")), "v": ("V", Decimal(1)), "kv": ("V", Decimal(1000)),
    "percent": ("Percent", Decimal(1)), "%": ("Percent", Decimal(1)), "celsius": ("Celsius", Decimal(1)),
    "celcius": ("Celsius", Decimal(1)), "c": ("Celsius", Decimal(1)), "hz": ("Hz", Decimal(1)),
    "hertz": ("Hz", Decimal(1)),
}  # fmt: skip
_DEFAULT_UNIT = {
    "Energy": "Wh", "Power": "W", "Current": "A", "Voltage": "V", "SoC": "Percent", "Temperature": "Celsius",
    "Frequency": "Hz",
}  # fmt: skip
_PHASES = ("L1", "L2", "L3", "N", "L1-N", "L2-N", "L3-N", "L1-L2", "L2-L3", "L3-L1")
_CONTEXTS = frozenset({
    "Interruption.Begin", "Interruption.End", "Other", "Sample.Clock", "Sample.Periodic", "Transaction.Begin",
    "Transaction.End", "Trigger",
})  # fmt: skip
_LOCATIONS = frozenset({"Body", "Cable", "EV", "Inlet", "Outlet", "Upstream"})
LIMIT = Decimal(10) ** 15
MAX_VALUES = 500


def normalise(meter_value: Any, received_at: datetime) -> list[Reading]:
    """`meterValue` of 1.6 or 2.x: a list, or an object where a list should be (Huawei), or 1.5's `values`."""
    found: list[Reading] = []
    for entry in _as_list(meter_value)[:MAX_VALUES]:
        if not isinstance(entry, dict):
            continue
        station_at = lenient.moment(entry.get("timestamp"))
        sampled_at, doubtful = lenient.plausible(station_at, received_at)
        for sample in _samples(entry):
            reading = _reading(
                sample, sampled_at, received_at, station_at if doubtful or station_at != sampled_at else None
            )
            if reading is not None:
                found.append(reading)
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, dict) else []


def _samples(entry: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for key in ("sampledValue", "values", "value"):
        samples = [item for item in _as_list(entry.get(key)) if isinstance(item, dict)]
        if samples:
            return samples
    return []


def _reading(
    sample: dict[str, Any], sampled_at: datetime, received_at: datetime, station_at: datetime | None
) -> Reading | None:
    raw = sample.get("value", sample.get("$value", sample.get("$")))
    if raw is None or raw == "" or isinstance(raw, dict | list | bool):
        return None  # an empty sample says nothing (ocpp.md 3, no. 43)
    measurand, phase = measurand_of(str(sample.get("measurand") or ""), str(sample.get("phase") or ""))
    unit, factor = unit_of(sample, measurand)
    signed = sample.get("format") == "SignedData"
    number = None if signed else number_of(raw, factor)
    context, location = context_of(str(sample.get("context"))), location_of(str(sample.get("location")))
    signed_data = str(raw) if signed else _signed(sample)
    return Reading(
        measurand=measurand, phase=phase, unit=unit, value=number,
        raw_value=str(raw)[:200], sampled_at=sampled_at, received_at=received_at, station_at=station_at,
        context=context, location=location, signed_data=signed_data,
    )  # fmt: skip


def context_of(said: str) -> str:
    return said if said in _CONTEXTS else "Sample.Periodic"


def location_of(said: str) -> str:
    return said if said in _LOCATIONS else "Outlet"


def _signed(sample: dict[str, Any]) -> str | None:
    """2.x: data, methods and public key together, for without them nobody can check it."""
    signed = sample.get("signedMeterValue")
    return json.dumps(signed, sort_keys=True) if isinstance(signed, dict) else None


def measurand_of(name: str, phase: str) -> tuple[str, str]:
    """`Current.Import.L1` carries its phase inside (ocpp.md 3, no. 45). None named is energy."""
    name = name or ENERGY
    for suffix in sorted(_PHASES, key=len, reverse=True):
        if name.endswith("." + suffix):
            return name.removesuffix("." + suffix)[:60], suffix
    return name[:60], phase if phase in _PHASES else ""


def unit_of(sample: dict[str, Any], measurand: str) -> tuple[str, Decimal]:
    """1.6 has `unit`; 2.x `unitOfMeasure` with a power of ten."""
    measure = sample.get("unitOfMeasure")
    said = measure.get("unit") if isinstance(measure, dict) else sample.get("unit")
    exponent = measure.get("multiplier") if isinstance(measure, dict) else 0
    default = _DEFAULT_UNIT.get(measurand.split(".")[0], "")
    unit, factor = _UNITS.get(str(said or default).strip().lower(), (str(said or default)[:20], Decimal(1)))
    if isinstance(exponent, int) and not isinstance(exponent, bool) and -9 <= exponent <= 9:
        factor = factor.scaleb(exponent)
    return unit, Decimal(
        1
    ) if factor == 1 else factor  # 1.000 would tell a number with more digits than it has


def number_of(raw: Any, factor: Decimal) -> Decimal | None:
    """None for "NaN", "12,5", "1e999" and the like: kept raw, never billed (ocpp.md 2, row 30)."""
    if "_" in str(raw):
        return None  # Python would read over it
    try:
        number = Decimal(str(raw).strip()) * factor
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number) < LIMIT else None
