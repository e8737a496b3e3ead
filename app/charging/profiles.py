"""Charging profiles: from stacked profiles to the limit at each moment (OCPP 1.6 3.13, 2.0.1 K); pure.

At each moment, of each purpose the valid profile with the highest stack level counts, where its schedule says something
then; at the same level one for this EVSE comes before one for the whole station. A TxProfile takes the place of the
TxDefaultProfile. What is left is the lowest of the purposes. Where no profile says anything there is no limit: the
station gives what it can.

A schedule begins at its start (Absolute), with its transaction (Relative; now, where none runs), or anew each day or
week (Recurring). It ends with its duration. Limits are in A per phase or in W over all phases.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

Unit = Literal["A", "W"]
STATION_MAX, TX_DEFAULT, TX = "ChargingStationMaxProfile", "TxDefaultProfile", "TxProfile"
EXTERNAL = "ChargingStationExternalConstraints"
PURPOSES = (STATION_MAX, TX_DEFAULT, TX, EXTERNAL)
KINDS = ("Absolute", "Recurring", "Relative")
ROUNDS = {"Daily": timedelta(days=1), "Weekly": timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class Electrics:
    """How A become W: the voltage of a phase, and how many there are where a period does not say."""

    voltage_v: int = 230
    phases: int = 3


@dataclass(frozen=True, slots=True)
class Period:
    """From `start_s` of its schedule on."""

    start_s: int
    limit: Decimal
    number_phases: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    unit: Unit
    periods: tuple[Period, ...]
    start_at: datetime | None = None
    duration_s: int | None = None
    min_rate: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """`evse_no` 0 is the whole station."""

    number: int
    purpose: str
    stack_level: int
    kind: str
    schedule: Schedule
    evse_no: int = 0
    recurrency: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """`limit` None: no profile says anything from here on."""

    start_s: int
    limit: Decimal | None
    number_phases: int | None = None


# --- the limit at a moment ---------------------------------------------------------------------------------------


def composite(
    profiles: Iterable[Profile], at: datetime, duration: timedelta, *, evse_no: int = 0, unit: Unit = "W",
    began_at: datetime | None = None, electrics: Electrics = Electrics(),
) -> list[Step]:  # fmt: skip
    """The steps of the limit from `at` on, for `duration`; neighbours differ. `began_at`: the running transaction's."""
    ours = [
        one for one in profiles
        if one.evse_no in (0, evse_no) and (evse_no > 0 or one.purpose in (STATION_MAX, EXTERNAL))
    ]  # fmt: skip
    start = began_at or at
    moments = sorted({at, *(m for one in ours for m in _changes(one, start, at, at + duration))})
    steps: list[Step] = []
    for moment in moments:
        limit, phases = limit_at(ours, moment, unit=unit, began_at=start, electrics=electrics)
        if not steps or (steps[-1].limit, steps[-1].number_phases) != (limit, phases):
            steps.append(Step((moment - at) // timedelta(seconds=1), limit, phases))
    return steps


def limit_at(
    profiles: Sequence[Profile], moment: datetime, *, unit: Unit, began_at: datetime, electrics: Electrics
) -> tuple[Decimal | None, int | None]:
    """The lowest of the purposes, with the phases it is meant for."""
    leading: dict[str, tuple[tuple[int, bool], Decimal, int | None]] = {}
    for one in profiles:
        period = _period_at(one, moment, began_at)
        if period is None:
            continue
        rank = (one.stack_level, one.evse_no > 0)
        if one.purpose not in leading or rank > leading[one.purpose][0]:
            limit = convert(period.limit, one.schedule.unit, unit, period.number_phases, electrics)
            leading[one.purpose] = rank, limit, period.number_phases
    if TX in leading:
        leading.pop(TX_DEFAULT, None)
    if not leading:
        return None, None
    _rank, limit, phases = min(leading.values(), key=lambda found: (found[1], found[2] or 0))
    return limit, phases


def convert(limit: Decimal, given: Unit, wanted: Unit, phases: int | None, electrics: Electrics) -> Decimal:
    """A of each phase <-> W of all of them, to a tenth as OCPP has it."""
    if given == wanted:
        return limit
    factor = Decimal(electrics.voltage_v * (phases or electrics.phases))
    return (limit * factor if wanted == "W" else limit / factor).quantize(Decimal("0.1"))


def _period_at(profile: Profile, moment: datetime, began_at: datetime) -> Period | None:
    if (profile.valid_from is not None and moment < profile.valid_from) or (
        profile.valid_to is not None and moment >= profile.valid_to
    ):
        return None
    start = _start(profile, moment, began_at)
    if start is None:
        return None
    seconds = (moment - start).total_seconds()
    if seconds < 0 or (profile.schedule.duration_s is not None and seconds >= profile.schedule.duration_s):
        return None
    begun = [period for period in profile.schedule.periods if period.start_s <= seconds]
    return max(begun, key=lambda period: period.start_s) if begun else None


def _start(profile: Profile, moment: datetime, began_at: datetime) -> datetime | None:
    """When the schedule that covers this moment began. A recurring one without a start says nothing."""
    first = profile.schedule.start_at
    if profile.kind == "Relative" or (profile.kind == "Absolute" and first is None):
        return began_at
    if profile.kind == "Absolute" or first is None or moment < first:
        return first
    length = ROUNDS.get(profile.recurrency or "", ROUNDS["Daily"])
    return first + (moment - first) // length * length


def _changes(profile: Profile, began_at: datetime, since: datetime, until: datetime) -> Iterable[datetime]:
    """Every moment of the window at which this profile may say something else."""
    found = {moment for moment in (profile.valid_from, profile.valid_to) if moment is not None}
    start = _start(profile, since, began_at)
    offsets = [timedelta(seconds=period.start_s) for period in profile.schedule.periods]
    if profile.schedule.duration_s is not None:
        offsets.append(timedelta(seconds=profile.schedule.duration_s))
    while start is not None and start < until:
        found.update(start + offset for offset in [timedelta(), *offsets])
        if profile.kind != "Recurring":
            break
        start += ROUNDS.get(profile.recurrency or "", ROUNDS["Daily"])
    return (moment for moment in found if since <= moment < until)


# --- the shapes on the wire --------------------------------------------------------------------------------------

UP = {"ChargePointMaxProfile": STATION_MAX}
DOWN = {STATION_MAX: "ChargePointMaxProfile"}


def wire_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(profile: Profile, transaction_id: str | None = None) -> dict[str, Any]:
    """2.0.1 ChargingProfileType: how profiles are kept, whatever the station speaks."""
    schedule = profile.schedule
    shape: dict[str, Any] = {
        "id": 1, "chargingRateUnit": schedule.unit,
        "chargingSchedulePeriod": [_wire_period(period) for period in schedule.periods],
    }  # fmt: skip
    if schedule.start_at is not None:
        shape["startSchedule"] = wire_time(schedule.start_at)
    if schedule.duration_s is not None:
        shape["duration"] = schedule.duration_s
    if schedule.min_rate is not None:
        shape["minChargingRate"] = wire_number(schedule.min_rate)
    made: dict[str, Any] = {
        "id": profile.number, "stackLevel": profile.stack_level, "chargingProfilePurpose": profile.purpose,
        "chargingProfileKind": profile.kind, "chargingSchedule": [shape],
    }  # fmt: skip
    if profile.recurrency is not None:
        made["recurrencyKind"] = profile.recurrency
    for name, moment in (("validFrom", profile.valid_from), ("validTo", profile.valid_to)):
        if moment is not None:
            made[name] = wire_time(moment)
    return made | ({"transactionId": transaction_id} if transaction_id else {})


def _wire_period(period: Period) -> dict[str, Any]:
    shape: dict[str, Any] = {"startPeriod": period.start_s, "limit": wire_number(period.limit)}
    return shape | ({"numberPhases": period.number_phases} if period.number_phases else {})


def wire_number(value: Decimal) -> int | float:
    """JSON's number; a tenth is as fine as OCPP gets."""
    rounded = value.quantize(Decimal("0.1"))
    return int(rounded) if rounded == rounded.to_integral_value() else float(rounded)


def to_16(profile: dict[str, Any]) -> dict[str, Any]:
    """1.6 csChargingProfiles: one schedule, other names, a whole number for the transaction."""
    made = {
        name: value
        for name, value in profile.items()
        if name not in ("id", "chargingSchedule", "transactionId")
    }
    made["chargingProfileId"] = profile["id"]
    made["chargingProfilePurpose"] = DOWN.get(
        profile["chargingProfilePurpose"], profile["chargingProfilePurpose"]
    )
    made["chargingSchedule"] = {
        name: value for name, value in profile["chargingSchedule"][0].items() if name != "id"
    }  # fmt: skip
    transaction = str(profile.get("transactionId") or "")
    return made | ({"transactionId": int(transaction)} if transaction.isdigit() else {})


def read(profile: dict[str, Any], evse_no: int) -> Profile | None:
    """A ChargingProfileType as a station reports it, leniently; None where it is no profile. Of several schedules (the
    car chooses among them, ISO 15118) the first is taken."""
    schedules = profile.get("chargingSchedule")
    shape = schedules[0] if isinstance(schedules, list) and schedules else schedules
    schedule = read_schedule(shape) if isinstance(shape, dict) else None
    number = _whole(profile.get("id", profile.get("chargingProfileId")))
    purpose = str(profile.get("chargingProfilePurpose") or "")
    if schedule is None or number is None:
        return None
    return Profile(
        number=number, purpose=UP.get(purpose, purpose), stack_level=_whole(profile.get("stackLevel")) or 0,
        kind=str(profile.get("chargingProfileKind") or "Absolute"), schedule=schedule, evse_no=evse_no,
        recurrency=str(profile["recurrencyKind"]) if profile.get("recurrencyKind") else None,
        valid_from=read_time(profile.get("validFrom")), valid_to=read_time(profile.get("validTo")),
    )  # fmt: skip


def read_schedule(shape: dict[str, Any]) -> Schedule | None:
    """ChargingScheduleType, 2.x CompositeScheduleType (`scheduleStart`) and 1.6's; None where it has no period."""
    told = shape.get("chargingSchedulePeriod")
    periods = []
    for one in told if isinstance(told, list) else []:
        if not isinstance(one, dict):
            continue
        start, limit = _whole(one.get("startPeriod")), read_decimal(one.get("limit"))
        if start is not None and start >= 0 and limit is not None:
            periods.append(Period(start, limit, _whole(one.get("numberPhases"))))
    if not periods:
        return None
    return Schedule(
        unit="A" if shape.get("chargingRateUnit") == "A" else "W", periods=tuple(periods),
        start_at=read_time(shape.get("startSchedule", shape.get("scheduleStart"))),
        duration_s=_whole(shape.get("duration")), min_rate=read_decimal(shape.get("minChargingRate")),
    )  # fmt: skip


def write_schedule(schedule: Schedule) -> dict[str, Any]:
    """As `write` has it, for what is kept of composite schedules."""
    profile = Profile(0, TX, 0, "Absolute", schedule)
    return write(profile)["chargingSchedule"][0]


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 2**31 else None


def read_decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return None
    return number if number.is_finite() and abs(number) < 10**9 else None


def read_time(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(value))
        moment = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if 1970 <= moment.year < 2200 else None
