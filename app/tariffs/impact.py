"""Where a tariff holds for guests, and where it would once it was assigned as asked; what the law says of that."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.kernel import tax
from app.stations.models import EVSE, ChargingStation, Connector, Location
from app.tariffs import afir, ocpi_tariff, service
from app.tariffs.models import Tariff, TariffAssignment
from tenants.scope import Scope

SHOWN = 12


@dataclass(frozen=True, slots=True)
class Point:
    """An EVSE; `country` as ISO 3166 alpha-2, of its site or the brand's own."""

    id: UUID
    name: str
    site: str
    location_id: UUID | None
    country: str
    power_w: int


@dataclass(frozen=True, slots=True)
class Place:
    """A site: the EVSEs where the tariff holds, and how many others there follow another one."""

    name: str
    points: list[Point]
    others_count: int

    @property
    def shown(self) -> str:
        return _listed(self.points)


@dataclass(frozen=True, slots=True)
class Breach:
    """What the law does not allow, and at which EVSEs."""

    fault: str
    points: list[Point]

    @property
    def shown(self) -> str:
        return _listed(self.points)


def _listed(points: Sequence[Point]) -> str:
    more = len(points) - SHOWN
    return ", ".join(one.name for one in points[:SHOWN]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Impact:
    places: list[Place] = field(default_factory=list)

    @property
    def points(self) -> list[Point]:
        return [point for place in self.places for point in place.points]

    @property
    def is_in_union(self) -> bool:
        return any(point.country in afir.MEMBERS for point in self.points)

    def breaches(self, tariff: ocpi_tariff.Tariff) -> list[Breach]:
        """Of AFIR Article 5(4), at chargers in the Union. A charger whose power is not known is taken for slow."""
        found: dict[str, list[Point]] = defaultdict(list)
        for point in self.points:
            if point.country in afir.MEMBERS:
                for fault in afir.find_faults(tariff, point.power_w):
                    found[fault].append(point)
        return [Breach(fault, points) for fault, points in found.items()]


async def find_impact(
    scope: Scope, tariff_ids: Sequence[UUID], target: Mapping[str, Any] | None = None
) -> dict[UUID, Impact]:
    """Of each, for a guest who begins now: EVSE before site before default, the newest valid wins. `target` stands in
    for where the one tariff is assigned, as if it were saved so."""
    assigned = await _assignments(scope)
    if target is not None:
        (tariff_id,) = tariff_ids
        kind, target_id = service.read_target(target)
        assigned = [one for one in assigned if one[0] != tariff_id]
        assigned += [(tariff_id, kind, target_id)] if kind else []
    holders: dict[tuple[str, UUID | None], UUID] = {(kind, where): one for one, kind, where in assigned}
    found: dict[UUID, dict[str, list[Point]]] = {one: defaultdict(list) for one in tariff_ids}
    at_site: dict[str, int] = defaultdict(int)
    for point in await _points(scope):
        at_site[point.site] += 1
        keys = (("evse", point.id), ("location", point.location_id), ("default", None))
        holder = next((holders[key] for key in keys if key in holders), None)
        if holder is not None and holder in found:
            found[holder][point.site].append(point)
    return {
        one: Impact([Place(site, points, at_site[site] - len(points)) for site, points in sites.items()])
        for one, sites in found.items()
    }


async def _assignments(scope: Scope) -> list[tuple[UUID, str, UUID | None]]:
    """(tariff, target, what) of those that are valid now, the newest last; groups are no guests."""
    query = (
        select(TariffAssignment)
        .join(Tariff, Tariff.id == TariffAssignment.tariff_id)
        .where(Tariff.retired_at.is_(None), TariffAssignment.target != "driver_group")
        .options(selectinload(TariffAssignment.tariff).selectinload(Tariff.versions))
        .order_by(TariffAssignment.assigned_at, TariffAssignment.id)
    )
    rows = (await scope.db.execute(query)).scalars().all()
    tariffs = {row.tariff_id: row.tariff for row in rows}
    valid = {
        key for key, one in tariffs.items() if service.valid_version(one.versions, scope.now) is not None
    }
    return [
        (row.tariff_id, row.target, row.evse_id or row.location_id) for row in rows if row.tariff_id in valid
    ]


async def _points(scope: Scope) -> list[Point]:
    own_country, _zone = await service.tax_place(scope, None)
    query = (
        select(
            EVSE.id, EVSE.evse_no, ChargingStation.ocpp_identity, Location.id, Location.name, Location.country,
            func.max(Connector.max_power_w),
        )
        .join(ChargingStation, ChargingStation.id == EVSE.station_id)
        .outerjoin(Location, Location.id == ChargingStation.location_id)
        .outerjoin(Connector, Connector.evse_id == EVSE.id)
        .where(ChargingStation.retired_at.is_(None), func.coalesce(Location.is_free_vend, False).is_(False))
        .group_by(EVSE.id, EVSE.evse_no, ChargingStation.ocpp_identity, Location.id, Location.name, Location.country)
        .order_by(Location.name.nulls_last(), ChargingStation.ocpp_identity, EVSE.evse_no)
    )  # fmt: skip
    return [
        Point(
            id=key, name=f"EVSE {number} of {identity}", site=site or "No site", location_id=location_id,
            country=tax.alpha_2(country or own_country), power_w=power_w or 0,
        )
        for key, number, identity, location_id, site, country, power_w in await scope.db.execute(query)
    ]  # fmt: skip
