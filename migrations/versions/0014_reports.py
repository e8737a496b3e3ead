"""What many stations say at once: their links, boots and states, and the look-up of their handshakes."""

import sqlalchemy as sa
from alembic import op

from migrations.sql_files import statements

revision = "0014"
down_revision = "0013"

FUNCTIONS = (
    "livery.moment", "livery.tell_news", "livery.open_links", "livery.close_links", "livery.hold_links", "livery.waiting_commands", "livery.report_boots",
    "livery.report_statuses", "platform.resolve_stations",
)  # fmt: skip


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    for statement in statements("reports.sql"):
        execute(statement.replace("%", "%%"))
    for function in FUNCTIONS:
        execute(f"revoke all on function {function} from public")
        execute(f"grant execute on function {function} to app_rw")
    op.create_index(
        "ix_charging_session_active", "charging_session", ["tenant_id", "station_id"], schema="livery",
        postgresql_where=sa.text("status = 'ACTIVE'"),
    )  # fmt: skip
    op.create_index(
        "ix_station_command_sent", "station_command", ["tenant_id", "station_id"], schema="livery",
        postgresql_where=sa.text("status = 'sent'"),
    )  # fmt: skip
