"""Verbs of the heart: what stations report about transactions, what people ask for, what staff decide.

A report of what already happened is taken, never refused: what does not make sense becomes a review.
Errors: those of `startable`, `no_tariff`, `token_…`, `not_active`, `not_in_review`, `still_runs`, `energy_required`.
"""

import secrets as stdlib_secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import selectinload

from app.access import service as access
from app.access.models import IdToken
from app.access.verdict import Accepted, AskOutside, IdTokenValue
from app.access.verdict import Refused as TokenRefused
from app.billing import payments
from app.billing.models import Payment
from app.charging import (
    ingest,
    plausibility,
    reservations,
    signed,
    smart_charging,
    snapshot,
    startable,
    terminal_starts,
)
from app.charging.models import ChargingSession, PriceSnapshot, SessionEvent
from app.charging.reports import ENERGY, Reading, TransactionReport, TransactionVerdict
from app.charging.smart_charging import Wish
from app.kernel import audit, events, queue
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import public_id
from app.stations import commands
from app.stations import service as stations
from app.stations.models import EVSE, ChargingStation, StationCommand, StationConnection
from app.stations.reports import StatusReport
from app.tariffs import service as tariffs
from tenants.scope import Scope
from themes.language import N_

STARTED_JUST_NOW = timedelta(minutes=2)
PENDING_LIFETIME = timedelta(minutes=3)
REFUSED_LATENCY = timedelta(seconds=20)
STOP_TAKES_AT_MOST = timedelta(minutes=1)  # then it is asked for again
NOT_ASKED = ("station_quarantined", "station_retired")


# --- what stations report ----------------------------------------------------------------------------------------


async def report_transaction(scope: Scope, station_id: UUID, report: TransactionReport) -> TransactionVerdict:
    """1.6 Start- and StopTransaction, 2.x TransactionEvent; idempotent by natural key, in any order."""
    await _lock_station(scope, station_id)
    if report.kind == "Started":
        session = await _started(scope, station_id, report)
    elif report.kind == "Updated":
        session = await _updated(scope, station_id, report)
    else:
        session = await _ended(scope, station_id, report)
    if report.id_token is not None and report.id_token.type == terminal_starts.TYPE:
        await terminal_starts.present(scope, session, report.id_token.value)
    return await _verdict(scope, session, report)


async def _lock_station(scope: Scope, station_id: UUID) -> None:
    """One transaction report of a station at a time, also while two connections of it overlap."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext(:station))"),
        {"tenant": str(scope.tenant_id), "station": str(station_id)},
    )


async def _verdict(scope: Scope, session: ChargingSession, report: TransactionReport) -> TransactionVerdict:
    """The answer about the token the report carried (ocpp.md 2, row 41: the payer is who started)."""
    status = group = expires = None
    if report.id_token is not None:
        if report.kind == "Started":
            status = session.id_token_status
            token = (
                await scope.db.get(IdToken, (scope.tenant_id, session.id_token_id))
                if session.id_token_id
                else None
            )
            group, expires = (token.parent_value, token.expires_at) if token else (None, None)
        else:
            verdict = await access.plan_authorization(
                scope, session.station_id, report.id_token, report.evse_no
            )
            if isinstance(verdict, Accepted):
                status, group, expires = "Accepted", verdict.group_value, verdict.expires_at
            elif isinstance(verdict, TokenRefused):
                # It may open nothing more by now, and is the one that runs here.
                spent = verdict.reason in ("used", *access.BLOCKED_BY_PAYMENT)
                used_here = spent and verdict.id_token_id == session.id_token_id
                status, group = ("Accepted" if used_here else verdict.status), verdict.group_value
    return TransactionVerdict(
        ocpp_transaction_id=session.ocpp_transaction_id or "", id_token_status=status,  # pyright: ignore[reportArgumentType]
        group_value=group, expires_at=expires,
    )  # fmt: skip


async def _started(scope: Scope, station_id: UUID, report: TransactionReport) -> ChargingSession:
    known, is_doubted = await _find(scope, station_id, report), False
    while known is not None and await _is_anothers(scope, known, report):
        report, is_doubted = await _told_apart(scope, known, report), report.natural_key is not None
        known = await _find(scope, station_id, report)
    known = known or await _stopped_before(scope, station_id, report)
    if known is not None:
        await _store(scope, known, report)
        return known if await _is_over(scope, known) else await _started_late(scope, known, report)
    known = await _told_again(scope, station_id, report)
    if known is not None:
        return known
    evse = await _evse_of(scope, station_id, report)
    wishes = await _wishes(scope, station_id)
    session = await _pending_for(scope, wishes, evse.id if evse else None, report)
    if session is None:
        session = ChargingSession(
            id=uuid7(), station_id=station_id, origin="station", started_at=report.at, status="ACTIVE"
        )
        scope.db.add(session)
    if evse is not None:
        session.evse_id, session.evse_no = evse.id, evse.evse_no
    session.connector_no = report.connector_no
    session.status, session.pending_until = "ACTIVE", None
    session.started_at, session.is_offline = report.at, report.offline
    session.start_key = report.natural_key
    session.review = "start_twice" if is_doubted else session.review
    session.meter_start_wh = _start_meter(report)
    with scope.db.no_autoflush:  # written once, when all of it is known
        session.ocpp_transaction_id = report.ocpp_transaction_id or await _new_transaction_id(
            scope, station_id
        )
        await _authorise(scope, session, report.id_token, report.at)
    await _supersede_others(scope, session)
    await _outrun_wishes(scope, wishes, session, report)
    await _turn_away(scope, session, report)
    await scope.db.flush()
    await snapshot.freeze(scope, session)
    key = f"started:{session.ocpp_transaction_id}"
    card = _own_card(session) | {"offline": report.offline}
    await _note(scope, session, key, report.at, "started", report, card)
    await _store(scope, session, report)
    await reservations.used(scope, session, report.reservation_no, report.at)
    await _occupy(scope, session)
    await events.emit(
        scope, "SessionStarted", "charging_session", session.id, {"evse": str(session.evse_id or "")}
    )
    _tell(scope, session, "started")
    return session


async def _is_anothers(scope: Scope, known: ChargingSession, report: TransactionReport) -> bool:
    """Whether a start only looks like that of a session whose end was told. In 1.6 a station without a clock, whose
    meter begins at 0, tells each of a card's visits alike; a replay says the same, so staff look at it. In 2.x an id
    that comes again after its end is a counter that began anew, though ids are to be unique."""
    if known.ended_at is None or not await _has(scope, known, "ended"):
        return False
    if report.natural_key is not None:
        return report.at_is_doubtful
    return not report.at_is_doubtful and report.at > known.ended_at and await _has(scope, known, "started")


async def _told_apart(scope: Scope, known: ChargingSession, report: TransactionReport) -> TransactionReport:
    """The new one has the name on the wire: it is the one that can be stopped."""
    if report.natural_key is not None:
        return replace(report, natural_key=f"{report.natural_key}+")
    assert known.ended_at is not None
    known.ocpp_transaction_id = f"{known.ocpp_transaction_id}~{int(known.ended_at.timestamp())}"
    await scope.db.flush()
    return report


async def _stopped_before(
    scope: Scope, station_id: UUID, report: TransactionReport
) -> ChargingSession | None:
    """1.6: a stop without an id that came before its start waits for staff; the start that fits is its own. From then
    on it is known by the start's key; its stop told again is found by what it says (`_ended_already`)."""
    if report.natural_key is None or report.meter_start_wh is None or report.at_is_doubtful:
        return None
    waiting = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.status == "COMPLETED",
        ChargingSession.review == "orphan", ChargingSession.evse_no.is_(None),
        ChargingSession.meter_start_wh.is_(None), ChargingSession.ended_at >= report.at,
        ChargingSession.meter_stop_wh >= round(report.meter_start_wh),
    )  # fmt: skip
    if (await scope.db.execute(waiting.with_only_columns(ChargingSession.id).limit(1))).first() is None:
        return None
    query = waiting.where(await _has_card(scope, report)).order_by(ChargingSession.ended_at).limit(1)
    found = await _waited_for(scope, (await scope.db.execute(query)).scalar_one_or_none())
    if found is None or found.review != "orphan" or await _has(scope, found, "started"):
        return None
    found.start_key = report.natural_key
    return found


