"""The press on Start: once is once, what was read is what is paid, and only where it can come to something."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, text

from app.access.verdict import IdTokenValue
from app.billing import payments
from app.billing.models import Payment
from app.charging import account, paid, places, service
from app.charging.models import ChargingSession, PriceSnapshot, Reservation
from app.charging.reports import TransactionReport
from app.kernel.clock import utcnow, uuid7
from app.kernel.errors import Refused
from app.stations.models import EVSE, StationCommand
from app.tariffs import service as tariffs
from tenants.scope import Actor
from tests.billing.conftest import Shop, jobs, shop
from tests.charging.test_account import Yard, yard
from tests.charging.test_cap import place_of
from tests.charging.test_paid_cases import evse_of, held, payment_of, session_of, start_of, wish
from tests.web import OWNER, House, Visitor, open_house

__all__ = ["jobs", "shop", "yard"]
pytestmark = pytest.mark.anyio
SLUG = "alpha"  # the shop's
TARIFF_ENERGY = {"type": "ENERGY", "price": "0.50", "vat": "20", "step_size": 1}


@pytest.fixture
async def house(shop: Shop) -> AsyncIterator[House]:
    async with open_house(shop.database.settings, shop.database) as opened:
        yield opened


async def code_of(shop: Shop) -> str:
    async with shop.scope() as scope:
        return (await scope.db.execute(select(EVSE.code))).scalar_one()


async def plugs(shop: Shop, status: str) -> None:
    async with shop.scope() as scope:
        await scope.db.execute(text("update livery.connector set status = :status"), {"status": status})


async def set_free_vend(shop: Shop) -> None:
    async with shop.scope() as scope:
        await scope.db.execute(text("update livery.location set is_free_vend = true"))


async def set_tariff(shop: Shop, *parts: dict[str, Any], **more: Any) -> None:
    async with shop.scope() as scope:
        made = {"currency": "EUR", "elements": [{"price_components": list(parts)}], **more}
        await tariffs.create_tariff(scope, made, {"default": True})


async def all_of(shop: Shop, model: Any) -> list[Any]:
    async with shop.scope() as scope:
        return list((await scope.db.execute(select(model).order_by(model.id))).scalars())


async def twice(visitor: Visitor, path: str, form: dict[str, str]) -> list[httpx2.Response]:
    """A slow network, and a finger that does not wait."""
    return list(await asyncio.gather(*(visitor.post(path, form) for _ in range(2))))


# -- once is once ------------------------------------------------------------------------------------------------------


async def test_start_tapped_twice_at_a_free_place_is_one_session_and_both_answers_show_it(
    shop: Shop, house: House
) -> None:
    await place_of(shop)
    await set_free_vend(shop)
    code, guest = await code_of(shop), house.driver(SLUG)
    read = await guest.read(f"/c/{code}")
    answers = await twice(guest, f"/c/{code}/start", read)
    (session,) = await all_of(shop, ChargingSession)
    async with shop.scope() as scope:
        page = f"/s/{paid.link_of(scope, session.id)}"
    assert [(one.status_code, one.headers.get("location")) for one in answers] == [(303, page)] * 2
    assert len(await all_of(shop, StationCommand)) == 1
    stranger = await house.driver(SLUG).post(f"/c/{code}/start", {**read, "wish": read["wish"][:-1] + "-"})
    assert stranger.status_code == 409 and page not in stranger.text


async def test_pay_tapped_twice_is_one_checkout_and_both_answers_lead_to_it(shop: Shop, house: House) -> None:
    await place_of(shop)
    code, guest = await code_of(shop), house.driver(SLUG)
    answers = await twice(guest, f"/c/{code}/start", await guest.read(f"/c/{code}"))
    (payment,) = await all_of(shop, Payment)
    assert payment.checkout_url is not None
    assert [(one.status_code, one.headers.get("location")) for one in answers] == [
        (303, payment.checkout_url)
    ] * 2
    for _ in range(paid.STARTS_PER_ADDRESS_AND_EVSE - 1):  # the second taps counted for nothing
        read = await guest.read(f"/c/{code}")
        assert {one.status_code for one in await twice(guest, f"/c/{code}/start", read)} == {303}
    refused = await guest.post(f"/c/{code}/start", await guest.read(f"/c/{code}"))
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1800"
    assert "Try again in half an hour." in refused.text


async def test_a_start_by_an_own_card_tapped_twice_is_one_session_and_both_answers_show_it(
    yard: Yard, house: House
) -> None:
    jule = await yard.driver("jule@example.org", collection="monthly", card="CARD1")
    code = await code_of(yard.shop)
    rider = await house.rider(SLUG, yard.shop.tenant_id, "jule@example.org")
    read = await rider.read(f"/c/{code}")
    answers = await twice(rider, f"/c/{code}/start", read)
    (session,) = await all_of(yard.shop, ChargingSession)
    assert {one.status_code for one in answers} == {303} and session.driver_id == jule.id
    assert len({one.headers["location"] for one in answers}) == 1
    assert answers[0].headers["location"].startswith("/account/sessions/ses_")


async def test_a_page_the_browser_kept_begins_anew_once_what_it_began_is_over(
    shop: Shop, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes back to it wants to charge; a second tap is the same second's."""
    await place_of(shop)
    code, guest = await code_of(shop), house.driver(SLUG)
    read = await guest.read(f"/c/{code}")
    assert (await guest.post(f"/c/{code}/start", read)).status_code == 303
    (first,) = await all_of(shop, ChargingSession)
    async with shop.scope() as scope:
        await paid.give_up(scope, first.id)
        page = f"/s/{paid.link_of(scope, first.id)}"
    assert (await guest.post(f"/c/{code}/start", read)).headers["location"] == page
    monkeypatch.setattr(paid, "SECOND_TAP", paid.SECOND_TAP * 0)
    anew = await guest.post(f"/c/{code}/start", read)
    assert anew.status_code == 303 and "/pay/" in anew.headers["location"]
    assert [one.status for one in await all_of(shop, ChargingSession)] == ["INVALID", "PENDING"]


