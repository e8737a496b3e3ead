"""A site host's share goes on to them by itself, comes back in proportion, and is never paid twice."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from app.billing import host_shares, payments, platform_book, reconciliation, sandbox
from app.billing.fees import plan_fee
from app.billing.models import PaymentOp
from app.billing.provider import Rejected
from app.charging import host_accounts, settlement, site_hosts
from app.charging.models import HostStatement, SiteHost
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from tests.billing.conftest import Shop, jobs, shop
from tests.billing.invariants import inter_book_faults, money_faults
from tests.billing.test_platform_book import found_platform
from tests.charging.test_cap import Visit, begin
from tests.charging.test_site_hosts import HOST, agree, month_later, write
from tests.surfaces.conftest import house
from tests.web import CLI, House

__all__ = ["house", "jobs", "shop"]
pytestmark = pytest.mark.anyio
WITH_MAIL = HOST | {"email": "kasse@marktkauf.example"}
SHARE, FEE = 124, 40  # of 6.00: 1.05 net with 19 % VAT, rounded down; 5 % and 0.10
DAYS = 86_400


@pytest.fixture
async def visit(shop: Shop) -> AsyncIterator[Visit]:
    """A guest charges where the host's account is ready."""
    shop.database.settings = shop.database.settings.model_copy(update={"host_transfers": True})
    found = await begin(shop)
    await agree(found, WITH_MAIL)
    await host_accounts.begin(
        shop.database, shop.tenant_id, CLI, await host_id(shop), page_url="http://p.localhost/h"
    )
    yield found


async def host_id(shop: Shop) -> Any:
    async with shop.scope() as scope:
        return (await scope.db.execute(select(SiteHost.id))).scalar_one()


async def days_later(shop: Shop, days: int) -> None:
    """The platform has its fees; the janitor comes by."""
    await sandbox.set_clock(shop.database, days * DAYS)
    await tidy(shop)


async def tidy(shop: Shop) -> None:
    async with shop.scope() as scope:
        old = scope.now - timedelta(hours=2)
        await scope.db.execute(update(PaymentOp).where(PaymentOp.state == "planned").values(updated_at=old))
    await payments.tidy(shop.database, shop.tenant_id)
    await shop.jobs.run()


async def restrict(shop: Shop) -> None:
    """The provider lets the host receive nothing any more."""
    where = "{configuration,recipient,capabilities,stripe_balance,stripe_transfers,status}"
    query = text("update sandbox.account set body = jsonb_set(body, cast(:where as text[]), '\"restricted\"')"
                 " where body->'configuration' ? 'recipient'")  # fmt: skip
    async with shop.database.sandbox() as db:
        await db.execute(query, {"where": where})


async def calls(visit: Visit) -> list[tuple[str, str, int]]:
    payment = await visit.payment()
    async with visit.shop.scope() as scope:
        query = select(PaymentOp).where(
            PaymentOp.payment_id == payment.id, PaymentOp.kind.in_(payments.HOST_OPS)
        )
        rows = (await scope.db.execute(query.order_by(PaymentOp.id))).scalars()
        return [(op.kind, op.state, op.request["amount_minor"]) for op in rows]


async def books(shop: Shop) -> dict[str, int]:
    wanted = ("site_host_expense", "site_host_payable", "host_share_held", "platform_fee_expense")
    return {code: minor for code, minor in (await shop.balances()).items() if code in wanted}


async def check(visit: Visit, platform_id: Any = None) -> None:
    """Every invariant, and no difference to the provider's own lines."""
    shop = visit.shop
    async with shop.scope() as scope:
        now = scope.now + timedelta(minutes=1)
    assert await money_faults(shop.database, shop.tenant_id, now=now) == []
    await reconciliation.reconcile(shop.database, shop.tenant_id, settles_within=timedelta(seconds=-5))
    async with shop.scope() as scope:
        standing = [(one.category, one.key) for one in await reconciliation.list_items(scope)]
    assert standing == []
    if platform_id is not None:
        await platform_book.keep(shop.database, shop.tenant_id)
        assert await inter_book_faults(shop.database, [shop.tenant_id], platform_id) == []


