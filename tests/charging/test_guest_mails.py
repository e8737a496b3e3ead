"""A guest who left an address hears how it ended: that the hold is released, or that money was given back; once."""

from datetime import timedelta
from decimal import Decimal

import pytest

from app.billing import payments
from app.billing.models import Payment
from app.charging import paid, service
from app.charging.models import ChargingSession
from app.charging.reports import TransactionReport
from app.kernel.clock import utcnow
from app.kernel.ids import public_id
from app.notifications import service as mails
from app.notifications.models import Mail
from app.stations.models import StationCommand
from tenants.scope import Actor
from tests.billing.conftest import DECLINED, Shop, jobs, shop
from tests.charging.test_account import Yard, yard
from tests.charging.test_cap import Visit, begin, paid_for, visit, wish_for
from tests.charging.test_paid_cases import start_of
from tests.charging.test_papers import refunded
from tests.charging.test_start_press import all_of, code_of, house
from tests.web import House
from themes.language import speaking

__all__ = ["house", "jobs", "shop", "visit", "yard"]
pytestmark = pytest.mark.anyio


async def letters(shop: Shop) -> list[Mail]:
    """The guest's, oldest first."""
    async with shop.scope() as scope:
        return [
            one for one in reversed(await mails.list_mails(scope)) if one.to_address == "driver@a.example"
        ]


def plain(mail: Mail) -> str:
    return mail.body.replace("\u00a0", " ")


async def test_a_hold_that_nobody_plugged_in_for_is_told_to_be_released_once(shop: Shop) -> None:
    _station_id, session_id, _epoch = await paid_for(shop)
    async with shop.scope() as scope:
        session = await service.lock_pending(scope, session_id)
        assert session is not None
        await service.end_unstarted(scope, session, "not_plugged_in", "not_started", {})
    await shop.jobs.run()
    first, told = await letters(shop)
    assert (first.kind, told.kind, told.to_address) == ("guest_session", "hold_released", "driver@a.example")
    assert told.subject == "The hold on your card is released"
    assert (
        "Your charging session with Alpha did not begin. Nobody plugged in. The charger waited for the cable and"
        " gave up." in plain(told)
    )
    assert "The hold of €30.00 on your card is released and nothing is charged." in plain(told)
    async with shop.scope() as scope:
        assert f"/s/{paid.link_of(scope, session_id)}\n" in told.body
        payment = await payments.find_payment(scope, "charging_session", session_id)
        assert payment is not None and payment.state == "canceled"
        await payments._emit(scope, payment, "PaymentEnded")  # pyright: ignore[reportPrivateUsage]
    await shop.jobs.run()
    assert [one.kind for one in await letters(shop)] == ["guest_session", "hold_released"]


async def test_a_hold_that_the_bank_let_go_before_the_start_is_told_too(shop: Shop) -> None:
    """The payment ends first and the session after it: the later of the two writes the mail."""
    _station_id, session_id, _epoch = await paid_for(shop)
    async with shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", session_id)
        assert payment is not None
    provider = payments.provider_of(shop.database.settings)
    await provider.cancel(payment.account_ref, payment.provider_ref or "", key="dashboard")
    await shop.look(payment)
    await shop.jobs.run()
    _first, told = await letters(shop)
    assert "did not begin.\n\nThe hold of €30.00 on your card is released" in plain(told)


async def test_who_cancels_after_the_hold_stood_hears_of_its_release_in_their_german(shop: Shop) -> None:
    _station_id, session_id, _epoch = await paid_for(shop, "de")
    async with shop.scope() as scope:
        await paid.give_up(scope, session_id)
    await shop.jobs.run()
    _first, told = await letters(shop)
    assert (told.language, told.subject) == ("de", "Die Reservierung auf Ihrer Karte ist aufgehoben")
    assert (
        "Ihr Ladevorgang bei Alpha hat nicht begonnen. Sie haben abgebrochen, bevor es begann.\n\n"
        "Die Reservierung von 30,00 € auf Ihrer Karte ist aufgehoben, es wird nichts berechnet."
    ) in plain(told)


async def test_nobody_hears_of_a_hold_that_never_stood(shop: Shop) -> None:
    _station_id, session_id, _epoch = await wish_for(shop)
    async with shop.scope() as scope:
        payment = await payments.find_payment(scope, "charging_session", session_id)
        assert payment is not None
        payment.payer_email = "driver@a.example"
    await shop.pay(payment, DECLINED)
    await shop.look(payment)
    async with shop.scope() as scope:
        await paid.give_up(scope, session_id)
    await shop.jobs.run()
    assert (await shop.read(payment.id)).state in ("expired", "canceled", "failed")
    assert await letters(shop) == []


