"""Runs the host of embedded servers as ourselves and as an ordinary user, in folders of every kind."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

START_S = 30


@dataclass
class Host:
    """A running `tests.setup.host`."""

    process: subprocess.Popen[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def pids(self) -> list[int]:
        return self.facts["pids"]

    def url(self, name: str) -> str:
        return self.facts["urls"][name].replace("+psycopg", "")

    def wait_until_ready(self) -> "Host":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it did not start: {self.process.communicate(timeout=START_S)[1]}"
        self.facts = json.loads(line)
        return self

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(START_S)


@dataclass(frozen=True)
class Person:
    """Who runs a program: ourselves, or an ordinary user where we are root."""

    uid: int
    prefix: tuple[str, ...]
    python: tuple[str, ...]
    environment: dict[str, str]

    def run(self, *arguments: str, timeout: float = 120, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, *self.python, *arguments], env=self.environment, cwd="/", capture_output=True, text=True,
            timeout=timeout, check=False, **more,
        )  # fmt: skip

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, *self.python, *arguments], env=self.environment, cwd="/", text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def require(self, module: str) -> None:
        """Another Python on our packages may miss one that only its version needs."""
        found = self.run("-c", f"import {module}")
        if found.returncode:
            pytest.skip(
                f"{self.python[0]} cannot import {module} as an ordinary user: {found.stderr.splitlines()[-1]}"
            )


def ourselves() -> Person:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LIVERY_", "DATABASE_", "MAKE"))
    }
    return Person(os.geteuid(), (), (sys.executable,), environment | {"PYTHONPATH": str(ROOT)})


def _ordinary_user() -> Person:
    """`daemon` is on every Debian. Its Python: ours if it may run it, else the system's on our packages."""
    us = ourselves()
    if us.uid != 0:
        return us
    daemon = pwd.getpwnam("daemon")
    # setpriv itself still has root's powers when it starts a program: the shell between them has none.
    prefix = ("setpriv", f"--reuid={daemon.pw_uid}", f"--regid={daemon.pw_gid}", "--clear-groups",
              "/bin/sh", "-c", 'exec "$0" "$@"')  # fmt: skip
    packages = Path(pytest.__file__).parent.parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1",
                   "PYTHONPATH": f"{ROOT}:{packages}"}  # fmt: skip
    for python in (sys.executable, f"/usr/bin/python{version}"):
        found = subprocess.run([*prefix, python, "-c", "import app.embedded"], env=environment, cwd="/", check=False,
                               capture_output=True)  # fmt: skip
        if found.returncode == 0:
            return Person(daemon.pw_uid, prefix, (python,), environment)
    pytest.skip(f"no Python {version} that an ordinary user may run")


@pytest.fixture(params=["ourselves", "an ordinary user"])
def person(request: pytest.FixtureRequest) -> Person:
    if request.param == "an ordinary user" and os.geteuid() != 0:
        pytest.skip("we are an ordinary user already")
    return ourselves() if request.param == "ourselves" else _ordinary_user()


@pytest.fixture
def ordinary_user() -> Person:
    return _ordinary_user()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder under /tmp that everybody may write to: the tests make private ones in it."""
    folder = Path(tempfile.mkdtemp(prefix="livery-setup-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start_host() -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def start(person: Person, data_dir: Path, *toys: str) -> Host:
        hosts.append(Host(person.popen("-m", "tests.setup.host", str(data_dir), *toys)))
        return hosts[-1].wait_until_ready()

    yield start
    for host in hosts:
        if host.process.poll() is None:
            host.end()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pids: list[int], timeout_s: float) -> list[int]:
    """Who is still there when the time is over."""
    deadline = time.monotonic() + timeout_s
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
