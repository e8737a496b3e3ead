"""What stays of meter values when their raw rows go: hours of each EVSE, curves of each session, signed values.

A day (UTC) is rolled up when it is over, from all its raw rows and as a whole, so that rolling it again says the same;
it is rolled again when readings came late, and once more just before its partition is dropped. Readings that come later
still lie in the default partition: they are added to the rollups and deleted in one statement. What money is worked
out from is never lost: each reading of the energy register stands in its session's curve as it was.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tenants.scope import Scope

LATE_DAYS = (
    7  # how far back the nightly round looks for readings that came late; older days once more before they go
)

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
  select at, value from kept
   where at not in (select at from raw union select date_bin('1 minute', at, 'epoch') from raw)
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
         where i.inhparent = 'livery.meter_instant'::regclass and c.relname ~ '_[0-9]{8}$' order by 1""")
    return list((await scope.db.execute(query)).scalars())


async def unrolled_days(scope: Scope) -> list[date]:
    """Days that are over and have a partition, with readings that their rollups do not know (yet)."""
    today, days = scope.now.date(), await raw_days(scope)
    query = text("""
        select day from unnest(cast(:days as date[])) day where exists (
          select from livery.meter_hour where hour_at >= day::timestamp at time zone 'UTC'
             and hour_at < (day + 1)::timestamp at time zone 'UTC')""")
    rolled = set((await scope.db.execute(query, {"days": days})).scalars())
    recent = today - timedelta(days=LATE_DAYS)
    candidates = [day for day in days if day < today and (day >= recent or day not in rolled)]
    return [day for day in candidates if not await is_rolled(scope, day)]


async def roll_day(scope: Scope, day: date) -> None:
    """The rollups of one day, anew from its raw rows. The day has a partition of its own, or has nothing."""
    await _alone(scope)
    await scope.db.execute(text("select livery.roll_up(:since, :until, false, '{}')"), _bounds(day))


async def is_rolled(scope: Scope, day: date) -> bool:
    """Whether each raw reading of the day is in the hours: late ones are not yet."""
    query = text("""
        select (select count(*) from livery.meter_value
                 where sampled_at >= :since and sampled_at < :until and value is not null)
             = (select coalesce(sum(sample_count), 0) from livery.meter_hour
                 where hour_at >= :since and hour_at < :until)""")
    return bool((await scope.db.execute(query, _bounds(day))).scalar_one())


async def fold_late(scope: Scope) -> int:
    """Readings older than what is kept, of days that have no partition any more: into the rollups, and gone.

    How many they were. One that is told again after its day was dropped is counted again in its hour; a session's
    energy is not changed by it.
    """
    await _alone(scope)
    query = text("select livery.roll_up('-infinity', :before, true, cast(:kept as date[]))")
    parameters = {"before": _bounds(oldest_kept(scope))["since"], "kept": await raw_days(scope)}
    return (await scope.db.execute(query, parameters)).scalar_one()


def oldest_kept(scope: Scope) -> date:
    """The first day whose raw readings stay."""
    return scope.now.date() - timedelta(days=scope.settings.meter_value_days)


async def _alone(scope: Scope) -> None:
    """One round of a tenant at a time."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext('charging.rollups'))"),
        {"tenant": str(scope.tenant_id)},
    )


def _bounds(day: date) -> dict[str, datetime]:
    since = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return {"since": since, "until": since + timedelta(days=1)}
