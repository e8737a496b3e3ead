"""A guest's invoice and what corrects it, as PDF with its XML and as XML alone: to the driver, to staff, over REST; and
always what the books say."""

from datetime import timedelta
from decimal import Decimal
from html import escape

import facturx
import pytest
from sqlalchemy import select

from app.billing import paper, payments
from app.billing.models import Invoice
from app.brands import service as brands
from app.charging import paid, settlement
from app.kernel.clock import utcnow
from app.kernel.ids import public_id
from tests.billing.conftest import Shop, jobs, shop
from tests.billing.en16931 import amount, faults, text_at
from tests.billing.test_einvoice import posted
from tests.charging.test_account import Yard, yard
from tests.charging.test_cap import Visit, begin, visit
from tests.charging.test_papers import SELLER, refunded
from tests.surfaces.conftest import house
from tests.web import House, Visitor

__all__ = ["house", "jobs", "shop", "visit", "yard"]
pytestmark = pytest.mark.anyio
PDF, XML = {"Accept": "application/pdf"}, {"Accept": "application/xml"}


async def corrected(visit: Visit) -> list[Invoice]:
    """6.00 were paid; then it turned out that 4 kWh less were given: invoice, credit note, invoice."""
    async with visit.shop.scope() as scope:
        await brands.update_profile(scope, SELLER)
    await visit.end(60, 10)
    async with visit.shop.scope() as scope:
        cdr = await settlement.find_cdr(scope, visit.session_id)
        assert cdr is not None
        await settlement.credit(scope, cdr.id, "the meter was wrong", energy_wh=6_000)
    await visit.shop.jobs.run()
    async with visit.shop.scope() as scope:
        return await settlement.list_papers(scope, visit.session_id)


async def api_of(house: House, visit: Visit) -> Visitor:
    return await house.api("alpha", visit.shop.tenant_id)


async def test_driver_staff_and_rest_have_the_same_invoice_in_the_pdf_and_alone(
    visit: Visit, house: House
) -> None:
    papers = await corrected(visit)
    async with visit.shop.scope() as scope:
        base = f"/s/{paid.link_of(scope, visit.session_id)}"
    driver, api = house.driver("alpha"), await api_of(house, visit)
    staff = await house.staff("alpha", visit.shop.tenant_id)
    page = (await driver.get(f"{base}/receipt")).text
    for one in papers:
        key = public_id("invoice", one.id)
        assert f'href="{base}/receipt.xml?paper={key}"' in page
        alone = await driver.get(f"{base}/receipt.xml?paper={key}")
        assert alone.headers["content-type"].startswith("application/xml")
        assert faults(alone.content) == []
        shown = (await staff.get(f"/invoices/{key}")).text
        assert f'href="/invoices/{key}/xml"' in shown and "syntax=ubl" not in shown
        assert "An XRechnung would need the" in shown
        assert (await staff.get(f"/invoices/{key}/xml")).content == alone.content
        assert (await api.get(f"/api/v1/invoices/{key}", headers=XML)).content == alone.content
        for pdf in (
            await driver.get(f"{base}/receipt.pdf?paper={key}"), await staff.get(f"/invoices/{key}/pdf"),
            await api.get(f"/api/v1/invoices/{key}", headers=PDF),
        ):  # fmt: skip
            assert pdf.headers["content-type"] == "application/pdf"
            assert facturx.get_xml_from_pdf(pdf.content, check_schematron=False) == (
                "factur-x.xml",
                alone.content,
            )
        books = await posted(visit.shop.database, visit.shop.tenant_id, one.id)
        sign = -1 if one.corrects_id else 1
        totals = {"driver_receivable": "GrandTotalAmount", "revenue": "TaxBasisTotalAmount"}
        signs = {"driver_receivable": sign, "revenue": -sign, "vat_payable": -sign}
        for code, name in (totals | {"vat_payable": "TaxTotalAmount"}).items():
            assert Decimal(amount(alone.content, name) or "") * 100 * signs[code] == books[code]


