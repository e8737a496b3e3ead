"""Every fault of the library against the real gateway: nothing acknowledged is lost, and what it means stands there."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from app.charging.models import ChargingSession
from app.stations.models import EVSE, ChargingStation, Connector, OCPPMessage, StationAlert, StationConnection
from ocpp_gateway.simulated_faults import FAULTS, NOWHERE, Box, Fault
from tests.gateway.street import Box as Place
from tests.gateway.street import Street, street
from tests.gateway.test_rows_covered import LATER, QUIRKS, ROWS
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio
__all__ = ["street"]


@dataclass
class Played:
    """A fault that was played, where it was played and by whom."""

    fault: Fault
    box: Box
    place: Place

    async def sessions(self) -> list[tuple[str, int | None, str | None]]:
        rows = await self.place.rows(ChargingSession)
        return sorted(((one.status, one.energy_wh, one.review) for one in rows), key=str)

    async def alerts(self) -> set[str]:
        return {one.kind for one in await self.place.rows(StationAlert)}

    async def values(self) -> list[float]:
        rows = await self.place.rows(MeterValue)
        return sorted(float(one.value) for one in rows if one.value is not None)

    async def station(self) -> ChargingStation:
        (one,) = await self.place.street.rows(ChargingStation, ChargingStation.id == self.place.station_id)
        return one

    async def connector(self) -> tuple[str, str | None]:
        (one,) = await self.place.street.rows(Connector, Connector.evse_id == self.place.evse_ids[0])
        return one.status, one.error_code

    async def is_online(self) -> bool:
        return any(one.is_online for one in await self.place.rows(StationConnection))

    async def command(self, action: str, payload: dict[str, Any]) -> str:
        return (await self.place.command(action, payload)).status


Look = Callable[[Played], Awaitable[Any]]


def sees(what: Callable[[Played], Awaitable[Any]], expected: Any) -> Look:
    async def look(played: Played) -> None:
        found = await what(played)
        assert found == expected, f"{found!r} and not {expected!r}"

    return look


def has_sessions(*expected: tuple[str, int | None, str | None]) -> Look:
    return sees(Played.sessions, sorted(expected, key=str))


def alarms(*kinds: str) -> Look:
    async def look(played: Played) -> None:
        async def there() -> bool:
            return set(kinds) <= await played.alerts()

        await played.place.street.until(there)

    return look


def answers(action: str, payload: dict[str, Any], status: str) -> Look:
    async def look(played: Played) -> None:
        assert await played.command(action, payload) == status

    return look


async def refused(played: Played) -> None:
    assert played.box.refusals
    assert not await played.is_online()


DONE, GOOD = "COMPLETED", ("COMPLETED", 1_000, None)
ONLINE = sees(Played.is_online, True)  # noqa: FBT003
SOFT = ("Reset", {"type": "Soft"})
SCHEDULE = ("GetCompositeSchedule", {"connectorId": 1, "duration": 600})


async def no_new_evses(played: Played) -> None:
    assert [one.evse_no for one in await played.place.rows(EVSE)] == [1, 2]


async def hostile_text_is_text(played: Played) -> None:
    assert "<script>" in ((await played.station()).serial_number or "")
    assert (await played.connector())[0] == "Faulted"


async def times_are_ours(played: Played) -> None:
    (one,) = await played.place.rows(ChargingSession)
    assert one.started_at.year > 2020
    assert one.status == DONE


EXPECTED: dict[str, Look] = {
    "no-version": alarms("handshake"),
    "strange-version": alarms("handshake"),
    "no-upgrade": alarms("handshake"),
    "slashes": ONLINE, "percent-identity": ONLINE, "raw-key": ONLINE, "browser-origin": ONLINE,
    "absolute-url": sees(lambda played: _told(played.box.refusals), []),
    "wrong-key": ONLINE, "other-user": ONLINE,
    "compressed": ONLINE, "second-link": ONLINE, "cut-link": has_sessions(GOOD), "boot-loop": alarms("boot_loop"),
    "no-boot": sees(Played.connector, ("Available", None)), "boots-when-asked": answers(*SOFT, "failed"),
    "binary-frame": ONLINE,
    "no-frames": alarms("broken_frames"), "broken-json": alarms("broken_frames"), "deep-nesting": ONLINE,
    "odd-actions": ONLINE, "no-numbers": ONLINE, "double-keys": alarms("duplicate_key"),
    "hostile-texts": hostile_text_is_text, "odd-ids": ONLINE,
    "ids-again": sees(Played.values, [1_100, 1_100, 1_200, 1_200]),
    "message-flood": sees(Played.values, list(range(200))), "answers-nobody-asked": ONLINE,
    "odd-boot": sees(lambda played: _serial(played), "3N" + "7" * 40),
    "restart-in-session": has_sessions((DONE, 500, None)),
    "clock-1970": times_are_ours, "clock-ahead": times_are_ours, "local-times": has_sessions(GOOD),
    "start-twice": has_sessions(GOOD), "unknown-card": has_sessions(("ACTIVE", None, None)),
    "stop-minus-one": has_sessions(GOOD), "orphan-stop": has_sessions((DONE, None, "orphan")),
    "bare-stop": has_sessions(GOOD), "stop-by-another": has_sessions(GOOD),
    "meter-back": has_sessions((DONE, None, "implausible")), "meter-resets": has_sessions((DONE, None, "implausible")),
    "late-reading": has_sessions(GOOD), "start-at-end": has_sessions((DONE, 4_000, "start_twice")),
    "never-stops": has_sessions(("ACTIVE", None, None)),
    "random-stop": has_sessions(("ACTIVE", None, None), (DONE, None, "orphan")),
    "too-much-energy": has_sessions((DONE, None, "implausible")),
    "wh-for-kwh": has_sessions((DONE, None, "implausible")),
    "offline-queue": has_sessions(GOOD, (DONE, None, "orphan")),
    "two-at-once": has_sessions((DONE, None, "superseded"), (DONE, 500, None)),
    "stray-ids": has_sessions(GOOD), "meter-object": sees(Played.values, [1_100]),
    "meter-numbers": sees(Played.values, [1_100.5]), "meter-empty": sees(Played.values, [1_100]),
    "meter-units": sees(Played.values, [31, 50, 1_100, 7_100]), "meter-phases": sees(Played.values, [11, 12, 13]),
    "meter-15": sees(Played.values, [1_234]), "vendor-status": sees(Played.connector, ("Faulted", "OtherError")),
    "flapping": sees(Played.connector, ("Faulted", "GroundFailure")), "odd-connectors": no_new_evses,
    "card-guessing": alarms("card_guessing"), "vendor-data": ONLINE,
    "events-out-of-order": has_sessions((DONE, 3_000, None)),
    "never-answers": answers(*SOFT, "unknown"), "answers-slowly": answers(*SOFT, "accepted"),
    "wrong-answer-ids": answers(*SOFT, "unknown"), "answers-twice": answers(*SOFT, "accepted"),
    "misfit-answers": answers(*SOFT, "failed"), "not-implemented": answers(*SOFT, "failed"),
    "nonsense-schedule": answers(*SCHEDULE, "rejected"), "no-maximum": ONLINE, "no-profile-at-start": ONLINE,
}  # fmt: skip


async def _told(value: Any) -> Any:
    return value


async def _serial(played: Played) -> str | None:
    return (await played.station()).serial_number


async def nothing_is_lost(played: Played) -> None:
    """Heartbeats are not kept, and the boots of a loop are answered from memory."""
    held = {
        number
        for number, action in played.box.acknowledged
        if action not in ("Heartbeat", "BootNotification")
    }
    rows = await played.place.rows(OCPPMessage, OCPPMessage.direction == "in")
    assert not held - {row.message_id for row in rows}


async def play(street: Street, fault: Fault) -> Played:
    place = await street.box(f"F-{fault.name}"[:36])
    url = f"ws://localhost:{street.yard.port}/nordlicht/{place.identity}"
    box = Box(url, place.password, place.card, ("127.0.0.1", street.yard.port), fault.version)
    with contextlib.suppress(*NOWHERE):
        await fault.play(box)
    return Played(fault, box, place)


async def test_every_fault_of_the_library_leaves_what_it_should_and_nothing_that_was_acknowledged_is_lost(
    street: Street,
):
    wrong: dict[str, str] = {}

    async def one(fault: Fault, at_once: asyncio.Semaphore) -> None:
        async with at_once:
            played = await play(street, fault)
            try:
                await EXPECTED[fault.name](played)
                await nothing_is_lost(played)
            except Exception as error:  # noqa: BLE001 - all of them are told at the end
                wrong[fault.name] = f"{type(error).__name__}: {error}"
            finally:
                await played.box.close()

    at_once = asyncio.Semaphore(8)
    await asyncio.gather(*(one(fault, at_once) for fault in FAULTS.values()))
    assert not wrong, "\n".join(f"{name}: {text.splitlines()[0]}" for name, text in sorted(wrong.items()))


def test_every_fault_says_in_a_line_what_it_does_and_names_rows_that_there_are():
    known = {f"2.{row}" for row in ROWS if row not in LATER} | {f"3.{quirk}" for quirk in QUIRKS}
    assert set(EXPECTED) == set(FAULTS)
    for fault in FAULTS.values():
        assert set(fault.shows) <= known
        assert fault.shows
        assert len(fault.says) <= 90
        assert "\n" not in fault.says
