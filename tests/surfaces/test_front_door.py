"""Which host leads where, and what every answer carries."""

import asyncio
import re
from uuid import UUID

import pytest

from app.kernel.settings import Settings
from tenants.database import Database
from tests.web import House, found_brand, open_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tenant_id(house: House) -> UUID:
    return await found_brand(house.database)


async def raw(house: House, *lines: str) -> str:
    """A request as bytes: clients are too polite for some of these."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode("latin-1"))
    answer = (await reader.read()).decode("latin-1")
    writer.close()
    return answer


@pytest.mark.parametrize(
    "host",
    ["portal-nordlicht.localhost", "PORTAL-Nordlicht.LocalHost", "portal-nordlicht.localhost.",
     "portal-nordlicht.localhost:8000", "PORTAL-NORDLICHT.localhost.:1"],
)  # fmt: skip
async def test_a_host_is_known_however_it_is_written(house: House, tenant_id: UUID, host: str) -> None:
    answer = await raw(house, "GET /login HTTP/1.1", f"Host: {host}")
    assert " 200 " in answer.splitlines()[0] and "Nordlicht" in answer


@pytest.mark.parametrize(
    "host",
    ["unknown.localhost", "localhost", "portal-nordlicht", "nordlicht.localhost.evil.example", "127.0.0.1", "[::1]:80",
     "portal-nordlicht.localhost:80:80", "portal_nordlicht.localhost", "", "a b", "portal-nordlicht.localhost/",
     "portal-portal-nordlicht.localhost", "platform.localhost", "portal-platform.localhost"],
)  # fmt: skip
async def test_an_unknown_host_gets_a_bare_404_with_no_brand(
    house: House, tenant_id: UUID, host: str
) -> None:
    answer = await raw(house, "GET / HTTP/1.1", f"Host: {host}")
    status, _, rest = answer.partition("\r\n")
    body = answer.partition("\r\n\r\n")[2]
    assert " 404 " in status or " 400 " in status
    if " 404 " in status:
        assert "Not Found" in body and len(body) < 40
    assert "ordlicht" not in rest and "Livery" not in rest


async def test_two_host_headers_lead_nowhere(house: House, tenant_id: UUID) -> None:
    two = await raw(
        house, "GET /login HTTP/1.1", "Host: portal-nordlicht.localhost", "Host: console.localhost"
    )
    assert " 404 " in two.splitlines()[0] or " 400 " in two.splitlines()[0]
    assert "Nordlicht" not in two


async def test_what_a_stranger_forwards_counts_for_nothing(house: House, tenant_id: UUID) -> None:
    answer = await raw(
        house, "GET /login HTTP/1.1", "Host: unknown.localhost", "X-Forwarded-Host: portal-nordlicht.localhost",
        "Forwarded: host=portal-nordlicht.localhost",
    )  # fmt: skip
    assert " 404 " in answer.splitlines()[0]


async def test_a_trusted_proxy_is_believed(settings: Settings, database: Database) -> None:
    proxied = settings.model_copy(update={"trusted_proxies": ("127.0.0.1",)})
    async with open_house(proxied, database) as house:
        await found_brand(database)
        answer = await raw(
            house, "GET /login HTTP/1.1", "Host: inner:8000", "X-Forwarded-Host: portal-nordlicht.localhost",
            "X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.9, 127.0.0.1",
        )  # fmt: skip
        assert " 200 " in answer.splitlines()[0] and "strict-transport-security: max-age=31536000" in answer
        arrival = house.door._arrive({
            "headers": [(b"host", b"a.example"), (b"x-forwarded-for", b"6.6.6.6, 203.0.113.9, 127.0.0.1")],
            "client": ("127.0.0.1", 1), "scheme": "http",
        })  # fmt: skip
        assert arrival is not None and arrival.remote == "203.0.113.9"
        stranger = house.door._arrive({
            "headers": [(b"host", b"a.example"), (b"x-forwarded-for", b"6.6.6.6")], "client": ("10.0.0.1", 1),
        })  # fmt: skip
        assert stranger is not None and stranger.remote == "10.0.0.1"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version"])
async def test_health_answers_on_any_host(house: House, path: str) -> None:
    assert " 200 " in (await raw(house, f"GET {path} HTTP/1.1", "Host: 10.1.2.3")).splitlines()[0]


async def test_metrics_are_on_no_brands_host(house: House, tenant_id: UUID) -> None:
    for visitor in (house.portal("nordlicht"), house.driver("nordlicht")):
        assert (await visitor.get("/metrics")).status_code in (303, 404)


async def test_metrics_are_told_from_within_only(settings: Settings, database: Database) -> None:
    """The console's host is in the Internet: what a proxy passes on comes from there, trusted or not."""
    proxied = settings.model_copy(update={"trusted_proxies": ("10.0.0.7",)})
    async with open_house(proxied, database) as house:
        asked = ("GET /metrics HTTP/1.1", "Host: console.localhost")
        assert " 200 " in (await raw(house, *asked)).splitlines()[0]
        for passed_on in ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https", "Forwarded: for=1.2.3.4"):
            answer = await raw(house, *asked, passed_on)
            assert " 200 " not in answer.splitlines()[0] and "python_info" not in answer, passed_on
        for address, is_told in (
            ("203.0.113.9", False),
            ("10.0.0.8", False),
            ("10.0.0.7", True),
            ("::1", True),
        ):
            asking = {"client": (address, 1), "headers": []}
            assert house.door._asks_from_within(asking) is is_told, address


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; worker-src 'self'; manifest-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


