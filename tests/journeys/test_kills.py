"""kill -9 of each part while cars charge: what was acknowledged is in the database once, and all of it goes on."""

import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.conftest import Proof
from tests.foreign_stations import Station16, Station201
from tests.journeys.house import LOCATION, TARIFF, House, wait_for
from tests.journeys.persistent import Persistent, Persistent16, Persistent201, missing_or_doubled
from tests.journeys.test_driver_pays import Car, place_of

pytestmark = [pytest.mark.anyio, pytest.mark.proof, pytest.mark.timeout(3600)]

KILLS = {"gateway": 50, "postgres": 50, "valkey": 50, "worker": 50, "web": 20}
KILLS_PART = 25  # that part of them in CI
BESIDE = ("worker", "web")  # no message of a station goes through them
STATIONS, AT_WORK = 6, 3  # each has that many answers between two kills
KILLS_WHILE_PAYING = 19  # one of each in the seeded tenth: a killed worker's jobs wait 15 s for the next
PATIENCE_S = 240.0  # a busy machine starts a process in half a minute


def settled(house: House) -> bool:
    """Each session has its CDR."""
    with house.sql() as sql:
        query = """
            select count(*) from livery.charging_session s where s.status = 'COMPLETED' and s.review is null
               and 1 <> (select count(*) from livery.cdr c where c.session_id = s.id and c.kind = 'cdr')"""
        return sql.execute(query).fetchone() == (0,)


def twice_invoiced(house: House) -> int:
    with house.sql() as sql:
        query = """
            select count(*) from (
              select source_id from livery.invoice_line group by source_id, source_part having count(*) > 1) d"""
        return (sql.execute(query).fetchone() or (0,))[0]


def not_invoiced_once(house: House) -> int:
    with house.sql() as sql:
        query = """
            select count(*) from livery.cdr c where c.incl_vat_minor > 0
               and 1 <> (select count(distinct l.invoice_id) from livery.invoice_line l where l.source_id = c.id)"""
        return (sql.execute(query).fetchone() or (0,))[0]


@dataclass
class Killer:
    """SIGKILLs in a seeded order; each meets a house that is at work again after the one before."""

    house: House
    stations: list[Persistent]
    rng: random.Random

    async def kill(self, counts: dict[str, int]) -> None:
        order = [part for part, count in counts.items() for _ in range(count)]
        self.rng.shuffle(order)
        for part in order:
            answered = [len(station.acknowledged) for station in self.stations]
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while not await self._is_at_work(part, answered):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
            except TimeoutError as error:
                told = [(one.identity, len(one.acknowledged), one.last_fault) for one in self.stations]
                raise AssertionError(f"not at work again, before a kill of {part}: {told}") from error
            await asyncio.sleep(self.rng.uniform(0, 0.3))
            self.house.kill(part)

    async def _is_at_work(self, part: str, answered: list[int]) -> bool:
        """Every station was answered since the last kill, whatever that was; the victim itself is up again."""
        for station, before in zip(self.stations, answered, strict=True):
            if len(station.acknowledged) < before + AT_WORK:
                return False
        if part in BESIDE:
            return await asyncio.to_thread(self.house.is_ready, part)
        return bool(self.house.pids_of(part))


