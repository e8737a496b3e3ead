"""The provider's books beside ours: what agrees is moved on to the bank, what does not is found and stays found."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app.billing import ledger, payments, reconciliation, sandbox
from app.billing.ledger import Posting
from app.billing.models import Payment, PaymentAccount, ReconRun
from app.billing.reconciliation import Line, compare
from app.kernel.clock import uuid7
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from app.reporting.jobs import tenant_stats
from tests.billing.conftest import GOOD, Shop
from tests.conftest import Proof
from tests.surfaces.conftest import house
from tests.web import House

__all__ = ["house"]
pytestmark = pytest.mark.anyio
DAY = 86_400
DISPUTES = "4000000000000259"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


async def sell(shop: Shop, minor: int = 2400, card: str = GOOD) -> Payment:
    payment = await shop.hold()
    await shop.pay(payment, card)
    await shop.look(payment)
    await shop.charge(minor)
    await shop.jobs.run()
    return await shop.read(payment.id)


async def run(shop: Shop) -> ReconRun:
    """Without waiting for stragglers."""
    made = await reconciliation.reconcile(shop.database, shop.tenant_id, settles_within=timedelta(seconds=-5))
    assert made is not None
    return made


async def standing(shop: Shop) -> dict[str, int]:
    async with shop.scope() as scope:
        items = await reconciliation.list_items(scope)
        return {item.category: item.delta_minor for item in items if item.resolved_at is None}


async def edit(shop: Shop, sql: str, **values: Any) -> None:
    """A hand in the provider's own books."""
    async with shop.database.sandbox() as db:
        await db.execute(text(sql), values)


async def test_what_differed_at_an_account_that_was_left_makes_nothing_red(shop: Shop) -> None:
    """From the sandbox to a key of one's own: the old account is never compared again."""
    await sell(shop)
    await edit(shop, "delete from sandbox.object where kind = 'balance_transaction'")
    assert not (await run(shop)).is_green
    made = await payments.provider_of(shop.database.settings).open_account(
        name="Alpha", email="a@example.org", country="DE", currency="EUR", key="another"
    )

    async def books() -> tuple[str, bool, int, Any]:
        await tenant_stats(shop.database, shop.tenant_id)
        row = shop.jobs.connection.execute("select figures->>'books' from platform.tenant_stats").fetchone()
        async with shop.scope() as scope:
            items, runs = await reconciliation.list_items(scope), await reconciliation.list_runs(scope)
            return await reconciliation.find_light(scope), len(items) > 0, len(runs), row and row[0]

    assert await books() == ("red", True, 1, "red")
    async with shop.scope() as scope:
        old = await payments.get_own_account(scope)
        old.provider = "stripe"
        scope.db.add(
            PaymentAccount(
                id=uuid7(), provider="sandbox", account_ref=made.ref, is_ready=True, currency="EUR"
            )
        )
    assert await books() == ("", False, 0, "")
    assert (await run(shop)).is_green
    assert await books() == ("green", False, 1, "green")


# -- what agrees -----------------------------------------------------------------------------------------------------


async def test_a_day_of_payments_and_refunds_agrees_and_moves_to_the_bank_to_the_cent(shop: Shop) -> None:
    first, second = await sell(shop, 2400), await sell(shop, 1000)
    async with shop.scope() as scope:
        await payments.refund(scope, second.id, "gone wrong", amount_minor=300)
    await shop.jobs.run()
    made = await run(shop)
    assert (made.is_green, made.figures["matched"]) == (True, 3)
    kept = sum(one.fee_minor + one.provider_fee_minor for one in (first, second))
    books = await shop.balances()
    # Money that goes out is gone at once; what came in is pending for two days.
    assert (books["psp_pending"], books["psp_available"]) == (3400 - kept, -300)
    await sandbox.set_clock(shop.database, 4 * DAY)
    made = await run(shop)
    assert made.is_green
    books = await shop.balances()
    assert books["bank"] == 3400 - 300 - kept
    assert not books.keys() & {"psp_pending", "psp_available", "bank_in_transit"}
    assert (
        made.figures["currencies"]["EUR"] | {"opening_minor": 0, "provider_minor": 0, "books_minor": 0}
        == (made.figures["currencies"]["EUR"])
    )


