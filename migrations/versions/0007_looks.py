"""A brand's look: drafts, numbered versions, pictures, languages, legal texts; mails know their language."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenants.rls import protect_all

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("mail", sa.Column("language", sa.Text(), server_default="en", nullable=False), schema="livery")
    for name in ("details", "texts"):
        op.add_column("brand", sa.Column(name, postgresql.JSONB(), server_default="{}", nullable=False),
                      schema="livery")  # fmt: skip
    op.add_column("brand", sa.Column("draft", postgresql.JSONB()), schema="livery")
    op.add_column("brand", sa.Column("drafted_at", sa.DateTime(timezone=True)), schema="livery")
    op.add_column("brand", sa.Column("drafted_by", sa.Text(), server_default="", nullable=False), schema="livery")
    op.add_column("brand", sa.Column("version_no", sa.BigInteger(), server_default="0", nullable=False),
                  schema="livery")  # fmt: skip
    op.create_table(
        "brand_version",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("version_no", sa.BigInteger(), nullable=False),
        sa.Column("look", postgresql.JSONB(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("published_by", sa.Text(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_brand_version")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_brand_version_tenant_id")),
        sa.UniqueConstraint("tenant_id", "version_no", name=op.f("uq_brand_version_tenant_id_version_no")),
        schema="livery",
    )  # fmt: skip
    op.create_table(
        "brand_picture",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_brand_picture")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_brand_picture_tenant_id")),
        sa.UniqueConstraint("tenant_id", "digest", name=op.f("uq_brand_picture_tenant_id_digest")),
        schema="livery",
    )  # fmt: skip
    protect_all(op.execute, ["brand_version", "brand_picture"])
