"""The whole way of a new operator's money, by clicking: onboarded, paid with 3-D Secure, a part given back, a dispute
lost, paid out, reconciled. Real Chromium, a real station, the sandbox as the provider."""

import re
from decimal import Decimal

import pytest
from playwright.async_api import Browser, Page, expect

from tests.foreign_stations import Station16
from tests.journeys.house import Brand, House
from tests.journeys.people import Person, person_at, staff
from tests.journeys.test_driver_pays import Car, driver, place_of, press_pay

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.timeout(300)]
ASKS, DISPUTES = "4000 0027 6000 3184", "4000 0000 0000 0259"
PATIENCE_MS = 20_000
# A dispute costs 20.00: two sessions have to bring more than that.
DEAR = {
    "id": "T1", "currency": "EUR", "last_updated": "2026-01-01T00:00:00Z", "elements": [{"price_components": [
        {"type": "FLAT", "price": "22.00", "vat": "19", "step_size": 1},
        {"type": "ENERGY", "price": "0.45", "vat": "19", "step_size": 1}]}],
}  # fmt: skip


def cents(words: str) -> int:
    """`€1,234.50` -> 123450, `-€20.00` -> -2000."""
    found = re.search(r"(-?)€([\d,]+\.\d\d)", words)
    assert found is not None, words
    minor = int(Decimal(found.group(2).replace(",", "")) * 100)
    return -minor if found.group(1) else minor


async def pays(browser: Browser, house: House, brand: Brand, code: str, car: Car, card: str) -> None:
    """From the sticker to the receipt; 3-D Secure is confirmed where the card asks for it."""
    async with driver(browser, house, brand.slug) as person:
        page = await person.open(f"/c/{code}")
        await page.get_by_role("button", name="Pay and start").click()
        await press_pay(page, card)
        if card == ASKS:
            await page.wait_for_url(re.compile("/bank$"))
            await page.get_by_role("button", name="Confirm").click()
        await page.wait_for_url(re.compile(r"/s/ses_"))
        charging = page.get_by_role("heading", name=re.compile("Charging|Cable connected"))
        await expect(charging).to_be_visible(timeout=PATIENCE_MS)
        await car.report(10, 11_000)
        await page.get_by_role("button", name="Stop charging").click()
        await page.get_by_role("link", name="Receipt").click(timeout=2 * PATIENCE_MS)
        await expect(page.get_by_text(re.compile("^INV-"))).to_be_visible()


async def until(page: Page, path: str, words: str, *, times: int = 40) -> None:
    """A page that is looked at again until it says so, as a person would."""
    for _ in range(times):
        await page.goto(path)
        if await page.get_by_text(words).count():
            return
        await page.wait_for_timeout(500)
    raise AssertionError(f"{path} never said {words!r}: {await page.inner_text('main')}")


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name).first.click()
    await page.wait_for_load_state()


async def plan_sandbox(admin: Person) -> None:
    page = await admin.open("/sandbox")
    await page.get_by_label("New accounts are onboarded first").check()
    await page.locator("form[action='/sandbox/behaviour'] button").click()


async def be_onboarded(owner: Person) -> None:
    page = await owner.open("/payment-account")
    await expect(
        page.get_by_text("Cannot take cards yet").or_(page.get_by_text("Begin taking cards"))
    ).to_be_visible()
    await press(page, "Go on at the provider")
    await page.wait_for_url(re.compile(r"//sandbox\.localhost:\d+/onboarding/"))
    await press(page, "Submit")
    await page.wait_for_url(re.compile("/payment-account$"))
    await expect(page.get_by_text("Takes cards")).to_be_visible()


async def open_payment(owner: Person, number: int) -> Page:
    """The n-th newest."""
    page = await owner.open("/payments")
    await page.locator("tbody a[href^='/payments/pay_']").nth(number).click()
    await expect(page.get_by_role("heading", name="Payment", exact=True)).to_be_visible()
    return page


async def test_a_new_operators_money_from_onboarding_to_the_bank(browser: Browser, house: House) -> None:
    link = house.cli("admin", "create", "--email", "admin@platform.example")["login_link"]
    console = f"http://console.localhost:{house.web_port}"
    async with person_at(browser, console) as admin:
        await admin.page.goto(link)
        await press(admin.page, "Log in")
        await plan_sandbox(admin)
        brand = house.brand("kueste")
        brand.post("/tariffs", {"tariff": DEAR, "assign": {"default": True}})
        code, car = place_of(house, brand, Station16, "MONEY-1")
        await car.arrive()
        async with staff(browser, house, "kueste") as owner:
            await be_onboarded(owner)
            await pays(browser, house, brand, code, car, ASKS)
            await pays(browser, house, brand, code, car, DISPUTES)
            await give_a_part_back(owner)
            await lose_the_dispute(owner)
            clock = await admin.open("/sandbox")
            await clock.get_by_label("Days ahead").fill("4")
            await press(clock, "Set the clock")
            await compare(owner.page)
            await check_payout(owner)
            page = await owner.open("/ledger")
            await expect(page.get_by_text("The books are whole")).to_be_visible()
            assert not owner.complaints
        # The figures of the console's list are written each minute.
        await until(admin.page, f"{console}/", "Agree", times=200)
        assert not admin.complaints
    assert house.cli("reconcile", "--tenant", "kueste")["data"][0]["status"] == "green"
    await car.station.close()


async def give_a_part_back(owner: Person) -> None:
    page = await open_payment(owner, 1)
    await page.get_by_label("Amount in EUR").fill("1.50")
    await page.get_by_label("Why").fill("The cable was short")
    await press(page, "Refund")
    await until(page, page.url, "Partly given back")
    await expect(page.get_by_text("€1.50").first).to_be_visible()


async def lose_the_dispute(owner: Person) -> None:
    page = owner.page
    await until(page, f"{owner.base}/disputes", "Answer it")
    await page.locator("tbody a[href^='/disputes/']").first.click()
    await page.get_by_label(re.compile("stays with the payer, for good")).check()
    await press(page, "Accept the loss")
    await until(page, page.url, "Lost")


async def compare(page: Page) -> None:
    base = re.sub(r"(//[^/]+)/.*", r"\1", page.url)
    await page.goto(f"{base}/reconciliation")
    await press(page, "Compare now")
    await until(page, f"{base}/reconciliation", "The books agree")


async def check_payout(owner: Person) -> None:
    """To the cent: what both payments brought less fees, less the part given back, less the dispute and its fee."""
    page = await owner.open("/payouts")
    await page.locator("tbody a[href^='/payouts/pyo_']").first.click()
    rows = await page.locator("tbody tr").all_inner_texts()
    nets = [cents(row.split("\t")[-1]) for row in rows]
    assert sum(nets[:-1]) == nets[-1]
    sent = cents(await page.locator(".stat", has_text="Sent to the bank").inner_text())
    assert sent == nets[-1] > 0
    found = "".join(rows)
    assert found.count("Payment") == 2 and found.count("Refund") == 1 and found.count("Dispute") == 1
