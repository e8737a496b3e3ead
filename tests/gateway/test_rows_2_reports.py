"""ocpp.md section 2, rows 37 to 68: what stations report, and what others try. Each test is named after its rows."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select, update

from app.access import service as access
from app.brands import service as brands
from app.charging import service as charging
from app.charging.models import CDR, ChargingSession, SessionEvent
from app.kernel.errors import Refused
from app.kernel.events import Event
from app.notifications.jobs import mail_card_used_twice
from app.notifications.models import Mail
from app.stations import alerts, commands
from app.stations import service as stations
from app.stations.models import EVSE, ChargingStation, Connector, OCPPMessage, StationAlert, StationCommand
from ocpp_gateway import connection as connection_module
from ocpp_gateway import watch as watch_module
from ocpp_gateway.server import Gateway
from ocpp_gateway.verbs import Verbs
from tests.foreign_stations import stamp
from tests.gateway.street import Box, Link, Street, box, street
from tests.journeys.house import free_port
from tests.readings import MeterValue

pytestmark = pytest.mark.anyio
__all__ = ["box", "street"]


def ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


def sample(wh: float | str, at: datetime | str | None = None) -> list[dict[str, Any]]:
    when = at if isinstance(at, str) else stamp(at)
    return [{"timestamp": when, "sampledValue": [{"value": str(wh)}]}]


async def start(link: Link, *, meter: int = 1_000, at: datetime | None = None, **more: Any) -> int:
    payload = {"connectorId": 1, "idTag": link.box.card, "meterStart": meter, "timestamp": stamp(at)} | more
    return (await link.tell("StartTransaction", payload))["transactionId"]


async def stop(
    link: Link, transaction: Any, *, meter: int = 2_000, at: datetime | None = None, **more: Any
) -> Any:
    payload = {"transactionId": transaction, "meterStop": meter, "timestamp": stamp(at)} | more
    return await link.tell("StopTransaction", payload)


async def session_of(box: Box) -> ChargingSession:
    (only,) = await box.rows(ChargingSession)
    return only


# -- transactions ------------------------------------------------------------------------------------------------------


async def test_row_37_a_start_told_again_under_a_new_id_is_the_same_transaction(box: Box):
    link, at = await box.online(), ago(minutes=1)
    assert await start(link, at=at) == await start(link, at=at)
    assert len(await box.rows(ChargingSession)) == 1


@pytest.mark.parametrize(
    "spelled", ["%Y-%m-%dT%H:%M:%S+00:00", "%Y-%m-%dT%H:%M:%S.120Z", "%Y-%m-%d %H:%M:%SZ"]
)
async def test_row_37_also_where_its_time_is_spelled_otherwise(box: Box, spelled: str):
    link, at = await box.online(), ago(hours=1)
    first = await start(link, timestamp=at.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
    assert await start(link, timestamp=at.strftime(spelled)) == first
    assert len(await box.rows(ChargingSession)) == 1


@pytest.mark.parametrize("clock", ["1970-01-01T00:00:00Z", None])
async def test_row_37_a_visit_told_like_one_that_is_over_is_kept_and_waits_for_staff(
    box: Box, clock: str | None
):
    """No clock, and a meter that begins at 0: each of a card's visits is told alike. Or it is a replay; staff see."""
    link, told = await box.online(), []
    for end in (300, 400, 500):
        transaction = await start(link, meter=0, timestamp=clock)
        assert await start(link, meter=0, timestamp=clock) == transaction
        await stop(link, transaction, meter=end, timestamp=clock, idTag=box.card)
        told.append(transaction)
    assert len(set(told)) == 3
    sessions = {one.ocpp_transaction_id: one for one in await box.rows(ChargingSession)}
    assert [(sessions[str(n)].review, sessions[str(n)].energy_wh) for n in told] == [
        (None, 300), ("start_twice", 400), ("start_twice", 500)
    ]  # fmt: skip


async def test_row_37_a_replay_with_a_clock_that_is_right_opens_nothing(box: Box):
    link, at = await box.online(), ago(hours=2)
    transaction = await start(link, at=at)
    await stop(link, transaction, at=at + timedelta(hours=1))
    assert await start(link, at=at) == transaction
    assert len(await box.rows(ChargingSession)) == 1


