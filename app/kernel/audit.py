"""Who did what: append-only, hash-chained per tenant, readable by the tenant."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import UniqueConstraint, insert, select, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.models import Base, TenantOwned
from tenants.scope import Scope, chain_hash


class AuditEntry(TenantOwned, Base):
    __tablename__ = "audit_entry"
    __table_args__ = (UniqueConstraint("tenant_id", "seq"), {"schema": "livery"})

    seq: Mapped[int]
    at: Mapped[datetime]
    actor_kind: Mapped[str]
    actor_name: Mapped[str]
    action: Mapped[str]
    object_type: Mapped[str]
    object_id: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    prev_hash: Mapped[bytes]
    hash: Mapped[bytes]


def _content(entry: AuditEntry) -> dict[str, Any]:
    return {
        "seq": entry.seq, "at": entry.at.isoformat(), "actor": f"{entry.actor_kind}:{entry.actor_name}",
        "action": entry.action, "object": f"{entry.object_type}:{entry.object_id}", "data": entry.data,
    }  # fmt: skip


async def record(
    scope: Scope, action: str, object_type: str, object_id: object, data: dict[str, Any] | None = None
) -> None:
    """`action` is `<noun>.<past tense>` (`station.created`). `data` must be plain JSON and hold no secret."""
    await record_all(scope, [(action, object_type, object_id, data or {})])


async def record_all(scope: Scope, deeds: Iterable[tuple[str, str, object, dict[str, Any]]]) -> None:
    """Many at once, in their order, as `record` would one by one."""
    await scope.db.execute(
        text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext('audit'))"),
        {"tenant": str(scope.tenant_id)},
    )
    last = (
        await scope.db.execute(select(AuditEntry).order_by(AuditEntry.seq.desc()).limit(1))
    ).scalar_one_or_none()
    first, previous = (last.seq + 1, last.hash) if last else (1, b"")
    entries: list[dict[str, Any]] = []
    for seq, (action, object_type, object_id, data) in enumerate(deeds, first):
        values: dict[str, Any] = {
            "seq": seq, "at": scope.now, "actor_kind": scope.actor.kind, "actor_name": scope.actor.name,
            "action": action, "object_type": object_type, "object_id": str(object_id), "data": data,
            "prev_hash": previous,
        }  # fmt: skip
        previous = chain_hash(previous, _content(AuditEntry(**values)))
        entries.append(values | {"hash": previous})
        if len(entries) == 250:  # thousands at once would keep everybody else waiting
            await scope.db.execute(insert(AuditEntry), entries)
            entries = []
    if entries:
        await scope.db.execute(insert(AuditEntry), entries)
    await scope.db.flush()


async def find_break(scope: Scope) -> int | None:
    """The sequence number at which the chain does not hold, None when it is whole."""
    previous, expected = b"", 1
    async for entry in await scope.db.stream_scalars(select(AuditEntry).order_by(AuditEntry.seq)):
        if (
            entry.seq != expected
            or entry.prev_hash != previous
            or entry.hash != chain_hash(previous, _content(entry))
        ):
            return expected
        previous, expected = entry.hash, expected + 1
    return None
