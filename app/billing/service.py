"""Invoices from plain lines. Numbers are gapless per tenant, series and year (money.md 4.6).

A tenant without seller data gets receipts that say so, and no numbered invoice.
Errors: `already_invoiced`, `credit_too_high`, `nothing_to_credit`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import selectinload

from app.billing import ledger
from app.billing.ledger import Posting
from app.billing.models import Invoice, InvoiceCounter, InvoiceLine, LedgerEntry, LedgerTxn
from app.brands.models import TenantProfile
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import NotFound, Refused
from app.kernel.ids import public_id
from app.kernel.money import exponent, half_up, split, to_decimal
from tenants.scope import Scope, chain_hash
from themes.language import _, speaking
from themes.render import day

SERIES = {"invoice": "INV", "credit_note": "CN", "receipt": "RCT", "receipt_reversal": "RCT"}
REVERSAL = {"invoice": "credit_note", "receipt": "receipt_reversal"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A supply. `source_part` tells lines of one source apart; net + VAT = gross in minor units, already rounded.

    `description` is in the invoice's language, `unit_price` without VAT.
    """

    source_type: str
    source_id: UUID
    source_part: str
    description: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    vat_rate: Decimal
    vat_code: str
    net_minor: int
    vat_minor: int
    gross_minor: int


async def issue_invoice(
    scope: Scope, *, currency: str, lines: Sequence[Line], buyer: dict[str, Any], supplied_at: datetime,
    began_at: datetime | None = None, time_zone: str = "", place: str = "", language: str = "en",
    payment_id: UUID | None = None, is_test: bool = False,
) -> Invoice | None:  # fmt: skip
    """The supply is done: the invoice is due, whether or not the money comes. None when nothing is owed.

    A second call for the same sources answers with the invoice that stands. An issued paper does not change its words:
    `language`, the payer's, is sealed with it, and its headings are set in no other. `payment_id` settles it.
    `time_zone` is the place's, whose day the supply is of (the tenant's where none is named, as the VAT has it); where
    one supply is billed, it says from `began_at` to `supplied_at` and at what `place`.
    """
    lines = [line for line in lines if line.gross_minor or line.net_minor]  # their sums are the CDR's
    if not lines:
        return None
    standing = await _find_standing(scope, lines)
    if standing is not None:
        return standing
    profile = (await scope.db.execute(select(TenantProfile))).scalar_one()
    kind = "invoice" if profile.has_seller_data else "receipt"
    buyer = buyer | {"language": language}
    if payment_id is not None:
        buyer["payment"] = public_id("payment", payment_id)
    zone = time_zone or profile.time_zone
    supply: dict[str, Any] = {}
    if began_at is not None:
        supply = {
            "start_at": began_at.isoformat(), "end_at": supplied_at.isoformat(), "time_zone": zone, "place": place,
        }  # fmt: skip
    invoice = _draft(
        scope, kind, currency, lines, _seller(profile), buyer, supplied_at.astimezone(ZoneInfo(zone)).date(), supply,
        ZoneInfo(profile.time_zone), is_test,
    )  # fmt: skip
    await _write(scope, invoice, lines)
    await ledger.post(scope, "invoice_issued", "invoice", invoice.id, scope.now, _sale(invoice, lines))
    await events.emit(
        scope, "InvoiceIssued", "invoice", invoice.id, {"kind": kind, "gross_minor": invoice.gross_minor}
    )
    return await get_invoice(scope, invoice.id)


async def _find_standing(scope: Scope, lines: Sequence[Line]) -> Invoice | None:
    query = select(InvoiceLine.invoice_id).where(
        InvoiceLine.kind.in_(("invoice", "receipt")),
        InvoiceLine.source_type == lines[0].source_type,
        InvoiceLine.source_id.in_([line.source_id for line in lines]),
    )
    found = set((await scope.db.execute(query)).scalars())
    if len(found) > 1:
        raise Refused("already_invoiced", "Some of these were invoiced before, on different invoices.")
    return await get_invoice(scope, found.pop()) if found else None


