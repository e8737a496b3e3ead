"""A database that holds readings keeps them through every migration: the view says afterwards what was there."""

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from migrations.bootstrap import bootstrap
from migrations.run import upgrade
from tests.conftest import Databases, DatabaseUrls

COLUMNS = (
    "tenant_id, sampled_at, station_id, evse_no, measurand, phase, location, context, raw_value, session_id, value,"
    " unit, received_at, station_at, signed_data"
)
READINGS = (
    ("Energy.Active.Import.Register", "7360.0", Decimal("7360.0"), None), ("Power.Active.Import", "7.36", 7360, None),
    ("Own.Thing", "NaN", None, None), ("Own \"quoted\" thing\t\\ä", "007", 7, None), ("Voltage", "-0.5", "-0.5", None),
    ("Energy.Active.Import.Register", "<signed>", None, "<data>, \"signed\""),
)  # fmt: skip


@pytest.fixture
def before(databases: Databases, servers: Any) -> Iterator[DatabaseUrls]:
    """A database as it was when each value was a row (0024)."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    bootstrap(servers.urls["DATABASE_URL_OWNER_BOOTSTRAP"], {}, database=name)
    urls = databases.urls(name)
    upgrade(urls.migrate, to="0024")
    yield urls
    databases.drop(name)


def test_readings_of_two_brands_say_the_same_before_and_after(before: DatabaseUrls):
    with psycopg.connect(before.superuser.replace("+psycopg", ""), autocommit=True) as db:
        tenants = db.execute(
            "insert into platform.tenant (slug, name) values ('aa', 'A'), ('bb', 'B') returning id"
        ).fetchall()
        for (tenant,) in tenants:
            for measurand, raw, value, signed in READINGS:
                # days with a partition of their own, and one without
                db.execute(
                    "insert into livery.meter_value (tenant_id, sampled_at, station_id, evse_no, measurand, phase,"
                    " raw_value, session_id, value, unit, received_at, signed_data)"
                    " select %s, now() - d * interval '1 day', md5(d::text)::uuid, 1, %s, 'L1', %s,"
                    " case when d < 9 then md5('s' || d)::uuid end, %s, 'Wh', now(), %s from generate_series(-2, 12) d",
                    [tenant, measurand, raw, value, signed],
                )
        told = f"select {COLUMNS} from livery.meter_value order by 1, 2, 3, 5, 9"
        was = db.execute(told).fetchall()
        assert len(was) == 2 * 15 * len(READINGS)
        upgrade(before.migrate)
        assert db.execute(told).fetchall() == was
