"""Firmware: updates plain and signed, what may go wrong, and local controllers that publish it (2.0.1 L, 1.6)."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.charging.models import ChargingSession
from app.kernel.clock import utcnow
from app.kernel.errors import Invalid, Refused
from app.kernel.events import Event
from app.kernel.settings import Settings
from app.maintenance import firmware, policy
from app.maintenance.models import FirmwarePublication, FirmwareUpdate, SecurityEvent
from app.maintenance.wire import rfc3339
from app.stations.models import Connector
from tenants.database import Database
from tests.conformance.conftest import Station16, Station201, Yard, case, rows, until
from tests.conformance.trust import build, by_verb, manned, named, one
from tests.foreign_stations import stamp

pytestmark = pytest.mark.anyio
URL = "https://firmware.wattwerk.example/fjord-2.4.bin"
FETCH, INSTALL = ("Downloading", "Downloaded"), ("Installing", "Installed")


async def allowed(yard: Yard) -> None:
    for cast in (yard.nordlicht, yard.solmark):
        await by_verb(
            yard,
            cast,
            policy.set_policy,
            minimum_profile=1,
            organisation="",
            firmware_hosts=[".wattwerk.example"],
        )


def signed() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    made = build(named("Wattwerk firmware"), named("Wattwerk firmware"), key.public_key(), key)
    return {
        "signing_certificate": made.public_bytes(serialization.Encoding.PEM).decode(), "signature": "c2lnbmF0dXJl"
    }  # fmt: skip


class Updating:
    """A station that does what it is told and tells each step."""

    def __init__(self, yard: Yard, cast: Any, box: Any, *, action: str, report: str, is_named: bool) -> None:
        self.yard, self.cast, self.box = yard, cast, box
        self.action, self.report, self.is_named = action, report, is_named

    async def life(self, *steps: str, answer: str = "Accepted", **wish: Any) -> FirmwareUpdate:
        """Asked by staff, answered, and every step reported; the row as staff see it then."""
        self.box.answers[self.action] = (
            {} if self.action == "UpdateFirmware" and not self.is_named else {"status": answer}
        )
        made = await by_verb(
            self.yard, self.cast, firmware.update_firmware, self.cast.station_id, URL, **wish
        )
        await self.is_at(made, {"Rejected": "Rejected", "AcceptedCanceled": "Accepted"}.get(answer, answer))
        for step in steps:
            await self.step(made, step)
        return await self.row(made)

    async def step(self, made: FirmwareUpdate, status: str) -> None:
        more = {"requestId": made.request_id} if self.is_named else {}
        assert await self.box.say(self.report, {"status": status, **more}) == {}

    async def row(self, made: FirmwareUpdate) -> FirmwareUpdate:
        (row,) = await rows(self.yard, self.cast, FirmwareUpdate, FirmwareUpdate.id == made.id)
        return row

    async def is_at(self, made: FirmwareUpdate, status: str) -> None:
        async def look() -> bool:
            return (await self.row(made)).status == status

        await until(look)


def lived(row: FirmwareUpdate) -> list[str]:
    return [entry["status"] for entry in row.history]


async def here(yard: Yard, cast: Any, kind: Any) -> Any:
    box = yard.station(cast, kind)
    await box.connect()
    await box.boot()  # type: ignore[attr-defined]
    return box


@case("1.6", "TC_044_1_CSMS", "TC_044_2_CSMS", "TC_044_3_CSMS")
async def test_a_station_of_1_6_is_updated_and_says_where_it_failed(settings: Settings, database: Database):
    async with manned(settings, database) as yard:
        await allowed(yard)
        cast = yard.nordlicht
        box = await here(yard, cast, Station16)
        plain = Updating(
            yard, cast, box, action="UpdateFirmware", report="FirmwareStatusNotification", is_named=False
        )
        at = utcnow() + timedelta(minutes=5)
        for steps in (
            (*FETCH, *INSTALL),
            ("Downloading", "DownloadFailed"),
            (*FETCH, "Installing", "InstallationFailed"),
        ):
            row = await plain.life(*steps, retrieve_at=at, retries=2, retry_interval_s=60)
            assert lived(row) == ["Requested", "Accepted", *steps] and row.ended_at is not None
            told = {"location": URL, "retrieveDate": rfc3339(at), "retries": 2, "retryInterval": 60}
            assert box.asked[-1] == ("UpdateFirmware", told)
        # It comes back with the new version, which the pages then show.
        assert len(await rows(yard, cast, Event, Event.kind == "FirmwareInstalled")) == 1
        assert len(await rows(yard, cast, Event, Event.kind == "FirmwareUpdateFailed")) == 2
        await box.close()


@case("1.6", "TC_080_CSMS", "TC_081_CSMS")
async def test_a_station_of_1_6_checks_the_signature_of_its_firmware(settings: Settings, database: Database):
    async with manned(settings, database) as yard:
        await allowed(yard)
        cast = yard.nordlicht
        box = await here(yard, cast, Station16)
        secure = Updating(
            yard,
            cast,
            box,
            action="SignedUpdateFirmware",
            report="SignedFirmwareStatusNotification",
            is_named=True,
        )
        wish = signed()
        good = (*FETCH, "SignatureVerified", "Installing", "InstallRebooting", "Installed")
        row = await secure.life(*good, **wish)
        assert lived(row) == ["Requested", "Accepted", *good] and row.is_signed
        asked = box.asked[-1][1]
        assert asked["requestId"] == row.request_id
        assert asked["firmware"]["signature"] == wish["signature"]
        assert asked["firmware"]["signingCertificate"] == wish["signing_certificate"]
        row = await secure.life(*FETCH, "InvalidSignature", **wish)
        event = {"type": "InvalidFirmwareSignature", "timestamp": stamp(), "techInfo": "signature"}
        assert await box.say("SecurityEventNotification", event) == {}
        assert row.status == "InvalidSignature" and row.ended_at is not None
        assert (await one(yard, cast, SecurityEvent)).is_grave
        await box.close()


@case("2.0.1", *(f"TC_L_{n:02}_CSMS" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)))
async def test_a_station_of_2_0_1_is_updated_securely_and_every_end_is_told(
    settings: Settings, database: Database
):
    async with manned(settings, database) as yard:
        await allowed(yard)
        cast = yard.nordlicht
        box = await here(yard, cast, Station201)
        secure = Updating(
            yard, cast, box, action="UpdateFirmware", report="FirmwareStatusNotification", is_named=True
        )
        wish = signed()
        verified = (*FETCH, "SignatureVerified")
        at, later = utcnow() + timedelta(hours=1), utcnow() + timedelta(hours=3)
        for steps, more in (
            ((*verified, "Installing", "InstallRebooting", "Installed"), {}),
            ((*verified, "InstallScheduled", *INSTALL), {"install_at": later}),
            (("DownloadScheduled", *verified, *INSTALL), {"retrieve_at": at, "install_at": later}),
            ((*FETCH, "InvalidSignature"), {}),
            (("Downloading", "DownloadFailed"), {}),
            ((*verified, "Installing", "InstallVerificationFailed"), {}),
            ((*verified, "Installing", "InstallRebooting", "InstallationFailed"), {}),
        ):
            row = await secure.life(*steps, **wish, **more)
            assert lived(row) == ["Requested", "Accepted", *steps] and row.ended_at is not None
            asked = box.asked[-1][1]
            assert asked["requestId"] == row.request_id and asked["firmware"]["location"] == URL
            assert asked["firmware"].get("installDateTime") == (
                rfc3339(later) if "install_at" in more else None
            )
            assert asked["firmware"]["signature"] == wish["signature"]
        for answer, event in (
            ("RevokedCertificate", None),
            ("InvalidCertificate", "InvalidFirmwareSigningCertificate"),
        ):
            row = await secure.life(answer=answer, **wish)
            assert row.status == answer and row.ended_at is not None
            if event:
                await box.say("SecurityEventNotification", {"type": event, "timestamp": stamp()})
                assert (await one(yard, cast, SecurityEvent)).is_grave
        # A second one takes the first one's place, or is declined and leaves it alone.
        first = await secure.life("Downloading", **wish)
        second = await secure.life("Downloading", answer="AcceptedCanceled", **wish)
        await secure.is_at(first, "Canceled")
        third = await secure.life(answer="Rejected", **wish)
        assert third.ended_at is not None
        await secure.step(second, "Downloaded")
        assert (await secure.row(second)).status == "Downloaded"
        await box.close()


@case("2.0.1", "TC_L_13_CSMS")
async def test_an_update_waits_for_the_car_and_the_session_ends_as_ever(
    settings: Settings, database: Database
):
    async with manned(settings, database) as yard:
        await allowed(yard)
        cast = yard.nordlicht
        box = await here(yard, cast, Station201)
        event = {
            "eventType": "Started", "timestamp": stamp(), "triggerReason": "Authorized", "seqNo": 0,
            "transactionInfo": {"transactionId": "T1", "chargingState": "Charging"},
            "evse": {"id": 1, "connectorId": 1}, "idToken": {"idToken": cast.card, "type": "ISO14443"},
        }  # fmt: skip
        await box.say("TransactionEvent", event)
        secure = Updating(
            yard, cast, box, action="UpdateFirmware", report="FirmwareStatusNotification", is_named=True
        )
        row = await secure.life(*FETCH, "SignatureVerified", "InstallScheduled", **signed())
        await box.status(2, "Unavailable")
        (state,) = await rows(yard, cast, Connector, Connector.evse_id == cast.evse_ids[1])
        assert state.status == "Unavailable"
        ends = {"transactionId": "T1", "stoppedReason": "EVDisconnected"}
        await box.say("TransactionEvent", event | {
            "eventType": "Ended", "seqNo": 1, "timestamp": stamp(), "triggerReason": "EVCommunicationLost",
            "transactionInfo": ends,
        })  # fmt: skip
        for step in ("Installing", "InstallRebooting", "Installed"):
            await secure.step(row, step)
        (session,) = await rows(yard, cast, ChargingSession)
        assert session.ended_at is not None
        assert lived(await secure.row(row))[-2:] == ["InstallRebooting", "Installed"]
        await box.status(2, "Available")
        await box.close()


@case("2.0.1", *(f"TC_L_{n}_CSMS" for n in (17, 19, 20, 21, 22, 23, 24)))
async def test_a_local_controller_publishes_firmware_and_takes_it_back(
    settings: Settings, database: Database
):
    async with manned(settings, database) as yard:
        await allowed(yard)
        cast = yard.nordlicht
        box = await here(yard, cast, Station201)
        box.answers["PublishFirmware"] = {"status": "Accepted"}
        checksum = "0f" * 16

        async def published(*steps: str, location: list[str] | None = None) -> FirmwarePublication:
            made = await by_verb(yard, cast, firmware.publish_firmware, cast.station_id, URL, checksum)
            await one(
                yard, cast, FirmwarePublication, lambda row: row.id == made.id and row.status == "Accepted"
            )
            asked = {"location": URL, "checksum": checksum, "requestId": made.request_id}
            assert box.asked[-1] == ("PublishFirmware", asked)
            for step in steps:
                more = {"location": location} if step == "Published" else {}
                await box.say(
                    "PublishFirmwareStatusNotification",
                    {"status": step, "requestId": made.request_id, **more},
                )
            (row,) = await rows(yard, cast, FirmwarePublication, FirmwarePublication.id == made.id)
            assert [entry["status"] for entry in row.history] == ["Requested", "Accepted", *steps]
            return row

        for bad in (
            (*FETCH, "InvalidChecksum"), (*FETCH, "ChecksumVerified", "PublishFailed"),
            ("Downloading", "DownloadFailed"),
        ):  # fmt: skip
            assert (await published(*bad)).ended_at is not None
        local = ["https://192.0.2.7/fjord.bin", "ftp://192.0.2.7/fjord.bin"]
        row = await published(*FETCH, "ChecksumVerified", "Published", location=local)
        assert row.local_locations == local and row.ended_at is None
        for answer, status in (
            ("DownloadOngoing", "Published"), ("Unpublished", "Unpublished"), ("NoFirmware", "NoFirmware")
        ):  # fmt: skip
            box.answers["UnpublishFirmware"] = {"status": answer}
            sent = await by_verb(yard, cast, firmware.unpublish_firmware, row.id)
            done = await one(
                yard, cast, type(sent), lambda row, sent=sent: row.id == sent.id and row.ended_at is not None
            )
            assert done.answer == {"status": answer}
            assert box.asked[-1] == ("UnpublishFirmware", {"checksum": checksum})
            kept = await one(
                yard, cast, FirmwarePublication,
                lambda one, row=row, answer=answer: one.id == row.id and one.history[-1]["status"] == answer,
            )  # fmt: skip
            assert kept.status == status
        await box.close()


async def test_firmware_comes_from_allowed_hosts_only_and_from_nowhere_inside(yard: Yard):
    """ocpp.md 2, row 58."""
    cast = yard.nordlicht
    with pytest.raises(Refused) as refused:
        await by_verb(yard, cast, firmware.update_firmware, cast.station_id, URL)
    assert refused.value.code == "no_firmware_hosts"
    for host in ("localhost", "printer.local", "10.0.0.1", "wattwerk", "*.wattwerk.example", "a.internal"):
        with pytest.raises(Invalid):
            await by_verb(
                yard, cast, policy.set_policy, minimum_profile=1, organisation="", firmware_hosts=[host]
            )
    await allowed(yard)
    for wrong in (
        "http://firmware.wattwerk.example/a", "ftp://firmware.wattwerk.example/a", "https://wattwerk.example.evil.example/a",
        "https://evilwattwerk.example/a", "https://user:secret@firmware.wattwerk.example/a", "https://10.0.0.1/a",
        "https://[::1]/a", "https://127.1/a", "https://0x7f000001/a", "https://2130706433/a", "https://localhost/a",
        "https://firmware.wattwerk.example@10.0.0.1/a", "https://firmware.wattwerk.example\\@evil.example/a", "https://",
        "file:///etc/passwd", "https://firmware.wattwerk.example:99999/a",
        "https://firmware.wattwerk.example/" + "a" * 500,
    ):  # fmt: skip
        with pytest.raises(Invalid):
            await by_verb(yard, cast, firmware.update_firmware, cast.station_id, wrong)
    for right in (URL, "ftps://firmware.wattwerk.example/a.bin", "https://a.b.wattwerk.example:8443/x?y=1"):
        await by_verb(yard, cast, firmware.update_firmware, cast.station_id, right)
    assert len(await rows(yard, cast, FirmwareUpdate)) == 3
    with pytest.raises(Invalid):
        await by_verb(yard, cast, firmware.update_firmware, cast.station_id, URL, signature="c2ln")
