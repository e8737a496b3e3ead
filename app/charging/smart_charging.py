"""Charging profiles at stations: set, cleared, reported, read back; and what stations tell about limits and cars.

What we believe a station has is kept in `charging_profile`; its answers and reports correct it. A profile is kept in
2.0.1's shape whatever the station speaks, and handled as its model wants it (`profile_quirks.py`).
Errors: `not_in_this_version`, `no_such_profile`, and Invalid for what no station would take.
"""

import secrets as stdlib_secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.charging import profile_quirks, profiles
from app.charging.models import (
    ChargingLimit,
    ChargingNeed,
    ChargingProfile,
    ChargingSession,
    CompositeSchedule,
    ProfileReport,
)
from app.charging.profiles import (
    EXTERNAL,
    STATION_MAX,
    TX,
    TX_DEFAULT,
    Electrics,
    Period,
    Profile,
    Schedule,
    Unit,
)
from app.device_model.models import StationVariable
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.stations import commands
from app.stations import service as stations
from app.stations.models import EVSE, ChargingStation, Connector, StationCommand
from tenants.scope import Scope

PROFILE, REPORT, COMPOSITE = "charging_profile", "profile_report", "composite_schedule"
OPEN = ("installed", "clearing", "unknown")
SETTABLE = (STATION_MAX, TX_DEFAULT, TX)
LIMIT_SOURCES = ("EMS", "Other", "SO", "CSO")
MAX_PERIODS, MAX_STACK, MAX_EVSE = 1024, 100, 64
LONGEST = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What staff or another slice want of a station. `number` names a profile that is replaced; None: a new one.

    `transaction_id` is the one on the wire; a session of ours is named by `session_id`. Absolute and Recurring without
    `start_at` begin now.
    """

    purpose: str
    periods: tuple[Period, ...]
    unit: Unit = "W"
    evse_no: int = 0
    kind: str = "Absolute"
    recurrency: str | None = None
    stack_level: int = 0
    start_at: datetime | None = None
    duration_s: int | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    session_id: UUID | None = None
    transaction_id: str | None = None
    number: int | None = None


def check(wish: Wish) -> None:
    """OCPP 2.0.1 K01.FR.16, .38 and what the schema bounds; Invalid names the field."""
    if wish.purpose not in SETTABLE:
        raise Invalid.field("purpose", "purpose", f"purpose is one of {', '.join(SETTABLE)}.")
    if wish.kind not in profiles.KINDS:
        raise Invalid.field("kind", "kind", f"kind is one of {', '.join(profiles.KINDS)}.")
    if wish.purpose == STATION_MAX and (wish.evse_no != 0 or wish.kind == "Relative"):
        raise Invalid.field(
            "evse_no", "purpose", "The station's maximum is for all of it, and never relative."
        )
    if wish.purpose == TX and wish.evse_no == 0:
        raise Invalid.field("evse_no", "required", "A profile of a transaction is for one EVSE.")
    if (wish.kind == "Recurring") != (wish.recurrency is not None):
        raise Invalid.field(
            "recurrency", "recurrency", "A recurring profile, and no other, says Daily or Weekly."
        )
    if wish.recurrency is not None and wish.recurrency not in profiles.ROUNDS:
        raise Invalid.field("recurrency", "recurrency", "recurrency is Daily or Weekly.")
    if wish.unit not in ("A", "W"):
        raise Invalid.field("unit", "unit", "unit is A or W.")
    if not 0 <= wish.stack_level <= MAX_STACK:
        raise Invalid.field("stack_level", "out_of_range", f"stack_level is from 0 to {MAX_STACK}.")
    if not 1 <= len(wish.periods) <= MAX_PERIODS or wish.periods[0].start_s != 0:
        raise Invalid.field(
            "periods", "periods", "A schedule has at least one period, and the first begins at 0."
        )
    starts = [period.start_s for period in wish.periods]
    if starts != sorted(set(starts)):
        raise Invalid.field("periods", "order", "Periods begin one after another.")
    if any(not 0 <= period.limit <= 10**7 for period in wish.periods):
        raise Invalid.field("periods", "out_of_range", "A limit is from 0 to 10,000,000.")
    if not 0 <= wish.evse_no <= MAX_EVSE:
        raise Invalid.field("evse_no", "out_of_range", f"evse_no is from 0 to {MAX_EVSE}.")
    for name in ("start_at", "valid_from", "valid_to"):
        at: datetime | None = getattr(wish, name)
        if at is not None and not 2000 <= at.year < 2200:
            raise Invalid.field(name, "out_of_range", f"{name} is no time of ours.")
    if wish.duration_s is not None and not 1 <= wish.duration_s <= 366 * 86400:
        raise Invalid.field("duration_s", "out_of_range", "A schedule lasts from a second to a year.")


# --- set ---------------------------------------------------------------------------------------------------------


async def set_profile(scope: Scope, station_id: UUID, wish: Wish) -> ChargingProfile:
    """SetChargingProfile. Believed once the station accepts; what it replaces is then `replaced`."""
    station = await stations.get_station(scope, station_id)
    row = await _prepare(scope, station, wish)
    await _send(scope, station, row)
    await audit.record(
        scope, "charging_profile.sent", "charging_station", station_id,
        {"purpose": wish.purpose, "evse_no": wish.evse_no, "number": row.profile_no},
    )  # fmt: skip
    return row


async def _prepare(
    scope: Scope, station: ChargingStation, wish: Wish, *, stands_for: str = ""
) -> ChargingProfile:
    check(wish)
    session = None
    if wish.session_id is not None:
        session = await scope.db.get(ChargingSession, (scope.tenant_id, wish.session_id))
        if session is None or session.station_id != station.id:
            raise NotFound("charging_session")
    number = wish.number if wish.number is not None else await _next_number(scope, station.id)
    transaction = wish.transaction_id or (session.ocpp_transaction_id if session else None)
    profile = Profile(
        number=number, purpose=wish.purpose, stack_level=wish.stack_level, kind=wish.kind, evse_no=wish.evse_no,
        recurrency=wish.recurrency, valid_from=wish.valid_from, valid_to=wish.valid_to,
        schedule=await _schedule(scope, station, wish),
    )  # fmt: skip
    row = ChargingProfile(
        id=uuid7(), station_id=station.id, evse_no=wish.evse_no, profile_no=number, purpose=wish.purpose,
        stack_level=wish.stack_level, source="CSO", profile=profiles.write(profile, transaction),
        session_id=wish.session_id, state="asked", said="", stands_for=stands_for, created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    return row


async def _next_number(scope: Scope, station_id: UUID) -> int:
    query = select(func.max(ChargingProfile.profile_no)).where(
        ChargingProfile.station_id == station_id, ChargingProfile.source == "CSO"
    )
    return ((await scope.db.execute(query)).scalar_one() or 0) % (2**31 - 1) + 1


async def _schedule(scope: Scope, station: ChargingStation, wish: Wish) -> Schedule:
    """In a unit that the station takes; with its start, which some want for Absolute whatever OCPP allows."""
    wanted = await unit_of(scope, station, wish.unit)
    electrics = await _electrics(scope, station.id, wish.evse_no)
    convert = profiles.convert
    periods = tuple(
        Period(
            one.start_s,
            convert(one.limit, wish.unit, wanted, one.number_phases, electrics),
            one.number_phases,
        )
        for one in wish.periods
    )
    start = None if wish.kind == "Relative" else (wish.start_at or scope.now).replace(microsecond=0)
    return Schedule(wanted, periods, start_at=start, duration_s=wish.duration_s)


_UNITS: dict[str, Unit] = {"A": "A", "Current": "A", "W": "W", "Power": "W"}


async def unit_of(scope: Scope, station: ChargingStation, wanted: Unit) -> Unit:
    """What the station said it takes, else what its model is known for, else what was asked for."""
    query = select(StationVariable.value).where(
        StationVariable.station_id == station.id,
        StationVariable.name.in_(["ChargingScheduleAllowedChargingRateUnit", "RateUnit"]),
    )
    told = ",".join(value or "" for value in (await scope.db.execute(query)).scalars())
    takes: set[Unit] = {_UNITS[word.strip()] for word in told.split(",") if word.strip() in _UNITS}
    if takes:
        return wanted if wanted in takes else takes.pop()
    return handling_of(station).unit or wanted


def handling_of(station: ChargingStation) -> profile_quirks.Handling:
    return profile_quirks.handling(station.vendor, station.model, _version(station))


def _version(station: ChargingStation) -> str:
    return station.ocpp_version or "ocpp1.6"


async def _electrics(scope: Scope, station_id: UUID, evse_no: int) -> Electrics:
    """By the EVSE's plate; of the whole station by its first."""
    query = (
        select(Connector).join(EVSE, EVSE.id == Connector.evse_id)
        .where(EVSE.station_id == station_id, EVSE.evse_no == max(evse_no, 1)).order_by(Connector.connector_no)
    )  # fmt: skip
    found = (await scope.db.execute(query)).scalars().first()
    if found is None:
        return Electrics()
    phases = {"AC_1_PHASE": 1, "AC_2_PHASE": 2, "AC_2_PHASE_SPLIT": 2}.get(found.power_type or "", 3)
    return Electrics(found.max_voltage_v or 230, phases)


