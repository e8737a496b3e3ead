"""Console pages of the platform's own book: what each tenant's payments brought, its papers, and who the seller is."""

from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from typing import Any

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.billing import platform_book, queries
from app.brands import service as brands
from app.brands.models import TenantProfile
from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import NavItem, form_again, page, read_form, redirect, visit_of
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Fees and invoices", "/platform-book", "receipt", "platform_book.view", order=12),
    NavItem("Platform", "/platform-profile", "settings", "platform_book.view", order=45),
]
FIELDS = (
    "name", "legal_name", "address", "postal_code", "city", "country", "vat_id", "tax_number", "support_email",
    "support_phone", "currency", "time_zone",
)  # fmt: skip
FIRST = {"name": "", "country": "DE", "currency": "EUR", "time_zone": "Europe/Berlin"}
ACCOUNTS = {
    "psp_platform": "Received at the payment provider", "tenant_receivable": "Kept and not invoiced yet",
    "fee_revenue": "Fees earned", "vat_payable": "VAT to pay",
}  # fmt: skip


@get("/platform-book", opt={"permission": "platform_book.view"})
async def show_book(request: AnyRequest) -> Response[Any]:
    """`month` is `2026-11`; else this one, by the platform's clock."""
    visit = visit_of(request)
    platform_id = await brands.find_platform(visit.database, visit.actor, "look at fees and invoices")
    async with visit.database.scope(platform_id, visit.actor) as scope:
        seller = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
        month = _month(request.query_params.get("month", ""), scope.now.date())
        lines = await platform_book.month_lines(scope, month)
        balances = await queries.trial_balance(scope)
    sums: dict[str, int] = {}
    for line in lines:
        for currency, minor in line.collected:
            sums[currency] = sums.get(currency, 0) + minor
    return page(
        request, None, "billing/platform_book.html", title="Fees and invoices", month=month, sums=sums,
        lines=[(line, [(public_id("platform_invoice", one.id), one) for one in line.papers]) for line in lines],
        accounts=ACCOUNTS, balances=balances, has_seller=seller is not None and seller.has_seller_data,
        before=(month - timedelta(days=1)).replace(day=1), after=platform_book.month_after(month),
    )  # fmt: skip


def _month(value: str, today: date) -> date:
    try:
        month = date.fromisoformat(f"{value}-01")
    except ValueError:
        return today.replace(day=1)
    # The page links to the months beside it: the calendar's first and last have none.
    return month if date.min.year < month.year < date.max.year else today.replace(day=1)


@get(
    "/tenants/{slug:str}/platform-invoices/{platform_invoice_id:str}",
    opt={"permission": "platform_book.view"},
)
async def download_invoice(request: AnyRequest, slug: str, platform_invoice_id: str) -> Response[bytes]:
    """The file as the tenant received it."""
    visit = visit_of(request)
    tenant_id = await brands.find_tenant(visit.database, visit.actor, slug)
    async with visit.database.scope(tenant_id, visit.actor) as scope:
        row = await platform_book.get_received(scope, parse_id("platform_invoice", platform_invoice_id))
        await scope.db.refresh(row, ["pdf"])
    headers = {"Content-Disposition": f'inline; filename="{row.number}.pdf"'}
    return Response(row.pdf, media_type="application/pdf", headers=headers)


@get("/platform-profile", opt={"permission": "platform_book.view"})
async def show_profile(request: AnyRequest) -> Response[Any]:
    return page(
        request, None, "billing/platform_profile.html", title="Platform", values=await _profile(request), errors={},
        alert=None,
    )  # fmt: skip


async def _profile(request: AnyRequest) -> dict[str, Any]:
    visit = visit_of(request)
    platform_id = await brands.find_platform(visit.database, visit.actor, "look at the platform's profile")
    async with visit.database.scope(platform_id, visit.actor) as scope:
        profile = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
    if profile is None:
        return dict.fromkeys(FIELDS, "") | FIRST | {"is_complete": False}
    return {name: getattr(profile, name) for name in FIELDS} | {"is_complete": profile.has_seller_data}


@post("/platform-profile", opt={"permission": "platform_book.manage"})
async def change_profile(request: AnyRequest) -> Response[Any]:
    visit, form = visit_of(request), await read_form(request)
    changes = {name: form.text(name) for name in FIELDS}
    try:
        await brands.put_platform_profile(visit.database, visit.actor, changes, form.reason())
    except Invalid as error:
        return form_again(request, None, "billing/platform_profile.html", error, form, title="Platform")
    return redirect(request, "/platform-profile", flash="The platform's data are saved.")


@post("/tenants/{slug:str}/vat-evidence", opt={"permission": "platform_book.manage"})
async def record_evidence(request: AnyRequest, slug: str) -> Response[Any]:
    form = await read_form(request)
    vat_id, reference, day = form.text("vat_id"), form.text("reference"), form.text("consulted_on")

    async def record(scope: Scope) -> None:
        await platform_book.record_evidence(scope, slug, vat_id=vat_id, reference=reference, consulted_on=day)

    told = {"vat_id": vat_id, "reference": reference[:60]}
    said = "Recorded: their next invoice is by reverse charge."
    return await _record(request, slug, "vat_evidence.recorded", told, record, said)


@post("/tenants/{slug:str}/country-evidence", opt={"permission": "platform_book.manage"})
async def record_country(request: AnyRequest, slug: str) -> Response[Any]:
    form = await read_form(request)
    country, basis = form.text("country"), form.text("basis")

    async def record(scope: Scope) -> None:
        await platform_book.record_country(scope, slug, country=country, basis=basis)

    told = {"country": country[:2], "basis": basis[:200]}
    said = "Recorded: their next invoice is taxed as that country's."
    return await _record(request, slug, "country_evidence.recorded", told, record, said)


async def _record(
    request: AnyRequest, slug: str, deed: str, told: dict[str, str], record: Callable[[Scope], Awaitable[None]],
    said: str,
) -> Response[Any]:  # fmt: skip
    visit, path, why = visit_of(request), f"/tenants/{slug}/fees", "record what their VAT rests on"
    tenant_id = await brands.find_tenant(visit.database, visit.actor, slug)
    async with visit.database.platform_scope(visit.actor, why, tenant_id=tenant_id) as scope:
        await scope.write_audit(deed, told)
    platform_id = await brands.find_platform(visit.database, visit.actor, why)
    try:
        async with visit.database.scope(platform_id, visit.actor) as scope:
            await record(scope)
    except (Invalid, Refused) as error:
        words = error.faults[0].message if error.faults else error.message
        return redirect(request, path, flash=words, kind="error")
    return redirect(request, path, flash=said)


routes = [show_book, download_invoice, show_profile, change_profile, record_evidence, record_country]
