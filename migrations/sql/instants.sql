-- The gateway's flush of hot messages: one transaction for many tenants, every row through FORCE RLS (SECURITY INVOKER).
-- owners[n] is the tenant of message n, as a place in `tenants`; a station stands at most once in a call. Times are
-- microseconds since 1970; instants[n] is [[sampled, station's own or null, samples], ...]. A message that needs judgement
-- is `cold`: its session is not known, was over by then, or is at another EVSE. Nothing of it was written, and the ordinary
-- verb takes it. Arrays are taken apart once, into rows for each tenant: a slice of an array of texts is walked to from
-- its start. Texts that are always there come joined by U+001E, which no JSON holds as it is. One plan serves all
-- tenants: left alone, PostgreSQL makes one for each of them each time, which takes longer than what it plans.

drop function livery.ingest_readings(
  uuid[], int[], uuid[], bigint[], int[], text[], bool[], uuid[], uuid[], text[], text[], text[], text[], text[],
  bigint[], bigint[], numeric[], numeric[], numeric[], bigint[], text[], bigint[], int[],
  int[], int[], bigint[], text[], numeric[], bigint[], text[], text[], text[], text[], text[], text[]);

create function livery.ingest_readings(
  tenants uuid[], owners int[], stations uuid[], received bigint[], evse_nos int[], transactions text[],
  needs_session bool[], in_ids uuid[], out_ids uuid[], message_ids text, actions text, versions text,
  raws text, answers text,
  meters_wh bigint[], powers_w bigint[], currents_a numeric[], voltages_v numeric[], socs numeric[], read_at bigint[],
  states text[], state_at bigint[], seq_nos int[], instants text)
returns table (message int, session_id uuid, evse_no int, is_cold bool, job text) language plpgsql
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  own record;
  split constant text := E'\x1e';
  epoch constant timestamptz := 'epoch';
  us constant interval := interval '1 microsecond';
begin
  for own in
    select tenants[u.owner] as tenant, array_agg(row(u.n, u.station, u.received, u.evse_no, u.txn, u.needs, u.in_id,
             u.out_id, u.message_id, u.action, u.version, u.raw, u.answer, u.meter_wh, u.power_w, u.current_a, u.voltage_v,
             u.soc, u.read_at, u.state, u.state_at, u.seq_no, u.instants)) as told, bool_or(u.state is not null) as has_states
      from unnest(owners, stations, received, evse_nos, transactions, needs_session, in_ids, out_ids,
             string_to_array(message_ids, split), string_to_array(actions, split), string_to_array(versions, split),
             string_to_array(raws, split), string_to_array(answers, split), meters_wh, powers_w, currents_a, voltages_v,
             socs, read_at, states, state_at, seq_nos, string_to_array(instants, split))
           with ordinality as u(owner, station, received, evse_no, txn, needs, in_id, out_id, message_id, action,
             version, raw, answer, meter_wh, power_w, current_a, voltage_v, soc, read_at, state, state_at, seq_no,
             instants, n)
     group by u.owner order by u.owner
  loop
    perform set_config('livery.tenant_id', own.tenant::text, true);
    if own.has_states then
      insert into livery.session_event (session_id, key, at, kind, data, received_at)
      select s.id, 'state:' || to_char(at.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') || ':' || t.state,
             at.at, 'state', jsonb_build_object('state', t.state), epoch + t.received * us
        from unnest(own.told) as t(
               n bigint, station uuid, received bigint, evse_no int, txn text, needs bool, in_id uuid, out_id uuid,
               message_id text, action text, version text, raw text, answer text, meter_wh bigint, power_w bigint,
               current_a numeric, voltage_v numeric, soc numeric, read_at bigint, state text, state_at bigint, seq_no int,
               instants text)
        cross join lateral (select epoch + t.state_at * us as at) at
        cross join lateral (select f.id from livery.charging_session f
                             where f.station_id = t.station and f.ocpp_transaction_id = t.txn limit 1) s
       where t.state is not null
         and t.state is distinct from (select l.charging_state from livery.session_live l where l.session_id = s.id)
      on conflict do nothing;
    end if;
    return query
    with told as materialized (
      select * from unnest(own.told) as u(
        n bigint, station uuid, received bigint, evse_no int, txn text, needs bool, in_id uuid, out_id uuid,
        message_id text, action text, version text, raw text, answer text, meter_wh bigint, power_w bigint,
        current_a numeric, voltage_v numeric, soc numeric, read_at bigint, state text, state_at bigint, seq_no int,
        instants text)
    ), target as materialized (
      select t.*, s.id as session, s.status, s.meter_start_wh, s.cost_cap_minor,
             coalesce(t.evse_no, s.evse_no, 1) as no, coalesce(s.evse_id, e.id) as evse,
             (t.needs and (s.id is null or s.evse_no is null or t.evse_no <> s.evse_no)
              or t.txn is not null and not (s.status = 'ACTIVE'
                   or s.status = 'COMPLETED' and epoch + coalesce(t.read_at, t.state_at) * us <= s.ended_at)) is true as cold
        from told t
        left join lateral (select f.id from livery.evse f where f.station_id = t.station and f.evse_no = t.evse_no limit 1) e
             on true
        left join lateral (
          select f.id, f.status, f.meter_start_wh, f.cost_cap_minor, f.evse_no, f.evse_id, f.ended_at
            from livery.charging_session f
           where f.station_id = t.station and f.ocpp_transaction_id = t.txn
          union all
          (select f.id, f.status, f.meter_start_wh, f.cost_cap_minor, f.evse_no, f.evse_id, f.ended_at
             from livery.charging_session f
            where f.evse_id = e.id and f.station_id = t.station and f.status = 'ACTIVE' and not t.needs
            order by f.started_at desc limit 1)
          limit 1) s on true
    ), kept as (
      insert into livery.ocpp_message (id, at, station_id, direction, kind, ocpp_version, message_id, action, raw)
      select w.id, w.at, t.station, w.direction, w.kind, t.version, t.message_id, t.action, w.raw
        from target t cross join lateral (values
          (t.in_id, epoch + t.received * us, 'in', 'call', t.raw),
          (t.out_id, clock_timestamp(), 'out', 'result', t.answer)) as w(id, at, direction, kind, raw)
       where not t.cold
    ), stored as (
      insert into livery.meter_instant (station_id, evse_no, session_id, sampled_at, station_at, received_at, digest,
             samples)
      select t.station, t.no, t.session, epoch + (i.one ->> 0)::bigint * us, epoch + (i.one ->> 1)::bigint * us,
             epoch + t.received * us, jsonb_hash_extended(i.one -> 2, 0), i.one -> 2
        from target t cross join lateral jsonb_array_elements(t.instants::jsonb) as i(one)
       where not t.cold
      on conflict do nothing
    ), at_evse as (
      update livery.evse_live l set
        meter_wh = coalesce(t.meter_wh, l.meter_wh), power_w = coalesce(t.power_w, l.power_w),
        current_a = coalesce(t.current_a, l.current_a), voltage_v = coalesce(t.voltage_v, l.voltage_v),
        soc_percent = coalesce(t.soc, l.soc_percent), reading_at = epoch + t.read_at * us
        from target t
       where l.evse_id = t.evse and l.tenant_id = (select livery.tid()) and not t.cold
         and (t.session is null or t.status = 'ACTIVE')
         and (l.reading_at is null or l.reading_at <= epoch + t.read_at * us)
    ), live as (
      insert into livery.session_live as l (id, session_id, meter_wh, energy_wh, power_w, current_a, voltage_v,
             soc_percent, reading_at, charging_state, seq_no, first_wh, metered_at)
      select t.session, t.session, t.meter_wh, t.meter_wh - t.meter_start_wh, t.power_w, t.current_a, t.voltage_v, t.soc,
             epoch + t.read_at * us, t.state, t.seq_no, t.meter_wh,
             case when t.meter_wh is not null then epoch + t.read_at * us end
        from target t where t.status = 'ACTIVE' and (t.read_at is not null or t.state is not null)
      on conflict (tenant_id, session_id) do update set
        meter_wh = case when l.metered_at > excluded.metered_at then l.meter_wh else coalesce(excluded.meter_wh, l.meter_wh) end,
        energy_wh = case when l.metered_at > excluded.metered_at then l.energy_wh else coalesce(excluded.energy_wh, excluded.meter_wh - l.first_wh, l.energy_wh) end,
        power_w = case when l.reading_at > excluded.reading_at then l.power_w else coalesce(excluded.power_w, l.power_w) end,
        current_a = case when l.reading_at > excluded.reading_at then l.current_a else coalesce(excluded.current_a, l.current_a) end,
        voltage_v = case when l.reading_at > excluded.reading_at then l.voltage_v else coalesce(excluded.voltage_v, l.voltage_v) end,
        soc_percent = case when l.reading_at > excluded.reading_at then l.soc_percent else coalesce(excluded.soc_percent, l.soc_percent) end,
        reading_at = greatest(l.reading_at, excluded.reading_at),
        first_wh = coalesce(l.first_wh, excluded.first_wh), metered_at = greatest(l.metered_at, excluded.metered_at),
        charging_state = case when l.seq_no > excluded.seq_no then l.charging_state else coalesce(excluded.charging_state, l.charging_state) end,
        seq_no = case when excluded.charging_state is null then l.seq_no else greatest(l.seq_no, excluded.seq_no) end
    )
    select t.n::int, case when t.status = 'ACTIVE' then t.session end, t.no::int, t.cold,
           case when t.status = 'ACTIVE' and t.cost_cap_minor is not null and (t.read_at is not null or t.state is not null)
                then procrastinate.livery_defer('charging.check_cap', 0, 'cap-now:' || t.session,
                                                jsonb_build_object('session_id', t.session::text), null)::text end
      from target t;
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;

-- What readers see: one row per sampled value. `samples` is a list of [measurand, phase, location, context, unit, raw value,
-- value, signed data], whose end is left out where it says nothing: a value that is not there is the raw one.
create view livery.meter_value with (security_invoker = true) as
select i.tenant_id, i.sampled_at, i.station_id, i.evse_no, s.one ->> 0 as measurand, s.one ->> 1 as phase,
       s.one ->> 2 as location, s.one ->> 3 as context, s.one ->> 5 as raw_value, i.session_id,
       cast(s.one ->> (case when jsonb_array_length(s.one) > 6 then 6 else 5 end) as numeric(20, 4)) as value,
       s.one ->> 4 as unit, i.received_at, i.station_at, s.one ->> 7 as signed_data
  from livery.meter_instant i cross join lateral jsonb_array_elements(i.samples) as s(one);

-- Day partitions, as in days.sql and retention.sql, of the tables as they are named now.
create or replace function livery.ensure_day(parent text, day date)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  name text := parent || '_' || to_char(day, 'YYYYMMDD');
begin
  if parent not in ('meter_instant', 'ocpp_message') then raise exception 'no such partitioned table: %', parent; end if;
  if day not between current_date - 7 and current_date + 14 then raise exception 'day % is outside the window', day; end if;
  perform pg_advisory_xact_lock(hashtext('livery.ensure_day'));
  if to_regclass('livery.' || name) is not null then return false; end if;
  execute format('create table livery.%I (like livery.%I including defaults including constraints including storage)', name, parent);
  execute format('alter table livery.%I attach partition livery.%I for values from (%L) to (%L)', parent, name,
                 day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
  return true;
exception when check_violation then
  -- The default partition holds rows of that day already: the day lives there for good (recipes.md 5).
  return false;
end $$;

create or replace function livery.drop_day(parent text, day date)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  name text := parent || '_' || to_char(day, 'YYYYMMDD');
  least int := case parent when 'ocpp_message' then 30 when 'meter_instant' then 35 end;
begin
  if least is null then raise exception 'no such partitioned table: %', parent; end if;
  if day > current_date - least then raise exception 'day % is younger than % days', day, least; end if;
  if to_regclass('livery.' || name) is null then return false; end if;
  set local lock_timeout = '1s';  -- every insert would wait behind a drop that waits
  execute format('drop table livery.%I', name);
  return true;
end $$;

-- As in retention.sql: the readings are read by the view and deleted by the instant.
create or replace function livery.roll_up(since timestamptz, until timestamptz, takes boolean, kept date[])
returns bigint language plpgsql as $$
#variable_conflict use_column
declare
  energy constant text := 'Energy.Active.Import.Register';
  epoch constant timestamptz := 'epoch';
  found bigint;
begin
  if not takes then
    -- A day that was dropped meanwhile has its rollups and no readings to make them from again.
    lock table livery.meter_instant in access share mode;
    if to_regclass('livery.meter_instant_' || to_char(since at time zone 'UTC', 'YYYYMMDD')) is null then return 0; end if;
    delete from livery.meter_hour where hour_at >= since and hour_at < until;
    delete from livery.session_curve
     where day >= cast(since at time zone 'UTC' as date) and day < cast(until at time zone 'UTC' as date);
  end if;
  with told as materialized (
    select *, cast(sampled_at at time zone 'UTC' as date) as day from livery.meter_value m
     where sampled_at >= since and sampled_at < until
       and (not takes or not cast(sampled_at at time zone 'UTC' as date) = any(kept))
  ), gone as (
    delete from livery.meter_instant
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
