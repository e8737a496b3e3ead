"""BootNotification and StatusNotification of many stations in one commit, each with its frames.

What needs judgement is left to the verbs: a boot that says something new, a fault, a connector
that nobody knows, a state that a wish of ours waits for. Both say the same of the same message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.charging.service import boot_key, state_key, state_of
from app.stations.reports import BootReport, StatusReport
from tenants.database import Database


@dataclass(frozen=True, slots=True)
class Told:
    """`raw` and `answer` are the frames; the answer is sent when it stands in the database."""

    tenant_id: UUID
    station_id: UUID
    received_at: datetime
    version: str
    message_id: str
    raw: str
    answer: str
    report: BootReport | StatusReport


async def report_boots(database: Database, told: Sequence[Told]) -> list[bool]:
    """Which of them were written; the others are for `service.station_booted`."""
    rows = await database.call_for_many("livery.report_boots", [_said(one, _boot(one)) for one in told])
    written = {row.n for row in rows}
    return [n in written for n in range(len(told))]


async def report_statuses(database: Database, told: Sequence[Told]) -> list[tuple[bool, UUID | None]]:
    """Whether it was written, and the session that it moved; the others are for `service.connector_reported`."""
    rows = await database.call_for_many("livery.report_statuses", [_said(one, _status(one)) for one in told])
    written = {row.n: row.session for row in rows}
    return [(n in written, written.get(n)) for n in range(len(told))]


def may_be_gathered(report: BootReport | StatusReport) -> bool:
    return isinstance(report, BootReport) or report.status != "Faulted"


def _said(one: Told, more: Mapping[str, Any]) -> tuple[UUID, UUID, dict[str, Any]]:
    frames = {
        "received": _us(one.received_at), "version": one.version, "message_id": one.message_id, "raw": one.raw,
        "answer": one.answer,
    }  # fmt: skip
    return one.tenant_id, one.station_id, frames | dict(more)


def _boot(one: Told) -> dict[str, Any]:
    report = one.report
    assert isinstance(report, BootReport)
    return {
        "vendor": report.vendor[:255], "model": report.model[:255], "serial_number": report.serial_number,
        "firmware_version": report.firmware_version, "reason": report.reason,
        "key": boot_key(one.received_at),
    }  # fmt: skip


def _status(one: Told) -> dict[str, Any]:
    report = one.report
    assert isinstance(report, StatusReport)
    state = state_of(report)
    return {
        "evse_no": report.evse_no, "connector_no": report.connector_no, "status": report.status,
        "detail": report.detail, "error_code": report.error_code, "info": report.info,
        "vendor_error_code": report.vendor_error_code, "sampled": _us(report.sampled_at), "state": state,
        "state_key": state and state_key(report.sampled_at, state),
    }  # fmt: skip


def _us(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)
