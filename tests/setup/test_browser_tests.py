"""Where no Chromium is, browser tests are counted as not run; in CI that is a failure."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.setup.conftest import ourselves

TWO_AND_ONE = """
import pytest

@pytest.mark.browser
@pytest.mark.parametrize("page", [1, 2])
def test_a_page(page): raise AssertionError("a browser test ran")

def test_something_else(): pass
"""
SENTENCE = "2 browser tests not run: apt-get install chromium"


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    (folder / "test_pages.py").write_text(TWO_AND_ONE)
    without_chromium = {"PATH": str(folder / "nothing"), "LIVERY_CHROMIUM": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"),
         "--rootdir", str(folder), "-p", "no:cacheprovider", *arguments, str(folder / "test_pages.py")],
        cwd=ROOT, env=ourselves().environment | without_chromium | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "ci", "code"), [([], "", 0), (["-n", "2"], "", 0), ([], "true", 1), (["-n", "2"], "1", 1)]
)
def test_browser_tests_that_did_not_run_are_counted(
    tmp_path: Path, arguments: list[str], ci: str, code: int
) -> None:
    found, output = run(tmp_path, *arguments, CI=ci)
    assert SENTENCE in output.splitlines(), output
    assert "1 passed, 2 skipped" in output
    assert found == code
