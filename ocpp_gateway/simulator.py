"""Simulated stations: the `ocpp` package's client over real sockets, with cars, faults and recoveries.

A station has EVSEs; cars come and go, charge along a plausible curve and leave. Deterministic by seed but for the wall
clock. While the link is away, transaction messages wait in a queue and are sent in order when it is back, as real
stations do. `livery simulate` runs many; the demo and tests use `SimulatedStation`.
"""

# The package's dataclasses are annotated with its enums; on the wire, and at run time, they are plain strings.
# pyright: reportArgumentType=false

import asyncio
import base64
import contextlib
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ocpp.charge_point import ChargePoint, camel_to_snake_case
from ocpp.exceptions import OCPPError
from ocpp.routing import on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v21 import ChargePoint as ChargePoint21
from ocpp.v201 import ChargePoint as ChargePoint201
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from ocpp_gateway.simulated_answers import Answering, Payload, stamp
from ocpp_gateway.simulated_device import Device
from ocpp_gateway.simulated_energy import Energy
from ocpp_gateway.simulated_meter import SigningMeter
from ocpp_gateway.simulated_upkeep import Upkeep, Upkeep16, Upkeep201

log = logging.getLogger("livery.simulator")
SCENARIOS = {
    "charge": "cars come, charge and leave",
    "idle": "waits for who asks it",
    "fault": "charges, and an EVSE breaks down now and then",
    "offline": "charges, and loses its link now and then",
    "day": "charges, breaks down and loses its link",
    "signed": "charges, and its meter signs begin and end (OCMF)",
}
RECONNECT_S = (1.0, 2.0, 5.0, 10.0)
ANSWER_S = 40.0
READ_ONLY_16 = (
    "NumberOfConnectors", "SupportedFeatureProfiles", "ChargeProfileMaxStackLevel", "SendLocalListMaxLength",
    "ChargingScheduleAllowedChargingRateUnit", "ChargingScheduleMaxPeriods",
)  # fmt: skip


