-- Strangers at the gateway: 100 per brand that exists and 100 for all others together, so that nobody who knocks with
-- made-up names pushes the honest newcomer of another brand out of sight (ocpp.md 2, row 2).
create or replace function platform.report_unclaimed(brand text, station_identity text, remote_address text, why text)
returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare is_known boolean;
begin
  update platform.unclaimed_station u
     set attempts_count = u.attempts_count + 1, last_seen_at = now(), remote = remote_address, reason = why
   where u.slug = brand and u.identity = station_identity;
  if found then return; end if;
  perform pg_advisory_xact_lock(hashtext('platform.unclaimed_station'));
  insert into platform.unclaimed_station (slug, identity, remote, reason)
  values (brand, station_identity, remote_address, why)
  on conflict (slug, identity) do nothing;
  is_known := exists (select from platform.tenant t where t.slug = brand);
  delete from platform.unclaimed_station u
   where u.last_seen_at < now() - interval '30 days'
      or u.id in (
         select old.id from platform.unclaimed_station old
          where case when is_known then old.slug = brand
                     else not exists (select from platform.tenant t where t.slug = old.slug) end
          order by old.last_seen_at desc, old.id desc offset 100);
end $$;

create or replace function platform.own_unclaimed()
returns table (identity text, remote text, reason text, attempts_count bigint, first_seen_at timestamptz, last_seen_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select u.identity, u.remote, u.reason, u.attempts_count, u.first_seen_at, u.last_seen_at
    from platform.unclaimed_station u join platform.tenant t on t.slug = u.slug
   where t.id = livery.tid() order by u.last_seen_at desc limit 100
$$;
