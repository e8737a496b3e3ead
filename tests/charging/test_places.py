"""The places of a brand as drivers find them, in the reader's language."""

import re

from app.charging import driver
from app.charging.places import PLUGS
from tests.conftest import ROOT
from themes.language import speaking

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
        assert driver.places.chips(driver.places.Filter(), PLUGS)[3][0] == "Typ 2"
