"""Whether a meter signed this, and what energy a begin and an end give (pure).

`valid` says: this key signed exactly these readings. It does not say whose key it is; that is for whoever keeps the
keys (`keys`), and a key that came with the data proves nothing about a meter.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal

import msgspec

from app.metering import alfen, edl40, ocmf, pcdf, sml, transparency
from app.metering.records import Kind, Record, SignedReading, Unreadable, Unsupported
from app.metering.signatures import as_der, is_signed, read_bytes, read_key, read_signature
from app.metering.transparency import Enclosed

Verdict = Literal["valid", "invalid", "no_key", "unsupported"]
WORST: tuple[Verdict, ...] = ("unsupported", "invalid", "no_key", "valid")
MAX_RECORDS = 1000
MAX_CHARACTERS = 16_384  # of one record; the largest in the field have some 3,000


def _sml(data: str) -> Record:
    return edl40.read_edl40(_octets(data))


_READERS: dict[str, Callable[[str], Record]] = {
    "ocmf": ocmf.read_ocmf, "alfen": alfen.read_alfen, "pcdf": pcdf.read_pcdf, "edl40": _sml, "isa_edl_40_p": _sml,
}  # fmt: skip
_SPELLED = {
    "ocmf": "ocmf", "alfen": "alfen", "pcdf": "pcdf", "edl": "edl40", "edl40": "edl40", "edl_40": "edl40",
    "edl_40_p": "edl40", "sml": "edl40", "sml_edl40_p": "edl40", "isa_edl_40_p": "isa_edl_40_p",
    "isaedl40p": "isa_edl_40_p", "isa-edl-40p": "isa_edl_40_p", "edl_40_mennekes": "mennekes", "mennekes": "mennekes",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checked:
    """One record and what is to be thought of it. `public_key` is the one that was used, in DER."""

    verdict: Verdict
    reason: str
    record: Record | None = None
    public_key: bytes | None = None
    is_own_key: bool = False  # the key came with the data

    @property
    def is_valid(self) -> bool:
        return self.verdict == "valid" and self.record is not None


@dataclass(frozen=True, slots=True)
class Charge:
    """What a begin and an end give; `energy_wh` None where `reason` says why it may not be billed."""

    energy_wh: Decimal | None
    reason: str
    begin: SignedReading | None = None
    end: SignedReading | None = None


def verify(data: str, *, format_name: str = "", public_key: str = "") -> list[Checked]:
    """Each record in the data, in its order. Data may be a record, a file of transparency software, a MENNEKES bill, or
    OCPP's SignedMeterValue in JSON. Without `public_key` those beside the data are taken, and said to be."""
    try:
        enclosed = unpack(data, format_name)
    except Unsupported as problem:
        return [Checked("unsupported", str(problem))]
    except Unreadable as problem:
        return [Checked("invalid", str(problem))]
    return [
        check(one, public_key) if isinstance(one, Record) else check_enclosed(one, public_key)
        for one in enclosed
    ]


