"""How often somebody may try: counted in Redis, by tenant and name. Tries count in fixed windows, an attempt for a
window of its own, unless it is forgiven.
"""

import hashlib
import time
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

from tenants.redis import Redis, RedisError, key


async def is_within(redis: Redis | None, tenant_id: UUID, name: str, limit: int, window: timedelta) -> bool:
    """False from the `limit + 1`st time in a window on. Without Redis it keeps nobody out."""
    if redis is None:
        return True
    counter = key(tenant_id, "limit", _hidden(name))
    try:
        async with redis.client.pipeline(transaction=True) as pipe:
            # Together: a counter without an end would keep somebody out for ever.
            pipe.set(counter, 0, ex=int(window.total_seconds()), nx=True)
            pipe.incr(counter)
            _made, count = await pipe.execute()
    except RedisError:
        return True
    return count <= limit


async def claim(
    redis: Redis | None, tenant_id: UUID, attempt: UUID, most: Mapping[str, int], window: timedelta
) -> bool:
    """Counts the attempt under each name for a window, or until it is forgiven. False, and counted nowhere, where one
    of them has as many as it may. Without Redis it keeps nobody out."""
    if redis is None:
        return True
    now, length = time.time(), int(window.total_seconds())
    counters = [key(tenant_id, "limit", "attempts", _hidden(name)) for name in most]
    try:
        async with redis.client.pipeline(transaction=True) as pipe:
            for counter in counters:
                pipe.zremrangebyscore(counter, "-inf", now - length)
                pipe.zadd(counter, {str(attempt): now})
                pipe.expire(counter, length)
                pipe.zcard(counter)
            known = key(tenant_id, "limit", "attempt", str(attempt))
            pipe.sadd(known, *counters)
            pipe.expire(known, length)
            counts = (await pipe.execute())[3::4]
    except RedisError:
        return True
    if all(count <= limit for count, limit in zip(counts, most.values(), strict=False)):
        return True
    await forgive(redis, tenant_id, attempt)
    return False


async def forgive(redis: Redis | None, tenant_id: UUID, attempt: UUID) -> None:
    """The attempt was a good one and counts no more. Nothing where it counts nowhere."""
    if redis is None:
        return
    known = key(tenant_id, "limit", "attempt", str(attempt))
    try:
        counters: Any = await redis.client.smembers(known)  # pyright: ignore[reportGeneralTypeIssues]
        async with redis.client.pipeline(transaction=True) as pipe:
            for counter in counters:
                pipe.zrem(counter, str(attempt))
            pipe.delete(known)
            await pipe.execute()
    except RedisError:
        return


def _hidden(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def network_of(remote: str) -> str:
    """Whom an address stands for: itself, or for IPv6 the /64 that one household has."""
    try:
        address = ip_address(remote)
    except ValueError:
        return remote
    return str(ip_network(f"{address}/64", strict=False)) if address.version == 6 else remote
