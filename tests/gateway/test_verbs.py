"""Verbs work in a process of their own: what they do, and what becomes of it when that process dies."""

import asyncio
import os
import pickle
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from app.charging.models import ChargingSession
from app.kernel.settings import Settings
from app.stations import commands
from app.stations.models import StationCommand, StationConnection
from ocpp_gateway import verbs
from ocpp_gateway.aside import Aside
from ocpp_gateway.verbs import VerbProcess
from tenants.database import Database
from tests.cast import STAFF
from tests.foreign_stations import Station16
from tests.gateway.conftest import Yard, opened, rows, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def yard(settings: Settings, database: Database) -> AsyncIterator[Yard]:
    async with opened(settings, database, VerbProcess) as made:
        yield made


def process_of(yard: Yard) -> int:
    verbs = yard.gateway.verbs
    assert isinstance(verbs, VerbProcess) and verbs.pid is not None
    return verbs.pid


async def booted(yard: Yard) -> Station16:
    box = yard.station(yard.nordlicht, Station16)
    assert isinstance(box, Station16)
    await box.connect()
    await box.boot()
    return box


async def test_a_station_charges_and_obeys_while_its_verbs_work_in_another_process(yard: Yard):
    box = await booted(yard)
    assert await box.authorize(yard.nordlicht.card) == "Accepted"
    started = await box.start(1, yard.nordlicht.card, 1_000)
    await box.meter(1, started.transaction_id, 1_500, 11_000)
    await box.stop(started.transaction_id, 2_000)
    (session,) = await rows(yard, yard.nordlicht, ChargingSession)
    assert (session.status, session.meter_stop_wh) == ("COMPLETED", 2_000)
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await commands.send_command(scope, session.station_id, "Reset", {"type": "Soft"})
    await until(lambda: rows(yard, yard.nordlicht, StationCommand, StationCommand.status == "accepted"))
    assert box.asked == [("Reset", {"type": "Soft"})]
    await box.close()


async def test_what_is_asked_of_a_process_that_dies_is_sent_again_and_taken_once(yard: Yard):
    box = await booted(yard)
    dead = process_of(yard)
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        # Whoever holds the company's stations: the start waits inside its transaction when its process is killed.
        await scope.db.execute(text("lock table livery.charging_session in access exclusive mode"))
        asking = asyncio.create_task(box.start(1, yard.nordlicht.card, 1_000))
        await asyncio.sleep(0.3)
        os.kill(dead, signal.SIGKILL)
        assert box.socket is not None
        await asyncio.wait_for(box.socket.wait_closed(), 5)
        asking.cancel()
    assert not await rows(yard, yard.nordlicht, ChargingSession)
    again = await booted(yard)
    started = await again.start(1, yard.nordlicht.card, 1_000)
    (session,) = await rows(yard, yard.nordlicht, ChargingSession)
    assert session.ocpp_transaction_id == str(started.transaction_id)
    assert process_of(yard) != dead
    await again.close()


async def test_a_process_that_hangs_is_killed_and_started_anew(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
):
    """Whoever it worked for is told to come back, and nobody is sent to this gateway meanwhile."""
    monkeypatch.setattr(verbs, "PING_S", 0.6)
    async with opened(settings, database, VerbProcess) as yard:
        box, hanging = await booted(yard), process_of(yard)
        await asyncio.sleep(2)  # it is pinged some times, and lives
        await until(lambda: stands(yard, True))
        assert process_of(yard) == hanging
        os.kill(hanging, signal.SIGSTOP)
        asking = asyncio.create_task(box.authorize(yard.nordlicht.card))
        await until(lambda: stands(yard, False))
        assert process_of(yard) == hanging
        assert box.socket is not None
        await asyncio.wait_for(box.socket.wait_closed(), 5)
        asking.cancel()
        await until(lambda: stands(yard, True))
        assert process_of(yard) != hanging
        again = await booted(yard)
        assert await again.authorize(yard.nordlicht.card) == "Accepted"
        await again.close()


async def stands(yard: Yard, ready: bool) -> bool:
    return (await yard.gateway.is_ready())["verbs"] is ready


async def test_what_cannot_be_asked_leaves_nothing_behind(yard: Yard):
    asked_of = yard.gateway.verbs
    assert isinstance(asked_of, VerbProcess)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        await asked_of.run(Aside.keep, lambda: None, [])  # type: ignore[arg-type]
    assert not asked_of._asked


async def test_the_process_ends_with_its_gateway(settings: Settings, database: Database):
    async with opened(settings, database, VerbProcess) as yard:
        pid = process_of(yard)
        os.kill(pid, signal.SIGTERM)  # as a signal to the whole group: its gateway decides
        await asyncio.sleep(0.2)
        box = await booted(yard)
        await box.close()
        assert process_of(yard) == pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_command_whose_end_was_not_written_ends_with_the_next_link(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    """The process dies while it writes what the station answered: nobody knows, and the command says so."""
    box = await booted(yard)
    conclude, dead = yard.gateway.seam.conclude, process_of(yard)

    async def dying(*args: Any) -> None:
        os.kill(dead, signal.SIGSTOP)  # it hears what it is asked for, and does nothing any more
        writing = asyncio.create_task(conclude(*args))
        await asyncio.sleep(0.1)
        os.kill(dead, signal.SIGKILL)
        await writing

    monkeypatch.setattr(yard.gateway.seam, "conclude", dying)
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await commands.send_command(scope, link.station_id, "Reset", {"type": "Soft"})
    assert box.socket is not None
    await asyncio.wait_for(box.socket.wait_closed(), 10)
    assert box.socket.close_code == 1013
    again = await booted(yard)
    await until(lambda: rows(yard, yard.nordlicht, StationCommand, StationCommand.status == "unknown"))
    await again.close()
