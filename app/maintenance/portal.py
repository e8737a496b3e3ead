"""Portal pages: a station's security, firmware and diagnostics; the brand's security and firmware."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import anyio
from litestar import Request, Response, get, post
from litestar.response import Stream

from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import Form, NavItem, form_again, fragment, live, page, read_form, redirect, visit_of
from app.maintenance import certificates, changes, firmware, logs, policy, queries, wire, words
from app.maintenance.models import InstalledCertificate, SecurityChange
from app.stations import service as stations
from app.stations.models import ChargingStation
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [
    NavItem("Security", "/security", "shield", "stations.view", order=47),
    NavItem("Firmware", "/firmware", "download", "stations.view", order=48),
]


@dataclass(frozen=True, slots=True)
class Row:
    """What a station's head shows (`stations/_head.html`)."""

    id: str
    station: ChargingStation
    link: str


def _row(station: ChargingStation) -> Row:
    link = "never" if station.connection is None else "online" if station.connection.is_online else "offline"
    return Row(public_id("charging_station", station.id), station, link)


async def _station(scope: Scope, station_id: str) -> ChargingStation:
    return await stations.get_station(scope, parse_id("charging_station", station_id))


def _name(station: ChargingStation) -> str:
    return station.name or station.ocpp_identity


def _version(station: ChargingStation) -> str:
    return station.ocpp_version or "ocpp1.6"


