"""What stays of meter values when their raw rows go: hours of each EVSE, curves of each session, signed values.

A day (UTC) is rolled up when it is over, from all its raw rows and as a whole, so that rolling it again says the same;
it is rolled again when readings came late, and once more just before its partition is dropped. Readings that come later
still lie in the default partition: they are added to the rollups and deleted in one statement. What money is worked
out from is never lost: each reading of the energy register stands in its session's curve as it was.
"""

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app.charging.reports import ENERGY
from tenants.scope import Scope

LATE_DAYS = 7  # how far back the nightly round looks for readings that came late
_OF_DAY = "sampled_at >= cast(:since as timestamptz) and sampled_at < cast(:until as timestamptz)"
_SUMMARY = """count(*), sum(value), min(value), max(value), min(sampled_at),
       (array_agg(value order by sampled_at, value))[1], max(sampled_at),
       (array_agg(value order by sampled_at desc, value desc))[1]"""
_SUMMARY_COLUMNS = "sample_count, value_sum, value_min, value_max, first_at, first_value, last_at, last_value"
_MERGED = """sample_count = o.sample_count + excluded.sample_count, value_sum = o.value_sum + excluded.value_sum,
  value_min = least(o.value_min, excluded.value_min), value_max = greatest(o.value_max, excluded.value_max),
  first_value = case when excluded.first_at < o.first_at then excluded.first_value else o.first_value end,
  last_value = case when excluded.last_at > o.last_at then excluded.last_value else o.last_value end,
  first_at = least(o.first_at, excluded.first_at), last_at = greatest(o.last_at, excluded.last_at)"""
_SIGNED_COLUMNS = (
    "sampled_at, station_id, evse_no, measurand, phase, location, context, raw_value, session_id, value, unit,"
    " received_at, station_at, signed_data"
)


def _into_hours(source: str) -> str:
    return f"""
insert into livery.meter_hour as o (hour_at, station_id, evse_no, measurand, phase, location, unit, {_SUMMARY_COLUMNS})
select date_bin('1 hour', sampled_at, 'epoch'), station_id, evse_no, measurand, phase, location, unit, {_SUMMARY}
  from {source} where value is not null
 group by 1, 2, 3, 4, 5, 6, 7
on conflict (tenant_id, hour_at, station_id, evse_no, measurand, phase, location, unit) do update set {_MERGED}
"""  # noqa: S608


def _into_curves(source: str) -> str:
    """A register's points are its readings (two of one instant stay two); the others' are averages of a minute."""
    return f"""
insert into livery.session_curve as o (
  session_id, day, measurand, phase, location, unit, {_SUMMARY_COLUMNS}, curve_at, curve)
select s.session_id, s.day, s.measurand, s.phase, s.location, s.unit, s.n, s.total, s.low, s.high, s.first_at, s.first,
       s.last_at, s.last, p.at, p.value
  from (select session_id, cast(sampled_at at time zone 'UTC' as date) as day, measurand, phase, location, unit,
               {_SUMMARY}
          from {source} where value is not null and session_id is not null
         group by 1, 2, 3, 4, 5, 6) as s(
         session_id, day, measurand, phase, location, unit, n, total, low, high, first_at, first, last_at, last)
  join (select session_id, day, measurand, phase, location, unit,
               array_agg(cast(extract(epoch from at) * 1000000 as bigint) order by at, value) as at,
               array_agg(value order by at, value) as value
          from (select session_id, cast(sampled_at at time zone 'UTC' as date) as day, measurand, phase, location,
                       unit, case when measurand = :energy then sampled_at
                                  else date_bin('1 minute', sampled_at, 'epoch') end as at,
                       round(avg(value), 4) as value
                  from {source} where value is not null and session_id is not null
                 group by 1, 2, 3, 4, 5, 6, 7, case when measurand = :energy then value end) as point
         group by 1, 2, 3, 4, 5, 6) as p using (session_id, day, measurand, phase, location, unit)
  join livery.charging_session c on c.id = s.session_id
on conflict (tenant_id, session_id, day, measurand, phase, location, unit) do update set {_MERGED},
  curve_at = o.curve_at || excluded.curve_at, curve = o.curve || excluded.curve
"""  # noqa: S608


def _into_signed(source: str) -> str:
    return f"""
insert into livery.signed_meter_value ({_SIGNED_COLUMNS})
select {_SIGNED_COLUMNS} from {source} where signed_data is not null
on conflict do nothing
"""  # noqa: S608


_DAY = f"(select * from livery.meter_value where {_OF_DAY}) as told"  # noqa: S608
_LATE = "sampled_at < cast(:before as timestamptz) and not (" \
    "cast(sampled_at at time zone 'UTC' as date) = any(cast(:kept as date[])))"  # fmt: skip
_FOLD = (
    f"with gone as materialized (delete from livery.meter_value where {_LATE} returning *),"  # noqa: S608
    f" hours as ({_into_hours('gone')} returning 1), curves as ({_into_curves('gone')} returning 1),"
    f" signed as ({_into_signed('gone')} returning 1) select count(*) from gone"
)

