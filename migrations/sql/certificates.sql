-- The CAs that brands sign their stations' certificates with: the gateway's TLS must know them all before it knows who
-- knocks. Public certificates only; whose station it is the door checks in that tenant's own rows.
create function platform.put_ca_route(fingerprint text, certificate text)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into platform.tenant_route (kind, key, tenant_id, name)
  values ('station_ca', fingerprint, livery.tid(), certificate)
  on conflict (kind, key) do nothing
$$;

create function platform.station_cas()
returns table (fingerprint text, certificate text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select r.key, r.name from platform.tenant_route r where r.kind = 'station_ca'
$$;
