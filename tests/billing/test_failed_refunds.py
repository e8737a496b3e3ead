"""A refund that a card's bank sends back weeks later: undone in the books, owed again, and paid in the end, once."""

import itertools
from collections.abc import AsyncIterator

import pytest

from app.billing import fees, payments, sandbox
from app.billing.models import Payment
from app.charging import settlement
from app.kernel.clock import utcnow
from app.kernel.ids import public_id
from tests.billing import test_refunds
from tests.billing.conftest import Shop
from tests.billing.invariants import money_faults
from tests.billing.test_reconciliation import run, sell, standing
from tests.billing.test_refunds import driver_page, kinds
from tests.web import CLI, House, open_house

pytestmark = pytest.mark.anyio
FAILS, PENDING = "4000000000005126", "4000000000007726"
HOUR = 3600


@pytest.fixture
async def house(shop: Shop) -> AsyncIterator[House]:
    async with open_house(shop.database.settings, shop.database) as opened:
        yield opened


async def give_back(shop: Shop, payment: Payment, minor: int | None = None) -> None:
    async with shop.scope() as scope:
        await payments.refund(scope, payment.id, "The charger was broken", amount_minor=minor)
    await shop.jobs.run()


@pytest.mark.parametrize("way", ["paid by other means", "tried again"])
async def test_a_refund_that_comes_back_is_owed_again_until_it_is_paid(
    shop: Shop, house: House, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Shop.pay, "__defaults__", (FAILS,))
        payment = await test_refunds.paid_session(shop)
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The charger was broken", amount_minor=200)
    await shop.jobs.run()
    before = await shop.balances()
    assert (await shop.read(payment.id)).refunded_minor == 200
    await sandbox.set_clock(shop.database, HOUR)
    told = await shop.tell(copies=2, reverse=True)
    assert any(told)
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert (payment.state, payment.refunded_minor, payment.refund_failed_minor) == ("captured", 0, 200)
    after = await shop.balances()
    assert after["driver_receivable"] == -200 and after["psp_pending"] == before["psp_pending"] + 200
    assert [op for op in await shop.ops(payment) if op[0] == "refund"] == [("refund", "failed")]
    assert await kinds(shop) == ["receipt", "receipt_reversal"]
    assert await money_faults(shop.database, shop.tenant_id, now=utcnow(), only=[payment.id]) == []
    assert "Your bank sent it back" in await driver_page(shop, house, payment)
    async with shop.scope() as scope:
        ((waits, minor),) = await payments.list_refused_refunds(scope)
        assert (waits.id, minor) == (payment.id, 200)
    api = await house.api("alpha", shop.tenant_id, "all")
    (shown,) = (await api.get("/api/v1/payments")).json()["data"][0]["refunds"]
    assert (shown["state"], shown["failure"]) == ("failed", "expired_or_canceled_card")
    owner, path = await house.staff("alpha", shop.tenant_id), f"/payments/{public_id('payment', payment.id)}"
    page = (await owner.open(path)).text
    assert "€2.00 lies in your account again: the card is no longer valid." in page and "Mark as paid" in page
    assert path in (await owner.open("/payments")).text
    if way == "tried again":
        await sandbox.set_clock(shop.database, 0)  # and the second try arrives
        monkeypatch.setattr(sandbox, "REFUNDING", {})
        await owner.post(f"{path}/refund-retries", {})
    else:
        await owner.post(f"{path}/repayments", {"reference": " "})
        assert (await shop.read(payment.id)).repaid_minor == 0
        for _twice in range(2):
            await owner.post(f"{path}/repayments", {"reference": "SEPA 4711"})
    await shop.jobs.run()
    payment = await shop.look(payment)
    back = (0, 200) if way == "paid by other means" else (200, 0)
    assert (payment.refunded_minor, payment.repaid_minor) == back
    books = await shop.balances()
    assert "driver_receivable" not in books and books.get("bank", 0) == -payment.repaid_minor
    assert await money_faults(shop.database, shop.tenant_id, now=utcnow(), only=[payment.id]) == []
    said = await driver_page(shop, house, payment)
    assert ("SEPA 4711" in said) == (way == "paid by other means")
    assert "lies in your account again" not in (await owner.open(path)).text
    assert (await run(shop)).is_green
    async with shop.scope() as scope:
        assert await payments.list_refused_refunds(scope) == []
        with pytest.raises(payments.Refused):
            await payments.record_repayment(scope, payment.id, "a third time")


