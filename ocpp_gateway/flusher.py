"""Durable, in batches: hot messages wait here for the next commit, and are answered by its callback.

A station has one message here at a time, so that no two commits wait for each other's rows. There is no timer: a batch
forms while those before it commit. The queue is bounded by the stations: each has one CALL in work, and behind
it the reading stops. A batch that fails is tried again by tenant, then by message: only the culprit is left, for the
ordinary verb, which can tell and park it.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from app.charging.ingest import HotReadings, Written, news_of_reading, write_readings
from app.kernel.tracing import span
from ocpp_gateway.metrics import BATCH, FLUSH_S, PENDING
from tenants.database import BatchConnection, BatchError, Database
from tenants.redis import Redis

log = logging.getLogger("livery.gateway")
LANES = 2
ENOUGH, MOST = 250, 1000  # messages: a batch takes no further tenant, no further message of one
MANY, HELP_S = 32, 0.05  # messages that call for another lane, and how long fewer wait for it
PATIENCE_S = 40.0  # a database that restarts is waited for; the stations wait with us
PAUSE_S = 0.25
COLD = Written(None, 0, True)

Done = Callable[[HotReadings, Written | None], None]
Work = tuple[HotReadings, Done]
Topics = list[tuple[str, dict[str, Any]]]


class News(NamedTuple):
    """What may be told after a commit; `topics` is asked only where somebody of the tenant listens."""

    tenant_id: UUID
    topics: Callable[[], Topics]


ToldOf = Callable[[], Iterable[News]]  # asked only where anybody listens
Tell = Callable[[ToldOf], None]


def passes(sqlstate: str | None) -> bool:
    """Whether it is worth trying again: the server is away, starting, or two transactions met."""
    return not sqlstate or sqlstate[:2] in ("08", "53", "57") or sqlstate in ("40001", "40P01", "55P03")


class Waiting:
    """What the next commits take, by tenant: each tenant in a batch costs as much as three messages, so all that wait
    of one go together, and so does what their stations say next. Who waits longest is first."""

    def __init__(self) -> None:
        self._tenants: dict[UUID, deque[Work]] = {}
        self._count = 0
        self._some, self._many = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        return self._count

    def put(self, work: Work) -> None:
        self._tenants.setdefault(work[0].tenant_id, deque()).append(work)
        self._counted(1)

    def put_back(self, works: Iterable[Work]) -> None:
        """In front of all others, in their order."""
        others = self.drop_before(None)
        for work in (*works, *others):
            self.put(work)

    async def take(self, *, helps: bool) -> list[Work]:
        """Whole tenants until it is enough; of a station that stands here twice (two links of it overlap) only the
        first. Who `helps` leaves few to the others: two small commits cost twice what one costs. But whoever waits
        while theirs waits for a row is not forgotten."""
        if helps:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HELP_S):
                    await self._many.wait()
        else:
            await self._some.wait()
        taken: list[Work] = []
        again: list[Work] = []
        while self._tenants and len(taken) < ENOUGH:
            tenant_id, works = next(iter(self._tenants.items()))
            stations = set[str]()
            while works and len(taken) < MOST:
                work = works.popleft()
                (again if work[0].station_id in stations else taken).append(work)
                stations.add(work[0].station_id)
            if not works:
                del self._tenants[tenant_id]
        self._counted(-len(taken) - len(again))
        for work in again:
            self.put(work)
        return taken

    def drop_before(self, received_us: int | None) -> list[Work]:
        """What was received before then, or all."""
        everything = [work for works in self._tenants.values() for work in works]
        self._tenants.clear()
        self._counted(-len(everything))
        dropped: list[Work] = []
        for work in everything:
            if received_us is None or work[0].received_us < received_us:
                dropped.append(work)
            else:
                self.put(work)
        return dropped

    def _counted(self, more: int) -> None:
        self._count += more
        for event, least in ((self._some, 1), (self._many, MANY)):
            if self._count < least:
                event.clear()
            elif not event.is_set():
                event.set()


class Lane:
    """One connection to the database and its commits."""

    def __init__(self, database: Database, waiting: Waiting, tell: Tell, *, helps: bool = False) -> None:
        self.database, self.waiting, self._tell, self._helps = database, waiting, tell, helps

    async def run(self) -> None:
        while True:
            try:
                async with self.database.batch() as connection:
                    while True:
                        await self._flush(connection, await self.waiting.take(helps=self._helps))
            except (BatchError, OSError) as error:
                log.warning("the batched ingest lost its database: %s", error)
            except Exception:
                log.exception("the batched ingest failed")
            await asyncio.sleep(PAUSE_S)
            self._give_up_late()

    async def _flush(self, connection: BatchConnection, works: list[Work]) -> None:
        """Each message is answered once, when it is committed. Where the database goes away in the middle, what was
        not answered yet goes back to the head of the queue."""
        parts = [works] if works else []
        while parts:
            part = parts.pop(0)
            try:
                written = await self._write(connection, part)
            except BatchError as error:
                if passes(error.sqlstate):
                    self.waiting.put_back([work for left in [part, *parts] for work in left])
                    raise
                parts = [*_apart(part, error), *parts]
                continue
            self._tell(partial(_news, part, written))
            for (message, done), one in zip(part, written, strict=True):
                done(message, one)

    async def _write(self, connection: BatchConnection, part: list[Work]) -> list[Written]:
        """In one commit; tried again at once where it met another transaction."""
        batch, started = [message for message, _ in part], time.perf_counter()
        try:
            with span("ingest", messages=len(part)):
                return await write_readings(connection, batch)
        except BatchError as error:
            if (error.sqlstate or "")[:2] != "40":
                raise
            return await write_readings(connection, batch)
        finally:
            BATCH.observe(len(part))
            FLUSH_S.observe(time.perf_counter() - started)

    def _give_up_late(self) -> None:
        """None tells a link that the database did not come back in time: it closes, and the station sends again."""
        late = time.time_ns() // 1000 - int(PATIENCE_S * 1e6)
        for message, done in self.waiting.drop_before(late):
            done(message, None)


def _apart(part: list[Work], error: BatchError) -> list[list[Work]]:
    """A part that cannot be written: by tenant, then by message. One that stands alone is left to its verb."""
    if len(part) == 1:
        message, done = part[0]
        log.warning("a message of station %s failed in its batch: %s", message.station_id, error)
        done(message, COLD)
        return []
    tenants: dict[UUID, list[Work]] = {}
    for work in part:
        tenants.setdefault(work[0].tenant_id, []).append(work)
    return list(tenants.values()) if len(tenants) > 1 else [[work] for work in part]


def _news(part: Sequence[Work], written: Sequence[Written]) -> Iterator[News]:
    for (message, _), one in zip(part, written, strict=True):
        if not one.is_cold:
            yield News(message.tenant_id, partial(_topics, message, one))


def _topics(message: HotReadings, one: Written) -> Topics:
    return [
        *news_of_reading(message.station_id, one.evse_no, one.session_id),
        (f"station:{message.station_id}:log", {"count": 2}),
    ]


class Flusher:
    def __init__(self, database: Database, watched: "Watched", lanes: int = LANES) -> None:
        self.waiting = Waiting()
        self.lanes = [Lane(database, self.waiting, watched.tell, helps=n > 0) for n in range(lanes)]
        PENDING.set_function(lambda: len(self.waiting))

    def put(self, message: HotReadings, done: Done) -> None:
        self.waiting.put((message, done))

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        return [lane.run() for lane in self.lanes]


class Watched:
    """Who looks? What nobody listens to is not published: a fleet's readings would drown Redis for no page.

    Who listens is asked every `EVERY_S`. A page that opened since then has its snapshot, and the readings that came
    between that and the next asking are told to it then: none is missed, some are told twice.
    """

    EVERY_S = 0.25
    KEPT = 1000  # commits

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._topics: frozenset[str] = frozenset()
        self._tenants: frozenset[UUID] = frozenset()
        self._since: deque[ToldOf] = deque(maxlen=self.KEPT)
        self._publishing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self.EVERY_S)

    async def look(self) -> None:
        before, found = self._topics, (frozenset[str](), frozenset[UUID]())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                found = await self.redis.list_listened()
        # Only now: what was told while we asked was told to those we knew before.
        since = list(self._since)
        self._since.clear()
        self._topics, self._tenants = found
        self._tell(since, self._topics - before)

    def tell(self, told: ToldOf) -> None:
        self._since.append(told)
        self._tell([told], self._topics)

    def _tell(self, told: Sequence[ToldOf], listened: frozenset[str]) -> None:
        """What a topic is told twice in one commit, it is told once."""
        if not listened:
            return
        said: dict[tuple[str, str], tuple[UUID, str, dict[str, Any]]] = {}
        for news in (one for of in told for one in of()):
            if news.tenant_id in self._tenants:
                for topic, payload in news.topics():
                    name = self.redis.channel_name(news.tenant_id, topic)
                    if name in listened:
                        said[name, str(payload)] = (news.tenant_id, topic, payload)
        if said:
            task = asyncio.create_task(self._publish(list(said.values())))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def _publish(self, news: list[tuple[UUID, str, dict[str, Any]]]) -> None:
        for tenant_id, topic, payload in news:
            await self.redis.publish(tenant_id, topic, payload)
