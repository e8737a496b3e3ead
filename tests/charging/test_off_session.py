"""Sessions that a saved card pays while nobody stands by: at the reader and by one press, with every answer of the
bank, and with a provider that is down."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.access import service as access
from app.access.models import Driver
from app.access.verdict import Accepted, IdTokenValue
from app.access.verdict import Refused as TokenRefused
from app.billing import cards, payments, sandbox
from app.billing.models import Payment, SavedCard
from app.charging import account, paid, service, settlement
from app.charging.models import CDR, ChargingSession
from app.charging.reports import TransactionReport
from app.kernel.clock import utcnow
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from app.notifications.models import Mail
from app.stations.models import EVSE, StationCommand
from tenants.scope import Actor
from tests.billing.conftest import ASKS, GOOD, Shop, jobs, shop
from tests.billing.invariants import money_faults
from tests.billing.test_saved_cards import LATER_DECLINED, OTHER, save
from tests.charging.test_account import Yard, yard
from tests.surfaces.conftest import house
from tests.web import House

__all__ = ["house", "jobs", "shop", "yard"]
pytestmark = pytest.mark.anyio
KWH_GROSS = 60  # cents: 0.50 and 20 %


@dataclass
class Reader:
    """A driver with a charging card at the yard's station, and a payment card on file."""

    yard: Yard
    driver: Driver
    transaction: str = ""
    count: int = 0

    @property
    def shop(self) -> Shop:
        return self.yard.shop

    async def verdict(self) -> str:
        async with self.shop.database.scope(
            self.shop.tenant_id, Actor.station(self.yard.station_id)
        ) as scope:
            found = await access.plan_authorization(scope, self.yard.station_id, IdTokenValue("CARD1"), 1)
        return "" if isinstance(found, Accepted) else found.reason if isinstance(found, TokenRefused) else "?"

    async def start(self, *, work: bool = True) -> UUID:
        self.count += 1
        await self._report("Started", f"start{self.count}", meter_start_wh=Decimal(0), id_token=IdTokenValue("CARD1"),
                           evse_no=1, connector_no=1)  # fmt: skip
        async with self.shop.scope() as scope:
            query = select(ChargingSession).where(ChargingSession.status == "ACTIVE")
            session = (await scope.db.execute(query)).scalar_one()
            self.transaction = session.ocpp_transaction_id or ""
        if work:
            await self.shop.jobs.run()
        return session.id

    async def stop(self, kwh: Decimal, *, work: bool = True) -> None:
        await self._report("Ended", f"stop{self.count}", meter_stop_wh=kwh * 1000, after=timedelta(hours=4),
                           ocpp_transaction_id=self.transaction)  # fmt: skip
        if work:
            await self.shop.jobs.run()

    async def _report(self, kind: Any, key: str, *, after: timedelta = timedelta(), **told: Any) -> None:
        now, actor = utcnow() + after, Actor.station(self.yard.station_id)
        async with self.shop.database.scope(self.shop.tenant_id, actor, now=now) as scope:
            report = TransactionReport(kind=kind, at=now, received_at=now, natural_key=key, **told)
            await service.report_transaction(scope, self.yard.station_id, report)

    async def payment(self, session_id: UUID) -> Payment:
        async with self.shop.scope() as scope:
            found = await payments.find_payment(scope, "charging_session", session_id)
            assert found is not None
            return found

    async def stops(self) -> int:
        async with self.shop.scope() as scope:
            query = select(StationCommand.id).where(StationCommand.action == "RemoteStopTransaction")
            return len((await scope.db.execute(query)).all())

    async def mails(self) -> list[str]:
        async with self.shop.scope() as scope:
            return list(
                (
                    await scope.db.execute(
                        select(Mail.kind).where(Mail.kind != "invitation").order_by(Mail.id)
                    )
                ).scalars()
            )

    async def faults(self) -> list[str]:
        return await money_faults(self.shop.database, self.shop.tenant_id, now=utcnow())

    async def pay_by_link(self, house: House, session_id: UUID, card: str) -> None:
        """From the mail, without a login, confirmed at the bank where it asks."""
        async with self.shop.scope() as scope:
            link = paid.link_of(scope, session_id)
        visitor = house.driver("alpha")
        shown = await visitor.get(f"/s/{link}")
        assert "/pay" in shown.text
        answer = await visitor.post(f"/s/{link}/pay")
        again = await visitor.post(f"/s/{link}/pay")
        assert answer.status_code == 303 and answer.headers["location"] == again.headers["location"]
        payment = await self.payment(session_id)
        said = await self.shop.pay(payment, card)
        if said["status"] == "authenticate":
            await sandbox.authenticate_checkout(
                self.shop.database, payment.account_ref, payment.checkout_ref or "", succeeds=True
            )
        await self.shop.look(payment)
        await self.shop.jobs.run()


