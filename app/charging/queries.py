"""Screen reads of sessions."""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, text
from sqlalchemy.orm import selectinload

from app.access import accounts
from app.charging import rollups, service
from app.charging.models import CDR, ChargingSession, MeterHour, SessionEvent
from app.charging.reports import POWER
from app.stations.models import EVSE, ChargingStation, Location
from tenants.scope import Scope
from themes.render import kwh

ROW = (
    selectinload(ChargingSession.station).selectinload(ChargingStation.location),
    selectinload(ChargingSession.live),
    selectinload(ChargingSession.driver),
    selectinload(ChargingSession.id_token),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """`state` is one of OCPI's five or `review`; days are the tenant's."""

    state: str = ""
    station_id: UUID | None = None
    since: date | None = None
    until: date | None = None


async def list_sessions(
    scope: Scope, wanted: Filter, *, time_zone: str, after: UUID | None = None, limit: int = 50
) -> list[tuple[ChargingSession, CDR | None]]:
    """Newest first, each with its valid CDR where there is one."""
    query = select(ChargingSession).options(*ROW).order_by(ChargingSession.id.desc()).limit(limit)
    if wanted.state == "review":
        query = query.where(ChargingSession.review.is_not(None))
    elif wanted.state:
        query = query.where(ChargingSession.status == wanted.state)
    if wanted.station_id is not None:
        query = query.where(ChargingSession.station_id == wanted.station_id)
    if wanted.since is not None:
        query = query.where(ChargingSession.started_at >= _midnight(wanted.since, time_zone))
    if wanted.until is not None:
        query = query.where(
            ChargingSession.started_at < _midnight(wanted.until + timedelta(days=1), time_zone)
        )
    if after is not None:
        query = query.where(ChargingSession.id < after)
    rows = list((await scope.db.execute(query)).scalars())
    costs = await cdrs_of(scope, [row.id for row in rows])
    return [(row, costs.get(row.id)) for row in rows]


def _midnight(day: date, time_zone: str) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(time_zone))


async def places(
    scope: Scope, *, limit: int, location_id: UUID | None = None, evse_id: UUID | None = None
) -> list[EVSE]:
    """What drivers may be sent to, by site and station: nothing retired, nothing that was turned away."""
    query = (
        select(EVSE)
        .join(EVSE.station)
        .outerjoin(ChargingStation.location)
        .where(ChargingStation.retired_at.is_(None), ChargingStation.registration != "rejected")
        .options(selectinload(EVSE.station).selectinload(ChargingStation.location))
        .order_by(func.lower(Location.name), ChargingStation.ocpp_identity, EVSE.evse_no)
        .limit(limit)
    )
    if location_id is not None:
        query = query.where(ChargingStation.location_id == location_id)
    if evse_id is not None:
        query = query.where(EVSE.id == evse_id)
    return list((await scope.db.execute(query)).scalars())


async def cdrs_of(scope: Scope, session_ids: list[UUID]) -> dict[UUID, CDR]:
    """The newest CDR of each session that was not credited."""
    credited = select(CDR.corrects_id).where(CDR.kind == "credit")
    query = (
        select(CDR)
        .where(CDR.session_id.in_(session_ids), CDR.kind == "cdr", CDR.id.not_in(credited))
        .order_by(CDR.revision_no)
    )
    return {cdr.session_id: cdr for cdr in (await scope.db.execute(query)).scalars()}


async def all_cdrs(scope: Scope, session_id: UUID) -> list[CDR]:
    query = select(CDR).where(CDR.session_id == session_id).order_by(CDR.created_at, CDR.id)
    return list((await scope.db.execute(query)).scalars())


async def find_credited(scope: Scope, session_id: UUID) -> CDR | None:
    """What a session had cost before all of it was credited; None while a CDR of it stands."""
    cdrs = await all_cdrs(scope, session_id)
    credited = {cdr.corrects_id for cdr in cdrs}
    charged = [cdr for cdr in cdrs if cdr.kind == "cdr"]
    return charged[-1] if charged and all(cdr.id in credited for cdr in charged) else None


async def events_of(scope: Scope, session_id: UUID) -> list[SessionEvent]:
    query = select(SessionEvent).where(SessionEvent.session_id == session_id)
    return list((await scope.db.execute(query.order_by(SessionEvent.at, SessionEvent.id))).scalars())


