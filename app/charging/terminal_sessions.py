"""Which session a card terminal's payment is for (docs/decisions/0037).

A station that starts by its terminal presents the transaction as a `DirectPayment` token, a vendor's system may name
the session; else it is the one session at that EVSE about that time which nobody else pays for. Where none of these is
certain, staff say. A session so paid is capped by what the card holds, like any other that is paid by card.
Errors beside those of `terminals`: `no_session`, `session_paid`, `other_currency`, `transaction_used`.
"""

import asyncio
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import selectinload

from app.billing import payments, terminals
from app.billing.models import Payment, PaymentTerminal, TerminalRecord
from app.billing.terminals import Told
from app.brands import faces
from app.charging import service, settlement
from app.charging.models import CDR, ChargingSession
from app.charging.terminal_starts import cap, currency_of
from app.kernel import audit, events
from app.kernel.errors import Invalid, LiveryError, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.money import to_decimal
from app.stations.models import EVSE, ChargingStation
from tenants.scope import Scope

# Card first, then the cable; and a settlement is told by the clock of another system.
NEAR = timedelta(minutes=15)
RUNS = ("ACTIVE", "COMPLETED")
COLUMNS = ("terminal", "record_id", "transaction_id", "kind", "amount", "currency", "at", "card", "approval_code",
           "evse", "session")  # fmt: skip
MAX_BYTES, MAX_ROWS = 1_000_000, 2_000


# -- records come in ---------------------------------------------------------------------------------------------------


async def take(scope: Scope, told: Told) -> tuple[TerminalRecord, bool]:
    """The record, and whether it is new; it is the session's where that is certain."""
    row, is_new = await terminals.take(scope, told)
    if row.payment_id is None and row.dismissed_at is None:
        session = await _find_session(scope, row)
        if session is not None:
            await _give(scope, row, session)
    elif is_new and row.payment_id is not None:
        await _heard(scope, await payments.get_payment(scope, row.payment_id))
    await scope.db.refresh(row)
    return row, is_new


async def read_told(scope: Scope, data: Mapping[str, Any], terminal: PaymentTerminal | None = None) -> Told:
    """From an API's body or a line of a file: `terminal` (its serial number or id), `evse` (its number at the station
    that the terminal is built into, its code or EVSE id) and the fields of `terminals.read`."""
    terminal = terminal or await _terminal(scope, str(data.get("terminal") or ""))
    fields = terminals.read(data, currency=await terminals.own_currency(scope), now=scope.now)
    evse_id, wanted = None, str(data.get("evse") or "").strip()
    if wanted:
        evse_id = await _evse(scope, terminal, wanted)
    return Told(terminal_id=terminal.id, evse_id=evse_id, **fields)


async def _terminal(scope: Scope, wanted: str) -> PaymentTerminal:
    found = await terminals.find_terminal(scope, wanted) if wanted.strip() else None
    if found is None:
        try:
            found = await terminals.get_terminal(scope, parse_id("payment_terminal", wanted.strip()))
        except NotFound:
            message = "No terminal with this serial number is registered."
            raise Invalid.field("terminal", "unknown", message) from None
    return found


async def _evse(scope: Scope, terminal: PaymentTerminal, wanted: str) -> UUID:
    named = [EVSE.code == wanted.lower(), EVSE.evse_id == wanted]
    if terminal.station_id is not None and wanted.isascii() and wanted.isdecimal() and len(wanted) < 5:
        named.append((EVSE.station_id == terminal.station_id) & (EVSE.evse_no == int(wanted)))
    query = select(EVSE.id).where(or_(*named), EVSE.station_id.in_(_served(terminal)))
    found = list((await scope.db.execute(query.limit(2))).scalars())
    if len(found) != 1:
        raise Invalid.field("evse", "unknown", "This terminal serves no such EVSE.")
    return found[0]