@pytest.fixture
async def reader(yard: Yard) -> Reader:
    return Reader(yard, await yard.driver("jule@example.org", card="CARD1"))


async def test_a_saved_card_pays_a_session_from_the_reader_and_the_station_never_waits(
    reader: Reader,
) -> None:
    card = await save(reader.shop, reader.driver)
    calls = len(reader.shop.wire.calls)
    assert await reader.verdict() == ""
    session_id = await reader.start(work=False)
    assert len(reader.shop.wire.calls) == calls  # authorized and begun: the provider was not asked yet
    await reader.shop.jobs.run()
    payment = await reader.payment(session_id)
    assert (payment.state, payment.hold_minor, payment.saved_card_id) == ("authorized", 3000, card.id)
    assert payment.capture_before is not None and payment.capture_before < utcnow() + timedelta(days=5)
    async with reader.shop.scope() as scope:
        session = await service.get_session(scope, session_id)
        assert session.cost_cap_minor == 3000
    await reader.stop(Decimal(10))
    payment = await reader.payment(session_id)
    assert (payment.state, payment.captured_minor, payment.method) == ("captured", 600, "Visa •••• 4242")
    assert await reader.shop.captures(payment) == [600]
    async with reader.shop.scope() as scope:
        (paper,) = await settlement.list_papers(scope, session_id)
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
    assert paper.buyer["name"] == "jule@example.org" and cdr.collection == "card"
    assert await reader.mails() == ["receipt"]
    assert await reader.faults() == []


async def test_a_session_that_is_told_when_it_is_over_is_paid_for_what_it_came_to(reader: Reader) -> None:
    """More than any hold would have been; and of what no card takes nothing is asked."""
    await save(reader.shop, reader.driver)
    for kwh, taken in ((Decimal(80), [4800]), (Decimal("0.5"), [])):
        session_id = await reader.start(work=False)
        await reader.stop(kwh, work=False)
        async with reader.shop.scope() as scope:
            await settlement.settle(scope, session_id)
        await reader.shop.jobs.run()
        assert await reader.shop.captures(await reader.payment(session_id)) == taken
    assert await reader.faults() == []


async def test_a_bank_that_asks_for_its_driver_lets_the_session_go_on_and_no_other_begin(
    reader: Reader, house: House
) -> None:
    await save(reader.shop, reader.driver, ASKS)
    session_id = await reader.start()
    payment = await reader.payment(session_id)
    assert payment.is_due and payment.failure == "authentication_required"
    assert await reader.stops() == 0 and await reader.mails() == ["payment_due"]
    assert await reader.verdict() == "payment_due"
    async with reader.yard.scope(reader.driver) as scope:
        way = await account.find_way(scope, reader.driver, reader.yard.station_id)
        assert (way.saved, way.is_due) == (None, True)
    await reader.stop(Decimal(10))
    assert (await reader.payment(session_id)).is_due and await reader.faults() == []
    assert await reader.mails() == ["payment_due", "payment_due"]  # now with what it came to
    async with reader.yard.scope(reader.driver) as scope:
        with pytest.raises(Refused, match="to be paid"):
            await account.close(scope, "jule@example.org")
    rider = await house.rider("alpha", reader.shop.tenant_id, "jule@example.org")
    assert "6.00" in (await rider.get("/account/payment")).text
    await reader.pay_by_link(house, session_id, ASKS)
    payment = await reader.payment(session_id)
    assert (payment.state, await reader.shop.captures(payment)) == ("captured", [600])
    assert await reader.verdict() == "" and (await reader.mails())[-1] == "receipt"
    assert await reader.faults() == []


