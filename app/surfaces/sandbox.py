"""The payment sandbox's own origin: its hosted payment page, its wire, its panel. Never where a real key is set.

`/v1/…` and `/v2/…` speak Stripe's wire (any Stripe SDK can drive it); `/pay/{checkout}` is what a payer sees,
`/onboarding/{link}` what an operator does; what the sandbox has to tell goes out signed to our own webhook address,
from an outbox.
"""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx2
from litestar import Litestar, Request, Response, get, post

from app.billing import sandbox
from app.brands.look import LANGUAGES
from app.kernel.errors import NotFound
from app.kernel.settings import Settings
from app.kernel.web import page, read_form, visit_of
from app.surfaces.assembly import platform_file, surface
from app.surfaces.headers import content_security_policy
from tenants.database import Database
from themes.language import SOURCE, _, choose, speaking

AnyRequest = Request[Any, Any, Any]
LOG = logging.getLogger("livery.sandbox")
MAX_BODY_BYTES = 100_000


# -- the hosted page ---------------------------------------------------------------------------------------------------


@get("/pay/{ref:str}", opt={"public": True})
async def show_checkout(request: AnyRequest, ref: str) -> Response[Any]:
    _account, session = await _checkout(request, ref)
    email = (session["customer_details"] or {}).get("email") or session["customer_email"] or ""
    with _in_its_language(request, session):
        known = sandbox.CARDS | (sandbox.SAVED_CARDS if session["mode"] == "setup" else {})
        cards = [(number, _(what)) for number, (_brand, _way, what) in known.items()]
        return page(
            request, None, "surfaces/sandbox_pay.html",
            title=_("Save a card") if session["mode"] == "setup" else _("Payment"), session=session, cards=cards,
            email=email,
            currency=session["currency"].upper(), item=session["livery"]["item"], alert=session["livery"].get("said"),
        )  # fmt: skip


@get("/pay/{ref:str}/bank", opt={"public": True})
async def show_bank(request: AnyRequest, ref: str) -> Response[Any]:
    """3-D Secure, as the payer's bank would ask."""
    _account, session = await _checkout(request, ref)
    if session["status"] != "open" or not session["livery"].get("asks_bank"):
        return _away(f"/pay/{ref}")
    with _in_its_language(request, session):
        return page(
            request, None, "surfaces/sandbox_3ds.html", title=_("Your bank"), session=session,
            currency=session["currency"].upper(),
        )  # fmt: skip


@contextmanager
def _in_its_language(request: AnyRequest, session: dict[str, Any]) -> Iterator[None]:
    """The merchant said which (`locale`), as with Stripe's own page."""
    visit = visit_of(request)
    visit.language = choose(list(LANGUAGES), session["locale"] or "", "", SOURCE)
    with speaking(visit.language):
        yield


@post("/pay/{ref:str}", opt={"public": True})
async def pay(request: AnyRequest, ref: str) -> Response[Any]:
    """Always to a page of its own, so that the way back asks nobody to send the card again."""
    database, form = visit_of(request).database, await read_form(request)
    account, session = await _checkout(request, ref)
    if form.text("action") == "cancel":
        return _away(session["cancel_url"] or session["success_url"])
    if form.text("action") in ("confirm", "refuse"):
        result = await sandbox.authenticate_checkout(
            database, account, ref, succeeds=form.text("action") == "confirm"
        )
    else:
        card = form.text("card").replace(" ", "")
        result = await sandbox.pay_checkout(database, account, ref, card, form.text("email")[:254])
    if result["status"] == "complete":
        return _away(session["success_url"])
    return _away(f"/pay/{ref}/bank" if result["status"] == "authenticate" else f"/pay/{ref}")


@get("/onboarding/{onboarding:str}", opt={"public": True})
async def show_onboarding(request: AnyRequest, onboarding: str) -> Response[Any]:
    link = await _onboarding(request, onboarding)
    if not link["is_good"]:
        return _away(link["refresh_url"])
    return page(
        request, None, "surfaces/sandbox_onboarding.html", title="Onboarding", link=link, ref=onboarding,
        asked=sandbox.ASKED,
    )  # fmt: skip


