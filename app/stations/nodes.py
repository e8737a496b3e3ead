"""Gateway processes as Redis knows them: each says every ten seconds that it lives and what it holds.

Opaque ids and counts only; all of it is rebuilt by the next beat. A node that stops speaking is told apart from one
that said goodbye: it stays on the list for a while, without its lease.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tenants.redis import Redis, platform_key

LEASE_S = 30
REMEMBERED_S = 3600
MOST_TENANTS = 50
_NODES = platform_key("gateway", "nodes")
SINCE = platform_key("gateway", "since")


@dataclass(frozen=True, slots=True)
class Node:
    """`tenants` counts the stations of the largest MOST_TENANTS, `versions` all stations by OCPP version.

    `pace`: messages a second, answer times (ms), batch, pending and parked messages, handshakes turned away, since the
    beat before; `busiest`: messages a second by tenant.
    """

    name: str
    version: str
    since: datetime
    beat_at: datetime
    stations: int = 0
    tenants: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    has_lease: bool = True
    pace: dict[str, float] = field(default_factory=dict)
    busiest: dict[str, float] = field(default_factory=dict)


def lease_key(node: str) -> str:
    return platform_key("gateway", node, "lease")


def describe(
    name: str, version: str, since: datetime, now: datetime, held: Iterable[tuple[UUID, str]],
    pace: Mapping[str, float] | None = None, busiest: Mapping[UUID, float] | None = None,
) -> Node:  # fmt: skip
    """`held`: the tenant and the OCPP version of every station that is connected here."""
    tenants, versions = Counter[str](), Counter[str]()
    for tenant_id, ocpp_version in held:
        tenants[str(tenant_id)] += 1
        versions[ocpp_version] += 1
    most = dict(tenants.most_common(MOST_TENANTS))
    return Node(
        name, version, since, now, tenants.total(), most, dict(versions), pace=dict(pace or {}),
        busiest={str(tenant): rate for tenant, rate in (busiest or {}).items()},
    )  # fmt: skip


async def beat(redis: Redis, node: Node) -> bool:
    """True where Redis had forgotten everything: whoever beats has more to tell it."""
    told = asdict(node) | {"since": node.since.timestamp(), "beat_at": node.beat_at.timestamp()}
    del told["has_lease"]
    async with redis.client.pipeline(transaction=False) as pipe:
        pipe.set(lease_key(node.name), "1", ex=LEASE_S)
        pipe.set(platform_key("gateway", node.name, "state"), json.dumps(told), ex=REMEMBERED_S)
        pipe.zadd(_NODES, {node.name: node.beat_at.timestamp()})
        pipe.zremrangebyscore(_NODES, "-inf", node.beat_at.timestamp() - REMEMBERED_S)
        pipe.set(SINCE, node.beat_at.timestamp(), nx=True)
        *_, is_new = await pipe.execute()
    return bool(is_new)


async def remembers(redis: Redis, now: datetime) -> bool:
    """Whether a lease that is not there was lost by its process: Redis has had its memory for longer than a lease."""
    await redis.client.set(SINCE, now.timestamp(), nx=True)
    since = await redis.client.get(SINCE)
    return since is not None and now.timestamp() - float(since) > LEASE_S


async def say_goodbye(redis: Redis, name: str) -> None:
    async with redis.client.pipeline(transaction=False) as pipe:
        pipe.delete(lease_key(name), platform_key("gateway", name, "state"))
        pipe.zrem(_NODES, name)
        await pipe.execute()


async def list_nodes(redis: Redis) -> list[Node]:
    """Those that hold a lease first, then those that fell silent within the last hour."""
    raw: Any = await redis.client.zrange(_NODES, 0, -1)
    names = [name.decode() for name in raw]
    if not names:
        return []
    states: list[Any] = await redis.client.mget([platform_key("gateway", name, "state") for name in names])
    leases: list[Any] = await redis.client.mget([lease_key(name) for name in names])
    found = [_read(state, lease is not None) for state, lease in zip(states, leases, strict=True) if state]
    return sorted(found, key=lambda node: (not node.has_lease, node.name))


def _read(state: bytes, has_lease: bool) -> Node:
    told = json.loads(state)
    for name in ("since", "beat_at"):
        told[name] = datetime.fromtimestamp(told[name], UTC)
    return Node(**told, has_lease=has_lease)
