"""The database goes away while a command is begun or ended: nothing is lost, done twice, or waited for in vain."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.kernel.events import Event
from app.stations import commands
from app.stations.models import OCPPMessage, StationCommand, StationConnection
from ocpp_gateway import aside
from tests.cast import STAFF
from tests.foreign_stations import ForeignStation, Station16
from tests.gateway.conftest import Yard, rows, until

pytestmark = pytest.mark.anyio
Work = Callable[..., Awaitable[Any]]


async def booted(yard: Yard) -> ForeignStation:
    box = yard.station(yard.nordlicht, Station16)
    await box.connect()
    await box.boot()
    return box


async def reset(yard: Yard) -> UUID:
    """Ours to send; somebody waits for its end."""
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        command = await commands.send_command(
            scope, link.station_id, "Reset", {"type": "Soft"}, source_type="test", source_id=link.station_id
        )
        return command.id


async def command_of(yard: Yard, *statuses: str) -> StationCommand:
    found = await until(
        lambda: rows(yard, yard.nordlicht, StationCommand, StationCommand.status.in_(statuses))
    )
    return found[0]


async def ends(yard: Yard) -> int:
    return len(await rows(yard, yard.nordlicht, Event, Event.kind == "CommandEnded"))


async def frames(yard: Yard) -> list[str]:
    found = await rows(yard, yard.nordlicht, OCPPMessage, OCPPMessage.action == "Reset")
    return sorted(one.kind for one in found)


def terminates(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, times: int = 1) -> None:
    """What a restart and a failover do to a transaction, just when this is asked of it."""
    verb, left = getattr(module, name), [None] * times

    async def cut_off(scope: Any, *args: Any) -> Any:
        if left:
            left.pop()
            await scope.db.execute(text("select pg_terminate_backend(pg_backend_pid())"))
        return await verb(scope, *args)

    monkeypatch.setattr(module, name, cut_off)


def loses_commit(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """The transaction in which this first gave something is committed, and nobody hears of it."""
    verb, commit, unheard = getattr(module, name), AsyncSession.commit, list[AsyncSession]()

    async def noted(scope: Any, *args: Any) -> Any:
        given = await verb(scope, *args)
        if given and not unheard:
            unheard.append(scope.db)
        return given

    async def unanswered(session: AsyncSession) -> None:
        await commit(session)
        if session in unheard:
            raise OperationalError("commit", None, psycopg.OperationalError("the connection is lost"))

    monkeypatch.setattr(module, name, noted)
    monkeypatch.setattr(AsyncSession, "commit", unanswered)


@pytest.mark.parametrize(("module", "name"), [
    (commands, "claim_commands"), (commands, "conclude_command"), (aside.device_reports, "answered"),
])  # fmt: skip
async def test_a_command_is_begun_and_ended_when_the_database_is_back(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
):
    box = await booted(yard)
    terminates(monkeypatch, module, name)
    await reset(yard)
    command = await command_of(yard, "accepted", "failed", "unknown")
    assert (command.status, command.answer, len(box.asked)) == ("accepted", {"status": "Accepted"}, 1)
    assert (await ends(yard), await frames(yard)) == (1, ["call", "result"])
    await box.close()


async def test_an_end_whose_commit_nobody_heard_of_is_written_once(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    box = await booted(yard)
    loses_commit(monkeypatch, commands, "conclude_command")
    await reset(yard)
    second = StationCommand.id == await reset(yard), StationCommand.status == "accepted"
    await until(lambda: rows(yard, yard.nordlicht, StationCommand, *second))
    assert (await ends(yard), await frames(yard)) == (2, ["call", "call", "result", "result"])
    await box.close()


async def test_a_command_that_may_have_been_taken_is_not_sent_and_ends_with_the_next_link(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    """Its claim may stand: asked again, the database would name the next one, and this one would be sent for good."""
    box = await booted(yard)
    loses_commit(monkeypatch, commands, "claim_commands")
    await reset(yard)
    assert box.socket is not None
    await asyncio.wait_for(box.socket.wait_closed(), 8)
    assert (box.socket.close_code, box.asked) == (1013, [])
    again = await booted(yard)
    assert (await command_of(yard, "unknown")).error == "the connection was lost before the answer"
    await again.close()


async def test_a_link_ends_where_the_database_does_not_come_back_in_time(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    box = await booted(yard)
    monkeypatch.setattr(aside, "PATIENCE_S", 0.3)
    terminates(monkeypatch, commands, "conclude_command", times=20)
    await reset(yard)
    assert box.socket is not None
    await asyncio.wait_for(box.socket.wait_closed(), 8)
    assert (box.socket.close_code, len(box.asked)) == (1013, 1)
    again = await booted(yard)
    await command_of(yard, "unknown")
    assert await ends(yard) == 1
    await again.close()
