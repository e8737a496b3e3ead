"""kill -9 of each part while cars charge: what was acknowledged is in the database once, and all of it goes on.

The station keeps its own record: every CALL for which it holds a CALLRESULT. What got no answer is sent again with the
same id, as a real station does.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import Proof
from tests.foreign_stations import Station16
from tests.journeys.house import LOCATION, TARIFF, House, wait_for

pytestmark = [pytest.mark.anyio, pytest.mark.proof, pytest.mark.timeout(1500)]

KILLS_EACH = 20
PARTS = ("gateway", "worker", "web", "postgres")
TAG = "KILLCARD"


class Persistent(Station16):
    """Tries again until it is answered, over as many connections as that takes."""

    attempts = 0

    async def sure(self, send: Callable[[str], Awaitable[Any]], message_id: str) -> Any:
        deadline = asyncio.get_running_loop().time() + 60
        while True:
            try:
                if self.socket is None:
                    await self.connect()
                    await self.boot()
                return await send(message_id)
            except Exception:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                self.attempts += 1
                with contextlib.suppress(Exception):
                    await self.cut()
                await asyncio.sleep(0.2)


async def sessions_until(station: Persistent, over: asyncio.Event, base: datetime, rng: random.Random) -> int:
    """Short sessions, back to back, with times of their own so that each reading can be found again."""
    from ocpp.v16 import call

    meter, clock, count = 1_000, base, 0

    def tick() -> str:
        nonlocal clock
        clock += timedelta(seconds=7)
        return clock.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    async def sure(message: Any) -> Any:
        async def send(message_id: str) -> Any:
            return await station.call(message, message_id=message_id, timeout_s=5)

        return await station.sure(send, f"k-{rng.getrandbits(64):x}")

    while not over.is_set() or count == 0:
        started = await sure(
            call.StartTransaction(connector_id=1, id_tag=TAG, meter_start=meter, timestamp=tick())
        )
        for _ in range(3):
            meter += 30
            sample = {"value": str(meter), "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
            await sure(call.MeterValues(
                connector_id=1, transaction_id=started.transaction_id,
                meter_value=[{"timestamp": tick(), "sampledValue": [sample]}],
            ))  # fmt: skip
            await asyncio.sleep(0.02)
        await sure(
            call.StopTransaction(meter_stop=meter, timestamp=tick(), transaction_id=started.transaction_id)
        )
        count += 1
    return count


def missing_or_doubled(house: House, station: Persistent) -> list[str]:
    """Acknowledged messages that are not in the database exactly once."""
    wrong: list[str] = []
    with house.sql() as sql:
        for done in station.acknowledged:
            if done.action == "StartTransaction":
                query = (
                    "select count(*) from livery.charging_session"
                    " where ocpp_transaction_id = %s and meter_start_wh = %s"
                )
                values: list[Any] = [str(done.answer["transactionId"]), done.payload["meterStart"]]
            elif done.action == "MeterValues":
                value = done.payload["meterValue"][0]
                query = (
                    "select count(*) from livery.meter_value m join livery.charging_session s on s.id = m.session_id"
                    " where s.ocpp_transaction_id = %s and m.sampled_at = %s and m.value = %s"
                )
                values = [
                    str(done.payload["transactionId"]),
                    value["timestamp"],
                    Decimal(value["sampledValue"][0]["value"]),
                ]
            elif done.action == "StopTransaction":
                query = (
                    "select count(*) from livery.charging_session"
                    " where ocpp_transaction_id = %s and meter_stop_wh = %s and status = 'COMPLETED'"
                )
                values = [str(done.payload["transactionId"]), done.payload["meterStop"]]
            else:
                continue
            (count,) = sql.execute(query, values).fetchone() or (0,)
            if count != 1:
                wrong.append(f"{done.action} {done.message_id}: {count} times")
    return wrong


def unsettled(house: House) -> int:
    with house.sql() as sql:
        query = """
            select count(*) from livery.charging_session s where s.status = 'COMPLETED' and s.review is null
               and 1 <> (select count(*) from livery.cdr c where c.session_id = s.id and c.kind = 'cdr')"""
        return (sql.execute(query).fetchone() or (0,))[0]


def twice_invoiced(house: House) -> int:
    with house.sql() as sql:
        query = """
            select count(*) from (
              select source_id from livery.invoice_line group by source_id, source_part having count(*) > 1) d"""
        return (sql.execute(query).fetchone() or (0,))[0]


async def test_what_was_acknowledged_survives_kill_9_of_every_part(house: House, proof: Proof):
    kills = proof.share(KILLS_EACH)
    rng = proof.random("kills")
    brand = house.brand("kills")
    brand.post("/tariffs", {"tariff": TARIFF, "assign": {"default": True}})
    brand.post("/id-tokens", {"type": "ISO14443", "value": TAG})
    location = brand.post("/locations", LOCATION)
    stations = []
    for n in range(3):
        made = brand.post("/stations", {"identity": f"K{n}", "location_id": location["id"]})
        stations.append(
            Persistent(made["ocpp_url"], made["password"], connect_to=("127.0.0.1", house.ocpp_port))
        )
    over = asyncio.Event()
    base = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=20)
    work = [
        asyncio.create_task(sessions_until(station, over, base, random.Random(rng.random())))
        for station in stations
    ]
    order = [part for part in PARTS for _ in range(kills)]
    rng.shuffle(order)
    for part in order:
        await asyncio.sleep(rng.uniform(0.3, 1.5))
        await asyncio.to_thread(
            wait_for, f"{part} to run", lambda part=part: house.pids_of(part), timeout_s=60
        )
        house.kill(part)
    await asyncio.sleep(3)
    over.set()
    sessions = sum(await asyncio.gather(*work))
    await asyncio.to_thread(
        wait_for, "every session to be settled", lambda: unsettled(house) == 0, timeout_s=120
    )
    wrong = [line for station in stations for line in missing_or_doubled(house, station)]
    acknowledged = sum(len(station.acknowledged) for station in stations)
    for station in stations:
        await station.close()
    figures = {
        "kills": {part: order.count(part) for part in PARTS}, "sessions": sessions, "acknowledged": acknowledged,
        "attempts_without_answer": sum(station.attempts for station in stations), "missing_or_doubled": len(wrong),
        "invoiced_twice": twice_invoiced(house),
    }  # fmt: skip
    proof.write("kills", figures)
    assert not wrong, wrong[:10]
    assert figures["invoiced_twice"] == 0
    assert sessions >= len(stations)
