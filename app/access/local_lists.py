"""Local authorisation lists: which tokens a station knows by itself when it cannot ask (OCPP 1.6 5.15, 2.0.1 block D).

A station's list follows the tokens: a change makes it due, a job sends the difference to what the station confirmed
last, in messages as long as it takes. Where nobody knows what it holds, the whole list goes. An update is accepted
message by message; the version it holds is that of the last one it accepted.

Errors: `not_covered` (the station has no list that could be sent), `station_retired`.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import selectinload

from app.access.models import DriverGroup, DriverGroupLocation, IdToken, LocalList, LocalListGroup
from app.device_model.models import StationVariable
from app.kernel import audit, events, queue
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.secrets import seal, unseal
from app.stations import commands
from app.stations.models import ChargingStation, StationCommand, StationConnection
from tenants.scope import Scope

PATIENCE = timedelta(seconds=20)  # changes come in handfuls: one list holds them all
DEFAULT_PER_MESSAGE = 100
COVERS = ("none", "all", "groups")
SOURCE = "local_list"

Entries = dict[str, dict[str, Any]]
_WORDS_16 = {"accepted": "Accepted", "blocked": "Blocked", "expired": "Expired", "invalid": "Invalid"}


# --- the difference (pure) ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One SendLocalList. `entries`: key -> what the station shall know of it; None removes it."""

    update: Literal["Full", "Differential"]
    version: int
    entries: dict[str, dict[str, Any] | None]


def plan(wanted: Entries, held: Entries | None, version: int, per_message: int) -> list[Step]:
    """The messages that lead from what is held to what is wanted, none where they are the same.

    `held` None: not known, so the first message replaces everything. A list longer than a message begins full and goes
    on with differences (2.0.1 D01.FR.05).
    """
    if held is None:
        parts = _parts(dict(wanted), per_message) or [{}]
        kinds: list[Literal["Full", "Differential"]] = ["Full", *["Differential"] * (len(parts) - 1)]  # type: ignore[list-item]
    else:
        gone: dict[str, dict[str, Any] | None] = dict.fromkeys(sorted(held.keys() - wanted.keys()))
        fresh = {key: info for key, info in wanted.items() if held.get(key) != info}
        parts = _parts(gone | fresh, per_message)
        kinds = ["Differential"] * len(parts)
    return [
        Step(kind, version + number, part)
        for number, (kind, part) in enumerate(zip(kinds, parts, strict=True), 1)
    ]


def _parts(
    entries: dict[str, dict[str, Any] | None], per_message: int
) -> list[dict[str, dict[str, Any] | None]]:
    items = list(entries.items())
    return [dict(items[start : start + per_message]) for start in range(0, len(items), per_message)]


def apply(held: Entries | None, step: Step) -> Entries:
    """What the station holds once it has accepted the step."""
    before = {} if step.update == "Full" else dict(held or {})
    for key, info in step.entries.items():
        if info is None:
            before.pop(key, None)
        else:
            before[key] = info
    return before


def message(ocpp_version: str, step: Step) -> dict[str, Any]:
    """SendLocalList as on the wire. An empty list is left out: 2.x allows none of length 0."""
    if ocpp_version == "ocpp1.6":
        listed: list[dict[str, Any]] = [
            {"idTag": key} | ({} if info is None else {"idTagInfo": info})
            for key, info in step.entries.items()
        ]
        payload: dict[str, Any] = {"listVersion": step.version, "updateType": step.update}
    else:
        listed = [
            {"idToken": _token(key)} | ({} if info is None else {"idTokenInfo": info})
            for key, info in step.entries.items()
        ]
        payload = {"versionNumber": step.version, "updateType": step.update}
    return payload | ({"localAuthorizationList": listed} if listed else {})


def _token(key: str) -> dict[str, str]:
    type_, _, value = key.partition("|")
    return {"idToken": value, "type": type_}


# --- which tokens ------------------------------------------------------------------------------------------------


async def wanted_entries(scope: Scope, row: LocalList, ocpp_version: str) -> Entries:
    """What the station shall know: tokens of its groups, as they would be answered there, the oldest first.

    A token that may not charge at its site is left out; a blocked one is in, so that it is refused offline as well.
    """
    query = (
        select(IdToken).where(IdToken.is_single_use.is_(False)).order_by(IdToken.id)
        .options(selectinload(IdToken.driver))
    )  # fmt: skip
    groups = await groups_of(scope, row.id) if row.covers == "groups" else None
    allowed = await _groups_elsewhere(scope, row.station_id)
    longest = 20 if ocpp_version == "ocpp1.6" else 36
    found: Entries = {}
    for token in (await scope.db.execute(query)).scalars():
        group_id = token.driver_group_id or (token.driver.driver_group_id if token.driver else None)
        if (groups is not None and group_id not in groups) or group_id in allowed:
            continue
        value = unseal(scope.settings.secret_keys, "id_token", token.value_sealed)
        if len(value) <= longest:
            key = value if ocpp_version == "ocpp1.6" else f"{token.type}|{value}"
            found.setdefault(key, _info(ocpp_version, token))
    return found


