"""OCPP 1.6 Core: the conformance cases of a CSMS, with the `ocpp` package's client as the station."""

import pytest

from tests.conformance.conftest import Station16, Yard, case, command

pytestmark = pytest.mark.anyio


@case("1.6", "TC_061_CSMS")
async def test_the_cache_of_a_station_is_cleared(yard: Yard):
    box = yard.station(yard.nordlicht, Station16)
    box.answers["ClearCache"] = {"status": "Accepted"}
    await box.connect()
    await box.say("BootNotification", {"chargePointModel": "Fjord 22", "chargePointVendor": "Wattwerk"})
    cleared = await command(yard, yard.nordlicht, "ClearCache", {})
    assert (cleared.status, cleared.answer) == ("accepted", {"status": "Accepted"})
    assert box.asked == [("ClearCache", {})]
    await box.close()
