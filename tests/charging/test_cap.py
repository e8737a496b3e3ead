"""A guest never pays more than the hold: stopped in time, by reading and by clock; the rest is the operator's loss."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.access.models import IdToken
from app.access.verdict import IdTokenValue
from app.billing import payments
from app.charging import holds, ingest, paid, queries, service, settlement
from app.charging.models import ChargingSession, PriceSnapshot
from app.charging.reports import ENERGY, POWER, Reading, TransactionReport
from app.kernel.clock import utcnow
from app.kernel.secrets import unseal
from app.stations import commands
from app.stations import service as stations
from app.stations.models import EVSE, StationCommand
from app.tariffs import service as tariffs
from tenants.scope import Actor
from tests.billing.conftest import Shop, jobs, shop
from tests.cast import PLATES
from tests.web import CLI

__all__ = ["jobs", "shop"]
pytestmark = pytest.mark.anyio
ELEMENT = {
    "price_components": [{"type": "ENERGY", "price": "0.50", "vat": "20", "step_size": 1}]
}  # 0.60 with VAT
BEGAN = utcnow() - timedelta(hours=3)
START_WH = 1_000


@dataclass
class Visit:
    """A guest whose hold stands and whose car charges at 22 kW since `BEGAN`."""

    shop: Shop
    station_id: UUID
    session_id: UUID
    epoch: int

    def scope(self, *, minutes: float = 0) -> Any:
        now = BEGAN + timedelta(minutes=minutes)
        return self.shop.database.scope(self.shop.tenant_id, Actor.station(self.station_id), now=now)

    async def read(self, minutes: float, kwh: float) -> None:
        at = BEGAN + timedelta(minutes=minutes)
        values = ((ENERGY, Decimal(START_WH) + Decimal(str(kwh)) * 1000, "Wh"), (POWER, Decimal(22_000), "W"))
        readings = [
            Reading(
                measurand=name,
                value=value,
                unit=unit,
                sampled_at=at,
                received_at=at,
                context="Sample.Periodic",
            )
            for name, value, unit in values
        ]
        async with self.scope(minutes=minutes) as scope:
            session = await service.get_session(scope, self.session_id)
            await ingest.ingest(scope, self.station_id, 1, session.ocpp_transaction_id, readings)

    async def tell(self, minutes: float, state: str) -> None:
        """The station says what goes on."""
        async with self.scope(minutes=minutes) as scope:
            session = await service.get_session(scope, self.session_id)
            await service.report_transaction(scope, self.station_id, TransactionReport(
                kind="Updated", at=scope.now, received_at=scope.now, charging_state=state,
                ocpp_transaction_id=session.ocpp_transaction_id,
            ))  # fmt: skip

    async def look(self, minutes: float) -> None:
        async with self.scope(minutes=minutes) as scope:
            await paid.watch_cap(scope, self.session_id)

    async def stops(self) -> list[str]:
        """How the stops stand that the station was asked for."""
        async with self.scope() as scope:
            query = select(StationCommand.status).where(StationCommand.action == "RemoteStopTransaction")
            return list((await scope.db.execute(query)).scalars())

    async def end(self, minutes: float, kwh: float) -> ChargingSession:
        at = BEGAN + timedelta(minutes=minutes)
        async with self.scope(minutes=minutes) as scope:
            session = await service.get_session(scope, self.session_id)
            await service.report_transaction(scope, self.station_id, TransactionReport(
                kind="Ended", at=at, received_at=at, natural_key="stop",
                ocpp_transaction_id=session.ocpp_transaction_id,
                meter_stop_wh=Decimal(START_WH) + Decimal(str(kwh)) * 1000,
            ))  # fmt: skip
        async with self.shop.database.scope(self.shop.tenant_id, CLI, now=at) as scope:
            await settlement.settle(scope, self.session_id)
        await self.shop.jobs.run()
        async with self.scope() as scope:
            return await service.get_session(scope, self.session_id)

    async def payment(self) -> payments.Payment:
        async with self.scope() as scope:
            found = await payments.find_payment(scope, "charging_session", self.session_id)
            assert found is not None
            return found


async def place_of(shop: Shop, version: str = "ocpp1.6", zone: str = "Europe/Berlin") -> tuple[UUID, int]:
    """(station, connection's epoch): one AC place with a price, online."""
    async with shop.scope() as scope:
        location = await stations.create_location(
            scope, name="Hafen", address="Weg 1", city="Berlin", postal_code="10115", country="DEU",
            time_zone=zone,
        )  # fmt: skip
        made = await stations.create_station(
            scope, identity="CP1", location_id=location.id,
            evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
        )  # fmt: skip
        await tariffs.create_tariff(scope, {"currency": "EUR", "elements": [ELEMENT]}, {"default": True})
    station_id = made.station.id
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        epoch = await stations.connection_opened(
            scope, station_id, node="n", ocpp_version=version, remote="127.0.0.1"
        )
    return station_id, epoch


async def wish_for(
    shop: Shop, language: str = "en", version: str = "ocpp1.6", zone: str = "Europe/Berlin"
) -> tuple[UUID, UUID, int]:
    """(station, session, connection's epoch): a guest is at the payment page and gave no card yet."""
    station_id, epoch = await place_of(shop, version, zone)
    async with shop.scope() as scope:
        evse_id = (await scope.db.execute(select(EVSE.id))).scalar_one()
        session, op = await paid.request_start(
            scope, evse_id, email="", language=language, origin="", remote="1"
        )
    assert op is not None
    await payments.run_op(shop.database, shop.tenant_id, op.id)
    return station_id, session.id, epoch


async def paid_for(
    shop: Shop, language: str = "en", version: str = "ocpp1.6", zone: str = "Europe/Berlin"
) -> tuple[UUID, UUID, int]:
    """The same, when the hold of 30.00 stands and the station was asked to start."""
    station_id, session_id, epoch = await wish_for(shop, language, version, zone)
    async with shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", session_id)
        assert payment is not None
    await shop.pay(payment)
    await shop.look(payment)
    await shop.jobs.run()
    return station_id, session_id, epoch


@pytest.fixture
async def visit(shop: Shop) -> Visit:
    return await begin(shop)


async def begin(
    shop: Shop, language: str = "en", version: str = "ocpp1.6", zone: str = "Europe/Berlin"
) -> Visit:
    station_id, session_id, epoch = await paid_for(shop, language, version, zone)
    async with shop.scope() as scope:
        session = await service.get_session(scope, session_id)
        token = (
            await scope.db.execute(select(IdToken).where(IdToken.id == session.id_token_id))
        ).scalar_one()
        value = unseal(scope.settings.secret_keys, "id_token", token.value_sealed)
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id), now=BEGAN) as scope:
        await service.report_transaction(scope, station_id, TransactionReport(
            kind="Started", at=BEGAN, received_at=BEGAN, natural_key="start", evse_no=1, connector_no=1,
            id_token=IdTokenValue(value), meter_start_wh=Decimal(START_WH),
        ))  # fmt: skip
    return Visit(shop, station_id, session_id, epoch)