def _seller(profile: TenantProfile) -> dict[str, Any]:
    names = ("name", "legal_name", "address", "postal_code", "city", "country", "vat_id", "tax_number",
             "support_email", "support_phone")  # fmt: skip
    return {name: getattr(profile, name) for name in names}


def _draft(
    scope: Scope, kind: str, currency: str, lines: Sequence[Line], seller: dict[str, Any], buyer: dict[str, Any],
    supplied_on: date, supply: dict[str, Any], zone: ZoneInfo, is_test: bool,
) -> Invoice:  # fmt: skip
    """Invoice years and days of issue are the tenant's (contract.md)."""
    issued_on = scope.now.astimezone(zone).date()
    return Invoice(
        id=uuid7(), kind=kind, series=SERIES[kind], year=issued_on.year, issued_at=scope.now, issued_on=issued_on,
        supplied_on=supplied_on, supply=supply, currency=currency, seller=seller, buyer=buyer,
        net_minor=sum(line.net_minor for line in lines), vat_minor=sum(line.vat_minor for line in lines),
        gross_minor=sum(line.gross_minor for line in lines), vat_groups=vat_groups(lines), number_no=None,
        number=None, prev_hash=b"", is_test=is_test,
    )  # fmt: skip


def vat_groups(lines: Sequence[Line] | Sequence[InvoiceLine]) -> list[dict[str, Any]]:
    """Per VAT code: rate, net, VAT, gross (pure)."""
    groups: dict[tuple[str, Decimal], list[int]] = defaultdict(lambda: [0, 0, 0])
    for line in lines:
        group = groups[line.vat_code, line.vat_rate]
        for index, amount in enumerate((line.net_minor, line.vat_minor, line.gross_minor)):
            group[index] += amount
    return [
        {"vat_code": code, "vat_rate": str(rate), "net_minor": net, "vat_minor": vat, "gross_minor": gross}
        for (code, rate), (net, vat, gross) in sorted(groups.items())
    ]


def is_tax_of(vat_minor: int, net_minor: int, rate: Decimal, currency: str) -> bool:
    """Whether an invoice may say so of a rate (pure): less than one whole unit of the currency away from rate x net, as
    those who check it have it (EN 16931, BR-CO-17 and BR-S-09; BR-Z-09 for a rate of 0)."""
    if not rate:
        return vat_minor == 0
    hundredths = Fraction(100, 10 ** exponent(currency))
    exact = half_up(abs(net_minor) * hundredths * Fraction(rate) / 100)
    return abs(abs(vat_minor) * hundredths - exact) < 100


def bundle(supplies: Sequence[Sequence[Line]], currency: str) -> list[list[Line]]:
    """The lines of so many supplies on as few invoices as may be, in their order (pure).

    Each supply's tax is rounded on its own, and hundreds of the same price err to the same side: an invoice ends where
    its tax would no longer be that of its sum (`is_tax_of`).
    """
    invoices: list[list[Line]] = []
    sums: dict[Decimal, tuple[int, int]] = {}
    for lines in supplies:
        together = _added(sums, lines)
        if not invoices or not all(
            is_tax_of(vat, net, rate, currency) for rate, (vat, net) in together.items()
        ):
            invoices.append([])
            together = _added({}, lines)
        invoices[-1].extend(lines)
        sums = together
    return invoices


def _added(sums: dict[Decimal, tuple[int, int]], lines: Sequence[Line]) -> dict[Decimal, tuple[int, int]]:
    """VAT and net by rate, with those of the lines."""
    found = dict(sums)
    for line in lines:
        vat, net = found.get(line.vat_rate, (0, 0))
        found[line.vat_rate] = vat + line.vat_minor, net + line.net_minor
    return found


