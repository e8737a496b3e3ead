"""A driver's own language, so that papers and mails which nobody asks for are in it."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("driver", sa.Column("language", sa.Text()), schema="livery")
