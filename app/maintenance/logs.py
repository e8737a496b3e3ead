"""Verbs on stations' logs: asked for by staff, uploaded by the station to a one-time address of ours, kept as bytes.

Errors: `kind`, `period` (Invalid); `no_file` (Refused).

Files lie in `<data dir>/station-logs/<tenant>/<log id>`: never opened, unpacked or executed by us (ocpp.md 2, row 59).
"""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.kernel import audit
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.secrets import digest, digests, new_token
from app.kernel.settings import Settings
from app.maintenance import wire
from app.maintenance.certificates import version_of
from app.maintenance.firmware import new_request_id
from app.maintenance.models import StationLog
from app.stations import commands
from app.stations import service as stations
from app.stations.models import StationCommand
from tenants.resolve import own_url
from tenants.scope import Scope

KINDS = ("DiagnosticsLog", "SecurityLog")
MAX_BYTES = 50 * 1024 * 1024
OPEN_FOR = timedelta(hours=24)
KEPT = timedelta(days=30)
FAILED = frozenset({"UploadFailure", "PermissionDenied", "BadMessage", "NotSupportedOperation", "Rejected"})
ENDED = FAILED | {"Uploaded", "Canceled", "NoFile"}


async def request_log(
    scope: Scope, station_id: UUID, kind: str = "DiagnosticsLog", *, oldest: datetime | None = None,
    latest: datetime | None = None,
) -> StationLog:  # fmt: skip
    """The address it uploads to holds a secret of its own, opens once, and is closed after a day."""
    station = await stations.get_station(scope, station_id)
    if kind not in KINDS:
        raise Invalid.field("kind", "kind", f"kind is {' or '.join(KINDS)}.")
    if oldest is not None and latest is not None and latest < oldest:
        raise Invalid.field("latest", "period", "The period ends after it began, not before.")
    token = new_token()
    row = StationLog(
        station_id=station.id, request_id=new_request_id(), kind=kind, oldest_at=oldest, latest_at=latest,
        token_digest=digest(scope.settings.secret_keys, "upload", token), expires_at=scope.now + OPEN_FOR,
        status="Requested", status_at=scope.now, history=[_entry("Requested", scope.now)],
        created_by=scope.actor.name or scope.actor.kind, created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    action, payload = wire.get_log(
        await version_of(scope, station.id), request_id=row.request_id, kind=kind, oldest=oldest, latest=latest,
        location=await own_url(scope, "portal", f"/uploads/{token}"),
    )  # fmt: skip
    await commands.send_command(
        scope, station.id, action, payload, source_type="station_log", source_id=row.id
    )
    await audit.record(scope, "station_log.requested", "charging_station", station.id, {"kind": kind})
    return row


def _entry(status: str, at: datetime) -> dict[str, Any]:
    return {"status": status, "at": at.isoformat()}


def _move(scope: Scope, row: StationLog, status: str) -> None:
    if row.status == status:
        return
    row.status, row.status_at = status, scope.now
    row.history = [*row.history, _entry(status, scope.now)][-50:]
    row.ended_at = scope.now if status in ENDED else None
    if status in ("Canceled", "Rejected"):
        row.token_digest = None
    scope.publish(f"station:{row.station_id}", {"what": "logs"})


async def log_answered(scope: Scope, log_id: UUID, command: StationCommand) -> None:
    """Its name, or that there is none. A second request may end the first (N01, AcceptedCanceled)."""
    row = await scope.db.get(StationLog, (scope.tenant_id, log_id), with_for_update=True)
    if row is None:
        return
    answer = command.answer or {}
    name = str(answer.get("filename") or answer.get("fileName") or "").replace("\\", "/").rpartition("/")[2]
    row.file_name = row.file_name or name[:255]
    if command.status == "accepted" and answer.get("status") == "AcceptedCanceled":
        earlier = select(StationLog).where(
            StationLog.station_id == row.station_id, StationLog.id < row.id, StationLog.ended_at.is_(None)
        )
        for old in (await scope.db.execute(earlier)).scalars():
            _move(scope, old, "Canceled")
    if row.status == "Requested":
        _move(scope, row, _answer_word(command, row.file_name))


def _answer_word(command: StationCommand, file_name: str) -> str:
    if command.status == "accepted":
        return "Accepted" if file_name else "NoFile"
    return "NoAnswer" if command.status == "unknown" else "Rejected"


async def log_reported(
    scope: Scope, station_id: UUID, status: str, request_id: int | None, kind: str | None = None
) -> None:
    """LogStatusNotification, or 1.6's DiagnosticsStatusNotification (no id: the newest diagnostics under way)."""
    if status == "Idle":
        return
    query = select(StationLog).where(StationLog.station_id == station_id)
    if request_id is not None:
        query = query.where(StationLog.request_id == request_id)
    else:
        query = query.where(StationLog.ended_at.is_(None))
        query = query.where(StationLog.kind == kind) if kind else query
    query = query.order_by(StationLog.id.desc()).limit(1).with_for_update()
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is not None and row.status != "Canceled":
        _move(scope, row, "Canceled" if status == "AcceptedCanceled" else status[:50])


async def get_log(scope: Scope, station_id: UUID, log_id: UUID) -> StationLog:
    row = await scope.db.get(StationLog, (scope.tenant_id, log_id))
    if row is None or row.station_id != station_id:
        raise NotFound("station_log")
    return row


async def find_file(scope: Scope, station_id: UUID, log_id: UUID) -> tuple[StationLog, Path]:
    """For a download; it is written down who took it."""
    row = await get_log(scope, station_id, log_id)
    path = path_of(scope.settings, scope.tenant_id, log_id)
    if row.uploaded_at is None or row.size_bytes is None or not path.is_file():
        raise Refused("no_file", "There is no file: it has not come yet, or its month is over.")
    await audit.record(scope, "station_log.downloaded", "charging_station", station_id, {"kind": row.kind})
    return row, path


# -- the file ------------------------------------------------------------------------------------------------------


def path_of(settings: Settings, tenant_id: UUID, log_id: UUID) -> Path:
    return settings.data_dir / "station-logs" / str(tenant_id) / str(log_id)


async def find_upload(scope: Scope, token: str) -> StationLog | None:
    """What an open address is for; None where it is closed, used or nobody's."""
    known = digests(scope.settings.secret_keys, "upload", token)
    query = select(StationLog).where(
        StationLog.token_digest.in_(known),
        StationLog.uploaded_at.is_(None),
        StationLog.expires_at > scope.now,
    )
    return (await scope.db.execute(query.with_for_update())).scalar_one_or_none()


async def keep_upload(scope: Scope, token: str, arrived: Path, size_bytes: int, name: str) -> bool:
    """The file that has arrived takes its place, and its address is closed. False where another was faster."""
    row = await find_upload(scope, token)
    if row is None:
        return False
    target = path_of(scope.settings, scope.tenant_id, row.id)
    os.replace(arrived, target)
    row.uploaded_at, row.size_bytes, row.token_digest = scope.now, size_bytes, None
    row.file_name = row.file_name or name[:255]
    scope.publish(f"station:{row.station_id}", {"what": "logs"})
    return True


async def old_files(scope: Scope) -> list[UUID]:
    """Files past their month: they hold what drivers did. The row stays and says that there was one."""
    query = select(StationLog).where(
        StationLog.size_bytes.is_not(None), StationLog.uploaded_at < scope.now - KEPT
    )
    rows = list((await scope.db.execute(query.limit(500))).scalars())
    for row in rows:
        row.size_bytes = None
    return [row.id for row in rows]
