"""Wallets and vouchers: money paid ahead is owed to its driver until it is spent, to the cent, and spent once."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.access import accounts
from app.access import service as access
from app.access.models import Driver
from app.access.verdict import Accepted, IdTokenValue
from app.billing import payments, sandbox, vouchers, wallets
from app.billing.models import Invoice, Payment, RefundRequest, VoucherBatch
from app.brands import service as brands
from app.charging import account, paid, refunds, service, settlement, wallet_starts
from app.charging.models import CDR, ChargingSession
from app.charging.reports import TransactionReport
from app.identity import service as identity
from app.kernel.clock import utcnow
from app.kernel.errors import Invalid, Refused, TooMany
from app.kernel.ids import public_id
from app.stations import service as stations
from tenants.scope import Actor
from tests.billing import invariants
from tests.billing.conftest import GOOD, Shop, jobs, shop
from tests.billing.test_disputes import DISPUTES, decide, hear
from tests.billing.test_failed_refunds import FAILS
from tests.billing.test_saved_cards import save
from tests.charging.test_account import Yard, yard
from tests.surfaces.conftest import house
from tests.web import CLI, House

__all__ = ["house", "jobs", "shop", "yard"]
pytestmark = pytest.mark.anyio

TODAY = f"{utcnow() + timedelta(days=2):%Y-%m-%d}"


@pytest.fixture
async def jule(yard: Yard) -> Driver:
    async with yard.shop.scope() as scope:
        await wallets.offer(scope, is_on=True)
    return await yard.driver("jule@example.org", card="CARD1")


async def issue(
    shop: Shop, amount: str = "10.00", codes: int = 1, uses: int = 1, by: str = "brand"
) -> list[str]:
    async with shop.scope() as scope:
        batch = await vouchers.issue(
            scope,
            name="Spring",
            amount=amount,
            code_count=codes,
            uses_per_code=uses,
            valid_until=TODAY,
            paid_by=by,
        )
        return [code for _row, code in await vouchers.reveal(scope, batch.id)]


async def redeem(yard: Yard, driver: Driver, code: str, remote: str = "1") -> None:
    async with yard.scope(driver) as scope:
        await vouchers.redeem(scope, code, remote=remote)


async def fill(yard: Yard, driver: Driver, amount: str, card: str = GOOD) -> Payment:
    """By card, as far as the wallet."""
    shop = yard.shop
    async with yard.scope(driver) as scope:
        op = await wallets.top_up(scope, amount, success_url="http://a.localhost/w", cancel_url="http://a.localhost/c",
                                  language="en", remote="1")  # fmt: skip
    await payments.run_op(shop.database, shop.tenant_id, op.id)
    payment = await shop.read(op.payment_id)
    await shop.pay(payment, card)
    await shop.look(payment)
    await shop.jobs.run()
    return await shop.read(payment.id)


async def wallet_of(yard: Yard, driver: Driver) -> wallets.Wallet:
    async with yard.shop.scope() as scope:
        return await wallets.get_wallet(scope, driver.id)


async def start(yard: Yard, driver: Driver, remote: str = "1") -> ChargingSession:
    """Pressed on the charger's page, paid from the wallet."""
    async with yard.scope(driver) as scope:
        session, op = await paid.request_start(
            scope, yard.evse_id, email="", language="en", origin="", remote=remote, driver_id=driver.id,
            keep=await wallet_starts.keeper(scope),
        )  # fmt: skip
    assert op is None
    return session


async def charge(yard: Yard, session: ChargingSession, kwh: int) -> None:
    """The wish becomes a session of an hour that took so much, settled."""
    shop, began = yard.shop, utcnow()
    await shop.jobs.run()
    actor = Actor.station(yard.station_id)
    async with shop.database.scope(shop.tenant_id, actor) as scope:
        started = await service.get_session(scope, session.id)
        assert started.id_token is not None
        value = accounts.presented(scope, started.id_token).value
        verdict = await service.report_transaction(scope, yard.station_id, TransactionReport(
            kind="Started", at=began, received_at=began, natural_key=f"s{session.id}", evse_no=1, connector_no=1,
            id_token=IdTokenValue(value), meter_start_wh=Decimal(0),
        ))  # fmt: skip
    await end(yard, session.id, verdict.ocpp_transaction_id, kwh)


