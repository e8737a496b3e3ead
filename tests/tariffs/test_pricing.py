"""What must hold for every price, and the rules one by one."""

import copy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tariffs.ocpi_tariff import read_tariff
from app.tariffs.pricing import CATEGORIES, Period, Price, free, price, running_cost
from tests.tariffs.random_tariffs import Case, case

BERLIN = "Europe/Berlin"
MONDAY = datetime(2026, 5, 4, 6, tzinfo=UTC)  # 08:00 in Berlin
seeds = st.integers(min_value=0, max_value=2**32)
parts = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(999, 1000), max_denominator=1000)


def component(kind: str, price: Any, *, vat: Any = None, step: int = 0) -> dict[str, Any]:
    return {"type": kind, "price": price, "step_size": step} | ({} if vat is None else {"vat": vat})


def tariff(*components: dict[str, Any], **restrictions: Any) -> dict[str, Any]:
    element: dict[str, Any] = {"price_components": list(components)}
    return {
        "currency": "EUR",
        "elements": [element | ({"restrictions": restrictions} if restrictions else {})],
    }


def cost(raw: dict[str, Any], *periods: Period, zone: str = BERLIN, **more: Any) -> Price:
    return price(read_tariff(raw), periods, time_zone=zone, **more)


def excl(found: Price) -> str:
    return found.total_cost.as_json(found.currency)["excl_vat"]


def charging(seconds: float, wh: int = 0, start: datetime = MONDAY) -> Period:
    return Period.charging(start, start + timedelta(seconds=seconds), wh)


def parking(seconds: float, start: datetime) -> Period:
    return Period.parking(start, start + timedelta(seconds=seconds))


def free_of_steps(one: Case) -> Case:
    for element in one.tariff["elements"]:
        for each in element["price_components"]:
            each["step_size"] = 0
    return one


def price_of(one: Case, periods: list[Period] | None = None) -> Price:
    periods = [stretch.period() for stretch in one.stretches] if periods is None else periods
    return price(
        read_tariff(one.tariff), periods, time_zone=one.zone, default_vat=one.default_vat,
        is_reservation_expired=one.is_expired,
    )  # fmt: skip


def split_at(period: Period, part: Fraction) -> list[Period]:
    """In two at a whole microsecond, the volumes in proportion. Power stays what it was in both."""
    length = (period.end_at - period.start_at) // timedelta(microseconds=1)
    at = int(length * part)
    share = Fraction(at, length)
    hours = Fraction(length, 3_600_000_000)
    power = Fraction(period.energy_wh) / 1000 / hours
    halves = []
    for start, end, of in ((0, at, share), (at, length, 1 - share)):
        halves.append(
            Period(
                start_at=period.start_at + timedelta(microseconds=start),
                end_at=period.start_at + timedelta(microseconds=end),
                energy_wh=Fraction(period.energy_wh) * of, charging_s=Fraction(period.charging_s) * of,
                parking_s=Fraction(period.parking_s) * of, reserved_s=Fraction(period.reserved_s) * of,
                min_current_a=period.min_current_a, max_current_a=period.max_current_a,
                min_power_kw=power if period.min_power_kw is None else period.min_power_kw,
                max_power_kw=power if period.max_power_kw is None else period.max_power_kw,
                is_reservation=period.is_reservation,
            )
        )  # fmt: skip
    return halves


# --- what holds for every price ----------------------------------------------------------------------------------


@given(seeds, parts, st.integers(min_value=0, max_value=3))
def test_splitting_a_period_anywhere_changes_nothing(seed: int, part: Fraction, which: int) -> None:
    one = free_of_steps(case(Random(seed)))
    periods = [stretch.period() for stretch in one.stretches]
    which %= len(periods)
    finer = [*periods[:which], *split_at(periods[which], part), *periods[which + 1 :]]
    assert price_of(one, finer).total_cost == price_of(one, periods).total_cost


