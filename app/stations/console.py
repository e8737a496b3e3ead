"""Console page of stations: which gateway processes live and what each holds. Counts only, no tenant's rows."""

from collections import Counter
from typing import Any
from uuid import UUID

from litestar import Request, Response, get
from sqlalchemy import select

from app.kernel.web import NavItem, fragment, page, platform, visit_of
from app.stations import nodes
from tenants.models import Tenant, TenantStats
from tenants.redis import RedisError

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Gateway", "/gateways", "server", "gateways.view", order=25)]
SHOWN = 8


@get("/gateways", opt={"permission": "gateways.view"})
async def show_gateways(request: AnyRequest) -> Response[Any]:
    return page(request, None, "stations/gateways.html", title="Gateway", **await _shown(request))


@get("/gateways/now", opt={"permission": "gateways.view"})
async def refresh_gateways(request: AnyRequest) -> Response[Any]:
    """The page's live part, which asks for itself every five seconds."""
    html = fragment(request, "stations/_gateways.html", **await _shown(request))
    return Response(html, media_type="text/html")


async def _shown(request: AnyRequest) -> dict[str, Any]:
    redis = visit_of(request).database.redis
    try:
        found, is_away = (await nodes.list_nodes(redis), False) if redis is not None else ([], True)
    except (RedisError, OSError):
        found, is_away = [], True
    names, links, lost_count = await _from_tenants(request)
    alive = {node.name for node in found if node.has_lease}
    versions = Counter[str]()
    for node in found:
        versions.update(node.versions if node.has_lease else {})
    return {
        "is_away": is_away, "lost_count": lost_count, "alive_count": len(alive),
        "station_count": sum(node.stations for node in found if node.has_lease),
        "orphan_count": 0 if is_away else sum(count for node, count in links.items() if node not in alive),
        "versions": [(name.replace("ocpp", "OCPP "), count) for name, count in versions.most_common()],
        "nodes": [(node, _largest(node, names), _busiest(node, names)) for node in found],
        "per_s": sum(node.pace.get("messages_per_s", 0) for node in found if node.has_lease),
    }  # fmt: skip


def _largest(node: nodes.Node, names: dict[UUID, str]) -> list[tuple[str, int]]:
    """The largest tenants of a node, and all others as one line."""
    rows = [(names.get(UUID(ref), "unknown tenant"), count) for ref, count in node.tenants.items()]
    shown = rows[:SHOWN]
    others = node.stations - sum(count for _name, count in shown)
    return [*shown, *([("all others", others)] if others else [])]


def _busiest(node: nodes.Node, names: dict[UUID, str]) -> list[tuple[str, float]]:
    rows = [(names.get(UUID(ref), "unknown tenant"), round(rate, 1)) for ref, rate in node.busiest.items()]
    return [row for row in rows if row[1]][:SHOWN]


async def _from_tenants(request: AnyRequest) -> tuple[dict[UUID, str], Counter[str], int]:
    """Names, then what the tenants' own jobs last counted: stations by node, and stations that lost theirs."""
    query = select(Tenant, TenantStats).outerjoin(TenantStats, TenantStats.tenant_id == Tenant.id)
    names: dict[UUID, str] = {}
    links, lost_count = Counter[str](), 0
    async with platform(request, "look at the gateway") as scope:
        for tenant, stats in (await scope.db.execute(query)).all():
            names[tenant.id] = tenant.name
            if stats is not None:
                links.update(stats.figures.get("links") or {})
                lost_count += stats.figures.get("lost_count", 0)
    return names, links, lost_count


routes = [show_gateways, refresh_gateways]
