-- The gateway's flush of hot messages: one transaction for many tenants, every row through FORCE RLS (SECURITY INVOKER).
-- owners[n] is the tenant of message n, as a place in `tenants`; a station stands at most once in a call. Times are
-- microseconds since 1970. sampled[n], sampled_station[n] and samples[n] are a message's first instant (samples is empty
-- where it told none), others[n] is JSON with its further ones: [[sampled, station's own or null, samples], ...]. A message
-- that needs judgement is `cold`: its session is not known, was over by then, or is at another EVSE. Nothing of it was
-- written, and the ordinary verb takes it. Arrays are taken apart once, into rows for each tenant: a slice of an array of
-- texts is walked to from its start. Texts that are always there come joined by U+001E, which no JSON holds as it is. One
-- plan serves all tenants: left alone, PostgreSQL makes one for each of them each time, which takes longer than what it
-- plans. What few messages need stands outside of the statement that all go through: each node of it costs every tenant
-- of every batch.

drop function livery.ingest_readings(
  uuid[], int[], uuid[], bigint[], int[], text[], bool[], uuid[], uuid[], text, text, text, text, text,
  bigint[], bigint[], numeric[], numeric[], numeric[], bigint[], text[], bigint[], int[], text);

create type livery.hot_reading as (
  n bigint, station uuid, received bigint, evse_no int, txn text, needs bool, log_id uuid, message_id text, action text,
  version text, raw text, meter_wh bigint, power_w bigint, current_a numeric, voltage_v numeric, soc numeric,
  read_at bigint, state text, state_at bigint, seq_no int, sampled bigint, sampled_station bigint, samples text,
  others text);

create function livery.ingest_readings(
  tenants uuid[], owners int[], stations uuid[], received bigint[], evse_nos int[], transactions text[],
  needs_session bool[], log_ids uuid[], message_ids text, actions text, versions text, raws text,
  meters_wh bigint[], powers_w bigint[], currents_a numeric[], voltages_v numeric[], socs numeric[], read_at bigint[],
  states text[], state_at bigint[], seq_nos int[], sampled bigint[], sampled_station bigint[], samples text,
  others text[])
returns table (message int, session_id uuid, evse_no int, is_cold bool, job text) language plpgsql
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  own record;
  one record;
  idle int[];
  split constant text := E'\x1e';
  epoch constant timestamptz := 'epoch';
  us constant interval := interval '1 microsecond';
begin
  for own in
    select tenants[u.owner] as tenant, array_agg(row(u.n, u.station, u.received, u.evse_no, u.txn, u.needs, u.log_id,
             u.message_id, u.action, u.version, u.raw, u.meter_wh, u.power_w, u.current_a, u.voltage_v, u.soc, u.read_at,
             u.state, u.state_at, u.seq_no, u.sampled, u.sampled_station, u.samples, u.others)::livery.hot_reading) as told,
           bool_or(u.state is not null) as has_states
      from unnest(owners, stations, received, evse_nos, transactions, needs_session, log_ids,
             string_to_array(message_ids, split), string_to_array(actions, split), string_to_array(versions, split),
             string_to_array(raws, split), meters_wh, powers_w, currents_a, voltages_v, socs, read_at, states, state_at,
             seq_nos, sampled, sampled_station, string_to_array(samples, split), others)
           with ordinality as u(owner, station, received, evse_no, txn, needs, log_id, message_id, action, version, raw,
             meter_wh, power_w, current_a, voltage_v, soc, read_at, state, state_at, seq_no, sampled, sampled_station,
             samples, others, n)
     group by u.owner order by u.owner
  loop
    perform set_config('livery.tenant_id', own.tenant::text, true);
    if own.has_states then
      insert into livery.session_event (session_id, key, at, kind, data, received_at)
      select s.id, 'state:' || to_char(at.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') || ':' || t.state,
             at.at, 'state', jsonb_build_object('state', t.state), epoch + t.received * us
        from unnest(own.told) t
        cross join lateral (select epoch + t.state_at * us as at) at
        cross join lateral (select f.id from livery.charging_session f
                             where f.station_id = t.station and f.ocpp_transaction_id = t.txn limit 1) s
       where t.state is not null
         and t.state is distinct from (select l.charging_state from livery.session_live l where l.session_id = s.id)
      on conflict do nothing;
    end if;
    idle := '{}';
    for one in
      with target as materialized (
        select t.*, s.id as session, s.status, s.meter_start_wh, s.cost_cap_minor, coalesce(t.evse_no, s.evse_no, 1) as no,
               epoch + t.received * us as received_time, epoch + t.read_at * us as read_time,
               (t.needs and (s.id is null or s.evse_no is null or t.evse_no <> s.evse_no)
                or t.txn is not null and not (s.status = 'ACTIVE'
                     or s.status = 'COMPLETED' and epoch + coalesce(t.read_at, t.state_at) * us <= s.ended_at)) is true
               as cold
          from unnest(own.told) t
          left join lateral (
            select f.id, f.status, f.meter_start_wh, f.cost_cap_minor, f.evse_no, f.ended_at
              from livery.charging_session f
             where f.station_id = t.station and f.ocpp_transaction_id = t.txn
            union all
            (select f.id, f.status, f.meter_start_wh, f.cost_cap_minor, f.evse_no, f.ended_at
               from livery.evse e join livery.charging_session f on f.evse_id = e.id and f.station_id = e.station_id
              where e.station_id = t.station and e.evse_no = t.evse_no and f.status = 'ACTIVE' and not t.needs
              order by f.started_at desc limit 1)
            limit 1) s on true
      ), kept as (
        insert into livery.ocpp_message (id, at, station_id, direction, kind, ocpp_version, message_id, action, raw,
               answered_at)
        select t.log_id, t.received_time, t.station, 'in', 'call', t.version, t.message_id, t.action, t.raw,
               clock_timestamp()
          from target t where not t.cold
      ), stored as (
        insert into livery.meter_instant (station_id, evse_no, session_id, sampled_at, station_at, received_at, digest,
               samples)
        select t.station, t.no, t.session, epoch + i.sampled * us, epoch + i.station_us * us, t.received_time,
               hashtextextended(i.samples, 0), i.samples::json
          from target t cross join lateral (
            select t.sampled, t.sampled_station, t.samples
            union all
            select (o ->> 0)::bigint, (o ->> 1)::bigint, o ->> 2 from json_array_elements(t.others::json) o
          ) as i(sampled, station_us, samples)
         where not t.cold and i.samples <> ''
        on conflict do nothing
      ), live as (
        insert into livery.session_live as l (id, session_id, meter_wh, energy_wh, power_w, current_a, voltage_v,
               soc_percent, reading_at, charging_state, seq_no, first_wh, metered_at)
        select t.session, t.session, t.meter_wh, t.meter_wh - t.meter_start_wh, t.power_w, t.current_a, t.voltage_v, t.soc,
               t.read_time, t.state, t.seq_no, t.meter_wh, case when t.meter_wh is not null then t.read_time end
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
      select t.n::int, case when t.status = 'ACTIVE' then t.session end as session, t.no::int, t.cold,
             case when t.status = 'ACTIVE' and t.cost_cap_minor is not null and (t.read_at is not null or t.state is not null)
                  then procrastinate.livery_defer('charging.check_cap', 0, 'cap-now:' || t.session,
                                                  jsonb_build_object('session_id', t.session::text), null)::text end as job,
             t.session is null and t.read_at is not null and not t.cold as is_idle
        from target t
    loop
      message := one.n; session_id := one.session; evse_no := one.no; is_cold := one.cold; job := one.job;
      return next;
      if one.is_idle then idle := idle || one.n; end if;
    end loop;
    if idle <> '{}' then
      update livery.evse_live l set
        meter_wh = coalesce(t.meter_wh, l.meter_wh), power_w = coalesce(t.power_w, l.power_w),
        current_a = coalesce(t.current_a, l.current_a), voltage_v = coalesce(t.voltage_v, l.voltage_v),
        soc_percent = coalesce(t.soc, l.soc_percent), reading_at = epoch + t.read_at * us
        from unnest(own.told) t
        cross join lateral (select e.id from livery.evse e
                             where e.station_id = t.station and e.evse_no = t.evse_no limit 1) e
       where t.n = any(idle) and l.evse_id = e.id and l.tenant_id = (select livery.tid())
         and (l.reading_at is null or l.reading_at <= epoch + t.read_at * us);
    end if;
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;

-- What readers see: one row per sampled value. `samples` is a list of [measurand, phase, location, context, unit, raw value,
-- value, signed data], whose end is left out where it says nothing: a value that is not there is the raw one.
create view livery.meter_value with (security_invoker = true) as
select i.tenant_id, i.sampled_at, i.station_id, i.evse_no, s.one ->> 0 as measurand, s.one ->> 1 as phase,
       s.one ->> 2 as location, s.one ->> 3 as context, s.one ->> 5 as raw_value, i.session_id,
       cast(s.one ->> (case when json_array_length(s.one) > 6 then 6 else 5 end) as numeric(20, 4)) as value,
       s.one ->> 4 as unit, i.received_at, i.station_at, s.one ->> 7 as signed_data
  from livery.meter_instant i cross join lateral json_array_elements(i.samples) as s(one);

-- Every frame a row: what answers a hot message is an empty CALLRESULT, kept as its time in the row of the CALL. The
-- answer's id is the odd one after the CALL's, so that frames in the order of (call_id, id) are in that of their ids;
-- whoever asks for a page says so, and reads no more than it.
create view livery.ocpp_frame with (security_invoker = true) as
select m.tenant_id, m.station_id, f.id, m.id as call_id, m.at as call_at, f.at, f.direction, f.kind, m.ocpp_version,
       m.message_id, m.action, f.raw, f.error
  from livery.ocpp_message m cross join lateral (
    select m.id, m.at, m.direction, m.kind, m.raw, m.error
    union all
    select cast(left(cast(m.id as text), 35) || translate(right(cast(m.id as text), 1), '02468ace', '13579bdf') as uuid),
           m.answered_at, 'out', 'result', '[3,' || to_json(m.message_id) || ',{}]', null
     where m.answered_at is not null
  ) as f(id, at, direction, kind, raw, error);

-- The live figures of an EVSE: those of the session that runs there, else what it said without one.
create view livery.evse_figures with (security_invoker = true) as
select l.tenant_id, l.evse_id, f.power_w, f.meter_wh, f.current_a, f.voltage_v, f.soc_percent, f.reading_at
  from livery.evse_live l cross join lateral (
    (select o.power_w, o.meter_wh, o.current_a, o.voltage_v, o.soc_percent, o.reading_at
       from livery.charging_session s join livery.session_live o on o.tenant_id = s.tenant_id and o.session_id = s.id
      where s.tenant_id = l.tenant_id and s.evse_id = l.evse_id and s.status = 'ACTIVE' and o.reading_at is not null
      order by s.started_at desc limit 1)
    union all
    select l.power_w, l.meter_wh, l.current_a, l.voltage_v, l.soc_percent, l.reading_at
    limit 1
  ) f;
