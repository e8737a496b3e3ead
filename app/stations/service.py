"""Verbs on locations, stations, EVSEs and connectors: what staff set up, and what stations report.

Errors: `identity_taken`, `identity_pattern`, `unknown_connector`, `station_retired`.
"""

import json
import random
import re
import secrets as stdlib_secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, literal_column, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import selectinload

from app.kernel import audit, events, zones
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused
from app.kernel.idempotency import REPEATS_FOR, repeatable
from app.kernel.names import check_name, name_fault
from app.kernel.secrets import digest, new_station_password
from app.stations import availability, commands, quirks
from app.stations.models import (
    EVSE,
    ChargingStation,
    Connector,
    EVSELive,
    Location,
    OCPPMessage,
    StationConnection,
)
from app.stations.queries import WHOLE_STATION
from app.stations.redaction import redact_frame
from app.stations.reports import BootReport, BootVerdict, Frame, StatusReport
from tenants.redis import platform_key
from tenants.scope import Scope

IDENTITY_PATTERN = re.compile(r"[A-Za-z0-9._:*=+@|\- ]{1,48}")
MAX_NO = 64
HEARTBEAT_INTERVAL_S = 300
GATEWAY_LOST = "gateway lost"
BOOT_ASKED_FOR = timedelta(seconds=HEARTBEAT_INTERVAL_S)
_CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
CONNECTOR_FIELDS = ("standard", "format", "power_type", "max_voltage_v", "max_amperage_a", "max_power_w")


# --- locations ---------------------------------------------------------------------------------------------------


def _no_time_zone(name: str) -> FieldFault:
    return FieldFault(
        "time_zone", "unknown_time_zone", f"There is no time zone {name!r}: give one such as Europe/Berlin."
    )


async def _check_time_zone(scope: Scope, cleaned: Mapping[str, Any]) -> None:
    if "time_zone" in cleaned and not await zones.is_known(scope, cleaned["time_zone"]):
        raise Invalid(
            "invalid", "The location has wrong fields.", faults=[_no_time_zone(cleaned["time_zone"])]
        )


def _coordinate(field: str, value: Any, bound: int, faults: list[FieldFault]) -> Decimal | None:
    if value in (None, ""):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number) > bound:
        faults.append(
            FieldFault(
                f"coordinates.{field}", "out_of_range", f"{field} is a number of degrees up to {bound}."
            )
        )
        return None
    return number


def _check_location(values: Mapping[str, Any]) -> dict[str, Any]:
    """Cleaned column values. Invalid names every wrong field."""
    faults: list[FieldFault] = []
    cleaned: dict[str, Any] = {}
    for name in ("name", "address", "city"):
        if name in values:
            cleaned[name] = str(values[name] or "").strip()
            if not cleaned[name]:
                faults.append(FieldFault(name, "required", f"{name} is required."))
            elif fault := name_fault(cleaned[name], name):
                faults.append(fault)
    if "postal_code" in values:
        cleaned["postal_code"] = str(values["postal_code"] or "").strip()
        if fault := name_fault(cleaned["postal_code"], "postal_code", most=10):
            faults.append(fault)
    if "country" in values:
        cleaned["country"] = str(values["country"] or "").strip().upper()
        if not re.fullmatch(r"[A-Z]{3}", cleaned["country"]):
            faults.append(
                FieldFault("country", "country", "country is an ISO 3166-1 alpha-3 code such as DEU.")
            )
    if "time_zone" in values:
        cleaned["time_zone"] = str(values["time_zone"] or "")
        if not zones.is_time_zone(cleaned["time_zone"]):
            faults.append(_no_time_zone(cleaned["time_zone"]))
    for name, bound in (("latitude", 90), ("longitude", 180)):
        if name in values:
            cleaned[name] = _coordinate(name, values[name], bound, faults)
    if "is_free_vend" in values:
        cleaned["is_free_vend"] = values["is_free_vend"]
        if not isinstance(cleaned["is_free_vend"], bool):
            faults.append(FieldFault("is_free_vend", "boolean", "is_free_vend is true or false."))
    if faults:
        raise Invalid("invalid", "The location has wrong fields.", faults=faults)
    return cleaned


