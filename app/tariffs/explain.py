"""A tariff in plain words: one sentence per price, in the order in which the law wants them shown (pure).

Regulation (EU) 2023/1804, Art. 5(4): price per kWh, per minute, per session, then what else there is. To consumers
prices are told with their taxes (Directive 98/6/EC, Art. 2(a)): `gross`.
"""

from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal

from babel.dates import format_date, get_day_names
from babel.numbers import format_currency, get_decimal_symbol
from msgspec.structs import replace

from app.kernel.money import exponent, per_minute
from app.tariffs.ocpi_tariff import (
    DAYS,
    PriceComponent,
    PriceLimit,
    Tariff,
    TariffElement,
    TariffRestrictions,
)
from app.tariffs.pricing import applies_at
from themes.language import N_, _, current

_ORDER = ("ENERGY", "TIME", "FLAT", "PARKING_TIME")
_PER = {
    "ENERGY": N_("per kWh"), "TIME": N_("per hour of charging"),
    "PARKING_TIME": N_("per hour after charging has ended"), "FLAT": N_("per session"),
}  # fmt: skip
_PER_MINUTE = {
    "TIME": N_("per minute of charging"), "PARKING_TIME": N_("per minute after charging has ended"),
}  # fmt: skip
_RESERVED = {
    "RESERVATION": {"TIME": N_("per hour of reservation"), "FLAT": N_("per reservation")},
    "RESERVATION_EXPIRES": {
        "TIME": N_("per hour of a reservation that nobody uses"), "FLAT": N_("for a reservation that nobody uses"),
    },
}  # fmt: skip


def explain(
    tariff: Tariff, *, gross: bool = False, default_vat: Decimal | None = None, at: datetime | None = None
) -> list[str]:
    """`["€0.49 per kWh plus 19 % VAT", "€0.10 per minute ..."]`; the first that applies counts.

    `gross` adds the tax to a price that is told without it, where its rate is known: the component's own, else
    `default_vat` in percent, as the bill has it. `at`, local time at the charger: of prices that take turns the one
    that applies then stands first and is called so, and what is over by then is left out.
    """
    if gross and default_vat is not None:
        tariff = _with_vat(tariff, default_vat)
    if at is not None:
        tariff = _without_past(tariff, at.date())
    sentences: list[tuple[int, bool, int, str]] = []
    for number, element in enumerate(tariff.elements):
        for component in element.price_components:
            place = _ORDER.index(component.type) + (len(_ORDER) if element.restrictions.reservation else 0)
            rivals = _rivals(tariff, element, component)
            earlier = [one for other, one in rivals if other < number]
            conditions = _conditions(element.restrictions) or _otherwise(earlier)
            off = {other for other, one in rivals if at is not None and _is_off(one, rivals, other, at)}
            if off and number not in off:
                conditions.insert(0, _("now"))
            text = _sentence(tariff, component, conditions, element.restrictions.reservation, gross)
            sentences.append((place, number in off, number, text))
    limits = [(_("At least"), tariff.min_price), (_("At most"), tariff.max_price)]
    if not sentences and tariff.min_price is None:  # the last price is over: nothing costs anything any more
        return [_("Free")]
    return [text for *_place, text in sorted(sentences)] + [
        f"{word} {_limit(tariff, limit, gross)} {_('per session')}"
        for word, limit in limits
        if limit is not None
    ]


def _with_vat(tariff: Tariff, rate: Decimal) -> Tariff:
    """Where a component names no rate, this one."""
    elements = tuple(
        replace(element, price_components=tuple(
            one if one.vat is not None else replace(one, vat=rate) for one in element.price_components
        ))
        for element in tariff.elements
    )  # fmt: skip
    return replace(tariff, elements=elements)


def _without_past(tariff: Tariff, today: date) -> Tariff:
    """Without what can no longer apply; `end_date` is the first day on which it does not (OCPI 11.4.6)."""
    kept = tuple(
        one for one in tariff.elements
        if one.restrictions.end_date is None or one.restrictions.end_date > today
    )  # fmt: skip
    return replace(tariff, elements=kept)


_Rivals = Sequence[tuple[int, TariffRestrictions]]


