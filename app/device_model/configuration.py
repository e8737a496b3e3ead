"""Configuration templates: how stations of a version and model should be set, and where they are not.

Drift is computed from what stations last reported; nothing of it is stored. Errors: `name`, `version`, `path`,
`secret` (no secret is kept in a template), `nothing_asked`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.device_model import service
from app.device_model.models import ConfigurationTemplate, StationVariable
from app.device_model.paths import VariablePath, parse_path
from app.kernel import audit
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused
from app.kernel.names import name_fault
from app.stations import ocpp_schemas
from app.stations.models import ChargingStation, StationCommand
from app.stations.redaction import names_a_secret
from tenants.scope import Scope

MAX_SETTINGS = 200


@dataclass(frozen=True, slots=True)
class Deviation:
    """A setting that is not as the template wants it. `found` is None where the station told no value."""

    station: ChargingStation
    path: str
    wanted: str
    found: str | None
    words: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What was sent, and for which stations nothing was, with the reason."""

    commands: list[StationCommand]
    refused: list[tuple[ChargingStation, str]]


# --- templates ---------------------------------------------------------------------------------------------------


def _checked(
    *, name: str, ocpp_version: str, vendor: str, model: str, settings: Mapping[str, str]
) -> dict[str, Any]:
    faults: list[FieldFault] = []
    texts = {"name": name.strip(), "vendor": vendor.strip(), "model": model.strip()}
    faults += [fault for field, value in texts.items() if (fault := name_fault(value, field))]
    if not texts["name"]:
        faults.append(FieldFault("name", "required", "The template needs a name."))
    if ocpp_version not in ocpp_schemas.VERSIONS:
        known = ", ".join(ocpp_schemas.VERSIONS)
        faults.append(FieldFault("ocpp_version", "version", f"The version is one of {known}."))
    if not 0 < len(settings) <= MAX_SETTINGS:
        faults.append(
            FieldFault("settings", "nothing_asked", f"A template has 1 to {MAX_SETTINGS} settings.")
        )
    cleaned: dict[str, str] = {}
    for path, value in settings.items():
        fault, found = _checked_setting(ocpp_version, path, value)
        faults += [fault] if fault else []
        cleaned |= {str(found): value.strip()} if found else {}
    if faults:
        raise Invalid("invalid", faults[0].message, faults=faults)
    return {**texts, "ocpp_version": ocpp_version, "settings": cleaned}


def _checked_setting(version: str, path: str, value: str) -> tuple[FieldFault | None, VariablePath | None]:
    try:
        found = parse_path(path)
    except Invalid as error:
        return FieldFault("settings", "path", f"{path}: {error.message}"), None
    if (version == service.OCPP16) == bool(found.component):
        shape = "a key alone" if version == service.OCPP16 else "Component/Variable"
        return FieldFault("settings", "path", f"{path}: in this version it is named by {shape}."), None
    if names_a_secret(found.variable):
        return FieldFault("settings", "secret", f"{path} is a secret, and a template keeps none."), None
    if len(value) > service.MAX_VALUE:
        return FieldFault("settings", "too_long", f"{path}: the value is too long."), None
    return None, found


async def create_template(
    scope: Scope,
    *,
    name: str,
    ocpp_version: str,
    settings: Mapping[str, str],
    vendor: str = "",
    model: str = "",
) -> ConfigurationTemplate:
    """`settings` is {path: value}; an empty vendor or model fits every one."""
    values = _checked(name=name, ocpp_version=ocpp_version, vendor=vendor, model=model, settings=settings)
    template = ConfigurationTemplate(**values, created_at=scope.now, updated_at=scope.now)
    scope.db.add(template)
    await scope.db.flush()
    data = {"name": template.name}
    await audit.record(scope, "configuration_template.created", "configuration_template", template.id, data)
    return template


async def update_template(
    scope: Scope, template_id: UUID, *, name: str, ocpp_version: str, settings: Mapping[str, str], vendor: str = "",
    model: str = "",
) -> ConfigurationTemplate:  # fmt: skip
    """The whole of it anew; stations are changed by applying it."""
    template = await get_template(scope, template_id)
    values = _checked(name=name, ocpp_version=ocpp_version, vendor=vendor, model=model, settings=settings)
    for field, value in values.items():
        setattr(template, field, value)
    template.updated_at = scope.now
    data = {"name": template.name}
    await audit.record(scope, "configuration_template.updated", "configuration_template", template.id, data)
    return template


async def delete_template(scope: Scope, template_id: UUID) -> None:
    """Stations keep what they are set to."""
    template = await get_template(scope, template_id)
    data = {"name": template.name}
    await audit.record(scope, "configuration_template.deleted", "configuration_template", template.id, data)
    await scope.db.delete(template)
    await scope.db.flush()


