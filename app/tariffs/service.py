"""Price lists: written once per version, assigned to where they apply, and the same engine for bill and preview.

Errors: `invalid_tariff`, `invalid_session`, `tariff_taken`, `one_target`; each fault names its field.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import selectinload

from app.access.service import get_driver_group
from app.brands.models import TenantProfile
from app.kernel import audit, events, tax
from app.kernel.clock import uuid7
from app.kernel.duplicates import refusing_duplicates
from app.kernel.errors import FieldFault, Invalid, NotFound
from app.kernel.names import MAX_NAME, check_name
from app.stations.models import EVSE, Location
from app.stations.service import get_location
from app.tariffs import ocpi_tariff, pricing
from app.tariffs.described import DescribedSession, read_session
from app.tariffs.models import Tariff, TariffAssignment, TariffVersion
from tenants.scope import Scope

TARGETS = ("driver_group", "evse", "location", "default")  # in the order in which they win
CLOCK_TOLERANCE = timedelta(minutes=10)  # a station's clock may be this far behind ours


# --- writing -----------------------------------------------------------------------------------------------------


async def create_tariff(scope: Scope, tariff: Any, assign: Any = None) -> Tariff:
    """`tariff` is an OCPI Tariff object, `assign` one target: `{"default": True}`, or an id (UUID) of something."""
    content = await _owned(scope, ocpi_tariff.read_new_tariff(tariff), tariff_id=None)
    assert content.id is not None
    row = Tariff(id=uuid7(), ocpi_id=content.id, name=_name_of(content), version_no=1)
    async with refusing_duplicates(scope, "tariff_taken", "There is a tariff with this id already."):
        scope.db.add(row)
    await _write_version(scope, row, content)
    await assign_tariff(scope, row.id, assign)
    await audit.record(scope, "tariff.created", "tariff", row.id, {"ocpi_id": content.id})
    await events.emit(scope, "TariffCreated", "tariff", row.id, {"version_no": 1})
    return await get_tariff(scope, row.id)


async def replace_tariff(scope: Scope, tariff_id: UUID, tariff: Any, assign: Any = None) -> Tariff:
    """A new version; what was written stays. Running sessions keep the prices they began with.

    `assign` None leaves the assignments as they are, `{}` takes them all away.
    """
    content = ocpi_tariff.read_new_tariff(tariff)
    locked = select(Tariff).where(Tariff.id == tariff_id, Tariff.retired_at.is_(None)).with_for_update()
    row = (await scope.db.execute(locked)).scalar_one_or_none()
    if row is None:
        raise NotFound("tariff")
    if content.id is not None and content.id != row.ocpi_id:
        raise Invalid.field("tariff.id", "immutable", f"The id of this tariff is {row.ocpi_id}.")
    content = await _owned(scope, content, tariff_id=row.ocpi_id)
    row.version_no, row.name, row.updated_at = row.version_no + 1, _name_of(content), scope.now
    await _write_version(scope, row, content)
    if assign is not None:
        await scope.db.execute(delete(TariffAssignment).where(TariffAssignment.tariff_id == row.id))
        await assign_tariff(scope, row.id, assign)
    await audit.record(scope, "tariff.replaced", "tariff", row.id, {"version_no": row.version_no})
    await events.emit(scope, "TariffReplaced", "tariff", row.id, {"version_no": row.version_no})
    return await get_tariff(scope, row.id)


async def retire_tariff(scope: Scope, tariff_id: UUID) -> None:
    """No session begins with it any more. Those that did keep their own copy."""
    tariff = await get_tariff(scope, tariff_id)
    if tariff.retired_at is None:
        tariff.retired_at = scope.now
        await audit.record(scope, "tariff.retired", "tariff", tariff.id, {"ocpi_id": tariff.ocpi_id})
        await events.emit(scope, "TariffRetired", "tariff", tariff.id, {})


async def _owned(scope: Scope, content: ocpi_tariff.Tariff, tariff_id: str | None) -> ocpi_tariff.Tariff:
    """Owner and id default to the tenant's; `last_updated` is when we took it."""
    profile = await _profile(scope)
    country = profile.ocpi_country_code or tax.alpha_2(profile.country) or "" if profile else ""
    party = profile.ocpi_party_id if profile else ""
    return msgspec.structs.replace(
        content, id=content.id or tariff_id or str(uuid7()), country_code=content.country_code or country or None,
        party_id=content.party_id or party or None, last_updated=scope.now.replace(microsecond=0),
    )  # fmt: skip


async def _write_version(scope: Scope, row: Tariff, content: ocpi_tariff.Tariff) -> None:
    version = TariffVersion(
        id=uuid7(), tariff_id=row.id, version_no=row.version_no, currency=content.currency,
        ocpi=ocpi_tariff.as_json(content), created_at=scope.now, created_by=scope.actor.name,
    )  # fmt: skip
    scope.db.add(version)
    await scope.db.flush()


