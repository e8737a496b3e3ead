"""The adapter against a provider: our sandbox always, and Stripe itself for whoever has a key of its test mode.

    STRIPE_SECRET_KEY=sk_test_… LIVERY_STRIPE_ACCOUNT=acct_… pytest -m stripe_live

The account is a connected one of that key's platform, onboarded with test data so that it takes cards. The same
promises are kept by both, so that a difference between them is one of the sandbox's. A live key is refused.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import stripe

from app.billing import payments, sandbox
from app.billing.provider import Observation, Provider, Rejected
from app.billing.stripe_connect import StripeConnect
from app.kernel.settings import Settings
from tests.billing.conftest import ASKS, GOOD, Shop, jobs, shop

__all__ = ["jobs", "shop"]
pytestmark = pytest.mark.anyio
DECLINED_LATER = "4000000000000341"
# Stripe's names of the same cards (docs.stripe.com/testing).
METHODS = {
    GOOD: "pm_card_visa", ASKS: "pm_card_authenticationRequired", DECLINED_LATER: "pm_card_chargeCustomerFail",
}  # fmt: skip
NEEDED = "STRIPE_SECRET_KEY (sk_test_…) and LIVERY_STRIPE_ACCOUNT (acct_…) are not set"


@dataclass
class Counterpart:
    provider: Provider
    account: str
    save_card: Callable[[str, str], Awaitable[str]]  # (customer, number) -> the card's reference

    async def ask(self, number: str = GOOD, minor: int = 3000) -> Observation:
        """Not confirmed yet: nothing is held."""
        customer = await self.provider.create_customer(
            self.account, email="driver@a.example", metadata={}, key=f"cus:{uuid4()}"
        )
        return await self.provider.create_payment(
            self.account, customer=customer, card=await self.save_card(customer, number), amount_minor=minor,
            currency="EUR", title="Charging at Harbour", metadata={"payment": "test"}, key=f"pi:{uuid4()}",
        )  # fmt: skip

    async def hold(self, minor: int = 3000) -> Observation:
        asked = await self.ask(minor=minor)
        return await self.provider.confirm_payment(self.account, asked.provider_ref, key=f"conf:{uuid4()}")


@pytest.fixture(params=["sandbox", pytest.param("stripe", marks=pytest.mark.stripe_live)])
async def counterpart(request: pytest.FixtureRequest, shop: Shop) -> AsyncIterator[Counterpart]:
    if request.param == "stripe":
        yield _stripe(shop.database.settings)
        return
    provider = payments.provider_of(shop.database.settings)
    async with shop.scope() as scope:
        own = await payments.find_own_account(scope)
    assert own is not None
    account = own.account_ref

    async def save_card(customer: str, number: str) -> str:
        page = await provider.create_setup(
            account, customer=customer, currency="EUR", success_url="http://a.localhost/s",
            cancel_url="http://a.localhost/c", language="en", metadata={}, key=f"setup:{uuid4()}",
        )  # fmt: skip
        said = await sandbox.pay_checkout(shop.database, account, page.ref, number, "")
        if said["status"] == "authenticate":
            await sandbox.authenticate_checkout(shop.database, account, page.ref, succeeds=True)
        card = (await provider.get_setup(account, page.ref)).card
        assert card is not None
        return card.ref

    yield Counterpart(provider, account, save_card)


def _stripe(settings: Settings) -> Counterpart:
    key, account = os.environ.get("STRIPE_SECRET_KEY", ""), os.environ.get("LIVERY_STRIPE_ACCOUNT", "")
    if not key or not account:
        pytest.skip(NEEDED)
    if "_test_" not in key:
        pytest.fail("STRIPE_SECRET_KEY is no key of the test mode: nothing was asked of Stripe")
    real = settings.model_copy(update={"stripe_secret_key": key})
    client = stripe.StripeClient(key, stripe_version=sandbox.API_VERSION)

    async def save_card(customer: str, number: str) -> str:
        options: stripe.RequestOptions = {"stripe_account": account}
        made = await client.v1.payment_methods.attach_async(METHODS[number], {"customer": customer}, options)
        return made.id

    return Counterpart(StripeConnect(real), account, save_card)


async def test_less_than_the_hold_is_taken_and_a_part_of_that_given_back_once(
    counterpart: Counterpart,
) -> None:
    since = datetime.now(UTC) - timedelta(minutes=5)
    provider, account = counterpart.provider, counterpart.account
    held = await counterpart.hold(3000)
    ref = held.provider_ref
    assert (held.state, held.hold_minor, held.captured_minor) == ("authorized", 3000, 0)
    assert ref in [one.ref for one in await provider.list_holds(account, since)]
    key = f"cap:{uuid4()}"
    for _ in range(2):  # the answer was lost: the same key is the same capture
        taken = await provider.capture(account, ref, amount_minor=1234, fee_minor=0, key=key)
        assert (taken.state, taken.captured_minor) == ("captured", 1234)
    key = f"ref:{uuid4()}"
    refunds = {
        await provider.refund(account, ref, amount_minor=234, reason="broken", key=key, marked="one")
        for _ in range(2)
    }
    seen = await provider.get_payment(account, ref)
    assert len(refunds) == 1 and seen.refunded_minor == 234  # the released rest of the hold is no refund
    assert [one.marked for one in seen.refunds if one.marked] == ["one"]
    with pytest.raises(Rejected):
        await provider.refund(account, ref, amount_minor=5000, reason="too much", key=f"ref:{uuid4()}")
    booked = [
        one for one in await provider.list_balance_txns(account, since) if one.charge_ref == seen.charge_ref
    ]
    assert sum(one.amount_minor for one in booked) == 1000
    assert {"charge", "refund"} <= {one.category for one in booked}


async def test_a_hold_that_is_let_go_can_not_be_taken_any_more(counterpart: Counterpart) -> None:
    provider, account = counterpart.provider, counterpart.account
    ref = (await counterpart.hold()).provider_ref
    gone = await provider.cancel(account, ref, key=f"can:{uuid4()}")
    assert (gone.state, gone.captured_minor) == ("canceled", 0)
    with pytest.raises(Rejected):
        await provider.capture(account, ref, amount_minor=100, fee_minor=0, key=f"cap:{uuid4()}")


@pytest.mark.parametrize(
    ("number", "code"), [(ASKS, "authentication_required"), (DECLINED_LATER, "card_declined")]
)
async def test_a_saved_card_that_gives_nothing_says_why_and_holds_nothing(
    counterpart: Counterpart, number: str, code: str
) -> None:
    provider, account = counterpart.provider, counterpart.account
    asked = await counterpart.ask(number)
    with pytest.raises(Rejected) as refused:
        await provider.confirm_payment(account, asked.provider_ref, key=f"conf:{uuid4()}")
    assert refused.value.code == code
    seen = await provider.get_payment(account, asked.provider_ref)
    assert seen.state not in ("authorized", "captured") and seen.captured_minor == 0


async def test_a_payment_page_is_made_read_and_closed(counterpart: Counterpart) -> None:
    provider, account = counterpart.provider, counterpart.account
    page = await provider.create_checkout(
        account, amount_minor=3000, currency="EUR", title="Charging at Harbour", success_url="https://a.example/s",
        cancel_url="https://a.example/c", expires_at=datetime.now(UTC) + timedelta(minutes=40),
        metadata={"payment": "t"}, email="driver@a.example", language="de", key=f"co:{uuid4()}",
    )  # fmt: skip
    assert page.status == "open" and page.url
    assert (await provider.get_checkout(account, page.ref)).status == "open"
    assert (await provider.expire_checkout(account, page.ref, key=f"exp:{uuid4()}")).status == "expired"


async def test_the_account_is_read_as_the_operator_left_it(counterpart: Counterpart) -> None:
    provider, account = counterpart.provider, counterpart.account
    seen = await provider.get_account(account)
    assert seen.ref == account and seen.is_ready and not seen.is_live
    assert set(await provider.get_balance(account)) <= {
        "EUR",
        "USD",
        "CHF",
        "GBP",
        "DKK",
        "SEK",
        "NOK",
        "PLN",
        "CZK",
    }
    schedule = await provider.get_schedule(account)
    assert schedule.interval in ("manual", "daily", "weekly", "monthly")
    assert isinstance(await provider.list_payouts(account, datetime.now(UTC) - timedelta(days=30)), list)