async def test_all_of_a_payment_that_comes_back_is_given_again_by_nobody_but_staff(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its papers say that nothing is owed any more: that is no reason to ask the dead card by itself once more."""
    with monkeypatch.context() as patched:
        patched.setattr(Shop.pay, "__defaults__", (FAILS,))
        payment = await test_refunds.paid_session(shop)
    taken = payment.captured_minor
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The charger was broken")
    await shop.jobs.run()
    await sandbox.set_clock(shop.database, HOUR)
    await shop.tell()
    for _ in range(2):
        await shop.jobs.run()
        payment = await shop.look(payment)
    assert [op for op in await shop.ops(payment) if op[0] == "refund"] == [("refund", "failed")]
    async with shop.scope() as scope:
        assert (await payments.find_back(scope, payment)).refused_minor == taken
        row = await payments.record_repayment(scope, payment.id, "SEPA 4711")
    assert row.amount_minor == taken


async def test_the_platforms_fee_goes_back_with_the_retry_of_a_refund_that_was_refused_and_once(
    shop: Shop,
) -> None:
    """Nothing had gone back before. Of one that came back it had."""
    await fees.plan_fee(
        shop.database, CLI, shop.tenant_id, percent="5", fixed="0.10", valid_from=f"{utcnow():%Y-%m-%d}",
        reason="agreed", is_returned=True,
    )  # fmt: skip
    good, fails = await test_refunds.paid_session(shop), await sell(shop, 2000, FAILS)
    kept = (await shop.balances())["platform_fee_expense"]
    await sandbox.set_faults(
        shop.database, [{"path": r"POST /v1/refunds", "fault": "balance_insufficient", "times": 1}]
    )
    async with shop.scope() as scope:
        await settlement.refund(scope, good.id, "The charger was broken")
    await shop.jobs.run()
    assert (await shop.balances())["platform_fee_expense"] == kept
    async with shop.scope() as scope:
        await payments.refund_again(scope, good.id)
    await shop.jobs.run()
    await shop.look(good)
    assert (await shop.balances())["platform_fee_expense"] == kept - good.fee_minor
    await give_back(shop, fails)
    await sandbox.set_clock(shop.database, HOUR)
    await shop.look(fails)
    async with shop.scope() as scope:
        op = await payments.refund(scope, fails.id, "Once more")
        assert "returns_fee" not in op.request
    assert kept == good.fee_minor + fails.fee_minor and "platform_fee_expense" not in await shop.balances()


async def test_without_any_news_the_providers_books_are_the_first_to_tell(shop: Shop) -> None:
    """Ours and one that was made at the provider itself; and one that is only pending fails nothing."""
    ours, theirs, pending = [await sell(shop, 2400, card) for card in (FAILS, FAILS, PENDING)]
    await give_back(shop, ours, 400)
    await give_back(shop, pending, 100)
    await payments.provider_of(shop.database.settings).refund(
        theirs.account_ref, theirs.provider_ref or "", amount_minor=300, reason="by hand", key="hand"
    )
    assert (await shop.look(theirs)).refunded_outside_minor == 300
    assert (await run(shop)).is_green
    await sandbox.set_clock(shop.database, HOUR)
    made = await run(shop)
    assert (made.is_green, await standing(shop)) == (True, {})
    ours, theirs, pending = [await shop.read(one.id) for one in (ours, theirs, pending)]
    assert (ours.refunded_minor, ours.refund_failed_minor) == (0, 400)
    assert (theirs.refunded_minor, theirs.refunded_outside_minor, theirs.refund_failed_minor) == (0, 0, 300)
    assert (pending.refunded_minor, pending.refund_failed_minor) == (100, 0)
    await sandbox.set_clock(shop.database, 4 * 24 * HOUR)
    assert (await run(shop)).is_green
    assert not (await shop.balances()).keys() & {"psp_pending", "psp_available"}


async def test_a_lost_answer_to_a_refund_that_then_fails_is_booked_as_both(shop: Shop) -> None:
    payment = await sell(shop, 2400, FAILS)
    await sandbox.set_faults(shop.database, [{"path": "POST /v1/refunds", "fault": "after"}])
    async with shop.scope() as scope:
        op = await payments.refund(scope, payment.id, "gone wrong", amount_minor=500)
    with pytest.raises(payments.OutcomeUnknown):
        await payments.run_op(shop.database, shop.tenant_id, op.id)
    await sandbox.set_clock(shop.database, HOUR)
    await shop.look(payment)
    await shop.jobs.run()
    assert (await shop.ops(payment))[-1] == ("refund", "failed")
    assert [path for _m, path, _a in shop.wire.calls].count("/v1/refunds") == 1
    assert (await run(shop)).is_green and (await shop.balances()).get("driver_receivable", 0) == 0


def test_news_of_refunds_and_of_their_failure_end_the_same_in_any_order() -> None:
    seen = [
        payments.Observation(
            provider_ref="pi", state="captured", captured_minor=1000, refunded_minor=back, refund_failed_minor=failed
        )
        for back, failed in ((0, 0), (400, 0), (0, 400), (600, 400))
    ]  # fmt: skip
    for order in itertools.permutations([*seen, seen[1]]):
        known = payments.Known(state="authorized")
        for one in order:
            known = payments.merge(known, one)
        assert (known.state, known.refunded_minor, known.refund_failed_minor) == (
            "partially_refunded", 600, 400,
        ), order  # fmt: skip
