"""A transaction that began with the cable, and a guest who pays for it only then (OCPP 2.x F01)."""

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.access import service as access
from app.access.verdict import IdTokenValue
from app.brands.models import TenantProfile
from app.charging import reservations, service, startable
from app.charging.models import ChargingSession, PriceSnapshot, Reservation
from app.charging.reports import ENERGY, Reading, TransactionReport
from app.kernel.clock import utcnow, uuid7
from app.stations import service as stations
from app.stations.models import EVSELive, StationCommand
from tenants.scope import Actor
from tests.billing.conftest import Shop, jobs, shop
from tests.charging.test_cap import place_of
from tests.charging.test_paid_cases import evse_of, payment_of, session_of, wish
from tests.charging.test_start_press import set_tariff
from tests.conftest import Proof
from tests.readings import MeterValue

__all__ = ["jobs", "shop"]
pytestmark = pytest.mark.anyio


async def tell(
    shop: Shop, station_id: UUID, kind: Any, at: datetime, wh: int | None = None, context: str = "",
    evse_no: int | None = 1, transaction: str = "cable-1", **more: Any,
) -> None:  # fmt: skip
    readings = () if wh is None else (Reading(
        measurand=ENERGY, value=Decimal(wh), unit="Wh", sampled_at=at, received_at=at, context=context,
    ),)  # fmt: skip
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id), now=at) as scope:
        await service.report_transaction(scope, station_id, TransactionReport(
            kind=kind, at=at, received_at=at, ocpp_transaction_id=transaction, evse_no=evse_no, connector_no=1,
            readings=readings, **more,
        ))  # fmt: skip


async def end(shop: Shop, station_id: UUID, at: datetime, seq_no: int) -> None:
    """Ten kWh after its begin at 1,000 Wh, and whatever follows from it."""
    more = {"seq_no": seq_no, "stopped_reason": "Local"}
    await tell(shop, station_id, "Ended", at, 11_000, "Transaction.End", **more)
    await shop.jobs.run()


async def pay(shop: Shop) -> tuple[UUID, dict[str, Any]]:
    """A guest's hold stands; what a station that obeys tells of the remote start."""
    session_id = await wish(shop, await evse_of(shop))
    payment = await payment_of(shop, session_id)
    await shop.pay(payment)
    await shop.look(payment)
    await shop.jobs.run()
    async with shop.scope() as scope:
        query = select(StationCommand).where(StationCommand.action == "RequestStartTransaction")
        asked = (await scope.db.execute(query)).scalar_one()
    token = IdTokenValue(asked.payload["idToken"]["idToken"], asked.payload["idToken"]["type"])
    remote_start_id = asked.payload["remoteStartId"]
    return session_id, {
        "id_token": token, "remote_start_id": remote_start_id, "trigger_reason": "RemoteStart",
    }  # fmt: skip


