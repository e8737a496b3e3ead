"""REST: certificates, security events, keys and profiles, firmware, logs (contract.md, "REST v1")."""

from datetime import datetime
from typing import Any

from litestar import get, post
from sqlalchemy import select

from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, read_id, read_time, rfc3339
from app.maintenance import certificates, changes, firmware, logs
from app.maintenance.models import (
    FirmwarePublication,
    FirmwareUpdate,
    SecurityChange,
    SecurityEvent,
    StationCertificate,
    StationLog,
)
from app.stations import service as stations
from app.stations.models import StationCommand
from tenants.scope import Scope

_TAGS = ["maintenance"]


async def _key(scope: Scope, station_id: str) -> Any:
    return (await stations.get_station(scope, parse_id("charging_station", station_id))).id


def _command(row: StationCommand) -> dict[str, Any]:
    return {"id": public_id("station_command", row.id), "action": row.action, "status": row.status}


# --- security ------------------------------------------------------------------------------------------------------


@get("/security-events", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="Security events of all stations, or of one, newest first")  # fmt: skip
async def list_security_events(
    tenant_scope: Scope, limit: int = 50, after: str | None = None, station_id: str | None = None,
    is_grave: bool | None = None,
) -> dict[str, Any]:  # fmt: skip
    query = select(SecurityEvent)
    if station_id:
        query = query.where(
            SecurityEvent.station_id == read_id("charging_station", {"station_id": station_id}, "station_id")
        )
    if is_grave is not None:
        query = query.where(SecurityEvent.is_grave.is_(is_grave))
    found = await listed(tenant_scope, query, SecurityEvent.id, "security_event", limit, after)
    return found.answer([
        {
            "id": public_id("security_event", row.id), "station_id": public_id("charging_station", row.station_id),
            "type": row.type, "tech_info": row.tech_info, "origin": row.origin, "is_grave": row.is_grave,
            "at": rfc3339(row.at), "received_at": rfc3339(row.received_at),
        }
        for row in found.rows
    ])  # fmt: skip


@post("/stations/{station_id:str}/key-rotations", status_code=202, opt={"permission": "stations.manage"}, tags=_TAGS,
      summary="Give the station a new key; the old one holds until it has come back")  # fmt: skip
