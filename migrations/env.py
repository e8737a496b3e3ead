"""Alembic's environment: every slice's models, only schema `livery` and `platform`, as role owner."""

from collections.abc import MutableMapping
from typing import Any

from alembic import context
from alembic.operations import ops
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from migrations.models import Base

PARTITIONED = ("meter_instant", "ocpp_message")


def include_name(name: str | None, kind: str, parents: MutableMapping[Any, str | None]) -> bool:
    if kind == "schema":
        return name in ("livery", "platform")
    if kind == "table" and name and parents.get("schema_name") == "livery":
        return not any(name.startswith(f"{table}_") for table in PARTITIONED)
    return True


def include_object(found: object, _name: str | None, _kind: str, _reflected: bool, _other: object) -> bool:
    return not getattr(found, "info", {}).get("is_view")


def protect_new_tables(_context: object, _revision: object, directives: list[ops.MigrationScript]) -> None:
    """Each new tenant-owned table of a generated migration is followed by `protect(...)`."""
    for script in directives:
        upgrade = getattr(script, "upgrade_ops", None)
        if upgrade is None:
            continue
        for operation in list(upgrade.ops):
            if isinstance(operation, ops.CreateTableOp) and operation.schema == "livery":
                statement = ops.ExecuteSQLOp(f"PROTECT {operation.table_name}")
                upgrade.ops.insert(upgrade.ops.index(operation) + 1, statement)


def run() -> None:
    connectable = context.config.attributes.get("connection")
    if connectable is None:
        url = context.config.get_main_option("sqlalchemy.url") or ""
        connectable = create_engine(url, poolclass=NullPool).connect()
    with connectable as connection:
        connection.execute(text("set role owner"))
        connection.execute(text("select pg_advisory_lock(hashtext('livery.migrate'))"))
        connection.execute(text("set lock_timeout = '5s'"))
        connection.commit()
        context.configure(
            connection=connection, target_metadata=Base.metadata, include_schemas=True, include_name=include_name,
            include_object=include_object,
            version_table="alembic_version", version_table_schema="alembic", transaction_per_migration=True,
            compare_server_default=False, process_revision_directives=protect_new_tables,
        )  # fmt: skip
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()


run()
