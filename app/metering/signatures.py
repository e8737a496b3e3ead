"""ECDSA as meters use it: many curves, keys and signatures written in many ways (pure)."""

import base64
import binascii
import hashlib
import re

import ecdsa
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from ecdsa.curves import Curve
from ecdsa.ellipticcurve import CurveFp, PointJacobi
from ecdsa.errors import MalformedPointError

from app.metering.records import Unreadable, Unsupported

# OCMF (table of signature algorithms) and what is seen in the field. cryptography has no secp192k1 (SEC 2, 2.2.1):
# `ecdsa` computes on whatever curve it is given.
CURVES: dict[str, ec.EllipticCurve] = {
    "secp192r1": ec.SECP192R1(), "secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(), "brainpoolP256r1": ec.BrainpoolP256R1(), "brainpoolP384r1": ec.BrainpoolP384R1(),
}  # fmt: skip
HASHES = {"SHA256": hashes.SHA256, "SHA384": hashes.SHA384, "SHA512": hashes.SHA512}
K192 = "secp192k1"
_FIELD = CurveFp(2**192 - 2**32 - 2**12 - 2**8 - 2**7 - 2**6 - 2**3 - 1, 0, 3, 1)
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFE26F2FC170F69466A74DEFD8D
_BASE = PointJacobi(
    _FIELD, 0xDB4FF10EC057E9AE26B07D0280B7F4341DA5D1B1EAE06C7D, 0x9B2F2F6D9C5628A7844163D015BE86344082AA88D95E2F9D, 1,
    _ORDER, generator=True,
)  # fmt: skip
SECP192K1 = Curve(K192, _FIELD, _BASE, (1, 3, 132, 0, 31), K192)
_K192_DER = bytes.fromhex("3046301006072a8648ce3d020106052b8104001f033200")  # and the point, uncompressed
_SPELLED = {name.lower(): name for name in [*CURVES, K192]} | {
    "brainpool256r1": "brainpoolP256r1", "brainpool384r1": "brainpoolP384r1", "prime192v1": "secp192r1",
    "prime256v1": "secp256r1",
}  # fmt: skip
_ENVELOPE = re.compile(r"oca:(base16|base64):asn1:", re.I)  # OCA, Signed Meter Values in OCPP, 3.2.2

Key = ec.EllipticCurvePublicKey | ecdsa.VerifyingKey


def curve_of(name: str) -> str:
    """Errors: `Unsupported`."""
    found = _SPELLED.get(name.lower())
    if found is None:
        raise Unsupported(f"The curve {name[:40]} is not known here.")
    return found


