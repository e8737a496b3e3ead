"""Readings into the database: the values, the live figures of session and EVSE, and what to tell after commit.

The one place that writes `meter_instant`, `session_live` and `evse_live`'s figures: for one report in its own
transaction (`ingest`, `store`), and for the gateway's batches (`write_readings`), which say the same by one function.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select, text

from app.charging.models import ChargingSession
from app.charging.reports import ENERGY, POWER, Reading
from app.kernel import queue
from tenants.database import BatchConnection
from tenants.scope import Scope

_INSERT = text("""
insert into livery.meter_instant (
  station_id, evse_no, session_id, sampled_at, station_at, received_at, digest, samples)
select :station, :evse_no, :session, g.sampled_at, g.station_at, g.received_at,
       hashtextextended(g.samples, 0), cast(g.samples as json)
  from unnest(
    cast(:sampled_at as timestamptz[]), cast(:station_at as timestamptz[]), cast(:received_at as timestamptz[]),
    cast(:samples as text[])) as g(sampled_at, station_at, received_at, samples)
on conflict do nothing
returning 1
""")

# what the live columns cannot hold, once rounded to their hundredths
LIVE_LIMIT, SOC_LIMIT = Decimal("99999999.995"), Decimal("999.995")
_LIVE_COLUMNS = ("meter_wh", "power_w", "current_a", "voltage_v", "soc_percent")

_SESSION_LIVE = text("""
insert into livery.session_live as l (
  session_id, meter_wh, energy_wh, power_w, current_a, voltage_v, soc_percent, reading_at, first_wh, metered_at)
values (:session, cast(:meter_wh as bigint), cast(:meter_wh as bigint) - cast(:meter_start_wh as bigint),
        cast(:power_w as bigint), cast(:current_a as numeric), cast(:voltage_v as numeric),
        cast(:soc_percent as numeric), :at, cast(:meter_wh as bigint),
        case when cast(:meter_wh as bigint) is not null then cast(:at as timestamptz) end)
on conflict (tenant_id, session_id) do update set
  meter_wh = coalesce(excluded.meter_wh, l.meter_wh),
  energy_wh = coalesce(excluded.energy_wh, excluded.meter_wh - l.first_wh, l.energy_wh),
  power_w = coalesce(excluded.power_w, l.power_w),
  current_a = coalesce(excluded.current_a, l.current_a),
  voltage_v = coalesce(excluded.voltage_v, l.voltage_v),
  soc_percent = coalesce(excluded.soc_percent, l.soc_percent),
  reading_at = excluded.reading_at,
  first_wh = coalesce(l.first_wh, excluded.first_wh),
  metered_at = coalesce(excluded.metered_at, l.metered_at)
where l.reading_at is null or l.reading_at <= excluded.reading_at
""")

_EVSE_LIVE = text("""
update livery.evse_live l set
  meter_wh = coalesce(cast(:meter_wh as bigint), l.meter_wh),
  power_w = coalesce(cast(:power_w as bigint), l.power_w),
  current_a = coalesce(cast(:current_a as numeric), l.current_a),
  voltage_v = coalesce(cast(:voltage_v as numeric), l.voltage_v),
  soc_percent = coalesce(cast(:soc_percent as numeric), l.soc_percent),
  reading_at = :at
where l.evse_id = :evse and l.tenant_id = (select livery.tid()) and (l.reading_at is null or l.reading_at <= :at)
""")


async def ingest(
    scope: Scope, station_id: UUID, evse_no: int, ocpp_transaction_id: str | None, readings: Sequence[Reading]
) -> None:
    """MeterValues. A transaction id that is missing, 0, random or over is replaced by the EVSE's open session."""
    await store(
        scope,
        await _session_of(scope, station_id, evse_no, ocpp_transaction_id, readings),
        station_id,
        evse_no,
        readings,
    )


