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
  execute format('drop table livery.%I', name);
  return true;
end $$;