async def _send(scope: Scope, station: ChargingStation, row: ChargingProfile) -> StationCommand:
    if _version(station) == "ocpp1.6":
        payload: dict[str, Any] = {
            "connectorId": row.evse_no, "csChargingProfiles": profiles.to_16(row.profile)
        }  # fmt: skip
    else:
        payload = {"evseId": row.evse_no, "chargingProfile": row.profile}
    command = await commands.send_command(
        scope, station.id, "SetChargingProfile", payload, source_type=PROFILE, source_id=row.id
    )
    row.state, row.command_id = "asked", command.id
    return command


# --- with a remote start -----------------------------------------------------------------------------------------


async def prepare_for_start(scope: Scope, session: ChargingSession, wish: Wish) -> ChargingProfile:
    """A TxProfile that travels with a remote start, or follows it where the model wants that (ocpp.md 3, no. 36)."""
    station = await stations.get_station(scope, session.station_id)
    bound = replace(
        wish, purpose=TX, evse_no=session.evse_no or 1, session_id=session.id, transaction_id=None
    )
    row = await _prepare(scope, station, bound)
    row.state = "waiting" if handling_of(station).start_bare else "asked"
    await scope.db.flush()
    return row


async def part_of_start(scope: Scope, session: ChargingSession, ocpp_version: str) -> dict[str, Any]:
    """What a remote start's payload says about limits."""
    query = select(ChargingProfile).where(
        ChargingProfile.session_id == session.id, ChargingProfile.state == "asked"
    )
    row = (await scope.db.execute(query)).scalars().first()
    if row is None:
        return {}
    return {"chargingProfile": profiles.to_16(row.profile) if ocpp_version == "ocpp1.6" else row.profile}


