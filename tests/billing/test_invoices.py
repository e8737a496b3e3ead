"""Numbers without gaps, rows that never change, books that always balance: also when the program is wrong."""

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from app.billing import ledger, service
from app.billing.ledger import Posting
from app.billing.models import Invoice, LedgerEntry, LedgerTxn
from app.kernel.errors import Refused
from tenants.database import Database
from tenants.scope import Scope
from tests.cast import STAFF, Cast, hire
from tests.conftest import DatabaseUrls

pytestmark = pytest.mark.anyio
SUPPLIED = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
async def cast(database: Database) -> Cast:
    return await hire(database)


def line(
    source: UUID | None = None, part: str = "0", net: int = 1000, vat: int = 190, rate: str = "19"
) -> service.Line:
    return service.Line(
        source_type="cdr", source_id=source or uuid4(), source_part=part, description="Energy", quantity=Decimal(10),
        unit="kWh", unit_price=Decimal(1), vat_rate=Decimal(rate), vat_code=f"DE{rate}", net_minor=net, vat_minor=vat,
        gross_minor=net + vat,
    )  # fmt: skip


async def issue(scope: Scope, *lines: service.Line) -> Invoice:
    invoice = await service.issue_invoice(
        scope, currency="EUR", lines=lines or [line()], buyer={"name": "B", "email": ""}, supplied_at=SUPPLIED
    )
    assert invoice is not None
    return invoice


class Spoiled(Exception):
    pass


async def test_numbers_have_no_gap_though_many_issue_at_once_and_some_fail(database: Database, cast: Cast):
    fate = random.Random(4)

    async def attempt(fails: bool) -> None:
        async with database.scope(cast.tenant_id, STAFF) as scope:
            await issue(scope)
            if fails:
                raise Spoiled

    fates = [fate.random() < 0.4 for _ in range(40)]
    outcomes = await asyncio.gather(*(attempt(fails) for fails in fates), return_exceptions=True)
    assert {type(one) for one in outcomes if one} == {Spoiled}
    async with database.scope(cast.tenant_id, STAFF) as scope:
        numbers = list(
            (await scope.db.execute(select(Invoice.number_no).order_by(Invoice.number_no))).scalars()
        )
        assert numbers == list(range(1, fates.count(False) + 1))
        assert await service.find_broken_series(scope) == []
        assert await service.unbalanced_postings(scope) == []


async def test_a_supply_is_invoiced_once_whoever_asks_again(database: Database, cast: Cast):
    supply = line(uuid4())

    async def attempt() -> UUID | None:
        try:
            async with database.scope(cast.tenant_id, STAFF) as scope:
                return (await issue(scope, supply)).id
        except DBAPIError:
            return None  # the unique key stopped a twin in the same instant; it asks again

    first = {one for one in await asyncio.gather(*(attempt() for _ in range(6))) if one}
    again = await attempt()
    assert len(first) == 1 and again in first
    async with database.scope(cast.tenant_id, STAFF) as scope:
        assert (await scope.db.execute(select(func.count()).select_from(Invoice))).scalar_one() == 1
        assert (await scope.db.execute(select(func.count()).select_from(LedgerTxn))).scalar_one() == 1


async def test_without_seller_data_there_are_receipts_that_say_so_and_no_number(database: Database):
    cast = await hire(database, with_seller=False)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        receipt = await issue(scope)
        assert (receipt.kind, receipt.number, receipt.number_no) == ("receipt", None, None)
        note = await service.credit_source(scope, "cdr", receipt.lines[0].source_id, "wrong")
        assert note is not None and (note.kind, note.number) == ("receipt_reversal", None)


async def test_nothing_is_owed_then_nothing_is_issued(database: Database, cast: Cast):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        invoice = await service.issue_invoice(
            scope, currency="EUR", lines=[line(net=0, vat=0)], buyer={"name": ""}, supplied_at=SUPPLIED
        )
        assert invoice is None


async def test_a_line_without_gross_stays_where_it_has_a_net(database: Database, cast: Cast):
    """The invoice adds up to the CDR, whose lines these are: also on the net side."""
    source = uuid4()
    lines = [line(source), line(source, "1", net=-1, vat=1), line(source, "2", net=0, vat=0)]
    async with database.scope(cast.tenant_id, STAFF) as scope:
        invoice = await issue(scope, *lines)
        assert (invoice.net_minor, invoice.vat_minor, invoice.gross_minor) == (999, 191, 1190)
        assert [one.source_part for one in invoice.lines] == ["0", "1"]
        assert await service.unbalanced_postings(scope) == []


