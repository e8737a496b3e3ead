"""Reports that no verb could handle: acknowledged, kept, and for staff to decide (ocpp.md, the standing rule).

A station that gets a CALLERROR for something that already happened sends it for ever, so it gets its acknowledgement;
what it said is here until somebody tries it again (after an update, say) or lets it go. Errors: `not_parked`.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.kernel import audit, events
from app.kernel.errors import NotFound, Refused
from app.stations import nodes
from app.stations.commands import node_channel
from app.stations.models import ParkedMessage
from tenants.scope import Scope

MOST_SHOWN = 200


async def park(
    scope: Scope, station_id: UUID, *, received_at: datetime, ocpp_version: str, action: str, message_id: str, raw: str,
    error: str,
) -> ParkedMessage:  # fmt: skip
    parked = ParkedMessage(
        station_id=station_id, received_at=received_at, ocpp_version=ocpp_version, action=action, message_id=message_id,
        raw=raw, error=error[:500],
    )  # fmt: skip
    scope.db.add(parked)
    await scope.db.flush()
    await events.emit(scope, "MessageParked", "charging_station", station_id, {"action": action})
    return parked


async def list_parked(scope: Scope) -> list[ParkedMessage]:
    """What waits, oldest first, then what was decided lately."""
    waits = ParkedMessage.status.in_(["parked", "retrying"])
    query = (
        select(ParkedMessage)
        .options(selectinload(ParkedMessage.station))
        .order_by(waits.desc(), ParkedMessage.decided_at.desc(), ParkedMessage.received_at)
        .limit(MOST_SHOWN)
    )
    return list((await scope.db.execute(query)).scalars())


async def count_parked(scope: Scope) -> int:
    query = select(func.count()).where(ParkedMessage.status.in_(["parked", "retrying"]))
    return (await scope.db.execute(query)).scalar_one()


async def get_parked(scope: Scope, parked_id: UUID, *, for_update: bool = False) -> ParkedMessage:
    query = select(ParkedMessage).where(ParkedMessage.id == parked_id)
    if for_update:
        query = query.with_for_update()
    parked = (await scope.db.execute(query)).scalar_one_or_none()
    if parked is None:
        raise NotFound("parked_message")
    return parked


async def _decide(scope: Scope, parked_id: UUID, status: str) -> ParkedMessage:
    parked = await get_parked(scope, parked_id, for_update=True)
    if parked.status not in ("parked", "retrying"):
        raise Refused("not_parked", "This message was decided already.")
    parked.status, parked.decided_at = status, scope.now
    await audit.record(scope, f"parked_message.{status}", "charging_station", parked.station_id, {
        "action": parked.action, "message_id": parked.message_id,
    })  # fmt: skip
    return parked


async def discard(scope: Scope, parked_id: UUID) -> None:
    """Kept as it is, and nobody waits for it any more."""
    await _decide(scope, parked_id, "discarded")


async def retry(scope: Scope, parked_id: UUID) -> None:
    """A gateway takes it once more: only those know how a version's messages are read. Which one does not matter."""
    parked = await _decide(scope, parked_id, "retrying")
    redis = scope.redis
    if redis is None:
        return
    message = {"tenant": str(scope.tenant_id), "parked": str(parked.id)}

    async def tell() -> None:
        living = [node for node in await nodes.list_nodes(redis) if node.has_lease]
        if living:
            await redis.publish_raw(node_channel(living[0].name), message)

    scope.after_commit(tell)


# --- for the gateway ---------------------------------------------------------------------------------------------


async def claim_retry(scope: Scope, parked_id: UUID) -> ParkedMessage | None:
    """Locked until the end of the transaction in which it is handled; None when somebody else has it."""
    query = (
        select(ParkedMessage)
        .where(ParkedMessage.id == parked_id, ParkedMessage.status == "retrying")
        .with_for_update(skip_locked=True)
    )
    return (await scope.db.execute(query)).scalar_one_or_none()


async def conclude_retry(scope: Scope, parked_id: UUID, error: str | None) -> None:
    parked = await get_parked(scope, parked_id)
    parked.tries += 1
    parked.status, parked.error = ("parked", error[:500]) if error else ("handled", parked.error)
    parked.decided_at = None if error else scope.now