async def _groups_elsewhere(scope: Scope, station_id: UUID) -> set[UUID]:
    """Groups with sites of their own, among which this station's is not."""
    where = select(ChargingStation.location_id).where(ChargingStation.id == station_id)
    here = (await scope.db.execute(where)).scalar_one_or_none()
    rows = (
        await scope.db.execute(select(DriverGroupLocation.driver_group_id, DriverGroupLocation.location_id))
    ).all()
    return {group for group, _ in rows} - {group for group, location in rows if location == here}


def _info(ocpp_version: str, token: IdToken) -> dict[str, Any]:
    """1.6 IdTagInfo, 2.x IdTokenInfo."""
    info: dict[str, Any] = {"status": _WORDS_16[token.status]}
    group, expires = token.parent_value, token.expires_at
    if ocpp_version == "ocpp1.6":
        return info | ({"expiryDate": _wire(expires)} if expires else {}) | (
            {"parentIdTag": group[:20]} if group else {}
        )  # fmt: skip
    return info | ({"cacheExpiryDateTime": _wire(expires)} if expires else {}) | (
        {"groupIdToken": {"idToken": group[:36], "type": "Central"}} if group else {}
    )  # fmt: skip


def _wire(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def groups_of(scope: Scope, local_list_id: UUID) -> set[UUID]:
    query = select(LocalListGroup.driver_group_id).where(LocalListGroup.local_list_id == local_list_id)
    return set((await scope.db.execute(query)).scalars())


# --- what staff decide -------------------------------------------------------------------------------------------


async def get_list(scope: Scope, station_id: UUID) -> LocalList:
    """Made on first sight: every station has one, if only an empty wish. NotFound."""
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id))
    if station is None:
        raise NotFound("charging_station")
    row = await _find(scope, station_id)
    if row is None:
        row = _none_yet(station_id)
        scope.db.add(row)
        await scope.db.flush()
    return row


async def look_at(scope: Scope, station_id: UUID) -> LocalList:
    """The same for those who only look: nothing is written. NotFound."""
    if await scope.db.get(ChargingStation, (scope.tenant_id, station_id)) is None:
        raise NotFound("charging_station")
    return await _find(scope, station_id) or _none_yet(station_id)


def _none_yet(station_id: UUID) -> LocalList:
    return LocalList(
        station_id=station_id, covers="none", state="unset", entry_count=0, left_out_count=0, said=""
    )


async def _find(scope: Scope, station_id: UUID, *, locked: bool = False) -> LocalList | None:
    query = select(LocalList).where(LocalList.station_id == station_id)
    if locked:
        query = query.with_for_update().execution_options(populate_existing=True)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def cover(scope: Scope, station_id: UUID, covers: str, group_ids: Iterable[UUID] = ()) -> LocalList:
    """Whose tokens the station shall know: `none` stops sending, `all`, or `groups` with their ids."""
    row = await get_list(scope, station_id)
    if covers not in COVERS:
        raise Invalid.field("covers", "covers", f"covers is one of {', '.join(COVERS)}.")
    wanted = set(group_ids) if covers == "groups" else set()
    if covers == "groups" and not wanted:
        raise Invalid.field("group_ids", "required", "Choose at least one group.")
    for group_id in wanted:
        if await scope.db.get(DriverGroup, (scope.tenant_id, group_id)) is None:
            raise NotFound("driver_group")
    await scope.db.execute(delete(LocalListGroup).where(LocalListGroup.local_list_id == row.id))
    scope.db.add_all(LocalListGroup(local_list_id=row.id, driver_group_id=one) for one in wanted)
    row.covers = covers
    await scope.db.flush()
    await audit.record(
        scope, "local_list.covered", "charging_station", station_id, {"covers": covers, "groups": len(wanted)}
    )
    if covers != "none":
        await changed(scope, station_id)
    return row


