"""Who may charge where: drivers, groups, tokens, and the question a station asks.

Errors: `id_token_taken`, `driver_group_taken`, `driver_taken`; verdict reasons: unknown, blocked, expired, invalid,
used, not_at_this_location, tenant_suspended.
"""

import asyncio
import secrets as stdlib_secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, delete, insert, select, text
from sqlalchemy.orm import selectinload

from app.access import csv_import, local_lists
from app.access.csv_import import CardState, DriverState, Known, Plan
from app.access.models import STATUSES, TYPES, Driver, DriverGroup, DriverGroupLocation, IdToken
from app.access.verdict import Accepted, AuthorizationStatus, IdTokenValue, Refused, Verdict
from app.brands.service import check_profile
from app.identity.service import check_email, email_norm
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.duplicates import refusing_duplicates
from app.kernel.errors import FieldFault, Invalid, NotFound
from app.kernel.errors import Refused as RefusedError
from app.kernel.ids import public_id
from app.kernel.names import check_name
from app.kernel.secrets import digest, digests, seal, unseal
from app.kernel.spreadsheet import csv_text
from app.stations.models import ChargingStation
from app.stations.redaction import mask
from app.stations.service import get_location
from tenants.scope import Scope
from themes.language import N_

ONE_OFF_LIFETIME = timedelta(minutes=15)
_TOKEN_TAKEN = "id_token_taken", "There is a token with this value and type already."
_GROUP_TAKEN = "driver_group_taken", "There is a group with this name already."
_DRIVER_TAKEN = "driver_taken", "There is a driver with this mail address already."


# --- tokens ------------------------------------------------------------------------------------------------------


def _check_value(value: str) -> str:
    cleaned = value.strip()
    if not 1 <= len(cleaned) <= 255 or not cleaned.isprintable() or not cleaned.isascii():
        raise Invalid.field("value", "value", "The value is 1 to 255 printable ASCII characters.")
    return cleaned


async def create_id_token(
    scope: Scope, *, value: str, type: str = "ISO14443", status: str = "accepted", label: str = "",  # noqa: A002
    parent_value: str | None = None, driver_id: UUID | None = None, driver_group_id: UUID | None = None,
    expires_at: datetime | None = None, is_single_use: bool = False,
) -> IdToken:  # fmt: skip
    value = _check_value(value)
    if type not in TYPES:
        raise Invalid.field("type", "type", f"type is one of {', '.join(TYPES)}.")
    if status not in STATUSES:
        raise Invalid.field("status", "status", f"status is one of {', '.join(STATUSES)}.")
    if driver_id is not None:
        await get_driver(scope, driver_id)
    if driver_group_id is not None:
        await get_driver_group(scope, driver_group_id)
    found = select(IdToken.id).where(IdToken.value_digest.in_(_digests(scope, value)), IdToken.type == type)
    if (await scope.db.execute(found)).first():
        raise RefusedError(*_TOKEN_TAKEN)
    token = IdToken(
        type=type, **_hidden(scope, value), status=status, label=check_name(label, "label", required=None),
        parent_value=parent_value, driver_id=driver_id, driver_group_id=driver_group_id, expires_at=expires_at,
        is_single_use=is_single_use,
    )  # fmt: skip
    async with refusing_duplicates(scope, *_TOKEN_TAKEN):
        scope.db.add(token)
    if not is_single_use:
        await audit.record(
            scope, "id_token.created", "id_token", token.id, {"type": type, "masked": token.masked}
        )
        await local_lists.changed(scope)
    return token


def _hidden(scope: Scope, value: str) -> dict[str, Any]:
    """What is stored of a value: how it is found, how it is read again, how people see it."""
    keys = scope.settings.secret_keys
    return {
        "value_digest": digest(keys, "id_token", value.lower()), "value_sealed": seal(keys, "id_token", value),
        "masked": mask(value),
    }  # fmt: skip


