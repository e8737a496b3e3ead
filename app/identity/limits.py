"""How often somebody may try: counted in Redis, by tenant and name, in fixed windows."""

import hashlib
from datetime import timedelta
from ipaddress import ip_address, ip_network
from uuid import UUID

from tenants.redis import Redis, RedisError, key


async def is_within(redis: Redis | None, tenant_id: UUID, name: str, limit: int, window: timedelta) -> bool:
    """False from the `limit + 1`st time in a window on. Without Redis it keeps nobody out."""
    if redis is None:
        return True
    counter = key(tenant_id, "limit", hashlib.sha256(name.encode()).hexdigest()[:32])
    try:
        async with redis.client.pipeline(transaction=True) as pipe:
            # Together: a counter without an end would keep somebody out for ever.
            pipe.set(counter, 0, ex=int(window.total_seconds()), nx=True)
            pipe.incr(counter)
            _made, count = await pipe.execute()
    except RedisError:
        return True
    return count <= limit


def network_of(remote: str) -> str:
    """Whom an address stands for: itself, or for IPv6 the /64 that one household has."""
    try:
        address = ip_address(remote)
    except ValueError:
        return remote
    return str(ip_network(f"{address}/64", strict=False)) if address.version == 6 else remote