async def test_row_37_an_id_of_2x_that_comes_again_after_its_end_is_another_session(box: Box):
    link = await box.online("ocpp2.0.1")
    for begin, first, last in ((ago(hours=5), 1_000, 1_500), (ago(hours=2), 1_500, 4_500)):
        for _ in range(2):  # each told twice
            for seq, (kind, at, wh) in enumerate(
                (("Started", begin, first), ("Ended", begin + timedelta(hours=1), last))
            ):
                await link.tell("TransactionEvent", {
                    "eventType": kind, "timestamp": stamp(at), "triggerReason": "CablePluggedIn", "seqNo": seq,
                    "offline": True, "evse": {"id": 1, "connectorId": 1}, "transactionInfo": {"transactionId": "1"},
                    "idToken": {"idToken": box.card, "type": "ISO14443"},
                    "meterValue": [{"timestamp": stamp(at), "sampledValue": [{"value": wh}]}],
                })  # fmt: skip
    sessions = await box.rows(ChargingSession)
    assert sorted((one.energy_wh, one.status, one.review) for one in sessions) == [
        (500, "COMPLETED", None), (3_000, "COMPLETED", None)
    ]  # fmt: skip
    assert {one.energy_wh for one in sessions if one.ocpp_transaction_id == "1"} == {3_000}


async def test_row_38_a_stop_of_another_stations_transaction_does_nothing_to_it(street: Street, box: Box):
    other = await street.box()
    theirs = await start(await other.online())
    link = await box.online()
    await stop(link, theirs)
    assert (await session_of(other)).status == "ACTIVE"
    assert (await session_of(box)).review == "orphan"


async def test_row_38_transaction_ids_do_not_follow_each_other(street: Street):
    ids = [await start(await (await street.box()).online()) for _ in range(4)]
    assert len(set(ids)) == 4
    assert sorted(abs(one - other) for one, other in pairwise(ids))[0] > 1


@pytest.mark.parametrize("transaction", [-1, 0, 4711, "abc", None])
async def test_row_39_a_stop_without_a_known_id_is_matched_by_card_time_and_meter(box: Box, transaction: Any):
    link = await box.online()
    await start(link, at=ago(minutes=20))
    await start(link, at=ago(minutes=20), connectorId=2, idTag="SOMEBODY-ELSE")
    await stop(link, transaction, idTag=box.card)
    status = {one.evse_no: one.status for one in await box.rows(ChargingSession)}
    assert status == {1: "COMPLETED", 2: "ACTIVE"}


@pytest.mark.parametrize("more", [{}, {"idTag": "NOBODY"}, {"meterStop": 5, "idTag": "Nordlicht"}])
async def test_row_39_a_stop_that_fits_nothing_is_acknowledged_and_waits_for_staff(
    box: Box, more: dict[str, Any]
):
    link = await box.online()
    running = await start(link, at=ago(minutes=20))
    await stop(link, 4711, **more)
    rows = await box.rows(ChargingSession)
    assert {(one.status, one.review) for one in rows} == {("ACTIVE", None), ("COMPLETED", "orphan")}
    assert next(one for one in rows if one.status == "ACTIVE").ocpp_transaction_id == str(running)


@pytest.mark.parametrize("transaction", [-1, 0])
async def test_row_39_48_a_stop_without_an_id_that_comes_before_its_start_is_joined_by_it(
    box: Box, transaction: int
):
    link, begin = await box.online(), ago(hours=6)
    end = {"meter": 20_000, "at": begin + timedelta(hours=1), "idTag": box.card}
    await stop(link, transaction, **end)
    assert (await session_of(box)).review == "orphan"
    for _ in range(2):  # all of it told twice
        await start(link, meter=10_000, at=begin, connectorId=2)
        await stop(link, transaction, **end)
    session = await session_of(box)
    assert (session.status, session.review, session.energy_wh, session.evse_no) == (
        "COMPLETED",
        None,
        10_000,
        2,
    )
    assert abs(session.started_at - begin) < timedelta(seconds=1)
    await start(link, meter=20_000)  # and the next visit is its own
    assert len(await box.rows(ChargingSession)) == 2


async def test_row_40_a_stop_without_an_id_told_again_changes_nothing(box: Box):
    link, begin = await box.online(), ago(hours=6)
    await start(link, at=begin)
    for _ in range(2):
        await stop(link, -1, at=begin + timedelta(hours=1), idTag=box.card)
    assert (await session_of(box)).energy_wh == 1_000


