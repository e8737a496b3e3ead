"""The brand's rules for its stations' security: read by every verb of this slice, changed by staff.

Errors: `minimum_profile`, `firmware_hosts` (Invalid).
"""

import re
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from app.kernel import audit
from app.kernel.errors import Invalid
from app.kernel.names import check_name
from app.maintenance.models import SecurityPolicy
from tenants.scope import Scope

MOST_HOSTS = 50
_HOST = re.compile(r"\.?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")
_INTERNAL = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "test")


def is_internal(host: str) -> bool:
    """Names that mean something only inside a network (RFC 6761, RFC 6762, ICANN's `.internal`)."""
    return host.rpartition(".")[2] in _INTERNAL or "." not in host.strip(".")


async def get_policy(scope: Scope) -> SecurityPolicy:
    """The brand's own, or what holds where it has decided nothing (not stored then)."""
    found = (await scope.db.execute(select(SecurityPolicy))).scalar_one_or_none()
    return found or SecurityPolicy(minimum_profile=1, organisation="", firmware_hosts=[])


async def organisation(scope: Scope) -> str:
    """What a station's certificate names as its organisation (OCPP: the CSO's name)."""
    policy = await get_policy(scope)
    if policy.organisation:
        return policy.organisation
    return (await scope.db.execute(text("select name from platform.own_tenant()"))).scalar_one()


async def set_policy(
    scope: Scope, *, minimum_profile: int, organisation: str, firmware_hosts: list[str]
) -> SecurityPolicy:
    """`minimum_profile` is what new stations have at least, and what the pages hold every station against; a station's
    own profile is what the gateway enforces. `firmware_hosts` as in `SecurityPolicy`."""
    if minimum_profile not in (0, 1, 2, 3) or isinstance(minimum_profile, bool):
        raise Invalid.field("minimum_profile", "minimum_profile", "The security profile is 0, 1, 2 or 3.")
    hosts = sorted({host.strip().lower() for host in firmware_hosts if host.strip()})
    for host in hosts:
        if not _HOST.fullmatch(host) or host.rpartition(".")[2].isdigit() or is_internal(host):
            raise Invalid.field(
                "firmware_hosts", "host", f"{host} is no host name such as firmware.example.com."
            )
    if len(hosts) > MOST_HOSTS:
        raise Invalid.field("firmware_hosts", "too_many", f"At most {MOST_HOSTS} hosts.")
    values: dict[str, Any] = {
        "minimum_profile": minimum_profile, "firmware_hosts": hosts, "updated_at": scope.now,
        "organisation": check_name(organisation, "organisation", required=None, most=64),
    }  # fmt: skip
    statement = upsert(SecurityPolicy).values(**values)
    await scope.db.execute(statement.on_conflict_do_update(index_elements=["tenant_id"], set_=values))
    shown = {name: value for name, value in values.items() if name != "updated_at"}
    await audit.record(scope, "security_policy.updated", "tenant", scope.tenant_id, shown)
    return (
        await scope.db.execute(select(SecurityPolicy).execution_options(populate_existing=True))
    ).scalar_one()
