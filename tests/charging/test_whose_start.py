"""Whose start it is that a station tells while a guest who has paid is on the way to the plug."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.access.verdict import IdTokenValue
from app.charging import service, startable
from app.charging.models import ChargingSession
from app.charging.reports import ENERGY, Reading, TransactionReport, TransactionVerdict
from app.kernel.clock import utcnow
from app.stations import service as stations
from app.stations.models import StationCommand
from app.stations.reports import Frame
from app.tariffs import service as tariffs
from tenants.scope import Actor
from tests.billing.conftest import Shop, jobs, shop
from tests.charging.test_cap import START_WH, paid_for
from tests.charging.test_paid_cases import payment_of, session_of

__all__ = ["jobs", "shop"]
pytestmark = pytest.mark.anyio
STRANGER = IdTokenValue("04DEADBEEF0001", "ISO14443")


class Plug:
    """The place that a guest's hold stands for, on a station that speaks `version`."""

    def __init__(
        self, shop: Shop, station_id: UUID, session_id: UUID, version: str, asked: dict[str, Any]
    ) -> None:
        self.shop, self.station_id, self.session_id = shop, station_id, session_id
        self.is_16, self.asked = version == "ocpp1.6", asked
        token = asked.get("idToken") or {"idToken": asked.get("idTag"), "type": None}
        self.guest = IdTokenValue(token["idToken"], token["type"])

    async def report(self, at: datetime, **more: Any) -> TransactionVerdict:
        told = {"at": at, "received_at": at, "evse_no": 1, "connector_no": 1, **more}
        async with self.shop.database.scope(
            self.shop.tenant_id, Actor.station(self.station_id), now=at
        ) as scope:
            return await service.report_transaction(scope, self.station_id, TransactionReport(**told))

    async def start(self, at: datetime, token: IdTokenValue | None, **more: Any) -> TransactionVerdict:
        """StartTransaction, whose idTag may be empty, or TransactionEvent Started."""
        if self.is_16:
            presented = IdTokenValue(token.value if token else "")
            more = {"natural_key": f"start {at}", "id_token": presented} | more
        else:
            more = {"ocpp_transaction_id": f"tx {at}", "id_token": token} | more
        return await self.report(at, kind="Started", meter_start_wh=Decimal(START_WH), **more)

    async def stop(self, at: datetime, transaction: str, wh: int, reason: str = "Local") -> None:
        key = {"natural_key": f"stop {at}"} if self.is_16 else {}
        await self.report(
            at,
            kind="Ended",
            ocpp_transaction_id=transaction,
            meter_stop_wh=Decimal(wh),
            stopped_reason=reason,
            **key,
        )

    async def guests(self) -> ChargingSession:
        return await session_of(self.shop, self.session_id)

    async def others(self) -> list[ChargingSession]:
        async with self.shop.scope() as scope:
            query = select(ChargingSession).where(ChargingSession.id != self.session_id)
            return list((await scope.db.execute(query)).scalars())

    async def has_quirk(self) -> None:
        async with self.shop.scope() as scope:
            await stations.update_station(
                scope, self.station_id, leniency={"other_tag_on_remote_start": True}
            )

    async def asks_about(self, tag: str, at: datetime) -> None:
        """The station's Authorize, as the raw log keeps it."""
        frame = Frame(
            direction="in", kind="call", message_id="1", action="Authorize", at=at, ocpp_version="ocpp1.6",
            raw=f'[2,"1","Authorize",{{"idTag":"{tag}"}}]',
        )  # fmt: skip
        async with self.shop.scope() as scope:
            await stations.record_frames(scope, self.station_id, [frame])


async def plug_of(shop: Shop, version: str) -> Plug:
    station_id, session_id, _epoch = await paid_for(shop, version=version)
    async with shop.scope() as scope:
        (asked,) = (await scope.db.execute(select(StationCommand))).scalars()
    return Plug(shop, station_id, session_id, version, asked.payload)


@pytest.fixture(params=["ocpp1.6", "ocpp2.0.1"])
async def plug(shop: Shop, request: pytest.FixtureRequest) -> Plug:
    return await plug_of(shop, request.param)


@pytest.fixture
async def plug16(shop: Shop) -> Plug:
    return await plug_of(shop, "ocpp1.6")


