"""REST gives a guest's money back: whole, once, and with the papers that belong to it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, select

from app.billing import payments, sandbox
from app.billing.models import Invoice, Payment, PaymentOp
from app.charging import paid, settlement
from app.charging import service as charging
from app.charging.models import CDR, ChargingSession
from app.charging.reports import TransactionReport
from app.kernel.clock import uuid7
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from app.stations import service as stations
from app.tariffs import service as tariffs
from tenants.scope import Actor
from tests.billing.conftest import Shop
from tests.cast import PLATES
from tests.web import CLI, House, open_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(shop: Shop) -> AsyncIterator[House]:
    async with open_house(shop.database.settings, shop.database) as opened:
        yield opened


async def paid_session(shop: Shop) -> Payment:
    """10 kWh at 0.50 plus VAT, held and taken from a guest's card."""
    began = datetime.now(UTC) - timedelta(hours=2)
    async with shop.scope() as scope:
        made = await stations.create_station(
            scope,
            identity="CP1",
            evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
        )
        element = {"price_components": [{"type": "ENERGY", "price": "0.5", "vat": "19", "step_size": 1}]}
        await tariffs.create_tariff(scope, {"currency": "EUR", "elements": [element]}, {"default": True})
    actor = Actor.station(made.station.id)
    async with shop.database.scope(shop.tenant_id, actor) as scope:
        verdict = await charging.report_transaction(scope, made.station.id, TransactionReport(
            kind="Started", at=began, received_at=began, natural_key="start", evse_no=1, connector_no=1,
            meter_start_wh=Decimal(1000),
        ))  # fmt: skip
    async with shop.scope() as scope:
        session = (await scope.db.execute(select(ChargingSession))).scalar_one()
        session.cost_cap_minor = 3000
        payment, op = await payments.open_payment(
            scope, source_type="charging_session", source_id=session.id, hold_minor=3000, currency="EUR", title="T",
            success_url="http://a.localhost/s", cancel_url="http://a.localhost/c", email="", language="en",
        )  # fmt: skip
    await payments.run_op(shop.database, shop.tenant_id, op.id)
    payment = await shop.read(payment.id)
    await shop.pay(payment)
    await shop.look(payment)
    ended = began + timedelta(hours=1)
    async with shop.database.scope(shop.tenant_id, actor) as scope:
        await charging.report_transaction(scope, made.station.id, TransactionReport(
            kind="Ended", at=ended, received_at=ended, natural_key="stop", meter_stop_wh=Decimal(11_000),
            ocpp_transaction_id=verdict.ocpp_transaction_id,
        ))  # fmt: skip
    async with shop.scope() as scope:
        await settlement.settle(scope, session.id)
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert (payment.state, payment.captured_minor) == ("captured", 595)
    return payment


async def kinds(shop: Shop) -> list[str]:
    async with shop.database.scope(shop.tenant_id, CLI) as scope:
        return list((await scope.db.execute(select(Invoice.kind).order_by(Invoice.id))).scalars())


def body(payment: Payment, **more: Any) -> dict[str, Any]:
    return {"payment_id": public_id("payment", payment.id), "reason": "The charger was broken", **more}