async def test_a_second_run_and_two_at_once_change_nothing(shop: Shop) -> None:
    await sell(shop)
    await sandbox.set_clock(shop.database, 4 * DAY)
    await run(shop)
    before = await shop.balances()
    async with anyio.create_task_group() as group:
        group.start_soon(run, shop)
        group.start_soon(run, shop)
    assert await shop.balances() == before
    assert await standing(shop) == {}


async def test_a_payout_that_the_bank_sends_back_is_available_again(shop: Shop) -> None:
    payment = await sell(shop)
    net = payment.captured_minor - payment.fee_minor - payment.provider_fee_minor
    await sandbox.set_bank(shop.database, refuses=True)
    await sandbox.set_clock(shop.database, 4 * DAY)
    made = await run(shop)
    books = await shop.balances()
    assert made.is_green and books["psp_available"] == net and "bank" not in books


async def test_money_given_back_in_the_providers_dashboard_agrees_once_it_was_seen(shop: Shop) -> None:
    payment = await sell(shop)
    await payments.provider_of(shop.database.settings).refund(
        payment.account_ref, payment.provider_ref or "", amount_minor=400, reason="by hand", key="hand"
    )
    await run(shop)
    assert await standing(shop) == {"missing_in_ledger": -400}
    await shop.look(payment)
    assert (await run(shop)).is_green


@pytest.mark.parametrize("outcome", ["won", "lost"])
async def test_a_dispute_agrees_while_it_is_open_and_however_it_ends(shop: Shop, outcome: str) -> None:
    payment = await sell(shop, 2400, DISPUTES)
    await shop.look(payment)
    assert (await run(shop)).is_green
    async with shop.database.sandbox() as db:
        query = text("select id from sandbox.object where kind = 'dispute'")
        ref = (await db.execute(query)).scalar_one()
    await sandbox.decide_dispute(shop.database, payment.account_ref, ref, outcome)
    await shop.look(payment)
    assert (await run(shop)).is_green
    await sandbox.set_clock(shop.database, 4 * DAY)
    assert (await run(shop)).is_green
    kept = payment.fee_minor + payment.provider_fee_minor + sandbox.DISPUTE_FEE
    books = await shop.balances()
    at = {name: books.get(name, 0) for name in ("psp_pending", "psp_available", "bank_in_transit", "bank")}
    assert sum(at.values()) == (2400 if outcome == "won" else 0) - kept


async def test_what_the_provider_bills_the_account_itself_is_an_expense(shop: Shop) -> None:
    payment = await sell(shop)
    before = (await shop.balances())["stripe_fee_expense"]
    await _add(shop, payment, "stripe_fee", "fee", -200)
    made = await run(shop)
    assert made.is_green
    assert (await shop.balances())["stripe_fee_expense"] == before + 200


async def test_an_account_that_had_money_before_us_opens_with_it(shop: Shop) -> None:
    payment = await sell(shop)
    txn = await _add(shop, payment, "topup", "topup", 5000)
    await edit(shop, "update sandbox.object set created = 1 where id = :id", id=txn["id"])
    made = await run(shop)
    assert made.is_green and made.figures["currencies"]["EUR"]["opening_minor"] == 5000


async def test_a_capture_that_nobody_heard_of_yet_is_given_an_hour(shop: Shop) -> None:
    await _missing_in_ledger(shop, await sell(shop))
    made = await reconciliation.reconcile(shop.database, shop.tenant_id)
    assert made is not None and made.is_green and made.figures["fresh"] == 1
    assert not (await run(shop)).is_green


@pytest.mark.proof
async def test_a_month_of_ordinary_days_is_green_each_morning_and_ends_at_the_bank(
    shop: Shop, proof: Proof
) -> None:
    """Sales, refunds by us and by hand, weeks in which the bank sends money back; nothing is lost on its way."""
    days, chance, sold, back = proof.share(30, 5), proof.random("month"), 0, 0
    for day in range(days):
        await sandbox.set_clock(shop.database, day * DAY)
        await sandbox.set_bank(shop.database, refuses=day % 11 == 5)
        for _ in range(chance.randint(0, 2)):
            minor = chance.randint(50, 3000)
            payment = await sell(shop, minor)
            sold += payment.captured_minor - payment.fee_minor - payment.provider_fee_minor
            part = chance.randint(1, minor)
            how = chance.choice(("kept", "refunded", "by hand"))
            if how == "refunded":
                async with shop.scope() as scope:
                    await payments.refund(scope, payment.id, "gone wrong", amount_minor=part)
                await shop.jobs.run()
            elif how == "by hand":
                await payments.provider_of(shop.database.settings).refund(
                    payment.account_ref,
                    payment.provider_ref or "",
                    amount_minor=part,
                    reason="-",
                    key=f"{payment.id}",
                )
                await shop.look(payment)
            back += part if how != "kept" else 0
        made = await run(shop)
        assert made.is_green, await standing(shop)
    await sandbox.set_bank(shop.database, refuses=False)
    await sandbox.set_clock(shop.database, (days + 5) * DAY)
    assert (await run(shop)).is_green
    await sandbox.set_clock(shop.database, (days + 7) * DAY)
    assert (await run(shop)).is_green
    books = await shop.balances()
    at_provider = books.get("psp_available", 0) + books.get("psp_pending", 0)
    assert books.get("bank", 0) + at_provider == sold - back
    assert at_provider <= 0, "only what is owed to the provider stays there"