async def test_a_share_is_taken_with_the_fee_passed_on_and_comes_back_with_the_payers_money(
    visit: Visit,
) -> None:
    shop, platform_id = visit.shop, await found_platform(visit.shop)
    await visit.end(60, 10)
    assert shop.jobs.failures == []
    payment = await visit.payment()
    assert (payment.captured_minor, payment.fee_minor, payment.host_minor) == (600, SHARE + FEE, SHARE)
    assert await calls(visit) == [("host_transfer", "planned", SHARE)]  # until the platform has the money
    assert await books(shop) == {"platform_fee_expense": FEE, "host_share_held": SHARE}
    await check(visit, platform_id)
    await days_later(shop, 3)
    assert await calls(visit) == [("host_transfer", "succeeded", SHARE)]
    assert await books(shop) == {"platform_fee_expense": FEE, "site_host_payable": SHARE}
    await check(visit, platform_id)

    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "Cable was stuck.", amount_minor=200)
    await shop.jobs.run()
    back = 41  # a third of 1.24
    assert (await calls(visit))[1:] == [
        ("host_reversal", "succeeded", back),
        ("fee_refund", "succeeded", back),
    ]
    assert await books(shop) == {"platform_fee_expense": FEE, "site_host_payable": SHARE - back}
    await check(visit, platform_id)

    (row,) = await write(visit, 1)
    assert row.transferred_minor == SHARE - back
    shown = [(name, amount) for name, amount, _ in row.content["totals"]]
    assert ("Passed on already", "€0.83") in shown and shown[-1][0] == "Left to pay"
    async with shop.scope() as scope:
        await site_hosts.mark_paid(scope, row.id, str(scope.now.date()))
    assert "site_host_payable" not in await books(shop)
    assert (await shop.balances())["bank"] == -row.left_minor == SHARE - back - row.gross_minor

    later = month_later(1)  # after the month was paid: the next one claims it
    async with shop.database.scope(shop.tenant_id, CLI, now=later) as scope:
        await settlement.refund(scope, payment.id, "More of it.", amount_minor=390)
    await shop.jobs.run()
    made = [
        amount
        for kind, state, amount in await calls(visit)
        if (kind, state) == ("host_reversal", "succeeded")
    ]
    assert made == [back, 81] and sum(made) == round(SHARE * 590 / 600)
    await check(visit, platform_id)
    _first, second = await write(visit, 2)
    assert second.gross_minor < 0 and second.left_minor == second.gross_minor + 81
    kinds = [path for _method, path, account in shop.wire.calls if not account and path.startswith("/v1/")]
    assert {path.split("/")[2] for path in kinds} == {"transfers", "application_fees"}


async def test_an_empty_account_of_the_host_is_a_claim_that_the_next_statement_counts(visit: Visit) -> None:
    shop = visit.shop
    await visit.end(60, 10)
    await days_later(shop, 3)
    payment = await visit.payment()
    await sandbox.set_faults(
        shop.database, [{"path": "/reversals$", "fault": "balance_insufficient", "times": 1}]
    )
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "Cable was stuck.")
    await shop.jobs.run()
    assert (await calls(visit))[1:] == [("host_reversal", "failed", SHARE)]
    assert await books(shop) == {"platform_fee_expense": FEE, "site_host_payable": SHARE}
    await check(visit)
    assert await write(visit, 1) == []  # the month came to nothing
    party = public_id("site_host", await host_id(shop))
    async with shop.scope() as scope:
        ((_payment, _op, is_stuck), *_made) = await host_shares.list_moves(scope, party)
        assert is_stuck
        with pytest.raises(Refused, match="No transfer"):
            await host_shares.give_up(scope, party, payment.id)
        with pytest.raises(Refused, match="was refused"):
            await host_shares.retry(scope, "hst_another", payment.id)
        await host_shares.retry(scope, party, payment.id)
    await shop.jobs.run()
    assert (await calls(visit))[2:] == [
        ("host_reversal", "succeeded", SHARE),
        ("fee_refund", "succeeded", SHARE),
    ]
    assert await books(shop) == {"platform_fee_expense": FEE}
    await check(visit)


