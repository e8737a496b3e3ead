from collections.abc import AsyncIterator

import pytest

from app.kernel.settings import Settings
from tenants.database import Database
from tests.name_server import NameServer, serve_names
from tests.web import House, open_house


@pytest.fixture
async def names(anyio_backend: str) -> AsyncIterator[NameServer]:
    async with serve_names() as server:
        yield server


@pytest.fixture
async def house(settings: Settings, database: Database, names: NameServer) -> AsyncIterator[House]:
    """Behind a platform domain as in production, asking our own name server."""
    changes = {"platform_domain": "charging.example", "dns_server": names.address}
    database.settings = settings.model_copy(update=changes)
    async with open_house(database.settings, database) as opened:
        yield opened
