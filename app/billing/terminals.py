"""Card terminals of others at the operator's sites: what they and their acquirers tell is taken, and nobody is asked
(docs/decisions/0037).

Money that a record tells of lies at the acquirer (`terminal_clearing`) from then on, and is nobody's
(`terminal_unmatched`) until the transaction is a session's payment or staff dismiss it; the acquirer's payouts bring
the first to zero. Whose session it is decides `app.charging.terminal_sessions`.
Errors: `serial_taken`, `record_differs`, `already_settled`, `reversed_too_high`, `other_currency`,
`not_waiting`, `transaction_used`, `payout_known`, `payout_too_high`, Invalid of the fields.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import selectinload

from app.billing import ledger, payments
from app.billing.ledger import Posting
from app.billing.models import (
    AcquirerPayout,
    LedgerAccount,
    LedgerEntry,
    Payment,
    PaymentAccount,
    PaymentOp,
    PaymentTerminal,
    TerminalRecord,
)
from app.billing.provider import Observation
from app.brands.models import TenantProfile
from app.kernel import audit
from app.kernel.clock import uuid7
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused
from app.kernel.ids import public_id
from app.kernel.money import Money
from app.kernel.names import check_name
from app.stations.models import ChargingStation, Location
from tenants.scope import Scope

KINDS = ("authorized", "settled", "reversed")
FIELDS = ("name", "vendor", "serial", "acquirer", "contract_no")
LONGEST, LONGEST_REF = 100, 255
# An acquirer pays out within some working days; what is older should be in the bank.
PAID_WITHIN = timedelta(days=14)
_CLOCKS_DIFFER = timedelta(days=1)


# -- the terminals -----------------------------------------------------------------------------------------------------


async def register(
    scope: Scope, fields: Mapping[str, str], *, location_id: UUID | None, station_id: UUID | None
) -> PaymentTerminal:
    """`fields` of FIELDS. It serves the whole site, or with `station_id` that station alone."""
    values = {name: " ".join(fields.get(name, "").split()) for name in FIELDS}
    faults = [
        FieldFault(name, "required", f"In 1 to {LONGEST} characters.")
        for name, value in values.items()
        if not 0 < len(value) <= LONGEST
    ]
    location = await scope.db.get(Location, (scope.tenant_id, location_id)) if location_id else None
    if location is None:
        faults.append(FieldFault("location_id", "unknown", "Choose one of your sites."))
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id)) if station_id else None
    if station_id is not None and (station is None or location is None or station.location_id != location.id):
        faults.append(FieldFault("station_id", "unknown", "Choose a charger of that site."))
    if faults or location is None:
        raise Invalid("invalid", "This terminal cannot be saved.", faults=faults)
    values["name"] = check_name(values["name"])
    if await find_terminal(scope, values["serial"]) is not None:
        raise Refused("serial_taken", "A terminal with this serial number is registered already.")
    row = PaymentTerminal(
        id=uuid7(), location_id=location.id, station_id=station_id, created_at=scope.now, **values
    )
    scope.db.add(row)
    await scope.db.flush()
    await audit.record(scope, "terminal.registered", "payment_terminal", row.id, values)
    return row


async def retire(scope: Scope, terminal_id: UUID) -> PaymentTerminal:
    """It starts no session any more. What its acquirer still tells of its payments is taken."""
    row = await get_terminal(scope, terminal_id)
    if row.retired_at is None:
        row.retired_at = scope.now
        await audit.record(scope, "terminal.retired", "payment_terminal", row.id, {"serial": row.serial})
    return row


async def get_terminal(scope: Scope, terminal_id: UUID) -> PaymentTerminal:
    query = select(PaymentTerminal).where(PaymentTerminal.id == terminal_id).options(*_PLACE)
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None:
        raise NotFound("payment_terminal")
    return row


_PLACE = (selectinload(PaymentTerminal.location), selectinload(PaymentTerminal.station))


async def find_terminal(scope: Scope, serial: str) -> PaymentTerminal | None:
    query = select(PaymentTerminal).where(PaymentTerminal.serial == serial.strip()).options(*_PLACE)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def list_terminals(scope: Scope) -> list[PaymentTerminal]:
    """By name; retired ones last."""
    query = select(PaymentTerminal).options(*_PLACE)
    query = query.order_by(PaymentTerminal.retired_at.is_not(None), func.lower(PaymentTerminal.name))
    return list((await scope.db.execute(query)).scalars())


def serving(station_id: UUID) -> Select[UUID]:
    """Terminals that were ever registered for it: the one built into it, and those of its site."""
    return (
        select(PaymentTerminal.id)
        .join(ChargingStation, ChargingStation.location_id == PaymentTerminal.location_id)
        .where(
            ChargingStation.id == station_id,
            PaymentTerminal.station_id.is_(None) | (PaymentTerminal.station_id == station_id),
        )
    )


async def find_serving(scope: Scope, station_id: UUID) -> PaymentTerminal | None:
    """The one that is built into the station, else the one of its site; of several there the oldest."""
    query = (
        select(PaymentTerminal)
        .where(PaymentTerminal.id.in_(serving(station_id)), PaymentTerminal.retired_at.is_(None))
        .order_by(PaymentTerminal.station_id.is_(None), PaymentTerminal.id)
    )
    return (await scope.db.execute(query)).scalars().first()


# -- what is told ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A record as it came; see `TerminalRecord`."""

    terminal_id: UUID
    record_ref: str
    transaction_ref: str
    kind: str
    amount_minor: int
    currency: str
    at: datetime
    card: str = ""
    approval_code: str = ""
    evse_id: UUID | None = None
    session_ref: str = ""


