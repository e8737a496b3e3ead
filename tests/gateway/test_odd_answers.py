"""What a station answers to a command may be as odd as it likes: the command ends, and the next one is sent."""

import json
from typing import Any
from uuid import UUID

import pytest

from app.device_model.models import VariableMonitor
from app.stations import commands
from app.stations.models import OCPPMessage, StationCommand, StationConnection
from ocpp_gateway import aside, codec
from ocpp_gateway.codec import Error, Result
from tests.cast import STAFF
from tests.foreign_stations import ForeignStation, Station16, Station201
from tests.gateway.conftest import Yard, rows, until

pytestmark = pytest.mark.anyio
RESET_16, RESET_201 = ("Reset", {"type": "Soft"}), ("Reset", {"type": "Immediate"})
PLACE = {"component": {"name": "C"}, "variable": {"name": "V"}}
MONITOR = {"value": 1, "type": "UpperThreshold", "severity": 3, **PLACE}
SET_MONITOR = ("SetVariableMonitoring", {"setMonitoringData": [MONITOR]})
GET_VARIABLE = ("GetVariables", {"getVariableData": [PLACE]})
SET_VARIABLE = ("SetVariables", {"setVariableData": [{"attributeValue": "1", **PLACE}]})
CLEAR_MONITOR = ("ClearVariableMonitoring", {"id": [1]})
READ_16 = ("GetConfiguration", {})
LIST_16 = ("GetLocalListVersion", {})
CHANGE_16 = ("ChangeConfiguration", {"key": "HeartbeatInterval", "value": "5"})
BASE_REPORT = ("GetBaseReport", {"requestId": 5, "reportBase": "FullInventory"})


def result(payload: Any) -> list[Any]:
    return [3, "", payload]


def one(name: str, **item: Any) -> list[Any]:
    """An answer in 2.x that lists one thing."""
    return [3, "", {name: [PLACE | item]}]


# What is asked, what comes back, and how the command ends.
SET, CLEARED, READ = "setMonitoringResult", "clearMonitoringResult", "getVariableResult"
ODD_16 = [
    (RESET_16, result({"status": ["Accepted"]}), "failed"),
    (RESET_16, result({"status": {"a": 1}}), "failed"),
    (RESET_16, result([]), "failed"),
    (RESET_16, result({"status": "Accepted", "a\0b": "c\0d"}), "accepted"),
    (RESET_16, [4, "", "Internal\0Error", "boom\0", {}], "failed"),
    (RESET_16, [4, "", None, None, None], "failed"),
    (READ_16, result({"configurationKey": [{"key": "a\0", "value": "b\0"}]}), "accepted"),
    (READ_16, result({"configurationKey": {"a": 1}, "unknownKey": [[1]]}), "accepted"),
    (READ_16, result({"configurationKey": [{"key": "A"}, {"key": "a", "value": 2}]}), "accepted"),
    (CHANGE_16, result({"status": 5}), "failed"),
    (READ_16, result([1, 2]), "failed"),
    (READ_16, result("boo"), "failed"),
    (LIST_16, result({}), "failed"),
    (LIST_16, result({"listVersion": -1}), "accepted"),
]
ODD_201 = [
    (SET_MONITOR, one(SET, id=1, status="Accepted", type=["x"], severity=3), "accepted"),
    (SET_MONITOR, one(SET, id=1, status=["Accepted"], type="UpperThreshold"), "rejected"),
    (SET_MONITOR, one(SET, id=10**18, status="Accepted", type="UpperThreshold"), "accepted"),
    (CLEAR_MONITOR, one(CLEARED, id=10**30, status=["Accepted"]), "rejected"),
    (CLEAR_MONITOR, one(CLEARED, id=10**18, status="Accepted"), "accepted"),
    (GET_VARIABLE, one(READ, attributeStatus=["Accepted"]), "accepted"),
    (
        GET_VARIABLE,
        one(READ, attributeStatus="Accepted", attributeType={"a": 1}, attributeValue={"a": 1}),
        "accepted",
    ),
    (
        SET_VARIABLE,
        one("setVariableResult", attributeStatus="Accepted", component=1, variable=[2]),
        "accepted",
    ),
    (RESET_201, result({"status": ["Accepted"]}), "failed"),
    (BASE_REPORT, result({"status": {"x": 1}}), "failed"),
]


