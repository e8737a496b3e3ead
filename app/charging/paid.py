"""A session paid by card, a guest's or a logged-in driver's: a price, a hold, a start, a stop before the hold is used
up, and one unguessable link.

Journeys (b) and (c) of architecture.md. Errors beside those of `service.request_start`: `payments_off`,
`hold_too_small`, `too_many_checkouts`.
"""

import base64
import hashlib
import secrets as stdlib_secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.access import service as access
from app.access.verdict import IdTokenValue
from app.billing import payments
from app.billing.models import Payment, PaymentOp, SavedCard
from app.charging import legs as session_legs
from app.charging import off_session, service, settlement, snapshot, startable
from app.charging.legs import SILENCE_MARGIN
from app.charging.models import ChargingSession
from app.charging.offer import UNRATED_POWER_W, Offer, find_offer, title_of
from app.charging.plausibility import judge_risen, rated_power_w
from app.identity import limits
from app.identity.service import email_norm
from app.kernel import events, queue
from app.kernel.clock import uuid7
from app.kernel.errors import NotFound, Refused, TooMany
from app.kernel.ids import parse_id, public_id
from app.kernel.secrets import digest, digests, same
from app.stations import commands
from app.stations.models import EVSE, Connector, StationCommand
from app.tariffs import service as tariffs
from app.tariffs.models import TariffVersion
from tenants.resolve import own_url
from tenants.scope import Scope
from themes.language import N_, _
from themes.render import money

PAYING_LIFETIME = timedelta(minutes=35)
PLUG_IN_LIFETIME = timedelta(minutes=10)
# Per half hour. One address alone never comes to what closes an EVSE for everybody. By address only what came to no
# hold counts: the phones of a whole carrier may have one, and whoever tries stolen cards is declined more often.
STARTS_PER_ADDRESS, STARTS_PER_ADDRESS_AND_EVSE, STARTS_PER_EVSE = 8, 4, 24
CHECKOUT_WINDOW = timedelta(minutes=30)
LOOK_AGAIN_MIN, LOOK_AGAIN_MAX = timedelta(seconds=5), timedelta(minutes=5)
STOP_TAKES = timedelta(seconds=20)
SECOND_TAP = timedelta(seconds=15)
_NO_CARD_YET = ("created", "requires_action", "failed", "expired")
HOLD_TOO_SMALL = N_("This charger cannot be paid by card here right now. Please tell the operator.")


# -- the link ----------------------------------------------------------------------------------------------------------


def link_of(scope: Scope, session_id: UUID) -> str:
    """`ses_….<26 letters>`: the session's id and 128 bits that only we can make. Nothing of it is stored."""
    return f"{public_id('charging_session', session_id)}.{_proof(scope, session_id)}"


def _letters(mac: bytes) -> str:
    return base64.b32encode(mac[:16]).decode().rstrip("=").lower()


def _proof(scope: Scope, session_id: UUID) -> str:
    return _letters(digest(scope.settings.secret_keys, "guest-link", f"{scope.tenant_id}:{session_id}"))


def read_link(scope: Scope, link: str) -> UUID:
    """NotFound for anything that we did not make for this tenant."""
    shown, _, proof = link.partition(".")
    session_id = parse_id("charging_session", shown)
    made = digests(scope.settings.secret_keys, "guest-link", f"{scope.tenant_id}:{session_id}")
    if not any(same(_letters(mac).encode(), proof.encode()) for mac in made):
        raise NotFound("charging_session")
    return session_id


async def page_url(scope: Scope, session_id: UUID, origin: str = "") -> str:
    """The live page; on the host the driver came by, else where the brand's drivers are at home."""
    path = f"/s/{link_of(scope, session_id)}"
    return origin + path if origin else await own_url(scope, "driver", path)


# -- the wish ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """What somebody who starts here now agrees to. `digest` goes with the form: what comes back is what was read."""

    version: TariffVersion | None
    is_free: bool
    collection: str
    offer: Offer | None
    digest: str


async def find_terms(
    scope: Scope, evse: EVSE, *, driver_group_id: UUID | None = None, collection: str = "card",
    most_minor: int | None = None,
) -> Terms:  # fmt: skip
    """`collection` and `most_minor` as `account.Way` has them, or `voucher`. No offer where nothing is held: free,
    no price, cards are not taken."""
    location = evse.station.location
    if location is not None and location.is_free_vend:
        return Terms(None, True, collection, None, _digest("free_vend"))
    version = await tariffs.find_tariff_for(
        scope, driver_group_id=driver_group_id, evse_id=evse.id, location_id=evse.station.location_id, at=scope.now
    )  # fmt: skip
    if version is None:
        return Terms(None, False, collection, None, _digest("no_tariff"))
    offer = await find_offer(scope, evse, version) if collection in ("card", "wallet", "voucher") else None
    if offer is not None and most_minor is not None:
        offer = replace(offer, hold_minor=min(offer.hold_minor, most_minor))
    vat = await tariffs.default_vat(scope, location)
    read = [version.ocpi, vat, collection, (offer.hold_minor, offer.currency) if offer else None]
    return Terms(version, False, collection, offer, _digest(read))


