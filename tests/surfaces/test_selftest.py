"""The isolation self-test: green on a sound database, red with the reason on a broken one, and nothing of it stays."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import select

from app.access import service as access
from tenants import probes
from tenants.database import Database
from tenants.models import PlatformAuditEntry
from tests.conftest import DatabaseUrls
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio


async def two_brands(database: Database) -> None:
    for slug in ("nordlicht", "solmark"):
        tenant_id = await found_brand(database, slug, f"owner@{slug}.example")
        async with database.scope(tenant_id, CLI) as scope:
            await access.create_driver_group(
                scope, name=f"Fleet of {slug}"
            )  # a name of its own: it fits next door


def break_with(urls: DatabaseUrls, *statements: str) -> None:
    with psycopg.connect(urls.superuser.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def rows_of(urls: DatabaseUrls) -> dict[str, int]:
    with psycopg.connect(urls.superuser.replace("+psycopg", "")) as connection:
        names = connection.execute(
            "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = 'livery' and c.relkind = 'r'"
        ).fetchall()
        return {
            name: connection.execute(f"select count(*) from {name}".encode()).fetchone()[0]
            for (name,) in names
        }


async def entries(house: House) -> list[PlatformAuditEntry]:
    query = select(PlatformAuditEntry).where(PlatformAuditEntry.action == "isolation.tested")
    async with house.database.platform_scope(CLI, "test") as scope:
        return list((await scope.db.execute(query)).scalars())


async def run(house: House, reason: str = "weekly look") -> Any:
    admin = await house.admin()
    await admin.open("/isolation")
    return await admin.post("/isolation", {"reason": reason})


async def test_a_sound_database_passes_and_the_run_stands_in_the_audit_log(
    house: House, database_urls: DatabaseUrls
) -> None:
    await two_brands(house.database)
    before = rows_of(database_urls)
    answer = await run(house)
    assert answer.status_code == 200
    assert "The wall stands" in answer.text
    assert "driver_group" in answer.text and "Leaks" not in answer.text
    assert rows_of(database_urls) == before
    (entry,) = await entries(house)
    assert (entry.reason, entry.data["well"], entry.data["faults"]) == ("weekly look", True, [])
    assert "the wall stood" in (await (await house.admin()).get("/isolation")).text


async def test_it_is_not_run_without_a_reason(house: House) -> None:
    answer = await run(house, reason="")
    assert answer.status_code == 422
    assert "Give a reason" in answer.text
    assert await entries(house) == []


async def test_every_relation_of_tenants_is_probed_and_own_rows_are_seen(
    database: Database, database_urls: DatabaseUrls
) -> None:
    await two_brands(database)
    report = await probes.examine(database)
    assert report.faults == []
    with psycopg.connect(database_urls.superuser.replace("+psycopg", "")) as connection:
        tables = connection.execute(
            "select relname from pg_class where relnamespace = 'livery'::regnamespace and relkind in ('r', 'p')"
            " and not relispartition"
        ).fetchall()
    assert {one.name for one in report.relations} == {name for (name,) in tables}
    seen = {one.name: one for one in report.relations}
    assert seen["driver_group"].own == 2
    assert seen["driver_group"].writes == 4


async def test_with_no_tenant_at_all_it_still_runs(database: Database) -> None:
    report = await probes.examine(database)
    assert report.faults == []
    assert not any(one.own for one in report.relations)


POLICY = "drop policy tenant on livery.driver_group"
OPEN_WRITE = (
    f"{POLICY}; create policy tenant on livery.driver_group as restrictive"
    " using (tenant_id = (select livery.tid())) with check (true)"
)


@pytest.mark.parametrize(
    ("broken", "reasons"),
    [
        (POLICY, ("2 rows visible with no tenant set", "1 row of others visible to a tenant")),
        (
            "alter table livery.driver_group disable row level security",
            ("2 rows visible with no tenant set", "a row could be given to another tenant"),
        ),
        (OPEN_WRITE, ("a row for another tenant was let in (and undone)",)),
    ],
    ids=["policy dropped", "rls off", "writes not checked"],
)
async def test_a_broken_wall_turns_the_page_red_and_says_where(
    house: House, database_urls: DatabaseUrls, broken: str, reasons: tuple[str, ...]
) -> None:
    await two_brands(house.database)
    break_with(database_urls, "set event_triggers = off", *broken.split("; "))
    before = rows_of(database_urls)
    answer = await run(house)
    assert answer.status_code == 200
    assert "The wall is broken" in answer.text and "The wall stands" not in answer.text
    for reason in reasons:
        assert reason in answer.text
    assert rows_of(database_urls) == before
    (entry,) = await entries(house)
    assert entry.data["well"] is False
    assert any(fault.startswith("driver_group: ") for fault in entry.data["faults"])


async def test_a_policy_that_shows_nothing_to_anybody_is_no_pass(
    database: Database, database_urls: DatabaseUrls
) -> None:
    await two_brands(database)
    with psycopg.connect(database_urls.superuser.replace("+psycopg", ""), autocommit=True) as connection:
        names = connection.execute(
            "select c.oid::regclass::text from pg_class c where relnamespace = 'livery'::regnamespace"
            " and relkind in ('r', 'p') and not relispartition"
        ).fetchall()
        for (name,) in names:
            connection.execute(f"create policy blind on {name} as restrictive using (false)".encode())
    report = await probes.examine(database)
    assert "no tenant saw a row of its own: the probes prove nothing" in report.faults


async def test_a_partition_that_can_be_reached_is_found(
    database: Database, database_urls: DatabaseUrls
) -> None:
    break_with(
        database_urls,
        "create table livery.mutant partition of livery.meter_instant for values from ('2200-01-01') to ('2200-01-02')",
        "grant select on livery.mutant to app_rw",
    )
    report = await probes.examine(database)
    assert "mutant: a partition can be reached past its table" in report.faults
