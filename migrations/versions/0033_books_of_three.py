"""The platform's own book: whom it invoices, and its papers as each tenant received them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.sql_files import statements
from tenants.rls import protect_all

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    for statement in statements("platform_book.sql"):
        op.execute(statement)
    op.execute("revoke all on function platform.platform_tenant_id() from public")
    op.execute("grant execute on function platform.platform_tenant_id() to app_rw")
    op.create_table(
        "billed_tenant",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("billed_id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("closed_until", sa.Date(), nullable=True),
        sa.Column("buyer", postgresql.JSONB(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_billed_tenant_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_billed_tenant")),
        sa.UniqueConstraint("tenant_id", "billed_id", name=op.f("uq_billed_tenant_tenant_id_billed_id")),
        sa.UniqueConstraint("tenant_id", "slug", name=op.f("uq_billed_tenant_tenant_id_slug")),
        schema="livery",
    )
    op.create_table(
        "platform_invoice",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("supplied_on", sa.Date(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("net_minor", sa.BigInteger(), nullable=False),
        sa.Column("vat_minor", sa.BigInteger(), nullable=False),
        sa.Column("gross_minor", sa.BigInteger(), nullable=False),
        sa.Column("content", postgresql.JSONB(), nullable=False),
        sa.Column("pdf", sa.LargeBinary(), nullable=False),
        sa.Column("xml", sa.LargeBinary(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind in ('invoice','credit_note')", name=op.f("ck_platform_invoice_kind")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["platform.tenant.id"], name=op.f("fk_platform_invoice_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_platform_invoice")),
        sa.UniqueConstraint("tenant_id", "number", name=op.f("uq_platform_invoice_tenant_id_number")),
        schema="livery",
    )
    op.add_column(
        "platform_fee",
        sa.Column("is_returned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="livery",
    )
    protect_all(op.execute, ["billed_tenant"])
    protect_all(op.execute, ["platform_invoice"], grants="select, insert")