# -- each bucket of money.md 4.7 -------------------------------------------------------------------------------------


async def _add(
    shop: Shop, payment: Payment, kind: str, category: str, amount: int, **more: Any
) -> dict[str, Any]:
    """One more line in the provider's books."""
    async with shop.database.sandbox() as db:
        engine = sandbox.Engine(db, payment.account_ref)
        txn = await sandbox._book(engine, kind, category, amount, "eur", None)
        return await engine.put(txn | more)


TXN = "update sandbox.object set body = {} where kind = 'balance_transaction' and body->>'type' = 'charge'"


async def _amount(shop: Shop, _payment: Payment) -> int:
    body = "body || jsonb_build_object('amount', (body->>'amount')::int + 7, 'net', (body->>'net')::int + 7)"
    await edit(shop, TXN.format(body))
    return 7


async def _fee(shop: Shop, _payment: Payment) -> int:
    body = "body || jsonb_build_object('fee', (body->>'fee')::int + 5, 'net', (body->>'net')::int - 5)"
    await edit(shop, TXN.format(body))
    return -5


async def _currency(shop: Shop, payment: Payment) -> int:
    await edit(shop, TXN.format("""body || '{"currency": "chf"}'"""))
    return payment.captured_minor - payment.fee_minor - payment.provider_fee_minor


async def _missing_in_stripe(shop: Shop, payment: Payment) -> int:
    await edit(shop, "delete from sandbox.object where kind = 'balance_transaction'")
    return -(payment.captured_minor - payment.fee_minor - payment.provider_fee_minor)


async def _missing_in_ledger(shop: Shop, payment: Payment) -> int:
    """Somebody sells by hand in the provider's dashboard."""
    txn = await _add(shop, payment, "charge", "charge", 1500)
    await edit(
        shop,
        'update sandbox.object set body = body || \'{"source": "ch_hand"}\' where id = :id',
        id=txn["id"],
    )
    async with shop.database.sandbox() as db:
        engine = sandbox.Engine(db, payment.account_ref)
        charge = await engine.get("charge", payment.charge_ref or "")
        await engine.put(charge | {"id": "ch_hand"})
        await engine.put(txn | {"source": "ch_hand"})
    return 1500


async def _duplicate(shop: Shop, payment: Payment) -> int:
    await _add(
        shop, payment, "charge", "charge", payment.captured_minor, source=payment.charge_ref,
        fee=payment.fee_minor + payment.provider_fee_minor,
        net=payment.captured_minor - payment.fee_minor - payment.provider_fee_minor,
    )  # fmt: skip
    return payment.captured_minor - payment.fee_minor - payment.provider_fee_minor


async def _stale_pending(shop: Shop, _payment: Payment) -> int:
    async with shop.scope() as scope:
        await scope.db.execute(
            text("update livery.payment_account set created_at = now() - interval '10 days'")
        )
    long_ago = int((datetime.now(UTC) - timedelta(days=9)).timestamp())
    await edit(shop, TXN.format(f"""body || '{{"created": {long_ago}, "available_on": {long_ago}}}'"""))
    await edit(
        shop, "update sandbox.object set created = :at where kind = 'balance_transaction'", at=long_ago
    )
    return 0


