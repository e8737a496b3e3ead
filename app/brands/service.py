"""Tenants and their faces: provisioning, suspension, the profile that invoices name, the theme.

Errors: `slug_taken`, `slug_reserved`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from babel import Locale
from sqlalchemy import delete, insert, select, text, update

from app.brands import faces
from app.brands.look import LANGUAGES
from app.brands.models import TenantProfile
from app.identity import service as identity
from app.identity.admins import platform_tenant_id
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused
from app.kernel.money import is_currency
from app.kernel.names import name_fault
from app.kernel.zones import is_known, is_time_zone
from tenants.database import Database
from tenants.models import Tenant, TenantRoute, TenantStats
from tenants.resolve import RESERVED_SLUGS
from tenants.scope import Actor, PlatformScope, Scope
from themes.letters import is_plain_line
from themes.theme import Theme, logo_text, preset

SLUG = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
# How the numbers look after the country's letters (Directive 2006/112/EC Art. 215; the VIES syntax table).
_VAT_IDS = {
    "AT": r"U\d{8}", "BE": r"[01]\d{9}", "BG": r"\d{9,10}", "CY": r"\d{8}[A-Z]", "CZ": r"\d{8,10}", "DE": r"\d{9}",
    "DK": r"\d{8}", "EE": r"\d{9}", "EL": r"\d{9}", "ES": r"[A-Z0-9]\d{7}[A-Z0-9]", "FI": r"\d{8}",
    "FR": r"[A-HJ-NP-Z0-9]{2}\d{9}", "HR": r"\d{11}", "HU": r"\d{8}", "IE": r"\d[A-Z0-9+*]\d{5}[A-Z]{1,2}",
    "IT": r"\d{11}", "LT": r"(\d{9}|\d{12})", "LU": r"\d{8}", "LV": r"\d{11}", "MT": r"\d{8}",
    "NL": r"[A-Z0-9+*]{12}", "PL": r"\d{10}", "PT": r"\d{9}", "RO": r"\d{2,10}", "SE": r"\d{12}", "SI": r"\d{8}",
    "SK": r"\d{10}", "XI": r"(\d{9}|\d{12}|GD\d{3}|HA\d{3})", "GB": r"(\d{9}|\d{12}|GD\d{3}|HA\d{3})",
    "CH": r"E\d{9}(MWST|TVA|IVA)?", "NO": r"\d{9}(MVA)?",
}  # fmt: skip
_OTHER_VAT_ID = r"(?=.*\d)[A-Z0-9]{2,13}"
_TEXTS = ("name", "legal_name", "address", "postal_code", "city", "tax_number", "support_phone")


@dataclass(frozen=True, slots=True)
class CreatedTenant:
    """`login_secret` opens the first admin's login; told once."""

    tenant_id: UUID
    slug: str
    login_secret: str


def check_slug(slug: str) -> str:
    if slug in RESERVED_SLUGS or slug.startswith("portal-"):
        raise Refused("slug_reserved", f"The slug {slug} is reserved.")
    if not SLUG.fullmatch(slug):
        raise Invalid.field("slug", "slug", "The slug is 3 to 32 lower-case letters, digits and dashes.")
    return slug


async def create_tenant(
    database: Database, actor: Actor, *, slug: str, name: str, country: str, currency: str, time_zone: str,
    admin_email: str, admin_name: str = "", theme: str | None = None,
) -> CreatedTenant:  # fmt: skip
    """The tenant, its hosts, its profile, its look and its first owner. `theme` names a preset."""
    check_slug(slug)
    cleaned = check_profile({"name": name, "country": country, "currency": currency, "time_zone": time_zone})
    identity.check_email(admin_email, "admin_email")
    look = preset(theme) if theme else replace(preset("default"), logo_text=logo_text(cleaned["name"]))
    tenant_id = uuid7()
    async with database.platform_scope(actor, f"create tenant {slug}") as scope:
        await _register(scope, tenant_id, slug, cleaned["name"])
    try:
        token = await _furnish(database, actor, tenant_id, slug, cleaned, look, (admin_email, admin_name))
    except BaseException:
        await _unregister(database, actor, tenant_id, slug)
        raise
    return CreatedTenant(tenant_id, slug, token)


