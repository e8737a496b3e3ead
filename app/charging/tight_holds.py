"""Holds that the beginning of a session alone uses up: no card is taken there (`offer.Offer`), and staff are told."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import contains_eager, selectinload

from app.billing import payments
from app.charging.offer import DC_POWER_W, price_of_beginning
from app.charging.plausibility import rated_power_w
from app.stations.models import EVSE, ChargingStation
from app.tariffs import service as tariffs
from app.tariffs.models import TariffAssignment
from tenants.scope import Scope

PAGE = 200


@dataclass(frozen=True, slots=True)
class TightHold:
    """`begins_at_minor`: fee, minimum and first kWh of that tariff, gross."""

    tariff_id: UUID
    tariff: str
    is_dc: bool
    hold_minor: int
    begins_at_minor: int
    currency: str


async def list_tight_holds(scope: Scope) -> list[TightHold]:
    """Tariffs whose beginning comes to the hold, at each kind of charger that they are assigned to."""
    account = await payments.find_account(scope)
    if account is None:
        return []
    places = await _places(scope)
    found: list[TightHold] = []
    after: UUID | None = None
    while rows := await tariffs.list_tariffs(scope, limit=PAGE, after=after):
        after = rows[-1].id
        assigned = await tariffs.list_assignments(scope, [row.id for row in rows])
        for row in rows:
            version = tariffs.valid_version(row.versions, scope.now)
            if version is None or version.currency != account.currency:
                continue
            powers = {
                one.power_w for one in places if any(_is_at(target, one) for target in assigned[row.id])
            }
            for is_dc in (False, True):
                kind = [power_w for power_w in powers if (power_w > DC_POWER_W) is is_dc]
                if not kind:
                    continue
                hold = account.hold_dc_minor if is_dc else account.hold_ac_minor
                # The weakest takes longest for its first kWh.
                begins_at = await price_of_beginning(scope, version, min(kind))
                if begins_at >= hold:
                    found.append(TightHold(row.id, row.name, is_dc, hold, begins_at, account.currency))
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    evse_id: UUID
    location_id: UUID | None
    power_w: int


def _is_at(target: TariffAssignment, place: _Place) -> bool:
    if target.evse_id is not None:
        return target.evse_id == place.evse_id
    if target.location_id is not None:
        return target.location_id == place.location_id
    return True  # a group's drivers charge everywhere, and so does who pays by default


async def _places(scope: Scope) -> list[_Place]:
    query = (
        select(EVSE)
        .join(EVSE.station)
        .where(ChargingStation.retired_at.is_(None))
        .options(selectinload(EVSE.connectors), contains_eager(EVSE.station))
    )
    return [
        _Place(
            evse.id,
            evse.station.location_id,
            max((rated_power_w(one) or 0 for one in evse.connectors), default=0),
        )
        for evse in (await scope.db.execute(query)).scalars()
    ]