def _digest(read: Any) -> str:
    return snapshot.digest_of(read).hex()[:32]


# -- one press ---------------------------------------------------------------------------------------------------------


Keep = Callable[[ChargingSession, Offer], Awaitable[Any]]


def new_wish() -> str:
    """Goes with each form: 128 bits that nobody guesses, for they lead to the session's page."""
    return stdlib_secrets.token_urlsafe(16)


def _wish_key(evse_id: UUID, wish: str) -> str | None:
    """Kept as a digest, and for one EVSE: a wish from elsewhere is another wish."""
    return hashlib.sha256(f"{evse_id}:{wish}".encode()).hexdigest() if wish else None


async def find_by_wish(scope: Scope, evse_id: UUID, wish: str, email: str) -> ChargingSession | None:
    """What this form's button has begun already; whoever asks holds `lock_evse` until the commit.

    A session that is over is the answer to a second tap only. After that somebody has come back to a page that their
    browser had kept, and wants to charge: the wish is free to begin anew. So it is for whoever corrects the e-mail
    address before a card is given: what went to the other address is given up, its payment page closes.
    """
    key = _wish_key(evse_id, wish)
    if key is None:
        return None
    query = select(ChargingSession).where(ChargingSession.wish == key).with_for_update()
    session = (await scope.db.execute(query)).scalar_one_or_none()
    if session is None:
        return None
    if not await _is_corrected(scope, session, email):
        if session.status in ("PENDING", "ACTIVE") or session.created_at > scope.now - SECOND_TAP:
            return session
    elif session.status == "PENDING":
        await _give_up(scope, session)
    session.wish = None
    await scope.db.flush()
    return None


async def _is_corrected(scope: Scope, session: ChargingSession, email: str) -> bool:
    """Is it the same form with another address, while nobody has given a card? The payment page shows the address and
    lets nobody change it there. What is paid keeps its own: an old form turns nobody's receipt away."""
    payment = await payments.find_payment(scope, "charging_session", session.id)
    if payment is None or payment.state not in _NO_CARD_YET or session.status not in ("PENDING", "INVALID"):
        return False
    return payment.payer_email != email_norm(email)


def keep_wish(session: ChargingSession, evse_id: UUID, wish: str) -> None:
    session.wish = _wish_key(evse_id, wish)


async def request_start(
    scope: Scope, evse_id: UUID, *, email: str, language: str, origin: str, remote: str,
    driver_id: UUID | None = None, driver_group_id: UUID | None = None, saved_card: SavedCard | None = None,
    keep: Keep | None = None,
) -> tuple[ChargingSession, PaymentOp | None]:  # fmt: skip
    """PENDING, and a hold to be asked for; at a free place the station is asked at once and there is no hold.

    With `driver_id` it is that driver's session, at the price of `driver_group_id`. `keep` holds the money itself, at
    once; their `saved_card` is asked by a job; both without a payment page.
    """
    await startable.lock_evse(scope, evse_id)
    evse = await startable.get_startable(scope, evse_id)  # before anybody gives a card for nothing
    location = evse.station.location
    if location is not None and location.is_free_vend:
        session, _command = await service.request_start(scope, evse_id=evse_id)
        await _check_limits(scope, evse, remote, session.id)
        session.driver_id = driver_id
        return session, None
    session_id = uuid7()
    await _check_limits(scope, evse, remote, session_id)
    terms = await find_terms(scope, evse, driver_group_id=driver_group_id)
    if terms.version is None:
        raise Refused("no_tariff", N_("No tariff applies here, so the price of a session would be unknown."))
    offer = terms.offer
    if offer is None:
        raise Refused("payments_off", N_("Cards cannot be taken here at the moment."))
    if not offer.is_enough:
        raise Refused("hold_too_small", HOLD_TOO_SMALL)
    session = ChargingSession(
        id=session_id, station_id=evse.station_id, evse_id=evse.id, evse_no=evse.evse_no, status="PENDING",
        origin="guest", id_token_masked="", started_at=scope.now, pending_until=scope.now + PAYING_LIFETIME,
        driver_id=driver_id, driver_group_id=driver_group_id,
    )  # fmt: skip
    scope.db.add(session)
    await scope.db.flush()
    await snapshot.freeze(
        scope, session
    )  # what the driver was shown is what they pay, however long the cable takes
    about: dict[str, Any] = {
        "source_type": "charging_session", "source_id": session.id, "hold_minor": offer.hold_minor,
        "currency": offer.currency, "title": title_of(evse), "email": email, "language": language,
    }  # fmt: skip
    op = None
    if keep is not None:
        await keep(session, offer)
    elif saved_card is not None:
        await payments.open_saved(scope, card=saved_card, **about)
    else:
        url = await page_url(scope, session.id, origin)
        _payment, op = await payments.open_payment(
            scope, success_url=f"{url}?paid=1", cancel_url=f"{url}?canceled=1", **about
        )
    await service.note(scope, session, "requested", "requested", {"by": "driver" if driver_id else "guest"})
    await queue.enqueue(
        scope, "charging.expire_pending", session_id=str(session.id),
        at=scope.now + PAYING_LIFETIME + timedelta(seconds=5),
    )  # fmt: skip
    return session, op


