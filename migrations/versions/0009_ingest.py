"""The batched ingest of the gateway's hot messages, and the reports that no verb could handle."""

import sqlalchemy as sa
from alembic import op

from migrations.sql_files import statements
from tenants.rls import protect_all

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    for statement in statements("ingest.sql"):
        execute(statement.replace("%", "%%"))
    signatures = execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'livery'::regnamespace"
        " and proname like 'ingest_%%'"
    ).scalars()
    for signature in list(signatures):
        execute(f"revoke all on function {signature} from public")
        execute(f"grant execute on function {signature} to app_rw")
    op.create_table(
        "parked_message",
        sa.Column("station_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ocpp_version", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="parked", nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True)),
        sa.Column("tenant_id", sa.Uuid(), server_default=sa.text("livery.tid()"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.CheckConstraint(
            "status in ('parked','retrying','handled','discarded')", name=op.f("ck_parked_message_status")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_parked_message")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "station_id"], ["livery.charging_station.tenant_id", "livery.charging_station.id"],
            name=op.f("fk_parked_message_tenant_id_station_id"), ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_parked_message_tenant_id")),
        schema="livery",
    )
    protect_all(execute, ["parked_message"])
    op.create_index(
        "ix_parked_message_list", "parked_message", ["tenant_id", "status", "received_at"], schema="livery"
    )
