"""The platform's own book: what it keeps of its tenants' card payments, and its invoices over that (money.md 4.3).

It lies in the platform's own tenant, behind the same policies as everybody's (isolation.md). `keep` is a job of each
tenant: it reads what that tenant's book says was kept, posts the same on the platform's side, writes the papers of
months that are over, and lays them into the tenant's own rows. Each step is a transaction of one tenant and may run
again: a fee is posted once by the posting that it mirrors, a month is closed in the transaction that writes its papers.

A fee is `tenant_receivable` (of the slug) until its month's invoice says how much of it is VAT, so that VAT is rounded
once and the invoice is the book's to the cent. Errors: `no_platform`, Invalid of `vat_id`, `reference`,
`consulted_on`, `country`, `basis`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from babel.dates import format_date
from sqlalchemy import case, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import aliased

from app.billing import einvoice, ledger, paper, service
from app.billing.ledger import Posting
from app.billing.models import (
    BilledTenant,
    Invoice,
    LedgerAccount,
    LedgerEntry,
    LedgerTxn,
    Payment,
    PaymentOp,
    PlatformInvoice,
)
from app.brands.models import TenantProfile
from app.kernel import audit, tax
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.money import half_up, to_decimal
from tenants.database import Database
from tenants.scope import Actor, Scope
from themes.language import _, current, speaking
from themes.theme import preset

ACTOR = Actor.job("billing.platform_book")
OVERLAP = timedelta(hours=1)  # a posting is seen when its transaction has ended, not at the time it bears
CHUNK = 500
COLLECTED, GIVEN_BACK = "fee_collected", "fee_given_back"
HOST_SHARE = "host_share_moved"


# -- which VAT (pure) ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """`code` is the invoice's VAT code: country and rate (`DE19`), `AE` where the recipient owes it, `O` where the
    service is supplied outside (UNTDID 5305). `evidence` is what that rests on, and is sealed with the invoice."""

    code: str
    rate: Decimal
    evidence: dict[str, Any]


def treat(seller: TenantProfile, billed: BilledTenant, on: date) -> Treatment:
    """Services between businesses are taxed where the recipient is (Directive 2006/112/EC, Articles 44 and 196);
    who shows no VAT id is none (Article 45). Where they are is no word of their own: outside the Union it counts once
    the platform's staff have confirmed it (`record_country`), until then ours does. Errors: `no_vat_rate`,
    `vat_id_unproven`."""
    buyer, evidence = billed.buyer, billed.evidence
    ours, theirs, vat_id = tax.alpha_2(seller.country), tax.alpha_2(buyer["country"]), buyer["vat_id"]
    told = {"seller_country": ours, "buyer_country": theirs, "buyer_vat_id": vat_id}
    is_union = {ours, theirs} <= tax.EU
    if ours != theirs and not is_union and evidence.get("country") == theirs:
        return Treatment(code="O", rate=Decimal(0), evidence=told | evidence)
    if is_union and ours != theirs and vat_id[:2] == ("EL" if theirs == "GR" else theirs):
        if evidence.get("vat_id") != vat_id:
            raise Refused(
                "vat_id_unproven", f"Nobody has checked yet that the VAT id {vat_id} is theirs (VIES)."
            )
        return Treatment(code="AE", rate=Decimal(0), evidence=told | evidence)
    rate = tax.find_vat_rate(ours, on)
    if rate is None:
        raise Refused("no_vat_rate", f"The VAT rate of {ours} is not known here.")
    return Treatment(code=f"{ours}{rate.normalize():f}", rate=rate, evidence=told)


_NEEDED = {
    "name": "legal name", "address": "address", "postal_code": "postal code", "city": "city", "country": "country",
}  # fmt: skip


def lacks(seller: TenantProfile | None, billed: BilledTenant, on: date) -> list[str]:
    """Why there is no paper, in sentences; empty where there can be one (pure)."""
    if seller is None or not seller.has_seller_data:
        return ["The platform's own legal name, address and VAT id or tax number are missing."]
    missing = [words for field, words in _NEEDED.items() if not billed.buyer.get(field)]
    if missing:
        return [f"Their {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing."]
    try:
        treat(seller, billed, on)
    except Refused as error:
        return [error.message]
    return []


def month_after(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


# -- the job ---------------------------------------------------------------------------------------------------------


async def keep(database: Database, tenant_id: UUID, *, now: datetime | None = None) -> None:
    """Every ten minutes, for each tenant. Nothing for the platform itself, or where there is none."""
    async with database.scope(tenant_id, ACTOR, now=now) as scope:
        own = (await scope.db.execute(text("select slug, kind from platform.own_tenant()"))).one()
        platform_id = await _platform_id(scope)
        profile = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
        if own.kind == "platform" or platform_id is None or profile is None:
            return
        buyer = _buyer_of(profile)
    async with database.scope(platform_id, ACTOR) as scope:
        last = await _last_mirrored(scope, own.slug)
    kept = await _read_kept(database, tenant_id, last - OVERLAP if last else None)
    if not kept and last is None:
        return  # no card was ever charged
    for start in range(0, len(kept), CHUNK):
        async with database.scope(platform_id, ACTOR, now=now) as scope:
            billed = await _take_billed(scope, tenant_id, own.slug, buyer)
            await _mirror(scope, billed, kept[start : start + CHUNK])
    async with database.scope(platform_id, ACTOR, now=now) as scope:
        await _close_months(scope, await _take_billed(scope, tenant_id, own.slug, buyer))
    await _deliver(database, platform_id, tenant_id, own.slug)


async def _platform_id(scope: Scope) -> UUID | None:
    return (await scope.db.execute(text("select platform.platform_tenant_id()"))).scalar_one()


def _buyer_of(profile: TenantProfile) -> dict[str, Any]:
    return {
        "name": profile.legal_name, "address": profile.address, "postal_code": profile.postal_code,
        "city": profile.city, "country": profile.country, "vat_id": profile.vat_id, "email": profile.support_email,
        "language": profile.language,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kept:
    """A posting of a tenant's book: what the platform kept of a payment, or gave back of that (then below 0).
    `kind`: of its own fee, or what it holds for a site host until it has passed it on."""

    kind: str
    txn_id: UUID
    payment_id: UUID
    at: datetime
    minor: int
    currency: str
    account: str


async def _read_kept(database: Database, tenant_id: UUID, since: datetime | None) -> list[Kept]:
    """Oldest first."""
    query = (
        select(LedgerTxn.id, LedgerTxn.source_type, LedgerTxn.source_id, LedgerTxn.effective_at,
               LedgerEntry.amount_minor, LedgerEntry.currency, LedgerAccount.code)
        .join(LedgerEntry, LedgerEntry.txn_id == LedgerTxn.id)
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(LedgerAccount.code.in_(("platform_fee_expense", "host_share_held")))
        .order_by(LedgerTxn.effective_at, LedgerTxn.id)
    )  # fmt: skip
    if since is not None:
        query = query.where(LedgerTxn.effective_at >= since)
    async with database.scope(tenant_id, ACTOR) as scope:
        rows = (await scope.db.execute(query)).all()
        ops = {row.source_id for row in rows if row.source_type == "payment_op"}
        refunds = select(PaymentOp.id, PaymentOp.payment_id).where(PaymentOp.id.in_(ops))
        of_op = {row.id: row.payment_id for row in await scope.db.execute(refunds)}
        of = [
            of_op.get(row.source_id) or UUID(row.source_type.partition(":")[2] or str(row.source_id))
            for row in rows
        ]
        accounts = {
            row.id: row.provider if row.is_live else f"{row.provider}:test"
            for part in (of[start : start + CHUNK] for start in range(0, len(of), CHUNK))
            for row in await scope.db.execute(
                select(Payment.id, Payment.provider, Payment.is_live).where(Payment.id.in_(part))
            )
        }
    return [
        Kept(
            HOST_SHARE
            if row.code == "host_share_held"
            else COLLECTED
            if row.amount_minor > 0
            else GIVEN_BACK,
            row.id,
            payment_id,
            row.effective_at,
            row.amount_minor,
            row.currency,
            accounts[payment_id],
        )
        for row, payment_id in zip(rows, of, strict=True)
    ]


async def _take_billed(scope: Scope, tenant_id: UUID, slug: str, buyer: dict[str, Any]) -> BilledTenant:
    """Locked: one job at a time works on a tenant's fees."""
    values = {"id": uuid7(), "billed_id": tenant_id, "slug": slug, "buyer": buyer, "updated_at": scope.now}
    statement = upsert(BilledTenant).values(**values)
    changes = {"buyer": statement.excluded.buyer, "updated_at": statement.excluded.updated_at}
    keys = ["tenant_id", "billed_id"]
    await scope.db.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))
    query = select(BilledTenant).where(BilledTenant.billed_id == tenant_id).with_for_update()
    return (await scope.db.execute(query.execution_options(populate_existing=True))).scalar_one()


