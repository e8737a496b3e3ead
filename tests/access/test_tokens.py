"""Who may charge where, and what nobody reads off the database."""

from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import select, text

from app.access import queries, service
from app.access.verdict import Accepted, IdTokenValue, Refused
from app.brands import service as brands
from app.kernel.audit import AuditEntry
from app.kernel.errors import Invalid, NotFound
from app.kernel.errors import Refused as RefusedError
from app.stations import service as stations
from tenants.database import Database
from tenants.scope import Actor
from tests.cast import NORDLICHT, SOLMARK, STAFF, Cast, hire, site
from tests.conftest import DatabaseUrls

pytestmark = pytest.mark.anyio


@pytest.fixture
async def cast(database: Database) -> Cast:
    return await hire(database)


async def verdict(database: Database, cast: Cast, value: str, type_: str | None = None) -> Accepted | Refused:
    async with database.scope(cast.tenant_id, Actor.station(cast.station_id)) as scope:
        found = await service.plan_authorization(scope, cast.station_id, IdTokenValue(value, type_))
        assert isinstance(found, Accepted | Refused)
        return found


async def test_a_known_card_may_charge_however_its_letters_are_written(database: Database, cast: Cast):
    for value in (cast.card, cast.card.lower(), f" {cast.card} "):
        assert isinstance(await verdict(database, cast, value), Accepted)
    assert isinstance(await verdict(database, cast, cast.card, "ISO14443"), Accepted)
    assert (await verdict(database, cast, cast.card, "eMAID")).status == "Invalid"


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [({"status": "blocked"}, "Blocked", "blocked"), ({"status": "expired"}, "Expired", "expired"),
     ({"status": "invalid"}, "Invalid", "invalid"), ({"is_late": True}, "Expired", "expired")],
)  # fmt: skip
async def test_a_card_that_may_not_is_told_why(
    database: Database, cast: Cast, changes: dict[str, object], status: str, reason: str
):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        if changes.pop("is_late", False):
            changes["expires_at"] = scope.now - timedelta(seconds=1)
        await service.update_id_token(scope, cast.card_id, **changes)
    found = await verdict(database, cast, cast.card)
    assert isinstance(found, Refused) and (found.status, found.reason) == (status, reason)


async def test_a_card_of_another_brand_is_as_unknown_as_one_that_nobody_has(database: Database, cast: Cast):
    other = await hire(database, SOLMARK)
    theirs, nobodys = await verdict(database, cast, other.card), await verdict(database, cast, "NOBODY")
    assert theirs == nobodys and isinstance(theirs, Refused) and theirs.reason == "unknown"
    assert isinstance(await verdict(database, other, other.card), Accepted)


async def test_a_group_charges_at_its_sites_only_and_its_drivers_with_it(database: Database, cast: Cast):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        elsewhere = await stations.create_location(scope, **site(NORDLICHT.sites[1]))
        group = await service.create_driver_group(scope, name="Fleet", location_ids=[elsewhere.id])
        driver = await service.create_driver(scope, name="Jule", driver_group_id=group.id)
        await service.update_id_token(scope, cast.card_id, driver_id=driver.id)
    found = await verdict(database, cast, cast.card)
    assert isinstance(found, Refused) and found.status == "NotAtThisLocation"
    async with database.scope(cast.tenant_id, STAFF) as scope:
        await service.update_driver_group(
            scope, group.id, name="Fleet", collection="free", location_ids=[elsewhere.id, cast.location_id]
        )
    assert isinstance(await verdict(database, cast, cast.card), Accepted)


async def test_a_suspended_brand_takes_no_new_sessions(database: Database, cast: Cast):
    await brands.suspend_tenant(database, Actor.cli(), NORDLICHT.slug, "unpaid")
    found = await verdict(database, cast, cast.card)
    assert isinstance(found, Refused) and found.reason == "tenant_suspended"


async def test_a_one_off_token_works_once_and_no_list_shows_it(database: Database, cast: Cast):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        token, value = await service.create_one_off_token(scope)
        assert len(value) <= 20
        assert token.id not in {one.id for one in await queries.list_id_tokens(scope, queries.Filter())}
    assert isinstance(await verdict(database, cast, value), Accepted)
    async with database.scope(cast.tenant_id, STAFF) as scope:
        await service.mark_used(scope, token.id)
    used = await verdict(database, cast, value)
    assert isinstance(used, Refused) and used.reason == "used"


async def test_the_value_of_a_card_stands_nowhere_in_the_database(
    database: Database, database_urls: DatabaseUrls, cast: Cast
):
    with psycopg.connect(database_urls.superuser.replace("+psycopg", "")) as superuser:
        rows = superuser.execute("select row_to_json(t)::text from livery.id_token t").fetchall()
    assert len(rows) == 1 and cast.card not in rows[0][0] and cast.card[-4:] in rows[0][0]


async def test_who_looks_at_a_whole_value_is_written_down(database: Database, cast: Cast):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        assert await service.reveal_id_token(scope, cast.card_id) == cast.card
    async with database.scope(cast.tenant_id, STAFF) as scope:
        query = select(AuditEntry).where(AuditEntry.action == "id_token.revealed")
        (entry,) = (await scope.db.execute(query)).scalars()
        assert entry.actor_name == STAFF.name and cast.card not in str(entry.data)


async def test_a_card_that_charged_is_blocked_and_not_deleted(database: Database, cast: Cast):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        fresh = await service.create_id_token(scope, value="FRESH")
        assert await service.delete_id_token(scope, fresh.id) is True
        with pytest.raises(NotFound):
            await service.get_id_token(scope, fresh.id)
        await scope.db.execute(
            text("insert into livery.charging_session (station_id, evse_id, status, id_token_id, started_at)"
                 " values (:station, :evse, 'COMPLETED', :token, now())"),
            {"station": cast.station_id, "evse": cast.evse_ids[0], "token": cast.card_id},
        )  # fmt: skip
        assert await service.delete_id_token(scope, cast.card_id) is False
        assert (await service.get_id_token(scope, cast.card_id)).status == "blocked"


@pytest.mark.parametrize("value", ["", "  ", "x" * 256, "tab\there", "naïve"])
async def test_a_value_that_no_station_could_send_is_refused(database: Database, cast: Cast, value: str):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        with pytest.raises(Invalid) as invalid:
            await service.create_id_token(scope, value=value)
        assert [fault.field for fault in invalid.value.faults] == ["value"]


async def test_names_that_are_taken_are_refused_with_a_code_and_not_with_a_traceback(
    database: Database, cast: Cast
):
    async with database.scope(cast.tenant_id, STAFF) as scope:
        await service.create_driver(scope, name="A", email="a@example.org")
        await service.create_driver_group(scope, name="G")
        for code, attempt in (
            ("id_token_taken", service.create_id_token(scope, value=cast.card.lower())),
            ("driver_taken", service.create_driver(scope, name="B", email="A@Example.org")),
            ("driver_group_taken", service.create_driver_group(scope, name=" G ")),
        ):
            with pytest.raises(RefusedError) as refused:
                await attempt
            assert refused.value.code == code
        with pytest.raises(Invalid):
            await service.create_driver(scope, name="B", email="not a mail address")
