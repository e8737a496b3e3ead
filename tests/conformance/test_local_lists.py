"""OCPP 1.6 Local Authorization List Management, 2.0.1 blocks C (cache, groups) and D: a station knows whom to trust."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import local_lists
from app.access import service as access
from app.access.models import LocalList
from app.charging.models import ChargingSession
from app.device_model import service as device_model
from app.device_model.paths import parse_path
from app.device_model.reports import Attribute, ReportedVariable
from app.stations.models import StationCommand
from tests.cast import STAFF, Cast
from tests.conformance.conftest import Station16, Station201, Yard, case, rows
from tests.conformance.jobs import Worker, worker

pytestmark = pytest.mark.anyio
__all__ = ["worker"]

INFO = st.fixed_dictionaries({"status": st.sampled_from(["Accepted", "Blocked"])})
LISTS = st.dictionaries(st.text("ABC", min_size=1, max_size=3), INFO, max_size=12)


@given(wanted=LISTS, held=st.none() | LISTS, version=st.integers(0, 99), per_message=st.integers(1, 5))
def test_the_steps_lead_from_any_list_to_any_other(wanted: Any, held: Any, version: int, per_message: int):
    steps = local_lists.plan(wanted, held, version, per_message)
    now = held
    for number, step in enumerate(steps, 1):
        assert step.version == version + number and len(step.entries) <= per_message
        now = local_lists.apply(now, step)
    assert (now or {}) == wanted and (held is not None or steps)
    assert [step.update for step in steps[1:]] == ["Differential"] * (len(steps) - 1)
    assert not local_lists.plan(wanted, now, version, per_message)


class Box:
    """A station with a list of its own, as its firmware would keep it."""

    def __init__(self, station: Any, version: str) -> None:
        self.station, self.key = station, "listVersion" if version == "1.6" else "versionNumber"
        self.version, self.list, self.word = 0, {}, "Accepted"
        station.answers["SendLocalList"] = self.take
        station.answers["GetLocalListVersion"] = lambda _: {self.key: self.version}
        station.answers["ClearCache"] = {"status": "Accepted"}

    def take(self, payload: dict[str, Any]) -> dict[str, Any]:
        if self.word != "Accepted":
            word, self.word = self.word, "Accepted"
            return {"status": word}
        if payload["updateType"] == "Differential" and payload[self.key] <= self.version:
            return {"status": "VersionMismatch"}
        if payload["updateType"] == "Full":
            self.list = {}
        for entry in payload.get("localAuthorizationList", []):
            token = entry.get("idTag") or entry["idToken"]["idToken"]
            info = entry.get("idTagInfo") or entry.get("idTokenInfo")
            if info:
                self.list[token] = info
            else:
                self.list.pop(token, None)
        self.version = payload[self.key]
        return {"status": "Accepted"}

    def sent(self) -> list[dict[str, Any]]:
        return [payload for action, payload in self.station.asked if action == "SendLocalList"]


async def boot(yard: Yard, cast: Cast, version: str) -> Box:
    station = yard.station(cast, Station16 if version == "1.6" else Station201)
    box = Box(station, version)
    await station.connect()
    await station.boot()
    return box


async def act(yard: Yard, cast: Cast, verb: Any, *given_: Any, **more: Any) -> Any:
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        return await verb(scope, *given_, **more)


async def in_state(yard: Yard, cast: Cast, worker: Worker, state: str) -> LocalList:
    async def look() -> LocalList | None:
        found = await rows(yard, cast, LocalList)
        return found[0] if found and found[0].state == state else None

    return await worker.until(look)


async def ended(yard: Yard, cast: Cast, worker: Worker, action: str) -> StationCommand:
    async def look() -> StationCommand | None:
        found = await rows(yard, cast, StationCommand, StationCommand.action == action)
        return found[-1] if found and found[-1].status not in ("queued", "sent") else None

    found = await worker.until(look)
    await worker.settle()
    return found


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
@case("1.6", "TC_042_2_CSMS", "TC_043_4_CSMS", "TC_043_5_CSMS")
@case("2.0.1", "TC_D_01_CSMS", "TC_D_02_CSMS", "TC_D_03_CSMS", "TC_D_04_CSMS", "TC_D_08_CSMS", "TC_D_09_CSMS")
async def test_a_list_goes_whole_once_and_then_follows_the_tokens(yard: Yard, worker: Worker, version: str):
    cast = yard.nordlicht
    box = await boot(yard, cast, version)
    await act(yard, cast, local_lists.ask_version, cast.station_id)
    await ended(yard, cast, worker, "GetLocalListVersion")
    row = (await rows(yard, cast, LocalList))[0]
    assert (row.version, row.entry_count, row.state) == (0, 0, "unset")

    await act(yard, cast, access.create_id_token, value="FAMILY1", parent_value="FAMILY")
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        path = parse_path(
            "SendLocalListMaxLength" if version == "1.6" else "LocalAuthListCtrlr/ItemsPerMessage"
        )
        told = ReportedVariable(path=path, attributes={"Actual": Attribute(value="1")})
        await device_model.take_variables(scope, cast.station_id, [told])
    await act(yard, cast, local_lists.cover, cast.station_id, "all")
    await act(yard, cast, local_lists.send_now, cast.station_id, whole=True)
    row = await in_state(yard, cast, worker, "in_sync")
    assert [one["updateType"] for one in box.sent()] == ["Full", "Differential"]
    assert (row.version, row.entry_count) == (box.version, 2) and box.version == 2
    group = {"parentIdTag": "FAMILY"} if version == "1.6" else {
        "groupIdToken": {"idToken": "FAMILY", "type": "Central"}
    }  # fmt: skip
    assert box.list == {cast.card: {"status": "Accepted"}, "FAMILY1": {"status": "Accepted"} | group}

    # A blocked card and a new one follow by themselves; then one is gone.
    await act(yard, cast, access.update_id_token, cast.card_id, status="blocked")
    new = await act(yard, cast, access.create_id_token, value="NEWCARD")
    await worker.settle(local_lists.PATIENCE + timedelta(seconds=5))
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        (await local_lists.get_list(scope, cast.station_id)).due_at = scope.now
    await act(yard, cast, local_lists.sync_due)
    await in_state(yard, cast, worker, "in_sync")
    assert box.list[cast.card] == {"status": "Blocked"} and box.list["NEWCARD"] == {"status": "Accepted"}
    await act(yard, cast, access.delete_id_token, new.id)
    await act(yard, cast, local_lists.send_now, cast.station_id)
    row = await in_state(yard, cast, worker, "in_sync")
    assert "NEWCARD" not in box.list and row.entry_count == 2 and row.version == box.version == 5
    last = box.sent()[-1]
    assert last["updateType"] == "Differential" and len(last["localAuthorizationList"]) == 1
    assert last["localAuthorizationList"][0].keys() == {"idTag" if version == "1.6" else "idToken"}

    # Nobody any more: an empty full list clears it.
    await act(yard, cast, local_lists.cover, cast.station_id, "none")
    await act(yard, cast, local_lists.send_now, cast.station_id, whole=True)
    row = await in_state(yard, cast, worker, "in_sync")
    assert box.list == {} and row.entry_count == 0 and "localAuthorizationList" not in box.sent()[-1]
    await act(yard, cast, local_lists.ask_version, cast.station_id)
    told = await ended(yard, cast, worker, "GetLocalListVersion")
    assert told.answer == {box.key: row.version}
    await box.station.close()


@case("1.6", "TC_042_1_CSMS", "TC_043_1_CSMS", "TC_043_3_CSMS")
async def test_a_station_that_cannot_is_left_alone_and_one_that_failed_gets_the_whole_list(
    yard: Yard, worker: Worker
):
    cast = yard.nordlicht
    box = await boot(yard, cast, "1.6")
    await act(yard, cast, local_lists.cover, cast.station_id, "all")
    box.word = "Failed"
    await act(yard, cast, local_lists.send_now, cast.station_id)
    row = await in_state(yard, cast, worker, "failed")
    assert (row.said, row.version, row.entry_count) == ("Failed", None, 0)
    await act(yard, cast, local_lists.send_now, cast.station_id)
    await in_state(yard, cast, worker, "in_sync")

    # Somebody else's list is on it: a difference does not fit, and the whole list follows by itself.
    box.version, box.list = 40, {"STRANGER": {"status": "Accepted"}}
    await act(yard, cast, access.create_id_token, value="NEWCARD")
    await act(yard, cast, local_lists.send_now, cast.station_id)
    await in_state(yard, cast, worker, "in_sync")
    assert [one["updateType"] for one in box.sent()[-2:]] == ["Differential", "Full"]
    assert box.list.keys() == {cast.card, "NEWCARD"}

    box.word = "NotSupported"
    await act(yard, cast, access.create_id_token, value="ANOTHER")
    await act(yard, cast, local_lists.send_now, cast.station_id)
    row = await in_state(yard, cast, worker, "not_supported")
    box.version = -1
    await act(yard, cast, local_lists.ask_version, cast.station_id)
    await ended(yard, cast, worker, "GetLocalListVersion")
    await act(yard, cast, access.create_id_token, value="ONEMORE")
    row = (await rows(yard, cast, LocalList))[0]
    assert (row.state, row.version, row.due_at) == ("not_supported", None, None)
    await box.station.close()


async def test_a_list_of_a_group_holds_its_cards_only_and_waits_for_a_station_that_is_away(
    yard: Yard, worker: Worker
):
    cast = yard.nordlicht
    group = await act(yard, cast, access.create_driver_group, name="Fleet")
    elsewhere = await act(yard, cast, access.create_driver_group, name="Elsewhere")
    await act(yard, cast, access.create_id_token, value="FLEET1", driver_group_id=group.id)
    await act(yard, cast, local_lists.cover, cast.station_id, "groups", [group.id, elsewhere.id])
    row = await act(yard, cast, local_lists.send_now, cast.station_id)
    assert row.state == "waiting"
    box = await boot(yard, cast, "2.0.1")
    row = await in_state(yard, cast, worker, "in_sync")
    assert box.list == {"FLEET1": {"status": "Accepted"}} and row.entry_count == 1
    assert box.sent()[0]["localAuthorizationList"][0]["idToken"] == {"idToken": "FLEET1", "type": "ISO14443"}
    await box.station.close()


@case("2.0.1", "TC_C_37_CSMS", "TC_C_38_CSMS")
async def test_staff_clear_the_cache_of_a_station_and_see_its_answer(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    box = await boot(yard, cast, "2.0.1")
    for word, status in (("Accepted", "accepted"), ("Rejected", "rejected")):
        box.station.answers["ClearCache"] = {"status": word}
        await act(yard, cast, local_lists.clear_cache, cast.station_id)
        cleared = await ended(yard, cast, worker, "ClearCache")
        assert (cleared.status, cleared.answer) == (status, {"status": word})
    await box.station.close()


@case("2.0.1", "TC_C_39_CSMS", "TC_C_40_CSMS", "TC_C_43_CSMS", "TC_C_47_CSMS")
async def test_cards_of_one_group_are_answered_and_listed_with_it_whatever_their_state(
    yard: Yard, worker: Worker
):
    cast = yard.nordlicht
    for value, status, parent in (
        ("GROUP-A", "accepted", "GROUP"), ("GROUP-B", "accepted", "GROUP"), ("GROUP-C", "blocked", "GROUP"),
        ("GUARD", "accepted", "MASTERPASS"),
    ):  # fmt: skip
        await act(yard, cast, access.create_id_token, value=value, status=status, parent_value=parent)
    box = await boot(yard, cast, "2.0.1")
    station = box.station
    await act(yard, cast, local_lists.cover, cast.station_id, "all")
    await act(yard, cast, local_lists.send_now, cast.station_id)
    await in_state(yard, cast, worker, "in_sync")
    group = {"groupIdToken": {"idToken": "GROUP", "type": "Central"}}
    assert box.list["GROUP-A"] == box.list["GROUP-B"] == {"status": "Accepted"} | group
    assert box.list["GROUP-C"] == {"status": "Blocked"} | group
    for value, status in (("GROUP-A", "Accepted"), ("GROUP-B", "Accepted"), ("GROUP-C", "Blocked")):
        answer = await station.say("Authorize", {"idToken": {"idToken": value, "type": "ISO14443"}})
        assert answer["idTokenInfo"] == {"status": status} | group

    # One card starts, another of its group stops; the guard's stops all that runs.
    await station.event("Started", "t1", 0, token="GROUP-A", meter_wh=0, trigger="Authorized")
    await station.event("Started", "t2", 0, evse=2, token=cast.card, meter_wh=0, trigger="Authorized")
    answer = await station.event("Updated", "t1", 1, token="GROUP-B", trigger="StopAuthorized")
    assert answer.id_token_info == {
        "status": "Accepted",
        "group_id_token": {"id_token": "GROUP", "type": "Central"},
    }
    guard = await station.say("Authorize", {"idToken": {"idToken": "GUARD", "type": "ISO14443"}})
    assert guard["idTokenInfo"]["groupIdToken"]["idToken"] == "MASTERPASS"
    for evse, one in ((1, "t1"), (2, "t2")):
        await station.event(
            "Ended", one, 2, evse=evse, token="GUARD", trigger="StopAuthorized", reason="MasterPass",
            meter_wh=100, state="EVConnected",
        )  # fmt: skip
    found = await rows(yard, cast, ChargingSession)
    assert {(one.status, one.stopped_reason) for one in found} == {("COMPLETED", "MasterPass")}
    assert {one.id_token_masked[-4:] for one in found} == {"UP-A", cast.card[-4:]}
    await station.close()
