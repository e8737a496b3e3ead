"""What was sampled at one instant is one row, read by a view with a row for each sampled value (decision 0023)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.sql_files import statements
from tenants.rls import for_each_tenant, protect_all

revision = "0025"
down_revision = "0024"

_MOVE = """
insert into livery.meter_instant (station_id, evse_no, session_id, sampled_at, station_at, received_at, digest, samples)
select station_id, evse_no, session_id, sampled_at, station_at, received_at, jsonb_hash_extended(samples, 0), samples
  from (
    select station_id, evse_no, session_id, sampled_at, station_at, received_at, jsonb_agg(
             jsonb_build_array(measurand, phase, location, context, unit, raw_value)
             || case when signed_data is not null then jsonb_build_array(value, signed_data)
                     when value is null then '[null]'
                     when raw_value ~ '^-?[0-9]{1,15}([.][0-9]{1,9})?$' and cast(raw_value as numeric) = value then '[]'
                     else jsonb_build_array(cast(trim_scale(value) as text)) end
             order by measurand, phase, location, context, raw_value) as samples
      from livery.meter_value group by 1, 2, 3, 4, 5, 6) told
on conflict do nothing"""

# As `ensure_day` makes them, of any day that the old table has.
_DAYS = """
do $$
declare day date; name text;
begin
  for day in select to_date(right(c.relname, 8), 'YYYYMMDD') from pg_inherits i join pg_class c on c.oid = i.inhrelid
              where i.inhparent = 'livery.meter_value'::regclass and c.relname ~ '_[0-9]{8}$' loop
    name := 'meter_instant_' || to_char(day, 'YYYYMMDD');
    execute format('create table livery.%I partition of livery.meter_instant for values from (%L) to (%L)', name,
                   day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
  end loop;
end $$"""


def upgrade() -> None:
    op.create_table(
        "meter_instant",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("sampled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("evse_no", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("station_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("samples", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "sampled_at", "station_id", "evse_no", "digest", name=op.f("pk_meter_instant")
        ),
        schema="livery",
        postgresql_partition_by="RANGE (sampled_at)",
    )
    protect_all(op.execute, ["meter_instant"])
    op.create_index(
        "ix_meter_instant_session", "meter_instant", ["tenant_id", "session_id", "sampled_at"], schema="livery"
    )
    execute = op.get_bind().exec_driver_sql
    execute("create table livery.meter_instant_default partition of livery.meter_instant default")
    execute(_DAYS.replace("%", "%%"))
    for_each_tenant(op.get_bind(), _MOVE)
    op.drop_table("meter_value", schema="livery")
    for statement in statements("instants.sql"):
        execute(statement.replace("%", "%%"))
    execute("grant select on livery.meter_value to app_rw")
    signature = execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'livery'::regnamespace"
        " and proname = 'ingest_readings'"
    ).scalar_one()
    execute(f"revoke all on function {signature} from public")
    execute(f"grant execute on function {signature} to app_rw")
