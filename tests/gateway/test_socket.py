"""Frames as TCP delivers them: cut anywhere, several at once, in fragments. None is lost or read twice (RFC 6455 5).

What is one whole text frame is read by us, all else by the library: both must agree on where the next frame begins."""

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from websockets.exceptions import ConnectionClosed

from ocpp_gateway.socket import StationSocket
from tests.gateway.conftest import Yard
from tests.gateway.test_hostile import Raw, raw16, raw201

pytestmark = pytest.mark.anyio
__all__ = ["raw16", "raw201"]

TEXT, CONTINUED, PING = 1, 0, 9
MASK = b"\x81\x85\x00\xff"  # as awkward as a mask can be: a text frame's own first bytes


def frame(
    payload: bytes, opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    head += (
        bytes([bit | len(payload)])
        if len(payload) < 126
        else bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    )
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[n % 4] for n, byte in enumerate(payload))


def call(message_id: str, more: str = "") -> bytes:
    return json.dumps(
        [2, message_id, "DataTransfer", {"vendorId": "V", "data": more}], ensure_ascii=False
    ).encode()


async def say(raw: Raw, *parts: bytes) -> None:
    for part in parts:
        raw.socket.transport.write(part)
        await asyncio.sleep(0.004)  # a segment of its own


async def answers(raw: Raw, count: int) -> list[str]:
    heard: list[str] = []
    while len(heard) < count:
        answer = json.loads(await asyncio.wait_for(raw.socket.recv(), 5))
        if answer[0] != 2:
            assert answer[0] == 3
            heard.append(answer[1])
    return heard


async def test_a_frame_cut_in_two_anywhere_is_answered_once(raw16: Raw):
    for size in (0, 60, 120):
        whole = frame(call("x", "ä" * size))
        cuts = sorted({*range(1, 14), len(whole) // 2, len(whole) - 1})
        for n, cut in enumerate(cuts):
            whole = frame(call(f"c{size}-{n}", "ä" * size))
            await say(raw16, whole[:cut], whole[cut:])
            assert await answers(raw16, 1) == [f"c{size}-{n}"]


@pytest.mark.parametrize("seed", range(6))
async def test_a_stream_of_frames_cut_at_random_is_read_as_it_was_sent(raw16: Raw, seed: int):
    chance = random.Random(seed)

    def stream() -> Iterator[bytes]:
        for n in range(30):
            payload = call(f"s{n}", "ü\x81é" * chance.choice([0, 1, 40, 300]))
            if chance.random() < 0.3:
                yield frame(b"hello", PING)
            if chance.random() < 0.3:
                first, second = sorted(chance.sample(range(1, len(payload)), 2))
                yield frame(payload[:first], fin=False)
                yield frame(b"", PING)
                yield frame(payload[first:second], CONTINUED, fin=False)
                yield frame(payload[second:], CONTINUED)
            else:
                yield frame(payload)

    told = b"".join(stream())
    cuts = [0, *sorted(chance.sample(range(1, len(told)), 40)), len(told)]
    await say(raw16, *[told[here:there] for here, there in pairwise(cuts)])
    assert await answers(raw16, 30) == [f"s{n}" for n in range(30)]


async def test_whole_frames_do_not_go_the_librarys_way(raw16: Raw, monkeypatch: pytest.MonkeyPatch):
    """Should a release of the library work otherwise inside, it is slower and not wrong: this says so."""
    theirs: list[bytes] = []
    hand_over = StationSocket._hand_over

    def counted(socket: StationSocket, data: bytes) -> None:
        theirs.append(data)
        hand_over(socket, data)

    monkeypatch.setattr(StationSocket, "_hand_over", counted)
    for n in range(5):
        await say(raw16, frame(call(f"w{n}", "x" * 100 * n)))
        assert await answers(raw16, 1) == [f"w{n}"]
    assert not theirs
    whole = frame(call("w9"))
    await say(raw16, whole[:1], whole[1:])
    assert await answers(raw16, 1) == ["w9"]
    assert len(theirs) == 1
    await say(raw16, frame(call("w10")))
    assert await answers(raw16, 1) == ["w10"]
    assert len(theirs) == 1


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (frame(b'[2,"x","Heartbeat",{"\xff":1}]'), 1007), (frame(call("x"), masked=False), 1002),
        (frame(call("x"), rsv=4), 1002), (frame(call("x"), 3), 1002),
        (frame(call("x")[:9], fin=False) + frame(call("y")), 1002), (frame(call("x")[:9], CONTINUED), 1002),
        (b"\x81\xff" + (70_000).to_bytes(8, "big") + MASK + b"x" * 300, 1009),
    ],
    ids=["utf-8", "unmasked", "reserved bit", "reserved opcode", "text in fragments", "no beginning", "too long"],
)  # fmt: skip
async def test_what_the_protocol_forbids_ends_the_link_with_its_code(
    yard: Yard, raw16: Raw, wrong: bytes, code: int
):
    with suppress(ConnectionClosed):
        await say(raw16, frame(call("before")))
        assert await answers(raw16, 1) == ["before"]
        await say(raw16, wrong)
        await answers(raw16, 1)
    assert raw16.socket.close_code == code


async def test_a_long_answer_has_a_long_header(raw201: Raw):
    """Ours are short; those that are not go out whole as well."""
    message_id = "i" * 36
    answer = await raw201.call("NoSuchAction", {"x": "y" * 200}, message_id)
    assert (answer[0], answer[1]) == (4, message_id)
