"""A driver's own pages of access: logging in, cards, profile."""

from typing import Any

from litestar import Request, Response, get, post

from app.access import accounts
from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.web import after_login, form_again, link_browser, page, read_form, redirect, visit_of
from tenants.scope import Scope
from themes.language import _

AnyRequest = Request[Any, Any, Any]


@post("/login/{token:str}", opt={"public": True, "of_the_browser": True})
async def login(request: AnyRequest, tenant_scope: Scope, token: str) -> Response[Any]:
    visit = visit_of(request)
    secret = await accounts.log_in(
        tenant_scope, token, host=visit.host, language=visit.language, browser=link_browser(request)
    )
    return after_login(request, secret, "/account")


@get("/account/cards", opt={"permission": "self"})
async def show_cards(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    driver = await accounts.get_own(tenant_scope)
    cards = [
        (
            public_id("id_token", card.id),
            card,
            card.expires_at is not None and card.expires_at <= tenant_scope.now,
        )
        for card in await accounts.list_cards(tenant_scope, driver.id)
    ]
    return page(request, tenant_scope, "access/own_cards.html", title=_("Your cards"), cards=cards)


@post("/account/cards/{id_token_id:str}/block", opt={"permission": "self"})
async def block_card(request: AnyRequest, tenant_scope: Scope, id_token_id: str) -> Response[Any]:
    await accounts.block_card(tenant_scope, parse_id("id_token", id_token_id))
    return redirect(
        request, "/account/cards", flash=_("The card is blocked. Nobody can charge with it any more.")
    )


@post("/account/cards/{id_token_id:str}/label", opt={"permission": "self"})
async def label_card(request: AnyRequest, tenant_scope: Scope, id_token_id: str) -> Response[Any]:
    form = await read_form(request)
    await accounts.label_card(tenant_scope, parse_id("id_token", id_token_id), form.text("label"))
    return redirect(request, "/account/cards", flash=_("Saved."))


@get("/account/profile", opt={"permission": "self"})
async def show_profile(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    driver = await accounts.get_own(tenant_scope)
    return page(
        request, tenant_scope, "access/profile.html", title=_("Your details"), driver=driver,
        values={"name": driver.name}, errors={},
    )  # fmt: skip


@post("/account/profile", opt={"permission": "self"})
async def change_profile(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        await accounts.rename(tenant_scope, form.text("name"))
    except Invalid as error:
        driver = await accounts.get_own(tenant_scope)
        title = _("Your details")
        return form_again(
            request, tenant_scope, "access/profile.html", error, form, title=title, driver=driver
        )
    return redirect(request, "/account/profile", flash=_("Saved."))


routes = [login, show_cards, block_card, label_card, show_profile, change_profile]
