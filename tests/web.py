"""A front door on a real socket, and people who visit it: what tests of pages and REST share."""

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx2
import uvicorn

from app.asgi import FrontDoor, with_static_files
from app.brands import service as brands
from app.identity import admins
from app.identity import service as identity
from app.kernel.settings import Settings
from tenants.database import Database
from tenants.scope import Actor, Scope

CLI = Actor.cli()
OWNER = "anke@nordlicht-laden.example"


@dataclass
class Visitor:
    """A browser without JavaScript: it keeps cookies by hand (they are Secure), and sends the Origin of its host."""

    client: httpx2.AsyncClient
    host: str
    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {"Host": f"{self.host}:{self.port}", **options.pop("headers", {})}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if method != "GET":
            headers.setdefault("Origin", self.origin)
        headers = {name: value for name, value in headers.items() if value is not None}
        answer = await self.client.request(method, path, headers=headers, **options)
        self._keep(answer)
        return answer

    def _keep(self, answer: httpx2.Response) -> None:
        for line in answer.headers.get_list("set-cookie"):
            name, _, rest = line.partition("=")
            value = rest.split(";")[0].strip('"')
            if "Max-Age=0" in line or not value:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.send("GET", path, **options)

    async def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> httpx2.Response:
        """With the CSRF token of the last page, as its form would have carried it."""
        form = {"_csrf": self.csrf, **(data or {})} if self.csrf else data
        return await self.send("POST", path, data=form, **options)

    async def read(self, path: str) -> dict[str, str]:
        """What the start form of a place's page brings back: the wish, and what was read."""
        return dict(
            re.findall(r'name="(wish|terms|card|saved_card)" value="([^"]+)"', (await self.open(path)).text)
        )

    csrf: str = ""

    async def open(self, path: str) -> httpx2.Response:
        """GET, and remember the token of the page's form."""
        answer = await self.get(path)
        found = re.search(
            r'name="_csrf" value="([0-9a-f]+)"|name="csrf-token" content="([0-9a-f]+)"', answer.text
        )
        if found:
            self.csrf = found.group(1) or found.group(2)
        return answer


@dataclass
class House:
    """A running front door."""

    door: FrontDoor
    port: int
    client: httpx2.AsyncClient

    @property
    def settings(self) -> Settings:
        return self.door.settings

    @property
    def database(self) -> Database:
        return self.door.database

    def at(self, host: str) -> Visitor:
        return Visitor(self.client, host, self.port)

    def portal(self, slug: str) -> Visitor:
        return self.at(self.settings.host_of("portal", slug))

    def driver(self, slug: str) -> Visitor:
        return self.at(self.settings.host_of("driver", slug))

    def console(self) -> Visitor:
        return self.at(self.settings.host_of("console"))

    async def staff(self, slug: str, tenant_id: UUID, email: str = OWNER) -> Visitor:
        """Somebody of the team who has just logged in."""
        async with self.database.scope(tenant_id, CLI) as scope:
            member = await identity.find_staff_member(scope, email)
            assert member is not None
            _link, token = await identity.make_login_link(scope, member.id)
        return await self._log_in(self.portal(slug), token)

    async def rider(self, slug: str, tenant_id: UUID, email: str) -> Visitor:
        """A driver who has just logged in: whoever reads that mailbox."""
        async with self.database.scope(tenant_id, CLI) as scope:
            _link, token = await identity.make_driver_link(scope, identity.email_norm(email))
        visitor = await self._log_in(self.driver(slug), token)
        await visitor.open("/account/profile")
        assert visitor.csrf
        return visitor

    async def admin(self, email: str = "ada@platform.example") -> Visitor:
        link = await admins.create_platform_admin(self.database, email)
        return await self._log_in(self.console(), link.rpartition("/")[2])

    async def _log_in(self, visitor: Visitor, token: str) -> Visitor:
        answer = await visitor.send("POST", f"/login/{token}")
        assert answer.status_code == 303, answer.text
        return visitor

    async def api(self, slug: str, tenant_id: UUID, *scopes: str) -> Visitor:
        """A machine with a key of its own."""
        async with self.database.scope(tenant_id, CLI) as scope:
            made = await identity.create_api_key(scope, "test", scopes or ("all",))
        visitor = self.portal(slug)
        visitor.client = httpx2.AsyncClient(
            base_url=self.client.base_url, headers={"Authorization": f"Bearer {made.key}"}, timeout=60
        )
        return visitor


@asynccontextmanager
async def open_house(settings: Settings, database: Database) -> AsyncIterator[House]:
    door = FrontDoor(settings, database=database, redis=database.redis)
    # asyncio sets TCP_NODELAY only where the protocol is named: without it each answer waits 40 ms for an ACK.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            with_static_files(door),
            lifespan="on",
            proxy_headers=False,
            log_config=None,
            timeout_graceful_shutdown=3,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        if server.should_exit:
            raise RuntimeError("the front door did not start")
        await server.on_tick(0)  # the headers that every answer carries
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield House(door, port, client)
        door.live.draining.set()
        await server.shutdown()


async def found_brand(
    database: Database, slug: str = "nordlicht", email: str = OWNER, **changes: str
) -> UUID:
    values = {
        "name": slug.title(),
        "country": "DE",
        "currency": "EUR",
        "time_zone": "Europe/Berlin",
    } | changes
    made = await brands.create_tenant(database, CLI, slug=slug, admin_email=email, **values)
    return made.tenant_id


__all__ = ["CLI", "House", "Scope", "Visitor", "found_brand", "open_house"]
