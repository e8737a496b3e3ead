"""Scope: who is doing what, for whom, in which transaction, at what time. The first parameter of every verb."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.kernel.settings import Settings
from tenants.redis import Redis

if TYPE_CHECKING:
    from tenants.database import Database

ActorKind = Literal["staff", "driver", "station", "api_key", "job", "platform_admin", "anonymous", "cli"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts. `permissions` is what the permission table of `identity` gave this actor; empty for machines."""

    kind: ActorKind
    id: UUID | None = None
    name: str = ""
    role: str = ""
    permissions: frozenset[str] = frozenset()

    @classmethod
    def station(cls, station_id: UUID) -> "Actor":
        return cls(kind="station", id=station_id, name="station")

    @classmethod
    def job(cls, name: str) -> "Actor":
        return cls(kind="job", name=name)

    @classmethod
    def cli(cls) -> "Actor":
        return cls(kind="cli", name="command line")

    def may(self, permission: str) -> bool:
        return permission in self.permissions


AfterCommit = Callable[[], Awaitable[Any]]


@dataclass(slots=True, kw_only=True)
class _Work:
    actor: Actor
    db: AsyncSession
    now: datetime
    settings: Settings
    redis: Redis | None = None
    _after: list[AfterCommit] = field(default_factory=list)

    def after_commit(self, callback: AfterCommit) -> None:
        """What is nice to see now (a publication). What must happen is a row or a job in this transaction."""
        self._after.append(callback)

    def forget_after_commit(self) -> None:
        """For a unit of work that was rolled back although nothing was raised: a form shown again."""
        self._after.clear()

    async def run_after_commit(self) -> None:
        for callback in self._after:
            await callback()


@dataclass(slots=True, kw_only=True)
class Scope(_Work):
    """A tenant's unit of work."""

    tenant_id: UUID

    def publish(self, topic: str, payload: dict[str, Any]) -> None:
        """After commit, on this tenant's channel. Opaque ids and figures only; losing it must not matter."""
        redis = self.redis
        if redis is not None:
            self.after_commit(lambda: redis.publish(self.tenant_id, topic, payload))


@dataclass(slots=True, kw_only=True)
class PlatformScope(_Work):
    """The platform's unit of work (schema `platform` only). Made by `Database.platform_scope`."""

    reason: str
    tenant_id: UUID | None
    database: "Database"

    def tenant_scope(self) -> AbstractAsyncContextManager[Scope]:
        """A transaction of its own in the tenant this platform scope was opened (and audited) for."""
        if self.tenant_id is None:
            raise RuntimeError("this platform scope was opened for no tenant")
        return self.database.scope(self.tenant_id, self.actor, now=self.now)

    async def write_audit(self, action: str, data: dict[str, Any]) -> None:
        """Appends to the platform's hash chain. The lock makes the chain a line."""
        await self.db.execute(text("select pg_advisory_xact_lock(hashtext('platform.audit'))"))
        row = (
            await self.db.execute(
                text("select seq, hash from platform.audit_entry order by seq desc limit 1")
            )
        ).first()
        seq, previous = (row.seq + 1, bytes(row.hash)) if row else (1, b"")
        entry = {
            "seq": seq, "at": self.now.isoformat(), "actor": f"{self.actor.kind}:{self.actor.name}",
            "action": action, "reason": self.reason,
            "tenant_id": str(self.tenant_id) if self.tenant_id else None, "data": data,
        }  # fmt: skip
        await self.db.execute(
            text(
                "insert into platform.audit_entry (seq, at, actor, action, reason, tenant_id, data, prev_hash, hash)"
                " values (:seq, :at, :actor, :action, :reason, :tenant_id, cast(:data as jsonb), :prev, :hash)"
            ),
            entry
            | {"at": self.now, "tenant_id": self.tenant_id, "data": json.dumps(data), "prev": previous,
               "hash": chain_hash(previous, entry)},
        )  # fmt: skip


def chain_hash(previous: bytes, entry: dict[str, Any]) -> bytes:
    """SHA-256 over the previous hash and the entry's canonical JSON."""
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"), default=str).encode()
    return hashlib.sha256(previous + canonical).digest()
