"""`livery up --demo` as a person meets it: it gets ready, it can be used, it ends, it survives being killed."""

import json
import os
import queue
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import pytest

from tests.setup.conftest import Person, wait_until_gone

FIRST_START_S, SECOND_START_S = 120, 60  # 4 s alone; other tests share the cores here
STOP_S = (
    20 + 30 + 10 + 30
)  # the processes' grace, PostgreSQL's, Valkey's (1 s alone), and some for whoever waits
pytestmark = pytest.mark.timeout(400)


@dataclass
class Up:
    """A `livery up --demo` in the foreground of nobody's terminal."""

    process: Popen[str]
    data_dir: Path
    web_port: int
    ocpp_port: int
    started: float
    said: str = ""

    def wait_until_ready(self, timeout_s: float) -> float:
        """Seconds until the line that begins with `ready`."""
        lines = self._lines()
        while (left := self.started + timeout_s - time.monotonic()) > 0:
            try:
                line = lines.get(timeout=left)
            except queue.Empty:
                break
            assert line, f"it ended: {self.said}{self.process.communicate(timeout=30)[1]}"
            self.said += line
            if line.startswith("ready"):
                return time.monotonic() - self.started
        raise AssertionError(f"not ready after {timeout_s} s: {self.said}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Each part has its own grace, and what they come to may be used up where the cores are shared."""
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"not stopped after {STOP_S} s: {self.process.communicate()[1]}") from None

    def _lines(self) -> "queue.Queue[str]":
        """What it says, read by a thread: a pipe cannot be asked whether a whole line lies in it."""
        lines: queue.Queue[str] = queue.Queue()
        stdout = self.process.stdout
        assert stdout is not None

        def read() -> None:
            for line in stdout:
                lines.put(line)
            lines.put("")

        threading.Thread(target=read, daemon=True).start()
        return lines

    def descendants(self) -> list[int]:
        """Every process below this one, whatever group it is in."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (FileNotFoundError, ProcessLookupError):
                    continue
                children.setdefault(parent, []).append(int(entry.name))
        found, looking = [], [self.process.pid]
        while looking:
            below = children.get(looking.pop(), [])
            found += below
            looking += below
        return found

    def get(self, host: str, path: str) -> tuple[int, str]:
        """As a browser would that resolves *.localhost to this machine."""
        with socket.create_connection(("127.0.0.1", self.web_port), timeout=10) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {host}:{self.web_port}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
        return int(answer.split(" ", 2)[1]), answer


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


Start = Callable[..., Up]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Up] = []

    def start(person: Person, data_dir: Path) -> Up:
        person.require("tenants.redis")
        web_port, ocpp_port = free_port(), free_port()
        process = person.popen("-m", "app.cli", "up", "--demo", "--data-dir", str(data_dir),
                               "--web-port", str(web_port), "--ocpp-port", str(ocpp_port))  # fmt: skip
        running.append(Up(process, data_dir, web_port, ocpp_port, time.monotonic()))
        return running[-1]

    yield start
    for up in running:
        if up.process.poll() is None:
            up.stop()


def test_one_command_from_nothing_to_a_demo_that_answers(person: Person, place: Path, start: Start) -> None:
    up = start(person, place / "data")
    up.wait_until_ready(FIRST_START_S)
    status, page = up.get("localhost", "/")
    assert status == 200
    hosts = set(re.findall(rf"http://([a-z0-9.-]+):{up.web_port}", page))
    assert "console.localhost" in hosts
    assert len([host for host in hosts if host.startswith("portal-")]) == 3
    for host in sorted(hosts - {"localhost"}):
        assert f"http://{host}:{up.web_port}" in up.said
        assert up.get(host, "/")[0] in (200, 302, 303), host
    assert up.get("unknown.localhost", "/")[0] == 404

    before = up.descendants()
    assert up.stop(signal.SIGINT) == 0
    assert wait_until_gone(before, 1) == []

    again = start(person, place / "data")
    seconds = again.wait_until_ready(60)
    assert seconds < SECOND_START_S, f"the second start took {seconds:.1f} s"


def test_a_kill_leaves_no_orphan_and_the_next_start_works(
    place: Path, start: Start, ordinary_user: Person
) -> None:
    up = start(ordinary_user, place / "data")
    up.wait_until_ready(FIRST_START_S)
    family = up.descendants()
    assert len(family) > 5
    up.process.kill()
    assert wait_until_gone(family, 5) == []
    start(ordinary_user, place / "data").wait_until_ready(60)


def test_a_killed_part_comes_back(place: Path, start: Start, ordinary_user: Person) -> None:
    up = start(ordinary_user, place / "data")
    up.wait_until_ready(FIRST_START_S)
    postgres = json.loads((place / "data" / "running.json").read_text())["processes"]["postgres"]["pid"]
    parts = {name: pid for pid in up.descendants() if (name := _part(pid))} | {"postgres": postgres}
    assert parts.keys() - {"seed"} == {
        "web",
        "worker",
        "gateway",
        "simulate",
        "postgres",
    }  # the demo's past may be written still
    for name in ("postgres", "web", "gateway", "worker"):
        os.kill(parts[name], signal.SIGKILL)
    back: dict[str, int] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.5)
        back = {name: pid for pid in up.descendants() if (name := _part(pid))}
        if back.keys() >= {"web", "worker", "gateway"} and _answers(up):
            break
    assert _answers(up)
    assert up.process.poll() is None
    assert all(back[name] != parts[name] for name in ("web", "worker", "gateway"))


def test_each_process_is_handed_only_the_doors_it_needs(
    place: Path, start: Start, ordinary_user: Person
) -> None:
    up = start(ordinary_user, place / "data")
    up.wait_until_ready(FIRST_START_S)
    doors = {}
    for pid in up.descendants():
        if name := _part(pid):
            words = Path(f"/proc/{pid}/environ").read_text().split("\0")
            doors[name] = {
                word.partition("=")[0] for word in words if word.startswith(("DATABASE_URL", "REDIS_URL"))
            }
    past = doors.pop("seed", None)  # writes the demo's past, and is gone when it is written
    assert past in (None, {"DATABASE_URL", "DATABASE_URL_PLATFORM", "REDIS_URL"})
    assert doors == {
        "web": {"DATABASE_URL", "DATABASE_URL_PLATFORM", "REDIS_URL"},
        "worker": {"DATABASE_URL", "DATABASE_URL_PLATFORM", "DATABASE_URL_QUEUE", "REDIS_URL"},
        "gateway": {"DATABASE_URL", "REDIS_URL"},
        "simulate": set(),
    }


def _answers(up: Up) -> bool:
    try:
        return up.get("localhost", "/readyz")[0] == 200
    except OSError:
        return False


def _part(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return words[words.index("app.cli") + 1] if "app.cli" in words else ""
