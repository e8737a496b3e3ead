"""Drivers' accounts: a login proves a mailbox, and a driver sees, blocks and closes what is theirs alone."""

import re
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.access import accounts
from app.access import service as access
from app.access.models import Driver, IdToken
from app.access.verdict import IdTokenValue, Refused
from app.brands import faces
from app.identity import service as identity
from app.identity.models import LoginLink, LoginSession
from app.kernel.audit import AuditEntry
from app.kernel.clock import utcnow
from app.kernel.errors import Invalid, NotFound, Unauthenticated
from app.kernel.errors import Refused as RefusedError
from app.kernel.events import Event
from app.kernel.ids import public_id
from app.notifications import jobs
from app.notifications import service as mails
from tests.web import CLI, House, Visitor, found_brand

pytestmark = pytest.mark.anyio
JULE, MALIK = "jule@example.org", "malik@example.org"


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


async def _driver(
    house: House, tenant_id: UUID, email: str = JULE, card: str = "04A1B2C3D4"
) -> tuple[str, str]:
    """Made by the CPO, with a card: their public ids."""
    async with house.database.scope(tenant_id, CLI) as scope:
        driver = await access.create_driver(scope, name=email.partition("@")[0].title(), email=email)
        token = await access.create_id_token(scope, value=card, driver_id=driver.id)
    return public_id("driver", driver.id), public_id("id_token", token.id)


async def _count(house: House, tenant_id: UUID, model: type) -> int:
    async with house.database.scope(tenant_id, CLI) as scope:
        return (await scope.db.execute(select(func.count()).select_from(model))).scalar_one()


async def _ask(house: House, email: str, slug: str = "nordlicht", language: str = "en") -> str:
    """What the page says, without what must differ."""
    visitor = house.driver(slug)
    answer = await visitor.send(
        "POST", "/login", data={"email": email}, headers={"Accept-Language": language}
    )
    assert answer.status_code == 200
    return re.sub(r"[\w.-]+@[\w.-]+", "", answer.text).replace(answer.headers["x-request-id"], "")


async def _mailed(house: House, tenant_id: UUID) -> list[mails.Mail]:
    """Runs what a worker would for the links that were asked for."""
    async with house.database.scope(tenant_id, CLI) as scope:
        query = select(Event.id).where(Event.kind == "DriverLoginRequested").order_by(Event.id)
        asked = list((await scope.db.execute(query)).scalars())
    for event_id in asked:
        await jobs.mail_driver_login_link(house.database, tenant_id, str(event_id))
    async with house.database.scope(tenant_id, CLI) as scope:
        return [mail for mail in await mails.list_mails(scope) if mail.kind == "login_link"]


async def test_asking_tells_nobody_who_has_an_account_and_makes_none(house: House, tenant_id: UUID) -> None:
    await _driver(house, tenant_id)
    assert await _ask(house, JULE) == await _ask(house, "stranger@example.org")
    assert await _count(house, tenant_id, Driver) == 1
    assert {mail.to_address for mail in await _mailed(house, tenant_id)} == {JULE, "stranger@example.org"}


async def test_a_mailed_link_makes_an_account_when_it_is_used_and_not_when_it_is_looked_at(
    house: House, tenant_id: UUID
) -> None:
    await _ask(house, MALIK, language="de")
    (mail,) = await _mailed(house, tenant_id)
    assert mail.subject == "Anmelden bei Nordlicht" and "Anmelden:\n\nhttp" in mail.body
    path = re.search(r"http://nordlicht\.localhost\S*(/login/\S+)", mail.body)
    assert path
    visitor = house.driver("nordlicht")
    shown = await visitor.get(path[1])
    assert shown.status_code == 200 and await _count(house, tenant_id, Driver) == 0
    answer = await visitor.send("POST", path[1])
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert MALIK in (await visitor.get("/account/profile")).text
    assert await _count(house, tenant_id, Driver) == 1
    assert (await house.driver("nordlicht").send("POST", path[1])).status_code == 404
    async with house.database.scope(tenant_id, CLI) as scope:
        entries = (await scope.db.execute(select(AuditEntry))).scalars().all()
        told = [(entry.actor_kind, entry.action) for entry in entries if entry.action.startswith("driver.")]
        assert told == [("driver", "driver.created"), ("driver", "driver.logged_in")]
        assert not any(MALIK in entry.actor_name + str(entry.data) for entry in entries)


