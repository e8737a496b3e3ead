"""Verbs on platform admins and their logins, in schema `platform`. The console's counterpart of `service.py`.

A login happens before there is anybody whom an audit entry could name; everything an admin does afterwards goes
through `Database.platform_scope`.
"""

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.identity.limits import is_within, network_of
from app.identity.permissions import ADMIN_PERMISSIONS
from app.identity.service import (
    IDLE_LIFETIME,
    LINK_LIFETIME,
    LINKS_PER_ADDRESS,
    LOGINS_PER_REMOTE,
    WINDOW,
    LinkLetter,
    check_email,
    email_norm,
    is_own_host,
    repeatable_secret,
)
from app.kernel import events
from app.kernel.clock import utcnow
from app.kernel.errors import TooMany, Unauthenticated
from app.kernel.idempotency import REPEATS_FOR
from app.kernel.secrets import digest, digests
from tenants.database import Database
from tenants.models import PlatformAdmin, PlatformLoginLink, PlatformSession, Tenant
from tenants.scope import Actor

PLATFORM_SLUG = "platform"
SESSION_LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class AdminLogin:
    digest: bytes
    admin: PlatformAdmin
    secret: str = ""

    @property
    def actor(self) -> Actor:
        admin = self.admin
        return Actor(
            kind="platform_admin", id=admin.id, name=admin.email, role="admin", permissions=ADMIN_PERMISSIONS
        )


async def platform_tenant_id(db: AsyncSession) -> UUID:
    """The platform's own tenant row (`isolation.md`), made when it is first needed."""
    statement = insert(Tenant).values(slug=PLATFORM_SLUG, name="Platform", kind="platform")
    await db.execute(statement.on_conflict_do_nothing(index_elements=["slug"]))
    return (await db.execute(select(Tenant.id).where(Tenant.slug == PLATFORM_SLUG))).scalar_one()


async def create_platform_admin(database: Database, email: str, *, actor: Actor | None = None) -> str:
    """The admin, new or known, and a login link."""
    email = check_email(email)
    async with database.platform_scope(actor or Actor.cli(), "create a platform admin") as scope:
        await platform_tenant_id(scope.db)
        statement = insert(PlatformAdmin).values(email=email, email_norm=email_norm(email))
        await scope.db.execute(statement.on_conflict_do_nothing(index_elements=["email_norm"]))
        admin = await _find_admin(scope.db, email)
        assert admin is not None
        await scope.write_audit("platform_admin.created", {"admin_id": str(admin.id)})
        link = await _make_link(database, scope.db, admin, scope.now)
        return _url(database, _token(database, admin.id, link.expires_at))


async def request_admin_login(database: Database, email: str, *, remote: str = "") -> None:
    """The same answer whoever asks; the mail comes by way of the platform's own tenant."""
    email = check_email(email)
    now = utcnow()
    async with database.platform_login() as db:
        platform_id = await platform_tenant_id(db)
        if not await is_within(
            database.redis, platform_id, f"login:{network_of(remote)}", LOGINS_PER_REMOTE, WINDOW
        ):
            raise TooMany(retry_after_s=int(WINDOW.total_seconds()))
        admin = await _find_admin(db, email)
        if admin is None or admin.status != "active" or await _has_many_links(db, admin, now):
            return
        link = await _make_link(database, db, admin, now)
    async with database.scope(platform_id, Actor(kind="anonymous")) as scope:
        data = {"expires_at": link.expires_at.isoformat()}
        await events.emit(scope, "AdminLoginRequested", "platform_admin", admin.id, data, public=False)


async def find_admin_letter(database: Database, admin_id: UUID, expires_at: datetime) -> LinkLetter | None:
    token = _token(database, admin_id, expires_at)
    async with database.platform_login() as db:
        link = await _find_link(db, token)
        admin = await db.get(PlatformAdmin, admin_id)
    if link is None or admin is None or link.expires_at <= utcnow():
        return None
    return LinkLetter(admin.email, "", _url(database, token), link.expires_at)


async def is_admin_link(database: Database, token: str) -> bool:
    async with database.platform_login() as db:
        link = await _find_link(db, token)
        return link is not None and link.expires_at > utcnow()


