"""Sessions paid from their driver's wallet (`app.billing.wallets`): one begun on the charger's page keeps a part of it
before the station is asked, one begun by card at the reader as soon as we hear of it.

One order everywhere (docs/decisions/0038): the wallet, where it has all that a card would be asked to hold; else the
saved card, where there is one; else the wallet as far as it goes; else a card is asked on the page, and at the reader
the group's own rule holds."""

from dataclasses import replace
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.access import accounts
from app.access.models import Driver
from app.billing import cards, wallets
from app.billing.models import Payment, SavedCard
from app.brands import faces
from app.charging import paid, service, settlement
from app.charging.account import Way
from app.charging.models import ChargingSession
from app.kernel import events
from app.kernel.errors import Refused
from app.stations.models import EVSE, ChargingStation
from app.tariffs import service as tariffs
from tenants.scope import Scope


async def prefer(scope: Scope, driver: Driver, evse: EVSE, way: Way) -> Way:
    """The wallet instead of the checkout, where the beginning of a session leaves something of it; instead of a saved
    card, where it goes as far."""
    if way.collection != "card":
        return way
    found = await wallets.find_available(scope, driver.id)
    if found is None:
        return way
    terms = await paid.find_terms(scope, evse, driver_group_id=way.driver_group_id, collection="wallet")
    if (
        terms.offer is None
        or terms.offer.currency != found[1]
        or not _is_enough(terms.offer, found[0], way.saved)
    ):
        return way
    return replace(way, collection="wallet", most_minor=found[0], saved=None)


def _is_enough(offer: paid.Offer, available_minor: int, saved: SavedCard | None) -> bool:
    if saved is not None:
        return available_minor >= offer.hold_minor
    return replace(offer, hold_minor=min(offer.hold_minor, available_minor)).is_enough


async def keeper(scope: Scope) -> paid.Keep:
    """What `paid.request_start` asks instead of a payment page, for the driver who acts."""
    driver = await accounts.get_own(scope)

    async def keep(session: ChargingSession, offer: paid.Offer) -> Payment:
        return await _keep(scope, session, driver, offer)

    return keep


async def session_started(scope: Scope, event_id: UUID) -> None:
    event = await scope.db.get(events.Event, (scope.tenant_id, event_id))
    session = await scope.db.get(ChargingSession, (scope.tenant_id, event.source_id)) if event else None
    if session is not None:  # else a remote start took the transaction over since
        await keep_for_running(scope, session.id)


async def keep_for_running(scope: Scope, session_id: UUID) -> None:
    """A driver's own session by card at the reader that they pay for: what it may cost is kept in their wallet, and it
    is stopped before that is used up. One that was over before anybody looked is paid so too, before it is settled.
    Twice is once. Where there is too little, their saved card is asked (`off_session`), or an invoice follows."""
    if not await wallets.is_offered(scope):
        return
    await service.lock_settling(scope, session_id)
    session = await service.get_session(scope, session_id)
    is_own = session.driver_id is not None and session.id_token_status == "Accepted"
    if not is_own or session.cost_cap_minor is not None or session.settled_at is not None:
        return
    if session.status not in ("ACTIVE", "COMPLETED") or session.evse_id is None or session.driver is None:
        return
    collection = await settlement.collection_of(scope, session)
    if collection not in ("per_session", "card"):
        return
    saved = await cards.find_usable(scope, session.driver_id) if collection == "card" else None
    found = await wallets.find_available(scope, session.driver.id)
    offer = await _offer_of(scope, session) if found else None
    if found is None or offer is None:
        return
    if (
        session.status == "COMPLETED"
    ):  # nothing stopped it: all of it is there, or it is paid for in another way
        price = await settlement.running_price(scope, session)
        owed_minor = price.total_cost.incl_minor if price else 0
        is_enough = found[0] >= owed_minor
        offer = replace(
            offer, hold_minor=owed_minor, begins_at_minor=min(offer.begins_at_minor, owed_minor - 1)
        )
    else:
        is_enough = saved is None or _is_enough(offer, found[0], saved)
    try:
        payment = await _keep(scope, session, session.driver, offer) if is_enough else None
    except Refused as error:
        if error.code != "wallet_too_small":
            raise
        payment = None
    if payment is not None:
        session.cost_cap_minor = payment.hold_minor
        await scope.db.flush()
    elif saved is None:
        await service.note(scope, session, "wallet_too_small", "wallet_too_small", {})


async def _offer_of(scope: Scope, session: ChargingSession) -> paid.Offer | None:
    query = (
        select(EVSE)
        .where(EVSE.id == session.evse_id)
        .options(
            selectinload(EVSE.station).selectinload(ChargingStation.location), selectinload(EVSE.connectors)
        )
    )
    evse = (await scope.db.execute(query)).scalar_one()
    version = await tariffs.find_tariff_for(
        scope, driver_group_id=session.driver_group_id, evse_id=evse.id, location_id=evse.station.location_id,
        at=session.started_at,
    )  # fmt: skip
    return await paid.find_offer(scope, evse, version) if version is not None else None


async def _keep(scope: Scope, session: ChargingSession, driver: Driver, offer: paid.Offer) -> Payment:
    return await wallets.keep(
        scope, driver, "charging_session", session.id, most_minor=offer.hold_minor,
        more_than_minor=offer.begins_at_minor, currency=offer.currency,
        language=await faces.get_language(scope, driver.language),
    )  # fmt: skip
