"""Operators' accounts as Stripe allows them: its own risk and pages, or the platform's."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.billing import payments, reconciliation, sandbox
from app.billing.models import PaymentAccount
from app.kernel.errors import ConfigurationFault
from app.kernel.settings import load_settings
from app.reporting import jobs as reporting
from tests.billing.conftest import Shop
from tests.billing.test_fees import sell
from tests.billing.test_onboarding import account_of
from tests.surfaces.conftest import house
from tests.web import House, found_brand

__all__ = ["house"]
pytestmark = pytest.mark.anyio
DAY = 86_400


@pytest.fixture
async def ours(shop: Shop) -> AsyncIterator[Shop]:
    """A brand whose account was opened at the platform's risk."""
    settings = shop.database.settings.model_copy(update={"account_profile": "white_label"})
    shop.database.settings = settings
    payments.provider_of(settings).settings = settings  # pyright: ignore[reportAttributeAccessIssue]
    shop.tenant_id = await found_brand(shop.database, "beta")
    await payments.open_account(shop.database, shop.tenant_id)
    yield shop


async def opened(shop: Shop) -> PaymentAccount:
    account = await account_of(shop)
    assert account is not None
    return account


async def reconcile(shop: Shop) -> None:
    run = await reconciliation.reconcile(shop.database, shop.tenant_id, settles_within=timedelta(seconds=-5))
    assert run is not None and run.is_green


async def test_the_platform_is_billed_and_money_lies_there_for_seven_days(ours: Shop) -> None:
    account = await opened(ours)
    provider = payments.provider_of(ours.database.settings)
    seen = await provider.get_account(account.account_ref)
    assert seen.losses_borne_by == account.losses_borne_by == "application"
    assert (await provider.get_schedule(account.account_ref)).delay_days == 7
    payment = await sell(ours, 2000)
    assert (payment.captured_minor, payment.provider_fee_minor) == (2000, 0)
    assert "stripe_fee_expense" not in await ours.balances()
    for day, available in ((6, False), (8, True)):
        await sandbox.set_clock(ours.database, day * DAY)
        await reconcile(ours)
        books = await ours.balances()
        assert ("psp_pending" not in books) == available
    assert {"bank_in_transit", "bank"} & set(books)


async def test_a_refund_that_the_platform_would_have_to_pay_waits_until_there_is_money(ours: Shop) -> None:
    payment = await sell(ours, 2000)
    await sandbox.set_clock(ours.database, 9 * DAY)
    await reconcile(ours)  # all of it went to the bank
    async with ours.scope() as scope:
        await payments.refund(scope, payment.id, "broken", amount_minor=500)
    await ours.jobs.run()
    assert (await ours.ops(payment))[-1] == ("refund", "failed")
    assert not [one for one in ours.wire.calls if one[1] == "/v1/refunds"], "nobody was asked"
    second = await sell(ours, 2500)
    async with ours.scope() as scope:
        await payments.refund(scope, payment.id, "broken", amount_minor=500)
        await payments.refund(scope, second.id, "broken")  # all of it: the platform kept a part
    await ours.jobs.run()
    assert (await ours.read(payment.id)).refunded_minor == 500
    assert (await ours.ops(second))[-1] == ("refund", "failed")  # the rest of it is no longer there
    third = await sell(ours, 2500)
    async with ours.scope() as scope:
        await payments.refund(scope, third.id, "broken")  # all of the only money that came since
    await ours.jobs.run()
    assert (await ours.read(third.id)).refunded_minor == 2500


async def test_an_account_that_stands_keeps_its_own_and_the_console_says_whose_risk_it_is(
    shop: Shop, house: House
) -> None:
    assert (await opened(shop)).losses_borne_by == "stripe"
    admin = await house.admin()
    for word, is_ours in (("stripe", False), ("application", True)):
        async with shop.scope() as scope:
            account = await payments.get_own_account(scope)
            account.losses_borne_by = word
        await reporting.tenant_stats(shop.database, shop.tenant_id)
        page = (await admin.get("/exposure")).text
        assert ("at our risk" in page) == is_ours and ("The platform" in page) == is_ours


def test_any_other_profile_is_refused() -> None:
    with pytest.raises(ConfigurationFault, match="ACCOUNT_PROFILE"):
        load_settings({"LIVERY_ACCOUNT_PROFILE": "express"})