async def _last_mirrored(scope: Scope, slug: str) -> datetime | None:
    query = (
        select(func.max(LedgerTxn.effective_at))
        .join(LedgerEntry, LedgerEntry.txn_id == LedgerTxn.id)
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(LedgerAccount.code == "tenant_receivable", LedgerAccount.party == slug)
        .where(LedgerTxn.kind.in_((COLLECTED, GIVEN_BACK)))
    )
    return (await scope.db.execute(query)).scalar_one()


async def _mirror(scope: Scope, billed: BilledTenant, kept: Sequence[Kept]) -> None:
    """Dr psp_platform / Cr tenant_receivable, or host_share_payable for what is passed on; once per posting of the
    tenant's. What comes into the books after its month was closed belongs to the next."""
    open_since = (
        datetime.combine(billed.closed_until, time(), await _zone(scope)) if billed.closed_until else None
    )
    query = select(LedgerTxn.kind, LedgerTxn.source_id).where(
        LedgerTxn.kind.in_((COLLECTED, GIVEN_BACK, HOST_SHARE)),
        LedgerTxn.source_id.in_([one.txn_id for one in kept]),
    )
    known = {(row.kind, row.source_id) for row in await scope.db.execute(query)}
    for one in kept:
        if (one.kind, one.txn_id) in known:
            continue
        owed = "host_share_payable" if one.kind == HOST_SHARE else "tenant_receivable"
        at = max(one.at, open_since) if open_since else one.at
        await ledger.post(scope, one.kind, f"platform_fee:{one.payment_id}", one.txn_id, at, [
            Posting("psp_platform", one.minor, one.currency, one.account),
            Posting(owed, -one.minor, one.currency, billed.slug),
        ])  # fmt: skip


