"""What many stations say at once shares its commits, and says the same as the verbs that take it one by one."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DataError

from app.charging.models import ChargingSession, SessionEvent, SessionLive
from app.kernel.clock import utcnow
from app.kernel.events import Event
from app.stations.models import ChargingStation, Connector, OCPPMessage, StationConnection
from ocpp_gateway.gather import Gather
from tests.cast import STAFF
from tests.conformance.conftest import Station16, Station201, Yard, rows
from tests.foreign_stations import stamp

pytestmark = pytest.mark.anyio
BOOT_16 = {"chargePointModel": "Fjord 22", "chargePointVendor": "Wattwerk", "firmwareVersion": "1.0"}
BOOT_201 = {
    "reason": "PowerUp", "chargingStation": {"model": "Fjord 22", "vendorName": "Wattwerk", "firmwareVersion": "1.0"},
}  # fmt: skip


def state(word: str, *, connector: int = 1, ago_s: int = 0, **more: Any) -> dict[str, Any]:
    at = stamp(utcnow() - timedelta(seconds=ago_s))
    return {"connectorId": connector, "errorCode": "NoError", "status": word, "timestamp": at} | more


def seen(gateway: Any, action: str) -> list[int]:
    """The sizes of the calls that its gather makes from now on."""
    gather, sizes = gateway.seam._gathers[action], []
    call = gather._call

    async def counted(asked: Any) -> Any:
        sizes.append(len(asked))
        return await call(asked)

    gather._call = counted
    return sizes


async def known(yard: Yard, cast: Any, kind: Any) -> Any:
    """A station that has booted before: its next boot says nothing new."""
    box = yard.station(cast, kind)
    await box.connect()
    await box.say("BootNotification", BOOT_16 if kind is Station16 else BOOT_201)
    return box


@pytest.mark.parametrize(("kind", "boot"), [(Station16, BOOT_16), (Station201, BOOT_201)])
async def test_a_boot_that_says_nothing_new_is_gathered_and_tells_what_the_verb_tells(
    yard: Yard, kind: Any, boot: dict[str, Any]
):
    box = await known(yard, yard.nordlicht, kind)
    (station,) = await rows(yard, yard.nordlicht, ChargingStation, ChargingStation.booted_at.is_not(None))
    first, sizes = station.booted_at, seen(yard.gateway, "BootNotification")
    answer = await box.say("BootNotification", boot)
    assert answer["status"] == "Accepted" and 210 <= answer["interval"] <= 360
    (station,) = await rows(yard, yard.nordlicht, ChargingStation, ChargingStation.booted_at.is_not(None))
    assert sizes == [1] and station.booted_at > first
    assert len(await rows(yard, yard.nordlicht, Event, Event.kind == "StationBooted")) == 2
    told = await rows(yard, yard.nordlicht, OCPPMessage, OCPPMessage.action == "BootNotification")
    assert sorted(one.direction for one in told) == ["in", "in", "out", "out"]
    await box.close()


async def test_a_boot_that_says_something_new_is_the_verbs(yard: Yard):
    box = await known(yard, yard.nordlicht, Station16)
    await box.say("BootNotification", BOOT_16 | {"firmwareVersion": "2.0"})
    (station,) = await rows(yard, yard.nordlicht, ChargingStation, ChargingStation.booted_at.is_not(None))
    assert station.firmware_version == "2.0"
    await box.close()


async def test_a_boot_that_is_gathered_interrupts_its_sessions(yard: Yard):
    box = await known(yard, yard.nordlicht, Station16)
    await box.say("StartTransaction", {
        "connectorId": 1, "idTag": yard.nordlicht.card, "meterStart": 0, "timestamp": stamp(),
    })  # fmt: skip
    sizes = seen(yard.gateway, "BootNotification")
    await box.say("BootNotification", BOOT_16)
    assert sizes == [1]
    assert [
        one.data for one in await rows(yard, yard.nordlicht, SessionEvent, SessionEvent.kind == "interrupted")
    ] == [{}]
    (session,) = await rows(yard, yard.nordlicht, ChargingSession)
    assert session.interrupted_at is not None
    await box.close()


WORDS = ("Available", "Preparing", "Charging", "SuspendedEV", "Finishing", "Faulted", "Available", "Reserved")


@pytest.mark.parametrize("is_charging", [False, True])
async def test_states_that_are_gathered_leave_what_the_verb_leaves(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, is_charging: bool
):
    """Two brands, the same words, one by the verb alone; also words of the past, of connector 0 and of a new one."""
    sent = [
        *(state(word, ago_s=20 - n) for n, word in enumerate(WORDS)), state("Available", ago_s=3600),
        state("Unavailable", connector=0), state("Available", connector=7, info="new", vendorErrorCode="E7"),
    ]  # fmt: skip
    left = []
    for cast, is_gathered in ((yard.nordlicht, True), (yard.solmark, False)):
        with monkeypatch.context() as patch:
            if not is_gathered:
                patch.setattr(yard.gateway.seam, "_gathers", {})
            box = await known(yard, cast, Station16)
            if is_charging:
                await box.say("StartTransaction", {
                    "connectorId": 1, "idTag": cast.card, "meterStart": 0,
                    "timestamp": stamp(utcnow() - timedelta(seconds=60)),
                })  # fmt: skip
            for payload in sent:
                await box.say("StatusNotification", payload)
            await box.close()
        connectors = await rows(yard, cast, Connector, Connector.status_at.is_not(None))
        events = await rows(yard, cast, SessionEvent, SessionEvent.kind == "state")
        left.append((
            sorted(
                (c.connector_no, c.status, c.detail, c.error_code, c.error_info, c.vendor_error_code, c.status_at)
                for c in connectors
            ),
            sorted(one.key for one in events),
            [one.charging_state for one in await rows(yard, cast, SessionLive)],
            len(await rows(yard, cast, OCPPMessage, OCPPMessage.action == "StatusNotification")),
            len(await rows(yard, cast, Event, Event.kind == "ConnectorFaulted")),
        ))  # fmt: skip
    assert left[0] == left[1]
    assert left[0][3] == 2 * len(sent) and len(left[0][0]) == 2
    assert bool(left[0][1]) == is_charging


async def test_stations_of_two_brands_share_their_commits_and_each_has_its_own(yard: Yard):
    boxes = [await known(yard, yard.nordlicht, Station16), await known(yard, yard.solmark, Station16)]
    sizes = seen(yard.gateway, "StatusNotification")
    hold, call = asyncio.Event(), yard.gateway.seam._gathers["StatusNotification"]._call

    async def held(asked: Any) -> Any:
        await hold.wait()
        return await call(asked)

    yard.gateway.seam._gathers["StatusNotification"]._call = held
    saying = [asyncio.create_task(box.say("StatusNotification", state("Available"))) for box in boxes]
    await asyncio.sleep(0.3)
    hold.set()
    assert await asyncio.gather(*saying) == [{}, {}]
    assert sum(sizes) == 2
    for cast in (yard.nordlicht, yard.solmark):
        (connector,) = await rows(yard, cast, Connector, Connector.status_at.is_not(None))
        assert connector.status == "Available"
    for box in boxes:
        await box.close()


async def test_links_open_and_close_together_and_an_older_ones_end_changes_nothing(yard: Yard):
    box = await known(yard, yard.nordlicht, Station16)
    again = yard.station(yard.nordlicht, Station16)
    await again.connect()
    await again.say("Heartbeat", {})
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    assert link.epoch == 2 and link.is_online
    await box.close()
    await asyncio.sleep(0.5)
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    assert link.epoch == 2 and link.is_online
    assert len(await rows(yard, yard.nordlicht, Event, Event.kind == "StationConnected")) == 2
    await again.close()


async def test_one_question_that_the_server_will_not_take_costs_the_others_nothing():
    asked: list[int] = []

    async def call(questions: Any) -> Any:
        asked.append(len(questions))
        if 7 in questions:
            raise DataError("select", {}, ValueError("seven"))
        return [question * 2 for question in questions]

    gather = Gather[int, int](call)
    answers = await asyncio.gather(*(gather.ask(n) for n in range(16)), return_exceptions=True)
    assert [one for n, one in enumerate(answers) if n != 7] == [n * 2 for n in range(16) if n != 7]
    assert isinstance(answers[7], DataError) and len(asked) < 10


async def test_a_second_question_about_the_same_goes_with_the_next_call():
    calls: list[list[str]] = []

    async def call(questions: Any) -> Any:
        calls.append(list(questions))
        await asyncio.sleep(0)
        return questions

    gather = Gather[str, str](call, lambda question: question[0])
    assert await asyncio.gather(*map(gather.ask, ("a1", "b1", "a2", "a3"))) == ["a1", "b1", "a2", "a3"]
    assert calls == [["a1", "b1"], ["a2"], ["a3"]]


async def test_who_is_gone_asks_nothing_and_what_is_being_written_is_waited_for():
    calls: list[list[str]] = []
    under_way = asyncio.Event()

    async def call(questions: Any) -> Any:
        calls.append(list(questions))
        await under_way.wait()
        return questions

    gather = Gather[str, str](call)
    writing, waiting = asyncio.create_task(gather.ask("written")), None
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(gather.ask("never asked"))
    await asyncio.sleep(0)
    writing.cancel()
    waiting.cancel()
    await asyncio.sleep(0.01)
    assert waiting.cancelled() and not writing.done()
    under_way.set()
    assert [type(one) for one in await asyncio.gather(writing, waiting, return_exceptions=True)] == [
        asyncio.CancelledError, asyncio.CancelledError
    ]  # fmt: skip
    assert calls == [["written"]]


async def test_a_row_that_somebody_holds_keeps_its_own_station_waiting_and_no_other(yard: Yard):
    boxes = [await known(yard, yard.nordlicht, Station16), await known(yard, yard.solmark, Station16)]
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        lock = select(ChargingStation).where(ChargingStation.id == yard.nordlicht.station_id)
        (await scope.db.execute(lock.with_for_update())).scalar_one()
        held = asyncio.create_task(boxes[0].say("BootNotification", BOOT_16))
        for _ in range(3):
            answer = await asyncio.wait_for(boxes[1].say("BootNotification", BOOT_16), 5)
            assert answer["status"] == "Accepted"
        assert not held.done()
    assert (await held)["status"] == "Accepted"
    for box in boxes:
        await box.close()