@given(seeds)
def test_lines_sum_to_categories_and_these_to_the_total(seed: int) -> None:
    found = price_of(case(Random(seed)))
    for side in ("excl_minor", "incl_minor"):
        for category in CATEGORIES:
            lines = [getattr(line.cost, side) for line in found.lines if line.category == category]
            assert sum(lines) == getattr(getattr(found, f"total_{category}_cost"), side)
        assert sum(getattr(line.cost, side) for line in found.lines) == getattr(found.total_cost, side)


@given(seeds)
def test_net_and_vat_make_gross_and_a_line_without_vat_has_none(seed: int) -> None:
    one = case(Random(seed))
    for line in price_of(one).lines:
        assert line.cost.excl_minor + line.cost.vat_minor == line.cost.incl_minor
        assert line.vat_rate or not line.cost.vat_minor
        if line.component not in ("MIN_PRICE", "MAX_PRICE"):
            assert line.cost.vat_minor >= 0
        exact = Fraction(line.cost.excl_minor) * Fraction(line.vat_rate) / 100
        assert abs(exact - line.cost.vat_minor) < 2
        assert line.cost.incl_minor or not line.cost.excl_minor


def by_rate(found: Price) -> dict[Fraction, tuple[int, int, int]]:
    """(net, VAT, gross) per rate, as an invoice shows them."""
    groups: dict[Fraction, tuple[int, int, int]] = {}
    for line in found.lines:
        net, vat, gross = groups.get(Fraction(line.vat_rate), (0, 0, 0))
        cost = line.cost
        groups[Fraction(line.vat_rate)] = (
            net + cost.excl_minor,
            vat + cost.vat_minor,
            gross + cost.incl_minor,
        )
    return groups


def half_up(exact: Fraction) -> int:
    return int(exact + Fraction(1, 2))


@given(seeds)
@settings(max_examples=200)
def test_the_vat_of_each_rate_is_that_of_its_amount_whatever_a_limit_changed(seed: int) -> None:
    """Of the gross to the cent; on the net to the cent for one rate, and near for several, whose sum is rounded."""
    one = case(Random(seed))
    groups = by_rate(price_of(one))
    rates = [rate for rate, (_net, _vat, gross) in groups.items() if rate and gross]
    for rate, (net, vat, gross) in groups.items():
        of_gross, on_net = gross * rate / (100 + rate), net * rate / 100
        assert rate or vat == 0
        assert abs(vat - on_net) < Fraction(3, 2)
        is_limited = one.tariff.get("min_price") or one.tariff.get("max_price")
        if one.tariff.get("tax_included") == "YES" and not is_limited:
            assert vat == half_up(of_gross)
        elif len(rates) == 1:
            assert vat in (half_up(on_net), half_up(of_gross) if is_limited else half_up(on_net))


@given(seeds)
@settings(max_examples=200)
def test_limits_hold_before_and_after_taxes_and_one_is_reached_where_they_change_anything(seed: int) -> None:
    one = case(Random(seed))
    found = price_of(one)
    total, unlimited = found.total_cost, copy.deepcopy(one)
    sides = {"excl_vat": total.excl_minor, "incl_vat": total.incl_minor}
    scale = 10 ** {"EUR": 2, "JPY": 0, "KWD": 3}[found.currency]
    for name, sign in (("min_price", 1), ("max_price", -1)):
        limit = unlimited.tariff.pop(name, None)
        if limit is None or (name == "min_price" and one.is_expired):
            continue
        left = [(sides[side] - Fraction(str(value)) * scale) * sign for side, value in limit.items()]
        # Ten yen are as near to 9.99 as a payment comes.
        assert all(one >= (0 if one.denominator == 1 else Fraction(-1, 2)) for one in left)
        if any(line.component == name.upper() for line in found.lines):
            assert min(left) < 1
    if not any(line.component in ("MIN_PRICE", "MAX_PRICE") for line in found.lines):
        assert price_of(unlimited).total_cost == total