async def rotate_key(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    return _change(await changes.rotate_key(tenant_scope, await _key(tenant_scope, station_id)))


@post("/stations/{station_id:str}/profile-upgrades", status_code=202, opt={"permission": "stations.manage"},
      tags=_TAGS, summary="Raise the station's security profile")  # fmt: skip
async def upgrade_profile(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = await _key(tenant_scope, station_id)
    numbers = {name: data[name] for name in ("slot", "fallback_slot") if name in data}
    for name, value in [*numbers.items(), ("security_profile", data.get("security_profile"))]:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Invalid.field(name, "number", f"{name} is a whole number.")
    change = await changes.upgrade_profile(
        tenant_scope, key, data["security_profile"], **numbers,
        interface=str(data.get("interface") or "Wired0"),
    )  # fmt: skip
    return _change(change)


@get("/stations/{station_id:str}/security-changes", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="New keys and higher profiles, newest first")  # fmt: skip
async def list_changes(
    tenant_scope: Scope, station_id: str, limit: int = 50, after: str | None = None
) -> dict[str, Any]:
    key = await _key(tenant_scope, station_id)
    query = select(SecurityChange).where(SecurityChange.station_id == key)
    found = await listed(tenant_scope, query, SecurityChange.id, "security_change", limit, after)
    return found.answer([_change(row) for row in found.rows])


def _change(row: SecurityChange) -> dict[str, Any]:
    return {
        "id": public_id("security_change", row.id), "station_id": public_id("charging_station", row.station_id),
        "kind": row.kind, "security_profile": row.target_profile, "status": row.status, "note": row.note,
        "created_at": rfc3339(row.created_at), "expires_at": rfc3339(row.expires_at),
        "ended_at": rfc3339(row.ended_at),
    }  # fmt: skip


# --- certificates --------------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/certificates", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="The station's own certificates, newest first")  # fmt: skip
async def list_certificates(
    tenant_scope: Scope, station_id: str, limit: int = 50, after: str | None = None
) -> dict[str, Any]:
    key = await _key(tenant_scope, station_id)
    query = select(StationCertificate).where(StationCertificate.station_id == key)
    found = await listed(tenant_scope, query, StationCertificate.id, "station_certificate", limit, after)
    return found.answer([_certificate(row) for row in found.rows])


@post("/stations/{station_id:str}/certificate-requests", status_code=202, opt={"permission": "stations.command"},
      tags=_TAGS, summary="Ask the station to have a new key signed")  # fmt: skip
async def renew_certificate(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    kind = str(data.get("kind") or "ChargingStationCertificate")
    return _command(
        await certificates.request_renewal(tenant_scope, await _key(tenant_scope, station_id), kind)
    )


@post("/station-certificates/{certificate_id:str}/revocation", status_code=200, opt={"permission": "stations.manage"},
      tags=_TAGS, summary="Revoke a station's certificate")  # fmt: skip
async def revoke_certificate(tenant_scope: Scope, certificate_id: str) -> dict[str, Any]:
    key = parse_id("station_certificate", certificate_id)
    return _certificate(await certificates.revoke_certificate(tenant_scope, key))


def _certificate(row: StationCertificate) -> dict[str, Any]:
    return {
        "id": public_id("station_certificate", row.id), "station_id": public_id("charging_station", row.station_id),
        "kind": row.kind, "status": row.status, "reason": row.reason, "subject": row.subject,
        "serial_number": row.serial_number, "fingerprint": row.fingerprint, "certificate": row.certificate_pem,
        "valid_from": rfc3339(row.valid_from), "valid_until": rfc3339(row.valid_until),
        "created_at": rfc3339(row.created_at), "revoked_at": rfc3339(row.revoked_at),
    }  # fmt: skip


# --- firmware ------------------------------------------------------------------------------------------------------


@post("/stations/{station_id:str}/firmware-updates", status_code=202, opt={"permission": "stations.manage"},
      tags=_TAGS, summary="Update the station's firmware")  # fmt: skip
async def create_firmware_update(
    tenant_scope: Scope, station_id: str, data: dict[str, Any]
) -> dict[str, Any]:
    key = await _key(tenant_scope, station_id)
    update = await firmware.update_firmware(
        tenant_scope, key, str(data.get("location") or ""),
        retrieve_at=read_time(data, "retrieve_at"), install_at=read_time(data, "install_at"),
        signing_certificate=_text(data, "signing_certificate"), signature=_text(data, "signature"),
        retries=_number(data, "retries"), retry_interval_s=_number(data, "retry_interval_s"),
    )  # fmt: skip
    return _update(update)


def _text(data: dict[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise Invalid.field(name, "text", f"{name} is a text.")
    return value


@get(
    "/firmware-updates",
    opt={"permission": "stations.view"},
    tags=_TAGS,
    summary="Firmware updates, newest first",
)
async def list_firmware_updates(
    tenant_scope: Scope, limit: int = 50, after: str | None = None, station_id: str | None = None
) -> dict[str, Any]:
    query = select(FirmwareUpdate)
    if station_id:
        query = query.where(
            FirmwareUpdate.station_id == read_id("charging_station", {"station_id": station_id}, "station_id")
        )
    found = await listed(tenant_scope, query, FirmwareUpdate.id, "firmware_update", limit, after)
    return found.answer([_update(row) for row in found.rows])


@get(
    "/firmware-updates/{update_id:str}",
    opt={"permission": "stations.view"},
    tags=_TAGS,
    summary="One firmware update",
)
async def get_firmware_update(tenant_scope: Scope, update_id: str) -> dict[str, Any]:
    return _update(await firmware.get_update(tenant_scope, parse_id("firmware_update", update_id)))


def _update(row: FirmwareUpdate) -> dict[str, Any]:
    return {
        "id": public_id("firmware_update", row.id), "station_id": public_id("charging_station", row.station_id),
        "location": row.location, "is_signed": row.is_signed, "retrieve_at": rfc3339(row.retrieve_at),
        "install_at": rfc3339(row.install_at), "status": row.status, "status_at": rfc3339(row.status_at),
        "history": _history(row.history), "created_at": rfc3339(row.created_at), "ended_at": rfc3339(row.ended_at),
    }  # fmt: skip


def _history(entries: list[Any]) -> list[dict[str, Any]]:
    return [{"status": one["status"], "at": rfc3339(datetime.fromisoformat(one["at"]))} for one in entries]


@post("/stations/{station_id:str}/firmware-publications", status_code=202, opt={"permission": "stations.manage"},
      tags=_TAGS, summary="Have a local controller hand firmware out in its own network")  # fmt: skip
async def publish_firmware(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = await _key(tenant_scope, station_id)
    row = await firmware.publish_firmware(
        tenant_scope, key, _text(data, "location") or "", _text(data, "checksum") or "",
        retries=_number(data, "retries"), retry_interval_s=_number(data, "retry_interval_s"),
    )  # fmt: skip
    return _publication(row)


def _number(data: dict[str, Any], name: str) -> int | None:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | None):
        raise Invalid.field(name, "number", f"{name} is a whole number.")
    return value


@get("/firmware-publications", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="Firmware that local controllers hand out, newest first")  # fmt: skip
async def list_publications(
    tenant_scope: Scope, limit: int = 50, after: str | None = None, station_id: str | None = None
) -> dict[str, Any]:
    query = select(FirmwarePublication)
    if station_id:
        key = read_id("charging_station", {"station_id": station_id}, "station_id")
        query = query.where(FirmwarePublication.station_id == key)
    found = await listed(tenant_scope, query, FirmwarePublication.id, "firmware_publication", limit, after)
    return found.answer([_publication(row) for row in found.rows])


@get("/firmware-publications/{publication_id:str}", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="One of them")  # fmt: skip
async def get_publication(tenant_scope: Scope, publication_id: str) -> dict[str, Any]:
    key = parse_id("firmware_publication", publication_id)
    return _publication(await firmware.get_publication(tenant_scope, key))


@post("/firmware-publications/{publication_id:str}/withdrawal", status_code=202, tags=_TAGS,
      opt={"permission": "stations.manage"}, summary="Have the local controller hand it out no more")  # fmt: skip
async def unpublish_firmware(tenant_scope: Scope, publication_id: str) -> dict[str, Any]:
    key = parse_id("firmware_publication", publication_id)
    return _command(await firmware.unpublish_firmware(tenant_scope, key))


def _publication(row: FirmwarePublication) -> dict[str, Any]:
    return {
        "id": public_id("firmware_publication", row.id),
        "station_id": public_id("charging_station", row.station_id), "location": row.location,
        "checksum": row.checksum, "status": row.status, "status_at": rfc3339(row.status_at),
        "local_locations": row.local_locations, "history": _history(row.history),
        "created_at": rfc3339(row.created_at), "ended_at": rfc3339(row.ended_at),
    }  # fmt: skip


# --- logs ----------------------------------------------------------------------------------------------------------


@post("/stations/{station_id:str}/logs", status_code=202, opt={"permission": "stations.command"}, tags=_TAGS,
      summary="Ask the station for a log")  # fmt: skip
async def create_log(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = await _key(tenant_scope, station_id)
    row = await logs.request_log(
        tenant_scope, key, str(data.get("kind") or "DiagnosticsLog"),
        oldest=read_time(data, "oldest"), latest=read_time(data, "latest"),
    )  # fmt: skip
    return _log(row)


@get("/stations/{station_id:str}/logs", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="Logs we asked the station for, newest first")  # fmt: skip
async def list_logs(
    tenant_scope: Scope, station_id: str, limit: int = 50, after: str | None = None
) -> dict[str, Any]:
    key = await _key(tenant_scope, station_id)
    query = select(StationLog).where(StationLog.station_id == key)
    found = await listed(tenant_scope, query, StationLog.id, "station_log", limit, after)
    return found.answer([_log(row) for row in found.rows])


def _log(row: StationLog) -> dict[str, Any]:
    return {
        "id": public_id("station_log", row.id), "station_id": public_id("charging_station", row.station_id),
        "kind": row.kind, "status": row.status, "status_at": rfc3339(row.status_at), "file_name": row.file_name,
        "size_bytes": row.size_bytes, "uploaded_at": rfc3339(row.uploaded_at), "history": _history(row.history),
        "created_at": rfc3339(row.created_at), "ended_at": rfc3339(row.ended_at),
    }  # fmt: skip


routes = [
    list_security_events, rotate_key, upgrade_profile, list_changes, list_certificates, renew_certificate,
    revoke_certificate, create_firmware_update, list_firmware_updates, get_firmware_update, create_log, list_logs,
    publish_firmware, list_publications, get_publication, unpublish_firmware,
]  # fmt: skip
