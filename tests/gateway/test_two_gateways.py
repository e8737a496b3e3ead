"""Two gateway processes behind a TCP balancer: one is killed under load, and Redis forgets everything in between."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from app.kernel.settings import Settings
from app.stations import commands, nodes
from app.stations import service as stations
from app.stations.jobs import sweep
from app.stations.models import StationCommand, StationConnection
from ocpp_gateway.server import Gateway, Storm
from ocpp_gateway.verbs import Verbs
from tenants.database import Database
from tenants.redis import key
from tests.cast import NORDLICHT, STAFF, Cast, hire
from tests.conformance.conftest import rows, until
from tests.conftest import ROOT, DatabaseUrls, settings_environment
from tests.foreign_stations import ForeignStation, Station16, Station201
from tests.gateway.conftest import Yard, opened, yard
from tests.journeys.house import free_port

pytestmark = pytest.mark.anyio
STATIONS = 8


@dataclass
class Balancer:
    """Round robin over TCP; a backend that does not answer is passed over."""

    backends: list[int]
    port: int = 0
    turn: int = 0
    server: asyncio.Server | None = None
    links: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self.backends:
            self.turn += 1
            with contextlib.suppress(OSError):
                back = await asyncio.open_connection(
                    "127.0.0.1", self.backends[self.turn % len(self.backends)]
                )
                task = asyncio.create_task(self._join(reader, writer, *back))
                self.links.add(task)
                return
        writer.close()

    async def _join(self, reader: Any, writer: Any, back_reader: Any, back_writer: Any) -> None:
        async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    target.write(data)
                    await target.drain()
            for one in (writer, back_writer):
                one.close()

        await asyncio.gather(pipe(reader, back_writer), pipe(back_reader, writer), return_exceptions=True)

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        for task in self.links:
            task.cancel()
        await asyncio.gather(*self.links, return_exceptions=True)


@dataclass
class Fleet:
    """Two gateways of their own processes, and Nordlicht's stations."""

    database: Database
    cast: Cast
    processes: dict[int, asyncio.subprocess.Process]
    balancer: Balancer
    boxes: dict[UUID, ForeignStation]

    async def links(self) -> list[StationConnection]:
        return await rows(self, self.cast, StationConnection)  # type: ignore[arg-type]

    def by_node(self, links: list[StationConnection]) -> dict[int, list[StationConnection]]:
        """Port of the gateway -> the links it holds, told by the process id in the node's name."""
        return {
            port: [one for one in links if f"-{process.pid}-" in one.node and one.is_online]
            for port, process in self.processes.items()
        }


async def start_gateway(
    environment: dict[str, str], port: int, log: Any = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("LIVERY_", "DATABASE_", "REDIS_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "gateway", "--host", "127.0.0.1", "--port", str(port), cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=log, stderr=log,
    )  # fmt: skip

    async def listens() -> bool:
        assert process.returncode is None, "the gateway ended"
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    await until(listens, 60)
    return process


@pytest.fixture
async def fleet(
    settings: Settings, database: Database, database_urls: DatabaseUrls, redis_url: str
) -> AsyncIterator[Fleet]:
    environment = settings_environment(database_urls, redis_url)
    cast = await hire(database, NORDLICHT)
    ports = [free_port(), free_port()]
    started = await asyncio.gather(*(start_gateway(environment, port) for port in ports))
    balancer = Balancer(ports)
    await balancer.open()
    boxes: dict[UUID, ForeignStation] = {}
    async with database.scope(cast.tenant_id, STAFF) as scope:
        for number in range(STATIONS):
            new = await stations.create_station(scope, identity=f"TWO-{number}", evses=[{"evse_no": 1}])
            kind = Station16 if number % 2 else Station201
            url = f"ws://127.0.0.1:{balancer.port}/{cast.company.slug}/TWO-{number}"
            box = boxes[new.station.id] = kind(url, new.password)
            box.answers["DataTransfer"] = {"status": "Accepted"}
    processes = dict(zip(ports, started, strict=True))
    yield Fleet(database, cast, processes, balancer, boxes)
    for box in boxes.values():
        await box.close()
    await balancer.close()
    for process in processes.values():
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 30)


