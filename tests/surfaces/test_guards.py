"""What stands before a handler: origin, CSRF, role, suspension. Each refusal changes nothing."""

from typing import Any
from uuid import UUID

import pytest
from litestar import get
from sqlalchemy import func, select

from app.brands import service as brands
from app.identity import service as identity
from app.identity.models import StaffMember
from app.surfaces import portal
from app.surfaces.assembly import route_table, surface
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio
GUEST = {"email": "guest@nordlicht-laden.example", "name": "Guest", "role": "viewer"}


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


@pytest.fixture
async def owner(house: House, tenant_id: UUID) -> Visitor:
    staff = await house.staff("nordlicht", tenant_id)
    await staff.open("/team")
    return staff


async def team_size(house: House, tenant_id: UUID) -> int:
    async with house.database.scope(tenant_id, CLI) as scope:
        return (await scope.db.execute(select(func.count()).select_from(StaffMember))).scalar_one()


async def hired(house: House, tenant_id: UUID, role: str) -> Visitor:
    async with house.database.scope(tenant_id, CLI) as scope:
        await identity.invite_staff(scope, email=f"{role}@nordlicht-laden.example", role=role)
    return await house.staff("nordlicht", tenant_id, f"{role}@nordlicht-laden.example")


async def test_a_form_of_our_own_goes_through(house: House, tenant_id: UUID, owner: Visitor) -> None:
    answer = await owner.post("/team", GUEST)
    assert (answer.status_code, answer.headers["location"]) == (303, "/team")
    shown = await owner.get("/team")
    assert "guest@nordlicht-laden.example was invited." in shown.text
    assert "was invited." not in (await owner.get("/team")).text
    assert await team_size(house, tenant_id) == 2


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://portal-solmark.localhost:{port}", "http://nordlicht.localhost:{port}",
     "https://portal-nordlicht.localhost:{port}", "http://portal-nordlicht.localhost:1", "http://portal-nordlicht.localhost",
     "http://portal-nordlicht.localhost:{port}.evil.example"],
)  # fmt: skip
async def test_a_form_of_another_origin_is_refused(
    house: House, tenant_id: UUID, owner: Visitor, origin: str | None
) -> None:
    answer = await owner.post(
        "/team", GUEST, headers={"Origin": origin.format(port=house.port) if origin else None}
    )
    assert answer.status_code == 403 and "foreign_origin" in answer.text
    assert await team_size(house, tenant_id) == 1


async def test_a_form_without_its_token_is_refused(house: House, tenant_id: UUID, owner: Visitor) -> None:
    good = owner.csrf
    other_tenant = await found_brand(house.database, "solmark", "selim@solmark.example")
    selim = await house.staff("solmark", other_tenant, "selim@solmark.example")
    await selim.open("/team")
    second = await house.staff("nordlicht", tenant_id)
    await second.open("/team")
    assert len({good, selim.csrf, second.csrf}) == 3
    for token in ("", "0" * 64, good[:-1], selim.csrf, second.csrf):
        answer = await owner.send("POST", "/team", data={**GUEST, "_csrf": token})
        assert answer.status_code == 403 and "csrf" in answer.text
    assert await team_size(house, tenant_id) == 1
    by_header = await owner.send("POST", "/team", data=GUEST, headers={"X-CSRFToken": good})
    assert by_header.status_code == 303


async def test_a_form_from_before_the_login_leads_back_to_its_page(
    house: House, tenant_id: UUID, owner: Visitor
) -> None:
    """Logged in meanwhile in another tab, or anew: the page as it is now has the form with its token."""
    rider = await house.rider("nordlicht", tenant_id, "jule@example.org")
    for visitor, form, shown in (
        (rider, "/c/ABCDEFG/start", "/c/ABCDEFG?evse=1"),
        (rider, "/account/profile", "/account/profile"),
        (owner, "/team", "/team"),
    ):
        came_from = {"Referer": f"{visitor.origin}{shown}"}
        answer = await visitor.send("POST", form, data=GUEST, headers=came_from)
        assert answer.status_code == 403 and f'href="{shown}"' in answer.text, form
        for foreign in (
            "http://evil.example/",
            f"{visitor.origin}//evil.example/",
            "/x",
            f"{visitor.origin}.evil.example/",
        ):
            answer = await visitor.send("POST", form, data=GUEST, headers={"Referer": foreign})
            assert answer.status_code == 403 and "evil" not in answer.text


async def test_the_page_that_a_browser_keeps_takes_a_choice_of_language(
    house: House, tenant_id: UUID
) -> None:
    """It is the same for everybody, and so has no token."""
    rider = await house.rider("nordlicht", tenant_id, "jule@example.org")
    kept = await rider.get("/offline")
    assert 'action="/preferences"' in kept.text and "_csrf" not in kept.text
    came_from = {"Referer": f"{rider.origin}/offline"}
    chosen = await rider.send("POST", "/preferences", data={"language": "de"}, headers=came_from)
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/offline")
    assert "Keine Verbindung" in (await rider.get("/offline")).text
    foreign = await rider.send(
        "POST",
        "/preferences",
        data={"language": "en"},
        headers={"Origin": "http://portal-nordlicht.localhost"},
    )
    assert foreign.status_code == 403