async def test_mails_and_history_follow_the_address_that_was_corrected_before_the_card_was_given(
    yard: Yard, house: House
) -> None:
    """The stranger of the first address hears nothing, and has no such session."""
    shop = yard.shop
    stranger, jule = [await yard.driver(f"{name}@example.org") for name in ("stranger", "jule")]
    code, guest = await code_of(shop), house.driver("alpha")
    read = await guest.read(f"/c/{code}")
    for address in ("stranger@example.org", "jule@example.org"):
        assert (await guest.post(f"/c/{code}/start", {**read, "email": address})).status_code == 303
    _old, new = await all_of(shop, Payment)
    await shop.pay(new)
    await shop.look(new)
    await shop.jobs.run()
    (command,) = await all_of(shop, StationCommand)
    began = utcnow()
    verdict = await start_of(shop, yard.station_id, command.payload["idTag"], began)
    at = began + timedelta(hours=1)
    async with shop.database.scope(shop.tenant_id, Actor.station(yard.station_id), now=at) as scope:
        await service.report_transaction(scope, yard.station_id, TransactionReport(
            kind="Ended", at=at, received_at=at, natural_key="stop", meter_stop_wh=Decimal(11_000),
            ocpp_transaction_id=verdict.ocpp_transaction_id,
        ))  # fmt: skip
    await shop.jobs.run()
    async with shop.scope() as scope:
        sent = await mails.list_mails(scope)
    told = {(one.kind, one.to_address) for one in sent if one.kind != "invitation"}
    assert told == {("guest_session", "jule@example.org"), ("receipt", "jule@example.org")}
    (_given_up, session) = await all_of(shop, ChargingSession)
    assert (await yard.history(stranger), await yard.history(jule)) == ([], [session.id])


@pytest.mark.parametrize(
    ("code", "why"),
    [("evse_taken", "Somebody was quicker. Another driver started this charger first."),
     ("station_refused", "The charger said no. It refused to start."),
     ("station_offline", "The charger went offline. It cannot be started from here right now."),
     ("given_up", "You canceled before it began."), ("payment_ended", "")],
)  # fmt: skip
def test_why_a_session_did_not_begin_is_told(code: str, why: str) -> None:
    with speaking("en"):
        assert paid.why_not_started(ChargingSession(not_started=code)) == why


async def test_a_session_that_cost_nothing_releases_its_hold_and_says_so(visit: Visit) -> None:
    await visit.end(1, 0)
    payment = await visit.payment()
    assert (payment.state, payment.failure) == ("canceled", "nothing_owed")
    _first, told = await letters(visit.shop)
    assert "There was nothing to pay." in told.body and told.kind == "hold_released"


async def test_what_is_too_little_for_a_card_is_one_mail_and_says_that_nothing_is_held(visit: Visit) -> None:
    await visit.end(1, 0.5)
    _first, told = await letters(visit.shop)
    assert told.kind == "receipt" and "€0.30 is too little for a card and is waived." in told.body
    assert "The hold on your card is released and nothing is charged." in told.body


@pytest.mark.parametrize(
    ("kwh", "words"),
    [(10, "€6.00 were taken from Visa •••• 4242; the rest of the hold is released."),
     (50, "€30.00 were taken from Visa •••• 4242."), (62, "€30.00 were taken from Visa •••• 4242.")],
)  # fmt: skip
async def test_the_rest_of_a_hold_is_told_only_where_there_is_one(
    visit: Visit, kwh: float, words: str
) -> None:
    await visit.end(170, kwh)
    _first, told = await letters(visit.shop)
    assert words in plain(told).split("\n\n")


@pytest.mark.parametrize(
    ("language", "subject", "words", "reason"),
    [("en", "Alpha gave you money back", "Alpha gave €6.00 back to your card Visa •••• 4242.", "Reason: too loud"),
     ("de", "Alpha hat Ihnen Geld zurückgegeben",
      "Alpha hat 6,00 € auf Ihre Karte Visa •••• 4242 zurückgegeben.", "Grund: too loud")],
)  # fmt: skip
async def test_who_is_given_money_back_is_told_with_the_credit_notes_link(
    shop: Shop, language: str, subject: str, words: str, reason: str
) -> None:
    visit = await begin(shop, language)
    _invoice, note = await refunded(visit, "too loud")
    first, paid_mail, told = await letters(shop)
    assert [first.kind, paid_mail.kind, told.kind] == ["guest_session", "receipt", "refund"]
    assert (told.language, told.subject, told.to_address) == (language, subject, "driver@a.example")
    assert words in plain(told) and reason in plain(told)
    async with shop.scope() as scope:
        page = f"/s/{paid.link_of(scope, visit.session_id)}/receipt"
    assert f"{page}\n" in told.body and f"{page}.pdf?paper={public_id('invoice', note.id)}\n" in told.body
