"""Every page, in both brands, light and dark: nothing for axe to find, nothing blocked, nothing wider than a phone."""

from collections.abc import Iterator

import pytest
from playwright.async_api import Browser

from tests.journeys.house import House, wait_for
from tests.journeys.people import person_at
from tests.pages import BRANDS, SHOTS, demo_login, reach, url_of

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.timeout(600)]
NARROW = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def demo() -> Iterator[House]:
    made = House(demo=True)
    try:
        made.start()
        with made.sql() as connection:
            running = "select count(*) >= 2 from livery.charging_session where status = 'ACTIVE'"
            wait_for(
                "cars to charge", lambda: connection.execute(running).fetchone() == (True,), timeout_s=60
            )
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("brand", BRANDS)
async def test_no_page_has_a_fault_that_axe_or_the_browser_finds(
    browser: Browser, demo: House, brand: str, mode: str
) -> None:
    base = url_of("portal", brand, demo.web_port, "")
    faults: list[str] = []
    seen = 0
    async with person_at(browser, base, color_scheme=mode, viewport=NARROW) as person:
        for shot in (one for one in SHOTS if one.surface == "nobody"):
            assert await reach(person.page, shot, brand, demo.web_port)
            faults += [f"{shot.name}: {fault}" for fault in await person.faults()]
        for surface in ("portal", "console"):
            await demo_login(person.context, demo.web_port, surface, brand)
        for shot in (one for one in SHOTS if one.surface != "nobody"):
            if not await reach(person.page, shot, brand, demo.web_port):
                faults.append(f"{shot.name}: not there")
                continue
            seen += 1
            wide = await person.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            faults += [f"{shot.name}: {wide} px wider than a narrow phone"] if wide > 0 else []
            faults += [f"{shot.name}: {fault}" for fault in await person.faults()]
    assert not faults, "\n".join(faults)
    assert not person.complaints
    assert seen == len([one for one in SHOTS if one.surface != "nobody"])


async def test_a_keyboard_reaches_the_content_past_the_navigation(browser: Browser, demo: House) -> None:
    async with person_at(browser, url_of("portal", BRANDS[0], demo.web_port, "")) as person:
        await demo_login(person.context, demo.web_port, "portal", BRANDS[0])
        page = await person.open("/stations")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.querySelector('main').contains(document.activeElement)")
