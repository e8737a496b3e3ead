"""People understand what they will pay."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from app.tariffs.explain import explain, in_short, standing
from app.tariffs.ocpi_tariff import read_tariff


def said(*elements: dict[str, Any], gross: bool = False, **more: Any) -> list[str]:
    return explain(read_tariff({"currency": "EUR", "elements": list(elements)} | more), gross=gross)


def element(kind: str, price: Any, *, vat: Any = 19, step: int = 1, **restrictions: Any) -> dict[str, Any]:
    component = {"type": kind, "price": price, "step_size": step} | ({} if vat is None else {"vat": vat})
    return {"price_components": [component]} | ({"restrictions": restrictions} if restrictions else {})


def test_prices_come_in_the_order_of_the_law() -> None:
    assert said(
        element("PARKING_TIME", 6, step=60),
        element("FLAT", "0.35"),
        element("ENERGY", "0.49"),
        element("TIME", 1),
    ) == [
        "€0.49 per kWh plus 19 % VAT",
        "€1.00 per hour of charging plus 19 % VAT",
        "€0.35 per session plus 19 % VAT",
        "€0.10 per minute after charging has ended plus 19 % VAT, in steps of 1 min",
    ]


@pytest.mark.parametrize(
    ("restrictions", "words"),
    [
        ({"day_of_week": ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY"], "start_time": "08:00",
         "end_time": "18:00"},
         "Monday to Friday, 08:00–18:00"),
        ({"day_of_week": ["FRIDAY"], "start_time": "22:00", "end_time": "06:00"},
         "Friday, 00:00–06:00 and 22:00–24:00"),
        ({"day_of_week": ["FRIDAY"], "start_time": "22:00", "end_time": "00:00"}, "Friday, 22:00–24:00"),
        ({"start_time": "22:00", "end_time": "06:00"}, "22:00–06:00"),
        ({"day_of_week": ["SUNDAY", "SATURDAY"]}, "Saturday and Sunday"), ({"start_time": "20:00"}, "20:00–24:00"),
        ({"end_time": "06:00"}, "00:00–06:00"), ({"start_time": "20:00", "end_time": "00:00"}, "20:00–24:00"),
        ({"max_kwh": 10}, "the first 10 kWh"), ({"min_kwh": "10.5"}, "after 10.5 kWh"),
        ({"min_power": 50}, "from 50 kW"), ({"max_current": 32}, "below 32 A"),
        ({"max_duration": 1800}, "during the first 30 min"), ({"min_duration": 90}, "after 90 s"),
        ({"start_date": "2026-12-24", "end_date": "2026-12-27"}, "from 2026-12-24, until 2026-12-27"),
        ({"day_of_week": ["MONDAY", "WEDNESDAY", "FRIDAY"]}, "Monday, Wednesday and Friday"),
    ],
)  # fmt: skip
def test_conditions_are_told_in_words(restrictions: dict[str, Any], words: str) -> None:
    assert said(element("ENERGY", "0.5", **restrictions)) == [f"€0.50 per kWh plus 19 % VAT ({words})"]


def test_taxes_limits_steps_and_reservations_are_told() -> None:
    assert said(
        element("ENERGY", "0.59", vat=None, step=100), element("FLAT", 4, reservation="RESERVATION_EXPIRES"),
        element("TIME", 2, reservation="RESERVATION"), tax_included="YES", min_price={"before_taxes": 1},
        max_price={"before_taxes": 10, "after_taxes": "11.9"},
    ) == [
        "€0.59 per kWh including VAT, in steps of 0.1 kWh",
        "€2.00 per hour of reservation including 19 % VAT",
        "€4.00 for a reservation that nobody uses including 19 % VAT",
        "At least €1.00 before VAT per session",
        "At most €11.90 including VAT per session",
    ]  # fmt: skip


def test_what_is_free_is_called_free() -> None:
    assert said(element("FLAT", 0)) == ["Free per session"]
    assert said(element("ENERGY", "0.2505"), currency="EUR") == ["€0.2505 per kWh plus 19 % VAT"]


def test_consumers_are_told_prices_with_their_taxes() -> None:
    elements = [element("ENERGY", "0.45"), element("PARKING_TIME", 3), element("FLAT", 1, vat=None)]
    assert said(*elements, gross=True) == [
        "€0.5355 per kWh including 19 % VAT",
        "€1.00 per session plus VAT",
        "€0.0595 per minute after charging has ended including 19 % VAT",
    ]
    assert said(*elements, gross=True, tax_included="YES")[0] == "€0.45 per kWh including 19 % VAT"
    assert said(*elements, gross=True, tax_included="N/A")[0] == "€0.45 per kWh"


def test_a_component_without_a_rate_is_taxed_as_the_bill_does_it() -> None:
    tariff = read_tariff({"currency": "EUR", "min_price": {"before_taxes": 5}, "elements": [
        element("ENERGY", "0.45", vat=None), element("PARKING_TIME", 3, vat=None)]})  # fmt: skip
    assert explain(tariff, gross=True, default_vat=Decimal(19)) == [
        "€0.5355 per kWh including 19 % VAT",
        "€0.0595 per minute after charging has ended including 19 % VAT",
        "At least €5.95 including VAT per session",
    ]
    assert in_short(tariff, "en", Decimal(19))[0] == "€0.5355/kWh incl. VAT"


def test_a_sticker_tells_prices_with_their_taxes_where_they_are_known() -> None:
    tariff = {"currency": "EUR", "elements": [element("ENERGY", "0.45"), element("PARKING_TIME", 3)]}
    assert in_short(read_tariff(tariff), "en") == ["€0.5355/kWh incl. VAT", "€0.0595/min after charging"]
    assert in_short(read_tariff(tariff), "de")[0].replace("\xa0", " ") == "0,5355 €/kWh inkl. MwSt."
    tariff["elements"].append(element("FLAT", 1, vat=None))
    assert in_short(read_tariff(tariff), "en")[0] == "€0.45/kWh plus VAT"


NIGHT = element("ENERGY", "0.30", start_time="22:00", end_time="06:00")
DAY = element("ENERGY", "0.45")


@pytest.mark.parametrize(
    ("hour", "order"),
    [
        (12, ["€0.45 per kWh plus 19 % VAT (now, 06:00–22:00)", "€0.30 per kWh plus 19 % VAT (22:00–06:00)"]),
        (23, ["€0.30 per kWh plus 19 % VAT (now, 22:00–06:00)", "€0.45 per kWh plus 19 % VAT (06:00–22:00)"]),
    ],
)
def test_of_prices_that_take_turns_the_one_of_now_stands_first_each_with_its_hours(
    hour: int, order: list[str]
) -> None:
    tariff = read_tariff({"currency": "EUR", "elements": [NIGHT, DAY, element("FLAT", 1)]})
    assert explain(tariff, at=datetime(2026, 11, 26, hour)) == [*order, "€1.00 per session plus 19 % VAT"]


def test_what_is_left_by_conditions_of_another_kind_is_told_as_otherwise() -> None:
    weekend = element("ENERGY", "0.30", day_of_week=["SATURDAY", "SUNDAY"])
    assert said(weekend, DAY)[1] == "€0.45 per kWh plus 19 % VAT (otherwise)"
    assert said(element("ENERGY", "0.30", end_time="06:00"), DAY)[1].endswith("(06:00–24:00)")
    assert said(element("ENERGY", "0.30", start_time="20:00"), DAY)[1].endswith("(00:00–20:00)")
    assert said(element("ENERGY", "0.30", max_kwh=10), DAY)[1].endswith("(otherwise)")
    assert said(NIGHT, weekend, DAY)[2].endswith("(otherwise)")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ([element("ENERGY", "0.49")], ""), ([element("PARKING_TIME", 0)], ""),
        ([element("PARKING_TIME", 6, step=60)], "€0.119 per minute"),
        ([element("PARKING_TIME", "5.00", vat=20)], "€0.10 per minute"),
        ([element("PARKING_TIME", 1, vat=0)], "€1.00 per hour"),
        ([element("PARKING_TIME", 6, vat=None)], "€0.10 per minute plus VAT"),
        ([element("PARKING_TIME", 6, vat=0, start_time="08:00", end_time="20:00"), element("PARKING_TIME", 0)],
         "€0.10 per minute (08:00–20:00)"),
        ([element("PARKING_TIME", 6, vat=0, min_duration=14400), element("PARKING_TIME", 3, vat=0)],
         "€0.10 per minute (after 240 min), €0.05 per minute (otherwise)"),
        ([element("TIME", 6, reservation="RESERVATION")], ""),
    ],
)  # fmt: skip
def test_what_it_costs_to_stand_there_is_told_by_the_minute_where_that_reads_well(
    elements: Any, words: str
) -> None:
    assert standing(read_tariff({"currency": "EUR", "elements": elements})) == words


def test_an_overnight_price_of_a_day_is_told_for_the_hours_in_which_it_is_billed() -> None:
    """Days and times are the moment's (OCPI): Friday 02:00 and 23:00 belong to it, Saturday 02:00 does not."""
    low = element("ENERGY", "0.30", day_of_week=["FRIDAY"], start_time="22:00", end_time="06:00")
    tariff = read_tariff({"currency": "EUR", "elements": [low, DAY]})
    for at, is_low in (("2026-11-27T02", True), ("2026-11-27T23", True), ("2026-11-28T02", False)):
        first = explain(tariff, at=datetime.fromisoformat(f"{at}:00"))[0]
        assert (
            first == "€0.30 per kWh plus 19 % VAT (now, Friday, 00:00–06:00 and 22:00–24:00)"
        ) is is_low, at


