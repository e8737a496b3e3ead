"""OCPP 2.0.1 block I: what a session costs, on the station's own display; E14: what a station still holds."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app.charging import cost, settlement, transaction_status
from app.charging import service as charging
from app.charging.models import ChargingSession, SessionEvent
from app.stations import service as stations
from app.stations.models import StationCommand
from tests.cast import STAFF
from tests.conformance.asking import act, asked, boot, ended, only
from tests.conformance.conftest import Yard, case, rows
from tests.conformance.jobs import Worker, worker

pytestmark = pytest.mark.anyio
__all__ = ["worker"]


@case("2.0.1", "TC_I_01_CSMS", "TC_I_02_CSMS")
async def test_the_display_tells_the_running_cost_each_minute_and_the_total_at_the_end(
    yard: Yard, worker: Worker
):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1", CostUpdated={})
    began = datetime.now(UTC) - timedelta(minutes=20)
    await station.event("Started", "t1", 0, token=cast.card, meter_wh=1000, at=began, trigger="Authorized")
    answer = await station.event(
        "Updated", "t1", 1, meter_wh=6000, power_w=11000, at=began + timedelta(minutes=10)
    )
    assert answer.total_cost is None
    assert await act(yard, cast, cost.tell_running) == 0  # nobody said that it shows it
    await act(yard, cast, stations.update_station, cast.station_id, shows_cost=True)
    assert await act(yard, cast, cost.tell_running) == 1
    await ended(yard, cast, worker, "CostUpdated")
    session = await only(yard, cast, ChargingSession)
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        price = await settlement.running_price(scope, await charging.get_session(scope, session.id))
    (told,) = asked(station, "CostUpdated")
    assert (
        told == {"transactionId": "t1", "totalCost": price.total_cost.incl_minor / 100}
        and told["totalCost"] > 0
    )

    # Again only after a minute, and only when there is something new.
    await station.event("Updated", "t1", 2, meter_wh=7000, power_w=11000)
    assert await act(yard, cast, cost.tell_running) == 0
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        earlier = scope.now - timedelta(minutes=2)
        await scope.db.execute(
            update(StationCommand).where(StationCommand.action == "CostUpdated").values(created_at=earlier)
        )
    assert await act(yard, cast, cost.tell_running) == 1
    await ended(yard, cast, worker, "CostUpdated")
    assert asked(station, "CostUpdated")[-1]["totalCost"] > told["totalCost"]

    answer = await station.event(
        "Ended", "t1", 3, meter_wh=8000, trigger="EVDeparted", reason="EVDisconnected", state="Idle"
    )
    await worker.settle()
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        cdr = await settlement.find_cdr(scope, session.id)
    assert answer.total_cost == cdr.incl_vat_minor / 100  # the display and the bill say the same
    await station.close()


async def test_a_station_that_knows_no_cost_is_not_asked_again(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1")
    await act(yard, cast, stations.update_station, cast.station_id, shows_cost=True)
    await station.event("Started", "t1", 0, token=cast.card, meter_wh=0, trigger="Authorized")
    await station.event("Updated", "t1", 1, meter_wh=100)
    assert await act(yard, cast, cost.tell_running) == 1
    assert (await ended(yard, cast, worker, "CostUpdated")).status == "failed"
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        assert not (await stations.get_station(scope, cast.station_id)).shows_cost
    await station.close()


@case("2.0.1", "TC_E_29_CSMS", "TC_E_30_CSMS", "TC_E_31_CSMS", "TC_E_33_CSMS", "TC_E_34_CSMS")
async def test_staff_ask_what_a_station_still_holds_of_a_transaction_or_at_all(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1")
    await station.event("Started", "t1", 0, token=cast.card, meter_wh=0, trigger="Authorized")
    session = await only(yard, cast, ChargingSession)

    async def ask(answer: dict[str, bool], session_id: object) -> StationCommand:
        station.answers["GetTransactionStatus"] = answer
        await act(yard, cast, transaction_status.ask, cast.station_id, session_id)
        return await ended(yard, cast, worker, "GetTransactionStatus")

    for ongoing, queued in ((True, True), (True, False)):
        found = await ask({"ongoingIndicator": ongoing, "messagesInQueue": queued}, session.id)
        assert found.payload == {"transactionId": "t1"} and found.status == "accepted"
    await station.event("Ended", "t1", 1, meter_wh=100, trigger="EVDeparted", state="Idle")
    await ask({"ongoingIndicator": False, "messagesInQueue": True}, session.id)
    told = await rows(yard, cast, SessionEvent, SessionEvent.kind == "queue_asked")
    assert [one.data["text"] for one in sorted(told, key=lambda one: one.id)] == [
        "The transaction runs. Messages wait at the station.", "The transaction runs. No message waits at the station.",
        "The transaction is over. Messages wait at the station.",
    ]  # fmt: skip
    for queued, words in (
        (True, "Messages wait at the station."),
        (False, "No message waits at the station."),
    ):
        found = await ask({"messagesInQueue": queued}, None)
        assert found.payload == {} and transaction_status.in_words(found.answer) == words
    assert asked(station, "GetTransactionStatus")[-1] == {}
    await station.close()
