"""What is live: one Redis connection per process, one queue per listener.

A listener that is too slow loses the oldest messages, never the newest; after a break of the connection it is told so
(`GAP`) and starts again from a snapshot. So a lost message cannot lie.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import UUID

from tenants.redis import Redis, RedisError, channel

BACKLOG = 64
GAP: dict[str, Any] = {"what": "gap"}
_PAUSE_S = 1
_CONFIRMED_S = 2


class Listener:
    def __init__(self) -> None:
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=BACKLOG)
        self._news = asyncio.Event()

    def put(self, topic: str, message: dict[str, Any]) -> None:
        self._waiting.append((topic, message))
        self._news.set()

    async def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Waits for news, then gives all there is, oldest first."""
        await self._news.wait()
        self._news.clear()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class Live:
    """`draining` is set on SIGTERM: every open stream then ends by itself, before the server waits for it."""

    def __init__(self, redis: Redis | None) -> None:
        self._redis = redis
        self._pubsub: Any = None
        self._listeners: dict[str, list[tuple[str, Listener]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        # One command at a time: two first ones at once would open two connections, and the reader hears one of them.
        self._asking = asyncio.Lock()
        self._confirmed: dict[str, asyncio.Event] = {}
        self.draining = asyncio.Event()

    async def __aenter__(self) -> "Live":
        if self._redis is not None:
            self._pubsub = self._redis.pubsub()
            self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.draining.set()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            await self._pubsub.aclose()

    def most_listeners(self, tenant_id: UUID, topics: Iterable[str]) -> int:
        """To that of these topics which has most."""
        return max(len(self._listeners.get(channel(tenant_id, topic), ())) for topic in topics)

    @contextlib.asynccontextmanager
    async def listen(self, tenant_id: UUID, topics: Iterable[str]) -> AsyncIterator[Listener]:
        """Subscribed before the block begins, so that a snapshot taken inside it misses nothing."""
        listener = Listener()
        names = {channel(tenant_id, topic): topic for topic in topics}
        new = [name for name in names if name not in self._listeners]
        for name, topic in names.items():
            self._listeners.setdefault(name, []).append((topic, listener))
        try:
            if new:
                await self._subscribe(new)
            await self._all_confirmed(names)
            yield listener
        finally:
            gone = []
            for name, topic in names.items():
                self._listeners[name].remove((topic, listener))
                if not self._listeners[name]:
                    del self._listeners[name]
                    gone.append(name)
            if gone:
                await self._unsubscribe(gone)

    async def _subscribe(self, names: list[str]) -> None:
        if self._pubsub is None:
            return
        for name in names:
            self._confirmed[name] = asyncio.Event()
        async with self._asking:
            with contextlib.suppress(
                RedisError
            ):  # the reader notices too, and subscribes to everything again
                await self._pubsub.subscribe(*names)
        self._wanted.set()

    async def _all_confirmed(self, names: Iterable[str]) -> None:
        """Until Redis says that it delivers: what is published from then on is heard. While it is away nobody waits."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONFIRMED_S):
                for name in names:
                    if name in self._confirmed:
                        await self._confirmed[name].wait()

    async def _unsubscribe(self, names: list[str]) -> None:
        """Those that nobody has asked for again meanwhile."""
        if self._pubsub is None:
            return
        async with self._asking:
            gone = [name for name in names if name not in self._listeners]
            for name in gone:
                self._confirmed.pop(name, None)
            if gone:
                with contextlib.suppress(RedisError):
                    await self._pubsub.unsubscribe(*gone)

    async def _read(self) -> None:
        while True:
            await self._wanted.wait()
            if self._pubsub.connection is None:  # nothing was ever subscribed on it: Redis was away just then
                if self._listeners:
                    await self._again()
                else:
                    self._wanted.clear()
                continue
            try:
                message = await self._pubsub.get_message(timeout=1)
            except RedisError:
                await self._again()
                continue
            if message is not None and message["type"] == "subscribe":
                if (confirmed := self._confirmed.get(message["channel"].decode())) is not None:
                    confirmed.set()
            elif message is not None and message["type"] == "message":
                self._hand_out(message["channel"].decode(), message["data"])
            elif message is None and not self._listeners:
                self._wanted.clear()

    async def _again(self) -> None:
        """Redis was away: subscribe anew, and let every listener look for itself what it missed."""
        assert self._redis is not None
        while True:
            await asyncio.sleep(_PAUSE_S)
            with contextlib.suppress(RedisError):
                await self._pubsub.aclose()
            self._pubsub = self._redis.pubsub()
            names = list(self._listeners)
            with contextlib.suppress(RedisError):
                if names:
                    await self._pubsub.subscribe(*names)
                break
        for listeners in self._listeners.values():
            for topic, listener in listeners:
                listener.put(topic, GAP)

    def _hand_out(self, name: str, data: bytes) -> None:
        message = json.loads(data)
        for topic, listener in self._listeners.get(name, ()):
            listener.put(topic, message)
