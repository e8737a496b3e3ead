-- Exact-match doors into schema `platform` for role app_rw (isolation.md): SECURITY DEFINER, pinned search_path, and
-- wherever a row is written the tenant is livery.tid(), never an argument.

create function platform.resolve_host(host text)
returns table (tenant_id uuid, slug text, name text, surface text, status text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, t.slug, t.name, r.surface, t.status
    from platform.tenant_route r join platform.tenant t on t.id = r.tenant_id
   where r.kind = 'host' and r.key = host
$$;

create function platform.resolve_station(brand text, station_identity text, known_digests text[])
returns table (tenant_id uuid, slug text, station_id uuid, identity text, digests jsonb, attributes jsonb, status text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, t.slug, r.object_id, r.name, r.digests, r.attributes, t.status
    from platform.tenant_route r join platform.tenant t on t.id = r.tenant_id
   where r.kind = 'station'
     and ((brand is not null and r.key = brand || '/' || station_identity)
       or (brand is null and r.name = station_identity and r.digests ?| known_digests))
   limit 1
$$;

create function platform.resolve_api_key(digest text)
returns table (tenant_id uuid, object_id uuid, slug text, status text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, r.object_id, t.slug, t.status
    from platform.tenant_route r join platform.tenant t on t.id = r.tenant_id
   where r.kind = 'api_key' and r.key = digest
$$;

create function platform.own_tenant()
returns table (id uuid, slug text, name text, kind text, status text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, t.slug, t.name, t.kind, t.status from platform.tenant t where t.id = livery.tid()
$$;

create function platform.put_station_route(
  station_identity text, station uuid, station_digests jsonb, station_attributes jsonb)
returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare brand text;
begin
  select t.slug into strict brand from platform.tenant t where t.id = livery.tid();
  insert into platform.tenant_route (kind, key, tenant_id, name, object_id, digests, attributes)
  values ('station', brand || '/' || station_identity, livery.tid(), station_identity, station, station_digests, station_attributes)
  on conflict (kind, key) do update
     set object_id = excluded.object_id, digests = excluded.digests, attributes = excluded.attributes
   where platform.tenant_route.tenant_id = livery.tid();
  delete from platform.unclaimed_station u where u.slug = brand and u.identity = station_identity;
end $$;

create function platform.drop_station_route(station uuid)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  delete from platform.tenant_route r
   where r.kind = 'station' and r.object_id = station and r.tenant_id = livery.tid()
$$;

create function platform.put_api_key_route(digest text, api_key uuid)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into platform.tenant_route (kind, key, tenant_id, object_id) values ('api_key', digest, livery.tid(), api_key)
$$;

create function platform.drop_api_key_route(api_key uuid)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  delete from platform.tenant_route r
   where r.kind = 'api_key' and r.object_id = api_key and r.tenant_id = livery.tid()
$$;

-- Strangers at the gateway: capped, so that nobody fills the pool (ocpp.md 2, row 2).
create function platform.report_unclaimed(brand text, station_identity text, remote_address text, why text)
returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update platform.unclaimed_station u
     set attempts_count = u.attempts_count + 1, last_seen_at = now(), remote = remote_address, reason = why
   where u.slug = brand and u.identity = station_identity;
  if found then return; end if;
  insert into platform.unclaimed_station (slug, identity, remote, reason)
  select brand, station_identity, remote_address, why
   where (select count(*) from platform.unclaimed_station) < 1000
  on conflict (slug, identity) do nothing;
end $$;

-- A brand's staff see the strangers that named their brand, and no others.
create function platform.own_unclaimed()
returns table (identity text, remote text, reason text, attempts_count bigint, first_seen_at timestamptz, last_seen_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select u.identity, u.remote, u.reason, u.attempts_count, u.first_seen_at, u.last_seen_at
    from platform.unclaimed_station u join platform.tenant t on t.slug = u.slug
   where t.id = livery.tid() order by u.last_seen_at desc
$$;

create function platform.put_tenant_stats(new_figures jsonb)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into platform.tenant_stats (tenant_id, figures) values (livery.tid(), new_figures)
  on conflict (tenant_id) do update set figures = excluded.figures, at = now()
$$;

-- The worker and the gateway loop over tenants by opaque id; nothing else about them leaves here.
create function platform.active_tenant_ids()
returns setof uuid language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id from platform.tenant t order by t.id
$$;