async def _has_card(scope: Scope, report: TransactionReport) -> ColumnElement[bool]:
    """A session of the card that the report names."""
    if report.id_token is None:
        return ChargingSession.id_token_masked.is_(None)
    token = await access.find_id_token(scope, report.id_token)
    if token is not None:
        return ChargingSession.id_token_id == token.id
    return ChargingSession.id_token_masked == access.mask(report.id_token.value)


async def _started_late(scope: Scope, known: ChargingSession, report: TransactionReport) -> ChargingSession:
    """The first word of a start whose later events came first; or one that is told again, which changes nothing, unless
    it names the driver of whom nobody knew."""
    if not await _has(scope, known, "started"):
        known = await _given_at_last(scope, known, report)
        await _locate_first(scope, known, report)
        await _complete_start(scope, known, report)
    elif known.status == "ACTIVE" and known.id_token_status is None and _is_given(report):
        await _locate_first(scope, known, report)
        known = await _authorised_late(scope, known, report)
        await _turn_away(scope, known, report)
    return known


def _is_given(report: TransactionReport) -> bool:
    """It names a driver, or says that it was asked for."""
    return (
        report.id_token is not None
        or report.remote_start_id is not None
        or report.trigger_reason == "RemoteStart"
    )


async def _evse_of(scope: Scope, station_id: UUID, report: TransactionReport) -> EVSE | None:
    """A driver may identify before they choose an EVSE (2.x E02, E03): unknown then, but where there is only one."""
    if report.evse_no is not None:
        return await stations.ensure_evse(scope, station_id, report.evse_no, report.connector_no)
    known = list(
        (await scope.db.execute(select(EVSE).where(EVSE.station_id == station_id).limit(2))).scalars()
    )
    return known[0] if len(known) == 1 else None


async def _locate_first(scope: Scope, session: ChargingSession, report: TransactionReport) -> None:
    """A start that comes late knows nothing of where its car went since."""
    if session.evse_no is None:
        await _locate(scope, session, report)


async def _locate(scope: Scope, session: ChargingSession, report: TransactionReport) -> None:
    """The EVSE as the station tells it, at last or anew; prices may be those of the EVSE."""
    if report.evse_no is None or session.settled_at is not None:
        return
    session.connector_no = report.connector_no or session.connector_no
    if report.evse_no == session.evse_no or (session.status != "ACTIVE" and session.evse_no is not None):
        return
    evse, before = (
        await stations.ensure_evse(scope, session.station_id, report.evse_no, report.connector_no),
        session.evse_id,
    )
    session.evse_id, session.evse_no = evse.id, evse.evse_no
    await scope.db.flush()
    if before is None:
        await snapshot.freeze(scope, session, again=session.origin == "station")
    if session.status != "ACTIVE":
        return
    await _supersede_others(scope, session)
    if before is not None and not await _is_busy(scope, before):
        await stations.set_activity(scope, before, "idle")
    await _occupy(scope, session)
    _tell(scope, session, "located")


async def _occupy(scope: Scope, session: ChargingSession) -> None:
    """Until somebody is authorised the EVSE is only plugged in or parked at: a driver may still start there."""
    is_running = session.status == "ACTIVE" and session.id_token_status == "Accepted"
    if session.evse_id is not None and is_running:
        await stations.set_activity(scope, session.evse_id, "charging")


async def _told_again(scope: Scope, station_id: UUID, report: TransactionReport) -> ChargingSession | None:
    """Some 1.6 stations tell the start once more when it ends (ocpp.md 3, no. 34): the same EVSE, card and meter,
    another time. It stays one transaction, and staff look at it."""
    if report.natural_key is None or report.meter_start_wh is None or report.id_token is None:
        return None
    query = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.evse_no == report.evse_no,
        ChargingSession.status == "ACTIVE", ChargingSession.started_at < report.at,
        ChargingSession.meter_start_wh == round(report.meter_start_wh), ChargingSession.start_key.is_not(None),
        await _has_card(scope, report),
    )  # fmt: skip
    session = (await scope.db.execute(query)).scalars().first()
    if session is not None:
        session.review = session.review or "start_twice"
        await _note(scope, session, f"again:{report.natural_key}", report.at, "start_again", report, {})
    return session


def _start_meter(report: TransactionReport) -> int | None:
    """Told with the start; or with the event in which the EVSE becomes known, marked as the begin (2.x J02)."""
    if report.meter_start_wh is not None:
        return round(report.meter_start_wh)
    told = report.readings
    if report.kind != "Started":
        told = tuple(reading for reading in told if reading.context == "Transaction.Begin")
    return _register(told, "Transaction.Begin", first=True)


def _stop_meter(report: TransactionReport) -> int | None:
    if report.meter_stop_wh is not None:
        return round(report.meter_stop_wh)
    return _register(report.readings, "Transaction.End", first=False)


def _register(readings: tuple[Reading, ...], context: str, *, first: bool) -> int | None:
    """The energy register at the begin or end; without that context the first or last one told."""
    told = [r for r in readings if r.measurand == ENERGY and r.value is not None and not r.phase]
    told = [r for r in told if r.context == context] or told
    if not told:
        return None
    chosen = (min if first else max)(told, key=lambda reading: reading.sampled_at)
    return round(chosen.value or Decimal(0))


async def _new_transaction_id(scope: Scope, station_id: UUID) -> str:
    """1.6: random, 31 bit, never 0, unique at its station (steve#2058, ocpp.md 3 no. 25)."""
    while True:
        number = str(stdlib_secrets.randbelow(2**31 - 1) + 1)
        if await _by_transaction(scope, station_id, number) is None:
            return number


async def _by_transaction(scope: Scope, station_id: UUID, ocpp_transaction_id: str) -> ChargingSession | None:
    query = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.ocpp_transaction_id == ocpp_transaction_id
    )
    return (await scope.db.execute(query.execution_options(populate_existing=True))).scalar_one_or_none()


async def _by_key(scope: Scope, station_id: UUID, natural_key: str) -> ChargingSession | None:
    query = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.start_key == natural_key
    )
    return (await scope.db.execute(query.execution_options(populate_existing=True))).scalar_one_or_none()


async def _find(scope: Scope, station_id: UUID, report: TransactionReport) -> ChargingSession | None:
    """By the id on the wire; a 1.6 start by its natural key."""
    if report.ocpp_transaction_id is not None:
        return await _waited_for(scope, await _by_transaction(scope, station_id, report.ocpp_transaction_id))
    if report.natural_key is not None:
        return await _waited_for(scope, await _by_key(scope, station_id, report.natural_key))
    return None


async def _waited_for(scope: Scope, session: ChargingSession | None) -> ChargingSession | None:
    """What is over may be settled this moment: as it stands afterwards, and nobody settles it until we are done."""
    if session is not None and session.status not in ("PENDING", "ACTIVE"):
        await lock_settling(scope, session.id)
        await scope.db.refresh(session)
    return session


async def _wishes(scope: Scope, station_id: UUID) -> list[ChargingSession]:
    query = (
        select(ChargingSession)
        .where(
            ChargingSession.station_id == station_id, ChargingSession.status == "PENDING",
            ChargingSession.remote_start_id.is_not(None),  # a guest who has not paid yet is nobody's start
        )
        .order_by(ChargingSession.created_at)
        .with_for_update(of=ChargingSession)
    )  # fmt: skip
    return list((await scope.db.execute(query)).scalars())


async def _pending_for(
    scope: Scope, wishes: Sequence[ChargingSession], evse_id: UUID | None, report: TransactionReport
) -> ChargingSession | None:
    """The remote start this belongs to: by its id, by its token, or, for 3 minutes, by the EVSE alone.

    A card that is not ours belongs to whoever holds it to the reader; it takes nobody's paid start.
    """
    if report.remote_start_id is not None:
        for session in wishes:
            if session.remote_start_id == report.remote_start_id:
                return session
    waiting = [one for one in wishes if evse_id in (None, one.evse_id)]
    token = await access.find_id_token(scope, report.id_token) if report.id_token else None
    for session in waiting:
        if token is not None and session.id_token_id == token.id:
            return session
    if not waiting or token is not None or not await _may_be_anybodys(scope, waiting[0].station_id, report):
        return None
    return await _asked_lately(scope, waiting) if evse_id is not None else None