async def changed(scope: Scope, station_id: UUID | None = None) -> None:
    """Tokens, drivers or groups are not what they were: lists that are sent become due. Cheap where there is none."""
    statement = (
        update(LocalList)
        .where(LocalList.covers != "none", LocalList.due_at.is_(None), LocalList.state != "not_supported")
        .values(due_at=scope.now + PATIENCE)
        .returning(LocalList.id)
    )
    if station_id is not None:
        statement = statement.where(LocalList.station_id == station_id)
    if (await scope.db.execute(statement)).all():
        await queue.enqueue(scope, "access.sync_lists", at=scope.now + PATIENCE, lock="access.lists")


async def sync_due(scope: Scope) -> int:
    """What became due is sent; what waits for its station goes when it connects."""
    query = select(LocalList.station_id).where(
        LocalList.due_at <= scope.now, LocalList.covers != "none", LocalList.state != "sending"
    )
    due = list((await scope.db.execute(query)).scalars())
    for station_id in due:
        await _sync(scope, station_id, whole=False)
    return len(due)


async def send_now(scope: Scope, station_id: UUID, *, whole: bool = False) -> LocalList:
    """The difference at once; `whole` replaces what the station holds. Waits where it is offline. `not_covered`."""
    row = await get_list(scope, station_id)
    if row.covers == "none" and not whole:
        raise Refused("not_covered", "Choose first whose tokens the station shall know.")
    await audit.record(scope, "local_list.sent", "charging_station", station_id, {"whole": whole})
    return await _sync(scope, station_id, whole=whole)


async def station_connected(scope: Scope, station_id: UUID) -> None:
    """What waited for it."""
    row = await _find(scope, station_id)
    if row is not None and row.state == "waiting":
        await _sync(scope, station_id, whole=False)


async def ask_version(scope: Scope, station_id: UUID) -> StationCommand:
    """GetLocalListVersion: what the station says it holds."""
    row = await get_list(scope, station_id)
    return await commands.send_command(
        scope, station_id, "GetLocalListVersion", {}, source_type=SOURCE, source_id=row.id
    )


async def clear_cache(scope: Scope, station_id: UUID) -> StationCommand:
    """ClearCache (C11): the station forgets whom it let charge before, and asks us again."""
    row = await get_list(scope, station_id)
    return await commands.send_command(
        scope, station_id, "ClearCache", {}, source_type=SOURCE, source_id=row.id
    )


# --- on its way --------------------------------------------------------------------------------------------------


async def _sync(scope: Scope, station_id: UUID, *, whole: bool) -> LocalList:
    row = await _find(scope, station_id, locked=True)
    assert row is not None
    if row.state == "sending" and await _is_open(scope, row):
        row.due_at = scope.now  # what changed meanwhile follows when this list is there
        return row
    row.due_at, row.steps_sealed, row.command_id = None, None, None
    link = await _link(scope, station_id)
    if link is None or not link.is_online:
        row.held_sealed = None if whole else row.held_sealed
        row.state, row.said = "waiting", ""
        return row
    wanted = {} if row.covers == "none" else await wanted_entries(scope, row, link.ocpp_version)
    most = await _limit(scope, station_id, "LocalAuthListMaxLength")
    if most is not None and len(wanted) > most:
        row.left_out_count, wanted = len(wanted) - most, dict(list(wanted.items())[:most])
    else:
        row.left_out_count = 0
    held = None if whole else _held(scope, row, link.ocpp_version)
    per_message = await _limit(scope, station_id, *_PER_MESSAGE[link.ocpp_version == "ocpp1.6"])
    steps = plan(wanted, held, row.version or 0, per_message or DEFAULT_PER_MESSAGE)
    if not steps:
        row.state, row.said, row.synced_at = "in_sync", "", scope.now
        return row
    await _send(scope, row, link.ocpp_version, steps)
    return row


_PER_MESSAGE = {True: ("SendLocalListMaxLength",), False: ("ItemsPerMessage", "ItemsPerMessageSendLocalList")}


async def _limit(scope: Scope, station_id: UUID, *names: str) -> int | None:
    """As the station last told it."""
    query = select(StationVariable.value).where(
        StationVariable.station_id == station_id, StationVariable.name.in_(names),
        or_(StationVariable.component == "", StationVariable.component == "LocalAuthListCtrlr"),
    )  # fmt: skip
    values = [value for value in (await scope.db.execute(query)).scalars() if value and value.isdigit()]
    return max(int(values[0]), 1) if values else None


async def _link(scope: Scope, station_id: UUID) -> StationConnection | None:
    query = select(StationConnection).where(StationConnection.station_id == station_id)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def _is_open(scope: Scope, row: LocalList) -> bool:
    if row.command_id is None:
        return False
    command = await commands.get_command(scope, row.command_id)
    return command.status in ("queued", "sent")