async def get_template(scope: Scope, template_id: UUID) -> ConfigurationTemplate:
    template = await scope.db.get(ConfigurationTemplate, (scope.tenant_id, template_id))
    if template is None:
        raise NotFound("configuration_template")
    return template


async def list_templates(scope: Scope) -> list[ConfigurationTemplate]:
    query = select(ConfigurationTemplate).order_by(ConfigurationTemplate.name)
    return list((await scope.db.execute(query)).scalars())


# --- drift -------------------------------------------------------------------------------------------------------


async def stations_of(scope: Scope, template: ConfigurationTemplate) -> list[ChargingStation]:
    """The stations it is for: its version at their last connection, its vendor and model where it names them."""
    query = (
        select(ChargingStation)
        .where(ChargingStation.retired_at.is_(None))
        .options(selectinload(ChargingStation.connection))
        .order_by(ChargingStation.ocpp_identity)
    )
    return [row for row in (await scope.db.execute(query)).scalars() if _fits(template, row)]


def _fits(template: ConfigurationTemplate, station: ChargingStation) -> bool:
    version = station.ocpp_version
    told = ((template.vendor, station.vendor), (template.model, station.model))
    return version == template.ocpp_version and all(
        not wanted or wanted.casefold() == (found or "").casefold() for wanted, found in told
    )


async def drift(
    scope: Scope, template: ConfigurationTemplate, stations: Sequence[ChargingStation] | None = None
) -> list[Deviation]:
    """Where stations are not as the template wants, by what they last reported. Ordered by station, then setting."""
    stations = stations if stations is not None else await stations_of(scope, template)
    keys = {parse_path(path).key: (path, str(value)) for path, value in sorted(template.settings.items())}
    query = select(StationVariable).where(
        StationVariable.station_id.in_([one.id for one in stations]), StationVariable.path_key.in_(keys)
    )
    told = {(row.station_id, row.path_key): row for row in (await scope.db.execute(query)).scalars()}
    found = []
    for station in stations:
        for key, (path, wanted) in keys.items():
            row = told.get((station.id, key))
            words = in_words(row, wanted)
            if words:
                found.append(Deviation(station, path, wanted, row.value if row else None, words))
    return found


def in_words(row: StationVariable | None, wanted: str) -> str:
    """What is not as it should be, in a sentence; empty where it is (pure)."""
    if row is None:
        return f"should be {wanted}, was never read"
    if row.value is None:
        if (row.last_status or "").startswith("Unknown"):
            return f"should be {wanted}, the station does not know it"
        return f"should be {wanted}, the station tells no value"
    if is_same(row.value, wanted):
        return ""
    why = ""
    if row.mutability == "ReadOnly":
        why = " and can only be read"
    elif row.last_status in ("Rejected", "NotSupported"):
        why = "; the station refused the change"
    return f"should be {wanted or 'empty'}, is {row.value or 'empty'}{why}"


def is_same(found: str, wanted: str) -> bool:
    """`300` is `300.0` and `True` is `true`; everything else is compared as it stands."""
    if found.strip() == wanted.strip():
        return True
    if {found.strip().lower()} == {wanted.strip().lower()} <= {"true", "false"}:
        return True
    try:
        return Decimal(found) == Decimal(wanted)
    except InvalidOperation:
        return False


async def apply_template(scope: Scope, template_id: UUID, station_id: UUID | None = None) -> Applied:
    """Sends what deviates, to one station or to all it is for; a station that cannot take it is named with why."""
    template = await get_template(scope, template_id)
    stations = [one for one in await stations_of(scope, template) if station_id in (None, one.id)]
    if station_id is not None and not stations:
        raise NotFound("charging_station")
    by_station: dict[UUID, dict[VariablePath, str]] = {}
    for one in await drift(scope, template, stations):
        by_station.setdefault(one.station.id, {})[parse_path(one.path)] = one.wanted
    applied = Applied([], [])
    for station in stations:
        try:
            if station.id in by_station:
                applied.commands.extend(
                    await service.set_variables(scope, station.id, by_station[station.id])
                )
        except (Invalid, Refused) as error:
            applied.refused.append((station, error.message))
    data = {"commands": len(applied.commands), "refused": len(applied.refused)}
    await audit.record(scope, "configuration_template.applied", "configuration_template", template.id, data)
    return applied


async def read_settings(scope: Scope, template_id: UUID) -> list[StationCommand]:
    """Asks all stations it is for how they are set, so that the drift is of now."""
    template = await get_template(scope, template_id)
    paths = [parse_path(path) for path in sorted(template.settings)]
    sent: list[StationCommand] = []
    for station in await stations_of(scope, template):
        sent += await service.read_variables(scope, station.id, paths)
    return sent
