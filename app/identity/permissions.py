"""Who may do what: the one table. `tests/identity/permissions.txt` is its printed form.

A name is `<things>.<deed>`; an API key's scopes use the same names, and `all` stands for every one of them.
"""

from collections.abc import Iterable

ROLES = ("owner", "manager", "operator", "accountant", "viewer")
SELF = "self"  # whoever is logged in: one's own login
ALL = "all"

_EVERYBODY = ROLES
_OPERATIONS = ("owner", "manager", "operator")
_MONEY = ("owner", "manager", "accountant")
_LEADERS = ("owner", "manager")

PERMISSIONS: dict[str, tuple[str, ...]] = {
    SELF: _EVERYBODY,
    "overview.view": _EVERYBODY,
    "stations.view": _EVERYBODY,
    "stations.manage": _OPERATIONS,
    "stations.command": _OPERATIONS,
    "sessions.view": _EVERYBODY,
    "sessions.manage": _OPERATIONS,
    "id_tokens.view": ("owner", "manager", "operator", "viewer"),
    "id_tokens.manage": _OPERATIONS,
    "id_tokens.reveal": _LEADERS,
    "tariffs.view": _EVERYBODY,
    "tariffs.manage": _LEADERS,
    "invoices.view": _MONEY,
    "invoices.manage": _MONEY,
    "terminal_records.manage": _MONEY,
    "ledger.view": _MONEY,
    "events.view": _OPERATIONS,
    "team.view": _EVERYBODY,
    "team.manage": _LEADERS,
    "api_keys.manage": _LEADERS,
    "settings.view": _EVERYBODY,
    "settings.manage": _LEADERS,
    "brand.manage": _LEADERS,
    "audit.view": ("owner", "manager", "accountant"),
}

# The console has one role: an active platform admin.
ADMIN_PERMISSIONS = frozenset(
    {
        SELF,
        "tenants.view",
        "tenants.manage",
        "domains.view",
        "domains.manage",
        "unclaimed.view",
        "unclaimed.manage",
        "mails.view",
        "sandbox.view",
        "sandbox.manage",
        "isolation.test",
        "gateways.view",
        "platform_audit.view",
        "platform_book.view",
        "platform_book.manage",
    }
)
SCOPES = tuple(name for name in PERMISSIONS if name != SELF)


def permissions_of(role: str) -> frozenset[str]:
    return frozenset(name for name, roles in PERMISSIONS.items() if role in roles)


def permissions_of_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """What an API key may do. A scope that is no longer known gives nothing."""
    wanted = set(scopes)
    return frozenset(SCOPES) if ALL in wanted else frozenset(wanted & set(SCOPES))


def matrix() -> str:
    """The table as people read it."""
    width = max(map(len, PERMISSIONS)) + 2
    head = " " * width + "  ".join(f"{role:<10}" for role in ROLES)
    rows = [
        f"{name:<{width}}" + "  ".join(f"{'yes' if role in roles else '-':<10}" for role in ROLES)
        for name, roles in PERMISSIONS.items()
    ]
    return "\n".join(line.rstrip() for line in (head, *rows)) + "\n"
