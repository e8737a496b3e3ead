"""Two who do the same at the same moment: one is served, the other is refused with words, and nobody gets a 500."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

import pytest

from app.identity import service as identity
from app.stations import service as stations
from tests.cast import PLATES
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio
MAIL = "gerd@nordlicht-laden.example"
T = TypeVar("T")


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


async def test_four_drivers_with_one_mail_address_become_one(house: House, tenant_id: UUID) -> None:
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/drivers")
    form = {"name": "Gerd", "email": MAIL}
    answers = await asyncio.gather(*(owner.post("/drivers", form) for _ in range(4)))
    assert sorted(one.status_code for one in answers) == [303, 409, 409, 409]
    for one in answers:
        assert one.status_code == 303 or "There is a driver with this mail address already." in one.text


async def test_four_groups_with_one_name_become_one(house: House, tenant_id: UUID) -> None:
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/driver-groups")
    form = {"name": "Fleet", "collection": "monthly"}
    answers = await asyncio.gather(*(owner.post("/driver-groups", form) for _ in range(4)))
    assert sorted(one.status_code for one in answers) == [303, 409, 409, 409]
    for one in answers:
        assert one.status_code == 303 or "There is a group with this name already." in one.text


async def test_four_cards_with_one_number_become_one(house: House, tenant_id: UUID) -> None:
    api = await house.api("nordlicht", tenant_id, "all")
    card = {"value": "04A1B2C3", "type": "ISO14443"}
    answers = await asyncio.gather(*(api.send("POST", "/api/v1/id-tokens", json=card) for _ in range(4)))
    assert sorted(one.status_code for one in answers) == [201, 409, 409, 409]
    assert {one.json()["code"] for one in answers if one.status_code == 409} == {"id_token_taken"}


async def _while_another_writes(asking: Awaitable[T]) -> "asyncio.Future[T]":
    """It is asked, and waits at the database for the one who came first."""
    waiting = asyncio.ensure_future(asking)
    await asyncio.sleep(1)
    assert not waiting.done()
    return waiting


async def test_who_comes_second_on_a_page_is_told_so(house: House, tenant_id: UUID) -> None:
    """No verb can see what another has not committed yet."""
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/team")
    async with house.database.scope(tenant_id, CLI) as scope:
        await identity.invite_staff(scope, email=MAIL, role="viewer")
        came_from = {"Referer": f"{owner.origin}/team"}
        form = {"email": MAIL, "role": "viewer"}
        waiting = await _while_another_writes(owner.post("/team", form, headers=came_from))
    answer = await waiting
    assert answer.status_code == 409
    assert "already_exists" in answer.text and "just been made" in answer.text
    assert 'href="/team"' in answer.text


async def test_a_machine_that_comes_second_gets_a_code_it_can_act_on(house: House, tenant_id: UUID) -> None:
    api = await house.api("nordlicht", tenant_id, "all")
    plug = {"connector_no": 1, **PLATES["ac22"]}
    async with house.database.scope(tenant_id, CLI) as scope:
        await stations.create_station(scope, identity="S1", evses=[{"evse_no": 1, "connectors": [plug]}])
        body = {"identity": "S1", "evses": [{"evse_no": 1, "connectors": [plug]}]}
        waiting = await _while_another_writes(api.send("POST", "/api/v1/stations", json=body))
    answer = await waiting
    assert (answer.status_code, answer.json()["code"]) == (409, "already_exists")
    assert answer.json()["detail"] and answer.headers["content-type"].startswith("application/problem+json")
