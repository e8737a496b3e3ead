"""Stations that were offline for days and pour out what they have stored; a process of its own, told by stdin's JSON.

Each sends `per_s` messages a second, the next when it has the answer to the one before, and catches up when it had to
wait; some messages twice, with the same id or as new ones; some out of order; some sessions without their start. Their
own account goes to `record`.
"""

import asyncio
import base64
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

OFFLINE = timedelta(days=3)
SAME_ID, NEW_ID = 0.05, 0.03  # shares that are sent again
NEIGHBOURS, AFTER_THE_END, START_LATE = 0.1, 0.02, 0.1  # shares that are out of order
WITHOUT_START = 20  # one session of so many
SESSION = (60, 140)  # readings of each
LEAST_WH = 2
ENERGY = "Energy.Active.Import.Register"


@dataclass(slots=True)
class Item:
    """`kind` is start, reading or stop; `session` counts within the station."""

    kind: str
    session: int
    at: str
    meter_wh: int
    seq_no: int = 0
    is_orphan: bool = False
    message_id: str = ""
    is_again: bool = False


def queue_of(rng: random.Random, version: str, count: int) -> list[Item]:
    """`count` different messages, to the end of the last session, and those that are sent again."""
    at, meter, number = datetime.now(UTC).replace(microsecond=0) - OFFLINE, 1_000, 0
    step = OFFLINE / (count * 1.1)
    made: list[Item] = []

    def item(kind: str, seq_no: int, *, is_orphan: bool) -> Item:
        nonlocal at, meter
        at += step
        meter += rng.randint(LEAST_WH, 3 * LEAST_WH) if kind != "start" else 0
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        return Item(kind, number, stamp, meter, seq_no, is_orphan=is_orphan)

    while len(made) < count:
        is_orphan = number % WITHOUT_START == WITHOUT_START // 2 or (count < 1000 and number == 1)
        most = SESSION if count >= 1000 else (8, 12)
        start = item("start", 0, is_orphan=is_orphan)
        readings = [item("reading", 1 + n, is_orphan=is_orphan) for n in range(rng.randint(*most))]
        stop = item("stop", len(readings) + 1, is_orphan=is_orphan)
        for n in range(len(readings) - 1):
            if rng.random() < NEIGHBOURS:
                readings[n], readings[n + 1] = readings[n + 1], readings[n]
        late = [one for one in readings[:-1] if rng.random() < AFTER_THE_END]
        told = [*(one for one in readings if one not in late), stop, *late]
        if not is_orphan:  # a 1.6 station knows no transaction before its start was answered
            told.insert(3 if version != "ocpp1.6" and rng.random() < START_LATE else 0, start)
        made += told
        number += 1
    for one in made:
        one.message_id = f"q{rng.getrandbits(80):x}"
    queue: list[Item] = []
    waiting: list[tuple[int, Item]] = []
    for n, one in enumerate(made):
        queue.append(one)
        queue += [again for due, again in waiting if due <= n]
        waiting = [(due, again) for due, again in waiting if due > n]
        draw = rng.random()
        if draw < SAME_ID + NEW_ID:
            name = one.message_id if draw < SAME_ID else f"q{rng.getrandbits(80):x}"
            again = Item(
                one.kind, one.session, one.at, one.meter_wh, one.seq_no, one.is_orphan, name, is_again=True
            )
            waiting.append((n + rng.choice((0, 1, 5, 150)), again))
    return queue + [again for _, again in waiting]


