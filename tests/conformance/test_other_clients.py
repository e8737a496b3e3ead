"""Stations by other hands: independent OCPP clients, each with an RPC layer of its own, in the versions they speak."""

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.charging.models import ChargingSession
from app.stations.models import ChargingStation, OCPPFrame, StationConnection
from ocpp_gateway.handshake import VERSIONS
from tests.conformance.conftest import Yard, rows, until
from tests.conftest import ROOT
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio

CLIENTS = ROOT / "tests" / "clients"
NODE = Path(sys.executable).parent / "node"
SPOKEN = {"ocpp_rpc.mjs": ("ocpp1.6", "ocpp2.0.1", "ocpp2.1"), "ocpp_ts.mjs": ("ocpp1.6",)}
VISITS = [(client, version) for client, spoken in SPOKEN.items() for version in spoken if version in VERSIONS]


async def run(client: str, yard: Yard, version: str) -> dict[str, Any]:
    """What the client says that it said and was answered."""
    process = await asyncio.create_subprocess_exec(
        str(NODE), str(CLIENTS / client), f"ws://127.0.0.1:{yard.port}/nordlicht", "CP1", version, yard.nordlicht.card,
        env=os.environ | {"STATION_PASSWORD": yard.nordlicht.password},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    return json.loads(out)


@pytest.mark.parametrize(("client", "version"), VISITS)
async def test_a_client_by_other_hands_boots_authorises_charges_and_stops(
    yard: Yard, client: str, version: str
):
    cast = yard.nordlicht
    told = await run(client, yard, version)
    by_action = {one["action"]: one["answer"] for one in told["record"]}
    assert by_action["BootNotification"]["status"] == "Accepted"
    authorized = by_action["Authorize"]
    assert (authorized.get("idTagInfo") or authorized["idTokenInfo"])["status"] == "Accepted"

    (station,) = await rows(yard, cast, ChargingStation)
    sent = told["record"][0]["payload"]
    assert station.model == (sent.get("chargePointModel") or sent["chargingStation"]["model"])
    (session,) = await rows(yard, cast, ChargingSession)
    assert (session.status, session.review, session.energy_wh) == ("COMPLETED", None, 150)
    assert (session.meter_start_wh, session.meter_stop_wh, session.stopped_reason) == (1_000, 1_150, "Local")
    assert (session.id_token_id, session.id_token_status) == (cast.card_id, "Accepted")
    assert session.ended_at is not None and session.ended_at - session.started_at < timedelta(minutes=1)
    transaction = by_action.get("StartTransaction", {}).get("transactionId", "rpc-1")
    assert session.ocpp_transaction_id == str(transaction)
    values = {int(one.value) for one in await rows(yard, cast, MeterValue) if one.value is not None}
    assert values == ({1_120} if version == "ocpp1.6" else {1_000, 1_120, 1_150})

    frames = [one for one in await rows(yard, cast, OCPPFrame) if one.kind in ("call", "result")]
    assert {one.ocpp_version for one in frames} == {version}
    logged = {one.message_id: one.action for one in frames if one.direction == "in"}
    assert sorted(logged.values()) == sorted(
        one["action"] for one in told["record"] if one["action"] != "Heartbeat"
    )
    answers = {one.message_id: json.loads(one.raw)[2] for one in frames if one.direction == "out"}
    assert sorted(map(json.dumps, answers.values())) == sorted(
        json.dumps(one["answer"]) for one in told["record"] if one["action"] != "Heartbeat"
    )
    assert not await rows(yard, yard.solmark, OCPPFrame)
    await until(lambda: rows(yard, cast, StationConnection, StationConnection.is_online.is_(False)))
