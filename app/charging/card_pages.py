"""The portal's page of card payments: what is held, where that hold is of no use, and what one person gives back."""

from typing import Any

from litestar import Request, Response, get, post

from app.billing import payments
from app.billing.models import PaymentAccount
from app.charging.tight_holds import list_tight_holds
from app.kernel.errors import Invalid, Refused
from app.kernel.money import to_decimal
from app.kernel.web import form_again, page, read_form, redirect
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
TITLE = "Card payments"


@get("/settings/cards", opt={"permission": "settings.view"})
async def show_card_settings(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    account = await payments.find_account(tenant_scope)
    return page(
        request, tenant_scope, "charging/cards.html", title=TITLE, account=account, errors={}, alert=None,
        values=_holds(account), tight=await list_tight_holds(tenant_scope),
    )  # fmt: skip


@post("/settings/cards", opt={"permission": "settings.manage"})
async def change_card_settings(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """Saved also where a hold is of no use with a tariff: the page tells it."""
    form = await read_form(request)
    try:
        limit = form.text("refund_limit") if "refund_limit" in form else None
        on_file = form.text("card_on_file") if "card_on_file" in form else None
        legs = form.text("max_legs") if "max_legs" in form else None
        await payments.set_holds(
            tenant_scope, form.text("hold_ac"), form.text("hold_dc"), limit, on_file, legs
        )
    except (Invalid, Refused) as error:
        account, tight = await payments.find_account(tenant_scope), await list_tight_holds(tenant_scope)
        return form_again(
            request,
            tenant_scope,
            "charging/cards.html",
            error,
            form,
            title=TITLE,
            account=account,
            tight=tight,
        )
    return redirect(request, "/settings/cards", flash="Saved. Holds apply from the next start on.")


def _holds(account: PaymentAccount | None) -> dict[str, str]:
    if account is None:
        return {}
    amounts = {
        "hold_ac": account.hold_ac_minor,
        "hold_dc": account.hold_dc_minor,
        "refund_limit": account.refund_limit_minor,
    }
    shown = {name: str(to_decimal(minor, account.currency)) for name, minor in amounts.items()}
    return shown | {"card_on_file": account.card_on_file, "max_legs": str(account.max_legs)}


routes = [show_card_settings, change_card_settings]
