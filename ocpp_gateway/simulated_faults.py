"""A library of faults: what real and hostile stations do wrong, each a scenario of `livery simulate --scenario NAME`.

They speak frame by frame, since the package's client would refuse to say most of this. `shows` names the rows of the
gateway's rules: `2.n` is hostile or broken input, `3.n` a quirk of real chargers. A scenario plays once; the station
then stays, and answers what it is asked in its own way.
"""

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from ocpp_gateway.simulated_answers import Payload, stamp

ANSWER_S, BEAT_S = 40.0, 60.0
NOWHERE = (OSError, TimeoutError, WebSocketException, asyncio.IncompleteReadError)
HOSTILE = "<script>alert(1)</script>'; drop table x;-- =cmd|' /C calc'!A0 \u202eevil"


def ago(**span: float) -> str:
    return stamp(datetime.now(UTC) - timedelta(**span))


@dataclass(slots=True)
class Box:
    """A station that says what it is told to. `acknowledged` is what it holds a CALLRESULT for: id and action."""

    url: str
    password: str | None = None
    card: str = "SIM-CARD"
    connect_to: tuple[str, int] | None = None
    version: str = "ocpp1.6"
    answers: dict[str, Callable[[str, Payload], list[Any]]] = field(default_factory=dict)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    link: ClientConnection | None = None
    _sent: dict[str, tuple[str, asyncio.Future[Any]]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def identity(self) -> str:
        return urlsplit(self.url).path.rsplit("/", 1)[-1]

    @property
    def is_16(self) -> bool:
        return self.version == "ocpp1.6"

    # -- the link ----

    def basic(self, user: str | None = None, password: bytes | None = None) -> str:
        held = password if password is not None else (self.password or "").encode()
        return "Basic " + base64.b64encode((user or self.identity).encode() + b":" + held).decode()

    def where(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return self.connect_to or (parts.hostname or "127.0.0.1", parts.port or 80)

    async def dial(
        self, versions: list[str] | None = None, *, path: str | None = None, authorization: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> bool:  # fmt: skip
        """Whether it was let in. An older link stays as it is."""
        url = self.url if path is None else urlunsplit(urlsplit(self.url)._replace(path=path))
        host, port = self.where()
        said = {"Authorization": authorization or self.basic()} if self.password else {}
        offered: Any = [self.version] if versions is None else versions
        try:
            self.link = await connect(
                url, host=host, port=port, subprotocols=offered or None, compression=None, max_size=None,
                additional_headers=said | (headers or {}), open_timeout=20,
            )  # fmt: skip
        except InvalidHandshake as error:
            self.refusals.append(str(error))
            return False
        self._readers.append(asyncio.create_task(self._read(self.link)))
        return True

    async def online(self, **more: Any) -> None:
        """Let in and booted."""
        if await self.dial(**more):
            await self.boot()

    async def boot(self, **more: Any) -> Any:
        if self.is_16:
            payload = {"chargePointVendor": "Livery Works", "chargePointModel": "Sim Fault"} | more
        else:
            payload = {
                "reason": "PowerUp",
                "chargingStation": {"vendorName": "Livery Works", "model": "Sim Fault"} | more,
            }
        return await self.call("BootNotification", payload)

    async def hand(self, target: str, *, without: str = "") -> str:
        """A handshake by hand, since no client writes such a one; the first line of the answer."""
        host, port = self.where()
        key = base64.b64encode(b"sixteen bytes ok").decode()
        lines = [f"GET {target} HTTP/1.1", f"Host: {urlsplit(self.url).netloc}", "Upgrade: websocket",
                 "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13",
                 f"Sec-WebSocket-Protocol: {self.version}", f"Authorization: {self.basic()}"]  # fmt: skip
        kept = [line for line in lines if not (without and line.startswith(without))]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(("\r\n".join(kept) + "\r\n\r\n").encode())
        answer = (await asyncio.wait_for(reader.readline(), 10)).decode().strip()
        writer.close()
        if " 101 " not in answer:
            self.refusals.append(answer)
        return answer

    def cut(self) -> None:
        """The network is gone: no close frame."""
        if self.link is not None:
            self.link.transport.abort()

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close()
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self, link: ClientConnection) -> None:
        with contextlib.suppress(*NOWHERE):
            async for raw in link:
                frame = json.loads(raw)
                if frame[0] == 2:
                    await self._answer(link, frame)
                elif (waiting := self._sent.pop(frame[1], None)) is not None:
                    if frame[0] == 3:
                        self.acknowledged.append((frame[1], waiting[0]))
                    if not waiting[1].done():
                        waiting[1].set_result(frame)
        if link is self.link:  # nobody answers any more
            for _, waiting in self._sent.values():
                if not waiting.done():
                    waiting.set_result(None)
            self._sent.clear()

    async def _answer(self, link: ClientConnection, frame: list[Any]) -> None:
        own = self.answers.get(frame[2]) or self.answers.get("*")
        for answer in own(frame[1], frame[3]) if own else [[4, frame[1], "NotImplemented", "", {}]]:
            if callable(answer):
                step: Any = answer()
                await step
            else:
                await link.send(json.dumps(answer))

    # -- what it says ----

    async def say(self, frame: str | bytes) -> None:
        """As it stands, whatever becomes of it."""
        if self.link is not None:
            await self.link.send(frame)

    async def call(self, action: str, payload: Any, message_id: str | None = None) -> Any:
        """The whole answer; None where the link ended before."""
        if self.link is None:
            return None
        number = message_id or f"{self.identity[-12:]}-{next(self._numbers)}"
        waiting = asyncio.get_running_loop().create_future()
        self._sent[number] = action, waiting
        with contextlib.suppress(*NOWHERE):
            await self.say(json.dumps([2, number, action, payload]))
            return await asyncio.wait_for(waiting, ANSWER_S)
        return None

    async def ask(self, frame: str, message_id: str) -> Any:
        """A frame as it stands, and the answer to its id."""
        if self.link is None:
            return None
        waiting = asyncio.get_running_loop().create_future()
        self._sent[message_id] = "", waiting
        await self.say(frame)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(waiting, 5)
        return None

    async def status(self, word: str = "Available", connector: Any = 1, error: str = "NoError") -> Any:
        return await self.call(
            "StatusNotification",
            {"connectorId": connector, "errorCode": error, "status": word, "timestamp": stamp()},
        )

    async def start(self, meter: int = 1_000, at: str | None = None, **more: Any) -> Any:
        """The transaction's id, if it got one."""
        payload = {
            "connectorId": 1,
            "idTag": self.card,
            "meterStart": meter,
            "timestamp": at or ago(minutes=20),
        }
        answer = await self.call("StartTransaction", payload | more)
        return answer[2].get("transactionId") if answer and answer[0] == 3 else None

    async def stop(self, transaction: Any, meter: Any = 2_000, at: str | None = None, **more: Any) -> Any:
        payload = {"transactionId": transaction, "meterStop": meter, "timestamp": at or stamp()}
        return await self.call("StopTransaction", payload | more)

    async def meter(self, value: Any, at: str | None = None, transaction: Any = None, **more: Any) -> Any:
        """`value` is a reading, or the samples themselves."""
        samples = value if isinstance(value, list) else [{"value": str(value)}]
        payload = {
            "connectorId": 1,
            "meterValue": [{"timestamp": at or ago(minutes=10), "sampledValue": samples}],
        }
        own = {"transactionId": transaction} if transaction is not None else {}
        return await self.call("MeterValues", payload | own | more)


Play = Callable[[Box], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    says: str
    shows: tuple[str, ...]
    play: Play
    version: str = "ocpp1.6"


FAULTS: dict[str, Fault] = {}


def fault(name: str, says: str, *shows: str, version: str = "ocpp1.6") -> Callable[[Play], Play]:
    def keep(play: Play) -> Play:
        FAULTS[name] = Fault(name, says, shows, play, version)
        return play

    return keep


# --- the handshake -----------------------------------------------------------------------------------------------


@fault("no-version", "names no OCPP version in its handshake", "3.1", "2.17")
async def _no_version(box: Box) -> None:
    if await box.dial([]):
        await box.boot()


@fault("strange-version", "offers a version nobody knows, then the right one", "3.2", "2.17")
async def _strange_version(box: Box) -> None:
    await box.dial(["ocpp2.0.1.1"])
    await box.online()


@fault("no-upgrade", "leaves Connection: Upgrade away in its handshake", "3.3")
async def _no_upgrade(box: Box) -> None:
    await box.hand(urlsplit(box.url).path, without="Connection")


@fault("slashes", "doubles the slashes of its address and ends with one", "3.4")
async def _slashes(box: Box) -> None:
    await box.online(path="/" + urlsplit(box.url).path.replace("/", "//") + "/")


@fault("percent-identity", "percent-encodes its identity, and not as user name", "3.5")
async def _percent_identity(box: Box) -> None:
    parts = urlsplit(box.url).path.rpartition("/")
    await box.online(path=f"{parts[0]}/{''.join(f'%{ord(letter):02X}' for letter in box.identity)}")


@fault("raw-key", "sends the bytes of its key instead of their text", "3.6", "3.7", "2.6")
async def _raw_key(box: Box) -> None:
    await box.online(authorization=box.basic(password=bytes.fromhex(box.password or "")))


@fault("absolute-url", "writes the whole address into its request line", "3.8")
async def _absolute_url(box: Box) -> None:
    await box.hand(box.url)


@fault("browser-origin", "sends an Origin header as browsers do", "2.16")
async def _browser_origin(box: Box) -> None:
    await box.online(headers={"Origin": "https://github.com/TinyWebsockets"})


@fault("wrong-key", "knocks with a wrong key before it finds its own", "2.3")
async def _wrong_key(box: Box) -> None:
    for _ in range(3):
        await box.dial(authorization=box.basic(password=b"0" * 40))
    await box.online()


@fault("other-user", "names another user than its identity", "2.4")
async def _other_user(box: Box) -> None:
    await box.dial(authorization=box.basic("SOMEBODY"))
    await box.online()


# --- the link ----------------------------------------------------------------------------------------------------


@fault("compressed", "sends compressed frames though nobody agreed to them", "3.9", "2.24")
async def _compressed(box: Box) -> None:
    await box.online()
    if box.link is not None:
        box.link.transport.write(b"\xc1\x82\0\0\0\0[]")  # RSV1 set
        with contextlib.suppress(*NOWHERE):
            await asyncio.wait_for(box.link.wait_closed(), 10)
    await box.online()


@fault("second-link", "connects anew while its old link lives", "3.10", "2.12", "2.13")
async def _second_link(box: Box) -> None:
    await box.online()
    await box.online()


@fault("cut-link", "loses its link in a session, without a word", "3.12", "2.14")
async def _cut_link(box: Box) -> None:
    await box.online()
    transaction = await box.start()
    box.cut()
    await asyncio.sleep(0.2)
    await box.online()
    await box.stop(transaction)


@fault("boot-loop", "boots again and again", "3.13", "2.53")
async def _boot_loop(box: Box) -> None:
    await box.dial()
    for _ in range(15):
        await box.boot()
        await asyncio.sleep(0.05)


@fault("no-boot", "does not boot after a reconnect", "3.14")
async def _no_boot(box: Box) -> None:
    await box.online()
    await box.close()
    await box.dial()
    await box.status()


@fault("boots-when-asked", "boots again whenever it is asked something", "3.15")
async def _boots_when_asked(box: Box) -> None:
    waits: set[asyncio.Task[Any]] = set()

    async def boot_again() -> None:
        waits.add(asyncio.create_task(box.boot()))

    box.answers["*"] = lambda number, _asked: [[4, number, "GenericError", "", {}], boot_again]
    await box.online()


@fault("binary-frame", "sends an empty text and then a binary frame", "2.25")
async def _binary_frame(box: Box) -> None:
    await box.online()
    await box.say("")
    await box.say(b"\x00\x01")
    await asyncio.sleep(0.2)
    await box.online()


# --- frames ------------------------------------------------------------------------------------------------------


@fault("no-frames", "sends what is no OCPP frame at all", "2.26")
async def _no_frames(box: Box) -> None:
    await box.online()
    for text in ("hello", "{}", "[]", "[9,1]", '[2,"x"]'):
        await box.say(text)
    await box.status()


@fault("broken-json", 'leaves a value out: "transactionId":,', "3.40")
async def _broken_json(box: Box) -> None:
    await box.online()
    await box.ask('[2,"aefa-1","MeterValues",{"connectorId":1,"transactionId":,"meterValue":[]}]', "aefa-1")
    await box.status()


@fault("deep-nesting", "nests a thousand lists", "2.27")
async def _deep_nesting(box: Box) -> None:
    await box.online()
    await box.ask(
        '[2,"deep","DataTransfer",{"vendorId":"x","data":' + "[" * 1_000 + "]" * 1_000 + "}]", "deep"
    )
    await box.status()


@fault("odd-actions", "names actions that are no text, and one nobody knows", "2.28")
async def _odd_actions(box: Box) -> None:
    await box.online()
    await box.ask('[2,"list",["Heartbeat"],{}]', "list")
    await box.ask('[2,"object",{"a":1},{}]', "object")
    await box.call("MakeCoffee", {})
    await box.status()


@fault("no-numbers", "sends NaN, Infinity and numbers beyond all bounds", "2.29", "2.31")
async def _no_numbers(box: Box) -> None:
    await box.online()
    for name, number in (("nan", "NaN"), ("inf", "Infinity"), ("huge", "1" + "0" * 400)):
        await box.ask(f'[2,"{name}","MeterValues",{{"connectorId":{number},"meterValue":[]}}]', name)
    await box.status()


@fault("double-keys", "names a field twice in a message", "2.32")
async def _double_keys(box: Box) -> None:
    await box.online()
    text = f'"errorCode":"NoError","timestamp":"{stamp()}"'
    frame = (
        f'[2,"twice","StatusNotification",{{"connectorId":1,"status":"Faulted","status":"Available",{text}}}]'
    )
    await box.ask(frame, "twice")


@fault(
    "hostile-texts",
    "tells script, SQL, formulas and turned-around text as its serial and errors",
    "2.33",
    "2.61",
)
async def _hostile_texts(box: Box) -> None:
    await box.dial()
    await box.boot(chargePointSerialNumber=HOSTILE, firmwareVersion=HOSTILE)
    state = {"connectorId": 1, "errorCode": "OtherError", "status": "Faulted", "timestamp": stamp()}
    await box.call("StatusNotification", state | {"info": HOSTILE, "vendorErrorCode": HOSTILE[:50]})


@fault("odd-ids", "uses numbers, null and endless texts as message ids", "2.34", "3.52")
async def _odd_ids(box: Box) -> None:
    await box.online()
    beat = '"DataTransfer",{"vendorId":"org.example","messageId":"odd"}'
    await box.ask(f"[2,4711,{beat}]", "4711")
    await box.ask(f"[2,null,{beat}]", "-1")
    await box.ask(f'[2,"{"9" * 300}",{beat}]', "-1")


@fault("ids-again", "counts its message ids from 1 again after a restart", "3.53", "2.35", "2.36")
async def _ids_again(box: Box) -> None:
    for meter in (1_100, 1_200):
        await box.online()
        await box.meter(meter, ago(minutes=30 - meter / 100))
        payload = {
            "connectorId": 1,
            "meterValue": [{"timestamp": ago(minutes=5), "sampledValue": [{"value": str(meter)}]}],
        }
        for _ in range(2):
            await box.call("MeterValues", payload, "1")
        await box.close()
    await box.online()


@fault("message-flood", "sends 200 messages without waiting", "2.52", "3.48")
async def _message_flood(box: Box) -> None:
    await box.online()
    begin = datetime.now(UTC) - timedelta(days=9)
    await asyncio.gather(*(box.meter(n, stamp(begin + timedelta(hours=n))) for n in range(200)))


@fault("answers-nobody-asked", "answers questions that nobody asked", "2.49")
async def _answers_nobody_asked(box: Box) -> None:
    await box.online()
    await box.say('[3,"never-asked",{"status":"Accepted"}]')
    await box.say('[4,"neither","GenericError","",{}]')
    await box.status()


# --- boot and clock ----------------------------------------------------------------------------------------------


@fault("odd-boot", "tells a serial that is too long, and empty fields", "3.16", "3.17")
async def _odd_boot(box: Box) -> None:
    await box.dial()
    await box.boot(
        chargePointSerialNumber="3N" + "7" * 40,
        iccid="",
        imsi="",
        meterSerialNumber="N/A",
        firmwareVersion="",
    )


@fault("restart-in-session", "restarts in a session and forgets it until its late stop", "3.18")
async def _restart_in_session(box: Box) -> None:
    await box.online()
    transaction = await box.start()
    await box.meter(1_500, transaction=transaction)
    await box.close()
    await box.online()
    await box.status("Preparing")
    await box.stop(transaction, 1_500, reason="PowerLoss")


@fault("clock-1970", "lives in 1970 until it knows the time", "3.19", "2.46")
async def _clock_1970(box: Box) -> None:
    await box.online()
    transaction = await box.start(at="1970-01-01T00:00:12Z")
    await box.stop(transaction, 1_100, at="1970-01-01T00:09:12Z")


@fault("clock-ahead", "is three days ahead of everybody", "2.46")
async def _clock_ahead(box: Box) -> None:
    await box.online()
    transaction = await box.start(at=ago(days=-3, minutes=20))
    await box.stop(transaction, at=ago(days=-3))


@fault("local-times", "sends times without a zone, with short offsets and too many digits", "3.20")
async def _local_times(box: Box) -> None:
    await box.online()
    begin = datetime.now(UTC) - timedelta(minutes=30)
    transaction = await box.start(at=begin.strftime("%Y-%m-%dT%H:%M:%S"))
    await box.meter(
        1_400, (begin + timedelta(hours=2, minutes=10)).strftime("%Y-%m-%dT%H:%M:%S.1234567+02"), transaction
    )
    await box.stop(transaction)


# --- transactions ------------------------------------------------------------------------------------------------


@fault("start-twice", "tells its start again under a new id", "3.23", "2.37")
async def _start_twice(box: Box) -> None:
    await box.online()
    at = ago(minutes=20)
    await box.start(at=at)
    await box.stop(await box.start(at=at))


@fault("unknown-card", "starts with a card nobody knows", "3.24", "3.25")
async def _unknown_card(box: Box) -> None:
    await box.online()
    await box.start(idTag="NOBODY-KNOWS-ME")


@fault("stop-minus-one", "stops transaction -1, since it started without us", "3.26", "2.39")
async def _stop_minus_one(box: Box) -> None:
    await box.online()
    await box.start()
    await box.stop(-1, idTag=box.card)


@fault("orphan-stop", "stops what never started, three times", "3.27", "3.28", "2.39", "2.40")
async def _orphan_stop(box: Box) -> None:
    await box.online()
    at = stamp()
    for _ in range(3):
        await box.stop(99, 5_000, at=at)


@fault("bare-stop", "stops without card and reason", "3.29")
async def _bare_stop(box: Box) -> None:
    await box.online()
    await box.stop(await box.start())


@fault("stop-by-another", "is stopped by another card, whose number is too long", "3.30", "2.41")
async def _stop_by_another(box: Box) -> None:
    await box.online()
    await box.stop(await box.start(), idTag="x" * 36)


@fault("meter-back", "ends below the reading it began with", "3.31", "2.43")
async def _meter_back(box: Box) -> None:
    await box.online()
    await box.stop(await box.start(), 400)


@fault("meter-resets", "begins its meter anew in a session", "3.32", "2.43")
async def _meter_resets(box: Box) -> None:
    await box.online()
    transaction = await box.start(98_765_432)
    await box.meter(98_766_000, transaction=transaction)
    await box.meter(0, ago(minutes=5), transaction)
    await box.stop(transaction, 900)


@fault("late-reading", "sends a reading after its stop", "3.33", "2.42")
async def _late_reading(box: Box) -> None:
    await box.online()
    transaction = await box.start()
    await box.stop(transaction, at=ago(minutes=5))
    await box.meter(2_007, ago(minutes=4), transaction)


@fault("start-at-end", "tells its start once more when the session ends", "3.34")
async def _start_at_end(box: Box) -> None:
    await box.online()
    transaction = await box.start(at=ago(minutes=40))
    await box.start(at=ago(minutes=1))
    await box.stop(transaction, 5_000)


@fault("never-stops", "is free again without ever having stopped", "3.37", "2.64")
async def _never_stops(box: Box) -> None:
    await box.online()
    await box.meter(1_500, transaction=await box.start())
    await box.status()


@fault("random-stop", "stops a transaction that is none of its own", "3.38", "2.38")
async def _random_stop(box: Box) -> None:
    await box.online()
    await box.start()
    await box.stop(123_456)


@fault("too-much-energy", "gives more energy than its plate allows", "2.44")
async def _too_much_energy(box: Box) -> None:
    await box.online()
    await box.stop(await box.start(), 1_001_000)


@fault("wh-for-kwh", "counts in Wh and says kWh", "2.45")
async def _wh_for_kwh(box: Box) -> None:
    await box.online()
    transaction = await box.start()
    await box.meter([{"value": "1500", "unit": "kWh"}], transaction=transaction)
    await box.stop(transaction)


@fault(
    "offline-queue",
    "was offline for days: doubled, out of order, with starts that are missing",
    "2.47",
    "2.48",
)
async def _offline_queue(box: Box) -> None:
    await box.online()
    first = await box.start(1_000, ago(days=3))
    for minutes, value in ((10, 1_200), (30, 1_600), (20, 1_400), (20, 1_400)):
        await box.meter(value, ago(days=3, minutes=-minutes), first)
    for _ in range(2):
        await box.stop(first, 2_000, ago(days=3, minutes=-45))
    await box.stop(
        -1,
        9_000,
        ago(days=2),
        transactionData=[{"timestamp": ago(days=2), "sampledValue": [{"value": "9000"}]}],
    )


@fault("two-at-once", "starts a second transaction where one runs", "2.63")
async def _two_at_once(box: Box) -> None:
    await box.online()
    await box.start()
    await box.stop(await box.start(3_000, ago(minutes=5)), 3_500)


# --- meter values and states -------------------------------------------------------------------------------------


@fault("stray-ids", "sends readings with 0, no or another's transaction id", "3.39")
async def _stray_ids(box: Box) -> None:
    await box.online()
    transaction = await box.start()
    for minutes, stray in ((12, 0), (10, None), (8, 123_456)):
        await box.meter(1_200 - 10 * minutes, ago(minutes=minutes), stray)
    await box.stop(transaction)


@fault("meter-object", "sends an object where a list should be", "3.41")
async def _meter_object(box: Box) -> None:
    await box.online()
    one: Any = {"timestamp": ago(minutes=1), "sampledValue": {"value": "1100"}}
    await box.call("MeterValues", {"connectorId": 1, "meterValue": one})


@fault("meter-numbers", "sends numbers for texts", "3.42")
async def _meter_numbers(box: Box) -> None:
    await box.online()
    await box.meter([{"value": 1100.5}])


@fault("meter-empty", "sends samples that say nothing, or no number", "3.43", "2.30")
async def _meter_empty(box: Box) -> None:
    await box.online()
    await box.meter([])
    await box.meter(
        [{"value": ""}, {"value": "NaN"}, {"value": "12,5"}, {"value": "1e999"}, {"value": "1100"}]
    )


@fault("meter-units", "spells units in its own way and mixes kW with W", "3.44", "3.46")
async def _meter_units(box: Box) -> None:
    await box.online()
    await box.meter([
        {"value": "50", "measurand": "Frequency", "unit": "Hertz"},
        {"value": "31", "measurand": "Temperature", "unit": "Celcius"},
        {"value": "1.1", "unit": "kWh"}, {"value": "7.1", "measurand": "Power.Active.Import", "unit": "kW"},
    ])  # fmt: skip


@fault("meter-phases", "writes the phase into the measurand, and contexts of its own", "3.45")
async def _meter_phases(box: Box) -> None:
    await box.online()
    samples = [
        {"value": str(10 + n), "measurand": f"Current.Import.L{n}", "unit": "A", "context": "Sample.Whatever"}
        for n in (1, 2, 3)
    ]
    await box.meter(samples)


@fault("meter-15", "sends meter values as OCPP 1.5 had them", "3.47")
async def _meter_15(box: Box) -> None:
    await box.online()
    old = [{"timestamp": ago(minutes=2), "value": [{"value": "1234", "unit": "Wh"}]}]
    await box.call("MeterValues", {"connectorId": 1, "values": old})


@fault("vendor-status", "tells states and errors in words of its vendor", "3.49")
async def _vendor_status(box: Box) -> None:
    await box.online()
    await box.status("Überhitzt", error="MyOwnError")


@fault("flapping", "changes its state ten times a second", "2.54")
async def _flapping(box: Box) -> None:
    await box.online()
    for number in range(20):
        await box.status(
            "Faulted" if number % 2 else "Available", error="GroundFailure" if number % 2 else "NoError"
        )


@fault("odd-connectors", "speaks of connectors 0, -1 and 1234", "3.50", "3.51", "2.62")
async def _odd_connectors(box: Box) -> None:
    await box.online()
    for connector in (0, -1, 1234):
        await box.status(connector=connector)


@fault("card-guessing", "tries one card after the other", "2.55")
async def _card_guessing(box: Box) -> None:
    await box.online()
    for number in range(40):
        await box.call("Authorize", {"idTag": f"GUESS-{number}"})


@fault("vendor-data", "transfers 40 kB of its vendor's own", "2.60")
async def _vendor_data(box: Box) -> None:
    await box.online()
    await box.call("DataTransfer", {"vendorId": "org.example.own", "data": "x" * 40_000})


@fault(
    "events-out-of-order",
    "sends events late, out of order and without their EVSE",
    "3.58",
    version="ocpp2.0.1",
)
async def _events_out_of_order(box: Box) -> None:
    await box.online()
    token = {"idToken": {"idToken": box.card, "type": "ISO14443"}, "evse": {"id": 1, "connectorId": 1}}
    await _event(box, "Started", 0, 50, 1_000, "EVConnected", **token)
    await _event(box, "Updated", 5, 20, 4_000, "SuspendedEV")
    await _event(box, "Updated", 3, 30, 3_000, "Charging", offline=True)
    await _event(box, "Ended", 9, 10, None, "Idle")


async def _event(
    box: Box, kind: str, seq_no: int, minutes: float, wh: int | None, state: str, **more: Any
) -> None:
    at = ago(minutes=minutes)
    payload: Payload = {
        "eventType": kind, "timestamp": at, "triggerReason": "MeterValuePeriodic", "seqNo": seq_no,
        "transactionInfo": {"transactionId": f"{box.identity}-58", "chargingState": state}, **more,
    }  # fmt: skip
    if wh is not None:
        payload["meterValue"] = [{"timestamp": at, "sampledValue": [{"value": wh}]}]
    await box.call("TransactionEvent", payload)


# --- answers -----------------------------------------------------------------------------------------------------


@fault("never-answers", "never answers what it is asked", "2.51")
async def _never_answers(box: Box) -> None:
    box.answers["*"] = lambda _number, _asked: []
    await box.online()


@fault("answers-slowly", "answers after a second, and talks meanwhile", "3.54")
async def _answers_slowly(box: Box) -> None:
    async def wait() -> None:
        await box.say(json.dumps([2, f"meanwhile-{next(box._numbers)}", "Heartbeat", {}]))
        await asyncio.sleep(0.7)

    box.answers["*"] = lambda number, _asked: [wait, [3, number, {"status": "Accepted"}]]
    await box.online()


@fault("wrong-answer-ids", "answers with another message id", "3.52")
async def _wrong_answer_ids(box: Box) -> None:
    box.answers["*"] = lambda number, _asked: [[3, f"not-{number}"[:36], {"status": "Accepted"}]]
    await box.online()


@fault("answers-twice", "answers each question twice", "3.52")
async def _answers_twice(box: Box) -> None:
    box.answers["*"] = lambda number, _asked: [[3, number, {"status": "Accepted"}]] * 2
    await box.online()


@fault("misfit-answers", "answers with what fits another question", "2.50")
async def _misfit_answers(box: Box) -> None:
    box.answers["*"] = lambda number, _asked: [[3, number, {"configurationKey": [], "listVersion": "two"}]]
    await box.online()


@fault("not-implemented", "has implemented nothing that it could be asked", "3.55")
async def _not_implemented(box: Box) -> None:
    await box.online()


@fault("nonsense-schedule", "refuses a composite schedule with nonsense in the answer", "3.57")
async def _nonsense_schedule(box: Box) -> None:
    nonsense = {
        "status": "Rejected",
        "scheduleStart": "0",
        "chargingSchedule": {"startSchedule": "0", "chargingRateUnit": ""},
    }
    box.answers["*"] = lambda number, _asked: [[3, number, nonsense]]
    await box.online()


@fault("no-maximum", "refuses a maximum of the station, and takes limits of sessions", "3.56")
async def _no_maximum(box: Box) -> None:
    def answer(number: str, asked: Payload) -> list[Any]:
        purpose = asked["csChargingProfiles"]["chargingProfilePurpose"]
        return [[3, number, {"status": "Rejected" if purpose == "ChargePointMaxProfile" else "Accepted"}]]

    box.answers["SetChargingProfile"] = answer
    await box.online()


@fault(
    "no-profile-at-start", "refuses a remote start that carries a limit or names no connector", "3.35", "3.36"
)
async def _no_profile_at_start(box: Box) -> None:
    def answer(number: str, asked: Payload) -> list[Any]:
        is_fine = "connectorId" in asked and "chargingProfile" not in asked
        return [[3, number, {"status": "Accepted" if is_fine else "Rejected"}]]

    box.answers["RemoteStartTransaction"] = answer
    await box.online()


# --- playing -----------------------------------------------------------------------------------------------------


async def play_all(boxes: list[Box], scenario: Fault, say: Callable[[str], None]) -> None:
    """Each plays it once and stays as it is then, until cancelled; `say` hears how it went."""
    await asyncio.gather(*(_live(box, scenario, say) for box in boxes))


async def _live(box: Box, scenario: Fault, say: Callable[[str], None]) -> None:
    box.version = scenario.version
    try:
        with contextlib.suppress(*NOWHERE):
            await scenario.play(box)
        refused = f", refused: {'; '.join(box.refusals)}" if box.refusals else ""
        say(f"{box.identity}: {scenario.name} played, {len(box.acknowledged)} messages acknowledged{refused}")
        while True:
            await asyncio.sleep(BEAT_S)
            await box.call("Heartbeat", {})
    finally:
        await box.close()


def boxes_of(url: str, count: int, password: str | None, cards: tuple[str, ...] = ()) -> list[Box]:
    """`SIM-0001` and so on below `url`."""
    parts = urlsplit(url)
    is_here = (parts.hostname or "").endswith("localhost")
    found = []
    for number in range(1, count + 1):
        path = f"{parts.path.rstrip('/')}/{quote(f'SIM-{number:04d}')}"
        address = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        found.append(Box(
            address, password, cards[0] if cards else "SIM-CARD",
            ("127.0.0.1", parts.port or 80) if is_here else None,
        ))  # fmt: skip
    return found
