"""A numbered invoice or credit note as an e-invoice by EN 16931: CII inside the PDF (Factur-X, ZUGFeRD) or alone, and
UBL by the German XRechnung.

Pure. The semantic model is a dict by the standard's own numbers (BT-…, BG-…), which `facturx` writes in either syntax.
Nothing is computed anew: amounts and words are the paper's. What is decided here (decision 0029):

- A credit note is type 381 with positive amounts, and names its invoice (BG-3). A price is never negative (BR-27): of a
  line that takes away, the quantity is.
- VAT is by rate, whatever country's it is (BR-S-08). A rate of 0 is Z where why none is charged is not kept, for each
  other category claims a reason: the platform's invoices do keep it (AE, O: `paper.REASONS`).
- What is waived is BT-114, so that what is to be paid (BT-115) is what the paper says. What a credit note gives back
  counts as paid (BT-113), and so does what the next invoice takes over.
- Who bought at a charger was never asked where they live: their country (BT-55) is then that of the supply.
- Amounts have at most two decimals (BR-DEC): a currency with three has no e-invoice, nor has one that is no more.
- Tax that is a whole unit of currency or more away from rate x net cannot be said (BR-CO-17): `service.bundle` keeps a
  month's invoices within that.

Errors: `not_an_invoice` (a receipt), `einvoice_incomplete` (its faults name what lacks), `einvoice_amounts`.
"""

import copy
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from litestar import Response

from app.billing import service
from app.billing.models import Invoice, InvoiceLine
from app.billing.paper import REASONS, Paper, as_archive_pdf, as_pdf, waived, waived_before
from app.billing.payments import PAID_AHEAD, as_it_was
from app.kernel.errors import FieldFault, Invalid, Refused
from app.kernel.money import exponent, to_decimal
from app.kernel.tax import alpha_2
from themes.language import N_, _, speaking

EN_16931 = "urn:cen.eu:en16931:2017"
XRECHNUNG = f"{EN_16931}#compliant#urn:xeinkauf.de:kosit:xrechnung_3.0"
PROCESS = "urn:fdc:peppol.eu:2017:poacc:billing:01:1.0"
# UN/ECE Recommendation 20; a fee is a piece.
UNITS = {"kWh": "KWH", "h": "HUR", "min": "MIN"}
CARD, NOT_DEFINED = "48", "1"  # UNTDID 4461. A credit transfer would need an account, and we know none.
_SLACK = Decimal("0.02")
# What XML 1.0 (2.2) cannot hold.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Data = dict[str, Any]


# --- what it says ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Positive minor units, of an invoice to be paid and of a credit note to be given back. Their sum is the total."""

    paid_minor: int
    waived_minor: int
    due_minor: int


def balance_of(paper: Paper) -> Balance:
    """As the sheet says it. A credit note owes what is still to be given back to a card; without a card, all."""
    total = abs(paper.invoice.gross_minor)
    payment = paper.settled.payment if paper.settled else paper.paid_by
    if payment is None:
        paid_minor = total if paper.invoice.buyer.get("tenant") else 0  # kept of their payments before
        return Balance(paid_minor=paid_minor, waived_minor=0, due_minor=total - paid_minor)
    if paper.invoice.corrects_id is None:
        then = paper.settled or as_it_was(payment, paper.invoice.gross_minor)
        waived_minor = _within(then.waived_minor, total)
        paid_minor = _within(then.paid_minor, total - waived_minor)
        return Balance(
            paid_minor=paid_minor, waived_minor=waived_minor, due_minor=total - waived_minor - paid_minor
        )
    before = as_it_was(payment, paper.corrects.gross_minor) if paper.corrects else None
    waived_minor = _within(before.waived_minor, total) if before and before.why else 0
    to_come = sum(
        minor for at, minor, is_made in paper.given_back if not is_made and at == paper.invoice.issued_at
    )
    due_minor = _within(to_come, total - waived_minor)
    return Balance(
        paid_minor=total - waived_minor - due_minor, waived_minor=waived_minor, due_minor=due_minor
    )