async def end(yard: Yard, session_id: UUID, transaction: str | None, kwh: int) -> None:
    shop, ended = yard.shop, utcnow() + timedelta(hours=1)
    async with shop.database.scope(shop.tenant_id, Actor.station(yard.station_id), now=ended) as scope:
        await service.report_transaction(scope, yard.station_id, TransactionReport(
            kind="Ended", at=ended, received_at=ended, natural_key=f"e{session_id}",
            meter_stop_wh=Decimal(kwh * 1000), ocpp_transaction_id=transaction,
        ))  # fmt: skip
    async with shop.database.scope(shop.tenant_id, CLI, now=ended) as scope:
        await settlement.settle(scope, session_id)
    await shop.jobs.run()


async def faults(yard: Yard) -> list[str]:
    """The invariants of money, and that the history of each wallet comes to its account."""
    shop = yard.shop
    found = await invariants.money_faults(shop.database, shop.tenant_id, now=utcnow())
    async with shop.scope() as scope:
        for driver in (await scope.db.execute(select(Driver))).scalars():
            wallet = await wallets.get_wallet(scope, driver.id)
            entries = await wallets.list_entries(scope, wallet, limit=10_000)
            if sum(one.amount_minor for one in entries) != wallet.balance_minor:
                found.append(f"history of {driver.name} is not its balance")
            if entries and entries[-1].balance_minor != entries[-1].amount_minor:
                found.append(f"history of {driver.name} does not begin at nothing")
            if wallet.available_minor + wallet.kept_minor + wallet.frozen_minor > max(
                wallet.balance_minor, 0
            ):
                found.append(f"{driver.name} could spend more than is there")
    return found


# -- vouchers ----------------------------------------------------------------------------------------------------------


async def test_a_voucher_is_owed_when_issued_by_the_wallet_when_redeemed_and_by_nobody_when_revoked(
    yard: Yard, jule: Driver
) -> None:
    """Each code fills a driver's wallet once, however it is typed, and as many wallets as it may."""
    one, two, _three = await issue(yard.shop, codes=3, uses=2)
    assert len(one.replace("-", "")) == 16 and await yard.shop.balances() == {
        "goodwill": 6000, "voucher_liability": -6000
    }  # fmt: skip
    nils, olga = await yard.driver("nils@example.org"), await yard.driver("olga@example.org")
    await redeem(yard, jule, f" {one.lower().replace('-', '  ')} ")
    await redeem(yard, nils, one.replace("1", "l").replace("0", "o"))
    for driver in (jule, olga):  # once each; and twice in all
        with pytest.raises(Refused) as refused:
            await redeem(yard, driver, one)
        assert refused.value.code == "voucher_used"
    assert (await wallet_of(yard, jule)).balance_minor == 1000
    books = {"goodwill": 6000, "voucher_liability": -4000, "wallet_liability": -2000}
    assert await yard.shop.balances() == books and await faults(yard) == []
    async with yard.shop.scope() as scope:
        batch = (await scope.db.execute(select(VoucherBatch))).scalar_one()
        second = (await vouchers.list_vouchers(scope, batch.id))[1]
        assert await vouchers.revoke(scope, batch.id, second.id) == 1
    with pytest.raises(Refused) as refused:
        await redeem(yard, olga, two)
    assert refused.value.code == "voucher_unknown"
    async with yard.shop.scope() as scope:
        assert await vouchers.revoke(scope, batch.id) == 1 and await vouchers.revoke(scope, batch.id) == 0
    assert (
        await yard.shop.balances() == {"goodwill": 2000, "wallet_liability": -2000}
        and await faults(yard) == []
    )


