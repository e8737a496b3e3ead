"""The console: the platform's staff, on `console.<domain>`. No tenant stands behind a request here."""

from functools import cache
from typing import Any

from litestar import Litestar
from litestar.di import Provide

from app.kernel.slices import gather
from app.surfaces import appearance, selftest, unclaimed
from app.surfaces.assembly import nav_of, platform_file, routes_of, surface


def no_tenant() -> None:
    """A console handler that asks for `tenant_scope` is a mistake that start-up finds."""
    raise RuntimeError("the console has no tenant scope")


@cache
def build() -> Litestar:
    modules = [appearance, unclaimed, selftest, *gather("console")]
    routes: list[Any] = [platform_file, *routes_of(modules)]
    dependencies = {"tenant_scope": Provide(no_tenant, sync_to_thread=False)}
    return surface("console", routes, nav=nav_of(modules), dependencies=dependencies)