async def test_a_corrected_supply_is_paid_once_over_all_its_papers(visit: Visit, house: House) -> None:
    """6.00 were paid, 2.40 given back: nothing is due on any of the three."""
    api = await api_of(house, visit)
    papers = await corrected(visit)
    said, xml = [], b""
    for one in papers:
        xml = (await api.get(f"/api/v1/invoices/{public_id('invoice', one.id)}", headers=XML)).content
        said.append(
            tuple(
                amount(xml, name) for name in ("GrandTotalAmount", "TotalPrepaidAmount", "DuePayableAmount")
            )
        )
    assert said == [("6.00", "6.00", "0.00"), ("6.00", "6.00", "0.00"), ("3.60", "3.60", "0.00")]
    assert text_at(xml, "ApplicableTradeSettlementFinancialCard", "ID") == ["4242"]


async def test_what_lay_above_the_hold_is_waived_in_the_xml_as_on_the_sheet(
    visit: Visit, house: House
) -> None:
    async with visit.shop.scope() as scope:
        await brands.update_profile(scope, SELLER)
    await visit.end(200, 60)  # 36.00, of which 30.00 are held
    async with visit.shop.scope() as scope:
        [invoice] = await settlement.list_papers(scope, visit.session_id)
    key = public_id("invoice", invoice.id)
    xml = (await (await api_of(house, visit)).get(f"/api/v1/invoices/{key}", headers=XML)).content
    assert faults(xml) == []
    names = ("GrandTotalAmount", "TotalPrepaidAmount", "RoundingAmount", "DuePayableAmount")
    assert [amount(xml, name) for name in names] == ["36.00", "30.00", "-6.00", "0.00"]
    assert "waived" in text_at(xml, "IncludedNote", "Content")[0]


async def test_a_part_given_back_and_then_the_rest_are_credit_notes_that_pass_the_rules(
    visit: Visit, house: House
) -> None:
    """6.00 were paid; 1.99 of it is credited, and then what is left."""
    async with visit.shop.scope() as scope:
        await brands.update_profile(scope, SELLER)
    await visit.end(60, 10)
    for amount_minor in (199, None):
        async with visit.shop.scope() as scope:
            payment = await payments.find_payment(scope, "charging_session", visit.session_id)
            assert payment is not None
            await settlement.refund(scope, payment.id, "a part of it", amount_minor=amount_minor)
        await visit.shop.jobs.run()
    async with visit.shop.scope() as scope:
        papers = await settlement.list_papers(scope, visit.session_id)
    api, said = await api_of(house, visit), []
    for one in papers:
        xml = (await api.get(f"/api/v1/invoices/{public_id('invoice', one.id)}", headers=XML)).content
        assert faults(xml) == []
        said.append((text_at(xml, "ExchangedDocument", "TypeCode")[0], amount(xml, "GrandTotalAmount")))
    assert said == [("380", "6.00"), ("381", "1.99"), ("381", "4.01")]


async def test_what_was_given_back_is_a_credit_note_of_type_381(visit: Visit, house: House) -> None:
    invoice, note = await refunded(visit)
    key = public_id("invoice", note.id)
    xml = (await (await api_of(house, visit)).get(f"/api/v1/invoices/{key}", headers=XML)).content
    assert faults(xml) == []
    assert text_at(xml, "ExchangedDocument", "TypeCode") == ["381"]
    assert text_at(xml, "InvoiceReferencedDocument", "IssuerAssignedID") == [invoice.number]


async def test_rest_gives_what_is_accepted_and_refuses_in_stable_codes(shop: Shop, house: House) -> None:
    """Without seller data it is a receipt: a sheet, but no e-invoice."""
    visit = await begin(shop)
    await visit.end(60, 10)
    async with shop.scope() as scope:
        key = public_id("invoice", (await scope.db.execute(select(Invoice.id))).scalar_one())
    api, path = await api_of(house, visit), f"/api/v1/invoices/{key}"
    for accept in ("*/*", "application/json", "application/*;q=0.5, application/json"):
        answer = await api.get(path, headers={"Accept": accept})
        assert answer.json()["id"] == key and len(answer.json()["lines"]) == 1
    assert (await api.get(path, headers=PDF)).content.startswith(b"%PDF-")
    refused = {
        "text/html": (406, "not_acceptable"), "application/xml": (409, "not_an_invoice"),
    }  # fmt: skip
    for accept, expected in refused.items():
        answer = await api.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == expected
    staff = await house.staff("alpha", shop.tenant_id)
    assert "/xml" not in (await staff.get(f"/invoices/{key}")).text
    assert (await staff.get(f"/invoices/{key}/xml")).status_code == 409


