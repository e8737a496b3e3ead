"""REST: reservations, charging profiles, and what else staff ask of stations about energy."""

from decimal import Decimal
from typing import Any

from litestar import delete, get, post
from sqlalchemy import select

from app.charging import profiles, reservations, smart_charging, transaction_status
from app.charging.models import (
    ChargingLimit,
    ChargingProfile,
    ChargingSession,
    CompositeSchedule,
    Reservation,
)
from app.charging.profiles import Period
from app.charging.smart_charging import Wish
from app.kernel.errors import Invalid, NotFound
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, read_id, read_time, rfc3339
from app.stations.service import get_station
from tenants.scope import Scope

# --- reservations ------------------------------------------------------------------------------------------------


@post("/reservations", status_code=202, opt={"permission": "sessions.manage"}, tags=["reservations"],
      summary="Keep an EVSE (`evse_id`) or any of a station (`station_id`) for a card")  # fmt: skip
async def create_reservation(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    evse_id, station_id = read_id("evse", data, "evse_id"), read_id("charging_station", data, "station_id")
    token_id, expires_at = read_id("id_token", data, "id_token_id"), read_time(data, "expires_at")
    if station_id is None:
        raise Invalid.field("station_id", "required", "Say at which station.")
    if token_id is None:
        raise Invalid.field("id_token_id", "required", "Say for which card.")
    if expires_at is None:
        raise Invalid.field("expires_at", "required", "Say until when.")
    kind = data.get("connector_type")
    row = await reservations.reserve(
        tenant_scope, station_id, evse_id=evse_id, id_token_id=token_id, expires_at=expires_at,
        connector_type=str(kind) if kind else None, for_group=data.get("for_group") is True,
    )  # fmt: skip
    return _reservation(row)


@get("/reservations", opt={"permission": "sessions.view"}, summary="Reservations, newest first",
     tags=["reservations"])  # fmt: skip
async def list_reservations(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(Reservation), Reservation.id, "reservation", limit, after)
    return found.answer([_reservation(row) for row in found.rows])


@get("/reservations/{reservation_id:str}", opt={"permission": "sessions.view"}, summary="One reservation",
     tags=["reservations"])  # fmt: skip
async def get_reservation(tenant_scope: Scope, reservation_id: str) -> dict[str, Any]:
    key = parse_id("reservation", reservation_id)
    return _reservation(await reservations.get_reservation(tenant_scope, key))


@delete("/reservations/{reservation_id:str}", status_code=202, opt={"permission": "sessions.manage"},
        summary="Ask the station to cancel it", tags=["reservations"])  # fmt: skip
async def cancel_reservation(tenant_scope: Scope, reservation_id: str) -> dict[str, Any]:
    key = parse_id("reservation", reservation_id)
    sent = await reservations.cancel(tenant_scope, key)
    shown = _reservation(await reservations.get_reservation(tenant_scope, key))
    return shown | {"command_id": public_id("station_command", sent.id)}


def _reservation(row: Reservation) -> dict[str, Any]:
    """`status` in the station's terms; `evse_status` of the EVSE is OCPI's RESERVED while it is active."""
    return {
        "id": public_id("reservation", row.id), "station_id": public_id("charging_station", row.station_id),
        "evse_id": public_id("evse", row.evse_id) if row.evse_id else None, "connector_type": row.connector_type,
        "id_token_id": public_id("id_token", row.id_token_id) if row.id_token_id else None,
        "token_masked": row.id_token_masked, "for_group": row.group_value is not None, "status": row.state,
        "said": row.said, "cancel_said": row.cancel_said, "expires_at": rfc3339(row.expires_at),
        "session_id": public_id("charging_session", row.session_id) if row.session_id else None,
        "created_at": rfc3339(row.created_at), "ended_at": rfc3339(row.ended_at),
    }  # fmt: skip


# --- charging profiles -------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/charging-profiles", opt={"permission": "stations.view"}, tags=["charging profiles"],
     summary="What we believe a station has, and limits that others set")  # fmt: skip
