"""Invoice numbers are 1..n in every series, whoever dies while they are taken: "Done means" 3.

Several tenants issue at once. A fifth of the attempts is rolled back by the application; others lose their connection
between taking the number and the commit; somebody ends backends at random all the while; and a process that issues in
a loop is killed like by `kill -9`, again and again. What was not answered is asked once more, as a job would.
"""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from app.billing import service
from app.billing.models import Invoice, InvoiceCounter, InvoiceLine, LedgerEntry
from app.demo.cast import NORDLICHT
from app.kernel.settings import Settings
from tenants.database import Database
from tenants.redis import Redis
from tenants.scope import Actor
from tests.billing.test_invoices import issue, line
from tests.cast import STAFF, hire
from tests.conftest import ROOT, DatabaseUrls, Proof, settings_environment

pytestmark = [pytest.mark.anyio, pytest.mark.proof, pytest.mark.timeout(900)]
ATTEMPTS = 100  # per tenant, all at once
AT_ONCE = 25  # with a connection; the others stand in line for one
YEARS = (datetime(2026, 12, 30, 12, tzinfo=UTC), datetime(2027, 1, 2, 12, tzinfo=UTC))
ENDS = {"rolled back": 20, "killed": 15, "credited": 15, "issued": 50}  # per cent of the attempts

ISSUER = r"""
import asyncio, sys
from datetime import datetime
from uuid import UUID, uuid4
from app.kernel.settings import load_settings
from tenants.database import Database
from tests.billing.test_invoices import issue, line
from tests.cast import STAFF

async def main(years, tenants):
    database = Database(load_settings())
    while True:
        for now in years:
            for tenant in tenants:
                source = uuid4()
                print(f"begun {tenant} {source}\n", end="", flush=True)
                try:
                    async with database.scope(tenant, STAFF, now=now) as scope:
                        await issue(scope, line(source))
                except Exception:  # its backend was ended: nobody knows whether it stands
                    continue
                print(f"done {tenant} {source}\n", end="", flush=True)

years, tenants = sys.argv[1].split(","), sys.argv[2].split(",")
asyncio.run(main([datetime.fromisoformat(one) for one in years], [UUID(one) for one in tenants]))
"""


@dataclass
class Books:
    """What the issuers of one tenant know: which sources must stand, may stand, must not."""

    stand: set[UUID] = field(default_factory=set)
    open: set[UUID] = field(default_factory=set)
    never: set[UUID] = field(default_factory=set)
    credited: set[UUID] = field(default_factory=set)


class RolledBack(Exception):
    pass


class Killer:
    """Ends backends of the application in this database, as an administrator or a failing machine would."""

    def __init__(self, urls: DatabaseUrls, chance: random.Random) -> None:
        self.connection = psycopg.connect(urls.superuser.replace("+psycopg", ""), autocommit=True)
        self.chance, self.killed = chance, Counter[str]()

    def end(self, pid: int) -> None:
        self.connection.execute("select pg_terminate_backend(%s, 5000)", [pid])
        self.killed["between number and commit"] += 1

    async def roam(self) -> None:
        """One at work, wherever it is, a few times each second."""
        at_work = ("select pid from pg_stat_activity where datname = current_database() and usename = 'app_rw'"
                   " and state in ('active', 'idle in transaction') order by pid")  # fmt: skip
        while True:
            await asyncio.sleep(self.chance.uniform(0.05, 0.35))
            pids = [row[0] for row in self.connection.execute(at_work)]
            if pids:
                self.connection.execute("select pg_terminate_backend(%s)", [self.chance.choice(pids)])
                self.killed["anywhere"] += 1


@pytest.fixture
async def crowd(settings: Settings) -> AsyncIterator[Database]:
    """With connections for so many at a time."""
    redis = Redis(settings.redis_url or "")
    database = Database(settings, redis=redis, pool_size=AT_ONCE)
    yield database
    await database.close()
    await redis.close()


async def asked_until_answered(attempt: Callable[[], Any]) -> int:
    """How often a connection was lost before the answer came."""
    for lost in range(50):
        try:
            await attempt()
        except DBAPIError as error:
            is_lost = isinstance(error.orig, psycopg.OperationalError)
            if not is_lost or isinstance(error.orig, psycopg.errors.DeadlockDetected):
                raise
        else:
            return lost
    raise AssertionError("never answered")


async def attempt(
    database: Database, tenant_id: UUID, books: Books, end: str, now: datetime, killer: Killer
) -> None:
    source = uuid4()
    is_killed = end != "killed"

    async def once() -> None:
        nonlocal is_killed
        async with database.scope(tenant_id, STAFF, now=now) as scope:
            await issue(scope, line(source))
            if end == "rolled back":
                raise RolledBack
            if not is_killed:
                killer.end((await scope.db.execute(text("select pg_backend_pid()"))).scalar_one())
                is_killed = True

    async def credit() -> None:
        async with database.scope(tenant_id, STAFF, now=now) as scope:
            if len(await service.list_invoices_of(scope, "cdr", source)) == 1:
                await service.credit_source(scope, "cdr", source, "wrong")

    if end == "rolled back":
        books.never.add(source)
        with pytest.raises(RolledBack):
            await asked_until_answered(once)
        return
    lost = await asked_until_answered(once)
    assert lost or end != "killed"
    books.stand.add(source)
    if end == "credited":
        await asked_until_answered(credit)
        books.credited.add(source)


