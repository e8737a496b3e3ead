"""ocpp.md section 2, rows 1 to 25: who may in, and what a socket may carry. Each test is named after its rows."""

import asyncio
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from websockets.exceptions import InvalidStatus

from app.kernel.errors import Refused
from app.stations import commands
from app.stations import service as stations
from app.stations.models import OCPPMessage, StationAlert, StationCommand, StationConnection
from ocpp_gateway import connection as connection_module
from ocpp_gateway.metrics import REFUSED
from tests.gateway.street import REQUEST_S, Box, Link, Street, box, street

pytestmark = pytest.mark.anyio
__all__ = ["box", "street"]


async def refusal(attempt: Any) -> tuple[int, bytes]:
    with pytest.raises(InvalidStatus) as refused:
        await attempt
    response = refused.value.response
    return response.status_code, bytes(response.body or b"")


# -- credentials -------------------------------------------------------------------------------------------------------


async def test_row_1_2_without_credentials_and_unknown_are_answered_like_a_wrong_key_and_write_nothing(
    box: Box,
):
    before = REFUSED.labels("credentials")._value.get()
    answers = {
        await refusal(box.dial(authorization=None)),
        await refusal(box.dial(authorization=box.basic(password="0" * 40))),
        await refusal(box.dial(path="nordlicht/GHOST", authorization=box.basic("GHOST"))),
    }
    assert answers == {(401, b"Unauthorized\n")}
    assert REFUSED.labels("credentials")._value.get() == before + 3
    assert not await box.rows(OCPPMessage)
    assert not await box.rows(StationConnection)


async def test_row_2_strangers_wait_among_the_unclaimed_and_their_pool_is_capped(street: Street, box: Box):
    for number in range(3):
        await refusal(box.dial(path=f"nordlicht/NEW-{number}", authorization=box.basic(f"NEW-{number}")))
    async with street.scope() as scope:
        seen = set((await scope.db.execute(text("select identity from platform.own_unclaimed()"))).scalars())
    assert {"NEW-0", "NEW-1", "NEW-2"} <= seen
    assert len(seen) <= 500


async def test_row_4_another_user_name_than_the_identity_is_401(box: Box):
    assert (await refusal(box.dial(authorization=box.basic("SOMEBODY"))))[0] == 401


async def test_row_5_a_key_is_bound_to_its_brand(box: Box):
    assert (await refusal(box.dial(path=f"solmark/{box.identity}")))[0] == 401


async def test_row_6_the_key_as_text_and_as_raw_bytes_is_one_key(box: Box):
    for spelling in (box.password, box.password.upper(), bytes.fromhex(box.password)):
        link = await box.dial(authorization=box.basic(password=spelling))
        await link.close()


def test_row_7_the_proxy_serves_no_plain_websocket():
    caddyfile = (Path(__file__).parents[2] / "deploy" / "Caddyfile").read_text()
    sites = [
        line.removesuffix(" {") for line in caddyfile.splitlines() if line.endswith(" {") and line[0] != "\t"
    ]
    assert "ocpp.{$LIVERY_PLATFORM_DOMAIN}" in sites  # Caddy serves a bare name by TLS, and redirects port 80
    assert not [site for site in sites if site.startswith("http://") or ":80" in site]
    assert "auto_https" not in caddyfile


async def test_row_8_a_lower_security_profile_is_refused_as_setting_and_as_command(street: Street):
    box = await street.box(security_profile=2)
    with pytest.raises(Refused, match="only be raised"):
        async with street.scope() as scope:
            await stations.update_station(scope, box.station_id, security_profile=1)
    variable = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "SecurityProfile"}}
    for action, payload in (
        ("ChangeConfiguration", {"key": "SecurityProfile", "value": "1"}),
        ("SetVariables", {"setVariableData": [{"attributeValue": "1", **variable}]}),
    ):
        with pytest.raises(Refused, match="only be raised"):
            async with street.scope() as scope:
                await commands.send_command(scope, box.station_id, action, payload)
    assert not await box.rows(StationCommand)


