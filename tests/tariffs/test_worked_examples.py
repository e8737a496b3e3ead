"""The worked examples of the OCPI text and of another engine come out to the cent.

They are read from a folder beside the project (LIVERY_VECTORS) and skipped, saying so, where it is absent. What the
text gives in prose is written out below.
"""

import json
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.tariffs.described import read_session
from app.tariffs.ocpi_tariff import decode, encode, read_tariff, write_tariff
from app.tariffs.pricing import Price, price

VECTORS = Path(os.environ.get("LIVERY_VECTORS") or Path(__file__).parents[3] / "shared" / "vectors")
EXAMPLES = VECTORS / "tariffs" / "worked_examples.json"
NOW = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
needs_vectors = pytest.mark.skipif(not EXAMPLES.exists(), reason=f"no test vectors at {VECTORS}")


def load(path: Path) -> Any:
    return decode(path.read_bytes())


def examples() -> list[Any]:
    return json.loads(EXAMPLES.read_text()) if EXAMPLES.exists() else []


def total(tariff: Any, session: dict[str, Any], **more: Any) -> Price:
    described = read_session(session, now=NOW, time_zone="Europe/Berlin")
    return price(
        read_tariff(tariff), described.periods, time_zone=described.time_zone,
        is_reservation_expired=described.is_reservation_expired, **more,
    )  # fmt: skip


def in_seconds(session: dict[str, Any]) -> dict[str, Any]:
    names = {"charging_min": "charging_s", "parking_min": "parking_s", "reservation_min": "reservation_s"}
    return {names.get(key, key): value * 60 if key in names else value for key, value in session.items()}


@needs_vectors
@pytest.mark.parametrize("example", examples(), ids=lambda example: example["id"])
def test_a_worked_example_comes_out_to_the_cent(example: dict[str, Any]) -> None:
    if "cdr" in example:
        cdr = load(VECTORS / example["cdr"])
        found = total(cdr["tariffs"][0], cdr)
    else:
        found = total(load(VECTORS / example["tariff"]), in_seconds(example["session"]))
    expected = example["expected_total"]
    if isinstance(expected, str):  # North American prices before taxes that nobody states
        assert expected.startswith(f"{found.currency} {Decimal(found.total_cost.excl_minor) / 100}")
    else:
        assert found.total_cost.as_json(found.currency) == expected


def cdrs() -> list[Path]:
    return sorted((VECTORS / "tariffs" / "tandemdrive").glob("*/cdr*.json"))


@needs_vectors
@pytest.mark.parametrize("path", cdrs(), ids=lambda path: path.parent.name)
def test_a_cdr_of_another_engine_costs_the_same(path: Path) -> None:
    cdr, tariff = load(path), load(path.parent / "tariff.json")
    found = total(tariff, cdr)
    for name, expected in cdr.items():
        if name.startswith("total_") and name.endswith("_cost"):
            cost = getattr(found, name)
            assert Decimal(cost.excl_minor) / 100 == expected["excl_vat"], name
            assert Decimal(cost.incl_minor) / 100 == expected["incl_vat"], name