async def test_row_40_a_stop_told_again_later_changes_nothing(box: Box):
    link = await box.online()
    transaction, at = await start(link, at=ago(minutes=30)), ago(minutes=1)
    await stop(link, transaction, at=at)
    before = await session_of(box)
    await link.close()
    again = await box.online()
    await stop(again, transaction, at=at)
    await stop(again, transaction, at=at, meter=9_999)
    after = await session_of(box)
    assert (after.energy_wh, after.ended_at, after.meter_stop_wh) == (1_000, before.ended_at, 2_000)
    assert [e.kind for e in await box.street.rows(SessionEvent, SessionEvent.session_id == after.id)].count(
        "ended"
    ) == 1


async def test_row_41_a_stop_with_another_card_ends_the_session_of_who_started_it(street: Street, box: Box):
    async with street.scope() as scope:
        await access.create_id_token(scope, value="COLLEAGUE")
    link = await box.online()
    answer = await stop(link, await start(link, at=ago(minutes=30)), idTag="COLLEAGUE")
    assert answer["idTagInfo"]["status"] == "Accepted"
    session = await session_of(box)
    assert (session.status, session.id_token_id, session.energy_wh) == (
        "COMPLETED",
        street.nordlicht.card_id,
        1_000,
    )


async def test_row_42_meter_values_before_the_start_and_after_the_stop_are_kept_and_not_billed(box: Box):
    link = await box.online()
    await link.tell("MeterValues", {"connectorId": 1, "meterValue": sample(900, ago(minutes=40))})
    transaction = await start(link, at=ago(minutes=30))
    await link.tell("MeterValues", {"connectorId": 1, "transactionId": transaction,
                                    "meterValue": sample(1_500, ago(minutes=20))})  # fmt: skip
    await stop(link, transaction, at=ago(minutes=10))
    await link.tell(
        "MeterValues", {"connectorId": 1, "transactionId": transaction, "meterValue": sample(2_060)}
    )
    assert len(await box.rows(MeterValue)) == 3
    assert ((await session_of(box)).energy_wh, (await session_of(box)).review) == (1_000, None)


@pytest.mark.parametrize(("middle", "end"), [(1_500, 500), (200, 2_000), (1_500, -1)])
async def test_row_43_a_meter_that_falls_gives_no_energy_and_waits_for_staff(box: Box, middle: int, end: int):
    link = await box.online()
    transaction = await start(link, at=ago(minutes=30))
    await link.tell("MeterValues", {"connectorId": 1, "transactionId": transaction,
                                    "meterValue": sample(middle, ago(minutes=20))})  # fmt: skip
    await stop(link, transaction, meter=end)
    session = await session_of(box)
    assert (session.energy_wh, session.review) == (None, "implausible")


@pytest.mark.parametrize("end", [10**12, 1_000 + 22_000_000])
async def test_row_44_45_more_than_the_plate_can_give_is_never_billed_by_itself(box: Box, end: int):
    link = await box.online()
    await stop(link, await start(link, at=ago(hours=1)), meter=end)
    session = await session_of(box)
    assert (session.energy_wh, session.review) == (None, "implausible")
    assert not await box.street.rows(CDR, CDR.session_id == session.id)


@pytest.mark.parametrize("at", ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "nonsense", "", "in 3 days"])
async def test_row_46_a_clock_that_cannot_be_is_replaced_by_ours_and_kept_beside(box: Box, at: str):
    if at == "in 3 days":
        at = stamp(datetime.now(UTC) + timedelta(days=3))
    link = await box.online()
    await link.tell("MeterValues", {"connectorId": 1, "meterValue": sample(1_234, at)})
    (value,) = await box.rows(MeterValue)
    assert value.sampled_at == value.received_at
    if at[:2] in ("19", "99", "20"):
        assert value.station_at is not None


async def test_row_46_yesterday_is_a_time_that_can_be(box: Box):
    link, at = await box.online(), ago(days=1)
    await stop(link, await start(link, at=at), at=at + timedelta(minutes=30))
    session = await session_of(box)
    assert abs(session.started_at - at) < timedelta(seconds=1)
    assert (session.is_offline, session.energy_wh) == (True, 1_000)