async def create_location(scope: Scope, **values: Any) -> Location:
    """`name, address, city, country (alpha-3), time_zone` are required; `postal_code, latitude, longitude` are not."""
    required = {name: values.get(name, "") for name in ("name", "address", "city", "country", "time_zone")}
    cleaned = _check_location({**values, **required})
    await _check_time_zone(scope, cleaned)
    location = Location(**cleaned)
    scope.db.add(location)
    await scope.db.flush()
    await audit.record(scope, "location.created", "location", location.id, {"name": location.name})
    return location


async def update_location(scope: Scope, location_id: UUID, **values: Any) -> Location:
    location = await get_location(scope, location_id)
    cleaned = _check_location(values)
    await _check_time_zone(scope, cleaned)
    for name, value in cleaned.items():
        setattr(location, name, value)
    location.updated_at = scope.now
    await audit.record(scope, "location.updated", "location", location.id, {"fields": sorted(cleaned)})
    return location


async def list_locations(scope: Scope) -> list[Location]:
    """By name."""
    return list((await scope.db.execute(select(Location).order_by(Location.name))).scalars())


async def get_location(scope: Scope, location_id: UUID) -> Location:
    location = await scope.db.get(Location, (scope.tenant_id, location_id))
    if location is None:
        raise NotFound("location")
    return location


# --- stations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewStation:
    """`password` is told once; it is None for security profile 0 and 3."""

    station: ChargingStation
    ocpp_url: str
    password: str | None


def check_identity(identity: str) -> str:
    if not IDENTITY_PATTERN.fullmatch(identity) or identity in (".", ".."):
        raise Invalid.field(
            "identity",
            "identity_pattern",
            "The identity is 1 to 48 of the characters A-Z a-z 0-9 . _ : * = + @ | - and space.",
        )
    return identity


def _check_profile(scope: Scope, profile: int) -> int:
    if isinstance(profile, bool) or profile not in (0, 1, 2, 3):
        raise Invalid.field("security_profile", "security_profile", "The security profile is 0, 1, 2 or 3.")
    if profile == 0 and scope.settings.is_production:
        raise Invalid.field(
            "security_profile", "profile_0_refused", "Security profile 0 is not allowed in production."
        )
    return profile


async def minimum_profile(scope: Scope) -> int:
    """What this brand asks of a new station at least (`app/maintenance/policy.py`, which lies above this slice).

    0 where it has decided nothing: then a station without any security must be asked for by its number.
    """
    query = text("select minimum_profile from livery.security_policy")
    found = (await scope.db.execute(query)).scalar_one_or_none()
    return found or 0


async def own_slug(scope: Scope) -> str:
    return (await scope.db.execute(text("select slug from platform.own_tenant()"))).scalar_one()


async def create_station(
    scope: Scope, *, identity: str, location_id: UUID | None = None, security_profile: int | None = None,
    name: str = "", registration: str = "accepted", evses: Iterable[Mapping[str, Any]] = (),
    password: str | None = None, form_id: str = "",
) -> NewStation:  # fmt: skip
    """`evses` as in `POST /stations` of contract.md; they may be left out and appear as the station reports them.

    Without `security_profile` it is 1, or what the brand asks for at least; less than that is refused
    (`below_minimum_profile`), and 0 always in production. The same form sent twice (`form_id`) makes one station,
    and is told the same.
    """
    check_identity(identity)
    least = await minimum_profile(scope)
    security_profile = max(1, least) if security_profile is None else _check_profile(scope, security_profile)
    if security_profile < least:
        raise Invalid.field(
            "security_profile",
            "below_minimum_profile",
            f"Stations here have security profile {least} or higher.",
        )
    if location_id is not None:
        await get_location(scope, location_id)
    evses = list(evses)
    seed = await repeatable(
        scope, "station", form_id, identity, name, str(location_id), str(security_profile), repr(evses)
    )
    secret = _new_password(security_profile, seed.hex()[:40] if seed else password)
    taken = select(ChargingStation).where(
        ChargingStation.ocpp_identity == identity, ChargingStation.retired_at.is_(None)
    )
    known = (await scope.db.execute(taken)).scalar_one_or_none()
    wanted = (name.strip(), location_id, security_profile, [evse_no for evse_no, _ in _check_evses(evses)])
    if known is not None and seed and await _is_made_just_now(scope, known, secret, wanted):
        return NewStation(known, scope.settings.ocpp_url_of(await own_slug(scope), identity), secret)
    if known is not None:
        raise Refused("identity_taken", f"There is a station {identity} already.")
    station = ChargingStation(
        ocpp_identity=identity, location_id=location_id, security_profile=security_profile,
        name=check_name(name, required=None), registration=_check_registration(registration), leniency={},
    )  # fmt: skip
    scope.db.add(station)
    await scope.db.flush()
    for evse_no, connectors in _check_evses(evses):
        await _add_evse(scope, station.id, evse_no, connectors)
    slug = await _put_route(scope, station, [secret] if secret else [])
    await audit.record(
        scope, "station.created", "charging_station", station.id,
        {"identity": identity, "security_profile": security_profile},
    )  # fmt: skip
    await events.emit(scope, "StationCreated", "charging_station", station.id, {"identity": identity})
    return NewStation(station, scope.settings.ocpp_url_of(slug, identity), secret)