@dataclass(frozen=True, slots=True)
class Sums:
    """What one card payment comes to, minor units: `held` at most, `taken`, and `back` of that."""

    held: int
    taken: int
    back: int
    is_void: bool = False

    @property
    def kept(self) -> int:
        return self.taken - self.back


def add_up(records: Sequence[Told | TerminalRecord]) -> Sums:
    """In whatever order they came (pure). A reversal before the settlement, by the terminal's clock, let a part of the
    hold go and moved no money; one after it gave money back. Of holds the largest counts: each tells the whole."""
    settled = next((one for one in records if one.kind == "settled"), None)
    held = max((one.amount_minor for one in records if one.kind == "authorized"), default=0)
    reversals = [one for one in records if one.kind == "reversed"]
    if settled is None:
        let_go = sum(one.amount_minor for one in reversals)
        return Sums(held, 0, 0, is_void=0 < held <= let_go)
    back = sum(one.amount_minor for one in reversals if one.at >= settled.at)
    return Sums(max(held, settled.amount_minor), settled.amount_minor, back)


def read(data: Mapping[str, Any], *, currency: str, now: datetime) -> dict[str, Any]:
    """The plain fields of a `Told` from what a person or an API sent: `record_id`, `transaction_id`, `kind`, `amount`,
    `currency` (else `currency`), `at`, `card` (masked), `approval_code`, `session`. Invalid with all its faults."""
    faults = list[FieldFault]()
    texts = dict[str, str]()
    for name, is_needed in (("record_id", True), ("transaction_id", True), ("kind", True), ("amount", True),
                            ("at", True), ("currency", False), ("card", False), ("approval_code", False),
                            ("session", False)):  # fmt: skip
        value = str(data.get(name) or "").strip()
        texts[name] = value
        if is_needed and not value:
            faults.append(FieldFault(name, "required", f"{name} is missing."))
        elif len(value) > LONGEST_REF or not value.isprintable():
            faults.append(FieldFault(name, "too_long", f"{name} has up to {LONGEST_REF} characters."))
    kind = texts["kind"].lower().replace("authorised", "authorized")
    if texts["kind"] and kind not in KINDS:
        faults.append(FieldFault("kind", "choice", f"kind is one of {', '.join(KINDS)}."))
    # A card's number in full may lie nowhere here (PCI DSS 3.4): the first six and the last four may.
    for name in ("card", "approval_code"):
        if len(re.sub(r"\D", "", texts[name])) > 10:
            faults.append(
                FieldFault(name, "not_masked", f"{name} has no more than ten digits: no card's number.")
            )
    code, minor, at = texts["currency"].upper() or currency, 0, now
    if texts["amount"]:
        try:
            minor = Money.parse(texts["amount"], code).amount_minor
        except ValueError as error:
            field = "currency" if str(error) == "currency" else "amount"
            faults.append(FieldFault(field, field, f"{field} is no such: an amount is written 12.34."))
        else:
            if minor <= 0:
                faults.append(
                    FieldFault("amount", "range", "amount is more than nothing; kind says which way.")
                )
    if texts["at"]:
        try:
            at = datetime.fromisoformat(texts["at"])
            if at.tzinfo is None or not datetime(2020, 1, 1, tzinfo=at.tzinfo) < at < now + _CLOCKS_DIFFER:
                raise ValueError
        except ValueError:
            faults.append(
                FieldFault("at", "time", "at is an RFC 3339 time with its offset, not in the future.")
            )
    if faults:
        raise Invalid("invalid", "This record cannot be taken.", faults=faults)
    return {
        "record_ref": texts["record_id"], "transaction_ref": texts["transaction_id"], "kind": kind,
        "amount_minor": minor, "currency": code, "at": at, "card": texts["card"],
        "approval_code": texts["approval_code"], "session_ref": texts["session"],
    }  # fmt: skip


