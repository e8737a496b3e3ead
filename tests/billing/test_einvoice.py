"""E-invoices keep the rules of EN 16931, and say what the paper says: whatever was charged, in whatever currency."""

import dataclasses
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from random import Random
from typing import Any
from uuid import UUID, uuid4

import facturx
import pytest
from lxml import etree
from pypdf import PdfReader
from sqlalchemy import func, select

from app.billing import einvoice, paper, service
from app.billing.models import Invoice, InvoiceLine, LedgerAccount, LedgerEntry, LedgerTxn, Payment
from app.billing.paper import Paper
from app.billing.payments import Settled
from app.billing.service import Line
from app.charging.models import CDR
from app.charging.settlement import lines_of
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, Refused
from app.kernel.money import exponent, to_decimal
from tenants.database import Database
from tests.billing.en16931 import amount, faults, text_at
from tests.cast import NORDLICHT, STAFF, hire
from tests.conftest import Proof
from tests.tariffs.random_tariffs import case
from tests.tariffs.test_brute_force import engine

SELLER = {
    "name": "Nordlicht", "legal_name": "Nordlicht Ladenetz GmbH", "address": "Am Leuchtturm 7", "postal_code": "24999",
    "city": "Hafenstadt", "country": "DE", "vat_id": "DE123456789", "tax_number": "", "support_email": "post@n.example",
    "support_phone": "+49 431 1234",
}  # fmt: skip
COMPANY = {
    "name": "Flotte & Söhne <GmbH>", "email": "rechnung@flotte.example", "address": "Kai 1", "postal_code": "20095",
    "city": "Hamburg", "country": "DE", "vat_id": "DE987654321", "reference": "04011000-1234512345-06",
}  # fmt: skip
NASTY = "\x00\x07<b>&amp;\x1f]]>\u202e\uffff ü"
COLOR = "#1f5fbf"
COUNT = 200
ISSUED = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)


def line(net: int = 1000, vat: int = 190, rate: str = "19", **more: Any) -> Line:
    one = Line(
        source_type="cdr", source_id=uuid4(), source_part="0", description="Energy, Hafen West", unit="kWh",
        quantity=Decimal(10), unit_price=Decimal(net) / 1000, vat_rate=Decimal(rate), vat_code=f"DE{rate}",
        net_minor=net, vat_minor=vat, gross_minor=net + vat,
    )  # fmt: skip
    return replace(one, **more)


def invoice_of(*lines: Line, currency: str = "EUR", **more: Any) -> Invoice:
    """As `service.issue_invoice` writes it."""
    rows = [InvoiceLine(line_no=number, kind="invoice", **dataclasses.asdict(one))
            for number, one in enumerate(lines, start=1)]  # fmt: skip
    values: dict[str, Any] = {
        "id": uuid7(), "kind": "invoice", "number": "INV-2026-000001", "issued_at": ISSUED,
        "issued_on": date(2026, 11, 24), "supplied_on": date(2026, 11, 24), "currency": currency,
        "net_minor": sum(one.net_minor for one in lines), "vat_minor": sum(one.vat_minor for one in lines),
        "gross_minor": sum(one.gross_minor for one in lines), "seller": SELLER, "supply": {}, "lines": rows,
        "buyer": {"name": "Guest", "email": "", "language": "en"}, "vat_groups": service.vat_groups(lines),
    }  # fmt: skip
    return Invoice(**values | more)


def note_of(invoice: Invoice) -> Paper:
    """The credit note over all of it."""
    lines = [service._turned(one) for one in invoice.lines]  # pyright: ignore[reportPrivateUsage]
    note = invoice_of(
        *lines, currency=invoice.currency, kind="credit_note", number="CN-2026-000001", corrects_id=invoice.id,
        buyer=invoice.buyer | {"reason": "the meter was wrong"}, seller=invoice.seller,
    )  # fmt: skip
    return Paper(invoice=note, corrects=invoice)


def xml_of(paper: Paper) -> bytes:
    return einvoice.as_cii(einvoice.data_of(paper))