async def _is_made_just_now(
    scope: Scope, station: ChargingStation, secret: str | None, wanted: tuple[Any, ...]
) -> bool:
    """By this very form: its password is the one that comes of it, and nobody has made another since. Where there is
    none nothing is told once, and the station has to be the `wanted` one (name, site, profile, EVSEs)."""
    digests, _attributes = await _known_route(scope, station)
    numbers = select(EVSE.evse_no).where(EVSE.station_id == station.id).order_by(EVSE.evse_no)
    there = list((await scope.db.execute(numbers)).scalars())
    is_same = digests == ([station_digest(scope, secret)] if secret else [])
    is_wanted = wanted == (station.name, station.location_id, station.security_profile, there)
    return is_same and is_wanted and station.created_at > scope.now - REPEATS_FOR


def _new_password(profile: int, wanted: str | None) -> str | None:
    if profile not in (1, 2):
        return None
    if wanted is None:
        return new_station_password()
    if not isinstance(wanted, str) or not re.fullmatch(r"[0-9a-f]{40}", wanted):
        raise Invalid.field("password", "password", "The password is 40 lower-case hexadecimal characters.")
    return wanted


def _check_registration(value: str) -> str:
    if value not in ("accepted", "pending", "rejected"):
        raise Invalid.field("registration", "registration", "registration is accepted, pending or rejected.")
    return value


