"""The CPO's staff in a real browser, real stations on the other side: commission, watch live, start, stop, refuse."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.foreign_stations import ForeignStation, Station16, Station201
from tests.journeys.house import LOCATION, TARIFF, Brand, House
from tests.journeys.people import Person, person_at, staff

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.timeout(240)]
# What is waited for on a machine that does other work too; how long it took is printed.
LIVE_MS = 10_000


@pytest.fixture(scope="module")
def brands(house: House) -> tuple[Brand, Brand]:
    pair = house.brand("fjord"), house.brand("alpen")
    for brand in pair:
        brand.post("/tariffs", {"tariff": TARIFF, "assign": {"default": True}})
        brand.post(
            "/id-tokens", {"type": "ISO14443", "value": f"CARD{brand.slug.upper()}", "status": "accepted"}
        )
        brand.post("/locations", LOCATION)
    return pair


@pytest.fixture
async def fjord(browser: Browser, house: House, brands: tuple[Brand, Brand]) -> AsyncIterator[Person]:
    async with staff(browser, house, "fjord") as person:
        yield person
        assert not person.complaints


async def commission(
    person: Person, house: House, identity: str, kind: type[ForeignStation]
) -> ForeignStation:
    """Through the portal's form; address and password are read off the page, as a person on site would."""
    page = await person.open("/stations/new")
    await page.get_by_label("OCPP identity").fill(identity)
    await page.get_by_label("Name", exact=True).fill(f"Box {identity}")
    await page.get_by_label("Site").select_option(label="Prüfstand")
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_text("Waiting for the station.")).to_be_visible()
    url, password = await page.locator("copy-field code").all_inner_texts()
    return kind(url, password, connect_to=("127.0.0.1", house.ocpp_port))


async def station_path(page: Page) -> str:
    """The page that tells the password once is the answer to the form: its own links say where the station lives."""
    link = page.locator("main a[href^='/stations/sta_']").first
    return str(await link.get_attribute("href")).removesuffix("/log")


@pytest.mark.parametrize("kind", [Station16, Station201])
async def test_a_station_is_commissioned_and_its_readings_are_seen_as_they_come(
    house: House, fjord: Person, kind: type[Any]
) -> None:
    identity = f"LIVE-{kind.version[-3:].replace('.', '')}"
    station = await commission(fjord, house, identity, kind)
    page = fjord.page
    await station.connect()
    await station.boot()
    await expect(page.get_by_text("booted").first).to_be_visible(timeout=LIVE_MS)
    await station.status(1, "Available")
    path = await station_path(page)
    await fjord.open(path)
    await expect(page.get_by_text("Online")).to_be_visible()

    reported = await charging(station)
    session = page.get_by_role("link", name="Session", exact=True)
    await expect(session).to_be_visible(timeout=LIVE_MS)
    delays = []
    for n in range(1, 6):
        began = time.monotonic()
        await reported(1_000 + n * 100, 11_000 + n * 100)
        await expect(page.get_by_text(f"{11 + n / 10:.1f} kW").first).to_be_visible(timeout=LIVE_MS)
        delays.append(round((time.monotonic() - began) * 1000))
    print(f"\n{kind.version}: a reading is on the page {delays} ms after the station sent it")

    await session.click()
    await reported(2_000, 12_300)
    await expect(page.get_by_text("12.3 kW").first).to_be_visible(timeout=LIVE_MS)
    await expect(page.get_by_text("1.00 kWh").first).to_be_visible(timeout=LIVE_MS)
    await finish(station, 2_500)
    await expect(page.get_by_text("Completed").first).to_be_visible(timeout=3 * LIVE_MS)
    await expect(page.get_by_role("link", name=re.compile("INV-"))).to_be_visible(timeout=3 * LIVE_MS)
    await station.close()


async def charging(station: Any) -> Any:
    """Starts by card; answers what reports a reading."""
    now = datetime.now(UTC) - timedelta(minutes=5)
    if isinstance(station, Station16):
        await station.status(1, "Charging")
        transaction = (await station.start(1, "CARDFJORD", 1_000, now)).transaction_id
        station.transaction = transaction  # type: ignore[attr-defined]

        async def report(meter_wh: int, power_w: int) -> None:
            await station.meter(1, transaction, meter_wh, power_w)
    else:
        await station.status(1, "Occupied")
        await station.event(
            "Started", "tx1", 0, meter_wh=1_000, token="CARDFJORD", at=now, trigger="CablePluggedIn"
        )
        numbers = iter(range(1, 1000))

        async def report(meter_wh: int, power_w: int) -> None:
            await station.event("Updated", "tx1", next(numbers), meter_wh=meter_wh, power_w=power_w)

    return report