@given(seeds)
def test_more_of_the_same_session_never_costs_less(seed: int) -> None:
    one = free_of_steps(case(Random(seed)))
    if one.is_expired:
        return
    periods = [stretch.period() for stretch in one.stretches]
    costs = [price_of(one, periods[:count]).total_cost for count in range(1, len(periods) + 1)]
    is_limited = one.tariff.get("min_price") or one.tariff.get("max_price")
    rates = {line.vat_rate for line in price_of(one, periods).lines if line.vat_rate and line.cost.incl_minor}
    for shorter, longer in pairwise(costs):
        if not shorter.incl_minor and one.tariff.get("min_price"):  # a reservation alone has no minimum yet
            continue
        # Several rates share what is rounded. Under a limit another rate's part of the same sum may be the lesser.
        slack = len(rates) if len(rates) > 1 or is_limited else 0
        excl, incl = longer.excl_minor - shorter.excl_minor, longer.incl_minor - shorter.incl_minor
        assert max(excl, incl) >= 0 if is_limited else min(excl, incl) >= -slack


@given(
    energy=st.integers(0, 90_000), more=st.integers(0, 90_000), seconds=st.integers(1, 40_000),
    longer=st.integers(0, 40_000), steps=st.tuples(st.sampled_from([0, 1, 500]), st.sampled_from([0, 60, 900])),
)  # fmt: skip
def test_more_energy_or_time_never_costs_less(
    energy: int, more: int, seconds: int, longer: int, steps: tuple[int, int]
) -> None:
    raw = tariff(
        component("ENERGY", "0.37", vat=19, step=steps[0]),
        component("TIME", "1.1", vat=19, step=steps[1]),
    )
    least = cost(raw, charging(seconds, energy)).total_cost.incl_minor
    assert least <= cost(raw, charging(seconds, energy + more)).total_cost.incl_minor
    assert least <= cost(raw, charging(seconds + longer, energy)).total_cost.incl_minor


@given(seeds, st.randoms(use_true_random=False))
def test_the_order_of_elements_matters_only_between_those_with_the_same_dimension(
    seed: int, random: Random
) -> None:
    one = case(Random(seed))
    single = [
        element | {"price_components": [each]}
        for element in one.tariff["elements"]
        for each in element["price_components"]
    ]
    apart = copy.deepcopy(one)
    apart.tariff["elements"] = single
    by_kind: dict[str, list[Any]] = {}
    for element in single:
        by_kind.setdefault(element["price_components"][0]["type"], []).append(element)
    kinds = list(by_kind)
    random.shuffle(kinds)
    shuffled = copy.deepcopy(one)
    shuffled.tariff["elements"] = [element for kind in kinds for element in by_kind[kind]]
    assert price_of(apart).total_cost == price_of(shuffled).total_cost == price_of(one).total_cost


@given(seeds)
@settings(max_examples=50)
def test_the_same_question_has_the_same_answer(seed: int) -> None:
    assert price_of(case(Random(seed))) == price_of(case(Random(seed)))


@given(st.lists(st.tuples(st.integers(0, 3_000), st.sampled_from([0, 7, 19, 20])), min_size=1, max_size=8))
def test_the_total_is_rounded_once_however_many_lines_there_are(amounts: list[tuple[int, int]]) -> None:
    elements = [
        {
            "price_components": [component("ENERGY", f"{amount / 1000:.3f}", vat=vat)],
            "restrictions": {"max_kwh": n + 1},
        }
        for n, (amount, vat) in enumerate(amounts)
    ]
    found = cost({"currency": "EUR", "elements": elements}, charging(3600, 1000 * len(amounts)))
    exact = sum(Fraction(amount, 1000) for amount, _ in amounts) * 100
    assert abs(found.total_cost.excl_minor - exact) <= Fraction(1, 2)
    vat = sum(net * rate / 100 for rate, (net, _vat, _gross) in by_rate(found).items())
    assert abs(found.total_cost.vat_minor - vat) <= Fraction(1, 2)
    assert [line.cost.excl_minor for line in found.lines] and all(
        abs(Fraction(line.cost.excl_minor) - Fraction(amount, 10)) < 2
        for line, (amount, _) in zip(found.lines, amounts, strict=True)
    )


