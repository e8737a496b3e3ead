"""Site hosts: their contracts per location, and what each month leaves them (money.md 1.2, site-host split).

Paid outside the payment provider, or passed on from each card payment (`host_accounts`): a statement says how much, the
ledger owes what is left of it, staff say when that was paid. A month is
what was booked in it, by the tenant's calendar: papers issued, sessions settled and corrected. So what is credited
after a month was closed stands on the next statement by itself, at the terms of the day on which the session ended.
A session belongs to the location that its station has now.
Errors: `host_month_closed`, `already_paid`, `nothing_left`, Invalid by field.
"""

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from babel.dates import format_date
from sqlalchemy import func, select, text

from app.billing import ledger
from app.billing import service as billing
from app.billing.ledger import Posting
from app.billing.models import Invoice, InvoiceLine, LedgerAccount, LedgerEntry, LedgerTxn
from app.billing.paper import REASONS
from app.brands.models import TenantProfile
from app.brands.service import check_profile
from app.charging.models import CDR, ChargingSession, HostContract, HostStatement, SiteHost
from app.identity.service import is_email
from app.kernel import audit, tax
from app.kernel.clock import uuid7
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused
from app.kernel.ids import public_id
from app.kernel.money import exponent, half_up, split
from app.stations.models import ChargingStation, Location
from app.stations.service import get_location
from tenants.scope import Scope
from themes.language import _, current, speaking
from themes.render import day, money, number

SERIES = "HST"
MONTHS_BACK = 3  # a worker that was away for longer is told by the missing statements
PARTS = ("percent", "per_kwh", "per_session")


# -- hosts and contracts ---------------------------------------------------------------------------------------------


async def list_hosts(scope: Scope) -> list[SiteHost]:
    return list((await scope.db.execute(select(SiteHost).order_by(SiteHost.name))).scalars())


async def get_host(scope: Scope, host_id: UUID) -> SiteHost:
    host = await scope.db.get(SiteHost, (scope.tenant_id, host_id))
    if host is None:
        raise NotFound("site_host")
    return host


async def save_host(scope: Scope, values: dict[str, str], host_id: UUID | None = None) -> SiteHost:
    """`values`: name, address, postal_code, city, country, vat_id, email, language, self_billing_since (a day)."""
    names = ("name", "address", "postal_code", "city", "country", "vat_id")
    cleaned = check_profile({name: values.get(name, "") for name in names})
    faults = [
        FieldFault(name, "required", "A statement needs this.")
        for name in ("address", "postal_code", "city") if not cleaned[name]
    ]  # fmt: skip
    email, language = values.get("email", "").strip(), values.get("language", "en")
    if email and not is_email(email):
        faults.append(FieldFault("email", "email", "This is not an e-mail address."))
    if language not in ("en", "de"):
        faults.append(FieldFault("language", "language", "The language is en or de."))
    since = None
    if values.get("self_billing_since"):
        since = _day(values["self_billing_since"], "self_billing_since", faults)
        if not cleaned["vat_id"]:
            faults.append(
                FieldFault("vat_id", "required", "Only for whom has a VAT id can we write their invoices.")
            )
    taken = select(SiteHost.id).where(SiteHost.name == cleaned["name"], SiteHost.id != (host_id or uuid7()))
    if (await scope.db.execute(taken)).first():
        faults.append(FieldFault("name", "taken", "There is a site host of that name."))
    if faults:
        raise Invalid("invalid", "This host cannot be saved.", faults=faults)
    host = await get_host(scope, host_id) if host_id else SiteHost(id=uuid7(), created_at=scope.now)
    for name, value in cleaned.items():
        setattr(host, name, value)
    host.email, host.language, host.self_billing_since = email, language, since
    scope.db.add(host)
    await scope.db.flush()
    await audit.record(scope, "site_host.saved", "site_host", host.id, {"name": host.name})
    return host