async def list_profiles(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    await get_station(tenant_scope, key)
    rows = await smart_charging.believed(tenant_scope, key)
    limits = await smart_charging.open_limits(tenant_scope, key)
    return {"data": [_profile(row) for row in rows], "limits": [_limit(one) for one in limits]}


@post("/stations/{station_id:str}/charging-profiles", status_code=202, opt={"permission": "stations.command"},
      summary="Set a limit (SetChargingProfile)", tags=["charging profiles"])  # fmt: skip
async def set_profile(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    await get_station(tenant_scope, key)
    return _profile(await smart_charging.set_profile(tenant_scope, key, read_wish(data)))


def read_wish(data: dict[str, Any], path: str = "") -> Wish:
    """`purpose, evse_no, kind, recurrency, unit, stack_level, start_at, duration_s, valid_from, valid_to, session_id,
    transaction_id, profile_no` and `periods` of `start_s, limit, number_phases`."""
    told = data.get("periods")
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        raise Invalid.field(f"{path}periods", "list", "periods is a list of start_s and limit.")
    periods = []
    for number, one in enumerate(told):
        limit = profiles.read_decimal(one.get("limit"))
        if limit is None:
            raise Invalid.field(f"{path}periods[{number}].limit", "number", "limit is a number.")
        where = f"{path}periods[{number}]."
        start, phases = _whole(one, "start_s", where) or 0, _whole(one, "number_phases", where)
        periods.append(Period(start, Decimal(limit), phases))
    kind, unit, recurrency = data.get("kind"), data.get("unit"), data.get("recurrency")
    transaction = data.get("transaction_id")
    return Wish(
        purpose=str(data.get("purpose") or "TxProfile"), periods=tuple(periods), unit="A" if unit == "A" else "W",
        evse_no=_whole(data, "evse_no", path) or 0, kind=str(kind or "Absolute"),
        recurrency=str(recurrency) if recurrency else None, stack_level=_whole(data, "stack_level", path) or 0,
        start_at=read_time(data, "start_at"), duration_s=_whole(data, "duration_s", path),
        valid_from=read_time(data, "valid_from"), valid_to=read_time(data, "valid_to"),
        session_id=read_id("charging_session", data, "session_id"),
        transaction_id=str(transaction)[:36] if transaction else None, number=_whole(data, "profile_no", path),
    )  # fmt: skip


def _whole(data: dict[str, Any], field: str, path: str = "") -> int | None:
    value = data.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise Invalid.field(path + field, "out_of_range", f"{field} is a whole number, not negative.")
    return value


@post("/stations/{station_id:str}/charging-profiles/clearings", status_code=202,
      opt={"permission": "stations.command"}, tags=["charging profiles"],
      summary="Clear all that fit `evse_no`, `purpose`, `stack_level`")  # fmt: skip
async def clear_profiles(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    purpose = data.get("purpose")
    sent = await smart_charging.clear_profiles(
        tenant_scope, parse_id("charging_station", station_id), evse_no=_whole(data, "evse_no"),
        purpose=str(purpose) if purpose else None, stack_level=_whole(data, "stack_level"),
    )  # fmt: skip
    return {"command_id": public_id("station_command", sent.id)}


@delete("/charging-profiles/{charging_profile_id:str}", status_code=202, opt={"permission": "stations.command"},
        summary="Clear one by its id", tags=["charging profiles"])  # fmt: skip
async def clear_profile(tenant_scope: Scope, charging_profile_id: str) -> dict[str, Any]:
    sent = await smart_charging.clear_profile(tenant_scope, parse_id("charging_profile", charging_profile_id))
    return {"command_id": public_id("station_command", sent.id)}


@post("/stations/{station_id:str}/charging-profiles/reports", status_code=202,
      opt={"permission": "stations.command"}, tags=["charging profiles"],
      summary="Ask what it has (OCPP 2) by evse_no, purpose, stack_level, sources, profile_nos")  # fmt: skip
async def ask_profiles(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    numbers, sources, purpose = data.get("profile_nos") or [], data.get("sources") or [], data.get("purpose")
    if not isinstance(numbers, list) or not all(isinstance(n, int) and 0 <= n < 2**31 for n in numbers):
        raise Invalid.field("profile_nos", "list", "profile_nos is a list of whole numbers.")
    if not isinstance(sources, list) or not all(isinstance(one, str) for one in sources):
        raise Invalid.field("sources", "list", "sources is a list of words.")
    row = await smart_charging.ask_profiles(
        tenant_scope, parse_id("charging_station", station_id), evse_no=_whole(data, "evse_no"),
        purpose=str(purpose) if purpose else None, stack_level=_whole(data, "stack_level"), numbers=numbers,
        sources=sources,
    )  # fmt: skip
    return {"request_no": row.request_no, "status": row.state}


@post("/stations/{station_id:str}/composite-schedules", status_code=202, opt={"permission": "stations.command"},
      summary="Read back what it will give", tags=["charging profiles"])  # fmt: skip
async def ask_composite(tenant_scope: Scope, station_id: str, data: dict[str, Any]) -> dict[str, Any]:
    unit = data.get("unit")
    if unit not in (None, "A", "W"):
        raise Invalid.field("unit", "unit", "unit is A or W.")
    row = await smart_charging.ask_composite(
        tenant_scope, parse_id("charging_station", station_id), evse_no=_whole(data, "evse_no") or 0,
        duration_s=_whole(data, "duration_s") or 86400, unit=unit,
    )  # fmt: skip
    return _composite(row)


@get("/stations/{station_id:str}/composite-schedules", opt={"permission": "stations.view"},
     summary="What it said it will give, beside our own reckoning", tags=["charging profiles"])  # fmt: skip
async def list_composites(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    await get_station(tenant_scope, key)
    query = select(CompositeSchedule).where(CompositeSchedule.station_id == key)
    rows = (await tenant_scope.db.execute(query.order_by(CompositeSchedule.id.desc()).limit(20))).scalars()
    return {"data": [_composite(row) for row in rows]}


@post("/stations/{station_id:str}/transaction-status-requests", status_code=202,
      opt={"permission": "stations.command"}, tags=["sessions"],
      summary="Ask which messages it still holds, of `session_id` or of all (OCPP 2)")  # fmt: skip
async def ask_transaction_status(
    tenant_scope: Scope, station_id: str, data: dict[str, Any]
) -> dict[str, Any]:
    key, session_id = (
        parse_id("charging_station", station_id),
        read_id("charging_session", data, "session_id"),
    )
    await get_station(tenant_scope, key)
    if session_id is not None:
        session = await tenant_scope.db.get(ChargingSession, (tenant_scope.tenant_id, session_id))
        if session is None or session.station_id != key:
            raise NotFound("charging_session")
    sent = await transaction_status.ask(tenant_scope, key, session_id)
    return {"command_id": public_id("station_command", sent.id)}


def _profile(row: ChargingProfile) -> dict[str, Any]:
    return {
        "id": public_id("charging_profile", row.id), "station_id": public_id("charging_station", row.station_id),
        "evse_no": row.evse_no, "profile_no": row.profile_no, "purpose": row.purpose, "stack_level": row.stack_level,
        "source": row.source, "status": row.state, "said": row.said, "stands_for": row.stands_for or None,
        "session_id": public_id("charging_session", row.session_id) if row.session_id else None,
        "profile": row.profile, "created_at": rfc3339(row.created_at), "confirmed_at": rfc3339(row.confirmed_at),
    }  # fmt: skip


def _limit(row: ChargingLimit) -> dict[str, Any]:
    return {
        "evse_no": row.evse_no, "source": row.source, "is_grid_critical": row.is_grid_critical,
        "schedules": row.schedules, "told_at": rfc3339(row.told_at),
    }  # fmt: skip


def _composite(row: CompositeSchedule) -> dict[str, Any]:
    return {
        "evse_no": row.evse_no, "duration_s": row.duration_s, "unit": row.unit, "status": row.state, "said": row.said,
        "schedule": row.told, "reckoned": row.ours, "starts_at": rfc3339(row.starts_at),
        "created_at": rfc3339(row.created_at),
    }  # fmt: skip


routes = [
    create_reservation, list_reservations, get_reservation, cancel_reservation, list_profiles, set_profile,
    clear_profiles, clear_profile, ask_profiles, ask_composite, list_composites, ask_transaction_status,
]  # fmt: skip