async def _check_limits(scope: Scope, evse: EVSE, remote: str, session_id: UUID) -> None:
    """Against card testing (stolen cards are tried where many can be tried, money.md 4.5), and against whoever would
    keep chargers busy with wishes. An address is forgiven what comes to a hold, or charges."""
    who = limits.network_of(remote)
    most = {
        f"start:address:{who}": STARTS_PER_ADDRESS, f"start:address:{who}:{evse.id}": STARTS_PER_ADDRESS_AND_EVSE,
    }  # fmt: skip
    redis, tenant_id = scope.redis, scope.tenant_id
    if await limits.claim(redis, tenant_id, session_id, most, CHECKOUT_WINDOW):
        here = f"start:evse:{evse.id}"
        if await limits.is_within(redis, tenant_id, here, STARTS_PER_EVSE, CHECKOUT_WINDOW):
            return
        await limits.forgive(redis, tenant_id, session_id)
    raise TooMany(
        N_("Too many starts were begun here in a short time. Try again in half an hour."),
        code="too_many_checkouts", retry_after_s=int(CHECKOUT_WINDOW.total_seconds()),
    )  # fmt: skip


async def pay_due(scope: Scope, session_id: UUID, *, language: str, origin: str) -> PaymentOp | None:
    """What the saved card did not pay is paid on the provider's page, where its bank can ask its driver. After commit
    `run_op` makes that page; None where it is there, or nothing is due."""
    session = await service.get_session(scope, session_id)
    legs = await payments.list_legs(scope, "charging_session", session_id)
    payment = next((leg for leg in legs if leg.is_due), None)
    if payment is None or session.evse is None:
        return None
    url = await page_url(scope, session_id, origin)
    evse = await off_session.evse_of(scope, session)
    return await payments.pay_due(
        scope, payment.id, title=title_of(evse) if evse else _("Charging"), success_url=f"{url}?paid=1",
        cancel_url=f"{url}?canceled=1", email=payment.payer_email, language=language,
    )  # fmt: skip


# -- the hold stands, or does not --------------------------------------------------------------------------------------


async def payment_authorized(scope: Scope, event_id: UUID) -> None:
    """The hold stands: the station is asked. The first hold that stands wins the EVSE; whatever forbids the start
    lets the hold go, and the page says why."""
    session, payment = await _subject(scope, event_id)
    if session is None or payment is None:
        return
    # What was paid ahead holds at once, and as often as it is given up: that is forgiven once it charges.
    if payment.provider not in payments.PAID_AHEAD:
        await limits.forgive(scope.redis, scope.tenant_id, session.id)
    await startable.lock_evse(scope, session.evse_id)
    pending = await service.lock_pending(scope, session.id)
    if pending is None or pending.cost_cap_minor is not None:
        session = await service.get_session(scope, session.id)
        if session.status == "INVALID":
            await payments.release(scope, "charging_session", session.id, session.not_started or "over")
        elif session.status == "COMPLETED":
            await settlement.capture(scope, session.id)
        elif payment.leg > 1:
            await watch_cap(scope, session.id, comes_back=False)
        return
    session = pending
    try:
        evse = await startable.get_startable(scope, session.evse_id, but=session.id)
    except (Refused, NotFound) as error:
        await service.end_unstarted(scope, session, error.code, "not_started", {"code": error.code})
        return
    token, value = await access.create_one_off_token(scope)
    session.id_token_id, session.id_token_masked = token.id, access.mask(value)
    session.cost_cap_minor = payment.hold_minor
    await service.send_start(scope, evse, session, IdTokenValue(value, "Central"), PLUG_IN_LIFETIME)


async def hold_changed(scope: Scope, event_id: UUID) -> None:
    """The bank has raised a hold, or refused to: the session may go on, or asks for another one."""
    session, _payment = await _subject(scope, event_id)
    if session is not None:
        scope.publish(f"session:{session.id}", {"what": "payment"})
        await watch_cap(scope, session.id, comes_back=False)


