"""OCPP 2.x reports about reservations and energy <-> our verbs: shapes only, read leniently."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.charging import reservations
from ocpp_gateway import lenient
from tenants.scope import Scope


async def reservation_status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """H01, H04: it expired, or the station gave it up."""
    number, word = lenient.integer(payload, "reservationId"), lenient.text(payload, "reservationUpdateStatus")
    if number is not None and word is not None:
        await reservations.reported(scope, station_id, number, word)
    return {}


HANDLERS = {"ReservationStatusUpdate": reservation_status}