async def create_one_off_token(scope: Scope) -> tuple[IdToken, str]:
    """For a remote start: at most 20 characters (1.6 idTag), single use, 15 minutes."""
    value = "LV" + stdlib_secrets.token_hex(9).upper()
    token = await create_id_token(
        scope, value=value, type="Central", is_single_use=True, expires_at=scope.now + ONE_OFF_LIFETIME
    )
    return token, value


def _digests(scope: Scope, value: str) -> list[bytes]:
    return digests(scope.settings.secret_keys, "id_token", value.lower())


async def find_id_token(scope: Scope, presented: IdTokenValue) -> IdToken | None:
    """Values compare without case; without a type (1.6) a token of any type matches, the oldest first.

    Looked up once in a transaction: one start asks for its card up to five times.
    """
    found: dict[IdTokenValue, IdToken] = scope.db.info.setdefault("id_tokens", {})
    if presented in found:
        return found[presented]
    query = (
        select(IdToken)
        .where(IdToken.value_digest.in_(_digests(scope, presented.value.strip())))
        .order_by(IdToken.created_at)
        .options(selectinload(IdToken.driver))
    )
    if presented.type is not None:
        query = query.where(IdToken.type == presented.type)
    token = (await scope.db.execute(query)).scalars().first()
    if token is not None:
        found[presented] = token
    return token


async def get_id_token(scope: Scope, id_token_id: UUID) -> IdToken:
    query = select(IdToken).where(IdToken.id == id_token_id).options(
        selectinload(IdToken.driver), selectinload(IdToken.driver_group)
    )  # fmt: skip
    token = (await scope.db.execute(query)).scalar_one_or_none()
    if token is None:
        raise NotFound("id_token")
    return token


async def update_id_token(scope: Scope, id_token_id: UUID, **changes: Any) -> IdToken:
    """`status, label, parent_value, driver_id, driver_group_id, expires_at`."""
    token = await get_id_token(scope, id_token_id)
    if "status" in changes and changes["status"] not in STATUSES:
        raise Invalid.field("status", "status", f"status is one of {', '.join(STATUSES)}.")
    if "label" in changes:
        changes["label"] = check_name(changes["label"], "label", required=None)
    if changes.get("driver_id") is not None:
        await get_driver(scope, changes["driver_id"])
    if changes.get("driver_group_id") is not None:
        await get_driver_group(scope, changes["driver_group_id"])
    for name in ("status", "label", "parent_value", "driver_id", "driver_group_id", "expires_at"):
        if name in changes:
            setattr(token, name, changes[name])
    await scope.db.flush()
    await audit.record(scope, "id_token.updated", "id_token", token.id, {"fields": sorted(changes)})
    await local_lists.changed(scope)
    return await get_id_token(scope, id_token_id)


async def delete_id_token(scope: Scope, id_token_id: UUID) -> bool:
    """False: a token that charged stays, as a blocked one, because its sessions name it."""
    token = await get_id_token(scope, id_token_id)
    used = text("select 1 from livery.charging_session where id_token_id = :id limit 1")
    was_used = (await scope.db.execute(used, {"id": id_token_id})).first() is not None
    if was_used:
        token.status = "blocked"
    else:
        await scope.db.delete(token)
    await audit.record(scope, "id_token.deleted", "id_token", id_token_id, {"masked": token.masked})
    await local_lists.changed(scope)
    return not was_used


async def reveal_id_token(scope: Scope, id_token_id: UUID) -> str:
    """The whole value, for those who may see it; each look is in the audit log."""
    token = await get_id_token(scope, id_token_id)
    await audit.record(scope, "id_token.revealed", "id_token", token.id, {"masked": token.masked})
    return unseal(scope.settings.secret_keys, "id_token", token.value_sealed)


# --- drivers and groups ------------------------------------------------------------------------------------------


