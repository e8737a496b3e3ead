"""Prices and who collects them, frozen at the start: what is charged is what was shown, also when the tariff, the site
or the driver's group changes meanwhile (money I14)."""

import hashlib
import json
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.access import accounts
from app.billing import cards, wallets
from app.brands.models import TenantProfile
from app.charging.models import ChargingSession, PriceSnapshot
from app.kernel import queue
from app.kernel.clock import uuid7
from app.stations.models import ChargingStation, Location
from app.tariffs import service as tariffs
from tenants.scope import Scope


async def freeze(scope: Scope, session: ChargingSession, *, again: bool = False) -> None:
    """Once per session; a replay of the start changes nothing. `again` when what decides became known only now: the
    EVSE or the driver of a transaction that began without one."""
    known = select(PriceSnapshot.id).where(PriceSnapshot.session_id == session.id)
    if again:
        await scope.db.execute(delete(PriceSnapshot).where(PriceSnapshot.session_id == session.id))
    elif (await scope.db.execute(known)).first():
        return
    profile = (await scope.db.execute(select(TenantProfile))).scalar_one_or_none()
    location = await _location(scope, session)
    is_free_vend = bool(location and location.is_free_vend)
    country, time_zone = await tariffs.tax_place(scope, location)
    version = None
    if not is_free_vend:  # at a free site no tariff counts, neither the default nor the group's own
        version = await tariffs.find_tariff_for(
            scope, driver_group_id=session.driver_group_id, evse_id=session.evse_id,
            location_id=location.id if location else None, at=session.started_at,
        )  # fmt: skip
    collection = "free" if is_free_vend else await accounts.collection_of(scope, session.driver_group_id)
    if collection == "per_session" and version is not None and session.driver_id is not None:
        account = await cards.find_account(scope)
        card = await cards.find_usable(scope, session.driver_id)
        if card is not None and account is not None and account.currency == version.currency:
            collection = "card"
    tariff = version.ocpi if version else None
    values = {
        "id": uuid7(), "session_id": session.id, "tariff_version_id": version.id if version else None,
        "currency": version.currency if version else (profile.currency if profile else "EUR"),
        "time_zone": time_zone, "country": country, "tariff": tariff,
        "is_free_vend": is_free_vend, "collection": collection, "hash": digest_of(tariff),
    }  # fmt: skip
    await scope.db.execute(upsert(PriceSnapshot).values(**values).on_conflict_do_nothing())
    pays = collection == "card" or (
        collection == "per_session" and session.driver_id is not None and await wallets.is_offered(scope)
    )
    if pays and session.status != "PENDING":  # a driver who came late to it, too
        await queue.enqueue(
            scope, "charging.hold_session", session_id=str(session.id), lock=f"session:{session.id}"
        )


async def _location(scope: Scope, session: ChargingSession) -> Location | None:
    query = (
        select(Location)
        .join(ChargingStation, ChargingStation.location_id == Location.id)
        .where(ChargingStation.id == session.station_id)
    )
    return (await scope.db.execute(query)).scalar_one_or_none()


def digest_of(value: Any) -> bytes:
    """SHA-256 of canonical JSON."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()
    ).digest()