# -- whatever was charged ---------------------------------------------------------------------------------------------


def random_lines(random: Random) -> tuple[str, list[Line]]:
    """Through the engine and the CDR, as a session's are made."""
    one = case(random)
    price = engine(one)
    cdr = CDR(
        id=uuid7(), started_at=one.stretches[0].start, currency=price.currency, price=price.as_json(),
        location={"country": random.choice(("DE", "FRA", "", "CH")), "time_zone": one.zone, "station": "CP1"},
    )  # fmt: skip
    return price.currency, [one for one in lines_of(cdr) if one.gross_minor or one.net_minor]


def check_all(invoice: Invoice) -> None:
    """The invoice and its credit note, in both syntaxes, hold the rules and the paper's own sums."""
    for one in (Paper(invoice=invoice), note_of(invoice)):
        data = einvoice.data_of(one)
        xml = einvoice.as_cii(data)
        assert faults(xml) == []
        assert faults(einvoice.as_xrechnung(data)) == []
        sums = [amount(xml, name) for name in ("TaxBasisTotalAmount", "TaxTotalAmount", "GrandTotalAmount")]
        said = (invoice.net_minor, invoice.vat_minor, invoice.gross_minor)
        assert sums == [str(to_decimal(minor, invoice.currency)) for minor in said]
        for row in data["BG-25"]:  # PEPPOL-EN16931-R120, which no rule here looks at
            more = sum(Decimal(one["amount"]) for one in row.get("BG-28", []))
            less = sum(Decimal(one["amount"]) for one in row.get("BG-27", []))
            exact = Decimal(row["BT-129"]) * Decimal(row["BT-146"]) + more - less
            assert abs(Decimal(row["BT-131"]) - exact) <= Decimal("0.02")


@pytest.mark.proof
def test_whatever_a_session_costs_its_invoice_and_credit_note_keep_the_rules(proof: Proof) -> None:
    random, count, tally = proof.random("e-invoices"), proof.share(COUNT), {"EUR": 0, "JPY": 0, "KWD": 0}
    while sum(tally.values()) < count:
        currency, lines = random_lines(random)
        if not lines:
            continue
        invoice = invoice_of(*lines, currency=currency, buyer=COMPANY | {"language": "de"})
        tally[currency] += 1
        if exponent(currency) > 2:
            with pytest.raises(Refused, match="two decimals"):
                einvoice.data_of(Paper(invoice=invoice))
        else:
            check_all(invoice)
    assert tally["EUR"] > count / 4
    proof.write("e-invoices", {"invoices with their credit notes": count, "by currency": tally})


SESSIONS = {
    "one rate": [line()],
    "several rates": [
        line(),
        line(501, 35, "7", unit="h"),
        line(100, 0, "0", unit=""),
        line(333, 85, "25.5"),
    ],
    "a minimum": [line(), line(250, 48, unit="", quantity=Decimal(1), unit_price=Decimal("2.5012"))],
    "a maximum": [line(), line(-400, -76, unit="", quantity=Decimal(1), unit_price=Decimal("-4.0034"))],
    "all is taken away": [line(), line(-1000, -190, unit="", quantity=Decimal(1), unit_price=Decimal(-10))],
    "a cent of tax alone": [line(), line(0, 1), line(-1, 1)],
    "no VAT": [line(1000, 0, "0")],
    "the same rate in two countries": [line(1000, 200, "20"), line(1000, 200, "20", vat_code="FR20")],
    "an unknown country": [line(1000, 0, "0", vat_code="--0")],
    "no words": [line(description="")],
    "what XML cannot hold": [line(description=NASTY * 20)],
}


@pytest.mark.parametrize("which", SESSIONS)
@pytest.mark.parametrize("currency", ["EUR", "CHF"])
def test_every_kind_of_line_keeps_the_rules(which: str, currency: str) -> None:
    check_all(invoice_of(*SESSIONS[which], currency=currency, buyer=COMPANY | {"language": "en"}))


