-- Day partitions of meter_value and ocpp_message: made and dropped by pinned functions, since app_rw owns nothing.

create function livery.ensure_day(parent text, day date)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  name text := parent || '_' || to_char(day, 'YYYYMMDD');
begin
  if parent not in ('meter_value', 'ocpp_message') then raise exception 'no such partitioned table: %', parent; end if;
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

create function livery.drop_day(parent text, day date)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  name text := parent || '_' || to_char(day, 'YYYYMMDD');
begin
  if parent <> 'ocpp_message' then raise exception 'only the raw log is dropped by day'; end if;
  if day > current_date - 30 then raise exception 'day % is younger than 30 days', day; end if;
  if to_regclass('livery.' || name) is null then return false; end if;
  execute format('drop table livery.%I', name);
  return true;
end $$;

create function livery.old_days(parent text)
returns setof date language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select to_date(right(c.relname, 8), 'YYYYMMDD')
    from pg_class c join pg_inherits i on i.inhrelid = c.oid join pg_class p on p.oid = i.inhparent
    join pg_namespace n on n.oid = p.relnamespace
   where n.nspname = 'livery' and p.relname = parent and c.relname ~ '_[0-9]{8}$'
     and to_date(right(c.relname, 8), 'YYYYMMDD') <= current_date - 30
$$;
