"""The invariants of money, asked of a tenant's books, its payments and the provider's own side once nothing is due.

| what always holds | asserted in |
| --- | --- |
| I1 postings balance, and so does everything | `book_faults`; the database's own trigger in `test_invoices.py` |
| I2 a CDR stands on one paper; what is paid, waived and waits makes its gross | `cdr_faults`, `paper_faults` |
| I2 a wallet holds what came into it less what went, never less than what it keeps | `wallet_faults` |
| I2 what is left of a code is owed, and no more of it is spent | `voucher_faults` |
| I3 taken <= held, here and at the provider | `payment_faults`, `provider_faults` |
| I4 given back <= taken, here and at the provider | `payment_faults`, `provider_faults` |
| I5 fee <= taken | `payment_faults` |
| I6 numbers are 1..n and chain | `book_faults`; by force in `test_numbers_by_force.py` |
| I7 what is known follows from the provider's objects alone; all news again, in any order, change nothing | |
| | `provider_faults` (from an empty projection), `replay_faults` |
| I8 no row of the books ever changes | `Unchanged`; refused by the database in `test_invoices.py` |
| I9 no call that moves money without its `payment_op`, committed and sent, under that op's key | `WatchedWire` |
| I10 nobody owes anything that was settled, but for what a saved card did not pay, and for papers without payment |
| | `book_faults` |
| I11 a tenant's calls and objects are its own account's | `WatchedWire`, `account_faults` |
| I12 one capture per session, whoever dies | `provider_faults`; the matrix of `tests/charging/test_crashes.py` |
| I13 the books say what the provider's balance says | `book_faults` |
| I14 the price is the one of the beginning | `tests/charging/crashes.py`, `test_money_machine.py`: edited on the way |
| I15 no hold outlives its time, nor its session by a day | `payment_faults` |

Functions answer with sentences about what is wrong; none when all is well.
"""

import json
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from app.billing import host_shares, payments, sandbox, terminals, vouchers, wallets
from app.billing import service as billing
from app.billing.models import (
    AcquirerPayout,
    Invoice,
    InvoiceLine,
    Payment,
    PaymentOp,
    TerminalRecord,
    VoucherBatch,
)  # fmt: skip
from app.charging.models import CDR, ChargingSession
from app.kernel.clock import utcnow
from app.kernel.ids import public_id
from tenants.database import Database
from tenants.scope import Scope
from tests.billing.stripe_contract import ContractWire

AT_PROVIDER = ("psp_pending", "psp_available")  # together what the account's balance shows
APPEND_ONLY = ("ledger_txn", "ledger_entry", "invoice", "invoice_line")
WITHOUT_MONEY = ("failed", "expired", "canceled")
OF_PLATFORM = re.compile(r"(transfers|application_fees)(/|$)")
MOVES_MONEY = re.compile(r"POST /v1/(checkout/sessions|payment_intents|refunds)")