async def _payout_items(shop: Shop, payment: Payment) -> int:
    """A part of it is told with another payout."""
    await sandbox.set_clock(shop.database, 4 * DAY)
    async with shop.database.sandbox() as db:
        await sandbox._age_balance(sandbox.Engine(db, payment.account_ref))
    await edit(shop, TXN.format("""body || '{"livery": {"payout": "po_other"}}'"""))
    return payment.captured_minor - payment.fee_minor - payment.provider_fee_minor


async def _unknown_type(shop: Shop, payment: Payment) -> int:
    await _add(shop, payment, "reserve_transaction", "risk_reserved", -900)
    return -900


async def _balance(shop: Shop, _payment: Payment) -> int:
    """A line from before what is asked for appears, or changes, afterwards."""
    await run(shop)
    await edit(shop, TXN.format("body || jsonb_build_object('net', (body->>'net')::int + 11)")
               + " and created > 0")  # fmt: skip
    await edit(shop, "update sandbox.object set created = 1 where kind = 'balance_transaction'")
    async with shop.scope() as scope:
        await scope.db.execute(text("update livery.provider_balance_txn set is_pending = false"))
    return 11


async def _books(shop: Shop, payment: Payment) -> int:
    """Somebody posts by hand what the provider has never told."""
    async with shop.scope() as scope:
        await ledger.post(scope, "by_hand", "test", uuid7(), scope.now, [
            Posting("psp_pending", 42, "EUR", payment.account_ref), Posting("revenue", -42, "EUR"),
        ])  # fmt: skip
    return -42


async def _stale_clearing(shop: Shop, _payment: Payment) -> int:
    """A terminal settled weeks ago, and nobody booked what its acquirer paid out."""
    async with shop.scope() as scope:
        await ledger.post(scope, "terminal_settled", "test", uuid7(), scope.now - timedelta(days=15), [
            Posting("terminal_clearing", 700, "EUR", "Worldline 1"), Posting("terminal_unmatched", -700, "EUR"),
        ])  # fmt: skip
    return -700


SEEDS: dict[str, Callable[[Shop, Payment], Any]] = {
    "missing_in_ledger": _missing_in_ledger, "missing_in_stripe": _missing_in_stripe, "amount": _amount, "fee": _fee,
    "currency": _currency, "duplicate": _duplicate, "stale_pending": _stale_pending, "payout_items": _payout_items,
    "unknown_type": _unknown_type, "balance": _balance, "books": _books, "stale_clearing": _stale_clearing,
}  # fmt: skip


def test_each_kind_of_difference_is_seeded_below() -> None:
    assert SEEDS.keys() == set(reconciliation.CATEGORIES)