# -- two connections ---------------------------------------------------------------------------------------------------


async def test_row_12_14_a_new_connection_wins_over_a_dead_one_and_its_late_end_is_no_end(
    street: Street, box: Box
):
    old = await box.online()
    old.socket.transport.pause_reading()  # alive for TCP, deaf for everybody
    new = await box.online()
    assert await new.is_alive()
    old.cut()
    await asyncio.sleep(0.3)
    (link,) = await box.rows(StationConnection)
    assert (link.is_online, link.epoch) == (True, 2)
    command = asyncio.create_task(box.command("Reset", {"type": "Soft"}))
    new.answers["Reset"] = {"status": "Accepted"}
    assert (await command).status == "accepted"


async def test_row_12_no_message_of_the_old_connection_is_lost(box: Box):
    old = await box.online()
    for number in range(20):
        await old.send([2, f"old-{number}", "DataTransfer", {"vendorId": "x", "messageId": f"old-{number}"}])
    await box.online()

    async def all_kept() -> bool:
        kept = await box.rows(
            OCPPMessage, OCPPMessage.action == "DataTransfer", OCPPMessage.direction == "in"
        )
        answered = {old.replies.get_nowait()[1] for _ in range(old.replies.qsize())}
        heard.update(answered)
        return {row.message_id for row in kept} >= heard

    heard: set[str] = set()
    await asyncio.wait_for(old.closed.wait(), 8)
    assert await all_kept()  # what was answered is in the database; the rest the station sends again


async def test_row_15_writes_of_an_older_epoch_are_refused(street: Street, box: Box):
    link = await box.online()
    await link.close()
    link = await box.online()
    async with street.scope() as scope:
        await commands.send_command(scope, box.station_id, "Reset", {"type": "Soft"})
        assert await commands.claim_commands(scope, box.station_id, epoch=1) == []
        await stations.connection_closed(scope, box.station_id, 1, "an older gateway's view")
    (row,) = await box.rows(StationConnection)
    assert (row.is_online, row.epoch) == (True, 2)


# -- the request -------------------------------------------------------------------------------------------------------


async def test_row_16_an_origin_header_is_no_reason_to_refuse(box: Box):
    link = await box.dial(headers={"Origin": "https://github.com/Links2004/arduinoWebSockets"})
    assert (await link.boot())[2]["status"] == "Accepted"


@pytest.mark.parametrize("version", [None, "ocpp9.9", "ocpp2.0.1.1"])
async def test_row_17_without_a_version_in_common_the_handshake_is_refused(box: Box, version: str | None):
    assert (await refusal(box.dial(version)))[0] in (400, 401)


@pytest.mark.parametrize(
    "identity", ["..", "%2e%2e", "BOX%00", "BOX%0a", "x" * 300, "%FF", "BOX%252F1", "a/b/c", ""]
)
async def test_row_18_what_is_no_identity_is_404(box: Box, identity: str):
    path = f"nordlicht/{identity}" if identity else "/"
    assert (await refusal(box.dial(path=path)))[0] == 404


