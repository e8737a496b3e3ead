"""What every page needs, whatever its surface. Page builders: this is how.

**Where.** Handlers are Litestar functions in `<slice>/portal.py`, `console.py`, `driver.py` or `api.py`, collected in a
module-level list `routes`; the surface of that name gathers them (`app/kernel/slices.py`). Templates lie in
`<slice>/templates/` and are named `<slice>/file.html`. Navigation: a module-level list `nav` of `NavItem`s.

**Who may.** Every route says `opt={"permission": "stations.view"}` (names: `app/identity/permissions.py`) or
`opt={"public": True}`; start-up refuses a route without. `"self"` is for everybody who is logged in. Login, host,
permission, Origin, CSRF and suspension are checked before the handler runs (`app/surfaces/guards.py`).

**Scope.** The parameter `tenant_scope: Scope` is the request's transaction (Litestar keeps the name `scope` for its
own). It commits after the handler returned and before the answer is sent, so that a failed commit is a 500 and never a
success page. Whatever the handler raises rolls it back. Console handlers have no tenant:
`async with platform(request, "why") as scope:`.

**Forms.** `form = await read_form(request)`; the template's form carries
`<input type="hidden" name="_csrf" value="{{ csrf_token }}">`. After success `redirect(request, path, flash="…")` (303).
A verb's `Invalid` or `Refused` goes back into the form with `form_again(...)`: status 422 or 409, `values` as they were
typed, `errors` a dict field -> message, `alert` the sentence on top; and everything written so far is rolled back.

**Live.** `return live(request, topics, render)`: `render(scope, message)` gives an HTML fragment, first with `None` for
the snapshot, then for each message published on these topics; None sends nothing. The route's path ends in `/live`.

A whole example:

    nav = [NavItem("Locations", "/locations", "map-pin", "stations.view", order=30)]

    @get("/locations/new", opt={"permission": "stations.manage"})
    async def new_location(request: Request, tenant_scope: Scope) -> Response:
        return page(request, tenant_scope, "stations/location.html", title="New location", values={}, errors={})

    @post("/locations", opt={"permission": "stations.manage"})
    async def create_location(request: Request, tenant_scope: Scope) -> Response:
        form = await read_form(request)
        try:
            made = await service.create_location(tenant_scope, name=form.text("name"), city=form.text("city"))
        except (Invalid, Refused) as error:
            return form_again(request, tenant_scope, "stations/location.html", error, form, title="New location")
        return redirect(request, f"/locations/{public_id('location', made.id)}", flash="The location was created.")

    @get("/locations/{location_id:str}/live", opt={"permission": "stations.view"})
    async def live_location(request: Request, tenant_scope: Scope, location_id: str) -> Stream:
        location = await service.get_location(tenant_scope, parse_id("location", location_id))

        async def render(scope: Scope, message: dict[str, Any] | None) -> str:
            return fragment(request, "stations/_tiles.html", tiles=await queries.tiles(scope, location.id))

        return live(request, ["stations"], render)

    routes = [new_location, create_location, live_location]

**Templates** extend `layouts/staff.html` or `layouts/plain.html` and get: `title`, `brand`, `nav`, `person`,
`may(permission)`, `csrf_token`, `form_id` (`FORM_FIELD`), `flashes`, `mode`, `banner`, `request_path`, `request_id`,
`time_zone`, `language`, `now`, `host`, `surface`, `read_only` (a suspended tenant), `is_preview` (a draft of the look
is worn), and what the handler passes.

REST handlers: `app/kernel/rest.py`.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import jinja2
from litestar import Request, Response
from litestar.datastructures import Cookie
from litestar.response import Stream

from app.kernel.clock import utcnow
from app.kernel.errors import Invalid, LiveryError, TooMany
from app.kernel.live import GAP, Live
from app.kernel.secrets import digest, digests, new_token, same
from app.kernel.settings import Settings
from tenants.database import Database
from tenants.scope import Actor, PlatformScope, Scope
from themes.render import labels_of

ANONYMOUS = Actor(kind="anonymous")
LOGIN_COOKIE = "__Host-livery"
FLASH_COOKIE = "__Host-livery-flash"
MODE_COOKIE = "__Host-livery-mode"
LANGUAGE_COOKIE = "__Host-livery-language"
NEXT_COOKIE = "__Host-livery-next"
LINK_COOKIE = "__Host-livery-link"
PREVIEW_COOKIE = "__Host-livery-preview"
MODES = ("light", "dark", "auto")
KEEP_ALIVE_S = 15
RECHECK_S = 60
LISTENERS_AT_MOST = 20  # per topic and process

AnyRequest = Request[Any, Any, Any]
Render = Callable[[Scope, dict[str, Any] | None], Awaitable[str | None]]


# -- the visit: what is known of a request before its handler runs ---------------------------------------------


@dataclass(frozen=True, slots=True)
class BrandFace:
    """What templates need of a brand. `lock_mode` is `light` or `dark` where the brand leaves its readers no choice;
    `icons` is size -> address, `text_kinds` which legal texts there are, `support_phone` and `support_email` whom a
    driver may ask (empty: nobody), `has_wallet` that drivers with an account may pay ahead."""

    name: str
    css_url: str
    logo_text: str
    lock_mode: str | None = None
    logo_url: str | None = None
    icons: Mapping[int, str] = field(default_factory=dict)
    text_kinds: tuple[str, ...] = ()
    color: str = "#1f5fbf"
    support_phone: str = ""
    support_email: str = ""
    has_wallet: bool = False


@dataclass(frozen=True, slots=True)
class NavItem:
    """`when`: only where the installation is such (its handlers then answer 404 elsewhere)."""

    label: str
    href: str
    icon: str
    permission: str
    order: int = 50
    when: Callable[[Settings], bool] | None = None


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request: made by the front door, completed by the surface's door (brand, login), read by everyone."""

    database: Database
    live: Live
    surface: str
    host: str
    origin: str
    remote: str
    request_id: str
    tenant_id: UUID | None = None
    slug: str = ""
    tenant_name: str = ""
    is_suspended: bool = False
    actor: Actor = ANONYMOUS
    session_digest: str = ""
    person: dict[str, Any] | None = None
    brand: BrandFace | None = None
    is_preview: bool = False
    time_zone: str = "UTC"
    language: str = "en"
    languages: tuple[str, ...] = ("en",)
    is_spoiled: bool = False
    is_welcome: Callable[[], Awaitable[bool]] | None = None
    idempotency: Any = None

    @property
    def is_logged_in(self) -> bool:
        return self.actor.kind != "anonymous"

    @property
    def tenant(self) -> UUID:
        if self.tenant_id is None:
            raise RuntimeError("this host belongs to no tenant")
        return self.tenant_id

    @property
    def keys(self) -> dict[str, bytes]:
        return self.database.settings.secret_keys


