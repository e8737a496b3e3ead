"""Card terminals of others: what they tell of authorisations and settlements, and what their acquirers pay out."""

import sqlalchemy as sa
from alembic import op

from tenants.rls import protect_all

revision = "0037"
down_revision = "0036"

NOW = sa.text("now()")


def _owned(name: str) -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f(f"fk_{name}_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{name}")),
    ]


def _refers(name: str, column: str, target: str, *, nullable: bool) -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column(column, sa.Uuid(), nullable=nullable),
        sa.ForeignKeyConstraint(
            ["tenant_id", column], [f"livery.{target}.tenant_id", f"livery.{target}.id"],
            name=op.f(f"fk_{name}_tenant_id_{column}"),
        ),
    ]  # fmt: skip


def _texts(*names: str, default: str | None = None) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.Text(), server_default=default, nullable=False) for name in names]


def _times(**names: bool) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.DateTime(timezone=True), nullable=nullable) for name, nullable in names.items()]


def upgrade() -> None:
    op.create_table(
        "payment_terminal",
        *_owned("payment_terminal"),
        *_texts("name", "vendor", "serial", "acquirer", "contract_no"),
        *_refers("payment_terminal", "location_id", "location", nullable=False),
        *_refers("payment_terminal", "station_id", "charging_station", nullable=True),
        *_times(retired_at=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.UniqueConstraint("tenant_id", "serial", name=op.f("uq_payment_terminal_tenant_id_serial")),
        schema="livery",
    )
    op.create_table(
        "terminal_record",
        *_owned("terminal_record"),
        *_refers("terminal_record", "terminal_id", "payment_terminal", nullable=False),
        *_texts("record_ref", "transaction_ref", "kind"),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        *_texts("currency"),
        *_times(at=False),
        *_texts("card", "approval_code", default=""),
        *_refers("terminal_record", "evse_id", "evse", nullable=True),
        *_texts("session_ref", default=""),
        *_refers("terminal_record", "payment_id", "payment", nullable=True),
        *_times(dismissed_at=True),
        *_texts("note", "decided_by", default=""),
        *_texts("told_by"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.UniqueConstraint(
            "tenant_id", "terminal_id", "record_ref", name=op.f("uq_terminal_record_tenant_id_terminal_id_record_ref")
        ),
        sa.CheckConstraint("kind in ('authorized','settled','reversed')", name=op.f("ck_terminal_record_kind")),
        sa.CheckConstraint("amount_minor >= 0", name=op.f("ck_terminal_record_amount")),
        schema="livery",
    )
    transaction = ["tenant_id", "terminal_id", "transaction_ref"]
    op.create_index(
        "uq_terminal_record_settled", "terminal_record", transaction, unique=True, schema="livery",
        postgresql_where=sa.text("kind = 'settled'"),
    )  # fmt: skip
    op.create_index("ix_terminal_record_transaction", "terminal_record", transaction, schema="livery")
    op.create_index(
        "ix_terminal_record_waiting", "terminal_record", ["tenant_id", "id"], schema="livery",
        postgresql_where=sa.text("payment_id is null and dismissed_at is null"),
    )  # fmt: skip
    op.create_table(
        "acquirer_payout",
        *_owned("acquirer_payout"),
        *_texts("contract", "reference"),
        sa.Column("paid_on", sa.Date(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("fee_minor", sa.BigInteger(), nullable=False),
        *_texts("currency", "recorded_by"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.UniqueConstraint(
            "tenant_id", "contract", "reference", name=op.f("uq_acquirer_payout_tenant_id_contract_reference")
        ),
        sa.CheckConstraint("amount_minor >= 0 and fee_minor >= 0", name=op.f("ck_acquirer_payout_amounts")),
        schema="livery",
    )
    protect_all(op.execute, ["payment_terminal"])
    # What was told stands; only whose it is may change.
    protect_all(op.execute, ["terminal_record"], grants="select, insert, update")
    protect_all(op.execute, ["acquirer_payout"], grants="select, insert")
