"""Logging in: links that work once, sessions bound to their host, nobody who learns who works here."""

import asyncio
import re
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.identity import admins, service
from app.identity.models import LoginLink, LoginSession
from app.kernel.audit import AuditEntry
from app.kernel.clock import utcnow
from app.kernel.errors import TooMany, Unauthenticated
from tests.web import CLI, OWNER, House, Visitor, found_brand

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


async def _token(house: House, tenant_id: UUID, email: str = OWNER) -> str:
    async with house.database.scope(tenant_id, CLI) as scope:
        member = await service.find_staff_member(scope, email)
        assert member is not None
        return (await service.make_login_link(scope, member.id))[1]


async def _count(house: House, tenant_id: UUID, model: type) -> int:
    async with house.database.scope(tenant_id, CLI) as scope:
        return (await scope.db.execute(select(func.count()).select_from(model))).scalar_one()


async def test_a_page_behind_the_login_leads_to_it_and_back(house: House, tenant_id: UUID) -> None:
    visitor = house.portal("nordlicht")
    turned_away = await visitor.get("/team?x=1")
    assert (turned_away.status_code, turned_away.headers["location"]) == (303, "/login?next=/team%3Fx%3D1")
    form = await visitor.get(turned_away.headers["location"])
    assert 'name="next" value="/team?x=1"' in form.text
    sent = await visitor.send("POST", "/login", data={"email": OWNER, "next": "/team?x=1"})
    assert sent.status_code == 200 and "Check your mail" in sent.text
    token = await _token(house, tenant_id)
    logged_in = await visitor.send("POST", f"/login/{token}")
    assert logged_in.headers["location"] == "/team?x=1"
    assert (await visitor.get("/team")).status_code == 200


async def test_the_login_leads_to_no_other_site(house: House, tenant_id: UUID) -> None:
    for target in ("//evil.example", "https://evil.example/", "/\\evil.example", "/\tevil"):
        visitor = house.portal("nordlicht")
        form = await visitor.get("/login", params={"next": target})
        assert 'name="next" value="/"' in form.text
        await visitor.send("POST", "/login", data={"email": OWNER, "next": target})
        logged_in = await visitor.send("POST", f"/login/{await _token(house, tenant_id)}")
        assert logged_in.headers["location"] == "/"


async def test_the_answer_does_not_tell_who_works_here(house: House, tenant_id: UUID) -> None:
    answers = [
        await house.portal("nordlicht").send("POST", "/login", data={"email": email})
        for email in (OWNER, "nobody@nordlicht-laden.example")
    ]
    texts = {
        re.sub(r"[\w.-]+@[\w.-]+", "", answer.text).replace(answer.headers["x-request-id"], "")
        for answer in answers
    }
    assert {answer.status_code for answer in answers} == {200} and len(texts) == 1
    # One link beside the invitation: the stranger got none.
    assert await _count(house, tenant_id, LoginLink) == 3


async def test_looking_at_a_link_does_not_use_it_up(house: House, tenant_id: UUID) -> None:
    token, visitor = await _token(house, tenant_id), house.portal("nordlicht")
    for _ in range(3):
        shown = await visitor.get(f"/login/{token}")
        assert shown.status_code == 200 and f'action="/login/{token}"' in shown.text
        assert set(visitor.cookies) == {"__Host-livery-link"}
    assert (await visitor.send("POST", f"/login/{token}")).status_code == 303
    assert visitor.cookies["__Host-livery"]


async def test_a_link_works_once(house: House, tenant_id: UUID) -> None:
    token = await _token(house, tenant_id)
    assert (await house.portal("nordlicht").send("POST", f"/login/{token}")).status_code == 303
    again = house.portal("nordlicht")
    assert (await again.get(f"/login/{token}")).status_code == 404
    await again.send("POST", f"/login/{token}")
    assert "__Host-livery" not in again.cookies


async def _admins_token(house: House) -> str:
    link = await admins.create_platform_admin(house.database, "ada@platform.example")
    return link.rpartition("/")[2]


async def _riders_token(house: House, tenant_id: UUID) -> str:
    async with house.database.scope(tenant_id, CLI) as scope:
        return (await service.make_driver_link(scope, "jule@example.org"))[1]


def _other_tab(browser: Visitor) -> Visitor:
    """The same browser before the first answer reached it."""
    return Visitor(browser.client, browser.host, browser.port, cookies=dict(browser.cookies))