def _number(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_NO:
        raise Invalid.field(field, "out_of_range", f"{field} is a whole number from 1 to {MAX_NO}.")
    return value


def _check_evses(evses: Iterable[Mapping[str, Any]]) -> list[tuple[int, list[dict[str, Any]]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for index, evse in enumerate(evses):
        field = f"evses[{index}]"
        evse_no = _number(evse.get("evse_no"), f"{field}.evse_no")
        if evse_no in found:
            raise Invalid.field(f"{field}.evse_no", "duplicate", f"EVSE {evse_no} is named twice.")
        connectors = evse.get("connectors") or [{"connector_no": 1}]
        if not isinstance(connectors, list) or not all(isinstance(one, Mapping) for one in connectors):
            raise Invalid.field(f"{field}.connectors", "list", "connectors is a list of objects.")
        found[evse_no] = [
            _check_connector(connector, f"{field}.connectors[{number}]")
            for number, connector in enumerate(connectors)
        ]
        numbers = [connector["connector_no"] for connector in found[evse_no]]
        if len(set(numbers)) < len(numbers):
            raise Invalid.field(f"{field}.connectors", "duplicate", "A connector_no is named twice.")
    return sorted(found.items())


def _check_connector(connector: Mapping[str, Any], field: str) -> dict[str, Any]:
    cleaned: dict[str, Any] = {
        "connector_no": _number(connector.get("connector_no", 1), f"{field}.connector_no")
    }
    for name in ("standard", "format", "power_type"):
        value = connector.get(name)
        if value is not None and not re.fullmatch(r"[A-Z0-9_]{1,40}", str(value)):
            raise Invalid.field(
                f"{field}.{name}", name, f"{name} is one of OCPI's words, such as IEC_62196_T2."
            )
        cleaned[name] = value
    for name, column in (("max_voltage", "max_voltage_v"), ("max_amperage", "max_amperage_a"),
                         ("max_electric_power", "max_power_w")):  # fmt: skip
        value = connector.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10_000_000
        ):
            raise Invalid.field(f"{field}.{name}", "out_of_range", f"{name} is a positive whole number.")
        cleaned[column] = value
    return cleaned


async def _add_evse(
    scope: Scope, station_id: UUID, evse_no: int, connectors: Iterable[Mapping[str, Any]]
) -> EVSE:
    code = "".join(stdlib_secrets.choice(_CODE_ALPHABET) for _ in range(7))
    evse = EVSE(station_id=station_id, evse_no=evse_no, code=code)
    scope.db.add(evse)
    await scope.db.flush()
    scope.db.add(EVSELive(evse_id=evse.id))
    for connector in connectors:
        scope.db.add(Connector(evse_id=evse.id, **connector))
    await scope.db.flush()
    return evse


def station_digest(scope: Scope, password: str) -> str:
    """What `tenant_route` keeps of a station's key: HMAC-SHA256 over its canonical hex text."""
    return digest(scope.settings.secret_keys, "station", password).hex()


async def _put_route(
    scope: Scope, station: ChargingStation, passwords: list[str], keep: list[str] | None = None, *,
    upgrading_to: int | None = None, is_changing: bool = False,
) -> str:  # fmt: skip
    """The gateway's way to the station: brand and identity, valid keys, and what it may be lenient about.

    `upgrading_to` is a higher profile by which it may come in too; `is_changing` asks to be told when it came.
    """
    digests = [station_digest(scope, password) for password in passwords] + (keep or [])
    attributes = {"security_profile": station.security_profile, **await _tolerances(scope, station)}
    if upgrading_to is not None:
        attributes["upgrading_to"] = upgrading_to
    if is_changing:
        attributes["is_changing"] = True
    await scope.db.execute(
        text(
            "select platform.put_station_route("
            ":identity, :station, cast(:digests as jsonb), cast(:attributes as jsonb))"
        ),
        {"identity": station.ocpp_identity, "station": station.id, "digests": json.dumps(digests),
         "attributes": json.dumps(attributes)},
    )  # fmt: skip
    return await own_slug(scope)


async def _tolerances(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    """What the gateway is lenient about; a zone where times without one are local."""
    holds: dict[str, Any] = dict(quirks.merged(station.quirks or [], station.leniency))
    if "no_zone" in holds and station.location_id is not None:
        holds["no_zone"] = (await get_location(scope, station.location_id)).time_zone
    return holds


async def has_quirk(scope: Scope, station_id: UUID, quirk: str) -> bool:
    """As its model has it or its own word says."""
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id))
    return station is not None and quirk in quirks.merged(station.quirks or [], station.leniency)


async def find_quirks(scope: Scope, station: ChargingStation) -> None:
    """Its model's quirks, as they are known now; the gateway that holds the station hears of a change at once."""
    found = await quirks.of_model(scope, station.vendor, station.model)
    if found == station.quirks:
        return
    station.quirks = found
    await scope.db.flush()
    await _renew_route(scope, station)
    await _tell_gateway(scope, station)


async def _tell_gateway(scope: Scope, station: ChargingStation) -> None:
    query = select(StationConnection).where(StationConnection.station_id == station.id)
    connection = (await scope.db.execute(query)).scalar_one_or_none()
    redis = scope.redis
    if redis is None or connection is None or not connection.is_online:
        return
    channel = platform_key("gateway", connection.node, "commands")
    message = {
        "tenant": str(scope.tenant_id), "station": str(station.id),
        "attributes": {"security_profile": station.security_profile, **await _tolerances(scope, station)},
    }  # fmt: skip
    scope.after_commit(lambda: redis.publish_raw(channel, message))


async def _renew_route(scope: Scope, station: ChargingStation, password: str | None = None) -> None:
    """With a new key or those it has; a change that is under way stays so."""
    known, attributes = await _known_route(scope, station)
    upgrading_to = attributes.get("upgrading_to")
    if upgrading_to is not None and upgrading_to <= station.security_profile:
        upgrading_to = None
    await _put_route(
        scope, station, [password] if password else [], [] if password else known, upgrading_to=upgrading_to,
        is_changing=bool(attributes.get("is_changing")),
    )  # fmt: skip


async def known_keys(scope: Scope, station: ChargingStation) -> list[str]:
    """Digests of the keys that open the door for it now."""
    return (await _known_route(scope, station))[0]


async def put_keys(
    scope: Scope, station: ChargingStation, digests: list[str], *, upgrading_to: int | None = None,
    is_changing: bool = False,
) -> None:  # fmt: skip
    """Exactly these keys from now on; `upgrading_to` and `is_changing` as long as a change is under way."""
    await _put_route(scope, station, [], digests, upgrading_to=upgrading_to, is_changing=is_changing)


async def raise_profile(scope: Scope, station: ChargingStation, profile: int) -> None:
    """The station has shown that it can: from now on it must. Keys and route are the caller's (`put_keys`)."""
    if profile <= station.security_profile:
        return
    await audit.record(
        scope, "station.profile_raised", "charging_station", station.id,
        {"from": station.security_profile, "to": profile},
    )  # fmt: skip
    station.security_profile = profile
    await scope.db.flush()
    scope.publish(f"station:{station.id}", {"what": "settings"})


async def get_station(scope: Scope, station_id: UUID) -> ChargingStation:
    """With location, connection, EVSEs, their connectors and live figures."""
    query = (
        select(ChargingStation)
        .where(ChargingStation.id == station_id)
        .options(*WHOLE_STATION)
        .execution_options(populate_existing=True)
    )
    station = (await scope.db.execute(query)).scalar_one_or_none()
    if station is None:
        raise NotFound("charging_station")
    return station


async def update_station(scope: Scope, station_id: UUID, **changes: Any) -> str | None:
    """`name, location_id, registration, security_profile, leniency, shows_cost, password`; `password=None` makes a new
    one.

    Returns the new password (told once) where one was set. A lower security profile is refused
    (`profile_downgrade`, ocpp.md 2 row 8).
    """
    station = await get_station(scope, station_id)
    if station.retired_at is not None:
        raise Refused("station_retired", "This station is retired.")
    if "location_id" in changes:
        if changes["location_id"] is not None:
            await get_location(scope, changes["location_id"])
        station.location_id = changes["location_id"]
    if "name" in changes:
        station.name = check_name(str(changes["name"] or ""), required=None)
    was = station.registration
    if "registration" in changes:
        station.registration = _check_registration(changes["registration"])
    if "security_profile" in changes:
        profile = _check_profile(scope, changes["security_profile"])
        if profile < station.security_profile:
            raise Refused("profile_downgrade", "The security profile of a station can only be raised.")
        if station.security_profile == 0 and profile in (1, 2):
            changes.setdefault(
                "password", None
            )  # it never had one: without it the station could not come back
        station.security_profile = profile
    if "shows_cost" in changes:
        if not isinstance(changes["shows_cost"], bool):
            raise Invalid.field("shows_cost", "boolean", "shows_cost is true or false.")
        station.shows_cost = changes["shows_cost"]
    if "leniency" in changes:
        station.leniency = quirks.check_leniency(changes["leniency"])
    password = _new_password(station.security_profile, changes["password"]) if "password" in changes else None
    await scope.db.flush()
    await _renew_route(scope, station, password)
    await _tell_gateway(scope, station)
    await audit.record(scope, "station.updated", "charging_station", station.id, {"fields": sorted(changes)})
    if station.registration != was:
        await _ask_to_boot(scope, station, was)
    scope.publish(f"station:{station.id}", {"what": "settings"})
    return password


async def _ask_to_boot(scope: Scope, station: ChargingStation, was: str) -> None:
    """What staff decided is told by the answer to a boot, and need not wait for the next one (2.x B02). A rejected
    station may not be spoken to: it comes again by itself (B03)."""
    if was != "rejected" and station.connection is not None and station.connection.is_online:
        boot = {"requestedMessage": "BootNotification"}
        await commands.send_command(scope, station.id, "TriggerMessage", boot, expires_in=BOOT_ASKED_FOR)


async def _known_route(scope: Scope, station: ChargingStation) -> tuple[list[str], dict[str, Any]]:
    slug = await own_slug(scope)
    query = text("select digests, attributes from platform.resolve_station(:slug, :identity, '{}'::text[])")
    row = (await scope.db.execute(query, {"slug": slug, "identity": station.ocpp_identity})).first()
    return (list(row.digests), dict(row.attributes)) if row else ([], {})


async def retire_station(scope: Scope, station_id: UUID) -> None:
    """History stays, the identity is free again, and the station may not connect any more."""
    station = await get_station(scope, station_id)
    if station.retired_at is not None:
        return
    station.retired_at = scope.now
    await scope.db.execute(text("select platform.drop_station_route(:station)"), {"station": station.id})
    await audit.record(
        scope, "station.retired", "charging_station", station.id, {"identity": station.ocpp_identity}
    )
    await events.emit(
        scope, "StationRetired", "charging_station", station.id, {"identity": station.ocpp_identity}
    )
    scope.publish(f"station:{station.id}", {"what": "retired"})


# --- who is told -------------------------------------------------------------------------------------------------


def news_of_station(station_id: UUID, what: str) -> list[tuple[str, dict[str, Any]]]:
    """Whom to tell after the commit that something about a station moved: (topic, message)."""
    return [(f"station:{station_id}", {"what": what}), ("stations", {"station": str(station_id)})]


def tell(scope: Scope, station_id: UUID, what: str) -> None:
    for topic, message in news_of_station(station_id, what):
        scope.publish(topic, message)


# --- what stations report ----------------------------------------------------------------------------------------


async def station_booted(scope: Scope, station_id: UUID, boot: BootReport) -> BootVerdict:
    """OCPP 2.0.1 B01-B03."""
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id))
    if station is None or station.retired_at is not None:
        return BootVerdict(status="Rejected", interval_s=HEARTBEAT_INTERVAL_S)
    is_new_make = (station.vendor, station.model) != (boot.vendor[:255], boot.model[:255])
    station.vendor, station.model = boot.vendor[:255], boot.model[:255]
    station.serial_number, station.firmware_version = boot.serial_number, boot.firmware_version
    station.boot_reason, station.booted_at = boot.reason, scope.now
    if is_new_make:
        await find_quirks(scope, station)
    status = station.registration.capitalize()
    if status == "Accepted":
        await events.emit(scope, "StationBooted", "charging_station", station.id, {"reason": boot.reason})
    tell(scope, station.id, "boot")
    holds = quirks.merged(station.quirks, station.leniency)
    return BootVerdict(status=status, interval_s=heartbeat_interval_s(), quirks=frozenset(holds))  # pyright: ignore[reportArgumentType]


