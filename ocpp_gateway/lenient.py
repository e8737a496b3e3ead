"""Reading what stations really send: numbers as text, times without a zone, empty strings (ocpp.md 3); pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.kernel.errors import LiveryError
from themes.letters import spelled

MAX_FUTURE = timedelta(minutes=5)
MAX_PAST = timedelta(days=60)
_TIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*(Z|z|[+-]\d{2}(?::?\d{2})?)?"
)


class Unanswerable(LiveryError):
    """The payload leaves no sensible answer: a CALLERROR with this code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


def text(payload: dict[str, Any], name: str, *, most: int | None = None) -> str | None:
    """ "" and "N/A" are absent. `most` cuts: a report's free text is taken whatever its length."""
    value = payload.get(name)
    if value is None or isinstance(value, dict | list | bool):
        return None
    found = str(value).strip()
    if found in ("", "N/A", "null"):
        return None
    if not found.isprintable():
        found = spelled(found)
    return found[:most] if most else found


def with_zone(value: Any, zone: str) -> Any:
    """The payload with local times that name no zone told in `zone` (ocpp.md 3, no. 20); the rest as it is."""
    if isinstance(value, dict):
        return {
            name: _zoned(item, zone) if name in _TIMES and isinstance(item, str) else with_zone(item, zone)
            for name, item in value.items()
        }
    return [with_zone(item, zone) for item in value] if isinstance(value, list) else value


_TIMES = frozenset({"timestamp", "expiryDate", "startSchedule", "generatedAt"})


def without_zone(value: Any) -> str | None:
    """The first time in it that names no zone, and was read as UTC; None where every time says what it means."""
    if isinstance(value, list):
        return next((found for item in value if (found := without_zone(item))), None)
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in _TIMES and isinstance(item, str):
            read = _TIME.fullmatch(item.strip())
            if read is not None and read[8] is None:
                return item
        elif found := without_zone(item):
            return found
    return None


def _zoned(value: str, zone: str) -> str:
    found = _TIME.fullmatch(value.strip())
    at = moment(value)
    if found is None or found[8] is not None or at is None:
        return value
    return at.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).isoformat().replace("+00:00", "Z")


def part(payload: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside; one that is missing or none is empty."""
    value = payload.get(name)
    return value if isinstance(value, dict) else {}


def needed_text(payload: dict[str, Any], name: str, *, longest: int) -> str:
    """A question's field, strictly: present, text, not too long."""
    value = payload.get(name)
    if value is None:
        raise Unanswerable("OccurenceConstraintViolation", f"{name} is missing")
    if not isinstance(value, str) or not value.strip():
        raise Unanswerable("TypeConstraintViolation", f"{name} is not a text")
    if len(value) > longest:
        raise Unanswerable("TypeConstraintViolation", f"{name} is longer than {longest} characters")
    return value


def integer(payload: dict[str, Any], name: str) -> int | None:
    """Whole numbers also as text; None for what is no number or beyond 63 bits."""
    value = payload.get(name)
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = int(str(value).strip()) if not isinstance(value, float) else int(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 2**63 else None


def needed_number(payload: dict[str, Any], name: str, low: int, high: int) -> int:
    number = integer(payload, name)
    if payload.get(name) is None:
        raise Unanswerable("OccurenceConstraintViolation", f"{name} is missing")
    if number is None:
        raise Unanswerable("TypeConstraintViolation", f"{name} is not a whole number")
    if not low <= number <= high:
        raise Unanswerable("PropertyConstraintViolation", f"{name} is not from {low} to {high}")
    return number


def moment(value: Any) -> datetime | None:
    """ISO 8601 as stations write it; without a zone it is UTC. None where it is no time."""
    found = _TIME.fullmatch(str(value).strip()) if isinstance(value, str) else None
    if found is None:
        return None
    year, month, day, hour, minute = (int(part) for part in found.groups()[:5])
    second, fraction, zone = int(found[6] or 0), (found[7] or "0")[:6].ljust(6, "0"), found[8]
    try:
        at = datetime(year, month, day, hour, minute, min(second, 59), int(fraction), tzinfo=UTC)
        return at - _offset(zone)
    except (ValueError, OverflowError):
        return None


def _offset(zone: str | None) -> timedelta:
    if zone is None or zone in "Zz":
        return timedelta(0)
    digits = zone[1:].replace(":", "")
    shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return shift if zone[0] == "+" else -shift


def plausible(at: datetime | None, received_at: datetime) -> tuple[datetime, bool]:
    """The station's time where it can be, else ours; and whether it is doubtful (1970, 9999, tomorrow)."""
    if at is None or at < received_at - MAX_PAST or at > received_at + MAX_FUTURE:
        return received_at, True
    return min(at, received_at), False
