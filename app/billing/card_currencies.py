"""The currencies in which cards are taken: what a charge must come to, and what a guest's card holds at first.

`minimum`: Stripe's published minimum charge amounts (docs.stripe.com/currencies). `hold_ac` and `hold_dc` are a
tenant's until it sets its own: what 30 and 60 euros buy, in a round figure. All in minor units (ISO 4217), which for
these are Stripe's too. Not so for ISK and UGX (sent a hundredfold) and for those of three decimals (the last one 0),
and for many others no minimum is published: none of them stands here, and no card is taken in them (money.md 4.6).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CardCurrency:
    minimum_minor: int
    hold_ac_minor: int
    hold_dc_minor: int

    @property
    def refund_limit_minor(self) -> int:
        """What a member of staff gives back alone, until the tenant sets its own: 200.00 of euros."""
        return self.hold_dc_minor * 10 // 3 // 1000 * 1000


CARD_CURRENCIES = {
    "AED": CardCurrency(2_00, 120_00, 240_00), "AUD": CardCurrency(50, 50_00, 100_00),
    "BGN": CardCurrency(1_00, 60_00, 120_00), "BRL": CardCurrency(50, 180_00, 360_00),
    "CAD": CardCurrency(50, 45_00, 90_00), "CHF": CardCurrency(50, 30_00, 60_00),
    "CZK": CardCurrency(15_00, 750_00, 1_500_00), "DKK": CardCurrency(2_50, 225_00, 450_00),
    "EUR": CardCurrency(50, 30_00, 60_00), "GBP": CardCurrency(30, 25_00, 50_00),
    "HKD": CardCurrency(4_00, 250_00, 500_00), "HUF": CardCurrency(175_00, 12_000_00, 24_000_00),
    "INR": CardCurrency(50, 2_500_00, 5_000_00), "JPY": CardCurrency(50, 5_000, 10_000),
    "MXN": CardCurrency(10_00, 600_00, 1_200_00), "MYR": CardCurrency(2_00, 140_00, 280_00),
    "NOK": CardCurrency(3_00, 350_00, 700_00), "NZD": CardCurrency(50, 55_00, 110_00),
    "PLN": CardCurrency(2_00, 130_00, 260_00), "RON": CardCurrency(2_00, 150_00, 300_00),
    "SEK": CardCurrency(3_00, 350_00, 700_00), "SGD": CardCurrency(50, 45_00, 90_00),
    "THB": CardCurrency(10_00, 1_100_00, 2_200_00), "USD": CardCurrency(50, 30_00, 60_00),
}  # fmt: skip
MOST_MINOR = 99_999_999  # Stripe takes eight digits