async def test_what_was_acknowledged_survives_kill_9_of_every_part(house: House, proof: Proof):
    """Stations of both versions charge without a pause: boots, statuses, starts, readings by the hot path, stops."""
    counts = {part: proof.share(count, KILLS_PART) for part, count in KILLS.items()}
    rng, began = proof.random("kills"), time.monotonic()
    brand = house.brand("kills")
    brand.post("/tariffs", {"tariff": TARIFF, "assign": {"default": True}})
    location = brand.post("/locations", LOCATION)
    base = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=20)
    stations: list[Persistent] = []
    for n in range(STATIONS):
        made = brand.post("/stations", {"identity": f"K{n}", "location_id": location["id"]})
        brand.post("/id-tokens", {"type": "ISO14443", "value": f"KILLCARD{n}"})
        kind = (Persistent16, Persistent201)[n % 2]
        station = kind(made["ocpp_url"], made["password"], connect_to=("127.0.0.1", house.ocpp_port))
        station.remember(f"KILLCARD{n}", base, random.Random(rng.random()))
        stations.append(station)
    over = asyncio.Event()
    work = [asyncio.create_task(station.until(over)) for station in stations]
    await Killer(house, stations, rng).kill(counts)
    killing_s = time.monotonic() - began
    over.set()
    await asyncio.gather(*work)
    await asyncio.to_thread(wait_for, "every session to be settled", lambda: settled(house), timeout_s=180)
    with house.sql() as sql:
        wrong = [line for station in stations for line in missing_or_doubled(sql, station)]
    for station in stations:
        await station.close()
    acknowledged = Counter(done.action for station in stations for done in station.acknowledged)
    figures = {
        "kills": counts,
        "sessions": sum(station.sessions for station in stations),
        "acknowledged": acknowledged.total(), "by_action": dict(acknowledged),
        "attempts_without_answer": sum(station.unanswered for station in stations),
        "missing_or_doubled": len(wrong), "invoiced_twice": twice_invoiced(house),
        "not_invoiced_once": not_invoiced_once(house), "killing_s": round(killing_s, 1),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    proof.write("kills", figures)
    assert not wrong, wrong[:10]
    assert (figures["invoiced_twice"], figures["not_invoiced_once"]) == (0, 0)


# -- guests who pay ----------------------------------------------------------------------------------------------------


@dataclass
class Guest:
    """Pays without JavaScript at one place, again and again; what fails is tried again, as people do."""

    house: House
    slug: str
    code: str
    car: Car
    client: httpx2.AsyncClient
    failures: int = 0
    pages: list[str] = field(default_factory=list)

    async def send(self, method: str, url: str, data: dict[str, str] | None = None) -> httpx2.Response:
        parts = urlsplit(url)
        host = parts.netloc or f"{self.slug}.localhost:{self.house.web_port}"
        headers = {"Host": host, "Origin": f"http://{host}"}
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        for _ in range(300):
            try:
                answer = await self.client.request(method, target, headers=headers, data=data)
            except httpx2.HTTPError:
                answer = None
            if answer is not None and answer.status_code < 500:
                return answer
            self.failures += 1
            await asyncio.sleep(0.3)
        raise AssertionError(f"{method} {url} was never answered")

    async def until(self, url: str, wanted: str, ends: tuple[str, ...] = ()) -> str:
        """The page's heading, once it is one of those."""
        seen = ""
        for _ in range(400):
            shown = (await self.send("GET", url)).text
            seen = (re.search(r"<h1>(.*?)</h1>", shown) or ["", ""])[1]
            if seen in (wanted, *ends):
                return shown
            await asyncio.sleep(0.3)
        raise AssertionError(f"{url} stays at {seen!r}, never {wanted!r}")

    async def visit(self) -> None:
        self.house.forgive()
        place = (await self.send("GET", f"/c/{self.code}")).text
        read = dict(re.findall(r'name="(wish|terms)" value="([^"]+)"', place))
        answer = await self.send("POST", f"/c/{self.code}/start", {"email": "driver@example.org", **read})
        assert answer.status_code == 303, answer.text
        target = answer.headers["location"]
        while (
            "/pay/" not in target
        ):  # the provider did not answer: the session's page has the way when there is one
            shown = await self.send("GET", target)
            found = re.search(r'href="([^"]+/pay/[^"]+)"', shown.text)
            target = found.group(1) if found else target
            await asyncio.sleep(0.5)
        paid = await self.send("POST", target, {"card": "4242424242424242", "email": "driver@example.org"})
        assert paid.status_code == 303, paid.text
        page = paid.headers["location"]
        self.pages.append(urlsplit(page).path)
        await self.until(page, "Charging", ("Cable connected",))
        await self.car.report(15, 11_000)
        await self.send("POST", f"{urlsplit(page).path}/stop")
        await self.until(page, "Finished")

    async def visits_until(self, over: asyncio.Event) -> int:
        count = 0
        while not over.is_set() or count == 0:
            await self.visit()
            count += 1
        return count


MONEY = {
    "captured twice": """
        select count(*) from (select body->>'source' from sandbox.object where kind = 'balance_transaction'
          group by 1 having count(*) > 1) d""",
    "left held": """
        select count(*) from sandbox.object where kind = 'payment_intent' and body->>'status' = 'requires_capture'""",
    "books that differ": """
        select count(*) from livery.charging_session s
          join livery.payment p on p.tenant_id = s.tenant_id and p.source_id = s.id
          join livery.cdr c on c.tenant_id = s.tenant_id and c.session_id = s.id
          left join sandbox.object o on o.kind = 'charge' and o.body->>'payment_intent' = p.provider_ref
         where s.status = 'COMPLETED' and (p.state <> 'captured' or p.captured_minor <> c.incl_vat_minor
           or (o.body->>'amount_captured')::bigint is distinct from c.incl_vat_minor
           or 1 <> (select count(distinct l.invoice_id) from livery.invoice_line l where l.source_id = c.id)
           or c.incl_vat_minor <> (select sum(l.gross_minor) from livery.invoice_line l where l.source_id = c.id))""",
    "postings that do not balance": """
        select count(*) from (
          select txn_id from livery.ledger_entry group by txn_id having sum(amount_minor) <> 0) d""",
    "tenants whose receivable is not zero": """
        select count(*) from (select e.tenant_id from livery.ledger_entry e join livery.ledger_account a
          on a.tenant_id = e.tenant_id and a.id = e.account_id where a.code = 'driver_receivable'
          and e.tenant_id in (select tenant_id from livery.payment)
          group by e.tenant_id having sum(e.amount_minor) <> 0) d""",
    "sessions without exactly one receipt mail": """
        select count(*) from livery.charging_session s join livery.payment p on p.source_id = s.id
         where s.status = 'COMPLETED' and 1 <> (select count(*) from livery.mail m
           where m.source_id = s.id and m.kind = 'receipt')""",
    "unfinished": """
        select count(*) from livery.charging_session s join livery.payment p on p.source_id = s.id
         where (s.status = 'COMPLETED' and (s.settled_at is null or p.state in ('authorized', 'capturing')))
            or s.status = 'ACTIVE' or (s.status = 'PENDING' and s.cost_cap_minor is not null)
            or exists (select from livery.payment_op o where o.payment_id = p.id
                        and o.kind <> 'checkout_create' and o.state in ('planned', 'sent', 'unknown'))""",
}


def money(house: House, what: str) -> int:
    with house.sql() as sql:
        return (sql.execute(MONEY[what].encode()).fetchone() or (0,))[0]


async def test_guests_pay_once_while_web_and_worker_are_killed(house: House, proof: Proof):
    """Real processes, real sockets, SIGKILL: two guests pay back to back on the sandbox's own page."""
    kills = proof.share(KILLS_WHILE_PAYING)
    rng = proof.random("kills while paying")
    brand = house.brand("payers")
    brand.post("/tariffs", {"tariff": TARIFF, "assign": {"default": True}})
    theirs = "livery.payment_account a join platform.tenant t on t.id = a.tenant_id and t.slug = 'payers'"
    await asyncio.to_thread(wait_for, "an account at the provider", lambda: _count(house, theirs) == 1)
    over = asyncio.Event()
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{house.web_port}", timeout=10) as client:
        guests = []
        for kind in (Station16, Station201):
            code, car = place_of(house, brand, kind, f"PAY-{kind.__name__}")
            await car.arrive()
            guests.append(Guest(house, "payers", code, car, client))
        work = [asyncio.create_task(guest.visits_until(over)) for guest in guests]
        order = [part for part in ("web", "worker") for _ in range(kills)]
        rng.shuffle(order)
        for part in order:
            await asyncio.sleep(rng.uniform(0.2, 2.5))
            await asyncio.to_thread(
                wait_for, f"{part} to run", lambda part=part: house.pids_of(part), timeout_s=60
            )
            house.kill(part)
        over.set()
        visits = sum(await asyncio.gather(*work))
    await asyncio.to_thread(
        wait_for, "every session to be paid", lambda: money(house, "unfinished") == 0, timeout_s=180
    )
    mailed = "sessions without exactly one receipt mail"  # by a job that a killed worker's successor takes up
    await asyncio.to_thread(wait_for, "receipts", lambda: money(house, mailed) == 0, timeout_s=120)
    for guest in guests:
        await guest.car.station.close()
    wrong = {what: count for what in MONEY if (count := money(house, what))}
    figures = {
        "kills": {part: order.count(part) for part in ("web", "worker")}, "paid_visits": visits,
        "failed_requests": sum(guest.failures for guest in guests),
        "wishes_begun": _count(house, "livery.payment"), "wrong": wrong,
    }  # fmt: skip
    proof.write("kills-while-paying", figures)
    assert not wrong
    assert visits >= len(guests)


def _count(house: House, table: str) -> int:
    with house.sql() as sql:
        return (sql.execute(f"select count(*) from {table}".encode()).fetchone() or (0,))[0]
