-- What many stations say at once, in one transaction of many tenants, every row through FORCE RLS (SECURITY INVOKER).
-- `batch` is [{"tenant": …, "told": [{"n": …, "station": …, …}]}], tenants and stations in order, a station once. What
-- needs judgement is not among the rows that come back: nothing of it was written, and the ordinary verb takes it. So it
-- is with a row that somebody else holds: a fleet does not wait for one of its own.
-- Times are microseconds since 1970.

create function livery.moment(us bigint) returns timestamptz language sql immutable parallel safe
  return timestamptz 'epoch' + us * interval '1 microsecond';

-- News for the worker: one row each, and one job for all of them.
create function livery.tell_news(kind text, sources uuid[], datas jsonb[], at timestamptz)
returns void language plpgsql as $$
declare ids uuid[];
begin
  if cardinality(sources) > 0 then
    with made as (
      insert into livery.event (kind, source_type, source_id, data, at)
      select tell_news.kind, 'charging_station', u.source, u.data, tell_news.at
        from unnest(sources, datas) as u(source, data) returning id)
    select array_agg(id) into ids from made;
    perform procrastinate.livery_defer('events.fan_out', 0, null, jsonb_build_object('event_ids', to_jsonb(ids)), null);
  end if;
end $$;

-- The newest authenticated connection wins: its epoch is the highest. One whose older link has a command under way is
-- left to the verb.
create function livery.open_links(batch jsonb, node text, at timestamptz)
returns table (n int, epoch int, registration text, has_booted boolean, has_commands boolean)
language plpgsql as $$
#variable_conflict use_column
declare part record;
begin
  for part in select value ->> 'tenant' as tenant, value -> 'told' as told from jsonb_array_elements(batch) loop
    perform set_config('livery.tenant_id', part.tenant, true);
    return query
    with told as materialized (
      select t.n, t.station, t.version, t.remote, s.registration, s.booted_at is not null as has_booted
        from jsonb_to_recordset(part.told) as t(n int, station uuid, version text, remote text)
        join livery.charging_station s on s.id = t.station
        left join lateral (select c.station_id from livery.station_connection c where c.station_id = t.station
                              for no key update skip locked) free on true
       where not exists (select from livery.station_command c where c.station_id = t.station and c.status = 'sent')
         and (free.station_id is not null
              or not exists (select from livery.station_connection c where c.station_id = t.station))
    ), opened as (
      insert into livery.station_connection as c (station_id, epoch, is_online, node, ocpp_version, remote, connected_at,
             last_seen_at, close_reason)
      select t.station, 1, true, open_links.node, t.version, t.remote, open_links.at, open_links.at, '' from told t
      on conflict (tenant_id, station_id) do update set
        epoch = c.epoch + 1, is_online = true, node = excluded.node, ocpp_version = excluded.ocpp_version,
        remote = excluded.remote, connected_at = excluded.connected_at, last_seen_at = excluded.last_seen_at,
        close_reason = ''
      returning c.station_id, c.epoch, c.ocpp_version
    ), news as (
      select livery.tell_news('StationConnected', array_agg(o.station_id),
               array_agg(jsonb_build_object('ocpp_version', o.ocpp_version)), open_links.at) from opened o
    )
    select t.n, o.epoch::int, t.registration, t.has_booted,
           exists (select from livery.station_command c where c.station_id = t.station and c.status = 'queued')
      from told t join opened o on o.station_id = t.station where (select count(*) from news) > 0;
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;

-- Nothing happens where a newer connection stands.
create function livery.close_links(batch jsonb, lost text, at timestamptz) returns table (n int) language plpgsql as $$
#variable_conflict use_column
declare part record;
begin
  for part in select value ->> 'tenant' as tenant, value -> 'told' as told from jsonb_array_elements(batch) loop
    perform set_config('livery.tenant_id', part.tenant, true);
    return query
    with closed as (
      update livery.station_connection c
         set is_online = false, disconnected_at = close_links.at, close_reason = t.reason
        from jsonb_to_recordset(part.told) as t(n int, station uuid, epoch int, reason text)
        cross join lateral (select f.id from livery.station_connection f where f.station_id = t.station
                               for no key update skip locked) free
       where c.id = free.id and c.epoch = t.epoch and c.tenant_id = (select livery.tid())
         and (c.is_online or c.close_reason = close_links.lost)
      returning t.n, t.station, t.reason
    ), news as (
      select livery.tell_news('StationDisconnected', array_agg(c.station), array_agg(jsonb_build_object('reason', c.reason)),
               close_links.at) from closed c
    )
    select c.n from closed c where (select count(*) from news) > 0;
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;