@post("/onboarding/{onboarding:str}", opt={"public": True})
async def onboard(request: AnyRequest, onboarding: str) -> Response[Any]:
    """Left half done it is still to be done, as at the real one."""
    link, form = await _onboarding(request, onboarding), await read_form(request)
    if not link["is_good"]:
        return _away(link["refresh_url"])
    if form.text("action") == "submit":
        await sandbox.onboard(visit_of(request).database, onboarding)
    return _away(link.get("return_url") or link["refresh_url"])


async def _onboarding(request: AnyRequest, ref: str) -> dict[str, Any]:
    link = await sandbox.find_link(visit_of(request).database, ref)
    if link is None:
        raise NotFound("onboarding")
    return link


async def _checkout(request: AnyRequest, ref: str) -> tuple[str, dict[str, Any]]:
    found = await sandbox.find_checkout(visit_of(request).database, ref)
    if found is None:
        raise NotFound("checkout")
    return found


def _away(url: str) -> Response[Any]:
    return Response(None, status_code=303, headers={"Location": url})


@cache
def build() -> Litestar:
    return surface("sandbox", [show_checkout, show_bank, pay, show_onboarding, onboard, platform_file])


def sandbox_policy() -> str:
    """Its form ends at whichever address the merchant named, as Stripe's does."""
    return content_security_policy(form_action=("'self'", "http:", "https:"))


# -- the wire ----------------------------------------------------------------------------------------------------------


class SandboxWire:
    """ASGI: what stripe-python, or anybody's SDK, talks to."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        self.kick = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES or not message.get("more_body"):
                break
        try:
            answer = await self._answer(scope, body)
        except sandbox.LostAnswer:
            answer = sandbox.Answer(504, {})
        content = json.dumps(answer.body).encode() if answer.body else b""
        headers = [(b"content-type", b"application/json"), (b"request-id", b"req_sandbox")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        self.kick.set()

    async def _answer(self, scope: Any, body: bytes) -> sandbox.Answer:
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            params = sandbox.decode(
                scope["method"], scope["query_string"].decode(), headers.get("content-type", ""), body
            )
        except (ValueError, TypeError, AttributeError):
            return sandbox.Answer(
                400, {"error": {"type": "invalid_request_error", "message": "Unreadable body."}}
            )
        wire = sandbox.Wire(
            method=scope["method"], path=scope["path"], params=params,
            key=headers.get("authorization", "").removeprefix("Bearer "),
            account=headers.get("stripe-account", ""), idempotency_key=headers.get("idempotency-key", ""),
        )  # fmt: skip
        answer = await sandbox.handle(self.database, wire)
        return sandbox.with_urls(answer, self.settings)

    # -- news ----------------------------------------------------------------------------------------------------------

    async def tell(self) -> None:
        """Until cancelled: what waits in the outbox goes to our own webhook address, signed."""
        async with httpx2.AsyncClient(timeout=10) as client:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.kick.wait(), 2)
                self.kick.clear()
                try:
                    await self._tell_waiting(client)
                except Exception:
                    LOG.exception("the sandbox could not tell its news and tries again")

    async def _tell_waiting(self, client: httpx2.AsyncClient) -> None:
        secret = sandbox.webhook_secret(self.settings)
        url = f"http://127.0.0.1:{self.settings.web_port}/webhooks/stripe-connect"
        host = urlsplit(self.settings.url_of(self.settings.host_of("console"))).netloc
        for delivery_id, event in await sandbox.take_deliveries(self.database):
            body = json.dumps(event).encode()
            headers = {
                "Host": host, "Content-Type": "application/json",
                "Stripe-Signature": sandbox.sign(body, secret, int(time.time())),
            }  # fmt: skip
            answer = await client.post(url, content=body, headers=headers)
            if answer.status_code == 200:
                await sandbox.delivered(self.database, delivery_id)
