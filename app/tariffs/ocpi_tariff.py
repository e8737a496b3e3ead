"""The OCPI Tariff object, 2.2.1 and 2.3.0: read leniently, written back without loss, every fault named.

Numbers are Decimal from the first digit to the last. Fields we do not know are kept aside (`extra`) and written back.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NoReturn, TypeVar

import msgspec

from app.kernel.errors import FieldFault, Invalid
from app.kernel.money import is_currency

COMPONENTS = ("ENERGY", "FLAT", "PARKING_TIME", "TIME")
DAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
RESERVATIONS = ("RESERVATION", "RESERVATION_EXPIRES")
TAX_INCLUDED = ("YES", "NO", "N/A")
MAX_ELEMENTS = 200

_TIME = re.compile(r"([01]\d|2[0-4]):[0-5]\d(:00)?")
_MAX_NUMBER = Decimal(10) ** 9
_MAX_DECIMALS = 30
_MAX_DIGITS = 15  # what a JSON number carries through any reader without change

T = TypeVar("T")
ComponentType = Literal["ENERGY", "FLAT", "PARKING_TIME", "TIME"]


class PriceComponent(msgspec.Struct, frozen=True, kw_only=True):
    """`price` per kWh or hour; `step_size` in Wh or seconds, 0 where nothing is rounded up."""

    type: ComponentType
    price: Decimal
    vat: Decimal | None = None
    step_size: int = 1
    extra: dict[str, Any] = {}


class TariffRestrictions(msgspec.Struct, frozen=True, kw_only=True):
    """When an element applies. Times and dates are local; `end_time` 00:00 is the end of the day."""

    start_time: time | None = None
    end_time: time | None = None
    start_date: date | None = None
    end_date: date | None = None
    min_kwh: Decimal | None = None
    max_kwh: Decimal | None = None
    min_current: Decimal | None = None
    max_current: Decimal | None = None
    min_power: Decimal | None = None
    max_power: Decimal | None = None
    min_duration: int | None = None
    max_duration: int | None = None
    day_of_week: tuple[str, ...] = ()
    reservation: str | None = None
    extra: dict[str, Any] = {}


class TariffElement(msgspec.Struct, frozen=True, kw_only=True):
    price_components: tuple[PriceComponent, ...]
    restrictions: TariffRestrictions = TariffRestrictions()
    extra: dict[str, Any] = {}


class PriceLimit(msgspec.Struct, frozen=True, kw_only=True):
    """2.2.1 says excl_vat and incl_vat, 2.3.0 before_taxes and after_taxes; written back as it came."""

    excl_vat: Decimal | None = None
    incl_vat: Decimal | None = None
    is_named_taxes: bool = False
    extra: dict[str, Any] = {}


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    """`tax_included` is None in 2.2.1, where prices are before VAT."""

    currency: str
    elements: tuple[TariffElement, ...]
    country_code: str | None = None
    party_id: str | None = None
    id: str | None = None
    type: str | None = None
    tariff_alt_text: tuple[dict[str, str], ...] = ()
    tariff_alt_url: str | None = None
    min_price: PriceLimit | None = None
    max_price: PriceLimit | None = None
    start_date_time: datetime | None = None
    end_date_time: datetime | None = None
    tax_included: str | None = None
    last_updated: datetime | None = None
    extra: dict[str, Any] = {}

    @property
    def is_tax_included(self) -> bool:
        return self.tax_included == "YES"


# --- reading -----------------------------------------------------------------------------------------------------


class _Fault(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


def refuse(code: str, message: str) -> NoReturn:
    """For the functions that a Reader reads a field with."""
    raise _Fault(code, message)


class Reader:
    """One object of the input. Takes fields by name, notes what is wrong with its full path, and goes on."""

    def __init__(self, raw: Any, path: str, faults: list[FieldFault]) -> None:
        self.path, self.faults = path, faults
        self._left = dict(raw) if isinstance(raw, Mapping) else {}
        if not isinstance(raw, Mapping):
            faults.append(FieldFault(path, "object", "This must be an object."))

    def take(self, name: str, read: Callable[[Any], T]) -> T | None:
        """None when absent, null or wrong."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        try:
            return read(value)
        except _Fault as fault:
            self.note(name, fault.code, fault.message)
            return None

    def need(self, name: str, read: Callable[[Any], T], default: T) -> T:
        """The default stands in only so that reading can go on; a fault is noted."""
        if self._left.get(name) is None:
            self._left.pop(name, None)
            self.note(name, "required", f"{name} is required.")
            return default
        value = self.take(name, read)
        return default if value is None else value

    def take_object(self, name: str, read: Callable[["Reader"], T]) -> T | None:
        value = self._left.pop(name, None)
        return None if value is None else read(Reader(value, self._at(name), self.faults))

    def take_list(self, name: str, read: Callable[["Reader"], T], *, most: int) -> tuple[T, ...]:
        """Of objects; at least one."""
        value = self._left.pop(name, None)
        if value is None or value == []:
            self.note(name, "required", f"{name} needs at least one entry.")
            return ()
        if not isinstance(value, list | tuple):
            self.note(name, "list", "This must be a list.")
            return ()
        if len(value) > most:
            self.note(name, "too_many", f"At most {most} entries.")
            return ()
        return tuple(
            read(Reader(entry, f"{self._at(name)}[{index}]", self.faults))
            for index, entry in enumerate(value)
        )

    def note(self, name: str, code: str, message: str) -> None:
        self.faults.append(FieldFault(self._at(name), code, message))

    def rest(self) -> dict[str, Any]:
        return {name: value for name, value in self._left.items() if value is not None}

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def read_number(value: Any) -> Decimal:
    """A JSON number or the same as text. A float is taken by its shortest digits, which are those that were sent."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        refuse("number", "This must be a number.")
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        refuse("number", "This must be a number.")
    if not number.is_finite() or abs(number) >= _MAX_NUMBER or _decimals(number) > _MAX_DECIMALS:
        refuse("range", "This number is out of range.")
    return number


def _decimals(number: Decimal) -> int:
    at = number.as_tuple().exponent
    return -at if isinstance(at, int) else 0


def read_amount(value: Any) -> Decimal:
    """A number that is not below zero."""
    number = read_number(value)
    if number < 0:
        refuse("negative", "This must not be below zero.")
    return number


def _price(value: Any) -> Decimal:
    """May be below zero: there are hours in which energy is given away with money."""
    number = read_number(value)
    if len(number.as_tuple().digits) > _MAX_DIGITS:
        refuse("precision", f"At most {_MAX_DIGITS} digits.")
    return number


def _amount(value: Any) -> Decimal:
    read_amount(value)
    return _price(value)


def read_whole(value: Any) -> int:
    number = read_amount(value)
    if number != number.to_integral_value():
        refuse("integer", "This must be a whole number.")
    return int(number)


def read_percent(value: Any) -> Decimal:
    number = _amount(value)
    if number > 100:
        refuse("range", "This is per cent: 0 to 100.")
    return number


def read_moment(value: Any) -> datetime:
    """RFC 3339. OCPI lets the `Z` be left out: it is UTC either way."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(read_text(value))
    except ValueError:
        refuse("date_time", "This must be a time like 2026-05-04T13:30:00Z.")
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:  # year 1 or 9999, by its offset outside of what UTC can say
        refuse("range", "This time is out of range.")


