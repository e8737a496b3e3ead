"""Console pages of identity: the platform admins' login, and what they did."""

from typing import Any

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.identity import admins
from app.identity.portal import link_page
from app.kernel.errors import Invalid, NotFound, TooMany
from app.kernel.web import (
    NavItem,
    after_login,
    form_again,
    link_browser,
    local_path,
    login_cookie,
    next_cookie,
    page,
    platform,
    read_form,
    redirect,
    visit_of,
)
from tenants.models import PlatformAuditEntry, Tenant

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Audit log", "/audit", "scroll-text", "platform_audit.view", order=95)]
AUDIT_PAGE = 100


@get("/login", opt={"public": True})
async def show_login(request: AnyRequest) -> Response[Any]:
    if visit_of(request).is_logged_in:
        return redirect(request, "/")
    target = local_path(request.query_params.get("next", "/"))
    return page(
        request, None, "identity/login.html", title="Log in", values={"next": target}, errors={}, alert=None
    )


@post("/login", opt={"public": True})
async def request_login(request: AnyRequest) -> Response[Any]:
    form, visit = await read_form(request), visit_of(request)
    try:
        await admins.request_admin_login(visit.database, form.text("email"), remote=visit.remote)
    except (Invalid, TooMany) as error:
        return form_again(request, None, "identity/login.html", error, form, title="Log in")
    response = page(
        request, None, "identity/login_sent.html", title="Check your mail", email=form.text("email"), mails_url=None
    )  # fmt: skip
    response.set_cookie(next_cookie(form.text("next", "/")))
    return response


@get("/login/{token:str}", opt={"public": True})
async def show_link(request: AnyRequest, token: str) -> Response[Any]:
    stands = await admins.is_admin_link(visit_of(request).database, token)
    return link_page(request, None, token, stands=stands)


@post("/login/{token:str}", opt={"public": True, "of_the_browser": True})
async def login(request: AnyRequest, token: str) -> Response[Any]:
    visit = visit_of(request)
    made = await admins.admin_login_with(
        visit.database, token, host=visit.host, browser=link_browser(request)
    )
    return after_login(request, made.secret)


@post("/logout", opt={"permission": "self"})
async def logout(request: AnyRequest) -> Response[Any]:
    visit = visit_of(request)
    await admins.admin_logout(visit.database, bytes.fromhex(visit.session_digest))
    response = redirect(request, "/login")
    response.set_cookie(login_cookie(""))
    return response


@get("/audit", opt={"permission": "platform_audit.view"})
async def show_audit(request: AnyRequest, before: int | None = None) -> Response[Any]:
    if before is not None and not 1 <= before < 2**63:
        raise NotFound()
    query = (
        select(PlatformAuditEntry, Tenant.slug)
        .outerjoin(Tenant, Tenant.id == PlatformAuditEntry.tenant_id)
        .order_by(PlatformAuditEntry.seq.desc())
        .limit(AUDIT_PAGE + 1)
    )
    if before is not None:
        query = query.where(PlatformAuditEntry.seq < before)
    async with platform(request, "read the audit log") as scope:
        rows = (await scope.db.execute(query)).all()
        older = rows[AUDIT_PAGE - 1][0].seq if len(rows) > AUDIT_PAGE else None
        return page(
            request,
            scope,
            "identity/platform_audit.html",
            title="Audit log",
            rows=rows[:AUDIT_PAGE],
            older=older,
        )


routes = [show_login, request_login, show_link, login, logout, show_audit]
