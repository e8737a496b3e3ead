"""OCPP 2.0.1 block G (and 1.6's ChangeAvailability): in and out of service, at once or after the session."""

import pytest

from app.stations import availability
from app.stations.models import AvailabilityWish
from tests.conformance.asking import act, asked, boot, ended, only, shown
from tests.conformance.conftest import Yard, case
from tests.conformance.jobs import Worker, worker

pytestmark = pytest.mark.anyio
__all__ = ["worker"]

PLACES = [
    ({}, {}, [1, 2]), ({"evse_no": 1}, {"evse": {"id": 1}}, [1]),
    ({"evse_no": 1, "connector_no": 1}, {"evse": {"id": 1, "connectorId": 1}}, [1]),
]  # fmt: skip


async def wish(yard: Yard, worker: Worker, *, is_operative: bool, **place: int) -> AvailabilityWish:
    cast = yard.nordlicht
    row = await act(yard, cast, availability.change, cast.station_id, is_operative=is_operative, **place)
    await ended(yard, cast, worker, "ChangeAvailability")
    return await only(yard, cast, AvailabilityWish, AvailabilityWish.id == row.id)


async def now(yard: Yard, row: AvailabilityWish) -> AvailabilityWish:
    return await only(yard, yard.nordlicht, AvailabilityWish, AvailabilityWish.id == row.id)


@case(
    "2.0.1", "TC_G_03_CSMS", "TC_G_04_CSMS", "TC_G_05_CSMS", "TC_G_06_CSMS", "TC_G_07_CSMS", "TC_G_08_CSMS",
)  # fmt: skip
async def test_a_station_an_evse_or_a_connector_goes_out_of_service_and_back(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1", ChangeAvailability="Accepted")
    for number in (1, 2):
        await station.status(number, "Available")
    for place, wire, numbers in PLACES:
        row = await wish(yard, worker, is_operative=False, **place)
        assert asked(station, "ChangeAvailability")[-1] == {"operationalStatus": "Inoperative"} | wire
        assert row.state == "accepted" and "not reported" in availability.in_words(row)
        for number in numbers:
            await station.status(number, "Unavailable")
        row = await now(yard, row)
        assert row.state == "done" and availability.in_words(row) == "It is out of service, as asked."
        assert [await shown(yard, cast, number) for number in numbers] == ["INOPERATIVE"] * len(numbers)

        again = await wish(yard, worker, is_operative=True, **place)
        assert asked(station, "ChangeAvailability")[-1] == {"operationalStatus": "Operative"} | wire
        assert again.id == row.id and again.state == "accepted"
        for number in numbers:
            await station.status(number, "Available")
        assert (await now(yard, row)).state == "done"
        assert [await shown(yard, cast, number) for number in numbers] == ["AVAILABLE"] * len(numbers)
    await station.close()


@case("2.0.1", "TC_G_11_CSMS", "TC_G_14_CSMS", "TC_G_17_CSMS")
async def test_a_change_waits_for_the_session_and_is_remembered_until_it_comes(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1", ChangeAvailability="Scheduled")
    await station.status(2, "Available")
    for turn, (place, wire, numbers) in enumerate(PLACES):
        await station.status(1, "Occupied")
        await station.event("Started", f"t{turn}", 0, token=cast.card, meter_wh=0, trigger="Authorized")
        row = await wish(yard, worker, is_operative=False, **place)
        assert asked(station, "ChangeAvailability")[-1] == {"operationalStatus": "Inoperative"} | wire
        assert row.state == "scheduled" and "when the running session is over" in availability.in_words(row)
        await station.event("Updated", f"t{turn}", 1, meter_wh=50)
        assert (await now(yard, row)).state == "scheduled" and await shown(yard, cast) == "CHARGING"
        await station.event("Ended", f"t{turn}", 2, meter_wh=100, trigger="EVDeparted", state="Idle")
        for number in numbers:
            await station.status(number, "Unavailable")
        assert (await now(yard, row)).state == "done" and await shown(yard, cast) == "INOPERATIVE"
        for number in numbers:
            await station.status(number, "Available")
    await station.close()


async def test_a_16_station_is_asked_by_connector_and_its_refusal_is_kept(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "1.6", ChangeAvailability="Scheduled")
    await station.status(1, "Charging")
    row = await wish(yard, worker, is_operative=False, evse_no=1)
    assert asked(station, "ChangeAvailability") == [{"connectorId": 1, "type": "Inoperative"}]
    assert row.state == "scheduled"
    await station.status(1, "Unavailable")
    assert (await now(yard, row)).state == "done"
    station.answers["ChangeAvailability"] = {"status": "Rejected"}
    row = await wish(yard, worker, is_operative=True)
    assert asked(station, "ChangeAvailability")[-1] == {"connectorId": 0, "type": "Operative"}
    assert row.state == "rejected" and availability.in_words(row) == "The station refused to go in service."
    await station.close()