async def finish(station: Any, meter_wh: int) -> None:
    if isinstance(station, Station16):
        await station.stop(station.transaction, meter_wh)  # type: ignore[attr-defined]
        await station.status(1, "Available")
    else:
        await station.event(
            "Ended", "tx1", 999, meter_wh=meter_wh, trigger="EVDeparted", state="Idle", reason="Local"
        )
        await station.status(1, "Available")


async def test_a_start_and_a_stop_from_the_portal_reach_the_station(house: House, fjord: Person) -> None:
    station = await commission(fjord, house, "REMOTE", Station201)
    await station.connect()
    await station.boot()  # type: ignore[attr-defined]
    await station.status(1, "Available")  # type: ignore[attr-defined]

    async def started(payload: dict[str, Any]) -> None:
        token = payload["id_token"]
        await station.event(  # type: ignore[attr-defined]
            "Started", "remote-1", 0, meter_wh=100, token=token["id_token"], token_type=token["type"],
            trigger="RemoteStart", remote_start_id=payload["remote_start_id"],
        )  # fmt: skip

    async def stopped(_payload: dict[str, Any]) -> None:
        await station.event(
            "Ended", "remote-1", 1, meter_wh=900, trigger="RemoteStop", state="Idle", reason="Remote"
        )  # type: ignore[attr-defined]

    station.reactions = {"RequestStartTransaction": started, "RequestStopTransaction": stopped}
    page = await fjord.open(await station_path(fjord.page))
    await page.get_by_role("button", name="Start").click()
    await page.wait_for_url("**/charging-sessions/ses_*")
    await expect(page.get_by_text("Charging", exact=True).first).to_be_visible(timeout=3 * LIVE_MS)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("Completed").first).to_be_visible(timeout=3 * LIVE_MS)
    assert [action for action, _ in station.asked] == ["RequestStartTransaction", "RequestStopTransaction"]
    await station.close()


async def test_a_live_page_keeps_the_keyboards_place_and_its_curve_grows(house: House, fjord: Person) -> None:
    station = await commission(fjord, house, "CURVE", Station16)
    await station.connect()
    await station.boot()  # type: ignore[attr-defined]
    page = await fjord.open(await station_path(fjord.page))
    await expect(page.get_by_text("No power was reported in this time.")).to_be_visible()
    transaction = (await station.start(1, "CARDFJORD", 0)).transaction_id  # type: ignore[attr-defined]
    stop = page.get_by_role("button", name="Stop")
    await expect(stop).to_be_visible(timeout=3 * LIVE_MS)
    await stop.focus()
    for reading, power in enumerate((7_000, 9_000, 8_000), start=1):
        at = datetime.now(UTC) - timedelta(minutes=9 - 3 * reading)  # a curve has a point a minute or so
        await station.meter(1, transaction, 100 * reading, power, at)  # type: ignore[attr-defined]
        await expect(page.get_by_text(f"{power / 1000:.1f} kW").first).to_be_visible(timeout=3 * LIVE_MS)
    await expect(page.locator("kw-chart canvas")).to_be_visible(timeout=3 * LIVE_MS)
    await expect(stop).to_be_focused()
    await station.close()
    await expect(page.locator("#station-link")).to_have_text("Offline", timeout=3 * LIVE_MS)
    assert not fjord.complaints


async def test_a_live_page_whose_first_connection_fails_comes_alive_by_itself(
    house: House, fjord: Person
) -> None:
    station = await commission(fjord, house, "LATE-PAGE", Station16)
    page, turned_away = fjord.page, 0

    async def turn_away(route: Route) -> None:
        nonlocal turned_away
        turned_away += 1
        if turned_away == 1:
            await route.abort()
        else:
            await (route.fulfill(status=503) if turned_away == 2 else route.continue_())

    await page.route("**/live", turn_away)
    await fjord.open(await station_path(page))
    await station.connect()
    await station.boot()
    await expect(page.get_by_text("Online")).to_be_visible(timeout=LIVE_MS)
    assert turned_away > 2
    fjord.complaints.clear()
    await station.close()


async def test_a_live_page_comes_alive_however_far_apart_its_scripts_arrive(
    house: House, fjord: Person
) -> None:
    station = await commission(fjord, house, "LATE-SCRIPTS", Station16)
    path, page, asked = await station_path(fjord.page), fjord.page, 0

    async def dawdle(route: Route) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.5 * asked)
        await route.continue_()

    await page.route("**/static/*.js", dawdle)
    await fjord.open(path)
    await station.connect()
    await station.boot()
    await expect(page.get_by_text("Online")).to_be_visible(timeout=LIVE_MS)
    assert asked
    await station.close()


