"""Pages and REST of the device model: what cannot be is said before anything is sent; what can becomes a command."""

from typing import Any

import pytest
from sqlalchemy import select

from app.device_model import service as device_model
from app.device_model.paths import parse_path
from app.device_model.reports import Attribute, Characteristics, ReportedVariable
from app.kernel.ids import public_id
from app.stations import service as stations
from app.stations.models import StationCommand
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio


def told(path: str, value: str, data_type: str = "string", **more: Any) -> ReportedVariable:
    mutability = more.pop("mutability", "ReadWrite")
    return ReportedVariable(
        path=parse_path(path), attributes={"Actual": Attribute(value=value, mutability=mutability)},
        characteristics=Characteristics(data_type=data_type, **more),
    )  # fmt: skip


async def test_a_variable_is_changed_by_its_form_and_what_it_cannot_hold_is_refused_in_words(
    house: House,
) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await stations.create_station(scope, identity="CP1")
        key = made.station.id
        await stations.connection_opened(scope, key, node="n", ocpp_version="ocpp2.0.1", remote="192.0.2.1")
        await device_model.take_variables(scope, key, [
            told("OCPPCommCtrlr/HeartbeatInterval", "300", "integer", unit="s", max_limit=3600),
            told("EVSE@1/Power", "11000", mutability="ReadOnly"),
            told("SecurityCtrlr/BasicAuthPassword", "topsecret", mutability="WriteOnly"),
            told("AuthCtrlr/Mode", "Fast", "OptionList", values_list="Fast,Slow"),
        ])  # fmt: skip
    station = public_id("charging_station", key)
    base = f"/stations/{station}/variables"
    owner = await house.staff("nordlicht", tenant_id)
    page = (await owner.open(base)).text
    assert "HeartbeatInterval" in page and "never shown" in page and "topsecret" not in page
    found = (await owner.get(f"{base}?q=mode")).text
    assert "Mode" in found and "HeartbeatInterval" not in found
    assert "Slow" in (await owner.get(f"{base}?edit=AuthCtrlr/Mode")).text
    for path, value, why in (
        ("EVSE@1/Power", "1", "can only be read"), ("OCPPCommCtrlr/HeartbeatInterval", "9999", "is at most 3600"),
        ("OCPPCommCtrlr/HeartbeatInterval", "soon", "is a whole number"),
        ("AuthCtrlr/Mode", "X", "is one of Fast, Slow"),
        ("HeartbeatInterval", "1", "this station has variables of components"),
    ):  # fmt: skip
        answer = await owner.post(base, {"path": path, "value": value})
        assert answer.status_code == 422 and why in answer.text, (path, value)
    assert (await owner.post(base, {"path": "authctrlr/mode", "value": "Slow"})).status_code == 303
    assert (await owner.post(f"{base}/reads", {"path": "EVSE@1/Power"})).status_code == 303
    assert (await owner.post(f"/stations/{station}/display", {"deed": "show"})).status_code == 422
    async with house.database.scope(tenant_id, CLI) as scope:
        sent = list((await scope.db.execute(select(StationCommand).order_by(StationCommand.id))).scalars())
    assert [one.action for one in sent] == ["SetVariables", "GetVariables"]
    assert sent[0].payload["setVariableData"][0]["attributeValue"] == "Slow"


async def test_a_template_shows_its_drift_and_a_16_station_why_it_has_no_display(house: House) -> None:
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await stations.create_station(scope, identity="CP1")
        key = made.station.id
        await stations.connection_opened(scope, key, node="n", ocpp_version="ocpp1.6", remote="192.0.2.1")
        await device_model.take_variables(scope, key, [told("HeartbeatInterval", "900")])
    station = public_id("charging_station", key)
    owner = await house.staff("nordlicht", tenant_id)
    await owner.open("/configuration-templates/new")
    form = {"name": "Wallboxes", "ocpp_version": "ocpp1.6", "settings": "HeartbeatInterval = 300"}
    made_at = (await owner.post("/configuration-templates", form)).headers["location"]
    assert "should be 300, is 900" in (await owner.get(made_at)).text
    assert "1 not in line" in (await owner.get("/configuration-templates")).text
    assert (await owner.post(f"{made_at}/applications", {})).status_code == 303
    wrong = await owner.post(made_at, form | {"settings": "AuthorizationKey = 00"})
    assert wrong.status_code == 422 and "is a secret" in wrong.text
    async with house.database.scope(tenant_id, CLI) as scope:
        (sent,) = (await scope.db.execute(select(StationCommand))).scalars()
        assert (sent.action, sent.payload) == (
            "ChangeConfiguration",
            {"key": "HeartbeatInterval", "value": "300"},
        )
    for part in ("display", "events"):
        assert "OCPP 1.6" in (await owner.get(f"/stations/{station}/{part}")).text
    refused = await owner.post(f"/stations/{station}/display", {"deed": "read"})
    assert refused.status_code == 409 and "no messages on its display" in refused.text
