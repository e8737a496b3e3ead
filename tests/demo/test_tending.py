"""What the demo's staff did stands on the pages because stations answered it, and is done once."""

import asyncio

import pytest

from app.access.models import LocalList
from app.charging.models import ChargingProfile, CompositeSchedule, Reservation
from app.demo import tending
from app.demo.cast import NORDLICHT
from app.device_model.models import DisplayMessage, StationVariable, VariableMonitor
from app.maintenance.models import StationLog
from app.stations.models import ParkedMessage, StationAlert, StationCommand, StationConnection, StationQuirk
from ocpp_gateway.simulator import Plan, SimulatedStation
from tests.gateway.conftest import Yard, rows, until, yard

pytestmark = pytest.mark.anyio
__all__ = ["yard"]


async def test_the_demos_staff_tend_the_stations_that_are_there_and_do_it_once(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tending, "WAIT_S", 1)
    monkeypatch.setattr(tending, "SETTLE_S", 0.7)
    monkeypatch.setattr(tending, "CARS_COME_S", 0.2)
    monkeypatch.setattr(tending, "GUESTS_LEAVE_S", 0)
    cast = yard.nordlicht
    station = SimulatedStation(
        f"ws://localhost:{yard.port}/nordlicht/CP1", cast.password, "2.0.1", Plan(scenario="idle", pace=0.05),
        connect_to=("127.0.0.1", yard.port),
    )  # fmt: skip
    life = asyncio.create_task(station.run())
    await until(lambda: rows(yard, cast, StationConnection, StationConnection.is_online))
    await asyncio.wait_for(station.is_booted.wait(), 10)
    await tending.tend(yard.database, cast.tenant_id, NORDLICHT)

    async def answered() -> bool:
        commands = await rows(yard, cast, StationCommand)
        return bool(commands) and all(one.status not in ("queued", "sent") for one in commands)

    await until(answered)
    asked = await rows(yard, cast, StationCommand)
    assert {one.status for one in asked} == {"accepted"}, [(one.action, one.status) for one in asked]
    for model in (
        StationVariable, VariableMonitor, DisplayMessage, CompositeSchedule, StationLog, ChargingProfile,
        LocalList, Reservation, ParkedMessage, StationAlert,
    ):  # fmt: skip
        assert await rows(yard, cast, model), model
    await tending.tend(yard.database, cast.tenant_id, NORDLICHT)
    assert len(await rows(yard, cast, StationQuirk)) == 1
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
