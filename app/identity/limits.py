"""How often somebody may try: counted in Redis, by tenant and name, in fixed windows."""

import hashlib
from datetime import timedelta
from uuid import UUID

from tenants.redis import Redis, RedisError, key


async def is_within(redis: Redis | None, tenant_id: UUID, name: str, limit: int, window: timedelta) -> bool:
    """False from the `limit + 1`st time in a window on. Without Redis it keeps nobody out; the database has its own."""
    if redis is None:
        return True
    counter = key(tenant_id, "limit", hashlib.sha256(name.encode()).hexdigest()[:32])
    try:
        count = await redis.client.incr(counter)
        if count == 1:
            await redis.client.expire(counter, int(window.total_seconds()))
    except RedisError:
        return True
    return count <= limit
