"""OCPP 2.1: what a station tells of its own card terminal -> our verbs: shapes only, read leniently."""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from app.charging import terminal_sessions
from ocpp_gateway import lenient
from tenants.scope import Scope


async def settlement(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """NotifySettlement: `pspRef` is what the station presents as its DirectPayment token. Where no terminal is known
    the frame stays in the log, and the station is told that nobody here settles for it."""
    ref = lenient.needed_text(payload, "pspRef", longest=255)
    try:
        amount = Decimal(str(payload.get("settlementAmount")))
    except InvalidOperation:
        raise lenient.Unanswerable("TypeConstraintViolation", "settlementAmount is no number") from None
    at = lenient.moment(payload.get("settlementTime")) or received_at
    is_known = await terminal_sessions.settlement_reported(
        scope, station_id, status=lenient.text(payload, "status", most=20) or "", psp_ref=ref, amount=amount,
        transaction_id=lenient.text(payload, "transactionId", most=36) or "", at=min(at, received_at),
    )  # fmt: skip
    if not is_known:
        raise lenient.Unanswerable("NotSupported", "no card terminal is registered for this station")
    return {}


HANDLERS = {"NotifySettlement": settlement}
