"""A driver's own sessions and their own way to start: who sees what, who pays how, and what a card may not."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.access import accounts
from app.access import service as access
from app.access.models import Driver
from app.access.verdict import IdTokenValue
from app.billing import payments
from app.billing.models import Invoice, PaymentOp
from app.brands import faces
from app.charging import account, cost, paid, service, settlement
from app.charging.models import CDR, ChargingSession
from app.charging.reports import TransactionReport
from app.kernel.clock import utcnow
from app.kernel.errors import NotFound, Refused, TooMany
from app.stations import service as stations
from app.stations.models import EVSE, StationCommand
from app.tariffs import service as tariffs
from tenants.scope import Actor
from tests.billing.conftest import DECLINED, GOOD, Shop, jobs, shop
from tests.cast import PLATES
from tests.surfaces.conftest import house
from tests.web import CLI, House

__all__ = ["house", "jobs", "shop"]
pytestmark = pytest.mark.anyio


def tariff(price: str) -> dict[str, Any]:
    return {"currency": "EUR", "elements": [
        {"price_components": [{"type": "ENERGY", "price": price, "vat": "20", "step_size": 1}]}]}  # fmt: skip


@dataclass
class Yard:
    shop: Shop
    station_id: UUID
    evse_id: UUID
    location_id: UUID
    counter: int = 0

    async def driver(
        self, email: str, *, collection: str = "", card: str = "", at: UUID | None = None
    ) -> Driver:
        """With a group of their own where `collection` names one, and a card where one is named."""
        async with self.shop.scope() as scope:
            group = None
            if collection:
                group = await access.create_driver_group(
                    scope,
                    name=f"{email} {collection}",
                    collection=collection,
                    location_ids=[at] if at else [],
                )
                await tariffs.create_tariff(scope, tariff("0.10"), {"driver_group_id": group.id})
            driver = await access.create_driver(
                scope, name=email, email=email, driver_group_id=group.id if group else None
            )
            if card:
                await access.create_id_token(scope, value=card, driver_id=driver.id)
        return driver

    def scope(self, driver: Driver) -> Any:
        return self.shop.database.scope(self.shop.tenant_id, accounts.actor_of(driver))

    async def card_of(self, driver: Driver) -> Any:
        async with self.shop.scope() as scope:
            return (await accounts.list_cards(scope, driver.id))[0]

    async def charge(self, card: str, began: datetime, kwh: int = 10, *, settled: bool = True) -> UUID:
        """An hour by a card at the reader."""
        self.counter += 1
        async with self.shop.database.scope(
            self.shop.tenant_id, Actor.station(self.station_id), now=began
        ) as scope:
            verdict = await service.report_transaction(scope, self.station_id, TransactionReport(
                kind="Started", at=began, received_at=began, natural_key=f"start{self.counter}", evse_no=1,
                connector_no=1, id_token=IdTokenValue(card), meter_start_wh=Decimal(0),
            ))  # fmt: skip
            ended = began + timedelta(hours=1)
            await service.report_transaction(scope, self.station_id, TransactionReport(
                kind="Ended", at=ended, received_at=ended, natural_key=f"stop{self.counter}",
                ocpp_transaction_id=verdict.ocpp_transaction_id, meter_stop_wh=Decimal(kwh * 1000),
            ))  # fmt: skip
            of_it = ChargingSession.ocpp_transaction_id == verdict.ocpp_transaction_id
            session_id = (await scope.db.execute(select(ChargingSession.id).where(of_it))).scalar_one()
        if settled:
            async with self.shop.database.scope(self.shop.tenant_id, CLI, now=ended) as scope:
                await settlement.settle(scope, session_id)
        return session_id

    async def history(self, driver: Driver) -> list[UUID]:
        async with self.scope(driver) as scope:
            return [row.id for row, _cdr in await account.list_history(scope, driver)]


@pytest.fixture
async def yard(shop: Shop) -> Yard:
    async with shop.scope() as scope:
        location = await stations.create_location(
            scope, name="Hafen", address="Weg 1", city="Berlin", postal_code="10115", country="DEU",
            time_zone="Europe/Berlin",
        )  # fmt: skip
        made = await stations.create_station(
            scope, identity="CP1", location_id=location.id,
            evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
        )  # fmt: skip
        await tariffs.create_tariff(scope, tariff("0.50"), {"default": True})
    async with shop.database.scope(shop.tenant_id, Actor.station(made.station.id)) as scope:
        await stations.connection_opened(
            scope, made.station.id, node="n", ocpp_version="ocpp1.6", remote="127.0.0.1"
        )
    async with shop.scope() as scope:
        evse_id = (await scope.db.execute(select(EVSE.id))).scalar_one()
    return Yard(shop, made.station.id, evse_id, location.id)


async def test_a_card_that_changes_hands_takes_no_history_along(yard: Yard) -> None:
    jule = await yard.driver("jule@example.org", card="CARD1")
    malik = await yard.driver("malik@example.org")
    began = utcnow() - timedelta(days=3)
    first = await yard.charge("CARD1", began)
    async with yard.shop.scope() as scope:
        card = (await accounts.list_cards(scope, jule.id))[0]
        await access.update_id_token(scope, card.id, driver_id=malik.id)
    second = await yard.charge("CARD1", began + timedelta(days=1))
    assert (await yard.history(jule), await yard.history(malik)) == ([first], [second])
    async with yard.scope(malik) as scope:
        await account.check_own(scope, second)
        for other in (first, UUID(int=7)):
            with pytest.raises(NotFound):
                await account.check_own(scope, other)
        with pytest.raises(NotFound):
            await account.list_history(scope, malik, before=first)


async def test_a_card_sessions_invoice_speaks_its_drivers_language_else_the_brands(yard: Yard) -> None:
    """The driver's once they read our pages; never one that the brand does not offer."""
    jule = await yard.driver("jule@example.org", card="CARD1")
    began = utcnow() - timedelta(days=5)

    async def language_of(day: int) -> str:
        session_id = await yard.charge("CARD1", began + timedelta(days=day))
        async with yard.shop.scope() as scope:
            [paper] = await settlement.list_papers(scope, session_id)
        assert ("Energie" if paper.language == "de" else "Energy") in paper.lines[0].description
        return paper.language

    assert await language_of(0) == "en", "the brand's"
    async with yard.scope(jule) as scope:
        await accounts.speak(scope, "de")
    assert await language_of(1) == "de"
    async with yard.shop.scope() as scope:
        look = (await faces.get_editing(scope)).look
        await faces.save_draft(scope, replace(look, languages=("en",)))
        await faces.publish_draft(scope)
    assert await language_of(2) == "en"


