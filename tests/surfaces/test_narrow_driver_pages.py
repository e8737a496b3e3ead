"""A driver's pages on the narrowest phone: no word is broken, and no place on the map covers another or lies under the
map's buttons."""

import re
from decimal import Decimal

import pytest
from playwright.async_api import Browser, Page

from app.charging import paid
from app.charging.models import ChargingSession
from app.kernel.clock import uuid7
from app.kernel.settings import Settings
from app.stations import service as stations
from tenants.database import Database
from tests.cast import PLATES
from tests.journeys.people import Person, person_at
from tests.web import CLI, found_brand, open_house

pytestmark = [pytest.mark.anyio, pytest.mark.browser]
BROKEN = """[...document.querySelectorAll('.steps li')].filter(({ firstChild }) => {
  const range = document.createRange();
  range.selectNodeContents(firstChild);
  return range.getClientRects().length > firstChild.textContent.trim().split(/\\s+/).length;
}).map(one => one.textContent)"""
IN_SIGHT = """[...document.querySelectorAll('.pin')].filter(pin => {
  const { x, y } = pin.getBoundingClientRect(), map = pin.closest('site-map').getBoundingClientRect();
  return pin.offsetWidth && x > map.x && x < map.right && y > map.y && y < map.bottom;
}).map(pin => (pin.querySelector('strong') ?? pin).textContent).sort()"""
COVERED = """(() => {
  const pins = [...document.querySelectorAll('.pin')].filter(one => one.offsetWidth)
    .map(one => one.getBoundingClientRect());
  return pins.some((a, i) => pins.some((b, j) => i < j
    && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
})()"""
UNDER_CONTROLS = """(() => {
  const boxes = (selector) => [...document.querySelectorAll(selector)].filter(one => one.offsetWidth)
    .map(one => one.getBoundingClientRect());
  return boxes('.pin').some(a => boxes('.maplibregl-ctrl').some(b =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
})()"""
NARROW = {"viewport": {"width": 320, "height": 640}}


async def _in_german(person: Person, path: str) -> Page:
    page = await person.open(path)
    await page.get_by_role("button", name="Deutsch").click()
    await page.wait_for_selector("html[lang=de]")
    return page


async def test_no_step_of_a_session_is_broken_within_a_word(
    browser: Browser, settings: Settings, database: Database
) -> None:
    async with open_house(settings, database) as house:
        tenant_id = await found_brand(house.database)
        async with house.database.scope(tenant_id, CLI) as scope:
            station = (await stations.create_station(scope, identity="CP1")).station
            session = ChargingSession(
                id=uuid7(),
                station_id=station.id,
                status="PENDING",
                started_at=scope.now,
                origin="app",
                evse_no=1,
            )
            scope.db.add(session)
            link = paid.link_of(scope, session.id)
        async with person_at(browser, f"http://nordlicht.localhost:{house.port}", **NARROW) as person:
            page = await _in_german(person, f"/s/{link}")
            assert await page.locator(".steps li").all_inner_texts() == [
                "Start",
                "Einstecken",
                "Lädt",
                "Beendet",
            ]
            assert await page.evaluate(BROKEN) == []
            assert await page.evaluate("document.documentElement.scrollWidth") == 320


async def _shows(page: Page, *names: str) -> None:
    """These pins are in sight when the map stands still, none over another."""
    await page.wait_for_selector("site-map[data-ready]")
    for _ in range(100):  # a flight takes as long as the machine needs to draw it
        if await page.evaluate(IN_SIGHT) == list(names):
            break
        await page.wait_for_timeout(200)
    assert await page.evaluate(IN_SIGHT) == list(names)
    assert not await page.evaluate(COVERED)
    assert not await page.evaluate(UNDER_CONTROLS)


async def test_places_that_would_cover_each_other_are_one_pin_that_leads_closer(
    browser: Browser, settings: Settings, database: Database
) -> None:
    spots = {"Kai": "54.7900", "Werft": "54.7920", "Hafen": "54.7920", "Watt": "54.4800"}
    async with open_house(settings, database) as house:
        tenant_id = await found_brand(house.database)
        async with house.database.scope(tenant_id, CLI) as scope:
            for name, latitude in spots.items():
                site = await stations.create_location(
                    scope, name=name, address="Weg 1", city="Flensburg", postal_code="24937", country="DEU",
                    time_zone="Europe/Berlin", latitude=Decimal(latitude), longitude=Decimal("9.4360"),
                )  # fmt: skip
                await stations.create_station(
                    scope, identity=name, location_id=site.id,
                    evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
                )  # fmt: skip
        async with person_at(browser, f"http://nordlicht.localhost:{house.port}", **NARROW) as person:
            page = await _in_german(person, "/map")
            await _shows(page, "3 Orte", "Watt")
            await page.locator("button.pin").click()
            await _shows(page, "2 Orte", "Kai")
            await page.locator(
                "button.pin"
            ).click()  # they stand at one spot: the closest look parts them no more
            await _shows(page, "2 Orte")
            await page.locator("button.pin").click()
            await page.wait_for_url(re.compile(r"/\?near=54\.79200%2C9\.43600$"))
            listed = await page.locator("main [id^=loc_] h2").all_inner_texts()
            assert listed == ["Hafen", "Werft", "Kai", "Watt"]  # these first, not by name
