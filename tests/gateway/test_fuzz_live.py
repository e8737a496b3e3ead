"""Nearly-OCPP over real sockets to a gateway of its own process: it lives, does not grow, and harms nobody else."""

import asyncio
import base64
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy.engine import make_url
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.demo.cast import NORDLICHT, SOLMARK
from app.stations import service as stations
from tenants.database import Database
from tenants.redis import Redis
from tests.cast import PLATES, STAFF, Cast, hire
from tests.conftest import Databases, DatabaseUrls, Proof, load_settings, settings_environment
from tests.foreign_stations import stamp
from tests.gateway.mutations import Mutator
from tests.gateway.test_two_gateways import start_gateway
from tests.journeys.house import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.proof, pytest.mark.timeout(7200)]

FRAMES, PART = 1_000_000, 1000  # and which part of it in CI
GATEWAYS = 2
STATIONS, WINDOW = 24, 20
LINK = 260  # a link is throttled from its 300th message on: a new one is opened before
WARM_UP, GROWTH = 0.3, 1.05
STRANGER_EVERY_S, LOOK_EVERY_S = 0.5, 2.0
VERSIONS = ("ocpp1.6", "ocpp2.0.1")
BOOTS: dict[str, dict[str, Any]] = {
    "ocpp1.6": {"chargePointModel": "M", "chargePointVendor": "V"},
    "ocpp2.0.1": {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}},
}
MESSAGES = re.compile(r'^livery_ocpp_messages_total\{action="(.*)",outcome="(.*)"\} (.*)$', re.M)
MARK = "STRANGER"  # in every frame that was never authenticated
# What moves while nothing happens: when its link was last alive.
ALIVE = ("last_seen_at",)


@dataclass
class Gateway:
    """A process of its own."""

    process: asyncio.subprocess.Process
    port: int
    health_port: int
    log: Path

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return round(int(line.split()[1]) / 1024, 1)

    async def counted(self) -> Counter[str]:
        """The messages it has read, by its own count of what became of them."""
        async with httpx2.AsyncClient() as client:
            told = (await client.get(f"http://127.0.0.1:{self.health_port}/metrics", timeout=60.0)).text
        found: Counter[str] = Counter()
        for action, outcome, count in MESSAGES.findall(told):
            found["broken" if action == "broken" else outcome] += round(float(count))
        return found

    def faults(self) -> list[str]:
        return [
            line for line in self.log.read_text().splitlines() if "could not be" in line or "Error" in line
        ]


