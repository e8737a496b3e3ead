"""Verbs on firmware: updates of stations and what local controllers publish (OCPP 2.0.1 L01 to L04; 1.6).

Errors: `location`, `checksum`, `signature`, `install_at`, `retries` (Invalid); `no_firmware_hosts`,
`not_in_this_version` (Refused).
"""

import re
import secrets
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from cryptography import x509
from sqlalchemy import select

from app.kernel import audit, events
from app.kernel.errors import Invalid, NotFound, Refused
from app.maintenance import policy, wire
from app.maintenance.certificates import version_of
from app.maintenance.models import FirmwarePublication, FirmwareUpdate
from app.stations import commands
from app.stations import service as stations
from app.stations.models import StationCommand
from tenants.scope import Scope

FAILED = frozenset({
    "DownloadFailed", "InstallationFailed", "InstallVerificationFailed", "InvalidSignature", "InvalidCertificate",
    "RevokedCertificate", "Rejected",
})  # fmt: skip
ENDED = FAILED | {"Installed", "Canceled"}
PUBLICATION_FAILED = frozenset({"DownloadFailed", "InvalidChecksum", "PublishFailed", "Rejected"})
PUBLICATION_ENDED = PUBLICATION_FAILED | {"Unpublished", "NoFirmware"}


def new_request_id() -> int:
    return secrets.randbelow(2**31 - 1) + 1


# -- updates -------------------------------------------------------------------------------------------------------


async def update_firmware(
    scope: Scope, station_id: UUID, location: str, *, retrieve_at: datetime | None = None,
    install_at: datetime | None = None, signing_certificate: str | None = None, signature: str | None = None,
    retries: int | None = None, retry_interval_s: int | None = None,
) -> FirmwareUpdate:  # fmt: skip
    """Signed where a signature (base64) and its certificate (PEM) are given: both or none."""
    station = await stations.get_station(scope, station_id)
    location = await check_location(scope, location)
    retrieve_at = retrieve_at or scope.now
    if install_at is not None and install_at < retrieve_at:
        raise Invalid.field("install_at", "install_at", "It is installed after it was fetched, not before.")
    _check_signature(signing_certificate, signature)
    _check_retries(retries, retry_interval_s)
    version = await version_of(scope, station.id)
    update = FirmwareUpdate(
        station_id=station.id, request_id=new_request_id(), location=location, is_signed=signature is not None,
        retrieve_at=retrieve_at, install_at=install_at, status="Requested", status_at=scope.now,
        history=[_entry("Requested", scope.now)], created_by=scope.actor.name or scope.actor.kind,
        created_at=scope.now,
    )  # fmt: skip
    scope.db.add(update)
    await scope.db.flush()
    action, payload = wire.update_firmware(
        version, request_id=update.request_id, location=location, retrieve_at=retrieve_at, install_at=install_at,
        signing_certificate=signing_certificate, signature=signature, retries=retries,
        retry_interval_s=retry_interval_s,
    )  # fmt: skip
    await commands.send_command(
        scope, station.id, action, payload, source_type="firmware_update", source_id=update.id
    )
    await audit.record(
        scope, "firmware_update.requested", "charging_station", station.id, {"location": location}
    )
    return update


async def check_location(scope: Scope, location: str) -> str:
    """https or ftps, from a host the brand has allowed; nothing inside anybody's network (ocpp.md 2, row 58)."""
    location = location.strip()
    hosts = (await policy.get_policy(scope)).firmware_hosts
    if not hosts:
        raise Refused("no_firmware_hosts", "Say first which hosts firmware may come from (Security).")
    try:
        parts = urlsplit(location)
        host, _port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise Invalid.field("location", "location", "This is no address.") from None
    if parts.scheme not in ("https", "ftps") or not host or not location.isprintable() or " " in location:
        raise Invalid.field("location", "location", "The address begins with https:// or ftps://.")
    if parts.username is not None or parts.password is not None or len(location) > 512:
        raise Invalid.field(
            "location", "location", "The address holds no user name, and at most 512 characters."
        )
    if _is_address(host) or policy.is_internal(host):
        raise Invalid.field("location", "internal", "Addresses inside a network are not allowed.")
    if not any(host == one or (one.startswith(".") and host.endswith(one)) for one in hosts):
        raise Invalid.field(
            "location", "host", f"Firmware may come from {', '.join(hosts)}, not from {host}."
        )
    return location