@pytest.fixture
async def plug201(shop: Shop) -> Plug:
    return await plug_of(shop, "ocpp2.0.1")


@pytest.mark.parametrize("is_stopped", [True, False])
async def test_a_card_nobody_knows_is_refused_and_the_guest_starts_and_pays_all_the_same(
    plug: Plug, is_stopped: bool
) -> None:
    """Whether the station ends by itself what was refused, or leaves that to the start that follows."""
    shop, at = plug.shop, utcnow()
    verdict = await plug.start(at, STRANGER)
    assert verdict.id_token_status in ("Invalid", "Unknown")
    assert (await plug.guests()).status == "PENDING"
    (refused,) = await plug.others()
    assert (refused.status, refused.is_refused, refused.cost_cap_minor) == ("ACTIVE", True, None)
    if is_stopped:
        await plug.stop(at + timedelta(seconds=5), verdict.ocpp_transaction_id, START_WH, "DeAuthorized")
    await shop.jobs.run()

    begun = at + timedelta(seconds=30)
    more = (
        {}
        if plug.is_16
        else {"remote_start_id": plug.asked["remoteStartId"], "trigger_reason": "RemoteStart"}
    )
    verdict = await plug.start(begun, plug.guest, **more)
    assert verdict.id_token_status == "Accepted"
    guests = await plug.guests()
    assert (guests.status, guests.id_token_status, guests.cost_cap_minor) == ("ACTIVE", "Accepted", 3000)
    await plug.stop(begun + timedelta(hours=1), verdict.ocpp_transaction_id, START_WH + 10_000)
    await shop.jobs.run()
    payment = await payment_of(shop, plug.session_id)
    assert (await plug.guests()).energy_wh == 10_000
    assert (payment.state, payment.captured_minor) == ("captured", 600)
    assert await shop.captures(payment) == [600] and not shop.jobs.failures


async def test_a_start_with_no_token_at_all_is_the_guests_for_three_minutes(plug16: Plug) -> None:
    verdict = await plug16.start(utcnow() + timedelta(minutes=2), None)
    assert verdict.id_token_status == "Accepted"
    assert (await plug16.guests()).status == "ACTIVE" and await plug16.others() == []


async def test_a_start_with_no_token_that_says_it_was_asked_for_is_the_guests(plug201: Plug) -> None:
    """OCPP 2.x: without remoteStartId too."""
    await plug201.start(utcnow() + timedelta(minutes=2), None, trigger_reason="RemoteStart")
    assert (await plug201.guests()).status == "ACTIVE" and await plug201.others() == []


async def test_a_start_of_another_request_is_not_the_guests(plug201: Plug) -> None:
    other = plug201.asked["remoteStartId"] + 1
    await plug201.start(utcnow(), None, trigger_reason="RemoteStart", remote_start_id=other)
    assert (await plug201.guests()).status == "PENDING"


@pytest.mark.parametrize("is_named", [True, False])
async def test_a_cable_alone_is_nobodys_until_the_station_says_whose(plug201: Plug, is_named: bool) -> None:
    """OCPP 2.x F01, F02: begun by the cable, given to the guest by what follows; with or without remoteStartId."""
    at = utcnow()
    verdict = await plug201.start(at, None, trigger_reason="CablePluggedIn")
    assert (await plug201.guests()).status == "PENDING"
    (begun,) = await plug201.others()
    assert (begun.status, begun.id_token_status) == ("ACTIVE", None)
    told = {"ocpp_transaction_id": verdict.ocpp_transaction_id, "kind": "Updated"}
    await plug201.report(at + timedelta(seconds=1), **told, trigger_reason="ChargingStateChanged")
    assert (await plug201.guests()).status == "PENDING"
    named = {"remote_start_id": plug201.asked["remoteStartId"]} if is_named else {}
    await plug201.report(at + timedelta(seconds=2), **told, trigger_reason="RemoteStart", **named)
    guests = await plug201.guests()
    assert (guests.status, guests.id_token_status) == ("ACTIVE", "Accepted")
    assert guests.ocpp_transaction_id == verdict.ocpp_transaction_id and await plug201.others() == []


