"""Drivers, on a brand's own host: their pages lie in the slices (`app/charging/driver.py`), the look is served here."""

from functools import cache
from typing import Any

from litestar import Litestar

from app.kernel.settings import Settings
from app.kernel.slices import gather
from app.surfaces import appearance
from app.surfaces.assembly import brand_file, nav_of, routes_of, surface
from app.surfaces.headers import provider_policy


@cache
def build() -> Litestar:
    modules = gather("driver")
    routes: list[Any] = [brand_file, *appearance.driver_routes, *routes_of(modules)]
    return surface("driver", routes, nav=nav_of(modules))


def driver_policy(settings: Settings) -> str:
    """The start form ends at the provider's payment page: a browser follows only where the policy names it."""
    return provider_policy(settings, "https://checkout.stripe.com")
