"""From readings and state changes to stretches that the price engine can price (pure).

A stretch with energy is charging. One without is parking, unless the station itself says that it is charging. Between
two readings energy flowed while the station said so, and evenly where it said nothing; where nothing but start and stop
is known, all of it is charging. Nobody pays a minute of parking
because the car took seconds to begin, or because a meter counts in whole Wh (docs/decisions/0007).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

_MICROSECOND = datetime.resolution
_MICRO_WH = Decimal(
    "0.000001"
)  # one grid for readings and what lies between: differences are exact, none is negative
BEGINNING = timedelta(minutes=5)  # from plugging in to the first energy
STANDSTILL = timedelta(minutes=1)  # so short, a still meter alone proves nothing


@dataclass(frozen=True, slots=True)
class Sample:
    """The energy register in Wh at an instant."""

    at: datetime
    meter_wh: Decimal


@dataclass(frozen=True, slots=True)
class StateChange:
    """OCPP 2.0.1 chargingState from `at` on."""

    at: datetime
    state: str


@dataclass(frozen=True, slots=True)
class Stretch:
    start: datetime
    end: datetime
    energy_wh: Decimal
    is_charging: bool


def stretches(
    started_at: datetime, ended_at: datetime, energy_wh: Decimal, meter_start_wh: Decimal | None,
    samples: Sequence[Sample], states: Sequence[StateChange],
) -> list[Stretch]:  # fmt: skip
    """Their energies sum to `energy_wh` exactly; they cover started_at to ended_at without a gap.

    Samples outside the session, falling, or beyond the billed energy are not used: they would spread energy wrongly.
    """
    inside = sorted({change.at for change in states if started_at < change.at < ended_at})
    curve = _as_told(_curve(started_at, ended_at, energy_wh, meter_start_wh, samples), states, inside)
    cuts = sorted({sample.at for sample in curve} | set(inside))
    if len(cuts) < 2:
        return [Stretch(started_at, ended_at, energy_wh, True)]
    found: list[Stretch] = []
    for start, end in pairwise(cuts):
        energy = _at(curve, end) - _at(curve, start)
        state = _state_at(states, start)
        is_charging = (
            energy > 0 or state == "Charging" or (state is None and energy_wh == 0 and len(curve) == 2)
        )
        found.append(Stretch(start, end, energy, is_charging))
    return _excused(_merge(found), states)


def _excused(found: list[Stretch], states: Sequence[StateChange]) -> list[Stretch]:
    """The beginning, and what is too short to tell, belong to the charging around them."""
    if not any(stretch.is_charging for stretch in found):
        return found

    def is_excused(number: int, stretch: Stretch) -> bool:
        length = stretch.end - stretch.start
        is_told = _state_at(states, stretch.start) is not None
        return (number == 0 and length <= BEGINNING) or (not is_told and length < STANDSTILL)

    return [
        Stretch(one.start, one.end, one.energy_wh, one.is_charging or is_excused(number, one))
        for number, one in enumerate(found)
    ]


def _curve(
    started_at: datetime, ended_at: datetime, energy_wh: Decimal, meter_start_wh: Decimal | None,
    samples: Sequence[Sample],
) -> list[Sample]:  # fmt: skip
    """Energy since the start, rising from 0 to `energy_wh`."""
    curve = [Sample(started_at, Decimal(0))]
    if meter_start_wh is not None:
        for sample in sorted(samples, key=lambda one: (one.at, one.meter_wh)):
            since = (sample.meter_wh - meter_start_wh).quantize(_MICRO_WH)
            if started_at < sample.at < ended_at and curve[-1].meter_wh <= since <= energy_wh:
                if sample.at == curve[-1].at:
                    curve.pop()
                curve.append(Sample(sample.at, since))
    if ended_at > started_at:
        curve.append(Sample(ended_at, energy_wh))
    return curve


def _as_told(
    curve: Sequence[Sample], states: Sequence[StateChange], inside: Sequence[datetime]
) -> list[Sample]:
    """With a sample at each change of state: what was read after charging had ended flowed before that. Where the
    station was charging at no moment between two readings and energy flowed all the same, it is not believed."""
    told = list(curve[:1])
    for before, after in pairwise(curve):
        cuts = [before.at, *(at for at in inside if before.at < at < after.at), after.at]
        lengths = [
            (end - start) // _MICROSECOND if _state_at(states, start) in (None, "Charging") else 0
            for start, end in pairwise(cuts)
        ]
        total, flowed = sum(lengths), 0
        if total:
            for at, length in zip(cuts[1:-1], lengths, strict=False):
                flowed += length
                share = Decimal(flowed) / Decimal(total)
                since = before.meter_wh + (after.meter_wh - before.meter_wh) * share
                told.append(Sample(at, since.quantize(_MICRO_WH)))
        told.append(after)
    return told


def _at(curve: Sequence[Sample], at: datetime) -> Decimal:
    for before, after in pairwise(curve):
        if before.at <= at <= after.at:
            if at == after.at:
                return after.meter_wh
            share = Decimal((at - before.at) // _MICROSECOND) / Decimal(
                (after.at - before.at) // _MICROSECOND
            )
            return (before.meter_wh + (after.meter_wh - before.meter_wh) * share).quantize(_MICRO_WH)
    return curve[-1].meter_wh


def _state_at(states: Sequence[StateChange], at: datetime) -> str | None:
    known = [change for change in states if change.at <= at]
    return max(known, key=lambda change: change.at).state if known else None


def _merge(found: Sequence[Stretch]) -> list[Stretch]:
    """Neighbours of one kind and the same power are one: what is billed is short, and reads well."""
    merged: list[Stretch] = []
    for stretch in found:
        last = merged[-1] if merged else None
        if last and not last.is_charging and not stretch.is_charging:
            merged[-1] = Stretch(last.start, stretch.end, last.energy_wh + stretch.energy_wh, False)
        else:
            merged.append(stretch)
    return merged