def _is_address(host: str) -> bool:
    """Also 0x7f.1 and 2130706433: where the last label is a number, a resolver takes the whole for an address."""
    last = host.rpartition(".")[2]
    return ":" in host or last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def _check_signature(certificate: str | None, signature: str | None) -> None:
    if (certificate is None) != (signature is None):
        raise Invalid.field("signature", "signature", "A signature and its certificate go together.")
    if certificate is None or signature is None:
        return
    try:
        x509.load_pem_x509_certificate(certificate.encode())
    except ValueError:
        raise Invalid.field("signing_certificate", "certificate", "This is no certificate in PEM.") from None
    if len(certificate) > 5500 or len(signature) > 800 or not re.fullmatch(r"[A-Za-z0-9+/=]+", signature):
        raise Invalid.field("signature", "signature", "The signature is base64, at most 800 characters.")


def _check_retries(retries: int | None, interval_s: int | None) -> None:
    if retries is not None and not 0 <= retries <= 100:
        raise Invalid.field("retries", "retries", "At most 100 retries.")
    if interval_s is not None and not 0 <= interval_s <= 86_400:
        raise Invalid.field("retry_interval_s", "retries", "A retry comes within a day.")


def _entry(status: str, at: datetime) -> dict[str, Any]:
    return {"status": status, "at": at.isoformat()}


async def _move(scope: Scope, update: FirmwareUpdate, status: str) -> None:
    if update.status == status:
        return
    update.status, update.status_at = status, scope.now
    update.history = [*update.history, _entry(status, scope.now)][-50:]
    update.ended_at = scope.now if status in ENDED else None
    if status == "Installed" or status in FAILED:
        kind = "FirmwareInstalled" if status == "Installed" else "FirmwareUpdateFailed"
        await events.emit(scope, kind, "firmware_update", update.id, {"status": status})
    scope.publish(f"station:{update.station_id}", {"what": "firmware"})


async def update_answered(scope: Scope, update_id: UUID, command: StationCommand) -> None:
    """What the station said to the request itself. Its reports may have come first, and weigh more."""
    update = await scope.db.get(FirmwareUpdate, (scope.tenant_id, update_id), with_for_update=True)
    if update is None:
        return
    word = str((command.answer or {}).get("status") or "Accepted")
    if command.status == "accepted" and word == "AcceptedCanceled":
        earlier = select(FirmwareUpdate).where(
            FirmwareUpdate.station_id == update.station_id, FirmwareUpdate.id < update.id,
            FirmwareUpdate.ended_at.is_(None),
        )  # fmt: skip
        for old in (await scope.db.execute(earlier)).scalars():
            await _move(scope, old, "Canceled")
    if update.status == "Requested":
        await _move(scope, update, _answer_word(command, word))


def _answer_word(command: StationCommand, word: str) -> str:
    if command.status == "accepted":
        return "Accepted"
    if command.status == "unknown":
        return "NoAnswer"
    return word if word in ("InvalidCertificate", "RevokedCertificate") else "Rejected"


async def firmware_reported(scope: Scope, station_id: UUID, status: str, request_id: int | None) -> None:
    """FirmwareStatusNotification. Without an id it is about the newest that is under way."""
    if status == "Idle":
        return
    query = select(FirmwareUpdate).where(FirmwareUpdate.station_id == station_id)
    if request_id is not None:
        query = query.where(FirmwareUpdate.request_id == request_id)
    else:
        query = query.where(FirmwareUpdate.ended_at.is_(None))
    query = query.order_by(FirmwareUpdate.id.desc()).limit(1).with_for_update()
    update = (await scope.db.execute(query)).scalar_one_or_none()
    if update is not None:
        await _move(scope, update, status[:50])