async def test_a_payment_is_given_back_once_however_often_it_is_asked(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    api = await house.api("alpha", shop.tenant_id, "invoices.manage", "invoices.view")
    headers = {"Idempotency-Key": "refund-1"}
    answer = await api.send("POST", "/api/v1/refunds", json=body(payment), headers=headers)
    refund = answer.json()
    assert answer.status_code == 201, answer.text
    assert refund["id"].startswith("ref_") and refund["payment_id"] == public_id("payment", payment.id)
    assert (refund["state"], refund["reason"]) == ("pending", "The charger was broken")
    assert refund["amount"] == {"amount": "5.95", "currency": "EUR"}

    again = await api.send("POST", "/api/v1/refunds", json=body(payment), headers=headers)
    assert (again.status_code, again.json(), again.headers["idempotency-replayed"]) == (201, refund, "true")
    twice = await api.send("POST", "/api/v1/refunds", json=body(payment))
    assert twice.status_code == 409

    await shop.jobs.run()
    late = await api.send("POST", "/api/v1/refunds", json=body(payment))
    assert (late.status_code, late.json()["code"]) == (409, "not_refundable")
    (shown,) = (await api.get("/api/v1/payments")).json()["data"]
    assert (shown["state"], shown["refunded"]["amount"]) == ("refunded", "5.95")
    assert shown["refunds"] == [refund | {"state": "succeeded"}]
    assert await kinds(shop) == ["receipt", "receipt_reversal"]


async def test_an_amount_that_cannot_be_is_refused_and_nothing_is_written(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    api = await house.api("alpha", shop.tenant_id, "all")
    for amount in (
        "5.95",
        5.95,
        {"amount": 5.95, "currency": "EUR"},
        {"amount": "5.951", "currency": "EUR"},
        {"amount": "1.00", "currency": "USD"},
        {"amount": "0.00", "currency": "EUR"},
        {"amount": "-1.00", "currency": "EUR"},
        [],
        {},
    ):
        answer = await api.send("POST", "/api/v1/refunds", json=body(payment, amount=amount))
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "amount"), amount
    too_much = {"amount": "5.96", "currency": "EUR"}
    answer = await api.send("POST", "/api/v1/refunds", json=body(payment, amount=too_much))
    assert (answer.status_code, answer.json()["code"]) == (409, "refund_too_high")
    assert "At most €5.95" in answer.json()["detail"]
    assert await kinds(shop) == ["receipt"] and not await refunds(shop, payment.id)
    whole = {"amount": "5.95", "currency": "EUR"}
    assert (await api.send("POST", "/api/v1/refunds", json=body(payment, amount=whole))).status_code == 201


async def refunds(shop: Shop, payment_id: UUID) -> list[str]:
    return [state for kind, state in await shop.ops(await shop.read(payment_id)) if kind == "refund"]


async def test_a_refund_wants_a_payment_and_a_reason_and_the_right_to_it(shop: Shop, house: House) -> None:
    payment = await shop.hold()
    api = await house.api("alpha", shop.tenant_id, "all")
    known = public_id("payment", payment.id)
    for sent, field in (({}, "payment_id"), ({"payment_id": "pay_x", "reason": "r"}, "payment_id"),
                        ({"payment_id": known}, "reason"), ({"payment_id": known, "reason": 5}, "reason")):  # fmt: skip
        answer = await api.send("POST", "/api/v1/refunds", json=sent)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    nothing_taken = await api.send("POST", "/api/v1/refunds", json=body(payment))
    assert (nothing_taken.status_code, nothing_taken.json()["code"]) == (409, "not_refundable")
    unknown = {"payment_id": public_id("payment", UUID(int=1)), "reason": "r"}
    assert (await api.send("POST", "/api/v1/refunds", json=unknown)).status_code == 404
    viewer = await house.api("alpha", shop.tenant_id, "invoices.view")
    assert (await viewer.send("POST", "/api/v1/refunds", json=body(payment))).status_code == 403


async def test_staff_are_not_offered_again_what_is_already_on_its_way_back(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    address = f"/payments/{public_id('payment', payment.id)}"
    owner = await house.staff("alpha", shop.tenant_id)
    assert "At most €5.95" in (await owner.open(address)).text
    await owner.post(f"{address}/refunds", {"reason": "The charger was broken"})
    under_way = (await owner.open(address)).text
    assert "€5.95 on its way" in under_way and "At most €5.95" not in under_way
    await shop.jobs.run()
    done = (await owner.open(address)).text
    assert "on its way" not in done and "At most €" not in done


async def test_a_refund_that_is_asked_for_four_times_at_once_is_made_once_and_refused_with_words(
    shop: Shop, house: House
) -> None:
    payment = await paid_session(shop)
    address = f"/payments/{public_id('payment', payment.id)}"
    owner = await house.staff("alpha", shop.tenant_id)
    await owner.open(address)
    asked = [owner.post(f"{address}/refunds", {"reason": "The charger was broken"}) for _ in range(4)]
    answers = await asyncio.gather(*asked)
    assert [(one.status_code, one.headers["location"]) for one in answers] == [(303, address)] * 4
    assert len(await refunds(shop, payment.id)) == 1
    await owner.post(f"{address}/refunds", {"reason": "The charger was broken"})
    assert "given back already, or is on its way back" in (await owner.open(address)).text
    assert await kinds(shop) == ["receipt", "receipt_reversal"]
    await shop.jobs.run()
    assert (await shop.read(payment.id)).refunded_minor == 595


async def test_a_cdr_that_is_credited_four_times_at_once_is_credited_once(shop: Shop) -> None:
    await paid_session(shop)
    async with shop.scope() as scope:
        (cdr,) = (await scope.db.execute(select(CDR))).scalars()

    async def credit() -> str:
        try:
            async with shop.scope() as scope:
                await settlement.credit(scope, cdr.id, "The charger was broken")
        except Refused as refused:
            return refused.code
        return "credited"

    found = await asyncio.gather(*(credit() for _ in range(4)))
    assert sorted(found) == ["already_credited"] * 3 + ["credited"]


# -- the provider refuses ----------------------------------------------------------------------------------------------

POOR = [{"path": "POST /v1/refunds", "fault": "balance_insufficient", "times": 1}]


async def driver_page(
    shop: Shop, house: House, payment: Payment, part: str = "", language: str = "en"
) -> str:
    async with shop.scope() as scope:
        link = paid.link_of(scope, payment.source_id)
    shown = await house.driver("alpha").get(f"/s/{link}{part}", headers={"Accept-Language": language})
    assert shown.status_code == 200
    return " ".join(unescape(shown.text).replace("\u00a0", " ").split())


async def test_a_refund_that_the_provider_refused_is_told_to_staff_and_tried_again_with_the_same_credit_note(
    shop: Shop, house: House
) -> None:
    payment = await paid_session(shop)
    address = f"/payments/{public_id('payment', payment.id)}"
    await sandbox.set_faults(shop.database, POOR)
    owner = await house.staff("alpha", shop.tenant_id)
    await owner.open(address)
    await owner.post(f"{address}/refunds", {"reason": "The charger was broken"})
    await shop.jobs.run()
    assert await refunds(shop, payment.id) == ["failed"]
    assert (await shop.balances())["driver_receivable"] == -595
    shown = unescape((await owner.open(address)).text).replace("\u00a0", " ")
    assert "€5.95 was not given back: there is too little money in the account at the provider." in shown
    assert "Try again: €5.95" in shown and "At most €5.95" not in shown
    assert "1 refund did not reach its driver" in (await owner.open("/payments")).text

    await owner.open(address)
    asked = [owner.post(f"{address}/refund-retries", {}) for _ in range(3)]
    assert {one.status_code for one in await asyncio.gather(*asked)} == {303}
    on_its_way = (await owner.open(address)).text
    assert "on its way" in on_its_way and "Try again" not in on_its_way
    await shop.jobs.run()
    assert await refunds(shop, payment.id) == ["failed", "succeeded"]
    assert await kinds(shop) == ["receipt", "receipt_reversal"]
    assert (await shop.read(payment.id)).refunded_minor == 595
    assert "driver_receivable" not in await shop.balances()
    done = (await owner.open(address)).text
    assert "was not given back" not in done and "Try again" not in done
    assert "did not reach" not in (await owner.open("/payments")).text
    nothing = await owner.post(f"{address}/refund-retries", {})
    assert nothing.status_code == 303 and await refunds(shop, payment.id) == ["failed", "succeeded"]


async def test_a_refused_refund_is_asked_for_again_by_rest_too(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    await sandbox.set_faults(shop.database, POOR)
    api = await house.api("alpha", shop.tenant_id, "invoices.manage", "invoices.view")
    first = (await api.send("POST", "/api/v1/refunds", json=body(payment))).json()
    await shop.jobs.run()
    again = await api.send("POST", "/api/v1/refunds", json=body(payment))
    assert again.status_code == 201 and again.json()["id"] != first["id"]
    assert (await api.send("POST", "/api/v1/refunds", json=body(payment))).status_code == 409
    await shop.jobs.run()
    (shown,) = (await api.get("/api/v1/payments")).json()["data"]
    assert [one["state"] for one in shown["refunds"]] == ["failed", "succeeded"]
    assert await kinds(shop) == ["receipt", "receipt_reversal"]


async def test_a_part_that_was_refused_is_tried_again_as_that_part(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    await sandbox.set_faults(shop.database, POOR)
    async with shop.scope() as scope:
        (cdr,) = (await scope.db.execute(select(CDR))).scalars()
        await settlement.credit(scope, cdr.id, "the meter was wrong", energy_wh=6_000)
    await shop.jobs.run()
    address = f"/payments/{public_id('payment', payment.id)}"
    owner = await house.staff("alpha", shop.tenant_id)
    shown = (await owner.open(address)).text
    assert "Try again: €2.38" in shown and "At most €3.57" in shown
    assert "You get €2.38 back" in await driver_page(shop, house, payment)
    await owner.post(f"{address}/refund-retries", {})
    await shop.jobs.run()
    assert (await shop.read(payment.id)).refunded_minor == 238
    assert "driver_receivable" not in await shop.balances()


async def test_a_refused_refund_is_told_however_many_older_ones_wait_for_nothing_any_more(
    shop: Shop,
) -> None:
    """Staff gave the part back in the provider's own dashboard, after the refund of it was refused."""
    payment = await paid_session(shop)
    async with shop.scope() as scope:
        for _ in range(2):
            older = with_its_papers(payment)
            older.id = UUID(int=older.id.int - (1 << 100))
            scope.db.add(older)
            await scope.db.flush()
            scope.db.add(Invoice(
                id=uuid7(), kind="receipt", series="RCT", year=2026, issued_at=scope.now, issued_on=scope.now.date(),
                supplied_on=scope.now.date(), currency="EUR", net_minor=99, vat_minor=0, gross_minor=99, seller={},
                buyer={"payment": public_id("payment", older.id)}, vat_groups=[], prev_hash=b"", hash=b"",
            ))  # fmt: skip
            scope.db.add(PaymentOp(
                id=uuid7(), payment_id=older.id, kind="refund", idem_key=f"ref:{older.id}:0", state="failed",
                request={"amount_minor": 1, "reason": "too loud"}, created_at=scope.now, updated_at=scope.now,
            ))  # fmt: skip
    await sandbox.set_faults(shop.database, POOR)
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The charger was broken")
    await shop.jobs.run()
    async with shop.scope() as scope:
        told = await payments.list_refused_refunds(scope, limit=1)
        assert [(row.id, minor) for row, minor in told] == [(payment.id, 595)]


async def test_a_driver_is_told_that_the_money_is_not_back_yet(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    await sandbox.set_faults(shop.database, POOR)
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The charger was broken")
    assert "You get €5.95 back. It is on its way to your card." in await driver_page(shop, house, payment)
    await shop.jobs.run()
    refused = await driver_page(shop, house, payment)
    assert "You get €5.95 back. It is not on your card yet: we will try again." in refused
    assert "Your receipt is ready" not in refused
    assert "Sie bekommen 5,95 € zurück." in await driver_page(shop, house, payment, language="de")
    paper = await driver_page(shop, house, payment, "/receipt")
    assert "€5.95 still to be given back to card" in paper and "€5.95 given back to card" not in paper
    async with shop.scope() as scope:
        await payments.refund_again(scope, payment.id)
    await shop.jobs.run()
    assert "Given back" in await driver_page(shop, house, payment)
    paper = await driver_page(shop, house, payment, "/receipt")
    assert "€5.95 given back to card" in paper and "still to be given back" not in paper


# -- given back at the provider itself ---------------------------------------------------------------------------------


async def give_back_outside(shop: Shop, payment: Payment, minor: int) -> Payment:
    """In the provider's own dashboard; its news come twice."""
    provider = payments.provider_of(shop.database.settings)
    ref, key = payment.provider_ref or "", f"dashboard-{minor}"
    await provider.refund(payment.account_ref, ref, amount_minor=minor, reason="by phone", key=key)
    await shop.tell(copies=2)
    await shop.jobs.run()
    await shop.look(payment)
    return await shop.look(payment)


async def test_a_part_that_was_given_back_at_the_provider_is_in_the_books_and_only_the_rest_is_offered(
    shop: Shop, house: House
) -> None:
    payment = await give_back_outside(shop, await paid_session(shop), 200)
    assert (payment.state, payment.refunded_minor, payment.refunded_outside_minor) == (
        "partially_refunded", 200, 200,
    )  # fmt: skip
    books = await shop.balances()
    assert books["driver_receivable"] == 200  # a credit note is missing
    assert books["psp_pending"] == 595 - 200 - payment.fee_minor - payment.provider_fee_minor
    address = f"/payments/{public_id('payment', payment.id)}"
    owner = await house.staff("alpha", shop.tenant_id)
    assert "1 credit note is missing" in (await owner.open("/payments")).text
    shown = unescape((await owner.open(address)).text)
    assert "€2.00 was given back in the provider's own dashboard, and no credit note says so." in shown
    assert "At most €3.95" in shown and "Issue the credit note" not in shown
    await owner.post(f"{address}/credit-notes", {"reason": "by phone"})
    assert "No credit note is missing for all of this payment" in (await owner.open(address)).text
    await owner.post(f"{address}/refunds", {"reason": "The charger was broken"})
    assert "€3.95 on its way" in (await owner.open(address)).text
    await shop.jobs.run()
    payment = await shop.look(payment)
    assert (payment.state, payment.refunded_minor, payment.refunded_outside_minor) == ("refunded", 595, 200)
    assert await kinds(shop) == ["receipt", "receipt_reversal"]
    books = await shop.balances()
    assert "driver_receivable" not in books
    assert books["psp_pending"] == -payment.fee_minor - payment.provider_fee_minor
    assert "missing" not in (await owner.open("/payments")).text
    assert "own dashboard" not in (await owner.open(address)).text
    assert "€5.95 given back to card" in await driver_page(shop, house, payment, "/receipt")


async def test_all_that_was_given_back_at_the_provider_gets_its_credit_note_and_no_second_refund(
    shop: Shop, house: House
) -> None:
    payment = await give_back_outside(shop, await paid_session(shop), 595)
    address = f"/payments/{public_id('payment', payment.id)}"
    api = await house.api("alpha", shop.tenant_id, "invoices.manage", "invoices.view")
    assert (await api.send("POST", "/api/v1/refunds", json=body(payment))).status_code == 409
    owner = await house.staff("alpha", shop.tenant_id)
    shown = (await owner.open(address)).text
    assert "Issue the credit note" in shown and "At most €" not in shown
    for _ in range(2):
        await owner.post(f"{address}/credit-notes", {"reason": "by phone"})
    await shop.jobs.run()
    payment = await shop.look(payment)
    assert (payment.refunded_minor, await refunds(shop, payment.id)) == (595, [])
    assert await kinds(shop) == ["receipt", "receipt_reversal"]
    assert "driver_receivable" not in await shop.balances()
    assert "Issue the credit note" not in (await owner.open(address)).text


def with_its_papers(payment: Payment) -> Payment:
    """A cent was given back at the provider itself, and no credit note is missing."""
    return Payment(
        id=uuid7(), source_type="test", source_id=uuid7(), provider=payment.provider, account_ref=payment.account_ref,
        currency="EUR", captured_minor=100, refunded_minor=1, refunded_outside_minor=1, state="partially_refunded",
    )  # fmt: skip


async def test_a_missing_credit_note_is_told_however_many_have_theirs(shop: Shop) -> None:
    """And whoever looks asks as often for many payments as for one."""
    payment = await paid_session(shop)
    async with shop.scope() as scope:
        scope.db.add_all(with_its_papers(payment) for _ in range(3))
    payment = await give_back_outside(shop, payment, 200)
    asked: list[str] = []
    engine = shop.database._app.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    counts = []
    for _ in range(2):
        async with shop.scope() as scope:
            asked.clear()
            for limit in (1, 50):
                told = await payments.list_unpapered(scope, limit=limit)
                assert [(row.id, minor) for row, minor in told] == [(payment.id, 200)]
            counts.append(len(asked))
            scope.db.add_all(with_its_papers(payment) for _ in range(3))
    assert counts[0] == counts[1]


async def test_what_was_given_back_at_the_provider_counts_when_the_session_is_corrected(shop: Shop) -> None:
    payment = await give_back_outside(shop, await paid_session(shop), 119)
    async with shop.scope() as scope:
        (cdr,) = (await scope.db.execute(select(CDR))).scalars()
        await settlement.credit(scope, cdr.id, "two kWh by phone, and two more", energy_wh=6_000)
        assert await payments.find_unpapered(scope, payment) == 0
    await shop.jobs.run()
    payment = await shop.look(payment)
    assert (payment.refunded_minor, payment.refunded_outside_minor) == (238, 119)
    assert "driver_receivable" not in await shop.balances()


async def test_a_refund_of_ours_whose_answer_was_lost_is_not_taken_for_one_of_the_providers(
    shop: Shop,
) -> None:
    payment = await paid_session(shop)
    await sandbox.set_faults(shop.database, [{"path": "POST /v1/refunds", "fault": "after"}])
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The charger was broken")
    await shop.jobs.run(rounds=1)
    assert (await shop.look(payment)).refunded_minor == 595
    await shop.jobs.run()
    assert (await shop.look(payment)).refunded_outside_minor == 0
    assert "driver_receivable" not in await shop.balances()


async def test_staff_refund_the_rest_while_news_of_the_providers_own_refund_arrive(
    shop: Shop, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The news are booked only when staff's press waits for them; neither has what the other needs first."""
    payment = await paid_session(shop)
    provider = payments.provider_of(shop.database.settings)
    await provider.refund(
        payment.account_ref, payment.provider_ref or "", amount_minor=200, reason="by phone", key="dashboard"
    )
    owner = await house.staff("alpha", shop.tenant_id)
    await owner.open("/payments")
    is_seen, book = asyncio.Event(), payments._book_outside

    async def book_late(scope: Any, seen: Payment, **more: Any) -> None:
        is_seen.set()
        for _ in range(500):
            if shop.jobs.connection.execute("select 1 from pg_locks where not granted").fetchone():
                break
            await asyncio.sleep(0.02)
        await book(scope, seen, **more)

    async def press() -> Any:
        await is_seen.wait()
        address = f"/payments/{public_id('payment', payment.id)}/refunds"
        return await owner.post(address, {"reason": "The charger was broken"})

    with monkeypatch.context() as late:
        late.setattr(payments, "_book_outside", book_late)
        seen = payments.observe(shop.database, shop.tenant_id, payment.id)
        _seen, pressed = await asyncio.gather(seen, press())
    assert pressed.status_code == 303
    await shop.jobs.run()
    payment = await shop.look(payment)
    assert (payment.state, payment.refunded_minor, payment.refunded_outside_minor) == ("refunded", 595, 200)
    assert await kinds(shop) == ["receipt", "receipt_reversal"]
    assert "driver_receivable" not in await shop.balances()


async def test_the_released_rest_of_a_hold_is_not_money_given_back(shop: Shop) -> None:
    """Stripe counts it in the charge's `amount_refunded`; only what moved money was given back, of many refunds too."""
    payment = await shop.hold(3000)
    await shop.pay(payment)
    await shop.look(payment)
    await shop.charge(2400)
    await shop.jobs.run()
    async with shop.database.sandbox() as db:
        engine = sandbox.Engine(db, payment.account_ref)
        payment = await shop.look(payment)
        assert (await engine.get("charge", payment.charge_ref or ""))["amount_refunded"] == 600
    assert (payment.state, payment.refunded_minor, payment.refunded_outside_minor) == ("captured", 0, 0)
    for refund in range(1, 13):
        await payments.provider_of(shop.database.settings).refund(
            payment.account_ref,
            payment.provider_ref or "",
            amount_minor=100,
            reason="by hand",
            key=f"r{refund}",
        )
        if refund in (1, 10, 11, 12):  # ten come along with the charge
            assert (await shop.look(payment)).refunded_minor == 100 * refund