async def admin_login_with(database: Database, token: str, *, host: str, browser: str = "") -> AdminLogin:
    """Uses the link up; a session with a new id, bound to this host. `browser`: see `repeatable_secret`."""
    now = utcnow()
    secret = repeatable_secret(database.settings.secret_keys, token, browser)
    async with database.platform_login() as db:
        query = (
            update(PlatformLoginLink)
            .where(PlatformLoginLink.digest == _link_digest(token), PlatformLoginLink.used_at.is_(None))
            .where(PlatformLoginLink.expires_at > now)
            .values(used_at=now)
            .returning(PlatformLoginLink.admin_id)
        )
        admin_id = (await db.execute(query)).scalar_one_or_none()
        admin = await db.get(PlatformAdmin, admin_id) if admin_id is not None else None
        if admin is not None and admin.status != "active":
            raise _gone()
        known = digest(database.settings.secret_keys, "admin-session", secret)
        if admin is not None:
            db.add(PlatformSession(
                digest=known, admin_id=admin.id, host=host, created_at=now, seen_at=now,
                expires_at=now + SESSION_LIFETIME,
            ))  # fmt: skip
    if admin is None:  # out of the first transaction: who tries tokens shall not hold two connections
        return await _used_just_now(database, token, secret, host)
    login = AdminLogin(known, admin, secret)
    async with database.platform_scope(login.actor, "login") as scope:
        await scope.write_audit("platform_admin.logged_in", {"host": host})
    return login


async def _used_just_now(database: Database, token: str, secret: str, host: str) -> AdminLogin:
    """As in `service.py`: by the browser that used the link a moment ago."""
    async with database.platform_login() as db:
        link = await db.get(PlatformLoginLink, _link_digest(token))
    is_fresh = link is not None and link.used_at is not None and link.used_at > utcnow() - REPEATS_FOR
    login = await find_admin_session(database, secret, host=host) if is_fresh else None
    if login is None:
        raise _gone()
    return replace(login, secret=secret)


def _gone() -> Unauthenticated:
    return Unauthenticated("login_link_invalid", "This login link was used already or has expired.")


async def find_admin_session(database: Database, secret: str, *, host: str) -> AdminLogin | None:
    now = utcnow()
    async with database.platform_login() as db:
        known = digests(database.settings.secret_keys, "admin-session", secret)
        query = (
            select(PlatformSession, PlatformAdmin)
            .join(PlatformAdmin, PlatformAdmin.id == PlatformSession.admin_id)
            .where(PlatformSession.digest.in_(known))
        )
        found = (await db.execute(query)).first()
        if found is None:
            return None
        session, admin = found
        if not is_own_host(session.host, host):
            await db.delete(session)
            return None
        idle = now - session.seen_at
        if session.expires_at <= now or idle > IDLE_LIFETIME or admin.status != "active":
            return None
        if idle > timedelta(minutes=5):
            session.seen_at = now
        return AdminLogin(session.digest, admin)


async def admin_logout(database: Database, session_digest: bytes) -> None:
    async with database.platform_login() as db:
        await db.execute(delete(PlatformSession).where(PlatformSession.digest == session_digest))


async def _find_admin(db: AsyncSession, email: str) -> PlatformAdmin | None:
    query = select(PlatformAdmin).where(PlatformAdmin.email_norm == email_norm(email))
    return (await db.execute(query)).scalar_one_or_none()


async def _has_many_links(db: AsyncSession, admin: PlatformAdmin, now: datetime) -> bool:
    recent = select(func.count()).where(
        PlatformLoginLink.admin_id == admin.id, PlatformLoginLink.expires_at > now + LINK_LIFETIME - WINDOW
    )
    return (await db.execute(recent)).scalar_one() >= LINKS_PER_ADDRESS


async def _make_link(
    database: Database, db: AsyncSession, admin: PlatformAdmin, now: datetime
) -> PlatformLoginLink:
    expires_at = now + LINK_LIFETIME
    token = _token(database, admin.id, expires_at)
    link = PlatformLoginLink(digest=_link_digest(token), admin_id=admin.id, expires_at=expires_at)
    db.add(link)
    await db.flush()
    return link


async def _find_link(db: AsyncSession, token: str) -> PlatformLoginLink | None:
    link = await db.get(PlatformLoginLink, _link_digest(token))
    return link if link is not None and link.used_at is None else None


def _token(database: Database, admin_id: UUID, expires_at: datetime) -> str:
    mac = digest(
        database.settings.secret_keys,
        "admin-login-link",
        f"{admin_id}:{expires_at.astimezone(UTC).isoformat()}",
    )
    return urlsafe_b64encode(mac).decode().rstrip("=")


def _link_digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _url(database: Database, token: str) -> str:
    settings = database.settings
    return settings.url_of(settings.host_of("console"), f"/login/{token}")
