"""Real stations (the ocpp package's client) over real sockets: boot, authorise, charge, stop, commands."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from app.charging import service as charging
from app.charging.models import ChargingSession
from app.stations import commands
from app.stations import service as stations
from app.stations.models import Connector, OCPPMessage, StationCommand, StationConnection
from tests.cast import STAFF
from tests.foreign_stations import Station16, Station201
from tests.gateway.conftest import Yard, rows, until
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio


async def test_a_16_station_boots_authorises_charges_and_stops(yard: Yard):
    box = yard.station(yard.nordlicht, Station16)
    assert isinstance(box, Station16)
    await box.connect()
    boot = await box.boot()
    assert boot.status == "Accepted"
    assert boot.current_time.endswith("Z")
    await box.status(1, "Available")
    assert await box.authorize(yard.nordlicht.card.lower()) == "Accepted"
    assert await box.authorize("NOBODY") == "Invalid"
    started = await box.start(1, yard.nordlicht.card, 1_000)
    await box.status(1, "Charging")
    await box.meter(1, started.transaction_id, 1_500, 11_000)
    await box.stop(started.transaction_id, 2_000)
    (session,) = await rows(yard, yard.nordlicht, ChargingSession)
    assert (session.status, session.meter_start_wh, session.meter_stop_wh) == ("COMPLETED", 1_000, 2_000)
    assert len(await rows(yard, yard.nordlicht, MeterValue)) == 2
    frames = await rows(yard, yard.nordlicht, OCPPMessage)
    actions = {frame.action for frame in frames}
    assert {"BootNotification", "Authorize", "StartTransaction", "MeterValues", "StopTransaction"} <= actions
    assert not await rows(yard, yard.solmark, OCPPMessage)
    await box.close()


async def test_a_201_station_boots_authorises_charges_and_stops(yard: Yard):
    box = yard.station(yard.nordlicht, Station201)
    assert isinstance(box, Station201)
    await box.connect()
    assert (await box.boot()).status == "Accepted"
    await box.status(1, "Occupied")
    assert await box.authorize(yard.nordlicht.card) == "Accepted"
    await box.event("Started", "tx1", 0, meter_wh=1_000, token=yard.nordlicht.card)
    await box.event("Updated", "tx1", 1, meter_wh=1_400, power_w=22_000)
    await box.event("Ended", "tx1", 2, meter_wh=2_000, reason="Local")
    (session,) = await rows(yard, yard.nordlicht, ChargingSession)
    assert (session.status, session.ocpp_transaction_id, session.meter_start_wh) == (
        "COMPLETED",
        "tx1",
        1_000,
    )
    (first, *_) = await rows(yard, yard.nordlicht, Connector, Connector.status == "Occupied")
    assert first.connector_no == 1
    await box.close()


async def test_one_identity_in_two_brands_is_two_stations(yard: Yard):
    boxes = [yard.station(yard.nordlicht, Station16), yard.station(yard.solmark, Station201)]
    for box in boxes:
        await box.connect()
        await box.boot()  # type: ignore[attr-defined]
    for cast, version in ((yard.nordlicht, "ocpp1.6"), (yard.solmark, "ocpp2.0.1")):
        (link,) = await rows(yard, cast, StationConnection)
        assert (link.is_online, link.ocpp_version) == (True, version)
    for box in boxes:
        await box.close()


async def test_a_bare_identity_is_found_by_its_key(yard: Yard):
    box = yard.station(yard.solmark, Station16, path="ocpp//CP1/")
    box.identity = "CP1"
    await box.connect()
    assert (await box.boot()).status == "Accepted"  # type: ignore[attr-defined]
    assert await rows(yard, yard.solmark, StationConnection)
    assert not await rows(yard, yard.nordlicht, StationConnection)
    await box.close()


@pytest.mark.parametrize("case", ["wrong key", "unknown", "no key", "other tenant's key"])
async def test_who_may_not_in_is_answered_alike(yard: Yard, case: str):
    password = {"wrong key": "0" * 40, "no key": None, "other tenant's key": yard.solmark.password}.get(
        case, yard.nordlicht.password
    )
    path = "nordlicht/GHOST" if case == "unknown" else "nordlicht/CP1"
    box = yard.station(yard.nordlicht, Station16, password=password, path=path)
    with pytest.raises(InvalidStatus) as refused:
        await box.connect()
    response = refused.value.response
    assert (response.status_code, bytes(response.body or b"")) == (401, b"Unauthorized\n")


async def test_an_unknown_station_waits_among_the_unclaimed(yard: Yard):
    box = yard.station(yard.nordlicht, Station16, path="nordlicht/NEW-1")
    with pytest.raises(InvalidStatus):
        await box.connect()
    from sqlalchemy import text

    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        (mine,) = (await scope.db.execute(text("select identity from platform.own_unclaimed()"))).scalars()
        assert mine == "NEW-1"
    async with yard.database.scope(yard.solmark.tenant_id, STAFF) as scope:
        assert not list(
            (await scope.db.execute(text("select identity from platform.own_unclaimed()"))).scalars()
        )


async def test_the_newest_connection_wins_and_the_old_ones_end_is_no_end(yard: Yard):
    old, new = yard.station(yard.nordlicht, Station16), yard.station(yard.nordlicht, Station16)
    await old.connect()
    await old.boot()  # type: ignore[attr-defined]
    await new.connect()
    await new.boot()  # type: ignore[attr-defined]
    socket = old.socket
    assert socket is not None
    await asyncio.wait_for(socket.wait_closed(), 5)
    await asyncio.sleep(0.2)
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    assert (link.is_online, link.epoch) == (True, 2)
    await new.close()


async def test_a_remote_start_charges_and_a_remote_stop_ends(yard: Yard):
    box = yard.station(yard.nordlicht, Station201)
    assert isinstance(box, Station201)
    await box.connect()
    await box.boot()
    await box.status(1, "Available")

    async def begin(payload: dict[str, Any]) -> None:
        await box.event(
            "Started", "remote-1", 0, meter_wh=100, token=payload["id_token"]["id_token"], token_type="Central",
            trigger="RemoteStart", remote_start_id=payload["remote_start_id"],
        )  # fmt: skip

    async def end(payload: dict[str, Any]) -> None:
        await box.event(
            "Ended", payload["transaction_id"], 1, meter_wh=400, trigger="RemoteStop", reason="Remote"
        )

    box.reactions = {"RequestStartTransaction": begin, "RequestStopTransaction": end}
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        session, _ = await charging.request_start(scope, evse_id=yard.nordlicht.evse_ids[0])
    same = ChargingSession.id == session.id
    await until(lambda: rows(yard, yard.nordlicht, ChargingSession, same, ChargingSession.status == "ACTIVE"))
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await charging.request_stop(scope, session.id)
    await until(
        lambda: rows(yard, yard.nordlicht, ChargingSession, same, ChargingSession.status == "COMPLETED")
    )
    assert len(await rows(yard, yard.nordlicht, ChargingSession)) == 1
    states = {c.status for c in await rows(yard, yard.nordlicht, StationCommand)}
    assert states == {"accepted"}
    await box.close()


async def test_a_16_station_known_for_its_own_tag_is_believed_but_for_a_card_it_asked_about(yard: Yard):
    box = yard.station(yard.nordlicht, Station16)
    assert isinstance(box, Station16)
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        leniency = {"other_tag_on_remote_start": True}
        await stations.update_station(scope, yard.nordlicht.station_id, leniency=leniency)
    await box.connect()
    await box.boot()
    await box.status(1, "Available")
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        wish, _ = await charging.request_start(scope, evse_id=yard.nordlicht.evse_ids[0])
    await until(lambda: rows(yard, yard.nordlicht, StationCommand, StationCommand.status == "accepted"))
    assert await box.authorize("04STRANGER") == "Invalid"
    refused = await box.start(1, "04STRANGER", 100)
    assert refused.id_tag_info["status"] == "Invalid"
    same = ChargingSession.id == wish.id
    assert (await rows(yard, yard.nordlicht, ChargingSession, same))[0].status == "PENDING"
    await box.stop(refused.transaction_id, 100, reason="DeAuthorized")
    own = await box.start(1, "REMOTE", 100)
    assert own.id_tag_info["status"] == "Accepted"
    assert (await rows(yard, yard.nordlicht, ChargingSession, same))[0].status == "ACTIVE"
    await box.close()


async def test_a_refused_command_keeps_the_stations_own_answer(yard: Yard):
    box = yard.station(yard.nordlicht, Station16)
    box.behaviour["Reset"] = "Rejected"
    await box.connect()
    await box.boot()  # type: ignore[attr-defined]
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await commands.send_command(scope, yard.nordlicht.station_id, "Reset", {"type": "Soft"})
    (done,) = await until(
        lambda: rows(yard, yard.nordlicht, StationCommand, StationCommand.ended_at.is_not(None))
    )
    assert (done.status, done.answer) == ("rejected", {"status": "Rejected"})
    await box.close()


async def test_a_command_to_an_offline_station_waits_for_it(yard: Yard):
    box = yard.station(yard.nordlicht, Station16)
    await box.connect()
    await box.boot()  # type: ignore[attr-defined]
    await box.close()
    await until(lambda: rows(yard, yard.nordlicht, StationConnection, StationConnection.is_online.is_(False)))
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        await commands.send_command(scope, yard.nordlicht.station_id, "Reset", {"type": "Soft"})
        lapsed = await commands.send_command(
            scope, yard.nordlicht.station_id, "Reset", {"type": "Hard"}, expires_in=timedelta(seconds=5)
        )
        lapsed.expires_at = scope.now
    await box.connect()
    await box.boot()  # type: ignore[attr-defined]
    await until(lambda: rows(yard, yard.nordlicht, StationCommand, StationCommand.status == "accepted"))
    assert [payload["type"] for action, payload in box.asked if action == "Reset"] == ["Soft"]
    assert await rows(yard, yard.nordlicht, StationCommand, StationCommand.status == "expired")
    await box.close()


async def test_a_station_key_never_stays_in_the_log(yard: Yard):
    box = yard.station(yard.nordlicht, Station16)
    await box.connect()
    await box.boot()  # type: ignore[attr-defined]
    secret = "ab" * 20
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        payload = {"key": "AuthorizationKey", "value": secret}
        await commands.send_command(scope, yard.nordlicht.station_id, "ChangeConfiguration", payload)
    await until(lambda: rows(yard, yard.nordlicht, StationCommand, StationCommand.status == "accepted"))
    assert ("ChangeConfiguration", {"key": "AuthorizationKey", "value": secret}) in box.asked
    everything = [row.raw for row in await rows(yard, yard.nordlicht, OCPPMessage)]
    everything += [json.dumps(row.payload) for row in await rows(yard, yard.nordlicht, StationCommand)]
    assert not [text for text in everything if secret in text]
    await box.close()