# --- days of 23 and 25 hours -------------------------------------------------------------------------------------


def local_day(year: int, month: int, day: int, zone: str = BERLIN) -> Period:
    start = datetime(year, month, day, tzinfo=ZoneInfo(zone))
    return Period.parking(start, start + timedelta(days=1))


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, 23), (10, 25, 25), (5, 4, 24)])
def test_a_day_costs_as_many_hours_as_it_has(month: int, day: int, hours: int) -> None:
    weekday = datetime(2026, month, day).strftime("%A").upper()
    raw = tariff(component("PARKING_TIME", 1), day_of_week=[weekday])
    around = local_day(2026, month, day)
    longer = Period.parking(around.start_at - timedelta(hours=30), around.end_at + timedelta(hours=30))
    assert excl(cost(raw, around)) == excl(cost(raw, longer)) == f"{hours}.00"


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, 0), (10, 25, 2), (5, 4, 1)])
def test_the_hour_from_two_to_three_comes_never_once_or_twice(month: int, day: int, hours: int) -> None:
    raw = tariff(component("PARKING_TIME", 1), start_time="02:00", end_time="03:00")
    assert excl(cost(raw, local_day(2026, month, day))) == f"{hours}.00"


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, "0.00"), (10, 25, "1.00"), (5, 4, "0.50")])
def test_half_of_that_hour_counts_in_the_same_way(month: int, day: int, hours: str) -> None:
    raw = tariff(component("PARKING_TIME", 1), start_time="02:30", end_time="03:00")
    assert excl(cost(raw, local_day(2026, month, day))) == hours


def test_windows_follow_the_clock_of_the_place_not_ours() -> None:
    raw = tariff(component("TIME", 6), start_time="08:00", end_time="09:00")
    assert excl(cost(raw, charging(3600))) == "6.00"
    assert excl(cost(raw, charging(3600), zone="UTC")) == "0.00"
    assert excl(cost(raw, charging(3600), zone="Asia/Kolkata")) == "0.00"


# --- one rule at a time ------------------------------------------------------------------------------------------


def test_a_window_over_midnight_holds_before_and_after_it() -> None:
    raw = tariff(component("TIME", 1), start_time="22:00", end_time="06:00")
    evening = datetime(2026, 5, 4, 20, tzinfo=ZoneInfo(BERLIN))
    assert excl(cost(raw, charging(14 * 3600, start=evening))) == "8.00"


def test_a_window_that_ends_at_midnight_ends_with_the_day() -> None:
    raw = tariff(component("TIME", 1), start_time="20:00", end_time="00:00")
    assert (
        excl(cost(raw, charging(8 * 3600, start=datetime(2026, 5, 4, 19, tzinfo=ZoneInfo(BERLIN))))) == "4.00"
    )


def test_the_weekday_of_a_night_window_is_that_of_each_instant() -> None:
    raw = tariff(component("TIME", 1), start_time="22:00", end_time="06:00", day_of_week=["FRIDAY"])
    friday = datetime(2026, 5, 8, 20, tzinfo=ZoneInfo(BERLIN))
    assert excl(cost(raw, charging(14 * 3600, start=friday))) == "2.00"


def test_dates_hold_from_the_first_day_until_before_the_last() -> None:
    raw = tariff(component("TIME", 1), start_date="2026-05-04", end_date="2026-05-06")
    assert (
        excl(cost(raw, charging(96 * 3600, start=datetime(2026, 5, 3, tzinfo=ZoneInfo(BERLIN))))) == "48.00"
    )


