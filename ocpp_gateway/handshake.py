"""Who is knocking? Path, identity, credentials and version of a station, before the upgrade (ocpp.md 1 and 2)."""

import base64
import binascii
import re
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from types import ModuleType
from urllib.parse import unquote_to_bytes, urlsplit

from app.kernel.secrets import digests, same, station_key_spellings
from app.kernel.settings import Settings
from app.stations.service import IDENTITY_PATTERN
from ocpp_gateway import v16, v201
from tenants.database import Database
from tenants.resolve import StationRoute, report_unclaimed, resolve_station

VERSIONS: dict[str, ModuleType] = {v201.SUBPROTOCOL: v201, v16.SUBPROTOCOL: v16}
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ATTEMPTS, WINDOW_S, ALARMING = 10, 15 * 60.0, 50
STRANGERS = 200  # unknown stations that one address may show us in that time; more are turned away unnoted


@dataclass(frozen=True, slots=True)
class Address:
    """`slug` None: a bare identity, found by identity and key."""

    slug: str | None
    identity: str

    @property
    def name(self) -> str:
        return f"{self.slug or ''}/{self.identity}"


def read_path(target: str) -> Address | None:
    """`/{tenant}/{identity}` or `/{identity}`; a leading `ocpp` and empty segments are ignored, decoded once."""
    path = urlsplit(target).path if "://" in target else target.partition("?")[0]
    parts = [part for part in path.split("/") if part]
    if parts and parts[0] == "ocpp":
        parts = parts[1:]
    if not 1 <= len(parts) <= 2:
        return None
    try:
        identity = unquote_to_bytes(parts[-1]).decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not IDENTITY_PATTERN.fullmatch(identity) or identity in (".", ".."):
        return None
    if len(parts) == 1:
        return Address(None, identity)
    return Address(parts[0], identity) if SLUG.fullmatch(parts[0]) else None


def read_basic(header: str | None) -> tuple[bytes, bytes] | None:
    """User name and password as bytes: passwords need not be UTF-8, and end at no second colon."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(token.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def choose_version(offered: list[str]) -> str | None:
    """Our best among what the station offers, spelled as we know it."""
    known = {name.strip().lower() for entry in offered for name in entry.split(",")}
    return next((name for name in VERSIONS if name in known), None)


@dataclass(slots=True)
class _Tries:
    failed: deque[float]
    total: int = 0
    route: StationRoute | None = None


class Attempts:
    """10 wrong keys in 15 minutes per station and remote address, then 429. Where the station itself was last is no
    such address: nobody can lock it out from its own place."""

    def __init__(self, size: int = 10_000, most: int = ATTEMPTS) -> None:
        self.most = most
        self._tries: OrderedDict[tuple[str, str], _Tries] = OrderedDict()
        self._usual: OrderedDict[str, str] = OrderedDict()
        self._size = size

    def are_too_many(self, name: str, remote: str) -> bool:
        tries = self._tries.get((name, remote))
        if tries is None or self._usual.get(name) == remote:
            return False
        while tries.failed and tries.failed[0] < time.monotonic() - WINDOW_S:
            tries.failed.popleft()
        return len(tries.failed) >= self.most

    def failed(self, name: str, remote: str, route: StationRoute | None = None) -> None:
        tries = self._tries.setdefault((name, remote), _Tries(deque(maxlen=self.most)))
        tries.failed.append(time.monotonic())
        tries.total, tries.route = tries.total + 1, route
        self._tries.move_to_end((name, remote))
        while len(self._tries) > self._size:
            self._tries.popitem(last=False)

    def turned_away(self, name: str, remote: str) -> StationRoute | None:
        """The station whose staff should hear of it: told once, at the 50th attempt from one address."""
        tries = self._tries[name, remote]
        tries.total += 1
        return tries.route if tries.total == ALARMING else None

    def passed(self, name: str, remote: str) -> None:
        self._tries.pop((name, remote), None)
        self._usual[name] = remote
        self._usual.move_to_end(name)
        while len(self._usual) > self._size * 10:
            self._usual.popitem(last=False)


class Doorkeeper:
    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        self.attempts = Attempts()
        self.strangers = Attempts(most=STRANGERS)

    async def admit(
        self, address: Address, authorization: str | None, remote: str, *, is_secure: bool
    ) -> StationRoute | None:
        """The station, or None: the caller answers every None alike, so that nobody learns what exists."""
        basic = read_basic(authorization)
        candidates = self._digests(basic[1]) if basic else []
        route = await resolve_station(self.database, address.slug, address.identity, candidates)
        reason = self._refusal(route, basic, candidates, address, is_secure=is_secure)
        if reason is None:
            self.attempts.passed(address.name, remote)
            return route
        if route is None and not self.strangers.are_too_many("", remote):
            self.strangers.failed("", remote)
            await report_unclaimed(self.database, address.slug or "", address.identity, remote, reason)
        elif route is not None and basic is not None:
            self.attempts.failed(address.name, remote, route)
        return None

    def _digests(self, password: bytes) -> list[bytes]:
        keys = self.settings.secret_keys
        return [
            one for spelling in station_key_spellings(password) for one in digests(keys, "station", spelling)
        ]

    def _refusal(
        self, route: StationRoute | None, basic: tuple[bytes, bytes] | None, candidates: list[bytes], address: Address,
        *, is_secure: bool,
    ) -> str | None:  # fmt: skip
        """Why not, as staff see it among the unclaimed; None lets it in."""
        if route is None:
            return "unknown station" if basic else "no credentials"
        profile = int(route.attributes.get("security_profile", 1))
        if profile == 0 and basic is None:
            return "no credentials" if self.settings.is_production else None
        if profile >= 2 and not is_secure:
            return "TLS is needed"
        if basic is None:
            return "no credentials"
        if basic[0].decode("utf-8", "replace") != address.identity:
            return "the user name is not the identity"
        if not self._matches(route, candidates):
            return "wrong key"
        return None

    def _matches(self, route: StationRoute, candidates: list[bytes]) -> bool:
        """In constant time over all valid keys: both spellings, old and new."""
        found = False
        for known in route.digests:
            for candidate in candidates:
                found |= same(bytes.fromhex(known), candidate)
        return found
