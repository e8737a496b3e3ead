"""The portal's first page: is everything all right, what happens now, what did it earn."""

from typing import Any

from litestar import Request, Response, get
from litestar.response import Stream

from app.billing import disputes
from app.billing.models import Dispute
from app.brands import domains
from app.charging import holds
from app.charging import queries as sessions
from app.charging.tight_holds import list_tight_holds
from app.kernel.ids import public_id
from app.kernel.web import NavItem, fragment, live, page, visit_of
from app.stations import queries as stations
from app.stations.models import ChargingStation
from app.surfaces.first_steps import first_steps
from tenants.scope import Scope

AnyRequest = Request[Any, Any, Any]
nav = [NavItem("Overview", "/", "layout-dashboard", "overview.view", order=10)]
PROBLEMS, RUNNING = 5, 8
WORDS = {
    "offline": ("error", "wifi-off", "is offline"),
    "OUTOFORDER": ("error", "triangle-alert", "reports a fault"),
    "INOPERATIVE": ("warning", "ban", "is out of service"),
}


@get("/", opt={"permission": "overview.view"})
async def show_overview(request: AnyRequest, tenant_scope: Scope) -> Response[str]:
    parts = await _parts(tenant_scope, visit_of(request).time_zone)
    points = await stations.power_curve(tenant_scope, None, tenant_scope.now - stations.CURVE)
    return page(
        request, tenant_scope, "surfaces/overview.html", title="Overview", points=points,
        first=await first_steps(request, tenant_scope), domains=await _troubled(tenant_scope),
        disputes=await _disputes(tenant_scope), curve_words=stations.curve_in_words(points),
        tight=await list_tight_holds(tenant_scope), **parts,
    )  # fmt: skip


@get("/overview/live", opt={"permission": "overview.view"})
async def live_overview(request: AnyRequest, tenant_scope: Scope) -> Stream:
    zone = visit_of(request).time_zone

    async def render(scope: Scope, _message: dict[str, Any] | None) -> str:
        return fragment(request, "surfaces/_overview.html", **await _parts(scope, zone))

    return live(request, ["stations", "sessions"], render)


async def _parts(scope: Scope, time_zone: str) -> dict[str, Any]:
    everything = await stations.list_stations(scope, stations.Filter())
    states = [stations.status_of(station, evse) for station in everything for evse in station.evses]
    rows = await sessions.list_sessions(
        scope, sessions.Filter(state="ACTIVE"), time_zone=time_zone, limit=RUNNING
    )
    counts = await sessions.counts(scope)
    figures = await sessions.today(scope, time_zone)
    undecided = await holds.list_undecided(scope)
    problems = [problem for station in everything for problem in _problems(station)]
    return {
        "states": {state: states.count(state) for state in sorted(set(states))}, "evse_count": len(states),
        "station_count": len(everything), "power_w": sum(_power(station) for station in everything),
        "running": [(public_id("charging_session", session.id), session) for session, _cdr in rows],
        "undecided": [(public_id("charging_session", one.session_id), one.until) for one in undecided],
        "counts": counts, "figures": figures, "problems": problems[:PROBLEMS], "problem_count": len(problems),
    }  # fmt: skip


async def _disputes(scope: Scope) -> list[tuple[str, Dispute]]:
    """Those that wait for an answer of those who may see them."""
    rows = await disputes.list_open(scope) if scope.actor.may("invoices.view") else []
    return [(public_id("dispute", row.id), row) for row in rows]


async def _troubled(scope: Scope) -> list[dict[str, Any]]:
    """Domains of the brand's own that are lost soon, or were."""
    found = []
    for domain in await domains.list_troubled(scope):
        kind, sentence = domains.headline(domain)
        until = domains.served_until(domain)
        found.append(
            {"name": domains.spoken(domain.host), "kind": kind, "sentence": sentence, "until": until}
        )
    return found


def _power(station: ChargingStation) -> int:
    if stations.link_state(station) != "online":
        return 0
    return sum(
        evse.figures.power_w or 0
        for evse in station.evses
        if evse.figures and evse.live and evse.live.activity == "charging"
    )


def _problems(station: ChargingStation) -> list[dict[str, Any]]:
    """An offline station is one problem, not one per EVSE."""
    shown = {"id": public_id("charging_station", station.id), "station": station}
    if stations.link_state(station) == "offline":
        since = station.connection.disconnected_at if station.connection else None
        return [shown | {"look": WORDS["offline"], "evse": None, "since": since}]
    found = []
    for evse in station.evses:
        state = stations.status_of(station, evse)
        if state in WORDS:
            since = max((one.status_at for one in evse.connectors if one.status_at), default=None)
            found.append(shown | {"look": WORDS[state], "evse": evse.evse_no, "since": since})
    return found


routes = [show_overview, live_overview]