async def issued_by_a_process_that_is_killed(
    environment: dict[str, str], books: dict[UUID, Books], after: int, wait: float
) -> None:
    """It dies `wait` seconds after it has said so often that an invoice stands."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ISSUER, ",".join(now.isoformat() for now in YEARS), ",".join(map(str, books)),
        env=environment, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    done = 0
    try:
        while said := await process.stdout.readline():
            if not said.endswith(b"\n"):
                break  # it died while it spoke
            word, tenant, source = said.decode().split()
            its = books[UUID(tenant)]
            if word == "begun":
                its.open.add(UUID(source))
                continue
            its.open.discard(UUID(source))
            its.stand.add(UUID(source))
            done += 1
            if done == after:
                await asyncio.sleep(wait)
                os.kill(process.pid, signal.SIGKILL)
    finally:
        if done < after and process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL and done >= after


async def test_numbers_have_no_gap_whoever_dies_while_they_are_taken(
    crowd: Database, database_urls: DatabaseUrls, redis_url: str, proof: Proof
):
    chance = proof.random("numbers by force")
    killer = Killer(database_urls, proof.random("killer"))
    count, tenants, processes = proof.share(ATTEMPTS), 4 if proof.full else 2, 6 if proof.full else 1
    books: dict[UUID, Books] = {}
    for number in range(tenants):
        company = replace(NORDLICHT, slug=f"brand{number}")
        books[(await hire(crowd, company)).tenant_id] = Books()
    environment = os.environ | settings_environment(database_urls, redis_url) | {"PYTHONPATH": str(ROOT)}

    async def processes_die() -> None:
        for _ in range(processes):
            after = 15 if proof.full else 5
            await issued_by_a_process_that_is_killed(environment, books, after, chance.uniform(0, 0.03))

    ends = [end for end, percent in ENDS.items() for _ in range(max(1, count * percent // 100))]
    places = asyncio.Semaphore(AT_ONCE)

    async def in_line(tenant_id: UUID, end: str, now: datetime) -> None:
        async with places:
            await attempt(crowd, tenant_id, books[tenant_id], end, now, killer)

    attempts = [in_line(tenant_id, end, chance.choice(YEARS)) for tenant_id in books for end in ends]
    chance.shuffle(attempts)
    roaming = asyncio.create_task(killer.roam())
    try:
        await asyncio.gather(processes_die(), *attempts)
    finally:
        roaming.cancel()
        killer.connection.close()
    issued = 0
    for tenant_id, its in books.items():
        issued += await check(crowd, tenant_id, its)
    figures = {
        "tenants": tenants, "attempts": len(attempts), "rolled_back": sum(len(its.never) for its in books.values()),
        "backends_ended": dict(killer.killed), "processes_killed": processes, "papers": issued,
    }  # fmt: skip
    proof.write("invoice_numbers", figures)
    assert killer.killed["between number and commit"] == tenants * ends.count("killed")
    assert killer.killed["anywhere"] > 0


async def check(database: Database, tenant_id: UUID, books: Books) -> int:
    """The tenant's books against what its issuers know. How many papers there are."""
    async with database.scope(tenant_id, Actor.cli()) as scope:
        rows = (await scope.db.execute(select(Invoice.series, Invoice.year, Invoice.number_no))).all()
        numbers: dict[tuple[str, int], list[int | None]] = {}
        for series, year, number in rows:
            numbers.setdefault((series, year), []).append(number)
        for series, found in numbers.items():
            assert sorted(found) == list(range(1, len(found) + 1)), series
        counters = (await scope.db.execute(select(InvoiceCounter))).scalars()
        assert {(one.series, one.year): one.next_no - 1 for one in counters} == {
            series: len(found) for series, found in numbers.items()
        }
        assert len(numbers) >= 2 and {series for series, _ in numbers} == {"INV", "CN"}
        assert await service.find_broken_series(scope) == []
        assert await service.unbalanced_postings(scope) == []
        lines = (await scope.db.execute(select(InvoiceLine.kind, InvoiceLine.source_id))).all()
        billed = Counter(source for kind, source in lines if kind == "invoice")
        assert set(billed.values()) == {1}
        assert books.stand <= set(billed) <= books.stand | books.open
        assert not books.never & set(billed)
        assert Counter(source for kind, source in lines if kind == "credit_note") == Counter(books.credited)
        booked = (await scope.db.execute(select(LedgerEntry.txn_id).distinct())).scalars()
        assert len(list(booked)) == len(rows)  # one posting for each paper, none for what was rolled back
        return len(rows)
