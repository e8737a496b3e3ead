"""The platform's fee, dated."""

import sqlalchemy as sa
from alembic import op

from tenants.rls import protect_all

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    op.create_table(
        "platform_fee",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("percent", sa.Numeric(6, 3), nullable=False),
        sa.Column("fixed_minor", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "percent >= 0 and percent <= 50 and fixed_minor >= 0", name=op.f("ck_platform_fee_range")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_platform_fee_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "account_id"], ["livery.payment_account.tenant_id", "livery.payment_account.id"],
            name=op.f("fk_platform_fee_tenant_id_account_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_platform_fee")),
        sa.UniqueConstraint(
            "tenant_id", "account_id", "valid_from", name=op.f("uq_platform_fee_tenant_id_account_id_valid_from")
        ),
        schema="livery",
    )  # fmt: skip
    protect_all(op.execute, ["platform_fee"])