async def _may_be_anybodys(scope: Scope, station_id: UUID, report: TransactionReport) -> bool:
    """It may answer a remote start without naming whose. 2.x then says that it was asked for; in 1.6 the idTag is
    empty, or, on stations that are known for it, one of its own that it never asked about."""
    if report.offline or report.kind == "Ended":
        return False
    is_16 = report.natural_key is not None
    if not is_16:
        is_asked_for = report.trigger_reason == "RemoteStart" and report.remote_start_id is None
        return is_asked_for and report.id_token is None
    tag = report.id_token.value.strip() if report.id_token else ""
    if not tag:
        return True
    return await stations.has_quirk(
        scope, station_id, "other_tag_on_remote_start"
    ) and not await stations.was_told(scope, station_id, "Authorize", tag, since=scope.now - PENDING_LIFETIME)


async def _asked_lately(scope: Scope, waiting: Sequence[ChargingSession]) -> ChargingSession | None:
    asked = select(StationCommand.id).where(
        StationCommand.id.in_([one.command_id for one in waiting]),
        StationCommand.created_at > scope.now - PENDING_LIFETIME,
    )
    lately = set((await scope.db.execute(asked)).scalars())
    return next((one for one in waiting if one.command_id in lately), None)


async def _authorise(
    scope: Scope, session: ChargingSession, presented: IdTokenValue | None, at: datetime
) -> None:
    """Who came, and whether they might: frozen on the session. Refused ones are kept, the station is told."""
    if session.id_token_id is not None:  # a remote start: the token was accepted when it was asked for
        session.id_token_status = "Accepted"
        await access.mark_used(scope, session.id_token_id)
        return
    if presented is None:
        return
    verdict = await access.plan_authorization(scope, session.station_id, presented, session.evse_no)
    session.id_token_masked = access.mask(presented.value)
    if isinstance(verdict, AskOutside):
        session.id_token_status = "Unknown"
        return
    session.id_token_id, session.id_token_status = verdict.id_token_id, verdict.status
    if isinstance(verdict, Accepted):
        session.driver_id, session.driver_group_id = verdict.driver_id, verdict.driver_group_id
        if verdict.id_token_id is not None:
            await access.mark_used(scope, verdict.id_token_id)
            if await access.second_use(scope, verdict.id_token_id, session.station_id, at):
                if session.review in (None, "orphan"):  # that one ends with the start, this one by staff
                    session.review = "card_twice"
                await access.tell_second_use(scope, verdict.id_token_id, session.station_id)


async def _supersede_others(scope: Scope, session: ChargingSession) -> None:
    """Two transactions on one EVSE: the older ends at the new one's start and waits for staff (ocpp.md 2, row 63)."""
    if session.evse_id is None:
        return
    query = select(ChargingSession).where(
        ChargingSession.evse_id == session.evse_id, ChargingSession.status == "ACTIVE",
        ChargingSession.id != session.id, ChargingSession.started_at <= session.started_at,
    )  # fmt: skip
    for older in (await scope.db.execute(query)).scalars():
        older.status, older.ended_at, older.stopped_reason = "COMPLETED", session.started_at, "Superseded"
        if older.review != "other_card":
            older.review = "superseded"
        await _weigh(scope, older)
        await _note(
            scope, older, "superseded", session.started_at, "superseded", None, {"by": str(session.id)}
        )
        _tell(scope, older, "superseded")


async def _outrun_wishes(
    scope: Scope, wishes: Sequence[ChargingSession], session: ChargingSession, report: TransactionReport
) -> None:
    """Somebody else's card was quicker than a remote start that waits for its cable here: that one is over at once, its
    hold let go. Not by what a station's queue tells of a time before."""
    if session.evse_id is None or session.id_token_status != "Accepted" or not _is_now(report):
        return
    for wish in wishes:
        is_older = (
            wish.started_at <= report.received_at
        )  # not so where a past is written while people come already
        if wish.evse_id == session.evse_id and wish.id != session.id and is_older:
            await end_unstarted(scope, wish, "evse_taken", "not_started", {"code": "evse_taken"})


def _is_now(report: TransactionReport) -> bool:
    """Not what a station's queue tells of a time before."""
    return not report.offline and abs(report.received_at - report.at) < STARTED_JUST_NOW


async def _turn_away(scope: Scope, session: ChargingSession, report: TransactionReport) -> None:
    """A card that was answered with a refusal: most stations end that by themselves (1.6 StopTransactionOnInvalidId,
    2.x StopTxOnInvalidId); one that charges on is asked to stop."""
    if session.status == "ACTIVE" and session.is_refused and _is_now(report):
        at = scope.now + REFUSED_LATENCY
        await queue.enqueue(scope, "charging.stop_refused", session_id=str(session.id), at=at)


async def stop_refused(scope: Scope, session_id: UUID) -> None:
    """Asks once. What the station answers stands in the timeline."""
    begun = await scope.db.get(ChargingSession, (scope.tenant_id, session_id))
    if begun is None:  # somebody's paid start took the transaction over since
        return
    await _lock_station(scope, begun.station_id)
    session = await scope.db.get(ChargingSession, (scope.tenant_id, session_id), populate_existing=True)
    if session is None or session.status != "ACTIVE" or not session.is_refused:
        return
    if await last_stop(scope, session) is not None:
        return
    try:
        await request_stop(scope, session.id)
    except Refused as error:  # a station that is retired or being checked is asked nothing
        await _note(scope, session, "stop_refused", scope.now, "stop_refused", None, {"error": error.message})
        _tell(scope, session, "stop_refused")


async def _given_at_last(
    scope: Scope, session: ChargingSession, report: TransactionReport
) -> ChargingSession:
    """A transaction whose later events came first, and of which only this one tells whose remote start it is."""
    if session.settled_at is not None or session.id_token_status == "Accepted":
        return session
    wishes = await _wishes(scope, session.station_id)
    wish = await _pending_for(scope, wishes, session.evse_id, report)
    return session if wish is None else await _take_over(scope, wish, session)


async def _complete_start(scope: Scope, session: ChargingSession, report: TransactionReport) -> None:
    """The Started of a transaction whose later events came first."""
    session.meter_start_wh = began if (began := _start_meter(report)) is not None else session.meter_start_wh
    session.connector_no = session.connector_no or report.connector_no
    told = report.id_token
    is_nobodys = session.id_token_status is None or (session.is_refused and told is not None)
    if is_nobodys:
        session.id_token_id = None if session.is_refused else session.id_token_id
        await _authorise(scope, session, told, report.at)
        await _turn_away(scope, session, report)
    key = f"started:{session.ocpp_transaction_id}"
    card: dict[str, Any] = {}
    if _is_given(report):
        card = _own_card(session) if is_nobodys else await _card_of(scope, session, report)
    await _note(scope, session, key, report.at, "started", report, card | {"late": True})
    await _reckon(scope, session)
    await snapshot.freeze(scope, session, again=is_nobodys and session.origin == "station")
    await reservations.used(scope, session, report.reservation_no, session.started_at)
    if session.status == "COMPLETED":
        await _close(scope, session)


async def _is_of(scope: Scope, session: ChargingSession, report: TransactionReport) -> bool:
    """It names whoever the session is for. A remote start may be told without its token."""
    told = report.id_token
    if report.remote_start_id is not None and report.remote_start_id == session.remote_start_id:
        return True
    if told is None:
        return report.remote_start_id is None
    token = await access.find_id_token(scope, told)
    if token is not None:
        return token.id == session.id_token_id
    return session.id_token_id is None and access.mask(told.value) == session.id_token_masked


def _own_card(session: ChargingSession) -> dict[str, Any]:
    """Of a line of the timeline: the card the session is for, and whether it might charge."""
    return {"token": session.id_token_masked, "token_status": session.id_token_status}


async def _card_of(scope: Scope, session: ChargingSession, report: TransactionReport) -> dict[str, Any]:
    """The same for whichever card the station tells of."""
    if report.id_token is None or await _is_of(scope, session, report):
        return _own_card(session)
    verdict = await access.plan_authorization(scope, session.station_id, report.id_token, session.evse_no)
    status = "Unknown" if isinstance(verdict, AskOutside) else verdict.status
    return {"token": access.mask(report.id_token.value), "token_status": status, "is_other": True}


