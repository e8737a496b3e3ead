"""The headers every answer carries. No inline script or style, no foreign origin or frame (`experience.md` 1.2)."""

from typing import Any

from app.kernel.settings import Settings

_HTML = b"text/html"


def content_security_policy(*, form_action: tuple[str, ...] = ("'self'",)) -> str:
    return "; ".join((
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:",
        "connect-src 'self'", "font-src 'self'", "worker-src 'self'", "manifest-src 'self'",
        "frame-src 'self'",
        f"form-action {' '.join(form_action)}", "base-uri 'none'", "frame-ancestors 'none'",
    ))  # fmt: skip


POLICY = content_security_policy()


def provider_policy(settings: Settings, provider: str) -> str:
    """For forms that end at the payment provider's own pages, or at the sandbox's."""
    if not settings.takes_cards:
        return POLICY
    place = settings.url_of(settings.host_of("sandbox"), "") if settings.uses_sandbox else provider
    return content_security_policy(form_action=("'self'", place))


def with_headers(send: Any, *, request_id: str, policy: str = POLICY, hsts_s: int = 0) -> Any:
    """A `send` that adds them; what an answer says itself about caching, its opener or as its policy stays. `hsts_s`:
    how long a browser insists on TLS for this host, 0 where it was not asked by TLS."""

    async def send_safely(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {
                **message,
                "headers": _completed(message.get("headers", ()), request_id, policy, hsts_s),
            }
        await send(message)

    return send_safely


def _completed(headers: Any, request_id: str, policy: str, hsts_s: int) -> list[tuple[bytes, bytes]]:
    known = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    names = {name for name, _ in known}
    known += [
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
        (b"x-request-id", request_id.encode()),
    ]
    if b"cross-origin-opener-policy" not in names:
        known.append((b"cross-origin-opener-policy", b"same-origin"))
    if any(name == b"content-type" and value.startswith(_HTML) for name, value in known):
        known.append((b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=()"))
        if b"content-security-policy" not in names:
            known.append((b"content-security-policy", policy.encode()))
    if b"cache-control" not in names:
        known.append((b"cache-control", b"no-store"))
    if hsts_s:
        known.append((b"strict-transport-security", f"max-age={hsts_s}".encode()))
    return known
