"""The portal: a CPO's staff, on `portal-{slug}.<domain>`."""

from typing import Any

import jinja2
from litestar import Litestar, Response, get

from app.brands import service as brands
from app.kernel.slices import find_module, gather
from app.surfaces import appearance
from app.surfaces.assembly import css_answer, nav_of, routes_of, surface
from tenants.scope import Scope


@get("/brand/{file_name:str}", opt={"public": True})
async def brand_css(tenant_scope: Scope, file_name: str) -> Response[str]:
    return css_answer(await brands.find_css(tenant_scope, file_name.removesuffix(".css")))


def build(templates: jinja2.Environment) -> Litestar:
    modules = [appearance, *find_module("app.surfaces.overview"), *gather("portal")]
    routes: list[Any] = [brand_css, *routes_of(modules)]
    return surface("portal", routes, templates=templates, nav=nav_of(modules))