async def _reckon(scope: Scope, session: ChargingSession) -> None:
    """When the visit began, and whether a start is still missing or another card had the energy first: by all that is
    told until now, in whatever order it came.

    The visit began with the transaction. Where its driver came to it later, it began with them, and they pay for no
    minute before, unless energy flowed already. If that went to a card that was refused, or another good card came
    before them, staff look at it.
    """
    query = select(SessionEvent).where(
        SessionEvent.session_id == session.id, SessionEvent.kind.in_(("started", "authorised"))
    )
    lines = list((await scope.db.execute(query.order_by(SessionEvent.at))).scalars())
    start = next((line for line in lines if line.kind == "started"), None)
    came = next((line.at for line in lines if _is_their_coming(line)), None)
    if came is None:
        if session.id_token_status != "Accepted" and start is not None:
            session.started_at = start.at
            session.review = None if session.review == "orphan" else session.review
        return
    others = [one for one in lines if one.at <= came and one.data.get("token") and not _is_their_coming(one)]
    has_flowed = await plausibility.had_flowed(scope, session, came)
    began = min(session.started_at, came) if start is None else start.at
    session.started_at = began if has_flowed and not others else max(began, came)
    if others and (has_flowed or any(one.data.get("token_status") == "Accepted" for one in others)):
        session.review = "other_card"
    elif session.review in ("orphan", "implausible", "other_card"):  # judged anew, by what is known now
        session.review = "orphan" if start is None else None


def _is_their_coming(line: SessionEvent) -> bool:
    return line.data.get("token_status") == "Accepted" and not line.data.get("is_other")


async def _updated(scope: Scope, station_id: UUID, report: TransactionReport) -> ChargingSession:
    session = await _find(scope, station_id, report) or await _without_start(scope, station_id, report)
    if await _is_over(scope, session):
        await _store(scope, session, report)
        return session
    await _locate(scope, session, report)
    was_begun = session.meter_start_wh is not None
    await _store(scope, session, report)
    has_news = not was_begun and session.meter_start_wh is not None
    if session.id_token_status != "Accepted" and _is_given(report):
        session, has_news = await _authorised_late(scope, session, report), True
        await _turn_away(scope, session, report)
    elif report.id_token is not None:  # theirs again, to stop; or one of before them that is told after them
        await _note_card(scope, session, report, await _card_of(scope, session, report))
        await _reckon(scope, session)
        has_news = True
    if report.reservation_no is not None:  # some stations name it only with the card (2.0.1 E03)
        await reservations.used(scope, session, report.reservation_no, report.at)
    if has_news:
        await _judge_again(scope, session)
    return session


async def _judge_again(scope: Scope, session: ChargingSession) -> None:
    """The meter's begin, or the driver, was told in an event that the station's queue sent after the end."""
    is_undecided = session.status == "COMPLETED" and session.review not in ("stuck", "superseded")
    if is_undecided and await _has(scope, session, "started"):
        await _close(scope, session)


async def _authorised_late(
    scope: Scope, session: ChargingSession, report: TransactionReport
) -> ChargingSession:
    """A transaction that began with the cable or the parking bay, and whose driver comes now (2.x E03, F01), by their
    card or by a remote start, which a station may tell without its token. A card that was refused before them changes
    nothing, unless energy flowed to it (`_reckon`)."""
    was_refused, wishes = session.is_refused, await _wishes(scope, session.station_id)
    wish = await _wish_for(scope, wishes, session, report)
    if wish is not None:
        session = await _take_over(scope, wish, session)
    elif report.id_token is None:
        return session
    elif was_refused:
        session.id_token_id = None
    await _authorise(scope, session, report.id_token, report.at)
    await _note_card(scope, session, report, _own_card(session))
    await _reckon(scope, session)
    if session.id_token_status == "Accepted":
        await snapshot.freeze(scope, session, again=session.origin == "station")
        await reservations.used(scope, session, report.reservation_no, report.at)
    await _outrun_wishes(scope, wishes, session, report)
    await _occupy(scope, session)
    _tell(scope, session, "authorised")
    return session


async def _note_card(
    scope: Scope, session: ChargingSession, report: TransactionReport, card: Mapping[str, Any]
) -> None:
    """Who came, and when: each card is a line of its own, and so is each verdict on it."""
    key = f"authorised:{report.at.isoformat()}:{card['token']}:{card['token_status']}"
    await _note(scope, session, key, report.at, "authorised", report, card)


async def _wish_for(
    scope: Scope, wishes: Sequence[ChargingSession], session: ChargingSession, report: TransactionReport
) -> ChargingSession | None:
    """The remote start that this transaction, begun without anybody, has just been given to."""
    if session.status != "ACTIVE":
        return None
    token = await access.find_id_token(scope, report.id_token) if report.id_token else None
    for wish in wishes:
        if report.remote_start_id is not None and wish.remote_start_id == report.remote_start_id:
            return wish
        if token is not None and wish.id_token_id == token.id and wish.evse_id == session.evse_id:
            return wish
    here = [wish for wish in wishes if wish.evse_id == session.evse_id]
    if here and await _may_be_anybodys(scope, session.station_id, report):
        return await _asked_lately(scope, here)
    return None


async def _take_over(scope: Scope, wish: ChargingSession, begun: ChargingSession) -> ChargingSession:
    """The driver's page, their payment and their prices belong to the wish: what the station told moves there."""
    told = {
        name: getattr(begun, name)
        for name in ("ocpp_transaction_id", "start_key", "started_at", "ended_at", "meter_start_wh", "meter_stop_wh",
                     "energy_wh", "is_offline", "interrupted_at", "status", "review", "stopped_reason")
    }  # fmt: skip
    if begun.evse_id is not None:  # else it is where they asked for it, until the station says where
        told |= {name: getattr(begun, name) for name in ("evse_id", "evse_no", "connector_no")}
    begun.ocpp_transaction_id = begun.start_key = None
    await scope.db.flush()
    for name, value in told.items():
        setattr(wish, name, value)
    wish.pending_until = None
    await scope.db.flush()
    keys = {"wish": wish.id, "begun": begun.id}
    for table in ("meter_instant", "session_event", "session_live", "session_curve", "signed_meter_value"):
        move = f"update livery.{table} set session_id = :wish where session_id = :begun"  # noqa: S608
        await scope.db.execute(text(move), keys)
    await scope.db.execute(delete(PriceSnapshot).where(PriceSnapshot.session_id == begun.id))
    await scope.db.execute(delete(ChargingSession).where(ChargingSession.id == begun.id))
    await snapshot.freeze(scope, wish)
    await events.emit(scope, "SessionStarted", "charging_session", wish.id, {"evse": str(wish.evse_id or "")})
    _tell(scope, wish, "started")
    return wish


async def _without_start(scope: Scope, station_id: UUID, report: TransactionReport) -> ChargingSession:
    """The start never reached us, or has yet to (ocpp.md 2, row 48): kept, and staff look at it unless it comes."""
    evse = await _evse_of(scope, station_id, report)
    session = ChargingSession(
        id=uuid7(), station_id=station_id, evse_id=evse.id if evse else None,
        evse_no=evse.evse_no if evse else None, connector_no=report.connector_no, status="ACTIVE", review="orphan",
        origin="station", started_at=report.at, is_offline=report.offline,
        ocpp_transaction_id=report.ocpp_transaction_id or await _new_transaction_id(scope, station_id),
        start_key=report.natural_key,
    )  # fmt: skip
    scope.db.add(session)
    await scope.db.flush()
    wish = await _pending_for(scope, await _wishes(scope, station_id), session.evse_id, report)
    if wish is not None:
        session = await _take_over(scope, wish, session)
    await _authorise(scope, session, report.id_token, report.at)
    if session.id_token_status is not None:
        await _note_card(scope, session, report, _own_card(session))
    await snapshot.freeze(scope, session)
    if report.kind == "Updated" and session.evse_id is not None:
        await stations.set_activity(scope, session.evse_id, "charging")
    return session


async def _ended(scope: Scope, station_id: UUID, report: TransactionReport) -> ChargingSession:
    session = await _find_ended(scope, station_id, report)
    if session is None:
        session = await _without_start(scope, station_id, report)
    if await _is_over(scope, session):
        await _store(scope, session, report)
        await _note_late_end(scope, session, report)
        if _came_to_nothing(session):
            await _leave(scope, session)
        return session
    await _locate(scope, session, report)
    with scope.db.no_autoflush:  # written once, when all of it is known
        return await _end_with(scope, session, report)


