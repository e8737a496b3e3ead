"""What every test may ask for: a real PostgreSQL, a real Valkey, a database of its own, a real browser.

Each xdist worker starts its own servers (0.7 s) on sockets in a folder under /tmp; a test's database is a copy of a
migrated template (some 50 ms).
"""

import json
import os
import random
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.embedded import EmbeddedServers
from app.kernel.settings import Settings, load_settings
from migrations.bootstrap import bootstrap
from migrations.run import upgrade

hypothesis.settings.register_profile("livery", deadline=None)  # a time is no promise on a busy machine
hypothesis.settings.load_profile("livery")

ROOT = Path(__file__).parent.parent
TEMPLATE = "livery_template"
CHROMIUM = os.environ.get("LIVERY_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
NOT_RUN = "no Chromium on this machine"


PLENTY = 4 * 2**30  # bytes for one worker's databases


# -- servers and databases ---------------------------------------------------------------------------------------------


def _place() -> str:
    """Memory where there is plenty: each test copies a database of a thousand files, and disks look long for room."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder is made for this run
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > PLENTY:
        return str(memory)
    return "/tmp"


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    folder = Path(tempfile.mkdtemp(prefix="livery-test-", dir=_place()))
    with EmbeddedServers(folder, fsync=False, progress=lambda _line: None) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    name: str
    app: str
    platform: str
    queue: str
    migrate: str
    superuser: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.app,
            "DATABASE_URL_PLATFORM": self.platform,
            "DATABASE_URL_QUEUE": self.queue,
            "DATABASE_URL_MIGRATE": self.migrate,
        }


class Databases:
    """Copies of one migrated template. The roles and their passwords are the cluster's, the same in every copy."""

    def __init__(self, servers: EmbeddedServers) -> None:
        self._servers = servers
        superuser = servers.urls["DATABASE_URL_OWNER_BOOTSTRAP"]
        bootstrap(superuser, servers.passwords, database=TEMPLATE)
        upgrade(self.urls(TEMPLATE).migrate)
        self._connection = psycopg.connect(superuser.replace("+psycopg", ""), autocommit=True)
        self._role_settings = self._connection.execute(
            "select r.rolname, c from pg_db_role_setting s join pg_roles r on r.oid = s.setrole"
            " join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) c where d.datname = %s",
            [TEMPLATE],
        ).fetchall()

    def urls(self, name: str) -> DatabaseUrls:
        def of(role: str) -> str:
            url = make_url(self._servers.urls[role]).set(database=name)
            return url.render_as_string(hide_password=False)

        return DatabaseUrls(
            name=name, app=of("DATABASE_URL"), platform=of("DATABASE_URL_PLATFORM"), queue=of("DATABASE_URL_QUEUE"),
            migrate=of("DATABASE_URL_MIGRATE"), superuser=of("DATABASE_URL_OWNER_BOOTSTRAP"),
        )  # fmt: skip

    def make(self) -> DatabaseUrls:
        name = f"t_{uuid.uuid4().hex[:12]}"
        self._run(f"create database {name} template {TEMPLATE} owner owner strategy file_copy")
        # A copy takes neither the grants on the database nor its roles' settings along.
        self._run(f"revoke all on database {name} from public")
        self._run(f"grant connect on database {name} to migrate, app_rw, platform_rw, queue_rw, backup")
        for role, setting in self._role_settings:
            key, _, value = setting.partition("=")
            self._run(f"alter role {role} in database {name} set {key} = {value}")
        return self.urls(name)

    def drop(self, name: str) -> None:
        self._run(f"drop database if exists {name} with (force)")

    def _run(self, statement: str) -> None:
        self._connection.execute(statement.encode())  # bytes: the names in it are ours

    @contextmanager
    def copy(self) -> Iterator[DatabaseUrls]:
        urls = self.make()
        try:
            yield urls
        finally:
            self.drop(urls.name)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="session")
def databases(servers: EmbeddedServers) -> Iterator[Databases]:
    made = Databases(servers)
    yield made
    made.close()


@pytest.fixture
def database_urls(databases: Databases) -> Iterator[DatabaseUrls]:
    """A migrated database of this test's own."""
    with databases.copy() as urls:
        yield urls


@pytest.fixture
def redis_url(servers: EmbeddedServers) -> str:
    """The worker's Valkey, emptied."""
    from redis import Redis

    url = servers.urls["REDIS_URL"]
    with Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def settings(database_urls: DatabaseUrls, redis_url: str) -> Settings:
    return load_settings(settings_environment(database_urls, redis_url))


def settings_environment(database_urls: DatabaseUrls, redis_url: str) -> dict[str, str]:
    return database_urls.environment | {
        "REDIS_URL": redis_url,
        "LIVERY_SECRET_KEY": "1:" + "0123456789abcdef" * 4,
    }


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Any]:
    """tenants.database.Database on this test's own copy, with Redis."""
    from tenants.database import Database
    from tenants.redis import Redis

    redis = Redis(settings.redis_url or "")
    opened = Database(settings, redis=redis)
    yield opened
    await opened.close()
    await redis.close()


# -- async and browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Any]:
    """One Chromium per worker; take `await browser.new_context()` for a person of your own. Mark the test `browser`."""
    from playwright.async_api import async_playwright

    if CHROMIUM is None:
        pytest.skip(NOT_RUN)
    arguments = ["--host-resolver-rules=MAP *.example 127.0.0.1"]  # brands' own domains, in no DNS
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        await chromium.close()


# What takes minutes begins first, or one process works on it alone at the end.
LONG = (
    "test_pages.py",
    "test_http.py",
    "test_hostile_input.py",
    "test_driver_pays.py",
    "test_up.py",
    "test_kills.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    for item in items:
        if CHROMIUM is None and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=NOT_RUN))


def _browser_tests_not_run(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    return sum(1 for report in skipped if "browser" in report.keywords and NOT_RUN in str(report.longrepr))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    count = _browser_tests_not_run(config)
    if count:
        terminalreporter.write_line(f"{count} browser tests not run: apt-get install chromium", yellow=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a browser test that is not run is a failure; elsewhere it is said and counted."""
    if os.environ.get("CI", "").lower() in ("1", "true") and _browser_tests_not_run(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# -- proofs and vectors ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proof:
    """How much of a long proof to run, from which seed, and where its figures go."""

    full: bool
    seed: int

    def share(self, count: int, part: int = 10) -> int:
        return count if self.full else max(1, count // part)

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}:{name}")

    def write(self, name: str, figures: dict[str, Any]) -> None:
        """Only a full run leaves its figures in proof/."""
        print(f"\nproof {name}: {json.dumps(figures, default=str)}")
        if self.full:
            folder = ROOT / "proof"
            folder.mkdir(exist_ok=True)
            text = json.dumps({"seed": self.seed, **figures}, indent=1, default=str)
            (folder / f"{name}.json").write_text(text + "\n")


@pytest.fixture(scope="session")
def proof() -> Proof:
    return Proof(
        os.environ.get("LIVERY_PROOF") == "full", int(os.environ.get("LIVERY_PROOF_SEED", "20261123"))
    )


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Test data that is not part of the repository: LIVERY_VECTORS, or beside the checkout."""
    folder = Path(os.environ.get("LIVERY_VECTORS") or ROOT.parent / "shared" / "vectors")
    if not folder.is_dir():
        pytest.skip(f"no test vectors at {folder}")
    return folder
