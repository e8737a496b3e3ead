"""OCPP 2.0.1 <-> our verbs: the domain speaks its words, so this file only reads and writes shapes."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.access.verdict import Accepted, AuthorizationStatus, IdTokenValue, Refused
from app.charging import ingest as ingesting
from app.charging import service as charging
from app.charging.reports import TransactionReport
from app.stations import service as stations
from app.stations.reports import CONNECTOR_STATUSES, BootReport, BootVerdict, StatusReport
from ocpp_gateway import (
    device_reports,
    energy_reports,
    lenient,
    maintenance_reports,
    meter_values,
    signed_reports,
)
from ocpp_gateway.codec import timestamp
from tenants.scope import Scope

SUBPROTOCOL = "ocpp2.0.1"
MAX_NO = 64
_KINDS = ("Started", "Updated", "Ended")


def id_token_info(
    status: AuthorizationStatus, group: str | None, expires_at: datetime | None
) -> dict[str, Any]:
    info: dict[str, Any] = {"status": status}
    if group:
        info["groupIdToken"] = {"idToken": group[:36], "type": "Central"}
    if expires_at is not None:
        info["cacheExpiryDateTime"] = timestamp(expires_at)
    return info


def token_asked(payload: dict[str, Any], *, longest: int = 36) -> IdTokenValue:
    token = payload.get("idToken")
    if not isinstance(token, dict):
        raise lenient.Unanswerable("OccurenceConstraintViolation", "idToken is missing")
    return IdTokenValue(
        lenient.needed_text(token, "idToken", longest=longest), lenient.needed_text(token, "type", longest=20)
    )


def authorize_answer(verdict: Accepted | Refused) -> dict[str, Any]:
    expires = verdict.expires_at if isinstance(verdict, Accepted) else None
    return {"idTokenInfo": id_token_info(verdict.status, verdict.group_value, expires)}


def read_boot(payload: dict[str, Any], _received_at: datetime) -> BootReport:
    station = lenient.part(payload, "chargingStation")
    modem = lenient.part(station, "modem")
    return BootReport(
        vendor=lenient.text(station, "vendorName") or "?", model=lenient.text(station, "model") or "?",
        reason=lenient.text(payload, "reason", most=40) or "Unknown",
        serial_number=lenient.text(station, "serialNumber"),
        firmware_version=lenient.text(station, "firmwareVersion"), iccid=lenient.text(modem, "iccid"),
        imsi=lenient.text(modem, "imsi"),
    )  # fmt: skip


async def boot(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    verdict = await stations.station_booted(scope, station_id, read_boot(payload, received_at))
    if verdict.status == "Accepted":
        await charging.station_rebooted(scope, station_id)
    return boot_answer(verdict, received_at)


def boot_answer(verdict: BootVerdict, received_at: datetime) -> dict[str, Any]:
    return {"currentTime": timestamp(received_at), "interval": verdict.interval_s, "status": verdict.status}


async def heartbeat(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    return {"currentTime": timestamp(received_at)}


def read_status(payload: dict[str, Any], received_at: datetime) -> StatusReport:
    evse = lenient.needed_number(payload, "evseId", 0, MAX_NO)
    connector = lenient.needed_number(payload, "connectorId", 0, MAX_NO)
    word = lenient.text(payload, "connectorStatus") or ""
    sampled_at, _ = lenient.plausible(lenient.moment(payload.get("timestamp")), received_at)
    return StatusReport(
        evse_no=evse if connector else 0, connector_no=connector,
        status=word if word in CONNECTOR_STATUSES else "Faulted",  # pyright: ignore[reportArgumentType]
        error_code=None if word in CONNECTOR_STATUSES else "OtherError", sampled_at=sampled_at,
        received_at=received_at,
    )  # fmt: skip


async def status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    await stations.connector_reported(scope, station_id, read_status(payload, received_at))
    return {}


async def transaction_event(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """E01-E15. A report: what is missing is worked out, never refused, but for its kind and its transaction's id."""
    info = lenient.part(payload, "transactionInfo")
    kind = payload.get("eventType")
    transaction = lenient.text(info, "transactionId", most=64)
    if kind not in _KINDS or transaction is None:
        raise lenient.Unanswerable("OccurenceConstraintViolation", "eventType and transactionId are needed")
    at, doubtful = lenient.plausible(lenient.moment(payload.get("timestamp")), received_at)
    evse = lenient.part(payload, "evse")
    report = TransactionReport(
        kind=kind, at=at, received_at=received_at, at_is_doubtful=doubtful, ocpp_transaction_id=transaction,
        evse_no=_number(evse, "id"), connector_no=_number(evse, "connectorId"),
        id_token=_token(payload.get("idToken")),
        seq_no=lenient.integer(payload, "seqNo"), offline=payload.get("offline") is True,
        trigger_reason=lenient.text(payload, "triggerReason", most=40),
        charging_state=lenient.text(info, "chargingState", most=40),
        stopped_reason=lenient.text(info, "stoppedReason", most=40),
        remote_start_id=lenient.integer(info, "remoteStartId"),
        reservation_no=lenient.integer(payload, "reservationId"),
        readings=tuple(meter_values.normalise(payload.get("meterValue"), received_at)),
    )  # fmt: skip
    verdict = await charging.report_transaction(scope, station_id, report)
    is_watched = kind == "Ended" and not report.offline  # at what a queue tells nobody stands and looks
    answer = await energy_reports.total_cost(scope, station_id, transaction) if is_watched else {}
    if verdict.id_token_status is None:
        return answer
    info = id_token_info(verdict.id_token_status, verdict.group_value, verdict.expires_at)
    return answer | {"idTokenInfo": info}