async def test_a_driver_whom_the_operator_made_is_theirs(house: House, tenant_id: UUID) -> None:
    await _driver(house, tenant_id)
    rider = await house.rider("nordlicht", tenant_id, "Jule@Example.org")
    assert await _count(house, tenant_id, Driver) == 1
    assert "••••••C3D4" in (await rider.get("/account/cards")).text.replace("&bull;", "•")


async def test_an_account_keeps_the_language_its_driver_reads(house: House, tenant_id: UUID) -> None:
    """So that what is written while they are not looking is in it."""

    async def kept() -> str | None:
        async with house.database.scope(tenant_id, CLI) as scope:
            driver = await accounts.find_by_mailbox(scope, JULE)
            assert driver is not None
            return driver.language

    await _driver(house, tenant_id)
    assert await kept() is None
    await _ask(house, JULE)
    (mail,) = await _mailed(house, tenant_id)
    path = re.search(r"/login/\S+", mail.body)
    assert path
    visitor = house.driver("nordlicht")
    await visitor.send("POST", path[0], headers={"Accept-Language": "de"})
    assert await kept() == "de"
    await visitor.open("/account")
    assert (await visitor.post("/preferences", {"mode": "dark"})).status_code == 303
    assert await kept() == "de"
    assert (await visitor.post("/preferences", {"language": "en"})).status_code == 303
    assert await kept() == "en"
    assert (await house.driver("nordlicht").post("/preferences", {"language": "de"})).status_code == 303
    assert await kept() == "en", "a stranger's choice is nobody else's"


async def test_a_letter_that_looks_alike_proves_no_other_mailbox(house: House, tenant_id: UUID) -> None:
    """U+212A is the Kelvin sign; its small letter is an ordinary k. The mail goes to the mailbox that is proven."""
    await _driver(house, tenant_id, "kim@example.org")
    await _ask(house, "\u212aim@example.org")
    (mail,) = await _mailed(house, tenant_id)
    assert mail.to_address == "kim@example.org"


async def test_one_mailbox_gets_a_handful_of_links_and_haste_is_told_to_wait(
    house: House, tenant_id: UUID
) -> None:
    for _ in range(identity.LINKS_PER_ADDRESS + 2):
        await _ask(house, JULE)
    async with house.database.scope(tenant_id, CLI) as scope:
        links = select(func.count()).where(LoginLink.email == JULE)
        assert (await scope.db.execute(links)).scalar_one() == identity.LINKS_PER_ADDRESS
    visitor = house.driver("nordlicht")
    told = "After 5 tries no further mail goes out for 15 minutes; the newest one you have still works."
    assert told in await _ask(house, JULE) and told in await _ask(house, "stranger@example.org")
    codes = [
        (await visitor.send("POST", "/login", data={"email": f"n{n}@x.example"})).status_code
        for n in range(identity.LOGINS_PER_REMOTE)
    ]
    assert codes[0] == 200 and codes[-1] == 429


async def test_a_drivers_link_opens_no_portal_and_staffs_no_account(house: House, tenant_id: UUID) -> None:
    async with house.database.scope(tenant_id, CLI) as scope:
        _link, drivers = await identity.make_driver_link(scope, "anke@nordlicht-laden.example")
        member = (await identity.list_staff(scope))[0]
        _link, staffs = await identity.make_login_link(scope, member.id)
    for visitor, token in ((house.portal("nordlicht"), drivers), (house.driver("nordlicht"), staffs)):
        assert (await visitor.get(f"/login/{token}")).status_code == 404
        assert (await visitor.send("POST", f"/login/{token}")).status_code == 404
        assert not visitor.cookies


