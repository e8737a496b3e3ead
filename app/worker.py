"""The worker's process: takes queued jobs one tenant at a time, runs what recurs, gives a dead worker's jobs back.

Two doors: `queue_rw` for procrastinate's own tables, `app_rw` for the body of each job. Slices offer their jobs in
`jobs.py`: JOBS (name -> function of database, tenant and ids), LISTENERS (event kind -> job names), RECURRING (cron
with seconds or without, job name; for each tenant). Jobs run at least once: each is idempotent.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from procrastinate import App, PsycopgConnector, RetryStrategy
from procrastinate.jobs import Status
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from app.charging import rollups
from app.kernel import queue, tracing
from app.kernel.errors import ConfigurationFault, FieldFault
from app.kernel.events import Event
from app.kernel.health import serve_health
from app.kernel.settings import Settings
from app.kernel.slices import gather
from app.kernel.tracing import span
from tenants.database import Database
from tenants.redis import Redis
from tenants.scope import Actor

log = logging.getLogger("livery.worker")
CONCURRENCY = 8
RECURRING_AT_ONCE = 4
MAX_ATTEMPTS = 12
POISON_ATTEMPTS = 20
RETRY = RetryStrategy(max_attempts=MAX_ATTEMPTS, exponential_wait=2)
KEPT_HOURS = 7 * 24

Job = Callable[..., Awaitable[None]]


class Gathered:
    """What the slices offer."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.listeners: dict[str, list[str]] = {}
        self.recurring: list[tuple[str, str]] = []
        for module in gather("jobs"):
            self.jobs |= module.JOBS
            self.recurring += module.RECURRING
            for kind, listeners in module.LISTENERS.items():
                self.listeners.setdefault(kind, []).extend(listeners)
        named = {name for names in self.listeners.values() for name in names} | {n for _, n in self.recurring}
        if not named <= self.jobs.keys():
            raise RuntimeError(f"no such jobs: {', '.join(sorted(named - self.jobs.keys()))}")


