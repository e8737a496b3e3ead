"""Meters in the portal and over REST: checking anybody's data, keys, and where only signed energy is billed."""

from typing import Any
from uuid import UUID

import pytest

from app.kernel.ids import public_id
from app.metering import keys, service
from app.stations import service as stations
from tests.cast import PLATES
from tests.metering.meters import Meter, Pair
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio
LATE = {"kind": "E", "at": "2026-05-01T11:00:00,000+0200 S"}


async def found(house: House) -> tuple[UUID, UUID]:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        plate = {"connectors": [{"connector_no": 1, **PLATES["ac22"]}]}
        made = await stations.create_station(scope, identity="CP1", evses=[{"evse_no": 1, **plate}])
    return tenant_id, made.station.id


async def ask(api: Any, body: dict[str, Any], status: int = 200) -> Any:
    answer = await api.send("POST", "/api/v1/signed-data-verifications", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_rest_says_of_anybodys_data_whether_it_was_signed_and_what_it_comes_to(house: House):
    tenant_id, _ = await found(house)
    api, meter = await house.api("nordlicht", tenant_id), Meter()
    record = meter.ocmf(RD=[{**one} for one in _both()])
    told = await ask(api, {"data": record, "format": "ocmf", "public_key": meter.key})
    assert (told["verdict"], told["energy_wh"], told["is_own_key"]) == ("valid", "2500", False)
    (one,) = told["records"]
    assert (one["format"], one["curve"], one["meter"], one["page"]) == (
        "ocmf",
        "secp256r1",
        f"{meter.serial} G-1",
        42,
    )
    assert [reading["energy_wh"] for reading in one["readings"]] == ["5000", "7500"]
    for body, verdict in (
        ({"data": record}, "no_key"), ({"data": record, "public_key": Meter().key}, "invalid"),
        ({"data": record.replace("7.5", "9.5"), "public_key": meter.key}, "invalid"),
        ({"data": record, "format": "vhs"}, "unsupported"), ({"data": "x"}, "unsupported"),
        ({"data": Meter().pcdf("0001.000")}, "valid"),
    ):  # fmt: skip
        told = await ask(api, body)
        assert told["verdict"] == verdict and told["reason"], body
    assert told["is_own_key"] is True
    for body in ({}, {"data": ""}, {"data": 5}, {"data": "x", "public_key": 7}, {"data": "x", "format": []}):
        refused = await ask(api, body, 422)
        assert refused["errors"], body


def _both() -> list[dict[str, Any]]:
    same = {"RI": "1-0:1.8.0", "RU": "kWh", "RT": "AC", "EF": "", "ST": "G"}
    return [
        {"TM": "2026-05-01T10:00:00,000+0200 S", "TX": "B", "RV": 5.0, **same},
        {"TM": "2026-05-01T11:00:00,000+0200 S", "TX": "E", "RV": 7.5},
    ]


async def test_keys_and_policy_over_rest(house: House):
    tenant_id, station_id = await found(house)
    api, meter = await house.api("nordlicht", tenant_id), Meter(Pair("secp256k1"))

    async def send(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = await api.send(method, f"/api/v1{path}", json=body or {})
        assert answer.status_code == status, answer.text
        return answer.json()

    station = public_id("charging_station", station_id)
    made = await send(
        "POST", "/meter-keys", {"station_id": station, "evse_no": 1, "public_key": meter.key}, 201
    )
    assert (made["status"], made["curve"], made["is_compared"]) == ("trusted", "secp256k1", True)
    async with house.database.scope(tenant_id, CLI) as scope:
        other = await keys.note_key(scope, station_id, 1, Meter().key)
    assert other is not None and other.status == "waiting"
    path = f"/meter-keys/{public_id('meter_key', other.id)}/decisions"
    assert (await send("POST", path, {"decision": "trust"}))["status"] == "trusted"
    listed = (await send("GET", "/meter-keys"))["data"]
    assert [one["status"] for one in listed] == ["trusted", "replaced"]
    await send("POST", path, {"decision": "maybe"}, 422)
    await send("POST", "/meter-keys", {"station_id": station, "public_key": "no"}, 422)
    assert await send("PUT", "/metering-policy", {"countries": ["deu", "AUT"]}) == {
        "countries": ["AUT", "DEU"]
    }
    assert await send("GET", "/metering-policy") == {"countries": ["AUT", "DEU"]}
    await send("PUT", "/metering-policy", {"countries": "DEU"}, 422)


async def test_staff_trust_refuse_and_write_down_keys_and_say_where_only_signed_energy_is_billed(
    house: House,
):
    tenant_id, station_id = await found(house)
    owner, first, second = await house.staff("nordlicht", tenant_id), Meter(), Meter()
    assert "No keys yet" in (await owner.open("/meters")).text
    async with house.database.scope(tenant_id, CLI) as scope:
        await keys.note_key(scope, station_id, 1, first.key)
        waiting = await keys.note_key(scope, station_id, 1, second.key)
    assert waiting is not None
    page = (await owner.open("/meters")).text
    assert "Wait for you" in page and keys.fingerprint(waiting.public_key) in page and "First told" in page
    path = f"/meters/{public_id('meter_key', waiting.id)}/decisions"
    assert (await owner.post(path, {"decision": "trust"})).status_code == 303
    page = (await owner.open("/meters")).text
    assert "Wait for you" not in page and "Replaced" in page and "Trusted" in page
    wrong = await owner.post("/meters", {"place": "", "public_key": "zz"})
    assert wrong.status_code == 422
    place = f"{public_id('charging_station', station_id)}:1"
    wrong = await owner.post("/meters", {"place": place, "public_key": "zz"})
    assert wrong.status_code == 422 and "neither hexadecimal nor base64" in wrong.text
    assert (await owner.post("/meters", {"place": place, "public_key": Meter().key})).status_code == 303
    assert (await owner.post("/meters/policy", {"countries": "DEU"})).status_code == 303
    async with house.database.scope(tenant_id, CLI) as scope:
        assert await service.countries_of(scope) == ["DEU"]
    assert (await owner.post("/meters/policy", {})).status_code == 303
    async with house.database.scope(tenant_id, CLI) as scope:
        assert await service.countries_of(scope) == []


async def test_the_check_page_shows_verdict_readings_and_whose_key_it_was(house: House):
    tenant_id, _ = await found(house)
    owner, meter = await house.staff("nordlicht", tenant_id), Meter()
    assert 'name="data"' in (await owner.open("/meters/check")).text
    record = meter.ocmf(RD=_both())
    page = (await owner.post("/meters/check", {"data": record, "public_key": meter.key})).text
    assert "Verified" in page and "2,500 Wh" in page and "The key came with the data" not in page
    page = (await owner.post("/meters/check", {"data": Meter().pcdf("0001.500")})).text
    assert "Verified" in page and "The key came with the data" in page
    page = (await owner.post("/meters/check", {"data": record, "public_key": Meter().key})).text
    assert "Signature wrong" in page
    assert (await owner.post("/meters/check", {"data": ""})).status_code == 422
