"""Security: who may come in and by what (2.0.1 A00 to A05; 1.6 whitepaper), new keys, higher profiles, events."""

import base64
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from app.kernel.errors import Refused
from app.kernel.events import Event
from app.kernel.settings import Settings
from app.maintenance import changes
from app.maintenance.models import SecurityChange, SecurityEvent
from app.stations import service as stations
from app.stations.models import ChargingStation, OCPPMessage, StationCommand, StationConnection
from tenants.database import Database
from tests.cast import STAFF
from tests.conformance.conftest import Station16, Station201, Yard, case, rows, until
from tests.conformance.trust import by_verb, ended, manned, one, tls_yard
from tests.foreign_stations import stamp

pytestmark = pytest.mark.anyio


async def is_welcome(box: Any, password: str | None) -> bool:
    box.password = password
    try:
        await box.connect()
    except InvalidStatus as refused:
        assert refused.response.status_code == 401
        return False
    assert (await box.boot()).status == "Accepted"
    await box.close()
    return True


@case("1.6", "TC_085_CSMS", "TC_088_CSMS")
@case("2.0.1", "TC_A_01_CSMS", "TC_A_02_CSMS", "TC_A_03_CSMS")
async def test_the_right_user_and_key_open_the_door_and_nothing_else(yard: Yard):
    cast = yard.nordlicht
    for kind in (Station16, Station201):
        box = yard.station(cast, kind)
        assert await is_welcome(box, cast.password)
        assert not await is_welcome(box, "0" * 40)
        assert not await is_welcome(box, None)
        box.identity = "CP2"  # the user name alone: the path still says CP1
        assert not await is_welcome(box, cast.password)
    token = base64.b64encode(f"CP1:{cast.password}".encode()).decode()
    offers = [Subprotocol("ocpp9.9"), Subprotocol("ocpp1.6")]
    async with connect(
        f"ws://127.0.0.1:{yard.port}/nordlicht/CP1", subprotocols=offers,
        additional_headers={"Authorization": f"Basic {token}"},
    ) as socket:  # fmt: skip
        assert socket.subprotocol == "ocpp1.6"


@case("1.6", "TC_086_CSMS")
@case("2.0.1", "TC_A_04_CSMS", "TC_A_06_CSMS")
async def test_the_gateway_shows_its_certificate_and_speaks_no_old_tls(
    settings: Settings, database: Database, tmp_path: Path
):
    async with tls_yard(settings, database, tmp_path) as yard:
        cast, port = yard.nordlicht, yard.tls_port
        await by_verb(yard, cast, stations.update_station, cast.station_id, security_profile=2)
        for kind in (Station16, Station201):
            box = kind(f"wss://localhost:{port}/nordlicht/CP1", None, connect_to=("127.0.0.1", port))
            box.tls = yard.trusting()
            assert await is_welcome(box, cast.password)
        with pytest.raises(InvalidStatus):
            await yard.station(cast, Station16).connect()
        old = yard.trusting()
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        box.tls = old
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await box.connect()


@case("1.6", "TC_073_CSMS")
@case("2.0.1", "TC_A_09_CSMS")
async def test_a_new_key_holds_once_the_station_came_with_it_and_until_then_the_old_one_too(
    settings: Settings, database: Database
):
    async with manned(settings, database) as yard:
        for cast, kind in ((yard.nordlicht, Station16), (yard.solmark, Station201)):
            box, told = yard.station(cast, kind), []

            def take(payload: dict[str, Any], told: list[str] = told) -> dict[str, Any]:
                if "key" in payload:
                    assert payload["key"] == "AuthorizationKey"
                    told.append(payload["value"])
                    return {"status": "Accepted"}
                (item,) = payload["setVariableData"]
                named = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "BasicAuthPassword"}}
                told.append(item["attributeValue"])
                assert item == named | {"attributeValue": told[-1]}
                return {"setVariableResult": [named | {"attributeStatus": "Accepted"}]}

            box.answers["ChangeConfiguration"] = box.answers["SetVariables"] = take
            await box.connect()
            await box.boot()  # type: ignore[attr-defined]
            await by_verb(yard, cast, changes.rotate_key, cast.station_id)
            await one(yard, cast, SecurityChange, lambda row: row.status == "accepted")
            with pytest.raises(Refused):
                await by_verb(yard, cast, changes.rotate_key, cast.station_id)
            await box.close()
            assert await is_welcome(box, cast.password), "the old key holds still"
            assert await is_welcome(box, told[0]), "and so does the new one"
            (change,) = await rows(yard, cast, SecurityChange)
            assert change.status == "confirmed"
            assert not await is_welcome(box, cast.password), "from now on only the new one"
            assert await is_welcome(box, told[0])
            # Nobody can read it afterwards.
            for model, column in ((OCPPMessage, "raw"), (StationCommand, "payload")):
                assert not [
                    row for row in await rows(yard, cast, model) if told[0] in str(getattr(row, column))
                ]