async def test_row_47_48_days_of_queued_messages_doubled_and_in_any_order_count_once(
    street: Street, box: Box
):
    """A third of the transactions tell their stop before their start."""
    link = await box.online("ocpp2.0.1")
    quiet = await (await street.box()).online()
    messages = []
    for number in range(12):
        begin = ago(hours=70 - 5 * number)
        for seq, (kind, minutes, wh) in enumerate(
            (("Started", 0, 0), ("Updated", 30, 500), ("Ended", 60, 1_000))
        ):
            at = begin + timedelta(minutes=minutes)
            messages.append({
                "eventType": kind, "timestamp": stamp(at), "triggerReason": "MeterValuePeriodic", "seqNo": seq,
                "offline": True, "evse": {"id": 1, "connectorId": 1},
                "transactionInfo": {"transactionId": f"q{number}"},
                "idToken": {"idToken": box.card, "type": "ISO14443"},
                "meterValue": [{"timestamp": stamp(at), "sampledValue": [{"value": wh + 1_000 * number}]}],
            })  # fmt: skip
    for number in range(0, 12, 3):
        part = slice(number * 3, number * 3 + 3)
        messages[part] = reversed(messages[part])
    for message in [*messages, *messages]:
        await link.tell("TransactionEvent", message)
    assert await quiet.is_alive()
    sessions = await box.rows(ChargingSession)
    assert len(sessions) == 12
    assert {(one.status, one.review, one.energy_wh) for one in sessions} == {("COMPLETED", None, 1_000)}
    assert len(await box.rows(MeterValue)) == 36


async def test_row_48_without_its_start_a_session_is_kept_for_staff(box: Box):
    link = await box.online("ocpp2.0.1")
    await link.tell("TransactionEvent", {
        "eventType": "Ended", "timestamp": stamp(), "triggerReason": "EVDeparted", "seqNo": 9,
        "transactionInfo": {"transactionId": "lost"}, "evse": {"id": 1},
        "meterValue": [{"timestamp": stamp(), "sampledValue": [{"value": 5_000}]}],
    })  # fmt: skip
    assert ((await session_of(box)).review, (await session_of(box)).energy_wh) == ("orphan", None)


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_row_49_answers_nobody_asked_for_are_ignored(box: Box):
    link = await box.online()
    await link.send([3, "ghost", {"status": "Accepted"}])
    await link.send([4, "ghost", "GenericError", "", {}])
    link.answers["Reset"] = lambda _: [3, "another-id", {"status": "Accepted"}]
    assert (await box.command("Reset", {"type": "Soft"})).status == "unknown"
    late = link.asked_ids[-1]
    await link.send([3, late, {"status": "Accepted"}])
    assert await link.is_alive()
    (command,) = await box.rows(StationCommand)
    assert command.status == "unknown"


async def test_row_50_an_answer_that_fits_another_question_is_no_answer(street: Street, box: Box):
    link = await box.online()
    link.answers["Reset"] = {"currentTime": stamp()}
    done = await box.command("Reset", {"type": "Soft"})
    assert (done.status, done.error) == ("failed", "the answer does not fit Reset")
    assert (await street.until(lambda: box.rows(StationAlert)))[0].kind == "answer_misfit"


async def test_row_51_without_an_answer_a_start_is_unknown_and_not_asked_for_again(box: Box):
    link = await box.online()
    link.answers["RemoteStartTransaction"] = None
    done = await box.command("RemoteStartTransaction", {"connectorId": 1, "idTag": box.card})
    assert done.status == "unknown"
    await link.close()
    again = await box.online()
    await asyncio.sleep(0.5)
    assert "RemoteStartTransaction" not in [action for action, _ in again.asked]


# -- too much ----------------------------------------------------------------------------------------------------------


async def test_row_52_a_flood_is_slowed_down_and_then_closed_with_1008(
    street: Street, box: Box, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "FLOOD_S", 0.3)
    link, quiet = await box.online(), await (await street.box()).online()

    async def flood() -> None:
        for number in range(5_000):
            await link.send([2, f"f{number}", "Heartbeat", {}])

    pouring = asyncio.create_task(flood())
    assert await quiet.is_alive()
    await asyncio.wait_for(link.closed.wait(), 15)
    pouring.cancel()
    assert link.socket.close_code in (1008, 1006)
    assert (await street.until(lambda: box.rows(StationAlert)))[0].kind == "message_flood"
    assert await quiet.is_alive()


