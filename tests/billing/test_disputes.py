"""A payer's bank asks money back: seen however we hear of it, in the books once, answered once, and paid back by nobody
else meanwhile."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import stripe
from sqlalchemy import select, text, update

from app.billing import disputes, payments, sandbox
from app.billing.disputes import Known
from app.billing.models import Dispute, Payment
from app.charging import settlement
from app.charging.models import CDR
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from tests.billing import test_refunds
from tests.billing.conftest import ASKS, Shop
from tests.billing.test_refunds import body, driver_page
from tests.web import House, open_house

pytestmark = pytest.mark.anyio
DISPUTES, INQUIRES = "4000000000000259", "4000000000001976"
FEE = 2000


@pytest.fixture
async def house(shop: Shop) -> AsyncIterator[House]:
    async with open_house(shop.database.settings, shop.database) as opened:
        yield opened


async def disputed(shop: Shop, card: str = DISPUTES) -> Payment:
    """10.00 were taken, and the bank has taken them back; nobody here has heard of it."""
    payment = await shop.hold()
    await shop.pay(payment, card)
    await shop.look(payment)
    await shop.charge(1000)
    await shop.jobs.run()
    return await shop.read(payment.id)


async def disputed_session(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Payment:
    """The same of a session of 5.95 with its papers."""
    with monkeypatch.context() as patched:
        patched.setattr(Shop.pay, "__defaults__", (DISPUTES,))
        return await test_refunds.paid_session(shop)


async def row_of(shop: Shop) -> Dispute:
    async with shop.scope() as scope:
        return (await scope.db.execute(select(Dispute))).scalar_one()


async def decide(shop: Shop, outcome: str) -> None:
    (account, found), *_more = await sandbox.list_disputes(shop.database)
    await sandbox.decide_dispute(shop.database, account, found["id"], outcome)


async def hear(shop: Shop, **how: Any) -> None:
    await shop.tell(**how)
    await shop.jobs.run()


async def see(shop: Shop) -> None:
    """Where a front door runs, it tells the news itself, or tries to: a look is the same to us."""
    async with shop.scope() as scope:
        rows = list((await scope.db.execute(select(Payment))).scalars())
    for row in rows:
        await shop.look(row)
    await shop.jobs.run()


async def provider_net(shop: Shop, payment: Payment) -> int:
    """Σ net of the account's own books at the provider."""
    query = text("select sum((body->>'net')::bigint) from sandbox.object"
                 " where kind = 'balance_transaction' and account = :account")  # fmt: skip
    async with shop.database.sandbox() as db:
        return int((await db.execute(query, {"account": payment.account_ref})).scalar_one())


async def check_books(shop: Shop, payment: Payment) -> dict[str, int]:
    """I4 and I13; what is not zero in the books."""
    payment = await shop.read(payment.id)
    lost = payment.disputed_minor if payment.dispute == "lost" else 0
    assert payment.refunded_minor + lost <= payment.captured_minor
    books = await shop.balances()
    assert books.get("psp_pending", 0) == await provider_net(shop, payment)
    return books


@pytest.mark.parametrize("how", [{}, {"copies": 3, "reverse": True}])
async def test_a_dispute_is_in_the_books_once_however_its_news_come(shop: Shop, how: dict[str, Any]) -> None:
    payment = await disputed(shop)
    await hear(shop, **how)
    payment, row = await shop.read(payment.id), await row_of(shop)
    assert (payment.state, payment.dispute, payment.disputed_minor) == ("captured", "open", 1000)
    assert (row.state, row.reason, row.amount_minor, row.fee_minor) == (
        "needs_response",
        "fraudulent",
        1000,
        FEE,
    )
    assert row.evidence_due_by is not None and row.evidence_due_by > row.opened_at
    books = await check_books(shop, payment)
    assert (books["dispute_receivable"], books["dispute_fee"]) == (1000, FEE)
    await decide(shop, "won")
    await hear(shop, **how)
    await hear(shop)
    books = await check_books(shop, payment)
    assert "dispute_receivable" not in books and books["dispute_fee"] == FEE
    assert (await shop.read(payment.id)).dispute == "won"