async def create_driver_group(
    scope: Scope, *, name: str, collection: str = "per_session", location_ids: Iterable[UUID] = (),
    invoice_to: Mapping[str, str] | None = None,
) -> DriverGroup:  # fmt: skip
    """`location_ids` empty: the group may charge everywhere in its tenant. Faults of `invoice_to` are named
    `invoice_name` and so on."""
    group = DriverGroup(
        name=await _group_name(scope, name), collection=_collection(collection),
        invoice_to=_invoice_to(invoice_to or {}),
    )  # fmt: skip
    async with refusing_duplicates(scope, *_GROUP_TAKEN):
        scope.db.add(group)
    await set_group_locations(scope, group.id, location_ids)
    await audit.record(scope, "driver_group.created", "driver_group", group.id, {"name": group.name})
    return group


async def update_driver_group(
    scope: Scope, driver_group_id: UUID, *, name: str, collection: str, location_ids: Iterable[UUID],
    invoice_to: Mapping[str, str] | None = None,
) -> DriverGroup:  # fmt: skip
    """`invoice_to` None leaves it as it is."""
    group = await get_driver_group(scope, driver_group_id)
    name, collection = await _group_name(scope, name, group.id), _collection(collection)
    wanted = group.invoice_to if invoice_to is None else _invoice_to(invoice_to)
    async with refusing_duplicates(scope, *_GROUP_TAKEN):
        group.name, group.collection, group.invoice_to = name, collection, wanted
    await set_group_locations(scope, group.id, location_ids)
    await audit.record(scope, "driver_group.updated", "driver_group", group.id, {"name": group.name})
    return group


async def _group_name(scope: Scope, name: str, group_id: UUID | None = None) -> str:
    cleaned = check_name(name, required="The group needs a name.")
    taken = select(DriverGroup.id).where(DriverGroup.name == cleaned, DriverGroup.id != group_id)
    if (await scope.db.execute(taken)).first():
        raise RefusedError(*_GROUP_TAKEN)
    return cleaned


# Each is checked as the brand's own is.
INVOICE_TO = {
    "name": "legal_name", "address": "address", "postal_code": "postal_code", "city": "city", "country": "country",
    "vat_id": "vat_id", "email": "support_email", "reference": "tax_number",
}  # fmt: skip


def _invoice_to(values: Mapping[str, str]) -> dict[str, str]:
    """What of it is told."""
    found: dict[str, str] = {}
    faults: list[FieldFault] = []
    for name, like in INVOICE_TO.items():
        value = values.get(name, "").strip()
        try:
            found[name] = check_profile({like: value})[like] if value else ""
        except Invalid as error:
            faults += [FieldFault(f"invoice_{name}", one.code, one.message) for one in error.faults]
    if faults:
        raise Invalid("invalid", "Whom the invoice is for has wrong fields.", faults=faults)
    return {name: value for name, value in found.items() if value}


def _collection(collection: str) -> str:
    if collection not in ("per_session", "monthly", "free"):
        raise Invalid.field("collection", "collection", "collection is per_session, monthly or free.")
    return collection


async def set_group_locations(scope: Scope, driver_group_id: UUID, location_ids: Iterable[UUID]) -> None:
    wanted = set(location_ids)
    for location_id in wanted:
        await get_location(scope, location_id)
    await scope.db.execute(
        delete(DriverGroupLocation).where(DriverGroupLocation.driver_group_id == driver_group_id)
    )
    scope.db.add_all(DriverGroupLocation(driver_group_id=driver_group_id, location_id=one) for one in wanted)
    await scope.db.flush()
    await local_lists.changed(scope)


async def list_driver_groups(scope: Scope) -> list[DriverGroup]:
    """By name."""
    return list((await scope.db.execute(select(DriverGroup).order_by(DriverGroup.name))).scalars())


async def get_driver_group(scope: Scope, driver_group_id: UUID) -> DriverGroup:
    group = await scope.db.get(DriverGroup, (scope.tenant_id, driver_group_id))
    if group is None:
        raise NotFound("driver_group")
    return group


