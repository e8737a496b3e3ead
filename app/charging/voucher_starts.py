"""Sessions that a voucher's code pays for (`app.billing.vouchers`): whoever has it enters it on the charger's page, and
needs no account. The code keeps a part of what is left on it before the station is asked (docs/decisions/0040)."""

from typing import Any

from app.access import accounts
from app.billing import vouchers
from app.billing.models import Payment
from app.charging import account, paid
from app.charging.account import Way
from app.charging.models import ChargingSession
from app.stations.models import EVSE
from tenants.scope import Scope

COLLECTION = "voucher"  # of `paid.find_terms`: a price that was read for a card is not agreed to for a code


async def find_way(scope: Scope, evse: EVSE) -> Way | None:
    """A guest's, or the price of a driver's own group. None for who starts by their card and pays nothing at once."""
    if scope.actor.kind != "driver":
        return Way(collection=COLLECTION)
    found = await account.find_way(scope, await accounts.get_own(scope), evse.station_id)
    return None if found.card else Way(collection=COLLECTION, driver_group_id=found.driver_group_id)


async def request_start(
    scope: Scope, evse: EVSE, way: Way, code: str, *, email: str, language: str, origin: str, remote: str
) -> ChargingSession:
    """PENDING, and so much of the code held. Errors: those of `paid.request_start` and `vouchers.keep`, TooMany
    `too_many_codes`."""
    terms = await paid.find_terms(scope, evse, driver_group_id=way.driver_group_id)
    about = {} if terms.offer is None else _wanted(terms.offer)
    await vouchers.check_code(scope, code, remote=remote, **about)  # what cannot pay here is no start

    async def keep(session: ChargingSession, offer: paid.Offer) -> Payment:
        return await vouchers.keep(
            scope, code, "charging_session", session.id, email=email, language=language, **_wanted(offer)
        )

    session, _op = await paid.request_start(
        scope, evse.id, email=email, language=language, origin=origin, remote=remote, driver_id=scope.actor.id,
        driver_group_id=way.driver_group_id, keep=keep,
    )  # fmt: skip
    return session


def _wanted(offer: paid.Offer) -> dict[str, Any]:
    return {
        "most_minor": offer.hold_minor, "more_than_minor": offer.begins_at_minor, "currency": offer.currency,
    }  # fmt: skip