# A session's energy register, from the raw rows and from what stayed of those that are gone.
REGISTERS = """
(select sampled_at, value from livery.meter_value
  where session_id = :session and measurand = 'Energy.Active.Import.Register' and phase = '' and location = 'Outlet'
    and value is not null
 union
 select timestamptz 'epoch' + point.at * interval '1 microsecond', point.value
   from livery.session_curve c, unnest(c.curve_at, c.curve) as point(at, value)
  where c.session_id = :session and c.measurand = 'Energy.Active.Import.Register' and c.phase = ''
    and c.location = 'Outlet') as register
"""

_POINTS = text("""
with raw as (
  select sampled_at as at, value from livery.meter_value
   where session_id = :session and measurand = :measurand and phase = '' and value is not null
), kept as (
  select timestamptz 'epoch' + point.at * interval '1 microsecond' as at, point.value
    from livery.session_curve c, unnest(c.curve_at, c.curve) as point(at, value)
   where c.session_id = :session and c.measurand = :measurand and c.phase = ''
)
select at, value from (
  select at, value from raw
  union all
  select at, value from kept where not exists (select from raw where date_bin('1 minute', raw.at, 'epoch') = kept.at)
) as point order by at limit :limit
""")


async def points_of(
    scope: Scope, session_id: UUID, measurand: str, limit: int = 3000
) -> list[tuple[datetime, Any]]:
    """A session's readings of one kind without a phase; where the raw ones are gone, one for each minute."""
    parameters = {"session": session_id, "measurand": measurand, "limit": limit}
    return [(row.at, row.value) for row in (await scope.db.execute(_POINTS, parameters)).all()]


async def raw_days(scope: Scope) -> list[date]:
    """The days whose readings have a partition of their own; the others' lie in the default one."""
    query = text("""
        select to_date(right(c.relname, 8), 'YYYYMMDD') from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'livery.meter_value'::regclass and c.relname ~ '_[0-9]{8}$' order by 1""")
    return list((await scope.db.execute(query)).scalars())


async def unrolled_days(scope: Scope) -> list[date]:
    """Days that are over and have a partition, with readings that their rollups do not know (yet)."""
    today = scope.now.date()
    query = text("select distinct cast(hour_at at time zone 'UTC' as date) from livery.meter_hour")
    rolled = set((await scope.db.execute(query)).scalars())
    recent = today - timedelta(days=LATE_DAYS)
    candidates = [
        day for day in await raw_days(scope) if day < today and (day >= recent or day not in rolled)
    ]
    return [day for day in candidates if not await is_rolled(scope, day)]


async def roll_day(scope: Scope, day: date) -> None:
    """The rollups of one day, anew from its raw rows. The day has a partition of its own, or has nothing."""
    await _alone(scope)
    bounds = _bounds(day)
    await scope.db.execute(
        text("delete from livery.meter_hour where hour_at >= :since and hour_at < :until"), bounds
    )
    await scope.db.execute(text("delete from livery.session_curve where day = :day"), {"day": day})
    await scope.db.execute(text(_into_hours(_DAY)), bounds)
    await scope.db.execute(text(_into_curves(_DAY)), bounds | {"energy": ENERGY})
    await scope.db.execute(text(_into_signed(_DAY)), bounds)


async def is_rolled(scope: Scope, day: date) -> bool:
    """Whether each raw reading of the day is in the hours: late ones are not yet."""
    query = text(f"""
        select (select count(*) from livery.meter_value where {_OF_DAY} and value is not null)
             = (select coalesce(sum(sample_count), 0) from livery.meter_hour
                 where hour_at >= cast(:since as timestamptz) and hour_at < cast(:until as timestamptz))""")  # noqa: S608
    return bool((await scope.db.execute(query, _bounds(day))).scalar_one())


async def fold_late(scope: Scope) -> int:
    """Readings older than what is kept, of days that have no partition any more: into the rollups, and gone.

    How many they were. One that is told again after its day was dropped is counted again in its hour; a session's
    energy is not changed by it.
    """
    await _alone(scope)
    parameters = {
        "before": _bounds(oldest_kept(scope))["since"], "kept": await raw_days(scope), "energy": ENERGY,
    }  # fmt: skip
    return (await scope.db.execute(text(_FOLD), parameters)).scalar_one()


def oldest_kept(scope: Scope) -> date:
    """The first day whose raw readings stay."""
    return scope.now.date() - timedelta(days=scope.settings.meter_value_days)


async def _alone(scope: Scope) -> None:
    """One round of a tenant at a time."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext('charging.rollups'))"),
        {"tenant": str(scope.tenant_id)},
    )


def _bounds(day: date) -> dict[str, str]:
    return {"since": f"{day}T00:00:00Z", "until": f"{day + timedelta(days=1)}T00:00:00Z"}