async def create_driver(
    scope: Scope, *, name: str, email: str | None = None, driver_group_id: UUID | None = None
) -> Driver:
    driver = Driver()
    async with refusing_duplicates(scope, *_DRIVER_TAKEN):
        await _set_driver(scope, driver, name, email, driver_group_id)
        scope.db.add(driver)
    await audit.record(scope, "driver.created", "driver", driver.id, {})
    return driver


async def update_driver(
    scope: Scope, driver_id: UUID, *, name: str, email: str | None, driver_group_id: UUID | None
) -> Driver:
    driver = await get_driver(scope, driver_id)
    async with refusing_duplicates(scope, *_DRIVER_TAKEN):
        await _set_driver(scope, driver, name, email, driver_group_id)
    await audit.record(scope, "driver.updated", "driver", driver.id, {})
    await local_lists.changed(scope)  # they may be in another group now
    return driver


async def _set_driver(
    scope: Scope, driver: Driver, name: str, email: str | None, driver_group_id: UUID | None
) -> None:
    name, address = check_name(name, required="The driver needs a name."), (email or "").strip()
    address = check_email(address) if address else ""
    if address:
        taken = select(Driver.id).where(Driver.email_norm == email_norm(address), Driver.id != driver.id)
        if (await scope.db.execute(taken)).first():
            raise RefusedError(*_DRIVER_TAKEN)
    if driver_group_id is not None:
        await get_driver_group(scope, driver_group_id)
    driver.name, driver.driver_group_id = name, driver_group_id
    driver.email, driver.email_norm = address or None, email_norm(address) or None


async def get_driver(scope: Scope, driver_id: UUID) -> Driver:
    """A closed account is nobody's to read or to give to somebody else, who would find another's sessions."""
    driver = await scope.db.get(Driver, (scope.tenant_id, driver_id))
    if driver is None or driver.deleted_at is not None:
        raise NotFound("driver")
    return driver


# --- many at once ------------------------------------------------------------------------------------------------


def end_of_day(day: date, time_zone: str) -> datetime:
    """A card that expires on a day works on that day."""
    return datetime.combine(day, time(23, 59, 59), ZoneInfo(time_zone))


async def plan_import(
    scope: Scope, table: csv_import.Table, columns: Sequence[str], *, time_zone: str
) -> Plan:
    """What the file would change, and every fault in it; nothing is written. Invalid as `read_rows` says."""
    rows, faults = await asyncio.to_thread(csv_import.read_rows, table, columns)
    plan = await asyncio.to_thread(csv_import.match, rows, columns, await _known(scope, rows, time_zone))
    plan.faults = sorted([*faults, *plan.faults])
    return plan


async def import_drivers(
    scope: Scope, table: csv_import.Table, columns: Sequence[str], *, time_zone: str, seen: str
) -> Plan:
    """All of the file, or nothing: Plan.is_done is False where it has faults, and where it would do something else than
    the plan of which `seen` is the digest. Importing twice is once.

    Errors: `import_running`.
    """
    lock = text("select pg_try_advisory_xact_lock(hashtext(:tenant), hashtext('drivers.import'))")
    if not (await scope.db.execute(lock, {"tenant": str(scope.tenant_id)})).scalar_one():
        raise RefusedError(
            "import_running", "Another import is being written right now. Look again when it is done."
        )
    plan = await plan_import(scope, table, columns, time_zone=time_zone)
    plan.is_done = not plan.faults and (plan.is_empty or plan.digest == seen)
    if plan.is_done and not plan.is_empty:
        await _write(scope, plan, time_zone)
    return plan


_Found = TypeVar("_Found")
_SLICE = 250  # rows after which others are served


async def _in_parts(
    scope: Scope, query: Select[_Found], column: ColumnElement[Any], wanted: Iterable[Any]
) -> AsyncIterator[list[_Found]]:
    """A statement takes 65,535 parameters, and who reads thousands of rows at once keeps everybody waiting."""
    values = list(wanted)
    for start in range(0, len(values), _SLICE):
        part = query.where(column.in_(values[start : start + _SLICE]))
        yield list((await scope.db.execute(part)).scalars())


