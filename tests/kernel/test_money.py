"""Money is exact: it rounds once, half up, and no cent is lost or found when it is shared."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel import tax
from app.kernel.money import Money, exponent, half_up, is_currency, split, to_decimal, to_minor

amounts = st.fractions(min_value=-10_000, max_value=10_000, max_denominator=9_000)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [("5.625", "EUR", 563), ("6.2375", "EUR", 624), ("4.997", "EUR", 500), ("0.5", "JPY", 1), ("0.49", "JPY", 0),
     ("1.2345", "KWD", 1235), ("-5.625", "EUR", -563), ("0", "EUR", 0)],
)  # fmt: skip
def test_amounts_round_half_up_at_the_exponent_of_their_currency(
    amount: str, currency: str, minor: int
) -> None:
    assert to_minor(Decimal(amount), currency) == minor


@pytest.mark.parametrize(
    ("currency", "digits"), [("EUR", 2), ("USD", 2), ("JPY", 0), ("ISK", 0), ("KWD", 3), ("TND", 3)]
)
def test_a_currency_has_the_decimals_of_iso_4217(currency: str, digits: int) -> None:
    assert exponent(currency) == digits
    assert to_minor(to_decimal(12_345, currency), currency) == 12_345


@given(amounts)
def test_rounding_is_never_off_by_more_than_a_half(amount: Fraction) -> None:
    assert abs(half_up(amount) - amount) <= Fraction(1, 2)
    assert half_up(-amount) == -half_up(amount)


@given(st.lists(amounts, min_size=1, max_size=12))
def test_shares_sum_to_the_rounded_whole_and_stay_within_one_unit(shares: list[Fraction]) -> None:
    total = half_up(sum(shares, Fraction(0)))
    parts = split(total, shares)
    assert sum(parts) == total
    assert all(abs(part - share) <= 1 for part, share in zip(parts, shares, strict=True))


def test_a_share_without_a_remainder_keeps_its_value() -> None:
    assert split(3, [Fraction(0), Fraction(3, 2), Fraction(3, 2), Fraction(0)]) == [0, 2, 1, 0]


def test_nothing_cannot_be_shared_among_nobody() -> None:
    assert split(0, []) == []
    with pytest.raises(ValueError, match="nothing to share"):
        split(1, [])


def test_ten_euros_in_three_parts_are_still_ten_euros() -> None:
    parts = Money(1000, "EUR").split([1, 1, 1])
    assert [part.amount_minor for part in parts] == [334, 333, 333]
    assert sum(parts, Money(0, "EUR")) == Money(1000, "EUR")


def test_two_currencies_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not mix"):
        _ = Money(1, "EUR") + Money(1, "SEK")


def test_amounts_compare_subtract_and_turn() -> None:
    assert Money(100, "EUR") - Money(30, "EUR") == Money(70, "EUR")
    assert -Money(30, "EUR") < Money(0, "EUR") <= Money(0, "EUR")


@pytest.mark.parametrize(
    ("amount", "currency", "why"),
    [("1.234", "EUR", "decimals"), ("1,20", "EUR", "amount"), ("1e3", "EUR", "amount"), ("NaN", "EUR", "amount"),
     ("1.5", "JPY", "decimals"), ("1", "XYZ", "currency"), ("1", "eur", "currency")],
)  # fmt: skip
def test_a_wrong_amount_is_refused_rather_than_rounded(amount: str, currency: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Money.parse(amount, currency)


def test_money_travels_as_text() -> None:
    assert Money.parse("12.30", "EUR").as_json() == {"amount": "12.30", "currency": "EUR"}
    assert Money.parse("1200", "JPY").as_json() == {"amount": "1200", "currency": "JPY"}
    assert Money.exact(Fraction(1, 3), "EUR").as_json() == {"amount": "0.33", "currency": "EUR"}


@pytest.mark.parametrize(
    ("money", "locale", "text"),
    [(Money(123450, "EUR"), "en", "€1,234.50"), (Money(123450, "EUR"), "de", "1.234,50\xa0€"),
     (Money(1200, "JPY"), "en", "¥1,200"), (Money(1250, "KWD"), "en", "KWD1.250"), (Money(-5, "EUR"), "en", "-€0.05")],
)  # fmt: skip
def test_money_reads_as_its_reader_writes_it(money: Money, locale: str, text: str) -> None:
    assert money.format(locale).replace("\xa0", " ") == text.replace("\xa0", " ")


def test_invented_currencies_are_not_known() -> None:
    assert is_currency("EUR") and not is_currency("EURO") and not is_currency("ZZZ")
    assert is_currency("XOF") and not any(map(is_currency, ("XXX", "XTS", "XAU", "XDR")))
    with pytest.raises(ValueError, match="amount"):
        Money.parse("\u0663.00", "EUR")  # another script's 3


@pytest.mark.parametrize(
    ("country", "on", "rate"),
    [("DE", date(2020, 6, 30), "19"), ("DE", date(2020, 7, 1), "16"), ("DE", date(2020, 12, 31), "16"),
     ("DEU", date(2021, 1, 1), "19"), ("fi", date(2024, 9, 1), "25.5"), ("EE", date(2025, 7, 1), "24"),
     ("SK", date(2024, 12, 31), "20"), ("EL", date(2026, 1, 1), "24"), ("CH", date(2023, 12, 31), "7.7")],
)  # fmt: skip
def test_the_vat_rate_is_that_of_the_day(country: str, on: date, rate: str) -> None:
    assert tax.vat_rate(country, on) == Decimal(rate)


@pytest.mark.parametrize(
    ("country", "until"),
    [("DE", 2034), ("DEU", 2034), ("AT", 2033), ("nl", 2033), ("FR", 2036), ("XX", 2036), ("", 2036)],
)  # fmt: skip
def test_an_invoice_is_kept_to_the_end_of_the_last_year_that_the_sellers_law_names(
    country: str, until: int
) -> None:
    for issued_on in (date(2026, 1, 1), date(2026, 12, 31)):
        assert tax.keep_invoice_until(country, issued_on) == date(until, 12, 31)


def test_every_member_state_has_a_rate_today_and_the_table_is_in_order() -> None:
    members = {
        "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU",
        "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
    }  # fmt: skip
    assert members <= tax.RATES.keys()
    assert all(tax.find_vat_rate(country, date(2026, 1, 1)) for country in members)
    for country, rows in tax.RATES.items():
        assert all(earlier[0] < later[0] for earlier, later in pairwise(rows)), country


def test_a_country_beyond_the_table_has_no_rate_and_adds_none() -> None:
    assert tax.find_vat_rate("CA", date(2026, 1, 1)) is None
    assert tax.vat_rate("CA", date(2026, 1, 1)) == 0


def test_a_country_is_the_same_with_two_letters_and_with_three() -> None:
    assert tax.alpha_2("DEU") == tax.alpha_2("de") == "DE"
    assert tax.alpha_2("CA") == "CA"
    assert tax.alpha_2("XYZ") == "XYZ"