async def test_a_reading_near_the_hold_stops_the_session_before_it_is_used_up(visit: Visit) -> None:
    """30.00 buy 50 kWh; at 22 kW those are reached after 136 minutes."""
    await visit.read(120, 44)
    await visit.look(120)
    assert await visit.stops() == []
    await visit.read(136, 49.9)
    await visit.look(136)
    assert len(await visit.stops()) == 1
    await visit.look(136.2)
    assert len(await visit.stops()) == 1  # asked for once; again only when nothing comes of it
    session = await visit.end(136.3, 49.98)
    payment = await visit.payment()
    assert (session.status, payment.state, payment.captured_minor) == ("COMPLETED", "captured", 2999)
    assert (await visit.shop.balances()).get("driver_receivable", 0) == 0


async def test_what_was_given_before_the_meter_was_set_back_counts_towards_the_hold(visit: Visit) -> None:
    """50 kWh are the hold's end: 22 before, 28 after."""
    await visit.read(60, 22)
    await visit.read(61, -1)  # the register is 0
    for minutes in range(70, 140, 10):
        await visit.read(minutes, 22 * (minutes - 61) / 60 - 1)
        await visit.look(minutes)
    assert await visit.stops() == []
    await visit.look(136)
    assert await visit.stops() == []
    await visit.look(137)  # a minute later than without: nobody knows what flowed while it was set back
    assert await visit.stops() == ["queued"]


