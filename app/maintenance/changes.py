"""New keys and higher profiles, agreed with the station and in force once it has come back with them (ocpp.md 2, rows
8 and 11; 2.0.1 A01, A05; 1.6 whitepaper TC_073, TC_083).

In between, at most a day, old and new both open the door. Errors: `change_under_way`, `never_connected`, `no_key`,
`profile_downgrade`, `no_tls`, `no_certificate` (Refused); `profile`, `slot` (Invalid).
"""

from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import select

from app.kernel import audit, events
from app.kernel.errors import Invalid, Refused
from app.kernel.secrets import new_station_password
from app.maintenance import wire
from app.maintenance.models import SecurityChange, StationCertificate
from app.stations import commands
from app.stations import service as stations
from app.stations.models import ChargingStation, StationCommand
from tenants.scope import Scope

OVERLAP = timedelta(hours=24)
OPEN = ("requested", "accepted", "unknown")
INTERFACES = ("Wired0", "Wired1", "Wired2", "Wired3", "Wireless0", "Wireless1", "Wireless2", "Wireless3")


async def open_changes(scope: Scope, station_id: UUID) -> dict[str, SecurityChange]:
    """kind -> what is under way."""
    query = select(SecurityChange).where(
        SecurityChange.station_id == station_id, SecurityChange.status.in_(OPEN)
    )
    return {row.kind: row for row in (await scope.db.execute(query)).scalars()}


async def _begin(scope: Scope, station: ChargingStation, kind: str) -> str:
    """The version it speaks; Refused where this cannot begin now."""
    if station.connection is None or not station.connection.ocpp_version:
        raise Refused("never_connected", "This station has never connected: we do not know what it speaks.")
    if kind in await open_changes(scope, station.id):
        raise Refused("change_under_way", "An earlier change waits for the station to come back with it.")
    return station.connection.ocpp_version


async def _open(scope: Scope, change: SecurityChange, asked: wire.Asked) -> SecurityChange:
    scope.db.add(change)
    await scope.db.flush()
    action, payload = asked
    await commands.send_command(
        scope, change.station_id, action, payload, source_type="security_change", source_id=change.id
    )
    return change


async def _refresh_route(scope: Scope, station: ChargingStation, digests: list[str]) -> None:
    """The route as the open changes have it. A retired station has none, and gets none again."""
    if station.retired_at is not None:
        return
    changes = await open_changes(scope, station.id)
    target = changes["profile"].target_profile if "profile" in changes else None
    await stations.put_keys(scope, station, digests, upgrading_to=target, is_changing=bool(changes))


# -- the key -------------------------------------------------------------------------------------------------------


async def rotate_key(scope: Scope, station_id: UUID) -> SecurityChange:
    """A new key goes to the station; nobody else ever sees it. The old one stays good until it is taken."""
    station = await stations.get_station(scope, station_id)
    version = await _begin(scope, station, "key")
    if station.security_profile == 3:
        raise Refused("no_key", "A station of security profile 3 has a certificate and no key.")
    password = new_station_password()
    change = SecurityChange(
        station_id=station_id, kind="key", digest=stations.station_digest(scope, password), created_at=scope.now,
        expires_at=scope.now + OVERLAP,
    )  # fmt: skip
    await _open(scope, change, wire.set_key(version, password))
    # Now and not after the answer: a station may come back with the new key before we have read its yes.
    await _refresh_route(scope, station, [*await stations.known_keys(scope, station), change.digest])
    await audit.record(scope, "station_key.rotation_began", "charging_station", station_id)
    return change


# -- the profile ---------------------------------------------------------------------------------------------------


async def upgrade_profile(
    scope: Scope, station_id: UUID, profile: int, *, slot: int = 1, fallback_slot: int = 0, interface: str = "Wired0"
) -> SecurityChange:  # fmt: skip
    """Never down. `slot`, `fallback_slot` and `interface` are 2.0.1's network profile; 1.6 has none."""
    station = await stations.get_station(scope, station_id)
    version = await _begin(scope, station, "profile")
    if profile not in (1, 2, 3) or isinstance(profile, bool):
        raise Invalid.field("profile", "profile", "The security profile is 1, 2 or 3.")
    if profile <= station.security_profile:
        raise Refused("profile_downgrade", "The security profile of a station can only be raised.")
    if not 0 <= slot <= 99 or not 0 <= fallback_slot <= 99 or slot == fallback_slot:
        raise Invalid.field("slot", "slot", "The slots are two different numbers from 0 to 99.")
    if interface not in INTERFACES:
        raise Invalid.field("interface", "interface", f"The interface is one of {', '.join(INTERFACES)}.")
    if profile == 3 and not await _has_certificate(scope, station_id):
        raise Refused("no_certificate", "This station has no certificate of ours yet: renew it first.")
    if profile < 3 and not await stations.known_keys(scope, station):
        raise Refused("no_key", "This station has no key yet: give it one first.")
    url = csms_url(scope, await stations.own_slug(scope), is_secure=profile >= 2)
    change = SecurityChange(
        station_id=station_id, kind="profile", target_profile=profile, slots=[slot, fallback_slot],
        created_at=scope.now, expires_at=scope.now + OVERLAP,
    )  # fmt: skip
    await _open(scope, change, wire.set_profile(version, profile, url, slot, interface))
    await _refresh_route(scope, station, await stations.known_keys(scope, station))
    data = {"from": station.security_profile, "to": profile}
    await audit.record(scope, "station_profile.upgrade_began", "charging_station", station_id, data)
    return change


