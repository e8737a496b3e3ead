"""OCPP 2.0.1 blocks C and E: who may charge, and when a transaction starts and stops. Stations: the `ocpp` package."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.conftest import case
from tests.conformance.stage import Stage
from tests.foreign_stations import stamp

pytestmark = pytest.mark.anyio


class Transaction:
    """One transaction as a station tells it: `seq_no` counts by itself; what is None is left out."""

    def __init__(self, stage: Stage, transaction_id: str, evse: int | None = 1) -> None:
        self.stage, self.id, self.evse, self.seq_no = stage, transaction_id, evse, 0

    async def tell(
        self, kind: str, trigger: str, *, state: str | None = None, token: str | None = None, meter: int | None = None,
        context: str | None = None, reason: str | None = None, at: datetime | None = None, token_type: str = "ISO14443",
        info: dict[str, Any] | None = None, **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        details = {"transactionId": self.id, **(info or {})}
        details |= {"chargingState": state} if state else {}
        details |= {"stoppedReason": reason} if reason else {}
        event: dict[str, Any] = {
            "eventType": kind, "timestamp": stamp(at), "triggerReason": trigger, "seqNo": self.seq_no,
            "transactionInfo": details, **more,
        }  # fmt: skip
        if self.evse is not None:
            event["evse"] = {"id": self.evse, "connectorId": 1}
        if token is not None:
            event["idToken"] = {"idToken": token, "type": token_type}
        if meter is not None:
            default = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(
                kind, "Sample.Periodic"
            )
            sample = {
                "value": meter,
                "context": context or default,
                "measurand": "Energy.Active.Import.Register",
            }
            event["meterValue"] = [{"timestamp": stamp(at), "sampledValue": [sample]}]
        self.seq_no += 1
        return await self.stage.box.say("TransactionEvent", event)


async def authorize(stage: Stage, value: str) -> dict[str, Any]:
    return (await stage.box.say("Authorize", {"idToken": {"idToken": value, "type": "ISO14443"}}))[
        "idTokenInfo"
    ]


# --- C: authorisation --------------------------------------------------------------------------------------------


@case("2.0.1", "TC_C_02_CSMS", "TC_C_06_CSMS", "TC_C_07_CSMS")
async def test_authorize_names_what_is_wrong_with_a_token(stage201: Stage):
    await stage201.card("EXPIRED-1", expires_at=datetime.now(UTC) - timedelta(days=1))
    await stage201.card("BLOCKED-1", status="blocked")
    assert (await authorize(stage201, stage201.cast.card))["status"] == "Accepted"
    for number, (value, status) in enumerate(
        (("NOBODYS", "Invalid"), ("EXPIRED-1", "Expired"), ("BLOCKED-1", "Blocked"))
    ):
        assert (await authorize(stage201, value))["status"] == status
        refused = Transaction(stage201, f"refused-{number}")
        assert (await refused.tell("Started", "Authorized", token=value))["idTokenInfo"]["status"] == status
        await refused.tell("Ended", "Deauthorized", reason="DeAuthorized")
    await stage201.jobs.run()
    assert {(one["status"], one["energy_wh"]) for one in await stage201.sessions()} == {("INVALID", 0)}
    assert (await stage201.get("/cdrs"))["data"] == []


@case("2.0.1", "TC_C_08_CSMS", "TC_C_20_CSMS")
async def test_a_token_from_the_stations_cache_is_judged_by_its_transaction_event(stage201: Stage):
    """The station's cache let both in; one of them is blocked here since."""
    gone = await stage201.card("CACHED-1")
    known = Transaction(stage201, "known")
    answer = await known.tell(
        "Started", "Authorized", token=stage201.cast.card, meter=1_000, state="Charging"
    )
    assert answer["idTokenInfo"]["status"] == "Accepted"
    await known.tell("Ended", "StopAuthorized", token=stage201.cast.card, meter=1_100, reason="Local")
    await stage201.change_card(gone, status="invalid")
    refused = Transaction(stage201, "refused", 2)
    answer = await refused.tell("Started", "Authorized", token="CACHED-1", meter=500, state="EVConnected")
    assert answer["idTokenInfo"]["status"] == "Invalid"
    await refused.tell("Ended", "Deauthorized", meter=500, reason="DeAuthorized")
    await stage201.jobs.run()
    assert {one["ocpp_transaction_id"]: one["status"] for one in await stage201.sessions()} == {
        "known": "COMPLETED", "refused": "INVALID",
    }  # fmt: skip
    assert not await stage201.log("Authorize")


