"""What simulated stations do about charging profiles (1.6 section 5.16, 2.0.1 block K), reservations (H) and the local
authorisation list (D): both versions, one memory.

A profile is kept in 2.0.1's shape. Of each purpose the highest stack level that holds at a moment counts; a
transaction's own stands before the default, and none of them above the station's maximum.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ocpp_gateway.simulated_answers import Answer, Payload, moment, stamp

STATION_MAX = ("ChargingStationMaxProfile", "ChargePointMaxProfile")
VOLTS, PHASES = 230, 3
ROUND = {"Daily": timedelta(days=1), "Weekly": timedelta(days=7)}


@dataclass(slots=True)
class Held:
    """A profile, where it counts and since when."""

    evse_no: int
    profile: Payload
    since: datetime
    transaction: str | None = None

    @property
    def number(self) -> int:
        return self.profile["id"]

    @property
    def purpose(self) -> str:
        return self.profile["chargingProfilePurpose"]

    @property
    def schedule(self) -> Payload:
        return self.profile["chargingSchedule"][0]

    def limit_w(self, at: datetime) -> float | None:
        """None where it says nothing of that moment."""
        valid_from, valid_to = moment(self.profile.get("validFrom")), moment(self.profile.get("validTo"))
        if (valid_from and at < valid_from) or (valid_to and at >= valid_to):
            return None
        start = moment(self.schedule.get("startSchedule")) or self.since
        if self.profile["chargingProfileKind"] == "Relative":
            start = self.since
        passed = at - start
        if self.profile["chargingProfileKind"] == "Recurring":
            passed %= ROUND[self.profile["recurrencyKind"]]
        duration = self.schedule.get("duration")
        if passed < timedelta() or (duration is not None and passed >= timedelta(seconds=duration)):
            return None
        past = [
            p for p in self.schedule["chargingSchedulePeriod"] if p["startPeriod"] <= passed.total_seconds()
        ]
        if not past:
            return None
        limit = float(past[-1]["limit"])
        if self.schedule["chargingRateUnit"] == "A":
            limit *= VOLTS * (past[-1].get("numberPhases") or PHASES)
        return limit


@dataclass(slots=True)
class Reserved:
    number: int
    evse_no: int
    token: str
    until: datetime


@dataclass(slots=True)
class Energy:
    """One station's."""

    station: Any
    profiles: list[Held] = field(default_factory=list)
    reservations: dict[int, Reserved] = field(default_factory=dict)
    local_list: dict[str, str] = field(default_factory=dict)
    list_version: int = 0

    def table(self) -> dict[str, Answer]:
        shared = {
            "ClearChargingProfile": self.clear_profile, "ReserveNow": self.reserve,
            "CancelReservation": self.cancel, "SendLocalList": self.take_list, "GetLocalListVersion": self.tell_version,
            "GetCompositeSchedule": self.tell_composite,
        }  # fmt: skip
        if self.station.is_16:
            return shared | {"SetChargingProfile": self.set_profile_16}
        return shared | {
            "SetChargingProfile": self.set_profile, "GetChargingProfiles": self.tell_profiles,
            "CostUpdated": self.take_cost, "GetTransactionStatus": self.tell_transaction,
        }  # fmt: skip

    # -- limits ----

    def limit_w(self, evse_no: int, at: datetime | None = None) -> float:
        """What this EVSE may draw; infinity where nothing limits it. A limit of all of a station is shared evenly."""
        at = at or datetime.now(UTC)
        found = [limit for limit in (self._own(evse_no, at), self._of_all(at)) if limit is not None]
        return min(found, default=float("inf"))

    def _own(self, evse_no: int, at: datetime) -> float | None:
        for purposes in (("TxProfile",), ("TxDefaultProfile",)):
            limit = self._highest(purposes, evse_no, at)
            if limit is not None:
                return limit
        return None

    def _of_all(self, at: datetime) -> float | None:
        limit = self._highest(STATION_MAX, 0, at)
        busy = sum(evse.transaction is not None for evse in self.station.evses)
        return limit / max(1, busy) if limit is not None else None

    def _highest(self, purposes: tuple[str, ...], evse_no: int, at: datetime) -> float | None:
        """One of the EVSE itself stands before one of all, on the same level."""
        wanted = [one for one in self.profiles if one.purpose in purposes and one.evse_no in (0, evse_no)]
        wanted.sort(key=lambda one: (one.profile["stackLevel"], one.evse_no), reverse=True)
        return next((limit for one in wanted if (limit := one.limit_w(at)) is not None), None)

    def forget_transaction(self, evse_no: int) -> None:
        """A profile of a transaction ends with it (K01.FR.37)."""
        self.profiles = [one for one in self.profiles if one.purpose != "TxProfile" or one.evse_no != evse_no]

    def set_profile_16(self, asked: Payload) -> Payload:
        told = dict(asked["csChargingProfiles"])
        told["id"], told["chargingSchedule"] = told.pop("chargingProfileId"), [told["chargingSchedule"]]
        return self.set_profile({"evseId": asked["connectorId"], "chargingProfile": told})

    def set_profile(self, asked: Payload) -> Payload:
        evse_no, profile = asked["evseId"], asked["chargingProfile"]
        evse = next((one for one in self.station.evses if one.number == evse_no), None)
        if evse_no and evse is None:
            return {"status": "Rejected"}
        if profile["chargingProfilePurpose"] == "TxProfile" and (evse is None or evse.transaction is None):
            return {"status": "Rejected"}
        self.profiles = [
            one for one in self.profiles if one.number != profile["id"] and not _same(one, evse_no, profile)
        ]
        held = Held(evse_no, profile, datetime.now(UTC), evse.transaction if evse else None)
        self.profiles.append(held)
        return {"status": "Accepted"}

    def clear_profile(self, asked: Payload) -> Payload:
        gone = [one for one in self.profiles if _is_meant(one, asked, self.station.is_16)]
        self.profiles = [one for one in self.profiles if one not in gone]
        return {"status": "Accepted" if gone else "Unknown"}

    def tell_profiles(self, asked: Payload) -> Payload:
        wanted = asked["chargingProfile"]
        found = [
            one for one in self.profiles
            if asked.get("evseId") in (None, one.evse_no)
            and (not wanted.get("chargingProfileId") or one.number in wanted["chargingProfileId"])
            and wanted.get("chargingProfilePurpose") in (None, one.purpose)
            and wanted.get("stackLevel") in (None, one.profile["stackLevel"])
        ]  # fmt: skip
        if not found:
            return {"status": "NoProfiles"}
        self.station._later(self._report(asked["requestId"], found))
        return {"status": "Accepted"}

    async def _report(self, request_id: int, found: list[Held]) -> None:
        for number, one in enumerate(found):
            await self.station.say("ReportChargingProfiles", {
                "requestId": request_id, "chargingLimitSource": "CSO", "evseId": one.evse_no,
                "chargingProfile": [one.profile], "tbc": number < len(found) - 1,
            })  # fmt: skip

    def tell_composite(self, asked: Payload) -> Payload:
        evse_no = asked["connectorId"] if self.station.is_16 else asked["evseId"]
        start, unit = datetime.now(UTC), asked.get("chargingRateUnit", "W")
        periods = list(self._periods(evse_no, start, asked["duration"], unit))
        shape = {"chargingRateUnit": unit, "chargingSchedulePeriod": periods}
        if self.station.is_16:
            whole = {"duration": asked["duration"], "startSchedule": stamp(start)} | shape
            return {"status": "Accepted", "connectorId": evse_no, "scheduleStart": stamp(start),
                    "chargingSchedule": whole}  # fmt: skip
        told = {"evseId": evse_no, "duration": asked["duration"], "scheduleStart": stamp(start)}
        return {"status": "Accepted", "schedule": told | shape}

    def _periods(self, evse_no: int, start: datetime, duration: int, unit: str) -> Iterator[Payload]:
        """Looked at minute by minute: a plan of a station's, not an engineer's."""
        most_w = float(self.station.plan.max_power_w)
        last = None
        for second in range(0, max(1, duration), 60):
            at = start + timedelta(seconds=second)
            limit = min(most_w, self.limit_w(evse_no, at))
            limit = round(limit / (VOLTS * PHASES), 1) if unit == "A" else round(limit, 1)
            if limit != last:
                yield {"startPeriod": second, "limit": limit}
                last = limit

    # -- transactions ----

    def take_cost(self, _asked: Payload) -> Payload:
        return {}

    def tell_transaction(self, asked: Payload) -> Payload:
        waiting: Any = self.station._queue
        answer: Payload = {"messagesInQueue": len(waiting) > 0}
        if "transactionId" in asked:
            running = {one.transaction for one in self.station.evses}
            answer["ongoingIndicator"] = asked["transactionId"] in running
        return answer

    # -- reservations ----

    def reserve(self, asked: Payload) -> Payload:
        evse_no = asked.get("connectorId" if self.station.is_16 else "evseId", 0)
        number = asked["reservationId" if self.station.is_16 else "id"]
        until = moment(asked["expiryDate" if self.station.is_16 else "expiryDateTime"])
        token = asked["idTag"] if self.station.is_16 else asked["idToken"]["idToken"]
        evses: Any = self.station.evses
        there = [one for one in evses if evse_no in (0, one.number)]
        if not there or until is None:
            return {"status": "Rejected"}
        own = self.reservations.get(number)
        free = [one for one in there if _is_free(one) or (own and own.evse_no == one.number)]
        if not free:
            words = {"Faulted": "Faulted", "Unavailable": "Unavailable"}
            return {"status": words.get(there[0].status, "Occupied")}
        self.reservations[number] = Reserved(number, free[0].number, token, until)
        self.station._later(self._keep_free(number, free[0]))
        return {"status": "Accepted"}

    def cancel(self, asked: Payload) -> Payload:
        one = self.reservations.pop(asked["reservationId"], None)
        if one is not None:
            self.station._later(self._let_go(one.evse_no))
        return {"status": "Accepted" if one else "Rejected"}

    def reserved_for(self, evse_no: int) -> Reserved | None:
        return next((one for one in self.reservations.values() if one.evse_no == evse_no), None)

    def use_reservation(self, evse_no: int, token: str) -> int | None:
        """The number of the reservation that this driver came for; it is over then."""
        one = self.reserved_for(evse_no)
        if one is None or one.token.lower() != token.lower():
            return None
        del self.reservations[one.number]
        return one.number

    async def _keep_free(self, number: int, evse: Any) -> None:
        await self.station._set_status(evse, "Reserved")
        while (one := self.reservations.get(number)) is not None and datetime.now(UTC) < one.until:
            await self.station.pause(1)
        if one is not None:
            del self.reservations[number]
            await self._let_go(evse.number)
            if not self.station.is_16:
                told = {"reservationId": number, "reservationUpdateStatus": "Expired"}
                await self.station.say("ReservationStatusUpdate", told)

    async def _let_go(self, evse_no: int) -> None:
        evse = self.station.evse(evse_no)
        if evse is not None and evse.status == "Reserved":
            await self.station._set_status(evse, "Available")

    # -- the local list ----

    def take_list(self, asked: Payload) -> Payload:
        version = asked["listVersion" if self.station.is_16 else "versionNumber"]
        entries = asked.get("localAuthorizationList", [])
        if asked["updateType"] == "Full":
            self.local_list.clear()
        elif version <= self.list_version:
            return {"status": "VersionMismatch"}
        for entry in entries:
            card = entry["idTag"] if self.station.is_16 else entry["idToken"]["idToken"]
            info = entry.get("idTagInfo" if self.station.is_16 else "idTokenInfo")
            if info is None:
                self.local_list.pop(card.lower(), None)
            else:
                self.local_list[card.lower()] = info["status"]
        self.list_version = version
        return {"status": "Accepted"}

    def tell_version(self, _asked: Payload) -> Payload:
        return {"listVersion" if self.station.is_16 else "versionNumber": self.list_version}

    def lets_in(self, card: str) -> bool:
        """Without a link: by the list, or everybody where there is none."""
        return not self.local_list or self.local_list.get(card.lower()) == "Accepted"


def _is_free(evse: Any) -> bool:
    return evse.status == "Available" and evse.transaction is None and evse.remote_token is None


def _same(one: Held, evse_no: int, profile: Payload) -> bool:
    """One purpose holds one profile on a level of an EVSE: the newer takes its place."""
    mine = (one.evse_no, one.purpose, one.profile["stackLevel"])
    return mine == (evse_no, profile["chargingProfilePurpose"], profile["stackLevel"])


def _is_meant(one: Held, asked: Payload, is_16: bool) -> bool:
    number = asked.get("id" if is_16 else "chargingProfileId")
    if number is not None:
        return one.number == number
    told = asked if is_16 else asked.get("chargingProfileCriteria", {})
    return (
        told.get("connectorId" if is_16 else "evseId") in (None, one.evse_no)
        and told.get("chargingProfilePurpose") in (None, one.purpose)
        and told.get("stackLevel") in (None, one.profile["stackLevel"])
    )
