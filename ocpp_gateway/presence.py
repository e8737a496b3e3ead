"""Which gateway process holds which station, and how commands find it. All of it can be rebuilt.

A process has a lease in Redis; a station's presence names process and epoch. A process hears on a channel of its own:
`{"tenant", "station"}` (there may be a command), with `"superseded_by": epoch` (give way) or `"attributes": {...}`
(what we are lenient about has changed); `{"tenant", "parked"}` (staff want a parked message tried again).
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Any
from uuid import UUID

from websockets.protocol import State

from app.kernel.clock import utcnow
from app.stations import nodes
from app.stations.commands import node_channel
from ocpp_gateway.connection import Connection
from ocpp_gateway.gather import Gather
from ocpp_gateway.metrics import PACE
from tenants.redis import Redis, RedisError, key
from tenants.resolve import StationRoute

log = logging.getLogger("livery.gateway")
PRESENCE_S = 24 * 3600
SETTLE_S = 3.0

Key = tuple[UUID, UUID]
_FORGET = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


def _named(told: tuple[str, str]) -> str:
    return told[0]


def _name(connection: Connection) -> str:
    return key(connection.route.tenant_id, "presence", str(connection.route.station_id))


class Presence:
    def __init__(
        self, redis: Redis, node: str, retry: Callable[[UUID, UUID], Coroutine[Any, Any, None]]
    ) -> None:
        self.redis, self.node, self._retry = redis, node, retry
        self.release, self.since = version("livery"), utcnow()
        self.here: dict[Key, Connection] = {}
        self.pace = PACE
        self._closing: set[asyncio.Task[None]] = set()
        self._writing, self._forgetting = Gather(self._write, _named), Gather(self._forget, _named)

    async def settled(self, route: StationRoute) -> None:
        """A station that restarts is back at once: what its last link had heard is written first, for a moment."""
        old = self.here.get((route.tenant_id, route.station_id))
        if old is not None and old.socket.state is State.CLOSED:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await old.over.wait()

    async def arrived(self, connection: Connection) -> None:
        """The newest authenticated connection wins: the old one, here or elsewhere, is closed."""
        route = connection.route
        old = self.here.get((route.tenant_id, route.station_id))
        self.here[route.tenant_id, route.station_id] = connection
        if old is not None:
            self._give_way(old)
        with contextlib.suppress(RedisError, OSError):
            before = await self._writing.ask((_name(connection), self._told(connection)))
            other = before.decode().rpartition(":")[0] if isinstance(before, bytes) else ""
            if other and other != self.node:
                message = {
                    "tenant": route.tenant_id,
                    "station": route.station_id,
                    "superseded_by": connection.epoch,
                }
                await self.redis.publish_raw(node_channel(other), message)

    async def left(self, connection: Connection) -> None:
        route = connection.route
        if self.here.get((route.tenant_id, route.station_id)) is not connection:
            return
        del self.here[route.tenant_id, route.station_id]
        with contextlib.suppress(RedisError, OSError):
            await self._forgetting.ask((_name(connection), self._told(connection)))

    async def _write(self, told: Sequence[tuple[str, str]]) -> list[Any]:
        """What stood there before."""
        async with self.redis.client.pipeline(transaction=False) as pipe:
            for name, value in told:
                pipe.set(name, value, ex=PRESENCE_S, get=True)
            return await pipe.execute()

    async def _forget(self, told: Sequence[tuple[str, str]]) -> list[Any]:
        """Only its own: the station may be elsewhere by now (ocpp.md 2, row 14)."""
        async with self.redis.client.pipeline(transaction=False) as pipe:
            for name, value in told:
                pipe.eval(_FORGET, 1, name, value)
            return await pipe.execute()

    def _told(self, connection: Connection) -> str:
        return f"{self.node}:{connection.epoch}"

    async def superseded(self, tenant_id: UUID, station_id: UUID) -> None:
        """The database knows a newer link of this station."""
        connection = self.here.get((tenant_id, station_id))
        if connection is not None:
            await connection.close(1008, "a newer connection of this station")

    async def hold_lease(self) -> None:
        """Says that this process lives; when it ends without a word, its stations count as gone soon after."""
        while True:
            await self.beat()
            await asyncio.sleep(nodes.LEASE_S / 3)

    async def beat(self) -> None:
        held = [(tenant_id, one.version.SUBPROTOCOL) for (tenant_id, _), one in self.here.items()]
        figures, busiest = self.pace.take()
        state = nodes.describe(self.node, self.release, self.since, utcnow(), held, figures, busiest)
        with contextlib.suppress(RedisError, OSError):
            if await nodes.beat(self.redis, state):
                await self._rebuild()

    async def _rebuild(self) -> None:
        """Redis lost its memory: who is here is told again, but not over a newer link elsewhere."""
        async with self.redis.client.pipeline(transaction=False) as pipe:
            for connection in self.here.values():
                pipe.set(_name(connection), self._told(connection), ex=PRESENCE_S, nx=True)
            await pipe.execute()

    async def give_up_lease(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await nodes.say_goodbye(self.redis, self.node)

    async def listen(self) -> None:
        """For ever, over every loss of Redis; what is missed meanwhile, the sweep of each connection finds."""
        while True:
            try:
                async with self.redis.pubsub() as pubsub:
                    await pubsub.subscribe(node_channel(self.node))
                    for connection in list(self.here.values()):
                        connection.wake()
                    async for message in pubsub.listen():
                        self._hear(message)
            except (RedisError, OSError):
                await asyncio.sleep(1)

    def _hear(self, message: dict[str, object]) -> None:
        if message.get("type") != "message":
            return
        data = message["data"]
        try:
            said = json.loads(data if isinstance(data, bytes | str) else b"{}")
            if "parked" in said:
                self._retrying = asyncio.create_task(self._retry(UUID(said["tenant"]), UUID(said["parked"])))
                return
            connection = self.here.get((UUID(said["tenant"]), UUID(said["station"])))
        except (ValueError, KeyError, TypeError):
            return
        if connection is None:
            return
        newer, attributes = said.get("superseded_by"), said.get("attributes")
        if attributes is not None:
            connection.learn(attributes)
        elif newer is None:
            connection.wake()
        elif newer > connection.epoch:
            self._give_way(connection)

    def _give_way(self, old: Connection) -> None:
        task = asyncio.create_task(old.give_way())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
