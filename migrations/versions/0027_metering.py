"""Keys of meters, what they signed of a charge, and where only that is billed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from tenants.rls import protect_all

revision = "0027"
down_revision = "0026"


def _owned(name: str) -> list[sa.Column[object] | sa.Constraint]:
    return [
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f(f"fk_{name}_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f(f"pk_{name}")),
    ]


def upgrade() -> None:
    op.create_table(
        "meter_key",
        *_owned("meter_key"),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("evse_no", sa.BigInteger(), nullable=False),
        sa.Column("curve", sa.Text(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("meter", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("is_compared", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "status in ('trusted','waiting','refused','replaced')", name=op.f("ck_meter_key_status")
        ),
        sa.CheckConstraint("source in ('station','staff')", name=op.f("ck_meter_key_source")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"], ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_meter_key_tenant_id_station_id"), ondelete="CASCADE",
        ),
        sa.UniqueConstraint(
            "tenant_id", "station_id", "evse_no", "public_key",
            name=op.f("uq_meter_key_tenant_id_station_id_evse_no_public_key"),
        ),
        schema="livery",
    )  # fmt: skip
    op.create_index(
        "uq_meter_key_trusted", "meter_key", ["tenant_id", "station_id", "evse_no"], unique=True, schema="livery",
        postgresql_where=sa.text("status = 'trusted'"),
    )  # fmt: skip
    op.create_table(
        "signed_charge",
        *_owned("signed_charge"),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("energy_wh", sa.Numeric(20, 4), nullable=True),
        sa.Column("begin_wh", sa.Numeric(20, 4), nullable=True),
        sa.Column("end_wh", sa.Numeric(20, 4), nullable=True),
        sa.Column("begin_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("records", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "verdict in ('valid','invalid','no_key','unsupported')", name=op.f("ck_signed_charge_verdict")
        ),
        sa.UniqueConstraint(
            "tenant_id", "source_type", "source_id", name=op.f("uq_signed_charge_tenant_id_source_type_source_id")
        ),
        schema="livery",
    )
    op.create_table(
        "signed_record",
        *_owned("signed_record"),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.UniqueConstraint("tenant_id", "digest", name=op.f("uq_signed_record_tenant_id_digest")),
        schema="livery",
    )
    op.create_table(
        "metering_policy",
        *_owned("metering_policy"),
        sa.Column("countries", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.UniqueConstraint("tenant_id", name=op.f("uq_metering_policy_tenant_id")),
        schema="livery",
    )
    protect_all(op.execute, ["meter_key", "signed_charge", "signed_record", "metering_policy"])
    op.drop_constraint(op.f("ck_charging_session_review"), "charging_session", schema="livery")
    op.create_check_constraint(
        op.f("ck_charging_session_review"), "charging_session",
        "review is null or review in ('superseded','stuck','orphan','implausible','no_tariff','card_twice',"
        "'start_twice','other_card','unverified')",
        schema="livery",
    )  # fmt: skip
