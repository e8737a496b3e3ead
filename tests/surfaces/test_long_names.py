"""A name as long as it may be, without a blank, makes no page wider than a narrow phone."""

from typing import Any

import pytest
from playwright.async_api import Browser
from sqlalchemy import select

from app.access import service as access
from app.billing.models import Payment
from app.brands import service as brands
from app.charging.models import ChargingSession
from app.identity import service as identity
from app.kernel.clock import uuid7
from app.kernel.ids import public_id
from app.kernel.names import MAX_NAME
from app.kernel.settings import Settings
from app.stations import service as stations
from app.stations.models import EVSE
from app.tariffs import service as tariffs
from tenants.database import Database
from tests.journeys.people import Person, person_at
from tests.web import CLI, OWNER, House, found_brand, open_house

pytestmark = [pytest.mark.anyio, pytest.mark.browser]
LONG = "Ä" * MAX_NAME
MAIL = "a" * 64 + "@" + "b" * 63 + ".example.org"
TARIFF = {
    "id": "T1", "currency": "EUR", "name": LONG,
    "elements": [{"price_components": [{"type": "ENERGY", "price": 0.25, "vat": 10.0, "step_size": 1}]}],
}  # fmt: skip


async def furnish(house: House, tenant_id: Any) -> tuple[list[str], list[str]]:
    """(portal's pages, driver's pages) where such names stand."""
    async with house.database.scope(tenant_id, CLI) as scope:
        await brands.update_profile(scope, {"name": LONG, "legal_name": LONG, "address": LONG})
        await identity.invite_staff(scope, email=MAIL, name=LONG, role="operator")
        await identity.create_api_key(scope, LONG, ["settings.view"])
        site = await stations.create_location(
            scope, name=LONG, address=LONG, city=LONG, country="DEU", time_zone="Europe/Berlin"
        )
        made = await stations.create_station(
            scope, identity="C" * 48, name=LONG, location_id=site.id,
            evses=[{"evse_no": 1, "connectors": [{"connector_no": 1}]}],
        )  # fmt: skip
        group = await access.create_driver_group(scope, name=LONG)
        driver = await access.create_driver(scope, name=LONG, email=MAIL, driver_group_id=group.id)
        card = await access.create_id_token(scope, value="F" * 200, label=LONG, driver_id=driver.id)
        tariff = await tariffs.create_tariff(scope, TARIFF, {"default": True})
        code = (await scope.db.execute(select(EVSE.code))).scalar_one()
        session = ChargingSession(
            id=uuid7(), station_id=made.station.id, driver_id=driver.id, id_token_id=card.id, status="ACTIVE",
            started_at=scope.now, origin="local", ocpp_transaction_id="t" * 36, evse_no=1, connector_no=1,
            id_token_masked="•" * 196 + "FFFF",
        )  # fmt: skip
        scope.db.add(session)
        payment = Payment(
            id=uuid7(), source_type="charging_session", source_id=session.id, provider="sandbox", account_ref="acct_1",
            currency="EUR", payer_email=MAIL, failure="x" * 60, checkout_ref="cs_" + "x" * 60,
        )  # fmt: skip
        scope.db.add(payment)
    station = f"/stations/{public_id('charging_station', made.station.id)}"
    return [
        "/", "/drivers", f"/drivers/{public_id('driver', driver.id)}", "/driver-groups",
        f"/driver-groups/{public_id('driver_group', group.id)}", "/id-tokens",
        f"/id-tokens/{public_id('id_token', card.id)}", "/local-lists", "/stations", station, f"{station}/settings",
        "/locations", f"/locations/{public_id('location', site.id)}", "/charging-sessions",
        f"/charging-sessions/{public_id('charging_session', session.id)}", "/payments",
        f"/payments/{public_id('payment', payment.id)}", "/tariffs", f"/tariffs/{public_id('tariff', tariff.id)}",
        "/team", "/api-keys", "/settings", "/stickers",
    ], ["/", "/?free=1", f"/c/{code}", "/login"]  # fmt: skip


async def wide(person: Person, paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        page = await person.open(path)
        extra = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if extra > 0:
            who = await page.evaluate(
                "[...document.querySelectorAll('main *, header *, footer *')].filter(one => !one.children.length"
                " && one.getBoundingClientRect().right > innerWidth + 1).slice(0, 4).map(one => one.tagName + '.'"
                " + one.className + ' in ' + one.parentElement.tagName + '.' + one.parentElement.className)"
            )
            found.append(f"{path}: {extra} px, {who}")
    return found


async def test_the_longest_names_fit_the_narrowest_phone(
    browser: Browser, settings: Settings, database: Database
) -> None:
    narrow = {"viewport": {"width": 320, "height": 640}}
    async with open_house(settings, database) as house:
        tenant_id = await found_brand(house.database)
        portal, driver = await furnish(house, tenant_id)
        async with house.database.scope(tenant_id, CLI) as scope:
            member = await identity.find_staff_member(scope, OWNER)
            assert member is not None
            _link, token = await identity.make_login_link(scope, member.id)
        async with person_at(browser, f"http://portal-nordlicht.localhost:{house.port}", **narrow) as person:
            page = await person.open(f"/login/{token}")
            await page.locator("main form button").first.click()
            faults = await wide(person, portal)
            await page.set_viewport_size({"width": 1280, "height": 800})
            faults += [f"wide screen {fault}" for fault in await wide(person, portal)]
        async with person_at(browser, f"http://nordlicht.localhost:{house.port}", **narrow) as person:
            faults += await wide(person, driver)
    assert not faults, "\n".join(faults)