async def payment_ended(scope: Scope, event_id: UUID) -> None:
    """No hold will come of it any more, or the one that stood is gone: then a car that charges is stopped."""
    session, payment = await _subject(scope, event_id)
    if session is None or payment is None:
        return
    pending = await service.lock_pending(scope, session.id)
    if pending is not None:
        await service.end_unstarted(
            scope, pending, payment.failure or "payment_ended", "not_started", {"code": payment.failure}
        )
    else:
        await watch_cap(scope, session.id, comes_back=False)


async def payment_action_required(scope: Scope, event_id: UUID) -> None:
    """A saved card was declined: a car that charges is stopped. One whose bank only asks goes on, up to the cap."""
    session, _payment = await _subject(scope, event_id)
    if session is not None:
        scope.publish(f"session:{session.id}", {"what": "payment"})
        await watch_cap(scope, session.id, comes_back=False)


async def payment_settled(scope: Scope, event_id: UUID) -> None:
    """What was taken is known now: if papers were corrected while it was under way, the difference is given back; so
    is what was taken on the way of a session that came to nothing."""
    session, payment = await _subject(scope, event_id)
    if session is not None and payment is not None:
        if session.status == "INVALID":
            await service.lock_settling(scope, session.id)
            await payments.release(scope, "charging_session", session.id, session.not_started or "voided")
        await settlement.correct_payment(scope, session.id)


async def dispute_closed(scope: Scope, event_id: UUID) -> None:
    """The money is ours again, or never will be: what papers gave back meanwhile follows."""
    event = await scope.db.get(events.Event, (scope.tenant_id, event_id))
    if event is not None and event.data.get("source_type") == "charging_session":
        await settlement.correct_payment(scope, UUID(event.data["source_id"]))


async def _subject(scope: Scope, event_id: UUID) -> tuple[ChargingSession | None, Payment | None]:
    event = await scope.db.get(events.Event, (scope.tenant_id, event_id))
    if event is None or event.data.get("source_type") != "charging_session":
        return None, None
    session = await service.get_session(scope, UUID(event.data["source_id"]))
    return session, await payments.get_payment(scope, event.source_id)


async def give_up(scope: Scope, session_id: UUID) -> None:
    """The driver changed their mind before it began."""
    session = await service.lock_pending(scope, session_id)
    if session is not None:
        await _give_up(scope, session)


async def _give_up(scope: Scope, session: ChargingSession) -> None:
    await service.end_unstarted(scope, session, "given_up", "not_started", {"code": "given_up"})


# -- the cap -----------------------------------------------------------------------------------------------------------


async def session_started(scope: Scope, event_id: UUID) -> None:
    event = await scope.db.get(events.Event, (scope.tenant_id, event_id))
    session = await scope.db.get(ChargingSession, (scope.tenant_id, event.source_id)) if event else None
    if event is None or session is None:
        return  # a remote start took the transaction over since
    if session.origin != "station":
        await limits.forgive(scope.redis, scope.tenant_id, session.id)
    await off_session.hold_session(scope, event.source_id)
    await watch_cap(scope, event.source_id)


async def watch_cap(scope: Scope, session_id: UUID, *, comes_back: bool = True) -> None:
    """Stops a guest's session before its price reaches the hold, by reading and by clock (money.md 4.5).

    It looks at what the session would cost by the time a stop takes effect if it ran at full power from the last
    reading on, and comes back when that could next matter. A silent or offline station is watched like any other: the
    stop waits for it, and what it gives beyond the hold is the operator's loss. A reading makes it look once more,
    without coming back.
    """
    session = await service.get_session(scope, session_id)
    if session.cost_cap_minor is None or session.status != "ACTIVE":
        return
    legs = await payments.list_legs(scope, "charging_session", session_id)
    cap = await session_legs.cap_minor(scope, session, legs)
    if not any(off_session.is_covered(leg) for leg in legs):  # there is nothing left to pay from
        await _stop(scope, session, "hold_gone", comes_back=comes_back)
        return
    if not await session_legs.keep_until_end(scope, session, legs):
        await _stop(scope, session, "hold_ends", comes_back=comes_back)
        ends_at = min(leg.capture_before for leg in legs if leg.state == "authorized" and leg.capture_before)
        if scope.now > ends_at - SILENCE_MARGIN:
            await service.close_silent(scope, session.id)
        return
    cost = await cost_by(scope, session, scope.now + STOP_TAKES)
    if await session_legs.is_nearly_used(scope, legs, cap, cost) and (
        await cost_by(scope, session, scope.now + session_legs.ASKED_BEFORE_USED) >= cap
    ):
        await off_session.grow(scope, session)
        legs = await payments.list_legs(scope, "charging_session", session_id)
    session.cost_cap_minor = cap  # not before: whoever settles it locks it in another order
    if cost >= cap and not await session_legs.waits_for_bank(scope, legs):
        await _stop(scope, session, "hold_used", comes_back=comes_back)
        return
    if not comes_back:
        return
    ahead = LOOK_AGAIN_MAX
    while ahead > LOOK_AGAIN_MIN:
        if await cost_by(scope, session, scope.now + ahead + STOP_TAKES) < cap:
            break
        ahead /= 2
    await queue.enqueue(
        scope, "charging.watch_cap", session_id=str(session_id), lock=f"cap:{session_id}",
        at=scope.now + max(ahead, LOOK_AGAIN_MIN),
    )  # fmt: skip


