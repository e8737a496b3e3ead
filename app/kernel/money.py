"""Money: integers in a currency's smallest unit, rounded once, half up, and shared without losing a cent."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Self

from babel.numbers import format_currency, list_currencies

# ISO 4217: whole units, and thousandths.
_NO_MINOR = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF",
     "XPF"}
)  # fmt: skip
_THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})
_AMOUNT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")
# Of the codes with X only these are money; the others are metals, baskets, tests and none at all.
_SHARED = frozenset({"XAF", "XCD", "XCG", "XOF", "XPF"})

_READABLE = Decimal("0.0001")

Exact = int | Decimal | Fraction


def is_currency(code: str) -> bool:
    """A three-letter ISO 4217 code that somebody uses or used."""
    is_spent = not code.startswith("X") or code in _SHARED
    return len(code) == 3 and code.isupper() and is_spent and code in list_currencies()


def exponent(currency: str) -> int:
    """How many decimals the currency has: 2 for most, 0 for JPY, 3 for KWD."""
    if currency in _NO_MINOR:
        return 0
    return 3 if currency in _THOUSANDTHS else 2


def half_up(amount: Exact) -> int:
    """To the nearest whole number, ties away from zero: what a merchant expects, on both sides of zero."""
    exact = Fraction(amount)
    rounded = math.floor(abs(exact) + Fraction(1, 2))
    return rounded if exact >= 0 else -rounded


def to_minor(amount: Exact, currency: str) -> int:
    """12.345 EUR -> 1235. The only place where an exact amount becomes a payable one."""
    return half_up(Fraction(amount) * 10 ** exponent(currency))


def to_decimal(amount_minor: int, currency: str) -> Decimal:
    """1235 EUR -> Decimal("12.35"), with the currency's own number of decimals."""
    return Decimal(amount_minor).scaleb(-exponent(currency))


def per_minute(per_hour: Decimal) -> Decimal | None:
    """A price of time by the minute; None where that has more decimals than people read, and it is told by the hour.
    Wherever a price of time is told, this decides its unit."""
    amount = per_hour / 60
    return amount if amount == amount.quantize(_READABLE) else None


def split(total: int, shares: Sequence[Exact]) -> list[int]:
    """Whole numbers near the exact `shares` that sum to `total`: largest remainder, the earlier one first on a tie.

    A share without a remainder (a line free of VAT) is touched only when nothing else is left to take the difference.
    """
    if not shares:
        if total:
            raise ValueError("nothing to share among")
        return []
    parts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: parts[index] - Fraction(shares[index]))
    missing = total - sum(parts)
    if missing < 0:
        by_remainder.reverse()
    for turn in range(abs(missing)):
        parts[by_remainder[turn % len(parts)]] += 1 if missing > 0 else -1
    return parts


@dataclass(frozen=True, slots=True)
class Money:
    """An amount that can be paid. Amounts of two currencies do not add up; that is a ValueError, for it is a bug."""

    amount_minor: int
    currency: str

    @classmethod
    def exact(cls, amount: Exact, currency: str) -> Self:
        """Rounds half up at the currency's exponent."""
        return cls(to_minor(amount, currency), currency)

    @classmethod
    def parse(cls, amount: str, currency: str) -> Self:
        """What a person or an API sent, digit for digit: more decimals than the currency has are an error."""
        if not is_currency(currency):
            raise ValueError("currency")
        if not _AMOUNT.fullmatch(amount):
            raise ValueError("amount")
        minor = Fraction(amount) * 10 ** exponent(currency)
        if minor.denominator != 1:
            raise ValueError("decimals")
        return cls(minor.numerator, currency)

    @property
    def amount(self) -> Decimal:
        return to_decimal(self.amount_minor, self.currency)

    def as_json(self) -> dict[str, str]:
        return {"amount": str(self.amount), "currency": self.currency}

    def format(self, locale: str = "en") -> str:
        """As the reader writes money, with the currency's own decimals (CLDR drops some that ISO 4217 has)."""
        return format_currency(self.amount, self.currency, locale=locale, decimal_quantization=False)

    def split(self, shares: Sequence[Exact]) -> list["Money"]:
        """In proportion to `shares` (any positive numbers), to the last minor unit."""
        whole = sum((Fraction(share) for share in shares), Fraction(0))
        if whole <= 0:
            raise ValueError("shares must sum to more than zero")
        parts = split(self.amount_minor, [self.amount_minor * Fraction(share) / whole for share in shares])
        return [Money(part, self.currency) for part in parts]

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount_minor + self._same(other).amount_minor, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.amount_minor - self._same(other).amount_minor, self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount_minor, self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.amount_minor < self._same(other).amount_minor

    def __le__(self, other: "Money") -> bool:
        return self.amount_minor <= self._same(other).amount_minor

    def _same(self, other: "Money") -> "Money":
        if other.currency != self.currency:
            raise ValueError(f"{self.currency} and {other.currency} do not mix")
        return other
