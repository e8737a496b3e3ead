"""Sessions that outgrow their hold: a saved card is asked for the next leg, and all of them settle one invoice."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.access.verdict import IdTokenValue
from app.billing import payments, sandbox
from app.billing.models import Payment, SavedCard
from app.charging import holds, ingest, paid, refunds, service, settlement
from app.charging.reports import ENERGY, Reading
from app.kernel.clock import utcnow
from app.kernel.errors import Refused
from app.notifications.models import Mail
from tenants.scope import Actor
from tests.billing.conftest import GOOD, jobs, shop
from tests.billing.test_saved_cards import LATER_DECLINED, save
from tests.charging.test_account import Yard, yard
from tests.charging.test_off_session import Reader
from tests.surfaces.conftest import house
from tests.web import CLI, House

__all__ = ["house", "jobs", "shop", "yard"]
pytestmark = pytest.mark.anyio
LONG = timedelta(hours=8)  # since then it charges: 22 kW may have given all that the tests read


@dataclass
class LongReader(Reader):
    """A session of eight hours, at 0.60 a kWh with holds of 30.00: one for each 50 kWh."""

    card: SavedCard = field(init=False)
    session_id: UUID = field(init=False)

    async def begin(self, number: str = GOOD) -> None:
        self.card = await save(self.shop, self.driver, number)
        await self._report(
            "Started", "start", after=-LONG, meter_start_wh=Decimal(0), id_token=IdTokenValue("CARD1"), evse_no=1,
            connector_no=1,
        )  # fmt: skip
        async with self.shop.scope() as scope:
            session = (await scope.db.execute(select(service.ChargingSession))).scalar_one()
        self.session_id, self.transaction = session.id, session.ocpp_transaction_id or ""
        await self.read(1)

    async def read(self, kwh: int, *, work: bool = True) -> None:
        at = utcnow()
        reading = Reading(measurand=ENERGY, value=Decimal(kwh * 1000), unit="Wh", sampled_at=at, received_at=at,
                          context="Sample.Periodic")  # fmt: skip
        actor = Actor.station(self.yard.station_id)
        async with self.shop.database.scope(self.shop.tenant_id, actor) as scope:
            await ingest.ingest(scope, self.yard.station_id, 1, self.transaction, [reading])
        if work:
            await self.shop.jobs.run()

    async def look(self, after: timedelta = timedelta()) -> None:
        async with self.shop.database.scope(self.shop.tenant_id, CLI, now=utcnow() + after) as scope:
            await paid.watch_cap(scope, self.session_id)

    async def end(self, kwh: int) -> None:
        await self._report(
            "Ended", "stop", meter_stop_wh=Decimal(kwh * 1000), ocpp_transaction_id=self.transaction
        )
        await self.shop.jobs.run()

    async def payment(self, session_id: UUID) -> Payment:
        legs = await self.legs()
        return next((leg for leg in legs if leg.is_due), legs[-1])

    async def legs(self) -> list[Payment]:
        async with self.shop.scope() as scope:
            return await payments.list_legs(scope, "charging_session", self.session_id)

    async def stand(self) -> list[tuple[str, int, int]]:
        """(state, held, taken) of each leg, as the provider took it."""
        found = []
        for leg in await self.legs():
            taken = await self.shop.captures(leg)
            assert taken == ([leg.captured_minor] if leg.captured_minor else [])
            found.append((leg.state, leg.hold_minor, leg.captured_minor))
        return found

    async def cap(self) -> int | None:
        async with self.shop.scope() as scope:
            return (await service.get_session(scope, self.session_id)).cost_cap_minor

    async def ends_in(self, leg_no: int, hours: float) -> None:
        async with self.shop.scope() as scope:
            await scope.db.execute(
                update(Payment).where(Payment.leg == leg_no)
                .values(capture_before=utcnow() + timedelta(hours=hours))
            )  # fmt: skip

    async def refuse_from_now_on(self) -> None:
        """The bank takes the card for expired, and nobody told us."""
        leg = (await self.legs())[0]
        await sandbox.change_card(
            self.shop.database, leg.account_ref, self.card.provider_ref or "", exp_year=2020
        )

    async def refund(self, leg_no: int, minor: int | None) -> Any:
        leg = (await self.legs())[leg_no - 1]
        async with self.shop.scope() as scope:
            made = await refunds.ask_refund(scope, leg.id, "Goodwill", amount_minor=minor)
        await self.shop.jobs.run()
        return made

    async def back(self) -> list[int]:
        return [leg.refunded_minor for leg in await self.legs()]


@pytest.fixture
async def reader(yard: Yard) -> AsyncIterator[LongReader]:
    made = LongReader(yard, await yard.driver("jule@example.org", card="CARD1"))
    await made.begin()
    yield made


async def test_a_session_that_outgrows_its_hold_runs_on_over_legs_and_is_settled_once(
    reader: LongReader, house: House
) -> None:
    await reader.read(43)  # 25.80, and 3.30 in the next quarter of an hour: it is enough for now
    assert await reader.stand() == [("authorized", 3000, 0)]
    await reader.read(46)
    assert await reader.stand() == [("authorized", 3000, 0)] * 2 and await reader.cap() == 6000
    await reader.read(70)
    await reader.look()
    assert len(await reader.legs()) == 2 and await reader.stops() == 0
    await reader.read(98)
    assert await reader.stand() == [("authorized", 3000, 0)] * 3 and await reader.cap() == 9000
    await reader.read(120)
    rider = await house.rider("alpha", reader.shop.tenant_id, "jule@example.org")
    async with reader.shop.scope() as scope:
        page = f"/s/{paid.link_of(scope, reader.session_id)}"
    assert "90.00 in all" in (await rider.get(page)).text
    assert await reader.stops() == 0 and await reader.faults() == []
    await reader.end(120)
    assert await reader.stand() == [
        ("captured", 3000, 3000),
        ("captured", 3000, 3000),
        ("captured", 3000, 1200),
    ]
    async with reader.shop.scope() as scope:
        (paper,) = await settlement.list_papers(scope, reader.session_id)
        mails = (await scope.db.execute(select(Mail.kind, Mail.body).where(Mail.kind == "receipt"))).all()
    assert paper.gross_minor == 7200 and len(mails) == 1 and "72.00" in mails[0].body
    shown = (await rider.get(page)).text
    assert "72.00" in shown and "30.00" in shown
    assert await reader.faults() == []


async def test_a_refund_is_spread_over_the_legs_the_latest_first_and_waits_for_four_eyes_as_one(
    reader: LongReader,
) -> None:
    for kwh in (46, 98):
        await reader.read(kwh)
    await reader.end(120)
    await reader.refund(1, 1500)  # whichever leg is asked
    assert await reader.back() == [0, 300, 1200] and await reader.faults() == []
    async with reader.shop.scope() as scope:
        (await payments.get_own_account(scope)).refund_limit_minor = 1600
    with pytest.raises(Refused, match="At most"):
        await reader.refund(2, 5701)
    request = await reader.refund(2, 200)
    assert isinstance(request, refunds.RefundRequest) and await reader.back() == [0, 300, 1200]
    boss = Actor(kind="user", id=payments.uuid7(), name="boss@a.example")
    async with reader.shop.database.scope(reader.shop.tenant_id, boss) as scope:
        await refunds.approve(scope, request.id)
    await reader.shop.jobs.run()
    assert await reader.back() == [0, 500, 1200] and await reader.faults() == []
    async with reader.shop.scope() as scope:
        cdr = await settlement.find_cdr(scope, reader.session_id)
        assert cdr is not None
        await settlement.credit(scope, cdr.id, "Broken meter", energy_wh=60_000)  # 36.00
    await reader.shop.jobs.run()
    assert await reader.back() == [0, 2400, 1200]
    async with reader.shop.scope() as scope:
        cdr = await settlement.find_cdr(scope, reader.session_id)
        assert cdr is not None
        await settlement.credit(scope, cdr.id, "All of it")
    await reader.shop.jobs.run()
    assert await reader.back() == [3000, 3000, 1200]
    assert "driver_receivable" not in await reader.shop.balances()


async def test_where_the_next_leg_is_refused_or_not_allowed_the_session_stops_at_its_cap(
    reader: LongReader,
) -> None:
    await reader.refuse_from_now_on()
    await reader.read(46)
    assert await reader.stand() == [("authorized", 3000, 0), ("failed", 0, 0)]
    assert await reader.verdict() == "" and await reader.stops() == 0  # nothing is owed yet
    await reader.read(50)
    assert await reader.stops() == 1 and len(await reader.legs()) == 2
    await reader.end(51)
    assert (await reader.stand())[0] == ("captured", 3000, 3000)
    async with reader.shop.scope() as scope:
        settled = await payments.find_settled_by(scope, await reader.legs())
    assert settled is not None and (settled.paid_minor, settled.waived_minor) == (3000, 60)
    assert await reader.faults() == [] and (await reader.mails()) == ["receipt"]


async def test_a_brand_that_wants_one_hold_has_one(reader: LongReader) -> None:
    async with reader.shop.scope() as scope:
        await payments.set_holds(scope, "30.00", "60.00", max_legs="1")
    await reader.read(46)
    await reader.read(50)
    assert len(await reader.legs()) == 1 and await reader.stops() == 1
    await reader.end(60)  # and what lies above is the brand's own loss
    assert await reader.stand() == [("captured", 3000, 3000)] and await reader.faults() == []


async def test_what_nobody_could_stop_in_time_is_asked_of_the_card_at_the_end(reader: LongReader) -> None:
    """And is owed where the card gives nothing any more."""
    await reader.end(70)
    assert await reader.stand() == [("captured", 3000, 3000), ("captured", 1200, 1200)]
    assert await reader.faults() == [] and (await reader.mails()) == ["receipt"]


async def test_what_the_card_does_not_give_at_the_end_is_owed_and_paid_by_link(
    reader: LongReader, house: House
) -> None:
    await reader.refuse_from_now_on()
    await reader.end(70)
    first, second = await reader.legs()
    assert (first.captured_minor, second.is_due) == (3000, True) and await reader.verdict() == "payment_due"
    assert await reader.faults() == [] and (await reader.mails()) == ["payment_due"]
    async with reader.shop.scope() as scope:
        assert [minor for _leg, minor in await payments.list_due(scope)] == [1200]
    await reader.pay_by_link(house, reader.session_id, "5555555555554444")
    assert (await reader.stand())[1] == ("captured", 1200, 1200) and await reader.verdict() == ""
    assert await reader.faults() == [] and (await reader.mails()) == ["payment_due", "receipt"]


async def test_a_hold_that_runs_out_is_taken_for_what_it_cost_so_far_and_the_session_goes_on(
    reader: LongReader,
) -> None:
    await reader.read(20)  # 12.00
    await reader.ends_in(1, 6.5)
    await reader.look()
    await reader.shop.jobs.run()
    assert await reader.stand() == [("authorized", 3000, 0)] * 2
    await reader.ends_in(1, 5.9)
    await reader.look()
    await reader.look()
    await reader.shop.jobs.run()
    assert await reader.stand() == [("captured", 3000, 1200), ("authorized", 3000, 0)]
    assert await reader.stops() == 0 and await reader.faults() == [] and await reader.mails() == []
    await reader.read(25)
    assert await reader.cap() == 4200 and len(await reader.legs()) == 2
    await reader.end(40)
    assert await reader.stand() == [("captured", 3000, 1200), ("captured", 3000, 1200)]
    assert await reader.faults() == [] and await reader.mails() == ["receipt"]


async def test_what_was_taken_on_the_way_goes_back_where_less_was_used_or_nothing_is_billed(
    reader: LongReader,
) -> None:
    await reader.read(20)
    await reader.ends_in(1, 6.5)
    await reader.look()
    await reader.shop.jobs.run()
    await reader.ends_in(1, 5.9)
    async with reader.shop.scope() as scope:
        await holds.sweep(scope)  # its own watch has died
    await reader.shop.jobs.run()
    assert await reader.stand() == [("captured", 3000, 1200), ("authorized", 3000, 0)]
    await reader.end(10)  # the meter ended below what it told: staff look at it
    async with reader.shop.scope() as scope:
        session = await service.get_session(scope, reader.session_id)
        assert session.review is not None
        await service.decide_review(scope, session.id, "release", "Believed", energy_wh=10_000)
    await reader.shop.jobs.run()
    async with reader.shop.scope() as scope:
        await settlement.settle(scope, reader.session_id)
    await reader.shop.jobs.run()
    assert [leg.state for leg in await reader.legs()] == ["partially_refunded", "canceled"]
    assert await reader.back() == [600, 0] and await reader.faults() == []


async def test_a_capture_that_fails_for_good_is_owed_by_the_driver(reader: LongReader, house: House) -> None:
    await reader.read(46)
    first = (await reader.legs())[0]
    async with reader.shop.database.sandbox() as db:  # the hold is gone at the provider, and nobody told us
        await db.execute(sandbox.text(
            "update sandbox.object set body = jsonb_set(body, '{payment_method_details,card,capture_before}', '1')"
            " where kind = 'charge' and body->>'payment_intent' = :ref"), {"ref": first.provider_ref})  # fmt: skip
    await reader.end(70)
    first, second = await reader.legs()
    assert first.is_due and second.captured_minor == 1200 and await reader.faults() == []
    async with reader.shop.scope() as scope:
        assert [minor for _leg, minor in await payments.list_due(scope)] == [3000]
    await reader.pay_by_link(house, reader.session_id, "5555555555554444")
    assert await reader.stand() == [("captured", 3000, 3000), ("captured", 3000, 1200)]
    assert await reader.faults() == []


async def test_a_driver_who_owes_for_a_first_hold_gets_no_second(yard: Yard) -> None:
    made = LongReader(yard, await yard.driver("kim@example.org", card="CARD1"))
    await save(yard.shop, made.driver, LATER_DECLINED)
    await made.start()
    async with yard.shop.scope() as scope:
        session = (await scope.db.execute(select(service.ChargingSession))).scalar_one()
    made.session_id = session.id
    await made.look()
    assert [leg.is_due for leg in await made.legs()] == [True] and await made.stops() == 1


async def test_a_hold_that_can_be_raised_is_raised_and_a_refusal_is_followed_by_another_leg(
    yard: Yard,
) -> None:
    made = LongReader(yard, await yard.driver("kim@example.org", card="CARD1"))
    async with yard.shop.scope() as scope:
        await payments.set_holds(scope, "30.00", "60.00", max_legs="4")
    await made.begin("4000000000010017")  # once
    await made.read(46)
    assert await made.stand() == [("authorized", 6000, 0)] and await made.cap() == 6000
    await made.read(98)
    assert (
        await made.stand() == [("authorized", 6000, 0), ("authorized", 3000, 0)] and await made.cap() == 9000
    )
    assert [op for op in await yard.shop.ops((await made.legs())[0]) if op[0] == "increment"] == [
        ("increment", "succeeded"), ("increment", "failed"),
    ]  # fmt: skip
    await made.read(146)  # the other is raised too: it would be the fourth
    assert [leg.hold_minor for leg in await made.legs()] == [6000, 6000] and await made.cap() == 12_000
    await made.end(150)
    assert await made.stand() == [("captured", 6000, 6000), ("captured", 6000, 3000)]
    assert await made.stops() == 0 and await made.faults() == []


async def test_a_hold_stands_for_as_long_as_its_charge_says(yard: Yard) -> None:
    made = LongReader(yard, await yard.driver("kim@example.org", card="CARD1"))
    await made.begin("5200000000010003")
    (leg,) = await made.legs()
    assert leg.is_extended and leg.capture_before is not None
    assert leg.capture_before > utcnow() + timedelta(days=29)
    await made.end(10)
    assert await made.stand() == [("captured", 3000, 600)] and await made.faults() == []


async def over_two_legs(yard: Yard, number: str = GOOD) -> LongReader:
    """30.00 and 28.80 are taken."""
    reader = LongReader(yard, await yard.driver("jule@example.org", card="CARD1"))
    await reader.begin(number)
    await reader.read(46)
    await reader.read(98)
    await reader.end(98)
    for leg in await reader.legs():  # a disputed charge is seen with its payment
        await reader.shop.look(leg)
    return reader


async def test_what_was_given_back_of_one_leg_in_the_dashboard_counts_beside_what_is_given_back_here(
    yard: Yard,
) -> None:
    reader = await over_two_legs(yard)
    first = (await reader.legs())[0]
    taken = [leg.captured_minor for leg in await reader.legs()]
    provider = payments.provider_of(reader.shop.database.settings)
    await provider.refund(
        first.account_ref, first.provider_ref or "", amount_minor=1000, reason="by phone", key="d1"
    )
    await reader.shop.look(first)
    async with reader.shop.scope() as scope:  # news of a hold that was settled long ago
        await settlement.capture(scope, reader.session_id)
        await settlement.correct_payment(scope, reader.session_id)
    assert "write_off" not in await reader.shop.balances() and await reader.faults() == []
    await reader.refund(2, 500)
    assert (await reader.back())[:2] == [1000, 500]
    async with reader.shop.scope() as scope:
        assert [(leg.id, minor) for leg, minor in await payments.list_unpapered(scope)] == [(first.id, 1000)]
    left = sum(taken) - 1500
    with pytest.raises(Refused, match="At most"):
        await reader.refund(1, left + 1)
    await reader.refund(1, left)
    assert await reader.back() == taken and await reader.faults() == []
    async with reader.shop.scope() as scope:  # now that all is back its paper can be written
        await settlement.credit_given_back(scope, first.id, "by phone")
    await reader.shop.jobs.run()
    assert await reader.back() == taken and "driver_receivable" not in await reader.shop.balances()
    async with reader.shop.scope() as scope:
        assert await payments.list_unpapered(scope) == []


async def test_a_leg_that_is_lost_in_a_dispute_leaves_the_other_to_give_back(yard: Yard) -> None:
    reader = await over_two_legs(yard, "4000000000000259")
    first, second = (await reader.legs())[:2]
    assert (first.dispute, second.dispute) == ("open", "open")
    with pytest.raises(Refused, match="disputed"):
        await reader.refund(1, 500)
    outcomes = {first.provider_ref: "lost", second.provider_ref: "won"}
    for account, one in await sandbox.list_disputes(reader.shop.database):
        await sandbox.decide_dispute(
            reader.shop.database, account, one["id"], outcomes[one["payment_intent"]]
        )
    for leg in (first, second):
        await reader.shop.look(leg)
    await reader.shop.jobs.run()
    assert [leg.dispute for leg in (await reader.legs())[:2]] == ["lost", "won"]
    assert await reader.faults() == []
    with pytest.raises(Refused, match="At most"):
        await reader.refund(1, second.captured_minor + 1)
    await reader.refund(1, 500)
    assert (await reader.back())[:2] == [0, 500] and await reader.faults() == []


async def test_what_a_last_leg_took_less_than_it_holds_now_is_the_operators_loss_and_nobody_owes_it(
    reader: LongReader,
) -> None:
    """Taken ahead for what was believed then; no other hold came, and the end says more."""
    await reader.read(46)
    await reader.read(60)  # 36.00
    first, second = await reader.legs()
    async with reader.shop.scope() as scope:
        await payments.capture_ahead(scope, first.id, 3600)
    await reader.shop.jobs.run()
    async with reader.shop.scope() as scope:
        await payments.capture_ahead(scope, second.id, 3600)
    await reader.shop.jobs.run()
    assert await reader.stand() == [("captured", 3000, 3000), ("captured", 3000, 600)]
    async with reader.shop.scope() as scope:
        (await payments.get_own_account(scope)).max_legs = 2
    await reader.end(70)  # 42.00
    assert await reader.stand() == [("captured", 3000, 3000), ("captured", 3000, 600)]
    books = await reader.shop.balances()
    assert "driver_receivable" not in books and books["write_off"] == 600 and await reader.faults() == []
