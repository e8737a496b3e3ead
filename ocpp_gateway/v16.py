"""OCPP 1.6J <-> our verbs: the only file that knows 1.6. The domain speaks 2.0.1 (glossary)."""

import hashlib
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.access.verdict import Accepted, AuthorizationStatus, IdTokenValue, Refused
from app.charging import ingest as ingesting
from app.charging import service as charging
from app.charging.reports import TransactionReport
from app.stations import service as stations
from app.stations.reports import BootReport, BootVerdict, ConnectorStatus, StatusReport
from ocpp_gateway import lenient, maintenance_reports, meter_values, signed_reports
from ocpp_gateway.codec import timestamp
from tenants.scope import Scope

SUBPROTOCOL = "ocpp1.6"
MAX_CONNECTOR = 64

# 1.6's finer words map up; the word itself is kept as detail.
_STATUS: dict[str, tuple[ConnectorStatus, str | None]] = {
    "Available": ("Available", None), "Preparing": ("Occupied", "Preparing"), "Charging": ("Occupied", "Charging"),
    "SuspendedEV": ("Occupied", "SuspendedEV"), "SuspendedEVSE": ("Occupied", "SuspendedEVSE"),
    "Finishing": ("Occupied", "Finishing"), "Reserved": ("Reserved", None), "Unavailable": ("Unavailable", None),
    "Faulted": ("Faulted", None), "Occupied": ("Occupied", None),
}  # fmt: skip
_ID_TAG_STATUS = {
    "Accepted": "Accepted",
    "Blocked": "Blocked",
    "Expired": "Expired",
    "ConcurrentTx": "ConcurrentTx",
}


def id_tag_info(
    status: AuthorizationStatus, group: str | None, expires_at: datetime | None
) -> dict[str, Any]:
    """1.6 knows five words; all others are Invalid."""
    info: dict[str, Any] = {"status": _ID_TAG_STATUS.get(status, "Invalid")}
    if group:
        info["parentIdTag"] = group[:20]
    if expires_at is not None:
        info["expiryDate"] = timestamp(expires_at)
    return info


def token_asked(payload: dict[str, Any]) -> IdTokenValue:
    """Authorize is a question, so it is read strictly (ocpp.md 2, row 33)."""
    return IdTokenValue(lenient.needed_text(payload, "idTag", longest=20))


def authorize_answer(verdict: Accepted | Refused) -> dict[str, Any]:
    expires = verdict.expires_at if isinstance(verdict, Accepted) else None
    return {"idTagInfo": id_tag_info(verdict.status, verdict.group_value, expires)}


def read_boot(payload: dict[str, Any], _received_at: datetime) -> BootReport:
    return BootReport(
        vendor=lenient.text(payload, "chargePointVendor") or "?",
        model=lenient.text(payload, "chargePointModel") or "?",
        serial_number=lenient.text(payload, "chargePointSerialNumber")
        or lenient.text(payload, "chargeBoxSerialNumber"),
        firmware_version=lenient.text(payload, "firmwareVersion"), iccid=lenient.text(payload, "iccid"),
        imsi=lenient.text(payload, "imsi"), meter_type=lenient.text(payload, "meterType"),
        meter_serial_number=lenient.text(payload, "meterSerialNumber"),
    )  # fmt: skip


