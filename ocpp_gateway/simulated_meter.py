"""A simulated station's meter that signs begin and end of each charge (OCMF 1.0 on secp256r1), as a real one does."""

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from ocpp.charge_point import snake_to_camel_case

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of secp256r1 (SEC 2, 2.4.2)


@dataclass
class SigningMeter:
    """`name` makes its key and serial, so that it is the same meter after a restart. Its pages go on with the clock."""

    name: str
    page: int = field(default_factory=lambda: int(time.time()) - 1_790_000_000)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(f"simulated meter {self.name}".encode()).digest()
        self._key = ec.derive_private_key(int.from_bytes(digest, "big") % (_ORDER - 1) + 1, ec.SECP256R1())
        self.serial = f"1SIM{int.from_bytes(digest[:4], 'big'):010d}"

    def record(self, kind: str, wh: float, at: str, token: str) -> str:
        """`kind` is B or E, `at` RFC 3339 in UTC with a Z."""
        self.page += 1
        reading = {
            "TM": f"{at[:19]},000+0000 S", "TX": kind, "RV": round(wh / 1000, 4), "RI": "1-0:1.8.0", "RU": "kWh",
            "RT": "AC", "EF": "", "ST": "G",
        }  # fmt: skip
        payload = {
            "FV": "1.0", "GI": "Livery simulator", "GS": self.serial, "GV": "1", "PG": f"T{self.page}",
            "MS": self.serial, "IS": True, "IT": "ISO14443", "ID": token, "RD": [reading],
        }  # fmt: skip
        signed = json.dumps(payload, separators=(",", ":"))
        signature = self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        return f"OCMF|{signed}|{json.dumps({'SA': 'ECDSA-secp256r1-SHA256', 'SD': signature.hex()})}"

    @property
    def public_key(self) -> str:
        """As 2.x carries it (OCA, Signed Meter Values in OCPP, 3.2.2)."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(f"oca:base16:asn1:{der.hex()}".encode()).decode()

    def value_201(self, record: str) -> dict[str, Any]:
        return {
            "signed_meter_data": base64.b64encode(record.encode()).decode(), "signing_method": "",
            "encoding_method": "OCMF", "public_key": self.public_key,
        }  # fmt: skip

    def value_16(self, record: str) -> str:
        """The same object as JSON inside the value (3.2.1): 1.6 has no other place for the key."""
        return json.dumps(snake_to_camel_case(self.value_201(record)))
