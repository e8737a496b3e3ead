"""Acknowledged MeterValues per second: Livery's gateway (auth, raw log, durable, isolated) against two baselines.

`echo`: websockets answers each frame at once, no OCPP. `ocpp`: the ocpp package on websockets, no database. All three
are driven by the same closed loop of connections, in turns, so that the ratios hold on another machine.
"""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.journeys.house import LOCATION, House, free_port

STATIONS = 20
SECONDS = 4.0
ROUNDS = 3

ECHO = """
import asyncio, json, sys
from websockets.asyncio.server import serve
async def handle(ws):
    async for m in ws:
        await ws.send('[3,"' + json.loads(m)[1] + '",{}]')
async def main():
    port = int(sys.argv[1])
    async with serve(handle, "127.0.0.1", port, subprotocols=["ocpp1.6"], compression=None): await asyncio.Future()
asyncio.run(main())
"""

PACKAGE = """
import asyncio, logging, sys
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result
from websockets.asyncio.server import serve
class Station(ChargePoint):
    @on("MeterValues")
    def values(self, **kw): return call_result.MeterValues()
    @on("BootNotification")
    def boot(self, **kw):
        return call_result.BootNotification(current_time="2026-01-01T00:00:00Z", interval=300, status="Accepted")
async def handle(ws):
    try: await Station("x", ws).start()
    except Exception: pass
async def main():
    port = int(sys.argv[1])
    async with serve(handle, "127.0.0.1", port, subprotocols=["ocpp1.6"], compression=None): await asyncio.Future()
asyncio.run(main())
"""


@contextlib.contextmanager
def _baseline(code: str) -> Iterator[tuple[int, list[int]]]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", code, str(port)])
    try:
        time.sleep(1.5)
        yield port, [process.pid]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def _load(urls: list[tuple[str, str | None]], port: int) -> int:
    counts = await asyncio.gather(*(_one(url, password, port) for url, password in urls))
    return sum(counts)


async def _one(url: str, password: str | None, port: int) -> int:
    headers = {}
    if password:
        identity = url.rsplit("/", 1)[-1]
        headers["Authorization"] = "Basic " + base64.b64encode(f"{identity}:{password}".encode()).decode()
    async with connect(
        url,
        host="127.0.0.1",
        port=port,
        subprotocols=[Subprotocol("ocpp1.6")],
        additional_headers=headers,
        compression=None,
    ) as socket:
        boot = {"chargePointModel": "Bench", "chargePointVendor": "Bench"}
        await socket.send(json.dumps([2, "boot", "BootNotification", boot]))
        while json.loads(await socket.recv())[1] != "boot":
            pass
        return await _meter(socket)


async def _meter(socket: Any) -> int:
    count, until = 0, time.monotonic() + SECONDS
    while time.monotonic() < until:
        count += 1
        sample = [
            {"value": str(count), "measurand": "Energy.Active.Import.Register", "unit": "Wh"},
            {"value": "11000", "measurand": "Power.Active.Import", "unit": "W"},
        ]
        value = {"timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "sampledValue": sample}
        await socket.send(
            json.dumps([2, f"m{count}", "MeterValues", {"connectorId": 1, "meterValue": [value]}])
        )
        while True:
            answer = json.loads(await socket.recv())
            if answer[0] != 2 and answer[1] == f"m{count}":
                break
            if answer[0] == 2:
                await socket.send(json.dumps([4, answer[1], "NotImplemented", "", {}]))
    return count


def _measure(urls: list[tuple[str, str | None]], port: int, pids: list[int]) -> tuple[float, float]:
    before, began = _cpu_s(pids), time.monotonic()
    count = asyncio.run(_load(urls, port))
    return count / (time.monotonic() - began), (_cpu_s(pids) - before) / max(count, 1) * 1e6


def run() -> dict[str, Any]:
    house = House()
    try:
        house.start()
        brand = house.brand("bench")
        location = brand.post("/locations", LOCATION)
        made = [
            brand.post("/stations", {"identity": f"B{n}", "location_id": location["id"]})
            for n in range(STATIONS)
        ]
        ours: list[tuple[str, str | None]] = [(one["ocpp_url"], one["password"]) for one in made]
        rows: dict[str, list[tuple[float, float]]] = {"echo": [], "ocpp": [], "livery": []}
        with _baseline(ECHO) as (echo_port, echo_pids), _baseline(PACKAGE) as (ocpp_port, ocpp_pids):
            plain: list[tuple[str, str | None]] = [
                (f"ws://localhost/bench/B{n}", None) for n in range(STATIONS)
            ]
            for _ in range(ROUNDS):
                rows["echo"].append(_measure(plain, echo_port, echo_pids))
                rows["ocpp"].append(_measure(plain, ocpp_port, ocpp_pids))
                rows["livery"].append(_measure(ours, house.ocpp_port, house.pids_of("gateway")))
        rate = {name: sorted(row[0] for row in found)[ROUNDS // 2] for name, found in rows.items()}
        cpu = {name: sorted(row[1] for row in found)[ROUNDS // 2] for name, found in rows.items()}
        return {
            "messages_per_s": {name: round(value) for name, value in rate.items()},
            "cpu_us_per_message": {name: round(value) for name, value in cpu.items()},
            "livery_against_echo": round(rate["livery"] / rate["echo"], 3),
            "livery_against_ocpp_without_database": round(rate["livery"] / rate["ocpp"], 3),
            "stations": STATIONS, "rounds": ROUNDS,
        }  # fmt: skip
    finally:
        house.remove()
