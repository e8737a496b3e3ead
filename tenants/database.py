"""Engines and roles, and the one place where a transaction is told which tenant it serves.

`Database.scope(...)` is the only way to a database session. Nothing else in the code base imports psycopg or makes an
engine (a rule that CI holds).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Row, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from app.kernel.clock import utcnow
from app.kernel.settings import Settings
from app.kernel.tracing import span
from tenants.redis import Redis
from tenants.scope import Actor, PlatformScope, Scope


@event.listens_for(Session, "after_begin")
def _set_tenant(session: Session, transaction: Any, connection: Any) -> None:
    """Transaction-local, so that it cannot survive into the next user of a pooled connection."""
    if not transaction.nested:
        tenant_id = session.info.get("tenant_id")
        connection.exec_driver_sql(
            "select set_config('livery.tenant_id', %s, true)", (str(tenant_id) if tenant_id else "",)
        )


def _engine(url: str, pool_size: int) -> AsyncEngine:
    """The connection that was used last is used next: few that know their plans, instead of many that lost them."""
    return create_async_engine(
        url, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True, pool_recycle=1800, pool_use_lifo=True,
        connect_args={"prepare_threshold": 5},
    )  # fmt: skip


class Database:
    """The two doors: `app_rw` for tenants' rows under RLS, `platform_rw` for schema `platform`."""

    def __init__(self, settings: Settings, *, redis: Redis | None = None, pool_size: int = 5) -> None:
        if not settings.database_url:
            raise RuntimeError("DATABASE_URL is not set and no embedded server was found")
        self.settings = settings
        self.redis = redis
        self._app = _engine(settings.database_url, pool_size)
        self._calls = self._app.execution_options(isolation_level="AUTOCOMMIT")  # the same pool
        url = settings.database_url_platform
        self._platform = _engine(url, 2) if url else None

    async def close(self) -> None:
        await self._app.dispose()
        if self._platform is not None:
            await self._platform.dispose()

    @asynccontextmanager
    async def scope(
        self, tenant_id: UUID, actor: Actor, *, now: datetime | None = None, redis: Redis | None = None
    ) -> AsyncIterator[Scope]:
        """One unit of work: commits when the block ends well, rolls back when it raises, then runs `after_commit`."""
        session = AsyncSession(self._app, expire_on_commit=False, info={"tenant_id": tenant_id})
        scope = Scope(
            tenant_id=tenant_id, actor=actor, db=session, now=now or utcnow(), settings=self.settings,
            redis=redis or self.redis,
        )  # fmt: skip
        try:
            yield scope
            with span("commit", tenant=tenant_id):
                await session.commit()
        except BaseException:
            await session.rollback()
            raise
        finally:
            await session.close()
        await scope.run_after_commit()

    @asynccontextmanager
    async def anonymous(self) -> AsyncIterator[AsyncSession]:
        """For the exact-match resolvers, and functions that set tenants themselves: here none is set, so every
        tenant-owned table is empty."""
        async with AsyncSession(self._app, info={"tenant_id": None}) as session, session.begin():
            yield session

    async def call_for_many(
        self, function: str, told: Iterable[tuple[UUID, UUID, dict[str, Any]]], **more: Any
    ) -> Sequence[Row[Any]]:
        """One transaction of many tenants: (tenant, station, what it said) to a function that sets the tenants one
        after the other (`migrations/sql/reports.sql`). Its rows name the place in `told` as `n`. The call is a
        transaction by itself: what would begin and end one are three ways to the server and back.
        """
        tenants: dict[str, list[dict[str, Any]]] = {}
        order = sorted(enumerate(told), key=lambda one: (one[1][0], one[1][1]))
        for n, (tenant_id, station_id, said) in order:
            tenants.setdefault(str(tenant_id), []).append({"n": n, "station": str(station_id)} | said)
        batch = json.dumps([{"tenant": tenant, "told": parts} for tenant, parts in tenants.items()])
        names = "".join(f", :{name}" for name in more)
        async with self._calls.connect() as db:
            call = text(f"select * from {function}(cast(:batch as jsonb){names})")  # noqa: S608 - names of our own
            return (await db.execute(call, {"batch": batch, **more})).all()

    @asynccontextmanager
    async def batch(self) -> AsyncIterator["BatchConnection"]:
        """For the gateway's flush alone: each call is a transaction of many tenants, and the function it calls sets
        them one after the other (`migrations/sql/ingest.sql`). Outside of such a call every table is empty here.
        Errors: `BatchError`, also where the server is away.
        """
        url = make_url(self.settings.database_url or "").set(drivername="postgresql")
        try:
            connection = await psycopg.AsyncConnection.connect(
                url.render_as_string(hide_password=False), autocommit=True
            )
        except psycopg.OperationalError as error:
            raise BatchError(str(error), None) from error
        batch = BatchConnection(connection)
        try:
            yield batch
        finally:
            batch.close()
            await connection.close()

    @asynccontextmanager
    async def platform_login(self) -> AsyncIterator[AsyncSession]:
        """For the console's own login only: admins, their links and sessions, before there is anybody to audit."""
        if self._platform is None:
            raise RuntimeError("DATABASE_URL_PLATFORM is not set")
        async with (
            AsyncSession(self._platform, expire_on_commit=False, info={"tenant_id": None}) as session,
            session.begin(),
        ):
            yield session

    @asynccontextmanager
    async def sandbox(self) -> AsyncIterator[AsyncSession]:
        """Schema `sandbox` only: the payment double's own side, which knows no tenant (isolation.md, exemptions)."""
        if self._platform is None:
            raise RuntimeError("DATABASE_URL_PLATFORM is not set")
        async with (
            AsyncSession(self._platform, expire_on_commit=False, info={"tenant_id": None}) as session,
            session.begin(),
        ):
            yield session

    @asynccontextmanager
    async def platform_scope(
        self, actor: Actor, reason: str, *, tenant_id: UUID | None = None, now: datetime | None = None
    ) -> AsyncIterator[PlatformScope]:
        """A deliberate, audited look at the platform's own rows. `reason` stands in the platform's audit log.

        Tenants' rows are out of this role's reach; with `tenant_id` the block may open `scope.tenant_scope()`, which
        is an ordinary scope of that tenant, and the audit entry names the tenant.
        """
        if not reason.strip():
            raise ValueError("a platform scope needs a reason")
        if self._platform is None:
            raise RuntimeError("DATABASE_URL_PLATFORM is not set")
        async with AsyncSession(self._platform, expire_on_commit=False, info={"tenant_id": None}) as session:
            scope = PlatformScope(
                actor=actor, db=session, now=now or utcnow(), reason=reason, tenant_id=tenant_id,
                settings=self.settings, redis=self.redis, database=self,
            )  # fmt: skip
            async with session.begin():
                await scope.write_audit("platform_scope", {})
                yield scope
        await scope.run_after_commit()

    async def check_roles(self) -> list[str]:
        """Sentences about what is wrong with the roles; empty when RLS binds us."""
        faults = await _role_faults(self._app, "DATABASE_URL")
        if self._platform is not None:
            faults += await _role_faults(self._platform, "DATABASE_URL_PLATFORM")
        return faults

    async def check_fitness(self) -> list[str]:
        """Why this process must not start: roles that could bypass RLS, or no key to protect secrets with."""
        faults = await self.check_roles()
        if not self.settings.secret_keys:
            faults.append("LIVERY_SECRET_KEY is not set: nothing that is stored could be protected")
        return faults


