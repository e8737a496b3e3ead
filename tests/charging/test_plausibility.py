"""What energy is believed, and what waits for staff (ocpp.md 2, rows 43 to 46)."""

from datetime import timedelta

import pytest

from app.charging.plausibility import Evidence, measured, weigh

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


def test_without_a_stop_value_the_last_reading_counts():
    assert weigh(evidence(1_000, None, [4_000, 9_000])) == (8_000, None)


def test_without_a_start_staff_decide():
    assert weigh(evidence(None, 9_000)) == (None, "orphan")


def test_without_a_start_at_least_what_lies_between_the_readings_was_given():
    assert measured(evidence(None, 9_000, [2_000, 6_000])) == 7_000
    assert measured(evidence(None, 9_000)) == 0
    assert measured(evidence(None, None)) == 0


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