async def test_a_code_is_redeemed_once_by_two_who_press_at_once_and_no_longer_than_it_is_valid(
    yard: Yard, jule: Driver
) -> None:
    (code,) = await issue(yard.shop)
    nils = await yard.driver("nils@example.org")
    answers = await asyncio.gather(*(redeem(yard, one, code) for one in (jule, nils)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in answers) == ["NoneType", "Refused"]
    (late,) = await issue(yard.shop)
    after = utcnow() + timedelta(days=4)
    async with yard.shop.database.scope(yard.shop.tenant_id, accounts.actor_of(jule), now=after) as scope:
        with pytest.raises(Refused) as refused:
            await vouchers.redeem(scope, late, remote="1")
    assert refused.value.code == "voucher_expired" and await faults(yard) == []


async def test_codes_are_stored_sealed_and_guesses_are_counted(yard: Yard, jule: Driver) -> None:
    (code,) = await issue(yard.shop)
    async with yard.shop.scope() as scope:
        row = (await scope.db.execute(text("select v::text from livery.voucher v"))).scalar_one()
        assert code not in row and code.replace("-", "") not in row
    for _ in range(vouchers.TRIES):
        with pytest.raises(Refused, match="not known"):
            await redeem(yard, jule, "ABCD-EFGH-JKMN-PQRS")
    with pytest.raises(TooMany):
        await redeem(yard, jule, code)


async def test_a_voucher_is_sold_only_where_its_vat_is_not_certain_yet_and_its_buyer_owes_it(
    yard: Yard, jule: Driver
) -> None:
    with pytest.raises(Refused) as refused:
        await issue(yard.shop, by="buyer")
    assert refused.value.code == "single_purpose"
    async with yard.shop.scope() as scope:
        await stations.create_location(scope, name="Wien", address="Gasse 1", city="Wien", postal_code="1010",
                                       country="AUT", time_zone="Europe/Vienna")  # fmt: skip
    await issue(yard.shop, "25.00", codes=2, by="buyer")
    assert await yard.shop.balances() == {"voucher_receivable": 5000, "voucher_liability": -5000}
    async with yard.shop.scope() as scope:
        batch = (await scope.db.execute(select(VoucherBatch))).scalar_one()
        await vouchers.mark_paid(scope, batch.id)
        (seen,) = await vouchers.look(scope, [batch])
        assert (seen.owed_minor, seen.unpaid_minor) == (5000, 0)
    assert await yard.shop.balances() == {"bank": 5000, "voucher_liability": -5000}


async def test_so_many_vouchers_as_one_person_may_not_give_away_in_a_day_wait_for_another(
    yard: Yard, house: House
) -> None:
    """Also in parts: there are no codes, and nothing is owed, before a colleague has approved them."""
    async with yard.shop.scope() as scope:
        await wallets.offer(scope, is_on=True)
        (await payments.get_own_account(scope)).refund_limit_minor = 5000
        await identity.invite_staff(scope, email="bea@alpha.example", name="Bea", role="accountant")
    tenant_id = yard.shop.tenant_id
    ada, bea = (
        await house.staff("alpha", tenant_id),
        await house.staff("alpha", tenant_id, email="bea@alpha.example"),
    )
    form = {"name": "Spring", "amount": "10.00", "code_count": "3", "uses_per_code": "1", "valid_until": TODAY,
            "paid_by": "brand"}  # fmt: skip
    for one in (ada, bea):
        await one.open("/vouchers")
    await ada.post("/vouchers", form)
    assert (await yard.shop.balances())["voucher_liability"] == -3000
    batch = (await ada.post("/vouchers", form)).headers["location"]
    shown = (await ada.open(batch)).text
    assert "a colleague decides" in shown and "Print the codes" not in shown
    assert (await ada.post(f"{batch}/revelations")).status_code == 409
    await ada.post(f"{batch}/approvals")
    assert (await yard.shop.balances())["voucher_liability"] == -3000
    assert "Approve: issue €30.00" in (await bea.open(batch)).text
    for _twice in range(2):
        await bea.post(f"{batch}/approvals")
    assert "Print the codes" in (await ada.open(batch)).text
    assert (await yard.shop.balances())["voucher_liability"] == -6000
    assert (await bea.post("/vouchers", form)).status_code == 303  # bea herself has issued none today
    other = (await ada.post("/vouchers", form)).headers["location"]
    await bea.post(f"{other}/rejections", {"note": ""})
    await bea.post(f"{other}/rejections", {"note": "Too many"})
    assert "Too many" in (await ada.open(other)).text
    assert (await yard.shop.balances())["voucher_liability"] == -9000 and await faults(yard) == []


async def test_machines_issue_print_and_revoke_vouchers_and_read_a_wallet(
    yard: Yard, jule: Driver, house: House
) -> None:
    api = await house.api("alpha", yard.shop.tenant_id)
    asked = {"name": "Spring", "amount": "10.00", "code_count": 2, "valid_until": TODAY}
    money = {"amount": "10.00", "currency": "EUR"}  # as all calls say it
    for wrong in (
        {"code_count": "2"},
        {"name": True},
        {"paid_by": None},
        {"amount": money | {"currency": "CHF"}},
        {"amount": money | {"amount": 10}},
    ):
        answer = await api.send("POST", "/api/v1/vouchers", json=asked | wrong)
        assert answer.status_code == 422 and answer.json()["errors"][0]["field"] in wrong
    made = await api.send("POST", "/api/v1/vouchers", json=asked | {"amount": money})
    assert (made.status_code, made.json()["state"], made.json()["owed"]["amount"]) == (201, "issued", "20.00")
    path = f"/api/v1/vouchers/{made.json()['id']}"
    told = await api.send("POST", f"{path}/revelations", json={})
    assert told.headers["cache-control"] == "no-store"
    first, second = told.json()["vouchers"]
    await redeem(yard, jule, first["code"])
    left = await api.send("POST", f"{path}/revocations", json={"voucher_id": second["id"]})
    assert left.json()["owed"]["amount"] == "0.00" and "code" not in left.json()["vouchers"][0]
    assert (await api.get("/api/v1/vouchers")).json()["data"][0]["used"] == 1
    much = await api.send("POST", "/api/v1/vouchers", json=asked | {"code_count": 21})
    assert (much.status_code, much.json()["state"]) == (202, "waiting")
    wallet = (await api.get(f"/api/v1/drivers/{public_id('driver', jule.id)}/wallet")).json()
    assert wallet["available"] == {"amount": "10.00", "currency": "EUR"}
    assert [(one["kind"], one["note"]) for one in wallet["entries"]] == [("voucher_redeemed", "Spring")]


# -- the wallet --------------------------------------------------------------------------------------------------------


async def test_a_session_is_paid_from_the_wallet_exactly_and_its_papers_and_corrections_follow(
    yard: Yard, jule: Driver
) -> None:
    """Top-up, session, a correction: invoice = wallet, and every posting of it."""
    top_up = await fill(yard, jule, "40.00")
    assert (top_up.state, top_up.captured_minor) == ("captured", 4000)
    session = await start(yard, jule)
    wallet = await wallet_of(yard, jule)
    assert (wallet.balance_minor, wallet.kept_minor, wallet.available_minor) == (4000, 3000, 1000)
    await charge(yard, session, kwh=10)
    wallet = await wallet_of(yard, jule)
    assert (wallet.balance_minor, wallet.available_minor) == (3400, 3400)  # 10 kWh at 0.50 and 20 % VAT
    async with yard.shop.scope() as scope:
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        invoice = (await scope.db.execute(select(Invoice))).scalar_one()
        payment = await payments.find_payment(scope, "charging_session", session.id)
        assert payment is not None and (payment.provider, payment.captured_minor) == ("wallet", 600)
        assert (cdr.incl_vat_minor, invoice.gross_minor, invoice.buyer["driver_id"]) == (
            600,
            600,
            str(jule.id),
        )
    books = await yard.shop.balances()
    assert (
        books["wallet_liability"] == -3400 and "driver_receivable" not in books and await faults(yard) == []
    )
    async with yard.shop.scope() as scope:
        await settlement.credit(scope, cdr.id, "The meter was wrong.", energy_wh=5_000)
    await yard.shop.jobs.run()
    assert (await wallet_of(yard, jule)).balance_minor == 3700  # 5 kWh: 3.00 remain paid
    assert await faults(yard) == []
    async with yard.shop.scope() as scope:
        kinds = [
            one.kind for one in await wallets.list_entries(scope, await wallets.get_wallet(scope, jule.id))
        ]
    assert kinds == ["refunded", "captured", "captured"]
    async with yard.shop.scope() as scope:  # from the wallet it could be paid out: the brand's limit holds
        (await payments.get_own_account(scope)).refund_limit_minor = 100
        assert isinstance(
            await refunds.ask_refund(scope, payment.id, "Kind.", amount_minor=200), RefundRequest
        )


async def test_sessions_at_once_keep_no_more_than_the_wallet_holds_and_what_does_not_begin_lets_go(
    yard: Yard, jule: Driver
) -> None:
    await fill(yard, jule, "35.00")
    sessions = [await start(yard, jule, remote) for remote in "12"]
    async with yard.shop.scope() as scope:
        kept = [await payments.find_payment(scope, "charging_session", one.id) for one in sessions]
    assert [one.hold_minor for one in kept if one] == [3000, 500]
    with pytest.raises(Refused) as refused:
        await start(yard, jule, "3")
    assert refused.value.code == "wallet_too_small"
    async with yard.shop.scope() as scope:
        for one in sessions:
            await paid.give_up(scope, one.id)
    await yard.shop.jobs.run()
    assert (await wallet_of(yard, jule)).available_minor == 3500
    answers = await asyncio.gather(*(start(yard, jule, remote) for remote in "456"), return_exceptions=True)
    assert sum(isinstance(one, Refused) for one in answers) == 1 and await faults(yard) == []


async def test_a_card_at_the_reader_is_paid_from_the_wallet_where_all_of_it_is_there_and_else_as_the_group_pays(
    yard: Yard, jule: Driver
) -> None:
    """Of sessions that were over before anybody looked: nothing stopped them, and nothing of them is written off."""
    for code in await issue(yard.shop, "5.00"):
        await redeem(yard, jule, code)
    first = await yard.charge("CARD1", utcnow() - timedelta(hours=3), settled=False)
    await yard.shop.jobs.run()
    async with yard.shop.scope() as scope:
        cdr = (await scope.db.execute(select(CDR).where(CDR.session_id == first))).scalar_one()
        assert (cdr.collection, cdr.incl_vat_minor) == ("per_session", 600)
        assert await payments.find_payment(scope, "charging_session", first) is None
    assert (await wallet_of(yard, jule)).balance_minor == 500
    for code in await issue(yard.shop, "5.00"):
        await redeem(yard, jule, code)
    second = await yard.charge("CARD1", utcnow() - timedelta(hours=1), settled=False)
    await yard.shop.jobs.run()
    async with yard.shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", second)
        assert payment is not None and (payment.hold_minor, payment.captured_minor) == (600, 600)
    wallet = await wallet_of(yard, jule)
    async with yard.shop.scope() as scope:
        entries = await wallets.list_entries(scope, wallet)
    assert wallet.balance_minor == 400
    assert await faults(yard) == []
    assert (entries[0].session_id, wallets.words_of(entries[0])) == (second, "Charging")


async def test_wallet_and_saved_card_have_one_order_at_the_reader_and_on_the_page(
    yard: Yard, jule: Driver
) -> None:
    """The wallet where it has all that a card would hold, 30.00; else the card; without one the wallet as it is. A
    brand that wants a means on file takes either. Whoever comes late, cable first, is capped too."""
    shop, station = yard.shop, Actor.station(yard.station_id)
    transaction = 0

    async def tell(kind: Any, **told: Any) -> None:
        report = TransactionReport(kind=kind, at=utcnow(), received_at=utcnow(), ocpp_transaction_id=f"t{transaction}",
                                   seq_no=told.pop("seq_no", 0), evse_no=1, connector_no=1, **told)  # fmt: skip
        async with shop.database.scope(shop.tenant_id, station) as scope:
            await service.report_transaction(scope, yard.station_id, report)

    async def visit() -> tuple[str, int | None, str]:
        """By whom a session begun cable first is paid, its cap, and how the page would have begun it."""
        nonlocal transaction
        transaction += 1
        async with yard.scope(jule) as scope:
            evse = await stations.find_place(scope, await code_of(yard))
            way = await wallet_starts.prefer(
                scope, jule, evse, await account.find_way(scope, jule, yard.station_id)
            )
        async with shop.database.scope(shop.tenant_id, station) as scope:
            verdict = await access.plan_authorization(scope, yard.station_id, IdTokenValue("CARD1"), 1)
        assert isinstance(verdict, Accepted)
        await tell("Started", meter_start_wh=Decimal(0), trigger_reason="CablePluggedIn")
        await tell("Updated", seq_no=1, id_token=IdTokenValue("CARD1"), trigger_reason="Authorized")
        await shop.jobs.run()
        async with shop.scope() as scope:
            query = select(ChargingSession).where(ChargingSession.status == "ACTIVE")
            session = (await scope.db.execute(query)).scalar_one()
            payment = await payments.find_payment(scope, "charging_session", session.id)
        await tell("Ended", seq_no=2, meter_stop_wh=Decimal(0))
        await shop.jobs.run()
        assert payment is not None
        by = "wallet" if payment.provider == "wallet" else "card"
        return by, session.cost_cap_minor, "card" if way.saved else way.collection

    async with shop.scope() as scope:
        (await payments.get_own_account(scope)).card_on_file = "required"
    with pytest.raises(AssertionError):
        await visit()
    await fill(yard, jule, "21.00")
    async with shop.scope() as scope:
        await wallets.credit(scope, jule.id, "10.00", "Sorry")
    assert await visit() == ("wallet", 3000, "wallet")
    await save(shop, jule)
    assert await visit() == ("wallet", 3000, "wallet")
    async with shop.scope() as scope:
        await wallets.credit(scope, jule.id, "-10.00", "Mistake")
    assert await visit() == ("card", 3000, "card")
    async with shop.scope() as scope:
        (await payments.get_own_account(scope)).card_on_file = "off"
    assert await visit() == ("wallet", 2100, "wallet") and await faults(yard) == []


async def test_gifts_are_no_money_to_be_paid_out_whenever_they_came(yard: Yard, jule: Driver) -> None:
    """The money that was paid in is spent; what was given afterwards is not paid out in its place."""
    await fill(yard, jule, "12.00")
    await charge(yard, await start(yard, jule), kwh=20)  # 12.00
    async with yard.shop.scope() as scope:
        await wallets.credit(scope, jule.id, "20.00", "Sorry for the broken plug.")
    async with yard.shop.scope() as scope:
        with pytest.raises(Refused, match="nothing in this wallet that came from a card"):
            await wallets.pay_back(scope, jule.id, "She moves away.")
    assert (await wallet_of(yard, jule)).balance_minor == 2000


async def test_staff_take_back_what_was_given_and_never_what_the_driver_paid_in(
    yard: Yard, jule: Driver
) -> None:
    await fill(yard, jule, "20.00")
    async with yard.shop.scope() as scope:
        await wallets.credit(scope, jule.id, "5.00", "Sorry for the broken plug.")
    for amount in ("-5.01", "-25.00"):
        async with yard.shop.scope() as scope:
            with pytest.raises(Invalid, match=r"€5\.00 of what was given is left"):
                await wallets.credit(scope, jule.id, amount, "It was another's.")
    async with yard.shop.scope() as scope:
        await wallets.credit(scope, jule.id, "-5.00", "It was another's.")
        assert await wallets.find_refundable(scope, await wallets.get_wallet(scope, jule.id))
    assert (await wallet_of(yard, jule)).balance_minor == 2000 and await faults(yard) == []


async def test_what_is_not_spent_goes_back_to_the_cards_first_in_first_out_and_gifts_do_not(
    yard: Yard, jule: Driver
) -> None:
    first, second = await fill(yard, jule, "20.00"), await fill(yard, jule, "30.00")
    async with yard.shop.scope() as scope:
        await wallets.credit(scope, jule.id, "5.00", "Sorry for the broken plug.")
    await charge(yard, await start(yard, jule), kwh=20)  # 12.00
    async with yard.scope(jule) as scope:
        with pytest.raises(Refused, match="money in your wallet"):
            await account.close(scope, "jule@example.org")
    async with yard.shop.scope() as scope:
        assert await wallets.pay_back(scope, jule.id, "She moves away.") == 4300
        wallet = await wallets.get_wallet(scope, jule.id)
        assert (wallet.balance_minor, wallet.available_minor) == (
            4300,
            0,
        )  # on its way: spent by nobody meanwhile
    await yard.shop.jobs.run()
    assert [(await yard.shop.read(one.id)).refunded_minor for one in (first, second)] == [2000, 2300]
    assert (await wallet_of(yard, jule)).balance_minor == 0 and await faults(yard) == []
    async with yard.scope(jule) as scope:
        await account.close(scope, "jule@example.org")


async def test_tries_that_come_to_money_or_to_nothing_at_all_keep_nobody_out(
    yard: Yard, jule: Driver
) -> None:
    for _ in range(wallets.TOP_UPS + 1):
        async with yard.scope(jule) as scope:
            with pytest.raises(Invalid):
                await wallets.top_up(scope, "ten", success_url="", cancel_url="", language="en", remote="1")
    await fill(yard, jule, "5.00")
    for number in range(wallets.TOP_UPS + 1):
        async with yard.scope(jule) as scope:
            asked = wallets.top_up(
                scope, "1.00", success_url="http://a.localhost/w", cancel_url="http://a.localhost/c", language="en",
                remote="1",
            )  # fmt: skip
            if number < wallets.TOP_UPS:
                await asked
                continue
            with pytest.raises(TooMany):
                await asked


async def test_a_brand_changes_its_currency_only_when_nothing_is_under_way_in_the_old_one(
    yard: Yard, jule: Driver
) -> None:
    async def change() -> str:
        async with yard.shop.scope() as scope:
            try:
                await brands.update_profile(scope, {"currency": "CHF"})
            except Invalid as error:
                assert error.faults[0].code == "currency_in_use"
                return error.faults[0].message
            await scope.db.rollback()
        return ""

    assert await change() == ""
    await redeem(yard, jule, (await issue(yard.shop, "40.00"))[0])
    assert "wallets or vouchers in EUR" in await change()
    session = await start(yard, jule)
    assert "wallets or vouchers, payments that are not over, sessions that are not settled" in await change()
    await charge(yard, session, kwh=10)
    async with yard.shop.scope() as scope:
        wallet = await wallets.get_wallet(scope, jule.id)
        await wallets.credit(scope, jule.id, f"-{wallet.available_minor / 100:.2f}", "She leaves")
    assert await change() == ""


async def test_what_a_card_sends_back_after_its_driver_has_left_is_paid_in_another_way_once(
    yard: Yard, jule: Driver, house: House
) -> None:
    top_up = await fill(yard, jule, "20.00", FAILS)
    async with yard.shop.scope() as scope:
        await wallets.pay_back(scope, jule.id, "She moves away.")
    await yard.shop.jobs.run()
    async with yard.scope(jule) as scope:
        await account.close(scope, "jule@example.org")
    await sandbox.set_clock(yard.shop.database, 3600)
    await yard.shop.look(top_up)
    assert (await wallet_of(yard, jule)).balance_minor == 2000
    staff = await house.staff("alpha", yard.shop.tenant_id)
    path = f"/payments/{public_id('payment', top_up.id)}"
    assert path in (await staff.open("/payments")).text
    wallet_page = f"/drivers/{public_id('driver', jule.id)}/wallet"
    shown = (await staff.open(wallet_page)).text
    assert path in shown and "closed account" in shown and "Give credit" not in shown
    assert "Mark as paid" in (await staff.open(path)).text
    for reference in ("", "SEPA 4711", "SEPA 4711"):
        await staff.post(f"{path}/repayments", {"reference": reference})
    assert (await yard.shop.read(top_up.id)).repaid_minor == 2000
    assert (await yard.shop.balances())["bank"] == -2000 and await faults(yard) == []
    assert (await wallet_of(yard, jule)).balance_minor == 0
    assert path not in (await staff.open("/payments")).text.partition("<table")[0]
    assert "SEPA 4711" in (await staff.open(wallet_page)).text


async def test_a_top_up_that_the_bank_takes_back_cannot_be_spent(yard: Yard, jule: Driver) -> None:
    await yard.shop.look(await fill(yard, jule, "20.00", DISPUTES))
    wallet = await wallet_of(yard, jule)
    assert (wallet.balance_minor, wallet.available_minor) == (2000, 0)
    with pytest.raises(Refused, match="too little"):
        await start(yard, jule)
    await decide(yard.shop, "lost")
    await hear(yard.shop, copies=2)
    wallet = await wallet_of(yard, jule)
    assert (wallet.balance_minor, wallet.available_minor) == (0, 0) and await faults(yard) == []
    async with yard.shop.scope() as scope:
        (last, first) = await wallets.list_entries(scope, wallet)
    assert [wallets.words_of(one) for one in (first, last)] == ["Paid in by card", "Asked back by your bank"]
    await fill(yard, jule, "10.00")
    assert (await wallet_of(yard, jule)).available_minor == 1000
    async with yard.shop.scope() as scope:
        assert await wallets.pay_back(scope, jule.id, "She moves away.") == 1000


async def test_a_wallet_is_offered_where_the_brand_says_so_and_where_it_is_enough(
    yard: Yard, jule: Driver
) -> None:
    async def way() -> str:
        async with yard.scope(jule) as scope:
            evse = await stations.find_place(scope, await code_of(yard))
            found = await account.find_way(scope, jule, yard.station_id)
            return (await wallet_starts.prefer(scope, jule, evse, found)).collection

    assert await way() == "card"
    (code,) = await issue(yard.shop, "0.50")  # the first kWh costs 0.60
    await redeem(yard, jule, code)
    assert await way() == "card"
    await fill(yard, jule, "10.00")
    assert await way() == "wallet"
    async with yard.shop.scope() as scope:
        await wallets.offer(scope, is_on=False)
    assert await way() == "card"


async def code_of(yard: Yard) -> str:
    async with yard.shop.scope() as scope:
        return (await scope.db.execute(text("select code from livery.evse"))).scalar_one()


# -- the pages ---------------------------------------------------------------------------------------------------------


async def test_a_driver_fills_the_wallet_and_starts_from_it_by_the_pages_and_staff_see_what_is_owed(
    yard: Yard, jule: Driver, house: House
) -> None:
    """Issue, print, redeem, pay in, start, pay back: each by a form, each told."""
    tenant_id, code = yard.shop.tenant_id, await code_of(yard)
    staff = await house.staff("alpha", tenant_id)
    await staff.open("/vouchers")
    form = {"name": "Spring", "amount": "10.00", "code_count": "2", "uses_per_code": "1", "valid_until": TODAY,
            "paid_by": "brand"}  # fmt: skip
    wrong = await staff.post(
        "/vouchers", form | {"amount": "ten", "code_count": "0", "valid_until": "2020-01-01"}
    )
    assert wrong.status_code == 422 and wrong.text.count('class="fault"') == 3
    batch = (await staff.post("/vouchers", form)).headers["location"]
    assert "0 times" in (await staff.open(batch)).text
    listed = await staff.post(f"{batch}/revelations", {"as": "csv"})
    codes = [line.split(",")[0].strip('"') for line in listed.text.splitlines()[1:]]
    printed = await staff.post(f"{batch}/revelations")
    assert len(codes) == 2 and all(one in printed.text for one in codes)
    assert printed.headers["cache-control"] == "no-store"

    rider = await house.rider("alpha", tenant_id, "jule@example.org")
    assert (await rider.open("/account/wallet")).status_code == 200
    unknown = await rider.post("/account/wallet/vouchers", {"code": "AAAA-BBBB-CCCC-DDDD"})
    assert unknown.status_code == 409 and "not known here" in unknown.text
    assert (await rider.post("/account/wallet/vouchers", {"code": codes[0]})).status_code == 303
    too_little = await rider.post("/account/wallet/top-ups", {"amount": "0.10"})
    assert too_little.status_code == 422 and "less than €0.50" in too_little.text
    paying = await rider.post("/account/wallet/top-ups", {"amount": "20,00"})
    assert paying.status_code == 303 and "/pay/" in paying.headers["location"]
    async with yard.shop.scope() as scope:
        (payment,) = await wallets.list_top_ups(scope, jule.id)
    await yard.shop.pay(payment)
    assert "on its way here" in (await rider.open("/account/wallet?paid=1")).text
    await yard.shop.jobs.run()
    shown = (await rider.open("/account/wallet?paid=1")).text
    assert "on its way here" not in shown and "€30.00" in shown and "Spring" in shown

    place = await rider.open(f"/c/{code}")
    assert "up to €30.00 is kept" in place.text and "E-mail for your receipt" not in place.text
    session = (await rider.post(f"/c/{code}/start", await rider.read(f"/c/{code}"))).headers["location"]
    await yard.shop.jobs.run()
    assert "Kept in your wallet: €30.00" in (await rider.open(session)).text
    assert "Canceled" in (await rider.get((await rider.post(f"{session}/cancel")).headers["location"])).text

    path = f"/drivers/{public_id('driver', jule.id)}/wallet"
    await yard.shop.jobs.run()
    assert "€30.00" in (await staff.open(path)).text
    assert (await staff.post(f"{path}/credits", {"amount": "5", "reason": ""})).status_code == 422
    limit = await staff.post(f"{path}/credits", {"amount": "201.00", "reason": "Much"})
    assert limit.status_code == 409 and "at most" in limit.text
    given = {"amount": "5.00", "reason": "Sorry", "balance": "3000"}
    assert 'name="balance" value="3000"' in limit.text
    assert (await staff.post(f"{path}/credits", given)).status_code == 303
    again = await staff.post(f"{path}/credits", given)  # a second press
    assert again.status_code == 409 and "has changed since you looked" in again.text
    assert (await staff.post(f"{path}/refunds", {"back_reason": ""})).status_code == 422
    assert (await staff.post(f"{path}/refunds", {"back_reason": "She asked"})).status_code == 303
    await yard.shop.jobs.run()
    told = (await rider.open("/account/wallet")).text
    assert "Paid back to your card" in told and "She asked" in told and "Credit from the operator" in told
    assert (await wallet_of(yard, jule)).balance_minor == 1500 and await faults(yard) == []
    assert (await staff.post("/vouchers/wallets", {})).status_code == 303
    assert "hold €30.00" in (await rider.open(f"/c/{code}")).text