def _rivals(tariff: Tariff, element: TariffElement, component: PriceComponent) -> _Rivals:
    """The elements with a price of this kind, this one too: number and restrictions, in their order."""
    return [
        (number, other.restrictions)
        for number, other in enumerate(tariff.elements)
        if other.restrictions.reservation == element.restrictions.reservation
        and any(one.type == component.type for one in other.price_components)
    ]


def _is_off(restrictions: TariffRestrictions, rivals: _Rivals, number: int, at: datetime) -> bool:
    """By the clock: at another time it applies, or then one before it does whatever is charged."""
    return not applies_at(restrictions, at) or any(
        other < number and one == _clock(one) and applies_at(one, at) for other, one in rivals
    )


def _clock(restrictions: TariffRestrictions) -> TariffRestrictions:
    names = ("start_time", "end_time", "start_date", "end_date", "day_of_week", "reservation")
    return TariffRestrictions(**{name: getattr(restrictions, name) for name in names})


def _otherwise(earlier: Sequence[TariffRestrictions]) -> list[str]:
    """What those before it leave to an unconditional price: the rest of the day, or whenever they do not apply."""
    if not earlier:
        return []
    start, end = earlier[0].start_time, earlier[0].end_time
    if list(earlier) == [TariffRestrictions(start_time=start, end_time=end)]:
        return _conditions(TariffRestrictions(start_time=end or time.min, end_time=start or time.min))
    return [_("otherwise")]


def _sentence(
    tariff: Tariff, component: PriceComponent, conditions: list[str], reservation: str | None, gross: bool
) -> str:
    amount, is_included = _shown(tariff, component, gross)
    per = _(_RESERVED.get(reservation or "", _PER).get(component.type, ""))
    by_minute = per_minute(amount) if component.type in _PER_MINUTE and not reservation else None
    if by_minute is not None:
        amount, per = by_minute, _(_PER_MINUTE[component.type])
    price = _("Free") if component.price == 0 else _money(amount, tariff.currency, current())
    when = ", ".join(conditions)
    tax = _tax(tariff, component, is_included)
    return f"{price} {per}{tax}{_step(component)}" + (f" ({when})" if when else "")


def _shown(tariff: Tariff, component: PriceComponent, gross: bool) -> tuple[Decimal, bool]:
    """The price that is told, and whether the tax is in it."""
    if gross and not tariff.is_tax_included and tariff.tax_included != "N/A" and component.vat is not None:
        return component.price * (1 + component.vat / 100), True
    return component.price, tariff.is_tax_included


def _number(value: Decimal | int) -> str:
    return f"{Decimal(value).normalize():f}".replace(".", get_decimal_symbol(current()))


def _tax(tariff: Tariff, component: PriceComponent, is_included: bool) -> str:
    if component.price == 0 or tariff.tax_included == "N/A":
        return ""
    word = _("including") if is_included else _("plus")
    rate = "" if component.vat is None else f"{_number(component.vat)} % "
    return f" {word} {rate}{_('VAT')}"


def _step(component: PriceComponent) -> str:
    if component.price == 0 or component.type == "FLAT" or component.step_size <= 1:
        return ""
    if component.type == "ENERGY":
        return _(", in steps of %(size)s") % {"size": f"{_number(Decimal(component.step_size) / 1000)} kWh"}
    return _(", in steps of %(size)s") % {"size": _length(component.step_size)}


