"""SML, Smart Message Language (BSI TR-03109-1 annex IV), as far as a list of register values needs it (pure)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.metering.records import Unreadable

ESCAPE = b"\x1b\x1b\x1b\x1b"
_START = ESCAPE + b"\x01\x01\x01\x01"
_GET_LIST_RESPONSE = 0x0701
_MAX_DEPTH = 12


@dataclass(frozen=True, slots=True)
class ListEntry:
    """A value of the list. `status` and `value` are numbers or octets, None where left out; `at` see `time_of`."""

    name: bytes
    status: Any
    at: Any
    unit: int | None
    scaler: int
    value: Any
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class ListResponse:
    server_id: bytes
    list_name: bytes
    entries: dict[bytes, ListEntry]
    signature: bytes


def is_sml(content: bytes) -> bool:
    return content.startswith(_START)


def read_list(content: bytes) -> ListResponse:
    """The one GetList response of an SML file. Its checksums are checked: a byte that fell over is not a forgery.

    Errors: `Unreadable`.
    """
    found = [body for body in _bodies(_unescape(content)) if body[0] == _GET_LIST_RESPONSE]
    if len(found) != 1:
        raise Unreadable("The SML file does not hold exactly one list of values.")
    told = found[0][1]
    if not isinstance(told, list) or len(told) != 7 or not isinstance(told[4], list):
        raise Unreadable("The list of values in the SML file has the wrong shape.")
    _, server_id, list_name, _, values, signature, _ = told
    if not isinstance(server_id, bytes) or not isinstance(signature, bytes):
        raise Unreadable("The SML file names no meter, or is not signed.")
    entries = [_entry(one) for one in values]
    by_name = {one.name: one for one in entries}
    if len(by_name) != len(entries):
        raise Unreadable("A register stands twice in the SML file.")
    return ListResponse(server_id, list_name if isinstance(list_name, bytes) else b"", by_name, signature)


def time_of(told: Any) -> tuple[int, int]:
    """An SML_Time as seconds since 1970 and the offset of the meter's own clock in seconds. Errors: `Unreadable`."""
    match told:
        case [2, int(seconds)]:
            return seconds, 0
        case [3, [int(seconds), int(zone_min), int(season_min)]]:
            return seconds, (zone_min + season_min) * 60
    raise Unreadable("A value in the SML file has no time of day.")


def _entry(told: Any) -> ListEntry:
    if not isinstance(told, list) or len(told) != 7 or not isinstance(told[0], bytes):
        raise Unreadable("A value in the SML file has the wrong shape.")
    name, status, at, unit, scaler, value, signature = told
    is_typed = all(isinstance(one, int | None) and not isinstance(one, bool) for one in (unit, scaler))
    if not is_typed or not isinstance(signature, bytes | None):
        raise Unreadable("A value in the SML file has the wrong type.")
    return ListEntry(name, status, at, unit, scaler or 0, value, signature)


def _unescape(content: bytes) -> bytes:
    """What stands between start and end; four escapes in the content stand twice in the file (transport layer 1)."""
    if not content.startswith(_START):
        raise Unreadable("An SML file begins with its escape sequence.")
    inner, at = bytearray(), len(_START)
    while True:
        found = content.find(ESCAPE, at)
        if found < 0 or len(content) < found + 8:
            raise Unreadable("The SML file has no end.")
        inner += content[at:found]
        behind = content[found + 4 : found + 8]
        if behind == ESCAPE:
            inner += ESCAPE
        elif behind[0] == 0x1A:
            if len(content) != found + 8 or behind[1] > 3:
                raise Unreadable("The SML file has something behind its end.")
            if _crc(content[: found + 6]) != int.from_bytes(behind[2:], "little"):
                raise Unreadable("The checksum of the SML file does not match: it was damaged on its way.")
            return bytes(inner[: len(inner) - behind[1]])
        else:
            raise Unreadable("The SML file has an escape that is not known here.")
        at = found + 8


def _bodies(content: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(content):
        begin = at
        message, at = _value(content, at, 0)
        if not isinstance(message, list) or len(message) != 6 or message[5] != "end":
            raise Unreadable("A message of the SML file has the wrong shape.")
        checked = at - 4 if content[at - 4] == 0x63 else at - 3  # the checksum itself: 63 XX XX, or 62 XX
        if _crc(content[begin:checked]) != int.from_bytes(content[checked + 1 : at - 1], "little"):
            raise Unreadable("The checksum of a message in the SML file does not match.")
        match message[3]:
            case [int(tag), body]:
                yield tag, body
            case _:
                raise Unreadable("A message of the SML file has no body.")


def _value(content: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Octets, a number, a bool, a list, None (left out), "end" (of a message); and where it ends."""
    kind, length, start = _head(content, at)
    if depth > _MAX_DEPTH:
        raise Unreadable("The SML file is nested too deep.")
    if kind == 7:
        items = []
        for _ in range(length):
            item, start = _value(content, start, depth + 1)
            items.append(item)
        return items, start
    if content[at] == 0:
        return "end", start
    end = at + length
    if end < start or end > len(content):
        raise Unreadable("The SML file is cut off.")
    held = content[start:end]
    if kind == 0:
        return held or None, end
    if kind == 4 and len(held) == 1:
        return held != b"\0", end
    if kind in (5, 6) and 1 <= len(held) <= 8:
        return int.from_bytes(held, "big", signed=kind == 5), end
    raise Unreadable("The SML file has a type that is not known here.")


def _head(content: bytes, at: int) -> tuple[int, int, int]:
    """Type, length (with its own bytes; of a list its items) and where the content begins."""
    if at >= len(content):
        raise Unreadable("The SML file is cut off.")
    kind, length, start = content[at] >> 4 & 7, content[at] & 15, at + 1
    while content[start - 1] & 0x80:
        if start >= len(content) or start - at > 3:
            raise Unreadable("The SML file is cut off.")
        length, start = length << 4 | content[start] & 15, start + 1
    return kind, length, start


def _crc(content: bytes) -> int:
    """CRC-16/X-25, which SML writes with its low byte first."""
    crc = 0xFFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFF


def _row(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (0x8408 if number & 1 else 0)
    return number


_CRC = [_row(number) for number in range(256)]
