"""The catalogue rules of isolation: what must hold for every relation, whatever its name (`isolation.md`).

Each rule is a query for its own violations; no table is named anywhere. `livery doctor` asks them of the database it
runs on, the isolation proof asks them of every mutant. Any role can: they read pg_catalog only.
"""

# ruff: noqa: S608 (put together from constants of this file)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.rls import BASE_POLICY, TENANT_POLICY

# Who may act with more than its caller's rights: each pins its search_path, takes the tenant from the transaction.
DEFINERS = frozenset({
    "livery.drop_day", "livery.ensure_day", "livery.old_days", "platform.active_tenant_ids",
    "platform.drop_api_key_route", "platform.drop_host_route", "platform.drop_station_route", "platform.own_host",
    "platform.own_tenant", "platform.own_unclaimed",
    "platform.platform_tenant_id", "platform.put_api_key_route", "platform.put_ca_route",
    "platform.is_sound_host", "platform.put_domain",
    "platform.put_host_route", "platform.put_own_name", "platform.put_payment_route", "platform.put_station_route",
    "platform.put_tenant_stats", "platform.report_unclaimed", "platform.resolve_api_key", "platform.resolve_host",
    "platform.resolve_payment_account", "platform.resolve_station",
    "platform.resolve_stations", "platform.station_cas", "platform.take_webhook",
    "procrastinate.livery_defer",
})  # fmt: skip

_TABLES = """
  tables as (
    select c.oid, c.relname, c.relkind, c.relispartition, c.relrowsecurity, c.relforcerowsecurity, c.relacl,
           c.relowner
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'livery' and c.relkind in ('r', 'p', 'f'))"""
_ROLES = "select oid, rolname from pg_roles where rolname in ('app_rw', 'platform_rw', 'queue_rw')"