async def _zone(scope: Scope) -> ZoneInfo:
    name = (await scope.db.execute(select(TenantProfile.time_zone))).scalar_one_or_none()
    return ZoneInfo(name or "UTC")


# -- months ----------------------------------------------------------------------------------------------------------

Key = tuple[str, str]  # the platform's account at the provider, currency


@dataclass(frozen=True, slots=True)
class Fees:
    """What a month brought of one tenant. `back` is what was given back of fees of earlier months, by their month."""

    collected_minor: dict[Key, int]
    payments_count: dict[Key, int]
    back_minor: dict[tuple[date, Key], int]


_NO_FEES = Fees({}, {}, {})


async def fees_of(scope: Scope, month: date, slug: str | None = None) -> dict[str, Fees]:
    """By slug (of one tenant, or all): of the platform's own book, by its own clock, summed by the database. What was
    given back in the month that took it lessens that."""
    zone = await _zone(scope)
    owed, kept, first = aliased(LedgerAccount), aliased(LedgerAccount), aliased(LedgerTxn)
    theirs, ours = aliased(LedgerEntry), aliased(LedgerEntry)
    taken_at = (
        select(func.min(first.effective_at))
        .where(first.kind == COLLECTED, first.source_type == LedgerTxn.source_type)
        .scalar_subquery()
    )
    taken_in = func.date_trunc("month", func.timezone(zone.key, taken_at))
    moved = (
        select(
            owed.party.label("slug"), kept.party.label("account"), ours.currency, ours.amount_minor.label("minor"),
            LedgerTxn.source_type.label("source"), case((ours.amount_minor < 0, taken_in)).label("taken_in"),
        )
        .join(theirs, theirs.txn_id == LedgerTxn.id).join(owed, owed.id == theirs.account_id)
        .join(ours, ours.txn_id == LedgerTxn.id).join(kept, kept.id == ours.account_id)
        .where(owed.code == "tenant_receivable", kept.code == "psp_platform")
        .where(LedgerTxn.effective_at >= datetime.combine(month, time(), zone))
        .where(LedgerTxn.effective_at < datetime.combine(month_after(month), time(), zone))
    )  # fmt: skip
    if slug is not None:
        moved = moved.where(owed.party == slug)
    rows = moved.subquery()
    of_before = case((rows.c.taken_in < datetime.combine(month, time()), rows.c.taken_in)).label("of_before")
    query = select(
        rows.c.slug, rows.c.account, rows.c.currency, of_before, func.sum(rows.c.minor),
        func.count(rows.c.source.distinct()),
    ).group_by(rows.c.slug, rows.c.account, rows.c.currency, of_before)  # fmt: skip
    found: dict[str, Fees] = defaultdict(lambda: Fees({}, {}, {}))
    for name, account, currency, before, minor, count in (await scope.db.execute(query)).all():
        fees, key = found[name], (account, currency)
        if before is not None:
            fees.back_minor[before.date(), key] = -int(minor)
        else:
            fees.collected_minor[key], fees.payments_count[key] = int(minor), count
    return dict(found)


