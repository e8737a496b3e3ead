"""What is small on a narrow phone, and what a page without scripts leaves out."""

import pytest
from playwright.async_api import Browser

from app.billing.models import Payment
from app.charging.models import ChargingSession
from app.identity import service as identity
from app.kernel.clock import uuid7
from app.kernel.ids import public_id
from app.kernel.settings import Settings
from app.stations import service as stations
from tenants.database import Database
from tests.journeys.people import person_at
from tests.web import CLI, OWNER, found_brand, open_house

pytestmark = [pytest.mark.anyio, pytest.mark.browser]
CUT = """[...document.querySelectorAll('main .pill')].filter(one => one.scrollWidth > one.clientWidth + 1
 || one.getBoundingClientRect().right > innerWidth).map(one => one.textContent)"""


async def test_pills_hold_their_words_and_an_empty_chart_takes_no_room(
    browser: Browser, settings: Settings, database: Database
) -> None:
    async with open_house(settings, database) as house:
        tenant_id = await found_brand(house.database)
        async with house.database.scope(tenant_id, CLI) as scope:
            member = await identity.find_staff_member(scope, OWNER)
            assert member is not None
            _link, token = await identity.make_login_link(scope, member.id)
            station = (await stations.create_station(scope, identity="CP1")).station
            session = ChargingSession(
                id=uuid7(), station_id=station.id, status="ACTIVE", started_at=scope.now, origin="station",
                evse_no=1, ocpp_transaction_id="7", id_token_status="Blocked", review="orphan",
            )  # fmt: skip
            scope.db.add(session)
            for failure in ("given_up", "payment_intent_authentication_failure", "evse_unavailable"):
                scope.db.add(Payment(
                    id=uuid7(), source_type="test", source_id=uuid7(), provider="sandbox", account_ref="acct_1",
                    currency="EUR", failure=failure, checkout_ref=failure, state="canceled",
                ))  # fmt: skip
        origin = f"http://portal-nordlicht.localhost:{house.port}"
        narrow = {"viewport": {"width": 320, "height": 640}, "java_script_enabled": False}
        async with person_at(browser, origin, **narrow) as person:
            page = await person.open(f"/login/{token}")
            await page.locator("main form button").first.click()
            for path in ("/payments", "/charging-sessions"):
                page = await person.open(path)
                assert await page.locator("main .pill").count()
                assert await page.evaluate(CUT) == [], path
            page = await person.open(f"/charging-sessions/{public_id('charging_session', session.id)}")
            await page.evaluate("document.querySelector('kw-chart').hidden = false")  # two readings and more
            assert await page.evaluate("document.querySelector('kw-chart').offsetHeight") == 0
