"""What protects stored secrets: one-way digests for keys we only compare, sealed texts for values we need back.

A digest of a random 160-bit key needs no slow hash (`isolation.md`: argon2 would make 10,000 reconnects take 40
minutes). Every protected value carries the id of the key that protects it, so that `LIVERY_SECRET_KEY` can rotate.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken

Keys = Mapping[str, bytes]


def new_token(nbytes: int = 32) -> str:
    return secrets.token_urlsafe(nbytes)


def new_station_password() -> str:
    """20 random bytes as 40 lower-case hex characters (ocpp.md, section 1)."""
    return secrets.token_hex(20)


def _mac(key: bytes, purpose: str, value: bytes) -> bytes:
    return hmac.digest(key, purpose.encode() + b"\0" + value, hashlib.sha256)


def digest(keys: Keys, purpose: str, value: bytes | str) -> bytes:
    """HMAC-SHA256 under the newest key. `purpose` keeps a digest of one use from passing for another."""
    raw = value.encode() if isinstance(value, str) else value
    return _mac(next(iter(keys.values())), purpose, raw)


def digests(keys: Keys, purpose: str, value: bytes | str) -> list[bytes]:
    """Under every key, newest first: for look-ups while keys rotate."""
    raw = value.encode() if isinstance(value, str) else value
    return [_mac(key, purpose, raw) for key in keys.values()]


def same(left: bytes, right: bytes) -> bool:
    return hmac.compare_digest(left, right)


def _fernet(key: bytes, purpose: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_mac(key, "seal:" + purpose, b"")))


def seal(keys: Keys, purpose: str, text: str) -> str:
    key_id, key = next(iter(keys.items()))
    return f"{key_id}:{_fernet(key, purpose).encrypt(text.encode()).decode()}"


def unseal(keys: Keys, purpose: str, sealed: str) -> str:
    """Raises ValueError where the key is gone or the text was tampered with."""
    key_id, _, token = sealed.partition(":")
    if key_id not in keys:
        raise ValueError(f"the key {key_id} that sealed this value is not configured")
    try:
        return _fernet(keys[key_id], purpose).decrypt(token.encode()).decode()
    except InvalidToken as error:
        raise ValueError("a sealed value does not open") from error


def station_key_spellings(password: bytes) -> list[bytes]:
    """The same station key as text or as the bytes its hex stands for (ocpp.md 3, no. 6): both in canonical hex."""
    spellings = [password.lower() if len(password) == 40 else password]
    if len(password) == 20:
        spellings.append(password.hex().encode())
    return spellings