@pytest.mark.parametrize("by", ["request", "token"])
@pytest.mark.parametrize("is_cable_first", [True, False])
async def test_a_transaction_that_a_stranger_was_refused_in_is_the_guests_once_it_names_them(
    plug201: Plug, is_cable_first: bool, by: str
) -> None:
    shop, at = plug201.shop, utcnow()
    verdict = await plug201.start(at, None if is_cable_first else STRANGER, trigger_reason="CablePluggedIn")
    told = {"ocpp_transaction_id": verdict.ocpp_transaction_id}
    if is_cable_first:
        refused = await plug201.report(
            at + timedelta(seconds=1), kind="Updated", **told, id_token=STRANGER, trigger_reason="Authorized"
        )
        assert refused.id_token_status in ("Invalid", "Unknown")
    assert (await plug201.guests()).status == "PENDING"
    async with shop.scope() as scope:  # nor does the refused one keep the place from others
        guests = await plug201.guests()
        assert (await startable.get_startable(scope, guests.evse_id, but=guests.id)).evse_no == 1
    named = (
        {"remote_start_id": plug201.asked["remoteStartId"]}
        if by == "request"
        else {"id_token": plug201.guest}
    )
    await plug201.report(
        at + timedelta(seconds=9), kind="Updated", **told, **named, trigger_reason="RemoteStart"
    )
    guests = await plug201.guests()
    assert (guests.status, guests.id_token_status, guests.review) == ("ACTIVE", "Accepted", None)
    assert await plug201.others() == []
    shop.jobs.ahead = timedelta(seconds=30)
    await shop.jobs.run()  # the stop that the refused card had earned
    assert not shop.jobs.failures
    async with shop.scope() as scope:
        actions = set((await scope.db.execute(select(StationCommand.action))).scalars())
    assert "RequestStopTransaction" not in actions
    await plug201.stop(at + timedelta(hours=1), verdict.ocpp_transaction_id, START_WH + 10_000)
    await shop.jobs.run()
    assert (await payment_of(shop, plug201.session_id)).captured_minor == 600


async def test_energy_that_a_refused_card_got_is_not_the_guests_to_pay_unseen(plug201: Plug) -> None:
    at = utcnow()
    verdict = await plug201.start(at, STRANGER)
    told = {"ocpp_transaction_id": verdict.ocpp_transaction_id, "kind": "Updated"}
    wh = Reading(measurand=ENERGY, value=Decimal(START_WH + 500), unit="Wh", sampled_at=at, received_at=at)
    await plug201.report(at + timedelta(seconds=5), **told, readings=(wh,))
    named = {"remote_start_id": plug201.asked["remoteStartId"], "trigger_reason": "RemoteStart"}
    await plug201.report(at + timedelta(seconds=9), **told, **named)
    guests = await plug201.guests()
    assert (guests.status, guests.review) == ("ACTIVE", "other_card")


async def test_a_station_that_answers_with_another_tag_is_believed_where_that_is_known_of_it(
    plug16: Plug,
) -> None:
    await plug16.has_quirk()
    verdict = await plug16.start(utcnow() + timedelta(minutes=2), STRANGER)
    assert verdict.id_token_status == "Accepted"
    assert (await plug16.guests()).status == "ACTIVE" and await plug16.others() == []


async def test_another_tag_counts_for_three_minutes(plug16: Plug) -> None:
    await plug16.has_quirk()
    verdict = await plug16.start(utcnow() + timedelta(minutes=4), STRANGER)
    assert verdict.id_token_status == "Invalid" and (await plug16.guests()).status == "PENDING"


async def test_a_card_that_was_held_to_the_reader_is_no_answer_to_a_remote_start(plug16: Plug) -> None:
    """The station has asked about it, and heard that nobody knows it."""
    await plug16.has_quirk()
    at = utcnow()
    await plug16.asks_about(STRANGER.value.lower(), at)
    verdict = await plug16.start(at + timedelta(seconds=5), STRANGER)
    assert verdict.id_token_status == "Invalid" and (await plug16.guests()).status == "PENDING"


async def test_a_station_of_20_names_the_request_whatever_is_known_of_its_make(plug201: Plug) -> None:
    await plug201.has_quirk()
    verdict = await plug201.start(utcnow(), STRANGER)
    assert verdict.id_token_status in ("Invalid", "Unknown")
    assert (await plug201.guests()).status == "PENDING"


