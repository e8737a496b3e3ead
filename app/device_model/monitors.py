"""Monitors of a station's variables and what they notice: OCPP 2.0.1 block N. In 1.6 there are none (`not_in_16`).

Errors: `not_in_16`, `choice`, `out_of_range`, `nothing_asked`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.device_model.models import StationNotice, StationReport, VariableMonitor
from app.device_model.paths import VariablePath
from app.device_model.reports import Part, ReportedMonitor, ReportedNotice
from app.device_model.service import (
    EVERYTHING,
    chunks,
    component_variable,
    items_per_message,
    needs_2x,
    open_report,
    take_part,
)
from app.kernel import events
from app.kernel.errors import Invalid
from app.stations import commands
from app.stations.models import StationCommand
from app.stations.redaction import names_a_secret
from tenants.scope import Scope

KINDS = ("UpperThreshold", "LowerThreshold", "Delta", "Periodic", "PeriodicClockAligned")
CRITERIA = ("ThresholdMonitoring", "DeltaMonitoring", "PeriodicMonitoring")
BASES = ("All", "FactoryDefault", "HardWiredOnly")
SEVERITIES = (
    "Danger", "Hardware failure", "System failure", "Critical", "Error", "Alert", "Warning", "Notice", "Informational",
    "Debug",
)  # fmt: skip
GRAVE = 4  # severities up to here ask for action (OCPP 2.0.1 part 2, SeverityType)
_KEPT = timedelta(days=180)
_TEXTS_KEPT = timedelta(days=30)
_WHAT = "monitors of its variables"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """`value` is the threshold or delta, for periodic ones the interval in seconds; `replaces` an existing monitor."""

    path: VariablePath
    kind: str
    value: Decimal
    severity: int = 5
    in_transactions_only: bool = False
    replaces: int | None = None


# --- asking ------------------------------------------------------------------------------------------------------


def _severity(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise Invalid.field("severity", "out_of_range", "The severity is 0 (danger) to 9 (debug).")
    return value


async def set_monitors(scope: Scope, station_id: UUID, wishes: Sequence[Wish]) -> list[StationCommand]:
    """N04 SetVariableMonitoring."""
    await needs_2x(scope, station_id, _WHAT)
    if not wishes:
        raise Invalid.field("monitors", "nothing_asked", "Name at least one monitor.")
    data = [_wire(wish) for wish in wishes]
    return [
        await commands.send_command(
            scope, station_id, "SetVariableMonitoring", {"setMonitoringData": list(group)}
        )
        for group in chunks(data, await items_per_message(scope, station_id, "SetVariableMonitoring"))
    ]


def _wire(wish: Wish) -> dict[str, Any]:
    if wish.kind not in KINDS:
        raise Invalid.field("kind", "choice", f"A monitor is one of {', '.join(KINDS)}.")
    if not wish.path.component:
        raise Invalid.field("path", "path", f"{wish.path}: name it as Component/Variable.")
    data = wish.path.wire() | {
        "type": wish.kind, "value": float(wish.value), "severity": _severity(wish.severity),
    }  # fmt: skip
    if wish.in_transactions_only:
        data["transaction"] = True
    return data | ({"id": wish.replaces} if wish.replaces is not None else {})


async def clear_monitors(scope: Scope, station_id: UUID, numbers: Sequence[int]) -> list[StationCommand]:
    """N06 ClearVariableMonitoring, never more in one message than the station takes."""
    await needs_2x(scope, station_id, _WHAT)
    if not numbers:
        raise Invalid.field("ids", "nothing_asked", "Name at least one monitor.")
    size = await items_per_message(scope, station_id, "ClearVariableMonitoring")
    return [
        await commands.send_command(scope, station_id, "ClearVariableMonitoring", {"id": list(group)})
        for group in chunks(numbers, size)
    ]


async def set_monitoring_base(scope: Scope, station_id: UUID, base: str) -> StationCommand:
    """N03: everything, as it left the factory, or only what is hard-wired."""
    await needs_2x(scope, station_id, _WHAT)
    if base not in BASES:
        raise Invalid.field("base", "choice", f"base is one of {', '.join(BASES)}.")
    return await commands.send_command(scope, station_id, "SetMonitoringBase", {"monitoringBase": base})


async def set_monitoring_level(scope: Scope, station_id: UUID, severity: int) -> StationCommand:
    """N05: the station reports what is as severe as this or more (0 is the most)."""
    await needs_2x(scope, station_id, _WHAT)
    payload = {"severity": _severity(severity)}
    return await commands.send_command(scope, station_id, "SetMonitoringLevel", payload)


async def request_monitors(
    scope: Scope, station_id: UUID, *, criteria: Sequence[str] = (), paths: Sequence[VariablePath] = ()
) -> list[StationCommand]:
    """N02 GetMonitoringReport; everything where nothing is named."""
    await needs_2x(scope, station_id, _WHAT)
    if set(criteria) - set(CRITERIA):
        raise Invalid.field("criteria", "choice", f"criteria are {', '.join(CRITERIA)}.")
    asked: dict[str, Any] = {"monitoringCriteria": list(criteria)} if criteria else {}
    sent = []
    for group in chunks(paths, await items_per_message(scope, station_id, "GetReport")) or [()]:
        what = ", ".join([*criteria, *map(str, group)])[:200] or EVERYTHING
        report = await open_report(scope, station_id, "monitors", what)
        payload = asked | {"requestId": report.request_no}
        if group:
            payload["componentVariable"] = [component_variable(path) for path in group]
        sent.append(await commands.send_command(scope, station_id, "GetMonitoringReport", payload))
    return sent


# --- taking ------------------------------------------------------------------------------------------------------


async def take_monitors(scope: Scope, station_id: UUID, monitors: Sequence[ReportedMonitor]) -> None:
    for one in sorted(monitors, key=lambda monitor: monitor.monitor_no):
        values = {
            "path": str(one.path), "kind": one.kind, "value": one.value, "severity": one.severity,
            "in_transactions_only": one.in_transactions_only, "reported_at": scope.now,
        }  # fmt: skip
        statement = (
            upsert(VariableMonitor)
            .values(station_id=station_id, monitor_no=one.monitor_no, **values)
            .on_conflict_do_update(index_elements=["tenant_id", "station_id", "monitor_no"], set_=values)
        )
        await scope.db.execute(statement)
    scope.publish(f"station:{station_id}", {"what": "monitors"})


async def take_monitor_part(
    scope: Scope, station_id: UUID, part: Part, monitors: Sequence[ReportedMonitor]
) -> None:
    """N02 NotifyMonitoringReport. After the last part of a report of everything, what it did not name is gone."""
    await take_monitors(scope, station_id, monitors)
    report = await take_part(scope, station_id, "monitors", part, len(monitors))
    if report.status == "complete" and report.what == EVERYTHING:
        gone = delete(VariableMonitor).where(
            VariableMonitor.station_id == station_id, VariableMonitor.reported_at < report.asked_at
        )
        await scope.db.execute(gone)


async def monitors_cleared(scope: Scope, station_id: UUID, numbers: Sequence[int]) -> None:
    """Those the station cleared, or does not know."""
    gone = delete(VariableMonitor).where(
        VariableMonitor.station_id == station_id, VariableMonitor.monitor_no.in_(numbers)
    )
    await scope.db.execute(gone)
    scope.publish(f"station:{station_id}", {"what": "monitors"})


async def none_are_left(scope: Scope, station_id: UUID) -> None:
    """The station said so to a question for everything."""
    await scope.db.execute(delete(VariableMonitor).where(VariableMonitor.station_id == station_id))


async def base_was_set(scope: Scope, station_id: UUID, base: str) -> None:
    """Monitors of our own end with the factory's base or the hard-wired one (N03.FR.03-05): they are read anew."""
    if base != "All":
        await none_are_left(scope, station_id)