class WatchedWire(ContractWire):
    """Holds I9 and I11 at each call: the op that asks is committed as `sent`, and the account is its payment's own.

    `of_the_dashboard` are keys of what an operator does at the provider itself.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.faults: list[str] = []
        self.of_the_dashboard: set[str] = set()
        self.tenants: dict[str, UUID] = {}  # of accounts

    async def request_with_retries_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None, *_: Any, **__: Any
    ) -> tuple[str, int, Mapping[str, str]]:
        path = url.split("?")[0].partition("/v1/")[2]
        account, key = headers.get("Stripe-Account", ""), headers.get("Idempotency-Key", "")
        if not account and OF_PLATFORM.match(path):
            if method.upper() == "POST":
                await self._check_op(f"{method} {path}", None, key)
        elif path and account not in self.tenants:
            self.faults.append(f"{method} {path} of an unknown account {account!r}")
        elif MOVES_MONEY.match(f"{method.upper()} /v1/{path}") and key not in self.of_the_dashboard:
            await self._check_op(f"{method} {path}", account, key)
        return await super().request_with_retries_async(method, url, headers, post_data)

    async def _check_op(self, what: str, account: str | None, key: str) -> None:
        """`account` None: of the platform itself, for a payment of any."""
        query = text("select o.state, p.account_ref from livery.payment_op o"
                     " join livery.payment p on p.tenant_id = o.tenant_id and p.id = o.payment_id"
                     " where o.idem_key = :key or o.idem_key || ':' || o.n = :key"
                     " union all select 'sent', y.account_ref from livery.saved_card c"
                     " join livery.payer y on y.tenant_id = c.tenant_id and y.id = c.payer_id"
                     " where c.state = 'pending' and :key like 'setup:' || c.id || '%'")  # fmt: skip
        found = list[tuple[str, str]]()
        for tenant_id in set(self.tenants.values()) if account is None else [self.tenants[account]]:
            async with self.database.scope(tenant_id, payments.ACTOR) as scope:
                found += [(row[0], row[1]) for row in await scope.db.execute(query, {"key": key})]
        if [state for state, _of in found] != ["sent"] or account not in (None, found[0][1]):
            self.faults.append(f"{what} under {key}: its op is {found}")


@dataclass
class Unchanged:
    """I8: remembers each row of the books it has seen; a row may come, none may change or go."""

    known: dict[tuple[str, UUID, UUID], str] = field(default_factory=dict)

    async def faults(self, scope: Scope) -> list[str]:
        found: dict[tuple[str, UUID, UUID], str] = {}
        for table in APPEND_ONLY:
            rows = await scope.db.execute(text(f"select id, md5(t::text) as mark from livery.{table} t"))  # noqa: S608
            found |= {(table, scope.tenant_id, row.id): row.mark for row in rows}
        ours = {key: mark for key, mark in self.known.items() if key[1] == scope.tenant_id}
        changed = [key for key, mark in ours.items() if found.get(key) != mark]
        self.known |= found
        return [f"a row of {table} is not what it was: {row_id}" for table, _tenant, row_id in changed]


async def money_faults(
    database: Database, tenant_id: UUID, *, now: datetime, only: Collection[UUID] | None = None
) -> list[str]:
    """All but I8, I9 and I14. `only` these payments are looked at one by one; the books are one whole."""
    async with database.scope(tenant_id, payments.ACTOR, now=now) as scope:
        found = await book_faults(scope, database)
        known = list((await scope.db.execute(select(Payment).order_by(Payment.id))).scalars())
        found += await account_faults(scope, database, known)
    for payment in known:
        if only is None or payment.id in only:
            found += await payment_faults(database, tenant_id, payment.id, now)
    return found


async def book_faults(scope: Scope, database: Database) -> list[str]:
    """I1, I2 of wallets, I6, I10, I13."""
    found = [f"posting {one} does not balance" for one in await billing.unbalanced_postings(scope)]
    found += [f"series {one} is broken" for one in await billing.find_broken_series(scope)]
    books = await balances(scope)
    sums: dict[str, int] = {}
    for (_code, currency), minor in books.items():
        sums[currency] = sums.get(currency, 0) + minor
    found += [f"the books come to {minor} {currency}" for currency, minor in sums.items() if minor]
    unpapered = sum(minor for _payment, minor in await payments.list_unpapered(scope, limit=10_000))
    refused = sum(minor for _payment, minor in await payments.list_refused_refunds(scope, limit=10_000))
    owed = sum(minor for (code, _currency), minor in books.items() if code == "driver_receivable")
    due = sum(minor for _payment, minor in await payments.list_due(scope))
    ahead = await taken_ahead(scope)
    short = sum(minor for _payment, minor in await payments.list_short(scope, limit=10_000))
    papers = select(Invoice.gross_minor).where(Invoice.buyer["payment"].astext.is_(None))
    invoiced = sum((await scope.db.execute(papers)).scalars())
    if owed != unpapered - refused + due - ahead + invoiced + short:
        found.append(
            f"drivers owe {owed}, given back without paper {unpapered}, refused {refused}, due {due}, ahead {ahead},"
            f" invoiced {invoiced}, short {short}"
        )
    found += await wallet_faults(scope, books)
    found += await voucher_faults(scope)
    found += await terminal_faults(scope, books)
    account = await payments.find_account(scope)
    shown = await provider_balance(database, account.account_ref) if account else {}
    booked = {
        currency: sum(minor for (code, of), minor in books.items() if code in AT_PROVIDER and of == currency)
        for _code, currency in books
    }
    if {one: minor for one, minor in booked.items() if minor} != {
        one: minor for one, minor in shown.items() if minor
    }:
        found.append(f"the books say {booked} lies at the provider, its balance is {shown}")
    return found


async def terminal_faults(scope: Scope, books: dict[tuple[str, str], int]) -> list[str]:
    """What lies at acquirers is what terminals told less what was paid out; nobody's is what waits for staff."""
    query = select(TerminalRecord).order_by(TerminalRecord.id)
    told: dict[tuple[UUID, str], list[TerminalRecord]] = {}
    for row in (await scope.db.execute(query)).scalars():
        told.setdefault((row.terminal_id, row.transaction_ref), []).append(row)
    clearing: dict[str, int] = {}
    unmatched: dict[str, int] = {}
    for rows in told.values():
        currency, kept = rows[0].currency, terminals.add_up(rows).kept
        clearing[currency] = clearing.get(currency, 0) + kept
        if rows[0].is_waiting:
            unmatched[currency] = unmatched.get(currency, 0) - kept
    for one in (await scope.db.execute(select(AcquirerPayout))).scalars():
        clearing[one.currency] = clearing.get(one.currency, 0) - one.amount_minor - one.fee_minor
    found = []
    for code, wanted in (("terminal_clearing", clearing), ("terminal_unmatched", unmatched)):
        booked = {currency: minor for (of, currency), minor in books.items() if of == code and minor}
        if booked != {currency: minor for currency, minor in wanted.items() if minor}:
            found.append(f"{code} is {booked}, terminals told {wanted}")
    return found


