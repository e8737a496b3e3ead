"""The PDF says what the books say, and nothing that a person wrote is ever run."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from app.billing import paper
from app.billing.models import Invoice, InvoiceLine
from app.kernel.clock import uuid7

NASTY = '#panic("x") *b* _i_ $x$ `raw` @ref <label> \\ "quoted" [#sys.inputs] \u202e // comment'


def _invoice(text: str, number: str | None = "INV-2026-000001") -> Invoice:
    line = InvoiceLine(
        line_no=1, description=text, quantity=Decimal("10.5"), unit="kWh", unit_price=Decimal("0.45"),
        vat_rate=Decimal(19), vat_code="DE19", net_minor=473, vat_minor=90, gross_minor=563, source_type="cdr",
        source_id=uuid7(), source_part="0", kind="invoice",
    )  # fmt: skip
    return Invoice(
        kind="invoice" if number else "receipt", number=number, issued_at=datetime(2026, 11, 23, 23, 30, tzinfo=UTC),
        supplied_on=date(2026, 11, 24), currency="EUR", net_minor=473, vat_minor=90, gross_minor=563, lines=[line],
        seller={"legal_name": text, "address": text, "city": text, "vat_id": "DE1", "support_email": text},
        buyer={"name": text, "email": text}, vat_groups=[{"vat_rate": "19", "vat_minor": 90}],
    )  # fmt: skip


@pytest.mark.parametrize("text", ["Nordlicht Ladenetz GmbH", NASTY, "x" * 2000, ""])
def test_any_text_is_set_as_text(text: str) -> None:
    pdf = paper.as_pdf(paper.content_of(_invoice(text), None, "Europe/Berlin", "#1f5fbf"))
    assert pdf.startswith(b"%PDF-")


def test_days_are_the_tenants_and_amounts_the_books() -> None:
    content = paper.content_of(_invoice("A"), None, "Europe/Berlin", "#1f5fbf")
    assert (content["issued"], content["supplied"]) == ("24 November 2026", "24 November 2026")
    assert content["lines"] == [["A", "10.5 kWh", "0.45", "19 %", "€5.63"]]
    assert (content["total"], content["notice"]) == (["Total", "€5.63"], "")


def test_what_is_no_invoice_says_so() -> None:
    assert (
        "not an invoice" in paper.content_of(_invoice("A", None), None, "Europe/Berlin", "#1f5fbf")["notice"]
    )