def _within(minor: int, most: int) -> int:
    return max(0, min(minor, most))


def data_of(paper: Paper) -> Data:
    """What EN 16931 asks for, by its numbers; amounts are decimal strings. Errors: those above."""
    invoice = paper.invoice
    if invoice.number is None:
        raise Refused("not_an_invoice", "A receipt is no invoice: there is no e-invoice of it.")
    _check_amounts(invoice)
    with speaking(invoice.language):
        data = {
            "BT-1": invoice.number, "BT-2": invoice.issued_on, "BT-3": "381" if invoice.corrects_id else "380",
            "BT-5": invoice.currency, "BT-24": EN_16931,
            "BG-4": _seller(invoice), "BG-7": _buyer(invoice), "BT-72": invoice.supplied_on,
            **_notes(paper), **_corrects(paper), **_period(invoice), **_payment(paper), **_totals(paper),
            "BG-23": _vat(invoice), "BG-25": [_line(invoice, line) for line in invoice.lines],
        }  # fmt: skip
        if reference := _text(invoice.buyer.get("reference")):
            data["BT-10"] = reference
    _check_complete(data, _NEEDED)
    return data


def find_data(paper: Paper) -> Data | None:
    """None where there is no e-invoice of it: its PDF is then without."""
    try:
        return data_of(paper)
    except Refused:
        return None


def _check_amounts(invoice: Invoice) -> None:
    from iso4217 import Currency  # of facturx, which takes no other (BR-CL-04)

    if invoice.currency not in {one.code for one in Currency}:
        raise Refused(
            "einvoice_amounts", f"{invoice.currency} is no currency any more: no e-invoice can name it."
        )
    if exponent(invoice.currency) > 2:
        words = f"An e-invoice has amounts of two decimals at most; {invoice.currency} has three."
        raise Refused("einvoice_amounts", words)
    for rate, (net, vat) in _by_rate(invoice).items():
        if not service.is_tax_of(vat, net, rate, invoice.currency):
            words = (
                f"The VAT at {rate:f} % is further from its net amount than EN 16931 lets it be (BR-CO-17)."
            )
            raise Refused("einvoice_amounts", words)


def _sign(invoice: Invoice) -> int:
    """Our rows of a credit note are negative, its e-invoice is not."""
    return -1 if invoice.corrects_id else 1


def _amount(minor: int, currency: str) -> str:
    return str(to_decimal(minor, currency))


def _text(value: object) -> str:
    """What XML can hold; blanks around it are nothing."""
    return _NOT_XML.sub("", str(value or "")).strip()


def _seller(invoice: Invoice) -> Data:
    """BG-4. Without a VAT id the tax number identifies the seller (BT-29) too: BR-CO-26 wants an identifier."""
    seller = {name: _text(value) for name, value in invoice.seller.items()}
    name, brand = seller.get("legal_name", ""), seller.get("name", "")
    vat_id, tax_number = seller.get("vat_id", ""), seller.get("tax_number", "")
    if _is_outside(invoice):  # BR-O-02: no VAT id then, and still an identifier
        vat_id, tax_number = "", vat_id or tax_number
    contact = {
        "name": brand or name,
        "phone": seller.get("support_phone"),
        "email": seller.get("support_email"),
    }
    return _filled({
        "name": name, "biz_name": brand if brand != name else "", "vat_identifier": vat_id,
        "tax_identifier": "" if vat_id or _is_outside(invoice) else tax_number,
        "identifiers": {None: tax_number} if tax_number and not vat_id else {},
        "contacts": [_filled(contact)] if contact["phone"] or contact["email"] else [],
        **_mailbox(seller.get("support_email", "")), **_address(seller, seller.get("country", "")),
    })  # fmt: skip


