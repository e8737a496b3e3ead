"""Refunds that wait for a second member of staff, and what payers dispute at their bank."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenants.rls import for_each_tenant, protect_all

revision = "0029"
down_revision = "0028"


def _owned(name: str) -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f(f"fk_{name}_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{name}")),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "payment_id"], ["livery.payment.tenant_id", "livery.payment.id"],
            name=op.f(f"fk_{name}_tenant_id_payment_id"),
        ),
    ]  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "refund_request",
        *_owned("refund_request"),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("wish", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_by_kind", sa.Text(), nullable=False),
        sa.Column("asked_by_id", sa.Uuid(), nullable=True),
        sa.Column("key_of", sa.Text(), server_default="", nullable=False),
        sa.Column("decided_by", sa.Text(), server_default="", nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("op_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state in ('waiting','approved','rejected')", name=op.f("ck_refund_request_state")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "op_id"], ["livery.payment_op.tenant_id", "livery.payment_op.id"],
            name=op.f("fk_refund_request_tenant_id_op_id"),
        ),
        schema="livery",
    )  # fmt: skip
    op.create_index(
        "uq_refund_request_waiting", "refund_request", ["tenant_id", "payment_id"], unique=True, schema="livery",
        postgresql_where=sa.text("state = 'waiting'"),
    )  # fmt: skip
    op.create_table(
        "dispute",
        *_owned("dispute"),
        sa.Column("account_ref", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("network_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("is_withdrawn", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_reinstated", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("fee_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("evidence_due_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state in ('warning_needs_response','warning_under_review','warning_closed','needs_response',"
            "'under_review','lost','won')",
            name=op.f("ck_dispute_state"),
        ),
        sa.UniqueConstraint("tenant_id", "account_ref", "ref", name=op.f("uq_dispute_tenant_id_account_ref_ref")),
        schema="livery",
    )
    op.create_index("ix_dispute_payment", "dispute", ["tenant_id", "payment_id"], schema="livery")
    protect_all(op.execute, ["refund_request", "dispute"])
    three_d_secure = sa.Column("three_d_secure", sa.Text(), server_default="", nullable=False)
    op.add_column("payment", three_d_secure, schema="livery")
    limit = sa.Column("refund_limit_minor", sa.BigInteger(), server_default="20000", nullable=False)
    op.add_column("payment_account", limit, schema="livery")
    # What `CardCurrency.refund_limit_minor` makes of the hold.
    for_each_tenant(
        op.get_bind(), "update livery.payment_account set refund_limit_minor = hold_dc_minor * 10 / 3 / 1000 * 1000"
    )