async def test_what_a_guest_paid_belongs_to_the_account_of_the_mailbox_its_receipt_went_to(
    yard: Yard,
) -> None:
    async with yard.shop.scope() as scope:
        session, op = await paid.request_start(
            scope, yard.evse_id, email="Jule@Example.org", language="en", origin="", remote="1"
        )
    assert op is not None
    await payments.run_op(yard.shop.database, yard.shop.tenant_id, op.id)
    async with yard.shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", session.id)
    assert payment is not None
    await yard.shop.pay(payment)
    await yard.shop.look(payment)
    jule, malik = await yard.driver("jule@example.org"), await yard.driver("malik@example.org")
    assert (await yard.history(jule), await yard.history(malik)) == ([session.id], [])


async def test_months_add_up_in_the_brands_own_calendar_and_what_is_free_costs_nothing(yard: Yard) -> None:
    """2026-10-31 23:30 UTC is November in Berlin. What is not priced yet counts with the others."""
    jule = await yard.driver("jule@example.org", card="CARD1")
    free = await yard.driver("free@example.org", collection="free", card="FREE1")
    for began in ("2026-10-31T20:00:00+00:00", "2026-10-31T23:30:00+00:00", "2026-11-02T08:00:00+00:00"):
        await yard.charge("CARD1", datetime.fromisoformat(began))
    await yard.charge("CARD1", datetime.fromisoformat("2026-11-03T08:00:00+00:00"), settled=False)
    await yard.charge("FREE1", datetime.fromisoformat("2026-11-04T08:00:00+00:00"))
    since = datetime.fromisoformat("2026-10-01T00:00:00+02:00")
    async with yard.scope(jule) as scope:
        found = await account.totals(scope, jule, since=since, time_zone="Europe/Berlin")
        rows = await account.list_history(scope, jule)
    assert {month: (line["count"], line["energy_wh"], line["incl_vat_minor"]) for month, (line,) in found.items()} == {
        "2026-10": (1, 10_000, 600), "2026-11": (3, 30_000, 1200),
    }  # fmt: skip
    assert [account.month_of(row.started_at, "Europe/Berlin") for row, _cdr in rows] == [
        "2026-11", "2026-11", "2026-11", "2026-10",
    ]  # fmt: skip
    assert account.cells(rows[1], "Europe/Berlin")[:7] == [
        "2026-11-02 09:00", "2026-11-02 10:00", "Hafen", "CP1", Decimal(10), Decimal("6.00"), "EUR",
    ]  # fmt: skip
    async with yard.scope(free) as scope:
        (line,) = (await account.totals(scope, free, since=since, time_zone="Europe/Berlin"))["2026-11"]
    assert (line["energy_wh"], line["incl_vat_minor"]) == (10_000, 0)


