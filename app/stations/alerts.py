"""What is odd about a station, told to staff once per kind; and quarantine, which only staff end.

`duplicate_identity` three times in ten minutes puts the station in quarantine: two boxes claim to be it, and whoever
started a session would not know where the current flows (ocpp.md 2, row 13).
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text, update

from app.kernel import audit, events
from app.kernel.errors import NotFound, Refused
from app.stations.models import ChargingStation, StationAlert
from tenants.scope import Scope

TAKEOVERS, WITHIN = 3, timedelta(minutes=10)

# Kind -> what staff read.
WORDS: dict[str, tuple[str, str]] = {
    "duplicate_identity": (
        "Two boxes use this identity", "A second one connected with the right key while the first was alive.",
    ),
    "wrong_key": ("Somebody tries keys", "Its address was called with wrong keys."),
    "handshake": ("Its handshake was refused", "Its key is right, and its request could not be accepted."),
    "boot_loop": ("It boots again and again", "It is answered from memory until it settles."),
    "card_guessing": (
        "Cards are tried out", "More than 30 refused cards in a minute: for the rest of it every card is refused.",
    ),
    "message_flood": ("It floods us with messages", "It did not wait for answers, and was disconnected."),
    "broken_frames": ("It sends broken messages", "They were kept in the log and not acted on."),
    "nul": ("Its texts hold NUL characters", "They were read without them."),
    "duplicate_key": ("It names a field twice in a message", "The last value counted."),
    "message_id_reused": ("It uses a message id twice", "The second message differed, and was handled as a new one."),
    "time_without_zone": (
        "Its times name no time zone",
        "They are read as UTC. If it means the clock on the wall, choose the quirk “Its times are local times”.",
    ),
    "answer_refused": ("It could not use an answer of ours", "It said so (OCPP 2.1); the answer stands in the log."),
    "meter_key": (
        "Its meter signs with another key", "Its readings are not verified until you have decided on the key.",
    ),
    "answer_misfit": ("Its answers fit no question", "They were kept in the log, and the command counts as failed."),
}  # fmt: skip

_RAISE = text("""
insert into livery.station_alert as a (station_id, kind, detail, count, recent_at, first_at, last_at)
values (:station, :kind, :detail, :count, jsonb_build_array(cast(:at as text)), :now, :now)
on conflict (tenant_id, station_id, kind) do update set
  detail = excluded.detail, count = a.count + excluded.count, last_at = excluded.last_at,
  recent_at = (select jsonb_agg(one) from (select one from jsonb_array_elements(a.recent_at || excluded.recent_at)
               with ordinality as r(one, n) order by n desc limit 10) as newest),
  first_at = case when a.dismissed_at is null then a.first_at else excluded.first_at end,
  dismissed_at = null
returning recent_at, (xmax = 0) as is_new
""")


async def raise_alert(scope: Scope, station_id: UUID, kind: str, detail: str = "", count: int = 1) -> None:
    """Counts; one that staff had dismissed is open again."""
    values = {
        "station": station_id, "kind": kind, "detail": detail[:500], "count": count, "now": scope.now,
        "at": scope.now.isoformat(),
    }  # fmt: skip
    row = (await scope.db.execute(_RAISE, values)).one()
    if row.is_new:
        await events.emit(scope, "StationAlerted", "charging_station", station_id, {"kind": kind})
    scope.publish(f"station:{station_id}", {"what": "alert"})
    if kind == "duplicate_identity" and _are_too_many(row.recent_at, scope.now):
        await _quarantine(scope, station_id)


def _are_too_many(recent_at: list[str], now: datetime) -> bool:
    return len([at for at in recent_at if datetime.fromisoformat(at) > now - WITHIN]) >= TAKEOVERS


async def _quarantine(scope: Scope, station_id: UUID) -> None:
    statement = (
        update(ChargingStation)
        .where(ChargingStation.id == station_id, ChargingStation.quarantined_at.is_(None))
        .values(quarantined_at=scope.now)
        .returning(ChargingStation.id)
    )
    if (await scope.db.execute(statement)).first() is None:
        return
    await audit.record(
        scope, "station.quarantined", "charging_station", station_id, {"why": "duplicate_identity"}
    )
    await events.emit(scope, "StationQuarantined", "charging_station", station_id, {})
    scope.publish("stations", {"station": str(station_id)})


async def release(scope: Scope, station_id: UUID) -> None:
    """Staff decided: the station is asked for things again, and takeovers count from zero."""
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id))
    if station is None:
        raise NotFound("charging_station")
    if station.quarantined_at is None:
        raise Refused("not_in_quarantine", "This station is not in quarantine.")
    station.quarantined_at = None
    forget = update(StationAlert).where(
        StationAlert.station_id == station_id, StationAlert.kind == "duplicate_identity"
    )
    await scope.db.execute(forget.values(recent_at=[], dismissed_at=scope.now))
    await audit.record(scope, "station.released", "charging_station", station_id, {})
    scope.publish(f"station:{station_id}", {"what": "settings"})


async def open_alerts(scope: Scope, station_id: UUID) -> list[StationAlert]:
    """The newest first."""
    query = select(StationAlert).where(
        StationAlert.station_id == station_id, StationAlert.dismissed_at.is_(None)
    )
    return list((await scope.db.execute(query.order_by(StationAlert.last_at.desc()))).scalars())


async def get_alert(scope: Scope, alert_id: UUID) -> StationAlert:
    alert = await scope.db.get(StationAlert, (scope.tenant_id, alert_id))
    if alert is None:
        raise NotFound("station_alert")
    return alert


async def dismiss(scope: Scope, station_id: UUID, alert_id: UUID) -> None:
    alert = await get_alert(scope, alert_id)
    if alert.station_id != station_id:
        raise NotFound("station_alert")
    alert.dismissed_at = scope.now
    await audit.record(scope, "station_alert.dismissed", "charging_station", station_id, {"kind": alert.kind})
