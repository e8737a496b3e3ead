"""From an outside name to a tenant: exact matches in schema `platform`, and nothing else before a tenant is known."""

import json
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tenants.database import Database
from tenants.scope import Scope

RESERVED_SLUGS = frozenset({
    "console", "portal", "api", "ocpp", "ocpi", "www", "hooks", "static", "platform",
    "sandbox",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostRoute:
    tenant_id: UUID
    slug: str
    name: str
    surface: str
    status: str


@dataclass(frozen=True, slots=True)
class StationRoute:
    """`digests` are hex HMACs of the station's valid keys; `attributes` hold security_profile and leniency flags."""

    tenant_id: UUID
    slug: str
    station_id: UUID
    identity: str
    digests: tuple[str, ...]
    attributes: dict[str, Any]
    tenant_status: str


def normalise_host(raw: str) -> str | None:
    """Lower case, one trailing dot and the port stripped, IDNA. None for what is no host name."""
    host = raw.strip()
    if host.startswith("[") or not host or len(host) > 260:
        return None
    name, colon, port = host.rpartition(":")
    if colon:
        if not port.isdigit():
            return None
        host = name
    host = host.removesuffix(".")
    try:
        host = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return None
    labels = host.split(".")
    if not all(label and set(label) <= _HOST_LETTERS and label[0] != "-" != label[-1] for label in labels):
        return None
    return host


_HOST_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class HostResolver:
    """Host -> tenant and surface, cached for a few seconds, so that a suspension shows soon and no page waits."""

    def __init__(self, database: Database, *, ttl_s: float = 5.0, size: int = 10_000) -> None:
        self._database = database
        self._ttl_s, self._size = ttl_s, size
        self._cache: OrderedDict[str, tuple[float, HostRoute | None]] = OrderedDict()

    async def resolve(self, host: str) -> HostRoute | None:
        cached = self._cache.get(host)
        if cached and cached[0] > time.monotonic():
            return cached[1]
        async with self._database.anonymous() as db:
            row = (
                await db.execute(text("select * from platform.resolve_host(:host)"), {"host": host})
            ).first()
        route = HostRoute(row.tenant_id, row.slug, row.name, row.surface, row.status) if row else None
        self._cache[host] = (time.monotonic() + self._ttl_s, route)
        while len(self._cache) > self._size:
            self._cache.popitem(last=False)
        return route

    def forget(self) -> None:
        self._cache.clear()


async def own_url(scope: Scope, surface: str, path: str = "/", *, host: str = "") -> str:
    """The address of a page of this tenant: on `host` where that is one of its own, else on its own domain where one is
    active, else below the platform's. Never on a domain that is failing."""
    query = text(
        "select slug, case when platform.is_sound_host(:host, :surface) then :host else platform.own_host(:surface) end"
        " as host from platform.own_tenant()"
    )
    row = (await scope.db.execute(query, {"surface": surface, "host": host})).one()
    return scope.settings.url_of(row.host or scope.settings.host_of(surface, row.slug), path)


@dataclass(frozen=True, slots=True)
class StationKnock:
    """By brand and identity; without a brand by identity *and* key, since two brands may both own a `CP1`."""

    slug: str | None
    identity: str
    digests: tuple[bytes, ...] = ()


async def resolve_stations(database: Database, asked: Sequence[StationKnock]) -> list[StationRoute | None]:
    """The routes of many handshakes, in one look-up."""
    values = {
        "slugs": [one.slug for one in asked], "identities": [one.identity for one in asked],
        "digests": json.dumps([[digest.hex() for digest in one.digests] for one in asked]),
    }  # fmt: skip
    query = text(
        "select * from platform.resolve_stations(cast(:slugs as text[]), cast(:identities as text[]),"
        " cast(:digests as jsonb))"
    )
    found: list[StationRoute | None] = [None] * len(asked)
    async with database.anonymous() as db:
        for row in (await db.execute(query, values)).all():
            found[row.n - 1] = StationRoute(
                row.tenant_id, row.slug, row.station_id, row.identity, tuple(row.digests), row.attributes,
                row.status,
            )  # fmt: skip
    return found


async def resolve_api_key(database: Database, digests: Iterable[bytes]) -> tuple[UUID, UUID] | None:
    """(tenant, api key) of the first digest that is known."""
    async with database.anonymous() as db:
        for digest in digests:
            row = (
                await db.execute(text("select * from platform.resolve_api_key(:key)"), {"key": digest.hex()})
            ).first()
            if row is not None:
                return row.tenant_id, row.object_id
    return None


async def report_unclaimed(database: Database, slug: str, identity: str, remote: str, reason: str) -> None:
    """Puts a stranger into the pool that staff see. The function caps the pool."""
    async with database.anonymous() as db:
        await db.execute(
            text("select platform.report_unclaimed(:slug, :identity, :remote, :reason)"),
            {"slug": slug[:64], "identity": identity[:64], "remote": remote[:64], "reason": reason[:64]},
        )
