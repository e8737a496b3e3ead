"""The gateway as shipped against three baselines, under one load generator (`bench/load.c`), in turns.

`echo`: websockets alone. `bare_ocpp`: the ocpp package, no database. `ocpp_sqlalchemy`: the same with a session and a
commit per message. `livery`: one `livery gateway` process on a real PostgreSQL (fsync on) under forced row-level
security, 100 tenants, raw log on. What is measured and why: docs/performance.md.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from app.access.verdict import IdTokenValue
from app.charging import service as charging
from app.charging.reports import TransactionReport
from app.demo.cast import NORDLICHT
from app.kernel.clock import utcnow
from app.kernel.settings import Settings, load_settings
from app.stations import service as stations
from app.stations.reports import BootReport
from tenants.database import Database
from tenants.scope import Actor
from tests.cast import STAFF, hire
from tests.conftest import Databases, DatabaseUrls, EmbeddedServers, settings_environment
from tests.journeys.house import free_port

HERE = Path(__file__).parent
TENANTS, STATIONS = 100, 10
SECONDS, ROUNDS = float(os.environ.get("BENCH_SECONDS", "5")), int(os.environ.get("BENCH_ROUNDS", "3"))
OPEN_RATE, CONNECT_RATE = 2000, 150
WINDOWS = 3  # of open load in a round: fifty bad milliseconds of the machine are one window's p99
STORM = int(os.environ.get("BENCH_STORM", "10000"))
IDLE = int(os.environ.get("BENCH_IDLE", "5000"))
# Field load: each station beats every 300 s, one in five charges and tells its meter every 60 s; aimed at for 25,000.
BEAT_S, CHARGING, METERING_S, FIELD = 300, 0.2, 60, 25_000
WAL_FILES = 64
HEARTBEAT = '[2,"@ID@","Heartbeat",{}]'
NAMES = ("echo", "bare_ocpp", "ocpp_sqlalchemy", "livery")
BOOT = BootReport(vendor="Bench", model="Load 22", firmware_version="1.0")
# As a three-phase AC station sends it each minute.
SAMPLES = (
    ("@WH@", "Energy.Active.Import.Register", None, "Wh"), ("7360.0", "Power.Active.Import", None, "W"),
    ("10.6", "Current.Import", "L1", "A"), ("231.4", "Voltage", "L1-N", "V"),
)  # fmt: skip


def template() -> str:
    samples = [
        {"value": value, "context": "Sample.Periodic", "measurand": name, "unit": unit}
        | ({"phase": phase} if phase else {})
        for value, name, phase, unit in SAMPLES
    ]  # fmt: skip
    payload = {
        "connectorId": 1,
        "transactionId": 0,
        "meterValue": [{"timestamp": "@TIME@", "sampledValue": samples}],
    }
    text = json.dumps([2, "@ID@", "MeterValues", payload], separators=(",", ":"))
    return text.replace('"transactionId":0', '"transactionId":@TX@')


class Ground:
    """Servers, tenants and stations; everything in a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="livery-bench-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.load = self.folder / "load"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit(
                "make bench needs a C compiler for its load generator: apt-get install gcc libc6-dev"
            )
        subprocess.run([compiler, "-O2", "-o", self.load, HERE / "load.c"], check=True)
        self._drives = 0
        self.servers = EmbeddedServers(self.folder / "data", fsync=True, progress=lambda _line: None)
        self.servers.start()
        self.databases = Databases(self.servers)
        self.urls: DatabaseUrls = self.databases.make()
        self.environment = settings_environment(self.urls, self.servers.urls["REDIS_URL"])
        self.settings: Settings = load_settings(self.environment)
        self.postgres = self.servers.pids["postgres"]
        self.processes: list[subprocess.Popen[bytes]] = []
        self._age()

    def _age(self) -> None:
        """As a server that has run for a while: its WAL files are there and are written again. A new one makes each
        while commits wait."""
        with psycopg.connect(self.urls.superuser.replace("+psycopg", ""), autocommit=True) as connection:
            for _ in range(WAL_FILES):
                connection.execute("select pg_logical_emit_message(false, 'bench', 'x'), pg_switch_wal()")
            connection.execute("checkpoint")

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        self.databases.close()
        self.servers.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str) -> tuple[int, int]:
        """Port and pid of a server that answers."""
        port, environment = free_port(), dict(os.environ)
        if name == "livery":
            argv = [sys.executable, "-m", "app.cli", "gateway"]
            environment |= self.environment | {
                "LIVERY_OCPP_PORT": str(port), "LIVERY_HEALTH_PORT": str(free_port()),
            }  # fmt: skip
        else:
            url = self.urls.superuser if name == "ocpp_sqlalchemy" else ""
            argv = [sys.executable, str(HERE / f"{name}.py"), str(port), url]
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        for _ in range(200):
            time.sleep(0.1)
            with contextlib.suppress(OSError), contextlib.closing(_connection(port)):
                return port, process.pid
        raise SystemExit(f"{name} does not listen: {(self.folder / f'{name}.log').read_text()[-2000:]}")

    def stop(self, pid: int) -> None:
        process = next(one for one in self.processes if one.pid == pid)
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    async def plant(self, count: int, *, is_charging: bool) -> list[str]:
        """`count` stations over the tenants, each with a session that runs. Lines as the load generator reads them."""
        database = Database(self.settings)
        lines: list[str] = []
        try:
            for number in range(TENANTS):
                company = replace(NORDLICHT, slug=f"b{uuid4().hex[:10]}")
                cast = await hire(database, company)
                made = []
                async with database.scope(cast.tenant_id, STAFF) as scope:
                    for n in range(count // TENANTS):
                        plug = {"connector_no": 1, "max_power_w": 22_000}
                        made.append(await stations.create_station(
                            scope, identity=f"L{n}", location_id=cast.location_id,
                            evses=[{"evse_no": 1, "connectors": [plug]}, {"evse_no": 2, "connectors": [plug]}],
                        ))  # fmt: skip
                        # Known to us: whoever comes back after an outage has been here before.
                        await stations.station_booted(scope, made[-1].station.id, BOOT)
                for new in made:
                    transaction = "0"
                    if is_charging:
                        transaction = await _start(database, cast.tenant_id, new.station.id, cast.card)
                    user = f"{new.station.ocpp_identity}:{new.password}"
                    basic = base64.b64encode(user.encode()).decode()
                    lines.append(
                        f"/{company.slug}/{new.station.ocpp_identity}\tBasic {basic}\t{transaction}\n"
                    )
                if number % 20 == 19:
                    print(f"  {number + 1} of {TENANTS} tenants planted", file=sys.stderr, flush=True)
        finally:
            await database.close()
        return lines

    def begin(
        self,
        port: int,
        lines: list[str],
        mode: str,
        seconds: float,
        rate: float = 0,
        *,
        says: str | None = None,
    ) -> subprocess.Popen[str]:
        """The load generator at work. `says` is what it sends instead of MeterValues."""
        self._drives += 1
        targets, said = self.folder / f"targets{self._drives}", self.folder / f"template{self._drives}"
        targets.write_text("".join(lines))
        said.write_text(says or template())
        argv = [str(self.load), str(port), str(targets), str(said), mode, str(seconds)]
        environment = dict(os.environ) | {"LOAD_CONNECT_RATE": str(CONNECT_RATE)}
        return subprocess.Popen(
            [*argv, *([str(rate)] if rate else [])], stdout=subprocess.PIPE, text=True, env=environment
        )

    def drive(
        self, port: int, lines: list[str], mode: str, seconds: float, rate: float = 0
    ) -> dict[str, Any]:
        out, _ = self.begin(port, lines, mode, seconds, rate).communicate()
        return json.loads(out)

    def drive_closed(self, port: int, lines: list[str], pid: int) -> dict[str, Any]:
        """With `cpu_us`: what a message costs the server once all are connected."""
        process = self.begin(port, lines, "closed", SECONDS)
        time.sleep(len(lines) / CONNECT_RATE + 2)
        before, at = _cpu_s([pid]), time.monotonic()
        time.sleep(SECONDS / 2)
        spent = (_cpu_s([pid]) - before) / (time.monotonic() - at)
        found = json.loads(process.communicate()[0])
        return found | {"cpu_us": spent / max(found["per_s"], 1) * 1e6}

    def count(self, query: str) -> int:
        with psycopg.connect(self.urls.superuser.replace("+psycopg", "")) as connection:
            row = connection.execute(query.encode()).fetchone()
            return int(row[0]) if row else 0

    def postgres_pids(self) -> list[int]:
        return [self.postgres, *_children(self.postgres)]


async def _start(database: Database, tenant_id: Any, station_id: Any, card: str) -> str:
    now = utcnow()
    async with database.scope(tenant_id, Actor.station(station_id)) as scope:
        verdict = await charging.report_transaction(scope, station_id, TransactionReport(
            kind="Started", at=now, received_at=now, natural_key=f"bench-{station_id}", evse_no=1, connector_no=1,
            id_token=IdTokenValue(card),
        ))  # fmt: skip
    return verdict.ocpp_transaction_id


def _connection(port: int) -> Any:
    import socket

    return socket.create_connection(("127.0.0.1", port), 1)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


@contextlib.contextmanager
def _loaded(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.communicate()


def run() -> dict[str, Any]:
    ground = Ground()
    try:
        return _run(ground)
    finally:
        ground.close()


def _run(ground: Ground) -> dict[str, Any]:
    print("planting", file=sys.stderr, flush=True)
    with psycopg.connect(ground.urls.superuser.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "create table public.bench_reading"
            " (id bigserial primary key, station text, at text, measurand text, value text)"
        )
    lines = asyncio.run(ground.plant(TENANTS * STATIONS, is_charging=True))
    servers = {name: ground.start(name) for name in NAMES}
    closed: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    opened: dict[str, list[dict[str, Any]]] = {name: [] for name in ("echo", "livery")}
    lost = 0
    for number in range(ROUNDS):
        for name in NAMES:
            port, pid = servers[name]
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
            stored = _stored(ground)
            found = ground.drive_closed(port, lines, pid)
            closed[name].append(found)
            if name == "livery":
                lost += max(found["answered"] - (_stored(ground) - stored), 0)
        for name in [*opened] * WINDOWS:
            opened[name].append(ground.drive(servers[name][0], lines, "open", SECONDS, OPEN_RATE))

    def middle(found: list[dict[str, Any]], figure: str) -> float:
        return statistics.median(one[figure] for one in found)

    rate = {name: middle(found, "per_s") for name, found in closed.items()}
    p99 = {name: middle(found, "p99_us") for name, found in opened.items()}
    figures = {
        "vs_echo": round(rate["livery"] / rate["echo"], 3),
        "vs_bare_ocpp": round(rate["livery"] / rate["bare_ocpp"], 2),
        "vs_ocpp_sqlalchemy": round(rate["livery"] / rate["ocpp_sqlalchemy"], 1),
        "ack_p99_ms": round(p99["livery"] / 1000, 2),
        "ack_p99_vs_echo": round(p99["livery"] / p99["echo"], 2),
        "lost": lost,
        "per_s": {name: round(value) for name, value in rate.items()},
        "cpu_us_per_message": {name: round(middle(found, "cpu_us")) for name, found in closed.items()},
        "open_p50_ms": {name: round(middle(found, "p50_us") / 1000, 2) for name, found in opened.items()},
        "unanswered": sum(one["unanswered"] + one["errors"] for one in [*closed["livery"], *opened["livery"]]),
        "message_bytes": len(template()), "tenants": TENANTS, "stations": TENANTS * STATIONS, "rounds": ROUNDS,
        "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(figures), file=sys.stderr, flush=True)
    for pid in (pid for _port, pid in servers.values()):
        ground.stop(pid)
    return figures | _storm(ground) | _idle(ground)


def _stored(ground: Ground) -> int:
    return ground.count(
        "select count(*) from livery.meter_value where measurand = 'Energy.Active.Import.Register'"
    )


def _storm(ground: Ground) -> dict[str, Any]:
    """All come back at once: connect, BootNotification, two StatusNotification, each durable before it is answered."""
    print("storm", file=sys.stderr, flush=True)
    lines = asyncio.run(ground.plant(STORM, is_charging=False))
    port, pid = ground.start("livery")
    began = time.monotonic()
    found = ground.drive(port, lines, "storm", 120, 20_000)
    seconds = found["seconds"] or time.monotonic() - began
    boots = ground.count(
        "select count(*) from livery.charging_station where model = 'Load 22' and booted_at is not null"
    )
    ground.stop(pid)
    return {
        "storm_per_s": round(found["done"] / seconds, 1),
        "storm_lost": found["clients"] - found["done"] + found["errors"], "storm_stored_boots": boots,
    }  # fmt: skip


def _idle(ground: Ground) -> dict[str, Any]:
    """Memory: the resident size of a gateway before and after IDLE stations stand connected and silent. CPU: of gateway
    and PostgreSQL, while they do what IDLE stations do in the field; their heartbeats come from a hundred of them.
    """
    print("idle", file=sys.stderr, flush=True)
    lines = asyncio.run(ground.plant(IDLE, is_charging=False))
    charging = asyncio.run(ground.plant(TENANTS * STATIONS, is_charging=True))
    port, pid = ground.start("livery")
    with _loaded([ground.begin(port, lines[:100], "hold", 8, 100)]):
        time.sleep(5)
    time.sleep(4)
    before = _rss_kib(pid)
    with _loaded([ground.begin(port, lines[100:], "hold", 600, 400)]):
        time.sleep(IDLE / 400 + 25)
        after = _rss_kib(pid)
        beats = ground.begin(port, lines[:100], "open", 90, IDLE / BEAT_S, says=HEARTBEAT)
        meters = ground.begin(port, charging, "open", 90, IDLE * CHARGING / METERING_S)
        with _loaded([beats, meters]):
            time.sleep(len(charging) / CONNECT_RATE + 15)
            pids = [pid, *ground.postgres_pids()]
            cpu, at = _cpu_s(pids), time.monotonic()
            time.sleep(60)
            spent = (_cpu_s(pids) - cpu) / (time.monotonic() - at)
    ground.stop(pid)
    return {
        "kib_per_idle": round((after - before) / (IDLE - 100), 1), "field_core_share": round(spent, 4),
        f"field_core_share_at_{FIELD}": round(spent * FIELD / IDLE, 3), "idle_stations": IDLE,
    }  # fmt: skip
