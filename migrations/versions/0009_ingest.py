"""The batched ingest of the gateway's hot messages, and the raw log's one key."""

from alembic import op

from migrations.sql_files import statements

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    for statement in statements("ingest.sql"):
        execute(statement.replace("%", "%%"))
    signatures = execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'livery'::regnamespace"
        " and proname like 'ingest_%%'"
    ).scalars()
    for signature in list(signatures):
        execute(f"revoke all on function {signature} from public")
        execute(f"grant execute on function {signature} to app_rw")
