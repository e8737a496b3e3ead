"""Schema mutants, generated from the catalogue: every way in which somebody could break isolation, table by table."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.isolation.catalogue import AGREED, Connection, Table


@dataclass(frozen=True, slots=True)
class Mutant:
    """`sql` breaks the schema. `is_open`: an attack by app_rw must notice it, not only the catalogue rules."""

    kind: str
    table: str | None
    sql: str
    is_open: bool = False


TENANT = "tenant_id = (select livery.tid())"


def mutants(connection: Connection, tables: dict[str, Table]) -> Iterator[Mutant]:
    for table in tables.values():
        if table.is_partition:
            yield from _of_partition(table)
        else:
            # TRUNCATE is refused anyway where a key leads here, and where rows never change.
            is_referred_to = any(table.name in other.references.values() for other in tables.values())
            yield from _of_table(connection, table, "DELETE" in table.grants and not is_referred_to)
    yield from _of_the_whole()


def _of_table(connection: Connection, table: Table, is_loose: bool) -> Iterator[Mutant]:
    name, known = table.full, table.name

    def policy(using: str, check: str) -> str:
        return (f"drop policy tenant on {name}; create policy tenant on {name} as restrictive"
                f" using ({using}) with check ({check})")  # fmt: skip

    can_write = "INSERT" in table.grants
    yield Mutant("rls off", known, f"alter table {name} disable row level security", True)
    yield Mutant("force off", known, f"alter table {name} no force row level security")
    yield Mutant("policy dropped", known, f"drop policy tenant on {name}", True)
    yield Mutant("base policy dropped", known, f"drop policy base on {name}")
    yield Mutant("policy permissive", known, f"drop policy tenant on {name}; create policy tenant on {name}"
                 f" using ({TENANT}) with check ({TENANT})", True)  # fmt: skip
    yield Mutant(
        "fail-open",
        known,
        policy(f"{TENANT} or livery.tid() is null", f"{TENANT} or livery.tid() is null"),
        True,
    )
    yield Mutant("using true", known, policy("true", TENANT), True)
    yield Mutant("with check true", known, policy(TENANT, "true"), can_write)
    yield Mutant("policy for one command", known, f"drop policy tenant on {name}; create policy tenant on {name}"
                 f" as restrictive for select using ({TENANT})", can_write)  # fmt: skip
    yield Mutant("policy for one role", known, f"drop policy tenant on {name}; create policy tenant on {name}"
                 f" as restrictive to migrate using ({TENANT}) with check ({TENANT})", True)  # fmt: skip
    yield Mutant("column cast in the policy", known, policy(
        "tenant_id::text = current_setting('livery.tenant_id', true)",
        "tenant_id::text = current_setting('livery.tenant_id', true)"))  # fmt: skip
    yield Mutant("grant all", known, f"grant all on {name} to app_rw", is_loose)
    yield Mutant("grant to public", known, f"grant select on {name} to public")
    yield Mutant("grant to the console's role", known, f"grant select on {name} to platform_rw")
    yield Mutant("grant on a column", known, f"grant select (tenant_id) on {name} to queue_rw")
    yield Mutant("plain view", known, f"create view livery.mutant as select * from {name};"
                 " grant select on livery.mutant to app_rw")  # fmt: skip
    yield Mutant(
        "materialised view", known, f"create materialized view livery.mutant as select * from {name}"
    )
    yield Mutant("global unique", known, _global_unique(table), can_write and _is_told(table))
    yield Mutant("default dropped", known, f"alter table {name} alter tenant_id drop default")
    yield Mutant("owned by the application", known, f"alter table {name} owner to app_rw")
    yield Mutant(
        "sequence", known, f"alter table {name} add column mutant_no bigint generated always as identity"
    )
    yield Mutant("rewrite rule", known, f"create rule mutant as on insert to {name} do also notify mutant")
    yield Mutant("definer function", known, f"create function livery.mutant() returns setof {name} language sql"
                 f" security definer as 'select * from {name}'")  # fmt: skip
    for constraint, column, target in _keys(connection, table):
        yield Mutant("single-column foreign key", known,
                     f"alter table {name} drop constraint \"{constraint}\";"
                     f' create unique index mutant_target on livery."{target}" (id);'
                     f' alter table {name} add constraint mutant_key foreign key ("{column}")'
                     f' references livery."{target}" (id)',
                     can_write and target != known and not table.has_own_key)  # fmt: skip
    yield Mutant("tenant key dropped", known, f"{_drop_tenant_key(connection, table)}")


def _of_partition(table: Table) -> Iterator[Mutant]:
    yield Mutant("partition granted", table.name, f"grant select, delete on {table.full} to app_rw", True)
    yield Mutant("partition without rls", table.name, f"alter table {table.full} disable row level security")
    yield Mutant(
        "partition without force", table.name, f"alter table {table.full} no force row level security"
    )
    yield Mutant("partition with a policy", table.name, f"create policy base on {table.full} using (true)")


def _of_the_whole() -> Iterator[Mutant]:
    for role in ("app_rw", "platform_rw", "queue_rw"):
        for attribute in ("superuser", "bypassrls", "createrole", "createdb", "replication"):
            yield Mutant(f"role {attribute}", None, f"alter role {role} {attribute}")
        yield Mutant("role in owner", None, f"grant owner to {role}")
        yield Mutant("role may create", None, f"grant create on schema livery to {role}")
        yield Mutant("schema owned by role", None, f"alter schema livery owner to {role}")
    yield Mutant("anybody may create", None, "grant create on schema livery to public")
    yield Mutant("new table", None, "create table livery.mutant (tenant_id uuid, note text)")
    yield Mutant(
        "new table without a tenant", None, "create table livery.mutant (id uuid primary key, note text)"
    )
    yield Mutant("new partition", None, "create table livery.mutant partition of livery.meter_instant"
                 " for values from ('2200-01-01') to ('2200-01-02');"
                 " grant select on livery.mutant to app_rw")  # fmt: skip
    yield Mutant("tid immutable", None, "alter function livery.tid() immutable")
    yield Mutant("tid volatile", None, "alter function livery.tid() volatile")
    yield Mutant("tid leakproof", None, "alter function livery.tid() leakproof")
    yield Mutant("immutable reader of settings", None, "create function livery.mutant() returns text language sql"
                 " immutable as $$select current_setting('livery.tenant_id', true)$$")  # fmt: skip
    yield Mutant(
        "definer without a pinned path", None, "alter function platform.own_tenant() reset search_path"
    )
    yield Mutant(
        "definer with another path", None, "alter function platform.own_tenant() set search_path = public"
    )
    yield Mutant("another definer", None, "create function platform.mutant() returns setof platform.tenant"
                 " language sql security definer set search_path = pg_catalog, pg_temp"
                 " as 'select * from platform.tenant'")  # fmt: skip
    yield Mutant("platform read", None, "grant select on platform.tenant_route to app_rw")
    yield Mutant("queue read", None, "grant select on procrastinate.procrastinate_jobs to app_rw")
    yield Mutant("key into the tenants' rows", None, "create table platform.mutant (tenant_id uuid, id uuid,"
                 " foreign key (tenant_id, id) references livery.location (tenant_id, id))")  # fmt: skip


def _global_unique(table: Table) -> str:
    key = _free_key(table)
    columns = ", ".join(f'"{name}"' for name in key)
    return f"create unique index mutant_unique on {table.full} ({columns})"


def _is_told(table: Table) -> bool:
    """Whether the seeds' rows have a whole value for that key: one without is unique to nobody."""
    agreed = AGREED.get(table.name, {})
    return not table.has_own_key and all(agreed.get(name, "") is not None for name in _free_key(table))


