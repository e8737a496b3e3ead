"""Questions to the domain name system: three kinds, five seconds each, never asked inside a transaction."""

import asyncio
from typing import Any, Protocol

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from app.kernel.settings import Settings, parse_name_server

TIMEOUT_S = 5.0


class Unanswered(Exception):
    """No name server said yes or no: nothing is known, which is not the same as nothing being there."""


class Resolver(Protocol):
    """An empty list or None: there is no such record. Names are ASCII, without the final dot."""

    async def txt(self, name: str) -> list[str]: ...

    async def cname(self, name: str) -> str | None: ...

    async def addresses(self, name: str) -> list[str]: ...


class DnsResolver:
    """Asks `server` (address, port), else whom this machine asks."""

    def __init__(self, server: tuple[str, int] | None = None) -> None:
        self._server = server

    async def txt(self, name: str) -> list[str]:
        return sorted(
            b"".join(one.strings).decode("utf-8", "replace") for one in await self._ask(name, "TXT")
        )

    async def cname(self, name: str) -> str | None:
        found = await self._ask(name, "CNAME")
        return found[0].target.to_text(omit_final_dot=True).lower() if found else None

    async def addresses(self, name: str) -> list[str]:
        found = await asyncio.gather(self._ask(name, "A"), self._ask(name, "AAAA"))
        return sorted(one.address for answer in found for one in answer)

    async def _ask(self, name: str, kind: str) -> list[Any]:
        try:
            asked = dns.asyncresolver.Resolver(configure=self._server is None)
            if self._server is not None:
                asked.nameservers, asked.port = [self._server[0]], self._server[1]
            absolute = dns.name.from_text(name, dns.name.root)
            answer = await asked.resolve(absolute, kind, lifetime=TIMEOUT_S, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise Unanswered(f"{name} {kind}: {type(error).__name__}") from error
        return list(answer)


def resolver_of(settings: Settings) -> Resolver:
    return DnsResolver(parse_name_server(settings.dns_server) if settings.dns_server else None)
