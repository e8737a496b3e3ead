"""Stations that say each message until it is answered, over as many links as that takes, and what must be there then.

Their own record decides: each CALL for which they hold a CALLRESULT, and how often they had to send it.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from tests.foreign_stations import Acknowledged, ForeignStation, Station16, Station201, call201, stamp

ANSWER_S, GIVE_UP_S, AGAIN_S = 20.0, 240.0, 0.1
PAUSE_S = 0.05
READINGS = 12  # of each session
TICK = timedelta(seconds=7)
STEP_WH = 30
ENERGY, POWER = "Energy.Active.Import.Register", "Power.Active.Import"


class Persistent(ForeignStation):
    """What got no answer is sent again; by turns with the same id, and as a new message of the same content."""

    card = ""
    meter_wh = 1_000

    def remember(self, card: str, first: datetime, rng: random.Random) -> None:
        self.card, self.clock, self.rng = card, first, rng
        self.sent: Counter[str] = Counter()
        self.last_fault = ""
        self.unanswered = self.sessions = 0
        self._next_id: str | None = None

    def tick(self) -> datetime:
        """Times of its own, so that each reading can be found again."""
        self.clock += TICK
        return self.clock

    def new_id(self) -> str:
        return f"k-{self.rng.getrandbits(64):x}"

    async def call(self, payload: Any, *, message_id: str | None = None, timeout_s: float = ANSWER_S) -> Any:
        """Gives up at once when the link is gone: nobody will answer on it."""
        message_id = message_id or self._next_id or self.new_id()
        self._next_id = None
        self.sent[message_id] += 1
        asking = asyncio.ensure_future(super().call(payload, message_id=message_id, timeout_s=timeout_s))
        assert self._reader is not None
        await asyncio.wait({asking, self._reader}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            asking.cancel()
            await asyncio.wait({asking})
            raise ConnectionError("the link is gone")
        return asking.result()

    async def sure(self, say: Callable[[], Awaitable[Any]]) -> Any:
        deadline, message_id = asyncio.get_running_loop().time() + GIVE_UP_S, self.new_id()
        while True:
            try:
                if self.socket is None:
                    await self.connect()
                    await self.boot()  # type: ignore[attr-defined]
                self._next_id = message_id
                return await say()
            except Exception as error:
                self.last_fault = repr(error)[:300]
                if asyncio.get_running_loop().time() > deadline:
                    raise
                self.unanswered += 1
                with contextlib.suppress(Exception):
                    await self.cut()
                message_id = self.rng.choice((message_id, self.new_id()))
                await asyncio.sleep(AGAIN_S)

    async def session(self) -> None:
        raise NotImplementedError

    async def until(self, over: asyncio.Event) -> None:
        while not over.is_set() or self.sessions == 0:
            await self.session()
            self.sessions += 1


class Persistent16(Persistent, Station16):
    async def session(self) -> None:
        await self.sure(lambda: self.status(1, "Preparing"))
        began, meter = self.tick(), self.meter_wh
        started = await self.sure(lambda: self.start(1, self.card, meter, began))
        await self.sure(lambda: self.status(1, "Charging"))
        for _ in range(READINGS):
            self.meter_wh += STEP_WH
            at = self.tick()
            await self.sure(lambda at=at: self.meter(1, started.transaction_id, self.meter_wh, 11_000, at))
            await asyncio.sleep(PAUSE_S)
        ended = self.tick()
        await self.sure(lambda: self.stop(started.transaction_id, self.meter_wh, ended))
        await self.sure(lambda: self.status(1, "Available"))


class Persistent201(Persistent, Station201):
    async def session(self) -> None:
        name = f"{self.identity}-{self.sessions}"
        await self.sure(lambda: self.status(1, "Occupied"))
        began = self.tick()
        await self.sure(
            lambda: self.event("Started", name, 0, meter_wh=self.meter_wh, token=self.card, at=began,
                               trigger="Authorized")
        )  # fmt: skip
        for seq_no in range(1, READINGS // 2 + 1):
            self.meter_wh += STEP_WH
            at, beside = self.tick(), self.tick()
            await self.sure(
                lambda at=at, no=seq_no: self.event("Updated", name, no, meter_wh=self.meter_wh, at=at)
            )
            await self.sure(lambda at=beside: self.readings(11_000, at))
            await asyncio.sleep(PAUSE_S)
        ended = self.tick()
        await self.sure(
            lambda: self.event("Ended", name, READINGS, meter_wh=self.meter_wh, at=ended, trigger="EVDeparted",
                               state="Idle", reason="EVDisconnected")
        )  # fmt: skip
        await self.sure(lambda: self.status(1, "Available"))

    async def readings(self, power_w: int, at: datetime) -> Any:
        """MeterValues of the EVSE, beside its transaction."""
        sampled = {"value": power_w, "measurand": POWER}
        value = {"timestamp": stamp(at), "sampled_value": [sampled]}
        return await self.call(call201.MeterValues(evse_id=1, meter_value=[value]))


# -- what must be there ------------------------------------------------------------------------------------------------


class Found:
    """What the database has of one station."""

    def __init__(self, sql: psycopg.Connection[Any], identity: str) -> None:
        query = "select id from livery.charging_station where ocpp_identity = %s"
        (station,) = sql.execute(query, [identity]).fetchall()

        def count(query: str) -> Counter[Any]:
            return Counter(sql.execute(query.encode(), station).fetchall())

        self.sessions = count(
            "select ocpp_transaction_id, meter_start_wh, meter_stop_wh, status from livery.charging_session"
            " where station_id = %s"
        )
        self.values = count(
            "select to_char(sampled_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), measurand, value"
            " from livery.meter_value where station_id = %s"
        )
        self.frames = count("select message_id, direction from livery.ocpp_frame where station_id = %s")
        self.statuses = count(
            "select c.status from livery.connector c join livery.evse e on e.id = c.evse_id where e.station_id = %s"
        )


def missing_or_doubled(sql: psycopg.Connection[Any], station: Persistent) -> list[str]:
    """Acknowledged messages whose effect is not there exactly once, or whose frame is not there, or is there more often
    than it was sent."""
    found, wrong = Found(sql, station.identity), []
    for done in station.acknowledged:
        said = f"{station.identity} {done.action} {done.message_id}"
        wrong += [f"{said}: {what}" for what in _faults(found, done)]
        heard = found.frames[done.message_id, "in"]
        if not 1 <= heard <= station.sent[done.message_id] or not found.frames[done.message_id, "out"]:
            wrong.append(f"{said}: sent {station.sent[done.message_id]} times, {heard} frames in the log")
    if found.sessions.total() != station.sessions:
        wrong.append(f"{station.identity}: {found.sessions.total()} sessions instead of {station.sessions}")
    if set(found.statuses) != {("Available",)}:
        wrong.append(f"{station.identity}: its connectors are {list(found.statuses)}")
    readings = {reading for done in station.acknowledged for reading in _readings(done.payload)}
    if found.values.total() != len(readings):
        wrong.append(f"{station.identity}: {found.values.total()} readings instead of {len(readings)}")
    return wrong


def _faults(found: Found, done: Acknowledged) -> Iterator[str]:
    payload = done.payload
    for reading in _readings(payload):
        if found.values[reading] != 1:
            yield f"the reading {reading} is there {found.values[reading]} times"
    if done.action == "StartTransaction":
        number = _sessions(found, done.answer["transactionId"], meter_start=payload["meterStart"])
    elif done.action == "StopTransaction":
        number = _sessions(found, payload["transactionId"], meter_stop=payload["meterStop"])
    elif done.action == "TransactionEvent":
        meter = {"Started": "meter_start", "Ended": "meter_stop"}.get(payload["eventType"])
        wanted = {meter: payload["meterValue"][0]["sampledValue"][0]["value"]} if meter else {}
        number = _sessions(found, payload["transactionInfo"]["transactionId"], **wanted)
    else:
        return
    if number != 1:
        yield f"{number} such sessions"


def _sessions(
    found: Found, name: Any, *, meter_start: int | None = None, meter_stop: int | None = None
) -> int:
    return sum(
        count for (txn, start, stop, status), count in found.sessions.items()
        if txn == str(name) and meter_start in (None, start)
        and (meter_stop is None or (meter_stop == stop and status == "COMPLETED"))
    )  # fmt: skip


def _readings(payload: dict[str, Any]) -> Iterator[tuple[str, str, Decimal]]:
    for value in payload.get("meterValue", ()):
        for sampled in value["sampledValue"]:
            yield value["timestamp"], sampled["measurand"], Decimal(str(sampled["value"]))
