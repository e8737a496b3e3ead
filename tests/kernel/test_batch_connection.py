"""The connection of the batched ingest: libpq's calls, and what becomes of whoever waits when they fail."""

import asyncio
import os

import psycopg
import pytest

from tenants.database import BatchConnection, BatchError, Database
from tests.conftest import DatabaseUrls

pytestmark = pytest.mark.anyio
BACKEND = "select pg_backend_pid()"


async def pid_of(connection: BatchConnection) -> int:
    ((pid,),) = await connection.call(BACKEND, [])
    return int(pid or 0)


def end(database_urls: DatabaseUrls, pid: int) -> None:
    with psycopg.connect(database_urls.superuser.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(%s)", (pid,))


async def test_rows_come_as_postgresql_writes_their_values(database: Database):
    async with database.batch() as connection:
        rows = await connection.call("select $1::int + n, null, $2 from generate_series(1, 2) n", ["40", "ä"])
    assert rows == [(b"41", None, "ä".encode()), (b"42", None, "ä".encode())]


async def test_a_call_larger_than_the_socket_takes_at_once_is_sent_whole(database: Database):
    async with database.batch() as connection:
        assert await connection.call("select length($1), $1", [text := "x" * 20_000_000]) == [
            (b"20000000", text.encode())
        ]


async def test_what_the_server_refuses_has_its_sqlstate_and_the_connection_goes_on(database: Database):
    async with database.batch() as connection:
        for statement, sqlstate in (("select 1 / $1::int", "22012"), ("select nonsense($1)", "42883")):
            for _ in range(2):
                with pytest.raises(BatchError) as refused:
                    await connection.call(statement, ["0"])
                assert refused.value.sqlstate == sqlstate
        assert await connection.call("select 1 / $1::int", ["1"]) == [(b"1",)]


async def test_a_text_that_holds_nul_is_refused_and_not_cut_short(database: Database):
    async with database.batch() as connection:
        with pytest.raises(BatchError) as refused:
            await connection.call("select $1", ["a\0b"])
        assert refused.value.sqlstate == "22021"
        assert await connection.call("select $1", ["ab"]) == [(b"ab",)]


async def test_whoever_waits_while_the_server_ends_the_connection_is_told_at_once(
    database: Database, database_urls: DatabaseUrls
):
    async with database.batch() as connection:
        pid = await pid_of(connection)
        waiting = asyncio.create_task(connection.call("select pg_sleep(60)", []))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(end, database_urls, pid)
        with pytest.raises(BatchError) as lost:
            await asyncio.wait_for(waiting, 5)
        assert lost.value.sqlstate in ("57P01", None)
        with pytest.raises(BatchError) as gone:
            await connection.call(BACKEND, [])
        assert gone.value.sqlstate is None


async def test_a_connection_that_ended_while_idle_leaves_its_number_to_others(
    database: Database, database_urls: DatabaseUrls
):
    """libpq closes its socket; who has that file descriptor next keeps being read."""
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    async with database.batch() as connection:
        number = connection._socket  # noqa: SLF001 (what the operating system gives to the next)
        assert number is not None
        await asyncio.to_thread(end, database_urls, await pid_of(connection))
        await asyncio.sleep(0.3)
        reads, writes = os.pipe()
        try:
            if reads != number:
                os.dup2(reads, number)
            loop.add_reader(number, heard.set)
            with pytest.raises(BatchError) as gone:
                await connection.call(BACKEND, [])
            assert gone.value.sqlstate is None
            connection.close()
            os.write(writes, b"x")
            await asyncio.wait_for(heard.wait(), 5)
        finally:
            loop.remove_reader(number)
            for one in {reads, writes, number}:
                os.close(one)
