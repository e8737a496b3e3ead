"""A part of a payment is given back: with a credit note that is right for each VAT rate, and in the way of nothing."""

import asyncio
import random
import re
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from app.billing import payments, service
from app.billing.models import Invoice, Payment
from app.charging import settlement
from app.charging.models import CDR
from app.kernel.clock import uuid7
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from tests.billing.conftest import Shop
from tests.billing.test_refunds import body, driver_page, give_back_outside, kinds, paid_session, refunds
from tests.web import House, open_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(shop: Shop) -> Any:
    async with open_house(shop.database.settings, shop.database) as opened:
        yield opened


async def give_back(shop: Shop, payment: Payment, minor: int | None = None) -> Payment:
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "The cable was short", amount_minor=minor)
    await shop.jobs.run()
    return await shop.look(payment)


async def grosses(shop: Shop) -> list[int]:
    async with shop.scope() as scope:
        return list((await scope.db.execute(select(Invoice.gross_minor).order_by(Invoice.id))).scalars())


async def test_staff_give_a_part_back_with_a_credit_note_over_that_part(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    address = f"/payments/{public_id('payment', payment.id)}"
    owner = await house.staff("alpha", shop.tenant_id)
    await owner.open(address)
    await owner.post(f"{address}/refunds", {"reason": "The cable was short", "amount": "1.00"})
    await shop.jobs.run()
    payment = await shop.look(payment)
    assert (payment.state, payment.refunded_minor) == ("partially_refunded", 100)
    assert await grosses(shop) == [595, -100]
    books = await shop.balances()
    assert "driver_receivable" not in books
    assert books["revenue"] == -(500 - 84) and books["vat_payable"] == -(95 - 16)
    assert "At most €4.95" in (await owner.open(address)).text
    assert "€1.00 of what you paid was given back to your card." in await driver_page(shop, house, payment)
    assert "1,00 € von dem, was Sie bezahlt haben" in await driver_page(shop, house, payment, language="de")
    paper = await driver_page(shop, house, payment, "/receipt")
    assert "Partial credit: The cable was short" in paper and "€1.00 given back to card" in paper


async def test_rest_gives_a_part_back_once_under_one_key(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    api = await house.api("alpha", shop.tenant_id, "invoices.manage", "invoices.view")
    part = body(payment, amount={"amount": "2.50", "currency": "EUR"})
    answers = [
        await api.send("POST", "/api/v1/refunds", json=part, headers={"Idempotency-Key": "part-1"})
        for _ in range(2)
    ]
    assert [one.status_code for one in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    await shop.jobs.run()
    (shown,) = (await api.get("/api/v1/payments")).json()["data"]
    assert (shown["state"], shown["refunded"]["amount"]) == ("partially_refunded", "2.50")
    assert [one["state"] for one in shown["refunds"]] == ["succeeded"]


async def test_an_amount_that_cannot_be_is_told_and_changes_nothing(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    address = f"/payments/{public_id('payment', payment.id)}"
    owner = await house.staff("alpha", shop.tenant_id)
    await owner.open(address)
    wrong = {"5.96": "At most €5.95 of this payment", "0": "more than nothing", "-1": "more than nothing",
             "1.005": "one such as 5.00", "much": "one such as 5.00"}  # fmt: skip
    for typed, told in wrong.items():
        await owner.post(f"{address}/refunds", {"reason": "The cable was short", "amount": typed})
        assert told in (await owner.open(address)).text, typed
    assert await grosses(shop) == [595] and not await refunds(shop, payment.id)


async def test_of_what_was_not_taken_nothing_is_given_back(shop: Shop) -> None:
    payment = await shop.hold()
    async with shop.scope() as scope:
        with pytest.raises(Refused) as refused:
            await settlement.refund(scope, payment.id, "The cable was short", amount_minor=100)
    assert refused.value.code == "not_refundable"


async def test_after_parts_the_rest_goes_back_and_the_note_names_what_was_credited_before(shop: Shop) -> None:
    payment = await paid_session(shop)
    for minor in (100, 33):
        payment = await give_back(shop, payment, minor)
    payment = await give_back(shop, payment)
    assert (payment.state, payment.refunded_minor) == ("refunded", 595)
    assert await grosses(shop) == [595, -100, -33, -462]
    books = await shop.balances()
    assert not books.keys() & {"driver_receivable", "revenue", "vat_payable"}
    async with shop.scope() as scope:
        note = (await scope.db.execute(select(Invoice).order_by(Invoice.id.desc()).limit(1))).scalar_one()
        lines = (await service.get_invoice(scope, note.id)).lines
        assert [line.gross_minor for line in lines] == [-595, 100, 33]
        assert all(line.description.startswith("Credited before by") for line in lines[1:])


async def test_all_of_it_in_parts_is_all_of_it_and_no_cent_more(shop: Shop) -> None:
    payment = await paid_session(shop)
    for minor in (500, 95):
        payment = await give_back(shop, payment, minor)
    assert (payment.state, await grosses(shop)) == ("refunded", [595, -500, -95])
    assert not (await shop.balances()).keys() & {"driver_receivable", "revenue", "vat_payable"}
    for minor in (1, None):
        with pytest.raises(Refused) as refused:
            await give_back(shop, payment, minor)
        assert refused.value.code == "not_refundable"


async def test_a_session_that_was_credited_in_part_is_corrected_and_billed_anew(shop: Shop) -> None:
    """What was given back already is not given back twice."""
    payment = await give_back(shop, await paid_session(shop), 100)
    async with shop.scope() as scope:
        (cdr,) = (await scope.db.execute(select(CDR))).scalars()
        await settlement.credit(scope, cdr.id, "The meter was wrong", energy_wh=6_000)
    await shop.jobs.run()
    payment = await shop.look(payment)
    assert await grosses(shop) == [595, -100, -495, 357]
    assert payment.refunded_minor == 595 - 357
    assert "driver_receivable" not in await shop.balances()
    payment = await give_back(shop, payment, 57)  # of the new paper
    assert (await grosses(shop))[-1] == -57 and payment.refunded_minor == 595 - 300


async def test_beside_what_the_provider_gave_back_a_part_is_at_most_what_is_left(shop: Shop) -> None:
    payment = await give_back_outside(shop, await paid_session(shop), 200)
    with pytest.raises(Refused) as refused:
        await give_back(shop, payment, 396)
    assert refused.value.code == "refund_too_high"
    payment = await give_back(shop, payment, 95)
    assert (payment.refunded_minor, payment.refunded_outside_minor) == (295, 200)
    async with shop.scope() as scope:
        assert await payments.find_unpapered(scope, payment) == 200


async def test_two_parts_at_once_are_never_more_than_the_whole(shop: Shop, house: House) -> None:
    payment = await paid_session(shop)
    address = f"/payments/{public_id('payment', payment.id)}"
    owner = await house.staff("alpha", shop.tenant_id)
    await owner.open(address)
    form = {"reason": "The cable was short", "amount": "3.00"}
    await asyncio.gather(*(owner.post(f"{address}/refunds", form) for _ in range(4)))
    await shop.jobs.run()
    assert (await shop.look(payment)).refunded_minor == 300
    assert await kinds(shop) == ["receipt", "receipt_reversal"]


async def test_a_second_press_of_one_form_gives_nothing_twice(shop: Shop, house: House) -> None:
    """Neither a double click nor a colleague's page from before: who wants to give more looks again first."""
    payment = await paid_session(shop)
    address = f"/payments/{public_id('payment', payment.id)}"
    owner, colleague = [await house.staff("alpha", shop.tenant_id) for _ in range(2)]
    (seen,) = set(re.findall(r'name="seen" value="(\d+)"', (await owner.open(address)).text))
    await colleague.open(address)
    form = {"reason": "The cable was short", "amount": "1.00", "seen": seen}
    await asyncio.gather(*(one.post(f"{address}/refunds", form) for one in (owner, owner, colleague)))
    await shop.jobs.run()
    assert (await shop.look(payment)).refunded_minor == 100
    await colleague.post(f"{address}/refunds", form)
    shown = (await colleague.open(address)).text
    assert "given back since you looked" in shown and 'name="seen" value="1"' in shown
    await colleague.post(f"{address}/refunds", form | {"seen": "1"})
    await shop.jobs.run()
    assert (await shop.look(payment)).refunded_minor == 200


# -- the VAT of a part -------------------------------------------------------------------------------------------------


def line(source: Any, part: int, net: int, rate: str) -> service.Line:
    vat = round(net * Decimal(rate) / 100)
    return service.Line(
        source_type="test", source_id=source, source_part=str(part), description="Energy", quantity=Decimal(1),
        unit="", unit_price=Decimal(net) / 100, vat_rate=Decimal(rate), vat_code=f"DE{rate}", net_minor=net,
        vat_minor=vat, gross_minor=net + vat,
    )  # fmt: skip


async def test_parts_over_two_rates_come_to_the_invoice_to_the_cent_in_whatever_order(shop: Shop) -> None:
    chance = random.Random(28)
    for _ in range(6):
        source = uuid7()
        lines = [line(source, 0, chance.randint(1, 4000), "19"), line(source, 1, chance.randint(1, 900), "7"),
                 line(source, 2, chance.randint(1, 300), "0")]  # fmt: skip
        async with shop.scope() as scope:
            invoice = await service.issue_invoice(
                scope, currency="EUR", lines=lines, buyer={"name": "Guest"}, supplied_at=scope.now
            )
            assert invoice is not None
            left = invoice.gross_minor
            while left:
                minor = min(chance.choice((1, 2, chance.randint(1, 1500))), left)
                note = await service.credit_part(scope, "test", source, minor, "goodwill")
                assert note is not None and note.gross_minor == -minor
                assert all(one.net_minor <= 0 and one.vat_minor <= 0 for one in note.lines)
                left -= minor
                assert await service.creditable_minor(scope, "test", source) == left
                if chance.random() < 0.3:
                    break
            with pytest.raises(Refused):
                await service.credit_part(scope, "test", source, left + 1, "goodwill")
            await service.credit_source(scope, "test", source, "the rest")
            papers = await service.list_invoices_of(scope, "test", source)
            groups = service.vat_groups([one for paper in papers for one in paper.lines])
            assert all(
                not group[name] for group in groups for name in ("net_minor", "vat_minor", "gross_minor")
            )
    assert await shop.balances() == {}


async def test_the_vat_of_a_part_is_its_share_of_each_rate(shop: Shop) -> None:
    """119.00 at 19 % and 107.00 at 7 %: of 22.60 a tenth of each."""
    source = uuid7()
    async with shop.scope() as scope:
        await service.issue_invoice(
            scope, currency="EUR", lines=[line(source, 0, 10_000, "19"), line(source, 1, 10_000, "7")],
            buyer={"name": "Guest"}, supplied_at=scope.now,
        )  # fmt: skip
        note = await service.credit_part(scope, "test", source, 2260, "goodwill")
        assert note is not None
        assert [(one.net_minor, one.vat_minor) for one in note.lines] == [(-1000, -190), (-1000, -70)]
