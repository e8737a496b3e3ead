"""What a station says about itself and how it is set: configuration keys (1.6), variables and reports (2.0.1 B)."""

from typing import Any

import pytest

from app.device_model import service as device_model
from app.device_model.models import StationReport, StationVariable
from app.device_model.paths import VariablePath, parse_path
from app.stations.models import OCPPMessage, StationCommand
from tests.cast import STAFF
from tests.conformance.conftest import Station16, Station201, Yard, case, rows, until
from tests.foreign_stations import ForeignStation, stamp

pytestmark = pytest.mark.anyio
HEARTBEAT = parse_path("OCPPCommCtrlr/HeartbeatInterval")
OFFLINE = parse_path("OCPPCommCtrlr/OfflineThreshold")


async def booted(yard: Yard, kind: type[ForeignStation]) -> ForeignStation:
    box = yard.station(yard.nordlicht, kind)
    await box.connect()
    await box.boot()
    return box


async def ask(yard: Yard, verb: Any, *args: Any, **more: Any) -> list[StationCommand]:
    """By the verb that portal and REST use; the commands as they ended."""
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        made = await verb(scope, yard.nordlicht.station_id, *args, **more)
        ids = [one.id for one in (made if isinstance(made, list) else [made])]

    async def ended() -> list[StationCommand]:
        found = await rows(yard, yard.nordlicht, StationCommand, StationCommand.id.in_(ids))
        return sorted(found, key=lambda one: ids.index(one.id)) if all(one.ended_at for one in found) else []

    return await until(ended, 12)


async def variables(yard: Yard) -> dict[str, StationVariable]:
    return {row.path: row for row in await rows(yard, yard.nordlicht, StationVariable)}


@case("1.6", "TC_019_1_CSMS", "TC_019_2_CSMS", "TC_021_CSMS", "TC_040_1_CSMS", "TC_040_2_CSMS")
async def test_keys_of_a_16_station_are_read_all_and_by_name_and_changed_with_its_own_word(yard: Yard):
    box = await booted(yard, Station16)
    held = {
        "HeartbeatInterval": "300",
        "ConnectionTimeOut": "60",
        "AuthorizationKey": "0011223344",
        "NumberOfConnectors": "2",
    }

    def told(payload: dict[str, Any]) -> dict[str, Any]:
        wanted = payload.get("key") or list(held)
        known = [
            {"key": key, "readonly": key == "NumberOfConnectors", "value": held[key]}
            for key in wanted
            if key in held
        ]
        return {"configurationKey": known, "unknownKey": [key for key in wanted if key not in held]}

    box.answers["GetConfiguration"] = told
    await ask(yard, device_model.request_inventory)
    assert box.asked == [("GetConfiguration", {})]
    found = await variables(yard)
    assert {path: (row.value, row.mutability) for path, row in found.items()} == {
        "HeartbeatInterval": ("300", "ReadWrite"), "ConnectionTimeOut": ("60", "ReadWrite"),
        "AuthorizationKey": (None, "ReadWrite"), "NumberOfConnectors": ("2", "ReadOnly"),
    }  # fmt: skip
    assert found["AuthorizationKey"].is_secret

    held["HeartbeatInterval"] = "600"
    await ask(
        yard, device_model.read_variables, [VariablePath("HeartbeatInterval"), VariablePath("Nonsense")]
    )
    found = await variables(yard)
    assert found["HeartbeatInterval"].value == "600"
    assert (found["Nonsense"].value, found["Nonsense"].last_status) == (None, "UnknownVariable")

    for word, value, status, waits in (
        ("Accepted", "90", "accepted", False), ("RebootRequired", "91", "accepted", True),
        ("Rejected", "92", "rejected", True), ("NotSupported", "93", "rejected", True),
    ):  # fmt: skip
        box.answers["ChangeConfiguration"] = {"status": word}
        (ended,) = await ask(yard, device_model.set_variables, {VariablePath("connectiontimeout"): value})
        row = (await variables(yard))["ConnectionTimeOut"]
        assert (ended.status, ended.answer, row.last_status) == (status, {"status": word}, word)
        assert row.value == ("90" if word == "Accepted" else "91")
        assert (row.needs_reboot_since is not None) is waits
    box.answers["ChangeConfiguration"] = {"status": "Accepted"}
    await ask(yard, device_model.set_variables, {VariablePath("AuthorizationKey"): "9988776655"})
    assert box.asked[-1] == ("ChangeConfiguration", {"key": "AuthorizationKey", "value": "9988776655"})
    assert (await variables(yard))["AuthorizationKey"].value is None
    logged = " ".join(row.raw for row in await rows(yard, yard.nordlicht, OCPPMessage))
    assert "9988776655" not in logged and "0011223344" not in logged
    await box.close()


