"""Portal pages of brands: the settings."""

from typing import Any

from litestar import Request, Response, get, post

from app.brands import service
from app.brands.api import FIELDS
from app.kernel.errors import Invalid
from app.kernel.web import NavItem, form_again, page, read_form, redirect
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Settings", "/settings", "settings", "settings.view", order=90)]


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


routes = [show_settings, change_settings]