_WORDS: dict[str, tuple[str, str, str]] = {
    "requested": ("Start requested", "send", "info"), "started": ("Started", "play", "success"),
    "authorised": ("Authorised", "nfc", "success"),
    "state": ("State", "circle-dot", ""), "stop_requested": ("Stop requested", "send", "info"),
    "queue_asked": ("Asked what the station still holds", "eye", ""),
    "ended": ("Ended", "square", "success"),
    "ended_late": ("The station told its end after this was closed", "square", "warning"),
    "superseded": ("Superseded by a newer session", "triangle-alert", "warning"),
    "stuck": ("No word for long: closed", "triangle-alert", "warning"), "reviewed": ("Reviewed", "eye", "info"),
    "verified": ("What the meter signed was verified", "badge-check", "success"),
    "not_started": ("Nobody plugged in", "timer", "warning"),
    "start_refused": ("The station refused the start", "circle-x", "error"),
    "stop_refused": ("The station did not stop when asked", "circle-x", "error"),
    "stop_not_sent": ("The station could not be asked to stop", "circle-x", "error"),
    "unplugged": ("Free, and no stop was told: closed", "triangle-alert", "warning"),
    "start_again": ("The station told the start once more", "triangle-alert", "warning"),
    "interrupted": ("The station restarted", "rotate-cw", "warning"),
    "hold_asked": ("The saved card is asked for a hold", "credit-card", ""),
    "hold_raise_asked": ("The bank is asked to hold more", "credit-card", ""),
    "leg_taken": ("A hold ran out: the cost so far is taken", "credit-card", "info"),
    "cap_reached": ("The hold was all but used up", "credit-card", "warning"),
    "wallet_too_small": ("Too little in the driver's wallet: invoiced instead", "credit-card", "warning"),
    "review_taken": ("Not decided in time: what can be believed was taken", "credit-card", "warning"),
    "review_let_go": ("Not decided in time: nothing can be believed, the hold is let go", "credit-card", "warning"),
    "hold_ends": ("The hold was about to end: closed at the last reading", "credit-card", "warning"),
}  # fmt: skip
_CAP = {"hold_gone": "Nothing is held any more", "hold_ends": "The hold was about to end"}
_STATES = {
    "Charging": "Charging", "SuspendedEV": "The car takes no energy", "SuspendedEVSE": "The station holds back",
    "EVConnected": "Plugged in", "Idle": "Unplugged",
}  # fmt: skip


_NOT_STARTED: dict[str, tuple[str, str, str]] = {
    "given_up": ("Given up by the driver", "ban", ""), "checkout_expired": ("No card was given in time", "timer", ""),
    "station_offline": ("The station was offline", "wifi-off", "warning"),
    "station_quarantined": ("The station is being checked", "shield", "warning"),
    "evse_taken": ("Another driver was quicker", "ban", ""),
    "evse_reserved": ("The EVSE was reserved for somebody else", "ban", ""),
    "evse_busy": ("A session was running already", "ban", ""),
    "evse_faulted": ("The EVSE reported a fault", "triangle-alert", "warning"),
    "evse_unavailable": ("The EVSE was out of service", "triangle-alert", "warning"),
    "payment_ended": ("The payment ended first", "credit-card", ""),
}  # fmt: skip


def why_not_started(code: str) -> str:
    """Why a session never began, in words."""
    words = {"not_plugged_in": "Nobody plugged in", "station_refused": "The station refused the start"}
    return words.get(code) or _NOT_STARTED.get(code, (code.replace("_", " ").capitalize(),))[0]


def timeline(events: list[SessionEvent], not_started: str | None = None) -> list[dict[str, Any]]:
    """What happened, in words. `not_started` is the session's own, for events that were noted without it."""
    found = []
    for event in events:
        title, icon, tone = _WORDS.get(
            event.kind, (event.kind.replace("_", " ").capitalize(), "circle-dot", "")
        )
        if event.kind == "not_started":
            code = event.data.get("code") or not_started or "not_plugged_in"
            title, icon, tone = _NOT_STARTED.get(
                code, (title, icon, tone) if code == "not_plugged_in" else ("Not started", "ban", "warning")
            )
        if event.kind == "cap_reached":
            title = _CAP.get(event.data.get("why") or "", title)
        if event.kind == "state":
            title = _STATES.get(event.data["state"], event.data["state"])
        told = [_text(event), "by our clock, the station's was wrong" if event.data.get("our_clock") else ""]
        text = ", ".join(part for part in told if part)
        found.append({"at": event.at, "title": title, "icon": icon, "tone": tone, "text": text})
    return found