async def session_started(scope: Scope, session_id: UUID) -> None:
    """The transaction has its id: a profile that came with the start is believed, one that waited is sent."""
    session = await scope.db.get(ChargingSession, (scope.tenant_id, session_id))
    query = select(ChargingProfile).where(
        ChargingProfile.session_id == session_id, ChargingProfile.state.in_(["asked", "waiting"]),
        ChargingProfile.command_id.is_(None),
    )  # fmt: skip
    for row in (await scope.db.execute(query.with_for_update())).scalars():
        assert session is not None
        row.profile = row.profile | {"transactionId": session.ocpp_transaction_id}
        if row.state == "waiting":
            await _send(scope, await stations.get_station(scope, session.station_id), row)
        else:
            await _believe(scope, row)


async def session_over(scope: Scope, session_id: UUID) -> None:
    """A TxProfile ends with its transaction (2.0.1 K01.FR.11), and a start that failed leaves none."""
    statement = (
        update(ChargingProfile)
        .where(
            ChargingProfile.session_id == session_id,
            ChargingProfile.state.in_(["waiting", "asked", "installed", "unknown", "clearing"]),
        )
        .values(state="ended", ended_at=scope.now)
    )
    await scope.db.execute(statement)


# --- clear, report, read back ------------------------------------------------------------------------------------


async def clear_profile(scope: Scope, profile_id: UUID) -> StationCommand:
    """ClearChargingProfile of one by its id on the wire."""
    row = await get_profile(scope, profile_id)
    station = await stations.get_station(scope, row.station_id)
    name = "id" if _version(station) == "ocpp1.6" else "chargingProfileId"
    command = await commands.send_command(
        scope,
        row.station_id,
        "ClearChargingProfile",
        {name: row.profile_no},
        source_type=PROFILE,
        source_id=row.id,
    )
    if row.state in OPEN:
        row.state = "clearing"
    await audit.record(
        scope, "charging_profile.clear_asked", "charging_station", row.station_id, {"number": row.profile_no}
    )
    return command


