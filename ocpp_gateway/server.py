"""The gateway's process: accepts stations of all brands on one port, and drains when asked to stop."""

import asyncio
import contextlib
import gc
import http
import logging
import os
import random
import signal
import socket as sockets
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

from cryptography import x509
from sqlalchemy import text
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from app.kernel import tracing
from app.kernel.health import serve_health
from app.kernel.settings import Settings
from app.stations.links import LinkHeld
from ocpp_gateway import v16
from ocpp_gateway.codec import MAX_BYTES
from ocpp_gateway.connection import Connection
from ocpp_gateway.flusher import Flusher, Watched
from ocpp_gateway.handshake import (
    VERSIONS,
    Credentials,
    Doorkeeper,
    Presented,
    choose_version,
    read_certificate,
    read_path,
)
from ocpp_gateway.metrics import CONNECTIONS, REFUSED
from ocpp_gateway.presence import Presence
from ocpp_gateway.seam import Seam
from ocpp_gateway.socket import StationSocket
from ocpp_gateway.verbs import VerbProcess, Verbs
from ocpp_gateway.watch import Watch
from tenants.database import Database
from tenants.redis import Redis
from tenants.resolve import StationRoute

log = logging.getLogger("livery.gateway")
OPEN_TIMEOUT_S = 20
BACKLOG = 4096  # what the kernel holds while we are busy: a station that it turns away tries again only seconds later
# Most of what is allocated dies by its last reference or lives as long as its link: the collector need not hurry.
COLLECT = (50_000, 20, 50)
TOUCHED_AT_ONCE = 1000
TOUCH_S, LOOK_AFTER_S, SWEEP_S, LEARN_S, OFFLINE_GRACE_S = 20.0, 5.0, 5.0, 5.0, 3.0
ACCEPT_PER_S, ACCEPT_BURST = 2_000.0, 10_000.0
RETRY_S = (1, 30)
DRAIN_PER_S, DRAIN_S = 500.0, 10.0
CERTIFICATE_HEADERS = ("Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Tls-Client-Cert")
UNAUTHORIZED = b"Unauthorized\n"
# RFC 7692. Nothing is remembered from frame to frame: an idle link costs no window, in either direction.
COMPRESSION = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=12,
    client_max_window_bits=12, compress_settings={"memLevel": 5},
)  # fmt: skip


class Storm:
    """A bucket of handshakes: what a whole fleet sends at once is turned away before it costs a look-up."""

    def __init__(self, per_s: float = ACCEPT_PER_S, burst: float = ACCEPT_BURST) -> None:
        self.per_s, self.burst = per_s, burst
        self._left, self._at = burst, time.monotonic()

    def is_too_much(self) -> bool:
        now = time.monotonic()
        self._left = min(self.burst, self._left + (now - self._at) * self.per_s)
        self._at = now
        if self._left < 1:
            return True
        self._left -= 1
        return False


