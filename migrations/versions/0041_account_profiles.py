"""Who bears what is lost with an operator's account at the provider."""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    column = sa.Column("losses_borne_by", sa.Text(), server_default="stripe", nullable=False)
    op.add_column("payment_account", column, schema="livery")


def downgrade() -> None:
    op.drop_column("payment_account", "losses_borne_by", schema="livery")
