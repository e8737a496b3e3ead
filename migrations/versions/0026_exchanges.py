"""A hot message and its answer are one row of the log, an EVSE's figures are its session's, samples are text (decision
0024)."""

import sqlalchemy as sa
from alembic import op

from migrations.sql_files import statements

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    execute("drop view livery.meter_value")
    # Readings first: a verb writes them before the log, and locks are taken in its order.
    execute("alter table livery.meter_instant alter column samples type json using cast(samples as json)")
    op.add_column("ocpp_message", sa.Column("answered_at", sa.DateTime(timezone=True)), schema="livery")
    for statement in statements("exchanges.sql"):
        execute(statement.replace("%", "%%"))
    execute("grant select on livery.meter_value, livery.ocpp_frame, livery.evse_figures to app_rw")
    signature = execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'livery'::regnamespace"
        " and proname = 'ingest_readings'"
    ).scalar_one()
    execute(f"revoke all on function {signature} from public")
    execute(f"grant execute on function {signature} to app_rw")