def heartbeat_interval_s() -> int:
    """Jittered, so that a fleet that booted together does not beat together."""
    return HEARTBEAT_INTERVAL_S + random.randint(-30, 30)  # noqa: S311 - spreads load, protects nothing


async def find_evse(scope: Scope, station_id: UUID, evse_no: int) -> EVSE | None:
    query = select(EVSE).where(EVSE.station_id == station_id, EVSE.evse_no == evse_no)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def find_place(scope: Scope, code: str) -> EVSE:
    """What a QR sticker names; read off by hand too, so its case does not matter. NotFound also for retired ones."""
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
    evse = (await scope.db.execute(query)).scalar_one_or_none()
    if evse is None or evse.station.retired_at is not None or evse.station.registration == "rejected":
        raise NotFound("charger")
    return evse


async def ensure_evse(scope: Scope, station_id: UUID, evse_no: int, connector_no: int | None = None) -> EVSE:
    """EVSEs and connectors appear as the station reports them, up to a sane number (ocpp.md 3, no. 51)."""
    if not 1 <= evse_no <= MAX_NO or not 1 <= (connector_no or 1) <= MAX_NO:
        raise Invalid.field(
            "connectorId", "unknown_connector", f"There is no connector {evse_no}.{connector_no}."
        )
    evse = await find_evse(scope, station_id, evse_no)
    if evse is None:
        evse = await _add_evse(scope, station_id, evse_no, [{"connector_no": connector_no or 1}])
        return evse
    if connector_no is not None:
        statement = (
            upsert(Connector).values(evse_id=evse.id, connector_no=connector_no).on_conflict_do_nothing()
        )
        await scope.db.execute(statement)
    return evse