@case("2.0.1", "TC_C_37_CSMS", "TC_C_38_CSMS")
async def test_the_cache_of_a_station_is_cleared_or_it_says_no(stage201: Stage):
    for word in ("Accepted", "Rejected"):
        stage201.box.answers["ClearCache"] = {"status": word}
        done = await stage201.ask("ClearCache", {})
        assert (done["status"], done["answer"]) == (word.lower(), {"status": word})
    assert [action for action, _payload in stage201.box.asked] == ["ClearCache", "ClearCache"]


@case("2.0.1", "TC_C_39_CSMS")
async def test_a_second_card_of_the_group_ends_what_the_first_began(stage201: Stage):
    for value in ("FAMILY-1", "FAMILY-2"):
        await stage201.card(value, parent_value="FAMILY")
    group = {"idToken": "FAMILY", "type": "Central"}
    assert (await authorize(stage201, "FAMILY-1"))["groupIdToken"] == group
    visit = Transaction(stage201, "family")
    begun = await visit.tell("Started", "Authorized", token="FAMILY-1", meter=1_000, state="Charging")
    assert begun["idTokenInfo"]["groupIdToken"] == group
    told = await authorize(stage201, "FAMILY-2")
    assert (told["status"], told["groupIdToken"]) == ("Accepted", group)
    ended = await visit.tell("Ended", "StopAuthorized", token="FAMILY-2", meter=1_200, reason="Local")
    assert ended["idTokenInfo"]["status"] == "Accepted"
    done = await stage201.settled()
    assert (done["status"], done["energy_wh"]) == ("COMPLETED", 200)
    assert done["id_token_masked"].endswith("1")  # who began pays


@case("2.0.1", "TC_C_47_CSMS", "TC_C_48_CSMS", "TC_C_49_CSMS")
@pytest.mark.parametrize("which", ["all", "one"])
async def test_a_master_pass_ends_transactions_that_others_pay_for(stage201: Stage, which: str):
    """The station knows the pass by its group (AuthCtrlr.MasterPassGroupId) and ends all, or the one chosen."""
    await stage201.card("GUARD-1", parent_value="MASTERPASS")
    visits = [Transaction(stage201, f"visit-{number}", number) for number in (1, 2)]
    for visit in visits:
        await visit.tell("Started", "Authorized", token=stage201.cast.card, meter=1_000, state="Charging")
    told = await authorize(stage201, "GUARD-1")
    assert (told["status"], told["groupIdToken"]["idToken"]) == ("Accepted", "MASTERPASS")
    for visit in visits if which == "all" else visits[:1]:
        answer = await visit.tell(
            "Ended", "StopAuthorized", token="GUARD-1", meter=1_150, reason="MasterPass"
        )
        assert answer["idTokenInfo"]["status"] == "Accepted"
    await stage201.jobs.run()
    found = {one["ocpp_transaction_id"]: one for one in await stage201.sessions()}
    assert (found["visit-1"]["status"], found["visit-1"]["stopped_reason"]) == ("COMPLETED", "MasterPass")
    assert found["visit-2"]["status"] == ("COMPLETED" if which == "all" else "ACTIVE")
    assert {one["id_token_masked"] for one in found.values()} == {found["visit-1"]["id_token_masked"]}
    assert "GUARD" not in str(found)


# --- E: starts ---------------------------------------------------------------------------------------------------

# TxStartPoint -> the events up to the flow of energy: (kind, trigger, charging state, brings the token).
STARTS = {
    "PowerPathClosed": [("Started", "ChargingStateChanged", "EVConnected", True)],
    "EnergyTransfer": [("Started", "ChargingStateChanged", "Charging", True)],
    "EVConnected": [
        ("Started", "CablePluggedIn", "EVConnected", False), ("Updated", "Authorized", "EVConnected", True),
    ],
    "Authorized": [
        ("Started", "Authorized", None, True), ("Updated", "CablePluggedIn", "EVConnected", False),
    ],
    "DataSigned": [("Started", "SignedDataReceived", "EVConnected", True)],
    "ParkingBayOccupancy": [
        ("Started", "EVDetected", "Idle", False), ("Updated", "CablePluggedIn", "EVConnected", False),
        ("Updated", "Authorized", "EVConnected", True),
    ],
}  # fmt: skip


