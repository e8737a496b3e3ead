"""Console pages of brands: tenants, their suspension and their return; everybody's own domains."""

from typing import Any

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.brands import domains, service
from app.identity.service import login_url
from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, NavItem, form_again, page, platform, read_form, redirect, visit_of
from tenants.models import Tenant, TenantRoute

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Tenants", "/", "building-2", "tenants.view", order=10),
    NavItem("Domains", "/domains", "globe", "domains.view", order=15),
]
DEFAULTS = {"country": "DE", "currency": "EUR", "time_zone": "Europe/Berlin"}


@get("/", opt={"permission": "tenants.view"})
async def list_tenants(request: AnyRequest) -> Response[Any]:
    return page(
        request, None, "brands/tenants.html", title="Tenants", values=DEFAULTS, errors={}, alert=None, told=None,
        **await _tenants(request),
    )  # fmt: skip


async def _tenants(request: AnyRequest) -> dict[str, Any]:
    visit = visit_of(request)
    settings = visit.database.settings
    lines = await service.list_tenants(visit.database, visit.actor)
    return {
        "tenants": [
            {"line": line, "portal": settings.url_of(settings.host_of("portal", line.slug)),
             "driver": settings.url_of(settings.host_of("driver", line.slug))}
            for line in lines
        ],
    }  # fmt: skip


@post("/tenants", opt={"permission": "tenants.manage"})
async def create_tenant(request: AnyRequest) -> Response[Any]:
    """The first owner's login link stands on this one page; it goes out by mail too."""
    form, visit = await read_form(request), visit_of(request)
    try:
        made = await service.create_tenant(visit.database, visit.actor, **_fields(form))
    except (Invalid, Refused) as error:
        context = await _tenants(request)
        return form_again(
            request, None, "brands/tenants.html", error, form, title="Tenants", told=None, **context
        )
    async with visit.database.scope(made.tenant_id, visit.actor) as scope:
        link = await login_url(scope, made.login_secret)
    return page(
        request, None, "brands/tenants.html", title="Tenants", values=DEFAULTS, errors={}, alert=None,
        told={"slug": made.slug, "email": form.text("admin_email"), "link": link}, **await _tenants(request),
    )  # fmt: skip


def _fields(form: Form) -> dict[str, str]:
    names = ("slug", "name", "country", "currency", "time_zone", "admin_email")
    return {name: form.text(name) for name in names}


@post("/tenants/{slug:str}/suspensions", opt={"permission": "tenants.manage"})
async def suspend_tenant(request: AnyRequest, slug: str) -> Response[Any]:
    visit, reason = visit_of(request), (await read_form(request)).reason()
    await service.suspend_tenant(visit.database, visit.actor, slug, reason)
    return redirect(request, "/", flash=f"{slug} is suspended: staff read only, nobody can start a session.")


@post("/tenants/{slug:str}/resumptions", opt={"permission": "tenants.manage"})
async def resume_tenant(request: AnyRequest, slug: str) -> Response[Any]:
    visit, reason = visit_of(request), (await read_form(request)).reason()
    await service.resume_tenant(visit.database, visit.actor, slug, reason)
    return redirect(request, "/", flash=f"{slug} is active again.")


@get("/domains", opt={"permission": "domains.view"})
async def list_domains(request: AnyRequest) -> Response[Any]:
    """What the tenants' own checks have told; failing ones first."""
    query = (
        select(TenantRoute, Tenant)
        .join(Tenant, Tenant.id == TenantRoute.tenant_id)
        .where(TenantRoute.kind == "domain")
        .order_by(TenantRoute.attributes["failing_since"].astext.nulls_last(), TenantRoute.name, Tenant.slug)
    )
    async with platform(request, "look at domains") as scope:
        rows = (await scope.db.execute(query)).all()
        return page(
            request, scope, "brands/all_domains.html", title="Domains",
            rows=[
                (route, tenant, route.attributes, public_id("domain", route.object_id))
                for route, tenant in rows if route.object_id
            ],
        )  # fmt: skip


@post("/tenants/{slug:str}/domains/{domain_id:str}/releases", opt={"permission": "domains.manage"})
async def release_domain(request: AnyRequest, slug: str, domain_id: str) -> Response[Any]:
    visit, reason = visit_of(request), (await read_form(request)).reason()
    tenant_id = await service.find_tenant(visit.database, visit.actor, slug)
    domain = await domains.release_for_platform(
        visit.database, visit.actor, tenant_id, parse_id("domain", domain_id), reason
    )
    return redirect(request, "/domains", flash=f"{domain.host} is released and no longer served.")


routes = [list_tenants, create_tenant, suspend_tenant, resume_tenant, list_domains, release_domain]