def _served(terminal: PaymentTerminal) -> Any:
    query = select(ChargingStation.id).where(ChargingStation.location_id == terminal.location_id)
    if terminal.station_id is not None:
        query = query.where(ChargingStation.id == terminal.station_id)
    return query


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong with a line of a file; the header is line 1."""

    line: int
    message: str


async def import_file(scope: Scope, raw: bytes) -> tuple[int, int, list[Fault]]:
    """(new records, known ones, faults): with a fault nothing is taken. Invalid of `file` for what is no such table."""
    rows = await asyncio.to_thread(_read_table, raw)
    # One file after the other: each takes its terminals in the order of its lines.
    await terminals.lock(scope, "file")
    async with scope.db.begin_nested() as all_or_nothing:
        new, known, faults = await _take_rows(scope, rows)
        if faults:
            await all_or_nothing.rollback()
    return new, known, faults


async def _take_rows(
    scope: Scope, rows: Sequence[tuple[int, dict[str, str]]]
) -> tuple[int, int, list[Fault]]:
    new, known, faults = 0, 0, list[Fault]()
    for line, row in rows:
        try:
            _record, is_new = await take(scope, await read_told(scope, row))
        except Invalid as error:
            faults += [Fault(line, fault.message) for fault in error.faults]
        except LiveryError as error:
            faults.append(Fault(line, error.message))
        else:
            new, known = new + is_new, known + (not is_new)
    return new, known, sorted(faults)


def _read_table(raw: bytes) -> list[tuple[int, dict[str, str]]]:
    if len(raw) > MAX_BYTES:
        raise Invalid.field("file", "too_large", f"A file has up to {MAX_BYTES // 1_000_000} MB.")
    try:
        words = raw.decode("utf-8-sig").replace("\0", "")
    except UnicodeDecodeError:
        raise Invalid.field("file", "encoding", "This file is no CSV in UTF-8.") from None
    head = words.partition("\n")[0]
    try:
        found = csv.DictReader(
            io.StringIO(words), delimiter=";" if head.count(";") > head.count(",") else ","
        )
        names = [str(name).strip().lower() for name in found.fieldnames or ()]
        found.fieldnames = names
        rows = [
            (found.line_num, {key: value for key, value in row.items() if isinstance(value, str)})
            for row in found
        ]
    except csv.Error:
        raise Invalid.field("file", "table", "This file is no table that can be read.") from None
    lacking = [name for name in COLUMNS[:7] if name not in names and name != "currency"]
    if lacking:
        raise Invalid.field("file", "columns", f"Columns are missing: {', '.join(lacking)}.")
    if not rows or len(rows) > MAX_ROWS:
        raise Invalid.field("file", "rows", f"A file has 1 to {MAX_ROWS:,} lines under its header.")
    return rows


# -- whose it is -------------------------------------------------------------------------------------------------------


async def _open(
    scope: Scope, session: ChargingSession, terminal: PaymentTerminal, transaction_ref: str, currency: str
) -> Payment:
    payment = await terminals.open_payment(
        scope, "charging_session", session.id, terminal, transaction_ref, currency=currency,
        language=await faces.get_language(scope),
    )  # fmt: skip
    await _heard(scope, payment)
    return payment


async def _heard(scope: Scope, payment: Payment) -> None:
    """What the card holds caps its session; what it took is laid beside its papers."""
    session = await scope.db.get(ChargingSession, (scope.tenant_id, payment.source_id))
    if session is None:
        return
    await cap(scope, session, payment)
    if session.settled_at is not None and payment.state in payments.TAKEN:
        await payments.capture(
            scope, "charging_session", session.id, await settlement.papers_minor(scope, session.id)
        )


async def session_started(scope: Scope, event_id: UUID) -> None:
    """Cards come before cables: what waits may be for the session that began now."""
    event = await scope.db.get(events.Event, (scope.tenant_id, event_id))
    session = await scope.db.get(ChargingSession, (scope.tenant_id, event.source_id)) if event else None
    if session is None or not await terminals.find_serving(scope, session.station_id):
        return
    waiting = select(TerminalRecord).where(
        TerminalRecord.payment_id.is_(None), TerminalRecord.dismissed_at.is_(None),
        TerminalRecord.created_at > scope.now - timedelta(days=1),
        TerminalRecord.terminal_id.in_(terminals.serving(session.station_id)),
    )  # fmt: skip
    for row in (await scope.db.execute(waiting.order_by(TerminalRecord.id.desc()).limit(200))).scalars():
        await scope.db.refresh(row)
        if not row.is_waiting:
            continue
        found = await _find_session(scope, row)
        if found is not None and found.id == session.id:
            await _give(scope, row, found)


async def _give(scope: Scope, row: TerminalRecord, session: ChargingSession) -> None:
    """Where it turns out that it cannot be, it waits for staff."""
    await terminals.lock(scope, row.terminal_id)  # before the session's: so does whoever takes a record
    await service.lock_settling(scope, session.id)
    await scope.db.refresh(session)
    terminal, currency = (
        await terminals.get_terminal(scope, row.terminal_id),
        await currency_of(scope, session),
    )
    if session.settled_at is None and currency is not None and currency == row.currency:
        try:
            async with scope.db.begin_nested():
                await _open(scope, session, terminal, row.transaction_ref, currency)
        except Refused:
            return


async def _find_session(scope: Scope, row: TerminalRecord) -> ChargingSession | None:
    """The one that it must be; None where that is not certain."""
    if row.session_ref:
        named = await _named(scope, row)
        return named if named is not None and await _is_open(scope, named) else None
    if row.evse_id is None:
        return None
    found = [one for one in await _near(scope, row, ChargingSession.evse_id == row.evse_id)
             if await _is_open(scope, one)]  # fmt: skip
    return found[0] if len(found) == 1 else None


async def _named(scope: Scope, row: TerminalRecord) -> ChargingSession | None:
    """By our id, or the station's own of its transaction."""
    terminal = await terminals.get_terminal(scope, row.terminal_id)
    is_named: ColumnElement[bool] = ChargingSession.ocpp_transaction_id == row.session_ref
    if row.session_ref.startswith("ses_"):
        try:
            is_named = ChargingSession.id == parse_id("charging_session", row.session_ref)
        except NotFound:
            return None
    query = select(ChargingSession).where(is_named, ChargingSession.station_id.in_(_served(terminal)))
    found = list((await scope.db.execute(query.limit(2))).scalars())
    return found[0] if len(found) == 1 else None