@case(
    "2.0.1", "TC_E_01_CSMS", "TC_E_02_CSMS", "TC_E_03_CSMS", "TC_E_04_CSMS", "TC_E_09_CSMS", "TC_E_10_CSMS",
    "TC_E_11_CSMS", "TC_E_12_CSMS",
)  # fmt: skip
async def test_a_session_is_whole_wherever_the_station_starts_its_transaction(stage201: Stage):
    await stage201.connector(1, "Occupied")
    for point, events in STARTS.items():
        visit = Transaction(stage201, f"tx-{point}")
        for number, (kind, trigger, state, has_token) in enumerate(events):
            token = stage201.cast.card if has_token else None
            answer = await visit.tell(
                kind, trigger, state=state, token=token, meter=None if number else 1_000
            )
            assert (answer.get("idTokenInfo") or {}).get("status") == ("Accepted" if has_token else None)
            was_authorised = any(one[3] for one in events[: number + 1])
            assert (await stage201.evse())[0] == ("CHARGING" if was_authorised else "BLOCKED")
        await visit.tell("Updated", "ChargingStateChanged", state="Charging")
        await visit.tell("Updated", "MeterValuePeriodic", meter=1_100)
        running = await stage201.session()
        assert (running["ocpp_transaction_id"], running["status"]) == (visit.id, "ACTIVE")
        assert (running["energy_wh"], running["id_token_status"]) == (100, "Accepted")
        await visit.tell("Ended", "StopAuthorized", token=stage201.cast.card, meter=1_150, reason="Local")
        done = await stage201.settled()
        assert (done["status"], done["review"], done["energy_wh"]) == ("COMPLETED", None, 150)
        assert [cdr["total_energy"] for cdr in done["cdrs"]] == [0.15]


async def test_nobody_pays_for_the_time_before_they_identified_themselves(stage201: Stage):
    """Cable first, card twenty minutes later: the transaction is older than the visit."""
    visit = Transaction(stage201, "late")
    plugged = datetime.now(UTC) - timedelta(minutes=30)
    await visit.tell("Started", "CablePluggedIn", state="EVConnected", meter=1_000, at=plugged)
    assert (await stage201.session())["id_token_status"] is None
    came = plugged + timedelta(minutes=20)
    await visit.tell("Updated", "Authorized", state="EVConnected", token=stage201.cast.card, at=came)
    await visit.tell("Updated", "ChargingStateChanged", state="Charging", at=came)
    await visit.tell("Ended", "StopAuthorized", token=stage201.cast.card, meter=2_000, reason="Local")
    done = await stage201.settled()
    assert (done["energy_wh"], done["started_at"][:19]) == (1_000, stamp(came)[:19])
    assert "Authorised" in await stage201.portal(f"/charging-sessions/{done['id']}")


async def test_a_car_that_parks_and_leaves_without_anybody_is_no_bill(stage201: Stage):
    visit = Transaction(stage201, "parked")
    await visit.tell("Started", "EVDetected", state="Idle")
    await visit.tell("Ended", "EVDeparted", state="Idle", reason="Other")
    done = await stage201.settled()
    assert (done["status"], done["review"], done["energy_wh"], done["cdrs"]) == ("INVALID", None, 0, [])
    assert (await stage201.evse())[0] == "AVAILABLE"


async def test_an_evse_that_becomes_known_late_gets_its_session(stage201: Stage):
    """E03: the driver identifies at the station, then plugs in at EVSE 2."""
    visit = Transaction(stage201, "chooses", None)
    await visit.tell("Started", "Authorized", token=stage201.cast.card)
    assert (await stage201.session())["evse_no"] is None
    assert {(await stage201.evse(number))[0] for number in (1, 2)} == {"AVAILABLE"}
    assert "chooses" not in await stage201.portal("/charging-sessions")
    visit.evse = 2
    await visit.tell("Updated", "CablePluggedIn", state="EVConnected", meter=700, context="Transaction.Begin")
    visit.evse = None  # told once is enough (E01.FR.16)
    running = await stage201.session()
    assert (running["evse_no"], running["meter_start_wh"]) == (2, 700)
    assert [(await stage201.evse(number))[0] for number in (1, 2)] == ["AVAILABLE", "CHARGING"]
    await visit.tell("Updated", "ChargingStateChanged", state="Charging")
    await visit.tell("Ended", "EVDeparted", meter=900, reason="EVDisconnected")
    done = await stage201.settled()
    assert (done["status"], done["review"], done["energy_wh"], done["evse_no"]) == ("COMPLETED", None, 200, 2)
    assert [cdr["cdr_location"]["evse_no"] for cdr in done["cdrs"]] == [2]