async def test_times_are_those_of_the_place_and_a_list_names_another_clock(yard: Yard, house: House) -> None:
    """A charger on the Azores of a brand in Berlin: 08:00 UTC is 07:00 there and 09:00 in Berlin."""
    async with yard.shop.scope() as scope:
        await stations.update_location(scope, yard.location_id, time_zone="Atlantic/Azores", country="PRT")
    jule = await yard.driver("jule@example.org", card="CARD1")
    await yard.charge("CARD1", datetime.fromisoformat("2026-11-02T08:00:00+00:00"))
    async with yard.scope(jule) as scope:
        [row] = await account.list_history(scope, jule)
    line = account.cells(row, "Europe/Berlin")
    assert (line[:2], line[-1]) == (["2026-11-02 07:00", "2026-11-02 08:00"], "Atlantic/Azores")
    rider = await house.rider("alpha", yard.shop.tenant_id, "jule@example.org")
    assert "Mon 2 Nov, 07:00 UTC-1 ·" in (await rider.get("/account")).text
    assert "Atlantic/Azores" in (await rider.get("/account/sessions.csv")).text


async def test_a_months_invoice_is_shown_to_none_of_its_drivers(yard: Yard) -> None:
    """It lists what others of the group charged."""
    jule = await yard.driver("jule@example.org", collection="monthly", card="CARD1")
    session_id = await yard.charge("CARD1", utcnow() - timedelta(days=70))
    async with yard.shop.scope() as scope:
        assert await settlement.invoice_month(scope) == 1
        assert (await scope.db.execute(select(Invoice.id))).scalar_one()
        assert await settlement.list_papers(scope, session_id) == []
        session = await service.get_session(scope, session_id)
        words = await paid.state_words(scope, session, None, "monthly")
    assert words["step"] == 4 and "monthly invoice" in words["text"]
    assert await yard.history(jule) == [session_id]


@pytest.mark.parametrize(("was", "now"), [("free", "per_session"), ("monthly", "free")])
async def test_a_group_that_pays_otherwise_from_now_on_changes_no_session_that_has_begun(
    yard: Yard, was: str, now: str
) -> None:
    driver = await yard.driver("jule@example.org", collection=was, card="CARD1")
    session_id = await yard.charge("CARD1", utcnow() - timedelta(hours=2), settled=False)
    async with yard.shop.scope() as scope:
        group = await access.get_driver_group(scope, driver.driver_group_id)
        await access.update_driver_group(scope, group.id, name=group.name, collection=now, location_ids=[])
    async with yard.shop.scope() as scope:
        cdr = await settlement.settle(scope, session_id)
        assert cdr is not None and cdr.collection == was
        assert await settlement.list_papers(scope, session_id) == []


async def test_a_start_that_is_told_after_its_end_is_collected_as_its_drivers_group_pays(yard: Yard) -> None:
    await yard.driver("jule@example.org", collection="monthly", card="CARD1")
    began = utcnow() - timedelta(hours=2)
    ended = TransactionReport(
        kind="Ended", at=began + timedelta(hours=1), received_at=began, natural_key="stop", evse_no=1,
        ocpp_transaction_id="T1", meter_stop_wh=Decimal(10_000),
    )  # fmt: skip
    started = TransactionReport(
        kind="Started", at=began, received_at=began, natural_key="start", evse_no=1, connector_no=1,
        ocpp_transaction_id="T1", id_token=IdTokenValue("CARD1"), meter_start_wh=Decimal(0),
    )  # fmt: skip
    for report in (ended, started):
        async with yard.shop.database.scope(yard.shop.tenant_id, Actor.station(yard.station_id)) as scope:
            await service.report_transaction(scope, yard.station_id, report)
    async with yard.shop.scope() as scope:
        session_id = (await scope.db.execute(select(ChargingSession.id))).scalar_one()
        cdr = await settlement.settle(scope, session_id)
        assert cdr is not None and (cdr.collection, cdr.excl_vat_minor) == ("monthly", 100)