@dataclass
class Target:
    urls: DatabaseUrls
    gateways: list[Gateway]
    database: Database
    nordlicht: Cast
    solmark: Cast
    count: int = 0

    async def counted(self) -> Counter[str]:
        return sum([await gateway.counted() for gateway in self.gateways], Counter())

    async def station(self, cast: Cast, identity: str) -> "Station":
        async with self.database.scope(cast.tenant_id, STAFF) as scope:
            plate = {"connectors": [{"connector_no": 1, **PLATES["ac22"]}]}
            new = await stations.create_station(
                scope, identity=identity, location_id=cast.location_id, evses=[{"evse_no": 1, **plate}]
            )
        self.count += 1
        gateway = self.gateways[self.count % len(self.gateways)]
        return Station(gateway, cast, identity, new.password or "")

    def sql(self) -> psycopg.Connection[Any]:
        url = make_url(self.urls.superuser).set(drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


@dataclass
class Station:
    gateway: Gateway
    cast: Cast
    identity: str
    password: str

    def basic(self, password: str | None = None) -> str:
        said = f"{self.identity}:{password or self.password}"
        return "Basic " + base64.b64encode(said.encode()).decode()

    @property
    def path(self) -> str:
        return f"/{self.cast.company.slug}/{self.identity}"

    async def dial(self, version: str) -> ClientConnection:
        return await connect(
            f"ws://127.0.0.1:{self.gateway.port}{self.path}", subprotocols=[version], compression=None,  # type: ignore[list-item]
            additional_headers={"Authorization": self.basic()}, max_size=None, ping_interval=None, open_timeout=30,
        )  # fmt: skip

    async def booted(self, version: str) -> ClientConnection:
        socket = await self.dial(version)
        assert (await ask(socket, "boot", "BootNotification", BOOTS[version]))[2]["status"] == "Accepted"
        return socket

    async def charging(self, version: str) -> ClientConnection:
        """With a session and its first reading, so that there is something to harm."""
        socket, at = await self.booted(version), stamp()
        sampled = {
            "measurand": "Energy.Active.Import.Register",
            "value": "10" if version == "ocpp1.6" else 10,
        }
        values = [{"timestamp": at, "sampledValue": [sampled]}]
        if version == "ocpp1.6":
            start = {"connectorId": 1, "idTag": self.cast.card, "meterStart": 0, "timestamp": at}
            number = (await ask(socket, "s", "StartTransaction", start))[2]["transactionId"]
            metering = {"connectorId": 1, "transactionId": number, "meterValue": values}
        else:
            await ask(socket, "s", "TransactionEvent", {
                "eventType": "Started", "timestamp": at, "triggerReason": "Authorized", "seqNo": 0,
                "transactionInfo": {"transactionId": self.identity}, "evse": {"id": 1, "connectorId": 1},
                "idToken": {"idToken": self.cast.card, "type": "ISO14443"},
            })  # fmt: skip
            metering = {"evseId": 1, "meterValue": values}
        assert (await ask(socket, "m", "MeterValues", metering))[0] == 3
        return socket


async def ask(socket: ClientConnection, message_id: str, action: str, payload: dict[str, Any]) -> Any:
    await socket.send(json.dumps([2, message_id, action, payload]))
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
        if frame[1] == message_id:
            return frame


async def started(environment: dict[str, str], log: Path) -> Gateway:
    port, health_port = free_port(), free_port()
    with log.open("wb") as output:
        process = await start_gateway(environment | {"LIVERY_HEALTH_PORT": str(health_port)}, port, output)
    return Gateway(process, port, health_port, log)


@pytest.fixture
async def target(databases: Databases, redis_url: str, tmp_path: Path, proof: Proof) -> AsyncIterator[Target]:
    """In full with as many gateways as a small machine can feed."""
    with databases.copy() as urls:
        environment = settings_environment(urls, redis_url)
        redis = Redis(redis_url)
        database = Database(load_settings(environment), redis=redis)
        casts = await hire(database, NORDLICHT), await hire(database, SOLMARK)
        logs = [tmp_path / f"gateway-{n}.log" for n in range(GATEWAYS if proof.full else 1)]
        gateways = list(await asyncio.gather(*(started(environment, log) for log in logs)))
        yield Target(urls, gateways, database, *casts)
        for gateway in gateways:
            if gateway.process.returncode is None:
                gateway.process.terminate()
                await gateway.process.wait()
        await database.close()
        await redis.close()


# -- who sends ---------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """`taken`: frames that the gateway has read, without our own questions whether it lives."""

    wanted: int
    taken: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    links: int = 0
    closed: Counter[str] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)