async def _close_months(scope: Scope, billed: BilledTenant) -> None:
    """Papers of each month that is over, oldest first, until one cannot be written: `lacks` says why."""
    zone = await _zone(scope)
    this_month = scope.now.astimezone(zone).date().replace(day=1)
    seller = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
    if billed.closed_until is None:
        first = await _first_month(scope, billed.slug, zone)
        if first is None:
            return
        billed.closed_until = first
    while billed.closed_until < this_month:
        month = billed.closed_until
        fees = (await fees_of(scope, month, billed.slug)).get(billed.slug, _NO_FEES)
        if fees.collected_minor or fees.back_minor:
            last_day = month_after(month) - timedelta(days=1)
            if seller is None or lacks(seller, billed, last_day):
                return
            treatment = treat(seller, billed, last_day)
            for key, minor in sorted(fees.collected_minor.items()):
                await _invoice(scope, billed, treatment, month, key, minor, fees.payments_count[key])
            for (of, key), minor in sorted(fees.back_minor.items()):
                with speaking(billed.buyer["language"]):
                    reason = _("Fees given back in %(month)s") % {"month": _named(month)}
                await service.credit_part(scope, _source(of, key), billed.billed_id, minor, reason)
        billed.closed_until = month_after(month)
    await scope.db.flush()


async def _first_month(scope: Scope, slug: str, zone: ZoneInfo) -> date | None:
    query = (
        select(func.min(LedgerTxn.effective_at))
        .join(LedgerEntry, LedgerEntry.txn_id == LedgerTxn.id)
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(LedgerAccount.code == "tenant_receivable", LedgerAccount.party == slug)
    )
    first = (await scope.db.execute(query)).scalar_one()
    return first.astimezone(zone).date().replace(day=1) if first else None


def _source(month: date, key: Key) -> str:
    return f"platform_fee:{month:%Y-%m}:{key[0]}:{key[1]}"


def _named(month: date) -> str:
    return format_date(month, "MMMM y", locale=current())


