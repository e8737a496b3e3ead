"""Console page: stations that knocked and were not known, and giving one to a brand. It reads
brands and stations both."""

from typing import Any

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.brands.service import find_tenant, list_tenants
from app.kernel.errors import Invalid, LiveryError, NotFound, Refused
from app.kernel.web import NavItem, form_again, page, platform, read_form, visit_of
from app.stations import service as stations
from tenants.models import UnclaimedStation

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Unclaimed stations", "/unclaimed-stations", "plug-zap", "unclaimed.view", order=20)]
SHOWN = 200


async def _context(request: AnyRequest) -> dict[str, Any]:
    query = select(UnclaimedStation).order_by(UnclaimedStation.last_seen_at.desc()).limit(SHOWN)
    async with platform(request, "look at unclaimed stations") as scope:
        found = (await scope.db.execute(query)).scalars().all()
    visit = visit_of(request)
    return {"stations": found, "tenants": await list_tenants(visit.database, visit.actor)}


@get("/unclaimed-stations", opt={"permission": "unclaimed.view"})
async def show_unclaimed(request: AnyRequest) -> Response[Any]:
    return page(
        request, None, "surfaces/unclaimed.html", title="Unclaimed stations", told=None, alert=None, errors={},
        values={}, **await _context(request),
    )  # fmt: skip


@post("/unclaimed-stations", opt={"permission": "unclaimed.manage"})
async def assign_station(request: AnyRequest) -> Response[Any]:
    """Creates the station in that tenant. It must use the new address and password, which stand on this page once."""
    form = await read_form(request)
    try:
        told = await _assign(request, form.text("slug"), form.text("identity"))
    except (Invalid, Refused, NotFound) as error:
        shown = LiveryError(error.code, error.message, faults=error.faults)
        shown.status = 409 if isinstance(error, NotFound) else error.status
        context = await _context(request)
        return form_again(
            request,
            None,
            "surfaces/unclaimed.html",
            shown,
            form,
            title="Unclaimed stations",
            told=None,
            **context,
        )
    return page(
        request, None, "surfaces/unclaimed.html", title="Unclaimed stations", told=told, alert=None, errors={},
        values={}, **await _context(request),
    )  # fmt: skip


async def _assign(request: AnyRequest, slug: str, identity: str) -> dict[str, Any]:
    visit = visit_of(request)
    tenant_id = await find_tenant(visit.database, visit.actor, slug)
    reason = f"assign unclaimed station {identity}"
    async with platform(request, reason, tenant_id=tenant_id) as scope, scope.tenant_scope() as own:
        made = await stations.create_station(own, identity=identity)
        return {"slug": slug, "identity": identity, "ocpp_url": made.ocpp_url, "password": made.password}


routes = [show_unclaimed, assign_station]
