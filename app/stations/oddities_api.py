"""REST: what is odd about stations: quirks of makes, alerts, quarantine, and reports that nobody could handle."""

from typing import Any

from litestar import delete, get, post
from sqlalchemy import select

from app.kernel.errors import Invalid
from app.kernel.ids import parse_id, public_id
from app.kernel.rest import listed, read_id, rfc3339
from app.stations import alerts, capabilities, makes, parking, quirks, service
from app.stations.models import ParkedMessage, StationAlert, StationQuirk
from app.stations.redaction import mask_frame
from tenants.scope import Scope

_TAGS = ["stations"]
_PARKED = ("parked", "retrying", "handled", "discarded")

# --- quirks ------------------------------------------------------------------------------------------------------


@get("/quirks", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="Quirks there are, what we do about each, and the makes that are known for it")  # fmt: skip
async def list_kinds_of_quirks(tenant_scope: Scope) -> dict[str, Any]:
    return {"data": [_kind(one) for one in quirks.QUIRKS.values()], "next_cursor": None}


def _kind(one: quirks.Quirk) -> dict[str, Any]:
    known = [preset for preset in quirks.PRESETS if preset.quirk == one.name]
    return {
        "quirk": one.name, "label": one.label, "says": one.says, "effect": one.effect,
        "known_makes": [{"vendor": row.vendor, "model": row.model, "source": row.source} for row in known],
    }  # fmt: skip


@get("/station-quirks", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="Quirks of makes that you wrote down, newest first")  # fmt: skip
async def list_quirks(tenant_scope: Scope, limit: int = 50, after: str | None = None) -> dict[str, Any]:
    found = await listed(tenant_scope, select(StationQuirk), StationQuirk.id, "station_quirk", limit, after)
    return found.answer([_quirk(row) for row in found.rows])


@post("/station-quirks", status_code=201, opt={"permission": "stations.manage"}, tags=_TAGS,
      summary="Write down a quirk of a make: `vendor` and `model` as its stations tell them")  # fmt: skip
