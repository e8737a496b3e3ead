"""The single cases of a guest's money (money.md 4.5): each ends as it must, and the page says so."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.access import service as access
from app.access.verdict import IdTokenValue
from app.billing import payments, sandbox
from app.billing import service as billing
from app.billing.models import PaymentOp
from app.charging import paid, places, queries, service, settlement
from app.charging.models import CDR, ChargingSession
from app.charging.queries import events_of, power_now, timeline
from app.charging.reports import TransactionReport
from app.kernel.clock import utcnow
from app.kernel.errors import Refused
from app.stations import commands
from app.stations import service as stations
from app.stations.models import EVSE, StationCommand
from tenants.scope import Actor
from tests.billing.conftest import ASKS, DECLINED, Shop, jobs, shop
from tests.charging.test_cap import BEGAN, START_WH, Visit, paid_for, place_of, visit
from tests.web import CLI, House
from themes.language import speaking

__all__ = ["jobs", "shop", "visit"]
pytestmark = pytest.mark.anyio


# -- what the cases share ----------------------------------------------------------------------------------------------


async def wish(shop: Shop, evse_id: UUID, remote: str = "2") -> UUID:
    """Somebody presses Pay and is on the payment page."""
    async with shop.scope() as scope:
        session, op = await paid.request_start(
            scope, evse_id, email="", language="en", origin="", remote=remote
        )
    assert op is not None
    await payments.run_op(shop.database, shop.tenant_id, op.id)
    return session.id


async def payment_of(shop: Shop, session_id: UUID) -> payments.Payment:
    async with shop.scope() as scope:
        found = await payments.find_payment(scope, "charging_session", session_id)
        assert found is not None
        return found


async def session_of(shop: Shop, session_id: UUID) -> ChargingSession:
    async with shop.scope() as scope:
        return await service.get_session(scope, session_id)


async def title_of(shop: Shop, session_id: UUID) -> str:
    """As the page says it; in German it says something else, and something."""
    async with shop.scope() as scope:
        session = await service.get_session(scope, session_id)
        payment = await payments.find_payment(scope, "charging_session", session_id)
        words = await paid.state_words(scope, session, payment)
        with speaking("de"):
            german = await paid.state_words(scope, session, payment)
    assert german["title"] != words["title"] and german["text"] != words["text"]
    return words["title"]


async def evse_of(shop: Shop) -> UUID:
    async with shop.scope() as scope:
        return (await scope.db.execute(select(EVSE.id))).scalar_one()


async def held(shop: Shop) -> list[str]:
    """Holds that stand at the provider."""
    async with shop.database.sandbox() as db:
        rows = await db.execute(payments.text(
            "select id from sandbox.object where kind = 'payment_intent' and body->>'status' = 'requires_capture'"
        ))  # fmt: skip
        return list(rows.scalars())


async def is_let_go(shop: Shop, session_id: UUID, not_started: str, title: str) -> None:
    session, payment = await session_of(shop, session_id), await payment_of(shop, session_id)
    assert (session.status, session.not_started) == ("INVALID", not_started)
    assert payment.state in ("canceled", "expired", "failed") and await shop.captures(payment) == []
    assert await title_of(shop, session_id) == title
    assert await shop.balances() == {}


async def start_of(shop: Shop, station_id: UUID, token: str | None, now: Any, **more: Any) -> Any:
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id), now=now) as scope:
        told = {"at": now, "received_at": now, "evse_no": 1} | more
        return await service.report_transaction(scope, station_id, TransactionReport(
            kind="Started", natural_key=f"start {now}", connector_no=1,
            id_token=IdTokenValue(token) if token else None, meter_start_wh=Decimal(START_WH), **told,
        ))  # fmt: skip


# -- before it begins --------------------------------------------------------------------------------------------------


async def happened(shop: Shop, session_id: UUID) -> str:
    """The last thing the portal's page of the session tells."""
    async with shop.scope() as scope:
        session = await service.get_session(scope, session_id)
        told = queries.timeline(await queries.events_of(scope, session_id), session.not_started)
        return told[-1]["title"]


