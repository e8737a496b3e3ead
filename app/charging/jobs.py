"""What the worker does for sessions. Each may run twice."""

import logging
from uuid import UUID

from app.charging import (
    cost,
    holds,
    host_accounts,
    off_session,
    paid,
    reservations,
    rollups,
    service,
    settlement,
    site_hosts,
    smart_charging,
    terminal_sessions,
    transaction_status,
    wallet_starts,
)
from app.charging.models import ChargingSession
from app.kernel import events, queue
from app.kernel.errors import Refused
from tenants.database import Database
from tenants.scope import Actor

log = logging.getLogger("livery.charging")


async def settle(database: Database, tenant_id: UUID, session_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.settle")) as scope:
        await wallet_starts.keep_for_running(scope, UUID(session_id))
        await settlement.settle(scope, UUID(session_id))


async def expire_pending(database: Database, tenant_id: UUID, session_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.expire_pending")) as scope:
        await service.expire_pending(scope, UUID(session_id))


async def stop_refused(database: Database, tenant_id: UUID, session_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.stop_refused")) as scope:
        await service.stop_refused(scope, UUID(session_id))


async def watch(database: Database, tenant_id: UUID) -> None:
    """What fell silent is closed by a job each: a station is kept waiting for its own session, and no longer."""
    async with database.scope(tenant_id, Actor.job("charging.watch")) as scope:
        for session_id in await service.list_silent(scope):
            await queue.enqueue(
                scope, "charging.close", session_id=str(session_id), lock=f"session:{session_id}"
            )
        await service.expire_overdue(scope)
        await reservations.expire_overdue(scope)
        await holds.sweep(scope)


async def close(database: Database, tenant_id: UUID, session_id: str) -> None:
    """Nothing where the station spoke meanwhile."""
    async with database.scope(tenant_id, Actor.job("charging.close")) as scope:
        await service.close_stuck(scope, only=UUID(session_id))
        await service.close_unplugged(scope, only=UUID(session_id))


async def end_undecided(database: Database, tenant_id: UUID, session_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.end_undecided")) as scope:
        await holds.end_undecided(scope, UUID(session_id))


async def invoice_month(database: Database, tenant_id: UUID) -> None:
    async with database.scope(tenant_id, Actor.job("charging.invoice_month")) as scope:
        await settlement.invoice_month(scope)


async def write_host_statements(database: Database, tenant_id: UUID) -> None:
    async with database.scope(tenant_id, Actor.job("charging.write_host_statements")) as scope:
        await site_hosts.write_statements(scope)


async def command_ended(database: Database, tenant_id: UUID, event_id: str) -> None:
    """Whoever asked the station hears its answer."""
    async with database.scope(tenant_id, Actor.job("charging.command_ended")) as scope:
        event = await scope.db.get(events.Event, (tenant_id, UUID(event_id)))
        for source, heard in HEARERS.items():
            if event is not None and source in event.data:
                await heard(scope, event)


async def payment_authorized(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.payment_authorized")) as scope:
        await paid.payment_authorized(scope, UUID(event_id))


async def payment_ended(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.payment_ended")) as scope:
        await paid.payment_ended(scope, UUID(event_id))


async def hold_changed(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.hold_changed")) as scope:
        await paid.hold_changed(scope, UUID(event_id))


async def payment_settled(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.payment_settled")) as scope:
        await paid.payment_settled(scope, UUID(event_id))


async def dispute_closed(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.dispute_closed")) as scope:
        await paid.dispute_closed(scope, UUID(event_id))


async def session_started(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.session_started")) as scope:
        await wallet_starts.session_started(scope, UUID(event_id))
        await terminal_sessions.session_started(scope, UUID(event_id))
        await paid.session_started(scope, UUID(event_id))


async def hold_session(database: Database, tenant_id: UUID, session_id: str) -> None:
    """The wallet keeps what it may cost, or the saved card is asked, and the session is watched from then on."""
    async with database.scope(tenant_id, Actor.job("charging.hold_session")) as scope:
        if await scope.db.get(ChargingSession, (tenant_id, UUID(session_id))) is not None:
            await wallet_starts.keep_for_running(scope, UUID(session_id))
            await off_session.hold_session(scope, UUID(session_id))
            await paid.watch_cap(scope, UUID(session_id))


async def payment_action_required(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.payment_action_required")) as scope:
        await paid.payment_action_required(scope, UUID(event_id))


async def watch_cap(database: Database, tenant_id: UUID, session_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.watch_cap")) as scope:
        await paid.watch_cap(scope, UUID(session_id))


async def check_cap(database: Database, tenant_id: UUID, session_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.check_cap")) as scope:
        await paid.watch_cap(scope, UUID(session_id), comes_back=False)


async def expire_reservation(database: Database, tenant_id: UUID, reservation_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.expire_reservation")) as scope:
        await reservations.expire(scope, UUID(reservation_id))


async def profiles_of_started(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.profiles_of_started")) as scope:
        event = await scope.db.get(events.Event, (tenant_id, UUID(event_id)))
        if event is not None:
            await smart_charging.session_started(scope, event.source_id)


async def profiles_of_ended(database: Database, tenant_id: UUID, event_id: str) -> None:
    async with database.scope(tenant_id, Actor.job("charging.profiles_of_ended")) as scope:
        event = await scope.db.get(events.Event, (tenant_id, UUID(event_id)))
        if event is not None:
            await smart_charging.session_over(scope, event.source_id)


async def meter_key_trusted(database: Database, tenant_id: UUID, event_id: str) -> None:
    """What waited for that key, each session in a transaction of its own."""
    actor = Actor.job("charging.meter_key_trusted")
    async with database.scope(tenant_id, actor) as scope:
        event = await scope.db.get(events.Event, (tenant_id, UUID(event_id)))
        waiting = await service.list_unverified(scope, UUID(event.data["station"])) if event else []
    for session_id in waiting:
        try:
            async with database.scope(tenant_id, actor) as scope:
                await service.verify_again(scope, session_id)
        except Refused:
            continue  # staff decided meanwhile
        except Exception:  # one that cannot be weighed keeps no other from it
            log.exception("session %s could not be verified again", session_id)


async def tell_costs(database: Database, tenant_id: UUID) -> None:
    async with database.scope(tenant_id, Actor.job("charging.tell_costs")) as scope:
        await cost.tell_running(scope)


async def roll_up(database: Database, tenant_id: UUID) -> None:
    """A transaction for each day: a month that is caught up holds nothing for long."""
    async with database.scope(tenant_id, Actor.job("charging.roll_up")) as scope:
        days = await rollups.unrolled_days(scope)
    for day in days:
        async with database.scope(tenant_id, Actor.job("charging.roll_up")) as scope:
            await rollups.roll_day(scope, day)
    async with database.scope(tenant_id, Actor.job("charging.roll_up")) as scope:
        await rollups.fold_late(scope)


HEARERS = {
    "charging_session": service.command_ended,
    reservations.SOURCE: reservations.command_ended,
    smart_charging.PROFILE: smart_charging.command_ended,
    smart_charging.REPORT: smart_charging.report_ended,
    smart_charging.COMPOSITE: smart_charging.composite_ended,
    cost.SOURCE: cost.command_ended,
    transaction_status.SOURCE: transaction_status.command_ended,
}
JOBS = {
    "charging.expire_reservation": expire_reservation,
    "charging.meter_key_trusted": meter_key_trusted,
    "charging.tell_costs": tell_costs,
    "charging.profiles_of_started": profiles_of_started,
    "charging.profiles_of_ended": profiles_of_ended,
    "charging.check_cap": check_cap,
    "charging.close": close,
    "charging.end_undecided": end_undecided,
    "charging.roll_up": roll_up,
    "charging.hold_session": hold_session,
    "charging.payment_action_required": payment_action_required,
    "charging.settle": settle,
    "charging.expire_pending": expire_pending,
    "charging.stop_refused": stop_refused,
    "charging.watch": watch,
    "charging.invoice_month": invoice_month,
    "charging.write_host_statements": write_host_statements,
    "charging.observe_host_accounts": host_accounts.observe_all,
    "charging.command_ended": command_ended,
    "charging.payment_authorized": payment_authorized,
    "charging.payment_ended": payment_ended,
    "charging.hold_changed": hold_changed,
    "charging.payment_settled": payment_settled,
    "charging.dispute_closed": dispute_closed,
    "charging.session_started": session_started,
    "charging.watch_cap": watch_cap,
}
LISTENERS = {
    "CommandEnded": ["charging.command_ended"],
    "DisputeClosed": ["charging.dispute_closed"],
    "HoldChanged": ["charging.hold_changed"],
    "MeterKeyTrusted": ["charging.meter_key_trusted"],
    "PaymentActionRequired": ["charging.payment_action_required"],
    "PaymentAuthorized": ["charging.payment_authorized"],
    "PaymentCaptured": ["charging.payment_settled"],
    "PaymentEnded": ["charging.payment_ended"],
    "PaymentFailed": ["charging.payment_settled"],
    "SessionEnded": ["charging.profiles_of_ended"],
    "SessionNotStarted": ["charging.profiles_of_ended"],
    "SessionStarted": ["charging.session_started", "charging.profiles_of_started"],
}
RECURRING = [
    ("* * * * *", "charging.tell_costs"),
    ("33 * * * *", "charging.observe_host_accounts"),
    ("*/10 * * * *", "charging.watch"),
    ("20 3 * * *", "charging.invoice_month"),
    ("40 4 * * *", "charging.write_host_statements"),
    ("50 2 * * *", "charging.roll_up"),
]
