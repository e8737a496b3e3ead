"""A brand's pictures: decoded, shrunk and written anew as PNG, whatever was uploaded; icons drawn from its colour.

Nothing of the uploaded bytes is ever served: no metadata, no second file hidden behind the first, no script.
"""

import io
from functools import lru_cache

from PIL import Image, ImageDraw, ImageOps

from app.kernel.errors import Invalid
from themes import fonts
from themes.theme import Theme, readable_on

MAX_BYTES = 2_000_000
MAX_PIXELS = 16_000_000
LOGO_SIZE = (640, 160)
MARK_SIZE = (512, 512)
FORMATS = ("PNG", "JPEG", "WEBP")
ICON_SIZES = (32, 180, 192, 512)


def reencode(content: bytes, field: str, most: tuple[int, int]) -> tuple[bytes, int, int]:
    """(PNG, width, height). Invalid for what is too large, broken, or no PNG, JPEG or WebP (an SVG is a program)."""
    if len(content) > MAX_BYTES:
        raise Invalid.field(field, "image_too_large", "The picture has more than 2 MB.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Invalid.field(field, "image_too_large", "The picture has more than 16 million pixels.")
            opened.load()
            drawn = ImageOps.exif_transpose(opened).convert("RGBA")  # a phone's picture says how it was held
    except Invalid:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the broken file leads them to
        raise Invalid.field(
            field, "image", "This is no PNG, JPEG or WebP picture that can be read."
        ) from error
    drawn.thumbnail(most, Image.Resampling.LANCZOS)
    return _as_png(drawn), drawn.width, drawn.height


def _as_png(image: Image.Image) -> bytes:
    """From the pixels alone, with a palette where that says the same in fewer bytes."""
    clean = Image.frombytes(image.mode, image.size, image.tobytes())
    written = [_written(clean)]
    if clean.mode == "RGB" and (colours := clean.getcolors(256)):
        small = clean.quantize(len(colours), method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        if small.convert("RGB").tobytes() == clean.tobytes():
            written.append(_written(small))
    return min(written, key=len)


def _written(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


@lru_cache(maxsize=200)
def icon_png(theme: Theme, mark: bytes | None, size: int) -> bytes:
    """A square icon: the brand's own mark on white, else the first letter of its name on its colour (a bolt
    where our face does not have that letter). Everything that matters lies in the inner 80 %, so that a launcher may
    cut it round (maskable)."""
    if mark is not None:
        ground, inner = Image.new("RGBA", (size, size), "#ffffff"), round(size * 0.78)
        with Image.open(io.BytesIO(mark)) as opened:
            drawn = ImageOps.exif_transpose(opened).convert("RGBA")  # a phone's picture says how it was held
        drawn.thumbnail((inner, inner), Image.Resampling.LANCZOS)
        if max(drawn.size) < inner:
            scale = inner / max(drawn.size)
            drawn = drawn.resize((max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))))
        ground.alpha_composite(drawn, ((size - drawn.width) // 2, (size - drawn.height) // 2))
        return _as_png(ground.convert("RGB"))
    image, ink = Image.new("RGB", (size, size), theme.primary), readable_on(theme.primary)
    letter = next((one for one in theme.logo_text if one.isalnum()), "").upper()[:1]
    if letter and fonts.covers(letter):
        font = fonts.bold(round(size * 0.56))
        ImageDraw.Draw(image).text((size / 2, size / 2), letter, fill=ink, font=font, anchor="mm")
    else:
        large = 4 * size  # then shrunk: its edges are smooth
        bolt = Image.new("L", (large, large))
        ImageDraw.Draw(bolt).polygon([(x * large, y * large) for x, y in _BOLT], fill=255)
        image.paste(ink, mask=bolt.resize((size, size), Image.Resampling.LANCZOS))
    return _as_png(image)


# What stands for a name whose letters our face does not have: shares of the icon's width and height.
_BOLT = ((0.56, 0.20), (0.29, 0.56), (0.47, 0.56), (0.44, 0.80), (0.71, 0.44), (0.53, 0.44))
