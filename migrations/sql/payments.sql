-- Doors of the payment provider's news, as exact as those of platform.sql.

create function platform.put_payment_route(account text)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into platform.tenant_route (kind, key, tenant_id) values ('payment_account', account, livery.tid())
  on conflict (kind, key) do nothing
$$;

create function platform.resolve_payment_account(account text)
returns table (tenant_id uuid, slug text, status text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, t.slug, t.status
    from platform.tenant_route r join platform.tenant t on t.id = r.tenant_id
   where r.kind = 'payment_account' and r.key = account
$$;

-- True the first time. Who calls it has checked the signature.
create function platform.take_webhook(account text, event text, event_type text, live boolean, event_body jsonb)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into platform.webhook_event (account_ref, event_id, type, is_live, body)
  values (account, event, event_type, live, event_body)
  on conflict (account_ref, event_id) do nothing;
  return found;
end $$;
