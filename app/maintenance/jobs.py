"""What the worker does for this slice: signs certificates, hears of commands' ends, warns, falls back, tidies up."""

from uuid import UUID

from app.kernel.events import Event
from app.maintenance import certificates, changes, firmware, logs
from app.maintenance.issuer import issuer_of
from app.stations.commands import get_command
from app.stations.models import StationCommand
from tenants.database import Database
from tenants.scope import Actor, Scope


async def issue_certificate(database: Database, tenant_id: UUID, certificate_id: str) -> None:
    """Read, sign with no transaction open (a CA may be a service outside), keep."""
    actor, key = Actor.job("maintenance.issue_certificate"), UUID(certificate_id)
    async with database.scope(tenant_id, actor) as scope:
        found = await certificates.find_wish(scope, key)
        if found is None:
            return
        signer, now = await issuer_of(scope).prepare(scope), scope.now
    chain = await signer.sign(found[1], now)
    async with database.scope(tenant_id, actor) as scope:
        await certificates.keep_issued(scope, key, chain)


async def command_ended(database: Database, tenant_id: UUID, event_id: str) -> None:
    """What a station answered to something of ours."""
    async with database.scope(tenant_id, Actor.job("maintenance.command_ended")) as scope:
        event = await scope.db.get(Event, (tenant_id, UUID(event_id)))
        if event is None:
            return
        command = await get_command(scope, event.source_id)
        if command.source_type in _ANSWERED and command.source_id is not None:
            await _ANSWERED[command.source_type](scope, command.source_id, command)


async def _store_answered(scope: Scope, _station_id: UUID, command: StationCommand) -> None:
    await certificates.store_answered(scope, command)


_ANSWERED = {
    "station_certificate": certificates.certificate_answered,
    "certificate_store": _store_answered,
    "security_change": changes.change_answered,
    "firmware_update": firmware.update_answered,
    "firmware_publication": firmware.publication_answered,
    "station_log": logs.log_answered,
}


async def watch(database: Database, tenant_id: UUID) -> None:
    """Certificates that end soon, and changes that no station came back with."""
    async with database.scope(tenant_id, Actor.job("maintenance.watch")) as scope:
        await certificates.warn_of_expiry(scope)
        await changes.fall_back(scope)


async def tidy(database: Database, tenant_id: UUID) -> None:
    """Log files past their month."""
    async with database.scope(tenant_id, Actor.job("maintenance.tidy")) as scope:
        gone = await logs.old_files(scope)
    for log_id in gone:
        logs.path_of(database.settings, tenant_id, log_id).unlink(missing_ok=True)


JOBS = {
    "maintenance.issue_certificate": issue_certificate,
    "maintenance.command_ended": command_ended,
    "maintenance.watch": watch,
    "maintenance.tidy": tidy,
}
LISTENERS = {"CommandEnded": ["maintenance.command_ended"]}
RECURRING = [("*/10 * * * *", "maintenance.watch"), ("23 3 * * *", "maintenance.tidy")]
