"""Tariffs and sessions from outside: read leniently, refused with every fault named, never a crash."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import Invalid
from app.tariffs.described import read_session
from app.tariffs.ocpi_tariff import as_json, decode, encode, read_new_tariff, read_tariff, write_tariff
from app.tariffs.pricing import price

NOW = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
ENERGY = {"type": "ENERGY", "price": 0.25, "vat": 19, "step_size": 1}


def with_component(**changes: Any) -> dict[str, Any]:
    return {"currency": "EUR", "elements": [{"price_components": [ENERGY | changes]}]}


def with_restrictions(**restrictions: Any) -> dict[str, Any]:
    return {"currency": "EUR", "elements": [{"price_components": [ENERGY], "restrictions": restrictions}]}


def tariff_faults(raw: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        read_tariff(raw)
    return [(fault.field, fault.code) for fault in refused.value.faults]


def session_faults(raw: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        read_session(raw, now=NOW, time_zone="UTC")
    return [(fault.field, fault.code) for fault in refused.value.faults]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_its_offset_moves_out_of_the_calendar_is_refused(moment: str) -> None:
    assert session_faults({"start": moment, "energy_kwh": 1}) == [("session.start", "range")]
    for field in ("start_date_time", "end_date_time"):
        assert tariff_faults(
            {"currency": "EUR", "elements": [{"price_components": [ENERGY]}], field: moment}
        ) == [(f"tariff.{field}", "range")]


FIRST = "tariff.elements[0].price_components[0]"
WINDOW = "tariff.elements[0].restrictions"


@pytest.mark.parametrize(
    ("raw", "field", "code"),
    [
        ({}, "tariff.currency", "required"), ({"currency": "EUR"}, "tariff.elements", "required"),
        ([], "tariff", "object"), (with_component() | {"currency": "EURO"}, "tariff.currency", "currency"),
        (with_component(type="KWH"), f"{FIRST}.type", "unknown_component"),
        (with_component(price=None), f"{FIRST}.price", "required"),
        (with_component(price="free"), f"{FIRST}.price", "number"),
        (with_component(price=True), f"{FIRST}.price", "number"),
        (with_component(price="NaN"), f"{FIRST}.price", "range"),
        (with_component(price="1e99"), f"{FIRST}.price", "range"),
        (with_component(price="1e-99"), f"{FIRST}.price", "range"),
        (with_component(price="0.1234567890123456"), f"{FIRST}.price", "precision"),
        (with_component(vat=-1), f"{FIRST}.vat", "negative"), (with_component(vat=101), f"{FIRST}.vat", "range"),
        (with_component(step_size=1.5), f"{FIRST}.step_size", "integer"),
        (with_component() | {"elements": {}}, "tariff.elements", "list"),
        (with_component() | {"elements": [{"price_components": []}]}, "tariff.elements[0].price_components",
         "required"),
        (with_component() | {"elements": [7]}, "tariff.elements[0]", "object"),
        (with_component() | {"min_price": {}}, "tariff.min_price.excl_vat", "required"),
        (with_component() | {"max_price": {"excl_vat": -1}}, "tariff.max_price.excl_vat", "negative"),
        (with_component() | {"max_price": {"before_taxes": 2, "after_taxes": 1}},
         "tariff.max_price.after_taxes", "order"),
        (with_component() | {"tax_included": "MAYBE"}, "tariff.tax_included", "unknown_tax_included"),
        (with_component() | {"start_date_time": "soon"}, "tariff.start_date_time", "date_time"),
        (with_component() | {"start_date_time": "2026-02-01T00:00:00Z", "end_date_time": "2026-01-01T00:00:00Z"},
         "tariff.end_date_time", "order"),
        (with_component() | {"id": "x" * 37}, "tariff.id", "too_long"),
        (with_restrictions(start_time="25:00"), f"{WINDOW}.start_time", "time"),
        (with_restrictions(end_time="9:00"), f"{WINDOW}.end_time", "time"),
        (with_restrictions(start_date="2026-02-30"), f"{WINDOW}.start_date", "date"),
        (with_restrictions(day_of_week=["FUNDAY"]), f"{WINDOW}.day_of_week", "unknown_day"),
        (with_restrictions(day_of_week="MONDAY"), f"{WINDOW}.day_of_week", "list"),
        (with_restrictions(min_kwh=5, max_kwh=5), f"{WINDOW}.max_kwh", "order"),
        (with_restrictions(max_duration=-1), f"{WINDOW}.max_duration", "negative"),
        (with_restrictions(reservation="MAYBE"), f"{WINDOW}.reservation", "unknown_reservation"),
        (with_restrictions(reservation="RESERVATION"), "tariff.elements[0].price_components", "reservation"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_tariff_is_named_with_its_place(raw: Any, field: str, code: str) -> None:
    assert (field, code) in tariff_faults(raw)


def test_every_fault_is_told_at_once() -> None:
    raw = {
        "elements": [{"price_components": [{"type": "X"}, {"type": "ENERGY", "price": "a", "step_size": 1}]}]
    }
    assert tariff_faults(raw) == [
        ("tariff.currency", "required"), ("tariff.elements[0].price_components[0].type", "unknown_component"),
        ("tariff.elements[0].price_components[0].price", "required"),
        ("tariff.elements[0].price_components[1].price", "number"),
    ]  # fmt: skip


def test_what_others_write_carelessly_is_understood() -> None:
    raw = {"currency": "eur", "elements": [{
        "price_components": [{"type": "energy", "price": "0.25"}],
        "restrictions": {"day_of_week": ["monday"], "end_time": "24:00"},
    }]}  # fmt: skip
    element = read_tariff(raw).elements[0]
    assert element.price_components[0].price == Decimal("0.25") and element.price_components[0].step_size == 1
    assert element.restrictions.day_of_week == ("MONDAY",)
    assert write_tariff(read_tariff(raw))["elements"][0]["restrictions"]["end_time"] == "00:00"


def test_prices_keep_the_digits_that_were_sent() -> None:
    component = b'{"type":"ENERGY","price":0.1,"vat":19.00,"step_size":1}'
    sent = b'{"currency":"EUR","elements":[{"price_components":[%s]}]}' % component
    assert b'"price":0.1,' in encode(write_tariff(read_tariff(decode(sent))))
    stored = as_json(read_tariff(decode(sent)))
    assert read_tariff(stored) == read_tariff(decode(sent))


def test_fields_we_do_not_know_are_kept() -> None:
    raw = with_component(colour="red") | {"energy_mix": {"is_green_energy": True}, "x": [1, {"y": None}]}
    raw["elements"][0]["restrictions"] = {"weather": "sunny"}
    assert write_tariff(read_tariff(raw)) == raw


@given(
    st.decimals(min_value=0, max_value=10_000, places=6), st.one_of(st.none(), st.decimals(0, 100, places=2)),
    st.integers(0, 10_000),
)  # fmt: skip
def test_a_stored_tariff_is_the_tariff(amount: Decimal, vat: Decimal | None, step: int) -> None:
    read = read_tariff(with_component(price=amount, vat=vat, step_size=step))
    assert read_tariff(as_json(read)) == read


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = (
    "currency", "elements", "price_components", "restrictions", "type", "price", "vat", "step_size",
    "min_price", "start_time",
    "end_time", "start_date", "min_kwh", "max_kwh", "day_of_week", "reservation", "tariff_alt_text", "start",
    "time_zone",
    "charging_s", "parking_s", "energy_kwh", "charging_periods", "start_date_time", "dimensions", "volume",
    "reservation_s", "reservation_expired", "max_power_kw",
)  # fmt: skip
WORDS = (
    "EUR",
    "ENERGY",
    "TIME",
    "RESERVATION_TIME",
    "2026-05-04T08:00:00Z",
    "08:30",
    "Europe/Berlin",
    "MONDAY",
    "1",
    "-1",
)
ALMOST = st.recursive(
    st.one_of(JSON, st.sampled_from(WORDS)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
    ),
    max_leaves=20,
)


@given(ALMOST)
def test_any_json_is_read_or_refused_with_named_faults(raw: Any) -> None:
    for read in (read_tariff, lambda raw: read_session(raw, now=NOW, time_zone="UTC")):
        try:
            read(raw)
        except Invalid as refused:
            assert refused.faults and all(
                fault.field and fault.code and fault.message for fault in refused.faults
            )


@pytest.mark.parametrize(
    ("raw", "field", "code"),
    [
        (None, "session", "object"), ({"energy_kwh": -1}, "session.energy_kwh", "negative"),
        ({"charging_s": "long"}, "session.charging_s", "number"),
        ({"charging_s": 10**9}, "session.charging_s", "range"),
        ({"start": "2026-05-04T09:30:00"}, "session.start", "date_time"), ({"start": 5}, "session.start", "text"),
        ({"start": "1026-05-04T09:30:00Z"}, "session.start", "range"),
        ({"time_zone": "Europe/Nowhere"}, "session.time_zone", "time_zone"),
        ({"time_zone": "../etc/passwd"}, "session.time_zone", "time_zone"),
        ({"energy": 5}, "session.energy", "unknown"),
        ({"reservation_expired": True}, "session.reservation_s", "required"),
        ({"reservation_expired": "yes", "reservation_s": 5}, "session.reservation_expired", "boolean"),
        ({"min_power_kw": 5, "max_power_kw": 4}, "session.max_power_kw", "order"),
        ({"charging_periods": []}, "session.charging_periods", "required"),
        ({"charging_periods": [{}]}, "session.charging_periods[0].start_date_time", "required"),
        ({"charging_periods": [{"start_date_time": "2026-05-04T08:00:00Z", "dimensions": [{"type": "ENERGY"}]}]},
         "session.charging_periods[0].dimensions[0].volume", "required"),
        ({"end_date_time": "2026-05-04T07:00:00Z", "charging_periods": [
            {"start_date_time": "2026-05-04T08:00:00Z", "dimensions": [{"type": "ENERGY", "volume": 1}]}]},
         "session.end_date_time", "order"),
        ({"charging_periods": [
            {"start_date_time": f"2026-05-04T0{hour}:00:00Z",
             "dimensions": [{"type": "TIME", "volume": 1}]} for hour in (9, 8)]},
         "session.charging_periods", "order"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_session_is_named(raw: Any, field: str, code: str) -> None:
    assert (field, code) in session_faults(raw)


def test_what_a_description_leaves_out_is_now_and_here() -> None:
    described = read_session({}, now=NOW, time_zone="Europe/Berlin")
    assert described.time_zone == "Europe/Berlin"
    assert [(period.start_at, period.end_at) for period in described.periods] == [(NOW, NOW)]


def test_a_reservation_comes_before_charging_and_parking_after_it() -> None:
    raw = {"start": "2026-05-04T10:00:00+02:00", "reservation_s": 600, "charging_s": 1200, "parking_s": 300}
    spans = [
        (p.start_at.minute, p.end_at.minute, p.is_reservation)
        for p in read_session(raw, now=NOW, time_zone="UTC").periods
    ]
    assert spans == [(50, 0, True), (0, 20, False), (20, 25, False)]


def test_periods_without_an_end_last_as_long_as_their_time() -> None:
    raw = {"charging_periods": [
        {"start_date_time": "2026-05-04T08:00:00Z", "dimensions": [{"type": "TIME", "volume": "0.5"}]},
        {"start_date_time": "2026-05-04T08:30:00Z", "dimensions": [{"type": "PARKING_TIME", "volume": 0.25}]},
    ]}  # fmt: skip
    periods = read_session(raw, now=NOW, time_zone="UTC").periods
    assert periods[-1].end_at == datetime(2026, 5, 4, 8, 45, tzinfo=UTC)
    time = read_tariff(
        {"currency": "EUR", "elements": [{"price_components": [{"type": "TIME", "price": 4}]}]}
    )
    assert price(time, periods, time_zone="UTC").total_cost.excl_minor == 200


@pytest.mark.parametrize(
    ("least", "most", "is_refused"),
    [({"excl_vat": 5}, {"excl_vat": 4}, True), ({"incl_vat": 5}, {"incl_vat": 4}, True),
     ({"excl_vat": 5}, {"incl_vat": 4}, True), ({"before_taxes": 5}, {"excl_vat": "4.99"}, True),
     ({"excl_vat": 5}, {"excl_vat": 5}, False), ({"incl_vat": 5}, {"excl_vat": 4}, False),
     ({"excl_vat": 5}, {}, False)],
)  # fmt: skip
def test_a_new_tariff_whose_least_is_above_its_most_is_refused_and_one_that_is_kept_is_read(
    least: dict[str, Any], most: dict[str, Any], is_refused: bool
) -> None:
    raw = with_component() | {"min_price": least} | ({"max_price": most} if most else {})
    kept = read_tariff(raw)
    if not is_refused:
        assert read_new_tariff(raw) == kept
        return
    with pytest.raises(Invalid) as refused:
        read_new_tariff(raw)
    assert [(fault.field, fault.code) for fault in refused.value.faults] == [("tariff.max_price", "order")]
