"""A driver with a monthly card: from the mailed link to the session in the history, on a phone, in real Chromium."""

import re
from datetime import UTC, datetime

import pytest
from playwright.async_api import Browser, Page, expect

from tests.foreign_stations import Station16, Station201
from tests.journeys.house import TARIFF, Brand, House, wait_for
from tests.journeys.people import Person, staff
from tests.journeys.test_driver_pays import Car, _one, driver, place_of

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.timeout(240)]
PATIENCE = 15_000
LOST, KEPT = "04LOST{n}", "04KEPT{n}"


@pytest.fixture(scope="module")
def brand(house: House) -> Brand:
    made = house.brand("fjord")
    made.post("/tariffs", {"tariff": TARIFF, "assign": {"default": True}})
    return made


async def hire(browser: Browser, house: House, brand: Brand, name: str, email: str, cards: list[str]) -> None:
    """What the operator does on the portal: a group that pays monthly at its own price, a driver, their cards."""
    async with staff(browser, house, brand.slug) as person:
        page = await person.open("/driver-groups/new")
        await page.get_by_label("Name").fill(f"Fleet of {name}")
        await page.get_by_label(re.compile("collect|paid|pay", re.I)).first.select_option("monthly")
        await page.locator("main form button").first.click()
        await page.wait_for_url(re.compile("/driver-groups"))
        await person.open("/driver-groups")
        href = await page.get_by_role("link", name=f"Fleet of {name}").get_attribute("href") or ""
        await person.open("/drivers")
        await page.get_by_label("Name").fill(name)
        await page.get_by_label("Mail", exact=True).fill(email)
        await page.get_by_label("Group", exact=True).select_option(label=f"Fleet of {name}")
        await page.get_by_role("button", name="Create").click()
        for value in cards:
            await person.open("/id-tokens/new")
            await page.get_by_label("Value").fill(value)
            await page.get_by_label("Label").fill(value.removeprefix("04").title())
            await page.get_by_label("Driver", exact=True).select_option(label=f"{name} · {email}")
            await page.get_by_role("button", name="Create").click()
            await page.wait_for_url(re.compile("/id-tokens"))
    cheap = {"currency": "EUR", "elements": [
        {"price_components": [{"type": "ENERGY", "price": "0.20", "vat": "19", "step_size": 1}]}]}  # fmt: skip
    group = href.rpartition("/")[2]
    brand.post("/tariffs", {"tariff": cheap, "assign": {"driver_group_id": group}})


async def by_card(car: Car, card: str) -> None:
    """At the reader, without any page."""
    token = {"id_token": card, "type": "ISO14443"}
    await car.start({"id_tag": card, "id_token": token, "remote_start_id": None})
    await car.report(500, 11_000)
    await car.stop({})


async def log_in(person: Person, house: House, email: str) -> None:
    page = person.page
    await page.get_by_role("link", name="Log in").click()
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_role("button", name="Send me a link").click()
    await expect(page.get_by_text(f"on its way to {email}")).to_be_visible()
    await page.goto(house.login_link("fjord", email))
    await page.get_by_role("button", name="Log in").click()


async def month_says(page: Page, words: str) -> None:
    month = f"{datetime.now(UTC):%Y}"
    await expect(page.locator("section.card", has_text=month).first).to_contain_text(words)


@pytest.mark.parametrize(("kind", "has_scripts"), [(Station16, True), (Station201, False)])
async def test_from_the_mailed_link_to_the_session_in_the_history(
    browser: Browser, house: House, brand: Brand, kind: type[Station16] | type[Station201], has_scripts: bool
) -> None:
    n = kind.version[-3:].replace(".", "")
    lost, kept, email = LOST.format(n=n), KEPT.format(n=n), f"rider{n}@example.org"
    await hire(browser, house, brand, f"Rider {n}", email, [lost, kept])
    code, car = place_of(house, brand, kind, f"ACC-{n}")
    await car.arrive()
    await by_card(car, lost)
    wait_for("the first session to be settled", lambda: _one(
        house, "select count(*) = 1 from livery.cdr c join livery.charging_session s on s.id = c.session_id"
        " join livery.driver d on d.id = s.driver_id where d.email = %s", email))  # fmt: skip
    async with driver(browser, house, "fjord", java_script_enabled=has_scripts) as person:
        page = await person.open(f"/c/{code}")
        await expect(page.get_by_text("€0.5355 per kWh")).to_be_visible()
        await log_in(person, house, email)
        await page.wait_for_url(re.compile(f"/c/{code}"))
        await expect(page.get_by_text("€0.238 per kWh")).to_be_visible()
        await expect(page.get_by_text("goes on your monthly invoice")).to_be_visible()
        await page.get_by_role("link", name="Account").click()
        await month_says(page, "1 session")
        await expect(page.locator("ul.rows li")).to_have_count(1)

        await page.get_by_role("link", name="Cards").click()
        card = page.locator("section.card", has_text=f"Lost{n}")
        await card.get_by_text("Lost it?").click()
        await card.get_by_role("button", name="Block this card").click()
        await expect(page.locator("section.card", has_text=f"Lost{n}").get_by_text("Blocked")).to_be_visible()
        assert await car.station.authorize(lost) == "Blocked"  # type: ignore[attr-defined]

        await person.open(f"/c/{code}")
        await expect(page.get_by_text(f"By your card Kept{n}")).to_be_visible()
        await page.get_by_role("button", name="Start charging").click()
        await page.wait_for_url(re.compile("/account/sessions/ses_"))
        await expect(page.get_by_role("heading", name=re.compile("Charging|Cable connected"))).to_be_visible(
            timeout=PATIENCE
        )
        asked = dict(car.station.asked)
        presented = asked.get("RemoteStartTransaction") or asked["RequestStartTransaction"]["id_token"]
        assert kept in presented.values()
        await car.report(400, 10_900)
        await expect(page.get_by_text("10.9 kW").first).to_be_visible(timeout=PATIENCE)
        await page.get_by_role("button", name="Stop charging").click()
        await expect(page.get_by_role("heading", name="Finished")).to_be_visible(timeout=PATIENCE)
        await expect(page.get_by_text("goes on your monthly invoice")).to_be_visible()
        await page.get_by_role("link", name="All your sessions").click()
        await expect(page.locator("ul.rows li")).to_have_count(2)
        await month_says(page, "2 sessions")
    await car.station.close()
    held = (
        "select count(*) from livery.payment p join livery.charging_session s on s.id = p.source_id"
        " join livery.driver d on d.id = s.driver_id where d.email = %s"
    )
    assert _one(house, held, email) == 0