def _buyer(invoice: Invoice) -> Data:
    """BG-7. A guest may have given nothing but a card."""
    buyer = {name: _text(value) for name, value in invoice.buyer.items()}
    supplied_in = invoice.lines[0].vat_code[:2] if invoice.lines else ""
    country = buyer.get("country") or (supplied_in if supplied_in.isalpha() else "")
    email = buyer.get("email", "")
    return _filled({
        "name": buyer.get("name") or email or "–",
        "vat_identifier": "" if _is_outside(invoice) else buyer.get("vat_id"),
        **_mailbox(email), **_address(buyer, country or _text(invoice.seller.get("country"))),
    })  # fmt: skip


def _is_outside(invoice: Invoice) -> bool:
    return any(line.vat_code == "O" for line in invoice.lines)


def _address(party: dict[str, str], country: str) -> Data:
    return {
        "addr_l1": party.get("address"), "postcode": party.get("postal_code"), "city": party.get("city"),
        "country_code": alpha_2(country) if country else "",
    }  # fmt: skip


def _mailbox(email: str) -> Data:
    """BT-34, BT-49: an electronic address, here of e-mail (EAS code EM)."""
    return {"einvoicing_addr": email, "einvoicing_addr_schemeid": "EM"} if email else {}


def _filled(data: Data) -> Data:
    return {name: value for name, value in data.items() if value}


def _notes(paper: Paper) -> Data:
    """What the sheet says in a sentence and no other field holds, in one note (PEPPOL-EN16931-R002)."""
    payment = paper.settled.payment if paper.settled else paper.paid_by
    if paper.invoice.corrects_id:
        told = [str(paper.invoice.buyer.get("reason") or ""), waived_before(paper.corrects, payment)]
    else:
        before = as_it_was(payment, paper.invoice.gross_minor) if payment else None
        told = [waived(paper.settled or before)]
    note = "\n".join(filter(None, map(_text, told)))
    return {"BG-1": [{"BT-22": note}]} if note else {}


def _corrects(paper: Paper) -> Data:
    corrects = paper.corrects
    return {"BG-3": [{"BT-25": corrects.number, "BT-26": corrects.issued_on}]} if corrects else {}


def _period(invoice: Invoice) -> Data:
    """BG-14: the days of one supply, by the clock of its place."""
    if not invoice.supply:
        return {}
    zone = ZoneInfo(invoice.supply["time_zone"])
    start, end = (
        datetime.fromisoformat(invoice.supply[name]).astimezone(zone).date()
        for name in ("start_at", "end_at")
    )
    return {"BT-73": start, "BT-74": end}


_TERMS = {
    "card": N_("Will be taken from the card."),
    "note": N_("Still to be given back."),
    "other": N_("Payable as agreed."),
}


def _payment(paper: Paper) -> Data:
    """BG-16, and the terms where something is due (BR-CO-25). A card is named by its last digits, as on the sheet."""
    payment = paper.settled.payment if paper.settled else paper.paid_by
    is_card = payment is not None and payment.provider not in PAID_AHEAD
    found = re.fullmatch(r"(.*?)\W*(\d{4})", payment.method) if payment and is_card else None
    data = (
        {"BT-81": CARD, "BT-87": found[2], "BT-87-1": found[1] or "card"} if found else {"BT-81": NOT_DEFINED}
    )
    if balance_of(paper).due_minor > 0:
        data["BT-20"] = _(_TERMS["note" if paper.invoice.corrects_id else "card" if payment else "other"])
    return data


def _totals(paper: Paper) -> Data:
    """BG-22: the paper's own."""
    invoice, balance = paper.invoice, balance_of(paper)
    sign, currency = _sign(invoice), invoice.currency
    net, vat, gross = (
        _amount(minor * sign, currency)
        for minor in (invoice.net_minor, invoice.vat_minor, invoice.gross_minor)
    )
    data = {
        "BT-106": net, "BT-109": net, "BT-110": vat, "BT-112": gross, "BT-115": _amount(balance.due_minor, currency),
    }  # fmt: skip
    if balance.paid_minor:
        data["BT-113"] = _amount(balance.paid_minor, currency)
    if balance.waived_minor:
        data["BT-114"] = _amount(-balance.waived_minor, currency)
    return data