def name_of(content: ocpi_tariff.Tariff) -> str:
    """What staff call it: our own `name` beside the OCPI fields, else its first text, else its id."""
    name = content.extra.get("name")
    texts = [entry.get("text", "") for entry in content.tariff_alt_text]
    found = name if isinstance(name, str) and name.strip() else next(iter(texts), "")
    return (found or content.id or "").strip()[:MAX_NAME]


def _name_of(content: ocpi_tariff.Tariff) -> str:
    """The same for what is being written. Invalid of `tariff.name`: characters, too_long."""
    own = content.extra.get("name")
    if isinstance(own, str):
        check_name(own, "tariff.name", required=None)
    return name_of(content)


# --- where it applies --------------------------------------------------------------------------------------------


async def assign_tariff(scope: Scope, tariff_id: UUID, assign: Any) -> None:
    """Adds one target. Nothing, or an empty object, assigns it nowhere."""
    target, target_id = read_target(assign)
    if target is None:
        return
    if target_id is not None:
        await _check_target(scope, target, target_id)
    values = {f"{target}_id": target_id} if target_id is not None else {}
    scope.db.add(
        TariffAssignment(id=uuid7(), tariff_id=tariff_id, target=target, assigned_at=scope.now, **values)
    )
    await scope.db.flush()


def read_target(assign: Any) -> tuple[str | None, UUID | None]:
    """`{"default": True}` or one of `driver_group_id`, `evse_id`, `location_id` (pure)."""
    if assign is not None and not isinstance(assign, Mapping):
        raise Invalid.field("assign", "object", "assign must be an object.")
    named = {key: value for key, value in (assign or {}).items() if value is not None and value is not False}
    fields = {"default": "default", **{f"{target}_id": target for target in TARGETS[:3]}}
    faults = [
        FieldFault(f"assign.{key}", "unknown", f"assign has no field {key}.")
        for key in named
        if key not in fields
    ]
    if faults:
        raise Invalid("invalid", faults[0].message, faults=faults)
    if len(named) > 1:
        raise Invalid.field("assign", "one_target", "A tariff is assigned to one target at a time.")
    for key, value in named.items():
        if (key == "default") != (value is True) or (key != "default" and not isinstance(value, UUID)):
            raise Invalid.field(f"assign.{key}", "value", "This must be an id, or true for the default.")
        return fields[key], value if isinstance(value, UUID) else None
    return None, None


async def _check_target(scope: Scope, target: str, target_id: UUID) -> None:
    """The errors of the slices that own the targets, told as a fault of this field."""
    try:
        if target == "driver_group":
            await get_driver_group(scope, target_id)
        elif target == "location":
            await get_location(scope, target_id)
        elif await scope.db.get(EVSE, (scope.tenant_id, target_id)) is None:
            raise NotFound("evse")
    except NotFound as missing:
        raise Invalid.field(f"assign.{target}_id", "not_found", missing.message) from None


async def list_assignments(scope: Scope, tariff_ids: Iterable[UUID]) -> dict[UUID, list[TariffAssignment]]:
    ids = list(tariff_ids)
    query = (
        select(TariffAssignment)
        .where(TariffAssignment.tariff_id.in_(ids))
        .order_by(TariffAssignment.assigned_at)
    )
    found: dict[UUID, list[TariffAssignment]] = {tariff_id: [] for tariff_id in ids}
    for assignment in (await scope.db.execute(query)).scalars():
        found[assignment.tariff_id].append(assignment)
    return found


# --- reading -----------------------------------------------------------------------------------------------------


async def get_tariff(scope: Scope, tariff_id: UUID) -> Tariff:
    """With its versions, oldest first; the last one is what it says now."""
    query = (
        select(Tariff)
        .where(Tariff.id == tariff_id)
        .options(selectinload(Tariff.versions))
        .execution_options(populate_existing=True)
    )
    tariff = (await scope.db.execute(query)).scalar_one_or_none()
    if tariff is None:
        raise NotFound("tariff")
    return tariff


async def list_tariffs(scope: Scope, *, limit: int = 50, after: UUID | None = None) -> list[Tariff]:
    """Those in use, oldest first; `after` is the last one already seen."""
    query = select(Tariff).where(Tariff.retired_at.is_(None)).order_by(Tariff.id).limit(limit)
    if after is not None:
        query = query.where(Tariff.id > after)
    return list((await scope.db.execute(query.options(selectinload(Tariff.versions)))).scalars())


