"""Verbs on the device model: asking a station what it is and how it is set, keeping what it tells, changing it.

OCPP 2.0.1 B05-B08 (variables and reports), 1.6 GetConfiguration and ChangeConfiguration. A request is one or several
commands (`app/stations/commands.py`): never more items in one than the station takes. What comes back is stored by the
`take_…` verbs in the transaction of the message that brought it.

Errors: `not_in_16` (OCPP 1.6 has no such thing), `read_only`, `out_of_range`, `choice`, `path`, `nothing_asked`.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.device_model.models import StationReport, StationVariable
from app.device_model.paths import VariablePath
from app.device_model.reports import Attribute, Part, ReportedVariable
from app.kernel.errors import FieldFault, Invalid, NotFound, Refused
from app.stations import commands
from app.stations.models import ChargingStation, StationCommand, StationConnection
from app.stations.redaction import HIDDEN, names_a_secret
from tenants.scope import Scope

OCPP16 = "ocpp1.6"
BASES = ("FullInventory", "ConfigurationInventory", "SummaryInventory")
CRITERIA = ("Active", "Available", "Enabled", "Problem")
CAUTIOUS = 4  # items in a message to a station that has not told how many it takes
MAX_VARIABLES = 10_000
MAX_VALUE = 2500
REPORT_KINDS = {
    "GetBaseReport": "variables", "GetReport": "variables", "GetMonitoringReport": "monitors",
    "GetDisplayMessages": "display_messages", "CustomerInformation": "customer_information",
}  # fmt: skip
EVERYTHING = "everything"
SILENT_AFTER = timedelta(hours=1)
T = TypeVar("T")


# --- what a station takes ----------------------------------------------------------------------------------------


async def ocpp_version(scope: Scope, station_id: UUID) -> str:
    """The subprotocol of the station's last connection, empty before its first. NotFound for no station of ours."""
    if await scope.db.get(ChargingStation, (scope.tenant_id, station_id)) is None:
        raise NotFound("charging_station")
    query = select(StationConnection.ocpp_version).where(StationConnection.station_id == station_id)
    return (await scope.db.execute(query)).scalar_one_or_none() or ""


async def needs_2x(scope: Scope, station_id: UUID, what: str) -> None:
    """Refused with the reason where the station speaks 1.6."""
    if await ocpp_version(scope, station_id) == OCPP16:
        raise Refused(
            "not_in_16", f"This station speaks OCPP 1.6, which has no {what}. OCPP 2.0.1 is needed."
        )


async def items_per_message(scope: Scope, station_id: UUID, action: str) -> int:
    """How many items of this action the station takes in one message, as it told; a cautious few where it did not."""
    query = select(StationVariable).where(
        StationVariable.station_id == station_id,
        StationVariable.path_key.in_(
            [
                f"devicedatactrlr/itemspermessage[{action.lower()}]",
                f"monitoringctrlr/itemspermessage[{action.lower()}]",
                f"devicedatactrlr/itemspermessage{action.lower()}",
                f"monitoringctrlr/itemspermessage{action.lower()}",
                *(["getconfigurationmaxkeys"] if action == "GetConfiguration" else []),
            ]
        ),
    )
    told = [
        int(row.value)
        for row in (await scope.db.execute(query)).scalars()
        if row.value is not None and row.value.isdecimal() and 0 < int(row.value) < 2**31
    ]
    return min(told, default=CAUTIOUS)


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


# --- asking ------------------------------------------------------------------------------------------------------


def _new_request_no() -> int:
    """OCPP's requestId: 31 bits, unlikely to meet another of this station."""
    return random.randint(1, 2**31 - 1)  # noqa: S311 - names a request, protects nothing


async def open_report(scope: Scope, station_id: UUID, kind: str, what: str) -> StationReport:
    """A request that the station will answer in parts; `request_no` goes into the command."""
    report = StationReport(
        station_id=station_id, request_no=_new_request_no(), kind=kind, what=what, asked_at=scope.now, seqs=[], parts={}
    )  # fmt: skip
    scope.db.add(report)
    await scope.db.flush()
    return report