async def test_a_declined_card_stops_the_session_and_another_card_pays_it(
    reader: Reader, house: House
) -> None:
    await save(reader.shop, reader.driver, LATER_DECLINED)
    session_id = await reader.start()
    assert await reader.stops() == 1 and await reader.verdict() == "payment_due"
    await reader.stop(Decimal(2))
    staff = await house.staff("alpha", reader.shop.tenant_id)
    api = await house.api("alpha", reader.shop.tenant_id)
    owed = (await staff.open("/payments/owed")).text
    assert all(
        one in owed for one in ("jule@example.org", public_id("charging_session", session_id), "€1.20")
    )
    row = public_id("payment", (await reader.payment(session_id)).id)
    for state, is_there in (("owed", True), ("ended", False), ("open", False)):
        assert (f'/payments/{row}"' in (await staff.open(f"/payments?state={state}")).text) == is_there
    assert "Owed" in (await staff.open(f"/payments/{row}")).text
    (shown,) = (await api.get("/api/v1/payments")).json()["data"]
    assert shown["owed"] == {"amount": "1.20", "currency": "EUR"}
    await reader.pay_by_link(house, session_id, OTHER)
    payment = await reader.payment(session_id)
    assert "Nobody owes anything" in (await staff.open("/payments/owed")).text
    assert (payment.state, payment.method) == ("captured", "Mastercard •••• 4444")
    assert await reader.shop.captures(payment) == [120] and await reader.verdict() == ""
    assert await reader.faults() == []


async def test_a_page_that_closed_unpaid_may_be_asked_for_again_and_a_credit_ends_the_debt(
    reader: Reader, house: House
) -> None:
    await save(reader.shop, reader.driver, LATER_DECLINED)
    session_id = await reader.start()
    await reader.stop(Decimal(2))
    async with reader.shop.scope() as scope:
        await paid.pay_due(scope, session_id, language="en", origin="http://alpha.localhost")
        ops = (
            (await scope.db.execute(select(payments.PaymentOp).order_by(payments.PaymentOp.id)))
            .scalars()
            .all()
        )
    await payments.run_op(reader.shop.database, reader.shop.tenant_id, ops[-1].id)
    first = await reader.payment(session_id)
    await reader.shop.pay(first, LATER_DECLINED)
    await sandbox.set_clock(reader.shop.database, 3600)
    await reader.shop.look(first)
    closed = await reader.payment(session_id)
    assert closed.is_due and closed.checkout_ref is None
    await sandbox.set_clock(reader.shop.database, 0)
    async with reader.shop.scope() as scope:
        op = await paid.pay_due(scope, session_id, language="en", origin="http://alpha.localhost")
        assert op is not None
    await payments.run_op(reader.shop.database, reader.shop.tenant_id, op.id)
    assert (await reader.payment(session_id)).checkout_ref not in (None, first.checkout_ref)
    async with reader.shop.scope() as scope:
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        await settlement.credit(scope, cdr.id, "Goodwill")
    await reader.shop.jobs.run()
    payment = await reader.payment(session_id)
    assert payment.state == "failed" and await reader.verdict() == ""
    assert await reader.shop.captures(payment) == [] and await reader.faults() == []


@pytest.mark.parametrize(("kept_wh", "taken"), [(1_500, [90]), (500, [])])
async def test_a_correction_between_the_hold_of_a_debt_and_its_capture_is_neither_taken_nor_waived_twice(
    reader: Reader, kept_wh: int, taken: list[int]
) -> None:
    await save(reader.shop, reader.driver, LATER_DECLINED)
    session_id = await reader.start()
    await reader.stop(Decimal(2))
    async with reader.shop.scope() as scope:
        op = await paid.pay_due(scope, session_id, language="en", origin="http://alpha.localhost")
        assert op is not None
    await payments.run_op(reader.shop.database, reader.shop.tenant_id, op.id)
    payment = await reader.payment(session_id)
    await reader.shop.pay(payment, GOOD)
    assert (await reader.shop.look(payment)).state == "authorized"  # and no worker has heard of it
    async with reader.shop.scope() as scope:
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        await settlement.credit(scope, cdr.id, "The meter was wrong", energy_wh=kept_wh)
    await reader.shop.jobs.run()
    assert await reader.shop.captures(await reader.payment(session_id)) == taken
    assert await reader.faults() == []


async def test_a_provider_that_is_down_for_hours_stops_nobody_and_takes_once(reader: Reader) -> None:
    await save(reader.shop, reader.driver)
    await sandbox.set_faults(
        reader.shop.database, [{"path": "POST /v1/payment_intents", "fault": "before", "times": 1000}]
    )
    session_id = await reader.start()
    assert (await reader.payment(session_id)).state == "created" and await reader.stops() == 0
    await reader.stop(Decimal(10))
    async with reader.shop.scope() as scope:
        assert (await service.get_session(scope, session_id)).settled_at is not None
    await sandbox.set_faults(reader.shop.database, [])
    await reader.shop.jobs.run()
    payment = await reader.payment(session_id)
    assert (payment.state, await reader.shop.captures(payment)) == ("captured", [600])
    assert await reader.faults() == []


