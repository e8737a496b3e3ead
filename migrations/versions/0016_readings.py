"""The batched ingest reads its arrays once instead of slicing them per tenant, and takes the ids of what it logs; the
raw log has one index, by which it is read."""

from alembic import op

from migrations.sql_files import statements

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    for statement in statements("readings.sql"):
        execute(statement.replace("%", "%%"))
    signature = execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'livery'::regnamespace"
        " and proname = 'ingest_readings'"
    ).scalar_one()
    execute(f"revoke all on function {signature} from public")
    execute(f"grant execute on function {signature} to app_rw")
    execute("alter table livery.ocpp_message drop constraint pk_ocpp_message")
    execute("drop index livery.ix_ocpp_message_station")
    execute(
        "alter table livery.ocpp_message add constraint pk_ocpp_message primary key (tenant_id, station_id, id, at)"
    )
