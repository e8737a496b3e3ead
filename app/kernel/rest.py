"""What REST v1 handlers need (`contract.md`). The conventions of `app/kernel/web.py` hold, and:

- handlers lie in `<slice>/api.py`, take `tenant_scope: Scope` and, for a body, `data: dict[str, Any]` (a JSON object
  is all that gets through; fields we do not know are ignored), and return plain dicts. Creating is `status_code=201`,
  work to be done 202, the rest 200; a `delete` that answers nothing 204.
- ids go out by `public_id`, come in by `parse_id`; times by `rfc3339`; amounts by `money`.
- lists: `return (await listed(tenant_scope, select(Location), Location.id, "location", limit, after)).answer(shown)`.
- `Idempotency-Key` needs nothing: the first answer of a POST is kept for a day in the transaction that made it.
- errors are raised (`Invalid.field("evses[0].evse_no", "duplicate", "…")`); they become problem+json (RFC 9457).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from litestar import Request, Response
from sqlalchemy import Select, select, text
from sqlalchemy.orm import InstrumentedAttribute

from app.kernel.errors import FieldFault, Invalid, LiveryError, NotFound, Refused
from app.kernel.idempotency import IdempotencyKey
from app.kernel.ids import parse_id, public_id
from app.kernel.money import Money
from app.kernel.secrets import seal, unseal
from tenants.scope import Scope

MAX_LIMIT = 200
DEFAULT_LIMIT = 50
PROBLEM = "application/problem+json"
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
T = TypeVar("T")


# -- values --------------------------------------------------------------------------------------------------


def rfc3339(at: datetime | None) -> str | None:
    """UTC, with a Z; microseconds only where there are some."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None


def money(amount_minor: int | None, currency: str | None) -> dict[str, str] | None:
    if amount_minor is None or currency is None:
        return None
    return Money(amount_minor, currency).as_json()


def read_time(data: Mapping[str, Any], field: str) -> datetime | None:
    """An RFC 3339 time with its offset; Invalid names the field."""
    value = data.get(field)
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        at = None
    if at is None or at.tzinfo is None:
        raise Invalid.field(field, "time", f"{field} is an RFC 3339 time with its offset.")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise Invalid.field(field, "out_of_range", f"{field} is no time of ours.") from None


def read_id(kind: str, data: Mapping[str, Any], field: str) -> UUID | None:
    """A public id in a body: one that names nothing is a fault of its field."""
    value = data.get(field)
    if value is None:
        return None
    try:
        return parse_id(kind, str(value))
    except NotFound as missing:
        raise Invalid.field(field, "not_found", missing.message) from None


# -- lists ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    rows: Sequence[T]
    next_cursor: str | None

    def answer(self, shown: Sequence[Any]) -> dict[str, Any]:
        return {"data": list(shown), "next_cursor": self.next_cursor}


async def listed(
    scope: Scope, query: Select[T], id_column: InstrumentedAttribute[UUID], kind: str,
    limit: int = DEFAULT_LIMIT, after: str | None = None, *, newest_first: bool = True,
) -> Listed[T]:  # fmt: skip
    """One page by id (ids sort by time). `after` is the `next_cursor` of the page before."""
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid.field("limit", "range", f"limit is 1 to {MAX_LIMIT}.")
    if after:
        try:
            last = parse_id(kind, after)
        except NotFound:
            raise Invalid.field("after", "cursor", "after is the next_cursor of an earlier page.") from None
        query = query.where(id_column < last if newest_first else id_column > last)
    query = query.order_by(id_column.desc() if newest_first else id_column).limit(limit + 1)
    rows = (await scope.db.execute(query)).scalars().all()
    page = rows[:limit]
    cursor = public_id(kind, getattr(page[-1], id_column.key)) if len(rows) > limit else None
    return Listed(page, cursor)


# -- errors --------------------------------------------------------------------------------------------------


def problem(error: LiveryError, request_id: str) -> Response[bytes]:
    body: dict[str, Any] = {
        "type": "about:blank", "title": error.code.replace("_", " ").capitalize(), "status": error.status,
        "code": error.code, "detail": error.message, "request_id": request_id,
    }  # fmt: skip
    if error.faults:
        body["errors"] = [
            {"field": f.field, "pointer": pointer(f.field), "code": f.code, "message": f.message}
            for f in error.faults
        ]
    headers = {}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body), status_code=error.status, media_type=PROBLEM, headers=headers)


def pointer(field: str) -> str:
    """`evses[0].evse_no` -> `/evses/0/evse_no` (RFC 6901)."""
    parts = re.split(r"[.\[]", field.replace("]", ""))
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


# -- Idempotency-Key -----------------------------------------------------------------------------------------


class Replay(Exception):
    """The answer is known already; it stops the handler before it begins."""

    def __init__(self, status: int, body: str) -> None:
        self.status, self.body = status, body

    def response(self) -> Response[bytes]:
        headers = {"Idempotency-Replayed": "true"}
        return Response(
            self.body.encode(), status_code=self.status, media_type="application/json", headers=headers
        )


@dataclass(slots=True)
class Pending:
    """A first answer in the making: stored with what it reports, or not at all."""

    scope: Scope
    key: str
    fingerprint: bytes

    async def store(self, status: int, body: str) -> None:
        scope = self.scope
        sealed = seal(scope.settings.secret_keys, "idempotency", body)
        scope.db.add(IdempotencyKey(
            actor=_actor(scope), key=self.key, fingerprint=self.fingerprint, status=status, body_sealed=sealed,
            created_at=scope.now,
        ))  # fmt: skip
        await scope.db.flush()


async def begin(request: Request[Any, Any, Any], scope: Scope) -> Pending | None:
    """Raises `Replay` for a repetition. The lock is the transaction's, so that a crash leaves no key behind."""
    key = request.headers.get("Idempotency-Key")
    if key is None or request.method != "POST":
        return None
    if not _KEY.fullmatch(key):
        raise Invalid.field("Idempotency-Key", "pattern", "The key is 1 to 200 visible ASCII characters.")
    fingerprint = hashlib.sha256(
        b"\0".join((request.method.encode(), request.url.path.encode(), await request.body()))
    ).digest()
    lock = select(text("pg_try_advisory_xact_lock(hashtext(:tenant), hashtext(:key))")).params(
        tenant=str(scope.tenant_id), key=f"idempotency:{_actor(scope)}:{key}"
    )
    if not (await scope.db.execute(lock)).scalar_one():
        raise Refused("idempotency_running", "A request with this Idempotency-Key is still running.")
    query = select(IdempotencyKey).where(IdempotencyKey.actor == _actor(scope), IdempotencyKey.key == key)
    known = (await scope.db.execute(query)).scalar_one_or_none()
    if known is None:
        return Pending(scope, key, fingerprint)
    if known.fingerprint != fingerprint or known.body_sealed is None or known.status is None:
        fault = FieldFault("Idempotency-Key", "reused", "This key was used with another request.")
        raise Invalid("idempotency_reused", fault.message, faults=[fault])
    raise Replay(known.status, unseal(scope.settings.secret_keys, "idempotency", known.body_sealed))


def _actor(scope: Scope) -> str:
    return f"{scope.actor.kind}:{scope.actor.id}"