async def test_every_page_carries_the_strict_policy(house: House, tenant_id: UUID) -> None:
    staff, admin = await house.staff("nordlicht", tenant_id), await house.admin()
    pages = [
        (staff, "/team"), (staff, "/settings"), (staff, "/api-keys"), (staff, "/audit"), (staff, "/nothing"),
        (staff, "/api/docs"), (admin, "/"), (admin, "/unclaimed-stations"), (admin, "/mails"), (admin, "/audit"),
        (house.driver("nordlicht"), "/"), (house.driver("nordlicht"), "/c/NOTHING"),
        (house.portal("nordlicht"), "/login"), (house.console(), "/login"),
    ]  # fmt: skip
    for visitor, path in pages:
        answer = await visitor.get(path)
        assert answer.headers["content-type"].startswith("text/html"), path
        # A driver's form ends at the payment page, an operator's at the onboarding, and nowhere else.
        leads_away = "nordlicht" in visitor.host
        provider = f" {house.settings.url_of('sandbox.localhost', '')}" if leads_away else ""
        policy = POLICY.replace("form-action 'self'", f"form-action 'self'{provider}")
        assert answer.headers["content-security-policy"] == policy, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        # Nothing inline that the policy would stop.
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", answer.text), path
        assert answer.status_code == (404 if "othing" in path.lower() else 200), path


async def test_a_brands_stylesheet_is_its_own_and_never_changes(house: House, tenant_id: UUID) -> None:
    await found_brand(house.database, "solmark", "selim@solmark.example")
    visitor = house.portal("nordlicht")
    css_url = re.search(r'href="(/brand/[0-9a-f]+\.css)"', (await visitor.get("/login")).text).group(1)
    css = await visitor.get(css_url)
    assert css.headers["content-type"].startswith("text/css") and "immutable" in css.headers["cache-control"]
    assert "--primary:" in css.text
    assert (await visitor.get("/brand/0000000000000000.css")).status_code == 404


async def test_an_answer_names_its_request(house: House, tenant_id: UUID) -> None:
    answer = await house.portal("nordlicht").get("/nothing", headers={"X-Request-ID": "abcdef-123456"})
    assert answer.headers["x-request-id"] == "abcdef-123456" and "abcdef-123456" in answer.text
    forged = await house.portal("nordlicht").get("/nothing", headers={"X-Request-ID": "<script>"})
    assert re.fullmatch(r"[0-9a-f]{16}", forged.headers["x-request-id"])


async def test_static_files_are_immutable_and_answer_ranges(house: House, tenant_id: UUID) -> None:
    page = (await house.portal("nordlicht").get("/login")).text
    url = re.search(r'href="(/static/app\.[0-9a-f]+\.css)"', page).group(1)
    answer = await house.portal("nordlicht").get(url)
    assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    part = await house.portal("nordlicht").get(
        url, headers={"Range": "bytes=0-9", "Accept-Encoding": "identity"}
    )
    assert (part.status_code, len(part.content)) == (206, 10)
    tag = answer.headers.get("etag")
    again = await house.portal("nordlicht").get(url, headers={"If-None-Match": tag} if tag else {
        "If-Modified-Since": answer.headers["last-modified"],
    })  # fmt: skip
    assert again.status_code == 304


async def test_the_start_page_is_for_the_demo_only(
    settings: Settings, database: Database, house: House
) -> None:
    assert (await house.at("localhost").get("/")).status_code == 404
    async with open_house(settings.model_copy(update={"demo": True}), database) as demo:
        await found_brand(database)
        visitor = demo.at("localhost")
        page = await visitor.get("/")
        assert page.status_code == 200 and "anke@nordlicht-laden.example" in page.text
        assert "form-action 'self' http://*.localhost:8000;" in page.headers["content-security-policy"]
        for data, host in (
            ({"tenant": "nordlicht", "email": "anke@nordlicht-laden.example"}, "portal-nordlicht.localhost"),
            ({"tenant": "", "email": "admin@livery.example"}, "console.localhost"),
        ):
            link = (await visitor.send("POST", "/demo-logins", data=data)).headers["location"]
            assert link.startswith(f"http://{host}:8000/login/")
            person = demo.at(host)
            assert (await person.send("POST", "/login/" + link.rpartition("/")[2])).status_code == 303
        foreign = {"Origin": "http://evil.example"}
        assert (await visitor.send("POST", "/demo-logins", data=data, headers=foreign)).status_code == 403
    production = settings.model_copy(update={"demo": True, "env": "production"})
    async with open_house(production, database) as live:
        assert (await live.at("localhost").get("/")).status_code == 404