async def pour(station: Station, mutator: Mutator, tally: Tally) -> None:
    """Link after link: most end because too much on them was broken."""
    while not tally.over.is_set():
        socket = await station.dial(mutator.version)
        tally.links += 1
        try:
            for number in range(LINK // WINDOW):
                await window(socket, mutator, f"w{tally.links}-{number}")
                tally.asked += 1
            await socket.close()
        except ConnectionClosed:
            tally.closed[f"{socket.close_code} {_without_numbers(socket.close_reason)}"] += 1


async def window(socket: ClientConnection, mutator: Mutator, name: str) -> None:
    """Some frames, and a question whose answer says that all of them were taken."""
    for _ in range(WINDOW):
        await socket.send(mutator.message())
    await ask(socket, name, "Heartbeat", {})


def _without_numbers(text: str | None) -> str:
    return "".join("0" if letter.isdigit() else letter for letter in text or "").replace("00", "")


async def knock(station: Station, rng: random.Random) -> str:
    """One without the key: the upgrade is asked for, and the frames follow without waiting for it. The status line."""
    key = base64.b64encode(rng.randbytes(16)).decode()
    authorization = rng.choice((None, station.basic("0" * 40), "Basic !!", "Bearer x"))
    path = rng.choice((station.path, f"/{station.cast.company.slug}/NOBODY-{rng.randint(0, 99)}"))
    version = rng.choice(VERSIONS)
    lines = [
        f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Protocol: {version}",
        *([f"Authorization: {authorization}"] if authorization else []),
    ]  # fmt: skip
    started = {"connectorId": 1, "idTag": MARK, "meterStart": 0, "timestamp": "2026-11-01T00:00:00Z"}
    said = [
        [2, f"{MARK}-1", "BootNotification", {"chargePointModel": MARK, "chargePointVendor": MARK}],
        [2, f"{MARK}-2", "StartTransaction", started],
        [2, f"{MARK}-3", "DataTransfer", {"vendorId": MARK}],
    ]
    frames = b"".join(_masked(json.dumps(one).encode(), rng) for one in said)
    reader, writer = await asyncio.open_connection("127.0.0.1", station.gateway.port)
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + frames)
    status = (await asyncio.wait_for(reader.read(65_536), 30)).split(b"\r\n")[0].decode()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return status


def _masked(payload: bytes, rng: random.Random) -> bytes:
    """A text frame as a client sends it (RFC 6455 5.2)."""
    mask = rng.randbytes(4)
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE]) + size.to_bytes(2, "big")
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


async def strangers(victims: list[Station], rng: random.Random, over: asyncio.Event) -> Counter[str]:
    """How often they were told what."""
    told: Counter[str] = Counter()
    while not over.is_set():
        told[await knock(rng.choice(victims), rng)] += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), STRANGER_EVERY_S)
    return told


async def look(target: Target, controls: list[ClientConnection], tally: Tally) -> list[list[float]]:
    """The gateways live and the others are answered; their memory from the end of the warm-up on, in MiB."""
    sizes: list[list[float]] = [[] for _ in target.gateways]
    before = await target.counted()
    while not tally.over.is_set():
        for socket in controls:
            tally.asked += 1
            assert (await ask(socket, f"control-{tally.asked}", "Heartbeat", {}))[0] == 3
        tally.outcomes = await target.counted() - before
        tally.outcomes["answered"] -= tally.asked
        tally.taken = tally.outcomes.total()
        for gateway, its_sizes in zip(target.gateways, sizes, strict=True):
            assert gateway.process.returncode is None, gateway.log.read_text()[-3000:]
            if tally.taken >= tally.wanted * WARM_UP:
                its_sizes.append(gateway.resident_mib())
        if tally.taken >= tally.wanted:
            tally.over.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(tally.over.wait(), LOOK_EVERY_S if tally.wanted > 5_000 else 0.5)
    return sizes


