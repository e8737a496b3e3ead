"""Every page, in every brand, light and dark: nothing for axe to find, nothing blocked, nothing wider than a phone."""

import json
import re
from collections.abc import Iterator

import httpx2
import pytest
from playwright.async_api import Browser

from tests.journeys.house import House, wait_for
from tests.journeys.people import person_at
from tests.pages import BRANDS, SHOTS, demo_login, reach, url_of
from themes.theme import preset

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
        known = [one for one in SHOTS if one.surface != "nobody"]
        # Last: whoever is logged in sees the drivers' host otherwise.
        for shot in sorted(known, key=lambda one: one.surface == "rider"):
            if shot.surface == "rider" and shot.name == "account":
                await demo_login(person.context, demo.web_port, "rider", brand)
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


@pytest.mark.parametrize("mode", ["light", "dark"])
async def test_the_worst_look_that_is_allowed_can_be_read_too(
    browser: Browser, demo: House, mode: str
) -> None:
    look = preset("worst_legal")
    with demo.sql() as connection:
        connection.execute(
            "update livery.brand set theme = %s where tenant_id = (select id from platform.tenant where slug = %s)",
            [json.dumps(look.values()), BRANDS[-1]],
        )
    faults: list[str] = []
    base = url_of("portal", BRANDS[-1], demo.web_port, "")
    async with person_at(browser, base, color_scheme=mode, viewport=NARROW) as person:
        await demo_login(person.context, demo.web_port, "portal", BRANDS[-1])
        await demo_login(person.context, demo.web_port, "rider", BRANDS[-1])
        for shot in (one for one in SHOTS if one.surface in ("portal", "driver", "rider")):
            assert await reach(person.page, shot, BRANDS[-1], demo.web_port)
            assert "Loud &amp; Clear" in await person.page.content()
            faults += [f"{shot.name}: {fault}" for fault in await person.faults()]
    assert not faults, "\n".join(faults)


def test_a_drivers_first_page_is_light_and_useful_in_its_first_answer(demo: House) -> None:
    """At most 35 KB with everything it loads: the page itself as it is, the files as a browser asks for them."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{demo.web_port}") as client:
        headers = {"Host": f"{BRANDS[0]}.localhost:{demo.web_port}", "Accept-Encoding": "br"}
        start = client.get("/", headers=headers).text
        code = re.search(r'href="(/c/[^"]+)"', start)
        assert code
        with client.stream("GET", code.group(1), headers=headers) as answer:
            html = b"".join(answer.iter_raw())
        weights = {code.group(1): len(html)}
        files = re.findall(r'(?:href|src)="(/(?:static|brand)/[^"#]+)', html.decode())
        for name in dict.fromkeys(files):
            with client.stream("GET", name, headers=headers) as answer:
                assert answer.status_code == 200, name
                weights[name] = len(b"".join(answer.iter_raw()))
    print(f"\n{sum(weights.values())} bytes: {weights}")
    assert sum(weights.values()) <= 35_000
    assert "per kWh" in html.decode() and "<form" in html.decode()


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
