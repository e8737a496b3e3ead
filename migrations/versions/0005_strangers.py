"""The strangers at the gateway: a pool per brand, the oldest gives way, and a month later it is forgotten."""

from alembic import op

from migrations.sql_files import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    for statement in statements("strangers.sql"):
        execute(statement)
    for function in ("report_unclaimed(text, text, text, text)", "own_unclaimed()"):
        execute(f"revoke all on function platform.{function} from public")
        execute(f"grant execute on function platform.{function} to app_rw")