async def taken_ahead(scope: Scope) -> int:
    """What was taken on the way of sessions that are not settled yet, less what went back: nobody owes it so far."""
    query = (
        select(Payment)
        .join(ChargingSession, ChargingSession.id == Payment.source_id)
        .where(ChargingSession.settled_at.is_(None), Payment.captured_minor > 0)
    )
    return sum([await payments.kept_minor(scope, leg) for leg in (await scope.db.execute(query)).scalars()])


async def balances(scope: Scope) -> dict[tuple[str, str], int]:
    query = text("select a.code, e.currency, sum(e.amount_minor)::bigint as total from livery.ledger_entry e"
                 " join livery.ledger_account a on a.tenant_id = e.tenant_id and a.id = e.account_id"
                 " group by a.code, e.currency")  # fmt: skip
    return {(row.code, row.currency): row.total for row in await scope.db.execute(query)}


async def wallet_faults(scope: Scope, books: Mapping[tuple[str, str], int]) -> list[str]:
    """I2: each wallet holds what came into it less what went, as payments, gifts and vouchers tell it, and no less than
    what sessions keep of it and what is on its way back; all of them come to what the brand owes."""
    query = text("""
        select driver_id, currency, sum(minor)::bigint as minor from (
          select source_id as driver_id, currency, captured_minor - refunded_minor - repaid_minor
                 - case when dispute = 'lost' then disputed_minor else 0 end as minor
            from livery.payment where source_type = 'wallet'
          union all select d.id, p.currency, p.refunded_minor - p.captured_minor
            from livery.payment p join livery.driver d on d.tenant_id = p.tenant_id and d.id = :id
           where p.provider = 'wallet' and p.account_ref = :party
          union all select driver_id, currency, amount_minor from livery.wallet_credit
          union all select driver_id, currency, amount_minor from livery.voucher_redemption
        ) moved where driver_id = :id group by 1, 2""")
    found, total = list[str](), 0
    for driver_id in (await scope.db.execute(text("select id from livery.driver"))).scalars():
        wallet, party = await wallets.get_wallet(scope, driver_id), public_id("driver", driver_id)
        rows = await scope.db.execute(query, {"id": driver_id, "party": party})
        told = {row.currency: row.minor for row in rows}.get(wallet.currency, 0)
        total += wallet.balance_minor
        if wallet.balance_minor != told:
            found.append(f"the wallet {party} holds {wallet.balance_minor}, into it went {told}")
        if wallet.balance_minor < wallet.kept_minor + wallet.frozen_minor:
            found.append(
                f"of a wallet's {wallet.balance_minor}, {wallet.kept_minor + wallet.frozen_minor} are kept"
            )
    owed = -sum(minor for (code, _currency), minor in books.items() if code == "wallet_liability")
    return found + ([f"wallets hold {total}, the books owe {owed}"] if owed != total else [])


