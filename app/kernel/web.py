"""What every surface's handlers share: the visit, pages, forms, flashes, live streams, lists.

A handler lives in `<slice>/portal.py` (`console.py`, `driver.py`, `api.py`) and stands in that module's list `routes`:

    @get("/stations/{station_id:str}", opt={"permission": "stations.view"}, name="station")
    async def show_station(request: Request, tenant_scope: Scope, station_id: str) -> Response:
        station = await service.get_station(tenant_scope, parse_id("charging_station", station_id))
        return page(request, "stations/station.html", title=station.name, station=station)

    @post("/stations", opt={"permission": "stations.manage"}, status_code=303)
    async def create_station(request: Request, tenant_scope: Scope) -> Response:
        form = await read_form(request)
        try:
            new = await service.create_station(tenant_scope, identity=form.get("identity", ""))
        except Invalid as error:
            return page(request, "stations/new.html", title="New station", status=422, form=form, faults=error.faults)
        return redirect(f"/stations/{public_id('charging_station', new.station.id)}", flash="The station is there.")

    @get("/stations/{station_id:str}/live", opt={"permission": "stations.view"})
    async def live_station(request: Request, station_id: str) -> Stream:
        key = parse_id("charging_station", station_id)
        async def render(scope: Scope) -> str:
            return fragment(request, "stations/_live.html", station=await service.get_station(scope, key))
        return live(request, [f"station:{key}"], render)

Rules: every route names a permission or says `"public": True`; start-up refuses one without. `tenant_scope` is the
request's transaction (Litestar keeps the name `scope` for itself): it commits before the response leaves, and rolls
back when the handler raises. LiveryErrors become an error page or problem+json by themselves. Each form carries
`{{ ui.csrf(csrf_token) }}`. A page element is live by `hx-sse:connect="…/live"`; each message is its inner HTML.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from litestar import Request
from litestar.response import Response, Stream

from app.kernel.clock import utcnow
from app.kernel.errors import Invalid
from app.kernel.secrets import Keys, digest
from tenants.database import Database
from tenants.redis import Redis, RedisError, channel, platform_key
from tenants.scope import Actor, Scope

HTML = "text/html; charset=utf-8"
FLASH_COOKIE, MODE_COOKIE, LOGIN_COOKIE = "__Host-livery-flash", "__Host-livery-mode", "__Host-livery"
KEEP_ALIVE_S, RECHECK_S, BACKLOG = 15.0, 60.0, 100
MAX_LIMIT = 200


@dataclass(slots=True, kw_only=True)
class Visit:
    """Whose page this is and who looks at it. Made by the surface's gate; `request.state.visit`."""

    surface: str
    host: str
    origin: str
    tenant_id: UUID | None = None
    slug: str = ""
    tenant_name: str = ""
    tenant_status: str = "active"
    actor: Actor = field(default_factory=lambda: Actor(kind="anonymous"))
    email: str = ""
    login_key: str = ""
    brand: dict[str, Any] = field(default_factory=dict)
    time_zone: str = "UTC"
    csrf_token: str = ""
    banner: str | None = None

    @property
    def is_logged_in(self) -> bool:
        return self.actor.kind in ("staff", "platform_admin")


@dataclass(frozen=True, slots=True)
class NavItem:
    label: str
    href: str
    icon: str
    permission: str


def visit_of(request: Request[Any, Any, Any]) -> Visit:
    return request.state.visit


def csrf_token(keys: Keys, visit: Visit) -> str:
    """Bound to tenant, host and login: a token of brand A or of another login never passes."""
    bound = f"{visit.tenant_id}|{visit.host}|{visit.login_key}"
    return base64.urlsafe_b64encode(digest(keys, "csrf", bound)[:24]).decode()


# --- pages -------------------------------------------------------------------------------------------------------


def page(
    request: Request[Any, Any, Any], template: str, *, title: str, status: int = 200, **context: Any
) -> Response[str]:
    """A whole page in the brand's layout."""
    visit = visit_of(request)
    flashes = read_flashes(request)
    html = _render(request, template, title=title, flashes=flashes, **_frame(request, visit), **context)
    response = Response(html, media_type=HTML, status_code=status)
    response.headers["Cache-Control"] = "no-store"
    if flashes:
        response.delete_cookie(FLASH_COOKIE, path="/")
    return response


