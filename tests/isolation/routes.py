"""Attacks on HTTP, generated from the route table: every route x what could be wrong with who asks.

Each `Attack` says what must come back. `Proving.notices` runs those of one route; a mutant takes one check away from
one route, and at least one attack must then see another answer than it must.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import httpx2
from litestar.handlers import HTTPRouteHandler

from app.brands import faces
from app.identity import admins
from app.kernel.ids import parse_id
from app.kernel.web import CURRENT, Visit, csrf_token, visit_of
from app.surfaces import guards
from app.surfaces.assembly import route_table
from tenants.database import Database
from tenants.redis import Redis
from tenants.scope import Actor, Scope
from tests.isolation.furniture import Furnished
from tests.web import CLI, House, Visitor
from themes.css import stylesheet
from themes.theme import preset

OBJECT_FREE = {"token"}  # nobody's object: a login link's own secret
SHARED = {
    "file_name",
    "preview_name",
    "kind",
}  # a stylesheet, named by its content; a legal text, named by its kind


class DryDatabase(Database):
    """Once dry, nothing lasts: every request begins from the same ground, whatever the one before it did."""

    is_dry = False

    @asynccontextmanager
    async def scope(
        self, tenant_id: UUID, actor: Actor, *, now: datetime | None = None, redis: Redis | None = None
    ) -> AsyncIterator[Scope]:
        async with super().scope(tenant_id, actor, now=now, redis=redis) as scope:
            yield scope
            if self.is_dry:
                scope.db.expunge_all()  # or the rollback would empty what the caller still reads
                await scope.db.rollback()
                scope.forget_after_commit()


@dataclass(frozen=True, slots=True)
class Route:
    surface: str
    method: str
    path: str
    handler: HTTPRouteHandler

    @property
    def is_public(self) -> bool:
        return bool(self.handler.opt.get("public"))

    @property
    def is_of_the_browser(self) -> bool:
        """It sets cookies that are nobody's own: no token, but its origin."""
        return bool(self.handler.opt.get("of_the_browser"))

    @property
    def permission(self) -> str:
        return str(self.handler.opt.get("permission", ""))

    @property
    def parameters(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def changes(self) -> bool:
        return self.method not in guards.SAFE

    @property
    def takes_forms(self) -> bool:
        return self.surface in ("portal", "console", "driver")

    def at(self, ids: dict[str, str]) -> str:
        """KeyError for a parameter that the furniture does not know: then it has to learn it."""
        if self.surface == "driver":
            ids = ids | {"token": ids["driver_token"]}
        return self.path.format(**{name: ids[name] for name in self.parameters})

    def __str__(self) -> str:
        return f"{self.surface} {self.method} {self.path}"


def routes_of(house: House) -> list[Route]:
    return [
        Route(name, method, path, handler)
        for name, app in sorted(house.door.surfaces.items())
        for method, path, handler in route_table(app)
    ]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str
    location: str = ""


@dataclass
class Proving:
    """Two furnished brands, everybody logged in everywhere, and the foreign canary looked for in every body."""

    house: House
    a: Furnished
    b: Furnished
    staff: dict[str, Visitor]
    stranger_token: str
    keys: dict[str, Visitor]
    key_on_b: Visitor
    admin: Visitor
    riders: dict[str, Visitor]
    requests: int = 0
    canaries: list[str] = field(default_factory=list)

    # -- asking ------------------------------------------------------------------------------------------------

    async def ask(
        self, visitor: Visitor, route: Route, path: str, *, csrf: str | None = None, origin: str | None = "own",
        sees: Furnished | None = None,
    ) -> Answer:  # fmt: skip
        """`sees` is the brand whose texts this answer may hold; the other's canary must never be in it."""
        self.requests += 1
        headers: dict[str, Any] = {} if origin == "own" else {"Origin": origin}
        options: dict[str, Any] = {"headers": headers}
        if route.surface == "api" and route.changes:
            options["content"] = b"{}"
            headers["Content-Type"] = "application/json"
        elif route.changes:
            options["data"] = {
                "_csrf": visitor.csrf if csrf is None else csrf,
                "evse_id": self.a.ids["evse_id"],
            }
        answer = await self.send(visitor, route.method, path, options)
        foreign = self.b if (sees or self.a) is self.a else self.a
        if foreign.canary in answer.body:
            self.canaries.append(f"{route}: {path}")
        return answer

    async def send(self, visitor: Visitor, method: str, path: str, options: dict[str, Any]) -> Answer:
        """A stream is read up to its first event. Cookies stay as they are: an attack must not change the next one."""
        headers = {"Host": f"{visitor.host}:{visitor.port}", **options.pop("headers")}
        if visitor.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
        if method != "GET":
            headers.setdefault("Origin", visitor.origin)
        headers = {name: value for name, value in headers.items() if value is not None}
        try:
            return await self._read(visitor, method, path, headers, options)
        except httpx2.RemoteProtocolError as broken:
            return Answer(599, f"a stream broke off: {broken}")

    async def _read(
        self, visitor: Visitor, method: str, path: str, headers: dict[str, Any], options: dict[str, Any]
    ) -> Answer:
        async with visitor.client.stream(method, path, headers=headers, **options) as response:
            body = ""
            if "event-stream" in response.headers.get("content-type", ""):
                async for chunk in response.aiter_text():
                    body = chunk
                    break
            else:
                body = (await response.aread()).decode(errors="replace")
            return Answer(response.status_code, body, response.headers.get("location", ""))

    async def inject(self, route: Route, surface: str, actor: Actor) -> Answer:
        """Past the front door, straight into the surface's app, as only a mistake in the door could send it."""
        self.requests += 1
        app = self.house.door.surfaces[route.surface]
        async with self.house.database.scope(self.a.tenant_id, CLI) as scope:
            face = await faces.get_face(scope)
        host = self.house.settings.host_of("portal", self.a.slug)
        visit = Visit(
            database=self.house.database, live=self.house.door.live, surface=surface, host=host,
            origin=f"http://{host}", remote="127.0.0.1", request_id="proof", slug=self.a.slug, actor=actor,
            tenant_id=None if surface == "console" else self.a.tenant_id, session_digest="ab" * 32, brand=face.brand,
        )  # fmt: skip
        return await _call(app, visit, route, route.at(await self.ids_for(route)))

    async def ids_for(self, route: Route) -> dict[str, str]:
        """What exists, so that a refusal is the check's and not for want of an object; a login link works once."""
        if route.surface not in ("console", "sandbox"):
            return self.a.ids
        ids = dict(self.a.ids, file_name=f"{stylesheet(preset('console'))[0]}.css")
        if "token" in route.parameters:
            link = await admins.create_platform_admin(self.house.database, f"{uuid4().hex}@platform.example")
            ids["token"] = link.rpartition("/")[2]
        return ids

    # -- what must come back -----------------------------------------------------------------------------------

    async def notices(self, route: Route) -> list[str]:
        """What went otherwise than it must, of all attacks on this route."""
        found: list[str] = []
        before = len(self.canaries)
        async for what, is_well, answer in self._attacks(route):
            if not is_well:
                found.append(f"{route}: {what}: {answer.status} {answer.location} {answer.body[:80]!r}")
        return found + self.canaries[before:]

    async def _attacks(self, route: Route) -> AsyncIterator[tuple[str, bool, Answer]]:
        wrong = "driver" if route.surface in ("portal", "api") else "portal"
        answer = await self.inject(route, wrong, Actor(kind="anonymous"))
        yield "another surface", answer.status == 404, answer
        if route.surface == "driver":
            attacks = self._driver(route)
        elif route.surface == "api":
            attacks = self._api(route)
        elif route.surface == "console":
            attacks = self._console(route)
        elif route.surface == "portal":
            attacks = self._portal(route)
        else:
            return
        async for attack in attacks:
            yield attack
        if not route.is_public:
            answer = await self.inject(
                route,
                "portal" if route.surface == "api" else route.surface,
                Actor(kind="staff", role="nobody"),
            )
            yield "no permission at all", answer.status in (403, 401), answer

    async def _driver(self, route: Route) -> AsyncIterator[tuple[str, bool, Answer]]:
        visitor, own = self.house.driver(self.a.slug), route.at(self.a.ids)
        rider = self.riders["own"]
        if route.is_public:
            answer = await self.ask(visitor, route, own)
            is_home = answer.location == "/" or not route.parameters
            is_well = answer.status == 200 or (answer.status == 303 and is_home)
            yield "its own", _is_served(answer) if route.changes else is_well, answer
        else:
            async for attack in self._rider(route, own):
                yield attack
        if set(route.parameters) - SHARED - OBJECT_FREE:
            for who in (rider, visitor) if route.is_public else (rider,):
                answer = await self.ask(who, route, route.at(self.b.ids))
                yield "the other's object", answer.status == 404, answer
        elif "token" in route.parameters:
            answer = await self.ask(visitor, route, route.at(self.b.ids))
            is_refused = answer.status == 404 or (route.changes and answer.location == "/login")
            yield "the other's login link", is_refused, answer
        if route.changes:
            async for attack in self._forged(route, visitor if route.is_public else rider, own):
                yield attack
            # On a public form, too, a driver who is logged in acts as themselves.
            for what, token in (("no token", ""), ("the other's token", self.riders["stranger"].csrf)):
                answer = await self.ask(rider, route, own, csrf=token)
                is_right = answer.status == (303 if route.is_of_the_browser else 403)
                yield f"logged in with {what}", is_right, answer

    async def _rider(self, route: Route, own: str) -> AsyncIterator[tuple[str, bool, Answer]]:
        """A route for drivers who are logged in, asked by everybody else."""
        at_home = self.house.driver(self.a.slug)
        answer = await self.ask(at_home, route, own)
        yield "no login", _is_sent_to_login(answer), answer
        elsewhere = self.house.driver(self.b.slug)
        intruders = {
            "on another brand's host": (elsewhere, self.riders["own"], self.b),
            "as another brand's driver": (at_home, self.riders["stranger"], self.a),
            "as staff": (at_home, self.staff["owner"], self.a),
        }
        for what, (host, login, sees) in intruders.items():
            intruder = Visitor(host.client, host.host, host.port, dict(login.cookies), csrf=login.csrf)
            answer = await self.ask(intruder, route, own, sees=sees)
            yield what, _is_sent_to_login(answer), answer
        answer = await self.ask(self.riders["own"], route, own)
        is_well = _is_served(answer) if route.changes else answer.status == 200
        yield "its own", is_well or route.path == "/logout", answer
        answer = await self.ask(self.riders["other"], route, own)
        if route.parameters:
            yield "as another driver", answer.status == 404, answer
        else:
            shows = [name for name in ("session_id", "id_token_id") if self.a.ids[name] in answer.body]
            yield f"as another driver, who sees {shows}", not shows and answer.status != 404, answer

    async def _portal(self, route: Route) -> AsyncIterator[tuple[str, bool, Answer]]:
        own, theirs = route.at(self.a.ids), route.at(self.b.ids)
        owner = self.staff["owner"]
        nobody = self.house.portal(self.a.slug)
        if not route.is_public:
            answer = await self.ask(nobody, route, own)
            yield "no login", _is_sent_to_login(answer), answer
            elsewhere = self.house.portal(self.b.slug)
            elsewhere.cookies, elsewhere.csrf = dict(owner.cookies), owner.csrf
            answer = await self.ask(elsewhere, route, own, sees=self.b)
            yield "the login on another brand's host", _is_sent_to_login(answer), answer
            for role, visitor in self.staff.items():
                answer = await self.ask(visitor, route, own)
                may = role in _roles(route.permission)
                is_well = _is_served(answer) or route.path == "/logout"
                yield f"as {role}", is_well if may else answer.status == 403, answer
        if set(route.parameters) - SHARED - OBJECT_FREE:
            answer = await self.ask(owner, route, theirs)
            yield "the other's object", answer.status == 404, answer
        elif "token" in route.parameters:
            answer = await self.ask(nobody, route, theirs)
            is_refused = answer.status == 404 or (route.changes and answer.location == "/login")
            yield "the other's login link", is_refused, answer
        if route.changes:
            async for attack in self._forged(route, owner, own):
                yield attack

    async def _forged(
        self, route: Route, visitor: Visitor, path: str
    ) -> AsyncIterator[tuple[str, bool, Answer]]:
        other = self.house.settings.host_of("portal", self.b.slug)
        for origin in (f"http://{other}:{self.house.port}", None, "null"):
            answer = await self.ask(visitor, route, path, origin=origin)
            yield f"origin {origin}", answer.status == 403, answer
        if not route.is_public:
            for what, token in (("no token", ""), ("the other's token", self.stranger_token)):
                answer = await self.ask(visitor, route, path, csrf=token)
                yield what, answer.status == 403, answer

    async def _api(self, route: Route) -> AsyncIterator[tuple[str, bool, Answer]]:
        own, theirs = route.at(self.a.ids), route.at(self.b.ids)
        if route.is_public:
            answer = await self.ask(self.keys["all"], route, own)
            yield "its own", answer.status == 200, answer
            return
        answer = await self.ask(self.house.portal(self.a.slug), route, own)
        yield "no key", answer.status == 401, answer
        answer = await self.ask(self.staff["owner"], route, own)
        yield "a cookie instead of a key", answer.status == 401, answer
        answer = await self.ask(self.key_on_b, route, own, sees=self.b)
        yield "the key on another brand's host", answer.status == 401, answer
        answer = await self.ask(self.keys["all"], route, own)
        yield "its own", _is_served(answer), answer
        answer = await self.ask(self.keys[f"not {route.permission}"], route, own)
        yield "a key for everything else", answer.status == 403, answer
        if route.parameters:
            answer = await self.ask(self.keys["all"], route, theirs)
            yield "the other's object", answer.status == 404, answer

    async def _console(self, route: Route) -> AsyncIterator[tuple[str, bool, Answer]]:
        own = route.at(await self.ids_for(route))
        if route.is_public:
            answer = await self.ask(self.house.console(), route, own)
            yield "its own", _is_served(answer), answer
            return
        answer = await self.ask(self.house.console(), route, own)
        yield "no login", _is_sent_to_login(answer), answer
        intruder = self.house.console()
        intruder.cookies, intruder.csrf = dict(self.staff["owner"].cookies), self.staff["owner"].csrf
        answer = await self.ask(intruder, route, own)
        yield "a CPO's login", _is_sent_to_login(answer), answer
        if route.changes:
            async for attack in self._forged(route, self.admin, own):
                yield attack
        else:
            # The platform's staff may see both brands: their canaries are no leak here.
            before = list(self.canaries)
            answer = await self.ask(self.admin, route, own)
            self.canaries = before
            yield "as an admin", answer.status == 200, answer

    # -- mutants -----------------------------------------------------------------------------------------------

    def mutants(self, route: Route) -> list[str]:
        """The checks that mean something for this route."""
        found = ["host"]
        if not route.is_public:
            found += ["login", "permission"]
        if route.changes and route.takes_forms and not (route.is_public and route.surface == "console"):
            is_guests = route.is_of_the_browser or (route.is_public and route.surface != "driver")
            found += ["origin"] + ([] if is_guests else ["csrf"])
        if route.surface in ("portal", "api", "driver") and set(route.parameters) - SHARED - OBJECT_FREE:
            found += ["object"]
        return found

    @contextmanager
    def without(self, route: Route, name: str) -> Iterator[None]:
        """That route alone is served as if the check were not there."""
        known = dict(guards.CHECKS)
        if name == "object":
            guards.CHECKS["object"] = self._blind(route)
        else:
            check = known[name]

            async def hollow(request: Any, opt: dict[str, Any]) -> None:
                if opt is not route.handler.opt:
                    await check(request, opt)

            guards.CHECKS[name] = hollow
        try:
            yield
        finally:
            guards.CHECKS.clear()
            guards.CHECKS.update(known)

    def _blind(self, route: Route) -> guards.Check:
        """The handler finds the object whoever it belongs to: it works under its owner's tenant, or as its driver."""

        async def follow(request: Any, opt: dict[str, Any]) -> None:
            visit = visit_of(request)
            if opt is not route.handler.opt:
                return
            if visit.actor.kind == "driver" and not route.is_public:
                visit.actor = replace(visit.actor, id=parse_id("driver", self.a.ids["driver_id"]))
            elif any(self.b.ids[name] in request.url.path for name in route.parameters):
                visit.tenant_id = self.b.tenant_id

        return follow


def _is_served(answer: Answer) -> bool:
    """Through all the checks, to the handler; what it says to an empty form is its own affair."""
    return (
        answer.status < 500 and answer.status not in (401, 403, 404, 405) and "/login" not in answer.location
    )


def _is_sent_to_login(answer: Answer) -> bool:
    return answer.status == 401 or (answer.status == 303 and answer.location.startswith("/login"))


def _roles(permission: str) -> tuple[str, ...]:
    from app.identity.permissions import PERMISSIONS

    return PERMISSIONS[permission]


async def _call(app: Any, visit: Visit, route: Route, path: str) -> Answer:
    """One ASGI request without a socket."""
    body = b"{}" if route.surface == "api" else f"_csrf={csrf_token(visit)}".encode()
    kind = b"application/json" if route.surface == "api" else b"application/x-www-form-urlencoded"
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": route.method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
        "headers": [(b"host", visit.host.encode()), (b"content-type", kind), (b"origin", visit.origin.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "livery.visit": visit,
    }  # fmt: skip
    sent: list[dict[str, Any]] = []
    has_asked = False

    async def receive() -> dict[str, Any]:
        nonlocal has_asked
        if not has_asked:
            has_asked = True
            return {"type": "http.request", "body": body if route.changes else b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    token = CURRENT.set(visit)
    try:
        await app(scope, receive, send)
    finally:
        CURRENT.reset(token)
    start = next(message for message in sent if message["type"] == "http.response.start")
    content = b"".join(
        message.get("body", b"") for message in sent if message["type"] == "http.response.body"
    )
    location = dict(start["headers"]).get(b"location", b"").decode()
    return Answer(start["status"], content.decode(errors="replace"), location)
