"""A brand claims a domain of its own, proves it in DNS, and a stranger pays there: real Chromium, real name server."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser, expect

from tests.foreign_stations import Station201
from tests.journeys.house import TARIFF, House, free_port, wait_for
from tests.journeys.people import person_at, staff
from tests.journeys.test_driver_pays import PHONE, agreed, pays_and_charges, place_of, receipts_mailed
from tests.name_server import NameServer, serve_names

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.timeout(240)]
HOST = "laden.fjord.example"


@pytest.fixture(scope="module")
def name_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def house(name_port: int) -> Iterator[House]:
    made = House(environment={"LIVERY_DNS_SERVER": f"127.0.0.1:{name_port}"})
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
async def names(name_port: int) -> AsyncIterator[NameServer]:
    async with serve_names(name_port) as server:
        yield server


async def test_a_brands_own_domain_is_claimed_proved_and_paid_on(
    browser: Browser, house: House, names: NameServer
) -> None:
    brand = house.brand("fjord")
    brand.post("/tariffs", {"tariff": TARIFF, "assign": {"default": True}})
    code, car = place_of(house, brand, Station201, "OWN-DOMAIN")
    await car.arrive()
    base = f"http://{HOST}:{house.web_port}"
    async with person_at(browser, base, **PHONE) as stranger:
        answer = await stranger.page.goto(base)
        assert answer is not None and (answer.status, await answer.text()) == (404, "Not Found\n")
        await claim(browser, house, names)
        for _ in range(50):  # what was not there is remembered for some seconds
            answer = await stranger.page.goto(base)
            if answer is not None and answer.status == 200:
                break
            await asyncio.sleep(0.2)
    wait_for("an account at the provider", lambda: _has_account(house))
    async with person_at(browser, base, **PHONE) as person:
        url = await pays_and_charges(person, code, car)
        assert url.startswith(f"{base}/s/ses_")  # back from the provider to the host that the driver came by
        # Without TLS, which nobody has here, the browser says that it leaves out one header.
        assert not [one for one in person.complaints if "Cross-Origin-Opener-Policy" not in one]
    await car.station.close()
    books = wait_for("the capture", lambda: agreed(house, url)["state"] == "captured" and agreed(house, url))
    assert books["captured"] == books["cdr"] == books["invoice"] == books["provider"] > 50, books
    wait_for("the receipt's mail", lambda: receipts_mailed(house, url))
    with house.sql() as connection:
        (body,) = connection.execute("select body from livery.mail where kind = 'receipt'").fetchone() or (
            "",
        )
    assert url in body  # mails lead to the brand's own domain


async def claim(browser: Browser, house: House, names: NameServer) -> None:
    """As an owner does it: the records stand on the page, are set, and are looked for."""
    async with staff(browser, house, "fjord") as anna:
        page = await anna.open("/domains")
        await page.get_by_label("Domain").fill(HOST)
        await page.get_by_role("button", name="Claim").click()
        await expect(page.get_by_text(f"{HOST} is claimed.")).to_be_visible()
        for kind in ("TXT", "CNAME"):
            name, value = await page.locator("tr", has_text=kind).first.locator("code").all_inner_texts()
            names.records[name, kind] = [f'"{value}"' if kind == "TXT" else f"{value}."]
        await page.get_by_role("button", name="Check").click()
        await expect(page.get_by_text("Active").first).to_be_visible()
        assert not anna.complaints


def _has_account(house: House) -> bool:
    with house.sql() as connection:
        return connection.execute("select exists (select from livery.payment_account)").fetchone() == (True,)