async def _near(
    scope: Scope, row: TerminalRecord, where: ColumnElement[bool], *, within: timedelta = NEAR
) -> Sequence[ChargingSession]:
    """Running at that time, or about it; the nearest start first."""
    ends = func.coalesce(ChargingSession.ended_at, scope.now)
    query = select(ChargingSession).options(selectinload(ChargingSession.station)).where(
        where, ChargingSession.status.in_(RUNS), ChargingSession.driver_id.is_(None),
        ChargingSession.started_at <= row.at + within, ends >= row.at - within,
    )  # fmt: skip
    away = func.abs(func.extract("epoch", ChargingSession.started_at) - row.at.timestamp())
    return (await scope.db.execute(query.order_by(away).limit(20))).scalars().all()


async def _is_open(scope: Scope, session: ChargingSession) -> bool:
    """Nobody is known to pay for it, and it is not settled yet."""
    if session.status not in RUNS or session.settled_at is not None or session.driver_id is not None:
        return False
    return await _is_free(scope, session.id)


async def _is_free(scope: Scope, session_id: UUID) -> bool:
    paid = await payments.find_payment(scope, "charging_session", session_id)
    return paid is None or await terminals.is_unheard(scope, paid)


# -- staff say ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session that it could be for; `gross_minor` what its CDR comes to, None while there is none."""

    session: ChargingSession
    gross_minor: int | None
    currency: str


