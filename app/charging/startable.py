"""Can a session begin at an EVSE, and if not, why not: the one rule that places, lists and every start ask.

Codes: `tenant_suspended`, `station_offline`, `station_quarantined`, `station_not_accepted`, `evse_faulted`,
`evse_unavailable`, `evse_busy`, `evse_taken`, `evse_reserved`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import or_, select, text
from sqlalchemy.orm import selectinload

from app.access.models import IdToken
from app.charging.models import ChargingSession, Reservation
from app.kernel.errors import NotFound, Refused
from app.stations.models import EVSE, ChargingStation
from tenants.scope import Scope
from themes.language import N_

UNUSABLE = ("Faulted", "Unavailable")


@dataclass(frozen=True, slots=True)
class Situation:
    """What stands at EVSEs beside their own state: sessions that run, starts that were asked for and whose cable is on
    its way (with the time at which that is over), and reservations."""

    takes_sessions: bool
    busy: frozenset[UUID]
    awaited: Mapping[UUID, datetime]
    reservations: Sequence[Reservation]


async def look(scope: Scope, evse_id: UUID | None = None, *, but: UUID | None = None) -> Situation:
    """At one EVSE, or at all of them; `but` is a wish that does not stand in its own way."""
    status = (await scope.db.execute(text("select status from platform.own_tenant()"))).scalar_one()
    # A transaction that nobody was authorised for (cable first, 2.x F01) is what a remote start can take over; a card
    # that was refused takes nobody's place.
    runs = (ChargingSession.status == "ACTIVE") & or_(
        ChargingSession.id_token_status == "Accepted", ChargingSession.review.is_not(None)
    )
    waits = (
        (ChargingSession.status == "PENDING")
        & ChargingSession.remote_start_id.is_not(None)
        & (ChargingSession.pending_until > scope.now)
    )
    sessions = select(
        ChargingSession.evse_id, ChargingSession.status, ChargingSession.pending_until
    ).where(ChargingSession.status.in_(("PENDING", "ACTIVE")), runs | waits)  # fmt: skip
    kept = select(Reservation).where(
        Reservation.state.in_(("asked", "active", "unknown")), Reservation.expires_at > scope.now
    )
    if evse_id is not None:
        sessions = sessions.where(ChargingSession.evse_id == evse_id)
        station = select(EVSE.station_id).where(EVSE.id == evse_id).scalar_subquery()
        kept = kept.where(Reservation.station_id == station)
    if but is not None:
        sessions = sessions.where(ChargingSession.id != but)
    rows = (await scope.db.execute(sessions)).all()
    return Situation(
        takes_sessions=status == "active",
        busy=frozenset(found for found, status, _until in rows if found and status == "ACTIVE"),
        awaited={found: until for found, status, until in rows if found and until and status == "PENDING"},
        reservations=list((await scope.db.execute(kept)).scalars()),
    )


def refusal(
    station: ChargingStation, evse: EVSE, situation: Situation, id_token: IdToken | None = None
) -> Refused | None:
    """Why nothing can begin there; None where it can, by that card or by nobody's in particular. The station's
    connection, the EVSE's connectors and its live state are loaded."""
    states = [connector.status for connector in evse.connectors]
    if not situation.takes_sessions:
        return Refused("tenant_suspended", N_("This operator is suspended and takes no new sessions."))
    if station.connection is None or not station.connection.is_online:
        return Refused("station_offline", N_("The station is offline, and a start does not wait."))
    if station.quarantined_at is not None:
        return Refused("station_quarantined", N_("This station is being checked and cannot be started."))
    if states and all(state == "Faulted" for state in states):
        return Refused("evse_faulted", N_("This charger reports a fault and cannot be started."))
    if states and all(state in UNUSABLE for state in states):
        return Refused("evse_unavailable", N_("This charger is out of service."))
    if station.registration != "accepted":
        return Refused("station_not_accepted", N_("This station is not accepted yet, and starts nothing."))
    if evse.id in situation.busy:
        return Refused("evse_busy", N_("A session is running here already."))
    if evse.id in situation.awaited:
        return Refused("evse_taken", N_("Somebody else has just started this charger."))
    if _is_reserved(evse, situation.reservations, states) and not any(
        _is_for(one, id_token) for one in situation.reservations if _is_at(one, evse)
    ):
        return Refused("evse_reserved", N_("This charger is reserved for somebody else."))
    return None


def _is_reserved(evse: EVSE, reservations: Iterable[Reservation], states: Iterable[str]) -> bool:
    """By the station's own word, or by a reservation that it took."""
    is_shown = (evse.live is not None and evse.live.activity == "reserved") or "Reserved" in states
    return is_shown or any(one.state == "active" and one.evse_id == evse.id for one in reservations)


def _is_at(one: Reservation, evse: EVSE) -> bool:
    return one.station_id == evse.station_id and one.evse_id in (None, evse.id)


def _is_for(one: Reservation, id_token: IdToken | None) -> bool:
    if id_token is None:
        return False
    return one.id_token_id == id_token.id or (
        one.group_value is not None and one.group_value == id_token.parent_value
    )


async def get_startable(
    scope: Scope, evse_id: UUID | None, *, id_token: IdToken | None = None, but: UUID | None = None
) -> EVSE:
    """The EVSE, where a session can begin by that card. NotFound, or Refused with the reason."""
    query = (
        select(EVSE)
        .where(EVSE.id == evse_id)
        .options(
            selectinload(EVSE.station).selectinload(ChargingStation.location),
            selectinload(EVSE.station).selectinload(ChargingStation.connection),
            selectinload(EVSE.connectors),
            selectinload(EVSE.live),
        )
        .execution_options(populate_existing=True)  # who has waited for the lock looks again
    )
    evse = (await scope.db.execute(query)).scalar_one_or_none()
    if evse is None or evse.station.retired_at is not None:
        raise NotFound("evse")
    refused = refusal(evse.station, evse, await look(scope, evse.id, but=but), id_token)
    if refused is not None:
        raise refused
    return evse


async def lock_evse(scope: Scope, evse_id: UUID | None) -> None:
    """One wish at a time, until the commit."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext(:evse))"),
        {"tenant": str(scope.tenant_id), "evse": str(evse_id)},
    )
