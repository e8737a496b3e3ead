"""The plain tariff form, and the OCPI object it stands for (pure). What the form cannot say is written as OCPI.

People think of time by the minute, OCPI by the hour: the form multiplies, exactly.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from app.kernel.errors import FieldFault, Invalid
from app.kernel.names import name_fault
from app.tariffs.ocpi_tariff import DAYS, PriceComponent, Tariff, TariffElement, TariffRestrictions

PRICES = ("energy_price", "session_fee", "time_price", "parking_price", "other_price", "vat")
MINUTE_STEP_S = 60
_PLAIN_WINDOW = frozenset({"start_time", "end_time", "day_of_week"})


def to_ocpi(values: Mapping[str, str], days: list[str], *, currency: str) -> dict[str, Any]:
    """`values` as typed. Raises Invalid with every fault at once, by the names of the form's fields."""
    faults: list[FieldFault] = []
    amounts = {name: _amount(values, name, faults) for name in PRICES}
    if not any(amounts[name] is not None for name in PRICES if name not in ("vat", "other_price")):
        faults.append(FieldFault("energy_price", "required", "At least one price is needed; 0 means free."))
    window = _window(values, days, amounts["other_price"], faults)
    name = values.get("name", "").strip()
    if not name:
        faults.append(FieldFault("name", "required", "The tariff needs a name."))
    elif fault := name_fault(name):
        faults.append(fault)
    if faults:
        raise Invalid("invalid_tariff", "The tariff has faults.", faults=faults)
    return {
        "currency": currency, "type": "REGULAR", "name": name,
        "tax_included": "NO" if values.get("tax") == "NO" else "YES",
        "elements": _elements(amounts, window),
    }  # fmt: skip


def _amount(values: Mapping[str, str], name: str, faults: list[FieldFault]) -> Decimal | None:
    text = values.get(name, "").strip().replace(",", ".")
    if not text:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0 or amount > 10_000 or -int(amount.as_tuple().exponent) > 6:
        faults.append(FieldFault(name, "price", "This must be an amount such as 0.49."))
        return None
    return amount


def _window(
    values: Mapping[str, str], days: list[str], price: Decimal | None, faults: list[FieldFault]
) -> dict[str, Any]:
    """When the other price per kWh applies."""
    starts, ends = values.get("other_from", "").strip(), values.get("other_until", "").strip()
    for name, text in (("other_from", starts), ("other_until", ends)):
        if text and not _is_time(text):
            faults.append(FieldFault(name, "local_time", "This must be a time like 22:00."))
    if (starts or ends or days) and price is None:
        faults.append(FieldFault("other_price", "required", "What does a kWh cost in this time?"))
    if price is not None and not (starts or ends or days):
        faults.append(FieldFault("other_from", "required", "When does the other price apply?"))
    if bool(starts) != bool(ends):
        missing = "other_until" if starts else "other_from"
        faults.append(FieldFault(missing, "required", "A time window has a beginning and an end."))
    found: dict[str, Any] = {"start_time": starts, "end_time": ends} if starts else {}
    return found | ({"day_of_week": [day for day in DAYS if day in days]} if days else {})


def _is_time(text: str) -> bool:
    try:
        time.fromisoformat(text)
    except ValueError:
        return False
    return True


def _elements(amounts: Mapping[str, Decimal | None], window: dict[str, Any]) -> list[dict[str, Any]]:
    """The window's price first: of several elements that hold, the first with a component of its kind counts."""

    def component(kind: str, price: Decimal | None, step: int) -> list[dict[str, Any]]:
        if price is None:
            return []
        vat = {"vat": amounts["vat"]} if amounts["vat"] is not None else {}
        return [{"type": kind, "price": price, "step_size": step} | vat]

    def per_hour(name: str) -> Decimal | None:
        return None if amounts[name] is None else amounts[name] * 60  # type: ignore[operator]

    always = [
        *component("ENERGY", amounts["energy_price"], 1), *component("FLAT", amounts["session_fee"], 1),
        *component("TIME", per_hour("time_price"), MINUTE_STEP_S),
        *component("PARKING_TIME", per_hour("parking_price"), MINUTE_STEP_S),
    ]  # fmt: skip
    other = component("ENERGY", amounts["other_price"], 1)
    elements = [{"price_components": other, "restrictions": window}] if other else []
    return [*elements, *([{"price_components": always}] if always else [])]


