"""A place's page when somebody presses start."""

import pytest

from app.identity.service import LOGINS_PER_REMOTE
from app.stations import service as stations
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio


async def test_who_asks_for_login_links_too_often_is_told_it_on_the_form(house: House) -> None:
    await found_brand(house.database)
    stranger = house.portal("nordlicht")
    for _ in range(LOGINS_PER_REMOTE):
        await stranger.post("/login", {"email": "nobody@nordlicht.example"})
    answer = await stranger.post("/login", {"email": "nobody@nordlicht.example"})
    assert (answer.status_code, answer.headers.get("retry-after")) == (429, "900")


async def test_when_none_is_free_the_list_says_so_and_offers_all(house: House) -> None:
    tenant_id = await found_brand(house.database)
    guest = house.driver("nordlicht")
    assert "There are no places here yet." in (await guest.get("/")).text
    async with house.database.scope(tenant_id, CLI) as scope:
        site = await stations.create_location(
            scope, name="Hafen", address="Weg 1", city="Kiel", country="DEU", time_zone="Europe/Berlin"
        )
        await stations.create_station(
            scope, identity="CP1", location_id=site.id,
            evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, "standard": "IEC_62196_T2"}]}],
        )  # fmt: skip
    assert "1 place, as it is right now." in (await guest.get("/")).text
    assert "None of these places has a spot on the map." in (await guest.get("/map")).text
    for path, home in (("/?free=1", 'href="/"'), ("/map?free=1", 'href="/map"')):
        shown = (await guest.get(path)).text
        assert "No place is free just now." in shown and "Show all places" in shown and home in shown
        assert "0 places" not in shown
    assert "No place that fits is free just now." in (await guest.get("/?free=1&plug=CHADEMO")).text
    assert "Nothing fits." in (await guest.get("/?plug=CHADEMO")).text