async def _known(scope: Scope, rows: list[csv_import.Row], time_zone: str) -> Known:
    """What is there of the drivers, cards and groups that the rows name."""
    groups = {one.id: one.name for one in await list_driver_groups(scope)}

    def sought() -> tuple[dict[bytes, str], set[str]]:
        by_digest = {found: row.card for row in rows if row.card for found in _digests(scope, row.card)}
        return by_digest, {email_norm(row.email) for row in rows if row.email}

    by_digest, mails = await asyncio.to_thread(sought)
    tokens = list[IdToken]()
    async for part in _in_parts(scope, select(IdToken), _column(IdToken.value_digest), by_digest):
        tokens += part
    everybody: dict[UUID, Driver] = {}
    for column, wanted in (
        (_column(Driver.email_norm), mails),
        (_column(Driver.name), {row.name for row in rows if row.name}),
        (_column(Driver.id), {one.driver_id for one in tokens if one.driver_id}),
    ):
        here = select(Driver).where(Driver.deleted_at.is_(None))
        async for part in _in_parts(scope, here, column, wanted):
            everybody |= {one.id: one for one in part}
    states = {
        key: DriverState(
            id=key, name=one.name, email=one.email or "", group=groups.get(one.driver_group_id or key, "")
        )
        for key, one in sorted(everybody.items())
    }
    zone = ZoneInfo(time_zone)
    cards = [
        CardState(
            id=one.id, value=by_digest[one.value_digest], type=one.type, label=one.label, status=one.status,
            driver=states[one.driver_id] if one.driver_id else None, is_single_use=one.is_single_use,
            group=groups.get(one.driver_group_id or one.id, ""),
            expires=one.expires_at.astimezone(zone).date() if one.expires_at else None,
        )
        for one in sorted(tokens, key=lambda one: one.id)
    ]  # fmt: skip
    return Known(list(states.values()), cards, sorted(groups.values()))


def _column(attribute: Any) -> ColumnElement[Any]:
    return attribute


async def _write(scope: Scope, plan: Plan, time_zone: str) -> None:
    deeds: list[tuple[str, str, object, dict[str, Any]]] = []
    for name in plan.new_groups:
        group = DriverGroup(id=uuid7(), name=name)
        scope.db.add(group)
        deeds.append(("driver_group.created", "driver_group", group.id, {"name": name}))
    await scope.db.flush()
    groups = {one.name: one.id for one in await list_driver_groups(scope)} | {"": None}
    for states in _slices(plan.new_drivers):
        for state in states:
            state.id = uuid7()
            deeds.append(("driver.created", "driver", state.id, {}))
        rows = [{"id": state.id, **_driver_values(state, groups)} for state in states]
        await scope.db.execute(insert(Driver), rows)
    changed = {state.id: state for state in plan.changed_drivers}
    async for drivers in _in_parts(scope, select(Driver), _column(Driver.id), changed):
        for driver in drivers:
            _fill(driver, _driver_values(changed[driver.id], groups))
            deeds.append(("driver.updated", "driver", driver.id, {}))
        await scope.db.flush()
    for cards in _slices(plan.new_cards):
        hidden = await asyncio.to_thread(lambda some: [_hidden(scope, card.value) for card in some], cards)
        rows = [
            {"id": uuid7(), "type": card.type, **stored, **_card_values(card, groups, time_zone)}
            for card, stored in zip(cards, hidden, strict=True)
        ]
        await scope.db.execute(insert(IdToken), rows)
        deeds += [
            ("id_token.created", "id_token", row["id"], {"type": row["type"], "masked": row["masked"]})
            for row in rows
        ]
    changed_cards = {card.id: card for card in plan.changed_cards}
    async for tokens in _in_parts(scope, select(IdToken), _column(IdToken.id), changed_cards):
        for token in tokens:
            _fill(token, _card_values(changed_cards[token.id], groups, time_zone, token.expires_at))
            deeds.append(("id_token.updated", "id_token", token.id, {"masked": token.masked}))
        await scope.db.flush()
    counts = {"drivers": len(plan.new_drivers), "cards": len(plan.new_cards), "groups": len(plan.new_groups)}
    await audit.record_all(scope, [*deeds, ("drivers.imported", "tenant", scope.tenant_id, counts)])
    await local_lists.changed(scope)