async def test_an_xrechnung_is_refused_by_what_lacks(visit: Visit, house: House) -> None:
    [invoice, _note] = await refunded(visit)
    api, path = await api_of(house, visit), f"/api/v1/invoices/{public_id('invoice', invoice.id)}"
    answer = await api.get(f"{path}?syntax=ubl", headers=XML)
    assert (answer.status_code, answer.json()["code"]) == (409, "einvoice_incomplete")
    assert "buyer.reference" in answer.text
    answer = await api.get(f"{path}?syntax=edifact", headers=XML)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


FLEET = {
    "name": "Flotte & Söhne GmbH", "address": "Kai 1", "postal_code": "20095", "city": "Hamburg", "country": "DE",
    "vat_id": "DE136695976", "email": "rechnung@flotte.example", "reference": "04011000-1234512345-06",
}  # fmt: skip


async def test_a_companys_monthly_invoice_is_for_the_company_and_an_xrechnung(
    yard: Yard, house: House
) -> None:
    """Staff say whom it is for at the group; what lacks or is wrong there is said at its field."""
    driver = await yard.driver("jule@example.org", collection="monthly", card="CARD1")
    staff = await house.staff("alpha", yard.shop.tenant_id)
    path = f"/driver-groups/{public_id('driver_group', driver.driver_group_id)}"
    form = {"name": "Flotte", "collection": "monthly"} | {
        f"invoice_{name}": value for name, value in FLEET.items()
    }
    await staff.read(path)
    wrong = await staff.post(path, form | {"invoice_vat_id": "DE1", "invoice_country": "Germany"})
    assert "The VAT id begins with" in wrong.text and "ISO 3166-1 alpha-2" in wrong.text
    assert (await staff.post(path, form)).status_code == 303
    page = (await staff.get(path)).text
    assert [value for value in FLEET.values() if f'value="{escape(value)}"' not in page] == []
    contact = {"support_email": "post@alpha.example", "support_phone": "+49 30 1"}
    async with yard.shop.scope() as scope:
        await brands.update_profile(scope, SELLER | contact)
    for days in (70, 71):
        await yard.charge("CARD1", utcnow() - timedelta(days=days))
    async with yard.shop.scope() as scope:
        assert await settlement.invoice_month(scope) == 1
        found = await paper.find_paper(scope, (await scope.db.execute(select(Invoice.id))).scalar_one())
        invoice, content = found.invoice, found.content("Europe/Berlin")
    assert content["facts"][0][1] == [
        "Flotte & Söhne GmbH", "Kai 1", "20095 Hamburg", "DE", "VAT id DE136695976",
        "Your reference: 04011000-1234512345-06", "rechnung@flotte.example",
    ]  # fmt: skip
    key = public_id("invoice", invoice.id)
    assert "syntax=ubl" in (await staff.get(f"/invoices/{key}")).text
    xml = (await staff.get(f"/invoices/{key}/xml")).content
    assert faults(xml) == []
    assert text_at(xml, "BuyerTradeParty", "SpecifiedTaxRegistration", "ID") == ["DE136695976"]
    api = await house.api("alpha", yard.shop.tenant_id)
    xrechnung = (await api.get(f"/api/v1/invoices/{key}?syntax=ubl", headers=XML)).content
    assert faults(xrechnung) == []
    assert text_at(xrechnung, "Invoice", "BuyerReference") == [FLEET["reference"]]
    books = await posted(yard.shop.database, yard.shop.tenant_id, invoice.id)
    assert (
        Decimal(text_at(xrechnung, "LegalMonetaryTotal", "PayableAmount")[0]) * 100
        == books["driver_receivable"]
    )
