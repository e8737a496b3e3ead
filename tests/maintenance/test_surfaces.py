"""Maintenance on its pages and over REST: what staff press, what they read, who may."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.identity import service as identity
from app.kernel.ids import public_id
from app.kernel.settings import Settings
from app.maintenance import certificates, jobs, logs, security
from app.maintenance.models import StationLog
from app.stations import service as stations
from app.stations.models import StationCommand
from tenants.database import Database
from tests.conformance.trust import csr, ec_key
from tests.web import CLI, House, Visitor, found_brand, open_house

pytestmark = pytest.mark.anyio
FILE = "https://firmware.wattwerk.example/fjord-2.4.bin"


class Shop:
    """A brand with one station that has connected once, its owner logged in, and a key for REST."""

    def __init__(
        self, house: House, tenant_id: UUID, station_id: UUID, owner: Visitor, api: Visitor, key: str
    ) -> None:
        self.house, self.tenant_id, self.station_id = house, tenant_id, station_id
        self.owner, self.api, self.path = owner, api, f"/stations/{key}"

    async def press(self, page: str, deed: str, **data: str) -> str:
        """The page's form, sent; the page that follows."""
        await self.owner.open(page)
        answer = await self.owner.post(deed, data)
        assert answer.status_code in (303, 409, 422), answer.text
        return answer.text if answer.status_code != 303 else (await self.owner.get(page)).text

    async def rest(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.api.send(method, f"/api/v1{path}", **({"json": body} if body is not None else {}))
        return answer.status_code, answer.json()


@pytest.fixture
async def shop(settings: Settings, database: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    database.settings = settings.model_copy(update={"data_dir": tmp_path})
    tenant_id = await found_brand(database)
    async with database.scope(tenant_id, CLI) as scope:
        made = await stations.create_station(scope, identity="CP1")
        station_id = made.station.id
        await stations.connection_opened(scope, station_id, node="n", ocpp_version="ocpp2.0.1", remote="r")
        await identity.invite_staff(scope, email="v@nordlicht.example", name="V", role="viewer")
        key = public_id("charging_station", station_id)
    async with open_house(database.settings, database) as house:
        owner = await house.staff("nordlicht", tenant_id)
        api = await house.api("nordlicht", tenant_id)
        yield Shop(house, tenant_id, station_id, owner, api, key)
        await api.client.aclose()


async def test_rules_are_set_and_firmware_follows_them(shop: Shop):
    page = await shop.press(f"{shop.path}/firmware", f"{shop.path}/firmware", location=FILE)
    assert "Say first which hosts" in page
    rules = {"minimum_profile": "2", "organisation": "", "firmware_hosts": ".wattwerk.example"}
    page = await shop.press("/security", "/security", **rules)
    assert "1 of 1 stations are below your minimum" in page
    page = await shop.press("/security", "/security", **rules | {"firmware_hosts": "10.0.0.1"})
    assert "is no host name" in page
    page = await shop.press(
        f"{shop.path}/firmware", f"{shop.path}/firmware", location="https://evil.example/x"
    )
    assert "Firmware may come from .wattwerk.example" in page
    page = await shop.press(f"{shop.path}/firmware", f"{shop.path}/firmware", location=FILE)
    assert "fjord-2.4.bin" in page and "Asked" in page
    assert "fjord-2.4.bin" in (await shop.owner.get("/firmware")).text

    status, made = await shop.rest("POST", f"{shop.path}/firmware-updates", {"location": FILE})
    assert (status, made["status"], made["is_signed"]) == (202, "Requested", False)
    status, again = await shop.rest("GET", f"/firmware-updates/{made['id']}")
    assert (status, again["history"][0]["status"]) == (200, "Requested")
    status, listed = await shop.rest("GET", f"/firmware-updates?station_id={made['station_id']}")
    assert listed["data"][0]["id"] == made["id"] and len(listed["data"]) == 2
    status, fault = await shop.rest(
        "POST", f"{shop.path}/firmware-updates", {"location": "http://10.0.0.1/x"}
    )
    assert (status, fault["errors"][0]["field"]) == (422, "location")


async def test_security_events_are_listed_for_a_station_and_for_all(shop: Shop):
    async with shop.house.database.scope(shop.tenant_id, CLI) as scope:
        for kind in ("TamperDetectionActivated", "SettingSystemTime"):
            await security.record_event(scope, shop.station_id, kind, "<b>door</b>", scope.now, scope.now)
    for path in ("/security", f"{shop.path}/security"):
        page = (await shop.owner.get(path)).text
        assert "TamperDetectionActivated" in page and "SettingSystemTime" in page
        assert "<b>door</b>" not in page and "&lt;b&gt;door" in page
    grave = (await shop.owner.get("/security?grave=1")).text
    assert "TamperDetectionActivated" in grave and "SettingSystemTime" not in grave
    _status, listed = await shop.rest("GET", "/security-events?is_grave=true")
    assert [one["type"] for one in listed["data"]] == ["TamperDetectionActivated"]


async def test_a_certificate_is_shown_and_revoked_and_what_was_refused_says_why(shop: Shop):
    async with shop.house.database.scope(shop.tenant_id, CLI) as scope:
        assert await certificates.signing_requested(scope, shop.station_id, csr(ec_key(), "CP1"), "Combined")
        assert not await certificates.signing_requested(
            scope, shop.station_id, csr(ec_key(), "X"), "Combined"
        )
        row = (await certificates.station_certificates(scope, shop.station_id))[1]
    await jobs.issue_certificate(shop.house.database, shop.tenant_id, str(row.id))
    page = (await shop.owner.get(f"{shop.path}/security")).text
    assert "On its way" in page and "Its common name is not the station" in page
    status, listed = await shop.rest("GET", f"{shop.path}/certificates")
    shown = listed["data"][1]
    assert (status, shown["status"]) == (200, "issued") and "BEGIN CERTIFICATE" in shown["certificate"]
    page = await shop.press(f"{shop.path}/security", f"{shop.path}/certificates/{shown['id']}/revocation")
    assert "Revoked" in page
    status, fault = await shop.rest("POST", f"/station-certificates/{shown['id']}/revocation", {})
    assert (status, fault["code"]) == (409, "certificate_revoked")
    page = await shop.press(
        f"{shop.path}/security", f"{shop.path}/certificate-requests", kind="V2GCertificate"
    )
    async with shop.house.database.scope(shop.tenant_id, CLI) as scope:
        rows = await all_of(scope, StationCommand)
    assert rows[-1].payload == {"requestedMessage": "SignV2GCertificate"}


async def test_a_new_key_waits_for_the_station_and_can_be_given_up(shop: Shop):
    page = await shop.press(f"{shop.path}/security", f"{shop.path}/key-rotations")
    assert "New key" in page and "the old holds too" in page
    status, fault = await shop.rest("POST", f"{shop.path}/key-rotations", {})
    assert (status, fault["code"]) == (409, "change_under_way")
    _status, listed = await shop.rest("GET", f"{shop.path}/security-changes")
    change = listed["data"][0]
    assert (change["kind"], change["status"]) == ("key", "requested")
    page = await shop.press(
        f"{shop.path}/security", f"{shop.path}/security-changes/{change['id']}/cancellation"
    )
    assert "Given up" in page
    status, fault = await shop.rest("POST", f"{shop.path}/profile-upgrades", {"security_profile": 3})
    assert (status, fault["code"]) == (409, "no_certificate")


async def test_a_log_is_downloaded_as_a_file_by_those_who_may(shop: Shop):
    await shop.press(f"{shop.path}/diagnostics", f"{shop.path}/diagnostics", kind="SecurityLog")
    async with shop.house.database.scope(shop.tenant_id, CLI) as scope:
        (row,) = await all_of(scope, StationLog)
        row.uploaded_at, row.size_bytes, row.file_name = scope.now, 8, 'a"\u00e4.html'
    path = logs.path_of(shop.house.database.settings, shop.tenant_id, row.id)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<script>")
    _status, listed = await shop.rest("GET", f"{shop.path}/logs")
    link = f"{shop.path}/diagnostics/{listed['data'][0]['id']}"
    assert link in (await shop.owner.get(f"{shop.path}/diagnostics")).text
    answer = await shop.owner.get(link)
    assert answer.content == b"<script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%22%C3%A4.html"
    viewer = await shop.house.staff("nordlicht", shop.tenant_id, "v@nordlicht.example")
    assert (await viewer.get(f"{shop.path}/diagnostics")).status_code == 200
    assert (await viewer.get(link)).status_code == 403


async def all_of(scope: Any, model: Any) -> list[Any]:
    return list((await scope.db.execute(select(model).order_by(model.id))).scalars())