def test_what_can_no_longer_apply_is_not_told_and_what_is_to_come_says_from_when() -> None:
    elements = [
        element("ENERGY", "0.20", end_date="2026-11-26"), element("ENERGY", "0.60", start_date="2027-01-01"),
        element("ENERGY", "0.40"), element("FLAT", 9, end_date="2026-11-01"),
        element("TIME", 6, start_date="2026-12-01", end_date="2026-12-24"),
    ]  # fmt: skip
    tariff = read_tariff({"currency": "EUR", "tax_included": "YES", "elements": elements})
    assert explain(tariff, at=datetime(2026, 11, 26, 12)) == [
        "€0.40 per kWh including 19 % VAT (now, otherwise)",
        "€0.60 per kWh including 19 % VAT (from 2027-01-01)",
        "€0.10 per minute of charging including 19 % VAT (from 2026-12-01, until 2026-12-24)",
    ]
    assert in_short(tariff, "en", on=date(2026, 11, 26)) == [
        "€0.40/kWh incl. VAT", "from 1 Jan 2027: €0.60/kWh", "from 1 Dec 2026: €0.10/min while charging",
    ]  # fmt: skip
    assert (
        in_short(tariff, "de", on=date(2026, 11, 26))[1].replace("\xa0", " ") == "ab 01.01.2027: 0,60 €/kWh"
    )
    over = read_tariff({"currency": "EUR", "elements": elements[:1]})
    assert (explain(over, at=datetime(2026, 11, 26)), in_short(over, "en", on=date(2026, 11, 26))) == (
        ["Free"], ["Free"],
    )  # fmt: skip
    parking = read_tariff(
        {"currency": "EUR", "elements": [element("PARKING_TIME", 6, end_date="2026-11-26")]}
    )
    assert (standing(parking, on=date(2026, 11, 26)), standing(parking, on=date(2026, 11, 25)) != "") == (
        "",
        True,
    )


def test_a_sticker_tells_the_least_and_the_most_that_a_session_costs() -> None:
    limited = {"min_price": {"before_taxes": 5}, "max_price": {"before_taxes": 50, "after_taxes": "59.5"}}
    tariff = read_tariff({"currency": "EUR", "elements": [element("ENERGY", "0.45")], **limited})
    assert in_short(tariff, "en") == [
        "€0.5355/kWh incl. VAT", "at least €5.95 per session", "at most €59.50 per session",
    ]  # fmt: skip
    assert in_short(tariff, "de")[1].replace("\xa0", " ") == "mindestens 5,95 € je Ladevorgang"
    mixed = [element("ENERGY", "0.45"), element("FLAT", 1, vat=7)]  # of no single rate: told without
    tariff = read_tariff({"currency": "EUR", "elements": mixed, "min_price": {"before_taxes": 5}})
    assert in_short(tariff, "en")[-1] == "at least €5.00 per session plus VAT"
    free = read_tariff(
        {"currency": "EUR", "elements": [element("ENERGY", 0)], "min_price": {"before_taxes": 5}}
    )
    assert in_short(free, "en") == ["at least €5.95 per session incl. VAT"]