def read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        refuse("boolean", "This must be true or false.")
    return value


def read_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        refuse("text", "This must be text.")
    return value


def _text(most: int) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if len(read_text(value)) > most:
            refuse("too_long", f"At most {most} characters.")
        return value

    return read


def _one_of(known: tuple[str, ...], code: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        word = read_text(value).strip().upper()
        if word not in known:
            refuse(code, f"This is one of {', '.join(known)}.")
        return word

    return read


def _currency(value: Any) -> str:
    code = read_text(value).strip().upper()
    if not is_currency(code):
        refuse("currency", "This must be an ISO 4217 currency code like EUR.")
    return code


def _local_time(value: Any) -> time:
    if not _TIME.fullmatch(read_text(value)) or (value[:2] == "24" and value[3:5] != "00"):
        refuse("time", "This must be a local time like 13:30.")
    return time(int(value[:2]) % 24, int(value[3:5]))


def _local_date(value: Any) -> date:
    try:
        return date.fromisoformat(read_text(value))
    except ValueError:
        refuse("date", "This must be a date like 2026-12-24.")


def _days(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        refuse("list", "This must be a list of days.")
    return tuple(_one_of(DAYS, "unknown_day")(day) for day in value)


def _texts(value: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, Mapping) for entry in value):
        refuse("list", "This must be a list of texts with their language.")
    return tuple(dict(entry) for entry in value)


def read_tariff(raw: Any, path: str = "tariff") -> Tariff:
    """Raises Invalid with every fault at once. Who owns it, and its id, may be left out: the tenant fills them in."""
    faults: list[FieldFault] = []
    tariff = _tariff(Reader(raw, path, faults))
    if faults:
        raise Invalid("invalid_tariff", "The tariff has faults.", faults=faults)
    return tariff


def read_new_tariff(raw: Any) -> Tariff:
    """What is to be written: a least price above the most is refused. It is read where it was kept before that was, for
    a session that began with it must end."""
    tariff = read_tariff(raw)
    least, most = tariff.min_price, tariff.max_price
    if least is not None and most is not None:
        is_above = any(
            low is not None and high is not None and low > high
            for low, high in ((least.excl_vat, most.excl_vat), (least.incl_vat, most.incl_vat),
                              (least.excl_vat, most.incl_vat))
        )  # fmt: skip
        if is_above:
            fault = FieldFault("tariff.max_price", "order", "max_price must not be below min_price.")
            raise Invalid("invalid_tariff", "The tariff has faults.", faults=[fault])
    return tariff


def _tariff(reader: Reader) -> Tariff:
    start, end = reader.take("start_date_time", read_moment), reader.take("end_date_time", read_moment)
    if start and end and end <= start:
        reader.note("end_date_time", "order", "The tariff would end before it starts.")
    return Tariff(
        currency=reader.need("currency", _currency, "EUR"),
        elements=reader.take_list("elements", _element, most=MAX_ELEMENTS),
        country_code=reader.take("country_code", _text(2)), party_id=reader.take("party_id", _text(3)),
        id=reader.take("id", _text(36)), type=reader.take("type", _text(64)),
        tariff_alt_text=reader.take("tariff_alt_text", _texts) or (),
        tariff_alt_url=reader.take("tariff_alt_url", _text(255)),
        min_price=reader.take_object("min_price", _limit), max_price=reader.take_object("max_price", _limit),
        start_date_time=start, end_date_time=end,
        tax_included=reader.take("tax_included", _one_of(TAX_INCLUDED, "unknown_tax_included")),
        last_updated=reader.take("last_updated", read_moment), extra=reader.rest(),
    )  # fmt: skip


def _limit(reader: Reader) -> PriceLimit:
    named = {"before_taxes", "after_taxes"} & reader.rest().keys()
    excl, incl = ("before_taxes", "after_taxes") if named else ("excl_vat", "incl_vat")
    limit = PriceLimit(
        excl_vat=reader.take(excl, _amount), incl_vat=reader.take(incl, _amount),
        is_named_taxes=bool(named), extra=reader.rest(),
    )  # fmt: skip
    if limit.excl_vat is None and limit.incl_vat is None:
        reader.note(excl, "required", "A limit needs an amount.")
    elif limit.excl_vat is not None and limit.incl_vat is not None and limit.incl_vat < limit.excl_vat:
        reader.note(incl, "order", f"{incl} must not be below {excl}.")
    return limit


def _element(reader: Reader) -> TariffElement:
    components = reader.take_list("price_components", _component, most=20)
    restrictions = reader.take_object("restrictions", _restrictions) or TariffRestrictions()
    if restrictions.reservation and any(one.type not in ("FLAT", "TIME") for one in components):
        reader.note("price_components", "reservation", "A reservation is priced by FLAT and TIME only.")
    return TariffElement(price_components=components, restrictions=restrictions, extra=reader.rest())


def _component(reader: Reader) -> PriceComponent:
    step = reader.take("step_size", read_whole)
    kind: Any = reader.need("type", _one_of(COMPONENTS, "unknown_component"), "FLAT")
    return PriceComponent(
        type=kind, price=reader.need("price", _price, Decimal(0)), vat=reader.take("vat", read_percent),
        step_size=1 if step is None else step, extra=reader.rest(),
    )  # fmt: skip


def _restrictions(reader: Reader) -> TariffRestrictions:
    found = TariffRestrictions(
        start_time=reader.take("start_time", _local_time), end_time=reader.take("end_time", _local_time),
        start_date=reader.take("start_date", _local_date), end_date=reader.take("end_date", _local_date),
        min_kwh=reader.take("min_kwh", _amount), max_kwh=reader.take("max_kwh", _amount),
        min_current=reader.take("min_current", _amount), max_current=reader.take("max_current", _amount),
        min_power=reader.take("min_power", _amount), max_power=reader.take("max_power", _amount),
        min_duration=reader.take("min_duration", read_whole), max_duration=reader.take("max_duration", read_whole),
        day_of_week=reader.take("day_of_week", _days) or (),
        reservation=reader.take("reservation", _one_of(RESERVATIONS, "unknown_reservation")), extra=reader.rest(),
    )  # fmt: skip
    for name in ("kwh", "current", "power", "duration"):
        least, most = getattr(found, f"min_{name}"), getattr(found, f"max_{name}")
        if least is not None and most is not None and most <= least:
            reader.note(f"max_{name}", "order", f"max_{name} must be above min_{name}.")
    if found.start_date and found.end_date and found.end_date <= found.start_date:
        reader.note("end_date", "order", "end_date is the first day on which this no longer applies.")
    return found


# --- writing -----------------------------------------------------------------------------------------------------


def write_tariff(tariff: Tariff) -> dict[str, Any]:
    """As OCPI has it, numbers as Decimal. Encode with `encode`; store with `as_json`."""
    out = _plain(tariff, skip=("elements", "min_price", "max_price"))
    for name in ("min_price", "max_price"):
        limit: PriceLimit | None = getattr(tariff, name)
        if limit is not None:
            out[name] = _write_limit(limit)
    out["elements"] = [_write_element(element) for element in tariff.elements]
    return out


def _write_limit(limit: PriceLimit) -> dict[str, Any]:
    names = ("before_taxes", "after_taxes") if limit.is_named_taxes else ("excl_vat", "incl_vat")
    amounts = zip(names, (limit.excl_vat, limit.incl_vat), strict=True)
    return limit.extra | {name: amount for name, amount in amounts if amount is not None}


def _write_element(element: TariffElement) -> dict[str, Any]:
    components = [_plain(component) for component in element.price_components]
    restrictions = _plain(element.restrictions)
    return (
        element.extra
        | {"price_components": components}
        | ({"restrictions": restrictions} if restrictions else {})
    )


def _plain(struct: msgspec.Struct, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    values = {
        name: getattr(struct, name)
        for name in struct.__struct_fields__
        if name not in skip and name != "extra"
    }
    written = {name: _write(value) for name, value in values.items() if value is not None and value != ()}
    return getattr(struct, "extra", {}) | written


def _write(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, time):
        return value.isoformat("minutes")
    if isinstance(value, date):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder = msgspec.json.Decoder(float_hook=Decimal)


def encode(value: Any) -> bytes:
    """JSON with every Decimal as a number, digit for digit."""
    return _encoder.encode(value)


def decode(content: bytes | str) -> Any:
    """JSON whose fractions are Decimal, digit for digit."""
    return _decoder.decode(content)


def as_json(tariff: Tariff) -> dict[str, Any]:
    """For a JSON column: plain values only. Reading takes the same digits out again."""
    return msgspec.json.decode(encode(write_tariff(tariff)))