@pytest.mark.parametrize(
    "order",
    [
        "start update end",
        "update start end",
        "update end start",
        "end start",
        "token start end",
        "token-end start",
    ],
)
async def test_the_guest_pays_in_whatever_order_the_events_of_their_start_come(
    plug201: Plug, order: str
) -> None:
    """A queue that is emptied out of order; the driver's card, or the remote start's number, is told once."""
    shop, at = plug201.shop, utcnow()

    async def say(kind: str, second: int, wh: int, context: str, **more: Any) -> None:
        when = at + timedelta(seconds=second)
        reading = Reading(
            measurand=ENERGY, value=Decimal(wh), unit="Wh", sampled_at=when, received_at=when, context=context
        )
        await plug201.report(
            when, kind=kind, ocpp_transaction_id="tx1", readings=(reading,), received_at=at + timedelta(minutes=2),
            **more,
        )  # fmt: skip
        await shop.jobs.run()

    start = {
        "id_token": plug201.guest, "remote_start_id": plug201.asked["remoteStartId"], "trigger_reason": "RemoteStart",
    }  # fmt: skip
    for what in order.split():
        token = {"id_token": plug201.guest} if "token" in what else {}
        if what == "start":
            await say("Started", 0, START_WH, "Transaction.Begin", **start)
        elif "end" in what:
            end = START_WH + 10_000
            await say("Ended", 3600, end, "Transaction.End", stopped_reason="EVDisconnected", **token)
        else:
            await say("Updated", 30, START_WH + 100, "Sample.Periodic", charging_state="Charging", **token)
    guests, payment = await plug201.guests(), await payment_of(shop, plug201.session_id)
    assert await plug201.others() == []
    assert (guests.status, guests.review, guests.energy_wh) == ("COMPLETED", None, 10_000)
    assert (payment.state, payment.captured_minor) == ("captured", 600) and not shop.jobs.failures
    assert guests.started_at == at and guests.ended_at == at + timedelta(hours=1)


async def test_an_end_without_its_start_waits_for_it_in_review_with_the_guests_hold(plug201: Plug) -> None:
    at = utcnow()
    await plug201.report(
        at + timedelta(hours=1), kind="Ended", ocpp_transaction_id="tx1", meter_stop_wh=Decimal(START_WH + 10_000),
        id_token=plug201.guest,
    )  # fmt: skip
    await plug201.shop.jobs.run()
    guests = await plug201.guests()
    assert (guests.status, guests.review) == ("COMPLETED", "orphan") and await plug201.others() == []
    assert (await payment_of(plug201.shop, plug201.session_id)).state == "authorized"


async def test_a_stop_that_names_nobody_takes_no_guests_start(plug: Plug) -> None:
    """1.6 stations may leave the idTag of a stop away, 2.x stations the token."""
    at = utcnow()
    more = {"natural_key": "stop"} if plug.is_16 else {"trigger_reason": "RemoteStart"}
    await plug.report(
        at, kind="Ended", ocpp_transaction_id="4711", meter_stop_wh=Decimal(START_WH + 500),
        id_token=IdTokenValue("") if plug.is_16 else None, **more,
    )  # fmt: skip
    assert (await plug.guests()).status == "PENDING" and len(await plug.others()) == 1


async def test_a_price_that_changes_while_the_guest_fetches_the_cable_is_not_theirs(plug: Plug) -> None:
    """They pay by what the page said when they gave their card (money.md 4.5)."""
    shop, at = plug.shop, utcnow()
    dearer = {
        "currency": "EUR",
        "elements": [{"price_components": [{"type": "ENERGY", "price": "2.00", "vat": "20"}]}],
    }
    async with shop.scope() as scope:
        (tariff,) = await tariffs.list_tariffs(scope)
        await tariffs.replace_tariff(scope, tariff.id, dearer, {"default": True})
    verdict = await plug.start(at, plug.guest)
    await plug.stop(at + timedelta(hours=1), verdict.ocpp_transaction_id, START_WH + 10_000)
    await shop.jobs.run()
    payment = await payment_of(shop, plug.session_id)
    assert (payment.state, payment.captured_minor) == ("captured", 600)
