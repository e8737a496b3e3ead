"""Hot messages read fast: MeterValues and TransactionEvent Updated into what the batched ingest writes (pure).

Strict: whatever is not exactly as the schema has it, or is rare, gives None, and the lenient way (`codec`, `v16`,
`v201`, `meter_values`) takes the message. Both say the same of the same message; a property test holds them together.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from app.charging.ingest import LIVE_LIMIT, SOC_LIMIT, SPLIT, HotReadings, as_kind, as_sample, as_samples
from ocpp_gateway import codec, meter_values
from ocpp_gateway.lenient import MAX_FUTURE, MAX_PAST

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_FUTURE_US, _PAST_US = MAX_FUTURE // _US, MAX_PAST // _US
_AS_IT_IS = r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,9})?"  # as Decimal writes it, too
_PLAIN = re.compile(_AS_IT_IS, re.ASCII)
_NUMBERS = re.compile(rf'("value":\s*")({_AS_IT_IS})(?=")', re.ASCII)
_NUMBER = slice(2, None, 3)  # of what it splits
_CONTROL = re.compile(r"\\u00[01]")
_ROLES = {name: n for n, name in enumerate(
    ("Energy.Active.Import.Register", "Power.Active.Import", "Current.Import", "Voltage", "SoC")
)}  # fmt: skip
_LINES = frozenset({"L1", "L2", "L3", "L1-N", "L2-N", "L3-N", "L1-L2", "L2-L3", "L3-L1"})
_MOST_KINDS, _MOST_SHAPES, _MOST_SPELLED = 4096, 512, 1500
_ONE = Decimal(1)
_SHORT = (0, 0, 8, 8, 3)  # letters in which no number reaches its role's limit


class Envelope(msgspec.Struct, array_like=True):
    type: int
    message_id: str
    action: str
    payload: msgspec.Raw


class Measure(msgspec.Struct):
    unit: str = ""
    multiplier: int = 0


class SampledValue(msgspec.Struct):
    """1.6 and 2.x in one: what the one has, the other leaves out."""

    value: str | int | float
    context: str = ""
    format: str = ""
    measurand: str = ""
    phase: str = ""
    location: str = ""
    unit: str = ""
    unitOfMeasure: Measure | None = None  # noqa: N815
    signedMeterValue: msgspec.Raw | None = None  # noqa: N815


class MeterValue(msgspec.Struct):
    timestamp: str
    sampledValue: msgspec.Raw  # noqa: N815


class MeterValues16(msgspec.Struct):
    connectorId: int  # noqa: N815
    meterValue: list[MeterValue]  # noqa: N815
    transactionId: int | None = None  # noqa: N815


class MeterValues201(msgspec.Struct):
    evseId: int  # noqa: N815
    meterValue: list[MeterValue]  # noqa: N815


class Evse(msgspec.Struct):
    id: int


class TransactionInfo(msgspec.Struct):
    transactionId: str  # noqa: N815
    chargingState: str | None = None  # noqa: N815
    remoteStartId: msgspec.Raw | None = None  # noqa: N815


class TransactionEvent(msgspec.Struct):
    eventType: str  # noqa: N815
    timestamp: str
    triggerReason: str  # noqa: N815
    seqNo: int  # noqa: N815
    transactionInfo: TransactionInfo  # noqa: N815
    evse: Evse | None = None
    idToken: msgspec.Raw | None = None  # noqa: N815
    meterValue: list[MeterValue] = []  # noqa: N815


_ENVELOPE = msgspec.json.Decoder(Envelope)
_SAMPLES = msgspec.json.Decoder(list[SampledValue])
_METERING_16 = msgspec.json.Decoder(MeterValues16)
_METERING_201 = msgspec.json.Decoder(MeterValues201)
_EVENT = msgspec.json.Decoder(TransactionEvent)
_MAX_NO = 64
_PERIODIC = ("MeterValuePeriodic", "MeterValueClock")


def read(version: str, tenant_id: UUID, station: str, raw: str, received_us: int) -> HotReadings | None:
    """`station` is its id as text. Control characters are for the slow way, which refuses NUL."""
    if SPLIT in raw or ("\\u00" in raw and _CONTROL.search(raw)):
        return None
    try:
        call = _ENVELOPE.decode(raw)
        reader = READERS.get((version, call.action))
        if call.type != 2 or reader is None or not 0 < len(call.message_id) <= codec.MAX_ID:
            return None
        told = reader(call.payload, received_us)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    if told is None:
        return None
    return HotReadings(
        tenant_id=tenant_id, station_id=station, received_us=received_us, message_id=call.message_id,
        action=call.action, version=version, raw=raw, **told,
    )  # fmt: skip


def _metering_16(payload: msgspec.Raw, received_us: int) -> dict[str, Any] | None:
    said = _METERING_16.decode(payload)
    if not 0 < said.connectorId <= _MAX_NO:
        return None
    transaction = str(said.transactionId) if said.transactionId and said.transactionId > 0 else None
    return _readings(said.meterValue, received_us, {
        "evse_no": said.connectorId, "transaction": transaction, "needs_session": False,
    })  # fmt: skip


def _metering_201(payload: msgspec.Raw, received_us: int) -> dict[str, Any] | None:
    said = _METERING_201.decode(payload)
    if not 0 < said.evseId <= _MAX_NO:
        return None
    return _readings(said.meterValue, received_us, {
        "evse_no": said.evseId, "transaction": None, "needs_session": False,
    })  # fmt: skip


def _updated(payload: msgspec.Raw, received_us: int) -> dict[str, Any] | None:
    """Whose it is, by a token or a remote start, and another kind of event are a verb's affair. A station may repeat
    the remote start's id with each of its readings; those tell nothing new."""
    said = _EVENT.decode(payload)
    info, evse = said.transactionInfo, said.evse
    is_named = said.triggerReason == "RemoteStart" or (
        info.remoteStartId is not None and said.triggerReason not in _PERIODIC
    )
    if (
        said.eventType != "Updated"
        or said.idToken is not None
        or is_named
        or not 0 < len(info.transactionId) <= codec.MAX_ID
    ):
        return None
    if info.transactionId.strip() != info.transactionId or not 0 <= said.seqNo < 2**31:
        return None
    if evse is not None and not 0 < evse.id <= _MAX_NO:
        return None
    at = _moment(said.timestamp)
    if at is None:
        return None
    told = _readings(said.meterValue, received_us, {
        "evse_no": evse.id if evse else None, "transaction": info.transactionId, "needs_session": True,
    }, may_begin=False)  # fmt: skip
    if told is None:
        return None
    if info.chargingState:
        told |= {
            "state": info.chargingState[:40], "state_us": _plausible(at, received_us)[0], "seq_no": said.seqNo,
        }  # fmt: skip
    return told


