"""What the pages of a session say where plain words are easily wrong: a cost beyond the hold, one that was given back,
one of nothing, a car that has finished and still stands there."""

import re
from html import unescape
from typing import Any

import pytest
from sqlalchemy import select, text, update

from app.billing import payments, sandbox
from app.billing.provider import OutcomeUnknown
from app.charging import paid, queries, service, settlement
from app.charging.models import ChargingSession, PriceSnapshot
from app.charging.reports import TransactionReport
from app.identity import service as identity
from app.kernel.ids import public_id
from app.stations import commands
from tests.billing.conftest import Shop, jobs, shop
from tests.charging import test_cap
from tests.charging.test_cap import ELEMENT, Visit, begin, visit, wish_for
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
    assert "Cost €6.00 incl. VAT, credited" in words_of(await guest_page(house, visit))


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


# -- a car that has finished -------------------------------------------------------------------------------------------

FEE = "After charging, standing here costs €0.10 per minute."


async def standing(shop: Shop, version: str, *elements: Any) -> Visit:
    """A car that has charged for nine minutes at a place where standing has a price."""
    visit = await begin(shop, version=version)
    parking = {"price_components": [{"type": "PARKING_TIME", "price": "5.00", "vat": "20", "step_size": 60}]}
    tariff = {"id": "T", "currency": "EUR", "elements": [ELEMENT, *(elements or (parking,))]}
    async with shop.scope() as scope:
        await scope.db.execute(update(PriceSnapshot).values(tariff=tariff))
    return visit


async def says(visit: Visit, minutes: float, state: str) -> None:
    async with visit.scope(minutes=minutes) as scope:
        session = await service.get_session(scope, visit.session_id)
        await service.report_transaction(scope, visit.station_id, TransactionReport(
            kind="Updated", at=scope.now, received_at=scope.now, charging_state=state, evse_no=1,
            ocpp_transaction_id=session.ocpp_transaction_id,
        ))  # fmt: skip


async def stop_and_answer(visit: Visit, minutes: float, status: Any = "accepted") -> None:
    async with visit.scope(minutes=minutes) as scope:
        command = await service.request_stop(scope, visit.session_id)
        await commands.claim_commands(scope, visit.station_id, visit.epoch, limit=9)
        await commands.conclude_command(scope, command.id, status, {"status": status.capitalize()})


async def told(visit: Visit, minutes: float, collection: str = "card") -> dict[str, Any]:
    async with visit.scope(minutes=minutes) as scope:
        session = await service.get_session(scope, visit.session_id)
        return await paid.state_words(scope, session, await visit.payment(), collection)


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1"])
async def test_a_car_that_was_stopped_and_stands_there_is_told_to_unplug_and_what_it_costs(
    shop: Shop, house: House, version: str
) -> None:
    """The station keeps its transaction until the cable is out (2.x TxStopPoint EVConnected)."""
    visit = await standing(shop, version)
    await says(visit, 0, "EVConnected")
    begins = await told(visit, 0.1)
    assert (begins["title"], begins["may_stop"]) == ("Cable connected", True)
    await says(visit, 1, "Charging")
    await visit.read(9, 3)
    await stop_and_answer(visit, 10)
    asked = await told(visit, 10.1)
    assert (asked["title"], asked["may_stop"]) == ("Stopping", False)
    await says(visit, 10.2, "EVConnected")
    for minutes in (10.3, 30):
        words = await told(visit, minutes)
        assert (words["title"], words["tone"], words["may_stop"]) == ("Charging has ended", "warning", False)
        assert words["text"] == f"Unplug your car to end the session. {FEE}"
    page = await guest_page(house, visit)
    assert FEE in page and "Stop charging" not in page and "Charging begins" not in page
    assert "until this is settled: €30.00" in page and "We stop before" not in page
    assert steps_of(page) == ["*Card", "*Plug in", "*Charging", "Receipt"]
    german = await guest_page(house, visit, "de")
    assert "Nach dem Laden kostet das Stehen hier 0,10 € je Minute." in german and "per minute" not in german


async def test_a_car_that_has_finished_by_itself_is_told_so_and_may_end_the_session(
    shop: Shop, house: House
) -> None:
    visit = await standing(shop, "ocpp2.0.1")
    await says(visit, 1, "Charging")
    await visit.read(9, 3)
    await says(visit, 12, "SuspendedEV")
    words = await told(visit, 13)
    assert words["title"] == "Paused by the car" and words["text"].endswith(
        f"If it is full, unplug it. {FEE}"
    )
    await says(visit, 14, "EVConnected")
    words = await told(visit, 14.1)
    assert (words["title"], words["may_stop"]) == ("Charging has ended", True)
    page = await guest_page(house, visit)
    assert "End the session" in page and "Stop charging" not in page
    await says(visit, 15, "Charging")  # it went on after all
    assert (await told(visit, 15.1))["title"] == "Charging"