@case("2.0.1", "TC_A_10_CSMS")
async def test_a_key_that_the_station_declines_changes_nothing(settings: Settings, database: Database):
    async with manned(settings, database) as yard:
        cast = yard.nordlicht
        box, told = yard.station(cast, Station201), []

        def decline(payload: dict[str, Any]) -> dict[str, Any]:
            (item,) = payload["setVariableData"]
            told.append(item.pop("attributeValue"))
            return {"setVariableResult": [item | {"attributeStatus": "Rejected"}]}

        box.answers["SetVariables"] = decline
        await box.connect()
        await box.boot()  # type: ignore[attr-defined]
        await by_verb(yard, cast, changes.rotate_key, cast.station_id)
        await one(yard, cast, SecurityChange, lambda row: row.status == "rejected")
        assert await box.say("Heartbeat", {})
        await box.close()
        assert not await is_welcome(box, told[0])
        assert await is_welcome(box, cast.password)


async def test_a_station_that_never_comes_back_with_its_key_keeps_the_old_one_and_staff_are_told(yard: Yard):
    """Accepted, and then it goes on by the old one (ocpp.md 2, row 11)."""
    cast = yard.nordlicht
    box = yard.station(cast, Station16)
    box.answers["ChangeConfiguration"] = {"status": "Accepted"}
    await box.connect()
    await box.boot()  # type: ignore[attr-defined]
    change = await by_verb(yard, cast, changes.rotate_key, cast.station_id)
    command = await ended(yard, cast, "ChangeConfiguration")
    await by_verb(yard, cast, changes.change_answered, change.id, command)
    await box.close()
    assert await is_welcome(box, cast.password)
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        scope.now += timedelta(hours=23)
        assert await changes.fall_back(scope) == 0
        scope.now += timedelta(hours=2)
        assert await changes.fall_back(scope) == 1
        station = await stations.get_station(scope, cast.station_id)
        assert await stations.known_keys(scope, station) == [stations.station_digest(scope, cast.password)]
    (row,) = await rows(yard, cast, SecurityChange)
    assert (row.status, row.note) == ("fell_back", "It has come back with the old key.")
    assert await rows(yard, cast, Event, Event.kind == "StationKeyNotTaken")
    assert await is_welcome(box, cast.password)


async def test_a_station_that_said_yes_and_was_not_seen_again_is_awaited_with_the_new_key_alone(yard: Yard):
    """Its old key is void after a day: it would not use it any more, and somebody else might."""
    cast = yard.nordlicht
    box, told = yard.station(cast, Station16), []
    box.answers["ChangeConfiguration"] = lambda payload: (
        told.append(payload["value"]),
        {"status": "Accepted"},
    )[1]
    await box.connect()
    await box.boot()  # type: ignore[attr-defined]
    change = await by_verb(yard, cast, changes.rotate_key, cast.station_id)
    command = await ended(yard, cast, "ChangeConfiguration")
    await by_verb(yard, cast, changes.change_answered, change.id, command)
    await box.close()

    async def away() -> bool:
        return not (await rows(yard, cast, StationConnection))[0].is_online

    await until(away)
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        scope.now += timedelta(hours=25)
        assert await changes.fall_back(scope) == 1
    assert await rows(yard, cast, Event, Event.kind == "StationKeyNotTaken")
    assert not await is_welcome(box, cast.password)
    assert await is_welcome(box, told[0])


