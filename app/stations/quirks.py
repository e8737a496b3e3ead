"""What real stations do otherwise than OCPP says, and what we do about it: the registry (ocpp.md section 3).

A quirk belongs to a model: by the presets here, which everybody has, or by what a brand's staff wrote down. It is found
when a station boots and says what it is; the station's own `leniency` overrules it in either direction.
What staff write down is in `makes.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import select

from app.kernel.errors import Invalid
from app.stations.models import StationQuirk
from tenants.scope import Scope


@dataclass(frozen=True, slots=True)
class Quirk:
    """`says` is what the station does, `effect` what we do then, and where."""

    name: str
    label: str
    says: str
    effect: str


QUIRKS: dict[str, Quirk] = {
    one.name: one
    for one in (
        Quirk("assume_ocpp16", "Assume OCPP 1.6 when it names no version",
              "It names no OCPP version in its handshake.",
              "The handshake takes OCPP 1.6 for granted instead of refusing."),
        Quirk("no_compression", "Never compress",
              "It offers compression and then breaks on compressed frames.",
              "The handshake declines compression (OCPP 2.x)."),
        Quirk("no_ping", "Never ping it",
              "It drops the connection when it is pinged.",
              "The link is not pinged; what it sends is the only sign of life."),
        Quirk("no_zone", "Its times are local times",
              "It sends times without a time zone, and means the clock on the wall.",
              "Times without a zone are read in the time zone of its site; without a site, as UTC."),
        Quirk("accept_by_order", "Take answers by their order",
              "It answers our messages with another message id.",
              "An answer whose id nobody knows counts for the one message that waits."),
        Quirk("boot_interval_name", "Also name the heartbeat interval as OCPP 1.5 did",
              "It reads the heartbeat interval from a field that OCPP 1.6 no longer has.",
              "The answer to its BootNotification holds heartbeatInterval beside interval (OCPP 1.6)."),
        Quirk("slow_start", "Leave it alone for 20 s after its boot",
              "It boots again, and again, when it is asked something too soon after its boot.",
              "Commands wait for 20 s after the answer to its BootNotification."),
        Quirk("no_boot_request", "Never ask it to boot again",
              "It does not take the request for a BootNotification after a reconnect well.",
              "A station that was accepted before and reconnects silently is not asked for a BootNotification."),
        Quirk("other_tag_on_remote_start", "Believe its own tag after a remote start",
              "It answers a remote start with another idTag than the one that was asked for.",
              "A tag that nobody knows, within three minutes of a remote start, counts as that start's, unless the"
              " station had asked about it: then somebody held a card to the reader (OCPP 1.6)."),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preset:
    """Known from public reports. Patterns as in `StationQuirk`."""

    vendor: str
    model: str
    quirk: str
    source: str


PRESETS = (
    Preset("United Chargers*", "*", "assume_ocpp16", "steve-community/steve#1109"),
    Preset("Grizzl*", "*", "assume_ocpp16", "steve-community/steve#1109"),
    Preset("Growatt*", "*", "no_zone", "evcc-io/evcc#10399"),
    Preset("EN+*", "*", "accept_by_order", "mobilityhouse/ocpp#297"),
    Preset("EN-plus*", "*", "accept_by_order", "mobilityhouse/ocpp#297"),
    Preset("Wall Box*", "*", "slow_start", "lbbrhzn/ocpp#1503"),
    Preset("Wallbox*", "*", "slow_start", "lbbrhzn/ocpp#1503"),
    Preset("Star*Charge*", "*", "slow_start", "lbbrhzn/ocpp#1096"),
    Preset("Webasto*", "*", "no_boot_request", "evcc-io/evcc#31192"),
    Preset("Ampure*", "*", "no_boot_request", "evcc-io/evcc#31192"),
)


def fits(vendor_pattern: str, model_pattern: str, vendor: str | None, model: str | None) -> bool:
    """`*` stands for any number of characters; case does not matter."""
    return all(
        fnmatchcase((said or "").casefold(), _escaped(pattern))
        for pattern, said in ((vendor_pattern, vendor), (model_pattern, model))
    )


def _escaped(pattern: str) -> str:
    """Only the star is special: `[` and `?` occur in names."""
    return "".join(f"[{letter}]" if letter in "[?" else letter for letter in pattern.casefold())


async def of_model(scope: Scope, vendor: str | None, model: str | None) -> list[str]:
    """The names of this make's quirks, sorted."""
    rows = [(row.vendor, row.model, row.quirk) for row in await list_quirks(scope)]
    known = [*((one.vendor, one.model, one.quirk) for one in PRESETS), *rows]
    return sorted({quirk for one, other, quirk in known if fits(one, other, vendor, model)})


def merged(names: Iterable[str], leniency: dict[str, Any]) -> dict[str, bool]:
    """What holds for a station: its model's quirks, overruled by its own word."""
    found = dict.fromkeys(names, True) | leniency
    return {name: True for name, holds in found.items() if holds}


def check_leniency(value: Any) -> dict[str, Any]:
    if (
        not isinstance(value, dict)
        or set(value) - set(QUIRKS)
        or not all(isinstance(holds, bool) for holds in value.values())
    ):
        raise Invalid.field("leniency", "leniency", f"leniency holds true or false for {', '.join(QUIRKS)}.")
    return value


async def list_quirks(scope: Scope) -> list[StationQuirk]:
    query = select(StationQuirk).order_by(StationQuirk.vendor, StationQuirk.model, StationQuirk.quirk)
    return list((await scope.db.execute(query)).scalars())