async def voucher_faults(scope: Scope) -> list[str]:
    """I2: nothing is spent of a code that was not on it, none that was revoked is owed once its sessions are over, and
    what is left of a batch's codes, with what sessions hold of them, is what the books owe for it."""
    found = list[str]()
    for batch in (await scope.db.execute(select(VoucherBatch))).scalars():
        rows = await vouchers.list_vouchers(scope, batch.id)
        left = await vouchers.left_of(scope, batch, [row.id for row in rows])
        (seen,) = await vouchers.look(scope, [batch])
        found += [
            f"of code {key} {one} is left" for key, one in left.items() if min(one.minor, one.held_minor) < 0
        ]
        told = sum(one.minor + one.held_minor for one in left.values())
        if told != seen.owed_minor:
            found.append(f"codes of {batch.name} come to {told}, the books owe {seen.owed_minor}")
    return found


async def provider_balance(database: Database, account_ref: str) -> dict[str, int]:
    """Per currency, from the account's balance transactions: what they bring, less what is kept of it."""
    query = text("select upper(body->>'currency') as currency, sum((body->>'net')::bigint)::bigint as net from"
                 " sandbox.object where kind = 'balance_transaction' and account = :account group by 1")  # fmt: skip
    async with database.sandbox() as db:
        return {row.currency: row.net for row in await db.execute(query, {"account": account_ref})}


async def account_faults(scope: Scope, database: Database, known: Collection[Payment]) -> list[str]:
    """I11: what carries the tenant's mark lies in its own account, and its account holds nothing else."""
    account = await payments.find_account(scope)
    query = text("select account, body->'metadata'->>'tenant' as tenant, count(*) as n from sandbox.object"
                 " where kind = 'payment_intent' group by 1, 2")  # fmt: skip
    async with database.sandbox() as db:
        rows = (await db.execute(query)).all()
    own = account.account_ref if account else None
    found = [
        f"{row.n} payments of tenant {row.tenant} in account {row.account}"
        for row in rows
        if (row.account == own) != (row.tenant == str(scope.tenant_id))
    ]
    return found + [
        f"{one.id} is of account {one.account_ref}"
        for one in known
        if one.account_ref != own and one.provider not in payments.OWN
    ]


async def payment_faults(database: Database, tenant_id: UUID, payment_id: UUID, now: datetime) -> list[str]:
    """I2 to I5, I7, I12, I15 of one payment, and of its session's CDRs."""
    async with database.scope(tenant_id, payments.ACTOR, now=now) as scope:
        payment = await payments.get_payment(scope, payment_id)
        found = await paper_faults(scope, payment)
        session = await scope.db.get(ChargingSession, (tenant_id, payment.source_id))
        if session is not None:
            found += await cdr_faults(scope, session)
    if (
        not 0
        <= payment.refunded_minor + payment.disputed_minor
        <= payment.captured_minor
        <= payment.hold_minor
    ):
        found.append(
            f"held {payment.hold_minor}, taken {payment.captured_minor}, back {payment.refunded_minor}"
        )
    found += await host_faults(database, payment)
    if payment.fee_minor > payment.captured_minor:
        found.append(f"a fee of {payment.fee_minor} for {payment.captured_minor}")
    found += await provider_faults(database, payment)
    stands = payment.state in ("authorized", "capturing")
    if payment.provider == payments.TERMINAL:  # its acquirer settles when it does: `terminal_faults`
        return [f"payment {payment.id} ({payment.state}): {one}" for one in found]
    if stands and payment.capture_before is not None and payment.capture_before < now - timedelta(hours=2):
        found.append(f"{payment.state} since before {payment.capture_before}")
    over = session.ended_at if session is not None else None
    if (
        (stands or (payment.state in payments.OPEN and not payment.is_due))
        and over is not None
        and over < now - timedelta(days=1)
    ):
        found.append(f"{payment.state} more than a day after its session")
    return [f"payment {payment.id} ({payment.state}): {one}" for one in found]


