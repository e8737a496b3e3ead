"""Paying by card: the tenant's account, holds and their hosted pages, the provider's news, the sandbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.sql_files import statements
from tenants.rls import protect_all

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "payment_account",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("account_ref", sa.Text(), nullable=False),
        sa.Column("is_ready", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_live", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("fee_percent", sa.Numeric(6, 3), server_default="0", nullable=False),
        sa.Column("fee_fixed_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("hold_ac_minor", sa.BigInteger(), server_default="3000", nullable=False),
        sa.Column("hold_dc_minor", sa.BigInteger(), server_default="6000", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_payment_account")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_payment_account_tenant_id")),
        sa.UniqueConstraint("tenant_id", "provider", name=op.f("uq_payment_account_tenant_id_provider")),
        sa.UniqueConstraint("tenant_id", "account_ref", name=op.f("uq_payment_account_tenant_id_account_ref")),
        schema="livery",
    )  # fmt: skip
    protect_all(op.execute, ["payment_account"])
    for name in ("checkout_ref", "checkout_url", "charge_ref"):
        op.add_column("payment", sa.Column(name, sa.Text()), schema="livery")
    for name in ("payer_email", "method", "failure"):
        op.add_column(
            "payment", sa.Column(name, sa.Text(), server_default="", nullable=False), schema="livery"
        )
    for name in ("checkout_expires_at", "observed_at"):
        op.add_column("payment", sa.Column(name, sa.DateTime(timezone=True)), schema="livery")
    op.add_column("payment", sa.Column("provider_fee_minor", sa.BigInteger(), server_default="0", nullable=False),
                  schema="livery")  # fmt: skip
    op.add_column("payment", sa.Column("is_live", sa.Boolean(), server_default=sa.text("false"), nullable=False),
                  schema="livery")  # fmt: skip
    op.create_unique_constraint("uq_payment_tenant_id_account_ref_checkout_ref", "payment",
                                ["tenant_id", "account_ref", "checkout_ref"], schema="livery")  # fmt: skip
    op.create_index("ix_payment_list", "payment", ["tenant_id", "created_at", "id"], schema="livery")
    op.add_column("charging_session", sa.Column("cost_cap_minor", sa.BigInteger()), schema="livery")
    op.add_column("charging_session", sa.Column("not_started", sa.Text()), schema="livery")
    op.create_table(
        "webhook_event",
        sa.Column("account_ref", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("is_live", sa.Boolean(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("account_ref", "event_id", name=op.f("pk_webhook_event")),
        schema="platform",
    )
    execute = op.get_bind().exec_driver_sql
    for statement in statements("payments.sql") + statements("sandbox.sql"):
        execute(statement)
    execute("grant select, delete on platform.webhook_event to platform_rw")
    for function in (
        "put_payment_route(text)", "resolve_payment_account(text)", "take_webhook(text, text, text, boolean, jsonb)",
    ):  # fmt: skip
        execute(f"revoke all on function platform.{function} from public")
        execute(f"grant execute on function platform.{function} to app_rw")