async def _session_of(
    scope: Scope, station_id: UUID, evse_no: int, ocpp_transaction_id: str | None, readings: Sequence[Reading]
) -> ChargingSession | None:
    """An id that the station kept after its stop (EN+) yields to the session that is open since."""
    ours = select(ChargingSession).where(ChargingSession.station_id == station_id)
    session = None
    if ocpp_transaction_id is not None:
        named = ours.where(ChargingSession.ocpp_transaction_id == ocpp_transaction_id)
        session = (await scope.db.execute(named)).scalar_one_or_none()
        if session is not None:
            ended_at = session.ended_at
            if ended_at is None or any(reading.sampled_at <= ended_at for reading in readings):
                return session
            evse_no = session.evse_no or evse_no
    open_here = ours.where(ChargingSession.evse_no == evse_no, ChargingSession.status == "ACTIVE")
    found = (await scope.db.execute(open_here.order_by(ChargingSession.started_at.desc()))).scalars().first()
    return found or session


async def store(
    scope: Scope, session: ChargingSession | None, station_id: UUID, evse_no: int, readings: Sequence[Reading]
) -> int:
    """How many instants were new. A replay adds none and moves nothing."""
    if not readings:
        return 0
    instants: dict[tuple[Any, ...], list[str]] = {}
    for reading in readings:
        at = (reading.sampled_at, reading.station_at, reading.received_at)
        instants.setdefault(at, []).append(sample_of(reading))
    columns: dict[str, Any] = {
        "station": station_id, "evse_no": evse_no, "session": session.id if session else None,
        "samples": [as_samples(samples) for samples in instants.values()],
    } | {
        name: [at[n] for at in instants] for n, name in enumerate(("sampled_at", "station_at", "received_at"))
    }  # fmt: skip
    fresh = len((await scope.db.execute(_INSERT, columns)).all())
    if fresh:
        await _move_live(scope, session, station_id, evse_no, latest(readings))
    return fresh


def sample_of(reading: Reading) -> str:
    """See `as_sample`."""
    value = None if reading.value is None else format(reading.value, "f")
    return as_sample(
        as_kind(reading.measurand, reading.phase, reading.location, reading.context, reading.unit),
        reading.raw_value if reading.raw_value is not None else str(reading.value), value, reading.signed_data,
    )  # fmt: skip


def as_kind(*kind: str) -> str:
    """What a sampled value is (measurand, phase, location, context, unit), as the head of its `as_sample`."""
    return json.dumps(kind, ensure_ascii=False, separators=(",", ":"))[:-1] + ","


def as_sample(kind: str, raw: str, value: str | None, signed: str | None) -> str:
    """A sampled value as view `meter_value` takes it apart: a list in JSON, without what says nothing new at its end.
    A value that is not there is the raw one; `null` where that is no number."""
    said = [raw] if value == raw and signed is None else [raw, value, signed][: 2 if signed is None else 3]
    return kind + json.dumps(said, ensure_ascii=False, separators=(",", ":"))[1:]


def as_samples(samples: Iterable[str]) -> str:
    """Those of one instant. The row's digest is over them: the same told again is the same row."""
    return f"[{','.join(samples)}]"


@dataclass(frozen=True, slots=True)
class Figures:
    """The newest of each kind among some readings; None where none was told."""

    at: datetime
    meter_wh: int | None = None
    power_w: int | None = None
    current_a: Decimal | None = None
    voltage_v: Decimal | None = None
    soc_percent: Decimal | None = None

    def as_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _LIVE_COLUMNS}


def latest(readings: Sequence[Reading]) -> Figures:
    """Phases are not summed blindly: power is the total where told, else the sum of L1 to L3 of one instant."""
    at = max(reading.sampled_at for reading in readings)
    return Figures(
        at=at,
        meter_wh=_whole(_newest(readings, ENERGY)),
        power_w=_whole(
            _newest(readings, POWER) if _has_total(readings, POWER) else _phases(readings, POWER, sum)
        ),
        current_a=_bounded(
            _newest(readings, "Current.Import")
            if _has_total(readings, "Current.Import")
            else _phases(readings, "Current.Import", max)
        ),
        voltage_v=_bounded(
            _newest(readings, "Voltage")
            if _has_total(readings, "Voltage")
            else _phases(readings, "Voltage", max)
        ),
        soc_percent=_bounded(_newest(readings, "SoC"), SOC_LIMIT),
    )


