"""How a session is collected is frozen with its prices; what was frozen before asks the driver group once more. What is
not settled yet at a free site costs nothing."""

import sqlalchemy as sa
from alembic import op

from tenants.rls import for_each_tenant

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("price_snapshot", sa.Column("collection", sa.Text()), schema="livery")
    for_each_tenant(
        op.get_bind(),
        "update livery.price_snapshot p set tariff = null, tariff_version_id = null, collection = 'free',"
        " hash = sha256('null') from livery.charging_session s"
        " where s.tenant_id = p.tenant_id and s.id = p.session_id and p.is_free_vend and s.settled_at is null",
    )
