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
  (select currency from livery.tenant_profile) as currency,
  (select jsonb_build_object(
     'currency', a.currency, 'is_ready', a.is_ready, 'losses_borne_by', a.losses_borne_by,
     'due_count', cardinality(a.due), 'observed_at', a.observed_at,
     'balance_minor', (select coalesce(sum(e.amount_minor), 0) from livery.ledger_entry e join livery.ledger_account l
        on l.tenant_id = e.tenant_id and l.id = e.account_id where l.code in ('psp_pending', 'psp_available')
       and l.party = a.account_ref and l.currency = a.currency),
     'available_minor', (select coalesce(sum(e.amount_minor), 0) from livery.ledger_entry e join livery.ledger_account l
        on l.tenant_id = e.tenant_id and l.id = e.account_id where l.code = 'psp_available'
       and l.party = a.account_ref and l.currency = a.currency),
     'held_count', count(p.id) filter (where p.state in ('authorized', 'capturing')),
     'held_minor', coalesce(sum(p.hold_minor) filter (where p.state in ('authorized', 'capturing')), 0),
     'disputes_count', count(p.id) filter (where p.dispute = 'open'),
     'disputed_minor', coalesce(sum(p.disputed_minor) filter (where p.dispute = 'open'), 0),
     'open_minor', coalesce(sum(p.captured_minor - p.refunded_minor - p.disputed_minor)
        filter (where p.created_at > :disputable), 0),
     'behind_since', min(coalesce(p.observed_at, p.created_at)) filter (
        where coalesce(p.provider_ref, p.checkout_ref) is not null and (p.state in
        ('created', 'requires_action', 'processing') and coalesce(p.observed_at, p.created_at) < :long_open
        or p.state in ('authorized', 'capturing') and coalesce(p.observed_at, p.created_at) < :long_held)),
     -- What a site host gets waits until the platform has the money: that is no trouble.
     'waiting_count', (select count(*) from livery.payment_op o where o.state in ('planned', 'sent', 'unknown')
        and o.updated_at < :stuck and not (o.kind in ('host_transfer', 'fee_refund') and o.response is not null)),
     'waiting_since', (select min(o.created_at) from livery.payment_op o where o.state in ('planned', 'sent', 'unknown')
        and o.updated_at < :stuck and not (o.kind in ('host_transfer', 'fee_refund') and o.response is not null)),
     'failed_count', (select count(*) from livery.payment_op o where o.state = 'failed' and o.updated_at > :day))
     from livery.payment_account a left join livery.payment p on p.tenant_id = a.tenant_id
      and p.account_ref = a.account_ref and p.currency = a.currency
      -- Of what is long over nothing is told.
      and (p.created_at > :disputable or p.dispute = 'open'
        or p.state in ('created', 'requires_action', 'processing', 'authorized', 'capturing'))
    where a.provider = :provider group by a.tenant_id, a.id) as money
""")


async def tenant_stats(database: Database, tenant_id: UUID) -> None:
    async with database.scope(tenant_id, Actor.job("reporting.tenant_stats")) as scope:
        now = scope.now
        row = (await scope.db.execute(_FIGURES, {
            "since": now - timedelta(days=30), "provider": "sandbox" if scope.settings.uses_sandbox else "stripe",
            "disputable": now - timedelta(days=120), "long_open": now - timedelta(minutes=10),
            "long_held": now - timedelta(hours=2), "stuck": now - timedelta(minutes=2), "day": now - timedelta(days=1),
        })).one()  # fmt: skip
        figures = json.dumps(dict(row._mapping) | {"books": await reconciliation.find_light(scope)})
        await scope.db.execute(
            text("select platform.put_tenant_stats(cast(:figures as jsonb))"), {"figures": figures}
        )


JOBS = {"reporting.tenant_stats": tenant_stats}
LISTENERS: dict[str, list[str]] = {}
RECURRING = [("* * * * *", "reporting.tenant_stats")]