def test_kwh_thresholds_cut_where_the_energy_passes_them() -> None:
    raw = {"currency": "EUR", "elements": [
        {"price_components": [component("ENERGY", "0.50")], "restrictions": {"max_kwh": 10}},
        {"price_components": [component("ENERGY", "0.20")], "restrictions": {"min_kwh": 10, "max_kwh": 30}},
        {"price_components": [component("ENERGY", "0.10")]},
    ]}  # fmt: skip
    assert excl(cost(raw, charging(3600, 40_000))) == "10.00"
    assert excl(cost(raw, charging(0, 40_000))) == "10.00"  # energy without a duration is cut all the same
    assert [line.quantity for line in cost(raw, charging(3600, 40_000)).lines] == [10, 20, 10]


def test_the_first_minutes_are_free_and_the_clock_starts_with_the_session() -> None:
    raw = {"currency": "EUR", "elements": [
        {"price_components": [component("PARKING_TIME", 0)], "restrictions": {"max_duration": 3600}},
        {"price_components": [component("PARKING_TIME", 6)], "restrictions": {"min_duration": 3600}},
    ]}  # fmt: skip
    end = MONDAY + timedelta(seconds=1800)
    assert excl(cost(raw, charging(1800, 5_000), parking(1800, end))) == "0.00"
    assert excl(cost(raw, charging(1800, 5_000), parking(5400, end))) == "6.00"


def test_power_follows_from_energy_and_time_where_nobody_measured_it() -> None:
    raw = tariff(component("ENERGY", 1), min_power=20)
    assert excl(cost(raw, charging(3600, 22_000))) == "22.00"
    assert excl(cost(raw, charging(3600, 19_000))) == "0.00"


@pytest.mark.parametrize(("name", "at"), [("power", 11), ("current", 16)])
def test_a_threshold_belongs_to_what_lies_above_it(name: str, at: int) -> None:
    raw = {"currency": "EUR", "elements": [
        {"price_components": [component("TIME", 1)], "restrictions": {f"max_{name}": at}},
        {"price_components": [component("TIME", 5)], "restrictions": {f"min_{name}": at}},
    ]}  # fmt: skip
    unit = {"power": "power_kw", "current": "current_a"}[name]
    for value, expected in ((at - 1, "1.00"), (at, "5.00"), (at + 1, "5.00")):
        known: dict[str, Any] = {f"min_{unit}": value, f"max_{unit}": value}
        period = Period(start_at=MONDAY, end_at=MONDAY + timedelta(hours=1), charging_s=3600, **known)
        assert excl(cost(raw, period)) == expected


def test_a_reservation_that_nobody_used_has_no_minimum_price() -> None:
    raw = tariff(component("TIME", 1), reservation="RESERVATION") | {"min_price": {"excl_vat": 5}}
    reserved = Period.reserved(MONDAY - timedelta(hours=1), MONDAY)
    assert excl(cost(raw, reserved, charging(60), is_reservation_expired=True)) == "1.00"
    assert excl(cost(raw, reserved, charging(60))) == "5.00"


def test_nobody_pays_for_a_current_that_nobody_measured() -> None:
    raw = {"currency": "EUR", "elements": [
        {"price_components": [component("TIME", 2)], "restrictions": {"min_current": 32}},
        {"price_components": [component("TIME", 1)], "restrictions": {"max_current": 32}},
    ]}  # fmt: skip
    assert excl(cost(raw, charging(3600, 30_000))) == "1.00"