def _text(event: SessionEvent) -> str:
    data = event.data
    if event.kind in ("started", "authorised"):
        parts = [f"card {data['token']}" if data.get("token") else "", _verdict(data.get("token_status"))]
        return ", ".join(
            part for part in [*parts, "told later by the station" if data.get("offline") else ""] if part
        )
    if event.kind == "not_started":
        code = data.get("code") or ""
        return "" if code in (*_NOT_STARTED, "", "not_plugged_in") else code.replace("_", " ")
    if event.kind in ("start_refused", "stop_refused"):
        answer = data.get("answer") or {}
        return f"Its answer: {answer.get('status') or data.get('error') or data.get('status')}"
    if event.kind == "ended_late":
        return _late(data.get("meter_wh"), data.get("more_wh"))
    if event.kind == "hold_asked":
        return f"{data['card']}, hold {data.get('leg', 1)}"
    if event.kind == "hold_raise_asked":
        return data["card"]
    if event.kind == "review_taken":
        return f"{kwh(data['energy_wh'])}; the review stays open, and a credit gives back what was too much"
    if event.kind == "stop_not_sent":
        return data.get("error") or ""
    if event.kind == "reviewed":
        return f"{data['decision']} by {data['by']}: {data['note']}"
    if event.kind == "verified":
        return kwh(data["energy_wh"])
    if event.kind == "superseded":
        return "The station began another one on the same EVSE before it ended this one"
    if event.kind == "queue_asked":
        return data["text"]
    if event.kind in ("requested", "stop_requested"):
        return _by(data.get("by") or "", data.get("kind") or "")
    return f"reason {data['reason']}" if data.get("reason") else ""


def _late(meter_wh: int | None, more_wh: int | None) -> str:
    if meter_wh is None:
        return "without a reading of its meter"
    told = f"its meter stood at {kwh(meter_wh)}"
    return (
        f"{told}, {kwh(more_wh)} more than was billed: nothing more is taken" if (more_wh or 0) > 0 else told
    )


_ASKERS = {
    "charging.stop_refused": "because the card was refused", "charging.watch_cap": "because of the hold",
    "charging.check_cap": "because of the hold", "charging.payment_ended": "because of the hold",
    "charging.payment_authorized": "because the card was good",
    "guest": "by a guest", "driver": "by a driver", "demo": "by the demo", "command line": "by the command line",
}  # fmt: skip


def _by(name: str, kind: str) -> str:
    """Who asked the station, or for what cause the platform did."""
    if name in _ASKERS:
        return _ASKERS[name]
    if kind == "job" or name.startswith("charging."):
        return "by the platform itself"
    if kind == "api_key":
        return f"by the API key {name}"
    if kind == "driver":
        return f"by the driver {name}".rstrip()
    return f"by {name}" if name else "by a guest"


def _verdict(status: str | None) -> str:
    return "" if status in (None, "Accepted") else f"refused: {status}"


async def power_points(scope: Scope, session_id: UUID) -> dict[str, list[Any]]:
    """kW by time; minutes of it where the raw readings are gone."""
    points = await rollups.points_of(scope, session_id, POWER)
    return {
        "t": [int(at.timestamp()) for at, _ in points],
        "kw": [float(round(value / 1000, 2)) for _, value in points],
    }


async def power_now(scope: Scope, session: ChargingSession) -> int | None:
    """Watts. None where the last reading tells nothing of now: the state has changed since, or nobody hears."""
    live, connection = session.live, await service.connection_of(scope, session.station_id)
    if session.status != "ACTIVE" or live is None or (connection is not None and not connection.is_online):
        return None
    changed = select(func.max(SessionEvent.at)).where(
        SessionEvent.session_id == session.id, SessionEvent.kind == "state"
    )
    changed_at = (await scope.db.execute(changed)).scalar_one()
    is_older = live.reading_at is not None and changed_at is not None and live.reading_at < changed_at
    return None if is_older else live.power_w


