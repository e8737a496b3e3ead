"""An operator's account: opened, proven at the provider, gated by what the provider says, paid out when they ask."""

import pytest
from sqlalchemy import delete

from app.billing import onboarding, payments, sandbox
from app.billing.models import PaymentAccount
from app.kernel.errors import Invalid, Refused
from tests.billing.conftest import Shop
from tests.surfaces.conftest import house
from tests.web import CLI, House, found_brand

__all__ = ["house"]
pytestmark = pytest.mark.anyio
PORTAL = "http://portal-beta.localhost"


@pytest.fixture
async def newcomer(shop: Shop) -> Shop:
    """A brand whose account has to be proven first."""
    await sandbox.set_accounts(shop.database, ask=True)
    shop.tenant_id = await found_brand(shop.database, "beta")
    return shop


async def account_of(shop: Shop) -> PaymentAccount | None:
    async with shop.scope() as scope:
        return await payments.find_own_account(scope)


async def may_take_cards(shop: Shop) -> bool:
    async with shop.scope() as scope:
        return await payments.find_account(scope) is not None


async def go(shop: Shop) -> str:
    """The link of the hosted pages."""
    url = await onboarding.begin(shop.database, shop.tenant_id, CLI, portal_url=PORTAL)
    return url.rpartition("/")[2]


async def test_no_card_is_taken_before_the_provider_says_so(newcomer: Shop) -> None:
    link = await go(newcomer)
    account = await account_of(newcomer)
    assert account is not None and account.due == list(sandbox.ASKED)
    assert not await may_take_cards(newcomer)
    with pytest.raises(Refused, match="Cards cannot be taken"):
        await newcomer.hold()
    await onboarding.observe(newcomer.database, newcomer.tenant_id)
    assert not await may_take_cards(newcomer)
    await sandbox.onboard(newcomer.database, link)
    assert not await may_take_cards(newcomer), "only what was read from the provider counts"
    await onboarding.observe(newcomer.database, newcomer.tenant_id)
    assert await may_take_cards(newcomer)
    account = await account_of(newcomer)
    assert account is not None and account.due == [] and account.schedule["interval"] == "daily"
    assert (await newcomer.look(await newcomer.hold())).state == "created"


async def test_beginning_again_is_the_same_account_and_a_new_link(newcomer: Shop) -> None:
    first, second = await go(newcomer), await go(newcomer)
    assert first != second
    found = [await sandbox.find_link(newcomer.database, link) for link in (first, second)]
    assert all(one is not None and one["account"] == "Beta" for one in found)
    assert found[0] == found[1]
    await payments.tidy(newcomer.database, newcomer.tenant_id)
    async with newcomer.database.sandbox() as db:
        rows = await db.execute(payments.text("select count(*) from sandbox.account"))
        assert rows.scalar_one() == 2  # alpha's and this one


async def test_a_link_is_good_once(newcomer: Shop) -> None:
    link = await go(newcomer)
    await sandbox.onboard(newcomer.database, link)
    found = await sandbox.find_link(newcomer.database, link)
    assert found is not None and not found["is_good"]
    assert await sandbox.find_link(newcomer.database, "alink_0") is None


async def test_an_account_that_the_provider_restricts_takes_no_more_cards_and_the_brand_hears_of_it(
    shop: Shop,
) -> None:
    account = await account_of(shop)
    assert account is not None and account.is_ready
    async with shop.database.sandbox() as db:
        engine = sandbox.Engine(db, "")
        body = await sandbox._get_account(engine, account.account_ref, {})
        await sandbox._put_account(engine, body, is_active=False)
    async with shop.scope() as scope:
        await scope.db.execute(
            payments.update(PaymentAccount).values(created_at=scope.now - 2 * payments.LOOKED_AT_EACH)
        )
    await payments.tidy(shop.database, shop.tenant_id)
    await shop.jobs.run()
    assert not await may_take_cards(shop)
    async with shop.scope() as scope:
        query = payments.text("select data from livery.event where kind = 'PaymentAccountChanged'")
        (news,) = (await scope.db.execute(query)).scalars()
    assert news["is_ready"] is False


async def test_payouts_follow_the_schedule_that_was_asked_for(shop: Shop) -> None:
    for interval, days in (("weekly", ("tuesday",)), ("monthly", ("15",)), ("manual", ()), ("daily", ())):
        await onboarding.set_schedule(shop.database, shop.tenant_id, CLI, interval, days)
        account = await account_of(shop)
        assert account is not None
        assert (account.schedule["interval"], tuple(account.schedule["days"])) == (interval, days)
        await onboarding.observe(shop.database, shop.tenant_id)
        account = await account_of(shop)
        assert account is not None and tuple(account.schedule["days"]) == days


@pytest.mark.parametrize(
    ("interval", "days", "field"),
    [("hourly", (), "interval"), ("weekly", (), "weekday"), ("weekly", ("sunday",), "weekday"),
     ("monthly", ("32",), "month_day"), ("monthly", ("x",), "month_day"), ("monthly", ("²",), "month_day")],
)  # fmt: skip
async def test_a_schedule_that_cannot_be_is_refused_by_its_field(
    shop: Shop, interval: str, days: tuple[str, ...], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await onboarding.set_schedule(shop.database, shop.tenant_id, CLI, interval, days)
    assert [fault.field for fault in refused.value.faults] == [field]


async def test_who_has_no_account_has_no_schedule(shop: Shop) -> None:
    async with shop.scope() as scope:
        await scope.db.execute(delete(PaymentAccount))
    with pytest.raises(Refused) as refused:
        await onboarding.set_schedule(shop.database, shop.tenant_id, CLI, "daily", ())
    assert refused.value.code == "no_account"


async def test_a_provider_that_does_not_answer_is_told_on_the_page(shop: Shop, house: House) -> None:
    """Nothing has changed, and nobody meets an error page."""
    owner = await house.staff("alpha", shop.tenant_id)
    await owner.open("/payment-account")
    for path, form in (
        ("onboarding", {}), ("checks", {}), ("schedule", {"interval": "weekly", "weekday": "monday"}),
    ):  # fmt: skip
        await sandbox.set_faults(shop.database, [{"path": ".", "fault": "before", "times": 9}])
        answer = await owner.post(f"/payment-account/{path}", form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/payment-account")
        assert "did not answer" in (await owner.get("/payment-account")).text
    await sandbox.set_faults(shop.database, [])
    answer = await owner.post("/payment-account/schedule", {"interval": "weekly", "weekday": "sunday"})
    assert answer.status_code == 422 and "Choose a weekday" in answer.text