def _by_rate(invoice: Invoice) -> dict[Decimal, list[int]]:
    """Rate -> [net, VAT] in minor units."""
    found: dict[Decimal, list[int]] = defaultdict(lambda: [0, 0])
    for line in invoice.lines:
        group = found[line.vat_rate.normalize() + 0]
        group[0], group[1] = group[0] + line.net_minor, group[1] + line.vat_minor
    return dict(sorted(found.items()))


def _category(rate: Decimal, codes: Collection[str]) -> str:
    return "S" if rate else next((one for one in REASONS if one in codes), "Z")


def _vat(invoice: Invoice) -> list[Data]:
    """BG-23."""
    sign, currency, codes = _sign(invoice), invoice.currency, {line.vat_code for line in invoice.lines}
    groups: list[Data] = []
    for rate, (net, vat) in _by_rate(invoice).items():
        category = _category(rate, codes)
        group = {
            "BT-116": _amount(net * sign, currency),
            "BT-117": _amount(vat * sign, currency),
            "BT-118": category,
        }
        if category != "O":
            group["BT-119"] = f"{rate:f}"
        if category in REASONS:
            group |= {"BT-120": _(REASONS[category]), "BT-121": f"VATEX-EU-{category}"}
        groups.append(group)
    return groups


def _line(invoice: Invoice, line: InvoiceLine) -> Data:
    """BG-25. What lies between quantity x price and the line's share of the rounded total is a charge or an allowance
    of its own where it is more than may be (PEPPOL-EN16931-R120): in a currency without decimals."""
    sign, currency = _sign(invoice), invoice.currency
    quantity, price = line.quantity * sign, line.unit_price
    if price < 0:
        quantity, price = -quantity, -price
    net, rate = to_decimal(line.net_minor * sign, currency), line.vat_rate.normalize() + 0
    data: Data = {
        "BT-126": str(line.line_no), "BT-129": f"{quantity.normalize():f}", "BT-130": UNITS.get(line.unit, "C62"),
        "BT-131": str(net), "BT-146": f"{price.normalize():f}", "BT-151": _category(rate, [line.vat_code]),
        "BT-153": _text(line.description) or "–",
    }  # fmt: skip
    if data["BT-151"] != "O":
        data["BT-152"] = f"{rate:f}"
    off = net - round(quantity * price, 2)
    if abs(off) > _SLACK:
        data["BG-28" if off > 0 else "BG-27"] = [{"amount": str(abs(off)), "reason": _("Rounding")}]
    return data


# --- what lacks --------------------------------------------------------------------------------------------------

Need = tuple[str, Sequence[str], str]  # a field of ours, where in the data it must stand, in words

_NEEDED: list[Need] = [
    ("seller.legal_name", ("BG-4", "name"), "the seller's legal name"),
    ("seller.country", ("BG-4", "country_code"), "the seller's country"),
    (
        "seller.vat_id",
        ("BG-4", "vat_identifier|tax_identifier|identifiers"),
        "the seller's VAT id or tax number",
    ),
    ("buyer.country", ("BG-7", "country_code"), "the buyer's country"),
]
# XRechnung 3.0: BR-DE-3, 4, 6, 7, 8, 9, 15, PEPPOL-EN16931-R010, R020.
_NEEDED_BY_XRECHNUNG: list[Need] = [
    ("seller.city", ("BG-4", "city"), "the seller's city"),
    ("seller.postal_code", ("BG-4", "postcode"), "the seller's postal code"),
    ("seller.support_phone", ("BG-4", "contacts", "phone"), "the seller's telephone number"),
    ("seller.support_email", ("BG-4", "contacts", "email"), "the seller's e-mail address"),
    ("buyer.reference", ("BT-10",), "the buyer's reference"),
    ("buyer.city", ("BG-7", "city"), "the buyer's city"),
    ("buyer.postal_code", ("BG-7", "postcode"), "the buyer's postal code"),
    ("buyer.email", ("BG-7", "einvoicing_addr"), "the buyer's e-mail address"),
]