def _day(value: str, field_name: str, faults: list[FieldFault]) -> date | None:
    with suppress(ValueError):
        day = date.fromisoformat(value)
        if (
            2000 <= day.year < 2100
        ):  # a slip of the hand: a contract of the year 1 or 9999 cannot be taken back
            return day
    faults.append(FieldFault(field_name, "day", "Give a day from 2000 to 2099."))
    return None


async def list_contracts(scope: Scope, host_id: UUID) -> list[tuple[HostContract, Location]]:
    """Newest first."""
    query = (
        select(HostContract, Location).join(Location, Location.id == HostContract.location_id)
        .where(HostContract.site_host_id == host_id)
        .order_by(Location.name, HostContract.valid_from.desc())
    )  # fmt: skip
    return [(row[0], row[1]) for row in (await scope.db.execute(query)).all()]


async def add_contract(
    scope: Scope, host_id: UUID, location_id: UUID, values: dict[str, str]
) -> HostContract:
    """`values`: valid_from, and percent, per_kwh, per_session as decimals (empty is 0); amounts are net, in the
    tenant's currency. `host_month_closed` where statements say otherwise already."""
    host, location = await get_host(scope, host_id), await get_location(scope, location_id)
    faults = list[FieldFault]()
    parts = {name: _part(values.get(name, ""), name, faults) for name in PARTS}
    valid_from = _day(values.get("valid_from", ""), "valid_from", faults)
    if parts["percent"] > 100:
        faults.append(FieldFault("percent", "range", "A share is 0 to 100 per cent."))
    if faults or valid_from is None:
        raise Invalid("invalid", "This contract cannot be saved.", faults=faults)
    await _lock(scope)
    hosts = select(HostContract.site_host_id).where(HostContract.location_id == location_id)
    closed = select(func.max(HostStatement.month)).where(
        HostStatement.site_host_id.in_(hosts) | (HostStatement.site_host_id == host_id)
    )
    last = (await scope.db.execute(closed)).scalar_one()
    if last is not None and valid_from < month_after(last):
        raise Refused("host_month_closed", f"Statements up to {last:%B %Y} are written: begin after that.")
    query = select(HostContract).filter_by(location_id=location_id, valid_from=valid_from)
    contract = (await scope.db.execute(query)).scalar_one_or_none()
    if contract is None:
        contract = HostContract(id=uuid7(), location_id=location_id, valid_from=valid_from)
        scope.db.add(contract)
    contract.site_host_id, contract.set_by, contract.set_at = host.id, scope.actor.name, scope.now
    for name, value in parts.items():
        setattr(contract, name, value)
    await scope.db.flush()
    told = {name: str(value) for name, value in parts.items()}
    told |= {"location": location.name, "valid_from": valid_from.isoformat()}
    await audit.record(scope, "host_contract.set", "site_host", host.id, told)
    return contract


def _part(value: str, name: str, faults: list[FieldFault]) -> Decimal:
    try:
        found = Decimal(value.strip().replace(",", ".") or "0")
        if (
            not found.is_finite()
            or not 0 <= found < 1_000_000
            or found != round(found, 3 if name == "percent" else 4)
        ):
            raise InvalidOperation
    except InvalidOperation:
        faults.append(FieldFault(name, "amount", "This is a number such as 12.5, with few decimals."))
        return Decimal(0)
    return found


