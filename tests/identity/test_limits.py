"""Attempts count for a while each, under all of their names or none, until they are forgiven."""

import asyncio
from datetime import timedelta

import pytest

from app.identity import limits
from app.kernel.clock import uuid7
from tenants.database import Database
from tenants.redis import Redis

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


async def test_an_attempt_counts_until_it_is_forgiven(database: Database) -> None:
    redis, tenant, most = database.redis, uuid7(), {"a": 2, "b": 3}
    first, second, third = uuid7(), uuid7(), uuid7()
    assert await limits.claim(redis, tenant, first, most, HOUR)
    assert await limits.claim(redis, tenant, second, most, HOUR)
    assert await limits.claim(redis, tenant, second, most, HOUR)  # the same one counts once
    for _ in range(5):
        assert not await limits.claim(redis, tenant, third, most, HOUR)  # a refused one counts nowhere
    assert await limits.claim(redis, uuid7(), third, most, HOUR)
    await limits.forgive(redis, tenant, first)
    assert await limits.claim(redis, tenant, third, most, HOUR)
    assert not await limits.claim(redis, tenant, uuid7(), most, HOUR)


async def test_an_attempt_counts_for_its_own_window(database: Database) -> None:
    tenant, most, window = uuid7(), {"a": 1}, timedelta(seconds=1)
    assert await limits.claim(database.redis, tenant, uuid7(), most, window)
    assert not await limits.claim(database.redis, tenant, uuid7(), most, window)
    await asyncio.sleep(1.1)
    assert await limits.claim(database.redis, tenant, uuid7(), most, window)


@pytest.mark.parametrize("redis", [None, Redis("redis://127.0.0.1:1/0")])
async def test_without_redis_nobody_is_kept_out(redis: Redis | None) -> None:
    for _ in range(3):
        assert await limits.claim(redis, uuid7(), uuid7(), {"a": 0}, HOUR)
    await limits.forgive(redis, uuid7(), uuid7())
