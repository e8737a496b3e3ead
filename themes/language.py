"""What language a page, a mail or a paper speaks. Texts stand in English where they are used; `locales/*.po` translate.

`_("…")` translates now, `N_("…")` only marks a text that is translated where it is shown. A test extracts both from the
driver's templates and from the code and compares them with the catalogues: complete, none left over.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from babel.messages.pofile import read_po

LOCALES = Path(__file__).parent / "locales"
SOURCE = "en"
_CURRENT: ContextVar[str] = ContextVar("language", default=SOURCE)


def current() -> str:
    return _CURRENT.get()


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Everything in this block (and task) speaks that language; one we do not know is English."""
    token = _CURRENT.set(language if language == SOURCE or _catalogue(language) else SOURCE)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@lru_cache(maxsize=20)
def _catalogue(language: str) -> dict[str, tuple[str, ...]]:
    """Text -> its translation, or its singular and plural."""
    path = LOCALES / f"{language}.po"
    if not language.isalpha() or not path.is_file():
        return {}
    with path.open("rb") as file:
        catalogue = read_po(file)
    found: dict[str, tuple[str, ...]] = {}
    for message in catalogue:
        if not message.id:
            continue
        texts = message.string if isinstance(message.string, tuple | list) else (message.string,)
        key = str(message.id[0] if isinstance(message.id, tuple | list) else message.id)
        if all(texts):
            found[key] = tuple(str(text) for text in texts)
    return found


def gettext(text: str) -> str:
    return _catalogue(_CURRENT.get()).get(text, (text,))[0]


def ngettext(one: str, many: str, count: int) -> str:
    """Two forms are enough for the languages we speak (English and German alike)."""
    forms = _catalogue(_CURRENT.get()).get(one, (one, many))
    return forms[0] if count == 1 else forms[-1]


def N_(text: str) -> str:  # noqa: N802 (gettext's own name)
    return text


_ = gettext


def choose(offered: Sequence[str], wanted: str | None, accepts: str, default: str) -> str:
    """What was chosen by hand, else the first that the browser accepts (RFC 9110, 12.5.4), else the brand's own."""
    if wanted and wanted in offered:
        return wanted
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepts.split(",")[:20]):
        tag, _sep, parameter = part.strip().partition(";")
        try:
            weight = float(parameter.partition("=")[2]) if parameter else 1.0
        except ValueError:
            weight = 0.0
        ranked.append((-weight, place, tag.split("-")[0].strip().lower()))
    return next((tag for weight, _place, tag in sorted(ranked) if weight < 0 and tag in offered), default)
