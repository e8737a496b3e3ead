"""A price by counting seconds: slow, and built in another way than the engine, so that both err together nowhere.

Nothing is cut. Each second asks the restrictions anew, from the raw OCPI object.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo

from tests.tariffs.random_tariffs import DAYS, Case, Stretch

DECIMALS = {"EUR": 2, "JPY": 0, "KWD": 3}
Key = tuple[int, int]  # element, component


@dataclass(slots=True)
class Tally:
    """Seconds or Wh per component, and which component of each kind came last."""

    counts: Counter[Key] = field(default_factory=Counter)
    kinds: dict[Key, str] = field(default_factory=dict)
    last: dict[str, Key] = field(default_factory=dict)


def total(case: Case) -> tuple[Decimal, Decimal]:
    """(excl, incl), exact and before any limit."""
    with localcontext() as context:
        context.prec = 60
        reserved = [one for one in case.stretches if one.kind == "reserved"]
        session = [] if case.is_expired else [one for one in case.stretches if one.kind != "reserved"]
        pairs = [
            _money(case, key, amount)
            for part in (reserved, session)
            for key, amount in _billed(case, _count(case, part)).items()
        ]
        return sum((p[0] for p in pairs), Decimal(0)), sum((p[1] for p in pairs), Decimal(0))


def payable(case: Case, amount: Decimal) -> Decimal:
    """Rounded at the currency's decimals."""
    return amount.quantize(Decimal(1).scaleb(-DECIMALS[case.tariff["currency"]]), ROUND_HALF_UP)


def _count(case: Case, stretches: list[Stretch]) -> Tally:
    """Each second asks every element anew. What follows from which of them it falls into is worked out once for as long
    as the same ones answer."""
    tally, zone = Tally(), ZoneInfo(case.zone)
    elapsed = energy = 0
    for stretch in stretches:
        asked = [_Asked(number, element, stretch, zone) for number, element in _candidates(case, stretch)]
        began, same, answers = int(stretch.start.timestamp()), 0, list[bool]()
        for second in range(stretch.seconds):
            now = [one.answers(began + second, energy, elapsed) for one in asked]
            if now != answers:
                _tick(tally, stretch, asked, answers, same)
                same, answers = 0, now
            same += 1
            elapsed += 1
            energy += stretch.wh_per_s
        _tick(tally, stretch, asked, answers, same)
    return tally


class _Asked:
    """An element's restrictions during one stretch. The clock is read once a minute: no zone's is off by seconds."""

    def __init__(self, number: int, element: dict[str, Any], stretch: Stretch, zone: ZoneInfo) -> None:
        self.number, self.element, self.zone = number, element, zone
        self.r = element.get("restrictions", {})
        self.can_be = _fits_stretch(self.r, stretch)
        self.bounds = [
            (name, int(Decimal(str(self.r[f"{side}_{name}"])) * unit), side == "min")
            for name, unit in (("kwh", 1000), ("duration", 1)) for side in ("min", "max")
            if f"{side}_{name}" in self.r
        ]  # fmt: skip
        self.minute, self.is_time = -1, False

    def answers(self, at_s: int, energy_wh: int, elapsed_s: int) -> bool:
        if not self.can_be:
            return False
        for name, bound, is_least in self.bounds:
            if ((energy_wh if name == "kwh" else elapsed_s) >= bound) != is_least:
                return False
        if at_s // 60 != self.minute:
            self.minute = at_s // 60
            self.is_time = _fits_clock(self.r, datetime.fromtimestamp(at_s, self.zone))
        return self.is_time


def _tick(tally: Tally, stretch: Stretch, asked: list[_Asked], answers: list[bool], seconds: int) -> None:
    """So many seconds alike: of each kind the first element that answers and has a price for it."""
    volumes = {"FLAT": 1, "PARKING_TIME" if stretch.kind == "parking" else "TIME": seconds}
    if stretch.wh_per_s:
        volumes["ENERGY"] = stretch.wh_per_s * seconds
    for kind, volume in volumes.items() if seconds else ():
        if kind == "FLAT" and "FLAT" in tally.last:
            continue
        for one, is_it in zip(asked, answers, strict=True):
            components = one.element["price_components"]
            place = next((i for i, c in enumerate(components) if c["type"] == kind), None)
            if is_it and place is not None:
                key = (one.number, place)
                tally.counts[key] += volume
                tally.kinds[key] = kind
                tally.last[kind] = key
                break