async def _lock(scope: Scope) -> None:
    """Contracts do not change while statements are written."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext('site_hosts'))"),
        {"tenant": str(scope.tenant_id)},
    )


# -- what a month comes to -------------------------------------------------------------------------------------------


def month_after(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


@dataclass(slots=True)
class Entry:
    """A session in a month: what was booked of it. Below 0 where it was taken back."""

    cdr: CDR
    location: Location
    contract: HostContract
    sessions: int = 0
    energy_wh: int = 0
    revenue_minor: int = 0

    @property
    def share(self) -> Fraction:
        """Minor units, exact."""
        return share_of(
            self.contract, self.cdr.currency, revenue_minor=self.revenue_minor, energy_wh=self.energy_wh,
            sessions=self.sessions,
        )  # fmt: skip


def share_of(
    contract: HostContract, currency: str, *, revenue_minor: int, energy_wh: int, sessions: int
) -> Fraction:
    """In minor units, exact (pure)."""
    in_minor = 10 ** exponent(currency)
    return (
        Fraction(revenue_minor) * Fraction(contract.percent) / 100
        + Fraction(energy_wh, 1000) * Fraction(contract.per_kwh) * in_minor
        + sessions * Fraction(contract.per_session) * in_minor
    )


@dataclass(slots=True)
class Month:
    """Of one host and currency."""

    entries: list[Entry] = field(default_factory=list)

    @property
    def net_minor(self) -> int:
        """Rounded once."""
        return half_up(sum((one.share for one in self.entries), Fraction(0)))

    def shares(self) -> list[int]:
        """Per entry, so that they come to `net_minor`."""
        return split(self.net_minor, [one.share for one in self.entries])


async def month_of(scope: Scope, month: date, zone: ZoneInfo) -> dict[tuple[UUID, str], Month]:
    """By host and currency: what was booked in that month, where a contract held when the session ended."""
    begins, ends = (datetime.combine(one, time(), zone) for one in (month, month_after(month)))
    terms = await _terms(scope)
    entries: dict[UUID, Entry] = {}

    async def entry(cdr: CDR, station: ChargingStation) -> Entry | None:
        found = terms.get(station.location_id, []) if station.location_id else []
        on = cdr.ended_at.astimezone(zone).date()
        held = next((one for one in found if one[0].valid_from <= on), None)
        if held is None:
            return None
        return entries.setdefault(cdr.session_id, Entry(cdr=cdr, location=held[1], contract=held[0]))

    base = (
        select(CDR, ChargingStation).join(ChargingSession, ChargingSession.id == CDR.session_id)
        .join(ChargingStation, ChargingStation.id == ChargingSession.station_id)
        .where(ChargingStation.location_id.in_(list(terms)))
    )  # fmt: skip
    used = base.where(CDR.created_at >= begins, CDR.created_at < ends).order_by(CDR.ended_at, CDR.id)
    for cdr, station in (await scope.db.execute(used)).all():
        one = await entry(cdr, station)
        if one is not None:
            sign = -1 if cdr.kind == "credit" else 1
            one.sessions, one.energy_wh = one.sessions + sign, one.energy_wh + cdr.energy_wh
    paid = (
        base.add_columns(func.sum(InvoiceLine.net_minor))
        .join(InvoiceLine, (InvoiceLine.source_type == "cdr") & (InvoiceLine.source_id == CDR.id))
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(Invoice.issued_at >= begins, Invoice.issued_at < ends)
        .group_by(CDR.tenant_id, CDR.id, ChargingStation.tenant_id, ChargingStation.id).order_by(CDR.ended_at, CDR.id)
    )  # fmt: skip
    for cdr, station, net_minor in (await scope.db.execute(paid)).all():
        one = await entry(cdr, station)
        if one is not None:
            one.revenue_minor += int(net_minor)
    months: dict[tuple[UUID, str], Month] = defaultdict(Month)
    for one in sorted(entries.values(), key=lambda one: (one.location.name, one.cdr.ended_at, one.cdr.id)):
        if one.sessions or one.energy_wh or one.revenue_minor:
            months[one.contract.site_host_id, one.cdr.currency].entries.append(one)
    return dict(months)


async def _terms(scope: Scope) -> dict[UUID, list[tuple[HostContract, Location]]]:
    """Each location's contracts, newest first."""
    query = (
        select(HostContract, Location).join(Location, Location.id == HostContract.location_id)
        .order_by(HostContract.valid_from.desc())
    )  # fmt: skip
    found: dict[UUID, list[tuple[HostContract, Location]]] = defaultdict(list)
    for contract, location in (await scope.db.execute(query)).all():
        found[contract.location_id].append((contract, location))
    return dict(found)


