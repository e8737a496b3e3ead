"""Certificates: stations' own (2.0.1 A02, A03), those in their stores (M03 to M05), and their status (M06)."""

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol

from app.kernel.errors import Invalid
from app.kernel.events import Event
from app.kernel.settings import Settings
from app.maintenance import certificates
from app.maintenance.models import (
    CertificateAuthority,
    InstalledCertificate,
    SecurityEvent,
    StationCertificate,
)
from app.stations import service as stations
from tenants.database import Database
from tests.cast import STAFF
from tests.conformance.conftest import Station16, Station201, Yard, case, rows, until
from tests.conformance.trust import (
    build,
    by_verb,
    csr,
    ec_key,
    ended,
    manned,
    named,
    one,
    tls_yard,
    with_certificate,
    write,
)

pytestmark = pytest.mark.anyio
BOOT16 = {"chargePointModel": "Fjord 22", "chargePointVendor": "Wattwerk"}
TYPES = ("CSMSRootCertificate", "ManufacturerRootCertificate", "V2GRootCertificate", "MORootCertificate")


class Renewing:
    """A station that makes a key when asked, sends its request, and keeps what it is given."""

    def __init__(
        self, box: Any, kind: str | None, takes: str = "Accepted", organisation: str | None = None
    ) -> None:
        self.box, self.kind, self.organisation = box, kind, organisation
        self.key, self.pem, self.answer = ec.generate_private_key(ec.SECP256R1()), "", {}
        for trigger in ("TriggerMessage", "ExtendedTriggerMessage"):
            box.answers[trigger] = self.told
            box.reactions[trigger] = self.sign
        box.answers["CertificateSigned"] = self.take
        self.takes, self.signed = takes, {}

    def told(self, payload: dict[str, Any]) -> dict[str, Any]:
        is_ours = payload["requestedMessage"].startswith("Sign")
        return {"status": "Accepted" if is_ours else "Rejected"}

    async def sign(self, payload: dict[str, Any]) -> None:
        if payload["requestedMessage"].startswith("Sign"):
            more = {"certificateType": self.kind} if self.kind else {}
            request = csr(self.key, self.box.identity, self.organisation)
            self.answer = await self.box.say("SignCertificate", {"csr": request, **more})

    def take(self, payload: dict[str, Any]) -> dict[str, Any]:
        self.signed, self.pem = payload, payload["certificateChain"]
        return {"status": self.takes}


@case("1.6", "TC_074_CSMS")
@case("2.0.1", "TC_A_11_CSMS", "TC_A_12_CSMS", "TC_A_13_CSMS", "TC_A_14_CSMS")
async def test_a_station_renews_its_certificate_when_asked_and_may_decline_what_it_gets(
    settings: Settings, database: Database
):
    async with manned(settings, database) as yard:
        cast = yard.nordlicht
        box = yard.station(cast, Station201)
        await box.connect()
        await box.boot()
        renewing = Renewing(box, "ChargingStationCertificate", organisation=cast.company.name)
        for kind, trigger, wire, takes in (
            (
                "ChargingStationCertificate",
                "SignChargingStationCertificate",
                "ChargingStationCertificate",
                "Accepted",
            ),
            ("V2GCertificate", "SignV2GCertificate", "V2GCertificate", "Accepted"),
            ("Combined", "SignCombinedCertificate", None, "Accepted"),
            (
                "ChargingStationCertificate",
                "SignChargingStationCertificate",
                "ChargingStationCertificate",
                "Rejected",
            ),
        ):
            renewing.kind, renewing.takes = wire, takes
            before = len(await rows(yard, cast, StationCertificate))
            await by_verb(yard, cast, certificates.request_renewal, cast.station_id, kind)

            async def answered(before: int = before, takes: str = takes) -> StationCertificate | None:
                found = await rows(yard, cast, StationCertificate)
                is_done = len(found) > before and found[-1].status == takes.lower()
                return found[-1] if is_done else None

            kept = await until(answered)
            assert box.asked[-2] == ("TriggerMessage", {"requestedMessage": trigger})
            assert (
                renewing.answer == {"status": "Accepted"} and renewing.signed.get("certificateType") == wire
            )
            leaf = x509.load_pem_x509_certificate(renewing.pem.encode())
            assert leaf.public_key() == renewing.key.public_key()
            assert leaf.subject == x509.Name(list(reversed(list(named("CP1", cast.company.name)))))
            assert (kept.kind, kept.serial_number) == (kind, f"{leaf.serial_number:x}")
            assert kept.valid_until == leaf.not_valid_after_utc
        await box.close()

        old = yard.station(yard.solmark, Station16)
        await old.connect()
        await old.say("BootNotification", BOOT16)
        renewing = Renewing(old, None)
        await by_verb(yard, yard.solmark, certificates.request_renewal, yard.solmark.station_id)
        await one(yard, yard.solmark, StationCertificate, lambda row: row.status == "accepted")
        assert old.asked[0] == ("ExtendedTriggerMessage", {"requestedMessage": "SignChargePointCertificate"})
        (authority,) = await rows(yard, yard.solmark, CertificateAuthority)
        root = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
        x509.load_pem_x509_certificate(renewing.pem.encode()).verify_directly_issued_by(root)
        await old.close()


