"""An invoice, a credit note or a receipt as a sheet of paper: the words for page and PDF alike, and the PDF.

An issued paper keeps its words: all of it, headings, dates and amounts too, is in the language it was issued in (the
payer's, `Invoice.language`), whoever reads it, and the page around it may speak another. The PDF is set by typst from
plain data: nothing a person wrote is ever part of the program that sets it. `einvoice` puts the XML into it.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import typst

from app.billing import payments, queries, service
from app.billing.models import Invoice, InvoiceLine, Payment
from app.billing.payments import Settled, as_it_was
from app.kernel.errors import NotFound
from app.kernel.ids import parse_id, public_id
from app.kernel.money import per_minute
from app.kernel.secrets import digest, digests, same
from tenants.scope import Scope
from themes.language import N_, _, current, speaking
from themes.render import day, money, number, price, volume, zone_name

NAMES = {
    "invoice": N_("Invoice"), "credit_note": N_("Credit note"), "receipt": N_("Receipt"),
    "receipt_reversal": N_("Receipt reversed"),
}  # fmt: skip
_NOT_AN_INVOICE = N_(
    "This is a receipt, not an invoice: the seller's legal name, address and tax number are missing."
)
_WAIVED = {
    "below_minimum": N_("Nothing is to be paid: %(amount)s is too little for a card and is waived."),
    "not_taken": N_("Nothing is to be paid: %(amount)s could not be taken from the card any more and is waived."),
    "above_hold": N_("%(amount)s lay above what was held on the card: that part is waived and not to be paid."),
    "corrected": N_("%(amount)s was not taken when this was paid: that part is waived and not to be paid."),
}  # fmt: skip
# Why no VAT is charged, by UNTDID 5305.
REASONS = {
    "AE": N_("Reverse charge: the recipient owes the VAT (Article 196 of Directive 2006/112/EC)."),
    "O": N_("Not subject to VAT here: the service is supplied where the recipient is established."),
}
_WAIVED_OF_WALLET = {
    "not_taken": N_("Nothing is to be paid: %(amount)s could not be taken from the wallet any more and is waived."),
    "above_hold": N_("%(amount)s lay above what was kept of the wallet: that part is waived and not to be paid."),
}  # fmt: skip
_WAIVED_OF_VOUCHER = {
    "not_taken": N_("Nothing is to be paid: %(amount)s could not be taken from the voucher any more and is waived."),
    "above_hold": N_("%(amount)s lay above what was kept of the voucher: that part is waived and not to be paid."),
}  # fmt: skip
_WAIVED_OF = {payments.WALLET: _WAIVED_OF_WALLET, payments.VOUCHER: _WAIVED_OF_VOUCHER}
_PAID_BY = {payments.WALLET: N_("Paid from the wallet"), payments.VOUCHER: N_("Paid by voucher")}
_LINK = "paper-link"
_FIRM = "\u00a0"  # a space at which no line is broken: a figure and its unit stay together

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
#for notice in (it.not_an_invoice, it.waived, it.tax_note).filter(one => one != "") {
  block(fill: luma(240), inset: 8pt, radius: 3pt, width: 100%, notice)
}
#if it.corrects.len() > 0 { block(below: 6mm, it.corrects.join("\\n")) }
#grid(columns: (1fr, 1fr, 1fr), gutter: 6mm,
  ..it.facts.map(fact => [#muted(fact.at(0)) \\ #fact.at(1).join("\\n")]))
#v(6mm)
#table(columns: (1fr, auto, auto, auto, auto, auto), stroke: none, inset: (x: 6pt, y: 5pt),
  align: (left, right, right, right, right, right),
  table.header(..it.head.map(one => text(9pt, weight: "bold", one))), table.hline(stroke: 0.5pt),
  ..it.lines.map(one => (one.what, one.amount,
    if one.net_price == "" [#one.price] else [#one.price \\ #muted(one.net_price)],
    one.vat, one.net, one.gross)).flatten(),
  table.hline(stroke: 0.5pt))
#align(right, grid(columns: (auto, auto), column-gutter: 10mm, row-gutter: 2.5mm, align: (left, right),
  ..it.totals.map(one => if one.at(2) { (strong(one.at(0)), strong(one.at(1))) } else { (one.at(0), one.at(1)) })
    .flatten()))
#v(6mm)
#muted(it.paid)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """An invoice, credit note or receipt and what its sheet tells beside it.

    `settled` is how the payment stands that it is settled by; of a paper that was corrected since, None, and `paid_by`
    that payment: what came later stands on later papers, and this one keeps what it said. `corrects` is a credit note's
    invoice. `given_back` are the payment's refunds (`payments.list_given_back`).
    """

    invoice: Invoice
    settled: Settled | None = None
    corrects: Invoice | None = None
    paid_by: Payment | None = None
    given_back: Sequence[tuple[datetime, int, bool]] = ()

    def content(self, time_zone: str, color: str = "") -> dict[str, Any]:
        return content_of(
            self.invoice, self.settled, time_zone, color, corrects=self.corrects, paid_by=self.paid_by,
            given_back=self.given_back,
        )  # fmt: skip


async def find_paper(scope: Scope, invoice_id: UUID) -> Paper:
    """NotFound for none."""
    row = await service.get_invoice(scope, invoice_id)
    named = await payments.find_payment_of(scope, row)
    legs = await payments.legs_beside(scope, named) if named is not None else []
    payment = payments.as_one(legs)
    is_last = row.corrects_id is None and not await queries.list_corrections(scope, row.id)
    return Paper(
        invoice=row, paid_by=payment,
        corrects=await service.get_invoice(scope, row.corrects_id) if row.corrects_id else None,
        settled=await payments.find_settled_by(scope, legs) if is_last else None,
        given_back=await payments.list_given_back(scope, payment),
    )  # fmt: skip


# -- the link --------------------------------------------------------------------------------------------------------


def link_of(scope: Scope, invoice_id: UUID) -> str:
    """`inv_….<26 letters>`: opens this one paper to whoever has it; 128 bits that only we can make, stored nowhere."""
    mac = digest(scope.settings.secret_keys, _LINK, f"{scope.tenant_id}:{invoice_id}")
    return f"{public_id('invoice', invoice_id)}.{_letters(mac)}"


def read_link(scope: Scope, link: str) -> UUID:
    """NotFound for anything that we did not make for this tenant."""
    shown, _dot, proof = link.partition(".")
    invoice_id = parse_id("invoice", shown)
    made = digests(scope.settings.secret_keys, _LINK, f"{scope.tenant_id}:{invoice_id}")
    if not any(same(_letters(mac).encode(), proof.encode()) for mac in made):
        raise NotFound("invoice")
    return invoice_id


def _letters(mac: bytes) -> str:
    return base64.b32encode(mac[:16]).decode().rstrip("=").lower()


def content_of(
    invoice: Invoice, settled: Settled | None, time_zone: str, color: str = "", *, corrects: Invoice | None = None,
    paid_by: Payment | None = None, given_back: Sequence[tuple[datetime, int, bool]] = (),
) -> dict[str, Any]:  # fmt: skip
    """Everything the sheet says, as strings in the paper's own language; the arguments are those of `Paper`.

    A credit note names what it corrects, with its date and the reason (UStDV section 31 (5)), and tells its own
    refunds, made or still to come, an invoice those before it. A line is {what, amount, price (with VAT, as drivers are
    told prices), net_price ("" where VAT adds nothing), vat, net, gross}; `totals` are [words, amount, is the sum];
    `facts` are [words, [lines]].
    """
    payment = settled.payment if settled else paid_by
    before = as_it_was(payment, invoice.gross_minor) if payment else None
    then = None if invoice.corrects_id else settled or before
    with speaking(invoice.language):
        return _content(invoice, then, time_zone, color) | {
            "waived": waived(then) or waived_before(corrects, payment),
            "corrects": _corrects(invoice, corrects, time_zone) if corrects else [],
            "paid": _kept(invoice) or _paid(invoice, settled, paid_by, given_back),
            "tax_note": "\n".join(_(words) for code, words in REASONS.items()
                                  if any(group.get("vat_code") == code for group in invoice.vat_groups)),
        }  # fmt: skip


def _content(invoice: Invoice, settled: Settled | None, time_zone: str, color: str) -> dict[str, Any]:
    seller, currency, name = invoice.seller, invoice.currency, _(NAMES[invoice.kind])
    charged = charged_of(invoice)
    tax = next((f"{word} {seller[name]}" for word, name in ((_("VAT id"), "vat_id"), (_("Tax number"), "tax_number"))
                if seller.get(name)), "")  # fmt: skip
    return {
        "title": f"{name} {invoice.number or ''}".strip(), "name": name, "number": invoice.number or "",
        "color": color, "language": current(),
        "seller_name": seller.get("legal_name") or seller.get("name") or "",
        "seller_lines": [line for line in (seller.get("address"), _town(seller), tax) if line],
        "not_an_invoice": _(_NOT_AN_INVOICE) if invoice.number is None else "",
        "facts": [
            [_("Buyer"), _buyer(invoice.buyer) or ["–"]],
            [_("Issued"), [_issued(invoice, time_zone)]],
            [_("Supplied"), [day(invoice.supplied_on)]],
            *([[_("Charged"), charged], [_("Charging point"), [invoice.supply["place"]]]] if charged else []),
        ],
        "lines_name": _("Lines"),
        "head": [_("What"), _("Amount"), _("Unit price, gross"), _("VAT"), _("Net"), _("Gross")],
        "lines": [_line(line, currency) for line in invoice.lines],
        "totals": [*_totals(invoice), *_remainder(invoice, settled)],
        "footer": " · ".join(filter(None, (seller.get("support_email"), seller.get("support_phone")))),
    }  # fmt: skip


def _town(party: dict[str, Any]) -> str:
    return " ".join(filter(None, (party.get("postal_code"), party.get("city"))))


def _buyer(buyer: dict[str, Any]) -> list[str]:
    vat_id, reference = buyer.get("vat_id"), buyer.get("reference")
    return [
        *filter(None, (buyer.get("name"), buyer.get("address"), _town(buyer), buyer.get("country"))),
        *([f"{_('VAT id')} {vat_id}"] if vat_id else []),
        *([_("Your reference: %(reference)s") % {"reference": reference}] if reference else []),
        *filter(None, (buyer.get("email"),)),
    ]


def _issued(invoice: Invoice, time_zone: str) -> str:
    return day(invoice.issued_at.astimezone(ZoneInfo(time_zone)))


def charged_of(invoice: Invoice) -> list[str]:
    """From when to when, by the clock of the place: one line for the day and one for the times, or one for each end of
    a night. Empty where the paper does not tell it. In the language that is being spoken."""
    if not invoice.supply:
        return []
    zone = ZoneInfo(invoice.supply["time_zone"])
    start, end = (
        datetime.fromisoformat(invoice.supply[name]).astimezone(zone) for name in ("start_at", "end_at")
    )
    if start.date() == end.date() and start.utcoffset() == end.utcoffset():
        return [day(start), f"{start:%H:%M}–{end:%H:%M}{_FIRM}{zone_name(end)}"]
    first, last = (f"{day(at)}, {at:%H:%M}{_FIRM}{zone_name(at)}" for at in (start, end))
    return [f"{first}{_FIRM}–", last]


def _corrects(note: Invoice, corrected: Invoice, time_zone: str) -> list[str]:
    issued, reason = _issued(corrected, time_zone), note.buyer.get("reason")
    if corrected.number:
        words = _("Corrects %(number)s of %(day)s") % {"number": corrected.number, "day": issued}
    else:
        words = _("Corrects the receipt of %(day)s") % {"day": issued}
    return [words, *([_("Reason: %(reason)s") % {"reason": reason}] if reason else [])]


def _line(line: InvoiceLine, currency: str) -> dict[str, str]:
    net, gross, unit = _unit_prices(line)
    per = f"{_FIRM}/{_FIRM}{unit}" if unit else ""
    return {
        "what": line.description, "amount": _amount(line), "price": price(round(gross, 4), currency) + per,
        "net_price": "" if net == gross else _("net %(price)s") % {"price": price(round(net, 4), currency)},
        "vat": _rate(line.vat_rate),
        "net": money(line.net_minor, currency), "gross": money(line.gross_minor, currency),
    }  # fmt: skip


def _unit_prices(line: InvoiceLine) -> tuple[Decimal, Decimal, str]:
    """Net, gross, and per what: time by the minute where the price page told it so, for drivers look for the price that
    they agreed to."""
    net = line.unit_price
    gross = net * (1 + line.vat_rate / 100)
    by_minute = per_minute(round(gross, 6)) if line.unit == "h" else None  # net is kept to eight decimals
    if by_minute is None:
        return net, gross, line.unit
    return net / 60, by_minute, "min"


def _rate(rate: Decimal) -> str:
    return f"{number(rate, '#,##0.###')}{_FIRM}%"


def _amount(line: InvoiceLine) -> str:
    """A credit note takes back as much as was billed."""
    words = volume({"unit": line.unit, "volume": abs(line.quantity)}).replace(" ", _FIRM)
    return f"-{words}" if line.unit and line.quantity < 0 else words


def _totals(invoice: Invoice) -> list[tuple[str, str, bool]]:
    """Net, VAT by rate, and what both come to."""
    currency = invoice.currency
    return [
        (_("Net"), money(invoice.net_minor, currency), False),
        *((f"{_('VAT')} {_rate(Decimal(group['vat_rate']))}", money(group["vat_minor"], currency), False)
          for group in invoice.vat_groups),
        (_("Total"), money(invoice.gross_minor, currency), True),
    ]  # fmt: skip


def _remainder(invoice: Invoice, settled: Settled | None) -> list[tuple[str, str, bool]]:
    """Where a part is waived: that it is, and what is left to pay."""
    if settled is None or not settled.why:
        return []
    currency, paid = invoice.currency, settled.paid_minor
    paid_by = _PAID_BY.get(settled.payment.provider, N_("Paid by card"))
    left = invoice.gross_minor - paid - settled.waived_minor
    return [
        *([(_(paid_by), money(-paid, currency), False)] if paid else []),
        (_("Waived"), money(-settled.waived_minor, currency), False),
        (_("To be paid"), money(left, currency), True),
    ]  # fmt: skip


def waived(settled: Settled | None) -> str:
    """That a part is not to be paid, or nothing, and why, in the language that is being spoken; empty where all was
    to be paid."""
    if settled is None or not settled.why:
        return ""
    words = _WAIVED | _WAIVED_OF.get(settled.payment.provider, {})
    return _(words[settled.why]) % {"amount": money(settled.waived_minor, settled.payment.currency)}


def waived_before(corrected: Invoice | None, payment: Payment | None) -> str:
    """For a credit note: that less was paid than it takes back. Empty where all was paid."""
    if corrected is None or payment is None:
        return ""
    then = as_it_was(payment, corrected.gross_minor)
    amount = money(then.waived_minor, payment.currency)
    return (
        _("%(amount)s of this had been waived and was never paid.") % {"amount": amount} if then.why else ""
    )


def _kept(invoice: Invoice) -> str:
    """Of the platform's own papers to its tenants: what moved their money before."""
    if not invoice.buyer.get("tenant"):
        return ""
    words = (
        _("Given back with your refunds: nothing is to be paid.")
        if invoice.corrects_id
        else _("Kept from your card payments: nothing is to be paid.")
    )
    return words + (f" ({_('test money')})" if invoice.is_test else "")