async def test_the_portal_tells_why_a_session_never_began(shop: Shop) -> None:
    await place_of(shop)
    given_up, forgotten = [await wish(shop, await evse_of(shop), remote) for remote in ("2", "3")]
    async with shop.scope() as scope:
        await paid.give_up(scope, given_up)
    assert await happened(shop, given_up) == "Given up by the driver"
    async with shop.database.scope(shop.tenant_id, CLI, now=utcnow() + timedelta(hours=1)) as scope:
        await service.expire_pending(scope, forgotten)
    assert await happened(shop, forgotten) == "No card was given in time"


async def test_two_holds_that_stand_in_the_same_instant_start_one_session(shop: Shop) -> None:
    _station_id, first, _epoch = await paid_for(shop)
    async with shop.scope() as scope:  # the first one's cable never came; two others want the place
        await paid.give_up(scope, first)
    await shop.jobs.run()
    evse_id = await evse_of(shop)
    rivals = [await wish(shop, evse_id, remote) for remote in ("2", "3")]
    for rival in rivals:
        payment = await payment_of(shop, rival)
        await shop.pay(payment)
        await shop.look(payment)
    async with shop.scope() as scope:
        query = select(payments.events.Event).where(payments.events.Event.kind == "PaymentAuthorized")
        found = (await scope.db.execute(query.order_by(payments.events.Event.id.desc()).limit(2))).scalars()
        events = [event.id for event in found]

    async def decide(event_id: UUID) -> None:
        async with shop.scope() as scope:
            await paid.payment_authorized(scope, event_id)

    await asyncio.gather(*map(decide, events))
    await shop.jobs.run()
    ends = {(await session_of(shop, rival)).not_started for rival in rivals}
    assert ends == {None, "evse_taken"}
    [loser] = [one for one in rivals if (await session_of(shop, one)).not_started]
    assert await title_of(shop, loser) == "Somebody was quicker"
    assert (await payment_of(shop, loser)).state == "canceled" and len(await held(shop)) == 1
    async with shop.scope() as scope:
        query = select(StationCommand.id).where(StationCommand.action == "RemoteStartTransaction")
        assert (
            len(list((await scope.db.execute(query)).scalars())) == 2
        )  # one for `first`, one for the winner


async def test_a_start_of_staff_at_the_same_place_came_first_too(shop: Shop) -> None:
    _station_id, first, _epoch = await paid_for(shop)
    async with shop.scope() as scope:
        await paid.give_up(scope, first)
    await shop.jobs.run()
    evse_id = await evse_of(shop)
    late = await wish(shop, evse_id)
    async with shop.scope() as scope:
        await service.request_start(scope, evse_id=evse_id)
    await shop.pay(await payment_of(shop, late))
    await shop.look(await payment_of(shop, late))
    await shop.jobs.run()
    await is_let_go(shop, late, "evse_taken", "Somebody was quicker")


async def test_paid_after_the_station_went_offline_is_let_go(shop: Shop) -> None:
    station_id, first, epoch = await paid_for(shop)
    async with shop.scope() as scope:
        await paid.give_up(scope, first)
    await shop.jobs.run()
    late = await wish(shop, await evse_of(shop))
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        await stations.connection_closed(scope, station_id, epoch, "lost")
    await shop.pay(await payment_of(shop, late))
    await shop.look(await payment_of(shop, late))
    await shop.jobs.run()
    await is_let_go(shop, late, "station_offline", "The charger went offline")


async def test_a_start_the_station_rejects_is_let_go(shop: Shop) -> None:
    station_id, session_id, epoch = await paid_for(shop)
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        [command] = await commands.claim_commands(scope, station_id, epoch)
        await commands.conclude_command(scope, command.id, "rejected", {"status": "Rejected"})
    await shop.jobs.run()
    await is_let_go(shop, session_id, "station_refused", "The charger said no")