# --- a station's security ------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/security", opt={"permission": "stations.view"})
async def show_security(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    station = await _station(tenant_scope, station_id)
    return page(
        request, tenant_scope, "maintenance/station_security.html", title=f"Security of {_name(station)}", values={},
        errors={}, alert=None, **await _security_parts(tenant_scope, station),
    )  # fmt: skip


async def _security_parts(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    is_16 = wire.is_16(_version(station))
    return {
        "row": _row(station), "station": station, "words": words, "is_16": is_16,
        "policy": await policy.get_policy(scope),
        "kinds": [("ChargingStationCertificate", "Station")] if is_16 else list(words.CERTIFICATES.items()),
        "roots": [(name, words.STORED[name]) for name in (wire.ROOTS_16 if is_16 else wire.ROOTS)],
        "interfaces": changes.INTERFACES, **await _security_state(scope, station),
    }  # fmt: skip


async def _security_state(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    events, _more = await queries.security_events(scope, station_id=station.id, limit=20)
    return {
        "certificates": await certificates.station_certificates(scope, station.id),
        "installed": await queries.installed(scope, station.id),
        "changes": await changes.recent_changes(scope, station.id), "events": events,
    }  # fmt: skip


async def _do(
    request: AnyRequest, scope: Scope, station: ChargingStation, form: Form, deed: Any, flash: str,
    here: str = "security",
) -> Response[Any]:  # fmt: skip
    """The verb, then the page `here` again: with a word of success, or with what is wrong."""
    template, title, parts = _PAGES[here]
    try:
        await deed
    except (Invalid, Refused) as error:
        return form_again(
            request, scope, template, error, form, title=f"{title} of {_name(station)}",
            **await parts(scope, station),
        )  # fmt: skip
    return redirect(request, f"/stations/{public_id('charging_station', station.id)}/{here}", flash=flash)


@post("/stations/{station_id:str}/key-rotations", opt={"permission": "stations.manage"})
async def rotate_key(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    deed = changes.rotate_key(tenant_scope, station.id)
    return await _do(request, tenant_scope, station, form, deed, "A new key is on its way.")


@post("/stations/{station_id:str}/profile-upgrades", opt={"permission": "stations.manage"})
async def upgrade_profile(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)

    async def deed() -> None:
        slot, fallback = form.integer("slot"), form.integer("fallback_slot")
        await changes.upgrade_profile(
            tenant_scope, station.id, form.integer("profile") or 0, slot=1 if slot is None else slot,
            fallback_slot=fallback or 0, interface=form.text("interface", "Wired0"),
        )  # fmt: skip

    flash = "The higher profile is on its way. It holds once the station comes back by it."
    return await _do(request, tenant_scope, station, form, deed(), flash)


@post(
    "/stations/{station_id:str}/security-changes/{change_id:str}/cancellation",
    opt={"permission": "stations.manage"},
)
async def cancel_change(
    request: AnyRequest, tenant_scope: Scope, station_id: str, change_id: str
) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    change = await tenant_scope.db.get(
        SecurityChange, (tenant_scope.tenant_id, parse_id("security_change", change_id))
    )
    if change is None or change.station_id != station.id:
        raise NotFound("security_change")
    deed = changes.cancel_change(tenant_scope, change.id)
    return await _do(request, tenant_scope, station, form, deed, "Given up: what was before holds.")


@post("/stations/{station_id:str}/certificate-requests", opt={"permission": "stations.command"})
async def renew_certificate(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    deed = certificates.request_renewal(
        tenant_scope, station.id, form.text("kind", "ChargingStationCertificate")
    )
    flash = "The station is asked to make a new key and to have it signed."
    return await _do(request, tenant_scope, station, form, deed, flash)


@post(
    "/stations/{station_id:str}/certificates/{certificate_id:str}/revocation",
    opt={"permission": "stations.manage"},
)
async def revoke_certificate(
    request: AnyRequest, tenant_scope: Scope, station_id: str, certificate_id: str
) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    row = await certificates.get_certificate(tenant_scope, parse_id("station_certificate", certificate_id))
    if row.station_id != station.id:
        raise NotFound("station_certificate")
    deed = certificates.revoke_certificate(tenant_scope, row.id)
    return await _do(request, tenant_scope, station, form, deed, "Revoked: nobody comes in with it any more.")


@post("/stations/{station_id:str}/roots", opt={"permission": "stations.command"})
async def install_root(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    """A pasted certificate, or (`own`) the brand's own CA."""
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    if form.flag("own"):
        deed = certificates.install_own_ca(tenant_scope, station.id)
    else:
        deed = certificates.install_root(
            tenant_scope, station.id, form.text("certificate_type"), form.text("certificate")
        )
    return await _do(request, tenant_scope, station, form, deed, "The certificate is on its way.")


@post("/stations/{station_id:str}/store-readings", opt={"permission": "stations.command"})
async def read_store(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    deed = certificates.read_store(tenant_scope, station.id)
    return await _do(request, tenant_scope, station, form, deed, "The station is asked what it holds.")


@post(
    "/stations/{station_id:str}/installed-certificates/{installed_id:str}/deletion",
    opt={"permission": "stations.command"},
)
async def delete_installed(
    request: AnyRequest, tenant_scope: Scope, station_id: str, installed_id: str
) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    key = parse_id("installed_certificate", installed_id)
    row = await tenant_scope.db.get(InstalledCertificate, (tenant_scope.tenant_id, key))
    if row is None or row.station_id != station.id:
        raise NotFound("installed_certificate")
    deed = certificates.delete_installed(tenant_scope, row.id)
    return await _do(request, tenant_scope, station, form, deed, "The station is asked to delete it.")


# --- a station's firmware ------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/firmware", opt={"permission": "stations.view"})
async def show_firmware(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    station = await _station(tenant_scope, station_id)
    return page(
        request, tenant_scope, "maintenance/station_firmware.html", title=f"Firmware of {_name(station)}", values={},
        errors={}, alert=None, **await _firmware_parts(tenant_scope, station),
    )  # fmt: skip


async def _firmware_parts(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    return {
        "row": _row(station), "station": station, "is_16": wire.is_16(_version(station)),
        "hosts": (await policy.get_policy(scope)).firmware_hosts, **await _firmware_state(scope, station),
    }  # fmt: skip


async def _firmware_state(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    return {
        "words": words, "station_key": public_id("charging_station", station.id),
        "updates": await queries.updates(scope, station.id),
        "publications": await queries.publications(scope, station.id),
    }  # fmt: skip


@get("/stations/{station_id:str}/firmware/live", opt={"permission": "stations.view"})
async def live_firmware(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _station(tenant_scope, station_id)).id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        station = await stations.get_station(scope, key)
        return fragment(request, "maintenance/_updates.html", **await _firmware_state(scope, station))

    return live(request, [f"station:{key}"], render)


def _moment(request: AnyRequest, form: Form, name: str) -> datetime | None:
    """A `datetime-local` field, in the brand's time zone."""
    text = form.text(name)
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(visit_of(request).time_zone))
    except ValueError:
        raise Invalid.field(name, "time", "This is no date and time.") from None


@post("/stations/{station_id:str}/firmware", opt={"permission": "stations.manage"})
async def update_firmware(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)

    async def deed() -> None:
        await firmware.update_firmware(
            tenant_scope, station.id, form.text("location"), retrieve_at=_moment(request, form, "retrieve_at"),
            install_at=_moment(request, form, "install_at"),
            signing_certificate=form.text("signing_certificate") or None, signature=form.text("signature") or None,
        )  # fmt: skip

    return await _do(request, tenant_scope, station, form, deed(), "The update is on its way.", "firmware")


@post("/stations/{station_id:str}/firmware-publications", opt={"permission": "stations.manage"})
async def publish_firmware(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    deed = firmware.publish_firmware(
        tenant_scope, station.id, form.text("published_location"), form.text("checksum")
    )
    flash = "It is asked to publish the firmware."
    return await _do(request, tenant_scope, station, form, deed, flash, "firmware")


@post(
    "/stations/{station_id:str}/firmware-publications/{publication_id:str}/withdrawal",
    opt={"permission": "stations.manage"},
)
async def unpublish_firmware(
    request: AnyRequest, tenant_scope: Scope, station_id: str, publication_id: str
) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)
    key = parse_id("firmware_publication", publication_id)
    if key not in [one.id for one in await queries.publications(tenant_scope, station.id)]:
        raise NotFound("firmware_publication")
    deed = firmware.unpublish_firmware(tenant_scope, key)
    return await _do(request, tenant_scope, station, form, deed, "It is asked to withdraw it.", "firmware")


# --- a station's logs ----------------------------------------------------------------------------------------------


@get("/stations/{station_id:str}/diagnostics", opt={"permission": "stations.view"})
async def show_diagnostics(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[str]:
    station = await _station(tenant_scope, station_id)
    return page(
        request, tenant_scope, "maintenance/station_logs.html", title=f"Diagnostics of {_name(station)}", values={},
        errors={}, alert=None, **await _log_parts(tenant_scope, station),
    )  # fmt: skip


async def _log_parts(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    return {"row": _row(station), "station": station, **await _log_state(scope, station)}


async def _log_state(scope: Scope, station: ChargingStation) -> dict[str, Any]:
    return {
        "words": words, "station_key": public_id("charging_station", station.id),
        "logs": await queries.logs(scope, station.id),
    }  # fmt: skip


@get("/stations/{station_id:str}/diagnostics/live", opt={"permission": "stations.view"})
async def live_diagnostics(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Stream:
    key = (await _station(tenant_scope, station_id)).id

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        station = await stations.get_station(scope, key)
        return fragment(request, "maintenance/_logs.html", **await _log_state(scope, station))

    return live(request, [f"station:{key}"], render)


@post("/stations/{station_id:str}/diagnostics", opt={"permission": "stations.command"})
async def request_log(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    station, form = await _station(tenant_scope, station_id), await read_form(request)

    async def deed() -> None:
        await logs.request_log(
            tenant_scope, station.id, form.text("kind", "DiagnosticsLog"), oldest=_moment(request, form, "oldest"),
            latest=_moment(request, form, "latest"),
        )  # fmt: skip

    flash = "The station is asked for its log."
    return await _do(request, tenant_scope, station, form, deed(), flash, "diagnostics")


@get("/stations/{station_id:str}/diagnostics/{log_file:str}", opt={"permission": "stations.command"})
async def download_log(request: AnyRequest, tenant_scope: Scope, station_id: str, log_file: str) -> Stream:
    """As it came; a browser keeps it and opens nothing."""
    station = await _station(tenant_scope, station_id)
    row, path = await logs.find_file(tenant_scope, station.id, parse_id("station_log", log_file))
    name = quote(row.file_name or f"{station.ocpp_identity}.log", safe="")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}", "Content-Length": str(row.size_bytes),
        "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
    }  # fmt: skip
    return Stream(_chunks(path), media_type="application/octet-stream", headers=headers)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(256 * 1024):
            yield chunk


# --- the brand -----------------------------------------------------------------------------------------------------


@get("/security", opt={"permission": "stations.view"})
async def show_policy(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "maintenance/security.html", title="Security", values={}, errors={}, alert=None,
        **await _policy_parts(request, tenant_scope),
    )  # fmt: skip


async def _policy_parts(request: AnyRequest, scope: Scope) -> dict[str, Any]:
    rules, after = await policy.get_policy(scope), request.query_params.get("after", "")
    grave = "grave" in request.query_params
    events, more = await queries.security_events(scope, grave=grave, after=after)
    return {
        "policy": rules, "words": words, "organisation": await policy.organisation(scope),
        "authority": await queries.authority(scope), "events": events, "next_after": more, "is_first": not after,
        "grave": grave, "postures": await queries.postures(scope, rules.minimum_profile),
    }  # fmt: skip


@post("/security", opt={"permission": "settings.manage"})
async def change_policy(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        profile = form.integer("minimum_profile")
        await policy.set_policy(
            tenant_scope, minimum_profile=1 if profile is None else profile, organisation=form.text("organisation"),
            firmware_hosts=form.text("firmware_hosts").split(),
        )  # fmt: skip
    except Invalid as error:
        return form_again(
            request, tenant_scope, "maintenance/security.html", error, form, title="Security",
            **await _policy_parts(request, tenant_scope),
        )  # fmt: skip
    return redirect(request, "/security", flash="Saved.")


@get("/firmware", opt={"permission": "stations.view"})
async def show_fleet(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "maintenance/firmware.html", title="Firmware", words=words,
        versions=await queries.versions(tenant_scope), updates=await queries.updates(tenant_scope, limit=50),
    )  # fmt: skip


# A station's pages that `_do` shows again: template, title and what stands on it.
_PAGES = {
    "security": ("maintenance/station_security.html", "Security", _security_parts),
    "firmware": ("maintenance/station_firmware.html", "Firmware", _firmware_parts),
    "diagnostics": ("maintenance/station_logs.html", "Diagnostics", _log_parts),
}  # fmt: skip
routes = [
    show_security, rotate_key, upgrade_profile, cancel_change, renew_certificate, revoke_certificate, install_root,
    read_store, delete_installed, show_firmware, live_firmware, update_firmware, publish_firmware, unpublish_firmware,
    show_diagnostics, live_diagnostics, request_log, download_log, show_policy, change_policy, show_fleet,
]  # fmt: skip
