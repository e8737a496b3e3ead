"""Verbs on certificates: stations' own, and those in their stores (OCPP 2.0.1 A02, A03, M03 to M06; 1.6 whitepaper).

Errors: `no_such_kind`, `certificate`, `certificate_type` (Invalid); `certificate_revoked`, `no_certificate_store`
(Refused).
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID
from sqlalchemy import select

from app.kernel import audit, events, queue
from app.kernel.errors import Invalid, NotFound, Refused
from app.kernel.secrets import unseal
from app.maintenance import policy, wire
from app.maintenance.issuer import EMBEDDED, Wish, fingerprint, issuer_of, to_pem
from app.maintenance.models import CertificateAuthority, InstalledCertificate, StationCertificate
from app.stations import commands
from app.stations import service as stations
from app.stations.models import ChargingStation, StationCommand, StationConnection
from tenants.scope import Scope

WARN_AHEAD = timedelta(days=30)
MOST_OPEN = 10  # requests of one station per hour: each costs a signature
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = {"SHA256": hashes.SHA256(), "SHA384": hashes.SHA384(), "SHA512": hashes.SHA512()}


async def version_of(scope: Scope, station_id: UUID) -> str:
    """What the station speaks, or spoke last; before its first connection we take 1.6."""
    query = select(StationConnection.ocpp_version).where(StationConnection.station_id == station_id)
    return (await scope.db.execute(query)).scalar_one_or_none() or "ocpp1.6"


# -- a station's own certificate -----------------------------------------------------------------------------------


async def request_renewal(
    scope: Scope, station_id: UUID, kind: str = "ChargingStationCertificate"
) -> StationCommand:
    """Asks the station for a signing request (A02, TC_074)."""
    version = await version_of(scope, station_id)
    if kind not in wire.CERTIFICATE_KINDS or (wire.is_16(version) and kind != "ChargingStationCertificate"):
        raise Invalid.field("kind", "no_such_kind", "This station has no certificate of that kind.")
    action, payload = wire.ask_for_request(version, kind)
    return await commands.send_command(scope, station_id, action, payload)


async def signing_requested(scope: Scope, station_id: UUID, csr: str, kind: str) -> bool:
    """SignCertificate: whether we will sign. What we refuse is kept with its reason; signing itself is a job."""
    station = await _station(scope, station_id)
    row = StationCertificate(
        station_id=station_id, kind=kind if kind in wire.CERTIFICATE_KINDS else "Combined", csr_pem=csr[:10_000],
        created_at=scope.now,
    )  # fmt: skip
    reason = await _fault_of(scope, station, csr)
    if reason is not None:
        row.status, row.reason = "refused", reason
    scope.db.add(row)
    await scope.db.flush()
    if reason is None:
        await queue.enqueue(scope, "maintenance.issue_certificate", certificate_id=str(row.id))
    scope.publish(f"station:{station_id}", {"what": "certificate"})
    return reason is None


async def _fault_of(scope: Scope, station: ChargingStation, csr: str) -> str | None:
    """In words, what is wrong with a signing request; None when we will sign it."""
    since = scope.now - timedelta(hours=1)
    query = select(StationCertificate.id).where(
        StationCertificate.station_id == station.id, StationCertificate.created_at > since
    )
    if len((await scope.db.execute(query)).all()) >= MOST_OPEN:
        return "Too many requests within an hour."
    try:
        request = _load_csr(csr)
        is_signed = request.is_signature_valid
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "It is no certificate signing request."
    if not is_signed:
        return "Its signature does not hold."
    if not _is_strong(key):
        return "Its key is too weak: RSA of 2048 bits or more, or NIST P-256, P-384 or P-521."
    if _only(request.subject, NameOID.COMMON_NAME) != station.ocpp_identity:
        return "Its common name is not the station's identity."
    named = _only(request.subject, NameOID.ORGANIZATION_NAME)
    wanted = await policy.organisation(scope)
    # A station that names none is given ours; one that names another's is none of ours.
    if named is not None and named.casefold() != wanted.casefold():
        return f"Its organisation is {named[:64]!r} and not {wanted!r}."
    return None


def _load_csr(text: str) -> x509.CertificateSigningRequest:
    """PEM, also where the station left its frame away and sent bare base64."""
    if "-----BEGIN" in text:
        return x509.load_pem_x509_csr(text.encode())
    try:
        return x509.load_der_x509_csr(base64.b64decode("".join(text.split()), validate=True))
    except binascii.Error as error:
        raise ValueError("no base64") from error


def _is_strong(key: Any) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return 2048 <= key.key_size <= 8192
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)


def _only(name: x509.Name, oid: x509.ObjectIdentifier) -> str | None:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if len(found) == 1 else None


async def find_wish(scope: Scope, certificate_id: UUID) -> tuple[StationCertificate, Wish] | None:
    """For the job that signs; None where that is done."""
    row = await scope.db.get(StationCertificate, (scope.tenant_id, certificate_id))
    if row is None or row.status != "requested":
        return None
    station = await _station(scope, row.station_id)
    return row, Wish(_load_csr(row.csr_pem), station.ocpp_identity, await policy.organisation(scope))


async def keep_issued(scope: Scope, certificate_id: UUID, chain: Sequence[x509.Certificate]) -> None:
    """What the CA signed, and CertificateSigned on its way to the station (A02)."""
    row = await scope.db.get(StationCertificate, (scope.tenant_id, certificate_id), with_for_update=True)
    if row is None or row.status != "requested":
        return
    leaf = chain[0]
    _describe(row, leaf)
    pem = row.certificate_pem = "".join(map(to_pem, chain))
    row.status = "issued"
    await scope.db.flush()
    await audit.record(
        scope, "station_certificate.issued", "charging_station", row.station_id, {"serial": row.serial_number}
    )
    version = await version_of(scope, row.station_id)
    action, payload = wire.certificate_signed(version, row.kind, pem)
    await commands.send_command(
        scope, row.station_id, action, payload, source_type="station_certificate", source_id=row.id
    )


def _describe(row: StationCertificate, leaf: x509.Certificate) -> None:
    row.subject, row.serial_number = leaf.subject.rfc4514_string(), f"{leaf.serial_number:x}"
    row.fingerprint = fingerprint(leaf)
    row.valid_from, row.valid_until = leaf.not_valid_before_utc, leaf.not_valid_after_utc


async def certificate_answered(scope: Scope, certificate_id: UUID, command: StationCommand) -> None:
    """The station took it, or would not (A02, TC_A_14). Without an answer it may have: it stays issued."""
    row = await scope.db.get(StationCertificate, (scope.tenant_id, certificate_id))
    if row is None or row.status != "issued":
        return
    if command.status == "accepted":
        row.status = "accepted"
    elif command.status in ("rejected", "failed", "expired"):
        row.status, row.reason = "rejected", "The station did not take it."
    scope.publish(f"station:{row.station_id}", {"what": "certificate"})


async def get_certificate(scope: Scope, certificate_id: UUID) -> StationCertificate:
    row = await scope.db.get(StationCertificate, (scope.tenant_id, certificate_id))
    if row is None:
        raise NotFound("station_certificate")
    return row


async def revoke_certificate(scope: Scope, certificate_id: UUID) -> StationCertificate:
    """From its next connection on the station does not come in with it; its OCSP answer says so at once."""
    row = await get_certificate(scope, certificate_id)
    if row.fingerprint is None or row.status == "revoked":
        raise Refused("certificate_revoked", "This certificate does not hold any more.")
    row.status, row.revoked_at = "revoked", scope.now
    await audit.record(
        scope,
        "station_certificate.revoked",
        "charging_station",
        row.station_id,
        {"serial": row.serial_number},
    )
    await events.emit(
        scope, "StationCertificateRevoked", "station_certificate", row.id, {"serial": row.serial_number or ""}
    )
    scope.publish(f"station:{row.station_id}", {"what": "certificate"})
    return row


async def warn_of_expiry(scope: Scope) -> int:
    """Once per certificate that ends within 30 days, unless a later one stands beside it."""
    query = select(StationCertificate).where(
        StationCertificate.status == "accepted", StationCertificate.warned_at.is_(None),
        StationCertificate.valid_until <= scope.now + WARN_AHEAD,
    )  # fmt: skip
    warned = 0
    for row in (await scope.db.execute(query)).scalars().all():
        row.warned_at = scope.now
        later = select(StationCertificate.id).where(
            StationCertificate.station_id == row.station_id, StationCertificate.kind == row.kind,
            StationCertificate.status == "accepted", StationCertificate.valid_until > row.valid_until,
        )  # fmt: skip
        if (await scope.db.execute(later.limit(1))).first() is None:
            assert row.valid_until is not None
            data = {"valid_until": row.valid_until.isoformat(), "serial": row.serial_number or ""}
            await events.emit(scope, "StationCertificateExpiring", "station_certificate", row.id, data)
            warned += 1
    return warned


# -- at the door (security profile 3) ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Presented:
    """A client certificate whose key the peer has proven to hold: by TLS, ours or a trusted proxy's."""

    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)


