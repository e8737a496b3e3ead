"""A guest of the demo goes the way of every guest: place, payment page, station; a refused card comes to nothing."""

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import select

from app.billing import payments
from app.billing.models import Payment
from app.charging import paid
from app.charging.models import ChargingSession
from app.demo.guests import DECLINED, GOOD, Guest, run_guests
from app.kernel.clock import utcnow
from app.stations import service as stations
from app.stations.models import StationCommand
from app.stations.reports import StatusReport
from tenants.scope import Actor
from tests.billing.conftest import Shop, jobs, shop
from tests.charging.test_cap import place_of
from tests.charging.test_paid_cases import start_of
from tests.web import House, open_house

__all__ = ["jobs", "shop"]
pytestmark = pytest.mark.anyio
SLUG = "alpha"  # the shop's


@pytest.fixture
async def house(shop: Shop):
    station_id, _epoch = await place_of(shop)
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        report = StatusReport(
            evse_no=1, connector_no=1, status="Available", sampled_at=scope.now, received_at=scope.now
        )
        await stations.connector_reported(scope, station_id, report)
    async with open_house(shop.database.settings, shop.database) as opened:
        yield opened


async def rows(shop: Shop, model: Any) -> list[Any]:
    async with shop.scope() as scope:
        return list((await scope.db.execute(select(model).order_by(model.id))).scalars())


def guest(house: House) -> Guest:
    return Guest(house.settings, house.client, SLUG, random.Random(1), pause_s=0.1)


async def asked(shop: Shop, count: int) -> StationCommand:
    """The remote start that the guest's hold led to, the `count`th."""
    for _ in range(100):
        await shop.jobs.run()
        found = await rows(shop, StationCommand)
        if len(found) == count:
            return found[-1]
        await asyncio.sleep(0.05)
    raise AssertionError("no start was asked for")


async def test_a_guest_pays_the_hold_stands_and_they_stay_until_the_car_charges(
    house: House, shop: Shop
) -> None:
    coming = asyncio.create_task(guest(house).come(GOOD, 1e9))
    command = await asked(shop, 1)
    (payment,) = await rows(shop, Payment)
    (session,) = await rows(shop, ChargingSession)
    assert (payment.state, session.status, session.origin) == ("authorized", "PENDING", "guest")
    assert session.cost_cap_minor == payment.hold_minor
    await start_of(shop, command.station_id, command.payload["idTag"], utcnow())
    assert await asyncio.wait_for(coming, 10)


async def test_a_guest_whose_place_somebody_took_comes_again(house: House, shop: Shop) -> None:
    coming = asyncio.create_task(guest(house).come(GOOD, 1e9))
    await asked(shop, 1)
    (session,) = await rows(shop, ChargingSession)
    async with shop.scope() as scope:
        await paid.give_up(scope, session.id)
    command = await asked(shop, 2)
    await start_of(shop, command.station_id, command.payload["idTag"], utcnow())
    assert await asyncio.wait_for(coming, 10)


async def test_a_guest_with_a_refused_card_leaves_and_nothing_is_held(house: House, shop: Shop) -> None:
    assert not await guest(house).come(DECLINED, 0)
    (payment,) = await rows(shop, Payment)
    payment = await shop.look(payment)
    assert (payment.state, payment.failure, payment.hold_minor) == ("created", "card_declined", 0)


async def test_nobody_comes_where_money_is_real(house: House) -> None:
    real = house.settings.model_copy(update={"stripe_secret_key": "sk_test_x"})
    await run_guests(real, ())  # ends at once: it would run until cancelled


async def test_test_cards_are_told_in_test_mode_and_nowhere_else(house: House, shop: Shop) -> None:
    visitor = house.driver(SLUG)
    start = (await visitor.get("/")).text
    place = start.split('href="/c/')[1].split('"')[0]
    for language, words in (("en", "Test mode: no real money."), ("de", "Testbetrieb: kein echtes Geld.")):
        page = (await visitor.get(f"/c/{place}", headers={"Accept-Language": language})).text
        assert words in page and "4000000000000002" in page
    async with shop.scope() as scope:  # the same account, at the real provider
        account = await payments.find_account(scope)
        account.provider = "stripe"
    shop.database.settings = shop.database.settings.model_copy(update={"stripe_secret_key": "sk_test_x"})
    page = (await visitor.get(f"/c/{place}")).text
    assert "Pay and start" in page
    assert "Test mode" not in page and GOOD not in page
