-- Who may do what with procrastinate's tables: app_rw only defers, for its own tenant; queue_rw works.

revoke all on all functions in schema procrastinate from public;
create function procrastinate.livery_defer(
  task text, job_priority integer, job_lock text, args jsonb, at timestamptz)
returns void language plpgsql security definer set search_path = procrastinate, pg_temp as $$
begin
  -- The tenant of a job is the transaction's own, never an argument.
  if livery.tid() is null then raise exception 'a job needs a tenant'; end if;
  perform procrastinate_defer_jobs_v1(array[row(
    'default', task, job_priority, livery.tid()::text || ':' || job_lock, null,
    jsonb_build_object('tenant', livery.tid()::text) || (args - 'tenant'), at)::procrastinate_job_to_defer_v1]);
end $$;
revoke all on function procrastinate.livery_defer(text, integer, text, jsonb, timestamptz) from public;
grant usage on schema procrastinate to app_rw, queue_rw;
grant execute on function procrastinate.livery_defer(text, integer, text, jsonb, timestamptz) to app_rw;
grant select, insert, update, delete on all tables in schema procrastinate to queue_rw;
grant usage on all sequences in schema procrastinate to queue_rw;
grant execute on all functions in schema procrastinate to queue_rw;
-- A finished or retried job wakes those that wait for its lock (recipes.md 2, trap 2).
create trigger livery_wake after update of status on procrastinate.procrastinate_jobs for each row
  when (old.status = 'doing' and (new.lock is not null or new.status = 'todo'))
  execute function procrastinate.procrastinate_notify_queue_job_inserted_v1();
