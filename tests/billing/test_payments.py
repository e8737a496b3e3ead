"""Card money comes out right: held, taken once, never more than the hold, and the books go to zero."""

import asyncio
import functools
import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from app.access import service as access
from app.billing import (
    cards,
    disputes,
    host_shares,
    onboarding,
    outcomes,
    payments,
    queries,
    reconciliation,
    sandbox,
)
from app.billing.models import PaymentOp, SavedCard
from app.billing.payments import Known, merge
from app.billing.provider import Observation, OutcomeUnknown, Rejected
from app.kernel.clock import uuid7
from tests.billing.conftest import ASKS, DECLINED, Shop
from tests.billing.stripe_contract import ContractViolation, check_request, endpoints
from tests.web import CLI, found_brand

pytestmark = pytest.mark.anyio
GOLDEN = Path(__file__).parent / "stripe_endpoints.txt"
EVIDENCE = {"uncategorized_text": "They charged here.", "service_date": "2026-11-27", "product_description": "Charging",
            "customer_email_address": "driver@a.example", "access_activity_log": "started, ended"}  # fmt: skip


async def test_a_hold_is_taken_in_part_and_the_rest_is_let_go(shop: Shop) -> None:
    payment = await shop.hold(3000)
    assert (payment.state, payment.provider_ref) == ("created", None)
    assert (await shop.pay(payment))["status"] == "complete"
    payment = await shop.look(payment)
    assert (payment.state, payment.hold_minor, payment.payer_email) == (
        "authorized",
        3000,
        "driver@a.example",
    )
    assert payment.capture_before is not None
    await shop.charge(2400)
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    # 5 % and 10 cents for the platform, 1.5 % and 25 cents for the provider.
    assert (payment.state, payment.captured_minor, payment.fee_minor) == ("captured", 2400, 130)
    assert payment.provider_fee_minor == 61
    assert await shop.captures(payment) == [2400]
    assert await shop.balances() == {
        "revenue": -2400, "psp_pending": 2400 - 191, "platform_fee_expense": 130, "stripe_fee_expense": 61,
    }  # fmt: skip


async def test_a_fee_that_the_provider_tells_after_the_capture_is_asked_for_and_booked_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await shop.hold(3000)
    await shop.pay(payment)
    await shop.look(payment)
    known, provider = 0, payments.provider_of(shop.database.settings)
    capture, look = provider.capture, provider.get_payment

    async def capture_untold(*args: Any, **more: Any) -> Observation:
        return replace(await capture(*args, **more), provider_fee_minor=0)

    async def look_at(*args: Any) -> Observation:
        return replace(await look(*args), provider_fee_minor=known)

    monkeypatch.setattr(provider, "capture", capture_untold)
    monkeypatch.setattr(provider, "get_payment", look_at)
    await shop.charge(2400)
    await shop.jobs.run()
    assert "stripe_fee_expense" not in await shop.balances()
    for told, asked in ((0, True), (61, True), (70, False)):
        known = told
        await _age(shop)
        await _age(shop)
        await payments.tidy(shop.database, shop.tenant_id)
        await shop.jobs.run()
        # Of a fee that is known only news make us look again.
        assert (await shop.read(payment.id)).provider_fee_minor == (told if asked else 61)
        for _ in range(2):
            await shop.look(payment)
        balances = await shop.balances()
        assert (
            balances.get("stripe_fee_expense", 0) == (await shop.read(payment.id)).provider_fee_minor == told
        )
        assert balances["psp_pending"] == 2400 - 130 - told


async def test_what_the_hold_does_not_cover_is_the_operators_loss_and_never_the_drivers(shop: Shop) -> None:
    payment = await shop.hold(3000)
    await shop.pay(payment)
    await shop.look(payment)
    await shop.charge(3450)
    await shop.jobs.run()
    assert await shop.captures(await shop.read(payment.id)) == [3000]
    balances = await shop.balances()
    assert (balances["write_off"], balances.get("driver_receivable")) == (450, None)


