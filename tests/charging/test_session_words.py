"""What the pages of a session say where plain words are easily wrong: a cost beyond the hold, one that was given back,
one of nothing, a car that has finished and still stands there."""

import re
from html import unescape

import pytest
from sqlalchemy import text

from app.charging import paid, queries, service, settlement
from app.identity import service as identity
from app.kernel.ids import public_id
from tests.billing.conftest import jobs, shop
from tests.charging.test_cap import Visit, visit
from tests.charging.test_papers import words_of
from tests.surfaces.conftest import house
from tests.web import House

__all__ = ["house", "jobs", "shop", "visit"]
pytestmark = pytest.mark.anyio
STAFF = "sven@alpha.example"


async def guest_page(house: House, visit: Visit, language: str = "en") -> str:
    async with visit.shop.scope() as scope:
        link = paid.link_of(scope, visit.session_id)
    answer = await house.driver("alpha").get(f"/s/{link}", headers={"Accept-Language": language})
    assert answer.status_code == 200
    return unescape(answer.text).replace("\u00a0", " ")


async def staff_page(house: House, visit: Visit) -> str:
    async with visit.shop.scope() as scope:
        if await identity.find_staff_member(scope, STAFF) is None:
            await identity.invite_staff(scope, email=STAFF, name="Sven Holt", role="owner")
    staff = await house.staff("alpha", visit.shop.tenant_id, STAFF)
    answer = await staff.get(f"/charging-sessions/{public_id('charging_session', visit.session_id)}")
    assert answer.status_code == 200
    return unescape(answer.text).replace("\u00a0", " ")


# -- money -------------------------------------------------------------------------------------------------------------


async def test_a_cost_beyond_the_hold_is_told_with_what_is_taken_at_most(visit: Visit, house: House) -> None:
    session = await visit.end(
        30, 4_000
    )  # 4 MWh in half an hour: nobody believes it, and 2,400.00 are not held
    assert session.review == "implausible"
    async with visit.shop.scope() as scope:
        await scope.db.execute(text("update livery.charging_session set energy_wh = 100000"))
    for page in (await guest_page(house, visit), await staff_page(house, visit)):
        assert "€60.00" in page and "at most €30.00 is taken" in words_of(page)
    assert "höchstens 30,00 € werden abgebucht" in words_of(await guest_page(house, visit, "de"))
    assert "Cost so far" not in await staff_page(house, visit)


async def test_a_cost_within_the_hold_needs_no_such_words(visit: Visit, house: House) -> None:
    await visit.read(9, 2)
    for page in (await guest_page(house, visit), await staff_page(house, visit)):
        assert "Cost so far" in page and "at most" not in page


async def test_what_was_given_back_stands_beside_what_it_cost(visit: Visit, house: House) -> None:
    await visit.end(60, 10)
    async with visit.shop.scope() as scope:
        await settlement.refund(scope, (await visit.payment()).id, "goodwill")
    await visit.shop.jobs.run()
    page = words_of(await staff_page(house, visit))
    assert "Cost so far" not in page
    assert "Cost €6.00 incl. VAT, €6.00 given back" in page
    assert "Cost €6.00 incl. VAT" in words_of(await guest_page(house, visit))


async def test_whatever_happened_is_told_in_words(visit: Visit) -> None:
    kinds = ("cap_reached", "hold_ends", "stuck", "unplugged", "interrupted")
    async with visit.shop.scope() as scope:
        session = await service.get_session(scope, visit.session_id)
        for kind in kinds:
            await service.note(scope, session, kind, kind, {})
        for why in ("hold_used", "hold_gone", "hold_ends"):
            await service.note(scope, session, f"cap:{why}", "cap_reached", {"why": why})
        told = [one["title"] for one in queries.timeline(await queries.events_of(scope, session.id))]
    assert not [title for title in told if "_" in title or title in kinds]
    assert {"The hold was all but used up", "Nothing is held any more", "The hold was about to end"} <= set(
        told
    )


def steps_of(page: str) -> list[str]:
    """The steps of the way, a star before each that is done."""
    items = re.findall(r'<li class="(\w*)"[^>]*>([^<]*)</li>', page)
    return [("*" if state == "done" else "") + name for state, name in items]


async def test_a_session_of_nothing_had_nothing_to_pay_and_has_no_receipt(visit: Visit, house: House) -> None:
    await visit.end(3, 0)
    payment = await visit.payment()
    assert (payment.state, payment.failure) == ("canceled", "nothing_owed")
    page = await guest_page(house, visit)
    assert "There was nothing to pay: the hold on your card is released." in page and "on us" not in page
    assert steps_of(page) == ["*Card", "*Plug in", "*Charging", "*Finished"] and "/receipt" not in page
    german = await guest_page(house, visit, "de")
    assert "Es war nichts zu zahlen" in german and "Beleg" not in words_of(german)


async def test_a_session_that_was_paid_ends_with_its_receipt(visit: Visit, house: House) -> None:
    await visit.end(60, 10)
    page = await guest_page(house, visit)
    assert steps_of(page)[-1] == "*Receipt" and "/receipt" in page
