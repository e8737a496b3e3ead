"""A yard whose worker runs too, so that what follows an answer happens by itself; and keys for its stations."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.kernel.settings import Settings
from app.stations.models import StationCommand
from app.worker import Worker
from tenants.database import Database
from tests.cast import STAFF, Cast
from tests.conformance.conftest import Yard, opened, rows, until
from tests.journeys.house import free_port

PLAIN = serialization.NoEncryption()


@contextlib.asynccontextmanager
async def manned(settings: Settings, database: Database, **changes: Any) -> AsyncIterator[Yard]:
    """`opened`, and a worker."""
    worker, stop = Worker(settings, heartbeat_s=0.5, stalled_s=5), asyncio.Event()
    # What recurs is other slices' business too, and is asked for by name where a test is about it.
    worker.for_each_tenant = _nothing
    async with opened(settings, database, **changes) as yard:
        running = asyncio.create_task(worker.run(stop))
        try:
            yield yard
        finally:
            stop.set()
            await running


async def _nothing(_job: str) -> None:
    pass


@contextlib.asynccontextmanager
async def tls_yard(
    settings: Settings, database: Database, folder: Path, **changes: Any
) -> AsyncIterator[Yard]:
    """With TLS on a port of its own; `yard.tls_port` and `yard.trusting()` are for stations."""
    pair, port = server_certificate(folder), free_port()
    changes |= {"ocpp_tls_port": port, "ocpp_tls_cert": pair[0], "ocpp_tls_key": pair[1]}
    async with manned(settings.model_copy(update=changes), database, **changes) as yard:
        yard.tls_port, yard.trusting = port, lambda: ssl.create_default_context(cafile=str(pair[0]))  # type: ignore[attr-defined]
        yield yard


def server_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = build(name, name, key.public_key(), key, san="localhost")
    return write(folder, "server", made, key)


def build(
    subject: x509.Name, issuer: x509.Name, public: Any, signing_key: Any, *, san: str | None = None, days: int = 1,
    is_ca: bool = False,
) -> x509.Certificate:  # fmt: skip
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)
    return builder.sign(signing_key, hashes.SHA256())


def write(folder: Path, name: str, certificate: x509.Certificate, key: Any) -> tuple[Path, Path]:
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, PLAIN)
    )
    return paths


def named(common_name: str, organisation: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(parts)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Any, common_name: str, organisation: str | None = None) -> str:
    made = x509.CertificateSigningRequestBuilder().subject_name(named(common_name, organisation))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def with_certificate(context: ssl.SSLContext, folder: Path, pem: str, key: Any) -> ssl.SSLContext:
    """The station's side of profile 3."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    context.load_cert_chain(*write(folder, f"station-{certificate.serial_number}", certificate, key))
    return context


async def by_verb(yard: Yard, cast: Cast, verb: Any, *args: Any, **more: Any) -> Any:
    """What staff do: a verb in a transaction of theirs, with the installation's settings."""
    async with yard.gateway.database.scope(cast.tenant_id, STAFF) as scope:
        return await verb(scope, *args, **more)


async def one(yard: Yard, cast: Cast, model: Any, is_so: Any = lambda _row: True) -> Any:
    """The newest row of this model that is so, waited for."""

    async def look() -> Any:
        found = [row for row in await rows(yard, cast, model) if is_so(row)]
        return found[-1] if found else None

    return await until(look, 10)


async def ended(yard: Yard, cast: Cast, action: str) -> StationCommand:
    """The newest command of this action, once it has ended."""
    return await one(
        yard, cast, StationCommand, lambda row: row.action == action and row.status not in ("queued", "sent")
    )
