"""What energy is believed, and what waits for staff (ocpp.md 2, rows 43 to 46)."""

from datetime import UTC, datetime, timedelta

import pytest

from app.charging.plausibility import Evidence, measured, risen, weigh

HOUR = timedelta(hours=1)


def evidence(start, stop, readings=(), *, duration=HOUR, max_power_w=22_000):
    return Evidence(
        meter_start_wh=start,
        meter_stop_wh=stop,
        register_wh=tuple(readings),
        duration=duration,
        max_power_w=max_power_w,
    )


def test_energy_is_the_difference_of_the_meter():
    assert weigh(evidence(1_000, 12_000, [5_000, 9_000])) == (11_000, None)


def test_a_session_without_energy_is_no_cause_for_review():
    assert weigh(evidence(1_000, 1_000)) == (0, None)


def test_a_register_of_imported_energy_is_never_below_nothing():
    for told in (evidence(-1_002, 4_000), evidence(-3, 0), evidence(0, 4_000, [-5])):
        assert weigh(told) == (None, "implausible")
    assert measured(evidence(-1_002, 4_000)) == 0


def test_a_moment_gives_no_more_than_a_kilowatt_hour_whatever_the_plate():
    moment = timedelta(seconds=1)
    assert weigh(evidence(100, 7_400, duration=moment, max_power_w=400_000)) == (None, "implausible")
    assert weigh(evidence(100, 1_300, duration=moment, max_power_w=400_000)) == (1_200, None)
    assert weigh(evidence(100, 800, duration=moment)) == (None, "implausible")  # 22 kW
    assert weigh(evidence(0, 66_000, duration=timedelta(minutes=10), max_power_w=400_000)) == (66_000, None)


def test_without_a_stop_value_the_last_reading_counts():
    assert weigh(evidence(1_000, None, [4_000, 9_000])) == (8_000, None)


def test_without_a_start_staff_decide():
    assert weigh(evidence(None, 9_000)) == (None, "orphan")


def test_without_a_start_at_least_what_lies_between_the_readings_was_given():
    assert measured(evidence(None, 9_000, [2_000, 6_000])) == 7_000
    assert measured(evidence(None, 9_000)) == 0
    assert measured(evidence(None, None)) == 0


def told(*readings: tuple[int, int]) -> list[tuple[datetime, int]]:
    return [(datetime(2026, 6, 1, tzinfo=UTC) + timedelta(minutes=at), register) for at, register in readings]


def test_a_meter_that_was_set_back_has_given_what_it_rose_by_before_and_after():
    assert risen([], 22_000) == risen(told((0, 9_000)), 22_000) == 0
    assert risen(told((0, 1_000), (30, 9_000), (60, 21_000)), 22_000) == 20_000
    assert risen(told((0, 1_000), (60, 21_000), (61, 0), (91, 10_000)), 22_000) == 30_000
    assert risen(told((0, 0), (1, 0), (2, 0), (3, 1_000)), 22_000) == 1_000  # it counts in whole kWh


def test_no_rise_counts_for_more_than_the_plate_gives_in_that_time():
    fell_once = told((0, 1_000), (60, 21_000), (61, 0), (62, 21_300))
    rose_once = told((0, 1_000), (60, 21_000), (61, 90_000_000), (62, 21_300))
    assert risen(fell_once, 22_000) == risen(rose_once, 22_000) == 20_603


@pytest.mark.parametrize(
    ("start", "stop", "readings"),
    [
        (9_000, 1_000, []),  # meterStop below meterStart
        (1_000, 9_000, [8_000, 200]),  # the meter fell mid-session
        (1_000, -1, [5_000]),  # SteVe #1264
        (1_000, None, []),  # nothing but a start
        (0, 10**12, []),  # ocpp.md 2, row 44
        (0, 22_000_000, []),  # Wh told as mWh, or kWh as Wh: x 1000
    ],
)
def test_what_cannot_be_is_null_and_reviewed_never_negative(start, stop, readings):
    assert weigh(evidence(start, stop, readings)) == (None, "implausible")


def test_a_ten_percent_overrun_of_the_plate_is_believed_and_more_is_not():
    assert weigh(evidence(0, 24_200)) == (24_200, None)
    assert weigh(evidence(0, 24_500)) == (None, "implausible")