async def test_a_login_ends_with_the_logout_on_another_host_and_in_the_end(
    house: House, tenant_id: UUID
) -> None:
    rider = await house.rider("nordlicht", tenant_id, JULE)
    copy = Visitor(rider.client, rider.host, rider.port, dict(rider.cookies))
    secret = rider.cookies["__Host-livery"]
    for days, stands in ((40, True), (89, True), (91, False)):
        async with house.database.scope(tenant_id, CLI, now=utcnow() + timedelta(days=days)) as scope:
            assert (await identity.find_driver_session(scope, secret, host=rider.host) is not None) is stands
    assert (await rider.post("/logout")).status_code == 303
    assert (await copy.get("/account")).headers["location"].startswith("/login")
    again = await house.rider("nordlicht", tenant_id, JULE)
    async with house.database.scope(tenant_id, CLI) as scope:
        stolen = again.cookies["__Host-livery"]
        assert await identity.find_driver_session(scope, stolen, host="portal-nordlicht.localhost") is None
    assert (await again.get("/account")).status_code == 303


async def test_when_the_operator_changes_the_address_the_old_mailbox_is_out(
    house: House, tenant_id: UUID
) -> None:
    await _driver(house, tenant_id)
    rider = await house.rider("nordlicht", tenant_id, JULE)
    async with house.database.scope(tenant_id, CLI) as scope:
        driver = await accounts.find_by_mailbox(scope, JULE)
        assert driver is not None
        await access.update_driver(
            scope, driver.id, name="Jule", email="new@example.org", driver_group_id=None
        )
    assert (await rider.get("/account/cards")).headers["location"].startswith("/login")


async def test_a_lost_card_is_blocked_at_once_by_its_driver_and_by_no_other(
    house: House, tenant_id: UUID
) -> None:
    _jule, card = await _driver(house, tenant_id)
    await _driver(house, tenant_id, MALIK, "04FFFFFFFF")
    jule = await house.rider("nordlicht", tenant_id, JULE)
    malik = await house.rider("nordlicht", tenant_id, MALIK)
    for path in (f"/account/cards/{card}/block", f"/account/cards/{card}/label"):
        assert (await malik.post(path, {"label": "mine"})).status_code == 404
    assert (await jule.post(f"/account/cards/{card}/label", {"label": "<b>blue</b>"})).status_code == 303
    assert "&lt;b&gt;blue" in (await jule.get("/account/cards")).text
    assert (await jule.post(f"/account/cards/{card}/block")).status_code == 303
    async with house.database.scope(tenant_id, CLI) as scope:
        row = (await scope.db.execute(select(IdToken).where(IdToken.label != ""))).scalar_one()
        verdict = await access.plan_authorization(scope, row.id, IdTokenValue("04A1B2C3D4"))
        assert isinstance(verdict, Refused) and verdict.reason == "blocked"
        query = select(AuditEntry.actor_kind).where(AuditEntry.action == "id_token.updated")
        assert set((await scope.db.execute(query)).scalars()) == {"driver"}


async def test_forms_of_a_logged_in_driver_carry_their_own_token_also_where_guests_need_none(
    house: House, tenant_id: UUID
) -> None:
    rider, other = [await house.rider("nordlicht", tenant_id, email) for email in (JULE, MALIK)]
    for path in ("/account/profile", "/login", "/c/NOCODE/start", "/logout"):
        for token in ("", other.csrf):
            answer = await rider.send("POST", path, data={"name": "Eve", "_csrf": token})
            assert answer.status_code == 403 and "csrf" in answer.text, path
    assert (
        await house.driver("nordlicht").send("POST", "/preferences", data={"mode": "dark"})
    ).status_code == 303
    # A choice of language comes from pages of before the login too; another site's form is refused all the same.
    assert (await rider.send("POST", "/preferences", data={"mode": "dark"})).status_code == 303
    elsewhere = {"Origin": "https://evil.example"}
    answer = await rider.send("POST", "/preferences", data={"mode": "dark"}, headers=elsewhere)
    assert answer.status_code == 403