@pytest.mark.parametrize(
    ("first", "then"), [("stranger@example.org", "me@example.org"), ("", "me@example.org")]
)
async def test_an_address_that_is_corrected_before_a_card_is_given_is_another_checkout_and_the_first_one_closes(
    shop: Shop, house: House, first: str, then: str
) -> None:
    """Pay, the browser's Back, the address corrected in the page it had kept, Pay."""
    await place_of(shop)
    code, guest = await code_of(shop), house.driver(SLUG)
    read = await guest.read(f"/c/{code}")
    path, form = f"/c/{code}/start", {**read, "email": first}
    (before,) = {one.headers["location"] for one in await twice(guest, path, form)}
    broken = await guest.post(path, {**read, "email": "me@"})
    assert broken.status_code == 422 and len(await all_of(shop, Payment)) == 1
    taps = await twice(guest, path, {**read, "email": then})
    taps.append(await guest.post(path, {**read, "email": f" {then.upper()}"}))  # the same mailbox
    (after,) = {one.headers["location"] for one in taps}
    old, new = await all_of(shop, Payment)
    assert (before, after) == (old.checkout_url, new.checkout_url) and new.payer_email == then
    await shop.jobs.run()
    await shop.look(old)
    sessions = await all_of(shop, ChargingSession)
    assert [(one.status, one.not_started) for one in sessions] == [("INVALID", "given_up"), ("PENDING", None)]
    assert (await shop.read(old.id)).state == "expired"


async def test_what_is_paid_keeps_its_address_and_its_kept_page_leads_to_it(shop: Shop, house: House) -> None:
    await place_of(shop)
    code, guest = await code_of(shop), house.driver(SLUG)
    read = await guest.read(f"/c/{code}")
    await guest.post(f"/c/{code}/start", {**read, "email": "me@example.org"})
    (payment,) = await all_of(shop, Payment)
    await shop.pay(payment)
    await shop.look(payment)
    await shop.jobs.run()
    answer = await guest.post(f"/c/{code}/start", {**read, "email": "stranger@example.org"})
    (session,) = await all_of(shop, ChargingSession)
    async with shop.scope() as scope:
        assert answer.headers["location"] == f"/s/{paid.link_of(scope, session.id)}"
    (payment,) = await all_of(shop, Payment)
    assert (payment.state, payment.payer_email) == ("authorized", "me@example.org")