async def test_a_refused_start_shows_the_stations_reason_and_an_offline_one_is_refused_at_once(
    house: House, fjord: Person
) -> None:
    station = await commission(fjord, house, "REFUSES", Station16)
    await station.connect()
    await station.boot()  # type: ignore[attr-defined]
    await station.status(1, "Available")  # type: ignore[attr-defined]
    station.behaviour["RemoteStartTransaction"] = "Rejected"
    path = await station_path(fjord.page)
    page = await fjord.open(path)
    await page.get_by_role("button", name="Start").click()
    await expect(page.get_by_text("The station's answer: Rejected")).to_be_visible(timeout=3 * LIVE_MS)
    await expect(page.get_by_text("Not charged").first).to_be_visible()
    await station.close()
    page = await fjord.open(path)
    await expect(page.get_by_text("Offline")).to_be_visible(timeout=3 * LIVE_MS)
    await page.get_by_role("button", name="Start").click()
    await expect(page.get_by_text("Not started:")).to_be_visible()


async def test_a_command_shows_its_progress_and_the_stations_answer(house: House, fjord: Person) -> None:
    station = await commission(fjord, house, "COMMANDS", Station16)
    await station.connect()
    await station.boot()  # type: ignore[attr-defined]
    page = await fjord.open(await station_path(fjord.page) + "/commands")
    reading = page.locator("details.card", has_text="Read configuration")
    await reading.locator("summary").click()
    await reading.get_by_role("button", name="Send").click()
    await expect(page.get_by_text("HeartbeatInterval").first).to_be_visible(timeout=3 * LIVE_MS)
    assert await page.locator("details form").count() >= 6
    raw = page.locator("section.card", has_text="Any other command")
    await raw.locator("summary").press("Enter")
    await raw.get_by_label("Action").fill("ClearCache")
    await raw.get_by_role("button", name="Send").click()
    await expect(page.locator(".deeds li", has_text="ClearCache").first).to_contain_text(
        re.compile("NotImplemented|NotSupported|Failed|Rejected"), timeout=3 * LIVE_MS
    )
    await raw.locator("summary").press("Enter")
    await raw.get_by_label("Action").fill("ChangeConfiguration")
    await raw.get_by_label("Payload").fill('{"key": 5}')
    await raw.get_by_role("button", name="Send").click()
    await expect(page.locator(".fault", has_text="payload.key")).to_be_visible()
    fjord.complaints[:] = [one for one in fjord.complaints if "422" not in one]
    await station.close()


async def test_each_host_wears_its_own_brand_and_a_login_of_one_is_nothing_on_the_other(
    browser: Browser, house: House, brands: tuple[Brand, Brand]
) -> None:
    """Journey (d): host to tenant and surface, the login, RLS, the brand's own look; an unknown host shows nobody's."""
    async with staff(browser, house, "fjord") as anna:
        assert "Fjord" in await anna.page.title()
        await anna.page.goto(f"http://portal-alpen.localhost:{house.web_port}/stations")
        assert anna.page.url.endswith("/login?next=/stations")
        assert "Alpen" in await anna.page.title() and "Fjord" not in await anna.page.content()
    async with person_at(browser, f"http://nobody.localhost:{house.web_port}") as stranger:
        answer = await stranger.page.goto(stranger.base)
        assert answer is not None and (answer.status, await answer.text()) == (404, "Not Found\n")


async def test_two_brands_watch_a_station_of_one_name_and_each_sees_only_its_own(
    browser: Browser, house: House, brands: tuple[Brand, Brand]
) -> None:
    async with staff(browser, house, "fjord") as anna, staff(browser, house, "alpen") as ben:
        stations = [await commission(person, house, "CP1", Station16) for person in (anna, ben)]
        for person, station, power in zip((anna, ben), stations, (7_000, 21_000), strict=True):
            await station.connect()
            await station.boot()  # type: ignore[attr-defined]
            await person.open(await station_path(person.page))
            card = "CARDFJORD" if person is anna else "CARDALPEN"
            transaction = (await station.start(1, card, 0)).transaction_id  # type: ignore[attr-defined]
            await station.meter(1, transaction, 100, power)  # type: ignore[attr-defined]
        await expect(anna.page.get_by_text("7.0 kW").first).to_be_visible(timeout=3 * LIVE_MS)
        await expect(ben.page.get_by_text("21.0 kW").first).to_be_visible(timeout=3 * LIVE_MS)
        await asyncio.sleep(0.5)
        assert "21.0 kW" not in await anna.page.content() and "7.0 kW" not in await ben.page.content()
        for station in stations:
            await station.close()
        assert not anna.complaints and not ben.complaints