async def connector_reported(scope: Scope, station_id: UUID, report: StatusReport) -> None:
    """OCPP 2.0.1 G01. EVSE 0 is the station itself: kept in the raw log, never a connector."""
    if report.evse_no == 0:
        return
    evse = await ensure_evse(scope, station_id, report.evse_no, report.connector_no)
    change = (
        update(Connector)
        .where(Connector.evse_id == evse.id, Connector.connector_no == report.connector_no)
        # Queued reports of the past must not undo what is known since.
        .where((Connector.status_at.is_(None)) | (Connector.status_at <= report.sampled_at))
        .values(
            status=report.status, detail=report.detail, error_code=report.error_code, error_info=report.info,
            vendor_error_code=report.vendor_error_code, status_at=report.sampled_at,
        )
        .returning(literal_column("old.status"))
    )  # fmt: skip
    was = (await scope.db.execute(change)).scalar_one_or_none()
    await availability.reported(scope, station_id)
    if report.status == "Faulted" and was not in (
        None,
        "Faulted",
    ):  # one that flaps is one fault until it recovers
        await events.emit(
            scope, "ConnectorFaulted", "evse", evse.id,
            {"connector_no": report.connector_no, "error_code": report.error_code or ""},
        )  # fmt: skip
    tell(scope, station_id, "status")