async def test_a_role_that_may_not_is_told_so_and_sees_no_button(house: House, tenant_id: UUID) -> None:
    viewer = await hired(house, tenant_id, "viewer")
    shown = await viewer.open("/team")
    assert (
        shown.status_code == 200
        and "Invite somebody" not in shown.text
        and 'href="/api-keys"' not in shown.text
    )
    assert (await viewer.post("/team", GUEST)).status_code == 403
    assert (await viewer.get("/api-keys")).status_code == 403
    assert await team_size(house, tenant_id) == 2


async def test_a_manager_makes_no_owner_and_no_key_beyond_their_own_rights(
    house: House, tenant_id: UUID
) -> None:
    manager = await hired(house, tenant_id, "manager")
    await manager.open("/team")
    refused = await manager.post("/team", {**GUEST, "role": "owner"})
    assert refused.status_code == 403 and "owner" in refused.text
    assert await team_size(house, tenant_id) == 2


async def test_the_last_owner_stays_one(house: House, tenant_id: UUID, owner: Visitor) -> None:
    async with house.database.scope(tenant_id, CLI) as scope:
        member = (await identity.list_staff(scope))[0]
        from app.kernel.ids import public_id

        path = f"/team/{public_id('staff_member', member.id)}"
    for change in ({"role": "viewer"}, {"status": "disabled"}):
        answer = await owner.post(path, change)
        assert answer.status_code == 409 and "last owner" in answer.text
    assert (await owner.get("/team")).status_code == 200


async def test_a_change_of_role_ends_that_persons_logins(
    house: House, tenant_id: UUID, owner: Visitor
) -> None:
    operator = await hired(house, tenant_id, "operator")
    async with house.database.scope(tenant_id, CLI) as scope:
        member = await identity.find_staff_member(scope, "operator@nordlicht-laden.example")
        assert member is not None
        await identity.update_staff_member(scope, member.id, role="viewer")
    assert (await operator.get("/team")).status_code == 303


async def test_a_suspended_tenants_staff_read_only(house: House, tenant_id: UUID, owner: Visitor) -> None:
    await brands.suspend_tenant(house.database, CLI, "nordlicht", "unpaid")
    house.door.resolver.forget()
    shown = await owner.get("/team")
    assert shown.status_code == 200 and "This account is suspended" in shown.text
    answer = await owner.post("/team", GUEST)
    assert answer.status_code == 409 and "tenant_suspended" in answer.text
    assert await team_size(house, tenant_id) == 1
    assert (await owner.post("/logout")).status_code == 303
    back = await house.staff("nordlicht", tenant_id)
    assert (await back.get("/team")).status_code == 200


async def test_a_refused_form_keeps_what_was_typed_and_writes_nothing(
    house: House, tenant_id: UUID, owner: Visitor
) -> None:
    answer = await owner.post(
        "/settings", {"name": "Nordlicht Nord", "vat_id": "<b>nonsense", "city": "Kiel"}
    )
    assert answer.status_code == 422
    assert "&lt;b&gt;nonsense" in answer.text and "<b>nonsense" not in answer.text
    assert 'value="Kiel"' in answer.text and "The VAT id begins with" in answer.text
    async with house.database.scope(tenant_id, CLI) as scope:
        profile = await brands.get_profile(scope)
        assert (profile.name, profile.city) == ("Nordlicht", "")


async def test_a_key_made_on_the_page_is_told_once(house: House, owner: Visitor) -> None:
    await owner.open("/api-keys")
    made = await owner.post(
        "/api-keys", {"name": "billing export", "scopes": ["invoices.view", "ledger.view"]}
    )
    key = made.text.split("<code>lvk_")[1].split("</code>")[0]
    assert identity.is_api_key_text("lvk_" + key)
    assert key not in (await owner.get("/api-keys")).text
    machine = house.portal("nordlicht")
    assert (
        await machine.get("/api/v1/tenant", headers={"Authorization": f"Bearer lvk_{key}"})
    ).status_code == 403


async def test_a_revoked_key_is_dead_at_once(house: House, tenant_id: UUID, owner: Visitor) -> None:
    machine = await house.api("nordlicht", tenant_id)
    assert (await machine.get("/api/v1/tenant")).status_code == 200
    page = await owner.open("/api-keys")
    path = page.text.split('action="')[1:]
    revocation = next(part.split('"')[0] for part in path if part.split('"')[0].endswith("/revocations"))
    assert (await owner.post(revocation)).status_code == 303
    assert (await machine.get("/api/v1/tenant")).status_code == 401


def test_a_route_without_a_permission_stops_the_start() -> None:
    @get("/forgotten")
    async def forgotten() -> str:
        return "open to all"

    @get("/misspelt", opt={"permission": "stations.veiw"})
    async def misspelt() -> str:
        return "open to nobody"

    for handler, path in ((forgotten, "/forgotten"), (misspelt, "/misspelt")):
        with pytest.raises(RuntimeError, match=f"GET {path}"):
            surface("portal", [handler])


def test_every_route_of_the_portal_says_who_may() -> None:
    table: list[Any] = route_table(portal.build())
    assert len(table) >= 10
    assert all(handler.opt.get("public") or handler.opt["permission"] for _method, _path, handler in table)
