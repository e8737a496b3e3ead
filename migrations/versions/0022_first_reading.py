"""A meter whose begin was never told counts from its first reading, and the cap looks at changes of state."""

import sqlalchemy as sa
from alembic import op

from migrations.sql_files import statements
from tenants.rls import for_each_tenant

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("session_live", sa.Column("first_wh", sa.BigInteger()), schema="livery")
    op.add_column("session_live", sa.Column("metered_at", sa.DateTime(timezone=True)), schema="livery")
    execute = op.get_bind().exec_driver_sql
    for statement in statements("first_reading.sql"):
        execute(statement.replace("%", "%%"))
    for_each_tenant(
        op.get_bind(), "update livery.session_live set metered_at = reading_at where meter_wh is not null"
    )
