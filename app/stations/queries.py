"""Screen reads of stations: lists, figures, the decoded log."""

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, text
from sqlalchemy.orm import selectinload

from app.kernel.errors import NotFound
from app.kernel.ids import parse_id, public_id
from app.stations.models import EVSE, ChargingStation, OCPPFrame, StationCommand
from app.stations.redaction import mask_frame
from app.stations.status import evse_status, link_state
from tenants.scope import Scope

WHOLE_STATION = (
    selectinload(ChargingStation.location),
    selectinload(ChargingStation.connection),
    selectinload(ChargingStation.evses).selectinload(EVSE.connectors),
    selectinload(ChargingStation.evses).selectinload(EVSE.live),
    selectinload(ChargingStation.evses).selectinload(EVSE.figures),
)
CURVE, STEP_S = timedelta(hours=3), 30
HELD = timedelta(minutes=16)  # the rarest usual reading: once a quarter of an hour, by the clock


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list of stations is narrowed by; empty means everything."""

    q: str = ""
    location_id: UUID | None = None
    state: str = ""


def status_of(station: ChargingStation, evse: EVSE) -> str:
    return evse_status(
        [connector.status for connector in evse.connectors], evse.live.activity if evse.live else "idle",
        is_online=link_state(station) == "online", has_connected=station.connection is not None,
        is_retired=station.retired_at is not None,
    )  # fmt: skip


async def list_stations(scope: Scope, wanted: Filter) -> list[ChargingStation]:
    """A brand's stations by site and name. States are derived, so they are filtered here."""
    query = select(ChargingStation).where(ChargingStation.retired_at.is_(None)).options(*WHOLE_STATION)
    if wanted.location_id is not None:
        query = query.where(ChargingStation.location_id == wanted.location_id)
    rows = list((await scope.db.execute(query.order_by(ChargingStation.ocpp_identity))).scalars())
    if wanted.q:
        needle = wanted.q.casefold()
        rows = [
            row
            for row in rows
            if needle in f"{row.ocpp_identity} {row.name} {row.vendor} {row.model}".casefold()
        ]
    if wanted.state:
        rows = [
            row for row in rows
            if link_state(row) == wanted.state or wanted.state in {status_of(row, evse) for evse in row.evses}
        ]  # fmt: skip
    return rows


@dataclass(frozen=True, slots=True)
class LogLine:
    """A frame with what it says in a line."""

    row: OCPPFrame
    key: str
    summary: str
    raw: str


@dataclass(frozen=True, slots=True)
class LogFilter:
    action: str = ""
    direction: str = ""
    errors: bool = False
    q: str = ""


def frames(station_id: UUID, after: str = "") -> Select[OCPPFrame]:
    """The raw log of a station, newest first. A page of it by ids (`after` is the last id of the one before) reads no
    more than the page."""
    query = select(OCPPFrame).where(OCPPFrame.station_id == station_id).order_by(OCPPFrame.call_id.desc())
    with contextlib.suppress(NotFound):  # whoever asks for the page says what is wrong
        query = query.where(OCPPFrame.call_id <= parse_id("ocpp_message", after)) if after else query
    return query


async def log(
    scope: Scope, station_id: UUID, wanted: LogFilter, *, after: str = "", limit: int = 50
) -> tuple[list[LogLine], str | None]:
    """Newest first, and where older ones go on: by the rows, also where some of them may not be shown."""
    query = frames(station_id, after)
    if wanted.action:
        query = query.where(OCPPFrame.action == wanted.action)
    if wanted.direction in ("in", "out"):
        query = query.where(OCPPFrame.direction == wanted.direction)
    if wanted.errors:
        query = query.where(OCPPFrame.error.is_not(None))
    if wanted.q:
        query = query.where(OCPPFrame.raw.contains(wanted.q, autoescape=True))
    if after:
        query = query.where(OCPPFrame.id < parse_id("ocpp_message", after))
    rows = list((await scope.db.execute(query.order_by(OCPPFrame.id.desc()).limit(limit + 1))).scalars())
    lines = [_line(scope, row) for row in rows[:limit]]
    more = public_id("ocpp_message", rows[limit - 1].id) if len(rows) > limit else None
    # What somebody may not read he may not find out by searching either.
    return [line for line in lines if not wanted.q or wanted.q in line.raw], more


def _line(scope: Scope, row: OCPPFrame) -> LogLine:
    raw = row.raw if scope.actor.may("id_tokens.reveal") else mask_frame(row.raw)
    return LogLine(row, public_id("ocpp_message", row.id), summary(row.kind, raw, row.error), raw)


async def get_message(scope: Scope, station_id: UUID, message_id: UUID) -> LogLine:
    call_ids = (message_id, UUID(int=message_id.int & ~1))
    query = frames(station_id).where(OCPPFrame.call_id.in_(call_ids), OCPPFrame.id == message_id)
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None:
        raise NotFound("ocpp_message")
    return _line(scope, row)