@pytest.mark.parametrize(("collection", "shown"), [("free", "0"), ("monthly", "1.20")])
async def test_a_stations_display_tells_a_driver_what_they_pay(
    yard: Yard, collection: str, shown: str
) -> None:
    await yard.driver("jule@example.org", collection=collection, card="CARD1")
    session_id = await yard.charge("CARD1", utcnow() - timedelta(hours=2), settled=False)
    async with yard.shop.scope() as scope:
        session = await service.get_session(scope, session_id)
        total = await cost.total(scope, yard.station_id, session.ocpp_transaction_id or "")
    assert total == Decimal(shown)


@pytest.mark.parametrize("collection", ["monthly", "free"])
async def test_a_card_of_a_group_that_settles_later_starts_without_a_hold_once(
    yard: Yard, collection: str
) -> None:
    jule = await yard.driver("jule@example.org", collection=collection, card="CARD1")
    card = await yard.card_of(jule)
    async with yard.scope(jule) as scope:
        way = await account.find_way(scope, jule, yard.station_id)
        assert way.card is not None
        assert (way.card.id, way.collection, way.driver_group_id) == (
            card.id,
            collection,
            jule.driver_group_id,
        )
        session = await account.start_by_card(scope, yard.evse_id, card.id)
    async with yard.scope(jule) as scope:
        again = await account.start_by_card(scope, yard.evse_id, card.id)
        commands = (await scope.db.execute(select(StationCommand.payload))).scalars().all()
        assert await payments.find_payment(scope, "charging_session", session.id) is None
    assert again.id == session.id and [one["idTag"] for one in commands] == ["CARD1"]
    assert (session.driver_id, session.driver_group_id) == (jule.id, jule.driver_group_id)


async def test_a_start_by_card_obeys_the_rules_of_access(yard: Yard) -> None:
    jule = await yard.driver("jule@example.org", collection="monthly", card="CARD1")
    malik = await yard.driver("malik@example.org", collection="monthly", card="CARD2")
    pays = await yard.driver("pays@example.org", collection="per_session", card="CARD3")
    cards = {one.id: await yard.card_of(one) for one in (jule, malik, pays)}

    async def refusal(driver: Driver, card: Any) -> str:
        async with yard.scope(driver) as scope:
            try:
                await account.start_by_card(scope, yard.evse_id, card.id)
            except (Refused, NotFound) as error:
                return error.code
        return ""

    assert await refusal(malik, cards[jule.id]) == "not_found"
    assert await refusal(pays, cards[pays.id]) == "card_pays_at_once"
    async with yard.scope(jule) as scope:
        await accounts.block_card(scope, cards[jule.id].id)
    assert await refusal(jule, cards[jule.id]) == "token_blocked"
    async with yard.shop.scope() as scope:
        elsewhere = await stations.create_location(
            scope, name="Elsewhere", address="Weg 2", city="Berlin", postal_code="10115", country="DEU",
            time_zone="Europe/Berlin",
        )  # fmt: skip
        assert malik.driver_group_id is not None
        await access.set_group_locations(scope, malik.driver_group_id, [elsewhere.id])
    assert await refusal(malik, cards[malik.id]) == "token_not_at_this_location"
    async with yard.scope(malik) as scope:
        way = await account.find_way(scope, malik, yard.station_id)
    assert (way.card, way.driver_group_id) == (None, None) and "may not charge at this site" in way.refusal