async def refusal(
    scope: Scope, station_id: UUID, identity: str, presented: Presented, more_cas: Sequence[x509.Certificate]
) -> str | None:
    """Why this certificate does not open the door for this station; None lets it in (ocpp.md 2, rows 9 and 10).

    `more_cas`: LIVERY_OCPP_TLS_CLIENT_CA, which all brands share: there the organisation tells whose station it is.
    """
    leaf = presented.certificate
    if not leaf.not_valid_before_utc <= scope.now < leaf.not_valid_after_utc:
        return "the certificate has expired"
    if _only(leaf.subject, NameOID.COMMON_NAME) != identity:
        return "the certificate is another station's"
    query = select(StationCertificate).where(StationCertificate.fingerprint == presented.fingerprint)
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is not None and (row.station_id != station_id or row.status == "revoked"):
        return (
            "the certificate is revoked"
            if row.status == "revoked"
            else "the certificate is another station's"
        )
    if _is_issued_by(leaf, await issuer_of(scope).trusted(scope)):
        if row is None or row.status not in ("issued", "accepted"):
            return "the certificate is not known"
    elif _is_issued_by(leaf, [one for one in more_cas if one.not_valid_after_utc > scope.now]):
        named = _only(leaf.subject, NameOID.ORGANIZATION_NAME) or ""
        if named.casefold() != (await policy.organisation(scope)).casefold():
            return "the certificate is another organisation's"
    else:
        return "the certificate is of no CA that we trust"
    return None