async def connection_opened(
    scope: Scope, station_id: UUID, *, node: str, ocpp_version: str, remote: str
) -> int:
    """The new epoch: the newest authenticated connection wins, and only its epoch may write its end."""
    values = {
        "is_online": True, "node": node, "ocpp_version": ocpp_version, "remote": remote, "connected_at": scope.now,
        "last_seen_at": scope.now, "close_reason": "",
    }  # fmt: skip
    statement = (
        upsert(StationConnection)
        .values(station_id=station_id, epoch=1, **values)
        .on_conflict_do_update(
            index_elements=["tenant_id", "station_id"], set_={"epoch": StationConnection.epoch + 1, **values}
        )
        .returning(StationConnection.epoch)
    )
    epoch = (await scope.db.execute(statement)).scalar_one()
    await events.emit(
        scope, "StationConnected", "charging_station", station_id, {"ocpp_version": ocpp_version}
    )
    tell(scope, station_id, "connection")
    return epoch


async def connection_closed(scope: Scope, station_id: UUID, epoch: int, reason: str) -> None:
    """Nothing happens where a newer connection stands (ocpp.md 2, row 14)."""
    statement = (
        update(StationConnection)
        .where(
            StationConnection.station_id == station_id, StationConnection.epoch == epoch,
            StationConnection.is_online.is_(True) | (StationConnection.close_reason == GATEWAY_LOST),
        )
        .values(is_online=False, disconnected_at=scope.now, close_reason=reason[:100])
        .returning(StationConnection.id)
    )  # fmt: skip
    if (await scope.db.execute(statement)).first() is None:
        return
    await events.emit(scope, "StationDisconnected", "charging_station", station_id, {"reason": reason[:100]})
    tell(scope, station_id, "connection")


async def record_frames(scope: Scope, station_id: UUID, frames: list[Frame]) -> None:
    """The raw log, in the commit of what the frames caused. Station keys are blanked out (ocpp.md 2, row 68)."""
    rows = [
        {
            "station_id": station_id, "at": frame.at, "direction": frame.direction, "kind": frame.kind,
            "ocpp_version": frame.ocpp_version, "message_id": frame.message_id, "action": frame.action,
            "raw": redact_frame(frame.raw).replace("\0", "�"), "error": frame.error,
        }
        for frame in frames
    ]  # fmt: skip
    if rows:
        await scope.db.execute(insert(OCPPMessage), rows)
        scope.publish(f"station:{station_id}:log", {"count": len(rows)})


async def was_told(scope: Scope, station_id: UUID, action: str, said: str, *, since: datetime) -> bool:
    """By the raw log: a CALL of the station with this string in it, in any case."""
    quoted = func.lower(json.dumps(said, ensure_ascii=False))
    query = select(OCPPMessage.id).where(
        OCPPMessage.station_id == station_id, OCPPMessage.at > since, OCPPMessage.direction == "in",
        OCPPMessage.action == action, OCPPMessage.kind == "call",
        func.strpos(func.lower(OCPPMessage.raw), quoted) > 0,
    )  # fmt: skip
    return (await scope.db.execute(query.limit(1))).first() is not None


# --- for `charging` ----------------------------------------------------------------------------------------------


async def set_activity(scope: Scope, evse_id: UUID, activity: str) -> None:
    """idle, charging or reserved: what `charging` knows about an EVSE, and the connector status cannot tell. Idle takes
    the figures back: what was told before, and comes later, shows none of the session's on an EVSE that is free."""
    values: dict[str, Any] = {"activity": activity}
    if activity == "idle":
        values |= {"power_w": 0, "meter_wh": None, "current_a": None, "voltage_v": None, "soc_percent": None}
        values["reading_at"] = func.greatest(EVSELive.reading_at, scope.now)
    await scope.db.execute(update(EVSELive).where(EVSELive.evse_id == evse_id).values(**values))
    station_id = (
        await scope.db.execute(select(EVSE.station_id).where(EVSE.id == evse_id))
    ).scalar_one_or_none()
    if station_id is not None:
        tell(scope, station_id, "activity")