async def test_one_wrong_reading_of_the_meter_ends_no_session_early(visit: Visit) -> None:
    await visit.read(60, 5)
    await visit.read(61, -1)
    await visit.read(62, 5)
    await visit.read(180, 40)
    await visit.look(180)
    assert await visit.stops() == []


async def test_presses_on_stop_at_once_ask_the_station_once(visit: Visit) -> None:
    """Whoever presses: while one stop waits, or was accepted a moment ago, it is the one that counts."""

    async def press(minutes: float) -> StationCommand:
        async with visit.scope(minutes=minutes) as scope:
            return await service.request_stop(scope, visit.session_id)

    asked = await asyncio.gather(*[press(10) for _ in range(5)])
    assert len({one.id for one in asked}) == 1 and await visit.stops() == ["queued"]
    assert await said(visit, "stop_requested") == 1
    async with visit.scope(minutes=10) as scope:
        claimed = await commands.claim_commands(scope, visit.station_id, visit.epoch, limit=9)
        assert asked[0].id in {one.id for one in claimed}
        assert (await service.request_stop(scope, visit.session_id)).id == asked[0].id
        await commands.conclude_command(scope, asked[0].id, "accepted", {"status": "Accepted"})
    assert (await press(10.9)).id == asked[0].id
    again = await press(11.1)  # nothing came of it for a minute
    assert again.id != asked[0].id
    async with visit.scope(minutes=11.1) as scope:
        await commands.claim_commands(scope, visit.station_id, visit.epoch)
        await commands.conclude_command(scope, again.id, "rejected", {"status": "Rejected"})
    assert (await press(11.2)).id not in (asked[0].id, again.id)


async def said(visit: Visit, kind: str) -> int:
    """How often the timeline tells it."""
    async with visit.scope() as scope:
        return [one.kind for one in await queries.events_of(scope, visit.session_id)].count(kind)


async def test_readings_and_the_clock_together_stop_a_session_once(visit: Visit) -> None:
    await visit.read(136, 49.9)
    await asyncio.gather(*[visit.look(136) for _ in range(4)])
    assert await visit.stops() == ["queued"]
    assert (await said(visit, "cap_reached"), await said(visit, "stop_requested")) == (1, 1)
    await visit.look(140)  # it still waits for the station
    assert await visit.stops() == ["queued"] and await said(visit, "cap_reached") == 1


async def test_a_silent_station_is_stopped_by_the_clock(visit: Visit) -> None:
    await visit.read(60, 22)
    await visit.look(100)
    assert await visit.stops() == []
    await visit.look(136)  # what it may have given by now at full power
    assert len(await visit.stops()) == 1


async def test_what_standing_costs_counts_towards_the_hold_while_the_meter_says_nothing(visit: Visit) -> None:
    """11 kWh for 3.96, then 10.80 an hour: 30.00 are reached after 174.7 minutes, at full power after 227."""
    parts = [
        {"type": "ENERGY", "price": "0.30", "vat": "20", "step_size": 1},
        {"type": "PARKING_TIME", "price": "9.00", "vat": "20", "step_size": 1},
    ]
    tariff = {"id": "T", "currency": "EUR", "elements": [{"price_components": parts}]}
    async with visit.shop.scope() as scope:
        await scope.db.execute(update(PriceSnapshot).values(tariff=tariff))
    for minutes, state in ((0.1, "Charging"), (30, "SuspendedEV")):
        await visit.tell(minutes, state)
    await visit.read(30, 11)
    await visit.look(174)
    assert await visit.stops() == []
    await visit.look(174.5)  # a stop takes a moment
    assert len(await visit.stops()) == 1
    await visit.end(174.6, 11)
    assert 2990 < (await visit.payment()).captured_minor <= 3000
    assert "write_off" not in await visit.shop.balances()