async def find_tariff_for(
    scope: Scope,
    *,
    driver_group_id: UUID | None,
    evse_id: UUID | None,
    location_id: UUID | None,
    at: datetime,
) -> TariffVersion | None:
    """Driver group, then EVSE, then location, then the tenant's default; the newest valid wins.

    A start that reaches us late is priced by what was known when it happened. Only where nothing was, what was
    assigned later stands in: a price that came too late is better than none.
    """
    assigned = await _assigned(scope, driver_group_id, evse_id, location_id)
    assigned.sort(key=lambda one: (one.assigned_at, one.id), reverse=True)
    assigned.sort(key=lambda one: (one.assigned_at > at + CLOCK_TOLERANCE, TARGETS.index(one.target)))
    valid = (valid_version(one.tariff.versions, at) for one in assigned)
    return next((version for version in valid if version is not None), None)


async def _assigned(
    scope: Scope, driver_group_id: UUID | None, evse_id: UUID | None, location_id: UUID | None
) -> list[TariffAssignment]:
    targets = {"driver_group_id": driver_group_id, "evse_id": evse_id, "location_id": location_id}
    matches = [TariffAssignment.target == "default"]
    for column, wanted in targets.items():
        if wanted is not None:
            matches.append(getattr(TariffAssignment, column) == wanted)
    query = (
        select(TariffAssignment)
        .join(
            Tariff,
            and_(Tariff.tenant_id == TariffAssignment.tenant_id, Tariff.id == TariffAssignment.tariff_id),
        )
        .where(Tariff.retired_at.is_(None), or_(*matches))
        .options(selectinload(TariffAssignment.tariff).selectinload(Tariff.versions))
    )
    return list((await scope.db.execute(query)).scalars())


def valid_version(versions: Iterable[TariffVersion], at: datetime) -> TariffVersion | None:
    """The newest that was written by then and holds at that time; else the newest that holds."""
    valid = [version for version in versions if _holds_at(ocpi_tariff.read_tariff(version.ocpi), at)]
    known = [version for version in valid if version.created_at <= at + CLOCK_TOLERANCE]
    return max(known or valid, key=lambda version: version.version_no, default=None)


def _holds_at(tariff: ocpi_tariff.Tariff, at: datetime) -> bool:
    starts, ends = tariff.start_date_time, tariff.end_date_time
    return (starts is None or starts <= at) and (ends is None or at < ends)


# --- what would it cost? -----------------------------------------------------------------------------------------


async def preview(
    scope: Scope, tariff: Any, session: Any, location: Location | None = None
) -> dict[str, Any]:
    """What the session would cost, line by line, by the engine that bills. Nothing is written.

    What the description leaves out is the site's, or without one the tenant's: time zone, and the VAT of the country
    where a component names none.
    """
    country, zone = await tax_place(scope, location)
    content, described = _read_both(tariff, session, scope.now, zone)
    on = max(period.end_at for period in described.periods).astimezone(ZoneInfo(described.time_zone)).date()
    found = price_described(content, described, default_vat=tax.vat_rate(country, on))
    return found.as_json()


def _read_both(
    tariff: Any, session: Any, now: datetime, zone: str
) -> tuple[ocpi_tariff.Tariff, DescribedSession]:
    """The faults of both at once."""
    faults: list[FieldFault] = []
    content = described = None
    try:
        content = ocpi_tariff.read_tariff(tariff)
    except Invalid as invalid:
        faults += invalid.faults
    try:
        described = read_session(session, now=now, time_zone=zone)
    except Invalid as invalid:
        faults += invalid.faults
    if content is None or described is None:
        raise Invalid("invalid_price_preview", "This cannot be priced.", faults=faults)
    return content, described


def price_described(
    tariff: ocpi_tariff.Tariff, described: DescribedSession, *, default_vat: Decimal
) -> pricing.Price:
    return pricing.price(
        tariff, described.periods, time_zone=described.time_zone, default_vat=default_vat,
        is_reservation_expired=described.is_reservation_expired,
    )  # fmt: skip


async def tax_place(scope: Scope, location: Location | None) -> tuple[str, str]:
    """(country, time zone) whose VAT and whose clock a price follows: the site's, for a charger without one the brand's
    own. Whatever shows a price asks here, and so does what freezes it for the bill (money.md 4.6)."""
    if location is not None and location.country:
        return location.country, location.time_zone
    profile = await _profile(scope)
    return (profile.country, profile.time_zone) if profile else ("", "UTC")


async def default_vat(scope: Scope, location: Location | None) -> Decimal | None:
    """What a component that names no rate is taxed with there today, in percent; None where we know no rate."""
    country, zone = await tax_place(scope, location)
    return tax.find_vat_rate(country, scope.now.astimezone(ZoneInfo(zone)).date())


async def _profile(scope: Scope) -> TenantProfile | None:
    return (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