async def _write(scope: Scope, invoice: Invoice, lines: Sequence[Line]) -> None:
    """The number is taken last: the counter's row lock makes the series a line, and a rollback leaves no gap."""
    if invoice.kind in ("invoice", "credit_note"):
        invoice.number_no = await next_number(scope, invoice.series, invoice.year)
        invoice.number = f"{invoice.series}-{invoice.year}-{invoice.number_no:06d}"
        invoice.prev_hash = await _last_hash(scope, invoice)
    invoice.hash = chain_hash(invoice.prev_hash, _content(invoice, lines))
    scope.db.add(invoice)
    await scope.db.flush()
    scope.db.add_all(
        InvoiceLine(invoice_id=invoice.id, kind=invoice.kind, line_no=number, **asdict(line))
        for number, line in enumerate(lines, start=1)
    )
    await scope.db.flush()


async def next_number(scope: Scope, series: str, year: int) -> int:
    """The last thing before the commit: the counter's row stays locked until then, and a rollback leaves no gap."""
    statement = (
        upsert(InvoiceCounter)
        .values(id=uuid7(), series=series, year=year, next_no=2)
        .on_conflict_do_update(
            index_elements=["tenant_id", "series", "year"], set_={"next_no": InvoiceCounter.next_no + 1}
        )
        .returning(InvoiceCounter.next_no)
    )
    return (await scope.db.execute(statement)).scalar_one() - 1


async def _last_hash(scope: Scope, invoice: Invoice) -> bytes:
    query = select(Invoice.hash).filter_by(
        series=invoice.series, year=invoice.year, number_no=(invoice.number_no or 1) - 1
    )
    return (await scope.db.execute(query)).scalar_one_or_none() or b""


def _content(invoice: Invoice, lines: Sequence[Line]) -> dict[str, Any]:
    head = {
        name: getattr(invoice, name)
        for name in ("kind", "number", "issued_at", "supplied_on", "currency", "net_minor", "vat_minor",
                     "gross_minor", "seller", "buyer", "vat_groups", "corrects_id")
    }  # fmt: skip
    supply = {"supply": invoice.supply} if invoice.supply else {}  # papers from before are sealed without
    return head | supply | {"lines": [asdict(line) for line in lines]}


def _sale(invoice: Invoice, lines: Sequence[Line]) -> list[Posting]:
    """Dr driver_receivable / Cr revenue, Cr vat_payable per VAT code; in the platform's own book its tenants owe."""
    currency, tenant = invoice.currency, invoice.buyer.get("tenant", "")
    receivable, revenue = ("tenant_receivable", "fee_revenue") if tenant else ("driver_receivable", "revenue")
    postings = [
        Posting(receivable, sum(line.gross_minor for line in lines), currency, tenant),
        Posting(revenue, -sum(line.net_minor for line in lines), currency),
    ]
    vat: dict[str, int] = defaultdict(int)
    for line in lines:
        vat[line.vat_code] += line.vat_minor
    return postings + [
        Posting("vat_payable", -amount, currency, code) for code, amount in sorted(vat.items())
    ]


async def credit_source(scope: Scope, source_type: str, source_id: UUID, reason: str) -> Invoice | None:
    """A credit note over all that was invoiced for a source and not credited yet, in a series of its own: its lines
    turned, and what earlier notes took back of them. None where nothing is left."""
    billed, earlier = await _of_source(scope, source_type, source_id)
    if not billed:
        return None
    original = await get_invoice(scope, billed[0].invoice_id)
    lines = [_turned(line) for line in billed]
    with speaking(original.language):
        for note in earlier:
            words = _("Credited before by %(number)s") % {"number": note.number or day(note.issued_on)}
            taken = _left(note.lines, source_type, source_id)
            lines += [_sum_line(source_type, source_id, words, group, original.currency) for group in taken]
    if not sum(line.gross_minor for line in lines) and earlier:
        return None
    return await _credit(scope, original, lines, reason)