def test_a_fee_is_due_once_and_when_its_element_first_applies() -> None:
    raw = {"currency": "EUR", "elements": [
        {"price_components": [component("FLAT", 1)], "restrictions": {"start_time": "09:00", "end_time": "10:00"}},
        {"price_components": [component("FLAT", 3)], "restrictions": {"start_time": "10:00"}},
    ]}  # fmt: skip
    assert excl(cost(raw, charging(1800))) == "0.00"  # ends at 08:30
    assert excl(cost(raw, charging(4 * 3600))) == "1.00"
    assert (
        excl(cost(tariff(component("FLAT", 1)), charging(600), parking(600, MONDAY + timedelta(minutes=10))))
        == "1.00"
    )


def test_each_dimension_takes_the_first_element_that_applies() -> None:
    raw = {"currency": "EUR", "elements": [
        {"price_components": [component("TIME", 5)], "restrictions": {"end_time": "09:00"}},
        {"price_components": [component("TIME", 1), component("ENERGY", "0.10")]},
        {"price_components": [component("ENERGY", 9)]},
    ]}  # fmt: skip
    assert excl(cost(raw, charging(7200, 10_000))) == "7.00"


def test_time_is_not_stepped_where_parking_is_priced_too() -> None:
    raw = tariff(component("TIME", 60, step=900), component("PARKING_TIME", 60, step=600))
    end = MONDAY + timedelta(seconds=60)
    assert excl(cost(raw, charging(60))) == "15.00"
    assert excl(cost(raw, charging(60), parking(60, end))) == "11.00"


def test_energy_is_stepped_over_its_total_by_the_last_component() -> None:
    raw = {"currency": "EUR", "elements": [
        {"price_components": [component("ENERGY", 1, step=1000)], "restrictions": {"max_kwh": "1.5"}},
        {"price_components": [component("ENERGY", 2, step=100)]},
    ]}  # fmt: skip
    found = cost(raw, charging(3600, 1_710))
    assert [line.quantity for line in found.lines] == [Decimal("1.5"), Decimal("0.3")]
    assert excl(found) == "2.10"


def test_a_component_names_its_own_vat_or_takes_the_given_one() -> None:
    raw = tariff(component("FLAT", 10), component("ENERGY", 1, vat=7), component("TIME", 1, vat=0))
    found = cost(raw, charging(3600, 10_000), default_vat=19)
    assert found.total_cost.as_json("EUR") == {"excl_vat": "21.00", "incl_vat": "23.60"}
    assert {line.component: line.vat_rate for line in found.lines} == {"FLAT": 19, "ENERGY": 7, "TIME": 0}


def test_where_taxes_do_not_apply_none_are_added() -> None:
    raw = tariff(component("FLAT", 10)) | {"tax_included": "N/A"}
    assert cost(raw, charging(60), default_vat=19).total_cost.vat_minor == 0


def test_a_price_with_tax_in_it_is_what_is_paid() -> None:
    raw = tariff(component("ENERGY", "0.59", vat=19)) | {"tax_included": "YES"}
    found = cost(raw, charging(3600, 10_000))
    assert found.total_cost.as_json("EUR") == {"excl_vat": "4.96", "incl_vat": "5.90"}
    assert found.is_tax_included


def test_a_minimum_is_reached_and_a_maximum_not_passed_before_and_after_vat() -> None:
    raw = tariff(component("ENERGY", "0.25", vat=10)) | {
        "min_price": {"excl_vat": "0.50", "incl_vat": "0.55"}, "max_price": {"excl_vat": 10, "incl_vat": 11},
    }  # fmt: skip
    for wh, expected in (
        (0, ("0.50", "0.55")),
        (1_000, ("0.50", "0.55")),
        (20_000, ("5.00", "5.50")),
        (90_000, ("10.00", "11.00")),
    ):
        found = cost(raw, charging(3600, wh))
        assert tuple(found.total_cost.as_json("EUR").values()) == expected
    assert [line.component for line in cost(raw, charging(3600, 90_000)).lines] == ["ENERGY", "MAX_PRICE"]


MIXED = tariff(component("ENERGY", "0.59", vat=19, step=1), component("PARKING_TIME", 6, vat=0, step=60))


