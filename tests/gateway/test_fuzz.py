"""Nearly-OCPP by the hundred thousand: no crash, no growth, nothing at another station, nothing from strangers."""

import asyncio
import gc
import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from ocpp_gateway import codec, hot
from ocpp_gateway import connection as connection_module
from tests.cast import Cast
from tests.conftest import Proof
from tests.gateway.mutations import Mutator
from tests.gateway.street import Box, Link, Street

pytestmark = [pytest.mark.anyio, pytest.mark.proof, pytest.mark.timeout(5400)]
PURE, LIVE, WINDOW = 900_000, 100_000, 40
GROWTH = 1.05
TENANT = UUID(int=1)


def resident_kib() -> int:
    gc.collect()
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1])


def test_no_frame_breaks_the_reading(proof: Proof):
    """Whatever it is, it is a message, or broken with a reason; the fast reading takes it or leaves it."""
    count, began = proof.share(PURE), time.monotonic()
    mutators = [Mutator(version, proof.random(f"pure {version}")) for version in ("ocpp1.6", "ocpp2.0.1")]
    kinds: dict[str, int] = {}
    for number in range(count):
        mutator = mutators[number % 2]
        raw = mutator.frame()
        frame = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        message = codec.decode(frame)
        fast = hot.read(mutator.version, TENANT, "s", frame, 1_795_654_883_010_323)
        assert fast is None or isinstance(message, codec.Call)
        kind = "hot" if fast else type(message).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
        if isinstance(message, codec.Call):
            json.dumps(message.payload)
    assert {"Call", "Broken", "hot"} <= set(kinds)
    proof.write("fuzz-pure", {"frames": count, "seconds": round(time.monotonic() - began, 1), "kinds": kinds})


async def test_nearly_ocpp_harms_nobody(
    street: Street,
    box: Box,
    proof: Proof,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(connection_module, "RATE_PER_S", 1e9)
    monkeypatch.setattr(connection_module, "BURST", 1e9)
    monkeypatch.setattr(connection_module, "MAX_BROKEN", 500)
    count = proof.share(LIVE)
    before = await rows_of(street, street.yard.solmark)
    links, mutators = [], []
    for version in ("ocpp1.6", "ocpp2.0.1"):
        links.append((await (await street.box()).online(version), version))
        mutators.append(Mutator(version, proof.random(f"live {version}")))
    quiet = await box.online()
    sent, deaths, first = 0, 0, 0
    began = time.monotonic()
    while sent < count:
        for number, (link, version) in enumerate(links):
            sent += await pour(link, mutators[number], f"{sent}")
            if link.closed.is_set():
                deaths += 1
                links[number] = (await link.box.online(version), version)
        assert await quiet.is_alive()
        if not first and sent > count * 0.3:
            first = resident_kib()
    grown = resident_kib() / first
    assert grown < GROWTH
    assert await rows_of(street, street.yard.solmark) == before
    figures = {
        "frames": sent, "links_closed": deaths, "memory_growth": round(grown, 3),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    proof.write("fuzz-live", figures)
    with capsys.disabled():
        print(f"\n  mutated frames: {figures}")


async def pour(link: Link, mutator: Mutator, name: str) -> int:
    """A window of frames, then a question whose answer says that all of them were taken."""
    sent = 0
    try:
        for _ in range(WINDOW):
            await link.socket.send(mutator.frame())
            sent += 1
        await link.socket.send(json.dumps([2, f"alive{name}", "Heartbeat", {}]))
        async with asyncio.timeout(60):
            while True:
                reply = await next_reply(link)
                if reply is None or reply[1] == f"alive{name}":
                    return sent
    except Exception:
        await link.closed.wait()
    return sent


async def next_reply(link: Link) -> Any:
    waiting = asyncio.ensure_future(link.replies.get())
    closed = asyncio.ensure_future(link.closed.wait())
    await asyncio.wait({waiting, closed}, return_when=asyncio.FIRST_COMPLETED)
    closed.cancel()
    if waiting.done():
        return waiting.result()
    waiting.cancel()
    return None


async def rows_of(street: Street, cast: Cast) -> dict[str, int]:
    """What a brand has, in every table."""
    names = text(
        "select c.oid::regclass::text from pg_class c where c.relnamespace = 'livery'::regnamespace"
        " and c.relkind in ('r', 'p') and not c.relispartition"
    )
    async with street.scope(cast) as scope:
        found = list((await scope.db.execute(names)).scalars())
        return {name: await scope.db.scalar(text(f"select count(*) from {name}")) or 0 for name in found}  # noqa: S608