async def cost_by(scope: Scope, session: ChargingSession, at: datetime) -> int:
    """Minor units incl. VAT, had it run at full power since its meter was read last, or did it stand there from now on,
    whatever it does now: standing may cost more than charging, and may begin right after this look."""
    live = session.live
    # Cable first: the meter may have been read long before the driver came, and nothing flowed until then.
    read_at = max((live.metered_at if live else None) or session.started_at, session.started_at)
    power_w = max(await _full_power_w(scope, session), (live.power_w or 0) if live else 0)
    seconds = max((at - read_at).total_seconds(), 0)
    # A meter that was set back forgets what the car got before.
    given_wh = max((live.energy_wh or 0) if live else 0, await judge_risen(scope, session, power_w))
    energy_wh = given_wh + round(power_w * seconds / 3600)
    prices = (
        await settlement.price_at(scope, session, max(at, session.started_at), energy_wh),
        await settlement.price_if_standing(scope, session, max(at, session.started_at), given_wh),
    )
    return max(price.total_cost.incl_minor if price else 0 for price in prices)


async def _full_power_w(scope: Scope, session: ChargingSession) -> int:
    """What the plate says; where it says nothing, what an AC charger gives."""
    query = select(Connector).where(Connector.evse_id == session.evse_id)
    rated = [rated_power_w(connector) or 0 for connector in (await scope.db.execute(query)).scalars()]
    return max(rated, default=0) or UNRATED_POWER_W


async def _stop(scope: Scope, session: ChargingSession, why: str, *, comes_back: bool) -> None:
    """Once: a stop that was asked for is repeated only when nothing came of it for a minute. One that the station may
    not be asked for is told, and tried again: the hold ends in time all the same."""
    last = await service.last_stop(scope, session)
    is_long_ago = last is None or last.created_at < scope.now - service.STOP_TAKES_AT_MOST
    if is_long_ago and not _is_stopped(session, last):
        try:
            command = await service.request_stop(scope, session.id)
            await service.note(scope, session, f"cap:{command.id}", "cap_reached", {"why": why})
        except Refused as error:
            if error.code not in service.NOT_ASKED:  # it ended this moment
                return
            await service.note(scope, session, f"cap:{why}:{error.code}", "cap_reached", {"why": why})
            await service.note(
                scope, session, f"stop_not_sent:{error.code}", "stop_not_sent", {"error": error.message}
            )
    if comes_back:
        await queue.enqueue(
            scope, "charging.watch_cap", session_id=str(session.id), lock=f"cap:{session.id}",
            at=scope.now + timedelta(minutes=1),
        )  # fmt: skip


def most_taken(payment: Payment | None, cost_minor: int | None) -> int | None:
    """The hold, where it stands and does not come to the cost: no more can be taken. Else None."""
    if payment is None or cost_minor is None or payment.state not in ("authorized", "capturing"):
        return None
    return payment.hold_minor if cost_minor > payment.hold_minor else None


# -- what the driver sees ----------------------------------------------------------------------------------------------