async def credit_part(
    scope: Scope, source_type: str, source_id: UUID, gross_minor: int, reason: str
) -> Invoice | None:
    """A credit note over a part of what was invoiced for a source: each VAT rate's share of what is left of it, by
    largest remainder, and so within it net and VAT. None where nothing was invoiced; `credit_too_high`."""
    billed, earlier = await _of_source(scope, source_type, source_id)
    if not billed:
        return None
    original = await get_invoice(scope, billed[0].invoice_id)
    left = _left([*billed, *(line for note in earlier for line in note.lines)], source_type, source_id)
    if not 0 < gross_minor <= sum(group["gross_minor"] for group in left):
        raise Refused("credit_too_high", "More would be credited than was invoiced.")
    with speaking(original.language):
        words = _("Partial credit: %(reason)s") % {"reason": reason}
        lines = [
            _sum_line(source_type, source_id, words, group, original.currency)
            for group in _shares(left, gross_minor)
        ]
    return await _credit(scope, original, lines, reason)


async def creditable_minor(scope: Scope, source_type: str, source_id: UUID) -> int:
    """What of a source's invoice no note has taken back, gross."""
    billed, earlier = await _of_source(scope, source_type, source_id)
    left = _left([*billed, *(line for note in earlier for line in note.lines)], source_type, source_id)
    return sum(group["gross_minor"] for group in left)


async def _of_source(
    scope: Scope, source_type: str, source_id: UUID
) -> tuple[list[InvoiceLine], list[Invoice]]:
    """(its lines on the invoice, the notes that took of it), in their order."""
    papers = await list_invoices_of(scope, source_type, source_id)
    billed = [
        line for paper in papers if paper.corrects_id is None for line in paper.lines
        if (line.source_type, line.source_id) == (source_type, source_id)
    ]  # fmt: skip
    return billed, [paper for paper in papers if paper.corrects_id is not None]


def _left(lines: Sequence[InvoiceLine], source_type: str, source_id: UUID) -> list[dict[str, Any]]:
    own = [line for line in lines if (line.source_type, line.source_id) == (source_type, source_id)]
    return [group for group in vat_groups(own) if group["gross_minor"] or group["net_minor"]]


def _shares(left: Sequence[dict[str, Any]], gross_minor: int) -> list[dict[str, Any]]:
    """`gross_minor` of the VAT groups that are left, each never more than it has (pure)."""
    if gross_minor == sum(group["gross_minor"] for group in left):
        return list(left)
    groups = [group for group in left if group["gross_minor"] > 0]  # a discount is no group to give from
    whole = sum(group["gross_minor"] for group in groups)
    found = []
    for group, gross in zip(
        groups,
        split(gross_minor, [Fraction(gross_minor * one["gross_minor"], whole) for one in groups]),
        strict=True,
    ):
        if gross:
            parts = [
                Fraction(gross * group[name], group["gross_minor"]) for name in ("net_minor", "vat_minor")
            ]
            net, vat = split(gross, parts)
            found.append(group | {"net_minor": net, "vat_minor": vat, "gross_minor": gross})
    return found


def _sum_line(source_type: str, source_id: UUID, words: str, group: dict[str, Any], currency: str) -> Line:
    """A VAT group taken back in one line, without a measure."""
    net, vat, gross = (-group[name] for name in ("net_minor", "vat_minor", "gross_minor"))
    rate = Decimal(group["vat_rate"])
    price = round(to_decimal(abs(gross), currency) / (1 + rate / 100), 8).normalize() + 0
    return Line(
        source_type=source_type, source_id=source_id, source_part=group["vat_code"], description=words,
        quantity=Decimal(1 if net >= 0 else -1), unit="", unit_price=price, vat_rate=rate,
        vat_code=group["vat_code"], net_minor=net, vat_minor=vat, gross_minor=gross,
    )  # fmt: skip


