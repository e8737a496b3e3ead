"""A driver's papers: one language from top to bottom, lines that say where it was and what a unit cost, and plain words
where nothing is to be paid; and that hold, capture, invoice, CDR and ledger agree to the cent."""

import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from app.billing import outcomes, paper, payments, sandbox
from app.billing import service as billing
from app.billing.models import Invoice
from app.brands import service as brands
from app.charging import paid, service, settlement
from app.charging.models import CDR
from app.kernel.clock import uuid7
from app.kernel.ids import public_id
from app.notifications import service as mails
from app.stations import service as stations
from app.stations.models import ChargingStation
from tests.billing.conftest import Shop, jobs, shop
from tests.charging.test_cap import BEGAN, Visit, begin, paid_for, visit
from tests.surfaces.conftest import house
from tests.web import House
from themes import render

__all__ = ["house", "jobs", "shop", "visit"]
pytestmark = pytest.mark.anyio


def words_of(html: str) -> str:
    """What a page says, in one line."""
    body = re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


async def paper_of(visit: Visit) -> tuple[Invoice, dict[str, Any]]:
    async with visit.shop.scope() as scope:
        cdr = await settlement.find_cdr(scope, visit.session_id)
        assert cdr is not None
        [invoice] = await billing.list_invoices_of(scope, "cdr", cdr.id)
        settled = await payments.find_settled(scope, await payments.find_payment_of(scope, invoice))
        return invoice, paper.content_of(invoice, settled, "Europe/Berlin", "#1f5fbf")


async def receipt_page(house: House, visit: Visit, language: str) -> str:
    async with visit.shop.scope() as scope:
        link = paid.link_of(scope, visit.session_id)
    driver = house.driver("alpha")
    pdf = await driver.get(f"/s/{link}/receipt.pdf", headers={"Accept-Language": language})
    assert pdf.content.startswith(b"%PDF-")
    page = await driver.get(f"/s/{link}/receipt", headers={"Accept-Language": language})
    assert page.status_code == 200
    return page.text


async def letters(visit: Visit) -> list[mails.Mail]:
    async with visit.shop.scope() as scope:
        return [one for one in await mails.list_mails(scope) if one.kind == "receipt"]


# -- one language ------------------------------------------------------------------------------------------------------

ENGLISH = re.compile(
    r"\b(Guest|Energy|Buyer|Issued|Supplied|charger|Net|Gross|Total|VAT|Receipt|November \d|paid by|test money)\b"
)
GERMAN = re.compile(
    r"\b(Gast|Energie|Käufer|Ausgestellt|Leistungsdatum|Netto|Brutto|Summe|MwSt|Beleg|Testgeld)\b"
)


async def test_a_german_drivers_paper_is_german_from_top_to_bottom(shop: Shop, house: House) -> None:
    visit = await begin(shop, "de")
    await visit.end(60, 10)
    html = await receipt_page(house, visit, "de")
    assert ENGLISH.findall(words_of(html)) == []
    invoice, content = await paper_of(visit)
    assert content["paid"] == "6,00\u00a0€ bezahlt mit Karte Visa •••• 4242 (Testgeld)"
    assert (content["waived"], content["totals"][-1][0]) == ("", "Summe")
    assert ENGLISH.findall(str(list(content.values()))) == []
    assert (content["language"], invoice.buyer["name"]) == ("de", "Gast")
    assert [one["what"] for one in content["lines"]] == ["Energie, Hafen, CP1"]
    assert re.fullmatch(r"\d+\. [A-Z][a-zä]+ \d{4}", content["facts"][1][1][0])
    [mail] = await letters(visit)
    assert mail.language == "de" and "Danke" in mail.body and ENGLISH.findall(mail.body) == []


async def test_an_issued_paper_keeps_its_words_whoever_reads_it(shop: Shop, house: House) -> None:
    """The page around it is the reader's and says so; a credit note is written as what it corrects."""
    visit = await begin(shop, "de")
    await visit.end(60, 10)
    html = await receipt_page(house, visit, "en")
    around, _, rest = html.partition("<article")
    sheet, _, _after = rest.partition("</article>")
    assert 'lang="de"' in sheet and ENGLISH.findall(words_of(f"<article{sheet}")) == []
    assert "A paper stays in the language it was issued in." in around
    async with visit.shop.scope() as scope:
        cdr = await settlement.find_cdr(scope, visit.session_id)
        assert cdr is not None
        await settlement.credit(scope, cdr.id, "the meter was wrong", energy_wh=6_000)
        rows = (await scope.db.execute(select(Invoice).order_by(Invoice.id))).scalars().all()
    assert [row.language for row in rows] == ["de", "de", "de"]


