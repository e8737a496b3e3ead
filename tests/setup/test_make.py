"""The Makefile and what is written about it."""

import re
import subprocess

import pytest

from tests.conftest import ROOT


def make(*arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_help_explains_every_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    listed = set(re.findall(r"^  make ([a-z-]+) +\S", make("help"), re.M))
    assert listed == targets
    assert listed >= {"setup", "run", "test", "check", "proof", "bench", "pictures", "lock"}


@pytest.mark.parametrize(
    "page", ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))]
)
def test_every_make_command_that_a_page_names_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", (ROOT / page).read_text(), re.M))
    assert named <= targets


def test_lock_files_name_no_registry() -> None:
    for name in ("package-lock.json", "requirements.lock", "uv-bootstrap.txt"):
        text = (ROOT / name).read_text()
        assert "resolved" not in text
        assert not re.search(r"--(extra-)?index-url|registry", text)


def test_every_python_package_is_pinned_by_hash() -> None:
    for name in ("requirements.lock", "uv-bootstrap.txt"):
        entries = re.split(r"\n(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.I)
        pinned = [entry for entry in entries if not entry.startswith("#")]
        assert pinned
        assert all(re.match(r"[\w.\[\]-]+==\S+", entry) and "--hash=sha256:" in entry for entry in pinned)


def test_no_third_party_code_is_committed() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [name for name in files if re.search(r"node_modules/|/dist/|\.min\.(js|css)$|\.whl$", name)]