def lacks_for_xrechnung(data: Data) -> list[str]:
    """In words; empty where it can be one."""
    return [words for _field, path, words in _NEEDED_BY_XRECHNUNG if not _stands(data, path)]


def _stands(data: Any, path: Sequence[str]) -> bool:
    for name in path:
        if isinstance(data, list):
            data = data[0]
        data = next((data[one] for one in name.split("|") if data.get(one)), None)
        if not data:
            return False
    return True


def _check_complete(data: Data, needed: Sequence[Need]) -> None:
    lacking = [need for need in needed if not _stands(data, need[1])]
    if lacking:
        raise Refused(
            "einvoice_incomplete", f"This e-invoice would need {', '.join(words for *_, words in lacking)}.",
            faults=[FieldFault(field, "required", f"It would need {words}.") for field, _path, words in lacking],
        )  # fmt: skip


# --- as a file ---------------------------------------------------------------------------------------------------
# facturx takes half a second to import: only who writes such a file waits for it. It changes what it is given.


def as_cii(data: Data) -> bytes:
    """UN/CEFACT CII, profile EN 16931 of Factur-X and ZUGFeRD. A millisecond, and a second where it is a month's."""
    import facturx

    return facturx.generate_cii_xml(
        copy.deepcopy(data), level="en16931", check_xsd=False, check_schematron=""
    )


def as_xrechnung(data: Data) -> bytes:
    """UBL 2.1 by XRechnung 3.0. Errors: `einvoice_incomplete`."""
    import facturx

    _check_complete(data, _NEEDED_BY_XRECHNUNG)
    xml = facturx.generate_ubl_xml(
        copy.deepcopy(data) | {"BT-23": PROCESS}, level="en16931", check_xsd=False, check_schematron=""
    )
    # It knows no other specification, and one currency of roundings.
    xml = xml.replace(f">{EN_16931}<".encode(), f">{XRECHNUNG}<".encode(), 1)
    rounding = '<cbc:PayableRoundingAmount currencyID="{}"'
    return xml.replace(rounding.format("EUR").encode(), rounding.format(data["BT-5"]).encode(), 1)


def as_hybrid_pdf(content: dict[str, Any], data: Data | None) -> bytes:
    """The sheet as PDF/A-3b with the same invoice in it for machines (`factur-x.xml`, an alternative of the sheet);
    where there is no e-invoice, or a letter that PDF/A cannot show, the sheet alone. 60 ms of processor time for a
    page, two seconds for a thousand lines."""
    pdf = as_archive_pdf(content)
    if pdf is None:
        return as_pdf(content)
    if data is None:
        return pdf
    import facturx

    title = content["title"]
    told = {"title": title, "author": content["seller_name"], "subject": title, "keywords": "Factur-X"}
    return facturx.generate_from_binary(
        pdf, as_cii(data), flavor="factur-x", level="en16931", check_xsd=False, lang=content["language"],
        pdf_metadata={name: _text(value) for name, value in told.items()}, afrelationship="alternative",
    )  # fmt: skip


# --- as an answer: made in a thread, while no transaction is open; it takes a processor, not a database ----------


def pdf_file(content: dict[str, Any], data: Data | None) -> Response[bytes]:
    """To be looked at, named as the paper is."""
    headers = {"Content-Disposition": f'inline; filename="{content["number"] or content["name"]}.pdf"'}
    return Response(as_hybrid_pdf(content, data), media_type="application/pdf", headers=headers)


def xml_file(data: Data, syntax: str = "cii") -> Response[bytes]:
    """To be kept. `syntax` is `cii` or `ubl`. Errors: `einvoice_incomplete`, `invalid`."""
    if syntax not in ("cii", "ubl"):
        raise Invalid.field("syntax", "unknown", "The syntax is cii or ubl.")
    xml = as_cii(data) if syntax == "cii" else as_xrechnung(data)
    headers = {"Content-Disposition": f'attachment; filename="{data["BT-1"]}.xml"'}
    return Response(xml, media_type="application/xml", headers=headers)