async def test_a_request_that_is_not_the_stations_own_is_declined_and_says_why(yard: Yard):
    box = yard.station(yard.nordlicht, Station201)
    await box.connect()
    await box.boot()
    key = ec.generate_private_key(ec.SECP256R1())
    request = csr(key, "CP1")
    lines = request.splitlines()
    forged = "\n".join([*lines[:-2], "A" * (len(lines[-2]) - 1) + "=", lines[-1]])
    weak = csr(ec.generate_private_key(ec.SECP192R1()), "CP1")
    for wrong, why in (
        ("nonsense", "no certificate signing request"), (forged, ""), (csr(key, "CP2"), "common name"),
        (csr(key, "CP1", "Solmark"), "organisation"), (weak, "too weak"),
    ):  # fmt: skip
        assert await box.say("SignCertificate", {"csr": wrong}) == {"status": "Rejected"}
        kept = (await rows(yard, yard.nordlicht, StationCertificate))[-1]
        assert kept.status == "refused" and why in kept.reason
    await box.close()


@case("1.6", "TC_087_CSMS")
@case("2.0.1", "TC_A_07_CSMS", "TC_A_08_CSMS")
async def test_profile_3_comes_in_by_its_certificate_alone_and_by_nobody_elses(
    settings: Settings, database: Database, tmp_path: Path
):
    async with tls_yard(settings, database, tmp_path) as yard:
        certified = {}
        for cast, kind in ((yard.nordlicht, Station16), (yard.solmark, Station201)):
            box = yard.station(cast, kind)
            await box.connect()
            await box.boot()  # type: ignore[attr-defined]
            renewing = Renewing(box, "ChargingStationCertificate" if kind is Station201 else None)
            await by_verb(yard, cast, certificates.request_renewal, cast.station_id)
            await one(yard, cast, StationCertificate, lambda row: row.status == "accepted")
            await box.close()
            await by_verb(yard, cast, stations.update_station, cast.station_id, security_profile=3)
            certified[cast.company.slug] = renewing
        await yard.gateway.learn_cas()

        def knocking(kind: Any, slug: str, renewing: Renewing | None) -> Any:
            port = yard.tls_port
            made = kind(f"wss://localhost:{port}/{slug}/CP1", None, connect_to=("127.0.0.1", port))
            made.tls = yard.trusting()
            if renewing is not None:
                with_certificate(made.tls, tmp_path, renewing.pem, renewing.key)
            return made

        for kind, slug in ((Station16, "nordlicht"), (Station201, "solmark")):
            box = knocking(kind, slug, certified[slug])
            await box.connect()
            assert (await box.boot()).status == "Accepted"
            await box.close()
        with pytest.raises(InvalidStatus) as refused:
            await knocking(Station16, "nordlicht", None).connect()
        assert refused.value.response.status_code == 401
        # Another brand's station of the same name: its CA is known to TLS, and opens no door here.
        with pytest.raises(InvalidStatus):
            await knocking(Station16, "nordlicht", certified["solmark"]).connect()
        event = await one(yard, yard.nordlicht, SecurityEvent)
        assert (event.type, event.origin, event.is_grave) == (
            "InvalidChargingStationCertificate",
            "gateway",
            True,
        )
        # A CA nobody knows does not even get through TLS.
        stranger = Renewing(knocking(Station16, "nordlicht", None), None)
        made = build(named("CP1"), named("Nobody"), stranger.key.public_key(), stranger.key)
        stranger.pem = write(tmp_path, "stranger", made, stranger.key)[0].read_text()
        with pytest.raises((OSError, EOFError, Exception)) as broken:
            await knocking(Station16, "nordlicht", stranger).connect()
        assert not isinstance(broken.value, InvalidStatus)
        own = (await rows(yard, yard.nordlicht, StationCertificate))[-1]
        assert own.used_at is not None
        await by_verb(yard, yard.nordlicht, certificates.revoke_certificate, own.id)
        with pytest.raises(InvalidStatus):
            await knocking(Station16, "nordlicht", certified["nordlicht"]).connect()