def fragment(request: Request[Any, Any, Any], template: str, **context: Any) -> str:
    """A piece of a page, for a live stream or a partial answer."""
    return _render(request, template, **_frame(request, visit_of(request)), flashes=[], title="", **context)


def partial(
    request: Request[Any, Any, Any], template: str, *, status: int = 200, **context: Any
) -> Response[str]:
    return Response(fragment(request, template, **context), media_type=HTML, status_code=status)


def is_partial(request: Request[Any, Any, Any]) -> bool:
    """htmx 4 asks for a piece, not a page (experience.md 1.3)."""
    return request.headers.get("HX-Request-Type") == "partial"


def _frame(request: Request[Any, Any, Any], visit: Visit) -> dict[str, Any]:
    path = request.url.path
    nav: Sequence[NavItem] = request.app.state.nav
    mode = request.cookies.get(MODE_COOKIE, "auto")
    locked = visit.brand.get("lock_mode")
    return {
        "brand": visit.brand, "mode": locked or (mode if mode in ("light", "dark") else "auto"),
        "csrf_token": visit.csrf_token, "request_path": path, "time_zone": visit.time_zone, "now": utcnow(),
        "banner": visit.banner, "surface": visit.surface, "may": visit.actor.may,
        "person": {"name": visit.actor.name, "email": visit.email, "role": visit.actor.role}
        if visit.is_logged_in
        else None,
        "nav": [
            {"label": item.label, "href": item.href, "icon": item.icon, "current": _is_current(path, item.href)}
            for item in nav
            if visit.actor.may(item.permission)
        ],
    }  # fmt: skip


def _is_current(path: str, href: str) -> bool:
    return path == href if href == "/" else path == href or path.startswith(href + "/")


def _render(request: Request[Any, Any, Any], template: str, **context: Any) -> str:
    return request.app.state.templates.get_template(template).render(**context)


def redirect(path: str, *, flash: str | None = None, kind: str = "success") -> Response[None]:
    """303 after a POST. The flash travels in a cookie; nothing is stored for it."""
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError("a redirect stays on its host")
    response: Response[None] = Response(None, status_code=303, headers={"Location": path})
    if flash:
        response.set_cookie(
            key=FLASH_COOKIE, value=base64.urlsafe_b64encode(json.dumps([kind, flash]).encode()).decode(), path="/",
            secure=True, httponly=True, samesite="lax", max_age=60,
        )  # fmt: skip
    return response


def read_flashes(request: Request[Any, Any, Any]) -> list[dict[str, str]]:
    """Text only, shown escaped: a visitor who forges his own cookie shows it to himself."""
    try:
        kind, text = json.loads(base64.urlsafe_b64decode(request.cookies.get(FLASH_COOKIE, "")))
        return (
            [{"kind": kind, "text": str(text)[:500]}]
            if kind in ("success", "error", "info", "warning")
            else []
        )
    except (ValueError, TypeError):
        return []


async def read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """The fields of a form as text, without our own. Uploads and repeated names are the caller's (`request.form()`)."""
    form = await request.form()
    return {name: value.strip() for name, value in form.items() if isinstance(value, str) and name != "_csrf"}


# --- REST --------------------------------------------------------------------------------------------------------


