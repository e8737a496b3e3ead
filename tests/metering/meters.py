"""Meters of the tests' own: they sign what they read, in every format, on every curve. Nothing of the product signs."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import ecdsa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.metering.signatures import CURVES, K192, SECP192K1, as_der

ALGORITHMS = {
    "secp192k1": "ECDSA-secp192k1-SHA256", "secp192r1": "ECDSA-secp192r1-SHA256",
    "secp256r1": "ECDSA-secp256r1-SHA256", "secp256k1": "ECDSA-secp256k1-SHA256",
    "secp384r1": "ECDSA-secp384r1-SHA256", "brainpoolP256r1": "ECDSA-brainpool256r1-SHA256",
    "brainpoolP384r1": "ECDSA-brainpool384r1-SHA256",
}  # fmt: skip
ESCAPE = b"\x1b" * 4


@dataclass
class Pair:
    """A key pair; `sign` gives r and s over SHA-256."""

    curve: str
    private: Any = None

    def __post_init__(self) -> None:
        if self.curve == K192:
            self.private = ecdsa.SigningKey.generate(SECP192K1)
        else:
            self.private = ec.generate_private_key(CURVES[self.curve])

    def sign(self, content: bytes) -> tuple[int, int]:
        if self.curve == K192:
            digest = hashlib.sha256(content).digest()
            pair = self.private.sign_digest(digest, sigencode=lambda r, s, _: (r, s), allow_truncate=True)
            return int(pair[0]), int(pair[1])
        return utils.decode_dss_signature(self.private.sign(content, ec.ECDSA(hashes.SHA256())))

    @property
    def size(self) -> int:
        return 24 if self.curve == K192 else (CURVES[self.curve].key_size + 7) // 8

    def raw(self, content: bytes) -> bytes:
        return b"".join(one.to_bytes(self.size, "big") for one in self.sign(content))

    def der(self, content: bytes) -> bytes:
        return utils.encode_dss_signature(*self.sign(content))

    @property
    def public_der(self) -> bytes:
        return as_der(self.private.verifying_key if self.curve == K192 else self.private.public_key())

    @property
    def point(self) -> bytes:
        if self.curve == K192:
            return self.private.verifying_key.to_string("uncompressed")
        return self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@dataclass
class Meter:
    """One meter, its counter and its key. Each call signs the next page."""

    pair: Pair = field(default_factory=lambda: Pair("secp256r1"))
    serial: str = "1EMH0012345678"
    page: int = 41
    identity: str = "04AABBCCDD"

    @property
    def key(self) -> str:
        return self.pair.public_der.hex()

    def ocmf(self, *readings: dict[str, Any], **changes: Any) -> str:
        self.page += 1
        payload = {
            "FV": "1.0", "GI": "Gateway", "GS": "G-1", "GV": "1", "PG": f"T{self.page}", "MV": "EMH", "MM": "eHZ",
            "MS": self.serial, "MF": "1", "IS": True, "IT": "ISO14443", "ID": self.identity,
            "RD": [reading(**one) for one in readings],
        } | changes  # fmt: skip
        signed = json.dumps({name: value for name, value in payload.items() if value is not None})
        signature = {"SA": ALGORITHMS[self.pair.curve], "SD": self.pair.der(signed.encode()).hex()}
        return f"OCMF|{signed}|{json.dumps(signature)}"

    def alfen(self, kind: str, wh: int, at: int, *, status: int = 0, session: int = 7) -> str:
        self.page += 1
        content = (
            b"ADAPTER001" + b"1.00" + b"\x12\x34" + self.serial.encode()[:10].ljust(10, b"\0")
            + status.to_bytes(4, "little") + (0).to_bytes(4, "little") + at.to_bytes(4, "little")
            + bytes([1, 0, 1, 8, 0, 255, 30, 0]) + wh.to_bytes(8, "little")
            + self.identity.encode().ljust(20, b"\0") + session.to_bytes(4, "little") + self.page.to_bytes(4, "little")
        )  # fmt: skip
        point = self.pair.private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        parts = [base64.b32encode(one).decode() for one in (point, content, self.pair.raw(content))]
        return f"AP;{kind};3;{';'.join(parts)};"

    def pcdf(self, kwh: str, *, billable: str = "1", over: str = "1") -> str:
        self.page += 1
        signed = (
            f"128.8.0(ST:260501100000)(CT:260501103000)(CD:003000)(TV:1)(BV:{billable})(CSC:{self.page})(SP:{over})"
            f"(RV:{kwh}*kWh)(SI:{self.identity}*1*tx)(CS:513f627b)(HW:{self.serial[:11]})(DT:0)(PK:{self.pair.point.hex()})"
        )
        return f"{signed}(SG:{self.pair.der(signed.encode()).hex()})"

    def edl40(self, tenth_wh: int, at: int, *, log: bytes = b"\x00\x01") -> str:
        self.page += 1
        server, register = self.serial.encode()[:10].ljust(10, b"\0"), bytes.fromhex("0100011100ff")
        contract, contract_at = self.identity.encode(), at - at % 86400
        block = (
            server + (at + 7200).to_bytes(4, "little") + b"\x00" + (99).to_bytes(4, "little")
            + self.page.to_bytes(4, "little") + register + b"\x1e\xff" + tenth_wh.to_bytes(8, "little") + log
            + contract.ljust(128, b"\0") + (contract_at + 7200).to_bytes(4, "little")
        ).ljust(320, b"\0")  # fmt: skip
        entries = [
            _entry(register, status=_uint(0, 4), at=_local(at), unit=b"\x62\x1e", scaler=b"\x52\xff",
                   value=_int(tenth_wh, 8)),
            _entry(bytes.fromhex("810060080001"), value=b"\x72\x62\x01\x72\x62\x01" + _uint(99, 4)),
            _entry(bytes.fromhex("8180817101ff"), value=_uint(self.page, 4)),
            _entry(bytes.fromhex("8182815401ff"), at=_local(contract_at), value=_octets(contract)),
        ]  # fmt: skip
        return sml_file(server, register, entries, self.pair.raw(block) + log).hex()

    def isa(self, begin_tenth_wh: int, tenth_wh: int, begin_at: int, at: int) -> str:
        self.page += 1
        server, log, station = self.serial.encode()[:10].ljust(10, b"\0"), b"\x00\x01", b"S" * 20
        name, inner, contract = bytes.fromhex("8180816202ff"), b"i" * 66, self.identity.encode()
        now, start = bytes.fromhex("0100010800ff"), bytes.fromhex("010001080080")

        def told(register: bytes, value: int) -> bytes:
            return b"\x18" + register + b"\x1e\xff" + value.to_bytes(8, "little")

        block = (
            server + at.to_bytes(4, "little") + told(now, tenth_wh) + log + inner + contract.ljust(128, b"\0")
            + begin_at.to_bytes(4, "little") + station + told(start, begin_tenth_wh) + name
            + self.page.to_bytes(4, "little")
        ).ljust(320, b"\0")  # fmt: skip
        total = {"status": _uint(0x18, 8), "unit": b"\x62\x1e", "scaler": b"\x52\xff"}
        entries = [
            _entry(bytes.fromhex("8182815401ff"), at=_local(begin_at), value=_octets(contract)),
            _entry(start, at=b"\x72\x62\x02" + _uint(begin_at, 4), value=_int(begin_tenth_wh, 8), **total),
            _entry(bytes.fromhex("8180c7f040ff"), value=_uint(self.page, 4)),
            _entry(bytes.fromhex("8180816101ff"), value=_octets(station)),
            _entry(
                now,
                at=b"\x72\x62\x02" + _uint(at, 4),
                value=_int(tenth_wh, 8),
                signature=_octets(inner),
                **total,
            ),
        ]
        return sml_file(server, name, entries, self.pair.raw(block) + log).hex()


def reading(
    value: Any = "0.0", kind: str = "B", at: str = "2026-05-01T10:00:00,000+0200 S", **changes: Any
) -> dict[str, Any]:
    told = {
        "TM": at,
        "TX": kind,
        "RV": value,
        "RI": "1-0:1.8.0",
        "RU": "kWh",
        "RT": "AC",
        "EF": "",
        "ST": "G",
    }
    return {name: one for name, one in (told | changes).items() if one is not None}


# -- SML --------------------------------------------------------------------------------------------------------------


def sml_file(server: bytes, name: bytes, entries: list[bytes], signature: bytes) -> bytes:
    values = _list(entries)
    body = _list(
        [
            b"\x01",
            _octets(server),
            _octets(name),
            b"\x72\x62\x01" + _uint(1, 4),
            values,
            _octets(signature),
            b"\x01",
        ]
    )
    opened = _message(0x0101, _list([b"\x01", b"\x01", _octets(b"file"), _octets(server), b"\x01", b"\x01"]))
    content = opened + _message(0x0701, body) + _message(0x0201, _list([b"\x01"]))
    padding = -len(content) % 4
    content = content.replace(ESCAPE, ESCAPE * 2) + b"\0" * padding
    whole = ESCAPE + b"\x01" * 4 + content + ESCAPE + bytes([0x1A, padding])
    return whole + crc(whole).to_bytes(2, "little")


def _message(tag: int, body: bytes) -> bytes:
    told = b"\x76" + _octets(b"1") + b"\x62\x00\x62\x00" + b"\x72" + _uint(tag, 4) + body
    return told + b"\x63" + crc(told).to_bytes(2, "little") + b"\0"


def _entry(name: bytes, *, status: bytes = b"\x01", at: bytes = b"\x01", unit: bytes = b"\x01", scaler: bytes = b"\x01",
           value: bytes, signature: bytes = b"\x01") -> bytes:  # fmt: skip
    return _list([_octets(name), status, at, unit, scaler, value, signature])


def _list(items: list[bytes]) -> bytes:
    return bytes([0x70 | len(items)]) + b"".join(items)


def _octets(content: bytes) -> bytes:
    length = len(content) + 1
    if length < 16:
        return bytes([length]) + content
    length += 1
    return bytes([0x80 | length >> 4, length & 15]) + content


def _uint(value: int, size: int) -> bytes:
    return bytes([0x61 + size]) + value.to_bytes(size, "big")


def _int(value: int, size: int) -> bytes:
    return bytes([0x51 + size]) + value.to_bytes(size, "big", signed=True)


def _local(at: int) -> bytes:
    return b"\x72\x62\x03\x73" + _uint(at, 4) + b"\x53\x00\x3c\x53\x00\x3c"


def crc(content: bytes) -> int:
    """CRC-16/X-25 bit by bit, where the product has a table."""
    value = 0xFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0x8408 if value & 1 else value >> 1
    return value ^ 0xFFFF