READERS = {
    ("ocpp1.6", "MeterValues"): _metering_16, ("ocpp2.0.1", "MeterValues"): _metering_201,
    ("ocpp2.0.1", "TransactionEvent"): _updated, ("ocpp2.1", "MeterValues"): _metering_201,
    ("ocpp2.1", "TransactionEvent"): _updated,
}  # fmt: skip


def _moment(text: str) -> int | None:
    """Microseconds; None without a zone (that is read leniently)."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if at.tzinfo is None else (at - _EPOCH) // _US


def _plausible(at: int, received_us: int) -> tuple[int, int | None]:
    """As `lenient.plausible`: the time to go by, and the station's own where it is another."""
    if at < received_us - _PAST_US or at > received_us:
        return received_us, at
    return at, None


class _Known:
    """A kind of sample as it is spelled on the wire, worked out once."""

    __slots__ = ("begins", "factor", "is_signed", "is_total", "kind", "plain", "role")

    def __init__(self, sample: SampledValue) -> None:
        said: dict[str, Any] = {"unit": sample.unit or None}
        if sample.unitOfMeasure is not None:
            said["unitOfMeasure"] = {
                "unit": sample.unitOfMeasure.unit or None, "multiplier": sample.unitOfMeasure.multiplier,
            }  # fmt: skip
        measurand, phase = meter_values.measurand_of(sample.measurand, sample.phase)
        unit, factor = meter_values.unit_of(said, measurand)
        context, location = meter_values.context_of(sample.context), meter_values.location_of(sample.location)
        self.kind = as_kind(measurand, phase, location, context, unit)
        self.plain = self.kind.replace("%", "%%") + '"%s"]'  # as_sample() of a number as it came
        self.factor = None if factor == 1 else factor
        self.is_signed = sample.format == "SignedData"
        is_here = location in ("Outlet", "EV")
        self.role = _ROLES.get(measurand, -1) if is_here and (not phase or phase in _LINES) else -1
        self.is_total = not phase
        self.begins = sample.context == "Transaction.Begin"


