"""The platform's own book and its invoices to its tenants: each fee once, each month once, both sides to the cent."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from uuid import UUID

import facturx
import pytest
from sqlalchemy import select, text

from app.billing import fees, payments, platform_book, service
from app.billing.models import BilledTenant, Invoice, PlatformInvoice
from app.billing.reconciliation import reconcile
from app.brands import service as brands
from app.brands.models import TenantProfile
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, Refused
from app.kernel.money import to_decimal
from app.kernel.settings import Settings
from tenants.database import Database
from tests.billing import en16931
from tests.billing.conftest import Shop
from tests.billing.invariants import inter_book_faults
from tests.billing.test_fees import sell, today
from tests.web import CLI, open_house

pytestmark = pytest.mark.anyio

PLATFORM = {
    "name": "Livery Platform", "legal_name": "Livery Plattform GmbH", "address": "Am Speicher 1",
    "postal_code": "10115", "city": "Berlin", "country": "DE", "currency": "EUR", "time_zone": "Europe/Berlin",
    "vat_id": "DE136695976", "support_email": "billing@platform.example",
}  # fmt: skip
TENANT = {
    "legal_name": "Alpha Strom GmbH", "address": "Hafen 2", "postal_code": "20457", "city": "Hamburg",
    "vat_id": "DE129273398",
}  # fmt: skip


async def found_platform(shop: Shop, **changes: str) -> UUID:
    await brands.put_platform_profile(shop.database, CLI, PLATFORM | changes, "set up")
    return await brands.find_platform(shop.database, CLI, "test")


async def describe(shop: Shop, **changes: str) -> None:
    async with shop.scope() as scope:
        await brands.update_profile(scope, TENANT | changes)


def next_month(months: int = 1) -> datetime:
    at = datetime.now(UTC)
    for _ in range(months):
        at = at.replace(day=1, hour=12) + timedelta(days=32)
    return at.replace(day=2)


async def keep(shop: Shop, months: int = 0) -> None:
    await platform_book.keep(shop.database, shop.tenant_id, now=next_month(months) if months else None)


async def received(shop: Shop) -> list[PlatformInvoice]:
    async with shop.scope() as scope:
        rows = (await scope.db.execute(select(PlatformInvoice).order_by(PlatformInvoice.id))).scalars().all()
        for row in rows:
            await scope.db.refresh(row, ["pdf", "xml"])
        return list(rows)


async def balances(database: Database, platform_id: UUID) -> dict[str, int]:
    query = text("""
        select a.code, sum(e.amount_minor)::bigint as total from livery.ledger_entry e
          join livery.ledger_account a on a.tenant_id = e.tenant_id and a.id = e.account_id
         group by a.code having sum(e.amount_minor) <> 0""")
    async with database.scope(platform_id, CLI) as scope:
        assert await service.unbalanced_postings(scope) == []
        assert await service.find_broken_series(scope) == []
        return {row.code: row.total for row in await scope.db.execute(query)}


async def test_a_month_of_fees_is_one_invoice_equal_to_both_books_and_no_second_one(shop: Shop) -> None:
    await describe(shop)
    first, second = await sell(shop, 2400), await sell(shop, 999)
    kept = first.fee_minor + second.fee_minor
    await keep(shop)  # there is no platform yet: nothing is lost by that
    platform_id = await found_platform(shop)
    for _ in range(2):
        await keep(shop)
        assert await inter_book_faults(shop.database, [shop.tenant_id], platform_id) == []
        assert await balances(shop.database, platform_id) == {
            "psp_platform": kept,
            "tenant_receivable": -kept,
        }
    assert await received(shop) == []  # the month is not over
    net = payments.half_up(Decimal(kept) * 100 / 119)
    for _ in range(2):
        await keep(shop, 1)
        assert await balances(shop.database, platform_id) == {
            "psp_platform": kept, "fee_revenue": -net, "vat_payable": net - kept,
        }  # fmt: skip
        assert len(await received(shop)) == 1
    (paper,) = await received(shop)
    assert (paper.gross_minor, paper.net_minor, paper.vat_minor) == (kept, net, kept - net)
    assert paper.number.endswith("-000001") and "card payments: 2" in paper.content["lines"][0]["what"]
    assert "nothing is to be paid" in paper.content["paid"]
    assert paper.xml is not None and en16931.faults(paper.xml) == []
    assert en16931.amount(paper.xml, "GrandTotalAmount") == str(to_decimal(kept, "EUR"))
    assert Decimal(en16931.amount(paper.xml, "DuePayableAmount") or "1") == 0
    _name, inside = facturx.get_xml_from_pdf(BytesIO(paper.pdf), check_xsd=False)
    assert inside == paper.xml
    late = await sell(shop, 5000)  # its own month has its invoice: it belongs to the next
    await keep(shop, 1)
    assert len(await received(shop)) == 1
    await keep(shop, 2)
    assert [one.gross_minor for one in await received(shop)] == [kept, late.fee_minor]
    assert len({one.number for one in await received(shop)}) == 2
    assert await inter_book_faults(shop.database, [shop.tenant_id], platform_id) == []


@pytest.mark.parametrize(
    ("country", "vat_id", "code", "words"),
    [("FR", "FR83404833048", "AE", "Reverse charge"), ("CH", "CHE123456789MWST", "O", "Not subject to VAT here")],
)  # fmt: skip
async def test_where_the_recipient_is_taxed_the_invoice_says_so_and_keeps_the_rules(
    shop: Shop, country: str, vat_id: str, code: str, words: str
) -> None:
    await describe(shop, country=country, vat_id=vat_id)
    platform_id, payment = await found_platform(shop), await sell(shop, 2400)
    await keep(shop, 1)
    if code == "AE":
        assert await received(shop) == []  # nobody has asked VIES
        async with shop.database.scope(platform_id, CLI) as scope:
            (line,) = await platform_book.month_lines(scope, date.today().replace(day=1))
            assert "FR83404833048" in line.why_not[0]
            await platform_book.record_evidence(
                scope, "alpha", vat_id=vat_id, reference="WAPIAAAAYfLw", consulted_on=str(date.today())
            )
        await keep(shop, 1)
    else:  # their own word alone is none
        first = (await received(shop))[0]
        assert first.vat_minor and "tax_note" in first.content and not first.content["tax_note"]
        async with shop.database.scope(platform_id, CLI) as scope:
            with pytest.raises(Invalid):
                await platform_book.record_country(scope, "alpha", country="LI", basis="Register CHE-123")
            await platform_book.record_country(
                scope, "alpha", country=country, basis="Register CHE-123.456.789"
            )
        payment = await sell(shop, 2400)
        await keep(shop, 2)
    paper = (await received(shop))[-1]
    assert (paper.vat_minor, paper.gross_minor) == (0, payment.fee_minor)
    assert words in paper.content["tax_note"]
    assert paper.xml is not None and en16931.faults(paper.xml) == []
    assert code in en16931.text_at(paper.xml, "ApplicableTradeTax", "CategoryCode")
    async with shop.database.scope(platform_id, CLI) as scope:
        newest = select(Invoice).order_by(Invoice.id.desc()).limit(1)
        sealed = (await scope.db.execute(newest)).scalar_one().buyer["tax"]
    assert sealed.get("country_basis") == (None if code == "AE" else "Register CHE-123.456.789")
    assert sealed["code"] == code and (sealed.get("reference") == "WAPIAAAAYfLw") == (code == "AE")


@pytest.mark.parametrize(
    ("ours", "theirs", "vat_id", "proven", "code"),
    [("DE", "DE", "DE129273398", False, "DE19"), ("DE", "FR", "", False, "DE19"),
     ("DE", "FR", "FR83404833048", True, "AE"), ("DE", "FR", "FR83404833048", False, "vat_id_unproven"),
     ("DE", "FR", "DE129273398", True, "DE19"), ("DE", "GR", "EL123456789", True, "AE"),
     ("CH", "DE", "DE129273398", True, "O"), ("CH", "DE", "DE129273398", False, "CH8.1"),
     ("CH", "CH", "", False, "CH8.1"), ("US", "US", "", False, "no_vat_rate")],
)  # fmt: skip
def test_the_vat_follows_from_who_and_where_they_are(
    ours: str, theirs: str, vat_id: str, proven: bool, code: str
) -> None:
    billed = BilledTenant(
        buyer={"country": theirs, "vat_id": vat_id},
        evidence={"vat_id": vat_id, "country": theirs} if proven else {},
    )
    try:
        found = platform_book.treat(TenantProfile(country=ours), billed, date(2026, 11, 30)).code
    except Refused as error:
        found = error.code
    assert found == code


async def test_without_the_data_that_a_paper_needs_there_is_none_until_it_is_there(shop: Shop) -> None:
    payment = await sell(shop, 2400)
    platform_id = await found_platform(shop, legal_name="")

    async def why() -> list[str]:
        await keep(shop, 2)
        async with shop.database.scope(platform_id, CLI) as scope:
            (line,) = await platform_book.month_lines(scope, date.today().replace(day=1))
        return line.why_not

    assert "platform's own legal name" in (await why())[0]
    await found_platform(shop)
    assert await why() == ["Their legal name, address, postal code, city are missing."]
    assert await received(shop) == []
    await describe(shop)
    assert await why() == []
    assert [one.gross_minor for one in await received(shop)] == [payment.fee_minor]


async def test_console_and_portal_show_the_papers_to_whom_they_are_for(
    shop: Shop, settings: Settings
) -> None:
    async with open_house(settings, shop.database) as house:
        admin = await house.admin()
        assert "missing" in (await admin.open("/platform-profile")).text
        answer = await admin.post("/platform-profile", PLATFORM | {"vat_id": "DE1", "reason": "start"})
        assert answer.status_code == 422
        assert (await admin.post("/platform-profile", PLATFORM | {"reason": "start"})).status_code == 303
        await describe(shop)
        payment = await sell(shop, 2400)
        await keep(shop, 1)
        shown = (await admin.open(f"/platform-book?month={date.today():%Y-%m}")).text
        assert "alpha" in shown and "-000001" in shown
        for month in ("0001-01", "9999-12"):  # has no month before it, or after it
            assert f"{date.today():%B %Y}" in (await admin.open(f"/platform-book?month={month}")).text
        invoice = shown.partition("/tenants/alpha/platform-invoices/")[2].partition('"')[0]
        paper = await admin.get(f"/tenants/alpha/platform-invoices/{invoice}")
        assert paper.headers["content-type"] == "application/pdf" and paper.content.startswith(b"%PDF")
        owner = await house.staff("alpha", shop.tenant_id, "anke@nordlicht-laden.example")
        listed = (await owner.open("/platform-fees")).text
        assert str(to_decimal(payment.fee_minor, "EUR")) in listed
        path = "/platform-fees/" + listed.partition('href="/platform-fees/')[2].partition('"')[0]
        assert "Livery Plattform GmbH" in (await owner.open(path)).text
        (row,) = await received(shop)
        assert (await owner.get(f"{path}/pdf")).content == row.pdf
        assert (await owner.get(f"{path}/xml")).content == row.xml


async def test_a_fee_given_back_lessens_its_month_and_later_months_by_a_credit_note(shop: Shop) -> None:
    await describe(shop)
    platform_id = await found_platform(shop)
    await fees.plan_fee(
        shop.database, CLI, shop.tenant_id, percent="5", fixed="0.10", valid_from=str(today()), reason="agreed",
        is_returned=True,
    )  # fmt: skip
    payment = await sell(shop, 2000)
    await sell(shop, 3000)

    async def give_back(minor: int) -> None:
        async with shop.scope() as scope:
            await payments.refund(scope, payment.id, "The cable was short", amount_minor=minor)
            await payments.ledger.post(scope, "credit_note_issued", "test", uuid7(), scope.now, [
                payments.Posting("driver_receivable", -minor, "EUR"), payments.Posting("revenue", minor, "EUR"),
            ])  # fmt: skip
        await shop.jobs.run()

    await give_back(500)  # of 110 kept: 27.5
    await keep(shop, 1)
    (invoice,) = await received(shop)
    assert (invoice.gross_minor, (await shop.balances())["platform_fee_expense"]) == (110 + 160 - 28, 242)
    await give_back(700)
    await give_back(800)
    await keep(shop, 1)
    assert len(await received(shop)) == 1  # the next month's
    for _ in range(2):
        await keep(shop, 2)
    invoice, note = await received(shop)
    assert (note.kind, note.gross_minor, note.net_minor) == ("credit_note", -82, -69)
    assert (
        invoice.number in " ".join(note.content["corrects"])
        and "Given back with your refunds" in note.content["paid"]
    )
    assert note.xml is not None and en16931.faults(note.xml) == []
    assert (await balances(shop.database, platform_id)) == {
        "psp_platform": 160, "fee_revenue": 69 - invoice.net_minor, "vat_payable": 13 - invoice.vat_minor,
    }  # fmt: skip
    assert await inter_book_faults(shop.database, [shop.tenant_id], platform_id) == []
    run = await reconcile(shop.database, shop.tenant_id, settles_within=timedelta())
    assert run is not None and run.is_green, run.figures