CURRENT: ContextVar[Visit] = ContextVar("visit")


def visit_of(request: Any) -> Visit:
    return request.scope["livery.visit"]


async def provide_tenant_scope(request: AnyRequest) -> AsyncGenerator[Scope, None]:
    """The request's transaction. A page that says "this was refused" (`form_again`) leaves nothing half-written."""
    visit = visit_of(request)
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        yield scope
        if visit.is_spoiled:
            await scope.db.rollback()
            scope.forget_after_commit()


def platform(
    request: AnyRequest, reason: str, *, tenant_id: UUID | None = None
) -> AbstractAsyncContextManager[PlatformScope]:
    """The console's transaction; `reason` stands in the platform's audit log."""
    visit = visit_of(request)
    return visit.database.platform_scope(visit.actor, reason, tenant_id=tenant_id)


# -- forms -----------------------------------------------------------------------------------------------------

CSRF_FIELD = "_csrf"
# Names one form on one page, for verbs that tell something once (`idempotency.repeatable`).
FORM_FIELD = "_form"
LARGEST = 2**31 - 1  # of PostgreSQL's integer; no form asks for more
CSRF_HEADER = "X-CSRFToken"
IS_HEAD = "livery.is_head"  # of an ASGI scope: asked for with HEAD, answered like a GET


