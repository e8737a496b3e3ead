"""Errors in a surface's dialect: an HTML page with a request id, or problem+json."""

import logging
from typing import Any
from urllib.parse import quote

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.utils import normalize_path

from app.kernel.duplicates import is_duplicate
from app.kernel.errors import FieldFault, Forbidden, Invalid, LiveryError, NotFound, Refused, Unauthenticated
from app.kernel.rest import Replay, problem
from app.kernel.web import local_path, page, visit_of, with_retry_after
from themes.language import N_, _

AnyRequest = Request[Any, Any, Any]
LOG = logging.getLogger("livery.web")
TITLES = {
    400: N_("Not understood"), 401: N_("Please log in"), 403: N_("Not allowed"), 404: N_("Not found"),
    405: N_("Not possible here"), 409: N_("Refused"), 413: N_("Too large"), 422: N_("That does not fit"),
    429: N_("Too many requests"), 500: N_("Something went wrong"),
}  # fmt: skip
WORDS = (
    N_("There is no such page."), N_("There is no such place."), N_("There is no such charging session."),
    N_("There is no such receipt."), N_("There is no such id token."), N_("There is no such charger."),
    N_("Something went wrong on our side."), N_("This request comes from another site."),
    N_("The address holds a character that no text has."), N_("Please log in."),
    N_("Too many requests; try again later."), N_("The same has just been made by another request. Nothing was saved."),
)  # fmt: skip


# Of what the framework refuses before a handler sees it: pages say it in our words and the reader's language, REST
# keeps the framework's detail.
SENTENCES = {
    400: N_("What was sent arrived damaged or incomplete. Load the page again and repeat what you did."),
    405: N_("This address cannot do what was asked of it."),
    422: N_("The address or the form holds something that does not belong there."),
}  # fmt: skip
OTHERWISE = N_("This request cannot be served. Load the page again and repeat what you did.")


def as_livery_error(error: Exception) -> LiveryError:
    """Litestar's and everybody else's errors as ours. What is nobody's is a 500 that tells nothing.

    A row that is there once only and was written by another meanwhile is no fault of ours: verbs ask first, but none
    sees what is not committed yet.
    """
    if isinstance(error, LiveryError):
        return error
    if isinstance(error, ValidationException):
        return Invalid("invalid", "The request has wrong fields.", faults=_faults(error))
    if isinstance(error, RecursionError):
        return Invalid("too_deep", "The request is nested too deeply.")
    if isinstance(error, HTTPException) and error.status_code < 500:
        return _of_http(error)
    if is_duplicate(error):
        return Refused("already_exists", "The same has just been made by another request. Nothing was saved.")
    return LiveryError("internal", "Something went wrong on our side.")


def _of_http(error: HTTPException) -> LiveryError:
    if error.status_code == 404:
        return NotFound()
    if error.status_code == 401:
        return Unauthenticated()
    if error.status_code == 403:
        return Forbidden()
    codes = {400: "malformed_request", 405: "method_not_allowed", 413: "body_too_large"}
    made = LiveryError(codes.get(error.status_code, "refused"), error.detail)
    made.status = error.status_code
    return made


def _faults(error: ValidationException) -> list[FieldFault]:
    found = error.extra if isinstance(error.extra, list) else []
    return [
        FieldFault(str(item.get("key") or "body"), "invalid", str(item.get("message") or "is wrong"))
        for item in found
        if isinstance(item, dict)
    ]


def _note(request: AnyRequest, error: Exception, made: LiveryError) -> None:
    level = logging.ERROR if made.status >= 500 else logging.WARNING if is_duplicate(error) else None
    if level is not None:
        visit = visit_of(request)
        LOG.log(
            level,
            "request %s failed: %s %s",
            visit.request_id,
            request.method,
            request.url.path,
            exc_info=error,
        )