@pytest.mark.parametrize(
    "seller",
    [{"vat_id": "CHE123456789MWST", "country": "CH"}, {"vat_id": "EL123456789", "country": "GR"},
     {"vat_id": "", "tax_number": "12/345/67890"}, {"support_email": "", "support_phone": ""}, {"name": NASTY},
     {"name": "Nordlicht Ladenetz GmbH"}, {"country": "DEU"}],
)  # fmt: skip
@pytest.mark.parametrize(
    "buyer",
    [{"name": "Guest", "email": ""}, {"name": "", "email": "jule@example.org"}, {"name": "", "email": ""}, COMPANY,
     {"name": NASTY, "email": NASTY}],
)  # fmt: skip
def test_a_numbered_invoice_has_all_that_is_needed(seller: dict[str, str], buyer: dict[str, str]) -> None:
    """Whoever bought, and whatever else the seller has told than what gives an invoice its number."""
    invoice = invoice_of(line(), seller=SELLER | seller, buyer=buyer | {"language": "de"})
    for one in (Paper(invoice=invoice), note_of(invoice)):
        assert faults(xml_of(one)) == []


def test_the_checker_refuses_what_is_wrong() -> None:
    """Each total a cent off, a tax off, no seller's country: else the rules above would prove nothing."""
    data = einvoice.data_of(Paper(invoice=invoice_of(*SESSIONS["several rates"])))
    for name in ("BT-106", "BT-109", "BT-110", "BT-112", "BT-115"):
        assert faults(einvoice.as_cii(data | {name: str(Decimal(data[name]) + Decimal("0.01"))})), name
    for changed in ({"BT-117": "3.00"}, {"BT-116": "9.99"}, {"BT-119": "18"}):
        groups = [*data["BG-23"][:-1], data["BG-23"][-1] | changed]
        assert faults(einvoice.as_cii(data | {"BG-23": groups})), changed
    seller = {name: value for name, value in data["BG-4"].items() if name != "country_code"}
    assert any("BR-09" in one or "BR-08" in one for one in faults(einvoice.as_cii(data | {"BG-4": seller})))