def _bounded(value: Decimal | None, limit: Decimal = LIVE_LIMIT) -> Decimal | None:
    """What no car and no cable has is kept as a value and shown to nobody."""
    return value if value is not None and abs(value) < limit else None


def _whole(value: Decimal | None) -> int | None:
    return None if value is None else round(value)


def _told(readings: Sequence[Reading], measurand: str) -> list[Reading]:
    return [
        r
        for r in readings
        if r.measurand == measurand and r.value is not None and r.location in ("Outlet", "EV")
    ]


def _has_total(readings: Sequence[Reading], measurand: str) -> bool:
    return any(not reading.phase for reading in _told(readings, measurand))


def _newest(readings: Sequence[Reading], measurand: str) -> Decimal | None:
    told = [reading for reading in _told(readings, measurand) if not reading.phase]
    return max(told, key=lambda reading: reading.sampled_at).value if told else None


def _phases(readings: Sequence[Reading], measurand: str, combine: Any) -> Decimal | None:
    told = [r for r in _told(readings, measurand) if r.phase.split("-")[0] in ("L1", "L2", "L3")]
    if not told:
        return None
    newest = max(reading.sampled_at for reading in told)
    return combine(reading.value for reading in told if reading.sampled_at == newest)


async def _move_live(
    scope: Scope, session: ChargingSession | None, station_id: UUID, evse_no: int, figures: Figures
) -> None:
    at_evse = figures.as_row() | {"at": figures.at}
    evse_id = session.evse_id if session else await _evse_id(scope, station_id, evse_no)
    if session is not None and session.status != "ACTIVE":
        return
    if session is None and evse_id is not None:
        await scope.db.execute(_EVSE_LIVE, at_evse | {"evse": evse_id})
    for topic, payload in news_of_reading(station_id, evse_no, session.id if session else None):
        scope.publish(topic, payload)
    if session is not None:
        row = at_evse | {"session": session.id, "meter_start_wh": session.meter_start_wh}
        await scope.db.execute(_SESSION_LIVE, row)
        if session.cost_cap_minor is not None:
            await queue.enqueue(
                scope, "charging.check_cap", session_id=str(session.id), lock=f"cap-now:{session.id}"
            )


def news_of_reading(
    station_id: UUID | str, evse_no: int, session_id: UUID | None
) -> list[tuple[str, dict[str, Any]]]:
    """Whom to tell after the commit that figures moved: (topic, message). `session_id` is the session that is open."""
    news: list[tuple[str, dict[str, Any]]] = [
        (f"station:{station_id}", {"what": "reading", "evse_no": evse_no})
    ]
    if session_id is not None:
        news += [(f"session:{session_id}", {"what": "reading"}), ("sessions", {"session": str(session_id)})]
    return news


async def _evse_id(scope: Scope, station_id: UUID, evse_no: int) -> UUID | None:
    query = text("select id from livery.evse where station_id = :station and evse_no = :evse_no")
    return (await scope.db.execute(query, {"station": station_id, "evse_no": evse_no})).scalar_one_or_none()


# --- the gateway's batches ----------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class HotReadings:
    """MeterValues, or a TransactionEvent Updated without a token, as it is written: with its frame and its answer.

    `needs_session`: the message names its transaction, and where we do not know it the ordinary verb must decide.
    Times are microseconds since 1970. `instants` are (sampled_us, station_us or None, samples), the last from
    `as_samples`. No text has SPLIT in it. The answer is an empty CALLRESULT. `figures` are meter (Wh), power (W),
    current (A), voltage (V) and state of charge (%), as text or None.
    """

    tenant_id: UUID
    station_id: str
    received_us: int
    evse_no: int | None
    transaction: str | None
    needs_session: bool
    message_id: str
    action: str
    version: str
    raw: str
    instants: Sequence[tuple[int, int | None, str]]
    figures: tuple[str | None, ...] = (None,) * 5
    read_us: int | None = None
    state: str | None = None
    state_us: int | None = None
    seq_no: int | None = None