async def certificate_used(scope: Scope, station_id: UUID, presented: Presented) -> None:
    """It opened the door. One of an outside CA is written down now, so that it can be revoked and its end is seen."""
    query = select(StationCertificate).where(StationCertificate.fingerprint == presented.fingerprint)
    row = (await scope.db.execute(query)).scalar_one_or_none()
    if row is None:
        row = StationCertificate(
            station_id=station_id, kind="ChargingStationCertificate", csr_pem="", created_at=scope.now,
            certificate_pem=to_pem(presented.certificate),
        )  # fmt: skip
        _describe(row, presented.certificate)
        scope.db.add(row)
    row.status, row.used_at = "accepted", scope.now
    await scope.db.flush()


def _is_issued_by(leaf: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    for authority in authorities:
        try:
            leaf.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


# -- what lies in a station's store --------------------------------------------------------------------------------


async def install_root(scope: Scope, station_id: UUID, certificate_type: str, pem: str) -> StationCommand:
    """M05: what the station shall trust. `pem` is one certificate."""
    version = await version_of(scope, station_id)
    known = wire.ROOTS_16 if wire.is_16(version) else wire.ROOTS
    if certificate_type not in known:
        raise Invalid.field(
            "certificate_type", "certificate_type", f"This station keeps {', '.join(known)} and no other."
        )
    try:
        certificate = x509.load_pem_x509_certificate(pem.strip().encode())
    except ValueError:
        raise Invalid.field("certificate", "certificate", "This is no certificate in PEM.") from None
    text = to_pem(certificate)
    if len(text) > 5500:
        raise Invalid.field(
            "certificate", "certificate", "OCPP carries certificates of at most 5500 characters."
        )
    action, payload = wire.install_certificate(version, certificate_type, text)
    return await _ask_store(scope, station_id, action, payload)


async def install_own_ca(scope: Scope, station_id: UUID) -> StationCommand:
    """The brand's own CA as root of its back end, for installations whose server certificate it signed."""
    row = await EMBEDDED.ensure(scope)
    return await install_root(scope, station_id, "CSMSRootCertificate", row.certificate_pem)


async def read_store(scope: Scope, station_id: UUID, types: Sequence[str] = ()) -> list[StationCommand]:
    """M03: asks for the hash data of these types, of all without any; the answer takes the place of what we knew."""
    unknown = set(types) - set(wire.STORED)
    if unknown:
        raise Invalid.field("certificate_types", "certificate_type", f"There is no type {min(unknown)}.")
    version = await version_of(scope, station_id)
    asked = wire.installed_ids(version, list(types))
    if not asked:
        raise Invalid.field("certificate_types", "certificate_type", "OCPP 1.6 has no such certificates.")
    return [await _ask_store(scope, station_id, action, payload) for action, payload in asked]


async def delete_installed(scope: Scope, installed_id: UUID) -> StationCommand:
    """M04."""
    row = await scope.db.get(InstalledCertificate, (scope.tenant_id, installed_id))
    if row is None:
        raise NotFound("installed_certificate")
    action, payload = wire.delete_certificate(row.hash_data)
    return await _ask_store(scope, row.station_id, action, payload)


async def _ask_store(scope: Scope, station_id: UUID, action: str, payload: dict[str, Any]) -> StationCommand:
    return await commands.send_command(
        scope, station_id, action, payload, source_type="certificate_store", source_id=station_id
    )


async def store_answered(scope: Scope, command: StationCommand) -> None:
    """What the station told of its store; after a change of it we ask anew."""
    if command.action != "GetInstalledCertificateIds":
        if command.status == "accepted":
            await read_store(scope, command.station_id)
        return
    answer = command.answer or {}
    if answer.get("status") not in ("Accepted", "NotFound"):
        return
    told = _told(command.payload, answer)
    # A row lives as long as its certificate is told of: a page that is open still names what it shows.
    for row in await _asked_for(scope, command):
        again = next((one for one in told if one[:2] == (row.certificate_type, row.hash_data)), None)
        if again is None:
            await scope.db.delete(row)
        else:
            told.remove(again)
            row.children, row.seen_at = again[2], scope.now
    for certificate_type, hash_data, children in told:
        scope.db.add(InstalledCertificate(
            station_id=command.station_id, certificate_type=certificate_type, hash_data=hash_data, children=children,
            seen_at=scope.now,
        ))  # fmt: skip
    await scope.db.flush()
    scope.publish(f"station:{command.station_id}", {"what": "certificate"})


async def _asked_for(scope: Scope, command: StationCommand) -> list[InstalledCertificate]:
    asked = command.payload.get("certificateType")
    types = [asked] if isinstance(asked, str) else asked
    query = select(InstalledCertificate).where(InstalledCertificate.station_id == command.station_id)
    if types:
        names = [wire.ROOTS_FROM_16.get(name, name) for name in types]
        query = query.where(InstalledCertificate.certificate_type.in_(names))
    return list((await scope.db.execute(query)).scalars())


def _told(payload: dict[str, Any], answer: dict[str, Any]) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """(type, hash data, children's hash data): 2.0.1 tells chains with their type, 1.6 the hashes of what was asked."""
    chains = answer.get("certificateHashDataChain") or []
    found = [
        (
            str(one.get("certificateType")),
            one["certificateHashData"],
            one.get("childCertificateHashData") or [],
        )
        for one in chains
        if isinstance(one, dict) and isinstance(one.get("certificateHashData"), dict)
    ]
    word = payload.get("certificateType")
    if isinstance(word, str):
        hashes_told = answer.get("certificateHashData") or []
        found += [
            (wire.ROOTS_FROM_16.get(word, word), one, []) for one in hashes_told if isinstance(one, dict)
        ]
    return found


# -- the status of a certificate (M06) -----------------------------------------------------------------------------


async def ocsp_answer(scope: Scope, asked: dict[str, Any]) -> bytes | None:
    """A signed OCSP response (DER) for a certificate our own CA issued; None for anybody else's.

    For those the station names a responder of its own: asking it would be a call to an address of a station's choice.
    """
    algorithm = _HASHES.get(str(asked.get("hashAlgorithm")))
    serial = str(asked.get("serialNumber", ""))
    if algorithm is None or not re.fullmatch(r"[0-9a-fA-F]{1,40}", serial):
        return None
    query = select(CertificateAuthority).where(CertificateAuthority.valid_until > scope.now)
    for row in (await scope.db.execute(query)).scalars():
        authority = x509.load_pem_x509_certificate(row.certificate_pem.encode())
        known = hash_data(authority, authority, algorithm)
        if all(
            str(asked.get(name, "")).lower() == known[name] for name in ("issuerNameHash", "issuerKeyHash")
        ):
            return await _sign_status(scope, row, authority, algorithm, known, serial.lower().lstrip("0"))
    return None


async def _sign_status(
    scope: Scope, row: CertificateAuthority, authority: x509.Certificate, algorithm: hashes.HashAlgorithm,
    known: dict[str, str], serial: str,
) -> bytes | None:  # fmt: skip
    query = select(StationCertificate).where(StationCertificate.serial_number == serial)
    found = (await scope.db.execute(query)).scalars().first()
    status = ocsp.OCSPCertStatus.UNKNOWN
    if found is not None:
        is_revoked = found.status == "revoked"
        status = ocsp.OCSPCertStatus.REVOKED if is_revoked else ocsp.OCSPCertStatus.GOOD
    key = serialization.load_pem_private_key(
        unseal(scope.settings.secret_keys, "ca", row.key_sealed).encode(), None
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    response = (
        ocsp.OCSPResponseBuilder()
        .add_response_by_hash(
            issuer_name_hash=bytes.fromhex(known["issuerNameHash"]),
            issuer_key_hash=bytes.fromhex(known["issuerKeyHash"]), serial_number=int(serial or "0", 16),
            algorithm=algorithm, cert_status=status, this_update=scope.now, next_update=scope.now + timedelta(days=1),
            revocation_time=found.revoked_at if found is not None else None, revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, authority)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return response.public_bytes(serialization.Encoding.DER)


def hash_data(
    certificate: x509.Certificate, issuer: x509.Certificate, algorithm: hashes.HashAlgorithm
) -> dict[str, str]:
    """OCPP's CertificateHashData of a certificate below a CA of ours, in lower-case hex (RFC 6960 4.1.1)."""
    key = issuer.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # ours are; the point is what the BIT STRING holds
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return {
        "hashAlgorithm": algorithm.name.upper(), "issuerNameHash": _digest(algorithm, issuer.subject.public_bytes()),
        "issuerKeyHash": _digest(algorithm, point), "serialNumber": f"{certificate.serial_number:x}",
    }  # fmt: skip


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> str:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize().hex()


async def _station(scope: Scope, station_id: UUID) -> ChargingStation:
    station = await scope.db.get(ChargingStation, (scope.tenant_id, station_id))
    if station is None:
        raise NotFound("charging_station")
    return station


async def station_certificates(scope: Scope, station_id: UUID) -> list[StationCertificate]:
    """Newest first."""
    await stations.get_station(scope, station_id)
    query = select(StationCertificate).where(StationCertificate.station_id == station_id)
    return list((await scope.db.execute(query.order_by(StationCertificate.id.desc()).limit(50))).scalars())


def is_ending(row: StationCertificate, now: datetime) -> bool:
    return row.status == "accepted" and row.valid_until is not None and row.valid_until <= now + WARN_AHEAD
