"""Time and ids. A verb never calls these: it uses `scope.now`."""

import os
import time
from datetime import UTC, datetime
from uuid import UUID


def utcnow() -> datetime:
    return datetime.now(UTC)


def uuid7() -> UUID:
    """RFC 9562 version 7: 48 bits of milliseconds, then random. The standard library has one only from 3.14."""
    stamp = time.time_ns() // 1_000_000
    rest = int.from_bytes(os.urandom(10), "big")
    value = (
        (stamp & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (rest >> 68) << 64 | 0b10 << 62 | rest & (1 << 62) - 1
    )
    return UUID(int=value)
