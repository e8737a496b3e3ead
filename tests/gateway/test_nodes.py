"""Which gateway processes live and what each holds, as the console shows it."""

from typing import Any

import pytest

from app.reporting.jobs import tenant_stats
from app.stations import nodes
from app.stations.jobs import sweep
from app.worker import Gathered
from tests.foreign_stations import Station16, Station201
from tests.gateway.conftest import Yard
from tests.web import open_house

pytestmark = pytest.mark.anyio


async def seen(yard: Yard, path: str = "/gateways") -> str:
    async with open_house(yard.database.settings, yard.database) as house:
        admin = await house.admin()
        return (await admin.get(path)).text


async def connected(yard: Yard) -> list[Any]:
    """A 1.6 station of Nordlicht and a 2.0.1 station of Solmark, both called CP1."""
    boxes = [yard.station(yard.nordlicht, Station16), yard.station(yard.solmark, Station201)]
    for box in boxes:
        await box.connect()
        await box.boot()
    await yard.gateway.presence.beat()
    for cast in (yard.nordlicht, yard.solmark):
        await tenant_stats(yard.database, cast.tenant_id)
    return boxes


async def test_a_living_gateway_shows_its_stations_by_brand_and_version(yard: Yard):
    boxes = await connected(yard)
    (node,) = await nodes.list_nodes(yard.gateway.redis)
    assert (node.name, node.has_lease, node.stations) == (yard.gateway.node, True, 2)
    assert node.pace["messages_per_s"] > 0 and node.pace["ack_p99_ms"] > 0
    assert set(node.busiest) == set(node.tenants)
    assert node.versions == {"ocpp1.6": 1, "ocpp2.0.1": 1}
    assert node.tenants == {str(yard.nordlicht.tenant_id): 1, str(yard.solmark.tenant_id): 1}
    for path in ("/gateways", "/gateways/now"):
        page = await seen(yard, path)
        assert yard.gateway.node in page and "Alive" in page
        assert "a second" in page and "99 % within" in page
        assert yard.nordlicht.company.name in page and yard.solmark.company.name in page
        assert "CP1" not in page  # counts, never a tenant's row
    for box in boxes:
        await box.close()


async def test_a_gateway_that_fell_silent_is_told_and_its_stations_are_unknown_then_lost(yard: Yard):
    boxes = await connected(yard)
    await yard.gateway.redis.client.delete(nodes.lease_key(yard.gateway.node))
    (node,) = await nodes.list_nodes(yard.gateway.redis)
    assert not node.has_lease
    page = await seen(yard)
    assert "Silent" in page and "Alive" not in page
    assert stat(page, "Unknown") == "2"
    await yard.gateway.redis.client.set(nodes.SINCE, 0)  # and Redis has not just lost its memory
    for cast in (yard.nordlicht, yard.solmark):
        await sweep(yard.database, cast.tenant_id)
        await tenant_stats(yard.database, cast.tenant_id)
    page = await seen(yard)
    assert (stat(page, "Unknown"), stat(page, "Lost with a process")) == ("0", "2")
    for box in boxes:
        await box.close()


async def test_a_gateway_that_says_goodbye_is_gone_from_the_list(yard: Yard):
    await yard.gateway.presence.beat()
    assert len(await nodes.list_nodes(yard.gateway.redis)) == 1
    await yard.gateway.presence.give_up_lease()
    assert await nodes.list_nodes(yard.gateway.redis) == []
    assert "No gateway is running" in await seen(yard)


def test_the_figures_job_is_one_that_the_worker_runs_every_minute():
    assert ("* * * * *", "reporting.tenant_stats") in Gathered().recurring


def stat(page: str, label: str) -> str:
    """The figure under a label."""
    return page.split(f"{label}</span>")[1].split('class="value">')[1].split("<")[0]
