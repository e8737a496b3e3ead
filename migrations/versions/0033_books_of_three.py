"""The platform's own book: whom it invoices, and its papers as each tenant received them. Site hosts' shares."""

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
    _site_hosts()
    protect_all(op.execute, ["billed_tenant", "site_host", "host_contract", "host_statement"])
    protect_all(op.execute, ["platform_invoice"], grants="select, insert")


def _site_hosts() -> None:
    op.create_table(
        "site_host",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("postal_code", sa.Text(), nullable=False),
        sa.Column("city", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("vat_id", sa.Text(), server_default="", nullable=False),
        sa.Column("email", sa.Text(), server_default="", nullable=False),
        sa.Column("language", sa.Text(), server_default="en", nullable=False),
        sa.Column("self_billing_since", sa.Date(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("language in ('en','de')", name=op.f("ck_site_host_language")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_site_host_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_site_host")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_site_host_tenant_id_name")),
        schema="livery",
    )
    op.create_table(
        "host_contract",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("site_host_id", sa.Uuid(), nullable=False),
        sa.Column("location_id", sa.Uuid(), nullable=False),
        sa.Column("valid_from", sa.Date(), nullable=False),
        sa.Column("percent", sa.Numeric(6, 3), nullable=False),
        sa.Column("per_kwh", sa.Numeric(12, 4), nullable=False),
        sa.Column("per_session", sa.Numeric(12, 4), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "percent between 0 and 100 and per_kwh >= 0 and per_session >= 0", name=op.f("ck_host_contract_range")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_host_contract_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "site_host_id"], ["livery.site_host.tenant_id", "livery.site_host.id"],
            name=op.f("fk_host_contract_tenant_id_site_host_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "location_id"], ["livery.location.tenant_id", "livery.location.id"],
            name=op.f("fk_host_contract_tenant_id_location_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_host_contract")),
        sa.UniqueConstraint(
            "tenant_id", "location_id", "valid_from", name=op.f("uq_host_contract_tenant_id_location_id_valid_from")
        ),
        schema="livery",
    )  # fmt: skip
    op.create_table(
        "host_statement",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("site_host_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("is_self_billing", sa.Boolean(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("sessions_count", sa.BigInteger(), nullable=False),
        sa.Column("energy_wh", sa.BigInteger(), nullable=False),
        sa.Column("revenue_minor", sa.BigInteger(), nullable=False),
        sa.Column("net_minor", sa.BigInteger(), nullable=False),
        sa.Column("vat_minor", sa.BigInteger(), nullable=False),
        sa.Column("gross_minor", sa.BigInteger(), nullable=False),
        sa.Column("content", postgresql.JSONB(), nullable=False),
        sa.Column("paid_on", sa.Date(), nullable=True),
        sa.Column("paid_by", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("net_minor + vat_minor = gross_minor", name=op.f("ck_host_statement_totals")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_host_statement_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "site_host_id"], ["livery.site_host.tenant_id", "livery.site_host.id"],
            name=op.f("fk_host_statement_tenant_id_site_host_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_host_statement")),
        sa.UniqueConstraint(
            "tenant_id", "site_host_id", "month", "currency",
            name=op.f("uq_host_statement_tenant_id_site_host_id_month_currency"),
        ),
        sa.UniqueConstraint("tenant_id", "number", name=op.f("uq_host_statement_tenant_id_number")),
        schema="livery",
    )  # fmt: skip
