"""Alfen's signed readings: `AP;type;version;public key;data;signature`, in base32, on secp192r1 (pure).

The layout of the 82 bytes is that of SAFE's transparency software (format.alfen), which the meter is certified with.
"""

import base64
import binascii
from datetime import UTC, datetime
from decimal import Decimal

from app.metering.records import MOST_WH, Kind, Record, SignedReading, Unreadable, text_of

HEADER = "AP;"
LENGTH = 82
WATT_HOURS = 30  # DLMS unit
# Of the status; its other bits tell how the clock was set and the like.
_FAULTS = {
    1: "The meter reports an error.", 2: "The meter reports an error.", 16: "The adapter reports an error.",
    26: "The meter's register does not fit the one of the begin.", 30: "The adapter reports an error.",
    31: "The adapter reports an error.",
}  # fmt: skip
_KINDS: dict[str, Kind] = {"0": "begin", "1": "end", "2": "other"}


def is_alfen(data: str) -> bool:
    return data.lstrip().startswith(HEADER)


def read_alfen(data: str) -> Record:
    """The type (begin, end) stands outside the signature: it is a label, the pages decide. Errors: `Unreadable`."""
    parts = data.strip().split(";")
    if len(parts) == 7 and not parts[6]:
        parts.pop()
    if len(parts) != 6 or parts[0] != "AP" or parts[1] not in _KINDS:
        raise Unreadable("An Alfen record has six parts and begins with AP.")
    content, signature = _base32(parts[4]), _base32(parts[5])
    if len(content) != LENGTH or len(signature) != 48:
        raise Unreadable("The data or the signature of the Alfen record has the wrong length.")
    if content[44] != WATT_HOURS:
        raise Unreadable("The Alfen record is not in watt hours.")
    scale = int.from_bytes(content[45:46], "little", signed=True)
    value = Decimal(_number(content, 46, 8, signed=True)).scaleb(scale)
    if abs(value) >= MOST_WH or scale < -9:
        raise Unreadable("The Alfen record is larger than any meter's register.")
    at = datetime.fromtimestamp(_number(content, 34, 4), UTC)
    fault = next((words for bit, words in _FAULTS.items() if _number(content, 26, 4) >> bit & 1), "")
    return Record(
        format="alfen", signed=content, signature=signature, is_raw_signature=True, curve="secp192r1",
        hash_name="SHA256", meter=content[16:26].hex().upper(), embedded_key=_base32(parts[3]).hex(),
        identity=text_of(content[54:74]),
        pages=("", _number(content, 78, 4)),
        readings=[SignedReading("{}-{}:{}.{}.{}*{}".format(*content[38:44]), value, at, fault=fault)],
        frozen=(("adapter", content[:16].hex()), ("session", str(_number(content, 74, 4)))), label=_KINDS[parts[1]],
    )  # fmt: skip


def _number(content: bytes, start: int, length: int, *, signed: bool = False) -> int:
    return int.from_bytes(content[start : start + length], "little", signed=signed)


def _base32(said: str) -> bytes:
    """As it was written and no other way: two spellings of one content are one too many."""
    dense = said.strip()
    padded = dense.rstrip("=") + "=" * (-len(dense.rstrip("=")) % 8)
    try:
        content = base64.b32decode(padded)
    except (ValueError, binascii.Error):
        raise Unreadable("A part of the Alfen record is no base32.") from None
    if base64.b32encode(content).decode() != padded or dense not in (padded, padded.rstrip("=")):
        raise Unreadable("A part of the Alfen record is no base32.")
    return content
