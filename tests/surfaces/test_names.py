"""A name that says what it does not show is refused wherever people type one; what is stored already does nothing."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.access import accounts, csv_import, service
from app.brands import service as brands
from app.device_model import configuration
from app.identity import service as identity
from app.kernel.errors import Invalid
from app.kernel.ids import public_id
from app.maintenance import policy
from app.stations import makes
from app.stations import service as stations
from app.tariffs import service as tariffs
from tenants.scope import Scope
from tests.surfaces.test_rest import TARIFF
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio
TURNED, ENDLESS = "Anna \u202egnp.exe", "x" * 5_000
NAMES = (TURNED, "Anna\u2066", "An\u200bna", "Anna\nBeck", ENDLESS)
SITE = {"name": "Kiel", "address": "Weg 1", "city": "Kiel", "country": "DEU", "time_zone": "Europe/Berlin"}


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


@pytest.fixture
async def scope(house: House, tenant_id: UUID) -> AsyncIterator[Scope]:
    async with house.database.scope(tenant_id, CLI) as opened:
        yield opened


async def of_driver(scope: Scope, name: str) -> None:
    await service.create_driver(scope, name=name)


async def of_a_known_driver(scope: Scope, name: str) -> None:
    driver = await service.create_driver(scope, name="Anna")
    await service.update_driver(scope, driver.id, name=name, email=None, driver_group_id=None)


async def of_mailbox(scope: Scope, name: str) -> None:
    await service.create_driver(scope, name="Anna", email=f"{''.join(name.split())}@example.org")


async def of_oneself(scope: Scope, name: str) -> None:
    scope.actor = accounts.actor_of(await service.create_driver(scope, name="Anna"))
    await accounts.rename(scope, name)


async def of_group(scope: Scope, name: str) -> None:
    await service.create_driver_group(scope, name=name)


async def of_card(scope: Scope, name: str) -> None:
    await service.create_id_token(scope, value="04AA", label=name)


async def of_a_known_card(scope: Scope, name: str) -> None:
    card = await service.create_id_token(scope, value="04AA")
    await service.update_id_token(scope, card.id, label=name)


async def of_site(scope: Scope, name: str) -> None:
    await stations.create_location(scope, **SITE | {"name": name})


async def of_street(scope: Scope, name: str) -> None:
    await stations.create_location(scope, **SITE | {"address": name})


async def of_post_code(scope: Scope, name: str) -> None:
    await stations.create_location(scope, **SITE, postal_code=name)


async def of_station(scope: Scope, name: str) -> None:
    await stations.create_station(scope, identity="CP1", name=name)


async def of_a_known_station(scope: Scope, name: str) -> None:
    made = await stations.create_station(scope, identity="CP1")
    await stations.update_station(scope, made.station.id, name=name)


async def of_make(scope: Scope, name: str) -> None:
    await makes.add_quirk(scope, vendor=name, model="", quirk="no_compression", note="")


async def of_brand(scope: Scope, name: str) -> None:
    await brands.update_profile(scope, {"name": name})


async def of_staff(scope: Scope, name: str) -> None:
    await identity.invite_staff(scope, email="op@nordlicht.example", name=name, role="operator")


async def of_api_key(scope: Scope, name: str) -> None:
    await identity.create_api_key(scope, name, ["settings.view"])


async def of_tariff(scope: Scope, name: str) -> None:
    await tariffs.create_tariff(scope, TARIFF | {"name": name})


async def of_template(scope: Scope, name: str) -> None:
    await configuration.create_template(
        scope, name=name, ocpp_version="ocpp1.6", vendor="", model="", settings={"HeartbeatInterval": "60"}
    )


async def of_organisation(scope: Scope, name: str) -> None:
    await policy.set_policy(scope, minimum_profile=1, organisation=name, firmware_hosts=[])


@pytest.mark.parametrize("write", [
    of_driver, of_a_known_driver, of_mailbox, of_oneself, of_group, of_card, of_a_known_card, of_site, of_street,
    of_post_code, of_station, of_a_known_station, of_make, of_brand, of_staff, of_api_key, of_tariff, of_template,
    of_organisation,
])  # fmt: skip
async def test_every_name_that_people_type_is_held_against_the_same_rule(scope: Scope, write: Any) -> None:
    for name in NAMES:
        if write is of_mailbox and name == "Anna\nBeck":
            continue
        with pytest.raises(Invalid) as refused:
            async with scope.db.begin_nested():
                await write(scope, name)
        wanted = {"too_long"} if name is ENDLESS else {"characters"}
        assert {fault.code for fault in refused.value.faults} <= wanted | {"email"}, name[:30]


async def test_the_forms_say_at_the_field_what_is_wrong(house: House, tenant_id: UUID) -> None:
    owner = await house.staff("nordlicht", tenant_id)
    async with house.database.scope(tenant_id, CLI) as scope:
        driver = await service.create_driver(scope, name="Anna")
    for path in ("/drivers", f"/drivers/{public_id('driver', driver.id)}"):
        await owner.open(path)
        for name, words in ((TURNED, "cannot be printed or seen"), (ENDLESS, "at most 200 letters")):
            answer = await owner.post(path, {"name": name})
            assert answer.status_code == 422 and words in answer.text and 'id="name-fault"' in answer.text
            assert "\u202e" not in answer.text


async def test_rest_names_the_field_and_the_code(house: House, tenant_id: UUID) -> None:
    api: Visitor = await house.api("nordlicht", tenant_id)
    for path, body, pointer in (
        ("/api/v1/locations", SITE | {"name": TURNED, "coordinates": {}}, "/name"),
        ("/api/v1/id-tokens", {"value": "04AA", "label": TURNED}, "/label"),
        ("/api/v1/stations", {"identity": "CP1", "name": TURNED}, "/name"),
        ("/api/v1/tariffs", {"tariff": TARIFF | {"name": TURNED}}, "/tariff/name"),
    ):
        answer = await api.send("POST", path, json=body)
        assert answer.status_code == 422, path
        assert [(one["pointer"], one["code"]) for one in answer.json()["errors"]] == [(pointer, "characters")]


def test_the_rows_of_a_file_that_hold_such_a_name_are_named() -> None:
    rows = [
        f"{TURNED},,,,",
        "Bert,,Fle\u200fet,,",
        "Cem,,,04AA,Ca\u200br",
        f"{'x' * 201},,,,",
        "Dora,d\u202e@x.org,,,",
    ]
    table = csv_import.read_table("\n".join(["name,email,group,card,label", *rows, "محمد,,👩‍👧,04BB,🚗"]))
    right, faults = csv_import.read_rows(table, csv_import.guess_columns(table.header))
    assert [(one.row, one.column) for one in faults] == [
        (2, "name"), (3, "group"), (4, "label"), (5, "name"), (6, "email"),
    ]  # fmt: skip
    assert [one.name for one in right] == ["محمد"]


async def test_a_name_that_was_stored_before_the_rule_turns_nothing_where_it_is_shown(
    house: House, tenant_id: UUID
) -> None:
    async with house.database.scope(tenant_id, CLI) as scope:
        driver = await service.create_driver(scope, name="Anna")
        await scope.db.execute(text("update livery.driver set name = :name"), {"name": TURNED})
    owner = await house.staff("nordlicht", tenant_id)
    for path in ("/drivers", f"/drivers/{public_id('driver', driver.id)}", "/drivers.csv"):
        shown = (await owner.get(path)).text
        assert "Anna gnp.exe" in shown and "\u202e" not in shown, path
