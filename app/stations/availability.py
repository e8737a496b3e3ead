"""In and out of service: what we asked of a station, an EVSE or a connector, and how it stands (OCPP 2.0.1 G03, G04).

A station that charges answers Scheduled and changes when the session is over; the wish is remembered until the
connectors report it. Number 0 stands for all: EVSE 0 is the station, connector 0 all of the EVSE.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound
from app.stations import commands
from app.stations.models import EVSE, AvailabilityWish, ChargingStation, Connector, StationConnection
from tenants.scope import Scope

SOURCE = "availability"
_OPEN = ("asked", "accepted", "scheduled", "unknown")


async def change(
    scope: Scope, station_id: UUID, *, is_operative: bool, evse_no: int = 0, connector_no: int = 0
) -> AvailabilityWish:
    """ChangeAvailability. 1.6 knows no connector of an EVSE: its connector n is our EVSE n."""
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id))
    if station is None:
        raise NotFound("charging_station")
    if not 0 <= evse_no <= 64 or not 0 <= connector_no <= 64 or (connector_no and not evse_no):
        raise Invalid.field("evse_no", "out_of_range", "Name an EVSE, or one of its connectors, or neither.")
    values = {
        "is_operative": is_operative, "state": "asked", "said": "", "asked_at": scope.now, "answered_at": None,
        "done_at": None,
    }  # fmt: skip
    statement = (
        upsert(AvailabilityWish)
        .values(id=uuid7(), station_id=station_id, evse_no=evse_no, connector_no=connector_no, **values)
        .on_conflict_do_update(
            index_elements=["tenant_id", "station_id", "evse_no", "connector_no"], set_=values
        )
        .returning(AvailabilityWish)
    )
    row = (await scope.db.execute(statement, execution_options={"populate_existing": True})).scalar_one()
    action, payload = await _payload(scope, row)
    command = await commands.send_command(
        scope, station_id, action, payload, source_type=SOURCE, source_id=row.id
    )
    row.command_id = command.id
    await audit.record(
        scope, "availability.asked", "charging_station", station_id,
        {"evse_no": evse_no, "connector_no": connector_no, "is_operative": is_operative},
    )  # fmt: skip
    return row


async def _payload(scope: Scope, row: AvailabilityWish) -> tuple[str, dict[str, Any]]:
    query = select(StationConnection.ocpp_version).where(StationConnection.station_id == row.station_id)
    word = "Operative" if row.is_operative else "Inoperative"
    if (await scope.db.execute(query)).scalar_one_or_none() in (None, "", "ocpp1.6"):
        return "ChangeAvailability", {"connectorId": row.evse_no, "type": word}
    evse: dict[str, Any] = {"id": row.evse_no} if row.evse_no else {}
    evse |= {"connectorId": row.connector_no} if row.connector_no else {}
    return "ChangeAvailability", {"operationalStatus": word} | ({"evse": evse} if evse else {})


async def list_wishes(scope: Scope, station_id: UUID) -> list[AvailabilityWish]:
    """What was asked last, by place."""
    query = select(AvailabilityWish).where(AvailabilityWish.station_id == station_id)
    order = (AvailabilityWish.evse_no, AvailabilityWish.connector_no)
    return list((await scope.db.execute(query.order_by(*order))).scalars())


async def command_ended(scope: Scope, event: events.Event) -> None:
    """The station's answer to the newest wish; an older one's says nothing any more."""
    query = select(AvailabilityWish).where(AvailabilityWish.id == UUID(event.data[SOURCE])).with_for_update()
    row = (await scope.db.execute(query)).scalar_one_or_none()
    command = await commands.get_command(scope, event.source_id)
    if row is None or row.command_id != command.id or row.state not in ("asked", "unknown"):
        return
    row.said = str((command.answer or {}).get("status", "")) or command.error or ""
    row.answered_at = scope.now
    if command.status == "accepted":
        row.state = "scheduled" if row.said == "Scheduled" else "accepted"
        await _look(scope, row.station_id, [row])
    else:
        row.state = "unknown" if command.status == "unknown" else "rejected"
    scope.publish(f"station:{row.station_id}", {"what": "availability"})


async def reported(scope: Scope, station_id: UUID) -> None:
    """A connector has told its state: wishes that came true are done."""
    query = select(AvailabilityWish).where(
        AvailabilityWish.station_id == station_id,
        AvailabilityWish.state.in_(["accepted", "scheduled", "unknown"]),
    )
    waiting = list((await scope.db.execute(query)).scalars())
    if waiting:
        await _look(scope, station_id, waiting)


async def _look(scope: Scope, station_id: UUID, waiting: Sequence[AvailabilityWish]) -> None:
    query = (
        select(EVSE.evse_no, Connector.connector_no, Connector.status, Connector.status_at)
        .join(Connector, Connector.evse_id == EVSE.id)
        .where(EVSE.station_id == station_id)
    )
    told = (await scope.db.execute(query)).all()
    for wish in waiting:
        places = [
            row for row in told
            if wish.evse_no in (0, row.evse_no) and wish.connector_no in (0, row.connector_no)
        ]  # fmt: skip
        are_so = [
            row.status != "Unknown" and (row.status == "Unavailable") != wish.is_operative for row in places
        ]
        if are_so and all(are_so):
            wish.state, wish.done_at = "done", scope.now


def in_words(row: AvailabilityWish) -> str:
    """For a person."""
    aim = "in service" if row.is_operative else "out of service"
    return {
        "asked": f"Asked to go {aim}; no answer yet.",
        "accepted": f"It goes {aim}; its connectors have not reported it yet.",
        "scheduled": f"It goes {aim} when the running session is over.",
        "done": f"It is {aim}, as asked.",
        "rejected": f"The station refused to go {aim}{': ' + row.said if row.said != 'Rejected' else ''}.",
        "unknown": f"Asked to go {aim}; the station did not answer, and may do it.",
    }[row.state]


def place_in_words(row: AvailabilityWish) -> str:
    if row.evse_no == 0:
        return "Whole station"
    return f"EVSE {row.evse_no}" + (f", connector {row.connector_no}" if row.connector_no else "")