@pytest.mark.parametrize("category", SEEDS)
async def test_a_seeded_difference_is_found_and_named_and_stays_until_it_is_explained(
    shop: Shop, category: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await sell(shop)
    if category == "stale_pending":  # the double tells lines available as soon as their day has come
        monkeypatch.setattr(sandbox, "_shown_txn", _always_pending)
    delta = await SEEDS[category](shop, payment)
    made = await run(shop)
    found = await standing(shop)
    assert not made.is_green and found[category] == delta
    assert set(found) == {category}
    assert await standing(shop) == found
    assert not (await run(shop)).is_green
    assert await standing(shop) == found
    async with shop.scope() as scope:
        assert await reconciliation.find_light(scope) == "red"
        for item in await reconciliation.list_items(scope):
            await reconciliation.explain(scope, item.id, "seeded by a test")
        assert await reconciliation.find_light(scope) == "green"
    assert (await run(shop)).is_green


async def _always_pending(engine: Any, txn: dict[str, Any], params: Any) -> dict[str, Any]:
    shown = {name: value for name, value in txn.items() if name != "livery"} | {"status": "pending"}
    return await engine.expanded(shown, params)


async def test_a_difference_that_was_mended_is_gone_and_one_that_changes_is_told_again(shop: Shop) -> None:
    payment = await sell(shop)
    await _amount(shop, payment)
    await run(shop)
    async with shop.scope() as scope:
        (item,) = await reconciliation.list_items(scope)
        await reconciliation.explain(scope, item.id, "known")
    assert (await run(shop)).is_green
    await _amount(shop, payment)
    assert not (await run(shop)).is_green
    assert await standing(shop) == {"amount": 14}
    body = (
        "body || jsonb_build_object('amount', (body->>'amount')::int - 14, 'net', (body->>'net')::int - 14)"
    )
    await edit(shop, TXN.format(body))
    assert (await run(shop)).is_green
    assert await standing(shop) == {}


async def test_staff_explain_a_difference_on_its_page_with_a_word(shop: Shop, house: House) -> None:
    await _amount(shop, await sell(shop))
    await run(shop)
    async with shop.scope() as scope:
        (item,) = await reconciliation.list_items(scope)
    owner = await house.staff("alpha", shop.tenant_id)
    page = (await owner.open("/reconciliation")).text
    assert "1 difference" in page and "Another amount" in page and "€0.07" in page
    path = f"/reconciliation/items/{public_id('recon_item', item.id)}/explanations"
    refused = await owner.post(path, {"note": " "})
    assert refused.status_code == 422 and "where the difference comes from" in refused.text
    assert (await owner.post(path, {"note": "rounded by hand"})).status_code == 303
    page = (await owner.get("/reconciliation")).text
    assert "The books agree" in page and "rounded by hand" in page


async def test_a_difference_is_explained_once(shop: Shop) -> None:
    await _amount(shop, await sell(shop))
    await run(shop)
    async with shop.scope() as scope:
        (item,) = await reconciliation.list_items(scope)
        await reconciliation.explain(scope, item.id, "known")
        with pytest.raises(Refused):
            await reconciliation.explain(scope, item.id, "known again")


async def test_whoever_keeps_the_books_is_told_once_of_a_new_difference(shop: Shop) -> None:
    await _amount(shop, await sell(shop))
    await run(shop)
    await run(shop)
    await shop.jobs.run()
    async with shop.scope() as scope:
        query = text("select to_address, subject, body from livery.mail where kind = 'money_news'")
        (mail,) = (await scope.db.execute(query)).all()
    assert mail.subject == "The payment provider's books and yours differ"
    assert "1 difference stands" in mail.body and "/reconciliation" in mail.body


async def test_a_line_that_is_pending_for_weeks_brings_no_old_payout_without_its_own(shop: Shop) -> None:
    """The lines that are asked for reach back further then than payouts usually do."""
    await sell(shop)
    await sandbox.set_clock(shop.database, 4 * DAY)
    await run(shop)
    back = "created = created - :s, body = jsonb_set(body, '{created}', to_jsonb((body->>'created')::bigint - :s))"
    await edit(
        shop, f"update sandbox.object set {back} where kind in ('payout', 'balance_transaction')", s=16 * DAY
    )
    async with shop.scope() as scope:
        await scope.db.execute(text(
            "update livery.payment_account set created_at = now() - interval '40 days'"))  # fmt: skip
        await scope.db.execute(text(
            "update livery.provider_balance_txn set is_pending = true, created_at = now() - interval '30 days'"
            " where type = 'charge'"))  # fmt: skip
        await scope.db.execute(text("update livery.payout set created_at = created_at - interval '16 days'"))
    assert (await run(shop)).is_green, await standing(shop)


# -- the comparison --------------------------------------------------------------------------------------------------


def a_line(key: str, amount: int, fee: int, currency: str) -> Line:
    return Line(key=key, amount_minor=amount, fee_minor=fee, currency=currency, at=NOW, row_id=UUID(int=1))


lines = st.lists(
    st.builds(a_line, st.sampled_from("abc"), st.integers(-5, 5), st.integers(0, 2), st.sampled_from(("EUR", "CHF"))),
    max_size=6,
)  # fmt: skip


@given(lines, lines)
def test_what_is_found_accounts_for_all_that_the_two_sides_differ_by(
    booked: list[Line], told: list[Line]
) -> None:
    """Nothing is swallowed: per currency the deltas come to the provider's sum less ours. Where a pair has two
    currencies, its delta is the provider's alone, and ours is the other half."""
    found = compare(booked, told, until=NOW)
    for currency in ("EUR", "CHF"):
        differ = sum(line.net_minor for line in told if line.currency == currency)
        differ -= sum(line.net_minor for line in booked if line.currency == currency)
        deltas = sum(one.delta_minor for one in found.differences if one.currency == currency)
        if not any(one.category == "currency" for one in found.differences):
            assert deltas == differ
    assert (not found.differences) == (
        sorted(map(_figures, booked)) == sorted(map(_figures, told)) and _unique(told)
    )


def _figures(line: Line) -> tuple[str, int, int, str]:
    return line.key, line.amount_minor, line.fee_minor, line.currency


def _unique(told: list[Line]) -> bool:
    return len({line.key for line in told}) == len(told)
