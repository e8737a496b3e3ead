"""Figures of a tenant for the console's list, written by the tenant's own job: no console page looks across tenants."""

import json
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from app.billing import reconciliation
from tenants.database import Database
from tenants.scope import Actor

_FIGURES = text("""
select
  (select count(*) from livery.charging_station where retired_at is null) as stations_count,
  (select count(*) from livery.station_connection c join livery.charging_station s
     on s.tenant_id = c.tenant_id and s.id = c.station_id where c.is_online and s.retired_at is null) as online_count,
  (select coalesce(jsonb_object_agg(node, held), '{}') from (
     select c.node, count(*) as held from livery.station_connection c where c.is_online group by c.node) n) as links,
  (select count(*) from livery.station_connection c join livery.charging_station s
     on s.tenant_id = c.tenant_id and s.id = c.station_id
    where not c.is_online and c.close_reason = 'gateway lost' and s.retired_at is null) as lost_count,
  (select count(*) from livery.charging_session where status = 'ACTIVE') as active_count,
  (select count(*) from livery.charging_session where review is not null) as review_count,
  (select count(*) from livery.charging_session where started_at > :since) as sessions_30d_count,
  (select coalesce(sum(incl_vat_minor), 0)::bigint from livery.cdr where ended_at > :since) as revenue_30d_minor,
  (select currency from livery.tenant_profile) as currency
""")


async def tenant_stats(database: Database, tenant_id: UUID) -> None:
    async with database.scope(tenant_id, Actor.job("reporting.tenant_stats")) as scope:
        row = (await scope.db.execute(_FIGURES, {"since": scope.now - timedelta(days=30)})).one()
        figures = json.dumps(dict(row._mapping) | {"books": await reconciliation.find_light(scope)})
        await scope.db.execute(
            text("select platform.put_tenant_stats(cast(:figures as jsonb))"), {"figures": figures}
        )


JOBS = {"reporting.tenant_stats": tenant_stats}
LISTENERS: dict[str, list[str]] = {}
RECURRING = [("* * * * *", "reporting.tenant_stats")]
