"""Console page of the platform's fee for one brand: what holds, what is to come, and what a change would have meant."""

from typing import Any

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.billing import fees, payments, platform_book
from app.brands.models import TenantProfile
from app.brands.service import find_platform, find_tenant
from app.kernel.errors import Invalid, Refused
from app.kernel.money import to_decimal
from app.kernel.tax import EU, alpha_2
from app.kernel.web import form_again, page, read_form, redirect, visit_of

AnyRequest = Request[Any, Any, Any]


@get("/tenants/{slug:str}/fees", opt={"permission": "tenants.view"})
async def show_fees(request: AnyRequest, slug: str) -> Response[Any]:
    """With `percent` and `fixed` in the address: what last month would have brought under them. Nothing is saved."""
    asked = {name: request.query_params.get(name, "") for name in ("percent", "fixed", "valid_from")}
    errors: dict[str, str] = {}
    alert = None
    try:
        shown = await _shown(request, slug, asked)
    except Invalid as error:
        errors, alert = {fault.field: fault.message for fault in error.faults}, error.message
        shown = await _shown(request, slug, {})
    return page(request, None, "billing/fees.html", errors=errors, alert=alert, values=asked, **shown)


async def _shown(request: AnyRequest, slug: str, asked: dict[str, str]) -> dict[str, Any]:
    visit = visit_of(request)
    tenant_id = await find_tenant(visit.database, visit.actor, slug)
    shown: dict[str, Any] = {
        "title": "Platform fee", "slug": slug, "account": None,
        "labels": {"percent": "Share", "fixed": "Fixed part", "valid_from": "From"},
    }  # fmt: skip
    shown["tax"] = await _tax(request, slug)
    async with visit.database.scope(tenant_id, visit.actor) as scope:
        account = await payments.find_own_account(scope)
        if account is None:
            return shown
        percent, fixed, since = await payments.find_fee(scope, account)
        now = (percent, fixed)
        wanted = now
        if asked.get("percent") or asked.get("fixed"):
            wanted = fees.read_fee(account, asked.get("percent", ""), asked.get("fixed", ""))
        return shown | {
            "account": account, "rows": await fees.list_fees(scope, account), "since": since, "now_percent": percent,
            "now_fixed": fixed,
            "preview": await fees.preview(scope, account, *wanted), "is_asked": wanted != now,
            "wanted": {"percent": f"{wanted[0].normalize():f}", "fixed": str(to_decimal(wanted[1], account.currency))},
        }  # fmt: skip


async def _tax(request: AnyRequest, slug: str) -> dict[str, Any] | None:
    """How their invoice is taxed, and what that rests on. None before a fee was kept."""
    visit = visit_of(request)
    platform_id = await find_platform(visit.database, visit.actor, f"look at the VAT of {slug}")
    async with visit.database.scope(platform_id, visit.actor) as scope:
        seller = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
        billed = await platform_book.find_billed(scope, slug)
        if billed is None:
            return None
        today, theirs = scope.now.date(), alpha_2(billed.buyer["country"])
        why_not = platform_book.lacks(seller, billed, today)
        shown = {
            "billed": billed, "why_not": why_not, "code": "", "evidence": billed.evidence, "theirs": theirs,
            "is_confirmed": billed.evidence.get("country") == theirs,
        }  # fmt: skip
        if seller is None:
            return shown | {"may_confirm": False}
        ours = alpha_2(seller.country)
        may_confirm = ours != theirs and not {ours, theirs} <= EU and not shown["is_confirmed"]
        code = "" if why_not else platform_book.treat(seller, billed, today).code
        return shown | {"code": code, "may_confirm": may_confirm}


@post("/tenants/{slug:str}/fees", opt={"permission": "tenants.manage"})
async def plan_fee(request: AnyRequest, slug: str) -> Response[Any]:
    visit, form = visit_of(request), await read_form(request)
    tenant_id = await find_tenant(visit.database, visit.actor, slug)
    try:
        await fees.plan_fee(
            visit.database, visit.actor, tenant_id, percent=form.text("percent"), fixed=form.text("fixed"),
            valid_from=form.text("valid_from"), reason=form.reason(), is_returned=form.flag("is_returned"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        shown = await _shown(request, slug, {})
        return form_again(request, None, "billing/fees.html", error, form, **shown)
    return redirect(request, f"/tenants/{slug}/fees", flash="The fee is planned.")


routes = [show_fees, plan_fee]