async def _credit(scope: Scope, original: Invoice, lines: Sequence[Line], reason: str) -> Invoice:
    await _check_credit(scope, original, -sum(line.gross_minor for line in lines))
    profile = (await scope.db.execute(select(TenantProfile))).scalar_one()
    note = _draft(
        scope, REVERSAL[original.kind], original.currency, lines, original.seller, original.buyer | {"reason": reason},
        original.supplied_on, original.supply, ZoneInfo(profile.time_zone), original.is_test,
    )  # fmt: skip
    note.corrects_id = original.id
    await _write(scope, note, lines)
    await ledger.post(scope, "credit_note_issued", "invoice", note.id, scope.now, _sale(note, lines))
    await audit.record(
        scope, "credit_note.issued", "invoice", note.id, {"corrects": str(original.id), "reason": reason}
    )
    await events.emit(scope, "CreditNoteIssued", "invoice", note.id, {"gross_minor": note.gross_minor})
    return await get_invoice(scope, note.id)


async def _check_credit(scope: Scope, original: Invoice, gross_minor: int) -> None:
    """Σ credit <= invoice."""
    query = select(func.coalesce(func.sum(Invoice.gross_minor), 0)).where(Invoice.corrects_id == original.id)
    credited = -(await scope.db.execute(query)).scalar_one()
    if credited + gross_minor > original.gross_minor:
        raise Refused("credit_too_high", "More would be credited than was invoiced.")


def _turned(line: InvoiceLine) -> Line:
    return Line(
        source_type=line.source_type, source_id=line.source_id, source_part=line.source_part,
        description=line.description, quantity=-line.quantity, unit=line.unit, unit_price=line.unit_price,
        vat_rate=line.vat_rate, vat_code=line.vat_code, net_minor=-line.net_minor, vat_minor=-line.vat_minor,
        gross_minor=-line.gross_minor,
    )  # fmt: skip


async def get_invoice(scope: Scope, invoice_id: UUID) -> Invoice:
    query = (
        select(Invoice)
        .where(Invoice.id == invoice_id)
        .options(selectinload(Invoice.lines))
        .execution_options(populate_existing=True)
    )
    invoice = (await scope.db.execute(query)).scalar_one_or_none()
    if invoice is None:
        raise NotFound("invoice")
    return invoice


async def list_invoices_of(scope: Scope, source_type: str, source_id: UUID) -> list[Invoice]:
    """Invoices, receipts and credit notes with a line of this source, oldest first."""
    lines = select(InvoiceLine.invoice_id).where(
        InvoiceLine.source_type == source_type, InvoiceLine.source_id == source_id
    )
    query = select(Invoice).where(Invoice.id.in_(lines)).options(selectinload(Invoice.lines))
    return list((await scope.db.execute(query.order_by(Invoice.issued_at, Invoice.id))).scalars())


async def find_broken_series(scope: Scope) -> list[str]:
    """Series whose numbers are not {1..n} or whose hashes do not chain (I6); empty when the books are whole."""
    broken: list[str] = []
    query = select(Invoice.series, Invoice.year).where(Invoice.number_no.is_not(None)).distinct()
    for series, year in (await scope.db.execute(query)).all():
        rows = select(Invoice).filter_by(series=series, year=year).order_by(Invoice.number_no)
        previous = b""
        for expected, invoice in enumerate((await scope.db.execute(rows)).scalars(), start=1):
            if invoice.number_no != expected or invoice.prev_hash != previous:
                broken.append(f"{series}-{year} at {expected}")
                break
            previous = invoice.hash
    return broken


async def unbalanced_postings(scope: Scope) -> list[UUID]:
    """Postings that do not sum to zero (I1): none, or the trigger was circumvented."""
    query = (
        select(LedgerEntry.txn_id)
        .group_by(LedgerEntry.txn_id, LedgerEntry.currency)
        .having(func.sum(LedgerEntry.amount_minor) != 0)
    )
    empty = select(LedgerTxn.id).where(
        ~select(LedgerEntry.id).where(LedgerEntry.txn_id == LedgerTxn.id).exists()
    )
    return [*(await scope.db.execute(query)).scalars(), *(await scope.db.execute(empty)).scalars()]