def _length(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def _conditions(restrictions: TariffRestrictions) -> list[str]:
    found = [days_in_words(restrictions.day_of_week)] if restrictions.day_of_week else []
    start, end = restrictions.start_time, restrictions.end_time
    if start or end:
        found.append(_hours(start or time.min, end or time.min, is_of_days=bool(restrictions.day_of_week)))
    if restrictions.start_date:
        found.append(f"{_('from')} {restrictions.start_date.isoformat()}")
    if restrictions.end_date:
        found.append(f"{_('until')} {restrictions.end_date.isoformat()}")
    found += _range(restrictions.min_kwh, restrictions.max_kwh, "kWh", _("the first"), _("after"))
    found += _range(restrictions.min_current, restrictions.max_current, "A", _("below"), _("from"))
    found += _range(restrictions.min_power, restrictions.max_power, "kW", _("below"), _("from"))
    if restrictions.min_duration:
        found.append(f"{_('after')} {_length(restrictions.min_duration)}")
    if restrictions.max_duration is not None:
        found.append(f"{_('during the first')} {_length(restrictions.max_duration)}")
    return found


def _hours(start: time, end: time, *, is_of_days: bool) -> str:
    """`22:00–06:00`. Days and times are those of the moment, each on its own: of a Friday those are its first six hours
    and its last two, and not Saturday's morning."""
    if is_of_days and start > end > time.min:
        return f"00:00–{end:%H:%M} {_('and')} {start:%H:%M}–24:00"
    return f"{start:%H:%M}–{'24:00' if end == time.min else f'{end:%H:%M}'}"


def _range(least: Decimal | None, most: Decimal | None, unit: str, below: str, above: str) -> list[str]:
    found = [f"{above} {_number(least)} {unit}"] if least else []
    return [*found, f"{below} {_number(most)} {unit}"] if most is not None else found


def days_in_words(days: tuple[str, ...]) -> str:
    """`Monday to Friday` for a run of three or more, else each by name."""
    numbers = sorted({DAYS.index(day) for day in days})
    names = [get_day_names("wide", locale=current())[number] for number in numbers]
    if len(numbers) == len(DAYS):
        return _("every day")
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return _("%(first)s to %(last)s") % {"first": names[0], "last": names[-1]}
    return (
        f" {_('and')} ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} {_('and')} {names[-1]}"
    )


def _limit(tariff: Tariff, limit: PriceLimit, gross: bool) -> str:
    amount, is_included = _limit_shown(tariff, limit, gross)
    tax = f"{_('including')} {_('VAT')}" if is_included else _("before VAT")
    return f"{_money(amount, tariff.currency, current())} {tax}"


def _limit_shown(tariff: Tariff, limit: PriceLimit, gross: bool) -> tuple[Decimal, bool]:
    """The amount that is told, and whether the tax is in it."""
    if limit.incl_vat is not None:
        return limit.incl_vat, True
    assert limit.excl_vat is not None
    rates = {component.vat for element in tariff.elements for component in element.price_components}
    rate = next(iter(rates)) if len(rates) == 1 else None
    if gross and rate is not None:
        return limit.excl_vat * (1 + rate / 100), True
    return limit.excl_vat, False


# -- for a car that stands there ---------------------------------------------------------------------------------------


def standing(tariff: Tariff, *, default_vat: Decimal | None = None, on: date | None = None) -> str:
    """`€0.10 per minute (08:00–20:00)`: what the time after charging costs, with its taxes where their rate is known
    (`default_vat` in percent where a component names none); empty where it costs nothing. What is over by the day `on`
    is left out."""
    if on is not None:
        tariff = _without_past(tariff, on)
    if default_vat is not None:
        tariff = _with_vat(tariff, default_vat)
    found: list[str] = []
    for number, element in enumerate(tariff.elements):
        for component in element.price_components:
            if component.type != "PARKING_TIME" or component.price == 0 or element.restrictions.reservation:
                continue
            earlier = [one for other, one in _rivals(tariff, element, component) if other < number]
            conditions = ", ".join(_conditions(element.restrictions) or _otherwise(earlier))
            amount, is_included = _shown(tariff, component, gross=True)
            by_minute = per_minute(amount)
            words = _("%(price)s per hour") if by_minute is None else _("%(price)s per minute")
            price = words % {
                "price": _money(amount if by_minute is None else by_minute, tariff.currency, current())
            }
            tax = "" if is_included else _tax(tariff, component, is_included)
            found.append(f"{price}{tax}" + (f" ({conditions})" if conditions else ""))
    return ", ".join(found)


# -- for a sticker -------------------------------------------------------------------------------------------------

_SHORT = {
    "en": {"ENERGY": "{}/kWh", "TIME": "{}/{} while charging", "FLAT": "{} per session",
           "PARKING_TIME": "{}/{} after charging", "between": "{} to {}", "highest": "up to ", "free": "Free",
           "from": "from {}: {}", "least": "at least {} per session", "most": "at most {} per session",
           "YES": " incl. VAT", "NO": " plus VAT"},
    "de": {"ENERGY": "{}/kWh", "TIME": "{}/{} beim Laden", "FLAT": "{} je Ladevorgang",
           "PARKING_TIME": "{}/{} nach dem Laden", "between": "{} bis {}", "highest": "bis ", "free": "Kostenlos",
           "from": "ab {}: {}", "least": "mindestens {} je Ladevorgang", "most": "höchstens {} je Ladevorgang",
           "YES": " inkl. MwSt.", "NO": " zzgl. MwSt."},
}  # fmt: skip


def free_in_short(language: str) -> str:
    return _SHORT[language]["free"]


def in_short(
    tariff: Tariff, language: str, default_vat: Decimal | None = None, *, on: date | None = None
) -> list[str]:
    """`["€0.39 to €0.49/kWh incl. VAT", "up to €0.10/min after charging", "at least €5.95 per session"]`: one line per
    kind of price, reservations left out. Of a price that changes both ends are told: the lower alone would promise what
    is not so by day. By the day `on`, at the charger, what is over is left out, and what is to come has its own line
    that says from when.

    With taxes, as consumers are told prices; without them only where a rate is not known.
    """
    words = _SHORT[language]
    if default_vat is not None:
        tariff = _with_vat(tariff, default_vat)
    if on is not None:
        tariff = _without_past(tariff, on)
    are_known = all(
        component.vat is not None for element in tariff.elements for component in element.price_components
    )
    lines: list[str] = []
    for kind in _ORDER:
        by_start: dict[date | None, set[Decimal]] = {}
        for element in tariff.elements:
            if element.restrictions.reservation:
                continue
            start = element.restrictions.start_date
            coming = start if on is not None and start is not None and start > on else None
            by_start.setdefault(coming, set()).update(
                _shown(tariff, one, are_known)[0] for one in element.price_components if one.type == kind
            )
        # What costs nothing is told only where something else does.
        told = [(start, prices) for start, prices in by_start.items() if any(prices)]
        for start, prices in sorted(told, key=lambda one: one[0] or date.min):
            line = _kind_in_short(kind, prices, tariff.currency, language)
            day = (
                format_date(start, "medium", locale={"en": "en_GB"}.get(language, language)) if start else ""
            )
            lines.append(words["from"].format(day, line) if start else line)
    is_told_gross = tariff.is_tax_included or are_known
    limits = [
        (words[name], *_limit_shown(tariff, limit, are_known))
        for name, limit in (("least", tariff.min_price), ("most", tariff.max_price))
        if limit is not None
    ]
    if not lines and not any(amount for _words, amount, _is_included in limits[:1] if tariff.min_price):
        return [words["free"]]
    if lines and tariff.tax_included != "N/A":
        lines[0] += words["YES" if is_told_gross else "NO"]
    for told_as, amount, is_included in limits:
        line = told_as.format(_money(amount, tariff.currency, language))
        is_clear = tariff.tax_included == "N/A" or (lines and is_included == is_told_gross)
        lines.append(line if is_clear else line + words["YES" if is_included else "NO"])
    return lines


def _kind_in_short(kind: str, prices: set[Decimal], currency: str, language: str) -> str:
    """`€0.39 to €0.49/kWh`."""
    words, unit = _SHORT[language], "h"
    by_minute = [per_minute(price) for price in prices if kind in _PER_MINUTE]
    if by_minute and None not in by_minute:
        unit, prices = "min", {price for price in by_minute if price is not None}
    low, high = min(prices), max(prices)
    amount = _money(high, currency, language)
    if low != high:
        amount = _between(low, amount, currency, language) if low else words["highest"] + amount
    return words[kind].format(amount, unit)


def _between(low: Decimal, high: str, currency: str, language: str) -> str:
    """`€0.39 to €0.49`, `0,39 bis 0,49 €`: a sign that stands behind is written once."""
    first = _money(low, currency, language)
    return _SHORT[language]["between"].format(first.split()[0] if language == "de" else first, high)


def _money(amount: Decimal, currency: str, language: str) -> str:
    """`€0.49`, `0,49 €`: at least the currency's own decimals, more where the price has more."""
    decimals = "." + "0" * exponent(currency) + "#" * (6 - exponent(currency))
    pattern = f"#,##0{decimals} ¤" if language == "de" else f"¤#,##0{decimals}"
    return format_currency(amount, currency, format=pattern, locale=language, currency_digits=False)