async def test_the_page_asks_for_the_cable_when_the_station_said_yes_and_says_who_is_waited_for_until_then(
    shop: Shop,
) -> None:
    station_id, session_id, epoch = await paid_for(shop)
    assert await title_of(shop, session_id) == "Asking the charger"
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        [command] = await commands.claim_commands(scope, station_id, epoch)
    assert await title_of(shop, session_id) == "Asking the charger"
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        await commands.conclude_command(scope, command.id, "accepted", {"status": "Accepted"})
    assert await title_of(shop, session_id) == "Plug in now"


async def test_a_station_that_went_away_before_it_was_asked_ends_the_wait_when_the_asking_has_expired(
    shop: Shop,
) -> None:
    station_id, session_id, epoch = await paid_for(shop)
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        await stations.connection_closed(scope, station_id, epoch, "lost")
    assert await title_of(shop, session_id) == "No word from the charger"
    async with shop.database.scope(shop.tenant_id, CLI, now=utcnow() + timedelta(minutes=4)) as scope:
        assert await commands.expire_commands(scope) == 1
    await shop.jobs.run()
    assert await title_of(shop, session_id) == "The charger went offline"
    assert (await payment_of(shop, session_id)).state == "canceled" and not shop.jobs.failures


async def test_a_station_that_may_have_heard_the_start_is_waited_for_until_the_time_for_the_cable_is_over(
    shop: Shop,
) -> None:
    station_id, session_id, epoch = await paid_for(shop)
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        await commands.claim_commands(scope, station_id, epoch)
        anew = await stations.connection_opened(
            scope, station_id, node="n", ocpp_version="ocpp1.6", remote="127.0.0.1"
        )
        assert await commands.abandon_commands(scope, station_id, anew) == 1
    await shop.jobs.run()
    async with shop.scope() as scope:
        (asked,) = (await scope.db.execute(select(StationCommand))).scalars()
    assert asked.status == "unknown" and (await session_of(shop, session_id)).status == "PENDING"
    assert await title_of(shop, session_id) == "Asking the charger"


@pytest.mark.parametrize("card", [None, DECLINED, ASKS])
async def test_nobody_pays_and_the_page_says_that_it_has_closed(shop: Shop, card: str | None) -> None:
    """Also after a declined card, and with 3-D Secure begun and given up."""
    _station_id, first, _epoch = await paid_for(shop)
    async with shop.scope() as scope:
        await paid.give_up(scope, first)
    session_id = await wish(shop, await evse_of(shop))
    if card is not None:
        await shop.pay(await payment_of(shop, session_id), card)
        await shop.look(await payment_of(shop, session_id))
    waits = "Your card was declined" if card == DECLINED else "Waiting for your card"
    assert await title_of(shop, session_id) == waits
    async with shop.database.scope(shop.tenant_id, CLI, now=utcnow() + timedelta(minutes=36)) as scope:
        await service.expire_pending(scope, session_id)
    await shop.jobs.run()
    await is_let_go(shop, session_id, "checkout_expired", "The payment page has closed")
    assert (await shop.pay(await payment_of(shop, session_id)))["status"] == "expired"


async def test_a_start_without_a_token_belongs_to_who_has_paid_for_three_minutes(shop: Shop) -> None:
    station_id, session_id, _epoch = await paid_for(shop)
    await start_of(shop, station_id, None, utcnow() + timedelta(minutes=2))
    session = await session_of(shop, session_id)
    assert (session.status, session.cost_cap_minor) == ("ACTIVE", 3000)


async def test_a_start_without_a_token_after_three_minutes_is_somebody_elses(shop: Shop) -> None:
    """Who has paid has ten minutes to plug in; a stranger's car is not charged to their card."""
    station_id, session_id, _epoch = await paid_for(shop)
    await start_of(shop, station_id, None, utcnow() + timedelta(minutes=4))
    assert (await session_of(shop, session_id)).status == "PENDING"