async def test_a_credit_note_turns_every_line_and_brings_the_books_to_zero(database: Database, cast: Cast):
    source = uuid4()
    async with database.scope(cast.tenant_id, STAFF) as scope:
        invoice = await issue(scope, line(source, "0"), line(source, "1", net=501, vat=35, rate="7"))
        note = await service.credit_source(scope, "cdr", source, "the meter was wrong")
        assert note is not None
        assert (note.kind, note.number, note.corrects_id) == (
            "credit_note", f"CN-{invoice.year}-000001", invoice.id,
        )  # fmt: skip
        assert note.gross_minor == -invoice.gross_minor == -1726
        assert {group["vat_code"]: group["vat_minor"] for group in note.vat_groups} == {
            "DE19": -190,
            "DE7": -35,
        }
        sums = await scope.db.execute(
            select(LedgerEntry.account_id, func.sum(LedgerEntry.amount_minor)).group_by(
                LedgerEntry.account_id
            )
        )
        assert {total for _, total in sums.all()} == {0}
        assert await service.credit_source(scope, "cdr", source, "once more") is None  # nothing is left
        with pytest.raises(Refused) as refused:
            await service.credit_part(scope, "cdr", source, 1, "once more")
        assert refused.value.code == "credit_too_high"


@pytest.mark.parametrize(
    "statement",
    ["update livery.invoice set gross_minor = 1", "delete from livery.invoice", "delete from livery.invoice_line",
     "update livery.invoice_line set net_minor = 1", "update livery.ledger_entry set amount_minor = 7",
     "delete from livery.ledger_entry", "delete from livery.ledger_txn", "truncate livery.invoice cascade"],
)  # fmt: skip
async def test_what_is_written_is_never_changed_by_the_application_nor_by_its_owner(
    database: Database, database_urls: DatabaseUrls, cast: Cast, statement: str
):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        await issue(scope)
    with pytest.raises(DBAPIError, match=r"permission denied|is refused"):
        async with database.scope(cast.tenant_id, STAFF) as scope:
            await scope.db.execute(text(statement))
    refused = pytest.raises(psycopg.errors.RestrictViolation, match="rows of this table never change")
    with psycopg.connect(database_urls.superuser.replace("+psycopg", "")) as superuser, refused:
        superuser.execute(statement.encode())


async def test_a_posting_that_does_not_balance_is_refused_at_commit_by_the_database(
    database: Database, cast: Cast
):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        await issue(scope)
        account = (await scope.db.execute(select(LedgerEntry.account_id).limit(1))).scalar_one()
    with pytest.raises(DBAPIError, match="does not balance"):
        async with database.scope(cast.tenant_id, STAFF) as scope:
            txn = LedgerTxn(kind="test", source_type="test", source_id=uuid4(), effective_at=scope.now)
            scope.db.add(txn)
            await scope.db.flush()
            for amount in (100, -99):
                scope.db.add(
                    LedgerEntry(txn_id=txn.id, account_id=account, amount_minor=amount, currency="EUR")
                )
                await scope.db.flush()
    async with database.scope(cast.tenant_id, STAFF) as scope:
        with pytest.raises(ValueError, match="does not balance"):
            await ledger.post(scope, "test", "test", uuid4(), scope.now, [Posting("bank", 1, "EUR")])


async def test_a_posting_stands_once_and_is_undone_by_its_reverse(database: Database, cast: Cast):
    sides = [Posting("bank", 500, "EUR"), Posting("psp_available", -500, "EUR")]
    source = uuid4()
    async with database.scope(cast.tenant_id, STAFF) as scope:
        first = await ledger.post(scope, "payout", "payout", source, scope.now, sides)
        assert first is not None
        assert await ledger.post(scope, "payout", "payout", source, scope.now, sides) is None
        assert await ledger.reverse(scope, first, "payout_failed", "payout", source) is not None
        assert await ledger.reverse(scope, first, "payout_failed", "payout", source) is None
        total = await scope.db.execute(select(func.sum(LedgerEntry.amount_minor)))
        assert total.scalar_one() == 0


async def test_a_number_that_somebody_took_out_of_the_books_is_found(
    database: Database, database_urls: DatabaseUrls, cast: Cast
):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        for _ in range(3):
            await issue(scope)

    def tamper(*statements: str) -> None:
        with psycopg.connect(database_urls.superuser.replace("+psycopg", "")) as superuser:
            superuser.execute("set session_replication_role = replica")
            for statement in statements:
                superuser.execute(statement.encode())

    async def broken() -> list[str]:
        async with database.scope(cast.tenant_id, STAFF) as scope:
            return await service.find_broken_series(scope)

    assert await broken() == []
    tamper("delete from livery.invoice where number_no = 2")
    assert [one.rpartition(" at ")[2] for one in await broken()] == ["2"]


async def test_the_invoices_day_and_year_are_the_tenants(database: Database, cast: Cast):
    """Half an hour before midnight UTC it is the new year already in Berlin."""
    moment = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    async with database.scope(cast.tenant_id, STAFF, now=moment) as scope:
        invoice = await issue(scope)
    assert (invoice.year, invoice.issued_on.isoformat(), invoice.number) == (
        2027,
        "2027-01-01",
        "INV-2027-000001",
    )
