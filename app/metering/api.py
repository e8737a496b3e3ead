"""REST: checking signed data, keys of meters, and where only signed energy is billed (below `/api/v1`)."""

import asyncio
from typing import Any

from litestar import get, post, put
from sqlalchemy import select

from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, read_id, rfc3339
from app.metering import keys, service
from app.metering.models import MeterKey
from app.metering.verification import Checked, charge_of
from tenants.scope import Scope

_TAGS = ["metering"]


@post("/signed-data-verifications", status_code=200, opt={"permission": "sessions.view"}, tags=_TAGS,
      summary="Whether a meter signed this: verdict and why")  # fmt: skip
async def verify_signed_data(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    """`data` as it was signed: OCMF, Alfen, PCDF, EDL40 or ISA-EDL-40P (SML, in hexadecimal or base64), a file of
    transparency software, a MENNEKES bill, or OCPP's SignedMeterValue in JSON. Without `public_key` the one that came
    with the data is taken, and `is_own_key` says so: it proves nothing about whose meter it was. `verdict` is that of
    the worst record; `energy_wh` what a begin and an end give."""
    decisive, checked = await asyncio.to_thread(
        service.look_at, data.get("data"), data.get("format"), data.get("public_key")
    )
    charge = charge_of(checked)
    return {
        "verdict": decisive.verdict, "reason": decisive.reason, "is_own_key": any(one.is_own_key for one in checked),
        "energy_wh": None if charge.energy_wh is None else f"{charge.energy_wh.normalize():f}",
        "energy_reason": charge.reason, "records": [_checked(one) for one in checked],
    }  # fmt: skip


def _checked(one: Checked) -> dict[str, Any]:
    record = one.record
    told: dict[str, Any] = {"verdict": one.verdict, "reason": one.reason, "is_own_key": one.is_own_key}
    if record is None:
        return told
    return told | {
        "format": record.format, "curve": record.curve, "meter": record.meter, "identity": record.identity,
        "page": record.pages[1] if record.pages else None,
        "readings": [
            {"register": reading.register, "energy_wh": f"{reading.energy_wh.normalize():f}", "at": rfc3339(reading.at),
             "kind": reading.kind, "fault": reading.fault or record.fault}
            for reading in record.readings
        ],
    }  # fmt: skip


@get(
    "/meter-keys",
    opt={"permission": "stations.view"},
    tags=_TAGS,
    summary="Public keys of meters, newest first",
)
async def list_keys(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(MeterKey), MeterKey.id, "meter_key", limit, after)
    return found.answer([_key(row) for row in found.rows])


@post("/meter-keys", status_code=201, opt={"permission": "stations.manage"}, tags=_TAGS,
      summary="A key as it stands on the meter's plate: trusted from now on")  # fmt: skip
async def add_key(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    """`public_key` in hexadecimal or base64, as DER or as a point; for a bare point also `curve`."""
    station_id, evse_no = read_id("charging_station", data, "station_id"), data.get("evse_no", 1)
    if station_id is None:
        raise Invalid.field("station_id", "required", "Say station_id.")
    if not isinstance(evse_no, int) or isinstance(evse_no, bool):
        raise Invalid.field("evse_no", "evse_no", "evse_no is a whole number.")
    said, curve = data.get("public_key"), data.get("curve") or ""
    if not isinstance(said, str) or not isinstance(curve, str):
        raise Invalid.field("public_key", "text", "public_key and curve are texts.")
    return _key(await keys.add_key(tenant_scope, station_id, evse_no, said, curve))


@post("/meter-keys/{key_id:str}/decisions", status_code=200, opt={"permission": "stations.manage"}, tags=_TAGS,
      summary="Trust or refuse a key: `decision` is trust or refuse")  # fmt: skip
async def decide_key(tenant_scope: Scope, key_id: str, data: dict[str, Any]) -> dict[str, Any]:
    key = parse_id("meter_key", key_id)
    return _key(await keys.decide_key(tenant_scope, key, str(data.get("decision") or "")))


def _key(row: MeterKey) -> dict[str, Any]:
    return {
        "id": public_id("meter_key", row.id), "station_id": public_id("charging_station", row.station_id),
        "evse_no": row.evse_no, "meter": row.meter or None, "curve": row.curve, "public_key": row.public_key.hex(),
        "fingerprint": keys.fingerprint(row.public_key), "status": row.status, "source": row.source,
        "is_compared": row.is_compared, "told_at": rfc3339(row.told_at), "decided_at": rfc3339(row.decided_at),
        "decided_by": row.decided_by or None,
    }  # fmt: skip


@get("/metering-policy", opt={"permission": "settings.view"}, tags=_TAGS,
     summary="Where only energy that the meter signed is billed")  # fmt: skip
async def get_policy(tenant_scope: Scope) -> dict[str, Any]:
    return {"countries": await service.countries_of(tenant_scope)}


@put("/metering-policy", opt={"permission": "settings.manage"}, tags=_TAGS,
     summary="Bill only signed energy at sites in these countries (ISO 3166-1 alpha-3)")  # fmt: skip
async def set_policy(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    countries = data.get("countries")
    if not isinstance(countries, list) or not all(isinstance(one, str) for one in countries):
        raise Invalid.field("countries", "list", "countries is a list of three-letter codes.")
    await service.set_countries(tenant_scope, countries)
    return {"countries": await service.countries_of(tenant_scope)}


routes = [verify_signed_data, list_keys, add_key, decide_key, get_policy, set_policy]