async def test_a_ca_that_all_brands_share_opens_only_the_door_of_the_organisation_it_names(
    settings: Settings, database: Database, tmp_path: Path
):
    """LIVERY_OCPP_TLS_CLIENT_CA: both brands own a CP1, and one CA has signed for both."""
    ca_key, key = ec_key(), ec_key()
    root = build(named("Shared CA"), named("Shared CA"), ca_key.public_key(), ca_key, is_ca=True, days=30)
    ca_file = write(tmp_path, "shared", root, ca_key)[0]

    async with tls_yard(settings, database, tmp_path, ocpp_tls_client_ca=ca_file) as yard:
        for cast in (yard.nordlicht, yard.solmark):
            await by_verb(yard, cast, stations.update_station, cast.station_id, security_profile=3)

        async def is_let_in(slug: str, common_name: str, organisation: str | None, days: int = 20) -> bool:
            leaf = build(named(common_name, organisation), root.subject, key.public_key(), ca_key, days=days)
            box = Station16(
                f"wss://localhost:{yard.tls_port}/{slug}/CP1", None, connect_to=("127.0.0.1", yard.tls_port)
            )
            pem = leaf.public_bytes(certificates.serialization.Encoding.PEM).decode()
            box.tls = with_certificate(yard.trusting(), tmp_path, pem, key)
            try:
                await box.connect()
            except (InvalidStatus, OSError, EOFError, ConnectionClosed, InvalidMessage):
                return False
            await box.close()
            return True

        name = yard.nordlicht.company.name
        assert await is_let_in("nordlicht", "CP1", name)
        assert not await is_let_in("solmark", "CP1", name)
        assert not await is_let_in("nordlicht", "CP2", name)
        assert not await is_let_in("nordlicht", "CP1", None)
        assert not await is_let_in("nordlicht", "CP1", name, days=-1), "expired"
        # Known from its first visit on, so that its end is seen and it can be revoked.
        (kept,) = await rows(yard, yard.nordlicht, StationCertificate)
        assert kept.status == "accepted" and kept.used_at is not None
        assert await by_verb(yard, yard.nordlicht, certificates.warn_of_expiry) == 1