@pytest.mark.parametrize("end", ["captured", "canceled"])
async def test_a_payment_that_is_first_seen_at_its_end_knows_what_was_held(shop: Shop, end: str) -> None:
    """All news were lost until then: what is known follows from the provider's object alone (money I7)."""
    payment = await shop.hold(3000)
    await shop.pay(payment)
    provider = payments.provider_of(shop.database.settings)
    found = await sandbox.find_checkout(shop.database, payment.checkout_ref or "")
    assert found is not None
    ref = found[1]["payment_intent"]
    if end == "captured":
        await provider.capture(payment.account_ref, ref, amount_minor=2400, fee_minor=0, key="dashboard")
    else:
        await provider.cancel(payment.account_ref, ref, key="dashboard")
    payment = await shop.look(payment)
    assert (payment.state, payment.hold_minor) == (end, 3000)


@pytest.mark.parametrize("gross", [0, 1, 49])
async def test_too_little_for_a_card_is_given_away_and_the_hold_let_go(shop: Shop, gross: int) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    await shop.look(payment)
    await shop.charge(gross)
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert (payment.state, await shop.captures(payment)) == ("canceled", [])
    assert "driver_receivable" not in await shop.balances()


async def test_a_declined_card_holds_nothing_and_another_one_may_follow(shop: Shop) -> None:
    payment = await shop.hold()
    assert (await shop.pay(payment, DECLINED))["code"] == "card_declined"
    seen = await shop.look(payment)
    assert (seen.state, seen.failure, seen.provider_ref) == ("created", "card_declined", None)
    await shop.pay(payment)
    seen = await shop.look(payment)
    assert (seen.state, seen.failure) == ("authorized", "")


async def standing(shop: Shop, payment: payments.Payment) -> tuple[str, str | None, str, bool, bool]:
    """As the portal's list shows it, and whether it stands among those that wait or those that came to nothing."""
    async with shop.scope() as scope:
        row = await payments.get_payment(scope, payment.id)
        found = outcomes.outcome(row)
        waits, ended = await queries.list_payments(scope, "open"), await queries.list_payments(scope, "ended")
        return found.pill, found.label, found.why, row in waits, row in ended


