-- The gateway's flush of hot messages, as in readings.sql, and: energy counts from the first reading where the meter's
-- begin was never told; when the meter was read last is kept; a change of state alone makes the cap look, too.

create or replace function livery.ingest_readings(
  tenants uuid[], owners int[], stations uuid[], received bigint[], evse_nos int[], transactions text[],
  needs_session bool[], in_ids uuid[], out_ids uuid[], message_ids text[], actions text[], versions text[],
  raws text[], answers text[],
  meters_wh bigint[], powers_w bigint[], currents_a numeric[], voltages_v numeric[], socs numeric[], read_at bigint[],
  states text[], state_at bigint[], seq_nos int[],
  s_message int[], s_kind int[], s_sampled bigint[], s_raw text[], s_value numeric[], s_station_at bigint[], s_signed text[],
  k_measurand text[], k_phase text[], k_location text[], k_context text[], k_unit text[])
returns table (message int, session_id uuid, evse_no int, is_cold bool) language plpgsql as $$
#variable_conflict use_column
declare
  own record;
  epoch constant timestamptz := 'epoch';
  us constant interval := interval '1 microsecond';
begin
  for own in
    with m as (
      select u.owner, array_agg(row(u.n, u.station, u.received, u.evse_no, u.txn, u.needs, u.in_id, u.out_id, u.message_id,
               u.action, u.version, u.raw, u.answer, u.meter_wh, u.power_w, u.current_a, u.voltage_v, u.soc, u.read_at,
               u.state, u.state_at, u.seq_no)) as told
        from unnest(owners, stations, received, evse_nos, transactions, needs_session, in_ids, out_ids, message_ids,
               actions, versions, raws, answers, meters_wh, powers_w, currents_a, voltages_v, socs, read_at, states, state_at,
               seq_nos)
             with ordinality as u(owner, station, received, evse_no, txn, needs, in_id, out_id, message_id, action,
               version, raw, answer, meter_wh, power_w, current_a, voltage_v, soc, read_at, state, state_at, seq_no, n)
       group by u.owner
    ), s as (
      select owners[u.message] as owner,
             array_agg(row(u.message, u.kind, u.sampled, u.raw, u.value, u.station_at, u.signed)) as sampled
        from unnest(s_message, s_kind, s_sampled, s_raw, s_value, s_station_at, s_signed)
             as u(message, kind, sampled, raw, value, station_at, signed)
       group by 1
    )
    select tenants[m.owner] as tenant, m.told, s.sampled from m left join s on s.owner = m.owner order by m.owner
  loop
    perform set_config('livery.tenant_id', own.tenant::text, true);
    return query
    with told as materialized (
      select * from unnest(own.told) as u(
        n bigint, station uuid, received bigint, evse_no int, txn text, needs bool, in_id uuid, out_id uuid,
        message_id text, action text, version text, raw text, answer text, meter_wh bigint, power_w bigint,
        current_a numeric, voltage_v numeric, soc numeric, read_at bigint, state text, state_at bigint, seq_no int)
    ), target as materialized (
      select t.*, s.id as session, s.status, s.meter_start_wh, s.cost_cap_minor,
             coalesce(t.evse_no, s.evse_no, 1) as no, coalesce(s.evse_id, e.id) as evse,
             (t.needs and (s.id is null or s.evse_no is null or t.evse_no <> s.evse_no)
              or t.txn is not null and not (s.status = 'ACTIVE'
                   or s.status = 'COMPLETED' and epoch + coalesce(t.read_at, t.state_at) * us <= s.ended_at)) is true as cold
        from told t
        left join livery.evse e on e.station_id = t.station and e.evse_no = t.evse_no
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
      insert into livery.meter_value (station_id, evse_no, session_id, sampled_at, received_at, station_at, measurand,
             phase, location, context, raw_value, value, unit, signed_data)
      select t.station, t.no, t.session, epoch + v.sampled * us, epoch + t.received * us,
             epoch + v.station_at * us, k_measurand[v.kind], k_phase[v.kind], k_location[v.kind],
             k_context[v.kind], v.raw, v.value, k_unit[v.kind], v.signed
        from unnest(own.sampled) as v(message int, kind int, sampled bigint, raw text, value numeric, station_at bigint,
               signed text)
        join target t on t.n = v.message and not t.cold
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
    ), noted as (
      insert into livery.session_event (session_id, key, at, kind, data, received_at)
      select t.session, 'state:' || to_char((epoch + t.state_at * us) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
             || ':' || t.state, epoch + t.state_at * us, 'state', jsonb_build_object('state', t.state),
             epoch + t.received * us
        from target t left join livery.session_live l on l.session_id = t.session
       where t.state is not null and t.session is not null and l.charging_state is distinct from t.state
      on conflict do nothing
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
    ), capped as (
      select procrastinate.livery_defer('charging.check_cap', 0, 'cap-now:' || t.session,
                                        jsonb_build_object('session_id', t.session::text), null)
        from target t
       where t.status = 'ACTIVE' and t.cost_cap_minor is not null and (t.read_at is not null or t.state is not null)
    )
    select t.n::int, case when t.status = 'ACTIVE' then t.session end, t.no::int, t.cold
      from target t where (select count(*) from capped) >= 0;  -- named here so that it runs
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;
