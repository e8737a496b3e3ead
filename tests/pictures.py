"""Every page x brand x mode x width into `pictures/`, with a contact sheet to look at. `make pictures`.

Starts the demo in a folder of its own, lets its stations charge for a moment and photographs in real Chromium.
`--port N` photographs a Livery with the demo that runs already; `--only stations` what has that in its name.
"""

import argparse
import asyncio
import html
import time
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, async_playwright

from tests.conftest import CHROMIUM
from tests.journeys.house import House
from tests.pages import BRANDS, SHOTS, Shot, demo_login, reach

OUT = Path("pictures")
MODES = ("light", "dark")
WIDTHS = {"desktop": (1280, 860), "phone": (390, 844)}
SETTLE_S = 100


class Photographer:
    def __init__(self, browser: Browser, port: int, only: str, out: Path) -> None:
        self.browser, self.port, self.only, self.out = browser, port, only, out
        self.taken: list[Path] = []
        self.missing: list[str] = []

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
                if any(shot.surface in (surface, "guest") for shot in shots):
                    await demo_login(context, self.port, surface, brand)
            # The platform's own pages have one face: they are taken with the first brand only.
            mine = [
                s
                for s in shots
                if s.surface in ("portal", "driver", "guest")
                or (brand == BRANDS[0] and s.surface not in ("nobody", "rider"))
            ]
            await self._photograph(context, mine, brand, mode, widths)
            # Last: whoever is logged in sees the drivers' host otherwise.
            own = [s for s in shots if s.surface == "rider"]
            if own:
                await demo_login(context, self.port, "rider", brand)
            await self._photograph(context, own, brand, mode, widths)
        finally:
            await context.close()

    async def _photograph(
        self, context: BrowserContext, shots: list[Shot], brand: str, mode: str, widths: tuple[str, ...]
    ) -> None:
        for shot in shots:
            page = await context.new_page()
            try:
                if not await reach(page, shot, brand, self.port):
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
        house.four_days_later()
        asyncio.run(photograph(house.web_port, wanted.only, *what))
    finally:
        house.remove()


if __name__ == "__main__":
    main()
