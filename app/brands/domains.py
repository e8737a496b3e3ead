"""A brand's own hosts: claim, proof, daily check, release.

pending -> verified (the TXT record proves who owns it) -> active (and it leads here: the host is served) -> suspended
(three days without its records) -> active again by itself; released by its owner, or by the platform, from any of them.
Two brands may claim the same host; the route goes to the one that first proves it and points it here, and after its
release to the one that has it proven by then.

While a look fails or finds no answer, new links leave the host for the platform's (`own_host`, SQL). The owners are
told when it begins to fail and when it is suspended.

Errors: `host`, `host_reserved`, `already_claimed`, `surface`, `too_many_domains`, `domain_released`.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert

from app.brands.models import Domain
from app.brands.resolver import Resolver, Unanswered, resolver_of
from app.brands.service import own_tenant
from app.identity.limits import is_within
from app.kernel import audit, events
from app.kernel.clock import uuid7
from app.kernel.errors import Invalid, NotFound, Refused, TooMany
from app.kernel.settings import Settings
from tenants.database import Database
from tenants.resolve import normalise_host
from tenants.scope import Actor, Scope

SURFACES = ("driver", "portal")
PREFIX = "_livery-challenge."
# So that the name of the TXT record stays within the 253 letters that a name may have (RFC 1035).
LONGEST_HOST = 253 - len(PREFIX)
MOST_DOMAINS = 20
CHECKS, CHECK_WINDOW = 20, timedelta(minutes=5)
# Three days of a daily job whose rounds do not begin on the second.
PATIENCE = timedelta(days=3) - timedelta(hours=1)
# Name servers that gave no answer for so long count as a missing record.
SILENCE = timedelta(days=2) - timedelta(hours=1)
# Names that no public name server answers for (RFC 6761, 6762, 7686, 8375, 9476; ICANN's .internal).
_PRIVATE = frozenset(
    {"localhost", "local", "localdomain", "internal", "invalid", "onion", "arpa", "alt", "lan", "home"}
)
# Letters that the older IDNA turns into others: the host would not be the one that browsers ask for.
_DEVIANT = frozenset("ßẞς\u200c\u200d")
_SHOWN = 10


# -- what may be claimed -----------------------------------------------------------------------------------------------


def check_host(raw: str, settings: Settings) -> str:
    """The host as DNS writes it. Invalid for what is none, or not a brand's to have (pure)."""
    typed = raw.strip()
    if set(typed) & set(":/@?#[] "):
        raise Invalid.field("host", "host", "Give the host alone, such as charge.example.com.")
    if set(typed) & _DEVIANT:
        raise Invalid.field(
            "host", "host", "Write this name as your registrar shows it, beginning with xn--."
        )
    host = normalise_host(typed)
    if host is None or len(host) > LONGEST_HOST:
        raise Invalid.field("host", "host", "This is no host name such as charge.example.com.")
    labels = host.split(".")
    if labels[-1][0].isdigit():  # 192.0.2.1, and what browsers take for such (0x7f.1)
        raise Invalid.field("host", "host", "An address of numbers cannot be a domain: give a name.")
    if len(labels) < 2 or labels[-1] in _PRIVATE:
        raise Invalid.field(
            "host", "host", "This name is not a public one, so nobody's browser would find it."
        )
    if _is_platforms(host, settings):
        raise Invalid.field("host", "host_reserved", "This name belongs to the platform.")
    return host


def _is_platforms(host: str, settings: Settings) -> bool:
    domain = settings.platform_domain.lower().rstrip(".")
    others = {urlsplit(url).hostname for url in (settings.public_url, settings.ocpp_public_url) if url}
    return host == domain or host.endswith(f".{domain}") or host in others


def spoken(host: str) -> str:
    """As people read it: `laden.müller.example`."""
    try:
        return host.encode("ascii").decode("idna")
    except UnicodeError:
        return host


# -- what must be in DNS, and what is ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found. `problem`: "", `unanswered`, `taken` (another brand's host here)."""

    txt: tuple[str, ...] = ()
    cname: str | None = None
    addresses: tuple[str, ...] = ()
    target_addresses: tuple[str, ...] = ()
    has_txt: bool = False
    has_address: bool = False
    problem: str = ""

    @property
    def is_right(self) -> bool:
        return self.has_txt and self.has_address

    def facts(self, problem: str = "") -> dict[str, Any]:
        """As it is kept and shown: strangers write DNS, so it is cut to a size."""
        return {
            "txt": [value[:300] for value in self.txt[:_SHOWN]], "cname": self.cname,
            "addresses": list(self.addresses[:_SHOWN]), "target_addresses": list(self.target_addresses[:_SHOWN]),
            "has_txt": self.has_txt, "has_address": self.has_address, "problem": problem or self.problem,
        }  # fmt: skip