async def test_a_stop_is_told_as_long_as_it_takes_and_a_refused_one_too(visit: Visit) -> None:
    shop, session_id, now = visit.shop, visit.session_id, BEGAN + timedelta(minutes=10)

    async def title(at: datetime) -> str:
        async with shop.database.scope(shop.tenant_id, CLI, now=at) as scope:
            session = await service.get_session(scope, session_id)
            return (await paid.state_words(scope, session, None))["title"]

    assert await title(now) == "Charging"
    async with shop.database.scope(shop.tenant_id, CLI, now=now) as scope:
        command = await service.request_stop(scope, session_id)
    assert await title(now + timedelta(seconds=5)) == "Stopping"
    assert await title(now + timedelta(minutes=2)) == "Charging"
    async with shop.database.scope(shop.tenant_id, Actor.station(visit.station_id), now=now) as scope:
        await commands.claim_commands(scope, visit.station_id, visit.epoch)
        await commands.conclude_command(scope, command.id, "rejected", {"status": "Rejected"})
    async with shop.database.scope(
        shop.tenant_id, CLI, now=now
    ) as scope:  # the watch would stop what began long ago
        query = select(payments.events.Event).where(payments.events.Event.kind == "CommandEnded")
        await service.command_ended(scope, (await scope.db.execute(query)).scalar_one())
    assert await title(now + timedelta(seconds=9)) == "Still charging"
    async with shop.scope() as scope:
        told = timeline(await events_of(scope, session_id))
    assert "The station did not stop when asked" in {one["title"] for one in told}


async def test_a_charger_that_somebody_fetches_the_cable_for_takes_no_other_card(shop: Shop) -> None:
    _station_id, session_id, _epoch = await paid_for(shop)
    evse_id = await evse_of(shop)
    with pytest.raises(Refused) as refused:
        await wish(shop, evse_id)
    assert refused.value.code == "evse_taken"
    async with shop.scope() as scope:
        await scope.db.execute(payments.text("update livery.connector set status = 'Available'"))
        [site] = (await places.list_sites(scope, places.Filter())).sites
        assert (site.free_count, site.places[0].status) == (0, "RESERVED")
        assert site.places[0].awaited_until == (await service.get_session(scope, session_id)).pending_until
        await paid.give_up(scope, session_id)
    await shop.jobs.run()
    assert await wish(shop, evse_id)


async def test_a_charger_that_falls_silent_is_not_said_to_charge_nor_to_stop(visit: Visit) -> None:
    shop, session_id, now = visit.shop, visit.session_id, BEGAN + timedelta(minutes=10)
    await visit.read(9, 2)
    async with shop.database.scope(shop.tenant_id, CLI, now=now) as scope:
        assert await power_now(scope, await service.get_session(scope, session_id)) == 22_000
    async with shop.database.scope(shop.tenant_id, Actor.station(visit.station_id), now=now) as scope:
        await stations.connection_closed(scope, visit.station_id, visit.epoch, "lost")
    async with shop.database.scope(shop.tenant_id, CLI, now=now) as scope:
        session = await service.get_session(scope, session_id)
        assert await power_now(scope, session) is None
        assert (await paid.state_words(scope, session, None))["title"] == "No word from the charger"
        await service.request_stop(scope, session_id)
        assert (await paid.state_words(scope, session, None))["title"] == "The stop has not arrived yet"


async def test_a_price_by_time_goes_on_while_the_station_says_nothing_more(visit: Visit) -> None:
    await visit.read(9, 2)
    async with visit.scope(minutes=9) as scope:
        session = await service.get_session(scope, visit.session_id)
        await service.report_transaction(scope, visit.station_id, TransactionReport(
            kind="Updated", at=scope.now, received_at=scope.now, charging_state="SuspendedEV", evse_no=1,
            ocpp_transaction_id=session.ocpp_transaction_id,
        ))  # fmt: skip
    async with visit.shop.scope() as scope:
        await scope.db.execute(
            payments.text("""
            update livery.price_snapshot set tariff = jsonb_set(tariff, '{elements}', '[{"price_components":
                [{"type": "PARKING_TIME", "price": 60, "vat": 0, "step_size": 1}]}]')""")
        )
    costs = []
    for minutes in (10, 20):
        async with visit.scope(minutes=minutes) as scope:
            price = await settlement.running_price(scope, await service.get_session(scope, visit.session_id))
            assert price is not None
            costs.append(price.total_cost.incl_minor)
    assert costs == [100, 1100]