@dataclass
class Pourer:
    """One station. `record` is what its own memory says afterwards."""

    url: str
    identity: str
    password: str
    version: str
    card: str
    per_s: float
    queue: list[Item]
    numbers: dict[int, int] = field(default_factory=dict)  # 1.6: session -> transactionId
    sent: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    ack_s: list[float] = field(default_factory=list)
    poured_s: float = 0  # from its first stored message to the last answer

    async def pour(self) -> None:
        basic = base64.b64encode(f"{self.identity}:{self.password}".encode()).decode()
        async with connect(
            self.url, subprotocols=[self.version], compression=None, ping_interval=None,  # type: ignore[list-item]
            additional_headers={"Authorization": f"Basic {basic}"},
        ) as self.socket:  # fmt: skip
            boot = {"chargePointModel": "M", "chargePointVendor": "V"}
            if self.version != "ocpp1.6":
                boot = {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}}
            await self.ask("boot", "BootNotification", boot)
            start = time.perf_counter() + random.uniform(0, 1 / self.per_s)  # noqa: S311 - no two beat in step
            for count, item in enumerate(self.queue):
                await asyncio.sleep(start + count / self.per_s - time.perf_counter())
                began = time.perf_counter()
                answer = await self.ask(item.message_id, *self.message(item))
                self.ack_s.append(time.perf_counter() - began)
                self.learn(item, answer)
            self.poured_s = time.perf_counter() - start

    async def ask(self, message_id: str, action: str, payload: dict[str, Any]) -> Any:
        self.sent[message_id] += 1
        await self.socket.send(json.dumps([2, message_id, action, payload]))
        while True:
            frame = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
            if frame[0] == 2:
                await self.socket.send(json.dumps([4, frame[1], "NotSupported", "", {}]))
            elif frame[1] == message_id:
                return frame

    def message(self, item: Item) -> tuple[str, dict[str, Any]]:
        if self.version != "ocpp1.6":
            return "TransactionEvent", self.event(item)
        number = self.numbers.get(item.session)
        if item.kind == "start":
            return "StartTransaction", {
                "connectorId": 1, "idTag": self.card, "meterStart": item.meter_wh, "timestamp": item.at
            }  # fmt: skip
        if item.kind == "stop":
            return "StopTransaction", {
                "transactionId": number or -1, "meterStop": item.meter_wh, "timestamp": item.at, "reason": "Local",
            }  # fmt: skip
        sampled = {"value": str(item.meter_wh), "measurand": ENERGY, "unit": "Wh"}
        value = {"timestamp": item.at, "sampledValue": [sampled]}
        named = {"transactionId": number} if number else {}
        return "MeterValues", {"connectorId": 1, "meterValue": [value], **named}

    def event(self, item: Item) -> dict[str, Any]:
        kind, context, trigger = {
            "start": ("Started", "Transaction.Begin", "Authorized"),
            "reading": ("Updated", "Sample.Periodic", "MeterValuePeriodic"),
            "stop": ("Ended", "Transaction.End", "EVDeparted"),
        }[item.kind]
        sampled = {"value": item.meter_wh, "measurand": ENERGY, "context": context}
        event: dict[str, Any] = {
            "eventType": kind, "timestamp": item.at, "triggerReason": trigger, "seqNo": item.seq_no, "offline": True,
            "transactionInfo": {"transactionId": self.name(item.session), "chargingState": "Charging"},
            "evse": {"id": 1, "connectorId": 1}, "meterValue": [{"timestamp": item.at, "sampledValue": [sampled]}],
        }  # fmt: skip
        if item.kind == "start":
            event["idToken"] = {"idToken": self.card, "type": "ISO14443"}
        return event

    def name(self, session: int) -> str:
        return f"{self.identity}-{session}"

    def learn(self, item: Item, answer: Any) -> None:
        if answer[0] != 3:
            self.faults.append(f"{item.kind} {item.message_id}: {answer}")
        elif self.version == "ocpp1.6" and item.kind == "start":
            number = self.numbers.setdefault(item.session, answer[2]["transactionId"])
            if number != answer[2]["transactionId"]:
                self.faults.append(f"{item.message_id}: another transactionId for the same start")

    def record(self) -> dict[str, Any]:
        sessions: dict[int, dict[str, Any]] = {}
        for item in self.queue:
            known = sessions.setdefault(
                item.session, {"start": None, "stop": None, "is_orphan": item.is_orphan}
            )
            if item.kind in known:
                known[item.kind] = item.meter_wh
            number = self.numbers.get(item.session)
            named = str(number) if number else None
            known["name"] = named if self.version == "ocpp1.6" else self.name(item.session)
        told = [one for one in self.queue if one.kind == "reading" or self.version != "ocpp1.6"]
        return {
            "identity": self.identity, "sent": self.sent, "faults": self.faults, "ack_s": self.ack_s,
            "sessions": list(sessions.values()), "readings": sorted({(one.at, one.meter_wh) for one in told}),
            "twice": sum(one.is_again for one in self.queue), "per_s": len(self.queue) / self.poured_s,
        }  # fmt: skip


async def main() -> None:
    # Stations are machines of their own: they take no core from the gateway, nor from the others that it serves.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    told = json.load(sys.stdin)
    pourers = [
        Pourer(one["url"], one["identity"], one["password"], one["version"], one["card"], one["per_s"],
               queue_of(random.Random(one["seed"]), one["version"], one["count"]))
        for one in told["stations"]
    ]  # fmt: skip
    began = time.monotonic()
    await asyncio.gather(*(one.pour() for one in pourers))
    records = {"seconds": time.monotonic() - began, "stations": [one.record() for one in pourers]}
    Path(told["record"]).write_text(json.dumps(records))


if __name__ == "__main__":
    asyncio.run(main())
