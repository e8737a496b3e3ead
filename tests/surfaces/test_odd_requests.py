"""What no browser and no honest client sends gets a clear answer, never a 500."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from app.brands import service as brands
from app.kernel.errors import ConfigurationFault, Invalid
from app.kernel.settings import load_settings
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio
DEEP = "[" * 5000 + "]" * 5000


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


@pytest.fixture
async def api(house: House, tenant_id: UUID) -> Visitor:
    return await house.api("nordlicht", tenant_id, "all")


async def test_an_origin_that_is_no_address_is_another_site(house: House, tenant_id: UUID) -> None:
    answer = await house.portal("nordlicht").send("POST", "/login", headers={"Origin": "http://["}, data={})
    assert answer.status_code == 403


async def test_where_to_go_after_the_login_may_hold_any_letter(house: House, tenant_id: UUID) -> None:
    answer = await house.portal("nordlicht").send(
        "POST", "/login", data={"email": "a@b.example", "next": "/€ü?x=1"}
    )
    assert answer.status_code == 200
    assert "%E2%82%AC%C3%BC?x=1" in answer.headers["set-cookie"]


async def test_a_referer_that_is_no_address_leads_home(house: House, tenant_id: UUID) -> None:
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/")
    answer = await owner.post("/mode", {"mode": "dark"}, headers={"Referer": "http://["})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("before", ["0", "-1", "99999999999999999999999", "x"])
async def test_a_page_of_the_audit_log_that_cannot_be_is_not_there(
    house: House, tenant_id: UUID, before: str
) -> None:
    owner, admin = await house.staff("nordlicht", tenant_id), await house.admin()
    for visitor in (owner, admin):
        assert 400 <= (await visitor.get(f"/audit?before={before}")).status_code < 500


STATION = {"identity": "S1", "evses": [{"evse_no": 1, "connectors": [{"connector_no": 1}]}]}
TWICE = [{"connector_no": 1}, {"connector_no": 1}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/id-tokens", {"type": "ISO14443", "value": "A1", "expires_at": "0001-01-01T00:00:00+01:00"}),
        ("/stations", STATION | {"password": 5}),
        ("/stations", STATION | {"security_profile": True}),
        ("/stations", STATION | {"evses": [{"evse_no": 1, "connectors": 5}]}),
        ("/stations", STATION | {"evses": [{"evse_no": 1, "connectors": [1]}]}),
        ("/stations", STATION | {"evses": [{"evse_no": 1, "connectors": TWICE}]}),
        ("/locations", {"name": "A", "address": "B", "city": "C", "country": "DEU", "time_zone": "Europe/Berlin",
                        "is_free_vend": "false"}),
    ],
)  # fmt: skip
async def test_one_wrong_field_is_named_and_never_a_500(
    api: Visitor, path: str, body: dict[str, Any]
) -> None:
    answer = await api.send("POST", f"/api/v1{path}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"], answer.text


@pytest.mark.parametrize("path", ["/price-previews", "/tariffs", "/stations"])
async def test_a_body_nested_without_end_is_refused(api: Visitor, path: str) -> None:
    for name in ("tariff", "session", "evses"):
        answer = await api.send(
            "POST", f"/api/v1{path}", content=f'{{"{name}":{DEEP}}}', headers={"Content-Type": "application/json"}
        )  # fmt: skip
        assert 400 <= answer.status_code < 500, answer.text


async def test_a_commands_lifetime_is_a_number_of_seconds(api: Visitor) -> None:
    made = (await api.send("POST", "/api/v1/stations", json=STATION)).json()
    for lifetime in (1e300, -1, "1", True, 604_801):
        body = {"action": "Reset", "payload": {"type": "Soft"}, "expires_in_s": lifetime}
        answer = await api.send("POST", f"/api/v1/stations/{made['id']}/commands", content=json.dumps(body),
                                headers={"Content-Type": "application/json"})  # fmt: skip
        assert answer.status_code == 422, (lifetime, answer.text)


async def test_a_tenants_name_is_a_text(api: Visitor) -> None:
    answer = await api.send("PATCH", "/api/v1/tenant", json={"name": {"a": 1}})
    assert answer.status_code == 422


@pytest.mark.parametrize("name", ["Strom <3 GmbH", "\u202eevil", "ab\u2066c", "Ö & Söhne"])
async def test_a_brand_of_any_name_has_pages(house: House, name: str) -> None:
    try:
        await brands.create_tenant(
            house.database, CLI, slug="odd", name=name, country="DE", currency="EUR", time_zone="Europe/Berlin",
            admin_email="a@b.example",
        )  # fmt: skip
    except Invalid:
        return
    for visitor in (house.portal("odd"), house.driver("odd")):
        assert (await visitor.get("/login" if visitor.host.startswith("portal") else "/")).status_code == 200


async def test_a_station_without_authentication_must_be_asked_for(house: House, tenant_id: UUID) -> None:
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/stations/new")
    answer = await owner.post("/stations", {"identity": "CP9", "plate": "ac22", "evse_count": "1"})
    assert answer.status_code == 200
    api = await house.api("nordlicht", tenant_id, "all")
    (station,) = (await api.get("/api/v1/stations")).json()["data"]
    assert station["security_profile"] == 1


async def test_a_station_that_comes_to_need_a_password_is_given_one(house: House, tenant_id: UUID) -> None:
    api = await house.api("nordlicht", tenant_id, "all")
    made = (await api.send("POST", "/api/v1/stations", json=STATION | {"security_profile": 0})).json()
    assert made["password"] is None
    raised = await api.send("PATCH", f"/api/v1/stations/{made['id']}", json={"security_profile": 1})
    assert len(raised.json()["password"]) == 40


async def test_a_tariff_that_changed_meanwhile_is_not_overwritten(house: House, tenant_id: UUID) -> None:
    api = await house.api("nordlicht", tenant_id, "all")
    element = {"price_components": [{"type": "ENERGY", "price": "0.5", "step_size": 1}]}
    body = {"tariff": {"currency": "EUR", "elements": [element]}, "assign": {"default": True}}
    made = (await api.send("POST", "/api/v1/tariffs", json=body)).json()
    owner = await house.staff("nordlicht", tenant_id)
    form = await owner.open(f"/tariffs/{made['id']}/edit")
    assert 'name="version_no" value="1"' in form.text
    values = {"name": "T", "energy_price": "0.6", "assign": "default", "version_no": "1"}
    assert (await owner.post(f"/tariffs/{made['id']}", values)).status_code == 303
    again = await owner.post(f"/tariffs/{made['id']}", values)
    assert (again.status_code, "saved meanwhile" in again.text) == (409, True)
    lost = await owner.post(f"/tariffs/{made['id']}", values | {"version_no": "2", "assign": "nowhere:else"})
    assert lost.status_code == 422


async def test_metrics_are_told_on_the_consoles_host_and_readiness_says_what_it_means(
    house: House, tenant_id: UUID
) -> None:
    assert "python_info" in (await house.console().get("/metrics")).text
    assert (await house.console().get("/readyz")).json() == {
        "database": True,
        "accepting": True,
        "redis": True,
    }


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"LIVERY_TRUSTED_PROXIES": "foo"}, {"LIVERY_TRUSTED_PROXIES"}),
        ({"LIVERY_PUBLIC_URL": "livery.example"}, {"LIVERY_PUBLIC_URL"}),
        ({"LIVERY_ENV": "production", "LIVERY_WEB_PORT": "abc"}, {"LIVERY_WEB_PORT", "configuration"}),
        ({"LIVERY_PAYMENTS": "stripe"}, {"configuration"}),
    ],
)
def test_a_wrong_configuration_is_told_before_anything_starts(
    environment: dict[str, str], named: set[str]
) -> None:
    with pytest.raises(ConfigurationFault) as refused:
        load_settings(environment)
    assert named <= {fault.field for fault in refused.value.faults}


@pytest.mark.parametrize("path", ["/", "/login", "/map", "/legal/imprint", "/nowhere"])
async def test_who_asks_only_for_the_head_gets_that_of_the_page(house: House, path: str) -> None:
    """Link checkers and monitors do (RFC 9110, 9.3.2)."""
    await found_brand(house.database)
    driver = house.driver("nordlicht")
    head, page = await driver.send("HEAD", path), await driver.get(path)
    assert (head.status_code, head.content) == (page.status_code, b"")
    assert head.headers["content-type"] == page.headers["content-type"]


async def test_a_head_of_a_live_page_ends_at_once(house: House, tenant_id: UUID) -> None:
    """Behind a proxy the connection goes to somebody else after it."""
    owner = await house.staff("nordlicht", tenant_id)
    async with asyncio.timeout(10):
        head = await owner.send("HEAD", "/charging-sessions/live")
        assert head.headers["content-type"].startswith("text/event-stream") and head.content == b""
        assert (await owner.get("/healthz")).status_code == 200


async def test_a_method_that_an_address_has_not_is_answered_with_those_it_has(
    house: House, tenant_id: UUID, api: Visitor
) -> None:
    owner, portal = await house.staff("nordlicht", tenant_id), house.portal("nordlicht")
    await owner.open("/team")
    for visitor, method, path, methods in (
        (house.driver("nordlicht"), "PUT", "/", {"GET", "HEAD", "OPTIONS"}),
        (house.driver("nordlicht"), "DELETE", "/login/x", {"GET", "HEAD", "POST", "OPTIONS"}),
        (portal, "PUT", "/logout", {"POST", "OPTIONS"}),
        (owner, "DELETE", "/team", {"GET", "HEAD", "POST", "OPTIONS"}),
        (api, "PUT", "/api/v1/stations", {"GET", "HEAD", "POST", "OPTIONS"}),
        (house.console(), "GET", "/webhooks/stripe", {"POST"}),
        (portal, "GET", "/uploads/x", {"POST", "PUT"}),
    ):
        answer = await visitor.send(method, path)
        assert answer.status_code == 405, (method, path, answer.text)
        assert set(answer.headers["allow"].split(", ")) == methods, path
    for visitor, path in (
        (house.driver("nordlicht"), "/"), (portal, "/"), (portal, "/team"), (house.console(), "/"),
        (portal, "/api/v1/stations"),
    ):  # fmt: skip
        answer = await visitor.send("OPTIONS", path, headers={"Origin": "http://evil.example"})
        assert answer.status_code == 204 and "GET" in answer.headers["allow"], path
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert (await portal.send("OPTIONS", "/nothing")).status_code == 404
