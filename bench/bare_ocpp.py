"""Baseline: the `ocpp` package on websockets, no database: what everyone starts with."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result
from ocpp.v16.enums import RegistrationStatus
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol


class Station(ChargePoint):
    @on("BootNotification")
    def boot(self, **_: Any) -> call_result.BootNotification:
        now = datetime.now(UTC).isoformat()
        return call_result.BootNotification(
            current_time=now, interval=300, status=RegistrationStatus.accepted
        )

    @on("StatusNotification")
    def status(self, **_: Any) -> call_result.StatusNotification:
        return call_result.StatusNotification()

    @on("MeterValues")
    def metering(self, **_: Any) -> call_result.MeterValues:
        return call_result.MeterValues()


async def handle(socket: ServerConnection) -> None:
    assert socket.request is not None
    try:
        await Station(socket.request.path, socket).start()
    except ConnectionClosed:
        pass


async def main(port: int) -> None:
    logging.getLogger("ocpp").setLevel(logging.ERROR)
    async with serve(
        handle, "127.0.0.1", port, subprotocols=[Subprotocol("ocpp1.6")], compression=None, max_size=65536,
        ping_interval=None, backlog=4096,
    ):  # fmt: skip
        await asyncio.get_running_loop().create_future()


asyncio.run(main(int(sys.argv[1])))
