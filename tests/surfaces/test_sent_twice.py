"""A form that is sent twice: a second press cancels the first answer, so the second tells what is told once."""

import asyncio
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import func, select

from app.identity import service as identity
from app.identity.models import ApiKey
from app.kernel.audit import AuditEntry
from app.kernel.clock import utcnow
from app.kernel.errors import Refused
from app.stations import service as stations
from app.stations.models import ChargingStation
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio
FORM_ID = re.compile(r'name="_form" value="([^"]+)"')
TOLD = re.compile(r"<copy-field[^>]*>.*?<code>([^<]+)</code>", re.S)
KEY = {"name": "export", "scopes": ["invoices.view"]}
BOX = {"identity": "TWICE-1", "evse_count": "1", "plate": "ac22", "security_profile": "1"}


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


@pytest.fixture
async def owner(house: House, tenant_id: UUID) -> Visitor:
    return await house.staff("nordlicht", tenant_id)


async def _count(house: House, tenant_id: UUID, model: type) -> int:
    async with house.database.scope(tenant_id, CLI) as scope:
        return (await scope.db.execute(select(func.count()).select_from(model))).scalar_one()


async def _filled(visitor: Visitor, path: str, values: dict[str, Any]) -> dict[str, Any]:
    found = FORM_ID.search((await visitor.open(path)).text)
    assert found
    return values | {"_form": found[1]}


async def _twice(visitor: Visitor, path: str, values: dict[str, Any], at_once: bool) -> list[httpx2.Response]:
    presses = [visitor.post(path, values), visitor.post(path, values)]
    return list(await asyncio.gather(*presses)) if at_once else [await press for press in presses]


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_key_form_sent_twice_makes_one_key_and_tells_it_again(
    house: House, tenant_id: UUID, owner: Visitor, at_once: bool
) -> None:
    values = await _filled(owner, "/api-keys", KEY)
    first, second = await _twice(owner, "/api-keys", values, at_once)
    assert first.status_code == second.status_code == 200
    assert TOLD.findall(first.text) == TOLD.findall(second.text)
    assert identity.is_api_key_text(TOLD.findall(second.text)[0])
    assert await _count(house, tenant_id, ApiKey) == 1
    async with house.database.scope(tenant_id, CLI) as scope:
        written = await scope.db.execute(select(AuditEntry).where(AuditEntry.action == "api_key.created"))
        assert len(written.scalars().all()) == 1


async def test_another_form_another_name_another_person_and_a_later_hour_make_another_key(
    house: House, tenant_id: UUID, owner: Visitor
) -> None:
    values = await _filled(owner, "/api-keys", KEY)
    told = TOLD.findall((await owner.post("/api-keys", values)).text)
    for changed in (await _filled(owner, "/api-keys", KEY), values | {"name": "other"}):
        told += TOLD.findall((await owner.post("/api-keys", changed)).text)
    async with house.database.scope(tenant_id, CLI) as scope:
        told.append(
            (await identity.create_api_key(scope, "export", KEY["scopes"], form_id=values["_form"])).key
        )
    later = utcnow() + timedelta(seconds=61)
    async with house.database.scope(tenant_id, CLI, now=later) as scope:
        again = await identity.create_api_key(scope, "export", KEY["scopes"], form_id=values["_form"])
        told.append(again.key)
        await identity.revoke_api_key(scope, again.id)
    assert len(set(told)) == len(told) == 5 == await _count(house, tenant_id, ApiKey)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("profile", ["1", "3"])
async def test_a_station_form_sent_twice_makes_one_station_and_tells_its_password_again(
    house: House, tenant_id: UUID, owner: Visitor, at_once: bool, profile: str
) -> None:
    values = await _filled(owner, "/stations/new", BOX | {"security_profile": profile})
    first, second = await _twice(owner, "/stations", values, at_once)
    assert first.status_code == second.status_code == 200, second.text
    assert TOLD.findall(first.text) == TOLD.findall(second.text)
    passwords = [text for text in TOLD.findall(second.text) if re.fullmatch("[0-9a-f]{40}", text)]
    assert len(passwords) == (1 if profile == "1" else 0)
    assert await _count(house, tenant_id, ChargingStation) == 1
    corrected = await owner.post("/stations", values | {"evse_count": "2"})
    assert corrected.status_code == 409, "what was corrected meanwhile is not dropped silently"
    another = await owner.post("/stations", await _filled(owner, "/stations/new", BOX))
    assert another.status_code == 409 and "There is a station TWICE-1 already." in another.text


async def test_a_password_that_was_made_anew_is_not_told_by_the_old_form(
    house: House, tenant_id: UUID
) -> None:
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await stations.create_station(scope, identity="A1", form_id="f")
        assert (await stations.create_station(scope, identity="A1", form_id="f")).password == made.password
        await stations.update_station(scope, made.station.id, password=None)
        with pytest.raises(Refused):
            await stations.create_station(scope, identity="A1", form_id="f")
    later = utcnow() + timedelta(seconds=61)
    async with house.database.scope(tenant_id, CLI) as scope:
        await stations.create_station(scope, identity="A2", form_id="f")
    async with house.database.scope(tenant_id, CLI, now=later) as scope:
        with pytest.raises(Refused):
            await stations.create_station(scope, identity="A2", form_id="f")


@pytest.mark.parametrize("at_once", [True, False])
async def test_who_closes_an_account_is_told_that_it_is_closed_by_the_second_press_too(
    house: House, tenant_id: UUID, at_once: bool
) -> None:
    rider = await house.rider("nordlicht", tenant_id, "jule@example.org")
    phone = await house.rider("nordlicht", tenant_id, "jule@example.org")
    tabs = [Visitor(rider.client, rider.host, rider.port, dict(rider.cookies), rider.csrf) for _ in range(2)]
    presses = [tab.post("/account/closing", {"email": "jule@example.org"}) for tab in tabs]
    answers = list(await asyncio.gather(*presses)) if at_once else [await press for press in presses]
    for tab, answer in zip(tabs, answers, strict=True):
        assert answer.status_code == 303
        shown = await tab.get(answer.headers["location"], headers={"Accept-Language": "en"})
        assert "Your account is closed and your data is gone." in shown.text
    elsewhere = await phone.get("/login", headers={"Accept-Language": "en"})
    assert "Your account is closed" in elsewhere.text
    for stranger in ({}, {"__Host-livery": "x"}):
        login = await Visitor(rider.client, rider.host, rider.port, stranger).get("/login")
        assert "alert success" not in login.text
    async with house.database.scope(tenant_id, CLI) as scope:
        written = await scope.db.execute(
            select(AuditEntry).where(AuditEntry.action == "driver.closed_account")
        )
        assert len(written.scalars().all()) == 1