class Gateway:
    """`verbs`: where they work; in a process of their own, unless the caller's own loop is enough (tests)."""

    def __init__(self, settings: Settings, verbs: type[Verbs] = VerbProcess) -> None:
        self.settings = settings
        self.node = f"{sockets.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        self.redis = Redis(settings.redis_url or "")
        self.database, self.verbs = Database(settings, redis=self.redis), verbs(settings, self.node)
        self.watched = Watched(self.redis)
        self.seam = Seam(self.database, self.verbs, self.node, self.watched)
        self.flusher = Flusher(self.database, self.watched)
        self.presence = Presence(self.redis, self.node, self.seam.retry)
        self.door = Doorkeeper(self.database, settings)
        self.storm = Storm()
        self.watch = Watch(self.database)
        self._draining = asyncio.Event()
        self.tls: ssl.SSLContext | None = None
        self._known_cas: set[str] = set()

    @property
    def is_draining(self) -> bool:
        return self._draining.is_set()

    # -- the handshake ---------------------------------------------------------------------------------------------

    async def knock(self, connection: ServerConnection, request: Request) -> Response | None:
        """websockets' process_request: None lets the upgrade go on."""
        address = read_path(request.path)
        if address is None:
            return _refuse(http.HTTPStatus.NOT_FOUND, b"Not Found\n", "path")
        remote = self._remote(connection, request)
        if self.storm.is_too_much():
            response = _refuse(http.HTTPStatus.SERVICE_UNAVAILABLE, b"Try again\n", "storm")
            response.headers["Retry-After"] = str(random.randint(*RETRY_S))  # noqa: S311 - spreads load
            return response
        if self.door.attempts.are_too_many(address.name, remote):
            if (station := self.door.attempts.turned_away(address.name, remote)) is not None:
                self.watch.note(station, "wrong_key", f"50 attempts from {remote}")
            return _refuse(http.HTTPStatus.TOO_MANY_REQUESTS, b"Too Many Requests\n", "attempts")
        route = await self.door.admit(address, self._credentials(connection, request), remote)
        if route is None:
            response = _refuse(http.HTTPStatus.UNAUTHORIZED, UNAUTHORIZED, "credentials")
            response.headers["WWW-Authenticate"] = 'Basic realm="OCPP"'
            return response
        connection.route, connection.remote = route, remote  # type: ignore[attr-defined]
        if not _asks_for_upgrade(request.headers):  # websockets refuses it; staff learn why
            self.watch.note(route, "handshake", "no Connection: Upgrade header")
        version = choose_version(request.headers.get_all("Sec-WebSocket-Protocol"))
        if version not in (None, v16.SUBPROTOCOL) and not route.attributes.get("no_compression"):
            connection.protocol.available_extensions = [COMPRESSION]
        return None

    def _remote(self, connection: ServerConnection, request: Request) -> str:
        peer = str((connection.remote_address or ("?",))[0])
        forwarded = _only(request.headers, "X-Forwarded-For")
        return (
            forwarded.split(",")[-1].strip() if forwarded and self.settings.is_trusted_proxy(peer) else peer
        )

    def _credentials(self, connection: ServerConnection, request: Request) -> Credentials:
        """Our own TLS knows for itself; a proxy's word, and its certificate header, count only from a trusted peer."""
        authorization = _only(request.headers, "Authorization")
        tls = connection.transport.get_extra_info("ssl_object")
        if tls is not None:
            der = tls.getpeercert(binary_form=True)
            presented = Presented(x509.load_der_x509_certificate(der)) if der else None
            return Credentials(authorization, is_secure=True, presented=presented)
        peer = str((connection.remote_address or ("?",))[0])
        is_secure = self.settings.is_trusted_proxy(peer) and _only(request.headers, "X-Forwarded-Proto") in (
            "https",
            "wss",
        )
        held = next((found for name in CERTIFICATE_HEADERS if (found := _only(request.headers, name))), None)
        return Credentials(authorization, is_secure, read_certificate(held) if is_secure else None)

    def choose(self, connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        version = choose_version([str(one) for one in offered])
        if version is None:
            route: StationRoute = connection.route  # type: ignore[attr-defined]
            if not offered and route.attributes.get("assume_ocpp16"):
                return None
            REFUSED.labels("subprotocol").inc()
            self.watch.note(route, "handshake", f"offers {', '.join(map(str, offered)) or 'no version'}")
            log.info("station %s offers %s: no version in common", route.identity, list(offered))
            raise NegotiationError("no OCPP version in common")
        return Subprotocol(next(str(one) for one in offered if str(one).strip().lower() == version))

    # -- a station's life ------------------------------------------------------------------------------------------

    async def handle(self, socket: ServerConnection) -> None:
        assert isinstance(socket, StationSocket)
        route: StationRoute = socket.route  # type: ignore[attr-defined]
        version = VERSIONS.get(str(socket.subprotocol or v16.SUBPROTOCOL).strip().lower(), v16)
        connection = Connection(
            socket,
            route,
            version,
            self.seam,
            self.flusher,
            self.watch,
            socket.remote,  # type: ignore[attr-defined]
        )
        CONNECTIONS.inc()
        try:
            await self.presence.settled(route)
            await connection.run(self._arrived)
        except Exception:
            log.exception("station %s: the connection failed", route.identity)
        finally:
            CONNECTIONS.dec()
            connection.over.set()  # all it heard is written: who comes back need not wait for the rest
            await self.presence.left(connection)
            if socket.close_code == 1006:  # a network that hiccups is normal: it may be back at once
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(OFFLINE_GRACE_S):
                        await self._draining.wait()
            try:
                await self.seam.closed(route, connection.epoch, connection.close_reason or "closed")
            except Exception:
                log.exception("station %s: its link's end could not be written", route.identity)

    async def _arrived(self, connection: Connection) -> None:
        await self.presence.arrived(connection)
        if self.is_draining:  # it was let in just before
            self._leaving = asyncio.create_task(connection.drain())

    async def touch(self) -> None:
        """Last seen, in batches: never a write per heartbeat."""
        while True:
            await asyncio.sleep(TOUCH_S)
            await self.touch_once()

    async def touch_once(self) -> None:
        for held in self._in_parts():
            try:
                for one in await self.seam.hold(held):
                    if self._epoch_here(one.tenant_id, one.station_id) == one.epoch:
                        await self.presence.superseded(one.tenant_id, one.station_id)
            except Exception as error:
                log.warning("who is here could not be written: %s", error)

    def _in_parts(self) -> Iterator[list[LinkHeld]]:
        """What is held here, some at a time."""
        held = [
            LinkHeld(tenant_id, station_id, one.epoch, one.seen_us)
            for (tenant_id, station_id), one in self.presence.here.items()
        ]
        yield from (held[n : n + TOUCHED_AT_ONCE] for n in range(0, len(held), TOUCHED_AT_ONCE))

    def _epoch_here(self, tenant_id: UUID, station_id: UUID) -> int | None:
        connection = self.presence.here.get((tenant_id, station_id))
        return connection.epoch if connection else None

    async def look_after(self) -> None:
        """Pings the silent ones. One task for all of them: an idle station costs none."""
        while True:
            await asyncio.sleep(LOOK_AFTER_S)
            for number, connection in enumerate(list(self.presence.here.values())):
                connection.look_after()
                if number % 500 == 499:
                    await asyncio.sleep(0)

    async def sweep(self) -> None:
        """Commands whose wake-up was lost with Redis: what waits for a station here is found in the database."""
        while True:
            await asyncio.sleep(SWEEP_S)
            tenants = sorted({tenant_id for tenant_id, _ in self.presence.here})
            try:
                waiting = await self.seam.find_waiting(tenants)
            except Exception as error:
                log.warning("waiting commands could not be looked for: %s", error)
                continue
            for key in waiting:
                if (connection := self.presence.here.get(key)) is not None:
                    connection.wake()

    async def is_ready(self) -> dict[str, bool]:
        try:
            async with asyncio.timeout(2), self.database.anonymous() as db:
                database = (await db.execute(text("select 1"))).scalar_one() == 1
        except Exception:
            database = False
        return {
            "database": database, "redis": await self.redis.ping(), "verbs": self.verbs.is_up,
            "accepting": not self.is_draining,
        }  # fmt: skip

    # -- the process -----------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        faults = await self.database.check_fitness()
        if faults:
            raise SystemExit("refusing to start: " + "; ".join(faults))
        await self.seam.ensure_days()
        await self._start_verbs(stop)
        gc.collect()
        gc.freeze()  # what is there by now stays: the collector need not look at it again
        gc.set_threshold(*COLLECT)
        background = [asyncio.create_task(one) for one in (
            self.presence.hold_lease(), self.presence.listen(), self.touch(), self.look_after(), self.sweep(),
            self.watched.run(), *self.flusher.tasks(),
        )]  # fmt: skip
        health = None
        if self.settings.health_port:
            health = await serve_health(self.settings.host, self.settings.health_port, self.is_ready)
        servers = [await self._listen(self.settings.ocpp_port, None)]
        if self.settings.ocpp_tls_port:
            self.tls = self._tls()
            await self.learn_cas()
            background.append(asyncio.create_task(self.keep_learning()))
            servers.append(await self._listen(self.settings.ocpp_tls_port, self.tls))
        await stop.wait()
        await self._drain(servers)
        await _end(background)
        await self.presence.give_up_lease()
        if health is not None:
            health.close()
        await self.verbs.close()
        await self.database.close()
        await self.redis.close()

    async def _start_verbs(self, stop: asyncio.Event) -> None:
        """Before the first link; whoever wants us to stop need not wait for them."""
        tasks = [asyncio.create_task(self.verbs.start()), asyncio.create_task(stop.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    async def _listen(self, port: int, tls: ssl.SSLContext | None) -> Server:
        return await serve_websockets(
            self.handle, self.settings.host, port, ssl=tls, process_request=self.knock, select_subprotocol=self.choose,
            compression=None, create_connection=StationSocket,
            open_timeout=OPEN_TIMEOUT_S, ping_interval=None, close_timeout=3, max_size=MAX_BYTES,
            backlog=BACKLOG, server_header=None, logger=logging.getLogger("livery.gateway.websockets"),
        )  # fmt: skip

    def _tls(self) -> ssl.SSLContext:
        """A client certificate is asked for and not demanded: profiles 1 and 2 have none. One that leads to no CA we
        know ends the handshake; whose station it is the door finds out."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        assert self.settings.ocpp_tls_cert and self.settings.ocpp_tls_key
        context.load_cert_chain(self.settings.ocpp_tls_cert, self.settings.ocpp_tls_key)
        if self.settings.ocpp_tls_client_ca:
            context.load_verify_locations(self.settings.ocpp_tls_client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    async def learn_cas(self) -> None:
        """The brands' own CAs, those made since the last look: a context in use takes more of them at any time."""
        if self.tls is None:
            return
        async with self.database.anonymous() as db:
            rows = (
                await db.execute(text("select fingerprint, certificate from platform.station_cas()"))
            ).all()
        for fingerprint, certificate in rows:
            if fingerprint not in self._known_cas:
                self.tls.load_verify_locations(cadata=certificate)
                self.tls.verify_mode = ssl.CERT_OPTIONAL
                self._known_cas.add(fingerprint)

    async def keep_learning(self) -> None:
        while True:
            await asyncio.sleep(LEARN_S)
            with contextlib.suppress(Exception):
                await self.learn_cas()

    async def _drain(self, servers: list[Server]) -> None:
        """Nobody new; what was taken is answered; then each station is told 1012 and goes elsewhere, one by one over
        a few seconds: what takes them in shall not meet them all at once."""
        self._draining.set()
        for server in servers:
            server.close(close_connections=False)
        held = list(self.presence.here.values())
        window = min(DRAIN_S, len(held) / DRAIN_PER_S)

        async def leave(connection: Connection) -> None:
            await asyncio.sleep(random.uniform(0, window))  # noqa: S311 - spreads load
            await connection.drain()

        await asyncio.gather(*(leave(one) for one in held), return_exceptions=True)
        for server in servers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await server.wait_closed()


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Asked more than once: a client that is just connecting to Redis swallows it. Who is away holds nothing up."""
    pending = set(tasks)
    for _ in range(10):
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)
        if not pending:
            return


def _refuse(status: http.HTTPStatus, body: bytes, reason: str) -> Response:
    REFUSED.labels(reason).inc()
    headers = Headers({"Content-Type": "text/plain", "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)


def _asks_for_upgrade(headers: Headers) -> bool:
    said = {word.strip().lower() for value in headers.get_all("Connection") for word in value.split(",")}
    return "upgrade" in said


def _only(headers: Headers, name: str) -> str | None:
    """Exactly one header of that name, or none at all."""
    values = headers.get_all(name)
    return values[0] if len(values) == 1 else None


def serve(settings: Settings) -> int:
    """`livery gateway`: until SIGTERM or Ctrl-C. 0 after a clean drain."""
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    tracing.set_up("livery-gateway", endpoint=settings.otel_endpoint)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await Gateway(settings).run(stop)
    return 0
