"""The tests' people and stations: the demo's two companies (`app/demo/cast.py`), small enough for a unit test.

Nordlicht is complete (seller data, tariff, cards); Solmark is the other tenant, to whom nothing may leak.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app.access import service as access
from app.brands.models import TenantProfile
from app.demo.cast import NORDLICHT, PLATES, SOLMARK, Company, Site
from app.stations import service as stations
from app.tariffs import service as tariffs
from tenants.database import Database
from tenants.scope import Actor, Scope

STAFF = Actor(kind="staff", name="Anke Petersen", role="owner")


@dataclass(slots=True)
class Cast:
    """One company as far as a test of verbs needs it: a site, a station of two EVSEs, a card, a tariff."""

    tenant_id: UUID
    company: Company
    location_id: UUID
    station_id: UUID
    evse_ids: list[UUID]
    card: str
    card_id: UUID
    password: str


async def hire(
    database: Database, company: Company = NORDLICHT, *, tariff: dict[str, Any] | None = None, with_tariff: bool = True,
    with_seller: bool = True,
) -> Cast:  # fmt: skip
    """Sets the company up with ordinary verbs. `tariff` replaces its default one."""
    async with database.platform_scope(Actor.cli(), "test") as scope:
        statement = text("insert into platform.tenant (slug, name) values (:slug, :name) returning id")
        values = {"slug": company.slug, "name": company.name}
        tenant_id = (await scope.db.execute(statement, values)).scalar_one()
    async with database.scope(tenant_id, STAFF) as scope:
        return await _set_up(
            scope, tenant_id, company, tariff, with_tariff=with_tariff, with_seller=with_seller
        )


async def _set_up(
    scope: Scope, tenant_id: UUID, company: Company, tariff: dict[str, Any] | None, *, with_tariff: bool,
    with_seller: bool,
) -> Cast:  # fmt: skip
    seller = company.profile if with_seller else {}
    scope.db.add(TenantProfile(
        name=company.name, country=company.country, currency=company.currency, time_zone=company.time_zone, **seller,
    ))  # fmt: skip
    location = await stations.create_location(scope, **site(company.sites[0]))
    new = await stations.create_station(
        scope, identity="CP1", location_id=location.id,
        evses=[{"evse_no": n, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]} for n in (1, 2)],
    )  # fmt: skip
    if with_tariff:
        await tariffs.create_tariff(scope, tariff or company.tariffs[0][0], {"default": True})
    card = company.cards[0]
    token = await access.create_id_token(scope, value=card.value, label=card.label)
    station = await stations.get_station(scope, new.station.id)
    return Cast(
        tenant_id, company, location.id, station.id, [evse.id for evse in station.evses], card.value, token.id,
        new.password or "",
    )  # fmt: skip


def site(one: Site) -> dict[str, Any]:
    names = ("name", "address", "city", "postal_code", "latitude", "longitude", "country", "time_zone")
    return {name: getattr(one, name) for name in names}


__all__ = ["NORDLICHT", "SOLMARK", "STAFF", "Cast", "hire", "site"]
