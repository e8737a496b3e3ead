"""Staff and machines ask stations about access and energy: the forms and the calls lead to what stands on the wire."""

from typing import Any

import pytest
from sqlalchemy import select

from app.charging.models import ChargingProfile, CompositeSchedule, Reservation
from app.kernel.ids import parse_id
from app.kernel.settings import Settings
from app.stations import service as stations
from app.stations.models import AvailabilityWish, StationCommand
from tenants.database import Database
from tests.isolation.furniture import Furnished, furnish
from tests.web import CLI, House, open_house

pytestmark = pytest.mark.anyio


async def ready(house: House, version: str = "ocpp2.0.1") -> Furnished:
    brand = await furnish(house.database, "alpha")
    async with house.database.scope(brand.tenant_id, CLI) as scope:
        await stations.connection_opened(
            scope,
            parse_id("charging_station", brand.ids["station_id"]),
            node="n",
            ocpp_version=version,
            remote="",
        )
    return brand


async def newest(house: House, brand: Furnished, model: Any) -> Any:

    async with house.database.scope(brand.tenant_id, CLI) as scope:
        return (await scope.db.execute(select(model).order_by(model.id.desc()).limit(1))).scalar_one()


async def test_the_forms_of_the_portal_ask_the_station(settings: Settings, database: Database):
    async with open_house(settings, database) as house:
        brand = await ready(house)
        ids, staff = brand.ids, await house.staff(brand.slug, brand.tenant_id, brand.email("owner"))
        base = f"/stations/{ids['station_id']}"

        answer = await staff.open(f"{base}/charging-profiles")
        assert answer.status_code == 200 and "As OCPP 2.0.1 says it." in answer.text
        bad = await staff.post(
            f"{base}/charging-profiles", {"purpose": "TxDefaultProfile", "steps": "soon 11"}
        )
        assert bad.status_code == 422 and "is not a time and a limit" in bad.text
        form = {"purpose": "TxDefaultProfile", "evse_no": "1", "unit": "W", "kind": "Daily",
                "steps": "0:00 11\n22:00 4,2 3"}  # fmt: skip
        assert (await staff.post(f"{base}/charging-profiles", form)).status_code == 303
        sent = await newest(house, brand, StationCommand)
        schedule = sent.payload["chargingProfile"]["chargingSchedule"][0]
        assert sent.action == "SetChargingProfile" and schedule["duration"] == 86400
        assert schedule["chargingSchedulePeriod"] == [
            {"startPeriod": 0, "limit": 11000}, {"startPeriod": 79200, "limit": 4200, "numberPhases": 3}
        ]  # fmt: skip
        nobody = form | {"purpose": "TxProfile", "kind": "Relative"}
        assert (await staff.post(f"{base}/charging-profiles", nobody)).status_code == 409
        assert (await staff.post(f"{base}/composite-schedules", {"evse_no": "1"})).status_code == 303
        assert (await newest(house, brand, CompositeSchedule)).duration_s == 86400
        for path, action in (
            (f"{base}/charging-profiles/clearings", "ClearChargingProfile"),
            (f"{base}/charging-profiles/reports", "GetChargingProfiles"),
            (f"{base}/transaction-status-requests", "GetTransactionStatus"),
            (f"/charging-profiles/{ids['charging_profile_id']}/clearings", "ClearChargingProfile"),
            (f"/reservations/{ids['reservation_id']}/cancellations", "CancelReservation"),
            (f"/local-lists/{ids['station_id']}/version-requests", "GetLocalListVersion"),
            (f"/local-lists/{ids['station_id']}/cache-clearings", "ClearCache"),
            (f"/local-lists/{ids['station_id']}/sendings", "SendLocalList"),
        ):
            assert (await staff.post(path)).status_code == 303, path
            assert (await newest(house, brand, StationCommand)).action == action
        shown = await staff.open(f"{base}/charging-profiles?evse=0")
        assert "In force" in shown.text or "Being cleared" in shown.text

        wish = {"form": "availability", "evse": "1.1", "operative": "no"}
        assert (await staff.post(f"{base}/commands", wish)).status_code == 303
        asked = await newest(house, brand, AvailabilityWish)
        assert (asked.evse_no, asked.connector_no, asked.is_operative) == (1, 1, False)
        assert "Asked to go out of service" in (await staff.open(f"{base}/commands")).text

        place = {"place": ids["evse_id"], "id_token_id": ids["id_token_id"], "minutes": "30"}
        assert (await staff.post("/reservations", place)).status_code == 303
        assert (await newest(house, brand, StationCommand)).payload["evseId"] == 1
        assert (await newest(house, brand, Reservation)).state == "asked"
        alone = await staff.post("/reservations", place | {"for_group": "on"})
        assert alone.status_code == 422 and "no parent token" in alone.text
        assert brand.canary in (await staff.open("/reservations")).text

        group = {"covers": "groups", "group_id": ids["driver_group_id"]}
        assert (await staff.post(f"/local-lists/{ids['station_id']}", group)).status_code == 303
        assert (
            await staff.post(f"/local-lists/{ids['station_id']}", {"covers": "groups"})
        ).status_code == 422
        assert brand.canary in (await staff.open("/local-lists")).text
        assert "On its way" in (await staff.open(f"/local-lists/{ids['station_id']}")).text


