"""Which time zones a place may be in: what PostgreSQL would not know is taken by nobody."""

from typing import Any

import pytest
from sqlalchemy import text

from app.brands import service as brands
from app.kernel import zones
from app.kernel.errors import Invalid
from app.stations import service as stations
from tenants.database import Database
from tests.web import CLI, found_brand

pytestmark = pytest.mark.anyio
STRANGE = (
    "localtime", "posixrules", "right/Europe/Berlin", "posix/Europe/Berlin", "Factory", "", "europe/berlin", "Europe",
    "../etc/passwd",
)  # fmt: skip
PLACE: dict[str, Any] = {
    "name": "A",
    "address": "B",
    "city": "C",
    "country": "DEU",
    "time_zone": "Europe/Berlin",
}


async def test_no_profile_and_no_place_takes_a_time_zone_that_the_database_does_not_know(
    database: Database,
) -> None:
    tenant_id = await found_brand(database)
    async with database.scope(tenant_id, CLI) as scope:
        place = await stations.create_location(scope, **PLACE)
        for name in STRANGE:
            for refused in (
                brands.update_profile(scope, {"time_zone": name}),
                stations.create_location(scope, **PLACE | {"time_zone": name}),
                stations.update_location(scope, place.id, time_zone=name),
            ):
                with pytest.raises(Invalid) as caught:
                    await refused
                assert [fault.field for fault in caught.value.faults] == ["time_zone"], name
        for name in ("UTC", "America/Argentina/Buenos_Aires"):
            await brands.update_profile(scope, {"time_zone": name})
            await stations.update_location(scope, place.id, time_zone=name)
        known = set((await scope.db.execute(text("select name from pg_timezone_names"))).scalars())
        assert {"UTC", "Europe/Berlin", "Asia/Kolkata"} <= zones._names()  # noqa: SLF001
        # A zone that only Python knows yet is refused too.
        newer = next(iter(zones._names() - known), None)  # noqa: SLF001
        assert newer is None or not await zones.is_known(scope, newer)