def _paid(
    invoice: Invoice, settled: Settled | None, paid_by: Payment | None,
    given_back: Sequence[tuple[datetime, int, bool]],
) -> str:  # fmt: skip
    """That an invoice was paid by card, and what earlier credit notes had given back of that; on a credit note what it
    gave back itself. What was given back without a note stands on the newest paper, if that is an invoice."""
    payment = settled.payment if settled else paid_by
    if payment is None or not payment.captured_minor:
        return ""
    if invoice.corrects_id:
        back_minor = sum(amount for at, amount, is_made in given_back if is_made and at == invoice.issued_at)
    else:
        back_minor = sum(amount for at, amount, is_made in given_back if is_made and at <= invoice.issued_at)
        back_minor = max(back_minor, payment.refunded_minor if settled else 0)
    back = money(back_minor, payment.currency) if back_minor else ""
    if payment.provider == payments.WALLET:
        words = _("%(amount)s given back to the wallet") % {"amount": back} if back else ""
        if not invoice.corrects_id:
            paid = _("%(amount)s paid from the wallet") % {
                "amount": money(payment.captured_minor, payment.currency)
            }
            words = "; ".join([paid, *([words] if words else [])])
    elif payment.provider == payments.VOUCHER:
        code = payment.method.split()[-1]
        words = (
            _("%(amount)s given back to voucher %(code)s") % {"amount": back, "code": code} if back else ""
        )
        if not invoice.corrects_id:
            amount = money(payment.captured_minor, payment.currency)
            paid = _("%(amount)s paid by voucher %(code)s") % {"amount": amount, "code": code}
            words = "; ".join([paid, *([words] if words else [])])
    elif payment.provider == payments.TERMINAL and not invoice.corrects_id:
        amount = money(payment.captured_minor, payment.currency)
        words = _("%(amount)s paid at the card terminal") % {"amount": amount}
        words += f", {payment.method}" if payment.method else ""
        words += "; " + _("%(amount)s given back") % {"amount": back} if back else ""
    elif invoice.corrects_id:
        is_otherwise = payment.repaid_minor > 0
        given = _("%(amount)s given back") if is_otherwise else _("%(amount)s given back to card %(card)s")
        given %= {"amount": back, "card": payment.method}
        to_come = sum(amount for at, amount, is_made in given_back if not is_made and at == invoice.issued_at)
        has_failed = payment.refund_failed_minor > 0  # then by which way is open
        still = _("%(amount)s still to be given back") if has_failed else _(
            "%(amount)s still to be given back to card %(card)s"
        )  # fmt: skip
        still %= {"amount": money(to_come, payment.currency), "card": payment.method}
        words = "; ".join([*([given] if back else []), *([still] if to_come else [])])
    else:
        amount = money(payment.captured_minor, payment.currency)
        words = _("%(amount)s paid by card %(card)s") % {"amount": amount, "card": payment.method}
        words += "; " + _("%(amount)s given back") % {"amount": back} if back else ""
    return words + (f" ({_('test money')})" if words and not payment.is_live else "")


def as_pdf(content: dict[str, Any]) -> bytes:
    """20 to 70 ms of processor time: call it in a thread. Without any standard, as every text can be set."""
    return typst.compile(_SHEET, sys_inputs={"content": json.dumps(content)})


def as_archive_pdf(content: dict[str, Any]) -> bytes | None:
    """The same as PDF/A-3b (ISO 19005-3), which may carry files. None where it holds a letter that no font here has:
    PDF/A forbids to show such a one at all."""
    try:
        return typst.compile(_SHEET, sys_inputs={"content": json.dumps(content)}, pdf_standards="a-3b")
    except typst.TypstError:
        return None
