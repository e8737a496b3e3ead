"""The driver's own wallet page: what is in it, a payment into it, a voucher, its history. And a paper that was mailed,
for whoever has its link."""

import asyncio
from typing import Any

from litestar import Request, Response, get, post

from app.access import accounts
from app.billing import einvoice, paper, payments, vouchers, wallets
from app.billing.card_currencies import CARD_CURRENCIES
from app.billing.provider import OutcomeUnknown
from app.brands import faces
from app.kernel.errors import Invalid, LiveryError, NotFound, Refused, TooMany
from app.kernel.ids import public_id
from app.kernel.money import to_decimal
from app.kernel.web import Form, form_again, page, read_form, redirect, visit_of
from tenants.scope import Scope
from themes.language import N_, _

AnyRequest = Request[Any, Any, Any]
PATH = "/account/wallet"
SLOW = N_("The payment service does not answer yet. Nothing was taken: try again in a moment.")


@get("/account/wallet", opt={"permission": "self"})
async def show_wallet(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    """`?paid=1`: back from the payment page, whose news may not be here yet."""
    driver = await accounts.get_own(tenant_scope)
    is_coming = "paid" in request.query_params and await wallets.look_again(tenant_scope, driver.id)
    shown = await _shown(tenant_scope) | {"is_coming": is_coming}
    return page(
        request,
        tenant_scope,
        "billing/own_wallet.html",
        title=_("Wallet"),
        values={},
        errors={},
        alert=None,
        **shown,
    )


async def _shown(scope: Scope) -> dict[str, Any]:
    """NotFound where the brand offers no wallet and there is nothing in it."""
    driver = await accounts.get_own(scope)
    wallet, is_offered = await wallets.get_wallet(scope, driver.id), await wallets.is_offered(scope)
    entries = await wallets.list_entries(scope, wallet)
    if not is_offered and not entries:
        raise NotFound("wallet")
    known = CARD_CURRENCIES.get(wallet.currency)
    return {
        "wallet": wallet, "is_offered": is_offered, "is_coming": False, "words": wallets.words_of,
        "takes_cards": await payments.find_account(scope) is not None,
        "suggested": f"{to_decimal(known.hold_ac_minor, wallet.currency):.0f}" if known else "",
        "entries": [(one, public_id("charging_session", one.session_id) if one.session_id else None)
                    for one in entries],
    }  # fmt: skip


async def _again(request: AnyRequest, form: Form, error: LiveryError) -> Response[str]:
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        return form_again(
            request, scope, "billing/own_wallet.html", error, form, title=_("Wallet"), **await _shown(scope)
        )


@post("/account/wallet/top-ups", opt={"permission": "self"})
async def begin_top_up(request: AnyRequest) -> Response[Any]:
    """To the provider's payment page. The wish is committed before anybody is called."""
    visit, form = visit_of(request), await read_form(request)
    url = f"{visit.origin}{PATH}"
    try:
        async with visit.database.scope(visit.tenant, visit.actor) as scope:
            op = await wallets.top_up(
                scope, form.text("amount"), success_url=f"{url}?paid=1", cancel_url=url, language=visit.language,
                remote=visit.remote,
            )  # fmt: skip
    except (Invalid, Refused, TooMany) as error:
        return await _again(request, form, error)
    try:
        await payments.run_op(visit.database, visit.tenant, op.id)
    except OutcomeUnknown:
        return redirect(request, PATH, flash=_(SLOW), kind="error")
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        payment = await payments.get_payment(scope, op.payment_id)
    if payment.checkout_url is None:
        return redirect(request, PATH, flash=_(SLOW), kind="error")
    return Response(None, status_code=303, headers={"Location": payment.checkout_url})


@post("/account/wallet/vouchers", opt={"permission": "self"})
async def redeem_voucher(request: AnyRequest) -> Response[Any]:
    visit, form = visit_of(request), await read_form(request)
    try:
        async with visit.database.scope(visit.tenant, visit.actor) as scope:
            await vouchers.redeem(scope, form.text("code"), remote=visit.remote)
    except (Refused, TooMany) as error:
        return await _again(request, form, error)
    return redirect(request, PATH, flash=_("The voucher is in your wallet."))


@get("/papers/{paper_link:str}/pdf", opt={"public": True})
async def download_paper(request: AnyRequest, paper_link: str) -> Response[bytes]:
    """One paper for whoever has its link: what a mail of it leads to, also of a month's invoice, which is no session's.
    It is set while no transaction is open."""
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        found = await paper.find_paper(scope, paper.read_link(scope, paper_link))
        theme, _hash = await faces.get_theme(scope)
        content, data = found.content(visit.time_zone, theme.primary), einvoice.find_data(found)
    return await asyncio.to_thread(einvoice.pdf_file, content, data)


routes = [show_wallet, begin_top_up, redeem_voucher, download_paper]