async def test_row_53_boots_without_end_are_accepted_from_memory_and_told_to_staff(street: Street, box: Box):
    link = await box.online()
    answers = [(await link.boot())[2] for _ in range(30)]
    assert {answer["status"] for answer in answers} == {"Accepted"}
    assert len({answer["interval"] for answer in answers[6:]}) == 1
    written = await box.rows(
        OCPPMessage, OCPPMessage.action == "BootNotification", OCPPMessage.direction == "in"
    )
    assert len(written) <= 6
    assert (await street.until(lambda: box.rows(StationAlert)))[0].kind == "boot_loop"


async def test_row_54_a_flapping_status_is_kept_raw_and_is_one_fault(street: Street, box: Box):
    link = await box.online()
    for number in range(20):
        word = "Available" if number % 2 else "Faulted"
        await link.tell(
            "StatusNotification", {"connectorId": 1, "errorCode": "GroundFailure", "status": word}
        )
        await link.tell(
            "StatusNotification", {"connectorId": 1, "errorCode": "GroundFailure", "status": word}
        )
    kept = await box.rows(
        OCPPMessage, OCPPMessage.action == "StatusNotification", OCPPMessage.direction == "in"
    )
    assert len(kept) == 40
    faults = await street.rows(Event, Event.kind == "ConnectorFaulted", Event.source_id == box.evse_ids[0])
    assert len(faults) == 10


async def test_row_55_guessing_cards_ends_with_invalid_for_all_and_an_alert(
    street: Street, box: Box, monkeypatch: pytest.MonkeyPatch
):
    link = await box.online()
    told = {(await link.tell("Authorize", {"idTag": f"G{n}"}))["idTagInfo"]["status"] for n in range(29)}
    assert told == {"Invalid"}
    assert (await link.tell("Authorize", {"idTag": box.card}))["idTagInfo"]["status"] == "Accepted"
    for number in range(3):
        await link.tell("Authorize", {"idTag": f"H{number}"})
    assert (await link.tell("Authorize", {"idTag": box.card}))["idTagInfo"]["status"] == "Invalid"
    assert (await street.until(lambda: box.rows(StationAlert)))[0].kind == "card_guessing"
    elsewhere = await (await street.box()).online()
    assert (await elsewhere.tell("Authorize", {"idTag": box.card}))["idTagInfo"]["status"] == "Accepted"
    monkeypatch.setattr(watch_module, "REFUSED_WITHIN_S", 0.0)  # the minute is over
    assert (await link.tell("Authorize", {"idTag": box.card}))["idTagInfo"]["status"] == "Accepted"


@pytest.mark.parametrize(("rule", "answer", "review"), [
    ("anywhere", "Accepted", None), ("hold", "Accepted", "card_twice"), ("refuse", "ConcurrentTx", None),
])  # fmt: skip
async def test_row_56_a_card_at_two_sites_at_once_follows_the_brands_rule_and_its_driver_is_told(
    street: Street, box: Box, rule: str, answer: str, review: str | None
):
    async with street.scope() as scope:
        driver = await access.create_driver(scope, name="Twice", email=f"{rule}@driver.example")
        card = await access.create_id_token(scope, value=f"TWICE-{rule}", driver_id=driver.id)
        site = await stations.create_location(
            scope, name="Far", address="Far 1", city="Far", country="DEU", time_zone="Europe/Berlin"
        )
        await brands.update_profile(scope, {"card_use": rule})
    first = await (await street.box()).online()
    second = await street.box(location_id=site.id)
    link = await second.online()
    await start(first, idTag=f"TWICE-{rule}", at=ago(minutes=30))
    asked = await link.tell("Authorize", {"idTag": f"TWICE-{rule}"})
    assert asked["idTagInfo"]["status"] == answer
    transaction = await start(link, idTag=f"TWICE-{rule}", at=ago(minutes=10))
    session = await session_of(second)
    assert (session.status, session.review, session.id_token_status) == ("ACTIVE", review, answer)
    await stop(link, transaction)
    held = await session_of(second)
    assert (held.energy_wh, held.review) == (1_000, "orphan" if rule == "refuse" else review)
    told = await street.rows(Event, Event.kind == "CardUsedTwice", Event.source_id == card.id)
    assert bool(told) is (rule != "anywhere")
    for event in told:
        await mail_card_used_twice(street.yard.database, street.nordlicht.tenant_id, str(event.id))
    mails = await street.rows(Mail, Mail.to_address == f"{rule}@driver.example")
    assert len(mails) == (0 if rule == "anywhere" else 1)
    assert not [mail for mail in mails if f"TWICE-{rule}" in mail.body]
    async with street.scope() as scope:
        await brands.update_profile(scope, {"card_use": "anywhere"})