async def test_the_list_says_what_is_known_before_the_providers_page_has_closed(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.tell()
    assert await standing(shop, payment) == ("created", None, "", True, False)
    await shop.pay(payment, DECLINED)
    await shop.tell()  # the provider's word alone: nobody comes back from its page
    await shop.jobs.run()
    assert await standing(shop, payment) == ("failed", "Declined", "The bank refused the card", False, True)
    await shop.pay(payment)
    await shop.tell()
    await shop.jobs.run()
    assert await standing(shop, payment) == ("authorized", None, "", False, False)


async def test_a_payment_that_was_given_up_waits_for_nothing_from_that_moment(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.release("given_up")
    assert (await shop.read(payment.id)).state == "created"
    assert await standing(shop, payment) == ("canceled", "Given up", "The payer canceled", False, True)
    await shop.jobs.run()
    assert (await shop.read(payment.id)).state == "expired"
    assert await standing(shop, payment) == ("canceled", "Given up", "The payer canceled", False, True)


async def test_three_d_secure_given_up_holds_nothing_and_the_page_is_closed(shop: Shop) -> None:
    payment = await shop.hold()
    assert (await shop.pay(payment, ASKS))["status"] == "authenticate"
    assert (await shop.look(payment)).state == "requires_action"
    result = await sandbox.authenticate_checkout(
        shop.database, payment.account_ref, payment.checkout_ref or "", succeeds=False
    )
    assert result["status"] == "declined"
    await shop.look(payment)
    await shop.release("given_up")
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert payment.state in ("expired", "canceled")
    assert (await shop.pay(payment))["status"] == "expired"


async def test_three_d_secure_confirmed_holds(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment, ASKS)
    await sandbox.authenticate_checkout(
        shop.database, payment.account_ref, payment.checkout_ref or "", succeeds=True
    )
    assert (await shop.look(payment)).state == "authorized"


async def test_a_payer_who_is_quicker_than_a_release_gets_the_hold_back(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.release("station_offline")
    await shop.pay(payment)  # before the release reached the provider
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert (payment.state, await shop.captures(payment)) == ("canceled", [])
    assert ("cancel", "succeeded") in await shop.ops(payment)


async def test_a_hold_the_provider_let_go_by_itself_is_seen_and_nothing_is_taken(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    await shop.look(payment)
    await sandbox.set_clock(shop.database, 8 * 86400)
    await shop.charge(2000)
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert (payment.state, payment.captured_minor) == ("canceled", 0)
    balances = await shop.balances()
    assert (balances["write_off"], balances.get("driver_receivable")) == (2000, None)


async def test_a_page_nobody_pays_on_closes_by_itself(shop: Shop) -> None:
    payment = await shop.hold()
    await sandbox.set_clock(shop.database, 3600)
    assert (await shop.look(payment)).state == "expired"


async def test_a_test_clock_that_is_ahead_closes_no_page_before_it_is_made(shop: Shop) -> None:
    """Only the sandbox's clock is moved, by its panel: we ask by ours, and the page stands as long as ever."""
    ahead_s = 8 * 86400
    await sandbox.set_clock(shop.database, ahead_s)
    payment = await shop.hold()
    assert payment.failure == ""
    await sandbox.set_clock(shop.database, ahead_s + 44 * 60)
    assert (await shop.look(payment)).state == "created"
    assert (await shop.pay(payment))["status"] == "complete"
    assert (await shop.look(payment)).state == "authorized"
    await sandbox.set_clock(shop.database, ahead_s)
    unpaid = await shop.hold()
    await sandbox.set_clock(shop.database, ahead_s + 46 * 60)
    assert (await shop.look(unpaid)).state == "expired"


async def test_a_refund_gives_everything_back_once(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    await shop.look(payment)
    await shop.charge(2000)
    await shop.jobs.run()
    async with shop.scope() as scope:
        await payments.refund(scope, payment.id, "the charger was broken")
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert (payment.state, payment.refunded_minor) == ("refunded", 2000)
    async with shop.scope() as scope:
        with pytest.raises(payments.Refused):
            await payments.refund(scope, payment.id, "again")


async def test_a_page_that_was_made_after_it_was_given_up_is_closed(shop: Shop) -> None:
    """The wish ends while the provider makes the page: nobody may pay there."""
    shop.source_id = uuid7()
    async with shop.scope() as scope:
        payment, op = await payments.open_payment(
            scope, source_type="test", source_id=shop.source_id, hold_minor=3000, currency="EUR", title="Charging",
            success_url="http://a.localhost/s", cancel_url="http://a.localhost/c", email="", language="en",
        )  # fmt: skip
    create = payments.provider_of(shop.database.settings).create_checkout

    async def slow(*args: Any, **values: Any) -> Any:
        made = await create(*args, **values)
        await shop.release("given_up")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payments.provider_of(shop.database.settings), "create_checkout", slow)
        await payments.run_op(shop.database, shop.tenant_id, op.id)
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert (await shop.pay(payment))["status"] == "expired"


async def test_a_checkout_the_janitor_repeats_minutes_later_still_opens(shop: Shop) -> None:
    """The web process died before it asked: the page's end must still be half an hour away when it is made."""
    async with shop.scope() as scope:
        payment, _op = await payments.open_payment(
            scope, source_type="test", source_id=uuid7(), hold_minor=3000, currency="EUR", title="Charging",
            success_url="http://a.localhost/s", cancel_url="http://a.localhost/c", email="", language="en",
        )  # fmt: skip
    await sandbox.set_clock(shop.database, 10 * 60)
    await _age(shop)
    await payments.tidy(shop.database, shop.tenant_id)
    await shop.jobs.run()
    assert (await shop.pay(await shop.read(payment.id)))["status"] == "complete"


async def test_a_capture_that_is_refused_does_not_leave_the_hold_standing(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    payment = await shop.look(payment)
    async with shop.database.sandbox() as db:  # the provider will take less than it held
        await db.execute(
            payments.text(
                "update sandbox.object set body = body || '{\"amount_capturable\": 100}' where id = :id"
            ),
            {"id": payment.provider_ref},
        )
    await shop.charge(2000)
    await shop.jobs.run()
    payment = await shop.read(payment.id)
    assert (payment.state, payment.failure, await shop.captures(payment)) == (
        "canceled",
        "amount_too_large",
        [],
    )
    balances = await shop.balances()
    assert (balances["write_off"], balances.get("driver_receivable")) == (2000, None)


async def test_every_open_payment_is_looked_at_however_many_holds_stand(shop: Shop) -> None:
    """Holds that are looked at hourly do not keep the janitor from those that wait."""
    async with shop.scope() as scope:
        account = await payments.find_account(scope)
        assert account is not None
        scope.db.add_all(
            payments.Payment(
                id=uuid7(), source_type="test", source_id=uuid7(), provider=account.provider,
                account_ref=account.account_ref, currency="EUR", state="authorized", checkout_ref=f"cs_{n}",
                provider_ref=f"pi_{n}", observed_at=scope.now - timedelta(minutes=10),
            )
            for n in range(201)
        )  # fmt: skip
    payment = await shop.hold()
    await shop.pay(payment)
    await payments.tidy(shop.database, shop.tenant_id)
    await shop.jobs.run(rounds=1)
    assert (await shop.read(payment.id)).state == "authorized"


# -- the daily sweep ---------------------------------------------------------------------------------------------------


async def _forget(shop: Shop, statement: str, **values: Any) -> None:
    async with shop.scope() as scope:
        await scope.db.execute(payments.text(statement), values)


async def _swept(shop: Shop, *, days: float = 2) -> None:
    await sandbox.set_clock(shop.database, 0)
    async with shop.database.sandbox() as db:
        await db.execute(
            payments.text("update sandbox.object set created = created - :age,"
                          " body = jsonb_set(body, '{created}', to_jsonb((body->>'created')::bigint - :age))"),
            {"age": int(days * 86400)},
        )  # fmt: skip
    await payments.sweep(shop.database, shop.tenant_id)
    await shop.jobs.run()


async def _state_at_provider(shop: Shop, payment: payments.Payment, ref: str) -> str:
    return (await payments.provider_of(shop.database.settings).get_payment(payment.account_ref, ref)).state


async def test_a_hold_that_we_have_given_up_is_let_go_by_the_sweep(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    payment = await shop.look(payment)
    await _forget(shop, "update livery.payment set state = 'failed', provider_ref = null")
    await _swept(shop)
    assert await _state_at_provider(shop, payment, payment.provider_ref or "") == "canceled"
    assert ("cancel", "succeeded") in await shop.ops(payment)


async def test_a_hold_that_no_row_knows_is_let_go_by_the_sweep(shop: Shop) -> None:
    """The database was restored from before it."""
    payment = await shop.hold()
    await shop.pay(payment)
    payment = await shop.look(payment)
    async with shop.database.sandbox() as db:
        await db.execute(
            payments.text("update sandbox.object set body = jsonb_set(body, '{metadata,payment}',"
                          " to_jsonb(cast(:id as text))) where id = :ref"),
            {"id": str(uuid7()), "ref": payment.provider_ref},
        )  # fmt: skip
    await _forget(shop, "update livery.payment set provider_ref = null")
    await _swept(shop)
    assert await _state_at_provider(shop, payment, payment.provider_ref or "") == "canceled"


async def test_a_second_hold_of_one_payment_is_let_go_and_the_first_stays(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    payment = await shop.look(payment)
    await _forget(shop, "update livery.payment set provider_ref = 'pi_first'")
    await _swept(shop)
    assert await _state_at_provider(shop, payment, payment.provider_ref or "") == "canceled"
    assert (await shop.read(payment.id)).state == "authorized"


async def test_the_sweep_leaves_alone_what_is_waited_for_what_is_new_and_what_is_not_ours(shop: Shop) -> None:
    standing = await shop.hold()
    await shop.pay(standing)
    standing = await shop.look(standing)
    await _swept(shop)
    assert await _state_at_provider(shop, standing, standing.provider_ref or "") == "authorized"
    fresh = await shop.hold()
    await shop.pay(fresh)
    fresh = await shop.look(fresh)
    await _forget(shop, "update livery.payment set state = 'failed' where id = :id", id=fresh.id)
    await _swept(shop, days=0)
    assert await _state_at_provider(shop, fresh, fresh.provider_ref or "") == "authorized"
    async with shop.database.sandbox() as db:  # the operator's own shop sells over the same account
        await db.execute(
            payments.text("update sandbox.object set body = body || '{\"metadata\": {}}' where id = :id"),
            {"id": fresh.provider_ref},
        )
    await _swept(shop)
    assert await _state_at_provider(shop, fresh, fresh.provider_ref or "") == "authorized"


async def test_the_sweep_reads_every_page_of_the_list(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    payment = await shop.look(payment)
    async with shop.database.sandbox() as db:
        await db.execute(payments.text(
            "insert into sandbox.object (account, id, kind, created, body)"
            " select account, 'pi_copy' || n, kind, created, body || jsonb_build_object('id', 'pi_copy' || n)"
            " from sandbox.object, generate_series(1, 230) n"
            " where kind = 'payment_intent'"))  # fmt: skip
    provider = payments.provider_of(shop.database.settings)
    holds = await provider.list_holds(payment.account_ref, payment.created_at - timedelta(days=1))
    assert len({hold.ref for hold in holds}) == len(holds) == 231


# -- the crash matrix --------------------------------------------------------------------------------------------------

STEPS = {
    "nothing": [],
    "checkout: request lost": [("POST /v1/checkout/sessions$", "before")],
    "checkout: answer lost": [("POST /v1/checkout/sessions$", "after")],
    "checkout: 500, replayed under its key": [("POST /v1/checkout/sessions$", "500")],
    "look: lost": [("GET /v1/checkout", "before")],
    "capture: request lost": [("/capture", "before")],
    "capture: answer lost": [("/capture", "after")],
    "capture: answer lost twice": [("/capture", "after"), ("/capture", "before")],
    "capture: 500, replayed under its key": [("/capture", "500")],
    "capture: locked": [("/capture", "409")],
    "capture: too many": [("/capture", "429")],
    "worker killed before capture is concluded": "conclude",
    "worker killed before capture is sent": "send",
}
NEWS = [(copies, reverse) for copies in (0, 1, 3) for reverse in (False, True)][1:]


@pytest.mark.parametrize("step", STEPS)
async def test_one_capture_at_most_whatever_is_lost_doubled_or_killed(
    shop: Shop, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every crash point x every delivery of the news: one capture, the receivable at zero."""
    outcomes = []
    for copies, reverse in NEWS:
        plan = STEPS[step]
        faults = [{"path": path, "fault": fault} for path, fault in plan] if isinstance(plan, list) else []
        await sandbox.set_faults(shop.database, faults)
        payment = await _hold(shop)
        await shop.pay(payment)
        await shop.tell(copies=copies, reverse=reverse)
        await shop.jobs.run()
        payment = await _tidy_until(shop, payment, "authorized")
        if isinstance(plan, str):
            _kill_once(monkeypatch, plan)
        await shop.charge(1000)
        await shop.jobs.run()
        await shop.tell(copies=copies, reverse=reverse)
        await shop.jobs.run()
        payment = await _tidy_until(shop, payment, "captured")
        outcomes.append((await shop.captures(payment), (await shop.balances()).get("driver_receivable", 0)))
    with capsys.disabled():
        print(
            f"\n  {step:45} x {len(NEWS)} deliveries: {sum(o == ([1000], 0) for o in outcomes)} right", end=""
        )
    assert outcomes == [([1000], 0)] * len(NEWS)


async def _hold(shop: Shop) -> payments.Payment:
    """The web process asks; where it hears nothing, the janitor's retry does."""
    try:
        return await shop.hold()
    except OutcomeUnknown:
        async with shop.scope() as scope:
            payment = await payments.find_payment(scope, "test", shop.source_id)
            assert payment is not None
        await _age(shop)
        await payments.tidy(shop.database, shop.tenant_id)
        await shop.jobs.run()
        return await shop.read(payment.id)


async def _tidy_until(shop: Shop, payment: payments.Payment, state: str) -> payments.Payment:
    """The janitor's minutes pass."""
    for _ in range(3):
        payment = await shop.read(payment.id)
        if payment.state == state:
            return payment
        await _age(shop)
        await payments.tidy(shop.database, shop.tenant_id)
        await shop.jobs.run()
    return await shop.read(payment.id)


async def _age(shop: Shop) -> None:
    for statement in (
        "update livery.payment_op set updated_at = updated_at - interval '5 minutes'",
        "update livery.payment set observed_at = observed_at - interval '2 hours'",
    ):
        async with shop.scope() as scope:
            await scope.db.execute(payments.text(statement))


def _kill_once(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    name = {"conclude": "_conclude", "send": "_call"}[where]
    real = getattr(payments, name)
    deaths = iter([True])

    async def dying(*args: object) -> object:
        if next(deaths, False):
            raise RuntimeError("killed")
        return await real(*args)

    monkeypatch.setattr(payments, name, dying)


@pytest.mark.parametrize(("status", "is_final"), [(409, False), (429, False), (500, True), (502, False), (503, False),
                                                  (504, False), (None, False)])  # fmt: skip
async def test_only_an_answer_that_the_provider_keeps_is_asked_for_under_a_new_key(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, status: int | None, is_final: bool
) -> None:
    """Whatever else says nothing may come while the first request still runs: the page, the capture, the release."""

    async def answer(*_request: object, **_more: object) -> tuple[bytes, int, dict[str, str]]:
        if status is None:
            raise stripe.APIConnectionError("timed out")
        return b'{"error": {"type": "api_error", "message": "No."}}', status, {}

    payment = await shop.hold()
    await shop.pay(payment)
    payment = await shop.look(payment)
    monkeypatch.setattr(shop.wire, "request_with_retries_async", answer)
    with pytest.raises(OutcomeUnknown):
        await shop.hold()
    async with shop.scope() as scope:
        ops = [
            await payments._plan(scope, payment, "cancel", "can:1", {}),
            await payments._plan(scope, payment, "capture", "cap:1", {"amount_minor": 1000, "fee_minor": 0}),
        ]
    for op in ops:
        with pytest.raises(OutcomeUnknown):
            await payments.run_op(shop.database, shop.tenant_id, op.id)
    async with shop.scope() as scope:
        tried = (
            (await scope.db.execute(select(PaymentOp).where(PaymentOp.state == "unknown"))).scalars().all()
        )
    assert {(one.kind, one.n) for one in tried} == {(kind, 2 if is_final else 1)
                                                    for kind in ("checkout_create", "cancel", "capture")}  # fmt: skip


# -- what is believed --------------------------------------------------------------------------------------------------

SEEN = [
    Observation(provider_ref="pi", state="created", failure="card_declined"),
    Observation(provider_ref="pi", state="requires_action"),
    Observation(provider_ref="pi", state="authorized", hold_minor=3000),
    Observation(
        provider_ref="pi", state="captured", captured_minor=2000, fee_minor=100, provider_fee_minor=55
    ),
    Observation(provider_ref="pi", state="captured", captured_minor=2000, refunded_minor=2000),
]


def test_observations_in_any_order_lead_to_the_same_money() -> None:
    ends = set()
    for order in itertools.permutations(SEEN):
        known = Known(state="created")
        for seen in order:
            known = merge(merge(known, seen), seen)
        ends.add((known.state, known.hold_minor, known.captured_minor, known.refunded_minor, known.fee_minor))
    assert ends == {("refunded", 3000, 2000, 2000, 100)}


@given(st.lists(st.sampled_from(SEEN), max_size=12))
@settings(max_examples=200, deadline=None)
def test_totals_never_fall_and_taken_money_stays_taken(order: list[Observation]) -> None:
    known = Known(state="created")
    for seen in order:
        after = merge(known, seen)
        assert after.captured_minor >= known.captured_minor
        assert after.refunded_minor >= known.refunded_minor
        assert known.state not in payments.TAKEN or after.state in payments.TAKEN
        assert merge(after, seen) == after
        known = after


def test_what_the_bank_said_last_is_told_and_a_driver_who_gave_up_has_given_up() -> None:
    declined = Observation(provider_ref="pi", state="created", failure="card_declined")
    unproven = Observation(
        provider_ref="pi", state="created", failure="payment_intent_authentication_failure"
    )
    known = merge(merge(Known(state="created"), declined), unproven)
    assert known.failure == "payment_intent_authentication_failure"
    assert merge(known, declined).failure == "card_declined"
    assert merge(Known(state="created", failure="given_up"), declined).failure == "given_up"
    assert merge(Known(state="canceled", failure="card_declined"), unproven).failure == "card_declined"


async def test_news_are_believed_only_with_todays_signature(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    [(_id, event), *_] = await sandbox.take_deliveries(shop.database)
    with pytest.raises(Rejected):
        await shop.news(event, secret="whsec_of_somebody_else")
    for ahead_s in (-400, 400, 10 * 365 * 86400):
        with pytest.raises(Rejected):
            await shop.news(event, ahead_s=ahead_s)
    assert await shop.news(event)


async def test_news_of_other_accounts_and_of_live_money_are_nobodys_here(shop: Shop) -> None:
    payment = await shop.hold()
    await shop.pay(payment)
    [(_id, event), *_] = await sandbox.take_deliveries(shop.database)
    assert not await shop.news(event | {"account": "acct_unknown"})
    assert not await shop.news(event | {"livemode": True})


async def test_accounts_do_not_see_each_others_payments(shop: Shop) -> None:
    payment = await shop.hold()
    provider = payments.provider_of(shop.database.settings)
    other = await provider.open_account(
        name="Other", email="o@example.org", country="DE", currency="EUR", key="other"
    )
    with pytest.raises(Rejected):
        await provider.get_checkout(other.ref, payment.checkout_ref or "")
    with pytest.raises(Rejected):
        await provider.get_checkout("acct_that_is_not", payment.checkout_ref or "")


# -- the wire ----------------------------------------------------------------------------------------------------------


async def test_every_call_we_make_is_on_the_list_and_names_the_account(shop: Shop) -> None:
    """The list is a golden file: a new endpoint is a decision. Schemas are held by `ContractWire` at every call."""
    payment = await shop.hold()
    await shop.pay(payment)
    await shop.look(payment)
    await shop.charge(2000)
    await shop.jobs.run()
    async with shop.scope() as scope:
        await payments.refund(scope, payment.id, "test")
    await shop.jobs.run()
    await shop.look(payment)
    other = await shop.hold()
    await shop.release()
    await shop.jobs.run()
    assert (await shop.read(other.id)).state == "expired"
    third = await shop.hold()
    await shop.pay(third)
    await shop.look(third)
    await shop.release()
    await shop.jobs.run()
    await payments.sweep(shop.database, shop.tenant_id)
    for answer in (payments.accept_dispute, functools.partial(payments.send_evidence, evidence=EVIDENCE)):
        disputed = await shop.hold()
        await shop.pay(disputed, "4000000000000259")
        await shop.look(disputed)
        await shop.charge(2000)
        await shop.jobs.run()
        await shop.look(disputed)
        async with shop.scope() as scope:
            (found,) = await disputes.of_payment(scope, disputed.id)
            await answer(scope, found.id)
        await shop.jobs.run()
    await reconciliation.reconcile(shop.database, shop.tenant_id)
    await onboarding.begin(shop.database, shop.tenant_id, CLI, portal_url="http://portal-alpha.localhost")
    await onboarding.observe(shop.database, shop.tenant_id)
    await onboarding.set_schedule(shop.database, shop.tenant_id, CLI, "weekly", ("monday",))
    await onboarding.begin_embedded(shop.database, shop.tenant_id, CLI)
    await _saved_card(shop)
    await _host_share(shop)
    used = sorted({f"{method} {path}" for method, path, _account in shop.wire.calls})
    assert used == GOLDEN.read_text().split("\n")[:-1]
    # The platform asks for a session of an account's (which one is in the body), and moves its own fees.
    platforms = ("/v1/account_sessions", "/v1/transfers", "/v1/application_fees")
    of_accounts = [
        one for one in shop.wire.calls if one[1].startswith("/v1/") and not one[1].startswith(platforms)
    ]
    assert all(account for _method, _path, account in of_accounts)
    assert set(used) <= {" ".join(one) for one in endpoints()}


RAISES = "4000000000010009"


async def _host_share(shop: Shop) -> None:
    """Taken, passed on, taken back and given back."""
    provider = payments.provider_of(shop.database.settings)
    host = await provider.open_recipient(
        name="Markt", email="m@a.example", country="DE", currency="EUR", key="h"
    )
    assert (await provider.get_recipient(host.ref)).is_ready
    payment = await shop.hold()
    await shop.pay(payment)
    await shop.look(payment)
    async with shop.scope() as scope:
        share = payments.HostShare("hst_1", host.ref, 300)
        await payments.capture(scope, "test", shop.source_id, 2000, host=share)
    await shop.jobs.run()
    await sandbox.set_clock(shop.database, 3 * 86_400)
    async with shop.scope() as scope:
        op_id = (await scope.db.execute(select(PaymentOp.id).filter_by(kind="host_transfer"))).scalar_one()
    await host_shares.run_op(shop.database, shop.tenant_id, op_id)
    async with shop.scope() as scope:
        await payments.refund(scope, payment.id, "test", amount_minor=1000)
    await shop.jobs.run()
    ((_made, (back,)),) = await provider.list_transfers(f"payment_{payment.id}")
    payment = await shop.read(payment.id)
    (returned,) = await provider.list_fee_refunds(payment.account_ref, payment.charge_ref or "")
    assert back.amount_minor == returned.amount_minor == 150


async def _saved_card(shop: Shop) -> None:
    """Given, asked off session, taken away, and its driver with it."""
    async with shop.scope() as scope:
        driver = await access.create_driver(scope, name="Jule", email="jule@a.example")
        card = await cards.begin(scope, driver, url="http://a.localhost/account/payment", language="en")
    await cards.run_setup(shop.database, shop.tenant_id, card.id)
    async with shop.scope() as scope:
        card = await scope.db.get_one(SavedCard, (shop.tenant_id, card.id))
        account = await payments.get_own_account(scope)
    await sandbox.pay_checkout(shop.database, account.account_ref, card.checkout_ref or "", RAISES, "")
    for _ in range(2):  # its page, then itself
        await cards.observe(shop.database, shop.tenant_id, card.id)
    async with shop.scope() as scope:
        found = await cards.find_usable(scope, driver.id)
        assert found is not None
        payment, _op = await payments.open_saved(
            scope, source_type="test", source_id=found.id, card=found, hold_minor=3000, currency="EUR",
            title="Charging", email="", language="en",
        )  # fmt: skip
    await shop.jobs.run()
    async with shop.scope() as scope:
        await payments.raise_hold(scope, payment.id, 2000)
    await shop.jobs.run()
    assert (await shop.read(payment.id)).hold_minor == 5000
    async with shop.scope() as scope:
        await cards.remove(scope, driver.id, card.id)
        await cards.forget(scope, driver.id)
    await shop.jobs.run()


WRONG = [
    ("POST", "/v1/payment_intents/pi_1/capture", "amount_to_capture=5.00"),
    ("POST", "/v1/payment_intents/pi_1/capture", "amount=500"),
    ("POST", "/v1/payment_intents/pi_1/capture", "amount_to_capture=1&idempotency_key=k"),
    ("POST", "/v1/payment_intents/pi_1/cancel", "cancellation_reason=bored"),
    ("POST", "/v1/payment_intents", "amount=500"),
    ("POST", "/v1/payment_intents", "amount=500&currency=eur&capture_method=manuel"),
    ("POST", "/v1/payment_intents", "amount=500&currency=eur&transfer_data[destinatoin]=acct_1"),
    ("POST", "/v1/refunds", "payment_intent=pi_1&reason=because"),
    ("POST", "/v1/refunds", "payment_intent=pi_1&ammount=5"),
    ("POST", "/v1/checkout/sessions", "mode=pay&success_url=https%3A%2F%2Fx"),
    ("POST", "/v1/checkout/sessions", "mode=payment&line_items[0][price_data][unit_amount]=5"),
    ("POST", "/v1/checkout/sessions", "mode=payment&payment_intent_data[capture_mehtod]=manual"),
    ("POST", "/v1/captures", ""),
    ("PUT", "/v1/refunds", ""),
]


@pytest.mark.parametrize(("method", "path", "body"), WRONG)
def test_a_wrong_request_is_refused_by_the_checker(method: str, path: str, body: str) -> None:
    with pytest.raises(ContractViolation):
        check_request(method, f"https://api.stripe.com{path}", {}, body)


async def test_two_processes_that_open_a_tenants_account_at_once_open_one(shop: Shop) -> None:
    async with shop.database.sandbox() as db:
        before = (await db.execute(payments.text("select count(*) from sandbox.account"))).scalar_one()
    other = await found_brand(shop.database, "beta")
    await asyncio.gather(*(payments.open_account(shop.database, other) for _ in range(3)))
    async with shop.database.sandbox() as db:
        after = (await db.execute(payments.text("select count(*) from sandbox.account"))).scalar_one()
    assert after == before + 1
    async with shop.database.scope(other, CLI) as scope:
        assert await payments.find_account(scope) is not None