async def test_a_stop_before_any_energy_is_no_beginning_either(shop: Shop) -> None:
    visit = await standing(shop, "ocpp2.0.1")
    await says(visit, 0.5, "EVConnected")
    await stop_and_answer(visit, 1)
    words = await told(visit, 1.1)
    assert (words["title"], words["may_stop"]) == ("Charging has ended", False)


async def test_a_stop_that_was_refused_may_be_tried_again(shop: Shop) -> None:
    visit = await standing(shop, "ocpp2.0.1")
    await says(visit, 1, "Charging")
    await visit.read(9, 3)
    await stop_and_answer(visit, 10, "rejected")
    words = await told(visit, 10.1)
    assert (words["title"], words["may_stop"]) == ("Still charging", True)


async def test_a_cable_that_was_taken_from_the_car_is_told_as_such(shop: Shop) -> None:
    visit = await standing(shop, "ocpp2.0.1")
    await says(visit, 1, "Charging")
    await visit.read(9, 3)
    await says(visit, 10, "Idle")
    words = await told(visit, 10.1)
    assert (words["title"], words["may_stop"]) == ("Unplugged", True) and FEE in words["text"]


@pytest.mark.parametrize(("collection", "elements"), [("free", ()), ("card", (ELEMENT,))])
async def test_where_standing_costs_nothing_no_price_is_told(
    shop: Shop, collection: str, elements: Any
) -> None:
    visit = await standing(shop, "ocpp2.0.1", *elements)
    await says(visit, 1, "Charging")
    await visit.read(9, 3)
    await says(visit, 10, "EVConnected")
    words = await told(visit, 10.1, collection)
    assert words["text"] == "Unplug your car to end the session." and words["tone"] == "success"


async def test_a_station_that_stopped_and_waits_for_the_cable_is_not_asked_again_each_minute(
    shop: Shop,
) -> None:
    visit = await standing(shop, "ocpp2.0.1")
    await says(visit, 1, "Charging")
    await visit.read(136, 49.9)
    await stop_and_answer(visit, 136)
    await says(visit, 136.1, "EVConnected")
    async with visit.scope(minutes=140) as scope:
        before = await service.last_stop(scope, await service.get_session(scope, visit.session_id))
    await visit.look(140)
    async with visit.scope(minutes=140) as scope:
        after = await service.last_stop(scope, await service.get_session(scope, visit.session_id))
    assert before is not None and after is not None and before.id == after.id


async def test_while_the_payment_service_does_not_answer_nobody_is_sent_to_its_page(
    shop: Shop, house: House
) -> None:
    """A 500 once: the page says that we try again; then it has the way to the payment page."""
    await sandbox.set_faults(shop.database, [{"path": "POST /v1/checkout/sessions$", "fault": "500"}])
    with pytest.raises(OutcomeUnknown):
        await wish_for(shop)
    async with shop.scope() as scope:
        [session_id] = (await scope.db.execute(select(ChargingSession.id))).scalars()
        link = paid.link_of(scope, session_id)
    driver = house.driver("alpha")
    page = words_of((await driver.get(f"/s/{link}", headers={"Accept-Language": "en"})).text)
    assert "The payment service does not answer yet" in page and "Give your card" not in page
    assert "We keep trying; nothing is taken yet. You can cancel and try again later." in page
    german = words_of((await driver.get(f"/s/{link}", headers={"Accept-Language": "de"})).text)
    assert "Der Zahlungsdienst antwortet noch nicht" in german and "Abbrechen" in german
    async with shop.scope() as scope:
        await scope.db.execute(text("update livery.payment_op set state = 'sent'"))
    assert (
        "Opening the payment page" in (await driver.get(f"/s/{link}", headers={"Accept-Language": "en"})).text
    )
    async with shop.scope() as scope:
        op_id = (await scope.db.execute(text("select id from livery.payment_op"))).scalar_one()
    await payments.run_op(shop.database, shop.tenant_id, op_id)
    page = words_of((await driver.get(f"/s/{link}", headers={"Accept-Language": "en"})).text)
    assert "Waiting for your card" in page and "Go to the payment page" in page


async def test_a_payment_page_that_the_provider_refuses_is_told_as_that(
    shop: Shop, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold below the provider's least: nobody can give a card for it."""
    cent = {"type": "ENERGY", "price": "0.01", "vat": "20", "step_size": 1}
    monkeypatch.setattr(test_cap, "ELEMENT", {"price_components": [cent]})
    async with shop.scope() as scope:
        account = await payments.find_account(scope)
        assert account is not None
        account.hold_ac_minor = account.hold_dc_minor = 20
    _station_id, session_id, _epoch = await wish_for(shop)
    await shop.jobs.run()
    async with shop.scope() as scope:
        link = paid.link_of(scope, session_id)
    page = words_of((await house.driver("alpha").get(f"/s/{link}")).text)
    assert "The payment page could not be opened" in page and "Nothing is charged." in page
    assert "Try again in a few minutes, or call us." in page
