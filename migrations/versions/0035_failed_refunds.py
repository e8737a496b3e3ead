"""Refunds that a card's bank sent back, and what staff then paid by other means."""

import sqlalchemy as sa
from alembic import op

from tenants.rls import protect_all

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    for name in ("refund_failed_minor", "repaid_minor"):
        column = sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
        op.add_column("payment", column, schema="livery")
    op.create_table(
        "repayment",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("recorded_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_repayment_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "payment_id"], ["livery.payment.tenant_id", "livery.payment.id"],
            name=op.f("fk_repayment_tenant_id_payment_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_repayment")),
        schema="livery",
    )  # fmt: skip
    op.create_index("ix_repayment_payment", "repayment", ["tenant_id", "payment_id"], schema="livery")
    protect_all(op.execute, ["repayment"], grants="select, insert")
