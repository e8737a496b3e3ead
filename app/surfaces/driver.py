"""Drivers, on a brand's own host: where it has chargers, and what one of them costs now."""

from datetime import datetime
from typing import Any

import jinja2
from litestar import Litestar, Request, Response, get
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.brands import service as brands
from app.charging.plausibility import rated_power_w
from app.kernel.errors import NotFound
from app.kernel.slices import gather
from app.kernel.web import page
from app.stations.models import EVSE, ChargingStation, Connector, Location
from app.stations.status import evse_status
from app.surfaces.assembly import css_answer, nav_of, routes_of, surface
from app.tariffs import service as tariffs
from app.tariffs.explain import explain
from app.tariffs.ocpi_tariff import read_tariff
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]


@get("/", opt={"public": True})
async def show_locations(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    profile = await brands.get_profile(tenant_scope)
    return page(
        request, tenant_scope, "surfaces/driver_locations.html", title=profile.name, profile=profile, plug=plug,
        locations=await _locations(tenant_scope),
    )  # fmt: skip


async def _locations(scope: Scope) -> list[dict[str, Any]]:
    query = (
        select(Location)
        .options(
            selectinload(Location.stations)
            .selectinload(ChargingStation.evses)
            .options(selectinload(EVSE.connectors), selectinload(EVSE.live)),
            selectinload(Location.stations).selectinload(ChargingStation.connection),
        )
        .order_by(func.lower(Location.name), Location.id)
    )
    shown = []
    for location in (await scope.db.execute(query)).scalars():
        places = [
            _place(station, evse)
            for station in sorted(location.stations, key=lambda one: (one.name or one.ocpp_identity, one.id))
            if station.retired_at is None and station.registration == "accepted"
            for evse in station.evses
        ]
        if places:
            free = sum(place["status"] == "AVAILABLE" for place in places)
            shown.append({"location": location, "places": places, "free_count": free})
    return shown


def _place(station: ChargingStation, evse: EVSE) -> dict[str, Any]:
    connection = station.connection
    status = evse_status(
        (connector.status for connector in evse.connectors), evse.live.activity if evse.live else "idle",
        is_online=bool(connection and connection.is_online), has_connected=connection is not None,
        is_retired=station.retired_at is not None,
    )  # fmt: skip
    return {
        "code": evse.code, "evse_no": evse.evse_no, "station": station.name or station.ocpp_identity, "status": status,
        "connectors": evse.connectors, "last_seen_at": connection.last_seen_at if connection else None,
    }  # fmt: skip


@get("/c/{code:str}", opt={"public": True})
async def show_place(request: AnyRequest, tenant_scope: Scope, code: str) -> Response[str]:
    """What a QR sticker opens. The code is read off a sticker by hand too: its case does not matter."""
    query = (
        select(EVSE)
        .where(EVSE.code == code.upper())
        .options(
            selectinload(EVSE.connectors), selectinload(EVSE.live),
            selectinload(EVSE.station).options(
                selectinload(ChargingStation.location), selectinload(ChargingStation.connection)
            ),
        )
    )  # fmt: skip
    evse = (await tenant_scope.db.execute(query)).scalar_one_or_none()
    if evse is None or evse.station.retired_at is not None or evse.station.registration == "rejected":
        raise NotFound("charger")
    location = evse.station.location
    return page(
        request, tenant_scope, "surfaces/driver_place.html", title=f"{evse.station.name or evse.station.ocpp_identity}",
        place=_place(evse.station, evse), location=location, plug=plug,
        prices=await _prices(tenant_scope, evse, location, tenant_scope.now),
        profile=await brands.get_profile(tenant_scope),
    )  # fmt: skip


async def _prices(scope: Scope, evse: EVSE, location: Location | None, at: datetime) -> list[str]:
    """In the order the law wants; empty where no tariff applies (and a start would be refused)."""
    if location is not None and location.is_free_vend:
        return ["Free"]
    version = await tariffs.find_tariff_for(
        scope, evse_id=evse.id, location_id=location.id if location else None, driver_group_id=None, at=at
    )
    return explain(read_tariff(version.ocpi)) if version is not None else []


@get("/brand/{file_name:str}", opt={"public": True})
async def brand_css(tenant_scope: Scope, file_name: str) -> Response[str]:
    return css_answer(await brands.find_css(tenant_scope, file_name.removesuffix(".css")))


def build(templates: jinja2.Environment) -> Litestar:
    modules = gather("driver")
    routes: list[Any] = [show_locations, show_place, brand_css, *routes_of(modules)]
    return surface("driver", routes, templates=templates, nav=nav_of(modules))


_PLUGS = {
    "IEC_62196_T1": "Type 1", "IEC_62196_T2": "Type 2", "IEC_62196_T1_COMBO": "CCS 1", "IEC_62196_T2_COMBO": "CCS",
    "CHADEMO": "CHAdeMO", "DOMESTIC_F": "Schuko", "TESLA_S": "NACS",
}  # fmt: skip


def plug(connector: Connector) -> str:
    """`CCS, 150 kW`: what a driver looks for."""
    name = _PLUGS.get(connector.standard or "", "Plug")
    power_w = rated_power_w(connector)
    return f"{name}, {round(power_w / 1000)} kW" if power_w else name
