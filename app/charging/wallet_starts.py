"""Sessions paid from their driver's wallet (`app.billing.wallets`): one begun on the charger's page keeps a part of it
before the station is asked, one begun by card at the reader as soon as we hear of it. Where there is too little, a card
is asked on the page, and at the reader the group's own rule holds."""

from dataclasses import replace
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from app.access import accounts
from app.access.models import Driver
from app.billing import wallets
from app.billing.models import Payment
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
    """The wallet instead of the checkout, where the beginning of a session leaves something of it."""
    if way.collection != "card":
        return way
    found = await wallets.find_available(scope, driver.id)
    if found is None:
        return way
    by_wallet = replace(way, collection="wallet", most_minor=found[0], saved=None)
    terms = await paid.find_terms(
        scope, evse, driver_group_id=way.driver_group_id, collection="wallet", most_minor=found[0]
    )
    is_enough = terms.offer is not None and terms.offer.is_enough and terms.offer.currency == found[1]
    return by_wallet if is_enough else way


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
    """A driver's own session by card at the reader that would be invoiced for: what it may cost is kept in their
    wallet, and it is stopped before that is used up. One that was over before anybody looked is paid so too, before it
    is settled. Twice is once."""
    if not await wallets.is_offered(scope):
        return
    await service.lock_settling(scope, session_id)
    session = await service.get_session(scope, session_id)
    is_own = session.driver_id is not None and session.id_token_status == "Accepted"
    if not is_own or session.cost_cap_minor is not None or session.settled_at is not None:
        return
    if session.status not in ("ACTIVE", "COMPLETED") or session.evse_id is None:
        return
    if await settlement.collection_of(scope, session) != "per_session" or session.driver is None:
        return
    offer = (
        await _offer_of(scope, session) if await wallets.find_available(scope, session.driver.id) else None
    )
    if offer is None:
        return
    if (
        session.status == "COMPLETED"
    ):  # nothing stopped it: all of it is there, or it is invoiced for as before
        price = await settlement.running_price(scope, session)
        owed_minor = price.total_cost.incl_minor if price else 0
        found = await wallets.find_available(scope, session.driver.id)
        if found is None or found[0] < owed_minor:
            await service.note(scope, session, "wallet_too_small", "wallet_too_small", {})
            return
        offer = replace(
            offer, hold_minor=owed_minor, begins_at_minor=min(offer.begins_at_minor, owed_minor - 1)
        )
    try:
        payment = await _keep(scope, session, session.driver, offer)
    except Refused as error:
        if error.code != "wallet_too_small":
            raise
        await service.note(scope, session, "wallet_too_small", "wallet_too_small", {})
        return
    session.cost_cap_minor = payment.hold_minor
    await scope.db.flush()


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
