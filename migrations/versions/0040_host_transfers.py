"""Site hosts with accounts of their own, and what of a payment's fee is passed on to them; acquirers that collect."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0040"
down_revision = "0039"


def _text(table: str, name: str) -> None:
    column = sa.Column(name, sa.Text(), server_default="", nullable=False)
    op.add_column(table, column, schema="livery")


def _acquirers_check(rule: str) -> None:
    name = op.f("ck_acquirer_payout_amounts")
    op.drop_constraint(name, "acquirer_payout", schema="livery")
    op.create_check_constraint(name, "acquirer_payout", rule, schema="livery")


def upgrade() -> None:
    op.add_column(
        "payment", sa.Column("host_minor", sa.BigInteger(), server_default="0", nullable=False), schema="livery"
    )
    for name in ("host_party", "host_account_ref"):
        _text("payment", name)
    for name in ("account_provider", "account_ref"):
        _text("site_host", name)
    for column in (
        sa.Column("is_account_ready", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("account_due", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("account_seen_at", sa.DateTime(timezone=True)),
    ):
        op.add_column("site_host", column, schema="livery")
    op.add_column(
        "host_statement", sa.Column("transferred_minor", sa.BigInteger(), server_default="0", nullable=False),
        schema="livery",
    )  # fmt: skip
    _acquirers_check("fee_minor >= 0")
    op.create_index(
        "ix_payment_host", "payment", ["tenant_id", "host_party"], schema="livery",
        postgresql_where=sa.text("host_party <> ''"),
    )  # fmt: skip


def downgrade() -> None:
    _acquirers_check("amount_minor >= 0 and fee_minor >= 0")
    op.drop_index("ix_payment_host", "payment", schema="livery")
    op.drop_column("host_statement", "transferred_minor", schema="livery")
    for name in ("account_seen_at", "account_due", "is_account_ready", "account_ref", "account_provider"):
        op.drop_column("site_host", name, schema="livery")
    for name in ("host_account_ref", "host_party", "host_minor"):
        op.drop_column("payment", name, schema="livery")