# -- statements ------------------------------------------------------------------------------------------------------


async def write_statements(scope: Scope) -> int:
    """Of the months that are over, each once; how many are new."""
    profile = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
    if profile is None or not await list_hosts(scope):
        return 0
    await _lock(scope)
    zone = ZoneInfo(profile.time_zone)
    this_month = scope.now.astimezone(zone).date().replace(day=1)
    months = [this_month]
    for _turn in range(MONTHS_BACK):
        months.insert(0, (months[0] - timedelta(days=1)).replace(day=1))
    query = select(HostStatement.month, HostStatement.site_host_id, HostStatement.currency)
    known = {tuple(row) for row in await scope.db.execute(query.where(HostStatement.month >= months[0]))}
    written = 0
    for month in months[:-1]:
        for (host_id, currency), found in (await month_of(scope, month, zone)).items():
            if (month, host_id, currency) not in known and found.net_minor:
                await _write(scope, profile, await get_host(scope, host_id), month, currency, found)
                known.add((month, host_id, currency))
                written += 1
    # What was counted as passed on and came back is owed again, also where nothing new is shared.
    for host in await list_hosts(scope):
        key = (months[-2], host.id, profile.currency)
        if key not in known and await passed_on(scope, host, profile.currency) < 0:
            await _write(scope, profile, host, months[-2], profile.currency, Month())
            written += 1
    return written


@dataclass(frozen=True, slots=True)
class _Tax:
    code: str
    rate: Decimal


def tax_of(profile: TenantProfile, host: SiteHost, last_day: date) -> _Tax | None:
    """Of a self-billed invoice: the host supplies, we receive. None: a statement, and the host invoices, or not."""
    if not host.vat_id or host.self_billing_since is None or host.self_billing_since > last_day:
        return None
    theirs, ours = tax.alpha_2(host.country), tax.alpha_2(profile.country)
    if theirs != ours:
        return _Tax("AE", Decimal(0)) if {theirs, ours} <= tax.EU and profile.vat_id else None
    rate = tax.find_vat_rate(theirs, last_day)
    return _Tax(f"{theirs}{rate.normalize():f}", rate) if rate is not None else None


async def _write(
    scope: Scope, profile: TenantProfile, host: SiteHost, month: date, currency: str, found: Month
) -> HostStatement:
    """Dr site_host_expense, Dr vat_receivable / Cr site_host_payable; the number is taken last."""
    last_day, net = month_after(month) - timedelta(days=1), found.net_minor
    vat = tax_of(profile, host, last_day)
    vat_minor = half_up(Fraction(net) * Fraction(vat.rate) / 100) if vat else 0
    issued_on = scope.now.astimezone(ZoneInfo(profile.time_zone)).date()
    row = HostStatement(
        id=uuid7(), site_host_id=host.id, month=month, is_self_billing=vat is not None, issued_at=scope.now,
        currency=currency, sessions_count=sum(one.sessions for one in found.entries),
        energy_wh=sum(one.energy_wh for one in found.entries),
        revenue_minor=sum(one.revenue_minor for one in found.entries), net_minor=net, vat_minor=vat_minor,
        gross_minor=net + vat_minor,
    )  # fmt: skip
    # No more than this month comes to: what was passed on since belongs to the next.
    row.transferred_minor = min(await passed_on(scope, host, currency), max(row.gross_minor, 0))
    await ledger.post(scope, "host_share", "host_statement", row.id, scope.now, [
        Posting("site_host_expense", net, currency, public_id("site_host", host.id)),
        Posting("vat_receivable", vat_minor, currency, vat.code if vat else ""),
        Posting("site_host_payable", -net - vat_minor, currency, public_id("site_host", host.id)),
    ])  # fmt: skip
    taken = await billing.next_number(scope, SERIES, issued_on.year)
    row.number = f"{SERIES}-{issued_on.year}-{taken:06d}"
    with speaking(host.language):
        row.content = _content(profile, host, row, found, vat, issued_on)
    scope.db.add(row)
    await audit.record(
        scope, "host_statement.written", "host_statement", row.id,
        {"number": row.number, "gross_minor": row.gross_minor},
    )  # fmt: skip
    await scope.db.flush()
    return row


