"""What is wrong with a form is told at its field."""

import re

import pytest

from app.kernel.ids import public_id
from app.stations import service as stations
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio
TURNED = "Hof\u202ered"  # turns the direction of what follows it


async def test_a_stations_name_that_may_not_be_is_marked_at_its_field(house: House) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        known = (await stations.create_station(scope, identity="CP1")).station
    staff = await house.staff("nordlicht", tenant_id)
    await staff.open("/stations/new")
    for path, more in (
        ("/stations", {"identity": "CP2", "plate": "ac22", "evse_count": "1"}),
        (f"/stations/{public_id('charging_station', known.id)}/settings", {}),
    ):
        answer = await staff.post(path, {"name": TURNED, **more})
        assert answer.status_code == 422, path
        assert re.search(r'<input[^>]*name="name"[^>]*aria-invalid="true"', answer.text), path
        assert 'id="name-fault"' in answer.text, path
