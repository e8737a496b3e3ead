"""May guests be charged so at a public charger? Regulation (EU) 2023/1804 (AFIR), Article 5(4) (pure).

From 50 kW on the ad hoc price is based on the price per kWh, and beside it only an occupancy fee per minute is allowed.
Below, every component is, and they are shown in the order kWh, minute, session, any other: `explain` shows them so.
"""

from app.kernel.money import per_minute
from app.tariffs.ocpi_tariff import PriceComponent, Tariff, TariffElement

FAST_W = 50_000
MEMBERS = frozenset({
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV",
    "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
})  # fmt: skip
ARTICLE = "Regulation (EU) 2023/1804, Article 5(4)"


def find_faults(tariff: Tariff, power_w: int) -> list[str]:
    """Sentences about what the article does not allow at a charger of that power; none where it is kept."""
    found: list[str] = []
    priced = [
        (element, one) for element in tariff.elements if not element.restrictions.reservation
        for one in element.price_components if one.price
    ]  # fmt: skip
    if power_w >= FAST_W:
        if priced and not any(one.type == "ENERGY" for _element, one in priced):
            found.append("There is no price per kWh, and the price must be based on one.")
        if any(one.type == "FLAT" for _element, one in priced):
            found.append("A price per session is not allowed beside the price per kWh.")
        if any(_is_for_charging_time(element, one) for element, one in priced):
            found.append("A price for the time of charging is allowed only as an occupancy fee: give it a time"
                         " after which it begins.")  # fmt: skip
        if tariff.min_price is not None and (tariff.min_price.incl_vat or tariff.min_price.excl_vat):
            found.append("A least price per session is a price per session.")
    if any(
        one.type in ("TIME", "PARKING_TIME") and per_minute(one.price) is None for _element, one in priced
    ):
        found.append("A price for time comes to no exact amount per minute, so it is shown per hour.")
    if any(one.type in ("TIME", "PARKING_TIME") and one.step_size > 60 for _element, one in priced):
        found.append("A price for time is billed in steps longer than a minute, and must be one per minute.")
    return found


def _is_for_charging_time(element: TariffElement, component: PriceComponent) -> bool:
    return component.type == "TIME" and not element.restrictions.min_duration