def csrf_token(visit: Visit) -> str:
    """Bound to tenant and login, so that one brand's token is worth nothing on another. Empty before a login."""
    if not visit.session_digest:
        return ""
    return digest(visit.keys, "csrf", f"{visit.tenant_id}:{visit.session_digest}").hex()


def is_csrf_token(visit: Visit, presented: str) -> bool:
    if not visit.session_digest or not presented:
        return False
    bound = f"{visit.tenant_id}:{visit.session_digest}"
    return any(same(known.hex().encode(), presented.encode()) for known in digests(visit.keys, "csrf", bound))


class Form:
    """What was sent, as text. The getters strip, and raise `Invalid` naming the field."""

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if isinstance(value, str) and name != CSRF_FIELD:
                # A NUL is no character of any text, and PostgreSQL takes none.
                self._values.setdefault(name, []).append(value.replace("\0", ""))

    @property
    def values(self) -> dict[str, str]:
        """For filling the form in again: the last value of each field, as it was typed."""
        return {name: found[-1] for name, found in self._values.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        found = self._values.get(name)
        return found[-1].strip() if found else default

    def texts(self, name: str) -> list[str]:
        return [value.strip() for value in self._values.get(name, ())]

    def flag(self, name: str) -> bool:
        return self.text(name).lower() in ("on", "true", "1", "yes")

    def integer(self, name: str) -> int | None:
        value = self.text(name)
        if not value:
            return None
        try:
            number = int(value)
        except ValueError:
            raise Invalid.field(name, "number", "This must be a whole number.") from None
        if abs(number) > LARGEST:
            raise Invalid.field(name, "number", "This number is too large.")
        return number

    def reason(self) -> str:
        """Why platform staff do something in a tenant."""
        reason = self.text("reason")
        if not reason or len(reason) > 500:
            raise Invalid.field("reason", "required", "Give a reason: it stands in both audit logs.")
        return reason


async def read_form(request: AnyRequest) -> Form:
    return Form((await request.form()).multi_items())


# -- answers ---------------------------------------------------------------------------------------------------


def fragment(request: AnyRequest, template: str, **context: Any) -> str:
    """A piece of a page as text: for `live`, or for an htmx answer."""
    return _template(request, template).render(_context(request) | {"now": utcnow()} | context)


def page(
    request: AnyRequest, scope: Scope | PlatformScope | None, template: str, *, title: str, status: int = 200,
    **context: Any,
) -> Response[str]:  # fmt: skip
    """A whole page. Flash messages are shown once. With a status of 400 or more nothing is committed."""
    visit = visit_of(request)
    now = scope.now if scope is not None else utcnow()
    values = _context(request) | {"title": title, "now": now, "flashes": _flashes(request)} | context
    html = _template(request, template).render(values)
    if context.get("errors"):  # once more: the page has said now what it calls its fields, and in which order
        labels = labels_of(html, context["errors"])
        errors = {name: context["errors"][name] for name in (*labels, *context["errors"])}
        html = _template(request, template).render(values | {"labels": labels, "errors": errors})
    response = Response(html, status_code=status, media_type="text/html")
    if FLASH_COOKIE in request.cookies:
        response.set_cookie(own_cookie(FLASH_COOKIE, "", max_age=0))
    if status >= 400:
        visit.is_spoiled = True
    return response


def form_again(
    request: AnyRequest, scope: Scope | PlatformScope | None, template: str, error: LiveryError, form: Form, *,
    title: str, **context: Any,
) -> Response[str]:  # fmt: skip
    """The form once more, with what was typed and what is wrong with it; nothing of it is stored."""
    errors = {fault.field: fault.message for fault in reversed(error.faults)}
    response = page(
        request, scope, template, title=title, status=error.status, values=form.values, errors=errors,
        alert=error.message, error_code=error.code, **context,
    )  # fmt: skip
    return with_retry_after(response, error)


def with_retry_after(response: Response[Any], error: LiveryError) -> Response[Any]:
    """Who came too often is told when to come again (RFC 9110, 10.2.3)."""
    if isinstance(error, TooMany):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def redirect(
    request: AnyRequest, path: str, *, flash: str | None = None, kind: str = "success"
) -> Response[Any]:
    """303 after a POST: a reload does not send the form again. `path` is one of ours."""
    response: Response[Any] = Response(None, status_code=303, headers={"Location": local_path(path)})
    if flash:
        response.set_cookie(own_cookie(FLASH_COOKIE, _seal_flash(visit_of(request), kind, flash), max_age=60))
    return response


def local_path(path: str) -> str:
    """A path on this very host, or `/`: no answer of ours leads elsewhere."""
    is_local = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return quote(path, safe="/?&=%#:@!$'()*+,;~-._") if is_local else "/"


def login_cookie(secret: str) -> Cookie:
    """Empty ends it."""
    return own_cookie(LOGIN_COOKIE, secret, max_age=None if secret else 0)


def next_cookie(path: str) -> Cookie:
    """Where to go after the login: the mail's link does not carry it, the browser that asked does."""
    return own_cookie(NEXT_COOKIE, local_path(path), max_age=3600)


def link_browser(request: AnyRequest) -> str:
    """What tells this browser from others that have a login link, from its page with the button on; "" where there is
    nothing."""
    return request.cookies.get(LINK_COOKIE, "")


def link_cookie(known: str) -> Cookie:
    """For as long as a link lives. A browser that has one keeps it: another tab may show another link."""
    return own_cookie(LINK_COOKIE, known or new_token(), max_age=1800)


def preview_cookie(held: str) -> Cookie:
    """The pass to see a draft (`app/brands/faces.py`), for as long as the browser is open; empty ends it."""
    return own_cookie(PREVIEW_COOKIE, held, max_age=None if held else 0)


def after_login(request: AnyRequest, secret: str, home: str = "/") -> Response[Any]:
    response = redirect(request, request.cookies.get(NEXT_COOKIE, home))
    response.set_cookie(login_cookie(secret))
    if NEXT_COOKIE in request.cookies:
        response.set_cookie(own_cookie(NEXT_COOKIE, "", max_age=0))
    return response


def own_cookie(name: str, value: str, *, max_age: int | None) -> Cookie:
    return Cookie(
        key=name, value=value, path="/", secure=True, httponly=True, samesite="lax", max_age=max_age
    )


def _template(request: AnyRequest, name: str) -> jinja2.Template:
    return request.app.state.templates.get_template(name)


def _context(request: AnyRequest) -> dict[str, Any]:
    visit = visit_of(request)
    return {
        "brand": visit.brand, "mode": _mode(request, visit), "banner": _banner(visit), "nav": _nav(request, visit),
        "person": visit.person, "may": visit.actor.may,
        "csrf_token": csrf_token(visit), "form_id": new_token(16),
        "request_path": request.url.path, "request_id": visit.request_id,
        "time_zone": visit.time_zone, "language": visit.language, "languages": visit.languages,
        "host": visit.host, "surface": visit.surface,
        "read_only": visit.is_suspended, "is_preview": visit.is_preview, "flashes": [],
    }  # fmt: skip


def _mode(request: AnyRequest, visit: Visit) -> str:
    """The brand's lock, else the viewer's choice, else the device's."""
    chosen = request.cookies.get(MODE_COOKIE, "auto")
    lock = visit.brand.lock_mode if visit.brand is not None else None
    return lock or (chosen if chosen in MODES else "auto")


def _banner(visit: Visit) -> str | None:
    if not visit.is_suspended:
        return None
    return "This account is suspended: you can read everything and change nothing. Running sessions end normally."


def _nav(request: AnyRequest, visit: Visit) -> list[dict[str, Any]]:
    """`heading` is what begins a group: it stands above the first of its items that this person sees."""
    items: list[NavItem] = request.app.state.nav
    path, group = request.url.path, ""
    found: list[dict[str, Any]] = []
    for item in items:
        if not visit.actor.may(item.permission) or not (
            item.when is None or item.when(visit.database.settings)
        ):
            continue
        own = next(
            (name for order, name in reversed(request.app.state.nav_groups) if item.order >= order), ""
        )
        found.append({
            "label": item.label, "href": item.href, "icon": item.icon, "heading": own if own != group else "",
            "current": path == item.href or (item.href != "/" and path.startswith(item.href + "/")),
        })  # fmt: skip
        group = own
    return found


def _seal_flash(visit: Visit, kind: str, message: str) -> str:
    text = base64.urlsafe_b64encode(json.dumps([kind, message[:300]]).encode()).decode()
    return f"{text}.{_flash_mac(visit, text)}"


def _flash_mac(visit: Visit, text: str) -> str:
    return digest(visit.keys, "flash", f"{visit.host}:{text}").hex()[:32]


def _flashes(request: AnyRequest) -> list[dict[str, str]]:
    """Signed, so that nobody else's cookie puts words into our mouth."""
    text, _, mac = request.cookies.get(FLASH_COOKIE, "").partition(".")
    if not text or not same(_flash_mac(visit_of(request), text).encode(), mac.encode()):
        return []
    kind, message = json.loads(base64.urlsafe_b64decode(text))
    return [{"kind": kind, "text": message}]


# -- live ------------------------------------------------------------------------------------------------------


def live(
    request: AnyRequest, topics: Iterable[str], render: Render, *, each: bool = False, by_clock: bool = False
) -> Stream:
    """Server-sent events: the snapshot, then a fragment per message (`each`) or for the newest of those that wait.

    `by_clock`: and one where a while passes without any, for what moves by itself.

    503 where a driver's page, for which a link is enough, has its listeners already: each costs renderings. The page
    asks again, ever more seldom.
    """
    visit, topics = visit_of(request), list(topics)
    if visit.surface == "driver" and visit.live.most_listeners(visit.tenant, topics) >= LISTENERS_AT_MOST:
        return Stream(iter(()), status_code=503, headers={"Retry-After": "60"})
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    is_head = request.scope.get(IS_HEAD)  # a stream that nobody reads would keep its connection from others
    stream = iter(()) if is_head else _frames(visit, topics, render, each, by_clock)
    return Stream(stream, media_type="text/event-stream", headers=headers)


async def _frames(
    visit: Visit, topics: list[str], render: Render, each: bool, by_clock: bool
) -> AsyncIterator[bytes]:
    async with visit.live.listen(visit.tenant, topics) as listener:
        yield await _rendered(visit, render, None) or b": nothing yet\n\n"
        async for messages in _until_drained(visit, listener.take):
            if messages is None:
                yield (await _rendered(visit, render, None) if by_clock else None) or b": keep-alive\n\n"
                continue
            for message in messages if each else messages[-1:]:
                frame = await _rendered(visit, render, None if message is GAP else message)
                if frame is not None:
                    yield frame


_T = TypeVar("_T")


async def _until_drained(
    visit: Visit, take: Callable[[], Awaitable[list[tuple[str, _T]]]]
) -> AsyncIterator[list[_T] | None]:
    """What was taken, or None when it is time for a sign of life. Ends on SIGTERM, and when the login has ended."""
    loop = asyncio.get_running_loop()
    drained = asyncio.ensure_future(visit.live.draining.wait())
    taking = asyncio.ensure_future(take())
    check_at = loop.time() + RECHECK_S
    try:
        while True:
            done, _ = await asyncio.wait(
                {drained, taking}, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if drained in done:
                return
            if loop.time() >= check_at:
                if visit.is_welcome is not None and not await visit.is_welcome():
                    return
                check_at = loop.time() + RECHECK_S
            if taking in done:
                yield [message for _topic, message in taking.result()]
                taking = asyncio.ensure_future(take())
            else:
                yield None
    finally:
        drained.cancel()
        taking.cancel()


async def _rendered(visit: Visit, render: Render, message: dict[str, Any] | None) -> bytes | None:
    """In a transaction of its own: a stream lives for hours and holds none."""
    async with visit.database.scope(visit.tenant, visit.actor) as scope:
        html = await render(scope, message)
    if html is None:
        return None
    return b"".join(b"data: " + line.encode() + b"\n" for line in html.splitlines() or [""]) + b"\n"