async def request_inventory(scope: Scope, station_id: UUID, base: str = "FullInventory") -> StationCommand:
    """B07 GetBaseReport; in 1.6 every key by GetConfiguration, whatever `base` is."""
    if base not in BASES:
        raise Invalid.field("base", "choice", f"base is one of {', '.join(BASES)}.")
    if await ocpp_version(scope, station_id) == OCPP16:
        return await commands.send_command(scope, station_id, "GetConfiguration", {})
    report = await open_report(scope, station_id, "variables", base)
    payload = {"requestId": report.request_no, "reportBase": base}
    return await commands.send_command(scope, station_id, "GetBaseReport", payload)


async def request_report(
    scope: Scope, station_id: UUID, *, criteria: Sequence[str] = (), paths: Sequence[VariablePath] = (),
) -> list[StationCommand]:  # fmt: skip
    """B08 GetReport by component criteria and by components and variables (`*` for all of a component)."""
    await needs_2x(scope, station_id, "reports of chosen components")
    if not criteria and not paths:
        raise Invalid.field("criteria", "nothing_asked", "Name criteria, components, or both.")
    if set(criteria) - set(CRITERIA):
        raise Invalid.field("criteria", "choice", f"criteria are {', '.join(CRITERIA)}.")
    asked: dict[str, Any] = {"componentCriteria": list(criteria)} if criteria else {}
    sent = []
    for group in chunks(paths, await items_per_message(scope, station_id, "GetReport")) or [()]:
        what = ", ".join([*criteria, *map(str, group)])[:200]
        report = await open_report(scope, station_id, "variables", what)
        payload = asked | {"requestId": report.request_no}
        if group:
            payload["componentVariable"] = [component_variable(path) for path in group]
        sent.append(await commands.send_command(scope, station_id, "GetReport", payload))
    return sent


def component_variable(path: VariablePath) -> dict[str, Any]:
    """The wire's ComponentVariableType; every variable of a component where the path's is `*`."""
    return {"component": path.wire_component()} if path.variable == "*" else path.wire()


async def read_variables(
    scope: Scope, station_id: UUID, paths: Sequence[VariablePath], *, attribute: str = "Actual"
) -> list[StationCommand]:
    """B06 GetVariables, or 1.6's GetConfiguration of these keys."""
    version = await ocpp_version(scope, station_id)
    if not paths:
        raise Invalid.field("paths", "nothing_asked", "Name at least one variable.")
    _check_paths(version, paths)
    action = "GetConfiguration" if version == OCPP16 else "GetVariables"
    kind = {} if attribute == "Actual" else {"attributeType": attribute}
    sent = []
    for group in chunks(paths, await items_per_message(scope, station_id, action)):
        if version == OCPP16:
            payload: dict[str, Any] = {"key": [path.variable for path in group]}
        else:
            payload = {"getVariableData": [path.wire() | kind for path in group]}
        sent.append(await commands.send_command(scope, station_id, action, payload))
    return sent


async def set_variables(
    scope: Scope, station_id: UUID, values: Mapping[VariablePath, str], *, attribute: str = "Actual"
) -> list[StationCommand]:
    """B05 SetVariables, or 1.6's ChangeConfiguration key by key. What the station told is read-only, or would not
    hold, is refused before anything is sent."""
    version = await ocpp_version(scope, station_id)
    if not values:
        raise Invalid.field("settings", "nothing_asked", "Name at least one variable and its value.")
    _check_paths(version, values)
    if attribute == "Actual":
        await _check_values(scope, station_id, values)
    if version == OCPP16:
        payloads = [{"key": path.variable, "value": value} for path, value in values.items()]
        return [
            await commands.send_command(scope, station_id, "ChangeConfiguration", one) for one in payloads
        ]
    kind = {} if attribute == "Actual" else {"attributeType": attribute}
    items = [path.wire() | kind | {"attributeValue": value} for path, value in values.items()]
    return [
        await commands.send_command(scope, station_id, "SetVariables", {"setVariableData": list(group)})
        for group in chunks(items, await items_per_message(scope, station_id, "SetVariables"))
    ]


def _check_paths(version: str, paths: Iterable[VariablePath]) -> None:
    for path in paths:
        if (version == OCPP16) == bool(path.component):
            has = "keys, and no components" if version == OCPP16 else "variables of components"
            raise Invalid.field("path", "path", f"{path}: this station has {has}.")