def _candidates(case: Case, stretch: Stretch) -> list[tuple[int, dict[str, Any]]]:
    elements = list(enumerate(case.tariff["elements"]))

    def of(wanted: str | None) -> list[tuple[int, dict[str, Any]]]:
        return [one for one in elements if one[1].get("restrictions", {}).get("reservation") == wanted]

    if stretch.kind != "reserved":
        return of(None)
    return (of("RESERVATION_EXPIRES") if case.is_expired else []) + of("RESERVATION")


def _fits_stretch(r: dict[str, Any], stretch: Stretch) -> bool:
    hours = stretch.seconds / 3600
    power = stretch.power if stretch.power is not None else stretch.wh_per_s * stretch.seconds / 1000 / hours
    return _between(r, "current", Decimal(stretch.current or 0)) and _between(r, "power", Decimal(str(power)))


def _fits_clock(r: dict[str, Any], at: datetime) -> bool:
    clock = f"{at.hour:02d}:{at.minute:02d}"
    start, end = r.get("start_time", "00:00"), r.get("end_time", "00:00")
    if end == "00:00":
        in_window = clock >= start
    elif "start_time" not in r:
        in_window = clock < end
    else:
        in_window = (start <= clock < end) if start < end else (clock >= start or clock < end)
    return (
        in_window
        and ("day_of_week" not in r or DAYS[at.weekday()] in r["day_of_week"])
        and r.get("start_date", "") <= at.date().isoformat() < r.get("end_date", "9999")
    )


def _between(r: dict[str, Any], name: str, value: Decimal) -> bool:
    low, high = r.get(f"min_{name}"), r.get(f"max_{name}")
    return (low is None or value >= Decimal(str(low))) and (high is None or value < Decimal(str(high)))


def _billed(case: Case, tally: Tally) -> dict[Key, Decimal]:
    """Counts with the step of what came last: once for energy, once for parking or, without it, for time."""
    billed = {key: Decimal(count) for key, count in tally.counts.items()}
    stepped = ["ENERGY", "PARKING_TIME" if "PARKING_TIME" in tally.last else "TIME"]
    for kind in stepped:
        if kind in tally.last:
            key = tally.last[kind]
            step = case.tariff["elements"][key[0]]["price_components"][key[1]]["step_size"]
            used = sum(count for other, count in tally.counts.items() if tally.kinds[other] == kind)
            if step and used % step:
                billed[key] += step - used % step
    return billed


def _money(case: Case, key: Key, amount: Decimal) -> tuple[Decimal, Decimal]:
    component = case.tariff["elements"][key[0]]["price_components"][key[1]]
    units = {"ENERGY": 1000, "FLAT": 1}.get(component["type"], 3600)
    money = Decimal(component["price"]) * amount / units
    factor = 1 + _rate(case, component) / 100
    return (money / factor, money) if case.tariff.get("tax_included") == "YES" else (money, money * factor)


def _rate(case: Case, component: dict[str, Any]) -> Decimal:
    default = 0 if case.tariff.get("tax_included") == "N/A" else case.default_vat
    return Decimal(str(component.get("vat", default)))


def is_limited(case: Case, excl: Decimal, incl: Decimal) -> bool:
    """Whether a minimum or a maximum changes what was counted."""
    least, most = case.tariff.get("min_price", {}), case.tariff.get("max_price", {})
    sides = {"excl_vat": excl, "incl_vat": incl}
    has_session = not case.is_expired and any(one.kind != "reserved" for one in case.stretches)
    return (has_session and any(sides[side] < Decimal(least[side]) for side in least)) or any(
        sides[side] > Decimal(most[side]) for side in most
    )


def is_near_limit(case: Case, sides: dict[str, Decimal], within: Decimal) -> bool:
    limits = (case.tariff.get("min_price", {}), case.tariff.get("max_price", {}))
    return any(abs(sides[side] - Decimal(limit[side])) <= within for limit in limits for side in limit)
