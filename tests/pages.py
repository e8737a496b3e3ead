"""Every page there is, and how to reach it: what `make pictures` photographs and what axe looks at."""

from dataclasses import dataclass

from playwright.async_api import BrowserContext, Page

BRANDS = ("nordlicht", "solmark", "elbstrom")


@dataclass(frozen=True, slots=True)
class Shot:
    """`path`, and what is clicked from there (a CSS selector's first link is followed), by whom, on which surface.

    `rider` is the drivers' host for one who is logged in.
    """

    name: str
    path: str
    follow: tuple[str, ...] = ()
    surface: str = "portal"


SHOTS = (
    Shot("start", "/", surface="start"),
    Shot("login", "/login", surface="nobody"),
    Shot("overview", "/"),
    Shot("stations", "/stations"),
    Shot("station", "/stations", ("tbody a[href^='/stations/sta_']",)),
    Shot("station-log", "/stations", ("tbody a[href^='/stations/sta_']", "main a[href$='/log']")),
    Shot("station-commands", "/stations", ("tbody a[href^='/stations/sta_']", "main a[href$='/commands']")),
    Shot("station-settings", "/stations", ("tbody a[href^='/stations/sta_']", "main a[href$='/settings']")),
    Shot("station-setup", "/stations", ("tbody a[href^='/stations/sta_']", "main a[href$='/setup']")),
    Shot("station-new", "/stations/new"),
    Shot("sites", "/locations"),
    Shot("site", "/locations", ("tbody a[href^='/locations/loc_']",)),
    Shot("site-new", "/locations/new"),
    Shot("stickers", "/stickers"),
    Shot("sessions", "/charging-sessions"),
    Shot("session", "/charging-sessions?state=COMPLETED", ("tbody a[href^='/charging-sessions/ses_']",)),
    Shot("session-live", "/charging-sessions?state=ACTIVE", ("tbody a[href^='/charging-sessions/ses_']",)),
    Shot("id-tokens", "/id-tokens"),
    Shot("id-token", "/id-tokens", ("tbody a[href^='/id-tokens/tok_']",)),
    Shot("id-token-new", "/id-tokens/new"),
    Shot("drivers", "/drivers"),
    Shot("driver-import", "/drivers/import"),
    Shot("driver-groups", "/driver-groups"),
    Shot("tariffs", "/tariffs"),
    Shot("tariff", "/tariffs", ("tbody a[href^='/tariffs/tar_'], main a[href^='/tariffs/tar_']",)),
    Shot("tariff-new", "/tariffs/new"),
    Shot("invoices", "/invoices"),
    Shot("invoice", "/invoices", ("tbody a[href^='/invoices/inv_']",)),
    Shot("ledger", "/ledger"),
    Shot("team", "/team"),
    Shot("api-keys", "/api-keys"),
    Shot("audit", "/audit"),
    Shot("settings", "/settings"),
    Shot("branding", "/branding"),
    Shot("domains", "/domains"),
    Shot("payments", "/payments"),
    Shot("places", "/", surface="driver"),
    Shot("map", "/map", surface="driver"),
    Shot("offline", "/offline", surface="driver"),
    Shot("place", "/", ("main a[href^='/c/']",), surface="driver"),
    Shot("driver-login", "/login", surface="driver"),
    Shot("account", "/account", surface="rider"),
    Shot("account-session", "/account", ("ul.rows li:last-child a",), surface="rider"),
    Shot("account-cards", "/account/cards", surface="rider"),
    Shot("account-profile", "/account/profile", surface="rider"),
    Shot("account-closing", "/account/closing", surface="rider"),
    Shot("account-place", "/", ("main a[href^='/c/']",), surface="rider"),
    Shot("console-tenants", "/", surface="console"),
    Shot("console-domains", "/domains", surface="console"),
    Shot("console-unclaimed", "/unclaimed-stations", surface="console"),
    Shot("console-gateways", "/gateways", surface="console"),
    Shot("console-isolation", "/isolation", surface="console"),
    Shot("console-sandbox", "/sandbox", surface="console"),
    Shot("console-mails", "/mails", surface="console"),
    Shot("console-audit", "/audit", surface="console"),
)


def url_of(surface: str, brand: str, port: int, path: str) -> str:
    drivers = f"{brand}.localhost"
    hosts = {"start": "localhost", "console": "console.localhost", "driver": drivers, "rider": drivers}
    return f"http://{hosts.get(surface, f'portal-{brand}.localhost')}:{port}{path}"


async def demo_login(context: BrowserContext, port: int, surface: str, brand: str) -> None:
    """By the start page's button: the brand's owner, one of its drivers (`rider`), or the platform's admin."""
    page = await context.new_page()
    await page.goto(url_of("start", brand, port, "/"))
    cards = page.locator("section.card", has=page.locator("form"))
    card = cards.filter(has_text="Platform" if surface == "console" else brand).last
    buttons = card.locator("form button")
    await (buttons.last if surface == "rider" else buttons.first).click()
    await page.locator("main form button").first.click()
    await page.wait_for_url(url_of(surface, brand, port, "/account" if surface == "rider" else "/"))
    await page.close()


async def reach(page: Page, shot: Shot, brand: str, port: int) -> bool:
    """False where it is not there: nothing to follow, or another answer than 200."""
    answer = await page.goto(url_of(shot.surface, brand, port, shot.path), wait_until="load")
    for selector in shot.follow:
        link = page.locator(selector).first
        if not await link.count():
            return False
        href = await link.get_attribute("href") or "/"
        answer = await page.goto(url_of(shot.surface, brand, port, href), wait_until="load")
    return answer is not None and answer.status == 200
