"""Can this energy be believed? (ocpp.md 2, rows 43 to 46.) What cannot is null and waits for staff, never negative."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from sqlalchemy import select, text

from app.charging.models import ChargingSession, PriceSnapshot
from app.charging.reports import ENERGY
from app.stations.models import Connector
from tenants.scope import Scope

Review = Literal["orphan", "implausible", "no_tariff"]
DEFAULT_MAX_POWER_W = 400_000  # no connector on the market gives more; a known one is held to its own plate
TOLERANCE = 1.1
SLACK_WH = 200  # meters count in steps, clocks differ by seconds
# What a minute may give whatever its clock says, and no more.
MIN_DURATION, MIN_WH = timedelta(minutes=1), 1_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a session's energy. `register_wh` are the readings inside it, in time order."""

    meter_start_wh: int | None
    meter_stop_wh: int | None
    register_wh: tuple[int, ...]
    duration: timedelta
    max_power_w: int


def _most(max_power_w: int, duration: timedelta) -> float:
    """Energy in Wh that this power can have given in that time."""
    given, in_a_minute = (max_power_w * span / timedelta(hours=1) for span in (duration, MIN_DURATION))
    return max(given, min(in_a_minute, MIN_WH)) * TOLERANCE + SLACK_WH


def weigh(evidence: Evidence) -> tuple[int | None, Review | None]:
    """Energy in Wh and the review it needs (pure). A missing stop is the last reading; a missing start is an orphan."""
    start, readings = evidence.meter_start_wh, evidence.register_wh
    if start is None:
        return None, "orphan"
    stop = evidence.meter_stop_wh
    if stop is None:
        stop = readings[-1] if readings else None
    if stop is None:
        return None, "implausible"
    chain = [0, start, *readings, stop]  # a register of imported energy is never below nothing
    if any(later < earlier for earlier, later in pairwise(chain)):
        return None, "implausible"
    energy = stop - start
    if energy > _most(evidence.max_power_w, evidence.duration):
        return None, "implausible"
    return energy, None


def measured(evidence: Evidence) -> int:
    """Energy in Wh up to the first register that cannot be believed (pure); 0 where nothing can be. Without a start it
    counts from the first reading: at least that much was given."""
    start = evidence.meter_start_wh
    if start is None:
        start = next(iter(evidence.register_wh), None)
    if start is None or start < 0:
        return 0
    last = start
    most = _most(evidence.max_power_w, evidence.duration)
    stop = () if evidence.meter_stop_wh is None else (evidence.meter_stop_wh,)
    for register in (*evidence.register_wh, *stop):
        if register < last or register - start > most:
            break
        last = register
    return last - start


def risen(readings: Sequence[tuple[datetime, int]], max_power_w: int) -> int:
    """Energy in Wh by every rise of a register that was set back on its way (pure). No rise counts for more than that
    power gives since the register last moved: a single wrong reading, and the way back from it, count for next to
    nothing."""
    total, last = 0, next(iter(readings), None)
    for at, register in readings:
        if last is not None and register != last[1]:
            most = round(_most(max_power_w, at - last[0]))
            total += min(max(register - last[1], 0), most)
            last = (at, register)
    return total


async def judge(scope: Scope, session: ChargingSession) -> tuple[int | None, Review | None]:
    ended_at = session.ended_at or scope.now
    registers = await _registers(scope, session, ended_at)
    if session.meter_start_wh is None and await _gave_nothing(scope, session):
        return 0, None
    energy, review = weigh(await _evidence(scope, session, ended_at, registers))
    if review is None and energy and session.id_token_status not in (None, "Accepted"):
        review = "orphan"  # energy went to somebody we refused: nobody to bill until staff say who
    if review is None and await _has_no_tariff(scope, session):
        review = "no_tariff"
    return energy, review


async def is_too_much(scope: Scope, session: ChargingSession, energy_wh: int) -> bool:
    """More than its connector gives in that time, whoever signed it."""
    duration = (session.ended_at or scope.now) - session.started_at
    return energy_wh > _most(await _max_power(scope, session), duration)


async def judge_measured(scope: Scope, session: ChargingSession) -> int:
    """What can be believed of a session whose whole cannot; see `measured`. Where another card had the energy before
    (`other_card`), what flowed since the driver came."""
    ended_at = session.ended_at or scope.now
    registers = await _registers(scope, session, ended_at)
    evidence = await _evidence(scope, session, ended_at, registers)
    if session.review == "other_card":
        evidence = replace(evidence, meter_start_wh=None)
    return measured(evidence)


