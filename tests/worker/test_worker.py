"""Jobs: under their tenant only, at least once, even when a worker is killed in the middle of one."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import select

from app.kernel import events, queue
from app.kernel.settings import Settings
from app.notifications.models import Mail
from app.worker import Worker
from tenants.database import Database
from tenants.scope import Actor
from tests.conftest import ROOT, DatabaseUrls, settings_environment
from tests.web import CLI, OWNER, found_brand

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@asynccontextmanager
async def working(
    settings: Settings, *jobs: tuple[str, Any], listeners: dict[str, list[str]] | None = None
) -> AsyncIterator[Worker]:
    worker = Worker(settings, heartbeat_s=0.5, stalled_s=2)
    for name, job in jobs:
        worker.gathered.jobs[name] = job
        worker._task(name, job)
    for kind, names in (listeners or {}).items():
        worker.gathered.listeners[kind] = names
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        assert await running


async def until(look: Any, seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = await look()
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("waited in vain")


async def test_a_job_lives_and_dies_with_what_caused_it(settings: Settings, database: Database) -> None:
    tenant_id, seen = await found_brand(database), []

    async def note(_database: Database, tenant: UUID, n: int) -> None:
        seen.append((tenant, n))

    async with working(settings, ("test.note", note)):
        with pytest.raises(RuntimeError):
            async with database.scope(tenant_id, CLI) as scope:
                await queue.enqueue(scope, "test.note", n=1)
                raise RuntimeError("rolled back")
        async with database.scope(tenant_id, CLI) as scope:
            await queue.enqueue(scope, "test.note", n=2)

        async def done() -> bool:
            return bool(seen)

        await until(done)
    assert seen == [(tenant_id, 2)]


async def test_jobs_of_one_lock_run_one_after_the_other_and_at_once(
    settings: Settings, database: Database
) -> None:
    tenant_id, log = await found_brand(database), []

    async def note(_database: Database, _tenant: UUID, n: int) -> None:
        log.append(("begin", n))
        await asyncio.sleep(0.05)
        log.append(("end", n))

    async with database.scope(tenant_id, CLI) as scope:
        for n in range(5):
            await queue.enqueue(scope, "test.note", lock="one", n=n)
    started = time.monotonic()
    async with working(settings, ("test.note", note)):

        async def done() -> bool:
            return len(log) == 10

        await until(done)
        took = time.monotonic() - started
    assert log == [(what, n) for n in range(5) for what in ("begin", "end")]
    # Without the waking trigger each would wait for a poll.
    assert took < 4


async def test_a_job_without_a_tenant_is_refused(
    settings: Settings, database_urls: DatabaseUrls, database: Database
) -> None:
    seen: list[Any] = []

    async def note(_database: Database, tenant: UUID) -> None:
        seen.append(tenant)

    with psycopg.connect(database_urls.superuser.replace("+psycopg", ""), autocommit=True) as su:
        su.execute("set search_path = procrastinate")
        su.execute(
            "insert into procrastinate_jobs (queue_name, task_name, args, status)"
            " values ('default', 'test.note', '{}', 'todo')"
        )
        async with working(settings, ("test.note", note)):

            async def tried() -> bool:
                row = su.execute(
                    "select attempts from procrastinate_jobs where task_name = 'test.note'"
                ).fetchone()
                return row is not None and row[0] > 0

            await until(tried)
    assert seen == []


async def test_news_reach_every_listener(settings: Settings, database: Database) -> None:
    tenant_id, heard = await found_brand(database), []

    async def first(database: Database, tenant: UUID, event_id: str) -> None:
        async with database.scope(tenant, Actor.job("test.first")) as scope:
            event = await scope.db.get(events.Event, (tenant, UUID(event_id)))
            heard.append(("first", event.data if event else None))

    async def second(_database: Database, _tenant: UUID, event_id: str) -> None:
        heard.append(("second", event_id))

    listeners = {"SomethingHappened": ["test.first", "test.second"]}
    async with working(settings, ("test.first", first), ("test.second", second), listeners=listeners):
        async with database.scope(tenant_id, CLI) as scope:
            event_id = await events.emit(scope, "SomethingHappened", "tenant", tenant_id, {"n": 1})

        async def done() -> bool:
            return len(heard) == 2

        await until(done)
    assert sorted(heard) == [("first", {"n": 1}), ("second", str(event_id))]


async def test_a_tenant_that_fails_does_not_stop_the_others(settings: Settings, database: Database) -> None:
    bad = await found_brand(database)
    good = await found_brand(database, "solmark", "selim@solmark.example")
    seen: list[UUID] = []
    failures = [1]

    async def sometimes(_database: Database, tenant: UUID) -> None:
        if tenant == bad and failures:
            failures.pop()
            raise RuntimeError("not today")
        seen.append(tenant)

    async with working(settings, ("test.sometimes", sometimes)) as worker:
        await worker.for_each_tenant("test.sometimes")
        assert good in seen

        async def again() -> bool:
            return bad in seen

        await until(again)


async def test_an_invitation_becomes_a_mail_with_a_link_that_works(
    settings: Settings, database: Database
) -> None:
    tenant_id = await found_brand(database)

    async def mail() -> Mail | None:
        async with database.scope(tenant_id, CLI) as scope:
            return (await scope.db.execute(select(Mail).where(Mail.status != "queued"))).scalar_one_or_none()

    async with working(settings):
        found = await until(mail)
    assert (found.to_address, found.kind, found.status) == (OWNER, "invitation", "kept")
    assert "http://portal-nordlicht.localhost:8000/login/" in found.body


async def test_days_are_kept_ready(
    settings: Settings, database: Database, database_urls: DatabaseUrls
) -> None:
    with psycopg.connect(database_urls.superuser.replace("+psycopg", ""), autocommit=True) as su:
        day = time.strftime("%Y%m%d", time.gmtime(time.time() + 2 * 86400))
        su.execute(sql.SQL("drop table {}").format(sql.Identifier("livery", f"meter_instant_{day}")))
        async with working(settings):

            async def ready() -> bool:
                query = "select count(*) from pg_inherits where inhparent = 'livery.meter_instant'::regclass"
                row = su.execute(query).fetchone()
                return row is not None and row[0] == 5

            await until(ready)


KILLED = """
import asyncio, sys
from pathlib import Path
from app.kernel.settings import load_settings
from app.worker import Worker

