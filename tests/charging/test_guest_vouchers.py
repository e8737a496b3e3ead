"""A voucher's code pays at the charger: no more than is on it, once, and what a session leaves stays on it."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.access.models import Driver
from app.billing import paper, payments, vouchers
from app.billing.models import Payment, VoucherBatch
from app.charging import paid, settlement, voucher_starts
from app.charging.account import Way
from app.charging.models import CDR, ChargingSession
from app.kernel.clock import utcnow
from app.kernel.errors import Refused, TooMany
from app.kernel.ids import public_id
from app.kernel.web import ANONYMOUS
from app.stations import service as stations
from tests.billing.conftest import jobs, shop
from tests.charging.test_account import Yard, yard
from tests.charging.test_wallets import charge, code_of, faults, issue, jule, redeem, wallet_of
from tests.surfaces.conftest import house
from tests.web import House, found_brand

__all__ = ["house", "jobs", "jule", "shop", "yard"]
pytestmark = pytest.mark.anyio


async def start(
    yard: Yard, code: str, remote: str = "1", *, at: timedelta = timedelta(), email: str = ""
) -> ChargingSession:
    """Pressed by a guest, `at` from now."""
    shop = yard.shop
    async with shop.database.scope(shop.tenant_id, ANONYMOUS, now=utcnow() + at) as scope:
        evse = await stations.find_place(scope, await code_of(yard))
        return await voucher_starts.request_start(
            scope, evse, Way(), code, email=email, language="en", origin="", remote=remote
        )


async def refusal(yard: Yard, code: str, remote: str = "1", *, at: timedelta = timedelta()) -> str:
    with pytest.raises(Refused) as refused:
        await start(yard, code, remote, at=at)
    return refused.value.code


async def payment_of(yard: Yard, session_id: UUID) -> Payment:
    async with yard.shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", session_id)
        assert payment is not None
        return payment


async def left(yard: Yard) -> list[tuple[int, int]]:
    """(may be spent, held) of each code, in the order of their issue."""
    async with yard.shop.scope() as scope:
        found = []
        for batch in (await scope.db.execute(select(VoucherBatch).order_by(VoucherBatch.id))).scalars():
            rows = await vouchers.list_vouchers(scope, batch.id)
            of = await vouchers.left_of(scope, batch, [row.id for row in rows])
            found += [(of[row.id].minor, of[row.id].held_minor) for row in rows]
        return found


async def give_up(yard: Yard, session_id: UUID) -> None:
    async with yard.shop.scope() as scope:
        await paid.give_up(scope, session_id)
    await yard.shop.jobs.run()


async def give_back(yard: Yard, session_id: UUID, minor: int | None, at: timedelta) -> None:
    now = utcnow() + at
    async with yard.shop.database.scope(yard.shop.tenant_id, payments.ACTOR, now=now) as scope:
        await settlement.refund(scope, (await payment_of(yard, session_id)).id, "Sorry.", amount_minor=minor)
    await yard.shop.jobs.run()


async def revoke(yard: Yard, at: timedelta = timedelta()) -> None:
    now = utcnow() + at
    async with yard.shop.database.scope(yard.shop.tenant_id, payments.ACTOR, now=now) as scope:
        for batch in (await scope.db.execute(select(VoucherBatch))).scalars():
            await vouchers.revoke(scope, batch.id)


async def test_a_session_takes_what_it_cost_and_the_rest_stays_on_the_code_for_a_guest_or_a_wallet(
    yard: Yard, jule: Driver
) -> None:
    """10.00: two sessions, a refund of a part, a correction; every posting of it, and the papers say how it was
    paid."""
    (code,) = await issue(yard.shop)
    first = await start(yard, code, email="gast@example.org")
    hold = await payment_of(yard, first.id)
    assert (hold.provider, hold.hold_minor, hold.method) == ("voucher", 1000, f"Voucher …{code[-4:]}")
    assert await left(yard) == [(0, 1000)] and await refusal(yard, code, "2") == "voucher_held"
    with pytest.raises(Refused, match="A session is charging with this code"):
        await redeem(yard, jule, code)
    await charge(yard, first, kwh=5)  # 3.00
    assert await left(yard) == [(700, 0)]
    assert await yard.shop.balances() == {
        "goodwill": 1000, "voucher_liability": -700, "revenue": -250, "vat_payable": -50
    }  # fmt: skip
    async with yard.shop.scope() as scope:
        (receipt,) = await settlement.list_papers(scope, first.id)
        settled = await payments.find_settled(scope, await payment_of(yard, first.id))
        words = paper.Paper(invoice=receipt, settled=settled).content("Europe/Berlin")
        assert receipt.buyer["name"] == "Guest" and f"€3.00 paid by voucher …{code[-4:]}" in str(words)
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        await settlement.credit(scope, cdr.id, "The meter was wrong.", energy_wh=2_000)  # 1.20
        mails = await scope.db.execute(
            text("select body from livery.mail where kind in ('guest_session', 'receipt')")
        )
        told = " ".join(mails.scalars())
        assert "of your voucher" in told and "card" not in told
    await yard.shop.jobs.run()
    assert await left(yard) == [(880, 0)] and await faults(yard) == []
    second = await start(yard, code)
    assert (await payment_of(yard, second.id)).hold_minor == 880
    await charge(yard, second, kwh=14)  # 8.40
    assert await left(yard) == [(40, 0)] and await refusal(yard, code) == "voucher_too_small"
    async with yard.shop.scope() as scope:
        await settlement.refund(scope, (await payment_of(yard, second.id)).id, "Too slow.", amount_minor=240)
    await yard.shop.jobs.run()
    assert await left(yard) == [(280, 0)]
    await redeem(yard, jule, code.lower())
    assert (await wallet_of(yard, jule)).balance_minor == 280 and await left(yard) == [(0, 0)]
    assert await refusal(yard, code) == "voucher_used" and await faults(yard) == []


async def test_a_session_is_stopped_before_the_code_is_used_up_and_nothing_beyond_it_is_owed(
    yard: Yard,
) -> None:
    (code,) = await issue(yard.shop, "3.00")
    session = await start(yard, code)
    await charge(yard, session, kwh=10)  # a station that did not hear the stop: 6.00
    async with yard.shop.scope() as scope:
        told = await scope.db.execute(text("select cost_cap_minor from livery.charging_session"))
        assert told.scalar_one() == 300
    assert (await payment_of(yard, session.id)).captured_minor == 300 and await left(yard) == [(0, 0)]
    assert (await yard.shop.balances())["write_off"] == 300 and await faults(yard) == []


async def test_of_guests_and_drivers_who_press_at_once_nobody_spends_what_another_has(
    yard: Yard, jule: Driver
) -> None:
    (code,) = await issue(yard.shop)
    presses = [start(yard, code, str(no)) for no in range(3)]
    answers = await asyncio.gather(*presses, redeem(yard, jule, code), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in answers) == 1
    refused = {
        one.code if isinstance(one, Refused) else one for one in answers if isinstance(one, BaseException)
    }
    assert refused <= {"voucher_held", "voucher_used"}
    assert await faults(yard) == []


async def test_of_a_code_of_several_uses_a_start_keeps_one_and_only_where_it_was_issued_for_guests(
    yard: Yard, jule: Driver
) -> None:
    (closed,) = await issue(yard.shop, "4.00", uses=3)
    assert await refusal(yard, closed) == "voucher_account"
    async with yard.shop.scope() as scope:
        (await scope.db.execute(select(VoucherBatch))).scalar_one().for_guests = True
    sessions = [await start(yard, closed, remote) for remote in "12"]
    assert [(await payment_of(yard, one.id)).hold_minor for one in sessions] == [400, 400]
    await redeem(yard, jule, closed)
    assert await left(yard) == [(0, 800)] and await refusal(yard, closed) == "voucher_held"
    for one in sessions:
        await give_up(yard, one.id)
    with pytest.raises(Refused):
        await redeem(yard, jule, closed)  # one use each
    assert await left(yard) == [(800, 0)] and await faults(yard) == []


async def test_what_a_session_holds_is_good_though_the_code_ends_or_is_revoked_meanwhile(yard: Yard) -> None:
    """What a session leaves of a revoked code is owed no longer; what is given back can be spent for a while."""
    (ended,) = await issue(yard.shop)
    session = await start(yard, ended)
    late = timedelta(days=4)
    await charge(yard, session, kwh=5)
    assert await refusal(yard, ended, at=late) == "voucher_expired"
    await give_back(yard, session.id, None, late)
    again = await start(yard, ended, at=late)
    assert (await payment_of(yard, again.id)).hold_minor == 1000
    await revoke(yard, late)
    assert await left(yard) == [(0, 1000)] and (await yard.shop.balances())["voucher_liability"] == -1000
    await charge(yard, again, kwh=10)
    assert (await payment_of(yard, again.id)).captured_minor == 600 and await left(yard) == [(0, 0)]
    await give_back(yard, again.id, 100, late)
    books = await yard.shop.balances()
    assert (books["voucher_liability"], books["goodwill"]) == (-100, 600) and await faults(yard) == []
    third = await start(yard, ended, at=late)
    assert (await payment_of(yard, third.id)).hold_minor == 100
    await charge(yard, third, kwh=10)
    assert await left(yard) == [(0, 0)]
    await revoke(yard, late)  # used up: it is left alone, and what is given back of it can still be spent
    await give_back(yard, third.id, 50, late)
    assert await left(yard) == [(50, 0)] and (await yard.shop.balances())["voucher_liability"] == -50
    await revoke(yard, late)  # whoever means it presses once more
    assert await left(yard) == [(0, 0)] and "voucher_liability" not in await yard.shop.balances()
    assert await refusal(yard, ended, at=late) == "voucher_unknown" and await faults(yard) == []


async def test_where_no_session_comes_of_it_the_code_has_it_back(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died after the press: what waits for a session too long is swept up."""
    (code,) = await issue(yard.shop)
    await start(yard, code)
    yard.shop.jobs.connection.execute(
        "delete from procrastinate.procrastinate_jobs where task_name like 'events.%'"
    )
    monkeypatch.setattr(yard.shop.jobs, "ahead", timedelta(hours=1))
    async with yard.shop.scope() as scope:
        await scope.db.execute(
            text("update livery.charging_session set pending_until = now() - interval '1 minute'")
        )
    await yard.shop.jobs.run()
    assert await left(yard) == [(1000, 0)] and await faults(yard) == []


