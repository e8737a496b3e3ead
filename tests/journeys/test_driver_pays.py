"""A stranger scans a sticker and pays: real Chromium on a phone, two brands at once, stations of the ocpp package."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.foreign_stations import ForeignStation, Station16, Station201, stamp
from tests.journeys.house import TARIFF, Brand, House, wait_for
from tests.journeys.people import Person, person_at
from tests.journeys.test_first_session import commission

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.timeout(240)]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
GOOD, DECLINED, ASKS = "4242 4242 4242 4242", "4000 0000 0000 0002", "4000 0027 6000 3184"
LIVE_MS = 1000  # patience is told in seconds


@pytest.fixture(scope="module")
def brands(house: House) -> tuple[Brand, Brand]:
    pair = house.brand("fjord"), house.brand("alpen")
    for brand in pair:
        brand.post("/tariffs", {"tariff": TARIFF, "assign": {"default": True}})
    wait_for(
        "accounts at the provider", lambda: _one(house, "select count(*) = 2 from livery.payment_account")
    )
    return pair


@pytest.fixture(autouse=True)
def _strangers(house: House) -> None:
    house.forgive()


def _one(house: House, query: str, *values: Any) -> Any:
    with house.sql() as connection:
        row = connection.execute(query.encode(), values).fetchone()
    return row[0] if row else None


class Car:
    """What happens at the plug: starts when the station is asked to, reports, stops when asked to."""

    def __init__(self, station: ForeignStation) -> None:
        self.station = station
        self.meter_wh, self.transaction = 1_000, None
        self.seq_no = 0
        station.reactions = {
            "RemoteStartTransaction": self.start, "RequestStartTransaction": self.start,
            "RemoteStopTransaction": self.stop, "RequestStopTransaction": self.stop,
        }  # fmt: skip

    async def arrive(self) -> None:
        await self.station.connect()
        await self.station.boot()  # type: ignore[attr-defined]
        await self.station.status(1, "Available")  # type: ignore[attr-defined]

    async def start(self, payload: dict[str, Any]) -> None:
        station = self.station
        if isinstance(station, Station16):
            self.transaction = (await station.start(1, payload["id_tag"], self.meter_wh)).transaction_id
            await station.status(1, "Charging")
        elif isinstance(station, Station201):
            token = payload["id_token"]
            self.transaction = "tx-" + stamp()
            await station.event(
                "Started", self.transaction, 0, meter_wh=self.meter_wh, token=token["id_token"],
                token_type=token["type"], trigger="RemoteStart", remote_start_id=payload["remote_start_id"],
            )  # fmt: skip

    async def report(self, more_wh: int, power_w: int) -> None:
        self.meter_wh += more_wh
        self.seq_no += 1
        if isinstance(self.station, Station16):
            await self.station.meter(1, self.transaction, self.meter_wh, power_w)  # type: ignore[arg-type]
        elif isinstance(self.station, Station201):
            await self.station.event(
                "Updated", self.transaction or "", self.seq_no, meter_wh=self.meter_wh, power_w=power_w
            )

    async def stop(self, _payload: dict[str, Any]) -> None:
        if isinstance(self.station, Station16):
            await self.station.stop(self.transaction, self.meter_wh, reason="Remote")  # type: ignore[arg-type]
            await self.station.status(1, "Available")
        elif isinstance(self.station, Station201):
            await self.station.event(
                "Ended", self.transaction or "", self.seq_no + 1, meter_wh=self.meter_wh, trigger="RemoteStop",
                state="Idle", reason="Remote",
            )  # fmt: skip
            await self.station.status(1, "Available")


@asynccontextmanager
async def driver(browser: Browser, house: House, slug: str, **options: Any) -> AsyncIterator[Person]:
    async with person_at(browser, f"http://{slug}.localhost:{house.web_port}", **PHONE, **options) as person:
        yield person
        assert not person.complaints


def place_of(house: House, brand: Brand, kind: type[ForeignStation], identity: str) -> tuple[str, Car]:
    made, station = commission(house, brand, kind, identity)
    code = _one(house, "select e.code from livery.evse e join livery.charging_station s on s.id = e.station_id"
                " join platform.tenant t on t.id = s.tenant_id where t.slug = %s and s.ocpp_identity = %s",
                brand.slug, made["identity"])  # fmt: skip
    return code, Car(station)


async def press_pay(page: Page, card: str = GOOD, email: str = "driver@example.org") -> None:
    """The hosted page, on the provider's own origin."""
    await page.wait_for_url(re.compile(r"//sandbox\.localhost:\d+/pay/cs_test_"))
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Card number").fill(card)
    await page.get_by_role("button", name=re.compile("^Hold")).click()


