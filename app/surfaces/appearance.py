"""Light, dark, or as the device says: a choice that lives in a cookie, not in an account."""

from typing import Any
from urllib.parse import urlsplit

from litestar import Request, Response, post

from app.kernel.errors import Invalid
from app.kernel.web import MODE_COOKIE, MODES, own_cookie, read_form, redirect

AnyRequest = Request[Any, Any, Any]


@post("/mode", opt={"permission": "self"})
async def choose_mode(request: AnyRequest) -> Response[Any]:
    mode = (await read_form(request)).text("mode")
    if mode not in MODES:
        raise Invalid.field("mode", "mode", f"mode is one of {', '.join(MODES)}.")
    try:
        back = urlsplit(request.headers.get("Referer", "/")).path or "/"
    except ValueError:
        back = "/"
    response = redirect(request, back)
    response.set_cookie(own_cookie(MODE_COOKIE, mode, max_age=31_536_000))
    return response


routes = [choose_mode]
