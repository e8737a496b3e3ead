"""Drivers' accounts: logins of a mailbox, drivers who left, and how their sessions are found."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    for table in ("login_link", "login_session"):
        op.alter_column(table, "staff_member_id", nullable=True, schema="livery")
        op.add_column(table, sa.Column("email", sa.Text()), schema="livery")
        op.create_check_constraint(
            op.f(f"ck_{table}_whose"), table, "(staff_member_id is null) <> (email is null)", schema="livery"
        )
    op.add_column("driver", sa.Column("deleted_at", sa.DateTime(timezone=True)), schema="livery")
    op.create_index(
        "ix_charging_session_driver", "charging_session", ["tenant_id", "driver_id", "started_at"], schema="livery"
    )
    op.create_index("ix_payment_payer", "payment", ["tenant_id", "payer_email"], schema="livery")
