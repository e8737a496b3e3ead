"""Reservations: an EVSE, or any one of a station, is kept for a card until a time (OCPP 1.6 5.13, 2.0.1 block H).

asked -> active | refused | unknown; active -> used | cancelled | expired | removed. A station's report wins over what
we believe: whoever starts with a reservation's number has used it. What a station keeps for somebody shows as
`reserved`.

Errors: `not_reservable` (what 1.6 cannot say), `token_…` (the card may not charge there), `reservation_over`.
"""

import secrets as stdlib_secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import selectinload

from app.access import service as access
from app.access.models import IdToken
from app.access.verdict import Refused as TokenRefused
from app.charging.models import ChargingSession, Reservation
from app.kernel import audit, events, queue
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.secrets import unseal
from app.stations import commands
from app.stations import service as stations
from app.stations.models import EVSE, ChargingStation, StationCommand
from tenants.scope import Scope

SOURCE = "reservation"
OPEN = ("asked", "active", "unknown")
LONGEST = timedelta(days=7)
CLOCKS_DIFFER = timedelta(minutes=5)
GRACE = timedelta(seconds=30)  # the station's own clock may say so first
# OCPP 2.0.1 ConnectorEnumType
CONNECTOR_TYPES = (
    "cCCS1", "cCCS2", "cG105", "cTesla", "cType1", "cType2", "s309-1P-16A", "s309-1P-32A", "s309-3P-16A",
    "s309-3P-32A", "sBS1361", "sCEE-7-7", "sType2", "sType3", "Other1PhMax16A", "Other1PhOver16A", "Other3Ph", "Pan",
    "wInductive", "wResonant", "Undetermined", "Unknown",
)  # fmt: skip
REFUSALS = {
    "Faulted": "It reports a fault.", "Occupied": "It is occupied.", "Unavailable": "It is out of service.",
    "Rejected": "The station takes no reservations.",
}  # fmt: skip


