"""The page of domains in a real browser: every state, light and dark, as narrow as a phone."""

import os
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from playwright.async_api import Browser

from app.brands import domains
from app.identity import admins
from app.identity import service as identity
from app.kernel.settings import Settings
from tenants.database import Database
from tests.brands.test_domains import JOB, NOTHING, Answers, claimed, right
from tests.journeys.people import Person, person_at
from tests.web import CLI, House, found_brand, open_house

pytestmark = [pytest.mark.anyio, pytest.mark.browser]
TARGET = "nordlicht.localhost"


async def every_state(database: Database, tenant_id: UUID) -> None:
    now = datetime.now(UTC)
    made = {}
    for name in (
        "pending",
        "elsewhere",
        "proven",
        "active",
        "failing",
        "suspended",
        "released",
        "laden.müller",
    ):
        made[name] = await claimed(database, tenant_id, f"{name}.a-brand-with-a-long-name.example")

    async def check(name: str, resolver: Answers, days: float = 0) -> None:
        at = now + timedelta(days=days)
        await domains.check(database, tenant_id, JOB, made[name].id, resolver=resolver, now=at)

    host = made["elsewhere"].host
    wrong = Answers(
        {f"_livery-challenge.{host}": ["livery-another", "v=spf1 " + "x" * 90]},
        addresses={host: ["192.0.2.7", "2001:db8:ffff:ffff:ffff:ffff:ffff:1"]},
    )
    await check("elsewhere", wrong)
    await check(
        "proven", Answers({f"_livery-challenge.{made['proven'].host}": [domains.txt_value(made["proven"])]})
    )
    for name in ("active", "failing", "suspended"):
        await check(name, right(made[name], TARGET), -5)
    await check("failing", NOTHING)
    for days in (-4, 0):
        await check("suspended", NOTHING, days)
    async with database.scope(tenant_id, CLI) as scope:
        await domains.release(scope, made["released"].id)


@pytest.fixture
async def house(settings: Settings, database: Database):
    async with open_house(settings, database) as opened:
        yield opened


@pytest.mark.parametrize("mode", ["light", "dark"])
async def test_every_state_of_a_domain_is_readable_for_everybody(
    browser: Browser, house: House, mode: str
) -> None:
    tenant_id = await found_brand(house.database)
    await every_state(house.database, tenant_id)
    async with house.database.scope(tenant_id, CLI) as scope:
        member = await identity.find_staff_member(scope, "anke@nordlicht-laden.example")
        _link, token = await identity.make_login_link(scope, member.id)
    base = f"http://portal-nordlicht.localhost:{house.port}"
    async with person_at(browser, base, color_scheme=mode, viewport={"width": 320, "height": 640}) as person:
        page = await person.open(f"/login/{token}")
        await page.locator("main form button").first.click()
        await look_at(person, "/domains")
        link = await admins.create_platform_admin(house.database, "ada@platform.example")
        person.base = f"http://console.localhost:{house.port}"
        await person.open("/login/" + link.rpartition("/")[2])
        await page.locator("main form button").first.click()
        await look_at(person, "/domains")
        assert not person.complaints


async def look_at(person: Person, path: str) -> None:
    page = await person.open(path)
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    if folder := os.environ.get("LIVERY_PICTURES"):
        await page.screenshot(path=f"{folder}/{page.url.split('/')[2].split('.')[0]}.png", full_page=True)
    assert wide <= 0
    assert not await person.faults()