async def _check_values(scope: Scope, station_id: UUID, values: Mapping[VariablePath, str]) -> None:
    wanted = {path.key: (path, value) for path, value in values.items()}
    query = select(StationVariable).where(
        StationVariable.station_id == station_id, StationVariable.path_key.in_(wanted)
    )
    faults = []
    for known in (await scope.db.execute(query)).scalars():
        path, value = wanted[known.path_key]
        wrong = fault_of(known, value)
        if wrong is not None:
            faults.append(FieldFault(str(path), wrong[0], wrong[1]))
    if faults:
        raise Invalid("invalid", faults[0].message, faults=faults)


def fault_of(known: StationVariable, value: str) -> tuple[str, str] | None:
    """(code, sentence) of what makes this value impossible for a variable, by what the station told of it; pure."""
    name = known.path
    if known.mutability == "ReadOnly":
        return "read_only", f"{name} can only be read."
    if known.data_type == "boolean" and value.lower() not in ("true", "false"):
        return "choice", f"{name} is true or false."
    if known.data_type == "OptionList" and known.values_list:
        options = [one.strip() for one in known.values_list.split(",")]
        if value not in options:
            return "choice", f"{name} is one of {', '.join(options)}."
    if known.data_type in ("integer", "decimal"):
        return _fault_of_number(known, value)
    return None


def _fault_of_number(known: StationVariable, value: str) -> tuple[str, str] | None:
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    whole = known.data_type == "integer"
    if not number.is_finite() or (whole and number != number.to_integral_value()):
        return "number", f"{known.path} is a {'whole ' if whole else ''}number."
    low, high = known.min_limit, known.max_limit
    if low is not None and number < low:
        return "out_of_range", f"{known.path} is at least {low:f}."
    if high is not None and number > high:
        return "out_of_range", f"{known.path} is at most {high:f}."
    return None


# --- taking ------------------------------------------------------------------------------------------------------


async def take_variables(scope: Scope, station_id: UUID, reported: Sequence[ReportedVariable]) -> None:
    """What the station told of variables, in whatever message. A secret's value goes no further than this."""
    by_key = {one.path.key: one for one in reported}
    rows = await _rows_for(scope, station_id, by_key)
    for key, row in rows.items():
        _take(scope, row, by_key[key])
    await scope.db.flush()
    scope.publish(f"station:{station_id}", {"what": "variables"})