@pytest.mark.parametrize(
    ("limits", "wh", "minutes", "groups"),
    [
        # In proportion to 1.49 and 2.00, until 5.95 are reached after taxes.
        ({"min_price": {"excl_vat": "5.00", "incl_vat": "5.95"}}, 3000, 20, {0: (316, 0, 316), 19: (234, 45, 279)}),
        # In proportion to 4.96 and 9.00, until 8.40 are reached before taxes.
        ({"max_price": {"excl_vat": "8.40", "incl_vat": "10.00"}}, 10_000, 90, {0: (542, 0, 542), 19: (298, 57, 355)}),
        ({"max_price": {"incl_vat": "10.00"}}, 10_000, 90, {0: (604, 0, 604), 19: (333, 63, 396)}),
        # Nothing was used: the highest rate.
        ({"min_price": {"incl_vat": "5.00"}}, 0, 0, {19: (420, 80, 500)}),
    ],
)  # fmt: skip
def test_what_a_limit_changes_is_taxed_as_what_it_stands_for(
    limits: dict[str, Any], wh: int, minutes: int, groups: dict[int, tuple[int, int, int]]
) -> None:
    raw = MIXED | limits | {"tax_included": "YES"}
    found = cost(raw, charging(3600, wh), parking(60 * minutes, MONDAY + timedelta(hours=1)))
    assert by_rate(found) == groups


@pytest.mark.parametrize(("rate", "tax"), [("19", "YES"), ("8.1", "YES"), ("20", "YES"), ("19", "NO")])
def test_the_vat_of_one_rate_is_that_of_the_amount_shown(rate: str, tax: str) -> None:
    raw = tariff(component("ENERGY", "0.49", vat=rate, step=1)) | {"tax_included": tax}
    for wh in range(1_000, 60_000, 370):
        [(net, vat, gross)] = by_rate(cost(raw, charging(3600, wh))).values()
        exact = (
            Fraction(gross) * Fraction(rate) / (100 + Fraction(rate))
            if tax == "YES"
            else Fraction(net) * Fraction(rate) / 100
        )
        assert vat == half_up(exact), (wh, gross)
        assert tax == "NO" or gross == half_up(Fraction(wh * 49, 1000))


def test_a_gross_at_most_is_not_passed_by_a_cent_of_rounding() -> None:
    """8.4454 net and its VAT are 10.05 after taxes; 8.45 and its VAT would be 10.06."""
    raw = tariff(component("ENERGY", 1, vat=19, step=1)) | {"max_price": {"incl_vat": "10.05"}}
    for wh in (8_445, 8_446, 90_000):
        assert cost(raw, charging(60, wh)).total_cost.incl_minor <= 1005
    assert cost(raw, charging(60, 90_000)).total_cost.incl_minor == 1005


def test_a_limit_without_vat_takes_it_from_the_tariff() -> None:
    raw = tariff(component("ENERGY", 1, vat=20)) | {"max_price": {"before_taxes": 10}}
    assert tuple(cost(raw, charging(60, 50_000)).total_cost.as_json("EUR").values()) == ("10.00", "12.00")


def test_a_price_below_nothing_takes_from_what_the_rest_costs_and_pays_nobody() -> None:
    energy = component("ENERGY", "-0.05", vat=20)
    found = cost(tariff(energy, component("FLAT", 1, vat=20)), charging(3600, 10_000))
    assert found.total_cost.as_json("EUR") == {"excl_vat": "0.50", "incl_vat": "0.60"}
    # Nothing else, too little else, and what is enough before its VAT but not after: 0.55 - 0.60.
    for others in ([], [component("FLAT", "0.45", vat=10)], [component("FLAT", "0.55", vat=0)]):
        found = cost(tariff(energy, *others), charging(3600, 10_000))
        assert found.total_cost.as_json("EUR") == {"excl_vat": "0.00", "incl_vat": "0.00"}
        assert {line.component for line in found.lines} >= {"ENERGY", "MIN_PRICE"}


