"""Portal page of the operator's account at the payment provider: may it take cards, what is asked for, payouts."""

from typing import Any

from litestar import Request, Response, get, post

from app.billing import onboarding, payments
from app.billing.provider import NO_ANSWER, ProviderError
from app.kernel.errors import Invalid, Refused
from app.kernel.web import NavItem, form_again, page, read_form, redirect, visit_of
from tenants.database import Database
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Payment account", "/payment-account", "building-2", "settings.view", order=51)]
PATH, TITLE = "/payment-account", "Payment account"
# What Stripe asks of a page that embeds it (docs.stripe.com/security/guide); the hash is of an empty style element. Its
# popups, where the operator proves who they are, must find the way back to us.
_CONNECT = "https://connect-js.stripe.com https://js.stripe.com"
EMBEDDED_HEADERS = {
    "Content-Security-Policy": "; ".join((
        "default-src 'none'", f"script-src 'self' {_CONNECT}", f"frame-src {_CONNECT}",
        "style-src 'self' 'sha256-0hAheEzaMe6uXIKV4EehS9pu1am1lj/KnnzrOYqckXk='",
        "img-src 'self' data: https://*.stripe.com", "connect-src 'self'", "font-src 'self'", "worker-src 'self'",
        "form-action 'self' https://connect.stripe.com", "base-uri 'none'", "frame-ancestors 'none'",
    )),
    "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
}  # fmt: skip


@get("/payment-account", opt={"permission": "settings.view"})
async def show_account(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    return page(
        request, tenant_scope, "billing/account.html", values={}, errors={}, alert=None,
        **await _shown(request, tenant_scope),
    )  # fmt: skip


async def _shown(request: AnyRequest, scope: Scope) -> dict[str, Any]:
    account = await payments.find_own_account(scope)
    return {
        "title": TITLE, "account": account, "fee": account and await payments.find_fee(scope, account),
        "takes_cards": scope.settings.takes_cards,
        "is_sandbox": scope.settings.uses_sandbox, "is_embedded": _is_embedded(scope),
        "weekdays": [(day, day.title()) for day in onboarding.WEEKDAYS],
        "has_expired": "expired" in request.query_params,
    }  # fmt: skip


@post("/payment-account/onboarding", opt={"permission": "settings.manage"})
async def begin(request: AnyRequest) -> Response[Any]:
    visit = visit_of(request)
    try:
        url = await onboarding.begin(
            visit.database, visit.tenant, visit.actor, portal_url=str(request.base_url).rstrip("/")
        )
    except Refused as error:
        return redirect(request, PATH, flash=error.message, kind="error")
    except ProviderError:
        return redirect(request, PATH, flash=NO_ANSWER, kind="error")
    return Response(None, status_code=303, headers={"Location": url})


@get("/payment-account/onboarding", opt={"permission": "settings.manage"})
async def show_onboarding(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """The provider's own onboarding and notices in our page; the account's page says the same without them."""
    if not _is_embedded(tenant_scope):
        return redirect(request, PATH)
    response = page(
        request, tenant_scope, "billing/onboarding.html", title="Your account at the provider",
        key=tenant_scope.settings.stripe_publishable_key, account=await payments.find_own_account(tenant_scope),
    )  # fmt: skip
    response.headers.update(EMBEDDED_HEADERS)
    return response


@post("/payment-account/onboarding/sessions", opt={"permission": "settings.manage"})
async def begin_embedded(request: AnyRequest) -> Response[Any]:
    """JSON for our script: `client_secret`, or the refusal's code."""
    visit = visit_of(request)
    if not _is_embedded(visit.database):
        return Response({"code": "not_embedded"}, status_code=409)
    try:
        secret = await onboarding.begin_embedded(visit.database, visit.tenant, visit.actor)
    except Refused as error:
        return Response({"code": error.code}, status_code=409)
    except ProviderError:
        return Response({"code": "provider_unreachable"}, status_code=502)
    return Response({"client_secret": secret})


def _is_embedded(where: Scope | Database) -> bool:
    """Only with a real key: the sandbox has no script to load."""
    return not where.settings.uses_sandbox and bool(where.settings.stripe_publishable_key)


@get("/payment-account/returned", opt={"permission": "settings.view"})
async def come_back(request: AnyRequest) -> Response[Any]:
    """From the provider's pages: what it says now is read, whatever was said there."""
    return await _observed(request, "")


async def _observed(request: AnyRequest, flash: str) -> Response[Any]:
    visit = visit_of(request)
    try:
        await onboarding.observe(visit.database, visit.tenant)
    except ProviderError:
        return redirect(request, PATH, flash=NO_ANSWER, kind="error")
    return redirect(request, PATH, flash=flash) if flash else redirect(request, PATH)


@post("/payment-account/checks", opt={"permission": "settings.manage"})
async def check(request: AnyRequest) -> Response[Any]:
    return await _observed(request, "This is what the provider says now.")


@post("/payment-account/schedule", opt={"permission": "settings.manage"})
async def change_schedule(request: AnyRequest) -> Response[Any]:
    visit, form = visit_of(request), await read_form(request)
    interval = form.text("interval")
    days = {"weekly": form.text("weekday"), "monthly": form.text("month_day")}.get(interval, "")
    try:
        await onboarding.set_schedule(
            visit.database, visit.tenant, visit.actor, interval, (days,) if days else ()
        )
    except (Invalid, Refused) as error:
        async with visit.database.scope(visit.tenant, visit.actor) as scope:
            shown = await _shown(request, scope)
            return form_again(request, scope, "billing/account.html", error, form, **shown)
    except ProviderError:
        return redirect(request, PATH, flash=NO_ANSWER, kind="error")
    return redirect(request, PATH, flash="The provider pays out by this schedule from now on.")


routes = [show_account, show_onboarding, begin_embedded, begin, come_back, check, change_schedule]