def as_page(request: AnyRequest, error: Exception) -> Response[Any]:
    made = as_livery_error(error)
    _note(request, error, made)
    visit = visit_of(request)
    if made.status == 405 and request.method == "GET":
        return _to_form(request)
    has_login = visit.surface in ("portal", "console", "driver")
    if made.code == "login_link_invalid":
        return page(
            request, None, "identity/login_link_gone.html", title=_("This link does not work"), status=404
        )
    if isinstance(made, Unauthenticated) and has_login and not visit.is_logged_in:
        return _to_login(request)
    response = page(
        request, None, "surfaces/error.html", title=_(TITLES.get(made.status, "Refused")), status=made.status,
        message=_message(request, error, made), code=made.code, error_status=made.status, **_ways_on(request, made),
    )  # fmt: skip
    return _with_allow(request, with_retry_after(response, made))


class MethodsAsked(Exception):
    """OPTIONS: answered by what the router knows, whatever the address and whoever asks."""


def as_methods(request: AnyRequest, _error: Exception) -> Response[Any]:
    return Response(None, status_code=204, headers={"Allow": ", ".join(_methods(request))})


def _with_allow(request: AnyRequest, response: Response[Any]) -> Response[Any]:
    """Who used a method that the address has not is told which it has (RFC 9110, 15.5.6)."""
    if response.status_code == 405:
        response.headers["Allow"] = ", ".join(_methods(request))
    return response


def _methods(request: AnyRequest) -> list[str]:
    """As the router knows them; the front door answers HEAD where there is GET."""
    found = []
    for method in ("DELETE", "GET", "PATCH", "POST", "PUT"):
        try:
            request.app.asgi_router.handle_routing(path=normalize_path(request.url.path), method=method)
        except HTTPException:
            continue
        found += [method, "HEAD"] if method == "GET" else [method]
    return [*found, "OPTIONS"]


def _message(request: AnyRequest, error: Exception, made: LiveryError) -> str:
    """In the reader's language. Of the many things that there are not, drivers have words for those they meet."""
    if made.status == 404 and visit_of(request).surface == "driver" and made.message not in WORDS:
        return _("There is no such page.")
    if made.code == "body_too_large":
        return _(_handler_opt(request, "too_large") or N_("What was sent is too large. Nothing was saved."))
    if isinstance(error, HTTPException) and made.status < 500 and made.status != 404:
        return _(SENTENCES.get(made.status, OTHERWISE))
    return _(made.message)


def _handler_opt(request: AnyRequest, name: str) -> str | None:
    """What the address itself says of it."""
    handler = request.scope.get("route_handler")
    return handler.opt.get(name) if handler is not None else None


def _ways_on(request: AnyRequest, made: LiveryError) -> dict[str, Any]:
    """A code that was misread on its sticker can be typed anew, beside whom to ask; a form is led back to."""
    visit, path = visit_of(request), request.url.path
    if made.status == 404 and visit.surface == "driver" and path.startswith("/c/"):
        return {"wrong_code": path.split("/")[2][:20], "profile": visit.brand}
    came_from = request.headers.get("Referer", "")
    if (made.status in (409, 413) or made.code == "csrf") and came_from.startswith(f"{visit.origin}/"):
        return {"back": local_path(came_from.removeprefix(visit.origin))}
    return {}


def _to_login(request: AnyRequest) -> Response[Any]:
    """Back to where one was, after the login; a piece of a page asks the browser to go there as a whole."""
    is_part = request.headers.get("HX-Request") == "true"
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    login = (
        "/login"
        if request.method != "GET" or target == "/" or is_part
        else f"/login?next={quote(target, safe='/')}"
    )
    if is_part:
        return Response(None, status_code=401, headers={"HX-Redirect": login})
    return Response(None, status_code=303, headers={"Location": login})


def _to_form(request: AnyRequest) -> Response[Any]:
    """What only takes forms lies below the page that shows them. After a refusal the browser stands there: a reload, a
    bookmark, or the way back from choosing a language comes as a GET."""
    above = request.url.path.rstrip("/").rpartition("/")[0]
    return Response(None, status_code=303, headers={"Location": local_path(above or "/")})


def as_problem(request: AnyRequest, error: Exception) -> Response[Any]:
    made = as_livery_error(error)
    _note(request, error, made)
    return _with_allow(request, problem(made, visit_of(request).request_id))


def as_replay(_request: AnyRequest, error: Exception) -> Response[Any]:
    assert isinstance(error, Replay)
    return error.response()
