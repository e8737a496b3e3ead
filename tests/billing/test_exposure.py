"""The console's exposure page: what each tenant's own job told, and what of it is a trouble."""

import pytest
from sqlalchemy import update

from app.billing.models import PaymentAccount, PaymentOp
from app.kernel.settings import Settings
from app.reporting.jobs import tenant_stats
from tests.billing.conftest import Shop
from tests.billing.test_fees import sell
from tests.web import open_house

pytestmark = pytest.mark.anyio


async def test_staff_see_what_could_be_lost_and_what_needs_them(shop: Shop, settings: Settings) -> None:
    async with open_house(settings, shop.database) as house:
        admin = await house.admin()
        payment = await sell(shop, 2400)
        held = await shop.hold(3100)
        await shop.pay(held)
        await shop.look(held)
        await tenant_stats(shop.database, shop.tenant_id)
        page = (await admin.get("/exposure")).text
        fees = payment.fee_minor + payment.provider_fee_minor
        assert f"€{(2400 - fees) / 100:.2f}" in page and "€31.00" in page
        assert "All is well" in page and ">The provider<" in page
        async with shop.scope() as scope:
            await scope.db.execute(update(PaymentAccount).values(is_ready=False))
            await scope.db.execute(
                update(PaymentOp).where(PaymentOp.kind == "capture").values(state="failed")
            )
        await tenant_stats(shop.database, shop.tenant_id)
        page = (await admin.get("/exposure")).text
        assert "takes no cards" in page and "1 call refused in the last 24 hours" in page
        assert "All is well" not in page
