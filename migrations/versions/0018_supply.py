"""What a paper says of when and where the supply was: sealed with it. Papers from before stay as they were issued."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("invoice", sa.Column("supply", postgresql.JSONB(), server_default="{}", nullable=False),
                  schema="livery")  # fmt: skip