@given(st.integers(-4000, 4000), st.integers(-4000, 4000), st.booleans(), st.sampled_from(["EUR", "JPY"]))
def test_no_total_is_below_nothing_before_or_after_its_two_rates_of_vat(
    energy: int, flat: int, is_gross: bool, currency: str
) -> None:
    raw = tariff(
        component("ENERGY", f"{energy / 10_000:.4f}", vat=19),
        component("FLAT", f"{flat / 10_000:.4f}", vat=7),
    ) | {"currency": currency, "tax_included": "YES" if is_gross else "NO"}
    found = cost(raw, charging(3600, 1_000))
    total = found.total_cost
    assert min(total.excl_minor, total.incl_minor) >= 0
    assert sum(line.cost.incl_minor for line in found.lines) == total.incl_minor


def test_amounts_have_the_decimals_of_their_currency() -> None:
    yen = tariff(component("ENERGY", "30.5")) | {"currency": "JPY"}
    dinar = tariff(component("ENERGY", "0.1234")) | {"currency": "KWD"}
    assert excl(cost(yen, charging(60, 1_000))) == "31"
    assert excl(cost(dinar, charging(60, 10_000))) == "1.234"


def test_nothing_is_owed_where_no_tariff_is() -> None:
    assert free("EUR").total_cost.incl_minor == 0 and free("EUR").lines == ()
    assert cost(tariff(component("FLAT", 1))).total_cost.incl_minor == 0


def test_the_running_cost_ends_as_the_bill() -> None:
    raw = tariff(component("FLAT", "0.35", vat=19), component("ENERGY", "0.49", vat=19, step=1))
    so_far = [
        running_cost(read_tariff(raw), [charging(60 * n, 180 * n)], time_zone=BERLIN) for n in range(61)
    ]
    costs = [one.total_cost.incl_minor for one in so_far]
    assert costs == sorted(costs) and costs[0] == 42
    assert so_far[-1].total_cost == cost(raw, charging(3600, 10_800)).total_cost


def test_a_day_in_one_minute_readings_is_priced_in_well_under_a_second() -> None:
    energy = component("ENERGY", "0.30", step=1)
    hours = [{"start_time": f"{hour:02d}:00", "end_time": f"{hour + 1:02d}:00"} for hour in range(23)]
    raw = {
        "currency": "EUR",
        "elements": [{"price_components": [energy], "restrictions": hour} for hour in hours],
    }
    minutes = [charging(60, 150, MONDAY + timedelta(minutes=n)) for n in range(1440)]
    began = datetime.now(UTC)
    found = cost(raw, *minutes)
    assert datetime.now(UTC) - began < timedelta(seconds=2)
    assert found.total_energy_cost.excl_minor == 1440 * 150 * 30 * 23 // 24 // 1000


def test_lines_say_what_was_billed_from_when_to_when() -> None:
    raw = tariff(
        component("FLAT", "0.5", vat=20),
        component("ENERGY", "0.25", vat=10, step=1),
        component("TIME", 3, step=60),
    )
    lines = [line.as_json("EUR") for line in cost(raw, charging(2400, 20_000)).lines]
    assert [line["component"] for line in lines] == ["ENERGY", "TIME", "FLAT"]
    energy = lines[0]
    assert energy | {"element": 0} == {
        "component": "ENERGY", "category": "energy", "volume": "20", "unit": "kWh", "unit_price": "0.25", "vat": "10",
        "from": "2026-05-04T06:00:00Z", "to": "2026-05-04T06:40:00Z", "element": 0, "excl_vat": "5.00",
        "incl_vat": "5.50",
    }  # fmt: skip
    assert lines[1]["volume"] == "0.666667" and lines[1]["excl_vat"] == "2.00"