async def host_faults(database: Database, payment: Payment) -> list[str]:
    """A site host's share is with the platform, with the host or with the operator again, as the provider has it."""
    if not payment.host_party:
        return []
    async with database.scope(payment.tenant_id, payments.ACTOR) as scope:
        query = select(PaymentOp).where(
            PaymentOp.payment_id == payment.id, PaymentOp.kind.in_(payments.HOST_OPS)
        )
        ops = list((await scope.db.execute(query.order_by(PaymentOp.id))).scalars())
    at = host_shares.position(payment, ops)
    query = text(
        "select (body->>'amount')::int - (body->>'amount_reversed')::int as net, body->>'destination' as to"
        " from sandbox.object where kind = 'transfer' and body->>'transfer_group' = :mark"
    )
    async with database.sandbox() as db:
        sent = [(row.to, row.net) for row in await db.execute(query, {"mark": f"payment_{payment.id}"})]
    told = [(payment.host_account_ref, at.at_host_minor)] if at.transfer == "made" else []
    found = [f"passed on {sent}, known is {told}"] if sent != told else []
    if min(at.held_minor, at.at_host_minor, at.given_back_minor) < 0:
        found.append(f"of a share's {at.share_minor}: {at}")
    return found


async def provider_faults(database: Database, payment: Payment) -> list[str]:
    """The provider's own objects: one capture of what was held; and all that is known follows from them (I7)."""
    if payment.provider_ref is None or payment.provider in payments.OWN:
        return []
    query = text("select body from sandbox.object where account = :account and (kind = 'charge'"
                 " and body->>'payment_intent' = :intent or kind = 'balance_transaction' and body->>'type' = 'charge'"
                 " and body->>'source' in (select id from sandbox.object where kind = 'charge'"
                 " and body->>'payment_intent' = :intent))")  # fmt: skip
    values = {"account": payment.account_ref, "intent": payment.provider_ref}
    async with database.sandbox() as db:
        bodies = [row.body for row in await db.execute(query, values)]
    charges = [body for body in bodies if body["object"] == "charge"]
    taken = [body["amount"] for body in bodies if body["object"] == "balance_transaction"]
    found = []
    if taken != ([payment.captured_minor] if payment.captured_minor else []):
        found.append(f"the provider took {taken}, known is {payment.captured_minor}")
    for charge in charges:
        back = (
            charge["amount_refunded"] - (charge["amount"] - charge["amount_captured"])
            if charge["captured"]
            else 0
        )
        if not (back <= charge["amount_captured"] <= charge["amount"] and back == payment.refunded_minor):
            found.append(f"the provider gave {back} back, known is {payment.refunded_minor}")
    seen = await payments.provider_of(database.settings).get_payment(
        payment.account_ref, payment.provider_ref
    )
    again = payments.merge(payments.Known(state="created"), seen)
    names = [name for name in payments.Known.__dataclass_fields__ if name not in ("state", "failure")]
    differs = {name: (getattr(payment, name), getattr(again, name)) for name in names}
    differs = {name: pair for name, pair in differs.items() if pair[0] != pair[1]}
    if payment.state != again.state and not {payment.state, again.state} <= {*WITHOUT_MONEY}:
        differs["state"] = (payment.state, again.state)
    return [*found, f"from nothing it would be {differs}"] if differs else found


async def paper_faults(scope: Scope, payment: Payment) -> list[str]:
    """I2: gross of the papers = what is paid + what is waived - what waits to be given back, over all legs; and each
    leg's own share of them is right. What fills a wallet is no supply and has no paper."""
    if payment.source_type == payments.WALLET:
        return []
    legs = await payments.legs_beside(scope, payment)
    session = await scope.db.get(ChargingSession, (scope.tenant_id, payment.source_id))
    if len(legs) > 1 and session is not None and session.status == "ACTIVE":
        return []  # what was taken on the way has no paper yet
    found = []
    shown = Invoice.buyer["payment"].astext == public_id("payment", legs[0].id)
    papers = sum((await scope.db.execute(select(Invoice.gross_minor).where(shown))).scalars())
    shares = {leg.id: await payments.owed_minor(scope, leg) for leg in legs}
    if sum(shares.values()) != papers:
        found.append(f"papers {papers}, and the legs' shares are {list(shares.values())}")
    for leg in legs:
        settled, back = await payments.find_settled(scope, leg), await payments.find_back(scope, leg)
        assert settled is not None
        is_over = leg.state in (*payments.TAKEN, *WITHOUT_MONEY)
        waits = back.refused_minor + back.on_its_way_minor - await payments.find_short(scope, leg)
        if is_over and shares[leg.id] != settled.paid_minor + settled.waived_minor - waits:
            found.append(
                f"leg {leg.leg}: papers {shares[leg.id]}, paid {settled.paid_minor}, waived {settled.waived_minor},"
                f" waiting {waits}"
            )
    return found