-- A process says which links it holds, by epoch, and when each was heard last. Those that counted as lost with it are
-- online again; one whose station has a newer link is to be closed.
create function livery.hold_links(batch jsonb, node text, lost text)
returns table (n int, is_newer boolean, is_again boolean) language plpgsql as $$
#variable_conflict use_column
declare part record;
begin
  for part in select value ->> 'tenant' as tenant, value -> 'told' as told from jsonb_array_elements(batch) loop
    perform set_config('livery.tenant_id', part.tenant, true);
    return query
    with held as materialized (
      select t.*, t.epoch = c.epoch and c.node = hold_links.node and not c.is_online and c.close_reason = hold_links.lost
             as is_again, c.epoch > t.epoch as is_newer
        from jsonb_to_recordset(part.told) as t(n int, station uuid, epoch int, seen bigint)
        cross join lateral (select f.* from livery.station_connection f where f.station_id = t.station
                               for no key update skip locked) c
    ), touched as (
      update livery.station_connection c set
        last_seen_at = greatest(c.last_seen_at, livery.moment(h.seen)),
        is_online = c.is_online or h.is_again,
        disconnected_at = case when h.is_again then null else c.disconnected_at end,
        close_reason = case when h.is_again then '' else c.close_reason end
        from held h where c.station_id = h.station and c.tenant_id = (select livery.tid())
    )
    select h.n, h.is_newer, h.is_again from held h where h.is_newer or h.is_again;
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;

-- For which of the stations that a process holds a command waits.
create function livery.waiting_commands(tenants uuid[], node text) returns table (tenant_id uuid, station_id uuid)
language plpgsql as $$
#variable_conflict use_column
begin
  for i in 1 .. coalesce(cardinality(tenants), 0) loop
    perform set_config('livery.tenant_id', tenants[i]::text, true);
    return query
    select distinct c.tenant_id, c.station_id from livery.station_command c
      join livery.station_connection l on l.station_id = c.station_id and l.node = waiting_commands.node and l.is_online
     where c.status = 'queued';
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;

-- A boot that says nothing new about its station. The sessions that run there were interrupted.
create function livery.report_boots(batch jsonb) returns table (n int) language plpgsql as $$
#variable_conflict use_column
declare part record;
begin
  for part in select value ->> 'tenant' as tenant, value -> 'told' as told from jsonb_array_elements(batch) loop
    perform set_config('livery.tenant_id', part.tenant, true);
    return query
    with told as materialized (
      select t.* from jsonb_to_recordset(part.told) as t(n int, station uuid, received bigint, vendor text, model text,
             serial_number text, firmware_version text, reason text, key text, version text, message_id text, raw text, answer text)
        cross join lateral (select f.* from livery.charging_station f where f.id = t.station
                               for no key update skip locked) s
       where s.retired_at is null and s.registration = 'accepted' and s.vendor = t.vendor and s.model = t.model
         and s.serial_number is not distinct from t.serial_number
         and s.firmware_version is not distinct from t.firmware_version
         and (select count(*) from livery.charging_session c where c.station_id = t.station and c.status = 'ACTIVE')
           = (select count(*) from (select from livery.charging_session c where c.station_id = t.station
                                      and c.status = 'ACTIVE' for no key update skip locked) as free)
    ), interrupted as (
      update livery.charging_session c set interrupted_at = livery.moment(t.received)
        from told t where c.station_id = t.station and c.status = 'ACTIVE' and c.tenant_id = (select livery.tid())
      returning c.id, t.key, c.interrupted_at
    ), noted as (
      insert into livery.session_event (session_id, key, at, kind, data, received_at)
      select i.id, i.key, i.interrupted_at, 'interrupted', '{}', i.interrupted_at from interrupted i
      on conflict do nothing
    ), booted as (
      update livery.charging_station s set boot_reason = t.reason, booted_at = livery.moment(t.received)
        from told t where s.id = t.station and s.tenant_id = (select livery.tid())
      returning s.id, t.reason, s.booted_at
    ), kept as (
      insert into livery.ocpp_message (at, station_id, direction, kind, ocpp_version, message_id, action, raw)
      select w.at, t.station, w.direction, w.kind, t.version, t.message_id, 'BootNotification', w.raw
        from told t cross join lateral (values
          (livery.moment(t.received), 'in', 'call', t.raw), (clock_timestamp(), 'out', 'result', t.answer))
          as w(at, direction, kind, raw)
    ), news as (
      select livery.tell_news('StationBooted', array_agg(b.id), array_agg(jsonb_build_object('reason', b.reason)),
               max(b.booted_at)) from booted b
    )
    select t.n from told t where (select count(*) from news) > 0;
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;

