from collections.abc import AsyncIterator

import pytest

from app.kernel.settings import Settings
from tenants.database import Database
from tests.web import House, open_house


@pytest.fixture
async def house(settings: Settings, database: Database) -> AsyncIterator[House]:
    async with open_house(settings, database) as opened:
        yield opened
