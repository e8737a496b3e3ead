"""A whole Livery under test: `livery up` in a folder of its own, spoken to only from outside."""

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
from redis import Redis
from sqlalchemy.engine import make_url

from app.embedded import find_running
from tests.conftest import ROOT

START_S = 90
SERVERS = {"postgres": "/bin/postgres", "valkey": "/valkey-server"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Brand:
    """A tenant as an outsider knows it: its slug, its API key, and where its hosts answer."""

    slug: str
    key: str
    web_port: int
    client: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx2.Client(
            base_url=f"http://127.0.0.1:{self.web_port}/api/v1",
            headers={
                "Host": f"portal-{self.slug}.localhost:{self.web_port}",
                "Authorization": f"Bearer {self.key}",
            },
            timeout=20,
        )

    def get(self, path: str, **params: Any) -> Any:
        return self._ok(self.client.get(path, params=params))

    def post(self, path: str, body: Any) -> Any:
        return self._ok(self.client.post(path, json=body))

    def patch(self, path: str, body: Any) -> Any:
        return self._ok(self.client.patch(path, json=body))

    def _ok(self, answer: httpx2.Response) -> Any:
        assert answer.status_code < 300, (
            f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
        )
        return answer.json() if answer.content else None


class House:
    def __init__(self, *, demo: bool = False, environment: dict[str, str] | None = None) -> None:
        self.demo, self.more_environment = demo, environment or {}
        self.data_dir = Path(tempfile.mkdtemp(prefix="livery-house-", dir="/tmp"))
        # The database runs as another user where we are root: it must be able to enter.
        self.data_dir.chmod(0o755)
        self.web_port, self.ocpp_port = free_port(), free_port()
        self.process: subprocess.Popen[str] | None = None
        self.output: list[str] = []
        self.used: set[Any] = set()
        self.logins: dict[str, Any] = {}

    # -- starting and stopping ------------------------------------------------------------------------------------

    def start(self) -> None:
        command = [
            sys.executable, "-m", "app.cli", "up", "--data-dir", str(self.data_dir), "--web-port", str(self.web_port),
            "--ocpp-port", str(self.ocpp_port), *(["--demo"] if self.demo else []),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=self._environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._pump, args=(lines,), daemon=True).start()
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=0.5)
                if line is None:
                    break
                if line.startswith("ready"):
                    return self._wait_for_the_past()
        raise AssertionError("livery up did not become ready:\n" + "\n".join(self.output[-40:]) + self.logs())

    def _wait_for_the_past(self) -> None:
        """The demo's history is planted while it runs; pages of it need the first of each kind."""

        def has_begun() -> bool:
            with self.sql() as connection:
                row = connection.execute("select count(distinct tenant_id) from livery.invoice").fetchone()
            return row is not None and row[0] == 3

        if self.demo:
            wait_for("the first invoices of each brand", has_begun, timeout_s=START_S)

    def _environment(self) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("LIVERY_", "DATABASE_", "REDIS_"))}
        return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | self.more_environment

    def _pump(self, lines: "queue.Queue[str | None]") -> None:
        assert self.process and self.process.stdout
        for line in self.process.stdout:
            self.output.append(line.rstrip())
            lines.put(line.rstrip())
        lines.put(None)

    def logs(self) -> str:
        found = [*self.data_dir.glob("**/*.log")]
        return "".join(f"\n--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in found)

    def unfinished(self) -> str:
        """The worker's jobs that are not done, and the youngest that are."""
        query = """select id, task_name, status, attempts, scheduled_at, lock from procrastinate.procrastinate_jobs
            order by status = 'succeeded', id desc limit 40"""
        with contextlib.suppress(psycopg.Error, AssertionError), self.sql() as connection:
            return "\n--- jobs\n" + "\n".join(map(str, connection.execute(query).fetchall()))
        return ""

    def stop(self) -> int | None:
        if self.process is None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(90)  # the processes have 20 s, PostgreSQL 30, Valkey 10
        finally:
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def pids_of(self, name: str) -> list[int]:
        """Processes below ours whose command line names `name` (web, worker, gateway, postgres, valkey)."""
        assert self.process
        wanted = {"web": ("web",), "worker": ("worker",), "gateway": ("gateway",)}
        found = []
        for pid in _descendants(self.process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            texts = [word.decode(errors="replace") for word in words if word]
            if name in SERVERS and texts and SERVERS[name] in texts[0]:
                found.append(pid)
            if name in wanted and any(word in wanted[name] for word in texts):
                found.append(pid)
        return found

    def is_ready(self, name: str) -> bool:
        """Whether web, worker or gateway answers /readyz with 200; all but web do so on a port that only they know."""
        for pid in self.pids_of(name):
            with contextlib.suppress(OSError, httpx2.HTTPError):
                told = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
                found = re.search(r"(?:^|\0)LIVERY_HEALTH_PORT=(\d+)", told)
                port = found.group(1) if found else self.web_port
                return httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=2.0).status_code == 200
        return False

    def kill(self, name: str) -> None:
        """kill -9 of one of our own children; its supervisor starts it again."""
        pids = self.pids_of(name)
        assert pids, f"no process {name}"
        os.kill(pids[0], signal.SIGKILL)

    # -- speaking to it -------------------------------------------------------------------------------------------

    def cli(self, *arguments: str) -> Any:
        command = [sys.executable, "-m", "app.cli", *arguments, "--data-dir", str(self.data_dir), "--json"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (
            f"livery {' '.join(arguments)}: {done.returncode} {done.stdout} {done.stderr}"
        )
        return json.loads(done.stdout)

    def four_days_later(self) -> None:
        """At the sandbox: the first payouts have arrived, and the books were compared."""
        with self.sql() as connection:
            connection.execute(
                "insert into sandbox.setting (name, value) values ('clock', '345600')"
                " on conflict (name) do update set value = excluded.value"
            )
        self.cli("reconcile")

    def brand(self, slug: str, *, with_seller: bool = True) -> Brand:
        self.cli("tenant", "create", "--slug", slug, "--name", slug.title(), "--country", "DE", "--currency", "EUR",
                 "--time-zone", "Europe/Berlin", "--admin-email", f"owner@{slug}.example")  # fmt: skip
        key = self.cli("api-key", "create", "--tenant", slug, "--scope", "all")["key"]
        brand = Brand(slug, key, self.web_port)
        if with_seller:
            brand.patch("/tenant", {
                "legal_name": f"{slug.title()} GmbH", "address": "Weg 1", "postal_code": "10115", "city": "Berlin",
                "vat_id": "DE136695976",
            })  # fmt: skip
        return brand

    def login_link(self, slug: str, email: str) -> str:
        """The newest link that was mailed to somebody; without SMTP mails are kept readable."""

        def look() -> str | None:
            with self.sql() as connection:
                row = connection.execute(
                    "select m.id, m.body from livery.mail m join platform.tenant t on t.id = m.tenant_id"
                    " where t.slug = %s and m.to_address = %s and m.kind = 'login_link'"
                    " order by m.created_at desc limit 1",
                    [slug, email],
                ).fetchone()
            found = re.search(r"http\S+/login/\S+", row[1]) if row and row[0] not in self.used else None
            if not row or not found:
                return None
            self.used.add(row[0])
            return found.group(0)

        return wait_for(f"a login link for {email}", look)

    def forgive(self) -> None:
        """All people of a test have one address, and no time: what holds card testers off would hold them off too."""
        running = find_running(self.data_dir)
        assert running is not None
        with Redis.from_url(running["REDIS_URL"]) as client:
            for key in client.scan_iter("*:limit:*"):
                client.delete(key)

    @contextlib.contextmanager
    def sql(self) -> Iterator[psycopg.Connection[Any]]:
        """A superuser's look, for checks only."""
        running = find_running(self.data_dir)
        assert running is not None, "no servers are running there"
        url = make_url(running["DATABASE_URL_OWNER_BOOTSTRAP"]).set(
            database="livery", drivername="postgresql"
        )
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            yield connection


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


TARIFF = {
    "id": "T1", "currency": "EUR", "last_updated": "2026-01-01T00:00:00Z",
    "elements": [
        {"price_components": [
            {"type": "FLAT", "price": "0.50", "vat": "19", "step_size": 1},
            {"type": "ENERGY", "price": "0.45", "vat": "19", "step_size": 1},
            {"type": "TIME", "price": "0.60", "vat": "19", "step_size": 1},
            {"type": "PARKING_TIME", "price": "3.00", "vat": "19", "step_size": 1},
        ]},
    ],
}  # fmt: skip

LOCATION = {
    "name": "Prüfstand", "address": "Weg 1", "city": "Berlin", "postal_code": "10115", "country": "DEU",
    "time_zone": "Europe/Berlin", "coordinates": {"latitude": "52.52", "longitude": "13.40"},
}  # fmt: skip


def wait_for(what: str, look: Any, *, timeout_s: float = 20) -> Any:
    """Looks again until the answer is true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s} s in vain for {what}")
