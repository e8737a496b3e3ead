-- The tenant's own active host for a surface, the newest where there are several; null where links stay on the platform's.
-- New links do not go to a host whose last look failed or was not answered: they might lead nowhere.
create or replace function platform.own_host(wanted_surface text)
returns text language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select r.key from platform.tenant_route r
   where r.kind = 'host' and r.tenant_id = livery.tid() and r.surface = wanted_surface and r.object_id is not null
     and not exists (
       select 1 from platform.tenant_route d
        where d.kind = 'domain' and d.key = livery.tid() || '/' || r.key
          and (d.attributes->>'failing_since' is not null or d.attributes->>'problem' = 'unanswered'))
   order by (r.attributes->>'since')::timestamptz desc, r.key limit 1
$$;
