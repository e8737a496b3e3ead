"""The platform's fee: dated, taken by what holds at the capture, never more than that, tried before it is planned."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, update

from app.billing import fees, payments
from app.billing.models import Payment, PlatformFee
from app.kernel.errors import Invalid
from app.kernel.settings import Settings
from tenants.database import Database
from tenants.models import PlatformAuditEntry
from tests.billing.conftest import Shop
from tests.web import CLI, House, open_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(settings: Settings, database: Database) -> AsyncIterator[House]:
    async with open_house(settings, database) as opened:
        yield opened


async def plan(shop: Shop, percent: str, fixed: str, day: date | str = "") -> PlatformFee:
    return await fees.plan_fee(
        shop.database, CLI, shop.tenant_id, percent=percent, fixed=fixed,
        valid_from=str(day or today()), reason="agreed",
    )  # fmt: skip


def today() -> date:
    """By the clock of the brand, which is Berlin's."""
    return datetime.now(ZoneInfo("Europe/Berlin")).date()


async def sell(shop: Shop, minor: int) -> Payment:
    payment = await shop.hold()
    await shop.pay(payment)
    await shop.look(payment)
    await shop.charge(minor)
    await shop.jobs.run()
    return await shop.read(payment.id)


async def test_a_fee_holds_from_its_day_on_and_what_was_taken_stays_as_it_was(shop: Shop) -> None:
    before = await sell(shop, 2000)
    assert before.fee_minor == 110  # 5 % and 10 cents, as the account was opened
    await plan(shop, "2.5", "0.30")
    await plan(shop, "9", "0.99", today() + timedelta(days=3))
    assert (await sell(shop, 2000)).fee_minor == 80
    assert (await shop.read(before.id)).fee_minor == 110


async def test_a_fee_is_never_more_than_the_capture(shop: Shop) -> None:
    await plan(shop, "50", "5.00")
    assert (await sell(shop, 100)).fee_minor == 100


async def test_the_newer_word_for_a_day_replaces_the_older(shop: Shop) -> None:
    day = today() + timedelta(days=3)
    await plan(shop, "3", "0", day)
    await plan(shop, "4", "0.05", day)
    async with shop.scope() as scope:
        found = await fees.list_fees(scope, await payments.get_own_account(scope))
    assert [(row.percent, row.fixed_minor) for row in found] == [(Decimal("4.000"), 5)]


@pytest.mark.parametrize(
    ("percent", "fixed", "day", "field"),
    [("51", "0", "", "percent"), ("-1", "0", "", "percent"), ("1.2345", "0", "", "percent"),
     ("NaN", "0", "", "percent"), ("x", "0", "", "percent"), ("1", "0.001", "", "fixed"), ("1", "-1", "", "fixed"),
     ("1", "9" * 30, "", "fixed"),
     ("1", "0", "2020-01-01", "valid_from"), ("1", "0", "soon", "valid_from")],
)  # fmt: skip
async def test_a_fee_that_cannot_be_is_refused_by_its_field(
    shop: Shop, percent: str, fixed: str, day: str, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await plan(shop, percent, fixed, day)
    assert [fault.field for fault in refused.value.faults] == [field]


async def test_a_preview_is_what_last_months_captures_would_have_paid(shop: Shop) -> None:
    amounts = [60, 1999, 2400]
    for minor in amounts:
        await sell(shop, minor)
    await sell(shop, 2999)  # this month
    last_month = (datetime.now(UTC).replace(day=1) - timedelta(days=10)).replace(hour=12)
    async with shop.scope() as scope:
        await scope.db.execute(
            update(Payment).where(Payment.captured_minor.in_(amounts)).values(created_at=last_month)
        )
        found = await fees.preview(scope, await payments.get_own_account(scope), Decimal("2.5"), 70)
    assert (found.count, found.captured_minor) == (3, sum(amounts))
    assert found.was_minor == sum(payments.half_up(Decimal(minor) * 5 / 100) + 10 for minor in amounts)
    # 60: no more than itself; 1999: 49.975 is 50.
    assert found.would_minor == 60 + (50 + 70) + (60 + 70)


async def test_the_console_tries_a_fee_and_plans_it_with_a_reason(shop: Shop, house: House) -> None:
    admin = await house.admin()
    shown = (await admin.open("/tenants/alpha/fees?percent=2.5&fixed=0.70")).text
    assert "Would have been" in shown and "5 % + €0.10" in shown
    form = {"percent": "2.5", "fixed": "0.70", "valid_from": str(today())}
    assert (await admin.post("/tenants/alpha/fees", form)).status_code == 422
    answer = await admin.post("/tenants/alpha/fees", form | {"reason": "their first year"})
    assert answer.status_code == 303
    assert "2.5 % + €0.70" in (await admin.get("/tenants/alpha/fees")).text
    async with house.database.platform_scope(CLI, "test") as scope:
        query = select(PlatformAuditEntry.data).where(PlatformAuditEntry.action == "fee.planned")
        (told,) = (await scope.db.execute(query)).scalars()
    assert (told["percent"], told["fixed_minor"]) == ("2.5", 70)
    assert (await admin.get("/tenants/nobody/fees")).status_code == 404