# -- what was corrected -----------------------------------------------------------------------------------------------


SELLER = {
    "legal_name": "Alpha GmbH", "address": "Weg 1", "postal_code": "10115", "city": "Berlin", "vat_id": "DE123456789",
}  # fmt: skip


async def refunded(visit: Visit, reason: str = "the meter was wrong") -> list[Invoice]:
    """6.00 were paid and all of it was given back: the invoice and its credit note."""
    async with visit.shop.scope() as scope:
        await brands.update_profile(scope, SELLER)
    await visit.end(60, 10)
    async with visit.shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", visit.session_id)
        assert payment is not None
        await settlement.refund(scope, payment.id, reason)
    await visit.shop.jobs.run()
    async with visit.shop.scope() as scope:
        return await settlement.list_papers(scope, visit.session_id)


async def test_a_credit_note_names_its_invoice_and_the_reason_to_driver_and_staff(
    visit: Visit, house: House
) -> None:
    invoice, note = await refunded(visit)
    issued = render.day(invoice.issued_at.astimezone(ZoneInfo("Europe/Berlin")))
    words = f"Corrects {invoice.number} of {issued} Reason: the meter was wrong"
    assert words in words_of(await receipt_page(house, visit, "en"))
    staff = await house.staff("alpha", visit.shop.tenant_id)
    assert words in words_of((await staff.get(f"/invoices/{public_id('invoice', note.id)}")).text)


async def test_papers_and_mail_say_when_and_where_by_the_clock_of_the_site(shop: Shop, house: House) -> None:
    """At a site where it is another day than in Berlin, the brand's own zone: the supply is of the site's day."""
    ended = BEGAN + timedelta(minutes=60)
    berlin = ended.astimezone(ZoneInfo("Europe/Berlin"))
    zone = "Pacific/Kiritimati" if berlin.hour >= 12 else "Pacific/Pago_Pago"
    visit = await begin(shop, zone=zone)
    invoice, note = await refunded(visit)
    there = ended.astimezone(ZoneInfo(zone))
    assert invoice.supplied_on == note.supplied_on == there.date() != berlin.date()
    page = words_of(await receipt_page(house, visit, "en"))
    assert page.count("Charging point CP1") == 2 and page.count(f"{there:%H:%M} UTC{there:%z}"[:12]) == 2
    [mail] = await letters(visit)
    assert f"{there:%H:%M}\u00a0UTC" in mail.body and "Charging point: CP1\n" in mail.body


async def test_the_pages_of_a_place_and_of_a_session_tell_the_time_of_the_site(
    shop: Shop, house: House
) -> None:
    station_id, session_id, _epoch = await paid_for(shop, zone="Atlantic/Azores")
    async with shop.scope() as scope:
        session = await service.get_session(scope, session_id)
        [evse] = (await stations.get_station(scope, station_id)).evses
        link, until = paid.link_of(scope, session_id), session.pending_until
    assert until is not None
    there = f"{until.astimezone(ZoneInfo('Atlantic/Azores')):%H:%M}"
    assert f"free again at {there}, unless" in (await house.driver("alpha").get(f"/c/{evse.code}")).text
    assert f"You have until {there}." in (await house.driver("alpha").get(f"/s/{link}")).text


PDF = re.compile(r'href="(/[^"]*/receipt\.pdf[^"]*)"')


async def test_staff_take_each_paper_away_as_the_payer_has_it(visit: Visit, house: House) -> None:
    papers = await refunded(visit)
    staff = await house.staff("alpha", visit.shop.tenant_id)
    for one in papers:
        address = f"/invoices/{public_id('invoice', one.id)}"
        assert f'href="{address}/pdf"' in (await staff.get(address)).text
        pdf = await staff.get(f"{address}/pdf")
        assert pdf.content.startswith(b"%PDF-") and pdf.headers["content-type"] == "application/pdf"
        assert pdf.headers["content-disposition"] == f'inline; filename="{one.number}.pdf"'
    assert (await staff.get(f"/invoices/{public_id('invoice', uuid7())}/pdf")).status_code == 404