def read_limit(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid.field("limit", "range", f"limit is 1 to {MAX_LIMIT}.")
    return limit


def listing(
    rows: Sequence[Any], limit: int, show: Callable[[Any], Any], cursor: Callable[[Any], str]
) -> dict[str, Any]:
    """`rows` were asked for with limit + 1: the one too many says that there is more."""
    shown = rows[:limit]
    more = cursor(shown[-1]) if len(rows) > limit and shown else None
    return {"data": [show(row) for row in shown], "next_cursor": more}


def stamp(at: Any) -> str | None:
    """RFC 3339, UTC, to the second or finer where there is more."""
    if at is None:
        return None
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


# --- live --------------------------------------------------------------------------------------------------------

Render = Callable[[Scope], Awaitable[str]]


class Hub:
    """One Redis subscription of this process, shared by all its open streams. What is lost is only late."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._queues: dict[str, set[asyncio.Queue[str]]] = {}
        self._pubsub: Any = None
        self._task: asyncio.Task[None] | None = None
        self.draining = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        self.draining.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(platform_key("web"), *self._queues)
                    self._pubsub = pubsub
                    self._everybody()
                    async for message in pubsub.listen():
                        if message.get("type") == "message":
                            self._tell(message["channel"].decode(), message["data"].decode())
            except (RedisError, OSError):
                self._pubsub = None
                await asyncio.sleep(1)

    def _everybody(self) -> None:
        """After a loss of Redis each stream shows its page anew."""
        for name in self._queues:
            self._tell(name, "{}")

    def _tell(self, name: str, data: str) -> None:
        for queue in self._queues.get(name, ()):
            if queue.full():
                queue.get_nowait()  # drop the oldest: the page is drawn whole anyway
            queue.put_nowait(data)

    async def subscribe(self, tenant_id: UUID, topics: Sequence[str]) -> tuple[asyncio.Queue[str], list[str]]:
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=BACKLOG)
        names = [channel(tenant_id, topic) for topic in topics]
        for name in names:
            first = name not in self._queues
            self._queues.setdefault(name, set()).add(queue)
            if first and self._pubsub is not None:
                try:
                    await self._pubsub.subscribe(name)
                except (RedisError, OSError):
                    pass  # the listener reconnects and subscribes to all of them
        return queue, names

    async def unsubscribe(self, queue: asyncio.Queue[str], names: Sequence[str]) -> None:
        for name in names:
            queues = self._queues.get(name, set())
            queues.discard(queue)
            if not queues:
                self._queues.pop(name, None)
                if self._pubsub is not None:
                    try:
                        await self._pubsub.unsubscribe(name)
                    except (RedisError, OSError):
                        pass


def live(
    request: Request[Any, Any, Any], topics: Sequence[str], render: Render, *, pause_s: float = 0.15
) -> Stream:
    """Server-sent events: a snapshot, then the same fragment at each change; a comment every 15 s.

    Subscribes first and renders then, so that nothing falls between. Ends when the process drains or the login does.
    """
    visit, state = visit_of(request), request.app.state
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _events(
        visit, state.hub, state.database, topics, render, pause_s, lambda: state.still_welcome(request)
    )
    return Stream(stream, media_type="text/event-stream", headers=headers)


async def _events(
    visit: Visit, hub: Hub, database: Database, topics: Sequence[str], render: Render, pause_s: float,
    still_welcome: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:  # fmt: skip
    assert visit.tenant_id is not None
    queue, names = await hub.subscribe(visit.tenant_id, topics)
    drained = asyncio.ensure_future(hub.draining.wait())
    loop = asyncio.get_running_loop()
    checked_at, shown = loop.time(), ""
    try:
        while True:
            async with database.scope(visit.tenant_id, visit.actor) as scope:
                html = await render(scope)
            if html != shown:
                shown = html
                yield _event(html)
            while queue.empty():
                heard = asyncio.ensure_future(queue.get())
                done, _ = await asyncio.wait(
                    {heard, drained}, timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED
                )
                if drained in done:
                    heard.cancel()
                    return
                if heard in done:
                    break
                heard.cancel()
                yield b": keep-alive\n\n"
                if loop.time() - checked_at > RECHECK_S:
                    checked_at = loop.time()
                    if not await still_welcome():
                        return
            await asyncio.sleep(pause_s)  # several changes at once are one picture
            while not queue.empty():
                queue.get_nowait()
            if loop.time() - checked_at > RECHECK_S:
                checked_at = loop.time()
                if not await still_welcome():
                    return
    finally:
        drained.cancel()
        await hub.unsubscribe(queue, names)


def _event(html: str) -> bytes:
    return ("\n".join(f"data: {line}" for line in html.strip().splitlines() or [""]) + "\n\n").encode()
