"""The engine against a count of seconds, on tariffs and sessions at random."""

import json

import pytest

from app.tariffs.ocpi_tariff import read_tariff
from app.tariffs.pricing import Price, price
from tests.conftest import Proof
from tests.tariffs.brute_force import total
from tests.tariffs.random_tariffs import Case, case

CASES = 4_000


def engine(one: Case) -> Price:
    return price(
        read_tariff(one.tariff), [stretch.period() for stretch in one.stretches], time_zone=one.zone,
        default_vat=one.default_vat, is_reservation_expired=one.is_expired,
    )  # fmt: skip


def check(one: Case) -> bool:
    """True when something was to pay. Says the whole case where the two disagree."""
    found = engine(one)
    excl, incl = total(one)
    said = found.total_cost.as_json(found.currency)
    assert said == {"excl_vat": str(excl), "incl_vat": str(incl)}, (
        f"{json.dumps(one.tariff)} {one.zone} {one.default_vat} {one.is_expired} {one.stretches}"
    )
    return bool(found.total_cost.incl_minor)


def test_the_engine_and_a_count_of_seconds_agree_on_a_handful() -> None:
    random = Proof(full=False, seed=7).random("handful")
    assert sum(check(case(random, longest_s=1200)) for _ in range(40)) > 20


@pytest.mark.proof
def test_the_engine_and_a_count_of_seconds_agree_on_thousands(proof: Proof) -> None:
    random, count = proof.random("prices"), proof.share(CASES)
    payable = sum(check(case(random)) for _ in range(count))
    assert payable > count * 0.6
    proof.write("prices", {"cases": count, "with something to pay": payable, "differences": 0})
