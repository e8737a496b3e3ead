"""First steps on the overview: ticked by what is there, for whoever may take them, put away and brought back."""

from html import unescape
from uuid import UUID

import pytest

from app.identity import service as identity
from app.identity.permissions import ADMIN_PERMISSIONS, ROLES, permissions_of
from app.stations import service as stations
from app.surfaces.first_steps import STEPS
from app.surfaces.start import GUIDES
from app.tariffs import service as tariffs
from tests.journeys.house import TARIFF
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


def ticks(page: str) -> dict[str, bool]:
    """Label -> done, as the card shows them."""
    card = page.split(">First steps<")[1].split("</section>")[0]
    found = {}
    for line in card.split("<li>")[1:]:
        label = (
            line.split("</a>")[0].rpartition(">")[2]
            if "<a " in line
            else line.split("muted")[1].split(">")[1].split("<")[0]
        )
        found[unescape(label)] = "To do" not in line
    return found


async def test_a_new_brands_steps_are_open_and_ticked_as_they_are_really_taken(
    house: House, tenant_id: UUID
) -> None:
    owner = await house.staff("nordlicht", tenant_id)
    page = (await owner.open("/")).text
    assert ticks(page) == {step.label: False for step in STEPS}
    assert f"0 of {len(STEPS)} done, 0 %" in page
    async with house.database.scope(tenant_id, CLI) as scope:
        await tariffs.create_tariff(scope, TARIFF, {"default": True})
        made = await stations.create_station(scope, identity="CP1")
    page = (await owner.open("/")).text
    assert [label for label, done in ticks(page).items() if done] == ["Say what charging costs"]
    async with house.database.scope(
        tenant_id, CLI
    ) as scope:  # made is not connected: only its first link counts
        await stations.connection_opened(
            scope, made.station.id, node="n", ocpp_version="ocpp1.6", remote="::1"
        )
    page = (await owner.open("/")).text
    assert ticks(page)["Connect your first station"]
    assert f"2 of {len(STEPS)} done, 22 %" in page


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_sees_a_step_they_may_not_take(house: House, tenant_id: UUID, role: str) -> None:
    async with house.database.scope(tenant_id, CLI) as scope:
        await identity.invite_staff(scope, email="x@nordlicht.example", name="X", role=role)
    member = await house.staff("nordlicht", tenant_id, "x@nordlicht.example")
    may = permissions_of(role)
    assert set(ticks((await member.get("/")).text)) == {
        step.label for step in STEPS if step.permission in may
    }


async def test_put_away_they_stay_away_and_come_back_when_asked(house: House, tenant_id: UUID) -> None:
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/")
    answer = await owner.post("/first-steps", {})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    page = (await owner.open("/")).text
    assert ">First steps<" not in page and "Show the first steps again" in page
    await owner.post("/first-steps", {"show": "on"})
    assert ">First steps<" in (await owner.get("/")).text


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.role)
def test_the_start_page_sends_nobody_where_they_may_not_go(guide) -> None:
    roles = {"owner": ("owner", "manager")}.get(guide.role, (guide.role,))
    assert 3 <= len(guide.steps) <= 5
    for _words, _path, permission in guide.steps:
        if guide.surface == "driver":
            assert permission == ""
        elif guide.surface == "console":
            assert permission in ADMIN_PERMISSIONS
        else:
            assert all(permission in permissions_of(role) for role in roles)