async def get_update(scope: Scope, update_id: UUID) -> FirmwareUpdate:
    update = await scope.db.get(FirmwareUpdate, (scope.tenant_id, update_id))
    if update is None:
        raise NotFound("firmware_update")
    return update


# -- publishing (a local controller hands firmware out in its own network) -------------------------------------------


async def publish_firmware(
    scope: Scope, station_id: UUID, location: str, checksum: str, *, retries: int | None = None,
    retry_interval_s: int | None = None,
) -> FirmwarePublication:  # fmt: skip
    station = await stations.get_station(scope, station_id)
    if wire.is_16(await version_of(scope, station.id)):
        raise Refused("not_in_this_version", "OCPP 1.6 has no local controllers that publish firmware.")
    location = await check_location(scope, location)
    checksum = checksum.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{32}", checksum):
        raise Invalid.field("checksum", "checksum", "The checksum is the file's MD5: 32 hexadecimal digits.")
    _check_retries(retries, retry_interval_s)
    row = FirmwarePublication(
        station_id=station.id, request_id=new_request_id(), location=location, checksum=checksum, status="Requested",
        status_at=scope.now, history=[_entry("Requested", scope.now)], local_locations=[], created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    action, payload = wire.publish_firmware(
        request_id=row.request_id, location=location, checksum=checksum, retries=retries,
        retry_interval_s=retry_interval_s,
    )  # fmt: skip
    await commands.send_command(
        scope, station.id, action, payload, source_type="firmware_publication", source_id=row.id
    )
    await audit.record(scope, "firmware.published", "charging_station", station.id, {"location": location})
    return row


async def get_publication(scope: Scope, publication_id: UUID) -> FirmwarePublication:
    row = await scope.db.get(FirmwarePublication, (scope.tenant_id, publication_id))
    if row is None:
        raise NotFound("firmware_publication")
    return row


async def unpublish_firmware(scope: Scope, publication_id: UUID) -> StationCommand:
    row = await get_publication(scope, publication_id)
    await audit.record(
        scope, "firmware.unpublished", "charging_station", row.station_id, {"checksum": row.checksum}
    )
    return await commands.send_command(
        scope, row.station_id, "UnpublishFirmware", {"checksum": row.checksum}, source_type="firmware_publication",
        source_id=row.id,
    )  # fmt: skip


async def publication_answered(scope: Scope, publication_id: UUID, command: StationCommand) -> None:
    row = await scope.db.get(FirmwarePublication, (scope.tenant_id, publication_id), with_for_update=True)
    if row is None:
        return
    word = str((command.answer or {}).get("status") or "")
    if command.action == "UnpublishFirmware":
        if word in ("Unpublished", "NoFirmware"):
            _move_publication(scope, row, word)
        elif word:
            row.history = [*row.history, _entry(word, scope.now)][-50:]  # DownloadOngoing: it goes on
    elif row.status == "Requested":
        known = {"accepted": "Accepted", "unknown": "NoAnswer"}
        _move_publication(scope, row, known.get(command.status, "Rejected"))


async def publication_reported(
    scope: Scope, station_id: UUID, status: str, request_id: int | None, locations: list[str]
) -> None:
    """PublishFirmwareStatusNotification (L03)."""
    if status == "Idle":
        return
    query = select(FirmwarePublication).where(FirmwarePublication.station_id == station_id)
    if request_id is not None:
        query = query.where(FirmwarePublication.request_id == request_id)
    query = query.order_by(FirmwarePublication.id.desc()).limit(1).with_for_update()
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None:
        return
    if locations:
        row.local_locations = [one[:512] for one in locations[:10]]
    _move_publication(scope, row, status[:50])


def _move_publication(scope: Scope, row: FirmwarePublication, status: str) -> None:
    if row.status == status:
        return
    row.status, row.status_at = status, scope.now
    row.history = [*row.history, _entry(status, scope.now)][-50:]
    row.ended_at = scope.now if status in PUBLICATION_ENDED else None
    scope.publish(f"station:{row.station_id}", {"what": "firmware"})
