"""The import contracts catch what they say they catch: violations are planted in a copy of the source."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("app", "tenants", "themes", "ocpp_gateway", "migrations")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python files of the five packages, the contracts, and our own contract type."""
    copy = tmp_path_factory.mktemp("checkout")
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            target = copy / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    for file in ("pyproject.toml", "tests/__init__.py", "tests/import_rules.py"):
        (copy / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, copy / file)
    return copy


@pytest.fixture
def plant(checkout: Path) -> Iterator["Plant"]:
    planted = Plant(checkout)
    yield planted
    planted.remove()


class Plant:
    def __init__(self, checkout: Path) -> None:
        self._checkout, self._before = checkout, dict[Path, str | None]()

    def __call__(self, file: str, line: str) -> None:
        path = self._checkout / file
        self._before.setdefault(path, path.read_text() if path.exists() else None)
        path.parent.mkdir(exist_ok=True)
        path.write_text((self._before[path] or "") + f"\n{line}\n")

    def remove(self) -> None:
        for path, text in self._before.items():
            if text is None:
                path.unlink()
            else:
                path.write_text(text)

    def lint(self) -> str:
        code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(is_debug_mode=False))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self._checkout, capture_output=True, text=True, check=False,
            env={"PYTHONPATH": str(self._checkout), "COLUMNS": "200"},
        )  # fmt: skip
        assert "Contracts: " in done.stdout, done.stdout + done.stderr
        return done.stdout


def test_the_source_keeps_every_contract(plant: Plant) -> None:
    assert ", 0 broken." in plant.lint()


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("app/stations/models.py", "import app.brands.models", "Import only from lower lines"),
        ("app/access/models.py", "import app.charging.models", "Import only from lower lines"),
        ("tenants/models.py", "import app.identity.models", "Import only from lower lines"),
        ("app/embedded.py", "import app.kernel.settings", "Import only from lower lines"),
        ("app/kernel/errors.py", "import tenants.models", "Import only from lower lines"),
        ("app/charging/models.py", "import app.stations.jobs", "From another slice only"),
        ("app/cli.py", "import app.stations.jobs", "From another slice only"),
        ("app/stations/models.py", "import psycopg", "psycopg lives in"),
        ("app/charging/models.py", "import redis", "redis lives in"),
        ("app/stations/models.py", "import ocpp", "ocpp and websockets live in"),
        ("app/charging/models.py", "import stripe", "stripe lives in"),
        ("app/identity/models.py", "import authlib", "authlib lives in"),
        ("app/stations/models.py", "import ocpp_gateway", "No slice imports ocpp_gateway"),
        ("app/helpers/__init__.py", "x = 1", "A new package in app must be given a line"),
    ],
)
def test_a_planted_violation_breaks_its_contract(plant: Plant, file: str, line: str, contract: str) -> None:
    plant(file, line)
    broken = [text for text in plant.lint().splitlines() if " BROKEN" in text]
    assert any(text.startswith(contract) for text in broken), broken


def test_a_slice_may_use_its_own_private_modules_and_gatherers_may_too(plant: Plant) -> None:
    plant("app/charging/jobs.py", "pass")
    plant("app/charging/service.py", "import app.charging.jobs")
    plant("app/surfaces/api.py", "import app.charging.jobs")
    kept = [text for text in plant.lint().splitlines() if text.startswith("From another slice only")]
    assert kept and " KEPT" in kept[0]
