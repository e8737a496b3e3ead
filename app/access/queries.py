"""Screen reads of access."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, func, literal, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, selectinload

from app.access.models import Driver, DriverGroup, DriverGroupLocation, IdToken, LocalList, LocalListGroup
from app.access.service import list_driver_groups
from app.kernel.errors import NotFound
from app.stations.models import ChargingStation, Location
from tenants.scope import Scope


@dataclass(frozen=True, slots=True)
class Filter:
    """`q` is part of a label, of a driver's name, or the last digits of a value: the rest of it is sealed."""

    q: str = ""
    status: str = ""


async def list_id_tokens(
    scope: Scope, wanted: Filter, *, after: UUID | None = None, limit: int = 50
) -> list[IdToken]:
    """Newest first; the one-off tokens of remote starts are nobody's card and not among them."""
    query = (
        select(IdToken)
        .where(IdToken.is_single_use.is_(False))
        .options(selectinload(IdToken.driver), selectinload(IdToken.driver_group))
        .order_by(IdToken.id.desc())
        .limit(limit)
    )
    if wanted.status:
        query = query.where(IdToken.status == wanted.status)
    if wanted.q:
        drivers = select(Driver.id).where(Driver.name.icontains(wanted.q, autoescape=True))
        query = query.where(
            or_(
                IdToken.label.icontains(wanted.q, autoescape=True),
                _ends_with(wanted.q),
                IdToken.driver_id.in_(drivers),
            )
        )
    if after is not None:
        query = query.where(IdToken.id < after)
    return list((await scope.db.execute(query)).scalars())


async def list_id_tokens_of(scope: Scope, driver_id: UUID) -> list[IdToken]:
    query = select(IdToken).where(IdToken.driver_id == driver_id).order_by(IdToken.id)
    return list((await scope.db.execute(query)).scalars())


async def list_drivers(
    scope: Scope, q: str = "", *, after: UUID | None = None, limit: int = 50
) -> list[Driver]:
    """By name. `q` is part of the name or the mail address, or ends in the last four of a card as it is shown."""
    query = select(Driver).where(Driver.deleted_at.is_(None)).order_by(Driver.name, Driver.id).limit(limit)
    if q:
        found = Driver.name.icontains(q, autoescape=True) | Driver.email.icontains(q, autoescape=True)
        if len(q) >= 4:  # fewer are part of many a card's and of many a name
            cards = select(IdToken.driver_id).where(
                IdToken.driver_id.is_not(None), IdToken.is_single_use.is_(False), _ends_with(q)
            )
            found |= Driver.id.in_(cards)
        query = query.where(found)
    if after is not None:
        last = await scope.db.get(Driver, (scope.tenant_id, after))
        if last is None:
            raise NotFound("driver")
        query = query.where(tuple_(Driver.name, Driver.id) > tuple_(literal(last.name), literal(last.id)))
    return list((await scope.db.execute(query)).scalars())


def _ends_with(q: str) -> ColumnElement[bool]:
    """The last digits of a card, however many signs were copied with them."""
    return func.right(IdToken.masked, 4).icontains(q[-4:], autoescape=True)


async def tokens_of_drivers(scope: Scope, driver_ids: list[UUID]) -> dict[UUID, int]:
    query = (
        select(IdToken.driver_id, func.count())
        .where(IdToken.driver_id.in_(driver_ids))
        .group_by(IdToken.driver_id)
    )
    return {driver_id: count for driver_id, count in (await scope.db.execute(query)).all() if driver_id}


@dataclass(frozen=True, slots=True)
class GroupLine:
    group: DriverGroup
    driver_count: int
    token_count: int
    site_names: list[str]


async def list_groups(scope: Scope) -> list[GroupLine]:
    groups = await list_driver_groups(scope)
    drivers = await _counts(scope, Driver.driver_group_id)
    tokens = await _counts(scope, IdToken.driver_group_id)
    sites: dict[UUID, list[str]] = {}
    query = (
        select(DriverGroupLocation.driver_group_id, Location.name)
        .join(Location, Location.id == DriverGroupLocation.location_id)
        .order_by(Location.name)
    )
    for group_id, name in (await scope.db.execute(query)).all():
        sites.setdefault(group_id, []).append(name)
    return [
        GroupLine(one, drivers.get(one.id, 0), tokens.get(one.id, 0), sites.get(one.id, [])) for one in groups
    ]


async def _counts(scope: Scope, column: InstrumentedAttribute[UUID | None]) -> dict[UUID, int]:
    query = select(column, func.count()).where(column.is_not(None)).group_by(column)
    return {key: count for key, count in (await scope.db.execute(query)).all() if key}


async def locations_of_group(scope: Scope, driver_group_id: UUID) -> set[UUID]:
    query = select(DriverGroupLocation.location_id).where(
        DriverGroupLocation.driver_group_id == driver_group_id
    )
    return set((await scope.db.execute(query)).scalars())


@dataclass(frozen=True, slots=True)
class ListLine:
    station: ChargingStation
    row: LocalList | None
    group_names: list[str]


async def list_local_lists(scope: Scope) -> list[ListLine]:
    """Every station that is not retired, with the list it has."""
    query = (
        select(ChargingStation, LocalList)
        .outerjoin(LocalList, LocalList.station_id == ChargingStation.id)
        .where(ChargingStation.retired_at.is_(None))
        .options(selectinload(ChargingStation.location), selectinload(ChargingStation.connection))
        .order_by(ChargingStation.ocpp_identity)
    )
    names: dict[UUID, list[str]] = {}
    groups = (
        select(LocalListGroup.local_list_id, DriverGroup.name)
        .join(DriverGroup, DriverGroup.id == LocalListGroup.driver_group_id)
        .order_by(DriverGroup.name)
    )
    for list_id, name in (await scope.db.execute(groups)).all():
        names.setdefault(list_id, []).append(name)
    return [
        ListLine(station, row, names.get(row.id, []) if row else [])
        for station, row in (await scope.db.execute(query)).all()
    ]