async def test_row_57_a_card_of_another_brand_is_answered_like_an_unknown_one(street: Street, box: Box):
    async with street.scope(street.yard.solmark) as scope:
        await access.create_id_token(scope, value="ONLY-SOLMARK")
    link = await box.online()
    assert await link.tell("Authorize", {"idTag": "ONLY-SOLMARK"}) == await link.tell(
        "Authorize", {"idTag": "NOBODYS"}
    )


async def test_row_60_a_data_transfer_of_nobody_we_know_is_refused_and_kept_in_part(box: Box):
    link = await box.online()
    answer = await link.tell("DataTransfer", {"vendorId": "com.unknown", "data": "y" * 60_000})
    assert answer == {"status": "UnknownVendorId"}
    (kept,) = await box.rows(OCPPMessage, OCPPMessage.action == "DataTransfer", OCPPMessage.direction == "in")
    assert len(kept.raw) < 10_000


async def test_row_61_texts_of_a_station_are_texts_wherever_they_go(box: Box):
    nasty = "<script>alert(1)</script>'; drop table livery.evse; --=cmd()"
    link = await box.dial()
    boot = {"chargePointModel": nasty, "chargePointVendor": nasty, "firmwareVersion": nasty, "iccid": nasty}
    assert (await link.call("BootNotification", boot))[2]["status"] == "Accepted"
    status = {
        "connectorId": 1,
        "errorCode": nasty,
        "status": "Faulted",
        "info": nasty,
        "vendorErrorCode": nasty,
    }
    await link.tell("StatusNotification", status)
    (station,) = await box.street.rows(ChargingStation, ChargingStation.id == box.station_id)
    assert (station.vendor, station.model, station.firmware_version) == (nasty, nasty, nasty)
    (connector,) = await box.street.rows(Connector, Connector.evse_id == box.evse_ids[0])
    assert (connector.error_info, connector.vendor_error_code) == (nasty, nasty)
    kept = await box.rows(
        OCPPMessage, OCPPMessage.action == "BootNotification", OCPPMessage.direction == "in"
    )
    assert json.loads(kept[0].raw)[3]["chargePointVendor"] == nasty


@pytest.mark.parametrize("connector", [-1, 65, 999, "abc"])
@pytest.mark.parametrize("action", ["StatusNotification", "StartTransaction", "MeterValues"])
async def test_row_62_a_connector_that_cannot_be_creates_nothing(box: Box, action: str, connector: Any):
    link = await box.online()
    payload = {
        "connectorId": connector, "errorCode": "NoError", "status": "Available", "idTag": box.card, "meterStart": 0,
        "timestamp": stamp(), "meterValue": sample(1),
    }  # fmt: skip
    answer = await link.call(action, payload)
    assert answer[:1] + answer[2:3] in ([4, "PropertyConstraintViolation"], [4, "TypeConstraintViolation"])
    assert len(await box.rows(EVSE)) == 2
    assert not await box.rows(ChargingSession)


async def test_row_62_connector_0_is_the_station_and_starts_nothing(box: Box):
    link = await box.online()
    status = {"connectorId": 0, "errorCode": "NoError", "status": "Available"}
    await link.tell("StatusNotification", status)
    begin = {"connectorId": 0, "idTag": box.card, "meterStart": 0, "timestamp": stamp()}
    assert (await link.call("StartTransaction", begin))[2] == "PropertyConstraintViolation"
    assert len(await box.rows(EVSE)) == 2


async def test_row_63_the_older_of_two_transactions_on_a_connector_is_superseded(box: Box):
    link = await box.online()
    await start(link, at=ago(minutes=40))
    await start(link, at=ago(minutes=10), meter=3_000)
    older, newer = sorted(await box.rows(ChargingSession), key=lambda one: one.started_at)
    assert (older.status, older.review, newer.status) == ("COMPLETED", "superseded", "ACTIVE")
    assert older.ended_at == newer.started_at