async def meter_hours(
    scope: Scope, station_id: UUID, measurand: str, since: datetime, until: datetime
) -> list[tuple[MeterHour, int | None]]:
    """Hours that begin in that time, by EVSE, each with what a register rose since the hour before (in it, for the
    first): None where it fell."""
    query = (
        select(MeterHour)
        .where(
            MeterHour.station_id == station_id, MeterHour.measurand == measurand,
            MeterHour.hour_at >= since, MeterHour.hour_at < until,
        )
        .order_by(MeterHour.evse_no, MeterHour.phase, MeterHour.location, MeterHour.unit, MeterHour.hour_at)
    )  # fmt: skip
    found: list[tuple[MeterHour, int | None]] = []
    before: MeterHour | None = None
    for row in (await scope.db.execute(query)).scalars():
        kind = (row.evse_no, row.phase, row.location, row.unit)
        follows = before is not None and kind == (before.evse_no, before.phase, before.location, before.unit)
        rose = row.last_value - (before.last_value if before is not None and follows else row.first_value)
        found.append((row, round(rose) if rose >= 0 else None))
        before = row
    return found


async def frames_of(scope: Scope, session: ChargingSession, limit: int = 50) -> list[Any]:
    """Newest first: the frames of its station in its time that are about it, and what was answered to them.

    Those that name its transaction or remote start; those that show its card to ask or to start; what its EVSE said of
    its state. Readings (1.6 MeterValues) are left out: the curve shows them. A station counts its message ids anew
    after a restart, so that an answer must also be near its question.
    """
    query = text("""
        with spoken as materialized (
          select id, at, message_id, action, direction, kind, error, (
                 raw ~ cast(:transaction as text) or raw ~ cast(:remote_start as text)
                 or (action in ('Authorize', 'StartTransaction', 'RemoteStartTransaction', 'RequestStartTransaction')
                     and position(lower(cast(:token as text)) in lower(raw)) > 0)
                 or (action = 'StatusNotification' and at <= :left_at
                     and raw ~ case when raw like '%"evseId"%' then :evse else :connector end)
                 ) is true as is_own
            from livery.ocpp_frame
           where station_id = :station and call_at between :since and :until and action is distinct from 'MeterValues')
        select id, at, action, direction, kind, error from spoken
         where is_own or exists (
               select from spoken as own
                where own.is_own and own.message_id = spoken.message_id and own.action = spoken.action
                  and own.at between spoken.at - interval '1 minute' and spoken.at + interval '1 minute')
         order by at desc, id desc limit :limit""")
    token = session.id_token
    ended_at = session.ended_at or scope.now
    parameters = {
        "station": session.station_id, "since": session.created_at - timedelta(minutes=2), "limit": limit,
        "until": max(ended_at, session.created_at) + timedelta(minutes=10), "left_at": ended_at + timedelta(minutes=2),
        "transaction": _member("transactionId", session.ocpp_transaction_id),
        "remote_start": _member("remoteStartId", session.remote_start_id),
        "token": accounts.presented(scope, token).value if token is not None else None,
        "evse": _member("evseId", session.evse_no), "connector": _member("connectorId", session.evse_no),
    }  # fmt: skip
    return list((await scope.db.execute(query, parameters)).all())


def _member(name: str, value: str | int | None) -> str | None:
    """A pattern for the member of an object in JSON that holds this and nothing else; None finds nothing."""
    return None if value is None else rf'"{name}"\s*:\s*"?{re.escape(str(value))}"?\s*[,}}]'


async def today(scope: Scope, time_zone: str) -> dict[str, Any]:
    """The overview's figures: this day against the same weekday a week ago, up to the same minute."""
    local = scope.now.astimezone(ZoneInfo(time_zone))
    start = local.replace(hour=0, minute=0, second=0, microsecond=0)
    week = timedelta(days=7)
    query = text("""
        select coalesce(sum(energy_wh), 0)::bigint as energy_wh,
               coalesce(sum(incl_vat_minor), 0)::bigint as gross_minor,
               count(*) as sessions_count, min(currency) as currency
          from livery.cdr where ended_at >= :since and ended_at < :until and kind = 'cdr'""")
    rows = []
    for since, until in ((start, local), (start - week, local - week)):
        rows.append((await scope.db.execute(query, {"since": since, "until": until})).one())
    return {"today": rows[0], "before": rows[1]}


async def counts(scope: Scope) -> dict[str, int]:
    query = text("""
        select count(*) filter (where status = 'ACTIVE') as active_count,
               count(*) filter (where review is not null) as review_count
          from livery.charging_session where status = 'ACTIVE' or review is not null""")
    row = (await scope.db.execute(query)).one()
    return {"active": row.active_count, "review": row.review_count}
