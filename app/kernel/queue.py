"""Work to do later: procrastinate, deferred on the scope's own connection, so that a job lives and dies with its cause.

A job's arguments are the tenant and opaque ids, never personal data. Jobs run at least once: each is idempotent.
"""

import json
from datetime import datetime

from sqlalchemy import text

from app.kernel.tracing import carried
from tenants.scope import Scope

# The function sets the job's tenant from the transaction itself, so that no argument can name another.
_DEFER = text(
    "select procrastinate.livery_defer(:task, :priority, :lock, cast(:args as jsonb), cast(:at as timestamptz))"
)


async def enqueue(
    scope: Scope,
    task: str,
    *,
    lock: str | None = None,
    at: datetime | None = None,
    priority: int = 0,
    **ids: str | int | list[str],
) -> None:
    """`task` is `<slice>.<name>` as the worker gathers them. Jobs of a tenant that share a `lock` run in turn."""
    arguments = {
        "task": task,
        "priority": priority,
        "lock": lock,
        "args": json.dumps(ids | carried()),
        "at": at,
    }
    await scope.db.execute(_DEFER, arguments)