async def test_the_main_flows_work_without_javascript(
    browser: Browser, house: House, brands: tuple[Brand, Brand]
) -> None:
    async with staff(browser, house, "alpen", java_script_enabled=False) as ben:
        station = await commission(ben, house, "PLAIN", Station16)
        await station.connect()
        await station.boot()  # type: ignore[attr-defined]
        await station.status(1, "Available")  # type: ignore[attr-defined]
        path = await station_path(ben.page)
        page = await ben.open(path + "/setup")
        await expect(page.get_by_text("booted").first).to_be_visible()
        page = await ben.open("/id-tokens/new")
        await page.get_by_label("Value").fill("04PLAIN01")
        await page.get_by_role("button", name="Create").click()
        await expect(page.get_by_text("The token may charge now.")).to_be_visible()
        page = await ben.open("/tariffs/new")
        await page.get_by_label("Name").fill("By night")
        await page.get_by_label("Per kWh, EUR").fill("0,50")
        await page.get_by_role("button", name="Calculate").click()
        await expect(page.get_by_text("€15.00").first).to_be_visible()
        await page.get_by_label("Assigned to").select_option("")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("The tariff is there.")).to_be_visible()
        page = await ben.open(path)
        await page.get_by_role("button", name="Start").click()
        await page.wait_for_url("**/charging-sessions/ses_*")
        await page.get_by_role("button", name="Log out").first.click()
        await page.wait_for_url("**/login")
        await station.close()


async def test_a_wrong_form_says_which_field_and_keeps_what_was_typed(fjord: Person) -> None:
    page = await fjord.open("/tariffs/new")
    await page.get_by_label("Name").fill("Nonsense")
    await page.get_by_label("Per kWh, EUR").fill("cheap")
    await page.get_by_label("From").fill("22:00")
    await page.get_by_role("button", name="Save").click()
    field = page.get_by_label("Per kWh, EUR")
    await expect(field).to_have_value("cheap")
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(field).to_have_accessible_description(re.compile("This must be an amount such as 0.49."))
    await (
        page.get_by_role("alert")
        .get_by_role("link", name="Per kWh, EUR: This must be an amount such as 0.49.")
        .click()
    )
    await expect(field).to_be_focused()
    await expect(page.get_by_role("alert")).to_contain_text("A time window has a beginning and an end.")
    fjord.complaints[:] = [one for one in fjord.complaints if "422" not in one]


async def double_tap(person: Person, button: Locator) -> None:
    """Two clicks on the same spot while the first answer is still on its way."""
    session = await person.context.new_cdp_session(person.page)
    slow = {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1}
    await session.send("Network.enable")
    await session.send("Network.emulateNetworkConditions", slow)
    await button.scroll_into_view_if_needed()
    box = await button.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    await person.page.mouse.click(x, y)
    await person.page.wait_for_timeout(180)
    await person.page.mouse.click(x, y)


@pytest.mark.parametrize("has_scripts", [True, False])
async def test_a_double_tap_logs_in_and_tells_what_is_told_once(
    browser: Browser, house: House, brands: tuple[Brand, Brand], has_scripts: bool
) -> None:
    base, name = f"http://portal-fjord.localhost:{house.web_port}", f"twice {has_scripts}"
    async with person_at(browser, base, java_script_enabled=has_scripts) as person:
        page = await person.open("/login")
        await page.get_by_label("E-mail address").fill("owner@fjord.example")
        await page.get_by_role("button", name="Send me a link").click()
        await page.goto(house.login_link("fjord", "owner@fjord.example"))
        await double_tap(person, page.get_by_role("button", name="Log in"))
        await expect(page).to_have_url(f"{base}/")  # the second tap may break off the first one's answer

        await person.open("/api-keys")
        await page.get_by_label("Name").fill(name)
        await page.get_by_label("all", exact=True).check()
        await double_tap(person, page.get_by_role("button", name="Create key"))
        await expect(page.get_by_text("told this once")).to_be_visible()
        key = await page.locator("copy-field code").inner_text()
        answer = Brand("fjord", key, house.web_port).get("/tenant")
        assert answer["name"]
        await expect(page.locator("tbody tr", has_text=name)).to_have_count(1)
        assert await page.locator("form[aria-busy]").count() == 0


async def test_a_form_takes_presses_again_when_its_answer_leaves_the_page_standing(fjord: Person) -> None:
    """A file, or an answer that never comes; and the page that comes back from the browser's memory."""
    page = await fjord.open("/api-keys")
    sent: list[str] = []

    async def swallow(route: Route) -> None:
        sent.append(route.request.method)
        await route.fulfill(status=204)

    await page.clock.install()
    await page.route("**/api-keys", swallow)
    await page.get_by_label("Name").fill("standing")
    button = page.get_by_role("button", name="Create key")
    for _ in range(2):
        await button.click()
        await expect(button).to_have_attribute("aria-disabled", "true")
        await button.click(force=True)
        await page.clock.run_for(8_000)
        await expect(button).not_to_have_attribute("aria-disabled", "true")
    await button.click()
    await expect(button).to_have_attribute("aria-disabled", "true")
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    await expect(button).not_to_have_attribute("aria-disabled", "true")
    assert sent == ["POST"] * 3
    assert not await fjord.faults()
