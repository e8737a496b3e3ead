"""People in real Chromium: staff who log in by the link of their mail, and what a page must never do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

from tests.conftest import ROOT
from tests.journeys.house import House

MODES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


@dataclass
class Person:
    """A browser of one's own. `complaints` collects what the console says: errors, and what the policy blocked."""

    context: BrowserContext
    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str) -> Page:
        answer = await self.page.goto(self.base + path)
        assert answer is not None and answer.status < 400, f"{path}: {answer and answer.status}"
        return self.page

    async def faults(self) -> list[str]:
        """What axe finds wrong with the page, by WCAG 2.2 A and AA and its best practices: in light, then in dark."""
        await self.page.evaluate(AXE.read_text())
        faults: list[str] = []
        for mode in MODES:
            await self.page.emulate_media(color_scheme=mode, reduced_motion="reduce")  # no colour on its way
            found: dict[str, Any] = await self.page.evaluate("axe.run({resultTypes: ['violations']})")
            faults += [
                f"{mode}: {one['id']} ({one['impact']}): {node['html'][:160]}"
                for one in found["violations"]
                for node in one["nodes"]
            ]
        return faults


def _told(said: ConsoleMessage) -> str:
    return f"{said.text} ({said.location.get('url', '')})"


@asynccontextmanager
async def person_at(browser: Browser, base: str, **options: Any) -> AsyncIterator[Person]:
    context = await browser.new_context(locale="en-GB", **options)
    page = await context.new_page()
    person = Person(context, page, base)
    page.on("console", lambda said: person.complaints.append(_told(said)) if said.type == "error" else None)
    page.on("pageerror", lambda error: person.complaints.append(str(error)))
    try:
        yield person
    finally:
        await context.close()


@asynccontextmanager
async def staff(
    browser: Browser, house: House, slug: str, email: str = "", **options: Any
) -> AsyncIterator[Person]:
    """Logged in: by the cookies of an earlier visit where there was one, as a browser would keep them."""
    base, email = f"http://portal-{slug}.localhost:{house.web_port}", email or f"owner@{slug}.example"
    async with person_at(browser, base, storage_state=house.logins.get(email), **options) as person:
        await person.open("/")
        if "/login" in person.page.url:
            await log_in(person, house, slug, email)
            house.logins[email] = await person.context.storage_state()
        yield person


async def log_in(person: Person, house: House, slug: str, email: str) -> None:
    """Asks for a link, takes it from the mail that was kept, presses the button."""
    await person.open("/login")
    await person.page.get_by_label("E-mail address").fill(email)
    await person.page.get_by_role("button", name="Send me a link").click()
    await person.page.goto(house.login_link(slug, email))
    await person.page.get_by_role("button", name="Log in").click()
    await person.page.wait_for_url(f"{person.base}/")