async def test_behind_a_proxy_the_certificate_counts_only_from_a_trusted_peer(
    settings: Settings, database: Database
):
    async with manned(settings, database, trusted_proxies=("127.0.0.1",)) as yard:
        cast = yard.nordlicht
        box = yard.station(cast, Station16)
        await box.connect()
        await box.say("BootNotification", BOOT16)
        renewing = Renewing(box, None)
        await by_verb(yard, cast, certificates.request_renewal, cast.station_id)
        await one(yard, cast, StationCertificate, lambda row: row.status == "accepted")
        await box.close()
        await by_verb(yard, cast, stations.update_station, cast.station_id, security_profile=3)
        der = x509.load_pem_x509_certificate(renewing.pem.encode()).public_bytes(
            certificates.serialization.Encoding.DER
        )
        spellings = {
            "Client-Cert": f":{base64.b64encode(der).decode()}:", "X-SSL-Client-Cert": quote(renewing.pem),
            "X-Forwarded-Tls-Client-Cert": base64.b64encode(der).decode(),
        }  # fmt: skip
        for name, value in spellings.items():
            for proto, is_in in (("wss", True), ("ws", False)):
                assert await knock(yard, {name: value, "X-Forwarded-Proto": proto}) is is_in
        assert not await knock(yard, {"X-Forwarded-Proto": "wss"})
        yard.gateway.settings = settings  # the same peer, no longer trusted
        assert not await knock(yard, {"Client-Cert": spellings["Client-Cert"], "X-Forwarded-Proto": "wss"})


async def knock(yard: Yard, headers: dict[str, str]) -> bool:
    address = f"ws://127.0.0.1:{yard.port}/nordlicht/CP1"
    try:
        async with connect(address, subprotocols=[Subprotocol("ocpp1.6")], additional_headers=headers):
            return True
    except InvalidStatus as refused:
        assert refused.response.status_code == 401
        return False


@case("2.0.1", "TC_M_01_CSMS", "TC_M_02_CSMS", "TC_M_03_CSMS", "TC_M_04_CSMS", "TC_M_05_CSMS")
@case("1.6", "TC_075_1_CSMS", "TC_075_2_CSMS")
async def test_roots_are_installed_and_a_station_that_cannot_says_so(settings: Settings, database: Database):
    key = ec.generate_private_key(ec.SECP256R1())
    root = build(named("Root"), named("Root"), key.public_key(), key, is_ca=True)
    pem = root.public_bytes(certificates.serialization.Encoding.PEM).decode()
    async with manned(settings, database) as yard:
        for cast, kind, types in (
            (yard.nordlicht, Station201, {name: name for name in TYPES}),
            (yard.solmark, Station16, {
                "ManufacturerRootCertificate": "ManufacturerRootCertificate",
                "CSMSRootCertificate": "CentralSystemRootCertificate",
            }),
        ):  # fmt: skip
            box = yard.station(cast, kind)
            box.answers["InstallCertificate"] = {"status": "Accepted"}
            box.answers["GetInstalledCertificateIds"] = {"status": "NotFound"}
            await box.connect()
            await box.boot()  # type: ignore[attr-defined]
            for name, word in types.items():
                sent = await by_verb(yard, cast, certificates.install_root, cast.station_id, name, pem)
                done = await one(
                    yard,
                    cast,
                    type(sent),
                    lambda row, sent=sent: row.id == sent.id and row.ended_at is not None,
                )
                assert (done.status, done.answer) == ("accepted", {"status": "Accepted"})
                installs = [payload for action, payload in box.asked if action == "InstallCertificate"]
                assert installs[-1] == {"certificateType": word, "certificate": pem}
            # What it has now is asked for by itself.
            await ended(yard, cast, "GetInstalledCertificateIds")
            box.answers["InstallCertificate"] = {"status": "Failed"}
            sent = await by_verb(yard, cast, certificates.install_root, cast.station_id, TYPES[0], pem)
            done = await one(
                yard, cast, type(sent), lambda row, sent=sent: row.id == sent.id and row.ended_at is not None
            )
            assert (done.status, done.answer) == ("rejected", {"status": "Failed"})
            with pytest.raises(Invalid):
                await by_verb(yard, cast, certificates.install_root, cast.station_id, TYPES[0], "no PEM")
            await box.close()


def told(certificate_type: str, algorithm: str, n: int) -> dict[str, Any]:
    hashed = {
        "hashAlgorithm": algorithm,
        "issuerNameHash": f"{n:064x}",
        "issuerKeyHash": "ab" * 32,
        "serialNumber": "1f",
    }
    return {"certificateType": certificate_type, "certificateHashData": hashed}


