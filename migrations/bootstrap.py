"""What a superuser does once per cluster: roles, the database, and the event trigger that forgets no table.

`livery up` runs it on the embedded server; `docs/operations.md` shows it for a managed one.
"""

from collections.abc import Mapping

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, make_url

LOGIN_ROLES = ("migrate", "app_rw", "platform_rw", "queue_rw", "backup")
DATABASE = "livery"

FORCE_RLS = """
create or replace function guard.force_rls() returns event_trigger language plpgsql as $$
declare r record; t record;
begin
  for r in select objid, schema_name from pg_event_trigger_ddl_commands()
           where command_tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE')
             and object_type = 'table' and schema_name = 'livery' loop
    select relrowsecurity, relforcerowsecurity into t from pg_class where oid = r.objid;
    -- Two separate questions: one joint "not (enabled and forced)" calls this trigger without end.
    if not t.relrowsecurity then
      execute format('alter table %s enable row level security', r.objid::regclass);
    end if;
    if not t.relforcerowsecurity then
      execute format('alter table %s force row level security', r.objid::regclass);
    end if;
  end loop;
end $$
"""


def passwords_of(*urls: str | None) -> tuple[dict[str, str], str]:
    """(passwords by role, database) as the roles' own addresses say. ValueError where these do not name a role of ours,
    a password and all the same database."""
    passwords: dict[str, str] = {}
    databases: set[str] = set()
    for url in filter(None, urls):
        parts = make_url(url)
        if parts.username not in LOGIN_ROLES or not parts.password or not parts.database:
            raise ValueError(
                f"an address for {parts.username or 'nobody'} lacks a known role, a password or a database"
            )
        passwords[parts.username] = str(parts.password)
        databases.add(parts.database)
    if len(databases) != 1:
        raise ValueError(f"the roles' addresses must lead to one database, not to {sorted(databases)}")
    return passwords, databases.pop()


def bootstrap(superuser_url: str, passwords: Mapping[str, str], database: str = DATABASE) -> None:
    """Idempotent. `superuser_url` leads to any database of the cluster; a role without one of `passwords` keeps what it
    has, and begins with none."""
    engine = create_engine(superuser_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        _roles(connection, passwords)
        if not connection.scalar(text("select 1 from pg_database where datname = :d"), {"d": database}):
            connection.exec_driver_sql(f"create database {database} owner owner")
            connection.exec_driver_sql(f"revoke all on database {database} from public")
            connection.exec_driver_sql(
                f"grant connect on database {database} to migrate, app_rw, platform_rw, queue_rw, backup"
            )
        # procrastinate's names are unqualified: its role finds them through search_path (recipes.md 2).
        connection.exec_driver_sql(
            f"alter role queue_rw in database {database} set search_path = procrastinate, pg_catalog"
        )
        connection.exec_driver_sql(
            f"alter role app_rw in database {database} set search_path = livery, pg_catalog"
        )
    engine.dispose()
    inside = create_engine(make_url(superuser_url).set(database=database), isolation_level="AUTOCOMMIT")
    with inside.connect() as connection:
        prepare_database(connection)
    inside.dispose()


def _roles(connection: Connection, passwords: Mapping[str, str]) -> None:
    known = set(connection.scalars(text("select rolname from pg_roles")))
    if "owner" not in known:
        connection.exec_driver_sql("create role owner nologin nosuperuser nobypassrls")
    for role in LOGIN_ROLES:
        password = passwords.get(role, "").replace("'", "''")
        verb = "alter" if role in known else "create"
        connection.exec_driver_sql(
            f"{verb} role {role} login nosuperuser nobypassrls nocreatedb nocreaterole noreplication"
            + (f" password '{password}'" if password else "")
        )
    connection.exec_driver_sql("grant owner to migrate")
    connection.exec_driver_sql("grant pg_read_all_data to backup")
    connection.exec_driver_sql("alter role backup bypassrls")


def prepare_database(connection: Connection) -> None:
    """The event trigger (a superuser's) and its schema; also for a database that exists already."""
    connection.exec_driver_sql("create schema if not exists guard")
    connection.exec_driver_sql("revoke all on schema public from public")
    connection.exec_driver_sql(FORCE_RLS.replace("%", "%%"))  # the driver reads % as a placeholder
    connection.exec_driver_sql("drop event trigger if exists force_rls")
    connection.exec_driver_sql(
        "create event trigger force_rls on ddl_command_end"
        " when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE')"
        " execute function guard.force_rls()"
    )
