"""OCPP 2.x reports about reservations and energy <-> our verbs: shapes only, read leniently."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.charging import cost, reservations, smart_charging
from ocpp_gateway import lenient
from tenants.scope import Scope

MAX_NO = 64


async def reservation_status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """H01, H04: it expired, or the station gave it up."""
    number, word = lenient.integer(payload, "reservationId"), lenient.text(payload, "reservationUpdateStatus")
    if number is not None and word is not None:
        await reservations.reported(scope, station_id, number, word)
    return {}


async def profiles_reported(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """K09: a part of what it has; `tbc` says that more follows."""
    request = lenient.integer(payload, "requestId")
    if request is not None:
        await smart_charging.profiles_reported(
            scope, station_id, request_no=request, evse_no=_evse(payload),
            source=lenient.text(payload, "chargingLimitSource", most=20) or "CSO",
            found=_objects(payload.get("chargingProfile")), is_last=payload.get("tbc") is not True,
        )  # fmt: skip
    return {}


async def limit_told(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """K12: somebody else limits the station."""
    limit = lenient.part(payload, "chargingLimit")
    critical = limit.get("isGridCritical")
    await smart_charging.limit_told(
        scope, station_id, evse_no=_evse(payload),
        source=lenient.text(limit, "chargingLimitSource", most=20) or "Other",
        is_grid_critical=critical if isinstance(critical, bool) else None,
        schedules=_objects(payload.get("chargingSchedule")),
    )  # fmt: skip
    return {}


async def limit_cleared(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """K13: the limit is taken back."""
    source = lenient.text(payload, "chargingLimitSource", most=20) or "Other"
    await smart_charging.limit_cleared(scope, station_id, evse_no=_evse(payload), source=source)
    return {}


async def needs_told(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """K15, K17: what a car wants. The profile follows as a command of its own."""
    needs = payload.get("chargingNeeds")
    is_shaped = isinstance(needs, dict) and await smart_charging.needs_told(
        scope, station_id, _evse(payload), needs
    )
    return {"status": "Accepted" if is_shaped else "Rejected"}


async def schedule_told(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """K15, K16: what a car will take."""
    at, _ = lenient.plausible(lenient.moment(payload.get("timeBase")), received_at)
    shape = payload.get("chargingSchedule")
    is_within = isinstance(shape, dict) and await smart_charging.schedule_told(
        scope, station_id, _evse(payload), at, shape
    )
    return {"status": "Accepted" if is_within else "Rejected"}


async def total_cost(scope: Scope, station_id: UUID, ocpp_transaction_id: str) -> dict[str, Any]:
    """I03: a TransactionEventResponse to Ended tells what it cost; 0 says that it was free."""
    amount = await cost.total(scope, station_id, ocpp_transaction_id)
    return {} if amount is None else {"totalCost": cost.wire_amount(amount)}


def _evse(payload: dict[str, Any]) -> int:
    number = lenient.integer(payload, "evseId")
    return number if number is not None and 0 <= number <= MAX_NO else 0


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


HANDLERS = {
    "ReservationStatusUpdate": reservation_status, "ReportChargingProfiles": profiles_reported,
    "NotifyChargingLimit": limit_told, "ClearedChargingLimit": limit_cleared,
    "NotifyEVChargingNeeds": needs_told, "NotifyEVChargingSchedule": schedule_told,
}  # fmt: skip
