"""From stacked profiles to the limit at each moment, against a reckoning that looks at every hour by itself."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.charging.profile_quirks import handling
from app.charging.profiles import (
    EXTERNAL,
    PURPOSES,
    STATION_MAX,
    TX,
    TX_DEFAULT,
    Electrics,
    Period,
    Profile,
    Schedule,
    composite,
    read,
    to_16,
    write,
)

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = st.integers(0, 60)
MOMENTS = HOURS.map(lambda hours: MONDAY + (hours - 20) * HOUR)
LIMITS = st.integers(0, 40).map(lambda number: Decimal(number * 100))
PERIODS = st.dictionaries(st.integers(0, 30), LIMITS, min_size=1, max_size=4).map(
    lambda found: tuple(Period(hour * 3600, limit) for hour, limit in sorted(found.items()))
)


@st.composite
def profiles(draw: Any) -> Profile:
    kind = draw(st.sampled_from(["Absolute", "Recurring", "Relative"]))
    schedule = Schedule(
        "W", draw(PERIODS), start_at=None if kind == "Relative" else draw(MOMENTS),
        duration_s=draw(st.none() | st.integers(1, 40).map(lambda hours: hours * 3600)),
    )  # fmt: skip
    return Profile(
        number=1, purpose=draw(st.sampled_from(PURPOSES)), stack_level=draw(st.integers(0, 3)), kind=kind,
        schedule=schedule, evse_no=draw(st.sampled_from([0, 1, 2])),
        recurrency=draw(st.sampled_from(["Daily", "Weekly"])) if kind == "Recurring" else None,
        valid_from=draw(st.none() | MOMENTS), valid_to=draw(st.none() | MOMENTS),
    )  # fmt: skip


def by_hand(all_: list[Profile], moment: datetime, began: datetime) -> Decimal | None:
    """What OCPP's text says, read word for word for EVSE 1 at one moment."""

    def says(one: Profile) -> Decimal | None:
        if one.valid_from and moment < one.valid_from:
            return None
        if one.valid_to and not moment < one.valid_to:
            return None
        first = began if one.kind == "Relative" else (one.schedule.start_at or began)
        begins = [first]
        if one.kind == "Recurring":
            days = 1 if one.recurrency == "Daily" else 7
            begins = [first + timedelta(days=days * n) for n in range(200)]
        begins = [begin for begin in begins if begin <= moment]
        if not begins:
            return None
        hour = (moment - begins[-1]) / HOUR
        if one.schedule.duration_s is not None and hour >= one.schedule.duration_s / 3600:
            return None
        limit = None
        for period in one.schedule.periods:
            if period.start_s / 3600 <= hour:
                limit = period.limit
        return limit

    found = {}
    for purpose in PURPOSES:
        for level in range(4):
            for evse in (0, 1):  # later ones overrule
                same = [p for p in all_ if (p.purpose, p.stack_level, p.evse_no) == (purpose, level, evse)]
                for one in same[:1]:
                    if says(one) is not None:
                        found[purpose] = says(one)
    if TX in found:
        found.pop(TX_DEFAULT, None)
    return min(found.values(), default=None)


@settings(max_examples=300)
@given(found=st.lists(profiles(), max_size=6), began=st.none() | MOMENTS)
def test_the_composite_is_what_every_single_hour_says(found: list[Profile], began: datetime | None):
    # A station holds one profile per purpose, level and EVSE.
    unique = {(p.purpose, p.stack_level, p.evse_no): p for p in found}.values()
    at = MONDAY + 5 * HOUR
    steps = composite(unique, at, 72 * HOUR, evse_no=1, began_at=began)
    assert steps[0].start_s == 0
    assert [s.start_s for s in steps] == sorted({s.start_s for s in steps})
    assert all(a.limit != b.limit for a, b in pairwise(steps))
    for hour in range(72):
        now = [step for step in steps if step.start_s <= hour * 3600][-1]
        assert now.limit == by_hand(list(unique), at + hour * HOUR, began or at), hour


@given(one=profiles())
def test_a_profile_survives_the_wire_in_both_versions(one: Profile):
    assert read(write(one), one.evse_no) == one
    assert read(to_16(write(one)), one.evse_no) == one


def plain(purpose: str, limit: int, **more: Any) -> Profile:
    unit = more.pop("unit", "W")
    phases = more.pop("phases", None)
    schedule = Schedule(unit, (Period(0, Decimal(limit), phases),), start_at=MONDAY)
    return Profile(1, purpose, more.pop("stack", 0), "Absolute", schedule, **more)


def test_amperes_and_watts_meet_at_the_phases_of_each_period():
    both = [
        plain(STATION_MAX, 16, unit="A"),
        plain(TX, 7000, evse_no=1),
        plain(EXTERNAL, 20, unit="A", phases=1),
    ]
    (step,) = composite(both, MONDAY, HOUR, evse_no=1, unit="W")
    assert step.limit == Decimal("4600.0") and step.number_phases == 1  # 20 A on one phase
    (step,) = composite(both[:2], MONDAY, HOUR, evse_no=1, unit="A", electrics=Electrics(230, 3))
    assert step.limit == Decimal("10.1")


def test_the_whole_station_is_bound_by_what_is_meant_for_it():
    (step,) = composite([plain(TX_DEFAULT, 1000), plain(STATION_MAX, 9000)], MONDAY, HOUR)
    assert step.limit == 9000
    assert composite([], MONDAY, HOUR)[0].limit is None


def test_what_a_station_reports_is_read_whatever_it_lacks():
    assert read({}, 1) is None
    assert read({"id": "7", "chargingSchedule": {"chargingSchedulePeriod": [{"startPeriod": 0}]}}, 1) is None
    for broken in ([1], ["a"], [None], [[]]):
        assert read({"id": 7, "chargingSchedule": {"chargingSchedulePeriod": broken}}, 1) is None
    odd = {"id": 7, "chargingSchedule": [{"chargingRateUnit": "A", "startSchedule": "0",
           "chargingSchedulePeriod": [{"startPeriod": "0", "limit": "6.5"}]}]}  # fmt: skip
    found = read(odd, 1)
    assert found.schedule.periods == (Period(0, Decimal("6.5")),) and found.schedule.start_at is None


def test_the_table_of_models_has_a_row_for_every_station():
    assert handling("go-e", "Charger", "ocpp1.6").start_bare
    assert handling(None, None, "ocpp1.6").max_as_default
    assert not handling("Anybody", "X", "ocpp2.0.1").max_as_default