async def test_each_paper_has_its_own_pdf_and_the_mailed_link_keeps_giving_the_invoice(
    visit: Visit, house: House
) -> None:
    invoice, note = await refunded(visit)
    [mail] = await letters(visit)
    driver = house.driver("alpha")
    path = re.findall(r"http://[^/]+(/s/\S+/receipt\.pdf\S*)", mail.body)[0]
    links = PDF.findall(await receipt_page(house, visit, "en"))
    assert len(set(links)) == 2
    named = [(await driver.get(link)).headers["content-disposition"] for link in (path, *links)]
    assert named == [f'inline; filename="{one.number}.pdf"' for one in (invoice, invoice, note)]
    for wrong in (public_id("invoice", uuid7()), "INV", "", public_id("payment", invoice.id)):
        assert (await driver.get(f"{path}?paper={wrong}")).status_code == 404
    assert PDF.findall((await driver.get(path.removesuffix("/receipt.pdf"))).text) == []  # one of which?


async def test_an_invoice_was_paid_by_card_also_after_the_money_was_given_back(
    visit: Visit, house: House
) -> None:
    invoice, _note = await refunded(visit)
    paid_by_card, given_back = (
        "€6.00 paid by card Visa •••• 4242 (test money)",
        "€6.00 given back to card Visa •••• 4242",
    )
    sheets = words_of((await receipt_page(house, visit, "en")).replace("<article", "SHEET <article")).split(
        "SHEET"
    )[1:]
    assert [(paid_by_card in one, given_back in one) for one in sheets] == [(True, False), (False, True)]
    staff = await house.staff("alpha", visit.shop.tenant_id)
    assert paid_by_card in words_of((await staff.get(f"/invoices/{public_id('invoice', invoice.id)}")).text)


async def test_each_paper_tells_its_own_refund_and_keeps_its_words(shop: Shop, house: House) -> None:
    """30.00 paid, corrected to 11.50 (18.50 back), then the rest refunded (11.50 back)."""
    visit = await begin(shop)
    await visit.end(140, 50)
    async with shop.scope() as scope:
        await brands.update_profile(scope, SELLER)
        cdr = await settlement.find_cdr(scope, visit.session_id)
        assert cdr is not None
        await settlement.credit(scope, cdr.id, "the meter was wrong", energy_wh=20_000)
    await shop.jobs.run()
    paid_, first = "€30.00 paid by card Visa •••• 4242", "€18.00 given back to card Visa •••• 4242"
    after = f"{paid_}; €18.00 given back"
    staff = await house.staff("alpha", shop.tenant_id)

    async def told() -> list[list[str]]:
        async with shop.scope() as scope:
            papers = await settlement.list_papers(scope, visit.session_id)
        shown = (await receipt_page(house, visit, "en")).replace("<article", "SHEET <article").split("SHEET")
        pages = [await staff.get(f"/invoices/{public_id('invoice', one.id)}") for one in papers]
        words = re.compile(r"€[\d.]+ (?:paid by|given back to) card Visa •••• 4242(?:; €[\d.]+ given back)?")
        return [
            [found for html in htmls for found in words.findall(words_of(html))]
            for htmls in zip(shown[1:], (one.text for one in pages), strict=True)
        ]

    assert await told() == [[paid_] * 2, [first] * 2, [after] * 2]
    async with shop.scope() as scope:
        await settlement.refund(scope, (await visit.payment()).id, "too loud")
    await shop.jobs.run()
    second = "€12.00 given back to card Visa •••• 4242"
    assert await told() == [[paid_] * 2, [first] * 2, [after] * 2, [second] * 2]


# -- lines and titles --------------------------------------------------------------------------------------------------


async def test_a_line_says_where_it_was_and_what_a_unit_cost_with_and_without_vat(
    shop: Shop, house: House
) -> None:
    visit = await begin(shop)
    async with shop.scope() as scope:
        station = await scope.db.get_one(ChargingStation, (shop.tenant_id, visit.station_id))
        station.name = "charger 2"
    await visit.end(60, 10)
    _invoice, content = await paper_of(visit)
    [line] = content["lines"]
    assert {name: " ".join(words.split()) for name, words in line.items()} == {
        "what": "Energy, Hafen, charger 2", "amount": "10 kWh", "price": "€0.60 / kWh", "vat": "20 %",
        "net_price": "net €0.50", "net": "€5.00", "gross": "€6.00",
    }  # fmt: skip
    assert content["head"][2] == "Unit price, gross"
    html = await receipt_page(house, visit, "en")
    assert GERMAN.findall(html.partition("<footer")[0]) == [] and "A paper stays" not in html
    said = words_of(html)
    assert "Energy, Hafen, charger 2 10 kWh €0.60 / kWh net €0.50 20 % €5.00 €6.00" in said


