"""OCPP 1.6 Reservation, 2.0.1 block H: an EVSE is kept for a card, used by it or its group, or given up."""

from datetime import timedelta
from typing import Any

import pytest

from app.access import service as access
from app.charging import reservations, startable
from app.charging.models import ChargingSession, Reservation
from app.kernel.errors import Refused
from tests.cast import STAFF
from tests.conformance.asking import act, asked, boot, ended, only, shown, soon
from tests.conformance.conftest import Yard, case
from tests.conformance.jobs import Worker, worker
from tests.foreign_stations import stamp

pytestmark = pytest.mark.anyio
__all__ = ["worker"]


async def reserve(yard: Yard, worker: Worker, **more: Any) -> Reservation:
    cast = yard.nordlicht
    wanted = {"id_token_id": cast.card_id, "expires_at": soon(minutes=30)} | more
    row = await act(yard, cast, reservations.reserve, cast.station_id, **wanted)
    await ended(yard, cast, worker, "ReserveNow")
    return await only(yard, cast, Reservation, Reservation.id == row.id)


async def now(yard: Yard, row: Reservation) -> Reservation:
    return await only(yard, yard.nordlicht, Reservation, Reservation.id == row.id)


@case("1.6", "TC_046_CSMS", "TC_049_CSMS", "TC_051_CSMS", "TC_052_CSMS")
async def test_a_16_station_keeps_a_connector_until_its_card_comes_or_staff_cancel(
    yard: Yard, worker: Worker
):
    cast = yard.nordlicht
    station = await boot(yard, cast, "1.6", ReserveNow="Accepted", CancelReservation="Rejected")
    for connector in (1, 2):
        await station.status(connector, "Available")
    row = await reserve(yard, worker, evse_id=cast.evse_ids[0])
    (payload,) = asked(station, "ReserveNow")
    assert payload == {
        "connectorId": 1, "idTag": cast.card, "reservationId": row.reservation_no,
        "expiryDate": row.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    assert row.state == "active" and await shown(yard, cast) == "RESERVED"
    assert await shown(yard, cast, 2) == "AVAILABLE"

    # It does not cancel: it stands, and the page says so.
    await act(yard, cast, reservations.cancel, row.id)
    assert (await ended(yard, cast, worker, "CancelReservation")).answer == {"status": "Rejected"}
    row = await now(yard, row)
    assert row.state == "active" and "did not cancel" in reservations.in_words(row)

    # Its card comes.
    await station.status(1, "Reserved")
    answer = await station.say("StartTransaction", {
        "connectorId": 1, "idTag": cast.card, "meterStart": 0, "timestamp": stamp(),
        "reservationId": row.reservation_no,
    })  # fmt: skip
    assert answer["idTagInfo"]["status"] == "Accepted"
    await station.status(1, "Charging")
    row, session = await now(yard, row), await only(yard, cast, ChargingSession)
    assert (row.state, row.session_id) == ("used", session.id) and await shown(yard, cast) == "CHARGING"
    await station.stop(answer["transactionId"], 100)
    with pytest.raises(Refused):
        await act(yard, cast, reservations.cancel, row.id)

    # Any connector: used by the card without the number on the wire, as some firmware does.
    row = await reserve(yard, worker)
    assert asked(station, "ReserveNow")[-1]["connectorId"] == 0 and row.state == "active"
    await station.start(2, cast.card, 0)
    assert (await now(yard, row)).state == "used"

    station.answers["CancelReservation"] = {"status": "Accepted"}
    row = await reserve(yard, worker, evse_id=cast.evse_ids[0])
    await station.status(1, "Available")
    await act(yard, cast, reservations.cancel, row.id)
    await ended(yard, cast, worker, "CancelReservation")
    assert asked(station, "CancelReservation")[-1] == {"reservationId": row.reservation_no}
    assert (await now(yard, row)).state == "cancelled" and await shown(yard, cast) == "AVAILABLE"
    with pytest.raises(Refused, match="by connector type"):
        await act(yard, cast, reservations.reserve, cast.station_id, id_token_id=cast.card_id,
                  expires_at=soon(minutes=5), connector_type="cCCS2")  # fmt: skip
    await station.close()


async def test_a_reservation_used_at_the_neighbouring_evse_gives_its_own_one_back(yard: Yard, worker: Worker):
    """Who came has taken the other cable: nobody is awaited any more."""
    cast = yard.nordlicht
    station = await boot(yard, cast, "1.6", ReserveNow="Accepted")
    for connector in (1, 2):
        await station.status(connector, "Available")
    row = await reserve(yard, worker, evse_id=cast.evse_ids[0])
    with pytest.raises(Refused, match="reserved"):
        await act(yard, cast, startable.get_startable, cast.evse_ids[0])
    answer = await station.say("StartTransaction", {
        "connectorId": 2, "idTag": cast.card, "meterStart": 0, "timestamp": stamp(),
        "reservationId": row.reservation_no,
    })  # fmt: skip
    await station.status(2, "Charging")
    assert (await now(yard, row)).state == "used"
    assert (await shown(yard, cast), await shown(yard, cast, 2)) == ("AVAILABLE", "CHARGING")
    assert await act(yard, cast, startable.get_startable, cast.evse_ids[0])
    await station.stop(answer["transactionId"], 100)
    assert await act(yard, cast, startable.get_startable, cast.evse_ids[0])
    await station.close()


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
@case("1.6", "TC_048_1_CSMS", "TC_048_2_CSMS", "TC_048_3_CSMS", "TC_048_4_CSMS")
@case("2.0.1", "TC_H_22_CSMS")
async def test_a_station_says_why_it_takes_no_reservation(yard: Yard, worker: Worker, version: str):
    cast = yard.nordlicht
    station = await boot(yard, cast, version)
    await station.status(1, "Available")
    for word, told in reservations.REFUSALS.items():
        station.answers["ReserveNow"] = {"status": word}
        row = await reserve(yard, worker, evse_id=cast.evse_ids[0])
        assert (row.state, row.said) == ("refused", word) and reservations.in_words(row) == told
        assert await shown(yard, cast) == "AVAILABLE"
    await station.close()


@case("1.6", "TC_047_CSMS", "TC_053_CSMS")
async def test_a_reservation_ends_by_its_time_and_another_card_of_the_group_may_use_it(
    yard: Yard, worker: Worker
):
    cast = yard.nordlicht
    mother = await act(yard, cast, access.create_id_token, value="MOTHER", parent_value="FAMILY")
    await act(yard, cast, access.create_id_token, value="CHILD", parent_value="FAMILY")
    station = await boot(yard, cast, "1.6", ReserveNow="Accepted")
    await station.status(1, "Available")
    row = await reserve(yard, worker, evse_id=cast.evse_ids[0])
    await station.status(1, "Available")
    await worker.settle(timedelta(minutes=40))  # its job comes, and our own clock says that it is too early
    assert (await now(yard, row)).state == "active"
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        (await scope.db.get(Reservation, (cast.tenant_id, row.id))).expires_at = scope.now - timedelta(
            minutes=2
        )
    await act(yard, cast, reservations.expire_overdue)
    row = await now(yard, row)
    assert row.state == "expired" and await shown(yard, cast) == "AVAILABLE"

    row = await reserve(yard, worker, evse_id=cast.evse_ids[0], id_token_id=mother.id, for_group=True)
    assert asked(station, "ReserveNow")[-1]["parentIdTag"] == "FAMILY"
    answer = await station.say("Authorize", {"idTag": "CHILD"})
    assert answer["idTagInfo"] == {"status": "Accepted", "parentIdTag": "FAMILY"}
    await station.say("StartTransaction", {
        "connectorId": 1, "idTag": "CHILD", "meterStart": 0, "timestamp": stamp(),
        "reservationId": row.reservation_no,
    })  # fmt: skip
    assert (await now(yard, row)).state == "used"
    await station.close()


@case("2.0.1", "TC_H_01_CSMS", "TC_H_07_CSMS", "TC_H_15_CSMS", "TC_H_17_CSMS", "TC_H_19_CSMS", "TC_H_20_CSMS")
async def test_a_201_station_keeps_an_evse_and_tells_what_became_of_it(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    mother = await act(yard, cast, access.create_id_token, value="MOTHER", parent_value="FAMILY")
    await act(yard, cast, access.create_id_token, value="CHILD", parent_value="FAMILY")
    station = await boot(yard, cast, "2.0.1", ReserveNow="Accepted", CancelReservation="Accepted")
    await station.status(1, "Available")

    row = await reserve(yard, worker, evse_id=cast.evse_ids[0])
    assert asked(station, "ReserveNow")[-1] == {
        "id": row.reservation_no, "evseId": 1, "idToken": {"idToken": cast.card, "type": "ISO14443"},
        "expiryDateTime": row.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    await station.status(1, "Reserved")
    assert await shown(yard, cast) == "RESERVED"
    told = {"reservationId": row.reservation_no, "reservationUpdateStatus": "Expired"}
    assert await station.say("ReservationStatusUpdate", told) == {}
    await station.status(1, "Available")
    assert (await now(yard, row)).state == "expired" and await shown(yard, cast) == "AVAILABLE"

    row = await reserve(yard, worker, evse_id=cast.evse_ids[0])
    await station.status(1, "Faulted")
    await station.say("ReservationStatusUpdate", told | {
        "reservationId": row.reservation_no, "reservationUpdateStatus": "Removed",
    })  # fmt: skip
    row = await now(yard, row)
    assert row.state == "removed" and "gave it up" in reservations.in_words(row)
    assert await shown(yard, cast) == "OUTOFORDER"
    await station.status(1, "Available")

    row = await reserve(yard, worker, connector_type="sType2")
    payload = asked(station, "ReserveNow")[-1]
    assert payload["connectorType"] == "sType2" and "evseId" not in payload and row.state == "active"
    await act(yard, cast, reservations.cancel, row.id)
    await ended(yard, cast, worker, "CancelReservation")
    assert asked(station, "CancelReservation") == [{"reservationId": row.reservation_no}]
    assert (await now(yard, row)).state == "cancelled"

    row = await reserve(yard, worker, evse_id=cast.evse_ids[0], id_token_id=mother.id, for_group=True)
    assert asked(station, "ReserveNow")[-1]["groupIdToken"] == {"idToken": "FAMILY", "type": "Central"}
    answer = await station.say("Authorize", {"idToken": {"idToken": "CHILD", "type": "ISO14443"}})
    assert answer["idTokenInfo"]["groupIdToken"]["idToken"] == "FAMILY"
    answer = await station.say("TransactionEvent", {
        "eventType": "Started", "timestamp": stamp(), "triggerReason": "Authorized", "seqNo": 0,
        "transactionInfo": {"transactionId": "t-group", "chargingState": "EVConnected"},
        "evse": {"id": 1, "connectorId": 1}, "idToken": {"idToken": "CHILD", "type": "ISO14443"},
        "reservationId": row.reservation_no,
    })  # fmt: skip
    assert answer["idTokenInfo"]["status"] == "Accepted"
    row, session = await now(yard, row), await only(yard, cast, ChargingSession)
    assert (row.state, row.session_id) == ("used", session.id) and await shown(yard, cast) == "CHARGING"
    await station.close()


@case("2.0.1", "TC_H_08_CSMS", "TC_H_14_CSMS")
async def test_as_many_reservations_as_evses_make_all_of_them_reserved(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    other = await act(yard, cast, access.create_id_token, value="OTHER")
    station = await boot(yard, cast, "2.0.1", ReserveNow="Accepted")
    for number in (1, 2):
        await station.status(number, "Available")
    row = await reserve(yard, worker)
    assert row.state == "active" and "evseId" not in asked(station, "ReserveNow")[-1]
    assert [await shown(yard, cast, number) for number in (1, 2)] == ["AVAILABLE"] * 2
    await reserve(yard, worker, id_token_id=other.id)
    for number in (1, 2):
        await station.status(number, "Reserved")
    assert [await shown(yard, cast, number) for number in (1, 2)] == ["RESERVED"] * 2
    await station.event("Started", "t1", 0, evse=2, token="OTHER", meter_wh=0, trigger="Authorized")
    states = {one.id_token_id: (await now(yard, one)).state for one in [row]}
    assert states == {cast.card_id: "active"} and await shown(yard, cast, 2) == "CHARGING"
    used = await only(yard, cast, Reservation, Reservation.id_token_id == other.id)
    assert used.state == "used"
    await station.close()
