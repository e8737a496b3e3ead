"""Docs name only paths that exist, link only to pages that exist, and show only commands that run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP = ("app", "tenants", "themes", "ocpp_gateway", "migrations", "tests", "docs", "bench", "deploy", ".ci")
_FOLDERS = "|".join(map(re.escape, TOP))
PATH = re.compile(rf"`((?:{_FOLDERS})/[\w./-]*|[\w-]+\.(?:md|toml|json|txt|lock))`")
MADE_LATER = {"running.json", "secrets.json"}
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
COMMAND = re.compile(r"^    (?:\.venv/bin/)?(make|livery) ([^#\n]*)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_a_page_names_exists(page: Path):
    named = PATH.findall(page.read_text())
    missing = [
        n for n in named if n not in MADE_LATER and not (ROOT / n).exists() and not (page.parent / n).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path):
    assert not [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]


def _commands() -> set[tuple[str, str]]:
    return {(tool, rest.strip()) for page in PAGES for tool, rest in COMMAND.findall(page.read_text())}


def test_every_make_target_a_page_shows_exists():
    wanted = {word for tool, rest in _commands() if tool == "make" for word in rest.split()[:1]}
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert wanted <= set(re.findall(r"make ([a-z]+)", listed))
    assert {"run", "test"} <= wanted


@pytest.mark.parametrize("rest", sorted(rest for tool, rest in _commands() if tool == "livery"))
def test_every_livery_command_a_page_shows_is_understood(rest: str):
    """Its command and options are known: with --help it answers 0, and each option it names is listed there."""
    words = shlex.split(rest)
    path = [word for word in words if not word.startswith("-")]
    command = [sys.executable, "-m", "app.cli", path[0], "--help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert all(option in answer.stdout for option in words if option.startswith("--"))
