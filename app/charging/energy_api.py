"""REST: reservations, charging profiles, and what else staff ask of stations about energy."""

from typing import Any

from litestar import delete, get, post
from sqlalchemy import select

from app.charging import reservations
from app.charging.models import Reservation
from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, read_id, read_time, rfc3339
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


routes = [create_reservation, list_reservations, get_reservation, cancel_reservation]
