"""REST: locations, stations, their OCPP log and commands (contract.md, "REST v1")."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from litestar import delete, get, patch, post
from sqlalchemy import select

from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, read_id, rfc3339
from app.stations import availability, commands, oddities_api, queries, service
from app.stations.models import EVSE, AvailabilityWish, ChargingStation, Location, OCPPFrame, StationCommand
from app.stations.redaction import mask_cards, mask_frame
from app.stations.status import evse_status
from tenants.scope import Scope

# --- locations ---------------------------------------------------------------------------------------------------

_LOCATION = ("name", "address", "city", "postal_code", "country", "time_zone", "is_free_vend")


@post(
    "/locations",
    status_code=201,
    opt={"permission": "stations.manage"},
    summary="Create a site",
    tags=["stations"],
)
async def create_location(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    return _location(await service.create_location(tenant_scope, **_location_in(data)))


@get("/locations", opt={"permission": "stations.view"}, summary="Sites, newest first", tags=["stations"])
async def list_locations(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(Location), Location.id, "location", limit, after)
    return found.answer([_location(row) for row in found.rows])


@get(
    "/locations/{location_id:str}", opt={"permission": "stations.view"}, summary="One site", tags=["stations"]
)
async def get_location(tenant_scope: Scope, location_id: str) -> dict[str, Any]:
    return _location(await service.get_location(tenant_scope, parse_id("location", location_id)))


@patch(
    "/locations/{location_id:str}",
    opt={"permission": "stations.manage"},
    summary="Change a site",
    tags=["stations"],
)
async def update_location(tenant_scope: Scope, location_id: str, data: dict[str, Any]) -> dict[str, Any]:
    changes = _location_in(data)
    return _location(
        await service.update_location(tenant_scope, parse_id("location", location_id), **changes)
    )


def _location_in(data: dict[str, Any]) -> dict[str, Any]:
    values = {name: data[name] for name in _LOCATION if name in data}
    coordinates = data.get("coordinates")
    if coordinates is not None:
        if not isinstance(coordinates, dict):
            raise Invalid.field("coordinates", "object", "coordinates hold latitude and longitude.")
        values |= {name: coordinates.get(name) for name in ("latitude", "longitude")}
    return values


def _location(row: Location) -> dict[str, Any]:
    where = None
    if row.latitude is not None and row.longitude is not None:
        where = {"latitude": str(row.latitude), "longitude": str(row.longitude)}
    return {
        "id": public_id("location", row.id), "coordinates": where, "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at), **{name: getattr(row, name) for name in _LOCATION},
    }  # fmt: skip


# --- stations ----------------------------------------------------------------------------------------------------


@post(
    "/stations", status_code=201, opt={"permission": "stations.manage"},
    summary="Create a station; its password is told once", tags=["stations"],
)  # fmt: skip
async def create_station(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    evses = data.get("evses") or []
    if not isinstance(evses, list) or not all(isinstance(evse, dict) for evse in evses):
        raise Invalid.field("evses", "list", "evses is a list of objects.")
    new = await service.create_station(
        tenant_scope, identity=str(data.get("identity") or ""), location_id=read_id("location", data, "location_id"),
        security_profile=data.get("security_profile"), name=str(data.get("name") or ""),
        registration=data.get("registration", "accepted"), evses=evses, password=data.get("password"),
    )  # fmt: skip
    shown = await _shown(tenant_scope, new.station.id)
    return shown | {"password": new.password}


@get("/stations", opt={"permission": "stations.view"}, summary="Stations, newest first", tags=["stations"])
async def list_stations(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    query = (
        select(ChargingStation).where(ChargingStation.retired_at.is_(None)).options(*queries.WHOLE_STATION)
    )
    found = await listed(tenant_scope, query, ChargingStation.id, "charging_station", limit, after)
    slug = await service.own_slug(tenant_scope)
    return found.answer([_station(tenant_scope, slug, row) for row in found.rows])


@get(
    "/stations/{station_id:str}",
    opt={"permission": "stations.view"},
    summary="One station",
    tags=["stations"],
)
async def get_station(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    return await _shown(tenant_scope, parse_id("charging_station", station_id))


_CHANGES = ("name", "registration", "security_profile", "leniency", "shows_cost", "password")


@patch(
    "/stations/{station_id:str}", opt={"permission": "stations.manage"},
    summary="Change a station; `password: null` makes a new one, told once", tags=["stations"],
)  # fmt: skip
async def update_station(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    changes = {name: data[name] for name in _CHANGES if name in data}
    if "location_id" in data:
        changes["location_id"] = read_id("location", data, "location_id")
    password = await service.update_station(tenant_scope, key, **changes)
    shown = await _shown(tenant_scope, key)
    return shown | ({"password": password} if password else {})


@delete(
    "/stations/{station_id:str}", status_code=200, opt={"permission": "stations.manage"},
    summary="Retire a station: history stays, the identity is free again", tags=["stations"],
)  # fmt: skip
async def retire_station(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    await service.retire_station(tenant_scope, key)
    return await _shown(tenant_scope, key)


async def _shown(scope: Scope, station_id: UUID) -> dict[str, Any]:
    return _station(scope, await service.own_slug(scope), await service.get_station(scope, station_id))


def _station(scope: Scope, slug: str, row: ChargingStation) -> dict[str, Any]:
    link = row.connection
    return {
        "id": public_id("charging_station", row.id), "identity": row.ocpp_identity, "name": row.name,
        "location_id": public_id("location", row.location_id) if row.location_id else None,
        "registration": row.registration, "security_profile": row.security_profile, "leniency": row.leniency,
        "quirks": row.quirks, "quarantined_at": rfc3339(row.quarantined_at), "shows_cost": row.shows_cost,
        "ocpp_url": scope.settings.ocpp_url_of(slug, row.ocpp_identity),
        "vendor": row.vendor, "model": row.model, "serial_number": row.serial_number,
        "firmware_version": row.firmware_version, "booted_at": rfc3339(row.booted_at),
        "is_online": bool(link and link.is_online), "ocpp_version": (link.ocpp_version or None) if link else None,
        "last_seen_at": rfc3339(link.last_seen_at) if link else None, "created_at": rfc3339(row.created_at),
        "retired_at": rfc3339(row.retired_at), "evses": [_evse(row, evse) for evse in row.evses],
    }  # fmt: skip


def _evse(station: ChargingStation, evse: EVSE) -> dict[str, Any]:
    link = station.connection
    status = evse_status(
        [connector.status for connector in evse.connectors], evse.live.activity if evse.live else "idle",
        is_online=bool(link and link.is_online), has_connected=link is not None,
        is_retired=station.retired_at is not None,
    )  # fmt: skip
    return {
        "id": public_id("evse", evse.id), "evse_no": evse.evse_no, "evse_id": evse.evse_id, "code": evse.code,
        "status": status, "power_w": evse.figures.power_w if evse.figures else None,
        "connectors": [
            {
                "connector_no": one.connector_no, "standard": one.standard, "format": one.format,
                "power_type": one.power_type, "max_voltage": one.max_voltage_v, "max_amperage": one.max_amperage_a,
                "max_electric_power": one.max_power_w, "status": one.status, "error_code": one.error_code,
                "status_at": rfc3339(one.status_at),
            }
            for one in evse.connectors
        ],
    }  # fmt: skip


# --- the log and commands ----------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/messages", opt={"permission": "stations.view"}, summary="The OCPP log, newest first",
     tags=["stations"])  # fmt: skip
async def list_messages(
    tenant_scope: Scope, station_id: str, limit: int = 50, after: str | None = None, action: str | None = None
) -> dict[str, Any]:
    station = await service.get_station(tenant_scope, parse_id("charging_station", station_id))
    query = queries.frames(station.id, after or "")
    if action:
        query = query.where(OCPPFrame.action == action)
    found = await listed(tenant_scope, query, OCPPFrame.id, "ocpp_message", limit, after)
    return found.answer([_message(tenant_scope, row) for row in found.rows])


def _message(scope: Scope, row: OCPPFrame) -> dict[str, Any]:
    return {
        "id": public_id("ocpp_message", row.id), "at": rfc3339(row.at), "direction": row.direction, "kind": row.kind,
        "ocpp_version": row.ocpp_version, "action": row.action, "message_id": row.message_id,
        "raw": row.raw if scope.actor.may("id_tokens.reveal") else mask_frame(row.raw), "error": row.error,
    }  # fmt: skip


@post("/stations/{station_id:str}/commands", status_code=202, opt={"permission": "stations.command"},
      summary="Ask a station for something, action and payload as on the wire", tags=["stations"])  # fmt: skip
async def create_command(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    payload = data.get("payload", {})
    if not isinstance(payload, dict):
        raise Invalid.field("payload", "object", "The payload is an object.")
    expires_in_s = data.get("expires_in_s", commands.DEFAULT_EXPIRY.total_seconds())
    if (
        isinstance(expires_in_s, bool)
        or not isinstance(expires_in_s, int | float)
        or not 0 < expires_in_s <= 604_800
    ):
        raise Invalid.field(
            "expires_in_s", "out_of_range", "expires_in_s is a number of seconds, at most a week."
        )
    sent = await commands.send_command(
        tenant_scope,
        key,
        str(data.get("action") or ""),
        payload,
        expires_in=timedelta(seconds=int(expires_in_s)),
    )
    return show_command(tenant_scope, sent)


@get(
    "/commands/{command_id:str}",
    opt={"permission": "stations.view"},
    summary="What became of it",
    tags=["stations"],
)
async def get_command(tenant_scope: Scope, command_id: str) -> dict[str, Any]:
    return show_command(
        tenant_scope, await commands.get_command(tenant_scope, parse_id("station_command", command_id))
    )


def show_command(scope: Scope, row: StationCommand) -> dict[str, Any]:
    """Card numbers only for who may reveal them."""
    hide = (lambda value: value) if scope.actor.may("id_tokens.reveal") else mask_cards
    return {
        "id": public_id("station_command", row.id), "station_id": public_id("charging_station", row.station_id),
        "action": row.action, "payload": hide(row.payload), "status": row.status, "answer": hide(row.answer),
        "error": row.error,
        "created_at": rfc3339(row.created_at), "sent_at": rfc3339(row.sent_at), "ended_at": rfc3339(row.ended_at),
        "expires_at": rfc3339(row.expires_at), "created_by": row.actor,
    }  # fmt: skip


# --- availability ------------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/availability", opt={"permission": "stations.view"}, tags=["stations"],
     summary="What was asked last of the station, its EVSEs and connectors, and how it stands")  # fmt: skip
async def list_availability(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    station = await service.get_station(tenant_scope, parse_id("charging_station", station_id))
    return {"data": [_wish(one) for one in await availability.list_wishes(tenant_scope, station.id)]}


@post("/stations/{station_id:str}/availability", status_code=202, opt={"permission": "stations.command"},
      summary="In or out of service (`operative`): all of it or a place", tags=["stations"])  # fmt: skip
async def change_availability(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    station = await service.get_station(tenant_scope, parse_id("charging_station", station_id))
    operative, evse, connector = data.get("operative"), data.get("evse_no", 0), data.get("connector_no", 0)
    if not isinstance(operative, bool):
        raise Invalid.field("operative", "boolean", "operative is true or false.")
    for field, number in (("evse_no", evse), ("connector_no", connector)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise Invalid.field(field, "number", f"{field} is a whole number.")
    row = await availability.change(
        tenant_scope, station.id, is_operative=operative, evse_no=evse, connector_no=connector
    )
    return _wish(row)


def _wish(row: AvailabilityWish) -> dict[str, Any]:
    return {
        "evse_no": row.evse_no, "connector_no": row.connector_no, "operative": row.is_operative, "status": row.state,
        "said": row.said, "asked_at": rfc3339(row.asked_at), "done_at": rfc3339(row.done_at),
    }  # fmt: skip


routes = [
    list_availability, change_availability,
    create_location, list_locations, get_location, update_location, create_station, list_stations, get_station,
    update_station, retire_station, list_messages, create_command, get_command, *oddities_api.routes,
]  # fmt: skip