async def test_a_lost_dispute_is_a_loss_once(shop: Shop) -> None:
    payment = await disputed(shop)
    await hear(shop)
    await decide(shop, "lost")
    await hear(shop, copies=2)
    await shop.look(payment)
    payment = await shop.read(payment.id)
    assert (payment.dispute, payment.disputed_minor) == ("lost", 1000)
    books = await check_books(shop, payment)
    assert (books["dispute_loss"], books["dispute_fee"]) == (1000, FEE) and "dispute_receivable" not in books


async def test_an_end_that_is_heard_of_first_is_booked_whole(shop: Shop) -> None:
    payment = await disputed(shop)
    await decide(shop, "won")
    await hear(shop, reverse=True)
    assert (await row_of(shop)).state == "won"
    books = await check_books(shop, payment)
    assert not books.keys() & {"dispute_receivable", "dispute_loss"} and books["dispute_fee"] == FEE


async def test_the_janitor_finds_a_dispute_that_nobody_told_us_of(shop: Shop) -> None:
    await sandbox.set_webhook_plan(shop.database, {"drop": True})
    payment = await disputed(shop)
    assert await shop.tell() == [] and (await shop.read(payment.id)).dispute == "none"
    for _ in range(2):
        await payments.find_disputes(shop.database, shop.tenant_id)
    assert (await shop.read(payment.id)).dispute == "open"
    await decide(shop, "lost")
    await payments.tidy(shop.database, shop.tenant_id)
    await shop.jobs.run()
    assert (await row_of(shop)).state == "needs_response"  # it was looked at just now
    async with shop.scope() as scope:
        await scope.db.execute(update(Dispute).values(observed_at=Dispute.observed_at - timedelta(hours=2)))
    await payments.tidy(shop.database, shop.tenant_id)
    await shop.jobs.run()
    assert (await row_of(shop)).state == "lost"
    assert (await check_books(shop, payment))["dispute_loss"] == 1000


async def test_a_dispute_of_the_accounts_other_money_is_not_ours(shop: Shop) -> None:
    payment = await disputed(shop)
    async with shop.scope() as scope:
        await scope.db.execute(update(Payment).values(provider_ref="pi_of_ours"))
    await payments.find_disputes(shop.database, shop.tenant_id)
    async with shop.scope() as scope:
        assert (await scope.db.execute(select(Dispute))).first() is None
    assert (await shop.read(payment.id)).dispute == "none"


async def test_who_does_not_answer_in_time_has_lost(shop: Shop) -> None:
    payment = await disputed(shop)
    await hear(shop)
    await sandbox.set_clock(shop.database, 21 * 86400)
    await shop.look(payment)
    assert (await row_of(shop)).state == "lost"
    assert (await check_books(shop, payment))["dispute_loss"] == 1000


async def test_an_inquiry_takes_no_money_until_it_becomes_a_dispute(shop: Shop) -> None:
    payment = await disputed(shop, INQUIRES)
    await hear(shop)
    assert (await row_of(shop)).state == "warning_needs_response"
    assert (await shop.read(payment.id)).dispute == "none"
    assert "dispute_receivable" not in await check_books(shop, payment)
    async with shop.scope() as scope:
        await payments.refund(scope, payment.id, "to keep the peace", amount_minor=100)
    await shop.jobs.run()
    assert (await shop.look(payment)).refunded_minor == 100
    await decide(shop, "lost")
    await hear(shop)
    assert (await shop.read(payment.id)).dispute == "open"
    async with shop.scope() as scope:
        kinds = text("select count(*) from livery.event where kind = 'DisputeOpened'")
        assert (await scope.db.execute(kinds)).scalar_one() == 2