async def had_flowed(scope: Scope, session: ChargingSession, at: datetime) -> bool:
    """Whether the register had risen by then, as far as it is told."""
    query = text("""
        select value from livery.session_register(:session) where sampled_at <= :at order by sampled_at, value""")
    told = (await scope.db.execute(query, {"session": session.id, "at": at})).scalars()
    begin = [] if session.meter_start_wh is None else [session.meter_start_wh]
    return any(later > earlier for earlier, later in pairwise([*begin, *map(round, told)]))


async def judge_risen(scope: Scope, session: ChargingSession, max_power_w: int) -> int:
    """What has flowed by now, though the meter may have been set back since the start; see `risen`."""
    readings = await _readings(scope, session, scope.now)
    if session.meter_start_wh is not None:
        readings = [(session.started_at, session.meter_start_wh), *readings]
    return risen(readings, max_power_w)


async def _evidence(
    scope: Scope, session: ChargingSession, ended_at: datetime, registers: tuple[int, ...]
) -> Evidence:
    return Evidence(
        meter_start_wh=session.meter_start_wh,
        meter_stop_wh=session.meter_stop_wh,
        register_wh=registers,
        duration=ended_at - session.started_at,
        max_power_w=await _max_power(scope, session),
    )


async def _gave_nothing(scope: Scope, session: ChargingSession) -> bool:
    """A transaction whose start we have, without a single reading of its meter, that was never charging: the driver
    identified and no car came, or a car stood in the bay (2.x starts both before there is a meter to read)."""
    if session.review == "orphan" or session.meter_stop_wh is not None or session.start_key is not None:
        return False  # 1.6 tells its meter at the start, or ought to
    query = text("""
        select exists (select from livery.session_event where session_id = :session and key = :started)
           and not exists (select from livery.session_event where session_id = :session and kind = 'state'
                            and data->>'state' in ('Charging', 'SuspendedEV', 'SuspendedEVSE'))
           and not exists (select from livery.meter_value where session_id = :session and measurand = :energy)
           and not exists (select from livery.session_curve where session_id = :session and measurand = :energy)""")
    parameters = {
        "session": session.id, "energy": ENERGY, "started": f"started:{session.ocpp_transaction_id}",
    }  # fmt: skip
    return (await scope.db.execute(query, parameters)).scalar_one()


async def _registers(scope: Scope, session: ChargingSession, until: datetime) -> tuple[int, ...]:
    return tuple(register for _at, register in await _readings(scope, session, until))


async def _readings(scope: Scope, session: ChargingSession, until: datetime) -> list[tuple[datetime, int]]:
    query = text("""
        select sampled_at, value from livery.session_register(:session) where sampled_at between :since and :until
         order by sampled_at, value""")
    parameters = {"session": session.id, "since": session.started_at, "until": until}
    return [(row.sampled_at, round(row.value)) for row in await scope.db.execute(query, parameters)]


async def _max_power(scope: Scope, session: ChargingSession) -> int:
    query = select(Connector).where(Connector.evse_id == session.evse_id)
    known = [
        watts
        for connector in (await scope.db.execute(query)).scalars()
        if (watts := rated_power_w(connector))
    ]
    return max(known, default=DEFAULT_MAX_POWER_W)


def rated_power_w(connector: Connector) -> int | None:
    """What the plate says; from volts and amperes where no power is given (OCPI: voltage is line to neutral)."""
    if connector.max_power_w:
        return connector.max_power_w
    if not connector.max_voltage_v or not connector.max_amperage_a:
        return None
    phases = {"AC_3_PHASE": 3, "AC_2_PHASE": 2, "AC_2_PHASE_SPLIT": 2}.get(connector.power_type or "", 1)
    return connector.max_voltage_v * connector.max_amperage_a * phases


async def _has_no_tariff(scope: Scope, session: ChargingSession) -> bool:
    query = select(PriceSnapshot).where(PriceSnapshot.session_id == session.id)
    frozen = (await scope.db.execute(query)).scalar_one_or_none()
    return frozen is not None and frozen.tariff is None and not frozen.is_free_vend
