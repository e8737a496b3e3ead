"""What a meter signed, whatever format it wrote it in (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

MOST_WH = 10**12  # no register of a charger's meter goes so far
Kind = Literal["begin", "end", "other"]


class Unreadable(Exception):
    """The data is not what its format says; nothing in it was signed by anybody. `str()` says what is wrong."""


class Unsupported(Exception):
    """A format or an algorithm that we do not know."""


def text_of(octets: bytes) -> str:
    """Padded with zeros: as text where it is some, else in hexadecimal."""
    told = octets.rstrip(b"\0")
    return told.decode("ascii") if told and all(32 <= byte < 127 for byte in told) else told.hex().upper()


@dataclass(frozen=True, slots=True)
class SignedReading:
    """One register at one moment, as the meter told it. `kind` None: the format does not sign what it was read for."""

    register: str  # OBIS, as written
    energy_wh: Decimal
    at: datetime | None
    kind: Kind | None = None
    clock: str = ""  # OCMF's time status: U(nknown), I(nformative), S(ynchronised), R(elative)
    fault: str = ""  # why it may not be billed; empty when the meter says that all is well


@dataclass(frozen=True, slots=True)
class Record:
    """What one signature covers. Nothing in it counts before the signature is checked.

    `meter` and `identity` are what must be the same at begin and end. `pages` are the meter's own counter: its context
    and its number; one step for each record. `frozen` is what else the format wants unchanged, in words -> value.
    """

    format: str
    signed: bytes
    signature: bytes
    curve: str
    hash_name: str
    meter: str
    identity: str
    pages: tuple[str, int] | None
    readings: Sequence[SignedReading]
    is_raw_signature: bool = False  # r and s side by side, else in DER
    embedded_key: str = ""  # a key that travels with the data: an offer, no proof
    gives: bool = False  # the reading is the energy of the whole charge, not a register
    frozen: Sequence[tuple[str, str]] = ()
    fault: str = ""  # of the record as a whole
    label: Kind | None = None  # what it was read for, from outside the signature