def growth_of(sizes: list[float]) -> float:
    """The middle of the last quarter against that of the first."""
    quarter = max(len(sizes) // 4, 1)
    first, last = sorted(sizes[:quarter]), sorted(sizes[-quarter:])
    return round(last[quarter // 2] / first[quarter // 2], 3)


# -- what may not have changed -----------------------------------------------------------------------------------------


# Whose row it is, in the same tenant: by the first of these columns that the table has.
WHOSE = {
    "station_id": "= (select id from livery.charging_station where ocpp_identity = %s)",
    "evse_id": "in (select e.id from livery.evse e join livery.charging_station s on s.id = e.station_id"
    " where s.ocpp_identity = %s)",
    "session_id": "in (select c.id from livery.charging_session c join livery.charging_station s"
    " on s.id = c.station_id where s.ocpp_identity = %s)",
    "ocpp_identity": "= %s",
}


def digest(sql: psycopg.Connection[Any], neighbour: Station, stranger: Station) -> dict[str, Any]:
    """Count and hash of every row of the other station of the same tenant, and of everything of the other tenant."""
    tables = sql.execute(
        "select c.oid::regclass::text, array_agg(a.attname::text) from pg_class c"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
        " where c.relnamespace = 'livery'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
        " group by 1"
    ).fetchall()
    found: dict[str, Any] = {}

    def note(name: str, table: str, where: str, value: Any) -> None:
        query = f"""
            select count(*), md5(coalesce(string_agg(said, ',' order by said), '')) from (
              select (to_jsonb(t) - %s::text[])::text as said from {table} t where t.{where}) s"""
        found[name] = sql.execute(query.encode(), [list(ALIVE), value]).fetchone()

    for table, columns in tables:
        if "tenant_id" in columns:
            note(f"{table} of the other tenant", table, "tenant_id = %s", stranger.cast.tenant_id)
        if whose := next((column for column in WHOSE if column in columns), None):
            note(f"{table} of the other station", table, f"{whose} {WHOSE[whose]}", neighbour.identity)
    return found


def marked(sql: psycopg.Connection[Any]) -> list[str]:
    """Tables in which anything of a stranger's frame stands."""
    names = sql.execute(
        "select c.oid::regclass::text from pg_class c where c.relnamespace in ('livery'::regnamespace,"
        " 'platform'::regnamespace, 'procrastinate'::regnamespace) and c.relkind in ('r', 'p')"
        " and not c.relispartition"
    ).fetchall()
    return [
        name for (name,) in names
        if sql.execute(f"select exists (select from {name} t where t::text like %s)".encode(), [f"%{MARK}%"])
        .fetchone() == (True,)
    ]  # fmt: skip


async def test_nearly_ocpp_harms_nobody(target: Target, proof: Proof, capsys: pytest.CaptureFixture[str]):
    tally, began = Tally(proof.share(FRAMES, PART)), time.monotonic()
    fuzzed = [
        await target.station(target.nordlicht, f"FUZZ-{n}") for n in range(STATIONS if proof.full else 6)
    ]
    mutators = [
        Mutator(VERSIONS[n % 2], proof.random(f"live {station.identity}")) for n, station in enumerate(fuzzed)
    ]
    for station, mutator in zip(fuzzed, mutators, strict=True):
        await (await station.booted(mutator.version)).close()
    others = [
        await target.station(cast, f"CONTROL-{cast.company.slug}")
        for cast in (target.nordlicht, target.solmark)
    ]
    controls = [await station.charging(version) for station, version in zip(others, VERSIONS, strict=True)]
    await asyncio.sleep(0.5)  # what their boots begin is over
    with target.sql() as sql:
        before = digest(sql, *others)
    assert sum(count > 0 for count, _ in before.values()) > 20
    looking = asyncio.create_task(look(target, controls, tally))
    rng = proof.random("strangers")
    knocking = asyncio.create_task(strangers([*fuzzed, *others], rng, tally.over))
    pouring = asyncio.gather(*(pour(*pair, tally) for pair in zip(fuzzed, mutators, strict=True)))
    await asyncio.wait({looking, knocking, pouring}, return_when=asyncio.FIRST_COMPLETED)
    tally.over.set()
    sizes, told = await looking, await knocking
    await pouring
    poured_s = time.monotonic() - began
    with target.sql() as sql:
        after, left = digest(sql, *others), marked(sql)
        (parked,) = sql.execute("select count(*) from livery.parked_message").fetchone() or (0,)
    for socket in controls:
        assert (await ask(socket, "last", "Heartbeat", {}))[0] == 3
        await socket.close()
    growth = max(map(growth_of, sizes))
    faults = [line for gateway in target.gateways for line in gateway.faults()]
    figures = {
        "frames": tally.taken, "became": tally.outcomes, "links": tally.links, "closed": tally.closed,
        "per_s": round(tally.taken / poured_s), "memory_growth": growth,
        "memory_mib": [one[:: max(len(one) // 20, 1)] for one in sizes], "strangers": told, "marked_tables": left,
        "changed": [name for name in before if before[name] != after[name]], "digests": len(before),
        "parked": parked, "faults": len(faults), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    proof.write("fuzz-live", figures)
    with capsys.disabled():
        print(f"\n  mutated frames over sockets: {figures}")
    assert not any(" 101 " in status for status in told)
    assert not left
    assert before == after
    assert not faults, faults[:10]
    assert parked == 0
    assert not proof.full or growth <= GROWTH  # less is still the warm-up
