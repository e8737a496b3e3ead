"""REST: what happened, in an order that never changes afterwards (contract.md)."""

from typing import Any

from litestar import get
from sqlalchemy import select, text, tuple_

from app.kernel.errors import Invalid, NotFound
from app.kernel.events import Event
from app.kernel.ids import PREFIXES, parse_id, public_id
from app.kernel.rest import DEFAULT_LIMIT, MAX_LIMIT, rfc3339
from tenants.scope import Scope


@get("/events", opt={"permission": "events.view"}, summary="What happened, oldest first", tags=["events"])
async def list_events(
    tenant_scope: Scope, limit: int = DEFAULT_LIMIT, after: str | None = None
) -> dict[str, Any]:
    """`next_cursor` is always the last event's id: keep it, and ask again later for what came since.

    Only events older than every running transaction are shown; one that commits late can never slip in before one
    that was already read.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid.field("limit", "range", f"limit is 1 to {MAX_LIMIT}.")
    query = select(Event).where(
        Event.is_public, text("xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    )
    if after:
        last = await _find(tenant_scope, after)
        query = query.where(tuple_(Event.xid, Event.id) > (last.xid, last.id))
    rows = (await tenant_scope.db.execute(query.order_by(Event.xid, Event.id).limit(limit))).scalars().all()
    cursor = public_id("event", rows[-1].id) if rows else after
    return {"data": [_shown(row) for row in rows], "next_cursor": cursor}


async def _find(scope: Scope, cursor: str) -> Event:
    try:
        event = await scope.db.get(Event, (scope.tenant_id, parse_id("event", cursor)))
    except NotFound:
        event = None
    if event is None:
        raise Invalid.field("after", "cursor", "after is the next_cursor of an earlier page.")
    return event


def _shown(row: Event) -> dict[str, Any]:
    known = row.source_type in PREFIXES
    return {
        "id": public_id("event", row.id), "kind": row.kind, "at": rfc3339(row.at), "source_type": row.source_type,
        "source_id": public_id(row.source_type, row.source_id) if known else str(row.source_id), "data": row.data,
    }  # fmt: skip


routes = [list_events]
