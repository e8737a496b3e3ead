"""A hot message and its answer are one row of the log, an EVSE's figures are its session's, samples are text (decision
0024)."""

import sqlalchemy as sa
from alembic import op

from migrations.sql_files import statements

revision = "0026"
down_revision = "0025"

# As `ingest.as_samples` writes them: the digest is over the text.
_COMPACT = """
create function pg_temp.compact(samples jsonb) returns text immutable language sql as $$
select '[' || string_agg((select '[' || string_agg(coalesce(cast(to_json(x.v) as text), 'null'), ',' order by x.n) || ']'
                            from jsonb_array_elements_text(s.one) with ordinality x(v, n)), ',' order by s.n) || ']'
  from jsonb_array_elements(samples) with ordinality s(one, n) $$"""


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    op.add_column("ocpp_message", sa.Column("answered_at", sa.DateTime(timezone=True)), schema="livery")
    execute("drop view livery.meter_value")
    execute(_COMPACT)
    execute(
        "alter table livery.meter_instant alter column digest type bigint"
        " using hashtextextended(pg_temp.compact(samples), 0),"
        " alter column samples type json using cast(pg_temp.compact(samples) as json)"
    )
    execute("drop function pg_temp.compact(jsonb)")
    for statement in statements("exchanges.sql"):
        execute(statement.replace("%", "%%"))
    execute("grant select on livery.meter_value, livery.ocpp_frame, livery.evse_figures to app_rw")
    signature = execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'livery'::regnamespace"
        " and proname = 'ingest_readings'"
    ).scalar_one()
    execute(f"revoke all on function {signature} from public")
    execute(f"grant execute on function {signature} to app_rw")
