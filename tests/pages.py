"""Every page there is, and how to reach it: what `make pictures` photographs and what axe looks at."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urljoin

from playwright.async_api import BrowserContext, Page

BRANDS = ("nordlicht", "solmark", "elbstrom")


@dataclass(frozen=True, slots=True)
class Shot:
    """`path`, and what is clicked from there (a CSS selector's first link is followed), by whom, on which surface.

    `rider` is the drivers' host for one who is logged in; `guest` follows a guest's mail, which the console shows.
    `{brand}` stands for the brand's slug.
    """

    name: str
    path: str
    follow: tuple[str, ...] = ()
    surface: str = "portal"


STATION = "tbody a[href^='/stations/sta_']"
WAY_BACK = "tr:has-text('{brand}') a:is(:has-text('session with'), :has-text('Ladevorgang bei'))"
RECEIPT = "tr:has-text('{brand}') a:is(:has-text('receipt from'), :has-text('Beleg von'))"
SESSION = "main a[href*='/s/ses_']"

SHOTS = (
    Shot("start", "/", surface="start"),
    Shot("login", "/login", surface="nobody"),
    Shot("overview", "/"),
    Shot("stations", "/stations"),
    Shot("station", "/stations", (STATION,)),
    Shot("station-log", "/stations", (STATION, "main a[href$='/log']")),
    Shot("station-message", "/stations", (STATION, "main a[href$='/log']", "tbody a[href*='/log/']")),
    Shot("station-commands", "/stations", (STATION, "main a[href$='/commands']")),
    Shot(
        "station-command", "/stations", (STATION, "main a[href$='/commands']", "main a[href*='/commands/']")
    ),
    Shot("station-variables", "/stations", (STATION, "main a[href$='/variables']")),
    Shot("station-events", "/stations", (STATION, "main a[href$='/variables']", "main a[href$='/events']")),
    Shot("station-display", "/stations", (STATION, "main a[href$='/variables']", "main a[href$='/display']")),
    Shot("station-security", "/stations", (STATION, "main a[href$='/security']")),
    Shot(
        "station-firmware", "/stations", (STATION, "main a[href$='/security']", "main a[href$='/firmware']")
    ),
    Shot(
        "station-diagnostics",
        "/stations",
        (STATION, "main a[href$='/security']", "main a[href$='/diagnostics']"),
    ),
    Shot("station-limits", "/stations", (STATION, "main a[href$='/charging-profiles']")),
    Shot("station-settings", "/stations", (STATION, "main a[href$='/settings']")),
    Shot("station-setup", "/stations", (STATION, "main a[href$='/settings']", "main a[href$='/setup']")),
    Shot("station-new", "/stations/new"),
    Shot("station-quirks", "/stations/quirks"),
    Shot("stations-unclaimed", "/stations/unclaimed"),
    Shot("stations-parked", "/stations/parked"),
    Shot("alerts", "/alerts?all=1"),
    Shot("configuration-templates", "/configuration-templates"),
    Shot(
        "configuration-template", "/configuration-templates", ("tbody a[href^='/configuration-templates/']",)
    ),
    Shot("configuration-template-new", "/configuration-templates/new"),
    Shot("sites", "/locations"),
    Shot("site", "/locations", ("tbody a[href^='/locations/loc_']",)),
    Shot("site-new", "/locations/new"),
    Shot("meters", "/meters"),
    Shot("meters-check", "/meters/check"),
    Shot("security", "/security"),
    Shot("firmware", "/firmware"),
    Shot("stickers", "/stickers"),
    Shot("sessions", "/charging-sessions"),
    Shot("session", "/charging-sessions?state=COMPLETED", ("tbody a[href^='/charging-sessions/ses_']",)),
    Shot("session-live", "/charging-sessions?state=ACTIVE", ("tbody a[href^='/charging-sessions/ses_']",)),
    Shot("reservations", "/reservations"),
    Shot("reservation-new", "/reservations/new"),
    Shot("id-tokens", "/id-tokens"),
    Shot("id-token", "/id-tokens", ("tbody a[href^='/id-tokens/tok_']",)),
    Shot("id-token-new", "/id-tokens/new"),
    Shot("drivers", "/drivers"),
    Shot("driver-import", "/drivers/import"),
    Shot("driver", "/drivers", ("tbody a[href^='/drivers/']",)),
    Shot("driver-groups", "/driver-groups"),
    Shot("driver-group", "/driver-groups", ("tbody a[href^='/driver-groups/']",)),
    Shot("driver-group-new", "/driver-groups/new"),
    Shot("local-lists", "/local-lists"),
    Shot("local-list", "/local-lists", ("tbody a[href^='/local-lists/sta_']",)),
    Shot("tariffs", "/tariffs"),
    Shot("tariff", "/tariffs", ("tbody a[href^='/tariffs/tar_'], main a[href^='/tariffs/tar_']",)),
    Shot("tariff-edit", "/tariffs", ("main a[href^='/tariffs/tar_']", "main a[href$='/edit']")),
    Shot("tariff-sessions", "/tariffs", ("main a[href^='/tariffs/tar_']", "main a[href$='/re-rating']")),
    Shot("tariff-new", "/tariffs/new"),
    Shot("invoices", "/invoices"),
    Shot("invoice", "/invoices", ("tbody a[href^='/invoices/inv_']",)),
    Shot("ledger", "/ledger"),
    Shot("payment-account", "/payment-account"),
    Shot("payouts", "/payouts"),
    Shot("payout", "/payouts", ("tbody a[href^='/payouts/pyo_']",)),
    Shot("reconciliation", "/reconciliation"),
    Shot("platform-fees", "/platform-fees"),
    Shot("site-hosts", "/site-hosts"),
    Shot("site-host", "/site-hosts", ("tbody a[href^='/site-hosts/hst_']",)),
    Shot("team", "/team"),
    Shot("api-keys", "/api-keys"),
    Shot("audit", "/audit"),
    Shot("settings", "/settings"),
    Shot("settings-cards", "/settings/cards"),
    Shot("branding", "/branding"),
    Shot("domains", "/domains"),
    Shot("payments", "/payments"),
    Shot("payment", "/payments", ("tbody a[href^='/payments/']",)),
    Shot("payments-owed", "/payments/owed"),
    Shot("vouchers", "/vouchers"),
    Shot("voucher-batch", "/vouchers", ("tbody a[href^='/vouchers/']",)),
    Shot("terminals", "/terminals"),
    Shot("terminal-records", "/terminal-records"),
    Shot("terminal-record", "/terminal-records?show=unmatched", ("tbody a[href^='/terminal-records/trr_']",)),
    Shot("wallet", "/drivers", ("tbody a[href^='/drivers/']", "main a[href$='/wallet']")),
    Shot("disputes", "/disputes"),
    Shot("dispute", "/disputes", ("tbody a[href^='/disputes/']",)),
    Shot("places", "/", surface="driver"),
    Shot("map", "/map", surface="driver"),
    Shot("offline", "/offline", surface="driver"),
    Shot("place", "/", ("main a[href^='/c/']",), surface="driver"),
    Shot("place-voucher", "/?free=1", ("main a[href^='/c/']", "main a[href$='/voucher']"), surface="driver"),
    Shot("imprint", "/legal/imprint", surface="driver"),
    Shot("driver-login", "/login", surface="driver"),
    Shot("guest-session", "/mails", (WAY_BACK, SESSION), surface="guest"),
    Shot("guest-receipt", "/mails", (RECEIPT, "main a[href$='/receipt']"), surface="guest"),
    Shot(
        "guest-finished",
        "/mails",
        (RECEIPT, "main a[href$='/receipt']", "main a[href*='/s/ses_']"),
        surface="guest",
    ),
    Shot("account", "/account", surface="rider"),
    Shot("account-session", "/account", ("ul.rows a:has-text('€')",), surface="rider"),
    Shot(
        "account-receipt",
        "/account",
        ("ul.rows a:has-text('€')", "main a[href$='/receipt']"),
        surface="rider",
    ),
    Shot("account-wallet", "/account/wallet", surface="rider"),
    Shot("account-cards", "/account/cards", surface="rider"),
    Shot("account-payment", "/account/payment", surface="rider"),
    Shot("account-profile", "/account/profile", surface="rider"),
    Shot("account-closing", "/account/closing", surface="rider"),
    Shot("account-place", "/", ("main a[href^='/c/']",), surface="rider"),
    Shot("console-tenants", "/", surface="console"),
    Shot("console-fees", "/", ("a[href$='/fees']",), surface="console"),
    Shot("console-platform-book", "/platform-book", surface="console"),
    Shot("console-exposure", "/exposure", surface="console"),
    Shot("console-platform-profile", "/platform-profile", surface="console"),
    Shot("console-domains", "/domains", surface="console"),
    Shot("console-unclaimed", "/unclaimed-stations", surface="console"),
    Shot("console-gateways", "/gateways", surface="console"),
    Shot("console-isolation", "/isolation", surface="console"),
    Shot("console-sandbox", "/sandbox", surface="console"),
    Shot("console-mails", "/mails", surface="console"),
    Shot("console-mail", "/mails", (RECEIPT,), surface="console"),
    Shot("console-audit", "/audit", surface="console"),
)


def url_of(surface: str, brand: str, port: int, path: str) -> str:
    drivers = f"{brand}.localhost"
    console = "console.localhost"
    hosts = {"start": "localhost", "console": console, "guest": console, "driver": drivers, "rider": drivers}
    return f"http://{hosts.get(surface, f'portal-{brand}.localhost')}:{port}{path}"


Look = Callable[[Page], Awaitable[None]]


async def demo_login(
    context: BrowserContext, port: int, surface: str, brand: str, look: Look | None = None
) -> None:
    """By the start page's button: the brand's owner, its driver who pays each session (`rider`), or the admin.

    `look` sees the page on the way, where the link of a mail leads.
    """
    page = await context.new_page()
    await page.goto(url_of("start", brand, port, "/"))
    cards = page.locator("section.card", has=page.locator("form"))
    card = cards.filter(has_text="Platform" if surface == "console" else brand).last
    buttons = card.locator("form button")
    await (buttons.last if surface == "rider" else buttons.first).click()
    await page.wait_for_url("**/login/*")
    if look is not None:
        await look(page)
    await page.locator("main form button").first.click()
    await page.wait_for_url(url_of(surface, brand, port, "/account" if surface == "rider" else "/"))
    await page.close()


async def reach(page: Page, shot: Shot, brand: str, port: int) -> bool:
    """False where it is not there: nothing to follow, or another answer than 200."""
    answer = await page.goto(url_of(shot.surface, brand, port, shot.path), wait_until="load")
    for selector in shot.follow:
        link = page.locator(selector.format(brand=brand)).first
        if not await link.count():
            return False
        href = await link.get_attribute("href") or "/"
        answer = await page.goto(urljoin(page.url, href), wait_until="load")
    return answer is not None and answer.status == 200