async def _end_with(scope: Scope, session: ChargingSession, report: TransactionReport) -> ChargingSession:
    await _store(scope, session, report)
    if await _is_closed_for_silence(scope, session):  # its own word counts more
        if session.review == "stuck":
            session.review = None if await _has(scope, session, "started") else "orphan"
        session.energy_wh = None
    elif session.status == "COMPLETED" and session.stopped_reason != "Superseded":
        await _note_late_end(scope, session, report)
        return session  # a replay: idempotent, the CDR and the invoice stand (ocpp.md 2, row 40)
    session.meter_stop_wh = _stop_meter(report)
    session.stopped_reason = report.stopped_reason or "Local"
    ended_at = session.ended_at = max(report.at, session.started_at)
    await _note(scope, session, f"ended:{session.ocpp_transaction_id}", ended_at, "ended", report, {
        "reason": session.stopped_reason, "offline": report.offline,
    })  # fmt: skip
    await _close(scope, session)
    return session


async def _is_closed_for_silence(scope: Scope, session: ChargingSession) -> bool:
    """By the watchdog. Not because a hold ended: that was taken."""
    return session.stopped_reason == "Silence" and await _has(scope, session, "stuck", "unplugged")


async def _is_over(scope: Scope, session: ChargingSession) -> bool:
    """Settled, decided by staff, or come to nothing: what the station tells of it later is kept, and never billed."""
    if session.settled_at is not None or _came_to_nothing(session):
        return True
    is_released = session.status == "COMPLETED" and session.review is None
    return is_released and await _has(scope, session, "reviewed")


def _came_to_nothing(session: ChargingSession) -> bool:
    """Also where staff voided it."""
    return session.status == "INVALID"


async def _has(scope: Scope, session: ChargingSession, *kinds: str) -> bool:
    """Whether a line of one of these kinds stands in its timeline."""
    query = select(SessionEvent.id).where(SessionEvent.session_id == session.id, SessionEvent.kind.in_(kinds))
    return (await scope.db.execute(query.limit(1))).first() is not None


async def _note_late_end(scope: Scope, session: ChargingSession, report: TransactionReport) -> None:
    """The station's own word on the end of what was closed without it: told, and no more is taken for it."""
    if session.stopped_reason not in ("Silence", "Superseded", None):
        return
    meter, billed = _stop_meter(report), None if _came_to_nothing(session) else session.energy_wh
    given = None if meter is None or session.meter_start_wh is None else meter - session.meter_start_wh
    await _note(scope, session, f"ended:{session.ocpp_transaction_id}", report.at, "ended_late", report, {
        "reason": report.stopped_reason or "Local", "meter_wh": meter,
        "more_wh": None if given is None or billed is None else given - billed,
    })  # fmt: skip
    _tell(scope, session, "ended_late")


async def _find_ended(scope: Scope, station_id: UUID, report: TransactionReport) -> ChargingSession | None:
    """By the id; a retry by its key. What names no transaction (-1, 0, or in 1.6 an id that nobody gave out) is matched
    by token, time and meter (libocpp #495, SteVe #292), and only where one session alone fits."""
    session = await _find(scope, station_id, report)
    if session is None and report.natural_key is not None:
        session = await _waited_for(scope, await _by_key(scope, station_id, report.natural_key))
    if session is not None:
        return session
    if report.ocpp_transaction_id is not None and (report.natural_key is None or report.id_token is None):
        return None
    query = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.status == "ACTIVE",
        ChargingSession.started_at <= report.at,
    )  # fmt: skip
    if report.evse_no is not None:
        query = query.where(ChargingSession.evse_no == report.evse_no)
    if report.meter_stop_wh is not None and report.meter_stop_wh > 0:
        query = query.where(ChargingSession.meter_start_wh <= round(report.meter_stop_wh))
    if report.id_token is not None:
        token = await access.find_id_token(scope, report.id_token)
        query = query.where(ChargingSession.id_token_id == (token.id if token else None))
    candidates = list((await scope.db.execute(query)).scalars())
    return candidates[0] if len(candidates) == 1 else await _ended_already(scope, station_id, report)


async def _ended_already(scope: Scope, station_id: UUID, report: TransactionReport) -> ChargingSession | None:
    """A stop without an id, told again: at this moment, with this meter and this card something has ended here."""
    if report.natural_key is None or report.meter_stop_wh is None or report.at_is_doubtful:
        return None
    query = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.status == "COMPLETED",
        ChargingSession.ended_at == report.at, ChargingSession.meter_stop_wh == round(report.meter_stop_wh),
    )  # fmt: skip
    if report.id_token is not None:
        query = query.where(await _has_card(scope, report))
    found = list((await scope.db.execute(query.limit(2))).scalars())
    return await _waited_for(scope, found[0]) if len(found) == 1 else None


async def _close(scope: Scope, session: ChargingSession) -> None:
    """COMPLETED with its energy, or with a review; what is clean is settled by a job that must happen."""
    session.status = "COMPLETED"
    await _reckon(scope, session)
    if session.ended_at is not None:
        session.ended_at = max(session.ended_at, session.started_at)
    await _weigh(scope, session)
    await _leave(scope, session)
    if session.stopped_reason == "Timeout" and session.energy_wh == 0:  # no car came in time (2.x E03)
        ended_at = session.ended_at
        await end_unstarted(scope, session, "not_plugged_in", "not_started", {})
        session.ended_at = ended_at
        return
    await events.emit(scope, "SessionEnded", "charging_session", session.id, {"review": session.review or ""})
    if session.review in (None, "no_tariff"):
        await queue.enqueue(
            scope, "charging.settle", session_id=str(session.id), lock=f"session:{session.id}"
        )
    _tell(scope, session, "ended")


async def _weigh(scope: Scope, session: ChargingSession) -> None:
    """Its energy, and the review that it needs for that."""
    if session.review == "unverified":
        session.review = None  # what came since may have been signed
    if session.review in (None, "superseded", "card_twice", "start_twice"):
        energy, review = await plausibility.judge(scope, session)
        session.energy_wh = energy
        session.review = session.review or review
    elif session.review == "other_card":
        session.energy_wh = await plausibility.judge_measured(scope, session) or None  # staff say, then
    await signed.weigh(scope, session)


async def _leave(scope: Scope, session: ChargingSession) -> None:
    """The EVSE is idle, unless another session runs there."""
    if session.evse_id is not None and not await _is_busy(scope, session.evse_id, except_for=session.id):
        await stations.set_activity(scope, session.evse_id, "idle")


async def _is_busy(scope: Scope, evse_id: UUID, *, except_for: UUID | None = None) -> bool:
    query = select(ChargingSession.id).where(
        ChargingSession.evse_id == evse_id,
        ChargingSession.status == "ACTIVE",
        ChargingSession.id != except_for,
    )
    return (await scope.db.execute(query.limit(1))).first() is not None


async def _store(scope: Scope, session: ChargingSession, report: TransactionReport) -> None:
    """Readings, and the charging state. Events replayed from a queue do not move the live state back."""
    evse_no = report.evse_no or session.evse_no or 0
    await ingest.store(scope, session, session.station_id, evse_no, report.readings)
    if session.meter_start_wh is None:
        session.meter_start_wh = _start_meter(report)
    if report.charging_state is not None:
        await _state(scope, session, report.charging_state, report.at, report.seq_no)


async def _state(
    scope: Scope, session: ChargingSession, state: str, at: datetime, seq_no: int | None = None
) -> None:
    await _note(scope, session, state_key(at, state), at, "state", None, {"state": state})
    if session.status != "ACTIVE":
        return
    moved = await scope.db.execute(
        text(
            "insert into livery.session_live as l (session_id, charging_state, seq_no) values (:session, :state, :seq)"
            " on conflict (tenant_id, session_id) do update set charging_state = excluded.charging_state,"
            " seq_no = coalesce(excluded.seq_no, l.seq_no)"
            " where l.seq_no is null or excluded.seq_no is null or l.seq_no <= excluded.seq_no returning 1"
        ),
        {"session": session.id, "state": state, "seq": seq_no},
    )
    if session.cost_cap_minor is not None and moved.first() is not None:  # it may have stood there for long
        await queue.enqueue(
            scope, "charging.check_cap", session_id=str(session.id), lock=f"cap-now:{session.id}"
        )
    scope.publish(f"session:{session.id}", {"what": "state"})


def state_key(at: datetime, state: str) -> str:
    """Makes a replay one line of the timeline."""
    return f"state:{at.isoformat()}:{state}"


