"""What a start at a place holds on a card, and what its beginning costs."""

import math
from dataclasses import dataclass
from decimal import Decimal

from app.billing import payments
from app.charging.plausibility import rated_power_w
from app.kernel.money import to_minor
from app.stations.models import EVSE, Location
from app.tariffs import service as tariffs
from app.tariffs.models import TariffVersion
from tenants.scope import Scope
from themes.language import _

DC_POWER_W = 25_000
UNRATED_POWER_W = 22_000


@dataclass(frozen=True, slots=True)
class Offer:
    """What a start at this place would hold on a card, and what its beginning costs (gross). A saved card may be asked
    for that as often as `max_holds` in one session."""

    hold_minor: int
    begins_at_minor: int
    currency: str
    max_holds: int = 1

    @property
    def is_enough(self) -> bool:
        """A hold that the beginning alone uses up would be taken whole for next to no energy."""
        return self.begins_at_minor < self.hold_minor


async def find_offer(scope: Scope, evse: EVSE, version: TariffVersion) -> Offer | None:
    """None where cards are not taken."""
    account = await payments.find_account(scope)
    if account is None or account.currency != version.currency:
        return None
    power_w = max((rated_power_w(connector) or 0 for connector in evse.connectors), default=0)
    hold_minor = account.hold_dc_minor if power_w > DC_POWER_W else account.hold_ac_minor
    begins_at_minor = await price_of_beginning(scope, version, power_w, evse.station.location)
    return Offer(hold_minor, begins_at_minor, version.currency, account.max_legs)


async def price_of_beginning(
    scope: Scope, version: TariffVersion, power_w: int, location: Location | None = None
) -> int:
    """Gross, of the first kWh at full power from now on: with the session fee, and never below the minimum."""
    described = {
        "start": scope.now.isoformat(), "energy_kwh": "1",
        "charging_s": math.ceil(3_600_000 / (power_w or UNRATED_POWER_W)),
    }  # fmt: skip
    price = await tariffs.preview(scope, version.ocpi, described, location)
    return to_minor(Decimal(price["total_cost"]["incl_vat"]), version.currency)


def title_of(evse: EVSE) -> str:
    """On the payment page: which charger, and which side of it."""
    name = evse.station.name or evse.station.ocpp_identity
    return _("Charging at %(place)s") % {"place": f"{name} · {evse.evse_no}" if evse.evse_no > 1 else name}
