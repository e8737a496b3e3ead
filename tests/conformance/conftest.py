"""What the conformance cases share: a gateway on a real socket, and staff who send commands by the ordinary verb."""

from typing import Any

import pytest

from app.stations import commands
from app.stations.models import StationCommand
from tests.cast import STAFF, Cast
from tests.conformance.stage import stage16, stage21, stage201
from tests.gateway.conftest import Station16, Station201, Yard, opened, rows, until, yard


def case(version: str, *names: str) -> Any:
    """Marks the conformance cases (`1.6` or `2.0.1`) that a test covers."""

    def mark(test: Any) -> Any:
        for name in names:
            test = pytest.mark.ocpp_case(version, name)(test)
        return test

    return mark


async def command(yard: Yard, cast: Cast, action: str, payload: dict[str, Any]) -> StationCommand:
    """Sent by staff as REST and portal do; returned when it has ended, with the station's own answer."""
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        made = await commands.send_command(scope, cast.station_id, action, payload)
        wanted = StationCommand.id == made.id

    async def ended() -> StationCommand | None:
        (row,) = await rows(yard, cast, StationCommand, wanted)
        return row if row.status not in ("queued", "sent") else None

    return await until(ended, 12)


__all__ = [
    "Station16",
    "Station201",
    "Yard",
    "case",
    "command",
    "opened",
    "rows",
    "stage16",
    "stage21",
    "stage201",
    "until",
    "yard",
]
