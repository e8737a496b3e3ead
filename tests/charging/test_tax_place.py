"""What a page, a sticker and an example say of VAT is what the bill takes: that of the site's country, and at a charger
without a site that of the brand's own."""

from datetime import timedelta
from decimal import Decimal
from html import unescape

import pytest

from app.charging import portal, settlement, snapshot
from app.charging.models import ChargingSession
from app.kernel.clock import uuid7
from app.kernel.money import to_decimal
from app.stations import service as stations
from app.tariffs import service as tariffs
from tests.cast import PLATES
from tests.surfaces.conftest import house
from tests.web import CLI, House, found_brand

__all__ = ["house"]
pytestmark = pytest.mark.anyio
TARIFF = {
    "currency": "EUR",
    "elements": [{"price_components": [{"type": "ENERGY", "price": "0.50", "step_size": 1}]}],
}


@pytest.mark.parametrize(
    ("country", "code", "rate", "gross"),
    [("DEU", "DE", "19", "0.595"), ("NLD", "NL", "21", "0.605"), ("HUN", "HU", "27", "0.635"),
     ("CHE", "CH", "8.1", "0.5405"), (None, "DE", "19", "0.595")],
)  # fmt: skip
async def test_page_sticker_example_and_bill_have_one_vat(
    house: House, country: str | None, code: str, rate: str, gross: str
) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        site = None
        if country:
            site = await stations.create_location(
                scope, name="Site", address="A", city="B", postal_code="1", country=country,
                time_zone="Europe/Berlin",
            )  # fmt: skip
        made = await stations.create_station(
            scope, identity="CP1", location_id=site.id if site else None,
            evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
        )  # fmt: skip
        await tariffs.create_tariff(scope, TARIFF, {"default": True})
        [evse] = (await stations.get_station(scope, made.station.id)).evses
    page = unescape((await house.driver("nordlicht").get(f"/c/{evse.code}")).text)
    assert f"€{gross} per kWh including {rate} % VAT" in page

    async with house.database.scope(tenant_id, CLI) as scope:
        evse = await stations.find_place(scope, evse.code)
        assert await portal._short_prices(scope, evse, "en") == [f"€{gross}/kWh incl. VAT"]  # pyright: ignore[reportPrivateUsage]
        session = ChargingSession(
            id=uuid7(), station_id=made.station.id, evse_id=evse.id, evse_no=1, status="COMPLETED", origin="guest",
            id_token_masked="", started_at=scope.now - timedelta(hours=1), ended_at=scope.now, energy_wh=20_000,
            meter_start_wh=0,
        )  # fmt: skip
        scope.db.add(session)
        await scope.db.flush()
        await snapshot.freeze(scope, session)
        bill = await settlement.price_at(scope, session, scope.now, 20_000)
        assert bill is not None
        assert bill.total_cost.incl_minor == int(Decimal(gross) * 20 * 100)
        assert f"€{to_decimal(bill.total_cost.incl_minor, 'EUR')}" in page, "the example"
        assert {str(line.vat_rate) for line in bill.lines} == {rate}
        cdr = await settlement.settle(scope, session.id)
        assert cdr is not None
        [line] = settlement.lines_of(cdr)
        assert (line.vat_code, line.gross_minor) == (f"{code}{rate}", bill.total_cost.incl_minor)
