"""PCDF: Porsche's charge data format, one signed line for a whole charge, on secp256r1 (pure).

`128.8.0(ST:…)(CT:…)…(PK:…)(SG:…)`, as SAFE's transparency software reads it (format.pcdf).
"""

import re
from datetime import UTC, datetime
from decimal import Decimal

from app.metering.records import Record, SignedReading, Unreadable
from app.metering.signatures import read_bytes

OBIS = "128.8.0"
NEEDED = ("ST", "CT", "CD", "TV", "BV", "CSC", "SP", "RV", "SI", "CS", "HW", "DT", "PK", "SG")
_LINE = re.compile(r"128\.8\.0((?:\([A-Z]{2,3}:[^()]*\))+)")


def is_pcdf(data: str) -> bool:
    return OBIS + "(" in data[:20]


def read_pcdf(data: str) -> Record:
    """Errors: `Unreadable`."""
    text = data.replace("\\u0002", "").replace("\\u0003", "").strip("\x02\x03\r\n\t ")
    found = _LINE.fullmatch(text)
    if found is None or not text.isprintable():
        raise Unreadable("A PCDF line is 128.8.0 and fields in brackets.")
    pairs = re.findall(r"\(([A-Z]{2,3}):([^()]*)\)", found[1])
    fields = dict(pairs)
    if len(fields) != len(pairs) or pairs[-1][0] != "SG":
        raise Unreadable("A field of the PCDF line stands twice, or behind the signature.")
    missing = [name for name in NEEDED if name not in fields]
    if missing:
        raise Unreadable(f"The PCDF line lacks {', '.join(missing)}.")
    energy = re.fullmatch(r"([0-9]{4}\.[0-9]{3})\*kWh", fields["RV"])
    if energy is None:
        raise Unreadable("The PCDF line has no energy in kWh.")
    return Record(
        format="pcdf", signed=text[: text.rindex("(SG:")].encode(), signature=read_bytes(fields["SG"], "signature"),
        curve="secp256r1", hash_name="SHA256", meter=fields["HW"], identity=fields["SI"],
        pages=("", int(fields["CSC"])) if re.fullmatch("[0-9]{1,12}", fields["CSC"]) else None,
        embedded_key=fields["PK"], gives=True,
        readings=[
            SignedReading(OBIS, Decimal(0), _time(fields["ST"]), "begin", _clock(fields)),
            SignedReading(OBIS, Decimal(energy[1]) * 1000, _time(fields["CT"]), "end", _clock(fields)),
        ], fault=_fault(fields),
    )  # fmt: skip


def _clock(fields: dict[str, str]) -> str:
    return "S" if fields["TV"] == "1" else "U"


def _fault(fields: dict[str, str]) -> str:
    if fields["BV"] != "1":
        return "The meter says that this charge may not be billed."
    return "" if fields["SP"] == "1" else "The charge was not over when this was signed."


def _time(said: str) -> datetime:
    try:
        return datetime.strptime(said, "%y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise Unreadable("A time of the PCDF line does not exist.") from None
