"""A surface's own door: before Litestar looks for a route, who comes (login or API key) and how the brand looks.

So a page that says "not found" wears the brand too, and a handler's transaction holds the handler's work only.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from typing import Any

from app.access import accounts
from app.access.models import Driver
from app.brands import faces
from app.identity import admins
from app.identity import service as identity
from app.kernel.web import ANONYMOUS, CURRENT, LANGUAGE_COOKIE, LOGIN_COOKIE, PREVIEW_COOKIE, Visit
from tenants.scope import Actor, Scope
from themes.language import choose, speaking

Loader = Callable[[Visit, dict[str, str]], Awaitable[None]]
LOG = logging.getLogger("livery.web")
_ARRIVING = Actor(kind="anonymous", name="arriving")


def headers_of(asgi_scope: Any) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in asgi_scope["headers"]}


class SurfaceDoor:
    def __init__(self, app: Any, load: Loader) -> None:
        self.app, self._load = app, load

    async def __call__(self, asgi_scope: Any, receive: Any, send: Any) -> None:
        visit: Visit = asgi_scope["livery.visit"]
        token = CURRENT.set(visit)
        try:
            await self._load(visit, headers_of(asgi_scope))
            with speaking(visit.language):
                await self.app(asgi_scope, receive, send)
        finally:
            CURRENT.reset(token)


def cookie_of(headers: dict[str, str], name: str) -> str | None:
    """A cookie's value; a jar that does not parse holds none."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return morsel.value if morsel is not None and len(morsel.value) <= 100 else None


async def _wear(visit: Visit, scope: Scope, headers: dict[str, str]) -> faces.Face:
    """The brand's look; its draft for whoever holds a pass."""
    drafted = faces.is_preview_pass(scope, cookie_of(headers, PREVIEW_COOKIE))
    face = await faces.get_face(scope, drafted=drafted)
    visit.brand, visit.time_zone, visit.is_preview = face.brand, face.time_zone, face.is_draft
    return face


async def load_driver(visit: Visit, headers: dict[str, str]) -> None:
    """In the language the driver chose, else their browser's, else the brand's. Most have no login and need none."""
    secret = cookie_of(headers, LOGIN_COOKIE)
    async with visit.database.scope(visit.tenant, _ARRIVING) as scope:
        face = await _wear(visit, scope, headers)
        login = await _driver_login(scope, secret, visit.host) if secret else None
    if login is not None and secret is not None:
        digest, driver = login
        _log_in(visit, accounts.actor_of(driver), digest, {"name": driver.name, "email": driver.email})

        async def is_welcome() -> bool:
            async with visit.database.scope(visit.tenant, _ARRIVING) as scope:
                again = await _driver_login(scope, secret, visit.host)
                return again is not None and again[1].id == visit.actor.id

        visit.is_welcome = is_welcome
    visit.languages = face.languages
    chosen = cookie_of(headers, LANGUAGE_COOKIE)
    visit.language = choose(face.languages, chosen, headers.get("accept-language", ""), face.language)


async def _driver_login(scope: Scope, secret: str, host: str) -> tuple[bytes, Driver] | None:
    found = await identity.find_driver_session(scope, secret, host=host)
    driver = await accounts.find_by_mailbox(scope, found[1]) if found else None
    return (found[0], driver) if found and driver else None


async def load_portal(visit: Visit, headers: dict[str, str]) -> None:
    """Staff's pages are in English."""
    secret = cookie_of(headers, LOGIN_COOKIE)
    async with visit.database.scope(visit.tenant, _ARRIVING) as scope:
        await _wear(visit, scope, headers)
        login = await identity.find_session(scope, secret, host=visit.host) if secret else None
    if login is None or secret is None:
        return
    member = login.member
    _log_in(visit, login.actor, login.digest, {"name": member.name or member.email, "email": member.email})

    async def is_welcome() -> bool:
        async with visit.database.scope(visit.tenant, _ARRIVING) as scope:
            again = await identity.find_session(scope, secret, host=visit.host)
            return again is not None and again.actor.permissions >= visit.actor.permissions

    visit.is_welcome = is_welcome


async def load_console(visit: Visit, headers: dict[str, str]) -> None:
    visit.brand = faces.platform_face()
    secret = cookie_of(headers, LOGIN_COOKIE)
    login = await admins.find_admin_session(visit.database, secret, host=visit.host) if secret else None
    if login is not None:
        _log_in(visit, login.actor, login.digest, {"name": login.admin.email, "email": login.admin.email})


async def load_start(visit: Visit, _headers: dict[str, str]) -> None:
    visit.brand = faces.platform_face("Livery")


def _log_in(visit: Visit, actor: Actor, digest: bytes, person: dict[str, Any]) -> None:
    visit.actor, visit.session_digest = actor, digest.hex()
    visit.person = person | {"role": actor.role}


async def load_api(visit: Visit, headers: dict[str, str]) -> None:
    """Bearer keys only: a cookie means nothing here, so nothing can be forged with one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    visit.actor = ANONYMOUS
    if scheme.lower() == "bearer" and key:
        found = await identity.authenticate_api_key(visit.database, key.strip(), visit.tenant)
        if found is not None:
            visit.actor = replace(found)
