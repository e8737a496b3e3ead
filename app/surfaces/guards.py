"""What stands between a request and its handler. `CHECKS` in their order; each raises, or lets pass.

The isolation proof takes them away one by one, per route, and must notice each time (`tests/isolation`).
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from litestar import Request
from litestar.handlers import BaseRouteHandler

from app.kernel.errors import Forbidden, Invalid, NotFound, Refused, Unauthenticated
from app.kernel.web import CSRF_FIELD, CSRF_HEADER, Visit, is_csrf_token, visit_of
from app.surfaces.errors import MethodsAsked
from themes.language import N_

AnyRequest = Request[Any, Any, Any]
Check = Callable[[AnyRequest, dict[str, Any]], Awaitable[None]]
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_BODY_HAS_TOKEN = ("application/x-www-form-urlencoded", "multipart/form-data")


async def check_host(request: AnyRequest, _opt: dict[str, Any]) -> None:
    """A surface answers on its own hosts only, whatever the front door did."""
    visit = visit_of(request)
    if visit.surface not in request.app.state.answers_on:
        raise NotFound()
    if visit.surface in ("portal", "driver") and visit.tenant_id is None:
        raise NotFound()


async def check_text(request: AnyRequest, _opt: dict[str, Any]) -> None:
    """PostgreSQL holds every character but NUL; no browser and no honest client sends one."""
    if "\0" in request.url.path or "%00" in request.scope.get("raw_path", b"").decode("latin-1"):
        raise NotFound()
    if any("\0" in part for pair in request.query_params.multi_items() for part in map(str, pair)):
        raise Invalid("invalid_text", "The address holds a character that no text has.")


async def check_login(request: AnyRequest, opt: dict[str, Any]) -> None:
    if not opt.get("public") and not visit_of(request).is_logged_in:
        raise Unauthenticated("unauthenticated", "Please log in.")


async def check_permission(request: AnyRequest, opt: dict[str, Any]) -> None:
    if opt.get("public"):
        return
    visit, permission = visit_of(request), opt["permission"]
    if not visit.actor.may(permission):
        raise Forbidden("forbidden", f"Your role does not allow this ({permission}).")


async def check_origin(request: AnyRequest, _opt: dict[str, Any]) -> None:
    """Brands on one platform domain are same-site to a browser: only the exact origin may change things."""
    if request.method in SAFE or request.app.state.uses_keys:
        return
    if not is_own_origin(visit_of(request), request.headers.get("Origin")):
        raise Forbidden("foreign_origin", "This request comes from another site.")


def is_own_origin(visit: Visit, origin: str | None) -> bool:
    if not origin:
        return False
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    return f"{parts.scheme}://{parts.netloc}" == visit.origin


async def check_csrf(request: AnyRequest, opt: dict[str, Any]) -> None:
    """Without a login (a guest's forms, the login itself) there is nothing to bind a token to: the origin stands alone.
    Whoever is logged in acts as themselves on public forms too; but what is `of_the_browser` is nobody's own, and its
    form stands on pages that are the same for everybody (`/offline`)."""
    is_guest = opt.get("public") and not visit_of(request).is_logged_in
    if request.method in SAFE or request.app.state.uses_keys or is_guest or opt.get("of_the_browser"):
        return
    presented = request.headers.get(CSRF_HEADER) or ""
    if not presented and request.content_type[0] in _BODY_HAS_TOKEN:
        presented = str((await request.form()).get(CSRF_FIELD) or "")
    if not is_csrf_token(visit_of(request), presented):
        raise Forbidden("csrf", N_("This form is out of date. Load the page again and repeat what you did."))


async def check_suspension(request: AnyRequest, opt: dict[str, Any]) -> None:
    """A suspended tenant's staff read only (`contract.md`); logging in and out still works."""
    if request.method in SAFE or opt.get("public") or opt.get("permission") == "self":
        return
    if visit_of(request).is_suspended:
        raise Refused("tenant_suspended", "This account is suspended: nothing can be changed.")


async def check_body(request: AnyRequest, _opt: dict[str, Any]) -> None:
    """REST takes JSON objects; what is wrong with a body is said before a handler sees it."""
    if request.method in SAFE or not request.app.state.uses_keys:
        return
    body = await request.body()
    if not body:
        return
    if request.content_type[0] not in ("application/json", ""):
        raise Invalid("content_type", "The body must be application/json.")
    if b"\\u0000" in body or b"\0" in body:
        raise Invalid("invalid_text", "The body holds a character that no text has (NUL).")


CHECKS: dict[str, Check] = {
    "host": check_host,
    "text": check_text,
    "login": check_login,
    "permission": check_permission,
    "origin": check_origin,
    "csrf": check_csrf,
    "suspension": check_suspension,
    "body": check_body,
}


async def guard(request: Any, handler: BaseRouteHandler) -> None:
    if request.method == "OPTIONS":
        await check_host(request, handler.opt)
        raise MethodsAsked
    for check in CHECKS.values():
        await check(request, handler.opt)