@pytest.mark.parametrize("fault", ["after", "500"])
async def test_an_answer_that_nobody_heard_is_looked_for_and_the_share_goes_once(
    visit: Visit, fault: str
) -> None:
    shop = visit.shop
    plan = [
        {"path": "/v1/transfers$", "fault": fault, "times": 1}, {"path": "/reversals$", "fault": fault, "times": 1},
        {"path": "/v1/application_fees/[^/]+/refunds$", "fault": fault, "times": 1},
    ]  # fmt: skip
    await visit.end(60, 10)
    await sandbox.set_clock(shop.database, 3 * DAYS)
    await sandbox.set_faults(shop.database, plan)
    await tidy(shop)
    payment = await visit.payment()
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "Cable was stuck.", amount_minor=300)
    await shop.jobs.run()
    assert [(kind, state) for kind, state, _amount in await calls(visit)] == [
        ("host_transfer", "succeeded"), ("host_reversal", "succeeded"), ("fee_refund", "succeeded"),
    ]  # fmt: skip
    assert len(shop.jobs.failures) >= 3
    await check(visit)


async def test_what_cannot_be_passed_on_is_given_up_and_paid_by_the_operator(
    visit: Visit, house: House
) -> None:
    shop = visit.shop
    await visit.end(60, 10)
    await restrict(shop)
    await days_later(shop, 3)
    assert await calls(visit) == [("host_transfer", "failed", SHARE)]
    assert await books(shop) == {"platform_fee_expense": FEE, "host_share_held": SHARE}
    payment, host = await visit.payment(), public_id("site_host", await host_id(shop))
    staff = await house.staff("alpha", shop.tenant_id)
    shown = (await staff.open(f"/site-hosts/{host}")).text
    assert "Refused" in shown and "Give up" in shown
    assert "A share waits for you" in (await staff.open("/site-hosts")).text
    deed = f"/site-hosts/{host}/shares/{public_id('payment', payment.id)}"
    assert (await staff.post(deed, {"deed": "give_up"})).status_code == 303
    await shop.jobs.run()
    assert (await calls(visit))[1:] == [("fee_refund", "succeeded", SHARE)]
    assert await books(shop) == {"platform_fee_expense": FEE}
    await staff.post(deed, {"deed": "retry"})
    shown = (await staff.open(f"/site-hosts/{host}")).text
    assert "Nothing of this share waits" in shown and "Give up" not in shown
    assert "A share waits for you" not in (await staff.open("/site-hosts")).text
    await check(visit)
    (row,) = await write(visit, 1)
    assert (row.transferred_minor, row.left_minor) == (0, row.gross_minor)
    # From now on shares stay: the hour's look says that the account is not ready.
    await host_accounts.observe_all(shop.database, shop.tenant_id)
    async with shop.scope() as scope:
        cdr = await settlement.find_cdr(scope, visit.session_id)
        assert cdr is not None and await host_accounts.share_of(scope, cdr) is None


async def test_staff_open_the_hosts_account_and_nothing_is_passed_on_before_the_provider_says_so(
    shop: Shop, house: House
) -> None:
    await sandbox.set_accounts(shop.database, ask=True)
    visit = await begin(shop)
    await agree(visit, HOST)
    host = public_id("site_host", await host_id(shop))
    path, staff = f"/site-hosts/{host}", await house.staff("alpha", shop.tenant_id)
    assert "payment provider" not in (await staff.open(path)).text
    await staff.post(f"{path}/account", {})
    assert "does not pass shares on" in (await staff.open(path)).text
    for database in (shop.database, house.database):
        database.settings = database.settings.model_copy(update={"host_transfers": True})
    await staff.post(f"{path}/account", {})
    assert "give their e-mail address first" in (await staff.open(path)).text
    await staff.post(path, WITH_MAIL)
    made = await staff.post(f"{path}/account", {})
    link = made.headers["location"].rpartition("/")[2]
    shown = (await staff.open(path)).text
    assert "Not ready" in shown and "Go on at the provider" in shown
    await sandbox.onboard(shop.database, link)
    assert (await staff.get(f"{path}/account/returned")).status_code == 303
    assert "Ready" in (await staff.open(path)).text
    await visit.end(60, 10)
    assert (await visit.payment()).host_minor == SHARE
    async with shop.scope() as scope:
        rows = (await scope.db.execute(select(HostStatement))).scalars().all()
    assert rows == []


