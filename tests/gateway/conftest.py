"""A gateway in the test's own loop, on a real socket, with a real database and Valkey."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select

from app.demo.cast import NORDLICHT, SOLMARK
from app.kernel.settings import Settings
from ocpp_gateway.server import Gateway
from ocpp_gateway.verbs import Verbs
from tenants.database import Database
from tests.cast import STAFF, Cast, hire
from tests.foreign_stations import ForeignStation, Station16, Station201
from tests.journeys.house import free_port


@dataclass
class Yard:
    """The gateway and the stations before it: Nordlicht's and Solmark's, both called CP1."""

    gateway: Gateway
    database: Database
    port: int
    nordlicht: Cast
    solmark: Cast

    def station(self, cast: Cast, kind: type[ForeignStation], **more: str | None) -> ForeignStation:
        path = more.pop("path", f"{cast.company.slug}/CP1")
        password = more.pop("password", cast.password)
        return kind(f"ws://localhost:{self.port}/{path}", password, connect_to=("127.0.0.1", self.port))


@contextlib.asynccontextmanager
async def opened(
    settings: Settings, database: Database, verbs: type[Verbs] = Verbs, **changes: Any
) -> AsyncIterator[Yard]:
    """A yard whose gateway runs with some settings of its own."""
    port = free_port()
    own = settings.model_copy(update={"ocpp_port": port, **changes})
    casts = await hire(database, NORDLICHT), await hire(database, SOLMARK)
    gateway, stop = Gateway(own, verbs), asyncio.Event()
    running = asyncio.create_task(gateway.run(stop))
    for _ in range(1000):
        await asyncio.sleep(0.02)
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
    yield Yard(gateway, database, port, *casts)
    stop.set()
    await asyncio.wait_for(running, 20)


@pytest.fixture
async def yard(settings: Settings, database: Database) -> AsyncIterator[Yard]:
    async with opened(settings, database) as made:
        yield made


async def rows(yard: Yard, cast: Cast, model: Any, *where: Any) -> list[Any]:
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        return list((await scope.db.execute(select(model).where(*where))).scalars())


async def until(look: Any, timeout_s: float = 8) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (found := await look()):  # noqa: ASYNC110 - the database tells nobody when a row changes
            await asyncio.sleep(0.03)
    return found


__all__ = ["Station16", "Station201", "Yard", "opened", "rows", "until"]