async def own_currency(scope: Scope) -> str:
    return (await scope.db.execute(select(TenantProfile.currency))).scalar_one()


async def take(scope: Scope, told: Told) -> tuple[TerminalRecord, bool]:
    """The record, and whether it is new. The same told again is the one that stands (`record_differs` where it says
    something else now); its money is in the books from here on."""
    await lock(scope, told.terminal_id)
    known = await find_record(scope, told.terminal_id, told.record_ref)
    if known is not None:
        if _content(known) != _content(told):
            raise Refused("record_differs", f"Record {told.record_ref} was told before, and otherwise.")
        return known, False
    before = await list_transaction(scope, told.terminal_id, told.transaction_ref)
    if told.kind == "settled":  # station and acquirer tell of the same one, each under a number of its own
        for one in before:
            if (one.kind, one.amount_minor, one.currency) == (told.kind, told.amount_minor, told.currency):
                return one, False
    _check(told, before)
    terminal = await get_terminal(scope, told.terminal_id)
    row = TerminalRecord(
        id=uuid7(), told_by=scope.actor.name, created_at=scope.now, payment_id=None, dismissed_at=None, note="",
        decided_by="", **{name: getattr(told, name) for name in Told.__dataclass_fields__},
    )  # fmt: skip
    payment_id = None
    if not before:  # a station may have presented it before anything was told of it
        row.payment_id = payment_id = await _find_presented(scope, told)
    else:  # whose the others are, it is too
        first = before[0]
        row.payment_id = payment_id = first.payment_id
        row.dismissed_at, row.note, row.decided_by = first.dismissed_at, first.note, first.decided_by
    scope.db.add(row)
    await scope.db.flush()
    moved = add_up([*before, told]).kept - add_up(before).kept
    party = public_id("payment_terminal", terminal.id)
    kind = "terminal_settled" if moved > 0 else "terminal_reversed"
    await ledger.post(scope, kind, "terminal_record", row.id, scope.now, [
        Posting("terminal_clearing", moved, told.currency, terminal.contract),
        Posting("terminal_unmatched", -moved, told.currency, party),
    ])  # fmt: skip
    if row.dismissed_at is not None:
        await _post_dismissed(scope, terminal, row.id, moved, told.currency)
    if payment_id is not None:
        await _tell_payment(scope, payment_id)
    scope.publish("terminal_records", {"what": told.kind})
    return row, True


async def find_record(scope: Scope, terminal_id: UUID, record_ref: str) -> TerminalRecord | None:
    query = select(TerminalRecord).filter_by(terminal_id=terminal_id, record_ref=record_ref)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def _find_presented(scope: Scope, told: Told) -> UUID | None:
    query = select(Payment.id).where(
        Payment.account_ref == public_id("payment_terminal", told.terminal_id),
        Payment.provider_ref == told.transaction_ref, Payment.currency == told.currency,
    )  # fmt: skip
    return (await scope.db.execute(query)).scalar_one_or_none()


def _content(one: Told | TerminalRecord) -> tuple[Any, ...]:
    return one.transaction_ref, one.kind, one.amount_minor, one.currency, one.at


def _check(told: Told, before: Sequence[TerminalRecord]) -> None:
    if any(one.currency != told.currency for one in before):
        raise Refused("other_currency", f"Transaction {told.transaction_ref} was told in another currency.")
    if told.kind == "settled" and any(one.kind == "settled" for one in before):
        raise Refused("already_settled", f"Transaction {told.transaction_ref} is settled already.")
    sums = add_up([*before, told])
    if sums.back > sums.taken:
        raise Refused("reversed_too_high", "More would be given back than was settled.")


