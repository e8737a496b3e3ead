"""Vouchers above what one person may give away alone wait for a second one; payments that stand are found at once."""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    for name, default in (("state", "issued"), ("asked_by_kind", ""), ("key_of", ""), ("decided_by", ""), ("note", "")):
        column = sa.Column(name, sa.Text(), server_default=default, nullable=False)
        op.add_column("voucher_batch", column, schema="livery")
    op.add_column("voucher_batch", sa.Column("asked_by_id", sa.Uuid()), schema="livery")
    op.add_column("voucher_batch", sa.Column("decided_at", sa.DateTime(timezone=True)), schema="livery")
    states = "state in ('waiting','issued','rejected')"
    op.create_check_constraint(op.f("ck_voucher_batch_state"), "voucher_batch", states, schema="livery")
    standing = "state in ('created','requires_action','processing','authorized','capturing') or dispute = 'open'"
    op.create_index(
        "ix_payment_standing", "payment", ["tenant_id", "id"], schema="livery", postgresql_where=sa.text(standing)
    )