RULES: dict[str, str] = {
    "role could bypass row-level security": """
      select rolname from pg_roles where rolname in ('app_rw', 'platform_rw', 'queue_rw')
         and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)""",
    "role is a member of another": f"""
      with roles as ({_ROLES})
      select r.rolname || ' in ' || g.rolname from pg_auth_members m
        join roles r on r.oid = m.member join pg_roles g on g.oid = m.roleid""",
    "role owns something": f"""
      with roles as ({_ROLES})
      select r.rolname || ' owns ' || o.what from roles r join (
             select relowner as owner, oid::regclass::text as what from pg_class
             union all select proowner, oid::regprocedure::text from pg_proc
             union all select nspowner, nspname from pg_namespace
             union all select datdba, datname from pg_database) o on o.owner = r.oid""",
    "role may create in a schema": f"""
      with roles as ({_ROLES} union all select 0, 'PUBLIC')
      select r.rolname || ' in ' || n.nspname from pg_namespace n, aclexplode(n.nspacl) a
        join roles r on r.oid = a.grantee
       where a.privilege_type = 'CREATE' and n.nspname not like 'pg\\_%'""",
    "grant on tenants' rows": f"""
      with {_TABLES}
      select t.relname || ': ' || a.privilege_type || ' to ' || coalesce(r.rolname, 'PUBLIC')
        from tables t cross join lateral aclexplode(t.relacl) a left join pg_roles r on r.oid = a.grantee
       where a.grantee <> t.relowner
         and (coalesce(r.rolname, 'PUBLIC') <> 'app_rw' or t.relispartition
              or a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') or a.is_grantable)
      union all
      select t.relname || '.' || att.attname || ': grant on a column' from tables t
        join pg_attribute att on att.attrelid = t.oid and att.attacl is not null""",
    "grant to app_rw outside its schema": """
      select c.oid::regclass || ': ' || a.privilege_type || ' to ' || coalesce(r.rolname, 'PUBLIC')
        from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a
        left join pg_roles r on r.oid = a.grantee
       where n.nspname not in ('livery', 'alembic', 'information_schema') and n.nspname not like 'pg\\_%'
         and coalesce(r.rolname, 'PUBLIC') in ('app_rw', 'PUBLIC')""",
    "row-level security is not on and forced": f"""
      with {_TABLES} select relname from tables where not (relrowsecurity and relforcerowsecurity)""",
    "policies are not the two": f"""
      with {_TABLES}, found as (
        select t.relname, t.relispartition, coalesce(array_agg(
                 format('%s %s %s %s using %s check %s', p.polname, p.polpermissive, p.polcmd, p.polroles,
                        pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
                 order by p.polname) filter (where p.oid is not null), '{{}}') as policies
          from tables t left join pg_policy p on p.polrelid = t.oid group by 1, 2)
      select relname || ': ' || policies::text from found where policies <> case when relispartition then '{{}}'::text[]
        else array['base t * {{0}} using {BASE_POLICY} check {BASE_POLICY}',
                   'tenant f * {{0}} using {TENANT_POLICY} check {TENANT_POLICY}'] end""",
    "tenant_id is not what it must be": f"""
      with {_TABLES}
      select t.relname from tables t
        left join pg_attribute a on a.attrelid = t.oid and a.attname = 'tenant_id' and not a.attisdropped
        left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
       where a.attnum is null or not a.attnotnull or a.atttypid <> 'uuid'::regtype
          or pg_get_expr(d.adbin, d.adrelid) is distinct from 'livery.tid()'
          -- The partitioned logs have no foreign keys at all: they are written by the thousand.
          or (t.relkind = 'r' and not t.relispartition and not exists (
                select from pg_constraint k where k.conrelid = t.oid and k.contype = 'f' and k.convalidated
                   and k.confrelid = to_regclass('platform.tenant') and k.conkey = array[a.attnum]))""",
    "unique index without the tenant first": f"""
      with {_TABLES}
      select i.indexrelid::regclass::text from tables t join pg_index i on i.indrelid = t.oid
       where i.indisunique and (select attname from pg_attribute
                                 where attrelid = t.oid and attnum = i.indkey[0]) is distinct from 'tenant_id'
      union all
      select t.relname || ': no primary key' from tables t
       where not exists (select from pg_index i where i.indrelid = t.oid and i.indisprimary)
      union all
      select t.relname || ': exclusion constraint' from tables t join pg_constraint k on k.conrelid = t.oid
       where k.contype = 'x'""",
    "foreign key that does not carry the tenant": f"""
      with {_TABLES}, keys as (
        select k.oid, k.conname, k.confdeltype, k.confdelsetcols, k.conrelid, n.nspname as own, fn.nspname as far,
               f.relname as target, array(select a.attname::text from unnest(k.conkey) with ordinality u(no, place)
                       join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.no order by u.place) as ours,
               array(select a.attname::text from unnest(k.confkey) with ordinality u(no, place)
                       join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.no order by u.place) as theirs,
               (select attnum from pg_attribute where attrelid = k.conrelid and attname = 'tenant_id') as tenant_no
          from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
          join pg_class f on f.oid = k.confrelid join pg_namespace fn on fn.oid = f.relnamespace
         where k.contype = 'f')
      select conrelid::regclass || '.' || conname from keys
       where (own = 'livery' and far = 'livery' and not (ours[1] = 'tenant_id' and theirs[1] = 'tenant_id'))
          or (own = 'livery' and far <> 'livery'
              and not (far = 'platform' and target = 'tenant' and ours = '{{tenant_id}}'))
          or (own <> 'livery' and far = 'livery')
          or (own = 'livery' and confdeltype in ('n', 'd')
              and (confdelsetcols is null or tenant_no = any (confdelsetcols)))""",
    "sequence": """
      select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = 'livery' and c.relkind = 'S'""",
    "view with its owner's rights": """
      select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname not in ('pg_catalog', 'information_schema') and (c.relkind = 'm' or c.relkind = 'v'
         and not coalesce(c.reloptions && array['security_invoker=true', 'security_invoker=on'], false))""",
    "rewrite rule": """
      select tablename || '.' || rulename from pg_rules where schemaname = 'livery'""",
    "function with its owner's rights": """
      select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
       where p.prosecdef and n.nspname not in ('pg_catalog', 'information_schema')
         and (not (n.nspname || '.' || p.proname) = any (:definers) or not coalesce(
              array_to_string(p.proconfig, ' ') ~ '^search_path=(pg_catalog|procrastinate), pg_temp$', false))""",
    "function that a cached plan could take for constant": """
      select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
       where n.nspname not in ('pg_catalog', 'information_schema') and p.prokind = 'f'
         and (p.proleakproof or (p.provolatile = 'i' and pg_get_functiondef(p.oid) ~ 'current_setting|livery\\.tid'))
      union all
      select 'livery.tid() is not STABLE' where not exists (
        select from pg_proc where oid = to_regprocedure('livery.tid()') and provolatile = 's' and not prosecdef)""",
    "trigger that does not fire": f"""
      with {_TABLES}
      select t.relname || '.' || g.tgname from tables t join pg_trigger g on g.tgrelid = t.oid
       where g.tgenabled not in ('O', 'A')""",
}  # fmt: skip


async def find_faults(session: AsyncSession) -> list[str]:
    """`rule: what breaks it`, for every rule; empty when the database isolates."""
    # Names are told in full only where nothing is in the path.
    await session.execute(text("select set_config('search_path', 'pg_catalog', true)"))
    found = []
    for rule, query in RULES.items():
        statement = text(query)
        if ":definers" in query:
            statement = statement.bindparams(definers=sorted(DEFINERS))
        found += [f"{rule}: {what}" for what in (await session.execute(statement)).scalars()]
    return found