async def test_a_brand_that_wants_a_card_on_file_starts_nobody_without_one(reader: Reader) -> None:
    """But for groups that pay otherwise; and a brand that wants none collects as before."""
    async with reader.shop.scope() as scope:
        (await payments.get_own_account(scope)).card_on_file = "required"
    assert await reader.verdict() == "no_card_on_file"
    card = await save(reader.shop, reader.driver)
    assert await reader.verdict() == ""
    async with reader.shop.scope() as scope:
        row = await scope.db.get_one(SavedCard, (reader.shop.tenant_id, card.id))
        row.exp_year = 2020
    assert await reader.verdict() == "no_card_on_file"
    async with reader.shop.scope() as scope:
        group = await access.create_driver_group(scope, name="Fleet", collection="monthly")
        driver = await access.get_driver(scope, reader.driver.id)
        driver.driver_group_id = group.id
    assert await reader.verdict() == ""
    async with reader.shop.scope() as scope:
        (await payments.get_own_account(scope)).card_on_file = "off"
        driver = await access.get_driver(scope, reader.driver.id)
        driver.driver_group_id = None
        row = await scope.db.get_one(SavedCard, (reader.shop.tenant_id, card.id))
        row.exp_year = 2034
    session_id = await reader.start()
    await reader.stop(Decimal(10))
    async with reader.shop.scope() as scope:
        assert await payments.find_payment(scope, "charging_session", session_id) is None
        assert (await settlement.find_cdr(scope, session_id)).collection == "per_session"  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [GOOD, ASKS])
async def test_one_press_starts_with_a_saved_card_and_without_a_payment_page(
    reader: Reader, house: House, number: str
) -> None:
    """Where the bank asks, nothing starts before its driver was at its page."""
    shop = reader.shop
    await save(shop, reader.driver, number)
    async with shop.scope() as scope:
        code = (await scope.db.execute(select(EVSE.code))).scalar_one()
    rider = await house.rider("alpha", shop.tenant_id, "jule@example.org")
    form = await rider.read(f"/c/{code}")
    assert "saved_card" in form
    answer = await rider.post(f"/c/{code}/start", form)
    again = await rider.post(f"/c/{code}/start", form)
    assert answer.headers["location"] == again.headers["location"] and "/s/" in answer.headers["location"]
    await shop.jobs.run()
    async with shop.scope() as scope:
        session = (await scope.db.execute(select(ChargingSession))).scalar_one()
        starts = select(StationCommand.id).where(StationCommand.action == "RemoteStartTransaction")

        async def count() -> int:
            return len((await scope.db.execute(starts)).all())

        assert await count() == (number == GOOD)
    if number == ASKS:
        assert "Your bank asks for you" in (await rider.get(answer.headers["location"])).text
        await reader.pay_by_link(house, session.id, ASKS)
    async with shop.scope() as scope:
        assert len((await scope.db.execute(starts)).all()) == 1
        payment = await payments.find_payment(scope, "charging_session", session.id)
    assert payment is not None and payment.state == "authorized"
    async with shop.scope() as scope:
        await paid.give_up(scope, session.id)
    await shop.jobs.run()
    assert (await reader.payment(session.id)).state == "canceled" and await reader.faults() == []


async def test_the_page_of_payment_cards_adds_prefers_and_removes(reader: Reader, house: House) -> None:
    shop = reader.shop
    rider = await house.rider("alpha", shop.tenant_id, "jule@example.org")
    form = await rider.read("/account/payment")
    answer = await rider.post("/account/payment/add", form)
    ref = answer.headers["location"].rpartition("/")[2]
    assert answer.status_code == 303 and "/pay/" in answer.headers["location"]
    own, session = await sandbox.find_checkout(shop.database, ref) or ("", {})
    await sandbox.pay_checkout(shop.database, own, ref, GOOD, "")
    assert session["success_url"].endswith("/account/payment?saved=1")
    back = await rider.get("/account/payment?saved=1")
    assert back.status_code == 303
    await save(shop, reader.driver, OTHER)
    async with shop.scope() as scope:
        second = (await cards.list_cards(scope, reader.driver.id))[1]
    shown = (await rider.get("/account/payment")).text
    assert shown.index("4242") < shown.index("4444")
    base = f"/account/payment/{payments.public_id('saved_card', second.id)}"
    for deed, order in (("default", True), ("remove", False)):
        assert (await rider.post(f"{base}/{deed}", form)).status_code == 303
        shown = (await rider.get("/account/payment")).text
        assert ("•••• 4444</h2>" in shown) is order
    assert (await rider.post(f"{base}/remove", form)).status_code == 404
