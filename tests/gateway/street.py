"""One gateway for a whole module of tests, and as many stations before it as they need, spoken to frame by frame.

Timeouts are short here, so that what happens after them is seen in a test's time.
"""

import asyncio
import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from redis import Redis as BlockingRedis
from sqlalchemy import select
from websockets.asyncio.client import ClientConnection, connect

from app.stations import commands
from app.stations import service as stations
from app.stations.models import StationCommand
from ocpp_gateway import connection as connection_module
from ocpp_gateway import server as server_module
from ocpp_gateway import socket as socket_module
from tenants.database import Database
from tenants.redis import Redis
from tests.cast import PLATES, STAFF, Cast
from tests.conftest import Databases, load_settings, settings_environment
from tests.gateway.conftest import Yard, opened

REQUEST_S, CALL_TIMEOUT_S = 1.0, 1.2
Answer = dict[str, Any] | Callable[[dict[str, Any]], Any] | None


@dataclass
class Link:
    """A socket of a station. `asked` are the CALLs that came; `answers` what is said to them, None for silence."""

    box: "Box"
    socket: ClientConnection
    version: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    asked_ids: list[str] = field(default_factory=list)
    replies: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    reader: "asyncio.Task[None] | None" = None

    async def read(self) -> None:
        with contextlib.suppress(Exception):
            async for raw in self.socket:
                frame = json.loads(raw)
                if frame[0] == 2:
                    self.asked.append((frame[2], frame[3]))
                    self.asked_ids.append(frame[1])
                    await self._react(frame)
                else:
                    await self.replies.put(frame)
        self.closed.set()

    async def _react(self, frame: Any) -> None:
        answer = self.answers.get(frame[2], [4, frame[1], "NotSupported", "", {}])
        if callable(answer):
            answer = answer(frame[3])
        if isinstance(answer, dict):
            answer = [3, frame[1], answer]
        if answer is not None:
            await self.socket.send(json.dumps(answer))

    async def send(self, frame: Any) -> None:
        await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def reply(self, timeout_s: float = 5) -> Any:
        return await asyncio.wait_for(self.replies.get(), timeout_s)

    async def ask(self, frame: Any, timeout_s: float = 5) -> Any:
        await self.send(frame)
        return await self.reply(timeout_s)

    async def call(self, action: Any, payload: Any, message_id: Any = None) -> Any:
        return await self.ask([2, message_id or uuid.uuid4().hex, action, payload])

    async def tell(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload of a CALLRESULT; anything else fails the test."""
        kind, _, answer, *_ = await self.call(action, payload)
        assert kind == 3, answer
        return answer

    async def boot(self, vendor: str = "V", model: str = "M") -> Any:
        if self.version == "ocpp1.6":
            payload: dict[str, Any] = {"chargePointModel": model, "chargePointVendor": vendor}
        else:
            payload = {"reason": "PowerUp", "chargingStation": {"model": model, "vendorName": vendor}}
        return await self.call("BootNotification", payload)

    async def is_alive(self) -> bool:
        """Whatever was said before may have been answered before."""
        beat = uuid.uuid4().hex
        answer = await self.ask([2, beat, "Heartbeat", {}])
        while answer[1] != beat:
            answer = await self.reply()
        return answer[0] == 3

    async def ends(self, timeout_s: float = 5) -> int | None:
        """The code it was closed with, by the other side."""
        await asyncio.wait_for(self.closed.wait(), timeout_s)
        await asyncio.wait_for(self.socket.wait_closed(), timeout_s)
        return self.socket.close_code

    async def close(self) -> None:
        await self.socket.close()
        if self.reader is not None:
            await asyncio.wait([self.reader], timeout=2)

    def cut(self) -> None:
        """The network is gone: no close frame."""
        self.socket.transport.abort()


@dataclass
class Box:
    """A station of Nordlicht with two EVSEs that nobody has used before."""

    street: "Street"
    identity: str
    station_id: UUID
    password: str
    evse_ids: list[UUID]
    card: str
    links: list[Link] = field(default_factory=list)

    def basic(self, user: str | bytes | None = None, password: str | bytes | None = None) -> str:
        def raw(value: str | bytes) -> bytes:
            return value.encode() if isinstance(value, str) else value

        user, password = user or self.identity, password or self.password
        return "Basic " + base64.b64encode(raw(user) + b":" + raw(password)).decode()

    async def dial(
        self, version: str | None = "ocpp1.6", *, path: str | None = None, authorization: str | None = "",
        compression: str | None = None, headers: dict[str, str] | None = None, port: int | None = None,
    ) -> Link:  # fmt: skip
        """The handshake; InvalidStatus when it is refused."""
        if authorization == "":
            authorization = self.basic()
        said = {"Authorization": authorization} if authorization else {}
        port = port or self.street.yard.port
        socket = await connect(
            f"ws://localhost:{port}/{path or f'nordlicht/{self.identity}'}", host="127.0.0.1", port=port,
            subprotocols=[version] if version else None,  # type: ignore[list-item]
            additional_headers=said | (headers or {}), compression=compression, max_size=None, ping_interval=None,
        )  # fmt: skip
        link = Link(self, socket, version or "ocpp1.6")
        link.reader = asyncio.create_task(link.read())
        self.links.append(link)
        return link

    async def online(self, version: str = "ocpp1.6", **more: Any) -> Link:
        link = await self.dial(version, **more)
        assert (await link.boot())[2]["status"] == "Accepted"
        return link

    async def rows(self, model: Any, *where: Any) -> list[Any]:
        """Those of this station."""
        if hasattr(model, "station_id"):
            where = (model.station_id == self.station_id, *where)
        return await self.street.rows(model, *where)

    async def command(self, action: str, payload: dict[str, Any], timeout_s: float = 8) -> StationCommand:
        """Sent by staff as REST and portal do; returned when it has ended."""
        async with self.street.scope() as scope:
            made = await commands.send_command(scope, self.station_id, action, payload)
            wanted = StationCommand.id == made.id

        async def ended() -> StationCommand | None:
            (row,) = await self.street.rows(StationCommand, wanted)
            return row if row.status not in ("queued", "sent") else None

        return await self.street.until(ended, timeout_s)


@dataclass
class Street:
    yard: Yard
    count: int = 0
    boxes: list[Box] = field(default_factory=list)

    @property
    def nordlicht(self) -> Cast:
        return self.yard.nordlicht

    def scope(self, cast: Cast | None = None, actor: Any = STAFF) -> Any:
        return self.yard.database.scope((cast or self.nordlicht).tenant_id, actor)

    async def box(self, identity: str | None = None, **settings: Any) -> Box:
        """`settings` as `update_station` takes them."""
        self.count += 1
        identity = identity or f"BOX-{self.count}"
        async with self.scope() as scope:
            plate = {"connectors": [{"connector_no": 1, **PLATES["ac22"]}]}
            new = await stations.create_station(
                scope, identity=identity, location_id=self.nordlicht.location_id,
                evses=[{"evse_no": number, **plate} for number in (1, 2)],
            )  # fmt: skip
            if settings:
                await stations.update_station(scope, new.station.id, **settings)
            evses = (await stations.get_station(scope, new.station.id)).evses
        made = Box(
            self,
            identity,
            new.station.id,
            new.password or "",
            [evse.id for evse in evses],
            self.nordlicht.card,
        )
        self.boxes.append(made)
        return made

    async def rows(self, model: Any, *where: Any) -> list[Any]:
        async with self.scope() as scope:
            return list((await scope.db.execute(select(model).where(*where))).scalars())

    async def until(self, look: Any, timeout_s: float = 8) -> Any:
        async with asyncio.timeout(timeout_s):
            while not (found := await look()):  # noqa: ASYNC110 - the database tells nobody when a row changes
                await asyncio.sleep(0.03)
        return found


@contextlib.asynccontextmanager
async def built(databases: Databases, redis_url: str) -> AsyncIterator[Street]:
    with databases.copy() as urls, pytest.MonkeyPatch.context() as patch:
        with BlockingRedis.from_url(redis_url) as client:
            client.flushall()
        patch.setattr(socket_module, "REQUEST_S", REQUEST_S)
        patch.setattr(server_module, "LOOK_AFTER_S", 0.1)
        patch.setattr(connection_module, "CALL_TIMEOUT_S", CALL_TIMEOUT_S)
        settings = load_settings(settings_environment(urls, redis_url))
        redis = Redis(redis_url)
        database = Database(settings, redis=redis)
        async with opened(settings, database) as yard:
            yield Street(yard)
        await database.close()
        await redis.close()


@pytest.fixture(scope="module")
async def street(databases: Databases, servers: Any) -> AsyncIterator[Street]:
    async with built(databases, servers.urls["REDIS_URL"]) as made:
        yield made


@pytest.fixture
async def box(street: Street) -> AsyncIterator[Box]:
    """A station of this test's own; the links of every station the test used are closed behind it."""
    yield await street.box()
    for one in street.boxes:
        for link in one.links:
            await link.close()
        one.links.clear()
    street.boxes.clear()
