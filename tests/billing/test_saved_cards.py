"""Cards that drivers save: given on the provider's page, found by news or by looking, removed, revoked, replaced."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.access import accounts
from app.access import service as access
from app.access.models import Driver
from app.billing import cards, payments, sandbox
from app.billing.models import Payer, SavedCard
from app.billing.provider import OutcomeUnknown
from app.charging import account
from app.kernel.clock import utcnow
from app.kernel.errors import NotFound, Refused, TooMany
from tests.billing.conftest import ASKS, DECLINED, GOOD, Shop, jobs, shop

__all__ = ["jobs", "shop"]
pytestmark = pytest.mark.anyio
OTHER, LATER_DECLINED, ASKS_ONCE = "5555555555554444", "4000000000000341", "4000002500003155"


async def add_driver(shop: Shop, email: str) -> Driver:
    async with shop.scope() as scope:
        return await access.create_driver(scope, name=email, email=email)


async def begin(shop: Shop, driver: Driver) -> UUID:
    async with shop.scope() as scope:
        return (await cards.begin(scope, driver, url="http://a.localhost/account/payment", language="en")).id


async def give(shop: Shop, card_id: UUID, number: str, *, confirms: bool = True) -> str:
    """On the provider's page, at the bank's where it asks."""
    async with shop.scope() as scope:
        card = await scope.db.get_one(SavedCard, (shop.tenant_id, card_id))
        payer = await scope.db.get_one(Payer, (shop.tenant_id, card.payer_id))
    said = await sandbox.pay_checkout(shop.database, payer.account_ref, card.checkout_ref or "", number, "")
    if said["status"] == "authenticate":
        said = await sandbox.authenticate_checkout(
            shop.database, payer.account_ref, card.checkout_ref or "", succeeds=confirms
        )
    return said["status"]


async def save(shop: Shop, driver: Driver, number: str = GOOD) -> SavedCard:
    card_id = await begin(shop, driver)
    await cards.run_setup(shop.database, shop.tenant_id, card_id)
    assert await give(shop, card_id, number) == "complete"
    await cards.observe(shop.database, shop.tenant_id, card_id)
    return await read(shop, card_id)


async def read(shop: Shop, card_id: UUID) -> SavedCard:
    async with shop.scope() as scope:
        return await scope.db.get_one(SavedCard, (shop.tenant_id, card_id))


async def names(shop: Shop, driver: Driver) -> list[tuple[str, bool]]:
    async with shop.scope() as scope:
        return [(card.last4, card.is_default) for card in await cards.list_cards(scope, driver.id)]


async def objects(shop: Shop, kind: str) -> list[dict[str, Any]]:
    async with shop.database.sandbox() as db:
        query = sandbox.text("select body from sandbox.object where kind = :kind order by created, id")
        return [row.body for row in await db.execute(query, {"kind": kind})]


async def test_a_card_is_saved_once_whoever_tells_of_it(shop: Shop) -> None:
    """By news in any order and number, by the janitor alone, by the driver's own way back: one customer, one card."""
    for number, way in enumerate(("news", "janitor", "back")):
        driver = await add_driver(shop, f"{way}@example.org")
        card_id = await begin(shop, driver)
        assert await begin(shop, driver) == card_id  # pressed twice it is one page
        await cards.run_setup(shop.database, shop.tenant_id, card_id)
        await cards.run_setup(shop.database, shop.tenant_id, card_id)
        assert await give(shop, card_id, DECLINED) == "declined"
        assert await give(shop, card_id, ASKS, confirms=False) == "declined"
        assert await give(shop, card_id, ASKS) == "complete"
        if way == "news":
            assert all(await shop.tell(copies=2, reverse=True))
            await shop.jobs.run()
        elif way == "janitor":
            await sandbox.take_deliveries(shop.database)  # never told
            async with shop.scope() as scope:
                row = await scope.db.get_one(SavedCard, (shop.tenant_id, card_id))
                row.created_at = scope.now - timedelta(minutes=2)
            await cards.tidy(shop.database, shop.tenant_id)
            await shop.jobs.run()
        else:
            await cards.observe(shop.database, shop.tenant_id, card_id)
        card = await read(shop, card_id)
        assert (card.state, card.name, card.exp_year) == ("active", "Visa •••• 3184", 2034)
        assert card.is_default and await names(shop, driver) == [("3184", True)]
        assert (
            len(await objects(shop, "customer")) == len(await objects(shop, "payment_method")) == number + 1
        )