@case("2.0.1", "TC_B_06_CSMS", "TC_B_07_CSMS", "TC_B_08_CSMS")
async def test_variables_are_read_one_by_one_or_many_and_never_more_at_once_than_the_station_takes(
    yard: Yard,
):
    box = await booted(yard, Station201)
    most = parse_path("DeviceDataCtrlr/ItemsPerMessage[GetVariables]")
    held = {HEARTBEAT.key: "300", OFFLINE.key: "60", most.key: "2"}

    def told(payload: dict[str, Any]) -> dict[str, Any]:
        results = []
        for item in payload["getVariableData"]:
            name = f"{item['component']['name']}/{item['variable']['name']}"
            name += f"[{item['variable']['instance']}]" if "instance" in item["variable"] else ""
            value = held.get(name.lower())
            word = (
                {"attributeStatus": "Accepted", "attributeValue": value}
                if value
                else {"attributeStatus": "UnknownVariable"}
            )
            results.append(item | word)
        return {"getVariableResult": results}

    box.answers["GetVariables"] = told
    await ask(yard, device_model.read_variables, [OFFLINE])
    assert (await variables(yard))[str(OFFLINE)].value == "60"
    await ask(yard, device_model.read_variables, [HEARTBEAT, most])
    assert len(box.asked[-1][1]["getVariableData"]) == 2
    found = await variables(yard)
    assert (found[str(HEARTBEAT)].value, found[str(most)].value) == ("300", "2")
    many = [HEARTBEAT, OFFLINE, most, parse_path("EVSE@1/Power"), parse_path("Connector@1.2/Available")]
    ended = await ask(yard, device_model.read_variables, many)
    sizes = [len(payload["getVariableData"]) for _action, payload in box.asked[-3:]]
    assert (len(ended), sizes) == (3, [2, 2, 1])
    assert (await variables(yard))["EVSE@1/Power"].last_status == "UnknownVariable"
    assert box.asked[-1][1]["getVariableData"][0]["component"] == {
        "name": "Connector", "evse": {"id": 1, "connectorId": 2},
    }  # fmt: skip
    await box.close()


@case("2.0.1", "TC_B_09_CSMS", "TC_B_10_CSMS")
async def test_variables_are_set_and_the_stations_word_on_each_is_kept(yard: Yard):
    box = await booted(yard, Station201)
    words = iter(["Accepted", "RebootRequired", "Rejected"])
    box.answers["SetVariables"] = lambda payload: {
        "setVariableResult": [
            {"component": one["component"], "variable": one["variable"], "attributeStatus": next(words)}
            for one in payload["setVariableData"]
        ]
    }
    (ended,) = await ask(yard, device_model.set_variables, {HEARTBEAT: "120"})
    assert ended.status == "accepted" and (await variables(yard))[str(HEARTBEAT)].value == "120"
    (ended,) = await ask(yard, device_model.set_variables, {OFFLINE: "30", HEARTBEAT: "150"})
    assert len(box.asked[-1][1]["setVariableData"]) == 2
    found = await variables(yard)
    assert ended.status == "rejected"
    assert (found[str(OFFLINE)].value, found[str(OFFLINE)].needs_reboot_since is not None) == ("30", True)
    assert (found[str(HEARTBEAT)].value, found[str(HEARTBEAT)].last_status) == ("120", "Rejected")
    await box.close()


