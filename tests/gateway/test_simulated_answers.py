"""Simulated stations answer what is asked of the profiles of 1.6 and the blocks of 2.0.1, and report what they said."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from app.stations.models import OCPPMessage, StationConnection
from ocpp_gateway.simulated_answers import stamp
from ocpp_gateway.simulator import Plan, SimulatedStation
from tests.conformance.trust import build, ec_key, named
from tests.gateway.street import Box, Street, box, street

pytestmark = pytest.mark.anyio
__all__ = ["box", "street"]


@contextlib.asynccontextmanager
async def living(street: Street, box: Box, version: str) -> AsyncIterator[SimulatedStation]:
    station = SimulatedStation(
        f"ws://localhost:{street.yard.port}/nordlicht/{box.identity}", box.password, version,
        Plan(scenario="idle", evse_count=2, pace=0.05), connect_to=("127.0.0.1", street.yard.port),
    )  # fmt: skip
    life = asyncio.create_task(station.run())
    await street.until(lambda: box.rows(StationConnection, StationConnection.is_online))
    await asyncio.wait_for(station.is_booted.wait(), 10)
    yield station
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


def soon(**span: float) -> str:
    return stamp(datetime.now(UTC) + timedelta(**span))


async def asked(box: Box, action: str, payload: dict[str, Any]) -> dict[str, Any]:
    command = await box.command(action, payload)
    return {"is": command.status} | (command.answer or {})


async def reported(box: Box, action: str) -> list[OCPPMessage]:
    kept = OCPPMessage.action == action, OCPPMessage.direction == "in"
    return await box.street.until(lambda: box.rows(OCPPMessage, *kept))


def root() -> str:
    key = ec_key()
    made = build(named("Root"), named("Root"), key.public_key(), key, is_ca=True)
    return made.public_bytes(serialization.Encoding.PEM).decode()


def schedule(limit: float) -> dict[str, Any]:
    return {"chargingRateUnit": "W", "startSchedule": stamp(),
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}]}  # fmt: skip


async def test_a_16_station_answers_all_its_profiles(street: Street, box: Box):
    async with living(street, box, "1.6") as station:
        profile = {
            "chargingProfileId": 7, "stackLevel": 0, "chargingProfilePurpose": "TxDefaultProfile",
            "chargingProfileKind": "Absolute", "chargingSchedule": schedule(6_000),
        }  # fmt: skip
        await asked(box, "SetChargingProfile", {"connectorId": 0, "csChargingProfiles": profile})
        told = await asked(
            box, "GetCompositeSchedule", {"connectorId": 1, "duration": 600, "chargingRateUnit": "W"}
        )
        assert told["chargingSchedule"]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 6_000.0}]
        assert station.energy.limit_w(1) == 6_000
        assert (await asked(box, "ClearChargingProfile", {"id": 7}))["status"] == "Accepted"
        assert station.energy.limit_w(1) == float("inf")
        entry = {"idTag": "A1", "idTagInfo": {"status": "Accepted"}}
        whole = {"listVersion": 3, "updateType": "Full", "localAuthorizationList": [entry]}
        assert (await asked(box, "SendLocalList", whole))["status"] == "Accepted"
        assert (await asked(box, "GetLocalListVersion", {}))["listVersion"] == 3
        assert (station.energy.lets_in("a1"), station.energy.lets_in("B2")) == (True, False)
        wish = {"connectorId": 1, "expiryDate": soon(hours=1), "idTag": "A1", "reservationId": 5}
        assert (await asked(box, "ReserveNow", wish))["status"] == "Accepted"
        assert station.remote_start(1, ("B2", "Central"), None) == "Rejected"
        assert (await asked(box, "ReserveNow", wish | {"reservationId": 6}))["status"] in (
            "Occupied",
            "Accepted",
        )
        assert (await asked(box, "CancelReservation", {"reservationId": 5}))["status"] == "Accepted"
        assert (await asked(box, "CancelReservation", {"reservationId": 99}))["status"] == "Rejected"
        keys = (await asked(box, "GetConfiguration", {}))["configurationKey"]
        assert any(one["key"] == "SupportedFeatureProfiles" and one["readonly"] for one in keys)
        trust = {"certificateType": "CentralSystemRootCertificate", "certificate": root()}
        assert (await asked(box, "InstallCertificate", trust))["status"] == "Accepted"
        (held,) = (
            await asked(box, "GetInstalledCertificateIds", {"certificateType": trust["certificateType"]})
        )["certificateHashData"]
        assert (await asked(box, "DeleteCertificate", {"certificateHashData": held}))["status"] == "Accepted"
        assert await reported(box, "SecurityEventNotification")


async def test_a_201_station_answers_all_its_blocks_and_reports(street: Street, box: Box):
    async with living(street, box, "2.0.1") as station:
        assert (await asked(box, "GetBaseReport", {"requestId": 1, "reportBase": "FullInventory"}))[
            "is"
        ] == "accepted"
        warmth = {"component": {"name": "EVSE", "evse": {"id": 1}}, "variable": {"name": "Temperature"}}
        assert (await asked(box, "GetReport", {"requestId": 2, "componentVariable": [warmth]}))[
            "status"
        ] == "Accepted"
        monitor = warmth | {"value": 40.0, "type": "UpperThreshold", "severity": 3}
        (made,) = (await asked(box, "SetVariableMonitoring", {"setMonitoringData": [monitor]}))[
            "setMonitoringResult"
        ]
        assert made["status"] == "Accepted"
        assert (await asked(box, "GetMonitoringReport", {"requestId": 3}))["status"] == "Accepted"
        station.device.evse_is(1, Temperature="55")
        read = (await asked(box, "GetVariables", {"getVariableData": [warmth]}))["getVariableResult"]
        assert read[0]["attributeValue"] == "55"
        level = {"component": {"name": "SampledDataCtrlr"}, "variable": {"name": "TxUpdatedInterval"}}
        for value, word in (("30", "Accepted"), ("soon", "Rejected")):
            answer = await asked(
                box, "SetVariables", {"setVariableData": [level | {"attributeValue": value}]}
            )
            assert answer["setVariableResult"][0]["attributeStatus"] == word
        text = {"id": 4, "priority": "NormalCycle", "message": {"format": "UTF8", "content": "Moin"}}
        assert (await asked(box, "SetDisplayMessage", {"message": text}))["status"] == "Accepted"
        assert (await asked(box, "GetDisplayMessages", {"requestId": 4}))["status"] == "Accepted"
        assert (await asked(box, "ClearDisplayMessage", {"id": 5}))["status"] == "Unknown"
        profile = {
            "id": 7, "stackLevel": 0, "chargingProfilePurpose": "ChargingStationMaxProfile",
            "chargingProfileKind": "Absolute", "chargingSchedule": [schedule(9_000) | {"id": 1}],
        }  # fmt: skip
        assert (await asked(box, "SetChargingProfile", {"evseId": 0, "chargingProfile": profile}))[
            "status"
        ] == "Accepted"
        told = await asked(box, "GetCompositeSchedule", {"evseId": 1, "duration": 600})
        assert told["schedule"]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 9_000.0}]
        assert (await asked(box, "GetChargingProfiles", {"requestId": 5, "chargingProfile": {}}))[
            "status"
        ] == "Accepted"
        assert (await asked(box, "ClearChargingProfile", {"chargingProfileId": 8}))["status"] == "Unknown"
        card = {"idToken": "A1", "type": "ISO14443"}
        wish = {"id": 5, "expiryDateTime": soon(seconds=1.5), "idToken": card, "evseId": 1}
        assert (await asked(box, "ReserveNow", wish))["status"] == "Accepted"
        entry = {"idToken": card, "idTokenInfo": {"status": "Accepted"}}
        whole = {"versionNumber": 3, "updateType": "Full", "localAuthorizationList": [entry]}
        assert (await asked(box, "SendLocalList", whole))["status"] == "Accepted"
        assert (await asked(box, "SendLocalList", whole | {"updateType": "Differential"}))[
            "status"
        ] == "VersionMismatch"
        who = {"requestId": 6, "report": True, "clear": False, "idToken": card}
        assert (await asked(box, "CustomerInformation", who))["status"] == "Accepted"
        trust = {"certificateType": "CSMSRootCertificate", "certificate": root()}
        assert (await asked(box, "InstallCertificate", trust))["status"] == "Accepted"
        (held,) = (await asked(box, "GetInstalledCertificateIds", {}))["certificateHashDataChain"]
        gone = {"certificateHashData": held["certificateHashData"]}
        assert (await asked(box, "DeleteCertificate", gone))["status"] == "Accepted"
        assert (await asked(box, "GetTransactionStatus", {}))["messagesInQueue"] is False
        for action in (
            "NotifyReport", "NotifyMonitoringReport", "NotifyEvent", "NotifyDisplayMessages", "ReportChargingProfiles",
            "NotifyCustomerInformation", "ReservationStatusUpdate", "SecurityEventNotification",
        ):  # fmt: skip
            assert await reported(box, action)
