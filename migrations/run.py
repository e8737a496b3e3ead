"""Bring a database to head, and ask where it stands. Forward only."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from app.kernel.errors import Refused


def config(url: str) -> Config:
    cfg = Config()
    cfg.set_main_option("script_location", str(Path(__file__).parent))
    cfg.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return cfg


def head() -> str:
    return ScriptDirectory.from_config(config("")).get_current_head() or ""


def current(url: str) -> str | None:
    """The revision the database stands at; None when it is empty."""
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "alembic_version", "version_table_schema": "alembic"}
        )
        revision = context.get_current_revision()
    engine.dispose()
    return revision


def upgrade(url: str, progress: Callable[[str], None] = lambda _line: None, to: str = "head") -> str:
    """To head, or `to` a revision before it, as role owner. Refuses a database that is newer than this program."""
    cfg = config(url)
    known = {revision.revision for revision in ScriptDirectory.from_config(cfg).walk_revisions()}
    _version_schema(url)
    at = current(url)
    if at is not None and at not in known:
        raise Refused(
            "database_is_newer", f"The database stands at {at}, which this version of Livery does not know."
        )
    if at != head():
        progress(f"migrating the database from {at or 'empty'} to {head()}")
        command.upgrade(cfg, to)
    return head()


def _version_schema(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("set role owner"))
        connection.execute(text("create schema if not exists alembic"))
        connection.execute(text("grant usage on schema alembic to app_rw, platform_rw, queue_rw"))
        connection.execute(
            text("alter default privileges in schema alembic grant select on tables to app_rw, platform_rw")
        )
    engine.dispose()