def test_a_price_that_was_told_with_vat_is_billed_without_it() -> None:
    """A limit's own line is told without VAT by whichever tariff. Decimals that the price does not have are kept."""
    lines = [
        {"component": name, "volume": "10", "unit": unit, "unit_price": price, "vat": "20", "excl_vat": "5.00",
         "incl_vat": "6.00"}
        for name, unit, price in (("ENERGY", "kWh", "0.60"), ("FLAT", "", "1.00"), ("MIN_PRICE", "", "5.00"))
    ]  # fmt: skip
    cdr = CDR(
        id=uuid7(), currency="EUR", started_at=BEGAN, price={"lines": lines, "is_tax_included": True},
        location={"station": "CP1", "station_name": "Hafen West 2", "name": "Hafen West", "evse_no": 2},
    )  # fmt: skip
    found = settlement.lines_of(cdr)
    assert [one.unit_price for one in found] == [Decimal("0.5"), Decimal("0.83333333"), Decimal("5.00")]
    assert [one.description for one in found][:2] == [
        "Energy, Hafen West 2 · 2",
        "Session fee, Hafen West 2 · 2",
    ]


async def test_a_page_that_is_named_as_the_brand_is_named_once(shop: Shop, house: House) -> None:
    driver = house.driver("alpha")
    assert "<title>Alpha</title>" in (await driver.get("/")).text
    assert "<title>Map · Alpha</title>" in (await driver.get("/map", headers={"Accept-Language": "en"})).text


# -- what is not to be paid --------------------------------------------------------------------------------------------


async def agree(visit: Visit, *, gross: int, captured: int, waived: int) -> None:
    """Hold >= capture; CDR = invoice = capture + write-off; nobody owes anything; the books balance."""
    payment, (invoice, content) = await visit.payment(), await paper_of(visit)
    async with visit.shop.scope() as scope:
        cdr = (await scope.db.execute(select(CDR).where(CDR.session_id == visit.session_id))).scalar_one()
        settled = await payments.find_settled(scope, payment)
        assert await billing.unbalanced_postings(scope) == [] and settled is not None
    balances = await visit.shop.balances()
    assert (cdr.incl_vat_minor, invoice.gross_minor) == (gross, gross)
    assert (cdr.excl_vat_minor, sum(line.gross_minor for line in invoice.lines)) == (invoice.net_minor, gross)
    assert (payment.captured_minor, settled.waived_minor, captured + waived) == (captured, waived, gross)
    assert payment.captured_minor <= payment.hold_minor == 3000
    assert await visit.shop.captures(payment) == ([captured] if captured else [])
    assert (balances["write_off"], balances.get("driver_receivable")) == (waived, None)
    assert -balances["revenue"] - balances["vat_payable"] == gross and sum(balances.values()) == 0
    assert content["totals"][-1] == ("To be paid", "€0.00", True)


async def says(house: House, visit: Visit, words: str, to_staff: str) -> None:
    """The paper as page and PDF, the mail, and staff's pages of invoice and payment."""
    invoice, content = await paper_of(visit)
    assert content["waived"] == words
    assert words in words_of(await receipt_page(house, visit, "en"))
    [mail] = await letters(visit)
    assert words in mail.body
    payment = await visit.payment()
    staff = await house.staff("alpha", visit.shop.tenant_id)
    said = words_of((await staff.get(f"/invoices/{public_id('invoice', invoice.id)}")).text)
    assert words in said and "To be paid €0.00" in said and f"{to_staff}." in said
    shown = await staff.get(f"/payments/{public_id('payment', payment.id)}")
    assert "Written off" in words_of(shown.text) and to_staff in words_of(shown.text)
    assert (await staff.get("/payments")).status_code == 200


