"""What stays of meter values when their days are dropped: hours of each EVSE, curves of each session, signed values.

And what a station said that it cannot.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.sql_files import statements
from tenants.rls import protect_all

revision = "0015"
down_revision = "0014"


def _summary() -> list[sa.Column]:
    return [
        sa.Column("sample_count", sa.BigInteger(), nullable=False),
        sa.Column("value_sum", sa.Numeric(), nullable=False),
        sa.Column("value_min", sa.Numeric(), nullable=False),
        sa.Column("value_max", sa.Numeric(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_value", sa.Numeric(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_value", sa.Numeric(), nullable=False),
    ]


def _tenant(table: str) -> list:
    return [
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f(f"fk_{table}_tenant_id")),
    ]


def upgrade() -> None:
    op.add_column("charging_station", sa.Column("lacks", postgresql.JSONB(), server_default="{}", nullable=False),
                  schema="livery")  # fmt: skip
    op.create_table(
        "meter_hour",
        *_tenant("meter_hour"),
        sa.Column("hour_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("evse_no", sa.BigInteger(), nullable=False),
        sa.Column("measurand", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        *_summary(),
        sa.PrimaryKeyConstraint(
            "tenant_id", "hour_at", "station_id", "evse_no", "measurand", "phase", "location", "unit",
            name=op.f("pk_meter_hour"),
        ),
        schema="livery",
    )  # fmt: skip
    op.create_index("ix_meter_hour_station", "meter_hour", ["tenant_id", "station_id", "hour_at"], schema="livery")
    op.create_table(
        "session_curve",
        *_tenant("session_curve"),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("measurand", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        *_summary(),
        sa.Column("curve_at", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("curve", postgresql.ARRAY(sa.Numeric()), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "session_id"], ["livery.charging_session.tenant_id", "livery.charging_session.id"],
            name=op.f("fk_session_curve_tenant_id_session_id"), ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "session_id", "day", "measurand", "phase", "location", "unit",
            name=op.f("pk_session_curve"),
        ),
        schema="livery",
    )  # fmt: skip
    op.create_index("ix_session_curve_day", "session_curve", ["tenant_id", "day"], schema="livery")
    op.create_table(
        "signed_meter_value",
        *_tenant("signed_meter_value"),
        sa.Column("sampled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("evse_no", sa.BigInteger(), nullable=False),
        sa.Column("measurand", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("raw_value", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("value", sa.Numeric(20, 4)),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("station_at", sa.DateTime(timezone=True)),
        sa.Column("signed_data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "sampled_at", "station_id", "evse_no", "measurand", "phase", "location", "context",
            "raw_value", name=op.f("pk_signed_meter_value"),
        ),
        schema="livery",
    )  # fmt: skip
    op.create_index(
        "ix_signed_meter_value_session", "signed_meter_value", ["tenant_id", "session_id", "sampled_at"],
        schema="livery",
    )  # fmt: skip
    protect_all(op.execute, ["meter_hour", "session_curve", "signed_meter_value"])
    execute = op.get_bind().exec_driver_sql
    for statement in statements("retention.sql"):
        execute(statement.replace("%", "%%"))
    for function in ("roll_up(timestamptz, timestamptz, boolean, date[])", "session_register(uuid)"):
        execute(f"revoke all on function livery.{function} from public")
        execute(f"grant execute on function livery.{function} to app_rw")
