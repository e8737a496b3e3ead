"""Above a limit a refund waits for a second member of staff, and two who decide at once give back once."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, text

from app.billing import payments
from app.billing.models import Payment, RefundRequest
from app.charging import refunds, settlement
from app.charging.models import CDR
from app.identity import service as identity
from app.kernel.errors import Invalid
from app.kernel.ids import public_id
from tests.billing.conftest import Shop
from tests.billing.test_partial_refunds import grosses
from tests.billing.test_refunds import body, give_back_outside, paid_session
from tests.billing.test_refunds import refunds as refund_states
from tests.web import House, Visitor, open_house

pytestmark = pytest.mark.anyio
BRITTA = "britta@nordlicht-laden.example"


@pytest.fixture
async def house(shop: Shop) -> AsyncIterator[House]:
    async with shop.scope() as scope:
        await identity.invite_staff(scope, email=BRITTA, name="Britta Lorenzen", role="accountant")
        account = await payments.find_account(scope)
        assert account is not None
        account.refund_limit_minor = 200
    async with open_house(shop.database.settings, shop.database) as opened:
        yield opened


def page_of(payment: Payment) -> str:
    return f"/payments/{public_id('payment', payment.id)}"


async def ask(visitor: Visitor, payment: Payment, amount: str = "") -> None:
    await visitor.open(page_of(payment))
    form = {"reason": "The cable was short", **({"amount": amount} if amount else {})}
    assert (await visitor.post(f"{page_of(payment)}/refunds", form)).status_code == 303


async def request_of(shop: Shop) -> RefundRequest:
    async with shop.scope() as scope:
        query = select(RefundRequest).order_by(RefundRequest.id.desc()).limit(1)
        return (await scope.db.execute(query)).scalar_one()


async def decide(visitor: Visitor, shop: Shop, how: str, **form: str) -> None:
    found = await request_of(shop)
    await visitor.open("/payments")
    answer = await visitor.post(f"/refunds/{public_id('refund', found.id)}/{how}", form)
    assert answer.status_code == 303, answer.text


async def audited(shop: Shop) -> list[tuple[str, str]]:
    query = "select action, actor_name from livery.audit_entry where action like 'refund.%' order by seq"
    async with shop.scope() as scope:
        return [(row.action, row.actor_name) for row in await scope.db.execute(text(query))]


async def test_a_refund_above_the_limit_waits_and_whoever_asked_cannot_approve_it(
    shop: Shop, house: House
) -> None:
    payment = await paid_session(shop)
    anke = await house.staff("alpha", shop.tenant_id)
    await ask(anke, payment)
    assert await grosses(shop) == [595] and not await refund_states(shop, payment.id)
    shown = (await anke.open(page_of(payment))).text
    assert "A refund waits" in shown and "You asked for it: a colleague decides" in shown
    assert "Approve: give back" not in shown and "Give it back" not in shown
    await decide(anke, shop, "approvals")
    assert "You asked for this refund" in (await anke.open(page_of(payment))).text
    assert (await request_of(shop)).state == "waiting"

    britta = await house.staff("alpha", shop.tenant_id, BRITTA)
    listed = (await britta.open("/payments")).text
    assert "Waiting for a second pair of eyes" in listed and "The cable was short" in listed
    assert "Approve: give back €5.95" in (await britta.open(page_of(payment))).text
    await decide(britta, shop, "approvals")
    await shop.jobs.run()
    payment = await shop.look(payment)
    assert (payment.state, payment.refunded_minor) == ("refunded", 595)
    assert await grosses(shop) == [595, -595]
    assert [action for action, _who in await audited(shop)] == ["refund.requested", "refund.approved"]
    assert (await audited(shop))[1][1] == "Britta Lorenzen"
    assert "second pair of eyes" not in (await britta.open("/payments")).text


async def test_at_the_limit_nobody_is_asked_and_parts_count_together(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    anke = await house.staff("alpha", shop.tenant_id)
    await ask(anke, payment, "2.00")
    assert await grosses(shop) == [595, -200]
    await ask(anke, payment, "0.01")
    assert (await request_of(shop)).amount_minor == 1 and await grosses(shop) == [595, -200]
    britta = await house.staff("alpha", shop.tenant_id, BRITTA)
    await decide(britta, shop, "approvals")
    assert await grosses(shop) == [595, -200, -1]
    await ask(britta, payment, "0.01")  # what was approved is nobody's alone: 2.00 of it is still
    assert (await request_of(shop)).state == "waiting"


async def test_two_approvals_at_once_are_one_refund(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    async with shop.scope() as scope:
        await identity.invite_staff(scope, email="carl@a.example", name="Carl", role="manager")
    await ask(await house.staff("alpha", shop.tenant_id), payment, "3.00")
    path = f"/refunds/{public_id('refund', (await request_of(shop)).id)}"
    two = [await house.staff("alpha", shop.tenant_id, email) for email in (BRITTA, "carl@a.example")]
    for one in two:
        await one.open(page_of(payment))
    await asyncio.gather(*(one.post(f"{path}/approvals", {}) for one in two for _ in range(2)))
    await shop.jobs.run()
    assert (await shop.look(payment)).refunded_minor == 300
    assert await grosses(shop) == [595, -300]
    assert [action for action, _who in await audited(shop)] == ["refund.requested", "refund.approved"]
    await decide(two[0], shop, "rejections", note="too late")
    assert "was approved by" in (await two[0].open(page_of(payment))).text
    assert (await request_of(shop)).state == "approved"


async def test_a_rejected_refund_moves_nothing_and_says_why(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    anke, britta = (
        await house.staff("alpha", shop.tenant_id),
        await house.staff("alpha", shop.tenant_id, BRITTA),
    )
    await ask(anke, payment)
    await decide(britta, shop, "rejections", note="")
    assert (await request_of(shop)).state == "waiting"
    await decide(britta, shop, "rejections", note="The charger worked")
    found = await request_of(shop)
    assert (found.state, found.decided_by, found.note) == (
        "rejected",
        "Britta Lorenzen",
        "The charger worked",
    )
    await shop.jobs.run()
    assert await grosses(shop) == [595] and not await refund_states(shop, payment.id)
    shown = (await anke.open(page_of(payment))).text
    assert "The charger worked" in shown and "Give it back" in shown


async def test_one_refund_of_a_payment_waits_at_a_time(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    anke = await house.staff("alpha", shop.tenant_id)
    await ask(anke, payment, "3.00")
    await ask(anke, payment, "4.00")
    assert "waits for a colleague already" in (await anke.open(page_of(payment))).text
    assert (await request_of(shop)).amount_minor == 300


async def test_what_is_left_is_looked_at_again_when_it_is_approved(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    anke, britta = (
        await house.staff("alpha", shop.tenant_id),
        await house.staff("alpha", shop.tenant_id, BRITTA),
    )
    await ask(anke, payment, "5.00")
    await give_back_outside(shop, payment, 200)
    await decide(britta, shop, "approvals")
    assert "At most €3.95 of this payment" in (await britta.open(page_of(payment))).text
    assert (await request_of(shop)).state == "waiting" and await grosses(shop) == [595]
    await decide(anke, shop, "rejections", note="asked anew")
    await ask(anke, payment)
    assert (await request_of(shop)).amount_minor == 395
    await decide(britta, shop, "approvals")
    await shop.jobs.run()
    assert (await shop.look(payment)).refunded_minor == 595


async def test_all_that_is_left_is_not_approved_when_it_is_less_by_now(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    anke, britta = (
        await house.staff("alpha", shop.tenant_id),
        await house.staff("alpha", shop.tenant_id, BRITTA),
    )
    await ask(anke, payment)
    await give_back_outside(shop, payment, 200)
    await decide(britta, shop, "approvals")
    shown = (await britta.open(page_of(payment))).text
    assert "€3.95 would go back by now, and €5.95 was asked for" in shown
    assert (await request_of(shop)).state == "waiting"


async def test_a_correction_that_gives_back_so_much_waits_too(shop: Shop, house: House) -> None:
    """The session's page is no way around it."""
    payment = await paid_session(shop)
    anke, britta = (
        await house.staff("alpha", shop.tenant_id),
        await house.staff("alpha", shop.tenant_id, BRITTA),
    )
    async with shop.scope() as scope:
        (cdr,) = (await scope.db.execute(select(CDR))).scalars()
    await anke.open(page_of(payment))
    form = {"reason": "The meter was wrong", "energy_wh": "6000"}
    await anke.post(f"/cdrs/{public_id('cdr', cdr.id)}/credits", form)
    assert (await request_of(shop)).amount_minor == 238 and await grosses(shop) == [595]
    await decide(britta, shop, "approvals")
    await shop.jobs.run()
    assert await grosses(shop) == [595, -595, 357]
    assert (await shop.look(payment)).refunded_minor == 238
    await anke.open(page_of(payment))
    async with shop.scope() as scope:
        newest = await settlement.find_cdr(scope, payment.source_id)
        assert newest is not None
    small = {"reason": "The meter was wrong", "energy_wh": "5000"}
    await anke.post(f"/cdrs/{public_id('cdr', newest.id)}/credits", small)
    assert (await grosses(shop))[-2:] == [-357, 298]


