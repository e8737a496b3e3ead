"""Portal pages of what is odd: quirks of makes, alerts of a station, and the end of its quarantine."""

from collections.abc import Iterable
from typing import Any

from litestar import Request, Response, get, post

from app.kernel.errors import Invalid, Refused
from app.kernel.ids import parse_id, public_id
from app.kernel.web import form_again, page, read_form, redirect
from app.stations import alerts, capabilities, makes, queries, quirks
from app.stations.models import ChargingStation, StationAlert
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]


@get("/stations/quirks", opt={"permission": "stations.view"})
async def list_quirks(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    return page(
        request, tenant_scope, "stations/quirks.html", title="Quirks of makes", values={}, errors={}, alert=None,
        **await _parts(tenant_scope),
    )  # fmt: skip


async def _parts(scope: Scope) -> dict[str, Any]:
    stations = await queries.list_stations(scope, queries.Filter())
    own = [
        {
            "id": public_id("station_quirk", row.id),
            "row": row,
            "stations": _fitting(stations, row.vendor, row.model),
        }
        for row in await quirks.list_quirks(scope)
    ]
    known = sorted(quirks.PRESETS, key=lambda one: (one.vendor, one.model, one.quirk))
    presets = [{"row": one, "stations": _fitting(stations, one.vendor, one.model)} for one in known]
    choices = [(one.name, one.label) for one in quirks.QUIRKS.values()]
    return {
        "quirks": quirks.QUIRKS,
        "choices": choices,
        "own": own,
        "presets": presets,
        "makes": _makes(stations),
    }


def _fitting(stations: Iterable[ChargingStation], vendor: str, model: str) -> int:
    return sum(quirks.fits(vendor, model, one.vendor, one.model) for one in stations)


def _makes(stations: Iterable[ChargingStation]) -> list[str]:
    """The vendors of this brand's stations, as they tell them: what a form may propose."""
    return sorted({one.vendor for one in stations if one.vendor})


@post("/stations/quirks", opt={"permission": "stations.manage"})
async def add_quirk(request: AnyRequest, tenant_scope: Scope) -> Response[Any]:
    form = await read_form(request)
    try:
        await makes.add_quirk(
            tenant_scope, vendor=form.text("vendor"), model=form.text("model"), quirk=form.text("quirk"),
            note=form.text("note"),
        )  # fmt: skip
    except (Invalid, Refused) as error:
        return form_again(
            request, tenant_scope, "stations/quirks.html", error, form, title="Quirks of makes",
            **await _parts(tenant_scope),
        )  # fmt: skip
    return redirect(request, "/stations/quirks", flash="It holds from now on.")


@post("/stations/quirks/{quirk_id:str}/removal", opt={"permission": "stations.manage"})
async def remove_quirk(request: AnyRequest, tenant_scope: Scope, quirk_id: str) -> Response[Any]:
    await makes.remove_quirk(tenant_scope, parse_id("station_quirk", quirk_id))
    return redirect(request, "/stations/quirks", flash="It does not hold any more.")


def shown(found: Iterable[StationAlert], station: ChargingStation) -> list[dict[str, Any]]:
    """Alerts in words; the one behind a quarantine has its own place on the page."""
    rows = []
    for alert in found:
        if alert.kind == "duplicate_identity" and station.quarantined_at is not None:
            continue
        title, text = alerts.WORDS.get(alert.kind, (alert.kind, ""))
        rows.append(
            {"id": public_id("station_alert", alert.id), "alert": alert, "title": title, "text": text}
        )
    return rows


@post("/stations/{station_id:str}/alerts/{alert_id:str}/dismissal", opt={"permission": "stations.manage"})
async def dismiss_alert(
    request: AnyRequest, tenant_scope: Scope, station_id: str, alert_id: str
) -> Response[Any]:
    key = parse_id("charging_station", station_id)
    await alerts.dismiss(tenant_scope, key, parse_id("station_alert", alert_id))
    return redirect(request, f"/stations/{station_id}", flash="Dismissed. It comes back if it happens again.")


@post("/stations/{station_id:str}/quarantine-releases", opt={"permission": "stations.manage"})
async def release(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    try:
        await alerts.release(tenant_scope, parse_id("charging_station", station_id))
    except Refused as error:
        return redirect(request, f"/stations/{station_id}", flash=error.message)
    return redirect(request, f"/stations/{station_id}", flash="The station takes starts and commands again.")


@post("/stations/{station_id:str}/unsupported-commands/removal", opt={"permission": "stations.command"})
async def ask_again(request: AnyRequest, tenant_scope: Scope, station_id: str) -> Response[Any]:
    await capabilities.forget(tenant_scope, parse_id("charging_station", station_id))
    flash = "What it said is forgotten: it is asked again."
    return redirect(request, f"/stations/{station_id}/commands", flash=flash)


routes = [list_quirks, add_quirk, remove_quirk, dismiss_alert, release, ask_again]
