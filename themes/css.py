"""One brand's stylesheet: custom properties for light and dark, nothing else. Its name is its hash."""

import hashlib
from functools import lru_cache

from themes.theme import Theme, contrast, mix, nearest_passing, readable_on

_RADIUS = {"none": ("0", "0", "0"), "small": ("3px", "4px", "6px"), "medium": ("6px", "8px", "12px"),
           "large": ("10px", "14px", "20px")}  # fmt: skip
_FONT = {
    "system": 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif',
    "inter": '"Inter Variable", system-ui, sans-serif',
}
_TONES = {"info": "#1d6fb8", "success": "#15803d", "warning": "#b45309", "error": "#c4272f"}


@lru_cache(maxsize=1000)
def stylesheet(theme: Theme) -> tuple[str, str]:
    """(16 hex digits, CSS text)."""
    light, dark = _declarations(light_tokens(theme)), _declarations(dark_tokens(theme))
    css = (
        f":root{{{_declarations(_shape(theme))}}}\n"
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
    )
    return hashlib.sha256(css.encode()).hexdigest()[:16], css


def preview_stylesheet(theme: Theme) -> str:
    """The same values for a part of a page only: `.preview.light` and `.preview.dark` side by side."""
    shape = _declarations(_shape(theme))
    return "".join(
        f".preview.{mode}{{color-scheme:{mode};{shape}{_declarations(tokens)}}}\n"
        for mode, tokens in (("light", light_tokens(theme)), ("dark", dark_tokens(theme)))
    )


def _declarations(tokens: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in tokens.items())


def _shape(theme: Theme) -> dict[str, str]:
    small, medium, large = _RADIUS[theme.radius]
    compact = theme.density == "compact"
    return {
        "radius-s": small, "radius-m": medium, "radius-l": large, "font": _FONT[theme.font],
        "gap": "0.75rem" if compact else "1rem", "row": "0.5rem" if compact else "0.7rem",
    }  # fmt: skip


def light_tokens(theme: Theme) -> dict[str, str]:
    base = {
        "bg": mix(theme.neutral, "#ffffff", 0.955), "surface": "#ffffff",
        "sunken": mix(theme.neutral, "#ffffff", 0.92), "line": mix(theme.neutral, "#ffffff", 0.78),
        "line-strong": nearest_passing(mix(theme.neutral, "#ffffff", 0.3), "#ffffff", 3.0),
        "text": mix(theme.neutral, "#0c1016", 0.88),
    }  # fmt: skip
    return base | _coloured(theme, base, dark=False)


def dark_tokens(theme: Theme) -> dict[str, str]:
    base = {
        "bg": mix(theme.neutral, "#0b0e13", 0.9), "surface": mix(theme.neutral, "#12161d", 0.84),
        "sunken": mix(theme.neutral, "#0b0e13", 0.82), "line": mix(theme.neutral, "#12161d", 0.62),
        "line-strong": nearest_passing(mix(theme.neutral, "#ffffff", 0.1), mix(theme.neutral, "#12161d", 0.84), 3.0),
        "text": "#eef1f5",
    }  # fmt: skip
    return base | _coloured(theme, base, dark=True)


def _coloured(theme: Theme, base: dict[str, str], *, dark: bool) -> dict[str, str]:
    """Text colours pass 4.5:1 on every ground they may stand on, whatever the brand chose."""
    # The hardest ground text stands on: the sunken one when light, the surface when dark.
    ground = base["surface"] if dark else base["sunken"]
    primary = (
        theme.primary
        if contrast(theme.primary, base["surface"]) >= 3
        else _visible(theme.primary, base["surface"])
    )
    tokens = {
        "muted": nearest_passing(theme.neutral, ground), "primary": primary, "on-primary": readable_on(primary),
        "primary-hover": mix(primary, "#ffffff" if readable_on(primary) != "#ffffff" else "#000000", 0.14),
        "primary-text": nearest_passing(theme.primary, ground),
        "primary-soft": mix(theme.primary, base["surface"], 0.86 if not dark else 0.78),
        "accent": _visible(theme.accent, base["surface"]), "focus": _visible(theme.primary, base["bg"]),
    }  # fmt: skip
    tokens["primary-soft-text"] = nearest_passing(theme.primary, tokens["primary-soft"])
    for name, tone in _TONES.items():
        soft = mix(tone, base["surface"], 0.88 if not dark else 0.78)
        tokens |= {
            name: _visible(tone, base["surface"]), f"{name}-soft": soft, f"{name}-text": nearest_passing(tone, ground),
            f"{name}-soft-text": nearest_passing(tone, soft),
        }  # fmt: skip
    return tokens


def _visible(colour: str, ground: str) -> str:
    """A shape needs 3:1 (WCAG 2.2, 1.4.11)."""
    return nearest_passing(colour, ground, 3.0)
