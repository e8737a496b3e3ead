"""Sessions whose saved card pays by several holds, and holds that can be raised."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    for name in ("is_incremental", "is_extended"):
        column = sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)
        op.add_column("payment", column, schema="livery")
    column = sa.Column("max_legs", sa.Integer(), server_default="3", nullable=False)
    op.add_column("payment_account", column, schema="livery")
    op.create_check_constraint(
        op.f("ck_payment_account_max_legs"), "payment_account", "max_legs between 1 and 10", schema="livery"
    )
