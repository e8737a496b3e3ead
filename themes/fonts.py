"""The one face that ships with us (DejaVu Sans Condensed: Latin, Greek, Cyrillic, Hebrew, Arabic, Armenian, Georgian),
for what we set ourselves: icons and labels look alike on every machine, whatever fonts that has."""

from functools import lru_cache

import typst
from PIL import Image, ImageDraw, ImageFont

from themes.render import DIST

FOLDER = DIST / "fonts"
FAMILY = "DejaVu Sans"


@lru_cache(maxsize=20)
def bold(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FOLDER / "DejaVuSansCondensed-Bold.ttf", size)


@lru_cache(maxsize=1)
def for_typst() -> typst.Fonts:
    return typst.Fonts(include_system_fonts=False, font_paths=[FOLDER])


def covers(text: str) -> bool:
    """Whether each letter has a picture of its own; others would be drawn as boxes."""
    return all(letter.isspace() or _has(letter) for letter in text)


@lru_cache(maxsize=2000)
def _has(letter: str) -> bool:
    return _picture(letter) != _picture("\U0010ffff")  # a letter that no font has


def _picture(letter: str) -> bytes:
    image = Image.new("L", (80, 80))
    ImageDraw.Draw(image).text((20, 20), letter, fill=255, font=bold(40))
    return image.tobytes()
