"""Portal pages of identity: login, team, API keys, audit log."""

from typing import Any

from litestar import Request, Response, get, post
from sqlalchemy import select

from app.identity import service
from app.identity.models import StaffMember
from app.identity.permissions import PERMISSIONS, ROLES, SCOPES
from app.kernel.audit import AuditEntry, find_break
from app.kernel.errors import Forbidden, Invalid, NotFound, Refused, TooMany
from app.kernel.ids import parse_id, public_id
from app.kernel.web import (
    FORM_FIELD,
    LOGIN_COOKIE,
    NavItem,
    after_login,
    form_again,
    link_browser,
    link_cookie,
    local_path,
    login_cookie,
    next_cookie,
    page,
    read_form,
    redirect,
    visit_of,
)
from tenants.scope import Scope
from themes.language import _

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Team", "/team", "users", "team.view", order=80),
    NavItem("API keys", "/api-keys", "key-round", "api_keys.manage", order=85),
    NavItem("Audit log", "/audit", "scroll-text", "audit.view", order=95),
]
AUDIT_PAGE = 100


# -- login -----------------------------------------------------------------------------------------------------


@get("/login", opt={"public": True})
async def show_login(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    is_drivers = visit_of(request).surface == "driver"
    home = "/account" if is_drivers else "/"
    if visit_of(request).is_logged_in:
        return redirect(request, home)
    target = local_path(request.query_params.get("next", home))
    ended = request.cookies.get(LOGIN_COOKIE)
    has_closed = is_drivers and ended is not None and await service.has_closed(tenant_scope, ended)
    return page(
        request, tenant_scope, "identity/login.html", title=_("Log in"), values={"next": target}, errors={},
        alert=None, has_closed=has_closed,
    )  # fmt: skip


@post("/login", opt={"public": True})
async def request_login(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form, visit = await read_form(request), visit_of(request)
    try:
        await service.request_login(tenant_scope, form.text("email"), host=visit.host, remote=visit.remote)
    except (Invalid, TooMany) as error:
        return form_again(request, tenant_scope, "identity/login.html", error, form, title="Log in")
    response = page(
        request, tenant_scope, "identity/login_sent.html", title="Check your mail", email=form.text("email"),
        mails_url=mails_url(tenant_scope), most=service.most_links(),
    )  # fmt: skip
    response.set_cookie(next_cookie(form.text("next", "/")))
    return response


def mails_url(scope: Scope) -> str | None:
    """In development nothing is sent: the console shows what would have been."""
    settings = scope.settings
    return None if settings.smtp_url else settings.url_of(settings.host_of("console"), "/mails")


@get("/login/{token:str}", opt={"public": True})
async def show_link(request: AnyRequest, tenant_scope: Scope, token: str) -> Response[Any]:
    link = await service.find_login_link(tenant_scope, token)
    return link_page(request, tenant_scope, token, stands=link is not None)


def link_page(request: AnyRequest, scope: Scope | None, token: str, *, stands: bool) -> Response[Any]:
    """Only a button: a mail scanner that follows the link uses nothing up."""
    visit = visit_of(request)
    if not stands and visit.is_logged_in:  # by this very link, most likely
        return redirect(request, "/account" if visit.surface == "driver" else "/")
    if not stands:
        title = _("This link does not work")
        return page(request, scope, "identity/login_link_gone.html", title=title, status=404)
    shown = page(request, scope, "identity/login_link.html", title=_("Log in"), token=token)
    shown.set_cookie(link_cookie(link_browser(request)))
    return shown


@post("/login/{token:str}", opt={"public": True, "of_the_browser": True})
async def login(request: AnyRequest, tenant_scope: Scope, token: str) -> Response[Any]:
    made = await service.login_with(
        tenant_scope, token, host=visit_of(request).host, browser=link_browser(request)
    )
    return after_login(request, made.secret)


@post("/logout", opt={"permission": "self"})
async def logout(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    await service.logout(tenant_scope, bytes.fromhex(visit_of(request).session_digest))
    response = redirect(request, "/login")
    response.set_cookie(login_cookie(""))
    return response


# -- team ------------------------------------------------------------------------------------------------------


@get("/team", opt={"permission": "team.view"})
async def show_team(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    return page(
        request, tenant_scope, "identity/team.html", title="Team", values={}, errors={}, alert=None,
        **await _team(tenant_scope),
    )  # fmt: skip


async def _team(scope: Scope) -> dict[str, Any]:
    members = await service.list_staff(scope)
    return {
        "members": [_shown(scope, member) for member in members], "roles": ROLES,
        "matrix": [(name, roles) for name, roles in PERMISSIONS.items() if name != "self"],
    }  # fmt: skip


def _shown(scope: Scope, member: StaffMember) -> dict[str, Any]:
    return {
        "id": public_id("staff_member", member.id), "email": member.email, "name": member.name, "role": member.role,
        "status": member.status, "last_seen_at": member.last_seen_at, "is_self": member.id == scope.actor.id,
    }  # fmt: skip


@post("/team", opt={"permission": "team.manage"})
async def invite(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        await service.invite_staff(
            tenant_scope, email=form.text("email"), name=form.text("name"), role=form.text("role")
        )
    except (Invalid, Refused, Forbidden) as error:
        context = await _team(tenant_scope)
        return form_again(request, tenant_scope, "identity/team.html", error, form, title="Team", **context)
    return redirect(request, "/team", flash=f"{form.text('email')} was invited.")


@post("/team/{staff_member_id:str}", opt={"permission": "team.manage"})
async def change_member(request: AnyRequest, tenant_scope: Scope, staff_member_id: str) -> Response[Any]:
    form = await read_form(request)
    try:
        await service.update_staff_member(
            tenant_scope, parse_id("staff_member", staff_member_id), role=form.text("role") or None,
            status=form.text("status") or None,
        )  # fmt: skip
    except (Invalid, Refused, Forbidden) as error:
        context = await _team(tenant_scope)
        return form_again(request, tenant_scope, "identity/team.html", error, form, title="Team", **context)
    return redirect(request, "/team", flash="The change holds from the next login on.")


# -- API keys --------------------------------------------------------------------------------------------------


@get("/api-keys", opt={"permission": "api_keys.manage"})
async def show_api_keys(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    return page(
        request, tenant_scope, "identity/api_keys.html", title="API keys", values={}, errors={}, alert=None,
        told=None, **await _api_keys(tenant_scope),
    )  # fmt: skip


async def _api_keys(scope: Scope) -> dict[str, Any]:
    keys = [
        {"id": public_id("api_key", key.id), "name": key.name, "hint": key.hint, "scopes": key.scopes,
         "created_at": key.created_at, "created_by": key.created_by, "last_used_at": key.last_used_at,
         "expires_at": key.expires_at, "revoked_at": key.revoked_at}
        for key in await service.list_api_keys(scope)
    ]  # fmt: skip
    allowed = [name for name in SCOPES if scope.actor.may(name)]
    return {"keys": keys, "scopes": allowed, "may_all": len(allowed) == len(SCOPES)}


@post("/api-keys", opt={"permission": "api_keys.manage"})
async def create_api_key(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    """The key stands on this one page and nowhere else."""
    form = await read_form(request)
    try:
        made = await service.create_api_key(
            tenant_scope, form.text("name"), form.texts("scopes"), form_id=form.text(FORM_FIELD)
        )
    except (Invalid, Refused, Forbidden) as error:
        context = await _api_keys(tenant_scope)
        return form_again(
            request,
            tenant_scope,
            "identity/api_keys.html",
            error,
            form,
            title="API keys",
            told=None,
            **context,
        )
    return page(
        request, tenant_scope, "identity/api_keys.html", title="API keys", values={}, errors={}, alert=None, told=made,
        **await _api_keys(tenant_scope),
    )  # fmt: skip


@post("/api-keys/{api_key_id:str}/revocations", opt={"permission": "api_keys.manage"})
async def revoke_api_key(request: AnyRequest, tenant_scope: Scope, api_key_id: str) -> Response[Any]:
    await service.revoke_api_key(tenant_scope, parse_id("api_key", api_key_id))
    return redirect(request, "/api-keys", flash="The key is revoked.")


# -- audit log -------------------------------------------------------------------------------------------------


@get("/audit", opt={"permission": "audit.view"})
async def show_audit(
    request: AnyRequest, tenant_scope: Scope, before: int | None = None, check: bool = False
) -> Response[Any]:
    query = select(AuditEntry).order_by(AuditEntry.seq.desc()).limit(AUDIT_PAGE + 1)
    if before is not None:
        if not 1 <= before < 2**63:
            raise NotFound()
        query = query.where(AuditEntry.seq < before)
    entries = (await tenant_scope.db.execute(query)).scalars().all()
    older = entries[AUDIT_PAGE - 1].seq if len(entries) > AUDIT_PAGE else None
    return page(
        request, tenant_scope, "identity/audit.html", title="Audit log", entries=entries[:AUDIT_PAGE], older=older,
        is_checked=check, broken_at=await find_break(tenant_scope) if check else None,
    )  # fmt: skip


routes = [
    show_login, request_login, show_link, login, logout, show_team, invite, change_member, show_api_keys,
    create_api_key, revoke_api_key, show_audit,
]  # fmt: skip
