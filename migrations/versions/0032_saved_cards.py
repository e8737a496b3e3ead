"""Cards that drivers save, and payments that are asked of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenants.rls import protect_all

revision = "0032"
down_revision = "0031"


def _own(table: str, *parts: object) -> None:
    op.create_table(
        table,
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        *parts,  # type: ignore[arg-type]
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f(f"fk_{table}_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{table}")),
        schema="livery",
    )


def upgrade() -> None:
    _own(
        "payer",
        sa.Column("driver_id", sa.Uuid(), nullable=False),
        sa.Column("account_ref", sa.Text(), nullable=False),
        sa.Column("customer_ref", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "driver_id"], ["livery.driver.tenant_id", "livery.driver.id"],
            name=op.f("fk_payer_tenant_id_driver_id"),
        ),
        sa.UniqueConstraint(
            "tenant_id", "account_ref", "driver_id", name=op.f("uq_payer_tenant_id_account_ref_driver_id")
        ),
    )  # fmt: skip
    _own(
        "saved_card",
        sa.Column("payer_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("request", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        *(
            sa.Column(name, sa.Text(), nullable=True)
            for name in ("checkout_ref", "checkout_url", "setup_ref", "provider_ref")
        ),
        sa.Column("brand", sa.Text(), server_default="", nullable=False),
        sa.Column("last4", sa.Text(), server_default="", nullable=False),
        sa.Column("exp_month", sa.BigInteger(), nullable=True),
        sa.Column("exp_year", sa.BigInteger(), nullable=True),
        sa.Column("fingerprint", sa.Text(), server_default="", nullable=False),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("detached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state in ('pending','active','removed','failed')", name=op.f("ck_saved_card_state")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "payer_id"], ["livery.payer.tenant_id", "livery.payer.id"],
            name=op.f("fk_saved_card_tenant_id_payer_id"),
        ),
        sa.UniqueConstraint("tenant_id", "provider_ref", name=op.f("uq_saved_card_tenant_id_provider_ref")),
        sa.UniqueConstraint("tenant_id", "checkout_ref", name=op.f("uq_saved_card_tenant_id_checkout_ref")),
    )  # fmt: skip
    op.create_index("ix_saved_card_payer", "saved_card", ["tenant_id", "payer_id"], schema="livery")
    op.create_index(
        "uq_saved_card_default", "saved_card", ["tenant_id", "payer_id"], unique=True, schema="livery",
        postgresql_where=sa.text("is_default"),
    )  # fmt: skip
    protect_all(op.execute, ["payer", "saved_card"])
    op.add_column("payment", sa.Column("saved_card_id", sa.Uuid(), nullable=True), schema="livery")
    op.create_foreign_key(
        op.f("fk_payment_tenant_id_saved_card_id"), "payment", "saved_card", ["tenant_id", "saved_card_id"],
        ["tenant_id", "id"], source_schema="livery", referent_schema="livery",
    )  # fmt: skip
    # An Authorize asks both: what does this driver owe, have they a card.
    op.create_index(
        "ix_payment_saved_card", "payment", ["tenant_id", "saved_card_id"], schema="livery",
        postgresql_where=sa.text("saved_card_id is not null"),
    )  # fmt: skip
    op.create_index("ix_payer_driver", "payer", ["tenant_id", "driver_id"], schema="livery")
    op.add_column(
        "payment_account", sa.Column("card_on_file", sa.Text(), server_default="optional", nullable=False),
        schema="livery",
    )  # fmt: skip
    op.create_check_constraint(
        op.f("ck_payment_account_card_on_file"), "payment_account",
        "card_on_file in ('off','optional','required')", schema="livery",
    )  # fmt: skip