def algorithm_of(name: str) -> tuple[str, str]:
    """`ECDSA-secp256r1-SHA256` -> curve and hash. Errors: `Unsupported`."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0].upper() != "ECDSA" or parts[2].upper() not in HASHES:
        raise Unsupported(f"The signature algorithm {name[:60]} is not known here.")
    return curve_of(parts[1]), parts[2].upper()


def read_bytes(text: str, what: str) -> bytes:
    """Hexadecimal, with whatever stands between the digits, or base64. Errors: `Unreadable`."""
    dense = re.sub(r"[\s:\-]", "", text)
    if re.fullmatch(r"(0x)?([0-9a-fA-F]{2})+", dense):
        return bytes.fromhex(dense.removeprefix("0x"))
    try:
        return base64.b64decode(re.sub(r"\s", "", text), validate=True)
    except (ValueError, binascii.Error):
        raise Unreadable(f"The {what} is neither hexadecimal nor base64.") from None


def read_key(text: str, curve: str | None) -> tuple[str, Key]:
    """A public key as labels, stations and files write it: DER, a point (04…, 02…, 03…) or its two halves; in
    hexadecimal or base64; in the envelope of the OCA or not. `curve` is the signature's, for a bare point.

    Errors: `Unreadable` (no key, or of another curve).
    """
    content = _unwrap(text)
    is_halves = curve is not None and len(content) == 2 * _size(curve)  # which may begin like DER
    if content[:1] == b"\x30" and not is_halves:
        name, key = _from_der(content)
    elif curve is None:
        raise Unreadable("The public key is a bare point, and its curve is not told.")
    else:
        name, key = curve, _from_point(content, curve)
    if curve is not None and name != curve:
        raise Unreadable(f"The public key is of the curve {name}, the signature of {curve}.")
    return name, key


def _unwrap(text: str) -> bytes:
    said = text.strip().strip('"')
    for _ in range(3):
        envelope = _ENVELOPE.match(said)
        if envelope is not None:
            said = said[envelope.end() :]
            if envelope[1].lower() == "base16":
                said = re.sub(r"[^0-9a-fA-F]", "", said)  # 3.2.2: as printed on the meter
        content = read_bytes(said, "public key")
        try:
            inner = content.decode("ascii")
        except UnicodeDecodeError:
            return content
        if envelope is None and (_ENVELOPE.match(inner) or re.fullmatch(r"[0-9a-fA-F\s:]{48,}", inner)):
            said = inner
            continue
        return content
    raise Unreadable("The public key is wrapped too often.")


def _from_der(content: bytes) -> tuple[str, Key]:
    if content.startswith(_K192_DER):
        return K192, _from_point(content[len(_K192_DER) :], K192)
    try:
        key = load_der_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise Unreadable("The public key cannot be read, or its curve is not known here.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Unreadable("The public key is not one of an elliptic curve.")
    return curve_of(key.curve.name), key


def _size(curve: str) -> int:
    """Of one coordinate, in octets."""
    return 24 if curve == K192 else (CURVES[curve].key_size + 7) // 8


def _from_point(content: bytes, curve: str) -> Key:
    point = b"\x04" + content if len(content) == 2 * _size(curve) else content
    try:
        if curve == K192:
            return ecdsa.VerifyingKey.from_string(point, curve=SECP192K1)
        return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[curve], point)
    except (ValueError, MalformedPointError):
        raise Unreadable(f"The public key is no point of the curve {curve}.") from None


def as_der(key: Key) -> bytes:
    """How a key is kept and compared (X.509 SubjectPublicKeyInfo)."""
    if isinstance(key, ecdsa.VerifyingKey):
        return _K192_DER + key.to_string("uncompressed")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def is_signed(key: Key, signed: bytes, signature: tuple[int, int], hash_name: str) -> bool:
    """Whether that key signed those bytes."""
    if not all(signature):
        return False
    if isinstance(key, ecdsa.VerifyingKey):
        if max(signature) >= _ORDER:
            return False
        digest = hashlib.new(hash_name, signed).digest()
        try:
            return key.verify_digest(
                signature, digest, sigdecode=lambda pair, _order: pair, allow_truncate=True
            )
        except ecdsa.BadSignatureError:
            return False
    try:
        key.verify(utils.encode_dss_signature(*signature), signed, ec.ECDSA(HASHES[hash_name]()))
    except InvalidSignature:
        return False
    return True


def read_signature(content: bytes, *, is_raw: bool) -> tuple[int, int]:
    """r and s. Some meters write the integers of their DER without the zero that keeps them positive: they are never
    negative. Errors: `Unreadable`."""
    if is_raw:
        half = len(content) // 2
        if not content or len(content) % 2:
            raise Unreadable("The signature has not two halves.")
        return int.from_bytes(content[:half], "big"), int.from_bytes(content[half:], "big")
    body, rest = _der(content, 0x30)
    first, body = _der(body, 0x02)
    second, body = _der(body, 0x02)
    if rest or body:
        raise Unreadable("The signature has something behind its end.")
    return int.from_bytes(first, "big"), int.from_bytes(second, "big")


def _der(content: bytes, tag: int) -> tuple[bytes, bytes]:
    """What an element holds, and what follows it (X.690, lengths below 64 KiB)."""
    if len(content) < 2 or content[0] != tag:
        raise Unreadable("The signature is not DER.")
    length, start = content[1], 2
    if length in (0x81, 0x82):
        start = 2 + (length & 0x0F)
        length = int.from_bytes(content[2:start], "big")
    elif length >= 0x80:
        raise Unreadable("The signature is not DER.")
    if not length or len(content) < start + length:
        raise Unreadable("The signature is cut off.")
    return content[start : start + length], content[start + length :]
