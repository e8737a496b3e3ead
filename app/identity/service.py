"""Verbs on staff, on the logins of staff and drivers, and on API keys.

Errors: `email`, `role`, `already_staff`, `last_owner`, `owner_only`, `login_link_invalid`, `unknown_scope`,
`scope_too_wide`.
"""

import hashlib
import re
import secrets as stdlib_secrets
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import idna
from sqlalchemy import ColumnElement, delete, func, select, text, update

from app.identity.limits import is_within, network_of
from app.identity.models import ApiKey, LoginLink, LoginSession, StaffMember
from app.identity.permissions import (
    ALL,
    ROLES,
    SCOPES,
    permissions_of,
    permissions_of_scopes,
)
from app.kernel import audit, events
from app.kernel.clock import first_id_at, uuid7
from app.kernel.errors import Forbidden, Invalid, NotFound, Refused, TooMany, Unauthenticated
from app.kernel.idempotency import REPEATS_FOR, repeatable
from app.kernel.names import check_name
from app.kernel.secrets import digest, digests, new_token
from tenants.database import Database
from tenants.resolve import own_url, resolve_api_key
from tenants.scope import Actor, Scope
from themes.language import N_

LINK_LIFETIME = timedelta(minutes=30)
INVITATION_LIFETIME = timedelta(days=7)
SESSION_LIFETIME = timedelta(days=30)
DRIVER_LIFETIME = timedelta(days=90)
IDLE_LIFETIME = timedelta(days=7)
_TOUCH_AFTER = timedelta(minutes=5)
CLOSED_TOLD_FOR = timedelta(minutes=10)
LINKS_PER_ADDRESS = 5
LOGINS_PER_REMOTE = 30
WINDOW = timedelta(minutes=15)

# RFC 5322's dot-atom, with letters of any script (RFC 6531): no sign that a mail header reads as more than one address.
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_PREFIX = "lvk_"


def check_email(email: str, field: str = "email") -> str:
    """As it was typed, without blanks around it; a domain may be of any script."""
    cleaned = email.strip()
    if not is_email(cleaned):
        raise Invalid.field(field, "email", N_("This is no e-mail address."))
    return cleaned


def is_email(email: str) -> bool:
    sent = address_of(email)
    return (
        bool(_EMAIL.fullmatch(sent)) and ".." not in sent and "." in sent.split("@")[1] and len(sent) <= 254
    )


def address_of(email: str) -> str:
    """As mail servers and others know it: a domain of another script in its ASCII form. What is no domain stays."""
    cleaned = email.strip()
    local, at, domain = cleaned.rpartition("@")
    if not at or domain.isascii() or len(domain) > 253:
        return cleaned
    try:
        return f"{local}{at}{idna.encode(domain, uts46=True).decode()}"
    except UnicodeError:
        return cleaned


def email_norm(email: str) -> str:
    """What mailboxes are compared by. A mail that proves one goes to this very text: "K" may be the Kelvin sign."""
    return address_of(email).lower()


# -- staff ---------------------------------------------------------------------------------------------------


async def list_staff(scope: Scope) -> Sequence[StaffMember]:
    query = select(StaffMember).order_by(StaffMember.email_norm)
    return (await scope.db.execute(query)).scalars().all()


async def get_staff_member(scope: Scope, staff_member_id: UUID) -> StaffMember:
    found = await scope.db.get(StaffMember, (scope.tenant_id, staff_member_id))
    if found is None:
        raise NotFound("staff_member")
    return found


async def find_staff_member(scope: Scope, email: str) -> StaffMember | None:
    query = select(StaffMember).where(StaffMember.email_norm == email_norm(email))
    return (await scope.db.execute(query)).scalar_one_or_none()