@case("1.6", "TC_083_CSMS")
@case("2.0.1", "TC_A_19_CSMS")
async def test_a_higher_profile_holds_once_the_station_came_by_it_and_never_goes_down_again(
    settings: Settings, database: Database, tmp_path: Path
):
    async with tls_yard(settings, database, tmp_path) as yard:
        for cast, kind in ((yard.nordlicht, Station16), (yard.solmark, Station201)):
            box = yard.station(cast, kind)
            box.answers |= {
                "ChangeConfiguration": {"status": "Accepted"}, "SetNetworkProfile": {"status": "Accepted"},
                "SetVariables": lambda payload: {
                    "setVariableResult": [
                        {name: item[name] for name in ("component", "variable")} | {"attributeStatus": "Accepted"}
                        for item in payload["setVariableData"]
                    ]
                },
                "Reset": {"status": "Accepted"},
            }  # fmt: skip
            await box.connect()
            await box.boot()  # type: ignore[attr-defined]
            with pytest.raises(Refused) as refused:
                await by_verb(yard, cast, changes.upgrade_profile, cast.station_id, 3)
            assert refused.value.code == "no_certificate"
            await by_verb(yard, cast, changes.upgrade_profile, cast.station_id, 2, slot=2, fallback_slot=1)
            await one(yard, cast, SecurityChange, lambda row: row.status == "accepted")
            asked = [one for one in box.asked if one[0] not in ("TriggerMessage", "GetConfiguration")]
            url = f"wss://localhost:{yard.tls_port}/{cast.company.slug}"
            if kind is Station16:
                assert asked == [("ChangeConfiguration", {"key": "SecurityProfile", "value": "2"})]
            else:
                assert [action for action, _ in asked] == ["SetNetworkProfile", "SetVariables", "Reset"]
                profile = asked[0][1]
                assert profile["configurationSlot"] == 2
                assert profile["connectionData"]["securityProfile"] == 2
                assert profile["connectionData"]["ocppCsmsUrl"] == url
                (item,) = asked[1][1]["setVariableData"]
                assert (item["variable"]["name"], item["attributeValue"]) == (
                    "NetworkConfigurationPriority",
                    "2,1",
                )
            await box.close()
            assert await is_welcome(box, cast.password), "until it comes by the new one"
            secure = kind(f"{url}/CP1", None, connect_to=("127.0.0.1", yard.tls_port))
            secure.tls = yard.trusting()
            assert await is_welcome(secure, cast.password)
            assert not await is_welcome(box, cast.password), "never down again"
            (station,) = await rows(yard, cast, ChargingStation)
            assert station.security_profile == 2
            with pytest.raises(Refused) as refused:
                await by_verb(yard, cast, changes.upgrade_profile, cast.station_id, 1)
            assert refused.value.code == "profile_downgrade"


@case("1.6", "TC_077_CSMS", "TC_078_CSMS")
async def test_security_events_are_kept_and_grave_ones_are_news(yard: Yard):
    for cast, kind, types in (
        (
            yard.nordlicht,
            Station16,
            ("InvalidChargePointCertificate", "InvalidCentralSystemCertificate", "Reset"),
        ),
        (
            yard.solmark,
            Station201,
            ("InvalidCsmsCertificate", "TamperDetectionActivated", "SettingSystemTime"),
        ),
    ):
        box = yard.station(cast, kind)
        await box.connect()
        await box.boot()  # type: ignore[attr-defined]
        for n, word in enumerate(types):
            payload = {"type": word, "timestamp": stamp(), "techInfo": f"no. {n}"}
            assert await box.say("SecurityEventNotification", payload) == {}
        kept = await rows(yard, cast, SecurityEvent)
        assert [(row.type, row.tech_info, row.is_grave) for row in kept] == [
            (word, f"no. {n}", n < 2) for n, word in enumerate(types)
        ]
        assert len(await rows(yard, cast, Event, Event.kind == "SecurityAlarm")) == 2
        await box.close()
