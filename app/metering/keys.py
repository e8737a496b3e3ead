"""Whose key speaks for which meter. The first that a station tells is trusted; another one waits for staff."""

import hashlib
from uuid import UUID

from sqlalchemy import select, text

from app.kernel import audit, events
from app.kernel.errors import Invalid, NotFound, Refused
from app.metering.models import MeterKey
from app.metering.records import Unreadable, Unsupported
from app.metering.signatures import CURVES, K192, as_der, read_key
from app.stations import alerts
from app.stations.models import ChargingStation
from tenants.scope import Scope

MAX_KEYS = 20  # of one EVSE: a station that tells a new one each time fills no table
MAX_CHARACTERS = 2_000


async def note_key(
    scope: Scope, station_id: UUID, evse_no: int, said: str, curve: str | None = None
) -> MeterKey | None:
    """A key that a station told, with or beside its readings. What is no key is None: its reading says so."""
    try:
        name, key = read_key(said[:MAX_CHARACTERS], curve)
    except (Unreadable, Unsupported):
        return None
    der = as_der(key)
    await _lock(scope, station_id)
    known = await list_keys_of(scope, station_id, evse_no)
    row = _among(known, der)
    if row is not None:
        return row
    if len(known) >= MAX_KEYS:
        oldest = next((row for row in known if row.status == "waiting"), None)
        if oldest is None:
            return None
        await scope.db.delete(oldest)
    is_first = not known and not await _is_compared(scope, station_id)
    row = MeterKey(
        station_id=station_id, evse_no=evse_no, curve=name, public_key=der, source="station", told_at=scope.now,
        status="trusted" if is_first else "waiting",
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    if not is_first:
        told = {"station": str(station_id), "evse_no": evse_no}
        await events.emit(scope, "MeterKeyChanged", "meter_key", row.id, told)
        await alerts.raise_alert(scope, station_id, "meter_key", f"EVSE {evse_no}: {fingerprint(der)}")
    return row


async def _is_compared(scope: Scope, station_id: UUID) -> bool:
    """Where staff looked at one meter's plate, they look at those of its neighbours too."""
    query = select(MeterKey.id).where(MeterKey.station_id == station_id, MeterKey.is_compared)
    return (await scope.db.execute(query.limit(1))).first() is not None


async def list_keys_of(scope: Scope, station_id: UUID, evse_no: int) -> list[MeterKey]:
    query = select(MeterKey).where(MeterKey.station_id == station_id, MeterKey.evse_no == evse_no)
    return list((await scope.db.execute(query.order_by(MeterKey.told_at, MeterKey.id))).scalars())


def _among(known: list[MeterKey], public_key: bytes) -> MeterKey | None:
    return next((row for row in known if row.public_key == public_key), None)


async def find_trusted(scope: Scope, station_id: UUID, evse_no: int) -> MeterKey | None:
    query = select(MeterKey).where(
        MeterKey.station_id == station_id, MeterKey.evse_no == evse_no, MeterKey.status == "trusted"
    )
    return (await scope.db.execute(query)).scalar_one_or_none()


async def get_key(scope: Scope, key_id: UUID) -> MeterKey:
    row = await scope.db.get(MeterKey, (scope.tenant_id, key_id))
    if row is None:
        raise NotFound("meter_key")
    return row


async def add_key(scope: Scope, station_id: UUID, evse_no: int, said: str, curve: str = "") -> MeterKey:
    """As staff read it off the meter's plate: trusted from now on, and what was before is replaced.

    Errors: `required`, `key`, `curve`, `evse_no`.
    """
    if await scope.db.get(ChargingStation, (scope.tenant_id, station_id)) is None:
        raise NotFound("charging_station")
    if not said.strip():
        raise Invalid.field("public_key", "required", "Write the meter's public key.")
    if not 1 <= evse_no <= 1_000:
        raise Invalid.field("evse_no", "evse_no", "Say which EVSE: 1 to 1000.")
    if curve and curve not in (*CURVES, K192):
        raise Invalid.field("curve", "curve", "Choose one of the curves.")
    try:
        name, key = read_key(said[:MAX_CHARACTERS], curve or None)
    except (Unreadable, Unsupported) as problem:
        raise Invalid.field("public_key", "key", str(problem)) from None
    der = as_der(key)
    await _lock(scope, station_id)
    known = await list_keys_of(scope, station_id, evse_no)
    row = _among(known, der)
    if row is None:
        row = MeterKey(
            station_id=station_id, evse_no=evse_no, curve=name, public_key=der, source="staff", status="waiting",
            told_at=scope.now,
        )  # fmt: skip
        scope.db.add(row)
        await scope.db.flush()
    await _trust(scope, row)
    return row


async def decide_key(scope: Scope, key_id: UUID, decision: str) -> MeterKey:
    """`trust` (it was compared with the plate, and takes the place of the one before) or `refuse`.

    Errors: `decision`, `replaced`.
    """
    row = await get_key(scope, key_id)
    await _lock(scope, row.station_id)
    await scope.db.refresh(row)
    if decision == "trust":
        await _trust(scope, row)
    elif decision == "refuse":
        if row.status == "replaced":
            raise Refused("replaced", "Another key took its place already.")
        row.status = "refused"
        await _decided(scope, row, "refused")
    else:
        raise Invalid.field("decision", "decision", "The decision is trust or refuse.")
    return row


async def _trust(scope: Scope, row: MeterKey) -> None:
    before = await find_trusted(scope, row.station_id, row.evse_no)
    if before is not None and before.id != row.id:
        before.status = "replaced"
        await scope.db.flush()
    row.status, row.is_compared = "trusted", True
    await _decided(scope, row, "trusted")
    told = {"station": str(row.station_id), "evse_no": row.evse_no}
    await events.emit(scope, "MeterKeyTrusted", "meter_key", row.id, told)


async def _decided(scope: Scope, row: MeterKey, what: str) -> None:
    row.decided_at, row.decided_by = scope.now, scope.actor.name or ""
    told = {"evse_no": row.evse_no, "key": fingerprint(row.public_key)}
    await audit.record(scope, f"meter_key.{what}", "meter_key", row.id, told)
    await scope.db.flush()


async def _lock(scope: Scope, station_id: UUID) -> None:
    """Of two keys told at once one is the first."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:station), hashtext('meter_key'))"),
        {"station": str(station_id)},
    )


def fingerprint(public_key: bytes) -> str:
    """What people compare: the start of SHA-256 over the key, in groups."""
    digits = hashlib.sha256(public_key).hexdigest()[:20].upper()
    return " ".join(digits[n : n + 4] for n in range(0, 20, 4))