async def answering(yard: Yard, kind: type[ForeignStation], answers: list[list[Any]]) -> UUID:
    """A station that answers our commands with these frames, one after the other. Its id."""
    box = yard.station(yard.nordlicht, kind)
    await box.connect()
    await box.boot()
    assert box.socket is not None
    say = box.socket.send

    async def send(message: Any) -> None:
        frame = json.loads(message)
        if frame[0] in (3, 4) and answers:
            kind_, _, *rest = answers.pop(0)
            message = json.dumps([kind_, frame[1], *rest])
        await say(message)

    box.socket.send = send
    (link,) = await rows(yard, yard.nordlicht, StationConnection)
    return link.station_id


async def send_all(yard: Yard, station_id: UUID, asked: list[tuple[str, dict[str, Any]]]) -> list[UUID]:
    async with yard.database.scope(yard.nordlicht.tenant_id, STAFF) as scope:
        return [(await commands.send_command(scope, station_id, *one)).id for one in asked]


async def ended(yard: Yard, command_id: UUID) -> StationCommand:
    is_over = StationCommand.status.notin_(("queued", "sent"))
    found = await until(
        lambda: rows(yard, yard.nordlicht, StationCommand, StationCommand.id == command_id, is_over)
    )
    return found[0]


@pytest.mark.parametrize(("kind", "odd"), [(Station16, ODD_16), (Station201, ODD_201)])
async def test_a_command_ends_whatever_the_station_answers(
    yard: Yard, kind: type[ForeignStation], odd: list[Any]
):
    station_id = await answering(yard, kind, [answer for _, answer, _ in odd])
    sent = await send_all(yard, station_id, [asked for asked, _, _ in odd])
    wrong = []
    for command_id, (asked, answer, status) in zip(sent, odd, strict=True):
        command = await ended(yard, command_id)
        if command.status != status:
            wrong.append((asked[0], answer, command.status, command.error))
    assert not wrong
    frames = await rows(yard, yard.nordlicht, OCPPMessage, OCPPMessage.kind.in_(("result", "error")),
                        OCPPMessage.direction == "in")  # fmt: skip
    said = [json.loads(frame.raw) for frame in sorted(frames, key=lambda one: one.at)]
    assert [[frame[0], *frame[2:]] for frame in said] == [[one[0], *one[2:]] for _, one, _ in odd]


async def test_what_an_answer_tells_of_a_station_cannot_undo_its_end(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    """Whatever goes wrong while it is read: the command has its answer, and nothing of it stands half."""

    async def half_read(scope: Any, command_id: UUID) -> None:
        command = await commands.get_command(scope, command_id)
        monitor = VariableMonitor(
            station_id=command.station_id, monitor_no=7, path="C/V", kind="UpperThreshold", value=1, severity=5,
            in_transactions_only=False, reported_at=scope.now,
        )  # fmt: skip
        scope.db.add(monitor)
        await scope.db.flush()
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(aside.device_reports, "answered", half_read)
    station_id = await answering(yard, Station16, [])
    (sent,) = await send_all(yard, station_id, [RESET_16])
    command = await ended(yard, sent)
    assert (command.status, command.answer) == ("accepted", {"status": "Accepted"})
    assert not await rows(yard, yard.nordlicht, VariableMonitor)


async def test_of_an_answer_that_cannot_be_written_nobody_claims_to_know_what_came(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    conclude = commands.conclude_command

    async def unable(scope: Any, command_id: UUID, status: Any, answer: Any, error: Any) -> bool:
        if answer is not None:
            raise ValueError("nobody thought of this")
        return await conclude(scope, command_id, status, answer, error)

    monkeypatch.setattr(commands, "conclude_command", unable)
    station_id = await answering(yard, Station16, [])
    (sent,) = await send_all(yard, station_id, [RESET_16])
    command = await ended(yard, sent)
    assert (command.status, command.error) == ("unknown", "the answer could not be read")
    kinds = [one.kind for one in await rows(yard, yard.nordlicht, OCPPMessage, OCPPMessage.action == "Reset")]
    assert sorted(kinds) == ["call", "result"]


def test_nul_inside_a_text_is_read_as_the_replacement_character_and_at_its_end_not_at_all():
    """It cannot be stored; a question with one is refused, but an answer or a report tells of what has been done."""
    assert codec.decode(r'[3,"a",{"k\u0000":["v\u0000",{"w":"\u0000"}],"n":1}]') == Result(
        "a", {"k": ["v", {"w": ""}], "n": 1}
    )
    assert codec.decode(r'[4,"a","Code\u0000","said\u0000",{"d\u0000":"\u0000"}]') == Error(
        "a", "Code", "said", {"d": ""}
    )