async def test_a_logged_in_driver_who_pays_by_card_pays_their_groups_price_and_owns_the_session(
    yard: Yard,
) -> None:
    jule = await yard.driver("jule@example.org", collection="per_session")
    async with yard.scope(jule) as scope:
        way = await account.find_way(scope, jule, yard.station_id)
        assert (way.card, way.driver_group_id) == (None, jule.driver_group_id)
        session, op = await paid.request_start(
            scope, yard.evse_id, email="", language="en", origin="", remote="1", driver_id=jule.id,
            driver_group_id=way.driver_group_id,
        )  # fmt: skip
    assert op is not None
    await payments.run_op(yard.shop.database, yard.shop.tenant_id, op.id)
    async with yard.shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", session.id)
    assert payment is not None
    await yard.shop.pay(payment)
    await yard.shop.look(payment)
    await yard.shop.jobs.run()
    began = utcnow()
    async with yard.shop.database.scope(yard.shop.tenant_id, Actor.station(yard.station_id)) as scope:
        started = await service.get_session(scope, session.id)
        assert started.id_token is not None
        value = accounts.presented(scope, started.id_token)
        verdict = await service.report_transaction(scope, yard.station_id, TransactionReport(
            kind="Started", at=began, received_at=began, natural_key="s", evse_no=1, connector_no=1,
            id_token=IdTokenValue(value.value), meter_start_wh=Decimal(0),
        ))  # fmt: skip
    with pytest.raises(Refused, match="waits or runs"):
        async with yard.scope(jule) as scope:
            await account.close(scope, "jule@example.org")
    ended = began + timedelta(hours=1)
    async with yard.shop.database.scope(
        yard.shop.tenant_id, Actor.station(yard.station_id), now=ended
    ) as scope:
        await service.report_transaction(scope, yard.station_id, TransactionReport(
            kind="Ended", at=ended, received_at=ended, natural_key="e", meter_stop_wh=Decimal(10_000),
            ocpp_transaction_id=verdict.ocpp_transaction_id,
        ))  # fmt: skip
    async with yard.shop.database.scope(yard.shop.tenant_id, CLI, now=ended) as scope:
        await settlement.settle(scope, session.id)
    await yard.shop.jobs.run()
    async with yard.shop.scope() as scope:
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        invoice = (await scope.db.execute(select(Invoice))).scalar_one()
        payment = await payments.find_payment(scope, "charging_session", session.id)
        assert payment is not None
        assert (cdr.collection, cdr.incl_vat_minor, payment.captured_minor) == ("card", 120, 120)
        assert invoice.buyer["driver_id"] == str(jule.id)
    assert await yard.history(jule) == [session.id]


async def test_closing_an_account_keeps_invoice_and_cdr_and_forgets_who_it_was(yard: Yard) -> None:
    jule = await yard.driver("jule@example.org", card="CARD1")
    session_id = await yard.charge("CARD1", utcnow() - timedelta(days=2))
    async with yard.shop.scope() as scope:
        session, _op = await paid.request_start(
            scope, yard.evse_id, email="jule@example.org", language="en", origin="", remote="1"
        )
        await paid.give_up(scope, session.id)
    async with yard.scope(jule) as scope:
        await account.close(scope, "jule@example.org")
    async with yard.shop.scope() as scope:
        assert (await scope.db.execute(select(CDR.session_id))).scalar_one() == session_id
        assert (await scope.db.execute(select(Invoice.id))).scalar_one()
        payment = await payments.find_payment(scope, "charging_session", session.id)
        assert payment is not None and payment.payer_email == ""
        asked = (await scope.db.execute(select(PaymentOp.request))).scalars().all()
        assert asked and "jule" not in str(asked)
        kept = await service.get_session(scope, session_id)
        assert kept.driver is not None and (kept.driver.name, kept.driver.email) == (accounts.LEFT, None)


async def test_an_account_is_closed_when_its_last_paper_names_its_buyer(yard: Yard) -> None:
    """An invoice needs its buyer; what the law asks to keep comes before erasure."""
    jule = await yard.driver("jule@example.org", card="CARD1")
    session_id = await yard.charge("CARD1", utcnow() - timedelta(days=2), settled=False)
    for review, told in (("implausible", "still checks"), (None, "being settled")):
        async with yard.shop.scope() as scope:
            (await service.get_session(scope, session_id)).review = review
        async with yard.scope(jule) as scope:
            with pytest.raises(Refused, match=told):
                await account.close(scope, "jule@example.org")
    async with yard.shop.scope() as scope:
        await settlement.settle(scope, session_id)
    async with yard.scope(jule) as scope:
        await account.close(scope, "jule@example.org")
    async with yard.shop.scope() as scope:
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        await settlement.credit(scope, cdr.id, "The meter was wrong.", energy_wh=5_000)
        papers = await settlement.list_papers(scope, session_id)
    assert [one.buyer["name"] for one in papers] == ["jule@example.org"] * 3


async def test_what_a_stranger_begins_with_somebodys_address_is_not_theirs_until_it_was_paid(
    yard: Yard,
) -> None:
    jule = await yard.driver("jule@example.org")
    async with yard.shop.scope() as scope:
        await paid.request_start(
            scope, yard.evse_id, email="jule@example.org", language="en", origin="", remote="1"
        )
    assert await yard.history(jule) == []
    async with yard.scope(jule) as scope:
        await account.close(scope, "jule@example.org")