async def test_an_address_corrected_in_the_second_in_which_the_first_checkout_is_paid_holds_one_card(
    shop: Shop, house: House
) -> None:
    """Nobody had told us yet: the hold of the one that was given up is let go when it is seen."""
    await place_of(shop)
    code, guest = await code_of(shop), house.driver(SLUG)
    read = await guest.read(f"/c/{code}")
    await guest.post(f"/c/{code}/start", {**read, "email": "stranger@example.org"})
    (old,) = await all_of(shop, Payment)
    await shop.pay(old)
    await guest.post(f"/c/{code}/start", {**read, "email": "me@example.org"})
    await shop.jobs.run()
    assert await held(shop) == [] and (await shop.read(old.id)).state == "canceled"
    _old, new = await all_of(shop, Payment)
    await shop.pay(new)
    await shop.look(new)
    await shop.jobs.run()
    first, second = await all_of(shop, ChargingSession)
    assert (first.status, second.status, len(await held(shop))) == ("INVALID", "PENDING", 1)
    (command,) = await all_of(shop, StationCommand)
    assert command.id == second.command_id and await shop.captures(old) == []


# -- what was read is what is paid -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["tariff", "hold", "free no more", "unread"])
async def test_a_price_that_changed_while_the_page_was_open_is_shown_again_and_nothing_is_started(
    shop: Shop, house: House, what: str
) -> None:
    await place_of(shop)
    if what == "free no more":
        await set_free_vend(shop)
    code, guest = await code_of(shop), house.driver(SLUG)
    read = await guest.read(f"/c/{code}")
    shown = "€6.00"
    if what == "tariff":
        await set_tariff(shop, {**TARIFF_ENERGY, "price": "5.00"})
    elif what == "hold":
        async with shop.scope() as scope:
            await payments.set_holds(scope, "300.00", "300.00")
        shown = "€300.00"
    elif what == "free no more":
        async with shop.scope() as scope:
            await scope.db.execute(text("update livery.location set is_free_vend = false"))
        shown = "€0.60"
    else:
        read, shown = {}, "€0.60"
    answer = await guest.post(f"/c/{code}/start", read)
    assert answer.status_code == 409 and await all_of(shop, ChargingSession) == []
    assert "The price has changed since you opened this page" in answer.text and shown in answer.text
    german = await guest.post(f"/c/{code}/start", read, headers={"Accept-Language": "de"})
    assert "Der Preis hat sich geändert" in german.text
    again = await guest.post(f"/c/{code}/start", await guest.read(f"/c/{code}"))
    assert again.status_code == 303


async def test_a_drivers_own_price_that_changed_is_shown_again_too(yard: Yard, house: House) -> None:
    await yard.driver("jule@example.org", collection="free", card="CARD1")
    code = await code_of(yard.shop)
    rider = await house.rider(SLUG, yard.shop.tenant_id, "jule@example.org")
    read = await rider.read(f"/c/{code}")
    async with yard.shop.scope() as scope:
        await scope.db.execute(text("update livery.driver_group set collection = 'monthly'"))
    answer = await rider.post(f"/c/{code}/start", read)
    assert answer.status_code == 409 and "The price has changed" in answer.text
    assert await all_of(yard.shop, ChargingSession) == [] and await all_of(yard.shop, StationCommand) == []


async def test_a_drivers_own_price_is_that_of_the_press_whatever_changes_until_the_cable_comes(
    yard: Yard, house: House
) -> None:
    await yard.driver("jule@example.org", collection="free", card="CARD1")
    code = await code_of(yard.shop)
    rider = await house.rider(SLUG, yard.shop.tenant_id, "jule@example.org")
    pressed = await rider.post(f"/c/{code}/start", await rider.read(f"/c/{code}"))
    assert pressed.status_code == 303
    await set_tariff(yard.shop, {**TARIFF_ENERGY, "price": "9.99"})
    async with yard.shop.scope() as scope:
        await scope.db.execute(text("update livery.driver_group set collection = 'monthly'"))
    now = utcnow()
    async with yard.shop.database.scope(
        yard.shop.tenant_id, Actor.station(yard.station_id), now=now
    ) as scope:
        await service.report_transaction(scope, yard.station_id, TransactionReport(
            kind="Started", at=now, received_at=now, natural_key="s", evse_no=1, connector_no=1,
            id_token=IdTokenValue("CARD1"), meter_start_wh=Decimal(0),
        ))  # fmt: skip
    (session,), (snapshot,) = await all_of(yard.shop, ChargingSession), await all_of(yard.shop, PriceSnapshot)
    price = snapshot.tariff["elements"][0]["price_components"][0]["price"]
    assert (session.status, snapshot.collection) == ("ACTIVE", "free") and price < 9


