"""The console: the platform's staff, on `console.<domain>`. No tenant stands behind a request here."""

from typing import Any

import jinja2
from litestar import Litestar, Response, get
from litestar.di import Provide

from app.brands import service as brands
from app.kernel.slices import gather
from app.surfaces import appearance, unclaimed
from app.surfaces.assembly import css_answer, nav_of, routes_of, surface


@get("/brand/{file_name:str}", opt={"public": True})
async def brand_css(file_name: str) -> Response[str]:
    return css_answer(await brands.find_css(None, file_name.removesuffix(".css")))


def no_tenant() -> None:
    """A console handler that asks for `tenant_scope` is a mistake that start-up finds."""
    raise RuntimeError("the console has no tenant scope")


def build(templates: jinja2.Environment) -> Litestar:
    modules = [appearance, unclaimed, *gather("console")]
    routes: list[Any] = [brand_css, *routes_of(modules)]
    dependencies = {"tenant_scope": Provide(no_tenant, sync_to_thread=False)}
    return surface("console", routes, templates=templates, nav=nav_of(modules), dependencies=dependencies)
