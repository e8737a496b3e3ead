"""The database forces isolation: catalogue rules, generated attacks with controls, and mutants that must die."""

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from app.kernel.settings import Settings
from tenants.database import Database
from tenants.rules import DEFINERS, RULES, find_faults
from tests.conftest import Databases, DatabaseUrls, Proof
from tests.isolation.attacks import Attacker, Outcome
from tests.isolation.catalogue import Connection, Seeds, Table, read_tables
from tests.isolation.mutants import Mutant, mutants


@dataclass
class Ground:
    """Two tenants with a row in every table; a superuser to break things, app_rw to attack them."""

    urls: DatabaseUrls
    superuser: Connection
    app: Connection
    tables: dict[str, Table]
    seeds: Seeds
    a: uuid.UUID
    b: uuid.UUID

    @property
    def directions(self) -> tuple[tuple[uuid.UUID, uuid.UUID], ...]:
        return (self.a, self.b), (self.b, self.a)


def _connect(url: str, **options: Any) -> Connection:
    return psycopg.connect(url.replace("+psycopg", ""), **options)


@pytest.fixture(scope="module")
def ground(databases: Databases) -> Iterator[Ground]:
    with databases.copy() as urls, _connect(urls.superuser, autocommit=True) as su, _connect(urls.app) as app:
        tables = read_tables(su)
        seeds = Seeds(su, tables)
        yield Ground(urls, su, app, tables, seeds, seeds.plant("alpha"), seeds.plant("beta"))


def faults(connection: Connection) -> list[str]:
    """As `find_faults`, on a connection of the test's own (inside a mutant's transaction)."""
    connection.execute("select set_config('search_path', 'pg_catalog', true)")
    found = []
    for rule, query in RULES.items():
        statement = query.replace("%", "%%").replace(":definers", "%(definers)s").encode()
        rows = connection.execute(statement, {"definers": sorted(DEFINERS)}).fetchall()
        found += [f"{rule}: {row[0]}" for row in rows]
    return found


def test_no_catalogue_rule_is_broken(ground: Ground) -> None:
    assert faults(ground.superuser) == []


@pytest.mark.anyio
async def test_the_application_finds_the_same_by_itself(database: Database) -> None:
    async with database.anonymous() as session:
        assert await find_faults(session) == []


def test_every_table_is_seeded_so_that_no_attack_is_empty(ground: Ground) -> None:
    for table in ground.tables.values():
        if not table.is_partition:
            counted = ground.superuser.execute(f"select count(*) from {table.full}".encode()).fetchone()
            assert counted == (2,), table.name


@pytest.mark.timeout(300)
def test_no_tenant_reaches_another_by_any_attack_and_every_attack_works_on_ones_own(ground: Ground) -> None:
    total = Outcome()
    for mine, theirs in ground.directions:
        for table in ground.tables.values():
            attacker = Attacker(ground.app, ground.seeds, mine, theirs)
            attacker.attack(table)
            total.add(attacker.control(table))
    ground.app.rollback()
    print(f"\nisolation: {total.attempts} attempts on {len(ground.tables)} relations, {len(total.leaks)} leaks,"
          f" {total.controls - len(total.dead_controls)}/{total.controls} controls")  # fmt: skip
    assert not total.leaks, total.leaks
    assert not total.dead_controls, total.dead_controls
    assert total.attempts > 100 * len([t for t in ground.tables.values() if not t.is_partition])


# --- mutants -----------------------------------------------------------------------------------------------------


@contextmanager
def mutated(ground: Ground, mutant: Mutant) -> Iterator[Connection]:
    """Inside one transaction that is undone; the event trigger that would mend a mutant at once rests meanwhile."""
    connection = ground.superuser
    with connection.transaction() as transaction:
        connection.execute("set local event_triggers = off")
        connection.execute(mutant.sql.encode())
        yield connection
        raise psycopg.Rollback(transaction)


