"""Where verbs work: a process of their own, with a loop and a database of its own.

A verb is tens of milliseconds of Python, a hot message a few dozen microseconds. In one process a station that pours
out its stored starts and stops holds up the readings of all others (docs/decisions/0021). What a verb needs are values,
what it gives back is one too: they go over a pair of sockets, and the process is nobody's but its gateway's.
"""

import asyncio
import contextlib
import copyreg
import gc
import importlib
import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any, Concatenate, ParamSpec, TypeVar

from app.kernel import tracing
from app.kernel.settings import Settings
from ocpp_gateway.aside import Aside, DatabaseAway
from ocpp_gateway.handshake import VERSIONS
from tenants.database import Database
from tenants.redis import Redis

log = logging.getLogger("livery.gateway")
POOL_SIZE = 10
AGAIN_S, READY_S = 0.5, 60.0
# A process that works answers between two verbs. One that does not, for this many, hangs.
PING_S, MOST_UNANSWERED, PING = 5.0, 3, (0, None, (), {}, None)
LENGTH = 4
NICE = 10  # where processors are scarce, readings go first
P = ParamSpec("P")
T = TypeVar("T")
Verb = Callable[Concatenate[Aside, P], Coroutine[Any, Any, T]]
# From where this very code came: not from the directory that happens to be the current one.
BEGIN = "import sys; sys.path[:] = {path!r}; from ocpp_gateway.verbs import main; main({descriptor})"
# The OCPP versions are modules: they go by their name.
copyreg.pickle(ModuleType, lambda module: (importlib.import_module, (module.__name__,)))


class Verbs:
    """On the loop of who asks: in tests, and in the process itself."""

    def __init__(self, settings: Settings, node: str) -> None:
        self.settings, self.node = settings, node
        self._redis = Redis(settings.redis_url or "")
        self._database = Database(settings, redis=self._redis, pool_size=POOL_SIZE)
        self._aside = Aside(self._database, node, VERSIONS)

    @property
    def is_up(self) -> bool:
        return True

    async def start(self) -> None:
        """Before the first link."""

    async def run(
        self, verb: Callable[Concatenate[Aside, P], Coroutine[Any, Any, T]], *args: P.args, **more: P.kwargs
    ) -> T:
        """What it returns or raises. An asker that is canceled cancels it."""
        return await verb(self._aside, *args, **more)

    async def close(self) -> None:
        """What is at work has ended by now: each link waited for its own."""
        await self._database.close()
        await self._redis.close()


class VerbProcess(Verbs):
    """In another process, which is started anew when it dies, or hangs and is killed. Whoever it worked for then gets
    DatabaseAway: nobody knows what was written, and the station asks again."""

    def __init__(self, settings: Settings, node: str) -> None:
        super().__init__(settings, node)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._last = self._unanswered = 0
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        return self._is_up.is_set() and self._unanswered < 2

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        self._keeping = asyncio.create_task(self._keep())
        await self._is_up.wait()

    async def run(
        self, verb: Callable[Concatenate[Aside, P], Coroutine[Any, Any, T]], *args: P.args, **more: P.kwargs
    ) -> T:
        while self._writer is None or not self._is_up.is_set():
            if self._is_closed:
                raise DatabaseAway("the verbs' process has ended")
            await self._is_up.wait()
        self._last += 1
        number, future = self._last, asyncio.get_running_loop().create_future()
        try:
            self._asked[number] = future
            _send(self._writer, (number, verb.__name__, args, more, tracing.carried().get("traceparent")))
            return await future
        except asyncio.CancelledError:
            if number in self._asked and self._writer is not None:
                _send(self._writer, (number, None, (), {}, None))
            raise
        finally:
            self._asked.pop(number, None)

    async def _keep(self) -> None:
        while True:
            try:
                await self._live()
            except Exception:  # whatever it was: without a process no verb is done
                log.exception("the verbs' process could not be kept")
            await asyncio.sleep(AGAIN_S)

    async def _live(self) -> None:
        """One process, from its start to its end."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-c", BEGIN.format(path=sys.path, descriptor=theirs.fileno()),
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        reader, self._writer = await asyncio.open_connection(sock=ours)
        pinging = None
        try:
            _send(self._writer, (self.settings, self.node))
            async with asyncio.timeout(READY_S):
                await receive(reader)  # it is ready
            self._unanswered = 0
            self._is_up.set()
            pinging = asyncio.create_task(self._ping(self._process, self._writer))
            while True:
                number, is_good, answer = await receive(reader)
                self._unanswered = 0
                future = self._asked.pop(number, None)
                if future is None or future.done():
                    continue
                (future.set_result if is_good else future.set_exception)(answer)
        except (EOFError, ConnectionError):
            log.error("the verbs' process has died, and starts anew")
        finally:
            self._is_up.clear()
            if pinging is not None:
                pinging.cancel()
            self._writer.close()
            self._writer = None
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(DatabaseAway("the verbs' process has died"))
            self._asked.clear()
            await _end(self._process)

    async def _ping(self, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
        """Counted, not timed: where we ourselves stood still, its answers lie here."""
        while self._unanswered < MOST_UNANSWERED:
            _send(writer, PING)
            self._unanswered += 1
            await asyncio.sleep(PING_S)
        log.error("the verbs' process does not answer, and is killed")
        _kill(process)

    async def close(self) -> None:
        self._is_closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        self._is_up.set()  # who waits for a process learns that there will be none
        await super().close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends by itself when nobody is at the other end."""
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        _kill(process)
        await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _send(writer: asyncio.StreamWriter, value: Any) -> None:
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    writer.write(len(body).to_bytes(LENGTH, "big") + body)


async def receive(reader: asyncio.StreamReader) -> Any:
    """EOFError when the other end has gone."""
    try:
        length = int.from_bytes(await reader.readexactly(LENGTH), "big")
        return pickle.loads(await reader.readexactly(length))  # noqa: S301 - our own process, over a pair of sockets
    except asyncio.IncompleteReadError as error:
        raise EOFError from error


async def work(descriptor: int) -> None:
    """The process's whole life: what is asked is done, each thing by itself, until the asker has gone."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    settings, node = await receive(reader)
    tracing.set_up("livery-gateway", endpoint=settings.otel_endpoint)
    verbs = Verbs(settings, node)
    at_work: dict[int, asyncio.Task[None]] = {}

    async def do(number: int, name: str, args: Any, more: Any, parent: str | None) -> None:
        try:
            with tracing.span("aside", parent=parent):
                _send(writer, (number, True, await verbs.run(getattr(Aside, name), *args, **more)))
        except BaseException as error:  # also where it was canceled: whoever asked has an answer
            _send(writer, (number, False, _sendable(error)))

    _send(writer, "ready")
    try:
        while True:
            number, name, args, more, parent = await receive(reader)
            if name is not None:
                task = at_work[number] = asyncio.create_task(do(number, name, args, more, parent))
                task.add_done_callback(lambda _, number=number: at_work.pop(number, None))
            elif number == PING[0]:
                _send(writer, (number, True, None))
            elif (task := at_work.get(number)) is not None:
                task.cancel()
    except (EOFError, ConnectionError):
        left = list(at_work.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    finally:
        await verbs.close()


def _sendable(error: BaseException) -> Exception:
    try:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what we wrote just now
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return again if isinstance(again, Exception) else RuntimeError(repr(error))


def main(descriptor: int) -> None:
    """The process."""
    # Its gateway decides when it ends, also where a signal goes to both.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # not everywhere may a process say so
        os.nice(NICE)
    gc.collect()
    gc.freeze()
    asyncio.run(work(descriptor))
