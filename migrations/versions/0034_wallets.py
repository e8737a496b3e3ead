"""Drivers' wallets, and the vouchers that fill them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenants.rls import protect_all

revision = "0034"
down_revision = "0033"

NOW = sa.text("now()")


def _owned(name: str) -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f(f"fk_{name}_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{name}")),
    ]


def _refers(name: str, column: str, target: str) -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column(column, sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", column], [f"livery.{target}.tenant_id", f"livery.{target}.id"],
            name=op.f(f"fk_{name}_tenant_id_{column}"),
        ),
    ]  # fmt: skip


def upgrade() -> None:
    ways = sa.Column("pays_by", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False)
    op.add_column("tenant_profile", ways, schema="livery")
    op.create_table(
        "wallet_credit",
        *_owned("wallet_credit"),
        *_refers("wallet_credit", "driver_id", "driver"),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("given_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        schema="livery",
    )
    op.create_table(
        "voucher_batch",
        *_owned("voucher_batch"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("paid_by", sa.Text(), nullable=False),
        sa.Column("code_count", sa.BigInteger(), nullable=False),
        sa.Column("uses_per_code", sa.BigInteger(), nullable=False),
        sa.Column("valid_until", sa.Date(), nullable=False),
        sa.Column("issued_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("paid_by in ('brand','buyer')", name=op.f("ck_voucher_batch_paid_by")),
        schema="livery",
    )
    op.create_table(
        "voucher",
        *_owned("voucher"),
        *_refers("voucher", "batch_id", "voucher_batch"),
        sa.Column("code_digest", sa.LargeBinary(), nullable=False),
        sa.Column("code_sealed", sa.Text(), nullable=False),
        sa.Column("masked", sa.Text(), nullable=False),
        sa.Column("used_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.UniqueConstraint("tenant_id", "code_digest", name=op.f("uq_voucher_tenant_id_code_digest")),
        schema="livery",
    )
    op.create_index("ix_voucher_batch", "voucher", ["tenant_id", "batch_id", "id"], schema="livery")
    op.create_table(
        "voucher_redemption",
        *_owned("voucher_redemption"),
        *_refers("voucher_redemption", "voucher_id", "voucher"),
        *_refers("voucher_redemption", "driver_id", "driver"),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.UniqueConstraint(
            "tenant_id", "voucher_id", "driver_id", name=op.f("uq_voucher_redemption_tenant_id_voucher_id_driver_id")
        ),
        schema="livery",
    )  # fmt: skip
    protect_all(op.execute, ["voucher_batch", "voucher"])
    # What moved money stands for ever, as the books do.
    protect_all(op.execute, ["wallet_credit", "voucher_redemption"], grants="select, insert")