async def pays_and_charges(person: Person, code: str, car: Car, *, has_scripts: bool = True) -> str:
    """From the sticker to the receipt; answers the session's address."""
    page = await person.open(f"/c/{code}")
    await expect(page.get_by_text("€0.5355 per kWh including 19 % VAT")).to_be_visible()
    await expect(page.get_by_text("For example 20 kWh")).to_be_visible()
    await page.get_by_role("button", name="Pay and start").click()
    await press_pay(page)
    await page.wait_for_url(re.compile(r"/s/ses_"))
    patience = 20 * LIVE_MS
    await expect(page.get_by_role("heading", name=re.compile("Charging|Cable connected"))).to_be_visible(
        timeout=patience
    )
    delays = []
    for power in (11_100, 11_200):
        began = time.monotonic()
        await car.report(10, power)
        await expect(page.get_by_text(f"{power / 1000:.1f} kW").first).to_be_visible(timeout=patience)
        delays.append(round((time.monotonic() - began) * 1000))
    told = "by itself" if has_scripts else "when it looks again"
    print(f"\n{car.station.version}: a reading is on the driver's page {told} after {delays} ms")
    await page.get_by_role("button", name="Stop charging").click()
    await expect(page.get_by_role("link", name="Receipt")).to_be_visible(timeout=2 * patience)
    await page.get_by_role("link", name="Receipt").click()
    await expect(page.get_by_role("heading", name="Receipt")).to_be_visible()
    await expect(page.get_by_text(re.compile("^INV-"))).to_be_visible()
    return page.url.removesuffix("/receipt")


def agreed(house: House, url: str) -> dict[str, int]:
    """What each book says of one session, in cents."""
    link = url.split("/s/")[1]
    from app.kernel.ids import parse_id

    session_id = parse_id("charging_session", link.split(".")[0])
    with house.sql() as connection:
        row = connection.execute(
            """
            select p.hold_minor, p.captured_minor, c.incl_vat_minor, i.gross_minor, p.state,
                   (select sum(e.amount_minor)::int from livery.ledger_entry e
                      join livery.ledger_account a on a.tenant_id = e.tenant_id and a.id = e.account_id
                      join livery.ledger_txn t on t.tenant_id = e.tenant_id and t.id = e.txn_id
                     where a.code = 'driver_receivable' and t.source_id in (p.id, i.id)),
                   (select (o.body->>'amount_received')::int from sandbox.object o where o.id = p.provider_ref)
              from livery.payment p join livery.cdr c on c.session_id = p.source_id
              join livery.invoice_line l on l.source_id = c.id and l.line_no = 1
              join livery.invoice i on i.id = l.invoice_id
             where p.source_id = %s""",
            [session_id],
        ).fetchone()
    assert row is not None
    return dict(
        zip(("hold", "captured", "cdr", "invoice", "state", "receivable", "provider"), row, strict=True)
    )


def receipts_mailed(house: House, url: str) -> bool:
    """One mail, with the way to this very session."""
    query = "select count(*) = 1 from livery.mail where kind = 'receipt' and body like %s"
    return _one(house, query, f"%{url.split('/s/')[1]}/receipt.pdf%")


@pytest.mark.parametrize("kinds", [(Station16, Station201), (Station201, Station16)])
async def test_strangers_of_two_brands_pay_charge_and_get_their_receipts_to_the_cent(
    browser: Browser, house: House, brands: tuple[Brand, Brand], kinds: tuple[Any, Any]
) -> None:
    places = [
        place_of(house, brand, kind, f"PAY-{kind.version[-3:].replace('.', '')}-{brand.slug}")
        for brand, kind in zip(brands, kinds, strict=True)
    ]

    async def one(brand: Brand, code: str, car: Car) -> str:
        await car.arrive()
        async with driver(browser, house, brand.slug) as person:
            url = await pays_and_charges(person, code, car)
            assert brand.slug.title() in await person.page.inner_text("body")
        await car.station.close()
        return url

    urls = await asyncio.gather(*(one(b, code, car) for b, (code, car) in zip(brands, places, strict=True)))
    for url in urls:
        books = wait_for(
            "the capture", lambda url=url: agreed(house, url)["state"] == "captured" and agreed(house, url)
        )
        assert books["captured"] == books["cdr"] == books["invoice"] == books["provider"] > 50, books
        assert (books["hold"], books["receivable"]) == (3000, 0), books
        wait_for("the receipt's mail", partial(receipts_mailed, house, url))