async def test_a_paid_start_takes_over_what_the_cable_began(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    paid_at = utcnow()
    await tell(
        shop, station_id, "Started", paid_at - timedelta(minutes=30), 1_000, "Transaction.Begin", seq_no=0
    )
    async with shop.scope() as scope:
        begun = (await scope.db.execute(select(ChargingSession))).scalar_one()
    assert (begun.status, begun.id_token_status) == ("ACTIVE", None)

    session_id, given = await pay(shop)
    await tell(
        shop, station_id, "Updated", paid_at, 1_000, "Sample.Periodic", seq_no=1, **given
    )  # fmt: skip
    await shop.jobs.run()
    assert not shop.jobs.failures
    running = await session_of(shop, session_id)
    assert (running.status, running.ocpp_transaction_id, running.meter_start_wh) == (
        "ACTIVE",
        "cable-1",
        1_000,
    )
    assert running.started_at == paid_at  # the half hour before is nobody's
    async with shop.scope() as scope:
        assert (await scope.db.execute(select(ChargingSession.id))).scalars().all() == [session_id]
        assert set((await scope.db.execute(select(MeterValue.session_id))).scalars()) == {session_id}

    await end(shop, station_id, paid_at + timedelta(hours=1), seq_no=2)
    done, payment = await session_of(shop, session_id), await payment_of(shop, session_id)
    assert (done.status, done.review, done.energy_wh) == ("COMPLETED", None, 10_000)
    assert (payment.state, payment.captured_minor) == ("captured", 600)
    assert await shop.captures(payment) == [600]


async def test_a_start_told_twice_moves_no_drivers_begin(shop: Shop) -> None:
    """Its answer was lost, so the station's queue sends it once more, after the driver came."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    per_hour = {"price": "6.00", "vat": "20", "step_size": 1}
    await set_tariff(
        shop, {"type": "ENERGY", "price": "0.50", "vat": "20", "step_size": 1}, {"type": "TIME", **per_hour},
        {"type": "PARKING_TIME", **per_hour},
    )  # fmt: skip
    paid_at = utcnow()
    plugged = {"seq_no": 0, "trigger_reason": "CablePluggedIn", "charging_state": "EVConnected"}
    await tell(shop, station_id, "Started", paid_at - timedelta(hours=2), **plugged)
    session_id, given = await pay(shop)
    await tell(shop, station_id, "Updated", paid_at, seq_no=1, **given)
    await tell(shop, station_id, "Started", paid_at - timedelta(hours=2), offline=True, **plugged)
    soon, hour = paid_at + timedelta(seconds=10), paid_at + timedelta(hours=1)
    charging = {"charging_state": "Charging", "trigger_reason": "ChargingStateChanged"}
    await tell(shop, station_id, "Updated", soon, 1_000, "Transaction.Begin", seq_no=2, **charging)
    await end(shop, station_id, hour, seq_no=3)
    assert (await session_of(shop, session_id)).started_at == paid_at
    assert await shop.captures(await payment_of(shop, session_id)) == [600 + 720]


async def test_a_start_that_comes_late_and_names_nobody_bills_no_time_before_the_driver(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    paid_at = utcnow()
    session_id, given = await pay(shop)
    await tell(shop, station_id, "Updated", paid_at, seq_no=1, **given)
    plugged = {"seq_no": 0, "trigger_reason": "CablePluggedIn", "charging_state": "EVConnected"}
    await tell(
        shop, station_id, "Started", paid_at - timedelta(hours=2), 1_000, "Transaction.Begin", **plugged
    )
    begun = await session_of(shop, session_id)
    assert (begun.started_at, begun.meter_start_wh, begun.review) == (paid_at, 1_000, None)


async def test_a_start_told_twice_ends_no_review(shop: Shop) -> None:
    """Energy flowed to a refused card before the guest came: staff look at it, whatever is told again."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    paid_at = utcnow()
    began, refused = paid_at - timedelta(minutes=30), IdTokenValue("STRANGER", "ISO14443")
    first: dict[str, Any] = {"seq_no": 0, "trigger_reason": "Authorized", "id_token": refused}
    await tell(shop, station_id, "Started", began, 1_000, "Transaction.Begin", **first)
    await tell(
        shop, station_id, "Updated", paid_at - timedelta(minutes=5), 9_000, "Sample.Periodic", seq_no=1,
        charging_state="Charging",
    )  # fmt: skip
    session_id, given = await pay(shop)
    await tell(shop, station_id, "Updated", paid_at, seq_no=2, **given)
    await tell(shop, station_id, "Started", began, 1_000, "Transaction.Begin", offline=True, **first)
    await end(shop, station_id, paid_at + timedelta(hours=1), seq_no=3)
    assert (await session_of(shop, session_id)).review == "other_card"
    assert (await payment_of(shop, session_id)).captured_minor == 0


async def test_a_guests_price_and_place_stand_though_the_station_names_its_evse_late(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    now = utcnow()
    session_id, given = await pay(shop)
    async with shop.scope() as scope:
        await stations.ensure_evse(scope, station_id, 2, 1)
    await tell(shop, station_id, "Started", now, evse_no=None, seq_no=0, trigger_reason="EVDetected")
    await tell(shop, station_id, "Updated", now + timedelta(seconds=1), evse_no=None, seq_no=1, **given)
    assert (await session_of(shop, session_id)).evse_no == 1
    await set_tariff(shop, {"type": "ENERGY", "price": "5.00", "vat": "20", "step_size": 1})
    later = now + timedelta(seconds=30)
    await tell(shop, station_id, "Updated", later, evse_no=2, seq_no=2, trigger_reason="CablePluggedIn")
    assert (await session_of(shop, session_id)).evse_no == 2
    async with shop.scope() as scope:
        query = select(PriceSnapshot.tariff).where(PriceSnapshot.session_id == session_id)
        tariff = (await scope.db.execute(query)).scalar_one()
    assert tariff["elements"][0]["price_components"][0]["price"] == 0.5


async def test_a_start_told_again_that_names_the_driver_gives_them_the_car(shop: Shop) -> None:
    """Some stations tell the start twice: with the cable, and with the driver, where others tell an update."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    paid_at = utcnow()
    plugged = {"seq_no": 0, "trigger_reason": "CablePluggedIn", "charging_state": "EVConnected"}
    await tell(shop, station_id, "Started", paid_at - timedelta(minutes=30), **plugged)
    session_id, given = await pay(shop)
    await tell(shop, station_id, "Started", paid_at, 1_000, "Transaction.Begin", seq_no=1, **given)
    await end(shop, station_id, paid_at + timedelta(hours=1), seq_no=2)
    assert (await session_of(shop, session_id)).status == "COMPLETED"
    assert await shop.captures(await payment_of(shop, session_id)) == [600]


async def test_a_start_that_comes_late_without_its_meter_keeps_the_begin_that_is_known(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    paid_at = utcnow()
    session_id, given = await pay(shop)
    later = paid_at + timedelta(seconds=5)
    await tell(shop, station_id, "Updated", later, 1_000, "Transaction.Begin", seq_no=1, **given)
    await tell(shop, station_id, "Started", paid_at, seq_no=0, trigger_reason="CablePluggedIn")
    await end(shop, station_id, paid_at + timedelta(hours=1), seq_no=2)
    assert (await session_of(shop, session_id)).review is None
    assert await shop.captures(await payment_of(shop, session_id)) == [600]


async def test_a_reservation_that_ends_while_a_car_stands_there_keeps_nobody_from_starting(
    shop: Shop,
) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    evse_id, now = await evse_of(shop), utcnow()
    async with shop.scope() as scope:
        token, _value = await access.create_one_off_token(scope)
        kept = Reservation(
            id=uuid7(), station_id=station_id, evse_id=evse_id, evse_no=1, reservation_no=7, id_token_id=token.id,
            id_token_masked="C", state="active", expires_at=now - timedelta(minutes=1),
        )  # fmt: skip
        scope.db.add(kept)
        await stations.set_activity(scope, evse_id, "reserved")
    await tell(shop, station_id, "Started", now - timedelta(minutes=5), 1_000, "Transaction.Begin", seq_no=0)
    async with shop.scope() as scope:
        await reservations.expire(scope, kept.id)
    async with shop.scope() as scope:
        assert (await startable.get_startable(scope, evse_id)).id == evse_id


CARD = IdTokenValue("CARD1", "ISO14443")


async def card_of(shop: Shop) -> UUID:
    async with shop.scope() as scope:
        return (await access.create_id_token(scope, value=CARD.value, type="ISO14443")).id


STRANGER = IdTokenValue("STRANGER", "ISO14443")
BY_CARD = {"trigger_reason": "Authorized"}


async def charges_elsewhere(shop: Shop, token_id: UUID, since: datetime) -> None:
    """The brand holds what a card does at two sites; this one charges at the other."""
    async with shop.scope() as scope:
        await scope.db.execute(update(TenantProfile).values(card_use="hold"))
        elsewhere = await stations.create_location(
            scope, name="Markt", address="Weg 2", city="Kiel", postal_code="24103", country="DEU",
            time_zone="Europe/Berlin",
        )  # fmt: skip
        made = await stations.create_station(scope, identity="CP2", location_id=elsewhere.id)
        scope.db.add(ChargingSession(
            id=uuid7(), station_id=made.station.id, origin="station", status="ACTIVE", id_token_id=token_id,
            id_token_status="Accepted", started_at=since, ocpp_transaction_id="there",
        ))  # fmt: skip


async def here(shop: Shop, station_id: UUID) -> ChargingSession:
    async with shop.scope() as scope:
        query = select(ChargingSession).where(ChargingSession.station_id == station_id)
        return (await scope.db.execute(query)).scalar_one()


async def plug_in(shop: Shop, station_id: UUID, at: datetime) -> None:
    await tell(
        shop, station_id, "Started", at, 1_000, "Transaction.Begin", seq_no=0, trigger_reason="CablePluggedIn"
    )


async def reserve(shop: Shop, station_id: UUID, token_id: UUID, made_at: datetime) -> UUID:
    async with shop.scope() as scope:
        kept = Reservation(
            id=uuid7(), station_id=station_id, evse_id=await evse_of(shop), evse_no=1, reservation_no=7,
            id_token_id=token_id, id_token_masked="C", state="active", expires_at=utcnow() + timedelta(hours=2),
            created_at=made_at,
        )  # fmt: skip
        scope.db.add(kept)
    return kept.id


async def state_of(shop: Shop, reservation_id: UUID) -> str:
    async with shop.scope() as scope:
        row = await scope.db.get(Reservation, (scope.tenant_id, reservation_id))
        assert row is not None
        return row.state


async def the_session(shop: Shop) -> ChargingSession:
    async with shop.scope() as scope:
        query = select(ChargingSession).where(ChargingSession.id_token_status == "Accepted")
        return (await scope.db.execute(query)).scalar_one()


async def test_a_driver_pays_no_time_before_their_card_though_the_start_is_told_last(shop: Shop) -> None:
    """The station's queue tells of the car in the bay, then of the card, and of the start at the end."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    came = utcnow()
    parked = came - timedelta(hours=1)
    await tell(
        shop, station_id, "Updated", parked + timedelta(minutes=5), seq_no=1, trigger_reason="EVDetected"
    )
    await tell(shop, station_id, "Updated", came, seq_no=2, id_token=CARD, trigger_reason="Authorized")
    plugged: dict[str, Any] = {"seq_no": 0, "trigger_reason": "CablePluggedIn"}
    await tell(shop, station_id, "Started", parked, 1_000, "Transaction.Begin", **plugged)
    begun = await the_session(shop)
    assert (begun.started_at, begun.meter_start_wh, begun.review) == (came, 1_000, None)


async def test_a_late_start_that_names_another_card_leaves_the_review_of_what_flowed_to_it(
    shop: Shop,
) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    began, stranger = utcnow() - timedelta(hours=1), IdTokenValue("STRANGER", "ISO14443")
    by_card = {"trigger_reason": "Authorized"}
    await tell(
        shop, station_id, "Updated", began, 1_000, "Sample.Periodic", seq_no=1, id_token=stranger, **by_card
    )
    later = began + timedelta(minutes=30)
    await tell(
        shop, station_id, "Updated", later, 9_000, "Sample.Periodic", seq_no=2, charging_state="Charging"
    )
    await tell(shop, station_id, "Updated", later, seq_no=3, id_token=CARD, **by_card)
    await tell(
        shop, station_id, "Started", began, 1_000, "Transaction.Begin", seq_no=0, id_token=stranger, **by_card
    )  # fmt: skip
    assert (await the_session(shop)).review == "other_card"


async def test_a_card_that_came_after_the_cable_uses_its_reservation(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    token_id, now = await card_of(shop), utcnow()
    kept = await reserve(shop, station_id, token_id, now - timedelta(hours=1))
    async with shop.scope() as scope:
        await stations.set_activity(scope, await evse_of(shop), "reserved")
    await tell(shop, station_id, "Started", now, seq_no=0, trigger_reason="CablePluggedIn")
    later = now + timedelta(minutes=1)
    await tell(shop, station_id, "Updated", later, seq_no=1, id_token=CARD, trigger_reason="Authorized")
    begun = await the_session(shop)
    async with shop.scope() as scope:
        row = await scope.db.get(Reservation, (scope.tenant_id, kept))
        live = (await scope.db.execute(select(EVSELive.activity))).scalar_one()
    assert row is not None and (row.state, row.session_id, live) == ("used", begun.id, "charging")


async def test_a_card_that_came_after_the_cable_is_seen_at_two_sites(shop: Shop) -> None:
    """What it does elsewhere began after the cable was in here, and before the card was shown here."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    token_id, now = await card_of(shop), utcnow()
    await charges_elsewhere(shop, token_id, now - timedelta(minutes=30))
    await tell(
        shop, station_id, "Started", now - timedelta(hours=1), seq_no=0, trigger_reason="CablePluggedIn"
    )
    await tell(shop, station_id, "Updated", now, seq_no=1, id_token=CARD, trigger_reason="Authorized")
    begun = await here(shop, station_id)
    assert (begun.review, begun.started_at) == ("card_twice", now)


async def test_a_late_start_does_not_end_the_hold_of_a_card_at_two_sites(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    now = utcnow()
    await charges_elsewhere(shop, await card_of(shop), now - timedelta(minutes=30))
    await tell(
        shop, station_id, "Updated", now, 1_000, "Transaction.Begin", seq_no=1, id_token=CARD, **BY_CARD
    )
    await tell(shop, station_id, "Started", now, seq_no=0, id_token=CARD, **BY_CARD)
    assert (await here(shop, station_id)).review == "card_twice"
    await end(shop, station_id, now + timedelta(hours=1), seq_no=2)
    done = await here(shop, station_id)
    assert (done.review, done.energy_wh, done.settled_at) == ("card_twice", 10_000, None)


async def test_a_station_that_speaks_again_does_not_end_the_hold_of_a_card_at_two_sites(shop: Shop) -> None:
    """It was closed for its silence meanwhile, and its own end comes after."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    began = utcnow() - timedelta(days=3)
    await charges_elsewhere(shop, await card_of(shop), began - timedelta(minutes=30))
    await tell(
        shop, station_id, "Started", began, 1_000, "Transaction.Begin", seq_no=0, id_token=CARD, **BY_CARD
    )
    async with shop.scope() as scope:
        await scope.db.execute(
            update(ChargingSession).where(ChargingSession.station_id != station_id).values(status="COMPLETED")
        )
    async with shop.scope() as scope:
        assert await service.close_stuck(scope) == 1
    assert (await here(shop, station_id)).review == "card_twice"
    await end(shop, station_id, began + timedelta(hours=1), seq_no=2)
    done = await here(shop, station_id)
    assert (done.review, done.energy_wh, done.stopped_reason) == ("card_twice", 10_000, "Local")


@pytest.mark.parametrize("order", ["begin last", "start last", "in order"])
async def test_energy_that_another_card_had_waits_for_staff_in_whatever_order_it_is_told(
    shop: Shop, order: str
) -> None:
    """Eight kWh went to a card that was refused, two to the driver who came after it: they are asked for no more."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    began = utcnow() - timedelta(hours=3)
    came, ended = began + timedelta(hours=1), began + timedelta(hours=2)

    async def told(what: str) -> None:
        if what == "start":
            await tell(shop, station_id, "Started", began, seq_no=0, id_token=STRANGER, **BY_CARD)
        elif what == "begin":
            await tell(shop, station_id, "Updated", began, 1_000, "Transaction.Begin", seq_no=1)
        elif what == "came":
            await tell(
                shop,
                station_id,
                "Updated",
                came,
                9_000,
                "Sample.Periodic",
                seq_no=2,
                id_token=CARD,
                **BY_CARD,
            )
            await tell(
                shop, station_id, "Updated", came + timedelta(minutes=1), 9_100, "Sample.Periodic", seq_no=3
            )
        else:
            await end(shop, station_id, ended, seq_no=4)

    for what in {
        "in order": ("start", "begin", "came", "end"), "begin last": ("start", "came", "end", "begin"),
        "start last": ("came", "end", "begin", "start"),
    }[order]:  # fmt: skip
        await told(what)
    await shop.jobs.run()
    done = await here(shop, station_id)
    assert (done.status, done.review, done.settled_at) == ("COMPLETED", "other_card", None)
    assert (done.started_at, done.ended_at, done.meter_start_wh) == (came, ended, 1_000)
    assert done.energy_wh is not None and 1_900 <= done.energy_wh <= 2_000


async def test_energy_after_the_card_is_not_taken_for_energy_before_it(shop: Shop) -> None:
    """The station tells last who came: by then the meter has long moved, for them."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    parked = utcnow() - timedelta(hours=3)
    came, later = parked + timedelta(hours=1), parked + timedelta(hours=2)
    await tell(
        shop,
        station_id,
        "Started",
        parked,
        1_000,
        "Transaction.Begin",
        seq_no=0,
        id_token=STRANGER,
        **BY_CARD,
    )
    await tell(shop, station_id, "Updated", later, 9_000, "Sample.Periodic", seq_no=2)
    await tell(shop, station_id, "Updated", came, seq_no=1, id_token=CARD, **BY_CARD)
    begun = await here(shop, station_id)
    assert (begun.started_at, begun.review, begun.id_token_status) == (came, None, "Accepted")


async def test_a_driver_pays_from_their_card_though_the_end_is_told_first(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    parked = utcnow() - timedelta(hours=3)
    came, ended = parked + timedelta(hours=1), parked + timedelta(hours=2)
    await end(shop, station_id, ended, seq_no=3)
    await tell(
        shop, station_id, "Updated", came, 1_000, "Sample.Periodic", seq_no=2, id_token=CARD, **BY_CARD
    )
    await plug_in(shop, station_id, parked)
    done = await here(shop, station_id)
    assert (done.started_at, done.ended_at, done.review) == (came, ended, None)


async def test_a_start_that_is_told_last_gives_the_visit_to_who_started(shop: Shop) -> None:
    """A stranger held their card to the reader while the driver charged; of that the station told first."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    began = utcnow() - timedelta(hours=2)
    tried = began + timedelta(minutes=30)
    await tell(
        shop, station_id, "Updated", tried, 5_000, "Sample.Periodic", seq_no=1, id_token=STRANGER, **BY_CARD
    )
    await tell(
        shop, station_id, "Started", began, 1_000, "Transaction.Begin", seq_no=0, id_token=CARD, **BY_CARD
    )
    begun = await here(shop, station_id)
    assert (begun.started_at, begun.review, begun.id_token_status) == (began, None, "Accepted")


async def test_a_visit_never_ends_before_it_began(shop: Shop) -> None:
    """Closed for its silence, and only then the station tells of a card."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    parked = utcnow() - timedelta(days=3)
    await plug_in(shop, station_id, parked)
    async with shop.scope() as scope:
        assert await service.close_stuck(scope) == 1
    came = parked + timedelta(hours=5)
    await tell(shop, station_id, "Updated", came, seq_no=1, id_token=CARD, **BY_CARD)
    done = await here(shop, station_id)
    assert (done.started_at, done.review) == (came, "stuck")
    async with shop.scope() as scope:
        await service.decide_review(scope, done.id, "release", "seen on site", energy_wh=1)
    done = await here(shop, station_id)
    assert (done.started_at, done.ended_at) == (came, came)


async def test_a_refused_card_leaves_its_reservation(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    token_id, now = await card_of(shop), utcnow()
    kept = await reserve(shop, station_id, token_id, now - timedelta(hours=1))
    async with shop.scope() as scope:
        await access.update_id_token(scope, token_id, status="blocked")
    await tell(
        shop, station_id, "Started", now, 1_000, "Transaction.Begin", seq_no=0, id_token=CARD, **BY_CARD
    )
    assert (await here(shop, station_id)).id_token_status == "Blocked"
    assert await state_of(shop, kept) == "active"


@pytest.mark.parametrize(
    ("made", "becomes"), [(timedelta(minutes=-90), "used"), (timedelta(minutes=-5), "active")]
)
async def test_what_the_queue_tells_of_before_uses_no_reservation_made_since(
    shop: Shop, made: timedelta, becomes: str
) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    token_id, now = await card_of(shop), utcnow()
    began = now - timedelta(hours=1)
    kept = await reserve(shop, station_id, token_id, now + made)
    await tell(
        shop, station_id, "Updated", began, 1_000, "Sample.Periodic", seq_no=1, id_token=CARD, **BY_CARD
    )
    await tell(
        shop, station_id, "Started", began, 1_000, "Transaction.Begin", seq_no=0, id_token=CARD, **BY_CARD
    )
    assert await state_of(shop, kept) == becomes


async def test_a_start_told_again_moves_no_car_back(shop: Shop) -> None:
    """The station named another EVSE since, and somebody else charges at the first one."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    began = utcnow() - timedelta(hours=1)
    async with shop.scope() as scope:
        await stations.ensure_evse(scope, station_id, 2, 1)
    await tell(shop, station_id, "Started", began, seq_no=0, trigger_reason="EVDetected")
    await tell(shop, station_id, "Updated", began + timedelta(minutes=1), evse_no=2, seq_no=1)
    await tell(
        shop, station_id, "Started", began, 1_000, "Transaction.Begin", seq_no=0, id_token=CARD, **BY_CARD
    )
    begun = await here(shop, station_id)
    assert (begun.evse_no, begun.id_token_status) == (2, "Accepted")


# What is told of a visit, by minute; and what must come of it: review, energy (Wh), the minute it begins.
VISITS: dict[str, tuple[dict[str, int], tuple[str | None, int, int]]] = {
    "cable, then card": ({"cable": 0, "card": 60, "reading": 61, "end": 120}, (None, 10_000, 60)),
    "card": ({"card start": 0, "reading": 61, "end": 120}, (None, 10_000, 0)),
    "refused card, then card": ({"refused start": 0, "card": 60, "reading": 61, "end": 120}, (None, 10_000, 60)),
    "energy to a refused card, then card": (
        {"refused start": 0, "three kWh": 20, "card": 60, "still three": 61, "end": 120}, ("other_card", 7_000, 60)
    ),
    "card, then a stranger's": ({"card start": 0, "stranger": 30, "reading": 61, "end": 120}, (None, 10_000, 0)),
    "cable, a refused card that got energy, then card": (
        {"cable": 0, "stranger": 10, "three kWh": 20, "card": 60, "still three": 61, "end": 120},
        ("other_card", 7_000, 60),
    ),
    "cable, then card, and once more to stop": (
        {"cable": 0, "card": 60, "card to stop": 118, "end by card": 120}, (None, 10_000, 60)
    ),
    "card, a stranger's, and once more to stop": (
        {"card start": 0, "stranger": 30, "card to stop": 118, "end": 120}, (None, 10_000, 0)
    ),
}  # fmt: skip
CHARGING = {"charging_state": "Charging"}
TOLD: dict[str, tuple[str, int | None, str, dict[str, Any]]] = {
    "cable": ("Started", 1_000, "Transaction.Begin", {"trigger_reason": "CablePluggedIn"}),
    "card start": ("Started", 1_000, "Transaction.Begin", {"id_token": CARD, **BY_CARD}),
    "refused start": ("Started", 1_000, "Transaction.Begin", {"id_token": STRANGER, **BY_CARD}),
    "stranger": ("Updated", None, "", {"id_token": STRANGER, **BY_CARD}),
    "card": ("Updated", None, "", {"id_token": CARD, **BY_CARD}),
    "card to stop": ("Updated", None, "", {"id_token": CARD, "trigger_reason": "StopAuthorized"}),
    "end by card": ("Ended", 11_000, "Transaction.End", {"stopped_reason": "Local", "id_token": CARD}),
    "reading": ("Updated", 1_000, "Sample.Periodic", CHARGING),
    "three kWh": ("Updated", 4_000, "Sample.Periodic", CHARGING),
    "still three": ("Updated", 4_000, "Sample.Periodic", CHARGING),
    "end": ("Ended", 11_000, "Transaction.End", {"stopped_reason": "Local"}),
}


@pytest.mark.parametrize("visit", VISITS)
@pytest.mark.proof
async def test_a_visit_comes_to_the_same_in_whatever_order_it_is_told(
    shop: Shop, proof: Proof, visit: str
) -> None:
    minutes, (review, energy_wh, begins) = VISITS[visit]
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    expected = ("COMPLETED", "Accepted", review, energy_wh, begins, 120)
    wrong: list[Any] = []
    orders = [
        order for order in permutations(minutes) if TOLD[order[-1]][1] != 4_000
    ]  # a reading decides nothing
    if len(orders) > 24:
        orders = proof.random(visit).sample(orders, proof.share(len(orders)))
    for number, order in enumerate(orders):
        transaction, first = ", ".join(order), utcnow() - timedelta(hours=8, seconds=number)
        for what in order:
            kind, wh, context, more = TOLD[what]
            at, seq_no = first + timedelta(minutes=minutes[what]), list(minutes).index(what)
            await tell(
                shop, station_id, kind, at, wh, context, seq_no=seq_no, transaction=transaction, **more
            )
        async with shop.scope() as scope:
            query = select(ChargingSession).where(ChargingSession.ocpp_transaction_id == transaction)
            done = (await scope.db.execute(query)).scalar_one()
        assert done.ended_at is not None
        began, ended = ((at - first) / timedelta(minutes=1) for at in (done.started_at, done.ended_at))
        found = (done.status, done.id_token_status, done.review, done.energy_wh, began, ended)
        if found != expected:
            wrong.append((transaction, found))
    assert not wrong


async def test_a_start_by_another_good_card_that_is_told_last_waits_for_staff(shop: Shop) -> None:
    """One card started, one of the family stopped, and the station told of that first: nobody guesses who pays."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    family = IdTokenValue("CARD2", "ISO14443")
    async with shop.scope() as scope:
        await access.create_id_token(scope, value=family.value, type="ISO14443")
    began = utcnow() - timedelta(hours=2)
    stopped = began + timedelta(minutes=58)
    await tell(
        shop, station_id, "Updated", stopped, seq_no=1, id_token=family, trigger_reason="StopAuthorized"
    )
    await tell(
        shop, station_id, "Started", began, 1_000, "Transaction.Begin", seq_no=0, id_token=CARD, **BY_CARD
    )
    await end(shop, station_id, began + timedelta(hours=1), seq_no=2)
    done = await here(shop, station_id)
    assert (done.status, done.review, done.settled_at) == ("COMPLETED", "other_card", None)


async def test_what_another_card_had_is_not_the_drivers_though_theirs_charges_elsewhere_too(
    shop: Shop,
) -> None:
    """Nor when the next transaction ends theirs."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    began = utcnow() - timedelta(hours=3)
    came = began + timedelta(hours=1)
    await charges_elsewhere(shop, await card_of(shop), began)
    await tell(
        shop, station_id, "Started", began, 1_000, "Transaction.Begin", seq_no=0, id_token=STRANGER, **BY_CARD
    )
    await tell(shop, station_id, "Updated", began + timedelta(minutes=20), 4_000, "Sample.Periodic", seq_no=1)
    await tell(
        shop, station_id, "Updated", came, 4_000, "Sample.Periodic", seq_no=2, id_token=CARD, **BY_CARD
    )
    await tell(shop, station_id, "Updated", came + timedelta(minutes=30), 9_000, "Sample.Periodic", seq_no=3)
    later = came + timedelta(hours=1)
    await tell(shop, station_id, "Started", later, 9_000, "Transaction.Begin", seq_no=0, transaction="next")
    async with shop.scope() as scope:
        query = select(ChargingSession).where(ChargingSession.ocpp_transaction_id == "cable-1")
        older = (await scope.db.execute(query)).scalar_one()
        assert (older.status, older.review, older.energy_wh) == ("COMPLETED", "other_card", 5_000)
        await service.decide_review(scope, older.id, "release", "the card's owner agrees")
    await shop.jobs.run()
    async with shop.scope() as scope:
        done = await service.get_session(scope, older.id)
        assert done.settled_at is not None and (done.started_at, done.energy_wh) == (came, 5_000)


async def test_an_end_after_a_silence_leaves_no_energy_of_before_in_a_review(shop: Shop) -> None:
    """Its start never came: staff say how much, instead of what was known when it fell silent."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    began = utcnow() - timedelta(days=3)
    await tell(
        shop, station_id, "Updated", began, 1_000, "Transaction.Begin", seq_no=1, id_token=CARD, **BY_CARD
    )
    await tell(shop, station_id, "Updated", began + timedelta(minutes=30), 5_000, "Sample.Periodic", seq_no=2)
    async with shop.scope() as scope:
        assert await service.close_stuck(scope) == 1
    await end(shop, station_id, began + timedelta(hours=2), seq_no=3)
    done = await here(shop, station_id)
    assert (done.review, done.energy_wh, done.stopped_reason) == ("orphan", None, "Local")


async def test_a_card_that_is_good_when_it_is_told_again_pays_from_its_coming(shop: Shop) -> None:
    """It was not known yet when the station told of it first."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    parked = utcnow() - timedelta(hours=2)
    came = parked + timedelta(minutes=30)
    await plug_in(shop, station_id, parked)
    await tell(shop, station_id, "Updated", came, seq_no=1, id_token=CARD, **BY_CARD)
    assert (await here(shop, station_id)).is_refused
    await card_of(shop)
    await tell(shop, station_id, "Updated", came, seq_no=1, id_token=CARD, **BY_CARD)
    begun = await here(shop, station_id)
    assert (begun.id_token_status, begun.started_at, begun.review) == ("Accepted", came, None)


async def test_a_hold_that_ends_settles_no_visit_backwards(shop: Shop) -> None:
    """The last reading is older than the driver."""
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    parked = utcnow() - timedelta(hours=2)
    came = parked + timedelta(minutes=30)
    await plug_in(shop, station_id, parked)
    await tell(shop, station_id, "Updated", came, seq_no=1, id_token=CARD, **BY_CARD)
    async with shop.scope() as scope:
        await service.close_silent(scope, (await here(shop, station_id)).id)
    await shop.jobs.run()
    done = await here(shop, station_id)
    assert (done.started_at, done.ended_at, done.energy_wh) == (came, came, 0) and not shop.jobs.failures


async def test_a_session_that_the_next_one_ended_takes_its_own_end_under_any_review(shop: Shop) -> None:
    station_id, _epoch = await place_of(shop, "ocpp2.0.1")
    await card_of(shop)
    began = utcnow() - timedelta(hours=3)
    came, later = began + timedelta(hours=1), began + timedelta(hours=2)
    await tell(
        shop, station_id, "Started", began, 1_000, "Transaction.Begin", seq_no=0, id_token=STRANGER, **BY_CARD
    )
    await tell(
        shop, station_id, "Updated", came, 4_000, "Sample.Periodic", seq_no=1, id_token=CARD, **BY_CARD
    )
    await tell(shop, station_id, "Started", later, 9_000, "Transaction.Begin", seq_no=0, transaction="next")
    await end(shop, station_id, later - timedelta(minutes=5), seq_no=2)
    async with shop.scope() as scope:
        query = select(ChargingSession).where(ChargingSession.ocpp_transaction_id == "cable-1")
        done = (await scope.db.execute(query)).scalar_one()
    assert (done.review, done.stopped_reason, done.energy_wh) == ("other_card", "Local", 7_000)
