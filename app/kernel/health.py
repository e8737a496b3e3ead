"""Health of a process that serves no pages: /healthz, /readyz, /version and /metrics on a port of its own."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from importlib.metadata import version

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Readiness = Callable[[], Awaitable[dict[str, bool]]]


async def serve_health(host: str, port: int, ready: Readiness) -> asyncio.Server:
    """/healthz, /readyz, /version, /metrics by plain HTTP/1.1; everything else is a bare 404."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                line = (await reader.readline()).decode("latin-1").split()
                while (await reader.readline()).strip():
                    pass
                status, kind, body = await _answer(line[1] if len(line) > 1 else "", ready)
                head = (
                    f"HTTP/1.1 {status}",
                    f"Content-Type: {kind}",
                    f"Content-Length: {len(body)}",
                    "Connection: close",
                )
                writer.write("\r\n".join((*head, "", "")).encode() + body)
                await writer.drain()
        writer.close()

    return await asyncio.start_server(handle, host, port)


async def _answer(path: str, ready: Readiness) -> tuple[str, str, bytes]:
    if path == "/healthz":
        return "200 OK", "text/plain", b"ok\n"
    if path == "/version":
        return "200 OK", "text/plain", f"{version('livery')}\n".encode()
    if path == "/metrics":
        return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
    if path == "/readyz":
        checks = await ready()
        body = (
            "{" + ", ".join(f'"{name}": {str(ok).lower()}' for name, ok in checks.items()) + "}\n"
        ).encode()
        return ("200 OK" if all(checks.values()) else "503 Service Unavailable"), "application/json", body
    return "404 Not Found", "text/plain", b"Not Found\n"
