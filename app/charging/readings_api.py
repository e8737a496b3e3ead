"""REST: readings as they are kept for good: a session's course, and the hours of a station (`rollups.py`)."""

from datetime import timedelta
from typing import Any

from litestar import get

from app.charging import queries, rollups, service
from app.charging.models import MeterHour
from app.charging.reports import ENERGY
from app.kernel.errors import Invalid
from app.kernel.ids import parse_id
from app.kernel.rest import read_time, rfc3339
from app.stations import service as stations
from tenants.scope import Scope

MOST_HOURS = timedelta(days=31)
MOST_POINTS = 3000
DEFAULT_HOURS = timedelta(days=1)


@get("/charging-sessions/{session_id:str}/readings", opt={"permission": "sessions.view"}, tags=["sessions"],
     summary="The course of a measurand (the energy register unless told), by the minute once it is old")  # fmt: skip
async def list_readings(tenant_scope: Scope, session_id: str, measurand: str = ENERGY) -> dict[str, Any]:
    session = await service.get_session(tenant_scope, parse_id("charging_session", session_id))
    points = await rollups.points_of(tenant_scope, session.id, measurand, MOST_POINTS)
    return {"data": [{"at": rfc3339(at), "value": str(value)} for at, value in points], "next_cursor": None}


@get("/stations/{station_id:str}/meter-hours", opt={"permission": "stations.view"}, tags=["stations"],
     summary="A measurand of each EVSE by hours (UTC) of the days that are over; at most 31 days at once")  # fmt: skip
async def list_hours(
    tenant_scope: Scope, station_id: str, since: str | None = None, until: str | None = None,
    measurand: str = ENERGY,
) -> dict[str, Any]:  # fmt: skip
    """`energy_wh`, of a register: what it rose since the hour before; null where it was reset."""
    station = await stations.get_station(tenant_scope, parse_id("charging_station", station_id))
    given = {"since": since, "until": until}
    end = read_time(given, "until") or tenant_scope.now
    begin = read_time(given, "since") or end - DEFAULT_HOURS
    if not timedelta(0) <= end - begin <= MOST_HOURS:
        raise Invalid.field("since", "range", "since lies before until, at most 31 days.")
    found = await queries.meter_hours(tenant_scope, station.id, measurand, begin, end)
    return {"data": [_hour(one, rose) for one, rose in found], "next_cursor": None}


def _hour(row: MeterHour, rose: int | None) -> dict[str, Any]:
    shown = {
        "evse_no": row.evse_no, "hour": rfc3339(row.hour_at), "measurand": row.measurand, "phase": row.phase or None,
        "location": row.location, "unit": row.unit, "samples": row.sample_count, "min": str(row.value_min),
        "max": str(row.value_max), "average": str(round(row.value_sum / row.sample_count, 4)),
        "first": str(row.first_value), "last": str(row.last_value),
    }  # fmt: skip
    return shown | ({"energy_wh": rose} if row.measurand == ENERGY else {})


routes = [list_readings, list_hours]
