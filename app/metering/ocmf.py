"""OCMF: Open Charge Metering Format, versions 0.4 to 1.2 (SAFE e.V.), as JSON between pipes (pure)."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from app.metering.records import MOST_WH, Kind, Record, SignedReading, Unreadable, Unsupported
from app.metering.signatures import algorithm_of, read_bytes

HEADER = "OCMF|"
DEFAULT_ALGORITHM = "ECDSA-secp256r1-SHA256"
MAX_READINGS = 500
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,12})?([eE][+-]?[0-9])?")
_UNITS = {"wh": Decimal(1), "kwh": Decimal(1000), "mwh": Decimal(1_000_000)}
_KINDS: dict[str, Kind] = {"B": "begin", "E": "end", "L": "end", "R": "end", "A": "end", "P": "end"}
_INHERITED = ("TM", "TX", "RI", "RU", "RT", "EF", "ST")  # "fields that have an identical value … are omitted"
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)[,.](\d{1,6})(Z|[+-]\d\d:?\d\d)(?: ([A-Za-z]))?", re.ASCII
)
_STATES = {
    "N": "The meter was not there.", "T": "The meter did not answer.", "D": "The meter was disconnected.",
    "R": "The meter was gone.", "M": "The meter saw a manipulation.", "X": "The meter was exchanged.",
    "I": "The meter does not fit its signing part.", "O": "The value is out of range.",
    "S": "The value is a substitute.", "E": "The meter reports an error.", "F": "The register was not read correctly.",
}  # fmt: skip
_IDENTITY_FAULTS = ("MISMATCH", "INVALID", "OUTDATED", "UNKNOWN")


def is_ocmf(data: str) -> bool:
    return data.lstrip().startswith(HEADER)


def read_ocmf(data: str) -> Record:
    """Errors: `Unreadable`, `Unsupported`."""
    text = data.strip()
    if not text.startswith(HEADER):
        raise Unreadable("OCMF begins with OCMF|.")
    payload, end = _section(text, len(HEADER))
    behind = text[end:].lstrip()
    if not behind.startswith("|"):
        raise Unreadable("The record has no signature section.")
    pipe = text.index("|", end)
    signature, last = _section(text, pipe + 1)
    if text[last:].strip():
        raise Unreadable("The record has something behind its signature section.")
    curve, hash_name = algorithm_of(_text(signature, "SA") or DEFAULT_ALGORITHM)
    if (_text(signature, "SM") or "application/x-der") != "application/x-der":
        raise Unsupported(f"Signatures as {_text(signature, 'SM')[:60]} are not known here.")
    fault = ""
    if _text(payload, "IL").strip() in _IDENTITY_FAULTS:
        fault = f"Who charged could not be established ({_text(payload, 'IL')})."
    return Record(
        format="ocmf", signed=text[len(HEADER) : pipe].encode(), curve=curve, hash_name=hash_name,
        signature=read_bytes(_text(signature, "SD"), "signature"), meter=_meter(payload),
        identity=" ".join(_text(payload, name) for name in ("IT", "ID", "CT", "CI")).strip(),
        pages=_pages(_text(payload, "PG")), readings=_readings(payload), fault=fault,
    )  # fmt: skip


def _section(text: str, start: int) -> tuple[dict[str, Any], int]:
    """A JSON object and where it ends. A name that stands twice could be read one way by us and another by the next."""
    decoder = json.JSONDecoder(
        parse_float=_number, parse_int=_number, parse_constant=_number, object_pairs_hook=_once, strict=False
    )
    begin = start + len(text[start:]) - len(text[start:].lstrip())
    try:
        content, end = decoder.raw_decode(text, begin)
    except (ValueError, RecursionError):
        raise Unreadable("A section of the record is no JSON.") from None
    if not isinstance(content, dict):
        raise Unreadable("A section of the record is no JSON object.")
    return content, end


def _number(said: str) -> Decimal:
    if _NUMBER.fullmatch(said) is None:
        raise ValueError
    return Decimal(said)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError
    return dict(pairs)


def _text(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    if value is None:
        return ""
    if isinstance(value, str) and value.isprintable() and len(value) <= 500:
        return value
    raise Unreadable(f"{name} is no text.")


def _meter(payload: dict[str, Any]) -> str:
    """The serials of meter and gateway together: one gateway may sign for many meters, one meter needs none."""
    serials = [_text(payload, name).strip() for name in ("MS", "GS")]
    if not any(serials):
        raise Unreadable("Neither the meter nor its gateway has a serial number.")
    return " ".join(dict.fromkeys(one for one in serials if one))


def _pages(said: str) -> tuple[str, int]:
    found = re.fullmatch(r"([A-Z])([0-9]{1,18})", said)
    if found is None:
        raise Unreadable("The pagination is not a letter and a number.")
    return found[1], int(found[2])


def _readings(payload: dict[str, Any]) -> list[SignedReading]:
    told, before, readings = payload.get("RD"), dict[str, Any](), list[SignedReading]()
    if not isinstance(told, list) or not 1 <= len(told) <= MAX_READINGS:
        raise Unreadable("The record has no readings, or too many.")
    for one in told:
        if not isinstance(one, dict):
            raise Unreadable("A reading is no JSON object.")
        whole = {name: before[name] for name in _INHERITED if name in before} | one
        before = whole
        if "RV" in whole:  # an event of the meter may stand there without one
            readings.append(_reading(whole))
        elif _fault(whole):
            readings.append(SignedReading("", Decimal(0), _time(whole)[0], "other", fault=_fault(whole)))
    return readings


def _reading(told: dict[str, Any]) -> SignedReading:
    value, factor = told["RV"], _UNITS.get(_text(told, "RU").strip().lower())
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = Decimal(value)  # in quotes in the example that others test with
    if not isinstance(value, Decimal) or abs(value * (factor or 1)) >= MOST_WH:
        raise Unreadable("A reading has no value.")
    at, clock = _time(told)
    register = _text(told, "RI")
    fault = _fault(told) or (
        "" if factor is not None else f"The unit {_text(told, 'RU')[:10]} is not one of energy."
    )
    return SignedReading(
        register, value * (factor or 0), at, _KINDS.get(_text(told, "TX"), "other"), clock, fault
    )


def _time(told: dict[str, Any]) -> tuple[datetime, str]:
    found = _TIME.fullmatch(_text(told, "TM").strip())
    if found is None:
        raise Unreadable("A reading has no time.")
    try:
        at = datetime.fromisoformat(f"{found[1]}.{found[2]:0<6}{found[3]}").astimezone(UTC)
        return at, (found[4] or "").upper()
    except (ValueError, OverflowError):
        raise Unreadable("A reading has a time that does not exist.") from None


def _fault(told: dict[str, Any]) -> str:
    state, flags = _text(told, "ST"), _text(told, "EF")
    if state != "G":
        return _STATES.get(state, "The meter does not say that it works.")
    if "E" in flags:
        return "The meter marks the energy as wrong."
    if _text(told, "TX") == "X":
        return "The meter reports an error during the charge."
    return "The meter marks the time as wrong." if "t" in flags else ""
