"""One station before the gateway, and the people behind it: REST and portal on a real front door, a worker by hand."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, update

from app.access import service as access
from app.brands import faces
from app.charging import service as charging
from app.charging.models import ChargingSession
from app.charging.queries import events_of, timeline
from app.identity import service as identity
from app.kernel.ids import parse_id, public_id
from app.kernel.settings import Settings
from app.stations.models import StationCommand
from tenants.models import TenantRoute
from tenants.scope import Actor
from tests.billing.conftest import Jobs
from tests.cast import STAFF, Cast
from tests.conftest import DatabaseUrls
from tests.foreign_stations import Station16, Station21, Station201, stamp
from tests.gateway.conftest import Yard
from tests.readings import MeterValue
from tests.web import House, Visitor, open_house
from themes.theme import preset

OWNER = "anke@nordlicht-laden.example"
BOOT_16 = {"chargePointModel": "Fjord 22", "chargePointVendor": "Wattwerk"}
BOOT_201 = {"reason": "PowerUp", "chargingStation": {"model": "Kompakt 150", "vendorName": "Ladewerk"}}


@dataclass
class Stage:
    """`box` is the station, booted; `rest` a machine with a key of the brand."""

    yard: Yard
    cast: Cast
    box: Any
    house: House
    jobs: Jobs
    rest: Visitor
    _staff: Visitor | None = None
    started: list[str] = field(default_factory=list)

    def scope(self) -> Any:
        return self.yard.database.scope(self.cast.tenant_id, STAFF)

    # -- the station ----------------------------------------------------------------------------------------------

    async def boot(self, **more: Any) -> dict[str, Any]:
        payload = (BOOT_16 if isinstance(self.box, Station16) else BOOT_201) | more
        return await self.box.say("BootNotification", payload)

    async def connector(self, number: int, status: str, **more: Any) -> None:
        """StatusNotification of EVSE `number`, in the words of the station's version."""
        if isinstance(self.box, Station16):
            words = {"connectorId": number, "status": status, "errorCode": "NoError", "timestamp": stamp()}
        else:
            words = {"evseId": number, "connectorId": 1, "connectorStatus": status, "timestamp": stamp()}
        await self.box.say("StatusNotification", words | more)

    # -- what REST says -------------------------------------------------------------------------------------------

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.rest.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.rest.send("POST", f"/api/v1{path}", json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    @property
    def station_path(self) -> str:
        return f"/stations/{public_id('charging_station', self.cast.station_id)}"

    async def evse(self, number: int = 1) -> tuple[str, str]:
        """(OCPI status of the EVSE, status of its first connector)."""
        station = await self.get(self.station_path)
        (evse,) = [one for one in station["evses"] if one["evse_no"] == number]
        return evse["status"], evse["connectors"][0]["status"]

    async def ask(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        """A command by REST; returned when it has ended."""
        return await self.ended((await self.post(f"{self.station_path}/commands", {
            "action": action, "payload": payload,
        }))["id"])  # fmt: skip

    async def ended(self, command_id: str) -> dict[str, Any]:
        from tests.conformance.conftest import until

        async def look() -> dict[str, Any] | None:
            shown = await self.get(f"/commands/{command_id}")
            return shown if shown["status"] not in ("queued", "sent") else None

        return await until(look, 12)

    async def start(self, evse: int = 1, card: str | None = None) -> dict[str, Any]:
        """A remote start; returned when the station has answered, with `command` as it ended."""
        body: dict[str, Any] = {"evse_id": public_id("evse", self.cast.evse_ids[evse - 1])}
        if card is not None:
            body["id_token"] = {"value": card, "type": "ISO14443"}
        begun = await self.post("/charging-sessions", body)
        return begun | {"command": await self.ended(begun["command"]["id"])}

    async def stop(self, session_id: str) -> dict[str, Any]:
        return await self.ended((await self.post(f"/charging-sessions/{session_id}/stop-requests", {}))["id"])

    async def session(self, session_id: str | None = None) -> dict[str, Any]:
        """The session of that id; or the newest there is."""
        if session_id is not None:
            return await self.get(f"/charging-sessions/{session_id}")
        return (await self.sessions())[0]

    async def sessions(self) -> list[dict[str, Any]]:
        return (await self.get("/charging-sessions"))["data"]

    async def becomes(self, status: str, session_id: str | None = None) -> dict[str, Any]:
        from tests.conformance.conftest import until

        async def look() -> dict[str, Any] | None:
            found = await self.session(session_id)
            return found if found["status"] == status else None

        return await until(look)

    async def settled(self) -> dict[str, Any]:
        """The worker has done what it had to; the newest session, with its `cdrs`."""
        await self.jobs.run()
        assert not self.jobs.failures
        session = await self.session()
        cdrs = (await self.get("/cdrs"))["data"]
        return session | {"cdrs": [one for one in cdrs if one["session_id"] == session["id"]]}

    async def readings(self, *where: Any) -> list[MeterValue]:
        async with self.scope() as scope:
            query = select(MeterValue).where(*where).order_by(MeterValue.sampled_at)
            return list((await scope.db.execute(query)).scalars())

    async def timeline(self, session_id: str) -> list[str]:
        """The titles of the portal's timeline."""
        async with self.scope() as scope:
            found = await events_of(scope, parse_id("charging_session", session_id))
        return [line["title"] for line in timeline(found)]

    async def log(self, action: str) -> list[dict[str, Any]]:
        """The raw log, newest first."""
        return (await self.rest.get(f"/api/v1{self.station_path}/messages?action={action}")).json()["data"]

    async def portal(self, path: str) -> str:
        """A page as somebody of the team sees it."""
        if self._staff is None:
            async with self.scope() as scope:
                await identity.invite_staff(scope, email=OWNER, name="Anke Petersen", role="owner")
            self._staff = await self.house.staff(self.cast.company.slug, self.cast.tenant_id, OWNER)
        answer = await self._staff.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    # -- what time does -------------------------------------------------------------------------------------------

    async def let_wishes_expire(self) -> None:
        """Three minutes go by without a car."""
        past = datetime.now(UTC) - timedelta(minutes=5)
        waiting = ChargingSession.status == "PENDING"
        async with self.scope() as scope:
            await scope.db.execute(update(ChargingSession).where(waiting).values(pending_until=past))
            await scope.db.flush()
            await charging.expire_overdue(scope)

    async def card(self, value: str, **more: Any) -> UUID:
        async with self.scope() as scope:
            return (await access.create_id_token(scope, value=value, **more)).id

    async def change_card(self, token_id: UUID, **changes: Any) -> None:
        async with self.scope() as scope:
            await access.update_id_token(scope, token_id, **changes)

    async def commands(self, action: str) -> list[StationCommand]:
        async with self.scope() as scope:
            query = select(StationCommand).where(StationCommand.action == action)
            return list((await scope.db.execute(query)).scalars())


async def _move_in(yard: Yard, settings: Settings, cast: Cast) -> None:
    """The brand's hosts and its look, so that its pages can be opened."""
    async with yard.database.platform_scope(Actor.cli(), "test") as scope:
        for surface in ("driver", "portal"):
            host = settings.host_of(surface, cast.company.slug)
            await scope.db.execute(
                insert(TenantRoute).values(kind="host", key=host, tenant_id=cast.tenant_id, surface=surface)
            )
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        await faces.found(scope, preset("default"))


@contextlib.asynccontextmanager
async def staged(
    yard: Yard, settings: Settings, urls: DatabaseUrls, kind: type[Any], *, boots: bool = True
) -> AsyncIterator[Stage]:
    cast = yard.nordlicht
    await _move_in(yard, settings, cast)
    jobs = Jobs(yard.database, urls)
    async with open_house(settings, yard.database) as house:
        rest = await house.api(cast.company.slug, cast.tenant_id)
        stage = Stage(yard, cast, yard.station(cast, kind), house, jobs, rest)
        if boots:
            await stage.box.connect()
            assert (await stage.boot())["status"] == "Accepted"
            await stage.connector(1, "Available")
            await stage.connector(2, "Available")
        try:
            yield stage
        finally:
            await stage.box.close()
            await rest.client.aclose()
            jobs.connection.close()


@pytest.fixture
async def stage16(yard: Yard, settings: Settings, database_urls: DatabaseUrls) -> AsyncIterator[Stage]:
    async with staged(yard, settings, database_urls, Station16) as made:
        yield made


@pytest.fixture
async def stage201(yard: Yard, settings: Settings, database_urls: DatabaseUrls) -> AsyncIterator[Stage]:
    async with staged(yard, settings, database_urls, Station201) as made:
        yield made


@pytest.fixture
async def stage21(yard: Yard, settings: Settings, database_urls: DatabaseUrls) -> AsyncIterator[Stage]:
    async with staged(yard, settings, database_urls, Station21) as made:
        yield made
