"""Who is knocking? Path, identity, credentials and version of a station, before the upgrade (ocpp.md 1 and 2)."""

import base64
import binascii
import re
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from cryptography import x509

from app.kernel.secrets import digests, same, station_key_spellings
from app.kernel.settings import Settings
from app.maintenance import certificates, changes, security
from app.maintenance.certificates import Presented
from app.stations.service import IDENTITY_PATTERN
from ocpp_gateway import v16, v21, v201
from ocpp_gateway.gather import Gather
from tenants.database import Database
from tenants.resolve import StationKnock, StationRoute, report_unclaimed, resolve_stations
from tenants.scope import Actor

# The best first: what a station offers is met with the first of these.
VERSIONS: dict[str, ModuleType] = {one.SUBPROTOCOL: one for one in (v21, v201, v16)}
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ATTEMPTS, WINDOW_S, ALARMING = 10, 15 * 60.0, 50
MAX_CERTIFICATE = 16_384  # characters of a header
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


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the peer brought: Basic authorization, TLS, and a client certificate whose key it has proven to hold."""

    authorization: str | None
    is_secure: bool
    presented: Presented | None = None


class Doorkeeper:
    """`client_cas` are those of LIVERY_OCPP_TLS_CLIENT_CA: every CA that stands directly above a station."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        self.attempts = Attempts()
        self._routes = Gather(partial(resolve_stations, database))
        self.strangers = Attempts(most=STRANGERS)
        path = settings.ocpp_tls_client_ca
        self.client_cas = x509.load_pem_x509_certificates(path.read_bytes()) if path else []

    async def admit(self, address: Address, credentials: Credentials, remote: str) -> StationRoute | None:
        """The station, or None: the caller answers every None alike, so that nobody learns what exists."""
        basic = read_basic(credentials.authorization)
        candidates = self._digests(basic[1]) if basic else []
        route = await self._routes.ask(StationKnock(address.slug, address.identity, tuple(candidates)))
        presented = credentials.presented
        if route is None:
            await self._stranger(address, remote, "unknown station" if basic else "no credentials")
            return None
        profile = int(route.attributes.get("security_profile", 1))
        levels = [profile]
        if isinstance(route.attributes.get("upgrading_to"), int):
            levels.insert(0, route.attributes["upgrading_to"])
        for level in levels:
            reason = self._refusal(level, route, basic, candidates, address, credentials)
            if reason is None and level == 3:
                reason = await self._certificate_refusal(route, presented)
            if reason is None:
                self.attempts.passed(address.name, remote)
                await self._arrived(route, level, candidates, presented)
                return route
        if basic is not None or presented is not None:
            self.attempts.failed(address.name, remote, route)
        return None

    async def _stranger(self, address: Address, remote: str, reason: str) -> None:
        if not self.strangers.are_too_many("", remote):
            self.strangers.failed("", remote)
            await report_unclaimed(self.database, address.slug or "", address.identity, remote, reason)

    async def _certificate_refusal(self, route: StationRoute, presented: Presented | None) -> str | None:
        """In the tenant's own rows; what is wrong with a certificate is an event for its staff (ocpp.md 2, row 9)."""
        if presented is None:
            return "no client certificate"
        async with self.database.scope(route.tenant_id, Actor.station(route.station_id)) as scope:
            reason = await certificates.refusal(
                scope, route.station_id, route.identity, presented, self.client_cas
            )
            if reason is not None:
                await security.record_event(
                    scope, route.station_id, "InvalidChargingStationCertificate", reason, scope.now, scope.now,
                    origin="gateway",
                )  # fmt: skip
        return reason

    async def _arrived(
        self, route: StationRoute, level: int, candidates: list[bytes], presented: Presented | None
    ) -> None:
        """A new key or a higher profile holds from the moment the station came with it (ocpp.md 2, row 11)."""
        by_certificate = presented if level == 3 else None
        if by_certificate is None and not route.attributes.get("is_changing"):
            return
        hexes = {candidate.hex() for candidate in candidates}
        digest = next((known for known in route.digests if known in hexes), "")
        async with self.database.scope(route.tenant_id, Actor.station(route.station_id)) as scope:
            if by_certificate is not None:
                await certificates.certificate_used(scope, route.station_id, by_certificate)
            await changes.station_arrived(scope, route.station_id, level, digest)

    def _digests(self, password: bytes) -> list[bytes]:
        keys = self.settings.secret_keys
        return [
            one for spelling in station_key_spellings(password) for one in digests(keys, "station", spelling)
        ]

    def _refusal(
        self, profile: int, route: StationRoute, basic: tuple[bytes, bytes] | None, candidates: list[bytes],
        address: Address, credentials: Credentials,
    ) -> str | None:  # fmt: skip
        """Why this profile does not let it in; None lets it in (3: as far as can be said without its certificate)."""
        if profile >= 2 and not credentials.is_secure:
            return "TLS is needed"
        if profile == 3:
            return None
        if profile == 0 and basic is None:
            return "no credentials" if self.settings.is_production else None
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


def read_certificate(text: str | None) -> Presented | None:
    """A client certificate in a header, as proxies write it: RFC 9440's `:base64:`, PEM with its line breaks escaped
    (nginx), bare base64 (Traefik). None for what is none."""
    if not text or len(text) > MAX_CERTIFICATE:
        return None
    plain = unquote(text).strip()
    try:
        if plain.startswith("-----BEGIN"):
            return Presented(x509.load_pem_x509_certificate(plain.encode()))
        return Presented(x509.load_der_x509_certificate(base64.b64decode(plain.strip(":"), validate=True)))
    except (ValueError, binascii.Error):
        return None