async def test_a_page_that_is_kept_on_the_phone_is_nobodys(house: House, tenant_id: UUID) -> None:
    """The service worker keeps `/offline` as the login at that moment saw it."""
    rider = await house.rider("nordlicht", tenant_id, JULE)
    page = await rider.get("/offline")
    assert page.status_code == 200 and rider.csrf not in page.text and "/account" not in page.text
    worker = (await rider.get("/sw.js")).text
    assert "/account" not in worker and '"/offline?' in worker
    for path in ("/account", "/account/cards", "/account/profile", "/account/sessions.csv"):
        assert (await rider.get(path)).headers["cache-control"] == "no-store", path


async def test_a_logged_in_driver_leaves_a_preview_by_its_button(house: House, tenant_id: UUID) -> None:
    rider = await house.rider("nordlicht", tenant_id, JULE)
    async with house.database.scope(tenant_id, CLI) as scope:
        editing = await faces.get_editing(scope)
        await faces.save_draft(
            scope, replace(editing.look, theme=replace(editing.look.theme, logo_text="Neu"))
        )
        held = faces.preview_pass(scope)
    await rider.get(f"/preview/{held}")
    shown = (await rider.open("/")).text
    assert "Neu" in shown and shown.count(f'name="_csrf" value="{rider.csrf}"') >= 2
    assert (await rider.post("/preview-ends")).status_code == 303
    assert "Neu" not in (await rider.get("/")).text


async def test_a_used_link_says_so_in_the_drivers_language(house: House, tenant_id: UUID) -> None:
    await _ask(house, JULE)
    (mail,) = await _mailed(house, tenant_id)
    path = next(line for line in mail.body.splitlines() if "/login/" in line).partition("/login/")[2]
    visitor = house.driver("nordlicht")
    assert (await visitor.send("POST", f"/login/{path}")).status_code == 303
    for again in (visitor, house.driver("nordlicht")):
        again.cookies.clear()
        answer = await again.send("POST", f"/login/{path}", headers={"Accept-Language": "de"})
        assert answer.status_code == 404 and "Dieser Link" in answer.text and "/login" in answer.text


@pytest.mark.parametrize(
    "email", ["x1:v@x.example", "a(b@x.example", "[a]@x.example", "a\\@x.example", "a b@x.example"]
)
def test_an_address_that_a_mail_header_would_read_otherwise_is_no_address(email: str) -> None:
    with pytest.raises(Invalid):
        identity.check_email(email)


@pytest.mark.parametrize(
    ("typed", "sent"),
    [("Käufer@exämple.org", "Käufer@xn--exmple-cua.org"), ("a@Straße.example", "a@xn--strae-oqa.example"),
     ("a@例え.テスト", "a@xn--r8jz45g.xn--zckzah"), ("Jule@Example.org", "Jule@Example.org"),
     ("a@XN--exmple-CUA.org", "a@XN--exmple-CUA.org")],
)  # fmt: skip
def test_a_domain_of_any_script_is_one_that_mail_goes_to(typed: str, sent: str) -> None:
    assert identity.check_email(typed) == typed
    assert identity.address_of(typed) == sent
    assert identity.email_norm(typed) == identity.email_norm(sent) == sent.lower()


@pytest.mark.parametrize(
    "email", ["a@b", "ä@ö", "a@-ä.example", "a@ä..example", "a@ä b.example", "a@ä\u200d.example", "a@.ä",
              "a@ä@b.example", "ä", "a@" + "ä" * 70 + ".example"],
)  # fmt: skip
def test_what_no_name_server_could_know_is_no_address(email: str) -> None:
    with pytest.raises(Invalid):
        identity.check_email(email)
    assert identity.email_norm(identity.email_norm(email)) == identity.email_norm(email)