async def visits(box: Any, tag: str, over: asyncio.Event) -> list[str]:
    """Sessions back to back, sent again with the same ids until each is answered; the transactions' ids."""
    done: list[str] = []
    clock = datetime.now(UTC) - timedelta(hours=2)

    async def sure(action: str, payload: dict[str, Any]) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + 60
        while True:
            try:
                if box.socket is None:
                    await box.connect()
                    await box.boot()
                return await box.say(action, payload, timeout_s=10)
            except Exception:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                with contextlib.suppress(Exception):
                    await box.cut()
                await asyncio.sleep(random.uniform(0.05, 0.2))

    def tick() -> str:
        nonlocal clock
        clock += timedelta(seconds=20)
        return clock.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    while not over.is_set() or not done:
        meter = 1_000 + 100 * len(done)
        if isinstance(box, Station16):
            begun = await sure("StartTransaction", {
                "connectorId": 1, "idTag": tag, "meterStart": meter, "timestamp": tick(),
            })  # fmt: skip
            await sure("StopTransaction", {
                "transactionId": begun["transactionId"], "meterStop": meter + 50, "timestamp": tick(),
            })  # fmt: skip
            done.append(str(begun["transactionId"]))
        else:
            name = f"{box.identity}-{len(done)}"
            for number, kind in enumerate(("Started", "Ended")):
                at = tick()
                sample = {"value": meter + 50 * number, "measurand": "Energy.Active.Import.Register"}
                await sure("TransactionEvent", {
                    "eventType": kind, "timestamp": at, "seqNo": number, "evse": {"id": 1, "connectorId": 1},
                    "triggerReason": "StopAuthorized" if number else "Authorized",
                    "transactionInfo": {"transactionId": name}, "idToken": {"idToken": tag, "type": "ISO14443"},
                    "meterValue": [{"timestamp": at, "sampledValue": [sample]}],
                })  # fmt: skip
            done.append(name)
        await asyncio.sleep(0.05)
    return done


async def orders(fleet: Fleet, over: asyncio.Event) -> int:
    """Commands to all stations in turn, each with a number of its own."""
    count = 0
    while not over.is_set():
        for station_id in fleet.boxes:
            payload = {"vendorId": "org.example.orders", "messageId": str(count)}
            async with fleet.database.scope(fleet.cast.tenant_id, STAFF) as scope:
                await commands.send_command(scope, station_id, "DataTransfer", payload)
            count += 1
        await asyncio.sleep(0.2)
    return count