async def boot(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    verdict = await stations.station_booted(scope, station_id, read_boot(payload, received_at))
    if verdict.status == "Accepted":
        await charging.station_rebooted(scope, station_id)
    return boot_answer(verdict, received_at)


def boot_answer(verdict: BootVerdict, received_at: datetime) -> dict[str, Any]:
    answer = {"currentTime": timestamp(received_at), "interval": verdict.interval_s, "status": verdict.status}
    # Some read 1.5's name (ocpp.md 3, no. 22); nothing is added for others.
    return answer | (
        {"heartbeatInterval": verdict.interval_s} if "boot_interval_name" in verdict.quirks else {}
    )


async def heartbeat(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    return {"currentTime": timestamp(received_at)}


def read_status(payload: dict[str, Any], received_at: datetime) -> StatusReport:
    number = lenient.needed_number(payload, "connectorId", 0, MAX_CONNECTOR)
    word = lenient.text(payload, "status") or ""
    known, detail = _STATUS.get(word, ("Faulted", None))
    error = lenient.text(payload, "errorCode")
    if word not in _STATUS:
        error = "OtherError"  # a vendor's own word (ocpp.md 3, no. 49); the raw frame keeps it
    sampled_at, _ = lenient.plausible(lenient.moment(payload.get("timestamp")), received_at)
    return StatusReport(
        evse_no=number, connector_no=1 if number else 0, status=known, detail=detail, sampled_at=sampled_at,
        received_at=received_at, error_code=None if error == "NoError" else error,
        info=lenient.text(payload, "info"), vendor_id=lenient.text(payload, "vendorId"),
        vendor_error_code=lenient.text(payload, "vendorErrorCode"),
    )  # fmt: skip


async def status(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    report = read_status(payload, received_at)
    await stations.connector_reported(scope, station_id, report)
    await charging.connector_activity(scope, station_id, report)
    return {}


async def start(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    connector = lenient.needed_number(payload, "connectorId", 1, MAX_CONNECTOR)
    at, doubtful = lenient.plausible(lenient.moment(payload.get("timestamp")), received_at)
    meter = lenient.integer(payload, "meterStart")
    tag = lenient.text(payload, "idTag", most=255) or ""
    report = TransactionReport(
        kind="Started", at=at, received_at=received_at, at_is_doubtful=doubtful, evse_no=connector, connector_no=1,
        id_token=IdTokenValue(tag), meter_start_wh=None if meter is None else Decimal(meter),
        natural_key=_key("start", payload, "connectorId", "timestamp", "meterStart", "idTag"),
        offline=(received_at - at).total_seconds() > 60,
        reservation_no=lenient.integer(payload, "reservationId"),
    )  # fmt: skip
    verdict = await charging.report_transaction(scope, station_id, report)
    info = id_tag_info(verdict.id_token_status or "Invalid", verdict.group_value, verdict.expires_at)
    return {"transactionId": int(verdict.ocpp_transaction_id), "idTagInfo": info}


async def stop(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    """Always a CALLRESULT: a CALLERROR here makes real stations send it for ever (ocpp.md 3, no. 28)."""
    at, doubtful = lenient.plausible(lenient.moment(payload.get("timestamp")), received_at)
    number = lenient.integer(payload, "transactionId")
    meter = lenient.integer(payload, "meterStop")
    tag = lenient.text(payload, "idTag", most=255)
    report = TransactionReport(
        kind="Ended", at=at, received_at=received_at, at_is_doubtful=doubtful,
        ocpp_transaction_id=str(number) if number is not None and number > 0 else None,
        id_token=IdTokenValue(tag) if tag else None, meter_stop_wh=None if meter is None else Decimal(meter),
        stopped_reason=lenient.text(payload, "reason", most=40), offline=(received_at - at).total_seconds() > 60,
        natural_key=_key("stop", payload, "transactionId", "timestamp", "meterStop", "idTag"),
        readings=tuple(meter_values.normalise(payload.get("transactionData"), received_at)),
    )  # fmt: skip
    verdict = await charging.report_transaction(scope, station_id, report)
    if tag is None or verdict.id_token_status is None:
        return {}
    return {"idTagInfo": id_tag_info(verdict.id_token_status, verdict.group_value, verdict.expires_at)}


def _key(kind: str, payload: dict[str, Any], *fields: str) -> str:
    """A retry has a new message id and the same key, also where its queue kept the time to the second, or in other
    letters."""
    at = lenient.moment(payload.get("timestamp"))
    told = payload | ({"timestamp": int(at.timestamp())} if at else {})
    said = "|".join([kind, *(str(told.get(name)) for name in fields)])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


async def metering(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    connector = lenient.needed_number(payload, "connectorId", 0, MAX_CONNECTOR)
    number = lenient.integer(payload, "transactionId")
    readings = meter_values.normalise(payload.get("meterValue", payload.get("values")), received_at)
    transaction = str(number) if number is not None and number > 0 else None
    await ingesting.ingest(scope, station_id, connector, transaction, readings)
    return {}


# Read alike by the verb and by what is gathered for many stations.
GATHERED = {"BootNotification": read_boot, "StatusNotification": read_status}
HANDLERS = {
    "BootNotification": boot, "Heartbeat": heartbeat, "StatusNotification": status, "StartTransaction": start,
    "StopTransaction": stop, "MeterValues": metering, "DataTransfer": signed_reports.data_transfer,
    **maintenance_reports.HANDLERS_16,
}  # fmt: skip

_GOOD = frozenset({"Accepted", "Scheduled", "Unlocked", "RebootRequired", "AcceptedCanceled"})


def outcome(action: str, answer: dict[str, Any]) -> str:
    """Whether a station's CALLRESULT means that it does what we asked; an answer without status does."""
    word = answer.get("status")
    return "accepted" if not isinstance(word, str) or word in _GOOD else "rejected"


def boot_trigger() -> tuple[str, dict[str, Any]]:
    return "TriggerMessage", {"requestedMessage": "BootNotification"}
