"""Portal pages of a station's limits: what holds, what the station says, and the form that sets one."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.charging import profiles, smart_charging, step_chart, transaction_status
from app.charging.models import (
    ChargingNeed,
    ChargingProfile,
    ChargingSession,
    CompositeSchedule,
    ProfileReport,
)
from app.charging.profiles import Period
from app.charging.smart_charging import PURPOSE_WORDS, Wish
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, form_again, page, read_form, redirect, visit_of
from app.stations import service as stations
from app.stations.models import ChargingStation, StationCommand
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
WINDOW_S = 86400
PURPOSES = [
    ("TxDefaultProfile", "Every session"), ("TxProfile", "The session that runs"),
    ("ChargingStationMaxProfile", "The whole station, never more"),
]  # fmt: skip
KINDS = [
    ("Absolute", "Once, from its begin"), ("Daily", "Every day"), ("Weekly", "Every week"),
    ("Relative", "From each session's start"),
]  # fmt: skip
STATES = {
    "waiting": ("info", "clock", "Follows the start"), "asked": ("info", "send", "Asked"),
    "installed": ("success", "check", "In force"), "unknown": ("warning", "circle-help", "No answer"),
    "refused": ("error", "circle-x", "Refused"), "clearing": ("info", "send", "Being cleared"),
}  # fmt: skip
SOURCES = {
    "CSO": "us",
    "EMS": "the site's energy management",
    "SO": "the grid operator",
    "Other": "somebody else",
}
REPORT_WORDS = {
    "asked": "The station is asked what it has.", "reporting": "The station reports what it has.",
    "complete": "It has reported what it has; the list follows it.", "none": "It has none that fit.",
    "refused": "It could not report: {said}.", "unknown": "It did not answer.",
}  # fmt: skip


class Row:
    """What the head of a station's pages needs."""

    def __init__(self, station: ChargingStation) -> None:
        self.id, self.station = public_id("charging_station", station.id), station
        link = station.connection
        self.link = "never" if link is None else ("online" if link.is_online else "offline")


