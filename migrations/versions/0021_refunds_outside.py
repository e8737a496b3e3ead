"""What was given back of a payment at the provider itself: it stands in the books since."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    column = sa.Column("refunded_outside_minor", sa.BigInteger(), server_default="0", nullable=False)
    op.add_column("payment", column, schema="livery")
