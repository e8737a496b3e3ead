"""Screen reads of the device model."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select

from app.device_model.models import StationNotice, StationReport, StationVariable, VariableMonitor
from app.device_model.monitors import GRAVE
from app.device_model.service import SILENT_AFTER
from app.stations.models import ChargingStation, StationCommand
from tenants.scope import Scope

AT_ONCE = 150  # a page shows all components up to so many variables, then one at a time


@dataclass(frozen=True, slots=True)
class VariableFilter:
    q: str = ""
    component: str | None = None


@dataclass(frozen=True, slots=True)
class VariableList:
    """`components` with their counts; `groups` are the rows to show, by component."""

    total: int
    components: list[tuple[str, int]]
    groups: list[tuple[str, list[StationVariable]]]


async def variables(scope: Scope, station_id: UUID, wanted: VariableFilter) -> VariableList:
    mine = StationVariable.station_id == station_id
    counted = select(StationVariable.component, func.count()).where(mine).group_by(StationVariable.component)
    counts = [
        (str(name), int(count))
        for name, count in (await scope.db.execute(counted.order_by(StationVariable.component))).all()
    ]
    total = sum(count for _name, count in counts)
    query = select(StationVariable).where(mine)
    if wanted.q:
        needle = wanted.q.lower()
        query = query.where(
            or_(
                StationVariable.path_key.contains(needle, autoescape=True),
                func.lower(StationVariable.value).contains(needle, autoescape=True),
            )
        )
    elif wanted.component is not None:
        query = query.where(StationVariable.component == wanted.component)
    elif total > AT_ONCE:
        return VariableList(total, counts, [])
    groups: dict[str, list[StationVariable]] = {}
    query = query.order_by(StationVariable.component, StationVariable.path_key).limit(1000)
    for row in (await scope.db.execute(query)).scalars():
        groups.setdefault(row.component, []).append(row)
    return VariableList(total, counts, list(groups.items()))


async def find_variable(scope: Scope, station_id: UUID, path: str) -> StationVariable | None:
    query = select(StationVariable).where(
        StationVariable.station_id == station_id, StationVariable.path_key == path.lower()
    )
    return (await scope.db.execute(query)).scalar_one_or_none()


async def last_report(scope: Scope, station_id: UUID, kind: str) -> dict[str, Any] | None:
    """The newest request of this kind, with its state; one without an answer for long is `unknown`."""
    query = (
        select(StationReport)
        .where(StationReport.station_id == station_id, StationReport.kind == kind)
        .order_by(StationReport.asked_at.desc(), StationReport.id.desc())
        .limit(1)
    )
    report = (await scope.db.execute(query)).scalar_one_or_none()
    if report is None:
        return None
    is_silent = report.status == "open" and report.asked_at < scope.now - SILENT_AFTER
    return {"report": report, "status": "unknown" if is_silent else report.status}


async def waiting_count(scope: Scope, station_id: UUID, booted_at: datetime | None) -> int:
    """Variables whose change is in force after the next boot only."""
    query = select(func.count()).select_from(StationVariable).where(
        StationVariable.station_id == station_id, StationVariable.needs_reboot_since.is_not(None)
    )  # fmt: skip
    if booted_at is not None:
        query = query.where(StationVariable.needs_reboot_since > booted_at)
    return (await scope.db.execute(query)).scalar_one()


async def monitors(scope: Scope, station_id: UUID) -> list[VariableMonitor]:
    query = select(VariableMonitor).where(VariableMonitor.station_id == station_id)
    return list((await scope.db.execute(query.order_by(VariableMonitor.monitor_no))).scalars())


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice with the station it is of and, where it names one, the severity as a word."""

    row: StationNotice
    station: ChargingStation


async def notices(
    scope: Scope, *, station_id: UUID | None = None, grave_only: bool = False, limit: int = 100
) -> list[Notice]:
    """Newest first; of one station, or of all."""
    query = (
        select(StationNotice, ChargingStation)
        .join(ChargingStation, ChargingStation.id == StationNotice.station_id)
        .order_by(StationNotice.at.desc(), StationNotice.id.desc())
        .limit(limit)
    )
    if station_id is not None:
        query = query.where(StationNotice.station_id == station_id)
    if grave_only:
        query = query.where(StationNotice.severity <= GRAVE)
    return [Notice(*pair) for pair in (await scope.db.execute(query)).tuples()]


async def last_accepted(scope: Scope, station_id: UUID, action: str) -> StationCommand | None:
    """The newest command of this kind that the station took: what it was told last."""
    query = (
        select(StationCommand)
        .where(
            StationCommand.station_id == station_id, StationCommand.action == action,
            StationCommand.status == "accepted",
        )
        .order_by(StationCommand.ended_at.desc())
        .limit(1)
    )  # fmt: skip
    return (await scope.db.execute(query)).scalar_one_or_none()


async def customer_reports(scope: Scope, station_id: UUID) -> list[StationReport]:
    query = (
        select(StationReport)
        .where(StationReport.station_id == station_id, StationReport.kind == "customer_information")
        .order_by(StationReport.asked_at.desc())
        .limit(10)
    )
    return list((await scope.db.execute(query)).scalars())