async def slow(database, tenant, n):
    mark = Path(sys.argv[1])
    with mark.open("a") as log:
        log.write("begin\\n")
    if sys.argv[2] == "hang":
        await asyncio.sleep(600)
    with mark.open("a") as log:
        log.write("end\\n")

async def main():
    worker = Worker(load_settings(), heartbeat_s=0.5, stalled_s=2)
    worker.gathered.jobs["test.slow"] = slow
    worker._task("test.slow", slow)
    await worker.run(asyncio.Event())

asyncio.run(main())
"""


async def test_a_job_whose_worker_was_killed_holding_a_lock_runs_again(
    settings: Settings, database: Database, database_urls: DatabaseUrls, redis_url: str, tmp_path: Any
) -> None:
    tenant_id, mark = await found_brand(database), tmp_path / "mark"
    environment = os.environ | settings_environment(database_urls, redis_url) | {"PYTHONPATH": str(ROOT)}

    def start(mode: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", KILLED, str(mark), mode], env=environment, cwd=ROOT)

    async def begun() -> bool:
        return mark.exists()

    async def ended() -> bool:
        return "end" in mark.read_text()

    async with database.scope(tenant_id, CLI) as scope:
        await queue.enqueue(scope, "test.slow", lock="held", n=1)
    first = start("hang")
    await until(begun, 30)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start("go")
    try:
        await until(ended, 60)
        assert mark.read_text() == "begin\nbegin\nend\n"
    finally:
        second.terminate()
        second.wait()


async def test_a_worker_that_could_bypass_the_isolation_does_not_start(
    settings: Settings, database_urls: DatabaseUrls
) -> None:
    wrong = settings.model_copy(update={"database_url": database_urls.superuser})
    with pytest.raises(RuntimeError, match="superuser"):
        await Worker(wrong).run(asyncio.Event())


async def test_readiness_tells_when_the_database_is_away(settings: Settings) -> None:
    worker = Worker(settings)
    assert await worker.is_ready() == {"database": True}
    url = (settings.database_url or "").replace("app_rw:", "app_rw:wrong")
    away = Worker(settings.model_copy(update={"database_url": url}))
    assert await away.is_ready() == {"database": False}
    for one in (worker, away):
        await one.database.close()
