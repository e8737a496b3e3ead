"""Security profiles 0, 1 and 2 on real sockets: what may come in, and over what (OCPP 2.0.1 A00)."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.kernel.settings import Settings
from app.stations import service as stations
from tenants.database import Database
from tests.cast import STAFF
from tests.foreign_stations import Station16
from tests.gateway.conftest import Yard, opened
from tests.journeys.house import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of our own making, for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return paths


async def raise_profile(yard: Yard, profile: int) -> None:
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await stations.update_station(scope, yard.nordlicht.station_id, security_profile=profile)


async def test_profile_2_comes_in_over_tls_with_its_password_and_not_without_tls(
    settings: Settings, database: Database, certificate: tuple[Path, Path]
):
    tls_port = free_port()
    changes = {"ocpp_tls_port": tls_port, "ocpp_tls_cert": certificate[0], "ocpp_tls_key": certificate[1]}
    async with opened(settings, database, **changes) as yard:
        await raise_profile(yard, 2)
        plain = yard.station(yard.nordlicht, Station16)
        with pytest.raises(InvalidStatus) as refused:
            await plain.connect()
        assert refused.value.response.status_code == 401
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        box = Station16(
            f"wss://localhost:{tls_port}/nordlicht/CP1",
            yard.nordlicht.password,
            connect_to=("127.0.0.1", tls_port),
        )
        box.tls = trusting
        await box.connect()
        assert (await box.boot()).status == "Accepted"
        await box.close()
        wrong = Station16(
            f"wss://localhost:{tls_port}/nordlicht/CP1", "0" * 40, connect_to=("127.0.0.1", tls_port)
        )
        wrong.tls = trusting
        with pytest.raises(InvalidStatus):
            await wrong.connect()


async def test_old_tls_is_not_spoken(settings: Settings, database: Database, certificate: tuple[Path, Path]):
    tls_port = free_port()
    changes = {"ocpp_tls_port": tls_port, "ocpp_tls_cert": certificate[0], "ocpp_tls_key": certificate[1]}
    async with opened(settings, database, **changes):
        old = ssl.create_default_context(cafile=str(certificate[0]))
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            async with connect(
                f"wss://localhost:{tls_port}/nordlicht/CP1", host="127.0.0.1", port=tls_port, ssl=old
            ):
                pass


async def test_profile_0_comes_in_without_a_password_only_where_a_station_was_made_so(yard: Yard):
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        made = await stations.create_station(scope, identity="OPEN", security_profile=0)
        assert made.password is None
    box = yard.station(yard.nordlicht, Station16, path="nordlicht/OPEN", password=None)
    await box.connect()
    assert (await box.boot()).status == "Accepted"  # type: ignore[attr-defined]
    await box.close()
    nobody = yard.station(yard.nordlicht, Station16, password=None)
    with pytest.raises(InvalidStatus):
        await nobody.connect()


async def test_a_profile_is_never_lowered(yard: Yard):
    from app.kernel.errors import Refused

    await raise_profile(yard, 2)
    with pytest.raises(Refused) as refused:
        await raise_profile(yard, 1)
    assert refused.value.code == "profile_downgrade"