async def _rows_for(
    scope: Scope, station_id: UUID, wanted: Mapping[str, ReportedVariable]
) -> dict[str, StationVariable]:
    """Locked in order, made where they are new: reports and answers of one station may come at the same time."""
    known = set((await scope.db.execute(
        select(StationVariable.path_key).where(
            StationVariable.station_id == station_id, StationVariable.path_key.in_(wanted)
        )
    )).scalars())  # fmt: skip
    count = select(func.count()).select_from(StationVariable).where(StationVariable.station_id == station_id)
    room = MAX_VARIABLES - (await scope.db.execute(count)).scalar_one()
    new = [
        {
            "station_id": station_id, "path": str(one.path), "path_key": key, "component": one.path.part,
            "name": one.path.variable, "reported_at": scope.now, "is_secret": names_a_secret(one.path.variable),
        }
        for key, one in sorted(wanted.items())
        if key not in known
    ][:max(room, 0)]  # fmt: skip
    if new:
        await scope.db.execute(upsert(StationVariable).values(new).on_conflict_do_nothing())
    query = (
        select(StationVariable)
        .where(StationVariable.station_id == station_id, StationVariable.path_key.in_(wanted))
        .order_by(StationVariable.path_key)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return {row.path_key: row for row in (await scope.db.execute(query)).scalars()}


def _take(scope: Scope, row: StationVariable, one: ReportedVariable) -> None:
    row.last_status = one.status
    if one.attributes:
        row.reported_at = scope.now
    if one.status is not None and one.status.startswith("Unknown"):
        row.value = None
    actual = one.attributes.get("Actual")
    if actual is not None:
        if actual.mutability is not None:
            row.mutability = actual.mutability
        row.is_secret = row.is_secret or actual.value == HIDDEN or row.mutability == "WriteOnly"
        row.value = None if row.is_secret or actual.value is None else actual.value[:MAX_VALUE]
        if actual.is_persistent is not None:
            row.is_persistent = actual.is_persistent
        if actual.is_constant is not None:
            row.is_constant = actual.is_constant
    others = {kind: _other(row, attribute) for kind, attribute in one.attributes.items() if kind != "Actual"}
    if others:
        row.other_attributes = (row.other_attributes or {}) | others
    if one.needs_reboot:
        row.needs_reboot_since = scope.now
    told = one.characteristics
    if told is not None:
        row.data_type, row.unit, row.values_list = told.data_type, told.unit, told.values_list
        row.min_limit, row.max_limit, row.can_be_monitored = (
            told.min_limit,
            told.max_limit,
            told.can_be_monitored,
        )


def _other(row: StationVariable, attribute: Attribute) -> dict[str, Any]:
    value = None if row.is_secret or attribute.value is None else attribute.value[:MAX_VALUE]
    return {"value": value, "mutability": attribute.mutability}


async def take_report_part(
    scope: Scope, station_id: UUID, part: Part, reported: Sequence[ReportedVariable]
) -> None:
    """B07, B08 NotifyReport. After the last part of a full inventory, what it did not name is gone."""
    await take_variables(scope, station_id, reported)
    report = await take_part(scope, station_id, "variables", part, len(reported))
    if report.status == "complete" and report.what == "FullInventory":
        gone = delete(StationVariable).where(
            StationVariable.station_id == station_id, StationVariable.reported_at < report.asked_at
        )
        await scope.db.execute(gone)


async def take_part(
    scope: Scope, station_id: UUID, kind: str, part: Part, item_count: int, text: str | None = None
) -> StationReport:
    """One message of a report, in whatever order they come; a part that came before counts once.

    A report that nobody here asked for is taken too: somebody may have asked by a command of their own.
    """
    report = await _report(scope, station_id, kind, part.request_no)
    if part.seq_no not in report.seqs:
        report.seqs = [*report.seqs, part.seq_no][-MAX_VARIABLES:]
        report.item_count += item_count
        if text is not None:
            report.parts = report.parts | {str(part.seq_no): text}
    if not part.has_more:
        report.last_seq = part.seq_no
    is_whole = report.last_seq is not None and set(range(report.last_seq + 1)) <= set(report.seqs)
    if is_whole and report.status != "complete":
        report.status, report.ended_at = "complete", scope.now
        if report.parts:
            report.text = "".join(report.parts[str(seq)] for seq in sorted(map(int, report.parts)))
            report.parts = {}
    await scope.db.flush()
    scope.publish(f"station:{station_id}", {"what": "report"})
    return report


async def _report(scope: Scope, station_id: UUID, kind: str, request_no: int) -> StationReport:
    made = (
        upsert(StationReport)
        .values(station_id=station_id, request_no=request_no, kind=kind, asked_at=scope.now)
        .on_conflict_do_nothing()
    )
    await scope.db.execute(made)
    query = (
        select(StationReport)
        .where(StationReport.station_id == station_id, StationReport.request_no == request_no)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await scope.db.execute(query)).scalar_one()


async def next_seq(scope: Scope, station_id: UUID, request_no: int) -> int:
    """For reports whose parts carry no number."""
    query = select(StationReport.seqs).where(
        StationReport.station_id == station_id, StationReport.request_no == request_no
    )
    return len((await scope.db.execute(query)).scalar_one_or_none() or [])


_STATUS_OF = {
    "Rejected": "rejected", "Invalid": "rejected", "NotSupported": "not_supported", "EmptyResultSet": "empty",
    "Unknown": "empty",
}  # fmt: skip


async def report_answered(
    scope: Scope, station_id: UUID, request_no: int, command_status: str, word: str | None
) -> StationReport | None:
    """The station's answer to the request itself: accepted ones stay open for their parts. The report that ended."""
    query = select(StationReport).where(
        StationReport.station_id == station_id, StationReport.request_no == request_no, StationReport.status == "open"
    )  # fmt: skip
    report = (await scope.db.execute(query.with_for_update())).scalar_one_or_none()
    if report is None or (command_status == "accepted" and word in (None, "Accepted")):
        return None
    failed = {"failed": "not_supported", "unknown": "unknown"}
    report.status = failed.get(command_status) or _STATUS_OF.get(word or "", "rejected")
    report.ended_at = scope.now
    scope.publish(f"station:{station_id}", {"what": "report"})
    return report
