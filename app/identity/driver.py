"""The way in for drivers, on their brand's host. Using a link makes an account: that is `app/access/driver.py`."""

from typing import Any

from litestar import Request, Response, get, post

from app.identity import service
from app.identity.portal import link_page, logout, mails_url, show_login
from app.kernel.errors import Invalid, TooMany
from app.kernel.web import form_again, next_cookie, page, read_form, visit_of
from tenants.scope import Scope
from themes.language import _

AnyRequest = Request[Any, Any, Any]


@post("/login", opt={"public": True})
async def request_login(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form, visit = await read_form(request), visit_of(request)
    try:
        await service.request_driver_login(
            tenant_scope, form.text("email"), language=visit.language, host=visit.host, remote=visit.remote
        )
    except (Invalid, TooMany) as error:
        return form_again(request, tenant_scope, "identity/login.html", error, form, title=_("Log in"))
    response = page(
        request, tenant_scope, "identity/login_sent.html", title=_("Check your mail"), email=form.text("email"),
        mails_url=mails_url(tenant_scope), most=service.most_links(),
    )  # fmt: skip
    response.set_cookie(next_cookie(form.text("next", "/account")))
    return response


@get("/login/{token:str}", opt={"public": True})
async def show_link(request: AnyRequest, tenant_scope: Scope, token: str) -> Response[Any]:
    link = await service.find_login_link(tenant_scope, token, is_driver=True)
    return link_page(request, tenant_scope, token, stands=link is not None)


routes = [show_login, request_login, show_link, logout]