async def test_guesses_are_counted_and_a_code_is_known_to_its_brand_alone_and_in_its_currency(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = await issue(yard.shop)
    other = await found_brand(yard.shop.database, "beta")
    async with yard.shop.database.scope(other, payments.ACTOR) as scope:
        with pytest.raises(Refused, match="not known here"):
            await vouchers.check_code(scope, code, remote="9")
    async with yard.shop.scope() as scope:
        await scope.db.execute(text("update livery.voucher_batch set currency = 'CHF'"))
    assert await refusal(yard, code) == "voucher_currency"
    async with yard.shop.scope() as scope:
        await scope.db.execute(text("update livery.voucher_batch set currency = 'EUR'"))
    monkeypatch.setattr(vouchers, "TRIES_PER_ADDRESS", 3)
    for _no in range(3):
        assert await refusal(yard, "ABCD-EFGH-JKMN-PQRS", "2001:db8::1") == "voucher_unknown"
    with pytest.raises(TooMany):
        await start(yard, code, "2001:db8::2")
    await start(yard, code, "7")


async def test_a_guest_charges_by_the_pages_and_staff_see_the_code_that_paid(
    yard: Yard, house: House
) -> None:
    tenant_id, place = yard.shop.tenant_id, f"/c/{await code_of(yard)}"
    guest, staff = house.driver("alpha"), await house.staff("alpha", tenant_id)
    assert "voucher" not in (await guest.open(place)).text
    code, *_more = await issue(yard.shop, codes=2)
    assert f'href="{place}/voucher"' in (await guest.open(place)).text
    read = await guest.read(f"{place}/voucher")
    wrong = await guest.post(f"{place}/voucher", read | {"voucher": "AAAA", "email": ""})
    assert wrong.status_code == 409 and "not known here" in wrong.text
    old = await guest.post(f"{place}/voucher", read | {"voucher": code, "terms": "0"})
    assert old.status_code == 409 and "price has changed" in old.text
    form = read | {"voucher": f" {code.lower()} ", "email": ""}
    answers = [await guest.post(f"{place}/voucher", form) for _twice in range(2)]
    assert [one.status_code for one in answers] == [303, 303]
    url = answers[0].headers["location"]
    assert answers[1].headers["location"] == url and code not in url
    async with yard.shop.scope() as scope:
        session = (await scope.db.execute(select(ChargingSession))).scalar_one()
    await yard.shop.jobs.run()
    assert f"Kept of voucher …{code[-4:]}: €10.00" in (await guest.open(url)).text
    await charge(yard, session, kwh=5)
    assert f"Paid by voucher …{code[-4:]}: €3.00" in (await guest.open(url)).text
    assert f"€3.00 paid by voucher …{code[-4:]}" in (await guest.open(f"{url}/receipt")).text
    key = public_id("payment", (await payment_of(yard, session.id)).id)
    async with yard.shop.scope() as scope:
        batch = public_id("voucher_batch", (await scope.db.execute(select(VoucherBatch.id))).scalar_one())
        assert code not in str(
            (await scope.db.execute(text("select a::text from livery.audit_entry a"))).all()
        )
    for path in (
        "/payments",
        f"/payments/{key}",
        f"/charging-sessions/{public_id('charging_session', session.id)}",
    ):
        assert f"Voucher …{code[-4:]}" in (await staff.open(path)).text
    shown = (await staff.open(f"/vouchers/{batch}")).text
    assert "€7.00" in shown and "€3.00" in shown and "€17.00" in shown
    refunded = await staff.post(f"/payments/{key}/refunds", {"amount": "1.00", "reason": "Slow"})
    assert refunded.status_code == 303 and await left(yard) == [(800, 0), (1000, 0)]
    assert "Given back: €1.00" in (await guest.open(url)).text and await faults(yard) == []
