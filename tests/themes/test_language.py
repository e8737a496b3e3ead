"""German is complete: every text that a driver can meet has its translation, and none is left over."""

import ast
import re
from pathlib import Path

import jinja2
import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from app.surfaces.assembly import templates
from tests.conftest import ROOT
from themes.language import LOCALES, choose, gettext, speaking

PLACEHOLDER = re.compile(r"%\(\w+\)s")
SOURCES = [path for folder in ("app", "themes") for path in (ROOT / folder).rglob("*.py")]
PAGES = [path for folder in ("app", "themes") for path in (ROOT / folder).rglob("*.html")]


def catalogue() -> Catalog:
    with (LOCALES / "de.po").open("rb") as file:
        return read_po(file)


def _python(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("_", "N_")
            and node.args
        ) and isinstance(node.args[0], ast.Constant):
            found.add(str(node.args[0].value))
    return found


def _pages(environment: jinja2.Environment) -> set[str]:
    found = set()
    for path in PAGES:
        for _line, _function, message in environment.extract_translations(path.read_text()):  # type: ignore[attr-defined]
            found.add((message[0] if isinstance(message, tuple) else message) or "")
    return found


def texts() -> set[str]:
    environment = templates()
    pills = environment.get_template("components/ui.html").module.PILLS  # type: ignore[attr-defined]
    drivers = (
        "AVAILABLE", "BLOCKED", "CHARGING", "INOPERATIVE", "OUTOFORDER", "RESERVED", "UNKNOWN",
        "Available", "Occupied", "Reserved", "Unavailable", "Faulted", "Unknown", "PLANNED",
    )  # fmt: skip
    marked = set().union(*map(_python, SOURCES)) | _pages(environment) | {pills[name][2] for name in drivers}
    return marked - {""}


def test_every_text_has_its_german_and_none_is_left_over():
    known = {
        message.id[0] if isinstance(message.id, tuple | list) else message.id: message
        for message in catalogue() if message.id
    }  # fmt: skip
    assert sorted(texts() - known.keys()) == []
    assert sorted(known.keys() - texts()) == []
    for text, message in known.items():
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        assert not message.fuzzy and all(strings), text
        for translated in map(str, strings):
            assert set(PLACEHOLDER.findall(translated)) <= set(PLACEHOLDER.findall(str(message.id))), text
            if not isinstance(message.id, tuple | list):
                assert set(PLACEHOLDER.findall(translated)) == set(PLACEHOLDER.findall(text)), text


def test_a_language_holds_within_its_block_only():
    with speaking("de"):
        assert gettext("Receipt") == "Beleg"
    assert gettext("Receipt") == "Receipt"
    with speaking("../../etc"):
        assert gettext("Receipt") == "Receipt"


@pytest.mark.parametrize(
    ("wanted", "accepts", "language"),
    [
        (None, "de-DE,de;q=0.9,en;q=0.8", "de"), (None, "fr,en;q=0.3,de;q=0.2", "en"), (None, "", "en"),
        ("de", "en", "de"), ("xx", "de", "de"), (None, "de;q=0,en;q=0.1", "en"), (None, ";;q=x,,,", "en"),
        (None, "en;q=abc,de;q=0.1", "de"),
    ],
)  # fmt: skip
def test_the_choice_by_hand_comes_before_the_browsers(wanted: str | None, accepts: str, language: str):
    assert choose(("en", "de"), wanted, accepts, "en") == language
