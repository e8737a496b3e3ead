-- Whether new links may go to this host of the tenant's: not where its last look failed or was not answered. They might
-- lead nowhere, or to whoever has the name by now.
create function platform.is_sound_host(wanted_host text, wanted_surface text)
returns boolean language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select exists (
    select 1 from platform.tenant_route r
     where r.kind = 'host' and r.key = wanted_host and r.tenant_id = livery.tid() and r.surface = wanted_surface)
  and not exists (
    select 1 from platform.tenant_route d
     where d.kind = 'domain' and d.key = livery.tid() || '/' || wanted_host
       and (d.attributes->>'failing_since' is not null or d.attributes->>'problem' = 'unanswered'))
$$;

-- The tenant's own sound host for a surface, the newest where there are several; null where links stay on the platform's.
create or replace function platform.own_host(wanted_surface text)
returns text language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select r.key from platform.tenant_route r
   where r.kind = 'host' and r.tenant_id = livery.tid() and r.surface = wanted_surface and r.object_id is not null
     and platform.is_sound_host(r.key, r.surface)
   order by (r.attributes->>'since')::timestamptz desc, r.key limit 1
$$;