async def passed_on(scope: Scope, host: SiteHost, currency: str) -> int:
    """What left the operator for this host and no statement counted yet, minor units: by the books, so that what came
    back, or could not be taken back, is in it too. Below 0 where more came back than was counted."""
    party, moved = public_id("site_host", host.id), 0
    for code in ("site_host_payable", "host_share_held"):
        moved += (await ledger.sums(scope, code, [party], currency)).get(party, 0)
    # Without those that were booked under a name, before hosts were known by their ids.
    other = (
        select(LedgerTxn.source_id).join(LedgerEntry, LedgerEntry.txn_id == LedgerTxn.id)
        .join(LedgerAccount, LedgerAccount.id == LedgerEntry.account_id)
        .where(LedgerTxn.kind == "host_share", LedgerAccount.code == "site_host_payable", LedgerAccount.party != party)
    )  # fmt: skip
    query = select(func.coalesce(func.sum(HostStatement.gross_minor - HostStatement.transferred_minor), 0)).where(
        HostStatement.site_host_id == host.id, HostStatement.currency == currency, HostStatement.paid_on.is_(None),
        HostStatement.id.not_in(other),
    )  # fmt: skip
    return moved + int((await scope.db.execute(query)).scalar_one())


def _content(
    profile: TenantProfile, host: SiteHost, row: HostStatement, found: Month, vat: _Tax | None, issued_on: date
) -> dict[str, Any]:  # fmt: skip
    """As `paper.content_of` has it, so that page and PDF show it as they show an invoice."""
    currency, rate = row.currency, f"{number(vat.rate, '#,##0.###')} %" if vat else "–"
    name = _("Self-billed invoice") if vat else _("Settlement statement")
    ours = [profile.address, f"{profile.postal_code} {profile.city}".strip(), _numbered(profile.vat_id)]
    theirs = [host.address, f"{host.postal_code} {host.city}", host.country, _numbered(host.vat_id)]
    us, them = profile.legal_name or profile.name, host.name
    seller, buyer = ((them, theirs), [us, *ours]) if vat else ((us, ours), [them, *theirs])
    exact = [one.share for one in found.entries]
    gross = split(
        row.gross_minor, [share * (100 + (Fraction(vat.rate) if vat else 0)) / 100 for share in exact]
    )
    month = format_date(row.month, "MMMM y", locale=current())
    return {
        "title": f"{name} {row.number}", "name": name, "number": row.number, "color": "", "language": current(),
        "seller_name": seller[0], "seller_lines": [line for line in seller[1] if line], "not_an_invoice": "",
        "waived": "", "corrects": [], "tax_note": _(REASONS["AE"]) if vat and vat.code == "AE" else "",
        "facts": [
            [_("Recipient"), [line for line in buyer if line]], [_("Issued"), [day(issued_on)]],
            [_("Month"), [month]],
            [_("Net revenue"), [money(row.revenue_minor, currency), f"{number(Decimal(row.energy_wh) / 1000)} kWh"]],
        ],
        "lines_name": _("Sessions"),
        "head": [_("Session"), _("Energy"), _("Net revenue"), _("VAT"), _("Share, net"), _("Share, gross")],
        "lines": [
            {
                "what": f"{day(one.cdr.ended_at.astimezone(ZoneInfo(profile.time_zone)))}, {one.location.name}"
                        + _why(one),
                "amount": f"{number(Decimal(one.energy_wh) / 1000)} kWh", "price": money(one.revenue_minor, currency),
                "net_price": _terms_in_words(one.contract, currency), "vat": rate,
                "net": money(share, currency), "gross": money(with_vat, currency),
            }
            for one, share, with_vat in zip(found.entries, found.shares(), gross, strict=True)
        ],
        "totals": [
            [_("Net"), money(row.net_minor, currency), False],
            *([[f"{_('VAT')} {rate}", money(row.vat_minor, currency), False]] if vat else []),
            [_("Total"), money(row.gross_minor, currency), True],
            *([[_("Passed on already"), money(row.transferred_minor, currency), False],
               [_("Left to pay"), money(row.left_minor, currency), True]] if row.transferred_minor else []),
        ],
        "paid": _("Invoiced by the recipient in the name of the supplier, as agreed on %(day)s.")
                % {"day": day(host.self_billing_since)} if vat and host.self_billing_since
                else _("This statement is no invoice and shows no VAT."),
        "footer": " · ".join(filter(None, (profile.support_email, profile.support_phone))),
    }  # fmt: skip