async def add_quirk(tenant_scope: Scope, data: dict[str, Any]) -> dict[str, Any]:
    texts = {name: data.get(name) or "" for name in ("vendor", "model", "quirk", "note")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise Invalid.field(name, "text", f"{name} is a text.")
    return _quirk(await makes.add_quirk(tenant_scope, **texts))


@delete("/station-quirks/{quirk_id:str}", status_code=200, opt={"permission": "stations.manage"}, tags=_TAGS,
        summary="It does not hold any more")  # fmt: skip
async def remove_quirk(tenant_scope: Scope, quirk_id: str) -> dict[str, Any]:
    return _quirk(await makes.remove_quirk(tenant_scope, parse_id("station_quirk", quirk_id)))


def _quirk(row: StationQuirk) -> dict[str, Any]:
    return {
        "id": public_id("station_quirk", row.id), "vendor": row.vendor, "model": row.model, "quirk": row.quirk,
        "note": row.note, "created_by": row.created_by, "created_at": rfc3339(row.created_at),
    }  # fmt: skip


# --- alerts ------------------------------------------------------------------------------------------------------


@get("/station-alerts", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="What is odd about stations, newest first; `is_open` leaves the open ones or the others")  # fmt: skip
async def list_alerts(
    tenant_scope: Scope, limit: int = 50, after: str | None = None, station_id: str | None = None,
    is_open: bool | None = None,
) -> dict[str, Any]:  # fmt: skip
    query = select(StationAlert)
    if station_id:
        key = read_id("charging_station", {"station_id": station_id}, "station_id")
        query = query.where(StationAlert.station_id == key)
    if is_open is not None:
        dismissed = StationAlert.dismissed_at
        query = query.where(dismissed.is_(None) if is_open else dismissed.is_not(None))
    found = await listed(tenant_scope, query, StationAlert.id, "station_alert", limit, after)
    return found.answer([_alert(row) for row in found.rows])


@post("/station-alerts/{alert_id:str}/dismissal", status_code=200, opt={"permission": "stations.manage"}, tags=_TAGS,
      summary="Seen; it comes back if it happens again")  # fmt: skip
async def dismiss_alert(tenant_scope: Scope, alert_id: str) -> dict[str, Any]:
    alert = await alerts.get_alert(tenant_scope, parse_id("station_alert", alert_id))
    await alerts.dismiss(tenant_scope, alert.station_id, alert.id)
    return _alert(alert)


def _alert(row: StationAlert) -> dict[str, Any]:
    title, explained = alerts.WORDS.get(row.kind, (row.kind, ""))
    return {
        "id": public_id("station_alert", row.id), "station_id": public_id("charging_station", row.station_id),
        "kind": row.kind, "title": title, "explanation": explained, "detail": row.detail, "count": row.count,
        "first_at": rfc3339(row.first_at), "last_at": rfc3339(row.last_at),
        "dismissed_at": rfc3339(row.dismissed_at),
    }  # fmt: skip


@post("/stations/{station_id:str}/quarantine-releases", status_code=200, opt={"permission": "stations.manage"},
      tags=_TAGS, summary="The station takes starts and commands again")  # fmt: skip
async def release(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    key = parse_id("charging_station", station_id)
    await alerts.release(tenant_scope, key)
    station = await service.get_station(tenant_scope, key)
    return {"id": public_id("charging_station", key), "quarantined_at": rfc3339(station.quarantined_at)}


# --- what stations cannot ----------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/unsupported-commands", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="What the station says it does not support; not asked again until its firmware changes")  # fmt: skip
async def list_lacks(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    station = await service.get_station(tenant_scope, parse_id("charging_station", station_id))
    found = await capabilities.list_lacks(tenant_scope, station)
    shown = [{"command": one.what, "said": one.said, "at": rfc3339(one.at)} for one in found]
    return {"data": shown, "next_cursor": None}


@delete("/stations/{station_id:str}/unsupported-commands", status_code=200, opt={"permission": "stations.command"},
        tags=_TAGS, summary="Forget it: the station is asked again")  # fmt: skip
async def ask_again(tenant_scope: Scope, station_id: str) -> dict[str, Any]:
    await capabilities.forget(tenant_scope, parse_id("charging_station", station_id))
    return {"data": [], "next_cursor": None}


# --- parked messages ---------------------------------------------------------------------------------------------


@get("/parked-messages", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="Reports that were acknowledged and could not be handled, newest first")  # fmt: skip
async def list_parked(
    tenant_scope: Scope, limit: int = 50, after: str | None = None, status: str | None = None,
    station_id: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    query = select(ParkedMessage)
    if status is not None:
        if status not in _PARKED:
            raise Invalid.field("status", "unknown", f"status is one of {', '.join(_PARKED)}.")
        query = query.where(ParkedMessage.status == status)
    if station_id:
        key = read_id("charging_station", {"station_id": station_id}, "station_id")
        query = query.where(ParkedMessage.station_id == key)
    found = await listed(tenant_scope, query, ParkedMessage.id, "parked_message", limit, after)
    return found.answer([_parked(tenant_scope, row) for row in found.rows])


@get("/parked-messages/{parked_id:str}", opt={"permission": "stations.view"}, tags=_TAGS,
     summary="One of them")  # fmt: skip
async def get_parked(tenant_scope: Scope, parked_id: str) -> dict[str, Any]:
    return await _shown(tenant_scope, parked_id)


@post("/parked-messages/{parked_id:str}/retries", status_code=202, opt={"permission": "stations.manage"}, tags=_TAGS,
      summary="Have a gateway handle it once more")  # fmt: skip
async def retry_parked(tenant_scope: Scope, parked_id: str) -> dict[str, Any]:
    await parking.retry(tenant_scope, parse_id("parked_message", parked_id))
    return await _shown(tenant_scope, parked_id)


@post("/parked-messages/{parked_id:str}/discards", status_code=200, opt={"permission": "stations.manage"}, tags=_TAGS,
      summary="Let it go: it is kept as it is, and nobody waits for it")  # fmt: skip
async def discard_parked(tenant_scope: Scope, parked_id: str) -> dict[str, Any]:
    await parking.discard(tenant_scope, parse_id("parked_message", parked_id))
    return await _shown(tenant_scope, parked_id)


async def _shown(scope: Scope, parked_id: str) -> dict[str, Any]:
    return _parked(scope, await parking.get_parked(scope, parse_id("parked_message", parked_id)))


def _parked(scope: Scope, row: ParkedMessage) -> dict[str, Any]:
    """Card numbers only for who may reveal them."""
    return {
        "id": public_id("parked_message", row.id), "station_id": public_id("charging_station", row.station_id),
        "status": row.status, "action": row.action, "message_id": row.message_id, "ocpp_version": row.ocpp_version,
        "raw": row.raw if scope.actor.may("id_tokens.reveal") else mask_frame(row.raw), "error": row.error,
        "tries": row.tries, "received_at": rfc3339(row.received_at), "decided_at": rfc3339(row.decided_at),
    }  # fmt: skip


routes = [
    list_kinds_of_quirks, list_quirks, add_quirk, remove_quirk, list_alerts, dismiss_alert, release, list_parked,
    get_parked, retry_parked, discard_parked, list_lacks, ask_again,
]  # fmt: skip