@case(
    "2.0.1", *(f"TC_M_{n}_CSMS" for n in (12, 13, 14, 15, 16, 17, 18, 19, 20, 21)),
)  # fmt: skip
@case("1.6", "TC_076_CSMS")
async def test_what_a_station_has_installed_is_listed_by_type_and_can_be_deleted(
    settings: Settings, database: Database
):
    store = [
        *(told("CSMSRootCertificate", f"SHA{bits}", bits) for bits in (256, 384, 512)),
        told("ManufacturerRootCertificate", "SHA256", 1), told("V2GRootCertificate", "SHA256", 2),
        told("MORootCertificate", "SHA256", 3),
        told("V2GCertificateChain", "SHA256", 4) | {
            "childCertificateHashData": [told("", "SHA256", 5)["certificateHashData"]]
        },
    ]  # fmt: skip

    def ids(payload: dict[str, Any]) -> dict[str, Any]:
        wanted = payload.get("certificateType") or [one["certificateType"] for one in store]
        found = [one for one in store if one["certificateType"] in wanted]
        return {"status": "Accepted", "certificateHashDataChain": found} if found else {"status": "NotFound"}

    async with manned(settings, database) as yard:
        cast = yard.nordlicht
        box = yard.station(cast, Station201)
        box.answers["GetInstalledCertificateIds"] = ids
        await box.connect()
        await box.boot()  # type: ignore[attr-defined]

        async def read(*types: str) -> list[InstalledCertificate]:
            (sent,) = await by_verb(yard, cast, certificates.read_store, cast.station_id, types)
            await one(yard, cast, type(sent), lambda row: row.id == sent.id and row.ended_at is not None)

            async def stored() -> list[Any]:
                found = await rows(yard, cast, Event, Event.kind == "CommandEnded")
                is_handled = any(row.source_id == sent.id for row in found)
                kept = await rows(yard, cast, InstalledCertificate)
                wanted = len([one for one in store if not types or one["certificateType"] in types])
                kept = [row for row in kept if not types or row.certificate_type in types]
                return [kept] if is_handled and len(kept) == wanted else []

            return (await until(stored))[0]

        for name in (
            "CSMSRootCertificate",
            "ManufacturerRootCertificate",
            "V2GRootCertificate",
            "MORootCertificate",
        ):
            found = await read(name)
            assert [row.hash_data for row in found] == [
                one["certificateHashData"] for one in store if one["certificateType"] == name
            ]
        (chain,) = await read("V2GCertificateChain")
        assert chain.children[0]["issuerNameHash"] == f"{5:064x}"
        assert len(await read("CSMSRootCertificate", "ManufacturerRootCertificate")) == 4
        assert box.asked[-1][1] == {"certificateType": ["CSMSRootCertificate", "ManufacturerRootCertificate"]}
        assert len(await read()) == 7 and box.asked[-1][1] == {}

        box.answers["DeleteCertificate"] = {"status": "Failed"}
        await by_verb(yard, cast, certificates.delete_installed, chain.id)
        done = await ended(yard, cast, "DeleteCertificate")
        assert (done.status, done.answer) == ("rejected", {"status": "Failed"})
        for n in (256, 384, 512):
            kept = await rows(yard, cast, InstalledCertificate)
            gone = next(row for row in kept if row.hash_data["issuerNameHash"] == f"{n:064x}")

            def delete(payload: dict[str, Any]) -> dict[str, Any]:
                store[:] = [
                    one for one in store if one["certificateHashData"] != payload["certificateHashData"]
                ]
                return {"status": "Accepted"}

            box.answers["DeleteCertificate"] = delete
            before = len(store)
            await by_verb(yard, cast, certificates.delete_installed, gone.id)

            async def less(before: int = before) -> bool:
                return len(await rows(yard, cast, InstalledCertificate)) == before - 1

            await until(less)
        assert await read("CSMSRootCertificate") == []
        await box.close()

        old = yard.station(yard.solmark, Station16)
        hashed = told("", "SHA256", 9)["certificateHashData"]
        answer = {"status": "Accepted", "certificateHashData": [hashed]}
        old.answers["GetInstalledCertificateIds"] = lambda payload: (
            answer if payload["certificateType"].startswith("Central") else {"status": "NotFound"}
        )
        old.answers["DeleteCertificate"] = {"status": "Accepted"}
        await old.connect()
        await old.say("BootNotification", BOOT16)
        await by_verb(yard, yard.solmark, certificates.read_store, yard.solmark.station_id)
        kept = await one(yard, yard.solmark, InstalledCertificate)
        assert (kept.certificate_type, kept.hash_data) == ("CSMSRootCertificate", hashed)
        answer = {"status": "NotFound"}
        await by_verb(yard, yard.solmark, certificates.delete_installed, kept.id)

        async def empty() -> bool:
            return not await rows(yard, yard.solmark, InstalledCertificate)

        await until(empty)
        assert ("DeleteCertificate", {"certificateHashData": hashed}) in old.asked
        await old.close()


