"""GetTransactionStatus (OCPP 2.0.1 E14): does the station still hold messages of a transaction, or any at all?"""

from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.charging import service
from app.kernel import events
from app.kernel.errors import Refused
from app.stations import commands
from app.stations import service as stations
from app.stations.models import StationCommand, StationConnection
from tenants.scope import Scope

SOURCE = "transaction_status"


async def is_possible(scope: Scope, station_id: UUID) -> bool:
    query = select(StationConnection.ocpp_version).where(StationConnection.station_id == station_id)
    return (await scope.db.execute(query)).scalar_one_or_none() not in (None, "", "ocpp1.6")


async def ask(scope: Scope, station_id: UUID, session_id: UUID | None = None) -> StationCommand:
    """About one session, or about all there is. `not_active`: the session never had a transaction;
    `not_in_this_version`: 1.6 has no such question."""
    await stations.get_station(scope, station_id)
    if not await is_possible(scope, station_id):
        raise Refused("not_in_this_version", "OCPP 1.6 cannot say which messages a station still holds.")
    payload: dict[str, Any] = {}
    if session_id is not None:
        session = await service.get_session(scope, session_id)
        if session.ocpp_transaction_id is None:
            raise Refused("not_active", "This session has no transaction at the station.")
        payload, station_id = {"transactionId": session.ocpp_transaction_id}, session.station_id
    return await commands.send_command(
        scope,
        station_id,
        "GetTransactionStatus",
        payload,
        source_type=SOURCE,
        source_id=session_id or station_id,
    )


async def command_ended(scope: Scope, event: events.Event) -> None:
    """What it said stands in the session's timeline."""
    command = await commands.get_command(scope, event.source_id)
    if command.status != "accepted" or "transactionId" not in command.payload:
        return
    session = await service.get_session(scope, UUID(event.data[SOURCE]))
    await service.note(
        scope, session, f"queue:{command.id}", "queue_asked", {"text": in_words(command.answer or {})}
    )


def in_words(answer: dict[str, Any]) -> str:
    """`ongoingIndicator` is there only where a transaction was named."""
    queued = (
        "Messages wait at the station."
        if answer.get("messagesInQueue")
        else "No message waits at the station."
    )
    if "ongoingIndicator" not in answer:
        return queued
    ongoing = "The transaction runs." if answer["ongoingIndicator"] else "The transaction is over."
    return f"{ongoing} {queued}"
