"""Every page x brand x mode x width into `pictures/`, with a contact sheet to look at. `make pictures`.

Starts the demo in a folder of its own, lets its stations charge for a moment and photographs in real Chromium.
`--port N` photographs a Livery with the demo that runs already; `--only stations` what has that in its name.
"""

import argparse
import asyncio
import html
import time
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.conftest import CHROMIUM
from tests.journeys.house import House

OUT = Path("pictures")
BRANDS = ("nordlicht", "solmark")
MODES = ("light", "dark")
WIDTHS = {"desktop": (1280, 860), "phone": (390, 844)}
SETTLE_S = 45


@dataclass(frozen=True, slots=True)
class Shot:
    """`path`, and what is clicked from there (a CSS selector's first link is followed), by whom, on which surface."""

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
    Shot("sessions", "/charging-sessions"),
    Shot("session", "/charging-sessions?state=COMPLETED", ("tbody a[href^='/charging-sessions/ses_']",)),
    Shot("session-live", "/charging-sessions?state=ACTIVE", ("tbody a[href^='/charging-sessions/ses_']",)),
    Shot("id-tokens", "/id-tokens"),
    Shot("id-token", "/id-tokens", ("tbody a[href^='/id-tokens/tok_']",)),
    Shot("id-token-new", "/id-tokens/new"),
    Shot("drivers", "/drivers"),
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
    Shot("places", "/", surface="driver"),
    Shot("console-tenants", "/tenants", surface="console"),
    Shot("console-unclaimed", "/unclaimed", surface="console"),
    Shot("console-mails", "/mails", surface="console"),
    Shot("console-audit", "/audit", surface="console"),
)


class Photographer:
    def __init__(self, browser: Browser, port: int, only: str, out: Path) -> None:
        self.browser, self.port, self.only, self.out = browser, port, only, out
        self.taken: list[Path] = []
        self.missing: list[str] = []

    def _url(self, surface: str, brand: str, path: str) -> str:
        host = {"start": "localhost", "console": "console.localhost", "driver": f"{brand}.localhost"}.get(
            surface, f"portal-{brand}.localhost"
        )
        return f"http://{host}:{self.port}{path}"

    async def everything(
        self, brands: tuple[str, ...], modes: tuple[str, ...], widths: tuple[str, ...]
    ) -> None:
        for brand in brands:
            for mode in modes:
                await self._series(brand, mode, widths)

    async def _series(self, brand: str, mode: str, widths: tuple[str, ...]) -> None:
        scheme = "dark" if mode == "dark" else "light"
        context = await self.browser.new_context(color_scheme=scheme, locale="en-GB")
        try:
            shots = [shot for shot in SHOTS if self.only in shot.name]
            await self._photograph(context, [s for s in shots if s.surface == "nobody"], brand, mode, widths)
            for surface in ("portal", "console"):
                if any(shot.surface == surface for shot in shots):
                    await self._log_in(context, surface, brand)
            # The platform's own pages have one face: they are taken with the first brand only.
            mine = [
                s
                for s in shots
                if s.surface in ("portal", "driver") or (brand == BRANDS[0] and s.surface != "nobody")
            ]
            await self._photograph(context, mine, brand, mode, widths)
        finally:
            await context.close()

    async def _log_in(self, context: BrowserContext, surface: str, brand: str) -> None:
        page = await context.new_page()
        await page.goto(self._url("start", brand, "/"))
        tenant = "" if surface == "console" else brand
        form = page.locator(f"form[action='/demo-logins']:has(input[name='tenant'][value='{tenant}'])")
        if surface == "console":
            form = page.locator("form[action='/demo-logins']:not(:has(input[name='tenant']:not([value=''])))")
        await form.first.locator("button").click()
        await page.locator("main form button").first.click()
        await page.wait_for_load_state()
        await page.close()

    async def _photograph(
        self, context: BrowserContext, shots: list[Shot], brand: str, mode: str, widths: tuple[str, ...]
    ) -> None:
        for shot in shots:
            page = await context.new_page()
            try:
                if not await self._reach(page, shot, brand):
                    self.missing.append(f"{shot.name} ({brand})")
                    continue
                for width in widths:
                    size = WIDTHS[width]
                    await page.set_viewport_size({"width": size[0], "height": size[1]})
                    await page.wait_for_timeout(400)
                    path = self.out / f"{shot.name}.{brand}.{mode}.{width}.png"
                    await page.screenshot(path=path, full_page=True)
                    self.taken.append(path)
            finally:
                await page.close()

    async def _reach(self, page: Page, shot: Shot, brand: str) -> bool:
        answer = await page.goto(self._url(shot.surface, brand, shot.path), wait_until="load")
        for selector in shot.follow:
            link = page.locator(selector).first
            if not await link.count():
                return False
            href = await link.get_attribute("href") or "/"
            answer = await page.goto(self._url(shot.surface, brand, href), wait_until="load")
        return answer is not None and answer.status == 200

    async def contact_sheet(self) -> None:
        """All pictures small on one page, as PNG and HTML."""
        cells = "".join(
            f'<figure><a href="{path.name}"><img src="{path.name}" alt=""></a><figcaption>{html.escape(path.stem)}'
            "</figcaption></figure>"
            for path in self.taken
        )
        style = (
            "body{font:11px system-ui;margin:12px;display:flex;flex-wrap:wrap;gap:12px;background:#888}"
            "figure{margin:0;width:230px}img{width:230px;height:260px;object-fit:cover;object-position:top;"
            "background:#fff}figcaption{color:#fff}"
        )
        sheet = self.out / "contact-sheet.html"
        sheet.write_text(
            f"<!doctype html><meta charset=utf-8><title>Pages</title><style>{style}</style>{cells}"
        )
        page = await self.browser.new_page(viewport={"width": 1500, "height": 900})
        await page.goto(sheet.resolve().as_uri())
        await page.screenshot(path=self.out / "contact-sheet.png", full_page=True)
        await page.close()


async def photograph(
    port: int, only: str, brands: tuple[str, ...], modes: tuple[str, ...], widths: tuple[str, ...]
) -> None:
    OUT.mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        photographer = Photographer(browser, port, only, OUT)
        await photographer.everything(brands, modes, widths)
        await photographer.contact_sheet()
        await browser.close()
    print(f"{len(photographer.taken)} pictures in {OUT}/, all of them on {OUT}/contact-sheet.png")
    if photographer.missing:
        print("not there: " + ", ".join(photographer.missing))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int)
    parser.add_argument("--only", default="")
    parser.add_argument("--brand", choices=BRANDS)
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--width", choices=tuple(WIDTHS))
    wanted = parser.parse_args()
    what = (
        (wanted.brand,) if wanted.brand else BRANDS,
        (wanted.mode,) if wanted.mode else MODES,
        (wanted.width,) if wanted.width else tuple(WIDTHS),
    )
    if wanted.port:
        asyncio.run(photograph(wanted.port, wanted.only, *what))
        return
    house = House(demo=True)
    try:
        house.start()
        print(f"the demo runs; its stations charge for {SETTLE_S} s first")
        time.sleep(SETTLE_S)
        asyncio.run(photograph(house.web_port, wanted.only, *what))
    finally:
        house.remove()


if __name__ == "__main__":
    main()
