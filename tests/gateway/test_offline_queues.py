"""Fifty stations come back after three days and pour out what they stored, while others charge on (ocpp.md 47, 48)."""

import asyncio
import base64
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url
from websockets.asyncio.client import connect

from app.access import service as access
from app.demo.cast import NORDLICHT, SOLMARK
from app.embedded import EmbeddedServers
from app.stations import service as stations
from tenants.database import Database
from tenants.redis import Redis
from tests.cast import PLATES, STAFF, Cast, hire
from tests.conftest import ROOT, Databases, DatabaseUrls, Proof, load_settings, settings_environment
from tests.foreign_stations import stamp
from tests.gateway.test_two_gateways import start_gateway
from tests.journeys.house import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.proof, pytest.mark.timeout(1800)]

STATIONS, MESSAGES, PER_S = 50, 5_000, 20.0
OTHERS, EVERY_S, CALM_S = 10, 0.25, 30.0
MOST_RATIO = 2.0
VERSIONS = ("ocpp1.6", "ocpp2.0.1")


@pytest.fixture(scope="module")
def durable(proof: Proof, databases: Databases) -> Iterator[Databases]:
    """In full on a PostgreSQL that waits for its disk, as in production: the times mean nothing otherwise."""
    if not proof.full:
        yield databases
        return
    folder = Path(tempfile.mkdtemp(prefix="livery-durable-", dir="/tmp"))
    with EmbeddedServers(folder, progress=lambda _line: None) as running:
        made = Databases(running)
        yield made
        made.close()
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Town:
    """A gateway in a process of its own, and two brands before it."""

    database: Database
    urls: DatabaseUrls
    port: int
    casts: tuple[Cast, Cast]

    async def station(self, cast: Cast, identity: str) -> tuple[str, str]:
        """Its key, and a card of its own."""
        async with self.database.scope(cast.tenant_id, STAFF) as scope:
            plate = {"connectors": [{"connector_no": 1, **PLATES["ac22"]}]}
            new = await stations.create_station(
                scope, identity=identity, location_id=cast.location_id, evses=[{"evse_no": 1, **plate}]
            )
            await access.create_id_token(scope, value=f"C-{identity}", label=identity)
        return new.password or "", f"C-{identity}"

    def url(self, cast: Cast, identity: str) -> str:
        return f"ws://127.0.0.1:{self.port}/{cast.company.slug}/{identity}"


@pytest.fixture
async def town(durable: Databases, redis_url: str) -> AsyncIterator[Town]:
    with durable.copy() as urls:
        environment, port = settings_environment(urls, redis_url), free_port()
        redis = Redis(redis_url)
        database = Database(load_settings(environment), redis=redis)
        casts = await hire(database, NORDLICHT), await hire(database, SOLMARK)
        gateway = await start_gateway(environment, port)
        yield Town(database, urls, port, casts)
        gateway.terminate()
        await gateway.wait()
        await database.close()
        await redis.close()


# -- the others --------------------------------------------------------------------------------------------------------


class Other:
    """A station that charges as on any day: a reading four times a second, now and then a status."""

    def __init__(self, socket: Any, version: str) -> None:
        self.socket, self.version, self.count = socket, version, 0
        self.ack_s: list[float] = []

    def message(self) -> tuple[str, dict[str, Any]]:
        self.count += 1
        if self.count % 5 == 0 and self.version == "ocpp1.6":
            return "StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Charging"}
        if self.count % 5 == 0:
            status = {"timestamp": stamp(), "connectorStatus": "Occupied", "evseId": 1, "connectorId": 1}
            return "StatusNotification", status
        sampled = {"value": str(self.count), "measurand": "Power.Active.Import", "unit": "W"}
        if self.version == "ocpp1.6":
            value = {"timestamp": stamp(), "sampledValue": [sampled]}
            return "MeterValues", {"connectorId": 1, "meterValue": [value]}
        value = {
            "timestamp": stamp(),
            "sampledValue": [{"value": self.count, "measurand": "Power.Active.Import"}],
        }
        return "MeterValues", {"evseId": 1, "meterValue": [value]}

    async def say(self) -> None:
        action, payload = self.message()
        began = time.perf_counter()
        await self.socket.send(json.dumps([2, f"o{self.count}", action, payload]))
        while True:
            frame = json.loads(await asyncio.wait_for(self.socket.recv(), 30))
            if frame[0] != 2:
                break
        self.ack_s.append(time.perf_counter() - began)
        assert frame[:2] == [3, f"o{self.count}"], frame


async def open_others(town: Town) -> list[Other]:
    """Of both brands and both versions, booted."""
    others = []
    for number in range(OTHERS):
        cast, version, identity = town.casts[number % 2], VERSIONS[number // 2 % 2], f"DAILY-{number}"
        password, _ = await town.station(cast, identity)
        basic = base64.b64encode(f"{identity}:{password}".encode()).decode()
        socket = await connect(
            town.url(cast, identity), subprotocols=[version], compression=None, ping_interval=None,  # type: ignore[list-item]
            additional_headers={"Authorization": f"Basic {basic}"},
        )  # fmt: skip
        boot: dict[str, Any] = {"chargePointModel": "M", "chargePointVendor": "V"}
        if version != "ocpp1.6":
            boot = {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}}
        await socket.send(json.dumps([2, "boot", "BootNotification", boot]))
        assert json.loads(await socket.recv())[2]["status"] == "Accepted"
        others.append(Other(socket, version))
    return others


