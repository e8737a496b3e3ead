"""Every page, in every brand, light and dark: nothing for axe to find, nothing blocked, nothing wider than a phone."""

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.async_api import Browser, Page

from app.surfaces import console, driver, portal
from app.surfaces.assembly import route_table
from tests.conftest import Proof
from tests.journeys.house import House, wait_for
from tests.journeys.people import Person, person_at
from tests.pages import BRANDS, SHOTS, Shot, demo_login, reach, url_of
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
            wait_for("a month to be remembered", (made.data_dir / "demo-remembered").exists, timeout_s=300)
            paid = "select count(distinct tenant_id) >= 3 from livery.mail where kind = 'receipt'"
            wait_for("guests to leave", lambda: connection.execute(paid).fetchone() == (True,), timeout_s=240)
            asked = "select count(distinct tenant_id) >= 3 from livery.dispute"
            wait_for(
                "a payer to dispute", lambda: connection.execute(asked).fetchone() == (True,), timeout_s=120
            )
        made.four_days_later()
        yield made
    finally:
        made.remove()


class Looking:
    """One person who goes through the pages and notes what is wrong with each, and which there were."""

    def __init__(self, person: Person, brand: str, port: int) -> None:
        self.person, self.brand, self.port = person, brand, port
        self.faults: list[str] = []
        self.seen: set[tuple[str, str]] = set()

    async def log_in(self, surface: str) -> None:
        async def look(page: Page) -> None:
            self.person.page, before = page, self.person.page
            await self.note(f"{surface}-login-link", surface)
            self.person.page = before

        await demo_login(self.person.context, self.port, surface, self.brand, look)

    async def look_at(self, shot: Shot) -> None:
        if not await reach(self.person.page, shot, self.brand, self.port):
            self.faults.append(f"{shot.name}: not there")
            return
        await self.note(shot.name, shot.surface)

    async def note(self, name: str, surface: str) -> None:
        page = self.person.page
        host = {"rider": "driver", "guest": "driver", "nobody": "portal"}.get(surface, surface)
        self.seen.add((host, urlsplit(page.url).path))
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        self.faults += [f"{name}: {wide} px wider than a narrow phone"] if wide > 0 else []
        self.faults += [f"{name}: {fault}" for fault in await self.person.faults()]


# No pages: files, streams, fragments, ways on; and what only its own journey can reach.
NO_PAGE = re.compile(
    r".*(/live|\.csv|\.xml|\.pdf|/pdf|/xml|\.png|\.webmanifest|\.js|_file\}|/\{file_name\}|/\{preview_name\}|/now)"
    r"|/host-statements/\{host_statement_id\}|(/tenants/\{slug\}/platform-invoices|/platform-fees)/\{platform_invoice_id\}"
    r"|/go|/mail-preview|/payment-account/(?:returned|onboarding)|/preview/\{held\}|/cdrs/\{cdr_id\}"
    r"|/site-hosts/\{site_host_id\}/account/returned"
)


def unseen(seen: set[tuple[str, str]]) -> list[str]:
    """The pages of the surfaces that nobody looked at."""
    missing = []
    for surface, module in (("portal", portal), ("driver", driver), ("console", console)):
        paths = [path for host, path in seen if host == surface]
        for method, route, _handler in route_table(module.build()):
            pattern = re.sub(r"\{[^}]+\}", "[^/]+", route)
            is_page = method == "GET" and not NO_PAGE.fullmatch(route)
            if is_page and not any(re.fullmatch(pattern, path) for path in paths):
                missing.append(f"{surface} {route}")
    return missing


def some(proof: Proof, who: str, shots: list[Shot]) -> list[Shot]:
    """A seeded sixth; all of them in a full proof."""
    chosen = proof.random(f"pages {who}").sample(range(len(shots)), proof.share(len(shots), 6))
    return [shots[index] for index in sorted(chosen)]


@pytest.mark.proof
@pytest.mark.parametrize("brand", BRANDS)
async def test_no_page_has_a_fault_that_axe_or_the_browser_finds(
    browser: Browser, demo: House, proof: Proof, brand: str
) -> None:
    """At 320 px: a wide screen at 400 % is as narrow (WCAG 2.2, 1.4.10). Every page in one brand, and in the others
    those that the seed chooses."""
    is_whole = proof.full or brand == BRANDS[0]
    shots = list(SHOTS) if is_whole else some(proof, brand, list(SHOTS))
    base = url_of("portal", brand, demo.web_port, "")
    async with person_at(browser, base, viewport=NARROW) as person:
        looking = Looking(person, brand, demo.web_port)
        for surface in ("nobody", "start", "driver", "portal", "console", "guest", "rider"):
            if surface in ("portal", "console", "rider"):
                if surface == "console":
                    await looking.look_at(Shot("console-login", "/login", surface="console"))
                await looking.log_in(surface)
            for shot in (one for one in shots if one.surface == surface):
                await looking.look_at(shot)
        assert not looking.faults, "\n".join(looking.faults)
        assert not person.complaints
        assert not is_whole or unseen(looking.seen) == []


@pytest.mark.proof
async def test_the_worst_look_that_is_allowed_can_be_read_too(
    browser: Browser, demo: House, proof: Proof
) -> None:
    look = preset("worst_legal")
    with demo.sql() as connection:
        connection.execute(
            "update livery.brand set theme = %s where tenant_id = (select id from platform.tenant where slug = %s)",
            [json.dumps(look.values()), BRANDS[-1]],
        )
    base = url_of("portal", BRANDS[-1], demo.web_port, "")
    async with person_at(browser, base, viewport=NARROW) as person:
        looking = Looking(person, BRANDS[-1], demo.web_port)
        for surface in ("portal", "console", "rider"):
            await looking.log_in(surface)
        mine = [one for one in SHOTS if one.surface in ("portal", "driver", "guest", "rider")]
        for shot in some(proof, "worst look", mine):
            await looking.look_at(shot)
            assert "Loud &amp; Clear" in await person.page.content(), shot.name
        assert not looking.faults, "\n".join(looking.faults)


@pytest.mark.parametrize(("language", "price"), [("en", "per kWh"), ("de", "pro kWh")])
def test_a_drivers_first_page_is_light_and_useful_in_its_first_answer(
    demo: House, language: str, price: str
) -> None:
    """At most 35 KB with everything it loads: the page itself as it is, the files as a browser asks for them."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{demo.web_port}") as client:
        host = f"{BRANDS[0]}.localhost:{demo.web_port}"
        headers = {"Host": host, "Accept-Encoding": "br", "Accept-Language": language}
        codes = re.findall(r'href="(/c/[^"]+)"', client.get("/", headers=headers).text)

        def loaded(path: str) -> bytes:
            with client.stream("GET", path, headers=headers) as answer:
                return b"".join(answer.iter_raw())

        html, code = max(((loaded(code), code) for code in codes), key=lambda one: len(one[0]))
        weights = {code: len(html)}
        files = re.findall(r'(?:href|src)="(/(?:static|brand)/[^"#]+)', html.decode())
        for name in dict.fromkeys(files):
            with client.stream("GET", name, headers=headers) as answer:
                assert answer.status_code == 200, name
                weights[name] = len(b"".join(answer.iter_raw()))
    print(f"\n{sum(weights.values())} bytes: {weights}")
    assert sum(weights.values()) <= 35_000
    assert price in html.decode() and 'class="card form start"' in html.decode()


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