async def test_a_disputed_payment_is_given_back_by_nobody_else(
    shop: Shop, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await disputed_session(shop, monkeypatch)
    await see(shop)
    api = await house.api("alpha", shop.tenant_id, "all")
    answer = await api.send("POST", "/api/v1/refunds", json=body(payment))
    assert (answer.status_code, answer.json()["code"]) == (409, "charge_disputed")
    owner = await house.staff("alpha", shop.tenant_id)
    address = f"/payments/{public_id('payment', payment.id)}"
    shown = (await owner.open(address)).text
    assert "Give it back" not in shown and "nothing of it can be given back here" in shown
    await owner.post(f"{address}/refunds", {"reason": "all the same", "amount": "1.00"})
    assert "is disputed at their bank" in (await owner.open(address)).text
    async with shop.scope() as scope:
        (cdr,) = (await scope.db.execute(select(CDR))).scalars()
        with pytest.raises(Refused) as refused:
            await settlement.credit(scope, cdr.id, "all the same", energy_wh=1)
    assert refused.value.code == "charge_disputed"
    assert await test_refunds.refunds(shop, payment.id) == []
    await decide(shop, "won")
    await see(shop)
    assert (await api.send("POST", "/api/v1/refunds", json=body(payment))).status_code == 201
    await shop.jobs.run()
    assert (await shop.look(payment)).state == "refunded"
    assert "driver_receivable" not in await check_books(shop, payment)


async def test_a_refund_that_the_dispute_was_quicker_than_follows_when_it_is_won(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody had heard of the dispute: the credit note stands, the provider refuses, and the money comes back to us."""
    payment = await disputed_session(shop, monkeypatch)
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The charger was broken")
    await shop.jobs.run()
    assert await test_refunds.refunds(shop, payment.id) == ["failed"]
    async with shop.scope() as scope:
        with pytest.raises(Refused):
            await payments.refund_again(scope, payment.id)
    await decide(shop, "won")
    await hear(shop)
    assert await test_refunds.refunds(shop, payment.id) == ["failed", "succeeded"]
    books = await check_books(shop, payment)
    assert not books.keys() & {"driver_receivable", "dispute_receivable", "dispute_loss"}


async def test_what_a_credit_note_owed_the_payer_is_no_loss_when_the_bank_gives_it_to_them(
    shop: Shop, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await disputed_session(shop, monkeypatch)
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The charger was broken")
    await shop.jobs.run()
    await decide(shop, "lost")
    await see(shop)
    books = await check_books(shop, payment)
    assert not books.keys() & {"driver_receivable", "dispute_receivable", "dispute_loss", "revenue"}
    async with shop.scope() as scope:
        assert await payments.list_refused_refunds(scope) == []
    owner = await house.staff("alpha", shop.tenant_id)
    assert "Try again" not in (await owner.open(f"/payments/{public_id('payment', payment.id)}")).text


async def test_staff_see_what_speaks_for_them_and_send_it_once(
    shop: Shop, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await disputed_session(shop, monkeypatch)
    await see(shop)
    await shop.jobs.run()
    owner = await house.staff("alpha", shop.tenant_id)
    for path in ("/", "/payments"):
        assert "A payer disputes a payment" in (await owner.open(path)).text
    address = f"/disputes/{public_id('dispute', (await row_of(shop)).id)}"
    listed = (await owner.open("/disputes")).text
    assert address in listed and "The payer says that it was not them" in listed
    shown = (await owner.open(address)).text
    for told in (
        "€5.95 disputed",
        "10.000 kWh",
        "driver@a.example",
        "The receipt was mailed to",
        "Answer by",
    ):
        assert told in shown, told
    assert (await owner.post(f"{address}/evidence", {"text": " "})).status_code == 422
    await owner.open(address)
    form = {"text": "They stood there and charged."}
    answers = await asyncio.gather(*(owner.post(f"{address}/evidence", form) for _ in range(3)))
    assert sorted(one.status_code for one in answers) == [303, 409, 409]
    await shop.jobs.run()
    row = await row_of(shop)
    assert (row.state, row.submitted_at is not None) == ("under_review", True)
    [(_account, sent)] = await sandbox.list_disputes(shop.database)
    assert sent["evidence"]["uncategorized_text"] == "They stood there and charged."
    assert sent["evidence"]["customer_email_address"] == "driver@a.example"
    assert "10.000 kWh" in sent["evidence"]["product_description"]
    assert sent["evidence_details"]["submission_count"] == 1
    shown = (await owner.open(address)).text
    assert "They stood there and charged." in shown and "Send to the bank" not in shown
    viewer_sees = await house.api("alpha", shop.tenant_id, "invoices.view")
    (told,) = (await viewer_sees.get("/api/v1/disputes")).json()["data"]
    assert (told["state"], told["amount"]["amount"], told["fee"]["amount"]) == (
        "under_review",
        "5.95",
        "20.00",
    )
    assert (await viewer_sees.get(f"/api/v1/disputes/{told['id']}")).json() == told
    assert "Your receipt is ready" in await driver_page(shop, house, payment)


async def test_a_loss_is_accepted_only_when_it_is_meant(shop: Shop, house: House) -> None:
    payment = await disputed(shop)
    await see(shop)
    owner = await house.staff("alpha", shop.tenant_id)
    address = f"/disputes/{public_id('dispute', (await row_of(shop)).id)}"
    await owner.open(address)
    await owner.post(f"{address}/acceptances", {})
    assert "Confirm that the money stays" in (await owner.open(address)).text
    await owner.post(f"{address}/acceptances", {"sure": "on"})
    await owner.post(f"{address}/acceptances", {"sure": "on"})
    await shop.jobs.run()
    assert (await row_of(shop)).state == "lost"
    assert await shop.ops(payment) == [("checkout_create", "succeeded"), ("capture", "succeeded"),
                                       ("dispute_accept", "succeeded")]  # fmt: skip
    assert (await check_books(shop, payment))["dispute_loss"] == 1000
    shown = (await owner.open(address)).text
    assert "Lost: €10.00 stays with the payer" in shown and "Accept the loss" not in shown


@pytest.mark.parametrize("fault", ["after", "500"])
async def test_an_answer_whose_answer_was_lost_is_given_once(shop: Shop, fault: str) -> None:
    await disputed(shop)
    await hear(shop)
    await sandbox.set_faults(shop.database, [{"path": r"POST /v1/disputes/\w+$", "fault": fault}])
    async with shop.scope() as scope:
        op = await payments.send_evidence(
            scope, (await row_of(shop)).id, {"uncategorized_text": "They were here."}
        )
    await shop.jobs.run()
    async with shop.scope() as scope:
        assert (await scope.db.get_one(payments.PaymentOp, (shop.tenant_id, op.id))).state == "succeeded"
    [(_account, sent)] = await sandbox.list_disputes(shop.database)
    assert sent["evidence_details"]["submission_count"] == 1
    assert (await row_of(shop)).state == "under_review"


async def test_an_answer_that_comes_too_late_says_so(shop: Shop, house: House) -> None:
    await disputed(shop)
    await see(shop)
    async with shop.scope() as scope:
        await payments.send_evidence(
            scope, (await row_of(shop)).id, {"uncategorized_text": "They were here."}
        )
    await decide(shop, "lost")
    await shop.jobs.run()
    assert (await row_of(shop)).state == "lost"
    owner = await house.staff("alpha", shop.tenant_id)
    shown = (await owner.open(f"/disputes/{public_id('dispute', (await row_of(shop)).id)}")).text
    assert "The provider refused the answer" in shown
    async with shop.scope() as scope:
        with pytest.raises(Refused) as refused:
            await payments.accept_dispute(scope, (await row_of(shop)).id)
    assert refused.value.code == "not_answerable"


async def test_the_team_is_told_by_mail_when_a_dispute_opens_and_how_it_ends(shop: Shop) -> None:
    await disputed(shop)
    await hear(shop, copies=2)
    await decide(shop, "won")
    await hear(shop, copies=2)
    async with shop.scope() as scope:
        rows = await scope.db.execute(
            text("select subject from livery.mail where kind = 'money_news' order by id")
        )
        assert list(rows.scalars()) == ["A payer disputes €10.00", "A dispute over €10.00 is won"]


async def test_the_bank_says_who_paid_where_it_was_asked(shop: Shop) -> None:
    payment = await shop.hold()
    assert (await shop.pay(payment, ASKS))["status"] == "authenticate"
    await sandbox.authenticate_checkout(
        shop.database, payment.account_ref, payment.checkout_ref or "", succeeds=True
    )
    assert (await shop.look(payment)).three_d_secure == "authenticated"


async def test_the_panel_decides_a_dispute_of_the_sandbox(shop: Shop, house: House) -> None:
    payment = await disputed(shop)
    admin = await house.admin()
    assert "Needs response" in (await admin.open("/sandbox")).text
    [(account, found)] = await sandbox.list_disputes(shop.database)
    form = {"account": account, "dispute": found["id"]}
    assert (await admin.post("/sandbox/disputes", {**form, "outcome": "drawn"})).status_code == 422
    assert (
        await admin.post("/sandbox/disputes", {**form, "dispute": "du_1", "outcome": "won"})
    ).status_code == 404
    assert (await admin.post("/sandbox/disputes", {**form, "outcome": "won"})).status_code == 303
    await see(shop)
    assert (await shop.read(payment.id)).dispute == "won"
    assert "Needs response" not in (await admin.open("/sandbox")).text


# -- the wire ----------------------------------------------------------------------------------------------------------


async def test_the_sandboxs_disputes_are_as_stripe_has_them(shop: Shop) -> None:
    """Each answer is held against the SDK's own definitions by `ContractWire`."""
    first = await disputed(shop)
    await disputed(shop)
    provider: Any = payments.provider_of(shop.database.settings)
    wire, options = provider._client.v1.disputes, {"stripe_account": first.account_ref}
    listed = await wire.list_async({"limit": 1}, options)
    assert listed.has_more and len(listed.data) == 1
    more = await wire.list_async({"limit": 1, "starting_after": listed.data[0].id}, options)
    assert not more.has_more and more.data[0].id != listed.data[0].id
    of_one = await wire.list_async({"charge": first.charge_ref}, options)
    assert [one.payment_intent for one in of_one.data] == [first.provider_ref]
    assert (await wire.list_async({"created": {"gte": of_one.data[0].created + 3600}}, options)).data == []
    ref = of_one.data[0].id
    staged = await wire.update_async(ref, {"evidence": {"uncategorized_text": "a"}, "submit": False}, options)
    assert (staged.status, staged.evidence_details.has_evidence) == ("needs_response", True)
    decided = await wire.update_async(ref, {"evidence": {"uncategorized_text": "winning_evidence"}}, options)
    assert decided.status == "won"
    txns = [(txn.type, txn.reporting_category, txn.amount, txn.fee) for txn in decided.balance_transactions]
    assert txns == [("adjustment", "dispute", -1000, FEE), ("adjustment", "dispute_reversal", 1000, 0)]
    assert (await wire.retrieve_async(ref, {}, options)).status == "won"
    for call in (
        wire.close_async(ref, {}, options),
        wire.update_async(ref, {"metadata": {"a": "b"}}, options),
    ):
        with pytest.raises(stripe.InvalidRequestError):
            await call
    with pytest.raises(stripe.PermissionError):
        await wire.retrieve_async(ref, {}, {"stripe_account": "acct_of_somebody"})


# -- merging -----------------------------------------------------------------------------------------------------------

LIFE = [
    Known(state="warning_needs_response"), Known(state="needs_response", is_withdrawn=True, fee_minor=FEE),
    Known(state="under_review", is_withdrawn=True, fee_minor=FEE),
    Known(state="lost", is_withdrawn=True, fee_minor=FEE),
    Known(state="won", is_withdrawn=True, is_reinstated=True, fee_minor=0),
]  # fmt: skip


async def test_a_dispute_ends_the_same_in_whatever_order_it_is_seen() -> None:
    for order in itertools.permutations(LIFE):
        known = order[0]
        for seen in (*order[1:], *order[::2]):
            known = disputes.merge(known, seen)
            assert disputes.merge(known, seen) == known
        assert known == LIFE[-1]


async def test_an_appeal_that_is_won_takes_the_loss_back(shop: Shop) -> None:
    payment = await disputed(shop)
    provider = payments.provider_of(shop.database.settings)
    (seen,) = await provider.list_disputes(payment.account_ref, payment_ref=payment.provider_ref or "")

    async def take(**changes: Any) -> dict[str, int]:
        values = {name: getattr(seen, name) for name in seen.__slots__} | changes
        async with shop.scope() as scope:
            locked = await payments.lock(scope, payment.id)
            await payments.take_disputes(scope, locked, [payments.DisputeSeen(**values)])
        return await shop.balances()

    assert (await take(state="lost"))["dispute_loss"] == 1000
    books = await take(state="won", is_reinstated=True, fee_minor=0)
    assert not books.keys() & {"dispute_loss", "dispute_receivable", "dispute_fee"}
    assert await take(state="lost") == books
