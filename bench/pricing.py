"""The price engine against a plain multiplication, on a session of 90 readings and a tariff with a night window."""

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from app.tariffs import ocpi_tariff, pricing

ROUNDS = 30


def _tariff() -> ocpi_tariff.Tariff:
    def energy(price: str, **restrictions: Any) -> dict[str, Any]:
        return {
            "price_components": [{"type": "ENERGY", "price": price, "vat": "19", "step_size": 1}],
            "restrictions": restrictions,
        }

    elements = [energy("0.33", start_time="22:00", end_time="06:00"), energy("0.41")]
    return ocpi_tariff.read_tariff({"currency": "EUR", "elements": elements})


def _periods() -> list[pricing.Period]:
    start = datetime(2026, 6, 1, 20, tzinfo=UTC)
    minute = timedelta(minutes=1)
    return [pricing.Period.charging(start + n * minute, start + (n + 1) * minute, 180) for n in range(90)]


def run() -> dict[str, Any]:
    tariff, periods = _tariff(), _periods()
    engine = plain = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        pricing.price(tariff, periods, time_zone="Europe/Berlin")
        engine += time.perf_counter() - began
        began = time.perf_counter()
        sum((Decimal(period.energy_wh) * Decimal("0.41") / 1000 for period in periods), Decimal(0))  # pyright: ignore[reportArgumentType]
        plain += time.perf_counter() - began
    return {
        "sessions_per_s": round(ROUNDS / engine), "us_per_session": round(engine / ROUNDS * 1e6),
        "times_plain_multiplication": round(engine / plain, 1), "rounds": ROUNDS, "periods": len(periods),
    }  # fmt: skip
