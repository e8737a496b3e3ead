"""The portal: a CPO's staff, on `portal-{slug}.<domain>`."""

from typing import Any

import jinja2
from litestar import Litestar

from app.kernel.slices import find_module, gather
from app.surfaces import appearance, first_steps
from app.surfaces.assembly import brand_file, nav_of, routes_of, surface


def build(templates: jinja2.Environment) -> Litestar:
    modules = [appearance, first_steps, *find_module("app.surfaces.overview"), *gather("portal")]
    routes: list[Any] = [brand_file, *routes_of(modules)]
    return surface("portal", routes, templates=templates, nav=nav_of(modules))