async def test_a_begin_that_comes_after_the_end_completes_the_session(stage201: Stage):
    visit = Transaction(stage201, "shuffled", None)
    await visit.tell("Started", "Authorized", token=stage201.cast.card)
    visit.evse, visit.seq_no = 2, 2
    await visit.tell("Ended", "EVDeparted", meter=900, reason="EVDisconnected")
    assert (await stage201.session())["review"] == "orphan"
    visit.seq_no = 1
    await visit.tell("Updated", "CablePluggedIn", state="EVConnected", meter=700, context="Transaction.Begin")
    done = await stage201.settled()
    assert (done["status"], done["review"], done["energy_wh"]) == ("COMPLETED", None, 200)


@case("2.0.1", "TC_E_38_CSMS")
async def test_a_car_that_is_not_ready_is_shown_as_such(stage201: Stage):
    visit = Transaction(stage201, "waits")
    await visit.tell("Started", "Authorized", token=stage201.cast.card, meter=1_000, state="EVConnected")
    await visit.tell("Updated", "ChargingStateChanged", state="SuspendedEV")
    shown = await stage201.portal(f"/charging-sessions/{(await stage201.session())['id']}")
    assert "The car takes no energy" in shown
    await visit.tell("Updated", "ChargingStateChanged", state="Charging")
    await visit.tell("Ended", "StopAuthorized", meter=1_200, reason="Local")
    assert (await stage201.settled())["energy_wh"] == 200


@case("2.0.1", "TC_E_39_CSMS")
async def test_an_authorised_driver_who_never_plugs_in_is_no_bill(stage201: Stage):
    visit = Transaction(stage201, "never", None)
    await visit.tell("Started", "Authorized", token=stage201.cast.card)
    await visit.tell("Ended", "EVConnectTimeout", reason="Timeout")
    done = await stage201.settled()
    assert (done["status"], done["review"], done["energy_wh"], done["cdrs"]) == ("INVALID", None, 0, [])
    assert "Nobody plugged in" in await stage201.timeline(done["id"])


@case("2.0.1", "TC_E_53_CSMS")
async def test_the_sequence_may_begin_anew_with_each_transaction(stage201: Stage):
    for number in (1, 2):
        visit = Transaction(stage201, f"round-{number}")
        await visit.tell(
            "Started", "Authorized", token=stage201.cast.card, meter=1_000 * number, state="Charging"
        )
        await visit.tell("Updated", "ChargingStateChanged", state="SuspendedEV")
        await visit.tell("Ended", "EVDeparted", meter=1_000 * number + 50, reason="EVDisconnected")
    found = await stage201.sessions()
    assert [(one["status"], one["energy_wh"], one["review"]) for one in found] == [
        ("COMPLETED", 50, None)
    ] * 2


# --- E: stops ----------------------------------------------------------------------------------------------------

# Case -> trigger and reason of the last event, and the charging state it leaves.
STOPS = {
    "TC_E_07_CSMS": ("StopAuthorized", "Local", "EVConnected"),
    "TC_E_08_CSMS": ("StopAuthorized", "Local", "EVConnected"),
    "TC_E_14_CSMS": ("EVCommunicationLost", "EVDisconnected", "Idle"),
    "TC_E_15_CSMS": ("StopAuthorized", "Local", "Idle"),
    "TC_E_17_CSMS": ("EVCommunicationLost", "EVDisconnected", "Idle"),
    "TC_E_19_CSMS": ("EVDeparted", "Local", "Idle"),
    "TC_E_20_CSMS": ("EVCommunicationLost", "EVDisconnected", "Idle"),
    "TC_E_22_CSMS": ("ChargingStateChanged", "StoppedByEV", "SuspendedEV"),
}


@case("2.0.1", *STOPS)
async def test_a_session_ends_for_the_reason_the_station_gives(stage201: Stage):
    for number, (name, (trigger, reason, state)) in enumerate(STOPS.items()):
        visit = Transaction(stage201, name)
        await stage201.connector(1, "Occupied")
        await visit.tell("Started", "Authorized", token=stage201.cast.card, meter=1_000, state="Charging")
        token = stage201.cast.card if trigger == "StopAuthorized" else None
        await visit.tell("Ended", trigger, reason=reason, state=state, token=token, meter=1_100 + number)
        await stage201.connector(1, "Available")
    found = {one["ocpp_transaction_id"]: one for one in await stage201.sessions()}
    for number, (name, (_trigger, reason, _state)) in enumerate(STOPS.items()):
        done = found[name]
        assert (done["status"], done["review"], done["stopped_reason"], done["energy_wh"]) == (
            "COMPLETED", None, reason, 100 + number,
        )  # fmt: skip
    assert await stage201.evse() == ("AVAILABLE", "Available")


