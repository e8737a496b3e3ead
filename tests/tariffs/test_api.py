"""REST for tariffs: what goes in comes out, and what is wrong is named."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.testing import AsyncTestClient

from app.kernel.errors import LiveryError
from app.kernel.ids import public_id
from app.tariffs import api
from tenants.database import Database
from tenants.scope import Scope
from tests.cast import STAFF, Cast, hire

pytestmark = pytest.mark.anyio
TARIFF = {
    "id": "T1", "currency": "EUR", "colour": "red",
    "elements": [{"price_components": [{"type": "ENERGY", "price": 0.25, "vat": 10.0, "step_size": 1}]}],
}  # fmt: skip


def problem(_request: Request[Any, Any, Any], error: LiveryError) -> Response[dict[str, Any]]:
    """What the surface does with errors, as far as these tests look."""
    return Response(
        {"code": error.code, "fields": [fault.field for fault in error.faults]}, status_code=error.status
    )


@pytest.fixture
async def cast(database: Database) -> Cast:
    return await hire(database, with_tariff=False)


@pytest.fixture
async def client(database: Database, cast: Cast) -> AsyncIterator[AsyncTestClient[Litestar]]:
    async def scope() -> AsyncIterator[Scope]:
        async with database.scope(cast.tenant_id, STAFF) as opened:
            yield opened

    app = Litestar(
        list(api.routes), dependencies={"tenant_scope": Provide(scope)}, exception_handlers={LiveryError: problem},
        openapi_config=None,
    )  # fmt: skip
    async with AsyncTestClient(app) as opened:
        yield opened


async def test_a_tariff_comes_back_as_it_was_sent_with_what_was_left_out(client: Any) -> None:
    made = await client.post("/tariffs", json={"tariff": TARIFF, "assign": {"default": True}})
    assert made.status_code == 201
    body = made.json()
    assert body["id"].startswith("tar_") and body["assign"] == {"default": True}
    assert body["tariff"] | TARIFF == body["tariff"] and body["tariff"]["country_code"] == "DE"
    assert body["summary"] == ["€0.25 per kWh plus 10 % VAT"]
    assert (await client.get(f"/tariffs/{body['id']}")).json() == body
    assert (await client.get("/tariffs")).json() == {"data": [body], "next_cursor": None}


async def test_a_put_is_a_new_version_and_keeps_the_assignment(client: Any, cast: Cast) -> None:
    place = {"location_id": public_id("location", cast.location_id)}
    made = (await client.post("/tariffs", json={"tariff": TARIFF, "assign": place})).json()
    changed = TARIFF | {"elements": [{"price_components": [{"type": "FLAT", "price": 2, "step_size": 1}]}]}
    put = await client.put(f"/tariffs/{made['id']}", json={"tariff": changed})
    assert put.status_code == 200
    assert put.json()["version_no"] == 2 and put.json()["assign"] == place
    assert put.json()["tariff"]["elements"][0]["price_components"][0]["type"] == "FLAT"


async def test_lists_have_a_cursor(client: Any) -> None:
    for number in range(3):
        await client.post("/tariffs", json={"tariff": TARIFF | {"id": f"T{number}"}})
    first = (await client.get("/tariffs?limit=2")).json()
    rest = (await client.get(f"/tariffs?limit=2&after={first['next_cursor']}")).json()
    assert [row["tariff"]["id"] for row in first["data"] + rest["data"]] == ["T0", "T1", "T2"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "fields"),
    [
        ("POST", "/tariffs", {}, 422, ["tariff"]), ("POST", "/tariffs", TARIFF, 422, ["tariff"]),
        ("POST", "/tariffs", {"tariff": {"currency": "EUR"}}, 422, ["tariff.elements"]),
        ("POST", "/tariffs", {"tariff": TARIFF, "assign": {"evse_id": "evs_nonsense"}}, 422, ["assign.evse_id"]),
        ("POST", "/tariffs", {"tariff": TARIFF | {"min_price": {"excl_vat": 5}, "max_price": {"excl_vat": 4}}}, 422,
         ["tariff.max_price"]),
        ("POST", "/tariffs", {"tariff": TARIFF, "assign": "everywhere"}, 422, ["assign"]),
        ("GET", "/tariffs/tar_nonsense", None, 404, []), ("GET", "/tariffs?limit=0", None, 422, ["limit"]),
        ("PUT", "/tariffs/loc_00000000000000000000000000", {"tariff": TARIFF}, 404, []),
        ("POST", "/price-previews", {}, 422, ["tariff", "session"]),
        ("POST", "/price-previews", {"tariff": TARIFF, "session": {"energy_kwh": -1}}, 422, ["session.energy_kwh"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(
    client: Any, method: str, path: str, body: Any, status: int, fields: list[str]
) -> None:
    answer = await client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["fields"]) == (status, fields)
    assert (await client.get("/tariffs")).json()["data"] == []


async def test_a_preview_is_priced_line_by_line_and_writes_nothing(client: Any) -> None:
    answer = await client.post("/price-previews", json={"tariff": TARIFF, "session": {"energy_kwh": 20}})
    assert answer.status_code == 200
    body = answer.json()
    assert body["total_cost"] == body["total_energy_cost"] == {"excl_vat": "5.00", "incl_vat": "5.50"}
    assert body["total_time_cost"] == {"excl_vat": "0.00", "incl_vat": "0.00"} and body["currency"] == "EUR"
    assert body["lines"][0]["component"] == "ENERGY" and body["lines"][0]["volume"] == "20"
    assert (await client.get("/tariffs")).json()["data"] == []
