"""Guests of the demo: they scan a sticker, give a test card and leave, over HTTP as any browser without JavaScript.

So payments and holds are true ones: the same pages, the same provider, the same stations. Only where the provider is
the sandbox; nobody here knows a real card.
"""

import asyncio
import logging
import random
import re
from contextlib import suppress
from urllib.parse import urlsplit

import httpx2

from app.demo.cast import Company
from app.kernel.settings import Settings

LOG = logging.getLogger("livery.demo")
GOOD, OTHER, DECLINED = "4242424242424242", "5555555555554444", "4000000000000002"
ASKED_ABOUT = "4000000000001976"  # pays, and its bank asks whether that was right
# (card, seconds until they press stop, where): fast chargers give enough in a minute to be worth a payment.
FAST, ANY = "?free=1&dc=1", "?free=1"
FIRST = ((GOOD, 60.0, FAST), (ASKED_ABOUT, 55.0, FAST), (DECLINED, 0.0, ANY), (OTHER, 1e9, ANY))
APART_S = 8
EMAIL = "gast@example.org"
_PLACE = re.compile(r'href="/c/([^"]+)"')
_READ = re.compile(r'name="(wish|terms)" value="([^"]+)"')


async def run_guests(settings: Settings, companies: tuple[Company, ...]) -> None:
    """Four for each brand, then one now and then, until cancelled."""
    if not settings.uses_sandbox or settings.is_production:
        return
    # An address of their own: the limit on checkouts from one address is there for the people who look at the demo.
    transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
    base = f"http://127.0.0.1:{settings.web_port}"
    async with httpx2.AsyncClient(base_url=base, transport=transport, timeout=20) as client:
        await asyncio.gather(*(_come_and_go(settings, client, company.slug) for company in companies))


async def _come_and_go(settings: Settings, client: httpx2.AsyncClient, slug: str) -> None:
    chance = random.Random(slug)  # noqa: S311
    await asyncio.gather(
        *(_come_later(Guest(settings, client, slug, chance), turn, wish) for turn, wish in enumerate(FIRST))
    )
    while True:
        await asyncio.sleep(chance.uniform(600, 1500))
        await Guest(settings, client, slug, chance).come(GOOD, chance.uniform(120, 600), FAST)


async def _come_later(guest: "Guest", turn: int, wish: tuple[str, float, str]) -> None:
    """One after the other: of two who want the same fast charger at once, one waits for minutes."""
    await asyncio.sleep(turn * APART_S)
    await guest.come(*wish)


class Guest:
    def __init__(
        self,
        settings: Settings,
        client: httpx2.AsyncClient,
        slug: str,
        chance: random.Random,
        *,
        pause_s: float = 3,
    ) -> None:
        self.settings, self.client, self.chance, self.pause_s = settings, client, chance, pause_s
        self.origin = settings.url_of(settings.host_of("driver", slug)).rstrip("/")

    async def come(self, card: str, stays_s: float, wanted: str = ANY) -> bool:
        """False when nothing came of it: no place was free, or the card was refused."""
        for _ in range(40):
            paying = None
            with suppress(httpx2.HTTPError):  # the pages may be slow while everything starts: they come again
                paying = await self._start(wanted)
            if paying is not None:
                has_paid = False
                with suppress(httpx2.HTTPError):
                    has_paid = await self._pay(paying, card, stays_s)
                if has_paid or card == DECLINED:
                    return has_paid
            await asyncio.sleep(self.pause_s)
        LOG.info("a guest of %s found no place", self.origin)
        return False

    async def _send(self, method: str, url: str, data: dict[str, str] | None = None) -> httpx2.Response:
        parts = urlsplit(url)
        headers = {"Host": parts.netloc, "Origin": f"{parts.scheme}://{parts.netloc}"}
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        return await self.client.request(method, target, headers=headers, data=data)

    async def _start(self, wanted: str) -> str | None:
        """The payment page's address, of a place that is free."""
        places = _PLACE.findall((await self._send("GET", f"{self.origin}/{wanted}")).text)
        if not places:
            return None
        place = f"{self.origin}/c/{self.chance.choice(places)}"
        read = dict(_READ.findall((await self._send("GET", place)).text))
        answer = await self._send("POST", f"{place}/start", {"email": EMAIL, **read})
        where = answer.headers.get("location", "")
        return where if answer.status_code == 303 and "/pay/" in where else None

    async def _pay(self, paying: str, card: str, stays_s: float) -> bool:
        answer = await self._send("POST", paying, {"card": card, "email": EMAIL, "action": "pay"})
        session = answer.headers.get("location", "")
        if "/s/" not in session:  # the card was refused: the page asks for another one
            answer = await self._send("POST", paying, {"action": "cancel"})
            await self._send("GET", answer.headers["location"])
            return False
        if not await self._begins(session):
            return False
        if stays_s < 1e9:
            await asyncio.sleep(stays_s)
            await self._send("POST", session.partition("?")[0] + "/stop", {})
        return True

    async def _begins(self, session: str) -> bool:
        """False: somebody's card was quicker, or the charger refused."""
        for _ in range(40):
            shown = (await self._send("GET", session)).text
            if "/cancel" not in shown:
                return "/stop" in shown
            await asyncio.sleep(self.pause_s)
        return False
