"""A place's page when somebody presses start."""

import pytest
from sqlalchemy import select

from app.charging import paid
from app.identity.service import LOGINS_PER_REMOTE
from app.stations import service as stations
from app.stations.models import EVSE
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio


async def test_who_presses_start_too_often_is_told_when_to_come_again(house: House) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await stations.create_station(
            scope, identity="CP1", evses=[{"evse_no": 1, "connectors": [{"connector_no": 1}]}]
        )
        await stations.connection_opened(
            scope, made.station.id, node="n", ocpp_version="ocpp1.6", remote="127.0.0.1"
        )
        code = (await scope.db.execute(select(EVSE.code))).scalar_one()
    stranger = house.driver("nordlicht")
    for _ in range(paid.STARTS_PER_ADDRESS_AND_EVSE):
        assert (await stranger.post(f"/c/{code}/start", {})).status_code == 409
    answer = await stranger.post(f"/c/{code}/start", {})
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1800"
    assert "Try again in half an hour." in answer.text


async def test_who_asks_for_login_links_too_often_is_told_it_on_the_form(house: House) -> None:
    await found_brand(house.database)
    stranger = house.portal("nordlicht")
    for _ in range(LOGINS_PER_REMOTE):
        await stranger.post("/login", {"email": "nobody@nordlicht.example"})
    answer = await stranger.post("/login", {"email": "nobody@nordlicht.example"})
    assert (answer.status_code, answer.headers.get("retry-after")) == (429, "900")
