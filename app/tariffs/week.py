"""A tariff over a week: what holds on which day at which hour, drawn and in words (pure).

Days and times are the local ones of the site. What depends on more than the clock (energy, power, time that passed)
stands in the words of its level; reservations are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise

from msgspec.structs import replace

from app.tariffs.explain import days_in_words, explain
from app.tariffs.ocpi_tariff import DAYS, Tariff, TariffElement, TariffRestrictions
from app.tariffs.pricing import applies_at

LEFT, TOP, ROW = 64, 6, 30
DAY_MIN = 24 * 60
_KINDS = ("ENERGY", "TIME", "FLAT", "PARKING_TIME")
_FAINT, _STRONG = 10, 42  # per cent of the accent over the surface: the number in it stays readable


@dataclass(frozen=True, slots=True)
class Block:
    """One colour in one row; `number` is its level's, and is written in it where there is room."""

    x: int
    y: int
    width: int
    number: int
    opacity: str
    is_labelled: bool
    words: str


@dataclass(frozen=True, slots=True)
class Level:
    """What is paid at some hours, the cheapest kWh first: `prices` and `times` as sentences, `elements` counted from 1
    as they stand in the tariff."""

    number: int
    opacity: str
    prices: list[str]
    times: list[str]
    elements: list[int]


@dataclass(frozen=True, slots=True)
class Week:
    monday: date
    blocks: list[Block]
    levels: list[Level]
    rows: list[tuple[int, str]]
    ticks: list[tuple[int, str]]
    width: int = LEFT + DAY_MIN // 2
    height: int = TOP + 7 * ROW


@dataclass(frozen=True, slots=True)
class _Span:
    day: int
    start_min: int
    end_min: int
    elements: tuple[int, ...]


def draw(tariff: Tariff, monday: date) -> Week:
    """The week of that Monday; dates count, so another week may look otherwise."""
    spans = _spans(tariff, monday)
    prices = {one.elements: tuple(_in_words(tariff, one.elements)) for one in spans}
    costs = {prices[elements]: _costs(tariff, elements) for elements in prices}
    order = sorted(costs, key=lambda words: (costs[words], words))
    levels = [
        _level(number, words, [one for one in spans if prices[one.elements] == words], len(order))
        for number, words in enumerate(order, 1)
    ]
    by_words = dict(zip(order, levels, strict=True))
    return Week(
        monday, [_block(one, by_words[prices[one.elements]]) for one in spans], levels,
        rows=[(TOP + day * ROW + 20, DAYS[day].capitalize()[:3]) for day in range(7)],
        ticks=[(_x(hour * 60), f"{hour:02}") for hour in range(0, 25, 3)],
    )  # fmt: skip


def _spans(tariff: Tariff, monday: date) -> list[_Span]:
    """Neighbours of one day that say the same are one."""
    clocks = [
        at for one in tariff.elements for at in (one.restrictions.start_time, one.restrictions.end_time) if at
    ]
    cuts = sorted({0, DAY_MIN, *(at.hour * 60 + at.minute for at in clocks)})
    found: list[_Span] = []
    for day in range(7):
        for start, end in pairwise(cuts):
            at = datetime.combine(monday + timedelta(days=day), time(start // 60, start % 60))
            elements = tuple(_holding(tariff, at))
            if found and (found[-1].day, found[-1].elements) == (day, elements):
                start = found.pop().start_min
            found.append(_Span(day, start, end, elements))
    return found


def _holding(tariff: Tariff, at: datetime) -> list[int]:
    """Of each kind of price the first element that the clock allows, and before it those that hang on more."""
    found, settled = list[int](), set[str]()
    for number, element in enumerate(tariff.elements):
        restrictions = element.restrictions
        kinds = {one.type for one in element.price_components} - settled
        if restrictions.reservation or not kinds or not applies_at(restrictions, at):
            continue
        found.append(number)
        if _beyond_clock(restrictions) == TariffRestrictions():
            settled |= kinds
    return found


def _beyond_clock(restrictions: TariffRestrictions) -> TariffRestrictions:
    return replace(
        restrictions, start_time=None, end_time=None, start_date=None, end_date=None, day_of_week=(), extra={}
    )


def _in_words(tariff: Tariff, numbers: Sequence[int]) -> list[str]:
    """As `explain` says it, without the hours, for those stand beside it, and without the limits of a session."""
    elements, settled = list[TariffElement](), set[str]()
    for element in (tariff.elements[number] for number in numbers):
        kept = tuple(one for one in element.price_components if one.type not in settled)
        beyond = _beyond_clock(element.restrictions)
        elements.append(replace(element, price_components=kept, restrictions=beyond))
        if beyond == TariffRestrictions():
            settled |= {str(one.type) for one in kept}
    return explain(replace(tariff, elements=tuple(elements), min_price=None, max_price=None))


def _costs(tariff: Tariff, numbers: Sequence[int]) -> tuple[Decimal, ...]:
    found: dict[str, Decimal] = {}
    for number in numbers:
        for one in tariff.elements[number].price_components:
            found.setdefault(one.type, one.price)
    return tuple(found.get(kind, Decimal(0)) for kind in _KINDS)


def _level(number: int, words: tuple[str, ...], spans: Sequence[_Span], count: int) -> Level:
    opacity = _FAINT + (_STRONG - _FAINT) * (number - 1) // max(count - 1, 1)
    by_hours: dict[tuple[str, ...], list[str]] = {}
    for day in range(7):
        hours = tuple(_hours(one) for one in spans if one.day == day)
        if hours:
            by_hours.setdefault(hours, []).append(DAYS[day])
    times = [f"{days_in_words(tuple(days))}, {' and '.join(hours)}" for hours, days in by_hours.items()]
    elements = sorted({one + 1 for span in spans for one in span.elements})
    return Level(number, f"0.{opacity}", list(words), [one[0].upper() + one[1:] for one in times], elements)


def _hours(span: _Span) -> str:
    return f"{_clock(span.start_min)}–{_clock(span.end_min)}"  # noqa: RUF001 (an en dash, as between times)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _block(span: _Span, level: Level) -> Block:
    x = _x(span.start_min)
    return Block(
        x, TOP + span.day * ROW, _x(span.end_min) - x, level.number, level.opacity,
        is_labelled=span.end_min - span.start_min >= 60,
        words=f"{DAYS[span.day].capitalize()[:3]} {_hours(span)}: {'; '.join(level.prices)}",
    )  # fmt: skip


def _x(minute: int) -> int:
    return LEFT + minute // 2