# --- back again --------------------------------------------------------------------------------------------------


def from_ocpi(tariff: Tariff) -> dict[str, Any] | None:
    """The form's values for a tariff, or None where the form could not say it all."""
    windows, always = _parts(tariff)
    if windows and any(
        one.type == "ENERGY" for one in _components(tariff.elements[: tariff.elements.index(windows[0])])
    ):
        return None  # the first with a price per kWh counts: the window's never does
    components = _components(tariff.elements)
    rates = {one.vat for one in components}
    if len(windows) > 1 or len(rates) > 1 or tariff.min_price or tariff.max_price:
        return None
    if tariff.tax_included == "N/A" or tariff.start_date_time or tariff.end_date_time:
        return None
    values: dict[str, Any] = {
        "tax": "YES" if tariff.is_tax_included else "NO",
        "days": [],
        "vat": _text(next(iter(rates))),
    }
    for element in windows:
        if [one.type for one in element.price_components] != ["ENERGY"] or not _is_plain(
            element.restrictions
        ):
            return None
        rules = element.restrictions
        values |= {"other_price": _text(element.price_components[0].price), "days": list(rules.day_of_week)}
        if rules.start_time and rules.end_time:
            values |= {"other_from": f"{rules.start_time:%H:%M}", "other_until": f"{rules.end_time:%H:%M}"}
    for one in _components(always):
        said = _said(one)
        if said is None or said[0] in values:
            return None
        values[said[0]] = said[1]
    return values


def _components(elements: Iterable[TariffElement]) -> list[PriceComponent]:
    return [one for element in elements for one in element.price_components]


def _parts(tariff: Tariff) -> tuple[list[TariffElement], list[TariffElement]]:
    plain = TariffRestrictions()
    windows = [element for element in tariff.elements if element.restrictions != plain]
    return windows, [element for element in tariff.elements if element.restrictions == plain]


def _is_plain(restrictions: TariffRestrictions) -> bool:
    others = {
        name for name in restrictions.__struct_fields__
        if name not in _PLAIN_WINDOW and getattr(restrictions, name) not in (None, (), {})
    }  # fmt: skip
    return not others and bool(restrictions.start_time) == bool(restrictions.end_time)


def _said(component: PriceComponent) -> tuple[str, str] | None:
    if component.type in ("TIME", "PARKING_TIME"):
        name = "time_price" if component.type == "TIME" else "parking_price"
        per_minute = component.price / 60
        is_same = per_minute * 60 == component.price and -int(per_minute.as_tuple().exponent) <= 6
        return (name, _text(per_minute)) if is_same and component.step_size == MINUTE_STEP_S else None
    if component.step_size > 1:
        return None
    return {"ENERGY": "energy_price", "FLAT": "session_fee"}[component.type], _text(component.price)


def _text(value: Decimal | None) -> str:
    return "" if value is None else f"{value.normalize():f}"


# --- what would it cost? -----------------------------------------------------------------------------------------


def to_session(values: Mapping[str, str], *, now: datetime, time_zone: str) -> dict[str, Any]:
    """The example session of the simulator, as `/price-previews` takes it. Faults are named by the form's fields."""
    faults: list[FieldFault] = []
    energy = _amount(values, "energy_kwh", faults)
    charging, parking = (_amount(values, name, faults) for name in ("charging_min", "parking_min"))
    start = _start(values.get("start", "").strip(), now, ZoneInfo(time_zone), faults)
    if faults:
        raise Invalid("invalid_session", "The example has faults.", faults=faults)
    return {
        "start": start.isoformat(), "energy_kwh": energy or Decimal(0), "charging_s": (charging or Decimal(0)) * 60,
        "parking_s": (parking or Decimal(0)) * 60,
    }  # fmt: skip


def _start(text: str, now: datetime, zone: ZoneInfo, faults: list[FieldFault]) -> datetime:
    if not text:
        return now.astimezone(zone)
    try:
        return datetime.fromisoformat(text).replace(tzinfo=zone)
    except ValueError:
        faults.append(FieldFault("start", "date_time", "This must be a date with a time."))
        return now
