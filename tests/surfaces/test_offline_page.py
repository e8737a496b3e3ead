"""The page for want of a network, in a real browser: it says what the driver reads now, not what they once read."""

import asyncio

import pytest
from playwright.async_api import Browser, Page

from app.brands import service as brands
from app.kernel.settings import Settings
from tenants.database import Database
from tests.journeys.people import person_at
from tests.web import CLI, found_brand, open_house

pytestmark = [pytest.mark.anyio, pytest.mark.browser]
KEPT = """(async () => {
  const { installing, waiting } = await navigator.serviceWorker.ready, found = [];
  if (installing || waiting) return [];
  for (const name of await caches.keys())
    for (const { url } of await (await caches.open(name)).keys()) if (url.includes('/offline')) found.push(url);
  return found;
})()"""


async def kept_page(page: Page, other: str = "") -> str:
    """The address under which the page is kept, as soon as it is another than that one and the only one."""
    async with asyncio.timeout(10):
        while True:
            found = await page.evaluate(KEPT)
            if len(found) == 1 and found[0] != other:
                return found[0]
            await asyncio.sleep(0.02)


async def offline_page(page: Page, path: str) -> tuple[str | None, str | None, str]:
    """Language, mode and words of what is shown without a network."""
    await page.context.set_offline(True)
    await page.goto(path)
    words = await page.inner_text("main")
    shown = await page.get_attribute("html", "lang"), await page.get_attribute("html", "data-theme"), words
    await page.context.set_offline(False)
    return shown


async def test_the_page_without_a_network_follows_language_mode_and_telephone(
    browser: Browser, settings: Settings, database: Database
) -> None:
    async with open_house(settings, database) as house:
        tenant_id = await found_brand(house.database)
        async with house.database.scope(tenant_id, CLI) as scope:
            await brands.update_profile(scope, {"support_phone": "+49 40 111"})
        base = f"http://nordlicht.localhost:{house.port}"
        async with person_at(browser, base) as person:
            page = await person.open("/")
            first = await kept_page(page)
            language, mode, words = await offline_page(page, f"{base}/map")
            assert (language, mode) == ("en", None) and "No connection" in words and "+49 40 111" in words

            async with house.database.scope(tenant_id, CLI) as scope:
                await brands.update_profile(scope, {"support_phone": "+49 40 222"})
            await person.open("/login")
            second = await kept_page(page, first)
            await page.get_by_role("button", name="Deutsch").click()
            third = await kept_page(page, second)
            await page.get_by_role("button", name="Dunkel").click()
            await kept_page(page, third)
            language, mode, words = await offline_page(page, f"{base}/map")
            assert (
                (language, mode) == ("de", "dark") and "Keine Verbindung" in words and "+49 40 222" in words
            )
