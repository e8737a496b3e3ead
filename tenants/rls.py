"""The policy every tenant-owned table gets. Migrations and the isolation proof use the same words (`isolation.md`)."""

from collections.abc import Callable, Iterable
from typing import Any

SCHEMA = "livery"
APP_ROLE = "app_rw"
BASE_POLICY = "true"
TENANT_POLICY = "(tenant_id = ( SELECT livery.tid() AS tid))"

# STABLE, never IMMUTABLE: a cached plan would serve one tenant's rows to another. No `set search_path`, which would
# stop PostgreSQL from inlining it; the RETURN body binds its names when the function is made.
TID_FUNCTION = """
create function livery.tid() returns uuid language sql stable parallel safe
    return nullif(current_setting('livery.tenant_id', true), '')::uuid
"""


def protect(table: str, *, grants: str = "select, insert, update, delete") -> list[str]:
    """The statements that make `livery.<table>` tenant-owned. Never ALL: TRUNCATE ignores RLS."""
    name = f"{SCHEMA}.{table}"
    return [
        f"alter table {name} enable row level security",
        f"alter table {name} force row level security",
        f"create policy base on {name} using (true) with check (true)",
        f"create policy tenant on {name} as restrictive"
        f" using (tenant_id = (select livery.tid())) with check (tenant_id = (select livery.tid()))",
        f"grant {grants} on {name} to {APP_ROLE}",
    ]


def protect_all(execute: Callable[[str], Any], tables: Iterable[str], **options: str) -> None:
    for table in tables:
        for statement in protect(table, **options):
            execute(statement)


def for_each_tenant(connection: Any, sql: str, **parameters: Any) -> int:
    """Runs a data change of a migration once per tenant, and says how many rows it touched.

    FORCE binds the owner too: without the tenant set an update changes 0 rows and says nothing.
    """
    from sqlalchemy import text

    count = 0
    for (tenant_id,) in connection.execute(text("select id from platform.tenant order by id")).all():
        connection.execute(text("select set_config('livery.tenant_id', :t, true)"), {"t": str(tenant_id)})
        count += connection.execute(text(sql), parameters).rowcount
    connection.execute(text("select set_config('livery.tenant_id', '', true)"))
    return count
