"""Time zones that a place may be in: those that Python and PostgreSQL both know, by their proper names."""

from functools import lru_cache
from zoneinfo import available_timezones

from sqlalchemy import text

from tenants.scope import Scope

# IANA's areas. What else lies in the folder of zones are files of the machine ("localtime", "posix/…", "right/…") and
# old abbreviations; PostgreSQL refuses many of them.
_AREAS = frozenset(
    {"Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}
)  # fmt: skip


def is_time_zone(name: str) -> bool:
    """`Area/City` or `UTC` (pure)."""
    return name in _names()


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(
        name for name in available_timezones() if name == "UTC" or name.partition("/")[0] in _AREAS
    )


async def is_known(scope: Scope, name: str) -> bool:
    """Also to the database, which sums up days and months by it."""
    if not is_time_zone(name):
        return False
    query = text("select exists (select from pg_catalog.pg_timezone_names where name = :name)")
    return (await scope.db.execute(query, {"name": name})).scalar_one()
