"""Sessions of known drivers that are paid by the card they saved, though nobody stands by: at the reader, by app, by
staff (money.md 1.3). The station never waits for the provider: the session runs while a job asks for the hold.

Whatever becomes of that hold, the session is capped by it. A card that gives nothing leaves the driver owing
(`payments.Payment.is_due`): they are told, and their saved card starts nothing until it is paid.

A session that outgrows its hold asks the same card for another one, its next leg (decision 0036, `legs`).
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.billing import cards, payments
from app.billing.models import Payment
from app.brands import faces
from app.charging import service
from app.charging.models import ChargingSession, PriceSnapshot
from app.charging.offer import find_offer, title_of
from app.stations.models import EVSE, ChargingStation
from app.tariffs.models import TariffVersion
from tenants.scope import Scope
from themes.language import speaking


async def place_hold(
    scope: Scope, session: ChargingSession, *, owed_minor: int | None = None
) -> Payment | None:
    """Once per session, whoever comes first: its start, or its end (`owed_minor`, what it came to). None where it is
    not to be paid by a saved card; also where that card is gone since: then an invoice is all there is. Whoever calls
    holds `lock_settling`."""
    query = select(PriceSnapshot).where(PriceSnapshot.session_id == session.id)
    frozen = (await scope.db.execute(query)).scalar_one_or_none()
    if frozen is None or frozen.collection != "card" or session.driver is None:
        return None
    if session.status not in ("ACTIVE", "COMPLETED") or session.cost_cap_minor is not None:
        return None
    evse = await evse_of(scope, session)
    version = await scope.db.get(TariffVersion, (scope.tenant_id, frozen.tariff_version_id))
    card = await cards.find_usable(scope, session.driver_id)
    offer = await find_offer(scope, evse, version) if evse is not None and version is not None else None
    if card is None or offer is None or evse is None:
        frozen.collection = "per_session"
        return None
    hold_minor = offer.hold_minor + (0 if offer.is_enough else offer.begins_at_minor)
    if owed_minor is not None:
        hold_minor = max(owed_minor, payments.minimum_minor(offer.currency))
    language = await faces.get_language(scope, session.driver.language)
    with speaking(language):
        payment, _op = await payments.open_saved(
            scope, source_type="charging_session", source_id=session.id, card=card, hold_minor=hold_minor,
            currency=offer.currency, title=title_of(evse), email=session.driver.email or "", language=language,
        )  # fmt: skip
    session.cost_cap_minor = hold_minor
    await scope.db.flush()
    await service.note(scope, session, "hold_asked", "hold_asked", {"card": card.name})
    return payment


async def hold_session(scope: Scope, session_id: UUID) -> None:
    await service.lock_settling(scope, session_id)
    session = await service.get_session(scope, session_id)
    if session.settled_at is None:  # what is settled has its payment, or none
        await place_hold(scope, session)


async def asked_at(scope: Scope, legs: Sequence[Payment]) -> datetime | None:
    """When the bank was asked for more than the first hold, where it has not answered yet."""
    for leg in legs[1:]:
        if leg.state in payments.OPEN and leg.failure == "":
            return leg.created_at
    raises = (await payments.list_increments(scope, legs)).values()
    waiting = [op.created_at for ops in raises for op in ops if op.state not in ("succeeded", "failed")]
    return max(waiting, default=None)


async def may_grow(scope: Scope, legs: Sequence[Payment]) -> bool:
    """All of it was held on a saved card, which said no to nothing yet, and it may come to more: a hold that was raised
    counts as often as it was."""
    is_saved = all(leg.saved_card_id is not None and leg.checkout_ref is None for leg in legs)
    held = ("authorized", "capturing", *payments.TAKEN)
    stands = all(leg.state in held or leg.failure == "followed" for leg in legs)
    if not legs or not is_saved or not stands or await asked_at(scope, legs) is not None:
        return False
    account = await payments.find_account(scope)
    raises = (await payments.list_increments(scope, legs)).values()
    count = len(legs) + sum(op.state == "succeeded" for ops in raises for op in ops)
    return account is not None and count < account.max_legs


async def most_held_minor(scope: Scope, legs: Sequence[Payment]) -> int | None:
    """What the holds of a running session may come to in all; None where there is one, and no other."""
    account, first = await payments.find_account(scope), legs[0] if legs else None
    if first is None or first.saved_card_id is None or first.checkout_ref is not None or account is None:
        return None
    count = max(account.max_legs, len(legs))
    return count * await payments.asked_minor(scope, first) if count > 1 else None


async def grow(
    scope: Scope, session: ChargingSession, *, owed_minor: int | None = None, needs_time: bool = False
) -> bool:
    """Asks the bank for as much again as the first hold: by raising the newest, where that is possible and what it
    lacks is no time (`needs_time`), else by the next leg; over `owed_minor` where that is known. False where it may not
    be, or somebody was quicker."""
    await service.lock_settling(scope, session.id)
    await scope.db.refresh(session, ["status"])
    legs = await payments.list_legs(scope, "charging_session", session.id)
    if (owed_minor is None and session.status != "ACTIVE") or not await may_grow(scope, legs):
        return False
    first_minor = await payments.asked_minor(scope, legs[0])
    if owed_minor is None and not needs_time:
        raised = await payments.raise_hold(scope, legs[-1].id, first_minor)
        if raised is not None:
            told = {"card": legs[-1].method}
            await service.note(scope, session, f"raise:{raised.id}", "hold_raise_asked", told)
            return True
    card = await cards.find_by_id(scope, legs[0].saved_card_id)
    evse = await evse_of(scope, session)
    if card is None or card.is_expired(scope.now) or evse is None or session.driver is None:
        return False
    language = await faces.get_language(scope, session.driver.language)
    with speaking(language):
        payment, _op = await payments.open_saved(
            scope, source_type="charging_session", source_id=session.id, card=card, leg=legs[-1].leg + 1,
            hold_minor=first_minor if owed_minor is None else owed_minor, currency=legs[0].currency,
            title=title_of(evse), email=session.driver.email or "", language=language,
        )  # fmt: skip
    told = {"card": card.name, "leg": payment.leg}
    await service.note(scope, session, f"leg:{payment.leg}", "hold_asked", told)
    return True


async def cover(scope: Scope, session: ChargingSession, gross_minor: int) -> None:
    """At its end: what its legs do not come to is asked of the same card. Whoever calls holds `lock_settling`."""
    legs = await payments.list_legs(scope, "charging_session", session.id)
    missing = gross_minor - await payments.most_minor(scope, legs)
    if legs and missing >= payments.minimum_minor(legs[0].currency) and await may_grow(scope, legs):
        await grow(scope, session, owed_minor=missing)


async def evse_of(scope: Scope, session: ChargingSession) -> EVSE | None:
    query = (
        select(EVSE)
        .where(EVSE.id == session.evse_id)
        .options(
            selectinload(EVSE.connectors),
            selectinload(EVSE.station).selectinload(ChargingStation.location),
        )
    )
    return (await scope.db.execute(query)).scalar_one_or_none()


def is_covered(payment: Payment) -> bool:
    """There is a hold to pay from; or one is being asked for, or the bank only wants to see its payer first."""
    if payment.state == "authorized" or (
        payment.provider == payments.TERMINAL and payment.state in payments.TAKEN
    ):
        return True  # some terminals take the money before the car charges
    is_asked = payment.saved_card_id is not None and payment.state in payments.OPEN
    return is_asked and payment.failure in ("", "authentication_required")
