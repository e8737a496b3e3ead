"""Readings become stretches of constant kind whose energies sum to what is billed."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from app.charging.periods import Sample, StateChange, stretches

START = datetime(2026, 6, 1, 10, tzinfo=UTC)
END = START + timedelta(hours=2)


def minutes(n: float) -> datetime:
    return START + timedelta(minutes=n)


def test_with_nothing_but_start_and_stop_all_of_it_is_charging():
    found = stretches(START, END, Decimal(20_000), Decimal(0), [], [])
    assert [(s.start, s.end, s.energy_wh, s.is_charging) for s in found] == [
        (START, END, Decimal(20_000), True)
    ]


def test_time_in_which_the_meter_stood_still_is_parking():
    samples = [Sample(minutes(60), Decimal(10_000)), Sample(minutes(90), Decimal(10_000))]
    found = stretches(START, END, Decimal(10_000), Decimal(0), samples, [])
    assert [(s.start, s.end, s.is_charging) for s in found] == [
        (START, minutes(60), True),
        (minutes(60), END, False),
    ]


def test_the_seconds_before_the_first_energy_are_not_parking_but_a_car_that_waits_parks():
    def first(still_until: float) -> bool:
        samples = [Sample(minutes(still_until), Decimal(0)), Sample(minutes(60), Decimal(10_000))]
        return stretches(START, END, Decimal(20_000), Decimal(0), samples, [])[0].is_charging

    assert first(0.2)
    assert first(5)
    assert not first(6)


def test_a_meter_that_stands_still_for_seconds_proves_nothing_unless_the_station_says_so():
    samples = [Sample(minutes(60), Decimal(10_000)), Sample(minutes(60.5), Decimal(10_000))]
    found = stretches(START, END, Decimal(20_000), Decimal(0), samples, [])
    assert all(stretch.is_charging for stretch in found)
    told = [
        StateChange(START, "Charging"),
        StateChange(minutes(60), "SuspendedEV"),
        StateChange(minutes(60.5), "Charging"),
    ]
    found = stretches(START, END, Decimal(20_000), Decimal(0), samples, told)
    assert [stretch.is_charging for stretch in found] == [True, False, True]


def test_what_is_read_after_charging_has_ended_flowed_before_that_and_standing_stays_standing():
    """The last reading is a minute old when the car is full; the rest stands on the meter of the stop."""
    told = [StateChange(START, "Charging"), StateChange(minutes(61), "EVConnected")]
    found = stretches(START, END, Decimal(10_500), Decimal(0), [Sample(minutes(60), Decimal(10_000))], told)
    assert [(s.start, s.end, s.energy_wh, s.is_charging) for s in found] == [
        (START, minutes(60), Decimal(10_000), True),
        (minutes(60), minutes(61), Decimal(500), True),
        (minutes(61), END, Decimal(0), False),
    ]


def test_a_station_that_says_it_gives_nothing_while_its_meter_runs_is_not_believed():
    told = [StateChange(START, "Charging"), StateChange(minutes(30), "SuspendedEV")]
    samples = [Sample(minutes(n), Decimal(n * 100)) for n in (30, 60, 90)]
    found = stretches(START, END, Decimal(12_000), Decimal(0), samples, told)
    assert all(stretch.is_charging for stretch in found)


def test_a_session_without_energy_is_parking_from_end_to_end():
    samples = [Sample(minutes(1), Decimal(0)), Sample(minutes(60), Decimal(0))]
    assert not any(
        stretch.is_charging for stretch in stretches(START, END, Decimal(0), Decimal(0), samples, [])
    )


def test_a_car_that_trickles_zero_while_the_station_says_charging_is_charging():
    samples = [Sample(minutes(60), Decimal(10_000))]
    states = [StateChange(START, "Charging"), StateChange(minutes(90), "SuspendedEV")]
    found = stretches(START, END, Decimal(10_000), Decimal(0), samples, states)
    assert [(s.start, s.end, s.is_charging) for s in found] == [
        (START, minutes(60), True), (minutes(60), minutes(90), True), (minutes(90), END, False),
    ]  # fmt: skip


def test_a_reading_beyond_the_billed_energy_or_outside_the_session_is_not_used():
    samples = [
        Sample(minutes(-5), Decimal(9)),
        Sample(minutes(30), Decimal(99_999)),
        Sample(minutes(125), Decimal(50)),
    ]
    found = stretches(START, END, Decimal(100), Decimal(0), samples, [])
    assert [(s.start, s.end) for s in found] == [(START, END)]


def test_a_session_that_ends_when_it_starts_is_one_empty_stretch():
    (only,) = stretches(START, START, Decimal(0), Decimal(0), [], [])
    assert (only.start, only.end, only.energy_wh) == (START, START, Decimal(0))


sample = st.builds(
    Sample, st.integers(-10, 130).map(minutes), st.integers(0, 60_000).map(lambda n: Decimal(n) / 7)
)
change = st.builds(
    StateChange,
    st.integers(-10, 130).map(minutes),
    st.sampled_from(["Charging", "SuspendedEV", "EVConnected"]),
)


@example(
    [Sample(minutes(1), Decimal(1) / 7), Sample(minutes(3), Decimal(1) / 7)],
    [StateChange(minutes(2), "Charging")], 1, 0,
)  # fmt: skip
@given(
    st.lists(sample, max_size=20), st.lists(change, max_size=6), st.integers(0, 50_000),
    st.one_of(st.none(), st.integers(0, 5_000)),
)  # fmt: skip
def test_stretches_cover_the_session_without_a_gap_and_sum_to_its_energy(
    samples, states, energy, meter_start
):
    start_wh = None if meter_start is None else Decimal(meter_start)
    found = stretches(START, END, Decimal(energy), start_wh, samples, states)
    assert sum((s.energy_wh for s in found), Decimal(0)) == energy
    assert found[0].start == START
    assert found[-1].end == END
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    assert all(s.energy_wh >= 0 and (s.is_charging or s.energy_wh == 0) for s in found)