async def card_of(shop: Shop, value: str, **more: Any) -> None:
    async with shop.scope() as scope:
        await access.create_id_token(scope, value=value, label="Card", **more)


async def test_a_card_held_to_the_reader_while_who_has_paid_fetches_the_cable_lets_the_hold_go(
    shop: Shop,
) -> None:
    station_id, session_id, _epoch = await paid_for(shop)
    await card_of(shop, "CARD1")
    verdict = await start_of(shop, station_id, "CARD1", utcnow())
    assert verdict.id_token_status == "Accepted"
    await shop.jobs.run()
    await is_let_go(shop, session_id, "evse_taken", "Somebody was quicker")
    assert await held(shop) == []


@pytest.mark.parametrize("how", ["refused", "told later", "heard yesterday", "at the neighbour"])
async def test_a_start_that_takes_nothing_away_leaves_who_has_paid_their_place(shop: Shop, how: str) -> None:
    """A card that opens nothing; what the station's queue tells of a time before; another EVSE of the station."""
    station_id, session_id, _epoch = await paid_for(shop)
    await card_of(shop, "CARD1", status="blocked" if how == "refused" else "accepted")
    now = utcnow() - timedelta(days=how == "heard yesterday")
    more: dict[str, Any] = {
        "told later": {"at": now - timedelta(hours=1)},
        "at the neighbour": {"evse_no": 2},
    }
    await start_of(shop, station_id, "CARD1", now, **more.get(how, {}))
    await shop.jobs.run()
    assert (await session_of(shop, session_id)).status == "PENDING"
    assert (await payment_of(shop, session_id)).state == "authorized" and len(await held(shop)) == 1


async def test_who_has_not_paid_yet_is_given_nobodys_start(shop: Shop) -> None:
    station_id, first, _epoch = await paid_for(shop)
    async with shop.scope() as scope:
        await paid.give_up(scope, first)
    await shop.jobs.run()
    waiting = await wish(shop, await evse_of(shop))
    await start_of(shop, station_id, "SOMECARD", utcnow())
    assert (await session_of(shop, waiting)).status == "PENDING"
    await shop.pay(await payment_of(shop, waiting))
    await shop.look(await payment_of(shop, waiting))
    await shop.jobs.run()
    paying = await session_of(shop, waiting)  # a refused card keeps nobody's place: the station is asked
    assert (paying.status, paying.cost_cap_minor, paying.command_id is not None) == ("PENDING", 3000, True)


async def test_the_last_second_belongs_to_the_car_or_to_the_clock_never_to_both(shop: Shop) -> None:
    """The wish runs out in the instant in which the station reports the start."""
    station_id, session_id, _epoch = await paid_for(shop)
    late = utcnow() + timedelta(minutes=11)
    async with shop.database.scope(shop.tenant_id, CLI, now=late) as expiring:
        await service.expire_pending(expiring, session_id)
        started = asyncio.create_task(start_of(shop, station_id, None, utcnow()))
        await asyncio.sleep(0.3)  # it waits for the row that is being decided on
        assert not started.done()
    await started
    await shop.jobs.run()
    session = await session_of(shop, session_id)
    assert session.status == "INVALID" and await held(shop) == []


async def test_a_wish_whose_own_job_never_came_is_ended_by_the_watch(shop: Shop) -> None:
    """Nor did the station answer: it was not the driver who kept it waiting."""
    _station_id, session_id, _epoch = await paid_for(shop)
    async with shop.database.scope(shop.tenant_id, CLI, now=utcnow() + timedelta(minutes=12)) as scope:
        assert await service.expire_overdue(scope) == 1
    await shop.jobs.run()
    await is_let_go(shop, session_id, "station_offline", "The charger went offline")