def reported(component: str, name: str, value: str, **more: Any) -> dict[str, Any]:
    return {
        "component": {"name": component}, "variable": {"name": name},
        "variableAttribute": [{"value": value, "mutability": more.pop("mutability", "ReadWrite")}],
        "variableCharacteristics": {"dataType": "integer", "supportsMonitoring": True, **more},
    }  # fmt: skip


@case("2.0.1", "TC_B_12_CSMS", "TC_B_13_CSMS", "TC_B_14_CSMS")
@pytest.mark.parametrize("base", device_model.BASES)
async def test_an_inventory_comes_in_parts_in_any_order_and_is_whole_with_the_last(yard: Yard, base: str):
    box = await booted(yard, Station201)
    box.answers["GetBaseReport"] = {"status": "Accepted"}
    box.answers["GetVariables"] = {
        "getVariableResult": [
            {**parse_path("Old/Gone").wire(), "attributeStatus": "Accepted", "attributeValue": "1"}
        ]
    }
    await ask(yard, device_model.read_variables, [parse_path("Old/Gone")])
    await ask(yard, device_model.request_inventory, base)
    action, asked = box.asked[-1]
    assert (action, asked["reportBase"]) == ("GetBaseReport", base)
    parts = [
        [reported("OCPPCommCtrlr", "HeartbeatInterval", "300", unit="s", minLimit=10, maxLimit=3600)],
        [reported("SecurityCtrlr", "BasicAuthPassword", "topsecret", mutability="WriteOnly")],
        [reported("EVSE", "Power", "11000", unit="W", mutability="ReadOnly")],
    ]
    for seq in (0, 2, 1, 1):  # late and twice, as real links do it
        answer = await box.say("NotifyReport", {
            "requestId": asked["requestId"], "generatedAt": stamp(), "seqNo": seq, "tbc": seq < 2,
            "reportData": parts[seq],
        })  # fmt: skip
        assert answer == {}
        (report,) = await rows(yard, yard.nordlicht, StationReport)
        assert report.status == ("complete" if seq == 1 else "open")
    assert (report.item_count, report.what) == (3, base)
    found = await variables(yard)
    beat = found[str(HEARTBEAT)]
    assert (beat.value, beat.unit, beat.min_limit, beat.max_limit, beat.data_type) == (
        "300",
        "s",
        10,
        3600,
        "integer",
    )
    assert found["EVSE/Power"].mutability == "ReadOnly"
    secret = found["SecurityCtrlr/BasicAuthPassword"]
    assert (secret.value, secret.is_secret, secret.mutability) == (None, True, "WriteOnly")
    assert not any("topsecret" in row.raw for row in await rows(yard, yard.nordlicht, OCPPMessage))
    assert ("Old/Gone" in found) is (base != "FullInventory")
    await box.close()


@case("2.0.1", "TC_B_18_CSMS")
async def test_a_report_of_chosen_components_is_asked_for_and_may_be_empty(yard: Yard):
    box = await booted(yard, Station201)
    box.answers["GetReport"] = {"status": "EmptyResultSet"}
    (ended,) = await ask(
        yard, device_model.request_report, criteria=["Problem"], paths=[parse_path("EVSE@1/*"), HEARTBEAT]
    )
    payload = box.asked[-1][1]
    assert payload["componentCriteria"] == ["Problem"]
    assert payload["componentVariable"] == [
        {"component": {"name": "EVSE", "evse": {"id": 1}}},
        HEARTBEAT.wire(),
    ]
    (report,) = await rows(yard, yard.nordlicht, StationReport)
    assert (ended.status, report.status) == ("accepted", "empty")
    await box.close()