async def reserve(
    scope: Scope, station_id: UUID, *, id_token_id: UUID, expires_at: datetime, evse_id: UUID | None = None,
    connector_type: str | None = None, for_group: bool = False,
) -> Reservation:  # fmt: skip
    """Asks the station. `evse_id` None: any EVSE; `connector_type` (2.x): any with such a plug. `for_group`: the card's
    parent token is told too, so that others of the group may use it."""
    station = await _station(scope, station_id)
    token = await access.get_id_token(scope, id_token_id)
    evse = None
    if evse_id is not None:
        evse = await scope.db.get(EVSE, (scope.tenant_id, evse_id))
        if evse is None or evse.station_id != station_id:
            raise NotFound("evse")
    if not scope.now < expires_at <= scope.now + LONGEST:
        raise Invalid.field("expires_at", "out_of_range", "A reservation ends in the future, within a week.")
    if connector_type is not None and connector_type not in CONNECTOR_TYPES:
        raise Invalid.field("connector_type", "connector_type", "This is no connector type of OCPP 2.0.1.")
    if for_group and not token.parent_value:
        raise Invalid.field("for_group", "required", "This card has no parent token, so it is in no group.")
    verdict = await access.judge(scope, token, station_id)
    if isinstance(verdict, TokenRefused):
        raise Refused(f"token_{verdict.reason}", verdict.message)
    version = station.ocpp_version
    if version == "ocpp1.6" and connector_type is not None:
        raise Refused("not_reservable", "OCPP 1.6 cannot reserve by connector type: choose an EVSE.")
    row = Reservation(
        id=uuid7(), station_id=station_id, evse_id=evse_id, evse_no=evse.evse_no if evse else None,
        connector_type=connector_type, reservation_no=await _new_number(scope, station_id), id_token_id=token.id,
        id_token_masked=token.masked, group_value=token.parent_value if for_group else None, state="asked", said="",
        cancel_said="", expires_at=expires_at, created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    value = unseal(scope.settings.secret_keys, "id_token", token.value_sealed)
    payload = _payload(version, row, value, token.type)
    await commands.send_command(
        scope, station_id, "ReserveNow", payload, needs_online=True, expires_in=timedelta(minutes=3),
        source_type=SOURCE, source_id=row.id,
    )  # fmt: skip
    await audit.record(scope, "reservation.asked", SOURCE, row.id, {"evse_no": row.evse_no})
    return row


async def _station(scope: Scope, station_id: UUID) -> ChargingStation:
    return await stations.get_station(scope, station_id)


async def _new_number(scope: Scope, station_id: UUID) -> int:
    while True:
        number = stdlib_secrets.randbelow(2**31 - 1) + 1
        if await find_by_number(scope, station_id, number) is None:
            return number


async def find_by_number(scope: Scope, station_id: UUID, number: int) -> Reservation | None:
    query = select(Reservation).where(
        Reservation.station_id == station_id, Reservation.reservation_no == number
    )
    return (await scope.db.execute(query.with_for_update())).scalar_one_or_none()


def _payload(version: str, row: Reservation, value: str, type_: str) -> dict[str, Any]:
    until = row.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if version == "ocpp1.6":
        return {
            "connectorId": row.evse_no or 0, "expiryDate": until, "idTag": value[:20],
            "reservationId": row.reservation_no,
        } | ({"parentIdTag": row.group_value[:20]} if row.group_value else {})  # fmt: skip
    payload: dict[str, Any] = {
        "id": row.reservation_no, "expiryDateTime": until, "idToken": {"idToken": value, "type": type_}
    }  # fmt: skip
    if row.evse_no is not None:
        payload["evseId"] = row.evse_no
    if row.connector_type is not None:
        payload["connectorType"] = row.connector_type
    if row.group_value is not None:
        payload["groupIdToken"] = {"idToken": row.group_value[:36], "type": "Central"}
    return payload


async def get_reservation(scope: Scope, reservation_id: UUID) -> Reservation:
    query = (
        select(Reservation)
        .where(Reservation.id == reservation_id)
        .options(
            selectinload(Reservation.station).selectinload(ChargingStation.location),
            selectinload(Reservation.id_token).selectinload(IdToken.driver),
        )
        .execution_options(populate_existing=True)
    )
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None:
        raise NotFound(SOURCE)
    return row


async def cancel(scope: Scope, reservation_id: UUID) -> StationCommand:
    """CancelReservation; over when the station says so. `reservation_over`: there is nothing to cancel."""
    row = await get_reservation(scope, reservation_id)
    if row.state not in OPEN:
        raise Refused("reservation_over", "This reservation is over already.")
    row.cancel_said = ""
    command = await commands.send_command(
        scope, row.station_id, "CancelReservation", {"reservationId": row.reservation_no}, source_type=SOURCE,
        source_id=row.id,
    )  # fmt: skip
    await audit.record(scope, "reservation.cancel_asked", SOURCE, row.id, {})
    return command


# --- what stations say -------------------------------------------------------------------------------------------


async def command_ended(scope: Scope, event: events.Event) -> None:
    """The answer to ReserveNow or CancelReservation."""
    command = await commands.get_command(scope, event.source_id)
    query = select(Reservation).where(Reservation.id == UUID(event.data[SOURCE])).with_for_update()
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None:
        return
    word = str((command.answer or {}).get("status", "")) or command.error or ""
    if command.action == "CancelReservation":
        row.cancel_said = word
        if command.status == "accepted" and row.state in OPEN:
            await _end(scope, row, "cancelled")
    elif row.state == "asked":
        row.said = word
        if command.status == "accepted":
            row.state = "active"
            await _show(scope, row)
            await queue.enqueue(
                scope, "charging.expire_reservation", reservation_id=str(row.id), at=row.expires_at + GRACE
            )
        elif command.status in ("rejected", "failed", "expired"):
            await _end(scope, row, "refused")
        else:
            row.state = "unknown"  # it may stand at the station: it ends by its time
            await queue.enqueue(
                scope, "charging.expire_reservation", reservation_id=str(row.id), at=row.expires_at + GRACE
            )
    _tell(scope, row)


async def reported(scope: Scope, station_id: UUID, number: int, word: str) -> None:
    """2.x ReservationStatusUpdate: Expired or Removed (the EVSE became Faulted or Unavailable). H01.FR.16ff."""
    row = await find_by_number(scope, station_id, number)
    if row is None or row.state not in OPEN:
        return
    row.said = word
    await _end(scope, row, "expired" if word == "Expired" else "removed")


async def used(scope: Scope, session: ChargingSession, number: int | None, at: datetime) -> None:
    """Somebody came at that time: the reservation that the station names is used; without a number the one that their
    card had here then, where it was not refused.

    A station that names it has checked card or group already; a report is never refused.
    """
    if number is not None:
        row = await find_by_number(scope, session.station_id, number)
    else:
        row = await _of_card(scope, session, at)
    if row is None or row.state not in OPEN:
        return
    row.session_id = session.id
    await _end(scope, row, "used")


async def _of_card(scope: Scope, session: ChargingSession, at: datetime) -> Reservation | None:
    if session.id_token_id is None or session.is_refused:
        return None
    query = select(Reservation).where(
        Reservation.station_id == session.station_id, Reservation.id_token_id == session.id_token_id,
        Reservation.state.in_(OPEN), Reservation.expires_at > at, Reservation.created_at <= at + CLOCKS_DIFFER,
    )  # fmt: skip
    rows = list((await scope.db.execute(query.with_for_update())).scalars())
    return next((row for row in rows if row.evse_no in (None, session.evse_no)), None)


async def expire(scope: Scope, reservation_id: UUID) -> None:
    """Nobody came, and the station said nothing of it (1.6 has no word for it)."""
    query = select(Reservation).where(Reservation.id == reservation_id).with_for_update()
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is not None and row.state in OPEN and row.expires_at <= scope.now:
        await _end(scope, row, "expired")


async def expire_overdue(scope: Scope) -> int:
    query = select(Reservation.id).where(
        Reservation.state.in_(OPEN), Reservation.expires_at < scope.now - 2 * GRACE
    )
    overdue = list((await scope.db.execute(query)).scalars())
    for reservation_id in overdue:
        await expire(scope, reservation_id)
    return len(overdue)


async def _end(scope: Scope, row: Reservation, state: str) -> None:
    was_shown = row.state == "active"
    row.state, row.ended_at = state, scope.now
    await scope.db.flush()
    if was_shown and row.evse_id is not None:  # used, too: the car may stand at the neighbouring EVSE
        await _hide(scope, row.evse_id)
    await events.emit(scope, "ReservationEnded", SOURCE, row.id, {"state": state})
    _tell(scope, row)


async def _show(scope: Scope, row: Reservation) -> None:
    if row.evse_id is not None and not await _is_charging(scope, row.evse_id):
        await stations.set_activity(scope, row.evse_id, "reserved")
    await events.emit(scope, "ReservationMade", SOURCE, row.id, {"evse": str(row.evse_id or "")})


async def _hide(scope: Scope, evse_id: UUID) -> None:
    others = select(Reservation.id).where(Reservation.evse_id == evse_id, Reservation.state == "active")
    if (await scope.db.execute(others.limit(1))).first() or await _is_charging(scope, evse_id):
        return
    await stations.set_activity(scope, evse_id, "idle")


async def _is_charging(scope: Scope, evse_id: UUID) -> bool:
    query = select(ChargingSession.id).where(
        ChargingSession.evse_id == evse_id, ChargingSession.status == "ACTIVE",
        or_(ChargingSession.id_token_status == "Accepted", ChargingSession.review.is_not(None)),  # not a car alone
    )  # fmt: skip
    return (await scope.db.execute(query.limit(1))).first() is not None


def _tell(scope: Scope, row: Reservation) -> None:
    scope.publish("reservations", {"reservation": str(row.id)})


# --- for pages ---------------------------------------------------------------------------------------------------


def in_words(row: Reservation) -> str:
    """What became of it, for a person."""
    words = {
        "asked": "The station is asked.", "active": "Kept until its time.",
        "refused": REFUSALS.get(row.said, f"The station refused it: {row.said or 'no reason given'}."),
        "unknown": "The station did not answer; it may keep it.", "used": "The driver came and charged.",
        "cancelled": "Cancelled.", "expired": "Nobody came in time.",
        "removed": "The station gave it up: the EVSE failed or went out of service.",
    }  # fmt: skip
    refused = "" if row.state not in OPEN or not row.cancel_said else " The station did not cancel it."
    return words[row.state] + refused