async def clear_profiles(
    scope: Scope, station_id: UUID, *, evse_no: int | None = None, purpose: str | None = None,
    stack_level: int | None = None,
) -> StationCommand:  # fmt: skip
    """ClearChargingProfile of all that fit; with nothing said, of all. What the station answers is what we believe."""
    station = await stations.get_station(scope, station_id)
    if purpose is not None and purpose not in SETTABLE:
        raise Invalid.field("purpose", "purpose", f"purpose is one of {', '.join(SETTABLE)}.")
    is_16 = _version(station) == "ocpp1.6"
    told_purpose = profiles.DOWN.get(purpose, purpose) if is_16 and purpose else purpose
    criteria = {
        ("connectorId" if is_16 else "evseId"): evse_no, "chargingProfilePurpose": told_purpose,
        "stackLevel": stack_level,
    }  # fmt: skip
    said = {name: value for name, value in criteria.items() if value is not None}
    payload = said if is_16 or not said else {"chargingProfileCriteria": said}
    command = await commands.send_command(
        scope, station_id, "ClearChargingProfile", payload, source_type=PROFILE, source_id=station_id
    )
    await audit.record(scope, "charging_profile.clear_asked", "charging_station", station_id, said)
    return command


async def ask_profiles(
    scope: Scope, station_id: UUID, *, evse_no: int | None = None, purpose: str | None = None,
    stack_level: int | None = None, numbers: Sequence[int] = (), sources: Sequence[str] = (),
) -> ProfileReport:  # fmt: skip
    """GetChargingProfiles (2.x): the station reports what it has, and what we believe follows it."""
    station = await stations.get_station(scope, station_id)
    if _version(station) == "ocpp1.6":
        raise Refused(
            "not_in_this_version", "OCPP 1.6 cannot report its profiles; read the schedule back instead."
        )
    if purpose is not None and purpose not in profiles.PURPOSES:
        raise Invalid.field("purpose", "purpose", f"purpose is one of {', '.join(profiles.PURPOSES)}.")
    if not set(sources) <= set(LIMIT_SOURCES):
        raise Invalid.field("sources", "sources", f"sources are of {', '.join(LIMIT_SOURCES)}.")
    criterion: dict[str, Any] = {}
    if numbers:  # K09.FR.03: ids stand alone
        criterion["chargingProfileId"] = list(numbers)
    else:
        criterion |= {"chargingProfilePurpose": purpose} if purpose else {}
        criterion |= {"stackLevel": stack_level} if stack_level is not None else {}
        criterion |= {"chargingLimitSource": list(sources)} if sources else {}
    wanted = ({"evseId": evse_no} if evse_no is not None else {}) | {"chargingProfile": criterion}
    row = ProfileReport(
        id=uuid7(), station_id=station_id, request_no=stdlib_secrets.randbelow(2**31 - 1) + 1, wanted=wanted,
        state="asked", said="", part_count=0, profile_count=0, created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    await commands.send_command(
        scope, station_id, "GetChargingProfiles", {"requestId": row.request_no} | wanted, source_type=REPORT,
        source_id=row.id,
    )  # fmt: skip
    return row


async def ask_composite(
    scope: Scope, station_id: UUID, *, evse_no: int, duration_s: int = 86400, unit: Unit | None = None
) -> CompositeSchedule:
    """GetCompositeSchedule: what it says it will give, kept beside what we reckon."""
    station = await stations.get_station(scope, station_id)
    if not 60 <= duration_s <= LONGEST.total_seconds():
        raise Invalid.field("duration_s", "out_of_range", "A schedule is read for a minute up to a week.")
    if not 0 <= evse_no <= MAX_EVSE:
        raise Invalid.field("evse_no", "out_of_range", f"evse_no is from 0 to {MAX_EVSE}.")
    if unit not in (None, "A", "W"):
        raise Invalid.field("unit", "unit", "unit is A or W.")
    wanted = await unit_of(scope, station, unit or "W")
    row = CompositeSchedule(
        id=uuid7(), station_id=station_id, evse_no=evse_no, duration_s=duration_s, unit=wanted, state="asked", said="",
        created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    name = "connectorId" if _version(station) == "ocpp1.6" else "evseId"
    payload = {name: evse_no, "duration": duration_s, "chargingRateUnit": wanted}
    await commands.send_command(
        scope, station_id, "GetCompositeSchedule", payload, source_type=COMPOSITE, source_id=row.id
    )
    return row


async def get_profile(scope: Scope, profile_id: UUID) -> ChargingProfile:
    row = await scope.db.get(ChargingProfile, (scope.tenant_id, profile_id))
    if row is None:
        raise NotFound(PROFILE)
    return row


async def believed(scope: Scope, station_id: UUID) -> list[ChargingProfile]:
    """What we think the station has, by EVSE, purpose and level."""
    query = select(ChargingProfile).where(
        ChargingProfile.station_id == station_id, ChargingProfile.state.in_(OPEN)
    )
    rows = list((await scope.db.execute(query)).scalars())
    return sorted(rows, key=lambda row: (row.evse_no, row.purpose, -row.stack_level, row.id))


async def reckon(
    scope: Scope, station_id: UUID, evse_no: int, at: datetime, duration: timedelta, unit: Unit,
    *, without: Sequence[str] = (),
) -> list[profiles.Step]:  # fmt: skip
    """Our own composite schedule, from what we believe."""
    rows = [row for row in await believed(scope, station_id) if row.purpose not in without]
    read = [profiles.read(row.profile, row.evse_no) for row in rows]
    session = await _running(scope, station_id, evse_no)
    return profiles.composite(
        [one for one in read if one is not None], at, duration, evse_no=evse_no, unit=unit,
        began_at=session.started_at if session else None, electrics=await _electrics(scope, station_id, evse_no),
    )  # fmt: skip


async def _running(scope: Scope, station_id: UUID, evse_no: int) -> ChargingSession | None:
    query = select(ChargingSession).where(
        ChargingSession.station_id == station_id, ChargingSession.evse_no == evse_no,
        ChargingSession.status == "ACTIVE",
    )  # fmt: skip
    return (await scope.db.execute(query.order_by(ChargingSession.started_at.desc()))).scalars().first()


# --- answers -----------------------------------------------------------------------------------------------------


async def command_ended(scope: Scope, event: events.Event) -> None:
    """The answers to SetChargingProfile and ClearChargingProfile."""
    command = await commands.get_command(scope, event.source_id)
    source_id = UUID(event.data[PROFILE])
    if command.action == "ClearChargingProfile":
        await _cleared(scope, command)
    else:
        query = select(ChargingProfile).where(ChargingProfile.id == source_id).with_for_update()
        row = (await scope.db.execute(query)).scalar_one_or_none()
        if row is not None and row.state == "asked":
            await _answered(scope, row, command)
    scope.publish(f"station:{command.station_id}", {"what": "profiles"})


async def _answered(scope: Scope, row: ChargingProfile, command: StationCommand) -> None:
    row.said = str((command.answer or {}).get("status", "")) or command.error or ""
    if command.status == "accepted":
        await _believe(scope, row)
    elif command.status == "unknown":
        row.state = "unknown"
    else:
        row.state, row.ended_at = "refused", scope.now
        station = await stations.get_station(scope, row.station_id)
        if (
            command.status == "rejected"
            and row.purpose == STATION_MAX
            and handling_of(station).max_as_default
        ):
            await _as_default(scope, station, row)


async def _as_default(scope: Scope, station: ChargingStation, refused: ChargingProfile) -> None:
    profile = refused.profile | {
        "chargingProfilePurpose": TX_DEFAULT,
        "id": await _next_number(scope, station.id),
    }
    row = ChargingProfile(
        id=uuid7(), station_id=station.id, evse_no=0, profile_no=profile["id"], purpose=TX_DEFAULT, source="CSO",
        stack_level=refused.stack_level, profile=profile, state="asked", said="", stands_for=STATION_MAX,
        created_at=scope.now,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    await _send(scope, station, row)


async def _believe(scope: Scope, row: ChargingProfile) -> None:
    """Installed; what has its id, or its purpose and level at the same EVSE, it replaced (2.0.1 K01.FR.05)."""
    row.state, row.confirmed_at = "installed", scope.now
    await scope.db.flush()
    same_place = (
        (ChargingProfile.evse_no == row.evse_no) & (ChargingProfile.purpose == row.purpose)
        & (ChargingProfile.stack_level == row.stack_level)
    )  # fmt: skip
    statement = (
        update(ChargingProfile)
        .where(
            ChargingProfile.station_id == row.station_id, ChargingProfile.id != row.id, ChargingProfile.source == "CSO",
            ChargingProfile.state.in_(OPEN), same_place | (ChargingProfile.profile_no == row.profile_no),
        )
        .values(state="replaced", ended_at=scope.now)
    )  # fmt: skip
    await scope.db.execute(statement)


async def _cleared(scope: Scope, command: StationCommand) -> None:
    """Accepted, or Unknown (it has none that fits): either way none is left. Else they stand."""
    said = command.payload | command.payload.get("chargingProfileCriteria", {})
    criteria = {
        "profile_no": said.get("id", said.get("chargingProfileId")),
        "evse_no": said.get("connectorId", said.get("evseId")), "stack_level": said.get("stackLevel"),
        "purpose": profiles.UP.get(said.get("chargingProfilePurpose", ""), said.get("chargingProfilePurpose")),
    }  # fmt: skip
    rows = [
        row for row in await believed(scope, command.station_id)
        if row.source == "CSO" and all(value is None or getattr(row, name) == value for name, value in criteria.items())
    ]  # fmt: skip
    word = str((command.answer or {}).get("status", "")) or command.error or ""
    is_gone = command.status == "accepted" or word == "Unknown"
    for row in rows:
        row.said = word
        if is_gone:
            row.state, row.ended_at = "cleared", scope.now
        elif row.state == "clearing":
            row.state = "installed"


async def report_ended(scope: Scope, event: events.Event) -> None:
    """The answer to GetChargingProfiles; the reports may have come before we hear of it."""
    command = await commands.get_command(scope, event.source_id)
    query = select(ProfileReport).where(ProfileReport.id == UUID(event.data[REPORT])).with_for_update()
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None or row.state != "asked":
        return
    row.said = str((command.answer or {}).get("status", "")) or command.error or ""
    if command.status == "accepted":
        row.state = "reporting"
    elif row.said == "NoProfiles":
        row.state, row.ended_at = "none", scope.now
        await _forget_unreported(scope, row)
    else:
        row.state, row.ended_at = ("unknown" if command.status == "unknown" else "refused"), scope.now


async def composite_ended(scope: Scope, event: events.Event) -> None:
    """The answer to GetCompositeSchedule; where it is not Accepted its body says nothing (ocpp.md 3, no. 57)."""
    command = await commands.get_command(scope, event.source_id)
    row = await scope.db.get(CompositeSchedule, (scope.tenant_id, UUID(event.data[COMPOSITE])))
    if row is None or row.state != "asked":
        return
    answer = command.answer or {}
    row.said = str(answer.get("status", "")) or command.error or ""
    if command.status != "accepted":
        row.state = "unknown" if command.status == "unknown" else "refused"
        return
    shape = answer.get("schedule", answer.get("chargingSchedule"))
    told = profiles.read_schedule(shape) if isinstance(shape, dict) else None
    started = profiles.read_time(answer.get("scheduleStart")) or (told.start_at if told else None)
    starts_at = started or command.ended_at or scope.now
    row.state, row.starts_at = "told", starts_at
    if told is not None:
        row.unit = told.unit
        row.told = profiles.write_schedule(replace(told, start_at=starts_at))
    unit: Unit = "A" if row.unit == "A" else "W"
    steps = await reckon(
        scope, row.station_id, row.evse_no, starts_at, timedelta(seconds=row.duration_s), unit
    )
    row.ours = {
        "unit": unit, "steps": [[s.start_s, None if s.limit is None else profiles.wire_number(s.limit)] for s in steps]
    }  # fmt: skip


# --- what stations report by themselves --------------------------------------------------------------------------


async def profiles_reported(
    scope: Scope, station_id: UUID, *, request_no: int, evse_no: int, source: str, found: Sequence[dict[str, Any]],
    is_last: bool,
) -> None:  # fmt: skip
    """ReportChargingProfiles: one part. With the last, what fits the question and was not named is gone."""
    query = select(ProfileReport).where(
        ProfileReport.station_id == station_id, ProfileReport.request_no == request_no
    )
    report = (await scope.db.execute(query.with_for_update())).scalar_one_or_none()
    known = {(row.profile_no, row.evse_no, row.source): row for row in await believed(scope, station_id)}
    for shape in found:
        profile = profiles.read(shape, evse_no)
        if profile is None:
            continue
        row = known.get((profile.number, evse_no, source))
        if row is None:
            row = ChargingProfile(
                id=uuid7(), station_id=station_id, evse_no=evse_no, profile_no=profile.number, source=source, said="",
                stands_for="", created_at=scope.now, session_id=await _session_of(scope, station_id, shape),
            )  # fmt: skip
            scope.db.add(row)
        row.purpose, row.stack_level, row.profile = profile.purpose, profile.stack_level, shape
        row.state, row.confirmed_at, row.report_no = "installed", scope.now, request_no
    await scope.db.flush()
    if report is not None:
        report.part_count += 1
        report.profile_count += len(found)
        report.state = "complete" if is_last else "reporting"
        if is_last:
            report.ended_at = scope.now
            await _forget_unreported(scope, report)
    scope.publish(f"station:{station_id}", {"what": "profiles"})


async def _session_of(scope: Scope, station_id: UUID, shape: dict[str, Any]) -> UUID | None:
    if not shape.get("transactionId"):
        return None
    query = select(ChargingSession.id).where(
        ChargingSession.station_id == station_id,
        ChargingSession.ocpp_transaction_id == str(shape["transactionId"]), ChargingSession.status == "ACTIVE",
    )  # fmt: skip
    return (await scope.db.execute(query)).scalar_one_or_none()


async def _forget_unreported(scope: Scope, report: ProfileReport) -> None:
    criterion = report.wanted.get("chargingProfile", {})
    numbers, sources = criterion.get("chargingProfileId"), criterion.get("chargingLimitSource")
    for row in await believed(scope, report.station_id):
        fits = (
            report.wanted.get("evseId") in (None, row.evse_no)
            and criterion.get("chargingProfilePurpose") in (None, row.purpose)
            and criterion.get("stackLevel") in (None, row.stack_level)
            and (numbers is None or row.profile_no in numbers) and (sources is None or row.source in sources)
        )  # fmt: skip
        if fits and row.report_no != report.request_no and row.created_at < report.created_at:
            row.state, row.ended_at, row.said = "cleared", scope.now, "not reported"


async def limit_told(
    scope: Scope, station_id: UUID, *, evse_no: int, source: str, is_grid_critical: bool | None,
    schedules: Sequence[dict[str, Any]],
) -> None:  # fmt: skip
    """NotifyChargingLimit (K12): a limit from elsewhere; it takes the place of the same source's last one."""
    await limit_cleared(scope, station_id, evse_no=evse_no, source=source)
    scope.db.add(ChargingLimit(
        id=uuid7(), station_id=station_id, evse_no=evse_no, source=source, is_grid_critical=is_grid_critical,
        schedules=list(schedules), told_at=scope.now,
    ))  # fmt: skip
    await scope.db.flush()
    await events.emit(scope, "ChargingLimitSet", "charging_station", station_id, {"source": source})
    scope.publish(f"station:{station_id}", {"what": "limits"})


async def limit_cleared(scope: Scope, station_id: UUID, *, evse_no: int, source: str) -> None:
    """ClearedChargingLimit (K13); without an EVSE it is the whole station's and every EVSE's."""
    statement = (
        update(ChargingLimit)
        .where(
            ChargingLimit.station_id == station_id, ChargingLimit.source == source, ChargingLimit.cleared_at.is_(None)
        )
        .values(cleared_at=scope.now)
    )  # fmt: skip
    if evse_no:
        statement = statement.where(ChargingLimit.evse_no == evse_no)
    await scope.db.execute(statement)
    scope.publish(f"station:{station_id}", {"what": "limits"})


async def open_limits(scope: Scope, station_id: UUID) -> list[ChargingLimit]:
    query = select(ChargingLimit).where(
        ChargingLimit.station_id == station_id, ChargingLimit.cleared_at.is_(None)
    )
    return list((await scope.db.execute(query.order_by(ChargingLimit.id))).scalars())


# --- cars that speak ISO 15118 -----------------------------------------------------------------------------------


async def needs_told(scope: Scope, station_id: UUID, evse_no: int, needs: dict[str, Any]) -> bool:
    """NotifyEVChargingNeeds (K15, K17): a TxProfile within what car, EVSE and other profiles allow. False: no session
    runs there, so that there is nothing to shape."""
    session = await _running(scope, station_id, evse_no)
    if session is None:
        return False
    await _keep_need(scope, session, needs=needs, schedule=None, exceeds=False)
    await renegotiate(scope, session.id, needs)
    return True


async def renegotiate(scope: Scope, session_id: UUID, needs: dict[str, Any] | None = None) -> ChargingProfile:
    """A fresh TxProfile for a running session, as its car needs and the limits allow (K16). NotFound."""
    session = await scope.db.get(ChargingSession, (scope.tenant_id, session_id))
    if session is None or session.status != "ACTIVE":
        raise NotFound("charging_session")
    if needs is None:
        query = select(ChargingNeed.needs).where(ChargingNeed.session_id == session_id)
        needs = (await scope.db.execute(query)).scalar_one_or_none() or {}
    evse_no = session.evse_no or 1
    most = await _most(scope, session, needs)
    steps = await reckon(scope, session.station_id, evse_no, scope.now.replace(microsecond=0), timedelta(days=1), "W",
                         without=(TX,))  # fmt: skip
    periods = tuple(
        Period(step.start_s, most if step.limit is None else min(step.limit, most)) for step in steps
    )
    known = select(ChargingProfile.profile_no).where(
        ChargingProfile.session_id == session_id,
        ChargingProfile.state.in_(OPEN),
        ChargingProfile.source == "CSO",
    )
    number = (await scope.db.execute(known.order_by(ChargingProfile.id.desc()))).scalars().first()
    return await set_profile(scope, session.station_id, Wish(
        purpose=TX, evse_no=evse_no, periods=periods, session_id=session_id, number=number, duration_s=86400,
    ))  # fmt: skip


async def _most(scope: Scope, session: ChargingSession, needs: dict[str, Any]) -> Decimal:
    """The car's own maximum in W, and the connector's."""
    electrics = await _electrics(scope, session.station_id, session.evse_no or 1)
    bounds: list[Decimal] = []
    ac, dc = needs.get("acChargingParameters"), needs.get("dcChargingParameters")
    if isinstance(ac, dict):
        amperes, volts = (
            profiles.read_decimal(ac.get("evMaxCurrent")),
            profiles.read_decimal(ac.get("evMaxVoltage")),
        )
        phases = 1 if "single" in str(needs.get("requestedEnergyTransfer", "")) else electrics.phases
        if amperes is not None:
            per_phase = min(volts or electrics.voltage_v, Decimal(electrics.voltage_v))
            bounds.append(amperes * per_phase * phases)
    if isinstance(dc, dict):
        power = profiles.read_decimal(dc.get("evMaxPower"))
        amperes, volts = (
            profiles.read_decimal(dc.get("evMaxCurrent")),
            profiles.read_decimal(dc.get("evMaxVoltage")),
        )
        if power is not None:
            bounds.append(power)
        elif amperes is not None and volts is not None:
            bounds.append(amperes * volts)
    query = (
        select(Connector).join(EVSE, EVSE.id == Connector.evse_id)
        .where(EVSE.station_id == session.station_id, EVSE.evse_no == session.evse_no)
    )  # fmt: skip
    for plate in (await scope.db.execute(query)).scalars():
        if plate.max_power_w:
            bounds.append(Decimal(plate.max_power_w))
        elif plate.max_amperage_a and plate.power_type != "DC":
            bounds.append(Decimal(plate.max_amperage_a * electrics.voltage_v * electrics.phases))
    return max(min(bounds, default=Decimal(22_000)), Decimal(0))


async def schedule_told(
    scope: Scope, station_id: UUID, evse_no: int, at: datetime, shape: dict[str, Any]
) -> bool:
    """NotifyEVChargingSchedule (K15.FR.11-13): True where the car's plan stays within our profiles; a plan beyond them
    is answered with False and a fresh profile."""
    session = await _running(scope, station_id, evse_no)
    plan = profiles.read_schedule(shape)
    if session is None or plan is None:
        return session is not None
    plan = replace(plan, start_at=plan.start_at or at)
    exceeds = await _exceeds(scope, session, plan)
    await _keep_need(scope, session, needs=None, schedule=shape, exceeds=exceeds)
    if exceeds:
        await renegotiate(scope, session.id)
    return not exceeds


async def _exceeds(scope: Scope, session: ChargingSession, plan: Schedule) -> bool:
    start = plan.start_at or scope.now
    length = timedelta(seconds=min(plan.duration_s or 86400, int(LONGEST.total_seconds())))
    steps = await reckon(scope, session.station_id, session.evse_no or 1, start, length, plan.unit)
    moments = {step.start_s for step in steps} | {period.start_s for period in plan.periods}
    for moment in moments:
        allowed = [step for step in steps if step.start_s <= moment][-1].limit
        wanted = [period for period in plan.periods if period.start_s <= moment]
        if allowed is not None and wanted and wanted[-1].limit > allowed:
            return True
    return False


async def _keep_need(
    scope: Scope, session: ChargingSession, *, needs: dict[str, Any] | None, schedule: dict[str, Any] | None,
    exceeds: bool,
) -> None:  # fmt: skip
    told: dict[str, Any] = {"told_at": scope.now, "exceeds": exceeds}
    told |= {"needs": needs} if needs is not None else {}
    told |= {"schedule": schedule} if schedule is not None else {}
    values = {"id": uuid7(), "station_id": session.station_id, "session_id": session.id,
              "evse_no": session.evse_no or 1}  # fmt: skip
    statement = upsert(ChargingNeed).values(**values, **told)
    await scope.db.execute(
        statement.on_conflict_do_update(index_elements=["tenant_id", "session_id"], set_=told)
    )
    scope.publish(f"session:{session.id}", {"what": "needs"})


# --- words -------------------------------------------------------------------------------------------------------

PURPOSE_WORDS = {
    STATION_MAX: "Whole station, at most", TX_DEFAULT: "Every session", TX: "One session",
    EXTERNAL: "Set from elsewhere", "PriorityCharging": "Priority", "LocalGeneration": "Own generation",
}  # fmt: skip
