-- Where the platform's own book lies; nothing else about that tenant leaves here. Null before there is a platform admin.
create function platform.platform_tenant_id()
returns uuid language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id from platform.tenant t where t.kind = 'platform'
$$;