async def test_of_two_gateways_one_dies_and_nothing_is_lost_or_doubled(fleet: Fleet):
    over = asyncio.Event()
    driving = [asyncio.create_task(visits(box, fleet.cast.card, over)) for box in fleet.boxes.values()]

    async def spread() -> bool:
        return sum(len(held) for held in fleet.by_node(await fleet.links()).values()) == STATIONS

    await until(spread, 30)
    held = fleet.by_node(await fleet.links())
    assert sorted(len(one) for one in held.values()) == [STATIONS // 2, STATIONS // 2]
    ordering = asyncio.create_task(orders(fleet, over))
    await asyncio.sleep(1.5)
    dead, alive = fleet.processes
    fleet.processes[dead].kill()
    await fleet.processes[dead].wait()

    async def moved() -> bool:
        return len(fleet.by_node(await fleet.links())[alive]) == STATIONS

    await until(moved, 30)
    redis = fleet.database.redis
    assert redis is not None
    await redis.client.flushall()
    for _ in range(3):  # the worker looks while Redis knows nothing
        await sweep(fleet.database, fleet.cast.tenant_id)
        await asyncio.sleep(0.3)
    assert all(link.is_online for link in await fleet.links())
    await asyncio.sleep(1)
    over.set()
    sent = await ordering
    done = await asyncio.gather(*driving)

    async def ended() -> list[StationCommand] | None:
        found = await rows(fleet, fleet.cast, StationCommand, StationCommand.action == "DataTransfer")  # type: ignore[arg-type]
        return found if {one.status for one in found} <= {"accepted", "unknown"} else None

    ended_commands = await until(ended, 30)
    assert len(ended_commands) == sent
    asked = Counter(
        payload["messageId"]
        for box in fleet.boxes.values()
        for action, payload in box.asked
        if action == "DataTransfer"
    )
    assert max(asked.values()) == 1  # none doubled
    accepted = {one.payload["messageId"] for one in ended_commands if one.status == "accepted"}
    assert accepted <= set(asked)  # none lost
    in_flight = len(ended_commands) - len(accepted)
    assert in_flight <= STATIONS // 2  # one at most at each station of the dead one
    async with fleet.database.scope(fleet.cast.tenant_id, STAFF) as scope:
        query = text(
            "select ocpp_transaction_id, count(*), bool_and(status = 'COMPLETED' and energy_wh = 50)"
            " from livery.charging_session group by 1"
        )
        found = {name: (count, whole) for name, count, whole in (await scope.db.execute(query)).all()}
    assert found == {name: (1, True) for names in done for name in names}
    started = datetime.now(UTC)
    for station_id in fleet.boxes:  # and they find their stations without waiting for anybody's sweep
        async with fleet.database.scope(fleet.cast.tenant_id, STAFF) as scope:
            await commands.send_command(scope, station_id, "DataTransfer", {"vendorId": "org.example.last"})
    last = StationCommand.payload["vendorId"].astext == "org.example.last"
    await until(lambda: _all_accepted(fleet, last), 20)
    assert (datetime.now(UTC) - started).total_seconds() < 4.5


async def _all_accepted(fleet: Fleet, which: Any) -> bool:
    found = await rows(fleet, fleet.cast, StationCommand, which)  # type: ignore[arg-type]
    return [one.status for one in found] == ["accepted"] * STATIONS


# --- one gateway, whose memory is played with -------------------------------------------------------------------------


async def booted(yard: Yard) -> Station16:
    box = yard.station(yard.nordlicht, Station16)
    assert isinstance(box, Station16)
    await box.connect()
    await box.boot()
    return box


async def presence_of(yard: Yard) -> bytes | str | None:
    name = key(yard.nordlicht.tenant_id, "presence", str(yard.nordlicht.station_id))
    return await yard.gateway.redis.client.get(name)


async def test_presence_is_told_again_after_redis_forgot_it(yard: Yard):
    box = await booted(yard)
    await yard.gateway.presence.beat()
    assert await presence_of(yard)
    await yard.gateway.redis.client.flushall()
    await yard.gateway.presence.beat()
    assert await presence_of(yard) == f"{yard.gateway.node}:1".encode()
    assert [node.stations for node in await nodes.list_nodes(yard.gateway.redis)] == [1]
    await box.close()


async def test_a_station_that_moves_while_redis_knows_nothing_leaves_its_old_link(
    yard: Yard, settings: Settings
):
    """Nobody tells the first gateway of the move; it finds out from the database."""
    box = await booted(yard)
    old = box.socket
    assert old is not None
    second = Gateway(settings.model_copy(update={"ocpp_port": free_port()}), Verbs)
    stop = asyncio.Event()
    running = asyncio.create_task(second.run(stop))
    await yard.gateway.redis.client.flushall()
    moved = Station16(box.url, yard.nordlicht.password, connect_to=("127.0.0.1", second.settings.ocpp_port))
    await until(lambda: _connects(moved))
    await moved.boot()
    assert old.close_code is None
    await yard.gateway.touch_once()
    await asyncio.wait_for(old.wait_closed(), 5)
    assert old.close_code == 1008
    await second.touch_once()
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    assert (link.is_online, link.epoch, link.node) == (True, 2, second.node)
    assert await presence_of(yard) == f"{second.node}:2".encode()
    await moved.close()
    stop.set()
    await asyncio.wait_for(running, 20)


async def _connects(box: Station16) -> bool:
    with contextlib.suppress(OSError):
        await box.connect()
        return True
    return False


async def test_the_end_of_an_old_link_leaves_the_presence_of_a_newer_one(yard: Yard):
    box = await booted(yard)
    name = key(yard.nordlicht.tenant_id, "presence", str(yard.nordlicht.station_id))
    await yard.gateway.redis.client.set(name, "another-gateway:2")
    await box.close()
    await until(lambda: rows(yard, yard.nordlicht, StationConnection, StationConnection.is_online.is_(False)))
    assert await presence_of(yard) == b"another-gateway:2"


async def test_a_link_that_counted_as_lost_is_online_again_and_commands_find_it(yard: Yard):
    box = await booted(yard)
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        lost = {"is_online": False, "close_reason": stations.GATEWAY_LOST}
        await scope.db.execute(update(StationConnection).values(**lost))
    await yard.gateway.touch_once()
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    assert (link.is_online, link.close_reason) == (True, "")
    await box.close()
    await until(lambda: rows(yard, yard.nordlicht, StationConnection, StationConnection.is_online.is_(False)))
    await yard.gateway.touch_once()
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    assert not link.is_online  # and one that ended stays ended


async def test_a_command_in_flight_at_a_gateway_that_died_is_unknown_even_if_its_station_never_comes_back(
    yard: Yard,
):
    box = await booted(yard)
    await yard.gateway.presence.beat()
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        made = await commands.send_command(scope, yard.nordlicht.station_id, "ClearCache", {})
        made.status, made.epoch = "sent", 1
        link = (await scope.db.execute(select(StationConnection))).scalar_one()
        link.node = "gone"
    await yard.gateway.redis.client.set(nodes.SINCE, 0)
    await sweep(yard.database, yard.nordlicht.tenant_id)
    (command,) = await rows(yard, yard.nordlicht, StationCommand)
    assert (command.status, command.error) == ("unknown", "the connection was lost before the answer")
    await box.close()


async def test_a_gateway_that_drains_sends_its_stations_away_one_by_one(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ocpp_gateway.server.DRAIN_PER_S", 2.0)
    ends: list[float] = []
    async with opened(settings, database) as yard:
        boxes = [await booted(yard), yard.station(yard.solmark, Station201)]
        await boxes[1].connect()
        await boxes[1].boot()  # type: ignore[attr-defined]
        sockets = [box.socket for box in boxes]

        async def wait_for_the_end(socket: Any) -> None:
            await socket.wait_closed()
            ends.append(asyncio.get_running_loop().time())

        waiting = [asyncio.create_task(wait_for_the_end(socket)) for socket in sockets]
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert [socket.close_code for socket in sockets if socket] == [1012, 1012]
    assert max(ends) - min(ends) > 0.001  # spread over a second
    for box in boxes:
        await box.close()


async def test_a_storm_is_turned_away_with_a_time_to_come_again(yard: Yard):
    yard.gateway.storm = Storm(per_s=0.001, burst=1)
    box = await booted(yard)
    late = yard.station(yard.solmark, Station16)
    with pytest.raises(Exception) as refused:
        await late.connect()
    response = refused.value.response  # type: ignore[attr-defined]
    assert response.status_code == 503
    assert 1 <= int(response.headers["Retry-After"]) <= 30
    yard.gateway.storm = Storm()
    await late.connect()
    await late.close()
    await box.close()


__all__ = ["fleet", "yard"]
