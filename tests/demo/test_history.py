"""The month behind the demo: plausible, different for each brand, the same when planted twice or after a kill."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select

from app.billing.models import LedgerEntry
from app.billing.service import find_broken_series, unbalanced_postings
from app.charging.models import CDR, ChargingSession
from app.demo import history, planting
from app.demo.cast import COMPANIES, ELBSTROM, NORDLICHT, SOLMARK
from app.kernel.clock import ids_as_of, uuid7
from tenants.database import Database
from tests.web import CLI

FOUNDED = datetime(2026, 11, 25, 21, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize("company", COMPANIES, ids=lambda company: company.slug)
def test_a_month_is_planned_the_same_every_time_and_nobody_meets(company: Any) -> None:
    visits = history.plan(company, FOUNDED)
    assert visits == history.plan(company, FOUNDED)
    days = {visit.start.astimezone(BERLIN).date() for visit in visits}
    assert len(days) >= 30
    assert len({visit.key for visit in visits}) == len(visits)
    assert all(visit.end < FOUNDED for visit in visits)
    assert visits == sorted(visits, key=lambda visit: visit.end)
    last: dict[tuple[str, int, object], Any] = {}
    for visit in sorted(visits, key=lambda visit: visit.start):
        place = visit.box.identity, visit.evse_no, visit.start.astimezone(BERLIN).date()
        if place in last:
            assert last[place].end < visit.start
            assert last[place].meter_wh < visit.meter_wh
        last[place] = visit
    by_card: dict[str, Any] = {}
    for visit in sorted(visits, key=lambda visit: visit.start):  # nor does anybody charge twice at once
        assert visit.card not in by_card or by_card[visit.card].end < visit.start
        by_card[visit.card] = visit


def test_each_brand_has_a_rhythm_of_its_own() -> None:
    def by(company: Any, key: Any) -> Counter[Any]:
        return Counter(key(visit.start.astimezone(BERLIN)) for visit in history.plan(company, FOUNDED))

    def a_day(company: Any, *weekdays: int) -> float:
        found = by(company, lambda at: (at.date(), at.weekday()))
        counts = [count for (_date, weekday), count in found.items() if weekday in weekdays]
        return sum(counts) / max(len(counts), 1)

    assert a_day(SOLMARK, 0, 1, 2, 3, 4) > 3 * a_day(SOLMARK, 5, 6)  # a campus is empty on Sundays
    assert a_day(NORDLICHT, 0, 1, 2, 3, 4) > a_day(NORDLICHT, 5, 6)
    assert a_day(ELBSTROM, 0, 1, 2, 3, 4) < a_day(NORDLICHT, 0, 1, 2, 3, 4)
    evening, morning = by(ELBSTROM, lambda at: 17 <= at.hour < 22), by(SOLMARK, lambda at: 6 <= at.hour < 11)
    assert evening[True] > evening[False] * 0.8 and morning[True] > morning[False] * 0.6


def test_some_visits_do_not_go_well_and_one_waits_for_staff() -> None:
    for company in COMPANIES:
        endings = Counter(visit.ending for visit in history.plan(company, FOUNDED))
        assert endings["refused"] and endings["faulted"] and endings["unread"] == 1
        assert endings["well"] > 0.8 * endings.total()


def test_ids_written_later_sort_where_they_belong() -> None:
    past = datetime.now(UTC) - timedelta(days=3)
    before = uuid7()
    with ids_as_of(past):
        of_then = uuid7()
    assert of_then < before
    assert abs((of_then.int >> 80) / 1000 - past.timestamp()) < 1


@pytest.mark.anyio
async def test_planting_that_was_killed_goes_on_and_planting_twice_is_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "DAYS", 3)
    await planting._found(database, NORDLICHT)
    (line,) = await planting.brands.list_tenants(database, CLI)
    wanted = history.plan(NORDLICHT, line.created_at)
    charge, left = history._charge, [len(wanted) // 2]

    async def dies_half_way(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionError("killed")
        await charge(*arguments)

    monkeypatch.setattr(history, "_charge", dies_half_way)
    with pytest.raises(ConnectionError):
        await history.plant_history(database, line.id, NORDLICHT, line.created_at)
    monkeypatch.setattr(history, "_charge", charge)
    for _ in range(2):
        await history.plant_history(database, line.id, NORDLICHT, line.created_at)
        async with database.scope(line.id, CLI) as scope:
            keys = list(
                (
                    await scope.db.execute(select(ChargingSession.start_key).order_by(ChargingSession.id))
                ).scalars()
            )
            assert keys == [visit.key for visit in sorted(wanted, key=lambda visit: visit.start)]
            assert await scope.db.scalar(select(func.sum(LedgerEntry.amount_minor))) == 0
            assert await unbalanced_postings(scope) == []
            assert await find_broken_series(scope) == []
            assert await scope.db.scalar(select(func.count()).where(CDR.kind == "credit")) == 1
            reviews = (await scope.db.execute(select(ChargingSession.review))).scalars()
            assert Counter(reviews)["implausible"] == 1
