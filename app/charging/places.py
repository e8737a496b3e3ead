"""Where a driver can charge, as it is right now: a brand's sites and their EVSEs, and what narrows the list."""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from app.access.models import IdToken
from app.charging import startable
from app.charging.plausibility import rated_power_w
from app.charging.startable import Situation
from app.kernel.errors import Refused
from app.kernel.ids import public_id
from app.stations.models import EVSE, ChargingStation, Connector, Location
from app.stations.status import evse_status
from tenants.scope import Scope
from themes.language import N_, _

PLUGS = {  # each for `_`
    "IEC_62196_T1": N_("Type 1"), "IEC_62196_T2": N_("Type 2"), "IEC_62196_T1_COMBO": "CCS 1",
    "IEC_62196_T2_COMBO": "CCS", "CHADEMO": "CHAdeMO", "DOMESTIC_F": "Schuko", "TESLA_S": "NACS",
}  # fmt: skip


LEAF = 30  # sites on one page: some 30 KB, and a list that a thumb gets to the end of
_SPOT = re.compile(r"(-?\d{1,2}(?:\.\d{1,9})?),(-?\d{1,3}(?:\.\d{1,9})?)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One EVSE as drivers see it; `status` is OCPI's, and what is not heard from is UNKNOWN. `refusal` is why no
    session can begin there."""

    code: str
    evse_no: int
    station: str
    status: str
    connectors: list[Connector]
    last_seen_at: datetime | None
    awaited_until: datetime | None = None  # somebody has paid, and fetches the cable
    refusal: Refused | None = None

    @property
    def is_dc(self) -> bool:
        return any(connector.power_type == "DC" for connector in self.connectors)


@dataclass(frozen=True, slots=True)
class Site:
    """`free_count` of `count` EVSEs are free; `places` are those that were asked for."""

    location: Location
    places: list[Place]
    free_count: int
    count: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page of the list: its sites, the first's place among all, and the sites with which its neighbours begin."""

    sites: list[Site]
    first: int
    count: int
    previous: UUID | None
    next: UUID | None

    @property
    def last(self) -> int:
        return self.first + len(self.sites) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`near` is (latitude, longitude) in degrees: the list goes by distance from there, and narrows nothing. `words`
    must all stand in a site's name, street, town or postcode."""

    words: str = ""
    free: bool = False
    dc: bool = False
    plug: str = ""
    near: tuple[float, float] | None = None

    @property
    def params(self) -> dict[str, str]:
        """As a form or an address carries it."""
        near = "{:.5f},{:.5f}".format(*self.near) if self.near else ""
        wanted = {
            "q": self.words,
            "free": "1" if self.free else "",
            "dc": "1" if self.dc else "",
            "plug": self.plug,
            "near": near,
        }
        return {name: value for name, value in wanted.items() if value}

    @property
    def query(self) -> str:
        return self.query_at()

    def query_at(self, location_id: UUID | None = None) -> str:
        """Of the page of the list on which that site stands."""
        at = {"at": public_id("location", location_id)} if location_id else {}
        return urlencode(self.params | at, safe=",")

    def finds(self, site: Location) -> bool:
        told = _folded(f"{site.name} {site.address} {site.postal_code} {site.city}")
        return all(word in told for word in _folded(self.words).split())

    def takes(self, place: Place) -> bool:
        return (
            (not self.free or place.status == "AVAILABLE")
            and (not self.dc or place.is_dc)
            and (not self.plug or any(one.standard == self.plug for one in place.connectors))
        )


def read_filter(params: Mapping[str, str]) -> Filter:
    """What nobody offers narrows nothing, and what is no spot on earth is near to nothing."""
    plug = params.get("plug", "")
    return Filter(
        words=" ".join(params.get("q", "").split())[:60],
        free=params.get("free") == "1", dc=params.get("dc") == "1", plug=plug if plug in PLUGS else "",
        near=_spot(params.get("near", "")),
    )  # fmt: skip


def _folded(text: str) -> str:
    """Without case and accents: nobody types those on the way."""
    return "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text.casefold())
        if not unicodedata.combining(letter)
    )


def _spot(text: str) -> tuple[float, float] | None:
    found = _SPOT.fullmatch(text)
    spot = (float(found[1]), float(found[2])) if found else None
    return spot if spot and abs(spot[0]) <= 90 and abs(spot[1]) <= 180 else None


def _distance(location: Location, near: tuple[float, float]) -> float:
    """In degrees of latitude, to compare: right for what lies close by. Sites without coordinates come last."""
    if location.latitude is None or location.longitude is None:
        return math.inf
    north = float(location.latitude) - near[0]
    east = abs(float(location.longitude) - near[1])
    return math.hypot(north, min(east, 360 - east) * math.cos(math.radians(near[0])))


