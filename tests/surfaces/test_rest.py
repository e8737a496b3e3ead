"""REST's manners: keys, problems, repetitions."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app.brands import service as brands
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio
TARIFF = {
    "id": "T1", "currency": "EUR",
    "elements": [{"price_components": [{"type": "ENERGY", "price": 0.25, "vat": 10.0, "step_size": 1}]}],
}  # fmt: skip


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


@pytest.fixture
async def api(house: House, tenant_id: UUID) -> Visitor:
    return await house.api("nordlicht", tenant_id)


async def test_a_key_of_another_brand_is_no_key_here(house: House, tenant_id: UUID) -> None:
    other = await found_brand(house.database, "solmark", "selim@solmark.example")
    stranger = await house.api("nordlicht", other)
    answer = await stranger.get("/api/v1/tenant")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer lvk_no", "Basic YTpi", "Bearer " + "x" * 5000])
async def test_without_a_key_there_is_nothing(house: House, tenant_id: UUID, value: str) -> None:
    visitor = house.portal("nordlicht")
    answer = await visitor.get("/api/v1/tenant", headers={"Authorization": value})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_login_cookie_opens_no_rest(house: House, tenant_id: UUID) -> None:
    staff = await house.staff("nordlicht", tenant_id)
    assert (await staff.get("/api/v1/tenant")).status_code == 401


async def test_a_key_does_only_what_its_scopes_say(house: House, tenant_id: UUID) -> None:
    narrow = await house.api("nordlicht", tenant_id, "settings.view")
    assert (await narrow.get("/api/v1/tenant")).status_code == 200
    refused = await narrow.send("PATCH", "/api/v1/tenant", json={"city": "Kiel"})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_the_tenant_is_read_and_changed(api: Visitor) -> None:
    seller = {"legal_name": "Nordlicht GmbH", "address": "Weg 1", "postal_code": "10115", "city": "Berlin",
              "vat_id": "DE136695976", "party_id": "NOR", "country_code": "DE", "nobody_knows": 1}  # fmt: skip
    changed = (await api.send("PATCH", "/api/v1/tenant", json=seller)).json()
    assert changed["has_seller_data"] and changed["party_id"] == changed["ocpi_party_id"] == "NOR"
    assert (await api.get("/api/v1/tenant")).json() == changed


async def test_a_wrong_field_is_named_and_nothing_is_written(api: Visitor) -> None:
    body = {"city": "Kiel", "vat_id": "nonsense", "time_zone": "Europe/Atlantis"}
    answer = await api.send("PATCH", "/api/v1/tenant", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert {error["pointer"] for error in problem["errors"]} == {"/vat_id", "/time_zone"}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (await api.get("/api/v1/tenant")).json()["city"] == ""


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[]", 422), (b'"text"', 422), (b"\xff\xfe", 400), (b"", 422)]
)
async def test_a_body_that_is_no_json_object_is_refused(api: Visitor, body: bytes, status: int) -> None:
    answer = await api.send(
        "PATCH", "/api/v1/tenant", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_unknown_path_is_a_problem_too(api: Visitor) -> None:
    for path in ("/api/v1/nothing", "/api/nothing"):
        answer = await api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await api.send("DELETE", "/api/v1/tenant")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


async def test_a_body_that_is_too_large_is_refused(api: Visitor) -> None:
    answer = await api.send("PATCH", "/api/v1/tenant", json={"city": "x" * 1_100_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def _create(api: Visitor, key: str, tariff: Any = TARIFF) -> Any:
    return await api.send(
        "POST", "/api/v1/tariffs", json={"tariff": tariff}, headers={"Idempotency-Key": key}
    )


async def test_a_repeated_post_gets_the_first_answer_and_does_nothing(api: Visitor) -> None:
    first, again = await _create(api, "k-1"), await _create(api, "k-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json() and again.headers["idempotency-replayed"] == "true"
    assert len((await api.get("/api/v1/tariffs")).json()["data"]) == 1


async def test_one_key_is_for_one_request(api: Visitor) -> None:
    await _create(api, "k-1")
    other = await _create(api, "k-1", TARIFF | {"id": "T2"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_reused")
    assert (await _create(api, "k-2", TARIFF | {"id": "T2"})).status_code == 201


async def test_a_refused_post_keeps_no_key(api: Visitor) -> None:
    assert (await _create(api, "k-1", {"currency": "EUR"})).status_code == 422
    assert (await _create(api, "k-1")).status_code == 201


async def test_repetitions_at_the_same_time_create_one_thing(api: Visitor) -> None:
    answers = await asyncio.gather(*(_create(api, "k-1") for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {
        "idempotency_running"
    }
    assert len((await api.get("/api/v1/tariffs")).json()["data"]) == 1


async def test_keys_of_two_machines_do_not_meet(house: House, tenant_id: UUID, api: Visitor) -> None:
    other = await house.api("nordlicht", tenant_id)
    first, second = await _create(api, "k-1"), await _create(other, "k-1", TARIFF | {"id": "T2"})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]


async def test_a_suspended_tenant_reads_only(house: House, api: Visitor) -> None:
    await brands.suspend_tenant(house.database, CLI, "nordlicht", "unpaid")
    house.door.resolver.forget()
    assert (await api.get("/api/v1/tenant")).json()["status"] == "suspended"
    answer = await api.send("PATCH", "/api/v1/tenant", json={"city": "Kiel"})
    assert (answer.status_code, answer.json()["code"]) == (409, "tenant_suspended")
    await brands.resume_tenant(house.database, CLI, "nordlicht", "paid")
    house.door.resolver.forget()
    assert (await api.send("PATCH", "/api/v1/tenant", json={"city": "Kiel"})).status_code == 200
