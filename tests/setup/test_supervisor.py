"""The supervisor keeps children alive, and ends them together."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.supervisor import Child, ChildFailed, Supervisor
from tests.setup.conftest import Host, Person, is_alive, ourselves, wait_until_gone

SLEEPS = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Look(BaseException):
    """Ends `watch` from within its own loop."""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(said: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(said.append)
    yield made
    made.stop(grace_s=1)


def child(name: str, code: str, **more: object) -> Child:
    return Child(name, [sys.executable, "-c", code], os.environ, **more)  # type: ignore[arg-type]


def watch_for(supervisor: Supervisor, seconds: float) -> None:
    deadline = time.monotonic() + seconds

    def until_deadline() -> None:
        if time.monotonic() > deadline:
            raise Look

    with pytest.raises(Look):
        supervisor.watch(until_deadline)


def pid_of(one: Child) -> int:
    assert one.process is not None
    return one.process.pid


def test_a_crashed_child_is_started_again_after_a_pause(supervisor: Supervisor, said: list[str]) -> None:
    one = child("one", SLEEPS)
    supervisor.start(one)
    first = pid_of(one)
    os.kill(first, signal.SIGKILL)
    watch_for(supervisor, 0.7)
    assert not one.is_running
    watch_for(supervisor, 1)
    assert one.is_running and pid_of(one) != first
    assert said == ["one ended (killed by SIGKILL); starting it again"]


def test_a_child_that_crashes_at_once_does_not_spin(supervisor: Supervisor) -> None:
    one = child("one", "raise SystemExit(3)")
    supervisor.start(one)
    watch_for(supervisor, 3.5)
    assert 1 <= one.restarts <= 3


def test_children_are_stopped_at_the_same_time(supervisor: Supervisor) -> None:
    slow = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(0)))\n"
        "time.sleep(600)"
    )
    children = [child(f"slow{number}", slow) for number in range(4)]
    for one in children:
        supervisor.start(one)
    time.sleep(0.5)
    pids = [pid_of(one) for one in children]
    started = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - started < 2.5
    assert not any(map(is_alive, pids))


def test_a_stubborn_child_is_killed_when_the_grace_is_over(supervisor: Supervisor, said: list[str]) -> None:
    one = child("one", STUBBORN)
    supervisor.start(one)
    pid = pid_of(one)
    time.sleep(0.3)
    supervisor.stop(grace_s=0.5)
    assert not is_alive(pid)
    assert said == ["one did not stop in 0 s and was killed"]


def test_what_a_child_started_is_stopped_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    """Its whole process group is told to stop."""
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        f"grandchild = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}])\n"
        f"open({str(note)!r}, 'w').write(str(grandchild.pid))\n"
        "time.sleep(600)"
    )
    supervisor.start(child("one", code))
    while not (note.exists() and note.read_text()):
        time.sleep(0.05)
    supervisor.stop()
    assert wait_until_gone([int(note.read_text())], 3) == []


def test_a_child_that_ends_while_starting_says_its_last_words(supervisor: Supervisor, tmp_path: Path) -> None:
    code = "import sys; sys.exit('port 9000 is taken')"
    supervisor.start(
        child("gateway", code, ready_url="http://127.0.0.1:1/readyz", log=tmp_path / "gateway.log")
    )
    with pytest.raises(ChildFailed, match="gateway ended while it was starting: port 9000 is taken"):
        supervisor.wait_until_ready(20)


def test_ready_means_that_it_answers(supervisor: Supervisor) -> None:
    serve = (
        "import http.server, time; time.sleep(0.5)\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "  def do_GET(self): self.send_response(200 if self.path == '/readyz' else 404); self.end_headers()\n"
        "s = http.server.HTTPServer(('127.0.0.1', {port}), H); s.serve_forever()"
    )
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    supervisor.start(child("web", serve.format(port=port), ready_url=f"http://127.0.0.1:{port}/readyz"))
    started = time.monotonic()
    supervisor.wait_until_ready(20)
    assert time.monotonic() - started >= 0.4


def test_a_silent_child_is_given_up_after_its_time(supervisor: Supervisor) -> None:
    supervisor.start(child("web", SLEEPS, ready_url="http://127.0.0.1:1/readyz"))
    with pytest.raises(ChildFailed, match="web did not get ready in 1 s"):
        supervisor.wait_until_ready(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_children_then_servers(
    person: Person, place: Path, start_host: Callable[..., Host], number: signal.Signals
) -> None:
    host = start_host(person, place / "data", SLEEPS, SLEEPS)
    host.process.send_signal(number)
    assert host.process.wait(20) == 0
    assert wait_until_gone(host.pids, 1) == []
    log = (place / "data" / "postgres.log").read_text()
    assert "database system is shut down" in log


def test_a_killed_parent_takes_even_stubborn_children_along(
    place: Path, start_host: Callable[..., Host]
) -> None:
    host = start_host(ourselves(), place / "data", SLEEPS, STUBBORN)
    time.sleep(0.3)
    host.process.kill()
    assert wait_until_gone(host.pids, 5) == []
