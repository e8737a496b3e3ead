"""Stations that are not our simulator: the `ocpp` package's own client, OCPP 1.6 and 2.0.1, over real sockets.

Each keeps its own record of what was acknowledged, which a test compares with the database, and can be told to lose
its link and to send its queue again.
"""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ocpp.charge_point import camel_to_snake_case
from ocpp.messages import validate_payload
from ocpp.routing import on
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v21 import ChargePoint as ChargePoint21
from ocpp.v21 import call as call21
from ocpp.v201 import ChargePoint as ChargePoint201
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201
from websockets.asyncio.client import ClientConnection, connect

Answer = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]


def stamp(at: datetime | None = None) -> str:
    return (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass(slots=True)
class Acknowledged:
    """A CALL for which the station holds a CALLRESULT."""

    message_id: str
    action: str
    payload: dict[str, Any]
    answer: dict[str, Any]


@dataclass(slots=True)
class Recorder:
    """Sits between the ocpp package and the socket, and writes down what was sent and answered."""

    socket: ClientConnection
    acknowledged: list[Acknowledged]
    sent: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    frames_in: list[str] = field(default_factory=list)

    async def send(self, message: str) -> None:
        frame = json.loads(message)
        if frame[0] == 2:
            self.sent[frame[1]] = (frame[2], frame[3])
        await self.socket.send(message)

    async def recv(self) -> str:
        message = str(await self.socket.recv())
        self.frames_in.append(message)
        frame = json.loads(message)
        if frame[0] == 3 and frame[1] in self.sent:
            action, payload = self.sent.pop(frame[1])
            self.acknowledged.append(Acknowledged(frame[1], action, payload, frame[2]))
        return message


class _Scripted:
    """Any CALL the test has an answer for, as on the wire; both are held to the package's own schemas."""

    answers: dict[str, Answer]
    asked: list[tuple[str, dict[str, Any]]]
    _ocpp_version: str
    _send: Callable[[str], Awaitable[None]]
    react: Callable[[str, dict[str, Any]], Awaitable[None]]

    async def _handle_call(self, msg: Any) -> Any:
        if msg.action not in self.answers:
            return await super()._handle_call(msg)  # type: ignore[misc]
        await validate_payload(msg, self._ocpp_version)
        self.asked.append((msg.action, msg.payload))
        answer = self.answers[msg.action]
        result = msg.create_call_result(answer(msg.payload) if callable(answer) else answer)
        await validate_payload(result, self._ocpp_version)
        await self._send(result.to_json())
        self._reaction = asyncio.ensure_future(self.react(msg.action, msg.payload))
        return None


class _Handlers16(_Scripted, ChargePoint16):
    """What the cars and the station's firmware would do when asked."""

    behaviour: dict[str, str]

    def _answer(self, action: str, payload: dict[str, Any], default: str = "Accepted") -> str:
        self.asked.append((action, payload))
        status = self.behaviour.get(action, default)
        if status == "Accepted":
            self._reaction = asyncio.ensure_future(self.react(action, payload))
        return status

    @on("RemoteStartTransaction")
    def remote_start(self, **payload: Any):
        return result16.RemoteStartTransaction(status=self._answer("RemoteStartTransaction", payload))  # type: ignore[arg-type]

    @on("RemoteStopTransaction")
    def remote_stop(self, **payload: Any):
        return result16.RemoteStopTransaction(status=self._answer("RemoteStopTransaction", payload))  # type: ignore[arg-type]

    @on("Reset")
    def reset(self, **payload: Any):
        return result16.Reset(status=self._answer("Reset", payload))  # type: ignore[arg-type]

    @on("UnlockConnector")
    def unlock(self, **payload: Any):
        return result16.UnlockConnector(status=self._answer("UnlockConnector", payload, "Unlocked"))  # type: ignore[arg-type]

    @on("ChangeAvailability")
    def availability(self, **payload: Any):
        return result16.ChangeAvailability(status=self._answer("ChangeAvailability", payload))  # type: ignore[arg-type]

    @on("TriggerMessage")
    def trigger(self, **payload: Any):
        return result16.TriggerMessage(status=self._answer("TriggerMessage", payload, "Rejected"))  # type: ignore[arg-type]

    @on("GetConfiguration")
    def get_configuration(self, **payload: Any):
        self._answer("GetConfiguration", payload)
        key = {"key": "HeartbeatInterval", "readonly": False, "value": "300"}
        return result16.GetConfiguration(configuration_key=[key], unknown_key=[])

    @on("ChangeConfiguration")
    def change_configuration(self, **payload: Any):
        return result16.ChangeConfiguration(status=self._answer("ChangeConfiguration", payload))  # type: ignore[arg-type]


class _Handlers201(_Scripted, ChargePoint201):
    behaviour: dict[str, str]
    _answer = _Handlers16._answer

    @on("RequestStartTransaction")
    def request_start(self, **payload: Any):
        return result201.RequestStartTransaction(status=self._answer("RequestStartTransaction", payload))  # type: ignore[arg-type]

    @on("RequestStopTransaction")
    def request_stop(self, **payload: Any):
        return result201.RequestStopTransaction(status=self._answer("RequestStopTransaction", payload))  # type: ignore[arg-type]

    @on("Reset")
    def reset(self, **payload: Any):
        return result201.Reset(status=self._answer("Reset", payload))  # type: ignore[arg-type]

    @on("UnlockConnector")
    def unlock(self, **payload: Any):
        return result201.UnlockConnector(status=self._answer("UnlockConnector", payload, "Unlocked"))  # type: ignore[arg-type]

    @on("ChangeAvailability")
    def availability(self, **payload: Any):
        return result201.ChangeAvailability(status=self._answer("ChangeAvailability", payload))  # type: ignore[arg-type]

    @on("TriggerMessage")
    def trigger(self, **payload: Any):
        return result201.TriggerMessage(status=self._answer("TriggerMessage", payload, "Rejected"))  # type: ignore[arg-type]


class _Handlers21(_Handlers201):
    """The same words on the wire, held to the schemas of 2.1."""

    _call, _call_result, _ocpp_version = ChargePoint21._call, ChargePoint21._call_result, "2.1"


class ForeignStation:
    """One box. `url` is what commissioning told; `connect_to` replaces host and port where a name does not resolve.

    `behaviour` is the status it answers a CALL with, `answers` a whole CALLRESULT payload (or a function of the
    request's), `reactions` what it does after it answered, `asked` what it was asked.
    """

    version = ""
    package: Any = None

    def __init__(self, url: str, password: str | None, *, connect_to: tuple[str, int] | None = None) -> None:
        self.url, self.password, self.connect_to = url, password, connect_to
        self.identity = urlsplit(url).path.rsplit("/", 1)[-1]
        self.acknowledged: list[Acknowledged] = []
        self.behaviour: dict[str, str] = {}
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.reactions: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._reacting: set[asyncio.Task[Any]] = set()
        self.tls: ssl.SSLContext | None = None
        self.socket: ClientConnection | None = None

    async def connect(self) -> None:
        headers = {}
        if self.password is not None:
            token = base64.b64encode(f"{self.identity}:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        where = {"host": self.connect_to[0], "port": self.connect_to[1]} if self.connect_to else {}
        self.socket = await connect(
            self.url,
            subprotocols=[self.version],
            additional_headers=headers,
            compression=None,
            open_timeout=10,
            ssl=self.tls,
            **where,  # type: ignore[list-item]
        )
        self.recorder = Recorder(self.socket, self.acknowledged)
        self.cp = self._charge_point(self.recorder)
        self.cp.behaviour, self.cp.asked, self.cp.react = self.behaviour, self.asked, self._react
        self.cp.answers = self.answers
        self._reader = asyncio.create_task(self._read())

    def _charge_point(self, recorder: Recorder) -> Any:
        raise NotImplementedError

    async def _read(self) -> None:
        with contextlib.suppress(Exception):
            await self.cp.start()

    async def _react(self, action: str, payload: dict[str, Any]) -> None:
        if action not in self.reactions:
            return
        task = asyncio.current_task()
        assert task is not None
        self._reacting.add(task)
        task.add_done_callback(self._reacting.discard)
        await self.reactions[action](payload)

    async def call(self, payload: Any, *, message_id: str | None = None, timeout_s: float = 15) -> Any:
        """Sends a CALL and waits for its answer; a CALLERROR raises."""
        self.cp._response_timeout = timeout_s
        return await self.cp.call(payload, suppress=False, unique_id=message_id)

    async def say(self, action: str, payload: dict[str, Any], *, timeout_s: float = 15) -> dict[str, Any]:
        """A CALL by its wire name and payload; the CALLRESULT's payload. Both are held to the package's schemas."""
        fields: Any = camel_to_snake_case(payload)
        request = getattr(self.package, action)(**fields)
        await self.call(request, timeout_s=timeout_s)
        return self.acknowledged[-1].answer

    async def cut(self) -> None:
        """The network is gone: no close frame."""
        if self.socket is not None:
            self.socket.transport.abort()
        await self._gone()

    async def close(self) -> None:
        """What it was telling is answered first: a page may know of it before the station has its answer."""
        if telling := self._reacting - {asyncio.current_task()}:
            await asyncio.wait(telling, timeout=5)
        if self.socket is not None:
            await self.socket.close()
        await self._gone()

    async def _gone(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._reader
        self._reader = self.socket = None
        for task in self._reacting - {asyncio.current_task()}:
            task.cancel()


class Station16(ForeignStation):
    version = "ocpp1.6"
    package = call16

    def _charge_point(self, recorder: Recorder) -> Any:
        return _Handlers16(self.identity, recorder)

    async def boot(self) -> Any:
        return await self.call(
            call16.BootNotification(charge_point_model="Fjord 22", charge_point_vendor="Wattwerk")
        )

    async def status(self, connector: int, status: str, error: str = "NoError") -> Any:
        message = call16.StatusNotification(
            connector_id=connector, error_code=error, status=status, timestamp=stamp()
        )  # type: ignore[arg-type]
        return await self.call(message)

    async def authorize(self, id_tag: str) -> str:
        return (await self.call(call16.Authorize(id_tag=id_tag))).id_tag_info["status"]

    async def start(self, connector: int, id_tag: str, meter_wh: int, at: datetime | None = None) -> Any:
        message = call16.StartTransaction(
            connector_id=connector, id_tag=id_tag, meter_start=meter_wh, timestamp=stamp(at)
        )
        return await self.call(message)

    async def meter(
        self, connector: int, transaction_id: int, meter_wh: int, power_w: int, at: datetime | None = None, *,
        message_id: str | None = None,
    ) -> Any:  # fmt: skip
        values = [
            {"value": str(meter_wh), "measurand": "Energy.Active.Import.Register", "unit": "Wh"},
            {"value": str(power_w), "measurand": "Power.Active.Import", "unit": "W"},
        ]
        message = call16.MeterValues(
            connector_id=connector, transaction_id=transaction_id,
            meter_value=[{"timestamp": stamp(at), "sampledValue": values}],
        )  # fmt: skip
        return await self.call(message, message_id=message_id)

    async def stop(
        self, transaction_id: int, meter_wh: int, at: datetime | None = None, reason: str = "Local"
    ) -> Any:
        message = call16.StopTransaction(
            meter_stop=meter_wh,
            timestamp=stamp(at),
            transaction_id=transaction_id,
            reason=reason,  # type: ignore[arg-type]
        )
        return await self.call(message)


class Station201(ForeignStation):
    version = "ocpp2.0.1"
    package = call201

    def _charge_point(self, recorder: Recorder) -> Any:
        return _Handlers201(self.identity, recorder)

    async def boot(self) -> Any:
        station = {"model": "Kompakt 150", "vendor_name": "Ladewerk"}
        return await self.call(self.package.BootNotification(charging_station=station, reason="PowerUp"))  # type: ignore[arg-type]

    async def status(self, evse: int, status: str, connector: int = 1) -> Any:
        message = self.package.StatusNotification(
            timestamp=stamp(),
            connector_status=status,
            evse_id=evse,
            connector_id=connector,  # type: ignore[arg-type]
        )
        return await self.call(message)

    async def authorize(self, value: str, type: str = "ISO14443") -> str:  # noqa: A002
        answer = await self.call(self.package.Authorize(id_token={"id_token": value, "type": type}))  # type: ignore[arg-type]
        return answer.id_token_info["status"]

    async def event(
        self, kind: str, transaction_id: str, seq_no: int, *, evse: int = 1, meter_wh: int | None = None,
        power_w: int | None = None, token: str | None = None, token_type: str = "ISO14443", at: datetime | None = None,
        trigger: str = "MeterValuePeriodic", state: str = "Charging", offline: bool = False,
        remote_start_id: int | None = None, reason: str | None = None, message_id: str | None = None,
    ) -> Any:  # fmt: skip
        context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
        values = []
        if meter_wh is not None:
            values.append(
                {"value": meter_wh, "measurand": "Energy.Active.Import.Register", "context": context}
            )
        if power_w is not None:
            values.append({"value": power_w, "measurand": "Power.Active.Import", "context": context})
        info: dict[str, Any] = {"transaction_id": transaction_id, "charging_state": state}
        if remote_start_id is not None:
            info["remote_start_id"] = remote_start_id
        if reason is not None:
            info["stopped_reason"] = reason
        message = self.package.TransactionEvent(
            event_type=kind, timestamp=stamp(at), trigger_reason=trigger, seq_no=seq_no, transaction_info=info,  # type: ignore[arg-type]
            evse={"id": evse, "connector_id": 1}, offline=offline or None,  # type: ignore[arg-type]
            id_token={"id_token": token, "type": token_type} if token else None,  # type: ignore[arg-type]
            meter_value=[{"timestamp": stamp(at), "sampled_value": values}] if values else None,  # type: ignore[arg-type]
        )  # fmt: skip
        return await self.call(message, message_id=message_id)


class Station21(Station201):
    version = "ocpp2.1"
    package = call21

    def _charge_point(self, recorder: Recorder) -> Any:
        return _Handlers21(self.identity, recorder)
