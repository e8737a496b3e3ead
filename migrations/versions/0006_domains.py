"""A brand's own domains: the claim and its checks, and the doors to host routes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.sql_files import statements
from tenants.rls import protect_all

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "domain",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("surface", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("challenge", sa.Text(), nullable=False),
        sa.Column("last_result", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True)),
        sa.Column("verified_at", sa.DateTime(timezone=True)),
        sa.Column("failing_since", sa.DateTime(timezone=True)),
        sa.Column("released_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("state in ('pending','verified','active','suspended','released')", name=op.f("ck_domain_state")),
        sa.CheckConstraint("surface in ('driver','portal')", name=op.f("ck_domain_surface")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_domain")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_domain_tenant_id")),
        sa.UniqueConstraint("tenant_id", "host", name=op.f("uq_domain_tenant_id_host")),
        schema="livery",
    )  # fmt: skip
    protect_all(op.execute, ["domain"])
    execute = op.get_bind().exec_driver_sql
    for statement in statements("domains.sql"):
        execute(statement)
    for function in (
        "put_host_route(text, text, uuid)", "drop_host_route(text)", "own_host(text)",
        "put_domain(text, text, uuid, jsonb)",
    ):  # fmt: skip
        execute(f"revoke all on function platform.{function} from public")
        execute(f"grant execute on function platform.{function} to app_rw")