async def lock(scope: Scope, what: UUID | str) -> None:
    """What one terminal tells is taken one after the other; so are the payouts of a contract."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext(:terminal))"),
        {"tenant": str(scope.tenant_id), "terminal": f"terminal:{what}"},
    )


async def list_transaction(scope: Scope, terminal_id: UUID, transaction_ref: str) -> list[TerminalRecord]:
    """All that was told of one card payment, in the order it came."""
    query = select(TerminalRecord).filter_by(terminal_id=terminal_id, transaction_ref=transaction_ref)
    return list((await scope.db.execute(query.order_by(TerminalRecord.id))).scalars())


async def get_record(scope: Scope, record_id: UUID) -> TerminalRecord:
    query = select(TerminalRecord).where(TerminalRecord.id == record_id).options(*_TERMINAL)
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None:
        raise NotFound("terminal_record")
    return row


_TERMINAL = (
    selectinload(TerminalRecord.terminal).options(*_PLACE), selectinload(TerminalRecord.evse),
)  # fmt: skip


async def list_records(
    scope: Scope, *, is_waiting: bool = False, after: UUID | None = None, limit: int = 50
) -> list[TerminalRecord]:
    """Newest first."""
    query = select(TerminalRecord).options(*_TERMINAL).order_by(TerminalRecord.id.desc()).limit(limit)
    if is_waiting:
        query = query.where(TerminalRecord.payment_id.is_(None), TerminalRecord.dismissed_at.is_(None))
    if after is not None:
        query = query.where(TerminalRecord.id < after)
    return list((await scope.db.execute(query)).scalars())


async def count_waiting(scope: Scope) -> int:
    """Card payments that wait for staff, however many records tell of each."""
    waiting = select(TerminalRecord.terminal_id, TerminalRecord.transaction_ref).where(
        TerminalRecord.payment_id.is_(None), TerminalRecord.dismissed_at.is_(None)
    )  # fmt: skip
    query = select(func.count()).select_from(waiting.distinct().subquery())
    return int((await scope.db.execute(query)).scalar_one())


# -- whose it is -------------------------------------------------------------------------------------------------------


async def open_payment(
    scope: Scope, source_type: str, source_id: UUID, terminal: PaymentTerminal, transaction_ref: str, *,
    currency: str, language: str,
) -> Payment:  # fmt: skip
    """The source is paid by that transaction, whatever was told of it so far. Twice is once; a transaction pays for one
    source."""
    await lock(scope, terminal.id)
    standing = await payments.find_payment(scope, source_type, source_id)
    if standing is not None and not await is_unheard(scope, standing):
        return standing
    if standing is not None and standing.provider_ref != transaction_ref:
        # A terminal that presents one token for all its cards: now it is known which card it was.
        known = select(Payment.id).filter_by(account_ref=standing.account_ref, provider_ref=transaction_ref)
        if (await scope.db.execute(known)).first() is not None:
            raise Refused(*_used(transaction_ref))
        standing.provider_ref = transaction_ref
        await scope.db.flush()
    if standing is not None:
        return await _join(scope, standing.id, terminal, transaction_ref, currency)
    statement = (
        upsert(Payment)
        .values(
            id=uuid7(), source_type=source_type, source_id=source_id, provider=payments.TERMINAL,
            account_ref=public_id("payment_terminal", terminal.id), provider_ref=transaction_ref, state="created",
            currency=currency, is_live=await _is_live(scope), created_at=scope.now,
        )
        .on_conflict_do_nothing()
        .returning(Payment.id)
    )  # fmt: skip
    payment_id = (await scope.db.execute(statement)).scalar_one_or_none()
    if payment_id is None:
        raise Refused(*_used(transaction_ref))
    scope.db.add(PaymentOp(
        id=uuid7(), payment_id=payment_id, kind="terminal_told", idem_key=f"trm:{payment_id}", state="succeeded",
        request={"terminal": terminal.serial, "language": language}, created_at=scope.now, updated_at=scope.now,
    ))  # fmt: skip
    await scope.db.flush()
    return await _join(scope, payment_id, terminal, transaction_ref, currency)


def _used(transaction_ref: str) -> tuple[str, str]:
    return "transaction_used", f"Transaction {transaction_ref} pays for another session already."


async def is_unheard(scope: Scope, payment: Payment) -> bool:
    """A terminal presented it, and nothing was told of it: it may turn out to be another card payment."""
    if payment.provider != payments.TERMINAL or payment.state != "created":
        return False
    query = select(TerminalRecord.id).where(TerminalRecord.payment_id == payment.id).limit(1)
    return (await scope.db.execute(query)).first() is None


async def _join(
    scope: Scope, payment_id: UUID, terminal: PaymentTerminal, transaction_ref: str, currency: str
) -> Payment:
    """What was told of the transaction is that payment's."""
    found = await list_transaction(scope, terminal.id, transaction_ref)
    if any(one.dismissed_at is not None for one in found):
        raise Refused("not_waiting", "Staff decided already that this card payment is no session's.")
    if any(one.currency != currency for one in found):
        raise Refused(
            "other_currency", "This session is priced in another currency than the card was charged in."
        )
    for one in found:
        one.payment_id = payment_id
    await scope.db.flush()
    if found:
        await _tell_payment(scope, payment_id)
    return await payments.get_payment(scope, payment_id)