async def _invoice(
    scope: Scope, billed: BilledTenant, treatment: Treatment, month: date, key: Key, gross_minor: int, count: int
) -> None:  # fmt: skip
    """What was kept is gross; VAT is in it, rounded once."""
    if gross_minor <= 0:
        return
    currency, rate = key[1], treatment.rate
    net_minor = half_up(Decimal(gross_minor) * 100 / (100 + rate))
    price = round(to_decimal(gross_minor, currency) / (1 + rate / 100), 8).normalize() + 0
    buyer = billed.buyer | {"tenant": billed.slug, "tax": treatment.evidence | {"code": treatment.code}}
    with speaking(billed.buyer["language"]):
        words = _("Platform fee, %(month)s, card payments: %(count)s") % {
            "month": _named(month), "count": count,
        }  # fmt: skip
        line = service.Line(
            source_type=_source(month, key), source_id=billed.billed_id, source_part="", description=words,
            quantity=Decimal(1), unit="", unit_price=price, vat_rate=rate,
            vat_code=treatment.code, net_minor=net_minor, vat_minor=gross_minor - net_minor, gross_minor=gross_minor,
        )  # fmt: skip
        ended = datetime.combine(month_after(month), time(), await _zone(scope)) - timedelta(seconds=1)
        await service.issue_invoice(
            scope, currency=currency, lines=[line], buyer=buyer, supplied_at=ended,
            language=billed.buyer["language"], is_test=key[0].endswith(":test"),
        )  # fmt: skip


# -- the papers ------------------------------------------------------------------------------------------------------


async def _deliver(database: Database, platform_id: UUID, tenant_id: UUID, slug: str) -> None:
    """Lays into the tenant's own rows what it has not got yet. Set while no transaction is open."""
    async with database.scope(tenant_id, ACTOR) as scope:
        known = list((await scope.db.execute(select(PlatformInvoice.id))).scalars())
    async with database.scope(platform_id, ACTOR) as scope:
        query = select(Invoice.id).where(Invoice.buyer["tenant"].astext == slug, Invoice.id.not_in(known))
        missing = list((await scope.db.execute(query.order_by(Invoice.id))).scalars())
        zone = await _zone(scope)
        papers = [await paper.find_paper(scope, one) for one in missing]
    for found in papers:
        invoice, content = found.invoice, found.content(zone.key, preset("default").primary)
        data = einvoice.find_data(found)
        pdf = await asyncio.to_thread(einvoice.as_hybrid_pdf, content, data)
        xml = await asyncio.to_thread(einvoice.as_cii, data) if data else None
        async with database.scope(tenant_id, ACTOR) as scope:
            values = {
                "id": invoice.id, "kind": invoice.kind, "number": invoice.number, "supplied_on": invoice.supplied_on,
                "issued_at": invoice.issued_at, "currency": invoice.currency, "net_minor": invoice.net_minor,
                "vat_minor": invoice.vat_minor, "gross_minor": invoice.gross_minor, "content": content, "pdf": pdf,
                "xml": xml, "received_at": scope.now,
            }  # fmt: skip
            await scope.db.execute(upsert(PlatformInvoice).values(**values).on_conflict_do_nothing())


async def list_received(scope: Scope) -> list[PlatformInvoice]:
    """A tenant's own, newest first."""
    query = select(PlatformInvoice).order_by(PlatformInvoice.id.desc()).limit(200)
    return list((await scope.db.execute(query)).scalars())


async def get_received(scope: Scope, invoice_id: UUID) -> PlatformInvoice:
    row = await scope.db.get(PlatformInvoice, (scope.tenant_id, invoice_id))
    if row is None:
        raise NotFound("platform_invoice")
    return row


# -- the console's side: `scope` is the platform's own ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A tenant and what one month brought of it. `why_not`: sentences, where its papers cannot be written."""

    slug: str
    collected: list[tuple[str, int]]
    given_back: list[tuple[str, int]]
    papers: list[Invoice]
    why_not: list[str]
    is_closed: bool


