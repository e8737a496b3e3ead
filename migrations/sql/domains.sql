-- A brand's own hosts. A host route of the platform's making names no object; one that a brand has proven names its
-- domain, and only such a route can be replaced or dropped from here.

-- True when the host leads to this tenant now: it was free, or its own already.
create function platform.put_host_route(wanted_host text, wanted_surface text, domain uuid)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if domain is null or wanted_surface not in ('driver', 'portal') then return false; end if;
  insert into platform.tenant_route (kind, key, tenant_id, surface, object_id, attributes)
  values ('host', wanted_host, livery.tid(), wanted_surface, domain, jsonb_build_object('since', now()))
  on conflict (kind, key) do update set surface = excluded.surface, object_id = excluded.object_id
   where platform.tenant_route.tenant_id = livery.tid() and platform.tenant_route.object_id is not null;
  return found;
end $$;

create function platform.drop_host_route(known_host text)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  delete from platform.tenant_route r
   where r.kind = 'host' and r.key = known_host and r.tenant_id = livery.tid() and r.object_id is not null
$$;

-- The tenant's own active host for a surface, the newest where there are several; null where links stay on the platform's.
create function platform.own_host(wanted_surface text)
returns text language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select r.key from platform.tenant_route r
   where r.kind = 'host' and r.tenant_id = livery.tid() and r.surface = wanted_surface and r.object_id is not null
   order by (r.attributes->>'since')::timestamptz desc, r.key limit 1
$$;

-- What the console lists: how each claim stands, told by its tenant, so that no console page looks across tenants.
create function platform.put_domain(known_host text, known_surface text, domain uuid, facts jsonb)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into platform.tenant_route (kind, key, tenant_id, surface, name, object_id, attributes)
  values ('domain', livery.tid() || '/' || known_host, livery.tid(), known_surface, known_host, domain, facts)
  on conflict (kind, key) do update set surface = excluded.surface, attributes = excluded.attributes
   where platform.tenant_route.tenant_id = livery.tid()
$$;
