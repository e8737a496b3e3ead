"""Stations' uploads, on a brand's portal host: `PUT` or `POST /uploads/{token}`, the body is the file as it is.

No cookie, no form, no Origin: the token is the only key, and it opens once. Some stations add a file name to the path.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from app.kernel.clock import uuid7
from app.maintenance import logs
from tenants.database import Database
from tenants.scope import Actor

PREFIX = "/uploads/"
SILENCE_S = 60  # a station on a weak link is slow; one that says nothing is gone
LONGEST_S = 30 * 60
_PATH = re.compile(r"/uploads/([A-Za-z0-9_-]{20,100})(?:/([^/]{1,255}))?/?")
_ACTOR = Actor(kind="anonymous", name="upload")


class _TooLarge(Exception):
    pass


async def take(database: Database, tenant_id: UUID, scope: Any, receive: Any, send: Any) -> None:
    """201 once the file is kept; 404 for an address that is not open, whatever the reason."""
    found = _PATH.fullmatch(scope["path"])
    if scope["method"] not in ("PUT", "POST"):
        return await _answer(send, 405)
    if found is None:
        return await _answer(send, 404)
    token, name = found[1], unquote(found[2] or "")
    async with database.scope(tenant_id, _ACTOR) as work:
        row = await logs.find_upload(work, token)
        folder = logs.path_of(work.settings, tenant_id, row.id).parent if row is not None else None
    if folder is None:
        return await _answer(send, 404)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = folder / f"{uuid7()}.part"
    try:
        async with asyncio.timeout(LONGEST_S):
            size_bytes = await _write(part, receive)
        async with database.scope(tenant_id, _ACTOR) as work:
            is_kept = size_bytes > 0 and await logs.keep_upload(work, token, part, size_bytes, name)
        await _answer(send, 201 if is_kept else 404)
    except _TooLarge:
        await _answer(send, 413)
    except TimeoutError:
        await _answer(send, 408)
    finally:
        part.unlink(missing_ok=True)


async def _write(part: Path, receive: Any) -> int:
    """To the disk as it comes, never whole in memory; nothing on it may be executed."""
    size_bytes = 0
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while True:
            async with asyncio.timeout(SILENCE_S):
                message = await receive()
            if message["type"] == "http.disconnect":
                return 0
            chunk = message.get("body", b"")
            size_bytes += len(chunk)
            if size_bytes > logs.MAX_BYTES:
                raise _TooLarge
            await asyncio.to_thread(file.write, chunk)
            if not message.get("more_body"):
                return size_bytes


async def _answer(send: Any, status: int) -> None:
    headers = [
        (b"content-length", b"0"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if status == 405:
        headers.append((b"allow", b"POST, PUT"))
    if status >= 400:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
