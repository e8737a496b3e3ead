"""Light, dark, or as the device says, and the language: choices that live in a cookie.

A driver's account keeps their language too, for what is written while they are not looking.
"""

from typing import Any
from urllib.parse import urlsplit

from litestar import Request, Response, post

from app.access import accounts
from app.kernel.errors import Invalid
from app.kernel.web import LANGUAGE_COOKIE, MODE_COOKIE, MODES, own_cookie, read_form, redirect, visit_of
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]


@post("/mode", opt={"permission": "self"})
async def choose_mode(request: AnyRequest) -> Response[Any]:
    return await _remember(request)


@post("/preferences", opt={"public": True, "of_the_browser": True})
async def choose_preferences(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """A driver's: mode, language, or both."""
    response, language = await _remember(request), (await read_form(request)).text("language")
    if language and tenant_scope.actor.kind == "driver":
        await accounts.speak(tenant_scope, language)
    return response


async def _remember(request: AnyRequest) -> Response[Any]:
    form, languages = await read_form(request), visit_of(request).languages
    mode, language = form.text("mode"), form.text("language")
    if mode not in ("", *MODES):
        raise Invalid.field("mode", "mode", f"mode is one of {', '.join(MODES)}.")
    if language not in ("", *languages):
        raise Invalid.field("language", "language", f"language is one of {', '.join(languages)}.")
    response = redirect(request, _where_from(request))
    if mode:
        response.set_cookie(own_cookie(MODE_COOKIE, mode, max_age=31_536_000))
    if language:
        response.set_cookie(own_cookie(LANGUAGE_COOKIE, language, max_age=31_536_000))
    return response


def _where_from(request: AnyRequest) -> str:
    try:
        parts = urlsplit(request.headers.get("Referer", "/"))
    except ValueError:
        return "/"
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


routes = [choose_mode]
driver_routes = [choose_preferences]