-- States of connectors we know, none of them a fault, and none that a wish of ours waits for. 1.6 tells the charging
-- state this way: it moves the session that runs there.
create function livery.report_statuses(batch jsonb) returns table (n int, session uuid) language plpgsql as $$
#variable_conflict use_column
declare part record;
begin
  for part in select value ->> 'tenant' as tenant, value -> 'told' as told from jsonb_array_elements(batch) loop
    perform set_config('livery.tenant_id', part.tenant, true);
    return query
    with told as materialized (
      select t.*, c.id as connector, s.id as session
        from jsonb_to_recordset(part.told) as t(n int, station uuid, received bigint, evse_no int, connector_no int,
             status text, detail text, error_code text, info text, vendor_error_code text, sampled bigint, state text,
             state_key text, version text, message_id text, raw text, answer text)
        left join livery.evse e on e.station_id = t.station and e.evse_no = t.evse_no
        left join lateral (select f.id from livery.connector f where f.evse_id = e.id and f.connector_no = t.connector_no
                              for no key update skip locked) c on true
        left join lateral (
          select f.id from livery.charging_session f
           where f.station_id = t.station and f.evse_no = t.evse_no and f.status = 'ACTIVE' and t.state is not null
             and f.started_at <= livery.moment(t.sampled)
           order by f.started_at desc limit 1) s on true
       where (t.evse_no = 0 or c.id is not null)
         and not exists (select from livery.availability_wish w
                          where w.station_id = t.station and w.state in ('accepted', 'scheduled', 'unknown'))
    ), stood as (
      update livery.connector c set status = t.status, detail = t.detail, error_code = t.error_code, error_info = t.info,
             vendor_error_code = t.vendor_error_code, status_at = livery.moment(t.sampled)
        from told t where c.id = t.connector and c.tenant_id = (select livery.tid())
         and (c.status_at is null or c.status_at <= livery.moment(t.sampled))
    ), kept as (
      insert into livery.ocpp_message (at, station_id, direction, kind, ocpp_version, message_id, action, raw)
      select w.at, t.station, w.direction, w.kind, t.version, t.message_id, 'StatusNotification', w.raw
        from told t cross join lateral (values
          (livery.moment(t.received), 'in', 'call', t.raw), (clock_timestamp(), 'out', 'result', t.answer))
          as w(at, direction, kind, raw)
    ), noted as (
      insert into livery.session_event (session_id, key, at, kind, data, received_at)
      select t.session, t.state_key, livery.moment(t.sampled), 'state', jsonb_build_object('state', t.state),
             livery.moment(t.received)
        from told t where t.session is not null
      on conflict do nothing
    ), live as (
      insert into livery.session_live as l (session_id, charging_state)
      select t.session, t.state from told t where t.session is not null
      on conflict (tenant_id, session_id) do update set charging_state = excluded.charging_state
    )
    select t.n, t.session from told t;
  end loop;
  perform set_config('livery.tenant_id', '', true);
end $$;

-- The handshakes of a moment, looked up at once: as `platform.resolve_station` does for one.
create function platform.resolve_stations(brands text[], identities text[], known_digests jsonb)
returns table (n int, tenant_id uuid, slug text, station_id uuid, identity text, digests jsonb, attributes jsonb, status text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select asked.n::int, found.*
    from unnest(brands, identities) with ordinality as asked(brand, station_identity, n)
    cross join lateral platform.resolve_station(asked.brand, asked.station_identity, array(
      select jsonb_array_elements_text(known_digests -> (asked.n::int - 1)))) as found
$$;
