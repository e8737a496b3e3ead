"""A driver's own page of payment cards: what is saved, what waits to be paid."""

from typing import Any

from litestar import Request, Response, get, post

from app.access import accounts
from app.billing import cards, payments
from app.billing.models import Payer, SavedCard
from app.billing.provider import OutcomeUnknown
from app.billing.sandbox import SAVED_CARDS
from app.kernel.errors import Refused, TooMany
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Visit, page, redirect, visit_of
from tenants.scope import Scope
from themes.language import _

AnyRequest = Request[Any, Any, Any]
PATH = "/account/payment"


@get(PATH, opt={"permission": "self"})
async def show_saved_cards(request: AnyRequest) -> Response[Any]:
    """Coming back from the provider's page is news: it is asked at once, whether or not its webhook came."""
    visit = visit_of(request)
    if "saved" in request.query_params:
        return redirect(request, PATH, **await _look(visit))
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        driver, account = await accounts.get_own(scope), await cards.find_account(scope)
        saved = [
            (public_id("saved_card", card.id), card, card.is_expired(scope.now))
            for card in await cards.list_cards(scope, driver.id)
        ]
        return page(
            request, scope, "charging/saved_cards.html", title=_("Payment cards"), saved=saved, account=account,
            due=await payments.list_due(scope, driver.id),
            test_cards=[(number, _(what)) for number, (_b, _w, what) in SAVED_CARDS.items()]
            if scope.settings.uses_sandbox else [],
        )  # fmt: skip


async def _look(visit: Visit) -> dict[str, Any]:
    """What became of the page that the driver comes from, as a flash."""
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        driver = await accounts.get_own(scope)
        known = {card.id for card in await cards.list_cards(scope, driver.id)}
        waiting = await cards.list_waiting(scope, driver.id)
    try:
        for card_id in [card_id for card_id, may_ask in waiting if may_ask]:
            await cards.observe(visit.database, visit.tenant, card_id)
    except OutcomeUnknown:
        pass  # news or the janitor bring it
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        if {card.id for card in await cards.list_cards(scope, driver.id)} - known or not waiting:
            return {"flash": _("Your card is saved.")}
    return {"flash": _("We ask whether your card is saved. Look again in a minute."), "kind": "info"}


@post(f"{PATH}/add", opt={"permission": "self"})
async def add_card(request: AnyRequest) -> Response[Any]:
    """To the provider's page. The wish is committed before the provider is called."""
    visit = visit_of(request)
    try:
        async with visit.database.scope(visit.tenant, visit.actor) as scope:
            driver = await accounts.get_own(scope)
            card = await cards.begin(
                scope, driver, url=f"{visit.origin}{PATH}", language=visit.language, remote=visit.remote
            )
            card_id = card.id
    except (Refused, TooMany) as error:
        return redirect(request, PATH, flash=_(error.message), kind="error")
    url = await _page_of(visit, card_id)
    if url is None:
        return redirect(
            request, PATH, flash=_("The payment service does not answer yet. Try again in a minute."), kind="error"
        )  # fmt: skip
    return Response(None, status_code=303, headers={"Location": url})


async def _page_of(visit: Visit, card_id: Any) -> str | None:
    try:
        await cards.run_setup(visit.database, visit.tenant, card_id)
    except OutcomeUnknown:
        return None  # the janitor asks again, and pressed again it is the same page
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        card = await scope.db.get_one(SavedCard, (visit.tenant, card_id))
        payer = await scope.db.get_one(Payer, (visit.tenant, card.payer_id))
        return card.checkout_url if payer.closed_at is None else None


@post(f"{PATH}/{{saved_card_id:str}}/default", opt={"permission": "self"})
async def prefer_card(request: AnyRequest, tenant_scope: Scope, saved_card_id: str) -> Response[Any]:
    driver = await accounts.get_own(tenant_scope)
    card = await cards.make_default(tenant_scope, driver.id, parse_id("saved_card", saved_card_id))
    return redirect(request, PATH, flash=_("%(card)s pays from now on.") % {"card": card.name})


@post(f"{PATH}/{{saved_card_id:str}}/remove", opt={"permission": "self"})
async def remove_card(request: AnyRequest, tenant_scope: Scope, saved_card_id: str) -> Response[Any]:
    driver = await accounts.get_own(tenant_scope)
    await cards.remove(tenant_scope, driver.id, parse_id("saved_card", saved_card_id))
    return redirect(request, PATH, flash=_("The card is removed."))


routes = [show_saved_cards, add_card, prefer_card, remove_card]