def is_noticed(ground: Ground, connection: Connection, mutant: Mutant) -> bool:
    """By an attack of app_rw on the mutated table."""
    assert mutant.table is not None
    connection.execute("set local role app_rw")
    leaks: list[str] = []
    for mine, theirs in ground.directions:
        leaks += Attacker(connection, ground.seeds, mine, theirs).attack(ground.tables[mutant.table]).leaks
    connection.execute("reset role")
    return bool(leaks)


@pytest.mark.proof
@pytest.mark.timeout(1200)
def test_every_mutant_of_the_schema_is_caught(ground: Ground, proof: Proof) -> None:
    everything = list(mutants(ground.superuser, ground.tables))
    chosen = proof.random("mutants").sample(everything, proof.share(len(everything)))
    survivors, unnoticed, kinds = [], [], Counter[str]()
    for mutant in chosen:
        with mutated(ground, mutant) as connection:
            by_rules = faults(connection)
            connection.execute("reset search_path")
            by_attack = mutant.is_open and is_noticed(ground, connection, mutant)
        kinds[mutant.kind] += 1
        if not by_rules:
            survivors.append(mutant)
        if mutant.is_open and not by_attack:
            unnoticed.append(mutant)
    proof.write("isolation-database", {
        "relations": len(ground.tables), "mutants": len(chosen), "of": len(everything), "kinds": len(kinds),
        "caught_by_rules": len(chosen) - len(survivors), "survivors": len(survivors),
        "open_to_attack": sum(mutant.is_open for mutant in chosen), "not_noticed_by_attack": len(unnoticed),
    })  # fmt: skip
    assert not survivors, survivors
    assert not unnoticed, [(one.table, one.kind, one.sql[-120:]) for one in unnoticed]
    assert faults(ground.superuser) == []


# --- what no catalogue shows -------------------------------------------------------------------------------------


def test_a_table_that_a_migration_forgot_to_protect_is_empty_for_everybody(ground: Ground) -> None:
    """The event trigger gives it RLS and FORCE: without a policy it shows nothing."""
    with ground.superuser.transaction() as transaction:
        ground.superuser.execute("set local role owner")
        ground.superuser.execute("create table livery.forgotten (tenant_id uuid, note text)")
        ground.superuser.execute("grant select, insert on livery.forgotten to app_rw")
        row = ground.superuser.execute(
            "select relrowsecurity, relforcerowsecurity from pg_class where oid = 'livery.forgotten'::regclass"
        ).fetchone()
        assert row == (True, True)
        raise psycopg.Rollback(transaction)


def test_the_tenant_of_one_transaction_is_gone_in_the_next_of_the_same_connection(ground: Ground) -> None:
    with ground.app.transaction():
        ground.app.execute("select set_config('livery.tenant_id', %s, true)", [str(ground.a)])
        assert ground.app.execute("select count(*) from livery.location").fetchone() == (1,)
    with ground.app.transaction():
        assert ground.app.execute("select count(*) from livery.location").fetchone() == (0,)


def test_a_prepared_plan_serves_each_tenant_its_own_rows(ground: Ground) -> None:
    """An IMMUTABLE tid() would be folded into the plan and serve the first tenant's rows to the second."""
    with ground.app.transaction():
        ground.app.execute("set local plan_cache_mode = force_generic_plan")
        for _ in range(8):
            for tenant in (ground.a, ground.b):
                ground.app.execute("select set_config('livery.tenant_id', %s, true)", [str(tenant)])
                rows = ground.app.execute("select tenant_id from livery.location", prepare=True).fetchall()
                assert rows == [(tenant,)]


def test_a_data_migration_by_the_owner_without_a_tenant_changes_nothing(ground: Ground) -> None:
    with _connect(ground.urls.migrate) as owner:
        owner.execute("set role owner")
        assert owner.execute("update livery.location set name = 'x'").rowcount == 0


@pytest.mark.anyio
async def test_start_up_refuses_a_role_that_could_bypass_row_level_security(
    databases: Databases, ground: Ground, settings: Settings
) -> None:
    """As a superuser every policy is void: the program says so and does not run."""
    opened = Database(settings.model_copy(update={"database_url": ground.urls.superuser}))
    try:
        found = await opened.check_roles()
    finally:
        await opened.close()
    assert any("superuser" in fault for fault in found)