@pytest.mark.parametrize(
    ("fault", "at"), [(fault, at) for fault in ("before", "after", "500") for at in ("customers", "sessions")]
)
async def test_a_lost_answer_makes_no_second_customer_or_page_that_anybody_knows(
    shop: Shop, fault: str, at: str
) -> None:
    driver = await add_driver(shop, "jule@example.org")
    card_id = await begin(shop, driver)
    await sandbox.set_faults(shop.database, [{"path": f"POST .*{at}$", "fault": fault, "times": 1}])
    with pytest.raises(OutcomeUnknown):
        await cards.run_setup(shop.database, shop.tenant_id, card_id)
    async with shop.scope() as scope:
        row = await scope.db.get_one(SavedCard, (shop.tenant_id, card_id))
        row.created_at = scope.now - timedelta(minutes=2)
    for _ in range(2):
        await cards.tidy(shop.database, shop.tenant_id)
        await shop.jobs.run(rounds=3)
    assert (await read(shop, card_id)).checkout_url
    made = {
        "customers": len(await objects(shop, "customer")),
        "sessions": len(await objects(shop, "checkout.session")),
    }
    unheard = {at: 1} if fault == "500" else {}  # what a 500 hides is nobody's
    assert made == {one: 1 + unheard.get(one, 0) for one in made}


async def test_what_a_driver_or_the_provider_does_to_a_card_is_so_on_both_sides(shop: Shop) -> None:
    """Preferred, removed, replaced by itself, revoked, renewed, expired; nobody else's is anybody's."""
    jule, malik = await add_driver(shop, "jule@example.org"), await add_driver(shop, "malik@example.org")
    first, second = await save(shop, jule), await save(shop, jule, OTHER)
    assert await names(shop, jule) == [("4242", True), ("4444", False)]
    async with shop.scope() as scope:
        for verb in (cards.make_default, cards.remove):
            with pytest.raises(NotFound):
                await verb(scope, malik.id, first.id)
        await cards.make_default(scope, jule.id, second.id)
    assert await names(shop, jule) == [("4444", True), ("4242", False)]
    again = await save(shop, jule, OTHER)  # the same number: one card, and it still pays
    assert await names(shop, jule) == [("4444", True), ("4242", False)]
    assert (await read(shop, second.id)).why == "replaced" and (await read(shop, again.id)).is_default
    async with shop.scope() as scope:
        await cards.remove(scope, jule.id, again.id)
    await shop.jobs.run()
    assert await names(shop, jule) == [("4242", True)]
    attached = [one["card"]["last4"] for one in await objects(shop, "payment_method") if one["customer"]]
    assert attached == ["4242"]

    account_ref, ref = (await _account(shop)), first.provider_ref or ""
    now = utcnow()
    last = (now.replace(day=1) - timedelta(days=1)).date()
    await sandbox.change_card(shop.database, account_ref, ref, exp_month=last.month, exp_year=last.year)
    await shop.tell()
    await shop.jobs.run()
    async with shop.scope() as scope:
        assert (await cards.list_cards(scope, jule.id))[0].is_expired(now)
        assert await cards.find_usable(scope, jule.id) is None
    await sandbox.change_card(shop.database, account_ref, ref, exp_year=now.year + 1)
    async with shop.scope() as scope:  # nobody told us: a weekly look is enough
        row = await scope.db.get_one(SavedCard, (shop.tenant_id, first.id))
        row.observed_at = now - timedelta(days=8)
    await sandbox.take_deliveries(shop.database)
    await cards.tidy(shop.database, shop.tenant_id)
    await shop.jobs.run()
    async with shop.scope() as scope:
        assert await cards.find_usable(scope, jule.id) is not None
    await sandbox.change_card(shop.database, account_ref, ref, is_revoked=True)
    await shop.tell()
    await shop.jobs.run()
    assert (await read(shop, first.id)).why == "revoked" and await names(shop, jule) == []


