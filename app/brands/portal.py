"""Portal pages of brands: the settings, and the brand's own domains."""

from typing import Any

from litestar import Request, Response, get, post

from app.brands import domains, service
from app.brands.api import FIELDS
from app.brands.models import Domain
from app.kernel.errors import Invalid, Refused, TooMany
from app.kernel.ids import parse_id, public_id
from app.kernel.web import NavItem, form_again, page, read_form, redirect, visit_of
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Settings", "/settings", "settings", "settings.view", order=90),
    NavItem("Domains", "/domains", "globe", "settings.view", order=91),
]


@get("/settings", opt={"permission": "settings.view"})
async def show_settings(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    profile = await service.get_profile(tenant_scope)
    return page(
        request, tenant_scope, "brands/settings.html", title="Settings", errors={}, alert=None, profile=profile,
        values={name: getattr(profile, name) for name in FIELDS},
    )  # fmt: skip


@post("/settings", opt={"permission": "settings.manage"})
async def change_settings(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    profile = await service.get_profile(tenant_scope)
    changes = {name: form.text(name) for name in FIELDS if name in form}
    try:
        await service.update_profile(tenant_scope, changes)
    except Invalid as error:
        return form_again(
            request, tenant_scope, "brands/settings.html", error, form, title="Settings", profile=profile
        )
    return redirect(request, "/settings", flash="The settings are saved.")


# -- own domains -------------------------------------------------------------------------------------------------------

STEPS = ("Claimed", "Proven yours", "Leads here")
_STEP = {"pending": 1, "verified": 2, "active": 3, "suspended": 1}


@get("/domains", opt={"permission": "settings.view"})
async def show_domains(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    return page(
        request, tenant_scope, "brands/domains.html", title="Domains", values={}, errors={}, alert=None,
        **await _domains(tenant_scope),
    )  # fmt: skip


async def _domains(scope: Scope) -> dict[str, Any]:
    slug, _name, _status = await service.own_tenant(scope)
    settings = scope.settings
    hosts = {surface: domains.target_of(settings, slug, surface) for surface in domains.SURFACES}
    rows = [_row(scope, domain, hosts[domain.surface]) for domain in await domains.list_domains(scope)]
    return {
        "rows": [row for row in rows if row["domain"].state != "released"], "hosts": hosts,
        "released": [row["domain"] for row in rows if row["domain"].state == "released"],
        "names": {"driver": "Drivers", "portal": "Staff"},
    }  # fmt: skip


def _row(scope: Scope, domain: Domain, target: str) -> dict[str, Any]:
    reached = _STEP.get(domain.state, 0)
    kind, sentence = domains.headline(domain)
    return {
        "id": public_id("domain", domain.id), "domain": domain, "spoken": domains.spoken(domain.host), "kind": kind,
        "sentence": sentence, "records": domains.records(domain, target),
        "url": scope.settings.url_of(domain.host) if domain.state == "active" else None,
        "steps": [
            {"label": label, "state": "done" if no < reached else "current" if no == reached else "todo"}
            for no, label in enumerate(STEPS)
        ],
    }  # fmt: skip


@post("/domains", opt={"permission": "settings.manage"})
async def claim_domain(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        domain = await domains.claim(tenant_scope, form.text("host"), form.text("surface"))
    except (Invalid, Refused) as error:
        context = await _domains(tenant_scope)
        return form_again(
            request, tenant_scope, "brands/domains.html", error, form, title="Domains", **context
        )
    return redirect(request, "/domains", flash=f"{domain.host} is claimed. Now set its two records.")


@post("/domains/{domain_id:str}/checks", opt={"permission": "settings.manage"})
async def check_domain(request: AnyRequest, domain_id: str) -> Response[Any]:
    """No transaction is open while name servers are asked."""
    visit = visit_of(request)
    try:
        domain = await domains.check(visit.database, visit.tenant, visit.actor, parse_id("domain", domain_id))
    except (Refused, TooMany) as error:
        return redirect(request, "/domains", flash=error.message, kind="error")
    kind, sentence = domains.headline(domain)
    return redirect(request, "/domains", flash=f"{domain.host}: {sentence}", kind=kind)


@post("/domains/{domain_id:str}/releases", opt={"permission": "settings.manage"})
async def release_domain(request: AnyRequest, tenant_scope: Scope, domain_id: str) -> Response[Any]:
    domain = await domains.release(tenant_scope, parse_id("domain", domain_id))
    return redirect(request, "/domains", flash=f"{domain.host} is released and no longer served.")


routes = [show_settings, change_settings, show_domains, claim_domain, check_domain, release_domain]