async def cdr_faults(scope: Scope, session: ChargingSession) -> list[str]:
    """I2: each CDR that is collected and costs something stands on one paper, whole; each credit on one note."""
    found = []
    query = select(CDR).where(CDR.session_id == session.id, CDR.collection.in_(("card", "per_session")))
    cdrs = list((await scope.db.execute(query)).scalars())
    for cdr in cdrs:
        source = cdr.id if cdr.kind == "cdr" else cdr.corrects_id
        kinds = ("invoice", "receipt") if cdr.kind == "cdr" else ("credit_note", "receipt_reversal")
        query = select(InvoiceLine).where(InvoiceLine.source_id == source, InvoiceLine.kind.in_(kinds))
        lines = list((await scope.db.execute(query)).scalars())
        gross, papers = sum(line.gross_minor for line in lines), {line.invoice_id for line in lines}
        if gross != cdr.incl_vat_minor or len(papers) != bool(cdr.incl_vat_minor):
            found.append(f"{cdr.kind} over {cdr.incl_vat_minor} stands on {len(papers)} papers over {gross}")
    return found


async def state_of(database: Database, tenant_id: UUID) -> dict[str, Any]:
    """All that news could change: payments, their calls, the books, the papers, the sessions."""
    queries = {
        "payments": "select id, state, dispute, hold_minor, captured_minor, refunded_minor, refunded_outside_minor,"
                    " disputed_minor, fee_minor, provider_fee_minor, provider_ref, charge_ref, failure"
                    " from livery.payment order by id",
        "ops": "select payment_id, kind, n, idem_key, state from livery.payment_op order by idem_key",
        "entries": "select account_id, amount_minor, count(*) from livery.ledger_entry group by 1, 2 order by 1, 2",
        "papers": "select id, hash from livery.invoice order by id",
        "sessions": "select id, status, energy_wh, settled_at from livery.charging_session order by id",
    }  # fmt: skip
    async with database.scope(tenant_id, payments.ACTOR) as scope:
        return {
            name: [tuple(row) for row in await scope.db.execute(text(query))]
            for name, query in queries.items()
        }


async def replay_faults(
    database: Database, tenant_id: UUID, told: Iterable[dict[str, Any]], work: Callable[[], Awaitable[None]]
) -> list[str]:
    """I7: the whole log of news once more, in the order given, as if none had been heard before."""
    before, secret = await state_of(database, tenant_id), sandbox.webhook_secret(database.settings)
    for number, event in enumerate(told):
        body, now = json.dumps(event | {"id": f"{event['id']}_{number}_again"}).encode(), utcnow()
        await payments.take_news(database, body, sandbox.sign(body, secret, int(now.timestamp())), now)
    await work()
    after = await state_of(database, tenant_id)
    return [
        f"news told again change {name}: {sorted(set(map(str, before[name])) ^ set(map(str, after[name])))[:4]}"
        for name in before
        if before[name] != after[name]
    ]


async def inter_book_faults(database: Database, tenant_ids: Iterable[UUID], platform_id: UUID) -> list[str]:
    """What the tenants' books call the platform's fee is what the platform's book says it got, by currency; and what
    it has not invoiced yet is what is owed (money.md 4.3)."""
    spent, held = dict[str, int](), dict[str, int]()
    for tenant_id in tenant_ids:
        async with database.scope(tenant_id, payments.ACTOR) as scope:
            for (code, currency), minor in (await balances(scope)).items():
                if code in ("platform_fee_expense", "host_share_held"):
                    spent[currency] = spent.get(currency, 0) + minor
                if code == "host_share_held":
                    held[currency] = held.get(currency, 0) + minor
    async with database.scope(platform_id, payments.ACTOR) as scope:
        books = await balances(scope)
        found = [f"posting {one} does not balance" for one in await billing.unbalanced_postings(scope)]
        found += [f"series {one} is broken" for one in await billing.find_broken_series(scope)]
    got = {currency: minor for (code, currency), minor in books.items() if code == "psp_platform"}
    owed = {currency: -minor for (code, currency), minor in books.items() if code == "host_share_payable"}
    if owed != held:
        found.append(f"tenants' shares on their way are {held}, the platform holds {owed}")
    return found + ([f"tenants paid {spent}, the platform got {got}"] if spent != got else [])