async def test_everything_works_without_javascript(
    browser: Browser, house: House, brands: tuple[Brand, Brand]
) -> None:
    code, car = place_of(house, brands[0], Station16, "NOJS")
    await car.arrive()
    async with driver(browser, house, "fjord", java_script_enabled=False) as person:
        await pays_and_charges(person, code, car, has_scripts=False)
    await car.station.close()


ZOOMED = {"viewport": {"width": 320, "height": 256}}  # 1280 x 1024 at 400 % (WCAG 2.2, 1.4.10)


async def tab_to(page: Page, target: Locator) -> None:
    """By the Tab key alone; what has the focus is seen to have it."""
    await expect(target).to_be_visible(timeout=20 * LIVE_MS)
    for _ in range(80):
        await page.keyboard.press("Tab")
        if await target.evaluate("element => element === document.activeElement"):
            break
    await expect(target).to_be_focused()
    seen = "element => { const b = element.getBoundingClientRect(), s = getComputedStyle(element);"
    seen += " return [b.bottom > 0 && b.top < innerHeight, s.outlineStyle !== 'none' || s.boxShadow !== 'none']; }"
    assert await target.evaluate(seen) == [True, True]


async def test_a_stranger_pays_by_keyboard_alone_at_400_percent(
    browser: Browser, house: House, brands: tuple[Brand, Brand]
) -> None:
    code, car = place_of(house, brands[0], Station201, "KEYBOARD")
    await car.arrive()
    base = f"http://fjord.localhost:{house.web_port}"
    async with person_at(browser, base, **ZOOMED) as person:

        async def press(name: str, role: Any = "button") -> None:
            target = page.get_by_role(role, name=name)
            await expect(target).to_be_visible(timeout=20 * LIVE_MS)
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{page.url}: {wide} px wider"
            assert not await person.faults()
            await tab_to(page, target)
            await page.keyboard.press("Enter")

        page = await person.open("/")
        await tab_to(page, page.get_by_label("Code on the sticker"))
        await page.keyboard.type(code.lower())
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/c/{code}")
        await press("Pay and start")
        await page.wait_for_url(re.compile(r"/pay/cs_test_"))
        await tab_to(page, page.get_by_label("E-mail"))
        await page.keyboard.type("keys@example.org")
        await tab_to(page, page.get_by_label("Card number"))
        await page.keyboard.press("Control+A")
        await page.keyboard.type(ASKS)
        await press("Hold €30.00")
        await press("Yes, confirm")
        await page.wait_for_url(re.compile(r"/s/ses_"))
        await expect(page.get_by_role("heading", name="Charging")).to_be_visible(timeout=20 * LIVE_MS)
        await car.report(200, 11_000)
        await expect(page.get_by_text("11.0 kW").first).to_be_visible(timeout=10 * LIVE_MS)
        await press("Stop charging")
        await press("Receipt", "link")
        await expect(page.get_by_role("heading", name="Receipt")).to_be_visible(timeout=20 * LIVE_MS)
        assert not await person.faults()
        assert not person.complaints
    await car.station.close()


async def test_a_declined_card_a_given_up_bank_page_and_a_cancel_leave_nothing_held(
    browser: Browser, house: House, brands: tuple[Brand, Brand]
) -> None:
    code, car = place_of(house, brands[0], Station16, "DECLINES")
    await car.arrive()
    async with driver(browser, house, "fjord") as person:
        page = await person.open(f"/c/{code}")
        await page.get_by_role("button", name="Pay and start").click()
        await press_pay(page, DECLINED)
        await expect(page.get_by_text("Your card was declined.")).to_be_visible()
        await page.reload()  # asks nobody whether to send the card again
        await press_pay(page, ASKS)
        await page.get_by_role("button", name="No, refuse").click()
        await expect(page.get_by_text("The bank could not confirm that it is you.")).to_be_visible()
        await page.get_by_role("button", name="Cancel").click()
        await page.wait_for_url(re.compile(r"/s/ses_.*canceled=1"))
        await expect(page.get_by_role("heading", name="Your card was declined")).to_be_visible(
            timeout=20 * LIVE_MS
        )
        await expect(page.get_by_text("Your bank could not confirm that it is you.")).to_be_visible()
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.get_by_role("heading", name="Canceled")).to_be_visible()
    wait_for("the page to be closed", lambda: _one(
        house, "select bool_and(status = 'expired') from (select body->>'status' as status from sandbox.object"
        " where kind = 'checkout.session' order by created desc limit 1) s"))  # fmt: skip
    assert car.station.asked == []
    await car.station.close()


