"""The portal: a CPO's staff, on `portal-{slug}.<domain>`."""

from functools import cache
from typing import Any

from litestar import Litestar

from app.kernel.settings import Settings
from app.kernel.slices import find_module, gather
from app.surfaces import appearance, disputes, first_steps
from app.surfaces.assembly import brand_file, nav_of, routes_of, surface
from app.surfaces.headers import provider_policy

NAV_GROUPS = ((49, "Money"), (70, "Administration"))


@cache
def build() -> Litestar:
    modules = [appearance, first_steps, disputes, *find_module("app.surfaces.overview"), *gather("portal")]
    routes: list[Any] = [brand_file, *routes_of(modules)]
    return surface("portal", routes, nav=nav_of(modules), nav_groups=NAV_GROUPS)


def portal_policy(settings: Settings) -> str:
    """The onboarding's form ends at the provider's pages."""
    return provider_policy(settings, "https://connect.stripe.com")