class Worker:
    def __init__(self, settings: Settings, *, heartbeat_s: float = 5.0, stalled_s: float = 15.0) -> None:
        if not settings.database_url_queue:
            raise ConfigurationFault(
                [
                    FieldFault(
                        "DATABASE_URL_QUEUE",
                        "missing",
                        "is needed: the role of the queue's own tables",
                    )
                ]
            )
        self.settings = settings
        self.heartbeat_s, self.stalled_s = heartbeat_s, stalled_s
        self.redis = Redis(settings.redis_url) if settings.redis_url else None
        self.database = Database(settings, redis=self.redis, pool_size=CONCURRENCY)
        self.gathered = Gathered()
        self.app = App(
            connector=PsycopgConnector(
                conninfo=_conninfo(settings.database_url_queue), min_size=1, max_size=6
            )
        )
        self._register()

    # -- what runs -------------------------------------------------------------------------------------------------

    def _register(self) -> None:
        for name, job in self.gathered.jobs.items():
            self._task(name, job)
        self._task("events.fan_out", self.fan_out)
        for cron, name in self.gathered.recurring:
            self._periodic(cron, f"recurring.{name}", lambda name=name: self.for_each_tenant(name))
        self._periodic("7 * * * *", "platform.days", self.keep_days)
        self._periodic("37 3 * * *", "platform.drop_readings", self.drop_readings)
        self._periodic("41 4 * * *", "platform.purge_jobs", self.purge_jobs)

    def _task(self, name: str, job: Job) -> None:
        async def run(tenant: str | None = None, traceparent: str | None = None, **ids: Any) -> None:
            if not tenant:
                raise ValueError(f"job {name} came without a tenant")
            with span(f"job {name}", parent=traceparent, tenant=tenant):
                await job(self.database, UUID(tenant), **ids)

        self.app.task(name=name, retry=RETRY)(run)

    def _periodic(self, cron: str, name: str, work: Callable[[], Awaitable[None]]) -> None:
        async def run(timestamp: int) -> None:
            with span(f"job {name}"):
                await work()

        # One waits at most, and none runs beside another: a slow round is not followed by a heap of them.
        self.app.periodic(cron=cron)(self.app.task(name=name, lock=name, queueing_lock=name)(run))

    async def for_each_tenant(self, job: str) -> None:
        """Every tenant's turn, a few at a time. One that fails goes to the queue, which tries it again."""
        turns = asyncio.Semaphore(RECURRING_AT_ONCE)

        async def turn(tenant_id: UUID) -> None:
            async with turns:
                try:
                    await self.gathered.jobs[job](self.database, tenant_id)
                except Exception:
                    log.exception("%s failed for one tenant and is queued", job)
                    async with self.database.scope(tenant_id, Actor.job(job)) as scope:
                        await queue.enqueue(scope, job, lock=job)

        await asyncio.gather(*(turn(tenant_id) for tenant_id in await self.tenant_ids()))

    async def tenant_ids(self) -> list[UUID]:
        async with self.database.anonymous() as db:
            return list((await db.execute(text("select platform.active_tenant_ids()"))).scalars())

    async def fan_out(self, database: Database, tenant_id: UUID, event_ids: list[str]) -> None:
        """News to its listeners: one job each, in one transaction."""
        async with database.scope(tenant_id, Actor.job("events.fan_out")) as scope:
            wanted = select(Event.id, Event.kind).where(Event.id.in_([UUID(one) for one in event_ids]))
            for event_id, kind in (await scope.db.execute(wanted.order_by(Event.id))).all():
                for job in self.gathered.listeners.get(kind, []):
                    await queue.enqueue(scope, job, event_id=str(event_id))

    async def retry_stalled(self) -> None:
        """procrastinate leaves a killed worker's jobs `doing` for ever (recipes.md 2, trap 1)."""
        for job in await self.app.job_manager.get_stalled_jobs(seconds_since_heartbeat=self.stalled_s):
            if job.attempts >= POISON_ATTEMPTS:
                log.error(
                    "job %s (%s) killed its worker %s times and is given up",
                    job.id,
                    job.task_name,
                    job.attempts,
                )
                await self.app.job_manager.finish_job(job, status=Status.FAILED, delete_job=False)
            else:
                await self.app.job_manager.retry_job(job)

    async def keep_retrying(self) -> None:
        """No job of its own: killed in its middle it would hold its own lock for ever."""
        while True:
            await asyncio.sleep(self.stalled_s)
            try:
                await self.retry_stalled()
            except Exception:
                log.exception("stalled jobs could not be looked for")

    async def keep_days(self) -> None:
        """Partitions are made ahead and, for the raw log, dropped after 30 days."""
        async with self.database.anonymous() as db:
            for parent in ("meter_instant", "ocpp_message"):
                for ahead in range(4):
                    await db.execute(
                        text("select livery.ensure_day(:parent, current_date + cast(:ahead as integer))"),
                        {"parent": parent, "ahead": ahead},
                    )
            await db.execute(
                text("select livery.drop_day('ocpp_message', day) from livery.old_days('ocpp_message') day")
            )

    async def drop_readings(self) -> None:
        """Days of meter values that are old enough go, one after the other, when every tenant's rollups of it stand.

        A tenant that fails keeps the day for everybody until the next round.
        """
        before = datetime.now(UTC).date() - timedelta(days=self.settings.meter_value_days)
        tenants = await self.tenant_ids()
        async with self.database.anonymous() as db:
            query = text(
                "select day from livery.old_days('meter_instant') day where day < :before order by day"
            )
            days = list((await db.execute(query, {"before": before})).scalars())
        for day in days:
            for tenant_id in tenants:
                async with self.database.scope(tenant_id, Actor.job("platform.drop_readings")) as scope:
                    await rollups.roll_day(scope, day)
            if all([await self._is_rolled(tenant_id, day) for tenant_id in tenants]):
                try:
                    async with self.database.anonymous() as db:
                        await db.execute(text("select livery.drop_day('meter_instant', :day)"), {"day": day})
                except OperationalError as error:  # somebody reads it for long: the next round
                    log.warning("the readings of %s stay for now: %s", day, error.orig)
                    continue
                log.info("the readings of %s are rolled up and their raw rows dropped", day)

    async def _is_rolled(self, tenant_id: UUID, day: date) -> bool:
        """Once more, at once before the drop: a reading may have come while the others were rolled up."""
        async with self.database.scope(tenant_id, Actor.job("platform.drop_readings")) as scope:
            return await rollups.is_rolled(scope, day)

    async def purge_jobs(self) -> None:
        await self.app.job_manager.delete_old_jobs(nb_hours=KEPT_HOURS)

    # -- the process -----------------------------------------------------------------------------------------------

    async def is_ready(self) -> dict[str, bool]:
        try:
            async with asyncio.timeout(2), self.database.anonymous() as db:
                return {"database": (await db.execute(text("select 1"))).scalar_one() == 1}
        except Exception:
            return {"database": False}

    async def run(self, stop: asyncio.Event) -> bool:
        """True when it ended because it was asked to; a lost database ends it too, and somebody starts it again."""
        faults = await self.database.check_fitness()
        if faults:
            raise RuntimeError("refusing to start: " + "; ".join(faults))
        health = None
        if self.settings.worker_health_port:
            health = await serve_health(self.settings.host, self.settings.worker_health_port, self.is_ready)
        async with self.app.open_async():
            await self.keep_days()
            await self.retry_stalled()
            working = asyncio.create_task(
                self.app.run_worker_async(
                    concurrency=CONCURRENCY,
                    fetch_job_polling_interval=1.0,
                    abort_job_polling_interval=5.0,
                    install_signal_handlers=False,
                    update_heartbeat_interval=self.heartbeat_s,
                    stalled_worker_timeout=self.stalled_s,
                    shutdown_graceful_timeout=20.0,
                    name="livery",
                )
            )
            retrying = asyncio.create_task(self.keep_retrying())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (stopping, retrying, working):
                task.cancel()
            results = await asyncio.gather(working, return_exceptions=True)
        if health is not None:
            health.close()
        await self.database.close()
        if self.redis is not None:
            await self.redis.close()
        if not stop.is_set() and isinstance(results[0], Exception):
            raise results[0]
        return stop.is_set()


def _conninfo(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def serve(settings: Settings) -> int:
    """`livery worker`: until SIGTERM or Ctrl-C; running jobs get 20 s to end, then go back to the queue."""
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    tracing.set_up("livery-worker", endpoint=settings.otel_endpoint)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    return 0 if await Worker(settings).run(stop) else 1