def txt_value(domain: Domain) -> str:
    return f"livery-{domain.challenge}"


def target_of(settings: Settings, slug: str, surface: str) -> str:
    """Where the host must lead: the brand's own host below the platform's domain."""
    return settings.host_of(surface, slug)


async def look(resolver: Resolver, host: str, value: str, target: str) -> Finding:
    """Never inside a transaction: name servers take their time."""
    try:
        txt, cname = await asyncio.gather(resolver.txt(PREFIX + host), resolver.cname(host))
        has_txt = value in (one.strip() for one in txt)
        if cname == target:
            return Finding(tuple(txt), cname, has_txt=has_txt, has_address=True)
        ours, wanted = await asyncio.gather(resolver.addresses(host), resolver.addresses(target))
    except Unanswered:
        return Finding(problem="unanswered")
    has_address = bool(ours) and set(ours) <= set(wanted)
    return Finding(tuple(txt), cname, tuple(ours), tuple(wanted), has_txt, has_address)


def judge(
    state: str, failing_since: datetime | None, found: Finding, now: datetime, silent_since: datetime | None = None
) -> tuple[str, datetime | None]:  # fmt: skip
    """(state, failing since) after a look. Silent name servers change nothing before `SILENCE` is over (pure)."""
    if found.problem == "unanswered":
        if state != "active" or silent_since is None or now - silent_since < SILENCE:
            return state, failing_since
    elif found.is_right:
        return "active", None
    elif state in ("pending", "verified"):
        return ("verified" if found.has_txt else "pending"), None
    failing_since = failing_since or now
    return ("suspended" if now - failing_since >= PATIENCE else state), failing_since


# -- verbs -------------------------------------------------------------------------------------------------------------


async def list_domains(scope: Scope) -> Sequence[Domain]:
    """Those in use or on their way, by name, then the released ones."""
    query = select(Domain).order_by(Domain.state == "released", Domain.host)
    return (await scope.db.execute(query)).scalars().all()


async def get_domain(scope: Scope, domain_id: UUID, *, lock: bool = False) -> Domain:
    found = await scope.db.get(Domain, (scope.tenant_id, domain_id), with_for_update=lock or None)
    if found is None:
        raise NotFound("domain")
    return found


async def claim(scope: Scope, host: str, surface: str) -> Domain:
    """A new challenge; nothing is served before it is met. A released host begins anew."""
    host = check_host(host, scope.settings)
    if surface not in SURFACES:
        raise Invalid.field("surface", "surface", "Choose who the domain is for: drivers or staff.")
    held = select(func.count()).select_from(Domain).where(Domain.state != "released", Domain.host != host)
    if (await scope.db.execute(held)).scalar_one() >= MOST_DOMAINS:
        raise Refused("too_many_domains", f"A brand has at most {MOST_DOMAINS} domains: release one first.")
    fresh = {
        "surface": surface, "state": "pending", "challenge": secrets.token_hex(16), "last_result": {},
        "created_at": scope.now, "checked_at": None, "verified_at": None, "failing_since": None, "released_at": None,
    }  # fmt: skip
    statement = (
        insert(Domain)
        .values(id=uuid7(), host=host, **fresh)
        .on_conflict_do_update(
            index_elements=["tenant_id", "host"], set_=fresh, where=Domain.state == "released"
        )
        .returning(Domain.id)
    )
    domain_id = (await scope.db.execute(statement)).scalar_one_or_none()
    if domain_id is None:
        raise Invalid.field("host", "already_claimed", f"{host} is in your list already.")
    domain = await scope.db.get_one(Domain, (scope.tenant_id, domain_id), populate_existing=True)
    await audit.record(scope, "domain.claimed", "domain", domain_id, {"host": host, "surface": surface})
    await _tell_console(scope, domain)
    return domain


async def check(
    database: Database, tenant_id: UUID, actor: Actor, domain_id: UUID, *, resolver: Resolver | None = None,
    now: datetime | None = None,
) -> Domain:  # fmt: skip
    """Plan (transaction) -> look (none open) -> conclude (transaction): what was found, and what follows from it."""
    async with database.scope(tenant_id, actor, now=now) as scope:
        domain = await get_domain(scope, domain_id)
        if domain.state == "released":
            raise Refused("domain_released", f"{domain.host} was released: claim it again first.")
        if actor.kind == "staff" and not await is_within(
            scope.redis, tenant_id, "domain-checks", CHECKS, CHECK_WINDOW
        ):
            raise TooMany("You have checked often: name servers need a few minutes to hear of a change.")
        slug, _name, _status = await own_tenant(scope)
    target = target_of(database.settings, slug, domain.surface)
    found = await look(resolver or resolver_of(database.settings), domain.host, txt_value(domain), target)
    async with database.scope(tenant_id, actor, now=now) as scope:
        current = await get_domain(scope, domain_id, lock=True)
        # Released, or claimed anew, while we asked: what was found answers another question.
        if current.state != "released" and current.challenge == domain.challenge:
            await _conclude(scope, current, found)
        return current