# -- a hold that its beginning uses up ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hold", "more"),
    [
        ("30.00", {"parts": [{"type": "FLAT", "price": "30.00", "vat": "20", "step_size": 1}]}),
        ("0.50", {"parts": [{"type": "FLAT", "price": "1.00", "vat": "20", "step_size": 1}]}),
        ("5.00", {"tariff": {"min_price": {"before_taxes": "5.00", "taxes": [{"name": "VAT", "amount": "1.00"}]}}}),
        ("0.60", {}),
    ],
)  # fmt: skip
async def test_no_card_is_asked_for_where_the_beginning_alone_comes_to_the_hold(
    shop: Shop, house: House, hold: str, more: dict[str, Any]
) -> None:
    await place_of(shop)
    await set_tariff(shop, TARIFF_ENERGY, *more.get("parts", ()), **more.get("tariff", {}))
    async with shop.scope() as scope:
        await payments.set_holds(scope, hold, "60.00")
    with pytest.raises(Refused) as refused:
        await wish(shop, await evse_of(shop))
    assert refused.value.code == "hold_too_small"
    guest = house.driver(SLUG)
    page = (await guest.get(f"/c/{await code_of(shop)}")).text
    assert "cannot be paid by card here right now" in page and "/start" not in page
    async with shop.scope() as scope:
        await payments.set_holds(scope, "60.00", "60.00")
    assert await wish(shop, await evse_of(shop))


# -- one place, one wish -----------------------------------------------------------------------------------------------


async def test_whoever_has_paid_keeps_the_place_from_every_other_start(yard: Yard) -> None:
    shop = yard.shop
    first = await wish(shop, yard.evse_id)
    payment = await payment_of(shop, first)
    await shop.pay(payment)
    await shop.look(payment)
    await shop.jobs.run()
    malik = await yard.driver("malik@example.org", collection="monthly", card="CARD2")
    card = await yard.card_of(malik)
    with pytest.raises(Refused) as by_card:
        async with yard.scope(malik) as scope:
            await account.start_by_card(scope, yard.evse_id, card.id)
    with pytest.raises(Refused) as by_staff:
        async with shop.scope() as scope:
            await service.request_start(scope, evse_id=yard.evse_id)
    assert (by_card.value.code, by_staff.value.code) == ("evse_taken", "evse_taken")
    (command,) = await all_of(shop, StationCommand)
    await start_of(shop, yard.station_id, command.payload["idTag"], utcnow())
    assert ((await session_of(shop, first)).status, (await payment_of(shop, first)).state) == (
        "ACTIVE",
        "authorized",
    )


async def test_of_two_starts_in_one_instant_one_reaches_the_station(yard: Yard) -> None:
    riders = [
        await yard.driver(f"{name}@example.org", collection="monthly", card=name)
        for name in ("JULE", "MALIK")
    ]
    cards = [await yard.card_of(one) for one in riders]

    async def press(n: int) -> str:
        try:
            async with yard.scope(riders[n]) as scope:
                await account.start_by_card(scope, yard.evse_id, cards[n].id)
        except Refused as error:
            return error.code
        return ""

    assert sorted(await asyncio.gather(press(0), press(1))) == ["", "evse_taken"]
    assert len(await all_of(yard.shop, StationCommand)) == 1


# -- where a start would be refused the page offers none ---------------------------------------------------------------

REFUSALS = {  # (table, what is set, what it was, words of the page)
    "tenant_suspended": ("platform.tenant", "status = 'suspended'", "status = 'active'", "takes no new sessions"),
    "station_quarantined": (
        "livery.charging_station", "quarantined_at = now()", "quarantined_at = null", "is being checked",
    ),
    "station_not_accepted": (
        "livery.charging_station", "registration = 'pending'", "registration = 'accepted'", "not accepted yet",
    ),
    "station_offline": (
        "livery.station_connection", "is_online = false", "is_online = true", "does not answer right now",
    ),
    "evse_faulted": ("livery.connector", "status = 'Faulted'", "status = 'Available'", "reports a fault"),
    "evse_unavailable": ("livery.connector", "status = 'Unavailable'", "status = 'Available'", "out of service"),
    "evse_reserved": (
        "livery.connector", "status = 'Reserved'", "status = 'Available'", "reserved for somebody else",
    ),
}  # fmt: skip


