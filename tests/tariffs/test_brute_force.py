"""The engine against a count of seconds, on tariffs and sessions at random."""

import json
from decimal import Decimal

import pytest

from app.tariffs.ocpi_tariff import read_tariff
from app.tariffs.pricing import Price, price
from tests.conftest import Proof
from tests.tariffs.brute_force import DECIMALS, is_limited, is_near_limit, payable, total
from tests.tariffs.random_tariffs import Case, case

CASES = 100_000


def engine(one: Case) -> Price:
    return price(
        read_tariff(one.tariff), [stretch.period() for stretch in one.stretches], time_zone=one.zone,
        default_vat=one.default_vat, is_reservation_expired=one.is_expired,
    )  # fmt: skip


def check(one: Case) -> bool:
    """True when something was to pay. Says the whole case where the two disagree.

    What the tariff speaks of, net or gross, to the last digit; the other side of the tax follows from it, a rounding
    away per rate. Of what a limit changed, that limits hold is promised in test_pricing; where one is so near that this
    rounding would break it, the other side is rounded instead (2.30 JPY net and 2.53 gross at a minimum of 2.38 gross).
    """
    found = engine(one)
    excl, incl = total(one)
    case = f"{json.dumps(one.tariff)} {one.zone} {one.default_vat} {one.is_expired} {one.stretches}"
    was_limited = any(line.component in ("MIN_PRICE", "MAX_PRICE") for line in found.lines)
    assert was_limited == is_limited(one, excl, incl), case
    if not was_limited:
        said = {side: Decimal(text) for side, text in found.total_cost.as_json(found.currency).items()}
        own, other = ("incl_vat", "excl_vat") if found.is_tax_included else ("excl_vat", "incl_vat")
        counted = {"excl_vat": excl, "incl_vat": incl}
        rates = len({line.vat_rate for line in found.lines})
        unit = Decimal(1).scaleb(-DECIMALS[found.currency])
        if said[own] != payable(one, counted[own]):
            assert is_near_limit(one, counted, (rates + 1) * unit), case
            own, other = other, own
            assert said[own] == payable(one, counted[own]), case
        assert abs(said[other] - counted[other]) <= (rates + 1) * unit, case
    return bool(found.total_cost.incl_minor)


def test_the_engine_and_a_count_of_seconds_agree_on_a_handful() -> None:
    random = Proof(full=False, seed=7).random("handful")
    assert sum(check(case(random, longest_s=1200)) for _ in range(40)) > 20


@pytest.mark.proof
@pytest.mark.timeout(5400)
def test_the_engine_and_a_count_of_seconds_agree_on_a_hundred_thousand(proof: Proof) -> None:
    random, count = proof.random("prices"), proof.share(CASES, part=40)
    paid = sum(check(case(random)) for _ in range(count))
    assert paid > count * 0.6
    proof.write("prices", {"cases": count, "with something to pay": paid, "differences": 0})
