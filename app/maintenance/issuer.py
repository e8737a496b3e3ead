"""Who signs stations' certificates. `Issuer` is what a CA of any kind must do; `EmbeddedCA` is the one we bring: a key
of the tenant's own, made on first use, sealed with LIVERY_SECRET_KEY.

Signing happens in a job with no transaction open (`prepare` and `trusted` read, `sign` may ask a service outside).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import select, text

from app.kernel import audit
from app.kernel.secrets import seal, unseal
from app.maintenance.models import CertificateAuthority
from tenants.scope import Scope

CA_LIFE = timedelta(days=15 * 365)
LEAF_LIFE = timedelta(days=2 * 365)
CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be certified: the CSR's key for this name, whatever else the CSR asked for."""

    csr: x509.CertificateSigningRequest
    common_name: str
    organisation: str


class Signer(Protocol):
    async def sign(self, wish: Wish, now: datetime) -> list[x509.Certificate]:
        """The leaf, then what a verifier needs between it and a trusted root (none for a root's own work)."""
        ...


class Issuer(Protocol):
    async def prepare(self, scope: Scope) -> Signer:
        """Reads what signing needs; the signer works after the transaction."""
        ...

    async def trusted(self, scope: Scope) -> list[x509.Certificate]:
        """The CA certificates that may stand directly above a station's certificate, and have not expired."""
        ...


class EmbeddedCA:
    async def prepare(self, scope: Scope) -> Signer:
        row = await self.ensure(scope)
        key = serialization.load_pem_private_key(
            unseal(scope.settings.secret_keys, "ca", row.key_sealed).encode(), None
        )
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return _EmbeddedSigner(x509.load_pem_x509_certificate(row.certificate_pem.encode()), key)

    async def trusted(self, scope: Scope) -> list[x509.Certificate]:
        query = select(CertificateAuthority.certificate_pem).where(
            CertificateAuthority.valid_until > scope.now
        )
        rows = (await scope.db.execute(query.order_by(CertificateAuthority.id.desc()))).scalars()
        return [x509.load_pem_x509_certificate(row.encode()) for row in rows]

    async def ensure(self, scope: Scope) -> CertificateAuthority:
        """The newest one that outlives what it signs; else a new one."""
        await scope.db.execute(
            text("select pg_advisory_xact_lock(hashtext(:tenant), hashtext('station_ca'))"),
            {"tenant": str(scope.tenant_id)},
        )
        query = select(CertificateAuthority).where(CertificateAuthority.valid_until > scope.now + LEAF_LIFE)
        query = query.order_by(CertificateAuthority.id.desc()).limit(1)
        found = (await scope.db.execute(query)).scalar_one_or_none()
        return found or await self._make(scope)

    async def _make(self, scope: Scope) -> CertificateAuthority:
        name = (await scope.db.execute(text("select name from platform.own_tenant()"))).scalar_one()
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:40]} charging stations"),
        ])  # fmt: skip
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(scope.now - CLOCKS_DIFFER)
            .not_valid_after(scope.now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True, digital_signature=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()
        row = CertificateAuthority(
            subject=made.subject.rfc4514_string(), certificate_pem=to_pem(made), fingerprint=fingerprint(made),
            key_sealed=seal(scope.settings.secret_keys, "ca", pem), created_at=scope.now,
            valid_from=made.not_valid_before_utc, valid_until=made.not_valid_after_utc,
        )  # fmt: skip
        scope.db.add(row)
        await scope.db.flush()
        # The gateway's TLS must know the CA before it knows whose station knocks.
        await scope.db.execute(
            text("select platform.put_ca_route(:fingerprint, :certificate)"),
            {"fingerprint": row.fingerprint, "certificate": row.certificate_pem},
        )
        await audit.record(
            scope,
            "certificate_authority.created",
            "tenant",
            scope.tenant_id,
            {"fingerprint": row.fingerprint},
        )
        return row


@dataclass(frozen=True, slots=True)
class _EmbeddedSigner:
    authority: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    async def sign(self, wish: Wish, now: datetime) -> list[x509.Certificate]:
        subject = x509.Name([
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, wish.organisation[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, wish.common_name),
        ])  # fmt: skip
        issuer_key = self.authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.authority.subject)
            .public_key(wish.csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCKS_DIFFER)
            .not_valid_after(now + LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True, key_agreement=True), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(wish.csr.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return [made]


def _usage(**granted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: granted.get(name, False) for name in names})


def to_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the DER, lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


EMBEDDED = EmbeddedCA()


def issuer_of(_scope: Scope) -> Issuer:
    """The tenant's CA: where another one is plugged in. Today every tenant has the embedded one."""
    return EMBEDDED