@pytest.mark.parametrize("who", ["staff", "rider", "admin"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_double_tap_on_log_in_ends_logged_in_by_one_login(
    house: House, tenant_id: UUID, who: str, at_once: bool
) -> None:
    """The browser throws the first answer away, and with it the cookie; whichever it keeps, it is in."""
    if who == "staff":
        visitor, token, home = house.portal("nordlicht"), await _token(house, tenant_id), "/team"
    elif who == "rider":
        visitor, token, home = house.driver("nordlicht"), await _riders_token(house, tenant_id), "/account"
    else:
        visitor, token, home = house.console(), await _admins_token(house), "/audit"
    await visitor.get(f"/login/{token}")
    tabs = [_other_tab(visitor), _other_tab(visitor)]
    taps = [tab.send("POST", f"/login/{token}") for tab in tabs]
    answers = await asyncio.gather(*taps) if at_once else [await tap for tap in taps]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert tabs[0].cookies["__Host-livery"] == tabs[1].cookies["__Host-livery"]
    for tab in tabs:
        assert (await tab.get(home)).status_code == 200
    # The first answer has come, its cookie with it, and the old page still stands while the next one loads.
    assert (await tabs[0].send("POST", f"/login/{token}")).status_code == 303
    if who != "admin":
        assert await _count(house, tenant_id, LoginSession) == 1
        async with house.database.scope(tenant_id, CLI) as scope:
            written = await scope.db.execute(select(AuditEntry).where(AuditEntry.action.like("%logged_in")))
            assert len(written.scalars().all()) == 1


async def test_who_tries_tokens_on_the_console_keeps_nobody_out(house: House) -> None:
    """Each try takes one connection at a time: four at once are all that there are."""
    async with asyncio.timeout(15):
        console = house.console()
        answers = await asyncio.gather(*(console.send("POST", f"/login/{'x' * 43}") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {404}


async def test_a_used_link_is_nothing_to_another_browser_nor_after_a_minute_nor_after_the_logout(
    house: House, tenant_id: UUID
) -> None:
    for who, token in (
        (house.portal, await _token(house, tenant_id)), (house.driver, await _riders_token(house, tenant_id)),
        (lambda _slug: house.console(), await _admins_token(house)),
    ):  # fmt: skip
        own, other, without = (who("nordlicht") for _ in range(3))
        for browser in (own, other):
            await browser.get(f"/login/{token}")
        assert own.cookies != other.cookies
        assert (await own.send("POST", f"/login/{token}")).status_code == 303
        for browser in (other, without):
            assert (await browser.send("POST", f"/login/{token}")).status_code == 404
            assert "__Host-livery" not in browser.cookies
        await own.open("/account/profile" if own.host == "nordlicht.localhost" else "/")
        left = _other_tab(own)
        left.cookies.pop("__Host-livery")
        assert (await own.post("/logout")).status_code == 303
        assert (await left.send("POST", f"/login/{token}")).status_code == 404

    token = await _token(house, tenant_id)
    logging_in = partial(service.login_with, token=token, host="portal-nordlicht.localhost", browser="b")
    async with house.database.scope(tenant_id, CLI) as scope:
        first = await logging_in(scope)
    async with house.database.scope(tenant_id, CLI, now=utcnow() + timedelta(seconds=50)) as scope:
        assert (await logging_in(scope)).secret == first.secret
    for seconds, host in ((61, "portal-nordlicht.localhost"), (59, "nordlicht.localhost")):
        async with house.database.scope(tenant_id, CLI, now=utcnow() + timedelta(seconds=seconds)) as scope:
            with pytest.raises(Unauthenticated):
                await service.login_with(scope, token, host=host, browser="b")


async def test_the_link_in_the_mail_opened_again_leads_in_whoever_is_logged_in(
    house: House, tenant_id: UUID
) -> None:
    for visitor, token, home in (
        (house.portal("nordlicht"), await _token(house, tenant_id), "/"),
        (house.driver("nordlicht"), await _riders_token(house, tenant_id), "/account"),
        (house.console(), await _admins_token(house), "/"),
    ):
        await visitor.send("POST", f"/login/{token}")
        again = await visitor.get(f"/login/{token}")
        assert (again.status_code, again.headers["location"]) == (303, home)


async def test_a_link_runs_out(house: House, tenant_id: UUID) -> None:
    token = await _token(house, tenant_id)
    later = utcnow() + service.LINK_LIFETIME + timedelta(seconds=1)
    async with house.database.scope(tenant_id, CLI, now=later) as scope:
        assert await service.find_login_link(scope, token) is None
        with pytest.raises(Unauthenticated):
            await service.login_with(scope, token, host="portal-nordlicht.localhost")


async def test_a_link_of_one_brand_opens_no_other(house: House, tenant_id: UUID) -> None:
    await found_brand(house.database, "solmark", "selim@solmark.example")
    other = house.portal("solmark")
    assert (await other.get(f"/login/{await _token(house, tenant_id)}")).status_code == 404


async def test_a_planted_session_id_is_not_adopted(house: House, tenant_id: UUID) -> None:
    visitor = house.portal("nordlicht")
    visitor.cookies["__Host-livery"] = "planted"
    assert (await visitor.get("/team")).status_code == 303
    await visitor.send("POST", f"/login/{await _token(house, tenant_id)}")
    assert visitor.cookies["__Host-livery"] != "planted"
    attacker = house.portal("nordlicht")
    attacker.cookies["__Host-livery"] = "planted"
    assert (await attacker.get("/team")).status_code == 303


async def test_a_visit_without_login_stores_nothing(house: House, tenant_id: UUID) -> None:
    visitor = house.portal("nordlicht")
    for path in ("/login", "/team", "/nothing", "/api/docs"):
        answer = await visitor.get(path)
        assert "set-cookie" not in answer.headers
    assert await _count(house, tenant_id, LoginSession) == 0


async def test_a_session_that_comes_to_another_host_is_destroyed(house: House, tenant_id: UUID) -> None:
    staff = await house.staff("nordlicht", tenant_id)
    async with house.database.scope(tenant_id, CLI) as scope:
        found = await service.find_session(scope, staff.cookies["__Host-livery"], host="nordlicht.localhost")
        assert found is None
    assert (await staff.get("/team")).status_code == 303
    assert await _count(house, tenant_id, LoginSession) == 0


async def test_a_session_of_one_brand_is_unknown_to_another(house: House, tenant_id: UUID) -> None:
    await found_brand(house.database, "solmark", "selim@solmark.example")
    staff, other = await house.staff("nordlicht", tenant_id), house.portal("solmark")
    other.cookies = dict(staff.cookies)
    assert (await other.get("/team")).status_code == 303
    assert (await staff.get("/team")).status_code == 200


async def test_logging_out_ends_the_session_everywhere(house: House, tenant_id: UUID) -> None:
    staff = await house.staff("nordlicht", tenant_id)
    copy = house.portal("nordlicht")
    copy.cookies = dict(staff.cookies)
    await staff.open("/team")
    assert (await staff.post("/logout")).headers["location"] == "/login"
    assert "__Host-livery" not in staff.cookies
    assert (await copy.get("/team")).status_code == 303


async def test_a_session_ends_after_a_week_of_silence_and_a_month_at_last(
    house: House, tenant_id: UUID
) -> None:
    staff = await house.staff("nordlicht", tenant_id)
    secret, host = staff.cookies["__Host-livery"], staff.host
    for days, stands in ((6, True), (12, True), (18, True), (24, True), (29, True), (31, False)):
        async with house.database.scope(tenant_id, CLI, now=utcnow() + timedelta(days=days)) as scope:
            assert (await service.find_session(scope, secret, host=host) is not None) is stands, days
    idle = await house.staff("nordlicht", tenant_id)
    async with house.database.scope(tenant_id, CLI, now=utcnow() + timedelta(days=7, minutes=1)) as scope:
        assert await service.find_session(scope, idle.cookies["__Host-livery"], host=host) is None


async def test_one_address_gets_a_handful_of_links(house: House, tenant_id: UUID) -> None:
    before = await _count(house, tenant_id, LoginLink)
    for _ in range(service.LINKS_PER_ADDRESS + 3):
        answer = await house.portal("nordlicht").send("POST", "/login", data={"email": OWNER})
        assert answer.status_code == 200
    assert await _count(house, tenant_id, LoginLink) == before + service.LINKS_PER_ADDRESS


async def test_who_asks_without_end_is_told_to_wait(house: House, tenant_id: UUID) -> None:
    visitor = house.portal("nordlicht")
    codes = [
        (await visitor.send("POST", "/login", data={"email": f"n{n}@x.example"})).status_code
        for n in range(service.LOGINS_PER_REMOTE + 2)
    ]
    assert set(codes[: service.LOGINS_PER_REMOTE]) == {200} and set(codes[service.LOGINS_PER_REMOTE :]) == {
        429
    }


async def test_a_household_of_ipv6_is_one_who_asks(house: House, tenant_id: UUID) -> None:
    """A connection has a /64: each of its addresses would be a fresh start."""
    codes = []
    async with house.database.scope(tenant_id, CLI) as scope:
        for n in range(service.LOGINS_PER_REMOTE + 1):
            try:
                await service.request_driver_login(
                    scope, f"n{n}@x.example", language="en", remote=f"2001:db8:1:2::{n:x}"
                )
                codes.append(200)
            except TooMany as error:
                codes.append(error.status)
        await service.request_driver_login(scope, "n@x.example", language="en", remote="2001:db8:1:3::1")
    assert codes == [200] * service.LOGINS_PER_REMOTE + [429]


@pytest.mark.parametrize(
    "email", ["", "no address", "a@b@c", "a@b", "a@b\r\nBcc: c@d", "<x>@y.example", "x" * 300 + "@y.example"]
)
async def test_what_is_no_address_is_said_and_kept(house: House, tenant_id: UUID, email: str) -> None:
    answer = await house.portal("nordlicht").send("POST", "/login", data={"email": email})
    assert answer.status_code == 422 and "This is no e-mail address" in answer.text


async def test_an_admin_logs_in_to_the_console_only(house: House, tenant_id: UUID) -> None:
    admin = await house.admin()
    assert (await admin.get("/")).status_code == 200
    portal = house.portal("nordlicht")
    portal.cookies = dict(admin.cookies)
    assert (await portal.get("/team")).status_code == 303
    staff, console = await house.staff("nordlicht", tenant_id), house.console()
    console.cookies = dict(staff.cookies)
    assert (await console.get("/")).status_code == 303
    await admin.open("/")
    assert (await admin.post("/logout")).status_code == 303
    assert (await admin.get("/")).status_code == 303