async def _conclude(scope: Scope, domain: Domain, found: Finding) -> None:
    before, was_failing, problem = domain.state, domain.failing_since, ""
    silent_since = _silent_since(domain, found, scope.now)
    state, failing_since = judge(before, was_failing, found, scope.now, silent_since)
    if state == "active" and not await _put_route(scope, domain):
        problem = "taken"
        state = "suspended" if before in ("active", "suspended") else "verified"
        failing_since = was_failing
    if state == "suspended" and before != "suspended":
        await _drop_route(scope, domain)
    if found.has_txt:
        domain.verified_at = domain.verified_at or scope.now
    domain.state, domain.failing_since, domain.checked_at = state, failing_since, scope.now
    domain.last_result = found.facts(problem) | (
        {"silent_since": silent_since.isoformat()} if silent_since else {}
    )
    await scope.db.flush()
    if state != before:
        await audit.record(scope, _DEEDS[state], "domain", domain.id, {"host": domain.host})
        if state == "suspended":
            await _tell_owners(scope, "DomainSuspended", domain, {"sentence": headline(domain)[1]})
    elif (failing_since is None) != (was_failing is None):
        deed = "domain.recovered" if failing_since is None else "domain.began_failing"
        await audit.record(scope, deed, "domain", domain.id, {"host": domain.host})
        if state == "active" and (until := served_until(domain)):
            about = {"sentence": headline(domain)[1], "until": until.isoformat()}
            await _tell_owners(scope, "DomainBeganFailing", domain, about)
    await _tell_console(scope, domain)


def _silent_since(domain: Domain, found: Finding, now: datetime) -> datetime | None:
    if found.problem != "unanswered":
        return None
    before = domain.last_result.get("silent_since")
    return datetime.fromisoformat(before) if before else now


def served_until(domain: Domain) -> datetime | None:
    """When a failing domain is suspended if nothing changes: the first look after this (pure)."""
    if domain.state != "active" or domain.failing_since is None:
        return None
    return domain.failing_since + PATIENCE


async def _tell_owners(scope: Scope, kind: str, domain: Domain, about: dict[str, Any]) -> None:
    about = {"host": domain.host, "surface": domain.surface} | about
    await events.emit(scope, kind, "domain", domain.id, about, public=False)


_DEEDS = {
    "pending": "domain.proof_lost", "verified": "domain.verified", "active": "domain.activated",
    "suspended": "domain.suspended",
}  # fmt: skip


async def recheck(
    database: Database, tenant_id: UUID, *, resolver: Resolver | None = None, now: datetime | None = None
) -> None:
    """Every domain that is served, was until its records went away, or waits, proven, to be pointed here or for another
    brand to release it."""
    actor = Actor.job("brands.recheck_domains")
    async with database.scope(tenant_id, actor, now=now) as scope:
        query = (
            select(Domain.id).where(Domain.state.in_(("active", "suspended", "verified"))).order_by(Domain.id)
        )
        domain_ids = (await scope.db.execute(query)).scalars().all()
    for domain_id in domain_ids:
        try:
            await check(database, tenant_id, actor, domain_id, resolver=resolver, now=now)
        except Refused:  # released meanwhile
            continue


async def list_troubled(scope: Scope) -> Sequence[Domain]:
    """Those that fail or are suspended, the longest first."""
    query = select(Domain).where(
        (Domain.state == "suspended") | ((Domain.state == "active") & Domain.failing_since.is_not(None))
    )
    return (await scope.db.execute(query.order_by(Domain.failing_since, Domain.host))).scalars().all()


async def release_for_platform(
    database: Database, actor: Actor, tenant_id: UUID, domain_id: UUID, reason: str
) -> Domain:
    """Platform staff take a host out of service: it stands in both audit logs, and the owners are told.

    NotFound, Refused `released`.
    """
    async with database.scope(tenant_id, actor) as scope:
        domain = await get_domain(scope, domain_id)
        if domain.state == "released":
            raise Refused("released", "This host is released already.")
    async with database.platform_scope(
        actor, reason, tenant_id=tenant_id
    ) as scope:  # first: no deed without its line
        await scope.write_audit("domain.released", {"host": domain.host})
    async with database.scope(tenant_id, actor) as scope:
        domain = await release(scope, domain_id, reason)
        await _tell_owners(scope, "DomainTakenOut", domain, {"reason": reason})
    return domain