class BatchConnection:
    """One connection that only calls functions, each call committed when it returns.

    Prepared calls of libpq with texts as parameters and results, and a reader that stays with the event loop: what a
    cursor does around each call takes as long as PostgreSQL does for a message. One call at a time.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._libpq, self._loop = connection.pgconn, asyncio.get_running_loop()
        self._socket: int | None = self._libpq.socket
        self._names: dict[str, bytes] = {}
        self._answer: asyncio.Future[PGresult | None] | None = None
        self._result: PGresult | None = None
        self._loop.add_reader(self._socket, self._read)

    async def call(self, statement: str, parameters: Sequence[str]) -> list[tuple[bytes | None, ...]]:
        """`statement` with $1, $2, ...; rows as PostgreSQL writes their values.

        Errors: `BatchError`, with the server's `sqlstate` (None when the connection was lost).
        """
        values = [one.encode() for one in parameters]
        if any(b"\0" in one for one in values):
            raise BatchError("a text holds NUL", "22021")  # where libpq would end it
        if self._socket is None:
            raise BatchError("the connection was lost", None)  # nobody would hear the answer
        try:
            name = self._names.get(statement)
            if name is None:
                name = f"batch{len(self._names)}".encode()
                self._libpq.send_prepare(name, statement.encode())
                await self._answered()
                self._names[statement] = name
            self._libpq.send_query_prepared(name, values)
            result = await self._answered()
        except psycopg.Error as error:
            self.close()
            raise BatchError(str(error), None) from error
        columns = range(result.nfields)
        return [tuple([result.get_value(row, n) for n in columns]) for row in range(result.ntuples)]

    def close(self) -> None:
        """At once where libpq fails: it closes its socket, whose number a station's may have next."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None

    async def _answered(self) -> PGresult:
        self._answer = self._loop.create_future()
        if self._libpq.flush() and self._socket is not None:
            self._loop.add_writer(self._socket, self._write)
        result = await self._answer
        if result is None or result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            sqlstate = result.error_field(DiagnosticField.SQLSTATE) if result else None
            raise BatchError(self._libpq.get_error_message(), sqlstate.decode() if sqlstate else None)
        return result

    def _write(self) -> None:
        """What the socket did not take at once: PostgreSQL reads it all before it answers."""
        try:
            if self._libpq.flush() == 0 and self._socket is not None:
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._lost(error)

    def _read(self) -> None:
        try:
            self._libpq.consume_input()
            while not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is not None:
                    self._result = result
                    continue
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(self._result)
                self._result = None
                return
        except psycopg.Error as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        """Whoever waits is told now, whoever calls next then."""
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class BatchError(Exception):
    def __init__(self, message: str, sqlstate: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


async def _role_faults(engine: AsyncEngine, name: str) -> list[str]:
    query = """
        select r.rolname, r.rolsuper, r.rolbypassrls,
               exists (select from pg_auth_members m where m.member = r.oid) as inherits,
               exists (select from pg_class c where c.relowner = r.oid) as owns
          from pg_roles r where r.rolname = current_user"""
    async with engine.connect() as connection:
        row = (await connection.execute(text(query))).one()
    faults = []
    if row.rolsuper:
        faults.append(f"{name}: role {row.rolname} is a superuser and would bypass row-level security")
    if row.rolbypassrls:
        faults.append(f"{name}: role {row.rolname} has BYPASSRLS and would bypass row-level security")
    if row.inherits:
        faults.append(f"{name}: role {row.rolname} is a member of another role")
    if row.owns:
        faults.append(f"{name}: role {row.rolname} owns tables and could switch row-level security off")
    return faults


def driver_connection(raw: Any) -> psycopg.AsyncConnection[Any]:
    """The psycopg connection below a SQLAlchemy one, for the queue and the ingest, which share our transaction."""
    return raw.driver_connection