async def _is_live(scope: Scope) -> bool:
    """Terminals take real money, but for a brand that only plays with the sandbox."""
    return not scope.settings.uses_sandbox or (
        await scope.db.execute(select(PaymentAccount.id).where(PaymentAccount.is_live).limit(1))
    ).first() is not None  # fmt: skip


async def _tell_payment(scope: Scope, payment_id: UUID) -> None:
    """What all its records come to is what is so."""
    payment = await payments.lock(scope, payment_id)
    query = select(TerminalRecord).where(TerminalRecord.payment_id == payment_id).order_by(TerminalRecord.id)
    records = list((await scope.db.execute(query)).scalars())
    sums = add_up(records)
    state = (
        "captured" if sums.taken else "canceled" if sums.is_void else "authorized" if sums.held else "created"
    )
    payment.observed_at = scope.now
    await payments.apply(scope, payment, Observation(
        provider_ref=payment.provider_ref or "", state=state, hold_minor=sums.held, captured_minor=sums.taken,
        refunded_minor=sums.back, method=next((one.card for one in reversed(records) if one.card), ""),
        is_live=payment.is_live,
    ))  # fmt: skip


async def dismiss(scope: Scope, record_id: UUID, note: str) -> TerminalRecord:
    """It is no session's, nor is anything else of its transaction: what it brought is other income, for the books of
    the operator to judge. `not_waiting`, Invalid of `note`."""
    note = note.strip()[:500]
    if not note:
        raise Invalid.field("note", "required", "Say in a sentence what it was for.")
    row = await get_record(scope, record_id)
    await lock(scope, row.terminal_id)
    await scope.db.refresh(row, ["payment_id", "dismissed_at"])
    if not row.is_waiting:
        raise Refused("not_waiting", "This record was decided already.")
    found = await list_transaction(scope, row.terminal_id, row.transaction_ref)
    for one in found:
        one.dismissed_at, one.note, one.decided_by = scope.now, note, scope.actor.name
    await _post_dismissed(scope, row.terminal, row.id, add_up(found).kept, row.currency)
    await audit.record(
        scope, "terminal_record.dismissed", "terminal_record", row.id,
        {"transaction": row.transaction_ref, "amount_minor": add_up(found).kept, "currency": row.currency,
         "note": note},
    )  # fmt: skip
    return row


async def _post_dismissed(
    scope: Scope, terminal: PaymentTerminal, record_id: UUID, minor: int, currency: str
) -> None:
    await ledger.post(scope, "terminal_dismissed", "terminal_record", record_id, scope.now, [
        Posting("terminal_unmatched", minor, currency, public_id("payment_terminal", terminal.id)),
        Posting("other_income", -minor, currency),
    ])  # fmt: skip


# -- the acquirer pays -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clearing:
    """What an acquirer owes for a contract; `stale_minor` of it since before PAID_WITHIN."""

    contract: str
    currency: str
    owed_minor: int
    stale_minor: int