async def release(scope: Scope, domain_id: UUID, reason: str = "") -> Domain:
    """The host is nobody's from now on; to have it again takes a fresh challenge."""
    domain = await get_domain(scope, domain_id, lock=True)
    if domain.state == "released":
        return domain
    await _drop_route(scope, domain)
    domain.state, domain.released_at, domain.failing_since = "released", scope.now, None
    await scope.db.flush()
    why = {"reason": reason} if reason else {}
    await audit.record(scope, "domain.released", "domain", domain.id, {"host": domain.host} | why)
    await _tell_console(scope, domain)
    return domain


async def _put_route(scope: Scope, domain: Domain) -> bool:
    query = text("select platform.put_host_route(:host, :surface, :domain)")
    values = {"host": domain.host, "surface": domain.surface, "domain": domain.id}
    return (await scope.db.execute(query, values)).scalar_one()


async def _drop_route(scope: Scope, domain: Domain) -> None:
    await scope.db.execute(text("select platform.drop_host_route(:host)"), {"host": domain.host})


async def _tell_console(scope: Scope, domain: Domain) -> None:
    """The console reads schema `platform` only."""
    result = domain.last_result
    facts = {
        "state": domain.state, "problem": result.get("problem", ""),
        "has_txt": result.get("has_txt", False), "has_address": result.get("has_address", False),
        "claimed_at": domain.created_at.isoformat(),
        "checked_at": domain.checked_at.isoformat() if domain.checked_at else None,
        "failing_since": domain.failing_since.isoformat() if domain.failing_since else None,
    }  # fmt: skip
    query = text("select platform.put_domain(:host, :surface, :domain, cast(:facts as jsonb))")
    values = {"host": domain.host, "surface": domain.surface, "domain": domain.id, "facts": json.dumps(facts)}
    await scope.db.execute(query, values)


# -- in words ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """One DNS record to set. `is_right` is None before the first look that was answered."""

    type: str
    name: str
    value: str
    is_right: bool | None
    found: tuple[str, ...]
    words: str


def records(domain: Domain, target: str) -> list[Record]:
    """What must be in DNS, beside what was found there (pure)."""
    result = domain.last_result
    is_known = bool(result) and result["problem"] != "unanswered"
    nothing = "No answer at the last check." if result else _NOT_YET
    txt = Record("TXT", PREFIX + domain.host, txt_value(domain), None, (), nothing)
    address = Record("CNAME", domain.host, target, None, (), nothing)
    if not is_known:
        return [txt, address]
    found = tuple(result["txt"])
    has_txt, has_address = result["has_txt"], result["has_address"]
    txt = Record(txt.type, txt.name, txt.value, has_txt, found, _txt_words(has_txt, found))
    leads = (result["cname"],) if result["cname"] else tuple(result["addresses"])
    words = _address_words(has_address, leads, tuple(result["target_addresses"]))
    return [txt, Record(address.type, address.name, address.value, has_address, leads, words)]


_NOT_YET = "Not looked for yet."


def _txt_words(is_right: bool, found: tuple[str, ...]) -> str:
    if is_right:
        return "Found, with the right value."
    return "Found, but with another value." if found else "Not found."


def _address_words(is_right: bool, leads: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    if is_right:
        return "Found, and it leads here."
    here = f" Addresses that lead here: {', '.join(wanted)}." if wanted else ""
    return f"Found, but it leads elsewhere.{here}" if leads else f"Not found.{here}"


def headline(domain: Domain) -> tuple[str, str]:
    """(kind of alert, sentence): where it stands and what to do next (pure)."""
    problem = domain.last_result.get("problem", "")
    if domain.state == "released":
        return "info", "Released. To have it again, claim it anew: the record to set will be another one."
    if problem == "taken":
        return "error", (
            "Another brand on this platform is served under this name. Once they release it, or their records have been"
            " gone for three days, it is yours with the next daily look, or at once when you check."
        )  # fmt: skip
    if problem == "unanswered" and domain.failing_since is None:
        return "warning", (
            "The name servers gave no answer. New links lead to the platform's name for now; after two days of silence"
            " it counts as failing. Try again in a few minutes."
        ) if domain.state == "active" else (
            "The name servers gave no answer. Nothing has changed; try again in a few minutes."
        )  # fmt: skip
    if domain.state == "active":
        if domain.failing_since is None:
            return "success", "It works. Leave both records in place: they are looked at every day."
        cause = "Its name servers give no answer" if problem == "unanswered" else "A record is missing"
        return "warning", (
            f"{cause}, so new links lead to the platform's name. If that is not mended within three days, it is no"
            " longer served."
        )  # fmt: skip
    if domain.state == "suspended":
        return "error", (
            "Its records were gone or without answer for three days, so it is not served. Set them and it comes back."
        )  # fmt: skip
    if domain.state == "verified":
        return "info", "It is proven to be yours. Now point it here."
    if domain.checked_at is None:
        return "info", "Set both records where your domain is managed, then check."
    return "warning", "Something is missing yet. A new record can take an hour to be seen everywhere."