async def test_a_cable_that_comes_when_the_wish_is_over_starts_nothing_for_free(shop: Shop) -> None:
    """The station still holds the request to start: its one-off token is good for nothing any more."""
    station_id, session_id, epoch = await paid_for(shop)
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        [command] = await commands.claim_commands(scope, station_id, epoch)
        await commands.conclude_command(scope, command.id, "accepted", {"status": "Accepted"})
    late = utcnow() + timedelta(minutes=11)
    async with shop.database.scope(shop.tenant_id, CLI, now=late) as scope:
        await service.expire_pending(scope, session_id)
    await shop.jobs.run()
    await is_let_go(shop, session_id, "not_plugged_in", "Nobody plugged in")
    verdict = await start_of(shop, station_id, command.payload["idTag"], late)
    assert verdict.id_token_status == "Invalid"


# -- while it runs -----------------------------------------------------------------------------------------------------


async def hold_ends(shop: Shop, session_id: UUID, at: Any) -> None:
    async with shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", session_id)
        assert payment is not None
        payment.capture_before = at


async def test_a_session_longer_than_its_hold_is_stopped_and_taken_in_time(visit: Visit) -> None:
    await hold_ends(visit.shop, visit.session_id, BEGAN + timedelta(hours=7))
    await visit.read(30, 5)
    await visit.look(59)
    assert await visit.stops() == []
    await visit.look(61)
    assert len(await visit.stops()) == 1
    session = await visit.end(62, 5)
    assert (session.status, (await visit.payment()).captured_minor) == ("COMPLETED", 300)


async def test_a_silent_station_is_billed_by_its_last_reading_before_the_hold_ends(visit: Visit) -> None:
    """What it tells later is kept, and is the operator's loss."""
    await hold_ends(visit.shop, visit.session_id, BEGAN + timedelta(hours=7))
    await visit.read(30, 5)
    async with visit.scope(minutes=31) as scope:
        await stations.connection_closed(scope, visit.station_id, visit.epoch, "lost")
    await visit.look(61)
    assert (await session_of(visit.shop, visit.session_id)).status == "ACTIVE"
    await visit.look(5 * 60 + 1)
    await visit.shop.jobs.run()
    session, payment = await session_of(visit.shop, visit.session_id), await visit.payment()
    assert (session.status, session.energy_wh, payment.captured_minor) == ("COMPLETED", 5000, 300)
    assert session.ended_at == BEGAN + timedelta(minutes=30)
    await visit.end(6 * 60, 60)
    assert await visit.shop.captures(await visit.payment()) == [300]
    assert "driver_receivable" not in await visit.shop.balances()


async def test_a_hold_that_vanishes_stops_the_car_and_what_it_gave_is_the_operators_loss(
    visit: Visit,
) -> None:
    """The operator let it go in the provider's own dashboard, or it expired anyway."""
    await visit.read(30, 10)
    payment = await visit.payment()
    provider = payments.provider_of(visit.shop.database.settings)
    await provider.cancel(payment.account_ref, payment.provider_ref or "", key="dashboard")
    await visit.shop.look(payment)
    await visit.shop.jobs.run()
    assert len(await visit.stops()) == 1
    session = await visit.end(31, 10)
    balances = await visit.shop.balances()
    assert (session.status, balances["write_off"], balances.get("driver_receivable")) == (
        "COMPLETED",
        600,
        None,
    )
    assert await visit.shop.captures(payment) == []
    assert await title_of(visit.shop, visit.session_id) == "Finished"
    async with visit.shop.scope() as scope:
        words = await paid.state_words(scope, session, await visit.payment())
    assert "on us" in words["text"]


async def test_a_hold_that_expired_unseen_is_not_taken_and_not_owed(visit: Visit) -> None:
    await visit.read(30, 10)
    await sandbox.set_clock(visit.shop.database, 8 * 86400)
    await visit.end(31, 10)
    payment, balances = await visit.payment(), await visit.shop.balances()
    assert (payment.state, payment.captured_minor) == ("canceled", 0)
    assert (balances["write_off"], balances.get("driver_receivable")) == (600, None)


# -- under review ------------------------------------------------------------------------------------------------------


async def test_a_meter_that_went_back_tells_a_driver_no_energy(visit: Visit, house: House) -> None:
    await visit.read(10, -1)
    session = await visit.end(30, -1)
    assert session.review == "implausible"
    async with visit.shop.scope() as scope:
        link = paid.link_of(scope, session.id)
    shown = (await house.driver("alpha").open(f"/s/{link}")).text
    assert "Being checked" in shown and "kWh" not in shown