_known: dict[tuple[Any, ...], _Known] = {}


def _known_of(sample: SampledValue) -> _Known:
    measure = sample.unitOfMeasure
    spelled = (
        sample.measurand, sample.phase, sample.unit, sample.context, sample.location, sample.format,
        measure and (measure.unit, measure.multiplier),
    )  # fmt: skip
    known = _known.get(spelled)
    if known is None:
        known = _Known(sample)
        _keep(_known, spelled, known, _MOST_KINDS)
    return known


class _Shape:
    """The sampled values of an instant without their numbers: a station tells the same ones each time. What they come
    to is worked out once; then only the numbers are put in."""

    __slots__ = ("begins", "lines", "samples", "totals")

    def __init__(self, kinds: Sequence[_Known]) -> None:
        self.begins = any(kind.begins for kind in kinds)
        self.samples = as_samples(kind.plain for kind in kinds)
        totals: dict[int, int] = {}
        lines: dict[int, list[int]] = {}
        for n, kind in enumerate(kinds):
            if kind.role >= 0 and kind.is_total:
                totals.setdefault(kind.role, n)
            elif kind.role >= 0:
                lines.setdefault(kind.role, []).append(n)
        self.totals = list(totals.items())
        self.lines = [(role, ns) for role, ns in lines.items() if role not in totals]

    def figures(self, numbers: Sequence[str]) -> tuple[str | None, ...]:
        found: list[str | None] = [None] * len(_ROLES)
        for role, n in self.totals:
            found[role] = _of_total(role, numbers[n])
        for role, ns in self.lines:
            found[role] = _of_lines(role, [numbers[n] for n in ns])
        return tuple(found)


_shapes: dict[str, _Shape | None] = {}