async def take_notices(
    scope: Scope, station_id: UUID, notices: Sequence[ReportedNotice], received_at: Any
) -> None:
    """N07, N08 NotifyEvent: each once; what is grave and not over becomes news (`StationAlerted`)."""
    numbers = {one.monitor_no for one in notices if one.monitor_no is not None}
    query = select(VariableMonitor).where(
        VariableMonitor.station_id == station_id, VariableMonitor.monitor_no.in_(numbers)
    )
    monitors = {row.monitor_no: row.severity for row in (await scope.db.execute(query)).scalars()}
    for one in notices:
        severity = severity_of(one, monitors.get(one.monitor_no) if one.monitor_no is not None else None)
        statement = (
            upsert(StationNotice)
            .values(
                station_id=station_id, event_no=one.event_no, at=one.at, received_at=received_at, path=str(one.path),
                trigger=one.trigger, notification=one.notification, severity=severity, is_cleared=one.is_cleared,
                value=None if names_a_secret(one.path.variable) else one.value, cause_no=one.cause_no,
                monitor_no=one.monitor_no, tech_code=one.tech_code, tech_info=one.tech_info,
                ocpp_transaction_id=one.ocpp_transaction_id,
            )
            .on_conflict_do_nothing()
            .returning(StationNotice.id)
        )  # fmt: skip
        made = (await scope.db.execute(statement)).scalar_one_or_none()
        if made is not None and severity is not None and severity <= GRAVE and not one.is_cleared:
            data = {"path": str(one.path), "severity": severity, "trigger": one.trigger}
            await events.emit(scope, "StationAlerted", "charging_station", station_id, data)
    scope.publish(f"station:{station_id}", {"what": "notice"})


def severity_of(notice: ReportedNotice, of_monitor: int | None) -> int | None:
    """What the event says itself (2.1), else its monitor; a component that reports a problem is an error (pure)."""
    if notice.severity is not None:
        return notice.severity
    if of_monitor is not None:
        return of_monitor
    if notice.path.variable.lower() == "problem" and (notice.value or "").lower() == "true":
        return GRAVE
    return None


async def forget_old(scope: Scope) -> None:
    """Notices after half a year, reports (customer information among them) after a month."""
    await scope.db.execute(delete(StationNotice).where(StationNotice.received_at < scope.now - _KEPT))
    await scope.db.execute(delete(StationReport).where(StationReport.asked_at < scope.now - _TEXTS_KEPT))