async def test_a_car_that_begins_to_stand_at_a_dear_price_is_looked_at_before_the_hold_is_used_up(
    visit: Visit,
) -> None:
    """26.28 of 30.00 by energy; charging on is 0.13 a minute, standing is 1.20: the next look knows of both."""
    parts = [
        {"type": "ENERGY", "price": "0.30", "vat": "20", "step_size": 1},
        {"type": "PARKING_TIME", "price": "60.00", "vat": "20", "step_size": 1},
    ]
    tariff = {"id": "T", "currency": "EUR", "elements": [{"price_components": parts}]}
    async with visit.shop.scope() as scope:
        await scope.db.execute(update(PriceSnapshot).values(tariff=tariff))

    def jobs_of(name: str) -> list[Any]:
        query = "select scheduled_at from procrastinate.procrastinate_jobs where task_name = %s order by id"
        return [row[0] for row in visit.shop.jobs.connection.execute(query, [name])]

    await visit.tell(0.1, "Charging")
    await visit.read(200, 73)
    await visit.look(200)
    looks, checks = 0, len(jobs_of("charging.check_cap"))
    await visit.tell(200.1, "SuspendedEV")
    assert len(jobs_of("charging.check_cap")) == checks + 1  # it is looked at once at the change, too
    while not await visit.stops():
        looks += 1
        await visit.look((jobs_of("charging.watch_cap")[-1] - BEGAN).total_seconds() / 60)
    assert 1 <= looks < 10
    async with visit.scope() as scope:
        query = select(StationCommand.created_at).where(StationCommand.action == "RemoteStopTransaction")
        stopped_at = (await scope.db.execute(query)).scalar_one()
        session = await service.get_session(scope, visit.session_id)
        price = await settlement.price_at(scope, session, stopped_at + paid.STOP_TAKES / 2, 73_000)
    assert price is not None and 2900 < price.total_cost.incl_minor <= 3000


async def begun_without_meter(shop: Shop) -> Visit:
    """A 2.0.1 station whose Started tells no meter; the car charges at 22 kW."""
    station_id, session_id, epoch = await paid_for(shop, version="ocpp2.0.1")
    async with shop.scope() as scope:
        asked = (await scope.db.execute(select(StationCommand.payload))).scalar_one()
    visit = Visit(shop, station_id, session_id, epoch)
    token = IdTokenValue(asked["idToken"]["idToken"], asked["idToken"]["type"])
    async with visit.scope() as scope:
        await service.report_transaction(scope, station_id, TransactionReport(
            kind="Started", at=BEGAN, received_at=BEGAN, ocpp_transaction_id="t1", evse_no=1, connector_no=1,
            id_token=token, remote_start_id=asked["remoteStartId"], trigger_reason="RemoteStart",
            charging_state="Charging", seq_no=0,
        ))  # fmt: skip
    return visit


async def asked_to_stop(visit: Visit) -> bool:
    async with visit.scope() as scope:
        query = select(StationCommand.id).where(StationCommand.action == "RequestStopTransaction")
        return (await scope.db.execute(query)).first() is not None


async def test_a_meter_whose_begin_was_never_told_counts_from_its_first_reading(shop: Shop) -> None:
    """At least that much was given: the page, the cap, and what is taken when nobody decides."""
    visit = await begun_without_meter(shop)
    for minutes in (1, 30, 60):
        await visit.read(minutes, 22 * minutes / 60)
        await visit.look(minutes)
    async with visit.scope(minutes=60) as scope:
        session = await service.get_session(scope, visit.session_id)
        price = await settlement.running_price(scope, session)
    assert session.live is not None and session.live.energy_wh == round(22_000 * 59 / 60)
    assert price is not None and price.total_cost.incl_minor == 1298
    assert not await asked_to_stop(visit)
    await visit.read(136, 22 * 136 / 60)  # 29.70 from the first reading on
    await visit.look(137)
    assert await asked_to_stop(visit)
    await visit.end(138, 50.6)
    assert (await visit.payment()).state == "authorized"
    async with visit.scope(minutes=138) as scope:
        assert (await service.get_session(scope, visit.session_id)).review == "orphan"
    async with visit.scope(minutes=138 + 23 * 60 + 1) as scope:
        await holds.end_undecided(scope, visit.session_id)
    await shop.jobs.run()
    assert (await visit.payment()).captured_minor == 3000
    balances = await shop.balances()
    assert "driver_receivable" not in balances and balances["write_off"] > 0


async def test_the_time_before_the_driver_came_counts_for_nothing(visit: Visit) -> None:
    """Cable first: the meter was read hours before, and nothing flowed until the card was given."""
    await visit.read(0, 0)
    async with visit.scope(minutes=1) as scope:
        long_ago = payments.text(
            "update livery.session_live set metered_at = metered_at - interval '5 hours'"
        )
        await scope.db.execute(long_ago)
    await visit.look(1)
    assert await visit.stops() == []


