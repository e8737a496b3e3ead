"""OCPP 1.6 Smart Charging, 2.0.1 block K: limits are set, cleared, reported, read back, and shaped for cars."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from app.charging import service as charging
from app.charging import smart_charging
from app.charging.models import (
    ChargingLimit,
    ChargingNeed,
    ChargingProfile,
    ChargingSession,
    CompositeSchedule,
    ProfileReport,
)
from app.charging.profiles import Period
from app.charging.smart_charging import Wish
from app.device_model import service as device_model
from app.device_model.paths import parse_path
from app.device_model.reports import Attribute, ReportedVariable
from app.kernel.errors import Invalid, Refused
from tests.cast import STAFF
from tests.conformance.asking import act, asked, boot, ended, newest, only
from tests.conformance.conftest import Yard, case, rows
from tests.conformance.jobs import Worker, worker
from tests.foreign_stations import stamp

pytestmark = pytest.mark.anyio
__all__ = ["worker"]

NIGHT = (Period(0, Decimal(11000)), Period(3600, Decimal(4000)))


async def put(yard: Yard, worker: Worker, **wish: Any) -> ChargingProfile:
    cast = yard.nordlicht
    made = Wish(**{"purpose": "TxDefaultProfile", "periods": NIGHT} | wish)
    row = await act(yard, cast, smart_charging.set_profile, cast.station_id, made)
    await ended(yard, cast, worker, "SetChargingProfile")
    return await now(yard, row.id)


async def now(yard: Yard, profile_id: UUID) -> ChargingProfile:
    return await only(yard, yard.nordlicht, ChargingProfile, ChargingProfile.id == profile_id)


async def told(
    yard: Yard, worker: Worker, station: Any, answer: str, parts: Any, **wanted: Any
) -> ProfileReport:
    """GetChargingProfiles answered with `answer`, and these parts of (evse, source, profiles) after it."""
    cast = yard.nordlicht

    async def report(payload: dict[str, Any]) -> None:
        for number, (evse, source, found) in enumerate(parts, 1):
            await station.say("ReportChargingProfiles", {
                "requestId": payload["requestId"], "evseId": evse, "chargingLimitSource": source,
                "chargingProfile": found, "tbc": number < len(parts),
            })  # fmt: skip

    station.answers["GetChargingProfiles"] = {"status": answer}
    station.reactions["GetChargingProfiles"] = report
    row = await act(yard, cast, smart_charging.ask_profiles, cast.station_id, **wanted)
    await ended(yard, cast, worker, "GetChargingProfiles")

    async def done() -> ProfileReport | None:
        found = await only(yard, cast, ProfileReport, ProfileReport.id == row.id)
        return found if found.state not in ("asked", "reporting") else None

    return await worker.until(done)


@case("1.6", "TC_056_CSMS", "TC_057_CSMS", "TC_066_CSMS", "TC_067_CSMS")
async def test_a_16_station_is_given_limits_that_are_read_back_and_cleared(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(
        yard, cast, "1.6", SetChargingProfile="Accepted", ClearChargingProfile="Accepted",
        GetCompositeSchedule=lambda payload: {
            "status": "Accepted", "connectorId": payload["connectorId"], "scheduleStart": stamp(),
            "chargingSchedule": {"chargingRateUnit": "W", "duration": payload["duration"],
                                 "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6000}]},
        },
    )  # fmt: skip
    default = await put(yard, worker)
    (payload,) = asked(station, "SetChargingProfile")
    profile = payload["csChargingProfiles"]
    assert payload["connectorId"] == 0 and profile["chargingProfilePurpose"] == "TxDefaultProfile"
    assert profile["chargingSchedule"]["startSchedule"].endswith("Z")  # always, for Absolute
    assert default.state == "installed"

    start = await station.start(1, cast.card, 0)
    session = await only(yard, cast, ChargingSession)
    one = await put(yard, worker, purpose="TxProfile", evse_no=1, kind="Relative", session_id=session.id,
                    periods=(Period(0, Decimal(6000), 3),), stack_level=2)  # fmt: skip
    profile = asked(station, "SetChargingProfile")[-1]["csChargingProfiles"]
    assert profile["transactionId"] == start.transaction_id and profile["chargingProfileId"] == 2
    assert profile["chargingSchedule"] == {
        "chargingRateUnit": "W", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6000, "numberPhases": 3}]
    }  # fmt: skip

    await act(yard, cast, smart_charging.ask_composite, cast.station_id, evse_no=1, duration_s=7200)
    await ended(yard, cast, worker, "GetCompositeSchedule")
    read = await only(yard, cast, CompositeSchedule)
    assert asked(station, "GetCompositeSchedule") == [
        {"connectorId": 1, "duration": 7200, "chargingRateUnit": "W"}
    ]
    assert read.state == "told" and read.told["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 6000}]
    assert read.ours == {"unit": "W", "steps": [[0, 6000]]}  # the transaction's comes before the default

    await act(yard, cast, smart_charging.clear_profile, one.id)
    await ended(yard, cast, worker, "ClearChargingProfile")
    assert (
        asked(station, "ClearChargingProfile") == [{"id": 2}] and (await now(yard, one.id)).state == "cleared"
    )
    await act(
        yard, cast, smart_charging.clear_profiles, cast.station_id, purpose="TxDefaultProfile", stack_level=0
    )
    await ended(yard, cast, worker, "ClearChargingProfile")
    assert asked(station, "ClearChargingProfile")[-1] == {
        "chargingProfilePurpose": "TxDefaultProfile", "stackLevel": 0
    }  # fmt: skip
    assert (await now(yard, default.id)).state == "cleared"
    with pytest.raises(Refused, match="cannot report"):
        await act(yard, cast, smart_charging.ask_profiles, cast.station_id)
    await station.close()


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
@case("1.6", "TC_059_CSMS")
@case("2.0.1", "TC_K_37_CSMS")
async def test_a_remote_start_carries_its_limit_and_ends_with_it(yard: Yard, worker: Worker, version: str):
    cast = yard.nordlicht
    station = await boot(yard, cast, version)
    limit = Wish(purpose="TxProfile", evse_no=1, kind="Relative", periods=(Period(0, Decimal(6000)),))
    session, _ = await act(yard, cast, charging.request_start, evse_id=cast.evse_ids[0], limit=limit)
    action = "RemoteStartTransaction" if version == "1.6" else "RequestStartTransaction"
    await ended(yard, cast, worker, action)
    # The package's own handlers write a request's names in snake case.
    (payload,) = asked(station, action)
    profile = payload["charging_profile"]
    assert profile["charging_profile_purpose"] == "TxProfile" and "transaction_id" not in profile
    if version == "1.6":
        begun = await station.start(1, payload["id_tag"], 0)
        wire_id = str(begun.transaction_id)
    else:
        wire_id = "t-remote"
        await station.event("Started", wire_id, 0, trigger="RemoteStart", meter_wh=0,
                            remote_start_id=payload["remote_start_id"])  # fmt: skip
    await worker.settle()
    row = await only(yard, cast, ChargingProfile)
    assert (row.state, row.session_id, row.profile["transactionId"]) == ("installed", session.id, wire_id)
    if version == "1.6":
        await station.stop(int(wire_id), 100)
    else:
        await station.event("Ended", wire_id, 1, trigger="EVDeparted", meter_wh=100)
    await worker.settle()
    assert (await now(yard, row.id)).state == "ended"
    await station.close()


async def test_a_station_that_refuses_a_start_with_a_limit_is_given_it_afterwards(yard: Yard, worker: Worker):
    """ocpp.md 3, no. 36: go-e; and it takes A only (no. 56)."""
    cast = yard.nordlicht
    station = await boot(yard, cast, "1.6", SetChargingProfile="Accepted")
    await station.say("BootNotification", {"chargePointModel": "Charger", "chargePointVendor": "go-e"})
    limit = Wish(purpose="TxProfile", evse_no=1, kind="Relative", periods=(Period(0, Decimal(6900)),))
    await act(yard, cast, charging.request_start, evse_id=cast.evse_ids[0], limit=limit)
    await ended(yard, cast, worker, "RemoteStartTransaction")
    (payload,) = asked(station, "RemoteStartTransaction")
    assert "charging_profile" not in payload
    begun = await station.start(1, payload["id_tag"], 0)
    await ended(yard, cast, worker, "SetChargingProfile")
    profile = asked(station, "SetChargingProfile")[0]["csChargingProfiles"]
    assert profile["transactionId"] == begun.transaction_id
    assert profile["chargingSchedule"]["chargingRateUnit"] == "A"
    assert profile["chargingSchedule"]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 10}]
    assert (await only(yard, cast, ChargingProfile)).state == "installed"
    await station.close()


async def test_a_refused_station_maximum_becomes_a_default_where_the_table_says_so(
    yard: Yard, worker: Worker
):
    """ocpp.md 3, no. 56: ChargePointMaxProfile refused, TxDefaultProfile taken; the unit as the station told it."""
    cast = yard.nordlicht
    station = await boot(yard, cast, "1.6")
    station.answers["SetChargingProfile"] = lambda payload: {
        "status": "Accepted"
        if payload["csChargingProfiles"]["chargingProfilePurpose"] == "TxDefaultProfile"
        else "Rejected"
    }
    async with yard.database.scope(cast.tenant_id, STAFF) as scope:
        path = parse_path("ChargingScheduleAllowedChargingRateUnit")
        told = ReportedVariable(path=path, attributes={"Actual": Attribute(value="Current")})
        await device_model.take_variables(scope, cast.station_id, [told])
    row = await put(yard, worker, purpose="ChargingStationMaxProfile", periods=(Period(0, Decimal(11040)),))
    assert (row.state, row.said) == ("refused", "Rejected")

    async def both() -> list[ChargingProfile] | None:
        found = await rows(yard, cast, ChargingProfile)
        return found if {one.state for one in found} == {"refused", "installed"} else None

    await worker.until(both)
    instead = await newest(yard, cast, ChargingProfile)
    assert (instead.purpose, instead.stands_for) == ("TxDefaultProfile", "ChargingStationMaxProfile")
    first, second = (one["csChargingProfiles"] for one in asked(station, "SetChargingProfile"))
    assert first["chargingProfilePurpose"] == "ChargePointMaxProfile"
    assert second["chargingSchedule"]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 16}]
    await station.close()


@case(
    "2.0.1", "TC_K_01_CSMS", "TC_K_02_CSMS", "TC_K_03_CSMS", "TC_K_04_CSMS", "TC_K_10_CSMS", "TC_K_15_CSMS",
    "TC_K_19_CSMS", "TC_K_60_CSMS", "TC_K_70_CSMS",
)  # fmt: skip
async def test_a_201_station_is_given_profiles_of_every_purpose(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1", SetChargingProfile="Rejected")
    early = await put(yard, worker, purpose="TxProfile", evse_no=1, transaction_id="t-none")
    assert (early.state, early.said) == ("refused", "Rejected")

    station.answers["SetChargingProfile"] = {"status": "Accepted"}
    specific = await put(yard, worker, evse_no=1)
    payload = asked(station, "SetChargingProfile")[-1]
    assert (
        payload["evseId"] == 1 and payload["chargingProfile"]["chargingProfilePurpose"] == "TxDefaultProfile"
    )
    everywhere = await put(yard, worker, stack_level=1)
    assert asked(station, "SetChargingProfile")[-1]["evseId"] == 0
    most = await put(yard, worker, purpose="ChargingStationMaxProfile")
    assert asked(station, "SetChargingProfile")[-1]["chargingProfile"]["chargingProfilePurpose"] == (
        "ChargingStationMaxProfile"
    )
    weekly = await put(yard, worker, evse_no=2, kind="Recurring", recurrency="Weekly", duration_s=86400)
    profile = asked(station, "SetChargingProfile")[-1]["chargingProfile"]
    assert (profile["chargingProfileKind"], profile["recurrencyKind"]) == ("Recurring", "Weekly")
    assert (
        profile["chargingSchedule"][0]["duration"] == 86400
        and "startSchedule" in profile["chargingSchedule"][0]
    )

    # The same id with another limit takes its place.
    other = await put(
        yard, worker, evse_no=1, number=specific.profile_no, periods=(Period(0, Decimal(5000)),)
    )
    assert other.profile_no == specific.profile_no and (await now(yard, specific.id)).state == "replaced"

    await station.event("Started", "t1", 0, token=cast.card, meter_wh=0, trigger="Authorized")
    session = await only(yard, cast, ChargingSession)
    running = await put(yard, worker, purpose="TxProfile", evse_no=1, session_id=session.id)
    assert asked(station, "SetChargingProfile")[-1]["chargingProfile"]["transactionId"] == "t1"
    believed = await act(yard, cast, smart_charging.believed, cast.station_id)
    assert {row.id for row in believed} == {other.id, everywhere.id, most.id, weekly.id, running.id}

    # A station that cannot says so by an error, and it is kept.
    del station.answers["SetChargingProfile"]
    unable = await put(yard, worker, evse_no=2, stack_level=5)
    assert unable.state == "refused" and unable.said.startswith(("NotImplemented", "NotSupported"))
    with pytest.raises(Invalid):
        await act(
            yard, cast, smart_charging.set_profile, cast.station_id, Wish(purpose="TxProfile", periods=NIGHT)
        )
    await station.close()


@case("2.0.1", "TC_K_05_CSMS", "TC_K_06_CSMS", "TC_K_08_CSMS")
async def test_profiles_of_a_201_station_are_cleared_by_id_or_by_what_they_are(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1", SetChargingProfile="Accepted", ClearChargingProfile="Accepted")
    most = await put(yard, worker, purpose="ChargingStationMaxProfile")
    default = await put(yard, worker, evse_no=1, stack_level=3)
    await act(yard, cast, smart_charging.clear_profile, most.id)
    await ended(yard, cast, worker, "ClearChargingProfile")
    assert asked(station, "ClearChargingProfile") == [{"chargingProfileId": most.profile_no}]
    assert (await now(yard, most.id)).state == "cleared" and (
        await now(yard, default.id)
    ).state == "installed"

    clear = {"evse_no": 1, "purpose": "TxDefaultProfile", "stack_level": 3}
    await act(yard, cast, smart_charging.clear_profiles, cast.station_id, **clear)
    await ended(yard, cast, worker, "ClearChargingProfile")
    assert asked(station, "ClearChargingProfile")[-1] == {"chargingProfileCriteria": {
        "evseId": 1, "chargingProfilePurpose": "TxDefaultProfile", "stackLevel": 3,
    }}  # fmt: skip
    assert (await now(yard, default.id)).state == "cleared"

    # The station knows none that fits: we had one in mind, and believe the station.
    lost = await put(yard, worker, evse_no=1, stack_level=4)
    station.answers["ClearChargingProfile"] = {"status": "Unknown"}
    await act(yard, cast, smart_charging.clear_profile, lost.id)
    answer = await ended(yard, cast, worker, "ClearChargingProfile")
    assert answer.answer == {"status": "Unknown"}
    row = await now(yard, lost.id)
    assert (row.state, row.said) == ("cleared", "Unknown")
    await station.close()


@case(
    "2.0.1", "TC_K_29_CSMS", "TC_K_30_CSMS", "TC_K_31_CSMS", "TC_K_32_CSMS", "TC_K_33_CSMS", "TC_K_34_CSMS",
    "TC_K_35_CSMS", "TC_K_36_CSMS", "TC_K_52_CSMS",
)  # fmt: skip
async def test_what_a_station_reports_is_what_we_believe(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1", SetChargingProfile="Accepted")
    ours = await put(yard, worker, evse_no=1)
    gone = await put(yard, worker, evse_no=2, stack_level=4)

    def profile(number: int, purpose: str, **more: Any) -> dict[str, Any]:
        return {
            "id": number, "stackLevel": 0, "chargingProfilePurpose": purpose, "chargingProfileKind": "Absolute",
            "chargingSchedule": [{"id": 1, "startSchedule": stamp(), "chargingRateUnit": "A",
                                  "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 10}]}],
        } | more  # fmt: skip

    # All of it, in parts: ours is there with what the station made of it, one is not, one is somebody else's.
    changed = ours.profile | {"stackLevel": 7}
    external = profile(900, "ChargingStationExternalConstraints")
    report = await told(yard, worker, station, "Accepted", [(1, "CSO", [changed]), (0, "EMS", [external])])
    assert (report.state, report.part_count, report.profile_count) == ("complete", 2, 2)
    assert asked(station, "GetChargingProfiles")[-1] == {
        "requestId": report.request_no,
        "chargingProfile": {},
    }
    assert (await now(yard, ours.id)).stack_level == 7 and (await now(yard, gone.id)).state == "cleared"
    theirs = await only(yard, cast, ChargingProfile, ChargingProfile.source == "EMS")
    assert (theirs.purpose, theirs.evse_no, theirs.state) == (
        "ChargingStationExternalConstraints", 0, "installed"
    )  # fmt: skip
    steps = await act(yard, cast, smart_charging.reckon, cast.station_id, 1, ours.created_at + timedelta(minutes=1),
                      timedelta(minutes=5), "A")  # fmt: skip
    assert steps[0].limit == 10  # the outside's is the lower one

    # Every narrower question as the wire has it; what was not asked about is left alone.
    questions: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"evse_no": 0}, {"evseId": 0, "chargingProfile": {}}),
        ({"evse_no": 2}, {"evseId": 2, "chargingProfile": {}}),
        ({"numbers": [77]}, {"chargingProfile": {"chargingProfileId": [77]}}),
        ({"evse_no": 2, "stack_level": 3}, {"evseId": 2, "chargingProfile": {"stackLevel": 3}}),
        ({"evse_no": 2, "sources": ["SO"]}, {"evseId": 2, "chargingProfile": {"chargingLimitSource": ["SO"]}}),
        ({"evse_no": 2, "purpose": "TxProfile"},
         {"evseId": 2, "chargingProfile": {"chargingProfilePurpose": "TxProfile"}}),
        ({"evse_no": 2, "purpose": "TxDefaultProfile", "stack_level": 1},
         {"evseId": 2, "chargingProfile": {"chargingProfilePurpose": "TxDefaultProfile", "stackLevel": 1}}),
    ]  # fmt: skip
    for given, wire in questions:
        evse = given.get("evse_no", 2)
        found = [(evse, "CSO", [profile(77, "TxDefaultProfile", stackLevel=given.get("stack_level", 0))])]
        report = await told(yard, worker, station, "Accepted", found, **given)
        assert asked(station, "GetChargingProfiles")[-1] == {"requestId": report.request_no} | wire
        assert report.state == "complete" and report.profile_count == 1
    assert (await now(yard, ours.id)).state == "installed"

    report = await told(yard, worker, station, "NoProfiles", [], evse_no=1)
    assert report.state == "none" and (await now(yard, ours.id)).state == "cleared"
    await station.close()


@case("2.0.1", "TC_K_43_CSMS", "TC_K_44_CSMS")
async def test_a_201_station_reads_its_schedule_back_and_it_is_compared(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(
        yard, cast, "2.0.1", SetChargingProfile="Accepted",
        GetCompositeSchedule=lambda payload: {"status": "Accepted", "schedule": {
            "evseId": payload["evseId"], "duration": payload["duration"], "scheduleStart": stamp(),
            "chargingRateUnit": payload["chargingRateUnit"],
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 9000}, {"startPeriod": 600, "limit": 4000}],
        }},
    )  # fmt: skip
    await put(yard, worker, purpose="ChargingStationMaxProfile", periods=(Period(0, Decimal(9000)),))
    for evse in (1, 0):
        row = await act(
            yard, cast, smart_charging.ask_composite, cast.station_id, evse_no=evse, duration_s=3600, unit="W"
        )
        await ended(yard, cast, worker, "GetCompositeSchedule")
        row = await only(yard, cast, CompositeSchedule, CompositeSchedule.id == row.id)
        assert row.state == "told" and [one["limit"] for one in row.told["chargingSchedulePeriod"]] == [
            9000,
            4000,
        ]
        assert row.ours == {"unit": "W", "steps": [[0, 9000]]}
    station.answers["GetCompositeSchedule"] = {"status": "Rejected"}
    row = await act(yard, cast, smart_charging.ask_composite, cast.station_id, evse_no=1)
    await ended(yard, cast, worker, "GetCompositeSchedule")
    row = await only(yard, cast, CompositeSchedule, CompositeSchedule.id == row.id)
    assert (row.state, row.said, row.told) == ("refused", "Rejected", None)
    await station.close()


@case("2.0.1", "TC_K_48_CSMS", "TC_K_50_CSMS", "TC_K_51_CSMS")
async def test_a_limit_from_elsewhere_is_shown_until_it_is_taken_back(yard: Yard, worker: Worker):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1")
    schedule = {"id": 1, "chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 8}]}
    notice = {
        "evseId": 1, "chargingLimit": {"chargingLimitSource": "EMS", "isGridCritical": True},
        "chargingSchedule": [schedule],
    }  # fmt: skip
    assert await station.say("NotifyChargingLimit", notice) == {}
    assert await station.say("NotifyChargingLimit", notice) == {}
    (limit,) = await act(yard, cast, smart_charging.open_limits, cast.station_id)
    assert (limit.source, limit.evse_no, limit.is_grid_critical) == ("EMS", 1, True)
    assert limit.schedules == [schedule]
    assert await station.say("ClearedChargingLimit", {"chargingLimitSource": "EMS", "evseId": 1}) == {}
    assert await act(yard, cast, smart_charging.open_limits, cast.station_id) == []

    await station.event("Started", "t1", 0, token=cast.card, meter_wh=0, trigger="Authorized")
    await station.say("NotifyChargingLimit", notice)
    await station.event("Updated", "t1", 1, trigger="ChargingRateChanged", power_w=1800)
    assert await station.say("ClearedChargingLimit", {"chargingLimitSource": "EMS"}) == {}
    await station.event("Updated", "t1", 2, trigger="ChargingRateChanged", power_w=11000)
    found = await rows(yard, cast, ChargingLimit)
    assert len(found) == 3 and all(one.cleared_at for one in found)
    assert (await only(yard, cast, ChargingSession)).status == "ACTIVE"
    await station.close()


@case(
    "2.0.1", "TC_K_53_CSMS", "TC_K_55_CSMS", "TC_K_57_CSMS", "TC_K_58_CSMS", "TC_K_59_CSMS",
)  # fmt: skip
async def test_a_car_is_given_what_it_needs_within_the_limits_and_asked_again_when_it_takes_more(
    yard: Yard, worker: Worker
):
    cast = yard.nordlicht
    station = await boot(yard, cast, "2.0.1", SetChargingProfile="Accepted")
    needs = {"evseId": 1, "chargingNeeds": {
        "requestedEnergyTransfer": "AC_three_phase",
        "acChargingParameters": {"energyAmount": 20000, "evMinCurrent": 6, "evMaxCurrent": 16, "evMaxVoltage": 400},
    }}  # fmt: skip
    assert await station.say("NotifyEVChargingNeeds", needs) == {"status": "Rejected"}  # no session to shape

    await put(yard, worker, purpose="ChargingStationMaxProfile", periods=(Period(0, Decimal(9000)),))
    await station.event("Started", "t1", 0, token=cast.card, meter_wh=0, trigger="Authorized")
    assert await station.say("NotifyEVChargingNeeds", needs) == {"status": "Accepted"}
    await ended(yard, cast, worker, "SetChargingProfile")
    first = asked(station, "SetChargingProfile")[-1]["chargingProfile"]
    assert (first["chargingProfilePurpose"], first["transactionId"]) == ("TxProfile", "t1")
    assert first["chargingSchedule"][0]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 9000}]

    def plan(limit: int) -> dict[str, Any]:
        return {"evseId": 1, "timeBase": stamp(), "chargingSchedule": {
            "id": 1, "chargingRateUnit": "W", "duration": 3600,
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}],
        }}  # fmt: skip

    assert await station.say("NotifyEVChargingSchedule", plan(8000)) == {"status": "Accepted"}
    assert len(asked(station, "SetChargingProfile")) == 2
    assert await station.say("NotifyEVChargingSchedule", plan(12000)) == {"status": "Rejected"}
    await ended(yard, cast, worker, "SetChargingProfile")
    again = asked(station, "SetChargingProfile")[-1]["chargingProfile"]
    assert len(asked(station, "SetChargingProfile")) == 3 and again["id"] == first["id"]
    assert (await only(yard, cast, ChargingNeed)).exceeds
    assert await station.say("NotifyEVChargingSchedule", plan(9000)) == {"status": "Accepted"}

    # The car wants less; then staff want less.
    needs["chargingNeeds"]["acChargingParameters"]["evMaxCurrent"] = 10
    assert await station.say("NotifyEVChargingNeeds", needs) == {"status": "Accepted"}
    await ended(yard, cast, worker, "SetChargingProfile")
    less = asked(station, "SetChargingProfile")[-1]["chargingProfile"]
    assert less["chargingSchedule"][0]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 6900}]
    await put(yard, worker, purpose="ChargingStationMaxProfile", periods=(Period(0, Decimal(3000)),))
    session = await only(yard, cast, ChargingSession)
    await act(yard, cast, smart_charging.renegotiate, session.id)
    await ended(yard, cast, worker, "SetChargingProfile")
    least = asked(station, "SetChargingProfile")[-1]["chargingProfile"]
    assert least["chargingSchedule"][0]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 3000}]
    assert await station.say("NotifyEVChargingNeeds", needs) == {
        "status": "Accepted"
    }  # it asks once more (K_59)
    await ended(yard, cast, worker, "SetChargingProfile")
    need = await only(yard, cast, ChargingNeed)
    assert need.session_id == session.id and need.needs == needs["chargingNeeds"]
    await station.close()
