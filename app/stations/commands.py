"""What we ask of stations: queued as a row, sent by the gateway that holds the station, answered or expired.

States: queued -> sent -> accepted | rejected | unknown (no answer in 30 s: it may have happened) | failed; or expired.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select, update

from app.kernel import audit, events
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused
from app.kernel.secrets import seal, unseal
from app.stations import capabilities, ocpp_schemas
from app.stations.models import ChargingStation, StationCommand, StationConnection
from app.stations.redaction import redact
from app.stations.schema_forms import refusal
from tenants.redis import platform_key
from tenants.scope import Scope

DEFAULT_EXPIRY = timedelta(hours=1)
MAX_EXPIRY = timedelta(days=7)
Outcome = Literal["accepted", "rejected", "unknown", "failed"]
# What a station in quarantine is still asked: nothing that changes it or lets current flow.
READING = frozenset({
    "GetBaseReport", "GetChargingProfiles", "GetCompositeSchedule", "GetConfiguration", "GetDisplayMessages",
    "GetInstalledCertificateIds", "GetLocalListVersion", "GetMonitoringReport", "GetReport", "GetTransactionStatus",
    "GetVariables", "TriggerMessage", "ExtendedTriggerMessage",
})  # fmt: skip
QUARANTINED = "Two boxes use this station's identity: until staff decide, it is only read."


@dataclass(frozen=True, slots=True)
class ClaimedCommand:
    id: UUID
    action: str
    payload: dict[str, Any]
    expires_at: datetime
    # Why the station is not asked: it said before that it cannot. The gateway concludes it with these words.
    lack: str | None = None


def node_channel(node: str) -> str:
    """Where a gateway process hears of commands for its stations; opaque ids only."""
    return platform_key("gateway", node, "commands")


async def send_command(
    scope: Scope, station_id: UUID, action: str, payload: dict[str, Any], *, expires_in: timedelta = DEFAULT_EXPIRY,
    needs_online: bool = False, source_type: str | None = None, source_id: UUID | None = None,
) -> StationCommand:  # fmt: skip
    """`action` and `payload` as on the wire in the version the station speaks.

    A command to an offline station waits until it expires; with `needs_online` it is refused (`station_offline`): a
    start never waits.
    """
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id))
    if station is None:
        raise NotFound("charging_station")
    if station.retired_at is not None:
        raise Refused("station_retired", "This station is retired.")
    if station.quarantined_at is not None and action not in READING:
        raise Refused("station_quarantined", QUARANTINED)
    connection = await _connection(scope, station_id)
    if needs_online and not (connection and connection.is_online):
        raise Refused("station_offline", "The station is offline, and a start does not wait.")
    check_command(connection.ocpp_version if connection else "", action, payload)
    _refuse_downgrade(station, action, payload)
    shown = redact(payload)
    command = StationCommand(
        station_id=station_id, action=action, payload=shown,
        payload_sealed=None if shown == payload else seal(scope.settings.secret_keys, "command", json.dumps(payload)),
        actor=scope.actor.name or scope.actor.kind, source_type=source_type, source_id=source_id,
        created_at=scope.now, expires_at=scope.now + min(max(expires_in, timedelta(seconds=5)), MAX_EXPIRY),
    )  # fmt: skip
    scope.db.add(command)
    await scope.db.flush()
    await audit.record(
        scope, "command.sent", "charging_station", station_id, {"action": action, "command": str(command.id)}
    )
    scope.publish(f"station:{station_id}", {"what": "command", "command": str(command.id)})
    if connection and connection.is_online:
        _wake(scope, connection.node, station_id)
    return command


async def _connection(scope: Scope, station_id: UUID) -> StationConnection | None:
    query = select(StationConnection).where(StationConnection.station_id == station_id)
    return (await scope.db.execute(query)).scalar_one_or_none()


def _wake(scope: Scope, node: str, station_id: UUID) -> None:
    redis = scope.redis
    if redis is not None:
        message = {"tenant": str(scope.tenant_id), "station": str(station_id)}
        scope.after_commit(lambda: redis.publish_raw(node_channel(node), message))


def check_command(ocpp_version: str, action: str, payload: dict[str, Any]) -> None:
    """Against the schema of the version the station speaks; before its first connection, against any that knows it."""
    versions = [ocpp_version] if ocpp_version in ocpp_schemas.VERSIONS else list(ocpp_schemas.VERSIONS)
    knowing = [version for version in versions if action in ocpp_schemas.actions(version)]
    if not knowing:
        reason = refusal(versions[0], action) if len(versions) == 1 else ""
        known = ", ".join(versions).replace("ocpp", "")
        raise Invalid.field(
            "action", "unknown_action", reason or f"OCPP {known} has no command {action!r} to a station."
        )
    faults = [ocpp_schemas.validate(version, action, payload) for version in knowing]
    if all(faults):
        raise Invalid(
            "invalid_payload", f"The payload does not fit {action} of OCPP {knowing[0].removeprefix('ocpp')}.",
            faults=[FieldFault(f"payload{fault.path}", "schema", fault.message) for fault in faults[0]],
        )  # fmt: skip


def _refuse_downgrade(station: ChargingStation, action: str, payload: dict[str, Any]) -> None:
    """ocpp.md 2 row 8: a station is never told to take a lower security profile."""
    wanted: list[Any] = []
    if action == "ChangeConfiguration" and str(payload.get("key", "")).lower() == "securityprofile":
        wanted = [payload.get("value")]
    if action == "SetVariables":
        wanted = [
            item.get("attributeValue")
            for item in payload.get("setVariableData", [])
            if str((item.get("variable") or {}).get("name", "")).lower() == "securityprofile"
        ]
    if action == "SetNetworkProfile":
        wanted = [(payload.get("connectionData") or {}).get("securityProfile")]
    if any(str(value).isdigit() and int(value) < station.security_profile for value in wanted):
        raise Refused("profile_downgrade", "The security profile of a station can only be raised.")


async def get_command(scope: Scope, command_id: UUID) -> StationCommand:
    command = await scope.db.get(StationCommand, (scope.tenant_id, command_id))
    if command is None:
        raise NotFound("station_command")
    return command


# --- for the gateway ---------------------------------------------------------------------------------------------


async def claim_commands(scope: Scope, station_id: UUID, epoch: int, limit: int = 1) -> list[ClaimedCommand]:
    """Queued ones in order, now `sent`; those past their time become `expired`. Nothing for an outdated epoch."""
    connection = await _connection(scope, station_id)
    if connection is None or connection.epoch != epoch:
        return []
    await expire_commands(scope, station_id)
    query = (
        select(StationCommand)
        .join(StationCommand.station)
        .where(
            StationCommand.station_id == station_id,
            StationCommand.status == "queued",
            ChargingStation.quarantined_at.is_(None) | StationCommand.action.in_(READING),
        )
        .order_by(StationCommand.created_at, StationCommand.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=StationCommand)
    )
    claimed = list((await scope.db.execute(query)).scalars())
    for command in claimed:
        command.status, command.sent_at, command.epoch = "sent", scope.now, epoch
        _tell(scope, command)
    return [
        ClaimedCommand(c.id, c.action, _payload(scope, c), c.expires_at, await _lack(scope, c))
        for c in claimed
    ]


async def _lack(scope: Scope, command: StationCommand) -> str | None:
    station = await scope.db.get(ChargingStation, (scope.tenant_id, command.station_id))
    lack = await capabilities.find_lack(scope, station, command.action, command.payload) if station else None
    if lack is None:
        return None
    return f"not asked: it said {lack.said} on {lack.at:%Y-%m-%d}, and its firmware is still the same"


async def find_waiting(scope: Scope, stations: Sequence[UUID]) -> list[UUID]:
    """Which of these stations a queued command waits for."""
    query = (
        select(StationCommand.station_id)
        .where(StationCommand.station_id.in_(stations), StationCommand.status == "queued")
        .distinct()
    )
    return list((await scope.db.execute(query)).scalars())


def _payload(scope: Scope, command: StationCommand) -> dict[str, Any]:
    if command.payload_sealed is None:
        return command.payload
    return json.loads(unseal(scope.settings.secret_keys, "command", command.payload_sealed))


async def conclude_command(
    scope: Scope,
    command_id: UUID,
    status: Outcome,
    answer: dict[str, Any] | None = None,
    error: str | None = None,
) -> bool:
    """The station's own answer; a second conclusion of the same command changes nothing, and gives False."""
    command = await get_command(scope, command_id)
    if command.status not in ("sent", "queued", "unknown") or command.status == status:
        return False
    command.status, command.answer, command.error = status, redact(answer) if answer else answer, error
    command.ended_at = scope.now
    command.payload_sealed = None
    await capabilities.learn(scope, command)
    _tell(scope, command)
    await _emit_ended(scope, command)
    return True


