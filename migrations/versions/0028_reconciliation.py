"""Payouts; the provider's books with their times; differences that stand until they are gone or explained."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenants.rls import protect_all

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.create_table(
        "payout",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("account_ref", sa.Text(), nullable=False),
        sa.Column("provider_ref", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("arrives_on", sa.Date(), nullable=False),
        sa.Column("is_automatic", sa.Boolean(), nullable=False),
        sa.Column("items_minor", sa.BigInteger(), nullable=True),
        sa.Column("failure", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "state in ('pending','in_transit','paid','failed','canceled')", name=op.f("ck_payout_state")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_payout_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_payout")),
        sa.UniqueConstraint(
            "tenant_id", "account_ref", "provider_ref", name=op.f("uq_payout_tenant_id_account_ref_provider_ref")
        ),
        schema="livery",
    )
    op.create_index("ix_payout_list", "payout", ["tenant_id", "created_at", "id"], schema="livery")
    protect_all(op.execute, ["payout"])
    # Nobody has written to these three so far.
    op.drop_column("provider_balance_txn", "available_on", schema="livery")
    for column in (
        sa.Column("charge_ref", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_pending", sa.Boolean(), nullable=False),
    ):
        op.add_column("provider_balance_txn", column, schema="livery")
    for name, columns in (
        ("made", ["tenant_id", "account_ref", "created_at"]), ("charge", ["tenant_id", "charge_ref"]),
        ("payout", ["tenant_id", "payout_ref"]),
    ):  # fmt: skip
        op.create_index(f"ix_provider_balance_txn_{name}", "provider_balance_txn", columns, schema="livery")
    op.add_column("recon_run", sa.Column("is_green", sa.Boolean(), nullable=False), schema="livery")
    for column in (
        sa.Column("account_ref", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
    ):
        op.add_column("recon_item", column, schema="livery")
    op.create_index(
        "uq_recon_item_standing", "recon_item", ["tenant_id", "account_ref", "category", "key"], unique=True,
        postgresql_where=sa.text("gone_at is null"), schema="livery",
    )  # fmt: skip
    for column in (
        sa.Column("opening", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("due", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("schedule", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("payment_account", column, schema="livery")
