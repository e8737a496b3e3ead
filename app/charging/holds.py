"""Holds whose session is under review: decided in time by staff, or ended without them (I15, decisions/0020)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select

from app.billing import payments
from app.billing.models import Payment
from app.charging import legs, plausibility, service, settlement
from app.charging.models import ChargingSession, SessionEvent
from app.kernel import queue
from tenants.scope import Scope

REVIEW_LASTS = timedelta(
    hours=23
)  # no hold stands for longer than a day after its session; the provider takes a while
ENDS = ("ended", "stuck", "unplugged", "hold_ends", "superseded")


@dataclass(frozen=True, slots=True)
class Undecided:
    """A hold that stands for a session under review; staff have `until` to decide."""

    session_id: UUID
    until: datetime


async def list_undecided(scope: Scope, session_id: UUID | None = None) -> list[Undecided]:
    """The most urgent first. The time counts from when we heard of the end."""
    told = (
        select(func.max(SessionEvent.received_at))
        .where(SessionEvent.session_id == ChargingSession.id, SessionEvent.kind.in_(ENDS))
        .scalar_subquery()
    )
    query = (
        select(ChargingSession.id, func.coalesce(told, ChargingSession.ended_at), Payment.capture_before)
        .join(Payment, (Payment.source_id == ChargingSession.id) & (Payment.source_type == "charging_session"))
        .where(
            ChargingSession.status == "COMPLETED", ChargingSession.review.is_not(None),
            ChargingSession.settled_at.is_(None), Payment.state == "authorized",
        )
    )  # fmt: skip
    if session_id is not None:
        query = query.where(ChargingSession.id == session_id)
    found: dict[UUID, Undecided] = {}  # of several legs the one that ends first
    for key, told_at, capture_before in await scope.db.execute(query):
        ends = [told_at + REVIEW_LASTS] if told_at else []
        ends += [capture_before - legs.EXPIRY_MARGIN] if capture_before else []
        one = Undecided(key, min(ends, default=scope.now))
        found[key] = min(found.get(key, one), one, key=lambda one: one.until)
    return sorted(found.values(), key=lambda one: one.until)


async def sweep(scope: Scope) -> None:
    """Each ten minutes: reviews whose time is over, and running sessions whose own watch may have died."""
    for one in await list_undecided(scope):
        if one.until <= scope.now:
            await queue.enqueue(
                scope,
                "charging.end_undecided",
                session_id=str(one.session_id),
                lock=f"session:{one.session_id}",
            )
    running = (
        select(ChargingSession.id)
        .join(Payment, (Payment.source_id == ChargingSession.id) & (Payment.source_type == "charging_session"))
        .where(
            ChargingSession.status == "ACTIVE", Payment.state == "authorized",
            Payment.capture_before < scope.now + legs.EXPIRY_MARGIN + legs.ASKED_BEFORE_END,
        )
    )  # fmt: skip
    for session_id in (await scope.db.execute(running.distinct())).scalars():
        await queue.enqueue(scope, "charging.check_cap", session_id=str(session_id), lock=f"cap:{session_id}")


async def end_undecided(scope: Scope, session_id: UUID) -> None:
    """What can be believed is taken, never more than the hold, and the review stays open: a credit CDR gives back what
    was too much. Where nothing can be believed the hold is let go."""
    await service.lock_settling(scope, session_id)
    if not any(one.until <= scope.now for one in await list_undecided(scope, session_id)):
        return
    session = await service.get_session(scope, session_id)
    energy = session.energy_wh
    if session.review == "unverified":
        energy = 0  # where only signed energy is billed, what nobody signed cannot be believed
    if energy is None:
        energy = await plausibility.judge_measured(scope, session)
    if energy > 0:
        session.energy_wh = energy
        service.keep_to_visit(session)
        if await settlement.settle(scope, session_id, is_undecided=True) is None:
            return
        await service.note(scope, session, "review_taken", "review_taken", {"energy_wh": energy})
    else:
        await payments.release(scope, "charging_session", session_id, "under_review")
        await service.note(scope, session, "review_let_go", "review_let_go", {})
    scope.publish(f"session:{session_id}", {"what": "review"})
