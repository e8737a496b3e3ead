"""Sessions as outsiders describe them, for a preview: in a few figures, or as OCPI charging periods (pure).

In a few figures the energy lies evenly over the charging time, parking follows and a reservation comes before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from app.kernel.errors import FieldFault, Invalid
from app.kernel.zones import is_time_zone
from app.tariffs.ocpi_tariff import Reader, read_amount, read_flag, read_moment, read_text, refuse
from app.tariffs.pricing import Period

MAX_PERIODS = 20_000
_LONGEST = timedelta(days=400)
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_CURRENT_AND_POWER = ("min_current_a", "max_current_a", "min_power_kw", "max_power_kw")
_DIMENSIONS = {
    "MIN_CURRENT": ("min_current_a",), "MAX_CURRENT": ("max_current_a",), "MIN_POWER": ("min_power_kw",),
    "MAX_POWER": ("max_power_kw",), "CURRENT": ("min_current_a", "max_current_a"),
    "POWER": ("min_power_kw", "max_power_kw"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DescribedSession:
    periods: tuple[Period, ...]
    time_zone: str
    is_reservation_expired: bool = False


def read_session(raw: Any, *, now: datetime, time_zone: str, path: str = "session") -> DescribedSession:
    """`now` and `time_zone` stand in for what the description leaves out. Raises Invalid with every fault at once."""
    faults: list[FieldFault] = []
    reader = Reader(raw, path, faults)
    zone = reader.take("time_zone", read_time_zone) or time_zone
    is_expired = reader.take("reservation_expired", read_flag) or False
    is_ocpi = isinstance(raw, Mapping) and raw.get("charging_periods") is not None
    periods = _from_ocpi(reader) if is_ocpi else _from_figures(reader, now)
    for name in reader.rest() if not is_ocpi else ():
        reader.note(name, "unknown", f"A session has no field {name}.")
    if is_expired and not any(period.is_reservation for period in periods):
        reader.note("reservation_s", "required", "An expired reservation needs its length.")
    if faults:
        raise Invalid("invalid_session", "The session has faults.", faults=faults)
    return DescribedSession(tuple(periods), zone, is_expired)


def read_time_zone(value: Any) -> str:
    name = read_text(value)
    if not is_time_zone(name):
        refuse("time_zone", "This must be an IANA time zone like Europe/Berlin.")
    return name


def _from_figures(reader: Reader, now: datetime) -> list[Period]:
    start = reader.take("start", _read_start) or now.astimezone(UTC)
    charging, parking, reserved = (
        reader.take(name, _read_seconds) or timedelta()
        for name in ("charging_s", "parking_s", "reservation_s")
    )
    energy = reader.take("energy_kwh", read_amount) or Decimal(0)
    known: dict[str, Any] = {name: reader.take(name, read_amount) for name in _CURRENT_AND_POWER}
    for name in ("current_a", "power_kw"):
        low, high = known[f"min_{name}"], known[f"max_{name}"]
        if low is not None and high is not None and high < low:
            reader.note(f"max_{name}", "order", f"max_{name} is below min_{name}.")
    periods = [Period.reserved(start - reserved, start)] if reserved else []
    charged = start + charging
    periods.append(
        Period(
            start_at=start,
            end_at=charged,
            energy_wh=Fraction(energy) * 1000,
            charging_s=Fraction(charging // timedelta.resolution, 1_000_000),
            **known,
        )
    )
    return [*periods, Period.parking(charged, charged + parking)] if parking else periods


def _read_start(value: Any) -> datetime:
    """With its offset: guessing one could move a session into another price window."""
    moment = read_moment(value)
    if isinstance(value, str) and datetime.fromisoformat(value).tzinfo is None:
        refuse("date_time", "This time needs its offset, like 2026-05-04T13:30:00+02:00 or ...Z.")
    return _in_range(moment)


def _in_range(moment: datetime) -> datetime:
    if not _EARLIEST <= moment < _LATEST:
        refuse("range", "This time is out of range.")
    return moment


def _read_seconds(value: Any) -> timedelta:
    seconds = read_amount(value)
    if seconds > _LONGEST.total_seconds():
        refuse("range", "This is too long.")
    return timedelta(microseconds=int(seconds * 1_000_000))


# --- OCPI charging periods ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Listed:
    start_at: datetime
    volumes: dict[str, Decimal]


def _from_ocpi(reader: Reader) -> list[Period]:
    end = reader.take("end_date_time", lambda value: _in_range(read_moment(value)))
    first = reader.take("start_date_time", lambda value: _in_range(read_moment(value)))
    listed = reader.take_list("charging_periods", _read_period, most=MAX_PERIODS)
    if reader.faults or not listed:
        return []
    starts = [one.start_at for one in listed]
    last = end or starts[-1] + _time_in(listed[-1])
    if starts != sorted(starts) or (first and starts[0] < first):
        reader.note("charging_periods", "order", "Periods follow each other in time, from the start on.")
    elif last < starts[-1] or last - starts[0] > _LONGEST:
        reader.note(
            "end_date_time", "order", "The session ends before its last period begins, or is too long."
        )
    else:
        return [_period(one, until) for one, until in zip(listed, [*starts[1:], last], strict=True)]
    return []


def _read_period(reader: Reader) -> _Listed:
    start = reader.need("start_date_time", lambda value: _in_range(read_moment(value)), _EARLIEST)
    volumes: dict[str, Decimal] = {}
    for kind, volume in reader.take_list("dimensions", _read_dimension, most=50):
        volumes[kind] = volumes.get(kind, Decimal(0)) + volume
    reader.rest()
    return _Listed(start, volumes)


def _read_dimension(reader: Reader) -> tuple[str, Decimal]:
    return reader.need("type", read_text, "").upper(), reader.need("volume", read_amount, Decimal(0))


def _time_in(listed: _Listed) -> timedelta:
    names = ("TIME", "PARKING_TIME", "RESERVATION_TIME")
    hours = sum((listed.volumes.get(name, Decimal(0)) for name in names), Decimal(0))
    return min(timedelta(microseconds=int(hours * 3_600_000_000)), _LONGEST)


def _period(listed: _Listed, until: datetime) -> Period:
    volumes = listed.volumes
    known: dict[str, Any] = {
        name: volume for kind, volume in volumes.items() if kind in _DIMENSIONS for name in _DIMENSIONS[kind]
    }
    return Period(
        start_at=listed.start_at, end_at=until, energy_wh=_exact(volumes, "ENERGY") * 1000,
        charging_s=_exact(volumes, "TIME") * 3600, parking_s=_exact(volumes, "PARKING_TIME") * 3600,
        reserved_s=_exact(volumes, "RESERVATION_TIME") * 3600, is_reservation="RESERVATION_TIME" in volumes, **known,
    )  # fmt: skip


def _exact(volumes: Mapping[str, Decimal], kind: str) -> Fraction:
    return Fraction(volumes.get(kind, 0))
