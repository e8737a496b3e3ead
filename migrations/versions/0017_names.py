"""A brand's name is one: its tenant follows its profile. Links leave a host of its own whose records fail."""

from alembic import op

from migrations.sql_files import statements
from tenants.rls import for_each_tenant

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    execute = op.get_bind().exec_driver_sql
    for statement in (*statements("names.sql"), *statements("own_host.sql")):
        execute(statement)
    for function in ("put_own_name(text)", "is_sound_host(text, text)"):
        execute(f"revoke all on function platform.{function} from public")
        execute(f"grant execute on function platform.{function} to app_rw")
    for_each_tenant(
        op.get_bind(),
        "update platform.tenant t set name = p.name from livery.tenant_profile p"
        " where t.id = livery.tid() and t.name <> p.name",
    )
