"""The portal: a CPO's staff, on `portal-{slug}.<domain>`."""

from functools import cache
from typing import Any

from litestar import Litestar

from app.kernel.slices import find_module, gather
from app.surfaces import appearance, disputes, first_steps
from app.surfaces.assembly import brand_file, nav_of, routes_of, surface


@cache
def build() -> Litestar:
    modules = [appearance, first_steps, disputes, *find_module("app.surfaces.overview"), *gather("portal")]
    routes: list[Any] = [brand_file, *routes_of(modules)]
    return surface("portal", routes, nav=nav_of(modules))
