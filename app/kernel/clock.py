"""Time and ids. A verb never calls these: it uses `scope.now`."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from uuid import UUID

_IDS_AT: ContextVar[datetime | None] = ContextVar("ids_at", default=None)


def utcnow() -> datetime:
    return datetime.now(UTC)


@contextmanager
def ids_as_of(at: datetime) -> Iterator[None]:
    """What is written down later than it happened sorts where it belongs: lists go by id. For the demo's past."""
    token = _IDS_AT.set(at)
    try:
        yield
    finally:
        _IDS_AT.reset(token)


def uuid7() -> UUID:
    """RFC 9562 version 7: 48 bits of milliseconds, then random. The standard library has one only from 3.14."""
    at = _IDS_AT.get()
    stamp = time.time_ns() // 1_000_000 if at is None else int(at.timestamp() * 1000)
    rest = int.from_bytes(os.urandom(10), "big")
    value = (
        (stamp & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (rest >> 68) << 64 | 0b10 << 62 | rest & (1 << 62) - 1
    )
    return UUID(int=value)


def first_id_at(at: datetime) -> UUID:
    """No id made at that moment or later is smaller: rows since then are found by their key."""
    return UUID(int=(int(at.timestamp() * 1000) & 0xFFFF_FFFF_FFFF) << 80)
