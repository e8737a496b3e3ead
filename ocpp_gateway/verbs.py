"""Where verbs work: a thread with a loop and a database of its own.

A verb is tens of milliseconds of Python, a hot message a few dozen microseconds. On one loop a station that pours out
its stored starts and stops would hold up the readings of all others; here the interpreter changes over every
`CHANGE_OVER_S` (docs/decisions/0019).
"""

import asyncio
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from app.kernel.settings import Settings
from tenants.database import Database
from tenants.redis import Redis

CHANGE_OVER_S = 0.0005
T = TypeVar("T")


class VerbLoop:
    """`run` from the gateway's own loop; the first call starts the thread."""

    def __init__(self, settings: Settings) -> None:
        self._redis = Redis(settings.redis_url or "")
        self.database = Database(settings, redis=self._redis, pool_size=10)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises. An asker that is canceled cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started()))

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            sys.setswitchinterval(CHANGE_OVER_S)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="verbs", daemon=True)
            self._thread.start()
        return self._loop

    async def close(self) -> None:
        """What is at work has ended by now: each link waited for its own."""
        if self._loop is None or self._thread is None:
            return
        await self.run(self.database.close())
        await self.run(self._redis.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()