async def test_the_calls_of_rest_ask_the_station(settings: Settings, database: Database):
    async with open_house(settings, database) as house:
        brand = await ready(house)
        ids, key = brand.ids, await house.api(brand.slug, brand.tenant_id)
        base = f"/api/v1/stations/{ids['station_id']}"

        async def ask(method: str, path: str, **body: Any) -> dict[str, Any]:
            answer = await key.send(method, path, **({"json": body} if method != "GET" else {}))
            assert answer.status_code in (200, 202), (path, answer.text)
            return answer.json()

        made = await ask("POST", f"{base}/charging-profiles", purpose="TxDefaultProfile", evse_no=1, unit="A",
                         periods=[{"start_s": 0, "limit": 16}, {"start_s": 3600, "limit": 6.5}])  # fmt: skip
        assert made["status"] == "asked" and made["profile_no"] == 2
        (held,) = (await ask("GET", f"{base}/charging-profiles"))["data"]
        assert held["id"] == ids["charging_profile_id"]
        wrong = await key.send("POST", f"{base}/charging-profiles", json={"periods": [{"limit": "much"}]})
        assert wrong.json()["errors"][0]["pointer"] == "/periods/0/limit"
        await ask("POST", f"{base}/charging-profiles/clearings", purpose="TxDefaultProfile", stack_level=0)
        await ask("DELETE", f"/api/v1/charging-profiles/{ids['charging_profile_id']}")
        assert (await newest(house, brand, StationCommand)).payload == {"chargingProfileId": 1}
        await ask("POST", f"{base}/charging-profiles/reports", sources=["EMS"])
        await ask("POST", f"{base}/composite-schedules", evse_no=1, duration_s=3600)
        assert (await ask("GET", f"{base}/composite-schedules"))["data"][0]["status"] == "asked"
        await ask("POST", f"{base}/transaction-status-requests")
        wish = await ask("POST", f"{base}/availability", operative=True, evse_no=1)
        assert wish["status"] == "asked" and len((await ask("GET", f"{base}/availability"))["data"]) == 2
        until = (await ask("GET", f"/api/v1/reservations/{ids['reservation_id']}"))["expires_at"]
        kept = await ask("POST", "/api/v1/reservations", station_id=ids["station_id"],
                         id_token_id=ids["id_token_id"], expires_at=until, connector_type="sType2")  # fmt: skip
        assert kept["status"] == "asked" and kept["evse_id"] is None
        await ask("DELETE", f"/api/v1/reservations/{ids['reservation_id']}")
        covered = await ask(
            "PATCH", f"{base}/local-list", covers="groups", group_ids=[ids["driver_group_id"]]
        )
        assert covered["group_ids"] == [ids["driver_group_id"]]
        assert (await ask("POST", f"{base}/local-list/sendings", whole=True))["state"] == "sending"
        await ask("POST", f"{base}/local-list/version-requests")
        await ask("POST", f"{base}/cache-clearings")
        begun = await ask("POST", "/api/v1/charging-sessions", evse_id=ids["evse_id"],
                          charging_profile={"unit": "W", "kind": "Relative", "evse_no": 1,
                                            "periods": [{"start_s": 0, "limit": 7400}]})  # fmt: skip
        assert begun["status"] == "PENDING"
        sent = await newest(house, brand, StationCommand)
        assert sent.action == "RequestStartTransaction"
        assert sent.payload["chargingProfile"]["chargingProfilePurpose"] == "TxProfile"
        assert (await newest(house, brand, ChargingProfile)).session_id is not None