async def test_a_second_device_stops_the_session_by_its_address_alone(
    browser: Browser, house: House, brands: tuple[Brand, Brand]
) -> None:
    code, car = place_of(house, brands[1], Station201, "TWODEVICES")
    await car.arrive()
    async with driver(browser, house, "alpen") as payer, driver(browser, house, "alpen") as friend:
        page = await payer.open(f"/c/{code}")
        await page.get_by_role("button", name="Pay and start").click()
        await press_pay(page)
        await expect(page.get_by_role("heading", name="Charging")).to_be_visible(timeout=20 * LIVE_MS)
        other = await friend.open(page.url.split("alpen.localhost")[1].partition("/")[2].join(("/", "")))
        await other.get_by_role("button", name="Stop charging").click()
        await expect(page.get_by_role("heading", name="Finished")).to_be_visible(timeout=20 * LIVE_MS)
    await car.station.close()


async def test_who_fetches_the_cable_is_told_at_once_that_somebodys_card_was_quicker(
    browser: Browser, house: House, brands: tuple[Brand, Brand]
) -> None:
    code, car = place_of(house, brands[0], Station16, "TAPPED")
    brands[0].post("/id-tokens", {"type": "ISO14443", "value": "QUICKCARD"})
    car.station.reactions = {}
    await car.arrive()
    async with driver(browser, house, "fjord") as person:
        page = await person.open(f"/c/{code}")
        await page.get_by_role("button", name="Pay and start").click()
        await press_pay(page)
        await expect(page.get_by_role("heading", name="Plug in now")).to_be_visible(timeout=20 * LIVE_MS)
        await car.station.start(1, "QUICKCARD", car.meter_wh)  # type: ignore[attr-defined]
        await expect(page.get_by_role("heading", name="Somebody was quicker")).to_be_visible(
            timeout=20 * LIVE_MS
        )
        await expect(page.get_by_text("nothing is charged")).to_be_visible()
    wait_for("the hold to be let go", lambda: _one(house, "select p.state from livery.payment p join"
             " livery.charging_session c on c.id = p.source_id join livery.charging_station s on s.id = c.station_id"
             " where s.ocpp_identity = 'TAPPED'") == "canceled")  # fmt: skip
    await car.station.close()


@pytest.mark.parametrize(
    ("case", "heading"),
    [
        ("offline", "The charger went offline"),
        ("refuses", "The charger said no"),
        ("taken", "Somebody was quicker"),
    ],
)
async def test_a_hold_that_leads_to_nothing_is_let_go_and_the_page_says_why(
    browser: Browser, house: House, brands: tuple[Brand, Brand], case: str, heading: str
) -> None:
    code, car = place_of(house, brands[0], Station16, f"FAILS-{case}")
    await car.arrive()
    async with driver(browser, house, "fjord") as person, driver(browser, house, "fjord") as rival:
        page = await person.open(f"/c/{code}")
        await page.get_by_role("button", name="Pay and start").click()
        await page.wait_for_url(re.compile("/pay/"))
        if case == "offline":
            await car.station.close()
            wait_for("the gateway to see it", lambda: _one(
                house, "select not c.is_online from livery.station_connection c join livery.charging_station s"
                " on s.id = c.station_id where s.ocpp_identity = 'FAILS-offline'"))  # fmt: skip
        elif case == "refuses":
            car.station.behaviour["RemoteStartTransaction"] = "Rejected"
        else:
            car.station.reactions = {}  # the rival has paid and is on the way to the plug
            first = await rival.open(f"/c/{code}")
            await first.get_by_role("button", name="Pay and start").click()
            await press_pay(first)
            await expect(first.get_by_role("heading", name="Plug in now")).to_be_visible(timeout=20 * LIVE_MS)
        await press_pay(page)
        await expect(page.get_by_role("heading", name=heading)).to_be_visible(timeout=30 * LIVE_MS)
        await expect(page.get_by_text("nothing is charged")).to_be_visible()
        held = "select p.state from livery.payment p where p.failure <> '' order by p.created_at desc limit 1"
        if case == "taken":
            held = "select p.state from livery.payment p where p.failure = 'evse_taken'"
        wait_for("the hold to be let go", lambda: _one(house, held) == "canceled")
    await car.station.close()