class Written(NamedTuple):
    """`session_id` is the open session whose live figures moved. `is_cold`: nothing was written, a verb takes it."""

    session_id: UUID | None
    evse_no: int
    is_cold: bool


SPLIT = "\x1e"  # no JSON holds it as it is
_NOTHING: tuple[int | None, int | None, str] = (None, None, "")
_CALL = f"select * from livery.ingest_readings({', '.join(f'${n + 1}' for n in range(25))})"  # noqa: S608


async def write_readings(connection: BatchConnection, batch: Sequence[HotReadings]) -> list[Written]:
    """All or nothing, in one commit; the answers may be sent when it returns. A station stands in a batch once.

    What is there already is not written again, and moves nothing back. Errors: `BatchError`.
    """
    order = sorted(range(len(batch)), key=lambda n: batch[n].tenant_id.int)
    told = [batch[n] for n in order]
    rows = await connection.call(_CALL, _columns(told))
    written: list[Written | None] = [None] * len(batch)
    for message, session_id, evse_no, is_cold, _job in rows:
        written[order[int(message or 0) - 1]] = Written(
            UUID(session_id.decode()) if session_id else None, int(evse_no or 0), is_cold == b"t"
        )
    return [one or Written(None, 0, True) for one in written]


def _columns(told: Sequence[HotReadings]) -> list[str]:
    """Array literals: several times cheaper than adapting each element. Texts that are always there are joined by
    SPLIT, so that neither side has to look for quotes in them."""
    tenants: dict[UUID, int] = {}
    owners = [tenants.setdefault(one.tenant_id, len(tenants) + 1) for one in told]
    first = [m.instants[0] if m.instants else _NOTHING for m in told]
    return [
        _numbers(tenants), _numbers(owners),
        _numbers(m.station_id for m in told), _numbers(m.received_us for m in told), _numbers(m.evse_no for m in told),
        _texts(m.transaction for m in told), _numbers(m.needs_session for m in told), _numbers(_log_ids(told)),
        SPLIT.join([m.message_id for m in told]), SPLIT.join([m.action for m in told]),
        SPLIT.join([m.version for m in told]), SPLIT.join([m.raw for m in told]),
        *(_numbers(m.figures[n] for m in told) for n in range(5)), _numbers(m.read_us for m in told),
        _texts(m.state for m in told), _numbers(m.state_us for m in told), _numbers(m.seq_no for m in told),
        _numbers(at for at, _, _ in first), _numbers(station_us for _, station_us, _ in first),
        SPLIT.join([samples for _, _, samples in first]), _texts(_others(m) for m in told),
    ]  # fmt: skip


def _others(told: HotReadings) -> str | None:
    """What a message told of further instants, in JSON."""
    if len(told.instants) < 2:
        return None
    others = [
        f"[{at},{'null' if station_us is None else station_us},{samples}]"
        for at, station_us, samples in told.instants[1:]
    ]
    return f"[{','.join(others)}]"


def _log_ids(told: Sequence[HotReadings]) -> list[str]:
    """Of the raw log's rows, version 7 like all others: what is read by id goes by time, to the microsecond, as in the
    ids that PostgreSQL makes (RFC 9562 6.2, method 3). Even: the odd one after it is the answer's (view `ocpp_frame`).
    Made here, because a server built without OpenSSL opens a file for each."""
    low = int.from_bytes(os.urandom(8), "big") & (1 << 60) - 2
    return [
        f"{one.received_us // 1000:012x}7{one.received_us % 1000 * 4096 // 1000:03x}{(0b10 << 62) + low + 2 * n:016x}"
        for n, one in enumerate(told)
    ]


def _numbers(values: Iterable[Any]) -> str:
    return "{" + ",".join(["null" if value is None else str(value) for value in values]) + "}"


def _texts(values: Iterable[str | None]) -> str:
    quoted = [
        "null" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for value in values
    ]
    return "{" + ",".join(quoted) + "}"
