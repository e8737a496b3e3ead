"""The portal offers every command as a form for the version the station speaks, and says why others cannot be."""

import html
import re
from uuid import UUID

import pytest
from sqlalchemy import select

from app.kernel.ids import public_id
from app.stations import service
from app.stations.models import StationCommand
from tests.web import CLI, House, found_brand

pytestmark = pytest.mark.anyio


async def online(house: House, version: str) -> tuple[UUID, str]:
    """A brand, and its station that is connected."""
    tenant_id = await found_brand(house.database)
    async with house.database.scope(tenant_id, CLI) as scope:
        made = await service.create_station(scope, identity="CP1")
        await service.connection_opened(
            scope, made.station.id, node="n", ocpp_version=version, remote="192.0.2.1"
        )
        return tenant_id, public_id("charging_station", made.station.id)


@pytest.mark.parametrize(
    ("version", "offered", "refused", "why"),
    [
        ("ocpp1.6", "GetConfiguration", "SetDisplayMessage", "OCPP 1.6 knows no messages on a display."),
        ("ocpp2.0.1", "SetVariables", "GetConfiguration", "OCPP 2.0.1 has variables instead of keys"),
    ],
)  # fmt: skip
async def test_a_form_is_filled_in_and_sent_and_what_the_version_lacks_is_refused_with_the_reason(
    house: House, version: str, offered: str, refused: str, why: str
) -> None:
    tenant_id, station = await online(house, version)
    owner = await house.staff("nordlicht", tenant_id)
    listed = (await owner.open(f"/stations/{station}/commands")).text
    assert f"/commands/{offered}" in listed and f"/commands/{refused}" not in listed and why in listed
    path = f"/stations/{station}/commands/{refused}"
    assert why in (await owner.get(path)).text
    assert (await owner.post(path, {})).status_code == 409

    path = f"/stations/{station}/commands/DataTransfer"
    assert 'name="vendorId"' in (await owner.get(path)).text
    wrong = await owner.post(path, {"data": "{}"})
    assert wrong.status_code == 422 and "Vendor is needed." in wrong.text
    assert (await owner.post(path, {"vendorId": "com.example", "data": "{}"})).status_code == 303
    async with house.database.scope(tenant_id, CLI) as scope:
        (command,) = (await scope.db.execute(select(StationCommand))).scalars()
        assert (command.action, command.payload) == (
            "DataTransfer",
            {"vendorId": "com.example", "data": "{}"},
        )


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1"])
async def test_no_form_that_is_filled_in_wrongly_breaks_its_page_or_loses_what_was_typed(
    house: House, version: str
) -> None:
    tenant_id, station = await online(house, version)
    owner = await house.staff("nordlicht", tenant_id)
    listed = (await owner.open(f"/stations/{station}/commands")).text
    actions = sorted(set(re.findall(r'/commands/([A-Z]\w+)"', listed)))
    assert len(actions) > 15
    odd = 'what nobody "types" & <b>'
    for action in actions:
        path = f"/stations/{station}/commands/{action}"
        fields = re.findall(r"<(?:input|textarea)[^>]*>", (await owner.get(path)).text)
        written = [tag for tag in fields if "checkbox" not in tag and "_csrf" not in tag]
        wrong = {re.findall(r' name="([^"]+)"', tag)[0]: odd for tag in written}
        for form in ({}, wrong):
            answer = await owner.post(path, form)
            assert answer.status_code in (303, 409, 422), (action, form, answer.status_code)
            if answer.status_code == 422 and written and form:
                assert odd in html.unescape(answer.text), action
