"""Schemas and the function that says which tenant a transaction serves."""

from alembic import op

from tenants.rls import TID_FUNCTION

revision = "0001"
down_revision = None


def upgrade() -> None:
    for schema in ("livery", "platform", "procrastinate"):
        op.execute(f"create schema {schema}")
    op.execute(TID_FUNCTION)
    op.execute("grant execute on function livery.tid() to public")
    op.execute("grant usage on schema livery to app_rw")
    op.execute("grant usage on schema platform to app_rw, platform_rw")
