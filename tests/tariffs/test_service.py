"""Which tariff applies, what it becomes over time, and that a preview is what would be billed."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.access import service as access
from app.kernel import audit
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused
from app.tariffs import service
from app.tariffs.models import Tariff, TariffVersion
from tenants.database import Database
from tenants.scope import Scope
from tests.cast import SOLMARK, STAFF, Cast, hire

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def flat(price: Any = 1, **more: Any) -> dict[str, Any]:
    return {
        "currency": "EUR",
        "elements": [{"price_components": [{"type": "FLAT", "price": price, "step_size": 1}]}],
    } | more


def hours(count: float) -> datetime:
    return NOON + timedelta(hours=count)


@pytest.fixture
async def cast(database: Database) -> Cast:
    return await hire(database, with_tariff=False)


@pytest.fixture
def at(database: Database, cast: Cast) -> Callable[[float], AbstractAsyncContextManager[Scope]]:
    """A transaction so many hours after noon."""
    return lambda count: database.scope(cast.tenant_id, STAFF, now=hours(count))


@pytest.fixture
async def scope(at: Any) -> AsyncIterator[Scope]:
    async with at(0) as opened:
        yield opened


async def applies(
    scope: Scope, cast: Cast, *, group: UUID | None = None, count: float = 1, other: bool = False
) -> str:
    """Name of the tariff for a start so many hours after noon, at the first EVSE or at an unknown place."""
    found = await service.find_tariff_for(
        scope, driver_group_id=group, evse_id=uuid7() if other else cast.evse_ids[0],
        location_id=uuid7() if other else cast.location_id, at=hours(count),
    )  # fmt: skip
    if found is None:
        return "none"
    return (await service.get_tariff(scope, found.tariff_id)).ocpi_id


async def test_group_before_evse_before_location_before_default(scope: Scope, cast: Cast) -> None:
    group = await access.create_driver_group(scope, name="Staff")
    assert await applies(scope, cast, group=group.id) == "none"
    steps: list[tuple[str, Any]] = [
        ("default", True), ("location_id", cast.location_id), ("evse_id", cast.evse_ids[0]),
        ("driver_group_id", group.id),
    ]  # fmt: skip
    for target, value in steps:
        await service.create_tariff(scope, flat(id=target), {target: value})
        assert await applies(scope, cast, group=group.id) == target
    assert await applies(scope, cast) == "evse_id"
    assert await applies(scope, cast, other=True) == "default"


async def test_the_newest_assignment_wins_within_its_rank(at: Any, cast: Cast) -> None:
    for count, name in enumerate(("old", "new")):
        async with at(count) as scope:
            await service.create_tariff(scope, flat(id=name), {"default": True})
    async with at(5) as scope:
        assert await applies(scope, cast, count=4) == "new"
        assert await applies(scope, cast, count=0.5) == "old"  # a start that was reported late
        assert await applies(scope, cast, count=-9) == "new"  # before all: better than no price


async def test_a_tariff_holds_only_within_its_own_dates(scope: Scope, cast: Cast) -> None:
    await service.create_tariff(scope, flat(id="always"), {"default": True})
    await service.create_tariff(
        scope, flat(id="may", start_date_time="2026-05-04T14:00:00Z", end_date_time="2026-05-04T16:00:00Z"),
        {"default": True},
    )  # fmt: skip
    assert [await applies(scope, cast, count=count) for count in (1, 2, 3.9, 4)] == [
        "always",
        "may",
        "may",
        "always",
    ]


async def test_a_future_version_leaves_the_present_one_in_force_until_then(at: Any, cast: Cast) -> None:
    async with at(0) as scope:
        tariff = await service.create_tariff(scope, flat(1, id="t"), {"default": True})
    async with at(1) as scope:
        await service.replace_tariff(scope, tariff.id, flat(2, start_date_time="2026-05-04T20:00:00Z"))
    async with at(9) as scope:
        assert [(await _version(scope, cast, count)).version_no for count in (0.5, 7, 8)] == [1, 1, 2]


async def _version(scope: Scope, cast: Cast, count: float) -> TariffVersion:
    found = await service.find_tariff_for(
        scope, driver_group_id=None, evse_id=cast.evse_ids[0], location_id=None, at=hours(count)
    )
    assert found is not None
    return found


async def test_replacing_writes_a_new_version_and_keeps_the_old(at: Any, cast: Cast) -> None:
    async with at(0) as scope:
        tariff = await service.create_tariff(scope, flat(1, id="t"), {"default": True})
    async with at(3) as scope:
        await service.replace_tariff(scope, tariff.id, flat(2))
    async with at(9) as scope:
        stored = await service.get_tariff(scope, tariff.id)
        assert [
            version.ocpi["elements"][0]["price_components"][0]["price"] for version in stored.versions
        ] == [1, 2]
        assert stored.version_no == 2 and stored.ocpi_id == stored.versions[1].ocpi["id"] == "t"
        assert (await _version(scope, cast, 2)).version_no == 1
        assert (await _version(scope, cast, 4)).version_no == 2
        assert await audit.find_break(scope) is None


async def test_a_version_cannot_be_changed_once_written(scope: Scope) -> None:
    tariff = await service.create_tariff(scope, flat())
    with pytest.raises(Exception, match="permission denied"):
        async with scope.db.begin_nested():
            await scope.db.execute(
                text("update livery.tariff_version set currency = 'SEK' where tariff_id = :id"),
                {"id": tariff.id},
            )


async def test_assignments_stay_unless_they_are_given_anew(scope: Scope, cast: Cast) -> None:
    tariff = await service.create_tariff(scope, flat(id="t"), {"default": True})
    await service.replace_tariff(scope, tariff.id, flat(2))
    assert await applies(scope, cast) == "t"
    await service.replace_tariff(scope, tariff.id, flat(2), {"location_id": cast.location_id})
    assert [one.target for one in (await service.list_assignments(scope, [tariff.id]))[tariff.id]] == [
        "location"
    ]
    await service.replace_tariff(scope, tariff.id, flat(2), {})
    assert await applies(scope, cast) == "none"


async def test_a_retired_tariff_starts_no_session_and_is_not_listed(scope: Scope, cast: Cast) -> None:
    tariff = await service.create_tariff(scope, flat(), {"default": True})
    await service.retire_tariff(scope, tariff.id)
    assert await applies(scope, cast) == "none"
    assert await service.list_tariffs(scope) == []
    with pytest.raises(NotFound):
        await service.replace_tariff(scope, tariff.id, flat())


async def test_what_is_left_out_is_the_tenants(scope: Scope) -> None:
    tariff = await service.create_tariff(scope, flat())
    stored = tariff.versions[-1].ocpi
    assert (
        stored["country_code"] == "DE"
        and stored["id"] == tariff.ocpi_id
        and stored["last_updated"] == "2026-05-04T12:00:00Z"
    )
    assert tariff.versions[-1].currency == "EUR"


async def test_lists_go_on_where_they_stopped(scope: Scope) -> None:
    made = [(await service.create_tariff(scope, flat(id=f"t{n}"))).id for n in range(5)]
    first = await service.list_tariffs(scope, limit=3)
    rest = await service.list_tariffs(scope, limit=3, after=first[-1].id)
    assert [tariff.id for tariff in first + rest] == sorted(made)


async def test_nothing_is_half_written_when_something_is_wrong(database: Database, cast: Cast) -> None:
    wrong: list[tuple[Any, Any, str]] = [
        (flat(currency="X"), None, "tariff.currency"), (flat(), {"default": "yes"}, "assign.default"),
        (flat(), {"location_id": uuid7()}, "assign.location_id"), (flat(), {"evse_id": uuid7()}, "assign.evse_id"),
        (flat(), {"driver_group_id": uuid7()}, "assign.driver_group_id"), (flat(), {"site": 1}, "assign.site"),
        (flat(), {"default": True, "evse_id": cast.evse_ids[0]}, "assign"), (flat(), [], "assign"),
    ]  # fmt: skip
    for tariff, assign, field in wrong:
        with pytest.raises(Invalid) as refused:
            async with database.scope(cast.tenant_id, STAFF) as scope:
                await service.create_tariff(scope, tariff, assign)
        assert [fault.field for fault in refused.value.faults] == [field]
    async with database.scope(cast.tenant_id, STAFF) as scope:
        assert await service.list_tariffs(scope) == []


async def test_an_id_is_taken_once_per_tenant_and_never_changes(
    database: Database, cast: Cast, scope: Scope
) -> None:
    tariff = await service.create_tariff(scope, flat(id="t"))
    with pytest.raises(Refused, match="id already"):
        await service.create_tariff(scope, flat(id="t"))
    with pytest.raises(Invalid) as refused:
        await service.replace_tariff(scope, tariff.id, flat(id="u"))
    assert refused.value.faults[0].field == "tariff.id"
    other = await hire(database, SOLMARK, with_tariff=False)
    async with database.scope(other.tenant_id, STAFF) as elsewhere:
        assert (await service.create_tariff(elsewhere, flat(id="t"))).ocpi_id == "t"


async def test_another_tenants_tariffs_do_not_exist(database: Database, cast: Cast) -> None:
    async with database.scope(cast.tenant_id, STAFF) as scope:
        tariff = await service.create_tariff(scope, flat(), {"default": True})
    other = await hire(database, SOLMARK, with_tariff=False)
    async with database.scope(other.tenant_id, STAFF) as scope:
        calls: list[Callable[[], Awaitable[Tariff]]] = [
            lambda: service.get_tariff(scope, tariff.id), lambda: service.replace_tariff(scope, tariff.id, flat()),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(NotFound):
                await call()
        with pytest.raises(Invalid):
            await service.create_tariff(scope, flat(), {"evse_id": cast.evse_ids[0]})
        found = await service.find_tariff_for(
            scope, driver_group_id=None, evse_id=cast.evse_ids[0], location_id=cast.location_id, at=hours(1)
        )
        assert found is None


async def test_a_preview_takes_vat_and_time_zone_from_the_tenant(scope: Scope) -> None:
    raw = {"currency": "EUR", "elements": [
        {"price_components": [{"type": "ENERGY", "price": "0.50", "step_size": 1}],
         "restrictions": {"end_time": "10:00"}},
    ]}  # fmt: skip
    session = {"start": "2026-05-04T07:00:00Z", "charging_s": 7200, "energy_kwh": 20}
    found = await service.preview(scope, raw, session)  # 09:00 to 11:00 in Berlin
    assert found["total_cost"] == {"excl_vat": "5.00", "incl_vat": "5.95"} and found["currency"] == "EUR"
    assert (await service.preview(scope, raw, session | {"time_zone": "UTC"}))["total_cost"][
        "excl_vat"
    ] == "10.00"
    assert [line["volume"] for line in found["lines"]] == ["10"]


async def test_a_preview_names_the_faults_of_tariff_and_session_at_once(scope: Scope) -> None:
    with pytest.raises(Invalid) as refused:
        await service.preview(scope, flat(currency="?"), {"energy_kwh": "much"})
    assert [fault.field for fault in refused.value.faults] == ["tariff.currency", "session.energy_kwh"]


async def test_a_tariff_of_one_evse_does_not_reach_its_neighbour(scope: Scope, cast: Cast) -> None:
    await service.create_tariff(scope, flat(id="t"), {"evse_id": cast.evse_ids[1]})
    assert await applies(scope, cast) == "none"