async def invite_staff(scope: Scope, *, email: str, name: str = "", role: str) -> StaffMember:
    """A new member of staff; the invitation with a login link goes out by mail."""
    email = check_email(email)
    _check_role(scope, role)
    if await find_staff_member(scope, email) is not None:
        raise Invalid.field("email", "already_staff", f"{email} is in the team already.")
    member = StaffMember(
        email=email, email_norm=email_norm(email), name=check_name(name, required=None), role=role
    )
    scope.db.add(member)
    await scope.db.flush()
    await audit.record(scope, "staff_member.invited", "staff_member", member.id, {"role": role})
    link, _token = await make_login_link(scope, member.id, INVITATION_LIFETIME)
    await events.emit(
        scope, "StaffInvited", "staff_member", member.id, {"login_link_id": str(link.id)}, public=False
    )
    return member


async def update_staff_member(
    scope: Scope, staff_member_id: UUID, *, role: str | None = None, status: str | None = None
) -> StaffMember:
    """A change of role or status ends that person's logins: the next one begins with the new rights."""
    member = await get_staff_member(scope, staff_member_id)
    role, status = role or member.role, status or member.status
    if status not in ("active", "disabled"):
        raise Invalid.field("status", "status", "status is active or disabled.")
    if role != member.role or member.role == "owner":
        _check_role(scope, role)
        _check_role(scope, member.role)
    if member.role == "owner" and member.status == "active" and (role != "owner" or status != "active"):
        await _refuse_last_owner(scope, member)
    if (role, status) == (member.role, member.status):
        return member
    member.role, member.status = role, status
    await scope.db.execute(delete(LoginSession).where(LoginSession.staff_member_id == member.id))
    await audit.record(
        scope, "staff_member.changed", "staff_member", member.id, {"role": role, "status": status}
    )
    return member


def _check_role(scope: Scope, role: str) -> None:
    if role not in ROLES:
        raise Invalid.field("role", "role", f"role is one of {', '.join(ROLES)}.")
    if role == "owner" and scope.actor.kind == "staff" and scope.actor.role != "owner":
        raise Forbidden("owner_only", "Only an owner can make or change an owner.")


async def _refuse_last_owner(scope: Scope, member: StaffMember) -> None:
    query = select(StaffMember.id).where(StaffMember.role == "owner", StaffMember.status == "active")
    owners = (await scope.db.execute(query.with_for_update())).scalars().all()
    if set(owners) <= {member.id}:
        raise Refused("last_owner", "The last owner cannot be demoted or disabled.")