@contextmanager
def _reading() -> Iterator[None]:
    """Whoever writes the data chooses what its readers stumble over: that is never more than unreadable."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError) as problem:
        raise Unreadable("The data cannot be read.") from problem


@_reading()
def unpack(data: str, format_name: str = "") -> Sequence[Enclosed | Record]:
    """What the data encloses, unread but for a MENNEKES bill. Errors: `Unreadable`, `Unsupported`."""
    if format_name and format_name.strip().lower() not in _SPELLED:
        raise Unsupported(f"The format {format_name[:40]} is not known here.")
    if transparency.is_xml(data):
        root = transparency.parse(data)
        if edl40.is_mennekes(root):
            bill = list(edl40.read_mennekes(root))
            if not bill:
                raise Unreadable("The bill has no charging process.")
            return _few(bill)
        return _few(transparency.read_values(root))
    told = signed_meter_value(data)
    return [replace(told, format=format_name.strip().lower() or told.format)]


def _few(found: list[Any]) -> list[Any]:
    if len(found) > MAX_RECORDS:
        raise Unreadable(f"The file holds more than {MAX_RECORDS} records.")
    return found


@_reading()
def signed_meter_value(data: str) -> Enclosed:
    """OCPP's SignedMeterValue (2.0.1 2.41), which 1.6 stations put into `value` as JSON (OCA, Signed Meter Values
    3.2.1); anything else is the record itself. Errors: `Unreadable`."""
    if not data.lstrip().startswith("{"):
        return Enclosed(data)
    try:
        told = msgspec.json.decode(data)
    except msgspec.DecodeError:
        raise Unreadable("The signed meter value is no JSON.") from None
    signed = told.get("signedMeterData") if isinstance(told, dict) else None
    if not isinstance(signed, str):
        raise Unreadable("The signed meter value has no signedMeterData.")
    encoding = str(told.get("encodingMethod") or "").strip().lower()
    return Enclosed(
        _plain(signed), encoding if encoding in _SPELLED else "", str(told.get("publicKey") or "").strip()
    )


def _plain(signed: str) -> str:
    """The standard wants base64; what already looks like a record is one."""
    if detect(signed):
        return signed
    try:
        content = base64.b64decode(signed, validate=True)
    except (ValueError, binascii.Error):
        return signed
    if sml.is_sml(content):
        return content.hex()
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.hex()


def detect(data: str) -> str:
    """The format by its look; empty where it has none that is known."""
    if ocmf.is_ocmf(data):
        return "ocmf"
    if alfen.is_alfen(data):
        return "alfen"
    if pcdf.is_pcdf(data):
        return "pcdf"
    try:
        return "edl40" if sml.is_sml(_octets(data)) else ""
    except Unreadable:
        return ""


def _octets(data: str) -> bytes:
    return read_bytes(data, "signed data")


@_reading()
def read_record(one: Enclosed) -> Record:
    """Errors: `Unreadable`, `Unsupported`."""
    if len(one.data) > MAX_CHARACTERS:
        raise Unreadable("The record is longer than any meter writes.")
    name = _SPELLED.get(one.format, "") if one.format else ""
    if one.format and not name:
        raise Unsupported(f"The format {one.format[:40]} is not known here.")
    reader = _READERS.get(name or detect(one.data))
    if reader is None:
        raise Unsupported("The data is in no format that is known here.")
    record = reader(one.data)
    return record if one.label is None or record.label is not None else replace(record, label=one.label)


def check_enclosed(one: Enclosed, public_key: str = "") -> Checked:
    try:
        record = read_record(one)
    except Unsupported as problem:
        return Checked("unsupported", str(problem))
    except Unreadable as problem:
        return Checked("invalid", str(problem))
    return check(record, public_key, beside=one.public_key)


def check(record: Record, public_key: str = "", *, beside: str = "") -> Checked:
    """`public_key` is one that we know; only without it the one beside or inside the data is tried."""
    said = public_key or beside or record.embedded_key
    if not said:
        return Checked("no_key", "There is no public key to check the signature with.", record)
    try:
        with _reading():
            _, key = read_key(said, record.curve)
            signature = read_signature(record.signature, is_raw=record.is_raw_signature)
            used, is_own = as_der(key), not public_key
            fits = is_signed(key, record.signed, signature, record.hash_name)
    except (Unreadable, Unsupported) as problem:
        return Checked("invalid", str(problem), record)
    if not fits:
        return Checked("invalid", "The signature does not fit the data and the key.", record, used, is_own)
    return Checked("valid", "The signature fits the data and the key.", record, used, is_own)


def worst(checked: Sequence[Checked]) -> Checked:
    """The one that decides for all of them."""
    return min(checked, key=lambda one: WORST.index(one.verdict))


# --- what may be billed ------------------------------------------------------------------------------------------


def charge_of(checked: Sequence[Checked]) -> Charge:
    """Billable energy of one charge: a begin and an end of the same meter, for the same person, without a page missing
    between them, with nothing that the meter itself calls wrong (OCMF, "Signing and Verification Process")."""
    for one in checked:
        if not one.is_valid:
            return Charge(None, one.reason)
    records = _once([one.record for one in checked if one.record is not None])
    if not records:
        return Charge(None, "The meter signed nothing.")
    if len({one.public_key for one in checked}) > 1:
        return Charge(None, "The readings are signed with different keys.")
    reason = _apart(records) or next((one.fault for one in records if one.fault), "")
    if reason:
        return Charge(None, reason)
    read = _read(records)
    by_register: dict[str, list[SignedReading]] = {}
    for reading in read:
        if reading.fault:
            return Charge(None, reading.fault)
        if records[0].gives or _is_import(reading.register):
            by_register.setdefault(reading.register, []).append(reading)
    if not by_register:
        return Charge(None, "No register of imported energy is signed.")
    charges = [_between(readings) for readings in by_register.values()]
    whole = [one for one in charges if one.energy_wh is not None]
    if len(whole) > 1 and len({one.energy_wh for one in whole}) > 1:
        return Charge(None, "Two registers of imported energy say different things.")
    return whole[0] if whole else charges[0]


def _once(records: Sequence[Record]) -> list[Record]:
    """In the meter's own order; a record that was told twice counts once."""
    told = {one.signed: one for one in records}
    return sorted(told.values(), key=lambda one: one.pages[1] if one.pages else 0)


