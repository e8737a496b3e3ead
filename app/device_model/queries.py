"""Screen reads of the device model."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select

from app.device_model.models import StationReport, StationVariable
from app.device_model.service import SILENT_AFTER
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
