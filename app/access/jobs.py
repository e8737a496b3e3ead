"""What the worker does for access: stations' lists follow the tokens."""

from uuid import UUID

from app.access import local_lists
from app.kernel import events
from tenants.database import Database
from tenants.scope import Actor


async def sync_lists(database: Database, tenant_id: UUID) -> None:
    async with database.scope(tenant_id, Actor.job("access.sync_lists")) as scope:
        await local_lists.sync_due(scope)


async def command_ended(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("access.command_ended")) as scope:
        await local_lists.command_ended(scope, UUID(event_id))


async def station_connected(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("access.station_connected")) as scope:
        event = await scope.db.get(events.Event, (tenant_id, UUID(event_id)))
        if event is not None:
            await local_lists.station_connected(scope, event.source_id)


JOBS = {
    "access.sync_lists": sync_lists,
    "access.command_ended": command_ended,
    "access.station_connected": station_connected,
}
LISTENERS = {"CommandEnded": ["access.command_ended"], "StationConnected": ["access.station_connected"]}
RECURRING = [("*/10 * * * *", "access.sync_lists")]