_STATES_16 = {
    "Charging": "Charging", "SuspendedEV": "SuspendedEV", "SuspendedEVSE": "SuspendedEVSE",
    "Finishing": "EVConnected", "Preparing": "EVConnected",
}  # fmt: skip


def state_of(report: StatusReport) -> str | None:
    """The charging state in a 1.6 station's finer word; None where it tells none."""
    return _STATES_16.get(report.detail or "")


async def connector_activity(scope: Scope, station_id: UUID, report: StatusReport) -> None:
    """1.6 tells the charging state by StatusNotification: the finer word moves the session on that EVSE."""
    state = state_of(report)
    if state is None:
        return
    query = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.evse_no == report.evse_no,
        ChargingSession.status == "ACTIVE", ChargingSession.started_at <= report.sampled_at,
    )  # fmt: skip
    session = (await scope.db.execute(query.order_by(ChargingSession.started_at.desc()))).scalars().first()
    if session is not None:
        await _state(scope, session, state, report.sampled_at)


async def station_rebooted(scope: Scope, station_id: UUID) -> None:
    """Open transactions were interrupted: a later report closes them, or the watchdog does (ocpp.md 3, no. 18)."""
    query = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.status == "ACTIVE"
    )
    for session in (await scope.db.execute(query)).scalars():
        session.interrupted_at = scope.now
        await _note(scope, session, boot_key(scope.now), scope.now, "interrupted", None, {})


def boot_key(at: datetime) -> str:
    return f"boot:{at.isoformat()}"


async def _note(
    scope: Scope, session: ChargingSession, key: str, at: datetime, kind: str, report: TransactionReport | None,
    data: Mapping[str, Any],
) -> None:  # fmt: skip
    """A line of the timeline. The key makes a replay one line."""
    if report is not None and report.at_is_doubtful:
        data = {**data, "our_clock": True}
    values = {
        "id": uuid7(), "session_id": session.id, "key": key, "at": at, "kind": kind, "data": dict(data),
        "received_at": report.received_at if report else scope.now,
    }  # fmt: skip
    await scope.db.execute(upsert(SessionEvent).values(**values).on_conflict_do_nothing())


async def note(scope: Scope, session: ChargingSession, key: str, kind: str, data: Mapping[str, Any]) -> None:
    """A line of the timeline that no station reported."""
    await _note(scope, session, key, scope.now, kind, None, data)


def _tell(scope: Scope, session: ChargingSession, what: str) -> None:
    scope.publish(f"session:{session.id}", {"what": what})
    scope.publish("sessions", {"session": str(session.id)})


# --- what people ask for -----------------------------------------------------------------------------------------


async def get_session(scope: Scope, session_id: UUID) -> ChargingSession:
    query = (
        select(ChargingSession)
        .where(ChargingSession.id == session_id)
        .options(
            selectinload(ChargingSession.station).selectinload(ChargingStation.location),
            selectinload(ChargingSession.evse),
            selectinload(ChargingSession.live),
            selectinload(ChargingSession.driver),
            selectinload(ChargingSession.id_token),
        )
        .execution_options(populate_existing=True)
    )
    session = (await scope.db.execute(query)).scalar_one_or_none()
    if session is None:
        raise NotFound("charging_session")
    return session


async def request_start(
    scope: Scope, *, evse_id: UUID, presented: IdTokenValue | None = None, limit: Wish | None = None
) -> tuple[ChargingSession, StationCommand]:
    """A remote start: PENDING for 3 minutes, and the command behind it. Without a token a one-off one is made.

    `limit` is a TxProfile for its transaction (1.6 TC_059, 2.0.1 F01.FR.08).

    Refused where nothing could come of it: the page says why.
    """
    await startable.lock_evse(scope, evse_id)
    held = await access.find_id_token(scope, presented) if presented is not None else None
    evse = await startable.get_startable(scope, evse_id, id_token=held)
    if presented is None:
        token, value = await access.create_one_off_token(scope)
        presented, token_id, driver_id, group_id = IdTokenValue(value, "Central"), token.id, None, None
    else:
        verdict = await access.plan_authorization(scope, evse.station_id, presented, evse.evse_no)
        if not isinstance(verdict, Accepted):
            message = (
                verdict.message
                if isinstance(verdict, TokenRefused)
                else "Nobody could be asked about this token."
            )
            raise Refused(
                f"token_{verdict.reason}" if isinstance(verdict, TokenRefused) else "no_answer", message
            )
        token_id, driver_id, group_id = verdict.id_token_id, verdict.driver_id, verdict.driver_group_id
    location = evse.station.location
    found = await tariffs.find_tariff_for(
        scope, driver_group_id=group_id, evse_id=evse.id, location_id=evse.station.location_id, at=scope.now
    )
    if found is None and not (location and location.is_free_vend):
        raise Refused("no_tariff", "No tariff applies here, so the price of a session would be unknown.")
    session = ChargingSession(
        id=uuid7(), station_id=evse.station_id, evse_id=evse.id, evse_no=evse.evse_no, status="PENDING",
        origin="remote", id_token_id=token_id, id_token_masked=access.mask(presented.value), driver_id=driver_id,
        driver_group_id=group_id, started_at=scope.now,
    )  # fmt: skip
    scope.db.add(session)
    await scope.db.flush()
    await snapshot.freeze(scope, session)  # what was read at the press, not what holds when the cable comes
    if limit is not None:
        await smart_charging.prepare_for_start(scope, session, limit)
    command = await send_start(scope, evse, session, presented)
    return session, command


async def send_start(
    scope: Scope,
    evse: EVSE,
    session: ChargingSession,
    presented: IdTokenValue,
    lifetime: timedelta = PENDING_LIFETIME,
) -> StationCommand:
    """Asks the station for a session that is PENDING, and gives the driver `lifetime` to plug in."""
    session.pending_until = scope.now + lifetime
    session.remote_start_id = stdlib_secrets.randbelow(2**31 - 1) + 1
    await scope.db.flush()
    action, payload = await _start_payload(scope, evse, session, presented)
    command = await commands.send_command(
        scope, evse.station_id, action, payload, expires_in=PENDING_LIFETIME, needs_online=True,
        source_type="charging_session", source_id=session.id,
    )  # fmt: skip
    session.command_id = command.id
    await _note(scope, session, "requested", scope.now, "requested", None, _by(scope))
    await queue.enqueue(
        scope,
        "charging.expire_pending",
        session_id=str(session.id),
        at=session.pending_until + timedelta(seconds=5),  # pyright: ignore[reportOptionalOperand]
    )
    await audit.record(
        scope, "session.start_requested", "charging_session", session.id, {"evse": str(evse.id)}
    )
    _tell(scope, session, "requested")
    return command


async def station_of(scope: Scope, evse_id: UUID) -> str:
    """The public id of an EVSE's station. NotFound."""
    evse = await scope.db.get(EVSE, (scope.tenant_id, evse_id))
    if evse is None:
        raise NotFound("evse")
    return public_id("charging_station", evse.station_id)


async def _start_payload(
    scope: Scope, evse: EVSE, session: ChargingSession, presented: IdTokenValue
) -> tuple[str, dict[str, Any]]:
    version = await _version(scope, evse.station_id)
    limit = await smart_charging.part_of_start(scope, session, version)
    if version == "ocpp1.6":
        return "RemoteStartTransaction", {
            "connectorId": evse.evse_no, "idTag": presented.value[:20]
        } | limit  # fmt: skip
    token = {"idToken": presented.value, "type": presented.type or "Central"}
    return "RequestStartTransaction", {
        "evseId": evse.evse_no, "remoteStartId": session.remote_start_id, "idToken": token,
    } | limit  # fmt: skip


async def connection_of(scope: Scope, station_id: UUID) -> StationConnection | None:
    """None: it was never heard."""
    query = select(StationConnection).where(StationConnection.station_id == station_id)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def _version(scope: Scope, station_id: UUID) -> str:
    connection = await connection_of(scope, station_id)
    return (connection.ocpp_version if connection else None) or ""


def _by(scope: Scope) -> dict[str, str]:
    """Who asks, as the timeline keeps it."""
    return {"by": scope.actor.name, "kind": scope.actor.kind}


