"""Whatever a brand chooses, its text can be read; and a theme is values, never CSS."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.kernel.errors import Invalid
from themes.css import dark_tokens, light_tokens, stylesheet
from themes.theme import Theme, contrast, nearest_passing, preset, read_theme

PRESETS = ("default", "nordlicht", "solmark")
# What is written on what (themes/css.py names them).
TONES = ("success", "warning", "error", "info")
PAIRS = (
    ("text", "bg"), ("text", "surface"), ("text", "sunken"),
    ("muted", "bg"), ("muted", "surface"), ("muted", "sunken"),
    ("on-primary", "primary"), ("primary-text", "surface"), ("primary-text", "bg"),
    ("primary-soft-text", "primary-soft"),
    *((f"{tone}-text", "surface") for tone in TONES), *((f"{tone}-soft-text", f"{tone}-soft") for tone in TONES),
)  # fmt: skip
colour = st.integers(0, 0xFFFFFF).map(lambda value: f"#{value:06x}")


def readable(theme: Theme) -> list[str]:
    found = []
    for mode, tokens in (("light", light_tokens(theme)), ("dark", dark_tokens(theme))):
        for text, ground in PAIRS:
            if contrast(tokens[text], tokens[ground]) < 4.5:
                found.append(f"{mode}: {text} on {ground} {contrast(tokens[text], tokens[ground]):.2f}")
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_read_in_light_and_dark(name: str):
    assert readable(preset(name)) == []


def test_the_pairs_are_really_there():
    tokens = light_tokens(preset("default"))
    assert {name for pair in PAIRS for name in pair} <= tokens.keys()


@settings(max_examples=300)
@given(colour, colour, colour)
def test_a_brand_with_any_lawful_colours_can_be_read(primary: str, accent: str, neutral: str):
    try:
        theme = read_theme({"primary": primary, "accent": accent, "neutral": neutral, "logo_text": "X"})
    except Invalid:
        return
    assert readable(theme) == []


@given(colour, colour)
def test_the_nearest_passing_colour_passes(one: str, ground: str):
    assert contrast(nearest_passing(one, ground), ground) >= 4.5 or contrast("#000000", ground) < 4.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("primary", "red"), ("primary", "#12345"), ("primary", "#1234567"), ("primary", "#12345g"),
        ("primary", "#123456;}body{display:none"), ("primary", "#123456\n"), ("primary", "url(//evil)"), ("primary", 5),
        ("radius", "9999px"), ("font", "Comic Sans"), ("lock_mode", "sepia"), ("logo_text", "<b>"),
        ("logo_text", "\u202eevil"), ("logo_text", ""), ("logo_text", "x" * 41), ("css", "body{}"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_one_of_ours_is_refused_by_its_name(name: str, value: object):
    with pytest.raises(Invalid) as invalid:
        read_theme({name: value})
    assert [fault.field for fault in invalid.value.faults] == [name]


def test_the_stylesheet_holds_custom_properties_only_and_is_named_by_its_content():
    css, digest = stylesheet(preset("solmark"))
    assert stylesheet(preset("solmark"))[1] == digest != stylesheet(preset("nordlicht"))[1]
    assert not re.search(r"url\(|@import|expression|javascript:", css)
    for line in re.findall(r"[{;]([^{};]+)(?=[;}])", css):
        assert line.strip().startswith(("--", "color-scheme")), line
