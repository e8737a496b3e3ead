"""Simulated stations live a whole session against the real gateway, in both versions."""

import asyncio
from typing import Any

import pytest

from app.charging import service as charging
from app.charging.models import ChargingSession
from app.stations.models import StationCommand, StationConnection
from ocpp_gateway.simulator import Plan, SimulatedStation
from tests.cast import STAFF
from tests.gateway.conftest import Yard
from tests.gateway.test_charging import rows, until
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio


def simulated(yard: Yard, version: str, **plan: Any) -> SimulatedStation:
    settings = {
        "cards": (yard.nordlicht.card,),
        "evse_count": 2,
        "pace": 0.01,
        "meter_interval_s": 60.0,
    } | plan
    url = f"ws://localhost:{yard.port}/nordlicht/CP1"
    return SimulatedStation(
        url, yard.nordlicht.password, version, Plan(**settings), connect_to=("127.0.0.1", yard.port)
    )


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
async def test_a_simulated_station_lives_whole_sessions(yard: Yard, version: str):
    life = asyncio.create_task(simulated(yard, version).run())
    done = ChargingSession.status == "COMPLETED"

    async def two() -> bool:
        return len(await rows(yard, yard.nordlicht, ChargingSession, done)) >= 2

    await until(two, 40)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    finished = await rows(yard, yard.nordlicht, ChargingSession, done)
    assert all(
        one.id_token_status == "Accepted" and one.meter_stop_wh >= one.meter_start_wh for one in finished
    )
    assert len(await rows(yard, yard.nordlicht, MeterValue)) > 4


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
async def test_a_simulated_station_obeys_a_remote_start_and_stop(yard: Yard, version: str):
    life = asyncio.create_task(
        simulated(yard, version, scenario="idle", meter_interval_s=0.5, pace=0.3).run()
    )
    await until(lambda: rows(yard, yard.nordlicht, StationConnection, StationConnection.is_online.is_(True)))
    await asyncio.sleep(0.5)
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        session, _ = await charging.request_start(scope, evse_id=yard.nordlicht.evse_ids[0])
    same = ChargingSession.id == session.id
    await until(
        lambda: rows(yard, yard.nordlicht, ChargingSession, same, ChargingSession.status == "ACTIVE"), 20
    )
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await charging.request_stop(scope, session.id)
    await until(
        lambda: rows(yard, yard.nordlicht, ChargingSession, same, ChargingSession.status == "COMPLETED"), 20
    )
    assert {command.status for command in await rows(yard, yard.nordlicht, StationCommand)} == {"accepted"}
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


async def test_sessions_outlive_a_lost_link_and_their_queue_arrives_once(yard: Yard):
    station = simulated(yard, "2.0.1", evse_count=1, pace=0.02, meter_interval_s=12.0)
    life = asyncio.create_task(station.run())
    await until(lambda: rows(yard, yard.nordlicht, ChargingSession, ChargingSession.status == "ACTIVE"), 20)
    station.go_silent(1.5)
    await until(lambda: rows(yard, yard.nordlicht, StationConnection, StationConnection.is_online.is_(False)))
    await until(
        lambda: rows(yard, yard.nordlicht, ChargingSession, ChargingSession.status == "COMPLETED"), 40
    )
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    (first, *_) = await rows(yard, yard.nordlicht, ChargingSession, ChargingSession.status == "COMPLETED")
    values = await rows(yard, yard.nordlicht, MeterValue, MeterValue.session_id == first.id)
    keys = [(v.sampled_at, v.measurand, v.context) for v in values]
    assert len(keys) == len(set(keys))
    assert first.review is None