@get("/stations/{station_id:str}/charging-profiles", opt={"permission": "stations.view"})
async def show_limits(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    station = await stations.get_station(tenant_scope, parse_id("charging_station", station_id))
    values = {"purpose": "TxDefaultProfile", "kind": "Absolute", "unit": "W", "steps": "0:00 11"}
    return page(
        request, tenant_scope, "charging/limits.html", title=_title(station), values=values, errors={}, alert=None,
        **await _parts(request, tenant_scope, station),
    )  # fmt: skip


def _title(station: ChargingStation) -> str:
    return f"Limits of {station.name or station.ocpp_identity}"


async def _parts(request: AnyRequest, scope: Scope, station: ChargingStation) -> dict[str, Any]:
    numbers = [evse.evse_no for evse in station.evses] or [1]
    chosen = _chosen(request, numbers)
    query = (
        select(ChargingProfile)
        .where(ChargingProfile.station_id == station.id, ChargingProfile.state.in_(list(STATES)))
        .order_by(ChargingProfile.id.desc()).limit(100)
    )  # fmt: skip
    rows = [
        row for row in (await scope.db.execute(query)).scalars()
        if row.state != "refused" or row.created_at > scope.now - timedelta(days=1)
    ]  # fmt: skip
    zone = station.location.time_zone if station.location else visit_of(request).time_zone
    is_2x = bool(station.connection and station.connection.ocpp_version not in ("", "ocpp1.6"))
    handling = smart_charging.handling_of(station)
    return {
        "row": Row(station), "evse_no": chosen, "numbers": numbers, "is_2x": is_2x, "states": STATES,
        "lines": [_line(one, zone) for one in rows], "purposes": PURPOSES, "kinds": KINDS,
        "chart": await _chart(scope, station, chosen, zone), "read": await _last_read(scope, station.id, chosen),
        "limits": [(one, SOURCES.get(one.source, one.source), _limit_words(one.schedules, one.told_at, zone))
                   for one in await smart_charging.open_limits(scope, station.id)],
        "needs": await _needs(scope, station.id), "handling": handling, "report": await _report(scope, station.id),
        "queue": await _queue(scope, station.id),
    }  # fmt: skip


def _chosen(request: AnyRequest, numbers: list[int]) -> int:
    text = request.query_params.get("evse", "")
    return int(text) if text.isascii() and text.isdigit() and int(text) in (0, *numbers) else numbers[0]


def _line(row: ChargingProfile, zone: str) -> dict[str, Any]:
    """A profile in words."""
    read = profiles.read(row.profile, row.evse_no)
    schedule = read.schedule if read else None
    words = "–"
    if schedule is not None:
        since = schedule.start_at or row.created_at
        steps = [(period.start_s, float(period.limit)) for period in schedule.periods]
        words = step_chart.in_words(steps, since, schedule.unit, zone)
        if read is not None and read.kind == "Relative" and len(steps) > 1:
            words = ", ".join(_after(start, limit, schedule.unit) for start, limit in steps[:12])
    kind = {"Daily": "every day", "Weekly": "every week"}.get((read.recurrency or "") if read else "", "")
    return {
        "id": public_id("charging_profile", row.id), "row": row, "words": words, "kind": kind,
        "purpose": PURPOSE_WORDS.get(row.purpose, row.purpose),
        "stands_for": PURPOSE_WORDS.get(row.stands_for, "") if row.stands_for else "",
        "source": SOURCES.get(row.source, row.source),
        "session": public_id("charging_session", row.session_id) if row.session_id else None,
    }  # fmt: skip


def _after(start: int, limit: float, unit: str) -> str:
    amount = f"{limit / 1000:g} kW" if unit == "W" else f"{limit:g} A"
    return amount if start == 0 else f"after {timedelta(seconds=start)} {amount}"


async def _last_read(scope: Scope, station_id: UUID, evse_no: int) -> CompositeSchedule | None:
    query = select(CompositeSchedule).where(
        CompositeSchedule.station_id == station_id, CompositeSchedule.evse_no == evse_no
    )
    return (await scope.db.execute(query.order_by(CompositeSchedule.id.desc()).limit(1))).scalar_one_or_none()


async def _chart(scope: Scope, station: ChargingStation, evse_no: int, zone: str) -> step_chart.Chart:
    """Ours from now on; beside what the station told last both as they were then."""
    read = await _last_read(scope, station.id, evse_no)
    told = profiles.read_schedule(read.told) if read is not None and read.told else None
    if read is None or told is None or read.ours is None or read.starts_at is None:
        since = scope.now.replace(second=0, microsecond=0)
        steps = await smart_charging.reckon(
            scope, station.id, evse_no, since, timedelta(seconds=WINDOW_S), "W"
        )
        ours = [(step.start_s, None if step.limit is None else float(step.limit)) for step in steps]
        return step_chart.draw([("By our reckoning", "ours", ours)], since=since, duration_s=WINDOW_S, unit="W",
                               time_zone=zone)  # fmt: skip
    theirs = [(period.start_s, float(period.limit)) for period in told.periods]
    return step_chart.draw(
        [("By our reckoning", "ours", [(start, limit) for start, limit in read.ours["steps"]]),
         ("What the station says", "told", theirs)],
        since=read.starts_at, duration_s=read.duration_s, unit=read.unit, time_zone=zone,
    )  # fmt: skip


def _limit_words(schedules: list[Any], at: datetime, zone: str) -> str:
    read = [profiles.read_schedule(one) for one in schedules if isinstance(one, dict)]
    return "; ".join(
        step_chart.in_words([(p.start_s, float(p.limit)) for p in one.periods], one.start_at or at, one.unit, zone)
        for one in read if one is not None
    )  # fmt: skip


async def _needs(scope: Scope, station_id: UUID) -> list[dict[str, Any]]:
    """Of cars that charge now."""
    query = (
        select(ChargingNeed)
        .join(ChargingSession, ChargingSession.id == ChargingNeed.session_id)
        .where(ChargingNeed.station_id == station_id, ChargingSession.status == "ACTIVE")
        .order_by(ChargingNeed.evse_no)
    )
    found = []
    for one in (await scope.db.execute(query)).scalars():
        ac = (
            (one.needs or {}).get("acChargingParameters")
            or (one.needs or {}).get("dcChargingParameters")
            or {}
        )
        amount = profiles.read_decimal(ac.get("energyAmount")) if isinstance(ac, dict) else None
        found.append({
            "need": one, "session": public_id("charging_session", one.session_id),
            "kwh": f"{amount / 1000:g} kWh" if amount is not None else "",
            "leaves": profiles.read_time((one.needs or {}).get("departureTime")),
        })  # fmt: skip
    return found


async def _report(scope: Scope, station_id: UUID) -> tuple[ProfileReport, str] | None:
    query = select(ProfileReport).where(ProfileReport.station_id == station_id)
    row = (await scope.db.execute(query.order_by(ProfileReport.id.desc()).limit(1))).scalar_one_or_none()
    return (row, REPORT_WORDS[row.state].format(said=row.said or "no reason given")) if row else None


async def _queue(scope: Scope, station_id: UUID) -> tuple[StationCommand, str] | None:
    """What it said last about messages it still holds."""
    query = select(StationCommand).where(
        StationCommand.station_id == station_id, StationCommand.action == "GetTransactionStatus"
    )
    row = (await scope.db.execute(query.order_by(StationCommand.id.desc()).limit(1))).scalar_one_or_none()
    if row is None:
        return None
    words = transaction_status.in_words(row.answer or {}) if row.status == "accepted" else (row.error or "")
    return row, words


# --- what staff ask ----------------------------------------------------------------------------------------------


@post("/stations/{station_id:str}/charging-profiles", opt={"permission": "stations.command"})
async def set_limit(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station = await stations.get_station(tenant_scope, parse_id("charging_station", station_id))
    form = await read_form(request)
    try:
        wish = await _wish(request, tenant_scope, station, form)
        await smart_charging.set_profile(tenant_scope, station.id, wish)
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "charging/limits.html", error, form, title=_title(station),
            **await _parts(request, tenant_scope, station),
        )  # fmt: skip
    return _back(request, station_id, wish.evse_no, "The station is asked to keep this limit.")


async def _wish(request: AnyRequest, scope: Scope, station: ChargingStation, form: Form) -> Wish:
    purpose, kind, unit = form.text("purpose"), form.text("kind", "Absolute"), form.text("unit", "W")
    evse_no = form.integer("evse_no") or 0
    begin = _begin(form.text("start_at"), visit_of(request).time_zone)
    recurrency = kind if kind in profiles.ROUNDS else None
    if recurrency and begin is None:  # the day's first minute where the station stands
        zone = ZoneInfo(station.location.time_zone if station.location else visit_of(request).time_zone)
        begin = scope.now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    hours = form.integer("hours")
    session_id = None
    if purpose == profiles.TX:
        query = select(ChargingSession.id).where(
            ChargingSession.station_id == station.id, ChargingSession.evse_no == evse_no,
            ChargingSession.status == "ACTIVE",
        )  # fmt: skip
        session_id = (await scope.db.execute(query.limit(1))).scalar_one_or_none()
        if session_id is None:
            raise Refused("not_active", "No session runs on this EVSE.")
    return Wish(
        purpose=purpose, periods=_steps(form.text("steps"), unit), unit="A" if unit == "A" else "W", evse_no=evse_no,
        kind="Recurring" if recurrency else kind, recurrency=recurrency, stack_level=form.integer("stack_level") or 0,
        start_at=begin, duration_s=hours * 3600 if hours else (86400 if recurrency == "Daily" else None),
        session_id=session_id,
    )  # fmt: skip


def _begin(text: str, time_zone: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid.field("start_at", "time", "This must be a time like 2027-01-31T22:00.") from None
    return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(time_zone))


def _steps(text: str, unit: str) -> tuple[Period, ...]:
    """Lines of `hours:minutes limit [phases]`, kW or A."""
    found = []
    for line in text.splitlines():
        parts = line.replace(",", ".").split()
        if not parts:
            continue
        try:
            hours, _, minutes = parts[0].partition(":")
            start = int(hours) * 3600 + int(minutes or 0) * 60
            limit = Decimal(parts[1]) * (1000 if unit == "W" else 1)
            phases = int(parts[2]) if len(parts) > 2 else None
        except (ValueError, IndexError, ArithmeticError):
            raise Invalid.field(
                "steps", "steps", f"“{line[:40]}” is not a time and a limit such as 22:00 4."
            ) from None
        if not limit.is_finite() or not 0 <= start <= 7 * 86400 or phases not in (None, 1, 2, 3):
            raise Invalid.field("steps", "steps", f"“{line[:40]}” is out of range.")
        found.append(Period(start, limit, phases))
    return tuple(found)


def _back(
    request: AnyRequest, station_id: str, evse_no: int | None, flash: str, kind: str = "success"
) -> Response[Any]:
    return redirect(
        request, f"/stations/{station_id}/charging-profiles" + (f"?evse={evse_no}" if evse_no else ""),
        flash=flash, kind=kind,
    )  # fmt: skip


@post("/charging-profiles/{charging_profile_id:str}/clearings", opt={"permission": "stations.command"})
async def clear_limit(request: AnyRequest, tenant_scope: Scope, charging_profile_id: str) -> Response[Any]:
    key = parse_id("charging_profile", charging_profile_id)
    row = await smart_charging.get_profile(tenant_scope, key)
    await smart_charging.clear_profile(tenant_scope, key)
    station = public_id("charging_station", row.station_id)
    return _back(request, station, row.evse_no, "The station is asked to forget this limit.")


@post("/stations/{station_id:str}/charging-profiles/clearings", opt={"permission": "stations.command"})
async def clear_limits(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    key, form = parse_id("charging_station", station_id), await read_form(request)
    try:
        await smart_charging.clear_profiles(
            tenant_scope, key, evse_no=form.integer("evse_no"), purpose=form.text("purpose") or None,
            stack_level=form.integer("stack_level"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return _back(request, station_id, None, error.message, "error")
    return _back(request, station_id, None, "The station is asked to forget them.")


@post("/stations/{station_id:str}/charging-profiles/reports", opt={"permission": "stations.command"})
async def ask_report(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    try:
        await smart_charging.ask_profiles(tenant_scope, parse_id("charging_station", station_id))
    except Refused as error:
        return _back(request, station_id, None, error.message, "error")
    return _back(request, station_id, None, "The station is asked what it has.")


@post("/stations/{station_id:str}/composite-schedules", opt={"permission": "stations.command"})
async def read_back(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    key, form = parse_id("charging_station", station_id), await read_form(request)
    evse_no = form.integer("evse_no") or 0
    try:
        await smart_charging.ask_composite(tenant_scope, key, evse_no=evse_no, duration_s=WINDOW_S)
    except (Invalid, Refused) as error:
        return _back(request, station_id, evse_no, error.message, "error")
    return _back(request, station_id, evse_no, "The station is asked what it will give.")


@post("/stations/{station_id:str}/transaction-status-requests", opt={"permission": "stations.command"})
async def ask_queue(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    key = parse_id("charging_station", station_id)
    try:
        await transaction_status.ask(tenant_scope, key)
    except (Invalid, Refused) as error:
        return _back(request, station_id, None, error.message, "error")
    return _back(request, station_id, None, "The station is asked what it still holds.")


@post(
    "/charging-sessions/{session_id:str}/transaction-status-requests", opt={"permission": "sessions.manage"}
)
async def ask_session_queue(request: AnyRequest, tenant_scope: Scope, session_id: str) -> Response[Any]:
    path = f"/charging-sessions/{session_id}"
    key = parse_id("charging_session", session_id)
    session = await tenant_scope.db.get(ChargingSession, (tenant_scope.tenant_id, key))
    if session is None:
        raise NotFound("charging_session")
    try:
        await transaction_status.ask(tenant_scope, session.station_id, key)
    except (Invalid, Refused) as error:
        return redirect(request, path, flash=error.message, kind="error")
    return redirect(request, path, flash="The station is asked what it still holds of it.")


routes = [
    show_limits, set_limit, clear_limit, clear_limits, ask_report, read_back, ask_queue, ask_session_queue,
]  # fmt: skip
