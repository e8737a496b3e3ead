"""The provider's news, on the console's host: verified, stored, answered; the work is a job (money.md 1.4)."""

import json
from typing import Any

from app.billing import payments
from app.billing.provider import Rejected
from app.kernel.clock import utcnow
from tenants.database import Database

PATHS = ("/webhooks/stripe", "/webhooks/stripe-connect")
MAX_BODY_BYTES = 500_000


async def take(database: Database, scope: Any, receive: Any, send: Any) -> None:
    """200 for what is ours and for what is nobody's (a provider repeats what is not answered so); 400 for a forgery."""
    if scope["method"] != "POST":
        return await _answer(send, 405, {"code": "method"}, allow="POST")
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return await _answer(send, 413, {"code": "too_large"})
        if not message.get("more_body"):
            break
    signature = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"stripe-signature"), "")
    try:
        is_ours = await payments.take_news(database, body, signature, utcnow())
    except Rejected as error:
        return await _answer(send, 400, {"code": error.code})
    await _answer(send, 200, {"taken": is_ours})


async def _answer(send: Any, status: int, content: dict[str, Any], *, allow: str = "") -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if allow:
        headers.append((b"allow", allow.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
