"""Logs: asked for, uploaded to a one-time address of ours, downloaded by staff (2.0.1 N01; 1.6)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from app.kernel.settings import Settings
from app.maintenance import jobs, logs
from app.maintenance.models import StationLog
from tenants.database import Database
from tenants.models import TenantRoute
from tenants.scope import Actor
from tests.cast import STAFF
from tests.conformance.conftest import Station16, Station201, Yard, case, rows
from tests.conformance.trust import by_verb, manned, one
from tests.web import House, open_house

pytestmark = pytest.mark.anyio
CONTENT = b"\x1f\x8b" + b"log " * 50_000


class Logging:
    """A station that uploads what it is asked for, over HTTP as any would."""

    def __init__(self, house: House, box: Any, *, report: str, is_named: bool) -> None:
        self.house, self.box, self.report, self.is_named = house, box, report, is_named

    async def tell(self, status: str, request_id: int) -> None:
        more = {"requestId": request_id} if self.is_named else {}
        assert await self.box.say(self.report, {"status": status, **more}) == {}

    async def put(self, location: str, content: Any = CONTENT, *, method: str = "PUT", path: str = "") -> int:
        parts = urlsplit(location)
        async with httpx2.AsyncClient() as client:
            url = f"http://127.0.0.1:{self.house.port}{parts.path}{path}"
            answer = await client.request(method, url, content=content, headers={"Host": parts.netloc})
        return answer.status_code


@asynccontextmanager
async def at_home(settings: Settings, database: Database, folder: Path) -> AsyncIterator[tuple[Yard, House]]:
    """Gateway, worker and web, with a data folder of their own."""
    database.settings = settings.model_copy(update={"data_dir": folder})
    async with manned(database.settings, database) as yard:
        async with database.platform_scope(Actor.cli(), "test") as scope:
            for cast in (yard.nordlicht, yard.solmark):
                host = database.settings.host_of("portal", cast.company.slug)
                scope.db.add(TenantRoute(kind="host", key=host, tenant_id=cast.tenant_id, surface="portal"))
        async with open_house(database.settings, database) as house:
            yield yard, house


async def settled(yard: Yard, cast: Any, made: StationLog, status: str) -> StationLog:
    return await one(yard, cast, StationLog, lambda row: row.id == made.id and row.status == status)


@case("1.6", "TC_045_1_CSMS", "TC_045_2_CSMS", "TC_079_CSMS")
@case("2.0.1", "TC_N_25_CSMS", "TC_N_35_CSMS", "TC_N_34_CSMS")
async def test_a_log_is_asked_for_uploaded_once_and_downloaded_by_staff(
    settings: Settings, database: Database, tmp_path: Path
):
    async with at_home(settings, database, tmp_path) as (yard, house):
        for cast, kind, log_kind, action, report, is_named in (
            (
                yard.nordlicht,
                Station16,
                "DiagnosticsLog",
                "GetDiagnostics",
                "DiagnosticsStatusNotification",
                False,
            ),
            (yard.nordlicht, Station16, "SecurityLog", "GetLog", "LogStatusNotification", True),
            (yard.solmark, Station201, "DiagnosticsLog", "GetLog", "LogStatusNotification", True),
            (yard.solmark, Station201, "SecurityLog", "GetLog", "LogStatusNotification", True),
        ):
            box = yard.station(cast, kind)
            await box.connect()
            await box.boot()  # type: ignore[attr-defined]
            station = Logging(house, box, report=report, is_named=is_named)
            named = (
                {"fileName": "diag.gz"}
                if action == "GetDiagnostics"
                else {"status": "Accepted", "filename": "diag.gz"}
            )
            box.answers[action] = named
            made = await by_verb(yard, cast, logs.request_log, cast.station_id, log_kind)
            await settled(yard, cast, made, "Accepted")
            asked = box.asked[-1][1]
            location = asked["location"] if action == "GetDiagnostics" else asked["log"]["remoteLocation"]
            if action == "GetLog":
                assert (asked["requestId"], asked["logType"]) == (made.request_id, log_kind)
            await station.tell("Uploading", made.request_id)
            assert await station.put(location, method="GET") == 405
            assert await station.put(location, path="/diag.gz" if is_named else "") == 201
            await station.tell("Uploaded", made.request_id)
            row = await settled(yard, cast, made, "Uploaded")
            assert (row.file_name, row.size_bytes, row.token_digest) == ("diag.gz", len(CONTENT), None)
            assert [entry["status"] for entry in row.history] == [
                "Requested",
                "Accepted",
                "Uploading",
                "Uploaded",
            ]
            assert await station.put(location) == 404, "an address opens once"
            path = logs.path_of(database.settings, cast.tenant_id, row.id)
            assert path.read_bytes() == CONTENT and path.stat().st_mode & 0o777 == 0o600
            # It failed, or the station would not.
            failed = await by_verb(yard, cast, logs.request_log, cast.station_id, log_kind)
            await settled(yard, cast, failed, "Accepted")
            await station.tell("Uploading", failed.request_id)
            await station.tell(
                "UploadFailed" if action == "GetDiagnostics" else "UploadFailure", failed.request_id
            )
            await settled(yard, cast, failed, "UploadFailure")
            if action == "GetLog":
                box.answers[action] = {"status": "Rejected"}
                refused = await by_verb(yard, cast, logs.request_log, cast.station_id, log_kind)
                await settled(yard, cast, refused, "Rejected")
                asked = box.asked[-1][1]
                assert await station.put(asked["log"]["remoteLocation"]) == 404
            await box.close()


@case("2.0.1", "TC_N_36_CSMS")
async def test_a_second_request_takes_the_first_ones_place(
    settings: Settings, database: Database, tmp_path: Path
):
    async with at_home(settings, database, tmp_path) as (yard, house):
        cast = yard.nordlicht
        box = yard.station(cast, Station201)
        await box.connect()
        await box.boot()  # type: ignore[attr-defined]
        station = Logging(house, box, report="LogStatusNotification", is_named=True)
        box.answers["GetLog"] = {"status": "Accepted", "filename": "one.gz"}
        first = await by_verb(yard, cast, logs.request_log, cast.station_id)
        await settled(yard, cast, first, "Accepted")
        old = box.asked[-1][1]["log"]["remoteLocation"]
        await station.tell("Uploading", first.request_id)
        box.answers["GetLog"] = {"status": "AcceptedCanceled", "filename": "two.gz"}
        second = await by_verb(yard, cast, logs.request_log, cast.station_id)
        await settled(yard, cast, second, "Accepted")
        await settled(yard, cast, first, "Canceled")
        await station.tell("AcceptedCanceled", first.request_id)
        assert await station.put(old) == 404
        await station.tell("Uploading", second.request_id)
        assert await station.put(box.asked[-1][1]["log"]["remoteLocation"]) == 201
        await station.tell("Uploaded", second.request_id)
        assert (await settled(yard, cast, second, "Uploaded")).file_name == "two.gz"
        assert (await settled(yard, cast, first, "Canceled")).uploaded_at is None
        await box.close()


async def test_an_upload_is_bounded_belongs_to_its_brand_and_goes_after_a_month(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """ocpp.md 2, row 59."""
    monkeypatch.setattr(logs, "MAX_BYTES", 100_000)
    async with at_home(settings, database, tmp_path) as (yard, house):
        cast = yard.nordlicht
        box = yard.station(cast, Station16)
        box.answers["GetDiagnostics"] = {"fileName": "../../etc/cron.d/evil"}
        await box.connect()
        await box.boot()  # type: ignore[attr-defined]
        station = Logging(house, box, report="DiagnosticsStatusNotification", is_named=False)
        made = await by_verb(yard, cast, logs.request_log, cast.station_id)
        row = await settled(yard, cast, made, "Accepted")
        assert row.file_name == "evil"
        location = box.asked[-1][1]["location"]
        assert await station.put(location, b"x" * 100_001) == 413
        assert await station.put(location, b"") == 404
        assert await station.put(location.replace("portal-nordlicht", "portal-solmark")) == 404
        assert await station.put(location + "x") == 404
        assert await station.put(location, path="/..%2f..%2fevil") in (400, 404)
        folder = logs.path_of(database.settings, cast.tenant_id, made.id).parent
        assert list(folder.iterdir()) == []
        assert await station.put(location, b"x" * 100_000, method="POST") == 201
        (path,) = folder.iterdir()
        assert path.name == str(made.id)
        async with database.scope(cast.tenant_id, STAFF) as scope:
            kept = await scope.db.get_one(StationLog, (cast.tenant_id, made.id))
            kept.uploaded_at = scope.now - logs.KEPT * 2
        await jobs.tidy(database, cast.tenant_id)
        assert not path.exists()
        (kept,) = await rows(yard, cast, StationLog)
        assert kept.size_bytes is None and kept.uploaded_at is not None
        await box.close()