async def raw_request(street: Street, head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", street.yard.port)
    writer.write(head)
    answer = await asyncio.wait_for(reader.read(), 6)
    writer.close()
    return answer.split(b"\r\n")[0]


async def test_row_19_long_request_lines_and_many_headers_are_414_and_431(street: Street):
    assert b" 414 " in await raw_request(street, b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    headers = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
    assert b" 431 " in await raw_request(street, b"GET /nordlicht/BOX HTTP/1.1\r\n" + headers + b"\r\n")


async def test_row_20_a_slow_handshake_is_closed_at_its_timeout(street: Street):
    started = asyncio.get_running_loop().time()
    assert await raw_request(street, b"GET /nordlicht/BOX HTTP/1.1\r\nHost: x\r\n") == b""
    assert REQUEST_S - 0.2 < asyncio.get_running_loop().time() - started < REQUEST_S + 2


# -- frames of the transport -------------------------------------------------------------------------------------------


def frame(payload: bytes, *, first: int = 0x81, masked: bool = True, length: int | None = None) -> bytes:
    """A client's WebSocket frame, however wrong (RFC 6455 5.2)."""
    size = len(payload) if length is None else length
    head = bytes([first])
    if size < 126:
        head += bytes([size | (0x80 if masked else 0)])
    elif size < 2**16:
        head += bytes([126 | (0x80 if masked else 0)]) + struct.pack("!H", size)
    else:
        head += bytes([127 | (0x80 if masked else 0)]) + struct.pack("!Q", size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


async def test_row_21_a_frame_that_drips_in_is_closed_by_the_missed_pong(
    street: Street, box: Box, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "PING_S", 0.4)
    link = await box.online()
    transport = link.socket.transport
    transport.write(frame(b"", length=60_000))
    for _ in range(40):
        transport.write(b"[")
        await asyncio.sleep(0.05)
        if link.closed.is_set():
            break
    (row,) = await street.until(lambda: box.rows(StationConnection, StationConnection.is_online.is_(False)))
    assert "no sign of life" in row.close_reason


@pytest.mark.parametrize("how", ["one frame", "a header that claims 2^40", "fragments"])
async def test_row_22_more_than_64_kib_is_1009_without_being_read(street: Street, box: Box, how: str):
    link = await box.online()
    if how == "one frame":
        await link.send("[" + "x" * 70_000)
    elif how == "fragments":
        for number in range(8):
            link.socket.transport.write(frame(b"x" * 10_000, first=0x01 if number == 0 else 0x00))
    else:
        link.socket.transport.write(frame(b"", length=2**40))
    assert await link.ends() == 1009


async def test_row_23_a_deflate_bomb_is_1009_where_compression_is_spoken(street: Street, box: Box):
    link = await box.dial("ocpp2.0.1", compression="deflate")
    assert (await link.boot())[2]["status"] == "Accepted"
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    bomb = packer.compress(b"0" * 50_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 64 * 1024
    link.socket.transport.write(frame(bomb[:-4], first=0xC1))
    assert await link.ends() == 1009


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(b"\xff\xfe"), 1007),
        (frame(b"{}", masked=False), 1002),
        (frame(b"{}", first=0x83), 1002),
        (frame(b"{}", first=0xC1), 1002),
    ],
    ids=["invalid UTF-8", "unmasked", "reserved opcode", "RSV1"],
)
async def test_row_24_what_breaks_the_transport_closes_with_its_own_code(box: Box, wire: bytes, code: int):
    link = await box.online()
    link.socket.transport.write(wire)
    assert await link.ends() == code


async def test_row_25_a_binary_frame_is_1003_and_an_empty_text_is_ignored(box: Box):
    link: Link = await box.online()
    await link.send("")
    assert await link.is_alive()
    await link.send(os.urandom(8))
    assert await link.ends() == 1003


async def test_row_3_wrong_keys_end_in_429_and_never_lock_the_station_out_from_its_usual_address(
    street: Street, box: Box
):
    wrong = box.basic(password="0" * 40)
    codes = [(await refusal(box.dial(authorization=wrong)))[0] for _ in range(12)]
    assert codes == [401] * 10 + [429] * 2
    assert (await refusal(box.dial()))[0] == 429  # this address has never been the station's
    for _ in range(50 - 12 - 1):
        await refusal(box.dial(authorization=wrong))
    (alert,) = await street.until(lambda: box.rows(StationAlert))
    assert alert.kind == "wrong_key"
    other = await street.box()
    await (await other.dial()).close()
    wrong = other.basic(password="0" * 40)
    assert {(await refusal(other.dial(authorization=wrong)))[0] for _ in range(12)} == {401}
    assert await (await other.online()).is_alive()
