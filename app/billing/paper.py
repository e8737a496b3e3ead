"""An invoice as PDF, set by typst from plain data: nothing a person wrote is ever part of the program that sets it."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import typst
from babel.dates import format_date
from babel.numbers import format_currency, format_decimal

from app.billing.models import Invoice, Payment
from app.kernel.money import to_decimal
from themes.language import N_, _, current

NAMES = {
    "invoice": N_("Invoice"), "credit_note": N_("Credit note"), "receipt": N_("Receipt"),
    "receipt_reversal": N_("Receipt reversed"),
}  # fmt: skip

# All words come in as data; `it.…` are strings and typst shows a string as it is.
_SHEET = b"""
#let it = json(bytes(sys.inputs.content))
#set document(title: it.title, author: it.seller_name)
#set page(paper: "a4", margin: (x: 22mm, y: 24mm), footer: align(center, text(8pt, fill: luma(90), it.footer)))
#set text(10pt, lang: it.language)
#let muted(body) = text(9pt, fill: luma(80), body)
#grid(columns: (1fr, auto),
  [#text(15pt, weight: "bold", it.seller_name) \\ #muted(it.seller_lines.join("\\n"))],
  align(right)[#text(13pt, weight: "bold", it.name) \\ #it.number])
#v(4mm)
#line(length: 100%, stroke: 2pt + rgb(it.color))
#v(4mm)
#if it.notice != "" { block(fill: luma(240), inset: 8pt, radius: 3pt, width: 100%, it.notice) }
#grid(columns: (1fr, 1fr, 1fr), gutter: 6mm,
  [#muted("Buyer") \\ #it.buyer], [#muted("Issued") \\ #it.issued], [#muted("Supplied") \\ #it.supplied])
#v(6mm)
#table(columns: (1fr, auto, auto, auto, auto), stroke: none, inset: (x: 4pt, y: 5pt),
  align: (left, right, right, right, right),
  table.header(..it.head.map(one => text(9pt, weight: "bold", one))), table.hline(stroke: 0.5pt),
  ..it.lines.flatten(), table.hline(stroke: 0.5pt))
#align(right, grid(columns: (auto, auto), column-gutter: 10mm, row-gutter: 2.5mm, align: (left, right),
  ..it.totals.flatten(), text(weight: "bold", it.total.at(0)), text(weight: "bold", it.total.at(1))))
#v(6mm)
#muted(it.paid)
"""


def content_of(invoice: Invoice, payment: Payment | None, time_zone: str, color: str) -> dict[str, Any]:
    """Everything the sheet says, as strings."""
    seller, currency = invoice.seller, invoice.currency
    place = " ".join(filter(None, (seller.get("postal_code"), seller.get("city"))))
    tax = next((f"{word} {seller[name]}" for word, name in ((_("VAT id"), "vat_id"), (_("Tax number"), "tax_number"))
                if seller.get(name)), "")  # fmt: skip
    name = _(NAMES[invoice.kind])
    return {
        "title": f"{name} {invoice.number or ''}".strip(), "name": name, "number": invoice.number or "",
        "color": color,
        "seller_name": seller.get("legal_name") or seller.get("name") or "",
        "seller_lines": [line for line in (seller.get("address"), place, tax) if line],
        "language": current(), "notice": _(_NOT_AN_INVOICE) if invoice.number is None else "",
        "buyer": "\n".join(filter(None, (invoice.buyer.get("name"), invoice.buyer.get("email")))) or "-",
        "issued": format_date(invoice.issued_at.astimezone(ZoneInfo(time_zone)), "d MMMM y", locale=current()),
        "supplied": format_date(invoice.supplied_on, "d MMMM y", locale=current()),
        "head": [_("What"), _("Amount"), _("Price"), _("VAT"), _("Gross")],
        "lines": [
            [line.description, _amount(line.quantity, line.unit), _number(line.unit_price),
             f"{_number(line.vat_rate)} %", _money(line.gross_minor, currency)]
            for line in invoice.lines
        ],
        "totals": [[_("Net"), _money(invoice.net_minor, currency)]] + [
            [f"{_('VAT')} {_number(Decimal(group['vat_rate']))} %", _money(group["vat_minor"], currency)]
            for group in invoice.vat_groups
        ],
        "total": [_("Total"), _money(invoice.gross_minor, currency)], "paid": _paid(payment, time_zone),
        "footer": " · ".join(filter(None, (seller.get("support_email"), seller.get("support_phone")))),
    }  # fmt: skip


_NOT_AN_INVOICE = N_(
    "This is a receipt, not an invoice: the seller's legal name, address and tax number are missing."
)


def _money(amount_minor: int, currency: str) -> str:
    return format_currency(to_decimal(amount_minor, currency), currency, locale=current())


def _number(value: Decimal) -> str:
    return format_decimal(value, "#,##0.####", locale=current())


def _amount(quantity: Decimal, unit: str) -> str:
    return f"{_number(quantity)} {unit}".strip()


def _paid(payment: Payment | None, time_zone: str) -> str:
    if payment is None or not payment.captured_minor:
        return ""
    words = _("%(amount)s paid by card %(card)s") % {
        "amount": _money(payment.captured_minor, payment.currency), "card": payment.method,
    }  # fmt: skip
    at: datetime | None = payment.observed_at
    if at is not None:
        words += format_date(at.astimezone(ZoneInfo(time_zone)), " d MMMM y", locale=current())
    if payment.refunded_minor:
        words += "; " + _("%(amount)s given back") % {
            "amount": _money(payment.refunded_minor, payment.currency)
        }
    return words + ("" if payment.is_live else f" ({_('test money')})")


def as_pdf(content: dict[str, Any]) -> bytes:
    """20 to 70 ms of processor time: call it in a thread."""
    return typst.compile(_SHEET, sys_inputs={"content": json.dumps(content)})
