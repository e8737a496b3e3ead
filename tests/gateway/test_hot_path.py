"""Readings take the batched way, whatever is odd about one of them hurts nobody else, and answers keep their order."""

import asyncio
import json
import time
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from app.charging import ingest
from ocpp_gateway import flusher, hot, presence, server
from ocpp_gateway.metrics import BATCH
from tenants.database import BatchError
from tenants.redis import channel
from tests.conformance.conftest import Station16, Yard, rows
from tests.foreign_stations import stamp
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio


def batched() -> float:
    return sum(s.value for family in BATCH.collect() for s in family.samples if s.name.endswith("_sum"))


def metering(wh: int) -> dict[str, Any]:
    sample = {"value": str(wh), "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
    return {"connectorId": 1, "meterValue": [{"timestamp": stamp(), "sampledValue": [sample]}]}


async def online(yard: Yard, cast: Any) -> Any:
    box = yard.station(cast, Station16)
    await box.connect()
    await box.say("BootNotification", {"chargePointModel": "Fjord 22", "chargePointVendor": "Wattwerk"})
    return box


async def test_readings_of_two_brands_are_stored_in_batches_each_with_its_own(yard: Yard):
    boxes = [await online(yard, yard.nordlicht), await online(yard, yard.solmark)]
    before = batched()
    for wh in range(1_000, 1_010):
        await asyncio.gather(*(box.say("MeterValues", metering(wh)) for box in boxes))
    assert batched() - before == 20
    for cast in (yard.nordlicht, yard.solmark):
        values = await rows(yard, cast, MeterValue)
        assert sorted(int(one.value) for one in values) == list(range(1_000, 1_010))
    for box in boxes:
        await box.close()


async def test_one_message_that_fails_its_batch_is_told_apart_and_the_others_stay(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    """The culprit goes to its verb, which takes it; nobody else notices."""
    tried: list[int] = []

    async def poisoned(connection: Any, batch: Any) -> Any:
        tried.append(len(batch))
        if any("6666" in message.raw for message in batch):
            raise BatchError("poison", "22003")
        return await ingest.write_readings(connection, batch)

    monkeypatch.setattr(flusher, "write_readings", poisoned)
    boxes = [await online(yard, yard.nordlicht), await online(yard, yard.solmark)]
    answers = await asyncio.gather(
        boxes[0].say("MeterValues", metering(6666)), boxes[1].say("MeterValues", metering(1234))
    )
    assert answers == [{}, {}]
    for cast, wh in ((yard.nordlicht, 6666), (yard.solmark, 1234)):
        assert [int(one.value) for one in await rows(yard, cast, MeterValue)] == [wh]
    assert 1 in tried
    for box in boxes:
        await box.close()


async def test_what_was_answered_is_not_written_again_when_the_database_goes_away_in_the_middle(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    """A batch fails and is told apart; after its first part the connection is lost: only the rest goes back."""
    faults = iter(["22003", None, "57P01"])

    async def failing(_connection: Any, batch: Any) -> Any:
        if (fault := next(faults)) is not None:
            raise BatchError("away", fault)
        return [ingest.Written(None, 1, False) for _ in batch]

    monkeypatch.setattr(flusher, "write_readings", failing)
    waiting = flusher.Waiting()
    lane = flusher.Lane(yard.database, waiting, lambda _news: None)
    answered: list[str] = []
    works = []
    for cast in (yard.nordlicht, yard.solmark):
        raw = json.dumps([2, "m1", "MeterValues", metering(777)])
        message = hot.read("ocpp1.6", cast.tenant_id, str(cast.station_id), raw, time.time_ns() // 1000)
        assert message is not None
        works.append((message, lambda told, _written: answered.append(told.station_id)))
    with pytest.raises(BatchError):
        await lane._flush(None, works)  # type: ignore[arg-type]
    assert answered == [str(yard.nordlicht.station_id)]
    assert [message.station_id for message, _ in await waiting.take(helps=False)] == [
        str(yard.solmark.station_id)
    ]


def wait_for(waiting: flusher.Waiting, *whose: str) -> None:
    """Messages of tenant and station: "a1" is a's first station's."""
    for one in whose:
        tenant, station = (uuid5(NAMESPACE_URL, name) for name in (one[0], one))
        raw = json.dumps([2, one, "MeterValues", metering(777)])
        message = hot.read("ocpp1.6", tenant, str(station), raw, time.time_ns() // 1000)
        assert message is not None
        waiting.put((message, lambda _message, _written: None))


def names(works: list[flusher.Work]) -> list[str]:
    return [message.message_id for message, _ in works]


async def test_a_batch_takes_whole_tenants_who_waits_longest_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flusher, "ENOUGH", 3)
    waiting = flusher.Waiting()
    wait_for(waiting, "a1", "b1", "c1", "a2", "b2", "c2", "b3")
    assert names(await waiting.take(helps=False)) == ["a1", "a2", "b1", "b2", "b3"]
    wait_for(waiting, "a1")
    assert names(await waiting.take(helps=False)) == ["c1", "c2", "a1"] and len(waiting) == 0


async def test_a_large_tenant_fills_a_batch_and_does_not_lose_its_turn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flusher, "ENOUGH", 2)
    monkeypatch.setattr(flusher, "MOST", 3)
    waiting = flusher.Waiting()
    wait_for(waiting, "a1", "a2", "a3", "a4", "b1")
    assert names(await waiting.take(helps=False)) == ["a1", "a2", "a3"]
    assert names(await waiting.take(helps=False)) == ["a4", "b1"]


async def test_of_a_station_that_waits_twice_a_batch_takes_the_first():
    waiting = flusher.Waiting()
    wait_for(waiting, "a1", "a2", "a1")
    assert names(await waiting.take(helps=False)) == ["a1", "a2"]
    assert names(await waiting.take(helps=False)) == ["a1"]


async def test_what_could_not_be_written_goes_first_again():
    waiting = flusher.Waiting()
    wait_for(waiting, "a1", "b1")
    taken = await waiting.take(helps=False)
    wait_for(waiting, "c1", "b2")
    waiting.put_back(taken)
    assert names(await waiting.take(helps=False)) == ["a1", "b1", "b2", "c1"]


async def test_another_connection_helps_where_many_wait_or_the_first_one_hangs(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(flusher, "HELP_S", 0.2)
    waiting = flusher.Waiting()
    few = [f"a{number}" for number in range(flusher.MANY - 1)]
    wait_for(waiting, *few)
    began = time.monotonic()
    assert names(await waiting.take(helps=True)) == few and time.monotonic() - began >= 0.2
    monkeypatch.setattr(flusher, "HELP_S", 60)
    wait_for(waiting, *few, "b1")
    async with asyncio.timeout(5):
        assert names(await waiting.take(helps=True)) == [*few, "b1"]


async def test_calls_of_a_station_are_answered_in_their_order_whatever_way_they_take(yard: Yard):
    box = await online(yard, yard.nordlicht)
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Available", "timestamp": stamp()}
    sent = []
    for number in range(60):
        action, payload = (
            ("MeterValues", metering(number)), ("StatusNotification", status), ("Heartbeat", {}),
            ("Authorize", {"idTag": yard.nordlicht.card}),
        )[number % 4]  # fmt: skip
        sent.append(f"o{number}")
        await box.socket.send(json.dumps([2, sent[-1], action, payload]))
    heard: list[str] = []
    while len(heard) < len(sent):
        await asyncio.sleep(0.02)
        frames = [json.loads(frame) for frame in box.recorder.frames_in]
        heard = [frame[1] for frame in frames if frame[0] == 3 and frame[1].startswith("o")]
    assert heard == sent
    await box.close()


async def test_what_a_station_says_first_is_answered_although_its_old_link_still_ends(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    async def slowly(_route: Any) -> None:
        await asyncio.sleep(0.3)

    monkeypatch.setattr(yard.gateway.presence, "settled", slowly)
    box = await online(yard, yard.nordlicht)
    await box.close()


@pytest.mark.parametrize("value", ["9" * 15, "1e999", "-12.5"])
async def test_figures_no_car_has_are_kept_and_break_no_batch(yard: Yard, value: str):
    box = await online(yard, yard.nordlicht)
    samples = [
        {"value": value, "measurand": "SoC", "unit": "Percent"}, {"value": value, "measurand": "Voltage", "unit": "V"},
        {"value": value, "measurand": "Energy.Active.Import.Register", "unit": "kWh"},
    ]  # fmt: skip
    values = {"connectorId": 1, "meterValue": [{"timestamp": stamp(), "sampledValue": samples}]}
    before = batched()
    assert await box.say("MeterValues", values) == {}
    assert batched() - before == 1
    assert len(await rows(yard, yard.nordlicht, MeterValue)) == 3
    await box.close()


async def test_a_station_whose_network_hiccups_is_answered_although_its_old_link_counts_on(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    """Its old link counts as online for a while more; the new one waits for none of it."""
    monkeypatch.setattr(server, "OFFLINE_GRACE_S", 60.0)
    monkeypatch.setattr(presence, "SETTLE_S", 60.0)
    box = await online(yard, yard.nordlicht)
    for wh in (1_000, 1_100):
        await box.cut()
        await box.connect()
        assert await box.say("MeterValues", metering(wh)) == {}
    await box.close()


async def test_a_page_that_opens_between_two_looks_is_told_the_reading_that_came_meanwhile(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(flusher.Watched, "EVERY_S", 3600)
    watched = yard.gateway.watched
    box = await online(yard, yard.nordlicht)
    await asyncio.sleep(2 * 0.25)  # the last look that the old pace had begun
    await watched.look()
    async with watched.redis.pubsub() as page:
        await page.subscribe(channel(yard.nordlicht.tenant_id, f"station:{yard.nordlicht.station_id}"))
        assert (await page.get_message(timeout=5) or {})["type"] == "subscribe"
        await box.say("MeterValues", metering(1_000))
        assert await page.get_message(timeout=0.2) is None
        await watched.look()
        assert (await page.get_message(timeout=5) or {})["type"] == "message"
    await box.close()
