-- What a brand calls itself, for whoever knows it by its tenant: the console, the sender of its mails.
create function platform.put_own_name(new_name text)
returns void language sql security definer set search_path = pg_catalog, pg_temp as $$
  update platform.tenant t set name = new_name where t.id = livery.tid() and t.name <> new_name
$$;
