"""What a card holds, and what a charge must come to, are amounts of the tenant's own currency; staff set the holds."""

import pytest
from sqlalchemy import text

from app.billing import payments, sandbox
from app.billing.card_currencies import CARD_CURRENCIES
from app.kernel.money import exponent
from tests.billing.conftest import GOOD, Shop, jobs, shop
from tests.surfaces.conftest import house
from tests.web import CLI, House, found_brand

__all__ = ["house", "jobs", "shop"]
pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("currency", "ac", "dc"),
    [("EUR", 30_00, 60_00), ("CZK", 750_00, 1_500_00), ("HUF", 12_000_00, 24_000_00), ("JPY", 5_000, 10_000)],
)
async def test_a_new_tenant_holds_a_usual_session_in_its_currency(
    shop: Shop, currency: str, ac: int, dc: int
) -> None:
    tenant_id = await found_brand(shop.database, "other", currency=currency)
    await payments.open_account(shop.database, tenant_id)
    async with shop.database.scope(tenant_id, CLI) as scope:
        account = await payments.find_account(scope)
        assert account is not None
        assert (account.currency, account.hold_ac_minor, account.hold_dc_minor) == (currency, ac, dc)


@pytest.mark.parametrize("currency", ["ISK", "KWD"])
async def test_no_card_is_taken_where_the_provider_counts_in_other_units(shop: Shop, currency: str) -> None:
    tenant_id = await found_brand(shop.database, "other", currency=currency)
    await payments.open_account(shop.database, tenant_id)
    async with shop.database.scope(tenant_id, CLI) as scope:
        assert await payments.find_account(scope) is None


def test_every_hold_is_worth_many_charges_of_the_least_and_the_units_are_the_providers() -> None:
    for currency, one in CARD_CURRENCIES.items():
        assert one.minimum_minor * 20 <= one.hold_ac_minor < one.hold_dc_minor, currency
        assert exponent(currency) == (0 if currency == "JPY" else 2)


@pytest.mark.parametrize(("owed", "taken"), [(14_99, 0), (15_00, 15_00)])
async def test_what_a_charge_must_come_to_is_counted_in_its_currency(
    shop: Shop, owed: int, taken: int
) -> None:
    tenant_id = await found_brand(shop.database, "other", currency="CZK")
    await payments.open_account(shop.database, tenant_id)
    async with shop.database.scope(tenant_id, CLI) as scope:
        payment, op = await payments.open_payment(
            scope, source_type="test", source_id=shop.source_id, hold_minor=750_00, currency="CZK", title="Charging",
            success_url="http://a.localhost/s", cancel_url="http://a.localhost/c", email="", language="en",
        )  # fmt: skip
    await payments.run_op(shop.database, tenant_id, op.id)
    async with shop.database.scope(tenant_id, CLI) as scope:
        payment = await payments.get_payment(scope, payment.id)
    await sandbox.pay_checkout(
        shop.database, payment.account_ref, payment.checkout_ref or "", GOOD, "d@a.example"
    )
    await payments.observe(shop.database, tenant_id, payment.id)
    async with shop.database.scope(tenant_id, CLI) as scope:
        await payments.capture(scope, "test", shop.source_id, owed)
    await shop.jobs.run()
    async with shop.database.scope(tenant_id, CLI) as scope:
        payment = await payments.get_payment(scope, payment.id)
        assert (payment.captured_minor, payment.failure) == (taken, "" if taken else "below_minimum")


async def test_staff_set_what_is_held(shop: Shop, house: House) -> None:
    owner = await house.staff("alpha", shop.tenant_id)
    page = (await owner.open("/settings/cards")).text
    assert 'value="30.00"' in page and 'value="60.00"' in page and "In EUR" in page
    assert 'href="/settings/cards"' in (await owner.get("/settings")).text
    saved = await owner.post("/settings/cards", {"hold_ac": "45.50", "hold_dc": "90"})
    assert saved.status_code == 303
    async with shop.scope() as scope:
        account = await payments.find_account(scope)
        assert account is not None and (account.hold_ac_minor, account.hold_dc_minor) == (4550, 9000)
        audited = text("select data from livery.audit_entry where action = 'payment_account.holds_changed'")
        assert [row.data["hold_ac_minor"] for row in await scope.db.execute(audited)] == [4550]


REFUSED = {
    "": "This must be an amount such as 30.00.", "thirty": "This must be an amount such as 30.00.",
    "30.005": "This must be an amount such as 30.00.", "0.49": "A card cannot be charged less than €0.50.",
    "-5": "A card cannot be charged less than €0.50.", "1000000": "A card cannot hold more than €999,999.99.",
}  # fmt: skip


async def test_a_hold_that_cannot_be_is_refused_at_its_field(shop: Shop, house: House) -> None:
    owner = await house.staff("alpha", shop.tenant_id)
    await owner.open("/settings/cards")
    for value, told in REFUSED.items():
        answer = await owner.post("/settings/cards", {"hold_ac": value, "hold_dc": "61.00"})
        assert answer.status_code == 422 and told in answer.text, value
        assert 'value="61.00"' in answer.text, "what was typed stays"
    async with shop.scope() as scope:
        account = await payments.find_account(scope)
        assert account is not None and (account.hold_ac_minor, account.hold_dc_minor) == (3000, 6000)


async def test_who_may_only_look_changes_no_hold(shop: Shop, house: House) -> None:
    async with shop.scope() as scope:
        await scope.db.execute(text("update livery.staff_member set role = 'viewer'"))
    viewer = await house.staff("alpha", shop.tenant_id)
    assert "Save" not in (await viewer.open("/settings/cards")).text
    assert (await viewer.post("/settings/cards", {"hold_ac": "1", "hold_dc": "1"})).status_code == 403
