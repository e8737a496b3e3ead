"""Two who write the same at the same moment: neither sees the other's row, and the database takes the first only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import IntegrityError

from app.kernel.errors import Refused
from tenants.scope import Scope

_UNIQUE_VIOLATION = "23505"


def is_duplicate(error: BaseException) -> bool:
    return isinstance(error, IntegrityError) and getattr(error.orig, "sqlstate", None) == _UNIQUE_VIOLATION


@asynccontextmanager
async def refusing_duplicates(scope: Scope, code: str, message: str) -> AsyncIterator[None]:
    """Who comes second is refused as if the first had been there all along; the transaction stays usable."""
    try:
        async with scope.db.begin_nested():
            yield
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        raise Refused(code, message) from None
