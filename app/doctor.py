"""`livery doctor`: is this installation fit to run? One finding per question, each with what to do about it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app.kernel.settings import Settings
from tenants import probes
from tenants.database import Database
from tenants.redis import Redis

POSTGRES_MAJOR = 18
ANSWER_S = 3


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    well: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def examine(
    settings: Settings, *, revision_at: Callable[[str], str | None], revision_wanted: str
) -> list[Finding]:
    database = Database(settings, pool_size=2)
    try:
        return [
            _configuration(settings),
            _keys(settings),
            await _asked("database", lambda: _database(database)),
            await _asked("roles", lambda: _roles(database)),
            await _asked("isolation", lambda: _isolation(database)),
            await _asked("migrations", lambda: _migrations(settings, revision_at, revision_wanted)),
            await _redis(settings),
            await _port("web port", settings.host, settings.web_port, b"HTTP/1.1 200"),
            await _port("ocpp port", settings.host, settings.ocpp_port, b"HTTP/1.1 "),
        ]
    finally:
        await database.close()


async def _asked(name: str, question: Callable[[], Awaitable[Finding]]) -> Finding:
    """A database that cannot be asked is a finding, not a traceback."""
    try:
        return await question()
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return Finding(name, False, f"the database cannot be asked: {cause}")


def _configuration(settings: Settings) -> Finding:
    missing = [
        name
        for name, value in (
            ("DATABASE_URL_PLATFORM", settings.database_url_platform),
            ("DATABASE_URL_QUEUE", settings.database_url_queue),
            ("REDIS_URL", settings.redis_url),
        )
        if not value
    ]
    if missing:
        return Finding("configuration", False, f"not set: {', '.join(missing)}")
    return Finding("configuration", True, settings.env)


def _keys(settings: Settings) -> Finding:
    ids = list(settings.secret_keys)
    if not ids:
        return Finding("keys", False, "LIVERY_SECRET_KEY is not set: nothing secret can be stored")
    return Finding("keys", True, f"newest {ids[0]}, {len(ids)} in all")


async def _database(database: Database) -> Finding:
    async with database.anonymous() as session:
        number = int((await session.scalar(select(func.current_setting("server_version_num")))) or 0)
    major = number // 10_000
    if major != POSTGRES_MAJOR:
        return Finding("database", False, f"PostgreSQL {major}; Livery needs {POSTGRES_MAJOR}")
    return Finding("database", True, f"PostgreSQL {major}.{number % 10_000}")


async def _roles(database: Database) -> Finding:
    faults = await database.check_roles()
    return Finding("roles", not faults, "; ".join(faults) or "row-level security binds them")


async def _isolation(database: Database) -> Finding:
    """Rules and probes on the database as it is: what a hand changed after the migrations shows here."""
    report = await probes.examine(database)
    faults = report.faults
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    well = (
        f"{report.rules} rules hold, {report.probes} probes of {len(report.relations)} relations found no way"
    )
    return Finding("isolation", not faults, "; ".join(faults[:3]) + more or well)


async def _migrations(settings: Settings, revision_at: Callable[[str], str | None], wanted: str) -> Finding:
    at = await asyncio.to_thread(revision_at, settings.database_url or "")
    if at != wanted:
        return Finding("migrations", False, f"at {at or 'nothing'}, wanted {wanted}: run `livery migrate`")
    return Finding("migrations", True, f"at {at}")


async def _redis(settings: Settings) -> Finding:
    if not settings.redis_url:
        return Finding("redis", False, "REDIS_URL is not set")
    redis = Redis(settings.redis_url)
    try:
        answers = await redis.ping()
    finally:
        await redis.close()
    return Finding("redis", answers, "answers" if answers else "does not answer")


async def _port(name: str, host: str, port: int, expected: bytes) -> Finding:
    """Free, or taken by something that speaks HTTP as our processes do."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1" if host == "0.0.0.0" else host, port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            line = await reader.readline()
            writer.close()
    except ConnectionRefusedError:
        return Finding(name, True, f"{port} is free")
    except (TimeoutError, OSError) as error:
        return Finding(
            name, False, f"{port} is taken by something that does not answer ({type(error).__name__})"
        )
    if line.startswith(expected):
        return Finding(name, True, f"{port} answers")
    return Finding(name, False, f"{port} is taken by something that is not Livery")
