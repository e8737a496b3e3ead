"""What simulated stations do about firmware, logs and certificates: the same messages, in both versions.

A log is really uploaded; a certificate is really asked for and kept; firmware is fetched and installed in name only.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ocpp.routing import on
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201

STEP_S = 4.0
FILE_NAME = "station.log"
_SIGNING = {
    "SignChargePointCertificate": None, "SignChargingStationCertificate": "ChargingStationCertificate",
    "SignV2GCertificate": "V2GCertificate", "SignCombinedCertificate": None,
}  # fmt: skip


class Station(Protocol):
    identity: str
    firmware_version: str
    boots: int

    @property
    def is_16(self) -> bool: ...
    @property
    def organisation(self) -> str: ...
    async def pause(self, seconds: float) -> None: ...
    async def _call(self, message: Any) -> Any: ...
    def _later(self, work: Awaitable[None]) -> None: ...
    def restart_soon(self) -> None: ...


class Upkeep:
    """One station's: at most one update and one upload at a time, the newer ends the older."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self._running: dict[str, asyncio.Event] = {}

    def _begin(self, what: str, work: Callable[[asyncio.Event], Awaitable[None]]) -> bool:
        """Whether another one had to give way."""
        older, mine = self._running.get(what), asyncio.Event()
        if older is not None:
            older.set()
        self._running[what] = mine

        async def run() -> None:
            try:
                await work(mine)
            finally:
                if self._running.get(what) is mine:
                    del self._running[what]

        self.station._later(run())
        return older is not None

    # -- firmware ----

    def update(self, location: str, request_id: int | None, is_signed: bool) -> bool:
        steps = [
            "Downloading",
            "Downloaded",
            *(["SignatureVerified"] if is_signed else []),
            "Installing",
            "Installed",
        ]

        async def work(given_up: asyncio.Event) -> None:
            for step in steps:
                await self.station.pause(STEP_S)
                if given_up.is_set():
                    return
                await self._tell_firmware(step, request_id)
            self.station.firmware_version = urlsplit(location).path.rpartition("/")[2][:50] or "unknown"
            self.station.restart_soon()

        return self._begin("firmware", work)

    async def _tell_firmware(self, status: Any, request_id: int | None) -> None:
        if not self.station.is_16:
            message: Any = call201.FirmwareStatusNotification(status=status, request_id=request_id)
        elif request_id is None:
            message = call16.FirmwareStatusNotification(status=status)
        else:
            message = call16.SignedFirmwareStatusNotification(status=status, request_id=request_id)
        await self.station._call(message)

    # -- logs ----

    def upload(self, location: str, request_id: int | None) -> bool:
        async def work(given_up: asyncio.Event) -> None:
            await self._tell_log("Uploading", request_id)
            await self.station.pause(STEP_S)
            if given_up.is_set():
                return
            is_there = await put(location, self._log())
            failed = "UploadFailed" if request_id is None else "UploadFailure"
            await self._tell_log("Uploaded" if is_there else failed, request_id)

        return self._begin("log", work)

    def _log(self) -> bytes:
        lines = (
            self.station.identity,
            f"firmware {self.station.firmware_version}",
            f"boots {self.station.boots}",
        )
        return ("\n".join(lines) + "\n").encode()

    async def _tell_log(self, status: Any, request_id: int | None) -> None:
        if request_id is None:
            message: Any = call16.DiagnosticsStatusNotification(status=status)
        else:
            known = call16 if self.station.is_16 else call201
            message = known.LogStatusNotification(status=status, request_id=request_id)
        await self.station._call(message)

    # -- certificates ----

    def sign(self, trigger: str) -> bool:
        """Whether this trigger asks for a certificate at all."""
        if trigger not in _SIGNING:
            return False

        async def work() -> None:
            key = ec.generate_private_key(ec.SECP256R1())
            told = (
                (NameOID.ORGANIZATION_NAME, self.station.organisation),
                (NameOID.COMMON_NAME, self.station.identity),
            )
            name = x509.Name([x509.NameAttribute(kind, value) for kind, value in told if value])
            made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
            csr = made.public_bytes(serialization.Encoding.PEM).decode()
            kind: Any = _SIGNING[trigger]
            if self.station.is_16:
                message: Any = call16.SignCertificate(csr=csr)
            else:
                message = call201.SignCertificate(csr=csr, certificate_type=kind)
            await self.station._call(message)

        self.station._later(work())
        return True


async def put(location: str, content: bytes) -> bool:
    """`*.localhost` is this machine, which not every resolver knows (RFC 6761)."""
    parts = urlsplit(location)
    host = "127.0.0.1" if (parts.hostname or "").endswith(".localhost") else parts.hostname
    url = parts._replace(netloc=f"{host}:{parts.port}" if parts.port else str(host)).geturl()
    try:
        async with httpx2.AsyncClient(timeout=30) as client:
            answer = await client.put(url, content=content, headers={"Host": parts.netloc})
    except httpx2.HTTPError:
        return False
    return answer.status_code < 300


def _word(has_replaced: bool) -> Any:
    return "AcceptedCanceled" if has_replaced else "Accepted"


class Upkeep16:
    """Mixed into the link of a 1.6 station."""

    station: Any

    @on("UpdateFirmware")
    async def _update(self, location: str, **_: Any) -> Any:
        self.station.upkeep.update(location, None, False)
        return result16.UpdateFirmware()

    @on("SignedUpdateFirmware")
    async def _signed_update(self, request_id: int, firmware: dict[str, Any], **_: Any) -> Any:
        word = _word(self.station.upkeep.update(firmware["location"], request_id, True))
        return result16.SignedUpdateFirmware(status=word)

    @on("GetDiagnostics")
    async def _diagnostics(self, location: str, **_: Any) -> Any:
        self.station.upkeep.upload(location, None)
        return result16.GetDiagnostics(file_name=FILE_NAME)

    @on("GetLog")
    async def _get_log(self, log: dict[str, Any], request_id: int, **_: Any) -> Any:
        word = _word(self.station.upkeep.upload(log["remote_location"], request_id))
        return result16.GetLog(status=word, filename=FILE_NAME)

    @on("ExtendedTriggerMessage")
    async def _extended_trigger(
        self, requested_message: str, connector_id: int | None = None, **_: Any
    ) -> Any:
        status: Any = self.station.trigger(requested_message, connector_id)
        return result16.ExtendedTriggerMessage(status=status)

    @on("CertificateSigned")
    async def _certificate_signed(self, certificate_chain: str, **_: Any) -> Any:
        return result16.CertificateSigned(status=_verdict(certificate_chain))


class Upkeep201:
    """Mixed into the link of a 2.0.1 station."""

    station: Any

    @on("UpdateFirmware")
    async def _update(self, request_id: int, firmware: dict[str, Any], **_: Any) -> Any:
        is_signed = "signature" in firmware
        word = _word(self.station.upkeep.update(firmware["location"], request_id, is_signed))
        return result201.UpdateFirmware(status=word)

    @on("GetLog")
    async def _get_log(self, log: dict[str, Any], request_id: int, **_: Any) -> Any:
        word = _word(self.station.upkeep.upload(log["remote_location"], request_id))
        return result201.GetLog(status=word, filename=FILE_NAME)

    @on("CertificateSigned")
    async def _certificate_signed(self, certificate_chain: str, **_: Any) -> Any:
        return result201.CertificateSigned(status=_verdict(certificate_chain))


def _verdict(chain: str) -> Any:
    try:
        x509.load_pem_x509_certificates(chain.encode())
    except ValueError:
        return "Rejected"
    return "Accepted"
