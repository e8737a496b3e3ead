"""A start knows the press that asked for it: pressed twice it is one."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.add_column("charging_session", sa.Column("wish", sa.Text()), schema="livery")
    op.create_unique_constraint(
        "uq_charging_session_tenant_id_wish", "charging_session", ["tenant_id", "wish"], schema="livery"
    )
