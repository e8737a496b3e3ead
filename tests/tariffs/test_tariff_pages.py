"""What the portal says of a tariff: its week, whom it reaches, what changed, and the law before it is saved."""

from datetime import date
from typing import Any

import pytest

from app.kernel.ids import public_id
from app.stations import service as stations
from app.tariffs import afir, impact, ocpi_tariff, service, week
from tests.cast import PLATES
from tests.surfaces.conftest import house
from tests.web import CLI, House, found_brand

__all__ = ["house"]
MONDAY = date(2026, 6, 1)


def tariff(*elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"currency": "EUR", "tax_included": "YES", "elements": list(elements)} | more


def element(restrictions: dict[str, Any] | None = None, **prices: str) -> dict[str, Any]:
    components = [{"type": kind, "price": price, "step_size": 1} for kind, price in prices.items()]
    return {"price_components": components} | ({"restrictions": restrictions} if restrictions else {})


NIGHT = {"start_time": "22:30", "end_time": "06:00", "day_of_week": ["SATURDAY", "SUNDAY"]}


def test_a_week_says_for_each_hour_what_the_engine_would_take() -> None:
    """A night price at the week-end; and a price that hangs on more than the clock stands beside what follows it."""
    drawn = week.draw(ocpi_tariff.read_tariff(tariff(
        element(NIGHT, ENERGY="0.3"), element({"max_kwh": "5", "start_time": "06:00", "end_time": "08:00"}, ENERGY="0"),
        element(ENERGY="0.5", PARKING_TIME="6"),
        element({"end_date": "2026-06-07"}, FLAT="1"),
    )), MONDAY)  # fmt: skip
    said = {one.words.partition(": ")[0]: one for one in drawn.blocks}
    by_number = {one.number: one for one in drawn.levels}

    def level(block: str) -> week.Level:
        return by_number[said[block].number]

    assert level("Sat 00:00–06:00") == level("Sat 22:30–24:00") and "Sun 22:30–24:00" in said
    assert level("Sat 00:00–06:00").prices[0] == "€0.30 per kWh including VAT"
    assert level("Mon 06:00–08:00").prices[:2] == [
        "Free per kWh (the first 5 kWh)", "€0.50 per kWh including VAT (otherwise)",
    ]  # fmt: skip
    assert level("Mon 06:00–08:00").elements == [2, 3, 4] and level("Mon 00:00–06:00") == level(
        "Fri 08:00–24:00"
    )
    assert level("Fri 08:00–24:00").times[0] == "Monday to Friday, 00:00–06:00 and 08:00–24:00"
    # The session's price ends with that Sunday, and each row is a whole day.
    assert "€1.00 per session including VAT" in level("Sat 08:00–22:30").prices
    assert "per session" not in " ".join(level("Sun 08:00–22:30").prices)
    for y, _day in drawn.rows:
        assert sum(one.width for one in drawn.blocks if one.y == y - 20) == 720
    assert [one.number for one in drawn.levels] == list(range(1, len(drawn.levels) + 1))


@pytest.mark.parametrize(
    ("content", "power_w", "count"),
    [
        (tariff(element(ENERGY="0.5", PARKING_TIME="6")), 150_000, 0),
        (tariff(element({"min_duration": 3600}, TIME="6"), element(ENERGY="0.5")), 50_000, 0),
        (tariff(element(ENERGY="0")), 150_000, 0),
        (tariff(element(ENERGY="0.5", FLAT="1")), 50_000, 1),
        (tariff(element(ENERGY="0.5", FLAT="1", TIME="6")), 49_999, 0),
        (tariff(element(TIME="6")), 150_000, 2),
        (tariff(element(ENERGY="0.5"), min_price={"incl_vat": "2"}), 150_000, 1),
        (tariff(element(ENERGY="0.5", PARKING_TIME="0.00001")), 11_000, 1),
    ],
)
def test_the_law_is_asked_by_the_chargers_power(content: dict[str, Any], power_w: int, count: int) -> None:
    found = afir.find_faults(ocpi_tariff.read_tariff(content), power_w)
    assert len(found) == count, found


@pytest.mark.anyio
async def test_the_page_tells_whom_a_tariff_reaches_and_the_law_before_it_is_saved(house: House) -> None:
    tenant_id = await found_brand(house.database, "alpha")
    async with house.database.scope(tenant_id, CLI) as scope:
        site = await stations.create_location(
            scope, name="Harbour", address="Quay 1", city="Hamburg", country="DEU", time_zone="Europe/Berlin"
        )
        for identity, plate, where in (
            ("FAST", "dc150", site.id),
            ("SLOW", "ac22", site.id),
            ("LONE", "ac22", None),
        ):
            evses = [{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES[plate]}]}]
            await stations.create_station(scope, identity=identity, location_id=where, evses=evses)
        everywhere = await service.create_tariff(scope, tariff(element(ENERGY="0.5")), {"default": True})
        lone = await service.create_tariff(scope, tariff(element(ENERGY="0.4", FLAT="1")), {})
        found = await impact.find_impact(scope, [everywhere.id, lone.id])
        assert [(one.name, len(one.points), one.others_count) for one in found[everywhere.id].places] == [
            ("Harbour", 2, 0), ("No site", 1, 0),
        ]  # fmt: skip
        assert found[lone.id].points == []
    owner = await house.staff("alpha", tenant_id)
    await owner.open("/tariffs/new")
    typed = {
        "name": "Quay", "tax": "YES", "energy_price": "0.45", "session_fee": "1", "action": "save",
        "assign": f"location:{public_id('location', site.id)}",
    }  # fmt: skip
    warned = await owner.post("/tariffs", typed)
    assert warned.status_code == 409 and "Nothing is saved yet" in warned.text
    assert "A price per session is not allowed" in warned.text and "at EVSE 1 of FAST." in warned.text
    assert 'name="afir"' in warned.text and "EVSE 1 of FAST, EVSE 1 of SLOW" in warned.text
    assert "Quay" not in (await owner.open("/tariffs")).text
    saved = await owner.post("/tariffs", typed | {"afir": "on"})
    assert saved.status_code == 303
    path = saved.headers["location"]
    page = (await owner.open(path)).text
    assert afir.ARTICLE in page and "<svg viewBox" in page and "Monday to Sunday" not in page
    assert "Every day, 00:00–24:00" in page
    assert "Breaks AFIR" in (await owner.open("/tariffs")).text
    await owner.open(f"{path}/edit")
    changed = await owner.post(path, typed | {"session_fee": "", "energy_price": "0.47", "version_no": "1"})
    assert changed.status_code == 303
    page = (await owner.open(path + "?week=2026-06-03")).text
    assert "The week from 1 Jun 2026" in page and "Against version 1" in page
    assert (
        "Now: €0.47 per kWh" in page
        and "Before: €1.00 per session" in page
        and "A price per session" not in page
    )