async def _furnish(
    database: Database, actor: Actor, tenant_id: UUID, slug: str, cleaned: dict[str, Any], look: Theme,
    first: tuple[str, str],
) -> str:  # fmt: skip
    """What lies in the tenant's own rows; answers the first owner's login token."""
    async with database.scope(tenant_id, actor) as scope:
        await _check_time_zone(scope, cleaned)
        scope.db.add(TenantProfile(**cleaned))
        await faces.found(scope, look)
        owner = await identity.invite_staff(scope, email=first[0], name=first[1], role="owner")
        _link, token = await identity.make_login_link(scope, owner.id, identity.INVITATION_LIFETIME)
        await audit.record(scope, "tenant.created", "tenant", tenant_id, {"slug": slug})
        await events.emit(scope, "TenantCreated", "tenant", tenant_id, public=False)
    return token


async def _unregister(database: Database, actor: Actor, tenant_id: UUID, slug: str) -> None:
    """Its rows could not be written: the name is free again."""
    async with database.platform_scope(actor, f"tenant {slug} could not be set up") as scope:
        await scope.db.execute(delete(TenantRoute).where(TenantRoute.tenant_id == tenant_id))
        await scope.db.execute(delete(Tenant).where(Tenant.id == tenant_id))
        await scope.write_audit("tenant.abandoned", {"slug": slug})


async def _register(scope: PlatformScope, tenant_id: UUID, slug: str, name: str) -> None:
    if (await scope.db.execute(select(Tenant.id).where(Tenant.slug == slug))).first():
        raise Refused("slug_taken", f"There is a tenant {slug} already.")
    await scope.db.execute(insert(Tenant).values(id=tenant_id, slug=slug, name=name))
    settings = scope.settings
    for surface in ("driver", "portal"):
        host = settings.host_of(surface, slug)
        row = {"kind": "host", "key": host, "tenant_id": tenant_id, "surface": surface}
        await scope.db.execute(insert(TenantRoute).values(**row))
    await scope.write_audit("tenant.created", {"slug": slug})


@dataclass(frozen=True, slots=True)
class TenantLine:
    """A row of the console's list; figures come from the tenant's own job."""

    id: UUID
    slug: str
    name: str
    status: str
    created_at: datetime
    suspended_at: datetime | None
    figures: dict[str, Any]
    figures_at: datetime | None


async def list_tenants(database: Database, actor: Actor) -> list[TenantLine]:
    query = (
        select(Tenant, TenantStats)
        .outerjoin(TenantStats, TenantStats.tenant_id == Tenant.id)
        .where(Tenant.kind == "cpo")
        .order_by(Tenant.slug)
    )
    async with database.platform_scope(actor, "list tenants") as scope:
        rows = (await scope.db.execute(query)).all()
    return [
        TenantLine(
            t.id,
            t.slug,
            t.name,
            t.status,
            t.created_at,
            t.suspended_at,
            s.figures if s else {},
            s.at if s else None,
        )
        for t, s in rows
    ]


async def find_tenant(database: Database, actor: Actor, slug: str) -> UUID:
    """The id of a tenant by its slug. NotFound."""
    async with database.platform_scope(actor, f"look up {slug}") as scope:
        found = (await scope.db.execute(select(Tenant.id).where(Tenant.slug == slug))).scalar_one_or_none()
    if found is None:
        raise NotFound("tenant")
    return found


async def suspend_tenant(database: Database, actor: Actor, slug: str, reason: str = "suspended") -> None:
    """Running sessions end normally, new starts are refused, stations stay connected, staff read only."""
    await _set_status(database, actor, slug, "suspended", reason)


async def resume_tenant(database: Database, actor: Actor, slug: str, reason: str = "resumed") -> None:
    await _set_status(database, actor, slug, "active", reason)


async def _set_status(database: Database, actor: Actor, slug: str, status: str, reason: str) -> None:
    tenant_id = await find_tenant(database, actor, slug)
    async with database.platform_scope(actor, reason, tenant_id=tenant_id) as scope:
        suspended_at = scope.now if status == "suspended" else None
        change = update(Tenant).where(Tenant.id == tenant_id).values(status=status, suspended_at=suspended_at)
        await scope.db.execute(change)
        await scope.write_audit(f"tenant.{status}", {"slug": slug})
    async with database.scope(tenant_id, actor) as scope:
        await audit.record(scope, f"tenant.{status}", "tenant", tenant_id, {"reason": reason})


