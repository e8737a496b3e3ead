"""Tariffs and sessions at random, on a grid that lets a second-by-second count be exact.

Times are whole seconds; energy flows at whole Wh per second; energy thresholds are whole multiples of the flow.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from app.tariffs.pricing import Period

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
DAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
# Around turns of the clocks in each of these zones, and an ordinary week.
STARTS = (
    datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 3, 8, 4, tzinfo=UTC),
    datetime(2026, 11, 1, 3, tzinfo=UTC), datetime(2026, 4, 4, 12, tzinfo=UTC), datetime(2026, 10, 3, 12, tzinfo=UTC),
    datetime(2026, 5, 4, 6, tzinfo=UTC), datetime(2026, 12, 31, 18, tzinfo=UTC),
)  # fmt: skip


@dataclass(slots=True)
class Stretch:
    """One stretch of a session, as the brute-force count sees it."""

    start: datetime
    seconds: int
    kind: str  # charging, parking, reserved
    wh_per_s: int = 0
    current: int | None = None
    power: int | None = None

    def period(self) -> Period:
        span: dict[str, Any] = {
            "start_at": self.start, "end_at": self.start + timedelta(seconds=self.seconds),
            "min_current_a": self.current, "max_current_a": self.current, "min_power_kw": self.power,
            "max_power_kw": self.power,
        }  # fmt: skip
        volume = {"charging": "charging_s", "parking": "parking_s", "reserved": "reserved_s"}[self.kind]
        return Period(
            **span, **{volume: self.seconds}, energy_wh=self.wh_per_s * self.seconds,
            is_reservation=self.kind == "reserved",
        )  # fmt: skip


@dataclass(slots=True)
class Case:
    tariff: dict[str, Any]
    stretches: list[Stretch]
    zone: str
    default_vat: int
    is_expired: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def case(random: Random, *, longest_s: int = 5400) -> Case:
    flow = random.choice((1, 2, 3, 6))
    start = random.choice(STARTS) + timedelta(seconds=random.randrange(0, 12 * 3600))
    stretches = []
    if random.random() < 0.25:
        length = random.randrange(1, longest_s // 2)
        stretches.append(Stretch(start - timedelta(seconds=length), length, "reserved"))
    for _ in range(random.randrange(1, 4)):
        stretch = _stretch(random, start, flow, longest_s)
        stretches.append(stretch)
        start += timedelta(seconds=stretch.seconds)
    is_expired = stretches[0].kind == "reserved" and random.random() < 0.3
    return Case(tariff(random, flow), stretches, random.choice(ZONES), random.choice((0, 19, 21)), is_expired)


def _stretch(random: Random, start: datetime, flow: int, longest_s: int) -> Stretch:
    seconds = random.randrange(1, longest_s)
    if random.random() < 0.35:
        return Stretch(start, seconds, "parking", 0, 0, 0)
    known = random.random() < 0.7
    current, power = (
        (random.choice((6, 16, 32, 63)), random.choice((3, 11, 22, 50))) if known else (None, None)
    )
    return Stretch(start, seconds, "charging", random.choice((0, flow, flow)), current, power)


def tariff(random: Random, flow: int) -> dict[str, Any]:
    raw: dict[str, Any] = {"currency": random.choice(("EUR", "EUR", "JPY", "KWD"))}
    raw["elements"] = [_element(random, flow) for _ in range(random.randrange(1, 6))]
    if random.random() < 0.25:
        raw["min_price"] = _limit(random, (1, 2), (2, "2.38", 3))
    if random.random() < 0.25:
        raw["max_price"] = _limit(random, (5, "8.4", "9.5"), ("9.99", 11, 12))
    if random.random() < 0.3:
        raw["tax_included"] = random.choice(("YES", "NO", "N/A"))
    return raw


def _limit(random: Random, excl: tuple[Any, ...], incl: tuple[Any, ...]) -> dict[str, Any]:
    """Before taxes, after taxes, or both."""
    both = {"excl_vat": random.choice(excl), "incl_vat": random.choice(incl)}
    return {
        name: both[name] for name in random.choice((("excl_vat",), ("incl_vat",), ("excl_vat", "incl_vat")))
    }


def _element(random: Random, flow: int) -> dict[str, Any]:
    restrictions = _restrictions(random, flow)
    kinds = ("FLAT", "TIME") if "reservation" in restrictions else ("FLAT", "ENERGY", "TIME", "PARKING_TIME")
    components = [
        _component(random, kind) for kind in random.sample(kinds, random.randrange(1, len(kinds) + 1))
    ]
    return {"price_components": components} | ({"restrictions": restrictions} if restrictions else {})


def _component(random: Random, kind: str) -> dict[str, Any]:
    step = {"ENERGY": (0, 1, 100, 1000), "FLAT": (1,)}.get(kind, (0, 1, 60, 300, 900))
    component: dict[str, Any] = {
        "type": kind, "price": random.choice(("0", "0.25", "0.3333", "1.99", "5", "12.5")),
        "step_size": random.choice(step),
    }  # fmt: skip
    if random.random() < 0.6:
        component["vat"] = random.choice((0, "5.2", 10, 20))
    return component


def _restrictions(random: Random, flow: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if random.random() < 0.15:
        found["reservation"] = random.choice(("RESERVATION", "RESERVATION_EXPIRES"))
    if random.random() < 0.4:
        found["start_time"] = _clock(random)
    if random.random() < 0.4:
        found["end_time"] = _clock(random)
    if random.random() < 0.25:
        found["day_of_week"] = random.sample(DAYS, random.randrange(1, 6))
    if random.random() < 0.1:
        found |= random.choice(
            ({"start_date": "2026-05-04"}, {"end_date": "2026-10-25"}, {"start_date": "2026-03-29"})
        )
    for name, values in (
        ("kwh", [n * flow / 1000 for n in (300, 1000, 2500)]), ("duration", [600, 1800, 3600]),
        ("current", [10, 32, 40]), ("power", [5, 11, 30]),
    ):  # fmt: skip
        if random.random() < 0.2:
            low, high = sorted(random.sample(values, 2))
            found |= random.choice(
                ({f"min_{name}": low}, {f"max_{name}": high}, {f"min_{name}": low, f"max_{name}": high})
            )
    return found


def _clock(random: Random) -> str:
    return f"{random.randrange(24):02d}:{random.choice((0, 15, 30, 45)):02d}"
