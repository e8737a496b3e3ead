"""Two furnished brands behind a front door whose database forgets: what every attack over HTTP begins with."""

from collections.abc import AsyncIterator

import pytest

from app.embedded import EmbeddedServers
from app.identity.permissions import PERMISSIONS, ROLES, SCOPES
from app.kernel.settings import load_settings
from tenants.redis import Redis
from tests.conftest import Databases, settings_environment
from tests.isolation.furniture import Furnished, furnish
from tests.isolation.routes import DryDatabase, Proving
from tests.name_server import NameServer, serve_names
from tests.web import House, Visitor, open_house


@pytest.fixture(scope="module")
async def names(anyio_backend: str) -> AsyncIterator[NameServer]:
    """Knows no name; the attacks ask nobody else."""
    async with serve_names() as server:
        yield server


@pytest.fixture(scope="module")
async def proving(
    databases: Databases, servers: EmbeddedServers, names: NameServer, anyio_backend: str
) -> AsyncIterator[Proving]:
    redis_url = servers.urls["REDIS_URL"]
    with databases.copy() as urls:
        environment = settings_environment(urls, redis_url) | {"LIVERY_DNS_SERVER": names.address}
        settings = load_settings(environment)
        redis = Redis(redis_url)
        database = DryDatabase(settings, redis=redis, pool_size=10)
        a, b = await furnish(database, "alpha"), await furnish(database, "beta")
        async with open_house(settings, database) as house:
            staff = {role: await _member(house, a, role) for role in ROLES}
            stranger = await _member(house, b, "owner")
            admin = await house.admin()
            await admin.open("/")
            keys = {"all": await _key(house, a, *SCOPES)}
            for permission in PERMISSIONS:
                others = [name for name in SCOPES if name != permission]
                keys[f"not {permission}"] = await _key(house, a, *others)
            on_b = house.portal(b.slug)
            on_b.client = keys["all"].client
            riders = {
                "own": await house.rider(a.slug, a.tenant_id, f"{a.canary}@driver.example"),
                "other": await house.rider(a.slug, a.tenant_id, f"else@{a.slug}.example"),
                "stranger": await house.rider(b.slug, b.tenant_id, f"{b.canary}@driver.example"),
            }
            database.is_dry = True
            yield Proving(house, a, b, staff, stranger.csrf, keys, on_b, admin, riders)
            for visitor in keys.values():
                await visitor.client.aclose()
        await database.close()
        await redis.close()


async def _member(house: House, brand: Furnished, role: str) -> Visitor:
    visitor = await house.staff(brand.slug, brand.tenant_id, brand.email(role))
    await visitor.open("/")
    assert visitor.csrf, role
    return visitor


async def _key(house: House, brand: Furnished, *scopes: str) -> Visitor:
    return await house.api(brand.slug, brand.tenant_id, *scopes)
