"""What one gateway remembers of its stations over their connections: storms, guessed cards, oddities (ocpp.md 2).

All of it lies in memory and may be lost: it holds back writes and answers, and nothing is decided by it for good.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.stations import alerts
from tenants.database import Database
from tenants.resolve import StationRoute
from tenants.scope import Actor

log = logging.getLogger("livery.gateway")
BOOTS, BOOT_EVERY_S = 5.0, 30.0  # a few in a row are a restart or two; then one each 30 s is written
REFUSED_CARDS, REFUSED_WITHIN_S = 30, 60.0
ALERT_EVERY_S = 60.0
SIZE = 100_000

Key = tuple[UUID, UUID]


@dataclass(slots=True)
class _Memory:
    boots: float = BOOTS
    boots_at: float = field(default_factory=time.monotonic)
    boot: tuple[dict[str, Any], dict[str, Any]] | None = None
    refused: deque[float] = field(default_factory=lambda: deque(maxlen=REFUSED_CARDS))
    told: dict[str, float] = field(default_factory=dict)
    untold: dict[str, int] = field(default_factory=dict)


class Watch:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._memories: OrderedDict[Key, _Memory] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()

    def _of(self, route: StationRoute) -> _Memory:
        key = (route.tenant_id, route.station_id)
        memory = self._memories.get(key)
        if memory is None:
            memory = self._memories[key] = _Memory()
            while len(self._memories) > SIZE:
                self._memories.popitem(last=False)
        return memory

    # -- boots -----------------------------------------------------------------------------------------------------

    def remembered_boot(self, route: StationRoute, payload: dict[str, Any]) -> dict[str, Any] | None:
        """The answer given before, for a station that boots too often; None for one that is heard as usual."""
        memory, now = self._of(route), time.monotonic()
        memory.boots = min(BOOTS, memory.boots + (now - memory.boots_at) / BOOT_EVERY_S)
        memory.boots_at = now
        if memory.boots >= 1:
            memory.boots -= 1
            return None
        if memory.boot is None or memory.boot[0] != payload or memory.boot[1].get("status") != "Accepted":
            return None
        self.note(route, "boot_loop")
        return memory.boot[1]

    def booted(self, route: StationRoute, payload: dict[str, Any], answer: dict[str, Any]) -> None:
        self._of(route).boot = payload, answer

    # -- cards -----------------------------------------------------------------------------------------------------

    def tries_cards(self, route: StationRoute) -> bool:
        """More than 30 refused cards in a minute: every card is refused for the rest of it."""
        refused = self._of(route).refused
        return len(refused) == REFUSED_CARDS and refused[0] > time.monotonic() - REFUSED_WITHIN_S

    def card_refused(self, route: StationRoute) -> None:
        self._of(route).refused.append(time.monotonic())

    # -- oddities --------------------------------------------------------------------------------------------------

    def note(self, route: StationRoute, kind: str, detail: str = "") -> None:
        """Staff see it. At most one write a minute for each kind and station; the others are counted with the next."""
        memory, now = self._of(route), time.monotonic()
        memory.untold[kind] = memory.untold.get(kind, 0) + 1
        if memory.told.get(kind, float("-inf")) > now - ALERT_EVERY_S:
            return
        memory.told[kind] = now
        self._start(route, kind, detail, memory.untold.pop(kind))

    def note_each(self, route: StationRoute, kind: str, detail: str = "") -> None:
        """For what is rare, and counts each time."""
        self._start(route, kind, detail, 1)

    def _start(self, route: StationRoute, kind: str, detail: str, count: int) -> None:
        task = asyncio.create_task(self._write(route, kind, detail, count))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, route: StationRoute, kind: str, detail: str, count: int) -> None:
        try:
            async with self.database.scope(route.tenant_id, Actor.station(route.station_id)) as scope:
                await alerts.raise_alert(scope, route.station_id, kind, detail, count)
        except Exception:
            log.exception("station %s: %s could not be told", route.identity, kind)
