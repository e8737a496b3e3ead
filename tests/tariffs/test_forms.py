"""The plain tariff form and the OCPI object it stands for are the same tariff, there and back."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import Invalid
from app.tariffs import forms, ocpi_tariff
from app.tariffs.explain import explain
from app.tariffs.ocpi_tariff import DAYS

price = st.decimals(min_value=0, max_value=99, places=4, allow_nan=False).map(
    lambda value: f"{value.normalize():f}"
)
maybe = st.one_of(st.just(""), price)
clock = st.times().map(lambda at: at.strftime("%H:%M"))


@st.composite
def filled(draw: st.DrawFn) -> tuple[dict[str, str], list[str]]:
    values = {
        "name": "T", "tax": draw(st.sampled_from(["YES", "NO"])), "vat": draw(st.sampled_from(["", "19", "7"])),
        "energy_price": draw(price), "session_fee": draw(maybe), "time_price": draw(maybe),
        "parking_price": draw(maybe),
    }  # fmt: skip
    days: list[str] = []
    if draw(st.booleans()):
        days = [day for day in DAYS if draw(st.booleans())]
        values |= {"other_price": draw(price)}
        if draw(st.booleans()) or not days:
            values |= {"other_from": draw(clock), "other_until": draw(clock)}
    return values, days


@given(filled())
def test_what_was_typed_comes_back_from_the_tariff_it_became(form: tuple[dict[str, str], list[str]]):
    values, days = form
    tariff = ocpi_tariff.read_tariff(forms.to_ocpi(values, days, currency="EUR"))
    again = forms.from_ocpi(ocpi_tariff.read_tariff(ocpi_tariff.as_json(tariff)))
    assert again is not None
    typed = {name: text for name, text in values.items() if text and name != "name"}
    assert {name: text for name, text in again.items() if text and name != "days"} == typed
    assert again["days"] == days


def test_minutes_become_hours_exactly_and_a_comma_is_a_point():
    tariff = ocpi_tariff.read_tariff(
        forms.to_ocpi({"name": "T", "parking_price": "0,1", "energy_price": "0.49"}, [], currency="EUR")
    )
    prices = {one.type: one.price for one in tariff.elements[0].price_components}
    assert prices == {"ENERGY": Decimal("0.49"), "PARKING_TIME": Decimal("6.0")}
    assert explain(tariff)[0] == "€0.49 per kWh including VAT"


@pytest.mark.parametrize(
    ("values", "days", "fields"),
    [
        ({}, [], {"name", "energy_price"}),
        ({"name": "T", "energy_price": "cheap"}, [], {"energy_price"}),
        ({"name": "T", "energy_price": "-1"}, [], {"energy_price"}),
        ({"name": "T", "energy_price": "NaN"}, [], {"energy_price"}),
        ({"name": "T", "energy_price": "1", "other_price": "2"}, [], {"other_from"}),
        ({"name": "T", "energy_price": "1"}, ["MONDAY"], {"other_price"}),
        (
            {"name": "T", "energy_price": "1", "other_price": "2", "other_from": "25:00", "other_until": "06:00"},
            [], {"other_from"},
        ),
        ({"name": "T", "energy_price": "1", "other_price": "2", "other_from": "22:00"}, [], {"other_until"}),
    ],
)  # fmt: skip
def test_every_fault_is_told_at_once_by_the_name_of_its_field(
    values: dict[str, str], days: list[str], fields: set[str]
):
    with pytest.raises(Invalid) as invalid:
        forms.to_ocpi(values, days, currency="EUR")
    assert {fault.field for fault in invalid.value.faults} >= fields


@pytest.mark.parametrize(
    "element",
    [
        {"price_components": [{"type": "ENERGY", "price": 1, "step_size": 1000}]},
        {"price_components": [{"type": "ENERGY", "price": 1}], "restrictions": {"max_kwh": 5}},
        {"price_components": [{"type": "FLAT", "price": 1}], "restrictions": {"reservation": "RESERVATION"}},
        {"price_components": [{"type": "TIME", "price": 1, "step_size": 900}]},
    ],
)
def test_a_tariff_that_says_more_than_the_form_is_left_to_the_raw_editor(element: dict[str, object]):
    assert forms.from_ocpi(ocpi_tariff.read_tariff({"currency": "EUR", "elements": [element]})) is None


ENERGY, LATER = (
    {"price_components": [{"type": "ENERGY", "price": price, "vat": 19}]} for price in ("0.49", "0.39")
)
AT_NIGHT = LATER | {"restrictions": {"start_time": "22:00", "end_time": "06:00"}}
FEE = {"price_components": [{"type": "FLAT", "price": "0.5", "vat": 19}]}


def test_elements_of_a_kind_each_are_one_plain_form():
    tariff = ocpi_tariff.read_tariff({"currency": "EUR", "elements": [AT_NIGHT, FEE, ENERGY]})
    assert forms.from_ocpi(tariff) == {
        "tax": "NO", "days": [], "vat": "19", "energy_price": "0.49", "session_fee": "0.5", "other_price": "0.39",
        "other_from": "22:00", "other_until": "06:00",
    }  # fmt: skip


@pytest.mark.parametrize("elements", [[ENERGY, AT_NIGHT], [ENERGY, LATER]])
def test_a_price_that_never_counts_is_not_shown_as_one_that_does(elements: list[dict[str, object]]):
    assert forms.from_ocpi(ocpi_tariff.read_tariff({"currency": "EUR", "elements": elements})) is None


def test_an_example_session_is_read_with_the_brands_clock():
    now = datetime(2026, 7, 1, 10, tzinfo=UTC)
    session = forms.to_session(
        {"energy_kwh": "12,5", "charging_min": "30", "start": "2026-07-01T22:30"},
        now=now,
        time_zone="Europe/Berlin",
    )
    assert session == {
        "start": "2026-07-01T22:30:00+02:00", "energy_kwh": Decimal("12.5"), "charging_s": Decimal(1800),
        "parking_s": Decimal(0),
    }  # fmt: skip
    with pytest.raises(Invalid) as invalid:
        forms.to_session({"energy_kwh": "much", "start": "tomorrow"}, now=now, time_zone="UTC")
    assert [fault.field for fault in invalid.value.faults] == ["energy_kwh", "start"]
