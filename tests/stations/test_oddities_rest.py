"""What the portal can do about odd stations, published firmware and readings, machines can do by REST."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from app.kernel.ids import public_id
from app.maintenance import policy
from app.stations import alerts, commands, parking
from app.stations import service as stations
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio
BOOTED = {"vendor": "Fjordlader AS", "model": "F 22"}


class Desk:
    def __init__(self, house: House, tenant_id: UUID, station_id: UUID, api: Visitor) -> None:
        self.house, self.tenant_id, self.station_id, self.api = house, tenant_id, station_id, api
        self.id = public_id("charging_station", station_id)

    def scope(self) -> Any:
        return self.house.database.scope(self.tenant_id, CLI)

    async def get(self, path: str) -> Any:
        answer = await self.api.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def send(self, method: str, path: str, status: int, body: dict[str, Any] | None = None) -> Any:
        answer = await self.api.send(method, f"/api/v1{path}", json=body or {})
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
async def desk(house: House) -> Desk:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await stations.create_station(scope, identity="CP1")
        await stations.connection_opened(
            scope, made.station.id, node="n", ocpp_version="ocpp2.0.1", remote="192.0.2.1"
        )
        station = await stations.get_station(scope, made.station.id)
        station.vendor, station.model = BOOTED["vendor"], BOOTED["model"]
    return Desk(house, tenant_id, made.station.id, await house.api("nordlicht", tenant_id))


async def test_quirks_are_listed_added_and_taken_away(desk: Desk):
    """One that is written down holds at once for the stations that are there."""
    kinds = (await desk.get("/quirks"))["data"]
    assert {"no_ping", "no_zone"} <= {one["quirk"] for one in kinds}
    (zone,) = [one for one in kinds if one["quirk"] == "no_zone"]
    assert {"vendor": "Growatt*", "model": "*", "source": "evcc-io/evcc#10399"} in zone["known_makes"]
    body = {"vendor": "Fjordlader*", "quirk": "no_ping", "note": "It hangs up."}
    made = await desk.send("POST", "/station-quirks", 201, body)
    assert (made["model"], made["note"]) == ("*", "It hangs up.")
    assert (await desk.get("/station-quirks"))["data"] == [made]
    assert (await desk.get(f"/stations/{desk.id}"))["quirks"] == ["no_ping"]
    assert (await desk.send("POST", "/station-quirks", 409, body))["code"] == "quirk_taken"
    wrong = await desk.send("POST", "/station-quirks", 422, {"vendor": "X", "quirk": "sings"})
    assert wrong["errors"][0]["pointer"] == "/quirk"
    await desk.send("POST", "/station-quirks", 422, {"vendor": 7, "quirk": "no_ping"})
    assert await desk.send("DELETE", f"/station-quirks/{made['id']}", 200) == made
    assert (await desk.get(f"/stations/{desk.id}"))["quirks"] == []
    await desk.send("DELETE", f"/station-quirks/{made['id']}", 404)


async def test_alerts_are_listed_and_dismissed_and_a_quarantine_is_ended(desk: Desk):
    async with desk.scope() as scope:
        await alerts.raise_alert(scope, desk.station_id, "handshake", "offers no version")
        for _ in range(3):
            await alerts.raise_alert(scope, desk.station_id, "duplicate_identity")
    found = (await desk.get(f"/station-alerts?station_id={desk.id}&is_open=true"))["data"]
    by_kind = {one["kind"]: one for one in found}
    assert by_kind["handshake"]["detail"] == "offers no version" and by_kind["handshake"]["title"]
    assert by_kind["duplicate_identity"]["count"] == 3
    dismissed = await desk.send("POST", f"/station-alerts/{by_kind['handshake']['id']}/dismissal", 200)
    assert dismissed["dismissed_at"]
    assert [one["kind"] for one in (await desk.get("/station-alerts?is_open=false"))["data"]] == ["handshake"]
    assert (await desk.get(f"/stations/{desk.id}"))["quarantined_at"]
    released = await desk.send("POST", f"/stations/{desk.id}/quarantine-releases", 200)
    assert released == {"id": desk.id, "quarantined_at": None}
    again = await desk.send("POST", f"/stations/{desk.id}/quarantine-releases", 409)
    assert again["code"] == "not_in_quarantine"
    assert (await desk.get("/station-alerts?is_open=true"))["data"] == []


async def test_parked_messages_are_listed_retried_and_let_go(desk: Desk):
    """Card numbers are told only to who may reveal them."""
    frame = '[2,"m1","Authorize",{"idTag":"04A1B2C3D4E501"}]'
    async with desk.scope() as scope:
        for number in (1, 2):
            await parking.park(
                scope, desk.station_id, received_at=datetime.now(UTC), ocpp_version="ocpp1.6", action="Authorize",
                message_id=f"m{number}", raw=frame, error="RuntimeError: a fault of ours",
            )  # fmt: skip
    second, first = (await desk.get("/parked-messages?status=parked"))["data"]
    assert (first["message_id"], first["error"], first["tries"]) == ("m1", "RuntimeError: a fault of ours", 1)
    assert first["raw"] == frame
    narrow = await desk.house.api("nordlicht", desk.tenant_id, "stations.view")
    masked = (await narrow.get(f"/api/v1/parked-messages/{first['id']}")).json()
    assert "04A1B2C3D4E501" not in masked["raw"]
    assert (await narrow.send("POST", f"/api/v1/parked-messages/{first['id']}/discards")).status_code == 403
    retried = await desk.send("POST", f"/parked-messages/{first['id']}/retries", 202)
    assert retried["status"] == "retrying"
    gone = await desk.send("POST", f"/parked-messages/{second['id']}/discards", 200)
    assert gone["status"] == "discarded" and gone["decided_at"]
    assert (await desk.send("POST", f"/parked-messages/{second['id']}/retries", 409))["code"] == "not_parked"
    assert [one["id"] for one in (await desk.get("/parked-messages?status=discarded"))["data"]] == [
        second["id"]
    ]
    assert (await desk.get(f"/parked-messages?station_id={desk.id}&limit=1"))["next_cursor"]
    assert (await desk.api.get("/api/v1/parked-messages?status=lost")).status_code == 422


async def test_firmware_is_published_and_withdrawn(desk: Desk):
    async with desk.scope() as scope:
        await policy.set_policy(scope, minimum_profile=1, organisation="N", firmware_hosts=["fw.example.com"])
    path = f"/stations/{desk.id}/firmware-publications"
    body = {"location": "https://fw.example.com/a.bin", "checksum": "0" * 32}
    made = await desk.send("POST", path, 202, body)
    assert (made["status"], made["checksum"], made["station_id"]) == ("Requested", "0" * 32, desk.id)
    assert (await desk.get(f"/firmware-publications?station_id={desk.id}"))["data"] == [made]
    assert await desk.get(f"/firmware-publications/{made['id']}") == made
    await desk.send("POST", path, 422, body | {"checksum": "short"})
    await desk.send("POST", path, 422, body | {"retries": "many"})
    asked = await desk.send("POST", f"/firmware-publications/{made['id']}/withdrawal", 202)
    assert asked["action"] == "UnpublishFirmware"


async def test_what_a_station_cannot_is_told_and_forgotten_when_staff_want_it_asked_again(desk: Desk):
    async with desk.scope() as scope:
        sent = await commands.send_command(scope, desk.station_id, "ClearCache", {})
        await commands.conclude_command(scope, sent.id, "failed", None, "NotImplemented: no")
    path = f"/stations/{desk.id}/unsupported-commands"
    (lack,) = (await desk.get(path))["data"]
    assert (lack["command"], lack["said"]) == ("ClearCache", "NotImplemented")
    staff = await desk.house.staff("nordlicht", desk.tenant_id)
    page = (await staff.open(f"/stations/{desk.id}/commands")).text
    assert "Not supported by this station" in page and "NotImplemented" in page
    assert (await desk.send("DELETE", path, 200))["data"] == []
    assert (await desk.get(path))["data"] == []
    assert "Not supported by this station" not in (await staff.get(f"/stations/{desk.id}/commands")).text


async def test_a_new_station_has_at_least_the_security_that_the_brand_asks_for(desk: Desk):
    """By REST and in the portal; what was made before stays as it is."""
    assert (await desk.send("POST", "/stations", 201, {"identity": "A"}))["security_profile"] == 1
    async with desk.scope() as scope:
        await policy.set_policy(scope, minimum_profile=2, organisation="", firmware_hosts=[])
    for profile in (0, 1):
        body = {"identity": "B", "security_profile": profile}
        refused = await desk.send("POST", "/stations", 422, body)
        assert refused["errors"][0]["code"] == "below_minimum_profile"
    made = await desk.send("POST", "/stations", 201, {"identity": "B"})
    assert (made["security_profile"], len(made["password"])) == (2, 40)
    assert (await desk.send("POST", "/stations", 201, {"identity": "C", "security_profile": 3}))[
        "password"
    ] is None
    staff = await desk.house.staff("nordlicht", desk.tenant_id)
    page = (await staff.open("/stations/new")).text
    assert "Profile 2: password over TLS" in page and "Profile 1: password<" not in page
    form = {"identity": "D", "plate": "ac22", "evse_count": "1", "security_profile": "1"}
    assert "security profile 2 or higher" in (await staff.post("/stations", form)).text
    assert (await staff.post("/stations", form | {"security_profile": "2"})).status_code == 200
