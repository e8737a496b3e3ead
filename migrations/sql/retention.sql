-- Days of readings may go too, once their rollups stand (app/charging/rollups.py); the platform chooses how many days
-- are kept, never fewer than 35: a month's invoices are made from what is there.

create or replace function livery.drop_day(parent text, day date)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  name text := parent || '_' || to_char(day, 'YYYYMMDD');
  least int := case parent when 'ocpp_message' then 30 when 'meter_value' then 35 end;
begin
  if least is null then raise exception 'no such partitioned table: %', parent; end if;
  if day > current_date - least then raise exception 'day % is younger than % days', day, least; end if;
  if to_regclass('livery.' || name) is null then return false; end if;
  set local lock_timeout = '1s';  -- every insert would wait behind a drop that waits
  execute format('drop table livery.%I', name);
  return true;
end $$;

-- Hours, curves and signed values of the readings in a time, each row through FORCE RLS (SECURITY INVOKER). Without
-- `takes` the readings stay, and what was rolled up of these days before is thrown away first; with it they are added to
-- what is there and deleted, but for days in `kept`: in one statement, so that each counts once. How many they were.
create function livery.roll_up(since timestamptz, until timestamptz, takes boolean, kept date[])
returns bigint language plpgsql as $$
#variable_conflict use_column
declare
  energy constant text := 'Energy.Active.Import.Register';
  epoch constant timestamptz := 'epoch';
  found bigint;
begin
  if not takes then
    -- A day that was dropped meanwhile has its rollups and no readings to make them from again.
    lock table livery.meter_value in access share mode;
    if to_regclass('livery.meter_value_' || to_char(since at time zone 'UTC', 'YYYYMMDD')) is null then return 0; end if;
    delete from livery.meter_hour where hour_at >= since and hour_at < until;
    delete from livery.session_curve
     where day >= cast(since at time zone 'UTC' as date) and day < cast(until at time zone 'UTC' as date);
  end if;
  with told as materialized (
    select *, cast(sampled_at at time zone 'UTC' as date) as day from livery.meter_value m
     where sampled_at >= since and sampled_at < until
       and (not takes or not cast(sampled_at at time zone 'UTC' as date) = any(kept))
  ), gone as (
    delete from livery.meter_value
     where takes and sampled_at >= since and sampled_at < until
       and not cast(sampled_at at time zone 'UTC' as date) = any(kept)
  ), hours as (
    insert into livery.meter_hour as o (hour_at, station_id, evse_no, measurand, phase, location, unit, sample_count,
           value_sum, value_min, value_max, first_at, first_value, last_at, last_value)
    select date_bin('1 hour', sampled_at, epoch), station_id, evse_no, measurand, phase, location, unit, count(*),
           sum(value), min(value), max(value), min(sampled_at), (array_agg(value order by sampled_at, value))[1],
           max(sampled_at), (array_agg(value order by sampled_at desc, value desc))[1]
      from told where value is not null group by 1, 2, 3, 4, 5, 6, 7
    on conflict (tenant_id, hour_at, station_id, evse_no, measurand, phase, location, unit) do update set
      sample_count = o.sample_count + excluded.sample_count, value_sum = o.value_sum + excluded.value_sum,
      value_min = least(o.value_min, excluded.value_min), value_max = greatest(o.value_max, excluded.value_max),
      first_value = case when excluded.first_at < o.first_at then excluded.first_value else o.first_value end,
      last_value = case when excluded.last_at > o.last_at then excluded.last_value else o.last_value end,
      first_at = least(o.first_at, excluded.first_at), last_at = greatest(o.last_at, excluded.last_at)
  ), sums as (
    select session_id, day, measurand, phase, location, unit, count(*) as n, sum(value) as total, min(value) as low,
           max(value) as high, min(sampled_at) as first_at, (array_agg(value order by sampled_at, value))[1] as first,
           max(sampled_at) as last_at, (array_agg(value order by sampled_at desc, value desc))[1] as last
      from told where value is not null and session_id is not null group by 1, 2, 3, 4, 5, 6
  ), point as (  -- a register's points are its readings (two of one instant stay two), the others' averages of a minute
    select session_id, day, measurand, phase, location, unit,
           case when measurand = energy then sampled_at else date_bin('1 minute', sampled_at, epoch) end as at,
           round(avg(value), 4) as value
      from told where value is not null and session_id is not null
     group by 1, 2, 3, 4, 5, 6, 7, case when measurand = energy then value end
  ), course as (
    select session_id, day, measurand, phase, location, unit,
           array_agg(cast(extract(epoch from at) * 1000000 as bigint) order by at, value) as at,
           array_agg(value order by at, value) as value
      from point group by 1, 2, 3, 4, 5, 6
  ), curves as (
    insert into livery.session_curve as o (session_id, day, measurand, phase, location, unit, sample_count, value_sum,
           value_min, value_max, first_at, first_value, last_at, last_value, curve_at, curve)
    select s.session_id, s.day, s.measurand, s.phase, s.location, s.unit, s.n, s.total, s.low, s.high, s.first_at,
           s.first, s.last_at, s.last, p.at, p.value
      from sums s join course p using (session_id, day, measurand, phase, location, unit)
      join livery.charging_session c on c.id = s.session_id
    on conflict (tenant_id, session_id, day, measurand, phase, location, unit) do update set
      sample_count = o.sample_count + excluded.sample_count, value_sum = o.value_sum + excluded.value_sum,
      value_min = least(o.value_min, excluded.value_min), value_max = greatest(o.value_max, excluded.value_max),
      first_value = case when excluded.first_at < o.first_at then excluded.first_value else o.first_value end,
      last_value = case when excluded.last_at > o.last_at then excluded.last_value else o.last_value end,
      first_at = least(o.first_at, excluded.first_at), last_at = greatest(o.last_at, excluded.last_at),
      curve_at = o.curve_at || excluded.curve_at, curve = o.curve || excluded.curve
  ), signed as (
    insert into livery.signed_meter_value (sampled_at, station_id, evse_no, measurand, phase, location, context,
           raw_value, session_id, value, unit, received_at, station_at, signed_data)
    select sampled_at, station_id, evse_no, measurand, phase, location, context, raw_value, session_id, value, unit,
           received_at, station_at, signed_data
      from told where signed_data is not null
    on conflict do nothing
  )
  select count(*) into found from told;
  return found;
end $$;

-- A session's energy register (Wh), from the raw rows and from what stayed of those that are gone.
create function livery.session_register(session uuid)
returns table (sampled_at timestamptz, value numeric) language sql stable as $$
  select m.sampled_at, m.value from livery.meter_value m
   where m.session_id = session and m.measurand = 'Energy.Active.Import.Register' and m.phase = ''
     and m.location = 'Outlet' and m.value is not null
  union
  select timestamptz 'epoch' + point.at * interval '1 microsecond', point.value
    from livery.session_curve c, unnest(c.curve_at, c.curve) as point(at, value)
   where c.session_id = session and c.measurand = 'Energy.Active.Import.Register' and c.phase = ''
     and c.location = 'Outlet'
$$;
