"""What is odd about stations: alerts that staff see, quirks of models, quarantine; card use at two places."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenants.rls import protect_all

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("charging_station", sa.Column("quirks", postgresql.JSONB(), server_default="[]", nullable=False),
                  schema="livery")  # fmt: skip
    op.add_column("charging_station", sa.Column("quarantined_at", sa.DateTime(timezone=True)), schema="livery")
    op.create_table(
        "station_alert",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("count", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("recent_at", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dismissed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_station_alert")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_station_alert_tenant_id")),
        sa.ForeignKeyConstraint(["tenant_id", "station_id"],
                                ["livery.charging_station.tenant_id", "livery.charging_station.id"],
                                name=op.f("fk_station_alert_station_id"), ondelete="CASCADE"),
        sa.UniqueConstraint("tenant_id", "station_id", "kind", name=op.f("uq_station_alert_tenant_id_station_id_kind")),
        schema="livery",
    )  # fmt: skip
    op.create_table(
        "station_quirk",
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("vendor", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), server_default="*", nullable=False),
        sa.Column("quirk", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_station_quirk")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_station_quirk_tenant_id")),
        sa.UniqueConstraint("tenant_id", "vendor", "model", "quirk",
                            name=op.f("uq_station_quirk_tenant_id_vendor_model_quirk")),
        schema="livery",
    )  # fmt: skip
    protect_all(op.execute, ["station_alert", "station_quirk"])
    op.add_column("tenant_profile",
                  sa.Column("card_use", sa.Text(), server_default="anywhere", nullable=False), schema="livery")  # fmt: skip
    op.create_check_constraint(op.f("ck_tenant_profile_card_use"), "tenant_profile",
                               "card_use in ('anywhere','hold','refuse')", schema="livery")  # fmt: skip
    op.drop_constraint(op.f("ck_charging_session_review"), "charging_session", schema="livery")
    op.create_check_constraint(
        op.f("ck_charging_session_review"), "charging_session",
        "review is null or review in ('superseded','stuck','orphan','implausible','no_tariff','card_twice',"
        "'start_twice')",
        schema="livery",
    )  # fmt: skip
