"""What the worker does for stations: commands that waited too long, and links whose gateway died."""

from uuid import UUID

from sqlalchemy import select, update

from app.kernel import events
from app.stations import availability, commands, nodes, service
from app.stations.models import StationConnection
from tenants.database import Database
from tenants.scope import Actor, Scope


async def sweep(database: Database, tenant_id: UUID) -> None:
    """Expires commands; a station whose gateway's lease is gone counts as disconnected from now on."""
    async with database.scope(tenant_id, Actor.job("stations.sweep")) as scope:
        await commands.expire_commands(scope)
        await _close_orphaned_links(scope)


async def _close_orphaned_links(scope: Scope) -> None:
    if scope.redis is None or not await nodes.remembers(scope.redis, scope.now):
        return
    query = select(StationConnection.node).where(StationConnection.is_online.is_(True)).distinct()
    for node in (await scope.db.execute(query)).scalars():
        if await scope.redis.client.exists(nodes.lease_key(node)):
            continue
        statement = (
            update(StationConnection)
            .where(StationConnection.node == node, StationConnection.is_online.is_(True))
            .values(is_online=False, disconnected_at=scope.now, close_reason=service.GATEWAY_LOST)
            .returning(StationConnection.station_id, StationConnection.epoch)
        )
        for station_id, epoch in (await scope.db.execute(statement)).all():
            await commands.abandon_commands(scope, station_id, epoch + 1)
            service.tell(scope, station_id, "connection")


async def command_ended(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("stations.command_ended")) as scope:
        event = await scope.db.get(events.Event, (tenant_id, UUID(event_id)))
        if event is not None and availability.SOURCE in event.data:
            await availability.command_ended(scope, event)


JOBS = {"stations.sweep": sweep, "stations.command_ended": command_ended}
LISTENERS = {"CommandEnded": ["stations.command_ended"]}
RECURRING = [("* * * * * */30", "stations.sweep")]