# -- logging in ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Login:
    """A login that stands. `secret` is set only when it was made just now: the cookie's value."""

    digest: bytes
    member: StaffMember
    secret: str = ""

    @property
    def actor(self) -> Actor:
        member = self.member
        return Actor(
            kind="staff", id=member.id, name=member.name or member.email, role=member.role,
            permissions=permissions_of(member.role),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LinkLetter:
    """What a mail with a login link needs."""

    to: str
    name: str
    url: str
    expires_at: datetime


async def request_login(scope: Scope, email: str, *, host: str = "", remote: str = "") -> None:
    """The answer is the same whoever asks: it tells nobody who works here. Refused only by the sender's own haste. The
    link leads to `host`, where it was asked for (`login_url`)."""
    email = check_email(email)
    await _refuse_haste(scope, remote)
    member = await find_staff_member(scope, email)
    if member is None or member.status != "active":
        return
    if await _has_many_links(scope, LoginLink.staff_member_id == member.id):
        return
    link, _token = await make_login_link(scope, member.id)
    await events.emit(
        scope, "LoginLinkRequested", "staff_member", member.id, {"login_link_id": str(link.id), "host": host},
        public=False,
    )  # fmt: skip


async def request_driver_login(
    scope: Scope, email: str, *, language: str, host: str = "", remote: str = ""
) -> None:
    """Every mailbox gets a link, whether a driver has it or not: nobody learns which. Who uses it owns the mailbox.
    It leads to `host`, as `request_login`'s does."""
    mailbox = email_norm(check_email(email))
    await _refuse_haste(scope, remote)
    if await _has_many_links(scope, LoginLink.email == mailbox):
        return
    link, _token = await make_driver_link(scope, mailbox)
    about = {"login_link_id": str(link.id), "language": language, "host": host}
    await events.emit(scope, "DriverLoginRequested", "login_link", link.id, about, public=False)


async def _refuse_haste(scope: Scope, remote: str) -> None:
    if not await is_within(
        scope.redis, scope.tenant_id, f"login:{network_of(remote)}", LOGINS_PER_REMOTE, WINDOW
    ):
        raise TooMany(N_("Too many requests; try again later."), retry_after_s=int(WINDOW.total_seconds()))


def most_links() -> dict[str, int]:
    """How many mails with a link one mailbox gets in how many minutes: told to everybody, so that it tells nothing of
    anybody."""
    return {"count": LINKS_PER_ADDRESS, "minutes": int(WINDOW.total_seconds() // 60)}


async def _has_many_links(scope: Scope, of_whom: ColumnElement[bool]) -> bool:
    recent = select(func.count()).where(of_whom, LoginLink.expires_at > scope.now + LINK_LIFETIME - WINDOW)
    # Invitations live longer and would count for days.
    recent = recent.where(LoginLink.expires_at <= scope.now + LINK_LIFETIME)
    return (await scope.db.execute(recent)).scalar_one() >= LINKS_PER_ADDRESS


async def make_login_link(
    scope: Scope, staff_member_id: UUID, lifetime: timedelta = LINK_LIFETIME
) -> tuple[LoginLink, str]:
    return await _make_link(scope, LoginLink(staff_member_id=staff_member_id), lifetime)


async def make_driver_link(scope: Scope, mailbox: str) -> tuple[LoginLink, str]:
    """`mailbox` as `email_norm` makes it."""
    return await _make_link(scope, LoginLink(email=mailbox), LINK_LIFETIME)


async def _make_link(scope: Scope, link: LoginLink, lifetime: timedelta) -> tuple[LoginLink, str]:
    """The token is derived from the link's id by the installation's key: stored nowhere, yet a mail can be made."""
    link.id, link.expires_at = uuid7(), scope.now + lifetime
    token = _link_token(scope, link.id)
    link.digest = _link_digest(token)
    scope.db.add(link)
    await scope.db.flush()
    return link, token


def _link_token(scope: Scope, link_id: UUID) -> str:
    mac = digest(scope.settings.secret_keys, "login-link", f"{scope.tenant_id}:{link_id}")
    return urlsafe_b64encode(mac).decode().rstrip("=")


def _link_digest(token: str) -> bytes:
    """The token has 256 bits: a plain digest is enough, and it outlives a change of keys."""
    return hashlib.sha256(token.encode()).digest()


async def login_url(scope: Scope, token: str, surface: str = "portal", *, host: str = "") -> str:
    """On `host`, where it was asked for: it has the cookie of where to go next. But not on a domain that fails: whoever
    has that name by now could ask for links of anybody's."""
    return await own_url(scope, surface, f"/login/{token}", host=host)


async def find_letter(scope: Scope, login_link_id: UUID, *, host: str = "") -> LinkLetter | None:
    """For the mail. `host` is where it was asked for. None when the link was used, has expired or was made under a key
    that is gone."""
    link = await scope.db.get(LoginLink, (scope.tenant_id, login_link_id))
    if link is None or link.used_at is not None or link.expires_at <= scope.now:
        return None
    token = _link_token(scope, link.id)
    if _link_digest(token) != link.digest:
        return None
    if link.staff_member_id is None:
        return LinkLetter(
            link.email or "", "", await login_url(scope, token, "driver", host=host), link.expires_at
        )
    member = await get_staff_member(scope, link.staff_member_id)
    return LinkLetter(member.email, member.name, await login_url(scope, token, host=host), link.expires_at)


async def find_login_link(scope: Scope, token: str, *, is_driver: bool = False) -> LoginLink | None:
    """Looks without using it: a mail scanner that follows links must not burn one."""
    query = select(LoginLink).where(LoginLink.digest == _link_digest(token), LoginLink.used_at.is_(None))
    link = (await scope.db.execute(query.where(_of_a_driver(is_driver)))).scalar_one_or_none()
    return link if link is not None and link.expires_at > scope.now else None


def _of_a_driver(is_driver: bool) -> ColumnElement[bool]:
    return LoginLink.email.is_not(None) if is_driver else LoginLink.staff_member_id.is_not(None)


@dataclass(frozen=True, slots=True)
class LinkUse:
    """A link that was used. `secret` is that of the session which follows; `session` is that session where this browser
    has used the link a moment ago already: then there is nothing left to do."""

    link: LoginLink
    secret: str
    session: LoginSession | None = None


def repeatable_secret(keys: Mapping[str, bytes], token: str, browser: str) -> str:
    """A session's secret that one browser gets again for one link: a double tap cancels the first answer, and with it
    the cookie. `browser` is the random text that the page with the button left in that browser (`link_cookie`); a
    browser that kept none gets a secret that nobody gets twice."""
    if not browser:
        return new_token()
    return urlsafe_b64encode(digest(keys, "login-by-link", f"{token}:{browser}")).decode().rstrip("=")


async def _use_up(scope: Scope, token: str, browser: str, host: str, *, is_driver: bool) -> LinkUse:
    secret = repeatable_secret(scope.settings.secret_keys, token, browser)
    query = (
        update(LoginLink)
        .where(LoginLink.digest == _link_digest(token), LoginLink.used_at.is_(None))
        .where(LoginLink.expires_at > scope.now, _of_a_driver(is_driver))
        .values(used_at=scope.now)
        .returning(LoginLink)
    )
    found = (await scope.db.execute(query)).scalar_one_or_none()
    return await _used_just_now(scope, token, secret, host) if found is None else LinkUse(found, secret)


async def _used_just_now(scope: Scope, token: str, secret: str, host: str) -> LinkUse:
    """The session that this browser got by this link tells by being there that it was this browser, and that the login
    still stands."""
    query = select(LoginLink).where(
        LoginLink.digest == _link_digest(token), LoginLink.used_at > scope.now - REPEATS_FOR
    )
    link = (await scope.db.execute(query)).scalar_one_or_none()
    session = await _standing(scope, secret, host) if link is not None else None
    if link is None or session is None:
        raise _gone()
    return LinkUse(link, secret, session)


def _gone() -> Unauthenticated:
    return Unauthenticated("login_link_invalid", "This login link was used already or has expired.")


async def login_with(scope: Scope, token: str, *, host: str, browser: str = "") -> Login:
    """Uses the link up; a session with a new id, bound to this host. `browser`: see `repeatable_secret`."""
    use = await _use_up(scope, token, browser, host, is_driver=False)
    assert use.link.staff_member_id is not None
    member = await get_staff_member(scope, use.link.staff_member_id)
    if member.status != "active":
        raise _gone()
    if use.session is not None:
        return Login(use.session.digest, member, use.secret)
    session = LoginSession(staff_member_id=member.id)
    known = await _open_session(scope, session, use.secret, host, SESSION_LIFETIME)
    member.last_seen_at = scope.now
    login = Login(known, member, use.secret)
    scope.actor = login.actor
    await audit.record(scope, "staff_member.logged_in", "staff_member", member.id, {"host": host})
    return login


async def prove_mailbox(scope: Scope, token: str, *, host: str, browser: str = "") -> LinkUse:
    """Uses a driver's link up; whoever did that reads the link's mailbox. `browser`: see `repeatable_secret`."""
    return await _use_up(scope, token, browser, host, is_driver=True)


async def open_driver_session(scope: Scope, use: LinkUse, *, host: str) -> str:
    """The cookie's value."""
    await _open_session(scope, LoginSession(email=use.link.email), use.secret, host, DRIVER_LIFETIME)
    return use.secret


async def _open_session(
    scope: Scope, session: LoginSession, secret: str, host: str, lifetime: timedelta
) -> bytes:
    session.digest = digest(scope.settings.secret_keys, "login-session", secret)
    session.host, session.created_at, session.seen_at = host, scope.now, scope.now
    session.expires_at = scope.now + lifetime
    scope.db.add(session)
    await scope.db.flush()
    return session.digest


async def find_session(scope: Scope, secret: str, *, host: str) -> Login | None:
    """The staff login behind a cookie."""
    session = await _standing(scope, secret, host)
    if session is None or session.staff_member_id is None or scope.now - session.seen_at > IDLE_LIFETIME:
        return None
    member = await get_staff_member(scope, session.staff_member_id)
    if member.status != "active":
        return None
    if _touch(scope, session):
        member.last_seen_at = scope.now
    return Login(session.digest, member)


async def find_driver_session(scope: Scope, secret: str, *, host: str) -> tuple[bytes, str] | None:
    """The digest and the proven mailbox behind a driver's cookie."""
    session = await _standing(scope, secret, host)
    if session is None or session.email is None:
        return None
    _touch(scope, session)
    return session.digest, session.email


async def _standing(scope: Scope, secret: str, host: str) -> LoginSession | None:
    """One that comes to another host than its own is destroyed (`isolation.md`)."""
    known = digests(scope.settings.secret_keys, "login-session", secret)
    query = select(LoginSession).where(LoginSession.digest.in_(known))
    session = (await scope.db.execute(query)).scalar_one_or_none()
    if session is None:
        return None
    if not is_own_host(session.host, host):
        await scope.db.delete(session)
        return None
    return session if session.expires_at > scope.now else None


def _touch(scope: Scope, session: LoginSession) -> bool:
    is_due = scope.now - session.seen_at > _TOUCH_AFTER
    if is_due:
        session.seen_at = scope.now
    return is_due


def is_own_host(bound_to: str, host: str) -> bool:
    return bound_to == host


async def logout(scope: Scope, session_digest: bytes) -> None:
    await scope.db.execute(delete(LoginSession).where(LoginSession.digest == session_digest))


async def logins_of(scope: Scope, mailbox: str) -> list[str]:
    """The digests of a driver's logins, as hex."""
    query = select(LoginSession.digest).where(LoginSession.email == mailbox)
    return [known.hex() for known in (await scope.db.execute(query)).scalars()]


async def has_closed(scope: Scope, secret: str) -> bool:
    """Whether the login of this cookie ended because its driver closed the account, a moment ago: a second press on the
    button comes when the first has ended the login."""
    known = [one.hex() for one in digests(scope.settings.secret_keys, "login-session", secret)]
    query = select(events.Event.data).where(
        events.Event.id > first_id_at(scope.now - CLOSED_TOLD_FOR), events.Event.kind == "DriverClosedAccount"
    )
    closed = (await scope.db.execute(query)).scalars()
    return any(one in about.get("logins", ()) for about in closed for one in known)


async def forget_mailbox(scope: Scope, mailbox: str) -> None:
    """Every login of a driver's, and every link that could make one."""
    await scope.db.execute(delete(LoginSession).where(LoginSession.email == mailbox))
    await scope.db.execute(delete(LoginLink).where(LoginLink.email == mailbox))


async def forget_old_logins(scope: Scope) -> None:
    """Links and sessions that can no longer be used."""
    await scope.db.execute(delete(LoginLink).where(LoginLink.expires_at < scope.now - timedelta(days=1)))
    await scope.db.execute(delete(LoginSession).where(LoginSession.expires_at < scope.now))


# -- API keys ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """`key` is told once; what is stored is its digest."""

    id: UUID
    name: str
    key: str
    scopes: tuple[str, ...]


def _checksum(body: str) -> str:
    number, letters = zlib.crc32(body.encode()), []
    for _ in range(6):
        number, rest = divmod(number, 62)
        letters.append(_LETTERS[rest])
    return "".join(letters)


def new_api_key_text(seed: bytes | None = None) -> str:
    """`lvk_`, 32 random letters (190 bits), and a checksum by which a scanner knows a leaked key from chance. `seed`:
    32 secret bytes for a key that can be told again."""
    number = int.from_bytes(seed or stdlib_secrets.token_bytes(32))
    body = "".join(_LETTERS[number // 62**place % 62] for place in range(32))
    return KEY_PREFIX + body + _checksum(body)


def is_api_key_text(key: str) -> bool:
    body = key[len(KEY_PREFIX) : -6]
    return key.startswith(KEY_PREFIX) and len(key) == 42 and key[-6:] == _checksum(body)


async def create_api_key(
    scope: Scope, name: str, scopes: Iterable[str], *, expires_at: datetime | None = None, form_id: str = ""
) -> NewApiKey:
    """`scopes` are names of the permission table, or `all`. Nobody can hand out more than they may themselves. The same
    form sent twice (`form_id`) makes one key, and is told the same."""
    wanted = _check_scopes(scope, scopes)
    name = check_name(name)
    if expires_at is not None and expires_at <= scope.now:
        raise Invalid.field("expires_at", "past", "expires_at lies in the past.")
    key = new_api_key_text(await repeatable(scope, "api-key", form_id, name, *wanted))
    known = digest(scope.settings.secret_keys, "api-key", key)
    made = (await scope.db.execute(select(ApiKey).where(ApiKey.digest == known))).scalar_one_or_none()
    if made is not None and made.revoked_at is None and made.created_at > scope.now - REPEATS_FOR:
        return NewApiKey(made.id, name, key, wanted)
    if made is not None:  # a page that was left open, or gone back to: another key
        return await create_api_key(scope, name, wanted, expires_at=expires_at)
    row = ApiKey(
        id=uuid7(), name=name, digest=known, hint=f"{key[:8]}…{key[-4:]}", scopes=list(wanted), created_at=scope.now,
        created_by=scope.actor.name, expires_at=expires_at,
    )  # fmt: skip
    scope.db.add(row)
    await scope.db.flush()
    route = text("select platform.put_api_key_route(:digest, :api_key)")
    await scope.db.execute(route, {"digest": known.hex(), "api_key": row.id})
    await audit.record(scope, "api_key.created", "api_key", row.id, {"name": name, "scopes": list(wanted)})
    return NewApiKey(row.id, name, key, wanted)


def _check_scopes(scope: Scope, scopes: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(scopes))
    unknown = [name for name in wanted if name != ALL and name not in SCOPES]
    if unknown or not wanted:
        named = f"There is no scope {unknown[0]!r}." if unknown else "Choose at least one scope."
        raise Invalid.field("scopes", "unknown_scope", named)
    is_limited = scope.actor.kind in ("staff", "api_key")
    if is_limited and permissions_of_scopes(wanted) - scope.actor.permissions:
        raise Forbidden("scope_too_wide", "A key cannot do more than you may yourself.")
    return wanted


async def list_api_keys(scope: Scope) -> Sequence[ApiKey]:
    """Those that can be used, newest first, then the revoked ones."""
    query = select(ApiKey).order_by(ApiKey.revoked_at.is_not(None), ApiKey.id.desc())
    return (await scope.db.execute(query)).scalars().all()


async def revoke_api_key(scope: Scope, api_key_id: UUID) -> None:
    key = await scope.db.get(ApiKey, (scope.tenant_id, api_key_id))
    if key is None:
        raise NotFound("api_key")
    if key.revoked_at is not None:
        return
    key.revoked_at = scope.now
    await scope.db.execute(text("select platform.drop_api_key_route(:api_key)"), {"api_key": key.id})
    await audit.record(scope, "api_key.revoked", "api_key", key.id, {"name": key.name})


async def authenticate_api_key(database: Database, presented: str, tenant_id: UUID) -> Actor | None:
    """The key's tenant must be the host's."""
    if not is_api_key_text(presented):
        return None
    keys = database.settings.secret_keys
    found = await resolve_api_key(database, digests(keys, "api-key", presented))
    if found is None or not is_own_tenant(found[0], tenant_id):
        return None
    async with database.scope(found[0], Actor(kind="api_key", id=found[1])) as scope:
        key = await scope.db.get(ApiKey, found)
        if key is None or key.revoked_at is not None or (key.expires_at and key.expires_at <= scope.now):
            return None
        if key.last_used_at is None or scope.now - key.last_used_at > timedelta(minutes=1):
            key.last_used_at = scope.now
        return Actor(kind="api_key", id=key.id, name=key.name, permissions=permissions_of_scopes(key.scopes))


def is_own_tenant(key_of: UUID, host_of: UUID) -> bool:
    return key_of == host_of