# --- the profile -------------------------------------------------------------------------------------------------


async def get_profile(scope: Scope) -> TenantProfile:
    profile = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
    if profile is None:
        raise NotFound("tenant")
    return profile


async def update_profile(scope: Scope, changes: Mapping[str, Any]) -> TenantProfile:
    """Any of: name, legal_name, address, postal_code, city, country, currency, time_zone, language, vat_id,
    tax_number, ocpi_country_code, ocpi_party_id, support_email, support_phone, card_use. Another currency only once
    nothing is under way in the one until now (`currency_in_use`)."""
    profile = await get_profile(scope)
    cleaned = check_profile(changes)
    await _check_time_zone(scope, cleaned)
    if cleaned.get("language", profile.language) != profile.language:
        await _check_language(scope, cleaned["language"])
    if cleaned.get("currency", profile.currency) != profile.currency:
        await _check_currency(scope, profile.currency)
    for field, value in cleaned.items():
        setattr(profile, field, value)
    if "name" in cleaned:
        await scope.db.execute(text("select platform.put_own_name(:name)"), {"name": cleaned["name"]})
    profile.updated_at = scope.now
    await audit.record(
        scope, "tenant.profile_changed", "tenant", scope.tenant_id, {"fields": sorted(cleaned)}
    )
    await scope.db.flush()
    return profile


async def find_platform(database: Database, actor: Actor, why: str) -> UUID:
    """The platform's own tenant, whose profile is the seller of its invoices to the others."""
    async with database.platform_scope(actor, why) as scope:
        return await platform_tenant_id(scope.db)


async def put_platform_profile(
    database: Database, actor: Actor, changes: Mapping[str, Any], reason: str
) -> None:
    """Name, country, currency and time zone are there from the first time on."""
    cleaned = check_profile(changes)
    async with database.platform_scope(actor, reason) as scope:
        await scope.write_audit("platform.profile_changed", {"fields": sorted(cleaned)})
        platform_id = await platform_tenant_id(scope.db)
    async with database.scope(platform_id, actor) as scope:
        if (await scope.db.execute(select(TenantProfile))).scalar_one_or_none() is None:
            await _check_time_zone(scope, cleaned)
            scope.db.add(TenantProfile(**{name: cleaned[name] for name in _FIRST}))
            await scope.db.flush()
        await update_profile(scope, changes)


_FIRST = ("name", "country", "currency", "time_zone")


async def _check_time_zone(scope: Scope, cleaned: Mapping[str, Any]) -> None:
    if "time_zone" in cleaned and not await is_known(scope, cleaned["time_zone"]):
        raise Invalid.field("time_zone", "time_zone", _MESSAGES["time_zone"])


_OPEN_MONEY = text("""
    select exists (
        select from livery.ledger_entry e
          join livery.ledger_account a on a.tenant_id = e.tenant_id and a.id = e.account_id
         where a.code in ('wallet_liability', 'voucher_liability') and a.currency = :currency
         group by a.id having sum(e.amount_minor) <> 0) as "drivers' wallets or vouchers",
      exists (
        select from livery.payment where currency = :currency
           and state in ('created', 'requires_action', 'processing', 'authorized', 'capturing')
        ) as "payments that are not over",
      exists (
        select from livery.charging_session s
          left join livery.price_snapshot f on f.tenant_id = s.tenant_id and f.session_id = s.id
         where coalesce(f.currency, :currency) = :currency
           and (s.status in ('PENDING', 'ACTIVE') or s.status = 'COMPLETED' and s.settled_at is null)
        ) as "sessions that are not settled",
      exists (
        select from livery.cdr c where c.kind = 'cdr' and c.collection = 'monthly' and c.incl_vat_minor <> 0
           and c.currency = :currency
           and not exists (select from livery.cdr k where k.tenant_id = c.tenant_id and k.corrects_id = c.id)
           and not exists (select from livery.invoice_line l where l.tenant_id = c.tenant_id
                            and l.source_type = 'cdr' and l.source_id = c.id)
        ) as "sessions that wait for their monthly invoice"
""")