def chips(wanted: Filter, kinds: Iterable[str]) -> list[tuple[str, str, bool]]:
    """(label, the address's query after a press, is it on): each chip is a link that turns itself on or off."""
    found = [
        (_("Free now"), replace(wanted, free=not wanted.free), wanted.free),
        (_("Fast charging"), replace(wanted, dc=not wanted.dc), wanted.dc),
    ]
    kinds = list(kinds)
    if len(kinds) > 1 or wanted.plug:
        for kind in kinds:
            is_on = kind == wanted.plug
            found.append((_(PLUGS[kind]), replace(wanted, plug="" if is_on else kind), is_on))
    return [(label, after.query, is_on) for label, after, is_on in found]


@dataclass(frozen=True, slots=True)
class Listing:
    """`sites` with a place that fits, by name or by distance; the `kinds` of plug that there are at all; whether there
    are so many sites, wanted or not, that one looks for them by words."""

    sites: list[Site]
    kinds: list[str]
    is_long: bool

    def leaf(self, at: str) -> Leaf:
        """The page on which that site stands (its public id); the first where it does not or no longer fit."""
        found = (no for no, site in enumerate(self.sites) if public_id("location", site.location.id) == at)
        no = next(found, 0) // LEAF
        starts = [site.location.id for site in self.sites[::LEAF]]
        return Leaf(
            self.sites[no * LEAF : (no + 1) * LEAF], no * LEAF + 1, len(self.sites),
            previous=starts[no - 1] if no else None, next=starts[no + 1] if no + 1 < len(starts) else None,
        )  # fmt: skip


async def list_sites(scope: Scope, wanted: Filter) -> Listing:
    situation = await startable.look(scope)
    query = (
        select(Location)
        .options(
            selectinload(Location.stations)
            .selectinload(ChargingStation.evses)
            .options(selectinload(EVSE.connectors), selectinload(EVSE.live)),
            selectinload(Location.stations).selectinload(ChargingStation.connection),
        )
        .order_by(func.lower(Location.name), Location.id)
    )
    found: list[Site] = []
    kinds: set[str] = set()
    count = 0
    for location in (await scope.db.execute(query)).scalars():
        all_places = [
            place_of(station, evse, situation)
            for station in sorted(location.stations, key=lambda one: (one.name or one.ocpp_identity, one.id))
            if station.retired_at is None and station.registration == "accepted"
            for evse in station.evses
        ]
        kinds |= {one.standard or "" for place in all_places for one in place.connectors}
        count += bool(all_places)
        fitting = [place for place in all_places if wanted.takes(place)] if wanted.finds(location) else []
        if fitting:
            free_count = sum(place.status == "AVAILABLE" for place in all_places)
            found.append(Site(location, fitting, free_count, len(all_places)))
    if wanted.near is not None:
        near = wanted.near
        found.sort(key=lambda site: _distance(site.location, near))
    return Listing(found, [kind for kind in PLUGS if kind in kinds], is_long=count > LEAF)


# What a place is to drivers where its plug alone would say that it is free.
_NOT_FREE = {
    "evse_busy": "CHARGING", "evse_taken": "RESERVED", "evse_reserved": "RESERVED", "tenant_suspended": "INOPERATIVE",
    "station_quarantined": "INOPERATIVE", "station_not_accepted": "INOPERATIVE", "evse_unavailable": "INOPERATIVE",
}  # fmt: skip


def place_of(
    station: ChargingStation, evse: EVSE, situation: Situation, id_token: IdToken | None = None
) -> Place:
    """For whoever would start by that card. A session may begin exactly where there is no `refusal`."""
    connection = station.connection
    status = evse_status(
        (connector.status for connector in evse.connectors), evse.live.activity if evse.live else "idle",
        is_online=bool(connection and connection.is_online), has_connected=connection is not None,
        is_retired=station.retired_at is not None,
    )  # fmt: skip
    refusal = startable.refusal(station, evse, situation, id_token)
    if refusal is not None and status in ("AVAILABLE", "BLOCKED"):
        status = _NOT_FREE.get(refusal.code, status)
    return Place(
        code=evse.code, evse_no=evse.evse_no, station=station.name or station.ocpp_identity, status=status,
        connectors=list(evse.connectors), last_seen_at=connection.last_seen_at if connection else None,
        awaited_until=situation.awaited.get(evse.id), refusal=refusal,
    )  # fmt: skip


def plug(connector: Connector) -> str:
    """`CCS, 150 kW`: what a driver looks for."""
    name = _(PLUGS.get(connector.standard or "", N_("Plug")))
    power_w = rated_power_w(connector)
    return f"{name}, {round(power_w / 1000)} kW" if power_w else name
