"""A brand's own domains: who gets one, when it is served, when no longer, and what the proxy may ask."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.brands import domains
from app.brands.domains import Finding
from app.brands.resolver import DnsResolver, Unanswered
from app.charging import paid
from app.identity import service as identity
from app.kernel import audit
from app.kernel.clock import uuid7
from app.kernel.errors import ConfigurationFault, Invalid, NotFound, Refused
from app.kernel.events import Event
from app.kernel.ids import public_id
from app.kernel.settings import Settings, load_settings
from app.notifications import jobs
from app.notifications import service as mails
from tenants.database import Database
from tenants.resolve import own_url
from tenants.scope import Actor
from tests.name_server import NameServer
from tests.surfaces.test_front_door import raw
from tests.web import CLI, House, Visitor, found_brand, open_house

pytestmark = pytest.mark.anyio
HOST = "charge.nordlicht.example"
TARGET = "nordlicht.charging.example"
JOB = Actor.job("test")
DAY = timedelta(days=1)


class Answers:
    """A resolver by hand: `txt`, `cname` and `addresses` by name; `silent` answers nothing at all."""

    def __init__(
        self, txt: Any = None, cname: Any = None, addresses: Any = None, *, silent: bool = False
    ) -> None:
        self._txt, self._cname, self._addresses = txt or {}, cname or {}, addresses or {}
        self.silent = silent

    async def txt(self, name: str) -> list[str]:
        if self.silent:
            raise Unanswered(name)
        return self._txt.get(name, [])

    async def cname(self, name: str) -> str | None:
        return self._cname.get(name)

    async def addresses(self, name: str) -> list[str]:
        return self._addresses.get(name, [])


def right(domain: Any, target: str = TARGET) -> Answers:
    return Answers({f"_livery-challenge.{domain.host}": [domains.txt_value(domain)]}, {domain.host: target})


NOTHING = Answers()


def publish(names: NameServer, domain: Any, target: str = TARGET) -> None:
    names.records[f"_livery-challenge.{domain.host}", "TXT"] = [f'"{domains.txt_value(domain)}"']
    names.records[domain.host, "CNAME"] = [f"{target}."]


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


async def claimed(database: Database, tenant_id: UUID, host: str = HOST, surface: str = "driver") -> Any:
    async with database.scope(tenant_id, CLI) as scope:
        return await domains.claim(scope, host, surface)


async def active(database: Database, tenant_id: UUID, host: str = HOST, surface: str = "driver") -> Any:
    domain = await claimed(database, tenant_id, host, surface)
    target = f"{'portal-' if surface == 'portal' else ''}nordlicht.charging.example"
    domain = await domains.check(database, tenant_id, JOB, domain.id, resolver=right(domain, target))
    assert domain.state == "active"
    return domain


async def audited(database: Database, tenant_id: UUID) -> list[str]:
    async with database.scope(tenant_id, CLI) as scope:
        assert await audit.find_break(scope) is None
        query = text("select action from livery.audit_entry where object_type = 'domain' order by seq")
        return list((await scope.db.execute(query)).scalars())


# -- by hand, over HTTP ------------------------------------------------------------------------------------------------


async def test_a_claim_shows_its_records_and_each_check_says_what_was_found_until_the_host_serves_the_brand(
    house: House, tenant_id: UUID, names: NameServer
) -> None:
    staff = await house.staff("nordlicht", tenant_id)
    await staff.open("/domains")
    answer = await staff.post("/domains", {"host": "Charge.Nordlicht.example.", "surface": "driver"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/domains")
    page = (await staff.open("/domains")).text
    async with house.database.scope(tenant_id, CLI) as scope:
        (domain,) = await domains.list_domains(scope)
    assert domain.host == HOST
    value = domains.txt_value(domain)
    for shown in (f"_livery-challenge.{HOST}", value, HOST, TARGET, "Not looked for yet", "Pending"):
        assert shown in page, shown

    async def check() -> str:
        answer = await staff.post(f"/domains/{public_id('domain', domain.id)}/checks")
        assert answer.status_code == 303
        return (await staff.open("/domains")).text

    assert "Not found." in await check()
    names.records[f"_livery-challenge.{HOST}", "TXT"] = ['"livery-of-somebody-else"']
    names.records[HOST, "A"] = ["192.0.2.7"]
    names.records[TARGET, "A"] = ["198.51.100.1"]
    page = await check()
    for shown in (
        "with another value",
        "livery-of-somebody-else",
        "leads elsewhere",
        "192.0.2.7",
        "198.51.100.1",
    ):
        assert shown in page, shown
    assert (await house.at(HOST).get("/")).status_code == 404

    names.records[f"_livery-challenge.{HOST}", "TXT"] += [f'"{value[:20]}" "{value[20:]}"']
    page = await check()
    assert "Proven" in page and "with the right value" in page and "point it here" in page
    house.door.resolver.forget()
    answer = await house.at(HOST).get("/")
    assert (answer.status_code, answer.text) == (404, "Not Found\n")

    del names.records[HOST, "A"]
    names.records[HOST, "CNAME"] = [f"{TARGET}."]
    page = await check()
    assert "It works" in page and f"http://{HOST}:8000/" in page
    house.door.resolver.forget()
    answer = await house.at(HOST).get("/")
    assert answer.status_code == 200 and "Nordlicht" in answer.text
    assert (await house.driver("nordlicht").get("/")).status_code == 200
    assert await audited(house.database, tenant_id) == [
        "domain.claimed",
        "domain.verified",
        "domain.activated",
    ]


async def test_a_released_host_is_a_bare_404_and_comes_back_only_with_a_fresh_challenge(
    house: House, tenant_id: UUID, names: NameServer
) -> None:
    domain = await active(house.database, tenant_id)
    staff = await house.staff("nordlicht", tenant_id)
    assert (await house.at(HOST).get("/")).status_code == 200
    page = (await staff.open("/domains")).text
    path = f"/domains/{public_id('domain', domain.id)}"
    assert f"{path}/releases" in page
    assert (await staff.post(f"{path}/releases")).status_code == 303
    house.door.resolver.forget()
    answer = await house.at(HOST).get("/")
    assert (answer.status_code, answer.text) == (404, "Not Found\n")
    assert (await staff.post(f"{path}/releases")).status_code == 303
    assert (await staff.post(f"{path}/checks")).status_code == 303
    assert "claim it again first" in (await staff.open("/domains")).text

    publish(names, domain)
    again = await claimed(house.database, tenant_id)
    assert again.id == domain.id and again.challenge != domain.challenge and again.state == "pending"
    again = await domains.check(house.database, tenant_id, JOB, again.id)
    assert again.state == "pending" and not again.last_result["has_txt"] and again.last_result["has_address"]
    publish(names, again)
    assert (await domains.check(house.database, tenant_id, JOB, again.id)).state == "active"


async def test_the_form_keeps_what_was_typed_and_says_what_is_wrong_with_it(
    house: House, tenant_id: UUID
) -> None:
    staff = await house.staff("nordlicht", tenant_id)
    await staff.open("/domains")
    for host, sentence in (
        ("nordlicht.charging.example", "belongs to the platform"), ("192.0.2.1", "address of numbers"),
        ("https://charge.example.com/", "the host alone"), ("", "no host name"),
    ):  # fmt: skip
        answer = await staff.post("/domains", {"host": host, "surface": "driver"})
        assert answer.status_code == 422 and sentence in answer.text and f'value="{host}"' in answer.text
    answer = await staff.post("/domains", {"host": HOST, "surface": "ocpp"})
    assert answer.status_code == 422 and "drivers or staff" in answer.text
    assert (await staff.post("/domains", {"host": HOST, "surface": "driver"})).status_code == 303
    answer = await staff.post("/domains", {"host": HOST.upper(), "surface": "portal"})
    assert answer.status_code == 422 and "in your list already" in answer.text
    async with house.database.scope(tenant_id, CLI) as scope:
        assert len(await domains.list_domains(scope)) == 1


async def test_a_viewer_sees_domains_and_changes_none(house: House, tenant_id: UUID) -> None:
    domain = await claimed(house.database, tenant_id)
    async with house.database.scope(tenant_id, CLI) as scope:
        await identity.invite_staff(scope, email="viewer@nordlicht.example", role="viewer")
    viewer = await house.staff("nordlicht", tenant_id, "viewer@nordlicht.example")
    page = (await viewer.open("/domains")).text
    assert HOST in page and "Check now" not in page and 'action="/domains"' not in page
    path = f"/domains/{public_id('domain', domain.id)}"
    for wrong in ("/domains", f"{path}/checks", f"{path}/releases"):
        assert (await viewer.post(wrong, {"host": HOST})).status_code == 403


# -- two brands, one host ----------------------------------------------------------------------------------------------


async def test_two_brands_may_claim_one_host_and_the_first_to_prove_it_has_it(
    house: House, tenant_id: UUID, names: NameServer
) -> None:
    database = house.database
    other = await found_brand(database, "solmark", "selim@solmark.example")
    ours, theirs = await claimed(database, tenant_id), await claimed(database, other)
    assert ours.challenge != theirs.challenge
    both = Answers(
        {f"_livery-challenge.{HOST}": [domains.txt_value(theirs), domains.txt_value(ours)]},
        addresses={name: ["198.51.100.1"] for name in (HOST, TARGET, "solmark.charging.example")},
    )  # fmt: skip
    assert (await domains.check(database, tenant_id, JOB, ours.id, resolver=both)).state == "active"
    late = await domains.check(database, other, JOB, theirs.id, resolver=both)
    assert (late.state, late.last_result["problem"]) == ("verified", "taken")
    answer = await house.at(HOST).get("/")
    assert answer.status_code == 200 and "Nordlicht" in answer.text and "Solmark" not in answer.text

    names.records[f"_livery-challenge.{HOST}", "TXT"] = [f'"{domains.txt_value(theirs)}"']
    names.records[HOST, "CNAME"] = ["solmark.charging.example."]
    staff = await house.staff("solmark", other, "selim@solmark.example")
    await staff.open("/domains")
    await staff.post(f"/domains/{public_id('domain', theirs.id)}/checks")
    assert "Another brand on this platform" in (await staff.open("/domains")).text
    # Nor by releasing what is not theirs.
    async with database.scope(other, CLI) as scope:
        await domains.release(scope, theirs.id)
        with pytest.raises(NotFound):
            await domains.release(scope, ours.id)
    house.door.resolver.forget()
    assert "Nordlicht" in (await house.at(HOST).get("/")).text
    async with database.scope(tenant_id, CLI) as scope:
        await domains.release(scope, ours.id)
    theirs = await claimed(database, other)
    theirs = await domains.check(
        database, other, JOB, theirs.id, resolver=right(theirs, "solmark.charging.example")
    )
    house.door.resolver.forget()
    assert theirs.state == "active" and "Solmark" in (await house.at(HOST).get("/")).text


async def test_no_call_of_the_doors_touches_a_host_that_is_the_platforms_or_anothers(
    house: House, tenant_id: UUID
) -> None:
    await active(house.database, tenant_id)
    other = await found_brand(house.database, "solmark", "selim@solmark.example")
    put = text("select platform.put_host_route(:host, 'driver', :domain)")
    for tenant, host in (
        (other, HOST), (other, TARGET), (other, "solmark.charging.example"), (tenant_id, TARGET),
    ):  # fmt: skip
        async with house.database.scope(tenant, CLI) as scope:
            assert (await scope.db.execute(put, {"host": host, "domain": uuid7()})).scalar_one() is False
            await scope.db.execute(text("select platform.drop_host_route(:host)"), {"host": host})
            assert (
                await own_url(scope, "portal", "")
                == f"http://portal-{_slug(tenant, tenant_id)}.charging.example:8000"
            )
    for host, name in ((HOST, "Nordlicht"), (TARGET, "Nordlicht"), ("solmark.charging.example", "Solmark")):
        assert name in (await house.at(host).get("/")).text


def _slug(tenant: UUID, nordlicht: UUID) -> str:
    return "nordlicht" if tenant == nordlicht else "solmark"


# -- the daily look ----------------------------------------------------------------------------------------------------


async def test_a_domain_that_fails_for_three_days_is_suspended_and_comes_back_by_itself(
    house: House, tenant_id: UUID
) -> None:
    database = house.database
    domain, now = await active(database, tenant_id), datetime.now(UTC)

    async def day(number: int, answers: Answers) -> tuple[str, bool, int]:
        await domains.recheck(
            database, tenant_id, resolver=answers, now=now + number * DAY - timedelta(seconds=number)
        )
        house.door.resolver.forget()
        async with database.scope(tenant_id, CLI) as scope:
            row = await domains.get_domain(scope, domain.id)
        return row.state, row.failing_since is not None, (await house.at(HOST).get("/")).status_code

    assert await day(1, right(domain)) == ("active", False, 200)
    assert await day(2, NOTHING) == ("active", True, 200)
    assert await day(3, right(domain)) == ("active", False, 200)
    assert await day(4, NOTHING) == ("active", True, 200)
    assert await day(5, Answers(silent=True)) == ("active", True, 200)
    assert await day(6, Answers({f"_livery-challenge.{HOST}": [domains.txt_value(domain)]})) == (
        "active",
        True,
        200,
    )
    assert await day(7, NOTHING) == ("suspended", True, 404)
    assert await day(8, NOTHING) == ("suspended", True, 404)
    async with database.scope(tenant_id, CLI) as scope:
        assert TARGET in await own_url(scope, "driver")
    assert await day(9, right(domain)) == ("active", False, 200)
    assert await audited(database, tenant_id) == [
        "domain.claimed", "domain.activated", "domain.began_failing", "domain.recovered", "domain.began_failing",
        "domain.suspended", "domain.activated",
    ]  # fmt: skip


async def test_silent_name_servers_count_as_failing_after_two_days_and_the_owners_are_told_what_to_do_and_by_when(
    house: House, tenant_id: UUID
) -> None:
    database = house.database
    domain, now = await active(database, tenant_id), datetime.now(UTC)

    async def day(number: int) -> tuple[str, bool, bool]:
        at, silent = now + number * DAY, Answers(silent=True)
        await domains.recheck(database, tenant_id, resolver=silent, now=at)
        async with database.scope(tenant_id, CLI) as scope:
            row = await domains.get_domain(scope, domain.id)
            leads_there = HOST in await own_url(scope, "driver")
        return row.state, row.failing_since is not None, leads_there

    assert await day(1) == ("active", False, False)
    assert await news(database, tenant_id) == []
    assert await day(3) == ("active", True, False)
    staff = await house.staff("nordlicht", tenant_id)
    page = (await staff.open("/")).text
    for shown in (f"{HOST} is failing", "Its name servers give no answer", "Served until", 'href="/domains"'):
        assert shown in page, shown
    assert await day(5) == ("active", True, False)
    assert await day(6) == ("suspended", True, False)
    assert f"{HOST} is suspended" in (await staff.open("/")).text
    assert await news(database, tenant_id) == ["DomainBeganFailing", "DomainSuspended"]
    async with database.scope(tenant_id, CLI) as scope:
        failing, suspended = sorted(await mails.list_mails(scope), key=lambda mail: mail.kind)
    assert {failing.to_address, suspended.to_address} == {"anke@nordlicht-laden.example"}
    assert failing.subject == f"{HOST} is failing" and suspended.subject == f"{HOST} is suspended"
    for shown in ("name servers give no answer", "Until ", "portal-nordlicht.charging.example:8000/domains"):
        assert shown in failing.body, shown
    assert "Set them and it comes back" in suspended.body


async def news(database: Database, tenant_id: UUID) -> list[str]:
    """What events of domains there are, each mailed by its job."""
    async with database.scope(tenant_id, CLI) as scope:
        query = select(Event).where(Event.source_type == "domain").order_by(Event.id)
        found = (await scope.db.execute(query)).scalars().all()
    for event in found:
        (job,) = jobs.LISTENERS[event.kind]
        await jobs.JOBS[job](database, tenant_id, str(event.id))
    return [event.kind for event in found]


async def test_a_proven_claim_gets_the_host_by_itself_once_the_other_brand_releases_it(
    house: House, tenant_id: UUID
) -> None:
    database = house.database
    ours = await active(database, tenant_id)
    other = await found_brand(database, "solmark", "selim@solmark.example")
    theirs = await claimed(database, other)
    answers = right(theirs, "solmark.charging.example")
    await domains.recheck(database, other, resolver=answers)  # a mere claim is not looked at
    async with database.scope(other, CLI) as scope:
        assert (await domains.get_domain(scope, theirs.id)).checked_at is None
    theirs = await domains.check(database, other, JOB, theirs.id, resolver=answers)
    assert (theirs.state, theirs.last_result["problem"]) == ("verified", "taken")
    async with database.scope(tenant_id, CLI) as scope:
        await domains.release(scope, ours.id)
    await domains.recheck(database, other, resolver=answers)
    async with database.scope(other, CLI) as scope:
        assert (await domains.get_domain(scope, theirs.id)).state == "active"
    assert "Solmark" in (await house.at(HOST).get("/")).text


async def test_a_suspended_host_that_another_brand_has_proven_meanwhile_stays_theirs(
    house: House, tenant_id: UUID
) -> None:
    database, now = house.database, datetime.now(UTC)
    ours = await active(database, tenant_id)
    for number in (1, 4):
        await domains.recheck(database, tenant_id, resolver=NOTHING, now=now + number * DAY)
    other = await found_brand(database, "solmark", "selim@solmark.example")
    theirs = await claimed(database, other)
    await domains.check(database, other, JOB, theirs.id, resolver=right(theirs, "solmark.charging.example"))
    await domains.recheck(database, tenant_id, resolver=right(ours), now=now + 5 * DAY)
    async with database.scope(tenant_id, CLI) as scope:
        row = await domains.get_domain(scope, ours.id)
    assert (row.state, row.last_result["problem"]) == ("suspended", "taken")
    assert "Solmark" in (await house.at(HOST).get("/")).text


async def test_a_release_while_name_servers_are_asked_stays_a_release(house: House, tenant_id: UUID) -> None:
    database, domain = house.database, await claimed(house.database, tenant_id)

    class Slow(Answers):
        async def cname(self, name: str) -> str | None:
            async with database.scope(tenant_id, CLI) as scope:
                await domains.release(scope, domain.id)
            return TARGET

    slow = Slow({f"_livery-challenge.{HOST}": [domains.txt_value(domain)]})
    assert (await domains.check(database, tenant_id, JOB, domain.id, resolver=slow)).state == "released"
    assert (await house.at(HOST).get("/")).status_code == 404


@pytest.mark.parametrize(
    ("state", "found", "after"),
    [
        ("pending", Finding(), "pending"), ("pending", Finding(has_txt=True), "verified"),
        ("pending", Finding(has_address=True), "pending"), ("verified", Finding(has_address=True), "pending"),
        ("verified", Finding(has_txt=True, has_address=True), "active"),
        ("verified", Finding(problem="unanswered"), "verified"),
        ("active", Finding(has_txt=True), "active"), ("suspended", Finding(has_txt=True), "suspended"),
        ("suspended", Finding(has_txt=True, has_address=True), "active"),
    ],
)  # fmt: skip
def test_every_state_has_its_way(state: str, found: Finding, after: str) -> None:
    assert domains.judge(state, None, found, datetime.now(UTC))[0] == after


# -- links and pages on the own host -----------------------------------------------------------------------------------


async def test_mailed_links_lead_to_the_brands_own_hosts_once_they_are_active(
    house: House, tenant_id: UUID
) -> None:
    database = house.database
    async with database.scope(tenant_id, CLI) as scope:
        session_id = uuid7()
        assert (await paid.page_url(scope, session_id)).startswith(f"http://{TARGET}:8000/s/ses_")
        assert await identity.login_url(scope, "x") == "http://portal-nordlicht.charging.example:8000/login/x"
    await active(database, tenant_id)
    await active(database, tenant_id, "portal.nordlicht.example", "portal")
    await claimed(database, tenant_id, "later.nordlicht.example", "portal")
    async with database.scope(tenant_id, CLI) as scope:
        assert (await paid.page_url(scope, session_id)).startswith(f"http://{HOST}:8000/s/ses_")
        assert (
            await paid.page_url(scope, session_id, "http://here")
            == f"http://here/s/{paid.link_of(scope, session_id)}"
        )
        member = await identity.find_staff_member(scope, "anke@nordlicht-laden.example")
        _link, token = await identity.make_login_link(scope, member.id)
        assert await identity.login_url(scope, token) == f"http://portal.nordlicht.example:8000/login/{token}"
    staff = await house._log_in(house.at("portal.nordlicht.example"), token)
    assert "Nordlicht" in (await staff.open("/domains")).text
    # A login is its host's: neither the platform's nor the drivers' host knows it.
    for host in ("portal-nordlicht.charging.example", HOST):
        stranger = Visitor(house.client, host, house.port, dict(staff.cookies))
        assert (await stranger.get("/team")).status_code in (303, 404)


async def test_a_login_link_leads_to_the_host_it_was_asked_for_on_and_other_links_leave_a_failing_domain(
    house: House, tenant_id: UUID
) -> None:
    database = house.database
    await active(database, tenant_id)
    await active(database, tenant_id, "portal.nordlicht.example", "portal")
    hosts = ("portal-nordlicht.charging.example", "portal.nordlicht.example", TARGET, HOST)
    for host in hosts:
        visitor = house.at(host)
        email = "anke@nordlicht-laden.example" if host.startswith("portal") else "driver@a.example"
        await visitor.open("/login")
        answer = await visitor.post("/login", {"email": email, "next": "/wherever"})
        assert answer.status_code == 200 and "__Host-livery-next" in visitor.cookies
    async with database.scope(tenant_id, CLI) as scope:
        wanted = ("LoginLinkRequested", "DriverLoginRequested")
        query = select(Event).where(Event.kind.in_(wanted)).order_by(Event.id)
        asked = (await scope.db.execute(query)).scalars().all()
    for event in asked:
        await jobs.JOBS[jobs.LISTENERS[event.kind][0]](database, tenant_id, str(event.id))
    async with database.scope(tenant_id, CLI) as scope:
        bodies = [mail.body for mail in reversed(await mails.list_mails(scope))]
    assert len(bodies) == 4
    for host, body in zip(hosts, bodies, strict=True):
        assert f"http://{host}:8000/login/" in body
    await domains.recheck(database, tenant_id, resolver=NOTHING)
    async with database.scope(tenant_id, CLI) as scope:
        assert (await paid.page_url(scope, uuid7())).startswith(f"http://{TARGET}:8000/s/ses_")
        assert "portal-nordlicht.charging.example" in await identity.login_url(scope, "x")
        # Whoever has the lost name by now cannot have links mailed that lead to it.
        assert await identity.login_url(scope, "x", "driver", host=HOST) == f"http://{TARGET}:8000/login/x"
        assert TARGET in await identity.login_url(scope, "x", "driver", host="evil.example")
    assert (await house.at(HOST).get("/")).status_code == 200  # printed codes still work


async def test_behind_tls_links_to_own_domains_carry_no_port(settings: Settings, database: Database) -> None:
    changes = {"platform_domain": "charging.example", "public_url": "https://charging.example"}
    database.settings = settings.model_copy(update=changes)
    tenant_id = await found_brand(database)
    await active(database, tenant_id)
    async with database.scope(tenant_id, CLI) as scope:
        assert await own_url(scope, "driver", "/x") == f"https://{HOST}/x"


async def test_a_browser_insists_on_tls_for_a_brands_own_domain_for_a_day_only(
    house: House, tenant_id: UUID
) -> None:
    await active(house.database, tenant_id)
    house.door.settings = house.settings.model_copy(update={"trusted_proxies": ("127.0.0.1",)})
    for host, lasting in ((HOST, 86_400), (TARGET, 31_536_000)):
        answer = await house.at(host).get("/", headers={"X-Forwarded-Proto": "https"})
        assert answer.headers["strict-transport-security"] == f"max-age={lasting}"


# -- the proxy's question ----------------------------------------------------------------------------------------------


async def test_the_proxy_gets_certificates_for_hosts_that_are_served_and_no_others(
    house: House, tenant_id: UUID
) -> None:
    await active(house.database, tenant_id)
    await claimed(house.database, tenant_id, "waiting.nordlicht.example")
    asked = {
        HOST: 200, HOST.upper(): 200, TARGET: 200, "portal-nordlicht.charging.example": 200,
        "console.charging.example": 200, "waiting.nordlicht.example": 404, "solmark.charging.example": 404,
        "charging.example": 404, "evil.example": 404, "": 404, "a b": 404, "x" * 400: 404, "192.0.2.1": 404,
    }  # fmt: skip
    console = house.console()
    for host, status in asked.items():
        assert (await console.get("/tls/ask", params={"domain": host})).status_code == status, host
    assert (await console.get("/tls/ask")).status_code == 404
    for elsewhere in (house.driver("nordlicht"), house.at(HOST), house.at("web")):
        assert (await elsewhere.get("/tls/ask", params={"domain": HOST})).status_code == 404


async def test_a_trusted_proxy_asks_under_its_own_name_but_not_for_its_visitors(
    settings: Settings, database: Database
) -> None:
    database.settings = settings.model_copy(update={"trusted_proxies": ("127.0.0.1",)})
    async with open_house(database.settings, database) as house:
        await found_brand(database)
        line = "GET /tls/ask?domain={} HTTP/1.1"
        assert " 200 " in await _first(house, line.format("nordlicht.localhost"), "Host: web:8000")
        assert " 404 " in await _first(house, line.format("evil.example"), "Host: web:8000")
        passed_on = ("Host: nordlicht.localhost", "X-Forwarded-For: 203.0.113.9")
        assert " 404 " in await _first(house, line.format("nordlicht.localhost"), *passed_on)


async def _first(house: House, *lines: str) -> str:
    return (await raw(house, *lines)).splitlines()[0]


# -- the console -------------------------------------------------------------------------------------------------------


async def test_the_console_lists_everybodys_domains_and_how_they_stand(house: House, tenant_id: UUID) -> None:
    other = await found_brand(house.database, "solmark", "selim@solmark.example")
    domain = await active(house.database, tenant_id)
    await claimed(house.database, other, "laden.solmark.example")
    await domains.recheck(house.database, tenant_id, resolver=Answers({}, {HOST: TARGET}))
    admin = await house.admin()
    page = (await admin.open("/domains")).text
    assert page.index(HOST) < page.index("laden.solmark.example")
    for shown in (
        "Failing",
        "Pending",
        "TXT not right, leads here",
        "Solmark",
        'href="/domains"',
    ):
        assert shown in page, shown
    async with house.database.scope(tenant_id, CLI) as scope:
        await domains.release(scope, domain.id)
    assert "Released" in (await admin.open("/domains")).text


async def test_platform_staff_release_a_domain_with_a_reason_and_the_owners_are_told(
    house: House, tenant_id: UUID
) -> None:
    domain = await active(house.database, tenant_id)
    admin = await house.admin()
    path = f"/tenants/nordlicht/domains/{public_id('domain', domain.id)}/releases"
    assert path in (await admin.open("/domains")).text
    assert (await admin.post(path, {"reason": ""})).status_code == 422
    answer = await admin.post(path, {"reason": "Stolen name, case 7"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/domains")
    house.door.resolver.forget()
    assert (await house.at(HOST).get("/")).status_code == 404
    assert (await audited(house.database, tenant_id))[-1] == "domain.released"
    assert "Stolen name, case 7" in (await admin.open("/audit")).text
    assert await news(house.database, tenant_id) == ["DomainTakenOut"]
    async with house.database.scope(tenant_id, CLI) as scope:
        (mail,) = await mails.list_mails(scope)
    assert "Stolen name, case 7" in mail.body and HOST in mail.subject
    assert path not in (await admin.open("/domains")).text


# -- odd hosts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["", " ", "localhost", "charge", "charge.localhost", "a.local", "a.internal", "x.onion", "8.8.8.8.in-addr.arpa",
     "192.0.2.1", "0x7f.0x1", "[2001:db8::1]", "2001:db8::1", "charge.example.com:443", "http://charge.example.com",
     "charge.example.com/x", "user@charge.example.com", "-a.example.com", "a-.example.com", "a..example.com",
     "a_b.example.com", "*.example.com", "a b.example.com", "x" * 300, "x" * 64 + ".example.com",
     ".".join(["x" * 50] * 5), "straße.example", "STRAẞE.example",
      "charging.example", "CHARGING.example.", "nordlicht.charging.example",
     "new.charging.example", "a.b.charging.example", "pay.elsewhere.example", "ocpp.elsewhere.example",
     "charge.example.com\u0000", "charge\u3002localhost"],
)  # fmt: skip
def test_what_is_no_public_host_or_the_platforms_own_cannot_be_claimed(settings: Settings, host: str) -> None:
    changes = {
        "platform_domain": "charging.example", "public_url": "https://pay.elsewhere.example",
        "ocpp_public_url": "wss://ocpp.elsewhere.example",
    }  # fmt: skip
    with pytest.raises(Invalid) as refused:
        domains.check_host(host, settings.model_copy(update=changes))
    assert [fault.field for fault in refused.value.faults] == ["host"]


@pytest.mark.parametrize(
    ("typed", "host"),
    [(" Charge.Example.COM. ", "charge.example.com"), ("laden.müller.example", "laden.xn--mller-kva.example"),
     ("XN--mller-kva.example", "xn--mller-kva.example"), ("charging.example.com", "charging.example.com"),
     ("mycharging.example", "mycharging.example"), ("1.example.com", "1.example.com")],
)  # fmt: skip
def test_a_public_host_is_kept_as_dns_writes_it(settings: Settings, typed: str, host: str) -> None:
    changed = settings.model_copy(update={"platform_domain": "charging.example"})
    assert domains.check_host(typed, changed) == host


def test_people_read_the_name_as_they_write_it() -> None:
    assert domains.spoken("laden.xn--mller-kva.example") == "laden.müller.example"
    assert domains.spoken("xn--a.example") == "xn--a.example"


async def test_a_brand_has_so_many_domains_and_no_more(house: House, tenant_id: UUID) -> None:
    async with house.database.scope(tenant_id, CLI) as scope:
        first = await domains.claim(scope, "c.nordlicht.example", "driver")
        for number in range(1, domains.MOST_DOMAINS):
            await domains.claim(scope, f"c{number}.nordlicht.example", "driver")
        with pytest.raises(Refused, match="at most"):
            await domains.claim(scope, HOST, "driver")
        await domains.release(scope, first.id)
        await domains.claim(scope, HOST, "driver")


# -- the real resolver, against a real name server ---------------------------------------------------------------------


async def test_the_resolver_tells_nothing_there_from_nobody_answering(names: NameServer) -> None:
    host, _, port = names.address.partition(":")
    resolver = DnsResolver((host, int(port)))
    names.records |= {
        ("a.example", "A"): ["192.0.2.1"], ("a.example", "AAAA"): ["2001:db8::1"],
        ("a.example", "TXT"): ['"x" "y"', '"z"'], ("b.example", "CNAME"): ["A.Example."],
    }  # fmt: skip
    names.broken.add("broken.example")
    assert await resolver.addresses("a.example") == ["192.0.2.1", "2001:db8::1"]
    assert await resolver.txt("a.example") == ["xy", "z"]
    assert await resolver.cname("b.example") == "a.example"
    assert await resolver.txt("b.example") == [] and await resolver.txt("none.example") == []
    assert await resolver.cname("none.example") is None
    for wrong in ("broken.example", "x" * 70 + ".example"):
        with pytest.raises(Unanswered):
            await resolver.txt(wrong)


@pytest.mark.parametrize("server", ["dns.example", "192.0.2.1:99999", "", "192.0.2.1/x", "192.0.2.1:"])
def test_a_name_server_that_is_no_address_is_a_fault_of_the_configuration(server: str) -> None:
    if not server or server.endswith(":"):
        load_settings({"LIVERY_DNS_SERVER": server})
        return
    with pytest.raises(ConfigurationFault, match="LIVERY_DNS_SERVER"):
        load_settings({"LIVERY_DNS_SERVER": server})