def csms_url(scope: Scope, slug: str, *, is_secure: bool) -> str:
    """Where stations of this brand connect, without their identity: they add it themselves."""
    settings = scope.settings
    url = settings.ocpp_url_of(slug, "x").rpartition("/")[0]
    if not is_secure or url.startswith("wss://"):
        return url
    if settings.ocpp_tls_port is None:
        raise Refused("no_tls", "This installation offers stations no TLS, which profiles 2 and 3 need.")
    return f"wss://{urlsplit(url).hostname}:{settings.ocpp_tls_port}/{slug}"


async def _has_certificate(scope: Scope, station_id: UUID) -> bool:
    query = select(StationCertificate.id).where(
        StationCertificate.station_id == station_id, StationCertificate.status == "accepted",
        StationCertificate.kind != "V2GCertificate", StationCertificate.valid_until > scope.now,
    )  # fmt: skip
    return (await scope.db.execute(query.limit(1))).first() is not None


# -- how it goes on ------------------------------------------------------------------------------------------------


async def change_answered(scope: Scope, change_id: UUID, command: StationCommand) -> None:
    """A yes leads to the next step or to waiting, a no leaves everything as it was (TC_A_10)."""
    change = await scope.db.get(SecurityChange, (scope.tenant_id, change_id), with_for_update=True)
    if change is None or change.status not in OPEN:
        return
    if command.status in ("rejected", "failed", "expired"):
        return await _end(scope, change, "rejected", f"The station answered {command.action} with no.")
    following = _following(change, command)
    if command.status == "accepted" and following is not None:
        action, payload = following
        await commands.send_command(
            scope, change.station_id, action, payload, source_type="security_change", source_id=change.id
        )
        return
    change.status = command.status
    scope.publish(f"station:{change.station_id}", {"what": "security"})


def _following(change: SecurityChange, command: StationCommand) -> wire.Asked | None:
    """2.0.1 goes three steps; 1.6's ChangeConfiguration is the whole."""
    if change.kind != "profile":
        return None
    if command.action == "SetNetworkProfile":
        return wire.prefer_slots(change.slots)
    return wire.reset_when_idle() if command.action == "SetVariables" else None


async def station_arrived(scope: Scope, station_id: UUID, profile: int, digest: str) -> None:
    """It came in, by this profile and (but for profile 3) this key: what it came back with holds from now on."""
    changes = await open_changes(scope, station_id)
    key = changes.get("key")
    if key is not None and digest and key.digest == digest:
        await _end(scope, key, "confirmed", "")
    elif key is not None and digest and key.status != "requested":
        key.note = "It has come back with the old key."
    wanted = changes.get("profile")
    if wanted is not None and wanted.target_profile is not None and profile >= wanted.target_profile:
        await _end(scope, wanted, "confirmed", "")


async def fall_back(scope: Scope) -> int:
    """Changes a day old that the station has not come back with. What it talks to us by stays; staff are told."""
    query = select(SecurityChange).where(
        SecurityChange.status.in_(OPEN), SecurityChange.expires_at <= scope.now
    )
    due = list((await scope.db.execute(query.with_for_update(skip_locked=True))).scalars())
    for change in due:
        station = await stations.get_station(scope, change.station_id)
        is_here = station.connection is not None and station.connection.is_online
        if change.kind == "key" and change.status == "accepted" and not is_here and not change.note:
            # It said yes and has not been seen since: it will come with the new one, and the old one is void.
            await _end(scope, change, "confirmed", "It has not been seen since; the old key is void.")
        else:
            await _end(scope, change, "fell_back", change.note or "It never came back with it.")
        kind = "StationKeyNotTaken" if change.kind == "key" else "StationProfileNotTaken"
        await events.emit(scope, kind, "charging_station", change.station_id, {"outcome": change.status})
    return len(due)


async def cancel_change(scope: Scope, change_id: UUID) -> None:
    """Staff give it up: the old key and profile stay. Nothing happens to one that has ended."""
    change = await scope.db.get(SecurityChange, (scope.tenant_id, change_id), with_for_update=True)
    if change is not None and change.status in OPEN:
        await _end(scope, change, "canceled", "")


async def _end(scope: Scope, change: SecurityChange, status: str, note: str) -> None:
    station = await stations.get_station(scope, change.station_id)
    known = await stations.known_keys(scope, station)
    change.status, change.note, change.ended_at = status, note, scope.now
    await scope.db.flush()
    if change.kind == "key":
        if status == "confirmed":
            known = [change.digest] if change.digest in known else known
        else:
            known = [digest for digest in known if digest != change.digest]
    elif status == "confirmed":
        await stations.raise_profile(scope, station, change.target_profile or 0)
    await _refresh_route(scope, station, known)
    await audit.record(
        scope, f"station_{change.kind}.change_{status}", "charging_station", change.station_id,
        {"to": change.target_profile} if change.kind == "profile" else {},
    )  # fmt: skip
    if status == "confirmed":
        kind = "StationKeyRotated" if change.kind == "key" else "StationProfileRaised"
        await events.emit(scope, kind, "charging_station", change.station_id, {})
    scope.publish(f"station:{change.station_id}", {"what": "security"})


async def recent_changes(scope: Scope, station_id: UUID) -> list[SecurityChange]:
    """Newest first."""
    query = select(SecurityChange).where(SecurityChange.station_id == station_id)
    return list((await scope.db.execute(query.order_by(SecurityChange.id.desc()).limit(10))).scalars())