@pytest.mark.parametrize("off", [-101, -100, -99, 99, 100, 101])
@pytest.mark.parametrize("net", [100_000, 100_003])
def test_our_tolerance_of_tax_is_the_rules_own(net: int, off: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """BR-CO-17, BR-S-09: less than one whole unit of the currency."""
    vat = 19_000 + off
    invoice = invoice_of(line(net, vat))
    is_right = service.is_tax_of(vat, net, Decimal(19), "EUR")
    if not is_right:
        with pytest.raises(Refused, match="BR-CO-17") as refused:
            einvoice.data_of(Paper(invoice=invoice))
        assert refused.value.code == "einvoice_amounts"
    monkeypatch.setattr(einvoice, "_check_amounts", lambda _invoice: None)
    assert (faults(xml_of(Paper(invoice=invoice))) == []) is is_right


def test_a_months_many_sessions_of_one_price_are_on_as_many_invoices_as_their_tax_needs() -> None:
    """Of 0.10 with 19 % tax 0.02 are tax (0.016 exactly): after some hundreds that is a whole euro too much."""
    sessions = [[line(8, 2), line(100, 7, "7")] for _ in range(700)]
    bundles = service.bundle(sessions, "EUR")
    assert [len(lines) for lines in bundles] == [2 * 207, 2 * 207, 2 * 207, 2 * 79]
    assert [one for lines in bundles for one in lines] == [one for lines in sessions for one in lines]
    assert faults(xml_of(Paper(invoice=invoice_of(*bundles[0])))) == []
    with pytest.raises(Refused, match="BR-CO-17"):
        einvoice.data_of(Paper(invoice=invoice_of(*(one for lines in sessions for one in lines))))
    assert service.bundle(sessions[:100], "EUR") == [[one for lines in sessions[:100] for one in lines]]
    assert service.bundle([], "EUR") == []


# -- what it says -----------------------------------------------------------------------------------------------------


def payment_of(captured: int, *, hold: int = 3000, state: str = "captured") -> Payment:
    return Payment(
        currency="EUR", hold_minor=hold, captured_minor=captured, refunded_minor=0, state=state, failure="",
        refunded_outside_minor=0, refund_failed_minor=0, repaid_minor=0, method="Visa •••• 4242", is_live=True,
    )  # fmt: skip


def said_of(xml: bytes) -> tuple[str | None, ...]:
    return tuple(amount(xml, name) for name in ("TotalPrepaidAmount", "RoundingAmount", "DuePayableAmount"))


@pytest.mark.parametrize(
    ("captured", "waived", "state", "said"),
    [(1190, 0, "captured", ("11.90", None, "0.00")), (1000, 190, "captured", ("10.00", "-1.90", "0.00")),
     (0, 1190, "canceled", (None, "-11.90", "0.00")), (0, 0, "capturing", (None, None, "11.90"))],
)  # fmt: skip
def test_what_was_paid_and_waived_is_as_on_the_sheet(
    captured: int, waived: int, state: str, said: tuple[str | None, ...]
) -> None:
    payment = payment_of(captured, hold=captured or 3000, state=state)
    settled = Settled(payment=payment, waived_minor=waived)
    one = Paper(invoice=invoice_of(line()), settled=settled, paid_by=payment)
    xml = xml_of(one)
    assert faults(xml) == []
    assert said_of(xml) == said
    assert text_at(xml, "SpecifiedTradeSettlementPaymentMeans", "TypeCode") == ["48"]
    assert text_at(xml, "ApplicableTradeSettlementFinancialCard", "ID") == ["4242"]
    assert bool(text_at(xml, "SpecifiedTradePaymentTerms", "Description")) is (said[-1] != "0.00")
    sheet = one.content("Europe/Berlin")
    assert text_at(xml, "IncludedNote", "Content") == ([sheet["waived"]] if waived else [])


@pytest.mark.parametrize(
    ("captured", "to_come", "said"),
    [(1190, 0, ("11.90", None, "0.00")), (1190, 1190, (None, None, "11.90")), (1000, 300, ("7.00", "-1.90", "3.00"))],
)  # fmt: skip
def test_a_credit_note_owes_what_is_still_to_be_given_back(
    captured: int, to_come: int, said: tuple[str | None, ...]
) -> None:
    """Type 381 with positive amounts, and names its invoice."""
    payment = payment_of(captured, hold=captured)
    note = note_of(invoice_of(line()))
    waiting = [(note.invoice.issued_at, to_come, False)] if to_come else []
    note = replace(note, paid_by=payment, given_back=waiting)
    xml = xml_of(note)
    assert faults(xml) == []
    assert said_of(xml) == said
    assert (amount(xml, "GrandTotalAmount"), text_at(xml, "ExchangedDocument", "TypeCode")) == (
        "11.90",
        ["381"],
    )
    assert text_at(xml, "InvoiceReferencedDocument", "IssuerAssignedID") == ["INV-2026-000001"]
    told = text_at(xml, "IncludedNote", "Content")[0].splitlines()
    assert told == ["the meter was wrong", *filter(None, [note.content("Europe/Berlin")["waived"]])]


def test_a_supply_is_told_by_the_days_of_its_place() -> None:
    supply = {
        "start_at": "2026-11-24T22:30:00+00:00",
        "end_at": "2026-11-24T23:10:00+00:00",
        "place": "DE*N*E1",
    }
    xml = xml_of(Paper(invoice=invoice_of(line(), supply=supply | {"time_zone": "Europe/Berlin"})))
    assert faults(xml) == []
    days = [
        text_at(xml, "BillingSpecifiedPeriod", f"{end}DateTime", "DateTimeString") for end in ("Start", "End")
    ]
    assert days == [["20261124"], ["20261125"]]


# -- where there is none ----------------------------------------------------------------------------------------------


def test_a_receipt_has_no_e_invoice() -> None:
    receipt = Paper(invoice=invoice_of(line(), kind="receipt", number=None))
    with pytest.raises(Refused) as refused:
        einvoice.data_of(receipt)
    assert refused.value.code == "not_an_invoice" and einvoice.find_data(receipt) is None


@pytest.mark.parametrize("currency", ["KWD", "DEM"])
def test_a_currency_that_no_e_invoice_can_name_still_has_its_sheet(currency: str) -> None:
    one = Paper(invoice=invoice_of(line(), currency=currency))
    with pytest.raises(Refused) as refused:
        einvoice.data_of(one)
    assert refused.value.code == "einvoice_amounts"
    assert einvoice.as_hybrid_pdf(one.content("Europe/Berlin", COLOR), einvoice.find_data(one)).startswith(
        b"%PDF-"
    )


@pytest.mark.parametrize(
    ("seller", "fields"),
    [({"vat_id": ""}, ["seller.vat_id"]),
     ({"legal_name": " ", "country": ""}, ["seller.legal_name", "seller.country"])],
)  # fmt: skip
def test_what_lacks_is_named(seller: dict[str, str], fields: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        einvoice.data_of(Paper(invoice=invoice_of(line(), seller=SELLER | seller)))
    assert refused.value.code == "einvoice_incomplete"
    assert [fault.field for fault in refused.value.faults] == fields


def test_an_xrechnung_names_what_lacks_for_it() -> None:
    """BR-DE-6, 8, 9, 15, and the buyer's electronic address."""
    data = einvoice.data_of(Paper(invoice=invoice_of(line(), seller=SELLER | {"support_phone": ""})))
    with pytest.raises(Refused) as refused:
        einvoice.xml_file(data, "ubl")
    assert refused.value.code == "einvoice_incomplete"
    assert [fault.field for fault in refused.value.faults] == [
        "seller.support_phone", "buyer.reference", "buyer.city", "buyer.postal_code", "buyer.email",
    ]  # fmt: skip
    assert len(einvoice.lacks_for_xrechnung(data)) == 5
    with pytest.raises(Invalid):
        einvoice.xml_file(data, "edifact")


def test_an_xrechnung_says_whose_it_is_and_to_whom() -> None:
    payment = payment_of(1000, hold=1000)
    settled = Settled(payment=payment, waived_minor=190)
    invoice = invoice_of(line(), currency="CHF", buyer=COMPANY | {"language": "de"})
    xml = einvoice.as_xrechnung(einvoice.data_of(Paper(invoice=invoice, settled=settled)))
    assert faults(xml) == []
    assert text_at(xml, "Invoice", "CustomizationID") == [einvoice.XRECHNUNG]
    assert text_at(xml, "Invoice", "BuyerReference") == [COMPANY["reference"]]
    assert text_at(xml, "Party", "EndpointID") == ["post@n.example", COMPANY["email"]]
    assert text_at(xml, "CardAccount", "PrimaryAccountNumberID") == ["4242"]
    assert text_at(xml, "LegalMonetaryTotal", "PayableRoundingAmount") == ["-1.90"]
    assert {one.get("currencyID") for one in etree.fromstring(xml).iter() if one.get("currencyID")} == {"CHF"}
    note = etree.fromstring(einvoice.as_xrechnung(einvoice.data_of(note_of(invoice))))
    assert etree.QName(note).localname == "CreditNote"


# -- in the PDF -------------------------------------------------------------------------------------------------------


def test_the_pdf_holds_the_xml_that_is_given_alone() -> None:
    """PDF/A-3b (ISO 19005-3): the file is related to the sheet, and both say what they are."""
    one = Paper(invoice=invoice_of(*SESSIONS["several rates"], buyer=COMPANY | {"language": "de"}))
    data = einvoice.data_of(one)
    pdf = einvoice.as_hybrid_pdf(one.content("Europe/Berlin", COLOR), data)
    held = facturx.get_xml_from_pdf(pdf, check_xsd=True, check_schematron=False)
    assert held == ("factur-x.xml", einvoice.as_cii(data))
    reader: Any = PdfReader(BytesIO(pdf))
    catalogue = reader.trailer["/Root"]
    [related] = catalogue["/AF"]
    assert related.get_object()["/AFRelationship"] == "/Alternative"
    assert catalogue["/OutputIntents"] and catalogue["/Lang"] == "de"
    told = etree.fromstring(catalogue["/Metadata"].get_data())
    ids = {etree.QName(found).localname: found.text for found in told.iter() if isinstance(found.tag, str)}
    assert (ids["part"], ids["conformance"]) == ("3", "B")
    assert (ids["DocumentFileName"], ids["ConformanceLevel"]) == ("factur-x.xml", "EN 16931")
    assert "INV-2026-000001" in reader.pages[0].extract_text()


@pytest.mark.parametrize("name", ["漢字", "\U0001f600"])
def test_a_name_in_letters_that_pdf_a_cannot_show_still_has_its_sheet(name: str) -> None:
    one = Paper(invoice=invoice_of(line(), buyer={"name": name, "email": "", "language": "en"}))
    assert einvoice.as_hybrid_pdf(one.content("Europe/Berlin", COLOR), einvoice.data_of(one)).startswith(
        b"%PDF-"
    )
    assert faults(xml_of(one)) == []


def test_a_receipt_is_a_sheet_alone() -> None:
    one = Paper(invoice=invoice_of(line(), kind="receipt", number=None))
    pdf = einvoice.as_hybrid_pdf(one.content("Europe/Berlin", COLOR), einvoice.find_data(one))
    reader: Any = PdfReader(BytesIO(pdf))
    assert len(reader.pages) == 1 and "/AF" not in reader.trailer["/Root"]


# -- and the books ----------------------------------------------------------------------------------------------------


async def posted(database: Database, tenant_id: UUID, invoice_id: UUID) -> dict[str, int]:
    """What was booked of a paper, by account, minor units, + debit."""
    query = (
        select(LedgerAccount.code, func.sum(LedgerEntry.amount_minor))
        .join(LedgerEntry, LedgerEntry.account_id == LedgerAccount.id)
        .join(LedgerTxn, LedgerTxn.id == LedgerEntry.txn_id)
        .where(LedgerTxn.source_type == "invoice", LedgerTxn.source_id == invoice_id)
        .group_by(LedgerAccount.code)
    )
    async with database.scope(tenant_id, STAFF) as scope:
        return {code: int(total) for code, total in (await scope.db.execute(query)).all()}


@pytest.mark.anyio
async def test_its_totals_are_those_of_the_books_to_the_cent(database: Database) -> None:
    cast = await hire(database, NORDLICHT)
    for which, session in SESSIONS.items():
        source = uuid4()
        lines = [replace(one, source_part=str(part), source_id=source, description="Energy")
                 for part, one in enumerate(session)]  # fmt: skip
        async with database.scope(cast.tenant_id, STAFF) as scope:
            invoice = await service.issue_invoice(
                scope, currency="EUR", lines=lines, buyer={"name": "B", "email": ""}, supplied_at=ISSUED
            )
            note = await service.credit_source(scope, "cdr", source, "the meter was wrong")
            assert invoice is not None and note is not None
            papers = [await paper.find_paper(scope, one.id) for one in (invoice, note)]
        for one, sign in zip(papers, (1, -1), strict=True):
            xml = xml_of(one)
            assert faults(xml) == [], which
            books = await posted(database, cast.tenant_id, one.invoice.id)
            said = {
                "driver_receivable": (amount(xml, "GrandTotalAmount"), sign),
                "revenue": (amount(xml, "TaxBasisTotalAmount"), -sign),
                "vat_payable": (amount(xml, "TaxTotalAmount"), -sign),
            }
            for code, (shown, side) in said.items():
                assert Decimal(shown or "") * 100 * side == books.get(code, 0), (which, code)
