"""The OCPP log shows every frame once: also the answers that are kept as a time in the row of what they answer."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.charging.ingest import write_readings
from app.stations import queries
from app.stations import service as stations
from app.stations.reports import Frame
from ocpp_gateway import hot
from tests.stations.test_oddities_rest import Desk, desk

pytestmark = pytest.mark.anyio
__all__ = ["desk"]
COUNT = 7


def call(number: int) -> str:
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = [{"timestamp": at, "sampledValue": [{"value": str(number)}]}]
    return json.dumps([2, f'é"{number}', "MeterValues", {"connectorId": 1, "meterValue": values}])


async def fill(desk: Desk) -> list[tuple[str, str, str]]:
    """Readings in batches and, between them, states in verbs: (direction, kind, raw), newest first."""
    told: list[tuple[str, str, str]] = []
    for number in range(COUNT):
        at = datetime.now(UTC)
        raw = call(number)
        message = hot.read("ocpp2.0.1", desk.tenant_id, str(desk.station_id), raw.replace("connectorId", "evseId"),
                           int(at.timestamp() * 1e6))  # fmt: skip
        assert message is not None
        async with desk.house.database.batch() as connection:
            await write_readings(connection, [message])
        answer = json.dumps([3, f'é"{number}', {}], separators=(",", ":"), ensure_ascii=False)
        told += [("in", "call", message.raw), ("out", "result", answer)]
        async with desk.scope() as scope:
            state = '[2,"s","StatusNotification",{}]'
            await stations.record_frames(scope, desk.station_id, [
                Frame(direction="in", kind="call", message_id="s", action="StatusNotification", raw=state,
                      at=at + timedelta(seconds=1), ocpp_version="ocpp2.0.1"),
            ])  # fmt: skip
        told.append(("in", "call", state))
    return told[::-1]


async def pages(desk: Desk, limit: int, more: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await desk.get(f"/stations/{desk.id}/messages?limit={limit}{after}{more}")
        assert len(page["data"]) <= limit
        found += page["data"]
        if not page["next_cursor"]:
            return found
        after = f"&after={page['next_cursor']}"


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 200])
async def test_pages_of_any_size_hold_each_frame_once_newest_first(desk: Desk, limit: int):
    told = await fill(desk)
    found = await pages(desk, limit)
    assert [(one["direction"], one["kind"], one["raw"]) for one in found] == told
    assert len({one["id"] for one in found}) == len(found)
    assert all(one["at"] for one in found)
    readings = await pages(desk, limit, "&action=MeterValues")
    assert readings == [one for one in found if one["action"] == "MeterValues"]
    assert len(readings) == 2 * COUNT


async def test_the_page_filters_them_and_each_has_a_page_of_its_own(desk: Desk):
    told = await fill(desk)
    async with desk.scope() as scope:
        for wanted, kept in (
            (queries.LogFilter(), lambda _frame: True),
            (queries.LogFilter(direction="out"), lambda frame: frame[0] == "out"),
            (queries.LogFilter(direction="in"), lambda frame: frame[0] == "in"),
            (queries.LogFilter(q='"3'), lambda frame: '"3' in frame[2]),
            (queries.LogFilter(errors=True), lambda _frame: False),
        ):
            lines, after = await queries.log(scope, desk.station_id, wanted, limit=4)
            while after:
                further, after = await queries.log(scope, desk.station_id, wanted, after=after, limit=4)
                lines += further
            assert [(one.row.direction, one.row.kind, one.raw) for one in lines] == [*filter(kept, told)]
            for line in lines:
                alone = await queries.get_message(scope, desk.station_id, line.row.id)
                assert (alone.key, alone.raw) == (line.key, line.raw)


async def test_a_page_reads_no_more_of_a_long_log_than_it_shows(desk: Desk):
    await fill(desk)
    async with desk.scope() as scope:
        await scope.db.execute(text(
            "insert into livery.ocpp_message (station_id, at, direction, kind, ocpp_version, message_id, action, raw,"
            " answered_at) select station_id, at, direction, kind, ocpp_version, message_id, action, raw, answered_at"
            " from livery.ocpp_message, generate_series(1, 500)"
        ))  # fmt: skip
        await scope.db.execute(text("set local jit = off"))
        query = queries.frames(desk.station_id).limit(51).compile(compile_kwargs={"literal_binds": True})
        plan = (await scope.db.execute(text(f"explain (analyze, format json) {query}"))).scalar_one()
    read: list[float] = []

    def walk(node: dict[str, Any]) -> None:
        if str(node.get("Relation Name", "")).startswith("ocpp_message"):
            read.append(node["Actual Rows"] * node["Actual Loops"])
        for inner in node.get("Plans", ()):
            walk(inner)

    walk(plan[0]["Plan"])
    assert 0 < sum(read) <= 60