async def _check_currency(scope: Scope, currency: str) -> None:
    """Money that is under way in the currency until now would be nobody's: it is brought to its end first."""
    found = (await scope.db.execute(_OPEN_MONEY, {"currency": currency})).mappings().one()
    open_ones = [words for words, is_open in found.items() if is_open]
    if open_ones:
        raise Invalid.field(
            "currency",
            "currency_in_use",
            f"There are still {', '.join(open_ones)} in {currency}: they come first.",
        )


async def _check_language(scope: Scope, language: str) -> None:
    offered = await faces.get_languages(scope)
    if language not in offered:
        names = " and ".join(LANGUAGES[one] for one in offered)
        raise Invalid.field(
            "language",
            "language",
            f"Drivers are offered {names} only. Branding says which languages they are offered.",
        )


def check_profile(values: Mapping[str, Any]) -> dict[str, Any]:
    """Cleaned values. Invalid names every wrong field (pure)."""
    faults: list[FieldFault] = []
    cleaned: dict[str, Any] = {}
    for field, value in values.items():
        if value is not None and not isinstance(value, str):
            faults.append(FieldFault(field, "text", f"{field} is a text."))
            continue
        text_value = (value or "").strip()
        fault = _profile_fault(field, text_value)
        if fault is not None:
            faults.append(fault)
        cleaned[field] = text_value.upper() if field in _UPPER else text_value
    if cleaned.get("vat_id"):
        cleaned["vat_id"] = re.sub(r"[ .-]", "", cleaned["vat_id"])
    if faults:
        raise Invalid("invalid", "The profile has wrong fields.", faults=faults)
    return cleaned


_UPPER = frozenset({"country", "currency", "vat_id", "ocpi_country_code", "ocpi_party_id"})


def _profile_fault(field: str, value: str) -> FieldFault | None:
    if field in _TEXTS:
        if field == "name" and not value:
            return FieldFault(field, "required", "The name is required.")
        return name_fault(value, field)
    if not is_plain_line(value):
        return name_fault(value, field)
    wrong = {
        "country": lambda: value.upper() not in Locale("en").territories or len(value) != 2,
        "currency": lambda: not is_currency(value.upper()),
        "time_zone": lambda: not is_time_zone(value),
        "language": lambda: value not in ("en", "de"),
        "vat_id": lambda: bool(value) and not is_vat_id(value),
        "ocpi_country_code": lambda: bool(value) and not re.fullmatch(r"[A-Za-z]{2}", value),
        "ocpi_party_id": lambda: bool(value) and not re.fullmatch(r"[A-Za-z0-9]{3}", value),
        "support_email": lambda: bool(value) and not identity.is_email(value),
        "card_use": lambda: value not in ("anywhere", "hold", "refuse"),
    }.get(field)
    if wrong is None:
        return FieldFault(field, "unknown_field", f"There is no field {field}.")
    return FieldFault(field, field, _MESSAGES[field]) if wrong() else None


_MESSAGES = {
    "country": "country is an ISO 3166-1 alpha-2 code such as DE.",
    "currency": "currency is an ISO 4217 code such as EUR.",
    "time_zone": "time_zone is an IANA name such as Europe/Berlin.",
    "language": "language is en or de.",
    "vat_id": "The VAT id begins with its country's two letters, such as DE136695976.",
    "ocpi_country_code": "ocpi_country_code has two letters.",
    "ocpi_party_id": "ocpi_party_id has three letters or digits.",
    "support_email": "This is not an e-mail address.",
    "card_use": "card_use is anywhere, hold or refuse.",
}


def is_vat_id(value: str) -> bool:
    """Syntax only: whether the number was given to somebody, only its country can say."""
    compact = re.sub(r"[ .-]", "", value.upper())
    country, number = compact[:2], compact[2:]
    if not re.fullmatch(r"[A-Z]{2}", country):
        return False
    return re.fullmatch(_VAT_IDS.get(country, _OTHER_VAT_ID), number) is not None


async def own_tenant(scope: Scope) -> tuple[str, str, str]:
    """(slug, name, status) of the tenant this scope serves. The name is its profile's."""
    row = (await scope.db.execute(text("select slug, name, status from platform.own_tenant()"))).one()
    return row.slug, row.name, row.status
