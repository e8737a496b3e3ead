"""Standard VAT rates by country and day. Energy sold at a charger is taxed where the charger stands (money.md 4.6).

Source: European Commission, "VAT rates applied in the Member States of the European Union" and the Taxes in Europe
Database; for the others the national tax offices. Rates before 2015 are not kept: nothing was billed then. A country
may tax electricity at a lower rate; a tenant to whom that applies says so in its tariff, whose own `vat` wins.
"""

from datetime import date
from decimal import Decimal

_ALWAYS = date(2015, 1, 1)

# Country -> (valid from, per cent), oldest first. A new rate is a new pair; a row is never changed.
RATES: dict[str, tuple[tuple[date, Decimal], ...]] = {
    "AT": ((_ALWAYS, Decimal("20")),),
    "BE": ((_ALWAYS, Decimal("21")),),
    "BG": ((_ALWAYS, Decimal("20")),),
    "CY": ((_ALWAYS, Decimal("19")),),
    "CZ": ((_ALWAYS, Decimal("21")),),
    "DE": ((_ALWAYS, Decimal("19")), (date(2020, 7, 1), Decimal("16")), (date(2021, 1, 1), Decimal("19"))),
    "DK": ((_ALWAYS, Decimal("25")),),
    "EE": ((_ALWAYS, Decimal("20")), (date(2024, 1, 1), Decimal("22")), (date(2025, 7, 1), Decimal("24"))),
    "ES": ((_ALWAYS, Decimal("21")),),
    "FI": ((_ALWAYS, Decimal("24")), (date(2024, 9, 1), Decimal("25.5"))),
    "FR": ((_ALWAYS, Decimal("20")),),
    "GR": ((_ALWAYS, Decimal("23")), (date(2016, 6, 1), Decimal("24"))),
    "HR": ((_ALWAYS, Decimal("25")),),
    "HU": ((_ALWAYS, Decimal("27")),),
    "IE": ((_ALWAYS, Decimal("23")), (date(2020, 9, 1), Decimal("21")), (date(2021, 3, 1), Decimal("23"))),
    "IT": ((_ALWAYS, Decimal("22")),),
    "LT": ((_ALWAYS, Decimal("21")),),
    "LU": ((_ALWAYS, Decimal("17")), (date(2023, 1, 1), Decimal("16")), (date(2024, 1, 1), Decimal("17"))),
    "LV": ((_ALWAYS, Decimal("21")),),
    "MT": ((_ALWAYS, Decimal("18")),),
    "NL": ((_ALWAYS, Decimal("21")),),
    "PL": ((_ALWAYS, Decimal("23")),),
    "PT": ((_ALWAYS, Decimal("23")),),
    "RO": (
        (_ALWAYS, Decimal("24")), (date(2016, 1, 1), Decimal("20")), (date(2017, 1, 1), Decimal("19")),
        (date(2025, 8, 1), Decimal("21")),
    ),
    "SE": ((_ALWAYS, Decimal("25")),),
    "SI": ((_ALWAYS, Decimal("22")),),
    "SK": ((_ALWAYS, Decimal("20")), (date(2025, 1, 1), Decimal("23"))),
    # Neighbours outside the Union where chargers of European operators stand.
    "CH": ((_ALWAYS, Decimal("8")), (date(2018, 1, 1), Decimal("7.7")), (date(2024, 1, 1), Decimal("8.1"))),
    "GB": ((_ALWAYS, Decimal("20")),),
    "LI": ((_ALWAYS, Decimal("8")), (date(2018, 1, 1), Decimal("7.7")), (date(2024, 1, 1), Decimal("8.1"))),
    "NO": ((_ALWAYS, Decimal("25")),),
}  # fmt: skip

# Member States (Directive 2006/112/EC, Article 5), by ISO 3166; a Greek VAT id begins with EL.
EU = frozenset(RATES) - {"CH", "GB", "LI", "NO"}

_ALPHA_3 = {
    "AUT": "AT", "BEL": "BE", "BGR": "BG", "CYP": "CY", "CZE": "CZ", "DEU": "DE", "DNK": "DK", "EST": "EE",
    "ESP": "ES", "FIN": "FI", "FRA": "FR", "GRC": "GR", "HRV": "HR", "HUN": "HU", "IRL": "IE", "ITA": "IT",
    "LTU": "LT", "LUX": "LU", "LVA": "LV", "MLT": "MT", "NLD": "NL", "POL": "PL", "PRT": "PT", "ROU": "RO",
    "SWE": "SE", "SVN": "SI", "SVK": "SK", "CHE": "CH", "GBR": "GB", "LIE": "LI", "NOR": "NO", "EL": "GR",
}  # fmt: skip


def alpha_2(country: str) -> str:
    """`DEU` or `de` -> `DE`; an unknown code as it is."""
    code = country.strip().upper()
    return _ALPHA_3.get(code, code)


def find_vat_rate(country: str, on: date) -> Decimal | None:
    """Per cent, or None where this table does not reach. `country` as ISO 3166 alpha-2 or alpha-3 (`DE`, `DEU`)."""
    for since, rate in reversed(RATES.get(alpha_2(country), ())):
        if on >= since:
            return rate
    return None


# Country -> years that an invoice is kept after the end of the year it was issued in. As of 2026-01:
# DE: section 14b UStG and section 147 (3) AO, 8 years since 2025-01-01 (BEG IV; ledgers 10). AT: section 132 BAO and
# section 11 (2) UStG. NL: article 52 (4) AWR. HR: article 10 of the accounting act, 11. FR: article L123-22 Code de
# commerce, 10 years; so everywhere else here.
_KEPT_YEARS = {"DE": 8, "AT": 7, "NL": 7, "HR": 11}
_KEPT_YEARS_ELSEWHERE = 10


def keep_invoice_until(country: str, issued_on: date) -> date:
    """The last day on which the seller's law still wants an invoice; `country` is the seller's."""
    years = _KEPT_YEARS.get(alpha_2(country), _KEPT_YEARS_ELSEWHERE)
    return date(issued_on.year + years, 12, 31)


def vat_rate(country: str, on: date) -> Decimal:
    """The same, and 0 where the table does not reach: there VAT is billed only when the tariff names a rate."""
    rate = find_vat_rate(country, on)
    return Decimal(0) if rate is None else rate