@case("2.0.1", "TC_M_24_CSMS")
async def test_the_status_of_a_certificate_of_ours_is_told_signed_and_of_nobody_elses(
    settings: Settings, database: Database
):
    async with manned(settings, database) as yard:
        cast = yard.nordlicht
        box = yard.station(cast, Station201)
        await box.connect()
        await box.boot()  # type: ignore[attr-defined]
        renewing = Renewing(box, "V2GCertificate")
        await by_verb(yard, cast, certificates.request_renewal, cast.station_id, "V2GCertificate")
        kept = await one(yard, cast, StationCertificate, lambda row: row.status == "accepted")
        (authority,) = await rows(yard, cast, CertificateAuthority)
        root = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
        key = root.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        leaf = x509.load_pem_x509_certificate(renewing.pem.encode())
        for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
            asked = certificates.hash_data(leaf, root, algorithm) | {"responderURL": "http://ocsp.example"}
            answer = await box.say("GetCertificateStatus", {"ocspRequestData": asked})
            assert answer["status"] == "Accepted"
            response = ocsp.load_der_ocsp_response(base64.b64decode(answer["ocspResult"]))
            assert response.certificate_status == ocsp.OCSPCertStatus.GOOD
            key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
        await by_verb(yard, cast, certificates.revoke_certificate, kept.id)
        asked = certificates.hash_data(leaf, root, hashes.SHA256()) | {"responderURL": "http://ocsp.example"}
        answer = await box.say("GetCertificateStatus", {"ocspRequestData": asked})
        response = ocsp.load_der_ocsp_response(base64.b64decode(answer["ocspResult"]))
        assert response.certificate_status == ocsp.OCSPCertStatus.REVOKED
        answer = await box.say(
            "GetCertificateStatus", {"ocspRequestData": asked | {"issuerKeyHash": "ab" * 32}}
        )
        assert answer["status"] == "Failed"
        await box.close()


async def test_the_end_of_a_certificate_is_told_thirty_days_ahead_and_once(yard: Yard):
    cast = yard.nordlicht
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        for n, days in enumerate((29, 40)):
            scope.db.add(StationCertificate(
                station_id=cast.station_id, kind="ChargingStationCertificate", status="accepted", csr_pem="",
                fingerprint=f"{n:064x}", serial_number=f"{n}", valid_from=scope.now,
                valid_until=scope.now + timedelta(days=days),
            ))  # fmt: skip
    # The later one stands beside it: nothing to worry about.
    assert await by_verb(yard, cast, certificates.warn_of_expiry) == 0
    async with yard.database.scope(cast.tenant_id, STAFF, now=None) as scope:
        later = (await rows(yard, cast, StationCertificate))[-1]
        scope.now += timedelta(days=15)
        assert await certificates.warn_of_expiry(scope) == 1
        assert await certificates.warn_of_expiry(scope) == 0
    (told_of,) = await rows(yard, cast, Event, Event.kind == "StationCertificateExpiring")
    assert told_of.source_id == later.id