def _token(token: Any) -> IdTokenValue | None:
    value = lenient.text(token, "idToken", most=255) if isinstance(token, dict) else None
    return IdTokenValue(value, lenient.text(token, "type", most=20)) if value else None


def _number(evse: dict[str, Any], name: str) -> int | None:
    number = lenient.integer(evse, name)
    return number if number is not None and 1 <= number <= MAX_NO else None


async def metering(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    evse = lenient.needed_number(payload, "evseId", 0, MAX_NO)
    readings = meter_values.normalise(payload.get("meterValue"), received_at)
    await ingesting.ingest(scope, station_id, evse, None, readings)
    return {}


GATHERED = {"BootNotification": read_boot, "StatusNotification": read_status}
HANDLERS = {
    "BootNotification": boot, "Heartbeat": heartbeat, "StatusNotification": status,
    "TransactionEvent": transaction_event, "MeterValues": metering, "DataTransfer": signed_reports.data_transfer,
    **device_reports.HANDLERS_201, **maintenance_reports.HANDLERS_201, **energy_reports.HANDLERS,
}  # fmt: skip

_GOOD = frozenset({
    "Accepted", "Scheduled", "Unlocked", "RebootRequired", "EmptyResultSet", "AcceptedCanceled", "Unpublished",
})  # fmt: skip
_RESULTS = {
    "setVariableResult": "attributeStatus", "setMonitoringResult": "status", "clearMonitoringResult": "status",
}  # fmt: skip


def outcome(action: str, answer: dict[str, Any]) -> str:
    """Whether a station's CALLRESULT means that it does what we asked. Variables are answered one by one."""
    word = answer.get("status")
    if isinstance(word, str):
        return "accepted" if word in _GOOD else "rejected"
    for name, status in _RESULTS.items():
        if isinstance(answer.get(name), list):
            words = [str(item.get(status)) for item in answer[name] if isinstance(item, dict)]
            return "accepted" if all(one in _GOOD for one in words) else "rejected"
    return "accepted"


def boot_trigger() -> tuple[str, dict[str, Any]]:
    return "TriggerMessage", {"requestedMessage": "BootNotification"}
