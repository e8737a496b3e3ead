"""Sessions that outgrow their hold (decision 0036): the saved card that pays is asked for another one, the next leg,
before the cost comes to what is held and before a hold runs out. A leg that runs out is taken for what the session has
cost so far, and the session goes on on the next. Where the card says no, or as many legs as the brand allows are there,
the session ends at its cap as all others do (`paid.watch_cap`).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.billing import payments
from app.billing.models import Payment
from app.charging import off_session, plausibility, service, settlement
from app.charging.models import ChargingSession
from tenants.scope import Scope

# A hold is left to run this long before its end; the next one is there well before.
EXPIRY_MARGIN, SILENCE_MARGIN, ASKED_BEFORE_END = timedelta(hours=6), timedelta(hours=2), timedelta(hours=1)
# Beside looks five minutes apart there is time for a bank that is slow, and for a worker that dies.
ASKED_BEFORE_USED = timedelta(minutes=15)
# How long a session may go on beyond its cap while the bank has been asked: what it costs is owed all the same.
BANK_TAKES = timedelta(minutes=3)


async def cap_minor(scope: Scope, session: ChargingSession, legs: Sequence[Payment]) -> int:
    """What can be taken for it; before any hold stands, what the first was asked for."""
    return await payments.most_minor(scope, legs) or session.cost_cap_minor or 0


async def waits_for_bank(scope: Scope, legs: Sequence[Payment]) -> bool:
    """It was asked a moment ago: nobody is stopped for the seconds it takes."""
    asked_at = await off_session.asked_at(scope, legs)
    return asked_at is not None and asked_at > scope.now - BANK_TAKES


async def is_nearly_used(scope: Scope, legs: Sequence[Payment], cap: int, cost_minor: int) -> bool:
    """Half of the newest hold is used up, and there may be another: no card is asked for two holds by a session that
    needs one."""
    newest = legs[-1].hold_minor if legs[-1].state == "authorized" else 0
    return cost_minor >= cap - newest // 2 and await off_session.may_grow(scope, legs)


async def keep_until_end(scope: Scope, session: ChargingSession, legs: Sequence[Payment]) -> bool:
    """A hold runs out: the next leg is asked for, and once it stands what runs out is taken. False: none will stand,
    and the session must end before."""
    ends = [
        (leg.capture_before, leg)
        for leg in legs
        if leg.state == "authorized" and leg.capture_before is not None
    ]
    for ends_at, leg in ends:
        if scope.now <= ends_at - EXPIRY_MARGIN - ASKED_BEFORE_END:
            continue
        if any(other_at > ends_at and scope.now <= other_at - EXPIRY_MARGIN for other_at, _leg in ends):
            if scope.now > ends_at - EXPIRY_MARGIN:
                await _take_ahead(scope, session, leg)
            continue
        is_late = scope.now > ends_at - SILENCE_MARGIN
        is_new = (
            not is_late
            and await off_session.may_grow(scope, legs)
            and await off_session.grow(scope, session, needs_time=True)
        )
        if scope.now > ends_at - EXPIRY_MARGIN and (
            is_late or not (is_new or await waits_for_bank(scope, legs))
        ):
            return False
    return True


async def _take_ahead(scope: Scope, session: ChargingSession, leg: Payment) -> None:
    """What the session has cost by its last reading that can be believed: the rest comes with the next leg."""
    await service.lock_settling(scope, session.id)
    live = session.live
    read_at: datetime | None = live.reading_at if live else None
    energy_wh = min(
        max((live.energy_wh or 0) if live else 0, 0), await plausibility.judge_measured(scope, session)
    )
    at = max(read_at or session.started_at, session.started_at)
    price = await settlement.price_at(scope, session, at, energy_wh)
    cost_minor = price.total_cost.incl_minor if price else 0
    await payments.capture_ahead(scope, leg.id, cost_minor)
    await service.note(scope, session, f"leg_taken:{leg.leg}", "leg_taken", {"leg": leg.leg})
