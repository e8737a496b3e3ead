"""What not everybody may read (pure): station keys and passwords never stay in our log; card numbers are hidden from
people and keys without `id_tokens.reveal`, wherever a frame, a payload or an answer is shown."""

import json
import re
from typing import Any

HIDDEN = "••••••"
_SECRET_NAMES = re.compile(r"authorizationkey|basicauthpassword|password|passphrase|simpin", re.IGNORECASE)
_HINT = re.compile(r"authorizationkey|password|passphrase|simpin", re.IGNORECASE)


def names_a_secret(name: str) -> bool:
    """Whether a variable or key of this name holds what nobody may read again."""
    return _SECRET_NAMES.search(name) is not None


def redact(value: Any) -> Any:
    """A copy in which the value beside a secret's name is hidden: `{"key": "AuthorizationKey", "value": …}` of
    ChangeConfiguration, `{"variable": {"name": "BasicAuthPassword"}, "attributeValue": …}` of SetVariables (and what
    reports and events say of such a variable), the key of a VPN, and members that are themselves named so."""
    if isinstance(value, list):
        return [redact(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("key") or (value.get("variable") or {}).get("name") if _named(value) else None
    is_secret = isinstance(name, str) and names_a_secret(name)
    is_vpn = "server" in value and "key" in value
    return {
        key: HIDDEN
        if (is_secret and key in ("value", "attributeValue", "actualValue"))
        or (names_a_secret(key) and isinstance(item, str | int))
        or (is_vpn and key == "key")
        else [_without_value(one) for one in item]
        if is_secret and key == "variableAttribute" and isinstance(item, list)
        else redact(item)
        for key, item in value.items()
    }


def _without_value(attribute: Any) -> Any:
    if not isinstance(attribute, dict) or "value" not in attribute:
        return attribute
    return attribute | {"value": HIDDEN}


_CARD_NAMES = frozenset({"idtag", "parentidtag", "idtoken", "additionalidtoken", "groupidtoken"})
_CARD = re.compile(
    r'("(?:idTag|parentIdTag|idToken|additionalIdToken|groupIdToken)"\s*:\s*")((?:[^"\\]|\\.)*)',
    re.IGNORECASE,
)


def mask(value: str) -> str:
    """`04AA11BB22` -> `••••••BB22`: enough for its owner to know it again."""
    return "•" * max(len(value) - 4, 2) + value[-4:] if len(value) > 4 else "•" * len(value)


def mask_cards(value: Any) -> Any:
    """A copy in which the text beside a card's name is masked, also inside JSON that travels as text (DataTransfer)."""
    if isinstance(value, list):
        return [mask_cards(item) for item in value]
    if isinstance(value, dict):
        return {
            key: mask(item) if isinstance(item, str) and key.lower() in _CARD_NAMES else mask_cards(item)
            for key, item in value.items()
        }
    if isinstance(value, str) and value[:1] in ("{", "["):
        return mask_frame(value)
    return value


def mask_frame(raw: str) -> str:
    """The raw text as it came, unless it names a card."""
    if not _CARD_HINT.search(raw):
        return raw
    try:
        return json.dumps(mask_cards(json.loads(raw)), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return _CARD.sub(lambda found: found[1] + mask(found[2]), raw)


_CARD_HINT = re.compile("idtag|idtoken", re.IGNORECASE)


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