async def list_clearing(scope: Scope) -> list[Clearing]:
    """By contract, those that ever moved. What came first is paid first."""
    amount, is_payout = LedgerEntry.amount_minor, ledger.LedgerTxn.kind == "acquirer_paid"
    due = is_payout | (ledger.LedgerTxn.effective_at < scope.now - PAID_WITHIN) | (amount < 0)
    query = (
        select(
            LedgerAccount.party, LedgerAccount.currency, func.sum(amount),
            func.coalesce(func.sum(amount).filter(due), 0),
        )
        .join(LedgerEntry, LedgerEntry.account_id == LedgerAccount.id)
        .join(ledger.LedgerTxn, ledger.LedgerTxn.id == LedgerEntry.txn_id)
        .where(LedgerAccount.code == "terminal_clearing")
        .group_by(LedgerAccount.party, LedgerAccount.currency)
        .order_by(LedgerAccount.party, LedgerAccount.currency)
    )  # fmt: skip
    return [
        Clearing(party, currency, int(owed), max(int(stale), 0))
        for party, currency, owed, stale in (await scope.db.execute(query)).all()
    ]


async def record_payout(
    scope: Scope, *, contract: str, currency: str, amount: str, fee: str, paid_on: str, reference: str
) -> AcquirerPayout:
    """As the acquirer's statement says: `amount` arrived in the bank, `fee` it kept of what it owed. Below 0 where more
    was given back than taken: then the acquirer collected it."""
    faults, minors = list[FieldFault](), dict[str, int]()
    for field, value in (("amount", amount), ("fee", fee or "0")):
        try:
            minors[field] = Money.parse(value.strip(), currency).amount_minor
        except ValueError:
            faults.append(FieldFault(field, "amount", "An amount such as 120.50."))
    if minors.get("fee", 0) < 0:
        faults.append(FieldFault("fee", "amount", "An amount such as 1.50."))
    try:
        day = date.fromisoformat(paid_on.strip())
    except ValueError:
        day = None
    if day is None or day > scope.now.date() + _CLOCKS_DIFFER:
        faults.append(FieldFault("paid_on", "day", "The day on which it arrived."))
    reference = reference.strip()
    if not 0 < len(reference) <= LONGEST:
        faults.append(
            FieldFault("reference", "required", f"The statement's own, in up to {LONGEST} characters.")
        )
    await lock(scope, contract)
    owed = {(one.contract, one.currency): one.owed_minor for one in await list_clearing(scope)}
    if (contract, currency) not in owed:
        faults.append(FieldFault("contract", "unknown", "Choose a contract that has brought money."))
    if faults or day is None:
        raise Invalid("invalid", "This payout cannot be booked.", faults=faults)
    total = minors["amount"] + minors["fee"]
    most = owed[contract, currency]
    if not (0 < total <= most or most <= total < 0):
        what = f"This acquirer {'owes' if most >= 0 else 'is owed'} {Money(abs(most), currency).format()}"
        raise Refused(
            "payout_too_high", f"{what} by what its terminals told: are records missing? Take them in first."
        )
    statement = upsert(AcquirerPayout).values(
        id=uuid7(), contract=contract, reference=reference, paid_on=day, amount_minor=minors["amount"],
        fee_minor=minors["fee"], currency=currency, recorded_by=scope.actor.name, created_at=scope.now,
    )  # fmt: skip
    statement = statement.on_conflict_do_nothing().returning(AcquirerPayout)
    row = (await scope.db.execute(statement)).scalar_one_or_none()
    if row is None:
        raise Refused("payout_known", "A payout with this reference is booked already.")
    await ledger.post(scope, "acquirer_paid", "acquirer_payout", row.id, scope.now, [
        Posting("bank", row.amount_minor, currency), Posting("acquirer_fee", row.fee_minor, currency),
        Posting("terminal_clearing", -total, currency, contract),
    ])  # fmt: skip
    await audit.record(
        scope, "acquirer_payout.recorded", "acquirer_payout", row.id,
        {"contract": contract, "reference": reference, "amount_minor": row.amount_minor, "fee_minor": row.fee_minor,
         "currency": currency},
    )  # fmt: skip
    return row


async def list_payouts(scope: Scope, limit: int = 20) -> list[AcquirerPayout]:
    """Newest first."""
    query = select(AcquirerPayout).order_by(AcquirerPayout.id.desc()).limit(limit)
    return list((await scope.db.execute(query)).scalars())