async def request_stop(scope: Scope, session_id: UUID) -> StationCommand:
    """Asks the station to end the transaction; the session ends when the station says so. May wait for it.

    A stop that waits for its station, or was sent a moment ago and not refused, is the answer to whoever asks again.
    """
    session = await _locked_session(scope, session_id)
    if session.status != "ACTIVE" or session.ocpp_transaction_id is None:
        raise Refused("not_active", N_("Only a running session can be stopped."))
    last = await last_stop(scope, session)
    if last is not None and (
        last.status == "queued"
        or (last.status == "sent" and (last.sent_at or scope.now) > scope.now - STOP_TAKES_AT_MOST)
        or (last.status == "accepted" and last.created_at > scope.now - STOP_TAKES_AT_MOST)
    ):
        return last
    if await _version(scope, session.station_id) == "ocpp1.6":
        action, payload = "RemoteStopTransaction", {"transactionId": int(session.ocpp_transaction_id)}
    else:
        action, payload = "RequestStopTransaction", {"transactionId": session.ocpp_transaction_id}
    command = await commands.send_command(
        scope, session.station_id, action, payload, source_type="charging_session", source_id=session.id
    )
    await _note(scope, session, f"stop:{command.id}", scope.now, "stop_requested", None, _by(scope))
    await audit.record(scope, "session.stop_requested", "charging_session", session.id, {})
    _tell(scope, session, "stop_requested")
    return command


async def last_stop(scope: Scope, session: ChargingSession) -> StationCommand | None:
    since = min(session.started_at, session.created_at)  # by the station's clock, or by ours
    query = select(StationCommand).where(
        StationCommand.station_id == session.station_id, StationCommand.source_id == session.id,
        StationCommand.action.in_(STOP_ACTIONS), StationCommand.created_at >= since,
    )  # fmt: skip
    return (
        await scope.db.execute(query.order_by(StationCommand.created_at.desc()).limit(1))
    ).scalar_one_or_none()


def may_be_asked(station: ChargingStation) -> bool:
    """One that is retired, or whose identity two boxes use, is asked for nothing (`NOT_ASKED`)."""
    return station.quarantined_at is None and station.retired_at is None


async def has_charged(scope: Scope, session: ChargingSession) -> bool:
    """Energy has flowed, by the meter or by the station's word."""
    if session.live is not None and (session.live.energy_wh or 0) > 0:
        return True
    told = select(SessionEvent.id).where(
        SessionEvent.session_id == session.id, SessionEvent.kind == "state",
        SessionEvent.data["state"].astext == "Charging",
    )  # fmt: skip
    return (await scope.db.execute(told.limit(1))).first() is not None


async def lock_pending(scope: Scope, session_id: UUID) -> ChargingSession | None:
    """A wish that only we decide on until the commit; None where it is over, or has become a session."""
    query = select(ChargingSession.id).where(
        ChargingSession.id == session_id, ChargingSession.status == "PENDING"
    )
    found = (await scope.db.execute(query.with_for_update())).first()
    return await get_session(scope, session_id) if found is not None else None


async def expire_pending(scope: Scope, session_id: UUID) -> None:
    """Nobody paid, or nobody plugged in: the wish is over (INVALID: no energy, no CDR)."""
    session = await lock_pending(scope, session_id)
    if session is None or session.pending_until is None or session.pending_until > scope.now:
        return
    await end_unstarted(scope, session, await _why_nothing_came(scope, session), "not_started", {})


async def _why_nothing_came(scope: Scope, session: ChargingSession) -> str:
    if session.command_id is None:
        return "checkout_expired"
    command = await commands.get_command(scope, session.command_id)
    return "not_plugged_in" if command.status == "accepted" else "station_offline"


async def end_unstarted(
    scope: Scope, session: ChargingSession, code: str, kind: str, data: Mapping[str, Any]
) -> None:
    """The wish is over before it began: INVALID, no CDR, a hold is let go, and its one-off token opens nothing."""
    session.status, session.ended_at, session.not_started = "INVALID", scope.now, code
    if session.id_token_id is not None:
        await access.mark_used(scope, session.id_token_id)
    await _note(scope, session, kind, scope.now, kind, None, {**data, "code": code})
    await payments.release(scope, "charging_session", session.id, code)
    await events.emit(scope, "SessionNotStarted", "charging_session", session.id, {"code": code})
    _tell(scope, session, kind)


START_ACTIONS = ("RemoteStartTransaction", "RequestStartTransaction")
STOP_ACTIONS = ("RemoteStopTransaction", "RequestStopTransaction")


async def command_ended(scope: Scope, event: events.Event) -> None:
    """The station took a remote start: the page says so. It refused it, or was never reached: the wish is over at once,
    and the page says why. A stop that it refused, or that never reached it, is told too."""
    status, action = event.data["status"], event.data["action"]
    if (
        "charging_session" not in event.data
        or status == "sent"
        or (status == "accepted" and action in STOP_ACTIONS)
    ):
        return
    command = await commands.get_command(scope, event.source_id)
    session_id, why = UUID(event.data["charging_session"]), {
        "status": command.status, "answer": command.answer, "error": command.error,
    }  # fmt: skip
    if action in START_ACTIONS and status in ("accepted", "rejected", "failed", "expired"):
        session = await lock_pending(scope, session_id)
        if session is not None and status == "accepted":
            _tell(scope, session, "start_accepted")
        elif session is not None:
            code, kind = (
                ("station_offline", "not_started")
                if status == "expired"
                else ("station_refused", "start_refused")
            )
            await end_unstarted(scope, session, code, kind, why)
    elif action in STOP_ACTIONS:
        session = await get_session(scope, session_id)
        if session.status == "ACTIVE":
            await _note(scope, session, f"stop_refused:{command.id}", scope.now, "stop_refused", None, why)
            _tell(scope, session, "stop_refused")


# --- what staff decide -------------------------------------------------------------------------------------------