async def list_candidates(scope: Scope, row: TerminalRecord) -> list[Candidate]:
    """Sessions where the terminal stands, within a day, that nobody paid; the nearest first."""
    terminal = await terminals.get_terminal(scope, row.terminal_id)
    where = ChargingSession.station_id.in_(_served(terminal))
    if row.evse_id is not None:
        where &= ChargingSession.evse_id == row.evse_id
    found = list[Candidate]()
    for session in await _near(scope, row, where, within=timedelta(days=1)):
        if await _is_free(scope, session.id):
            cdr = await settlement.find_cdr(scope, session.id)
            found.append(Candidate(session, cdr.incl_vat_minor if cdr else None,
                                   await currency_of(scope, session) or ""))  # fmt: skip
    return found


async def match(scope: Scope, record_id: UUID, session_id: UUID) -> Payment:
    """Staff know which session it paid. One that is settled gets its paper anew: the one that stands, if any, does not
    say that it was paid so."""
    row = await terminals.get_record(scope, record_id)
    await terminals.lock(scope, row.terminal_id)
    await service.lock_settling(scope, session_id)
    await scope.db.refresh(row)
    if not row.is_waiting:
        raise Refused("not_waiting", "This record was decided already.")
    session = await service.get_session(scope, session_id)
    if session.status not in RUNS or session.driver_id is not None:
        raise Refused("no_session", "This is no session that somebody could pay at a terminal.")
    if not await _is_free(scope, session.id):
        raise Refused("session_paid", "Another payment pays for this session.")
    currency = await currency_of(scope, session)
    if currency is None or currency != row.currency:
        raise Refused(
            "other_currency", "This session is priced in another currency than the card was charged in."
        )
    cdr = await settlement.find_cdr(scope, session.id) if session.settled_at is not None else None
    payment = await _open(scope, session, row.terminal, row.transaction_ref, currency)
    if cdr is not None:
        await _paper_anew(scope, cdr, payment)
    news = {"session": public_id("charging_session", session.id), "transaction": row.transaction_ref}
    await audit.record(scope, "terminal_record.matched", "terminal_record", row.id, news)
    return payment


async def _paper_anew(scope: Scope, cdr: CDR, payment: Payment) -> None:
    if cdr.collection == "monthly":
        raise Refused("session_paid", "This session goes on a monthly invoice.")
    await settlement.credit(scope, cdr.id, "Paid at a card terminal.", energy_wh=cdr.energy_wh)
    await payments.capture(
        scope, "charging_session", cdr.session_id, await settlement.papers_minor(scope, cdr.session_id)
    )


# -- OCPP 2.1 ----------------------------------------------------------------------------------------------------------


async def settlement_reported(
    scope: Scope,
    station_id: UUID,
    *,
    status: str,
    psp_ref: str,
    transaction_id: str,
    amount: Decimal,
    at: datetime,
) -> bool:
    """NotifySettlement: the station tells how its own terminal's payment ended. False where no terminal is known there.
    Of one that was canceled all of the hold is let go; a failed try settles nothing, and the papers say what lacks."""
    terminal = await terminals.find_serving(scope, station_id)
    if terminal is None:
        return False
    kind = {"Settled": "settled", "Canceled": "reversed"}.get(status)
    if kind == "reversed" and amount.is_finite() and amount <= 0:
        sums = terminals.add_up(await terminals.list_transaction(scope, terminal.id, psp_ref))
        amount = to_decimal(sums.held, await terminals.own_currency(scope))
    if kind is None or (amount.is_finite() and amount <= 0):
        return True
    record_ref = f"ocpp:{psp_ref}:{kind}"[:255]
    known = await terminals.find_record(scope, terminal.id, record_ref)
    at = known.at if known is not None else at  # told again it may bear a time of its own
    told = await read_told(scope, {
        "record_id": record_ref, "transaction_id": psp_ref, "kind": kind, "amount": f"{amount:f}",
        "at": at.isoformat(), "session": transaction_id,
    }, terminal)  # fmt: skip
    await take(scope, told)
    return True
