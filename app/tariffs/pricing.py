"""What a session costs by an OCPI tariff. Pure and exact: fractions until the end, then one rounding of the total.

The total is rounded once, half up; VAT rates and lines get their share of it by largest remainder, so that what a
CDR, an invoice and a payment say is one number. How it works: periods are cut wherever an element could begin or cease
to apply (local midnight, clock times, daylight saving, kWh and duration thresholds), so that one price holds for each
slice; each slice takes, per dimension, the first element that applies.

OCPI 2.2.1 on `step_size`: it is applied once per session to all energy and once to all time that has a price, by the
step of the component that came last; where parking is priced too, to the parking time alone. What is added is billed
at that last component's price.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from app.kernel.money import Exact, half_up, split, to_decimal
from app.kernel.money import exponent as exponent_of
from app.tariffs.ocpi_tariff import (
    DAYS,
    PriceComponent,
    PriceLimit,
    Tariff,
    TariffElement,
    TariffRestrictions,
)

CATEGORIES = ("energy", "time", "parking", "fixed", "reservation")
_CATEGORY = {"ENERGY": "energy", "TIME": "time", "PARKING_TIME": "parking", "FLAT": "fixed"}
_UNIT = {"ENERGY": "kWh", "TIME": "h", "PARKING_TIME": "h"}
_ZERO = Fraction(0)
_MICROSECOND = timedelta(microseconds=1)
_MILLIONTH = Decimal("0.000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A stretch of the session. Its volumes lie evenly over it; one without length holds them at an instant.

    Current is the sum over the phases in A, power in kW. Unknown power follows from energy and length; unknown
    current counts as none, since nobody may pay more for what was not measured.
    """

    start_at: datetime
    end_at: datetime
    energy_wh: Exact = 0
    charging_s: Exact = 0
    parking_s: Exact = 0
    reserved_s: Exact = 0
    min_current_a: Exact | None = None
    max_current_a: Exact | None = None
    min_power_kw: Exact | None = None
    max_power_kw: Exact | None = None
    is_reservation: bool = False

    def __post_init__(self) -> None:
        """In UTC from here on: the difference of two local times is not how long it took."""
        object.__setattr__(self, "start_at", self.start_at.astimezone(UTC))
        object.__setattr__(self, "end_at", self.end_at.astimezone(UTC))

    @classmethod
    def charging(cls, start_at: datetime, end_at: datetime, energy_wh: Exact = 0) -> "Period":
        length = _seconds(start_at, end_at)
        return cls(start_at=start_at, end_at=end_at, energy_wh=energy_wh, charging_s=length)

    @classmethod
    def parking(cls, start_at: datetime, end_at: datetime) -> "Period":
        return cls(start_at=start_at, end_at=end_at, parking_s=_seconds(start_at, end_at))

    @classmethod
    def reserved(cls, start_at: datetime, end_at: datetime) -> "Period":
        length = _seconds(start_at, end_at)
        return cls(start_at=start_at, end_at=end_at, reserved_s=length, is_reservation=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Payable amounts. What VAT is, follows."""

    excl_minor: int
    incl_minor: int

    @property
    def vat_minor(self) -> int:
        return self.incl_minor - self.excl_minor

    def as_json(self, currency: str) -> dict[str, str]:
        excl, incl = to_decimal(self.excl_minor, currency), to_decimal(self.incl_minor, currency)
        return {"excl_vat": str(excl), "incl_vat": str(incl)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceLine:
    """`component` is an OCPI dimension, or MIN_PRICE / MAX_PRICE for what a limit adds or takes away.

    `quantity` is in `unit` (kWh, h; empty for a fee) as billed, with the step; `unit_price` as the tariff says it.
    """

    category: str
    component: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    vat_rate: Decimal
    start_at: datetime
    end_at: datetime
    cost: Cost
    element_no: int | None

    def as_json(self, currency: str) -> dict[str, Any]:
        return {
            "component": self.component, "category": self.category, "volume": _text(self.quantity), "unit": self.unit,
            "unit_price": _text(self.unit_price), "vat": _text(self.vat_rate), "from": _stamp(self.start_at),
            "to": _stamp(self.end_at), "element": self.element_no,
        } | self.cost.as_json(currency)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The lines sum to the categories, and these with what a price limit changed (`adjustment`) to the total."""

    currency: str
    total_cost: Cost
    total_energy_cost: Cost
    total_time_cost: Cost
    total_parking_cost: Cost
    total_fixed_cost: Cost
    total_reservation_cost: Cost
    adjustment: Cost
    lines: tuple[PriceLine, ...]
    is_tax_included: bool = False

    def as_json(self) -> dict[str, Any]:
        """As `/price-previews` answers and a CDR keeps it: amounts as text, exact."""
        names = ("total_cost", *(f"total_{category}_cost" for category in CATEGORIES))
        costs = {name: getattr(self, name).as_json(self.currency) for name in names}
        return costs | {
            "price_limit_adjustment": self.adjustment.as_json(self.currency), "currency": self.currency,
            "is_tax_included": self.is_tax_included, "lines": [line.as_json(self.currency) for line in self.lines],
        }  # fmt: skip


def free(currency: str) -> Price:
    """Free-vend, or nobody set a tariff: nothing is owed."""
    return _rounded(currency, [], is_gross=False, is_tax_included=False)


def price(
    tariff: Tariff, periods: Sequence[Period], *, time_zone: str, default_vat: Exact = 0,
    is_reservation_expired: bool = False,
) -> Price:  # fmt: skip
    """`default_vat` (per cent) is for components that name no rate. An expired reservation has no session after it."""
    zone = ZoneInfo(time_zone)
    rate_of = _rates(tariff, Fraction(default_vat))
    in_order = sorted(periods, key=lambda period: period.start_at)
    reserved = [period for period in in_order if period.is_reservation]
    session = [] if is_reservation_expired else [period for period in in_order if not period.is_reservation]
    charges = [
        *_charges(tariff, reserved, zone, _reservation_elements(tariff, is_reservation_expired), rate_of),
        *_charges(tariff, session, zone, _session_elements(tariff), rate_of),
    ]
    moments = [period.start_at for period in in_order] + [period.end_at for period in in_order]
    span = (min(moments, default=_EPOCH), max(moments, default=_EPOCH))
    changes, is_gross = _adjustments(tariff, charges, span, rate_of, has_session=bool(session))
    charges += changes

    def payable(*, is_gross: bool) -> Price:
        return _rounded(tariff.currency, charges, is_gross=is_gross, is_tax_included=tariff.is_tax_included)

    found = payable(is_gross=is_gross)
    if not _keeps_limits(tariff, found, has_session=bool(session)):
        other = payable(is_gross=not is_gross)
        found = other if _keeps_limits(tariff, other, has_session=bool(session)) else found
    if min(found.total_cost.excl_minor, found.total_cost.incl_minor) >= 0:
        return found
    # Prices below 0 take from what the rest costs, but nobody is paid for charging (docs/decisions/0042).
    sums: dict[Fraction, Fraction] = {}
    for charge in charges:
        sums[charge.rate] = sums.get(charge.rate, _ZERO) + charge.excl
    charges += [_adjustment("MIN_PRICE", rate, -excl, span) for rate, excl in sorted(sums.items()) if excl]
    return payable(is_gross=is_gross)


def running_cost(
    tariff: Tariff, periods: Sequence[Period], *, time_zone: str, default_vat: Exact = 0
) -> Price:
    """What the session would cost if it ended now: the same engine on what is known so far."""
    return price(tariff, periods, time_zone=time_zone, default_vat=default_vat)


# --- which element applies ---------------------------------------------------------------------------------------

Numbered = tuple[int, TariffElement]


def _session_elements(tariff: Tariff) -> list[Numbered]:
    return [
        (number, element)
        for number, element in enumerate(tariff.elements)
        if not element.restrictions.reservation
    ]


def _reservation_elements(tariff: Tariff, is_expired: bool) -> list[Numbered]:
    """For one that expired, what is said of expiry comes before what is said of reservations (OCPI 2.2.1)."""
    wanted = ("RESERVATION_EXPIRES", "RESERVATION") if is_expired else ("RESERVATION",)
    return [
        (number, element)
        for kind in wanted
        for number, element in enumerate(tariff.elements)
        if element.restrictions.reservation == kind
    ]


@dataclass(frozen=True, slots=True)
class _Slice:
    """A piece of a period in which no restriction changes its mind. Time in microseconds since the epoch."""

    start_us: Fraction
    end_us: Fraction
    session_us: Fraction  # since the session began
    energy_before_wh: Fraction
    energy_wh: Fraction
    charging_s: Fraction
    parking_s: Fraction
    reserved_s: Fraction
    period: Period


def _applies(restrictions: TariffRestrictions, piece: _Slice, local: datetime) -> bool:
    return (
        applies_at(restrictions, local)
        and _within(restrictions.min_kwh, restrictions.max_kwh, piece.energy_before_wh / 1000)
        and _within(restrictions.min_duration, restrictions.max_duration, piece.session_us / 1_000_000)
        and _holds(restrictions.min_current, restrictions.max_current, *_currents(piece.period))
        and _holds(restrictions.min_power, restrictions.max_power, *_powers(piece.period))
    )


def applies_at(restrictions: TariffRestrictions, local: datetime) -> bool:
    """Days and times are the local ones of the instant, each on its own: FRIDAY with 22:00-06:00 ends at midnight."""
    today, now = local.date(), local.time()
    if restrictions.day_of_week and DAYS[local.weekday()] not in restrictions.day_of_week:
        return False
    if restrictions.start_date and today < restrictions.start_date:
        return False
    if restrictions.end_date and today >= restrictions.end_date:
        return False
    start, end = restrictions.start_time, restrictions.end_time
    midnight = datetime.min.time()
    if start is None or end is None or end == midnight:
        return (start is None or now >= start) and (end in (None, midnight) or now < end)
    return start <= now < end if start < end else now >= start or now < end


def _within(least: Exact | None, most: Exact | None, value: Fraction) -> bool:
    return (least is None or value >= Fraction(least)) and (most is None or value < Fraction(most))


def _holds(least: Exact | None, most: Exact | None, low: Fraction, high: Fraction) -> bool:
    return (least is None or low >= Fraction(least)) and (most is None or high < Fraction(most))


def _currents(period: Period) -> tuple[Fraction, Fraction]:
    return _pair(period.min_current_a, period.max_current_a, _ZERO)


def _powers(period: Period) -> tuple[Fraction, Fraction]:
    hours = Fraction(_epoch_us(period.end_at) - _epoch_us(period.start_at), 3_600_000_000)
    return _pair(
        period.min_power_kw,
        period.max_power_kw,
        Fraction(period.energy_wh) / 1000 / hours if hours else _ZERO,
    )


def _pair(low: Exact | None, high: Exact | None, unknown: Fraction) -> tuple[Fraction, Fraction]:
    """One of the two stands for the other when only one is known."""
    if low is None and high is None:
        return unknown, unknown
    low, high = (high if low is None else low), (low if high is None else high)
    return Fraction(low or 0), Fraction(high or 0)


# --- cutting -----------------------------------------------------------------------------------------------------


def _slices(periods: Sequence[Period], elements: Sequence[Numbered], zone: ZoneInfo) -> list[_Slice]:
    restrictions = [element.restrictions for _, element in elements]
    clock = _clock_cuts(periods, restrictions, zone)
    pieces: list[_Slice] = []
    energy = _ZERO
    for period in periods:
        elapsed = Fraction(_epoch_us(period.start_at) - _epoch_us(periods[0].start_at))
        for start, end in pairwise(_cuts(period, restrictions, clock, energy, elapsed)):
            pieces.append(_slice(period, start, end, energy, elapsed))
        energy += Fraction(period.energy_wh)
    return pieces


def _slice(period: Period, start: Fraction, end: Fraction, energy: Fraction, elapsed: Fraction) -> _Slice:
    length, first = _length_us(period), _epoch_us(period.start_at)
    share = end - start
    return _Slice(
        start_us=first + start * length, end_us=first + end * length, session_us=elapsed + start * length,
        energy_before_wh=energy + start * Fraction(period.energy_wh), energy_wh=share * Fraction(period.energy_wh),
        charging_s=share * Fraction(period.charging_s), parking_s=share * Fraction(period.parking_s),
        reserved_s=share * Fraction(period.reserved_s), period=period,
    )  # fmt: skip


def _cuts(
    period: Period, restrictions: Sequence[TariffRestrictions], clock: Sequence[int], energy: Fraction,
    elapsed: Fraction,
) -> list[Fraction]:  # fmt: skip
    """Where to cut, as parts of the period: 0, then whatever lies inside, then 1."""
    found: set[Fraction] = set()
    length, volume = _length_us(period), Fraction(period.energy_wh)
    if length > 0:
        first, last = _epoch_us(period.start_at), _epoch_us(period.end_at)
        inside = clock[bisect_right(clock, first) : bisect_left(clock, last)]
        found |= {(at - first) / length for at in inside}
        found |= {(limit * 1_000_000 - elapsed) / length for limit in _limits(restrictions, "duration")}
    if volume > 0:
        found |= {(limit * 1000 - energy) / volume for limit in _limits(restrictions, "kwh")}
    return [_ZERO, *sorted(cut for cut in found if 0 < cut < 1), Fraction(1)]


def _limits(restrictions: Sequence[TariffRestrictions], name: str) -> set[Fraction]:
    values = (getattr(one, f"{side}_{name}") for one in restrictions for side in ("min", "max"))
    return {Fraction(value) for value in values if value is not None}


def _clock_cuts(
    periods: Sequence[Period], restrictions: Sequence[TariffRestrictions], zone: ZoneInfo
) -> list[int]:
    """Every instant at which a local clock or calendar condition may change, in epoch microseconds, in order."""
    times = {at for one in restrictions for at in (one.start_time, one.end_time) if at is not None}
    if not times and not any(one.day_of_week or one.start_date or one.end_date for one in restrictions):
        return []
    times.add(datetime.min.time())
    first = min((period.start_at for period in periods), default=_EPOCH).astimezone(zone).date()
    last = max((period.end_at for period in periods), default=_EPOCH).astimezone(zone).date()
    found: set[int] = set()
    for number in range(-1, (last - first).days + 2):
        day = first + timedelta(days=number)
        for at in times:
            local = datetime.combine(day, at, tzinfo=zone)
            found |= {_epoch_us(local), _epoch_us(local.replace(fold=1))}
        found |= _clock_changes(datetime.combine(day, datetime.min.time(), tzinfo=zone), zone)
    return sorted(found)


def _clock_changes(midnight: datetime, zone: ZoneInfo) -> set[int]:
    """The instant within this local day at which clocks are turned, to the second; usually none."""
    low, high = (_epoch_us(at) // 1_000_000 for at in (midnight, midnight + timedelta(days=1)))
    if _offset(low, zone) == _offset(high, zone):
        return set()
    before = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return {high * 1_000_000}


def _offset(epoch_s: int, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(epoch_s, zone).utcoffset()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _epoch_us(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _seconds(start_at: datetime, end_at: datetime) -> Fraction:
    return Fraction(_epoch_us(end_at) - _epoch_us(start_at), 1_000_000)


def _from_epoch_us(at: Fraction) -> datetime:
    return _EPOCH + math.floor(at) * _MICROSECOND


def _length_us(period: Period) -> Fraction:
    return Fraction(_epoch_us(period.end_at) - _epoch_us(period.start_at))


# --- charging for it ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Charge:
    """A line in the making: exact, in kWh or hours, in whole units of the currency."""

    category: str
    component: str
    quantity: Fraction
    unit_price: Fraction
    rate: Fraction
    start_at: datetime
    end_at: datetime
    is_tax_included: bool
    element_no: int | None = None
    step_size: int = 0

    @property
    def excl(self) -> Fraction:
        amount = self.quantity * self.unit_price
        return amount / (1 + self.rate / 100) if self.is_tax_included else amount

    @property
    def incl(self) -> Fraction:
        amount = self.quantity * self.unit_price
        return amount if self.is_tax_included else amount * (1 + self.rate / 100)


RateOf = Callable[[PriceComponent], Fraction]


def _rates(tariff: Tariff, default: Fraction) -> RateOf:
    """A component's own rate wins; where taxes do not apply at all (2.3.0 N/A), none is added."""
    fallback = _ZERO if tariff.tax_included == "N/A" else default
    return lambda component: fallback if component.vat is None else Fraction(component.vat)


def _charges(
    tariff: Tariff, periods: Sequence[Period], zone: ZoneInfo, elements: Sequence[Numbered], rate_of: RateOf
) -> list[_Charge]:
    """Exact charges of a session or of a reservation, in the order of CATEGORIES."""
    runs: dict[str, list[_Charge]] = {"FLAT": [], "ENERGY": [], "TIME": [], "PARKING_TIME": []}
    for piece in _slices(periods, elements, zone):
        active = _active(elements, piece, zone)
        for kind, quantity in _quantities(piece, has_flat=not runs["FLAT"]).items():
            if kind in active and (quantity or kind == "FLAT"):
                number, component = active[kind]
                _extend(runs[kind], tariff, piece, number, component, quantity, rate_of)
    _apply_steps(runs)
    return [*runs["ENERGY"], *runs["TIME"], *runs["PARKING_TIME"], *runs["FLAT"]]


def _active(
    elements: Sequence[Numbered], piece: _Slice, zone: ZoneInfo
) -> dict[str, tuple[int, PriceComponent]]:
    """Per dimension the first element that applies."""
    local = _from_epoch_us(piece.start_us).astimezone(zone)
    found: dict[str, tuple[int, PriceComponent]] = {}
    for number, element in elements:
        if any(one.type not in found for one in element.price_components) and _applies(
            element.restrictions, piece, local
        ):
            for component in element.price_components:
                found.setdefault(component.type, (number, component))
    return found


def _quantities(piece: _Slice, *, has_flat: bool) -> dict[str, Fraction]:
    """A fee is due once, where an element with one first applies."""
    volumes = {
        "ENERGY": piece.energy_wh / 1000,
        "TIME": (piece.reserved_s if piece.period.is_reservation else piece.charging_s) / 3600,
        "PARKING_TIME": piece.parking_s / 3600,
    }
    return volumes | ({"FLAT": Fraction(1)} if has_flat else {})


def _extend(
    run: list[_Charge], tariff: Tariff, piece: _Slice, number: int, component: PriceComponent, quantity: Fraction,
    rate_of: RateOf,
) -> None:  # fmt: skip
    """Another slice at the same price lengthens the line; another price begins a new one."""
    start, end = _from_epoch_us(piece.start_us), _from_epoch_us(piece.end_us)
    if run and run[-1].element_no == number and component.type != "FLAT":
        run[-1].quantity += quantity
        run[-1].end_at = end
        return
    category = "reservation" if piece.period.is_reservation else _CATEGORY[component.type]
    charge = _Charge(
        category=category, component=component.type, quantity=quantity, unit_price=Fraction(component.price),
        rate=rate_of(component), start_at=start, end_at=start if component.type == "FLAT" else end,
        is_tax_included=tariff.is_tax_included, element_no=number, step_size=component.step_size,
    )  # fmt: skip
    run.append(charge)


def _apply_steps(runs: dict[str, list[_Charge]]) -> None:
    _round_up(runs["ENERGY"], 1000)
    _round_up(runs["PARKING_TIME"] or runs["TIME"], 3600)


def _round_up(run: list[_Charge], steps_per_unit: int) -> None:
    """The whole of a dimension to a multiple of the last component's step; the last line takes what is added."""
    if not run or not run[-1].step_size:
        return
    step = Fraction(run[-1].step_size, steps_per_unit)
    total = sum((charge.quantity for charge in run), _ZERO)
    run[-1].quantity += math.ceil(total / step) * step - total


# --- limits and rounding -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Group:
    """What is charged at one VAT rate."""

    rate: Fraction
    excl: Fraction = _ZERO

    @property
    def vat(self) -> Fraction:
        return self.excl * self.rate / 100


def _adjustment(name: str, rate: Fraction, excl: Fraction, span: tuple[datetime, datetime]) -> _Charge:
    return _Charge(
        category="adjustment", component=name, quantity=Fraction(1), unit_price=excl, rate=rate,
        start_at=span[0], end_at=span[1], is_tax_included=False,
    )  # fmt: skip


def _adjustments(
    tariff: Tariff,
    charges: Sequence[_Charge],
    span: tuple[datetime, datetime],
    rate_of: RateOf,
    *,
    has_session: bool,
) -> tuple[list[_Charge], bool]:
    """What min_price adds and max_price takes away: one line per VAT rate, each with the VAT of that rate. And whether
    the payable total is to be found from the gross: a limit that is reached holds to the cent on the side it names.
    """
    groups: dict[Fraction, _Group] = {}
    for charge in charges:
        groups.setdefault(charge.rate, _Group(charge.rate)).excl += charge.excl
    highest = max(
        (rate_of(one) for element in tariff.elements for one in element.price_components), default=_ZERO
    )
    found: list[_Charge] = []
    is_gross = tariff.is_tax_included
    limits = [
        ("MIN_PRICE", tariff.min_price if has_session else None, 1),
        ("MAX_PRICE", tariff.max_price, -1),
    ]
    for name, limit, sign in limits:
        if limit is None:
            continue
        if not any(group.excl for group in groups.values()):
            groups.setdefault(highest, _Group(highest))
        changes, binding = _changes(limit, sign, list(groups.values()))
        is_gross = is_gross if binding is None else binding
        for rate, excl in sorted(changes.items()):
            groups[rate].excl += excl
            found.append(_adjustment(name, rate, excl, span))
    return found, is_gross


def _changes(
    limit: PriceLimit, sign: int, groups: Sequence[_Group]
) -> tuple[dict[Fraction, Fraction], bool | None]:
    """(net change per VAT rate, whether the limit after taxes decides), None where both or none do. `sign` 1 for a
    minimum, -1 for a maximum.

    Both sides of a limit hold (OCPI 2.3.0, PriceLimit): the change is the smallest that satisfies them, in proportion
    to what is charged at each rate. Where another distribution meets both to the cent, it is that one, as in OCPI's
    example of a maximum.
    """
    excl = sum((group.excl for group in groups), _ZERO)
    incl = excl + sum((group.vat for group in groups), _ZERO)
    by_excl = _ZERO if limit.excl_vat is None else Fraction(limit.excl_vat) - excl
    by_incl = _ZERO if limit.incl_vat is None else Fraction(limit.incl_vat) - incl
    if by_excl * sign <= 0 and by_incl * sign <= 0:
        return {}, None
    weights = _weights(groups)
    if by_excl * sign > 0 and by_incl * sign > 0:
        both = _meeting_both(groups, weights, by_excl, by_incl, sign)
        if both is not None:
            return both, None
    average = sum((weights[group.rate] * group.rate for group in groups), _ZERO) / 100
    net_of_incl = by_incl / (1 + average)
    change = max(by_excl * sign, net_of_incl * sign) * sign
    binding = None if by_excl == net_of_incl else change == net_of_incl
    return {rate: change * weight for rate, weight in weights.items() if weight}, binding


def _keeps_limits(tariff: Tariff, found: Price, *, has_session: bool) -> bool:
    """Also to the cent: not every gross is a whole net with its VAT, so that rounding may pass what the sum kept."""
    scale, cost = 10 ** exponent_of(found.currency), found.total_cost
    totals = {"excl_vat": cost.excl_minor, "incl_vat": cost.incl_minor}
    limits = [(tariff.min_price if has_session else None, 1), (tariff.max_price, -1)]
    return all(
        (total - getattr(limit, side) * scale) * sign >= 0
        for limit, sign in limits if limit is not None
        for side, total in totals.items() if getattr(limit, side) is not None
    )  # fmt: skip


def _weights(groups: Sequence[_Group]) -> dict[Fraction, Fraction]:
    """The parts of the groups in what is charged; of nothing, the highest rate is all."""
    whole = sum((abs(group.excl) for group in groups), _ZERO)
    if not whole:
        highest = max(group.rate for group in groups)
        return {group.rate: Fraction(group.rate == highest) for group in groups}
    return {group.rate: abs(group.excl) / whole for group in groups}


def _meeting_both(
    groups: Sequence[_Group], weights: dict[Fraction, Fraction], by_excl: Fraction, by_incl: Fraction, sign: int
) -> dict[Fraction, Fraction] | None:  # fmt: skip
    """The change that reaches the limit before and after taxes at once: in proportion as far as may be, the rest at the
    lowest or the highest rate. None where that cannot be, or would take from a rate more than is charged at it."""
    wanted = (by_incl / by_excl - 1) * 100
    average = sum((weights[group.rate] * group.rate for group in groups), _ZERO)
    charged = [group.rate for group in groups if weights[group.rate]]
    corner = max(charged) if wanted > average else min(charged)
    part = (
        _ZERO if wanted == average else (wanted - average) / (corner - average) if corner != average else None
    )
    if part is None or part > 1:
        return None
    changes = {
        rate: by_excl * (weight * (1 - part) + (part if rate == corner else 0))
        for rate, weight in weights.items()
    }
    if sign < 0 and any(group.excl + changes[group.rate] < 0 <= group.excl for group in groups):
        return None
    return {rate: change for rate, change in changes.items() if change}


def _rounded(currency: str, charges: Sequence[_Charge], *, is_gross: bool, is_tax_included: bool) -> Price:
    """The one place where amounts become payable.

    One side of the tax is rounded, once: the gross where `is_gross`, else the net. VAT rates get their share of it and
    lines theirs of that, by largest remainder; the tax follows from what each rate came to, so that whoever checks an
    invoice finds it there. Of the gross it is that of each rate, half up. On the net it is rounded once too, and
    shared: OCPI's complex example costs 10.30, not 10.31.
    """
    scale = 10 ** exponent_of(currency)
    exact = [(charge.incl if is_gross else charge.excl) * scale for charge in charges]
    by_rate: dict[Fraction, list[int]] = {}
    for number, charge in enumerate(charges):
        by_rate.setdefault(charge.rate, []).append(number)
    shares = [sum((exact[number] for number in numbers), _ZERO) for numbers in by_rate.values()]
    sums = split(half_up(sum(shares, _ZERO)), shares)
    costs: dict[int, Cost] = {}
    for (rate, numbers), amount, vat in zip(
        by_rate.items(), sums, _vats(sums, list(by_rate), is_gross), strict=True
    ):
        amounts = split(amount, [exact[number] for number in numbers])
        vats = split(vat, [_vat(one, rate, is_gross=is_gross) for one in amounts])
        for number, one, tax in zip(numbers, amounts, vats, strict=True):
            costs[number] = (
                Cost(excl_minor=one - tax, incl_minor=one) if is_gross
                else Cost(excl_minor=one, incl_minor=one + tax)
            )  # fmt: skip
    lines = [(charge, costs[number]) for number, charge in enumerate(charges)]
    named = {
        name: _sum(cost for charge, cost in lines if charge.category == name)
        for name in (*CATEGORIES, "adjustment")
    }
    return Price(
        currency=currency, total_cost=_sum(named.values()), adjustment=named.pop("adjustment"),
        lines=tuple(_line(charge, cost) for name in (*CATEGORIES, "adjustment") for charge, cost in lines
                    if charge.category == name),
        is_tax_included=is_tax_included, **{f"total_{name}_cost": cost for name, cost in named.items()},
    )  # fmt: skip


def _vat(amount: int, rate: Fraction, *, is_gross: bool) -> Fraction:
    return amount * rate / (100 + rate) if is_gross else amount * rate / 100


def _vats(amounts: Sequence[int], rates: Sequence[Fraction], is_gross: bool) -> list[int]:
    """In what each rate came to, or on it."""
    exact = [_vat(amount, rate, is_gross=is_gross) for amount, rate in zip(amounts, rates, strict=True)]
    return [half_up(one) for one in exact] if is_gross else split(half_up(sum(exact, _ZERO)), exact)


def _sum(costs: Iterable[Cost]) -> Cost:
    costs = list(costs)
    return Cost(
        excl_minor=sum(cost.excl_minor for cost in costs), incl_minor=sum(cost.incl_minor for cost in costs)
    )


def _line(charge: _Charge, cost: Cost) -> PriceLine:
    return PriceLine(
        category=charge.category, component=charge.component, quantity=_decimal(charge.quantity),
        unit=_UNIT.get(charge.component, ""), unit_price=_decimal(charge.unit_price), vat_rate=_decimal(charge.rate),
        start_at=charge.start_at, end_at=charge.end_at, cost=cost, element_no=charge.element_no,
    )  # fmt: skip


def _decimal(value: Fraction) -> Decimal:
    """Six decimals are enough to be read; the amounts were computed from the fraction itself."""
    return (Decimal(half_up(value * 1_000_000)) * _MILLIONTH).normalize() + 0


def _text(value: Decimal) -> str:
    return format(value, "f")


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
