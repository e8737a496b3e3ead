"""The places of a brand as drivers find them, in the reader's language."""

import re
from decimal import Decimal
from html import unescape

import pytest

from app.charging import driver, places
from app.stations import service as stations
from tests.cast import PLATES
from tests.conftest import ROOT
from tests.surfaces.conftest import house
from tests.web import CLI, House, found_brand
from themes.language import speaking

__all__ = ["house"]
LIBRARY = ROOT / "node_modules" / "maplibre-gl" / "src" / "ui" / "default_locale.ts"
# No part of our map says these: it has no compass, no feedback, and measures in metres.
UNSAID = {
    "NavigationControl.ResetBearing", "AttributionControl.MapFeedback", "ScaleControl.Feet", "ScaleControl.Miles",
    "ScaleControl.NauticalMiles",
}  # fmt: skip


def test_every_word_of_the_maps_own_parts_is_ours() -> None:
    """Held against the installed library: a release that says more is found here."""
    theirs = dict(re.findall(r"'([A-Za-z]+\.[A-Za-z]+)': '([^']*)'", LIBRARY.read_text()))
    script = (ROOT / "themes" / "static" / "src" / "map.js").read_text()
    parts = {"Map", "Marker", "AttributionControl", "CooperativeGesturesHandler"}  # they come with a map
    parts |= {part for part in (name.partition(".")[0] for name in theirs) if part in script}
    shown = {name for name in theirs if name.partition(".")[0] in parts} - UNSAID
    with speaking("en"):
        assert set(driver.map_words()) == shown
    with speaking("de"):
        german = driver.map_words()
    assert [name for name, words in german.items() if words == theirs[name] and not words.endswith("m")] == []


def test_a_plug_is_called_as_its_readers_call_it() -> None:
    with speaking("de"):
        assert places.chips(places.Filter(), places.PLUGS)[3][0] == "Typ 2"


SITES = 2 * places.LEAF + 5


@pytest.mark.anyio
async def test_a_long_list_comes_in_pages_that_keep_what_was_asked_and_is_searched_without_scripts(
    house: House,
) -> None:
    tenant_id, driver = await found_brand(house.database), house.driver("nordlicht")
    ids = []

    async def build(count: int) -> None:
        async with house.database.scope(tenant_id, CLI) as scope:
            for no in range(len(ids), len(ids) + count):
                site = await stations.create_location(
                    scope, name=f"Hof {no:03}", address="Weg 1", city="K\u00f6ln" if no % 2 else "Kiel",
                    postal_code=f"{50_000 + no}", country="DEU", time_zone="Europe/Berlin",
                    latitude=Decimal(50) + Decimal(no) / 100, longitude=Decimal(9),
                )  # fmt: skip
                await stations.create_station(
                    scope, identity=f"CP{no}", location_id=site.id,
                    evses=[{"evse_no": 1, "connectors": [{"connector_no": 1, **PLATES["ac22"]}]}],
                )  # fmt: skip
                ids.append(site.id)

    async def shown(path: str) -> tuple[list[str], dict[str, str], str]:
        """The sites' names, the ways to the neighbours, and the page."""
        html = (await driver.get(path)).text
        ways = re.findall(r'rel="(prev|next)" href="([^"]+)"', html)
        return re.findall(r"Hof \d{3}(?=</h2>)", html), {name: unescape(way) for name, way in ways}, html

    await build(places.LEAF)
    names, ways, html = await shown("/")
    assert len(names) == places.LEAF and not ways and 'role="search"' not in html, "a page holds them all"

    await build(SITES - places.LEAF)
    for query in ("", "plug=IEC_62196_T2&near=60.00000,9.00000"):
        seen, path = [], f"/?{query}"
        while path:
            names, ways, html = await shown(path)
            assert len(names) <= places.LEAF and 'role="search"' in html and f"{SITES} places" in html
            assert all(way.startswith(f"/?{query}") for way in ways.values())
            seen += names
            path = ways.get("next", "")
        assert seen == sorted(seen, reverse=bool(query)) and len(seen) == SITES
        assert (await shown(ways["prev"]))[0] == seen[places.LEAF : 2 * places.LEAF]
    assert (await shown("/?at=loc_gone"))[0] == seen[::-1][: places.LEAF]

    assert (await shown("/?q=koln+hof+021"))[0] == ["Hof 021"] and (await shown("/?q=50042"))[0] == [
        "Hof 042"
    ]
    names, ways, html = await shown("/?q=K%C3%96LN&near=60.00000,9.00000")
    assert names[0] == "Hof 063" and ways["next"].startswith("/?q=K%C3%96LN&near=60.00000,9.00000&at=loc_")
    assert 'value="K\u00d6LN"' in html and 'name="near" value="60.00000,9.00000"' in html
    html = (await shown("/?q=%3Cb%3EMars"))[2]
    assert "Nothing fits." in html and "<b>Mars" not in html and 'value="&lt;b&gt;Mars"' in html
    pins = re.findall(r'"href": ?"([^"]+)"', (await driver.get("/map?plug=IEC_62196_T2")).text)
    assert len(pins) == SITES
    pin = pins[-1].encode().decode("unicode_escape")
    assert "Hof 064" in (await shown(pin.partition("#")[0]))[0], (
        "a pin leads to the page on which its site stands"
    )