async def log_actions(scope: Scope, station_id: UUID) -> list[str]:
    query = text(
        "select distinct action from livery.ocpp_message where station_id = :station and action is not null"
        " and at > :since order by action"
    )
    parameters = {"station": station_id, "since": scope.now - timedelta(days=7)}
    return list((await scope.db.execute(query, parameters)).scalars())


def summary(kind: str, raw: str, error: str | None) -> str:
    """`connectorId 1 · status Charging`: the part of the payload a person looks for; `raw` as its reader may see it."""
    try:
        frame = json.loads(raw)
        payload = frame[3] if kind == "call" else frame[2]
    except (ValueError, IndexError, KeyError, RecursionError):
        return error or "not readable"
    if kind == "error":
        return f"{frame[2]}: {frame[3]}" if len(frame) > 3 else str(frame[2])
    return _words(payload) if isinstance(payload, dict) else ""


_TOLD = (
    "status", "connectorStatus", "eventType", "triggerReason", "connectorId", "evseId", "transactionId", "idTag",
    "meterStart", "meterStop", "reason", "type", "requestedMessage", "key", "chargePointModel", "interval",
)  # fmt: skip


def _words(payload: dict[str, Any]) -> str:
    parts = [f"{name} {payload[name]}" for name in _TOLD if isinstance(payload.get(name), str | int)]
    info = payload.get("idTagInfo") or payload.get("idTokenInfo") or payload.get("transactionInfo")
    if isinstance(info, dict):
        parts += [f"{name} {value}" for name, value in info.items() if isinstance(value, str)][:3]
    reading = payload.get("meterValue")
    if isinstance(reading, list) and reading and isinstance(reading[-1], dict):
        samples = reading[-1].get("sampledValue") or []
        parts += [
            f"{sample.get('measurand', 'Energy')} {sample.get('value')}"
            for sample in samples[:3]
            if isinstance(sample, dict)
        ]
    return " · ".join(parts)[:300]


async def recent_commands(scope: Scope, station_id: UUID, limit: int = 8) -> list[StationCommand]:
    query = (
        select(StationCommand)
        .where(StationCommand.station_id == station_id)
        .order_by(StationCommand.created_at.desc(), StationCommand.id.desc())
        .limit(limit)
    )
    return list((await scope.db.execute(query)).scalars())


async def power_curve(scope: Scope, station_id: UUID | None, since: datetime) -> dict[str, list[Any]]:
    """kW of the whole station, or of all of them, each half minute until now: {"t": epoch seconds, "kw": …}.

    A reading holds until the next of its EVSE, its session's end or `HELD`: stations tell at times of their own, and
    a sum of only those that told within a half minute is no power that ever flowed. EVSE 0 is the station's own meter
    (OCPP 1.6, connectorId 0): it counts what the others tell already.
    """
    query = text("""
        with reading as (
          select session_id, sampled_at as at, value as w,
                 lead(sampled_at) over (partition by station_id, evse_no order by sampled_at) as next_at
            from livery.meter_value
           where (station_id = :station or :station is null) and (evse_no > 0 or session_id is not null)
             and measurand = 'Power.Active.Import' and phase = '' and value is not null
             and sampled_at > cast(:since as timestamptz) - cast(:held as interval) and sampled_at <= :now
        ), held as (
          select r.at, r.w, greatest(r.at, least(r.next_at, s.ended_at, r.at + cast(:held as interval))) as until
            from reading r left join livery.charging_session s on s.id = r.session_id
        ), change as (
          select at, w from held where until > :since
          union all select until, -w from held where until > :since and until <= :now
        )
        select least(cast(ceil(extract(epoch from greatest(at, :since)) / :step) as bigint) * :step, :now_s) as at_s,
               sum(w) as w
          from change group by 1 order by 1""")
    now_s = int(scope.now.timestamp())
    parameters = {
        "station": station_id, "since": since, "held": HELD, "now": scope.now, "now_s": now_s, "step": STEP_S
    }  # fmt: skip
    changes = {row.at_s: row.w for row in (await scope.db.execute(query, parameters)).all()}
    if not changes:
        return {"t": [], "kw": []}
    times = [*range(min(changes), now_s, STEP_S), now_s]
    levels = accumulate(changes.get(at, 0) for at in times)
    return {"t": times, "kw": [float(round(level / 1000, 2)) for level in levels]}


def curve_in_words(points: dict[str, list[Any]]) -> str:
    """For those who cannot see the curve."""
    if not points["kw"]:
        return "No power was reported in this time."
    return f"Power rose to {max(points['kw']):.1f} kW and is now {points['kw'][-1]:.1f} kW."


async def unclaimed(scope: Scope) -> list[Any]:
    """Strangers that named this brand."""
    return list((await scope.db.execute(text("select * from platform.own_unclaimed()"))).all())


async def open_sessions(scope: Scope, station_id: UUID) -> dict[UUID, UUID]:
    """EVSE -> its running or waiting session, for links."""
    query = text(
        "select evse_id, id from livery.charging_session where station_id = :station"
        " and status in ('ACTIVE', 'PENDING')"
        " order by started_at"
    )
    rows = (await scope.db.execute(query, {"station": station_id})).all()
    return {row.evse_id: row.id for row in rows}