async def test_a_station_that_tells_everything_but_its_meter_is_stopped_as_if_it_gave_full_power(
    visit: Visit,
) -> None:
    """Other readings are no news of the energy: the plate counts from the last that was."""
    await visit.read(60, 22)
    for minutes in (90, 120, 135):
        at = BEGAN + timedelta(minutes=minutes)
        reading = Reading(measurand="SoC", value=Decimal(50), unit="Percent", sampled_at=at, received_at=at,
                          context="Sample.Periodic")  # fmt: skip
        async with visit.scope(minutes=minutes) as scope:
            session = await service.get_session(scope, visit.session_id)
            await ingest.ingest(scope, visit.station_id, 1, session.ocpp_transaction_id, [reading])
    await visit.look(135)
    assert await visit.stops() == []
    await visit.look(136.5)
    assert await visit.stops() == ["queued"]


async def test_offline_when_the_hold_is_reached_it_is_stopped_later_and_the_rest_is_the_operators_loss(
    visit: Visit,
) -> None:
    await visit.read(60, 22)
    async with visit.scope(minutes=61) as scope:
        await stations.connection_closed(scope, visit.station_id, visit.epoch, "lost")
    await visit.look(136)
    assert await visit.stops() == ["queued"]  # it waits for the station
    session = await visit.end(170, 62)  # 37.20
    payment = await visit.payment()
    assert (session.status, payment.state, payment.captured_minor) == ("COMPLETED", "captured", 3000)
    assert await visit.shop.captures(payment) == [3000]
    balances = await visit.shop.balances()
    assert (balances.get("driver_receivable", 0), balances["write_off"]) == (0, 720)
    assert sum(balances.values()) == 0


async def test_the_cap_asks_again_when_nobody_wrote_what_came_of_a_stop(visit: Visit) -> None:
    """Its gateway died, or the database was away, when the station answered."""
    async with visit.scope(minutes=10) as scope:
        lost = await service.request_stop(scope, visit.session_id)
        await commands.claim_commands(scope, visit.station_id, visit.epoch)
    async with visit.scope(minutes=10.5) as scope:
        assert (await service.request_stop(scope, visit.session_id)).id == lost.id, "a second press"
    await visit.read(150, 55)
    await visit.look(150)
    assert sorted(await visit.stops()) == ["queued", "sent"]


async def test_nobody_plugs_in_and_the_hold_is_let_go(shop: Shop) -> None:
    station_id, session_id, epoch = await paid_for(shop)
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id)) as scope:
        [command] = await commands.claim_commands(scope, station_id, epoch)
        await commands.conclude_command(scope, command.id, "accepted", {"status": "Accepted"})
    later = utcnow() + timedelta(minutes=30)
    async with shop.database.scope(shop.tenant_id, CLI, now=later) as scope:
        await service.expire_pending(scope, session_id)
    await shop.jobs.run()
    async with shop.scope() as scope:
        session = await service.get_session(scope, session_id)
        payment = await payments.find_payment(scope, "charging_session", session_id)
        assert payment is not None
        words = await paid.state_words(scope, session, payment)
    assert (session.status, session.not_started, payment.state) == ("INVALID", "not_plugged_in", "canceled")
    assert words["title"] == "Nobody plugged in" and await shop.captures(payment) == []
    assert await shop.balances() == {}


async def test_a_strangers_start_does_not_take_the_wish_of_a_guest_who_has_yet_to_pay(shop: Shop) -> None:
    """The station was asked for nothing yet, so that no start of its own can be the guest's."""
    station_id, session_id, _epoch = await wish_for(shop)
    at = utcnow()
    async with shop.database.scope(shop.tenant_id, Actor.station(station_id), now=at) as scope:
        await service.report_transaction(scope, station_id, TransactionReport(
            kind="Started", at=at, received_at=at, natural_key="stranger", evse_no=1, connector_no=1,
            id_token=IdTokenValue("NOBODYS"), meter_start_wh=Decimal(START_WH),
        ))  # fmt: skip
    async with shop.scope() as scope:
        wish = await service.get_session(scope, session_id)
        others = select(ChargingSession).where(ChargingSession.id != session_id)
        (stranger,) = (await scope.db.execute(others)).scalars()
        assert (wish.status, wish.start_key) == ("PENDING", None)
        assert (stranger.start_key, stranger.origin) == ("stranger", "station")