def _free_key(table: Table) -> list[str]:
    """A natural key without its tenant; on partitioned tables any key holds the partition's column."""
    keys = sorted(([name for name in key if name != "tenant_id"] for key in table.keys), key=len)
    natural = [key for key in keys if key != ["id"] and key and not set(key) & set(table.references)]
    return (natural or [key for key in keys if key])[0]


def _keys(connection: Connection, table: Table) -> list[tuple[str, str, str]]:
    rows = connection.execute(
        "select k.conname, a.attname, f.relname from pg_constraint k join pg_class f on f.oid = k.confrelid"
        " join pg_namespace fn on fn.oid = f.relnamespace"
        " join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[cardinality(k.conkey)]"
        " where k.contype = 'f' and fn.nspname = 'livery' and k.conrelid = to_regclass(%s)",
        [table.full],
    ).fetchall()
    return [(str(name), str(column), str(target)) for name, column, target in rows]


def _drop_tenant_key(connection: Connection, table: Table) -> str:
    row = connection.execute(
        "select conname from pg_constraint where contype = 'f' and conrelid = to_regclass(%s)"
        " and confrelid = 'platform.tenant'::regclass",
        [table.full],
    ).fetchone()
    # The partitioned logs have none; without its column they are no tenant's at all.
    drop = f'drop constraint "{row[0]}"' if row else "alter tenant_id drop default"
    return f"alter table {table.full} {drop}"
