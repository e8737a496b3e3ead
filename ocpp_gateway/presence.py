"""Which gateway process holds which station, and how commands find it. All of it can be rebuilt.

A process has a lease in Redis; a station's presence names process and epoch. A process hears on a channel of its own:
`{"tenant", "station"}` (there may be a command), with `"superseded_by": epoch` (give way) or `"attributes": {...}`
(what we are lenient about has changed).
"""

import asyncio
import contextlib
import json
import logging
from importlib.metadata import version
from uuid import UUID

from app.kernel.clock import utcnow
from app.stations import nodes
from app.stations.commands import node_channel
from ocpp_gateway.connection import Connection
from tenants.redis import Redis, RedisError, key

log = logging.getLogger("livery.gateway")
PRESENCE_S = 24 * 3600

Key = tuple[UUID, UUID]


class Presence:
    def __init__(self, redis: Redis, node: str) -> None:
        self.redis, self.node = redis, node
        self.release, self.since = version("livery"), utcnow()
        self.here: dict[Key, Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def arrived(self, connection: Connection) -> None:
        """The newest authenticated connection wins: the old one, here or elsewhere, is closed."""
        route = connection.route
        old = self.here.get((route.tenant_id, route.station_id))
        self.here[route.tenant_id, route.station_id] = connection
        if old is not None:
            self._give_way(old)
        with contextlib.suppress(RedisError, OSError):
            name = key(route.tenant_id, "presence", str(route.station_id))
            before = await self.redis.client.set(
                name, f"{self.node}:{connection.epoch}", ex=PRESENCE_S, get=True
            )
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
            await self.redis.client.delete(key(route.tenant_id, "presence", str(route.station_id)))

    async def hold_lease(self) -> None:
        """Says that this process lives; when it ends without a word, its stations count as gone soon after."""
        while True:
            await self.beat()
            await asyncio.sleep(nodes.LEASE_S / 3)

    async def beat(self) -> None:
        held = [(tenant_id, one.version.SUBPROTOCOL) for (tenant_id, _), one in self.here.items()]
        state = nodes.describe(self.node, self.release, self.since, utcnow(), held)
        with contextlib.suppress(RedisError, OSError):
            await nodes.beat(self.redis, state)

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
            connection = self.here.get((UUID(said["tenant"]), UUID(said["station"])))
        except (ValueError, KeyError, TypeError):
            return
        if connection is None:
            return
        newer, attributes = said.get("superseded_by"), said.get("attributes")
        if attributes is not None:
            connection.attributes = attributes
        elif newer is None:
            connection.wake()
        elif newer > connection.epoch:
            self._give_way(connection)

    def _give_way(self, old: Connection) -> None:
        task = asyncio.create_task(old.give_way())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