def _slices(found: list[_Found]) -> Iterable[list[_Found]]:
    return (found[start : start + _SLICE] for start in range(0, len(found), _SLICE))


def _driver_values(state: DriverState, groups: dict[str, UUID | None]) -> dict[str, Any]:
    return {
        "name": state.name, "driver_group_id": groups[state.group], "email": state.email or None,
        "email_norm": email_norm(state.email) or None,
    }  # fmt: skip


def _card_values(
    card: CardState, groups: dict[str, UUID | None], time_zone: str, expires_at: datetime | None = None
) -> dict[str, Any]:
    """`expires_at`: as it is so far; its time of the day stays where the day does."""
    if (expires_at.astimezone(ZoneInfo(time_zone)).date() if expires_at else None) != card.expires:
        expires_at = end_of_day(card.expires, time_zone) if card.expires else None
    return {
        "label": card.label, "status": card.status, "driver_group_id": groups[card.group],
        "driver_id": card.driver.id if card.driver else None, "expires_at": expires_at,
    }  # fmt: skip


def _fill(row: Driver | IdToken, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)


async def export_drivers(scope: Scope, *, time_zone: str) -> str:
    """CSV with the columns an import reads: a row per card, and one per driver without any.

    Card numbers are whole for those who may see them, and that is in the audit log.
    """
    is_whole, zone = scope.actor.may("id_tokens.reveal"), ZoneInfo(time_zone)
    groups = {one.id: one.name for one in await list_driver_groups(scope)}
    query = select(Driver).where(Driver.deleted_at.is_(None)).order_by(Driver.name, Driver.id)
    drivers = list((await scope.db.execute(query)).scalars())
    owned: dict[UUID | None, list[IdToken]] = {}
    query = select(IdToken).where(IdToken.is_single_use.is_(False)).order_by(IdToken.id)
    for token in (await scope.db.execute(query)).scalars():
        owned.setdefault(token.driver_id, []).append(token)
    if is_whole and owned:
        count = sum(map(len, owned.values()))
        await audit.record(scope, "id_tokens.exported", "tenant", scope.tenant_id, {"count": count})
    keys = scope.settings.secret_keys

    def cells(driver: Driver | None, token: IdToken | None) -> list[str]:
        group_id = driver.driver_group_id if driver else (token.driver_group_id if token else None)
        who = [
            driver.name if driver else "",
            (driver.email or "") if driver else "",
            groups[group_id] if group_id else "",
        ]
        if token is None:
            return [*who, "", "", "", "", ""]
        value = unseal(keys, "id_token", token.value_sealed) if is_whole else token.masked
        expires = token.expires_at.astimezone(zone).date().isoformat() if token.expires_at else ""
        return [*who, value, token.type, token.label, token.status, expires]

    def write() -> str:
        rows = [cells(one, token) for one in drivers for token in owned.get(one.id, [None])]
        rows += [cells(None, token) for token in owned.get(None, [])]
        return csv_text(csv_import.HEADERS, rows)

    return await asyncio.to_thread(write)


# --- may this token charge? --------------------------------------------------------------------------------------

_STATUS: dict[str, tuple[AuthorizationStatus, str]] = {
    "blocked": ("Blocked", N_("This token is blocked.")),
    "expired": ("Expired", N_("This token has expired.")),
    "invalid": ("Invalid", N_("This token is not valid.")),
}