async def test_a_key_asks_and_its_maker_does_not_approve(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    anke, britta = (
        await house.staff("alpha", shop.tenant_id),
        await house.staff("alpha", shop.tenant_id, BRITTA),
    )
    async with shop.scope() as scope:
        member = await identity.find_staff_member(scope, "anke@nordlicht-laden.example")
        assert member is not None
    actor = identity.Login(b"", member).actor
    async with shop.database.scope(shop.tenant_id, actor) as scope:
        made = await identity.create_api_key(scope, "till", ("invoices.manage", "invoices.view"))
    api = await house.api("alpha", shop.tenant_id)
    api.client.headers["Authorization"] = f"Bearer {made.key}"
    answer = await api.send("POST", "/api/v1/refunds", json=body(payment), headers={"Idempotency-Key": "1"})
    waiting = answer.json()
    assert (answer.status_code, waiting["state"]) == (202, "waiting")
    again = await api.send("POST", "/api/v1/refunds", json=body(payment), headers={"Idempotency-Key": "1"})
    assert (again.status_code, again.json()) == (202, waiting)
    twice = await api.send("POST", "/api/v1/refunds", json=body(payment))
    assert (twice.status_code, twice.json()["code"]) == (409, "refund_waiting")
    (shown,) = (await api.get("/api/v1/payments")).json()["data"]
    assert shown["refunds"] == [waiting]
    await decide(anke, shop, "approvals")
    assert (await request_of(shop)).state == "waiting"
    await decide(britta, shop, "approvals")
    await shop.jobs.run()
    (shown,) = (await api.get("/api/v1/payments")).json()["data"]
    assert [(one["id"], one["state"]) for one in shown["refunds"]] == [(waiting["id"], "succeeded")]


async def test_the_others_who_may_are_told_by_mail(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    async with shop.scope() as scope:
        await identity.invite_staff(scope, email="momme@a.example", name="Momme", role="operator")
        await scope.db.execute(text("update livery.staff_member set status = 'active'"))
    await ask(await house.staff("alpha", shop.tenant_id), payment)
    await shop.jobs.run()
    async with shop.scope() as scope:
        mails = (
            await scope.db.execute(
                text("select to_address, subject from livery.mail where kind = 'money_news'")
            )
        ).all()
    assert mails == [(BRITTA, "A refund of €5.95 waits for you")]


async def test_the_limit_is_set_where_the_holds_are_and_told_to_the_audit(shop: Shop, house: House) -> None:
    anke = await house.staff("alpha", shop.tenant_id)
    assert 'value="2.00"' in (await anke.open("/settings/cards")).text
    holds = {"hold_ac": "30", "hold_dc": "60"}
    for wrong in ("-1", "1.005", "", "much", "99999999"):
        answer = await anke.post("/settings/cards", {**holds, "refund_limit": wrong})
        assert answer.status_code == 422, wrong
    assert (await anke.post("/settings/cards", {**holds, "refund_limit": "0"})).status_code == 303
    async with shop.scope() as scope:
        account = await payments.find_account(scope)
        assert account is not None and account.refund_limit_minor == 0
        told = text(
            "select data from livery.audit_entry where action = 'payment_account.refund_limit_changed'"
        )
        assert (await scope.db.execute(told)).scalar_one() == {"refund_limit_minor": 0, "currency": "EUR"}
    payment = await paid_session(shop)
    async with shop.scope() as scope:
        assert isinstance(
            await refunds.ask_refund(scope, payment.id, "a cent", amount_minor=1), RefundRequest
        )
        with pytest.raises(Invalid):
            await refunds.ask_refund(scope, payment.id, " ")


async def test_whoever_may_not_give_money_back_decides_nothing(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    async with shop.scope() as scope:
        await identity.invite_staff(scope, email="view@a.example", name="V", role="viewer")
    await ask(await house.staff("alpha", shop.tenant_id), payment)
    viewer = await house.staff("alpha", shop.tenant_id, "view@a.example")
    await viewer.open("/")
    for how in ("approvals", "rejections"):
        answer = await viewer.post(
            f"/refunds/{public_id('refund', (await request_of(shop)).id)}/{how}", {"note": "no"}
        )
        assert answer.status_code == 403