async def month_lines(scope: Scope, month: date) -> list[Line]:
    """By slug; those without a fee and without a paper are left out."""
    seller = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
    last_day = month_after(month) - timedelta(days=1)
    query = select(Invoice).where(
        Invoice.buyer["tenant"].astext.is_not(None),
        Invoice.supplied_on >= month,
        Invoice.supplied_on <= last_day,
    )
    papers: dict[str, list[Invoice]] = defaultdict(list)
    for one in (await scope.db.execute(query.order_by(Invoice.id))).scalars():
        papers[one.buyer["tenant"]].append(one)
    found, all_fees = [], await fees_of(scope, month)
    for billed in (await scope.db.execute(select(BilledTenant).order_by(BilledTenant.slug))).scalars():
        fees = all_fees.get(billed.slug, _NO_FEES)
        if not fees.collected_minor and not fees.back_minor and billed.slug not in papers:
            continue
        is_closed = billed.closed_until is not None and billed.closed_until > month
        found.append(Line(
            slug=billed.slug, collected=_by_currency(fees.collected_minor.items()),
            given_back=_by_currency((key, minor) for (_of, key), minor in fees.back_minor.items()),
            papers=papers[billed.slug], is_closed=is_closed,
            why_not=[] if is_closed else lacks(seller, billed, last_day),
        ))  # fmt: skip
    return found


def _by_currency(minors: Iterable[tuple[Key, int]]) -> list[tuple[str, int]]:
    sums: dict[str, int] = defaultdict(int)
    for (_account, currency), minor in minors:
        sums[currency] += minor
    return sorted(sums.items())


async def find_billed(scope: Scope, slug: str) -> BilledTenant | None:
    query = select(BilledTenant).where(BilledTenant.slug == slug)
    return (await scope.db.execute(query)).scalar_one_or_none()


async def record_evidence(scope: Scope, slug: str, *, vat_id: str, reference: str, consulted_on: str) -> None:
    """Somebody asked VIES whether the VAT id is theirs. It holds for this id, until they have another."""
    billed = await find_billed(scope, slug)
    if billed is None:
        raise NotFound("tenant")
    reference = reference.strip()
    if vat_id != billed.buyer["vat_id"] or not vat_id:
        raise Invalid.field("vat_id", "other", "They have another VAT id by now: look again.")
    if not 5 <= len(reference) <= 60 or not reference.isprintable():
        raise Invalid.field("reference", "required", "Give the consultation number that VIES answered with.")
    try:
        day = date.fromisoformat(consulted_on)
    except ValueError:
        day = None
    if day is None or day > scope.now.date():
        raise Invalid.field("consulted_on", "range", "Say on which day you asked: today or before.")
    kept = {name: value for name, value in billed.evidence.items() if name.startswith("country")}
    billed.evidence = kept | {
        "vat_id": vat_id, "reference": reference, "consulted_on": day.isoformat(), "recorded_by": scope.actor.name,
        "recorded_at": scope.now.isoformat(),
    }  # fmt: skip
    await audit.record(scope, "vat_evidence.recorded", "tenant", billed.billed_id, billed.evidence)
    await scope.db.flush()


async def record_country(scope: Scope, slug: str, *, country: str, basis: str) -> None:
    """Somebody has seen where they are established (an extract of a register, a certificate): `basis` says what. It
    holds for this country (ISO 3166-1 alpha-2), until they name another."""
    billed = await find_billed(scope, slug)
    if billed is None:
        raise NotFound("tenant")
    basis = basis.strip()
    if country != tax.alpha_2(billed.buyer["country"]):
        raise Invalid.field("country", "other", "They name another country by now: look again.")
    if not 5 <= len(basis) <= 200 or not basis.isprintable():
        raise Invalid.field("basis", "required", "Say what shows it: a register's number, a certificate.")
    billed.evidence = billed.evidence | {
        "country": country, "country_basis": basis, "country_recorded_by": scope.actor.name,
        "country_recorded_at": scope.now.isoformat(),
    }  # fmt: skip
    await audit.record(scope, "country_evidence.recorded", "tenant", billed.billed_id, billed.evidence)
    await scope.db.flush()
