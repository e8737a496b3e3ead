"""Short words of the conformance tests: staff do something, and something follows."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.stations import service as stations
from app.stations.models import EVSELive, StationCommand
from app.stations.status import evse_status
from tests.cast import STAFF, Cast
from tests.conformance.conftest import Station16, Station201, Yard, rows
from tests.conformance.jobs import Worker


async def act(yard: Yard, cast: Cast, verb: Any, *given: Any, **more: Any) -> Any:
    """A verb as staff call it from portal or REST."""
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        return await verb(scope, *given, **more)


async def boot(yard: Yard, cast: Cast, version: str, **answers: Any) -> Any:
    """A connected station that has booted, and answers these CALLs with these payloads (or bare status words)."""
    station = yard.station(cast, Station16 if version == "1.6" else Station201)
    station.answers |= {
        action: {"status": said} if isinstance(said, str) else said for action, said in answers.items()
    }
    await station.connect()
    await station.boot()
    return station


async def ended(yard: Yard, cast: Cast, worker: Worker, action: str) -> StationCommand:
    """The newest command of that name once it is answered, with what follows from the answer done."""

    async def look() -> StationCommand | None:
        found = await rows(yard, cast, StationCommand, StationCommand.action == action)
        newest = max(found, key=lambda one: one.id) if found else None
        return newest if newest is not None and newest.status not in ("queued", "sent") else None

    found = await worker.until(look)
    await worker.settle()
    return found


async def only(yard: Yard, cast: Cast, model: Any, *where: Any) -> Any:
    (row,) = await rows(yard, cast, model, *where)
    return row


async def newest(yard: Yard, cast: Cast, model: Any, *where: Any) -> Any:
    return max(await rows(yard, cast, model, *where), key=lambda one: one.id)


async def shown(yard: Yard, cast: Cast, number: int = 1) -> str:
    """The EVSE's OCPI status, as drivers and pages see it."""
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        station = await stations.get_station(scope, cast.station_id)
        evse = station.evses[number - 1]
        live: EVSELive | None = evse.live
        words = [connector.status for connector in evse.connectors]
        return evse_status(words, live.activity if live else "idle", is_online=True)


def asked(station: Any, action: str) -> list[dict[str, Any]]:
    return [payload for name, payload in station.asked if name == action]


def soon(**more: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(**more)