EARLY_S = (5.0, 90.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a station lives. `pace` < 1 makes everything faster (tests); `cards` are tokens its drivers carry.

    `gap_s`: how long an EVSE stands empty between two cars. Every second EVSE finds its first car early all the same.
    """

    scenario: str = "charge"
    max_power_w: int = 22_000
    evse_count: int = 1
    cards: tuple[str, ...] = ()
    meter_interval_s: float = 5.0
    gap_s: tuple[float, float] = EARLY_S
    pace: float = 1.0
    seed: int = 1
    signs: bool = False  # its meters sign begin and end; those of scenario `signed` do


@dataclass(slots=True)
class Evse:
    """One EVSE and the car before it. The meter counts for life."""

    number: int
    meter_wh: float
    status: str = "Available"
    transaction: str | None = None
    token: str | None = None
    wanted_wh: float = 0
    taken_wh: float = 0
    soc: float = 40
    power_w: float = 0
    warmth: float = 20
    seq_no: int = 0
    stop_reason: str | None = None
    remote_start_id: int | None = None
    remote_token: tuple[str, str] | None = None
    reservation: int | None = None
    meter: SigningMeter | None = None
    signed_begin: tuple[str, str] | None = None  # when, and what 1.6 tells with the stop
    is_operative: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def charge(self, seconds: float, most_w: float) -> None:
        """A battery: full power, and from 80 % on less and less. The battery holds 60 kWh."""
        taper = 1.0 if self.soc < 80 else max(0.08, (100 - self.soc) / 20)
        self.power_w = min(most_w, 60_000 * 3) * taper
        gained = self.power_w * seconds / 3600
        self.meter_wh += gained
        self.taken_wh += gained
        self.soc = min(100.0, self.soc + gained / 600)

    @property
    def is_satisfied(self) -> bool:
        return self.taken_wh >= self.wanted_wh or self.soc >= 99.5


class _Link16(Answering, Upkeep16, ChargePoint16):
    station: "SimulatedStation"

    @on("RemoteStartTransaction")
    async def _start(self, id_tag: str, connector_id: int | None = None, **_: Any) -> Any:
        return result16.RemoteStartTransaction(
            status=self.station.remote_start(connector_id or 1, (id_tag, "Central"), None)
        )

    @on("RemoteStopTransaction")
    async def _stop(self, transaction_id: int, **_: Any) -> Any:
        return result16.RemoteStopTransaction(status=self.station.remote_stop(str(transaction_id)))

    @on("Reset")
    async def _reset(self, **_: Any) -> Any:
        self.station.restart_soon()
        return result16.Reset(status="Accepted")

    @on("UnlockConnector")
    async def _unlock(self, connector_id: int, **_: Any) -> Any:
        return result16.UnlockConnector(
            status="Unlocked" if self.station.evse(connector_id) else "NotSupported"
        )

    @on("ChangeAvailability")
    async def _availability(self, connector_id: int, type: str, **_: Any) -> Any:  # noqa: A002
        self.station.set_operative(connector_id, type == "Operative")
        return result16.ChangeAvailability(status="Accepted")

    @on("GetConfiguration")
    async def _get_configuration(self, key: list[str] | None = None, **_: Any) -> Any:
        known = self.station.variables
        wanted = key or list(known)
        rows = [
            {"key": name, "readonly": name in READ_ONLY_16, "value": known[name]}
            for name in wanted
            if name in known
        ]
        return result16.GetConfiguration(
            configuration_key=rows, unknown_key=[n for n in wanted if n not in known]
        )

    @on("ChangeConfiguration")
    async def _change_configuration(self, key: str, value: str, **_: Any) -> Any:
        return result16.ChangeConfiguration(status=self.station.set_variable(key, value))

    @on("TriggerMessage")
    async def _trigger(self, requested_message: str, connector_id: int | None = None, **_: Any) -> Any:
        return result16.TriggerMessage(status=self.station.trigger(requested_message, connector_id))

    @on("ClearCache")
    async def _clear_cache(self, **_: Any) -> Any:
        return result16.ClearCache(status="Accepted")


class _Link201(Answering, Upkeep201, ChargePoint201):
    station: "SimulatedStation"

    @on("RequestStartTransaction")
    async def _start(
        self, id_token: dict[str, Any], remote_start_id: int, evse_id: int | None = None, **_: Any
    ) -> Any:
        token = (id_token["id_token"], id_token["type"])
        return result201.RequestStartTransaction(
            status=self.station.remote_start(evse_id or 1, token, remote_start_id)
        )

    @on("RequestStopTransaction")
    async def _stop(self, transaction_id: str, **_: Any) -> Any:
        return result201.RequestStopTransaction(status=self.station.remote_stop(transaction_id))

    @on("Reset")
    async def _reset(self, **_: Any) -> Any:
        self.station.restart_soon()
        return result201.Reset(status="Accepted")

    @on("UnlockConnector")
    async def _unlock(self, evse_id: int, **_: Any) -> Any:
        return result201.UnlockConnector(
            status="Unlocked" if self.station.evse(evse_id) else "UnknownConnector"
        )

    @on("ChangeAvailability")
    async def _availability(
        self, operational_status: str, evse: dict[str, Any] | None = None, **_: Any
    ) -> Any:
        self.station.set_operative((evse or {}).get("id", 0), operational_status == "Operative")
        return result201.ChangeAvailability(status="Accepted")

    @on("TriggerMessage")
    async def _trigger(self, requested_message: str, evse: dict[str, Any] | None = None, **_: Any) -> Any:
        return result201.TriggerMessage(
            status=self.station.trigger(requested_message, (evse or {}).get("id"))
        )

    @on("ClearCache")
    async def _clear_cache(self, **_: Any) -> Any:
        return result201.ClearCache(status="Accepted")


class _Link21(_Link201):
    """The same words, held to the schemas of 2.1."""

    _call, _call_result, _ocpp_version = ChargePoint21._call, ChargePoint21._call_result, "2.1"


_LINKS = {"1.6": _Link16, "2.0.1": _Link201, "2.1": _Link21}


class SimulatedStation:
    """`url` as commissioning told it; `connect_to` is where to dial instead of resolving its host. `keep_key` is where
    a key that it was given later is written down."""

    def __init__(
        self,
        url: str,
        password: str | None,
        version: str,
        plan: Plan,
        *,
        connect_to: tuple[str, int] | None = None,
        keep_key: Callable[[str], None] | None = None,
    ) -> None:
        self.keep_key = keep_key
        self.url, self.password, self.version, self.plan, self.connect_to = (
            url,
            password,
            version,
            plan,
            connect_to,
        )
        self.identity = urlsplit(url).path.rsplit("/", 1)[-1]
        self.random = random.Random(f"{plan.seed}:{url}")
        signs = plan.signs or plan.scenario == "signed"
        self.evses = [
            Evse(
                n,
                self.random.randint(10_000, 900_000),
                meter=SigningMeter(f"{urlsplit(url).path}/{n}") if signs else None,
            )
            for n in range(1, plan.evse_count + 1)
        ]
        self.variables = {
            "HeartbeatInterval": "300", "MeterValueSampleInterval": "5", "ConnectionTimeOut": "120",
            "AuthorizeRemoteTxRequests": "false", "CpoName": "",
            "LocalAuthListEnabled": "true", "LocalAuthorizeOffline": "true",
            "MeterValuesSampledData": "Energy.Active.Import.Register,Power.Active.Import,SoC",
            "NumberOfConnectors": str(plan.evse_count), "ResetRetries": "3", "StopTransactionOnInvalidId": "true",
            "SupportedFeatureProfiles":
                "Core,FirmwareManagement,LocalAuthListManagement,Reservation,SmartCharging,RemoteTrigger",
            "ChargeProfileMaxStackLevel": "8", "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
            "ChargingScheduleMaxPeriods": "24", "SendLocalListMaxLength": "100", "WebSocketPingInterval": "60",
        }  # fmt: skip
        self.model = "Sim DC" if plan.max_power_w > 43_000 else "Sim 22"
        self.firmware_version = "1.8.2" if version == "1.6" else "2.1.0"
        self.upkeep, self.energy, self.device = Upkeep(self), Energy(self), Device(self)
        self.answers = self.energy.table() | self.device.table()
        self.link: ChargePoint | None = None
        self.is_booted = asyncio.Event()
        self.boots = 0
        self._queue: deque[Callable[[], Awaitable[None]]] = deque()
        self._queued = asyncio.Event()
        self._restart = asyncio.Event()
        self._gone = asyncio.Event()
        self._silent_until = 0.0
        self._numbers = itertools.count(1)
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def is_16(self) -> bool:
        return self.version == "1.6"

    @property
    def organisation(self) -> str:
        """What it was told of whose station it is (A02: the O of its certificate)."""
        return (
            self.variables["CpoName"] if self.is_16 else self.device.told("SecurityCtrlr", "OrganizationName")
        )

    # -- life ----

    async def run(self) -> None:
        """Until cancelled."""
        life = [asyncio.create_task(self._stay_connected()), asyncio.create_task(self._drain_queue())]
        if self.plan.scenario != "idle":
            life += [asyncio.create_task(self._serve_cars(evse)) for evse in self.evses]
        if self.plan.scenario in ("fault", "day"):
            life.append(asyncio.create_task(self._break_and_recover()))
        if self.plan.scenario in ("offline", "day"):
            life.append(asyncio.create_task(self._lose_the_link()))
        try:
            await asyncio.gather(*life)
        finally:
            for task in [*life, *self._background]:
                task.cancel()
            await asyncio.gather(*life, return_exceptions=True)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.plan.pace)

    async def _stay_connected(self) -> None:
        waits = itertools.chain(RECONNECT_S, itertools.repeat(RECONNECT_S[-1]))
        while True:
            away = self._silent_until - asyncio.get_running_loop().time()
            if away > 0:
                await asyncio.sleep(away)
            try:
                await self._connect_once()
                waits = itertools.chain(RECONNECT_S, itertools.repeat(RECONNECT_S[-1]))
            except (OSError, WebSocketException, TimeoutError, OCPPError) as error:
                log.debug("%s: %s", self.identity, error)
            self.link = None
            self._gone.set()
            self.is_booted.clear()
            await asyncio.sleep(next(waits) * (0.5 + self.random.random()))

    async def _connect_once(self) -> None:
        headers = {}
        if self.password:
            token = base64.b64encode(f"{self.identity}:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        where: dict[str, Any] = (
            {"host": self.connect_to[0], "port": self.connect_to[1]} if self.connect_to else {}
        )
        subprotocol: Any = f"ocpp{self.version}"
        async with connect(
            self.url, subprotocols=[subprotocol], additional_headers=headers, compression=None, **where
        ) as socket:
            link: Any = _LINKS[self.version](self.identity, socket)
            link.station, link._response_timeout = self, ANSWER_S
            self.link = link
            self._restart.clear()
            self._gone.clear()
            reading = asyncio.create_task(link.start())
            booting = asyncio.create_task(self._boot_and_beat())
            restart = asyncio.create_task(self._restart.wait())
            tasks = (reading, booting, restart)
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                if task is not restart and not task.cancelled() and task.exception() is not None:
                    raise task.exception()  # type: ignore[misc]

    async def _boot_and_beat(self) -> None:
        while True:
            answer = await self._boot()
            self.boots += 1
            if answer is not None and answer.status == "Accepted":
                break
            await asyncio.sleep(min(30, getattr(answer, "interval", 30)))
        for evse in self.evses:
            await self._send_status(evse)
        if self.boots == 1:
            told = {"type": "StartupOfTheDevice", "timestamp": stamp(), "techInfo": "Power came back"}
            await self.say("SecurityEventNotification", told)
        self.is_booted.set()
        self._queued.set()
        while True:
            await asyncio.sleep(max(10, int(answer.interval)))
            await self._call(call16.Heartbeat() if self.is_16 else call201.Heartbeat())

    async def _boot(self) -> Any:
        if self.is_16:
            return await self._call(
                call16.BootNotification(
                    charge_point_model=self.model,
                    charge_point_vendor="Livery Works",
                    firmware_version=self.firmware_version,
                    charge_point_serial_number=f"LW-{self.identity}",
                )
            )
        station = {"model": self.model, "vendor_name": "Livery Works",
                   "firmware_version": self.firmware_version, "serial_number": f"LW-{self.identity}"}  # fmt: skip
        return await self._call(call201.BootNotification(charging_station=station, reason="PowerUp"))

    async def _call(self, message: Any) -> Any:
        if self.link is None:
            raise ConnectionError("no link")
        call = asyncio.ensure_future(self.link.call(message, suppress=False))
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((call, gone), return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return call.result()
            raise ConnectionError("the link is gone")
        finally:
            call.cancel()
            gone.cancel()

    async def say(self, action: str, payload: Payload) -> Any:
        """A CALL by its name and payload as on the wire."""
        fields: Any = camel_to_snake_case(payload)
        return await self._call(getattr(call16 if self.is_16 else call201, action)(**fields))

    # -- the queue of what must arrive ----

    def _must_arrive(self, send: Callable[[], Awaitable[None]]) -> None:
        self._queue.append(send)
        self._queued.set()

    async def _drain_queue(self) -> None:
        """In order; what got no answer is sent again."""
        while True:
            await self._queued.wait()
            await self.is_booted.wait()
            while self._queue and self.is_booted.is_set():
                try:
                    await self._queue[0]()
                    self._queue.popleft()
                except (OSError, WebSocketException, TimeoutError):
                    await asyncio.sleep(0.5)
                    break
                except OCPPError as error:
                    log.info("%s: %s", self.identity, error)
                    self._queue.popleft()
            if not self._queue:
                self._queued.clear()
            await asyncio.sleep(0.02)

    # -- cars ----

    async def _serve_cars(self, evse: Evse) -> None:
        await self.is_booted.wait()
        await self.pause(self.random.uniform(1, 15))
        gap_s = EARLY_S if self.random.random() < 0.5 else self.plan.gap_s
        while True:
            if evse.remote_token is None:
                await self._wait_for_car(evse, gap_s)
                gap_s = self.plan.gap_s
            if evse.status in ("Faulted", "Unavailable") or self._is_kept(evse):
                await self.pause(5)
                continue
            token = await self._authorised_token(evse)
            if token is not None:
                await self._charge(evse, token)
            evse.remote_token = evse.remote_start_id = None
            await self._set_status(evse, "Available")

    def _is_kept(self, evse: Evse) -> bool:
        """Reserved, and nobody has asked for it from afar: its driver takes a while."""
        return evse.remote_token is None and self.energy.reserved_for(evse.number) is not None

    async def _wait_for_car(self, evse: Evse, gap_s: tuple[float, float]) -> None:
        evse.changed.clear()
        wait = self.random.uniform(*gap_s) if self.plan.cards else 3600.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait * self.plan.pace):
                await evse.changed.wait()

    async def _authorised_token(self, evse: Evse) -> tuple[str, str] | None:
        if evse.remote_token is not None:
            await self._set_status(evse, "Preparing")
            await self.pause(2)
            return evse.remote_token
        if not self.plan.cards:
            return None
        reserved = self.energy.reserved_for(evse.number)
        card = reserved.token if reserved else self.random.choice(self.plan.cards)
        await self._set_status(evse, "Preparing")
        await self.pause(self.random.uniform(1, 4))
        try:
            if self.is_16:
                info = (await self._call(call16.Authorize(id_tag=card))).id_tag_info
            else:
                token = {"id_token": card, "type": "ISO14443"}
                info = (await self._call(call201.Authorize(id_token=token))).id_token_info
        except (OSError, WebSocketException, TimeoutError, OCPPError):
            # Without a link: start, and tell later.
            return (card, "ISO14443") if self.energy.lets_in(card) else None
        return (card, "ISO14443") if info["status"] == "Accepted" else None

    async def _charge(self, evse: Evse, token: tuple[str, str]) -> None:
        evse.wanted_wh = self.random.uniform(0.05, 0.35) * self.plan.max_power_w * self.plan.pace
        evse.taken_wh, evse.soc, evse.stop_reason, evse.seq_no = 0, self.random.uniform(15, 60), None, 0
        evse.token, evse.reservation = token[0], self.energy.use_reservation(evse.number, token[0])
        self.device.customers[token[0].lower()] = stamp()[:16].replace("T", " ")
        await self._start(evse, token)
        await self._set_status(evse, "Charging")
        while evse.stop_reason is None and not evse.is_satisfied:
            await self.pause(self.plan.meter_interval_s)
            if evse.status == "Faulted":
                evse.stop_reason = "Other"
                break
            most_w = min(self.plan.max_power_w, self.energy.limit_w(evse.number)) * self.random.uniform(
                0.93, 1.0
            )
            evse.charge(self.plan.meter_interval_s * self.plan.pace, most_w)
            self._meter(evse)
            evse.warmth += (20 + 26 * evse.power_w / self.plan.max_power_w - evse.warmth) / 4
            self.device.evse_is(evse.number, Power=f"{evse.power_w:.0f}", Temperature=f"{evse.warmth:.1f}")
        if evse.stop_reason is None:
            evse.power_w = 0
            await self._set_status(evse, "SuspendedEV")
            self._meter(evse)
            await self.pause(self.random.uniform(5, 30))
        await self._stop(evse)
        self.energy.forget_transaction(evse.number)
        self.device.evse_is(evse.number, Power="0", Temperature="20")
        evse.warmth = 20
        await self._set_status(evse, "Finishing")
        await self.pause(self.random.uniform(2, 6))

    async def _start(self, evse: Evse, token: tuple[str, str]) -> None:
        at, meter = stamp(), round(evse.meter_wh)
        if self.is_16:
            evse.signed_begin = (at, self._signed(evse, "B", at) or "")
            evse.transaction = f"waiting-{next(self._numbers)}"

            async def send16() -> None:
                answer = await self._call(
                    call16.StartTransaction(
                        connector_id=evse.number,
                        id_tag=token[0][:20],
                        meter_start=meter,
                        timestamp=at,
                        reservation_id=evse.reservation,
                    )
                )
                evse.transaction = str(answer.transaction_id)
                if answer.id_tag_info["status"] != "Accepted":
                    evse.stop_reason = "DeAuthorized"

            self._must_arrive(send16)
            return
        evse.transaction = f"{self.identity}-{evse.number}-{self.random.getrandbits(40):x}"
        self._event(
            evse, "Started", at, meter, "RemoteStart" if evse.remote_start_id else "Authorized", token=token
        )

    def _meter(self, evse: Evse) -> None:
        at, meter, power, soc = stamp(), round(evse.meter_wh), round(evse.power_w), round(evse.soc)
        if not self.is_16:
            self._event(evse, "Updated", at, meter, "MeterValuePeriodic")
            return

        async def send16() -> None:
            transaction = evse.transaction or ""
            samples = [
                {"value": str(meter), "measurand": "Energy.Active.Import.Register", "unit": "Wh"},
                {"value": str(power), "measurand": "Power.Active.Import", "unit": "W"},
                {"value": str(soc), "measurand": "SoC", "unit": "Percent"},
            ]
            await self._call(
                call16.MeterValues(
                    connector_id=evse.number,
                    transaction_id=int(transaction) if transaction.isdigit() else None,
                    meter_value=[{"timestamp": at, "sampledValue": samples}],
                )
            )

        self._must_arrive(send16)

    async def _stop(self, evse: Evse) -> None:
        at, meter, reason = stamp(), round(evse.meter_wh), evse.stop_reason or "Local"
        evse.power_w = 0
        if not self.is_16:
            self._event(
                evse,
                "Ended",
                at,
                meter,
                "RemoteStop" if reason == "Remote" else "StopAuthorized",
                reason=reason,
            )
            evse.transaction = None
            return

        data = self._stop_data(evse, at)

        async def send16() -> None:
            transaction = evse.transaction or ""
            await self._call(
                call16.StopTransaction(
                    transaction_data=data,
                    meter_stop=meter,
                    timestamp=at,
                    transaction_id=int(transaction) if transaction.isdigit() else -1,
                    reason=reason,
                    id_tag=(evse.token or "")[:20] or None,
                )
            )
            evse.transaction = None

        self._must_arrive(send16)

    def _signed(self, evse: Evse, kind: str, at: str) -> str | None:
        """What this EVSE's meter signs of begin (B) or end (E), as 1.6 writes it."""
        if evse.meter is None:
            return None
        return evse.meter.value_16(evse.meter.record(kind, evse.meter_wh, at, evse.token or ""))

    def _stop_data(self, evse: Evse, at: str) -> list[dict[str, Any]] | None:
        end = self._signed(evse, "E", at)
        if end is None or evse.signed_begin is None:
            return None
        told = [(*evse.signed_begin, "Transaction.Begin"), (at, end, "Transaction.End")]
        return [
            {
                "timestamp": when,
                "sampledValue": [{"value": value, "format": "SignedData", "context": context}],
            }
            for when, value, context in told
        ]

    def _event(
        self, evse: Evse, kind: str, at: str, meter: int, trigger: str, *, token: tuple[str, str] | None = None,
        reason: str | None = None,
    ) -> None:  # fmt: skip
        seq_no, evse.seq_no = evse.seq_no, evse.seq_no + 1
        info: dict[str, Any] = {
            "transaction_id": evse.transaction,
            "charging_state": _STATE_201.get(evse.status, "Charging"),
        }
        if evse.remote_start_id is not None and kind == "Started":
            info["remote_start_id"] = evse.remote_start_id
        if reason is not None:
            info["stopped_reason"] = {"Other": "Other", "DeAuthorized": "DeAuthorized"}.get(reason, reason)
        context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
        values: list[dict[str, Any]] = [
            {"value": meter, "measurand": "Energy.Active.Import.Register", "context": context},
            {"value": round(evse.power_w), "measurand": "Power.Active.Import", "context": context},
            {"value": round(evse.soc), "measurand": "SoC", "context": context},
        ]
        if evse.meter is not None and kind in ("Started", "Ended"):
            record = evse.meter.record("B" if kind == "Started" else "E", evse.meter_wh, at, evse.token or "")
            values[0]["signed_meter_value"] = evse.meter.value_201(record)
        was_online = self.is_booted.is_set()

        async def send() -> None:
            answer = await self._call(
                call201.TransactionEvent(
                    event_type=kind,
                    timestamp=at,
                    trigger_reason=trigger,
                    seq_no=seq_no,
                    transaction_info=info,
                    evse={"id": evse.number, "connector_id": 1},
                    offline=None if was_online else True,
                    reservation_id=evse.reservation if kind == "Started" else None,
                    id_token={"id_token": token[0], "type": token[1]} if token else None,
                    meter_value=[{"timestamp": at, "sampled_value": values}],
                )
            )
            status = (answer.id_token_info or {}).get("status") if answer is not None else None
            if status not in (None, "Accepted"):
                evse.stop_reason = "DeAuthorized"

        self._must_arrive(send)

    # -- states ----

    async def _set_status(self, evse: Evse, status: str) -> None:
        if evse.status == "Faulted" and status != "Recovered":
            return
        evse.status = "Available" if status == "Recovered" else status
        if not evse.is_operative and evse.status == "Available":
            evse.status = "Unavailable"
        words = {"Available": "Available", "Faulted": "Faulted", "Unavailable": "Unavailable"}
        self.device.evse_is(evse.number, AvailabilityState=words.get(evse.status, "Occupied"))
        with contextlib.suppress(OSError, WebSocketException, TimeoutError, OCPPError):
            await self._send_status(evse)

    async def _send_status(self, evse: Evse) -> None:
        if self.is_16:
            error = "GroundFailure" if evse.status == "Faulted" else "NoError"
            message: Any = call16.StatusNotification(
                connector_id=evse.number,
                error_code=error,
                status=evse.status,
                timestamp=stamp(),
            )
        else:
            word = (
                evse.status
                if evse.status in ("Available", "Faulted", "Unavailable", "Reserved")
                else "Occupied"
            )
            message = call201.StatusNotification(
                timestamp=stamp(),
                connector_status=word,
                evse_id=evse.number,
                connector_id=1,
            )
        await self._call(message)

    async def _break_and_recover(self) -> None:
        """The last EVSE faults now and then, and comes back."""
        evse = self.evses[-1]
        while True:
            await self.pause(self.random.uniform(60, 240))
            await self._set_status(evse, "Faulted")
            self.device.evse_failed(evse.number, True)
            await self.pause(self.random.uniform(30, 90))
            await self._set_status(evse, "Recovered")
            self.device.evse_failed(evse.number, False)

    async def _lose_the_link(self) -> None:
        while True:
            await self.pause(self.random.uniform(90, 300))
            self.go_silent(self.random.uniform(20, 60) * self.plan.pace)

    def go_silent(self, seconds: float) -> None:
        """The link is away for a while; sessions go on, and their messages wait."""
        self._silent_until = asyncio.get_running_loop().time() + seconds
        self._restart.set()

    # -- what the operator asks ----

    def evse(self, number: int) -> Evse | None:
        return next((evse for evse in self.evses if evse.number == number), None)

    def remote_start(self, number: int, token: tuple[str, str], remote_start_id: int | None) -> str:
        evse = self.evse(number)
        if evse is None or evse.transaction is not None or evse.status in ("Faulted", "Unavailable"):
            return "Rejected"
        reserved = self.energy.reserved_for(number)
        if reserved is not None and reserved.token.lower() != token[0].lower():
            return "Rejected"
        if self.plan.scenario == "idle":
            self._later(self._one_remote_session(evse))
        evse.remote_token, evse.remote_start_id = token, remote_start_id
        evse.changed.set()
        return "Accepted"

    async def _one_remote_session(self, evse: Evse) -> None:
        token = await self._authorised_token(evse)
        if token is not None:
            await self._charge(evse, token)
        evse.remote_token = evse.remote_start_id = None
        await self._set_status(evse, "Available")

    def remote_stop(self, transaction: str) -> str:
        evse = next((evse for evse in self.evses if evse.transaction == transaction), None)
        if evse is None:
            return "Rejected"
        evse.stop_reason = "Remote"
        return "Accepted"

    def set_operative(self, number: int, is_operative: bool) -> None:
        for evse in self.evses:
            if number in (0, evse.number):
                evse.is_operative = is_operative
                if evse.transaction is None:
                    self._later(self._set_status(evse, "Available" if is_operative else "Unavailable"))

    def set_variable(self, name: str, value: str) -> str:
        if name in ("AuthorizationKey", "BasicAuthPassword"):
            self.password = value
            if self.keep_key is not None:
                self.keep_key(value)
            self.restart_soon()  # it comes back with the new one, as A01 asks
            return "Accepted"
        if name not in self.variables:
            return "NotSupported"
        self.variables[name] = value
        return "Accepted"

    def trigger(self, message: str, number: int | None) -> str:
        wanted = {
            "BootNotification": self._boot, "Heartbeat": self._beat, "StatusNotification": self._all_status,
            "MeterValues": self._all_meters, "TransactionEvent": self._all_meters,
            "FirmwareStatusNotification": self._no_firmware, "LogStatusNotification": self._no_log,
            "DiagnosticsStatusNotification": self._no_log,
        }.get(message)  # fmt: skip
        if wanted is None:
            return "Accepted" if self.upkeep.sign(message) else "NotImplemented"
        self._later(wanted())
        return "Accepted"

    async def _beat(self) -> None:
        await self._call(call16.Heartbeat() if self.is_16 else call201.Heartbeat())

    async def _all_status(self) -> None:
        for evse in self.evses:
            await self._send_status(evse)

    async def _all_meters(self) -> None:
        for evse in self.evses:
            if evse.transaction is not None:
                self._meter(evse)

    async def _no_firmware(self) -> None:
        await self.say("FirmwareStatusNotification", {"status": "Idle"})

    async def _no_log(self) -> None:
        await self.say(
            "DiagnosticsStatusNotification" if self.is_16 else "LogStatusNotification", {"status": "Idle"}
        )

    def restart_soon(self) -> None:
        async def restart() -> None:
            await self.pause(1)
            self._restart.set()

        self._later(restart())

    def _later(self, work: Any) -> None:
        async def quietly() -> None:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError, OCPPError):
                await work

        task = asyncio.create_task(quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


_STATE_201 = {
    "Charging": "Charging",
    "SuspendedEV": "SuspendedEV",
    "Preparing": "EVConnected",
    "Finishing": "EVConnected",
}


async def simulate(stations: list[SimulatedStation]) -> None:
    """All of them, until cancelled; they arrive over a few seconds, as after a power cut."""
    spread = min(10.0, len(stations) / 50)

    async def one(station: SimulatedStation, delay: float) -> None:
        await asyncio.sleep(delay)
        await station.run()

    await asyncio.gather(*(one(station, spread * n / len(stations)) for n, station in enumerate(stations)))


def stations_of(
    url: str, count: int, version: str, scenario: str, password: str | None, cards: tuple[str, ...] = ()
) -> list[SimulatedStation]:
    """`SIM-0001` and so on below `url`."""
    if scenario not in SCENARIOS:
        raise ValueError(f"the scenario is one of {', '.join(SCENARIOS)}")
    scheme, host, path, _, _ = urlsplit(url)
    found = []
    for number in range(1, count + 1):
        identity = f"SIM-{number:04d}"
        address = urlunsplit((scheme, host, f"{path.rstrip('/')}/{quote(identity)}", "", ""))
        where = (
            ("127.0.0.1", urlsplit(url).port or 80)
            if (urlsplit(url).hostname or "").endswith("localhost")
            else None
        )
        plan = Plan(scenario=scenario, seed=number, cards=cards)
        found.append(SimulatedStation(address, password, version, plan, connect_to=where))
    return found