async def plan_authorization(
    scope: Scope, station_id: UUID, presented: IdTokenValue, evse_no: int | None = None
) -> Verdict:
    """The first of plan -> ask -> conclude: what the database alone can say.

    A token of another tenant is unknown here, indistinguishable from one that nobody has (ocpp.md 2, row 57).
    """
    tenant_status = (
        await scope.db.execute(text("select status from platform.own_tenant()"))
    ).scalar_one_or_none()
    if tenant_status != "active":
        return Refused(
            status="Blocked",
            reason="tenant_suspended",
            message=N_("This operator takes no new sessions now."),
        )
    token = await find_id_token(scope, presented)
    if token is None and presented.type == "DirectPayment" and await _has_terminal(scope, station_id):
        return Accepted(id_token_id=None)  # a bank has said yes, at a terminal that is known here
    if token is None:
        return Refused(status="Invalid", reason="unknown", message="This token is not known here.")
    return await judge(scope, token, station_id)


async def _has_terminal(scope: Scope, station_id: UUID) -> bool:
    query = text("""
        select exists (select from livery.payment_terminal t
                         join livery.charging_station s on s.tenant_id = t.tenant_id and s.location_id = t.location_id
                        where s.id = :station and t.retired_at is null
                          and (t.station_id is null or t.station_id = s.id))""")
    return bool((await scope.db.execute(query, {"station": station_id})).scalar_one())


async def judge(scope: Scope, token: IdToken, station_id: UUID) -> Accepted | Refused:
    """A token that is known, with its driver loaded."""
    if token.status != "accepted":
        status, message = _STATUS[token.status]
        return _refusal(token, status, token.status, message)
    if token.expires_at is not None and token.expires_at <= scope.now:
        return _refusal(token, "Expired", "expired", N_("This token has expired."))
    if token.is_single_use and token.used_at is not None:
        return _refusal(token, "Invalid", "used", "This one-off token was used already.")
    group_id = token.driver_group_id or (token.driver.driver_group_id if token.driver else None)
    if group_id is not None and not await may_charge_at(scope, group_id, station_id):
        return _refusal(
            token, "NotAtThisLocation", "not_at_this_location", N_("This token may not charge at this site.")
        )
    if why := await _payment_block(scope, token, group_id, station_id):
        return _refusal(token, "NoCredit", why, BLOCKED_BY_PAYMENT[why])
    if await second_use(scope, token.id, station_id) == "refuse":
        return _refusal(
            token, "ConcurrentTx", "in_use_elsewhere", N_("This token is charging at another site right now.")
        )
    return Accepted(
        id_token_id=token.id, driver_id=token.driver_id, driver_group_id=group_id, group_value=token.parent_value,
        expires_at=token.expires_at,
    )  # fmt: skip


BLOCKED_BY_PAYMENT = {
    "payment_due": N_("A session of this driver is to be paid first."),
    "no_card_on_file": N_("This driver has to save a payment card first."),
}