async def live(others: list[Other], rng: random.Random, over: asyncio.Event) -> list[float]:
    """Until it is over, each at its own moments; how long each message waited for its answer."""

    async def one(other: Other) -> list[float]:
        other.ack_s = []
        await asyncio.sleep(rng.uniform(0, EVERY_S))
        while not over.is_set():
            await asyncio.gather(other.say(), asyncio.sleep(EVERY_S * rng.uniform(0.8, 1.2)))
        return other.ack_s

    return [
        took for all_of_one in await asyncio.gather(*(one(other) for other in others)) for took in all_of_one
    ]


async def live_for(others: list[Other], rng: random.Random, seconds: float) -> list[float]:
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    return await live(others, rng, over)


def p95_ms(took: list[float]) -> float:
    return round(sorted(took)[int(len(took) * 0.95)] * 1000, 2)


# -- what must be there ------------------------------------------------------------------------------------------------


def missing_or_doubled(sql: psycopg.Connection[Any], record: dict[str, Any]) -> list[str]:
    """What of one station's own record is not in the database exactly once."""
    name = record["identity"]
    (station,) = sql.execute(
        "select id from livery.charging_station where ocpp_identity = %s", [name]
    ).fetchall()

    def found(query: str) -> Counter[Any]:
        return Counter(sql.execute(query.encode(), station).fetchall())

    wrong = [f"{name}: {fault}" for fault in record["faults"]]
    readings = found(
        "select to_char(sampled_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), value::int"
        " from livery.meter_value where station_id = %s"
    )
    wanted = {tuple(reading) for reading in record["readings"]}
    wrong += [f"{name}: reading {one} is there {readings[one]} times" for one in wanted if readings[one] != 1]
    wrong += [f"{name}: reading {one} was never sent" for one in readings if one not in wanted]
    frames = found("select message_id from livery.ocpp_message where station_id = %s and direction = 'in'")
    wrong += [
        f"{name}: message {one}, sent {sent} times, is in the log {frames[one,]} times"
        for one, sent in record["sent"].items() if not 1 <= frames[one,] <= sent
    ]  # fmt: skip
    sessions = found(
        "select ocpp_transaction_id, meter_start_wh, meter_stop_wh, status, review from livery.charging_session"
        " where station_id = %s"
    )
    for one in record["sessions"]:
        here = [row for row in sessions.elements() if _is_same(row, one)]
        if len(here) != 1:
            wrong.append(f"{name}: session {one} is there {len(here)} times: {here}")
    if sessions.total() != len(record["sessions"]):
        wrong.append(f"{name}: {sessions.total()} sessions instead of {len(record['sessions'])}")
    return wrong


def _is_same(row: Any, told: dict[str, Any]) -> bool:
    """A session without its start waits for a review; where it had no name either, its stop tells it."""
    name, start, stop, status, review = row
    if told["name"] and name != told["name"]:
        return False
    if told["is_orphan"]:
        return stop == told["stop"] and review is not None
    is_over = told["stop"] is None or status == "COMPLETED"
    return (start, stop, review) == (told["start"], told["stop"], None) and is_over


async def test_what_was_stored_for_days_is_taken_once_and_delays_nobody(
    town: Town, proof: Proof, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    count, messages = proof.share(STATIONS), MESSAGES if proof.full else MESSAGES // 50
    rng, began = proof.random("offline queues"), time.monotonic()
    told = []
    for number in range(count):
        cast, identity = town.casts[0], f"AWAY-{number}"
        password, card = await town.station(cast, identity)
        told.append({
            "url": town.url(cast, identity), "identity": identity, "password": password, "card": card,
            "version": VERSIONS[number % 2], "seed": rng.getrandbits(64), "count": messages,
            "per_s": PER_S,
        })  # fmt: skip
    others = await open_others(town)
    calm = CALM_S if proof.full else 1.5
    quiet = await live_for(others, rng, calm)
    record = tmp_path / "record.json"
    pouring = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.gateway.queues", cwd=ROOT, stdin=asyncio.subprocess.PIPE
    )
    over = asyncio.Event()
    living = asyncio.create_task(live(others, rng, over))
    await pouring.communicate(json.dumps({"record": str(record), "stations": told}).encode())
    over.set()
    busy = await living
    assert pouring.returncode == 0
    quiet += await live_for(others, rng, calm)
    for other in others:
        await other.socket.close()
    records = json.loads(record.read_text())
    url = make_url(town.urls.superuser).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as sql:
        wrong = [line for one in records["stations"] for line in missing_or_doubled(sql, one)]
    sent = sum(sum(one["sent"].values()) for one in records["stations"])
    waited = [took for one in records["stations"] for took in one["ack_s"]]
    ratio = round(p95_ms(busy) / p95_ms(quiet), 2)
    figures = {
        "stations": count, "messages_of_each": messages, "sent": sent,
        "sent_twice": sum(one["twice"] for one in records["stations"]),
        "slowest_per_s": round(min(one["per_s"] for one in records["stations"]), 2),
        "sessions": sum(len(one["sessions"]) for one in records["stations"]),
        "without_start": sum(s["is_orphan"] for one in records["stations"] for s in one["sessions"]),
        "missing_or_doubled": len(wrong), "pouring_p95_ms": p95_ms(waited),
        "others_p95_ms": p95_ms(busy), "others_quiet_p95_ms": p95_ms(quiet), "ratio": ratio,
        "others_messages": len(busy), "pouring_s": round(records["seconds"], 1),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    proof.write("offline-queues", figures)
    with capsys.disabled():
        print(f"\n  offline queues: {figures}")
    assert not wrong, wrong[:10]
    if proof.full:  # a time is no promise on a busy machine
        assert figures["slowest_per_s"] > 0.98 * PER_S, "the gateway cannot keep up"
        assert ratio < MOST_RATIO
