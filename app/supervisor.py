"""Keeps the processes of `livery up` alive and ends them together.

Each child is its own process group, so that Ctrl-C reaches only the parent, which then stops them in order. A child
dies with its parent even when that is killed with -9. Children are started from the main thread only: the kernel ties a
child's life to the thread that forked it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from app.kernel.errors import LiveryError

LIBC = ctypes.CDLL(None)  # loaded before any fork
PR_SET_PDEATHSIG = 1
PAUSE_S = 1.0  # before a crashed child is started again
STOP_GRACE_S = 20.0
LOOK_S = 0.1
CLEAN_EXITS = (0, -signal.SIGTERM)  # uvicorn raises the signal again after a clean stop


class ChildFailed(LiveryError):
    code = "child_failed"


class StopRequested(BaseException):
    """SIGTERM, Ctrl-C or a closed terminal. Not an Exception: nothing on the way may swallow it."""


@dataclass(slots=True)
class Child:
    """`is_errand`: it ends by itself, and once it ended well nobody starts it again."""

    name: str
    argv: list[str]
    env: Mapping[str, str]
    ready_url: str | None = None
    log: Path | None = None
    is_errand: bool = False
    process: subprocess.Popen[bytes] | None = None
    restart_at: float | None = None
    restarts: int = 0
    log_start: int = field(default=0)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


def dies_with_parent() -> Callable[[], None]:
    """With -9: when the parent was killed the databases end too, so there is nothing left to finish in order."""
    parent = os.getpid()

    def in_child() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def raise_on_stop_signals() -> None:
    """From here on SIGTERM, SIGINT and SIGHUP raise StopRequested, once; later ones are ignored while we stop."""

    def handler(_signal: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        raise StopRequested

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


def end_with_parent() -> None:
    """For a process that `make` started: a killed make would otherwise leave it running unseen."""
    LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


class Supervisor:
    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self.children: list[Child] = []

    def start(self, child: Child) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("children must be started from the main thread")
        if child not in self.children:
            self.children.append(child)
        self._spawn(child)

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Until every child that has a `ready_url` answers 200 there; ChildFailed when one ends or is too slow."""
        deadline = time.monotonic() + timeout_s
        for child in self.children:
            while child.ready_url is not None and not _answers(child.ready_url):
                if not child.is_running:
                    raise ChildFailed(
                        message=f"{child.name} ended while it was starting: {_last_words(child)}"
                    )
                if time.monotonic() > deadline:
                    raise ChildFailed(
                        message=f"{child.name} did not get ready in {timeout_s:.0f} s: {_last_words(child)}"
                    )
                time.sleep(LOOK_S)

    def watch(self, on_look: Callable[[], None] = lambda: None) -> None:
        """Starts again what crashes, until StopRequested. `on_look` is called ten times a second."""
        while True:
            on_look()
            for child in self.children:
                self._look_after(child)
            time.sleep(LOOK_S)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """All at the same time; who has not ended when the grace is over is killed."""
        running = [child for child in self.children if child.is_running]
        for child in running:
            _send(child, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._progress(f"{child.name} did not stop in {grace_s:.0f} s and was killed")
                _send(child, signal.SIGKILL)
                child.process.wait()
        for child in self.children:
            child.process = None

    def _look_after(self, child: Child) -> None:
        if child.process is None or child.is_running:
            return
        if child.is_errand and child.process.returncode == 0:
            return
        if child.restart_at is None:
            status = child.process.returncode
            child.restart_at = time.monotonic() + PAUSE_S
            self._progress(f"{child.name} ended ({_spoken(status)}); starting it again")
        elif time.monotonic() >= child.restart_at:
            child.restarts += 1
            self._spawn(child)

    def _spawn(self, child: Child) -> None:
        child.restart_at = None
        output = None
        if child.log is not None:
            if child.log.exists() and child.log.stat().st_size > 10_000_000:
                child.log.replace(child.log.with_suffix(".log.1"))
            output = open(child.log, "ab")  # noqa: SIM115  closed below, the child has its own
            child.log_start = output.tell()
        try:
            child.process = subprocess.Popen(
                child.argv, env=dict(child.env), stdin=subprocess.DEVNULL, stdout=output or sys.stderr,
                stderr=output or sys.stderr, process_group=0, preexec_fn=dies_with_parent(),
            )  # fmt: skip
        finally:
            if output is not None:
                output.close()


def _send(child: Child, number: signal.Signals) -> None:
    """To the whole group: a child may have children of its own."""
    assert child.process is not None
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        pass


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _spoken(status: int) -> str:
    if status in CLEAN_EXITS:
        return "cleanly"
    return f"exit code {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"


def _last_words(child: Child) -> str:
    if child.log is None or not child.log.exists():
        return "see its output above"
    with open(child.log, "rb") as log:
        log.seek(child.log_start)
        lines = log.read().decode(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no output'} (log: {child.log})"