async def test_what_is_too_little_for_a_card_is_waived_and_every_paper_says_so(
    visit: Visit, house: House
) -> None:
    await visit.end(1, 0.5)
    await agree(visit, gross=30, captured=0, waived=30)
    words = "Nothing is to be paid: €0.30 is too little for a card and is waived."
    await says(house, visit, words, "All of it was too little for a card")


async def test_what_a_vanished_hold_does_not_pay_is_waived_and_every_paper_says_so(
    visit: Visit, house: House
) -> None:
    payment = await visit.payment()
    provider = payments.provider_of(visit.shop.database.settings)
    await provider.cancel(payment.account_ref, payment.provider_ref or "", key="dashboard")
    await visit.shop.look(payment)
    await visit.end(31, 10)
    await agree(visit, gross=600, captured=0, waived=600)
    words = "Nothing is to be paid: €6.00 could not be taken from the card any more and is waived."
    await says(house, visit, words, "The hold could not be taken any more")


async def test_a_hold_that_expired_unseen_is_waived_when_the_bank_says_no(visit: Visit) -> None:
    await sandbox.set_clock(visit.shop.database, 8 * 86400)
    await visit.end(31, 10)
    await agree(visit, gross=600, captured=0, waived=600)
    assert outcomes.outcome(await visit.payment()).why == "The hold had ended"
    [mail] = await letters(visit)
    assert "€6.00 could not be taken from the card any more" in mail.body


async def test_what_lies_above_the_hold_is_waived_and_every_paper_says_so(visit: Visit, house: House) -> None:
    await visit.end(170, 62)
    await agree(visit, gross=3720, captured=3000, waived=720)
    words = "€7.20 lay above what was held on the card: that part is waived and not to be paid."
    await says(house, visit, words, "This part lay above the hold")
    _invoice, content = await paper_of(visit)
    assert [(name, amount) for name, amount, _is_sum in content["totals"][-4:]] == [
        ("Total", "€37.20"), ("Paid by card", "-€30.00"), ("Waived", "-€7.20"), ("To be paid", "€0.00"),
    ]  # fmt: skip


async def test_what_was_waived_stays_told_when_the_money_is_given_back(visit: Visit, house: House) -> None:
    """On the invoice as it was issued, on the credit note over all of it, in the mail, on the session's page, and to
    staff."""
    await visit.end(170, 62)
    async with visit.shop.scope() as scope:
        await settlement.refund(scope, (await visit.payment()).id, "too loud")
    await visit.shop.jobs.run()
    async with visit.shop.scope() as scope:
        invoice, note = await settlement.list_papers(scope, visit.session_id)
        link = paid.link_of(scope, visit.session_id)
        told = [one for one in await mails.list_mails(scope) if one.kind == "refund"]
    above = "€7.20 lay above what was held on the card: that part is waived and not to be paid."
    taken_back = "€7.20 of this had been waived and was never paid."
    html = (await receipt_page(house, visit, "en")).replace("<article", "SHEET <article")
    first, second = words_of(html).split("SHEET")[1:]
    assert above in first and "Waived -€7.20 To be paid €0.00 €30.00 paid by card" in first
    assert taken_back in second and above not in second and "€30.00 given back to card" in second
    assert "To be paid" not in second
    assert [taken_back in mail.body for mail in told] == [True]
    driver, staff = house.driver("alpha"), await house.staff("alpha", visit.shop.tenant_id)
    assert above in words_of((await driver.get(f"/s/{link}", headers={"Accept-Language": "en"})).text)
    for one, words in ((invoice, above), (note, taken_back)):
        page = words_of((await staff.get(f"/invoices/{public_id('invoice', one.id)}")).text)
        assert words in page and ("This part lay above the hold." in page) == (one is invoice)


async def test_what_was_paid_in_whole_and_given_back_tells_of_nothing_waived(
    visit: Visit, house: House
) -> None:
    await refunded(visit)
    assert "waived" not in words_of(await receipt_page(house, visit, "en"))


async def test_a_waived_part_is_told_in_the_payers_german(shop: Shop) -> None:
    visit = await begin(shop, "de")
    await visit.end(1, 0.5)
    _invoice, content = await paper_of(visit)
    words = (
        "Es ist nichts zu zahlen: 0,30\u00a0€ sind zu wenig für eine Kartenzahlung und werden Ihnen erlassen."
    )
    [mail] = await letters(visit)
    assert content["waived"] == words and words in mail.body
