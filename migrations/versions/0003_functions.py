"""Doors into schema platform, the queue, day partitions, and the guards of what never changes."""

from collections.abc import Callable

from alembic import op
from procrastinate import PsycopgConnector
from procrastinate.schema import SchemaManager

from migrations.sql_files import statements

revision = "0003"
down_revision = "0002"

APPEND_ONLY = (
    "ledger_txn", "ledger_entry", "cdr", "invoice", "invoice_line", "tariff_version", "audit_entry", "event",
)  # fmt: skip


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql

    def run(sql: str) -> None:
        execute(sql.replace("%", "%%"))  # the driver reads % as a placeholder

    run("grant select, insert, update, delete on all tables in schema platform to platform_rw")
    run("revoke update, delete on platform.audit_entry from platform_rw")
    for statement in statements("platform.sql"):
        run(statement)
    run("revoke all on all functions in schema platform from public")
    run("grant execute on all functions in schema platform to app_rw")
    _queue(run)
    for statement in statements("days.sql") + statements("guards.sql"):
        run(statement)
    for function in ("ensure_day(text, date)", "drop_day(text, date)", "old_days(text)"):
        run(f"revoke all on function livery.{function} from public")
        run(f"grant execute on function livery.{function} to app_rw")
    for parent in ("meter_value", "ocpp_message"):
        run(f"create table livery.{parent}_default partition of livery.{parent} default")
        run(f"select livery.ensure_day('{parent}', current_date + n) from generate_series(0, 3) n")
    for table in APPEND_ONLY:
        run(f"revoke update, delete on livery.{table} from app_rw")
        run(
            f"create trigger never_change before update or delete on livery.{table}"
            " for each row execute function livery.refuse_change()"
        )
        run(
            f"create trigger never_truncate before truncate on livery.{table}"
            " for each statement execute function livery.refuse_change()"
        )


def _queue(run: Callable[[str], None]) -> None:
    run("set local search_path = procrastinate, public")
    run(SchemaManager(PsycopgConnector()).get_schema())
    run("reset search_path")
    for statement in statements("queue.sql"):
        run(statement)
