"""GET /events: what happened, in an order that never changes afterwards."""

import asyncio
from uuid import UUID, uuid4

import pytest

from app.kernel import events
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


async def told(key: Visitor, **params: str) -> tuple[list[str], str | None]:
    answer = await key.get("/api/v1/events", params=params)
    assert answer.status_code == 200, answer.text
    return [
        one["data"].get("n") for one in answer.json()["data"] if one["kind"] == "TestDone"
    ], answer.json()["next_cursor"]


async def emit(
    house: House, tenant_id: UUID, n: str, *, public: bool = True, hold: asyncio.Event | None = None
) -> None:
    async with house.database.scope(tenant_id, CLI) as scope:
        await events.emit(scope, "TestDone", "test", uuid4(), {"n": n}, public=public)
        if hold is not None:
            await hold.wait()


async def test_events_come_in_order_and_a_cursor_goes_on_from_there(house: House, tenant_id: UUID) -> None:
    key = await house.api("nordlicht", tenant_id)
    for n in ("1", "2", "3"):
        await emit(house, tenant_id, n)
    await emit(house, tenant_id, "secret", public=False)
    assert (await told(key))[0] == ["1", "2", "3"]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(20):
        batch, cursor = await told(key, limit="1", **({"after": cursor} if cursor else {}))
        seen += batch
    assert seen == ["1", "2", "3"]
    await emit(house, tenant_id, "4")
    assert (await told(key, after=str(cursor)))[0] == ["4"]
    wrong = await key.get("/api/v1/events", params={"after": "evt_nonsense"})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["field"] == "after"


async def test_an_event_that_commits_late_never_slips_in_before_one_that_was_read(
    house: House, tenant_id: UUID
) -> None:
    key = await house.api("nordlicht", tenant_id)
    hold = asyncio.Event()
    slow = asyncio.create_task(emit(house, tenant_id, "slow", hold=hold))
    await asyncio.sleep(0.3)
    await emit(house, tenant_id, "quick")
    batch, cursor = await told(key)
    assert batch == []
    hold.set()
    await slow
    options = {"after": cursor} if cursor else {}
    assert (await told(key, **options))[0] == ["slow", "quick"]