async def test_page_list_and_press_say_the_same_of_a_place_where_nothing_can_begin(
    shop: Shop, house: House
) -> None:
    await place_of(shop)
    await plugs(shop, "Available")
    place, guest = await code_of(shop), house.driver(SLUG)
    read = await guest.read(f"/c/{place}")
    for code, (table, now, before, words) in REFUSALS.items():
        assert read and await free_count(shop) == [1]
        shop.jobs.connection.execute(f"update {table} set {now}".encode())
        with pytest.raises(Refused) as refused:
            await wish(shop, await evse_of(shop))
        assert refused.value.code == code
        page = (await guest.get(f"/c/{place}")).text
        assert "/start" not in page and words in page, code
        answer = await guest.post(f"/c/{place}/start", read)
        assert answer.status_code == 409 and await all_of(shop, ChargingSession) == [], code
        assert await free_count(shop) in ([0], []), code
        shop.jobs.connection.execute(f"update {table} set {before}".encode())
    assert (await guest.post(f"/c/{place}/start", read)).status_code == 303


async def free_count(shop: Shop) -> list[int]:
    async with shop.scope() as scope:
        return [site.free_count for site in (await places.list_sites(scope, places.Filter())).sites]


async def test_what_is_reserved_is_started_by_the_card_it_is_kept_for_and_by_no_other(
    yard: Yard, house: House
) -> None:
    shop, code = yard.shop, await code_of(yard.shop)
    await plugs(shop, "Reserved")
    jule = await yard.driver("jule@example.org", collection="monthly", card="CARD1")
    malik = await yard.driver("malik@example.org", collection="monthly", card="CARD2")
    cards = {one.id: await yard.card_of(one) for one in (jule, malik)}
    async with shop.scope() as scope:
        scope.db.add(Reservation(
            id=uuid7(), station_id=yard.station_id, evse_id=yard.evse_id, evse_no=1, reservation_no=7,
            id_token_id=cards[jule.id].id, id_token_masked="CARD1", state="active",
            expires_at=scope.now + paid.PAYING_LIFETIME, created_at=scope.now,
        ))  # fmt: skip
    for visitor in (house.driver(SLUG), await house.rider(SLUG, shop.tenant_id, "malik@example.org")):
        page = (await visitor.get(f"/c/{code}")).text
        assert "/start" not in page and "reserved for somebody else" in page
    with pytest.raises(Refused) as refused:
        async with yard.scope(malik) as scope:
            await account.start_by_card(scope, yard.evse_id, cards[malik.id].id)
    assert refused.value.code == "evse_reserved"
    rider = await house.rider(SLUG, shop.tenant_id, "jule@example.org")
    answer = await rider.post(f"/c/{code}/start", await rider.read(f"/c/{code}"))
    assert answer.status_code == 303


async def test_a_hold_that_stands_after_the_place_was_reserved_is_let_go_and_says_so(shop: Shop) -> None:
    await place_of(shop)
    session_id = await wish(shop, await evse_of(shop))
    await plugs(shop, "Reserved")
    payment = await payment_of(shop, session_id)
    await shop.pay(payment)
    await shop.look(payment)
    await shop.jobs.run()
    session = await session_of(shop, session_id)
    assert (session.not_started, (await payment_of(shop, session_id)).state) == ("evse_reserved", "canceled")


async def test_staff_are_told_which_tariff_uses_a_hold_up_at_its_beginning(shop: Shop, house: House) -> None:
    await place_of(shop)
    owner = await house.staff(SLUG, shop.tenant_id, OWNER)
    assert "too small" not in (await owner.open("/settings/cards")).text
    fee = {"type": "FLAT", "price": "30.00", "vat": "20", "step_size": 1}
    async with shop.scope() as scope:  # one that applies nowhere is nobody's trouble
        made = {"currency": "EUR", "name": "Not yet", "elements": [{"price_components": [fee]}]}
        await tariffs.create_tariff(scope, made)
    assert "too small" not in (await owner.open("/settings/cards")).text
    await set_tariff(shop, TARIFF_ENERGY, fee, name="Dear")
    page = (await owner.open("/settings/cards")).text
    assert "At AC chargers" in page and "fast chargers, <a" not in page  # there are none
    assert "Dear</a> costs €36.60 by the first kWh" in page and "the hold is €30.00" in page
    assert "Guests cannot pay by card everywhere" in (await owner.open("/")).text
    await owner.open("/settings/cards")
    assert (await owner.post("/settings/cards", {"hold_ac": "36.61", "hold_dc": "60"})).status_code == 303
    assert "too small" not in (await owner.open("/settings/cards")).text
    assert "Guests cannot pay" not in (await owner.open("/")).text
