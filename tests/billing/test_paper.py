"""The PDF says what the books say, and nothing that a person wrote is ever run."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from app.billing import paper
from app.billing.models import Invoice, InvoiceLine
from app.kernel.clock import uuid7
from app.tariffs.explain import explain
from app.tariffs.ocpi_tariff import PriceComponent, Tariff, TariffElement, TariffRestrictions

NASTY = '#panic("x") *b* _i_ $x$ `raw` @ref <label> \\ "quoted" [#sys.inputs] \u202e // comment'


def _invoice(text: str, number: str | None = "INV-2026-000001", language: str = "en") -> Invoice:
    line = InvoiceLine(
        line_no=1, description=text, quantity=Decimal("10.5"), unit="kWh", unit_price=Decimal("0.45"),
        vat_rate=Decimal(19), vat_code="DE19", net_minor=473, vat_minor=90, gross_minor=563, source_type="cdr",
        source_id=uuid7(), source_part="0", kind="invoice",
    )  # fmt: skip
    return Invoice(
        kind="invoice" if number else "receipt", number=number, issued_at=datetime(2026, 11, 23, 23, 30, tzinfo=UTC),
        supplied_on=date(2026, 11, 24), currency="EUR", net_minor=473, vat_minor=90, gross_minor=563, lines=[line],
        seller={"legal_name": text, "address": text, "city": text, "vat_id": "DE1", "support_email": text},
        buyer={"name": text, "email": text, "language": language}, vat_groups=[{"vat_rate": "19", "vat_minor": 90}],
        supply={},
    )  # fmt: skip


@pytest.mark.parametrize("text", ["Nordlicht Ladenetz GmbH", NASTY, "x" * 2000, ""])
def test_any_text_is_set_as_text(text: str) -> None:
    pdf = paper.as_pdf(paper.content_of(_invoice(text), None, "Europe/Berlin", "#1f5fbf"))
    assert pdf.startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("language", "day", "price", "net"),
    [("en", "24 November 2026", "€0.5355 / kWh", "net €0.45"),
     ("de", "24. November 2026", "0,5355 € / kWh", "netto 0,45 €")],
)  # fmt: skip
def test_days_are_the_tenants_and_amounts_the_books_in_the_papers_own_language(
    language: str, day: str, price: str, net: str
) -> None:
    content = paper.content_of(_invoice("A", language=language), None, "Europe/Berlin")
    [line] = content["lines"]
    assert [value for _name, (value, *_more) in content["facts"][1:]] == [day, day]
    assert [" ".join(line[name].split()) for name in ("price", "net_price")] == [price, net]
    money = {"en": "€5.63", "de": "5,63\xa0€"}[language]
    assert (line["gross"], content["totals"][-1][1], content["not_an_invoice"]) == (money, money, "")


def test_what_is_taken_back_is_as_long_as_what_was_billed() -> None:
    invoice = _invoice("A")
    for line, (quantity, unit) in zip(invoice.lines, [("-1.25", "h")], strict=True):
        line.quantity, line.unit = Decimal(quantity), unit
    assert paper.content_of(invoice, None, "Europe/Berlin")["lines"][0]["amount"].split() == [
        "-1",
        "h",
        "15",
        "min",
    ]


@pytest.mark.parametrize(
    ("net_per_hour", "vat", "told", "price", "net"),
    [("1.50", "0", "€0.025 per minute", "€0.025 / min", ""),
     ("1.2605042", "19", "€0.025 per minute", "€0.025 / min", "net €0.021"),  # told with its tax
     ("1.50", "19", "€1.785 per hour", "€1.785 / h", "net €1.50"),  # by the minute it has no end that people read
     ("5", "20", "€0.10 per minute", "€0.10 / min", "net €0.0833")],
)  # fmt: skip
def test_time_costs_by_the_unit_in_which_its_price_was_told(
    net_per_hour: str, vat: str, told: str, price: str, net: str
) -> None:
    component = PriceComponent(
        type="PARKING_TIME", price=round(Decimal(net_per_hour) * (1 + Decimal(vat) / 100), 4), step_size=1
    )
    element = TariffElement(price_components=(component,), restrictions=TariffRestrictions())
    assert explain(Tariff(currency="EUR", elements=(element,), tax_included="YES"))[0].startswith(told)
    invoice = _invoice("A")
    [line] = invoice.lines
    line.unit, line.quantity, line.unit_price = "h", Decimal("0.033333"), Decimal(net_per_hour)
    line.vat_rate = Decimal(vat)
    [shown] = paper.content_of(invoice, None, "Europe/Berlin")["lines"]
    assert [" ".join(shown[name].split()) for name in ("amount", "price", "net_price", "gross")] == [
        "2 min", price, net, "€5.63",
    ]  # fmt: skip


WHEN = {
    ("en", "2026-11-24T13:05:00+00:00", "2026-11-24T14:10:00+00:00", "Europe/Berlin"):
        ["24 November 2026", "14:05–15:10 CET"],
    ("de", "2026-07-24T13:05:00+00:00", "2026-07-24T14:10:00+00:00", "Europe/Berlin"):
        ["24. Juli 2026", "15:05–16:10 MESZ"],
    ("en", "2026-11-24T00:30:00+00:00", "2026-11-24T01:10:00+00:00", "Atlantic/Azores"):
        ["23 November 2026, 23:30 UTC-1 –", "24 November 2026, 00:10 UTC-1"],
    ("de", "2026-10-25T00:30:00+00:00", "2026-10-25T02:10:00+00:00", "Europe/Berlin"):
        ["25. Oktober 2026, 02:30 MESZ –", "25. Oktober 2026, 03:10 MEZ"],
}  # fmt: skip


@pytest.mark.parametrize(("language", "start", "end", "zone"), WHEN)
def test_a_paper_says_from_when_to_when_and_where(language: str, start: str, end: str, zone: str) -> None:
    invoice = _invoice("A", language=language)
    invoice.supply = {"start_at": start, "end_at": end, "time_zone": zone, "place": "DE*NLN*E1"}
    content = paper.content_of(invoice, None, "Europe/Berlin", "#1f5fbf")
    charged, point = ({"en": ("Charged", "Charging point"), "de": ("Geladen", "Ladepunkt")})[language]
    facts = {words: [" ".join(line.split()) for line in lines] for words, lines in content["facts"]}
    assert (facts[charged], facts[point]) == (WHEN[language, start, end, zone], ["DE*NLN*E1"])
    assert paper.as_pdf(content).startswith(b"%PDF-")


def test_a_paper_from_before_that_was_kept_stays_as_it_was_issued() -> None:
    assert len(paper.content_of(_invoice("A"), None, "Europe/Berlin")["facts"]) == 3


CORRECTED = {
    ("en", "INV-2026-000001"): ["Corrects INV-2026-000001 of 24 November 2026", f"Reason: {NASTY}"],
    ("de", "INV-2026-000001"): ["Berichtigt INV-2026-000001 vom 24. November 2026", f"Grund: {NASTY}"],
    ("en", None): ["Corrects the receipt of 24 November 2026", f"Reason: {NASTY}"],
    ("de", None): ["Berichtigt den Beleg vom 24. November 2026", f"Grund: {NASTY}"],
}


@pytest.mark.parametrize(("language", "number"), CORRECTED)
def test_a_credit_note_names_what_it_corrects_and_why(language: str, number: str | None) -> None:
    """UStDV section 31 (5): the invoice that is corrected is named, and unmistakably."""
    corrects, note = _invoice("A", number, language), _invoice("A", number and "CN-2026-000001", language)
    note.kind, note.buyer = "credit_note" if number else "receipt_reversal", note.buyer | {"reason": NASTY}
    content = paper.content_of(note, None, "Europe/Berlin", "#1f5fbf", corrects=corrects)
    assert content["corrects"] == CORRECTED[language, number]
    assert paper.as_pdf(content).startswith(b"%PDF-")
    assert paper.content_of(corrects, None, "Europe/Berlin")["corrects"] == []


def test_what_is_no_invoice_says_so() -> None:
    content = paper.content_of(_invoice("A", None), None, "Europe/Berlin")
    assert "not an invoice" in content["not_an_invoice"]
