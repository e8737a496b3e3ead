"""DataTransfer of stations whose vendors tell signed readings and keys in a way of their own.

- `generalConfiguration` / `setMeterConfiguration` (has.to.be): `{"meters": [{"connectorId", "publicKey", …}]}`.
- Any vendor: data that is itself a record in a format we read, or an object that holds one in `signedMeterData`,
  `signedData` or `ocmf`, and says `transactionId` or `connectorId`.

Whatever else comes is answered UnknownVendorId, as OCPP 1.6 4.3 and 2.0.1 P02 have it.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from app.charging import service as charging
from app.charging.reports import ENERGY, Reading
from app.metering import keys
from app.metering.verification import detect
from app.stations import service as stations
from tenants.scope import Scope

UNKNOWN = {"status": "UnknownVendorId"}
ACCEPTED, REFUSED = {"status": "Accepted"}, {"status": "Rejected"}
MAX_EVSE = 100
_HOLDERS = ("signedMeterData", "signedData", "ocmf")


async def data_transfer(
    scope: Scope, station_id: UUID, payload: dict[str, Any], received_at: datetime
) -> dict[str, Any]:
    data = payload.get("data")
    told = _object(data)
    if (payload.get("vendorId"), payload.get("messageId")) == (
        "generalConfiguration",
        "setMeterConfiguration",
    ):
        noted = [await _note(scope, station_id, evse_no, key) for evse_no, key in _keys(told)]
        return ACCEPTED if noted and all(noted) else REFUSED
    record = _record(data, told)
    if record is None:
        return UNKNOWN
    transaction, evse_no = told.get("transactionId"), _evse_no(told)
    reading = Reading(
        measurand=ENERGY, unit="Wh", value=None, raw_value=record[:200], signed_data=record, sampled_at=received_at,
        received_at=received_at, context="Other",
    )  # fmt: skip
    named = str(transaction)[:36] if isinstance(transaction, int | str) and transaction != "" else None
    is_known = await charging.signed_reported(scope, station_id, evse_no, named, reading)
    return ACCEPTED if is_known else REFUSED


async def _note(scope: Scope, station_id: UUID, evse_no: int | None, key: str) -> bool:
    """For an EVSE that there is."""
    if evse_no is None or await stations.find_evse(scope, station_id, evse_no) is None:
        return False
    return await keys.note_key(scope, station_id, evse_no, key) is not None


def _object(data: Any) -> dict[str, Any]:
    """1.6 has text only, 2.x anything; both may hold an object in JSON."""
    if isinstance(data, str) and data.lstrip().startswith("{"):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            return {}
    return data if isinstance(data, dict) else {}


def _keys(told: dict[str, Any]) -> Iterator[tuple[int | None, str]]:
    meters = told.get("meters")
    for one in meters[:MAX_EVSE] if isinstance(meters, list) else []:
        if isinstance(one, dict) and isinstance(one.get("publicKey"), str):
            yield _evse_no(one), one["publicKey"]


def _record(data: Any, told: dict[str, Any]) -> str | None:
    """As it was told: with a key beside it the whole object, which `metering` opens."""
    for name in _HOLDERS:
        if isinstance(told.get(name), str) and told[name].strip():
            return json.dumps(told) if name == "signedMeterData" else told[name]
    return data if isinstance(data, str) and detect(data) else None


def _evse_no(told: dict[str, Any]) -> int | None:
    number = told.get("connectorId", told.get("evseId"))
    if isinstance(number, str) and number.isascii() and number.isdecimal():
        number = int(number[:4])
    if isinstance(number, bool) or not isinstance(number, int):
        return None
    return number if 1 <= number <= MAX_EVSE else None