async def _send(
    scope: Scope, row: LocalList, ocpp_version: str, steps: list[Step], *, began_full: bool | None = None
) -> None:
    """The first of what is left; the others wait for its answer."""
    began = steps[0].update == "Full" if began_full is None else began_full
    on_way = {"protocol": ocpp_version, "began_full": began, "steps": [asdict(step) for step in steps]}
    row.steps_sealed = _seal(scope, on_way)
    row.state, row.said, row.asked_at = "sending", "", scope.now
    command = await commands.send_command(
        scope, row.station_id, "SendLocalList", message(ocpp_version, steps[0]), source_type=SOURCE,
        source_id=row.id,
    )  # fmt: skip
    row.command_id = command.id


def _seal(scope: Scope, value: Any) -> str:
    return seal(scope.settings.secret_keys, SOURCE, json.dumps(value))


def _held(scope: Scope, row: LocalList, ocpp_version: str) -> Entries | None:
    """None where it is not known, or the station has changed its language since."""
    if row.held_sealed is None:
        return None
    known = json.loads(unseal(scope.settings.secret_keys, SOURCE, row.held_sealed))
    return known["entries"] if known["protocol"] == ocpp_version else None


async def command_ended(scope: Scope, event_id: UUID) -> None:
    """The station's answer to SendLocalList or GetLocalListVersion."""
    event = await scope.db.get(events.Event, (scope.tenant_id, event_id))
    if event is None or SOURCE not in event.data:
        return
    command = await commands.get_command(scope, event.source_id)
    row = await _find(scope, command.station_id, locked=True)
    if row is None:
        return
    if command.action == "GetLocalListVersion":
        await _version_told(scope, row, command)
    elif command.action == "SendLocalList" and row.command_id == command.id and row.state == "sending":
        await _answered(scope, row, command)
    scope.publish(f"station:{row.station_id}", {"what": "local_list"})


async def _version_told(scope: Scope, row: LocalList, command: StationCommand) -> None:
    answer = command.answer or {}
    told = answer.get("listVersion", answer.get("versionNumber"))
    if command.status == "failed" and _knows_none(command):
        row.state, row.said = "not_supported", command.error or ""
    if not isinstance(told, int) or row.state == "sending":
        return
    if told < 0:
        row.state, row.version, row.held_sealed, row.entry_count = "not_supported", None, None, 0
        return
    if row.state == "not_supported":
        row.state = "unset"
    if told != row.version:  # somebody else's list, or one that was lost: the next is a full one
        link = await _link(scope, row.station_id)
        row.version, row.entry_count = told, 0
        row.held_sealed = (
            _seal(scope, {"protocol": link.ocpp_version, "entries": {}}) if told == 0 and link else None
        )
        row.state = "unset"
        if row.covers != "none":
            await changed(scope, row.station_id)
    elif row.state == "unsure" and row.covers != "none":
        await changed(scope, row.station_id)


def _knows_none(command: StationCommand) -> bool:
    return (command.error or "").startswith(("NotImplemented", "NotSupported"))


async def _answered(scope: Scope, row: LocalList, command: StationCommand) -> None:
    """Accepted: the next step, or done. Failed and VersionMismatch of a difference: the whole list (1.6 5.15)."""
    on_way = json.loads(unseal(scope.settings.secret_keys, SOURCE, row.steps_sealed or ""))
    protocol, steps = on_way["protocol"], [Step(**step) for step in on_way["steps"]]
    word = str((command.answer or {}).get("status", ""))
    row.said = word or command.error or ""
    if command.status == "accepted":
        row.version = steps[0].version
        entries = apply(_held(scope, row, protocol), steps[0])
        row.held_sealed, row.entry_count = (
            _seal(scope, {"protocol": protocol, "entries": entries}),
            len(entries),
        )
        if steps[1:]:
            await _send(scope, row, protocol, steps[1:], began_full=on_way["began_full"])
            return
        row.state, row.synced_at, row.steps_sealed, row.said = "in_sync", scope.now, None, ""
        if row.due_at is not None:
            await queue.enqueue(scope, "access.sync_lists", lock="access.lists")
        return
    row.steps_sealed = None
    if word == "NotSupported" or _knows_none(command):
        row.state = "not_supported"
    elif command.status == "rejected" and not on_way["began_full"]:
        row.version, row.held_sealed, row.state = max(row.version or 0, steps[0].version), None, "failed"
        await _sync(scope, row.station_id, whole=True)
    elif command.status in ("unknown", "expired"):
        row.held_sealed, row.state = None, "unsure"  # it may have been taken: the next is a full one
        row.version = max(row.version or 0, steps[0].version)
    else:
        row.state, row.held_sealed = "failed", None