async def state_words(
    scope: Scope, session: ChargingSession, payment: Payment | None, collection: str = "card", *,
    has_returned: bool = False, owed_minor: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """{"title", "text", "tone", "step", "may_stop", "is_over"}: where it stands and what to do next, in words. `step`
    0 to 4 of the way; `may_stop`: asking the station to stop is of use; `is_over`: no energy flows any more.

    `has_returned`: the driver comes from the payment page, and we may not have heard of it yet. `owed_minor`: what its
    CDR comes to.
    """
    if session.status == "PENDING":
        if payment is not None and session.cost_cap_minor is None:
            if payment.state == "authorized":
                words = N_("The hold on your card stands. The charger is asked to start.")
                return _words(N_("Card accepted"), words, tone="info", step=1)
            if has_returned:
                words = N_("One moment: we ask whether the hold on your card stands.")
                return _words(N_("Checking your payment"), words, tone="info", step=0)
            if payment.is_due:
                title, why = _due_words(payment)
                words = N_("Nothing is held. Go on to the payment page to start.")
                return _words(title, why, words, tone="warning", step=0)
            if payment.saved_card_id is not None:
                words = N_("One moment: your saved card is asked for the hold.")
                return _words(N_("Asking your card"), words, tone="info", step=0)
            if payment.failure:
                why = _DECLINED.get(payment.failure, N_("Your bank gave no reason."))
                words = N_("Nothing is held. Try another card on the payment page.")
                return _words(N_("Your card was declined"), why, words, tone="warning", step=0)
            if payment.checkout_ref is None:
                if not await payments.has_no_answer(scope, payment):
                    words = N_("One moment: nothing is taken yet.")
                    return _words(N_("Opening the payment page"), words, tone="info", step=0)
                words = N_("We keep trying; nothing is taken yet. You can cancel and try again later.")
                return _words(N_("The payment service does not answer yet"), words, tone="warning", step=0)
            words = N_("Give your card on the payment page. Nothing is taken yet.")
            return _words(N_("Waiting for your card"), words, tone="info", step=0)
        return await _waiting_words(scope, session, payment)
    nothing = _RELEASED if payment is not None and payment.hold_minor else N_("Nothing is charged.")
    if session.status == "INVALID" and session.not_started is None:
        return _words(
            N_("Not charged"), N_("The operator looked at this session."), nothing, tone="info", step=4
        )
    if session.status == "INVALID":
        has_page = payment is None or payment.state != "failed" or payment.checkout_ref is not None
        title, *sentences = _NOT_STARTED.get(session.not_started or "", _UNKNOWN if has_page else _NO_PAGE)
        sentences = [nothing if one is _NOTHING else one for one in sentences]
        return _words(title, *sentences, tone="warning", step=0)
    if session.status == "ACTIVE":
        return await _running_words(scope, session, collection)
    given_back = await _given_back_words(scope, payment) if payment is not None else None
    if given_back is not None:  # also while the operator still looks at it
        return given_back
    if session.review and session.settled_at is not None and payment is not None and payment.captured_minor:
        words = N_(
            "What was measured is paid, and your receipt is ready. The operator still looks at this session:"
        )
        more = N_("if it was too much, you get the rest back.")
        return _words(N_("Being checked"), words, more, tone="info", step=4)
    if session.review and payment is not None and payment.failure == "under_review":
        words = N_(
            "The operator looks at this session. The hold on your card is released, and nothing is taken."
        )
        return _words(N_("Being checked"), words, tone="info", step=3)
    if session.review:
        words = N_("The operator looks at this session before you pay. The receipt comes then.")
        return _words(N_("Being checked"), words, tone="warning", step=3)
    if collection in _NO_RECEIPT:
        return _words(N_("Finished"), _NO_RECEIPT[collection], tone="success", step=4)
    is_nothing = owed_minor == 0 or (payment is not None and payment.failure == "nothing_owed")
    if session.settled_at is not None and is_nothing and not (payment and payment.captured_minor):
        had_hold = payment is not None and payment.hold_minor
        words = (
            N_("There was nothing to pay: the hold on your card is released.")
            if had_hold
            else N_("There was nothing to pay.")
        )
        return _words(N_("Finished"), words, tone="success", step=4)
    if session.settled_at is not None and payment is not None and payment.is_due:
        if has_returned:
            return _words(
                N_("Checking your payment"), N_("One moment: we ask your bank."), tone="info", step=3
            )
        title, why = _due_words(payment)
        words = N_("Please pay this session. Until then your saved card starts nothing.")
        return _words(title, why, words, tone="warning", step=3)
    is_open = payment is not None and payment.state in ("authorized", "capturing", *payments.OPEN)
    if session.settled_at is None or is_open:
        words = N_("Thank you. Your receipt is being written.")
        return _words(N_("Finished"), words, tone="success", step=3)
    if payment is not None and payment.failure == "below_minimum":
        words = N_("That was too little for a card: it is on us, and the hold is released.")
        return _words(N_("Finished"), words, tone="success", step=4)
    if payment is not None and payment.state in ("canceled", "expired", "failed"):
        words = N_("The hold on your card had ended before it was paid: this session is on us.")
        return _words(N_("Finished"), words, tone="success", step=4)
    words = N_("Thank you for charging with us. Your receipt is ready.")
    return _words(N_("Finished"), words, tone="success", step=4)


def _due_words(payment: Payment) -> tuple[str, str]:
    if payment.failure == "authentication_required":
        return N_("Your bank asks for you"), N_("It wants you to confirm the payment by your saved card.")
    return N_("Your saved card was declined"), _DECLINED.get(payment.failure, N_("Your bank gave no reason."))


def due_words(session: ChargingSession, payment: Payment | None) -> dict[str, str] | None:
    """Beside what a running session says: its saved card gave nothing."""
    if payment is None or not payment.is_due or session.status != "ACTIVE":
        return None
    title, why = _due_words(payment)
    return {"title": _(title), "text": _(why)}


async def _given_back_words(scope: Scope, payment: Payment) -> dict[str, Any] | None:
    """What comes back, or that all did; None where neither is so."""
    legs = await payments.legs_beside(scope, payment)
    back = await payments.find_back_by(scope, legs)
    if back.on_its_way_minor or back.refused_minor:
        amount = money(back.on_its_way_minor + back.refused_minor, payment.currency)
        gets = _("You get %(amount)s back.") % {"amount": amount}
        how = N_("It is not on your card yet: we will try again.")
        if payment.refund_failed_minor:
            how = N_("Your bank sent it back: we will try again, or pay you in another way.")
        how = how if back.refused_minor else N_("It is on its way to your card.")
        return _words(N_("Credited"), gets, how, tone="info", step=4)
    if payment.repaid_minor:
        amount = money(payment.refunded_minor + payment.repaid_minor, payment.currency)
        paid = [one for leg in legs for one in await payments.list_repayments(scope, leg.id)]
        words = _("%(amount)s of what you paid was given back. Reference of the transfer: %(reference)s") % {
            "amount": amount, "reference": ", ".join(one.reference for one in paid),
        }  # fmt: skip
        return _words(N_("Given back"), words, tone="success", step=4)
    if payment.refunded_minor and payment.state == "refunded":
        words = N_("What you paid was given back to your card.")
        return _words(N_("Given back"), words, tone="success", step=4)
    if payment.refunded_minor:
        amount = money(payment.refunded_minor, payment.currency)
        words = _("%(amount)s of what you paid was given back to your card.") % {"amount": amount}
        return _words(N_("Partly given back"), words, tone="success", step=4)
    return None


async def _waiting_words(scope: Scope, session: ChargingSession, payment: Payment | None) -> dict[str, Any]:
    """The charger was asked; whether it heard that, and whether it is there at all, decides what the driver does."""
    connection = await service.connection_of(scope, session.station_id)
    if connection is None or not connection.is_online:
        silent = N_("It does not answer right now.")
        more = N_("If it stays silent, nothing starts and nothing is charged.")
        if payment is not None:
            more = N_("If it stays silent, nothing is charged and the hold on your card is released.")
        return _words(N_("No word from the charger"), silent, more, tone="warning", step=1)
    command = await commands.get_command(scope, session.command_id) if session.command_id else None
    if command is not None and command.status != "accepted":
        words = N_(
            "It is asked to start and has not answered yet. You can connect the cable to your car already."
        )
        return _words(N_("Asking the charger"), words, tone="info", step=1)
    words = N_("The charger is ready for you. Connect the cable to your car.")
    return _words(N_("Plug in now"), words, tone="info", step=1)


async def _running_words(scope: Scope, session: ChargingSession, collection: str) -> dict[str, Any]:
    """A station may keep its transaction open until the cable is out: a car that has finished is told to go, and what
    it costs to stay."""
    asked = await service.last_stop(scope, session)
    waits = asked is not None and asked.status in ("queued", "sent")
    state = (session.live.charging_state if session.live else None) or ""
    is_stopped = _is_stopped(session, asked)
    is_over = is_stopped or (state in _NOT_CONNECTED and await service.has_charged(scope, session))
    if not is_over and not service.may_be_asked(session.station):
        title, _state = _CHARGING.get(state, _CHARGES)
        return _words(title, NOT_FROM_HERE, tone="warning", step=2, may_stop=False)
    connection = await service.connection_of(scope, session.station_id)
    if connection is not None and not connection.is_online:
        silent = N_("It does not answer right now, and may go on charging.")
        if not waits:
            more = N_("What it gave is counted when it is back. To end now, unplug your car.")
            return _words(N_("No word from the charger"), silent, more, tone="warning", step=2)
        more = N_("It stops as soon as it hears us. To end now, unplug your car.")
        return _words(
            N_("The stop has not arrived yet"), silent, more, tone="warning", step=2, may_stop=False
        )
    is_recent = asked is not None and asked.created_at > scope.now - service.STOP_TAKES_AT_MOST
    if asked is not None and is_recent and not (is_over and not waits):
        if asked.status not in ("queued", "sent", "accepted"):
            words = N_(
                "The charger did not stop when it was asked. Try again, stop it at the charger, or call us."
            )
            return _words(N_("Still charging"), words, tone="warning", step=2)
        words = N_("The charger was asked to stop. That takes a moment.")
        return _words(N_("Stopping"), words, tone="info", step=2, may_stop=False)
    title, words = _CHARGING.get(state, _CHARGES)
    if is_over:
        title, words = _FINISHED.get(state, _FINISHED["EVConnected"])
    fee = ""
    if (is_over or state == "SuspendedEV") and collection != "free":
        price = await settlement.standing_price(scope, session)
        fee = _("After charging, standing here costs %(price)s.") % {"price": price} if price else ""
    tone, step = ("warning" if fee else "success"), (3 if is_over else 2)
    may_stop = not is_stopped and service.may_be_asked(session.station)
    return _words(title, words, fee, tone=tone, step=step, may_stop=may_stop, is_over=is_over)


def _is_stopped(session: ChargingSession, asked: StationCommand | None) -> bool:
    """The station took the stop, and no energy flows any more; what it waits for is the cable."""
    state = session.live.charging_state if session.live else None
    return asked is not None and asked.status == "accepted" and state not in (None, "Charging")


def why_not_started(session: ChargingSession) -> str:
    """In a sentence or two; empty where the page knows no more either."""
    known = _NOT_STARTED.get(session.not_started or "")
    if known is None:
        return ""
    return _(known[1]) if session.not_started == "given_up" else f"{_(known[0])}. {_(known[1])}"


def _words(
    title: str, *sentences: str, tone: str, step: int, may_stop: bool = True, is_over: bool = False
) -> dict[str, Any]:
    text = " ".join(_(sentence) for sentence in sentences if sentence)
    return {
        "title": _(title),
        "text": text,
        "tone": tone,
        "step": step,
        "may_stop": may_stop,
        "is_over": is_over,
    }


NOT_FROM_HERE = N_("It cannot be stopped from here right now. To end now, unplug your car, or call us.")
_CHARGES = (N_("Charging"), N_("Energy is flowing into your car."))
_CHARGING = {
    "SuspendedEV": (N_("Paused by the car"),
                    N_("Your car takes no energy right now: it is full, or it waits. If it is full, unplug it.")),
    "SuspendedEVSE": (N_("Paused by the charger"), N_("The charger gives no energy right now. It goes on by itself.")),
    "EVConnected": (N_("Cable connected"), N_("Charging begins in a moment.")),
    "Idle": (N_("Unplugged"), N_("No energy flows. Connect the cable to your car.")),
}  # fmt: skip
_NOT_CONNECTED = ("EVConnected", "Idle")
_FINISHED = {
    "EVConnected": (N_("Charging has ended"), N_("Unplug your car to end the session.")),
    "Idle": (N_("Unplugged"), N_("No energy flows any more. The charger ends the session by itself.")),
}  # fmt: skip
_DECLINED = {
    "insufficient_funds": N_("Your bank says that there is not enough money for the hold."),
    "expired_card": N_("The card has expired."),
    "payment_intent_authentication_failure": N_("Your bank could not confirm that it is you."),
}
_NO_RECEIPT = {
    "monthly": N_("Thank you. This session goes on your monthly invoice."),
    "free": N_("Thank you. This session was free for you."),
}
_RELEASED = N_("The hold on your card is released and nothing is charged.")
_NOTHING = ""  # where it is said that nothing is charged, and of a hold only to whom one stood for
_UNKNOWN = (N_("Not started"), N_("Nothing was started."), _NOTHING)
_NO_PAGE = (
    N_("The payment page could not be opened"), N_("The card provider refused to open it."), _NOTHING,
    N_("Try again in a few minutes, or call us."),
)  # fmt: skip
_NOT_STARTED = {
    "not_plugged_in": (N_("Nobody plugged in"), N_("The charger waited for the cable and gave up."), _NOTHING),
    "station_refused": (N_("The charger said no"), N_("It refused to start."), _NOTHING,
                        N_("Try the next one, or call us.")),
    "station_offline": (N_("The charger went offline"), N_("It cannot be started from here right now."), _NOTHING),
    "evse_taken": (N_("Somebody was quicker"), N_("Another driver started this charger first."), _NOTHING),
    "evse_reserved": (N_("This charger is reserved"), N_("It is kept for somebody else."), _NOTHING),
    "evse_busy": (N_("This charger is in use"), N_("A session is running here already."), _NOTHING),
    "evse_faulted": (N_("The charger reports a fault"), N_("It cannot be started."), _NOTHING),
    "evse_unavailable": (N_("The charger is out of service"), N_("It cannot be started."), _NOTHING),
    "station_quarantined": (N_("The charger is out of service"), N_("It cannot be started."), _NOTHING),
    "station_not_accepted": (N_("The charger is out of service"), N_("It cannot be started."), _NOTHING),
    "tenant_suspended": (N_("No new sessions here"), N_("This operator takes no new sessions at the moment."),
                         _NOTHING),
    "given_up": (N_("Canceled"), N_("You canceled before it began."), _NOTHING),
    "checkout_expired": (N_("The payment page has closed"), N_("No card was given in time."), _NOTHING),
}  # fmt: skip