# -- strangers who would keep chargers busy ----------------------------------------------------------------------------


async def press(yard: Yard, remote: str) -> ChargingSession:
    async with yard.shop.scope() as scope:
        session, _op = await paid.request_start(
            scope, yard.evse_id, email="", language="en", origin="", remote=remote
        )
        return session


async def test_one_address_cannot_close_a_charger_for_everybody_else(yard: Yard) -> None:
    for _ in range(paid.STARTS_PER_ADDRESS_AND_EVSE):
        await press(yard, "2001:db8::1")
    for same_house in ("2001:db8::1", "2001:db8::ffff"):
        with pytest.raises(TooMany) as refused:
            await press(yard, same_house)
        assert (refused.value.code, refused.value.retry_after_s) == ("too_many_checkouts", 1800)
    assert await press(yard, "192.0.2.9")


async def pay(yard: Yard, remote: str, card: str) -> ChargingSession:
    """Somebody starts, gives that card, and the worker hears of it; whoever got a hold leaves again."""
    async with yard.shop.scope() as scope:
        session, op = await paid.request_start(
            scope, yard.evse_id, email="", language="en", origin="", remote=remote
        )
    assert op is not None
    await payments.run_op(yard.shop.database, yard.shop.tenant_id, op.id)
    async with yard.shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", session.id)
    assert payment is not None
    await yard.shop.pay(payment, card)
    await yard.shop.look(payment)
    await yard.shop.jobs.run()
    async with yard.shop.scope() as scope:
        await paid.give_up(scope, session.id)
    return session


async def test_good_cards_behind_one_address_lock_nobody_out_and_bad_ones_do(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Phones of one carrier share an address, and so do a car park's; stolen cards are tried by the dozen."""
    monkeypatch.setattr(paid, "STARTS_PER_ADDRESS", 3)
    monkeypatch.setattr(paid, "STARTS_PER_ADDRESS_AND_EVSE", 3)
    for _ in range(4):
        await pay(yard, "198.51.100.7", GOOD)
    for card in (DECLINED, GOOD, DECLINED, DECLINED):
        await pay(yard, "198.51.100.7", card)
    with pytest.raises(TooMany) as refused:
        await pay(yard, "198.51.100.7", GOOD)
    assert refused.value.code == "too_many_checkouts"
    await pay(yard, "198.51.100.8", GOOD)


async def test_a_charger_closes_where_holds_come_and_go_by_the_dozen(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good cards are tested too; nobody charges at one place that often."""
    monkeypatch.setattr(paid, "STARTS_PER_EVSE", 2)
    for remote in ("192.0.2.1", "192.0.2.2"):
        await pay(yard, remote, GOOD)
    with pytest.raises(TooMany):
        await pay(yard, "192.0.2.3", GOOD)


async def test_starts_at_a_free_charger_count_until_they_charge(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paid, "STARTS_PER_ADDRESS", 2)
    async with yard.shop.scope() as scope:
        await stations.update_location(scope, yard.location_id, is_free_vend=True)
    for number in range(3):
        session = await press(yard, "192.0.2.1")
        async with yard.shop.scope() as scope:
            query = select(StationCommand).where(StationCommand.source_id == session.id)
            tag = (await scope.db.execute(query)).scalar_one().payload["idTag"]
        await yard.charge(tag, utcnow() - timedelta(minutes=9 - number), settled=False)
        await yard.shop.jobs.run()
    for _ in range(2):  # nobody plugs in
        session = await press(yard, "192.0.2.1")
        async with yard.shop.scope() as scope:
            await paid.give_up(scope, session.id)
    with pytest.raises(TooMany):
        await press(yard, "192.0.2.1")


async def test_a_free_charger_is_asked_once_while_somebody_is_on_the_way_to_the_plug(yard: Yard) -> None:
    async with yard.shop.scope() as scope:
        await stations.update_location(scope, yard.location_id, is_free_vend=True)
    first = await press(yard, "1")
    for remote in ("1", "2"):
        with pytest.raises(Refused) as refused:
            await press(yard, remote)
        assert refused.value.code == "evse_taken"
    async with yard.shop.scope() as scope:
        session = await service.get_session(scope, first.id)
        await service.end_unstarted(scope, session, "not_plugged_in", "not_started", {})
        words = await paid.state_words(scope, session, None)
    assert "Nothing is charged." in words["text"] and "hold" not in words["text"]