async def test_a_driver_with_an_umlaut_in_the_domain_logs_in_however_it_is_written(
    house: House, tenant_id: UUID
) -> None:
    await _ask(house, "Jule@exämple.org")
    await _ask(house, "jule@xn--exmple-cua.org")
    mails = await _mailed(house, tenant_id)
    assert [one.to_address for one in mails] == ["jule@xn--exmple-cua.org"] * 2
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await access.create_driver(scope, name="Jule", email="Jule@exämple.org")
        assert (made.email, made.email_norm) == ("Jule@exämple.org", "jule@xn--exmple-cua.org")
        with pytest.raises(RefusedError):
            await access.create_driver(scope, name="Juli", email="jule@XN--exmple-cua.org")


async def test_a_start_by_card_after_the_login_ended_asks_for_the_login_and_for_no_card(
    house: House, tenant_id: UUID
) -> None:
    answer = await house.driver("nordlicht").send("POST", "/c/ABCDEFG/start", data={"card": "tok_x"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/c/ABCDEFG")


async def test_closing_needs_the_address_typed_and_leaves_nobodys_name(house: House, tenant_id: UUID) -> None:
    _jule, _card = await _driver(house, tenant_id)
    await _ask(house, JULE)
    assert len(await _mailed(house, tenant_id)) == 1
    rider = await house.rider("nordlicht", tenant_id, JULE)
    phone = await house.rider("nordlicht", tenant_id, JULE)
    refused = await rider.post("/account/closing", {"email": "someone@example.org"})
    assert refused.status_code == 422 and "as it stands above" in refused.text
    done = await rider.post("/account/closing", {"email": " Jule@example.org "})
    assert (done.status_code, done.headers["location"]) == (303, "/") and "__Host-livery" not in rider.cookies
    assert (await phone.get("/account")).status_code == 303
    async with house.database.scope(tenant_id, CLI) as scope:
        driver = (await scope.db.execute(select(Driver))).scalar_one()
        assert (driver.name, driver.email, driver.email_norm) == (accounts.LEFT, None, None)
        assert driver.deleted_at is not None
        token = (await scope.db.execute(select(IdToken))).scalar_one()
        assert (token.status, token.label, token.driver_id) == ("blocked", "", None)
        with pytest.raises(NotFound):
            await access.update_driver(
                scope, driver.id, name="New", email="new@a.example", driver_group_id=None
            )
        event_id = (
            await scope.db.execute(select(Event.id).where(Event.kind == "DriverClosedAccount"))
        ).scalar_one()
        with pytest.raises(Unauthenticated):
            await identity.prove_mailbox(scope, "x", host="nordlicht.localhost")
    assert await _count(house, tenant_id, LoginSession) == 0
    await jobs.forget_mailbox(house.database, tenant_id, str(event_id))
    async with house.database.scope(tenant_id, CLI) as scope:
        assert [mail for mail in await mails.list_mails(scope) if mail.to_address == JULE] == []
        for model in (Driver, IdToken, AuditEntry, Event, LoginLink):
            rows = (await scope.db.execute(select(model))).scalars().all()
            assert not any(JULE in str(vars(row)) for row in rows), model
    anew = await house.rider("nordlicht", tenant_id, JULE)
    assert "No cards yet" in (await anew.get("/account/cards")).text


async def test_the_mail_wears_the_brand_and_says_the_same_twice(house: House, tenant_id: UUID) -> None:
    await _ask(house, JULE)
    (mail,) = await _mailed(house, tenant_id)
    async with house.database.scope(tenant_id, CLI) as scope:
        message = await jobs._message(scope, mail)
    text, dressed = [part.get_content() for part in message.iter_parts()]
    link = next(line for line in mail.body.splitlines() if "/login/" in line)
    assert link in text and f'href="{link}"' in dressed and "background:#" in dressed
