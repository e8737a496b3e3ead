"""The worker of a conformance test: what is queued runs while the test waits for what follows from it."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tenants.database import Database
from tests.billing.conftest import Jobs
from tests.conftest import DatabaseUrls


class Worker(Jobs):
    async def until(self, look: Any, timeout_s: float = 8) -> Any:
        """What `look` finds, with everything that is due done between two looks."""
        async with asyncio.timeout(timeout_s):
            while True:
                await self.run()
                assert not self.failures, self.failures
                if found := await look():
                    return found
                await asyncio.sleep(0.03)

    async def settle(self, ahead: timedelta = timedelta()) -> None:
        """Everything that is due by then."""
        self.ahead = ahead
        await self.run()
        self.ahead = timedelta()
        assert not self.failures, self.failures


@pytest.fixture
def worker(database: Database, database_urls: DatabaseUrls) -> Iterator[Worker]:
    made = Worker(database, database_urls)
    yield made
    made.connection.close()


__all__ = ["Worker", "worker"]
