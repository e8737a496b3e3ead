"""Looks to start from. `worst_legal` is the ugliest set of values that validation lets through: tests use it."""

from themes.theme import Theme

PRESETS: dict[str, Theme] = {
    "default": Theme(),
    "console": Theme(
        primary="#3d3a8c", accent="#6a5acd", neutral="#5a5f73", logo_text="Livery console", radius="small"
    ),
    "nordlicht": Theme(
        primary="#0b5d6b", secondary="#2d4a53", accent="#13a38b", neutral="#54686d", radius="large",
        logo_text="Nordlicht",
    ),
    "solmark": Theme(
        primary="#b3430b", secondary="#5b4636", accent="#c77c00", neutral="#73675c", radius="none", density="compact",
        logo_text="SOLMARK",
    ),
    "elbstrom": Theme(
        primary="#7a1f5c", secondary="#463a4d", accent="#3f6fd1", neutral="#655d6b", radius="medium", font="inter",
        logo_text="elbstrom",
    ),
    "worst_legal": Theme(
        primary="#a69600", secondary="#ff00ff", accent="#00ab44", neutral="#808080", radius="none",
        logo_text="Loud & Clear",
    ),
}  # fmt: skip