def _why(one: Entry) -> str:
    """Of what comes after the month of its session."""
    if one.sessions > 0:
        return ""
    is_less = one.energy_wh < 0 or one.revenue_minor < 0
    return f" ({_('correction') if is_less else _('billed later')})"


def _numbered(vat_id: str) -> str:
    return f"{_('VAT id')} {vat_id}" if vat_id else ""


def _terms_in_words(contract: HostContract, currency: str) -> str:
    parts = [
        f"{number(contract.percent)} %" if contract.percent else "",
        f"{number(contract.per_kwh)} {currency}/kWh" if contract.per_kwh else "",
        _("%(amount)s per session") % {"amount": f"{number(contract.per_session)} {currency}"}
        if contract.per_session else "",
    ]  # fmt: skip
    return " + ".join(filter(None, parts))


async def list_statements(scope: Scope, host_id: UUID | None = None) -> list[tuple[HostStatement, SiteHost]]:
    """Newest month first."""
    query = select(HostStatement, SiteHost).join(SiteHost, SiteHost.id == HostStatement.site_host_id)
    if host_id is not None:
        query = query.where(HostStatement.site_host_id == host_id)
    query = query.order_by(HostStatement.month.desc(), HostStatement.number.desc()).limit(200)
    return [(row[0], row[1]) for row in (await scope.db.execute(query)).all()]


async def get_statement(scope: Scope, statement_id: UUID) -> HostStatement:
    row = await scope.db.get(HostStatement, (scope.tenant_id, statement_id), populate_existing=True)
    if row is None:
        raise NotFound("host_statement")
    await scope.db.refresh(row, ["content"])
    return row


async def mark_paid(scope: Scope, statement_id: UUID, paid_on: str) -> HostStatement:
    """The bank transfer of what is left was made: Dr site_host_payable / Cr bank. Once."""
    query = select(HostStatement).where(HostStatement.id == statement_id).with_for_update()
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None:
        raise NotFound("host_statement")
    faults = list[FieldFault]()
    on = _day(paid_on, "paid_on", faults)
    if on is None or on > scope.now.date():
        raise Invalid.field("paid_on", "day", "Say on which day it was paid: today or before.")
    if row.paid_on is not None:
        raise Refused("already_paid", "This statement was paid already.")
    if not row.left_minor:
        raise Refused("nothing_left", "All of this statement was passed on already.")
    row.paid_on, row.paid_by = on, scope.actor.name
    # Where it was booked: in books from before hosts were known by their ids, under a name.
    party = await ledger.party_of(scope, "site_host_payable", "host_statement", row.id)
    party = party or public_id("site_host", row.site_host_id)
    await ledger.post(scope, "host_paid", "host_statement", row.id, scope.now, [
        Posting("site_host_payable", row.left_minor, row.currency, party),
        Posting("bank", -row.left_minor, row.currency),
    ])  # fmt: skip
    await audit.record(scope, "host_statement.paid", "host_statement", row.id, {"paid_on": on.isoformat()})
    await scope.db.flush()
    return row
