"""Past sessions under a changed tariff: by the engine that bills, and nothing of what was billed changes."""

from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import select

from app.charging import rerating, settlement
from app.charging.models import CDR, ChargingSession
from app.kernel.ids import public_id
from app.tariffs import service as tariffs
from app.tariffs.models import Tariff
from tests.billing.conftest import jobs, shop
from tests.charging.test_cap import Visit, visit
from tests.surfaces.conftest import house
from tests.web import House

__all__ = ["house", "jobs", "shop", "visit"]
pytestmark = pytest.mark.anyio


async def change(visit: Visit, price: str, **more: object) -> UUID:
    """The tariff's next version."""
    component = {"type": "ENERGY", "price": price, "vat": "20", "step_size": 1}
    element = {"price_components": [component], **more}
    async with visit.shop.scope() as scope:
        tariff = (await scope.db.execute(select(Tariff))).scalar_one()
        await tariffs.replace_tariff(scope, tariff.id, {"currency": "EUR", "elements": [element]})
    return tariff.id


async def test_a_session_costs_under_the_new_version_what_the_engine_says_and_stays_as_billed(
    visit: Visit,
) -> None:
    await visit.end(60, 10)  # 10 kWh at 0.50, with VAT 6.00
    tariff_id = await change(visit, "0.60")
    async with visit.shop.scope() as scope:
        (row,) = await rerating.rerate(scope, tariff_id)
        assert (row.version_no, row.was_minor, row.would_minor, row.delta_minor) == (1, 600, 720, 120)
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        assert (cdr.incl_vat_minor, cdr.price["total_cost"]["incl_vat"]) == (600, "6.00")
        session = (await scope.db.execute(select(ChargingSession))).scalar_one()
        price = await settlement.price_at(scope, session, cdr.ended_at, cdr.energy_wh)
        assert price is not None and price.total_cost.incl_minor == 600


async def test_the_same_version_makes_no_difference_and_restrictions_are_weighed_by_the_readings(
    visit: Visit,
) -> None:
    await visit.read(30, 4)
    await visit.end(60, 10)
    async with visit.shop.scope() as scope:
        tariff_id = (await scope.db.execute(select(Tariff.id))).scalar_one()
        (row,) = await rerating.rerate(scope, tariff_id)
        assert row.delta_minor == 0
    # Only the kilowatt hours up to the fourth cost anything.
    await change(visit, "1.00", restrictions={"max_kwh": 4.0})
    async with visit.shop.scope() as scope:
        (row,) = await rerating.rerate(scope, tariff_id)
        assert row.would_minor == Decimal(4) * 120


async def test_what_was_corrected_is_priced_as_it_was_corrected(visit: Visit) -> None:
    await visit.end(60, 10)
    async with visit.shop.scope() as scope:
        cdr = (await scope.db.execute(select(CDR))).scalar_one()
        await settlement.credit(scope, cdr.id, "the meter was wrong", energy_wh=6_000)
    tariff_id = await change(visit, "0.60")
    async with visit.shop.scope() as scope:
        (row,) = await rerating.rerate(scope, tariff_id)
    assert (row.was_minor, row.would_minor) == (360, 432)


async def test_staff_see_the_sum_and_each_session(visit: Visit, house: House) -> None:
    await visit.end(60, 10)
    tariff_id = public_id("tariff", await change(visit, "0.60"))
    owner = await house.staff("alpha", visit.shop.tenant_id)
    page = (await owner.get(f"/tariffs/{tariff_id}/re-rating")).text
    assert "€6.00" in page and "€7.20" in page and "+20.0 %" in page
    assert f'href="/tariffs/{tariff_id}/re-rating"' in (await owner.get(f"/tariffs/{tariff_id}")).text
