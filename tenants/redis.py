"""Redis keys and channels. Every tenant's begin with the tenant; only this module knows how.

Redis holds nothing that cannot be rebuilt from Postgres. `{…}` is Redis Cluster's hash tag: it keeps a tenant's keys
together.
"""

import json
from typing import Any
from uuid import UUID

from redis.asyncio import Redis as Client
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

__all__ = ["Redis", "RedisError", "channel", "key", "platform_key"]


def key(tenant_id: UUID, *parts: str) -> str:
    """`t:{<tenant>}:part:part`. The tenant cannot be left out."""
    if not isinstance(tenant_id, UUID):
        raise TypeError("a Redis key needs a tenant")
    return ":".join((f"t:{{{tenant_id}}}", *parts))


def channel(tenant_id: UUID, topic: str) -> str:
    return key(tenant_id, "ch", topic)


def platform_key(*parts: str) -> str:
    """For what belongs to no tenant: gateway nodes and their leases. Opaque ids only."""
    return ":".join(("p", *parts))


class Redis:
    """A thin door. `client` is redis-py's; use it only with keys built here."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Client = Client.from_url(url, decode_responses=False)

    async def close(self) -> None:
        await self.client.aclose()

    async def publish(self, tenant_id: UUID, topic: str, payload: dict[str, Any]) -> bool:
        """False when Redis is away: what is published is nice to see now, never the only copy."""
        return await self.publish_raw(channel(tenant_id, topic), payload)

    async def publish_raw(self, name: str, payload: dict[str, Any]) -> bool:
        try:
            await self.client.publish(name, json.dumps(payload, default=str))
        except RedisError:
            return False
        return True

    async def list_listened(self) -> tuple[frozenset[str], frozenset[UUID]]:
        """The channels that somebody listens to at this moment, and whose they are; none while Redis is away."""
        try:
            found: Any = await self.client.pubsub_channels("t:*")
        except RedisError:
            return frozenset(), frozenset()
        names = frozenset(one.decode() for one in found)
        return names, frozenset(UUID(name[3:39]) for name in names)

    channel_name = staticmethod(channel)

    def pubsub(self) -> PubSub:
        return self.client.pubsub()

    async def ping(self) -> bool:
        try:
            return bool(await self.client.ping())  # pyright: ignore[reportGeneralTypeIssues]
        except RedisError:
            return False