async def _emit_ended(scope: Scope, command: StationCommand) -> None:
    if command.source_type is not None:  # somebody above waits for the outcome
        data = {
            "status": command.status,
            "action": command.action,
            command.source_type: str(command.source_id),
        }
        await events.emit(scope, "CommandEnded", "station_command", command.id, data, public=False)


async def abandon_commands(scope: Scope, station_id: UUID, epoch: int) -> int:
    """Commands an older connection sent and never concluded (a gateway was killed): they may have happened."""
    statement = (
        update(StationCommand)
        .where(
            StationCommand.station_id == station_id, StationCommand.status == "sent", StationCommand.epoch < epoch
        )
        .values(
            status="unknown", ended_at=scope.now, error="the connection was lost before the answer",
            payload_sealed=None,
        )
        .returning(StationCommand)
    )  # fmt: skip
    lost = list((await scope.db.execute(statement)).scalars())
    for command in lost:
        _tell(scope, command)
        await _emit_ended(scope, command)
    return len(lost)


async def expire_commands(scope: Scope, station_id: UUID | None = None) -> int:
    """Queued ones whose time is over; `station_id` None means the whole tenant."""
    statement = (
        update(StationCommand)
        .where(StationCommand.status == "queued", StationCommand.expires_at <= scope.now)
        .values(status="expired", ended_at=scope.now, payload_sealed=None)
        .returning(StationCommand)
    )
    if station_id is not None:
        statement = statement.where(StationCommand.station_id == station_id)
    gone = list((await scope.db.execute(statement)).scalars())
    for command in gone:
        _tell(scope, command)
        await _emit_ended(scope, command)
    return len(gone)


def _tell(scope: Scope, command: StationCommand) -> None:
    scope.publish(f"command:{command.id}", {"status": command.status})
    scope.publish(f"station:{command.station_id}", {"what": "command", "command": str(command.id)})