async def test_whoever_leaves_is_forgotten_at_the_provider_too(shop: Shop) -> None:
    jule = await add_driver(shop, "jule@example.org")
    await save(shop, jule)
    waiting = await begin(shop, jule)
    await sandbox.set_faults(shop.database, [{"path": "DELETE /v1/customers", "fault": "after", "times": 1}])
    async with shop.database.scope(shop.tenant_id, accounts.actor_of(jule)) as scope:
        await account.close(scope, "jule@example.org")
    await shop.jobs.run(rounds=3)
    assert [one.get("deleted") for one in await objects(shop, "customer")] == [True]
    assert not any(one["customer"] for one in await objects(shop, "payment_method"))
    async with shop.scope() as scope:
        payer = (await scope.db.execute(select(Payer))).scalar_one()
        rows = (await scope.db.execute(select(SavedCard))).scalars().all()
    assert payer.gone_at is not None
    assert {(row.state, row.why, str(row.request)) for row in rows} == {("removed", "closed", "{}")}
    assert (await read(shop, waiting)).checkout_ref is None


async def test_a_page_that_closed_a_day_without_cards_and_one_of_many_end_in_a_word(shop: Shop) -> None:
    jule = await add_driver(shop, "jule@example.org")
    card_id = await begin(shop, jule)
    await cards.run_setup(shop.database, shop.tenant_id, card_id)
    await sandbox.set_clock(shop.database, 25 * 3600)
    await cards.observe(shop.database, shop.tenant_id, card_id)
    assert (await read(shop, card_id)).why == "page_expired"
    async with shop.scope() as scope:
        own = await payments.get_own_account(scope)
        own.card_on_file = "off"
        with pytest.raises(Refused, match="cannot be saved"):
            await cards.begin(scope, jule, url="http://a.localhost", language="en")
        own.card_on_file = "optional"
        for _ in range(cards.MOST_PER_DAY - 1):
            (await cards.begin(scope, jule, url="http://a.localhost", language="en")).state = "failed"
            await scope.db.flush()
        with pytest.raises(Refused, match="Too many cards"):
            await cards.begin(scope, jule, url="http://a.localhost", language="en")


async def test_one_address_opens_few_pages_that_come_to_no_card(shop: Shop) -> None:
    """Accounts cost nothing: whoever tries stolen cards would take many. What is saved is forgiven."""
    remote = "203.0.113.7"

    async def ask(number: int) -> UUID:
        driver = await add_driver(shop, f"driver{number}@example.org")
        async with shop.scope() as scope:
            asked = await cards.begin(scope, driver, url="http://a.localhost", language="en", remote=remote)
            assert (
                await cards.begin(scope, driver, url="http://a.localhost", language="en", remote=remote)
                == asked
            )
        return asked.id

    first = await ask(0)
    await cards.run_setup(shop.database, shop.tenant_id, first)
    assert await give(shop, first, GOOD) == "complete"
    await cards.observe(shop.database, shop.tenant_id, first)
    for number in range(1, cards.PAGES_PER_ADDRESS + 1):
        await ask(number)
    with pytest.raises(TooMany, match="Too many cards were tried"):
        await ask(99)


async def _account(shop: Shop) -> str:
    async with shop.scope() as scope:
        return (await payments.get_own_account(scope)).account_ref
