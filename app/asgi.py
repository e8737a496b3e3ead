"""The front door: Host -> (tenant, surface) -> that surface's app. An unknown host gets a bare 404 and no brand."""

import asyncio
import ipaddress
import json
import logging
import re
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from litestar import Litestar
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from servestatic import ServeStaticASGI
from sqlalchemy import text

import themes
from app.kernel import tracing
from app.kernel.live import Live
from app.kernel.settings import Settings
from app.kernel.tracing import span
from app.kernel.web import IS_HEAD, Visit
from app.surfaces import api, console, doors, driver, portal, sandbox, start, uploads, webhooks
from app.surfaces.headers import POLICY, with_headers
from tenants.database import Database
from tenants.redis import Redis
from tenants.resolve import HostResolver, HostRoute, normalise_host

LOG = logging.getLogger("livery.web")
STATIC = Path(themes.__file__ or "").parent / "static" / "dist"
GRACE_S = 10
TLS_ASK = "/tls/ask"
ASK_TIMEOUT_S = 2
HSTS_S, OWN_DOMAIN_HSTS_S = 31_536_000, 86_400
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a request came to and from, with a trusted proxy's word taken for it."""

    host: str
    origin: str
    remote: str
    is_tls: bool


class FrontDoor:
    """One per process. `surfaces` are Litestar apps; `doors` the same behind the look at who comes."""

    def __init__(
        self, settings: Settings, *, database: Database | None = None, redis: Redis | None = None
    ) -> None:
        self.settings = settings
        self._owns = database is None
        self.redis = redis or (Redis(settings.redis_url) if settings.redis_url else None)
        self.database = database or Database(settings, redis=self.redis, pool_size=10)
        self.resolver = HostResolver(self.database)
        self.live = Live(self.redis)
        self.surfaces: dict[str, Litestar] = {
            "portal": portal.build(), "api": api.build(), "driver": driver.build(), "console": console.build(),
        }  # fmt: skip
        if settings.demo and not settings.is_production:
            self.surfaces["start"] = start.build()
        self.sandbox: sandbox.SandboxWire | None = None
        if settings.takes_cards and settings.uses_sandbox and settings.database_url_platform:
            self.surfaces["sandbox"] = sandbox.build()
            self.sandbox = sandbox.SandboxWire(self.database, settings)
        loaders = {
            "portal": doors.load_portal, "api": doors.load_api, "driver": doors.load_driver,
            "console": doors.load_console, "start": doors.load_start, "sandbox": doors.load_start,
        }  # fmt: skip
        self._policies = {
            "start": start.start_policy(settings), "driver": driver.driver_policy(settings),
            "portal": portal.portal_policy(settings), "sandbox": sandbox.sandbox_policy(),
        }  # fmt: skip
        self._doors = {name: doors.SurfaceDoor(app, loaders[name]) for name, app in self.surfaces.items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    # -- one request -----------------------------------------------------------------------------------------------

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        if await self._health(scope["path"], send):
            return
        if scope["path"] == TLS_ASK and self._is_proxys_own(scope):
            return await self._tls_ask(scope, send)
        if scope["method"] == "HEAD":  # answered like a GET; the server leaves the body away (RFC 9110 9.3.2)
            scope = {**scope, "method": "GET", IS_HEAD: True}
        arrival = self._arrive(scope)
        visit = await self._visit(scope, arrival) if arrival is not None else None
        if arrival is None or visit is None:
            return await _plain(send, 404, "Not Found")
        if visit.surface == "console" and scope["path"] == "/metrics" and self._asks_from_within(scope):
            return await _plain(send, 200, generate_latest().decode(), CONTENT_TYPE_LATEST)
        if visit.surface == "console" and scope["path"] == TLS_ASK:
            return await self._tls_ask(scope, send)
        if visit.surface == "console" and scope["path"] in webhooks.PATHS:
            return await webhooks.take(self.database, scope, receive, send)
        if visit.surface == "portal" and scope["path"].startswith(uploads.PREFIX):
            return await uploads.take(self.database, visit.tenant, scope, receive, send)
        if visit.surface == "sandbox" and self.sandbox and scope["path"].startswith(("/v1/", "/v2/")):
            return await self.sandbox(scope, receive, send)
        policy = self._policies.get(visit.surface, POLICY)
        hsts_s = self._hsts_s(arrival.host) if arrival.is_tls else 0
        send = with_headers(send, request_id=visit.request_id, policy=policy, hsts_s=hsts_s)
        name = "api" if visit.surface == "portal" and scope["path"].startswith("/api/") else visit.surface
        has_begun = False

        async def noting_send(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        inner = {**scope, "livery.visit": visit}
        try:
            with span(
                scope["method"], surface=name, tenant=visit.tenant_id, request=visit.request_id
            ) as traced:
                await self._doors[name](inner, receive, noting_send)
                if traced is not None:  # the route is known only now
                    traced.update_name(f"{scope['method']} {inner.get('path_template') or name}")
        except Exception:
            if has_begun:
                raise
            LOG.exception("request %s failed before its surface could answer", visit.request_id)
            await _plain(send, 500, f"Internal Server Error\nrequest {visit.request_id}")

    def _hsts_s(self, host: str) -> int:
        """A brand's own host is the brand's again after its release, and may have no TLS there: a day, not a year."""
        return HSTS_S if f".{host}".endswith(f".{self.settings.platform_domain}") else OWN_DOMAIN_HSTS_S

    def _arrive(self, scope: Any) -> Arrival | None:
        """None for anything but exactly one Host header that names a host."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        client = scope.get("client")
        remote, scheme = (client[0] if client else ""), scope.get("scheme", "http")
        if len(hosts) != 1:
            return None
        raw = hosts[0].decode("latin-1")
        if self.settings.is_trusted_proxy(remote):
            forwarded = {name: _last(scope["headers"], name) for name in _FORWARDED}
            remote = self._beyond_proxies(scope["headers"]) or remote
            scheme = forwarded[b"x-forwarded-proto"] or scheme
            raw = forwarded[b"x-forwarded-host"] or raw
        host = normalise_host(raw)
        if host is None or scheme not in ("http", "https"):
            return None
        port = raw.strip().rpartition(":")[2] if ":" in raw else ""
        shown = f":{port}" if port and port != {"http": "80", "https": "443"}[scheme] else ""
        return Arrival(host, f"{scheme}://{host}{shown}", remote, scheme == "https")

    def _beyond_proxies(self, headers: Any) -> str:
        """The last address that no proxy of ours has: what stands before it anybody could have written."""
        hops = [
            hop.strip()
            for name, value in headers
            if name == b"x-forwarded-for"
            for hop in value.decode("latin-1").split(",")
        ]
        return next((hop for hop in reversed(hops) if not self.settings.is_trusted_proxy(hop)), "")

    async def _visit(self, scope: Any, arrival: Arrival) -> Visit | None:
        common: dict[str, Any] = {
            "database": self.database, "live": self.live, "host": arrival.host, "origin": arrival.origin,
            "remote": arrival.remote, "request_id": _request_id(scope["headers"]),
        }  # fmt: skip
        surface = self._platform_surface(arrival.host)
        if surface is not None:
            return Visit(surface=surface, **common)
        route = await self._route(arrival.host)
        if route is None:
            return None
        return Visit(
            surface=route.surface, tenant_id=route.tenant_id, slug=route.slug, tenant_name=route.name,
            is_suspended=route.status == "suspended", **common,
        )  # fmt: skip

    def _platform_surface(self, host: str) -> str | None:
        """The platform's own hosts, which no table holds."""
        if host == self.settings.host_of("console"):
            return "console"
        if host == self.settings.platform_domain and "start" in self.surfaces:
            return "start"
        return "sandbox" if "sandbox" in self.surfaces and host == self.settings.host_of("sandbox") else None

    async def _route(self, host: str) -> HostRoute | None:
        route = await self.resolver.resolve(host)
        return route if route is not None and route.surface in ("portal", "driver") else None

    def _asks_from_within(self, scope: Any) -> bool:
        """From this machine or an address in LIVERY_TRUSTED_PROXIES, for itself. The console's host is in the Internet,
        and what metrics tell is nobody's business there."""
        client = scope.get("client")
        return self._is_proxys_own(scope) or (
            not _is_passed_on(scope) and client is not None and _is_loopback(client[0])
        )

    # -- certificates ----------------------------------------------------------------------------------------------

    def _is_proxys_own(self, scope: Any) -> bool:
        """A trusted proxy that asks for itself: what it passes on for somebody carries X-Forwarded headers."""
        client = scope.get("client")
        return not _is_passed_on(scope) and self.settings.is_trusted_proxy(client[0] if client else "")

    async def _tls_ask(self, scope: Any, send: Any) -> None:
        """May the proxy get a certificate for `?domain=`? 200 for every host that a page is served on."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        host = normalise_host(query.get("domain", [""])[-1])
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                is_served = host is not None and (
                    self._platform_surface(host) is not None or await self._route(host) is not None
                )
        except TimeoutError:
            return await _plain(send, 503, "Try again")
        await _plain(send, 200 if is_served else 404, "Served here" if is_served else "Not Found")

    # -- health ----------------------------------------------------------------------------------------------------

    async def _health(self, path: str, send: Any) -> bool:
        if path == "/healthz":
            await _plain(send, 200, "ok")
        elif path == "/version":
            await _plain(send, 200, version("livery"))
        elif path == "/readyz":
            checks = await self.readiness()
            status = 200 if all(checks.values()) else 503
            await _plain(send, status, json.dumps(checks), "application/json")
        else:
            return False
        return True

    async def readiness(self) -> dict[str, bool]:
        checks = {"database": await self._has_database(), "accepting": not self.live.draining.is_set()}
        if self.redis is not None:
            checks["redis"] = await self.redis.ping()
        return checks

    async def _has_database(self) -> bool:
        try:
            async with asyncio.timeout(2), self.database.anonymous() as db:
                return (await db.execute(text("select 1"))).scalar_one() == 1
        except Exception:
            return False

    # -- lifespan --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FrontDoor"]:
        faults = await self.database.check_fitness()
        if faults:
            raise RuntimeError("refusing to start: " + "; ".join(faults))
        async with AsyncExitStack() as stack:
            if self._owns:
                stack.push_async_callback(self._close)
            await stack.enter_async_context(self.live)
            if self.sandbox is not None:
                telling = asyncio.create_task(self.sandbox.tell())
                stack.callback(telling.cancel)
            yield self

    async def _close(self) -> None:
        await self.database.close()
        if self.redis is not None:
            await self.redis.close()

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(self.running())
        except BaseException as error:
            await stack.aclose()
            await send({"type": "lifespan.startup.failed", "message": str(error) or repr(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})


_FORWARDED = (b"x-forwarded-proto", b"x-forwarded-host")


def _is_passed_on(scope: Any) -> bool:
    return any(name == b"forwarded" or name.startswith(b"x-forwarded-") for name, _value in scope["headers"])


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _last(headers: Any, name: bytes) -> str:
    """What the nearest proxy wrote."""
    found = [value.decode("latin-1") for known, value in headers if known == name]
    return found[-1].rpartition(",")[2].strip() if found else ""


def _request_id(headers: Any) -> str:
    given = _last(headers, b"x-request-id")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


async def _plain(send: Any, status: int, body: str, kind: str = "text/plain; charset=utf-8") -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode() + b"\n"})


def with_static_files(door: FrontDoor) -> Any:
    """Outermost, since only there it answers ranges and 304s; every file is named by its hash."""
    if not STATIC.is_dir():
        LOG.warning("%s is missing: run `make setup` to build the front end", STATIC)
        return door
    return ServeStaticASGI(
        door,
        root=str(STATIC),
        prefix="static",
        autorefresh=False,
        immutable_file_test=lambda _path, _url: True,
    )


# -- the process -----------------------------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """Ends every open stream as soon as the signal comes: uvicorn itself would wait for them (recipes.md 3)."""

    door: FrontDoor
    _loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.door.live.draining.set)
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> int:
    """`livery web`: until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    tracing.set_up("livery-web", endpoint=settings.otel_endpoint)
    door = FrontDoor(settings)
    config = uvicorn.Config(
        with_static_files(door), host=settings.host, port=settings.web_port, lifespan="on", proxy_headers=False,
        server_header=False, date_header=True, access_log=False, log_config=None, timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=75,
    )  # fmt: skip
    server = Server(config)
    server.door = door
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    server.run()
    return 0 if server.started else 1