PROSE = [
    ("2.2.1", "tariff_12_025kwh_min_price", {"energy_kwh": 1}, "0.50", "0.55"),
    ("2.2.1", "tariff_6_025kwh_start_max_price", {"energy_kwh": 50}, "10.00", "11.00"),
    ("2.3.0", "tariff_6_025kwh_start_max_price", {"energy_kwh": 50}, "10.00", "11.00"),
    ("2.2.1", "tariff_6_025kwh_start_max_price", {"energy_kwh": 30}, "8.00", "8.85"),
    # A Monday: 2:45 h with 16 A, then 42 minutes of parking. The step of charging is not used, parking came after it.
    ("2.2.1", "tariff_4_complex",
     {"start": "2026-05-04T09:30:00+02:00", "charging_s": 9900, "parking_s": 2520, "max_current_a": 16},
     "9.00", "10.30"),
    # A Saturday: 1:54 h with 43 A at 1.25, parking 71 minutes billed as 75 at 6.00.
    ("2.2.1", "tariff_4_complex",
     {"start": "2026-05-09T13:30:00+02:00", "charging_s": 6840, "parking_s": 4260, "min_current_a": 43},
     "12.38", "13.98"),
    ("2.2.1", "tariff_14_step_size",
     {"start": "2026-05-04T16:55:00+02:00", "charging_s": 600, "parking_s": 120}, "0.55", "0.55"),
    ("2.2.1", "tariff_14_step_size", {"start": "2026-05-04T16:35:00+02:00", "charging_s": 2100}, "1.30", "1.30"),
    ("2.2.1", "tariff_14_step_size",
     {"start": "2026-05-04T19:40:00+02:00", "charging_s": 720, "parking_s": 1200}, "0.73", "0.73"),
    ("2.2.1", "tariff_16_reservation_2_euro_fee_5_euro_per_hour", {"reservation_s": 780, "energy_kwh": 20},
     "8.75", "10.00"),
    ("2.2.1", "tariff_17_reservation_with_expire_fee", {"reservation_s": 1320, "energy_kwh": 20}, "6.50", "7.30"),
    ("2.2.1", "tariff_17_reservation_with_expire_fee",
     {"reservation_s": 3600, "reservation_expired": True}, "6.00", "7.20"),
    ("2.2.1", "tariff_18_reservation_with_expire_time", {"reservation_s": 1320, "energy_kwh": 20}, "7.00", "7.90"),
    ("2.2.1", "tariff_18_reservation_with_expire_time",
     {"reservation_s": 5400, "reservation_expired": True}, "9.00", "10.80"),
    ("2.2.1", "tariff_5_free_of_charge", {"energy_kwh": 50, "charging_s": 9000, "parking_s": 9000}, "0.00", "0.00"),
    ("2.2.1", "tariff_put_example", {"charging_s": 9000}, "5.00", "5.50"),
]  # fmt: skip


@needs_vectors
@pytest.mark.parametrize(("version", "name", "session", "excl", "incl"), PROSE)
def test_what_the_text_says_in_prose_comes_out_to_the_cent(
    version: str, name: str, session: dict[str, Any], excl: str, incl: str
) -> None:
    found = total(load(VECTORS / "ocpi" / version / "examples" / f"{name}.json"), session)
    assert found.total_cost.as_json("EUR") == {"excl_vat": excl, "incl_vat": incl}


@needs_vectors
def test_power_decides_the_price_of_each_kwh() -> None:
    """1 kWh at 6 kW, 40 kWh at 48 kW, 0.5 kWh at 4 kW: 0.20 + 20.00 + 0.10, as the text has it."""
    tariff = load(VECTORS / "ocpi/2.2.1/examples/tariffrestriction_example_max_power.json")
    periods = [("08:00", 1, 6), ("08:10", 40, 48), ("09:00", "0.5", 4)]
    session = {
        "end_date_time": "2026-05-04T09:08:00Z",
        "charging_periods": [
            {"start_date_time": f"2026-05-04T{at}:00Z",
             "dimensions": [{"type": "ENERGY", "volume": kwh}, {"type": "MAX_POWER", "volume": kw}]}
            for at, kwh, kw in periods
        ],
    }  # fmt: skip
    assert total(tariff, session).total_cost.excl_minor == 2030


@needs_vectors
def test_a_price_with_taxes_in_it_is_what_is_paid() -> None:
    tariff = load(VECTORS / "ocpi/2.3.0/examples/tariff_20_simple_north_american_inclusive.json")
    found = total(tariff, {"charging_s": 9000}, default_vat=5)
    assert found.total_cost.as_json("CAD") == {"excl_vat": "5.00", "incl_vat": "5.25"}


def tariffs() -> list[Path]:
    published = ("ocpi/2.[23]*/examples/tariff*.json", "tariffs/tandemdrive/*/tariff.json")
    return [path for pattern in published for path in sorted(VECTORS.glob(pattern))]


@needs_vectors
@pytest.mark.parametrize("path", tariffs(), ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_published_tariff_is_read_and_written_without_loss(path: Path) -> None:
    raw = load(path)
    assert decode(encode(write_tariff(read_tariff(raw)))) == raw


def test_the_examples_are_many_enough_to_mean_something(capsys: pytest.CaptureFixture[str]) -> None:
    if not EXAMPLES.exists():
        pytest.skip(f"no test vectors at {VECTORS}")
    count = len(examples()) + len(cdrs()) + len(PROSE) + 2
    with capsys.disabled():
        print(f"\n{count} worked prices and {len(tariffs())} published tariffs")
    assert count >= 30
