"""Secrets that cross the wire in clear must not stay in our log: station keys and passwords (pure)."""

import json
import re
from typing import Any

HIDDEN = "••••••"
_SECRET_NAMES = re.compile(r"authorizationkey|basicauthpassword|password|passphrase", re.IGNORECASE)
_HINT = re.compile(r"authorizationkey|password|passphrase", re.IGNORECASE)


def redact(value: Any) -> Any:
    """A copy in which the value beside a secret's name is hidden: `{"key": "AuthorizationKey", "value": …}` of
    ChangeConfiguration, `{"variable": {"name": "BasicAuthPassword"}, "attributeValue": …}` of SetVariables, and
    members that are themselves named so."""
    if isinstance(value, list):
        return [redact(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("key") or (value.get("variable") or {}).get("name") if _named(value) else None
    is_secret = isinstance(name, str) and _SECRET_NAMES.search(name) is not None
    return {
        key: HIDDEN
        if (is_secret and key in ("value", "attributeValue"))
        or (_SECRET_NAMES.search(key) and isinstance(item, str))
        else redact(item)
        for key, item in value.items()
    }


def _named(value: dict[str, Any]) -> bool:
    return isinstance(value.get("key"), str) or isinstance(value.get("variable"), dict)


def redact_frame(raw: str) -> str:
    """The raw text as it came, unless it names a secret; then it is written anew with the value hidden."""
    if not _HINT.search(raw):
        return raw
    try:
        return json.dumps(redact(json.loads(raw)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return _HINT.split(raw)[0] + HIDDEN