async def lock_settling(scope: Scope, session_id: UUID) -> None:
    """What is decided, settled, credited or given back of a session happens one after the other. Whoever needs the
    station's lock as well takes that first."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext(:session))"),
        {"tenant": str(scope.tenant_id), "session": str(session_id)},
    )


async def decide_review(
    scope: Scope, session_id: UUID, decision: str, note: str, *, energy_wh: int | None = None
) -> ChargingSession:
    """`release` settles the session (with `energy_wh` where the meter cannot be believed), `void` ends it unbilled.

    Not while it runs: its car would charge on for nobody, at an EVSE that looks free. One that cannot be stopped is
    closed for its silence (`close_stuck`, `close_unplugged`, `close_silent`), and decided then.
    """
    await _locked_session(scope, session_id)
    await lock_settling(scope, session_id)
    session = await get_session(scope, session_id)
    if session.review is None:
        raise Refused("not_in_review", "This session is not under review.")
    if session.status == "ACTIVE":
        raise Refused("still_runs", "It still runs: stop it first.")
    if decision not in ("release", "void"):
        raise Invalid.field("decision", "decision", "The decision is release or void.")
    if not note.strip():
        raise Invalid.field("note", "required", "Say in a sentence why.")
    was = session.review
    if decision == "void":
        await _void(scope, session)
    else:
        await _release(scope, session, energy_wh)
    session.review, session.review_note = None, note.strip()[:1000]
    await _note(scope, session, f"review:{scope.now.isoformat()}", scope.now, "reviewed", None, {
        "decision": decision, "was": was, "note": session.review_note, "by": scope.actor.name,
    })  # fmt: skip
    await audit.record(scope, f"session.review_{decision}", "charging_session", session.id, {"was": was})
    _tell(scope, session, "reviewed")
    return session


async def _void(scope: Scope, session: ChargingSession) -> None:
    if session.settled_at is not None:
        raise Refused("already_settled", "A CDR exists; a correction is a credit CDR.")
    session.status = "INVALID"
    session.ended_at = session.ended_at or scope.now
    await payments.release(scope, "charging_session", session.id, "voided")
    await _leave(scope, session)


async def _release(scope: Scope, session: ChargingSession, energy_wh: int | None) -> None:
    if session.settled_at is not None:
        if energy_wh not in (None, session.energy_wh):
            raise Refused("already_settled", "A CDR exists; a correction is a credit CDR.")
        return
    if energy_wh is not None:
        check_energy(energy_wh)
        session.energy_wh = energy_wh
    elif (verified := await signed.verified_wh(scope, session)) is not None:
        session.energy_wh = verified
    if session.energy_wh is None:
        raise Invalid.field(
            "energy_wh", "energy_required", "The meter gives no believable energy: say how many Wh."
        )
    session.ended_at = session.ended_at or scope.now
    session.status = "COMPLETED"
    keep_to_visit(session)
    await _leave(scope, session)
    await queue.enqueue(scope, "charging.settle", session_id=str(session.id), lock=f"session:{session.id}")


async def verify_again(scope: Scope, session_id: UUID) -> ChargingSession:
    """What waits only for its signature is weighed again: a key is trusted since, or more came that was signed.

    Errors: `not_unverified`.
    """
    await _locked_session(scope, session_id)
    await lock_settling(scope, session_id)
    session = await get_session(scope, session_id)
    if session.review != "unverified" or session.settled_at is not None:
        raise Refused("not_unverified", "This session does not wait for its meter's signature.")
    await _weigh(scope, session)
    if session.review is None:
        key = f"verified:{scope.now.isoformat()}"
        await _note(scope, session, key, scope.now, "verified", None, {"energy_wh": session.energy_wh})
        await queue.enqueue(
            scope, "charging.settle", session_id=str(session.id), lock=f"session:{session.id}"
        )
    _tell(scope, session, "verified")
    return session


async def list_unverified(scope: Scope, station_id: UUID) -> list[UUID]:
    query = select(ChargingSession.id).where(
        ChargingSession.station_id == station_id, ChargingSession.review == "unverified"
    )
    return list((await scope.db.execute(query.order_by(ChargingSession.started_at))).scalars())


async def signed_reported(
    scope: Scope, station_id: UUID, evse_no: int | None, ocpp_transaction_id: str | None, reading: Reading
) -> bool:
    """A signed reading that came by a way of the vendor's own, also after its session's end. Whether it belongs to one:
    that which it names, else the only one there that runs or waits for its signature."""
    await _lock_station(scope, station_id)
    query = select(ChargingSession.id).where(ChargingSession.station_id == station_id)
    if ocpp_transaction_id is not None:
        query = query.where(ChargingSession.ocpp_transaction_id == ocpp_transaction_id)
    else:
        query = query.where((ChargingSession.status == "ACTIVE") | (ChargingSession.review == "unverified"))
        query = query.where(ChargingSession.evse_no == evse_no) if evse_no is not None else query
    found = (await scope.db.execute(query.limit(2))).scalars().all()
    if len(found) != 1:
        return False
    session = await get_session(scope, found[0])
    await ingest.store(scope, session, station_id, session.evse_no or evse_no or 0, [reading])
    if session.review == "unverified" and session.settled_at is None:
        await verify_again(scope, session.id)
    return True


def check_energy(energy_wh: int) -> None:
    """Of one visit, as staff say it. `out_of_range`."""
    if isinstance(energy_wh, bool) or not 0 <= energy_wh <= 10_000_000:
        raise Invalid.field(
            "energy_wh", "out_of_range", "energy_wh is a whole number of Wh from 0 to 10,000,000."
        )


def keep_to_visit(session: ChargingSession) -> None:
    """What is billed of a session under review: no end before its begin; and where another card had the energy first,
    the meter counts from the first reading since the driver came."""
    if session.ended_at is not None:
        session.ended_at = max(session.ended_at, session.started_at)
    if session.review == "other_card":
        session.meter_start_wh = None


SILENT_FOR, QUIET_FOR = timedelta(hours=48), timedelta(minutes=15)


async def list_silent(scope: Scope) -> list[UUID]:
    """The sessions that `close_stuck` or `close_unplugged` would close."""
    stuck, unplugged = await _stuck(scope, SILENT_FOR), await _unplugged(scope, QUIET_FOR)
    return [*stuck, *(key for key in unplugged if key not in stuck)]


async def close_stuck(scope: Scope, *, silent_for: timedelta = SILENT_FOR, only: UUID | None = None) -> int:
    """The watchdog (ocpp.md 2, row 64): open for long without a word. Ends at the last reading, waits for staff."""
    closed = 0
    for session_id in await _stuck(scope, silent_for, only):
        session = await _locked_session(scope, session_id)
        if await _stuck(scope, silent_for, session_id):  # it said nothing while we waited
            await _end_silent(scope, session, "stuck")
            closed += 1
    return closed


async def _stuck(scope: Scope, silent_for: timedelta, only: UUID | None = None) -> list[UUID]:
    query = text("""
        select s.id from livery.charging_session s left join livery.session_live l on l.session_id = s.id
         and l.tenant_id = s.tenant_id
         where s.status = 'ACTIVE' and coalesce(l.reading_at, s.started_at) < :limit
           and s.id = coalesce(cast(:only as uuid), s.id)""")
    limits = {"limit": scope.now - silent_for, "only": only}
    return list((await scope.db.execute(query, limits)).scalars())


async def close_unplugged(scope: Scope, *, quiet_for: timedelta = QUIET_FOR, only: UUID | None = None) -> int:
    """The connector is free, or waits for another car after a reboot, and nothing was measured since: the stop was
    never told (ocpp.md 3, nos. 18 and 37). A stop that comes later all the same replaces what is assumed here."""
    closed = 0
    for session_id in await _unplugged(scope, quiet_for, only):
        session = await _locked_session(scope, session_id)
        for free_at in (await _unplugged(scope, quiet_for, session_id)).values():
            await _end_silent(scope, session, "unplugged", at=free_at)
            closed += 1
    return closed


async def _unplugged(scope: Scope, quiet_for: timedelta, only: UUID | None = None) -> dict[UUID, datetime]:
    """Session -> since when its connector is free."""
    query = text("""
        select s.id, max(c.status_at) as free_at
          from livery.charging_session s
          join livery.connector c on c.tenant_id = s.tenant_id and c.evse_id = s.evse_id
           and c.connector_no = coalesce(s.connector_no, c.connector_no)
          join livery.station_connection k on k.tenant_id = s.tenant_id and k.station_id = s.station_id
          left join livery.session_live l on l.tenant_id = s.tenant_id and l.session_id = s.id
         where s.status = 'ACTIVE' and k.is_online
           and (c.status = 'Available' or c.detail = 'Preparing' and c.status_at > s.interrupted_at)
           and c.status_at > s.started_at and c.status_at < :limit
           and coalesce(l.reading_at, s.started_at) < :limit
           and s.id = coalesce(cast(:only as uuid), s.id)
         group by s.id""")
    limits = {"limit": scope.now - quiet_for, "only": only}
    rows = (await scope.db.execute(query, limits)).all()
    return {row.id: row.free_at for row in rows}


async def close_silent(scope: Scope, session_id: UUID) -> None:
    """What it gave by its last reading is all that can still be paid for; what the station tells later is kept."""
    session = await _locked_session(scope, session_id)
    if session.status == "ACTIVE":
        await _end_silent(scope, session, "hold_ends")


async def _locked_session(scope: Scope, session_id: UUID) -> ChargingSession:
    """As it stands between two reports of its station, of which none is taken until we are done."""
    await _lock_station(scope, (await get_session(scope, session_id)).station_id)
    return await get_session(scope, session_id)


async def _end_silent(
    scope: Scope, session: ChargingSession, kind: str, *, at: datetime | None = None
) -> None:
    live = session.live
    session.ended_at = at or (live.reading_at if live and live.reading_at else scope.now)
    session.stopped_reason = "Silence"
    if kind != "hold_ends" and session.review in (None, "orphan"):  # what else staff look at stays
        session.review = "stuck"
    await _note(scope, session, kind, scope.now, kind, None, {})
    session.meter_stop_wh = live.meter_wh if live else None
    session.energy_wh, review = await plausibility.judge(scope, session)
    session.review = session.review or review
    await _close(scope, session)


async def expire_overdue(scope: Scope) -> int:
    """Wishes whose own job never came, and holds of wishes that are over: nothing stays held for nobody."""
    query = select(ChargingSession.id).where(
        ChargingSession.status == "PENDING", ChargingSession.pending_until < scope.now - timedelta(minutes=1)
    )
    overdue = list((await scope.db.execute(query)).scalars())
    for session_id in overdue:
        await expire_pending(scope, session_id)
    forgotten = select(ChargingSession.id, ChargingSession.not_started).join(
        Payment, (Payment.source_id == ChargingSession.id) & (Payment.source_type == "charging_session")
    ).where(ChargingSession.status == "INVALID", Payment.state == "authorized")  # fmt: skip
    for session_id, code in (await scope.db.execute(forgotten)).all():
        await payments.release(scope, "charging_session", session_id, code or "over")
    return len(overdue)