async def test_what_a_statement_counted_and_came_back_has_a_statement_of_its_own(visit: Visit) -> None:
    shop = visit.shop
    await visit.end(60, 10)
    (row,) = await write(visit, 1)  # the share is on its way
    assert (row.transferred_minor, row.left_minor) == (SHARE, row.gross_minor - SHARE)
    await restrict(shop)
    await days_later(shop, 3)
    payment, party = await visit.payment(), public_id("site_host", await host_id(shop))
    async with shop.scope() as scope:
        await host_shares.give_up(scope, party, payment.id)
    await shop.jobs.run()
    await write(visit, 2)
    first, second = await write(visit, 2)
    assert (second.gross_minor, second.transferred_minor, second.left_minor) == (0, -SHARE, SHARE)
    async with shop.scope() as scope:
        for one in (first, second):
            await site_hosts.mark_paid(scope, one.id, str(scope.now.date()))
    assert "site_host_payable" not in await books(shop)
    assert (await shop.balances())["bank"] == -first.gross_minor
    assert len(await write(visit, 3)) == 2
    await check(visit)


async def test_who_may_not_look_asks_for_nothing_twice(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer was made and nobody heard; then the key is refused: that says nothing about the transfer."""
    shop = visit.shop
    await visit.end(60, 10)
    await sandbox.set_clock(shop.database, 3 * DAYS)
    await sandbox.set_faults(shop.database, [{"path": "/v1/transfers$", "fault": "after", "times": 1}])
    provider = payments.provider_of(shop.database.settings)

    async def refuse(_group: str) -> Any:
        raise Rejected("refused", "Expired API Key provided.")

    with monkeypatch.context() as key:
        key.setattr(provider, "list_transfers", refuse)
        await tidy(shop)
    assert await calls(visit) == [("host_transfer", "unknown", SHARE)]
    await shop.jobs.run()
    assert await calls(visit) == [("host_transfer", "succeeded", SHARE)]
    await check(visit)


async def test_what_staff_paid_back_by_other_means_comes_back_from_the_host_too(visit: Visit) -> None:
    shop = visit.shop
    await visit.end(60, 10)
    await days_later(shop, 3)
    payment = await visit.payment()
    plan = [{"path": "/v1/refunds$", "fault": "balance_insufficient", "times": 1}]
    await sandbox.set_faults(shop.database, plan)
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "Cable was stuck.")
    await shop.jobs.run()
    assert len(await calls(visit)) == 1  # the payer has nothing yet
    async with shop.scope() as scope:
        await payments.record_repayment(scope, payment.id, "SEPA 1")
    await shop.jobs.run()
    assert (await calls(visit))[1:] == [
        ("host_reversal", "succeeded", SHARE),
        ("fee_refund", "succeeded", SHARE),
    ]


async def test_the_platforms_fee_goes_back_beside_the_share_where_its_plan_says_so(visit: Visit) -> None:
    shop = visit.shop
    await plan_fee(
        shop.database, CLI, shop.tenant_id, percent="5", fixed="0.10", valid_from=str(date.today()), reason="test",
        is_returned=True,
    )  # fmt: skip
    await visit.end(60, 10)
    await days_later(shop, 3)
    payment = await visit.payment()
    async with shop.scope() as scope:
        await settlement.refund(scope, payment.id, "Half of it.", amount_minor=300)
    await shop.jobs.run()
    assert (await calls(visit))[1:] == [
        ("host_reversal", "succeeded", SHARE // 2), ("fee_refund", "succeeded", SHARE // 2 + FEE // 2),
    ]  # fmt: skip
    assert await books(shop) == {"platform_fee_expense": FEE // 2, "site_host_payable": SHARE // 2}
    await check(visit)