@pytest.mark.parametrize(("decision", "energy", "taken"), [("release", 8_000, [480]), ("void", None, [])])
async def test_what_cannot_be_believed_keeps_its_hold_until_somebody_decides(
    visit: Visit, decision: str, energy: int | None, taken: list[int]
) -> None:
    session = await visit.end(30, 4_000)  # 4 MWh in half an hour
    assert (session.review, (await visit.payment()).state) == ("implausible", "authorized")
    assert await title_of(visit.shop, visit.session_id) == "Being checked"
    async with visit.shop.scope() as scope:
        await service.decide_review(scope, visit.session_id, decision, "looked at it", energy_wh=energy)
    await visit.shop.jobs.run()
    assert await visit.shop.captures(await visit.payment()) == taken and await held(visit.shop) == []
    assert "driver_receivable" not in await visit.shop.balances()
    assert await title_of(visit.shop, visit.session_id) == ("Finished" if taken else "Not charged")


# -- afterwards --------------------------------------------------------------------------------------------------------


async def correct(visit: Visit, energy_wh: int | None) -> None:
    async with visit.shop.scope() as scope:
        cdr = await settlement.find_cdr(scope, visit.session_id)
        assert cdr is not None
        await settlement.credit(scope, cdr.id, "the meter was wrong", energy_wh=energy_wh)


async def papers(visit: Visit) -> list[int]:
    async with visit.shop.scope() as scope:
        query = select(CDR).where(CDR.session_id == visit.session_id).order_by(CDR.id)
        lists = [
            await billing.list_invoices_of(scope, "cdr", cdr.id)
            for cdr in (await scope.db.execute(query)).scalars()
        ]
    return list({one.id: one.gross_minor for papers in lists for one in papers}.values())


@pytest.mark.parametrize(
    ("energy", "standing", "back", "lost"),
    [(6_000, [600, -600, 360], 240, 0), (15_000, [600, -600, 900], 0, 300), (10_000, [600, -600, 600], 0, 0),
     (None, [600, -600], 600, 0)],
)  # fmt: skip
async def test_a_late_correction_gives_the_difference_back_and_never_takes_more(
    visit: Visit, energy: int | None, standing: list[int], back: int, lost: int
) -> None:
    await visit.end(60, 10)
    await correct(visit, energy)
    await visit.shop.jobs.run()
    payment, balances = await visit.payment(), await visit.shop.balances()
    assert (payment.captured_minor, payment.refunded_minor) == (600, back)
    assert (await papers(visit), await visit.shop.captures(payment)) == (standing, [600])
    assert (balances.get("driver_receivable"), balances.get("write_off", 0)) == (None, lost)


async def test_a_correction_while_the_money_is_under_way_is_given_back_when_it_came(visit: Visit) -> None:
    await sandbox.set_faults(visit.shop.database, [{"path": "/capture", "fault": "before", "times": 100}])
    await visit.end(60, 10)
    assert (await visit.payment()).state == "capturing"
    await correct(visit, 6_000)
    await sandbox.set_faults(visit.shop.database, [])
    await visit.shop.jobs.run()
    payment = await visit.payment()
    assert (payment.captured_minor, payment.refunded_minor) == (600, 240)
    assert "driver_receivable" not in await visit.shop.balances()


async def test_what_was_written_off_comes_back_when_all_is_credited(visit: Visit) -> None:
    """37.20 of which 30.00 were taken: the guest gets 30.00 back, and nothing is lost any more."""
    await visit.end(170, 62)
    await correct(visit, None)
    await visit.shop.jobs.run()
    payment, balances = await visit.payment(), await visit.shop.balances()
    assert (payment.refunded_minor, balances.get("write_off"), balances.get("driver_receivable")) == (
        3000,
        None,
        None,
    )
    assert await title_of(visit.shop, visit.session_id) == "Given back"


