"""Templates say how stations should be set; drift is told in words, and stations are brought in line by commands."""

from typing import Any

import pytest

from app.device_model import configuration
from app.device_model import service as device_model
from app.device_model.models import StationVariable
from app.device_model.paths import parse_path
from app.kernel.errors import Invalid
from tests.cast import STAFF
from tests.conformance.conftest import Station201, Yard, rows, until
from tests.conformance.test_device_variables import ask, booted

pytestmark = pytest.mark.anyio
BEAT, OFFLINE = "OCPPCommCtrlr/HeartbeatInterval", "OCPPCommCtrlr/OfflineThreshold"


async def test_drift_is_told_in_words_and_ends_when_the_station_takes_the_template(yard: Yard):
    box = await booted(yard, Station201)
    held = {BEAT: "900", OFFLINE: "60"}

    def told(payload: dict[str, Any]) -> dict[str, Any]:
        results = []
        for item in payload["getVariableData"]:
            value = held.get(f"{item['component']['name']}/{item['variable']['name']}")
            word = {"attributeStatus": "Accepted", "attributeValue": value} if value else {}
            results.append({"attributeStatus": "UnknownVariable"} | item | word)
        return {"getVariableResult": results}

    def sets(payload: dict[str, Any]) -> dict[str, Any]:
        results = []
        for item in payload["setVariableData"]:
            held[f"{item['component']['name']}/{item['variable']['name']}"] = item["attributeValue"]
            kept = {name: item[name] for name in ("component", "variable")}
            results.append(kept | {"attributeStatus": "Accepted"})
        return {"setVariableResult": results}

    box.answers |= {"GetVariables": told, "SetVariables": sets}
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        template = await configuration.create_template(
            scope, name="Fjord", ocpp_version="ocpp2.0.1", model="kompakt 150",
            settings={BEAT: "300", OFFLINE: "60.0", "Sun/Shine": "true"},
        )  # fmt: skip
        template_id = template.id

    async def words() -> list[str]:
        async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
            found = await configuration.drift(scope, await configuration.get_template(scope, template_id))
            return sorted(f"{one.path} {one.words}" for one in found)

    assert f"{BEAT} should be 300, was never read" in await words()
    await ask(yard, device_model.read_variables, [parse_path(one) for one in (BEAT, OFFLINE, "Sun/Shine")])
    assert await words() == [
        f"{BEAT} should be 300, is 900", "Sun/Shine should be true, the station does not know it",
    ]  # fmt: skip
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        done = await configuration.apply_template(scope, template_id)
        assert (len(done.commands), done.refused) == (1, [])

    async def in_line() -> list[Any]:
        wanted = (StationVariable.path == BEAT, StationVariable.value == "300")
        return await rows(yard, yard.nordlicht, StationVariable, *wanted)

    await until(in_line)
    (payload,) = [payload for action, payload in box.asked if action == "SetVariables"]
    assert [one["attributeValue"] for one in payload["setVariableData"]] == ["300", "true"]
    assert await words() == []
    await box.close()


async def test_a_template_keeps_no_secret_and_says_what_is_wrong_with_a_line(yard: Yard):
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        for settings, why in (
            ({"AuthorizationKey": "00"}, "secret"), ({"A/B": "1"}, "by a key alone"), ({}, "1 to 200 settings"),
        ):  # fmt: skip
            with pytest.raises(Invalid, match=why):
                await configuration.create_template(
                    scope, name="X", ocpp_version="ocpp1.6", settings=settings
                )
