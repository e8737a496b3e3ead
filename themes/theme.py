"""A brand's look: values only, each checked. Contrast is WCAG 2.2's, computed here and refused here (isolation.md).

Colours come in as `#rrggbb`; whatever a brand chooses, text on it stays readable, because the colours that text is
drawn with are computed from it. What a brand draws shapes with must itself be seen: `contrast_findings` says where not.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.kernel.errors import FieldFault, Invalid
from themes.letters import is_plain_line

RADII = ("none", "small", "medium", "large")
FONTS = ("system", "inter")
DENSITIES = ("comfortable", "compact")
MODES = ("light", "dark")
REFUSED_BELOW, WARNED_BELOW = 3.0, 4.5
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_LOGO_TEXT = re.compile(r"[^<>]{1,40}")
COLOURS = ("primary", "secondary", "accent", "neutral")

# What a brand's own colours stand on: a card, in light and in dark.
SURFACES = {"light": "#ffffff", "dark": "#1b2028"}

RGB = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """`primary` carries actions, `accent` figures and curves, `neutral` tints the greys."""

    primary: str = "#1f5fbf"
    secondary: str = "#41566e"
    accent: str = "#0f8a6a"
    neutral: str = "#5b6675"
    radius: str = "medium"
    font: str = "system"
    density: str = "comfortable"
    logo_text: str = "Livery"
    lock_mode: str | None = None

    def values(self) -> dict[str, Any]:
        return asdict(self)


def read_theme(values: Mapping[str, Any]) -> Theme:
    """Invalid names every wrong field. Any colour will do: what is written on it is computed."""
    faults: list[FieldFault] = []
    known = set(Theme.__dataclass_fields__)
    for name, value in values.items():
        fault = (
            _fault(name, value)
            if name in known
            else FieldFault(name, "unknown_field", f"There is no value {name}.")
        )
        if fault is not None:
            faults.append(fault)
    if faults:
        raise Invalid("invalid_theme", "The theme has wrong values.", faults=faults)
    return Theme(**values)


@dataclass(frozen=True, slots=True)
class ContrastFinding:
    """A colour that can hardly be told from its ground; `nearest` is the least changed one that passes."""

    field: str
    colour: str
    ratio: float
    nearest: str
    is_refused: bool

    @property
    def message(self) -> str:
        return f"{self.colour} reaches {self.ratio:.1f} : 1 on its ground; {self.nearest} would pass."


def contrast_findings(theme: Theme) -> list[ContrastFinding]:
    """What is drawn with a brand's own colours, against the ground it is drawn on: below 3 : 1 refused, below 4.5 : 1
    warned of (WCAG 2.2, 1.4.11 and 1.4.3). A brand locked to dark is measured on dark; else dark is computed."""
    ground = SURFACES[theme.lock_mode or "light"]
    found = []
    for field in ("primary", "accent"):
        colour = getattr(theme, field)
        ratio = contrast(colour, ground)
        if ratio < (WARNED_BELOW if field == "primary" else REFUSED_BELOW):
            is_refused = ratio < REFUSED_BELOW
            nearest = nearest_passing(colour, ground, REFUSED_BELOW if is_refused else WARNED_BELOW)
            found.append(ContrastFinding(field, colour, ratio, nearest, is_refused))
    return found


def logo_text(name: str) -> str:
    """The name, less what a logo's text may not hold."""
    kept = "".join(letter for letter in name if letter not in "<>").strip()[:40].strip()
    return kept if kept and is_plain_line(kept) else "Brand"


def _fault(name: str, value: Any) -> FieldFault | None:
    if name in COLOURS:
        if not isinstance(value, str) or not _COLOUR.fullmatch(value):
            return FieldFault(name, "colour", f"{name} is a colour such as #1f5fbf.")
        return None
    choices: dict[str, tuple[Any, ...]] = {
        "radius": RADII, "font": FONTS, "density": DENSITIES, "lock_mode": (None, *MODES),
    }  # fmt: skip
    if name in choices:
        return (
            None
            if value in choices[name]
            else FieldFault(name, "choice", f"{name} is one of {choices[name]}.")
        )
    if not isinstance(value, str) or not _LOGO_TEXT.fullmatch(value) or not is_plain_line(value):
        return FieldFault(name, "logo_text", "The logo's text has 1 to 40 printable characters.")
    return None


# --- colour ------------------------------------------------------------------------------------------------------


def rgb(colour: str) -> RGB:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def to_hex(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def luminance(colour: str) -> float:
    """WCAG 2.2 relative luminance, 0 (black) to 1 (white)."""

    def linear(part: int) -> float:
        share = part / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(part) for part in rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio, 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def mix(one: str, other: str, share: float) -> str:
    """`share` of `other` in `one`."""
    pairs = zip(rgb(one), rgb(other), strict=True)
    red, green, blue = (round(a + (b - a) * share) for a, b in pairs)
    return to_hex((red, green, blue))


def nearest_passing(colour: str, against: str, ratio: float = WARNED_BELOW) -> str:
    """The least darkened or lightened colour that reaches the ratio against another."""
    if contrast(colour, against) >= ratio:
        return colour
    target = "#000000" if contrast("#000000", against) > contrast("#ffffff", against) else "#ffffff"
    return (
        _first(lambda share: mix(colour, target, share), lambda found: contrast(found, against) >= ratio)
        or target
    )


def _first(make: Callable[[float], str], passes: Callable[[str], bool]) -> str | None:
    return next((found for step in range(1, 101) if passes(found := make(step / 100))), None)


def readable_on(colour: str) -> str:
    """White where it passes, else near-black, else black: what text on this colour is drawn with."""
    shades = ("#ffffff", "#10151c", "#000000")
    return next(shade for shade in shades if contrast(shade, colour) >= WARNED_BELOW)


def preset(name: str) -> Theme:
    """KeyError for an unknown one."""
    from themes.presets import PRESETS

    return PRESETS[name]