async def test_two_corrections_in_a_row_give_back_what_both_come_to(visit: Visit) -> None:
    await visit.end(60, 10)
    await correct(visit, 6_000)
    await correct(visit, 2_000)  # before the first refund was made
    await visit.shop.jobs.run()
    async with visit.shop.scope() as scope:
        refunds = (await payments.list_refunds(scope, [(await visit.payment()).id])).values()
    assert [op.request["amount_minor"] for one in refunds for op in one] == [240, 240]
    assert (await visit.payment()).refunded_minor == 480
    assert "driver_receivable" not in await visit.shop.balances()


@pytest.mark.parametrize("fault", ["before", "after", "500", "409", "429"])
@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_a_refund_whose_answer_is_lost_is_made_once(
    visit: Visit, fault: str, is_forgotten: bool
) -> None:
    """Also of a part, and also when the provider has forgotten the key (it keeps it for a day)."""
    await visit.end(60, 10)
    await sandbox.set_faults(visit.shop.database, [{"path": "/v1/refunds", "fault": fault}])
    await correct(visit, 8_000)
    await visit.shop.jobs.run(rounds=1)
    if is_forgotten:
        async with visit.shop.database.sandbox() as db:
            await db.execute(payments.text("delete from sandbox.idempotency"))
    await visit.shop.jobs.run()
    async with visit.shop.database.sandbox() as db:
        query = payments.text("select sum((body->>'amount')::int) from sandbox.object where kind = 'refund'")
        assert (await db.execute(query)).scalar_one() == 120
    async with visit.shop.scope() as scope:
        states = (await scope.db.execute(select(PaymentOp.state).where(PaymentOp.kind == "refund"))).scalars()
        assert list(states) == ["succeeded"]
    assert (await visit.payment()).refunded_minor == 120
    assert "driver_receivable" not in await visit.shop.balances()


async def test_a_payment_that_settles_while_papers_are_corrected_waits_for_the_correction(
    visit: Visit,
) -> None:
    """Else it sums the papers of before, and writes off what nobody owes."""
    await visit.end(60, 20)
    await correct(visit, 15_000)
    await visit.shop.jobs.run()
    is_corrected = asyncio.Event()

    async def again() -> None:
        async with visit.shop.scope() as scope:
            cdr = await settlement.find_cdr(scope, visit.session_id)
            assert cdr is not None
            await settlement.credit(scope, cdr.id, "once more", energy_wh=10_000)
            is_corrected.set()
            await asyncio.sleep(0.3)

    async def settled() -> None:
        await is_corrected.wait()
        async with visit.shop.scope() as scope:
            await settlement.correct_payment(scope, visit.session_id)

    await asyncio.gather(again(), settled())
    await visit.shop.jobs.run()
    balances, payment = await visit.shop.balances(), await visit.payment()
    assert "driver_receivable" not in balances and "write_off" not in balances
    assert payment.captured_minor - payment.refunded_minor == 600


async def test_a_refund_that_is_still_under_way_at_the_provider_is_not_asked_for_under_another_key(
    visit: Visit,
) -> None:
    """409: the first request runs yet, and ends after ours was tried again: it must be the same to the provider."""
    await visit.end(60, 10)
    await correct(visit, 8_000)
    payment = await visit.payment()
    async with visit.shop.scope() as scope:
        [op] = (await payments.list_refunds(scope, [payment.id]))[payment.id]
    await sandbox.set_faults(visit.shop.database, [{"path": "/v1/refunds", "fault": "409"}])
    await visit.shop.jobs.run()
    provider = payments.provider_of(visit.shop.database.settings)
    ref, reason = payment.provider_ref or "", op.request["reason"]
    await provider.refund(
        payment.account_ref, ref, amount_minor=120, reason=reason, key=op.idem_key, marked=str(op.id)
    )
    async with visit.shop.database.sandbox() as db:
        query = payments.text("select (body->>'amount')::int from sandbox.object where kind = 'refund'")
        assert list((await db.execute(query)).scalars()) == [120]
    payment = await visit.shop.look(payment)
    assert payment.refunded_minor == 120 and "driver_receivable" not in await visit.shop.balances()