def _apart(records: Sequence[Record]) -> str:
    """Why these records are not of one charge; empty where they are."""
    first = records[0]
    for one in records[1:]:
        if (one.format, one.meter) != (first.format, first.meter):
            return "The meter changed between begin and end."
        if one.identity != first.identity:
            return "Begin and end are signed for different people."
        for (name, before), (_, now) in zip(first.frozen, one.frozen, strict=True):
            if before != now:
                return f"The {name} changed between begin and end."
    pages = [one.pages for one in records]
    for before, now in pairwise(pages):
        if before is None or now is None or before[0] != now[0]:
            return "The records are not counted by the same counter."
        if now[1] == before[1]:
            return "Two different records have the same page."
        if now[1] != before[1] + 1:
            return f"Between page {before[1]} and page {now[1]} of the meter a record is missing."
    return ""


def _read(records: Sequence[Record]) -> list[SignedReading]:
    """With what each was read for: as signed, else as labelled, else the first and the last."""
    read = []
    for number, one in enumerate(records):
        label: Kind | None = one.label
        if label is None and len(records) > 1:
            label = {0: "begin", len(records) - 1: "end"}.get(number, "other")  # type: ignore[assignment]
        read += [reading if reading.kind else replace(reading, kind=label) for reading in one.readings]
    return read


def _between(readings: Sequence[SignedReading]) -> Charge:
    begins = {(one.energy_wh, one.at): one for one in readings if one.kind == "begin"}
    ends = {(one.energy_wh, one.at): one for one in readings if one.kind == "end"}
    if len(begins) != 1 or len(ends) != 1:
        which = "begin" if len(begins) != 1 else "end"
        count = len(begins) if which == "begin" else len(ends)
        return Charge(None, f"There is {'no' if not count else 'more than one'} signed {which}.")
    (begin,), (end,) = begins.values(), ends.values()
    if begin.at is not None and end.at is not None and end.at < begin.at:
        return Charge(None, "The signed end is before the signed begin.", begin, end)
    if begin.clock == "R" and end.clock != "R":
        return Charge(None, "The end is not timed from the begin.", begin, end)
    energy = end.energy_wh - begin.energy_wh
    if energy < 0 or begin.energy_wh < 0:
        return Charge(None, "The register ran backwards.", begin, end)
    return Charge(energy, "Signed by the meter at begin and end.", begin, end)


def _is_import(register: str) -> bool:
    """OBIS group C and D of active energy drawn by the car: 1.8 (also 1.17, EDL40's signed total), and OCMF's own B0 to
    B3, each .8."""
    parts = register.lower().split(":")[-1].split("*")[0].split(".")
    if len(parts) < 2:
        return False
    group, kind = parts[0].lstrip("0"), parts[1].lstrip("0")
    return (group, kind) in {("1", "8"), ("1", "17")} or (group in {"b0", "b1", "b2", "b3"} and kind == "8")