async def _payment_block(scope: Scope, token: IdToken, group_id: UUID | None, station_id: UUID) -> str | None:
    """Why a driver who pays each session starts none: what their saved card did not pay, or no card where the brand
    wants one (money.md 1.3), nor a wallet with what a card would hold. Not where nothing is collected, or once a
    month."""
    if token.driver_id is None or not scope.settings.takes_cards:
        return None
    query = text("""
        select a.card_on_file, exists (
                 select 1 from livery.payment p
                   join livery.saved_card c on c.tenant_id = p.tenant_id and c.id = p.saved_card_id
                   join livery.payer y on y.tenant_id = c.tenant_id and y.id = c.payer_id
                  where y.driver_id = :driver and p.failure <> ''
                    and p.state in ('created', 'requires_action', 'processing')) as is_due,
               exists (
                 select 1 from livery.saved_card c
                   join livery.payer y on y.tenant_id = c.tenant_id and y.id = c.payer_id
                  where y.driver_id = :driver and y.account_ref = a.account_ref and c.state = 'active'
                    and (c.exp_year, c.exp_month) >= (:year, :month)) as has_card,
               a.card_on_file = 'required'
               and exists (select 1 from livery.tenant_profile t where 'wallet' = any(t.pays_by))
               and a.hold_ac_minor <= (
                 select coalesce(-sum(e.amount_minor), 0) from livery.ledger_entry e
                   join livery.ledger_account l on l.tenant_id = e.tenant_id and l.id = e.account_id
                  where l.code = 'wallet_liability' and l.party = :party and l.currency = a.currency
               ) - (
                 select coalesce(sum(p.hold_minor), 0) from livery.payment p where p.provider = 'wallet'
                    and p.account_ref = :party and p.currency = a.currency and p.state in ('authorized', 'capturing')
               ) as has_wallet
          from livery.payment_account a
         where a.is_ready and a.card_on_file <> 'off' and a.provider = :provider
           and not exists (select 1 from livery.driver_group g where g.id = :group and g.collection <> 'per_session')
           and not exists (
                 select 1 from livery.charging_station s
                   join livery.location l on l.tenant_id = s.tenant_id and l.id = s.location_id
                  where s.id = :station and l.is_free_vend)""")
    values = {
        "driver": token.driver_id, "group": group_id, "station": station_id, "year": scope.now.year,
        "month": scope.now.month, "party": public_id("driver", token.driver_id),
        "provider": "sandbox" if scope.settings.uses_sandbox else "stripe",
    }  # fmt: skip
    row = (await scope.db.execute(query, values)).first()
    if row is None:
        return None
    if row.is_due:
        return "payment_due"
    has_means = row.has_card or row.has_wallet
    return "no_card_on_file" if row.card_on_file == "required" and not has_means else None


def _refusal(token: IdToken, status: AuthorizationStatus, reason: str, message: str) -> Refused:
    return Refused(
        status=status, reason=reason, message=message, id_token_id=token.id, group_value=token.parent_value
    )


async def may_charge_at(scope: Scope, group_id: UUID, station_id: UUID) -> bool:
    query = select(DriverGroupLocation.location_id).where(DriverGroupLocation.driver_group_id == group_id)
    allowed = set((await scope.db.execute(query)).scalars())
    if not allowed:
        return True
    where = select(ChargingStation.location_id).where(ChargingStation.id == station_id)
    return (await scope.db.execute(where)).scalar_one_or_none() in allowed


async def second_use(
    scope: Scope, id_token_id: UUID, station_id: UUID, at: datetime | None = None
) -> str | None:
    """The brand's rule (hold, refuse) where the token has charged at another site since before `at`, and still does;
    else None (ocpp.md 2, row 56)."""
    query = text("""
        select p.card_use from livery.tenant_profile p
         where p.card_use <> 'anywhere' and exists (
           select 1 from livery.charging_session s
             join livery.charging_station there on there.tenant_id = s.tenant_id and there.id = s.station_id
             join livery.charging_station here on here.tenant_id = s.tenant_id and here.id = :station
            where s.id_token_id = :token and s.status = 'ACTIVE' and s.started_at <= :at and there.id <> here.id
              and (there.location_id is null or there.location_id is distinct from here.location_id))""")
    values = {"token": id_token_id, "station": station_id, "at": at or scope.now}
    return (await scope.db.execute(query, values)).scalar_one_or_none()


async def tell_second_use(scope: Scope, id_token_id: UUID, station_id: UUID) -> None:
    """Its driver learns of it."""
    await events.emit(
        scope, "CardUsedTwice", "id_token", id_token_id, {"station": str(station_id)}, public=False
    )


async def conclude_authorization(
    scope: Scope, station_id: UUID, presented: IdTokenValue, verdict: Verdict
) -> Accepted | Refused:
    """The last step: what an outside party answered becomes ours. Without an outside answer a question is refused."""
    if isinstance(verdict, Accepted | Refused):
        return verdict
    return Refused(status="Invalid", reason="no_answer", message=f"{verdict.party} did not answer in time.")


async def mark_used(scope: Scope, id_token_id: UUID) -> None:
    token = await scope.db.get(IdToken, (scope.tenant_id, id_token_id))
    if token is not None and token.is_single_use and token.used_at is None:
        token.used_at = scope.now
