"""A brand's whole look as values: theme, pictures, languages, legal texts."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from app.kernel.errors import FieldFault, Invalid
from themes.letters import TURNING
from themes.theme import Theme, contrast_findings, read_theme

LANGUAGES = {"en": "English", "de": "Deutsch"}
TEXTS = ("imprint", "terms", "privacy")
PICTURES = ("logo", "mark")
MAX_TEXT = 20_000
_DIGEST = re.compile(r"[0-9a-f]{16}")
_TURNING = re.compile(rf"[{TURNING}\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`logo` and `mark` are digests of stored pictures; `texts` is kind -> language -> plain text."""

    theme: Theme = field(default_factory=Theme)
    logo: str | None = None
    mark: str | None = None
    languages: tuple[str, ...] = ("en", "de")
    texts: dict[str, dict[str, str]] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        return asdict(self) | {"languages": list(self.languages)}

    @property
    def text_kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in TEXTS if any(self.texts.get(kind, {}).values()))


def read_look(values: Mapping[str, Any]) -> Look:
    """What is stored, as it is: it was checked when it came in. Invalid for a value no release of ours wrote."""
    return Look(
        theme=read_theme(values.get("theme") or {}), logo=_digest(values.get("logo"), "logo"),
        mark=_digest(values.get("mark"), "mark"), languages=tuple(values.get("languages") or ("en",)),
        texts={kind: dict(found) for kind, found in (values.get("texts") or {}).items()},
    )  # fmt: skip


def _digest(value: Any, name: str) -> str | None:
    if value is not None and not (isinstance(value, str) and _DIGEST.fullmatch(value)):
        raise Invalid.field(name, "digest", f"{name} is no picture of ours.")
    return value


def check_look(look: Look) -> Look:
    """What may be drafted: colours that can be seen, languages we speak, texts of bounded length."""
    faults = [
        FieldFault(one.field, "contrast", one.message)
        for one in contrast_findings(look.theme)
        if one.is_refused
    ]
    if not look.languages or not set(look.languages) <= LANGUAGES.keys():
        faults.append(FieldFault("languages", "languages", "Choose at least one language."))
    for kind, found in look.texts.items():
        for language, text in found.items():
            name = f"{kind}_{language}"
            if kind not in TEXTS or language not in LANGUAGES:
                faults.append(FieldFault(name, "unknown_field", f"There is no text {name}."))
            elif len(text) > MAX_TEXT:
                faults.append(FieldFault(name, "too_long", f"At most {MAX_TEXT} characters."))
            elif _TURNING.search(text):
                faults.append(FieldFault(name, "characters", "The text holds invisible control characters."))
    if faults:
        raise Invalid("invalid_look", "The look cannot be saved like this.", faults=faults)
    return look


def paragraphs(text: str) -> list[tuple[str, Any]]:
    """A legal text's blocks: ("h", words) for a line that begins with #, ("ul", items) for - lines, ("p", words)."""
    found: list[tuple[str, Any]] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip()):
        lines = [line.strip() for line in block.split("\n") if line.strip()]
        while lines and lines[0].startswith("#"):
            found.append(("h", lines.pop(0).lstrip("# ")))
        if lines and all(line.startswith("- ") for line in lines):
            found.append(("ul", [line[2:] for line in lines]))
        elif lines:
            found.append(("p", "\n".join(lines)))
    return found