async def test_row_64_two_days_without_a_word_close_a_session_for_review(street: Street, box: Box):
    link = await box.online()
    transaction = await start(link, at=ago(hours=49))
    await link.tell("MeterValues", {"connectorId": 1, "transactionId": transaction,
                                    "meterValue": sample(4_000, ago(hours=48, minutes=30))})  # fmt: skip
    async with street.scope() as scope:
        await charging.close_stuck(scope)
    session = await session_of(box)
    assert (session.status, session.review, session.stopped_reason) == ("COMPLETED", "stuck", "Silence")
    assert not await street.rows(CDR, CDR.session_id == session.id)
    await stop(link, transaction, meter=5_000, at=ago(hours=48, minutes=10))  # it spoke after all
    session = await session_of(box)
    assert (session.review, session.energy_wh, session.stopped_reason) == (None, 4_000, "Local")


# -- takeovers ---------------------------------------------------------------------------------------------------------


async def test_row_13_a_living_connection_gives_way_and_the_third_time_the_station_is_only_read(
    street: Street, box: Box
):
    links = [await box.online()]
    for number in range(3):
        links.append(await box.online())
        assert await links[-2].ends() == 1008
        if number == 1:
            await street.until(lambda: box.rows(StationAlert, StationAlert.count == 2))
            (station,) = await street.rows(ChargingStation, ChargingStation.id == box.station_id)
            assert station.quarantined_at is None
    (alert,) = await street.until(lambda: box.rows(StationAlert, StationAlert.count == 3))
    assert alert.kind == "duplicate_identity"
    with pytest.raises(Refused) as refused:
        async with street.scope() as scope:
            await charging.request_start(scope, evse_id=box.evse_ids[0])
    assert refused.value.code == "station_quarantined"
    with pytest.raises(Refused):
        await box.command("Reset", {"type": "Soft"})
    links[-1].answers["GetConfiguration"] = {"configurationKey": []}
    assert (await box.command("GetConfiguration", {})).status == "accepted"
    async with street.scope() as scope:
        await alerts.release(scope, box.station_id)
    links[-1].answers["Reset"] = {"status": "Accepted"}
    assert (await box.command("Reset", {"type": "Soft"})).status == "accepted"


async def test_row_13_what_was_queued_before_waits_while_the_station_is_only_read(street: Street, box: Box):
    async with street.scope() as scope:
        await commands.send_command(scope, box.station_id, "Reset", {"type": "Soft"})
        await scope.db.execute(
            update(ChargingStation)
            .where(ChargingStation.id == box.station_id)
            .values(quarantined_at=scope.now)
        )
    link = await box.online()
    await asyncio.sleep(0.6)
    assert "Reset" not in [action for action, _ in link.asked]
    async with street.scope() as scope:
        queued = select(StationCommand.status).where(StationCommand.station_id == box.station_id)
        assert (await scope.db.execute(queued)).scalar_one() == "queued"


# -- many gateways -----------------------------------------------------------------------------------------------------


async def test_row_65_when_a_gateway_restarts_its_stations_move_on_and_no_command_is_lost_or_sent_twice(
    street: Street, box: Box
):
    port = free_port()
    going = Gateway(street.yard.gateway.settings.model_copy(update={"ocpp_port": port}), Verbs)
    stop_it = asyncio.Event()
    running = asyncio.create_task(going.run(stop_it))
    link = await street.until(lambda: _dialled(box, port))
    assert (await link.boot())[2]["status"] == "Accepted"
    link.answers["Reset"] = {"status": "Accepted"}
    assert (await box.command("Reset", {"type": "Soft"})).status == "accepted"
    stop_it.set()
    assert await link.ends() == 1012
    await asyncio.wait_for(running, 20)
    waiting = asyncio.create_task(box.command("Reset", {"type": "Hard"}))
    back = await box.online()
    back.answers["Reset"] = {"status": "Accepted"}
    assert (await waiting).status == "accepted"
    assert [payload for action, payload in back.asked if action == "Reset"] == [{"type": "Hard"}]


async def _dialled(box: Box, port: int) -> Link | None:
    try:
        return await box.dial(port=port)
    except OSError:
        return None
