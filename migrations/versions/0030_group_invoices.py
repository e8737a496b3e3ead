"""Whom a group's monthly invoice is for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.add_column(
        "driver_group",
        sa.Column("invoice_to", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        schema="livery",
    )