def _shape_of(parts: list[str]) -> _Shape | None:
    """`parts` is the JSON of a list of sampled values, split at its numbers. None where it takes more to read it."""
    rest = parts.copy()
    del rest[_NUMBER]
    spelled = "\0".join(rest)
    try:
        return _shapes[spelled]
    except KeyError:
        pass
    tries = [[str(n + more) for n in range(len(parts) // 3)] for more in (1, 1001)]
    told = []
    for numbers in tries:
        tried = parts.copy()
        tried[_NUMBER] = numbers
        told.append(_SAMPLES.decode("".join(tried)))
    is_plain = [[one.value for one in samples] for samples in told] == tries
    kinds = [_known_of(one) for one in told[0]]
    is_plain &= all(known.factor is None and not known.is_signed for known in kinds)
    is_plain &= all(one.signedMeterValue is None for one in told[0])
    shape = _Shape(kinds) if is_plain and kinds else None
    _keep(_shapes, spelled, shape, _MOST_SHAPES)
    return shape


def _keep(cache: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """A fleet has some dozens. Whoever spells each one otherwise pushes the oldest out, which is learnt again."""
    if len(cache) >= most:
        del cache[next(iter(cache))]
    cache[key] = value


def _readings(
    values: Sequence[MeterValue], received_us: int, told: dict[str, Any], *, may_begin: bool = True
) -> dict[str, Any] | None:
    """Where a session's meter began (J02) is that session's, which a verb changes: not where `may_begin` is False."""
    return (_one_instant if len(values) == 1 else _instants)(values, received_us, told, may_begin)


def _one_instant(
    values: Sequence[MeterValue], received_us: int, told: dict[str, Any], may_begin: bool
) -> dict[str, Any] | None:
    """As `_instants`, which takes what is not plain."""
    (entry,) = values
    text = str(memoryview(entry.sampledValue), "utf-8")
    parts = _NUMBERS.split(text) if len(text) <= _MOST_SPELLED else []
    numbers = parts[_NUMBER]
    shape = _shape_of(parts) if numbers else None
    if shape is None:
        return _instants(values, received_us, told, may_begin)
    at = _moment(entry.timestamp)
    if at is None or (shape.begins and not may_begin):
        return None
    sampled, station_us = _plausible(at, received_us)
    told["instants"] = [(sampled, station_us, shape.samples % tuple(numbers))]
    told["figures"], told["read_us"] = shape.figures(numbers), sampled
    return told


def _instants(
    values: Sequence[MeterValue], received_us: int, told: dict[str, Any], may_begin: bool
) -> dict[str, Any] | None:
    instants: dict[tuple[int, int | None], list[str]] = {}
    totals: list[tuple[int, str] | None] = [None] * len(_ROLES)
    lines: list[tuple[int, int, str]] = []  # role, time, value
    newest: int | None = None
    if len(values) > meter_values.MAX_VALUES:
        return None
    for entry in values:
        at = _moment(entry.timestamp)
        if at is None:
            return None
        when = _plausible(at, received_us)
        sampled = when[0]
        samples = instants.get(when)
        if samples is None:
            samples = []
        for sample in _SAMPLES.decode(entry.sampledValue):
            if sample.signedMeterValue is not None:
                return None  # kept whole by the lenient way
            raw = sample.value if isinstance(sample.value, str) else str(sample.value)
            if not raw:
                continue
            known = _known_of(sample)
            if known.begins and not may_begin:
                return None
            if known.factor is None and _PLAIN.fullmatch(raw) and not known.is_signed:
                value = raw
                samples.append(known.plain % raw)
            else:
                value = _value(raw, known)
                samples.append(as_sample(known.kind, raw[:200], value, raw if known.is_signed else None))
            if newest is None or sampled > newest:
                newest = sampled
            if known.role < 0 or value is None:
                continue
            if not known.is_total:
                lines.append((known.role, sampled, value))
            elif (total := totals[known.role]) is None or total[0] < sampled:
                totals[known.role] = (sampled, value)
        if samples:
            instants[when] = samples
    told["instants"] = [
        (at, station_us, as_samples(samples)) for (at, station_us), samples in instants.items()
    ]
    if newest is not None:
        told["figures"] = tuple([_figure(role, total, lines) for role, total in enumerate(totals)])
        told["read_us"] = newest
    return told


def _value(raw: str, known: _Known) -> str | None:
    if known.is_signed:
        return None
    number = meter_values.number_of(raw, known.factor or _ONE)
    return None if number is None else format(number, "f")


def _figure(role: int, total: tuple[int, str] | None, lines: list[tuple[int, int, str]]) -> str | None:
    """As `app.charging.ingest.latest`: the total where told, else what the lines of the newest instant make."""
    if total is not None:
        return _of_total(role, total[1])
    told = [(at, value) for of, at, value in lines if of == role]
    if not told:
        return None
    last = max(at for at, _ in told)
    return _of_lines(role, [value for at, value in told if at == last])


def _of_total(role: int, value: str) -> str | None:
    return _whole(value) if role < 2 else _bounded(role, value)


def _of_lines(role: int, values: Sequence[str]) -> str | None:
    """Of one instant: power adds up, of currents and voltages the largest counts; others have no lines."""
    if role not in (1, 2, 3):
        return None
    if role == 1:
        return str(round(sum((Decimal(value) for value in values), Decimal(0))))
    if len(values) == 1:
        return _bounded(role, values[0])
    return _bounded(role, format(max(Decimal(value) for value in values), "f"))


def _bounded(role: int, value: str) -> str | None:
    if len(value) <= _SHORT[role]:
        return value
    most = SOC_LIMIT if role == 4 else LIVE_LIMIT
    return None if abs(Decimal(value)) >= most else value


def _whole(value: str) -> str:
    """Wh and W without their decimals, half to even."""
    if value.isdigit():
        return value
    return value[:-2] if value.endswith(".0") and value[:-2].isdigit() else str(round(Decimal(value)))