@case("2.0.1", "TC_E_16_CSMS")
async def test_a_transaction_of_a_refused_token_ends_deauthorised_and_costs_nothing(stage201: Stage):
    visit = Transaction(stage201, "refused")
    await visit.tell("Started", "CablePluggedIn", state="EVConnected", meter=1_000)
    answer = await visit.tell("Updated", "Authorized", token="NOBODYS", state="EVConnected")
    assert answer["idTokenInfo"]["status"] == "Invalid"
    await visit.tell("Ended", "Deauthorized", reason="DeAuthorized", state="EVConnected", meter=1_000)
    done = await stage201.settled()
    assert (done["status"], done["energy_wh"], done["cdrs"]) == ("INVALID", 0, [])
    assert done["stopped_reason"] == "DeAuthorized"


@pytest.mark.parametrize("is_cable_first", [False, True], ids=["card first", "cable first"])
async def test_a_refused_token_that_charges_on_is_asked_to_stop(stage201: Stage, is_cable_first: bool):
    visit = Transaction(stage201, "runs-on")
    if is_cable_first:
        await visit.tell("Started", "CablePluggedIn", meter=1_000, state="EVConnected")
    kind = "Updated" if is_cable_first else "Started"
    answer = await visit.tell(kind, "Authorized", token="NOBODYS", meter=1_000, state="Charging")
    assert answer["idTokenInfo"]["status"] == "Invalid"
    stage201.jobs.ahead = timedelta(seconds=30)
    await stage201.jobs.run()
    await stage201.jobs.run()
    (asked,) = await stage201.commands("RequestStopTransaction")
    assert asked.payload == {"transactionId": "runs-on"}


@case("2.0.1", "TC_E_21_CSMS")
async def test_a_remote_stop_ends_the_session_with_its_reason(stage201: Stage):
    visit = Transaction(stage201, "remote-end")
    await visit.tell("Started", "Authorized", token=stage201.cast.card, meter=1_000, state="Charging")

    async def end(payload: dict[str, Any]) -> None:
        assert payload == {"transaction_id": "remote-end"}
        await visit.tell("Updated", "RemoteStop", state="EVConnected")
        await visit.tell("Ended", "RemoteStop", reason="Remote", meter=1_300)

    stage201.box.reactions["RequestStopTransaction"] = end
    stopped = await stage201.stop((await stage201.session())["id"])
    assert (stopped["status"], stopped["answer"]) == ("accepted", {"status": "Accepted"})
    done = await stage201.becomes("COMPLETED")
    assert (done["stopped_reason"], done["energy_wh"]) == ("Remote", 300)


@case("2.0.1", "TC_E_26_CSMS")
async def test_a_cable_pulled_at_the_car_suspends_and_its_return_goes_on(stage201: Stage):
    visit = Transaction(stage201, "pulled")
    await visit.tell("Started", "Authorized", token=stage201.cast.card, meter=1_000, state="Charging")
    await visit.tell("Updated", "EVCommunicationLost", state="Idle", meter=1_100)
    suspended = await stage201.session()
    assert (suspended["status"], suspended["energy_wh"]) == ("ACTIVE", 100)
    assert "Unplugged" in await stage201.timeline(suspended["id"])
    await visit.tell("Updated", "CablePluggedIn", state="EVConnected")
    await visit.tell("Updated", "ChargingStateChanged", state="Charging")
    await visit.tell("Ended", "StopAuthorized", token=stage201.cast.card, meter=1_300, reason="Local")
    done = await stage201.settled()
    assert (done["status"], done["review"], done["energy_wh"]) == ("COMPLETED", None, 300)


@case("2.0.1", "TC_E_29_CSMS", "TC_E_30_CSMS", "TC_E_31_CSMS", "TC_E_33_CSMS", "TC_E_34_CSMS")
async def test_the_station_tells_whether_messages_of_a_transaction_wait(stage201: Stage):
    for transaction_id, answer in (
        ("asked", {"ongoingIndicator": True, "messagesInQueue": True}),
        ("asked", {"ongoingIndicator": True, "messagesInQueue": False}),
        ("asked", {"ongoingIndicator": False, "messagesInQueue": True}),
        (None, {"messagesInQueue": True}),
        (None, {"messagesInQueue": False}),
    ):
        stage201.box.answers["GetTransactionStatus"] = answer
        asked = {"transactionId": transaction_id} if transaction_id else {}
        done = await stage201.ask("GetTransactionStatus", asked)
        assert (done["status"], done["answer"]) == ("accepted", answer)
        assert stage201.box.asked[-1] == ("GetTransactionStatus", asked)
